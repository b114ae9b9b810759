"""What the suite says of DWSNets, a baseline of the experiments: maximal with sums or means, not linear with maxima."""

from dataclasses import replace

import numpy as np
import pytest
from nfn_conformance import CHECKS, assert_conforms, index_orbits, subject_of

from nfn_core import Activation, Sequential, WeightSpace
from reference_experiments.methods.dwsnets import DWSLayer, dwsnet

SPACES = {
    "2-4-1": WeightSpace.mlp([2, 4, 1]),
    "2-3-3-2": WeightSpace.mlp([2, 3, 3, 2]),
    "3-3-2-2": WeightSpace.mlp([3, 3, 2, 2]),
    "2-2-3-2-2": WeightSpace.mlp([2, 2, 3, 2, 2]),
    "2-3-3-2, filters of 2, 2, 1": WeightSpace.cnn([2, 3, 3, 2], [(2,), (2,), ()]),
}
FIGURES = {  # linear parameters = rank = orbits of index pairs; constants, and orbits of indices
    "2-4-1": (41, 20, 5),
    "2-3-3-2": (114, 54, 9),
    "3-3-2-2": (142, 60, 10),
    "2-2-3-2-2": (164, 88, 11),
    "2-3-3-2, filters of 2, 2, 1": (222, 72, 12),
}


def dws_subject(group, pooling, channels=(1, 1), backend="numpy", device="cpu"):
    """Subject of a DWS layer; it claims to be affine and maximal unless it pools by maxima."""
    layer = DWSLayer(group.space, *channels, pooling)
    matrices = sum(spec.shape[0] * spec.shape[1] for spec in layer.parameter_specs().values() if len(spec.shape) == 2)
    return subject_of(
        layer,
        group,
        backend,
        device,
        in_channels=channels[0],
        out_channels=channels[1],
        linear=pooling != "max",
        maximal=pooling != "max",
        parameters=lambda _: matrices,
        on_group=None if pooling == "sum" else lambda larger: dws_subject(larger, pooling, channels, backend, device),
    )


@pytest.mark.parametrize("pooling", ["max", "mean", "sum"])
@pytest.mark.parametrize("check", CHECKS)
def test_dws_layer(check, pooling, conformance, backend, device):
    conformance(dws_subject(SPACES["2-4-1"].group("HNP"), pooling, (1, 1), backend, device), check)


@pytest.mark.parametrize("check", CHECKS)
def test_dws_layer_with_channels(check, conformance, backend, device):
    conformance(dws_subject(SPACES["2-4-1"].group("HNP"), "sum", (2, 3), backend, device), check)


@pytest.mark.parametrize("pooling", ["max", "mean"])
@pytest.mark.parametrize("check", CHECKS)
def test_dwsnet(check, pooling, conformance, backend, device):
    """Smooth but for the maxima, so that gradients have finite differences."""
    space = SPACES["2-3-3-2"]
    relu = dwsnet(space, (1, 4, 4), (3,), pooling=pooling)
    smooth = Sequential(tuple(Activation("tanh") if layer == Activation("relu") else layer for layer in relu.layers))
    conformance(subject_of(smooth, space.group("HNP"), backend, device, invariant=True, maximal=True), check)


@pytest.mark.parametrize("space", SPACES)
def test_matrices_are_all_linear_maps_once_and_constants_are_redundant(space):
    """Ranks are counted with NumPy: the layer is one and the same in every library."""
    group = SPACES[space].group("HNP")
    subject = dws_subject(group, "mean")
    found = assert_conforms(subject, "maximality")
    linear, constants, orbits = FIGURES[space]
    assert found.value == found.limit == subject.parameters(None) == linear
    specs = DWSLayer(group.space, 1, 1, "mean").parameter_specs().values()
    assert sum(spec.shape[0] for spec in specs if len(spec.shape) == 1) == constants
    assert assert_conforms(subject, "constants").value == index_orbits(group).max() + 1 == orbits


def without(subject, *names):
    """The same layer with some parameters zero."""

    def make(seed):
        params = subject.make(seed)
        return params | {name: 0 * params[name] for name in names}

    return replace(subject, make=make)


def test_what_is_taken_away_is_missed():
    """Negative control: one matrix less is one dimension less for each of its entries."""
    subject = dws_subject(SPACES["2-3-3-2"].group("HNP"), "mean")
    for name, size in {"bias_to_weight.v2.W3.each": 2, "weight_to_weight.W2.W2.rows": 1}.items():
        found = CHECKS["maximality"](without(subject, name))
        assert (found.status, found.value, found.limit) == ("failed", 114 - size, 114)
    constants = [name for name in subject.make(0) if name.endswith(".v1.bias")]
    assert len(constants) == 6
    assert CHECKS["constants"](without(subject, *constants[1:])).status == "passed"
    assert CHECKS["constants"](without(subject, *constants)).value == 8


def test_broken_dws_layers_fail():
    subject = dws_subject(SPACES["2-3-3-2"].group("HNP"), "mean")
    askew = replace(
        subject, apply=lambda layer, u: {k: np.cumsum(x, axis=1) for k, x in subject.apply(layer, u).items()}
    )
    assert CHECKS["equivariance"](askew).status == "failed"
    by_maxima = dws_subject(SPACES["2-3-3-2"].group("HNP"), "max")
    assert CHECKS["equivariance"](by_maxima).status == "passed"
    assert CHECKS["linearity"](replace(by_maxima, linear=True)).status == "failed"
    assert CHECKS["equivariance"](replace(by_maxima, group=SPACES["2-3-3-2"].group("NP"))).status == "failed"
