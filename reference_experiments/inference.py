"""Trained methods applied to a user's networks, on the host: neither PyTorch nor JAX is needed."""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nfn_core import WeightSpace, load_parameters
from nfn_core.arrays import Array
from nfn_core.layers.parameters import check_parameters
from reference_experiments.datasets.conversion import read_networks
from reference_experiments.datasets.format import WeightDataset, space_from_json
from reference_experiments.engines.base import Recipe, rows
from reference_experiments.experiments import EXPERIMENTS
from reference_experiments.figures import draw_edit
from reference_experiments.files import ExperimentError, held, read_json, reading, write, write_arrays
from reference_experiments.methods.base import Method, MethodConfig
from reference_experiments.networks.sirens import draw
from reference_experiments.tasks.base import Task
from reference_experiments.tasks.editing import Editing
from reference_experiments.tasks.prediction import Prediction
from reference_experiments.training import PREDICTIONS

__all__ = ["FORMATS", "Trained", "edit", "predict", "read_trained"]

FORMATS = ("safetensors", "state-dicts")
BATCH = 64


@dataclass(frozen=True)
class Trained:
    """A method that `run` has trained: its name, task, networks' space, widths, recipe and parameters.

    Of an editor also height and width of its images.
    """

    name: str
    task: Task
    space: WeightSpace
    config: MethodConfig
    recipe: Recipe
    params: dict[str, Array]
    pixels: list[int]


@dataclass(frozen=True)
class Source:
    """A user's networks: their titles, what they call each tensor of the space, and features by positions."""

    titles: list[str]
    names: dict[str, str]
    features: Callable[[np.ndarray], dict[str, np.ndarray]]


def edit(trained: Path, networks: Path, output: Path, form: str, split: str | None = None, check: bool = True) -> int:
    """Edit networks with a trained editor, and draw the first one's edit.

    Parameters
    ----------
    trained : pathlib.Path
        Folder of the editor's parameters, ``RESULTS/DATASET/METHOD-seedN``, beside its result ``METHOD-seedN.json``.
    networks : pathlib.Path
        A dataset of networks, or a folder as `read_networks` takes it.
    output : pathlib.Path
        Folder of the edited networks, which have the names, and tensors' names, of the networks; and of ``edit.png``.
    form : str
        One of `FORMATS`.
    split : str, optional
        Only this split of a dataset.
    check : bool
        Whether to compare a dataset with its checksums.

    Returns
    -------
    int
        Number of networks.

    Raises
    ------
    ExperimentError
        If there is no such editor, or the networks are of another architecture, damaged, not finite, or in the output's
        folder.
    MissingDependencyError
        If state dicts are asked for without PyTorch.
    """
    if output.resolve() == networks.resolve():
        raise ExperimentError(f"the edited networks would replace those in {networks}: name another folder.")
    found, source, method = _read(trained, networks, split, Editing, check)
    save: Callable[[Path, dict[str, np.ndarray]], None]
    save, ending = write_arrays, ".safetensors"
    if form == "state-dicts":
        from reference_experiments.networks.torch import write_state_dict  # needs torch

        save, ending = write_state_dict, ".pth"
    with held(output):
        for start, features, edited in _applied(method, found, source):
            if start == 0:
                images = [0.5 + 0.5 * draw(rows(u, slice(1)), *found.pixels)[0] for u in (features, edited)]
                draw_edit(output / "edit.png", images, [u["W2"][0, ..., 0] for u in (features, edited)])
            for k, title in enumerate(source.titles[start : start + BATCH]):
                save(output / (title + ending), {own: edited[name][k, ..., 0] for name, own in source.names.items()})
    return len(source.titles)


def predict(trained: Path, networks: Path, output: Path, split: str | None = None, check: bool = True) -> int:
    """Write a table of what a trained method predicts for networks.

    Parameters
    ----------
    trained, networks, split, check : see `edit`
        As there.
    output : pathlib.Path
        CSV file: for each network its name and the prediction, of classes the likeliest and the probability of each.

    Returns
    -------
    int
        Number of networks.

    Raises
    ------
    ExperimentError
        As in `edit`, or if the method needs more than weights and its parameters.
    """
    found, source, method = _read(trained, networks, split, Prediction, check)
    if method.sees != "weights" or method.summary is not None or method.autoencoder is not None:
        raise ExperimentError(
            f"{found.name} needs more than weights and parameters: take a neural functional or an MLP."
        )
    outputs = np.concatenate([out for _, _, out in _applied(method, found, source)])
    predicted = PREDICTIONS[found.recipe.loss](outputs)
    header, lines = ["network", "prediction"], predicted[:, None].tolist()
    if predicted.ndim == 2:
        header += [f"probability_{k}" for k in range(predicted.shape[1])]
        lines = [[int(row.argmax()), *row.tolist()] for row in predicted]

    def save(path: Path) -> None:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([header, *([t, *row] for t, row in zip(source.titles, lines, strict=True))])

    write(output, save)
    return len(source.titles)


