"""What a network is run on to verify its labeling: drawn tensors and inputs, the limit that rounding sets, what they reach."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np

from nfn_core.errors import LabelError, NFNError
from nfn_core.models.rules import Value

__all__ = [
    "Arrays",
    "Each",
    "PROBES",
    "Probe",
    "Reached",
    "Run",
    "difference",
    "draw",
    "of_both_signs",
    "random_like",
    "rounding",
    "running",
]

Arrays: TypeAlias = Mapping[str, np.ndarray]
Run: TypeAlias = Callable[[Arrays, Sequence[np.ndarray], "Reached | None"], list[np.ndarray]]
"""A network: from its tensors by name and its inputs to its outputs; it may record what it reaches."""

ROUNDING = 2.0**12
"""Smallest limit, in units of the outputs' rounding: deep networks add roundings up."""

SLACK = 2.0**10
"""Limit, in units of what the last places of tensors and inputs do to the outputs."""


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


class Probe(NamedTuple):
    """How tensors and inputs are drawn.

    Parameters
    ----------
    inputs : float, optional
        Standard deviation of normal inputs of floating dtype; None for inputs near the example, 0 for the example itself.
    mean : float
        Mean of normal inputs.
    weights : float
        Factor of all tensors that have entries of both signs.
    signs : bool
        Whether the entries of these tensors get random signs.
    """

    inputs: float | None
    mean: float = 0.0
    weights: float = 1.0
    signs: bool = False

    def __str__(self) -> str:
        """Words for it."""
        kind = f"normal inputs {self.mean:g} ± {self.inputs:g}" if self.inputs else "the example inputs"
        kind = "inputs near the example" if self.inputs is None else kind
        return kind + (f", weights times {self.weights:g}" if self.weights != 1 else "") + self.signs * ", random signs"


PROBES = (
    Probe(30.0, 60.0, signs=True),
    Probe(30.0, -60.0, signs=True),
    Probe(0.01, signs=True),
    Probe(1000.0, signs=True),
    Probe(1.0, weights=2.0),
    Probe(1.0, weights=4.0, signs=True),
)
"""Further probes, for what the first one does not reach or test."""


@dataclass
class Reached:
    """Choices and units that a network's runs have reached.

    Attributes
    ----------
    choices : dict of str to [bool, bool]
        For each choice between values whether each of the two was ever taken.
    units : dict of str to list of numpy.ndarray
        For each activation function that can be dead, and each axis, which of its entries were ever alive.
    unseen : list of str
        What hides its choices.
    """

    choices: dict[str, list[bool]] = field(default_factory=dict)
    units: dict[str, list[np.ndarray]] = field(default_factory=dict)
    unseen: dict[str, None] = field(default_factory=dict)

    def choice(self, where: str, first: bool, second: bool) -> None:
        """Record which values of a choice a run took."""
        before = self.choices.get(where, [False, False])
        self.choices[where] = [before[0] or bool(first), before[1] or bool(second)]

    def alive(self, where: str, units: Sequence[np.ndarray]) -> None:
        """Record for each axis which entries a run found alive."""
        before = self.units.get(where, units)
        self.units[where] = [a | b for a, b in zip(before, units, strict=True)]

    def update(self, other: "Reached") -> None:
        """Take what other runs have reached."""
        for where, taken in other.choices.items():
            self.choice(where, *taken)
        for where, units in other.units.items():
            self.alive(where, units)
        self.unseen.update(other.unseen)

    def missing(self) -> list[str]:
        """Say what was not reached."""
        found = [
            f"{where} was always {'true' if taken[0] else 'false'}"
            for where, taken in self.choices.items()
            if taken[0] != taken[1]
        ]
        for where, axes in self.units.items():
            dead = [(a, int(np.sum(~alive)), alive.size) for a, alive in enumerate(axes) if not alive.all()]
            found += [f"{where} was 0 in {n} of {size} entries of axis {a}" for a, n, size in dead[-1:]]
        return [*found, *self.unseen]


