"""Zoos of classifiers: networks trained on real images with drawn hyperparameters.

The CNN zoo is made as the Small CNN Zoo was (Unterthiner et al. 2020), the MLP zoos as section E.5 of the paper says.
Networks of one shard share optimiser, activation and share of the data; as many as suit the library are trained side by
side. Each draws from a stream of its own, of the dataset's seed and its number.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from scipy.stats import truncnorm

from nfn_core import WeightSpace
from reference_experiments.datasets.format import Networks
from reference_experiments.engines.base import Engine, State, blocks, engine
from reference_experiments.networks.classifiers import classify, descent, fresh
from reference_experiments.sources.images import gray, load_images

__all__ = [
    "ARCHITECTURES",
    "INITIALIZERS",
    "Task",
    "Trainer",
    "ZooMaker",
    "ZooScale",
    "epochs",
    "initial",
    "train",
    "trainer_of",
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

OPTIMIZERS = ("adam", "sgd", "rmsprop")
ACTIVATIONS = ("relu", "tanh")
FRACTIONS = (0.1, 0.25, 0.5, 1.0)
SHARES = {"cnn": (0.6, 0.15, 0.25), "mlp3": (0.8, 0.1, 0.1), "mlp5": (0.8, 0.1, 0.1)}
"""Shares of the runs for training, validation and test; of the MLPs' 90 to 10 (section E.5) the validation runs are taken
from the 90."""
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
    "smoke": ZooScale(12, 4, 400, 200, 4, 32, 2),
    "small": ZooScale(240, 10, 10000, 5000, 20, 64, 10),
    "paper": ZooScale(2000, 25, 60000, 10000, 20, 128, 10),
}


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
        For each network the standard deviation, where the initialiser does not say it.
    streams : sequence of numpy.random.Generator
        For each network the source of its draws.

    Returns
    -------
    dict of str to numpy.ndarray
        Tensors of shape (networks, *axes), float32.
    """
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
        Loop over a step of `reference_experiments.networks.classifiers.descent`.
    weights, columns : mapping of str to numpy.ndarray
        As `reference_experiments.networks.classifiers.fresh` takes them.
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


class Trainer:
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
def trainer_of(
    backend: str, name: str, scale: ZooScale, grayscale: bool, architecture: str, optimizer: str, activation: str
) -> Trainer:
    """Trainer of networks on a set of images; there is one for each setting."""
    task = _task(name, scale.images, scale.test_images, grayscale)
    return Trainer(engine(backend), task, architecture, optimizer, activation)


@dataclass(frozen=True)
class ZooMaker:
    """Makes a zoo of classifiers; see `reference_experiments.datasets.generation.Maker`.

    Learning rate (5e-4 to 5e-2), weight decay (1e-8 to 1e-2) and initial deviation (1e-3 to 0.5) are drawn log-uniformly,
    optimiser, activation, initialiser and the share of the images from the lists above, as Unterthiner et al. do;
    their dropout is not drawn.

    Parameters
    ----------
    images : str
        A set of `reference_experiments.sources.images`, made gray for CNNs.
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

    def run(self, index: int) -> Networks:
        """Train the networks of one shard."""
        s = self.scale
        kinds = list(product(FRACTIONS, OPTIMIZERS, ACTIVATIONS))
        kind = kinds[np.random.default_rng(self.seed).permutation(len(kinds))[index % len(kinds)]]
        trainer = trainer_of(self.backend, self.images, s, self.architecture == "cnn", self.architecture, *kind[1:])
        runs = np.arange(index * s.shard, min((index + 1) * s.shard, s.runs))
        todo = [runs[block] for block in blocks(trainer.library, len(runs))]
        parts = [part for block in todo for part in self._train(trainer, block, *kind)]
        weights, columns = ({name: np.concatenate([p[i][name] for p in parts]) for name in parts[0][i]} for i in (0, 1))
        about = self.settings | {
            "sources": trainer.task.sources,
            "initializers": INITIALIZERS,
            "optimizers": OPTIMIZERS,
            "activations": ACTIVATIONS,
        }
        return Networks(trainer.space, weights, columns, about)

    def _train(
        self, trainer: "Trainer", runs: np.ndarray, fraction: float, optimizer: str, activation: str
    ) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
        """Train networks side by side; yield weights and columns of those that are kept after each epoch and are finite."""
        s, task, streams = self.scale, trainer.task, [np.random.default_rng([self.seed, run]) for run in runs]

        def log_uniform(low: float, high: float) -> np.ndarray:
            return np.exp([stream.uniform(np.log(low), np.log(high)) for stream in streams]).astype(np.float32)

        rates = {"learning_rate": log_uniform(5e-4, 5e-2), "weight_decay": log_uniform(1e-8, 1e-2)}
        drawn = {
            "deviation": log_uniform(1e-3, 0.5),
            "initializer": np.array([stream.integers(len(INITIALIZERS)) for stream in streams], np.uint8),
            "split": np.array([stream.choice(3, p=SHARES[self.architecture]) for stream in streams], np.uint8),
        }
        shared = {
            "fraction": fraction,
            "optimizer": OPTIMIZERS.index(optimizer),
            "activation": ACTIVATIONS.index(activation),
        }
        columns = {"run": runs.astype(np.int32), **rates, **drawn}
        columns |= {name: np.full(len(runs), value, np.float32) for name, value in shared.items()}
        kept = np.stack([self._kept(stream) for stream in streams])
        weights = initial(trainer.space, drawn["initializer"], drawn["deviation"], streams)
        own = max(1, int(fraction * len(task.train_labels)))
        batches = epochs(streams, len(task.train_labels), own, s.batch)
        for epoch, state in enumerate(train(trainer.library, trainer.program, weights, rates, batches, s.epochs)):
            if not kept[:, epoch].any():
                continue
            now = trainer.weights(state)
            mask = np.all(
                [kept[:, epoch], *(np.isfinite(x).reshape(len(x), -1).all(axis=1) for x in now.values())], axis=0
            )
            found = {name: x[mask] for name, x in columns.items()} | {"epoch": np.full(mask.sum(), epoch, np.int32)}
            for name, images, labels in (
                ("", task.test_images, task.test_labels),
                ("train ", task.train_images[:1000], task.train_labels[:1000]),
            ):
                accuracy, loss = trainer.test(state, images, labels)
                found |= {f"{name}accuracy": accuracy[mask], f"{name}loss": loss[mask]}
            yield {name: x[mask] for name, x in now.items()}, found

    def _kept(self, stream: np.random.Generator) -> np.ndarray:
        """Whether a network is kept after epoch 0, 1, ...; shape (epochs + 1,)."""
        s = self.scale
        kept = np.zeros(s.epochs + 1, bool)
        if self.architecture == "cnn":
            kept[np.round(np.linspace(0, s.epochs, s.checkpoints)).astype(int)] = True
        else:
            kept[1 + stream.choice(s.epochs, s.checkpoints, replace=False)] = True
        return kept
