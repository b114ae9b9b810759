"""Files that are whole or absent: written beside their place and moved there, so that an interrupted run can go on."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from nfn_core import NFNError

__all__ = [
    "ExperimentError",
    "MissingDataError",
    "claim_run_dir",
    "is_main_process",
    "read_arrays",
    "read_json",
    "write",
    "write_arrays",
    "write_json",
]


class ExperimentError(NFNError):
    """An experiment's files or settings do not fit."""


class MissingDataError(ExperimentError):
    """Images or shapes that networks are made of are not on this machine, and cannot be fetched."""


def is_main_process() -> bool:
    """Whether this process writes: of those that torchrun starts together, only the first does."""
    return os.environ.get("RANK", "0") == "0"


def write(path: Path, save: Callable[[Path], Any]) -> None:
    """Let `save` write a file beside `path`, with the same ending, and move it there once it is whole."""
    if not is_main_process():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{path.name}")
    try:
        save(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Write JSON, on one line without an indent."""
    write(path, lambda p: p.write_text(json.dumps(value, indent=indent) + "\n"))


def read_json(path: Path) -> Any:
    """Read JSON; an `ExperimentError` names a damaged file."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise _damaged(path, error) from error


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to a safetensors file."""
    write(path, lambda p: save_file({name: np.asarray(x, order="C") for name, x in arrays.items()}, p))


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read arrays; an `ExperimentError` names a damaged file."""
    try:
        return load_file(path)
    except SafetensorError as error:
        raise _damaged(path, error) from error


def claim_run_dir(folder: Path, settings: Mapping[str, Any]) -> None:
    """Mark a folder with a run's settings, or find that it is a run with the same ones.

    Raises
    ------
    ExperimentError
        If the folder holds a run with other settings.
    """
    path, settings = folder / "settings.json", json.loads(json.dumps(settings))  # tuples become lists
    if not path.exists():
        write_json(path, settings)
    found = read_json(path)
    if found != settings:
        raise ExperimentError(
            f"{folder} holds a run with settings {found}, but this run has {settings}: choose another --output "
            "or delete that folder."
        )


def _damaged(path: Path, error: Exception) -> ExperimentError:
    return ExperimentError(f"{path} is damaged ({error}): delete it and run the same command again to remake it.")
