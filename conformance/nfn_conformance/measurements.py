"""What checks and assertions measure with: outputs as flat vectors, relative errors, ranks, and the limits of a dtype."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from nfn_conformance.subject import Output

__all__ = [
    "Measurement",
    "TOLERANCE",
    "arrays",
    "compare",
    "dtypes",
    "flat",
    "map_arrays",
    "rank_and_gap",
    "relative_error",
    "require",
    "tolerance",
]

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
        Whether the figures are within their limits, or the subject does not provide what the check needs.
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


def arrays(value: Output) -> list[np.ndarray]:
    """Arrays of an output, in the order of their names."""
    return [value] if isinstance(value, np.ndarray) else [value[k] for k in sorted(value)]


def map_arrays(value: Output, function: Callable[[np.ndarray], np.ndarray]) -> Output:
    """Apply a function to every array of an output."""
    return function(value) if isinstance(value, np.ndarray) else {k: function(x) for k, x in value.items()}


def flat(value: Output) -> np.ndarray:
    """All entries of an output as one vector."""
    return np.concatenate([x.ravel() for x in arrays(value)])


def dtypes(value: Output) -> set[str]:
    """Names of the dtypes in an output."""
    return {str(x.dtype) for x in arrays(value)}


def tolerance(output: Output, inputs: int) -> float:
    """Largest relative error that passes: of float64 `TOLERANCE`, of narrower dtypes 64 eps √inputs.

    Parameters
    ----------
    output : mapping of str to numpy.ndarray, or numpy.ndarray
        The output, whose narrowest dtype counts.
    inputs : int
        Number of input entries of one member of the batch, over which a layer may sum.

    Returns
    -------
    float
        The limit.
    """
    eps = max((float(np.finfo(x.dtype).eps) for x in arrays(output) if x.dtype.kind == "f"), default=0.0)
    return TOLERANCE if eps <= np.finfo(np.float64).eps else max(TOLERANCE, 64 * eps * float(np.sqrt(inputs)))


def relative_error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, relative to the largest expected entry; infinite where shapes differ or a value is not finite."""
    if actual.shape != expected.shape or not np.all(np.isfinite(actual)) or not np.all(np.isfinite(expected)):
        return float("inf")
    scale = float(np.max(np.abs(expected), initial=0.0))
    return float(np.max(np.abs(actual - expected), initial=0.0)) / (scale or 1.0)


def compare(check: str, actual: np.ndarray, expected: np.ndarray, limit: float, note: str = "") -> Measurement:
    """Measurement of a relative error."""
    error = relative_error(actual, expected)
    return Measurement(check, "passed" if error < limit else "failed", error, limit, note)


def require(found: Measurement, name: str) -> Measurement:
    """Return a measurement of the layer of that name, or raise an AssertionError with its figures if it failed."""
    if found.status == "failed":
        raise AssertionError(f"{name} fails {found.check}: {found.value} (limit {found.limit}); {found.note}")
    return found


def rank_and_gap(rows: np.ndarray) -> tuple[int, float]:
    """Rank of a matrix, and the gap in its singular values there; (0, infinity) for zeros, (-1, 0) for NaN or infinity.

    A singular value counts above NumPy's relative threshold, max(shape) eps: times 1,000 for float64, and for float32,
    where it would hide small singular values, √max(shape) eps times 8, which is above the rounding of random entries.
    """
    if not np.all(np.isfinite(rows)):
        return -1, 0.0
    if not np.any(rows):
        return 0, float("inf")
    eps = np.finfo(rows.dtype).eps
    threshold = max(rows.shape) * eps * 1e3 if rows.dtype == np.float64 else np.sqrt(max(rows.shape)) * eps * 8
    s = np.linalg.svd(rows.astype(np.float64) / np.abs(rows).max(), compute_uv=False)
    rank = int(np.sum(s > s[0] * threshold))
    return rank, float(s[rank - 1] / max(s[rank], 1e-300)) if rank < len(s) else float("inf")
