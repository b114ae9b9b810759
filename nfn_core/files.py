"""Parameter files: safetensors with the description of their layer, and a checksum, in the header. No pickle is ever read.

The checksum is the SHA-256 of the file itself, with zeros where its own digits stand. Other files can have one too: whatever
holds the text ``"checksum": "DIGITS"`` once.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any

from nfn_core.arrays import Array, is_real, namespace_of
from nfn_core.checks import check_choice, check_kind
from nfn_core.descriptions import from_json, to_json
from nfn_core.errors import MissingDependencyError, ParameterError, SpecError
from nfn_core.layers.base import Layer
from nfn_core.layers.parameters import check_parameters

__all__ = [
    "BLANK",
    "CHECKSUM",
    "fingerprint",
    "holds",
    "load_parameters",
    "read_shapes",
    "read_tensors",
    "save_parameters",
    "sealed",
    "sealed_tensors",
]

HEADER = "nfn_core"
"""Key of a parameter file's header that holds the layer's description as JSON."""
CHECKSUM = "checksum"
"""Key of a file's checksum, in the header of a safetensors file or in a JSON object."""
BLANK = "0" * 64
"""What stands in place of the checksum's digits when it is computed."""
SEAL = re.compile(rb'"checksum": ?"([0-9a-f]{64})"')
SAFETENSORS = {"numpy": "numpy", "torch": "torch", "jax": "flax"}
"""For each backend the module of safetensors that reads and writes its arrays."""
FRAMEWORKS = {"numpy": "np", "torch": "pt", "jax": "flax"}
"""For each backend what ``safe_open`` calls it."""
LIBRARIES = {"numpy": "NumPy", "torch": "PyTorch", "jax": "JAX"}
"""For each backend the name of its library."""
FOREIGN = ("BF16", "F8_", "F6_", "F4")
"""What the names of dtypes begin with that NumPy itself does not have; ml_dtypes, which comes with JAX, adds some of them."""


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


def sealed(data: bytes) -> bytes:
    """Give a file its checksum.

    Parameters
    ----------
    data : bytes
        Contents of the file, with ``"checksum": "000..."`` of 64 zeros in it.

    Returns
    -------
    bytes
        The contents, with the checksum's digits in place of the zeros.
    """
    start, stop = _place(data)
    return data[:start] + hashlib.sha256(data).hexdigest().encode() + data[stop:]


def sealed_tensors(data: bytes) -> bytes:
    """Give a safetensors file its checksum, as one more entry of its header.

    Parameters
    ----------
    data : bytes
        Contents of the file.

    Returns
    -------
    bytes
        Contents of the file with the checksum; entries of its header are sorted.
    """
    stop = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:stop])
    header["__metadata__"] = dict(sorted({**header.get("__metadata__", {}), CHECKSUM: BLANK}.items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    return sealed(len(text).to_bytes(8, "little") + text + data[stop:])


def holds(data: bytes) -> bool | None:
    """Compare a file with its checksum.

    Parameters
    ----------
    data : bytes
        Contents of the file.

    Returns
    -------
    bool or None
        Whether they agree; None if the file has no checksum.
    """
    start, stop = _place(data)
    if start == stop:
        return None
    digest = hashlib.sha256(data[:start])
    digest.update(BLANK.encode())
    digest.update(memoryview(data)[stop:])
    return digest.hexdigest().encode() == data[start:stop]


def _place(data: bytes) -> tuple[int, int]:
    """Where the checksum's digits stand; in a safetensors file, whose tensors may hold anything, in the header."""
    found = SEAL.search(data, 0, len(data) if data[:1] == b"{" else 8 + int.from_bytes(data[:8], "little"))
    return found.span(1) if found else (0, 0)


def save_parameters(path: str | Path, layer: Layer, params: Mapping[str, Array], backend: str = "numpy") -> None:
    """Write parameters to a safetensors file with a checksum, which any backend can load.

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
        if not is_real(p, namespace_of(p)):
            raise ParameterError(f"parameter {name!r} must be of a real floating dtype, not {p.dtype}: cast it first.")
    save: Callable[..., bytes] = _safetensors(f".{SAFETENSORS[backend]}").save
    try:
        Path(path).write_bytes(sealed_tensors(save(dict(params), metadata={HEADER: to_json(layer)})))
    except (OSError, ValueError, TypeError, RuntimeError, _safetensors("").SafetensorError) as error:
        raise ParameterError(f"cannot write parameter file {str(path)!r}: {error}.") from error


def load_parameters(
    path: str | Path, layer: Layer | None = None, backend: str = "numpy"
) -> tuple[Layer, dict[str, Any]]:
    """Read parameters written by `save_parameters` in any backend.

    Files of nfn-core 0.1 name no description and have no checksum: give the layer they belong to, whose names and shapes are
    then checked, and save the parameters again.

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
        If the file is missing, damaged (it does not agree with its checksum), of another format, or belongs to another layer.
    SpecError
        If `layer` is no layer, `path` no path, or `backend` unknown.
    MissingDependencyError
        If safetensors is not installed.
    """
    check_kind("layer", layer, Layer | None)
    params, header = read_tensors(path, backend)
    if HEADER in header and header.keys() - {HEADER, "format"}:
        raise ParameterError(
            f"parameter file {str(path)!r} has unknown entries {sorted(header.keys() - {HEADER, 'format'})} in its header: it "
            "is damaged, or of another version: write it again."
        )
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
        If the file is missing or damaged, does not agree with its checksum, if it has one, or holds a dtype that the
        backend's library does not have.
    MissingDependencyError
        If safetensors is not installed.
    """
    check_choice("backend", backend, tuple(FRAMEWORKS))
    found: dict[str, Any] = {}
    with _opened(path, FRAMEWORKS[backend]) as file:
        header: dict[str, str] = dict(file.metadata() or {})
        if header.pop(CHECKSUM, None) is not None and not holds(Path(path).read_bytes()):
            raise ParameterError(
                f"{str(path)!r} is damaged: its contents do not agree with the checksum in its header: write it again."
            )
        for name in file.keys():  # noqa: SIM118
            dtype = file.get_slice(name).get_dtype()
            try:
                if backend == "numpy" and dtype.startswith(FOREIGN):
                    raise TypeError(dtype)
                found[name] = file.get_tensor(name)
            except (AttributeError, TypeError) as error:
                raise ParameterError(
                    f"{str(path)!r}: tensor {name!r} is of dtype {dtype}, which {LIBRARIES[backend]} has no type for: read it "
                    "with another backend, or save it as float32."
                ) from error
    return found, header


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
        if Path(path).exists() and not Path(path).is_file():  # a pipe would be waited for
            raise OSError("it is no ordinary file")
        with safetensors.safe_open(Path(path), framework=framework) as file:
            yield file
    except (OSError, OverflowError, safetensors.SafetensorError) as error:
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
