"""Statistics of pooled entries, and sums that keep unit variance."""

import numpy as np
import pytest

from nfn_core import InvariantPool, NFLayer, SpecError, WeightSpace, initialize

RNN = WeightSpace.from_axes({"R": [("h", 4), ("h", 4)], "b": [("h", 4)], "s": [(None, 2)]})


def draw(space, channels=2):
    rng = np.random.default_rng(0)
    return {t.name: rng.normal(size=(3, *t.shape, channels)) for t in space.tensors}


def test_statistics_are_those_of_the_entries():
    layer, u = InvariantPool(RNN.group("NP"), statistics=("mean", "max", "std")), draw(RNN)
    mean, top, std = np.split(layer.apply({}, u), 3, axis=1)
    assert layer.num_outputs == 3 * mean.shape[1] == 3 * (2 + 1 + 2)
    flat = u["R"].reshape(3, 16, 2)
    np.testing.assert_allclose(top[:, 0], flat.max(1))
    np.testing.assert_allclose(std[:, 0], flat.std(1), rtol=1e-6)
    diagonal = u["R"][:, np.arange(4), np.arange(4)]
    assert any(np.allclose(top[:, k], diagonal.max(1)) for k in range(3))
    np.testing.assert_allclose(mean, InvariantPool(RNN.group("NP")).apply({}, u))
    with pytest.raises(SpecError, match="statistics must be one of"):
        InvariantPool(RNN.group("NP"), statistics=("median",))


def test_scaled_sum_is_sum_over_root_n():
    space = WeightSpace.mlp([2, 5, 3])
    u = draw(space, 1)
    total = InvariantPool(space.group("NP"), "scaled_sum").apply({}, u)
    np.testing.assert_allclose(total[:, 0], u["W1"].sum((1, 2)) / 10**0.5)
    layer = NFLayer(space.group("NP"), 1, 1, pooling="scaled_sum")
    assert np.isfinite(layer.apply(initialize(layer, 0), u)["W1"]).all()
