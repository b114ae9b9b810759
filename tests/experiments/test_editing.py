"""Editing INRs through their weights, and trained methods applied to a user's networks."""

import csv
import json
from dataclasses import replace
from functools import partial

import cv2
import jax
import jax.numpy as jnp
import nfn_jax
import nfn_torch
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers import fit_until_killed, flipped, write_dataset
from safetensors.flax import load_file
from safetensors.torch import save_file

from nfn_core import FeatureError, WeightSpace, initialize
from nfn_core.arrays import namespace_of
from reference_experiments import runner
from reference_experiments.__main__ import main
from reference_experiments.datasets.image_inrs import SirenMaker, SirenPreset
from reference_experiments.engines.base import BACKENDS, Recipe, engine
from reference_experiments.files import ExperimentError, read_arrays, write_json
from reference_experiments.methods.base import MethodConfig
from reference_experiments.methods.descent_editor import descent, propagate
from reference_experiments.methods.editor import IMAGE, dilate, errors, increase_contrast
from reference_experiments.methods.mlp import Flatten, Unflatten
from reference_experiments.networks.sirens import OMEGA, coordinates, draw, render
from reference_experiments.networks.torch import Siren
from reference_experiments.report import report
from reference_experiments.tasks.editing import METHODS, Editing
from reference_experiments.training import fit

SPACE = WeightSpace.mlp([2, 6, 5, 3])
SIZES = MethodConfig((6, 6), (6, 6), (), fourier=(4, 0.5), mlp=16, descent=(6, 4, 2))
RNG = np.random.default_rng(0)


def sirens(space=SPACE, batch=4):
    """Weights of a size that makes pictures of them."""
    return {t.name: RNG.normal(size=(batch, *t.shape, 1)) / (2 if t.name == "W1" else 15) for t in space.tensors}


FEATURES = sirens()
IMAGES = RNG.uniform(-1, 1, (4, 5, 7, 3))
BUILT = {name: Editing("dilate").build(name, SPACE, FEATURES, SIZES) for name in METHODS}
PARAMETERS = {name: initialize(method.layer, 1) for name, method in BUILT.items()}


def apart(first, second):
    return max(np.abs(first[name] - second[name]).max() for name in first)


# What is to come


def test_dilation():
    image = np.zeros((5, 6, 1), np.uint8)
    image[1, 2], image[4, 5] = 200, 100
    thick = dilate(image)
    assert thick.shape == image.shape
    assert (thick[:3, 1:4] == 200).all()
    assert (thick[3:, 4:] == 100).all()
    assert (thick > 0).sum() == 9 + 4


@pytest.mark.parametrize("channels", [1, 3])
def test_contrast(channels):
    image = (100 + 50 * RNG.random((32, 32, channels))).astype(np.uint8)
    edited = increase_contrast(image)
    assert edited.shape == image.shape
    assert edited.dtype == np.uint8
    assert edited.std() > 1.05 * image.std()
    if channels == 3:  # the colors stay
        before, after = (cv2.cvtColor(x, cv2.COLOR_BGR2LAB).astype(int) for x in (image, edited))
        assert np.abs(after - before)[..., 1:].mean() < 2 < np.abs(after - before)[..., 0].mean()


# The editor


class Sine(torch.nn.Module):
    def forward(self, x):
        return torch.sin(OMEGA * x)


