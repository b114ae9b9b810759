"""Figures, drawn with matplotlib without a display."""

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reference_experiments.files import write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "draw_confusion",
    "draw_curves",
    "draw_edit",
    "draw_edits",
    "draw_permutation",
    "draw_predictions",
    "draw_scatter",
    "draw_scores",
    "new_figure",
    "to_png",
]


def new_figure(width: float, height: float) -> "Figure":
    """Empty figure; width and height are in inches."""
    from matplotlib.figure import Figure  # slow to load, as all of matplotlib is

    return Figure(figsize=(width, height), layout="constrained")


def draw_predictions(path: Path, actual: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> None:
    """Predicted against actual accuracy: a row of panels for each zoo, one panel a method.

    Parameters
    ----------
    path : Path
        File to write.
    actual : mapping of str to array
        For each zoo the held-out networks' accuracies.
    results : sequence of mapping
        Rows of the table, with keys zoo, method, tau and predicted.
    """
    columns = len(results) // len(actual)
    figure = new_figure(2.6 * columns, 2.9 * len(actual))
    panels = figure.subplots(len(actual), columns, sharex=True, sharey=True, squeeze=False)
    for panel, result in zip(panels.flat, results, strict=True):
        panel.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        panel.plot(actual[result["zoo"]], result["predicted"], ".", markersize=3, alpha=0.6)
        panel.set_title(f"{result['method']}\n{result['zoo']}, τ = {result['tau']:.3f}", fontsize=9)
    figure.supxlabel("test_accuracy")
    figure.supylabel("predicted from the weights")
    write(path, figure.savefig)


def draw_permutation(path: Path, before: np.ndarray, after: np.ndarray, captions: Sequence[str]) -> None:
    """One weight matrix, shape (n_i, n_{i-1}), before and after a permutation of its neurons, with captions below."""
    figure = new_figure(8, 4.6)
    limit = np.abs(before).max()
    titles = ("W2 as trained", "W2 with permuted neurons: the same function")
    for panel, matrix, title, caption in zip(figure.subplots(1, 2), (before, after), titles, captions, strict=True):
        image = panel.imshow(matrix, cmap="RdBu", vmin=-limit, vmax=limit)
        panel.set_title(title, fontsize=10)
        panel.set_xlabel(caption)
    figure.colorbar(image, ax=figure.axes, shrink=0.7)
    write(path, figure.savefig)


def draw_curves(path: Path, runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Loss of the training and metric of the validation networks over the steps, one line a method and seed."""
    from matplotlib import colormaps

    figure = new_figure(12, 3.6)
    panels = figure.subplots(1, 2)
    colors = colormaps["tab10" if len(runs) <= 10 else "tab20"]
    for k, (method, results) in enumerate(runs.items()):
        for result in results:
            steps = [evaluation["step"] for evaluation in result["curve"]]
            for panel, key in zip(panels, ("loss", "metric"), strict=True):
                values = [evaluation[key] for evaluation in result["curve"]]
                panel.plot(steps, values, color=colors(k), label=method if result is results[0] else None, alpha=0.8)
    for panel, title in zip(panels, ("training loss", "validation metric"), strict=True):
        panel.set_xlabel("step")
        panel.set_ylabel(title)
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    write(path, figure.savefig)


def draw_scatter(path: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Predicted against actual test accuracy, one panel a method."""
    figure = new_figure(3 * len(results), 3.2)
    for panel, (method, result) in zip(
        figure.subplots(1, len(results), squeeze=False)[0], results.items(), strict=True
    ):
        panel.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        panel.plot(result["details"]["actual"], result["details"]["predicted"], ".", markersize=3, alpha=0.5)
        panel.set_title(f"{method}, seed {result['seed']}: τ = {result['metrics']['test_tau']:.3f}", fontsize=9)
    figure.supxlabel("test_accuracy")
    figure.supylabel("predicted from the weights")
    write(path, figure.savefig)


def draw_confusion(path: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
    """How often each class (row) is taken for each other (column), one panel a method, at most five side by side."""
    from sklearn.metrics import confusion_matrix  # slow to load

    rows, columns = -(-len(results) // 5), min(len(results), 5)
    figure = new_figure(2.6 * columns, 3 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in panels[len(results) :]:
        panel.set_axis_off()
    for panel, (method, result) in zip(panels, results.items(), strict=False):
        matrix = confusion_matrix(result["details"]["actual"], result["details"]["predicted"], normalize="true")
        panel.imshow(matrix, cmap="Blues", vmin=0, vmax=1)
        panel.set_title(f"{method}\nseed {result['seed']}: {result['metrics']['test_accuracy']:.1f} %", fontsize=8)
        panel.set_xlabel("predicted")
        panel.set_ylabel("actual")
    write(path, figure.savefig)


def draw_scores(path: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Mask scores against initial weights: a row for each method, a panel for each tensor; above the line are as many as stay."""
    tensors = list(next(iter(results.values()))["details"]["scores"])
    figure = new_figure(2.8 * len(tensors), 2.6 * len(results))
    for row, (method, result) in zip(
        figure.subplots(len(results), len(tensors), squeeze=False), results.items(), strict=True
    ):
        for panel, (name, found) in zip(row, result["details"]["scores"].items(), strict=True):
            panel.axhline(found["lowest_kept"], color="0.7", linewidth=1)
            panel.plot(found["weight"], found["score"], ".", markersize=3)
            panel.set_title(f"{method}, {name}", fontsize=9)
    figure.supxlabel("initial weight")
    figure.supylabel("mask score")
    write(path, figure.savefig)


def to_png(image: np.ndarray) -> str:
    """PNG, in base64, of an image (height, width, 1 or 3) of brightness in [0, 1]; what is outside is cut off."""
    from matplotlib.image import imsave

    pixels, buffer = np.round(255 * np.clip(image, 0, 1)).astype(np.uint8), BytesIO()
    imsave(buffer, pixels if pixels.shape[2] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=255, format="png")
    return base64.b64encode(buffer.getvalue()).decode()


def draw_edits(path: Path, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Edited images: above what was there, then a row for each method, below what was to come.

    Parameters
    ----------
    path : Path
        File to write.
    results : mapping of str to mapping
        For each method its seed, its metrics, and under details, images, a sheet of `to_png` with these three rows.
    """
    from matplotlib.image import imread

    sheets = {
        name: np.split(imread(BytesIO(base64.b64decode(r["details"]["images"]))), 3) for name, r in results.items()
    }
    before, _, target = next(iter(sheets.values()))
    edited = {
        f"{n}, seed {results[n]['seed']}, error {results[n]['metrics']['test_error']:.3f}": rows[1]
        for n, rows in sheets.items()
    }
    shown = {"unedited": before, **edited, "target": target}
    figure = new_figure(6, 1.3 * len(shown))
    for panel, (title, row) in zip(figure.subplots(len(shown), 1), shown.items(), strict=True):
        panel.imshow(row)
        panel.set_axis_off()
        panel.set_title(title, fontsize=9)
    write(path, figure.savefig)


def draw_edit(path: Path, images: Sequence[np.ndarray], matrices: Sequence[np.ndarray]) -> None:
    """One network edited through its weights (the paper's Figure 3).

    Parameters
    ----------
    path : Path
        File to write.
    images : sequence of numpy.ndarray
        What it encodes before and after, each (height, width, 1 or 3) in [0, 1]; what is outside is cut off.
    matrices : sequence of numpy.ndarray
        One of its weight matrices before and after.
    """
    figure = new_figure(12, 3)
    panels, change = figure.subplots(1, 5), matrices[1] - matrices[0]
    for panel, image, title in zip(panels[::4], images, ("the INR's image", "the edited INR's image"), strict=True):
        panel.imshow(np.clip(image, 0, 1), cmap="gray", vmin=0, vmax=1)
        panel.set_title(title, fontsize=10)
    weights = {"its W2": matrices[0], "the edit of W2": change, "W2 edited": matrices[1]}
    for panel, (title, matrix) in zip(panels[1:4], weights.items(), strict=True):
        limit = np.abs(change if matrix is change else matrices[0]).max()
        figure.colorbar(panel.imshow(matrix, cmap="RdBu", vmin=-limit, vmax=limit), ax=panel, shrink=0.6)
        panel.set_title(title, fontsize=10)
    for panel in panels:
        panel.set(xticks=[], yticks=[])
    write(path, figure.savefig)
