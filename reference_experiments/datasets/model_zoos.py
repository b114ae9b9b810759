"""Zoos of classifiers: networks trained on real images with drawn hyperparameters.

The CNN zoo is made as the Small CNN Zoo was (Unterthiner et al. 2020), the MLP zoos as section E.5 of the paper says.
Networks of one shard share optimizer, activation and share of the data; as many as suit the library are trained side by
side. Each draws from a stream of its own, of the dataset's seed and its number.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, ClassVar

import numpy as np

from reference_experiments.datasets.format import Networks
from reference_experiments.datasets.generation import shard_count, shard_range
from reference_experiments.networks.classifiers import INITIALIZERS, Trainer, epochs, initial, train, trainer_of

__all__ = ["Hyperparameters", "ReluZooMaker", "ZooMaker", "ZooPreset"]


OPTIMIZERS = ("adam", "sgd", "rmsprop")


ACTIVATIONS = ("relu", "tanh")


FRACTIONS = (0.1, 0.25, 0.5, 1.0)


SHARES = {"cnn": (0.6, 0.15, 0.25), "mlp3": (0.8, 0.1, 0.1), "mlp5": (0.8, 0.1, 0.1)}
"""Shares of the runs for training, validation and test; of the MLPs' 90 to 10 (section E.5) the validation runs are taken
from the 90."""


@dataclass(frozen=True)
class ZooPreset:
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
        Checkpoints kept of every run: for the CNN zoo evenly up to the last epoch, for the MLP zoos after random epochs.
    """

    runs: int
    shard: int
    images: int
    test_images: int
    epochs: int
    batch: int
    checkpoints: int


@dataclass(frozen=True)
class Hyperparameters:
    """What networks draw, each for itself; the defaults are those of Unterthiner et al. (2020).

    Parameters
    ----------
    learning_rates, deviations : tuple of (float, float)
        Ranges of the learning rate and of the initial standard deviation, drawn log-uniformly.
    dropout : float, optional
        Largest share of the hidden channels that is dropped, drawn uniformly; without it there is no dropout.
    sgd_factor : float
        How many times larger the learning rates of plain gradient descent are.
    equal_steps : bool
        Whether networks pass over a smaller share of the images more often, so that all take as many steps.
    """

    learning_rates: tuple[float, float] = (5e-4, 5e-2)
    deviations: tuple[float, float] = (1e-3, 0.5)
    dropout: float | None = 0.7
    sgd_factor: float = 1.0
    equal_steps: bool = False


HYPERPARAMETERS = {
    "cnn": Hyperparameters(),
    "cnn, short": Hyperparameters((1e-3, 1e-2), (0.05, 0.5), 0.5, sgd_factor=30.0, equal_steps=True),
    "mlp": Hyperparameters(dropout=None),
}
"""Hyperparameters of the zoos. With the published ones most CNNs of the `small` scale would still be at chance."""


CNN_PRESETS = {
    "smoke": ZooPreset(16, 8, 400, 200, 2, 32, 2),
    "small": ZooPreset(3000, 30, 20000, 5000, 2, 32, 2),
    "paper": ZooPreset(30000, 50, 50000, 10000, 86, 512, 9),
}


MLP_PRESETS = {
    "smoke": ZooPreset(12, 4, 400, 200, 4, 32, 2),
    "small": ZooPreset(240, 10, 10000, 5000, 20, 64, 10),
    "paper": ZooPreset(2000, 25, 60000, 10000, 20, 128, 10),
}


