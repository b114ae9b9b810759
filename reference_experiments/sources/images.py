"""Real images: found under ``NFN_DATA_DIR``, or downloaded and checked; scikit-learn's digits come with the package."""

import gzip
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path

import click
import numpy as np
import pooch

from reference_experiments.files import ExperimentError, MissingDataError, check_claim, reading

__all__ = ["DATA_DIR", "IMAGE_SETS", "Images", "damaged", "gray", "load_all_images", "load_images"]


DATA_DIR = "NFN_DATA_DIR"


@dataclass(frozen=True)
class Images:
    """Labeled images in two parts.

    Parameters
    ----------
    name : str
        One of `IMAGE_SETS`.
    train_images, test_images : numpy.ndarray
        Shape (images, height, width, channels), uint8.
    train_labels, test_labels : numpy.ndarray
        Shape (images,), int64, classes from 0.
    sources : dict of str to str
        SHA-256 of every file they come from.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    sources: dict[str, str]


@dataclass(frozen=True)
class Source:
    """Where a set's files lie under the data folder, where they come from (address and MD5), and how they are read."""

    folder: str
    address: str
    files: dict[str, str]
    read: Callable[[Path], tuple[list[np.ndarray], list[Path]]]
    archive: bool = False


def load_images(name: str) -> Images:
    """Load a set of images.

    Parameters
    ----------
    name : str
        One of `IMAGE_SETS`.

    Returns
    -------
    Images
        The images, in the order of their files.

    Raises
    ------
    ExperimentError
        If a file is missing and cannot be downloaded, or is damaged.
    """
    if name == "digits":
        return _digits()
    source = SOURCES[name]
    (train_images, train_labels, test_images, test_labels), paths = source.read(_find(name, source))
    sources = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    return Images(name, train_images, train_labels, test_images, test_labels, sources)


def gray(images: np.ndarray) -> np.ndarray:
    """Brightness (ITU-R 601) of images (..., channels) in the same dtype, shape (..., 1); gray images stay as they are."""
    if images.shape[-1] == 1:
        return images
    brightness: np.ndarray = np.round(images @ np.array([0.299, 0.587, 0.114]))[..., None]
    return brightness.astype(images.dtype)


def _digits() -> Images:
    """The 1,797 8x8 digits of scikit-learn; a fixed shuffle sets 597 aside."""
    from sklearn.datasets import load_digits  # slow to load

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = np.round(data.images[order, :, :, None] * (255 / 16)).astype(np.uint8)
    labels = data.target[order].astype(np.int64)
    checksum = hashlib.sha256(data.data.tobytes()).hexdigest()
    return Images("digits", images[597:], labels[597:], images[:597], labels[:597], {"scikit-learn": checksum})


def _find(name: str, source: Source) -> Path:
    """Folder of a set's files, downloaded if need be."""
    looked = []
    if os.environ.get(DATA_DIR):
        folder = Path(os.environ[DATA_DIR]) / source.folder
        if folder.is_dir():
            return folder
        looked.append(str(folder))
    cache = Path(pooch.os_cache("nfn-core"))
    try:
        for file, md5 in source.files.items():
            unpack = pooch.Untar(extract_dir=".") if source.archive else None
            pooch.retrieve(
                source.address + file,
                known_hash=f"md5:{md5}",
                fname=file,
                path=cache if source.archive else cache / source.folder,
                processor=unpack,
                progressbar=True,
            )
    except (OSError, ValueError) as error:  # no connection; another checksum
        looked += [str(cache / source.folder), source.address]
        raise MissingDataError(
            f"{name}: the images are not to be had ({error}). Looked in {', '.join(looked)}. Put {', '.join(source.files)} "
            f"into a folder {source.folder} and name the folder around it in the environment variable {DATA_DIR}."
        ) from error
    return cache / source.folder


