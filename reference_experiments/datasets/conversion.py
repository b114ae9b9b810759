"""Readers of networks as others publish or keep them: the paper's SIREN folders, the Small CNN Zoo, DWSNets' INRs, files.

What is published is returned as `Networks` in this package's order of axes, with the split its publishers use.
"""

import ast
import csv
import gzip
import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any
from warnings import catch_warnings

import numpy as np
from tqdm import tqdm

from nfn_core import WeightSpace
from nfn_core.files import CHECKSUM, holds
from reference_experiments.datasets.format import Networks, find_copy, mapped
from reference_experiments.files import ExperimentError, reading, write
from reference_experiments.sources.splits import SPLITS

__all__ = ["read_dwsnets", "read_networks", "read_siren_folders", "read_small_cnn_zoo", "write_small_cnn_zoo"]

ZOO_VARIABLES = ("sequential/conv2d", "sequential/conv2d_1", "sequential/conv2d_2", "sequential/dense")
ROW = 8192
"""Bytes at most, on average, of a row of a table."""


def read_siren_folders(
    folder: Path, prefix: str, split_points: tuple[int, int] = (45000, 50000), augmented: int = 0
) -> Networks:
    """Read the paper's SIRENs: ``{prefix}_{class}s/net{number}.pth``, state dicts of one SIREN each.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of the class folders.
    prefix : str
        Their prefix, ``"randinit_test"`` for instance.
    split_points : tuple of int
        Numbers of the first validation and the first test network.
    augmented : int
        Number of further sets ``{prefix}_aug{i}``, whose training networks are added.

    Returns
    -------
    Networks
        With columns split, label and image (the number in the file's name).

    Raises
    ------
    ExperimentError
        If nothing is found, or a file is damaged or of another architecture.
    """
    found: list[tuple[int, int, Path]] = []
    for start in [prefix, *(f"{prefix}_aug{i}" for i in range(augmented))]:
        for path in folder.glob(f"{start}_[0-9]s/net*.pth"):
            match = re.fullmatch(r"net(\d+)\.pth", path.name)
            if match and int(match[1]) >= 2**31:
                raise ExperimentError(f"{path}: expected the number of an image below 2³¹: take it out.")
            if match and (start == prefix or int(match[1]) < split_points[0]):
                found.append((int(match[1]), int(path.parent.name[-2]), path))
    if not found:
        raise ExperimentError(
            f"{folder}: there is no file {prefix}_[0-9]s/net*.pth: name the folder around the class folders."
        )
    found.sort(key=lambda entry: (entry[0], entry[2].as_posix()))
    number = np.array([entry[0] for entry in found], np.int32)
    columns: dict[str, np.ndarray] = {
        "split": np.digitize(number, split_points).astype(np.uint8),
        "label": np.array([entry[1] for entry in found], np.int32),
        "image": number,
    }
    space, weights = _stack_mlps([entry[2] for entry in found])
    networks = Networks(space, weights, columns, {"dataset": "SIREN folders", "omega_0": 30.0})
    return _distinct(networks, [str(entry[2]) for entry in found])


def read_dwsnets(splits: Path) -> Networks:
    """Read the INRs of DWSNets (Navon et al. 2023) by a file of splits.

    Parameters
    ----------
    splits : pathlib.Path
        JSON: for ``train``, ``val`` and ``test`` a list ``path`` of state dicts (taken from the file's folder where
        they are relative) and a list ``label``.

    Returns
    -------
    Networks
        With columns split and label.

    Raises
    ------
    ExperimentError
        If the file is not of this form, or a network is missing, damaged or of another architecture.
    """
    with reading(splits, "file of splits of DWSNets", "make it with their script"):
        entries = json.loads(splits.read_bytes())
        parts = [(entries[name]["path"], entries[name]["label"]) for name in ("train", "val", "test")]
        if any(len(paths) != len(numbers) for paths, numbers in parts):
            raise ValueError("a split has another number of labels than of paths")
        labels = np.array([int(str(x)) for _, numbers in parts for x in numbers], np.int32)  # 1.5 is none
        if labels.min() < 0:
            raise ValueError("a label is negative")
        files = [splits.parent / path for paths, _ in parts for path in paths]
    space, weights = _stack_mlps(files)
    columns: dict[str, np.ndarray] = {
        "split": np.repeat(np.arange(3, dtype=np.uint8), [len(paths) for paths, _ in parts]),
        "label": labels,
    }
    networks = Networks(space, weights, columns, {"dataset": "DWSNets INRs", "omega_0": 30.0})
    return _distinct(networks, list(map(str, files)))


