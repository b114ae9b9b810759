"""Datasets of networks: makers, shards, interrupted and damaged runs, readers of published layouts, real images."""

import gzip
import hashlib
import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from scipy.io import savemat
from torch.utils.data import DataLoader

from nfn_core import WeightSpace
from reference_experiments import classifiers, images, shape_inrs, sirens
from reference_experiments.datasets import (
    Networks,
    WeightDataset,
    finish,
    is_whole,
    shard_path,
    space_from_json,
    space_to_json,
    write_shard,
)
from reference_experiments.engines import BACKENDS, engine
from reference_experiments.jax_data import batches
from reference_experiments.published import read_dwsnets, read_siren_folders, read_small_cnn_zoo, write_small_cnn_zoo
from reference_experiments.storage import ExperimentError
from reference_experiments.torch_data import TorchNetworks

ROOT = Path(__file__).parent.parent
SPACE = WeightSpace.mlp([2, 3, 1])


def networks(count, seed=0, masks=False):
    rng = np.random.default_rng(seed)
    weights = {t.name: rng.standard_normal((count, *t.shape)).astype(np.float32) for t in SPACE.tensors}
    columns = {"split": (np.arange(count) % 3).astype(np.uint8), "label": rng.integers(10, size=count).astype(np.int32)}
    return Networks(SPACE, weights, columns, {"seed": seed}, {n: x > 0 for n, x in weights.items()} if masks else {})


