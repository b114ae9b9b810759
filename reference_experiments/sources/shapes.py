"""Shapes and their unsigned distances: ModelNet10's voxels, folders of point clouds or meshes, and drawn primitives.

Every shape is moved and scaled into the unit sphere, as inr2vec does (De Luigi et al. 2023).
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Protocol
from zipfile import ZipFile, ZipInfo

import h5py
import numpy as np
import trimesh
from scipy.ndimage import binary_erosion, distance_transform_edt, map_coordinates
from scipy.spatial import cKDTree

from reference_experiments.files import ExperimentError, MissingDataError, check_claim, reading
from reference_experiments.sources.images import DATA_DIR, damaged
from reference_experiments.sources.splits import SPLITS

__all__ = ["Cloud", "Grid", "SHAPE_SETS", "Shape", "Shapes", "distinct", "load_shapes"]

SHAPE_SETS = ("primitives", "modelnet10")
POINTS = 10_000
"""Points drawn on the surface of a mesh."""

PRIMITIVES: dict[str, Callable[[], trimesh.Trimesh]] = {
    "box": trimesh.creation.box,
    "cone": lambda: trimesh.creation.cone(1, 1),
    "cylinder": lambda: trimesh.creation.cylinder(1, 1),
    "ellipsoid": trimesh.creation.icosphere,
    "torus": lambda: trimesh.creation.torus(1, 0.4),
}
EACH = 60
"""Primitives of each class."""

SCANNET = ("bathtub", "bed", "bookshelf", "cabinet", "chair", "lamp", "monitor", "plant", "sofa", "table")
"""PointDA-10's classes, by label."""

PARTS = {"train": 0, "val": 1, "validation": 1, "test": 2}
"""Folders of the parts of a set, with their numbers in `SPLITS`."""


class Shape(Protocol):
    """A surface in the unit sphere."""

    def surface(self, stream: np.random.Generator, count: int) -> np.ndarray:
        """Draw points of the surface, shape (count, 3)."""

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Unsigned distance from the surface of points (n, 3) in [-1, 1]³, shape (n,)."""


class Cloud:
    """A point cloud; the distance is that to the nearest point.

    Parameters
    ----------
    points : numpy.ndarray
        Shape (points, 3).
    name : str
        What an error calls it.

    Raises
    ------
    ExperimentError
        If the points are not of this shape, not finite, or all the same.
    """

    def __init__(self, points: np.ndarray, name: str) -> None:
        if (
            points.ndim != 2
            or points.shape[1] != 3
            or not np.isfinite(points).all()
            or not np.ptp(points, axis=0).any()
        ):
            raise ExperimentError(
                f"{name}: expected finite points of shape (points, 3) that are not all the same, but an array of shape "
                f"{points.shape} came: get it again, or take it out."
            )
        centered = points - points.mean(axis=0)
        self.points = centered / np.linalg.norm(centered, axis=1).max()
        self.tree = cKDTree(self.points)

    def surface(self, stream: np.random.Generator, count: int) -> np.ndarray:
        """Draw some of the points."""
        return np.asarray(self.points[stream.integers(len(self.points), size=count)])

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Distance to the nearest point."""
        return np.asarray(self.tree.query(points)[0])


