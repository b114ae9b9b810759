"""Small classifiers, many trained at once on real images, and the quickstart's zoo of them.

Every network of the quickstart draws its own learning rate, weight decay, initial scale, data fraction and number of steps, as Unterthiner et
al. (2020) do for the Small CNN Zoo of Table 2. The networks run side by side along a leading axis; the forward pass is
written once, against the array API.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from tqdm import tqdm

from nfn_core import WeightSpace
from nfn_core.arrays import namespace_of
from reference_experiments.engines.base import Engine, State

__all__ = ["OPTIMIZERS", "Digits", "Trainer", "classify", "descent", "digits", "draw", "fresh", "patches"]

OPTIMIZERS = ("momentum", "sgd", "adam", "rmsprop")
MOMENTUM = 0.9
BATCH = 32
CHUNK = 25  # steps between two signs of progress


@dataclass(frozen=True)
class Digits:
    """The 8x8 digits that come with scikit-learn: images (n, 8, 8, 1) in [0, 1], labels (n,), split in two."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def digits(test: int = 597) -> Digits:
    """Load the images; a fixed shuffle sets `test` of the 1,797 aside."""
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = (data.images[order, :, :, None] / 16).astype(np.float32)
    labels = data.target[order].astype(np.int64)
    return Digits(images[test:], labels[test:], images[:test], labels[:test])


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


def classify(space: WeightSpace, weights: Mapping[str, Any], images: Any, activation: str = "relu") -> Any:
    """Class scores of every network.

    Parameters
    ----------
    space : WeightSpace
        Weight space of an MLP or CNN.
    weights : mapping of str to array
        Tensors of shape (models, *shape).
    images : array
        Shape (models, batch, height, width, channels), or models = 1 for images that all networks share.
    activation : {"relu", "tanh"}
        Between the layers.

    Returns
    -------
    array
        Shape (models, batch, classes).
    """
    xp = namespace_of(images)
    x, depth = images, len(space.tensors) // 2
    for i in range(1, depth + 1):
        weight, bias = weights[f"W{i}"], weights[f"v{i}"]
        if weight.ndim == 5:
            x = patches(x, xp, size=3, stride=2)  # (models, batch, height, width, 9 channels)
            weight = xp.reshape(xp.permute_dims(weight, (0, 3, 4, 2, 1)), (weight.shape[0], -1, weight.shape[1]))
        else:
            if x.ndim == 5:
                convolved = i > 1
                x = xp.mean(x, axis=(2, 3)) if convolved else xp.reshape(x, (*x.shape[:2], -1))
            weight = xp.permute_dims(weight, (0, 2, 1))
        inner = x.shape[1:-1]
        flat = xp.reshape(x, (x.shape[0], -1, x.shape[-1]))
        x = xp.matmul(flat, weight) + xp.expand_dims(bias, axis=1)
        x = xp.reshape(x, (x.shape[0], *inner, x.shape[-1]))
        if i < depth:
            x = xp.tanh(x) if activation == "tanh" else xp.where(x > 0, x, xp.zeros_like(x))
    return x


def fresh(engine: Engine, weights: Mapping[str, np.ndarray], columns: Mapping[str, np.ndarray]) -> State:
    """Begin to train networks: the state that `descent` steps through.

    Parameters
    ----------
    engine : Engine
        Array library.
    weights : mapping of str to numpy.ndarray
        Initial weights, each (models, *shape).
    columns : mapping of str to numpy.ndarray
        ``learning_rate`` and ``weight_decay``, each (models,), and what else the state is to hold.

    Returns
    -------
    dict of str to array
        Weights, their moments, the columns, and the number of steps taken.
    """
    state = {name: engine.array(x) for name, x in columns.items()}
    state["step"] = engine.array(np.zeros((), np.float32))
    for name, w in weights.items():
        state[name] = engine.array(w)
        state |= {f"{name} {moment}": engine.array(np.zeros_like(w)) for moment in ("speed", "square")}
    return state


def descent(
    engine: Engine,
    space: WeightSpace,
    images: np.ndarray,
    labels: np.ndarray,
    optimizer: str = "momentum",
    activation: str = "relu",
) -> Any:
    """Step of gradient descent on the cross-entropy, for many networks side by side.

    Parameters
    ----------
    engine : Engine
        Array library.
    space : WeightSpace
        The networks' weight space.
    images, labels : numpy.ndarray
        Training images (n, height, width, channels) and labels (n,).
    optimizer : str
        One of `OPTIMIZERS`, with the usual constants.
    activation : {"relu", "tanh"}
        Between the layers.

    Returns
    -------
    callable
        From a state, and the numbers of each network's images (models, batch), to the next state. Where the state has
        masks ``"NAME mask"``, masked weights get no step; where it has ``steps``, networks stop after so many.
    """
    pixels = engine.array(images)
    targets = engine.array(np.eye(labels.max() + 1, dtype=np.float32)[labels])
    xp = namespace_of(pixels)

    def loss(weights: State, x: Any, y: Any) -> Any:
        scores = classify(space, weights, x, activation)
        scores = scores - xp.max(scores, axis=-1, keepdims=True)
        likelihood = xp.sum(scores * y, axis=-1) - xp.log(xp.sum(xp.exp(scores), axis=-1))
        return -xp.sum(xp.mean(likelihood, axis=1))  # networks do not meet: each gets its own gradient

    gradient = engine.grad(loss)

    def step(state: State, chosen: Any) -> State:
        flat = xp.reshape(chosen, (-1,))
        x = xp.reshape(xp.take(pixels, flat, axis=0), (*chosen.shape, *pixels.shape[1:]))
        y = xp.reshape(xp.take(targets, flat, axis=0), (*chosen.shape, targets.shape[1]))
        weights = {t.name: state[t.name] for t in space.tensors}
        slopes = gradient(weights, x, y)
        new = state | {"step": state["step"] + 1}
        for name, w in weights.items():
            column = (-1, *[1] * (w.ndim - 1))
            rate, decay = (xp.reshape(state[h], column) for h in ("learning_rate", "weight_decay"))
            slope = slopes[name] + decay * w
            if f"{name} mask" in state:
                slope = slope * state[f"{name} mask"]
            change, moments = _change(
                optimizer, slope, state[f"{name} speed"], state[f"{name} square"], new["step"], xp
            )
            if "steps" in state:
                change = xp.where(xp.reshape(state["step"] < state["steps"], column), change, xp.zeros_like(change))
            new |= {name: w - rate * change, f"{name} speed": moments[0], f"{name} square": moments[1]}
        return new

    return step


