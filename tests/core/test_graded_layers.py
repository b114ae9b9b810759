"""Layers between NF-layers of groups with signs: their values, what they refuse, and the builders' choices."""

import numpy as np
import pytest

from nfn_core import (
    Activation,
    BatchNorm,
    BiasPhases,
    ByParity,
    Dropout,
    FeatureError,
    Gate,
    GaussianFourierFeatures,
    GradedFourierFeatures,
    GradedGate,
    GradedProduct,
    Group,
    InvariantPool,
    LayerNorm,
    Messages,
    Normalize,
    PointwiseLayer,
    Residual,
    Scale,
    Sequential,
    SpecError,
    WeightSpace,
    equivariant_network,
    initialize,
    invariant_network,
    parity_space,
)

SPACE = WeightSpace.mlp([2, 4, 1])
NATURAL = SPACE.group("HNP", signed=["h1"])
EVEN, ALL = NATURAL.graded("even"), NATURAL.graded("all")


def draw(group, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return {t.name: rng.normal(size=(3, *t.shape, channels)) for t in group.space.tensors}


def test_each_parity_has_its_layer():
    u = draw(ALL, 2)
    out = ByParity(ALL, Activation("relu"), Activation("tanh")).apply({}, u)
    assert list(out) == list(u)
    np.testing.assert_array_equal(out["W1[0,0]"], np.maximum(u["W1[0,0]"], 0))
    np.testing.assert_array_equal(out["W1[1,0]"], np.tanh(u["W1[1,0]"]))
    natural = ByParity(NATURAL, Activation("relu"), Activation("sin")).apply({}, draw(NATURAL))
    np.testing.assert_array_equal(natural["v2"], np.maximum(draw(NATURAL)["v2"], 0))
    assert [t.name for t in parity_space(NATURAL, True).tensors] == ["W1", "v1", "W2"]
    assert parity_space(EVEN, True) is None
    ByParity(EVEN, Activation("relu"), Activation("sin")).apply({}, draw(EVEN))


def test_gates_are_activated_mixes_of_the_even_features():
    layer, u = GradedGate(NATURAL.graded({"v1": [[0], [1]]}), 2, "sigmoid"), {}
    u = draw(layer.group, 2)
    p = initialize(layer, 0)
    out = layer.apply(p, u)
    for name in ("v1[0]", "v1[1]"):
        gate = 1 / (1 + np.exp(-(u["v1[0]"] @ p[f"{name}.gate"] + p[f"{name}.bias"])))
        np.testing.assert_allclose(out[name], u[name] * gate, rtol=1e-12)


def test_products_are_sums_over_pairs_of_grades():
    group = NATURAL.graded({"v1": [[0], [1]]})
    layer, u = GradedProduct(group, 2, 3), draw(group, 2)
    p = initialize(layer, 0)
    out = layer.apply(p, u)
    left, right = ({g: u[f"v1[{g}]"] @ p[f"v1[{g}].{side}"] for g in (0, 1)} for side in ("left", "right"))
    right = {g: np.tanh(x) for g, x in right.items()}
    np.testing.assert_allclose(out["v1[0]"], (left[0] * right[0] + left[1] * right[1]) / np.sqrt(2), rtol=1e-12)
    np.testing.assert_allclose(out["v1[1]"], left[0] * right[1], rtol=1e-12)
    assert layer.products() == {"v1[0]": (("v1[0]", "v1[0]"), ("v1[1]", "v1[1]")), "v1[1]": (("v1[0]", "v1[1]"),)}


def test_fixed_entries_mix_in_products_and_gates():
    group = WeightSpace.cnn([1, 3, 2], [(2, 2), ()]).group("HNP", signed=["h1"]).graded("all")
    for layer in (GradedProduct(group, 1, 2), GradedGate(group, 1)):
        u, sigma = draw(group), group.sample(3)
        p = initialize(layer, 0)
        for name, x in layer.apply(p, group.act(sigma, u)).items():
            np.testing.assert_allclose(x, group.act(sigma, layer.apply(p, u))[name], atol=1e-12)


def test_a_set_of_one_signed_neuron_keeps_its_sign():
    group = WeightSpace.mlp([2, 1, 2]).group("HNP", signed=["h1"])
    network = invariant_network(group, [1, 3], [4, 2], gate=True, activation="silu")
    u, p = draw(group), initialize(network, 0)
    flipped = {name: x if name == "v2" else -x for name, x in u.items()}
    np.testing.assert_allclose(network.apply(p, u), network.apply(p, flipped), atol=1e-12)
    assert np.ptp(network.apply(p, u), axis=0).min() > 0


def test_phases_of_biases():
    u = draw(NATURAL)
    out = BiasPhases(NATURAL, 30.0).apply({}, u)
    assert list(out) == ["W1[1,0]", "v1[2]", "v1[3]", "W2[0,3]", "v2[0]"]
    np.testing.assert_allclose(out["v1[2]"], np.cos(30 * u["v1"]))
    np.testing.assert_allclose(out["v1[3]"], np.sin(30 * u["v1"]))
    assert out["v2[0]"] is u["v2"]
    one = BiasPhases(NATURAL, 30.0, shifts=False)
    assert list(one.target.space.by_name) == ["W1[1,0]", "v1[0]", "v1[1]", "W2[0,1]", "v2[0]"]
    assert one.target.signed == ("h1",)
    narrow = BiasPhases(NATURAL, 30.0).apply({}, {k: x.astype("float16") for k, x in u.items()})
    assert narrow["v1[2]"].dtype == "float16"
    np.testing.assert_allclose(narrow["v1[2]"], np.cos(30 * u["v1"].astype("float16").astype("float64")), atol=1e-3)


def test_waves_of_odd_entries_are_odd_sines_and_even_cosines():
    layer = GradedFourierFeatures(NATURAL, 1, 4, 0.5)
    u, p = draw(NATURAL), initialize(layer, 0)
    out = layer.apply(p, u)
    angle = {name: 2 * np.pi * x @ p["fourier.frequencies"] for name, x in u.items()}
    np.testing.assert_allclose(out["W1[1,0]"], np.sin(angle["W1"]), rtol=1e-12)
    np.testing.assert_allclose(out["W1[0,0]"], np.cos(angle["W1"]), rtol=1e-12)
    np.testing.assert_allclose(out["v2[0]"], np.sin(angle["v2"]) + np.cos(angle["v2"]), rtol=1e-12)
    both = GradedFourierFeatures(BiasPhases(NATURAL).target, 1, 4)
    assert list(both.target.space.by_name)[2:5] == ["v1[0]", "v1[2]", "v1[3]"]


def test_layers_that_keep_signs():
    kept = [Activation("tanh"), Scale(SPACE), Dropout(0.1), BatchNorm(SPACE, 1, center=False), Sequential(())]
    kept += [Residual(Activation("sin")), Normalize.from_features(SPACE, draw(NATURAL), center=False)]
    kept += [ByParity(ALL, Activation("relu"), Activation("tanh")), GradedGate(ALL, 1), BiasPhases(NATURAL)]
    assert all(layer.keeps_signs() for layer in kept)
    lost = [Activation("relu"), BatchNorm(SPACE, 1), Gate(), LayerNorm(SPACE, 1), GaussianFourierFeatures(1, 2)]
    lost += [Normalize.from_features(SPACE, draw(NATURAL)), Sequential((Activation("sin"), Activation("gelu")))]
    assert not any(layer.keeps_signs() for layer in lost)


def test_normalization_without_centering_divides_by_the_root_of_the_mean_square():
    u = {name: x + 1 for name, x in draw(NATURAL).items()}
    layer = Normalize.from_features(SPACE, u, center=False)
    out = layer.apply(initialize(layer, 0), u)
    for name, x in out.items():
        np.testing.assert_allclose(np.mean(x * x), 1)
        assert np.all(x * u[name] >= 0)


def test_constants_of_pointwise_layers_are_even():
    assert "W1.bias" not in PointwiseLayer(NATURAL, 1, 2).parameter_specs()
    assert "v2.bias" in PointwiseLayer(NATURAL, 1, 2).parameter_specs()
    assert InvariantPool(ALL).num_outputs == InvariantPool(EVEN).num_outputs


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: ByParity(ALL, Activation(), Activation("relu")),
            r"odd must keep the signs.*Activation\(relu\) does not",
        ),
        (
            lambda: ByParity(ALL, Activation(), BatchNorm(parity_space(ALL, True), 1)),
            "odd must keep the signs.*BatchNorm",
        ),
        (lambda: ByParity(ALL, Gate(), Activation("tanh")).channels_after(4), "the layers give 2 and 4"),
        (lambda: GradedGate(NATURAL, 1), "group has no even features of tensor 'W1': add that grade"),
        (lambda: GradedProduct(NATURAL, 1, 1), "no product of features of tensor 'W1' has the grade of 'W1'"),
        (
            lambda: GradedProduct(ALL, 1, 1, target=NATURAL.graded({"W1": [[0, 0]]})),
            r"nobody takes the grades of the products of \['v1\[0\]', .*: add these grades to target",
        ),
        (lambda: InvariantPool(NATURAL.graded({"W1": [[1, 0]]})), "pooling takes even features, but no tensor"),
        (lambda: Messages(NATURAL, 1, 2, 2), r"features of neurons have no signs, but the group signs \('h1',\)"),
        (lambda: BiasPhases(SPACE.group("HNP")), "group must sign its sets once"),
        (lambda: BiasPhases(BiasPhases(NATURAL).target), "group must sign its sets once"),
        (
            lambda: BiasPhases(WeightSpace.mlp([2, 4, 1], bias=False).group("HNP", ["h1"])),
            "none of these sets has a bias",
        ),
        (lambda: equivariant_network(NATURAL, [1, 2], norm="layer"), "norm='layer' is not for groups with signs"),
        (lambda: equivariant_network(NATURAL, [1, 2], pointwise=True), "pointwise=True is not for groups with signs"),
        (
            lambda: equivariant_network(NATURAL, [1, 2], before=[Normalize.from_features(SPACE, draw(NATURAL))]),
            "before must keep signs, but Normalize.* does not: normalize by .*center=False",
        ),
        (lambda: invariant_network(NATURAL, [1, 2], [2], pool=NATURAL), "pool is not for groups with signs"),
    ],
)
def test_what_does_not_fit(call, message):
    with pytest.raises(SpecError, match=message):
        call()


def test_features_of_other_grades_are_refused():
    with pytest.raises(FeatureError, match=r"not in the space: 'W1'"):
        GradedGate(ALL, 1).apply(initialize(GradedGate(ALL, 1), 0), draw(NATURAL))


def test_products_of_repeated_and_partial_grades():
    group = Group(WeightSpace.from_axes({"R": [("h", 3), ("h", 3)]}), ("h",), ("h",))
    graded = group.graded("all")
    assert list(graded.space.by_name) == ["R[0,0]", "R[0,1]", "R[1,0]", "R[1,1]"]
    products = GradedProduct(graded, 1, 1).products()
    assert products["R[1,0]"] == (("R[0,0]", "R[1,0]"), ("R[0,1]", "R[1,1]"))
