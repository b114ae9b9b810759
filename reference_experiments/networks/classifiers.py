"""Small classifiers, many trained at once on real images, and the quickstart's zoo of them.

Every network of the quickstart draws its own learning rate, weight decay, initial scale, data fraction and number of steps, as Unterthiner et
al. (2020) do for the Small CNN Zoo of Table 2. The networks run side by side along a leading axis; the forward pass is
written once, against the array API.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from nfn_core import WeightSpace
from nfn_core.arrays import namespace_of
from reference_experiments.engines.base import Engine, State, blocks, engine
from reference_experiments.networks.optimizers import optimizer_step
from reference_experiments.sources.images import gray, load_images

__all__ = [
    "ARCHITECTURES",
    "INITIALIZERS",
    "Trainer",
    "TrainingImages",
    "classify",
    "epochs",
    "init_state",
    "initial",
    "make_train_step",
    "patches",
    "train",
    "trainer_of",
    "training_images",
]


ARCHITECTURES = {
    "cnn": lambda c, pixels: WeightSpace.cnn([c, 16, 16, 16, 10], [(3, 3), (3, 3), (3, 3), ()]),
    "mlp3": lambda c, pixels: WeightSpace.mlp([c * pixels, 128, 128, 10]),
    "mlp5": lambda c, pixels: WeightSpace.mlp([c * pixels, 128, 128, 128, 128, 10]),
    "ticket-mlp": lambda c, pixels: WeightSpace.mlp([c * pixels, 128, 128, 10]),
    "ticket-cnn": lambda c, pixels: WeightSpace.cnn([c, 128, 128, 128, 64, 10], [(3, 3)] * 3 + [(), ()]),
}
"""Weight spaces by name, given the images' channels and pixels; convolutions are 3x3 with stride 2, then comes global
average pooling."""


INITIALIZERS = ("glorot_normal", "he_normal", "orthogonal", "normal", "truncated_normal")


def initial(
    space: WeightSpace, kinds: Iterable[int], deviations: Iterable[float], streams: Sequence[np.random.Generator]
) -> dict[str, np.ndarray]:
    """Draw initial weights; biases are 0.

    Parameters
    ----------
    space : WeightSpace
        The networks' weight space.
    kinds : iterable of int
        For each network the number of one of `INITIALIZERS`.
    deviations : iterable of float
        For each network the standard deviation, where the initializer does not say it.
    streams : sequence of numpy.random.Generator
        For each network the source of its draws.

    Returns
    -------
    dict of str to numpy.ndarray
        Tensors of shape (networks, *axes), float32.
    """
    from scipy.stats import truncnorm  # slow to load

    found = {}
    for t in space.tensors:
        if t.name.startswith("v"):
            found[t.name] = np.zeros((len(streams), *t.shape), np.float32)
            continue
        field = int(np.prod(t.shape[2:]))
        inputs, outputs = t.shape[1] * field, t.shape[0] * field
        scales = {"glorot_normal": (2 / (inputs + outputs)) ** 0.5, "he_normal": (2 / inputs) ** 0.5}
        weights = []
        for kind, deviation, stream in zip(kinds, deviations, streams, strict=True):
            name = INITIALIZERS[kind]
            if name == "orthogonal":
                weights.append(orthonormal(t.shape[0], inputs, stream).reshape(t.shape))
            elif name == "truncated_normal":
                weights.append(truncnorm.rvs(-2, 2, scale=deviation, size=t.shape, random_state=stream))
            else:
                weights.append(stream.standard_normal(t.shape) * scales.get(name, deviation))
        found[t.name] = np.stack(weights).astype(np.float32)
    return found


def orthonormal(rows: int, columns: int, stream: np.random.Generator) -> np.ndarray:
    """Random matrix with orthonormal rows, or columns if there are fewer of them."""
    q, r = np.linalg.qr(stream.standard_normal((max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diag(r))
    return np.asarray(q if rows >= columns else q.T)


def epochs(streams: Sequence[np.random.Generator], available: int, own: int, batch: int) -> Iterator[np.ndarray]:
    """Yield for each epoch the numbers of the images of every step: shape (steps, networks, batch).

    Every network has its own share of the images, in a new order in each epoch.
    """
    owned = [stream.permutation(available)[:own] for stream in streams]
    size = min(batch, own)
    while True:
        order = [stream.permutation(mine)[: own // size * size] for mine, stream in zip(owned, streams, strict=True)]
        yield np.stack(order).reshape(len(streams), -1, size).swapaxes(0, 1).copy()


@dataclass(frozen=True)
class TrainingImages:
    """Images to train and test on: (n, height, width, channels) in [0, 1], with labels, and the files' checksums."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    sources: dict[str, str]


