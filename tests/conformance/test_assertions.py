"""Assertions of one line, in every library, each with a layer that must fail."""

from functools import partial

import array_api_strict
import jax
import jax.numpy as jnp
import nfn_conformance
import nfn_jax
import nfn_torch
import numpy as np
import pytest
import torch
from nfn_conformance import assert_equivariant, assert_invariant, assert_maximal, assert_normalized

from nfn_core import (
    Dropout,
    FeatureError,
    Group,
    NFLayer,
    NFNError,
    Sequential,
    SinusoidalEncoding,
    SpecError,
    WeightSpace,
    initialize,
    invariant_network,
)

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


class DeepSets(torch.nn.Module):
    """A plain torch module: itself and the mean of the set, or the first member for the mean."""

    def __init__(self, seed=0, broken=False, bias=True):
        super().__init__()
        torch.manual_seed(seed)
        self.own, self.mean = torch.nn.Linear(1, 1, bias=bias), torch.nn.Linear(1, 1, bias=False)
        self.broken = broken

    def forward(self, u):
        return {"v": self.own(u["v"]) + self.mean(u["v"][:, :1] if self.broken else u["v"].mean(1, keepdim=True))}


SET = WeightSpace.from_axes({"v": [("h", 5)]})
VALUES = {"v": np.random.default_rng(1).normal(size=(3, 5, 1))}


def test_a_torch_module():
    u = {"v": torch.tensor(VALUES["v"], dtype=torch.float32)}
    found = assert_equivariant(DeepSets(), u, "NP", space=SET)
    assert found.limit == pytest.approx(64 * 2**-23 * 5**0.5)
    assert assert_equivariant(DeepSets().double(), {"v": u["v"].double()}, "NP", space=SET).limit == 1e-9
    with pytest.raises(AssertionError, match="DeepSets fails equivariance.*permutation of h in tensor 'v', group NP"):
        assert_equivariant(DeepSets(broken=True), u, "NP", space=SET)
    assert assert_maximal(DeepSets, u, space=SET).value == 2
    assert assert_maximal(partial(DeepSets, bias=False), u, space=SET).value == 2
    with pytest.raises(AssertionError, match="fails equivariance"):  # of the right rank
        assert_maximal(partial(DeepSets, broken=True), u, space=SET)
    with pytest.raises(AssertionError, match="fails linearity"):
        assert_maximal(lambda seed: lambda u: {"v": torch.tanh(DeepSets(seed)(u)["v"])}, u, space=SET)


def test_a_jax_function():
    u = {"v": jnp.asarray(VALUES["v"], dtype="float32")}

    @jax.jit
    def total(params, u):
        return (u["v"] * params).sum((1, 2))

    assert assert_invariant(partial(total, 2.0), u, {"h"}, space=SET).status == "passed"
    weights = jnp.arange(5.0)[:, None]
    with pytest.raises(AssertionError, match="total fails invariance"):
        assert_invariant(partial(total, weights), u, space=SET)
    with pytest.raises(AssertionError, match="fails equivariance: inf .*in tensor 'v'"):
        assert_equivariant(lambda u: {"v": u["v"].at[0, 0].set(jnp.nan)}, u, space=SET)
    draw = lambda seed: partial(total, jax.random.normal(jax.random.key(seed)))  # noqa: E731
    assert assert_maximal(draw, u, space=SET).value == 1
    with pytest.raises(AssertionError, match="rank 0, orbits 1"):
        assert_maximal(lambda seed: partial(total, 0.0), u, space=SET)


def test_strict_arrays():
    u = {"v": array_api_strict.asarray(VALUES["v"])}
    mean = partial(array_api_strict.mean, axis=(1, 2))
    assert assert_invariant(lambda u: mean(u["v"]), u, space=SET).limit == 1e-9
    with pytest.raises(AssertionError, match="fails invariance"):
        assert_invariant(lambda u: u["v"][:, 0, :], u, space=SET)


def test_limits_follow_the_dtype_of_the_output():
    """A computation in float32 is within the limits of float32, and not within those of float64."""
    u = {"v": VALUES["v"]}
    narrow = lambda u: {"v": u["v"].astype("float32") * 3 + np.cumsum(u["v"].astype("float32"), 1)[:, -1:]}  # noqa: E731
    assert 1e-9 < assert_equivariant(narrow, u, space=SET).value < 1e-6
    with pytest.raises(AssertionError, match=r"\(limit 1e-09\)"):
        assert_equivariant(lambda u: {"v": narrow(u)["v"].astype("float64")}, u, space=SET)
    with pytest.raises(AssertionError, match="fails equivariance"):
        assert_equivariant(lambda u: {"v": narrow(u)["v"] * np.float32(1 + 1e-3 * np.arange(5)[:, None])}, u, space=SET)


