"""Zoos of classifiers and winning tickets: networks trained on real images with drawn hyperparameters.

The CNN zoo is made as the Small CNN Zoo was (Unterthiner et al. 2020), the MLP zoos as section E.5 of the paper says,
winning tickets as section D.2 does. Networks of one shard share optimiser, activation and share of the data, and are
trained side by side.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np

from nfn_core import WeightSpace
from reference_experiments.datasets import SPLITS, Networks
from reference_experiments.engines import Engine, State, engine
from reference_experiments.images import gray, load_images
from reference_experiments.zoo import classify, descent, fresh

__all__ = ["ARCHITECTURES", "TicketMaker", "ZooMaker", "ZooScale", "initial", "magnitude_masks", "train"]

ARCHITECTURES = {
    "cnn": lambda c, pixels: WeightSpace.cnn([c, 16, 16, 16, 10], [(3, 3), (3, 3), (3, 3), ()]),
    "mlp3": lambda c, pixels: WeightSpace.mlp([c * pixels, 128, 128, 10]),
    "mlp5": lambda c, pixels: WeightSpace.mlp([c * pixels, 128, 128, 128, 128, 10]),
    "ticket-mlp": lambda c, pixels: WeightSpace.mlp([c * pixels, 128, 128, 10]),
    "ticket-cnn": lambda c, pixels: WeightSpace.cnn([c, 128, 128, 128, 64, 10], [(3, 3)] * 3 + [(), ()]),
}
"""Weight spaces by name, given the images' channels and pixels; convolutions are 3x3 with stride 2, then comes global
average pooling."""

OPTIMIZERS = ("adam", "sgd", "rmsprop")
ACTIVATIONS = ("relu", "tanh")
FRACTIONS = (0.1, 0.25, 0.5, 1.0)
INITIALIZERS = ("glorot_normal", "he_normal", "orthogonal", "normal", "truncated_normal")


@dataclass(frozen=True)
class ZooScale:
    """How many networks, and how long they are trained.

    Parameters
    ----------
    runs : int
        Trained networks.
    shard : int
        Networks trained side by side.
    images, test_images : int
        Images at most that are trained and tested on.
    epochs : int
        Passes over a network's share of the images.
    batch : int
        Images in a step.
    checkpoints : int
        Checkpoints kept of every run: for the CNN zoo evenly from the first epoch to the last, for the MLP zoos at
        random epochs.
    """

    runs: int
    shard: int
    images: int
    test_images: int
    epochs: int
    batch: int
    checkpoints: int


CNN_SCALES = {
    "smoke": ZooScale(16, 8, 400, 200, 2, 32, 2),
    "small": ZooScale(720, 30, 10000, 5000, 10, 64, 4),
    "paper": ZooScale(30000, 50, 50000, 10000, 86, 512, 9),
}
MLP_SCALES = {
    "smoke": ZooScale(8, 4, 400, 200, 4, 32, 2),
    "small": ZooScale(240, 10, 10000, 5000, 20, 64, 10),
    "paper": ZooScale(2000, 25, 60000, 10000, 20, 128, 10),
}
TICKET_SCALES = {
    "smoke": ZooScale(4, 2, 400, 200, 1, 32, 1),
    "small": ZooScale(90, 10, 10000, 5000, 5, 64, 1),
    "paper": ZooScale(450, 10, 60000, 10000, 20, 128, 1),
}


def initial(
    space: WeightSpace, kinds: np.ndarray, deviations: np.ndarray, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Draw initial weights; biases are 0.

    Parameters
    ----------
    space : WeightSpace
        The networks' weight space.
    kinds : numpy.ndarray
        For each network the number of one of `INITIALIZERS`, shape (models,).
    deviations : numpy.ndarray
        Standard deviation where the initialiser does not say it, shape (models,).
    rng : numpy.random.Generator
        Source of the draws.

    Returns
    -------
    dict of str to numpy.ndarray
        Tensors of shape (models, *axes), float32.
    """
    found = {}
    for t in space.tensors:
        draws = rng.standard_normal((len(kinds), *t.shape))
        if t.name.startswith("v"):
            found[t.name] = np.zeros_like(draws, np.float32)
            continue
        field = int(np.prod(t.shape[2:]))
        inputs, outputs = t.shape[1] * field, t.shape[0] * field
        for k, kind in enumerate(kinds):
            name = INITIALIZERS[kind]
            if name == "orthogonal":
                flat = draws[k].reshape(t.shape[0], -1)
                q, r = np.linalg.qr(flat.T if flat.shape[0] < flat.shape[1] else flat)
                q = q * np.sign(np.diag(r))
                draws[k] = (q.T if flat.shape[0] < flat.shape[1] else q).reshape(t.shape)
                continue
            if name == "truncated_normal":
                while (far := np.abs(draws[k]) > 2).any():
                    draws[k][far] = rng.standard_normal(int(far.sum()))
            scales = {"glorot_normal": (2 / (inputs + outputs)) ** 0.5, "he_normal": (2 / inputs) ** 0.5}
            draws[k] *= scales.get(name, deviations[k])
        found[t.name] = draws.astype(np.float32)
    return found


