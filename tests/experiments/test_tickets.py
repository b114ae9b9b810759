"""Winning tickets: the autoencoder of masks, tickets of exact sparsity, and the networks that are pruned by them."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import nfn_jax
import nfn_torch
import numpy as np
import pytest
import torch
from helpers import write_dataset
from torch.distributions import Bernoulli, Normal, kl_divergence

from nfn_core import FeatureError, Normalize, WeightSpace, initialize
from reference_experiments import report, runner
from reference_experiments.datasets import lottery_tickets
from reference_experiments.datasets.format import Networks, WeightDataset
from reference_experiments.datasets.model_zoos import ZooPreset
from reference_experiments.datasets.torch import classifier
from reference_experiments.engines.base import Recipe, Split, engine
from reference_experiments.files import ExperimentError
from reference_experiments.methods.base import Method, MethodConfig
from reference_experiments.methods.ticket_vae import TicketVAE
from reference_experiments.networks.classifiers import ARCHITECTURES, classify
from reference_experiments.tasks.lottery_tickets import METHODS, TicketPrediction
from reference_experiments.training import fit

SPACE = WeightSpace.cnn([2, 3, 4, 3], [(3, 2), (), ()])
SIZES = MethodConfig((8, 8), (8, 8), ())


def features(channels, batch=5, space=SPACE, seed=0):
    rng = np.random.default_rng(seed)
    return {t.name: rng.normal(size=(batch, *t.shape, channels)) for t in space.tensors}


def pairs(batch=5, latent=2):
    """Initial weights, masks and noise."""
    found = features(2 + latent, batch)
    for x in found.values():
        x[..., 1] = x[..., 1] > 0.5
    return found


SCALE = Normalize.from_features(SPACE, features(1, 20, seed=1))
LAYERS = {
    "NFN_NP": TicketVAE(SPACE.group("NP"), SCALE, (6, 6), 2, encoding=(10.0, 2)),
    "NFN_NP without IO-encoding": TicketVAE(SPACE.group("NP"), SCALE, (6, 6), 2),
    "NFN_PT": TicketVAE(SPACE.group("NP"), SCALE, (6, 6), 2, pointwise=True),
    "NFN_PT without layer norm": TicketVAE(SPACE.group("NP"), SCALE, (6, 6), 2, pointwise=True, norm=None),
    "NFN_NP with instance norm": TicketVAE(SPACE.group("NP"), SCALE, (6, 6), 2, norm="instance"),
}


def difference(x, y):
    return max(np.abs(x[name] - y[name]).max() for name in x) if isinstance(x, dict) else np.abs(x - y).max()


# The autoencoder


@pytest.mark.parametrize("name", LAYERS)
def test_encoder_decoder_and_loss_respect_permuted_neurons(name):
    layer = LAYERS[name]
    params = initialize(layer, 0)
    encoded = name == "NFN_NP"
    group = SPACE.group("HNP" if encoded else "NP")
    move = partial(group.act, group.sample(1))
    for part, channels in (("encoder", 2), ("decoder", 3)):
        run = partial(layer.parts[part].apply, layer.child_params(part, params))
        given = features(channels)
        assert difference(run(move(given)), move(run(given))) < 1e-12
    score = partial(layer.apply, params)
    assert difference(score(move(features(3))), move(score(features(3)))) < 1e-12
    assert difference(score(move(pairs())), score(pairs())) < 1e-12
    if encoded:  # it does see which input is which
        swap = partial(SPACE.group("NP").act, SPACE.group("NP").permutation({"in": [1, 0]}))
        assert difference(score(swap(features(3))), swap(score(features(3)))) > 1e-3
        uncoupled = features(3) | {"W2": features(3)["W2"][:, ::-1]}
        expected = score(features(3))
        assert difference(score(uncoupled), expected | {"W2": expected["W2"][:, ::-1]}) > 1e-3


@pytest.mark.parametrize("name", LAYERS)
def test_loss_is_the_negative_elbo(name):
    layer, given = LAYERS[name], {n: torch.tensor(x) for n, x in pairs().items()}
    module = nfn_torch.NFModule(layer, 4, dtype=torch.float64)
    params = module.named_arrays()
    weights = layer.scale.apply(layer.child_params("scale", params), {n: x[..., :1] for n, x in given.items()})
    posterior = layer.parts["encoder"].apply(
        layer.child_params("encoder", params), {n: torch.cat([weights[n], x[..., 1:2]], -1) for n, x in given.items()}
    )
    latent = {n: Normal(x[..., :2], torch.exp(0.5 * x[..., 2:])) for n, x in posterior.items()}
    z = {n: q.mean + q.stddev * given[n][..., 2:] for n, q in latent.items()}
    logits = layer.parts["decoder"].apply(
        layer.child_params("decoder", params), {n: torch.cat([weights[n], z[n]], -1) for n in given}
    )

    def elbo(masks):
        likelihood = sum(Bernoulli(logits=logits[n]).log_prob(m).flatten(1).sum(1) for n, m in masks.items())
        divergence = sum(kl_divergence(q, Normal(0.0, 1.0)).flatten(1).sum(1) for q in latent.values())
        return (likelihood - divergence).detach()

    masks = {n: x[..., 1:2] for n, x in given.items()}
    loss = module(given).detach()
    assert loss.shape == (5,)
    torch.testing.assert_close(loss, -elbo(masks) / SPACE.size, rtol=1e-12, atol=0)
    assert (loss + elbo({n: 1 - m for n, m in masks.items()}) / SPACE.size).abs().min() > 1e-3


@pytest.mark.parametrize("name", LAYERS)
def test_backends_agree(name):
    layer = LAYERS[name]
    for given in (pairs(), features(3)):
        expected = layer.apply(initialize(layer, 3), given)
        module = nfn_torch.NFModule(layer, 3, dtype=torch.float64).eval()
        outputs = [module({n: torch.tensor(x) for n, x in given.items()})]
        with jax.enable_x64(True):
            run = jax.jit(partial(nfn_jax.apply, layer))
            outputs.append(run(nfn_jax.init(layer, 3, "float64"), {n: jnp.asarray(x) for n, x in given.items()}))
        for out in outputs:
            if isinstance(expected, dict):
                out = {n: np.asarray(x.detach() if isinstance(x, torch.Tensor) else x) for n, x in out.items()}
            else:
                out = np.asarray(out.detach() if isinstance(out, torch.Tensor) else out)
            assert difference(out, expected) < 1e-12
    assert np.ptp(layer.apply(initialize(layer, 3), pairs())) > 1e-4  # it distinguishes the pairs


def test_other_channels_are_refused():
    with pytest.raises(FeatureError, match="expected 3 channels .* or 4 .*, not 5"):
        LAYERS["NFN_PT"].apply(initialize(LAYERS["NFN_PT"], 0), features(5))


# Learning a mask that there is, and one that there is not

TOY = WeightSpace.mlp([5, 8, 8, 4])


def toy(folder, shuffled=False):
    """Networks whose tickets are the largest quarter of their initial weights, or any quarter."""
    rng = np.random.default_rng(0)
    weights = {t.name: rng.normal(size=(60, *t.shape)).astype(np.float32) for t in TOY.tensors}
    scores = {n: rng.random(x.shape) if shuffled else np.abs(x) for n, x in weights.items()}
    columns = {"run": np.arange(60, dtype=np.int32), "split": np.repeat([0, 1, 2], [40, 10, 10]).astype(np.uint8)}
    about = lottery_tickets.TicketMaker(
        "digits", "ticket-mlp", ZooPreset(60, 60, 1, 1, 1, 1, 1), 0, "torch", 0.75
    ).settings
    return write_dataset(folder, Networks(TOY, weights, columns, about, lottery_tickets.masks_of(scores, 0.75)))


def prepared(dataset, name):
    task, splits = TicketPrediction(2), [dataset.split(s) for s in ("training", "validation", "test")]
    method = task.build(name, dataset.space, dataset.features(splits[0]), SIZES)
    return method, [task.split(method, dataset, index) for index in splits]


@pytest.mark.slow(seconds=12)
@pytest.mark.parametrize("name", METHODS)
def test_tickets_are_learned_where_there_is_something_to_learn(name, tmp_path):
    """In PyTorch; `test_backends_agree` has the same losses in JAX. Shuffled masks are the negative control."""
    found = {True: 0.25}  # what chance gives
    for shuffled in (False, True) if name == "NFN_PT" else (False,):
        dataset = toy(tmp_path / f"data {shuffled}", shuffled)
        method, (training, validation, test) = prepared(dataset, name)
        recipe = Recipe("custom", 300 if name == "NFN_NP" else 100, 8, 1e-2, eval_every=100)
        folder = tmp_path / f"run {shuffled}"
        learner, _ = fit(engine("torch"), name, method.layer, training, validation, recipe, 0, folder)
        masks, truth = lottery_tickets.masks_of(test.scores(learner), 0.75), dataset.features(test.targets, "masks")
        weights = [n for n in masks if n.startswith("W")]
        found[shuffled] = np.mean([masks[n][truth[n][..., 0]].mean() for n in weights])
    assert found[False] > 0.8
    assert abs(found[True] - 0.25) < 0.1


def test_an_interrupted_training_ends_the_same(tmp_path):
    method, (training, validation, _) = prepared(toy(tmp_path / "data"), "NFN_NP")
    recipe, left = Recipe("custom", 9, 8, 1e-3, eval_every=3), iter(range(4))

    def inputs(chosen, rng):
        if rng is not None and next(left, None) is None:
            raise KeyboardInterrupt
        return training.inputs(chosen, rng)

    run = partial(fit, engine("torch"), "NFN_NP", method.layer, validation=validation, recipe=recipe, seed=0)
    whole, curve = run(training=training, folder=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(training=Split(inputs, training.targets), folder=tmp_path / "cut")
    again, second = run(training=training, folder=tmp_path / "cut")
    assert curve == second
    for key, x in whole.state().items():
        np.testing.assert_array_equal(again.state()[key], x)


def test_noise_is_new_in_training_and_a_networks_own_in_evaluation(tmp_path):
    _, (part, *_) = prepared(toy(tmp_path), "NFN_PT")
    several, one = part.inputs(np.array([3, 7]), None), part.inputs(np.array([7]), None)
    drawn = [part.inputs(np.array([7]), np.random.default_rng([0, step, 1])) for step in (0, 1, 1)]
    for name, x in one.items():
        assert x.dtype == np.float32
        np.testing.assert_array_equal(several[name][1:], x)
        np.testing.assert_array_equal(drawn[1][name], drawn[2][name])
        np.testing.assert_array_equal(drawn[0][name][..., :2], x[..., :2])
        assert (drawn[0][name][..., 2:] != drawn[1][name][..., 2:]).all()
        assert (several[name][0, ..., 2:] != several[name][1, ..., 2:]).all()


def test_tickets_are_drawn_by_their_scores(tmp_path):
    _, (part, *_) = prepared(toy(tmp_path), "NFN_PT")
    scores = {t.name: np.zeros((len(part), *t.shape)) for t in TOY.tensors}
    even = part.masks(scores, 0.75)
    scores["W1"][:, ::2] = np.log(9)  # of two such entries one stays nine times as often as the other
    uneven = part.masks(scores, 0.75)
    for name, mask in even.items():
        share = 0.25 if name.startswith("W") else 1.0
        for masks in (even, uneven):
            assert (masks[name].reshape(len(part), -1).mean(axis=1) == share).all()
        np.testing.assert_array_equal(part.masks(scores, 0.75)[name], uneven[name])
        assert name.startswith("v") or (mask[0] != mask[1]).any()
    assert abs(even["W1"][:, ::2].mean() - 0.25) < 0.05
    assert uneven["W1"][:, ::2].mean() > 0.4
    assert 0 < uneven["W1"][:, 1::2].mean() < 0.1
    np.testing.assert_array_equal(even["W2"], uneven["W2"])


def test_highest_scores_stay_and_equal_scores_too_are_pruned_to_the_number():
    scores = {"W1": np.zeros((2, 4, 5)), "v1": np.zeros((2, 4))}
    scores["W1"][0, 1, 2] = 1
    masks = lottery_tickets.masks_of(scores, 0.95)
    assert masks["W1"].sum(axis=(1, 2)).tolist() == [1, 1]
    assert masks["W1"][0, 1, 2]
    assert masks["v1"].all()


def test_other_datasets_and_methods_are_refused(tmp_path):
    dataset = toy(tmp_path)
    with pytest.raises(ExperimentError, match="tickets are predicted by NFN_NP, .*, not by STATNN"):
        TicketPrediction().build("STATNN", dataset.space, dataset.features(np.arange(3)), SIZES)
    method = TicketPrediction().build("NFN_NP", dataset.space, dataset.features(np.arange(3)), SIZES)
    dataset.about["learning_rate"] = 1e-3
    with pytest.raises(ExperimentError, match="expected networks trained at learning rate 0.1, but they were at 0.001"):
        TicketPrediction().split(method, dataset, np.arange(3))
    dataset.about["dataset"] = "zoo of classifiers"
    with pytest.raises(ExperimentError, match="holds no winning tickets"):
        TicketPrediction().split(method, dataset, np.arange(3))


def test_parameters_are_counted_without_being_made():
    layer = TicketVAE(SPACE.group("HNP"), SCALE, (6, 6), 2)
    made = initialize(layer, 0)
    trained = [made[name].size for name, spec in layer.parameter_specs().items() if spec.trainable]
    assert Method("NFN_HNP", layer).parameters == sum(trained) < sum(x.size for x in made.values())


# End to end


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """18 pairs of scikit-learn's digits, the last two of which are held out."""
    folder = tmp_path_factory.mktemp("pairs")
    maker = lottery_tickets.TicketMaker("digits", "ticket-mlp", ZooPreset(18, 18, 640, 300, 3, 32, 1), 0, "torch")
    return write_dataset(folder, maker.run(0), quality={})


