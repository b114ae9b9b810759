"""Running a jaxpr in double precision throughout, whatever it casts to, and noting what its runs reach."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

from nfn_core.models.probes import Reached

__all__ = ["InDouble"]

DTYPES = ("dtype", "new_dtype", "preferred_element_type", "out_dtype")
"""Parameters of primitives that name the dtype of a result."""

TESTS = ("is_finite", "ne")
"""Primitives that check whether entries are numbers. A choice by them that is always the same is not reported."""


class InDouble:
    """A jaxpr as a function that computes in 64 bits; constants and casts of fewer bits are widened.

    Parameters
    ----------
    closed : jax.extend.core.ClosedJaxpr
        The jaxpr, traced in any precision.
    """

    def __init__(self, closed: Any) -> None:
        self.closed = closed
        self.names: list[str] = []
        self.compiled: Callable[..., Any] = jax.jit(self._evaluate)

    def __call__(self, operands: Sequence[Any], reached: Reached | None = None) -> list[np.ndarray]:
        """Results for operands, and record what the run reaches."""
        with jax.enable_x64(True):
            out, seen = self.compiled([jnp.asarray(x) for x in operands])
        for name, found in zip(self.names, seen, strict=True):
            if reached is None:
                break
            if not found:
                reached.unseen[name] = None
            elif name.startswith("max"):
                reached.alive(name, [np.asarray(x) for x in found])
            else:
                reached.choice(name, *(bool(x) for x in found))
        return [np.asarray(y) for y in out]

    def _evaluate(self, operands: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Results, and what was reached, in the order of `names`."""
        run = _Run()
        out = run.jaxpr(self.closed, operands, [False] * len(operands))
        self.names = list(run.seen)
        return out, list(run.seen.values())