def random_like(arrays: Arrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
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


def of_both_signs(arrays: Arrays) -> set[str]:
    """Names of arrays with entries of both signs, or with zeros only: what is always positive is left out."""
    return {name for name, x in arrays.items() if (x.min(initial=0) < 0) == (x.max(initial=0) > 0)}


def draw(
    probe: Probe,
    tensors: Arrays,
    scaled: Collection[str],
    inputs: Sequence[np.ndarray],
    values: Sequence[Value],
    rng: np.random.Generator,
) -> tuple[Arrays, list[np.ndarray]]:
    """Draw tensors and inputs.

    Parameters
    ----------
    probe : Probe
        How to draw them.
    tensors : mapping of str to numpy.ndarray
        Tensors, floating dtype, in which no two neurons are alike.
    scaled : collection of str
        Names of the tensors that get the probe's factor and signs.
    inputs : sequence of numpy.ndarray
        The network's example inputs. Integers that number an axis become random ones; other integers stay as they are.
    values : sequence of Value
        What is known of the inputs.
    rng : numpy.random.Generator
        Source of the numbers.

    Returns
    -------
    mapping of str to numpy.ndarray
        Tensors, each made when it is asked for.
    list of numpy.ndarray
        Inputs.
    """
    drawn = [_input(probe, x, value, rng) for x, value in zip(inputs, values, strict=True)]
    seeds = dict(zip(tensors, rng.integers(2**32, size=len(tensors)).tolist(), strict=True))

    def varied(name: str) -> np.ndarray:
        x = tensors[name]
        if name not in scaled or (probe.weights == 1 and not probe.signs):
            return x
        signs = np.random.default_rng(seeds[name]).choice([-1, 1], x.shape) if probe.signs else 1
        return np.asarray(x * (probe.weights * signs), dtype=x.dtype)

    return Each(tensors, varied), drawn


def _input(probe: Probe, x: np.ndarray, value: Value, rng: np.random.Generator) -> np.ndarray:
    """Random input like a given one."""
    if x.dtype.kind == "f":
        if probe.inputs == 0:
            return x
        if probe.inputs is None:
            return random_like({"": x}, rng)[""]
        return rng.normal(probe.mean, probe.inputs, x.shape).astype(x.dtype)
    axis = value.index.axis if value.index else None
    return x if axis is None else rng.integers(0, axis.size, x.shape).astype(x.dtype)


def rounding(
    run: Run, tensors: Arrays, inputs: Sequence[np.ndarray], still: Sequence[np.ndarray], rng: np.random.Generator
) -> float:
    """Largest error that rounding explains: many times what the last places of tensors and inputs do to the outputs.

    Parameters
    ----------
    run : callable
        The network.
    tensors, inputs : mapping and sequence of numpy.ndarray
        What it is run on.
    still : sequence of numpy.ndarray
        Its outputs there.
    rng : numpy.random.Generator
        Source of the directions in which last places move.

    Returns
    -------
    float
        The limit, relative to the outputs' scale.
    """

    def near(x: np.ndarray) -> np.ndarray:
        if x.dtype.kind != "f":
            return x
        factor = 1 + np.finfo(x.dtype).eps * rng.choice([-1, 1], x.shape)
        return np.asarray(x * factor, dtype=x.dtype)  # 0 stays 0

    moved = 0.0
    for _ in range(3):
        out = run(Each(tensors, lambda name: near(tensors[name])), [near(x) for x in inputs], None)
        moved = max(moved, difference(out, still))
    kinds = [y.dtype for y in (*still, *tensors.values()) if y.dtype.kind in "fc"]
    return max(ROUNDING * max(float(np.finfo(kind).eps) for kind in kinds), SLACK * moved)


def difference(actual: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Largest difference of outputs, each relative to its largest expected entry."""
    return max(_difference(y, e) for y, e in zip(actual, expected, strict=True))


def _difference(actual: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest expected entry."""
    actual, expected = actual.astype("complex128"), expected.astype("complex128")
    scale = float(np.max(np.abs(expected), initial=0.0))
    error = float(np.max(np.abs(actual - expected), initial=0.0)) / (scale or 1.0)
    return error if np.isfinite(error) else float("inf")


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
            "If it does not run in double precision, give verification=False."
        ) from error
