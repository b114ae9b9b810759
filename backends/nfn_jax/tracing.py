"""Walking a function's jaxpr: every primitive is turned into axes by its rule, loops and calls are walked inside."""

import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from nfn_core.errors import LabelError
from nfn_core.models.labeling import Labeling
from nfn_core.models.operations import Call
from nfn_core.models.rules import Value
from nfn_jax.operations import OPERATIONS, looks_up

__all__ = ["CONTROL", "walk"]

CONTROL = (
    "scan",
    "while",
    "cond",
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "custom_jvp_call",
    "custom_vjp_call",
    "checkpoint",
    "remat2",
    "custom_vjp_call_jaxpr",
)
"""Primitives that hold a jaxpr of their own, which is walked."""


def walk(
    labeling: Labeling,
    function: Callable[..., Any],
    tensors: Mapping[str, Any],
    inputs: Sequence[Any],
    others: Mapping[str, Any],
) -> ClosedJaxpr:
    """Walk a function's computation and record its constraints on axes in a labeling.

    Parameters
    ----------
    labeling : Labeling
        The labeling, which holds the tensors.
    function : callable
        From a list of tensors and a list of inputs to outputs.
    tensors : mapping of str to array
        Tensors by name; those that are not the labeling's are held fixed.
    inputs : sequence of array
        Example inputs.
    others : mapping of str to array
        Arrays that the model holds beside its tensors.

    Returns
    -------
    jax.extend.core.ClosedJaxpr
        The computation.

    Raises
    ------
    LabelError
        If the function cannot be traced, or a primitive has no rule and no explicit label.
    """
    try:
        closed = jax.make_jaxpr(function)(list(tensors.values()), list(inputs))
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise LabelError(
            f"the function cannot be traced{_place(error)}: {type(error).__name__}: {reason} Control flow that depends on "
            "data and code that leaves arrays have no jaxpr: label every tensor, input and output explicitly instead."
        ) from error
    read = {id(v) for eqn in closed.jaxpr.eqns for v in eqn.invars} | {id(v) for v in closed.jaxpr.outvars}
    labeling.used.update(n for n, v in zip(tensors, closed.jaxpr.invars, strict=False) if id(v) in read)
    own = [labeling.tensors.get(name) or labeling.held(x.shape) for name, x in tensors.items()]
    given = [labeling.input(x.shape, jnp.issubdtype(x.dtype, jnp.integer)) for x in inputs]
    walker = _Walker(labeling, others)
    for value in walker.walk(closed, [*own, *given]):
        labeling.output(value)
    return closed


class _Walker:
    """Walks jaxprs, with a count of each primitive met."""

    def __init__(self, labeling: Labeling, others: Mapping[str, Any]) -> None:
        self.labeling, self.rules = labeling, labeling.rules
        self.others = {name: np.asarray(x) for name, x in others.items()}
        self.met: Counter[str] = Counter()

    def walk(self, closed: Any, operands: Sequence[Value]) -> list[Value]:
        """Values of a jaxpr's results."""
        jaxpr, consts = (closed.jaxpr, closed.consts) if isinstance(closed, ClosedJaxpr) else (closed, ())
        values = dict(zip(jaxpr.constvars, map(self._constant, consts), strict=True))
        values.update(zip(jaxpr.invars, operands, strict=True))

        def read(v: Any) -> Value:
            return self._constant(v.val) if isinstance(v, Literal) else values[v]

        for eqn in jaxpr.eqns:
            values.update(zip(eqn.outvars, self._equation(eqn, [read(v) for v in eqn.invars]), strict=True))
        return [read(v) for v in jaxpr.outvars]

    def _equation(self, eqn: Any, operands: list[Value]) -> list[Value]:
        """Values of one equation's results."""
        name = eqn.primitive.name
        if name in CONTROL:
            with self.rules.at(f"primitive {name}"):
                return self._control(name, eqn.params, operands)
        key = f"{name}[{self.met[name]}]"
        self.met[name] += 1
        shapes = [tuple(v.aval.shape) for v in eqn.outvars]
        keys = [key] if len(shapes) == 1 else [f"{key}[{k}]" for k in range(len(shapes))]
        inside = str(eqn.source_info.name_stack)
        call = Call(
            shapes, {**eqn.params, "name": name}, [v.val if isinstance(v, Literal) else None for v in eqn.invars]
        )
        rule = OPERATIONS.get(name)
        return self.labeling.apply(
            f"primitive {key}" + (f" in {inside!r}" if inside else ""),
            keys,
            shapes,
            operands,
            (lambda: rule(self.rules, call, *operands)) if rule else None,
            looks_up(name, call),
        )

    def _control(self, name: str, params: Any, operands: list[Value]) -> list[Value]:
        """Values of the results of a loop, a choice or a call."""
        if name == "scan":
            fixed, state = params["num_consts"], params["num_consts"] + params["num_carry"]
            before = [replace(x, constant=False, number=None, zero=False) for x in operands[fixed:state]]
            rows = []
            for x in operands[state:]:
                with self.rules.at("the steps of a scan"):
                    self.rules.fix(x.axes[0])
                rows.append(replace(x, axes=x.axes[1:]))
            out = self.walk(params["jaxpr"], [*operands[:fixed], *before, *rows])
            after, steps = out[: len(before)], out[len(before) :]
            self._same(before, after)
            with self.rules.at("the steps of a scan"):
                return [*before, *(Value((self.rules.fixed(params["length"]), *y.axes)) for y in steps)]
        if name == "while":
            first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
            before = [replace(x, constant=False, number=None, zero=False) for x in operands[second:]]
            self.walk(params["cond_jaxpr"], [*operands[:first], *before])
            self._same(before, self.walk(params["body_jaxpr"], [*operands[first:second], *before]))
            return before
        if name == "cond":
            results = [self.walk(branch, operands[1:]) for branch in params["branches"]]
            for other in results[1:]:
                self._same(results[0], other)
            return [replace(x, constant=False, number=None, zero=False) for x in results[0]]
        inner = next(params[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if k in params)
        return self.walk(inner, operands)

    def _same(self, one: Sequence[Value], other: Sequence[Value]) -> None:
        """Make values equal in all axes."""
        for x, y in zip(one, other, strict=True):
            self.rules.equal(x, y)

    def _constant(self, x: Any) -> Value:
        """Value of an array that is no part of the weight space."""
        if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.extended):  # keys of random numbers
            return self.rules.constant(x.shape, [True] * x.ndim)
        x = np.asarray(x)
        same = (n for n, y in self.others.items() if y.dtype == x.dtype and np.array_equal(x, y))
        return self.labeling.constant(x, next(same, None))


def _place(error: Exception) -> str:
    """Line of the user's code where tracing stopped."""
    ours = (str(Path(jax.__file__).parent), str(Path(__file__).parent))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(ours)]
    return f" in {frames[-1].name}, {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
