"""Datasets of networks: makers, shards, interrupted and damaged runs."""

import hashlib
import json
import os
from functools import partial

import jax
import numpy as np
import pytest
from helpers import command, kill_when_there, write_dataset
from makers import TinyMaker
from safetensors import safe_open
from safetensors.numpy import save_file
from torch.utils.data import DataLoader

from nfn_core import WeightSpace
from reference_experiments.cli import datasets as commands
from reference_experiments.datasets import format as formats
from reference_experiments.datasets import generation, image_inrs, lottery_tickets, model_zoos, shape_inrs
from reference_experiments.datasets.conversion import read_small_cnn_zoo
from reference_experiments.datasets.format import (
    Networks,
    WeightDataset,
    is_whole,
    mapped,
    read_shard,
    shard_path,
    space_from_json,
    space_to_json,
    write_shard,
)
from reference_experiments.datasets.jax import batches
from reference_experiments.datasets.torch import TorchNetworks
from reference_experiments.engines.base import BACKENDS
from reference_experiments.files import ExperimentError, digest, read_json, write_json
from reference_experiments.networks import classifiers, sirens
from reference_experiments.sources import images

SPACE = WeightSpace.mlp([2, 3, 1])
SETTINGS = digest({})


def networks(count, seed=0, masks=False):
    rng = np.random.default_rng(seed)
    weights = {t.name: rng.standard_normal((count, *t.shape)).astype(np.float32) for t in SPACE.tensors}
    columns = {"split": (np.arange(count) % 3).astype(np.uint8), "label": rng.integers(10, size=count).astype(np.int32)}
    return Networks(SPACE, weights, columns, {"seed": seed}, {n: x > 0 for n, x in weights.items()} if masks else {})


def write_random_dataset(folder, counts=(5, 4)):
    parts = [networks(n, seed=k, masks=True) for k, n in enumerate(counts)]
    return write_dataset(folder, *parts), {n: np.concatenate([p.weights[n] for p in parts]) for n in parts[0].weights}


# Shards and datasets


@pytest.mark.parametrize(
    "space",
    [SPACE, WeightSpace.cnn([1, 2, 3], [(3, 3), ()]), WeightSpace.from_axes({"R": [("h", 4), ("h", 4), (None, 2)]})],
    ids=["mlp", "cnn", "rnn"],
)
def test_space_survives_json(space):
    again = space_from_json(json.loads(json.dumps(space_to_json(space))))
    assert [(t.name, t.shape, t.labels) for t in again.tensors] == [(t.name, t.shape, t.labels) for t in space.tensors]
    assert (again.inputs, again.outputs) == (space.inputs, space.outputs)


def test_dataset_gives_back_what_was_written(tmp_path):
    dataset, expected = write_random_dataset(tmp_path)
    assert len(dataset) == 9
    order = [8, 0, 4, 5, 5]
    found, masks = dataset.features(order), dataset.features(order, "masks")
    for name, x in expected.items():
        np.testing.assert_array_equal(found[name][..., 0], x[order])
        np.testing.assert_array_equal(masks[name][..., 0], x[order] > 0)
        np.testing.assert_array_equal(dataset.network(6)[name][..., 0], x[6])
        assert np.shares_memory(dataset.network(6)[name], dataset.shards[1].weights[name])
    assert dataset.split("validation").tolist() == [1, 4, 6]
    dataset.verify()
    again = tmp_path / "again"
    write_random_dataset(again)
    for k in range(2):
        assert shard_path(again, k).read_bytes() == shard_path(tmp_path, k).read_bytes()
    line = (tmp_path / "shard-00001.sha256").read_text()
    assert line == f"{hashlib.sha256(shard_path(tmp_path, 1).read_bytes()).hexdigest()}  shard-00001.safetensors\n"