def read_small_cnn_zoo(folder: Path, order: Path | None = None, step: int = 86) -> Networks:
    """Read the Small CNN Zoo (Unterthiner et al. 2020): ``weights.npy``, ``metrics.csv.gz`` and ``layout.csv``.

    Parameters
    ----------
    folder : pathlib.Path
        Their folder.
    order : pathlib.Path, optional
        The paper's split file: row numbers of the whole zoo in a new order, one a line. After it, and after the choice
        of checkpoints, the second half is the test set, and of the first half a shuffled fifth is the validation set, as
        in the paper's code. Without it the rows stay in their order.
    step : int
        Checkpoint (epoch) to keep.

    Returns
    -------
    Networks
        With columns split, accuracy (of the test images), and all numeric columns of the metrics. Networks with weights
        that are not finite are left out, and columns of words; ``about["left_out"]`` says so.

    Raises
    ------
    ExperimentError
        If a file is missing or damaged, they do not belong together, or a number is not finite.
    """
    paths = {name: folder / name for name in ("weights.npy", "metrics.csv.gz", "layout.csv")}
    with reading(paths["weights.npy"], "array of networks"):
        flat = np.load(paths["weights.npy"], mmap_mode="r")
        if flat.ndim != 2 or flat.dtype.kind != "f":
            raise TypeError(f"expected floating-point numbers (networks, weights), but {flat.dtype} {flat.shape} came")
    metrics = _read_csv(paths["metrics.csv.gz"], len(flat))
    with reading(paths["metrics.csv.gz"], "table of metrics"):
        if len(flat) != len(metrics):
            raise ExperimentError(
                f"{folder}: weights.npy has {len(flat)} rows, but metrics.csv.gz {len(metrics)}: get both again."
            )
        steps = [float(row["step"]) for row in metrics]
        if not all(map(float.is_integer, steps)):
            raise ValueError("a step is no whole number")
    rows = np.arange(len(flat))
    if order is not None:
        with reading(order, "order of networks"), catch_warnings(action="error"):
            rows = np.loadtxt(order, dtype=np.int64, delimiter=",").ravel()
        if not np.array_equal(np.sort(rows), np.arange(len(flat))):
            raise ExperimentError(
                f"{order} is no reordering of the {len(flat)} rows of {folder}: take the file of this zoo."
            )
    rows = np.array([row for row in rows if steps[row] == step], np.int64)
    if not len(rows):
        raise ExperimentError(f"{folder}: no checkpoint is of step {step}: choose another.")
    kept = np.array(flat[rows])
    finite = np.isfinite(kept).all(axis=1)
    kept, rows = kept[finite], rows[finite]
    left_out = [f"{(~finite).sum()} of {len(finite)} networks, whose weights are not finite"] * bool((~finite).any())
    if not len(rows):
        raise ExperimentError(f"{paths['weights.npy']}: no network of step {step} is finite: get it again.")
    space, weights = _unstack_zoo(kept, folder / "layout.csv")
    columns = {}
    with reading(paths["metrics.csv.gz"], "table of metrics"):
        for name in (n for n in metrics[0] if n != "step"):
            texts = [metrics[row][name] for row in rows]
            words = [text for text in texts if not _is_number(text)]
            if words and name != "test_accuracy":
                left_out.append(f"column {name}, which holds {words[0]!r}")
                continue
            with np.errstate(over="ignore"):
                columns[name] = np.array([float(text) for text in texts], np.float64).astype(np.float32)
            if not np.isfinite(columns[name]).all():
                wrong = texts[np.flatnonzero(~np.isfinite(columns[name]))[0]]
                raise ValueError(f"column {name} holds {wrong}, which is no finite float32")
        accuracy = columns.pop("test_accuracy")
        if accuracy.min() < 0 or accuracy.max() > 1:
            raise ValueError(f"test_accuracy goes from {accuracy.min()} to {accuracy.max()}, not from 0 to 1")
    columns |= {"accuracy": accuracy, "split": _paper_split(len(rows))}
    about = {"dataset": "Small CNN Zoo", "step": step} | ({"left_out": left_out} if left_out else {})
    networks = Networks(space, weights, columns, about)
    return _distinct(networks, [f"{paths['weights.npy']}, row {row}" for row in rows])


