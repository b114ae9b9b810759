"""A network of messages for SIRENs and other sine networks that respects permutations and sign flips of neurons.

A hidden neuron of a sine network may change its sign: its incoming weights, its bias and its outgoing weights are
multiplied by -1, and the function stays the same, since the sine is odd. Features of a neuron are therefore *odd* (they
change sign with it) or *even*. Linear maps join odd features with odd ones only, and have no constants there. The product
of two odd features is even. A gate of odd features by even ones is odd.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

import numpy as np

from nfn_core.arrays import Array, namespace_of, widened
from nfn_core.checks import (
    check_counts,
    check_flags,
    check_kind,
    check_numbers,
    check_sizes,
    plain_tuple,
    real_number,
)
from nfn_core.errors import SpecError
from nfn_core.features import check_features
from nfn_core.layers.base import Execution, Layer
from nfn_core.layers.composite import Composite
from nfn_core.layers.elementwise import ACTIVATIONS
from nfn_core.layers.hub_map import product
from nfn_core.layers.networks import MLPHead
from nfn_core.layers.norms import BatchNorm
from nfn_core.layers.parameters import ParameterSpec, on_host
from nfn_core.spaces import WeightSpace

__all__ = ["SignedMessages"]

ODD, EVEN = 2, 3
"""Numbers of odd and even features of a neuron that do not come from messages."""


@dataclass(frozen=True)
class SignedMessages(Composite):
    """Invariants of sine networks, sin(ω (W x + v)) in all layers but the last, by messages between their neurons.

    1. The first hidden neurons get the odd features sin(ω (W1 ξ + v1)) at learned points ξ.
    2. A message along W(l) takes them to the next layer: z = W(l) (h M) / √n, one matrix product for each network.
    3. With c = cos(ω v) and s = sin(ω v) of each neuron, and r, the mean square of its outgoing weights, the odd features
       (z c, z² s, s, s r, a) and the even features (z², z c s, c², s², r) are mixed, and the odd ones are normalized and
       gated by the SiLU of the even ones: h. Here a are the activations that the sine network itself has at the points ξ,
       unless `activations` is false.
    4. Steps 2 and 3 repeat for each hidden layer. A last message along W(L) sums over the neurons, for each output.
    5. A head reads the sums, normalized over the batch.

    The bias of the sine network's outputs is not read: functions that differ by a constant look alike. The output is
    unchanged when hidden neurons are permuted or change their sign, and when 2π is added to ω v.

    Parameters
    ----------
    space : WeightSpace
        Weight space of an MLP with biases and at least one hidden layer, as `WeightSpace.mlp` makes it.
    scales : tuple of float
        For each tensor the root of the mean square of its entries in the data; see `from_features`.
    outputs : int
        Number of outputs.
    channels : int
        Features of each neuron.
    points : int
        Number of points ξ.
    head : tuple of int
        Hidden units of the head.
    dropout : float
        Rate of dropout in the head.
    omega : float
        Frequency ω of the sine networks.
    activations : bool
        Whether neurons see the sine network's own activations at the points. Messages then include what learned probes of
        the function see. Without it the network reads weights and never evaluates what they encode.

    Raises
    ------
    SpecError
        If the space is not that of such a network, or a number is out of range.
    """

    space: WeightSpace
    scales: tuple[float, ...]
    outputs: int
    channels: int = 64
    points: int = 64
    head: tuple[int, ...] = (256, 256)
    dropout: float = 0.1
    omega: float = 30.0
    activations: bool = True
    depth: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_kind("space", self.space, WeightSpace)
        check_counts(self, "outputs", "channels", "points")
        check_sizes(self, "head")
        check_numbers(self, "[0, 1)", "dropout")
        check_numbers(self, "positive", "omega")
        check_flags(self, "activations")
        scales = [real_number(f"scales[{i}]", s, "positive") for i, s in enumerate(plain_tuple("scales", self.scales))]
        object.__setattr__(self, "scales", tuple(scales))
        tensors = self.space.by_name
        depth = len(tensors) // 2
        weights = [tensors[f"W{i}"] for i in range(1, depth + 1) if f"W{i}" in tensors]
        sizes = [*(t.shape[-1] for t in weights[:1]), *(t.shape[0] for t in weights)]
        if len(weights) < depth or depth < 2 or _axes(self.space) != _axes(WeightSpace.mlp(sizes)):
            raise SpecError(f"SignedMessages takes the weight space of an MLP with hidden layers, not {self.space!r}.")
        if len(scales) != 2 * depth:
            raise SpecError(f"scales must be {2 * depth} numbers, one for each tensor, not {len(scales)}.")
        object.__setattr__(self, "depth", depth)

    @classmethod
    def from_features(
        cls, space: WeightSpace, features: Mapping[str, np.ndarray], outputs: int, **options: Any
    ) -> "SignedMessages":
        """Measure the scales of training features.

        Parameters
        ----------
        space : WeightSpace
            The space of the features.
        features : mapping of str to numpy.ndarray
            Training networks, each tensor of shape (batch, *axes, 1).
        outputs : int
            Number of outputs.
        **options : Any
            Further arguments of the constructor.

        Returns
        -------
        SignedMessages
            The network; a tensor of zeros has the scale 1.

        Raises
        ------
        FeatureError
            If the features do not fit the space.
        SpecError
            If they are empty, or as the constructor.
        """
        check_features(space, features, 1, finite=True)
        if not len(features[space.tensors[0].name]):
            raise SpecError("scales need at least one network, but the batch is empty.")
        squares = (np.mean(np.square(on_host(t.name, features[t.name]))) for t in space.tensors)
        return cls(space, tuple(float(np.sqrt(x)) or 1.0 for x in squares), outputs, **options)

    def hidden(self) -> Sequence[int]:
        """Return the layers whose neurons are updated: all hidden ones but the first, or the first if it is the only one."""
        return range(2, self.depth) if self.depth > 2 else (1,)

    def children(self) -> dict[str, Layer]:
        """Return the norms of messages and of odd features, by layer, the norm of the sums, and the head."""
        found: dict[str, Layer] = {}
        for i in self.hidden():
            neurons = WeightSpace.from_axes({"h": [("h", self.space.by_name[f"W{i}"].shape[0])]})
            for name in (f"message{i}", f"odd{i}"):
                found[name] = BatchNorm(neurons, self.channels, center=False)
        flat = self.channels * self.space.by_name[f"W{self.depth}"].shape[0]
        norm = BatchNorm(None, flat)
        return found | {"norm": norm, "head": MLPHead((flat, *self.head, self.outputs), dropout=self.dropout)}

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return the scales as constants, the points (inputs, points), matrices, and the children's parameters.

        ``"mix.I"`` has shape (features before, channels), ``"odd.I"`` (2 channels + 2, channels), with activations
        (2 channels + 2 + points, channels), and ``"even.I"`` (2 channels + 3, channels) with a bias (channels,).
        """
        c, before = self.channels, self.points
        specs = {
            f"scale.{t.name}": ParameterSpec((1,), "constant", value=scale, trainable=False)
            for t, scale in zip(self.space.tensors, self.scales, strict=True)
        }
        specs["points"] = ParameterSpec((self.space.by_name["W1"].shape[-1], self.points), "normal", value=0.6)
        for i in self.hidden():
            specs[f"mix.{i}"] = ParameterSpec((before, c), "normal", value=1 / sqrt(before))
            for kind, alone in (("odd", ODD + self.points * self.activations), ("even", EVEN)):
                rows = 2 * c + alone
                specs[f"{kind}.{i}"] = ParameterSpec((rows, c), "uniform", ((c, rows),))
            specs[f"bias.{i}"] = ParameterSpec((c,), "uniform", ((c, 2 * c + EVEN),))
            before = c
        return specs | super().parameter_specs()

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Array:
        """Map features of one channel to an array of shape (batch, outputs)."""
        xp = check_features(self.space, x, 1)
        given = {t.name: x[t.name][..., 0] for t in self.space.tensors}
        unit = {name: y / params[f"scale.{name}"] for name, y in given.items()}
        raw = {name: widened(y) for name, y in given.items()}  # what goes into sines
        dtype = given["W1"].dtype
        with execution.full_precision(raw["W1"]):
            phases = product(raw["W1"], widened(params["points"]), None) + raw["v1"][..., None]
        active = xp.sin(self.omega * phases)  # (batch, neurons, points), odd
        h = xp.astype(active, dtype, copy=False)
        for i in self.hidden():
            h = product(h, params[f"mix.{i}"], None)
            if i > 1:
                h = xp.matmul(unit[f"W{i}"], h) / sqrt(h.shape[1])
                if self.activations:
                    with execution.full_precision(active):
                        phases = xp.matmul(raw[f"W{i}"], active) + raw[f"v{i}"][..., None]
                    active = xp.sin(self.omega * phases)
            z = self.call(f"message{i}", params, {"h": h}, execution)["h"]
            own = [xp.astype(active, dtype, copy=False)] if self.activations else []
            h = self._update(i, params, z, own, raw[f"v{i}"], unit[f"W{i + 1}"], execution)
        last = unit[f"W{self.depth}"]
        sums = xp.matmul(last, h) / sqrt(last.shape[-1])  # (batch, outputs of the sine network, channels), even
        sums = xp.reshape(sums, (sums.shape[0], sums.shape[1] * sums.shape[2]))
        out: Array = self.call("head", params, self.call("norm", params, sums, execution), execution)
        return out

    def _update(
        self,
        i: int,
        params: Mapping[str, Array],
        z: Array,
        own: list[Array],
        bias: Array,
        outgoing: Array,
        execution: Execution,
    ) -> Array:
        """Odd features of the neurons of layer i from their messages z and own odd ones, (batch, neurons, channels)."""
        xp = namespace_of(z)
        phase = (self.omega * bias)[..., None]
        wide = widened(outgoing)
        r = xp.mean(wide * wide, axis=1)[..., None]
        c, s, r = (xp.astype(y, outgoing.dtype, copy=False) for y in (xp.cos(phase), xp.sin(phase), r))
        odd = product(xp.concat([z * c, z * z * s, s, s * r, *own], axis=-1), params[f"odd.{i}"], None)
        even = xp.concat([z * z, z * (c * s), c * c, s * s, r], axis=-1)
        even = product(even, params[f"even.{i}"], params[f"bias.{i}"])
        normalized: Array = self.call(f"odd{i}", params, {"h": odd}, execution)["h"]
        return ACTIVATIONS["silu"](xp, even) * normalized


def _axes(space: WeightSpace) -> dict[str, tuple[tuple[int, ...], tuple[str | None, ...]]]:
    """Shapes and labels of a space's tensors."""
    return {t.name: (t.shape, t.labels) for t in space.tensors}
