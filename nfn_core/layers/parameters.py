"""What parameters a layer needs, and their initial values: the same numbers for every backend.

Initialization is by *total fan-in*: the number of inputs of all hubs that feed an output tensor together (as the
paper's code does), so a parameter may have one fan-in for each block of its columns.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nfn_core.arrays import Array, device_of, is_array, is_dense, is_real, namespace_of, same_device
from nfn_core.checks import (
    check_choice,
    check_flags,
    check_kind,
    natural_int,
    plain_tuple,
    positive_int,
    real_number,
    shown,
)
from nfn_core.errors import FeatureError, ParameterError, SpecError

if TYPE_CHECKING:
    from nfn_core.layers.base import Layer

__all__ = ["ParameterSpec", "check_parameters", "first_array", "initialize", "on_host"]


@dataclass(frozen=True)
class ParameterSpec:
    """One parameter of a layer.

    Parameters
    ----------
    shape : tuple of int
        Shape; a matrix maps its first axis (inputs) to its last (outputs).
    init : {"uniform", "kaiming", "normal", "constant"}
        Uniform in ±1/√fan-in, normal of variance 2/fan-in, normal of standard deviation `value`, or `value` itself.
    fan_in : tuple of (int, int)
        Blocks (columns, fan-in) of the last axis, for ``"uniform"`` and ``"kaiming"``.
    value : float or tuple of float
        Standard deviation or constant; a tuple gives one constant for each entry of the last axis.
    trainable : bool
        False for constants that travel with the parameters (data statistics, random frequencies): a buffer in torch,
        an array without gradient in JAX.

    Raises
    ------
    SpecError
        If an argument is of a wrong kind, or the blocks or constants do not fit the last axis.
    """

    shape: tuple[int, ...]
    init: Literal["uniform", "kaiming", "normal", "constant"]
    fan_in: tuple[tuple[int, int], ...] = ()
    value: float | tuple[float, ...] = 0.0
    trainable: bool = True

    def __post_init__(self) -> None:
        shape = tuple(natural_int(f"shape[{i}]", n) for i, n in enumerate(plain_tuple("shape", self.shape)))
        check_choice("init", self.init, ("uniform", "kaiming", "normal", "constant"))
        check_flags(self, "trainable")
        blocks = plain_tuple("fan_in", self.fan_in)
        if isinstance(self.value, tuple | list):
            value: Any = tuple(real_number(f"value[{i}]", x) for i, x in enumerate(self.value))
        else:
            value = real_number("value", self.value)
        last = shape[-1] if shape else 0
        if self.init == "constant" and isinstance(value, tuple) and len(value) != last:
            raise SpecError(
                f"value must be a number, or one for each of the {last} entries of the last axis of {shape}."
            )
        if self.init == "normal" and (isinstance(value, tuple) or value < 0):
            raise SpecError(f"value must be a standard deviation, a number of at least 0, not {shown(value)}.")
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "fan_in", tuple(map(_block, blocks)))
        if self.init in ("uniform", "kaiming") and sum(columns for columns, _ in self.fan_in) != last:
            raise SpecError(
                f"fan_in must have blocks (columns, fan-in) for the last axis of {shape}, not {self.fan_in}."
            )

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Draw initial values.

        Parameters
        ----------
        rng : numpy.random.Generator
            Source of the numbers.

        Returns
        -------
        numpy.ndarray
            Float64 array of `shape`.

        Raises
        ------
        SpecError
            If `rng` is no generator.
        """
        check_kind("rng", rng, np.random.Generator)
        if self.init == "constant":
            return np.broadcast_to(np.asarray(self.value, dtype=np.float64), self.shape).copy()
        if self.init == "normal":
            return np.asarray(rng.standard_normal(self.shape) * self.value)
        fan_in = np.concatenate([np.full(columns, float(n)) for columns, n in self.fan_in])
        if self.init == "uniform":
            return np.asarray(rng.uniform(-1.0, 1.0, self.shape) / np.sqrt(fan_in))
        return np.asarray(rng.standard_normal(self.shape) * np.sqrt(2.0 / fan_in))


def initialize(layer: "Layer", seed: int) -> dict[str, np.ndarray]:
    """Initial parameters of a layer or network as NumPy arrays.

    Every parameter has its own stream, keyed by seed and name, so its numbers do not depend on the other layers.

    Parameters
    ----------
    layer : Layer
        Any layer or network description.
    seed : int
        Non-negative seed.

    Returns
    -------
    dict of str to numpy.ndarray
        Float64 parameters by dotted name, in the layer's order; adapters cast and place them.

    Raises
    ------
    SpecError
        If `layer` is no layer, or the seed is not a non-negative integer.
    """
    from nfn_core.layers.base import Layer  # layers build on their parameters; this is the one arrow back

    check_kind("layer", layer, Layer)
    number = natural_int("seed", seed)
    return {
        name: spec.draw(np.random.default_rng([number, zlib.crc32(name.encode())]))
        for name, spec in layer.cached_specs.items()
    }


