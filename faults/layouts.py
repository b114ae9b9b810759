"""Files of every kind that the project writes or reads, as small as they can be, and what reads them."""

import gzip
import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import nfn_torch
import numpy as np
import torch
from safetensors.numpy import save_file
from scipy.io import savemat

import nfn_core
from faults.outcomes import VARYING
from nfn_core import ModelSpace, NFLayer, WeightSpace, from_json, initialize, to_json
from reference_experiments.cli import main
from reference_experiments.datasets.format import WeightDataset
from reference_experiments.sources import images, shapes

__all__ = ["LAYOUTS", "LEFT_OUT", "Layout", "command", "siren_folders"]


@dataclass(frozen=True)
class Layout:
    """Files that belong together.

    Parameters
    ----------
    name : str
        What they are.
    make : callable
        Writes them to a folder, and returns those that are to be damaged.
    read : callable
        Reads them from there, and returns all that is in them.
    checked : bool
        Whether their format has checksums, so that a reader can tell whenever a value has changed.
    slow : int
        How many times longer reading takes than a file's tenth of a second.
    words : tuple of str
        Words by which an error may name what is wrong, beside the file's name.
    loose : bool
        Whether its files are a set of any number, so that no reader can tell that one is missing.
    """

    name: str
    make: Callable[[Path], list[Path]]
    read: Callable[[Path], Any]
    checked: bool
    slow: int = 1
    words: tuple[str, ...] = ()
    loose: bool = False


LEFT_OUT = "Left out:"
"""What readers print before what they leave out."""
RNG = partial(np.random.default_rng, 0)
SPACE = WeightSpace.mlp([2, 3, 3, 1])
LAYER = NFLayer(WeightSpace.mlp([2, 3, 1]).group("HNP"), 1, 2)
MODEL = {"a.weight": (4, 2), "b.weight": (3, 4)}
LABELS = {"a.weight": "h in", "b.weight": "out h"}


def command(*arguments: object) -> None:
    """Run a command of the experiments here."""
    main([str(a) for a in arguments], standalone_mode=False)


# Parameters, descriptions, models


def save_layer(folder: Path) -> list[Path]:
    """A layer's file."""
    nfn_core.save_parameters(folder / "layer.safetensors", LAYER, initialize(LAYER, 0))
    return [folder / "layer.safetensors"]


def save_module(folder: Path) -> list[Path]:
    """A module's file."""
    nfn_torch.save(folder / "module.safetensors", nfn_torch.NFModule(LAYER))
    return [folder / "module.safetensors"]


def read_module(folder: Path) -> Any:
    """The layer and its parameters."""
    module = nfn_torch.load(folder / "module.safetensors")
    return to_json(module.layer), {name: x.detach().numpy() for name, x in module.named_arrays().items()}


def save_description(folder: Path) -> list[Path]:
    """A description as JSON."""
    (folder / "layer.json").write_text(to_json(LAYER))
    return [folder / "layer.json"]


def save_models(folder: Path) -> list[Path]:
    """Models, a file each."""
    for k in range(2):
        save_file({n: RNG().normal(size=s) for n, s in MODEL.items()}, folder / f"model{k}.safetensors")
    return sorted(folder.iterdir())


def read_models(folder: Path) -> Any:
    """Features of models, whose space follows from a file."""
    paths = [folder / f"model{k}.safetensors" for k in range(2)]
    space = ModelSpace.from_patterns(paths[0], LABELS)
    return to_json(space), list(space.stream(paths, 1))


# Datasets and experiments


def siren_folders(folder: Path) -> list[Path]:
    """State dicts of SIRENs, as the paper publishes them."""
    torch.manual_seed(0)
    for number in range(15):
        path = folder / f"randinit_test_{number % 3}s" / f"net{number}.pth"
        path.parent.mkdir(exist_ok=True)
        net = torch.nn.Sequential(*(torch.nn.Linear(a, b) for a, b in ((2, 3), (3, 3), (3, 1))))
        torch.save(net.state_dict(), path)
    return sorted(folder.rglob("*.pth"))[:2]


