"""Axes of tensors as expressions in neuron sets, joined and refined until a network's computation respects them.

An axis is a *leaf* (one neuron set, or fixed), a *product* of axes (merged by a reshape, row-major: pixels of a channel,
dimensions of a head) or a *concatenation*. Two axes that a computation makes equal are unified: a leaf becomes what the
other is, products and concatenations are cut until their parts agree. Every step only makes the group smaller, and
what cannot be cut evenly is fixed, so the result is a symmetry of all steps together.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Literal

__all__ = ["Algebra", "Group", "Node", "factors", "fixed_by", "leaves", "resolve", "segments"]


class Node:
    """An axis: a class of the union-find, of one size.

    Parameters
    ----------
    size : int
        Number of entries.
    kind : {"leaf", "product", "concat"}
        What it is made of.
    parts : tuple of Node
        Factors or segments, none for a leaf.
    fixed : str, optional
        For a leaf that is not permuted, the operation that fixed it.
    read : bool
        For a leaf, whether entries along it meet in some result: they are summed, normalized, looked up, or are an output.

    Attributes
    ----------
    group : Group, optional
        The group of axes that it belongs to, as long as nothing asks what it is.
    """

    __slots__ = ("fixed", "group", "kind", "link", "parts", "read", "size")

    def __init__(
        self,
        size: int,
        kind: Literal["leaf", "product", "concat"] = "leaf",
        parts: tuple["Node", ...] = (),
        fixed: str | None = None,
        read: bool = False,
    ) -> None:
        self.size, self.kind, self.parts, self.fixed, self.read = size, kind, parts, fixed, read
        self.link: Node | None = None
        self.group: Group | None = None


class Group:
    """Axes that a reshape makes of one axis, which is divided only when something asks for one of them.

    Until then, entries of one of these axes may be taken apart, each with axes of its own: the queries, keys and values of
    a packed projection need not have their dimensions in one order.

    Parameters
    ----------
    algebra : Algebra
        What divides the axis.
    whole : Node
        The axis.
    sizes : sequence of int
        Sizes of the axes.
    """

    def __init__(self, algebra: "Algebra", whole: Node, sizes: Sequence[int]) -> None:
        self.algebra, self.whole, self.where = algebra, whole, algebra.where
        self.nodes = [Node(n) for n in sizes]
        for node in self.nodes:
            node.group = self

    def divide(self) -> None:
        """Divide the axis."""
        for node in self.nodes:
            node.group = None
        with self.algebra.at(self.where):
            for node, part in zip(
                self.nodes, self.algebra.divided([self.whole], [n.size for n in self.nodes]), strict=True
            ):
                node.link = part


def resolve(node: Node) -> Node:
    """Representative of a node's class."""
    while node.link is not None or node.group is not None:
        if node.group is not None:
            node.group.divide()
        node = node.link or node
    return node


def factors(node: Node) -> list[Node]:
    """Factors of an axis, none of them a product or of size 1."""
    node = resolve(node)
    if node.kind == "product":
        return [f for part in node.parts for f in factors(part)]
    return [node] if node.size != 1 else []


def segments(node: Node) -> list[Node]:
    """Segments of an axis, none of them a concatenation."""
    node = resolve(node)
    return [s for part in node.parts for s in segments(part)] if node.kind == "concat" else [node]


def leaves(node: Node) -> list[Node]:
    """Leaves of an axis, in order."""
    node = resolve(node)
    return [leaf for part in node.parts for leaf in leaves(part)] if node.parts else [node]


def fixed_by(node: Node) -> str | None:
    """What fixed the first fixed leaf of an axis, None if all of it may move."""
    node = resolve(node)
    return next((why for why in map(fixed_by, node.parts) if why), None) if node.parts else node.fixed


def product_of(nodes: Iterable[Node]) -> Node:
    """Row-major product."""
    parts = [f for node in nodes for f in factors(node)]
    if len(parts) == 1:
        return parts[0]
    return Node(prod(p.size for p in parts), "product" if parts else "leaf", tuple(parts))


def concat_of(nodes: Iterable[Node]) -> Node:
    """Concatenation."""
    parts = [s for node in nodes for s in segments(node)]
    return parts[0] if len(parts) == 1 else Node(sum(p.size for p in parts), "concat", tuple(parts))


