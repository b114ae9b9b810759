"""The structure of equivariant linear maps: pooled forms of tensors, grouped into hubs.

A tensor's axes that the group leaves alone are *folded* into its channels. What remains are axes labeled by permuted
neuron sets. A *form* of the tensor keeps some of these axes and sums or averages over the others; where a neuron set
labels two axes of one tensor, a form may first take their diagonal. Every form of every tensor whose kept labels are T
belongs to the *hub* T, where one matrix mixes all members' channels; the results go back to the tensors by the adjoint
way: broadcasting where a form pooled, writing on the diagonal where it took one. These are all equivariant linear maps
(Eq. 3 of the paper for NP, tables 8-11 for HNP), each once.

Of a group with signs each axis has a grade, and so has each kept axis of a form. An axis that changes its sign cannot be
pooled, a diagonal has the sum modulo 2 of both grades, and forms meet where labels and grades are the same: grades select
hubs.

Everything here but `pool`, `spread`, `fold` and `unfold` is plain Python, computed once for a group; the graphs used last are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations, permutations
from math import prod, sqrt
from typing import Any, Literal

from nfn_core.arrays import Array, Namespace, device_of
from nfn_core.groups import Group
from nfn_core.spaces import TensorSpec

__all__ = [
    "Form",
    "Hub",
    "HubGraph",
    "HubMember",
    "POOLINGS",
    "Side",
    "TensorPlan",
    "fold",
    "hub_graph",
    "pool",
    "spread",
    "unfold",
]

Pooling = Literal["mean", "sum", "scaled_sum"]
"""How axes are pooled; the scaled sum is divided by the square root of the number of entries, so that entries that are
independent and of unit variance pool to unit variance."""
POOLINGS = ("mean", "sum", "scaled_sum")
Side = Literal["inputs", "outputs"]
Block = tuple[int, ...]
State = tuple[tuple[Block, ...], frozenset[Block]]


@dataclass(frozen=True)
class Form:
    """One pooled form of a tensor, made from another form by a single step.

    Parameters
    ----------
    labels : tuple of str
        Neuron sets of the axes it keeps, in the tensor's order.
    shape : tuple of int
        Their sizes.
    parent : int
        Index of the form it is made from; -1 for the tensor itself.
    axis : int
        Axis of the parent that is pooled, or that is identified with `partner`.
    partner : int
        For a diagonal the earlier axis of the parent that `axis` is identified with; -1 for pooling.
    pooled : int
        Number of the tensor's entries that are pooled into each of its own.
    grade : tuple of int
        Grades of the axes it keeps: 0 where entries do not change with the signs of the neurons.
    """

    labels: tuple[str, ...]
    shape: tuple[int, ...]
    parent: int = -1
    axis: int = -1
    partner: int = -1
    pooled: int = 1
    grade: tuple[int, ...] = ()

    @property
    def kept(self) -> tuple[tuple[str, int], ...]:
        """Label and grade of each axis it keeps: forms where they are the same meet in a hub."""
        return tuple(zip(self.labels, self.grade, strict=True))


@dataclass(frozen=True)
class TensorPlan:
    """How one tensor is folded and pooled.

    Parameters
    ----------
    spec : TensorSpec
        The tensor.
    order : tuple of int
        Its axes, permuted ones first, then fixed ones.
    fixed : tuple of int
        Sizes of the fixed axes.
    forms : tuple of Form
        Its forms, the tensor itself first, parents before children.
    """

    spec: TensorSpec
    order: tuple[int, ...]
    fixed: tuple[int, ...]
    forms: tuple[Form, ...]

    @property
    def width(self) -> int:
        """Number of folded channels for each channel."""
        return prod(self.fixed)

    @property
    def totals(self) -> tuple[int, ...]:
        """Indices of the forms that keep no axis."""
        return tuple(k for k, form in enumerate(self.forms) if not form.labels)


@dataclass(frozen=True)
class HubMember:
    """A form of a tensor that is a member of a hub.

    Parameters
    ----------
    tensor : int
        Index of the tensor.
    form : int
        Index of the form.
    order : tuple of int
        The form's axes in the hub's order.
    """

    tensor: int
    form: int
    order: tuple[int, ...]


@dataclass(frozen=True)
class Hub:
    """A meeting point of all forms that keep the same labels.

    Parameters
    ----------
    labels : tuple of str
        Neuron sets of its axes.
    inputs : tuple of HubMember
        Every form, in every order of axes that carry one label.
    outputs : tuple of HubMember
        Every form, in one order.
    grade : tuple of int
        Grades of its axes.
    """

    labels: tuple[str, ...]
    inputs: tuple[HubMember, ...]
    outputs: tuple[HubMember, ...]
    grade: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Name of its parameter: ``"hub+h2+h1"``, and ``"hub+h2[1]+h1"`` where the first axis has grade 1."""
        axes = (f"{s}[{g}]" if g else s for s, g in zip(self.labels, self.grade, strict=True))
        return "+".join(("hub", *axes))


