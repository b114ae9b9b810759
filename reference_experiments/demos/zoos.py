"""The quickstart's zoo: classifiers of scikit-learn's digits, with drawn hyperparameters."""

from collections.abc import Mapping

import numpy as np
from tqdm import tqdm

from nfn_core import WeightSpace
from reference_experiments.networks.classifiers import Trainer, TrainingImages, init_state, training_images

__all__ = ["digits", "draw", "train_zoo"]


BATCH = 32


CHUNK = 25  # steps between two signs of progress


def digits() -> TrainingImages:
    """Return the 8x8 digits that come with scikit-learn, 597 of the 1,797 to test on."""
    return training_images("digits", 1200, 597, grayscale=False)


def draw(
    space: WeightSpace, count: int, longest: int, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Draw initial weights, each (count, *shape), and hyperparameters, each (count,), of `count` networks."""
    rng = np.random.default_rng(seed)

    def log_uniform(low: float, high: float) -> np.ndarray:
        return np.exp(rng.uniform(np.log(low), np.log(high), count))

    hyper = {
        "learning_rate": log_uniform(3e-3, 3e-1),
        "weight_decay": log_uniform(1e-5, 3e-2),
        "initial_scale": log_uniform(0.2, 3.0),
        "data_fraction": log_uniform(0.03, 1.0),
        "steps": np.sort(np.round(log_uniform(longest / 20, longest))),  # so that shards have networks of like length
    }
    weights = {}
    for t in space.tensors:
        shape = (count, *t.shape)
        if t.name.startswith("v"):
            weights[t.name] = np.zeros(shape, np.float32)
        else:
            scale = hyper["initial_scale"] * np.sqrt(2 / np.prod(t.shape[1:]))
            weights[t.name] = (rng.standard_normal(shape) * scale.reshape(-1, *[1] * len(t.shape))).astype(np.float32)
    return weights, {name: x.astype(np.float32) for name, x in hyper.items()}


def train_zoo(
    trainer: Trainer, weights: Mapping[str, np.ndarray], hyper: Mapping[str, np.ndarray], seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Train networks with batches of 32.

    Parameters
    ----------
    trainer : Trainer
        Trainer of the networks' space.
    weights, hyper : mapping of str to numpy.ndarray
        As `draw` returns them, for any number of networks.
    seed : int
        Seed of each network's share of the data and of its batches.

    Returns
    -------
    dict of str to numpy.ndarray, numpy.ndarray
        Trained weights, each (models, *shape), and test accuracies (models,). What diverged is not finite.
    """
    library, images, rng = trainer.library, trainer.images, np.random.default_rng(seed)
    count, available = len(hyper["steps"]), len(images.train_labels)
    owned = rng.permuted(np.tile(np.arange(available), (count, 1)), axis=1)
    share = np.ceil(hyper["data_fraction"] * available)
    state = init_state(library, weights, {name: hyper[name] for name in ("steps", "learning_rate", "weight_decay")})
    longest = int(hyper["steps"].max())
    with tqdm(total=longest, unit="step", desc=f"  {count} networks at once", leave=False) as bar:
        while bar.n < longest:
            place = (rng.random((CHUNK, count, BATCH)) * share[:, None]).astype(np.int64)
            chosen = np.stack([np.take_along_axis(owned, p, axis=1) for p in place])
            state = trainer.program(state, library.array(chosen))  # a network that has done its steps stays as it is
            bar.update(CHUNK)
    return trainer.weights(state), trainer.test(state, images.test_images, images.test_labels)[0]
