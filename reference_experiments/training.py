"""Training a method: steps over shuffled networks, early stopping, and checkpoints from which a killed run goes on exactly."""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, softmax
from tqdm import tqdm

from nfn_core import Layer, fingerprint
from reference_experiments.engines.base import Engine, Learner, Recipe, Split
from reference_experiments.files import AGAIN, is_main_process, read_arrays, reading, write, write_arrays

__all__ = ["METRICS", "accuracy", "evenly_spaced", "fit", "predict", "rank_correlation", "subsample"]


def rank_correlation(predicted: np.ndarray, actual: np.ndarray) -> float:
    """Kendall's tau-b, 0 where all predictions are equal."""
    from scipy.stats import kendalltau  # slow to load

    tau = kendalltau(predicted, actual).statistic
    return 0.0 if np.isnan(tau) else float(tau)


def accuracy(predicted: np.ndarray, actual: np.ndarray) -> float:
    """Share of networks whose likeliest class, of (networks, classes), is the actual one."""
    return float(np.mean(predicted.argmax(axis=1) == actual))


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "binary": rank_correlation,
    "classes": accuracy,
    "custom": lambda losses, _: -float(losses.mean()),
}


PREDICTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "binary": lambda scores: expit(scores[:, 0]),
    "classes": lambda scores: softmax(scores, axis=1),
    "custom": lambda losses: losses,
}


def predict(learner: Learner, part: Split, batch: int = 64) -> np.ndarray:
    """Probabilities, or custom losses, for all networks of a split: shape (networks,) or (networks, classes)."""
    starts = range(0, len(part), batch)
    found = [learner.apply(part.inputs(np.arange(k, min(k + batch, len(part))), None)) for k in starts]
    return PREDICTIONS[learner.recipe.loss](np.concatenate(found))


def subsample(part: Split, most: int) -> Split:
    """Networks from all over a split, `most` at most."""
    kept = evenly_spaced(np.arange(len(part)), most)
    return Split(lambda chosen, rng: part.inputs(kept[chosen], rng), part.targets[kept])


def evenly_spaced(numbers: np.ndarray, most: int) -> np.ndarray:
    """Evenly spaced numbers, `most` at most: datasets come in an order."""
    chosen: np.ndarray = numbers[np.linspace(0, len(numbers) - 1, min(len(numbers), most)).astype(int)]
    return chosen


def fit(
    engine: Engine,
    name: str,
    layer: Layer,
    training: Split,
    validation: Split,
    recipe: Recipe,
    seed: int,
    folder: Path,
    enough: float = inf,
) -> tuple[Learner, list[dict[str, Any]]]:
    """Train a network, or go on where a killed run was.

    Parameters
    ----------
    engine : Engine
        Backend that trains.
    name : str
        Name of the method, for the progress bar.
    layer : Layer
        The network.
    training, validation : Split
        Networks to train on, and to stop by.
    recipe : Recipe
        How.
    seed : int
        Seed of initial parameters, dropout, augmentation and order of the networks.
    folder : pathlib.Path
        Where ``checkpoint.safetensors``, in the end ``parameters.safetensors``, and logs for TensorBoard are written.
    enough : float
        Metric of the validation networks at which training ends early.

    Returns
    -------
    Learner, list of dict
        With the parameters of the best evaluation; and for every evaluation its step, the mean loss since the one before, and the
        metric of the validation networks.

    Raises
    ------
    ExperimentError
        If the checkpoint is damaged, or of another training.
    """
    from tensorboardX import (
        SummaryWriter,  # takes all of PyTorch with it, which commands that train nothing can do without
    )

    learner = engine.learner(layer, recipe, seed)
    training_of = {"layer": fingerprint(layer), "seed": seed, "recipe": asdict(recipe)}
    curve: list[dict[str, Any]] = []
    best: dict[str, np.ndarray] = {}
    checkpoint, losses, step = folder / "checkpoint.safetensors", [], 0
    if checkpoint.exists():
        saved = read_arrays(checkpoint)
        with reading(checkpoint, "checkpoint of this training", AGAIN):
            progress = json.loads(saved.pop("progress").tobytes())
            if progress["training"] != training_of:
                raise ValueError(f"it is of {progress['training']}, but this is {training_of}")
            curve = [{key: evaluation[key] for key in ("step", "loss", "metric")} for evaluation in progress["curve"]]
            step = curve[-1]["step"]
            best = {key.removeprefix("best "): saved.pop(key) for key in list(saved) if key.startswith("best ")}
            learner.restore(best)
            learner.restore(saved)
    with (
        tqdm(total=recipe.steps, initial=step, unit="step", desc=f"  {name}", leave=False) as bar,
        SummaryWriter(str(folder), purge_step=step, write_to_disk=is_main_process()) as log,
    ):
        while step < recipe.steps and not _exhausted(curve, recipe, enough):
            chosen = _chosen(len(training), recipe.batch, seed, step)
            rng = np.random.default_rng([seed, step, 1])
            losses.append(learner.step(training.inputs(chosen, rng), training.targets[chosen], step))
            step += 1
            bar.update()
            if step % recipe.eval_every and step < recipe.steps:
                continue
            metric = METRICS[recipe.loss](predict(learner, validation), validation.targets)
            loss, losses = float(np.mean([float(x) for x in losses])), []
            if not curve or metric > max(evaluation["metric"] for evaluation in curve):
                best = learner.state()
            curve.append({"step": step, "loss": loss, "metric": metric})
            progress = np.frombuffer(json.dumps({"training": training_of, "curve": curve}).encode(), np.uint8)
            write_arrays(
                checkpoint, {**learner.state(), **{f"best {n}": x for n, x in best.items()}, "progress": progress}
            )
            for key in ("loss", "metric"):
                log.add_scalar(key, curve[-1][key], step)
            bar.set_postfix({key: f"{curve[-1][key]:.3f}" for key in ("loss", "metric")})
    learner.restore(best)
    write(folder / "parameters.safetensors", learner.save)
    return learner, curve


def _exhausted(curve: list[dict[str, Any]], recipe: Recipe, enough: float) -> bool:
    """Whether a metric is enough, or the last evaluations were no better than the best before them."""
    metrics = [evaluation["metric"] for evaluation in curve]
    patient = recipe.patience is None or len(metrics) - 1 - int(np.argmax(metrics or [0])) < recipe.patience
    return max(metrics, default=-inf) >= enough or not patient


def _chosen(count: int, batch: int, seed: int, step: int) -> np.ndarray:
    """Positions of a step's networks: each epoch has its own order, of which what does not fill a batch is left out."""
    per_epoch = max(1, count // batch)
    start = step % per_epoch * batch
    return _order(count, seed, step // per_epoch)[start : start + batch]


@lru_cache(1)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, epoch]).permutation(count)
