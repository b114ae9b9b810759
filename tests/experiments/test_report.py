"""The report of results, verdicts, and what it takes to make them."""

from pathlib import Path

import pytest
from helpers import command, write_dataset
from separable import run, separable_networks

from nfn_core import WeightSpace
from reference_experiments import report as reports
from reference_experiments.experiments import EXPERIMENTS
from reference_experiments.experiments.paper import PAPER, ROUNDING
from reference_experiments.files import (
    ExperimentError,
    read_json,
    write_json,
)
from reference_experiments.reproduce import operations

ROOT = Path(__file__).parents[2]


def runs(**means):
    return {"MNIST": {m: [{"metrics": {"test_accuracy": x + d}} for d in (-0.1, 0.1)] for m, x in means.items()}}


@pytest.mark.parametrize(
    ("means", "method", "expected"),
    [
        ({"NFN_NP": 92.9}, "NFN_NP", "reproduced"),
        ({"NFN_NP": 60, "MLP": 12}, "NFN_NP", "same order, different level"),
        ({"NFN_NP": 60, "MLP": 70}, "NFN_NP", "not reproduced"),
        ({"NFN_NP": 60, "MLP": 70}, "MLP", "not reproduced"),
        ({"NFN_NP": 60}, "NFN_NP", "not reproduced"),  # nothing to be ordered with
        ({"NFN_NP": 60}, "MLP", "not run"),
    ],
)
def test_verdicts(means, method, expected):
    assert reports.verdicts("table3", runs(**means), "test_accuracy")["MNIST", method] == expected


@pytest.mark.parametrize(("other", "expected"), [("NFN_NP", "not reproduced"), ("MLP", "same order, different level")])
def test_an_order_needs_figures_that_rounding_cannot_explain(other, expected):
    """0.070 ± 0.000 and 0.068 ± 0.000 may be 0.0695 + 0.0005 and 0.0685 - 0.0005; 0.306 is another matter."""
    found = {"MNIST": {m: [{"metrics": {"test_error": x}}] for m, x in (("NFN_HNP", 0.14), (other, 0.15))}}
    assert reports.verdicts("table6-dilate", found, "test_error")["MNIST", "NFN_HNP"] == expected


def test_report_sets_results_beside_the_paper(dataset, tmp_path):
    with pytest.raises(ExperimentError, match="holds no results"):
        reports.report(tmp_path / "data")
    folder = tmp_path / "results"
    run(dataset, folder / "table3-smoke-torch")
    path = reports.report(folder)
    page, html = path.read_text(), path.with_suffix(".html").read_text()
    (row,) = [line for line in page.splitlines() if line.startswith("| MNIST | NFN_NP |")]
    assert "92.90 ± 0.22" in row
    (absent,) = [line for line in page.splitlines() if line.startswith("| MNIST | DWSNets |")]
    assert absent.endswith("| not run |")
    assert "Not run: table2" in page
    assert "<table>" in html
    assert len(list((folder / "figures").glob("table3-smoke-torch-MNIST-*.png"))) == 2
    assert "reproduce.md is written" in command("reproduce", folder)
    page = (folder / "reproduce.md").read_text()
    assert "## `run table3 --scale smoke --backend torch`" in page
    assert '| `--only "MNIST" --method "NFN_NP"` |' in page


def test_operations_are_counted():
    space, experiment = WeightSpace.mlp([2, 4, 3]), EXPERIMENTS["table3"]
    found, wide = (operations(experiment, "MNIST", method, "small", space) for method in ("MLP", "MLP-4000"))
    inputs, hidden = space.size * experiment.config("small", "MNIST").mlp, experiment.config("small", "MNIST").mlp
    others = hidden * hidden + hidden * 10
    assert found == 2 * (2 * inputs + 3 * others)  # the features themselves need no gradient
    assert wide > found
    assert operations(experiment, "MNIST", "ResNet-18", "small", space) is None


def test_results_show_as_text(dataset, tmp_path):
    folder = tmp_path / "results"
    run(dataset, folder, methods=("MLP",), seeds=range(1))
    path = folder / "MNIST" / "MLP-seed0.json"
    result = read_json(path)
    result["dataset"], result["notes"] = "../<script>alert(1)</script>", ["[a](javascript:alert(2)) | <b>\n\n# x"]
    write_json(path, result)
    page = reports.report(folder).with_suffix(".html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert 'href="javascript' not in page
    assert "[a](javascript:alert(2)) | &lt;b&gt; # x" in page
    assert {p.parent.name for p in tmp_path.rglob("*.png")} == {"figures"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("metrics"), "KeyError: 'metrics'"),
        (lambda r: r.update(metrics={"test_accuracy": "x"}), "MLP-seed0.json is damaged, or no result of `run`"),
        (lambda r: r.update(experiment="table99"), "KeyError: 'table99'"),
        (lambda r: r.update(curve=[{"step": 1}]), "KeyError: 'loss'"),
        (lambda r: r.update(baselines=3), "AttributeError"),
        (lambda r: r.update(seed=1), "is not the result of MLP with seed 0"),
        (lambda r: r["details"].clear(), "on MNIST cannot be shown together .KeyError: 'actual'"),
    ],
)
def test_what_is_no_result_is_named_in_a_report(change, message, result, tmp_path):
    folder = result
    path = tmp_path / "MNIST" / "MLP-seed0.json"
    value = read_json(folder / "MNIST" / path.name)
    change(value)
    write_json(path, value)
    with pytest.raises(ExperimentError, match=message):
        reports.report(tmp_path)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Folder of one result."""
    folder = tmp_path_factory.mktemp("result")
    run(write_dataset(folder / "data", separable_networks()), folder, methods=("MLP",), seeds=range(1))
    return folder


def test_committed_results_are_readable():
    paths = sorted((ROOT / "reference_experiments" / "results").rglob("*-seed*.json"))
    assert len(paths) > 100
    for path in paths[::10]:
        reports._read_result(path)


def test_the_paper_has_figures_for_what_is_run():
    for name, experiment in EXPERIMENTS.items():
        if experiment.tables:
            assert set(PAPER[name]) >= set(experiment.makers) - {"ModelNet10"}
            assert {m for rows in PAPER[name].values() for figures in rows.values() for m in figures} <= set(ROUNDING)
        assert set(experiment.scales) == {"smoke", "small", "paper"}
