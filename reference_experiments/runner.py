"""Run an experiment: make or read its datasets, train every method with every seed, and write a result file for each."""

import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from tqdm import tqdm

from nfn_core import __version__
from reference_experiments.datasets.format import WeightDataset
from reference_experiments.datasets.generation import dataset_dir, make
from reference_experiments.engines.base import Engine, Recipe, Split, engine, environment
from reference_experiments.experiments import EXPERIMENTS
from reference_experiments.experiments.base import Experiment
from reference_experiments.files import AGAIN, ExperimentError, claimed, kept_json, read_json, write_json
from reference_experiments.methods.base import Method
from reference_experiments.methods.inr2vec import Autoencoder, embedded
from reference_experiments.sources.splits import SPLITS
from reference_experiments.training import evenly_spaced, fit, subsample

__all__ = ["OVERFIT_NETWORKS", "dataset_of", "file_name", "run"]

OVERFIT_NETWORKS = 64
"""Networks of the overfit check: every method must fit so few before it is trained on all."""
NORMALIZING = 2000
"""Training networks, at most, that the inputs are normalized by."""


MEASURED = 3
"""Steps by which the fastest arithmetic and number of threads are found."""


def dataset_of(
    experiment: Experiment,
    name: str,
    scale: str,
    backend: str,
    folder: Path | None,
    check: bool = True,
    gpu: bool = False,
) -> WeightDataset:
    """Dataset of an experiment: in the folder given, or where `make` puts it, made if it is not there.

    Its checksums are compared, unless `check` is false. Of several processes, as torchrun starts them, none makes a dataset.
    """
    if folder is None:
        maker = experiment.makers[name](scale, 0, backend)
        folder = dataset_dir(maker)
        if "RANK" not in os.environ:
            make(maker, folder, gpu=gpu)
        elif not (folder / "dataset.json").exists():
            raise ExperimentError(
                f"{folder} does not hold {name}'s networks, and several processes do not make them: `make` them there "
                "first, or give their folder with --dataset-dir."
            )
    return WeightDataset(folder, check)


def file_name(method: str, seed: int) -> str:
    """Name of a training's folder, and of its result file without the ending."""
    return f"{method}-seed{seed}".replace(" ", "-")