@dataclass(frozen=True)
class ZooMaker:
    """Makes a zoo of classifiers; see `reference_experiments.datasets.generation.Maker`.

    Learning rate, weight decay (1e-8 to 1e-2) and initial deviation are drawn log-uniformly, a CNN's dropout uniformly,
    optimizer, activation, initializer and the share of the images from the lists above, as Unterthiner et al. do.

    Parameters
    ----------
    images : str
        A set of `reference_experiments.sources.images`, made gray for CNNs.
    architecture : {"cnn", "mlp3", "mlp5"}
        One of `ARCHITECTURES`.
    scale : ZooPreset
        How many, and how long.
    seed : int
        Seed of everything drawn.
    backend : str
        ``"torch"`` or ``"jax"``.
    hyperparameters : Hyperparameters
        What the networks draw.
    """

    images: str
    architecture: str
    scale: ZooPreset
    seed: int
    backend: str
    hyperparameters: Hyperparameters
    quality: str = "accuracy"
    activations: ClassVar[tuple[str, ...]] = ACTIVATIONS

    @classmethod
    def at_scale(cls, images: str, architecture: str, scale: str, seed: int, backend: str) -> "ZooMaker":
        """Maker at one of the presets."""
        if architecture == "cnn":
            kind, presets = "cnn, short" if scale == "small" else "cnn", CNN_PRESETS
        else:
            kind, presets = "mlp", MLP_PRESETS
        return cls(images, architecture, presets[scale], seed, backend, HYPERPARAMETERS[kind])

    @property
    def title(self) -> str:
        """Short name of the dataset."""
        return f"{self.architecture}-zoo-{self.images}"

    @property
    def settings(self) -> dict[str, Any]:
        """What the dataset depends on."""
        return {"dataset": "zoo of classifiers", **asdict(self)}

    @property
    def shards(self) -> int:
        """Number of shards."""
        return shard_count(self.scale.runs, self.scale.shard)

    def run(self, index: int) -> Networks:
        """Train the networks of one shard."""
        s = self.scale
        kinds = list(product(FRACTIONS, OPTIMIZERS, self.activations))
        kind = kinds[np.random.default_rng(self.seed).permutation(len(kinds))[index % len(kinds)]]
        trainer = trainer_of(self.backend, self.images, (s.images, s.test_images), self.architecture, *kind[1:])
        runs = shard_range(index, s.shard, s.runs)
        todo = [runs[block] for block in trainer.blocks(len(runs))]
        parts = [part for block in todo for part in self._train(trainer, block, *kind)]
        weights, columns = ({name: np.concatenate([p[i][name] for p in parts]) for name in parts[0][i]} for i in (0, 1))
        about = self.settings | {
            "sources": trainer.images.sources,
            "initializers": INITIALIZERS,
            "optimizers": OPTIMIZERS,
            "activations": ACTIVATIONS,
        }
        return Networks(trainer.space, weights, columns, about)

    def _train(
        self, trainer: Trainer, runs: np.ndarray, fraction: float, optimizer: str, activation: str
    ) -> Iterator[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
        """Train networks side by side; yield weights and columns of those that are kept after each epoch and are finite."""
        s, h, task = self.scale, self.hyperparameters, trainer.images
        streams = [np.random.default_rng([self.seed, run]) for run in runs]

        def log_uniform(low: float, high: float) -> np.ndarray:
            return np.exp([stream.uniform(np.log(low), np.log(high)) for stream in streams]).astype(np.float32)

        rates = {"learning_rate": log_uniform(*h.learning_rates), "weight_decay": log_uniform(1e-8, 1e-2)}
        if optimizer == "sgd":
            rates["learning_rate"] *= np.float32(h.sgd_factor)
        if h.dropout is not None:
            rates["dropout"] = np.array([stream.uniform(0, h.dropout) for stream in streams], np.float32)
        drawn = {
            "deviation": log_uniform(*h.deviations),
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
        passes = round(s.epochs / fraction) if h.equal_steps else s.epochs
        kept = np.stack([self._kept(stream, passes) for stream in streams])
        weights = initial(trainer.space, drawn["initializer"], drawn["deviation"], streams)
        own = max(1, int(fraction * len(task.train_labels)))
        batches: Iterator[Any] = epochs(streams, len(task.train_labels), own, s.batch)
        if "dropout" in rates:
            batches = with_uniform(batches, streams, trainer.hidden)
        for epoch, state in enumerate(train(trainer.library, trainer.program, weights, rates, batches, passes)):
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

    def _kept(self, stream: np.random.Generator, passes: int) -> np.ndarray:
        """Whether a network is kept after pass 0, 1, ...; shape (passes + 1,)."""
        count = self.scale.checkpoints
        kept = np.zeros(passes + 1, bool)
        if self.architecture == "cnn":
            kept[np.round(np.linspace(0, passes, count + 1)).astype(int)[1:]] = True
        else:
            kept[1 + stream.choice(passes, count, replace=False)] = True
        return kept


@dataclass(frozen=True)
class ReluZooMaker(ZooMaker):
    """Makes a zoo of ReLU classifiers, which are unchanged when neurons are scaled.

    Parameters
    ----------
    images, architecture, scale, seed, backend, hyperparameters : see `ZooMaker`
        As there.
    """

    activations: ClassVar[tuple[str, ...]] = ("relu",)

    @property
    def title(self) -> str:
        """Short name of the dataset."""
        return f"relu-{super().title}"

    @property
    def settings(self) -> dict[str, Any]:
        """What the dataset depends on."""
        return {**super().settings, "dataset": "zoo of ReLU classifiers"}


def with_uniform(
    batches: Iterator[np.ndarray], streams: Sequence[np.random.Generator], channels: int
) -> Iterator[dict[str, np.ndarray]]:
    """Yield batches of `epochs` with random numbers for the dropout of some hidden channels."""
    for images in batches:
        steps, _, batch = images.shape
        uniform = [stream.random((steps, batch, channels), np.float32) for stream in streams]
        yield {"images": images, "uniform": np.stack(uniform, axis=1)}