def run(dataset, output, methods=METHODS):
    runner.run("table5", "smoke", "torch", output, {"MNIST": dataset}, methods, range(1))
    return {p.name: json.loads(p.read_text()) for p in (output / "MNIST").glob("*-seed0.json")}


def test_networks_are_trained_under_tickets_as_those_of_the_dataset_were(dataset):
    maker, index = lottery_tickets.TicketMaker.of(dataset), dataset.split("test")
    weights, masks = ({n: x[..., 0] for n, x in dataset.features(index, part).items()} for part in ("weights", "masks"))
    runs = dataset.columns["run"][index]
    trained, accuracy = maker.trained(runs, weights, masks)
    np.testing.assert_allclose(accuracy, dataset.columns["ticket accuracy"][index], atol=1 / 300)  # one image
    np.testing.assert_allclose(maker.trained(runs, weights)[1], dataset.columns["dense accuracy"][index], atol=1 / 300)
    for name, x in trained.items():
        assert not x[~masks[name]].any()
        assert name.startswith("v") or (x != weights[name])[masks[name]].mean() > 0.1  # the others are at dead units
    other = {name: np.roll(mask, 1, axis=1) for name, mask in masks.items()}
    assert np.abs(maker.trained(runs, weights, other)[1] - accuracy).max() > 2 / 300