class Algebra:
    """Joins and refines axes.

    Attributes
    ----------
    where : str
        The operation at work; what is fixed, is fixed by it.
    """

    def __init__(self) -> None:
        self.where = "the labeling"

    @contextmanager
    def at(self, where: str) -> Iterator[None]:
        """Name the operation at work, while it works.

        Parameters
        ----------
        where : str
            The operation, for messages.
        """
        before, self.where = self.where, where
        try:
            yield
        finally:
            self.where = before

    def fixed(self, size: int) -> Node:
        """New axis that is not permuted."""
        return Node(size, fixed=self.where)

    def fix(self, node: Node) -> None:
        """Allow no permutation of an axis."""
        node = resolve(node)
        if node.kind == "leaf":
            node.fixed = node.fixed or self.where
        for part in node.parts:
            self.fix(part)

    def read(self, node: Node) -> None:
        """Record that the entries along an axis meet in some result, so that the network depends on all of them."""
        for leaf in leaves(node):
            leaf.read = True

    def unify(self, a: Node, b: Node) -> Node:
        """Make two axes of one size equal, and return them."""
        resolve(b)  # which may divide a
        a, b = resolve(a), resolve(b)
        if a is b or a.size == 1:
            return b
        # A leaf takes the structure of the other axis, and passes on what fixed it.
        if a.kind != "leaf" and b.kind == "leaf":
            a, b = b, a
        if a.kind == "leaf":
            if a.fixed:
                self._fix_as(b, a.fixed)
            if a.read:
                self.read(b)
            a.link = b
        elif a.kind == b.kind == "product":  # (2 6) and (4 3) both become (2 2 3)
            self._align(factors(a), factors(b))
            a.link = b
        else:  # a concatenation: cut the other axis at its boundaries, then join segment by segment
            if a.kind == "product":
                a, b = b, a
            sizes = [s.size for s in segments(a)]
            for mine, other in zip(segments(a), self.cut(b, sizes), strict=True):
                self.unify(mine, other)
        return resolve(b)

    def take_factor(self, node: Node, size: int) -> tuple[Node, Node]:
        """Split an axis into a leading factor of a size and the rest; what does not split evenly is fixed."""
        head, rest, wanted = [], factors(node), size
        while wanted > 1:
            f = rest.pop(0)
            # The factor holds the rest of what is wanted: divide it. It does not divide it: no symmetry is left.
            if f.size > wanted and f.size % wanted == 0:
                lead, tail = self._halve(f, wanted)
                head.append(lead)
                rest.insert(0, tail)
                break
            if wanted % f.size:
                self.fix(node)
                return self.fixed(size), self.fixed(resolve(node).size // size)
            head.append(f)
            wanted //= f.size
        return product_of(head), product_of(rest)

    def cut(self, node: Node, sizes: Sequence[int]) -> list[Node]:
        """Cut an axis into consecutive pieces; where that cuts through a product, it is fixed."""
        node = resolve(node)
        if len(sizes) == 1:
            return [node]
        if node.kind == "leaf":
            parts = [Node(n, fixed=node.fixed, read=node.read) for n in sizes]
            node.link = Node(node.size, "concat", tuple(parts))
            return parts
        if node.kind == "product":
            # Cuts between whole rows of the first factor cut that factor only; any other cut breaks the product.
            first, *rest = factors(node)
            inner = product_of(rest)
            if any(n % inner.size for n in sizes):
                self.fix(node)
                return [self.fixed(n) for n in sizes]
            return [product_of([p, inner]) for p in self.cut(first, [n // inner.size for n in sizes])]
        # A concatenation: take whole segments, and cut the one that a boundary falls into.
        waiting, pieces = segments(node), []
        for wanted in sizes:
            piece: list[Node] = []
            while wanted:
                s = waiting.pop(0)
                if s.size > wanted:
                    s, remainder = self.cut(s, [wanted, s.size - wanted])
                    waiting.insert(0, remainder)
                piece.append(s)
                wanted -= s.size
            pieces.append(concat_of(piece))
        return pieces

    def regroup(self, axes: Sequence[Node], shape: Sequence[int]) -> list[Node]:
        """Axes after a reshape in row-major order."""
        if 0 in shape:
            return self.divided(axes, shape)
        # Runs of axes before and after that have as many entries are reshaped on their own.
        given, out = [node for node in axes if node.size > 1], []
        sizes = [n for n in shape if n > 1]
        while sizes:
            before, after = [given.pop(0)], [sizes.pop(0)]
            while (one := prod(node.size for node in before)) != (other := prod(after)):
                if one < other:
                    before.append(given.pop(0))
                else:
                    after.append(sizes.pop(0))
            if len(before) == len(after) == 1:
                out += before
            elif len(before) == 1:
                out += Group(self, before[0], after).nodes
            else:
                out += self.divided(before, after)
        rest = iter(out)
        return [next(rest) if n > 1 else Node(1) for n in shape]

    def divided(self, axes: Sequence[Node], shape: Sequence[int]) -> list[Node]:
        """Axes of a shape that the product of some axes is divided into."""
        rest = product_of(axes)
        out = []
        for size in shape:
            axis, rest = self.take_factor(rest, size)
            out.append(axis)
        return out

    def _fix_as(self, node: Node, why: str) -> None:
        """Fix an axis for an earlier reason."""
        with self.at(why):
            self.fix(node)

    def _halve(self, node: Node, size: int) -> tuple[Node, Node]:
        """A leaf or concatenation as a product of a leading factor of a size, which divides its own, and the rest."""
        if node.kind == "leaf":
            lead, tail = (Node(n, fixed=node.fixed, read=node.read) for n in (size, node.size // size))
            node.link = Node(node.size, "product", (lead, tail))
            return lead, tail
        # A concatenation (a + b) becomes (a' + b') times one common tail, which all segments must share.
        inner = node.size // size
        if any(s.size % inner for s in segments(node)):
            self.fix(node)
            return self.fixed(size), self.fixed(inner)
        halves = [self.take_factor(s, s.size // inner) for s in segments(node)]
        tail = halves[0][1]
        for _, other in halves[1:]:
            tail = self.unify(other, tail)
        return concat_of([lead for lead, _ in halves]), tail

    def _align(self, left: list[Node], right: list[Node]) -> None:
        """Unify two lists of factors of one size."""
        while left:
            # Divide the larger of the first two factors by the smaller one, join the two, and go on with the rest.
            a, b = left[0], right[0]
            small, large = sorted((a.size, b.size))
            if large % small:
                for node in (*left, *right):
                    self.fix(node)
                return
            for side, node in ((left, a), (right, b)):
                side[:1] = [node] if node.size == small else [f for p in self._halve(node, small) for f in factors(p)]
            self.unify(left.pop(0), right.pop(0))
            left[:] = [f for node in left for f in factors(node)]
            right[:] = [f for node in right for f in factors(node)]
