"""Features of neurons, and how tensors give them.

The neurons of a group are those of its permuted sets; sets that stay in place are folded into channels, as everywhere.
Features of neurons are features of a weight space of their own, with one tensor of one axis for each permuted set, so
every layer takes them: NF-layers (which mix each neuron's channels and hear from the means of all sets), activations,
norms, pooling.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from nfn_core.arrays import Array, Features, namespace_of
from nfn_core.checks import check_choice, check_counts, check_kind
from nfn_core.errors import SpecError
from nfn_core.features import check_features
from nfn_core.groups import Group
from nfn_core.layers.base import ChannelMap, Execution
from nfn_core.layers.hub_map import product
from nfn_core.layers.hubs import POOLINGS, Hub, HubGraph, Pooling, fold, hub_graph, pool
from nfn_core.layers.parameters import ParameterSpec
from nfn_core.spaces import TensorSpec, WeightSpace

__all__ = ["MessageState", "NeuronPool", "neuron_group"]


class MessageState(NamedTuple):
    """What layers of messages take and give: features of tensors beside features of neurons.

    Parameters
    ----------
    tensors : dict of str to array
        For each tensor (batch, *axes, tensor channels).
    neurons : dict of str to array
        For each permuted neuron set of size n (batch, n, channels).
    """

    tensors: Features
    neurons: Features


def neuron_group(group: Group) -> Group:
    """Return the same group, acting on the space of its neurons.

    Parameters
    ----------
    group : Group
        The group, with its weight space.

    Returns
    -------
    Group
        The group on a weight space with a tensor of one axis for each permuted neuron set, under the set's name.

    Raises
    ------
    SpecError
        If it is no group, permutes no neuron set, or has signs.

    Examples
    --------
    >>> from nfn_core import WeightSpace
    >>> [(t.name, t.shape) for t in neuron_group(WeightSpace.mlp([2, 32, 32, 1]).group("HNP")).space.tensors]
    [('h1', (32,)), ('h2', (32,))]
    """
    check_kind("group", group, Group)
    return _neuron_group(group)


@lru_cache(maxsize=256)
def _neuron_group(group: Group) -> Group:
    """The same, computed once for each of the groups used last."""
    if not group.permuted:
        raise SpecError("the group permutes no neuron set, so there are no neurons to carry features: use NF-layers.")
    if group.signed:
        raise SpecError(
            f"features of neurons have no signs, but the group signs {group.signed}: use NFLayer and GradedProduct, or "
            "SignedMessages for sine networks."
        )
    sizes = group.space.sizes
    tensors = tuple(TensorSpec(s, (sizes[s],), (s,), i) for i, s in enumerate(group.permuted))
    kept = [tuple(s for s in ends if s in group.permuted) for ends in (group.space.inputs, group.space.outputs)]
    return WeightSpace(tensors, *kept).group(group.permuted)


@dataclass(frozen=True)
class NeuronPool(ChannelMap):
    """Features of neurons from tensors: every equivariant affine map, each once.

    A neuron hears from every tensor that has its set on an axis (rows, columns and diagonals pooled) and from the pools
    of all tensors: the hub of one label and the empty hub of an NF-layer. Fixed axes are channels.

    Parameters
    ----------
    group : Group
        The group, with its weight space.
    in_channels, out_channels : int
        Channels of the tensors, and of each neuron.
    pooling : {"mean", "sum", "scaled_sum"}
        How axes are pooled.

    Raises
    ------
    SpecError
        If an option is unknown, a number of channels is not positive, or the group permutes nothing.
    """

    group: Group
    in_channels: int
    out_channels: int
    pooling: Pooling = "mean"
    graph: HubGraph = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        neuron_group(self.group)
        check_counts(self, "in_channels", "out_channels")
        check_choice("pooling", self.pooling, POOLINGS)
        object.__setattr__(self, "graph", hub_graph(self.group))

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return a matrix (hub inputs, out_channels) for each set, and the empty hub's matrix and bias for all sets."""
        graph, c = self.graph, self.in_channels
        common = graph.num_inputs(graph.hubs[0]) * c
        specs: dict[str, ParameterSpec] = {}
        blocks = []
        for hub in self._hubs():
            rows = graph.num_inputs(hub) * c
            blocks.append((self.out_channels, rows + common))
            specs[hub.name] = ParameterSpec((rows, self.out_channels), "uniform", (blocks[-1],))
        columns = len(blocks) * self.out_channels
        specs["hub"] = ParameterSpec((common, columns), "uniform", tuple(blocks))
        specs["bias"] = ParameterSpec((columns,), "uniform", tuple(blocks))
        return specs

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Features:
        """Return for each permuted set an array of shape (batch, n, out_channels)."""
        xp = check_features(self.group.space, x, self.in_channels)
        graph = self.graph
        forms = []
        for plan in graph.tensors:
            wanted = [k for k, form in enumerate(plan.forms) if len(form.labels) < 2]
            forms.append(pool(plan, fold(plan, x[plan.spec.name], xp), self.pooling, xp, only=wanted))
        totals = _joined([forms[v.tensor][v.form] for v in graph.hubs[0].inputs])
        common = product(totals, params["hub"], params["bias"])
        out: Features = {}
        for k, hub in enumerate(self._hubs()):
            part = common[:, None, k * self.out_channels : (k + 1) * self.out_channels]
            gathered = _joined([forms[v.tensor][v.form] for v in hub.inputs])
            out[hub.labels[0]] = product(gathered, params[hub.name], part)
        return out

    def _hubs(self) -> list[Hub]:
        """Hubs of one label, in the order of the group's sets."""
        hubs = {hub.labels[0]: hub for hub in self.graph.hubs if len(hub.labels) == 1}
        return [hubs[label] for label in self.group.permuted]


def _joined(arrays: list[Array]) -> Array:
    """Arrays side by side on the last axis."""
    return arrays[0] if len(arrays) == 1 else namespace_of(*arrays).concat(arrays, axis=-1)
