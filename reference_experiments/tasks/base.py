"""What a task is, and what evaluating a trained method on it gives."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nfn_core import WeightSpace
from reference_experiments.datasets.format import WeightDataset
from reference_experiments.engines.base import Learner, Split
from reference_experiments.methods.base import Method, MethodConfig
from reference_experiments.training import subsample

__all__ = ["Result", "Task", "metric_splits"]


METRIC_NETWORKS = 2000
"""Training networks, at most, whose predictions give the training metric."""


@dataclass(frozen=True)
class Result:
    """Evaluation of a trained method on all splits.

    Parameters
    ----------
    metrics : dict of str to float
        Metrics by name, ``"test_tau"`` for instance; accuracies in percent.
    per_network : dict of str to list of float
        A metric's values for all test networks, over which its error is then taken.
    baselines : dict of str to dict
        What was not trained here: for each name ``"metrics"`` and ``"per_network"``.
    notes : list of str
        Sentences for the report.
    details : dict of str to object
        What figures are drawn of, and what `reference_experiments.inference` needs.
    """

    metrics: dict[str, float]
    per_network: dict[str, list[float]] = field(default_factory=dict)
    baselines: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)


class Task(Protocol):
    """What a method is built for, trained on and evaluated by."""

    @property
    def metric(self) -> str:
        """The metric that methods are compared by."""

    def build(self, name: str, space: WeightSpace, features: Mapping[str, np.ndarray], config: MethodConfig) -> Method:
        """Build a method, normalized by features of training networks, each (networks, *axes, 1)."""

    def split(self, method: Method, dataset: WeightDataset, index: np.ndarray) -> Split:
        """Networks of a split as a method takes them."""

    def evaluate(self, learner: Learner, splits: Mapping[str, Split], folder: Path) -> Result:
        """Evaluate a trained method on all splits; files that are to stay go into the folder."""

    def draw(self, path: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
        """Draw the results of several methods, each as the runner writes it."""


def metric_splits(splits: Mapping[str, Split]) -> dict[str, Split]:
    """Splits that metrics are taken of, by their name in it: some training networks, and all of the other splits."""
    return {
        "train": subsample(splits["training"], METRIC_NETWORKS),
        "validation": splits["validation"],
        "test": splits["test"],
    }
