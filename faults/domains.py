"""Which values an argument may have, by its annotation, and by its name where that says more."""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import numpy as np

from faults.outcomes import CampaignError
from nfn_core import ACTIVATIONS
from nfn_core.arrays import is_array
from nfn_core.checks import plain_int

__all__ = ["admits"]

NORMS = ("layer", "batch", "set", "instance")
STATISTICS = ("mean", "sum", "scaled_sum", "max", "std")
WORDS: dict[str, Collection[str]] = {
    "activation": ACTIVATIONS,
    "Activation.name": ACTIVATIONS,
    "norm": NORMS,
    "statistics": STATISTICS,
    "backend": ("numpy", "strict", "torch", "jax"),
    "device": ("cpu",),
}
"""The words that a text may be."""
RANGES: dict[str, Callable[[float], bool]] = {
    "seed": lambda x: x >= 0,
    **dict.fromkeys(("layer", "blocks", "shape"), lambda x: x >= 0),
    "channel": lambda x: x in (0, -1),
    "momentum": lambda x: 0 < x <= 1,
    "rate": lambda x: 0 <= x < 1,
    "dropout": lambda x: 0 <= x < 1,
    "head_dropout": lambda x: 0 <= x < 1,
    "factor": lambda x: x > 1,
    "initial": lambda x: True,
    "value": lambda x: True,
    "means": lambda x: True,
    "fill": lambda x: True,
    "activations": lambda x: True,
}
"""The numbers that a number may be; others are positive."""


def admits(annotation: Any, value: Any, where: str) -> bool:
    """Whether a value is one that an argument may have.

    Parameters
    ----------
    annotation : object
        The argument's type.
    value : object
        The value.
    where : str
        Name of the argument, ``CALLABLE.ARGUMENT``.

    Returns
    -------
    bool
        False if the value is of another type, or out of range.

    Raises
    ------
    CampaignError
        If the type is not known here.
    """
    name = where.rpartition(".")[2]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation in (None, NoneType):
        return value is None
    if annotation is bool:
        return isinstance(value, bool | np.bool_)
    if annotation is int:
        number = plain_int(value)
        return isinstance(number, int) and not isinstance(number, bool) and _in_range(name, number)
    if annotation is float:
        real = isinstance(value, Real) and not isinstance(value, bool | np.bool_)
        return real and bool(np.isfinite(float(value))) and _in_range(name, float(value))
    if annotation is str:
        words = WORDS.get(where, WORDS.get(name))
        return isinstance(value, str) and bool(value) and (words is None or value in words)
    if annotation is Path:
        return isinstance(value, Path)
    if annotation is Any or isinstance(annotation, TypeVar):
        raise CampaignError(f"{where} may be anything by its type: say in faults/named.py what it may be.")
    if origin is Literal:
        return isinstance(value, str) and value in arguments
    if origin in (Union, UnionType):
        return any(admits(a, value, where) for a in arguments)
    if isinstance(value, np.ndarray) and not isinstance(value, np.ma.MaskedArray) and value.ndim:
        value = list(value)  # an array of numbers serves as a sequence of them
    if origin is tuple and arguments[-1] is not ...:
        long = isinstance(value, tuple | list) and len(value) == len(arguments)
        return long and all(admits(a, v, where) for a, v in zip(arguments, value, strict=True))
    if inspect.isclass(origin) and issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(
            admits(arguments[0], k, where) and admits(arguments[1], v, where) for k, v in value.items()
        )
    if inspect.isclass(origin) and issubclass(origin, Callable):  # type: ignore[arg-type]
        return callable(value)
    if inspect.isclass(origin) and issubclass(origin, Iterable):
        fits = isinstance(value, Sequence if issubclass(origin, Sequence) else Iterable) and not isinstance(
            value, str | bytes
        )
        return (isinstance(value, Mapping) and not value) or (
            fits and all(admits(arguments[0], v, where) for v in value)
        )
    if getattr(annotation, "_is_protocol", False):
        return is_array(value)
    if inspect.isclass(annotation):
        return isinstance(value, annotation)
    raise CampaignError(f"{where} has the type {annotation!r}, which faults/domains.py does not know: add it.")


def _in_range(name: str, number: float) -> bool:
    return RANGES[name](number) if name in RANGES else number > 0
