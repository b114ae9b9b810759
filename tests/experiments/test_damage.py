"""Whatever file is damaged, and wherever: it is read as it is, or an error names it."""

import gzip
import io
import logging
import os
from warnings import catch_warnings
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZipFile

import h5py
import numpy as np
import pytest
from helpers import idx
from safetensors.numpy import save_file
from scipy.io import savemat

from nfn_core import WeightSpace
from reference_experiments.datasets.conversion import read_networks, read_small_cnn_zoo, write_small_cnn_zoo
from reference_experiments.datasets.format import Networks, read_shard, shard_path, write_shard
from reference_experiments.files import ExperimentError
from reference_experiments.networks.classifiers import ARCHITECTURES
from reference_experiments.networks.torch import write_state_dict
from reference_experiments.sources import images, shapes

RNG = np.random.default_rng(0)
TETRAHEDRON = {
    "1.off": "OFF\n4 4 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n3 0 2 3\n3 1 2 3\n",
    "1.obj": "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\nf 1 2 4\nf 1 3 4\nf 2 3 4\n",
}


def mnist(folder):
    (folder / "mnist").mkdir()
    for part in ("train", "t10k"):
        (folder / "mnist" / f"{part}-images-idx3-ubyte.gz").write_bytes(
            gzip.compress(idx(RNG.integers(256, size=(3, 4, 4))))
        )
        (folder / "mnist" / f"{part}-labels-idx1-ubyte").write_bytes(idx(RNG.integers(10, size=3)))
    return sorted((folder / "mnist").iterdir()), lambda: images.load_images("mnist")


def svhn(folder):
    (folder / "svhn").mkdir()
    x, y = RNG.integers(256, size=(32, 32, 3, 2), dtype=np.uint8), np.array([[10], [1]], np.uint8)
    for name in ("train_32x32.mat", "test_32x32.mat"):
        savemat(folder / "svhn" / name, {"X": x, "y": y}, do_compression=name[1] == "r")
    return sorted((folder / "svhn").iterdir()), lambda: images.load_images("svhn")


def voxels(folder):
    path = folder / "modelnet10-vox32" / "modelnet10_vox32.npz"
    path.parent.mkdir()
    rows, labels = RNG.integers(256, size=(40, 8), dtype=np.uint8), np.arange(40) % 2
    about = {"classes": np.array(["bed", "chair"]), "shape": np.array([4, 4, 4])}
    np.savez(path, x_train=rows[:30], x_test=rows[30:], y_train=labels[:30], y_test=labels[30:], **about)
    return [path], lambda: shapes.load_shapes("modelnet10", 0)


def scannet(folder):
    for name, count in (("train_0.h5", 30), ("test_0.h5", 10)):
        with h5py.File(folder / name, "w") as file:
            file["data"], file["label"] = RNG.normal(size=(count, 8, 6)), (np.arange(count) % 10).astype(np.int32)
    return sorted(folder.glob("*.h5")), lambda: shapes.load_shapes(str(folder), 0)


def class_folder(folder):
    for number in range(8):
        (folder / f"class {number % 2}").mkdir(exist_ok=True)
        np.save(folder / f"class {number % 2}" / f"{number}.npy", RNG.normal(size=(9, 3)))
    for name, text in TETRAHEDRON.items():
        (folder / "class 0" / name).write_text(text)
    paths = [folder / "class 0" / name for name in ("0.npy", *TETRAHEDRON)]

    def read():
        found = shapes.load_shapes(str(folder), 0)
        for number in range(3):  # 0.npy, 1.obj, 1.off
            found.read(number)

    return paths, read


def zoo(folder):
    space = ARCHITECTURES["cnn"](1, 64)
    weights = {t.name: RNG.normal(size=(6, *t.shape)).astype(np.float32) for t in space.tensors}
    write_small_cnn_zoo(folder, [Networks(space, weights, {})], [{"step": 86, "test_accuracy": 0.5}] * 6)
    return sorted(folder.iterdir()), lambda: read_small_cnn_zoo(folder)


def shard(folder):
    space = WeightSpace.mlp([2, 3, 1])
    weights = {t.name: RNG.normal(size=(4, *t.shape)).astype(np.float32) for t in space.tensors}
    path = shard_path(folder, 0)
    write_shard(path, Networks(space, weights, {"split": np.zeros(4, np.uint8)}, {"seed": 1}), 0, "0" * 64)
    return [path], lambda: read_shard(path, 0, "0" * 64)