@dataclass(frozen=True)
class HubGraph:
    """Tensors and hubs of a group's equivariant linear maps.

    Parameters
    ----------
    tensors : tuple of TensorPlan
        The input tensors, in their space's order.
    hubs : tuple of Hub
        The hubs; the first is the empty hub, which keeps no axis. A group with signs has none if no output is even.
    into : tuple of TensorPlan, optional
        The output tensors, if they are not the input tensors.
    """

    tensors: tuple[TensorPlan, ...]
    hubs: tuple[Hub, ...]
    into: tuple[TensorPlan, ...] | None = None
    _num_inputs: dict[str, int] = field(init=False, repr=False, compare=False)
    _fan_in: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        widths = [plan.width for plan in self.tensors]
        num_inputs = {hub.name: sum(widths[view.tensor] for view in hub.inputs) for hub in self.hubs}
        fan_in = [0] * len(self.targets)
        for hub in self.hubs:
            for view in hub.outputs:
                fan_in[view.tensor] += num_inputs[hub.name]
        object.__setattr__(self, "_num_inputs", num_inputs)
        object.__setattr__(self, "_fan_in", tuple(fan_in))

    @property
    def targets(self) -> tuple[TensorPlan, ...]:
        """The output tensors."""
        return self.tensors if self.into is None else self.into

    def side(self, side: Side) -> tuple[TensorPlan, ...]:
        """Return the input or the output tensors."""
        return self.tensors if side == "inputs" else self.targets

    def width(self, view: HubMember, side: Side = "inputs") -> int:
        """Folded channels of a view on one side for each channel."""
        return self.side(side)[view.tensor].width

    def num_inputs(self, hub: Hub) -> int:
        """Inputs of a hub's matrix for each channel."""
        return self._num_inputs[hub.name]

    def fan_in(self, tensor: int) -> int:
        """Inputs of all hubs that feed an output tensor, for each channel."""
        return self._fan_in[tensor]


@lru_cache(maxsize=256)
def hub_graph(group: Group, target: Group | None = None) -> HubGraph:
    """Tensors and hubs of a group.

    Parameters
    ----------
    group : Group
        The group, with its weight space.
    target : Group, optional
        The same group on the weight space of the outputs, if that is another.

    Returns
    -------
    HubGraph
        Forms and hubs; the orbits of index pairs, one for each pair of an input and an output view of a hub and each
        pair of their fixed entries.
    """
    sources = tuple(_plan(t, group) for t in group.space.tensors)
    targets = sources if target is None else tuple(_plan(t, target) for t in target.space.tensors)
    axes: dict[tuple[Any, ...], tuple[tuple[str, int], ...]] = {(): ()}
    members: dict[Side, dict[tuple[Any, ...], list[HubMember]]] = {"inputs": {}, "outputs": {}}
    both: dict[Side, tuple[TensorPlan, ...]] = {"inputs": sources, "outputs": targets}
    for side, plans in both.items():
        for i, plan in enumerate(plans):
            for j, form in enumerate(plan.forms):
                key = tuple(sorted(form.kept))
                order = axes.setdefault(key, form.kept)
                orders = [p for p in permutations(range(len(order))) if tuple(form.kept[k] for k in p) == order]
                taken = orders if side == "inputs" else orders[:1]
                members[side].setdefault(key, []).extend(HubMember(i, j, p) for p in taken)
    hubs = []
    for key, order in axes.items():
        came, go = (tuple(members[side].get(key, ())) for side in both)
        if go and (came or not key):  # the empty hub has the constants, also where nothing comes into it
            hubs.append(Hub(tuple(s for s, _ in order), came, go, tuple(g for _, g in order)))
    return HubGraph(sources, tuple(hubs), None if target is None else targets)