def epochs(count: int, available: int, own: int, batch: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield for each epoch the numbers of the images of every step: shape (steps, models, batch).

    Every network has its own share of the images, in a new order in each epoch.
    """
    owned = rng.permuted(np.tile(np.arange(available), (count, 1)), axis=1)[:, :own]
    size = min(batch, own)
    while True:
        order = rng.permuted(owned, axis=1)[:, : own // size * size]
        yield order.reshape(count, -1, size).swapaxes(0, 1).copy()


@dataclass(frozen=True)
class Task:
    """Images to train and test on: (n, height, width, channels) in [0, 1], with labels, and the files' checksums."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    sources: dict[str, str]


@cache
def _task(name: str, images: int, test_images: int, grayscale: bool) -> Task:
    """The first images of a set."""
    found = load_images(name)
    parts = [found.train_images[:images], found.test_images[:test_images]]
    train, test = ((gray(x) if grayscale else x).astype(np.float32) / 255 for x in parts)
    return Task(train, found.train_labels[:images], test, found.test_labels[:test_images], found.sources)


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
        Loop over a step of `reference_experiments.zoo.descent`.
    weights, columns : mapping of str to numpy.ndarray
        As `reference_experiments.zoo.fresh` takes them.
    batches : iterator
        From `epochs`.
    length : int
        Number of epochs.

    Yields
    ------
    dict of str to array
        The state.
    """
    state = fresh(library, weights, columns)
    yield state
    for _ in range(length):
        state = program(state, library.array(next(batches)))
        yield state


class _Trainer:
    """What the makers share: the task, the weight space, programs and tests."""

    def __init__(self, library: Engine, task: Task, architecture: str, optimizer: str, activation: str) -> None:
        height, width, channels = task.train_images.shape[1:]
        self.library, self.task = library, task
        self.space = ARCHITECTURES[architecture](channels, height * width)
        step = descent(library, self.space, task.train_images, task.train_labels, optimizer, activation)
        self.program = library.loop(step)
        self.scores = library.compile(lambda weights, images: classify(self.space, weights, images, activation))

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
def _trainer(
    backend: str, name: str, scale: ZooScale, grayscale: bool, architecture: str, optimizer: str, activation: str
) -> _Trainer:
    task = _task(name, scale.images, scale.test_images, grayscale)
    return _Trainer(engine(backend), task, architecture, optimizer, activation)


@dataclass(frozen=True)
class ZooMaker:
    """Makes a zoo of classifiers; see `reference_experiments.making.Maker`.

    Learning rate (5e-4 to 5e-2), weight decay (1e-8 to 1e-2) and initial deviation (1e-3 to 0.5) are drawn log-uniformly,
    optimiser, activation, initialiser and the share of the images from the lists above, as Unterthiner et al. do;
    their dropout is not drawn.

    Parameters
    ----------
    images : str
        A set of `reference_experiments.images`, made gray for CNNs.
    architecture : {"cnn", "mlp3", "mlp5"}
        One of `ARCHITECTURES`.
    scale : ZooScale
        How many, and how long.
    seed : int
        Seed of everything drawn.
    backend : str
        ``"torch"`` or ``"jax"``.
    """

    images: str
    architecture: str
    scale: ZooScale
    seed: int
    backend: str
    quality: str = "accuracy"

    @property
    def settings(self) -> dict[str, Any]:
        """What the dataset depends on."""
        return {"dataset": "zoo of classifiers", **asdict(self)}

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.scale.runs // self.scale.shard)

    def kept(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """For each network whether it is kept after epoch 0, 1, ...; shape (models, epochs + 1)."""
        s = self.scale
        kept = np.zeros((count, s.epochs + 1), bool)
        if self.architecture == "cnn":
            kept[:, np.unique(np.round(np.linspace(0, s.epochs, s.checkpoints)).astype(int))] = True
        else:
            for row in kept:
                row[1 + rng.choice(s.epochs, s.checkpoints, replace=False)] = True
        return kept

    def run(self, index: int) -> Networks:
        """Train the networks of one shard."""
        s, rng = self.scale, np.random.default_rng([self.seed, index])
        kinds = list(product(FRACTIONS, OPTIMIZERS, ACTIVATIONS))
        order = np.random.default_rng(self.seed).permutation(len(kinds))
        fraction, optimizer, activation = kinds[order[index % len(kinds)]]
        trainer = _trainer(
            self.backend, self.images, s, self.architecture == "cnn", self.architecture, optimizer, activation
        )
        runs = np.arange(index * s.shard, min((index + 1) * s.shard, s.runs))
        count = len(runs)

        def log_uniform(low: float, high: float) -> np.ndarray:
            return np.exp(rng.uniform(np.log(low), np.log(high), count)).astype(np.float32)

        rates = {"learning_rate": log_uniform(5e-4, 5e-2), "weight_decay": log_uniform(1e-8, 1e-2)}
        drawn = {
            "initializer": rng.integers(len(INITIALIZERS), size=count).astype(np.uint8),
            "deviation": log_uniform(1e-3, 0.5),
        }
        fixed = {
            "fraction": fraction,
            "optimizer": OPTIMIZERS.index(optimizer),
            "activation": ACTIVATIONS.index(activation),
        }
        split = np.random.default_rng([self.seed, index, 1]).choice(3, count, p=(0.6, 0.15, 0.25)).astype(np.uint8)
        columns = {"run": runs.astype(np.int32), "split": split, **rates, **drawn}
        columns |= {name: np.full(count, value, np.float32) for name, value in fixed.items()}
        weights = initial(trainer.space, drawn["initializer"], drawn["deviation"], rng)
        kept, task = self.kept(rng, count), trainer.task
        own = max(1, int(fraction * len(task.train_labels)))
        batches = epochs(count, len(task.train_labels), own, s.batch, rng)
        parts: list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = []
        for epoch, state in enumerate(train(trainer.library, trainer.program, weights, rates, batches, s.epochs)):
            mask = kept[:, epoch]
            if mask.any():
                now = trainer.weights(state)
                mask = mask & np.all([np.isfinite(x).reshape(count, -1).all(axis=1) for x in now.values()], axis=0)
                found = {name: x[mask] for name, x in columns.items()} | {"epoch": np.full(mask.sum(), epoch, np.int32)}
                sets = {
                    "": (task.test_images, task.test_labels),
                    "train ": (task.train_images[:1000], task.train_labels[:1000]),
                }
                for name, data in sets.items():
                    accuracy, loss = trainer.test(state, *data)
                    found |= {f"{name}accuracy": accuracy[mask], f"{name}loss": loss[mask]}
                parts.append(({name: x[mask] for name, x in now.items()}, found))
        together = [{name: np.concatenate([p[i][name] for p in parts]) for name in parts[0][i]} for i in (0, 1)]
        about = self.settings | {
            "sources": task.sources,
            "initializers": INITIALIZERS,
            "optimizers": OPTIMIZERS,
            "activations": ACTIVATIONS,
        }
        return Networks(trainer.space, *together, about)


def magnitude_masks(weights: Mapping[str, np.ndarray], sparsity: float) -> dict[str, np.ndarray]:
    """Masks of the largest entries of every weight tensor, and of all biases.

    Parameters
    ----------
    weights : mapping of str to numpy.ndarray
        Tensors of shape (networks, *axes).
    sparsity : float
        Share of every weight tensor's entries that are pruned.

    Returns
    -------
    dict of str to numpy.ndarray
        Booleans of the same shapes, true where an entry stays.
    """
    masks = {}
    for name, x in weights.items():
        if name.startswith("v"):
            masks[name] = np.ones(x.shape, bool)
            continue
        flat = np.abs(x).reshape(len(x), -1)
        pruned = np.argsort(flat, axis=1, kind="stable")[:, : int(sparsity * flat.shape[1])]
        mask = np.ones(flat.shape, bool)
        np.put_along_axis(mask, pruned, False, axis=1)
        masks[name] = mask.reshape(x.shape)
    return masks


@dataclass(frozen=True)
class TicketMaker:
    """Makes pairs of initial weights and masks of winning tickets; see `reference_experiments.making.Maker`.

    A network is trained by Adam, pruned by magnitude once to 95 % sparsity in every weight tensor (one step of iterative
    magnitude pruning), and trained again from the same initial weights under the mask.

    Parameters
    ----------
    images : str
        A set of `reference_experiments.images`.
    architecture : {"ticket-mlp", "ticket-cnn"}
        One of `ARCHITECTURES`.
    scale : ZooScale
        How many, and how long.
    seed : int
        Seed of everything drawn.
    backend : str
        ``"torch"`` or ``"jax"``.
    """

    images: str
    architecture: str
    scale: ZooScale
    seed: int
    backend: str
    sparsity: float = 0.95
    learning_rate: float = 1e-3
    quality: str = "ticket accuracy"

    @property
    def settings(self) -> dict[str, Any]:
        """What the dataset depends on."""
        return {"dataset": "winning tickets", **asdict(self)}

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.scale.runs // self.scale.shard)

    def run(self, index: int) -> Networks:
        """Train, prune and train again the networks of one shard."""
        s, rng = self.scale, np.random.default_rng([self.seed, index])
        trainer = _trainer(self.backend, self.images, s, False, self.architecture, "adam", "relu")
        runs, task = np.arange(index * s.shard, min((index + 1) * s.shard, s.runs)), trainer.task
        weights = initial(trainer.space, np.full(len(runs), INITIALIZERS.index("he_normal")), np.ones(len(runs)), rng)
        rates = {
            "learning_rate": np.full(len(runs), self.learning_rate, np.float32),
            "weight_decay": np.zeros(len(runs), np.float32),
        }
        columns = {
            "run": runs.astype(np.int32),
            "split": np.where(runs < s.runs * 8 // 9, 0, SPLITS.index("test")).astype(np.uint8),
        }
        available = len(task.train_labels)

        def trained(start: Mapping[str, np.ndarray], more: Mapping[str, np.ndarray]) -> State:
            batches = epochs(len(runs), available, available, s.batch, np.random.default_rng([self.seed, index, 1]))
            *_, last = train(trainer.library, trainer.program, start, {**rates, **more}, batches, s.epochs)
            return last

        dense = trained(weights, {})
        columns["dense accuracy"] = trainer.test(dense, task.test_images, task.test_labels)[0]
        masks = magnitude_masks(trainer.weights(dense), self.sparsity)
        shuffled = {
            name: rng.permuted(mask.reshape(len(runs), -1), axis=1).reshape(mask.shape) for name, mask in masks.items()
        }
        for name, chosen in (("ticket accuracy", masks), ("random accuracy", shuffled)):
            numbers = {n: mask.astype(np.float32) for n, mask in chosen.items()}
            state = trained(
                {n: w * numbers[n] for n, w in weights.items()}, {f"{n} mask": x for n, x in numbers.items()}
            )
            columns[name] = trainer.test(state, task.test_images, task.test_labels)[0]
        return Networks(trainer.space, weights, columns, self.settings | {"sources": task.sources}, masks)
