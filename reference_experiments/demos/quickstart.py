"""The quickstart: read images from the weights of INRs, then predict the accuracy of classifiers from their weights.

All is of the 8x8 digits of scikit-learn. The second part is a small form of Table 2. With so few networks every method that
respects permutations is about level with weight statistics; the paper's differences need its thousands of networks.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from tqdm import tqdm

from nfn_core import WeightSpace, __version__
from reference_experiments.demos.inrs import classify_inrs
from reference_experiments.demos.zoos import digits, draw, train_zoo
from reference_experiments.engines.base import Engine, Recipe, Split, engine, environment, rows
from reference_experiments.figures import draw_permutation, draw_predictions
from reference_experiments.files import (
    AGAIN,
    ExperimentError,
    claimed,
    read_arrays,
    read_json,
    reading,
    write,
    write_arrays,
    write_json,
)
from reference_experiments.methods.base import Method, MethodConfig
from reference_experiments.methods.registry import build
from reference_experiments.networks.classifiers import Trainer
from reference_experiments.training import fit, predict, rank_correlation

__all__ = ["DemoPreset", "PRESETS", "SPACES", "Zoo", "compare", "quickstart", "split_zoo", "tabulate", "train_shards"]

SPACES = {
    "MLP 64-16-16-10": WeightSpace.mlp([64, 16, 16, 10]),
    "CNN 1-8-8-10": WeightSpace.cnn([1, 8, 8, 10], [(3, 3), (3, 3), ()]),
}


@dataclass(frozen=True)
class DemoPreset:
    """How much of everything: networks in a zoo, their longest training in steps, widths, and how predictors train."""

    networks: int
    shard: int
    longest: int
    config: MethodConfig
    recipe: Recipe


FIRST = "number of the first network"
"""Array of a shard of a zoo that says which one it is."""
COMPARED = ("NFN_HNP", "STATNN", "MLP")
PRESETS = {
    "smoke": DemoPreset(
        48, 24, 40, MethodConfig((4, 4, 4), (2, 2, 2), (8, 8), mlp=8), Recipe("binary", 6, 8, 1e-3, 1e-2, eval_every=3)
    ),
    "full": DemoPreset(
        600,
        200,
        600,
        MethodConfig((32,) * 3, (8,) * 3, (128, 128), mlp=128),
        Recipe("binary", 600, 32, 1e-3, 1e-2, eval_every=30),
    ),
}


@dataclass(frozen=True)
class Zoo:
    """Networks of one weight space: features, each (networks, *axes, 1), test accuracies, and the three splits."""

    name: str
    space: WeightSpace
    features: dict[str, np.ndarray]
    accuracy: np.ndarray
    training: np.ndarray
    validation: np.ndarray
    held_out: np.ndarray


def quickstart(backend: str, scale: str, seed: int, folder: Path) -> list[dict[str, Any]]:
    """Run all of it, or what an interrupted run left undone.

    Parameters
    ----------
    backend : str
        ``"torch"`` or ``"jax"``.
    scale : str
        One of `PRESETS`.
    seed : int
        Seed of everything.
    folder : Path
        Where files are written.

    Returns
    -------
    list of dict
        For each zoo and method: Kendall's tau, R², and how far permuted neurons move a prediction.

    Raises
    ------
    ExperimentError
        If the folder holds another run, another process runs there, or a file in it is damaged.
    """
    chosen = PRESETS[scale]
    settings = {"backend": backend, "scale": scale, "seed": seed, "version": __version__, **asdict(chosen)}
    with claimed(folder, settings):
        return _quickstart(backend, scale, seed, folder)


def _quickstart(backend: str, scale: str, seed: int, folder: Path) -> list[dict[str, Any]]:
    """Run all of it in a folder that is claimed."""
    library, chosen = engine(backend), PRESETS[scale]
    click.echo(classify_inrs(backend, "smoke" if scale == "smoke" else "small", seed, folder / "inrs"))
    zoos = [make_zoo(library, name, space, chosen, seed, folder) for name, space in SPACES.items()]
    results = [found for zoo in zoos for found in compare(library, zoo, COMPARED, chosen, seed, folder)]
    write_json(
        folder / "results.json",
        {"environment": environment(library), "sources": digits().sources, "results": results},
    )
    table = tabulate(results, zoos)
    write(folder / "table.md", lambda path: path.write_text(table))
    draw_predictions(folder / "predictions.png", {zoo.name: zoo.accuracy[zoo.held_out] for zoo in zoos}, results)
    illustrate(folder / "permutation.png", zoos[0], [r for r in results if r["zoo"] == zoos[0].name], seed)
    click.echo(table)
    return results


def make_zoo(library: Engine, name: str, space: WeightSpace, scale: DemoPreset, seed: int, folder: Path) -> Zoo:
    """Train a zoo, shard by shard, or read the shards that are there; networks that diverged are left out."""
    weights, hyper = draw(space, scale.networks, scale.longest, seed)
    trainer = Trainer(library, digits(), space)

    def train(start: int) -> dict[str, np.ndarray]:
        initial, mine = (rows(columns, slice(start, start + scale.shard)) for columns in (weights, hyper))
        trained, accuracy = train_zoo(trainer, initial, mine, seed + start)
        return {**trained, **mine, "accuracy": accuracy}

    shards = train_shards(folder / "zoo", f"{name}-".replace(" ", "-"), scale, train, f"zoo of {scale.networks} {name}")
    return split_zoo(name, space, shards, lambda found: {t.name: found[t.name][..., None] for t in space.tensors}, seed)


def train_shards(
    folder: Path, front: str, scale: DemoPreset, train: Callable[[int], dict[str, np.ndarray]], title: str
) -> list[dict[str, np.ndarray]]:
    """Train networks shard by shard, or read the shards that are there.

    Parameters
    ----------
    folder : Path
        Folder of the shards.
    front : str
        What the names of their files begin with.
    scale : DemoPreset
        Numbers of networks, in all and in a shard.
    train : callable
        From the number of a shard's first network to the shard, as `split_zoo` takes it.
    title : str
        Title of the progress bar.

    Returns
    -------
    list of dict of str to numpy.ndarray
        The shards, as they are read from the files.
    """
    shards = []
    for start in tqdm(range(0, scale.networks, scale.shard), unit="shard", desc=title):
        path = folder / f"{front}{start:05}.safetensors"
        if not path.exists():
            write_arrays(path, train(start) | {FIRST: np.array(start)})
        found = read_arrays(path)
        with reading(path, f"shard of networks from number {start} on", AGAIN):
            if found.pop(FIRST) != start:
                raise ValueError("it is another shard")
        shards.append(found)
    return shards


def split_zoo(
    name: str,
    space: WeightSpace,
    shards: Sequence[dict[str, np.ndarray]],
    features: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]],
    seed: int,
) -> Zoo:
    """Make a zoo of the networks in shards that stayed finite: of 60, 15 and 25 per cent of them the three splits.

    Parameters
    ----------
    name : str
        What tables call it.
    space : WeightSpace
        The networks' weight space.
    shards : sequence of dict of str to numpy.ndarray
        Tensors of shape (networks, *axes), and the accuracy, (networks,).
    features : callable
        From such tensors to features.
    seed : int
        Seed of the splits.

    Returns
    -------
    Zoo
        The zoo.
    """
    together = {key: np.concatenate([shard[key] for shard in shards]) for key in shards[0]}
    networks = len(together["accuracy"])
    finite = np.all([np.isfinite(x).reshape(networks, -1).all(axis=1) for x in together.values()], axis=0)
    kept, count = {key: x[finite] for key, x in together.items()}, int(finite.sum())
    click.echo(f"{count} of {networks} networks stayed finite.")
    parts = np.split(np.random.default_rng(seed).permutation(count), [int(0.6 * count), int(0.75 * count)])
    return Zoo(name, space, features(kept), kept["accuracy"], *parts)


def compare(
    library: Engine, zoo: Zoo, methods: Sequence[str], scale: DemoPreset, seed: int, folder: Path
) -> list[dict[str, Any]]:
    """Train methods on a zoo and measure them, or read what an interrupted run has measured; see `evaluate`."""
    features, results = rows(zoo.features, zoo.training), []
    for name in tqdm(methods, unit="method", desc=f"predictors of {zoo.name}"):
        path = folder / f"{zoo.name} {name}.json".replace(" ", "-")
        if not path.exists():
            method = build(name, zoo.space, features, 1, scale.config)
            write_json(path, evaluate(library, zoo, method, scale.recipe, seed, path))
        results.append(read_json(path))
        if (results[-1].get("zoo"), results[-1].get("method")) != (zoo.name, name):
            raise ExperimentError(f"{path} is not the result of {name} on {zoo.name}: {AGAIN}.")
    return results


def evaluate(library: Engine, zoo: Zoo, method: Method, recipe: Recipe, seed: int, path: Path) -> dict[str, Any]:
    """Train one method and measure it on the held-out networks, as they are and with permuted neurons."""
    from scipy.stats import bootstrap  # slow to load, as sklearn is
    from sklearn.metrics import r2_score

    began = time.perf_counter()

    def part(index: np.ndarray) -> Split:
        return method.split(lambda chosen: rows(zoo.features, index[chosen]), zoo.accuracy[index])

    learner, _ = fit(
        library, method.name, method.layer, part(zoo.training), part(zoo.validation), recipe, seed, path.with_suffix("")
    )
    group, networks = zoo.space.group("HNP"), rows(zoo.features, zoo.held_out)
    actual, predicted = zoo.accuracy[zoo.held_out], predict(learner, part(zoo.held_out))
    turned = group.act(group.sample(seed), networks)
    moved = predict(learner, method.split(lambda chosen: rows(turned, chosen), actual))
    resampled = bootstrap(
        (predicted, actual), rank_correlation, paired=True, vectorized=False, n_resamples=200, rng=seed, method="basic"
    )
    return {
        "zoo": zoo.name,
        "method": method.name,
        "parameters": method.parameters,
        "tau": rank_correlation(predicted, actual),
        "tau_standard_error": float(resampled.standard_error),
        "r2": r2_score(actual, predicted),
        "change": float(np.abs(moved - predicted).max()),
        "seconds": time.perf_counter() - began,
        "predicted": predicted.tolist(),
        "predicted_after_permutation": moved.tolist(),
    }


def tabulate(results: list[dict[str, Any]], zoos: list[Zoo]) -> str:
    """Table of all methods, in Markdown."""
    lines = [
        "| zoo | method | parameters | Kendall's τ | R² | largest change when neurons are permuted | time (s) |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in results:
        lines.append(
            f"| {r['zoo']} | {r['method']} | {r['parameters']:,} | {r['tau']:.3f} ± {r['tau_standard_error']:.3f} "
            f"| {r['r2']:.3f} | {r['change']:.1e} | {r['seconds']:.0f} |"
        )
    counts = ", ".join(f"{zoo.name}: {len(zoo.held_out)} of {len(zoo.accuracy)}" for zoo in zoos)
    lines += ["", f"Held-out networks ({counts}). ± is the bootstrap standard error over them; one seed.", ""]
    return "\n".join(lines)


def illustrate(path: Path, zoo: Zoo, results: list[dict[str, Any]], seed: int) -> None:
    """Draw one held-out network's second weight matrix before and after a permutation, with its predictions."""
    group, network = zoo.space.group("HNP"), rows(zoo.features, zoo.held_out[:1])
    before, after = network["W2"][0, :, :, 0], group.act(group.sample(seed), network)["W2"][0, :, :, 0]
    keys = ("predicted", "predicted_after_permutation")
    captions = ["\n".join(f"{r['method']}: {r[key][0]:.4f}" for r in results) for key in keys]
    draw_permutation(path, before, after, captions)
