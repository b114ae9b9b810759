"""A survey of architectures: the table of `docs/architectures.md`, written there by `python -m reference_experiments survey`.

Every network is taken as it comes. Its labels are derived and verified, then checked once more with other weights, inputs
of another size, and the public way there and back. Only how weights are drawn is shared with that verification. The same check must
catch three wrong labelings, in which two axes of a tensor are swapped, two sets are mixed up, or a set is cut off.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nfn_core import LabelError, ModelSpace, View, __version__
from nfn_core.models.probes import random_like
from nfn_core.models.summary import layer_size
from nfn_core.models.views import neuron_sets
from reference_experiments.demos.families import FAMILIES, Example
from reference_experiments.files import ExperimentError, claimed, kept_json

__all__ = ["Result", "check", "survey", "survey_table", "wrong_spaces"]

TOLERANCE = 1e-4
"""Largest relative change of an output that passes; networks may compute in single precision inside."""

CLEARLY = 100.0
"""A wrong labeling is caught if it changes outputs by so many times what the right one does."""

ROUNDING = 1e-12
"""Change that the right labeling is taken to make at least, in double precision."""


@dataclass(frozen=True)
class Result:
    """What the survey says of one network.

    Parameters
    ----------
    cells : tuple of str
        Sets, what is fixed, errors, controls, size, seconds; or a single one, the error.
    passed : bool
        Whether labels were found and hold, and every wrong labeling was caught.
    """

    cells: tuple[str, ...]
    passed: bool = False


def check(space: ModelSpace, example: Example, moved: Iterable[str] | None = None, seed: int = 1) -> float:
    """Largest relative change of the outputs for inputs of another size when fresh weights are permuted.

    No output may change, since sets of inputs and outputs stay.

    Parameters
    ----------
    space : ModelSpace
        The space to check.
    example : Example
        The network.
    moved : iterable of str, optional
        Sets that move; by default all that neither inputs nor outputs have.
    seed : int
        Seed of weights and permutation.

    Returns
    -------
    float
        The change; nothing is known where no set moves, so that is 0.
    """
    rng = np.random.default_rng(seed)
    drawn = {name: _sized(x) for name, x in random_like(example.draw(seed), rng).items()}
    drawn |= {tied: drawn[view.name] for view in space.views for tied in view.also}
    labels = _hidden(space) if moved is None else moved
    group = space.space.group(list(labels))
    sigma = group.permutation({label: _derangement(space.space.sizes[label], rng) for label in group.permuted})
    features = space.stack([drawn])
    other = group.act(sigma, features)
    pairs = zip(example.outputs(space, features), example.outputs(space, other), strict=True)
    return max((_change(a, b) for a, b in pairs), default=0.0)


def _sized(x: np.ndarray) -> np.ndarray:
    """The tensor with a largest entry of at least a half: small starts (layer scales) would hide what is wrong behind them."""
    largest = float(np.abs(x).max(initial=0.0))
    return x * (0.5 / largest) if 0 < largest < 0.5 else x


def _hidden(space: ModelSpace) -> list[str]:
    """Sets that neither inputs nor outputs have."""
    return [label for label in space.space.sizes if label not in (*space.inputs, *space.outputs)]


def _derangement(size: int, rng: np.random.Generator) -> list[int]:
    """A permutation that leaves nothing at its place."""
    order = rng.permutation(size)
    images = np.empty(size, int)
    images[order] = np.roll(order, 1)
    return [int(n) for n in images]


def _change(a: np.ndarray, b: np.ndarray) -> float:
    """Largest change relative to the largest entry."""
    scale = float(np.abs(a).max(initial=0.0)) or 1.0
    change = float(np.abs(a - b).max(initial=0.0)) / scale
    return change if np.isfinite(change) else float("inf")


def wrong_spaces(space: ModelSpace, seed: int = 0) -> Iterator[tuple[str, str, ModelSpace]]:
    """Labelings that are wrong in one tensor each: two axes swapped, one set for another, a set cut off.

    Tensors that the verification could not test are left out, and so are sets of inputs and outputs.

    Parameters
    ----------
    space : ModelSpace
        A right space.
    seed : int
        Seed of the choice of the tensor.

    Yields
    ------
    tuple of (str, str, ModelSpace)
        What is wrong, the set whose permutation shows it, and the space; nothing for what no tensor allows.
    """
    rng = np.random.default_rng(seed)
    untested = space.verification.untested if space.verification else ()
    sizes = space.space.sizes
    hidden = set(_hidden(space))
    found: dict[str, list[tuple[str, View]]] = {"swapped": [], "mixed up": [], "cut off": []}
    for view in space.views:
        own = [label for label in neuron_sets(view.axes) if label in hidden]
        if view.name in untested or not own:
            continue
        pairs = [(a, b) for a in own for b in own if a < b and sizes[a] == sizes[b]]
        others = [(a, b) for a in own for b in sorted(hidden - set(own)) if sizes[a] == sizes[b]]
        found["swapped"] += [(a, _renamed(view, {a: b, b: a})) for a, b in pairs]
        found["mixed up"] += [(a, _renamed(view, {a: b})) for a, b in others]
        found["cut off"] += [(a, _renamed(view, {a: None})) for a in own]
    for kind, choices in found.items():
        if choices:
            label, view = choices[int(rng.integers(len(choices)))]
            yield kind, label, replace(space, views=tuple(view if v.name == view.name else v for v in space.views))


def _renamed(view: View, labels: Mapping[str, str | None]) -> View:
    """The view with other neuron sets in place of some."""
    return replace(view, axes=tuple(axis.renamed(labels) for axis in view.axes))


def survey(name: str, example: Example) -> Result:
    """Survey one network.

    Parameters
    ----------
    name : str
        Its name.
    example : Example
        How it is made, and its inputs.

    Returns
    -------
    Result
        The cells of its row. A `LabelError` is a result too.
    """
    began = time.perf_counter()
    try:
        space = example.derive()
    except LabelError as error:
        return Result((str(error),))
    seconds = time.perf_counter() - began
    verification = space.verification
    if verification is None:
        raise ExperimentError(f"{name}: the weight space was not verified: leave the verification on.")
    change = check(space, example)
    limit = CLEARLY * max(change, ROUNDING)
    wrong = [(kind, check(other, example, [label]) > limit) for kind, label, other in wrong_spaces(space)]
    missed = [kind for kind, caught in wrong if not caught]
    cells = (
        str(len(space.space.sizes)),
        _fixed(space),
        f"{verification.error:.0e}",
        f"{change:.0e}",
        f"{len(wrong) - len(missed)} of {len(wrong)}" + (f", not {', '.join(missed)}" if missed else ""),
        f"{layer_size(space.space.group('NP')):.1e}",
        f"{seconds:.1f}",
        "; ".join(f"{key}: {pattern}" for key, pattern in example.labels.items()),
    )
    return Result(cells, change <= TOLERANCE and not missed)


def _row(name: str, example: Example) -> dict[str, Any]:
    """The row of one network, as it is kept."""
    return asdict(survey(name, example))


def _fixed(space: ModelSpace) -> str:
    """Operations that fixed axes, by the number of tensors."""
    counts = Counter(
        re.sub(r"^(aten\.|primitive )|(\.\w+ \(.*|\[.*)$", "", reason.split(" in module ")[0])
        for _, reasons in space.fixed
        for reason in reasons.split("; ")
    )
    return ", ".join(f"{reason} {count}" for reason, count in counts.most_common(3))


def survey_table(folder: Path, names: Iterable[str] | None = None, say: Callable[[str], None] = print) -> str:
    """Table of all networks of all families, in Markdown; surveyed rows are kept in a folder.

    Parameters
    ----------
    folder : Path
        Where rows are kept, so that an interrupted run goes on.
    names : iterable of str, optional
        Families; all by default.
    say : callable
        Is given a line about every network that fails.

    Returns
    -------
    str
        The table.
    """
    head = [
        "| network | sets | fixed by, in tensors | error | error of fresh weights, another size | wrong labels caught "
        "| NF-layer NP | seconds | labels given |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    lines: list[str] = []
    counts = Counter[str]()
    with claimed(folder, {"version": __version__, "survey": 1}):
        for family in names or FAMILIES:
            lines.append(f"| **{family}** | | | | | | | | |")
            for name, example in tqdm(FAMILIES[family]().items(), desc=family, unit="network"):
                path = folder / (re.sub(r"\W+", "-", f"{family} {name}") + ".json")
                row = kept_json(path, partial(_row, name, example))
                cells = row["cells"]
                counts["all"] += 1
                counts["derived"] += len(cells) > 1 and not example.labels
                counts["passed"] += row["passed"]
                if len(cells) == 1:
                    say(f"{name}: {cells[0]}")
                    cells = ["", cells[0].replace("|", "\\|")[:160] + " ...", *[""] * 6]
                lines.append("| " + " | ".join([name, *cells]) + " |")
    total = counts["all"]
    summary = (
        f"{counts['derived']} of {total} are derived without labels; of {counts['passed']} the labels hold for fresh weights at "
        "another size and every wrong labeling is caught."
    )
    return "\n".join([summary, "", *head, *lines])
