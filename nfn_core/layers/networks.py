"""Networks: layers in sequence, residual blocks, heads, and the two shapes the paper uses (section 3 and appendix D)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

from nfn_core.arrays import Array, is_array, namespace_of
from nfn_core.checks import (
    boolean,
    check_choice,
    check_kind,
    check_numbers,
    check_sizes,
    plain_tuple,
    positive_ints,
    real_number,
    shown,
)
from nfn_core.errors import FeatureError, SpecError
from nfn_core.features import check_real
from nfn_core.groups import Group
from nfn_core.layers.base import Execution, Layer
from nfn_core.layers.composite import Composite
from nfn_core.layers.elementwise import ACTIVATIONS, ODD_ACTIVATIONS, Activation, Dropout, Gate, LayerNorm, dropped
from nfn_core.layers.graded import ByParity, GradedGate, GradedProduct, parity_space
from nfn_core.layers.hub_map import product
from nfn_core.layers.low_rank import LowRankNFLayer
from nfn_core.layers.nf import InvariantPool, NFLayer, PointwiseLayer
from nfn_core.layers.norms import BatchNorm, InstanceNorm, SetNorm
from nfn_core.layers.parameters import ParameterSpec

__all__ = ["MLPHead", "Residual", "Sequential", "equivariant_network", "invariant_network"]

NORMS: dict[str, type[LayerNorm | BatchNorm | SetNorm]] = {
    "layer": LayerNorm,
    "batch": BatchNorm,
    "set": SetNorm,
    "instance": InstanceNorm,
}
"""Normalizations of features by name."""


@dataclass(frozen=True)
class Sequential(Composite):
    """Layers applied one after another; a layer's parameters carry its index in front, ``"0.hub"``.

    Parameters
    ----------
    layers : tuple of Layer
        The layers, first applied first.

    Raises
    ------
    SpecError
        If something in it is not a layer.
    """

    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", plain_tuple("layers", self.layers))
        for i, layer in enumerate(self.layers):
            check_kind(f"layers[{i}]", layer, Layer)

    def children(self) -> dict[str, Layer]:
        """Return the layers by index."""
        return {str(i): layer for i, layer in enumerate(self.layers)}

    def keeps_signs(self) -> bool:
        """Return whether all layers do."""
        return all(layer.keeps_signs() for layer in self.layers)

    def channels_after(self, channels: int) -> int:
        """Return the last layer's channels."""
        for layer in self.layers:
            channels = layer.channels_after(channels)
        return channels

    def forward(self, params: Mapping[str, Array], x: Any, execution: Execution) -> Any:
        """Apply the layers in order, in segments if activations are to be computed again."""
        if execution.recompute is None or execution.checkpoint is None:
            return self._steps(0, len(self.layers), params, x, execution)
        kinds = NFLayer | LowRankNFLayer | PointwiseLayer | Residual | Composite
        mixing = [i for i, layer in enumerate(self.layers) if isinstance(layer, kinds)]
        cuts = [0, *mixing[execution.checkpoint :: execution.checkpoint], len(self.layers)]
        for start, stop in pairwise(cuts):
            x, found = execution.recompute(partial(self._segment, start, stop, execution), params, x)
            for name, value in found.items():
                execution.statistics(name, value)  # type: ignore[misc]  # found are only collected where it is given
        return x

    def _segment(
        self, start: int, stop: int, execution: Execution, params: Mapping[str, Array], x: Any
    ) -> tuple[Any, dict[str, Array]]:
        """Apply layers start to stop - 1; new constants are returned, so that computing again does not count twice."""
        found: dict[str, Array] = {}
        collect = None if execution.statistics is None else found.__setitem__
        return self._steps(start, stop, params, x, replace(execution, checkpoint=None, statistics=collect)), found

    def _steps(self, start: int, stop: int, params: Mapping[str, Array], x: Any, execution: Execution) -> Any:
        """Apply layers start to stop - 1."""
        for i in range(start, stop):
            x = self.call(str(i), params, x, execution)
        return x