def _change(optimizer: str, slope: Any, speed: Any, square: Any, turn: Any, xp: Any) -> tuple[Any, tuple[Any, Any]]:
    """Step for a learning rate of 1, and the new moments."""
    if optimizer == "sgd":
        return slope, (speed, square)
    if optimizer == "momentum":
        speed = MOMENTUM * speed + slope
        return speed, (speed, square)
    if optimizer == "rmsprop":
        square = 0.9 * square + 0.1 * slope**2
        return slope / (xp.sqrt(square) + 1e-7), (speed, square)
    speed, square = 0.9 * speed + 0.1 * slope, 0.999 * square + 0.001 * slope**2
    return speed / (1 - 0.9**turn) / (xp.sqrt(square / (1 - 0.999**turn)) + 1e-7), (speed, square)


def patches(x: Any, xp: Any, size: int, stride: int) -> Any:
    """Square patches of images zero-padded by size // 2, for an odd size.

    Parameters
    ----------
    x : array
        Images of shape (..., height, width, channels).
    xp : module
        Their array namespace.
    size, stride : int
        Side of a patch, and distance of two patches, in pixels.

    Returns
    -------
    array
        Shape (..., ⌈height / stride⌉, ⌈width / stride⌉, size² * channels), a patch's pixels row by row.
    """
    height, width = x.shape[-3:-1]
    if edge := size // 2:
        for axis in (-3, -2):
            zeros = xp.zeros_like(x[..., :edge, :, :] if axis == -3 else x[..., :edge, :])
            x = xp.concat([zeros, x, zeros], axis=axis)
    corners = [(i, j) for i in range(size) for j in range(size)]
    return xp.concat([x[..., i : i + height : stride, j : j + width : stride, :] for i, j in corners], axis=-1)


class Trainer:
    """Trains networks of one weight space, many at once, by gradient descent with momentum 0.9 and batches of 32.

    Parameters
    ----------
    engine : Engine
        Array library.
    space : WeightSpace
        The networks' weight space.
    images : Digits
        Training and test images.
    """

    def __init__(self, engine: Engine, space: WeightSpace, images: Digits) -> None:
        self.engine, self.space, self.images = engine, space, images
        self.run = engine.loop(descent(engine, space, images.train_images, images.train_labels))

    def train(
        self, weights: Mapping[str, np.ndarray], hyper: Mapping[str, np.ndarray], seed: int
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Train networks.

        Parameters
        ----------
        weights, hyper : mapping of str to numpy.ndarray
            As `draw` returns them, for any number of networks.
        seed : int
            Seed of each network's share of the data and of its batches.

        Returns
        -------
        dict of str to numpy.ndarray, numpy.ndarray
            Trained weights, each (models, *shape), and test accuracies (models,). What diverged is not finite.
        """
        engine, rng = self.engine, np.random.default_rng(seed)
        count, available = len(hyper["steps"]), len(self.images.train_labels)
        owned = rng.permuted(np.tile(np.arange(available), (count, 1)), axis=1)
        share = np.ceil(hyper["data_fraction"] * available)
        state = fresh(engine, weights, {name: hyper[name] for name in ("steps", "learning_rate", "weight_decay")})
        longest = int(hyper["steps"].max())
        with tqdm(total=longest, unit="step", desc=f"  {count} networks at once", leave=False) as bar:
            while bar.n < longest:
                place = (rng.random((CHUNK, count, BATCH)) * share[:, None]).astype(np.int64)
                chosen = np.stack([np.take_along_axis(owned, p, axis=1) for p in place])
                state = self.run(state, engine.array(chosen))  # a network that has done its steps stays as it is
                bar.update(CHUNK)
        trained = {t.name: state[t.name] for t in self.space.tensors}
        scores = engine.numpy(classify(self.space, trained, engine.array(self.images.test_images[None])))
        accuracy = (scores.argmax(axis=-1) == self.images.test_labels).mean(axis=1)
        return {name: engine.numpy(w) for name, w in trained.items()}, accuracy.astype(np.float32)
