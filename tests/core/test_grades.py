"""Groups with signs: elements, grades, graded features, and counts of graded hubs against the commutant by brute force."""

from functools import cache
from itertools import permutations, product

import numpy as np
import pytest

from nfn_core import (
    FeatureError,
    Group,
    NFLayer,
    Permutation,
    PermutationError,
    SpecError,
    WeightSpace,
    from_json,
    to_json,
)

SPACE = WeightSpace.mlp([2, 4, 3, 1])
GROUP = SPACE.group("HNP", signed=["h1", "h2"])
RNN = WeightSpace.from_axes({"R": [("h", 3), ("h", 3)], "b": [("h", 3)], "V": [("out", 2), ("h", 3)]})


def draw(group, batch=2, channels=2, seed=0):
    rng = np.random.default_rng(seed)
    return {t.name: rng.normal(size=(batch, *t.shape, channels)) for t in group.space.tensors}


def twice():
    """A set with two signs: weights come in with the first, and go out with both."""
    return Group(SPACE, ("h1", "h2"), ("h1", "h1", "h2"), ((1, 0), (2,), (1, 3), (1,), (0, 1), (0,)))


def test_signs_multiply_neurons_before_they_move():
    sigma = GROUP.permutation({"h1": [1, 2, 3, 0]}, {"h1": [1, -1, 1, 1], "h2": np.array([-1, 1, 1])})
    u = draw(GROUP)
    v = GROUP.act(sigma, u)
    for j, sign in enumerate([1, -1, 1, 1]):
        np.testing.assert_array_equal(v["v1"][:, sigma["h1"][j]], sign * u["v1"][:, j])
        np.testing.assert_array_equal(v["W1"][:, sigma["h1"][j]], sign * u["W1"][:, j])
        for k, other in enumerate([-1, 1, 1]):
            np.testing.assert_array_equal(v["W2"][:, k, sigma["h1"][j]], sign * other * u["W2"][:, k, j])
    np.testing.assert_array_equal(v["v3"], u["v3"])


@pytest.mark.parametrize(
    "group", [GROUP, GROUP.graded("all"), twice(), twice().graded("all"), RNN.group("NP", signed=["h"])], ids=str
)
def test_elements_form_a_group_that_acts(group):
    u, sigma, tau = draw(group), group.sample(1), group.sample(2)
    assert any(-1 in signs for _, signs in sigma.signs)
    moved = group.act(sigma, u)
    assert sigma.compose(sigma.inverse()) == sigma.inverse().compose(sigma) == group.identity()
    for name in u:
        twofold = group.act(sigma, group.act(tau, u))[name]
        np.testing.assert_array_equal(group.act(sigma.compose(tau), u)[name], twofold)
        np.testing.assert_array_equal(group.act(sigma.inverse(), moved)[name], u[name])
        np.testing.assert_array_equal(group.act(group.identity(), u)[name], u[name])
    assert len(group.generators()) == sum(1 + (group.space.sizes[s] > 2) for s in group.permuted) + len(group.signed)


def test_a_sign_on_two_axes_of_one_tensor_is_a_product():
    group = RNN.group("NP", signed=["h"])
    sigma = group.permutation({}, {"h": [1, -1, 1]})
    u = draw(group)
    np.testing.assert_array_equal(group.act(sigma, u)["R"][0, 1, 0], -u["R"][0, 1, 0])
    np.testing.assert_array_equal(group.act(sigma, u)["R"][0, 1, 1], u["R"][0, 1, 1])


def test_orders_names_and_sets_of_size_1():
    assert GROUP.order == 24 * 6 * 2**7
    assert (GROUP.name, SPACE.group("HNP").name) == ("HNP ±{h1, h2}", "HNP")
    assert twice().order == 24 * 6 * 2**11
    lone = WeightSpace.mlp([2, 1, 3]).group("NP", signed=["h1"])
    assert (lone.permuted, lone.signed) == (("in", "out"), ("h1",))
    assert [g.signs for g in lone.generators()][-1] == (("h1", (-1,)),)
    assert NFLayer(lone, 1, 1).linear_parameter_count == commutant(lone, lone)


