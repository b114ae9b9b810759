"""Messages: products of tensors with the features of their neurons, in the hub picture.

Linear layers only add; what a weight does is multiply. A form of a tensor that keeps two axes, a and b, takes features
of the neurons of a to those of b by a matrix product, and back; a form that keeps one axis multiplies the features of
its neurons. Fixed entries and channels of the tensor have a mixing matrix each. All products are batched matrix
products of the tensor itself: no array of the size of a tensor times the neurons' channels is made.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

from nfn_core.arrays import Array, Features, Namespace, is_array, namespace_of
from nfn_core.checks import check_choice, check_counts, check_kind, shown
from nfn_core.errors import FeatureError
from nfn_core.features import check_features
from nfn_core.groups import Group
from nfn_core.layers.base import Execution, Layer
from nfn_core.layers.hub_map import product
from nfn_core.layers.hubs import POOLINGS, HubGraph, Pooling, TensorPlan, fold, hub_graph, pool, spread, unfold
from nfn_core.layers.neurons import MessageState, neuron_group
from nfn_core.layers.parameters import ParameterSpec

__all__ = ["MessageReadout", "Messages", "TensorUpdate"]


@dataclass(frozen=True)
class Messages(Layer):
    """Bilinear messages from tensors and neurons to neurons.

    From a state (tensors U, neurons h) each neuron set gets, summed over all tensors and their forms,

    * from a form with axes a, b, in both directions: ``Σ_a U[a, b] · (h_a M)`` / √(entries summed), at b;
    * from a form with one axis a: ``(U[a] A) ⊙ (h_a M)``, at a. For a repeated label these include the diagonal.

    Fixed axes and channels of U have a matrix M each (rows of A for a form of one axis). A form pools the tensor's other
    permuted axes. Weights and features of unit variance give messages of unit variance at the start.

    Over all parameters these span the bilinear equivariant maps (U, h) → y in which an index of h is one of U, and an
    index of y is one of U or h: one for each orbit of index triples of that kind (counted by the conformance oracle).
    Left out are maps that are products of linear ones, which gates form of the outputs of linear hubs: those where h
    and U share no index (a pool of U times h or a pool of h), and those where y shares none (an invariant, broadcast:
    `MessageReadout` has it, and the empty hub of the next NF-layer spreads it).

    Parameters
    ----------
    group : Group
        The group, with its weight space.
    tensor_channels : int
        Channels of the tensors: weights, gradients, masks, moments.
    in_channels, out_channels : int
        Channels of the neurons before and after.
    pooling : {"mean", "sum", "scaled_sum"}
        How a form pools the tensor's other axes.

    Raises
    ------
    SpecError
        If an option is unknown, a number of channels is not positive, or the group permutes nothing.

    Examples
    --------
    >>> from nfn_core import MessageState, WeightSpace, initialize
    >>> import numpy as np
    >>> space = WeightSpace.mlp([2, 32, 16, 1])
    >>> layer = Messages(space.group("HNP"), tensor_channels=1, in_channels=8, out_channels=4)
    >>> weights = {t.name: np.ones((5, *t.shape, 1)) for t in space.tensors}
    >>> neurons = {"h1": np.ones((5, 32, 8)), "h2": np.ones((5, 16, 8))}
    >>> layer.apply(initialize(layer, seed=0), MessageState(weights, neurons))["h2"].shape
    (5, 16, 4)
    """

    group: Group
    tensor_channels: int
    in_channels: int
    out_channels: int
    pooling: Pooling = "mean"
    graph: HubGraph = field(init=False, repr=False, compare=False)
    neurons: HubGraph = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_kind("group", self.group, Group)
        check_counts(self, "tensor_channels", "in_channels", "out_channels")
        check_choice("pooling", self.pooling, POOLINGS)
        object.__setattr__(self, "neurons", hub_graph(neuron_group(self.group)))
        object.__setattr__(self, "graph", hub_graph(self.group))

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return the matrices, under the tensor's name, the number of the form, and the axis that is reached.

        Form k with two axes: ``"W2.0.axis0"`` of shape (in_channels, width * tensor_channels * out_channels), and
        ``"W2.0.axis1"``. Form k with one axis: ``"W2.1.neurons"`` (in_channels, out_channels) and ``"W2.1.tensor"``
        (width * tensor_channels, out_channels).
        """
        arriving = dict.fromkeys(self.group.permuted, 0)
        for plan in self.graph.tensors:
            for form in plan.forms:
                for label in form.labels if len(form.labels) < 3 else ():
                    arriving[label] += 1
        specs: dict[str, ParameterSpec] = {}
        for plan in self.graph.tensors:
            width = plan.width * self.tensor_channels
            for k, form in enumerate(plan.forms):
                front = f"{plan.spec.name}.{k}"
                scales = [1.0 / sqrt(self.in_channels * arriving[label]) for label in form.labels]
                if len(form.labels) == 2:
                    for axis in (0, 1):
                        shape = (self.in_channels, width * self.out_channels)
                        specs[f"{front}.axis{axis}"] = ParameterSpec(shape, "normal", value=scales[axis])
                elif len(form.labels) == 1:
                    specs[f"{front}.neurons"] = ParameterSpec(
                        (self.in_channels, self.out_channels), "normal", value=scales[0]
                    )
                    specs[f"{front}.tensor"] = ParameterSpec(
                        (width, self.out_channels), "normal", value=1.0 / sqrt(width)
                    )
        return specs

    def forward(self, params: Mapping[str, Array], x: MessageState, execution: Execution) -> Features:
        """Return for each permuted set an array of shape (batch, n, out_channels)."""
        xp = check_state(self.group, self.neurons, x, self.tensor_channels, self.in_channels)
        out: Features = {}

        def arrive(label: str, message: Array) -> None:
            out[label] = message if label not in out else out[label] + message

        for plan in self.graph.tensors:
            wanted = [k for k, form in enumerate(plan.forms) if 0 < len(form.labels) < 3]
            forms = pool(plan, fold(plan, x.tensors[plan.spec.name], xp), self.pooling, xp, only=wanted)
            for k in wanted:
                front, labels, u = f"{plan.spec.name}.{k}", plan.forms[k].labels, forms[k]
                if len(labels) == 1:
                    arrive(labels[0], _gain(params, front, u, x.neurons[labels[0]]))
                    continue
                for axis in (0, 1):
                    h = x.neurons[labels[1 - axis]]
                    arrive(labels[axis], self._along(params[f"{front}.axis{axis}"], u, h, axis))
        return {label: out[label] for label in self.group.permuted}

    def _along(self, matrix: Array, u: Array, h: Array, axis: int) -> Array:
        """Message along a form u of shape (batch, n0, n1, width) that arrives at one of its axes."""
        xp = namespace_of(u)
        batch, width = u.shape[0], u.shape[-1]
        u = xp.permute_dims(u, (0, 2, 1, 3)) if axis else u
        arriving, leaving = u.shape[1], u.shape[2]
        mixed = xp.reshape(product(h, matrix, None), (batch, leaving * width, self.out_channels))
        u = xp.astype(xp.reshape(u, (batch, arriving, leaving * width)), mixed.dtype, copy=False)  # under autocast
        message: Array = xp.matmul(u, mixed) / sqrt(leaving * width)
        return message


