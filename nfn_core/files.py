"""Parameter files: safetensors with the description of their layer in the header. No pickle is ever read."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any

from nfn_core.arrays import Array, namespace_of
from nfn_core.checks import check_choice, check_kind
from nfn_core.descriptions import from_json, to_json
from nfn_core.errors import MissingDependencyError, ParameterError, SpecError
from nfn_core.layers.base import Layer
from nfn_core.layers.parameters import check_parameters

__all__ = ["fingerprint", "load_parameters", "read_shapes", "read_tensors", "save_parameters"]

HEADER = "nfn_core"
"""The one key of a parameter file's header; it holds the layer's description as JSON."""
SAFETENSORS = {"numpy": "numpy", "torch": "torch", "jax": "flax"}
"""For each backend the module of safetensors that reads and writes its arrays."""
FRAMEWORKS = {"numpy": "np", "torch": "pt", "jax": "flax"}
"""For each backend what ``safe_open`` calls it."""


def fingerprint(layer: Layer) -> str:
    """Digest of a layer's whole description: weight space, group, channels and options.

    Parameters
    ----------
    layer : Layer
        The layer or network description.

    Returns
    -------
    str
        SHA-256 of its JSON form, 64 hexadecimal digits.
    """
    return hashlib.sha256(to_json(layer).encode()).hexdigest()


def save_parameters(path: str | Path, layer: Layer, params: Mapping[str, Array], backend: str = "numpy") -> None:
    """Write parameters to a safetensors file, which any backend can load.

    Parameters
    ----------
    path : str or pathlib.Path
        File to write.
    layer : Layer
        The layer or network description.
    params : mapping of str to array
        Its parameters, arrays of `backend`.
    backend : {"numpy", "torch", "jax"}
        Kind of the arrays.

    Raises
    ------
    ParameterError
        If the parameters are not this layer's or not of `backend`, or the file cannot be written.
    SpecError
        If `layer` is no layer, `path` no path, or `backend` unknown.
    MissingDependencyError
        If safetensors is not installed.
    """
    check_choice("backend", backend, tuple(SAFETENSORS))
    check_kind("layer", layer, Layer)
    check_kind("path", path, str | PathLike)
    check_parameters(layer.cached_specs, params)
    for name, p in params.items():
        if backend not in namespace_of(p).__name__:
            raise ParameterError(
                f"parameter {name!r} is a {type(p).__module__}.{type(p).__name__}, not of {backend!r}."
            )
    save: Callable[..., None] = _safetensors(f".{SAFETENSORS[backend]}").save_file
    try:
        save(dict(params), Path(path), metadata={HEADER: to_json(layer)})
    except (OSError, ValueError, TypeError, RuntimeError, _safetensors("").SafetensorError) as error:
        raise ParameterError(f"cannot write parameter file {str(path)!r}: {error}.") from error


def load_parameters(
    path: str | Path, layer: Layer | None = None, backend: str = "numpy"
) -> tuple[Layer, dict[str, Any]]:
    """Read parameters written by `save_parameters` in any backend.

    Files of nfn-core 0.1 name no description: give the layer they belong to, whose names and shapes are then checked, and
    save the parameters again.

    Parameters
    ----------
    path : str or pathlib.Path
        File to read.
    layer : Layer, optional
        The description they must belong to; by default the one in the file.
    backend : {"numpy", "torch", "jax"}
        Kind of arrays wanted.

    Returns
    -------
    Layer, dict of str to array
        The description, and the parameters, on the CPU, with the dtypes they were saved with.

    Raises
    ------
    ParameterError
        If the file is missing, damaged, of another format, or belongs to another layer.
    SpecError
        If `layer` is no layer, `path` no path, or `backend` unknown.
    MissingDependencyError
        If safetensors is not installed.
    """
    check_kind("layer", layer, Layer | None)
    params, header = read_tensors(path, backend)
    if HEADER in header:
        try:
            found = from_json(header[HEADER])
        except SpecError as error:
            raise ParameterError(f"parameter file {str(path)!r}: {error}") from error
        if not isinstance(found, Layer):
            raise ParameterError(f"parameter file {str(path)!r} describes a {type(found).__name__}, not a layer.")
    elif header.get("format") == "nfn-core parameters 1" and layer is not None:
        found = layer
    elif header.get("format") == "nfn-core parameters 1":
        raise ParameterError(
            f"parameter file {str(path)!r} was written by nfn-core 0.1, whose files hold no description: load it once with "
            "its layer, load_parameters(path, layer), and save it again."
        )
    else:
        raise ParameterError(
            f"parameter file {str(path)!r} has no header {HEADER!r}: it was not written by save_parameters, nfn_torch.save or "
            "nfn_jax.save."
        )
    check_parameters((layer or found).cached_specs, params)
    if layer is not None and found != layer:
        raise ParameterError(
            f"parameter file {str(path)!r} fits in names and shapes, but was written for another description (weight space, "
            "group, pooling or another option): load it without one, or with the description it was saved with."
        )
    return found, {name: params[name] for name in found.cached_specs}


def read_tensors(path: str | Path, backend: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Read a safetensors file.

    Parameters
    ----------
    path : str or pathlib.Path
        File to read.
    backend : {"numpy", "torch", "jax"}
        Kind of arrays wanted.

    Returns
    -------
    dict of str to array, dict of str to str
        The tensors, on the CPU, and the header.

    Raises
    ------
    ParameterError
        If the file is missing or damaged.
    MissingDependencyError
        If safetensors is not installed.
    """
    check_choice("backend", backend, tuple(FRAMEWORKS))
    with _opened(path, FRAMEWORKS[backend]) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def read_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of a safetensors file; of the file only the header is read.

    Parameters
    ----------
    path : str or pathlib.Path
        File to read.

    Returns
    -------
    dict of str to tuple of int
        The shapes.

    Raises
    ------
    ParameterError
        If the file is missing or damaged.
    MissingDependencyError
        If safetensors is not installed.
    """
    with _opened(path, "np") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


@contextmanager
def _opened(path: str | Path, framework: str) -> Iterator[Any]:
    """An open safetensors file."""
    check_kind("path", path, str | PathLike)
    safetensors = _safetensors("")
    try:
        with safetensors.safe_open(Path(path), framework=framework) as file:
            yield file
    except (OSError, safetensors.SafetensorError) as error:
        raise ParameterError(
            f"cannot read parameter file {str(path)!r}: {error}. It is missing, truncated or no safetensors file: "
            "write it again."
        ) from error


def _safetensors(module: str) -> Any:
    """The safetensors package or one of its modules."""
    try:
        return import_module("safetensors" + module)
    except ImportError as error:
        raise MissingDependencyError(
            f"parameter files need the package safetensors ({error}): install it, for example with "
            "nfn-core[torch] or nfn-core[jax]."
        ) from error
