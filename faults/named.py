"""What an argument may be where its type does not say, by its name."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import nfn_conformance
import numpy as np

from faults.examples import FILES, SPACE
from nfn_core import Group, Layer, ModelSpace, WeightSpace
from nfn_core.arrays import is_array
from nfn_core.checks import plain_int
from nfn_core.layers.parameters import first_array

__all__ = ["ADMITS"]


def only_the_example(value: Any, example: Any) -> bool:
    """Nothing else is valid that the campaign would try."""
    return value is example


def the_example_or_nothing(value: Any, example: Any) -> bool:
    """The example, None, or an empty collection."""
    return value is None or value is example or (isinstance(value, Mapping | tuple | list) and not value)


def known_sets(value: Any, example: Any) -> bool:
    """Neuron sets of the example's space, as an iterable that is no text."""
    texts = isinstance(value, Iterable) and not isinstance(value, str | bytes)
    return texts and all(isinstance(s, str) and s in {*SPACE.sizes, "h", "in", "out"} for s in value)


def known_tensors(value: Any, example: Any) -> bool:
    """Tensors of the example's space, as an iterable that is no text."""
    texts = isinstance(value, Iterable) and not isinstance(value, str | bytes)
    return texts and all(isinstance(s, str) and s in SPACE.by_name for s in value)


def real_dtype(value: Any, example: Any) -> bool:
    """None, or a floating dtype of any library."""
    return value is None or value is float or ("float" in str(getattr(value, "dtype", value)) and not is_array(value))


def real(x: Any) -> bool:
    """An array of a real floating dtype, which is neither masked nor sparse."""
    plain = is_array(x) and not isinstance(x, np.ma.MaskedArray) and "sparse" not in str(getattr(x, "layout", ""))
    return plain and str(x.dtype).rpartition(".")[2] in ("float16", "float32", "float64")


def real_arrays(value: Any, example: Any) -> bool:
    """An array, or arrays by name, of any shape: what layers take that treat every entry alike."""
    return real(value) or (isinstance(value, Mapping) and all(map(real, value.values())))


def columns(value: Any, example: Any) -> bool:
    """Arrays by name, of any shape but with as many channels as the example's."""
    fit = isinstance(value, Mapping) and value.keys() == example.keys() and real_arrays(value, example)
    return fit and all(x.ndim > 1 and x.shape[-1] == example[name].shape[-1] for name, x in value.items())


def filled_columns(value: Any, example: Any) -> bool:
    """The same, where what is measured needs entries."""
    return columns(value, example) and all(0 not in x.shape for x in value.values())


def models(value: Any, example: Any) -> bool:
    """Models with the example's tensors."""
    if not isinstance(value, tuple | list) or not value:
        return False
    wanted = {name: tuple(x.shape) for name, x in example[0].items()}
    return all(
        isinstance(m, Mapping)
        and wanted.items() <= {n: tuple(getattr(x, "shape", ())) for n, x in m.items()}.items()
        and all(real(m[n]) and type(m[n]) is type(x) and m[n].dtype == x.dtype for n, x in example[0].items())
        for m in value
    )


def other_names(value: Any, example: Any) -> bool:
    """Rows as the example's, or fewer, of any names."""
    return (
        isinstance(value, tuple | list)
        and len(value) <= len(example)
        and all(isinstance(row, tuple) and row[1:] == example[0][1:] and isinstance(row[0], str) for row in value)
    )


