"""Training a predictor: epochs over shuffled networks, and the parameters of the best validation epoch."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau
from tqdm import tqdm

from reference_experiments.engines import Engine, Inputs, Learner, rows
from reference_experiments.predictors import Method

__all__ = ["Schedule", "fit"]


@dataclass(frozen=True)
class Schedule:
    """How to train: AdamW, binary cross-entropy, early stopping by Kendall's tau (section D.1)."""

    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float


def fit(
    engine: Engine,
    method: Method,
    training: tuple[Inputs, np.ndarray],
    validation: tuple[Inputs, np.ndarray],
    schedule: Schedule,
    seed: int,
    path: Path,
) -> Learner:
    """Train a method on prepared inputs.

    Parameters
    ----------
    engine : Engine
        Backend that trains.
    method : Method
        Its layer is trained.
    training, validation : tuple
        Prepared inputs and targets, shape (networks,).
    schedule : Schedule
        Length and optimiser.
    seed : int
        Seed of initial parameters, dropout and order of the networks.
    path : Path
        Where the best parameters are written.

    Returns
    -------
    Learner
        With the parameters of the epoch that ranks the validation networks best.
    """
    rng = np.random.default_rng(seed)
    learner = engine.learner(method.layer, seed, schedule.learning_rate, schedule.weight_decay)
    (inputs, targets), best = training, -2.0
    steps = len(targets) // schedule.batch
    with tqdm(total=schedule.epochs * steps, unit="step", desc=f"  {method.name}", leave=False) as bar:
        for _ in range(schedule.epochs):
            order = rng.permutation(len(targets))[: steps * schedule.batch]
            for chosen in order.reshape(steps, schedule.batch):
                learner.step(rows(inputs, chosen), targets[chosen])
                bar.update()
            tau = rank_correlation(learner.predict(validation[0]), validation[1])
            bar.set_postfix({"validation tau": f"{tau:.3f}", "best": f"{max(best, tau):.3f}"})
            if tau > best:
                best = tau
                learner.save(path)
    learner.load(path)
    return learner


def rank_correlation(predicted: np.ndarray, actual: np.ndarray) -> float:
    """Kendall's tau-b, 0 where all predictions are equal."""
    tau = kendalltau(predicted, actual).statistic
    return 0.0 if np.isnan(tau) else float(tau)
