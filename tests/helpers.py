"""What several test files share."""

import numpy as np
import pytest

from reference_experiments.datasets.format import WeightDataset, finish, shard_path, write_shard
from reference_experiments.engines.base import Split
from reference_experiments.training import fit


class KilledError(Exception):
    """Stands for a signal that ends a run."""


def write_dataset(folder, *shards, **summary):
    """Write shards of networks as a dataset, and open it."""
    paths = [shard_path(folder, k) for k in range(len(shards))]
    for path, networks in zip(paths, shards, strict=True):
        write_shard(path, networks)
    finish(folder, paths, summary)
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


def idx(array):
    """Bytes of MNIST's file format."""
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()
