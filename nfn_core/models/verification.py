"""Does a network respect its labeling? Permute its tensors, inputs and outputs by group elements, and run it.

This uses only the labeling and the network as a function from arrays to arrays. It shares no code with the rules from
which the labeling was derived.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import TypeAlias

import numpy as np

from nfn_core.checks import natural_int
from nfn_core.errors import LabelError, NFNError
from nfn_core.models.axes import Node
from nfn_core.models.labeling import Labeling
from nfn_core.models.rules import Value
from nfn_core.models.views import Axis, join_axes, leaf_axes, split_axes

__all__ = ["Each", "Run", "Verification", "random_like", "running", "verify"]

Run: TypeAlias = Callable[[Mapping[str, np.ndarray], list[np.ndarray]], list[np.ndarray]]
"""A network: from its tensors by name and its inputs to its outputs."""

Sources: TypeAlias = Mapping[str, np.ndarray]
"""For a neuron set, at each new position the old position of the neuron that is moved there."""

ROUNDING = 2.0**12
"""Largest error that passes, in units of the outputs' rounding: deep networks add roundings up."""


class Each(Mapping[str, np.ndarray]):
    """Arrays by name, each made when it is asked for, so that there are never two copies of a large network.

    Parameters
    ----------
    names : iterable of str
        The names, in order.
    make : callable
        From a name to its array.
    """

    def __init__(self, names: Iterable[str], make: Callable[[str], np.ndarray]) -> None:
        self._names, self._make = dict.fromkeys(names), make

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True)
class Verification:
    """Results of running a network on permuted tensors and inputs; see `verify`.

    Parameters
    ----------
    error : float
        Largest change of an output under drawn permutations of all neuron sets, relative to the output's scale.
    limit : float
        What it was held to.
    unnecessarily_fixed : tuple of str
        Axes that the labeling leaves fixed although every permutation of them leaves the outputs as they are.
    untested : tuple of str
        Tensors with neuron sets that can be permuted alone without any change of the outputs (a key's bias before a
        softmax, what is dead for these inputs): their labels rest on the derivation, not on this check.
    """

    error: float
    limit: float
    unnecessarily_fixed: tuple[str, ...]
    untested: tuple[str, ...]


