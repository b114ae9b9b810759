"""Layers: frozen descriptions that say which parameters they need and apply themselves to arrays.

The equivariant NF-layer (paper, Eq. 3 and tables 8-11), its pointwise restriction (NFN_PT, section 3), and the invariant
pooling layers P and P̃ (section 2.3 and Eq. 20).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nfn_core.arrays import Array, Features, check_features
from nfn_core.errors import SpecError
from nfn_core.groups import Group
from nfn_core.hub_map import hub_map, product
from nfn_core.hubs import Pooling, Structure, fold, pool, structure, unfold
from nfn_core.parameters import ParameterSpec, check_parameters

__all__ = ["Execution", "InvariantPool", "Layer", "NFLayer", "Noise", "PointwiseLayer", "Recompute"]

Noise = Callable[[tuple[int, ...], Array], Array]
"""Uniform numbers in [0, 1): given a shape and an array, an array of that shape with its dtype and device."""

Recompute = Callable[[Callable[[Any, Any], Any], Any, Any], Any]
"""Given a function of parameters and a value, and these two, its result, of which nothing inside is kept: the backward
pass computes it again (activation checkpointing)."""


@dataclass(frozen=True)
class Execution:
    """How a backend carries layers out.

    Parameters
    ----------
    noise : callable, optional
        Source of uniform numbers for dropout; without it (evaluation) nothing is dropped.
    hub_map : callable
        The linear part of NF-layers: `nfn_core.hub_map.hub_map`, or the same with a derivative of its own.
    activations : mapping of str to callable
        The backend's own functions in place of `ACTIVATIONS` of that name, with the same values and derivatives.
    recompute : callable, optional
        How a segment of a network is carried out whose activations are computed again in the backward pass.
    checkpoint : int, optional
        Number of NF-layers in such a segment; without it all activations are kept.

    Raises
    ------
    SpecError
        If `checkpoint` is not a positive integer.
    """

    noise: Noise | None = None
    hub_map: Callable[..., list[Array]] = hub_map
    activations: Mapping[str, Callable[[Array], Array]] = field(default_factory=dict)
    recompute: Recompute | None = None
    checkpoint: int | None = None

    def __post_init__(self) -> None:
        if self.checkpoint is not None:
            check_positive(checkpoint=self.checkpoint)


Init = Literal["uniform", "kaiming"]


class Layer:
    """Base of all layers. A subclass is a frozen dataclass with `parameters` and `forward`."""

    def parameters(self) -> dict[str, ParameterSpec]:
        """Return the parameters the layer needs, by dotted name; none unless a layer says so."""
        return {}

    def channels_after(self, channels: int) -> int:
        """Return the number of output channels for a number of input channels.

        Parameters
        ----------
        channels : int
            Channels of the input.

        Returns
        -------
        int
            Channels of the output.

        Raises
        ------
        SpecError
            If the layer takes another number of channels.
        """
        return channels

    def forward(self, params: Mapping[str, Array], value: Any, how: Execution) -> Any:
        """Apply the layer to a value, with parameters already checked; see `apply`."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it is applied: define forward.")

    def apply(self, params: Mapping[str, Array], features: Any, how: Execution = Execution()) -> Any:
        """Apply the layer: a pure function of arrays.

        Parameters
        ----------
        params : mapping of str to array
            Parameters by dotted name, as `parameters` lists them, of the features' library, dtype and device.
        features : mapping of str to array, or array
            The layer's input: features, each tensor of shape (batch, *axes, channels), or what the layer before returns.
        how : Execution
            What the backend provides: noise for dropout, derivatives of its own.

        Returns
        -------
        dict of str to array, or array
            The layer's output, of the features' library, dtype and device.

        Raises
        ------
        ParameterError
            If the parameters are not this layer's.
        FeatureError
            If the features do not fit.
        """
        check_parameters(self.parameters(), params, features)
        return self.forward(params, features, how)