def test_limits_of_the_users_own():
    """A layer of rounding like TF32's passes with a limit for it, and one that is not equivariant does not."""
    u = {name: x.astype(np.float32) for name, x in DRAWN.items()}
    rng = np.random.default_rng(0)

    def noisy(u):
        return {n: x * (1 + 1e-3 * rng.normal(size=x.shape).astype(np.float32)) for n, x in u.items()}

    with pytest.raises(AssertionError, match="limit"):
        assert_equivariant(noisy, u, GROUP)
    assert assert_equivariant(noisy, u, GROUP, limit=1e-2).limit == 1e-2
    with pytest.raises(AssertionError, match="limit 0.01"):
        assert_equivariant(lambda u: {**u, "W1": np.sort(u["W1"], axis=2) + u["W1"][:, :1]}, u, GROUP, limit=1e-2)
    with pytest.raises(SpecError, match="limit must be a positive finite number, not 0"):
        assert_invariant(noisy, u, GROUP, limit=0)


@pytest.mark.parametrize("group", ["NP", "HNP"])
def test_ranks_in_float32_withstand_rounding(group):
    """The rounding of random order of summation: every entry of an operator off by eps."""
    space = WeightSpace.mlp([2, 3, 2])
    u = {t.name: np.ones((1, *t.shape, 1), "float32") for t in space.tensors}
    layer = NFLayer(space.group(group), 1, 1)
    rng = np.random.default_rng(0)

    def make(seed, terms=1):
        params = {n: x.astype("float32") for n, x in initialize(layer, seed).items()}
        params["hub"][0] *= terms

        def apply(u):
            exact = layer.apply(params, u)
            return {n: x * (1 + rng.normal(0, 6e-8, x.shape)).astype("float32") for n, x in exact.items()}

        return apply

    assert assert_maximal(make, u, group, space=space).value == layer.linear_parameter_count
    with pytest.raises(AssertionError, match="fails maximality"):
        assert_maximal(partial(make, terms=0), u, group, space=space)


def test_which_group():
    np_, hnp = SPACE.group("NP"), SPACE.group("HNP")
    u = features("torch")
    group_of = lambda *args, **named: assert_invariant(*args, **named).note.rpartition("group ")[2]  # noqa: E731
    numbers = nfn_torch.NFModule(invariant_network(np_, [1, 4], [3]))
    assert group_of(numbers, u) == "NP"
    assert group_of(numbers, u, "HNP") == "HNP"
    assert group_of(numbers, u, ["h1"]) == "{h1}"
    assert group_of(numbers, u, space=SPACE) == "HNP"
    assert group_of(torch.nn.Sequential(numbers), u, hnp) == "HNP"
    mixed = invariant_network(np_, [1, 4], [3], pool=SPACE.group(["h1", "in"]))
    assert group_of(nfn_torch.NFModule(mixed), u) == "{h1, in}"
    encoded = nfn_torch.NFModule(invariant_network(np_, [1, 4], [3], before=[SinusoidalEncoding(SPACE)]))
    assert group_of(encoded, u) == "HNP"
    with pytest.raises(AssertionError, match="permutation of in, group NP"):
        assert_invariant(encoded, u, "NP")
    params = nfn_jax.init(READER, 0)
    assert group_of(partial(nfn_jax.apply, READER, params), features("jax")) == "HNP"
    params = {n: x.astype("float32") for n, x in initialize(READER, 0).items()}
    assert group_of(partial(READER.apply, params), features("numpy")) == "HNP"


