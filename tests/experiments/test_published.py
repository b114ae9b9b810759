"""Published layouts of datasets of networks, and files of real images."""

import gzip
import hashlib
import itertools
import json
import os
import pickle
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
import torch
from helpers import command, idx
from safetensors.torch import save_file
from scipy.io import savemat

from nfn_core import WeightSpace
from reference_experiments.cli import datasets as dataset_commands
from reference_experiments.datasets.conversion import (
    read_dwsnets,
    read_networks,
    read_siren_folders,
    read_small_cnn_zoo,
    write_small_cnn_zoo,
)
from reference_experiments.datasets.format import Networks, WeightDataset, shard_path
from reference_experiments.files import ExperimentError
from reference_experiments.networks import classifiers
from reference_experiments.sources import images

ROOT = Path(__file__).parents[2]


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
    with pytest.raises(ExperimentError, match="net0.pth.* no state dict"):
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
    for wrong, message in ((1.5, "'1.5'"), (-1, "negative"), (2**40, "OverflowError"), (None, "'None'")):
        file.write_text(json.dumps(splits | {"val": {"path": splits["val"]["path"], "label": [wrong]}}))
        with pytest.raises(ExperimentError, match=f"mnist_splits.json is damaged, or no file of splits.*{message}"):
            read_dwsnets(file)
    file.write_text(json.dumps({"train": splits["train"]}))
    with pytest.raises(ExperimentError, match=r"mnist_splits.json is damaged, or no file of splits"):
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


def change(tensors, name, **to):
    """Tensors of which one is of another kind."""
    return tensors | {name: tensors[name].to(**to) if to else tensors[name] * torch.nan}


@pytest.mark.parametrize("kind", ["one by one", "together"])
@pytest.mark.parametrize(
    ("to", "message"),
    [
        ({"dtype": torch.int32}, "expected floating-point tensors of one dtype, but .*int32"),
        ({"dtype": torch.complex64}, "expected floating-point tensors of one dtype, but .*complex64"),
        ({"dtype": torch.float64}, "expected floating-point tensors of one dtype, but .*float64"),
        ({"dtype": torch.float8_e5m2}, "is of dtype torch.float8_e5m2, which NumPy has no type for"),
        ({}, "holds NaN or infinity: take it out"),
    ],
)
def test_published_numbers_are_floats_of_one_kind(kind, to, message, tmp_path):
    folder = tmp_path / "randinit_test_0s"
    states = [save_siren(folder / f"net{k}.pth", k) for k in range(2)]
    torch.save(change(states[1], "net.1.linear.weight", **to), folder / "net1.pth")
    together, alone = partial(read_siren_folders, tmp_path, "randinit_test"), partial(read_networks, folder)
    with pytest.raises(ExperimentError, match=f"net1.pth.* {message}"):
        together() if kind == "together" else alone(WeightSpace.mlp([2, 4, 4, 1]))


def test_networks_of_two_precisions_do_not_mix(tmp_path):
    folder = tmp_path / "randinit_test_0s"
    states = [save_siren(folder / f"net{k}.pth", k) for k in range(2)]
    torch.save({name: x.double() for name, x in states[1].items()}, folder / "net1.pth")
    with pytest.raises(ExperimentError, match="net1.pth: expected tensors of an MLP of .* float32 as in .*net0.pth"):
        read_siren_folders(tmp_path, "randinit_test")
    assert len(read_networks(folder, WeightSpace.mlp([2, 4, 4, 1]))[0]) == 2  # here all become float32


def test_state_dicts_of_other_networks(tmp_path):
    path = tmp_path / "randinit_test_0s" / "net0.pth"
    path.parent.mkdir()
    for state in ({"weight": torch.ones(())}, {"weight": torch.ones(3)}, {"0.weight": torch.ones(3, 0)}):
        torch.save(state, path)
        with pytest.raises(ExperimentError, match="net0.pth"):
            read_siren_folders(tmp_path, "randinit_test")
    path.rename(path.with_name("net99999999999.pth"))
    with pytest.raises(ExperimentError, match="net99999999999.pth: expected the number of an image"):
        read_siren_folders(tmp_path, "randinit_test")


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_bfloat16_is_cast_as_float16_is(ending, tmp_path):
    state = {"0.weight": torch.randn(4, 2), "0.bias": torch.randn(4)}
    for name, dtype in (("a", torch.bfloat16), ("b", torch.float16)):
        (torch.save if ending == ".pth" else save_file)(
            {n: x.to(dtype) for n, x in state.items()}, tmp_path / (name + ending)
        )
    _, _, found = read_networks(tmp_path, WeightSpace.mlp([2, 4]))
    assert found["W1"].dtype == np.float32
    for k, dtype in enumerate((torch.bfloat16, torch.float16)):
        np.testing.assert_array_equal(found["W1"][k], state["0.weight"].to(dtype).float())
    (torch.save if ending == ".pth" else save_file)(
        {n: x.to(torch.float8_e4m3fn) for n, x in state.items()}, tmp_path / ("a" + ending)
    )
    with pytest.raises(
        ExperimentError, match=f"a{ending}.* is of dtype (torch.float8_e4m3fn|F8_E4M3), which NumPy has no"
    ):
        read_networks(tmp_path, WeightSpace.mlp([2, 4]))


