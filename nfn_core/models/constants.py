"""Constants of a computation: what labels take from their entries, and whether another model has the same ones."""

from hashlib import sha256
from typing import Any, TypeAlias

import numpy as np

__all__ = ["Record", "changed", "moved", "record", "varying"]

Record: TypeAlias = tuple[str, str, tuple[int, ...]]
"""A constant's name, the dtype and digest of its entries, and the axes along which they are all alike."""


def varying(x: np.ndarray) -> list[bool]:
    """For each axis of an array whether its entries differ along it."""
    return [bool((x != x.take([0], axis=a)).any()) if n else False for a, n in enumerate(x.shape)]


def record(name: str, x: np.ndarray) -> Record:
    """What is kept of a constant."""
    return name, _entries(x), tuple(a for a, varies in enumerate(varying(x)) if not varies)


def moved(known: Record, x: Any) -> list[int]:
    """Axes along which a constant's entries were alike, but are not in an array: the labels may permute it."""
    varies = varying(np.asarray(x))
    return [a for a in known[2] if a >= len(varies) or varies[a]]


def changed(known: Record, x: Any) -> bool:
    """Whether an array of the recorded dtype has other entries."""
    found = np.asarray(x)
    return known[1].startswith(f"{found.dtype}:") and known[1] != _entries(found)


def _entries(x: np.ndarray) -> str:
    """Dtype and digest of an array's shape and entries."""
    return f"{x.dtype}:{sha256(repr(x.shape).encode() + x.tobytes()).hexdigest()[:16]}"