def write_dataset(folder, counts=(5, 4)):
    folder.mkdir(exist_ok=True)
    parts = [networks(n, seed=k, masks=True) for k, n in enumerate(counts)]
    paths = [shard_path(folder, k) for k in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        write_shard(path, part)
    finish(folder, paths, {})
    return WeightDataset(folder), {n: np.concatenate([p.weights[n] for p in parts]) for n in parts[0].weights}


# Shards and datasets


@pytest.mark.parametrize(
    "space",
    [SPACE, WeightSpace.cnn([1, 2, 3], [(3, 3), ()]), WeightSpace.from_axes({"R": [("h", 4), ("h", 4), (None, 2)]})],
    ids=["mlp", "cnn", "rnn"],
)
def test_space_survives_json(space):
    again = space_from_json(json.loads(json.dumps(space_to_json(space))))
    assert [(t.name, t.shape, t.labels) for t in again.tensors] == [(t.name, t.shape, t.labels) for t in space.tensors]
    assert (again.inputs, again.outputs) == (space.inputs, space.outputs)


def test_dataset_gives_back_what_was_written(tmp_path):
    dataset, expected = write_dataset(tmp_path)
    assert len(dataset) == 9
    order = [8, 0, 4, 5, 5]
    found, masks = dataset.features(order), dataset.features(order, "masks")
    for name, x in expected.items():
        np.testing.assert_array_equal(found[name][..., 0], x[order])
        np.testing.assert_array_equal(masks[name][..., 0], x[order] > 0)
        np.testing.assert_array_equal(dataset.network(6)[name][..., 0], x[6])
        assert np.shares_memory(dataset.network(6)[name], dataset.shards[1].weights[name])
    assert dataset.split("validation").tolist() == [1, 4, 6]
    dataset.verify()
    again = tmp_path / "again"
    write_dataset(again)
    for k in range(2):
        assert shard_path(again, k).read_bytes() == shard_path(tmp_path, k).read_bytes()
    line = (tmp_path / "shard-00001.sha256").read_text()
    assert line == f"{hashlib.sha256(shard_path(tmp_path, 1).read_bytes()).hexdigest()}  shard-00001.safetensors\n"


def test_torch_and_jax_read_it_alike(tmp_path):
    dataset, expected = write_dataset(tmp_path)
    chosen = dataset.split("training")
    loaded = TorchNetworks(dataset, "label", chosen)
    first, target = loaded[0]
    assert np.shares_memory(first["W1"].numpy(), dataset.shards[0].weights["W1"])
    assert target.item() == dataset.columns["label"][chosen[0]]
    features, targets = next(iter(DataLoader(loaded, batch_size=len(chosen))))
    ((features_jax, targets_jax),) = batches(dataset, "label", chosen, size=10)
    for name in expected:
        np.testing.assert_array_equal(features[name], features_jax[name])
    np.testing.assert_array_equal(targets, targets_jax)
    shuffled = [np.asarray(t) for _, t in batches(dataset, "label", np.arange(9), 4, seed=1)]
    assert [len(t) for t in shuffled] == [4, 4, 1]
    assert sorted(np.concatenate(shuffled)) == sorted(dataset.columns["label"])
    assert isinstance(features_jax["W1"], jax.Array)


def test_damage_is_found_and_named(tmp_path):
    _dataset, _ = write_dataset(tmp_path)
    path = shard_path(tmp_path, 1)
    whole = path.read_bytes()
    assert is_whole(path)
    path.write_bytes(whole[:-4] + bytes(4))
    for check in (partial(is_whole, path), WeightDataset(tmp_path).verify):
        with pytest.raises(ExperimentError, match="shard-00001.safetensors is damaged"):
            check()
    for damaged in (whole[:-1], whole[:40], b"", whole[:20] + b"x" + whole[21:]):
        path.write_bytes(damaged)
        with pytest.raises(ExperimentError, match="shard-00001.safetensors is no shard of networks, or damaged"):
            WeightDataset(tmp_path)
    path.unlink()
    assert not is_whole(path)
    write_shard(path, networks(3))
    with pytest.raises(ExperimentError, match="does not belong to this dataset"):
        WeightDataset(tmp_path)
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(ExperimentError, match="holds no finished dataset"):
        WeightDataset(tmp_path)


def test_networks_of_wrong_shapes_are_refused():
    good = networks(3)
    for weights, columns in (
        ({**good.weights, "W1": good.weights["W1"][:, :2]}, good.columns),
        ({n: x for n, x in good.weights.items() if n != "v1"}, good.columns),
        (good.weights, {"label": np.zeros(2)}),
    ):
        with pytest.raises(ExperimentError, match="expected arrays of shapes"):
            Networks(SPACE, weights, columns)


# Makers

MAKE = {
    "image-inrs": ["image-inrs", "--images", "digits"],
    "shape-inrs": ["shape-inrs", "--shapes", "primitives"],
    "cnn-zoo": ["cnn-zoo", "--images", "digits"],
    "mlp-zoo": ["mlp-zoo", "--images", "digits"],
    "tickets": ["tickets", "--images", "digits"],
}


def start(folder, *options):
    command = [
        sys.executable,
        "-m",
        "reference_experiments",
        "make",
        *options,
        "--scale",
        "smoke",
        "--output",
        str(folder),
    ]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finished(folder, *options):
    process = start(folder, *options)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("shard-*")}


@pytest.fixture(scope="module", params=MAKE)
def made(request, tmp_path_factory):
    """Each dataset, made by JAX in two processes."""
    folder = tmp_path_factory.mktemp(request.param)
    finished(folder, *MAKE[request.param], "--devices", "2")
    return request.param, folder


def test_same_seed_same_bytes_and_killed_runs_go_on(made, tmp_path):
    name, whole = made
    process, give_up = start(tmp_path, *MAKE[name], "--devices", "1"), time.monotonic() + 300
    while not (tmp_path / "shard-00000.sha256").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < give_up
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()  # returns once its workers are gone too
    assert not (tmp_path / "dataset.json").exists()
    first = shard_path(tmp_path, 0)
    first.write_bytes(first.read_bytes()[:-1] + b"?")
    output = finished(tmp_path, *MAKE[name], "--devices", "1")
    assert "shard-00000.safetensors is damaged" in output
    assert "made again" in output
    assert contents(tmp_path) == contents(whole)
    WeightDataset(tmp_path).verify()
    refused = start(tmp_path, *MAKE[name], "--seed", "1")
    message = refused.communicate()[0]
    assert refused.returncode == 1
    assert "holds a run with settings" in message