def _plan(spec: TensorSpec, group: Group) -> TensorPlan:
    """Enumerate the forms of one tensor."""
    grade = group.grade(spec.name)
    permuted = [a for a, label in enumerate(spec.labels) if label in group.permuted or grade[a]]
    fixed = [a for a in range(len(spec.labels)) if a not in permuted]
    label: dict[Block, str] = {(k,): str(spec.labels[a]) for k, a in enumerate(permuted)}
    size: dict[Block, int] = {(k,): spec.shape[a] for k, a in enumerate(permuted)}
    sign: dict[Block, int] = {(k,): grade[a] for k, a in enumerate(permuted)}

    def kept_of(blocks: tuple[Block, ...]) -> dict[str, Any]:
        return {
            name: tuple(of[b] for b in blocks) for name, of in (("labels", label), ("shape", size), ("grade", sign))
        }

    # A block is a set of axes that share one index: a single axis, or the axes of a diagonal. A state is the blocks that a
    # form keeps and those that it pools. Every state is reached once, from the form with which it takes least work.
    start: State = (tuple(label), frozenset())
    states = {start: 0}
    forms = [Form(**kept_of(tuple(label)))]
    # Step 1, diagonals: merge two blocks of one neuron set, and go on merging in the states found that way.
    growing = [start]
    for kept, _ in growing:
        for i, j in combinations(range(len(kept)), 2):
            if label[kept[i]] != label[kept[j]]:
                continue
            block = tuple(sorted(kept[i] + kept[j]))
            label[block], size[block] = label[kept[i]], size[kept[i]]
            sign[block] = sign[kept[i]] ^ sign[kept[j]]
            state: State = ((*kept[:i], block, *kept[i + 1 : j], *kept[j + 1 :]), frozenset())
            if state not in states:
                parent = states[(kept, frozenset())]
                states[state] = len(forms)
                growing.append(state)
                forms.append(Form(**kept_of(state[0]), parent=parent, axis=j, partner=i))
    # Step 2, pooling: of every state so far keep each subset of blocks, larger subsets first, since they are the parents.
    # Blocks that change their sign are kept: the sum over them would have none.
    for whole, _ in tuple(states):
        for count in range(len(whole) - 1, -1, -1):
            for kept in combinations(whole, count):
                gone = [block for block in whole if block not in kept]
                if any(sign[b] for b in gone):
                    continue
                parents = [tuple(b for b in whole if b in kept or b == back) for back in gone]
                # Pool one block of the smallest form that has just this block more.
                near = min(parents, key=lambda blocks: prod([size[b] for b in blocks]))
                parent = states[(near, frozenset(whole) - frozenset(near))]
                axis = next(k for k, block in enumerate(near) if block not in kept)
                states[(kept, frozenset(gone))] = len(forms)
                pooled = prod([size[b] for b in gone])
                forms.append(Form(**kept_of(kept), parent=parent, axis=axis, pooled=pooled))
    return TensorPlan(spec, (*permuted, *fixed), tuple(spec.shape[a] for a in fixed), tuple(forms))


def fold(plan: TensorPlan, x: Array, xp: Namespace) -> Array:
    """Fold a tensor's fixed axes into its channels.

    Parameters
    ----------
    plan : TensorPlan
        The tensor's plan.
    x : array
        Shape (batch, *axes, channels).
    xp : module
        Array namespace of `x`.

    Returns
    -------
    array
        Shape (batch, *permuted axes, width * channels).
    """
    batch, channels = x.shape[0], x.shape[-1]
    x = xp.permute_dims(x, (0, *(a + 1 for a in plan.order), x.ndim - 1))
    return xp.reshape(x, (batch, *plan.forms[0].shape, plan.width * channels))


