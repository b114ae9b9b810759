"""The checks. Each returns a `Measurement`; what a subject does not provide is reported as "not provided".

A measurement is a number beside the limit it is held to; errors are relative to the output's scale.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from nfn_conformance.measurements import (
    Measurement,
    arrays,
    compare,
    dtypes,
    flat,
    map_arrays,
    rank_and_gap,
    relative_error,
    require,
    tolerance,
)
from nfn_conformance.oracle import index_orbits, pair_orbits
from nfn_conformance.subject import NumpyFeatures, Output, Subject
from nfn_core import Group, Permutation, WeightSpace
from nfn_core.checks import check_choice, check_kind, natural_int

__all__ = ["CHECKS", "Measurement", "assert_conforms", "draw_features", "expected_rank", "measure_all", "symmetry"]


def draw_features(subject: Subject, seed: int, batch: int = 3, dtype: str = "float64") -> NumpyFeatures:
    """Draw normal features for a subject.

    Parameters
    ----------
    subject : Subject
        The subject.
    seed : int
        Seed.
    batch : int
        Batch size.
    dtype : str
        Dtype of the arrays.

    Returns
    -------
    dict of str to numpy.ndarray
        Each tensor of shape (batch, *axes, in_channels).
    """
    return _draw(subject.group.space, subject.in_channels, seed, batch, dtype)


def equivariance(subject: Subject, seed: int = 0) -> Measurement:
    """f(σU) against σf(U) for every generator and drawn elements of the group."""
    if subject.invariant:
        return Measurement("equivariance", "not provided", note="the subject is invariant")
    return symmetry("equivariance", subject, seed)


def invariance(subject: Subject, seed: int = 0) -> Measurement:
    """f(σU) against f(U) for every generator and drawn elements of the group."""
    if not subject.invariant:
        return Measurement("invariance", "not provided", note="the subject is equivariant")
    return symmetry("invariance", subject, seed)


def linearity(subject: Subject, seed: int = 0) -> Measurement:
    """Additivity and homogeneity once f(0) is taken off."""
    if not subject.linear:
        return Measurement("linearity", "not provided", note="the subject does not claim to be affine")
    layer = subject.make(seed)
    u, v = draw_features(subject, seed), draw_features(subject, seed + 1)
    out = subject.apply(layer, u)
    f0 = flat(subject.apply(layer, {k: 0 * x for k, x in u.items()}))
    fu, fv = flat(out) - f0, flat(subject.apply(layer, v)) - f0
    both = flat(subject.apply(layer, {k: 2.5 * u[k] - v[k] for k in u})) - f0
    note = "f(2.5 U - V) against 2.5 f(U) - f(V)"
    return compare("linearity", both, 2.5 * fu - fv, _limit(subject, out), note)


def maximality(subject: Subject, seed: int = 0) -> Measurement:
    """Rank of the operators of re-drawn layers against orbits of index pairs (Propositions 1 and 2)."""
    if not (subject.linear and subject.maximal):
        return Measurement("maximality", "not provided", note="the subject does not claim to be maximal")
    orbits = expected_rank(subject, seed)
    operators = np.stack([_operator(subject, subject.make(seed + k)).ravel() for k in range(orbits + 8)])
    rank, gap = rank_and_gap(operators)
    note = f"rank {rank}, orbits {orbits}, gap {gap:.1e}"
    passed = rank == orbits
    if subject.parameters is not None:
        count = subject.parameters(subject.make(seed))
        note += f", parameters {count}"
        passed = passed and (count == rank or (subject.redundant and count >= rank))
    return Measurement("maximality", "passed" if passed else "failed", float(rank), float(orbits), note)


def constants(subject: Subject, seed: int = 0) -> Measurement:
    """Rank of f(0) over re-drawn layers against orbits of single indices."""
    if not (subject.linear and subject.maximal) or subject.invariant:
        return Measurement("constants", "not provided", note="only for layers that claim all equivariant constants")
    orbits = _count_index_orbits(subject.target or subject.group) * subject.out_channels
    zero = {k: 0 * x for k, x in draw_features(subject, seed, batch=1).items()}
    values = np.stack([flat(subject.apply(subject.make(seed + k), zero)) for k in range(orbits + 4)])
    rank, gap = rank_and_gap(values)
    passed = "passed" if rank == orbits else "failed"
    return Measurement("constants", passed, float(rank), float(orbits), f"rank {rank}, orbits {orbits}, gap {gap:.1e}")


def uncoupled(subject: Subject, seed: int = 0) -> Measurement:
    """Error under permutations that are no symmetry: one axis of one tensor alone. It must not vanish."""
    free = _uncoupled(subject.group)
    if not subject.maximal or (subject.invariant and subject.linear):
        return Measurement("uncoupled", "not provided", note="no claim to distinguish uncoupled permutations")
    if subject.group.signed:
        return Measurement("uncoupled", "not provided", note="tensors of different grades are not coupled")
    layer, u = subject.make(seed), draw_features(subject, seed)
    out = subject.apply(layer, u)
    limit = max(1e-6, 10 * _limit(subject, out))
    found = np.inf
    for label in free.permuted:
        tensor, axis = label.split("/")
        spec = subject.group.space.by_name[tensor]
        if spec.labels[int(axis)] in subject.group.permuted and not _shared(subject.group, spec.labels[int(axis)]):
            continue
        act = replace(free, permuted=(label,))
        sigma = act.permutation({label: [*range(1, free.space.sizes[label]), 0]})
        permuted = subject.apply(layer, act.act(sigma, u))
        found = min(
            found, relative_error(flat(permuted), flat(out if isinstance(out, np.ndarray) else act.act(sigma, out)))
        )
    if not np.isfinite(found):
        return Measurement("uncoupled", "not provided", note="every axis is free to move by itself")
    status = "passed" if found > limit else "failed"
    note = "smallest error under uncoupled permutations, which must be above the limit"
    return Measurement("uncoupled", status, float(found), limit, note)


def gradient(subject: Subject, seed: int = 0) -> Measurement:
    """vjp(σU, σV) = σ vjp(U, V), and the vjp against central differences."""
    if subject.vjp is None:
        return Measurement("gradient", "not provided")
    layer, u = subject.make(seed), draw_features(subject, seed)
    rng = np.random.default_rng(seed)
    out = subject.apply(layer, u)
    v: Any = rng.normal(size=out.shape) if isinstance(out, np.ndarray) else _like(out, rng)
    found = subject.vjp(layer, u, v)
    sigma = subject.group.sample(seed)
    permuted_v = _act(subject, sigma, v)
    permuted = subject.vjp(layer, subject.group.act(sigma, u), permuted_v)
    error = relative_error(flat(permuted), flat(subject.group.act(sigma, found)))
    direction = _like(u, rng)
    narrow = "float64" not in dtypes(out)
    h = float(np.finfo("float32").eps) ** (1 / 3) if narrow else 1e-5
    ends = [flat(subject.apply(layer, {k: u[k] + s * h * direction[k] for k in u})) for s in (1, -1)]
    slope = float((ends[0] - ends[1]).astype("float64") @ flat(v)) / (2 * h)
    expected = float(flat(found) @ flat(direction))
    scale = float(np.linalg.norm(flat(found)) * np.linalg.norm(flat(direction))) + 1e-300
    difference = abs(slope - expected) / scale
    limit = max(1e-5, 10 * _limit(subject, out))
    status = "passed" if error < _limit(subject, out) and difference < limit else "failed"
    note = f"equivariance of the vjp {error:.1e}, against differences {difference:.1e}"
    return Measurement("gradient", status, max(error, difference), limit, note)


def batch(subject: Subject, seed: int = 0) -> Measurement:
    """A stacked batch against one by one, a batch of one, and an empty batch."""
    layer, u = subject.make(seed), draw_features(subject, seed)
    whole = subject.apply(layer, u)
    singles = [subject.apply(layer, {k: x[i : i + 1] for k, x in u.items()}) for i in range(3)]
    error = max(relative_error(flat(x), flat(_member(whole, i))) for i, x in enumerate(singles))
    empty = map_arrays(subject.apply(layer, {k: x[:0] for k, x in u.items()}), np.asarray)
    sizes, limit = {x.shape[0] for x in arrays(empty)}, _limit(subject, whole)
    status = "passed" if error < limit and sizes == {0} else "failed"
    return Measurement("batch", status, error, limit, f"empty batch gives batch sizes {sorted(sizes)}")


def dtype(subject: Subject, seed: int = 0) -> Measurement:
    """Output dtype follows input dtype; float32 against float64 within 64 eps √(inputs)."""
    layer = subject.make(seed)
    u = draw_features(subject, seed)
    wide = subject.apply(layer, u)
    narrow = subject.apply(layer, {k: x.astype("float32") for k, x in u.items()})
    kinds = dtypes(wide) | dtypes(narrow)
    limit = _limit(subject, narrow)
    error = relative_error(flat(narrow).astype("float64"), flat(wide))
    follows = dtypes(wide) == {"float64"} and dtypes(narrow) == {"float32"}
    status = "passed" if follows and error < limit else "failed"
    return Measurement("dtype", status, error, limit, f"output dtypes {sorted(kinds)}")


def compiled(subject: Subject, seed: int = 0) -> Measurement:
    """The compiled subject against the eager one, whichever of them is `apply`."""
    if subject.compiled is None:
        return Measurement("compile", "not provided")
    layer, u = subject.make(seed), draw_features(subject, seed)
    out = subject.apply(layer, u)
    return compare("compile", flat(subject.compiled(layer, u)), flat(out), _limit(subject, out))


def round_trip(subject: Subject, seed: int = 0) -> Measurement:
    """Saved, loaded, and applied again: bitwise equal."""
    if subject.round_trip is None:
        return Measurement("round trip", "not provided")
    layer, u = subject.make(seed), draw_features(subject, seed)
    with tempfile.TemporaryDirectory() as folder:
        again = subject.round_trip(layer, Path(folder))
    differ = int(np.sum(flat(subject.apply(again, u)) != flat(subject.apply(layer, u))))
    return Measurement("round trip", "failed" if differ else "passed", float(differ), 0.0, "entries that differ")


def duplication(subject: Subject, seed: int = 0) -> Measurement:
    """Every permuted neuron twice: a layer that pools by means gives every output twice, f(U U) = f(U) f(U)."""
    group = subject.group
    repeated = any(t.labels.count(label) > 1 for t in group.space.tensors for label in group.permuted)
    if subject.on_group is None or subject.target is not None or repeated or not group.permuted:
        return Measurement(
            "duplication", "not provided", note="for layers that pool by means, no label twice in a tensor"
        )
    axes = {
        t.name: [(s, n * (1 + (s in group.permuted))) for s, n in zip(t.labels, t.shape, strict=True)]
        for t in group.space.tensors
    }
    space = WeightSpace.from_axes(axes, group.space.inputs, group.space.outputs)
    larger = Group(space, group.permuted, group.signed, group.grades)
    u = draw_features(subject, seed)
    other = subject.on_group(larger)
    actual = other.apply(other.make(seed), _double(group, u))
    out = subject.apply(subject.make(seed), u)
    expected = out if isinstance(out, np.ndarray) else _double(group, out)
    return compare("duplication", flat(actual), flat(expected), _limit(subject, out), "every neuron twice")


CHECKS: dict[str, Callable[..., Measurement]] = {
    "equivariance": equivariance,
    "invariance": invariance,
    "linearity": linearity,
    "maximality": maximality,
    "constants": constants,
    "uncoupled": uncoupled,
    "gradient": gradient,
    "duplication": duplication,
    "batch": batch,
    "dtype": dtype,
    "compile": compiled,
    "round trip": round_trip,
}
"""All checks by name; each takes a subject and a seed."""


def measure_all(subject: Subject, seed: int = 0) -> list[Measurement]:
    """Run every check.

    Parameters
    ----------
    subject : Subject
        The layer under test.
    seed : int
        Seed of everything drawn.

    Returns
    -------
    list of Measurement
        One for each of `CHECKS`.

    Raises
    ------
    SpecError
        If it is no subject, or the seed no seed.
    """
    check_kind("subject", subject, Subject)
    seed = natural_int("seed", seed)
    return [check(subject, seed) for check in CHECKS.values()]


def assert_conforms(subject: Subject, check: str, seed: int = 0) -> Measurement:
    """Run one check and fail if the subject does not pass it.

    Parameters
    ----------
    subject : Subject
        The layer under test.
    check : str
        One of `CHECKS`.
    seed : int
        Seed of everything drawn.

    Returns
    -------
    Measurement
        What was measured; its status is "passed" or "not provided".

    Raises
    ------
    AssertionError
        If the check failed; the message carries the figures.
    SpecError
        If it is no subject, the check is unknown, or the seed no seed.
    """
    check_kind("subject", subject, Subject)
    check_choice("check", check, tuple(CHECKS))
    seed = natural_int("seed", seed)
    return require(CHECKS[check](subject, seed), subject.name)


def symmetry(name: str, subject: Subject, seed: int, u: NumpyFeatures | None = None) -> Measurement:
    """Largest error over generators and three drawn elements, of given or drawn features."""
    layer, u = subject.make(seed), draw_features(subject, seed) if u is None else u
    group = subject.group
    out = subject.apply(layer, u)
    rng = np.random.default_rng(seed)
    worst, where = 0.0, ""
    for sigma in (*group.generators(), *(group.sample(rng) for _ in range(3))):
        permuted, expected = subject.apply(layer, group.act(sigma, u)), _act(subject, sigma, out)
        error = relative_error(flat(permuted), flat(expected))
        if error > worst:
            worst, where = error, f"; largest {_place(sigma, permuted, expected)}"
    limit = _limit(subject, out)
    status = "passed" if worst < limit else "failed"
    note = f"{len(group.generators())} generators, 3 drawn elements{where if status == 'failed' else ''}"
    return Measurement(name, status, worst, limit, note)


def _place(sigma: Permutation, actual: Output, expected: Output) -> str:
    """Which neuron sets an element permutes, and which output tensor differs most."""
    place = (
        f"under {'signs' if any(-1 in x for _, x in sigma.signs) else 'a permutation'} of {', '.join(sigma.changed)}"
    )
    if isinstance(actual, np.ndarray) or isinstance(expected, np.ndarray):
        return place
    differences = {k: float(np.nanmax(np.abs(actual[k] - x), initial=0.0)) for k, x in expected.items()}
    bad = [k for k, x in actual.items() if not np.all(np.isfinite(x))]
    return f"{place} in tensor {(bad or [max(differences, key=differences.__getitem__)])[0]!r}"


def _member(value: Output, i: int) -> Output:
    """One member of the batch."""
    return map_arrays(value, lambda x: x[i : i + 1])


def _limit(subject: Subject, out: Output) -> float:
    """Largest relative error that passes, by the dtype of an output."""
    return tolerance(out, subject.group.space.size * subject.in_channels)


def _act(subject: Subject, sigma: Permutation, value: Output) -> Output:
    """Action on a subject's output; invariants stay."""
    return value if isinstance(value, np.ndarray) else (subject.target or subject.group).act(sigma, value)


