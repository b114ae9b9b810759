"""First part of the quickstart: classes of digits, predicted from the weights of SIRENs, on unseen images.

The experiment ``digits`` is run, then every trained method predicts again from networks with permuted neurons.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from reference_experiments.datasets.format import WeightDataset
from reference_experiments.datasets.generation import make
from reference_experiments.experiments import EXPERIMENTS
from reference_experiments.figures import new_figure
from reference_experiments.files import read_json, write, write_json
from reference_experiments.inference import read_trained
from reference_experiments.networks.sirens import draw
from reference_experiments.runner import file_name, run

__all__ = ["classify_inrs"]

SHOWN = 6
"""Test networks in the picture."""


def classify_inrs(backend: str, scale: str, seed: int, folder: Path) -> str:
    """Make SIRENs of digits, train every method, and compare predictions before and after a permutation.

    Parameters
    ----------
    backend : str
        ``"torch"`` or ``"jax"``.
    scale : str
        A preset of the experiment ``digits``.
    seed : int
        Seed of the trainings.
    folder : pathlib.Path
        Where results, ``inrs.md`` and ``inrs.png`` go.

    Returns
    -------
    str
        A table in Markdown.
    """
    experiment = EXPERIMENTS["digits"]
    make(experiment.makers["digits"](scale, 0, backend), folder / "networks")
    dataset = WeightDataset(folder / "networks")
    run("digits", scale, backend, folder, {"digits": dataset}, experiment.methods, range(seed, seed + 1))
    test = dataset.split("test")
    features, labels = dataset.features(test), dataset.columns["label"][test]
    group = dataset.space.group("HNP")
    permuted = group.act(group.sample(seed), features)
    lines = [
        "| method | parameters | accuracy on unseen images | on training images | largest change of a probability when "
        "neurons are permuted | time (s) |",
        "|---|---|---|---|---|---|",
    ]
    guesses, some = {}, dataset.features(np.arange(1))  # what methods are normalized by is among their parameters
    for name in experiment.methods:
        result = folder / "digits" / file_name(name, seed)
        about, found = read_json(result.with_suffix(".json")), read_trained(result)
        layer = found.task.build(name, dataset.space, some, found.config).layer
        before, after = (softmax(layer.apply(found.params, u), axis=1) for u in (features, permuted))
        guesses[name] = [p[:SHOWN].argmax(axis=1).tolist() for p in (before, after)]
        share = float((before.argmax(axis=1) == labels).mean())
        error = (share * (1 - share) / len(labels)) ** 0.5
        lines.append(
            f"| {name} | {about['parameters']:,} | {100 * share:.1f} ± {100 * error:.1f} % "
            f"| {about['metrics']['train_accuracy']:.1f} % | {np.abs(after - before).max():.1e} | {about['seconds']:.0f} |"
        )
    lines += [
        "",
        f"{len(labels)} SIRENs of {len(labels)} unseen images; ± is the standard error over them; one seed.",
        "",
    ]
    table = "\n".join(lines)
    write(folder / "inrs.md", lambda path: path.write_text(table))
    write_json(folder / "inrs.json", guesses)
    _picture(folder / "inrs.png", features, permuted, guesses)
    return table


def _picture(path: Path, features: Any, permuted: Any, guesses: dict[str, list[list[int]]]) -> None:
    """Images of test networks, their W2 before and after a permutation, and each method's predictions."""
    images = draw({name: x[:SHOWN] for name, x in features.items()}, 16, 16)
    figure = new_figure(2 * len(images), 6.4)
    for k, panels in enumerate(figure.subplots(3, len(images)).T):
        weights = [u["W2"][k, ..., 0] for u in (features, permuted)]
        show = partial(panels[0].imshow, cmap="gray", vmin=-1, vmax=1)
        show(images[k, ..., 0])
        for panel, matrix, column, title in zip(
            panels[1:], weights, (0, 1), ("W2", "W2, neurons permuted"), strict=True
        ):
            panel.imshow(matrix, cmap="RdBu", vmin=-0.2, vmax=0.2)
            panel.set_title(title, fontsize=9)
            panel.set_xlabel("\n".join(f"{name}: {found[column][k]}" for name, found in guesses.items()), fontsize=8)
        for panel in panels:
            panel.set(xticks=[], yticks=[])
    write(path, figure.savefig)