@dataclass(frozen=True)
class NFLayer(Layer):
    """Equivariant linear NF-layer, maximal: every equivariant affine map is one of its parameter settings.

    Eq. 3 of the paper for NP, tables 8-11 for HNP, and the same for any other group.

    Parameters
    ----------
    group : Group
        The group, with its weight space.
    in_channels, out_channels : int
        Channels of input and output features.
    pooling : {"mean", "sum"}
        How axes are pooled (the star of Eq. 3).
    bias : bool
        Whether to add learned constants, one for each orbit of indices and channel.
    init : {"uniform", "kaiming"}
        Uniform in ±1/√fan-in, or normal of variance 2/fan-in with zero constants; the fan-in is that of all hubs
        that feed a tensor together.

    Raises
    ------
    SpecError
        If an option is unknown or a number of channels is not positive.

    Examples
    --------
    >>> from nfn_core import WeightSpace, initialize
    >>> import numpy as np
    >>> space = WeightSpace.mlp([2, 3, 3, 2])
    >>> layer = NFLayer(space.group("NP"), 1, 1, bias=False)
    >>> layer.parameter_count
    62
    >>> ones = {t.name: np.ones((5, *t.shape, 1)) for t in space.tensors}
    >>> layer.apply(initialize(layer, seed=0), ones)["W1"].shape
    (5, 3, 2, 1)
    """

    group: Group
    in_channels: int
    out_channels: int
    pooling: Pooling = "mean"
    bias: bool = True
    init: Init = "uniform"
    structure: Structure = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_positive(in_channels=self.in_channels, out_channels=self.out_channels)
        check_choice("pooling", self.pooling, ("mean", "sum"))
        check_choice("init", self.init, ("uniform", "kaiming"))
        object.__setattr__(self, "structure", structure(self.group))

    @property
    def parameter_count(self) -> int:
        """Number of entries of all hub matrices: orbits of index pairs times channels in times channels out."""
        s = self.structure
        orbits = sum(s.inputs(hub) * sum(map(s.width, hub.outputs)) for hub in s.hubs)
        return orbits * self.in_channels * self.out_channels

    def parameters(self) -> dict[str, ParameterSpec]:
        """Return one matrix for each hub, shape (hub inputs, hub outputs), and the constants of the empty hub."""
        s = self.structure
        specs: dict[str, ParameterSpec] = {}
        for hub in s.hubs:
            blocks = tuple((s.width(v) * self.out_channels, s.fan_in(v.tensor) * self.in_channels) for v in hub.outputs)
            columns = sum(c for c, _ in blocks)
            specs[hub.name] = ParameterSpec((s.inputs(hub) * self.in_channels, columns), self.init, blocks)
            if self.bias and not hub.labels:
                if self.init == "uniform":
                    specs["bias"] = ParameterSpec((columns,), "uniform", blocks)
                else:
                    specs["bias"] = ParameterSpec((columns,), "constant")
        return specs

    def channels_after(self, channels: int) -> int:
        """Return `out_channels`."""
        return _matched(self, self.in_channels, channels, self.out_channels)

    def forward(self, params: Mapping[str, Array], value: Mapping[str, Array], how: Execution) -> Features:
        """Pool every tensor, mix in every hub, spread back: Eq. 3."""
        xp = check_features(self.group.space, value, self.in_channels)
        s = self.structure
        tensors = [fold(plan, value[plan.spec.name], xp) for plan in s.tensors]
        matrices = [params[hub.name] for hub in s.hubs]
        mixed = how.hub_map(s, self.pooling, tensors, matrices, params["bias"] if self.bias else None)
        return {plan.spec.name: unfold(plan, x, xp) for plan, x in zip(s.tensors, mixed, strict=True)}