def unfold(plan: TensorPlan, x: Array, xp: Namespace) -> Array:
    """Undo `fold`.

    Parameters
    ----------
    plan : TensorPlan
        The tensor's plan.
    x : array
        Shape (batch, *permuted axes, width * channels).
    xp : module
        Array namespace of `x`.

    Returns
    -------
    array
        Shape (batch, *axes, channels).
    """
    x = xp.reshape(x, (x.shape[0], *plan.forms[0].shape, *plan.fixed, x.shape[-1] // plan.width))
    back = sorted(range(len(plan.order)), key=plan.order.__getitem__)
    return xp.permute_dims(x, (0, *(a + 1 for a in back), x.ndim - 1))


def pool(plan: TensorPlan, x: Array, pooling: Pooling, xp: Namespace, only: Sequence[int] | None = None) -> list[Any]:
    """Forms of a folded tensor.

    Parameters
    ----------
    plan : TensorPlan
        The tensor's plan.
    x : array
        Shape (batch, *permuted axes, c).
    pooling : {"mean", "sum", "scaled_sum"}
        How axes are pooled.
    xp : module
        Array namespace of `x`.
    only : sequence of int, optional
        Forms that are wanted, by default all.

    Returns
    -------
    list of array or None
        For each form an array of shape (batch, *form.shape, c), or None if neither it nor one made from it is wanted.
    """
    reduce = xp.mean if pooling == "mean" else xp.sum
    wanted = set(range(len(plan.forms)) if only is None else only)
    for k in range(len(plan.forms) - 1, 0, -1):
        if k in wanted:
            wanted.add(plan.forms[k].parent)
    forms: list[Any] = [x]
    for k, form in enumerate(plan.forms[1:], start=1):
        parent = forms[form.parent]
        if k not in wanted:
            forms.append(None)
        elif form.partner < 0:
            y = reduce(parent, axis=form.axis + 1)
            forms.append(y / sqrt(parent.shape[form.axis + 1]) if pooling == "scaled_sum" else y)
        else:
            forms.append(_diagonal(parent, form.partner + 1, form.axis + 1, xp))
    return forms


def spread(plan: TensorPlan, parts: Sequence[Array | None], xp: Namespace) -> Any:
    """Adjoint of sum pooling: add up arrays given for each form, so that they broadcast to the whole tensor.

    Small forms are added together first.

    Parameters
    ----------
    plan : TensorPlan
        The tensor's plan.
    parts : sequence of array or None
        For each form an array of shape (batch, *form.shape, c), or None for zero.
    xp : module
        Array namespace of the arrays.

    Returns
    -------
    array
        Shape (batch, *permuted axes, c), or with axes of size 1 along which it does not change; None of no parts.
    """
    sums: list[Any] = list(parts)
    for k in range(len(plan.forms) - 1, 0, -1):
        form = plan.forms[k]
        if sums[k] is None:
            continue
        if form.partner < 0:
            part = xp.expand_dims(sums[k], axis=form.axis + 1)
        else:
            part = _on_diagonal(sums[k], form.partner + 1, form.axis + 1, form.shape[form.partner], xp)
        sums[form.parent] = part if sums[form.parent] is None else sums[form.parent] + part
    return sums[0]


def _diagonal(x: Array, i: int, j: int, xp: Namespace) -> Array:
    """Diagonal of axes i < j, on axis i."""
    n = x.shape[i]
    rest = [a for a in range(x.ndim) if a not in (i, j)]
    x = xp.permute_dims(x, (*rest, i, j))
    shape = x.shape[:-2]
    x = xp.reshape(x, (*shape, n * n))[..., :: n + 1]
    return xp.permute_dims(x, (*range(i), len(rest), *range(i, len(rest))))


def _on_diagonal(x: Array, i: int, j: int, n: int, xp: Namespace) -> Array:
    """Adjoint of `_diagonal`: axis i goes to the diagonal of axes i and j of size n, zero elsewhere."""
    shape = [1] * (x.ndim + 1)
    shape[i] = shape[j] = n
    return xp.expand_dims(x, axis=j) * xp.reshape(xp.eye(n, dtype=x.dtype, device=device_of(x)), tuple(shape))
