"""Checks of arguments. Each names the argument, says what came, and returns or stores the argument in its plain form."""

import operator
from collections.abc import Callable, Iterable, Mapping, Set
from math import inf
from numbers import Real
from typing import Any, get_args

from nfn_core.errors import SpecError

__all__ = [
    "boolean",
    "check_choice",
    "check_counts",
    "check_flags",
    "check_kind",
    "check_numbers",
    "check_sizes",
    "natural_int",
    "plain_int",
    "plain_names",
    "plain_tuple",
    "positive_int",
    "positive_ints",
    "real_number",
    "shown",
]

RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "finite": ("a finite number", lambda x: -inf < x < inf),
    "positive": ("a positive finite number", lambda x: 0 < x < inf),
    "[0, 1)": ("a number in [0, 1)", lambda x: 0 <= x < 1),
    "(0, 1]": ("a number in (0, 1]", lambda x: 0 < x <= 1),
}
"""Ranges of real numbers: their words in messages, and whether a number is in them. NaN is in none."""

MAKERS = {
    "Group": "make it with space.group('NP')",
    "WeightSpace": "make it with WeightSpace.mlp, cnn or from_axes",
    "ModelSpace": "make it with weight_space or ModelSpace.from_patterns",
    "Layer": "give a layer description, such as Activation('relu')",
}
"""What makes an object of a class, for messages."""


