"""Options of the builders."""

import numpy as np
import pytest

from nfn_core import SpecError, WeightSpace, initialize, invariant_network


@pytest.mark.parametrize("norm", ["layer", "batch", "set", "instance"])
def test_norms_gates_and_statistics(norm):
    space = WeightSpace.mlp([2, 4, 1])
    group = space.group("HNP")
    options = {"norm": norm, "gate": True, "pool_norm": True, "statistics": ("mean", "max", "std")}
    layer = invariant_network(group, [1, 4, 4], [8, 3], activation="silu", **options)
    rng = np.random.default_rng(0)
    u = {t.name: rng.normal(size=(3, *t.shape, 1)) for t in space.tensors}
    params = initialize(layer, 0)
    out = layer.apply(params, u)
    assert out.shape == (3, 3)
    np.testing.assert_allclose(layer.apply(params, group.act(group.sample(1), u)), out, rtol=1e-9)


def test_unknown_norm_is_refused():
    with pytest.raises(SpecError, match="norm must be one of"):
        invariant_network(WeightSpace.mlp([2, 4, 1]).group("HNP"), [1, 4], [3], norm="group")
