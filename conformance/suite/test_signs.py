"""Groups with signs: graded NF-layers over drawn signed sets and grades, networks, function preservation, and faults."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from nfn_conformance import CHECKS, assert_conforms, assert_invariant, index_orbits, pair_orbits, subject_of
from nfn_conformance.strategies import signed_groups

from nfn_core import (
    Activation,
    BiasPhases,
    ByParity,
    GradedFourierFeatures,
    GradedGate,
    GradedProduct,
    NFLayer,
    SpecError,
    WeightSpace,
    equivariant_network,
    invariant_network,
)

NATURAL = WeightSpace.mlp([2, 3, 3, 2]).group("HNP", signed=["h1", "h2"])
ALL = NATURAL.graded("all")
SQUARE = WeightSpace.from_axes({"R": [("h", 4), ("h", 4)], "b": [("h", 4)], "V": [("out", 2), ("h", 4)]})
SPACES = {
    "natural": (NATURAL, NATURAL),
    "to all": (NATURAL, ALL),
    "to even": (ALL, NATURAL.graded("even")),
    "one signed": (NATURAL.space.group("NP", ["h1"]), NATURAL.space.group("NP", ["h1"]).graded("all")),
    "phases": (BiasPhases(WeightSpace.mlp([1, 3, 1]).group("HNP", ["h1"])).target,) * 2,
    "recurrent": (SQUARE.group({"h"}, ["h"]), SQUARE.group({"h"}, ["h"]).graded("all")),
    "cnn": (WeightSpace.cnn([1, 3, 2], [(2, 2), ()]).group("HNP", ["h1"]),) * 2,
}
PAIR = [("a", 2), ("b", 3)]
TURNED = {
    "axes turned": tuple(WeightSpace.from_axes({"T": axes}).group("NP") for axes in (PAIR, PAIR[::-1])),
    "grades turned": tuple(SQUARE.group({"h"}, ["h"]).graded({"R": [grade]}) for grade in ([0, 1], [1, 0])),
}
SPACES |= TURNED
LINEAR = ["equivariance", "linearity", "maximality", "constants", "gradient", "duplication", "batch", "dtype"]


def linear(source, target, backend="numpy", device="cpu"):
    """Subject of a maximal NF-layer between two graded spaces."""
    layer = NFLayer(source, 1, 1, target=target)
    repeats = any(t.labels.count(s) > 1 and n < 4 for t in source.space.tensors for s, n in source.space.sizes.items())
    return subject_of(
        layer,
        source,
        backend,
        device,
        target=None if target == source else target,
        linear=True,
        maximal=True,
        redundant=repeats,
        parameters=lambda _: layer.linear_parameter_count,
        on_group=lambda larger: linear(larger, larger, backend, device),
    )


def joined(source, target):
    """Whether there is any affine equivariant map but zero."""
    return pair_orbits(source, target).max() >= 0 or index_orbits(target).max() >= 0


@given(signed_groups(most_entries=30))
def test_spaces_without_a_grade_in_common_are_refused(pair):
    if joined(*pair):
        NFLayer(pair[0], 1, 1, target=pair[1])
        return
    with pytest.raises(SpecError, match="no grade in common"):
        NFLayer(pair[0], 1, 1, target=pair[1])


@pytest.mark.parametrize("check", LINEAR)
def test_graded_layers_on_drawn_signs_and_grades(check, backend, device):
    if backend in ("numpy", "strict") and check == "gradient":
        pytest.skip(f"not provided: {check} on {backend}")

    @given(signed_groups(most_entries=30))
    def run(pair):
        pair = pair[:1] * 2 if check == "duplication" else pair
        assume(joined(*pair))
        assume(assert_conforms(linear(*pair, backend, device), check).status == "passed")

    run()


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("space", SPACES)
def test_graded_layers_on_named_spaces(check, space, conformance, backend, device):
    conformance(linear(*SPACES[space], backend, device), check)


LAYERS = {
    "activations": ByParity(ALL, Activation("relu"), Activation("tanh")),
    "gate": GradedGate(ALL, 2),
    "products": GradedProduct(ALL, 2, 3),
    "products to even": GradedProduct(NATURAL, 2, 3, target=NATURAL.graded("even")),
    "equivariant": equivariant_network(NATURAL, [2, 3, 3], norm="batch", gate=True),
    "equivariant tanh": equivariant_network(NATURAL, [2, 3, 3]),
    "invariant": invariant_network(NATURAL, [2, 3], [4, 3], norm="batch", gate=True, pool_norm=True, activation="silu"),
    "waves": GradedFourierFeatures(NATURAL, 2, 3, 0.5),
    "phases": invariant_network(
        BiasPhases(NATURAL, 3.0).target, [2, 3], [4, 3], gate=True, before=[BiasPhases(NATURAL, 3.0)], activation="silu"
    ),
}


def subject_of_layer(name, backend="numpy", device="cpu"):
    layer = LAYERS[name]
    group = ALL if getattr(layer, "group", None) == ALL else NATURAL
    target = getattr(layer, "target", None)
    invariant = name in ("invariant", "phases")
    out = 2 if name in ("activations", "gate") else 3
    claims = {"in_channels": 2, "out_channels": out, "invariant": invariant, "target": target}
    return subject_of(layer, group, backend, device, **claims)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", LAYERS)
def test_layers_between_and_networks(check, name, conformance, backend, device):
    conformance(subject_of_layer(name, backend, device), check)


def test_orbits_with_a_minus_are_not_counted():
    """By hand: one signed neuron's weight w and bias b, and an output bias c: w, b mix in 4 ways, c in 1."""
    group = WeightSpace.from_axes({"w": [("h", 1)], "b": [("h", 1)], "c": [("out", 1)]}).group("NP", ["h"])
    orbits = pair_orbits(group)
    assert (orbits.max() + 1, (orbits == -1).sum()) == (5, 4)