@cache
def training_images(name: str, images: int, test_images: int, grayscale: bool) -> TrainingImages:
    """First images of a set, some to train on and some to test on, in gray if wanted."""
    found = load_images(name)
    parts = [found.train_images[:images], found.test_images[:test_images]]
    train, test = ((gray(x) if grayscale else x).astype(np.float32) / 255 for x in parts)
    return TrainingImages(train, found.train_labels[:images], test, found.test_labels[:test_images], found.sources)


def train(
    library: Engine,
    program: Any,
    weights: Mapping[str, np.ndarray],
    columns: Mapping[str, np.ndarray],
    batches: Any,
    length: int,
) -> Iterator[State]:
    """Train networks; yield their state before the first epoch and after each.

    Parameters
    ----------
    library : Engine
        Array library.
    program : callable
        Loop over a step of `make_train_step`.
    weights, columns : mapping of str to numpy.ndarray
        As `init_state` takes them.
    batches : iterator
        Of what `program` takes for one epoch: arrays from `epochs`, or dicts of arrays.
    length : int
        Number of epochs.

    Yields
    ------
    dict of str to array
        The state.
    """
    state = init_state(library, weights, columns)
    yield state
    for _ in range(length):
        inputs = next(batches)
        arrays = (
            {name: library.array(x) for name, x in inputs.items()}
            if isinstance(inputs, dict)
            else library.array(inputs)
        )
        state = program(state, arrays)
        yield state


