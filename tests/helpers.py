"""What several test files share."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from reference_experiments.cli import main
from reference_experiments.datasets.format import WeightDataset, finish, shard_path, write_shard
from reference_experiments.engines.base import Split
from reference_experiments.files import digest
from reference_experiments.training import fit

ROOT = Path(__file__).parents[1]


def command(*arguments, status=0):
    """Run a command of the experiments in this process; its output."""
    done = CliRunner().invoke(main, [str(a) for a in arguments])
    assert done.exit_code == status, done.output + repr(done.exception)
    return done.output


def kill_when_there(path, *arguments):
    """Run a command in a process of its own, and kill it as soon as it has written a file."""
    process = subprocess.Popen(
        [sys.executable, "-m", "reference_experiments", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    give_up = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < give_up, f"{path} was not written"
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()  # returns once its workers are gone too


class KilledError(Exception):
    """Stands for a signal that ends a run."""


def write_dataset(folder, *shards, **summary):
    """Write shards of networks as a dataset, and open it."""
    settings = digest({})
    for k, networks in enumerate(shards):
        write_shard(shard_path(folder, k), networks, k, settings)
    finish(folder, len(shards), settings, summary)
    return WeightDataset(folder)


def fit_until_killed(steps, library, method, split, recipe, folder):
    """Train a method with seed 0 on a split until it asks for the batch after so many steps."""
    left = iter(range(steps))

    def inputs(chosen, rng):
        if rng is not None and next(left, None) is None:
            raise KilledError
        return split.inputs(chosen, rng)

    with pytest.raises(KilledError):
        fit(library, method.name, method.layer, Split(inputs, split.targets), split, recipe, 0, folder)


def flipped(data, place):
    """Bytes with one bit flipped."""
    return data[: place // 8] + bytes([data[place // 8] ^ 1 << place % 8]) + data[place // 8 + 1 :]


def idx(array):
    """Bytes of MNIST's file format."""
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()
