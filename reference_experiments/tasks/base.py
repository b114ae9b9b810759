"""What experiments ask of networks: a number or a class to be told from the weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from sklearn.metrics import r2_score

from nfn_core import WeightSpace
from reference_experiments.datasets.format import WeightDataset
from reference_experiments.engines.base import Learner
from reference_experiments.figures import draw_confusion, draw_scatter
from reference_experiments.files import ExperimentError
from reference_experiments.methods.registry import Method, Sizes, build
from reference_experiments.networks.sirens import every_image
from reference_experiments.sources.shapes import load_shapes
from reference_experiments.training import Part, accuracy, predict, rank_correlation, some

__all__ = ["Task", "Telling", "ceiling", "measured"]

MEASURED = 2000
"""Training networks, at most, whose predictions give the training metric."""
POINTS = 1024
"""Points of a surface that PointNet sees."""
CHANCE = 0.11
"""Accuracy, of ten classes, above which a network has learned something: two standard errors of 5,000 images over 0.1."""


class Task(Protocol):
    """What a method is built for, trained on and measured by."""

    @property
    def metric(self) -> str:
        """The metric that methods are compared by."""

    def build(self, name: str, space: WeightSpace, features: Mapping[str, np.ndarray], sizes: Sizes) -> Method:
        """Build a method, normalised by features of training networks, each (networks, *axes, 1)."""

    def part(self, method: Method, dataset: WeightDataset, index: np.ndarray) -> Part:
        """Networks of a split as a method takes them."""

    def measure(self, learner: Learner, parts: Mapping[str, Part], folder: Path) -> dict[str, Any]:
        """Measure a trained method on all splits: its ``"metrics"``, and what figures are drawn of.

        There may be ``"each"``, a metric's values for all test networks, over which its error is then taken;
        ``"beside"``, metrics of what was not trained here, by name; and ``"notes"`` for the report. Files that are to
        stay go into the folder.
        """

    def draw(self, path: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
        """Draw what `measure` gave for each of several methods."""


@dataclass(frozen=True)
class Telling:
    """A number in [0, 1], or a class, is told from the weights of a network.

    Parameters
    ----------
    column : str
        Column of the dataset that is told.
    outputs : int
        1 for a number, or the number of classes.
    """

    column: str
    outputs: int = 1

    @property
    def metric(self) -> str:
        """Kendall's τ, or the accuracy."""
        return "test τ" if self.outputs == 1 else "test accuracy"

    def build(self, name: str, space: WeightSpace, features: Mapping[str, np.ndarray], sizes: Sizes) -> Method:
        """Build a method with as many outputs."""
        return build(name, space, features, self.outputs, sizes)

    def part(self, method: Method, dataset: WeightDataset, index: np.ndarray) -> Part:
        """Return networks, or the images or points of shapes behind them, with what is to be told."""
        targets = dataset.columns[self.column][index].astype(np.float32 if self.outputs == 1 else np.int64)
        if method.sees == "weights":
            return method.part(lambda chosen: dataset.features(index[chosen]), targets)
        column, source = {"images": ("image", "images"), "points": ("shape", "shapes")}[method.sees]
        if column not in dataset.columns or source not in dataset.about:
            raise ExperimentError(
                f"{method.name} looks at {method.sees}, but {dataset.folder} is not of INRs of {source}: leave it out."
            )
        numbers = dataset.columns[column][index]
        if method.sees == "images":
            images = every_image(dataset.about["images"])[0]
            return Part(lambda chosen, rng: images[numbers[chosen]].astype(np.float32) / 255, targets)
        found = load_shapes(dataset.about["shapes"], dataset.about["seed"])
        clouds = [found.read(n).surface(np.random.default_rng(n), POINTS) for n in numbers.tolist()]
        points = np.stack(clouds).astype(np.float32)
        return Part(lambda chosen, rng: points[chosen], targets)

    def measure(self, learner: Learner, parts: Mapping[str, Part], folder: Path) -> dict[str, Any]:
        """Compare what is told with what is so."""
        metrics: dict[str, float] = {}
        for name, part in measured(parts).items():
            predicted = predict(learner, part)
            if self.outputs > 1:
                metrics[f"{name} accuracy"] = 100 * accuracy(predicted, part.targets)
                predicted = predicted.argmax(axis=1)
            else:
                metrics |= {f"{name} τ": rank_correlation(predicted, part.targets)}
                metrics |= {f"{name} R²": float(r2_score(part.targets, predicted))}
        if self.outputs == 1:
            learned = part.targets > CHANCE
            metrics["test τ above chance"] = rank_correlation(predicted[learned], part.targets[learned])
            metrics["ceiling of test τ"] = ceiling(part.targets)
        return {"metrics": metrics, "actual": part.targets.round(4).tolist(), "predicted": predicted.round(4).tolist()}

    def draw(self, path: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
        """Draw what was told against what is so, or which classes were taken for which."""
        (draw_confusion if self.outputs > 1 else draw_scatter)(path, results)


def measured(parts: Mapping[str, Part]) -> dict[str, Part]:
    """What metrics are taken of, by the name they have in it: some training networks, all of the other splits."""
    return {"train": some(parts["training"], MEASURED), "validation": parts["validation"], "test": parts["test"]}


def ceiling(actual: np.ndarray) -> float:
    """Kendall's tau-b of a perfect ranking without ties: below 1 where targets are tied."""
    return rank_correlation(np.argsort(np.argsort(actual, kind="stable")), actual)
