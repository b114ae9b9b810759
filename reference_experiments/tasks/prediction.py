"""Prediction of a number or a class from a network's weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nfn_core import WeightSpace
from reference_experiments.datasets.format import WeightDataset
from reference_experiments.engines.base import Learner, Split
from reference_experiments.figures import draw_confusion, draw_scatter
from reference_experiments.files import ExperimentError
from reference_experiments.methods.base import Method, MethodConfig
from reference_experiments.methods.registry import build
from reference_experiments.sources.images import load_all_images
from reference_experiments.tasks.base import Result, metric_splits
from reference_experiments.training import accuracy, predict, rank_correlation

__all__ = ["Prediction", "tau_upper_bound"]


POINTS = 1024
"""Points of a surface that PointNet sees."""


CHANCE = 0.11
"""Accuracy, of ten classes, above which a network has learned something: two standard errors of 5,000 images over 0.1."""


@dataclass(frozen=True)
class Prediction:
    """A number in [0, 1], or a class, is predicted from the weights of a network.

    Parameters
    ----------
    column : str
        Column of the dataset that is predicted.
    outputs : int
        1 for a number, or the number of classes.
    """

    column: str
    outputs: int = 1

    @property
    def metric(self) -> str:
        """Kendall's τ, or the accuracy."""
        return "test_tau" if self.outputs == 1 else "test_accuracy"

    def build(self, name: str, space: WeightSpace, features: Mapping[str, np.ndarray], config: MethodConfig) -> Method:
        """Build a method with as many outputs."""
        return build(name, space, features, self.outputs, config)

    def split(self, method: Method, dataset: WeightDataset, index: np.ndarray) -> Split:
        """Return networks, or the images or points of shapes behind them, with the targets."""
        targets = dataset.columns[self.column][index].astype(np.float32 if self.outputs == 1 else np.int64)
        if method.sees == "weights":
            return method.split(lambda chosen: dataset.features(index[chosen]), targets)
        column, source = {"images": ("image", "images"), "points": ("shape", "shapes")}[method.sees]
        if column not in dataset.columns or source not in dataset.about:
            raise ExperimentError(
                f"{method.name} takes {method.sees}, but {dataset.folder} is not of INRs of {source}: leave it out."
            )
        numbers = dataset.columns[column][index]
        if method.sees == "images":
            images = load_all_images(dataset.about["images"])[0]
            return Split(lambda chosen, rng: images[numbers[chosen]].astype(np.float32) / 255, targets)
        from reference_experiments.sources.shapes import load_shapes  # slow to load

        found = load_shapes(dataset.about["shapes"], dataset.about["seed"])
        clouds = [found.read(n).surface(np.random.default_rng(n), POINTS) for n in numbers.tolist()]
        points = np.stack(clouds).astype(np.float32)
        return Split(lambda chosen, rng: points[chosen], targets)

    def evaluate(self, learner: Learner, splits: Mapping[str, Split], folder: Path) -> Result:
        """Compare predictions with targets."""
        from sklearn.metrics import r2_score  # slow to load

        metrics: dict[str, float] = {}
        for name, part in metric_splits(splits).items():
            predicted = predict(learner, part)
            if self.outputs > 1:
                metrics[f"{name}_accuracy"] = 100 * accuracy(predicted, part.targets)
                predicted = predicted.argmax(axis=1)
            else:
                metrics |= {f"{name}_tau": rank_correlation(predicted, part.targets)}
                metrics |= {f"{name}_r2": float(r2_score(part.targets, predicted))}
        if self.outputs == 1:
            learned = part.targets > CHANCE
            metrics["test_tau_above_chance"] = rank_correlation(predicted[learned], part.targets[learned])
            metrics["tau_upper_bound"] = tau_upper_bound(part.targets)
        details = {"actual": part.targets.round(4).tolist(), "predicted": predicted.round(4).tolist()}
        return Result(metrics, details=details)

    def draw(self, path: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
        """Draw predictions against targets, or the confusion of classes."""
        (draw_confusion if self.outputs > 1 else draw_scatter)(path, results)


def tau_upper_bound(actual: np.ndarray) -> float:
    """Kendall's tau-b of a perfect ranking without ties: below 1 where targets are tied."""
    return rank_correlation(np.argsort(np.argsort(actual, kind="stable")), actual)