def write_small_cnn_zoo(folder: Path, parts: Sequence[Networks], metrics: Sequence[Mapping[str, Any]]) -> None:
    """Write networks in the layout of the Small CNN Zoo.

    Parameters
    ----------
    folder : pathlib.Path
        Where the three files go.
    parts : sequence of Networks
        CNNs of one weight space, followed by a fully-connected layer.
    metrics : sequence of mapping
        A row for each network, with ``step`` and ``test_accuracy``.
    """
    layout, blocks, start = [], [], 0
    for i, variable in enumerate(ZOO_VARIABLES, start=1):
        for name, kind in ((f"v{i}", "bias:0"), (f"W{i}", "kernel:0")):
            x = np.concatenate([part.weights[name] for part in parts])
            x = x if kind == "bias:0" else np.moveaxis(x, (1, 2), (-1, -2))
            size = x[0].size
            layout.append((f"{variable}/{kind}", start, start + size, size, x.shape[1:]))
            blocks.append(x.reshape(len(x), size))
            start += size
    write(folder / "weights.npy", lambda path: np.save(path, np.concatenate(blocks, axis=1)))
    table = StringIO(newline="")
    csv.writer(table).writerows([("varname", "start_idx", "end_idx", "size", "shape"), *layout])
    write(folder / "layout.csv", lambda path: path.write_bytes(table.getvalue().encode()))
    rows = StringIO(newline="")
    writer = csv.DictWriter(rows, list(metrics[0]))
    writer.writeheader()
    writer.writerows(metrics)
    write(folder / "metrics.csv.gz", lambda path: path.write_bytes(gzip.compress(rows.getvalue().encode(), mtime=0)))


