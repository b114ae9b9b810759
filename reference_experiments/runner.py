"""Run an experiment: make or read its datasets, train every method with every seed, and write a result file for each."""

import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nfn_core import __version__
from reference_experiments.datasets.format import SPLITS, WeightDataset
from reference_experiments.datasets.generation import make
from reference_experiments.engines.base import Engine, engine, surroundings
from reference_experiments.experiments.base import EXPERIMENTS, Experiment
from reference_experiments.files import ExperimentError, claim, write_json
from reference_experiments.methods.inr2vec import embedded
from reference_experiments.methods.registry import Method
from reference_experiments.training import Part, Recipe, fit, some, spread

__all__ = ["MEMORIZED", "dataset_of", "run"]

MEMORIZED = 64
"""Networks that every method is to learn by heart before it is trained in earnest."""
NORMALIZING = 2000
"""Training networks, at most, that the inputs are normalised by."""


def dataset_of(experiment: str, name: str, scale: str, backend: str, folder: Path | None) -> WeightDataset:
    """Dataset of an experiment: in the folder given, or made where ``make`` would put it."""
    if folder is None:
        folder = Path("datasets") / f"{experiment}-{name}-{backend}-{scale}"
        make(EXPERIMENTS[experiment].makers[name](scale, 0, backend), folder, os.cpu_count() or 1)
    return WeightDataset(folder)


def run(
    name: str,
    scale: str,
    backend: str,
    output: Path,
    data: Mapping[str, WeightDataset],
    methods: tuple[str, ...],
    seeds: range,
) -> None:
    """Run an experiment, or what an interrupted run left undone.

    Parameters
    ----------
    name : str
        One of `EXPERIMENTS`.
    scale : str
        One of its scales.
    backend : str
        ``"torch"`` or ``"jax"``.
    output : pathlib.Path
        Where results go: ``DATASET/METHOD-seedN.json``.
    data : mapping of str to WeightDataset
        Datasets by the paper's name.
    methods : tuple of str
        Methods to train.
    seeds : range
        Seeds to train them with.

    Raises
    ------
    ExperimentError
        If the folder holds results of other settings or data, or a file in it is damaged.
    """
    experiment, library = EXPERIMENTS[name], engine(backend)
    chosen = experiment.scales[scale]
    for title, dataset in data.items():
        folder = output / title
        about: dict[str, Any] = {"experiment": name, "scale": scale, "backend": backend, "version": __version__}
        about["sizes"] = asdict(chosen.sizes)
        claim(folder, about | {"data": _checksum(dataset)})
        splits = {split: dataset.split(split) for split in SPLITS}
        for split, index in splits.items():
            if not len(index):
                raise ExperimentError(
                    f"{dataset.folder} has no {split} networks, which an experiment needs: make it with more networks."
                )
        features = dataset.features(spread(splits["training"], NORMALIZING))
        for method_name in tqdm(methods, unit="method", desc=f"{name} {title}"):
            paths = {seed: folder / f"{method_name}-seed{seed}.json".replace(" ", "-") for seed in seeds}
            todo = {seed: path for seed, path in paths.items() if not path.exists()}
            if not todo:
                continue
            method = experiment.task.build(method_name, dataset.space, features, chosen.sizes)
            parts = {split: experiment.task.part(method, dataset, index) for split, index in splits.items()}
            for seed, path in todo.items():
                found = _train(library, method, experiment, chosen.recipe, parts, seed, path.with_suffix(""))
                write_json(path, about | {"dataset": title, "data": _describe(dataset)} | found, indent=None)


def _train(
    library: Engine,
    method: Method,
    experiment: Experiment,
    recipe: Recipe,
    parts: Mapping[str, Part],
    seed: int,
    folder: Path,
) -> dict[str, Any]:
    """Train a method with one seed and measure it."""
    began = time.perf_counter()
    if method.autoencoder is not None:
        parts = embedded(library, method.autoencoder, parts, recipe, seed, folder / "embedding")
    few = some(parts["training"], MEMORIZED)
    brief = replace(
        recipe, steps=min(recipe.steps, 1000), batch=min(recipe.batch, 16), warmup=0, cosine=False, every=100
    )
    memorized: float | None = None
    if seed == 0 and recipe.loss != "own":  # nobody knows how far a loss of its own can fall
        _, looks = fit(
            library, f"{method.name}, {MEMORIZED} networks", method.layer, few, few, brief, seed, folder / "few"
        )
        memorized = max(look["metric"] for look in looks)
    learner, curve = fit(
        library,
        f"{method.name}, seed {seed}",
        method.layer,
        parts["training"],
        parts["validation"],
        recipe,
        seed,
        folder,
    )
    return {
        "method": method.name,
        "seed": seed,
        "parameters": method.parameters,
        "recipe": asdict(recipe),
        "memorized": memorized,
        "curve": curve,
        **experiment.task.measure(learner, parts, folder),
        "seconds": time.perf_counter() - began,
        "made with": surroundings(library),
    }


def _describe(dataset: WeightDataset) -> dict[str, Any]:
    """What networks a result is of."""
    about, counts = dataset.about, {split: len(dataset.split(split)) for split in SPLITS}
    keep = ("dataset", "space", "images", "shapes", "architecture", "scale", "seed", "backend", "sources", "quality")
    return {key: about[key] for key in keep if key in about} | {"networks": counts, "sha256": _checksum(dataset)}


def _checksum(dataset: WeightDataset) -> str:
    """SHA-256 of the shards' own, whatever else ``dataset.json`` says."""
    return hashlib.sha256("".join(shard["sha256"] for shard in dataset.about["shards"]).encode()).hexdigest()
