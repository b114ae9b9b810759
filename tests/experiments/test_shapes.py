"""Shapes: distances, identical shapes, layouts and damage; SIRENs fitted to points of their own."""

import hashlib
import os
import pickle
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from scipy.spatial.distance import cdist

from nfn_core import WeightSpace
from reference_experiments.cli.datasets import make_group
from reference_experiments.datasets.shape_inrs import NEAR, ShapeMaker, ShapePreset, draw_points
from reference_experiments.engines.base import BACKENDS, engine
from reference_experiments.files import ExperimentError
from reference_experiments.networks import sirens
from reference_experiments.sources import shapes
from reference_experiments.sources.splits import SPLITS

CUBE = np.random.default_rng(0).uniform(-1, 1, (500, 3))


@pytest.fixture(autouse=True)
def forget():
    """Sets are read once in a process; files of tests change."""
    shapes.load_shapes.cache_clear()


# Distances


def ball(side, radius):
    """Voxels of a ball."""
    places = np.indices((side,) * 3) - (side - 1) / 2
    return (places**2).sum(axis=0) <= radius**2


def test_distance_from_a_grid():
    grid = shapes.Grid(ball(32, 12), "ball")
    voxel = 1 / grid.radius
    assert abs(np.linalg.norm(grid.points, axis=1) - 1).max() < 2.5 * voxel  # only the shell counts
    exact = abs(np.linalg.norm(CUBE, axis=1) - (1 - voxel))
    error = abs(grid.distance(CUBE) - exact)
    assert error.max() < 1.5 * voxel
    nearest = cdist(CUBE, grid.points).min(axis=1)
    far = nearest > 2 * voxel
    np.testing.assert_allclose(grid.distance(CUBE)[far], nearest[far], atol=0.5 * voxel)
    np.testing.assert_allclose(grid.distance(grid.points), 0, atol=1e-9)
    drawn = grid.surface(np.random.default_rng(0), 1000)
    assert grid.distance(drawn).max() < voxel
    corners = np.array(np.meshgrid(*[[-1.0, 1.0]] * 3)).reshape(3, -1).T  # inside the padded grid, not at its edge
    np.testing.assert_allclose(grid.distance(corners), cdist(corners, grid.points).min(axis=1), atol=0.5 * voxel)
    hollow = shapes.Grid(ball(32, 12) & ~ball(32, 9), "hollow")
    middle = np.zeros((1, 3))
    assert hollow.distance(middle) < grid.distance(middle)
    with pytest.raises(ExperimentError, match="empty: no voxel is occupied"):
        shapes.Grid(np.zeros((4, 4, 4), bool), "empty")