def read_networks(folder: Path, space: WeightSpace) -> tuple[list[str], dict[str, str], dict[str, np.ndarray]]:
    """Read a folder of networks of one weight space, a safetensors file or state dict (``.pt``, ``.pth``) each.

    Tensors have the names of the space's, or end in ``weight`` and ``bias``, and then come in the order of the layers: in
    safetensors files, which keep none, sorted by name.

    Parameters
    ----------
    folder : pathlib.Path
        The folder; files of other kinds in it are ignored.
    space : WeightSpace
        The weight space, with tensors W1, v1, W2, v2, ...

    Returns
    -------
    list of str, dict of str to str, dict of str to numpy.ndarray
        Names of the files without their endings; for each tensor of the space the name it has in the files; and the
        networks, each tensor of shape (networks, *axes), float32.

    Raises
    ------
    ExperimentError
        If there are no networks, two have one name, or a file is damaged, of another architecture, or holds what is no
        finite floating-point number.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".pt", ".pth"))
    names: dict[str, str] = {}
    networks: list[dict[str, np.ndarray]] = []
    for path in tqdm(paths, unit="network", desc=str(folder), leave=False):
        found = _read_safetensors(path) if path.suffix == ".safetensors" else _read_state_dict(path)
        own = {name: name for name in found} if found.keys() == space.by_name.keys() else _named(path, found)
        names = names or own
        came = {own[name]: found[own[name]].shape for name in own}
        wanted = {names.get(t.name, t.name): t.shape for t in space.tensors}
        if (own, came) != (names, wanted):
            raise ExperimentError(
                f"{path}: expected tensors of shapes {wanted}, but {came} came: all networks must be of one architecture."
            )
        _check_numbers(path, found)
        with np.errstate(over="ignore"):
            networks.append({name: found[own[name]].astype(np.float32) for name in names})
        if not all(np.isfinite(x).all() for x in networks[-1].values()):
            raise ExperimentError(f"{path} holds numbers that are too large for float32: take it out of the folder.")
    titles = [path.stem for path in paths]
    if len(set(titles)) < max(1, len(titles)):
        raise ExperimentError(
            f"{folder}: expected a dataset, or networks as .safetensors, .pt or .pth files of different names, but there "
            f"are {len(titles)} such files of {len(set(titles))} names."
        )
    return titles, names, {t.name: np.stack([network[t.name] for network in networks]) for t in space.tensors}


def _unstack_zoo(flat: np.ndarray, path: Path) -> tuple[WeightSpace, dict[str, np.ndarray]]:
    """Tensors of networks of the Small CNN Zoo, given as rows, by the zoo's layout."""
    weights: dict[str, np.ndarray] = {}
    kinds = {"kernel:0": "W", "bias:0": "v"}
    layout = _read_csv(path, 100)
    with reading(path, "layout of these weights"):
        for entry in layout:
            letter, start, stop = (
                kinds[entry["varname"].rsplit("/", 1)[-1]],
                int(entry["start_idx"]),
                int(entry["end_idx"]),
            )
            x = flat[:, start:stop].reshape(len(flat), *ast.literal_eval(entry["shape"]))
            if letter == "W":  # TensorFlow: (*filter, inputs, outputs)
                x = np.moveaxis(x, (-1, -2), (1, 2))
            weights[f"{letter}{1 + sum(name[0] == letter for name in weights)}"] = np.ascontiguousarray(x)
        kernels = [weights[f"W{i}"] for i in range(1, len(weights) // 2 + 1)]
        sizes = [kernels[0].shape[2], *(x.shape[1] for x in kernels)]
        space = WeightSpace.cnn(sizes, [x.shape[3:] for x in kernels])
        found = {t.name: weights[t.name] for t in space.tensors}
        if space.size != flat.shape[1] or any(found[t.name].shape[1:] != t.shape for t in space.tensors):
            raise ValueError(f"its variables do not make {flat.shape[1]} weights of a CNN")
    return space, found


def _stack_mlps(paths: Sequence[Path]) -> tuple[WeightSpace, dict[str, np.ndarray]]:
    """State dicts of MLPs of one architecture, stacked; of a state dict the order of its tensors counts, not their names."""
    networks: list[dict[str, np.ndarray]] = []
    for path in tqdm(paths, unit="network", desc="state dicts", leave=False):
        found = _read_state_dict(path)
        networks.append({name: found[own] for name, own in _named(path, found).items()})
        _check_numbers(path, networks[-1])
    with reading(paths[0], "state dict of an MLP"):
        sizes = [networks[0]["W1"].shape[1], *(x.shape[0] for name, x in networks[0].items() if name[0] == "W")]
        space = WeightSpace.mlp(sizes)
    wanted = {t.name: (t.shape, networks[0]["W1"].dtype) for t in space.tensors}
    for path, network in zip(paths, networks, strict=True):
        came = {name: (x.shape, x.dtype) for name, x in network.items()}
        if came != wanted:
            raise ExperimentError(
                f"{path}: expected tensors of an MLP of sizes {sizes} and {networks[0]['W1'].dtype} as in {paths[0]}, but "
                f"{', '.join(f'{name} {x.dtype} {x.shape}' for name, x in network.items())} came."
            )
    return space, {t.name: np.stack([network[t.name] for network in networks]) for t in space.tensors}


def _distinct(networks: Networks, names: Sequence[str]) -> Networks:
    """The networks, of which none is there twice; names say where each is from."""
    copy = find_copy([networks])
    if copy is not None:
        first, second = (names[number] for number in copy)
        raise ExperimentError(f"{second} holds the same network as {first}: take one of them out.")
    return networks


def _read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Tensors of a state dict, in its order."""
    from reference_experiments.networks.torch import read_state_dict  # the format is torch's

    return read_state_dict(path)


def _check_numbers(path: Path, network: Mapping[str, np.ndarray]) -> None:
    """See that all tensors of a network are finite floating-point numbers of one kind."""
    kinds = {str(x.dtype) for x in network.values()}
    if len(kinds) > 1 or not kinds <= {"float16", "float32", "float64"}:
        found = ", ".join(f"{name} {x.dtype}" for name, x in network.items())
        raise ExperimentError(f"{path}: expected floating-point tensors of one dtype, but {found} came.")
    if not all(np.isfinite(x).all() for x in network.values()):
        raise ExperimentError(f"{path} holds NaN or infinity: take it out of the folder.")


def _named(path: Path, found: Iterable[str]) -> dict[str, str]:
    """A network's own names of its weights W1, W2, ... and biases v1, v2, ..., which come in the order of the layers."""
    kinds: dict[str, str] = {"weight": "W", "bias": "v"}
    names: dict[str, str] = {}
    for own in found:
        letter = kinds.get(own.rsplit(".", 1)[-1])
        if letter is None:
            raise ExperimentError(
                f"{path}: tensor {own!r} is no weight or bias: it is no state dict of such a network."
            )
        names[f"{letter}{1 + sum(known[0] == letter for known in names)}"] = own
    if "W1" not in names:
        raise ExperimentError(f"{path} holds no weight: it is no state dict of an MLP.")
    return names


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Tensors of a file that knows no order, by name, numbers in names counted as numbers."""
    with reading(path, "safetensors file"):
        found, header = mapped(path)
        if CHECKSUM in header and not holds(path.read_bytes()):
            raise ValueError("its contents do not agree with its checksum")
    parts = {name: [int(x) if x.isdigit() else x for x in re.split(r"([0-9]+)", name)] for name in found}
    return {name: found[name] for name in sorted(found, key=parts.__getitem__)}


def _read_csv(path: Path, rows: int) -> list[dict[str, str]]:
    """Rows of a table, gzipped or plain; no more is unpacked than so many rows may take."""
    limit = ROW * (rows + 1)
    with reading(path, "table"):
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = b"".join(iter(lambda: file.read(1 << 20) if file.tell() <= limit else b"", b""))
        if len(data) > limit:
            raise ValueError(f"it holds more than {limit:,} bytes, {ROW:,} for each of {rows} rows")
        found = list(csv.DictReader(StringIO(data.decode(), newline="")))
        if any(None in row or None in row.values() for row in found):
            raise ValueError("a row has more or fewer cells than the head")
        return found


def _paper_split(count: int) -> np.ndarray:
    """The second half for testing, of the first half a fifth for validation, shuffled as the paper's code does."""
    split = np.full(count, SPLITS.index("test"), np.uint8)
    first = list(range(int(0.5 * count)))
    random.Random(0).shuffle(first)
    split[first[: int(0.8 * len(first))]] = SPLITS.index("training")
    split[first[int(0.8 * len(first)) :]] = SPLITS.index("validation")
    return split


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