def _uncoupled(group: Group) -> Group:
    """The group in which every axis of every tensor is a neuron set of its own."""
    axes = {
        t.name: [
            (f"{t.name}/{a}" if label else None, n) for a, (n, label) in enumerate(zip(t.shape, t.labels, strict=True))
        ]
        for t in group.space.tensors
    }
    return WeightSpace.from_axes(axes).group("NP")


def _shared(group: Group, label: str | None) -> bool:
    """Whether a neuron set labels more than one axis."""
    return sum(t.labels.count(label) for t in group.space.tensors) > 1


def expected_rank(subject: Subject, seed: int = 0) -> int:
    """Number of orbits times channels: of index pairs, or of single indices for invariant subjects."""
    if subject.invariant:
        outputs = flat(subject.apply(subject.make(seed), draw_features(subject, seed, batch=1))).size
        return _count_index_orbits(subject.group) * subject.in_channels * outputs
    return _count_pair_orbits(subject.group, subject.target) * subject.in_channels * subject.out_channels


@lru_cache(maxsize=512)
def _count_index_orbits(group: Group) -> int:
    """Number of orbits of single indices; a suite asks for the same groups again and again."""
    return int(index_orbits(group).max()) + 1


@lru_cache(maxsize=512)
def _count_pair_orbits(group: Group, target: Group | None) -> int:
    """Number of orbits of index pairs."""
    return int(pair_orbits(group, target).max()) + 1