@dataclass(frozen=True)
class PointwiseLayer(Layer):
    """The pointwise layer of NFN_PT: each entry's channels are mixed, entries do not meet.

    Only the last term of Eq. 2, H(W)_jk = d W_jk, with one matrix for each tensor. Axes that the group leaves alone are
    folded into the channels, so under ``"NP"`` only a filter's own entries mix, as in the paper's code.

    Parameters
    ----------
    group : Group
        The group, with its weight space; use NP for the paper's NFN_PT.
    in_channels, out_channels : int
        Channels of input and output features.
    bias : bool
        Whether to add learned constants.
    init : {"uniform", "kaiming"}
        As in `NFLayer`.

    Raises
    ------
    SpecError
        If an option is unknown or a number of channels is not positive.
    """

    group: Group
    in_channels: int
    out_channels: int
    bias: bool = True
    init: Init = "uniform"
    structure: Structure = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_positive(in_channels=self.in_channels, out_channels=self.out_channels)
        check_choice("init", self.init, ("uniform", "kaiming"))
        object.__setattr__(self, "structure", structure(self.group))

    def parameters(self) -> dict[str, ParameterSpec]:
        """Return for each tensor a matrix of shape (width * in_channels, width * out_channels) and constants."""
        specs: dict[str, ParameterSpec] = {}
        for plan in self.structure.tensors:
            rows, columns = plan.width * self.in_channels, plan.width * self.out_channels
            specs[f"{plan.spec.name}.weight"] = ParameterSpec((rows, columns), self.init, ((columns, rows),))
            if self.bias:
                constant = self.init if self.init == "uniform" else "constant"
                specs[f"{plan.spec.name}.bias"] = ParameterSpec((columns,), constant, ((columns, rows),))
        return specs

    def channels_after(self, channels: int) -> int:
        """Return `out_channels`."""
        return _matched(self, self.in_channels, channels, self.out_channels)

    def forward(self, params: Mapping[str, Array], value: Mapping[str, Array], how: Execution) -> Features:
        """Mix the channels of every entry."""
        xp = check_features(self.group.space, value, self.in_channels)
        out: Features = {}
        for plan in self.structure.tensors:
            name = plan.spec.name
            bias = params[f"{name}.bias"] if self.bias else None
            x = product(fold(plan, value[name], xp), params[f"{name}.weight"], bias)
            out[name] = unfold(plan, x, xp)
        return out


@dataclass(frozen=True)
class InvariantPool(Layer):
    """Invariant pooling: every tensor pooled over all axes the group moves (P of section 2.3, P̃ of Eq. 20).

    Followed by a linear map it is every invariant linear map (Proposition 2). For dense layers under NP it has 2L
    outputs a channel. Under HNP, for L ≥ 2, it has 2L - 3 + n_0 + 2 n_L: Eq. 20 as printed has 2L + n_0 + 2 n_L,
    but three of these (the total means of W(1), W(L) and v(L)) are means of the vectors it also lists.

    Parameters
    ----------
    group : Group
        The group, with its weight space. Pooling with HNP after NP layers keeps input and output neurons apart, as
        the paper's code does.
    pooling : {"mean", "sum"}
        How axes are pooled.

    Raises
    ------
    SpecError
        If the pooling is unknown.
    """

    group: Group
    pooling: Pooling = "mean"
    structure: Structure = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_choice("pooling", self.pooling, ("mean", "sum"))
        object.__setattr__(self, "structure", structure(self.group))

    @property
    def outputs(self) -> int:
        """Number of invariants for each channel."""
        s = self.structure
        return s.inputs(s.hubs[0])

    def forward(self, params: Mapping[str, Array], value: Mapping[str, Array], how: Execution) -> Array:
        """Return an array of shape (batch, outputs, channels)."""
        xp = check_features(self.group.space, value)
        s = self.structure
        forms = [
            pool(plan, fold(plan, value[plan.spec.name], xp), self.pooling, xp, only=plan.totals) for plan in s.tensors
        ]
        batch, channels = value[s.tensors[0].spec.name].shape[0], value[s.tensors[0].spec.name].shape[-1]
        totals = [xp.reshape(forms[v.tensor][v.form], (batch, s.width(v), channels)) for v in s.hubs[0].inputs]
        return xp.concat(totals, axis=1)


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise a SpecError unless `value` is one of `choices`."""
    if value not in choices:
        raise SpecError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}.")


def check_positive(**counts: Any) -> None:
    """Raise a SpecError unless every count is a positive integer."""
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise SpecError(f"{name} must be a positive integer, not {count!r}.")


def _matched(layer: Layer, expected: int, came: int, after: int) -> int:
    """Channels after a layer that takes `expected` channels."""
    if came != expected:
        raise SpecError(f"{type(layer).__name__} takes {expected} channels, but the layer before it gives {came}.")
    return after
