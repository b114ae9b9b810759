"""Descriptions as pure functions of pytrees: initial parameters, application, files."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nfn_core import Execution, Layer, SpecError, initialize, load_parameters, save_parameters
from nfn_core.arrays import is_array
from nfn_core.checks import check_kind, shown

__all__ = ["apply", "apply_in_training", "init", "load", "save", "trainable"]

Params = dict[str, jax.Array]


def init(layer: Layer, seed: Any, dtype: Any = jnp.float32) -> Params:
    """Initial parameters of a layer or network.

    Parameters
    ----------
    layer : Layer
        The description.
    seed : int or jax.Array
        Seed, the same numbers as in every backend; or a JAX key, from which a seed is derived.
    dtype : jnp.dtype
        Dtype of the parameters, real floating. JAX warns and makes float32 of float64 outside its 64-bit mode.

    Returns
    -------
    dict of str to jax.Array
        Parameters and constants by dotted name.

    Raises
    ------
    SpecError
        If `layer` is no description, the seed neither a non-negative integer nor a single concrete key, or `dtype` no real
        floating dtype.
    """
    check_kind("layer", layer, Layer)
    try:
        real = jnp.issubdtype(dtype, jnp.floating)
    except TypeError:
        real = False
    if not real:
        raise SpecError(f"dtype must be a real floating dtype such as jnp.float32, not {shown(dtype)}.")
    if isinstance(seed, jax.core.Tracer):
        raise SpecError("init draws on the host and cannot be traced: call it outside jit, vmap and grad.")
    if isinstance(seed, jax.Array) and (seed.ndim or jnp.issubdtype(seed.dtype, jax.dtypes.prng_key)):
        _check_key("seed", seed)
        seed = operator.index(jax.random.bits(seed, dtype=jnp.uint32).item())
    return {name: jnp.asarray(value, dtype=dtype) for name, value in initialize(layer, seed).items()}


def trainable(layer: Layer) -> dict[str, bool]:
    """Return for each parameter whether it is trained: a mask for optax, where constants must not decay.

    Parameters
    ----------
    layer : Layer
        The description.

    Returns
    -------
    dict of str to bool
        False for constants, whose gradient is zero.

    Raises
    ------
    SpecError
        If `layer` is no description.
    """
    check_kind("layer", layer, Layer)
    return {name: spec.trainable for name, spec in layer.cached_specs.items()}


def apply(
    layer: Layer,
    params: Mapping[str, jax.Array],
    features: Mapping[str, jax.Array] | jax.Array,
    key: Any = None,
    *,
    checkpoint: int | None = None,
) -> Params | jax.Array:
    """Apply a layer or network.

    Parameters
    ----------
    layer : Layer
        The description; static under jit.
    params : mapping of str to jax.Array
        Parameters as `init` gives them.
    features : mapping of str to jax.Array, or jax.Array
        Each tensor of shape (batch, *axes, channels), of the parameters' dtype.
    key : jax.Array, optional
        Key for dropout (training); without it nothing is dropped.
    checkpoint : int, optional
        Activation checkpointing: the number of successive NF-layers of a `Sequential` whose activations are not kept
        but computed again in the backward pass. Without it all are kept.

    Returns
    -------
    dict of str to jax.Array, or jax.Array
        Features, or an array of shape (batch, ...) from an invariant layer on.

    Raises
    ------
    ParameterError
        If the parameters are not this layer's.
    FeatureError
        If the features do not fit the weight space.
    SpecError
        If `layer` is no description, `key` no single key, or `checkpoint` not a positive integer.
    """
    execution = Execution(recompute=_recompute, checkpoint=checkpoint)
    value: Params | jax.Array = _run(layer, params, features, key, execution)
    return value


def apply_in_training(
    layer: Layer,
    params: Mapping[str, jax.Array],
    features: Mapping[str, jax.Array] | jax.Array,
    key: Any = None,
    *,
    checkpoint: int | None = None,
    axis_name: Any = None,
) -> tuple[Params | jax.Array, Params]:
    """Apply a layer or network that normalizes by the statistics of the batch, and return its new constants.

    Parameters
    ----------
    layer, params, features, key, checkpoint : see `apply`
        As there.
    axis_name : str or tuple of str, optional
        Mapped axes of `vmap` or `shard_map` over which the statistics are taken together. Under `jit` with sharded
        arrays they are those of the whole batch without it.

    Returns
    -------
    dict of str to jax.Array, or jax.Array
        As `apply`.
    dict of str to jax.Array
        New values of the constants; the next parameters are ``params | constants``.

    Raises
    ------
    ParameterError, FeatureError, SpecError
        As `apply`, and if `axis_name` is no mapped axis.
    """
    if axis_name is not None:
        try:
            if not axis_name:
                raise ValueError("it names no axis")
            jax.lax.psum(1, axis_name)  # type: ignore[no-untyped-call]
        except (NameError, TypeError, ValueError) as error:
            raise SpecError(
                f"axis_name {shown(axis_name)} is no mapped axis here: give it where vmap or shard_map has mapped it."
            ) from error
    found: Params = {}
    total = None if axis_name is None else partial(jax.lax.psum, axis_name=axis_name)
    execution = Execution(recompute=_recompute, checkpoint=checkpoint, statistics=found.__setitem__, total=total)
    value = _run(layer, params, features, key, execution)
    return value, {name: jax.lax.stop_gradient(x) for name, x in found.items()}


def _run(layer: Layer, params: Any, features: Any, key: Any, execution: Execution) -> Any:
    """Apply a layer with constants held fixed, and noise from a key."""
    check_kind("layer", layer, Layer)
    if key is not None:
        _check_key("key", key)
    constants = {name for name, spec in layer.cached_specs.items() if not spec.trainable}
    frozen = params
    if isinstance(params, Mapping):  # the layer checks it
        frozen = {n: jax.lax.stop_gradient(p) if n in constants and is_array(p) else p for n, p in params.items()}
    draws = count()

    def uniform(shape: tuple[int, ...], like: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(key, next(draws)), shape, like.dtype)

    return layer.apply(frozen, features, replace(execution, noise=None if key is None else uniform))


def _check_key(name: str, key: Any) -> None:
    """Check that an argument is a single key."""
    if isinstance(key, jax.Array | np.ndarray):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            single = key.ndim == 0
        else:  # of the old kind; how long it is depends on the generator
            single = key.shape == np.shape(jax.random.PRNGKey(0)) and key.dtype == jnp.uint32
        if single:
            return
    raise SpecError(
        f"{name} must be a single key, such as jax.random.key(0), not {shown(key)}: split it or map over it."
    )


def _recompute(function: Callable[[Any, Any], Any], params: Any, value: Any) -> Any:
    """Activation checkpointing of a function."""
    return jax.checkpoint(function)(params, value)


def save(path: str | Path, layer: Layer, params: Mapping[str, jax.Array]) -> None:
    """Write parameters to a safetensors file that every backend can load.

    Parameters
    ----------
    path : str or pathlib.Path
        File to write.
    layer : Layer
        The description.
    params : mapping of str to jax.Array
        Its parameters.

    Raises
    ------
    ParameterError
        If the parameters are not this layer's.
    MissingDependencyError
        If safetensors is not installed.
    """
    save_parameters(path, layer, params, "jax")


def load(path: str | Path, layer: Layer | None = None) -> tuple[Layer, Params]:
    """Read a layer's description and parameters from a file written by any backend.

    Parameters
    ----------
    path : str or pathlib.Path
        File to read.
    layer : Layer, optional
        The description that the file must belong to; by default the one in the file.

    Returns
    -------
    Layer, dict of str to jax.Array
        The description, and the parameters with the dtypes they were saved with (float64 needs JAX's 64-bit mode).

    Raises
    ------
    ParameterError
        If the file is damaged or belongs to another layer.
    """
    return load_parameters(path, layer, "jax")
