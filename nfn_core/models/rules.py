"""One rule for each kind of tensor operation: which axes it makes equal, which it fixes, and the axes of its result.

A rule holds if the operation commutes with every permutation that its axes then allow. Front ends translate a
framework's operations into these rules and hold no rule of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

from nfn_core.models.axes import Algebra, Group, Node, concat_of, product_of, resolve

__all__ = ["Index", "Rules", "Value", "indexed"]


@dataclass
class Index:
    """An axis whose entries are numbered by integers of a network's input (tokens of a vocabulary).

    Parameters
    ----------
    axis : Node, optional
        The axis, once it is known.
    invalidated : str, optional
        An operation that uses these integers for something else than looking entries up, so that the axis cannot be permuted.
    """

    axis: Node | None = None
    invalidated: str | None = None


@dataclass(frozen=True)
class Value:
    """What is known of a tensor while a computation is walked.

    Parameters
    ----------
    axes : tuple of Node
        Its axes.
    constant : bool
        Whether it depends on neither tensors of the weight space nor inputs.
    index : Index, optional
        For integers of the network's input, the axis they number.
    shifts : frozenset of int
        What may have been added to such integers: 0, or the axis's size where negative numbers count from its end.
    number : float, optional
        For a constant of one entry, the entry.
    zero : bool
        Whether it is a constant of zeros.
    factor : float, optional
        What the tensor was multiplied by last; 1 if it is no multiple, None if that is hidden by a later operation.
    """

    axes: tuple[Node, ...]
    constant: bool = False
    index: Index | None = None
    shifts: frozenset[int] = field(default=frozenset({0}))
    number: float | None = None
    zero: bool = False
    factor: float | None = 1.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Size of each axis."""
        return tuple(node.size for node in self.axes)