class Trainer:
    """Trains and tests classifiers of one architecture on some images, many at once.

    Parameters
    ----------
    library : Engine
        Array library.
    images : TrainingImages
        Training and test images.
    space : WeightSpace
        The networks' weight space.
    optimizer : str
        One of `reference_experiments.networks.optimizers.OPTIMIZERS`.
    activation : {"relu", "tanh"}
        Between the layers.
    """

    def __init__(
        self,
        library: Engine,
        images: TrainingImages,
        space: WeightSpace,
        optimizer: str = "momentum",
        activation: str = "relu",
    ) -> None:
        self.library, self.images, self.space = library, images, space
        self.convolutional = any(len(t.shape) > 2 for t in space.tensors)
        self.hidden = sum(t.shape[0] for t in space.tensors if t.name.startswith("v")) - space.tensors[-1].shape[0]
        self.program = library.loop(
            make_train_step(library, space, images.train_images, images.train_labels, optimizer, activation)
        )
        self.scores = library.compile(lambda weights, pixels: classify(space, weights, pixels, activation))

    def blocks(self, count: int) -> Iterator[slice]:
        """Cut a number of networks into blocks that are best trained at once."""
        return blocks(self.library.convolutional_block if self.convolutional else self.library.block, count)

    def weights(self, state: State) -> dict[str, np.ndarray]:
        """Weights on the host."""
        return {t.name: self.library.numpy(state[t.name]) for t in self.space.tensors}

    def test(self, state: State, images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Accuracy and cross-entropy of every network, each (models,)."""
        weights, right, loss = {t.name: state[t.name] for t in self.space.tensors}, [], []
        for start in range(0, len(labels), 200):
            x, y = images[start : start + 200], labels[start : start + 200]
            scores = self.library.numpy(self.scores(weights, self.library.array(x[None]))).astype(np.float64)
            right.append(scores.argmax(axis=-1) == y)
            top = scores.max(axis=-1)
            total = top + np.log(np.exp(scores - top[..., None]).sum(axis=-1))
            loss.append(total - np.take_along_axis(scores, np.broadcast_to(y, top.shape)[..., None], axis=-1)[..., 0])
        accuracy, entropy = (np.concatenate(x, axis=1).mean(axis=1).astype(np.float32) for x in (right, loss))
        return accuracy, entropy


@cache
def trainer_of(
    backend: str, name: str, counts: tuple[int, int], architecture: str, optimizer: str, activation: str
) -> Trainer:
    """Trainer of one of `ARCHITECTURES` on the first (training, test) images of a set; there is one for each setting."""
    images = training_images(name, *counts, grayscale=architecture == "cnn")
    height, width, channels = images.train_images.shape[1:]
    space = ARCHITECTURES[architecture](channels, height * width)
    return Trainer(engine(backend), images, space, optimizer, activation)


def classify(
    space: WeightSpace, weights: Mapping[str, Any], images: Any, activation: str = "relu", kept: Any = None
) -> Any:
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
    kept : array, optional
        Dropout: what every hidden channel is multiplied by, the same at all pixels (Tompson et al. 2015), the layers one
        after the other. Shape (models, batch, hidden channels).

    Returns
    -------
    array
        Shape (models, batch, classes).
    """
    xp = namespace_of(images)
    x, depth, start = images, len(space.tensors) // 2, 0
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
        if i < depth and kept is not None:
            stop = start + x.shape[-1]
            x = x * xp.reshape(kept[..., start:stop], (*x.shape[:2], *[1] * (x.ndim - 3), x.shape[-1]))
            start = stop
    return x


def init_state(engine: Engine, weights: Mapping[str, np.ndarray], columns: Mapping[str, np.ndarray]) -> State:
    """Begin to train networks: the state that `make_train_step` steps through.

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
        state |= {f"{name} {moment}": engine.array(np.zeros_like(w)) for moment in ("momentum", "second_moment")}
    return state


def make_train_step(
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
        masks ``"NAME mask"``, masked weights get no step; where it has ``steps``, networks stop after so many; where it
        has ``dropout``, a share of each network's hidden channels is dropped, and the second argument is a dict of
        ``images``, as above, and of ``uniform``, random numbers in [0, 1) of shape (models, batch, hidden channels).
    """
    pixels = engine.array(images)
    targets = engine.array(np.eye(labels.max() + 1, dtype=np.float32)[labels])
    xp = namespace_of(pixels)

    def loss(weights: State, x: Any, y: Any, kept: Any) -> Any:
        scores = classify(space, weights, x, activation, kept)
        scores = scores - xp.max(scores, axis=-1, keepdims=True)
        likelihood = xp.sum(scores * y, axis=-1) - xp.log(xp.sum(xp.exp(scores), axis=-1))
        return -xp.sum(xp.mean(likelihood, axis=1))  # networks do not interact: each gets its own gradient

    gradient = engine.grad(loss)

    def step(state: State, chosen: Any) -> State:
        kept = None
        if "dropout" in state:
            rate = xp.reshape(state["dropout"], (-1, 1, 1))
            kept = xp.astype(chosen["uniform"] >= rate, pixels.dtype) / (1 - rate)
            chosen = chosen["images"]
        flat = xp.reshape(chosen, (-1,))
        x = xp.reshape(xp.take(pixels, flat, axis=0), (*chosen.shape, *pixels.shape[1:]))
        y = xp.reshape(xp.take(targets, flat, axis=0), (*chosen.shape, targets.shape[1]))
        weights = {t.name: state[t.name] for t in space.tensors}
        grads = gradient(weights, x, y, kept)
        new = state | {"step": state["step"] + 1}
        for name, w in weights.items():
            column = (-1, *[1] * (w.ndim - 1))
            rate, decay = (xp.reshape(state[h], column) for h in ("learning_rate", "weight_decay"))
            grad = grads[name] + decay * w
            if f"{name} mask" in state:
                grad = grad * state[f"{name} mask"]
            change, moments = optimizer_step(
                optimizer, grad, state[f"{name} momentum"], state[f"{name} second_moment"], new["step"], xp
            )
            if "steps" in state:
                change = xp.where(xp.reshape(state["step"] < state["steps"], column), change, xp.zeros_like(change))
            new |= {name: w - rate * change, f"{name} momentum": moments[0], f"{name} second_moment": moments[1]}
        return new

    return step


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
