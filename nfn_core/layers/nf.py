"""The equivariant NF-layer, its pointwise restriction, and invariant pooling.

Eq. 3 and tables 8-11 of the paper; NFN_PT of section 3; P of section 2.3 and P̃ of Eq. 20.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from nfn_core.arrays import Array, Features, Namespace, widened
from nfn_core.checks import check_choice, check_counts, check_flags, check_kind, plain_tuple
from nfn_core.errors import SpecError
from nfn_core.features import check_features
from nfn_core.groups import Group
from nfn_core.layers.base import ChannelMap, Execution, Init, Layer
from nfn_core.layers.hub_map import product
from nfn_core.layers.hubs import POOLINGS, HubGraph, Pooling, TensorPlan, fold, hub_graph, pool, unfold
from nfn_core.layers.parameters import ParameterSpec
from nfn_core.registry import LATER

__all__ = ["InvariantPool", "NFLayer", "PointwiseLayer"]


@dataclass(frozen=True)
class NFLayer(ChannelMap):
    """Equivariant linear NF-layer, maximal: every equivariant affine map is one of its parameter settings.

    Eq. 3 of the paper for NP, tables 8-11 for HNP, and the same for any other group. With signs it joins equal grades only.

    Parameters
    ----------
    group : Group
        The group, with the weight space of the input.
    in_channels, out_channels : int
        Channels of input and output features.
    pooling : {"mean", "sum", "scaled_sum"}
        How axes are pooled (the star of Eq. 3).
    bias : bool
        Whether to add learned constants, one for each orbit of indices and channel.
    init : {"uniform", "kaiming"}
        Uniform in ±1/√fan-in, or normal of variance 2/fan-in with zero constants; the fan-in is that of all hubs
        that feed a tensor together.
    target : Group, optional
        The same group on the weight space of the output, if that is another: other grades, for instance.

    Raises
    ------
    SpecError
        If an option is unknown, a number of channels is not positive, the target is another group, or nothing of the input
        reaches it.

    Examples
    --------
    >>> from nfn_core import WeightSpace, initialize
    >>> import numpy as np
    >>> space = WeightSpace.mlp([2, 3, 3, 2])
    >>> layer = NFLayer(space.group("NP"), 1, 1, bias=False)
    >>> layer
    NFLayer(NP, 1 -> 1, bias=False, 62 parameters)
    >>> ones = {t.name: np.ones((5, *t.shape, 1)) for t in space.tensors}
    >>> layer.apply(initialize(layer, seed=0), ones)["W1"].shape
    (5, 3, 2, 1)
    >>> signed = WeightSpace.mlp([2, 3, 2]).group("HNP", signed=["h1"])
    >>> NFLayer(signed, 1, 1).linear_parameter_count
    29
    >>> NFLayer(signed.graded("even"), 1, 1).linear_parameter_count
    74
    >>> NFLayer(signed.graded("all"), 1, 1).linear_parameter_count
    99
    """

    group: Group
    in_channels: int
    out_channels: int
    pooling: Pooling = "mean"
    bias: bool = True
    init: Init = "uniform"
    target: Group | None = field(default=None, metadata=LATER)
    graph: HubGraph = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_kind("group", self.group, Group)
        check_counts(self, "in_channels", "out_channels")
        check_flags(self, "bias")
        check_choice("pooling", self.pooling, POOLINGS)
        check_choice("init", self.init, ("uniform", "kaiming"))
        check_target(self.group, self.target)
        graph = hub_graph(self.group, None if self.target == self.group else self.target)
        if not any(hub.inputs or self.bias for hub in graph.hubs):
            raise SpecError(
                "nothing of the input reaches the output: they have no grade in common; choose other grades."
            )
        object.__setattr__(self, "graph", graph)

    @property
    def linear_parameter_count(self) -> int:
        """Number of entries of all hub matrices: orbits of index pairs times channels in times channels out."""
        graph = self.graph
        orbits = sum(graph.num_inputs(hub) * sum(graph.width(v, "outputs") for v in hub.outputs) for hub in graph.hubs)
        return orbits * self.in_channels * self.out_channels

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return one matrix for each hub, shape (hub inputs, hub outputs), and the constants of the empty hub, if any."""
        graph = self.graph
        specs: dict[str, ParameterSpec] = {}
        for hub in graph.hubs:
            blocks = tuple(
                (graph.width(v, "outputs") * self.out_channels, max(graph.fan_in(v.tensor) * self.in_channels, 1))
                for v in hub.outputs
            )
            columns = sum(c for c, _ in blocks)
            specs[hub.name] = ParameterSpec((graph.num_inputs(hub) * self.in_channels, columns), self.init, blocks)
            if self.bias and not hub.labels:
                if self.init == "uniform":
                    specs["bias"] = ParameterSpec((columns,), "uniform", blocks)
                else:
                    specs["bias"] = ParameterSpec((columns,), "constant")
        return specs

    def shown_arguments(self) -> list[str]:
        """Return the group, the channels in and out, and the options that are not the default."""
        return _with_channels(super().shown_arguments(), self.in_channels, self.out_channels)

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Features:
        """Pool every tensor, mix the channels in every hub, and broadcast back: Eq. 3."""
        xp = check_features(self.group.space, x, self.in_channels)
        graph = self.graph
        tensors = [fold(plan, x[plan.spec.name], xp) for plan in graph.tensors]
        matrices = [params[hub.name] for hub in graph.hubs]
        mixed = execution.hub_map(graph, self.pooling, tensors, matrices, params.get("bias"))
        return {plan.spec.name: unfold(plan, y, xp) for plan, y in zip(graph.targets, mixed, strict=True)}