@dataclass(frozen=True)
class Residual(Layer):
    """Residual block: the input plus a layer's output.

    Parameters
    ----------
    layer : Layer
        A layer or sequence that keeps space and channels.

    Raises
    ------
    SpecError
        If it is no layer.
    """

    layer: Layer

    def __post_init__(self) -> None:
        check_kind("layer", self.layer, Layer)

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return the layer's parameters."""
        return self.layer.parameter_specs()

    def keeps_signs(self) -> bool:
        """Return whether its layer does."""
        return self.layer.keeps_signs()

    def channels_after(self, channels: int) -> int:
        """Return `channels`, which the layer must keep."""
        after = self.layer.channels_after(channels)
        if after != channels:
            raise SpecError(f"a residual block must keep its {channels} channels, but its layer gives {after}.")
        return channels

    def forward(self, params: Mapping[str, Array], x: Any, execution: Execution) -> Any:
        """Add the layer's output to its input."""
        change = self.layer.forward(params, x, execution)
        if not isinstance(x, Mapping):
            if is_array(x) and is_array(change) and x.shape == change.shape:
                return x + change
            raise FeatureError(
                f"a residual block adds arrays of one shape, but its input is {_kind(x)}, and its layer gives {_kind(change)}."
            )
        if not isinstance(change, Mapping) or change.keys() != x.keys():
            raise FeatureError(
                f"a residual block must keep the tensors {list(x)}, but its layer gives {_kind(change)}."
            )
        for name, y in x.items():
            if y.shape != change[name].shape:
                raise FeatureError(
                    f"tensor {name!r}: a residual block must keep the shape {tuple(y.shape)}, but its layer gives "
                    f"{tuple(change[name].shape)}: use as many output as input channels."
                )
        return {name: y + change[name] for name, y in x.items()}


