"""Checks of constructor arguments that are counts or choices."""

import operator
from typing import Any

from nfn_core.errors import SpecError

__all__ = ["check_choice", "check_counts", "plain_int", "positive_int"]


def positive_int(name: str, value: Any) -> int:
    """Check a count, and return it as a plain integer.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    value : int
        Anything that `operator.index` takes (``np.int64(3)``, an integer array of no axes), but no boolean.

    Returns
    -------
    int
        The count.

    Raises
    ------
    SpecError
        If it is not a positive integer.
    """
    number = plain_int(value)
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise SpecError(f"{name} must be a positive integer, not {value!r}.")
    return number


def plain_int(value: Any) -> Any:
    """Return an integer of any type as a plain one, and what is no integer, or is a boolean, as it is."""
    try:
        return value if type(value).__name__ == "bool" else operator.index(value)  # NumPy 2.0 takes its own for 0 or 1
    except TypeError:
        return value


def check_counts(description: Any, *names: str) -> None:
    """Check counts of a frozen description, and store them as plain integers.

    Parameters
    ----------
    description : object
        A frozen dataclass, in its ``__post_init__``.
    *names : str
        Fields that hold a count, or a sequence of counts, which becomes a tuple.

    Raises
    ------
    SpecError
        If a count is not a positive integer.
    """
    for name in names:
        value = getattr(description, name)
        if isinstance(value, tuple | list):
            counts: Any = tuple(positive_int(f"{name}[{i}]", n) for i, n in enumerate(value))
        else:
            counts = positive_int(name, value)
        object.__setattr__(description, name, counts)


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Check that an argument is one of several choices.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    value : object
        The value given.
    choices : tuple of str
        The valid values.

    Raises
    ------
    SpecError
        If it is none of them.
    """
    if not isinstance(value, str) or value not in choices:
        raise SpecError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}.")