def _double(group: Group, features: Any) -> NumpyFeatures:
    """Features with every permuted neuron twice."""
    doubled = {}
    for t in group.space.tensors:
        x = features[t.name]
        for axis, label in enumerate(t.labels):
            x = np.concatenate([x, x], axis=axis + 1) if label in group.permuted else x
        doubled[t.name] = x
    return doubled


def _operator(subject: Subject, layer: Any) -> np.ndarray:
    """Matrix of the linear part, by applying the layer to every basis vector and, last in the batch, to zero."""
    space, c = subject.group.space, subject.in_channels
    size = space.size * c
    basis = np.eye(size + 1, size)
    u, start = {}, 0
    for t in space.tensors:
        u[t.name] = basis[:, start : start + t.size * c].reshape(-1, *t.shape, c)
        start += t.size * c
    rows = np.concatenate([x.reshape(size + 1, -1) for x in arrays(subject.apply(layer, u))], axis=1)
    return np.asarray(rows[:-1] - rows[-1:])


def _draw(space: WeightSpace, channels: int, seed: int, count: int, kind: str) -> NumpyFeatures:
    rng = np.random.default_rng([seed, 7])
    return {t.name: rng.normal(size=(count, *t.shape, channels)).astype(kind) for t in space.tensors}


def _like(features: Any, rng: np.random.Generator) -> NumpyFeatures:
    return {k: rng.normal(size=x.shape) for k, x in features.items()}
