"""What parameters a layer needs, and their initial values: the same numbers for every backend.

Initialization is by *total fan-in*: the number of inputs of all hubs that feed an output tensor together (as the
paper's code does), so a parameter may have one fan-in for each block of its columns.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nfn_core.arrays import Array, device_of, namespace_of, same_device
from nfn_core.checks import plain_int
from nfn_core.errors import ParameterError, SpecError

if TYPE_CHECKING:
    from nfn_core.layers.base import Layer

__all__ = ["ParameterSpec", "check_parameters", "first_array", "initialize"]


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
    """

    shape: tuple[int, ...]
    init: Literal["uniform", "kaiming", "normal", "constant"]
    fan_in: tuple[tuple[int, int], ...] = ()
    value: float | tuple[float, ...] = 0.0
    trainable: bool = True

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
        """
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
        If the seed is not a non-negative integer.
    """
    number = plain_int(seed)
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise SpecError(f"seed must be a non-negative integer, not {seed!r}.")
    return {
        name: spec.draw(np.random.default_rng([number, zlib.crc32(name.encode())]))
        for name, spec in layer.cached_specs.items()
    }


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
        If names or shapes differ from what the layer needs, or library, dtype or device from `like`.
    """
    if not isinstance(params, Mapping):
        raise ParameterError(f"parameters must be a mapping from names to arrays, not {type(params).__name__}.")
    missing = [name for name in specs if name not in params]
    extra = [name for name in params if name not in specs]
    if missing or extra:
        raise ParameterError(
            f"these are not the parameters of this layer: expected {len(specs)} names, got {len(params)}"
            + (f"; missing: {missing[:5]}" if missing else "")
            + (f"; not in the layer: {extra[:5]}" if extra else "")
            + ". Initialize or load them for the same weight space, group and channels."
        )
    sample = first_array(like)
    for name, spec in specs.items():
        p = params[name]
        if tuple(p.shape) != spec.shape:
            raise ParameterError(
                f"parameter {name!r}: expected shape {spec.shape}, not {tuple(p.shape)}: "
                "it belongs to another weight space, group or number of channels."
            )
        if sample is None:
            continue
        if namespace_of(p) is not namespace_of(sample):
            raise ParameterError(
                f"parameter {name!r} is a {type(p).__module__}.{type(p).__name__}, but the features are "
                f"{type(sample).__module__}.{type(sample).__name__}: use one array library."
            )
        if p.dtype != sample.dtype and namespace_of(sample).isdtype(sample.dtype, "real floating"):
            raise ParameterError(
                f"parameter {name!r} has dtype {p.dtype}, but the features have {sample.dtype}: cast one to the other."
            )
        if not same_device(p, sample):
            raise ParameterError(
                f"parameter {name!r} is on device {device_of(p)}, but the features on {device_of(sample)}: "
                "move one to the other."
            )
