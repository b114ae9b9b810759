"""DWSNets (Navon et al. 2023, *Equivariant Architectures for Learning in Deep Weight Spaces*), a baseline of table 3.

A DWS layer sends every weight and bias to every weight and bias: four blocks of sublayers, each made of pooling, a
fully-connected map of channels, and broadcasting. The axes of the network's inputs and outputs are fixed and count as
channels, so that d_0 and d_L multiply the channels of W(1), W(L) and v(L). What a sublayer does follows from the hidden
neuron sets that its two tensors share:

| block | pairs | shared | sublayer |
|---|---|---|---|
| weight to weight | W(i) to itself, 1 < i < L | both sets | matrix set layer: each entry, column, row and all |
| | W(1), W(L) to itself; W(i) to W(i-1), W(i+1) | one set | pool the other axis, set layer (DeepSets), broadcast |
| | all others | none | pool all, fully-connected, broadcast |
| weight to bias | W(i) to v(i), v(i-1) | one set | pool the other axis, set layer |
| | all others, and W(L) to v(L) | none | pool all, fully-connected, broadcast |
| bias to weight | v(i) to W(i), W(i+1) | one set | set layer, broadcast |
| | all others, and v(L) to W(L) | none | pool all, fully-connected, broadcast |
| bias to bias | v(i) to itself, i < L | one set | set layer |
| | all others, and v(L) to itself | none | pool all, fully-connected, broadcast |

Pooled by sums or means, these are all linear equivariant maps, each once; only the constants, one for every sublayer,
are more than needed. The suite of `nfn_conformance` says so in figures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Literal

from nfn_core import Activation, Dropout, Layer, LayerNorm, MLPHead, Sequential, SpecError, WeightSpace
from nfn_core.arrays import Array, Features, Namespace
from nfn_core.checks import check_choice, check_counts
from nfn_core.features import check_features
from nfn_core.layers.base import Execution
from nfn_core.layers.hub_map import product
from nfn_core.layers.hubs import HubGraph, TensorPlan, fold, hub_graph, unfold
from nfn_core.layers.parameters import ParameterSpec
from reference_experiments.methods.base import Method, Problem, register

__all__ = ["DWSLayer", "DWSPool", "dwsnet"]

Pooling = Literal["max", "mean", "sum"]

TERMS: tuple[dict[str, tuple[int, ...]], ...] = (
    {"each": ()},  # fully-connected
    {"each": (), "pooled": (1,)},  # set layer (Zaheer et al. 2017)
    {"each": (), "columns": (1,), "rows": (2,), "all": (1, 2)},  # matrix set layer (Hartford et al. 2018)
)
"""By the number of shared neuron sets, a sublayer's matrices and the shared axes that are pooled before each."""