def test_distance_from_a_cloud():
    points = np.random.default_rng(1).normal(5, 2, (50, 3))
    cloud = shapes.Cloud(points, "cloud")
    assert np.linalg.norm(cloud.points, axis=1).max() == pytest.approx(1)
    np.testing.assert_allclose(cloud.points.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(cloud.distance(CUBE), cdist(CUBE, cloud.points).min(axis=1))
    assert cloud.distance(cloud.surface(np.random.default_rng(0), 10)).max() == 0
    for wrong in (points[:, :2], points[0], points * np.nan, np.ones((5, 3))):
        with pytest.raises(ExperimentError, match="thing: expected finite points"):
            shapes.Cloud(wrong, "thing")


def test_points_are_drawn_on_near_and_around_the_surface():
    cloud = shapes.load_shapes("primitives", 0).read(0)
    points, distances = draw_points(cloud, np.random.default_rng(0), 2400, NEAR)
    assert (points.shape, distances.shape, points.dtype) == ((3, 2400), (1, 2400), np.float32)
    assert abs(points).max() <= 1
    np.testing.assert_allclose(distances[0], cloud.distance(points.T), atol=1e-6)
    edges = np.cumsum([round(share * 2400) for share in NEAR.values()])
    on, closest, close, near, anywhere = np.split(distances[0], edges)
    assert len(anywhere) == 100
    assert on.max() == 0
    assert closest.mean() < close.mean() < near.mean() < anywhere.mean()
    assert draw_points(cloud, np.random.default_rng(0), 50, {})[1].min() > 0


# Identical shapes


def test_of_identical_shapes_one_is_kept():
    keys = ["a", "b", "a", "c", "b", "d", "d", "e", "f"]
    labels = np.array([0, 1, 0, 1, 1, 0, 1, 0, 0])
    split = np.array([0, 0, 0, 0, 2, 0, 2, 1, 0])
    kept = shapes.distinct(keys, labels, split)
    assert kept.tolist() == [0, 3, 4, 7, 8]  # b is a test shape; d has two classes
    assert len({keys[k] for k in kept}) == len(kept)
    assert len({*keys}) < len(keys)


# Layouts


def write_modelnet(folder, **changes):
    """Voxels in the layout of ``modelnet10_vox32.npz``, smaller; some of the grids are identical."""
    folder.mkdir(parents=True, exist_ok=True)
    grids = np.random.default_rng(0).integers(2, size=(60, 8, 8, 8), dtype=np.uint8)
    grids[10] = grids[0]  # twice in training
    grids[55] = grids[1]  # in training and test
    grids[11] = grids[5]  # of two classes
    grids[12] = grids[13] = 0
    rows = np.packbits(grids.reshape(60, -1), axis=1)
    labels = np.arange(60) % 2
    labels[[10, 55]] = labels[[0, 1]]
    labels[11] = 1 - labels[5]
    arrays = {"x_train": rows[:50], "x_test": rows[50:], "y_train": labels[:50], "y_test": labels[50:]}
    arrays |= {"classes": np.array(["bed", "chair"]), "shape": np.array([8, 8, 8])}
    np.savez_compressed(folder / "modelnet10_vox32.npz", **arrays | changes)
    return grids


def test_modelnet_voxels(data_dir):
    grids = write_modelnet(data_dir / "modelnet10-vox32")
    found = shapes.load_shapes("modelnet10", 0)
    assert found.classes == ["bed", "chair"]
    assert {*range(60)} - {*found.numbers.tolist()} == {1, 10, 5, 11, 12, 13}
    assert found.left_out == 6
    assert found.split[found.numbers >= 50].tolist() == [2] * 10
    assert np.bincount(found.split).tolist() == [38, 6, 10]
    grid = found.read(20)
    assert grid.points.shape == shapes.Grid(grids[20].astype(bool), "").points.shape
    np.testing.assert_array_equal(grid.distance(CUBE), shapes.Grid(grids[20].astype(bool), "").distance(CUBE))
    digests = [hashlib.sha256(grids[k].tobytes()).hexdigest() for k in range(60)]

    def shared(split, numbers):
        parts = [{digests[k] for k in numbers[split == part]} for part in range(3)]
        return sum(len(parts[a] & parts[b]) for a, b in ((0, 1), (0, 2), (1, 2)))

    assert shared(found.split, found.numbers) == 0
    assert shared(np.repeat([0, 2], [50, 10]), np.arange(60)) == 1  # what it would be otherwise
    other = shapes.load_shapes("modelnet10", 1)
    assert not np.array_equal(other.split, found.split)
    assert np.array_equal(other.split == 2, found.split == 2)


def test_missing_and_damaged_voxels(data_dir, monkeypatch):
    folder = data_dir / "modelnet10-vox32"
    with pytest.raises(ExperimentError, match=r"no file .*modelnet10_vox32.npz: put it there"):
        shapes.load_shapes("modelnet10", 0)
    write_modelnet(folder)
    path = folder / "modelnet10_vox32.npz"
    whole = path.read_bytes()
    for damaged in (b"", whole[:200], whole[:300] + b"?" * 20 + whole[320:], pickle.dumps([1])):
        path.write_bytes(damaged)
        with pytest.raises(ExperimentError, match="modelnet10_vox32.npz is damaged"):
            shapes.load_shapes("modelnet10", 0)
    for changes in ({"shape": np.array([8, 8])}, {"y_train": np.arange(3)}, {"y_test": np.full(10, 7)}):
        write_modelnet(folder, **changes)
        with pytest.raises(ExperimentError, match="modelnet10_vox32.npz is damaged"):
            shapes.load_shapes("modelnet10", 0)
    monkeypatch.delenv("NFN_DATA_DIR")
    with pytest.raises(ExperimentError, match=r"NFN_DATA_DIR is not set.*modelnet10-vox32.*primitives"):
        shapes.load_shapes("modelnet10", 0)


def test_point_clouds_in_class_folders(tmp_path):
    """PointDA-10's ModelNet-10 and ShapeNet-10: ``class/part/number.npy``."""
    clouds = np.random.default_rng(0).normal(size=(2, 2, 12, 30, 3)).astype(np.float32)
    clouds[0, 0, 3] = clouds[0, 1, 3]
    for label, name in enumerate(["bathtub", "bed"]):
        for part, own in zip(("train", "test"), clouds[label], strict=True):
            (tmp_path / name / part).mkdir(parents=True)
            for number, cloud in enumerate(own):
                np.save(tmp_path / name / part / f"{number:06}.npy", cloud)
    found = shapes.load_shapes(str(tmp_path), 0)
    assert found.classes == ["bathtub", "bed"]
    assert np.bincount(found.split).tolist() == [19, 4, 24]
    assert found.left_out == 1
    assert np.bincount(found.labels).tolist() == [23, 24]
    first = found.read(0)  # bathtub/test/000000.npy
    np.testing.assert_array_equal(first.points, shapes.Cloud(clouds[0, 1, 0], "").points)
    path = tmp_path / "bathtub" / "test" / "000000.npy"
    for damaged in (b"", path.read_bytes()[:150], pickle.dumps([1])):
        path.write_bytes(damaged)
        with pytest.raises(ExperimentError, match="000000.npy is damaged"):
            found.read(0)
    np.save(path, np.zeros((30, 3)))
    with pytest.raises(ExperimentError, match="000000.npy: expected finite points"):
        found.read(0)


OFF = "OFF\n4 4 0\n0 0 0\n1 0 0\n0 1 0\n0 0 {}\n3 0 1 2\n3 0 1 3\n3 0 2 3\n3 1 2 3\n"
OBJ = "mtllib none.mtl\no a\nv 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\no b\nv 0 0 {}\nf 1 2 4\nf 1/1 3/1 4/1\nf 2 3 4\n"


@pytest.mark.parametrize(
    ("suffix", "text"), [("off", OFF), ("off", OFF.replace("OFF\n", "OFF")), ("obj", OBJ)], ids=["OFF", "OFF4", "OBJ"]
)
def test_meshes_in_class_folders(tmp_path, suffix, text):
    """ModelNet10's own layout, some of whose files lack the first line's end; OBJ deeper in the folders."""
    for name in ("chair", "desk"):
        (tmp_path / name / "deep").mkdir(parents=True)
        for number in range(1, 6):
            (tmp_path / name / "deep" / f"{number}.{suffix}").write_text(text.format(number + (name == "desk") / 2))
    found = shapes.load_shapes(str(tmp_path), 0)
    assert np.bincount(found.split).tolist() == [6, 2, 2]
    assert (np.bincount(found.labels * 3 + found.split) == [3, 1, 1] * 2).all()
    tetrahedron = found.read(0)
    assert tetrahedron.points.shape == (shapes.POINTS, 3)
    corner = tetrahedron.points - tetrahedron.points.min(axis=0)
    extent = corner.max(axis=0)
    np.testing.assert_allclose(extent / extent[0], 1, atol=0.1)
    assert ((corner / extent).sum(axis=1) < 1.03).all()  # nothing beyond the slanted face
    assert ((corner < 0.01).any(axis=1) | ((corner / extent).sum(axis=1) > 0.95)).all()  # nothing inside
    np.testing.assert_array_equal(found.read(0).points, tetrahedron.points)
    path = tmp_path / "chair" / "deep" / f"1.{suffix}"
    path.write_text(text[: len(text) // 2])
    with pytest.raises(ExperimentError, match=f"1.{suffix} is damaged"):
        found.read(0)


def write_scannet(folder, classes=10):
    """PointDA-10's ScanNet-10: places and colors of points, in files that a list names."""
    rng = np.random.default_rng(0)
    data, label = rng.normal(size=(40, 16, 6)), (np.arange(40) % classes).astype(np.int32)
    data[39, :, :3] = data[9, :, :3]  # the same places, other colors
    for name, part in (("train_0", slice(0, 20)), ("train_1", slice(20, 30)), ("test_0", slice(30, 40))):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file.create_dataset("data", data=data[part])
            file.create_dataset("label", data=label[part])
    (folder / "train_files.txt").write_text("./train_0.h5\n./train_1.h5\n")
    (folder / "test_files.txt").write_text("./test_0.h5\n")
    return data


def test_scannet_files(tmp_path):
    data = write_scannet(tmp_path)
    found = shapes.load_shapes(str(tmp_path), 0)
    assert (found.classes[3], len(found.classes)) == ("cabinet", 10)
    assert np.bincount(found.split).tolist() == [19, 10, 10]
    assert 9 not in found.numbers
    assert set(found.sources) == {"train_0.h5", "train_1.h5", "test_0.h5"}
    np.testing.assert_allclose(
        found.read(22).points, shapes.Cloud(data[22, :, :3].astype(np.float32), "").points, atol=1e-6
    )
    path = tmp_path / "train_1.h5"
    whole = path.read_bytes()
    for damaged in (b"", whole[:700], b"?" * 900):
        path.write_bytes(damaged)
        shapes.load_shapes.cache_clear()
        with pytest.raises(ExperimentError, match="train_1.h5 is damaged"):
            shapes.load_shapes(str(tmp_path), 0)
    path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        file["label"][0] = 10
    with pytest.raises(ExperimentError, match=r"train_1.h5 is damaged: it has 10 clouds with 10 labels"):
        shapes.load_shapes(str(tmp_path), 0)
    (tmp_path / "test_0.h5").unlink()
    path.write_bytes(whole)
    with pytest.raises(ExperimentError, match="there is no test_0.h5"):
        shapes.load_shapes(str(tmp_path), 0)


def test_folders_without_shapes_and_with_too_few(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ExperimentError, match=r"there are no shapes: looked for .*primitives, modelnet10"):
            shapes.load_shapes(str(folder), 0)
    (tmp_path / "chair").mkdir()
    np.save(tmp_path / "chair" / "1.npy", CUBE)
    with pytest.raises(ExperimentError, match="1 different shapes do not make three splits"):
        shapes.load_shapes(str(tmp_path), 0)
    options = ["shape-inrs", "--shapes", str(tmp_path / "nowhere"), "--scale", "smoke", "--output", str(tmp_path / "x")]
    done = CliRunner().invoke(make_group, options)
    assert done.exit_code == 1
    assert "there are no shapes" in done.output


def test_primitives_are_drawn_from_the_seed():
    found, other = shapes.load_shapes("primitives", 0), shapes.load_shapes("primitives", 1)
    assert np.bincount(found.labels * 3 + found.split).tolist() == [48, 6, 6] * 5
    np.testing.assert_array_equal(found.read(7).points, shapes.load_shapes("primitives", 0).read(7).points)
    assert not np.allclose(found.read(7).points, found.read(8).points)
    assert not np.allclose(found.read(7).points, other.read(7).points)


@pytest.mark.skipif("NFN_DATA_DIR" not in os.environ, reason="needs NFN_DATA_DIR with real shapes")
def test_real_modelnet_voxels():
    path = Path(os.environ["NFN_DATA_DIR"]) / "modelnet10-vox32" / "modelnet10_vox32.npz"
    if not path.is_file():
        pytest.skip("ModelNet10 is not in NFN_DATA_DIR")
    found = shapes.load_shapes("modelnet10", 0)
    with np.load(path) as file:
        rows = np.concatenate([file["x_train"], file["x_test"]])
    parts = [{rows[k].tobytes() for k in found.numbers[found.split == part]} for part in range(3)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == len(found.numbers)
    assert len({*map(bytes, rows[:3991])} & {*map(bytes, rows[3991:])}) == 56  # what it would be otherwise
    assert min(map(len, parts)) > 300
    assert found.read(int(found.numbers[0])).distance(CUBE).max() < 2


# Networks


@pytest.mark.parametrize("backend", BACKENDS)
def test_networks_are_fitted_to_their_own_points(backend):
    library, space, rng = engine(backend), WeightSpace.mlp([3, 8, 1]), np.random.default_rng(0)
    count = library.block + 1
    points, targets = rng.uniform(-1, 1, (count, 3, 20)).astype(np.float32), rng.normal(size=(count, 1, 20))
    targets = targets.astype(np.float32)
    start, rates = sirens.initial(space, 0, np.arange(count)), sirens.learning_rates(1e-2, 6, cosine=True)
    chosen = np.broadcast_to(np.arange(10), (6, count, 10)).copy()
    half = sirens.fit(library, start, targets, points, rates, chosen)
    other = sirens.fit(library, start, targets, points, rates, chosen + 10)
    first = sirens.fit(library, start, targets[:, :, :10], points[:, :, :10], rates)
    shared = sirens.fit(library, start, targets[:, :, :10], points[0, :, :10], rates)
    for name, x in first.items():
        np.testing.assert_allclose(half[name], x, atol=1e-5)
        np.testing.assert_allclose(shared[name][0], x[0], atol=1e-5)
    assert abs(other["W1"] - first["W1"]).max() > 1e-3
    assert abs(shared["W1"][-1] - first["W1"][-1]).max() > 1e-3
    values = sirens.evaluate(library, first, points)
    np.testing.assert_allclose(values, sirens.render(first, points, np.sin), atol=1e-4)


def test_quality_is_the_error_at_points_held_out():
    scale = ShapePreset(1, 2000, 64, 1e-2, 200, True)
    fitted, untrained = (
        ShapeMaker("primitives", s, 0, "jax").run(0) for s in (scale, replace(scale, learning_rate=0.0))
    )
    assert [SPLITS[k] for k in np.unique(fitted.columns["split"])] == [*SPLITS]
    found = shapes.load_shapes("primitives", 0)
    for networks in (fitted, untrained):
        drawn = [
            draw_points(found.read(int(number)), np.random.default_rng(9), 4000, {})
            for number in networks.columns["shape"]
        ]
        values = sirens.render(networks.weights, np.stack([points for points, _ in drawn]), np.sin)
        errors = abs(values - np.stack([distances for _, distances in drawn])).mean(axis=(1, 2))
        np.testing.assert_allclose(networks.columns["uniform error"], errors, rtol=0.1)
    assert (fitted.columns["uniform error"] < untrained.columns["uniform error"] / 2).all()