def test_an_experiment_from_end_to_end(dataset, tmp_path):
    folder = tmp_path / "table5-smoke-torch"
    results = run(dataset, folder)
    assert len(results) == len(METHODS)
    index = dataset.split("test")
    for result in results.values():
        assert result["details"]["sparsity"] == result["details"]["imp_sparsity"]
        assert {n: x[0] for n, x in result["details"]["sparsity"].items()}["W2"] == pytest.approx(0.95, abs=1e-4)
        assert result["metrics"]["test_accuracy"] == pytest.approx(np.mean(result["per_network"]["test_accuracy"]))
        for name, column in (("Dense", "dense"), ("IMP", "ticket"), ("Random", "random")):
            values = result["baselines"][name]["per_network"]["test_accuracy"]
            np.testing.assert_allclose(values, 100 * dataset.columns[f"{column} accuracy"][index], rtol=1e-6)
        assert set(result["details"]["scores"]) == {"W1", "W2", "W3"}
        assert "W2 0.9500 (0.0000)" in result["notes"][0]
    page = report.report(tmp_path).read_text()
    rows = {line.split(" | ")[1]: line for line in page.splitlines() if line.startswith("| MNIST |")}
    assert set(rows) == {*METHODS, "Dense", "IMP", "Random"}
    values = 100 * dataset.columns["ticket accuracy"][index]
    expected = f"| {values.mean():.2f} ± {values.std(ddof=1) / 2**0.5:.2f} |"
    assert expected in rows["IMP"]
    assert "96.20 ± 0.04" in rows["IMP"]
    assert expected not in rows["Random"]
    assert page.count("Sparsity of the 2 tickets") == 1  # the same for all methods
    assert page.count("NFN_HNP with as many channels would have") == 1
    assert len(list((tmp_path / "figures").glob("*.png"))) == 2


