"""Readers of networks as others publish or keep them: the paper's SIREN folders, the Small CNN Zoo, DWSNets' INRs, files.

What is published is returned as `Networks` in this package's order of axes, with the split its publishers use.
"""

import ast
import csv
import gzip
import json
import random
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tqdm import tqdm

from nfn_core import SpecError, WeightSpace
from reference_experiments.datasets.format import Networks
from reference_experiments.files import ExperimentError
from reference_experiments.sources.splits import SPLITS

__all__ = ["read_dwsnets", "read_networks", "read_siren_folders", "read_small_cnn_zoo", "write_small_cnn_zoo"]

ZOO_VARIABLES = ("sequential/conv2d", "sequential/conv2d_1", "sequential/conv2d_2", "sequential/dense")


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
    return Networks(space, weights, columns, {"dataset": "SIREN folders", "omega_0": 30.0})


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
    try:
        entries = json.loads(splits.read_text())
        parts = [(entries[name]["path"], [int(x) for x in entries[name]["label"]]) for name in ("train", "val", "test")]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExperimentError(
            f"{splits} is no file of splits of DWSNets ({error!r}): make it with their script."
        ) from error
    if any(len(paths) != len(labels) for paths, labels in parts):
        raise ExperimentError(f"{splits}: a split has another number of labels than of paths: make it again.")
    space, weights = _stack_mlps([splits.parent / path for paths, _ in parts for path in paths])
    columns: dict[str, np.ndarray] = {
        "split": np.repeat(np.arange(3, dtype=np.uint8), [len(labels) for _, labels in parts]),
        "label": np.array([x for _, labels in parts for x in labels], np.int32),
    }
    return Networks(space, weights, columns, {"dataset": "DWSNets INRs", "omega_0": 30.0})


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
        that are not finite are left out.

    Raises
    ------
    ExperimentError
        If a file is missing or damaged, or they do not belong together.
    """
    metrics = _read_csv(folder / "metrics.csv.gz")
    try:
        steps = [int(float(row["step"])) for row in metrics]
        accuracy = np.array([float(row["test_accuracy"]) for row in metrics], np.float32)
    except (KeyError, TypeError, ValueError) as error:
        raise ExperimentError(f"{folder / 'metrics.csv.gz'} is damaged ({error!r}): get it again.") from error
    try:
        flat = np.load(folder / "weights.npy", mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise ExperimentError(f"{folder / 'weights.npy'} is missing or damaged ({error}): get it again.") from error
    if len(flat) != len(metrics):
        raise ExperimentError(
            f"{folder}: weights.npy has {len(flat)} rows, but metrics.csv.gz {len(metrics)}: get both again."
        )
    rows = np.arange(len(flat))
    if order is not None:
        try:
            rows = np.loadtxt(order, dtype=np.int64, delimiter=",").ravel()
        except (OSError, ValueError) as error:
            raise ExperimentError(f"{order} is missing or damaged ({error}): get it again.") from error
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
    space, weights = _unstack_zoo(kept, folder / "layout.csv")
    names = [
        n for n in metrics[0] if n not in ("step", "test_accuracy") and all(_is_number(metrics[r][n]) for r in rows)
    ]
    columns = {name: np.array([float(metrics[r][name]) for r in rows], np.float32) for name in names}
    columns |= {
        "accuracy": accuracy[rows],
        "split": _paper_split(len(rows)),
    }
    return Networks(space, weights, columns, {"dataset": "Small CNN Zoo", "step": step})


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
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "weights.npy", np.concatenate(blocks, axis=1))
    with (folder / "layout.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("varname", "start_idx", "end_idx", "size", "shape"), *layout])
    with gzip.open(folder / "metrics.csv.gz", "wt", newline="") as file:
        writer = csv.DictWriter(file, list(metrics[0]))
        writer.writeheader()
        writer.writerows(metrics)


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
        If there are no networks, two have one name, or a file is damaged, of another architecture, or holds what is not
        finite.
    """
    paths = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".pt", ".pth"))
    names: dict[str, str] = {}
    networks: list[dict[str, np.ndarray]] = []
    for path in tqdm(paths, unit="network", desc=str(folder), leave=False):
        if path.suffix == ".safetensors":
            found = _read_safetensors(path)
        else:
            from reference_experiments.networks.torch import read_state_dict  # the format is torch's

            found = read_state_dict(path)
        own = {name: name for name in found} if found.keys() == space.by_name.keys() else _named(path, found)
        names = names or own
        came = {own[name]: found[own[name]].shape for name in own}
        wanted = {names.get(t.name, t.name): t.shape for t in space.tensors}
        if (own, came) != (names, wanted):
            raise ExperimentError(
                f"{path}: expected tensors of shapes {wanted}, but {came} came: all networks must be of one architecture."
            )
        networks.append({name: found[own[name]].astype(np.float32) for name in names})
        if not all(np.isfinite(x).all() for x in networks[-1].values()):
            raise ExperimentError(f"{path} holds NaN or infinity: take it out of the folder.")
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
    layout = _read_csv(path)
    try:
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
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, SyntaxError, SpecError) as error:
        raise ExperimentError(
            f"{path} is damaged, or the layout of other weights ({error!r}): get it again."
        ) from error
    return space, found


def _stack_mlps(paths: Sequence[Path]) -> tuple[WeightSpace, dict[str, np.ndarray]]:
    """State dicts of MLPs of one architecture, stacked; of a state dict the order of its tensors counts, not their names."""
    networks = [_read_state_dict(path) for path in paths]
    sizes = [networks[0]["W1"].shape[1], *(x.shape[0] for name, x in networks[0].items() if name[0] == "W")]
    space = WeightSpace.mlp(sizes)
    for path, network in zip(paths, networks, strict=True):
        shapes = {name: x.shape for name, x in network.items()}
        if shapes != {t.name: t.shape for t in space.tensors}:
            raise ExperimentError(
                f"{path}: expected tensors of an MLP of sizes {sizes} as in {paths[0]}, but {shapes} came."
            )
    return space, {t.name: np.stack([network[t.name] for network in networks]) for t in space.tensors}


def _read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Weights W1, W2, ... and biases v1, v2, ... of a state dict."""
    from reference_experiments.networks.torch import read_state_dict  # the format is torch's

    found = read_state_dict(path)
    return {name: found[own] for name, own in _named(path, found).items()}


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
    try:
        found = load_file(path)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ExperimentError(
            f"{path} is missing, damaged, or no safetensors file ({error!r}): get it again."
        ) from error
    parts = {name: [int(x) if x.isdigit() else x for x in re.split(r"([0-9]+)", name)] for name in found}
    return {name: found[name] for name in sorted(found, key=parts.__getitem__)}


def _read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of a table, gzipped or plain."""
    try:
        with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise ExperimentError(f"{path} is missing or damaged ({error}): get it again.") from error


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