def test_what_makers_make(made):
    name, folder = made
    dataset = WeightDataset(folder)
    columns = dataset.columns
    assert set(dataset.about["sources"]) == {"trimesh" if name == "shape-inrs" else "scikit-learn"}
    assert dataset.about["quality"]
    if name == "image-inrs":
        assert np.median(columns["psnr"]) > 40
        weights = {n: x[..., 0] for n, x in dataset.features(np.arange(8)).items()}
        targets = images.load_images("digits").train_images[columns["image"][:8]].reshape(8, 64) / 127.5 - 1
        points = sirens.coordinates(8, 8)
        error = ((sirens.render(weights, points, np.sin)[:, 0] - targets) ** 2).mean(axis=1)
        np.testing.assert_allclose(10 * np.log10(4 / error), columns["psnr"][:8], atol=0.2)
        assert columns["image"][:4].tolist() == [0, 0, 1, 1]
        assert (folder / "contact-sheet.png").exists()
    elif name == "shape-inrs":
        assert columns["error"].max() < 0.02
        assert columns["uniform error"].max() < 0.1
        assert np.bincount(columns["split"]).tolist() == [10, 10, 10]
        assert [dataset.about["classes"][k] for k in columns["label"][:4]] == ["box", "box", "cone", "cone"]
        assert dataset.about["omega_0"] == 30
        assert (folder / "slices.png").exists()
    elif name == "tickets":
        masks = dataset.features(np.arange(len(dataset)), "masks")
        for tensor, mask in masks.items():
            share = mask.mean(axis=tuple(range(1, mask.ndim)))
            assert (share == 1).all() if tensor[0] == "v" else (abs(share - 0.05) < 0.01).all()
        assert set(columns) >= {"dense accuracy", "ticket accuracy", "random accuracy"}
    else:
        assert (columns["accuracy"] <= 1).all()
        assert columns["accuracy"].max() > 0.15
        assert len(np.unique(columns["run"])) > len(dataset) / 3
        assert (folder / "quality.md").read_text().count("|") > 50
        assert (folder / "accuracies.png").exists()


def test_zoo_is_written_in_the_published_layout_too(made):
    name, folder = made
    if name != "cnn-zoo":
        assert not (folder / "small-cnn-zoo").exists()
        return
    dataset = WeightDataset(folder)
    last = dataset.columns["epoch"].max()
    again = read_small_cnn_zoo(folder / "small-cnn-zoo", step=last)
    chosen = np.flatnonzero(dataset.columns["epoch"] == last)
    for tensor, x in dataset.features(chosen).items():
        np.testing.assert_array_equal(again.weights[tensor], x[..., 0])
    np.testing.assert_array_equal(again.columns["accuracy"], dataset.columns["accuracy"][chosen])


@pytest.mark.parametrize("options", MAKE.values(), ids=MAKE)
def test_backends_begin_and_go_alike(options, tmp_path):
    """Same initial weights and order of data: after a short fit the backends differ by rounding only."""
    name = options[0]
    if name == "image-inrs":
        scale = sirens.Scale(4, 0, 0, 1, 1e-3, 5, True)
        made = [sirens.SirenMaker("digits", scale, 0, backend).run(0) for backend in BACKENDS]
    elif name == "shape-inrs":
        scale = shape_inrs.ShapeScale(1, 1000, 64, 1e-3, 5, True)
        made = [shape_inrs.ShapeMaker("primitives", scale, 0, backend).run(0) for backend in BACKENDS]
    else:
        scale = classifiers.ZooScale(4, 4, 64, 50, 1, 16, 1)
        kinds = {"cnn-zoo": "cnn", "mlp-zoo": "mlp3"}
        makers = [
            classifiers.TicketMaker("digits", "ticket-mlp", scale, 0, backend)
            if name == "tickets"
            else classifiers.ZooMaker("digits", kinds[name], scale, 0, backend)
            for backend in BACKENDS
        ]
        made = [maker.run(0) for maker in makers]
    for tensor, x in made[0].weights.items():
        np.testing.assert_allclose(x, made[1].weights[tensor], rtol=0, atol=2e-3)
    other = sirens.initial(SPACE, 0, np.arange(3))
    np.testing.assert_array_equal(sirens.initial(SPACE, 0, np.arange(1, 3))["W1"], other["W1"][1:])
    assert not np.array_equal(sirens.initial(SPACE, 1, np.arange(3))["W1"], other["W1"])


