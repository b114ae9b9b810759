"""The checks. Each returns a `Measurement`; a check that a subject gives no means for returns "not provided".

A measurement is a number beside the limit it is held to; errors are relative to the output's scale.
"""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nfn_conformance.oracle import index_orbits, pair_orbits
from nfn_conformance.subject import NumpyFeatures, Output, Subject
from nfn_core import Group, Permutation, WeightSpace

__all__ = ["CHECKS", "Measurement", "assert_conforms", "draw_features", "measure_all", "symmetry", "tolerance"]

TOLERANCE = 1e-9
"""Largest relative error of a float64 computation; a broken layer misses it by many orders."""


@dataclass(frozen=True)
class Measurement:
    """What a check found.

    Parameters
    ----------
    check : str
        Name of the check.
    status : {"passed", "failed", "not provided"}
        Whether the figures are within their limits, or the subject gives no means to measure.
    value, limit : float, optional
        The figure, and what it is held to.
    note : str
        What the figures are.
    """

    check: str
    status: str
    value: float | None = None
    limit: float | None = None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for JSON."""
        return asdict(self)


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
    f0 = _flat(subject.apply(layer, {k: 0 * x for k, x in u.items()}))
    fu, fv = (_flat(subject.apply(layer, w)) - f0 for w in (u, v))
    both = _flat(subject.apply(layer, {k: 2.5 * u[k] - v[k] for k in u})) - f0
    return _error("linearity", both, 2.5 * fu - fv, note="f(2.5 U - V) against 2.5 f(U) - f(V)")


def maximality(subject: Subject, seed: int = 0) -> Measurement:
    """Rank of the operators of re-drawn layers against orbits of index pairs (Propositions 1 and 2)."""
    if not (subject.linear and subject.maximal):
        return Measurement("maximality", "not provided", note="the subject does not claim to be maximal")
    orbits = _expected_rank(subject)
    operators = np.stack([_operator(subject, subject.make(seed + k)).ravel() for k in range(orbits + 8)])
    rank, gap = _rank(operators)
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
    orbits = (int(index_orbits(subject.group).max()) + 1) * subject.out_channels
    zero = {k: 0 * x for k, x in draw_features(subject, seed, batch=1).items()}
    values = np.stack([_flat(subject.apply(subject.make(seed + k), zero)) for k in range(orbits + 4)])
    rank, gap = _rank(values)
    passed = "passed" if rank == orbits else "failed"
    return Measurement("constants", passed, float(rank), float(orbits), f"rank {rank}, orbits {orbits}, gap {gap:.1e}")


def uncoupled(subject: Subject, seed: int = 0) -> Measurement:
    """Error under permutations that are no symmetry: one axis of one tensor alone. It must not vanish."""
    free = _uncoupled(subject.group)
    if not subject.maximal or (subject.invariant and subject.linear):
        return Measurement("uncoupled", "not provided", note="no claim to distinguish uncoupled permutations")
    layer, u = subject.make(seed), draw_features(subject, seed)
    found = np.inf
    for label in free.permuted:
        tensor, axis = label.split("/")
        spec = subject.group.space.by_name[tensor]
        if spec.labels[int(axis)] in subject.group.permuted and not _shared(subject.group, spec.labels[int(axis)]):
            continue
        act = replace(free, permuted=(label,))
        sigma = act.permutation({label: [*range(1, free.space.sizes[label]), 0]})
        moved = subject.apply(layer, act.act(sigma, u))
        still = subject.apply(layer, u)
        other = still if isinstance(still, np.ndarray) else act.act(sigma, dict(still))
        found = min(found, _relative(_flat(moved), _flat(other)))
    if not np.isfinite(found):
        return Measurement("uncoupled", "not provided", note="every axis is free to move by itself")
    status = "passed" if found > 1e-6 else "failed"
    return Measurement(
        "uncoupled", status, float(found), 1e-6, "least error under uncoupled permutations, to be exceeded"
    )


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
    moved_v = v if subject.invariant else subject.group.act(sigma, v)
    moved = subject.vjp(layer, subject.group.act(sigma, u), moved_v)
    error = _relative(_flat(moved), _flat(subject.group.act(sigma, found)))
    direction = _like(u, rng)
    h = 1e-5
    ends = [_flat(subject.apply(layer, {k: u[k] + s * h * direction[k] for k in u})) for s in (1, -1)]
    slope = float((ends[0] - ends[1]) @ _flat(v)) / (2 * h)
    expected = float(_flat(found) @ _flat(direction))
    scale = float(np.linalg.norm(_flat(found)) * np.linalg.norm(_flat(direction))) + 1e-300
    difference = abs(slope - expected) / scale
    status = "passed" if error < TOLERANCE and difference < 1e-5 else "failed"
    note = f"equivariance of the vjp {error:.1e}, against differences {difference:.1e}"
    return Measurement("gradient", status, max(error, difference), 1e-5, note)


def batch(subject: Subject, seed: int = 0) -> Measurement:
    """A stacked batch against one by one, a batch of one, and an empty batch."""
    layer, u = subject.make(seed), draw_features(subject, seed)
    whole = subject.apply(layer, u)
    singles = [subject.apply(layer, {k: x[i : i + 1] for k, x in u.items()}) for i in range(3)]
    error = max(_relative(_flat(s), _flat(_part(whole, i))) for i, s in enumerate(singles))
    empty = _map(subject.apply(layer, {k: x[:0] for k, x in u.items()}), np.asarray)
    shapes = {x.shape[0] for x in ([empty] if isinstance(empty, np.ndarray) else empty.values())}
    status = "passed" if error < TOLERANCE and shapes == {0} else "failed"
    return Measurement("batch", status, error, TOLERANCE, f"empty batch gives batch sizes {sorted(shapes)}")


def dtype(subject: Subject, seed: int = 0) -> Measurement:
    """Output dtype follows input dtype; float32 against float64 within 64 eps √(inputs)."""
    layer = subject.make(seed)
    u = draw_features(subject, seed)
    wide = subject.apply(layer, u)
    narrow = subject.apply(layer, {k: x.astype("float32") for k, x in u.items()})
    kinds = {str(x.dtype) for w in (wide, narrow) for x in ([w] if isinstance(w, np.ndarray) else w.values())}
    limit = 64 * float(np.finfo("float32").eps) * np.sqrt(subject.group.space.size * subject.in_channels)
    error = _relative(_flat(narrow).astype("float64"), _flat(wide))
    follows = _dtypes(wide) == {"float64"} and _dtypes(narrow) == {"float32"}
    status = "passed" if follows and error < limit else "failed"
    return Measurement("dtype", status, error, float(limit), f"output dtypes {sorted(kinds)}")


def compiled(subject: Subject, seed: int = 0) -> Measurement:
    """The compiled subject against the eager one."""
    if subject.compiled is None:
        return Measurement("compile", "not provided")
    layer, u = subject.make(seed), draw_features(subject, seed)
    return _error("compile", _flat(subject.compiled(layer, u)), _flat(subject.apply(layer, u)))


def round_trip(subject: Subject, seed: int = 0) -> Measurement:
    """Saved, loaded, and applied again: bitwise equal."""
    if subject.round_trip is None:
        return Measurement("round trip", "not provided")
    layer, u = subject.make(seed), draw_features(subject, seed)
    with tempfile.TemporaryDirectory() as folder:
        again = subject.round_trip(layer, Path(folder))
    differ = int(np.sum(_flat(subject.apply(again, u)) != _flat(subject.apply(layer, u))))
    return Measurement("round trip", "failed" if differ else "passed", float(differ), 0.0, "entries that differ")


def duplication(subject: Subject, seed: int = 0) -> Measurement:
    """Every moved neuron twice: a layer that pools by means gives every output twice, f(U U) = f(U) f(U)."""
    group = subject.group
    repeated = any(t.labels.count(label) > 1 for t in group.space.tensors for label in group.permuted)
    if subject.on_group is None or repeated or not group.permuted:
        return Measurement(
            "duplication", "not provided", note="for layers that pool by means, no label twice in a tensor"
        )
    axes = {
        t.name: [(s, n * (1 + (s in group.permuted))) for s, n in zip(t.labels, t.shape, strict=True)]
        for t in group.space.tensors
    }
    larger = WeightSpace.from_axes(axes, group.space.inputs, group.space.outputs).group(group.permuted)
    u = draw_features(subject, seed)
    other = subject.on_group(larger)
    came = other.apply(other.make(seed), _double(group, u))
    out = subject.apply(subject.make(seed), u)
    expected = out if isinstance(out, np.ndarray) else _double(group, out)
    return _error("duplication", _flat(came), _flat(expected), "every neuron twice")


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
    """
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
    """
    found = CHECKS[check](subject, seed)
    if found.status == "failed":
        raise AssertionError(f"{subject.name} fails {check}: {found.value} (limit {found.limit}); {found.note}")
    return found


def tolerance(dtype: Any, inputs: int) -> float:
    """Largest relative error that is passed: of float64 `TOLERANCE`, of narrower dtypes 64 eps √inputs."""
    return (
        max(TOLERANCE, 64 * float(np.finfo(dtype).eps) * float(np.sqrt(inputs))) if dtype != np.float64 else TOLERANCE
    )


def symmetry(name: str, subject: Subject, seed: int, u: NumpyFeatures | None = None) -> Measurement:
    """Largest error over generators and three drawn elements, of given or drawn features."""
    layer, u = subject.make(seed), draw_features(subject, seed) if u is None else u
    group = subject.group
    still = subject.apply(layer, u)
    rng = np.random.default_rng(seed)
    worst = 0.0
    for sigma in (*group.generators(), *(group.sample(rng) for _ in range(3))):
        moved = subject.apply(layer, group.act(sigma, u))
        worst = max(worst, _relative(_flat(moved), _flat(_act(group, sigma, still))))
    limit = max(tolerance(x.dtype, sum(y[0].size for y in u.values())) for x in _arrays(still))
    status = "passed" if worst < limit else "failed"
    return Measurement(name, status, worst, limit, f"{len(group.generators())} generators, 3 drawn elements")


def _act(group: Group, sigma: Permutation, value: Output) -> Output:
    """Action on features; invariants stay."""
    return value if isinstance(value, np.ndarray) else group.act(sigma, value)


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


def _expected_rank(subject: Subject) -> int:
    """Orbits times channels."""
    if subject.invariant:
        outputs = _flat(subject.apply(subject.make(0), draw_features(subject, 0, batch=1))).size
        return (int(index_orbits(subject.group).max()) + 1) * subject.in_channels * outputs
    return (int(pair_orbits(subject.group).max()) + 1) * subject.in_channels * subject.out_channels


def _double(group: Group, features: Any) -> NumpyFeatures:
    """Features with every moved neuron twice."""
    doubled = {}
    for t in group.space.tensors:
        x = features[t.name]
        for axis, label in enumerate(t.labels):
            x = np.concatenate([x, x], axis=axis + 1) if label in group.permuted else x
        doubled[t.name] = x
    return doubled


def _operator(subject: Subject, layer: Any) -> np.ndarray:
    """Matrix of the linear part, by applying it to every basis vector."""
    space, c = subject.group.space, subject.in_channels
    eye = np.eye(space.size * c)
    u, start = {}, 0
    for t in space.tensors:
        u[t.name] = eye[:, start : start + t.size * c].reshape(-1, *t.shape, c)
        start += t.size * c
    out = subject.apply(layer, u)
    zero = subject.apply(layer, {k: 0 * x[:1] for k, x in u.items()})
    rows = [np.concatenate([x.reshape(len(x), -1) for x in _arrays(w)], axis=1) for w in (out, zero)]
    return np.asarray(rows[0] - rows[1])


def _rank(rows: np.ndarray) -> tuple[int, float]:
    """Rank at NumPy's relative threshold times 1,000, and the gap in the singular values there; of zeros 0."""
    if not np.any(rows):
        return 0, float("inf")
    s = np.linalg.svd(rows / np.abs(rows).max(), compute_uv=False)
    rank = int(np.sum(s > s[0] * max(rows.shape) * np.finfo(float).eps * 1e3))
    return rank, float(s[rank - 1] / max(s[rank], 1e-300)) if rank < len(s) else float("inf")