class Grid:
    """Voxels; the surface are those that are occupied and have an empty neighbor.

    Distances are exact at centers of voxels (Euclidean distance transform) and linear between them.

    Parameters
    ----------
    occupied : numpy.ndarray
        Booleans of shape (n, n, n).
    name : str
        What an error calls it.

    Raises
    ------
    ExperimentError
        If no voxel is occupied.
    """

    def __init__(self, occupied: np.ndarray, name: str) -> None:
        shell = occupied & ~binary_erosion(occupied)
        if not shell.any():
            raise ExperimentError(f"{name}: no voxel is occupied: take it out.")
        centers = np.argwhere(shell)
        middle = centers.mean(axis=0)
        self.radius = np.linalg.norm(centers - middle, axis=1).max() + 0.5
        self.points = (centers - middle) / self.radius
        before = np.maximum(np.ceil(self.radius - middle), 0).astype(int)  # empty voxels around, to fill the cube
        after = np.maximum(np.ceil(middle + self.radius) + 1 - shell.shape, 0).astype(int)
        self.middle = middle + before
        self.distances = distance_transform_edt(~np.pad(shell, np.stack([before, after], axis=1)))

    def surface(self, stream: np.random.Generator, count: int) -> np.ndarray:
        """Draw points anywhere in the surface's voxels."""
        centers = self.points[stream.integers(len(self.points), size=count)]
        return np.asarray(centers + stream.uniform(-0.5, 0.5, (count, 3)) / self.radius)

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Distance to the nearest voxel's center, by interpolation."""
        places = points * self.radius + self.middle
        return np.asarray(map_coordinates(self.distances, places.T, order=1, mode="nearest") / self.radius)


@dataclass(frozen=True)
class Shapes:
    """Labeled shapes, no two of them identical.

    Parameters
    ----------
    classes : sequence of str
        Names of the classes.
    numbers : numpy.ndarray
        Number of each shape in its source, shape (shapes,), int64.
    labels : numpy.ndarray
        Numbers of the classes, shape (shapes,), int64.
    split : numpy.ndarray
        Numbers of `SPLITS`, shape (shapes,), uint8.
    read : callable
        From a shape's number to the shape.
    sources : dict of str to str
        SHA-256 of what they come from.
    left_out : int
        Shapes of the source that are left out because they are identical to another.
    """

    classes: Sequence[str]
    numbers: np.ndarray
    labels: np.ndarray
    split: np.ndarray
    read: Callable[[int], Shape]
    sources: dict[str, str]
    left_out: int


@cache
def load_shapes(name: str, seed: int) -> Shapes:
    """Load a set of shapes.

    Parameters
    ----------
    name : str
        One of `SHAPE_SETS`, or a folder: of class folders with point clouds (``.npy``, as PointDA-10 has its ModelNet-10
        and ShapeNet-10) or meshes (``.off``, ``.obj``), below folders ``train``, ``val`` and ``test`` where the set has
        such parts; or with files ``train_*.h5`` and ``test_*.h5`` (as PointDA-10 has its ScanNet-10).
    seed : int
        Seed of the parts that the source does not have, a tenth of each class's training shapes each, and of the
        primitives.

    Returns
    -------
    Shapes
        In the order of their source.

    Raises
    ------
    ExperimentError
        If there are no shapes, or a file is damaged.
    """
    if name == "primitives":
        return _primitives(seed)
    if name == "modelnet10":
        return _modelnet10(seed)
    folder = Path(name)
    if any(folder.glob("*.h5")):
        return _h5(folder, seed)
    return _class_folders(folder, seed)


def distinct(keys: Sequence[str], labels: np.ndarray, split: np.ndarray) -> np.ndarray:
    """Numbers of shapes among which no two are identical.

    Parameters
    ----------
    keys : sequence of str
        Equal for identical shapes.
    labels, split : numpy.ndarray
        Class and part of each, shape (shapes,).

    Returns
    -------
    numpy.ndarray
        Of identical shapes one, of the test part if there is one, else of validation; none if their classes differ.
    """
    first: dict[str, int] = {}
    classes = defaultdict(set)
    for number in sorted(range(len(keys)), key=lambda k: -int(split[k])):
        first.setdefault(keys[number], number)
        classes[keys[number]].add(int(labels[number]))
    return np.array(sorted(number for key, number in first.items() if len(classes[key]) == 1), np.int64)