def run(
    name: str,
    scale: str,
    backend: str,
    output: Path,
    data: Mapping[str, WeightDataset],
    methods: tuple[str, ...],
    seeds: range,
    minutes: float | None = None,
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
    minutes : float, optional
        Time that the steps of one training may take: their number, and the warm-up's, is measured to fit, and kept. The
        time of evaluations comes on top.

    Raises
    ------
    ExperimentError
        If the folder holds results of other settings or data, another process runs there, or a file in it is damaged; or
        `minutes` are given to one of several processes.
    """
    experiment = EXPERIMENTS[name]
    for title, dataset in data.items():
        about: dict[str, Any] = {"experiment": name, "scale": scale, "backend": backend, "version": __version__}
        about["config"] = asdict(experiment.config(scale, title))
        with claimed(output / title, about | {"data": _checksum(dataset)}):
            _run_dataset(experiment, about, output / title, title, dataset, methods, seeds, minutes)


def _run_dataset(
    experiment: Experiment,
    about: Mapping[str, Any],
    folder: Path,
    title: str,
    dataset: WeightDataset,
    methods: tuple[str, ...],
    seeds: range,
    minutes: float | None,
) -> None:
    """Run an experiment on one of its datasets."""
    library, scale = engine(about["backend"]), about["scale"]
    indices = {split: dataset.split(split) for split in SPLITS}
    for split, index in indices.items():
        if not len(index):
            raise ExperimentError(
                f"{dataset.folder} has no {split} networks, which an experiment needs: make it with more networks."
            )
    features = dataset.features(evenly_spaced(indices["training"], NORMALIZING))
    for method_name in tqdm(methods, unit="method", desc=f"{about['experiment']} {title}"):
        paths = {seed: folder / f"{file_name(method_name, seed)}.json" for seed in seeds}
        todo = {seed: path for seed, path in paths.items() if not _is_done(path, method_name, seed)}
        if not todo:
            continue
        variant = experiment.variant(method_name)
        own = replace(experiment.config(scale, title), **variant.config)
        recipe = replace(experiment.scales[scale].recipe, **variant.recipe)
        built = experiment.task.build(variant.method, dataset.space, features, own)
        method = replace(built, name=method_name)
        splits = {split: experiment.task.split(method, dataset, index) for split, index in indices.items()}
        if variant.networks is not None:
            splits["training"] = subsample(splits["training"], variant.networks)
        for seed, path in todo.items():
            found = _train(library, method, experiment, recipe, splits, seed, path.with_suffix(""), minutes)
            of = {"dataset": title, "data": _describe(dataset), "config": asdict(own)}
            result = {**about, **of, "training_networks": len(splits["training"]), **found}
            write_json(path, result, indent=None)


def _is_done(path: Path, method: str, seed: int) -> bool:
    """Whether a result is there, whole, and the one that belongs there."""
    if not path.exists():
        return False
    found = read_json(path)
    if (found.get("method"), found.get("seed")) != (method, seed):
        raise ExperimentError(f"{path} is not the result of {method} with seed {seed}: {AGAIN}.")
    return True


def _fastest(library: Engine, method: Method, recipe: Recipe, training: Split, path: Path) -> Recipe:
    """Choose the number of CPU threads, and the arithmetic if the recipe asks for it, in which a few steps take least time.

    Both are measured once, so that all seeds and a resumed run have the same. Of several processes each would measure for
    itself: they keep their threads and take float32.
    """
    arithmetic: tuple[Any, ...] = ("float32", "bfloat16") if recipe.dtype == "fastest" else (recipe.dtype,)
    choices = [(dtype, threads) for dtype in arithmetic for threads in library.thread_counts()]
    if "RANK" in os.environ:
        return replace(recipe, dtype=arithmetic[0])

    def measured() -> dict[str, Any]:
        batch = np.arange(recipe.batch) % len(training)
        inputs, targets = training.inputs(batch, None), training.targets[batch]
        found: list[dict[str, Any]] = []
        for dtype, threads in choices:
            library.use_threads(threads)
            learner = library.learner(method.layer, replace(recipe, dtype=dtype), 0)
            float(learner.step(inputs, targets, 0))  # JAX compiles it here
            began = time.perf_counter()
            for number in range(1, 1 + MEASURED):
                float(learner.step(inputs, targets, number))
            seconds = (time.perf_counter() - began) / MEASURED
            found.append({"dtype": dtype, "threads": threads, "seconds_per_step": seconds})
        return {"fastest": min(found, key=lambda x: x["seconds_per_step"]), "measured": found}

    if len(choices) > 1:
        chosen = kept_json(path, measured)["fastest"]
    else:
        chosen = dict(zip(("dtype", "threads"), choices[0], strict=True))
    library.use_threads(chosen["threads"])
    return replace(recipe, dtype=chosen["dtype"])


def _in_time(library: Engine, method: Method, recipe: Recipe, training: Split, minutes: float, path: Path) -> Recipe:
    """Take as many steps as fit into some minutes, and no more than the recipe has; measured once, like `_fastest`."""
    if "RANK" in os.environ:
        raise ExperimentError(
            "each of several processes would measure other times: leave out --minutes, or start one process."
        )

    def measured() -> dict[str, Any]:
        learner, rng = library.learner(method.layer, recipe, 0), np.random.default_rng(0)

        def take(steps: int) -> float:
            began, loss = time.perf_counter(), 0.0
            for number in range(steps):
                chosen = rng.integers(0, len(training), recipe.batch)
                loss = learner.step(training.inputs(chosen, rng), training.targets[chosen], number)
            float(loss)  # waits for all steps
            return (time.perf_counter() - began) / steps

        take(MEASURED)  # JAX compiles here
        seconds = take(10 * MEASURED)
        return {"seconds_per_step": seconds, "minutes": minutes, "steps": max(1, int(60 * minutes / seconds))}

    steps = min(recipe.steps, kept_json(path, measured)["steps"])
    return replace(recipe, steps=steps, warmup=recipe.warmup * steps // recipe.steps)


def _train(
    library: Engine,
    method: Method,
    experiment: Experiment,
    recipe: Recipe,
    splits: Mapping[str, Split],
    seed: int,
    folder: Path,
    minutes: float | None,
) -> dict[str, Any]:
    """Train a method with one seed and evaluate it."""
    began = time.perf_counter()
    if method.autoencoder is not None:
        splits = embedded(library, cast("Autoencoder", method.autoencoder), splits, recipe, seed, folder / "embedding")
    name = folder.name.removesuffix(f"-seed{seed}")
    recipe = _fastest(library, method, recipe, splits["training"], folder.with_name(f"{name}-fastest.json"))
    if minutes is not None:
        recipe = _in_time(library, method, recipe, splits["training"], minutes, folder.with_name(f"{name}-steps.json"))
    few = subsample(splits["training"], OVERFIT_NETWORKS)
    brief = replace(
        recipe, steps=min(recipe.steps, 1000), batch=min(recipe.batch, 16), warmup=0, cosine=False, eval_every=100
    )
    overfit_check: float | None = None
    if seed == 0 and recipe.loss != "custom":  # a custom loss has no known minimum
        _, evaluations = fit(
            library,
            f"{method.name}, {OVERFIT_NETWORKS} networks",
            method.layer,
            few,
            few,
            brief,
            seed,
            folder / "few",
            enough=1.0,
        )
        overfit_check = max(evaluation["metric"] for evaluation in evaluations)
    learner, curve = fit(
        library,
        f"{method.name}, seed {seed}",
        method.layer,
        splits["training"],
        splits["validation"],
        recipe,
        seed,
        folder,
    )
    return {
        "method": method.name,
        "seed": seed,
        "parameters": method.parameters,
        "recipe": asdict(recipe),
        "overfit_check": overfit_check,
        "curve": curve,
        **asdict(experiment.task.evaluate(learner, splits, folder)),
        "seconds": time.perf_counter() - began,
        "environment": environment(library),
    }


def _describe(dataset: WeightDataset) -> dict[str, Any]:
    """What networks a result is of."""
    about, counts = dataset.about, {split: len(dataset.split(split)) for split in SPLITS}
    keep = ("dataset", "space", "images", "shapes", "architecture", "scale", "seed", "backend", "sources", "quality")
    return {key: about[key] for key in keep if key in about} | {"networks": counts, "sha256": _checksum(dataset)}


def _checksum(dataset: WeightDataset) -> str:
    """SHA-256 of the shards' own, whatever else ``dataset.json`` says."""
    return hashlib.sha256("".join(shard["sha256"] for shard in dataset.about["shards"]).encode()).hexdigest()