def _draw(space: WeightSpace, channels: int, seed: int, count: int, kind: str) -> NumpyFeatures:
    rng = np.random.default_rng([seed, 7])
    return {t.name: rng.normal(size=(count, *t.shape, channels)).astype(kind) for t in space.tensors}


def _like(features: Any, rng: np.random.Generator) -> NumpyFeatures:
    return {k: rng.normal(size=x.shape) for k, x in features.items()}


def _map(value: Output, function: Callable[[np.ndarray], np.ndarray]) -> Output:
    return function(value) if isinstance(value, np.ndarray) else {k: function(x) for k, x in value.items()}


def _part(value: Output, i: int) -> Output:
    return _map(value, lambda x: x[i : i + 1])


def _arrays(value: Output) -> list[np.ndarray]:
    return [value] if isinstance(value, np.ndarray) else [value[k] for k in sorted(value)]


def _flat(value: Output) -> np.ndarray:
    return np.concatenate([x.ravel() for x in _arrays(value)])


def _dtypes(value: Output) -> set[str]:
    return {str(x.dtype) for x in _arrays(value)}


def _relative(came: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest expected entry; infinite where shapes differ or NaN came."""
    if came.shape != expected.shape or not np.all(np.isfinite(came)):
        return float("inf")
    scale = float(np.max(np.abs(expected), initial=0.0))
    return float(np.max(np.abs(came - expected), initial=0.0)) / (scale or 1.0)


def _error(name: str, came: np.ndarray, expected: np.ndarray, note: str = "") -> Measurement:
    error = _relative(came, expected)
    return Measurement(name, "passed" if error < TOLERANCE else "failed", error, TOLERANCE, note)