@dataclass(frozen=True)
class PointwiseLayer(ChannelMap):
    """The pointwise layer of NFN_PT: it mixes each entry's channels, and no two entries.

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
    graph: HubGraph = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_kind("group", self.group, Group)
        check_counts(self, "in_channels", "out_channels")
        check_flags(self, "bias")
        check_choice("init", self.init, ("uniform", "kaiming"))
        object.__setattr__(self, "graph", hub_graph(self.group))

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return for each tensor a matrix of shape (width * in_channels, width * out_channels) and constants."""
        specs: dict[str, ParameterSpec] = {}
        for plan in self.graph.tensors:
            rows, columns = plan.width * self.in_channels, plan.width * self.out_channels
            specs[f"{plan.spec.name}.weight"] = ParameterSpec((rows, columns), self.init, ((columns, rows),))
            if self.bias and not any(plan.forms[0].grade):  # constants are even
                constant = self.init if self.init == "uniform" else "constant"
                specs[f"{plan.spec.name}.bias"] = ParameterSpec((columns,), constant, ((columns, rows),))
        return specs

    def shown_arguments(self) -> list[str]:
        """Return the group, the channels in and out, and the options that are not the default."""
        return _with_channels(super().shown_arguments(), self.in_channels, self.out_channels)

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Features:
        """Mix the channels of every entry."""
        xp = check_features(self.group.space, x, self.in_channels)
        out: Features = {}
        for plan in self.graph.tensors:
            name = plan.spec.name
            y = product(fold(plan, x[name], xp), params[f"{name}.weight"], params.get(f"{name}.bias"))
            out[name] = unfold(plan, y, xp)
        return out


