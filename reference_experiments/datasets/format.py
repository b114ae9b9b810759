"""Sets of networks on disk: safetensors shards of stacked tensors, memory-mapped, with a JSON header and a checksum each.

A folder holds ``dataset.json`` and shards ``shard-00000.safetensors``, each beside a file of its SHA-256 in the form
that ``sha256sum --check`` reads. In a shard lie a tensor ``weights.NAME`` of shape (networks, *axes) for every
tensor of the weight space (of winning tickets also ``masks.NAME``), and columns ``columns.NAME`` of shape (networks,): split,
label, quality, hyperparameters. Its header says which shard of which dataset it is.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file
from tqdm import tqdm

from nfn_core import WeightSpace
from reference_experiments.files import AGAIN, ExperimentError, read_json, reading, write, write_json
from reference_experiments.sources.splits import SPLITS

__all__ = [
    "Networks",
    "WeightDataset",
    "find_copy",
    "finish",
    "is_whole",
    "mapped",
    "read_shard",
    "shard_path",
    "space_from_json",
    "space_to_json",
    "write_shard",
]


FORMAT = "nfn-core weights 2"
"""Format 1 did not say which shard of which dataset a shard is."""


HEADER = "nfn-core"


DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "|u1", "BOOL": "|b1"}


LARGE = 10**8
"""Bytes from which on a progress bar is shown while checksums are compared."""


WHOLE: set[tuple[str, str, int, int, int]] = set()
"""Shards that this process has compared with a checksum: path, checksum, and the file's size, time and number."""


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


def write_shard(path: Path, networks: Networks, index: int, settings: str) -> None:
    """Write a shard, then its checksum; the same networks make the same bytes.

    Parameters
    ----------
    path : pathlib.Path
        Where it goes.
    networks : Networks
        What is in it.
    index : int
        Its number in the dataset, from 0.
    settings : str
        Digest of the dataset's settings.
    """
    arrays = {f"weights.{name}": x for name, x in networks.weights.items()}
    arrays |= {f"masks.{name}": x for name, x in networks.masks.items()}
    arrays |= {f"columns.{name}": x for name, x in networks.columns.items()}
    header = {"format": FORMAT, "space": space_to_json(networks.space), "splits": SPLITS, **networks.about}
    metadata = {HEADER: json.dumps(header | {"index": index, "settings": settings}, sort_keys=True)}
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
    _compare(path, _recorded(path))
    return True


def read_shard(path: Path, index: int, settings: str) -> Networks:
    """Map a shard into memory; nothing is read before it is used.

    Parameters
    ----------
    path, index, settings : see `write_shard`
        As there.

    Raises
    ------
    ExperimentError
        If the file is damaged, no shard of networks, or another shard than expected.
    """
    parts: dict[str, dict[str, np.ndarray]] = {"weights": {}, "masks": {}, "columns": {}}
    with reading(path, "shard of networks", AGAIN):
        arrays, metadata = mapped(path)
        header = json.loads(metadata[HEADER])
        form, space = header.pop("format"), space_from_json(header.pop("space"))
        if form != FORMAT:
            raise ExperimentError(f"{path} is of the format {form!r}, not {FORMAT!r}: make it again with this version.")
        found = header.pop("index"), header.pop("settings")
        for name, x in arrays.items():
            kind, _, short = name.partition(".")
            parts[kind][short] = x
        networks = Networks(space, parts["weights"], parts["columns"], header, parts["masks"])
    if found != (index, settings):
        raise ExperimentError(
            f"{path} is another shard: expected number {index} of the dataset with settings {str(settings)[:8]}, but it is number "
            f"{found[0]} of {str(found[1])[:8]}: {AGAIN}."
        )
    return networks