@dataclass(frozen=True)
class DWSLayer(Layer):
    """Equivariant DWS layer, under permutations of hidden neurons.

    Initial values and scales are the released code's: normal matrices, constants of 10⁻⁴, a matrix set layer divided by
    its four terms, and the sum over all sublayers divided by their number. Its default option replaces set layers by set
    attention, which the paper's layers do not have.

    Parameters
    ----------
    space : WeightSpace
        A feedforward network's weight space. Filters, which the paper does not treat, are folded into the channels.
    in_channels, out_channels : int
        Channels of input and output features.
    pooling : {"max", "mean", "sum"}
        How axes are pooled: the theory's layers sum or average, the experiments take the maximum and are not linear.

    Raises
    ------
    SpecError
        If an option is unknown, a number of channels is not positive, or a tensor has more than two hidden axes or one
        neuron set twice.
    """

    space: WeightSpace
    in_channels: int
    out_channels: int
    pooling: Pooling = "max"
    graph: HubGraph = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "out_channels")
        check_choice("pooling", self.pooling, ("max", "mean", "sum"))
        object.__setattr__(self, "graph", hub_graph(self.space.group("HNP")))
        for plan in self.graph.tensors:
            labels = plan.forms[0].labels
            if len(labels) > 2 or len(set(labels)) < len(labels):
                raise SpecError(
                    f"tensor {plan.spec.name!r} has hidden axes {labels}: DWSNets are defined for at most two different "
                    "hidden axes (feedforward networks); use NFLayer."
                )

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return for each sublayer its matrices, (width in, width out) of folded channels, and constants."""
        specs: dict[str, ParameterSpec] = {}
        for target in self.graph.tensors:
            for source in self.graph.tensors:
                rows, columns = source.width * self.in_channels, target.width * self.out_channels
                deviation = 2 * sqrt(rows / (columns * (rows + columns)))
                prefix = _name(source, target)
                for term in TERMS[len(_shared(source, target))]:
                    specs[f"{prefix}.{term}"] = ParameterSpec((rows, columns), "normal", value=deviation)
                specs[f"{prefix}.bias"] = ParameterSpec((columns,), "normal", value=1e-4)
        return specs

    def channels_after(self, channels: int) -> int:
        """Return `out_channels`."""
        if channels != self.in_channels:
            raise SpecError(f"DWSLayer takes {self.in_channels} channels, but the layer before it gives {channels}.")
        return self.out_channels

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Features:
        """Send every tensor to every tensor."""
        xp = check_features(self.space, x, self.in_channels)
        plans = self.graph.tensors
        tensors = [fold(plan, x[plan.spec.name], xp) for plan in plans]
        out: Features = {}
        for target in plans:
            parts = [self._send(params, y, source, target, xp) for y, source in zip(tensors, plans, strict=True)]
            total = sum(parts[1:], parts[0]) / len(plans)
            total = xp.broadcast_to(total, (total.shape[0], *target.forms[0].shape, total.shape[-1]))
            out[target.spec.name] = unfold(target, total, xp)
        return out

    def _send(
        self, params: Mapping[str, Array], x: Array, source: TensorPlan, target: TensorPlan, xp: Namespace
    ) -> Array:
        """One sublayer: folded source to folded target, with axes of size 1 along which it does not change."""
        shared, prefix = _shared(source, target), _name(source, target)
        labels = source.forms[0].labels
        x = _pool(x, tuple(a for a, s in enumerate(labels, start=1) if s not in shared), self.pooling, xp)
        terms = TERMS[len(shared)]
        mixed = params[f"{prefix}.bias"]
        for term, axes in terms.items():
            pooled = _pool(x, axes, self.pooling, xp, keepdims=True)
            mixed = product(pooled, params[f"{prefix}.{term}"], None) + mixed
        if len(terms) == 4:
            mixed = mixed / 4
        wanted = [s for s in target.forms[0].labels if s in shared]
        mixed = xp.permute_dims(mixed, (0, *(1 + shared.index(s) for s in wanted), len(shared) + 1))
        sizes = (n if s in shared else 1 for s, n in zip(target.forms[0].labels, target.forms[0].shape, strict=True))
        return xp.reshape(mixed, (mixed.shape[0], *sizes, mixed.shape[-1]))


@dataclass(frozen=True)
class DWSPool(Layer):
    """Invariant pooling: every tensor pooled over its hidden axes; inputs and outputs stay apart.

    Parameters
    ----------
    space : WeightSpace
        The space of the features.
    pooling : {"max", "mean", "sum"}
        How axes are pooled.

    Raises
    ------
    SpecError
        If the pooling is unknown.
    """

    space: WeightSpace
    pooling: Pooling = "max"
    graph: HubGraph = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_choice("pooling", self.pooling, ("max", "mean", "sum"))
        object.__setattr__(self, "graph", hub_graph(self.space.group("HNP")))

    @property
    def outputs(self) -> int:
        """Number of invariants for each channel: 2L - 3 + d_0 + 2 d_L for an MLP of L > 1 layers."""
        return sum(plan.width for plan in self.graph.tensors)

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Array:
        """Return an array of shape (batch, outputs * channels)."""
        xp = check_features(self.space, x)
        folded = [fold(plan, x[plan.spec.name], xp) for plan in self.graph.tensors]
        return xp.concat([_pool(y, tuple(range(1, y.ndim - 1)), self.pooling, xp) for y in folded], axis=-1)


def dwsnet(
    space: WeightSpace,
    channels: Sequence[int] = (1, 32, 32, 32, 32, 32),
    head: Sequence[int] = (10,),
    *,
    before: Sequence[Layer] = (),
    pooling: Pooling = "max",
    normalize: bool = True,
    dropout: float = 0.0,
) -> Sequential:
    """DWSNet that classifies networks: DWS layers with ReLU, invariant pooling, and a fully-connected head.

    The defaults are those of the released MNIST experiment (AdamW, learning rate 5·10⁻³, weight decay 5·10⁻⁴, batches of
    512, 100 epochs), but for its batch normalization, whose running statistics are no function of the input: here the
    channels of every entry are normalized instead (`LayerNorm`).

    Parameters
    ----------
    space : WeightSpace
        The networks' weight space.
    channels : sequence of int
        Input channels, then the channels of every DWS layer.
    head : sequence of int
        Hidden widths and outputs of the head; none hidden is the paper's invariant layer.
    before : sequence of Layer
        Normalization and encodings applied first; the first DWS layer's width follows from them.
    pooling : {"max", "mean", "sum"}
        How axes are pooled, in all layers.
    normalize : bool
        Whether to normalize between DWS layers, before the ReLU.
    dropout : float
        Rate of dropout of entries after every ReLU.

    Returns
    -------
    Sequential
        The network, from features to an array of shape (batch, head[-1]).

    Raises
    ------
    SpecError
        If there is no DWS layer, or as `DWSLayer` and `MLPHead`.
    """
    if len(channels) < 2:
        raise SpecError(f"channels must hold the input channels and those of each DWS layer, not {tuple(channels)}.")
    width = Sequential(tuple(before)).channels_after(channels[0])
    layers = list(before)
    for i, after in enumerate(channels[1:], start=1):
        layers.append(DWSLayer(space, width, after, pooling))
        if normalize and i < len(channels) - 1:
            layers.append(LayerNorm(space, after))
        layers += [Activation("relu"), Dropout(dropout)]
        width = after
    pool = DWSPool(space, pooling)
    return Sequential((*layers, pool, MLPHead((pool.outputs * width, *head))))


def _pool(x: Array, axes: tuple[int, ...], pooling: Pooling, xp: Namespace, keepdims: bool = False) -> Array:
    """Pool over some axes, or none."""
    return getattr(xp, pooling)(x, axis=axes, keepdims=keepdims) if axes else x


def _shared(source: TensorPlan, target: TensorPlan) -> tuple[str, ...]:
    """Hidden neuron sets of both tensors, in the source's order."""
    return tuple(label for label in source.forms[0].labels if label in target.forms[0].labels)


def _name(source: TensorPlan, target: TensorPlan) -> str:
    """Block and pair of a sublayer, in front of its parameters' names."""
    kinds = ("weight" if len(plan.spec.shape) > 1 else "bias" for plan in (source, target))
    return ".".join(("_to_".join(kinds), source.spec.name, target.spec.name))


@register("DWSNets")
def _dwsnets(name: str, problem: Problem) -> Method:
    """The published network."""
    layer = dwsnet(problem.space, (1, *problem.config.dws), (problem.outputs,), before=[problem.scale])
    return Method(name, layer)