def test_torch_and_jax_read_it_alike(tmp_path):
    dataset, expected = write_random_dataset(tmp_path)
    chosen = dataset.split("training")
    loaded = TorchNetworks(dataset, "label", chosen)
    first, target = loaded[0]
    assert np.shares_memory(first["W1"].numpy(), dataset.shards[0].weights["W1"])
    assert target.item() == dataset.columns["label"][chosen[0]]
    features, targets = next(iter(DataLoader(loaded, batch_size=len(chosen))))
    ((features_jax, targets_jax),) = batches(dataset, "label", chosen, size=10)
    for name in expected:
        np.testing.assert_array_equal(features[name], features_jax[name])
    np.testing.assert_array_equal(targets, targets_jax)
    shuffled = [np.asarray(t) for _, t in batches(dataset, "label", np.arange(9), 4, seed=1)]
    assert [len(t) for t in shuffled] == [4, 4, 1]
    assert sorted(np.concatenate(shuffled)) == sorted(dataset.columns["label"])
    assert isinstance(features_jax["W1"], jax.Array)


def test_damage_is_found_and_named(tmp_path):
    _dataset, _ = write_random_dataset(tmp_path)
    path = shard_path(tmp_path, 1)
    whole = path.read_bytes()
    assert is_whole(path)
    path.write_bytes(whole[:-4] + bytes(4))
    for check in (partial(is_whole, path), partial(WeightDataset, tmp_path), WeightDataset(tmp_path, False).verify):
        with pytest.raises(ExperimentError, match="shard-00001.safetensors is damaged: its SHA-256 is not the one"):
            check()
    for damaged in (whole[:-1], whole[:40], b"", whole[:20] + b"x" + whole[21:]):
        path.write_bytes(damaged)
        with pytest.raises(ExperimentError, match="shard-00001.safetensors is damaged, or no shard of networks"):
            WeightDataset(tmp_path, check=False)
    path.unlink()
    assert not is_whole(path)
    with pytest.raises(ExperimentError, match="shard-00001.safetensors is missing"):
        WeightDataset(tmp_path)
    write_shard(path, networks(3), 1, SETTINGS)
    with pytest.raises(ExperimentError, match="does not belong to this dataset"):
        WeightDataset(tmp_path)
    path.with_suffix(".sha256").write_bytes(b"\xff\xfe")
    with pytest.raises(ExperimentError, match="shard-00001.sha256 is damaged, or no file of a checksum"):
        is_whole(path)
    (tmp_path / "dataset.json").unlink()
    with pytest.raises(ExperimentError, match="holds no finished dataset"):
        WeightDataset(tmp_path)


def test_checksums_are_compared_once_in_a_process(tmp_path, monkeypatch):
    write_random_dataset(tmp_path)
    compared = []
    monkeypatch.setattr(formats, "_checksum", lambda path: compared.append(path.name) or "0" * 64)
    WeightDataset(tmp_path)  # whole when it was first opened
    assert compared == []
    path = shard_path(tmp_path, 0)
    path.write_bytes(path.read_bytes())  # it may be another now
    with pytest.raises(ExperimentError, match="shard-00000.safetensors is damaged"):
        WeightDataset(tmp_path)
    assert compared == ["shard-00000.safetensors"]


def test_shards_know_who_they_are(tmp_path):
    dataset, _ = write_random_dataset(tmp_path / "a")
    path, other = (shard_path(tmp_path / "a", k) for k in (0, 1))
    whole = path.read_bytes()
    for ending in (".safetensors", ".sha256"):
        path.with_suffix(ending).write_bytes(other.with_suffix(ending).read_bytes())
    with pytest.raises(
        ExperimentError, match="shard-00000.safetensors is another shard: expected number 0 .* number 1"
    ):
        WeightDataset(tmp_path / "a", check=False)
    write_shard(path, networks(5, masks=True), 0, "f" * 64)
    with pytest.raises(ExperimentError, match=f"settings {SETTINGS[:8]}, but it is number 0 of ffffffff"):
        read_shard(path, 0, SETTINGS)
    write_shard(path, networks(5, masks=True), 0, SETTINGS)
    assert path.read_bytes() == whole
    assert len(WeightDataset(tmp_path / "a")) == len(dataset)
    header = json.loads(safe_open(path, "numpy").metadata()["nfn-core"])
    del header["index"], header["settings"]
    first = {"nfn-core": json.dumps(header | {"format": "nfn-core weights 1"})}
    save_file(mapped(path)[0], path, first)
    with pytest.raises(
        ExperimentError, match="is of the format 'nfn-core weights 1', .*: make it again with this version"
    ):
        read_shard(path, 0, SETTINGS)


