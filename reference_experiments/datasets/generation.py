"""Make a dataset shard by shard in single-threaded processes, so that it can be interrupted at any moment and goes on.

The processes are started here, or are the workers of a scheduler (see `reference_experiments.datasets.cluster`).

A shard's bytes depend on the maker's settings alone, not on the number of processes. Each is written whole or not at all.
"""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import forkserver, get_context, parent_process
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, Protocol

import click
import numpy as np
from tqdm import tqdm

from nfn_core import __version__
from reference_experiments.datasets.cluster import on_worker, workers
from reference_experiments.datasets.format import Networks, finish, is_whole, read_shard, shard_path, write_shard
from reference_experiments.engines.base import engine, one_thread, use_one_thread
from reference_experiments.files import ExperimentError, claimed, digest

__all__ = ["Maker", "SCALES", "dataset_dir", "make", "shard_count", "shard_range"]

SCALES = ("smoke", "small", "paper")
"""Names of the presets that every maker and every experiment has."""
LOADED = {
    "torch": ["reference_experiments.engines.torch", "torch._dynamo"],  # PyTorch loads it with the first gradient
    "jax": ["reference_experiments.engines.jax"],
}
"""Modules that every process of a backend needs."""


class Maker(Protocol):
    """What makes a dataset; it is sent to the processes, so it holds settings and no data."""

    @property
    def title(self) -> str:
        """Short name of the dataset, for its folder."""

    @property
    def settings(self) -> dict[str, Any]:
        """Everything the dataset depends on, as JSON has it."""

    @property
    def backend(self) -> str:
        """Array library."""

    @property
    def shards(self) -> int:
        """Number of shards."""

    @property
    def quality(self) -> str:
        """Column that measures how good a network is."""

    def run(self, index: int) -> Networks:
        """Make one shard."""


def dataset_dir(maker: Maker) -> Path:
    """Where a dataset lies by default: ``datasets/TITLE-DIGEST``; equal settings have one folder.

    Parameters
    ----------
    maker : Maker
        What makes it.

    Returns
    -------
    pathlib.Path
        The folder; the digest is of the maker's settings.
    """
    return Path("datasets") / f"{maker.title}-{digest(maker.settings)[:8]}"


def shard_count(networks: int, size: int) -> int:
    """Number of shards of `size` networks, of which the last may have fewer."""
    return -(-networks // size)


def shard_range(index: int, size: int, networks: int) -> np.ndarray:
    """Numbers of the networks of a shard, shape (networks of the shard,)."""
    return np.arange(index * size, min((index + 1) * size, networks))


def make(
    maker: Maker, folder: Path, devices: int | None = None, gpu: bool = False, scheduler: str | None = None
) -> None:
    """Make a dataset, or what an interrupted run left undone; damaged shards are named and made again.

    Parameters
    ----------
    maker : Maker
        What makes it.
    folder : pathlib.Path
        Where it goes.
    devices : int, optional
        Number of processes, each with a core or GPU of its own; by default one for each core, or one with a GPU.
    gpu : bool
        Whether each process takes a GPU.
    scheduler : str, optional
        Address of a Dask scheduler, whose workers make the shards in place of `devices` processes.

    Raises
    ------
    MissingDependencyError
        If a scheduler is given and Dask is not installed.
    ExperimentError
        If the folder holds another dataset, another process makes one there, one of the processes is killed, or the
        scheduler does not answer.
    """
    with claimed(folder, maker.settings | {"version": __version__}):
        settings = digest(maker.settings)
        todo = [k for k in range(maker.shards) if not _usable(folder, k, settings)]
        if todo:
            (folder / "dataset.json").unlink(missing_ok=True)
        task: Callable[..., float]
        if scheduler is None:
            count = devices or (1 if gpu else os.cpu_count() or 1)
            executor, task = _processes(count, gpu, maker.backend, folder), _one
        else:
            executor, task = workers(scheduler, folder), on_worker(_one, gpu, maker.backend)
        with executor as pool:
            futures = [pool.submit(task, maker, k, shard_path(folder, k), settings) for k in todo]
            means = []
            with tqdm(total=maker.shards, initial=maker.shards - len(todo), unit="shard", desc=str(folder)) as bar:
                for done in as_completed(futures):
                    means.append(done.result())
                    bar.set_postfix_str(f"mean {maker.quality} {np.mean(means):.4g}")
                    bar.update()
        shards = (read_shard(shard_path(folder, k), k, settings) for k in range(maker.shards))
        values = np.concatenate([shard.columns[maker.quality] for shard in shards])
        quantiles = dict(zip(("minimum", "median", "maximum"), np.quantile(values, (0, 0.5, 1)).tolist(), strict=True))
        quality = {maker.quality: quantiles | {"mean": float(values.mean())}}
        finish(folder, maker.shards, settings, {"quality": quality, "version": __version__})


@contextmanager
def _processes(devices: int, gpu: bool, backend: str, folder: Path) -> Iterator[Executor]:
    """Processes of this machine; what is not begun is cancelled if the context ends with an error.

    Those of CPU cores are forked from a server that has loaded the array library, for one thread, and begun nothing.
    """
    context: BaseContext = get_context("spawn" if gpu else "forkserver")
    if not gpu:
        context.set_forkserver_preload(LOADED[backend])
        with one_thread():
            forkserver.ensure_running()
    queue = context.Queue()
    for rank in range(devices):
        queue.put(rank)
    with ProcessPoolExecutor(devices, context, _start, (queue, gpu, backend)) as pool:
        try:
            yield pool
        except BrokenProcessPool as error:
            raise ExperimentError(
                f"{folder}: a process that made networks was killed, perhaps for want of memory: run the same command "
                "again to go on, with fewer --devices."
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _usable(folder: Path, index: int, settings: str) -> bool:
    """Whether a shard need not be made; a damaged one, or another, is reported."""
    path = shard_path(folder, index)
    try:
        if not is_whole(path):
            return False
        read_shard(path, index, settings)
    except ExperimentError as error:
        click.echo(f"{error} It is made again now.", err=True)
        return False
    return True


def _start(queue: Any, gpu: bool, backend: str) -> None:
    """Give a process one core or GPU, before it uses any array library, and let it end with its parent."""
    rank = queue.get()
    if gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(rank)
        engine(backend).use(gpu=True)
    else:
        use_one_thread()  # other code of this program may have started the server
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Leave when the parent is gone, however it went."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _one(maker: Maker, index: int, path: Path, settings: str) -> float:
    """Make and write a shard; its mean quality."""
    networks = maker.run(index)
    write_shard(path, networks, index, settings)
    return float(networks.columns[maker.quality].mean())
