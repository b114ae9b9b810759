"""Training that resumes exactly, several devices and machines, and running experiments."""

import itertools
import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import fit_until_killed, flipped, write_dataset
from separable import SPACE, run, separable_networks

from nfn_core import GradedGate, InvariantPool, MLPHead, NFLayer, ParameterError, Sequential, WeightSpace
from reference_experiments import report as reports
from reference_experiments import runner
from reference_experiments.cli import experiments as experiment_commands
from reference_experiments.cli import main
from reference_experiments.engines.base import BACKENDS, Recipe, Split, engine
from reference_experiments.experiments import EXPERIMENTS
from reference_experiments.experiments.base import Variant
from reference_experiments.files import (
    ExperimentError,
    MissingDataError,
    read_arrays,
    read_json,
    write_arrays,
    write_json,
)
from reference_experiments.inference import read_trained
from reference_experiments.methods.base import Method, MethodConfig
from reference_experiments.methods.registry import build
from reference_experiments.tasks.prediction import tau_upper_bound
from reference_experiments.training import METRICS, fit

ROOT = Path(__file__).parents[2]
SIZES = MethodConfig((4, 4), (4, 4), (8,), head_dropout=0.2, fourier=(4, 0.5), mlp=8, dws=(2, 2))
RECIPE = Recipe("classes", 12, 4, 1e-2, weight_decay=1e-2, warmup=4, cosine=True, eval_every=4)


def parts(name, config=SIZES):
    found = separable_networks(24)
    features = {n: x[..., None] for n, x in found.weights.items()}
    method = build(name, SPACE, features, 3, config)
    targets = found.columns["label"].astype(np.int64)
    return method, method.split(lambda chosen: {n: x[chosen] for n, x in features.items()}, targets)


def different(first, second):
    return [name for name in first if not np.array_equal(first[name], second[name])]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["NFN_NP", "MLP_Aug"])
def test_an_interrupted_training_ends_the_same(backend, name, tmp_path):
    method, part = parts(name)
    whole, curve = fit(engine(backend), name, method.layer, part, part, RECIPE, 0, tmp_path / "whole")
    fit_until_killed(7, engine(backend), method, part, RECIPE, tmp_path / "cut")  # three steps after a checkpoint
    again, second = fit(engine(backend), name, method.layer, part, part, RECIPE, 0, tmp_path / "cut")
    assert not different(whole.state(), again.state())
    assert second == curve
    other, _ = fit(engine(backend), name, method.layer, part, part, RECIPE, 1, tmp_path / "other")
    assert different(whole.state(), other.state())  # what is compared does depend on the run
    assert (tmp_path / "cut" / "parameters.safetensors").exists()
    assert list((tmp_path / "cut").glob("events.out.tfevents.*"))