def _shapes(
    classes: Sequence[str],
    keys: Sequence[str],
    labels: np.ndarray,
    split: np.ndarray,
    read: Callable[[int], Shape],
    sources: dict[str, str],
    seed: int,
) -> Shapes:
    """Leave out identical shapes, then draw the parts that are missing."""
    numbers = distinct(keys, labels, split)
    labels, split = labels[numbers].astype(np.int64), split[numbers].astype(np.uint8)
    stream = np.random.default_rng(seed)
    for part in sorted({*range(len(SPLITS))} - {*split.tolist()}):
        for label in range(len(classes)):
            own = stream.permutation(np.flatnonzero((labels == label) & (split == 0)))
            split[own[: -(-len(own) // 10)]] = part
    if len({*split.tolist()}) < len(SPLITS):
        raise ExperimentError(
            f"{', '.join(list(sources)[:5])}: {len(numbers)} different shapes do not make three splits: expected at least 3, and "
            "test shapes that are no training shapes."
        )
    return Shapes(classes, numbers, labels, split, read, sources, len(keys) - len(numbers))


def _primitives(seed: int) -> Shapes:
    """Primitives, stretched along each axis by 0.4 to 1, each drawn from a stream of its own."""
    names = tuple(PRIMITIVES)

    def read(number: int) -> Shape:
        stream = np.random.default_rng([seed, number])
        mesh = PRIMITIVES[names[number // EACH]]()
        mesh.vertices = mesh.vertices * stream.uniform(0.4, 1, 3)
        return _on_mesh(mesh, f"primitive {number}")

    count = EACH * len(names)
    labels = np.repeat(np.arange(len(names)), EACH)
    keys = [str(k) for k in range(count)]
    return _shapes(names, keys, labels, np.zeros(count, np.uint8), read, {"trimesh": str(trimesh.__version__)}, seed)


def _modelnet10(seed: int) -> Shapes:
    """ModelNet10 as 32x32x32 voxels: ``x_train`` and ``x_test`` with a row of packed bits for each, and their labels."""
    place = Path("modelnet10-vox32") / "modelnet10_vox32.npz"
    if not os.environ.get(DATA_DIR):
        raise MissingDataError(
            f"modelnet10: the environment variable {DATA_DIR} is not set: name the folder there in which {place} lies, or "
            "give a folder of ModelNet10's meshes (--shapes FOLDER), or try --shapes primitives."
        )
    path = Path(os.environ[DATA_DIR]) / place
    if not path.exists():
        raise MissingDataError(
            f"modelnet10: there is no file {path}: put it there, or give a folder of ModelNet10's meshes (--shapes "
            "FOLDER), or try --shapes primitives."
        )
    with reading(path, "set of voxels", "delete it and get it again"):
        with ZipFile(path) as packed:
            check_claim(path, sum(entry.file_size for entry in packed.infolist()))
            for entry in packed.infolist():
                _check_npy(packed, entry)
        with path.open("rb") as opened, np.load(opened) as file:
            rows, labels = (np.concatenate([file[f"{x}_train"], file[f"{x}_test"]]) for x in "xy")
            classes, shape = file["classes"].tolist(), tuple(file["shape"].tolist())
            split = np.repeat(np.array([0, 2], np.uint8), [len(file["y_train"]), len(file["y_test"])])
        if (
            rows.dtype != np.uint8
            or labels.dtype.kind not in "iu"
            or not set(labels.tolist()) <= {*range(len(classes))}
        ):
            raise ValueError(f"rows are {rows.dtype}, labels {labels.dtype} from {labels.min()} to {labels.max()}")
        rows = rows.reshape(len(labels), np.prod(shape) // 8)
        keys = [hashlib.sha256(row.tobytes()).hexdigest() for row in rows]
        names = [classes[label] for label in labels]
    sources = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}

    def read(number: int) -> Shape:
        occupied = np.unpackbits(rows[number]).reshape(shape).astype(bool)
        return Grid(occupied, f"{path}, {names[number]} {number}")

    return _shapes(classes, keys, labels, split, read, sources, seed)


def _h5(folder: Path, seed: int) -> Shapes:
    """ScanNet-10 of PointDA-10: ``data`` (shapes, points, 6), places and colors, and ``label`` (shapes,)."""
    clouds, labels, split, places_of, sources = [], [], [], list[str](), {}
    for name in ("train", "test"):
        paths = sorted(folder.glob(f"{name}_*.h5"))
        if not paths:
            raise ExperimentError(f"{folder}: there is no {name}_0.h5: put it there.")
        for path in paths:
            with reading(path, "file of clouds", "delete it and get it again"), h5py.File(path) as file:
                places, numbers = (_own_dataset(path, file, name) for name in ("data", "label"))
                data, label = places[:, :, :3].astype(np.float32), numbers[:].ravel().tolist()
            if len(data) != len(label) or not {*label} <= {*range(len(SCANNET))}:
                raise damaged(path, f"it has {len(data)} clouds with {len(label)} labels, {sorted({*label})}")
            clouds += list(data)
            labels += label
            split += [PARTS[name]] * len(label)
            places_of += [f"{path}, {SCANNET[number]} {k}" for k, number in enumerate(label)]
            sources[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    keys = [hashlib.sha256(cloud.tobytes()).hexdigest() for cloud in clouds]

    def read(number: int) -> Shape:
        return Cloud(clouds[number], places_of[number])

    return _shapes(SCANNET, keys, np.array(labels), np.array(split), read, sources, seed)


def _own_dataset(path: Path, file: h5py.File, name: str) -> h5py.Dataset:
    """A dataset that lies in the file itself, and is not larger than that can be."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name!r} is a link to elsewhere")
    found = file[name]
    if found.is_virtual or found.external:
        raise ValueError(f"{name!r} lies in other files")
    check_claim(path, found.nbytes)
    return found


def _check_npy(packed: ZipFile, entry: ZipInfo) -> None:
    """See that an array in an archive is as large as it says, before memory is asked for."""
    with packed.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        if prod(shape) * dtype.itemsize + file.tell() != entry.file_size:
            raise ValueError(f"{entry.filename} says it is {dtype} {shape}, but has {entry.file_size:,} bytes")


def _class_folders(folder: Path, seed: int) -> Shapes:
    """Point clouds and meshes in class folders; they are read when they are needed."""
    found = [path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in (".npy", ".off", ".obj")]
    places = sorted((path for path in found if len(path.parts) > 1 and path.name[0] != "."), key=Path.as_posix)
    if not places:
        raise ExperimentError(
            f"{folder}: there are no shapes: looked for train_*.h5, and for *.npy, *.off and *.obj in folders of classes. "
            f"Name the folder around the class folders, or one of {', '.join(SHAPE_SETS)}."
        )
    classes = sorted({path.parts[0] for path in places})
    keys = []
    for path in places:
        with reading(folder / path, "shape", "take it out"):
            keys.append(hashlib.sha256((folder / path).read_bytes()).hexdigest())
    listing = "".join(f"{key}  {path.as_posix()}\n" for key, path in zip(keys, places, strict=True))

    def read(number: int) -> Shape:
        path = folder / places[number]
        with reading(path, "shape", "delete it and get it again"):
            if path.suffix.lower() == ".npy":
                return Cloud(np.array(np.load(path, mmap_mode="r")[:, :3]), str(path))
            return _on_mesh(trimesh.load_mesh(path, skip_materials=True), str(path))

    return _shapes(
        classes,
        keys,
        np.array([classes.index(path.parts[0]) for path in places]),
        np.array([next((PARTS[part] for part in path.parts[1:-1] if part in PARTS), 0) for path in places]),
        read,
        {folder.name: hashlib.sha256(listing.encode()).hexdigest()},
        seed,
    )


def _on_mesh(mesh: trimesh.Trimesh, name: str) -> Shape:
    """Points drawn uniformly on a mesh, always the same."""
    return Cloud(np.asarray(trimesh.sample.sample_surface(mesh, POINTS, seed=0)[0]), name)