def test_more_images_than_there_are():
    def maker(training):
        return sirens.SirenMaker("digits", sirens.Scale(training, 0, 0, 1, 1e-2, 1, True), 0, "torch", shard=1)

    assert len(maker(1797).run(1796)) == 1
    with pytest.raises(ExperimentError, match="digits: 1798 different images are asked for, but there are 1797"):
        maker(1798).run(0)


def test_folded_omega_is_the_other_convention():
    weights = sirens.initial(SPACE, 0, np.arange(2))
    folded, points = sirens.fold_omega(weights), sirens.coordinates(3, 3)
    hidden = np.sin(folded["W1"] @ points + folded["v1"][..., None])
    np.testing.assert_allclose(
        folded["W2"] @ hidden + folded["v2"][..., None], sirens.render(weights, points, np.sin), atol=1e-5
    )
    for name, x in sirens.fold_omega(folded, undo=True).items():
        np.testing.assert_allclose(x, weights[name], rtol=1e-6)


def test_sine_of_jax_is_a_sine():
    x = np.linspace(-200, 200, 100001, dtype=np.float32)
    assert abs(np.asarray(engine("jax").sin(jax.numpy.asarray(x))) - np.sin(x.astype(np.float64))).max() < 1e-5
    slope = jax.vmap(jax.grad(engine("jax").sin))(jax.numpy.asarray(x))
    assert abs(np.asarray(slope) - np.cos(x.astype(np.float64))).max() < 1e-4


def test_initializers():
    space, streams = WeightSpace.cnn([8, 16, 12], [(3, 3), ()]), [np.random.default_rng(k) for k in range(5)]
    weights = classifiers.initial(space, range(5), [0.3] * 5, streams)
    flat = weights["W1"].reshape(5, 16, -1)
    np.testing.assert_allclose(flat[2] @ flat[2].T, np.eye(16), atol=1e-5)
    np.testing.assert_allclose(flat[[0, 1, 3]].std(axis=(1, 2)), [(2 / 216) ** 0.5, (2 / 72) ** 0.5, 0.3], rtol=0.1)
    assert abs(flat[4]).max() <= 0.6
    assert not weights["v1"].any()


def test_magnitude_masks():
    weights = {"W1": np.array([[[1.0, -5.0], [2.0, 0.5]]]), "v1": np.zeros((1, 2))}
    masks = classifiers.magnitude_masks(weights, 0.5)
    assert masks["W1"].tolist() == [[[False, True], [True, False]]]
    assert masks["v1"].all()


# Published layouts


def save_siren(path, seed, sizes=(2, 4, 4, 1), prefix="net.{}.linear"):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    state = {}
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        name = prefix.format(i) if i < len(sizes) - 2 else prefix.format(i).removesuffix(".linear")
        state |= {f"{name}.weight": torch.randn(b, a), f"{name}.bias": torch.randn(b)}
    torch.save(state, path)
    return state


def test_siren_folders(tmp_path):
    states = {}
    for number in range(6):
        states[number] = save_siren(tmp_path / f"randinit_test_{number % 3}s" / f"net{number}.pth", number)
        save_siren(tmp_path / f"randinit_test_aug0_{number % 3}s" / f"net{number}.pth", 10 + number)
    found = read_siren_folders(tmp_path, "randinit_test", (3, 5))
    assert found.columns["split"].tolist() == [0, 0, 0, 1, 1, 2]
    assert found.columns["label"].tolist() == [0, 1, 2, 0, 1, 2]
    for number, state in states.items():
        np.testing.assert_array_equal(found.weights["W2"][number], state["net.1.linear.weight"])
        np.testing.assert_array_equal(found.weights["v3"][number], state["net.2.bias"])
    more = read_siren_folders(tmp_path, "randinit_test", (3, 5), augmented=1)
    assert more.columns["split"].tolist() == [0] * 6 + [1, 1, 2]
    with pytest.raises(ExperimentError, match=r"there is no file other_\[0-9\]s"):
        read_siren_folders(tmp_path, "other")
    save_siren(tmp_path / "randinit_test_0s" / "net6.pth", 0, (2, 5, 1))
    with pytest.raises(ExperimentError, match=r"net6.pth: expected tensors of an MLP of sizes \[2, 4, 4, 1\]"):
        read_siren_folders(tmp_path, "randinit_test", (3, 5))