def random_like(arrays: Mapping[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Tensors near given ones in which no two neurons are alike; positive entries stay positive.

    Parameters
    ----------
    arrays : mapping of str to numpy.ndarray
        A network's tensors.
    rng : numpy.random.Generator
        Source of the numbers.

    Returns
    -------
    dict of str to numpy.ndarray
        Arrays of the same shapes and dtypes.
    """
    return {
        name: (x * rng.uniform(1.0, 1.5, x.shape) + (0.1 * rng.uniform(size=x.shape) if not x.any() else 0)).astype(
            x.dtype
        )
        for name, x in arrays.items()
    }


@contextmanager
def running() -> Iterator[None]:
    """Name the reason where a network fails while it is run.

    Raises
    ------
    LabelError
        If it raises anything that is not of this package.
    """
    try:
        yield
    except NFNError:
        raise
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise LabelError(
            f"the network cannot be run on its example inputs: {type(error).__name__}: {reason} Give inputs as it takes them. "
            "If it does not run in double precision, switch the verification off."
        ) from error


def verify(
    labeling: Labeling, run: Run, tensors: Mapping[str, np.ndarray], inputs: Sequence[np.ndarray], seed: int
) -> Verification:
    """Run a network on permuted tensors and inputs.

    Parameters
    ----------
    labeling : Labeling
        The finished labeling.
    run : callable
        The network.
    tensors : mapping of str to numpy.ndarray
        Its tensors, floating dtype; they are varied, so that no two neurons are alike.
    inputs : sequence of numpy.ndarray
        Its inputs; those of floating dtype are replaced by normal ones, integers that number an axis by random ones.
    seed : int
        Seed.

    Returns
    -------
    Verification
        Errors, axes that are fixed without need, and tensors that the check does not test.

    Raises
    ------
    LabelError
        If an output changes otherwise than declared; the message names neuron sets and tensors.
    SpecError
        If the seed is not a non-negative integer.
    """
    rng = np.random.default_rng(natural_int("seed", seed))
    drawn = [_draw(x, value, rng) for x, value in zip(inputs, labeling.inputs, strict=True)]
    tensors = random_like(tensors, rng)
    trial = _Trial(labeling, run, tensors, drawn, labeling.names)
    everything = trial.sources(rng)
    error = max(trial.error(sources) for sources in (everything, *_apart(everything)))
    if not error <= trial.limit:
        raise LabelError(trial.diagnosis(error, rng))
    unnecessarily_fixed = []
    for where, (name, leaf) in labeling.fixed_leaves().items():
        candidate = _Trial(labeling, run, tensors, drawn, {id(leaf): "?"}, trial.still)
        cycle, swap = np.roll(np.arange(leaf.size), 1), np.r_[1, 0, 2 : leaf.size]
        still = all(candidate.error({"?": image}) <= trial.limit for image in (cycle, swap))
        if still and trial.depends_on(name, rng):
            unnecessarily_fixed.append(where)
    alone = {name: trial.error(everything, {name}) for name in trial.labels}
    return Verification(
        error, trial.limit, tuple(unnecessarily_fixed), tuple(n for n, e in alone.items() if e <= trial.limit)
    )


class _Trial:
    """A network with drawn tensors and inputs, and the axes of these and of its outputs."""

    def __init__(
        self,
        labeling: Labeling,
        run: Run,
        tensors: Mapping[str, np.ndarray],
        inputs: Sequence[np.ndarray],
        names: Mapping[int, str],
        still: list[np.ndarray] | None = None,
    ) -> None:
        self.labeling, self.run, self.tensors, self.inputs, self.names = labeling, run, tensors, inputs, names
        self.axes = dict(zip(labeling.tensors, labeling.frozen(labeling.tensors.values(), names), strict=True))
        self.input_axes = labeling.frozen(labeling.inputs, names)
        self.output_axes = labeling.frozen(labeling.outputs, names)
        self.numbered = labeling.frozen([Value(_numbered(v)) for v in labeling.inputs], names)
        self.labels = {name: found for name, axes in self.axes.items() if (found := _labels(axes))}
        self.still = run(dict(tensors), list(inputs)) if still is None else still
        for k, y in enumerate(self.still):
            if not np.all(np.isfinite(y.astype("complex128"))):
                raise LabelError(
                    f"output {k} of the network is not finite for random inputs, so its labeling cannot be verified: "
                    "give an example input of the right size, or switch the verification off."
                )
        kinds = [y.dtype for y in (*self.still, *tensors.values()) if y.dtype.kind == "f"]
        self.limit = ROUNDING * max(float(np.finfo(kind).eps) for kind in kinds)

    def sources(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw a permutation of every neuron set, not the identity."""
        sizes = {a.label: a.size for axes in self.axes.values() for leaf in leaf_axes(axes) for a in leaf if a.label}
        return {label: _derange(n, rng) for label, n in sizes.items()}

    def error(self, sources: Sources, only: Collection[str] | None = None) -> float:
        """Largest change of an output, relative to its scale, beyond what is declared.

        With `only`, nothing but these tensors is permuted.
        """

        def permuted(name: str) -> np.ndarray:
            still = (only is not None and name not in only) or not self._moved(name, sources)
            return self.tensors[name] if still else _act(self.tensors[name], self.axes[name], sources)

        tensors = Each(self.tensors, permuted)
        inputs, expected = list(self.inputs), self.still
        if only is None:
            for k, (x, axes, axis) in enumerate(zip(inputs, self.input_axes, self.numbered, strict=True)):
                x = _act(x, axes, sources)
                if axis:
                    x = np.argsort(_act(np.arange(axis[0].size), axis, sources))[x].astype(x.dtype)
                inputs[k] = x
            expected = [_act(y, axes, sources) for y, axes in zip(self.still, self.output_axes, strict=True)]
        return max(_difference(y, e) for y, e in zip(self.run(tensors, inputs), expected, strict=True))

    def _moved(self, name: str, sources: Sources) -> bool:
        """Whether a tensor has one of these neuron sets."""
        return not _labels(self.axes[name]).isdisjoint(sources)

    def depends_on(self, name: str, rng: np.random.Generator) -> bool:
        """Whether other values of a tensor change an output: what is dead for these inputs shows nothing."""
        x = self.tensors[name]
        changed = {**self.tensors, name: (x * rng.uniform(1.0, 2.0, x.shape)).astype(x.dtype)}
        actual = self.run(changed, list(self.inputs))
        return max(_difference(y, e) for y, e in zip(actual, self.still, strict=True)) > self.limit

    def diagnosis(self, error: float, rng: np.random.Generator) -> str:
        """Say which neuron sets and tensors break the symmetry."""
        lines = []
        draws = [self.sources(rng) for _ in range(4)]  # some permutations are symmetries by chance
        for label in draws[0]:
            alone, image = max(((self.error({label: d[label]}), d[label]) for d in draws), key=itemgetter(0))
            if alone <= self.limit:
                continue
            holders = [name for name, labels in self.labels.items() if label in labels]
            wrong = [name for name in holders if self._without(name, label, image) <= self.limit]
            lacking = self._lacking(label, image)
            lines.append(
                f"neuron set {label!r} (of {', '.join(map(repr, holders))}) changes an output by {alone:.1e}"
                + "".join(f"; tensor {name!r} breaks it: it must not be permuted with this set" for name in wrong)
                + "".join(f"; tensor {name!r} breaks it: its axis {a} must be permuted too" for name, a in lacking)
            )
        found = ". ".join(lines) or "each neuron set alone is a symmetry, but not all together"
        return (
            f"the labeling is no symmetry of the network: permuting all neuron sets changes an output by {error:.1e} of "
            f"its scale (limit {self.limit:.1e}). {found}. Correct the labels, or report a wrong derivation."
        )

    def _without(self, name: str, label: str, image: np.ndarray) -> float:
        """Error when one tensor is left out."""
        return self._changed(name, tuple(_without(a, label) for a in self.axes[name]), {label: image})

    def _lacking(self, label: str, image: np.ndarray) -> list[tuple[str, int]]:
        """Fixed axes that, permuted too, make a neuron set a symmetry."""
        found = []
        for name, axes in self.axes.items():
            for a, axis in enumerate(axes):
                if axis == Axis(len(image)):
                    more = (*axes[:a], replace(axis, label=label), *axes[a + 1 :])
                    if self._changed(name, more, {label: image}) <= self.limit:
                        found.append((name, a))
        return found

    def _changed(self, name: str, axes: tuple[Axis, ...], sources: Sources) -> float:
        """Error with other axes of one tensor."""
        before = self.axes[name]
        self.axes[name] = axes
        error = self.error(sources)
        self.axes[name] = before
        return error


def _act(x: np.ndarray, axes: Sequence[Axis], sources: Sources) -> np.ndarray:
    """Permute an array along the neuron sets of its axes."""
    pieces = []
    for part, leaf in zip(split_axes(x, axes, 0), leaf_axes(axes), strict=True):
        piece = np.asarray(part)
        for a, axis in enumerate(leaf):
            if axis.label is not None and axis.label in sources:
                piece = np.take(piece, sources[axis.label], axis=a)
        pieces.append(piece)
    return np.asarray(join_axes(iter(pieces), axes, 0))


def _labels(axes: Sequence[Axis]) -> set[str]:
    """Neuron sets of a tensor."""
    return {axis.label for leaf in leaf_axes(axes) for axis in leaf if axis.label}


def _without(axis: Axis, label: str) -> Axis:
    """The axis with one neuron set fixed."""
    parts = tuple(_without(part, label) for part in axis.parts)
    return replace(axis, parts=parts, label=None if axis.label == label else axis.label)


def _numbered(value: Value) -> tuple[Node, ...]:
    """The axis that a value's integers number."""
    return (value.index.axis,) if value.index and value.index.axis else ()


def _draw(x: np.ndarray, value: Value, rng: np.random.Generator) -> np.ndarray:
    """Random input like a given one."""
    if x.dtype.kind == "f":
        return rng.standard_normal(x.shape).astype(x.dtype)
    numbered = _numbered(value)
    return rng.integers(0, numbered[0].size, x.shape).astype(x.dtype) if numbered else x


def _derange(n: int, rng: np.random.Generator) -> np.ndarray:
    """A random permutation that is not the identity."""
    image = rng.permutation(n)
    return np.roll(image, 1) if np.array_equal(image, np.arange(n)) else image


def _apart(sources: Sources) -> list[Sources]:
    """Parts of a permutation such that of any two neuron sets one moves without the other in some part."""
    labels = list(sources)
    bits = range(max(1, (len(labels) - 1).bit_length()))
    return [{n: sources[n] for k, n in enumerate(labels) if (k >> bit) % 2 == side} for bit in bits for side in (0, 1)]


def _difference(actual: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest expected entry."""
    actual, expected = actual.astype("complex128"), expected.astype("complex128")
    scale = float(np.max(np.abs(expected), initial=0.0))
    error = float(np.max(np.abs(actual - expected), initial=0.0)) / (scale or 1.0)
    return error if np.isfinite(error) else float("inf")
