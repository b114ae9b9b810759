"""An NF-layer that can afford many fixed inputs or outputs: hub matrices of low rank, beside what all entries share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt

from nfn_core.arrays import Array, Features
from nfn_core.checks import check_choice, check_counts, check_flags, check_kind
from nfn_core.features import check_features
from nfn_core.groups import Group
from nfn_core.layers.base import ChannelMap, Execution
from nfn_core.layers.hub_map import gather, product, spread_mixed
from nfn_core.layers.hubs import POOLINGS, HubGraph, Pooling, fold, hub_graph, unfold
from nfn_core.layers.parameters import ParameterSpec

__all__ = ["LowRankNFLayer"]


@dataclass(frozen=True)
class LowRankNFLayer(ChannelMap):
    """Equivariant linear NF-layer whose hub matrices have a low rank, plus one map of the channels that all entries share.

    Under HNP the inputs and outputs of a network are fixed: each is a channel of its own, and the matrix of a hub grows with
    the square of their number (784 inputs, 16 channels: 157 million entries). Here a matrix larger than the rank on both
    sides is the product of two, and each entry also meets its own channels through a matrix shared by all entries of the
    tensor, which no low rank contains. The layer is equivariant, but not maximal: it has the maps of `NFLayer` of the same
    group up to that rank.

    Parameters
    ----------
    group : Group
        The group, with the weight space.
    in_channels, out_channels : int
        Channels of input and output features.
    rank : int
        Largest rank of a hub's matrix beside what is shared.
    pooling : {"mean", "sum", "scaled_sum"}
        As in `NFLayer`.
    bias : bool
        Whether to add learned constants, as `NFLayer` does.

    Raises
    ------
    SpecError
        If an option is unknown, or a number is not positive.

    Examples
    --------
    >>> from nfn_core import NFLayer, WeightSpace
    >>> group = WeightSpace.mlp([784, 128, 128, 10]).group("HNP")
    >>> f"{NFLayer(group, 4, 4).parameter_count:,}", f"{LowRankNFLayer(group, 4, 4, rank=16).parameter_count:,}"
    ('20,310,268', '208,780')
    """

    group: Group
    in_channels: int
    out_channels: int
    rank: int
    pooling: Pooling = "mean"
    bias: bool = True
    graph: HubGraph = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_kind("group", self.group, Group)
        check_counts(self, "in_channels", "out_channels", "rank")
        check_choice("pooling", self.pooling, POOLINGS)
        check_flags(self, "bias")
        object.__setattr__(self, "graph", hub_graph(self.group))

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return matrices of hubs, ``"hub"`` or ``"hub.left"`` and ``"hub.right"``, constants, and ``"TENSOR.shared"``.

        The factors have the shapes (hub inputs, rank) and (rank, hub outputs), what is shared (in_channels, out_channels).
        """
        graph, specs = self.graph, dict[str, ParameterSpec]()
        inputs = [graph.num_inputs(hub) * self.in_channels for hub in graph.hubs]
        outputs = [sum(map(graph.width, hub.outputs)) * self.out_channels for hub in graph.hubs]
        rows = [self.rank if min(n, m) > self.rank else n for n, m in zip(inputs, outputs, strict=True)]
        fan_in = [self.in_channels] * len(graph.tensors)  # of what is shared, and of all hubs that feed a tensor
        for hub, n in zip(graph.hubs, rows, strict=True):
            for k in {v.tensor for v in hub.outputs}:
                fan_in[k] += n
        for hub, n, m, narrow in zip(graph.hubs, inputs, outputs, rows, strict=True):
            blocks = tuple((graph.width(v) * self.out_channels, fan_in[v.tensor]) for v in hub.outputs)
            if narrow < n:
                specs[f"{hub.name}.left"] = ParameterSpec((n, narrow), "normal", value=1 / sqrt(n))
            specs[f"{hub.name}.right" if narrow < n else hub.name] = ParameterSpec((narrow, m), "uniform", blocks)
            if self.bias and not hub.labels:
                specs["bias"] = ParameterSpec((m,), "uniform", blocks)
        for plan, n in zip(graph.tensors, fan_in, strict=True):
            shape = (self.in_channels, self.out_channels)
            specs[f"{plan.spec.name}.shared"] = ParameterSpec(shape, "uniform", ((self.out_channels, n),))
        return specs

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Features:
        """Pool, mix through the low rank and broadcast, then add what is shared."""
        xp = check_features(self.group.space, x, self.in_channels)
        graph = self.graph
        gathered = gather(graph, "inputs", [fold(plan, x[plan.spec.name], xp) for plan in graph.tensors], self.pooling)
        matrices = [params[hub.name] if hub.name in params else params[f"{hub.name}.right"] for hub in graph.hubs]
        narrow = [
            y if hub.name in params else product(y, params[f"{hub.name}.left"], None)
            for hub, y in zip(graph.hubs, gathered, strict=True)
        ]
        mixed = spread_mixed(graph, narrow, matrices, params.get("bias"))
        return {
            plan.spec.name: product(x[plan.spec.name], params[f"{plan.spec.name}.shared"], unfold(plan, y, xp))
            for plan, y in zip(graph.tensors, mixed, strict=True)
        }
