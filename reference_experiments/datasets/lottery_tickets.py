"""Winning tickets: initial weights, and the masks that one step of iterative magnitude pruning finds (section D.2).

Networks under any mask are trained here, those of the dataset and those that are predicted: with the same images in the same
order.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from reference_experiments.datasets.format import Networks, WeightDataset
from reference_experiments.datasets.generation import shard_count, shard_range
from reference_experiments.datasets.model_zoos import ZooPreset
from reference_experiments.files import ExperimentError
from reference_experiments.networks.classifiers import INITIALIZERS, Trainer, epochs, initial, train, trainer_of

__all__ = ["TICKET_CNN_PRESETS", "TICKET_MLP_PRESETS", "TicketMaker", "masks_of"]

DATASET = "winning tickets"
TRAINING = {"ticket-mlp": ("sgd", 0.1), "ticket-cnn": ("adam", 1e-3)}
"""Optimizer and learning rate by architecture, of which the paper says nothing. Of MLPs trained by Adam, those pruned by the
magnitude of their initial weights are no better than those pruned at random; by plain gradient descent they are, as in
section E.4. CNNs learn too slowly by it for the `small` scale."""
TICKET_MLP_PRESETS = {
    "smoke": ZooPreset(4, 2, 400, 200, 1, 32, 1),
    "small": ZooPreset(120, 15, 60000, 5000, 2, 64, 1),
    "paper": ZooPreset(450, 10, 60000, 10000, 20, 128, 1),
}
TICKET_CNN_PRESETS = {
    "smoke": ZooPreset(3, 1, 96, 96, 1, 32, 1),
    "small": ZooPreset(27, 1, 4000, 2000, 2, 64, 1),
    "paper": ZooPreset(450, 10, 50000, 10000, 20, 128, 1),
}


def masks_of(scores: Mapping[str, np.ndarray], sparsity: float) -> dict[str, np.ndarray]:
    """Masks of the highest scores in every weight tensor, and of all biases; magnitude pruning's scores are magnitudes.

    Parameters
    ----------
    scores : mapping of str to numpy.ndarray
        For each tensor scores of shape (networks, *axes).
    sparsity : float
        Share of every weight tensor's entries that are pruned, rounded down to whole entries.

    Returns
    -------
    dict of str to numpy.ndarray
        Booleans of the same shapes, true where an entry stays.
    """
    masks = {}
    for name, x in scores.items():
        mask = np.ones(x.shape, bool)
        if not name.startswith("v"):
            flat = x.reshape(len(x), -1)
            pruned = np.argsort(flat, axis=1, kind="stable")[:, : int(sparsity * flat.shape[1])]
            np.put_along_axis(mask.reshape(flat.shape), pruned, False, axis=1)
        masks[name] = mask
    return masks


@dataclass(frozen=True)
class TicketMaker:
    """Makes pairs of initial weights and masks of winning tickets; see `reference_experiments.datasets.generation.Maker`.

    A network is trained, pruned by magnitude once to 95 % sparsity in every weight tensor (one step of iterative magnitude
    pruning), and trained again from the same initial weights under the mask.

    Parameters
    ----------
    images : str
        A set of `reference_experiments.sources.images`.
    architecture : {"ticket-mlp", "ticket-cnn"}
        One of `reference_experiments.networks.classifiers.ARCHITECTURES`.
    scale : ZooPreset
        How many, and how long.
    seed : int
        Seed of everything drawn.
    backend : str
        ``"torch"`` or ``"jax"``.
    """

    images: str
    architecture: str
    scale: ZooPreset
    seed: int
    backend: str
    sparsity: float = 0.95
    quality: str = "ticket accuracy"

    @classmethod
    def of(cls, dataset: WeightDataset) -> "TicketMaker":
        """Maker of a dataset, which trains other networks as it has trained those.

        Raises
        ------
        ExperimentError
            If the dataset is not of winning tickets, or of networks that were trained otherwise.
        """
        about = dataset.about
        if about.get("dataset") != DATASET:
            raise ExperimentError(f"{dataset.folder} holds no winning tickets: make some with `make tickets`.")
        kept = ("images", "architecture", "seed", "backend", "sparsity")
        maker = cls(scale=ZooPreset(**about["scale"]), **{name: about[name] for name in kept})
        expected, found = maker.settings["learning_rate"], about["learning_rate"]
        if found != expected:
            raise ExperimentError(
                f"{dataset.folder}: expected networks trained at learning rate {expected:g}, but they were at {found:g}: make "
                "the dataset again in another folder."
            )
        return maker

    @property
    def title(self) -> str:
        """Short name of the dataset."""
        return f"{self.architecture}s-{self.images}"

    @property
    def settings(self) -> dict[str, Any]:
        """What the dataset depends on."""
        return {"dataset": DATASET, **asdict(self), "learning_rate": TRAINING[self.architecture][1]}

    @property
    def shards(self) -> int:
        """Number of shards."""
        return shard_count(self.scale.runs, self.scale.shard)

    @property
    def trainer(self) -> Trainer:
        """What trains the networks."""
        optimizer = TRAINING[self.architecture][0]
        return trainer_of(
            self.backend, self.images, (self.scale.images, self.scale.test_images), self.architecture, optimizer, "relu"
        )

    def run(self, index: int) -> Networks:
        """Train, prune and train again the networks of one shard."""
        s, trainer = self.scale, self.trainer
        runs = shard_range(index, s.shard, s.runs)
        parts = [self._prune(runs[block]) for block in trainer.blocks(len(runs))]
        weights, columns, masks = (
            {name: np.concatenate([p[i][name] for p in parts]) for name in parts[0][i]} for i in range(3)
        )
        return Networks(trainer.space, weights, columns, self.settings | {"sources": trainer.images.sources}, masks)

    def trained(
        self, runs: np.ndarray, weights: Mapping[str, np.ndarray], masks: Mapping[str, np.ndarray] | None = None
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Train networks side by side.

        Parameters
        ----------
        runs : numpy.ndarray
            Numbers of the networks, shape (networks,), from which the order of images follows.
        weights : mapping of str to numpy.ndarray
            Initial weights, each of shape (networks, *axes).
        masks : mapping of str to numpy.ndarray, optional
            Booleans of the same shapes: the other entries are 0 and stay 0. Without it networks are dense.

        Returns
        -------
        dict of str to numpy.ndarray, numpy.ndarray
            Trained weights, and test accuracies in [0, 1] of shape (networks,).
        """
        trainer, task = self.trainer, self.trainer.images
        constants = {"learning_rate": TRAINING[self.architecture][1], "weight_decay": 0.0}
        columns = {name: np.full(len(runs), value, np.float32) for name, value in constants.items()}
        if masks is not None:
            numbers = {name: mask.astype(np.float32) for name, mask in masks.items()}
            weights = {name: w * numbers[name] for name, w in weights.items()}
            columns |= {f"{name} mask": x for name, x in numbers.items()}
        streams = [np.random.default_rng([self.seed, run, 1]) for run in runs]  # the same order of images every time
        batches = epochs(streams, len(task.train_labels), len(task.train_labels), self.scale.batch)
        *_, last = train(trainer.library, trainer.program, weights, columns, batches, self.scale.epochs)
        return trainer.weights(last), trainer.test(last, task.test_images, task.test_labels)[0]

    def _prune(self, runs: np.ndarray) -> tuple[dict[str, np.ndarray], ...]:
        """Initial weights, columns and masks of networks."""
        s, count = self.scale, len(runs)
        streams = [np.random.default_rng([self.seed, run]) for run in runs]
        weights = initial(self.trainer.space, [INITIALIZERS.index("he_normal")] * count, [1.0] * count, streams)
        test = s.runs * 8 // 9  # of 450 pairs 50, as in the paper; 20 of the other 400 choose when to stop
        split = np.searchsorted([test - max(1, s.runs // 22), test], runs, side="right")
        columns: dict[str, np.ndarray] = {"run": runs.astype(np.int32), "split": split.astype(np.uint8)}
        dense, columns["dense accuracy"] = self.trained(runs, weights)
        masks = masks_of({name: np.abs(x) for name, x in dense.items()}, self.sparsity)
        kept = 1 - self.sparsity  # the paper's random masks: each entry stays by itself
        drawn = {
            name: np.stack([stream.random(m.shape) < kept for stream, m in zip(streams, mask, strict=True)])
            if name.startswith("W")
            else mask
            for name, mask in masks.items()
        }
        _, columns["ticket accuracy"] = self.trained(runs, weights, masks)
        _, columns["random accuracy"] = self.trained(runs, weights, drawn)
        return weights, columns, masks
