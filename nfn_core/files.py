"""Parameter files: safetensors with a header that says which layer they belong to. No pickle is ever read."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfn_core.arrays import Array
from nfn_core.errors import MissingDependencyError, ParameterError
from nfn_core.layers.parameters import check_parameters

if TYPE_CHECKING:
    from nfn_core.layers.base import Layer

__all__ = ["FORMAT", "fingerprint", "load_parameters", "read_shapes", "read_tensors", "save_parameters"]

FORMAT = "nfn-core parameters 1"


def fingerprint(layer: "Layer") -> str:
    """Digest of a layer's whole description: weight space, group, channels and options.

    Parameters
    ----------
    layer : Layer
        The layer or network description.

    Returns
    -------
    str
        SHA-256 of its representation, 64 hexadecimal digits.
    """
    return hashlib.sha256(repr(layer).encode()).hexdigest()


def save_parameters(path: str | Path, layer: "Layer", params: Mapping[str, Array], library: str = "numpy") -> None:
    """Write parameters to a safetensors file, which any backend can load.

    Parameters
    ----------
    path : str or pathlib.Path
        File to write.
    layer : Layer
        The layer or network description.
    params : mapping of str to array
        Its parameters, arrays of `library`.
    library : {"numpy", "torch", "flax"}
        The safetensors module that writes them; ``"flax"`` stands for plain JAX arrays.

    Raises
    ------
    ParameterError
        If the parameters are not this layer's.
    MissingDependencyError
        If safetensors is not installed.
    """
    check_parameters(layer.parameter_specs(), params)
    save: Callable[..., None] = _safetensors(f".{library}").save_file
    save(dict(params), Path(path), metadata={"format": FORMAT, "fingerprint": fingerprint(layer)})


def load_parameters(path: str | Path, layer: "Layer", library: str = "numpy") -> dict[str, Array]:
    """Read parameters written by `save_parameters` in any backend.

    Parameters
    ----------
    path : str or pathlib.Path
        File to read.
    layer : Layer
        The layer or network description they must belong to.
    library : {"numpy", "torch", "flax"}
        Kind of arrays wanted.

    Returns
    -------
    dict of str to array
        The parameters, on the CPU, with the dtypes they were saved with.

    Raises
    ------
    ParameterError
        If the file is missing, damaged, of another format version, or belongs to another layer.
    MissingDependencyError
        If safetensors is not installed.
    """
    params, header = read_tensors(path, library)
    if header.get("format") != FORMAT:
        raise ParameterError(
            f"parameter file {str(path)!r} has format {header.get('format')!r}, expected {FORMAT!r}: "
            "it was written by another program or version."
        )
    check_parameters(layer.parameter_specs(), params)
    if header.get("fingerprint") != fingerprint(layer):
        raise ParameterError(
            f"parameter file {str(path)!r} fits in names and shapes, but was written for a layer described otherwise "
            "(weight space, group, pooling or another option): load it with the description it was saved with."
        )
    return {name: params[name] for name in layer.parameter_specs()}


def read_tensors(path: str | Path, library: str) -> tuple[dict[str, Array], dict[str, str]]:
    """Read a safetensors file.

    Parameters
    ----------
    path : str or pathlib.Path
        File to read.
    library : {"numpy", "torch", "flax"}
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
    framework = {"numpy": "np", "torch": "pt", "flax": "flax"}[library]
    with _opened(path, framework) as file:
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