class Dangerous:
    def __reduce__(self):
        return os.system, ("true",)


@pytest.mark.parametrize("damage", ["truncated", "pickle", "other"])
def test_damaged_and_dangerous_state_dicts_are_refused(tmp_path, damage):
    path = tmp_path / "randinit_test_0s" / "net0.pth"
    save_siren(path, 0)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    elif damage == "pickle":
        path.write_bytes(pickle.dumps(Dangerous()))
    else:
        torch.save({"scale": torch.ones(1)}, path)
    with pytest.raises(ExperimentError, match="net0.pth is missing, damaged, or no state dict"):
        read_siren_folders(tmp_path, "randinit_test")


def test_dwsnets_splits(tmp_path):
    splits, states = {}, []
    for number, name in enumerate(["train", "train", "val", "test"]):
        path = tmp_path / f"mnist_png_{name}_{number}_7" / "checkpoints" / "inr_final.pth"
        states.append(save_siren(path, number, prefix="seq.{}"))
        entry = splits.setdefault(name, {"path": [], "label": []})
        entry["path"].append(str(path) if number else str(path.relative_to(tmp_path)))
        entry["label"].append(str(number))
    file = tmp_path / "mnist_splits.json"
    file.write_text(json.dumps(splits))
    found = read_dwsnets(file)
    assert found.columns["split"].tolist() == [0, 0, 1, 2]
    assert found.columns["label"].tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(found.weights["W1"], torch.stack([s["seq.0.weight"] for s in states]))
    file.write_text(json.dumps({"train": splits["train"]}))
    with pytest.raises(ExperimentError, match=r"mnist_splits.json is no file of splits"):
        read_dwsnets(file)


LAYOUT = """varname,start_idx,end_idx,size,shape
sequential/conv2d/bias:0,0,2,2,"(2,)"
sequential/conv2d/kernel:0,2,20,18,"(3, 3, 1, 2)"
sequential/dense/bias:0,20,23,3,"(3,)"
sequential/dense/kernel:0,23,29,6,"(2, 3)"
"""


