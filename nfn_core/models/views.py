"""Models as points of a weight space: which view of each of a model's tensors is a tensor of the space, and back.

A tensor of a model may need a view before its axes are neuron sets: a flattened convolution's (out, channels * pixels)
is read as (out, channels, pixels), packed gates (4 h, in) as (4, h, in), a weight after a concatenation is cut in two.
A view is kept as one expression for each axis; reading it (`ModelSpace.stack`) and undoing it (`ModelSpace.unstack`) only
reshape, slice and concatenate, so a round trip is exact.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby, islice
from math import prod
from pathlib import Path
from typing import Any, Literal

from nfn_core.arrays import Array, Features, namespace_of
from nfn_core.errors import FeatureError, LabelError
from nfn_core.features import check_features
from nfn_core.files import read_shapes, read_tensors
from nfn_core.groups import Group
from nfn_core.models.axes import Node, factors, resolve, segments
from nfn_core.registry import describable
from nfn_core.spaces import TensorSpec, WeightSpace

__all__ = ["Axis", "ModelSpace", "View", "freeze", "join_axes", "split_axes"]


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


@dataclass(frozen=True)
class Verification:
    """Results of running a network on permuted tensors and inputs; see `nfn_core.models.verification.verify`.

    Parameters
    ----------
    error : float
        Largest change of an output under drawn permutations of all neuron sets, relative to the output's scale.
    limit : float
        What it was held to.
    unnecessarily_fixed : tuple of str
        Axes that the labelling leaves fixed although every permutation of them leaves the outputs as they are.
    untested : tuple of str
        Tensors with neuron sets that can be permuted alone without any change of the outputs (a key's bias before a
        softmax, what is dead for these inputs): their labels rest on the derivation, not on this check.
    """

    error: float
    limit: float
    unnecessarily_fixed: tuple[str, ...]
    untested: tuple[str, ...]


@describable
@dataclass(frozen=True)
class ModelSpace:
    """The weight space of a model, with the view of every tensor of the model.

    Made by `nfn_torch.weight_space`, `nfn_jax.weight_space` or `from_patterns`.

    Parameters
    ----------
    views : tuple of View
        The model's tensors, in its order.
    inputs, outputs : tuple of str
        Neuron sets of the network's inputs and outputs.
    fixed : tuple of (str, str)
        For each tensor with axes that are fixed, what fixed them.
    verification : Verification, optional
        What running the network showed; None if it was not run.

    Attributes
    ----------
    space : WeightSpace
        The weight space.
    """

    views: tuple[View, ...]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    fixed: tuple[tuple[str, str], ...] = ()
    verification: Verification | None = field(default=None, compare=False)

    @classmethod
    def from_patterns(
        cls,
        shapes: Mapping[str, Sequence[int]] | str | Path,
        labels: Mapping[str, str],
        inputs: Iterable[str] = (),
        outputs: Iterable[str] = (),
    ) -> "ModelSpace":
        """Weight space of a checkpoint from explicit labels alone.

        Parameters
        ----------
        shapes : mapping of str to sequence of int, or path
            Shape of each tensor, or a safetensors file that holds them.
        labels : mapping of str to str
            Pattern of each tensor that is to be in the space, such as ``"h in _ _"`` or ``"(3 heads=4 e) d"``: one word
            for each axis, a neuron set, ``_`` for a fixed axis, ``(a b)`` for a row-major product, ``(a + b)`` for a
            concatenation. What has no pattern is not in the space.
        inputs, outputs : iterable of str
            Neuron sets of the network's inputs and outputs, which HNP leaves alone.

        Returns
        -------
        ModelSpace
            The weight space with its views. Nothing is verified: that needs the network, see `nfn_torch.weight_space`.

        Raises
        ------
        LabelError
            If a label names no tensor, leaves an axis to be derived, or does not fit its tensor.

        Examples
        --------
        >>> space = ModelSpace.from_patterns({"qkv.weight": (12, 8), "qkv.bias": (12,)}, {
        ...     "qkv.weight": "(3 heads=2 e) d", "qkv.bias": "(3 heads e)",
        ... })
        >>> [(t.name, t.shape) for t in space.space.tensors]
        [('qkv.weight', (3, 2, 2, 8)), ('qkv.bias', (3, 2, 2))]
        """
        from nfn_core.models.labelling import Labelling  # labelling builds on views; this is the one arrow back

        known = shapes if isinstance(shapes, Mapping) else read_shapes(shapes)
        missing = [name for name in labels if name not in known]
        derived = [name for name, pattern in labels.items() if "?" in pattern]
        if missing or derived:
            raise LabelError(
                f"labels are given for {missing or derived}, but "
                + (
                    f"the tensors are {list(known)}."
                    if missing
                    else "there is no network from which to derive '?': label it."
                )
            )
        labelling = Labelling({name: tuple(known[name]) for name in labels}, labels)
        labelling.used.update(labels)
        return replace(labelling.finish(), inputs=tuple(inputs), outputs=tuple(outputs))

    @cached_property
    def space(self) -> WeightSpace:
        """The weight space, built once."""
        tensors = []
        layers: dict[str, int] = {}  # tensors of one module are one layer
        for view in self.views:
            layer = layers.setdefault(view.name.rpartition(".")[0], len(layers))
            for name, axes in view.pieces.items():
                tensors.append(TensorSpec(name, tuple(a.size for a in axes), tuple(a.label for a in axes), layer))
        return WeightSpace(tuple(tensors), self.inputs, self.outputs)

    def group(self, permuted: Any) -> Group:
        """Return the permutation group of the weight space that moves the given neuron sets.

        Parameters
        ----------
        permuted : {"NP", "HNP"} or iterable of str
            As for `WeightSpace.group`.

        Returns
        -------
        Group
            The group.
        """
        return self.space.group(permuted)

    def stack(self, *channels: Sequence[Mapping[str, Array]], fill: float | None = None) -> Features:
        """Stack models, and what belongs to their weights, into features.

        Parameters
        ----------
        *channels : sequence of mapping of str to array
            For each channel (weights, gradients, an optimizer's moments, masks, ...) one mapping for each model, from
            a tensor's name to an array of its shape in the model. What the space does not hold is left out.
        fill : float, optional
            Entries of tensors that a mapping lacks or has None for (running statistics have no gradients); without it
            that is an error.

        Returns
        -------
        dict of str to array
            Features of `space`, each (models, *axes, channels).

        Raises
        ------
        FeatureError
            If there is no model, channels have different numbers of models, a tensor is missing, has another shape,
            or differs from one it is tied to.
        """
        counts = [len(models) for models in channels]
        if not counts or not counts[0] or len(set(counts)) > 1:
            raise FeatureError(f"stack takes the same positive number of models for every channel, not {counts}.")
        features: Features = {}
        for view in self.views:
            found = [[_tensor(view, m, k, fill) for k, m in enumerate(models)] for models in channels]
            given = [x for models in found for x in models if x is not None]
            if not given:
                raise FeatureError(f"tensor {view.name!r} is missing from every model and channel.")
            xp = namespace_of(*given)
            blank = None if fill is None else xp.full_like(given[0], fill)
            columns = [xp.stack([blank if x is None else x for x in models]) for models in found]
            features.update(zip(view.pieces, split_axes(xp.stack(columns, axis=-1), view.axes), strict=True))
        check_features(self.space, features)
        return features

    def unstack(self, features: Mapping[str, Array], channel: int = 0) -> list[dict[str, Array]]:
        """Undo `stack` for one channel, bit by bit.

        Parameters
        ----------
        features : mapping of str to array
            Features of `space`, each (models, *axes, channels).
        channel : int
            The channel.

        Returns
        -------
        list of dict of str to array
            For each model its tensors, in the model's shapes, under all their names.

        Raises
        ------
        FeatureError
            If the features do not fit the space, or have no such channel.
        """
        check_features(self.space, features)
        count, *_, channels = next(iter(features.values())).shape
        if not -channels <= channel < channels:
            raise FeatureError(f"features have {channels} channels, so there is no channel {channel}.")
        models: list[dict[str, Array]] = [{} for _ in range(count)]
        for view in self.views:
            whole = join_axes((features[name][..., channel] for name in view.pieces), view.axes)
            for k, model in enumerate(models):
                model.update(dict.fromkeys((view.name, *view.also), whole[k, ...]))
        return models

    def stream(self, paths: Iterable[str | Path], batch: int, backend: str = "numpy") -> Iterator[Features]:
        """Read models from safetensors files, a batch at a time.

        Parameters
        ----------
        paths : iterable of str or pathlib.Path
            One file for each model, with the names of the model's tensors.
        batch : int
            Models in a batch; the last one may have fewer.
        backend : {"numpy", "torch", "jax"}
            Kind of arrays.

        Yields
        ------
        dict of str to array
            Features of `space`, each (models, *axes, 1).

        Raises
        ------
        FeatureError
            If a file does not hold the model's tensors.
        ParameterError
            If a file is missing or damaged.
        """
        paths = iter(paths)
        while chosen := list(islice(paths, batch)):
            yield self.stack([read_tensors(path, backend)[0] for path in chosen])

    def describe(self) -> str:
        """Return a Markdown table of the model's tensors: name, shape, axes, and what fixed them."""
        why = dict(self.fixed)
        lines = ["| tensor | shape | axes | fixed by |", "|---|---|---|---|"]
        for view in self.views:
            names = ", ".join((view.name, *view.also))
            shape = "×".join(map(str, view.shape)) or "scalar"
            lines.append(f"| {names} | {shape} | {view.pattern} | {why.get(view.name, '')} |")
        return "\n".join(lines)


def _tensor(view: View, model: Mapping[str, Array], number: int, fill: float | None) -> Array | None:
    """A model's tensor, None where it is missing and may be."""
    found = [model[name] for name in (view.name, *view.also) if model.get(name) is not None]
    if not found:
        if fill is None:
            raise FeatureError(f"model {number} lacks tensor {view.name!r}: give it, or `fill` for what is missing.")
        return None
    for x in found:
        if tuple(x.shape) != view.shape:
            raise FeatureError(
                f"tensor {view.name!r} of model {number}: expected shape {view.shape}, not {tuple(x.shape)}: "
                "all models of a batch must have the architecture the space was made for."
            )
        if x is not found[0] and not bool(namespace_of(x).all(x == found[0])):
            raise FeatureError(
                f"model {number}: {', '.join((view.name, *view.also))} are one tied tensor, but hold different values: "
                "make the space from a model in which they are not tied."
            )
    return found[0]