def on_host(name: str, x: Any) -> np.ndarray:
    """Return the entries of a tensor of features as a NumPy array of float64, or a FeatureError that names it."""
    try:
        return np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        raise FeatureError(
            f"tensor {name!r} cannot be read into NumPy ({error}): detach it, move it to the CPU, or cast it to float32."
        ) from error


def first_array(x: Any) -> Any:
    """Return the first array of features, or of a tuple of features; an array or None as it is."""
    while isinstance(x, (Mapping, tuple)):  # compilers before PyTorch 2.11 cannot trace a union of types
        x = next(iter(x.values() if isinstance(x, Mapping) else x), None)
    return x


def check_parameters(
    specs: Mapping[str, ParameterSpec], params: Mapping[str, Any], like: Mapping[str, Array] | Array | None = None
) -> None:
    """Check that parameters belong to a layer.

    Parameters
    ----------
    specs : mapping of str to ParameterSpec
        What the layer needs: its `parameter_specs()`.
    params : mapping of str to array
        Parameters by dotted name.
    like : mapping of str to array, or array, optional
        The layer's input: library, dtype and device of every parameter must be its own.

    Raises
    ------
    ParameterError
        If names or shapes differ from what the layer needs, a parameter is no dense array, or its library, dtype or device
        is not that of `like`.
    FeatureError
        If `like` holds what is no array, or, beside each other, tensors and neurons of different kinds.
    SpecError
        If `specs` are no specs.
    """
    check_kind("specs", specs, Mapping)
    if not isinstance(params, Mapping):
        raise ParameterError(f"params must be a mapping from names to arrays, not {type(params).__name__}.")
    missing = [name for name in specs if name not in params]
    extra = [name for name in params if name not in specs]
    if missing or extra:
        raise ParameterError(
            f"these are not the parameters of this layer: expected {len(specs)} names, got {len(params)}"
            + (f"; missing: {missing[:5]}" if missing else "")
            + (f"; not in the layer: {extra[:5]}" if extra else "")
            + ". Initialize or load them for the same weight space, group and channels."
        )
    if not isinstance(like, (Mapping, tuple)) and like is not None and not is_array(like):
        raise FeatureError(
            f"features must be arrays by name, or an array, not {type(like).__name__}: convert them first."
        )
    sample = first_array(like)
    if isinstance(like, tuple):
        if sample is None:
            raise FeatureError("the features' first part holds no tensor: give an array for each name.")
        _check_alike(like, sample)
    xp = None if sample is None else namespace_of(sample)
    floating = xp is not None and is_real(sample, xp)
    for name, spec in specs.items():
        p = params[name]
        if not isinstance(spec, ParameterSpec):
            raise SpecError(f"specs[{name!r}] must be a ParameterSpec, not {shown(spec)}: give layer.cached_specs.")
        if not is_array(p) or not is_dense(p):
            raise ParameterError(f"parameter {name!r} must be a dense array, not {type(p).__name__}: convert it first.")
        if tuple(p.shape) != spec.shape:
            raise ParameterError(
                f"parameter {name!r}: expected shape {spec.shape}, not {tuple(p.shape)}: "
                "it belongs to another weight space, group or number of channels."
            )
        if xp is None:
            continue
        if namespace_of(p) is not xp:
            raise ParameterError(
                f"parameter {name!r} is a {type(p).__module__}.{type(p).__name__}, but the features are "
                f"{type(sample).__module__}.{type(sample).__name__}: use one array library."
            )
        if floating and p.dtype != sample.dtype:
            raise ParameterError(
                f"parameter {name!r} has dtype {p.dtype}, but the features have {sample.dtype}: cast one to the other."
            )
        if not same_device(p, sample):
            raise ParameterError(
                f"parameter {name!r} is on device {p.device}, but the features on {sample.device}: "
                "move one to the other."
            )


def _block(block: Any) -> tuple[int, int]:
    """A block of fan-in as plain integers."""
    pair = plain_tuple("fan_in", block)
    if len(pair) != 2:
        raise SpecError(f"fan_in must hold pairs (columns, fan-in), not {shown(block)}.")
    return natural_int("columns of fan_in", pair[0]), positive_int("fan_in", pair[1])


def _check_alike(parts: Any, sample: Any) -> None:
    """Check that arrays of features that stand beside each other are of one library, dtype and device."""
    for part in parts:
        for name, x in part.items() if isinstance(part, Mapping) else ():
            if namespace_of(x, sample) and (x.dtype != sample.dtype or not same_device(x, sample)):
                raise FeatureError(
                    f"array {name!r} has dtype {x.dtype} on device {device_of(x)}, but the first array has {sample.dtype} on "
                    f"device {device_of(sample)}: cast or move one to the other."
                )
