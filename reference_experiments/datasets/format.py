"""Sets of networks on disk: safetensors shards of stacked tensors, memory-mapped, with a JSON header and a checksum each.

A folder holds ``dataset.json`` and shards ``shard-00000.safetensors``, each beside a file of its SHA-256 in the form
that ``sha256sum --check`` reads. In a shard lie a tensor ``weights.NAME`` of shape (networks, *axes) for every
tensor of the weight space (of winning tickets also ``masks.NAME``), and columns ``columns.NAME`` of shape (networks,): split, label, quality, hyperparameters.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from nfn_core import NFNError, WeightSpace
from reference_experiments.files import ExperimentError, read_json, write, write_json
from reference_experiments.sources.splits import SPLITS

__all__ = [
    "Networks",
    "WeightDataset",
    "finish",
    "is_whole",
    "read_shard",
    "shard_path",
    "space_from_json",
    "space_to_json",
    "write_shard",
]


FORMAT = "nfn-core weights 1"


HEADER = "nfn-core"


DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "|u1", "BOOL": "|b1"}


@dataclass(frozen=True)
class Networks:
    """Networks of one weight space.

    Parameters
    ----------
    space : WeightSpace
        Their weight space.
    weights : dict of str to numpy.ndarray
        For each tensor an array of shape (networks, *axes).
    columns : dict of str to numpy.ndarray
        What is known of each network, arrays of shape (networks,); ``split`` numbers `SPLITS`.
    about : dict of str to object
        What holds for all of them, as JSON has it: maker, settings, sources, conventions.
    masks : dict of str to numpy.ndarray
        For winning tickets, which entries of each tensor stay: booleans of shape (networks, *axes).

    Raises
    ------
    ExperimentError
        If an array has another shape than space and number of networks ask for.
    """

    space: WeightSpace
    weights: dict[str, np.ndarray]
    columns: dict[str, np.ndarray]
    about: dict[str, Any] = field(default_factory=dict)
    masks: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = {t.name: (len(self), *t.shape) for t in self.space.tensors}
        columns: dict[str, tuple[int, ...]] = dict.fromkeys(self.columns, (len(self),))
        parts: list[tuple[dict[str, np.ndarray], dict[str, tuple[int, ...]]]]
        parts = [(self.weights, shapes), (self.masks, shapes if self.masks else {}), (self.columns, columns)]
        for arrays, wanted in parts:
            came = {name: x.shape for name, x in arrays.items()}
            if came != wanted:
                raise ExperimentError(f"expected arrays of shapes {wanted}, but {came} came.")

    def __len__(self) -> int:
        return len(next(iter(self.weights.values())))


def space_to_json(space: WeightSpace) -> dict[str, Any]:
    """Describe a weight space in JSON: for each tensor its axes as pairs of label and size."""
    axes = {t.name: [list(pair) for pair in zip(t.labels, t.shape, strict=True)] for t in space.tensors}
    return {"axes": axes, "inputs": list(space.inputs), "outputs": list(space.outputs)}


def space_from_json(value: Mapping[str, Any]) -> WeightSpace:
    """Undo `space_to_json`; the tensors' layer indices are their order."""
    return WeightSpace.from_axes(value["axes"], value["inputs"], value["outputs"])


def shard_path(folder: Path, index: int) -> Path:
    """Where a shard lies."""
    return folder / f"shard-{index:05}.safetensors"


def write_shard(path: Path, networks: Networks) -> None:
    """Write a shard, then its checksum; the same networks make the same bytes."""
    arrays = {f"weights.{name}": x for name, x in networks.weights.items()}
    arrays |= {f"masks.{name}": x for name, x in networks.masks.items()}
    arrays |= {f"columns.{name}": x for name, x in networks.columns.items()}
    header = {"format": FORMAT, "space": space_to_json(networks.space), "splits": SPLITS, **networks.about}
    metadata = {HEADER: json.dumps(header, sort_keys=True)}
    write(path, lambda p: save_file({n: np.ascontiguousarray(x) for n, x in arrays.items()}, p, metadata))
    checksum = _checksum(path)
    write(_checksum_path(path), lambda p: p.write_text(f"{checksum}  {path.name}\n"))


def is_whole(path: Path) -> bool:
    """Whether a shard is there with the checksum it was written with.

    Raises
    ------
    ExperimentError
        If shard and checksum are there and do not agree.
    """
    if not path.exists() or not _checksum_path(path).exists():
        return False
    if _checksum_path(path).read_text().split()[:1] != [_checksum(path)]:
        raise ExperimentError(
            f"{path} is damaged: its SHA-256 is not the one in {_checksum_path(path).name}. Delete it and run the "
            "command that made it again."
        )
    return True