def test_networks_that_are_there_twice_are_found(tmp_path):
    first, second = networks(5), networks(4, seed=1)
    for name, x in second.weights.items():
        x[2] = first.weights[name][1]
    second.columns["split"][2] = 0  # the first one is of the validation networks
    message = "shard-00001.safetensors: network 2 is the same as network 1 of shard-00000.safetensors"
    with pytest.raises(ExperimentError, match=message):
        write_dataset(tmp_path, first, second)
    second.columns["split"][2] = 1  # in one split, but of another label: a checkpoint that learned nothing
    second.columns["label"][2] = 1 + first.columns["label"][1]
    write_dataset(tmp_path, first, second).verify()
    second.columns["label"][2] -= 1
    with pytest.raises(ExperimentError, match=message):
        write_dataset(tmp_path, first, second)


def test_networks_are_chosen_by_number_or_mask(tmp_path):
    dataset, expected = write_random_dataset(tmp_path)
    mask = dataset.columns["label"] > 4
    assert 1 < mask.sum() < 9
    np.testing.assert_array_equal(dataset.features(mask)["W1"][..., 0], expected["W1"][mask])
    np.testing.assert_array_equal(TorchNetworks(dataset, "label", mask).indices, np.flatnonzero(mask))
    assert np.concatenate([*dataset.batches(mask, 2)]).tolist() == np.flatnonzero(mask).tolist()
    assert len(dataset.features([])["W1"]) == 0
    for wrong, message in (
        ([0, 9], "has networks 0 to 8, but number 9"),
        ([-1], "has networks 0 to 8, but number -1"),
        ([0.0], "but float64 of shape \\(1,\\) came"),
        (mask[:-1], "or booleans, shape \\(9,\\), but bool of shape \\(8,\\) came"),
        ([[0]], "but int64 of shape \\(1, 1\\) came"),
    ):
        for take in (dataset.features, partial(TorchNetworks, dataset, "label"), lambda x: dataset.batches(x, 2)):
            with pytest.raises(ExperimentError, match=message):
                take(wrong)
    with pytest.raises(ExperimentError, match="number 9 is asked for"):
        dataset.network(9)
    with pytest.raises(ExperimentError, match="there is no split 'train': choose one of training, validation, test"):
        dataset.split("train")
    for take in (lambda: TorchNetworks(dataset, "quality"), lambda: next(batches(dataset, "quality", [0], 1))):
        with pytest.raises(ExperimentError, match="there is no column 'quality': choose one of label, split"):
            take()
    with pytest.raises(ExperimentError, match="holds no masks of networks"):
        write_dataset(tmp_path / "dense", networks(3)).features([0], "masks")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about: about["shards"][0].update(file="../shard-00000.safetensors"), "its shards are not named"),
        (lambda about: about.update(shards=[]), "its shards are not named"),
        (lambda about: about.update(shards=3), "damaged, or no dataset of the format"),
        (lambda about: about.pop("space"), "KeyError: 'space'"),
        (lambda about: about.update(settings=None), "is another shard"),
        (lambda about: about["shards"][0].update(networks=1), "does not belong to this dataset"),
    ],
)
def test_descriptions_of_other_datasets_are_refused(change, message, tmp_path):
    write_random_dataset(tmp_path)
    path = tmp_path / "dataset.json"
    about = read_json(path)
    change(about)
    write_json(path, about)
    with pytest.raises(ExperimentError, match=message):
        WeightDataset(tmp_path)


def test_networks_of_wrong_shapes_are_refused():
    good = networks(3)
    for weights, columns in (
        ({**good.weights, "W1": good.weights["W1"][:, :2]}, good.columns),
        ({n: x for n, x in good.weights.items() if n != "v1"}, good.columns),
        (good.weights, {"label": np.zeros(2)}),
    ):
        with pytest.raises(ExperimentError, match="expected arrays of shapes"):
            Networks(SPACE, weights, columns)