def _one(folder: Path, *names: str) -> Path:
    """The first of these files that is there."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise MissingDataError(f"{folder}: there is no {' or '.join(names)}: put it there.")


def damaged(path: Path, what: str) -> ExperimentError:
    """Error that names a damaged file of data."""
    return ExperimentError(f"{path} is damaged: {what}. Delete it and get it again.")


def _read_idx(path: Path, rank: int) -> np.ndarray:
    """Array of unsigned bytes in the IDX format, gzipped or plain; no more is unpacked than its head says."""
    with reading(path, "IDX file", "delete it and get it again"):
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            head = file.read(4 + 4 * rank)
            if head[:4] != bytes((0, 0, 8, rank)) or len(head) < 4 + 4 * rank:
                raise damaged(path, f"it does not begin as an IDX file of {rank} axes of unsigned bytes")
            shape = tuple(np.frombuffer(head[4:], ">u4").tolist())
            check_claim(path, prod(shape))
            data = file.read(prod(shape))
            if len(data) < prod(shape) or file.read(1):
                raise damaged(
                    path, f"its head says {shape} bytes, but {'fewer' if len(data) < prod(shape) else 'more'} follow"
                )
        return np.frombuffer(data, np.uint8).reshape(shape)


def _check_labels(path: Path, labels: np.ndarray, low: int = 0, high: int = 9) -> None:
    """See that labels are classes."""
    if len(labels) and not low <= labels.min() <= labels.max() <= high:
        wrong = labels[(labels < low) | (labels > high)][0]
        raise damaged(path, f"a label is {wrong}, but the classes are {low} to {high}")


def _read_idx_folder(folder: Path) -> tuple[list[np.ndarray], list[Path]]:
    """The four files of MNIST."""
    arrays, paths = [], []
    for part in ("train", "t10k"):
        for kind, rank in (("images-idx3-ubyte", 3), ("labels-idx1-ubyte", 1)):
            path = _one(folder, f"{part}-{kind}.gz", f"{part}-{kind}")
            paths.append(path)
            x = _read_idx(path, rank)
            arrays.append(x[..., None] if rank == 3 else x.astype(np.int64))
        if len(arrays[-1]) != len(arrays[-2]):
            raise damaged(paths[-1], f"{len(arrays[-1])} labels for {len(arrays[-2])} images")
        _check_labels(paths[-1], arrays[-1])
    return arrays, paths


def _read_cifar(folder: Path) -> tuple[list[np.ndarray], list[Path]]:
    """CIFAR-10's binary version: records of a label and 3,072 bytes, channel by channel.

    Some batches will do; how many images there are is then said.
    """
    names = [f"data_batch_{k}.bin" for k in range(1, 6)]
    training = [folder / name for name in names if (folder / name).exists()] or [_one(folder, names[0])]
    arrays: list[np.ndarray] = []
    paths = [*training, _one(folder, "test_batch.bin")]
    for part, whole in ((training, 50_000), (paths[-1:], 10_000)):
        records = []
        for path in part:
            with reading(path, "batch of CIFAR-10", "delete it and get it again"):
                data = np.fromfile(path, np.uint8)
            if not len(data) or len(data) % 3073:
                raise damaged(path, f"{len(data):,} bytes are no whole number of records of 3,073; a batch has 10,000")
            records.append(data.reshape(-1, 3073))
            _check_labels(path, records[-1][:, 0])
        together = np.concatenate(records)
        arrays += [together[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), together[:, 0].astype(np.int64)]
        if len(together) != whole:
            found = ", ".join(path.name for path in part)
            click.echo(f"{folder}: {len(together):,} images of {whole:,} are there, in {found}.", err=True)
    return arrays, paths


def _read_svhn(folder: Path) -> tuple[list[np.ndarray], list[Path]]:
    """SVHN's cropped digits: MATLAB files with X (32, 32, 3, images) and y (images, 1), where 10 stands for 0."""
    from scipy.io import loadmat  # slow to load

    arrays, paths = [], [_one(folder, "train_32x32.mat"), _one(folder, "test_32x32.mat")]
    for path in paths:
        with reading(path, "MATLAB file", "delete it and get it again"):
            found = loadmat(path)
        if not {"X", "y"} <= found.keys():
            raise damaged(path, f"it holds {sorted(found)}, not X and y")
        images, labels = found["X"], found["y"].ravel()
        if images.dtype != np.uint8 or images.shape != (32, 32, 3, len(labels)) or labels.dtype.kind not in "iu":
            raise damaged(path, f"X is {images.dtype} {images.shape}, y {labels.dtype} {labels.shape}")
        _check_labels(path, labels, 1, 10)
        arrays += [images.transpose(3, 0, 1, 2), labels.astype(np.int64) % 10]
    return arrays, paths


SOURCES = {
    "mnist": Source(
        "mnist",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
        _read_idx_folder,
    ),
    "fashion-mnist": Source(
        "fashion-mnist",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
        _read_idx_folder,
    ),
    "cifar10": Source(
        "cifar-10-batches-bin",
        "https://www.cs.toronto.edu/~kriz/",
        {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
        _read_cifar,
        archive=True,
    ),
    "svhn": Source(
        "svhn",
        "http://ufldl.stanford.edu/housenumbers/",
        {
            "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
            "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
        },
        _read_svhn,
    ),
}


IMAGE_SETS = ("digits", *SOURCES)


@cache
def load_all_images(name: str) -> tuple[np.ndarray, np.ndarray, Images]:
    """All images of a set, training part first, and their labels."""
    found = load_images(name)
    return (
        np.concatenate([found.train_images, found.test_images]),
        np.concatenate([found.train_labels, found.test_labels]),
        found,
    )