def convert(form: str, folder: Path, source: Path, *options: object) -> Any:
    """Convert published networks, and read what came out."""
    output = folder.parent / "converted"
    shutil.rmtree(output, ignore_errors=True)
    command("convert", form, source, output, *options)
    return dataset(output)


def dataset(folder: Path) -> Any:
    """All networks of a dataset."""
    found = WeightDataset(folder)
    return found.features(np.arange(len(found))), found.columns


def made_dataset(folder: Path) -> list[Path]:
    """A dataset of ours."""
    source = folder.parent / "source"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir()
    siren_folders(source)
    command("convert", "siren-folders", source, folder, "--split-points", 9, 12)
    return sorted(path for path in folder.iterdir() if path.is_file() and path.stat().st_size)


def verified(folder: Path) -> Any:
    """What `verify` finds, and the dataset."""
    command("verify", folder)
    return dataset(folder)


def run(folder: Path, output: Path) -> Any:
    """A result of an experiment, without what differs from run to run."""
    options = ("--method", "MLP", "--seeds", 1, "--scale", "smoke", "--backend", "torch", "--output", output)
    command("run", "table3", "--dataset-dir", "MNIST", folder, *options)
    found = json.loads((output / "MNIST" / "MLP-seed0.json").read_text())
    return {key: value for key, value in found.items() if key not in VARYING}


def run_of_dataset(folder: Path) -> Any:
    """A dataset as `run` reads it."""
    output = folder.parent / "results"
    shutil.rmtree(output, ignore_errors=True)
    return run(folder, output)


def trained(folder: Path) -> list[Path]:
    """A dataset, and a result of it."""
    (folder / "data").mkdir()
    made_dataset(folder / "data")
    run(folder / "data", folder / "results")
    place = folder / "results" / "MNIST"
    return [place / "MLP-seed0.json", place / "MLP-seed0" / "parameters.safetensors"]


def interrupted(folder: Path) -> list[Path]:
    """A run that has not written its result."""
    trained(folder)
    place = folder / "results" / "MNIST"
    (place / "MLP-seed0.json").unlink()
    (place / "MLP-seed0" / "parameters.safetensors").unlink()
    return [place / "settings.json", place / "MLP-seed0" / "checkpoint.safetensors"]


def predictions(folder: Path) -> Any:
    """What a trained method predicts."""
    command("predict", folder / "results" / "MNIST" / "MLP-seed0", folder / "data", folder / "out.csv")
    return (folder / "out.csv").read_text()


def report(folder: Path) -> Any:
    """The page of results."""
    command("report", folder / "results")
    return (folder / "results" / "report.md").read_text()


def reported(folder: Path) -> list[Path]:
    """Results of which a page is made."""
    return trained(folder)[:1]


def own_networks(folder: Path) -> list[Path]:
    """A trained method, and a user's networks."""
    trained(folder)
    (folder / "own").mkdir()
    network = {t.name: RNG().normal(size=t.shape).astype(np.float32) for t in SPACE.tensors}
    save_file(network, folder / "own" / "0.safetensors")
    torch.save({name: torch.tensor(x) for name, x in network.items()}, folder / "own" / "1.pth")
    return sorted((folder / "own").iterdir())


def predictions_of_own(folder: Path) -> Any:
    """What a trained method predicts of them."""
    command("predict", folder / "results" / "MNIST" / "MLP-seed0", folder / "own", folder / "out.csv")
    return (folder / "out.csv").read_text()


def dwsnets(folder: Path) -> list[Path]:
    """State dicts and a file of splits, as DWSNets publishes them."""
    entries = {}
    for number, name in enumerate(("train", "val", "test")):
        torch.manual_seed(number)
        net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
        torch.save(net.state_dict(), folder / f"{name}.pth")
        entries[name] = {"path": [f"{name}.pth"], "label": [str(number)]}
    (folder / "splits.json").write_text(json.dumps(entries))
    return [folder / "splits.json", folder / "train.pth"]