# Makers


def test_a_killed_process_and_copies_are_named(tmp_path):
    with pytest.raises(ExperimentError, match="a process that made networks was killed, .* again to go on"):
        generation.make(TinyMaker(killed=True), tmp_path / "a", 1)
    generation.make(TinyMaker(), tmp_path / "a", 1)
    dataset = WeightDataset(tmp_path / "a")
    assert (len(dataset), dataset.about["settings"]) == (6, digest({"title": "tiny"}))
    message = "shard-00001.safetensors: network 0 is the same as network 0 of shard-00000.safetensors"
    with pytest.raises(ExperimentError, match=message):
        generation.make(TinyMaker(again=True), tmp_path / "b", 1)
    assert not (tmp_path / "b" / "dataset.json").exists()
    with pytest.raises(ExperimentError, match="holds a run with settings"):
        generation.make(TinyMaker(title="other"), tmp_path / "a", 1)


@pytest.mark.parametrize(("options", "count"), [({}, 5), ({"gpu": True}, 1), ({"gpu": True, "devices": 2}, 2)])
def test_each_core_has_a_process_and_so_has_one_gpu(options, count, tmp_path, monkeypatch):
    def processes(devices, *_):
        raise ExperimentError(f"{devices} processes")

    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    monkeypatch.setattr(generation, "_processes", processes)
    with pytest.raises(ExperimentError, match=f"^{count} processes"):
        generation.make(TinyMaker(), tmp_path, **options)


MAKE = {
    "image-inrs": ["image-inrs", "--images", "digits"],
    "shape-inrs": ["shape-inrs", "--shapes", "primitives"],
    "cnn-zoo": ["cnn-zoo", "--images", "digits"],
    "mlp-zoo": ["mlp-zoo", "--images", "digits"],
    "tickets": ["tickets", "--images", "digits"],
}


def make(name, folder):
    """Arguments that make a small dataset."""
    return ["make", *MAKE[name], "--scale", "smoke", "--output", folder]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("shard-*")}


@pytest.fixture(scope="module", params=MAKE)
def made(request, tmp_path_factory):
    """Each dataset, one of them made in two processes."""
    folder = tmp_path_factory.mktemp(request.param)
    command(*make(request.param, folder), "--devices", "2" if request.param == "image-inrs" else "1")
    return request.param, folder


def test_same_seed_same_bytes(made, tmp_path, monkeypatch):
    """A shard follows from its maker and number alone, so a resumed run ends the same; the seed is in the settings."""
    name, whole = made
    makers = []

    def catch(maker, *_):
        makers.append(maker)
        raise ExperimentError("caught")

    monkeypatch.setattr(commands, "make", catch)
    for seed in ("0", "1"):
        assert "caught" in command(*make(name, tmp_path), "--seed", seed, status=1)
    same, other = makers
    last = same.shards - 1
    write_shard(shard_path(tmp_path, last), same.run(last), last, digest(same.settings))
    assert contents(tmp_path).items() <= contents(whole).items()
    assert len(contents(tmp_path)) == 2
    assert digest(same.settings) != digest(other.settings)