def test_pruned_networks_come_back_as_modules_and_files(dataset, tmp_path):
    (result,) = run(dataset, tmp_path, ("NFN_PT",)).values()
    pruned = WeightDataset(tmp_path / "MNIST" / "NFN_PT-seed0" / "tickets")
    pruned.verify()
    images = lottery_tickets.TicketMaker.of(dataset).trainer.images
    for k, expected in enumerate(result["per_network"]["test_accuracy"]):
        weights, mask = pruned.network(k), pruned.features([k], "masks")
        model = classifier(pruned.space, weights)
        with torch.no_grad():
            scores = model(torch.tensor(images.test_images).movedim(-1, 1))
        right = (scores.argmax(1).numpy() == images.test_labels).mean()
        assert 100 * right == pytest.approx(expected, abs=0.4)  # an image
        assert (model[1].weight != 0).float().mean() <= 0.0501
        assert all(not x[~mask[n][0]].any() for n, x in weights.items())


def test_killed_between_blocks_it_goes_on(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(engine("torch"), "block", 1)
    whole = run(dataset, tmp_path / "whole", ("NFN_PT",))
    trained, left = lottery_tickets.TicketMaker.trained, iter(range(1))

    def cut(self, *args):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return trained(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(lottery_tickets.TicketMaker, "trained", cut)
        with pytest.raises(KeyboardInterrupt):
            run(dataset, tmp_path / "cut", ("NFN_PT",))
    folder = tmp_path / "cut" / "MNIST" / "NFN_PT-seed0" / "tickets"
    assert sorted(path.name for path in folder.glob("shard-*.safetensors")) == ["shard-00000.safetensors"]
    again = run(dataset, tmp_path / "cut", ("NFN_PT",))
    for key in ("metrics", "per_network", "details", "curve"):
        assert again["NFN_PT-seed0.json"][key] == whole["NFN_PT-seed0.json"][key]
    for path in folder.glob("shard-*.safetensors"):
        assert path.read_bytes() == (tmp_path / "whole" / "MNIST" / "NFN_PT-seed0" / "tickets" / path.name).read_bytes()


@pytest.mark.parametrize("architecture", ["ticket-mlp", "ticket-cnn", "cnn"])
def test_modules_are_what_was_trained(architecture):
    space = ARCHITECTURES[architecture](2, 36)
    weights = {n: x.astype(np.float32) for n, x in features(1, 1, space).items()}
    images = np.random.default_rng(0).random((3, 6, 6, 2), np.float32)
    model = classifier(space, {n: x[0] for n, x in weights.items()}, torch.nn.Tanh)
    expected = classify(space, {n: x[..., 0] for n, x in weights.items()}, images[None], "tanh")[0]
    scores = model(torch.tensor(images).movedim(-1, 1)).detach().numpy()
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-3)
    mirrored = model(torch.tensor(images).movedim(-1, 1).flip(1)).detach().numpy()
    assert np.abs(mirrored - expected).max() > 0.1