CHANGES = {
    "lacks ['": lambda saved: saved.pop(next(n for n in saved if n.startswith("parameter"))),
    "holds unknown ['moment 99": lambda saved: saved.update({"moment 99 exp_avg": np.zeros(3, np.float32)}),
    "of other shapes {'parameter": lambda saved: saved.update(
        {n: x[:1] for n, x in saved.items() if n.startswith("parameter") and len(x) > 1}
    ),
    "of other shapes {'moment": lambda saved: saved.update(
        {n: np.zeros((7, 7), np.float32) for n in saved if n.startswith("moment 0")}
    ),
    "KeyError: 'progress'": lambda saved: saved.pop("progress"),
    "JSONDecodeError": lambda saved: saved.update(progress=saved["progress"][:-1]),
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_checkpoints_of_other_trainings_are_named(backend, tmp_path):
    method, part = parts("MLP")

    def again(folder, seed=0):
        fit(engine(backend), "MLP", method.layer, part, part, RECIPE, seed, folder)

    fit_until_killed(7, engine(backend), method, part, RECIPE, tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(ExperimentError, match=f"{path} is damaged, or no checkpoint of this training .*'seed': 0"):
        again(tmp_path, seed=1)
    whole = path.read_bytes()
    for message, change in CHANGES.items():
        saved = read_arrays(path)
        change(saved)
        write_arrays(path, saved)
        with pytest.raises(ExperimentError, match=re.escape(message)) as error:
            again(tmp_path)
        assert str(error.value).startswith(f"{path} is damaged, or no checkpoint of this training"), message
        path.write_bytes(whole)
    for place in np.random.default_rng(0).integers(8 * len(whole), size=30).tolist():
        path.write_bytes(flipped(whole, place))
        with pytest.raises(ExperimentError, match=f"^{path} (is damaged|has no checksum)"):
            again(tmp_path)
    path.write_bytes(whole)
    again(tmp_path)


def test_both_backends_train_alike(tmp_path):
    method, part = parts("NFN_HNP", config=replace(SIZES, head_dropout=0.0))  # each library draws its own dropout
    curves = [fit(engine(b), b, method.layer, part, part, RECIPE, 0, tmp_path / b)[1] for b in BACKENDS]
    for torch_look, jax_look in zip(*curves, strict=True):
        assert torch_look["loss"] == pytest.approx(jax_look["loss"], rel=1e-3)


def test_a_parameter_without_a_gradient_is_kept_and_restored():
    """Of gates of odd features, which the pooling leaves out."""
    group = WeightSpace.mlp([2, 3, 1]).group("HNP", signed=["h1"])
    graded = group.graded("all")
    pool = InvariantPool(graded)
    layers = (NFLayer(group, 1, 2, target=graded), GradedGate(graded, 2), pool, MLPHead((2 * pool.num_outputs, 2)))
    library = engine("torch")
    learner, again = (library.learner(Sequential(layers), RECIPE, seed) for seed in (0, 1))
    inputs = {t.name: np.ones((4, *t.shape, 1), np.float32) for t in group.space.tensors}
    learner.step(inputs, np.zeros(4, np.int64), 0)
    state = learner.state()
    assert any(p.grad is None for p in learner.network.parameters())
    again.restore(state)
    assert {name: x.tolist() for name, x in again.state().items()} == {name: x.tolist() for name, x in state.items()}
    with pytest.raises(ParameterError, match="it lacks .'moment 0 step'"):
        again.restore({name: x for name, x in state.items() if name != "moment 0 step"})


def test_training_stops_when_nothing_gets_better_and_keeps_the_best(tmp_path, monkeypatch):
    method, part = parts("MLP")
    evaluations = iter([0.5, 0.9, 0.1, 0.2, 0.3, 0.4])
    monkeypatch.setitem(METRICS, "classes", lambda predicted, actual: next(evaluations))
    recipe = replace(RECIPE, steps=24, patience=2)
    learner, curve = fit(engine("torch"), "MLP", method.layer, part, part, recipe, 0, tmp_path)
    assert [evaluation["metric"] for evaluation in curve] == [0.5, 0.9, 0.1, 0.2]
    saved = read_arrays(tmp_path / "checkpoint.safetensors")
    best = {n.removeprefix("best "): x for n, x in saved.items() if n.startswith("best ")}
    assert not different(best, learner.state())
    assert different(best, saved)  # the last look's are others
    evaluations = iter([0.5, 0.9])
    _, curve = fit(engine("torch"), "MLP", method.layer, part, part, recipe, 0, tmp_path / "enough", enough=0.9)
    assert [evaluation["metric"] for evaluation in curve] == [0.5, 0.9]


def test_learning_rate_rises_and_falls():
    rates = [RECIPE.rate(step) for step in range(12)]
    np.testing.assert_allclose(rates[:4], [0.0025, 0.005, 0.0075, 0.01])
    assert rates[4] == 0.01
    assert all(a > b for a, b in itertools.pairwise(rates[4:]))
    assert replace(RECIPE, cosine=False).rate(11) == 0.01


@pytest.mark.parametrize("backend", BACKENDS)
def test_bfloat16_trains_and_keeps_float32_parameters(backend, tmp_path):
    method, part = parts("NFN_NP")
    recipes = [replace(RECIPE, dtype=dtype) for dtype in ("float32", "bfloat16")]
    found = [fit(engine(backend), r.dtype, method.layer, part, part, r, 0, tmp_path / r.dtype) for r in recipes]
    (full, full_curve), (half, half_curve) = found
    assert {str(x.dtype) for name, x in half.state().items() if name.startswith("parameter")} == {"float32"}
    assert half_curve[-1]["loss"] == pytest.approx(full_curve[-1]["loss"], rel=0.1)
    assert different(full.state(), half.state())


@pytest.mark.parametrize("backend", BACKENDS)
def test_predictions_are_float32_after_training_in_bfloat16(backend):
    """Of the scores of 260 networks in bfloat16 only 138 were different."""
    method, part = parts("NFN_NP")
    full, half = (engine(backend).learner(method.layer, replace(RECIPE, dtype=d), 0) for d in ("float32", "bfloat16"))
    inputs = part.inputs(np.arange(24), None)
    np.testing.assert_array_equal(full.apply(inputs), half.apply(inputs))


TOGETHER = """
from pathlib import Path
from test_running import RECIPE, SIZES, engine, fit, parts, replace
from reference_experiments.files import write_arrays
library = engine({backend!r})
library.use(gpu=False, devices=2)
method, part = parts("NFN_PT gated", config=replace(SIZES, channels=(4,), head_dropout=0.0))
learner, _ = fit(library, method.name, method.layer, part, part, RECIPE, 0, Path({folder!r}) / "together")
write_arrays(Path({folder!r}) / "state.safetensors", learner.state())
"""


@pytest.mark.slow(seconds=10)
@pytest.mark.parametrize("backend", BACKENDS)
def test_two_devices_give_what_one_gives(backend, tmp_path):
    """A network with batch norm, whose statistics are of the whole batch on all devices."""
    method, part = parts("NFN_PT gated", config=replace(SIZES, channels=(4,), head_dropout=0.0))
    alone, _ = fit(engine(backend), method.name, method.layer, part, part, RECIPE, 0, tmp_path / "alone")
    script = tmp_path / "two.py"
    script.write_text(TOGETHER.format(backend=backend, folder=str(tmp_path)))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"] if backend == "torch" else []
    paths = ":".join(map(str, (Path(__file__).parent, ROOT / "tests", ROOT, ROOT / "backends", ROOT / "conformance")))
    environment = {**os.environ, "PYTHONPATH": paths}
    start = [sys.executable, *launch, str(script)]
    done = subprocess.run(start, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    together = read_arrays(tmp_path / "state.safetensors")
    # what batch norm takes away has rounding errors for a gradient, which Adam makes steps of: variances do not see it
    variances = [name for name in together if name.endswith("variance")]
    assert len(variances) == 7
    for name in variances:
        np.testing.assert_allclose(together[name], alone.state()[name], rtol=1e-2, err_msg=name)


def machine(backend, port, rank):
    """How Python starts on one of two machines with a device each, which meet at a port of this one."""
    meet = f"127.0.0.1:{port}"
    if backend == "jax":
        return [], {"WORLD_SIZE": "2", "RANK": str(rank), "JAX_COORDINATOR_ADDRESS": meet}
    torchrun = ("-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d")
    return [*torchrun, f"--rdzv-endpoint={meet}", "--rdzv-id=test", "--local-addr=127.0.0.1"], {}


@pytest.mark.slow(seconds=30)
@pytest.mark.parametrize("backend", BACKENDS)
def test_two_machines_give_what_two_devices_of_one_give(backend, dataset, tmp_path):
    """Of the quickest method: what neural functionals share between devices, `test_two_devices_give_what_one_gives` has."""
    options = ["table3", "--backend", backend, "--scale", "smoke", "--method", "MLP", "--seeds", "1", "--devices", "2"]
    options += ["--dataset-dir", "MNIST", str(dataset.folder), "--output"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for machines, output in (([([], {})], "one"), ([machine(backend, port, rank) for rank in range(2)], "two")):
        processes = [
            subprocess.Popen(
                [sys.executable, *launch, "-m", "reference_experiments", "run", *options, str(tmp_path / output)],
                cwd=ROOT,
                env=os.environ | variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for launch, variables in machines
        ]
        try:
            said = [process.communicate(timeout=200)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert [process.returncode for process in processes] == [0] * len(machines), said
    results = [read_json(tmp_path / name / "MNIST" / "MLP-seed0.json") for name in ("one", "two")]
    for result in results:
        del result["seconds"]
    assert results[0] == results[1]
    folders = [tmp_path / name / "MNIST" / "MLP-seed0" for name in ("one", "two")]
    assert len([path for path in folders[1].iterdir() if path.name.startswith("events")]) == 1  # of the first process
    for name in ("checkpoint.safetensors", "parameters.safetensors"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_processes_of_jax_say_where_they_meet_and_share_the_devices(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ExperimentError, match="3 devices cannot be split evenly among 2 processes"):
        engine("jax").use(gpu=False, devices=3)
    with pytest.raises(ExperimentError, match="need to know where they meet: set JAX_COORDINATOR_ADDRESS to HOST:PORT"):
        engine("jax").use(gpu=False, devices=2)


def test_processes_of_torchrun_are_as_many_as_devices_and_make_no_networks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "4")
    for devices in (1, 2):
        with pytest.raises(
            ExperimentError, match=f"{devices} devices were asked for, but there are 4 processes: start"
        ):
            engine("torch").use(gpu=False, devices=devices)
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ExperimentError, match="does not hold digits's networks, and several processes do not make"):
        runner.dataset_of(EXPERIMENTS["digits"], "digits", "smoke", "torch", None)
    assert not list(tmp_path.iterdir())


# Experiments


def test_an_experiment_writes_a_result_for_each_method_and_seed(dataset, tmp_path):
    run(dataset, tmp_path / "results")
    found = {path.name: json.loads(path.read_text()) for path in (tmp_path / "results" / "MNIST").glob("*-seed?.json")}
    assert set(found) == {"NFN_NP-seed0.json", "NFN_NP-seed1.json", "MLP-seed0.json", "MLP-seed1.json"}
    result = found["MLP-seed1.json"]
    test = dataset.split("test")
    assert result["details"]["actual"] == dataset.columns["label"][test].tolist()
    right = np.mean(np.array(result["details"]["predicted"]) == dataset.columns["label"][test])
    assert result["metrics"]["test_accuracy"] == pytest.approx(100 * right)
    assert result["data"]["networks"] == {"training": 10, "validation": 10, "test": 10}
    assert (result["overfit_check"] is None, found["MLP-seed0.json"]["overfit_check"] is None) == (True, False)
    before = (tmp_path / "results" / "MNIST" / "MLP-seed1.json").read_bytes()
    (tmp_path / "results" / "MNIST" / "MLP-seed0.json").unlink()
    run(dataset, tmp_path / "results")
    assert (tmp_path / "results" / "MNIST" / "MLP-seed1.json").read_bytes() == before
    again = json.loads((tmp_path / "results" / "MNIST" / "MLP-seed0.json").read_text())
    assert again["details"]["predicted"] == found["MLP-seed0.json"]["details"]["predicted"]


def test_results_in_each_others_place_are_named(dataset, tmp_path):
    run(dataset, tmp_path, methods=("MLP",), seeds=range(2))
    first, second = (tmp_path / "MNIST" / f"MLP-seed{k}.json" for k in (0, 1))
    whole = first.read_bytes()
    first.write_bytes(second.read_bytes())
    for read in (lambda: run(dataset, tmp_path, methods=("MLP",)), lambda: reports.report(tmp_path)):
        with pytest.raises(ExperimentError, match="MLP-seed0.json is not the result of MLP with seed 0"):
            read()
    (tmp_path / "copy").mkdir()
    for place in (first, tmp_path / "copy" / first.name):
        place.write_bytes(whole)
    with pytest.raises(ExperimentError, match="copy/MLP-seed0.json and .*MNIST/MLP-seed0.json are results of the same"):
        reports.report(tmp_path)
    (tmp_path / "copy" / first.name).unlink()
    first.write_bytes(whole.replace(b'"seed": 0', b'"seed": 5'))
    for read in (lambda: run(dataset, tmp_path, methods=("MLP",)), lambda: reports.report(tmp_path)):
        with pytest.raises(ExperimentError, match="MLP-seed0.json is damaged: its contents do not agree"):
            read()


def test_flipped_bits_of_a_dataset_stop_a_run(dataset, tmp_path):
    path = dataset.paths[0]
    whole = path.read_bytes()
    path.write_bytes(flipped(whole, 4 * len(whole)))
    options = ["table3", "--scale", "smoke", "--method", "MLP", "--seeds", "1"]
    arguments = [*options, "--dataset-dir", "MNIST", str(dataset.folder), "--output", str(tmp_path / "out")]
    done = CliRunner().invoke(experiment_commands.run_command, arguments)
    assert done.exit_code == 1
    assert "shard-00000.safetensors is damaged: its SHA-256" in done.output
    assert not (tmp_path / "out").exists()
    done = CliRunner().invoke(experiment_commands.run_command, [*arguments, "--no-check"])
    assert done.exit_code == 0, done.output


def test_variants_are_methods_with_changes(dataset, tmp_path, monkeypatch):
    study = EXPERIMENTS["siren-study"]
    monkeypatch.setitem(study.variants, "five", Variant("MLP", {"mlp": 3}, {"steps": 3}, networks=5))
    methods = ("as it is", "learning rate 0.004", "five")
    runner.run("siren-study", "smoke", "torch", tmp_path, {"MNIST": dataset}, methods, range(1))
    found = [json.loads(path.read_text()) for path in sorted((tmp_path / "MNIST").glob("*-seed0.json"))]
    assert [result["method"] for result in found] == ["as it is", "five", "learning rate 0.004"]
    assert [result["recipe"]["learning_rate"] for result in found] == [1e-3, 1e-3, 4e-3]
    assert [result["training_networks"] for result in found] == [10, 5, 10]
    assert [result["recipe"]["steps"] for result in found] == [6, 3, 6]
    assert [result["config"]["mlp"] for result in found] == [8, 3, 8]
    assert found[0]["parameters"] == found[2]["parameters"] != found[1]["parameters"]
    trained = read_trained(tmp_path / "MNIST" / "five-seed0")
    assert (trained.name, trained.config.mlp) == ("MLP", 3)
    runner.run("gates-study", "smoke", "torch", tmp_path / "gates", {"MNIST": dataset}, ("sigmoid gates",), range(1))
    trained = read_trained(tmp_path / "gates" / "MNIST" / "sigmoid-gates-seed0")
    assert (trained.name, trained.config.gating.activation) == ("NFN_HNP gated", "sigmoid")


@pytest.mark.parametrize(("study", "steps"), [("siren-study", 5000), ("gates-study", 2000), ("dilate-study", 1000)])
def test_every_variant_can_be_built(study, steps, dataset):
    study = EXPERIMENTS[study]
    features = dataset.features(np.arange(10))
    for name in study.methods:
        variant = study.variant(name)
        config = replace(study.config("small", "MNIST"), **variant.config)
        assert study.task.build(variant.method, SPACE, features, config).parameters > 0
        assert replace(study.scales["small"].recipe, **variant.recipe).steps == steps


@pytest.mark.parametrize(
    ("error", "asked"), [(MissingDataError, ()), (MissingDataError, ("--only", "SVHN-GS")), (ExperimentError, ())]
)
def test_a_dataset_is_left_out_only_if_it_is_missing_and_nobody_asked_for_it(error, asked, tmp_path, monkeypatch):
    ran = []

    def dataset_of(experiment, title, *_):
        if title == "SVHN-GS":
            raise error("no SVHN")
        return title

    monkeypatch.setattr(experiment_commands, "dataset_of", dataset_of)
    monkeypatch.setattr(experiment_commands, "run", lambda *arguments: ran.append(arguments[4]))
    result = CliRunner().invoke(experiment_commands.run_command, ["table2", "--output", str(tmp_path), *asked])
    assert "no SVHN" in result.output
    if error is MissingDataError and not asked:
        assert ran == [{"CIFAR-10-GS": "CIFAR-10-GS"}]
        assert result.exit_code == 0
    else:
        assert not ran
        assert result.exit_code != 0


def test_other_settings_or_data_are_refused(dataset, tmp_path):
    run(dataset, tmp_path / "results", methods=("MLP",), seeds=range(1))
    with pytest.raises(ExperimentError, match="holds a run with settings"):
        run(dataset, tmp_path / "results", backend="jax")
    other = write_dataset(tmp_path / "other", separable_networks(seed=1))
    with pytest.raises(ExperimentError, match="holds a run with settings"):
        run(other, tmp_path / "results")


@pytest.mark.parametrize(("part", "name"), [(1, "validation"), (2, "test")])
def test_every_split_must_have_networks(part, name, tmp_path):
    found = separable_networks()
    found.columns["split"][found.columns["split"] == part] = 0
    dataset = write_dataset(tmp_path, found)
    with pytest.raises(ExperimentError, match=f"has no {name} networks"):
        run(dataset, tmp_path / "results")


def test_ceiling_of_tied_targets():
    assert tau_upper_bound(np.arange(5.0)) == pytest.approx(1)
    tied = np.array([0.1, 0.1, 0.1, 0.5])
    assert 0 < tau_upper_bound(tied) < 0.9


@pytest.mark.parametrize(
    ("seconds", "dtype", "threads"),
    [((1, 2, 3, 4), "float32", 1), ((2, 1, 3, 4), "float32", 2), ((4, 3, 1, 2), "bfloat16", 1)],
)
def test_the_fastest_arithmetic_and_threads_are_measured_once_and_kept(seconds, dtype, threads, tmp_path, monkeypatch):
    instants = [instant for duration in seconds for instant in (0.0, float(duration))]
    monkeypatch.setattr(runner, "time", SimpleNamespace(perf_counter=lambda: instants.pop(0)))
    steps, used = [], []
    learner = SimpleNamespace(step=lambda inputs, targets, number: steps.append(len(targets)) or 0.0)
    library = SimpleNamespace(
        learner=lambda layer, recipe, seed: learner, thread_counts=lambda: (1, 2), use_threads=used.append
    )
    training = Split(lambda chosen, rng: {}, np.zeros(3))
    arguments = (library, Method("MLP", MLPHead((2, 2))), replace(RECIPE, dtype="fastest"), training)
    fastest = partial(runner._fastest, *arguments, tmp_path / "fastest.json")
    for again in (False, True):  # without a new measurement, for which there would be no instants
        assert fastest() == replace(RECIPE, dtype=dtype)
        assert used == ([1, 2, 1, 2, threads] + again * [threads])
        assert steps == [RECIPE.batch] * 16
    monkeypatch.setenv("RANK", "0")
    assert fastest() == RECIPE


def test_as_many_steps_are_taken_as_fit_into_the_time(dataset, tmp_path, monkeypatch):
    """And they are kept, and a warm-up takes its share of them."""
    preset = EXPERIMENTS["table3"].scales["smoke"]
    preset = replace(preset, recipe=replace(preset.recipe, steps=10_000, warmup=2000, eval_every=5000))
    monkeypatch.setitem(EXPERIMENTS, "table3", replace(EXPERIMENTS["table3"], scales={"smoke": preset}))
    path = tmp_path / "MNIST" / "MLP-steps.json"
    path.parent.mkdir()
    write_json(path, {"steps": 20})
    for folder, minutes, steps in ((tmp_path, 1e-9, 20), (tmp_path / "again", 1e-9, 1)):
        run(dataset, folder, methods=("MLP",), seeds=range(1, 2), minutes=minutes)
        recipe = read_json(folder / "MNIST" / "MLP-seed1.json")["recipe"]
        assert (recipe["steps"], recipe["warmup"]) == (steps, steps // 5)
    measured = read_json(tmp_path / "again" / "MNIST" / "MLP-steps.json")
    assert measured["seconds_per_step"] > 0
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ExperimentError, match="each of several processes would measure other times"):
        run(dataset, tmp_path / "rank", methods=("MLP",), seeds=range(1, 2), minutes=1)


@pytest.mark.slow(seconds=20)
def test_the_job_for_a_gpu_is_rehearsed_on_a_cpu(tmp_path):
    options = ["--images", "digits", "--scale", "smoke", "--backend", "torch", "--cpu", "--method", "MLP"]
    for minutes in ("0.0001", "7"):  # what is done is not done again
        found = CliRunner().invoke(main, ["gpu-job", *options, "--minutes", minutes, "--output", str(tmp_path)])
        assert found.exit_code == 0, found.output
    result = read_json(tmp_path / "MNIST" / "MLP-seed0.json")
    assert result["recipe"]["steps"] == 1
    assert result["data"]["networks"]["training"] == 72


def test_all_seeds_have_the_arithmetic_and_threads_that_were_measured(dataset, tmp_path, monkeypatch):
    preset = EXPERIMENTS["table3"].scales["smoke"]
    preset = replace(preset, recipe=replace(preset.recipe, dtype="fastest"))
    monkeypatch.setitem(EXPERIMENTS, "table3", replace(EXPERIMENTS["table3"], scales={"smoke": preset}))
    run(dataset, tmp_path, methods=("MLP",))
    measured = read_json(tmp_path / "MNIST" / "MLP-fastest.json")
    assert {x["dtype"] for x in measured["measured"]} == {"float32", "bfloat16"}
    for seed in range(2):
        result = read_json(tmp_path / "MNIST" / f"MLP-seed{seed}.json")
        assert result["recipe"]["dtype"] == measured["fastest"]["dtype"]
        assert result["environment"]["threads"] == str(measured["fastest"]["threads"])