@pytest.mark.slow(seconds=30)
@pytest.mark.parametrize("made", ["cnn-zoo"], indirect=True)
def test_killed_runs_go_on_and_damaged_shards_are_made_again(made, tmp_path):
    _, whole = made
    kill_when_there(tmp_path / "shard-00000.sha256", *make("cnn-zoo", tmp_path), "--devices", "1")
    assert not (tmp_path / "dataset.json").exists()
    first = shard_path(tmp_path, 0)
    first.write_bytes(first.read_bytes()[:-1] + b"?")
    output = command(*make("cnn-zoo", tmp_path), "--devices", "1")
    assert "shard-00000.safetensors is damaged" in output
    assert "made again" in output
    assert contents(tmp_path) == contents(whole)
    WeightDataset(tmp_path).verify()
    assert "holds a run with settings" in command(*make("cnn-zoo", tmp_path), "--seed", "1", status=1)
    for ending in (".safetensors", ".sha256"):  # test networks in the place of training networks
        first.with_suffix(ending).write_bytes(shard_path(tmp_path, 1).with_suffix(ending).read_bytes())
    assert "shard-00000.sha256 is damaged, or no file of a checksum" in command(*make("cnn-zoo", tmp_path))
    assert contents(tmp_path) == contents(whole)
    first.write_bytes(shard_path(tmp_path, 1).read_bytes())
    line = f"{hashlib.sha256(first.read_bytes()).hexdigest()}  {first.name}\n"
    first.with_suffix(".sha256").write_text(line)
    assert "shard-00000.safetensors is another shard" in command("verify", tmp_path, status=1)
    assert "shard-00000.safetensors is another shard" in command(*make("cnn-zoo", tmp_path))
    assert contents(tmp_path) == contents(whole)


def test_what_makers_make(made):
    name, folder = made
    dataset = WeightDataset(folder)
    columns = dataset.columns
    assert set(dataset.about["sources"]) == {"trimesh" if name == "shape-inrs" else "scikit-learn"}
    assert dataset.about["quality"]
    if name == "image-inrs":
        assert np.median(columns["psnr"]) > 40
        weights = {n: x[..., 0] for n, x in dataset.features(np.arange(8)).items()}
        targets = images.load_images("digits").train_images[columns["image"][:8]].reshape(8, 64) / 127.5 - 1
        points = sirens.coordinates(8, 8)
        error = ((sirens.render(weights, points, np.sin)[:, 0] - targets) ** 2).mean(axis=1)
        np.testing.assert_allclose(10 * np.log10(4 / error), columns["psnr"][:8], atol=0.2)
        assert columns["image"][:4].tolist() == [0, 0, 1, 1]
        assert (folder / "contact-sheet.png").exists()
    elif name == "shape-inrs":
        assert columns["error"].max() < 0.02
        assert columns["uniform error"].max() < 0.1
        assert np.bincount(columns["split"]).tolist() == [10, 10, 10]
        assert [dataset.about["classes"][k] for k in columns["label"][:4]] == ["box", "box", "cone", "cone"]
        assert dataset.about["omega_0"] == 30
        assert (folder / "slices.png").exists()
    elif name == "tickets":
        masks = dataset.features(np.arange(len(dataset)), "masks")
        for tensor, mask in masks.items():
            share = mask.mean(axis=tuple(range(1, mask.ndim)))
            assert (share == 1).all() if tensor[0] == "v" else (abs(share - 0.05) < 0.01).all()
        assert set(columns) >= {"dense accuracy", "ticket accuracy", "random accuracy"}
    else:
        assert (columns["accuracy"] <= 1).all()
        assert columns["accuracy"].max() > 0.15
        assert len(np.unique(columns["run"])) > len(dataset) / 3
        assert (folder / "quality.md").read_text().count("|") > 50
        assert (folder / "accuracies.png").exists()


def test_zoo_is_written_in_the_published_layout_too(made):
    name, folder = made
    if name != "cnn-zoo":
        assert not (folder / "small-cnn-zoo").exists()
        return
    dataset = WeightDataset(folder)
    last = dataset.columns["epoch"].max()
    again = read_small_cnn_zoo(folder / "small-cnn-zoo", step=last)
    chosen = np.flatnonzero(dataset.columns["epoch"] == last)
    for tensor, x in dataset.features(chosen).items():
        np.testing.assert_array_equal(again.weights[tensor], x[..., 0])
    np.testing.assert_array_equal(again.columns["accuracy"], dataset.columns["accuracy"][chosen])