def shown(value: Any) -> str:
    """Return a value as messages show it: its `repr`, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


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
    return _integer(name, value, 1, "a positive integer")


def positive_ints(name: str, values: Any) -> tuple[int, ...]:
    """Check a sequence of counts, and return it as a tuple of plain integers.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    values : sequence of int
        The counts.

    Returns
    -------
    tuple of int
        The counts.

    Raises
    ------
    SpecError
        If it is no sequence, or holds what is not a positive integer.
    """
    return tuple(positive_int(f"{name}[{i}]", n) for i, n in enumerate(plain_tuple(name, values)))


def natural_int(name: str, value: Any) -> int:
    """Check a number that may be 0, and return it as a plain integer.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    value : int
        As for `positive_int`.

    Returns
    -------
    int
        The number.

    Raises
    ------
    SpecError
        If it is not a non-negative integer.
    """
    return _integer(name, value, 0, "a non-negative integer")


def _integer(name: str, value: Any, least: int, words: str) -> int:
    """An integer that is not too small, as a plain one."""
    number = plain_int(value)
    if isinstance(number, bool) or not isinstance(number, int) or number < least:
        raise SpecError(f"{name} must be {words}, not {shown(value)}.")
    return number


def plain_int(value: Any) -> Any:
    """Return an integer of any type as a plain one, and what is no integer, or is a boolean, as it is."""
    try:
        return value if type(value).__name__ == "bool" else operator.index(value)  # NumPy 2.0 takes its own for 0 or 1
    except (TypeError, RuntimeError):  # an array on PyTorch's meta device has no value
        return value


def real_number(name: str, value: Any, within: str = "finite") -> float:
    """Check a real number, and return it as a plain one.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    value : float
        A real number of any type, but no boolean.
    within : {"finite", "positive", "[0, 1)", "(0, 1]"}
        Where it must be.

    Returns
    -------
    float
        The number; an integer as it is.

    Raises
    ------
    SpecError
        If it is no number, NaN, or out of range.
    """
    number, (words, contains) = plain_int(value), RANGES[within]
    if not isinstance(number, Real) or isinstance(number, bool) or not contains(number):
        raise SpecError(f"{name} must be {words}, not {shown(value)}.")
    return number if isinstance(number, int) else float(number)


def boolean(name: str, value: Any) -> bool:
    """Check a choice of yes or no, and return it as a plain one.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    value : bool
        True or False, of Python or NumPy.

    Returns
    -------
    bool
        The choice.

    Raises
    ------
    SpecError
        If it is neither.
    """
    if type(value).__name__ != "bool":
        raise SpecError(f"{name} must be True or False, not {shown(value)}.")
    return bool(value)


def plain_tuple(name: str, values: Any) -> tuple[Any, ...]:
    """Check a sequence, and return it as a tuple.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    values : iterable
        Any iterable whose order is certain: no string, set or mapping.

    Returns
    -------
    tuple
        The values.

    Raises
    ------
    SpecError
        If it is no sequence.
    """
    if isinstance(values, tuple):
        return values
    try:
        if isinstance(values, str | bytes | Set | Mapping) or not isinstance(values, Iterable):
            raise TypeError
        return tuple(values)
    except TypeError:  # an array of no axes only looks iterable
        raise SpecError(f"{name} must be a sequence, not {shown(values)}.") from None


def plain_names(name: str, values: Any) -> tuple[str, ...]:
    """Check names of neuron sets, and return them as a tuple.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    values : iterable of str
        The names, in any collection; one string is not a collection of names.

    Returns
    -------
    tuple of str
        The names.

    Raises
    ------
    SpecError
        If it is no collection of strings.
    """
    found = tuple(values) if isinstance(values, Set) else plain_tuple(name, values)
    for value in found:
        if not isinstance(value, str):
            raise SpecError(f"{name} must hold names of neuron sets, not {shown(value)}.")
    return found


def check_kind(name: str, value: Any, kind: Any) -> None:
    """Check the class of an argument.

    Parameters
    ----------
    name : str
        Name of the argument, for the message.
    value : object
        The value given.
    kind : type or union of types
        The class, or ``WeightSpace | None``.

    Raises
    ------
    SpecError
        If it is of another class.
    """
    if not isinstance(value, kind):
        wanted = ["None" if k is type(None) else k.__name__ for k in get_args(kind) or (kind,)]
        hint = f": {MAKERS[wanted[0]]}" if wanted[0] in MAKERS else ""
        raise SpecError(f"{name} must be a {' or '.join(wanted)}, not {shown(value)}{hint}.")


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
        raise SpecError(f"{name} must be one of {', '.join(map(repr, choices))}, not {shown(value)}.")


def check_counts(description: Any, *names: str) -> None:
    """Check counts of a frozen description, and store them as plain integers.

    Parameters
    ----------
    description : object
        A frozen dataclass, in its ``__post_init__``.
    *names : str
        Fields that hold a count.

    Raises
    ------
    SpecError
        If one is not a positive integer.
    """
    _store(description, names, positive_int)


def check_sizes(description: Any, *names: str) -> None:
    """Check sequences of counts of a frozen description, and store them as tuples of plain integers.

    Parameters
    ----------
    description : object
        A frozen dataclass, in its ``__post_init__``.
    *names : str
        Fields that hold a sequence of counts.

    Raises
    ------
    SpecError
        If one is no sequence, or holds what is not a positive integer.
    """
    _store(description, names, positive_ints)


def check_numbers(description: Any, within: str, *names: str) -> None:
    """Check real numbers of a frozen description, and store them as plain ones.

    Parameters
    ----------
    description : object
        A frozen dataclass, in its ``__post_init__``.
    within : str
        Where they must be, as for `real_number`.
    *names : str
        Fields that hold a number.

    Raises
    ------
    SpecError
        If one is no number, or out of range.
    """
    _store(description, names, lambda name, value: real_number(name, value, within))


def check_flags(description: Any, *names: str) -> None:
    """Check choices of yes or no of a frozen description, and store them as plain ones.

    Parameters
    ----------
    description : object
        A frozen dataclass, in its ``__post_init__``.
    *names : str
        Fields that hold True or False.

    Raises
    ------
    SpecError
        If one is neither.
    """
    _store(description, names, boolean)


def _store(description: Any, names: Iterable[str], check: Callable[[str, Any], Any]) -> None:
    """Store what a check returns in each of some fields of a frozen description."""
    for name in names:
        object.__setattr__(description, name, check(name, getattr(description, name)))
