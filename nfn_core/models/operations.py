"""What a front end's rules are registered in, and what they are given of an operation: one form for every front end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, TypeAlias

from nfn_core.models.rules import Rules, Value

__all__ = ["COMMON", "Call", "Registry", "Rule"]


@dataclass(frozen=True)
class Call:
    """One operation of a traced network.

    Parameters
    ----------
    shapes : sequence of tuple of int
        Shape of each result.
    params : mapping of str to object
        The ``"name"``; and the parameters of a JAX primitive, or of an ATen operation the ``"args"``, which are the nodes of
        its arguments, and ``"memory"``, the strides and offset of its first operand.
    literals : sequence of object
        For each operand of a JAX primitive its value where it is a literal, otherwise None.
    """

    shapes: Sequence[tuple[int, ...]]
    params: Mapping[str, Any] = field(default_factory=dict)
    literals: Sequence[Any] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the only result."""
        return self.shapes[0]


Rule: TypeAlias = Callable[..., list[Value]]
"""From the rules, the call, and the operation's operands (a `Value` for each tensor), to a value for each result."""


class Registry(dict[str, Rule]):
    """Rules of operations by name.

    Examples
    --------
    >>> RULES = Registry()
    >>> @RULES.register("clone", "detach")
    ... def _copy(r, call, x):
    ...     return x
    >>> sorted(RULES)
    ['clone', 'detach']
    """

    def register(self, *names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register a function under some names; the single value that it may return becomes a list.

        Parameters
        ----------
        *names : str
            Names of operations.

        Returns
        -------
        callable
            A decorator, which leaves the function as it is.
        """

        def register(rule: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(rule)
            def listed(*args: Any, **kwargs: Any) -> list[Value]:
                found = rule(*args, **kwargs)
                return found if isinstance(found, list) else [found]

            self.update(dict.fromkeys(names, listed))
            return rule

        return register


COMMON = Registry()
"""Rules of operations that PyTorch and JAX have under one name, with the same operands."""


@COMMON.register("mul")
def _mul(r: Rules, call: Call, x: Value | float, y: Value | float) -> Value:
    return r.multiply(x, y)


@COMMON.register("div")
def _div(r: Rules, call: Call, x: Value, y: Value | float) -> Value:
    return r.multiply(x, y, inverse=True)


@COMMON.register("neg")
def _neg(r: Rules, call: Call, x: Value) -> Value:
    return r.multiply(x, -1.0)


@COMMON.register("sin")
def _sin(r: Rules, call: Call, x: Value) -> Value:
    return r.activate("sin", x)


@COMMON.register("tanh")
def _tanh(r: Rules, call: Call, x: Value) -> Value:
    return r.activate("tanh", x)


@COMMON.register("eq", "ne")
def _equal(r: Rules, call: Call, x: Value | float, y: Value | float) -> Value:
    return r.same_number(x, y)
