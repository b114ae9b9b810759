"""Views: how the axes of a model's tensor are read as axes of tensors of its weight space.

A tensor of a model may need a view before its axes are neuron sets: a flattened convolution's (out, channels * pixels)
is read as (out, channels, pixels), packed gates (4 h, in) as (4, h, in), a weight after a concatenation is cut in two.
A view is kept as one expression for each axis. Reading it (`split_axes`) and undoing it (`join_axes`) only reshape, slice
and concatenate, so a round trip is exact.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import prod
from typing import Literal

from nfn_core.arrays import Array, namespace_of
from nfn_core.checks import check_kind, plain_names, plain_tuple
from nfn_core.models.axes import Node, factors, resolve, segments
from nfn_core.registry import describable

__all__ = ["Axis", "View", "freeze", "join_axes", "leaf_axes", "neuron_sets", "split_axes"]


@describable
@dataclass(frozen=True)
class Axis:
    """One axis of a model's tensor.

    Parameters
    ----------
    size : int
        Number of entries.
    kind : {"leaf", "product", "concat"}
        A neuron set or fixed axis, a row-major product, or a concatenation.
    label : str, optional
        For a leaf its neuron set, None if it is fixed.
    parts : tuple of Axis
        Factors or segments.
    """

    size: int
    kind: Literal["leaf", "product", "concat"] = "leaf"
    label: str | None = None
    parts: tuple["Axis", ...] = ()

    def __str__(self) -> str:
        """Pattern of the axis, as `ModelSpace.from_patterns` reads it."""
        if self.kind == "leaf":
            return self.label or str(self.size)
        return "(" + (" " if self.kind == "product" else " + ").join(map(str, self.parts)) + ")"

    def renamed(self, labels: Mapping[str, str | None]) -> "Axis":
        """Return the axis with other neuron sets in place of some, or fixed where the other one is None."""
        label = labels.get(self.label, self.label) if self.label is not None else None
        return replace(self, label=label, parts=tuple(part.renamed(labels) for part in self.parts))


def freeze(node: Node, label_of: Callable[[Node], str | None]) -> Axis:
    """Expression of an axis, as simple as it gets: fixed neighbors merged, equal segments as a product.

    Parameters
    ----------
    node : Node
        The axis.
    label_of : callable
        From a leaf to its neuron set, None if it is fixed.

    Returns
    -------
    Axis
        Its expression.
    """
    node = resolve(node)
    if node.kind == "leaf":
        return Axis(node.size, label=label_of(node))
    if node.kind == "product":
        return _product([f for part in factors(node) for f in _parts(freeze(part, label_of), "product")])
    parts = _merged([s for part in segments(node) for s in _parts(freeze(part, label_of), "concat")], sum)
    if all(part == parts[0] for part in parts):
        return _product([Axis(len(parts)), *_parts(parts[0], "product")])
    return Axis(node.size, "concat", parts=tuple(parts))


def _parts(axis: Axis, kind: str) -> tuple[Axis, ...]:
    """Parts of an axis of a kind, or itself."""
    return axis.parts if axis.kind == kind else (axis,)


def _product(parts: Sequence[Axis]) -> Axis:
    """Product of axes that are no products."""
    kept = _merged([part for part in parts if part.size != 1], prod)
    size = prod(part.size for part in kept)
    return kept[0] if len(kept) == 1 else Axis(size, "product", parts=tuple(kept)) if kept else Axis(1)


def _merged(parts: Sequence[Axis], total: Callable[[Sequence[int]], int]) -> list[Axis]:
    """Parts with fixed neighbors merged."""
    found: list[Axis] = []
    for fixed, run in groupby(parts, key=lambda part: part.kind == "leaf" and part.label is None):
        members = list(run)
        found += [Axis(total([m.size for m in members]))] if fixed else members
    return found


def split_axes(x: Array, axes: Sequence[Axis], offset: int = 1) -> Iterator[Array]:
    """Pieces of an array in which every axis is a neuron set or fixed.

    Parameters
    ----------
    x : array
        Array whose axes from `offset` on are `axes`, possibly followed by others.
    axes : sequence of Axis
        Their expressions.
    offset : int
        Number of axes before them.

    Yields
    ------
    array
        One piece for each choice of segments.
    """
    for a, axis in enumerate(axes):
        place = a + offset
        if axis.kind == "product":
            sizes = [part.size for part in axis.parts]
            x = namespace_of(x).reshape(x, (*x.shape[:place], *sizes, *x.shape[place + 1 :]))
            yield from split_axes(x, (*axes[:a], *axis.parts, *axes[a + 1 :]), offset)
            return
        if axis.kind == "concat":
            start = 0
            for part in axis.parts:
                piece = x[(slice(None),) * place + (slice(start, start + part.size),)]
                yield from split_axes(piece, (*axes[:a], part, *axes[a + 1 :]), offset)
                start += part.size
            return
    yield x


def join_axes(pieces: Iterator[Array], axes: Sequence[Axis], offset: int = 1) -> Array:
    """Undo `split_axes`.

    Parameters
    ----------
    pieces : iterator of array
        Pieces, in the order `split_axes` gives them.
    axes : sequence of Axis
        Expressions of the axes.
    offset : int
        Number of axes before them.

    Returns
    -------
    array
        The array.
    """
    for a, axis in enumerate(axes):
        place = a + offset
        if axis.kind == "product":
            x = join_axes(pieces, (*axes[:a], *axis.parts, *axes[a + 1 :]), offset)
            return namespace_of(x).reshape(x, (*x.shape[:place], axis.size, *x.shape[place + len(axis.parts) :]))
        if axis.kind == "concat":
            parts = [join_axes(pieces, (*axes[:a], part, *axes[a + 1 :]), offset) for part in axis.parts]
            return namespace_of(*parts).concat(parts, axis=place)
    return next(pieces)


def leaf_axes(axes: Sequence[Axis]) -> Iterator[tuple[Axis, ...]]:
    """Axes of each piece of `split_axes`."""
    for a, axis in enumerate(axes):
        if axis.kind == "product":
            yield from leaf_axes((*axes[:a], *axis.parts, *axes[a + 1 :]))
            return
        if axis.kind == "concat":
            for part in axis.parts:
                yield from leaf_axes((*axes[:a], part, *axes[a + 1 :]))
            return
    yield tuple(axes)


def neuron_sets(axes: Sequence[Axis]) -> list[str]:
    """Neuron sets of some axes, each once, in their order."""
    return list(dict.fromkeys(axis.label for leaf in leaf_axes(axes) for axis in leaf if axis.label))


@describable
@dataclass(frozen=True)
class View:
    """How one tensor of a model is read.

    Parameters
    ----------
    name : str
        Its name in the model.
    axes : tuple of Axis
        Expressions of its axes.
    also : tuple of str
        Other names of the same tensor (tied weights).
    """

    name: str
    axes: tuple[Axis, ...]
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_kind("name", self.name, str)
        axes = plain_tuple("axes", self.axes)
        for k, axis in enumerate(axes):
            check_kind(f"axes[{k}]", axis, Axis)
        object.__setattr__(self, "axes", axes)
        object.__setattr__(self, "also", plain_names("also", self.also))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape in the model."""
        return tuple(axis.size for axis in self.axes)

    @property
    def pattern(self) -> str:
        """Its axes as a pattern."""
        return " ".join(map(str, self.axes))

    @property
    def pieces(self) -> dict[str, tuple[Axis, ...]]:
        """Tensors of the weight space it gives, by name, with their axes: its own name, or ``name[0]``, ``name[1]``."""
        found = list(leaf_axes(self.axes))
        names = [self.name] if len(found) == 1 else [f"{self.name}[{k}]" for k in range(len(found))]
        return dict(zip(names, found, strict=True))
