"""How good the networks of datasets are: accuracies of a zoo and what they depend on; a page of many datasets."""

import itertools
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from reference_experiments.datasets.format import WeightDataset
from reference_experiments.figures import new_figure
from reference_experiments.files import write
from reference_experiments.sources.splits import SPLITS

__all__ = ["accuracy_table", "draw_accuracies", "summarize"]

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
    from scipy.stats import spearmanr  # slow to load

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
    figure = new_figure(6, 3.2)
    panel = figure.subplots()
    shown = np.unique(epochs)[[0, -1]] if len(np.unique(epochs)) > 1 else np.unique(epochs)
    for epoch in shown:
        values = dataset.columns["accuracy"][epochs == epoch]
        panel.hist(
            values, bins=np.linspace(0, 1, 41).tolist(), alpha=0.6, label=f"epoch {epoch}: {len(values)} networks"
        )
    panel.set_xlabel("test_accuracy")
    panel.set_ylabel("networks")
    panel.legend(loc="upper right")  # the best place is searched for, and a slow search is warned of
    write(path, figure.savefig)


def summarize(folders: Sequence[Path], output: Path) -> str:
    """Copy the headers, tables and figures of datasets, without their networks, and write a page of them.

    Parameters
    ----------
    folders : sequence of pathlib.Path
        Finished datasets; each is named after its folder.
    output : pathlib.Path
        Where ``README.md`` and a folder for each dataset go.

    Returns
    -------
    str
        The page.
    """
    lines = ["# Datasets of networks", "", "Headers with checksums, tables and figures; the networks are made again by"]
    lines += [
        "`python -m reference_experiments make` with the settings in each `dataset.json`, to the same bytes on the same"
    ]
    lines += [
        "kind of machine.",
        "",
        "| dataset | of | training, validation, test networks | quality | minimum, median, maximum |",
    ]
    lines.append("|---|---|---|---|---|")
    for folder in folders:
        dataset = WeightDataset(folder)
        for path in (folder / "dataset.json", *sorted(folder.glob("*.md")), *sorted(folder.glob("*.png"))):
            write(output / folder.name / path.name, partial(shutil.copyfile, path))
        counts = ", ".join(str(len(dataset.split(split))) for split in SPLITS)
        about = dataset.about
        of = ", ".join(str(about[key]) for key in ("images", "shapes", "architecture") if key in about)
        for name, found in about["quality"].items():
            quantiles = ", ".join(f"{found[key]:.4g}" for key in ("minimum", "median", "maximum"))
            lines.append(
                f"| [{folder.name}]({folder.name}) | {about['dataset']}: {of} | {counts} | {name} | {quantiles} |"
            )
    page = "\n".join([*lines, ""])
    write(output / "README.md", lambda path: path.write_text(page))
    return page