def test_state_dicts_hold_what_they_claim(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"0.weight": torch.ones(1).expand(10**6, 10**6), "0.bias": torch.ones(3)}, path)
    with pytest.raises(ExperimentError, match=r"a.pth is damaged.*'0.weight' of shape \(1000000, 1000000\) repeats"):
        read_networks(tmp_path, WeightSpace.mlp([2, 4]))
    torch.save({"0.weight": torch.zeros(1000, 1000)}, path)
    with ZipFile(path) as plain, ZipFile(tmp_path / "b.pth", "w", ZIP_DEFLATED) as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    path.unlink()
    with pytest.raises(ExperimentError, match="b.pth is damaged.*compressed, as torch.save never does"):
        read_networks(tmp_path, WeightSpace.mlp([2, 4]))


METRICS = {
    "0.003": ("1e39", "column config.learning_rate holds 1e39, which is no finite float32"),
    "0.35": ("inf", "column test_accuracy holds inf, which is no finite float32"),
    "86,0.15": ("86,1.5", "test_accuracy goes from .* to 1.5, not from 0 to 1"),
    "86,0.05": ("1e999,0.05", "a step is no whole number"),
    "86,0.25": ("86.5,0.25", "a step is no whole number"),
    "86,0.65": ("86", "a row has more or fewer cells than the head"),
    "86,0.75": ("86,0.75,1", "a row has more or fewer cells than the head"),
    "86,0.85": ("86," + "x" * 400_000, "more than 172,032 bytes"),
}


@pytest.mark.parametrize(("before", "after", "message"), [(k, *v) for k, v in METRICS.items()])
def test_numbers_of_the_zoo(before, after, message, tmp_path):
    write_zoo(tmp_path)
    path = tmp_path / "metrics.csv.gz"
    text = gzip.decompress(path.read_bytes()).decode()
    assert before in text
    path.write_bytes(gzip.compress(text.replace(before, after).encode()))
    with pytest.raises(ExperimentError, match=f"^{path} is damaged, or no table.*{message}"):
        read_small_cnn_zoo(tmp_path)


def test_convert_prints_what_it_leaves_out_of_the_zoo(tmp_path):
    write_zoo(tmp_path)
    path = tmp_path / "metrics.csv.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b"0.011", b"0.0l1")))
    assert read_small_cnn_zoo(tmp_path).about["left_out"] == [
        "1 of 10 networks, whose weights are not finite",
        "column config.activation, which holds 'relu'",
        "column config.learning_rate, which holds '0.0l1'",
    ]
    output = command("convert", "small-cnn-zoo", tmp_path, tmp_path / "ours")
    assert "Left out: 1 of 10 networks, whose weights are not finite.\n" in output
    for wrong in (np.zeros((20, 29), np.int32), np.zeros((20, 29), np.complex64), np.zeros(20, np.float32)):
        np.save(tmp_path / "weights.npy", wrong)
        with pytest.raises(ExperimentError, match=f"weights.npy is damaged, or no array of networks.*{wrong.dtype}"):
            read_small_cnn_zoo(tmp_path)


def test_conversions_keep_to_their_folder(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_zoo(tmp_path / name, 20 if name == "a" else 30)
    ours = tmp_path / "ours"
    arguments = ("convert", "small-cnn-zoo", tmp_path / "a", ours)
    command(*arguments)
    whole = {path.name: path.read_bytes() for path in ours.iterdir() if path.is_file()}
    assert "holds a run with settings" in command("convert", "small-cnn-zoo", tmp_path / "b", ours, status=1)
    assert "holds a run with settings" in command("make", "cnn-zoo", "--scale", "smoke", "--output", ours, status=1)
    written = []

    def interrupted(*arguments):
        written.append((ours / "dataset.json").exists())
        raise ExperimentError("stopped")

    monkeypatch.setattr(dataset_commands, "write_shard", interrupted)
    assert "stopped" in command(*arguments, status=1)
    assert written == [False]
    assert "holds no finished dataset" in command("verify", ours, status=1)
    monkeypatch.undo()
    command(*arguments)
    assert {path.name: path.read_bytes() for path in ours.iterdir() if path.is_file()} == whole
    (ours / "settings.json").unlink()  # as datasets of earlier versions
    assert "holds another dataset" in command(*arguments, status=1)


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
        with pytest.raises(ExperimentError, match=f"{name} is damaged, or no (array of networks|table)"):
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


def test_cifar_images(data_dir, capsys):
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
    said = capsys.readouterr().err
    assert "8 images of 50,000 are there, in data_batch_1.bin, data_batch_2.bin" in said
    assert "4 images of 10,000 are there, in test_batch.bin" in said
    records[2, 0] = 10
    (folder / "data_batch_2.bin").write_bytes(records.tobytes())
    with pytest.raises(ExperimentError, match="data_batch_2.bin is damaged: a label is 10, but the classes are 0 to 9"):
        images.load_images("cifar10")
    (folder / "data_batch_2.bin").unlink()
    (folder / "test_batch.bin").write_bytes(records.tobytes()[:-1])
    with pytest.raises(ExperimentError, match=r"test_batch.bin is damaged: 12,291 bytes"):
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
    for wrong, message in ((11, "a label is 11, but the classes are 1 to 10"), (0, "a label is 0"), (1.5, "y float64")):
        savemat(folder / "test_32x32.mat", {"X": x, "y": np.where(y == 9, wrong, y)})
        with pytest.raises(ExperimentError, match=f"test_32x32.mat is damaged: .*{message}"):
            images.load_images("svhn")
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
