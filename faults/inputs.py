"""Bad inputs over every public callable: each argument in turn is replaced by what it may not be.

Callables and their arguments are found by `inspect`, so a new one is tried without being named. One for which
`faults.examples` has no valid value stops the campaign.
"""

import inspect
import tempfile
import typing
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import chdir
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from tqdm import tqdm

import nfn_core
from faults.domains import admits
from faults.examples import ALIASES, DOCUMENTED, EXAMPLES, MODULES, NOT_TRIED, ORDERED, USES, Of, stored
from faults.named import ADMITS
from faults.outcomes import CampaignError, Case, judge
from nfn_core.arrays import is_array

__all__ = ["Target", "campaign", "targets", "trials"]


@dataclass(frozen=True)
class Target:
    """A public callable with a valid value of every argument.

    Parameters
    ----------
    module, name : str
        Where it is, and what it is called: ``WeightSpace.mlp``.
    call : callable
        The callable.
    arguments : dict of str to object
        A valid value of every argument.
    types : dict of str to object
        The argument's annotations.
    spread : str
        Name of an argument that stands for positional ones, ``*channels``; empty if there is none.
    """

    module: str
    name: str
    call: Callable[..., Any]
    arguments: dict[str, Any]
    types: dict[str, Any]
    spread: str = ""

    def run(self, changed: Mapping[str, Any]) -> Any:
        """Call it, with some arguments changed, and do what its result is for."""
        arguments, positional = {**self.arguments, **changed}, []
        if self.spread:
            names = list(arguments)
            front = names[: names.index(self.spread)]
            positional = [arguments.pop(name) for name in [*front, self.spread]]
        use = USES.get(self.name, stored)
        return use(self.call(*positional, **arguments))


def targets() -> Iterator[Target]:
    """Every public callable, and every method of every public class.

    Yields
    ------
    Target
        With examples.

    Raises
    ------
    CampaignError
        If there is no example of an argument.
    """
    seen: set[Any] = set()
    for module in MODULES:
        for name in module.__all__:
            found = getattr(module, name)
            if (
                name in NOT_TRIED
                or not callable(found)
                or (isinstance(found, type) and issubclass(found, BaseException))
            ):
                continue
            if not (inspect.isclass(found) or hasattr(found, "__wrapped__") or inspect.isfunction(found)):
                continue  # a type alias
            if not inspect.isclass(found):
                yield target(module.__name__, name, found)
                continue
            made = _instance(module.__name__, name, found)
            if is_dataclass(found) or found.__init__ is not dict.__init__:
                yield target(module.__name__, name, found)
            for method, call in _methods(found, made):
                where = f"{name}.{method}"
                function = getattr(call, "__func__", call)
                if {where, f"*.{method}"} & NOT_TRIED.keys() and where != "NFModule.forward":
                    continue
                if function in seen and method != "apply":
                    continue
                seen.add(function)
                if inspect.signature(call).parameters:
                    yield target(module.__name__, where, call, made)


def target(module: str, name: str, call: Callable[..., Any], instance: Any = None) -> Target:
    """Describe a callable, with an example of each of its arguments."""
    function = inspect.unwrap(call.__init__ if inspect.isclass(call) else call)
    types = typing.get_type_hints(getattr(function, "__func__", function), localns=vars(nfn_core))
    arguments, spread = {}, ""
    for argument in inspect.signature(call).parameters.values():
        if argument.kind is argument.VAR_KEYWORD:
            continue
        if argument.kind is argument.VAR_POSITIONAL:
            spread = argument.name
        names = (f"{module}.{name}", name, name.rpartition(".")[2])
        keys = [f"{x}.{argument.name}" for x in names]
        key = next((key for key in keys if key in EXAMPLES), None)
        if key is None and argument.default is argument.empty:
            key = argument.name if argument.name in EXAMPLES else None
            if key is None:
                raise CampaignError(
                    f"{module}.{name}: no valid example of {argument.name!r}: add it to faults/examples.py."
                )
        if key is not None:
            value = EXAMPLES[key]
            arguments[argument.name] = value.make(instance) if isinstance(value, Of) else value
        else:
            arguments[argument.name] = _default(argument.default)
    return Target(module, name, call, arguments, types, spread)


def _default(value: Any) -> Any:
    return {} if type(value).__name__ == "_HAS_DEFAULT_FACTORY_CLASS" else value


def _instance(module: str, name: str, cls: type) -> Any:
    if issubclass(cls, dict):
        return cls(EXAMPLES["NFModule.forward.features"])
    made = target(module, name, cls)
    try:
        return made.call(**made.arguments)
    except Exception as error:
        raise CampaignError(f"{module}.{name}: the examples in faults/examples.py make none: {error!r}") from error