def own_files(folder):
    space = WeightSpace.mlp([2, 3, 1])
    network = {t.name: RNG.normal(size=t.shape).astype(np.float32) for t in space.tensors}
    save_file(network, folder / "0.safetensors")
    write_state_dict(folder / "1.pth", network)
    return sorted(folder.iterdir()), lambda: read_networks(folder, space)


def claim_idx(folder):
    (path, *_), read = mnist(folder)
    path.write_bytes(gzip.compress(bytes((0, 0, 8, 3)) + np.array([2**31] * 3, ">u4").tobytes()))
    return path, read, "claims to hold"


def bomb_idx(folder):
    (path, *_), read = mnist(folder)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(10**8)))
    return path, read, r"its head says \(3, 4, 4\) bytes, but more follow"


def claim_npz(folder):
    (path,), read = voxels(folder)
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"shape": (10**12, 8), "fortran_order": False, "descr": "|u1"})
    with ZipFile(path, "a", ZIP_DEFLATED) as file, catch_warnings(action="ignore"):
        file.writestr("x_train.npy", head.getvalue() + bytes(100))
    return path, read, "x_train.npy says it is uint8"


def bomb_npz(folder):
    (path,), read = voxels(folder)
    with ZipFile(path, "a", ZIP_BZIP2) as file:
        file.writestr("more.npy", bytes(10**8))
    return path, read, "claims to hold"


def wrong_voxels(folder):
    (path,), read = voxels(folder)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **arrays | {"y_test": arrays["y_test"] - 1})
    return path, read, "labels int64 from -1 to 1"


def claim_h5(folder):
    (path, *_), read = scannet(folder)
    with h5py.File(path, "w") as file:
        file.create_dataset("data", (10**9, 2048, 6), "f4", chunks=(1, 2048, 6))
        file["label"] = np.zeros(3, int)
    return path, read, "claims to hold"


def external_h5(folder):
    (other, path), read = scannet(folder)
    with h5py.File(path, "w") as file:
        file["data"], file["label"] = h5py.ExternalLink(other.name, "data"), np.zeros(30, int)
    return path, read, "'data' is a link to elsewhere"


def virtual_h5(folder):
    (other, path), read = scannet(folder)
    with h5py.File(path, "w") as file:
        layout = h5py.VirtualLayout((10, 8, 6), "f8")
        layout[:] = h5py.VirtualSource(other, "data", (10, 8, 6))
        file.create_virtual_dataset("data", layout)
        file["label"] = np.zeros(10, int)
    return path, read, "'data' lies in other files"


def claim_npy(folder):
    paths, read = class_folder(folder)
    with paths[0].open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"shape": (10**12, 3), "fortran_order": False, "descr": "<f8"})
    return paths[0], read, "is damaged, or no shape"


def pipe(folder):
    paths, read = class_folder(folder)
    paths[0].unlink()
    os.mkfifo(paths[0])
    return paths[0], read, "is no ordinary file"


MALICE = [
    *(claim_idx, bomb_idx, claim_npz, bomb_npz, wrong_voxels, claim_h5, external_h5, virtual_h5, claim_npy, pipe),
]


@pytest.mark.parametrize("layout", MALICE, ids=lambda f: f.__name__)
def test_malice_is_named(layout, tmp_path, monkeypatch):
    monkeypatch.setenv("NFN_DATA_DIR", str(tmp_path))
    shapes.load_shapes.cache_clear()
    path, read, message = layout(tmp_path)
    with pytest.raises(ExperimentError, match=f"^{path} .*{message}"):
        read()


@pytest.mark.filterwarnings("ignore")  # of libraries that read on
@pytest.mark.parametrize(
    "layout", [mnist, svhn, voxels, scannet, class_folder, zoo, shard, own_files], ids=lambda f: f.__name__
)
def test_damage_is_named(layout, tmp_path, monkeypatch):
    monkeypatch.setenv("NFN_DATA_DIR", str(tmp_path))
    logging.getLogger("trimesh").setLevel(logging.CRITICAL)
    paths, read = layout(tmp_path)
    rng = np.random.default_rng(0)
    for path in paths:
        whole, messages = path.read_bytes(), []
        for turn in range(40):
            damaged = bytearray(whole)
            if turn % 2 or layout is svhn:  # on other damage SciPy's reader of MATLAB files crashes
                del damaged[rng.integers(len(whole)) :]
            else:
                for place in rng.integers(len(whole), size=3):
                    damaged[place] = rng.integers(256)
            path.write_bytes(damaged)
            shapes.load_shapes.cache_clear()
            try:
                read()
            except ExperimentError as error:
                messages.append(str(error))
        assert len(messages) >= 15, path.name
        assert all(path.name in message for message in messages)
        path.write_bytes(whole)
        shapes.load_shapes.cache_clear()
        read()
