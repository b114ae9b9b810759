"""Descriptions as JSON: weight spaces, groups, layers and networks in a canonical form with a format version.

A description becomes an object with its class under ``"type"`` and its constructor's arguments by name. Weight spaces
are listed once and referred to by their number. Reading never runs code from the text: it builds registered classes only,
through their own constructors.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from math import isfinite
from typing import Any

from nfn_core.errors import NFNError, SpecError
from nfn_core.registry import DESCRIPTIONS, left_out, name_of
from nfn_core.spaces import WeightSpace

__all__ = ["from_json", "to_json"]

FORMAT = "nfn-core description 1"


def to_json(description: Any) -> str:
    """Write a description as canonical JSON: equal descriptions give equal texts.

    Parameters
    ----------
    description : Layer, Group, WeightSpace or ModelSpace
        A layer or network, a group, a weight space, or the weight space of a model (without its verification
        and activations, which tracing gives).

    Returns
    -------
    str
        JSON on one line, keys sorted.

    Raises
    ------
    SpecError
        If it is no description, or holds a value that JSON has no form for (a function, an infinite number).

    Examples
    --------
    >>> space = WeightSpace.mlp([2, 3, 1])
    >>> from_json(to_json(space)) == space
    True
    """
    if not _is_description(description):
        raise SpecError(f"to_json takes a layer, a group or a weight space, not {type(description).__name__}.")
    spaces: dict[WeightSpace, int] = {}
    body = _encoded(description, spaces, type(description).__name__)
    value = {"format": FORMAT, "description": body, "spaces": [_arguments(s, spaces, "space") for s in spaces]}
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def from_json(text: str | Mapping[str, Any]) -> Any:
    """Read a description that `to_json` wrote.

    Parameters
    ----------
    text : str or mapping
        The JSON, or the object that it holds (a part of a larger JSON file).

    Returns
    -------
    Layer, Group, WeightSpace or ModelSpace
        The description.

    Raises
    ------
    SpecError
        If the text is no description of this format, names an unknown class, or its values do not fit.
    """
    try:
        value = text if isinstance(text, Mapping) else json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise SpecError(f"the description is not JSON: {error}.") from error
    if not isinstance(value, Mapping) or value.get("format") != FORMAT:
        found = value.get("format") if isinstance(value, Mapping) else type(value).__name__
        raise SpecError(f"expected a description of format {FORMAT!r}, but found {found!r}.")
    try:
        spaces = [_built(WeightSpace, entry, []) for entry in value["spaces"]]
        description = _decoded(value["description"], spaces)
    except NFNError:
        raise
    except (AttributeError, KeyError, IndexError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise SpecError(f"the description is damaged ({type(error).__name__}: {error}): write it again.") from error
    if not _is_description(description):
        raise SpecError(f"expected a layer, a group or a weight space, but found {type(description).__name__}.")
    return description


def _encoded(value: Any, spaces: dict[WeightSpace, int], where: str) -> Any:
    """JSON form of one value."""
    if isinstance(value, WeightSpace):
        return {"type": "WeightSpace", "number": spaces.setdefault(value, len(spaces))}
    if _is_description(value):
        return {**_arguments(value, spaces, where), "type": name_of(type(value))}
    if isinstance(value, tuple):
        return [_encoded(v, spaces, f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, float) and isfinite(value):
        return int(value) if value.is_integer() and abs(value) < 2**53 else value  # 10.0 and 10 are equal arguments
    if value is None or isinstance(value, bool | int | str):
        return value
    raise SpecError(f"{where} is {value!r}, which JSON has no form for: a description holds numbers, texts and tuples.")


def _arguments(value: Any, spaces: dict[WeightSpace, int], where: str) -> dict[str, Any]:
    """Arguments of a description's constructor."""
    wanted = [(f, getattr(value, f.name)) for f in fields(value) if f.init and f.compare]
    given = {f.name: v for f, v in wanted if not left_out(f, v)}
    if "type" in given:
        raise SpecError(f"{where} has a field named 'type', which JSON descriptions use for the class: rename it.")
    return {name: _encoded(v, spaces, f"{where}.{name}") for name, v in given.items()}


def _decoded(value: Any, spaces: list[WeightSpace]) -> Any:
    """Undo `_encoded`."""
    if isinstance(value, list):
        return tuple(_decoded(v, spaces) for v in value)
    if not isinstance(value, dict):
        return value
    name = value["type"]
    if name == "WeightSpace":
        return spaces[_number(value["number"], len(spaces))]
    if name not in DESCRIPTIONS:
        raise SpecError(
            f"unknown type {name!r} in a description: import the module that defines it, or update nfn-core."
        )
    return _built(DESCRIPTIONS[name], {key: v for key, v in value.items() if key != "type"}, spaces)


def _built(cls: type, arguments: Mapping[str, Any], spaces: list[WeightSpace]) -> Any:
    """Call a description's constructor; arguments that it does not know, or lacks, are errors."""
    wanted = [f for f in fields(cls) if f.init]
    unknown = [key for key in arguments if key not in {f.name for f in wanted}]
    missing = [f.name for f in wanted if f.name not in arguments and f.default is MISSING]
    if unknown or missing:
        raise SpecError(
            f"{cls.__name__} in a description: unknown arguments {unknown}, missing arguments {missing}: it was written "
            "by another version."
        )
    return cls(**{key: _decoded(v, spaces) for key, v in arguments.items()})


def _number(value: Any, count: int) -> int:
    """Number of a space in the list."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < count:
        raise SpecError(f"a description refers to weight space {value!r}, but holds {count}.")
    return value


def _is_description(value: Any) -> bool:
    """Whether a value is of a registered class, and all that it is given is in its fields."""
    return is_dataclass(value) and DESCRIPTIONS.get(name_of(type(value))) is type(value)