def test_grades_of_a_graded_space():
    graded = GROUP.graded("all")
    assert [t.name for t in graded.space.tensors][4:8] == ["W2[0,0]", "W2[0,1]", "W2[1,0]", "W2[1,1]"]
    assert graded.grade("W2[1,0]") == (1, 0)
    assert graded.graded("all") == graded  # grades of the same tensors, not of graded ones
    assert GROUP.graded("even").graded("all") == GROUP.graded("even")  # products of even features are even
    assert list(GROUP.graded({"W1": [[1, 0]], "W2": [(0, 1)]}).space.by_name) == ["W1[1,0]", "W2[0,1]"]
    assert [len(members) for _, members in graded.families()] == [2, 2, 4, 2, 2, 1]
    assert list(twice().graded("all").space.by_name)[4:8] == ["W2[0,0]", "W2[0,3]", "W2[1,0]", "W2[1,3]"]


def test_descriptions_without_signs_stay_as_they_were():
    assert "signed" not in to_json(SPACE.group("HNP"))
    assert "target" not in to_json(NFLayer(SPACE.group("HNP"), 1, 2))
    natural = tuple(GROUP.grade(t.name) for t in SPACE.tensors)
    assert Group(SPACE, ("h1", "h2"), ("h2", "h1"), natural) == GROUP
    for group in (GROUP, GROUP.graded("all"), twice()):
        assert from_json(to_json(group)) == group


def commutant(source, target):
    """Dimension of the equivariant maps: the mean of the product of both traces over all elements."""
    return round(float(np.mean(np.array(traces(source)) * np.array(traces(target)))), 6)


@cache
def traces(group):
    """Trace of every element of the group on the flattened space."""
    sizes = group.space.sizes
    moves = [[(s, image) for image in permutations(range(sizes[s]))] for s in group.permuted]
    flips = [[(s, signs) for signs in product((1, -1), repeat=sizes[s])] for s in group.signed]
    elements = (Permutation(x[: len(moves)], x[len(moves) :]) for x in product(*moves, *flips))
    return [np.trace(matrix(group, sigma)) for sigma in elements]


def matrix(group, sigma):
    """What an element does to the flattened space, by its action on a basis."""
    basis, u, start = np.eye(group.space.size), {}, 0
    for t in group.space.tensors:
        u[t.name] = basis[:, start : start + t.size].reshape(-1, *t.shape, 1)
        start += t.size
    return np.concatenate([x.reshape(len(basis), -1) for x in group.act(sigma, u).values()], axis=1).T


@pytest.mark.parametrize(
    ("sizes", "counts"),
    [([2, 3, 2], (29, 14, 74, 99)), ([1, 3, 2, 1], (10, 6, 55, 76)), ([2, 2, 3, 1], (15, 7, 75, 103))],
    ids=str,
)
def test_graded_hubs_are_the_commutant(sizes, counts):
    """Natural to natural, natural to even, even to even, all to all."""
    space = WeightSpace.mlp(sizes)
    natural = space.group("HNP", signed=[s for s in space.sizes if s[0] == "h"])
    even, every = natural.graded("even"), natural.graded("all")
    pairs = ((natural, natural), (natural, even), (even, even), (every, every))
    for (source, target), count in zip(pairs, counts, strict=True):
        layer = NFLayer(source, 1, 1, target=target)
        assert layer.linear_parameter_count == count == commutant(source, target)
    assert NFLayer(natural, 2, 3, target=every).linear_parameter_count == 6 * commutant(natural, every)


def test_two_signs_and_repeated_labels_are_the_commutant():
    two = Group(WeightSpace.mlp([1, 3, 1]), ("h1",), ("h1", "h1"), ((1, 0), (2,), (0, 3), (0,)))
    square = WeightSpace.from_axes({"R": [("h", 4), ("h", 4)], "b": [("h", 4)]}).group("NP", signed=["h"])
    for group in (two, two.graded("all"), square, square.graded("all")):
        assert NFLayer(group, 1, 1).linear_parameter_count == commutant(group, group)


def test_elements_act_on_spaces_that_order_the_sets_otherwise():
    group = WeightSpace.mlp([2, 3, 4, 1]).group("HNP", signed=["h1", "h2"])
    products = group.graded({"W2": [(1, 1)]})
    assert (group.signed, products.signed) == (("h1", "h2"), ("h2", "h1"))
    sigma, x = group.sample(0), np.random.default_rng(0).normal(size=(2, 4, 3, 1))
    weights = {t.name: np.zeros((2, *t.shape, 1)) for t in group.space.tensors} | {"W2": x}
    np.testing.assert_array_equal(products.act(sigma, {"W2[1,1]": x})["W2[1,1]"], group.act(sigma, weights)["W2"])


