"""The experiments: the zoo's forward pass and training, the predictors, and interrupted runs."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from helpers import command, flipped, kill_when_there
from torch.nn import functional

from nfn_core import WeightSpace, initialize
from nfn_core.augmentations import flip_signs, scale_neurons
from reference_experiments.demos.quickstart import PRESETS, SPACES, Zoo, compare, train_shards
from reference_experiments.demos.zoos import digits, draw, train_zoo
from reference_experiments.engines.base import BACKENDS, Recipe, engine, rows
from reference_experiments.files import ExperimentError
from reference_experiments.methods.base import MethodConfig
from reference_experiments.methods.registry import build
from reference_experiments.methods.statnn import statistics
from reference_experiments.networks.classifiers import Trainer, classify
from reference_experiments.networks.sirens import OMEGA
from reference_experiments.training import fit, predict, rank_correlation

MLP, CNN = SPACES.values()


def torch_scores(space, weights, images, index):
    """One network's scores by torch's own layers."""
    w = {name: torch.tensor(x[index]) for name, x in weights.items()}
    x = torch.tensor(images).permute(0, 3, 1, 2)
    if space is MLP:
        x = functional.relu(functional.linear(x.flatten(1), w["W1"], w["v1"]))
        x = functional.relu(functional.linear(x, w["W2"], w["v2"]))
    else:
        x = functional.relu(functional.conv2d(x, w["W1"], w["v1"], stride=2, padding=1))
        x = functional.relu(functional.conv2d(x, w["W2"], w["v2"], stride=2, padding=1)).mean((2, 3))
    return functional.linear(x, w["W3"], w["v3"]).numpy()


@pytest.mark.parametrize("space", [MLP, CNN], ids=["MLP", "CNN"])
def test_networks_of_the_zoo_are_ordinary_networks(space):
    weights, _ = draw(space, 3, 20, seed=0)
    weights = {n: x + np.float32(0.1) * np.sign(x + 0.5) for n, x in weights.items()}  # biases that are not 0
    images = digits().test_images[:5]
    ours = classify(space, weights, images[None])
    theirs = np.stack([torch_scores(space, weights, images, i) for i in range(3)])
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    moved = space.group("HNP").act(space.group("HNP").sample(0), {n: x[..., None] for n, x in weights.items()})
    np.testing.assert_allclose(
        classify(space, {n: x[..., 0] for n, x in moved.items()}, images[None]), ours, 1e-4, 1e-5
    )
    uncoupled = weights | {"W2": np.roll(weights["W2"], 1, axis=1)}
    assert np.abs(classify(space, uncoupled, images[None]) - ours).max() > 0.01


@pytest.mark.parametrize("space", [MLP, CNN], ids=["MLP", "CNN"])
def test_the_zoo_trains_alike_in_both_backends(space):
    weights, hyper = draw(space, 4, 200, seed=3)
    hyper |= {"learning_rate": np.full(4, 0.1, np.float32), "steps": np.array([0, 10, 100, 200], np.float32)}
    hyper |= {"data_fraction": np.ones(4, np.float32), "weight_decay": np.zeros(4, np.float32)}
    trained = {name: train_zoo(Trainer(engine(name), digits(), space), weights, hyper, seed=0) for name in BACKENDS}
    for name in weights:
        np.testing.assert_array_equal(trained["torch"][0][name][0], weights[name][0])  # no step: as it was
        np.testing.assert_allclose(trained["torch"][0][name], trained["jax"][0][name], rtol=0, atol=2e-3)
    accuracy = trained["torch"][1]
    assert accuracy[3] > accuracy[0] + 0.2
    np.testing.assert_allclose(accuracy, trained["jax"][1], atol=0.01)


def test_statistics_of_weights():
    features = {"W1": np.arange(12.0).reshape(2, 3, 2, 1), "v1": np.ones((2, 1, 1))}
    found = statistics(features)
    assert found.shape == (2, 14)
    np.testing.assert_allclose(found[0], [2.5, 35 / 12, 0, 1.25, 2.5, 3.75, 5, 1, 0, 1, 1, 1, 1, 1])


def test_rank_correlation():
    assert rank_correlation(np.arange(4), np.arange(4)) == 1
    assert rank_correlation(-np.arange(4), np.arange(4)) == -1
    assert rank_correlation(np.zeros(4), np.arange(4)) == 0


SIZES = MethodConfig((8, 8, 8), (8, 8, 8), (32, 32), fourier=None, mlp=32, dws=(8, 8))


def whole(method, features, targets):
    return method.split(lambda chosen: rows(features, chosen), targets)


@pytest.mark.slow(seconds=8)
@pytest.mark.parametrize(
    ("name", "backend"),
    [(name, "torch") for name in ("NFN_HNP", "NFN_NP", "NFN_PT", "DWSNets", "STATNN", "MLP")] + [("NFN_HNP", "jax")],
)
def test_every_method_learns_sixteen_networks_by_heart(name, backend, tmp_path):
    """In PyTorch, and one in JAX: `test_both_backends_train_alike` and `test_backends_agree` have the others."""
    weights, _ = draw(CNN, 16, 20, seed=0)
    features = {name: x[..., None] for name, x in weights.items()}
    targets = np.linspace(0.05, 0.95, 16, dtype=np.float32)
    method = build(name, CNN, features, 1, SIZES)
    part = whole(method, features, targets)
    recipe = Recipe("binary", 300 if name == "NFN_NP" else 100, 16, 3e-3, eval_every=50)
    assert rank_correlation(predict(engine(backend).learner(method.layer, recipe, 0), part), targets) < 0.8
    learner, curve = fit(engine(backend), name, method.layer, part, part, recipe, 0, tmp_path)
    assert rank_correlation(predict(learner, part), targets) > 0.9
    assert curve[-1]["loss"] < curve[0]["loss"]


def test_only_the_flat_mlp_sees_permuted_neurons():
    weights, _ = draw(MLP, 8, 20, seed=0)
    features = {name: x[..., None] for name, x in weights.items()}
    moved = MLP.group("HNP").act(MLP.group("HNP").sample(1), features)
    changes = {}
    for name in ("NFN_HNP", "NFN_NP", "NFN_NP without IO-encoding", "NFN_PT", "DWSNets", "STATNN", "MLP", "MLP_Aug"):
        method = build(name, MLP, features, 1, replace(SIZES, fourier=(4, 0.5)))
        learner = engine("torch").learner(method.layer, Recipe("binary", 1, 8, 1e-3), 0)
        before, after = (predict(learner, whole(method, x, np.zeros(8))) for x in (features, moved))
        changes[name] = np.abs(after - before).max()
    assert min(changes.pop("MLP"), changes.pop("MLP_Aug")) > 1e-2
    assert max(changes.values()) < 1e-5


@pytest.mark.parametrize("raw", [True, False])
def test_raw_fourier_features_are_not_normalized(raw):
    """Other training networks change what a method gives only where it is normalized by them."""
    weights, _ = draw(MLP, 8, 20, seed=0)
    features = {name: x[..., None].astype("float64") for name, x in weights.items()}
    config = replace(SIZES, fourier=(4, 0.5), raw_fourier=raw)
    known_by = (features, {name: 3 * x for name, x in features.items()})
    layers = [build("NFN_HNP", MLP, known, 1, config).layer for known in known_by]
    one, other = (layer.apply(initialize(layer, 0), features) for layer in layers)
    assert np.array_equal(one, other) == raw


BLIND = {
    "NFN_HNP gated": set(),
    "NFN_HNP gated with phases": {"turns"},
    "NFN_HNP signed": {"signs"},
    "NFN_HNP signed with phases": {"signs", "phases", "turns"},
    "NFN_HNP in canonical scales": {"scales"},
}


@pytest.mark.parametrize("name", BLIND)
def test_methods_of_more_symmetries_respect_them(name):
    """Signs of sine neurons, whole turns of their phases, shifts by π with a sign, and scales of ReLU neurons."""
    space = WeightSpace.mlp([2, 6, 5, 3])
    rng = np.random.default_rng(0)
    features = {t.name: rng.normal(size=(8, *t.shape, 1)) for t in space.tensors}
    signs = {s: rng.choice((-1.0, 1.0), (8, space.sizes[s])) for s in ("h1", "h2")}
    factors = {s: np.exp(rng.normal(size=signs[s].shape)) for s in signs}
    shifted = features | {"v1": features["v1"] + np.pi / OMEGA, "W2": -features["W2"]}
    changed = {
        "signs": flip_signs(space, features, signs),
        "phases": shifted,
        "turns": features | {"v1": features["v1"] + 20 * np.pi / OMEGA},
        "scales": scale_neurons(space, features, factors),
    }
    method = build(name, space, features, 3, replace(SIZES, fourier=(4, 0.5)))
    params = initialize(method.layer, 0)
    out = method.layer.apply(params, features)
    moved = {kind: np.abs(method.layer.apply(params, x) - out).max() for kind, x in changed.items()}
    # each method is blind to its own symmetries, and to no others
    assert {kind for kind, error in moved.items() if error < 1e-9} == BLIND[name]
    assert min(moved[kind] for kind in moved.keys() - BLIND[name]) > 0.01 * np.ptp(out, axis=0).max() > 1e-8


def quickstart(folder):
    """Arguments of the quickstart at its smallest scale."""
    return ["quickstart", "--scale", "smoke", "--output", folder]


def predictions(folder):
    results = json.loads((folder / "results.json").read_text())["results"]
    return {(r["zoo"], r["method"]): (r["tau"], r["predicted"], r["predicted_after_permutation"]) for r in results}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    assert "Next:" in command(*quickstart(folder))
    return folder


@pytest.mark.slow(seconds=25)
def test_a_run_killed_three_times_ends_the_same(finished, tmp_path):
    for after in (
        "inrs/digits/NFN_HNP-seed0.json",
        "zoo/MLP-64-16-16-10-00000.safetensors",
        "MLP-64-16-16-10-NFN_HNP.json",
    ):
        kill_when_there(tmp_path / after, *quickstart(tmp_path))
    assert not (tmp_path / "results.json").exists()
    command(*quickstart(tmp_path))
    assert predictions(tmp_path) == predictions(finished)
    assert len(predictions(finished)) == 6
    first, second = (json.loads((folder / "inrs/inrs.json").read_text()) for folder in (finished, tmp_path))
    assert first == second
    assert all(before == after for before, after in [first["SignedMessages"], first["NFN_HNP"]])
    written = {path.name for path in finished.iterdir()}
    assert {"predictions.png", "permutation.png", "table.md", "results.json"} <= written


def test_other_settings_and_damaged_files_are_named(finished):
    message = command(*quickstart(finished), "--seed", "1", status=1)
    assert "holds a run with settings" in message
    assert "--output" in message
    shard = finished / "zoo" / "CNN-1-8-8-10-00024.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-100])
    message = command(*quickstart(finished), status=1)
    shard.write_bytes(whole)
    assert f"{shard} is damaged" in message
    assert "Traceback" not in message
    zoo, features = Zoo("MLP 64-16-16-10", MLP, {}, *np.zeros((4, 0), int)), partial(rows, {})
    again = partial(train_shards, finished / "zoo", "CNN-1-8-8-10-", PRESETS["smoke"], features, "zoo")
    for damaged, message in (
        (shard.with_name("CNN-1-8-8-10-00000.safetensors").read_bytes(), ", or no shard of networks from number 24 on"),
        (flipped(whole, 4 * len(whole)), ": its contents do not agree with its checksum"),
    ):
        shard.write_bytes(damaged)
        with pytest.raises(ExperimentError, match=f"{shard} is damaged{message}"):
            again()
    shard.write_bytes(whole)
    assert len(again()) == 2
    result = finished / "MLP-64-16-16-10-MLP.json"
    whole = result.read_bytes()
    result.write_bytes((finished / "CNN-1-8-8-10-MLP.json").read_bytes())
    with pytest.raises(ExperimentError, match=f"{result} is not the result of MLP on MLP 64-16-16-10"):
        compare(engine("torch"), zoo, ["MLP"], PRESETS["smoke"], 0, finished)
    result.write_bytes(whole)
    assert compare(engine("torch"), zoo, ["MLP"], PRESETS["smoke"], 0, finished)[0]["method"] == "MLP"
