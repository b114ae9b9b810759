"""Classes that descriptions may hold, by the name that JSON has for them."""

from collections.abc import Mapping
from dataclasses import Field
from typing import Any, TypeVar

__all__ = ["DESCRIPTIONS", "LATER", "describable", "left_out", "name_of"]

DESCRIPTIONS: dict[str, type] = {}
"""Frozen dataclasses by name. A layer class is entered when it is defined, other classes by `describable`."""

LATER: Mapping[str, Any] = {"later": True}
"""Metadata of a field that came after its class. JSON leaves it out where it is at its default, so that texts and
fingerprints that were written before stay as they are."""

Class = TypeVar("Class", bound=type)


def name_of(cls: type) -> str:
    """Return the name of a class in JSON: with its module, if it is not of nfn_core."""
    return cls.__name__ if cls.__module__.partition(".")[0] == "nfn_core" else f"{cls.__module__}:{cls.__qualname__}"


def describable(cls: Class) -> Class:
    """Enter a class, as a decorator."""
    DESCRIPTIONS[name_of(cls)] = cls
    return cls


def left_out(described: Field[Any], value: Any) -> bool:
    """Whether JSON leaves out a field of that value."""
    return "later" in described.metadata and bool(value == described.default)