def test_where_no_input_is_even_only_constants_reach_even_outputs():
    odd = GROUP.graded({"W1": [[1, 0]], "W2": [[1, 1]]})
    layer = NFLayer(odd, 1, 2, target=GROUP.graded("even"))
    assert layer.parameter_specs()["hub"].shape[0] == layer.linear_parameter_count == 0
    out = layer.apply({"hub": np.zeros((0, 14)), "bias": np.arange(14.0)}, draw(odd, channels=1))
    assert np.ptp(out["v2[0]"], axis=1).max() == 0
    with pytest.raises(SpecError, match="nothing of the input reaches the output: they have no grade in common"):
        NFLayer(odd, 1, 2, bias=False, target=GROUP.graded("even"))
    zeros = NFLayer(odd, 1, 2, target=GROUP)
    out = zeros.apply({k: np.ones(s.shape) for k, s in zeros.parameter_specs().items()}, draw(odd, channels=1))
    assert not out["v2"].any()  # its grade [1] comes in none
    assert out["W2"].any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SPACE.group("HNP", signed=["h9"]), "signed names unknown neuron set 'h9'"),
        (lambda: SPACE.group("HNP", signed=["in"]), "signed names neuron set 'in', which the group does not permute"),
        (lambda: SPACE.group("HNP", signed=["h1", "h1"]), "signed names a set twice.*say by grades"),
        (lambda: Group(SPACE, ("h1",), ("h1",), ((1, 0),)), "grades must be one for each of the 6 tensors, not 1"),
        (
            lambda: Group(SPACE, ("h1",), ("h1",), ((1,),) * 6),
            r"the grade of tensor 'W1' must have 2 numbers, not \(1,\)",
        ),
        (
            lambda: Group(SPACE, ("h1",), ("h1",), ((2, 0), (1,), (0, 1), (0,), (0, 0), (0,))),
            "the grade of tensor 'W1', axis 0, must be an integer from 0 to 1, not 2: neuron set 'h1' has 1 signs",
        ),
        (lambda: GROUP.graded("odd"), "grades must be 'all', 'even' or grades by tensor, not 'odd'"),
        (lambda: GROUP.graded({"W9": [[0, 0]]}), "grades must name tensors of .*'W1'.*, not 'W9'"),
        (lambda: GROUP.graded({"W1": [[0, 0]]}), "no tensor of these grades has neuron set 'h2'"),
        (
            lambda: GROUP.graded({"W1": [[0, 1]], "W2": [[0, 0]]}),
            r"'W1\[0,1\]', axis 1, must be an integer from 0 to 0",
        ),
        (lambda: NFLayer(GROUP, 1, 1, target=SPACE.group("HNP")), "target must be the same group on another space"),
        (lambda: NFLayer(GROUP, 1, 1, target=SPACE.group(["h1"], ["h1"])), "target must be the same group"),
    ],
)
def test_grades_that_do_not_fit(call, message):
    with pytest.raises(SpecError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GROUP.permutation({}, {"h1": [1, 1, 0, 1]}), "signs of neuron set 'h1' must be 1 or -1, not 0"),
        (lambda: GROUP.permutation({}, {"h1": [1, 1]}), "signs of neuron set 'h1' must have length 4, not 2"),
        (lambda: GROUP.permutation({}, {"in": [1, 1]}), r"signs came for \['in'\], but this group signs only"),
        (lambda: twice().permutation({}, {"h1": [[1, 1, 1, 1]]}), "'h1' must be 2 sequences"),
        (
            lambda: GROUP.identity().compose(SPACE.group("HNP").identity()),
            "only elements of one group compose.*h1 ±: 4",
        ),
        (lambda: Permutation((("h", (1, 0)),), (("h", (1,)),)), "signs of neuron set 'h' are 1, but its images 2"),
        (
            lambda: SPACE.group("HNP").act(GROUP.sample(0), draw(GROUP)),
            r"sigma signs \['h1', 'h2'\], but this group \[\]",
        ),
    ],
)
def test_elements_that_do_not_fit(call, message):
    with pytest.raises(PermutationError, match=message):
        call()


def test_features_of_another_grade_are_named():
    with pytest.raises(FeatureError, match=r"missing: 'W1\[0,0\]'"):
        GROUP.graded("all").act(GROUP.sample(0), draw(GROUP))


def test_factors_are_products_of_the_signs_in_a_grade():
    sigma = twice().permutation({}, {"h1": [[1, -1, 1, -1], [1, 1, -1, -1]]})
    expected = {0: (), 1: (1, -1, 1, -1), 2: (1, 1, -1, -1), 3: (1, -1, -1, 1)}
    assert {g: sigma.factors("h1", g) for g in range(4)} == expected