@dataclass(frozen=True)
class MLPHead(Layer):
    """Fully-connected network on flattened invariants (paper, sections D.1 and D.3).

    Parameters
    ----------
    sizes : tuple of int
        Width of every layer: flattened inputs, hidden units, outputs.
    activation : str
        Between the layers.
    dropout : float
        Rate of dropout after every hidden activation.

    Raises
    ------
    SpecError
        If there are fewer than two sizes or an option is unknown.
    """

    sizes: tuple[int, ...]
    activation: str = "relu"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_sizes(self, "sizes")
        check_numbers(self, "[0, 1)", "dropout")
        check_choice("activation", self.activation, tuple(ACTIVATIONS))
        if len(self.sizes) < 2:
            raise SpecError(f"a head needs at least two sizes (inputs and outputs), not {self.sizes}.")

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return for layer i a weight (inputs, outputs) and a bias (outputs,), uniform in ±1/√inputs."""
        specs: dict[str, ParameterSpec] = {}
        for i, (rows, columns) in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            specs[f"{i}.weight"] = ParameterSpec((rows, columns), "uniform", ((columns, rows),))
            specs[f"{i}.bias"] = ParameterSpec((columns,), "uniform", ((columns, rows),))
        return specs

    def forward(self, params: Mapping[str, Array], x: Array, execution: Execution) -> Array:
        """Map an array of shape (batch, ...) to (batch, sizes[-1])."""
        xp = namespace_of(x)
        if x.ndim < 1:
            raise FeatureError(f"head: expected an array of shape (batch, ...), not {tuple(x.shape)}.")
        check_real("features", x)
        flat = 1
        for n in x.shape[1:]:
            flat *= n
        if flat != self.sizes[0]:
            raise FeatureError(
                f"head: expected {self.sizes[0]} inputs a network, but shape {tuple(x.shape)} has {flat}."
            )
        x = xp.reshape(x, (x.shape[0], flat))
        for i in range(len(self.sizes) - 1):
            if i:
                x = Activation(self.activation).forward({}, x, execution)
                x = dropped(x, self.dropout, execution)
            x = product(x, params[f"{i}.weight"], params[f"{i}.bias"])
        return x


def equivariant_network(
    group: Group,
    channels: Sequence[int],
    *,
    before: Sequence[Layer] = (),
    pointwise: bool = False,
    rank: int | None = None,
    activation: str = "relu",
    norm: str | None = None,
    gate: bool = False,
    dropout: float = 0.0,
    final_activation: bool = False,
) -> Sequential:
    """Equivariant stack: NF-layers with activations between them.

    Of a group with signs the layers between have features of all grades. Odd ones get tanh, unless the activation is odd,
    and after each activation or gate products of grades are added (`GradedProduct`).

    Parameters
    ----------
    group : Group
        The group, with its weight space.
    channels : sequence of int
        Input channels, then the channels of every NF-layer.
    before : sequence of Layer
        Normalization and encodings applied first; the first NF-layer's width follows from them. Of a group with signs they
        must keep signs, as a `Normalize` without means does. After `BiasPhases` the group is its `target`.
    pointwise : bool
        Use `PointwiseLayer` (NFN_PT) in place of `NFLayer`.
    rank : int, optional
        Use `LowRankNFLayer` of this rank in place of `NFLayer`, where a network has many inputs or outputs that are fixed.
    activation : str
        Elementwise map after every NF-layer but the last.
    norm : {"layer", "batch", "set", "instance"}, optional
        Normalization before each of these activations: `LayerNorm`, `BatchNorm`, `SetNorm` or `InstanceNorm`. With signs
        only ``"batch"``, which does not center odd features.
    gate : bool
        Whether to use `Gate` in place of the activation: these NF-layers then give twice the channels. With signs
        `GradedGate`, which leaves the channels as they are.
    dropout : float
        Rate of channel dropout after each of these activations.
    final_activation : bool
        Whether the last NF-layer is followed by them too.

    Returns
    -------
    Sequential
        The network.

    Raises
    ------
    SpecError
        If fewer than two numbers of channels are given, or an option is unknown, out of range or without signs.

    Examples
    --------
    >>> from nfn_core import WeightSpace
    >>> net = equivariant_network(WeightSpace.mlp([2, 32, 32, 1]).group("NP"), [1, 16, 16, 1])
    >>> len(net.layers)
    5
    """
    check_kind("group", group, Group)
    channels = _channels(channels)
    pointwise, gate = boolean("pointwise", pointwise), boolean("gate", gate)
    final_activation = boolean("final_activation", final_activation)
    check_choice("activation", activation, tuple(ACTIVATIONS))
    drop = Dropout(real_number("dropout", dropout, "[0, 1)"), "channels")
    if norm is not None:
        check_choice("norm", norm, tuple(NORMS))
    first = layers_before(before)
    width = first.channels_after(channels[0])
    layers = list(first.layers)
    if pointwise and rank is not None:
        raise SpecError(f"rank={rank!r} is for NF-layers that are not pointwise: give one of the two options.")
    if group.signed:
        _check_signed(first, pointwise, rank, norm)
    came, between = group, group.graded("all") if group.signed else group
    for i, after in enumerate(channels[1:], start=1):
        activated = i < len(channels) - 1 or final_activation
        wide = 2 * after if gate and activated and not group.signed else after
        target = between if activated else group
        if pointwise:
            layers.append(PointwiseLayer(group, width, wide))
        elif rank is not None:
            layers.append(LowRankNFLayer(group, width, wide, rank))
        else:
            layers.append(NFLayer(came, width, wide, target=None if target == came else target))
        width, came = after, target
        if activated:
            if group.signed:
                layers += _graded_block(between, after, activation, norm, gate)
            else:
                if norm is not None:
                    layers.append(NORMS[norm](group.space, wide))
                layers.append(Gate(activation) if gate else Activation(activation))
            if drop.rate > 0:
                layers.append(drop)
    return Sequential(tuple(layers))


def _graded_block(group: Group, channels: int, activation: str, norm: str | None, gate: bool) -> list[Layer]:
    """What stands between NF-layers of a group with signs."""
    spaces = [parity_space(group, odd) for odd in (False, True)]
    layers: list[Layer] = []
    if norm is not None:
        even, odd = (
            Sequential(()) if s is None else BatchNorm(s, channels, center=not k) for k, s in enumerate(spaces)
        )
        layers.append(ByParity(group, even, odd))
    if gate:
        layers.append(GradedGate(group, channels, activation))
    else:
        odd_one = activation if activation in ODD_ACTIVATIONS else "tanh"
        layers.append(ByParity(group, Activation(activation), Activation(odd_one)))
    return [*layers, Residual(GradedProduct(group, channels, channels))]


def _check_signed(before: Sequential, pointwise: bool, rank: int | None, norm: str | None) -> None:
    """Check that options respect signs."""
    lost = [layer for layer in before.layers if not layer.keeps_signs()]
    if lost:
        raise SpecError(
            f"before must keep signs, but {lost[0]!r} does not: normalize by Normalize.from_features(..., center=False)."
        )
    for name, value, usual in (
        ("pointwise", pointwise, (False,)),
        ("rank", rank, (None,)),
        ("norm", norm, (None, "batch")),
    ):
        if value not in usual:
            raise SpecError(f"{name}={value!r} is not for groups with signs: use NF-layers, with norm 'batch' or none.")


def invariant_network(
    group: Group,
    channels: Sequence[int],
    head: Sequence[int],
    *,
    pool: Group | None = None,
    statistics: Sequence[str] = (),
    pool_norm: bool = False,
    head_dropout: float = 0.0,
    before: Sequence[Layer] = (),
    pointwise: bool = False,
    rank: int | None = None,
    activation: str = "relu",
    norm: str | None = None,
    gate: bool = False,
    dropout: float = 0.0,
) -> Sequential:
    """Equivariant stack, invariant pooling, and a fully-connected head.

    Parameters
    ----------
    group : Group
        The group, with its weight space.
    channels : sequence of int
        Input channels, then the channels of every NF-layer, each followed by the activation.
    head : sequence of int
        Hidden widths and outputs of the head, at least the number of outputs.
    pool : Group, optional
        Group of the pooling, by default `group`; HNP after NP layers keeps input and output neurons apart. Of a group with
        signs the even features of the last block are pooled, by that group.
    statistics : sequence of str
        Statistics of the pooling, as in `InvariantPool`.
    pool_norm : bool
        Whether to normalize the pooled invariants over the batch (`BatchNorm`).
    head_dropout : float
        Rate of dropout in the head.
    before : sequence of Layer
        As in `equivariant_network`.
    pointwise, rank : bool, int
        As in `equivariant_network`.
    activation : str
        Elementwise map after every NF-layer and in the head.
    norm, gate : str, bool
        As in `equivariant_network`.
    dropout : float
        As in `equivariant_network`.

    Returns
    -------
    Sequential
        The network; its output has shape (batch, head[-1]).

    Raises
    ------
    SpecError
        As in `equivariant_network`, or if the pooling group acts on another space.
    """
    check_kind("group", group, Group)
    check_kind("pool", pool, Group | None)
    if group.signed and pool is not None:
        raise SpecError("pool is not for groups with signs, whose last features are pooled by the group itself.")
    among = group.graded("all") if group.signed else pool or group
    pooled = InvariantPool(among, statistics=plain_tuple("statistics", statistics))
    channels, head = _channels(channels), positive_ints("head", head)
    head_dropout = real_number("head_dropout", head_dropout, "[0, 1)")
    if not group.signed and among.space != group.space:
        raise SpecError("the pooling group must act on the same weight space as the layers' group.")
    stack = equivariant_network(
        group,
        channels,
        before=before,
        pointwise=pointwise,
        rank=rank,
        activation=activation,
        norm=norm,
        gate=gate,
        dropout=dropout,
        final_activation=True,
    )
    total = pooled.num_outputs * channels[-1]
    after = (BatchNorm(None, total),) if boolean("pool_norm", pool_norm) else ()
    return Sequential((*stack.layers, pooled, *after, MLPHead((total, *head), activation, head_dropout)))


def layers_before(before: Any) -> Sequential:
    """Layers that come first, as one."""
    layers = plain_tuple("before", before)
    for i, layer in enumerate(layers):
        check_kind(f"before[{i}]", layer, Layer)
    return Sequential(layers)


def _channels(channels: Any) -> tuple[int, ...]:
    """Input channels, and those of each NF-layer."""
    found = positive_ints("channels", channels)
    if len(found) < 2:
        raise SpecError(f"channels must hold the input channels and those of each NF-layer, not {found}.")
    return found


def _kind(x: Any) -> str:
    """What a layer gave, for messages."""
    return f"an array of shape {tuple(x.shape)}" if is_array(x) else shown(list(x) if isinstance(x, Mapping) else x)
