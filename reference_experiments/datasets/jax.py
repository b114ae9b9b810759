"""A dataset of networks as JAX takes it."""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from reference_experiments.datasets.format import WeightDataset

__all__ = ["batches"]


def batches(
    dataset: WeightDataset, target: str, indices: Sequence[int] | np.ndarray, size: int, seed: int | None = None
) -> Iterator[tuple[dict[str, jax.Array], jax.Array]]:
    """Yield networks in batches.

    Parameters
    ----------
    dataset : WeightDataset
        The dataset.
    target : str
        Column of the targets.
    indices : sequence of int or numpy.ndarray
        Networks to take, as `WeightDataset.positions` takes them.
    size : int
        Networks in a batch; the last may have fewer.
    seed : int, optional
        Seed of the order; without it they come in the order of the indices.

    Yields
    ------
    dict of str to jax.Array, jax.Array
        Features, each of shape (batch, *axes, 1), and targets, shape (batch,).
    """
    targets = dataset.column(target)
    for chosen in dataset.batches(indices, size, seed):
        features = {name: jnp.asarray(x) for name, x in dataset.features(chosen).items()}
        yield features, jnp.asarray(targets[chosen])