def small_cnn_zoo(folder: Path) -> list[Path]:
    """The three files of the Small CNN Zoo, and an order of its rows."""
    np.save(folder / "weights.npy", RNG().normal(size=(12, 29)).astype(np.float32))
    layout = [("conv2d/bias:0", 0, 2, "(2,)"), ("conv2d/kernel:0", 2, 20, "(3, 3, 1, 2)")]
    layout += [("dense/bias:0", 20, 23, "(3,)"), ("dense/kernel:0", 23, 29, "(2, 3)")]
    rows = [f'sequential/{name},{start},{stop},{stop - start},"{shape}"' for name, start, stop, shape in layout]
    (folder / "layout.csv").write_text("\n".join(["varname,start_idx,end_idx,size,shape", *rows, ""]))
    lines = ["config.learning_rate,step,test_accuracy", *(f"{0.001 * k},86,{k / 12}" for k in range(12))]
    (folder / "metrics.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))
    (folder / "order.csv").write_text("\n".join(map(str, range(11, -1, -1))))
    return sorted(folder.iterdir())


# The demonstration


def demo(folder: Path) -> Any:
    """The table of the demonstration with residual networks."""
    command("residual", "--scale", "smoke", "--output", folder / "demo")
    return [
        line.rpartition("|")[0].rpartition("|")[0] for line in (folder / "demo" / "table.md").read_text().split("\n")
    ]


def made_demo(folder: Path) -> list[Path]:
    """Its zoo, results and settings."""
    demo(folder)
    return sorted(path for path in (folder / "demo").rglob("*") if path.suffix in (".safetensors", ".json"))


# Images and shapes


def idx(array: np.ndarray) -> bytes:
    """MNIST's format."""
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def mnist(folder: Path) -> list[Path]:
    """MNIST's four files, some of them gzipped."""
    rng = RNG()
    place = folder / "mnist"
    place.mkdir()
    for part in ("train", "t10k"):
        pictures = gzip.compress(idx(rng.integers(256, size=(3, 4, 4))), mtime=0)
        (place / f"{part}-images-idx3-ubyte.gz").write_bytes(pictures)
        (place / f"{part}-labels-idx1-ubyte").write_bytes(idx(rng.integers(10, size=3)))
    return sorted(place.iterdir())


def cifar(folder: Path) -> list[Path]:
    """CIFAR-10's binary files."""
    place = folder / "cifar-10-batches-bin"
    place.mkdir()
    for name in ("data_batch_1.bin", "test_batch.bin"):
        records = RNG().integers(256, size=(2, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        (place / name).write_bytes(records.tobytes())
    return sorted(place.iterdir())


def svhn(folder: Path) -> list[Path]:
    """SVHN's MATLAB files, one compressed."""
    (folder / "svhn").mkdir()
    x, y = RNG().integers(256, size=(32, 32, 3, 2), dtype=np.uint8), np.array([[10], [1]], np.uint8)
    for name in ("train_32x32.mat", "test_32x32.mat"):
        savemat(folder / "svhn" / name, {"X": x, "y": y}, do_compression=name[1] == "r")
    return sorted((folder / "svhn").iterdir())


def pictures(name: str, folder: Path) -> Any:
    """Images and labels."""
    found = images.load_images(name)
    labels = (found.train_labels, found.test_labels)
    if any(len(y) and not 0 <= y.min() <= y.max() <= 9 for y in labels):
        raise AssertionError(f"labels are {[y.tolist() for y in labels]}")
    return found.train_images, found.test_images, *labels


def voxels(folder: Path) -> list[Path]:
    """ModelNet10 as voxels."""
    path = folder / "modelnet10-vox32" / "modelnet10_vox32.npz"
    path.parent.mkdir()
    rows, labels = RNG().integers(256, size=(40, 8), dtype=np.uint8), np.arange(40) % 2
    parts: dict[str, Any] = {"x_train": rows[:30], "x_test": rows[30:], "y_train": labels[:30], "y_test": labels[30:]}
    np.savez(path, classes=np.array(["bed", "chair"]), shape=np.array([4, 4, 4]), **parts)
    return [path]


def scannet(folder: Path) -> list[Path]:
    """ScanNet-10's point clouds."""
    for name, count in (("train_0.h5", 30), ("test_0.h5", 10)):
        with h5py.File(folder / name, "w") as file:
            file["data"], file["label"] = RNG().normal(size=(count, 8, 6)), (np.arange(count) % 10).astype(np.int32)
    return sorted(folder.glob("*.h5"))


MESHES = {
    "1.off": "OFF\n4 4 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n3 0 2 3\n3 1 2 3\n",
    "1.obj": "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\nf 1 2 4\nf 1 3 4\nf 2 3 4\n",
}


def class_folders(folder: Path) -> list[Path]:
    """Point clouds and meshes."""
    for number in range(8):
        (folder / f"class {number % 2}").mkdir(exist_ok=True)
        np.save(folder / f"class {number % 2}" / f"{number}.npy", RNG().normal(size=(9, 3)) + number)
    for name, text in MESHES.items():
        (folder / "class 0" / name).write_text(text)
    return [folder / "class 0" / name for name in ("0.npy", *MESHES)]


def solids(name: str, folder: Path) -> Any:
    """Labels, and points of every shape."""
    logging.getLogger("trimesh").setLevel(logging.CRITICAL)
    shapes.load_shapes.cache_clear()
    found = shapes.load_shapes(name or str(folder), 0)
    points: list[Any] = [getattr(found.read(int(number)), "points", None) for number in found.numbers]
    print(f"{LEFT_OUT} {found.left_out} identical shapes")
    return found.labels, points


LAYOUTS = (
    Layout("layer file, NumPy", save_layer, lambda f: _flat(nfn_core.load_parameters(f / "layer.safetensors")), True),
    Layout("layer file, PyTorch", save_module, read_module, True),
    Layout(
        "description",
        save_description,
        lambda f: to_json(from_json(_text(f / "layer.json"))),
        False,
        words=("description", "tensor", "neuron set"),
    ),
    Layout("files of models", save_models, read_models, False),
    Layout("dataset, verified", made_dataset, verified, True),
    Layout("dataset, in a run", made_dataset, run_of_dataset, True, slow=5),
    Layout("interrupted run", interrupted, lambda f: run(f / "data", f / "results"), True, slow=5),
    Layout("trained method", trained, predictions, True),
    Layout("results of a report", reported, report, False, slow=5, words=("holds no results",)),
    Layout("a user's networks", own_networks, predictions_of_own, False, loose=True),
    Layout(
        "SIREN folders",
        siren_folders,
        lambda f: convert("siren-folders", f, f, "--split-points", 9, 12),
        False,
        loose=True,
    ),
    Layout("DWSNets", dwsnets, lambda f: convert("dwsnets", f, f / "splits.json"), False, words=("state dict",)),
    Layout("Small CNN Zoo", small_cnn_zoo, lambda f: convert("small-cnn-zoo", f, f, "--order", f / "order.csv"), False),
    Layout("demonstration", made_demo, demo, True, slow=10),
    Layout("MNIST", mnist, partial(pictures, "mnist"), False),
    Layout("CIFAR-10", cifar, partial(pictures, "cifar10"), False),
    Layout("SVHN", svhn, partial(pictures, "svhn"), False),
    Layout("ModelNet10", voxels, partial(solids, "modelnet10"), False),
    Layout("ScanNet-10", scannet, partial(solids, ""), False),
    Layout("class folders", class_folders, partial(solids, ""), False, loose=True),
)


def _text(path: Path) -> str:
    """A file's text, as a caller of `from_json` reads it."""
    try:
        return path.read_text(errors="replace")
    except OSError as error:
        raise nfn_core.SpecError(f"the caller cannot read {path}: {error}") from error


def _flat(found: tuple[nfn_core.Layer, Mapping[str, Any]]) -> Any:
    return to_json(found[0]), found[1]
