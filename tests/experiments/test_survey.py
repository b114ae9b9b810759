"""The survey of architectures: some of our own, as every session can, and that it names what is wrong."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from nfn_conformance import assert_conforms, subject_of

from nfn_core import LabelError, NFLayer, PointwiseLayer, WeightSpace
from reference_experiments.demos.families import FAMILIES, QUICK
from reference_experiments.demos.small_networks import networks
from reference_experiments.demos.survey import TOLERANCE, check, survey, survey_table, wrong_spaces

OWN = FAMILIES["PyTorch"]()
PAGE = Path(__file__).parents[2] / "docs/architectures.md"


@cache
def derived(name):
    return OWN[name].derive()


def shrunk(space):
    """The space with one tensor of each kind, sets of 2 neurons, and fixed axes of one entry.

    Sets that stand twice in a tensor have 4 neurons: fewer have fewer orbits than hubs.
    """
    twice = {label for t in space.tensors for label in t.labels if t.labels.count(label) > 1}
    sizes = {label: 4 if label in twice else 2 for label in space.sizes}
    small = [replace(t, shape=tuple(sizes.get(label, 1) for label in t.labels)) for t in space.tensors]
    return WeightSpace(tuple({t.labels: t for t in small}.values()), (), ())


MORE = (
    *("Maxout", "Highway", "DenseNet block", "ShuffleNet block", "MLP-Mixer", "GRU", "Transformer encoder", "Mamba"),
    *("WIRE", "Mixture of experts, chosen"),
)


@pytest.mark.parametrize("name", [*QUICK, *MORE])
def test_layers_on_shrunk_spaces_are_maximal(name):
    group = shrunk(derived(name).space).group("NP")
    layer = NFLayer(group, 1, 1)
    options = {"linear": True, "maximal": True, "parameters": lambda _: layer.linear_parameter_count}
    assert assert_conforms(subject_of(layer, group, **options), "maximality").value > len(group.space.tensors)
    with pytest.raises(AssertionError, match="fails maximality"):
        assert_conforms(subject_of(PointwiseLayer(group, 1, 1), group, linear=True, maximal=True), "maximality")


@pytest.mark.parametrize("name", QUICK)
def test_labels_hold_for_other_weights_at_another_size_and_wrong_ones_are_caught(name):
    space = derived(name)
    assert space.verification.error <= space.verification.limit
    assert check(space, OWN[name]) <= TOLERANCE
    wrong = list(wrong_spaces(space))
    assert "cut off" in [kind for kind, _, _ in wrong]
    for _, label, other in wrong:
        assert check(other, OWN[name], [label]) > TOLERANCE


def test_rows():
    result = survey("MLP", OWN["MLP"])
    assert result.passed
    sets, fixed, error, change, caught, size, _, labels = result.cells
    assert (sets, fixed, labels) == ("4", "", "")
    assert max(float(error), float(change)) < 1e-12
    assert caught == "3 of 3"
    assert float(size) > 1e4

    def fail():
        raise LabelError("it has no graph")

    broken = type("Broken", (), {"derive": staticmethod(fail), "labels": {}})()
    assert survey("broken", broken).cells == ("it has no graph",)


def test_tables_go_on_and_report_failures(tmp_path, monkeypatch):
    monkeypatch.setitem(FAMILIES, "PyTorch", lambda: {"MLP": OWN["MLP"], "SIREN": OWN["SIREN"]})
    table = survey_table(tmp_path, ["PyTorch"])
    assert table.startswith("2 of 2 are derived without labels; of 2 the labels hold")
    assert "| SIREN | 4 |" in table or "| SIREN | 3 |" in table
    monkeypatch.setattr("reference_experiments.demos.survey.survey", None)  # rows are not made again
    assert survey_table(tmp_path, ["PyTorch"]) == table


def test_page_has_every_network_of_ours():
    page = PAGE.read_text()
    assert all(f"| {name} |" in page for name in networks())
