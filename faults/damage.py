"""Ways to damage a file, each drawn from a seeded generator."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["DAMAGES", "same_form"]

Damage = Callable[[Path, bytes, np.random.Generator, Mapping[Path, bytes]], str]
"""Damages a file, given what it holds and what its neighbors hold; returns in words what it did."""


def flip_bits(path: Path, whole: bytes, rng: np.random.Generator, others: Mapping[Path, bytes]) -> str:
    """Flip one to three bits."""
    places = rng.integers(8 * len(whole), size=rng.integers(1, 4)).tolist()
    data = bytearray(whole)
    for place in places:
        data[place // 8] ^= 1 << place % 8
    path.write_bytes(data)
    return f"bits {places} flipped"


def truncate(path: Path, whole: bytes, rng: np.random.Generator, others: Mapping[Path, bytes]) -> str:
    """Cut the end off."""
    length = int(rng.integers(1, len(whole)))
    path.write_bytes(whole[:length])
    return f"cut to {length} of {len(whole)} bytes"


def swap_blocks(path: Path, whole: bytes, rng: np.random.Generator, others: Mapping[Path, bytes]) -> str:
    """Swap two blocks of the same length."""
    size = int(rng.integers(1, max(2, len(whole) // 4)))
    first, second = sorted(rng.integers(len(whole) - size + 1, size=2).tolist())
    second = max(second, first + size)
    data = bytearray(whole)
    size = min(size, len(whole) - second)
    data[first : first + size], data[second : second + size] = data[second : second + size], data[first : first + size]
    path.write_bytes(data)
    return f"bytes {first} and {second} on swapped, {size} each"


def zero_block(path: Path, whole: bytes, rng: np.random.Generator, others: Mapping[Path, bytes]) -> str:
    """Fill a block with zeros."""
    start = int(rng.integers(len(whole)))
    size = int(rng.integers(1, len(whole) // 2 + 2))
    path.write_bytes((whole[:start] + bytes(size) + whole[start + size :])[: len(whole)])
    return f"bytes {start} to {start + size} zero"


def append(path: Path, whole: bytes, rng: np.random.Generator, others: Mapping[Path, bytes]) -> str:
    """Append random bytes."""
    more = rng.bytes(int(rng.integers(1, 100)))
    path.write_bytes(whole + more)
    return f"{more!r} appended"


def replace(path: Path, whole: bytes, rng: np.random.Generator, others: Mapping[Path, bytes]) -> str:
    """Copy another file over it."""
    names = sorted(other for other in others if other != path)
    if not names:
        return append(path, whole, rng, others)
    chosen = names[rng.integers(len(names))]
    path.write_bytes(others[chosen])
    return f"replaced by {chosen.name}"


def empty(path: Path, whole: bytes, rng: np.random.Generator, others: Mapping[Path, bytes]) -> str:
    """Leave nothing in it."""
    path.write_bytes(b"")
    return "empty"


def delete(path: Path, whole: bytes, rng: np.random.Generator, others: Mapping[Path, bytes]) -> str:
    """Delete it."""
    path.unlink()
    return "deleted"


def make_folder(path: Path, whole: bytes, rng: np.random.Generator, others: Mapping[Path, bytes]) -> str:
    """Put a folder in its place."""
    path.unlink()
    path.mkdir()
    return "a folder"


VALUES: list[Any] = [None, "x", -1, 0, 10**9, 2.5, True, [], {}, [1], {"a": 1}, "0", ""]


def change_json(path: Path, whole: bytes, rng: np.random.Generator, others: Mapping[Path, bytes]) -> str:
    """Change, or take out, one value in JSON; of other files bits."""
    try:
        value = json.loads(whole)
    except ValueError:
        return flip_bits(path, whole, rng, others)
    places = list(_places(value))
    holder, key, where = places[rng.integers(len(places))]
    if isinstance(holder, dict) and rng.random() < 0.25:
        del holder[key]
        new = "taken out"
    else:
        holder[key] = VALUES[rng.integers(len(VALUES))]
        new = f"= {holder[key]!r}"
    path.write_text(json.dumps(value))
    return f"{where} {new}"


def _places(value: Any, where: str = "") -> Iterator[tuple[Any, Any, str]]:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key, f"{where}[{key!r}]"
        if isinstance(inner, dict | list):
            yield from _places(inner, f"{where}[{key!r}]")


DAMAGES: tuple[Damage, ...] = (
    *(flip_bits, truncate, swap_blocks, change_json, zero_block, append, replace),
    *(empty, delete, make_folder),
)
"""All of them."""


def same_form(first: bytes, second: bytes) -> bool:
    """Whether two files hold JSON, and the same but for what texts, or numbers of a type, say."""
    try:
        return bool(_form(json.loads(first)) == _form(json.loads(second)))
    except ValueError:
        return False


def _form(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _form(inner) for key, inner in value.items()}
    return [_form(inner) for inner in value] if isinstance(value, list) else type(value)