def read_shard(path: Path) -> Networks:
    """Map a shard into memory; nothing is read before it is used.

    Raises
    ------
    ExperimentError
        If the file is damaged or no shard of networks.
    """
    parts: dict[str, dict[str, np.ndarray]] = {"weights": {}, "masks": {}, "columns": {}}
    try:
        with safe_open(path, "numpy") as shard:  # checks the header against the file's size
            header = json.loads(shard.metadata()[HEADER])
        form, space = header.pop("format"), space_from_json(header.pop("space"))
        for name, x in _mapped(path).items():
            kind, _, short = name.partition(".")
            parts[kind][short] = x
        networks = Networks(space, parts["weights"], parts["columns"], header, parts["masks"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, NFNError) as error:
        raise ExperimentError(f"{path} is no shard of networks, or damaged ({error!r}): make it again.") from error
    if form != FORMAT:
        raise ExperimentError(f"{path} is not of the format {FORMAT!r}: make it again with this version.")
    return networks


def finish(folder: Path, paths: Sequence[Path], summary: Mapping[str, Any]) -> None:
    """Write ``dataset.json``, which makes a folder of whole shards a dataset."""
    shards: list[dict[str, Any]] = [
        {"file": path.name, "networks": len(read_shard(path)), "sha256": _checksum_path(path).read_text().split()[0]}
        for path in paths
    ]
    first = read_shard(paths[0])
    about = {"format": FORMAT, "space": space_to_json(first.space), "splits": SPLITS, **first.about, **summary}
    write_json(folder / "dataset.json", about | {"networks": sum(s["networks"] for s in shards), "shards": shards})


class WeightDataset:
    """A dataset of networks on disk, mapped into memory.

    Parameters
    ----------
    folder : pathlib.Path
        Its folder.

    Attributes
    ----------
    space : WeightSpace
        The networks' weight space.
    columns : dict of str to numpy.ndarray
        Columns of all networks together, each of shape (networks,).
    about : dict of str to object
        Contents of ``dataset.json``.

    Raises
    ------
    ExperimentError
        If there is no finished dataset, or a shard is missing or does not fit.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / "dataset.json").exists():
            raise ExperimentError(
                f"{folder} holds no finished dataset: run the command that makes it again to finish it."
            )
        self.about: dict[str, Any] = read_json(folder / "dataset.json")
        self.shards = [read_shard(folder / entry["file"]) for entry in self.about["shards"]]
        self.space = self.shards[0].space
        for entry, shard in zip(self.about["shards"], self.shards, strict=True):
            if len(shard) != entry["networks"] or shard.space != self.space:
                raise ExperimentError(f"{folder / entry['file']} does not belong to this dataset: make it again.")
        self.columns = {
            name: np.concatenate([shard.columns[name] for shard in self.shards]) for name in self.shards[0].columns
        }
        self.starts = np.cumsum([0, *map(len, self.shards)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def split(self, name: str) -> np.ndarray:
        """Return the indices of the networks of one of `SPLITS`."""
        return np.flatnonzero(self.columns["split"] == SPLITS.index(name))

    def network(self, index: int) -> dict[str, np.ndarray]:
        """Return one network's features, each of shape (*axes, 1): views of the file, not copies."""
        k = int(np.searchsorted(self.starts, index, side="right")) - 1
        shard = self.shards[k].weights
        return {name: shard[name][index - self.starts[k], ..., None] for name in self.space.by_name}

    def features(self, indices: Sequence[int] | np.ndarray, part: str = "weights") -> dict[str, np.ndarray]:
        """Return the weights, or the masks, of networks, each of shape (networks, *axes, 1), in the indices' order."""
        indices = np.asarray(indices)
        owner = np.searchsorted(self.starts, indices, side="right") - 1
        out = {}
        for name, spec in self.space.by_name.items():
            arrays = [getattr(shard, part)[name] for shard in self.shards]
            found = np.empty((len(indices), *spec.shape), arrays[0].dtype)
            for k in np.unique(owner):
                mine = owner == k
                found[mine] = arrays[k][indices[mine] - self.starts[k]]
            out[name] = found[..., None]
        return out

    def batches(self, indices: Sequence[int] | np.ndarray, size: int, seed: int | None = None) -> Iterator[np.ndarray]:
        """Yield indices in batches of at most `size`, shuffled if there is a seed: the same order in every backend."""
        order = np.asarray(indices)
        if seed is not None:
            order = np.random.default_rng(seed).permutation(order)
        return (order[start : start + size] for start in range(0, len(order), size))

    def verify(self) -> None:
        """Compare every shard with its checksum in ``dataset.json``.

        Raises
        ------
        ExperimentError
            That names the first damaged shard.
        """
        for entry in self.about["shards"]:
            path = self.folder / entry["file"]
            if _checksum(path) != entry["sha256"]:
                raise ExperimentError(f"{path} is damaged: run the command that made it again, and it is made anew.")


def _mapped(path: Path) -> dict[str, np.ndarray]:
    """Tensors of a safetensors file; what is written to them stays in memory."""
    data = np.memmap(path, np.uint8, mode="c")
    length = int(data[:8].view("<u8")[0])
    header = json.loads(bytes(data[8 : 8 + length]))
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, stop = (8 + length + offset for offset in entry["data_offsets"])
            found[name] = np.asarray(data[start:stop]).view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return found


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum_path(path: Path) -> Path:
    return path.with_suffix(".sha256")
