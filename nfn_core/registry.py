"""Classes that descriptions may hold, by the name that JSON has for them."""

from typing import TypeVar

__all__ = ["DESCRIPTIONS", "describable", "name_of"]

DESCRIPTIONS: dict[str, type] = {}
"""Frozen dataclasses by name. A layer class is entered when it is defined, other classes by `describable`."""

Class = TypeVar("Class", bound=type)


def name_of(cls: type) -> str:
    """Return the name of a class in JSON: with its module, if it is not of nfn_core."""
    return cls.__name__ if cls.__module__.partition(".")[0] == "nfn_core" else f"{cls.__module__}:{cls.__qualname__}"


def describable(cls: Class) -> Class:
    """Enter a class, as a decorator."""
    DESCRIPTIONS[name_of(cls)] = cls
    return cls