IDENTITY = lambda u: u  # noqa: E731
MISTAKES = {
    "no group": (IDENTITY, DRAWN, {}, "no group to infer"),
    "name without a space": (IDENTITY, DRAWN, {"group": "NP"}, "no group to infer"),
    "unknown name": (IDENTITY, DRAWN, {"group": "PN", "space": SPACE}, "'NP', 'HNP'"),
    "no space": (IDENTITY, DRAWN, {"space": "mlp"}, "must be a WeightSpace or ModelSpace, not str"),
    "two spaces": (IDENTITY, DRAWN, {"group": GROUP, "space": SET}, "group and space differ"),
    "nothing permuted": (IDENTITY, DRAWN, {"group": SPACE.group(set())}, "permutes nothing"),
    "wrong names": (IDENTITY, VALUES, {"group": GROUP}, "missing: 'W1'"),
    "wrong shape": (IDENTITY, {"v": np.ones((2, 4, 1))}, {"space": SET}, "expected size 5"),
    "integers": (IDENTITY, {"v": np.ones((2, 5, 1), int)}, {"space": SET}, "real floating"),
    "half precision": (IDENTITY, {"v": torch.ones((2, 5, 1)).bfloat16()}, {"space": SET}, "float32 or float64, not bf"),
    "empty batch": (IDENTITY, {"v": np.ones((0, 5, 1))}, {"space": SET}, "empty batch"),
    "NaN": (IDENTITY, {"v": VALUES["v"] * np.nan}, {"space": SET}, "NaN or infinity"),
    "zeros": (IDENTITY, {"v": 0 * VALUES["v"]}, {"space": SET}, "do not change when neuron set 'h' is permuted"),
    "returns half": (lambda u: {"v": u["v"].astype("float16")}, VALUES, {"space": SET}, "returned float16 for 'v'"),
    "returns nothing": (lambda u: None, VALUES, {"space": SET}, "returned NoneType"),
    "returns an array": (lambda u: u["v"], VALUES, {"space": SET}, "use assert_invariant"),
    "returns other shapes": (lambda u: {"v": u["v"][:, :2]}, VALUES, {"space": SET}, "expected size 5"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_of_use(name):
    layer, u, named, message = MISTAKES[name]
    with pytest.raises(NFNError, match=message):
        assert_equivariant(layer, u, **named)


def test_an_equivariant_layer_is_not_called_invariant():
    with pytest.raises(FeatureError, match="use assert_equivariant"):
        assert_invariant(IDENTITY, VALUES, space=SET)


def test_noise_is_named():
    module = nfn_torch.NFModule(Sequential((LAYER, Dropout(0.5))))
    with pytest.raises(AssertionError, match="two calls with the same input differ by .*: use evaluation mode"):
        assert_equivariant(module, features("torch"))
    assert assert_equivariant(module.eval(), features("torch")).status == "passed"


@pytest.mark.parametrize("library", ["numpy", "torch", "jax"])
def test_normalized_in_every_library(library):
    u = {name: 1.5 * x / x.std() for name, x in features(library).items()}
    assert assert_normalized(IDENTITY, u).limit == 2
    assert assert_normalized(lambda u: {n: 2 * x for n, x in u.items()}, u, factor=4).check == "normalization"
    with pytest.raises(AssertionError, match="limit 2.0"):
        assert_normalized(lambda u: {n: 2 * x for n, x in u.items()}, u)
    with pytest.raises(AssertionError, match="fails normalization: .*of 'W1' .*, of"):
        assert_normalized(lambda u: {**u, "W1": 1e3 * u["W1"]}, u)
    with pytest.raises(AssertionError, match="fails normalization: nan .*of 'W1' nan"):
        assert_normalized(lambda u: {**u, "W1": u["W1"] * float("nan")}, u)
    with pytest.raises(SpecError, match="above 1, not 1.0"):
        assert_normalized(IDENTITY, u, factor=1.0)
    with pytest.raises(FeatureError, match="no standard deviation"):
        assert_normalized(lambda u: {"W1": u["W1"][:1, 0, 0, :]}, u)
    with pytest.raises(FeatureError, match="must be a mapping"):
        assert_normalized(IDENTITY, u["W1"])


def test_operators_that_are_too_large_are_refused():
    space = WeightSpace.mlp([40, 40, 40])
    u = {t.name: np.ones((1, *t.shape, 1)) for t in space.tensors}
    with pytest.raises(SpecError, match="use a small space"):
        assert_maximal(lambda seed: IDENTITY, u, space=space)
    space = WeightSpace.mlp([20, 20, 20])  # each operator fits, all of them do not
    u = {t.name: np.ones((1, *t.shape, 1)) for t in space.tensors}
    with pytest.raises(SpecError, match="orbits, are too large"):
        assert_maximal(lambda seed: IDENTITY, u, space=space)


def test_public_names_are_listed_before_they_are_imported():
    assert {*nfn_conformance.__all__} <= {*dir(nfn_conformance)}
    assert all(getattr(nfn_conformance, name) is not None for name in nfn_conformance.__all__)
