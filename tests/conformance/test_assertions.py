"""Assertions of one line, in every library, each with a layer that must fail."""

import jax.numpy as jnp
import nfn_jax
import nfn_torch
import numpy as np
import pytest
import torch
from nfn_conformance import assert_equivariant, assert_invariant, assert_maximal, assert_normalized

from nfn_core import FeatureError, Group, NFLayer, SpecError, WeightSpace, initialize, invariant_network

SPACE = WeightSpace.mlp([2, 4, 3, 1])
GROUP = SPACE.group("HNP")
LAYER = NFLayer(GROUP, 1, 2)
READER = invariant_network(GROUP, [1, 4], [3])
DRAWN = {t.name: np.random.default_rng(0).normal(size=(3, *t.shape, 1)) for t in SPACE.tensors}


def features(library, kind="float32"):
    make = {"numpy": np.asarray, "torch": torch.tensor, "jax": jnp.asarray}[library]
    return {name: make(x.astype(kind)) for name, x in DRAWN.items()}


def function(library, layer):
    if library == "torch":
        return nfn_torch.NFModule(layer)
    if library == "jax":
        return lambda u: nfn_jax.apply(layer, nfn_jax.init(layer, 0), u)
    return lambda u: layer.apply({n: x.astype("float32") for n, x in initialize(layer, 0).items()}, u)


@pytest.mark.parametrize("library", ["numpy", "torch", "jax"])
def test_symmetries_in_every_library(library):
    u = features(library)
    found = assert_equivariant(function(library, LAYER), u, GROUP)
    assert 1e-9 < found.limit < 1e-3  # of float32
    assert assert_invariant(function(library, READER), u, GROUP).value < 1e-5

    def broken(u):
        out = function(library, LAYER)(u)
        return {**out, "v1": out["v1"] + out["v1"][:, :1]}

    with pytest.raises(AssertionError, match=r"broken fails equivariance: [0-9.]+ \(limit .* drawn elements"):
        assert_equivariant(broken, u, GROUP)
    with pytest.raises(AssertionError, match="fails invariance"):
        assert_invariant(lambda u: u["W1"][:, :, 0, 0], u, GROUP)


def test_the_group_is_inferred_from_a_module():
    module = nfn_torch.NFModule(READER)
    assert assert_invariant(module, features("torch")).status == "passed"
    with pytest.raises(SpecError, match="no group to infer"):
        assert_invariant(lambda u: u["v1"].sum((1, 2)), features("torch"))
    with pytest.raises(FeatureError, match="missing: 'W1'"):
        assert_invariant(module, {})


def test_nan_and_wrong_outputs_fail():
    u = features("numpy")
    with pytest.raises(AssertionError, match="fails invariance: inf"):
        assert_invariant(lambda u: u["v1"].sum((1, 2)) * np.nan, u, GROUP)
    with pytest.raises(FeatureError, match="expected features by tensor name"):
        assert_equivariant(lambda u: u["v1"], u, GROUP)
    with pytest.raises(FeatureError, match="returned tensors"):
        assert_equivariant(lambda u: {"v1": u["v1"]}, u, GROUP)


def test_normalized():
    u = {name: np.repeat(x / x.std(), 2, axis=0) for name, x in features("numpy").items()}
    assert assert_normalized(lambda u: u, u).status == "passed"
    with pytest.raises(AssertionError, match="standard deviation of 'W2'"):
        assert_normalized(lambda u: {**u, "W2": 9 * u["W2"]}, u)
    with pytest.raises(AssertionError, match="standard deviation of 'output'"):
        assert_normalized(lambda u: 0 * u["v1"], u)


def test_maximal():
    space = WeightSpace.from_axes({"v": [("h", 4)]})
    group: Group = space.group("NP")
    u = {"v": np.ones((1, 4, 1))}

    def make(seed):
        layer = NFLayer(group, 1, 1)
        return lambda u: layer.apply(initialize(layer, seed), u)

    assert assert_maximal(make, u, group).value == 2
    with pytest.raises(AssertionError, match="rank 1, orbits 2"):
        assert_maximal(lambda seed: lambda u: {"v": (seed + 1.5) * u["v"]}, u, group)
    with pytest.raises(AssertionError, match="rank 0, orbits 2"):
        assert_maximal(lambda seed: lambda u: {"v": 0 * u["v"]}, u, group)