class Rules(Algebra):
    """Rules of operations.

    Attributes
    ----------
    activations : list of (str, Value)
        Activation functions in order, each with its argument.
    partial : list of (str, Node, list of Node, bool)
        For every operation that keeps a part of an axis, or adds constant entries to it: its name, the part that it keeps,
        what it leaves out or adds, and whether it adds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.activations: list[tuple[str, Value]] = []
        self.partial: list[tuple[str, Node, list[Node], bool]] = []

    def tensor(self, shape: Sequence[int]) -> Value:
        """Return a new tensor of which nothing is known yet."""
        return Value(tuple(Node(n) for n in shape))

    def constant(
        self, shape: Sequence[int], varies: Sequence[bool], number: float | None = None, zero: bool = False
    ) -> Value:
        """Constant: fixed along the axes on which its entries differ."""
        axes = tuple(self.fixed(n) if v else Node(n) for n, v in zip(shape, varies, strict=True))
        return Value(axes, constant=True, number=number, zero=zero)

    def identity(self, size: int) -> Value:
        """Identity matrix: one permutation of rows and columns leaves it as it is."""
        node = Node(size)
        return Value((node, node), constant=True)

    def renewed(self, value: Value) -> Value:
        """Constant with axes of its own: a part is alike along axes that may move, however these move in other parts."""
        if not value.constant or value.index is not None:  # what numbers an axis moves with it
            return value
        fresh: dict[int, Node] = {}
        return replace(value, axes=tuple(self._renewed(node, fresh) for node in value.axes))

    def _renewed(self, node: Node, fresh: dict[int, Node]) -> Node:
        """Axis with new leaves in place of those that may move, the same one for the same leaf."""
        node = resolve(node)
        if node.parts:
            parts = tuple(self._renewed(part, fresh) for part in node.parts)
            return Node(node.size, node.kind, parts)
        return node if node.fixed else fresh.setdefault(id(node), Node(node.size))

    def opaque(self, shape: Sequence[int]) -> Value:
        """Result of which every axis is fixed."""
        return Value(tuple(map(self.fixed, shape)))

    def elementwise(self, *values: Value) -> Value:
        """Map entries; axes of size 1 and missing leading axes are broadcast."""
        rank = max(len(v.axes) for v in values)
        rows = [(Node(1),) * (rank - len(v.axes)) + v.axes for v in values]
        factor = 1.0 if all(v.factor == 1.0 for v in values) else None
        return Value(tuple(self._broadcast(column) for column in zip(*rows, strict=True)), factor=factor)

    def multiply(self, x: Value | float, y: Value | float, inverse: bool = False) -> Value:
        """Multiply entries by entries or by a number, or divide by them; a product with a number is a multiple."""
        values = [v for v in (x, y) if isinstance(v, Value)]
        out = self.elementwise(*values)
        first, second = (v.number if isinstance(v, Value) else v for v in (x, y))
        if second is None and not inverse:
            x, second = y, first
        factor = x.factor if isinstance(x, Value) else None
        if second is None or factor is None or (inverse and second == 0):
            return replace(out, factor=None)
        return replace(out, factor=factor / second if inverse else factor * second)

    def activate(self, function: str, x: Value) -> Value:
        """Apply an activation function that has a symmetry of its own, and keep a record of it."""
        whole = tuple(node.group.whole if node.group else node for node in x.axes)
        self.activations.append((function, replace(x, axes=whole)))
        return self.same_shape(x)

    def _broadcast(self, nodes: Sequence[Node]) -> Node:
        """Common axis of axes that are equal or of size 1."""
        joined = nodes[0]
        for node in nodes[1:]:
            joined = node if joined.size == 1 else joined if node.size == 1 else self.unify(joined, node)
        return joined

    def same_shape(self, value: Value) -> Value:
        """Act on all entries alike: activations."""
        return Value(value.axes)

    def normalize(self, value: Value, axes: Sequence[int]) -> Value:
        """Divide by a sum over axes or the like, which keeps them: softmax, normalization."""
        for a in axes:
            self.read(value.axes[a])
        return Value(value.axes)

    def reduce(self, value: Value, axes: Sequence[int], keep: bool = False) -> Value:
        """Sum, mean, maximum and the like over axes."""
        gone = {a % len(value.axes) for a in axes}
        for a in gone:
            self.read(value.axes[a])
        kept = [Node(1) if a in gone else node for a, node in enumerate(value.axes) if keep or a not in gone]
        return Value(tuple(kept))

    def fix_axes(self, value: Value, axes: Sequence[int]) -> Value:
        """Act in order along axes: cumulative sums, flips, sorting."""
        for a in axes:
            self.fix(value.axes[a])
        return Value(value.axes)

    def resize(self, value: Value, shape: Sequence[int], axes: Sequence[int]) -> Value:
        """Mix neighbors along axes and give them another size: pooling, interpolation, strides."""
        gone = {a % len(shape) for a in axes}
        for a in gone:
            self.fix(value.axes[a])
        return Value(tuple(self.fixed(n) if a in gone else value.axes[a] for a, n in enumerate(shape)))

    def transpose(self, value: Value, order: Sequence[int]) -> Value:
        """Reorder axes."""
        return replace(value, axes=tuple(value.axes[a] for a in order))

    def reshape(self, value: Value, shape: Sequence[int]) -> Value:
        """Merge and split axes, row-major."""
        return replace(value, axes=tuple(self.regroup(value.axes, shape)))

    def broadcast(self, value: Value, shape: Sequence[int], places: Sequence[int]) -> Value:
        """Place axes among those of a larger shape, and repeat entries along the others."""
        axes = [Node(n) for n in shape]
        for node, place in zip(value.axes, places, strict=True):
            if node.size == axes[place].size:
                axes[place] = node
        return replace(value, axes=tuple(axes))

    def concatenate(self, values: Sequence[Value], axis: int) -> Value:
        """Concatenate along one axis; the other axes are made equal."""
        values = [v for v in values if 0 not in v.shape] or [values[0]]  # torch joins (0,) with any shape
        axes = list(values[0].axes)
        for value in values[1:]:
            for a, node in enumerate(value.axes):
                if a != axis % len(axes):
                    axes[a] = self.unify(axes[a], node)
        own, added = ([v.axes[axis] for v in values if v.constant == constant] for constant in (False, True))
        self.partial += [(self.where, node, added, True) for node in own]
        axes[axis] = concat_of(v.axes[axis] for v in values)
        return Value(tuple(axes))

    def slice(self, value: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
        """Keep part of one axis; with steps it is fixed."""
        axes, n = list(value.axes), value.shape[axis]
        if step != 1:
            self.fix(axes[axis])
            axes[axis] = self.fixed(len(range(start, stop, step)))
        elif (start, stop) != (0, n) and (group := axes[axis].group):
            axes = self._slice_group(axes, group, group.nodes.index(axes[axis]), (start, stop))
        elif (start, stop) != (0, n):
            axes[axis] = self._kept(axes[axis], (start, stop - start, n - stop))
        else:
            return value
        return self.renewed(replace(value, axes=tuple(axes)))

    def _kept(self, node: Node, sizes: tuple[int, int, int]) -> Node:
        """Cut an axis into what is before, in and after a slice, and keep what is in it."""
        pieces = iter(self.cut(node, [s for s in sizes if s]))
        before, kept, after = [next(pieces) if s else Node(0) for s in sizes]
        self.partial.append((self.where, kept, [before, after], False))
        return kept

    def _slice_group(self, axes: list[Node], group: Group, place: int, bounds: tuple[int, int]) -> list[Node]:
        """Keep some entries of one axis of a group: the axes inside it become axes of what is kept."""
        sizes = [node.size for node in group.nodes]
        *over, rest = self.divided([group.whole], [*sizes[:place], prod(sizes[place:])])
        (start, stop), inner = bounds, prod(sizes[place + 1 :])
        kept = self._kept(rest, (start * inner, (stop - start) * inner, (sizes[place] - stop) * inner))
        new = [*over, *self.regroup([kept], [stop - start, *sizes[place + 1 :]])]
        fresh = dict(zip(map(id, group.nodes), new, strict=True))
        return [fresh.get(id(node), node) for node in axes]

    def split(self, value: Value, axis: int, sizes: Sequence[int]) -> list[Value]:
        """Cut one axis into consecutive parts."""
        starts = [sum(sizes[:k]) for k in range(len(sizes))]
        return [self.slice(value, axis, start, start + n) for start, n in zip(starts, sizes, strict=True)]

    def pad(self, value: Value, widths: Sequence[tuple[int, int]]) -> Value:
        """Add constant entries at the ends of axes, or take entries away; what is added may move freely."""
        for axis, (low, high) in enumerate(widths):
            n = value.shape[axis]
            value = self.slice(value, axis, max(0, -low), n - max(0, -high))
            axes = list(value.axes)
            ends = [[Node(w)] if w > 0 else [] for w in (low, high)]
            self.partial.append((self.where, axes[axis], [*ends[0], *ends[1]], True))
            axes[axis] = concat_of([*ends[0], axes[axis], *ends[1]])
            value = Value(tuple(axes))
        return value

    def contract(
        self, x: Value, y: Value, summed: Sequence[tuple[int, int]], batch: Sequence[tuple[int, int]]
    ) -> Value:
        """Product summed over pairs of axes; the result has the batch axes, then the rest of x, then of y."""
        for i, j in summed:
            node = self.unify(x.axes[i], y.axes[j])
            if not (x.zero or y.zero):  # a first state of zeros does not show what is multiplied by it
                self.read(node)
        common = [self.unify(x.axes[i], y.axes[j]) for i, j in batch]
        left = {i for i, _ in (*summed, *batch)}
        right = {j for _, j in (*summed, *batch)}
        mine = [node for i, node in enumerate(x.axes) if i not in left]
        other = [node for j, node in enumerate(y.axes) if j not in right]
        return Value((*common, *mine, *other))

    def convolve(
        self, x: Value, kernel: Value, space: Sequence[int], groups: int, mixing: Sequence[bool], transposed: bool
    ) -> Value:
        """Convolution of x (batch, channels, *space) with a kernel (out, in / groups, *space).

        Groups are a neuron set of their own: they are permuted as wholes, with one order inside all of them. A kernel
        of one tap without stride or padding (not `mixing`) leaves its spatial axis free. A transposed convolution's
        kernel is (in, out / groups, *space).
        """
        batch, channels, *pixels = x.axes
        self.read(channels)
        first, second, *taps = kernel.axes
        for node in taps:
            self.fix(node)
        over, inside = self.take_factor(channels, groups)
        copies, rest = self.take_factor(first, groups)
        shared = self.unify(over, copies)
        self.unify(inside, rest if transposed else second)
        out = product_of([shared, second if transposed else rest])
        after = []
        for node, size, mixes in zip(pixels, space, mixing, strict=True):
            if mixes:
                self.fix(node)
            after.append(self.fixed(size) if mixes else node)
        return Value((batch, out, *after))

    def scale_along(self, value: Value, axis: int, *vectors: Value) -> Value:
        """Scale and shift along one axis by vectors, as after a normalization."""
        for v in vectors:
            self.unify(value.axes[axis], v.axes[0])
        return Value(value.axes)

    def in_groups(self, value: Value, axis: int, groups: int) -> Value:
        """Normalize groups of one axis: they are permuted as wholes, with one order inside all of them."""
        self.take_factor(value.axes[axis], groups)
        self.read(value.axes[axis])
        return Value(value.axes)

    def number(self, node: Node, numbers: Value) -> None:
        """Let integers number the entries of an axis; it is permuted only where they are known to be permuted with it."""
        index = numbers.index
        self.read(node)
        if index is None or numbers.constant:
            self.fix(node)
            self.invalidate(numbers)
            return
        index.axis = index.axis or node
        if index.axis.size == node.size and numbers.shifts <= {0, node.size}:
            self.unify(index.axis, node)
        else:
            self.fix(node)
            self.invalidate(numbers)
        if index.invalidated:
            self.fix(node)

    def looked_up(self, table: Value, axes: Sequence[Node]) -> Value:
        """Entries of a table that were looked up: they are what its entries are, but no constant."""
        return replace(table, axes=tuple(axes), constant=False, number=None, zero=False)

    def take(self, table: Value, numbers: Value, axis: int) -> Value:
        """Look entries of one axis up; it is permuted only where the numbers come from the input or from its own maxima."""
        self.number(table.axes[axis], numbers)
        return self.looked_up(table, (*table.axes[:axis], *numbers.axes, *table.axes[axis + 1 :]))

    def gather(self, table: Value, numbers: Value, axis: int) -> Value:
        """Look entries of one axis up, other entries in each row; the other axes are made equal."""
        axis %= len(table.axes)
        self.number(table.axes[axis], numbers)
        for a, (node, other) in enumerate(zip(table.axes, numbers.axes, strict=True)):
            if a != axis:
                self.match(node, other)
        return self.looked_up(table, numbers.axes)

    def match(self, a: Node, b: Node) -> Node:
        """Make two axes equal; if one is shorter, because only a part is used, both are fixed."""
        if a.size == b.size:
            return self.unify(a, b)
        self.fix(a)
        self.fix(b)
        return a

    def scatter(self, x: Value, numbers: Value, part: Value | None, axis: int, in_order: bool) -> Value:
        """Put or add entries at numbered places of one axis, other places in each row; what overwrites acts in order."""
        axis %= len(x.axes)
        self.number(x.axes[axis], numbers)
        self.invalidate(x, *([] if part is None else [part]))
        for a, node in enumerate(numbers.axes):
            if part is not None and len(part.axes) == len(numbers.axes):
                self.match(node, part.axes[a])
                if a == axis:  # entries for one place meet
                    self.read(part.axes[a])
            if a != axis:
                self.match(node, x.axes[a])
            elif in_order:
                self.fix(node)
        return Value(x.axes)

    def largest(self, value: Value, axis: int, count: int | None = None) -> list[Value]:
        """Take the first entries of an axis by size, and their numbers, which are permuted with the axis."""
        axis %= max(1, len(value.axes))
        if not value.axes:
            return [value, Value(())]
        node = value.axes[axis]
        self.read(node)
        kept = () if count is None else (self.fixed(count),)
        axes = (*value.axes[:axis], *kept, *value.axes[axis + 1 :])
        return [Value(axes), Value(axes, index=Index(node))]

    def numbering(self, shape: Sequence[int], axis: int) -> Value:
        """Constant that numbers an axis: its numbers are permuted with the axis as long as they are only compared."""
        axes = tuple(map(Node, shape))
        return Value(axes, constant=True, index=Index(axes[axis]))

    def same_number(self, x: Value | float, y: Value | float) -> Value:
        """Compare for equality; numbers of two axes are equal alike if these are one axis."""
        values = [v for v in (x, y) if isinstance(v, Value)]
        found = [v.index for v in values if v.index is not None]
        known = [index.axis for index in found if index.axis is not None]
        alike = len(found) == 2 and bool(known) and all(v.shifts == {0} for v in values)
        if alike and len({node.size for node in known}) == 1:
            for index in found:
                index.axis = index.axis or known[0]
                self.unify(index.axis, known[0])
            for index in found:
                if index.invalidated:
                    self.fix(known[0])
        else:
            self.invalidate(*values)
        return self.elementwise(*values)

    def diagonal(self, value: Value, first: int, second: int, size: int, offset: int) -> Value:
        """Take a diagonal, the last axis of the result: the two axes are made equal; another diagonal than the main one fixes them."""
        first, second = first % len(value.axes), second % len(value.axes)
        a, b = value.axes[first], value.axes[second]
        if offset == 0 and a.size == b.size:
            joined = self.unify(a, b)
        else:
            self.fix(a)
            self.fix(b)
            joined = self.fixed(size)
        return Value((*[n for k, n in enumerate(value.axes) if k not in (first, second)], joined))

    def place(self, x: Value, part: Value, axis: int, start: int, stop: int, step: int = 1) -> Value:
        """Put a tensor in place of a part of one axis; the other axes are made equal."""
        axis %= len(x.axes)
        axes, n = list(x.axes), x.shape[axis]
        for a, node in enumerate(part.axes):
            if a != axis:
                axes[a] = self.unify(axes[a], node)
        if step != 1:
            self.fix(axes[axis])
            self.fix(part.axes[axis])
        elif (start, stop) == (0, n):
            axes[axis] = part.axes[axis]
        else:
            sizes = [start, stop - start, n - stop]
            pieces = iter(self.cut(axes[axis], [size for size in sizes if size]))
            cut = [next(pieces) if size else None for size in sizes]
            if x.constant:
                others = [p for k, p in enumerate(cut) if k != 1 and p is not None]
                self.partial.append((self.where, part.axes[axis], others, True))
            axes[axis] = concat_of([part.axes[axis] if k == 1 else p for k, p in enumerate(cut) if p is not None])
        return Value(tuple(axes))

    def take_each(self, table: Value, numbers: Sequence[Value | None]) -> Value:
        """Look up entries at places given by several numbers, one for each axis or None: only those axes are fixed."""
        given = [n for n in numbers if n is not None]
        self.invalidate(*given)
        self.fix_axes(table, [a for a, n in enumerate(numbers) if n is not None])
        return indexed(table, numbers, self.elementwise(*given))

    def in_order(self, shapes: Sequence[Sequence[int]], *operands: Any) -> list[Value]:
        """Act on all entries in order: every axis of the operands that are tensors and of the results is fixed."""
        for x in operands:
            if isinstance(x, Value):
                self.fix_axes(x, range(len(x.axes)))
        return [self.opaque(shape) for shape in shapes]

    def invalidate(self, *values: Value) -> None:
        """Record that integers are used for something else than looking entries up, which fixes the axes that they number."""
        for index in (value.index for value in values if value.index is not None):
            index.invalidated = index.invalidated or self.where
            if index.axis is not None:
                self.fix(index.axis)

    def offset(self, value: Value, by: int) -> Value:
        """Add a number to integers."""
        return replace(value, shifts=frozenset(s + by for s in value.shifts))

    def select(self, predicate: Value, *cases: Value) -> Value:
        """Choose between values entry by entry; integers keep their axis if all cases number the same one."""
        out = self.elementwise(predicate, *cases)
        first = cases[0].index
        if first is None or any(case.index is not first for case in cases):
            return out
        return replace(out, index=first, shifts=frozenset[int]().union(*(case.shifts for case in cases)))

    def equal(self, x: Value, y: Value) -> None:
        """Make all axes of two tensors equal: a loop's state before and after, the branches of a choice."""
        for a, b in zip(x.axes, y.axes, strict=True):
            self.unify(a, b)
        if x.index is not y.index:
            self.invalidate(x, y)


def indexed(table: Value, numbers: Sequence[Value | None], found: Value) -> Value:
    """Entries at places that several numbers give, one an axis or None: the axes of `found` are first, or in place of neighbors."""
    places = [a for a, n in enumerate(numbers) if n is not None]
    first = places[0] if places == list(range(places[0], places[-1] + 1)) else 0
    kept = [node for a, node in enumerate(table.axes) if a not in places]
    return Value((*kept[:first], *found.axes, *kept[first:]))