@pytest.mark.parametrize("options", MAKE.values(), ids=MAKE)
def test_backends_begin_and_go_alike(options, tmp_path):
    """Same initial weights and order of data: after a short fit the backends differ by rounding only."""
    name = options[0]
    if name == "image-inrs":
        scale = image_inrs.SirenPreset(4, 0, 0, 1, 1e-3, 5, True)
        made = [image_inrs.SirenMaker("digits", scale, 0, backend).run(0) for backend in BACKENDS]
    elif name == "shape-inrs":
        scale = shape_inrs.ShapePreset(1, 1000, 64, 1e-3, 5, True)
        made = [shape_inrs.ShapeMaker("primitives", scale, 0, backend).run(0) for backend in BACKENDS]
    else:
        scale = model_zoos.ZooPreset(4, 4, 64, 50, 1, 16, 1)
        kinds = {"cnn-zoo": "cnn", "mlp-zoo": "mlp3"}
        makers = [
            lottery_tickets.TicketMaker("digits", "ticket-mlp", scale, 0, backend)
            if name == "tickets"
            else model_zoos.ZooMaker("digits", kinds[name], scale, 0, backend, model_zoos.Hyperparameters())
            for backend in BACKENDS
        ]
        made = [maker.run(0) for maker in makers]
    for tensor, x in made[0].weights.items():
        np.testing.assert_allclose(x, made[1].weights[tensor], rtol=0, atol=2e-3)
    other = sirens.initial(SPACE, 0, np.arange(3))
    np.testing.assert_array_equal(sirens.initial(SPACE, 0, np.arange(1, 3))["W1"], other["W1"][1:])
    assert not np.array_equal(sirens.initial(SPACE, 1, np.arange(3))["W1"], other["W1"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_dropout_drops_whole_channels(backend):
    trainer = classifiers.trainer_of(backend, "digits", (64, 32), "cnn", "sgd", "relu")
    library, pixels = trainer.library, trainer.images.train_images[None, :5]
    weights = classifiers.initial(trainer.space, [1, 1], [1.0, 1.0], [np.random.default_rng(k) for k in range(2)])
    arrays = {name: library.array(x) for name, x in weights.items()}
    kept = np.ones((2, 5, 48), np.float32)
    kept[:, :, 16:32] = 0  # no channel of the second layer is left, so the scores are the biases of the rest
    scores = library.numpy(classifiers.classify(trainer.space, arrays, library.array(pixels), kept=library.array(kept)))
    np.testing.assert_array_equal(scores, np.zeros_like(scores))
    columns = {name: np.full(2, 0.1, np.float32) for name in ("learning_rate", "weight_decay")}
    batches = np.arange(16).reshape(2, 2, 4)
    uniform = np.random.default_rng(0).random((2, 2, 4, 48), np.float32)

    def trained(share):
        state = classifiers.init_state(library, weights, columns | {"dropout": np.full(2, share, np.float32)})
        inputs = {"images": library.array(batches), "uniform": library.array(uniform)}
        return trainer.weights(trainer.program(state, inputs))

    plain = trainer.weights(trainer.program(classifiers.init_state(library, weights, columns), library.array(batches)))
    for name, x in trained(0.0).items():
        np.testing.assert_allclose(x, plain[name], rtol=1e-6, atol=1e-7)
    assert np.abs(trained(0.5)["W4"] - plain["W4"]).max() > 1e-3


def test_initializers():
    space, streams = WeightSpace.cnn([8, 16, 12], [(3, 3), ()]), [np.random.default_rng(k) for k in range(5)]
    weights = classifiers.initial(space, range(5), [0.3] * 5, streams)
    flat = weights["W1"].reshape(5, 16, -1)
    np.testing.assert_allclose(flat[2] @ flat[2].T, np.eye(16), atol=1e-5)
    np.testing.assert_allclose(flat[[0, 1, 3]].std(axis=(1, 2)), [(2 / 216) ** 0.5, (2 / 72) ** 0.5, 0.3], rtol=0.1)
    assert abs(flat[4]).max() <= 0.6
    assert not weights["v1"].any()


def test_masks_of_the_highest_scores():
    scores = {"W1": np.array([[[1.0, 5.0], [2.0, 0.5]]]), "v1": np.zeros((1, 2))}
    masks = lottery_tickets.masks_of(scores, 0.5)
    assert masks["W1"].tolist() == [[[False, True], [True, False]]]
    assert masks["v1"].all()
