"""Calls with one bad argument, generated from signatures: what a campaign of bad input is made of."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import pytest

from nfn_core import NFNError

__all__ = ["BAD_VALUES", "Call", "bad_calls", "check_calls"]

BAD_VALUES: Mapping[str, Any] = {
    "None": None,
    "text": "x",
    "-1": -1,
    "nan": float("nan"),
    "[]": [],
    "{}": {},
    "object": object(),
    "3.5": 3.5,
    "True": True,
}
"""Values that few arguments take, by the name that tests show."""


class Call(NamedTuple):
    """A call with one bad argument.

    Parameters
    ----------
    argument : str
        Name of the argument.
    value : str
        Name of the value, of `BAD_VALUES`.
    run : callable
        The call.
    """

    argument: str
    value: str
    run: Callable[[], Any]


def bad_calls(
    function: Callable[..., Any], example: Mapping[str, Any], values: Mapping[str, Any] = BAD_VALUES
) -> Iterator[Call]:
    """Calls of a function with each bad value for each argument, the others as in an example of a valid call.

    Parameters
    ----------
    function : callable
        A function, class or bound method. Arguments that collect others (``**options``) stay as they are.
    example : mapping of str to object
        Arguments by name of a call that works; those with defaults may be left out.
    values : mapping of str to object
        Bad values by name.

    Yields
    ------
    Call
        A call for each argument and value.
    """
    for argument, parameter in inspect.signature(function).parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        for label, value in values.items():
            yield Call(argument, label, lambda argument=argument, value=value: function(**{**example, argument: value}))


def check_calls(
    case: str,
    function: Callable[..., Any],
    example: Mapping[str, Any],
    accepted: Mapping[str, Any],
    subjects: Mapping[str, str],
) -> None:
    """See that each bad value is refused by an error that names the argument, or its subject, unless it is accepted."""
    function(**example)
    for call in bad_calls(function, example):
        where = f"{case}.{call.argument}"
        if where in accepted[call.value]:
            call.run()
            continue
        with pytest.raises(NFNError) as refused:
            call.run()
        names = (call.argument, subjects.get(call.argument, call.argument))
        assert any(name in str(refused.value) for name in names), f"{where}, {call.value}: {refused.value}"