class _Run:
    """One evaluation. For each choice, `seen` has whether either side was taken; for units, which were alive by axis."""

    def __init__(self) -> None:
        self.seen: dict[str, Any] = {}
        self.met: Counter[str] = Counter()

    def jaxpr(self, closed: Any, operands: Sequence[Any], constant: Sequence[bool]) -> list[Any]:
        """Results of a jaxpr."""
        jaxpr, consts = (closed.jaxpr, closed.consts) if isinstance(closed, ClosedJaxpr) else (closed, ())
        values = dict(zip(jaxpr.constvars, map(_wide, consts), strict=True))
        values.update(zip(jaxpr.invars, map(_wide, operands), strict=True))
        quiet = {*jaxpr.constvars, *(v for v, c in zip(jaxpr.invars, constant, strict=True) if c)}

        def read(v: Any) -> Any:
            return _wide(v.val) if isinstance(v, Literal) else values[v]

        for eqn in jaxpr.eqns:
            given = [read(v) for v in eqn.invars]
            still = [isinstance(v, Literal) or v in quiet for v in eqn.invars]
            out = self._equation(eqn, given, still)
            values.update(zip(eqn.outvars, map(_wide, out), strict=True))
            if all(still) or eqn.primitive.name in TESTS:
                quiet.update(eqn.outvars)
        return [read(v) for v in jaxpr.outvars]

    def _equation(self, eqn: Any, given: list[Any], still: list[bool]) -> Sequence[Any]:
        """Results of one equation."""
        name, params = eqn.primitive.name, eqn.params
        if name == "scan":
            return self._scan(params, given, still)
        if name == "while":
            return self._while(params, given)
        if name == "cond":
            return self._cond(params, given)
        inner = next((params[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if k in params), None)
        if inner is not None:
            return self.jaxpr(inner, given, still)
        params = {**params, **{key: _wide_dtype(params[key]) for key in DTYPES if params.get(key) is not None}}
        if params.get("update_jaxpr") is not None:  # how a scatter joins two entries
            params["update_jaxpr"], params["update_consts"] = _widened(params["update_jaxpr"], params["update_consts"])
        if name == "bitcast_convert_type":  # bits have a meaning in one precision only
            given = [x.astype(v.aval.dtype) for x, v in zip(given, eqn.invars, strict=True)]
            params = eqn.params
        if name == "reduce_precision":
            return given
        self._note(name, eqn, given, still)
        out = eqn.primitive.bind(*_alike(given, eqn.invars), **params)
        return out if eqn.primitive.multiple_results else [out]

    def _scan(self, params: Any, given: list[Any], still: list[bool]) -> list[Any]:
        """Loop over rows; what its steps reach is joined."""
        fixed, state = params["num_consts"], params["num_consts"] + params["num_carry"]

        def step(carry: Any, rows: Any) -> Any:
            inner = _Run()
            out = inner.jaxpr(params["jaxpr"], [*given[:fixed], *carry, *rows], [False] * len(still))
            names[:] = list(inner.seen)
            return out[: len(carry)], (out[len(carry) :], list(inner.seen.values()))

        names: list[str] = []
        after, (rows, seen) = jax.lax.scan(
            step, given[fixed:state], given[state:], length=params["length"], reverse=params["reverse"]
        )
        for name, found in zip(names, seen, strict=True):
            self._keep(name, [x.any(axis=0) for x in found])
        return [*after, *rows]

    def _while(self, params: Any, given: list[Any]) -> list[Any]:
        """Loop of which nothing is seen but the end."""
        first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]

        end: list[Any] = jax.lax.while_loop(
            lambda x: self._unwatched("a while loop", params["cond_jaxpr"], [*given[:first], *x])[0],
            lambda x: self._unwatched("a while loop", params["body_jaxpr"], [*given[first:second], *x]),
            given[second:],
        )
        return end

    def _unwatched(self, place: str, closed: Any, operands: Sequence[Any]) -> list[Any]:
        """Results of a jaxpr inside a primitive that hands out nothing of what it reaches."""
        inner = _Run()
        out = inner.jaxpr(closed, operands, [False] * len(operands))
        if inner.seen:
            self.seen[f"what is chosen inside {place} was not watched"] = []
        return out

    def _cond(self, params: Any, given: list[Any]) -> list[Any]:
        """Choice between branches; all have to be taken."""
        index, operands = given[0], given[1:]
        count = len(params["branches"])
        number = jnp.clip(index.astype("int32"), 0, count - 1)
        for k in range(count):
            self._keep(f"branch {k} of cond", [number == k, number != k])

        def branch(closed: Any) -> Callable[..., list[Any]]:
            return lambda *x: self._unwatched("a branch of cond", closed, x)

        out: list[Any] = jax.lax.switch(number, [branch(b) for b in params["branches"]], *operands)
        return out

    def _note(self, name: str, eqn: Any, given: list[Any], still: list[bool]) -> None:
        """Record what an operation chooses."""
        inside = str(eqn.source_info.name_stack)
        if name == "select_n" and not still[0] and jnp.issubdtype(given[1].dtype, jnp.inexact):
            picked = given[0].astype(bool)
            self._keep(f"select_n in {inside!r}" if inside else name, [picked.any(), ~picked.all()])
        zero = [isinstance(v, Literal) and np.ndim(v.val) == 0 and v.val == 0 for v in eqn.invars]
        if name == "max" and any(zero):
            x = given[zero.index(False)] > 0
            axes = [tuple(b for b in range(x.ndim) if b != a) for a in range(x.ndim)]
            self._keep(f"max in {inside!r}" if inside else name, [x.any(axis=rest) for rest in axes])

    def _keep(self, name: str, found: list[Any]) -> None:
        """Keep what was reached under a name of its own."""
        self.met[name] += 1
        self.seen[f"{name} (call {self.met[name]})" if self.met[name] > 1 else name] = found


def _wide_dtype(dtype: Any) -> Any:
    """Floating dtype of 64 bits in place of one of fewer."""
    if jnp.issubdtype(dtype, jax.dtypes.extended):
        return dtype
    if jnp.issubdtype(dtype, jnp.complexfloating):
        return np.dtype("complex128")
    return np.dtype("float64") if jnp.issubdtype(dtype, jnp.floating) else dtype


def _wide(x: Any) -> Any:
    """An array in 64 bits if it is of floating numbers."""
    x = jnp.asarray(x)
    dtype = _wide_dtype(x.dtype)
    return x if dtype == x.dtype else x.astype(dtype)


def _widened(jaxpr: Any, consts: Sequence[Any]) -> tuple[Any, tuple[Any, ...]]:
    """A jaxpr of scalars, traced in 64 bits, and its constants."""
    operands = [jnp.zeros(v.aval.shape, _wide_dtype(v.aval.dtype)) for v in jaxpr.invars]
    closed = jax.make_jaxpr(lambda *x: _Run().jaxpr(ClosedJaxpr(jaxpr, consts), x, [False] * len(x)))(*operands)
    return closed.jaxpr, tuple(closed.consts)


def _alike(given: list[Any], variables: Sequence[Any]) -> list[Any]:
    """Operands, of which integers keep the dtypes that they were traced with."""
    return [
        x.astype(v.aval.dtype) if jnp.issubdtype(v.aval.dtype, jnp.integer) and x.dtype != v.aval.dtype else x
        for x, v in zip(given, variables, strict=True)
    ]
