"""How good the networks of a zoo are: the histogram of their accuracies, and what these depend on."""

import itertools
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from reference_experiments.datasets import WeightDataset
from reference_experiments.storage import write

__all__ = ["accuracy_table", "draw_accuracies"]

NAMED = ("optimizer", "activation", "initializer")
NUMBERS = ("learning_rate", "weight_decay", "deviation", "fraction", "epoch")


def accuracy_table(dataset: WeightDataset) -> str:
    """Table, in Markdown, of the test accuracy by each hyperparameter."""
    accuracy = dataset.columns["accuracy"]
    lines = ["| hyperparameter | value | networks | median accuracy | quartiles |", "|---|---|---|---|---|"]

    def line(name: str, value: str, chosen: np.ndarray) -> None:
        if chosen.any():
            low, middle, high = np.quantile(accuracy[chosen], (0.25, 0.5, 0.75))
            lines.append(f"| {name} | {value} | {chosen.sum()} | {middle:.3f} | {low:.3f} - {high:.3f} |")

    line("all", "", np.ones(len(accuracy), bool))
    for name in NAMED:
        for k, value in enumerate(dataset.about[f"{name}s"]):
            line(name, value, dataset.columns[name] == k)
    for name in NUMBERS:
        x = dataset.columns[name]
        values = np.unique(x)
        if len(values) < 12:
            for value in values:
                line(name, f"{value:g}", x == value)
        else:
            edges = np.quantile(x, np.linspace(0, 1, 5))
            for low, high in itertools.pairwise(edges):
                line(name, f"{low:.1e} to {high:.1e}", (x >= low) & (x <= high))
        if len(values) > 1:
            lines.append(
                f"| {name} | Spearman's ρ with accuracy | {len(x)} | {spearmanr(x, accuracy).statistic:.2f} | |"
            )
    return "\n".join(lines) + "\n"


def draw_accuracies(path: Path, dataset: WeightDataset) -> None:
    """Draw the histogram of test accuracies, by epoch."""
    epochs = dataset.columns["epoch"]
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    panel = figure.subplots()
    shown = np.unique(epochs)[[0, -1]] if len(np.unique(epochs)) > 1 else np.unique(epochs)
    for epoch in shown:
        values = dataset.columns["accuracy"][epochs == epoch]
        panel.hist(
            values, bins=np.linspace(0, 1, 41).tolist(), alpha=0.6, label=f"epoch {epoch}: {len(values)} networks"
        )
    panel.set_xlabel("test accuracy")
    panel.set_ylabel("networks")
    panel.legend()
    write(path, figure.savefig)