def write_zoo(folder, rows=20):
    data = np.random.default_rng(0).standard_normal((rows, 29)).astype(np.float32)
    data[5] = np.nan
    np.save(folder / "weights.npy", data)
    (folder / "layout.csv").write_text(LAYOUT)
    lines = ["config.activation,config.learning_rate,step,test_accuracy"]
    lines += [f"{'relu' if k % 3 else 'tanh'},{0.001 * k},{86 if k % 2 else 0},{k / rows}" for k in range(rows)]
    (folder / "metrics.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return data


def test_small_cnn_zoo(tmp_path):
    data = write_zoo(tmp_path)
    found = read_small_cnn_zoo(tmp_path)
    kept = [k for k in range(1, 20, 2) if k != 5]
    assert [t.shape for t in found.space.tensors] == [(2, 1, 3, 3), (2,), (3, 2), (3,)]
    np.testing.assert_allclose(found.columns["accuracy"], np.array(kept) / 20, rtol=1e-6)
    np.testing.assert_array_equal(found.weights["W1"][0, 1, 0], data[1, 2:20].reshape(3, 3, 1, 2)[:, :, 0, 1])
    np.testing.assert_array_equal(found.weights["W2"][3], data[kept[3], 23:].reshape(2, 3).T)
    assert np.bincount(found.columns["split"]).tolist() == [3, 1, 5]
    assert set(found.columns) == {"accuracy", "split", "config.learning_rate"}
    order = tmp_path / "split.csv"
    order.write_text("\n".join(map(str, range(19, -1, -1))))
    again = read_small_cnn_zoo(tmp_path, order)
    np.testing.assert_array_equal(again.weights["v1"], found.weights["v1"][::-1])
    order.write_text("0\n0\n")
    with pytest.raises(ExperimentError, match="split.csv is no reordering of the 20 rows"):
        read_small_cnn_zoo(tmp_path, order)
    with pytest.raises(ExperimentError, match="no checkpoint is of step 7"):
        read_small_cnn_zoo(tmp_path, step=7)
    for name in ("weights.npy", "metrics.csv.gz"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[:30])
        with pytest.raises(ExperimentError, match=f"{name} is missing or damaged"):
            read_small_cnn_zoo(tmp_path)
        (tmp_path / name).write_bytes(whole)
    np.save(tmp_path / "weights.npy", data[:4])
    with pytest.raises(ExperimentError, match="weights.npy has 4 rows, but metrics.csv.gz 20"):
        read_small_cnn_zoo(tmp_path)


def test_conversion_makes_a_dataset(tmp_path):
    write_zoo(tmp_path)
    command = [sys.executable, "-m", "reference_experiments"]
    options = {"cwd": ROOT, "capture_output": True, "text": True}
    done = subprocess.run([*command, "convert", "small-cnn-zoo", str(tmp_path), str(tmp_path / "ours")], **options)
    assert done.returncode == 0, done.stderr
    assert "3 training, 1 validation and 5 test networks" in done.stdout
    assert len(WeightDataset(tmp_path / "ours")) == 9
    checked = subprocess.run([*command, "verify", str(tmp_path / "ours")], **options)
    assert "9 networks in 1 whole shards" in checked.stdout
    shard = shard_path(tmp_path / "ours", 0)
    shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    checked = subprocess.run([*command, "verify", str(tmp_path / "ours")], **options)
    assert checked.returncode == 1
    assert "is damaged" in checked.stderr


def test_layout_of_the_zoo(tmp_path):
    """4,970 parameters in the published order: bias before kernel, channels last."""
    space = classifiers.ARCHITECTURES["cnn"](1, 1024)
    assert space.size == 4970
    weights = {t.name: np.ones((2, *t.shape), np.float32) for t in space.tensors}
    write_small_cnn_zoo(tmp_path, [Networks(space, weights, {})], [{"step": 86, "test_accuracy": 0.5}] * 2)
    lines = (tmp_path / "layout.csv").read_text().splitlines()
    assert lines[1:3] == [
        'sequential/conv2d/bias:0,0,16,16,"(16,)"',
        'sequential/conv2d/kernel:0,16,160,144,"(3, 3, 1, 16)"',
    ]
    assert lines[-1] == 'sequential/dense/kernel:0,4810,4970,160,"(16, 10)"'
    assert np.load(tmp_path / "weights.npy").shape == (2, 4970)


# Images


def idx(array):
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def write_mnist(folder, packed=True):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    parts = {}
    for part, count in (("train", 5), ("t10k", 3)):
        parts[part] = rng.integers(256, size=(count, 4, 4)), rng.integers(10, size=count)
        for x, kind in zip(parts[part], ("images-idx3-ubyte", "labels-idx1-ubyte"), strict=True):
            name = f"{part}-{kind}" + (".gz" if packed else "")
            (folder / name).write_bytes(gzip.compress(idx(x)) if packed else idx(x))
    return parts


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("NFN_DATA_DIR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_images(data_dir, packed, name):
    parts = write_mnist(data_dir / name, packed)
    found = images.load_images(name)
    np.testing.assert_array_equal(found.train_images[..., 0], parts["train"][0])
    np.testing.assert_array_equal(found.test_labels, parts["t10k"][1])
    assert len(found.sources) == 4
    file = data_dir / name / ("t10k-labels-idx1-ubyte" + (".gz" if packed else ""))
    for damaged in (b"", file.read_bytes()[:-2], b"\x00" * 40):
        file.write_bytes(damaged)
        with pytest.raises(ExperimentError, match=f"{file.name} is damaged"):
            images.load_images(name)
    file.unlink()
    with pytest.raises(ExperimentError, match=r"there is no t10k-labels-idx1-ubyte.gz or t10k-labels-idx1-ubyte"):
        images.load_images(name)


def test_cifar_images(data_dir):
    folder = data_dir / "cifar-10-batches-bin"
    folder.mkdir()
    records = np.random.default_rng(0).integers(256, size=(4, 3073), dtype=np.uint8)
    records[:, 0] %= 10
    for name in ("data_batch_1.bin", "data_batch_2.bin", "test_batch.bin"):
        (folder / name).write_bytes(records.tobytes())
    found = images.load_images("cifar10")
    assert found.train_images.shape == (8, 32, 32, 3)
    assert found.train_images[1, 2, 3, 1] == records[1, 1 + 1024 + 2 * 32 + 3]
    np.testing.assert_array_equal(found.test_labels, records[:, 0])
    (folder / "test_batch.bin").write_bytes(records.tobytes()[:-1])
    with pytest.raises(ExperimentError, match=r"test_batch.bin is damaged: 12291 bytes"):
        images.load_images("cifar10")


def test_svhn_images(data_dir):
    folder = data_dir / "svhn"
    folder.mkdir()
    x, y = (
        np.random.default_rng(0).integers(256, size=(32, 32, 3, 5), dtype=np.uint8),
        np.array([[10], [1], [2], [9], [10]]),
    )
    for name in ("train_32x32.mat", "test_32x32.mat"):
        savemat(folder / name, {"X": x, "y": y.astype(np.uint8)})
    found = images.load_images("svhn")
    np.testing.assert_array_equal(found.train_images[3], x[..., 3])
    assert found.train_labels.tolist() == [0, 1, 2, 9, 0]
    savemat(folder / "test_32x32.mat", {"X": x})
    with pytest.raises(ExperimentError, match=r"test_32x32.mat is damaged: it holds"):
        images.load_images("svhn")
    (folder / "test_32x32.mat").write_bytes(b"MATLAB")
    with pytest.raises(ExperimentError, match=r"test_32x32.mat is damaged"):
        images.load_images("svhn")


def test_gray():
    x = np.array([[[255, 255, 255], [0, 0, 0], [255, 0, 0]]], np.uint8)
    assert images.gray(x)[0, :, 0].tolist() == [255, 0, 76]
    assert images.gray(x[..., :1]) is not None
    assert images.gray(x).dtype == np.uint8


def test_downloads_are_checked(tmp_path, monkeypatch):
    served, cache = tmp_path / "served", tmp_path / "cache"
    write_mnist(served)
    handler = partial(SimpleHTTPRequestHandler, directory=str(served))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        files = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in served.iterdir()}
        address = f"http://127.0.0.1:{server.server_port}/"
        source = images.Source("mnist", address, files, images.SOURCES["mnist"].read)
        monkeypatch.setitem(images.SOURCES, "mnist", source)
        monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
        monkeypatch.delenv("NFN_DATA_DIR", raising=False)
        assert len(images.load_images("mnist").train_images) == 5
        wrong = images.Source("other", address, dict.fromkeys(files, "0" * 32), source.read)
        monkeypatch.setitem(images.SOURCES, "mnist", wrong)
        monkeypatch.setenv("NFN_DATA_DIR", str(tmp_path / "nowhere"))
        with pytest.raises(ExperimentError, match="hash") as error:
            images.load_images("mnist")
        assert str(tmp_path / "nowhere" / "other") in str(error.value)
        assert "NFN_DATA_DIR" in str(error.value)
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.skipif("NFN_DATA_DIR" not in os.environ, reason="needs NFN_DATA_DIR with real images")
@pytest.mark.parametrize(("name", "shape"), [("mnist", (60000, 28, 28, 1)), ("fashion-mnist", (60000, 28, 28, 1))])
def test_real_images(name, shape):
    if not (Path(os.environ["NFN_DATA_DIR"]) / name).is_dir():
        pytest.skip(f"{name} is not in NFN_DATA_DIR")
    found = images.load_images(name)
    assert found.train_images.shape == shape
    assert np.bincount(found.test_labels).min() > 800