def _read(
    trained: Path, networks: Path, split: str | None, kind: type[Task], check: bool
) -> tuple[Trained, Source, Method]:
    """A method that was trained for one kind of task, a user's networks, and the method's network."""
    found = read_trained(trained)
    if not isinstance(found.task, kind):
        names = " or ".join(name for name, experiment in EXPERIMENTS.items() if isinstance(experiment.task, kind))
        raise ExperimentError(f"{trained} was trained for something else: expected a method of `run` {names}.")
    source = _read_source(networks, found.space, split, check)
    for start in range(0, len(source.titles), BATCH):
        chosen = np.arange(start, min(start + BATCH, len(source.titles)))
        _check_finite(source.features(chosen), source.titles[start : start + BATCH], f"networks of {networks}")
    with reading(trained / "parameters.safetensors", f"file of parameters of {found.name}", "run the experiment again"):
        method = found.task.build(found.name, found.space, source.features(np.arange(1)), found.config)
        check_parameters(method.layer.cached_specs, found.params)
    return found, source, method


def read_trained(folder: Path) -> Trained:
    """Read a method that `run` has trained.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of its parameters, as in `edit`.

    Returns
    -------
    Trained
        The method.

    Raises
    ------
    ExperimentError
        If the folder is of no trained method, damaged, or of another version.
    """
    result, parameters = folder.resolve().with_suffix(".json"), folder / "parameters.safetensors"
    if not result.exists() or not parameters.exists():
        raise ExperimentError(
            f"{folder} is no trained method: expected {parameters} and {result}, which `run` writes in the end."
        )
    about = read_json(result, unsealed=True)
    with reading(result, "result of `run` of this version", "run the experiment again"):
        experiment = EXPERIMENTS[about["experiment"]]
        pixels = [int(x) for x in about["details"].get("pixels", [])]
        if isinstance(experiment.task, Editing) and (len(pixels) != 2 or min(pixels) < 1):
            raise ValueError(f"an editor's images have height and width, not {pixels}")
        return Trained(
            experiment.variant(about["method"]).method,
            experiment.task,
            space_from_json(about["data"]["space"]),
            MethodConfig.from_settings(about["config"]),
            Recipe(**about["recipe"]),
            load_parameters(parameters)[1],
            pixels,
        )


def _read_source(folder: Path, space: WeightSpace, split: str | None, check: bool) -> Source:
    """Networks of the space a method was trained on."""
    if not (folder / "dataset.json").exists():
        if split is not None:
            raise ExperimentError(f"{folder} is no dataset, so it has no splits: leave the split out.")
        titles, names, weights = read_networks(folder, space)
        return Source(titles, names, lambda chosen: {name: x[chosen, ..., None] for name, x in weights.items()})
    dataset = WeightDataset(folder, check)
    if dataset.space != space:
        wanted, came = ({t.name: t.shape for t in s.tensors} for s in (space, dataset.space))
        raise ExperimentError(f"{folder}: expected networks with tensors of shapes {wanted}, but {came} came.")
    index = np.arange(len(dataset)) if split is None else dataset.split(split)
    if not len(index):
        raise ExperimentError(f"{folder} has no {split} networks: choose another split.")
    titles = [f"network-{number:06}" for number in index.tolist()]
    return Source(titles, {name: name for name in space.by_name}, lambda chosen: dataset.features(index[chosen]))


def _applied(method: Method, found: Trained, source: Source) -> Iterator[tuple[int, Any, Any]]:
    """Yield, for batches of networks, the first one's position, what the method takes, and what it gives.

    What the method was normalized by when it was trained is among its parameters.
    """
    part = method.split(source.features, np.zeros(len(source.titles)))
    for start in tqdm(range(0, len(part), BATCH), unit="batch", desc=found.name, leave=False):
        inputs = part.inputs(np.arange(start, min(start + BATCH, len(part))), None)
        outputs = method.layer.apply(found.params, inputs)
        _check_finite(outputs, source.titles[start : start + BATCH], f"outputs of {found.name} for networks")
        yield start, inputs, outputs


def _check_finite(found: Any, titles: Sequence[str], what: str) -> None:
    """See that all numbers of networks, arrays (networks, ...) or one of them, are finite."""
    arrays = found.values() if isinstance(found, Mapping) else [found]
    finite = np.all([np.isfinite(x).reshape(len(titles), -1).all(axis=1) for x in arrays], axis=0)
    if not finite.all():
        wrong = [title for title, whole in zip(titles, finite.tolist(), strict=True) if not whole]
        raise ExperimentError(f"{what} {', '.join(wrong)} hold NaN or infinity: take these networks out.")