def ordinary(network, index=0):
    """A SIREN made of PyTorch's own layers."""
    layers = []
    for i in range(1, len(network) // 2 + 1):
        weight = torch.as_tensor(network[f"W{i}"][index, ..., 0])
        layer = torch.nn.Linear(*weight.T.shape, dtype=weight.dtype)
        layer.load_state_dict({"weight": weight, "bias": torch.as_tensor(network[f"v{i}"][index, ..., 0])})
        layers += [layer, Sine()]
    return torch.nn.Sequential(*layers[:-1])


def test_drawn_is_what_an_ordinary_siren_draws():
    points = torch.tensor(coordinates(5, 7).T, dtype=torch.float64)
    with torch.no_grad():
        theirs = ordinary(FEATURES)(points).reshape(5, 7, 3).numpy()
        module = Siren(SPACE).double()
        module.load_state_dict({name: torch.tensor(x[0, ..., 0]) for name, x in FEATURES.items()})
        np.testing.assert_allclose(module(points).reshape(5, 7, 3).numpy(), theirs, atol=1e-12)
    ours = draw(FEATURES, 5, 7)
    np.testing.assert_allclose(ours[0], theirs, atol=1e-12)
    assert np.abs(ours[1] - theirs).max() > 0.01


def moved(group, features):
    around = {label: [*range(1, SPACE.sizes[label]), 0] for label in group.permuted}
    return group.act(group.permutation(around), features)


def shift(name, group, features=FEATURES):
    """How far the edit of moved networks is from the moved edit, as a share of the edit."""
    layer, params = BUILT[name].layer, PARAMETERS[name]
    edited = layer.apply(params, features)
    return apart(layer.apply(params, moved(group, features)), moved(group, edited)) / apart(edited, features)


@pytest.mark.parametrize("name", [name for name in METHODS if not name.startswith("MLP")])
def test_editors_are_equivariant(name):
    assert shift(name, SPACE.group("HNP")) < 1e-9
    torn = FEATURES | {"W2": np.roll(FEATURES["W2"], 1, axis=1)}
    layer, params = BUILT[name].layer, PARAMETERS[name]
    if name != "NFN_PT":  # rows alone are not neurons
        rolled = layer.apply(params, FEATURES)["W2"]
        assert np.abs(layer.apply(params, torn)["W2"] - np.roll(rolled, 1, axis=1)).max() > 1e-6
    pictures = [draw(layer.apply(params, u), 5, 7) for u in (FEATURES, moved(SPACE.group("HNP"), FEATURES))]
    np.testing.assert_allclose(*pictures, atol=1e-9)


def test_what_editors_are_not_equivariant_to():
    assert shift("MLP", SPACE.group("HNP")) > 0.1
    assert shift("NFN_NP without IO-encoding", SPACE.group("NP")) < 1e-9
    for name in ("NFN_HNP", "NFN_NP", "NFN_PT", "NFN_HNP gated", "Messages"):
        assert shift(name, SPACE.group("NP")) > 1e-2


def test_descent_follows_the_gradient_and_the_signs_of_sines():
    weights = {n: torch.tensor(x[..., 0], requires_grad=True) for n, x in FEATURES.items()}
    points = torch.tensor(coordinates(5, 7), dtype=torch.float64)
    activations, slopes, values = propagate(weights, points, namespace_of(points))
    torch.testing.assert_close(values, render(weights, points, torch.sin), rtol=1e-12, atol=1e-12)
    error = torch.tensor(RNG.normal(size=values.shape))
    found = descent(weights, activations, slopes, error, namespace_of(points))
    exact = torch.autograd.grad((error * values).sum(), list(weights.values()))
    for (name, x), expected in zip(weights.items(), exact, strict=True):
        frequency = OMEGA ** (3 - int(name[1:]))  # one factor for each sine on the way
        torch.testing.assert_close(found[name] * frequency, expected, rtol=1e-9, atol=1e-9)
        assert x.shape == expected.shape
    signs = np.array([-1.0, 1, 1, -1, 1, 1])
    flipped = FEATURES | {
        "W1": FEATURES["W1"] * signs[:, None, None],
        "v1": FEATURES["v1"] * signs[:, None],
        "W2": FEATURES["W2"] * signs[:, None],
    }
    edited, other = (BUILT["Descent"].layer.apply(PARAMETERS["Descent"], x) for x in (FEATURES, flipped))
    np.testing.assert_allclose(other["W1"], edited["W1"] * signs[:, None, None], atol=1e-12)
    np.testing.assert_allclose(other["W3"], edited["W3"], atol=1e-12)
    assert np.abs(edited["W1"] - FEATURES["W1"]).max() > 1e-4


@pytest.mark.parametrize("name", METHODS)
def test_loss_is_the_error_of_the_edited_image_in_every_backend(name):
    layer, params = BUILT[name].layer, PARAMETERS[name]
    edited = layer.apply(params, FEATURES)
    if name != "Descent":
        change = {n: (edited[n] - x) / 0.01 for n, x in FEATURES.items()}
        network = {n.removeprefix("0."): p for n, p in params.items() if n.startswith("0.")}
        assert apart(layer.edit.layer.layers[0].apply(network, FEATURES), change) < 1e-9
    expected = np.mean((draw(edited, 5, 7) - IMAGES) ** 2, axis=(1, 2, 3))
    inputs = FEATURES | {IMAGE: IMAGES}
    losses = [layer.apply(params, inputs)]
    module = nfn_torch.NFModule(layer, 1, dtype=torch.float64).eval()
    losses.append(module({n: torch.tensor(x) for n, x in inputs.items()}).detach().numpy())
    with jax.enable_x64(True):
        run = jax.jit(partial(nfn_jax.apply, layer))
        found = nfn_jax.init(layer, 1, "float64")
        losses.append(np.asarray(run(found, {n: jnp.asarray(x) for n, x in inputs.items()})))
    for loss in losses:
        assert loss.shape == (4,)
        np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert np.abs(errors(FEATURES, IMAGES) - expected).max() > 1e-5


def test_gradient_reaches_every_scale_and_the_network():
    def gradients(scale):
        module = nfn_torch.NFModule(BUILT["NFN_NP"].layer, 1, dtype=torch.float64)
        for name, p in module.named_parameters():
            if name.startswith("1."):
                assert p.shape == (1,)
                assert p.item() == pytest.approx(0.01)
                p.data[:] = scale
        module({n: torch.tensor(x) for n, x in (FEATURES | {IMAGE: IMAGES}).items()}).mean().backward()
        return {name: p.grad.abs().max().item() for name, p in module.named_parameters()}

    found = gradients(0.01)
    assert sum(name.startswith("1.") for name in found) == len(SPACE.tensors)
    assert min(found.values()) > 0
    without = gradients(0.0)
    assert min(x for name, x in without.items() if name.startswith("1.")) > 0
    assert max(x for name, x in without.items() if name.startswith("0.")) == 0


def test_rows_and_back():
    row = Flatten(SPACE).apply({}, FEATURES)
    back = Unflatten(SPACE).apply({}, row)
    assert back.keys() == FEATURES.keys()
    assert apart(back, FEATURES) == 0
    with pytest.raises(FeatureError, match=rf"expected shape \(batch, {SPACE.size}\)"):
        Unflatten(SPACE).apply({}, row[:, 1:])


# Training


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    maker = SirenMaker("digits", SirenPreset(24, 6, 8, 1, 1e-2, 60, True), 0, "torch", 38)
    return write_dataset(folder, maker.run(0), quality={"psnr": {"median": 1.0}})


def prepared(name, dataset, config=SIZES):
    task, training = Editing("dilate"), dataset.split("training")
    method = task.build(name, dataset.space, dataset.features(training), config)
    return method, task.split(method, dataset, training)


def test_only_mlp_aug_permutes(dataset):
    chosen = np.arange(4)
    for name in ("MLP", "MLP_Aug", "NFN_NP"):
        part = prepared(name, dataset)[1]
        still, drawn = part.inputs(chosen, None), part.inputs(chosen, np.random.default_rng(0))
        np.testing.assert_array_equal(drawn.pop(IMAGE), still.pop(IMAGE))
        assert (apart(drawn, still) > 0) == (name == "MLP_Aug")
        np.testing.assert_allclose(draw(drawn, 8, 8), draw(still, 8, 8), atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["NFN_HNP", "MLP_Aug"])
def test_an_interrupted_editor_ends_the_same_and_learns(backend, name, dataset, tmp_path):
    method, part = prepared(name, dataset, replace(SIZES, mlp=64))
    recipe = Recipe("custom", 60, 8, 3e-3, eval_every=20)
    whole, curve = fit(engine(backend), name, method.layer, part, part, recipe, 0, tmp_path / "whole")
    fit_until_killed(27, engine(backend), method, part, recipe, tmp_path / "cut")
    again, second = fit(engine(backend), name, method.layer, part, part, recipe, 0, tmp_path / "cut")
    assert second == curve
    assert apart(whole.state(), again.state()) == 0
    everything = part.inputs(np.arange(len(part)), None)
    untouched = errors(everything, everything.pop(IMAGE)).mean()
    assert -curve[-1]["metric"] < 0.9 * untouched
    learner = engine(backend).learner(method.layer, recipe, 0)
    assert learner.apply(part.inputs(np.arange(len(part)), None)).mean() > 0.9 * untouched


TRAINED = {"table6-dilate": ("NFN_NP", "MLP"), "table3": ("NFN_NP", "MLP", "STATNN")}


@pytest.fixture(scope="module")
def results(dataset, tmp_path_factory):
    """Results of two experiments, trained briefly in both backends."""
    folder = tmp_path_factory.mktemp("results")
    for (name, methods), backend in zip(TRAINED.items(), BACKENDS, strict=True):
        runner.run(name, "smoke", backend, folder / name, {"MNIST": dataset}, methods, range(1))
    return folder


def test_results_name_the_error_of_leaving_the_weights_alone(dataset, results, tmp_path):
    task = Editing("dilate")
    method = task.build("MLP", dataset.space, dataset.features(dataset.split("training")), SIZES)
    test = task.split(method, dataset, dataset.split("test"))
    everything = test.inputs(np.arange(len(test)), None)
    found = [
        json.loads((results / f"table6-dilate/MNIST/{name}-seed0.json").read_text())
        for name in TRAINED["table6-dilate"]
    ]
    untouched = errors(everything, everything.pop(IMAGE)).mean()
    for result in found:
        assert result["metrics"]["test_error_unedited"] == pytest.approx(untouched, rel=1e-5)
        assert result["metrics"]["test_error"] != pytest.approx(untouched, rel=1e-5)
        assert len(json.dumps(result)) < 20_000
    page = report(results / "table6-dilate").read_text()
    (row,) = [line for line in page.splitlines() if line.startswith("| MNIST | NFN_NP |")]
    assert f"{untouched:.3f} ± 0.000" in row
    assert (results / "table6-dilate/figures/table6-dilate-smoke-torch-MNIST-predictions.png").exists()


def test_only_inrs_of_images_are_edited(dataset):
    method = prepared("MLP", dataset)[0]
    columns = dataset.columns.copy()
    try:
        del dataset.columns["image"]
        with pytest.raises(ExperimentError, match="is not of INRs of images"):
            Editing("contrast").split(method, dataset, dataset.split("test"))
    finally:
        dataset.columns.update(columns)
    with pytest.raises(ExperimentError, match="DWSNets edits no networks"):
        prepared("DWSNets", dataset)


# Commands


def command(*arguments, message=None):
    done = CliRunner().invoke(main, [str(x) for x in arguments])
    assert (done.exit_code == 0) == (message is None), done.output
    if message is not None:
        assert message in done.output.replace("\n", " ")
        assert isinstance(done.exception, SystemExit)  # not a traceback
    return done.output


def test_edited_networks_are_ordinary_models(dataset, results, tmp_path):
    trained = results / "table6-dilate" / "MNIST" / "NFN_NP-seed0"
    command("edit", trained, dataset.folder, tmp_path / "edited", "--split", "test")
    test = dataset.split("test")
    paths = sorted((tmp_path / "edited").glob("*.safetensors"))
    assert [path.stem for path in paths] == [f"network-{number:06}" for number in test]
    method = prepared(
        "NFN_NP", dataset, MethodConfig(**json.loads(trained.with_suffix(".json").read_text())["config"])
    )[0]
    module = nfn_torch.load(trained / "parameters.safetensors", method.layer)  # of this very description
    features = {name: torch.tensor(x) for name, x in dataset.features(test).items()}
    expected = {name: x.detach().numpy() for name, x in module(features).items()}
    points = coordinates(8, 8)
    for k, path in enumerate(paths):
        tree = load_file(path)
        assert max(np.abs(tree[name] - x[k, ..., 0]).max() for name, x in expected.items()) < 1e-6
        siren = Siren(dataset.space)
        siren.load_state_dict({name: torch.tensor(np.asarray(x)) for name, x in tree.items()})
        values = siren(torch.tensor(points.T)).detach().numpy()
        np.testing.assert_allclose(values, render(tree, jnp.asarray(points), jnp.sin).T, atol=1e-3)
        np.testing.assert_allclose(values, ordinary(expected, k)(torch.tensor(points.T)).detach(), atol=1e-3)
        assert np.abs(values - ordinary(features, k)(torch.tensor(points.T)).detach().numpy()).max() > 1e-2
    assert (tmp_path / "edited" / "edit.png").exists()


def save_own(folder, dataset, form="state-dicts", numbers=range(3)):
    """Networks as a user may have them: modules of their own, with their own names."""
    folder.mkdir()
    features = dataset.features(np.arange(len(dataset)))
    for k in numbers:
        module = torch.nn.ModuleDict({"net": ordinary(features, k)})
        if form == "safetensors":
            save_file(module.state_dict(), folder / f"{k}.safetensors")
        else:
            torch.save(module.state_dict(), folder / f"{k}.pth")
    return folder


@pytest.mark.parametrize("form", ["state-dicts", "safetensors"])
def test_a_users_own_files_come_back_with_their_names(form, dataset, results, tmp_path):
    trained, own = results / "table6-dilate" / "MNIST" / "NFN_NP-seed0", save_own(tmp_path / "custom", dataset, form)
    command("edit", trained, own, tmp_path / "out", "--format", "state-dicts")
    command("edit", trained, dataset.folder, tmp_path / "all")
    module = torch.nn.ModuleDict({"net": ordinary(dataset.features(np.arange(3)))})
    names = {
        f"net.{2 * i}.{kind}": f"{letter}{i + 1}" for i in range(3) for kind, letter in (("weight", "W"), ("bias", "v"))
    }
    for k in range(3):
        state = torch.load(tmp_path / "out" / f"{k}.pth", weights_only=True)
        module.load_state_dict(state)
        same = read_arrays(tmp_path / "all" / f"network-{k:06}.safetensors")
        assert max(np.abs(x.numpy() - same[names[name]]).max() for name, x in state.items()) < 1e-6


def test_predictions_are_those_of_the_experiment(dataset, results, tmp_path):
    for name in ("NFN_NP", "MLP"):
        trained = results / "table3" / "MNIST" / f"{name}-seed0"
        command("predict", trained, dataset.folder, tmp_path / f"{name}.csv", "--split", "test")
        with (tmp_path / f"{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        predicted = json.loads(trained.with_suffix(".json").read_text())["details"]["predicted"]
        assert [int(row["prediction"]) for row in rows] == predicted
        for row in rows:
            shares = [float(row[f"probability_{k}"]) for k in range(10)]
            assert sum(shares) == pytest.approx(1)
            assert int(np.argmax(shares)) == int(row["prediction"])
    files = save_own(tmp_path / "custom", dataset, numbers=dataset.split("test")[:2].tolist())
    command("predict", trained, files, tmp_path / "own.csv")
    assert [row.split(",")[1] for row in (tmp_path / "own.csv").read_text().splitlines()[1:]] == [
        *map(str, predicted[:2])
    ]


def test_what_does_not_fit_is_named(dataset, results, tmp_path):
    editor, predictor = results / "table6-dilate/MNIST/NFN_NP-seed0", results / "table3/MNIST/NFN_NP-seed0"
    out, own = tmp_path / "out", save_own(tmp_path / "custom", dataset)
    command("predict", editor, own, tmp_path / "x.csv", message="expected a method of `run` table2 or table3")
    command("edit", predictor, own, out, message="expected a method of `run` table6-dilate or table6-contrast")
    command("predict", results / "table3/MNIST/STATNN-seed0", own, tmp_path / "x.csv", message="STATNN needs more than")
    command("edit", results / "table6-dilate", own, out, message="is no trained method")
    command("edit", editor, own, own, message="name another folder")
    command("edit", editor, own, out, "--split", "test", message="leave the split out")
    (tmp_path / "empty").mkdir()
    command("edit", editor, tmp_path / "empty", out, message="there are 0 such files")
    save_file({"W1": torch.zeros(3)}, own / "0.safetensors")
    command("edit", editor, own, out, message="0.safetensors: tensor 'W1' is no weight or bias")
    save_file(torch.load(own / "0.pth"), own / "0.safetensors")
    command("edit", editor, own, out, message="there are 4 such files of 3 names")
    (own / "0.safetensors").unlink()
    state = torch.load(own / "1.pth")
    torch.save({name: x[:, :1] if x.ndim == 2 else x for name, x in state.items()}, own / "1.pth")
    command("edit", editor, own, out, message="1.pth: expected tensors of shapes {'net.0.weight': (32, 2)")
    torch.save(state | {"net.2.bias": torch.full((32,), torch.nan)}, own / "1.pth")
    command("edit", editor, own, out, message="1.pth holds NaN or infinity")
    (own / "1.pth").write_bytes(b"no state dict")
    command("edit", editor, own, out, message="1.pth is damaged, or no state dict")
    other = tmp_path / "other"
    write_dataset(other, replace_width(dataset))
    command("edit", editor, other, out, message="expected networks with tensors of shapes {'W1': (32, 2)")
    assert not out.exists()


def test_networks_that_are_not_finite_are_named(dataset, results, tmp_path):
    editor, predictor = results / "table6-dilate/MNIST/NFN_NP-seed0", results / "table3/MNIST/NFN_NP-seed0"
    shard = dataset.shards[0]
    weights = {name: x.copy() for name, x in shard.weights.items()}
    weights["W1"][3, 0, 0], weights["v2"][5, 0] = np.nan, np.inf
    write_dataset(tmp_path / "bad", replace(shard, weights=weights))
    message = "bad network-000003, network-000005 hold NaN or infinity: take these networks out."
    command("edit", editor, tmp_path / "bad", tmp_path / "out", message=message)
    command("predict", predictor, tmp_path / "bad", tmp_path / "x.csv", message=message)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "x.csv").exists()
    weights["W1"][3, 0, 0], weights["v2"][5, 0] = 1e38, 0
    write_dataset(tmp_path / "large", replace(shard, weights=weights))
    message = "outputs of NFN_NP for networks network-000003 hold NaN or infinity"
    with np.errstate(all="ignore"):
        command("predict", predictor, tmp_path / "large", tmp_path / "x.csv", message=message)


def test_flipped_bits_stop_predictions(dataset, results, tmp_path):
    editor, predictor = results / "table6-dilate/MNIST/NFN_NP-seed0", results / "table3/MNIST/NFN_NP-seed0"
    write_dataset(tmp_path / "data", dataset.shards[0])
    path = tmp_path / "data" / "shard-00000.safetensors"
    path.write_bytes(flipped(path.read_bytes(), 8 * 3000))
    for name, trained in (("edit", editor), ("predict", predictor)):
        command(
            name, trained, tmp_path / "data", tmp_path / name, message="shard-00000.safetensors is damaged: its SHA-256"
        )
        command(name, trained, tmp_path / "data", tmp_path / name, "--no-check")
    parameters = tmp_path / "MLP-seed0" / "parameters.safetensors"
    parameters.parent.mkdir()
    source = results / "table3" / "MNIST" / "MLP-seed0"
    (tmp_path / "MLP-seed0.json").write_bytes(source.with_suffix(".json").read_bytes())
    parameters.write_bytes(flipped((source / "parameters.safetensors").read_bytes(), 8 * 5000))
    message = "its contents do not agree with the checksum"
    command("predict", parameters.parent, dataset.folder, tmp_path / "y.csv", message=message)


def replace_width(dataset):
    """The networks without their last neuron of each hidden layer."""
    shard, space = dataset.shards[0], WeightSpace.mlp([2, 31, 31, 1])
    weights = {t.name: shard.weights[t.name][(slice(None), *map(slice, t.shape))] for t in space.tensors}
    return replace(shard, space=space, weights=weights)


def test_damaged_results_are_named(dataset, results, tmp_path):
    trained = results / "table6-dilate/MNIST/MLP-seed0"
    result, parameters = trained.with_suffix(".json"), trained / "parameters.safetensors"
    arguments = ("edit", trained, dataset.folder, tmp_path / "out")
    about, whole = result.read_text(), parameters.read_bytes()
    try:
        result.write_text(about[:-20])
        command(*arguments, message="MLP-seed0.json is damaged")
        write_json(result, {k: v for k, v in json.loads(about).items() if k not in ("config", "checksum")})
        command(*arguments, message="no result of `run` of this version (KeyError: 'config')")
        details = json.loads(about)["details"] | {"pixels": [8]}
        write_json(result, {k: v for k, v in json.loads(about).items() if k != "checksum"} | {"details": details})
        command(*arguments, message="(ValueError: an editor's images have height and width, not [8])")
        result.write_text(about)
        parameters.write_bytes(whole[:-20])
        command(*arguments, message="parameters.safetensors")
        parameters.write_bytes((trained.parent / "NFN_NP-seed0" / "parameters.safetensors").read_bytes())
        command(*arguments, message="these are not the parameters of this layer")
    finally:
        result.write_text(about)
        parameters.write_bytes(whole)
    command(*arguments)
