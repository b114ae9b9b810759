"""Datasets that the workers of a Dask scheduler make."""

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from distributed import LocalCluster
from helpers import command
from makers import HangingMaker, TinyMaker

from nfn_core import MissingDependencyError
from reference_experiments.datasets import cluster as clusters
from reference_experiments.datasets import generation
from reference_experiments.datasets.format import WeightDataset, shard_path
from reference_experiments.files import ExperimentError


def cluster(folder, **options):
    """A scheduler with worker processes of its own, which are started again when they are killed."""
    options = {"n_workers": 2, "threads_per_worker": 1, "local_directory": str(folder / "dask")} | options
    return LocalCluster(processes=True, dashboard_address=None, **options)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.suffix != ".lock"}


def kill_who_hangs(first, shard):
    """Kill the process that hangs in the third shard, once the first one is there."""
    give_up = time.monotonic() + 120
    while not (first.exists() and shard.with_suffix(".sha256").exists()):
        assert time.monotonic() < give_up
        time.sleep(0.01)
    os.kill(int(first.read_text()), signal.SIGKILL)


def test_workers_of_a_scheduler_make_the_same_bytes_and_one_may_be_killed(tmp_path):
    generation.make(HangingMaker(), tmp_path / "alone", 1)
    folder, first = tmp_path / "together", tmp_path / "first"
    with cluster(tmp_path) as running, ThreadPoolExecutor(1) as pool:
        address = running.scheduler_address
        killed = pool.submit(kill_who_hangs, first, shard_path(folder, 0))
        generation.make(HangingMaker(first=str(first)), folder, 1, scheduler=address)
        killed.result()
        assert contents(folder) == contents(tmp_path / "alone")
        WeightDataset(folder).verify()
        with pytest.raises(ExperimentError, match=r"could not make it \(ValueError: no such optimizer\)"):
            generation.make(TinyMaker(broken=True), tmp_path / "broken", 1, scheduler=address)
        running.scheduler.allowed_failures = 0
        with pytest.raises(ExperimentError, match="several workers were killed as they made one shard"):
            generation.make(TinyMaker(killed=True), tmp_path / "killed", 1, scheduler=address)
    assert (shard_path(tmp_path / "killed", 0).exists(), (tmp_path / "killed" / "dataset.json").exists()) == (
        True,
        False,
    )


def test_workers_of_several_threads_are_refused(tmp_path):
    message = "has 2 threads, but a shard needs a process of one: start workers with"
    with cluster(tmp_path, n_workers=1, threads_per_worker=2) as running, pytest.raises(ExperimentError, match=message):
        generation.make(TinyMaker(), tmp_path / "made", 1, scheduler=running.scheduler_address)


def test_addresses_without_a_scheduler(tmp_path, monkeypatch):
    monkeypatch.setattr(clusters, "TIMEOUT", 0.2)
    options = ("make", "image-inrs", "--images", "digits", "--scale", "smoke", "--output", tmp_path)
    for address in ("tcp://127.0.0.1:1", "nonsense://here"):
        output = command(*options, "--scheduler", address, status=1)
        assert f"Error: {address}: no Dask scheduler answered within 0.2 seconds" in output
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingDependencyError, match=r'--scheduler needs Dask .*: pip install "nfn-core\[cluster\]"'):
        generation.make(TinyMaker(), tmp_path / "made", 1, scheduler="tcp://127.0.0.1:1")