def _methods(cls: type, instance: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Public methods that are defined in the project."""
    for name in dir(cls):
        owner = next(c for c in cls.__mro__ if name in vars(c))
        own = owner.__module__.partition(".")[0] in {module.__name__ for module in MODULES}
        if name.startswith("_") or not own or name in getattr(cls, "__dataclass_fields__", {}):
            continue
        static = inspect.getattr_static(cls, name)
        if isinstance(static, classmethod | staticmethod) or inspect.isfunction(static):
            yield name, getattr(instance, name)


SCALARS: dict[str, Any] = {
    "None": None,
    "'x'": "x",
    "b'x'": b"x",
    "-1": -1,
    "0": 0,
    "nan": float("nan"),
    "inf": float("inf"),
    "3.5": 3.5,
    "True": True,
    "[]": [],
    "{}": {},
    "object()": object(),
    "[[1, [2]]]": [[1, [2]]],
    "np.ones((2, 3))": np.ones((2, 3)),
    "np.ones(2, int)": np.ones(2, int),
    "np.array(['a'])": np.array(["a"]),
    "np.ones((2, 3), object)": np.ones((2, 3), object),
    "scipy.sparse.eye(2)": scipy.sparse.eye(2, format="csr"),
    "masked array": np.ma.masked_array(np.ones((2, 3)), np.eye(2, 3) > 0),
}


def bad_values(value: Any, depth: int = 2) -> Iterator[tuple[str, Any, Any]]:
    """Yield what a value may be replaced by: its name, the new value, and the part of it that is new."""
    if is_array(value):
        yield from _bad_arrays(value)
    if depth < 2 or not is_array(value):
        yield from ((name, bad, bad) for name, bad in SCALARS.items() if repr(bad) != repr(value))
    if not depth:
        return
    if isinstance(value, nfn_core.MessageState):
        for part, held in zip(value._fields, value, strict=True):
            yield from (
                (f"{part}, {name}", value._replace(**{part: bad}), piece) for name, bad, piece in bad_values(held)
            )
        return
    if isinstance(value, Mapping) and value:
        key = next(iter(value))
        kind = type(value) if isinstance(value, dict) else dict
        yield f"without {key!r}", kind({k: x for k, x in value.items() if k != key}), key
        yield "with 'extra'", kind({**value, "extra": value[key]}), "extra"
        yield f"with 3 for {key!r}", kind({3 if k == key else k: x for k, x in value.items()}), 3
        for name, bad, part in bad_values(value[key], depth - 1):
            yield f"{key!r}: {name}", kind({**value, key: bad}), part
    elif isinstance(value, tuple | list) and value:
        yield "one fewer", value[:-1], value[-1]
        yield "one more", type(value)([*value, value[-1]]), value[-1]
        for name, bad, part in bad_values(value[0], depth - 1):
            yield f"[0]: {name}", type(value)([bad, *value[1:]]), part


def _bad_arrays(x: Any) -> Iterator[tuple[str, Any, Any]]:
    """Arrays of another shape, dtype or library."""
    host = np.asarray(x)
    library = type(x).__module__.partition(".")[0]
    convert: Callable[[np.ndarray], Any] = torch.tensor if library == "torch" else np.asarray
    if library in ("jax", "jaxlib"):
        import jax.numpy as jnp

        convert = jnp.asarray
    for axis in range(host.ndim):
        longer = np.concatenate(
            [host, host[tuple(slice(1) if a == axis else slice(None) for a in range(host.ndim))]], axis
        )
        yield f"axis {axis} longer", convert(longer), longer
        shorter = host[tuple(slice(0) if a == axis else slice(None) for a in range(host.ndim))]
        yield f"axis {axis} empty", convert(shorter), shorter
    yield "an axis fewer", convert(host[0]), host[0]
    yield "an axis more", convert(host[None]), host[None]
    for kind in ("int32", "complex64", "float16", "bool"):
        new = convert(host.astype(kind))
        yield f"of {kind}", new, new
    yield "as a list", host.tolist(), host.tolist()
    if library == "torch":
        yield "sparse", x.to_sparse(), "sparse"
        yield "of NumPy", host, host
    else:
        yield "of torch", torch.tensor(host), torch.tensor(host)
    if library == "numpy":
        masked = np.ma.masked_array(host, np.arange(host.size).reshape(host.shape) % 2 > 0)
        yield "masked", masked, masked


def spellings(value: Any) -> Iterator[tuple[str, Any]]:
    """Other ways to give the same value."""
    if isinstance(value, bool):
        return
    if isinstance(value, int):
        yield "np.int64", np.int64(value)
        yield "np.array", np.array(value)
    elif isinstance(value, float):
        yield "np.float64", np.float64(value)
    elif type(value) is tuple and value:
        yield "list", list(value)
    elif isinstance(value, list):
        yield "tuple", tuple(value)
    elif isinstance(value, Path):
        yield "str", str(value)
    elif isinstance(value, dict) and len(value) > 1:
        yield "other order", dict(reversed(value.items()))


def trials(found: Target) -> Iterator[tuple[str, Callable[[], Any], Callable[[Any], str], set[str] | None]]:
    """Yield for a callable every bad input: what it is, the call, the judgment of a result, and words for it."""
    for argument, value in found.arguments.items():
        where = f"{found.name}.{argument}"
        for name, bad, part in bad_values(value):
            if _admitted(found, argument, bad, value):
                yield f"{where} = {name}", _call(found, {argument: bad}), _anything, None
            else:
                yield f"{where} = {name}", _call(found, {argument: bad}), _nothing, _words(argument, bad, part)
        if where not in ORDERED:
            for name, other in spellings(value):
                run, judgment = _call(found, {argument: other}), _equal(_call(found, {}))
                yield f"{where} as {name}", run, judgment, _words(argument, other, other)


def campaign(seed: int, every: int, found: Iterable[Target] | None = None) -> list[Case]:
    """Try bad inputs of callables.

    Parameters
    ----------
    seed : int
        Which of them, if not all.
    every : int
        One of so many is tried.
    found : iterable of Target, optional
        The callables; without them all that are public.

    Returns
    -------
    list of Case
        One for each bad input.
    """
    cases: list[Case] = []
    number = seed
    chosen = list(targets() if found is None else found)
    with tempfile.TemporaryDirectory(prefix="faults-") as folder, chdir(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of arithmetic with what should have been refused
        for one in tqdm(chosen, unit="callable", desc="inputs"):
            try:
                one.run({})
            except Exception as error:
                raise CampaignError(f"{one.module}.{one.name}: its valid examples fail: {error!r}") from error
            for what, run, accepts, names in trials(one):
                number += 1
                if number % every == 0:
                    outcome, message = judge(run, accepts, names, DOCUMENTED.get(one.name, ()))
                    cases.append(Case("inputs", one.module, f"{one.module}.{what}", outcome, message))
    return cases


def _call(found: Target, changed: Mapping[str, Any]) -> Callable[[], Any]:
    return lambda: found.run(changed)


def _anything(result: Any) -> str:
    return ""


def _nothing(result: Any) -> str:
    return "taken without a word"


def _equal(expected: Callable[[], Any]) -> Callable[[Any], str]:
    return lambda result: "" if same(result, expected()) else "the result differs from that of the usual spelling"


def _admitted(found: Target, argument: str, value: Any, example: Any) -> bool:
    where = f"{found.name}.{argument}"
    annotation = found.types.get(argument, Any)
    for key in (f"{found.module}.{where}", where, f"{found.name.rpartition('.')[2]}.{argument}", argument):
        if key in ADMITS:
            return ADMITS[key](value, example)
    return admits(annotation, value, where)


def _words(argument: str, value: Any, part: Any) -> set[str]:
    """Words of which a message must have one: the argument's, or the value's."""
    words = {argument, argument.replace("_", " "), *ALIASES.get(argument, ())}
    for x in (value, part):
        words |= {type(x).__name__, *(repr(y)[:30] for y in (x, *(x if isinstance(x, list | tuple) else ())))}
        if is_array(x):
            words.add(str(tuple(x.shape)))
        if hasattr(x, "dtype"):
            words.add(str(x.dtype))
    return words


def same(a: Any, b: Any) -> bool:
    """Whether two results are equal, arrays bit by bit."""
    if isinstance(a, torch.nn.Module):
        return isinstance(b, torch.nn.Module) and same(a.state_dict(), b.state_dict())
    if isinstance(a, Mapping):
        return isinstance(b, Mapping) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, tuple | list):
        return isinstance(b, tuple | list) and len(a) == len(b) and all(map(same, a, b))
    if is_array(a):
        x, y = (np.asarray(z.detach() if isinstance(z, torch.Tensor) else z) for z in (a, b))
        return x.dtype == y.dtype and np.array_equal(x, y, equal_nan=x.dtype.kind == "f")
    if is_dataclass(a) and not isinstance(a, nfn_core.Layer):
        return type(a) is type(b) and all(same(vars(a)[key], vars(b)[key]) for key in vars(a) if key[0] != "_")
    return bool(a == b) or a is b
