"""Shards of a dataset made by the workers of a Dask scheduler that runs already, on this machine or on others.

Dask gives a shard of a killed worker to another one. It comes out the same, since its bytes depend on the settings alone.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click

from nfn_core import MissingDependencyError, NFNError
from reference_experiments.engines.base import engine, use_one_thread
from reference_experiments.files import ExperimentError, reason

__all__ = ["on_worker", "workers"]

TIMEOUT = 10
"""Seconds in which a scheduler has to answer."""
START = "dask worker {} --nthreads 1"


@contextmanager
def workers(address: str, folder: Path) -> Iterator[Executor]:
    """Workers of a scheduler, as an executor; what is not begun is cancelled if the context ends with an error.

    Parameters
    ----------
    address : str
        The scheduler's, such as ``tcp://10.0.0.1:8786``.
    folder : pathlib.Path
        What is made there, for messages.

    Yields
    ------
    concurrent.futures.Executor
        What tasks are submitted to.

    Raises
    ------
    MissingDependencyError
        If Dask is not installed.
    ExperimentError
        If the scheduler does not answer within 10 seconds or goes away, or workers die of a task again and again.
    """
    try:
        from distributed import Client, KilledWorker
    except ImportError as error:
        raise MissingDependencyError(f'--scheduler needs Dask ({error}): pip install "nfn-core[cluster]".') from error
    try:
        client = Client(address, timeout=TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:  # no answer; no address
        raise ExperimentError(
            f"{address}: no Dask scheduler answered within {TIMEOUT} seconds ({reason(error)}): start one with "
            "`dask scheduler`, and give the address that it prints."
        ) from error
    with client:
        if not client.nthreads():
            click.echo(f"{address} has no workers yet: start some with `{START.format(address)}`.", err=True)
        pool = client.get_executor(pure=False)
        try:
            yield pool
        except KilledWorker as error:
            raise ExperimentError(
                f"{folder}: several workers were killed as they made one shard, perhaps for want of memory: run the same "
                f"command again to go on ({reason(error)})."
            ) from error
        except CancelledError as error:
            raise ExperimentError(
                f"{folder}: the scheduler at {address} has gone, or has cancelled the shards: run the same command again "
                "to go on."
            ) from error
        finally:
            pool.shutdown(wait=False)


def on_worker(task: Callable[..., float], gpu: bool, backend: str) -> Callable[..., float]:
    """Task ``(maker, index, path, settings)`` as a worker runs it: with one thread, or on the GPU it has been given."""
    return partial(_run, task, gpu, backend, Path.cwd())


def _run(
    task: Callable[..., float], gpu: bool, backend: str, here: Path, maker: Any, index: int, path: Path, settings: str
) -> float:
    """Run a task on a worker; errors name the worker's address."""
    from distributed import get_worker

    worker, path = get_worker(), here / path
    if worker.state.nthreads != 1:
        raise ExperimentError(
            f"the worker {worker.address} has {worker.state.nthreads} threads, but a shard needs a process of one: start "
            f"workers with `{START.format('ADDRESS')}`."
        )
    if not (path.parent / "settings.json").is_file():
        raise ExperimentError(
            f"the worker {worker.address} does not see {path.parent}: choose an --output on a shared disk."
        )
    if gpu:
        engine(backend).use(gpu=True)
    else:
        use_one_thread()
    try:
        return task(maker, index, path, settings)
    except NFNError:
        raise
    except Exception as error:  # a maker raises whatever it finds
        raise ExperimentError(f"{path}: the worker {worker.address} could not make it ({reason(error)}).") from error