def network(u, activation):
    """The network of the weights itself, at fixed points."""
    points = np.linspace(-1, 1, 10).reshape(2, 5)
    y = np.broadcast_to(points, (len(u["W1"]), 2, 5))
    for i in (1, 2, 3):
        y = u[f"W{i}"][..., 0] @ y + u[f"v{i}"]
        y = y if i == 3 else activation(y)
    return y


def test_signs_preserve_the_function_of_odd_networks():
    u = {t.name: np.random.default_rng(0).normal(size=(4, *t.shape, 1)) for t in NATURAL.space.tensors}
    for activation in (np.tanh, np.sin):
        assert_invariant(lambda x, f=activation: network(x, f), u, NATURAL)
    with pytest.raises(AssertionError, match="under signs of h1"):
        assert_invariant(lambda x: network(x, lambda y: np.maximum(y, 0)), u, NATURAL)


def test_phases_preserve_the_function_of_sine_networks():
    """A shift by π with a sign of the outgoing weights keeps the function, and is an element of the target group."""
    phases = BiasPhases(NATURAL, 3.0)
    u = {t.name: np.random.default_rng(0).normal(size=(4, *t.shape, 1)) for t in NATURAL.space.tensors}
    shifted = {k: x.copy() for k, x in u.items()}
    shifted["v1"][:, 1] += np.pi / 3.0
    shifted["W2"][:, :, 1] *= -1
    weighted = [{k: 3.0 * x if k[1] != "3" else x for k, x in w.items()} for w in (u, shifted)]
    np.testing.assert_allclose(network(weighted[0], np.sin), network(weighted[1], np.sin), atol=1e-12)
    sigma = phases.target.permutation({}, {"h1": [[1, 1, 1], [1, -1, 1]]})
    moved = phases.target.act(sigma, phases.apply({}, u))
    for name, x in phases.apply({}, shifted).items():
        np.testing.assert_allclose(x, moved[name], atol=1e-12)


def dropped_grade():
    """No hub of a grade: the layer is not maximal."""
    good = linear(NATURAL, ALL)
    return replace(good, make=lambda seed: {k: x * ("[1]" not in k) for k, x in good.make(seed).items()}), "maximality"


def shifted_odd():
    """A constant in an odd tensor."""
    good = linear(NATURAL, NATURAL)
    return replace(good, apply=lambda p, u: (y := good.apply(p, u)) | {"v1": y["v1"] + 1.0}), "equivariance"


def even_fed_by_odd():
    """An even tensor that hears the mean of an odd one."""
    good = linear(ALL, ALL)

    def apply(p, u):
        y = good.apply(p, u)
        return y | {"v2[0]": y["v2[0]"] + u["v1[1]"].mean(axis=1, keepdims=True)}

    return replace(good, apply=apply), "equivariance"


def outgoing_without_sign():
    """A group that does not sign outgoing weights: its layers are not equivariant to the true one."""
    wrong = replace(NATURAL, grades=((1, 0), (1,), (1, 0), (1,), (0, 0), (0,)))
    return replace(linear(wrong, wrong), group=NATURAL), "equivariance"


def even_activation():
    """ReLU of odd features."""
    good = subject_of_layer("activations")
    return replace(good, apply=lambda p, u: {k: np.maximum(x, 0) for k, x in u.items()}), "equivariance"


def wrong_product():
    """A product whose grade is not the one it stands for."""
    good = subject_of_layer("products")
    return replace(good, apply=lambda p, u: good.apply(p, u | {"W2[0,1]": u["W2[1,0]"]})), "equivariance"


FAULTS = (dropped_grade, shifted_odd, even_fed_by_odd, outgoing_without_sign, even_activation, wrong_product)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_faults_are_caught(fault):
    subject, check = fault()
    assert CHECKS[check](subject).status == "failed"
