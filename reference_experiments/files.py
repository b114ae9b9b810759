"""Files that are whole or absent, and known to be as they were written; folders in which one process writes at a time.

A file is written beside its place and moved there, so that an interrupted run can go on. What is read back carries a
checksum: JSON and arrays their own (see `nfn_core.files`), shards of networks in ``dataset.json``. An error of a
file is one line that names it.
"""

import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.numpy import load, save

from nfn_core import MissingDependencyError, NFNError
from nfn_core.files import BLANK, CHECKSUM, holds, sealed, sealed_tensors

__all__ = [
    "AGAIN",
    "ExperimentError",
    "MissingDataError",
    "check_claim",
    "claimed",
    "digest",
    "held",
    "is_main_process",
    "kept_json",
    "read_arrays",
    "read_json",
    "reading",
    "reason",
    "write",
    "write_arrays",
    "write_json",
]

AGAIN = "delete it and run the same command again to remake it"
"""What to do about a damaged file that a command has written."""
DENSEST = 1032
"""Bytes at most that deflate, in zip, gzip and HDF5 files, packs into one."""


class ExperimentError(NFNError):
    """An experiment's files or settings do not fit."""


class MissingDataError(ExperimentError):
    """Images or shapes that networks are made of are not on this machine, and cannot be fetched."""


def is_main_process() -> bool:
    """Whether this process writes: of those that torchrun starts together, only the first does."""
    return os.environ.get("RANK", "0") == "0"


def digest(settings: Mapping[str, Any]) -> str:
    """SHA-256 of settings, 64 hexadecimal digits; the order of their names does not count."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def reason(error: BaseException) -> str:
    """What an error says, on one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) < 300 else text[:300] + "…"


def check_claim(path: Path, size: int) -> None:
    """See that a file can hold what it claims to, before memory is asked for.

    Raises
    ------
    ExperimentError
        If it claims more bytes than deflate can make of its own.
    """
    held = path.stat().st_size
    if size > DENSEST * held:
        raise ExperimentError(f"{path} is damaged: it claims to hold {size:,} bytes, but has {held:,}: get it again.")


@contextmanager
def reading(path: Path, kind: str, remedy: str = "get it again") -> Iterator[None]:
    """Read a file inside this context: whatever its reader stumbles over becomes an error that names the file.

    Parameters
    ----------
    path : pathlib.Path
        The file; it must be an ordinary one, not a pipe or a device.
    kind : str
        What it should be.
    remedy : str
        What to do if it is not.

    Raises
    ------
    ExperimentError
        If the file is missing, damaged or of another kind.
    """
    try:
        if not path.is_file():
            missing = "no ordinary file" if path.exists() else "a link to nothing" if path.is_symlink() else "missing"
            raise ExperimentError(f"{path} is {missing}: expected a {kind}; {remedy}.")
        yield
    except MissingDependencyError:
        raise
    except Exception as error:  # readers raise whatever they find
        if isinstance(error, ExperimentError) and path.name in str(error):
            raise
        if isinstance(error, OSError) and error.errno and error.filename is not None:
            raise ExperimentError(f"{path} cannot be read ({reason(error)}).") from error
        raise ExperimentError(f"{path} is damaged, or no {kind} ({reason(error)}): {remedy}.") from error


def write(path: Path, save: Callable[[Path], Any]) -> None:
    """Let `save` write a file beside `path`, with the same ending, and move it there once it is whole and on the disk.

    Raises
    ------
    ExperimentError
        If it cannot be written: the disk is full, the folder is read-only, the name too long.
    """
    if not is_main_process():
        return
    partial = path.with_name(f".partial-{uuid4().hex}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise ExperimentError(f"{path} cannot be written ({reason(error)}).") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any], indent: int | None = 2) -> None:
    """Write a JSON object with its checksum, on one line without an indent."""
    text = json.dumps({CHECKSUM: BLANK, **value}, indent=indent) + "\n"
    write(path, lambda p: p.write_bytes(sealed(text.encode())))


def read_json(path: Path, unsealed: bool = False) -> dict[str, Any]:
    """Read a JSON object, without its checksum.

    Parameters
    ----------
    path : pathlib.Path
        File to read.
    unsealed : bool
        Whether it may be a file that has no checksum, as an earlier version wrote it.

    Raises
    ------
    ExperimentError
        If the file is missing, damaged or no JSON object.
    """
    with reading(path, "JSON object", AGAIN):
        data = path.read_bytes()
        value: dict[str, Any] = json.loads(data)
        if not isinstance(value, dict):
            raise TypeError(f"it holds a {type(value).__name__}")
        _check(path, data, unsealed)
    value.pop(CHECKSUM, None)
    return value


def kept_json(path: Path, make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Read an object of JSON; if it is not there, it is made and written first, so that an interrupted run goes on."""
    if not path.exists():
        write_json(path, make())
    return read_json(path)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to a safetensors file with its checksum."""
    ordered = {name: np.asarray(x, order="C") for name, x in arrays.items()}
    write(path, lambda p: p.write_bytes(sealed_tensors(save(ordered))))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what `write_arrays` wrote; an `ExperimentError` names a damaged file, or one without a checksum."""
    with reading(path, "file of arrays", AGAIN):
        data = path.read_bytes()
        found: dict[str, np.ndarray] = load(data)
        _check(path, data)
        return found


def _check(path: Path, data: bytes, unsealed: bool = False) -> None:
    """Compare a file with its checksum."""
    agrees = holds(data)
    if agrees is None and not unsealed:
        raise ExperimentError(f"{path} has no checksum, so an earlier version wrote it, or it is damaged: {AGAIN}.")
    if agrees is False:
        raise ExperimentError(f"{path} is damaged: its contents do not agree with its checksum: {AGAIN}.")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes from writing in a folder; the lock ends with this process, however it ends.

    Raises
    ------
    ExperimentError
        If another process holds the folder, or nothing can be written there.
    """
    if not is_main_process():
        yield
        return
    note, lock = folder / ".holder", FileLock(folder / ".lock", timeout=0, is_singleton=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        if lock.lock_counter == 1:
            since = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
            note.write_text(f"process {os.getpid()} on {platform.node()} since {since}")
    except Timeout as error:
        holder = note.read_bytes()[:200].decode(errors="replace") if note.is_file() else "another process"
        raise ExperimentError(
            f"{folder} is in use by {holder}: wait until it ends, or choose another folder."
        ) from error
    except OSError as error:
        raise ExperimentError(f"{folder} cannot be written to ({reason(error)}).") from error
    try:
        yield
    finally:
        if lock.lock_counter == 1:
            note.unlink(missing_ok=True)
        lock.release()


@contextmanager
def claimed(folder: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Hold a folder, and mark it with a run's settings, or find that it is a run with the same ones.

    Raises
    ------
    ExperimentError
        If another process holds the folder, or it is of a run with other settings, or of one that nothing is known of.
    """
    path, settings = folder / "settings.json", json.loads(json.dumps(settings))  # tuples become lists
    with held(folder):
        if is_main_process():
            if not path.exists():
                if (folder / "dataset.json").exists():
                    raise ExperimentError(f"{folder} holds another dataset: choose another folder, or delete it.")
                write_json(path, settings)
            found = read_json(path)
            if found != settings:
                raise ExperimentError(
                    f"{folder} holds a run with settings {found}, but this run has {settings}: choose another --output "
                    "or delete that folder."
                )
            # what killed runs left: none of them goes on, since this one holds the folder
            for left in folder.rglob(".partial-*"):
                left.unlink(missing_ok=True)
        yield
