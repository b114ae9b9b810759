"""Does a network respect its labeling? Permute its tensors, inputs and outputs by group elements, and run it.

This uses only the labeling and the network as a function from arrays to arrays. It shares no code with the rules from
which the labeling was derived.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import TypeAlias

import numpy as np

from nfn_core.checks import natural_int
from nfn_core.errors import LabelError, MissingDependencyError
from nfn_core.models.axes import Node
from nfn_core.models.labeling import Frozen, Labeling
from nfn_core.models.probes import (
    PROBES,
    Arrays,
    Each,
    Probe,
    Reached,
    Run,
    difference,
    draw,
    of_both_signs,
    random_like,
    rounding,
)
from nfn_core.models.rules import Value
from nfn_core.models.views import Axis, join_axes, leaf_axes, neuron_sets, split_axes

__all__ = ["Verification", "shown_running", "verify"]

Sources: TypeAlias = Mapping[str, np.ndarray]
"""For a neuron set, at each new position the old position of the neuron that is moved there, or its sign (floating dtype)."""

CALM = 1e-6
"""A limit below which a probe tests enough; networks that amplify rounding more are run with smaller weights."""

WILD = 1e-2
"""A limit above which a probe tests nothing: a wrong label changes outputs by about their scale."""


@dataclass(frozen=True)
class Verification:
    """Results of running a network on permuted tensors and inputs; see `verify`.

    Parameters
    ----------
    error : float
        Largest change of an output under drawn permutations of all neuron sets, relative to the output's scale.
    limit : float
        What it was held to: many times the change by the last places of tensors and inputs.
    unnecessarily_fixed : tuple of str
        Axes that the labeling leaves fixed, or moves in parts only, although every permutation of them leaves the outputs as
        they are: alone, as one set, or with another axis.
    untested : tuple of str
        Tensors with neuron sets that can be permuted alone without any change of the outputs (a key's bias before a
        softmax, what is dead for these inputs): their labels rest on the derivation, not on this check.
    dtype : str
        Least precise dtype of the arrays that the network was run on and gave.
    probes : tuple of str
        How tensors and inputs were drawn, in each round of permutations.
    unreached : tuple of str
        Choices of which no run took one side, and units that were dead in every run: what is wrong behind them only, this
        check does not find.
    odd : tuple of str
        Neuron sets with odd activations whose neurons could change their signs, and did in every round, without any change
        of the outputs.
    """

    error: float
    limit: float
    unnecessarily_fixed: tuple[str, ...]
    untested: tuple[str, ...]
    dtype: str = ""
    probes: tuple[str, ...] = ()
    unreached: tuple[str, ...] = ()
    odd: tuple[str, ...] = ()


def verify(
    labeling: Labeling,
    run: Run,
    tensors: Arrays,
    inputs: Sequence[np.ndarray],
    seed: int,
    odd: Iterable[str] = (),
) -> Verification:
    """Run a network on permuted tensors and inputs, and with other signs.

    Parameters
    ----------
    labeling : Labeling
        The finished labeling.
    run : callable
        The network.
    tensors : mapping of str to numpy.ndarray
        Its tensors, floating dtype; they are varied, so that no two neurons are alike.
    inputs : sequence of numpy.ndarray
        Its inputs; those of floating dtype are replaced by normal ones, integers that number an axis by random ones. Where
        normal inputs give no finite outputs, inputs near the example are drawn.
    seed : int
        Seed.
    odd : iterable of str
        Neuron sets that may change their signs, going by their activations.

    Returns
    -------
    Verification
        Errors, axes that are fixed without need, and what the check does not test.

    Raises
    ------
    LabelError
        If an output changes otherwise than declared; the message names neuron sets and tensors. Also if no probe gives
        finite outputs, or rounding alone changes them much.
    SpecError
        If the seed is not a non-negative integer.
    """
    rng = np.random.default_rng(natural_int("seed", seed))
    network = _Network(labeling, run, tensors, inputs, rng)
    trials = [network.first()]
    draws = trials[0].draws(rng)
    everything = draws[0]
    worst = [trials[0].check(draws)]
    untested = trials[0].untested(everything, trials[0].labels)

    # Further probes, as long as something is not reached or not tested; those that reach more are checked.
    for probe in PROBES:
        missing = network.reached.missing()
        if not missing and not untested:
            break
        trial = network.trial(probe)
        if trial is None or trial.limit > max(CALM, trials[0].limit):
            continue
        left = trial.untested(everything, untested)
        if network.reached.missing() != missing or left != untested:
            trials.append(trial)
            worst.append(trial.check(draws))
            untested = left

    unnecessarily_fixed: dict[str, set[int]] = {}
    for candidate in labeling.candidates():
        if any(candidate.leaves <= known for known in unnecessarily_fixed.values()):
            continue  # part of what moves as a whole
        freed = [_Trial(labeling, run, t.tensors, t.inputs, candidate.frozen, t.still, t.limit) for t in trials]
        images = ({"?": _cycle(candidate.size)}, {"?": _swap(candidate.size)})
        if all(t.error(image) <= t.limit for t in freed for image in images) and freed[0].depends_on(
            candidate.name, rng
        ):
            unnecessarily_fixed[candidate.where] = candidate.leaves
    signed = tuple(label for label in odd if all(trial.is_odd(label, rng) for trial in trials))
    error, limit = max(worst, key=lambda pair: pair[0] / pair[1])
    return Verification(
        error,
        limit,
        tuple(unnecessarily_fixed),
        tuple(untested),
        trials[0].dtype,
        tuple(str(t.probe) for t in trials),
        tuple(network.reached.missing()),
        signed,
    )


@contextmanager
def shown_running(run: Run, progress: bool) -> Iterator[Run]:
    """Show how often a network has been run, if that is asked for.

    Raises
    ------
    MissingDependencyError
        If tqdm is not installed.
    """
    if not progress:
        yield run
        return
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise MissingDependencyError(f"progress is shown by tqdm ({error}): pip install tqdm.") from error
    with tqdm(desc="verification", unit="run") as bar:

        def counted(tensors: Arrays, inputs: Sequence[np.ndarray], reached: Reached | None) -> list[np.ndarray]:
            bar.update()
            return run(tensors, inputs, reached)

        yield counted


class _Network:
    """A network with its labeling, and what its runs have reached."""

    def __init__(
        self, labeling: Labeling, run: Run, tensors: Arrays, inputs: Sequence[np.ndarray], rng: np.random.Generator
    ) -> None:
        self.labeling, self.run, self.inputs, self.rng = labeling, run, inputs, rng
        self.tensors, self.scaled = random_like(tensors, rng), of_both_signs(tensors)
        self.reached = Reached()

    def trial(self, probe: Probe) -> "_Trial | None":
        """Draw a trial, None if its outputs are not finite."""
        tensors, inputs = draw(probe, self.tensors, self.scaled, self.inputs, self.labeling.inputs, self.rng)
        reached = Reached()
        still = self.run(tensors, inputs, reached)
        if not all(np.all(np.isfinite(y.astype("complex128"))) for y in still):
            return None
        limit = rounding(self.run, tensors, inputs, still, self.rng)
        if limit <= WILD:
            self.reached.update(reached)
        frozen = partial(self.labeling.frozen, names=self.labeling.names)
        return _Trial(self.labeling, self.run, tensors, inputs, frozen, still, limit, probe)

    def first(self) -> "_Trial":
        """Return the first trial: normal inputs, or inputs near the example; smaller weights where rounding grows."""
        found: list[_Trial] = []
        for inputs in (1.0, None, 0.0):
            for halvings in range(7):
                trial = self.trial(Probe(inputs, weights=0.5**halvings))
                found += [] if trial is None else [trial]
                if trial is None or trial.limit <= CALM:
                    break
            if found:
                break
        if not found:
            raise LabelError(
                "the outputs of the network are not finite, neither for normal inputs nor near the example inputs, so its "
                "labeling cannot be verified: give example inputs of the right size and range, or verification=False."
            )
        best = min(found, key=lambda trial: trial.limit)
        if best.limit > WILD:
            raise LabelError(
                f"rounding alone changes an output of the network by more than {best.limit:.0e} of its scale, so its labeling "
                "cannot be verified: give a network with smaller weights or fewer steps, or verification=False."
            )
        return best


class _Trial:
    """A network with drawn tensors and inputs, and the axes of these and of its outputs."""

    def __init__(
        self,
        labeling: Labeling,
        run: Run,
        tensors: Arrays,
        inputs: Sequence[np.ndarray],
        frozen: Frozen,
        still: list[np.ndarray],
        limit: float,
        probe: Probe | None = None,
    ) -> None:
        self.labeling, self.run, self.tensors, self.inputs = labeling, run, tensors, inputs
        self.still, self.limit, self.probe = still, limit, probe
        self.axes = dict(zip(labeling.tensors, frozen(labeling.tensors.values()), strict=True))
        self.input_axes = frozen(labeling.inputs)
        self.output_axes = frozen(labeling.outputs)
        self.numbered = frozen([Value(_numbered(v)) for v in labeling.inputs])
        self.labels = {name: found for name, axes in self.axes.items() if (found := neuron_sets(axes))}

    @property
    def dtype(self) -> str:
        """Least precise dtype of tensors and outputs."""
        kinds = {y.dtype for y in (*self.still, *self.tensors.values()) if y.dtype.kind in "fc"}
        return str(max(kinds, key=lambda kind: float(np.finfo(kind).eps)))

    def draws(self, rng: np.random.Generator) -> list[dict[str, np.ndarray]]:
        """Permutations of every neuron set: random ones, cycles and swaps.

        Any permutation is made of cycles and swaps, and random ones move most at once.
        """
        sizes = {a.label: a.size for axes in self.axes.values() for leaf in leaf_axes(axes) for a in leaf if a.label}
        random = {label: _derange(n, rng) for label, n in sizes.items()}
        cycles, swaps = ({label: make(n) for label, n in sizes.items()} for make in (_cycle, _swap))
        return [random, cycles, swaps]

    def check(self, draws: Sequence[Sources]) -> tuple[float, float]:
        """Error under all permutations, together and apart, and the limit; more than that is raised."""
        error = max(self.error(sources) for everything in draws for sources in (everything, *_apart(everything)))
        if not error <= self.limit:
            raise LabelError(self.diagnosis(error, draws))
        return error, self.limit

    def untested(self, everything: Sources, names: Iterable[str]) -> list[str]:
        """Tensors that can be permuted alone without effect."""
        return [name for name in names if self.error(everything, {name}) <= self.limit]

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
        return difference(self.run(tensors, inputs, None), expected)

    def _moved(self, name: str, sources: Sources) -> bool:
        """Whether a tensor has one of these neuron sets."""
        return any(label in sources for label in neuron_sets(self.axes[name]))

    def depends_on(self, name: str, rng: np.random.Generator) -> bool:
        """Whether other values of a tensor change an output: what is dead for these inputs shows nothing."""
        x = self.tensors[name]
        other = (x * rng.uniform(1.0, 2.0, x.shape)).astype(x.dtype)
        changed = Each(self.tensors, lambda n: other if n == name else self.tensors[n])
        return difference(self.run(changed, self.inputs, None), self.still) > self.limit

    def is_odd(self, label: str, rng: np.random.Generator) -> bool:
        """Whether a neuron set's signs change no output, although those of some tensor alone do."""
        holders = [name for name, labels in self.labels.items() if label in labels]
        size = next(a.size for name in holders for leaf in leaf_axes(self.axes[name]) for a in leaf if a.label == label)
        signs = {label: np.r_[-1.0, rng.choice((-1.0, 1.0), size - 1)]}
        return self.error(signs) <= self.limit and any(self.error(signs, {name}) > self.limit for name in holders)

    def diagnosis(self, error: float, draws: Sequence[Sources]) -> str:
        """Say which neuron sets and tensors break the symmetry."""
        lines = []
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
        return self._changed(name, tuple(axis.renamed({label: None}) for axis in self.axes[name]), {label: image})

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
    """Permute an array along the neuron sets of its axes, or change signs."""
    pieces = []
    for part, leaf in zip(split_axes(x, axes, 0), leaf_axes(axes), strict=True):
        piece = np.asarray(part)
        for a, axis in enumerate(leaf):
            if axis.label is None or axis.label not in sources:
                continue
            image = sources[axis.label]
            if image.dtype.kind == "f":
                piece = piece * image.reshape(-1, *[1] * (piece.ndim - a - 1)).astype(piece.dtype)
            else:
                piece = np.take(piece, image, axis=a)
        pieces.append(piece)
    return np.asarray(join_axes(iter(pieces), axes, 0))


def _numbered(value: Value) -> tuple[Node, ...]:
    """The axis that a value's integers number."""
    return (value.index.axis,) if value.index and value.index.axis else ()


def _derange(n: int, rng: np.random.Generator) -> np.ndarray:
    """A random permutation that is not the identity."""
    image = rng.permutation(n)
    return np.roll(image, 1) if np.array_equal(image, np.arange(n)) else image


def _cycle(n: int) -> np.ndarray:
    """Every entry moves one on."""
    return np.roll(np.arange(n), 1)


def _swap(n: int) -> np.ndarray:
    """The first two entries change places."""
    return np.r_[1, 0, 2:n] if n > 1 else np.arange(n)


def _apart(sources: Sources) -> list[Sources]:
    """Parts of a permutation such that of any two neuron sets one moves without the other in some part."""
    labels = list(sources)
    bits = range(max(1, (len(labels) - 1).bit_length()))
    return [{n: sources[n] for k, n in enumerate(labels) if (k >> bit) % 2 == side} for bit in bits for side in (0, 1)]