@dataclass(frozen=True)
class MessageReadout(Layer):
    """Invariants of a state: contractions of every tensor with its neurons over all axes, and the neurons' pools.

    A form of a tensor with one axis a gives ``Σ_a (U[a] A) ⊙ (h_a M)`` / √n: over all parameters every invariant
    bilinear map of (U, h) in which U and h share an index. The others are products of pools, left to the head.

    Parameters
    ----------
    group : Group
        The group, with its weight space.
    tensor_channels, channels : int
        Channels of the tensors and of the neurons.
    pooling : {"mean", "sum", "scaled_sum"}
        How neurons are pooled, and a form's other axes.

    Raises
    ------
    SpecError
        If an option is unknown, a number of channels is not positive, or the group permutes nothing.
    """

    group: Group
    tensor_channels: int
    channels: int
    pooling: Pooling = "mean"
    graph: HubGraph = field(init=False, repr=False, compare=False)
    neurons: HubGraph = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_kind("group", self.group, Group)
        check_counts(self, "tensor_channels", "channels")
        check_choice("pooling", self.pooling, POOLINGS)
        object.__setattr__(self, "neurons", hub_graph(neuron_group(self.group)))
        object.__setattr__(self, "graph", hub_graph(self.group))

    @property
    def num_outputs(self) -> int:
        """Number of invariants for each channel."""
        return len(self.group.permuted) + sum(len(_one_axis(plan)) for plan in self.graph.tensors)

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return ``"W2.1.neurons"`` and ``"W2.1.tensor"`` for each form with one axis, as `Messages`."""
        specs: dict[str, ParameterSpec] = {}
        for plan in self.graph.tensors:
            width = plan.width * self.tensor_channels
            for k in _one_axis(plan):
                specs[f"{plan.spec.name}.{k}.neurons"] = ParameterSpec(
                    (self.channels, self.channels), "normal", value=1.0 / sqrt(self.channels)
                )
                specs[f"{plan.spec.name}.{k}.tensor"] = ParameterSpec(
                    (width, self.channels), "normal", value=1.0 / sqrt(width)
                )
        return specs

    def forward(self, params: Mapping[str, Array], x: MessageState, execution: Execution) -> Array:
        """Return an array of shape (batch, num_outputs, channels): pools of the sets, then contractions."""
        xp = check_state(self.group, self.neurons, x, self.tensor_channels, self.channels)
        found = [pool(plan, x.neurons[plan.spec.name], self.pooling, xp)[1] for plan in self.neurons.tensors]
        for plan in self.graph.tensors:
            one_axis = _one_axis(plan)
            forms = pool(plan, fold(plan, x.tensors[plan.spec.name], xp), self.pooling, xp, only=one_axis)
            for k in one_axis:
                h = x.neurons[plan.forms[k].labels[0]]
                gained = _gain(params, f"{plan.spec.name}.{k}", forms[k], h)
                found.append(xp.sum(gained, axis=1) / sqrt(gained.shape[1]))
        return xp.stack(found, axis=1)


@dataclass(frozen=True)
class TensorUpdate(Layer):
    """Tensors hear from their neurons: each entry from its own channels, its neurons, and products of two of them.

    Entry (k, j) of a weight gets ``U[k, j] A + h_k M + h_j N + Σ_r (h_k P)_r (h_j Q)_r`` / √r; an entry on the diagonal of
    a repeated label a further term from its neuron. With fixed axes each fixed entry has matrices of its own. The
    products are matrix products of rank r for each output channel, so no array is larger than the output.

    Parameters
    ----------
    group : Group
        The group, with its weight space.
    tensor_channels, in_channels, out_channels : int
        Channels of the tensors, of the neurons, and of the new tensors.
    rank : int
        Terms of each product, r.

    Raises
    ------
    SpecError
        If a number is not positive, or the group permutes nothing.
    """

    group: Group
    tensor_channels: int
    in_channels: int
    out_channels: int
    rank: int = 4
    graph: HubGraph = field(init=False, repr=False, compare=False)
    neurons: HubGraph = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_kind("group", self.group, Group)
        check_counts(self, "tensor_channels", "in_channels", "out_channels", "rank")
        object.__setattr__(self, "neurons", hub_graph(neuron_group(self.group)))
        object.__setattr__(self, "graph", hub_graph(self.group))

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return for each tensor ``"W2.own"`` (width * tensor_channels, width * out_channels) and ``"W2.bias"``.

        For its form k with one axis also ``"W2.1.neurons"`` (in_channels, width * out_channels), and for a form with two
        axes ``"W2.0.axis0"`` and ``"W2.0.axis1"`` (in_channels, width * out_channels * rank).
        """
        specs: dict[str, ParameterSpec] = {}
        for plan in self.graph.tensors:
            name, columns = plan.spec.name, plan.width * self.out_channels
            rows = plan.width * self.tensor_channels
            inputs = ((columns, rows + len(_one_axis(plan)) * self.in_channels),)
            specs[f"{name}.own"] = ParameterSpec((rows, columns), "uniform", inputs)
            specs[f"{name}.bias"] = ParameterSpec((columns,), "uniform", inputs)
            for k, form in enumerate(plan.forms):
                if len(form.labels) == 1:
                    specs[f"{name}.{k}.neurons"] = ParameterSpec((self.in_channels, columns), "uniform", inputs)
                elif len(form.labels) == 2:
                    for axis in (0, 1):
                        shape, scale = (self.in_channels, columns * self.rank), 1.0 / sqrt(self.in_channels)
                        specs[f"{name}.{k}.axis{axis}"] = ParameterSpec(shape, "normal", value=scale)
        return specs

    def forward(self, params: Mapping[str, Array], x: MessageState, execution: Execution) -> Features:
        """Return for each tensor an array of shape (batch, *axes, out_channels)."""
        xp = check_state(self.group, self.neurons, x, self.tensor_channels, self.in_channels)
        out: Features = {}
        for plan in self.graph.tensors:
            name = plan.spec.name
            parts: list[Array | None] = [None] * len(plan.forms)
            for k, form in enumerate(plan.forms):
                if len(form.labels) == 1:
                    parts[k] = product(x.neurons[form.labels[0]], params[f"{name}.{k}.neurons"], None)
                elif len(form.labels) == 2:
                    h = [x.neurons[label] for label in form.labels]
                    parts[k] = self._products(h, [params[f"{name}.{k}.axis{axis}"] for axis in (0, 1)])
            own = product(fold(plan, x.tensors[name], xp), params[f"{name}.own"], params[f"{name}.bias"])
            heard = spread(plan, parts, xp) if any(part is not None for part in parts) else None
            out[name] = unfold(plan, own if heard is None else own + heard, xp)
        return out

    def _products(self, neurons: list[Array], matrices: list[Array]) -> Array:
        """Products of two neurons' features, shape (batch, n0, n1, width * out_channels)."""
        xp = namespace_of(*neurons)
        sides = []
        for h, matrix in zip(neurons, matrices, strict=True):
            mixed = product(h, matrix, None)
            sides.append(xp.reshape(mixed, (*mixed.shape[:2], mixed.shape[2] // self.rank, self.rank)))
        left, right = xp.permute_dims(sides[0], (0, 2, 1, 3)), xp.permute_dims(sides[1], (0, 2, 3, 1))
        met: Array = xp.permute_dims(xp.matmul(left, right), (0, 2, 3, 1)) / sqrt(self.rank)
        return met


def check_state(group: Group, neurons: HubGraph, x: MessageState, tensor_channels: int, channels: int) -> Namespace:
    """Check a state's tensors and neurons, and return their array namespace."""
    if not isinstance(x, MessageState) or not isinstance(x.neurons, Mapping):
        raise FeatureError(
            f"features must be a MessageState of tensors and neurons, both by name, not {shown(x)}: MessageInput "
            "makes it."
        )
    xp = check_features(group.space, x.tensors, tensor_channels)
    batch = x.tensors[group.space.tensors[0].name].shape[0]
    extra = [name for name in x.neurons if name not in group.permuted]
    if extra:
        raise FeatureError(f"neurons came for {extra}, but the group permutes only {group.permuted}: drop them.")
    for plan in neurons.tensors:
        name = plan.spec.name
        h: Any = x.neurons.get(name)
        shape = tuple(h.shape) if is_array(h) else None
        if shape != (batch, *plan.spec.shape, channels):
            raise FeatureError(
                f"neurons {name!r}: expected shape ({batch}, {plan.spec.shape[0]}, {channels}), not {shape}: give features "
                f"of each permuted set, {group.permuted}, for as many networks as tensors."
            )
    return xp


def _one_axis(plan: TensorPlan) -> list[int]:
    """Forms of a tensor that keep one axis."""
    return [k for k, form in enumerate(plan.forms) if len(form.labels) == 1]


def _gain(params: Mapping[str, Array], front: str, u: Array, h: Array) -> Array:
    """Product of a form of one axis with its neurons' features, shape (batch, n, channels)."""
    y: Array = product(u, params[f"{front}.tensor"], None) * product(h, params[f"{front}.neurons"], None)
    return y