ADMITS: dict[str, Callable[[Any, Any], bool]] = {
    "features": only_the_example,
    "Activation.apply.features": real_arrays,
    "Dropout.apply.features": real_arrays,
    "Gate.apply.features": lambda value, example: (
        real_arrays(value, example)
        and all(x.ndim and x.shape[-1] % 2 == 0 for x in (value.values() if isinstance(value, Mapping) else [value]))
    ),
    "GaussianFourierFeatures.apply.features": columns,
    "MLPHead.apply.features": lambda value, example: (
        real(value) and value.ndim > 1 and value.shape[1:] == example.shape[1:]
    ),
    "GaussianFourierFeatures.turns.features": filled_columns,
    "GaussianFourierFeatures.from_features.features": lambda value, example: (
        isinstance(value, Mapping) and bool(value) and real_arrays(value, example)
    ),
    "assert_normalized.features": lambda value, example: (
        isinstance(value, Mapping) and bool(value) and real_arrays(value, example)
    ),
    "params": lambda value, example: value is example or (isinstance(value, Mapping) and not value and not example),
    **dict.fromkeys(
        ("save.params", "save_parameters.params"),
        lambda value, example: (
            isinstance(value, Mapping)
            and value.keys() == example.keys()
            and real_arrays(value, example)
            and all(x.shape == example[name].shape for name, x in value.items())
        ),
    ),
    "nfn_jax.weight_space.params": lambda value, example: (
        isinstance(value, Mapping)
        and value.keys() >= example.keys()
        and all(is_array(x) and x.ndim >= 2 and 0 not in x.shape for x in value.values())
    ),
    **dict.fromkeys(("text", "matrix", "rows", "columns"), only_the_example),
    "MessageState.tensors": only_the_example,
    "MessageState.neurons": only_the_example,
    "tree": lambda value, example: True,  # what is no array is left out
    "specs": only_the_example,
    "check_parameters.like": lambda value, example: (x := first_array(value)) is None or type(x) is np.ndarray,
    "description": lambda value, example: isinstance(value, Layer | Group | WeightSpace | ModelSpace),
    "permuted": lambda value, example: (
        (isinstance(value, str) and value in ("NP", "HNP")) or known_sets(value, example)
    ),
    "Group.permuted": known_sets,
    **{f"assert_{x}.group": the_example_or_nothing for x in ("equivariant", "invariant", "maximal")},
    **{
        f"{x}.{io}": known_sets
        for io in ("inputs", "outputs")
        for x in ("WeightSpace", "ModelSpace", "from_patterns", "from_axes")
    },
    "weight_space.inputs": lambda value, example: (
        type(value) is type(example) and value.ndim > 0 and value.shape[-1] == 2
    ),
    **dict.fromkeys(("stack.channels",), models),
    "like": lambda value, example: isinstance(value, Mapping) and value.keys() >= example.keys(),
    "check_like.shapes": lambda value, example: (
        isinstance(value, Mapping) and all(repr(value.get(name)) == repr(shape) for name, shape in example.items())
    ),
    "images": the_example_or_nothing,
    "ModelSpace.constants": other_names,
    "signed": known_sets,
    "Group.grades": lambda value, example: (
        isinstance(value, tuple | list) and repr(tuple(value)) in ("()", repr(example), repr(((0, 0), *example[1:])))
    ),
    "Group.graded.grades": lambda value, example: isinstance(value, str) and value in ("all", "even"),
    "Group.grade.tensor": lambda value, example: isinstance(value, str) and value in SPACE.by_name,
    "Group.permutation.signs": lambda value, example: value is None or (isinstance(value, Mapping) and not value),
    "Permutation.signs": lambda value, example: isinstance(value, tuple | list) and not value,
    "Permutation.factors.label": lambda value, example: isinstance(value, str),
    "Permutation.factors.grade": lambda value, example: isinstance(plain_int(value), int) and plain_int(value) >= 0,
    "CanonicalFactors.pairs": the_example_or_nothing,
    "CanonicalScales.sets": lambda value, example: value is None or known_sets(value, example),
    **dict.fromkeys(("CanonicalScales.normalized", "CanonicalScales.variances"), known_tensors),
    "Permutation.images": lambda value, example: (
        isinstance(value, tuple | list) and all(any(pair is own for own in example) for pair in value)
    ),
    "weight_space.labels": the_example_or_nothing,
    "from_patterns.labels": the_example_or_nothing,
    "key": lambda value, example: value is None,
    "axis_name": the_example_or_nothing,
    "dtype": real_dtype,
    "init.seed": lambda value, example: type(value) is int and value >= 0,
    "first": only_the_example,
    "sigma": only_the_example,
    "check": lambda value, example: isinstance(value, str) and value in nfn_conformance.CHECKS,
    "paths": lambda value, example: (
        isinstance(value, tuple | list | dict) and all(any(x is f for f in FILES) for x in value)
    ),
    "path": lambda value, example: isinstance(value, str | Path),
    "gradient": lambda value, example: value is None,
    "fill": lambda value, example: value is None or (isinstance(value, int | float) and not isinstance(value, bool)),
}
"""What an argument may be, by ``CALLABLE.ARGUMENT`` or by its name: given a value and the example."""