@dataclass(frozen=True)
class InvariantPool(Layer):
    """Invariant pooling: every tensor pooled over all axes the group moves (P of section 2.3, P̃ of Eq. 20).

    Followed by a linear map it is every invariant linear map (Proposition 2). For dense layers under NP it has 2L
    outputs a channel. Under HNP, for L ≥ 2, it has 2L - 3 + n_0 + 2 n_L: Eq. 20 as printed has 2L + n_0 + 2 n_L,
    but three of these (the total means of W(1), W(L) and v(L)) are means of the vectors it also lists. Of a group with
    signs only even features are pooled, since the pools of others are no invariants.

    Parameters
    ----------
    group : Group
        The group, with its weight space. Pooling with HNP after NP layers keeps input and output neurons apart, as
        the paper's code does.
    pooling : {"mean", "sum", "scaled_sum"}
        How axes are pooled.
    statistics : tuple of {"mean", "sum", "scaled_sum", "max", "std"}
        Statistics of the pooled entries, side by side; by default only `pooling`. An entry that is not pooled has no
        maximum and no deviation of its own, and gives constants there.

    Raises
    ------
    SpecError
        If the pooling or a statistic is unknown, or no tensor is even.
    """

    group: Group
    pooling: Pooling = "mean"
    statistics: tuple[str, ...] = ()
    graph: HubGraph = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_kind("group", self.group, Group)
        check_choice("pooling", self.pooling, POOLINGS)
        object.__setattr__(self, "statistics", plain_tuple("statistics", self.statistics))
        for name in self.statistics:
            check_choice("statistics", name, (*POOLINGS, "max", "std"))
        object.__setattr__(self, "graph", hub_graph(self.group))
        if not self.graph.hubs or self.graph.hubs[0].labels:
            raise SpecError(
                "pooling takes even features, but no tensor of the group is even: give group.graded('even')."
            )

    @property
    def num_outputs(self) -> int:
        """Number of invariants for each channel."""
        graph = self.graph
        return graph.num_inputs(graph.hubs[0]) * max(len(self.statistics), 1)

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Array:
        """Return an array of shape (batch, outputs, channels)."""
        xp = check_features(self.group.space, x)
        graph = self.graph
        batch, channels = x[graph.tensors[0].spec.name].shape[0], x[graph.tensors[0].spec.name].shape[-1]
        folded = [fold(plan, x[plan.spec.name], xp) for plan in graph.tensors]
        totals = []
        for statistic in self.statistics or (self.pooling,):
            forms = [_totals(plan, y, statistic, xp) for plan, y in zip(graph.tensors, folded, strict=True)]
            totals += [
                xp.reshape(forms[v.tensor][v.form], (batch, graph.width(v), channels)) for v in graph.hubs[0].inputs
            ]
        return xp.concat(totals, axis=1)


def _totals(plan: TensorPlan, x: Array, statistic: str, xp: Namespace) -> list[Any]:
    """Forms of a folded tensor that keep no axis, by a statistic of their entries; None for other forms."""
    if statistic in ("mean", "sum", "scaled_sum"):
        return pool(plan, x, cast(Pooling, statistic), xp, only=plan.totals)
    sources = {}
    for k in plan.totals:
        source = k
        while plan.forms[source].parent >= 0 and plan.forms[source].partner < 0:
            source = plan.forms[source].parent
        sources[k] = source
    wholes = pool(plan, x, "mean", xp, only=sorted(set(sources.values())))
    found: list[Any] = [None] * len(plan.forms)
    for k, source in sources.items():
        y = wholes[source]
        axes = tuple(range(1, y.ndim - 1))
        if statistic == "max":
            found[k] = xp.max(y, axis=axes) if axes else y
        else:
            wide = widened(y)
            wide = wide - (xp.mean(wide, axis=axes, keepdims=True) if axes else wide)  # NaN stays NaN
            deviation = xp.sqrt((xp.mean(wide * wide, axis=axes) if axes else wide) + 1e-10)
            found[k] = xp.astype(deviation, y.dtype, copy=False)
    return found


def _with_channels(shown: list[str], in_channels: int, out_channels: int) -> list[str]:
    """Arguments of a layer with the channels as one: ``1 -> 16``."""
    options = [text for text in shown[1:] if not text.startswith(("in_channels=", "out_channels="))]
    return [shown[0], f"{in_channels} -> {out_channels}", *options]


def check_target(group: Group, target: Group | None) -> None:
    """Check that the group on the space of a layer's outputs is that of its inputs."""
    check_kind("target", target, Group | None)
    if target is None:
        return
    sets = [sorted((s, g.space.sizes[s], g.signed.count(s)) for s in {*g.permuted, *g.signed}) for g in (group, target)]
    if sets[0] != sets[1]:
        raise SpecError(f"target must be the same group on another space, not {target.name} for {group.name}.")
