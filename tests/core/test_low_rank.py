"""NF-layers of low rank against the maximal ones."""

import numpy as np
import pytest

from nfn_core import LowRankNFLayer, NFLayer, SpecError, WeightSpace, equivariant_network, initialize, invariant_network

SPACE = WeightSpace.mlp([6, 4, 3, 2])
HNP = SPACE.group("HNP")
FEATURES = {t.name: np.random.default_rng(0).normal(size=(2, *t.shape, 2)) for t in SPACE.tensors}


@pytest.mark.parametrize(("rank", "factored"), [(1, 4), (3, 3), (100, 0)])
@pytest.mark.parametrize("pooling", ["mean", "sum", "scaled_sum"])
def test_it_is_the_maximal_layer_with_these_matrices_and_what_is_shared(rank, factored, pooling):
    low, full = LowRankNFLayer(HNP, 2, 3, rank, pooling), NFLayer(HNP, 2, 3, pooling)
    params = initialize(low, seed=0)
    factors = {name.removesuffix(".left") for name in params if name.endswith(".left")}
    assert len(factors) == factored
    matrices = {n: params[f"{n}.left"] @ params[f"{n}.right"] if n in factors else params[n] for n in full.cached_specs}
    expected = full.apply(matrices, FEATURES)
    for name, y in low.apply(params, FEATURES).items():
        np.testing.assert_allclose(
            y, expected[name] + FEATURES[name] @ params[f"{name}.shared"], rtol=1e-12, atol=1e-12
        )
    ranks = [np.linalg.matrix_rank(matrices[name]) for name in factors]
    assert ranks == [rank] * factored


def test_many_inputs_cost_a_row_each():
    sizes = [
        LowRankNFLayer(WeightSpace.mlp([n, 8, 4]).group("HNP"), 2, 2, rank=3).parameter_count for n in (100, 200, 300)
    ]
    assert sizes[2] - sizes[1] == sizes[1] - sizes[0]
    assert sizes[2] < NFLayer(WeightSpace.mlp([300, 8, 4]).group("HNP"), 2, 2).parameter_count / 50


def test_networks_of_low_rank():
    equivariant = equivariant_network(HNP, [2, 4, 2], rank=2)
    assert [layer.rank for layer in equivariant.layers if isinstance(layer, LowRankNFLayer)] == [2, 2]
    assert invariant_network(HNP, [2, 4], [3], rank=2).apply(
        initialize(invariant_network(HNP, [2, 4], [3], rank=2), 0), FEATURES
    ).shape == (2, 3)
    with pytest.raises(SpecError, match="rank=2 is for NF-layers that are not pointwise"):
        equivariant_network(HNP, [2, 4], rank=2, pointwise=True)
    with pytest.raises(SpecError, match="rank=2 is not for groups with signs"):
        equivariant_network(SPACE.group("HNP", ["h1"]), [1, 4], rank=2)
    with pytest.raises(SpecError, match="rank must be a positive integer"):
        LowRankNFLayer(HNP, 1, 1, 0)