def mapped(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Map the tensors of a safetensors file into memory; what is written to them stays in memory.

    Returns
    -------
    dict of str to numpy.ndarray, dict of str to str
        The tensors, bfloat16 as float32, and the file's header.
    """
    with safe_open(path, "numpy") as file:  # checks the header against the file's size
        metadata = file.metadata() or {}
    data = np.memmap(path, np.uint8, mode="c")
    length = int(data[:8].view("<u8")[0])
    header = json.loads(bytes(data[8 : 8 + length]))
    found = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, stop = (8 + length + offset for offset in entry["data_offsets"])
            x, dtype = np.asarray(data[start:stop]), entry["dtype"]
            if dtype == "BF16":  # the upper half of a float32
                x, dtype = (x.view("<u2").astype("<u4") << 16).view(np.uint8), "F32"
            if dtype not in DTYPES:
                raise TypeError(
                    f"tensor {name!r} is of dtype {dtype}, which NumPy has no type for, or no networks have"
                )
            found[name] = x.view(DTYPES[dtype]).reshape(entry["shape"])
    return found, metadata


def finish(folder: Path, count: int, settings: str, summary: Mapping[str, Any]) -> None:
    """Write ``dataset.json``, which makes a folder of whole shards a dataset.

    Parameters
    ----------
    folder : pathlib.Path
        The folder.
    count : int
        Number of its shards.
    settings : str
        Digest of the dataset's settings.
    summary : mapping of str to object
        What else is known of the dataset.

    Raises
    ------
    ExperimentError
        If a shard is not there, not this dataset's, or a network occurs twice.
    """
    paths = [shard_path(folder, k) for k in range(count)]
    shards = [read_shard(path, k, settings) for k, path in enumerate(paths)]
    _check_distinct(paths, shards)
    entries: list[dict[str, Any]] = [
        {"file": path.name, "networks": len(shard), "sha256": _recorded(path)}
        for path, shard in zip(paths, shards, strict=True)
    ]
    first = shards[0]
    about = {"format": FORMAT, "space": space_to_json(first.space), "splits": SPLITS, **first.about, **summary}
    about |= {"settings": settings, "networks": sum(map(len, shards)), "shards": entries}
    write_json(folder / "dataset.json", about)


class WeightDataset:
    """A dataset of networks on disk, mapped into memory.

    Parameters
    ----------
    folder : str or pathlib.Path
        Its folder.

    Attributes
    ----------
    space : WeightSpace
        The networks' weight space.
    columns : dict of str to numpy.ndarray
        Columns of all networks together, each of shape (networks,).
    about : dict of str to object
        Contents of ``dataset.json``.

    check : bool
        Whether to compare shards with their checksums, each once in a process.

    Raises
    ------
    ExperimentError
        If there is no finished dataset, or a shard is missing, damaged, or does not fit.
    """

    def __init__(self, folder: str | Path, check: bool = True) -> None:
        self.folder = folder = Path(folder)
        path = folder / "dataset.json"
        if not path.exists():
            raise ExperimentError(
                f"{folder} holds no finished dataset: run the command that makes it again to finish it."
            )
        self.about: dict[str, Any] = read_json(path)
        with reading(path, f"dataset of the format {FORMAT!r}", "make the dataset again"):
            settings, self.space = self.about["settings"], space_from_json(self.about["space"])
            entries = [(e["file"], e["networks"], e["sha256"]) for e in self.about["shards"]]
            self.paths = [shard_path(folder, k) for k in range(len(entries))]
            if not entries or [e[0] for e in entries] != [p.name for p in self.paths]:
                raise ValueError("its shards are not named shard-00000.safetensors, shard-00001.safetensors, ...")
        self.shards = [read_shard(path, k, settings) for k, path in enumerate(self.paths)]
        columns = {name: x.dtype for name, x in self.shards[0].columns.items()}
        for path, (_, count, _), shard in zip(self.paths, entries, self.shards, strict=True):
            same = {name: x.dtype for name, x in shard.columns.items()} == columns
            if len(shard) != count or shard.space != self.space or not same:
                raise ExperimentError(f"{path} does not belong to this dataset: make it again.")
        if check:
            self._check_bytes()
        self.columns = {name: np.concatenate([shard.columns[name] for shard in self.shards]) for name in columns}
        if not np.isin(self.column("split"), np.arange(len(SPLITS))).all():
            raise ExperimentError(f"{folder}: its column 'split' holds other numbers than 0, 1 and 2: make it again.")
        self.starts = np.cumsum([0, *map(len, self.shards)])

    def __len__(self) -> int:
        return sum(map(len, self.shards))

    def split(self, name: str) -> np.ndarray:
        """Return the indices of the networks of one of `SPLITS`."""
        if name not in SPLITS:
            raise ExperimentError(f"{self.folder}: there is no split {name!r}: choose one of {', '.join(SPLITS)}.")
        return np.flatnonzero(self.columns["split"] == SPLITS.index(name))

    def column(self, name: str) -> np.ndarray:
        """Return a column of all networks, shape (networks,)."""
        if name not in self.columns:
            raise ExperimentError(
                f"{self.folder}: there is no column {name!r}: choose one of {', '.join(self.columns)}."
            )
        return self.columns[name]

    def positions(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return which networks are meant, int64.

        Parameters
        ----------
        indices : sequence of int or numpy.ndarray
            Numbers of networks from 0, shape (chosen,); or booleans, shape (networks,), true for those that are chosen.

        Raises
        ------
        ExperimentError
            If they are neither, or there is no such network.
        """
        found = np.asarray(indices)
        if found.ndim == 1 and not len(found):
            return np.empty(0, np.int64)
        if found.dtype == bool and found.shape == (len(self),):
            return np.flatnonzero(found)
        if found.ndim != 1 or found.dtype.kind not in "iu":
            raise ExperimentError(
                f"{self.folder}: expected numbers of networks, shape (chosen,), or booleans, shape ({len(self)},), but "
                f"{found.dtype} of shape {found.shape} came."
            )
        if found.min() < 0 or found.max() >= len(self):
            wrong = found[(found < 0) | (found >= len(self))][0]
            raise ExperimentError(f"{self.folder} has networks 0 to {len(self) - 1}, but number {wrong} is asked for.")
        return found.astype(np.int64, copy=False)

    def network(self, index: int) -> dict[str, np.ndarray]:
        """Return one network's features, each of shape (*axes, 1): views of the file, not copies."""
        (index,) = self.positions([index]).tolist()
        k = int(np.searchsorted(self.starts, index, side="right")) - 1
        shard = self.shards[k].weights
        return {name: shard[name][index - self.starts[k], ..., None] for name in self.space.by_name}

    def features(self, indices: Sequence[int] | np.ndarray, part: str = "weights") -> dict[str, np.ndarray]:
        """Return the weights, or the masks, of networks, each of shape (chosen, *axes, 1), in the order of `positions`."""
        indices = self.positions(indices)
        if not all(getattr(shard, part, None) for shard in self.shards):
            raise ExperimentError(f"{self.folder} holds no {part} of networks: ask for its weights.")
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
        order = self.positions(indices)
        if seed is not None:
            order = np.random.default_rng(seed).permutation(order)
        return (order[start : start + size] for start in range(0, len(order), size))

    def verify(self) -> None:
        """Compare shards with their checksums, those that were not compared before, and look for networks that occur twice.

        Raises
        ------
        ExperimentError
            That names the first damaged shard, or the two networks.
        """
        self._check_bytes()
        _check_distinct(self.paths, self.shards)

    def _check_bytes(self) -> None:
        """Compare shards with their checksums in ``dataset.json``, those that this process has not compared before."""
        sums = [entry["sha256"] for entry in self.about["shards"]]
        sizes = [path.stat().st_size for path in self.paths]
        total = sum(sizes)
        title = f"checksums of {self.folder}"
        with tqdm(total=total, unit="B", unit_scale=True, desc=title, leave=False, disable=total < LARGE) as bar:
            for path, checksum, size in zip(self.paths, sums, sizes, strict=True):
                _compare(path, checksum)
                bar.update(size)


def _compare(path: Path, checksum: str) -> None:
    """Compare a shard with its checksum, once in a process."""
    with reading(path, "shard of networks", AGAIN):
        about = path.stat()
        known = (str(path.resolve()), checksum, about.st_size, about.st_mtime_ns, about.st_ino)
        if known not in WHOLE and _checksum(path) != checksum:
            raise ExperimentError(f"{path} is damaged: its SHA-256 is not the one that was recorded: {AGAIN}.")
    WHOLE.add(known)


def find_copy(parts: Iterable[Networks]) -> tuple[int, int] | None:
    """Find a network that is there twice: with the same columns, or in two splits.

    A network that did not learn may have the same weights at two checkpoints, which are in one split.

    Parameters
    ----------
    parts : iterable of Networks
        Shards of a dataset.

    Returns
    -------
    tuple of (int, int) or None
        Numbers of both, counted from 0 over all parts; None if all differ.
    """
    seen: dict[bytes, tuple[int, bytes, int]] = {}
    number = 0
    for part in parts:
        arrays = [*part.weights.values(), *part.masks.values()]
        for k in range(len(part)):
            key = hashlib.sha256(b"".join(x[k].tobytes() for x in arrays)).digest()
            about = b"".join(x[k].tobytes() for x in part.columns.values())
            split = int(part.columns["split"][k])
            first = seen.setdefault(key, (number, about, split))
            if first[0] != number and (first[1] == about or first[2] != split):
                return first[0], number
            number += 1
    return None


def _check_distinct(paths: Sequence[Path], shards: Sequence[Networks]) -> None:
    """See that no network is there twice."""
    found = find_copy(tqdm(shards, unit="shard", desc="looking for copies", leave=False))
    if found is not None:
        starts = np.cumsum([0, *map(len, shards)])
        first, second = (int(np.searchsorted(starts, number, side="right")) - 1 for number in found)
        raise ExperimentError(
            f"{paths[second]}: network {found[1] - starts[second]} is the same as network {found[0] - starts[first]} of "
            f"{paths[first].name}: a network must not be there twice; delete both files and run the same command again, or "
            "take one of the networks out."
        )


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum_path(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _recorded(path: Path) -> str:
    """SHA-256 of a shard, from the file beside it."""
    beside = _checksum_path(path)
    with reading(beside, "file of a checksum", AGAIN):
        found = re.fullmatch(rf"([0-9a-f]{{64}})  {re.escape(path.name)}\n", beside.read_bytes().decode())
        if found is None:
            raise ValueError("it does not name its shard after 64 hexadecimal digits")
        return found[1]
