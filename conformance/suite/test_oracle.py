"""The oracle against numbers that can be counted by hand, and the checks against subjects they must fail."""

from dataclasses import replace

import numpy as np
import pytest
from nfn_conformance import CHECKS, index_orbits, pair_orbits

from nfn_core import WeightSpace


@pytest.mark.parametrize(
    ("n", "pairs", "constants"), [(4, 15, 2), (3, 14, 2), (2, 8, 2), (1, 1, 1)], ids=["4", "3", "2", "1"]
)
def test_square_matrix(n, pairs, constants):
    """Set partitions of four indices with at most n blocks."""
    group = WeightSpace.from_axes({"R": [("h", n), ("h", n)]}).group("NP")
    assert pair_orbits(group).max() + 1 == pairs
    assert index_orbits(group).max() + 1 == constants


def test_orbits_of_the_trivial_group_are_single_indices():
    group = WeightSpace.mlp([2, 3]).group(set())
    assert pair_orbits(group).max() + 1 == 9 * 9


BREAK = {
    "equivariance": lambda u: {
        k: x * np.arange(1, x.shape[1] + 1).reshape(-1, *[1] * (x.ndim - 2)) for k, x in u.items()
    },
    "linearity": lambda u: {k: np.tanh(x) for k, x in u.items()},
    "maximality": lambda u: {k: x - x.mean(axis=1, keepdims=True) for k, x in u.items()},
    "constants": lambda u: {k: x - x.mean(axis=1, keepdims=True) for k, x in u.items()},
    "batch": lambda u: {k: x + x.mean(axis=0, keepdims=True) for k, x in u.items() if len(x)} or u,
    "dtype": lambda u: {k: x.astype("float64") for k, x in u.items()},
}


@pytest.mark.parametrize("check", BREAK)
def test_a_spoiled_layer_fails(check, linear_subject):
    good = linear_subject(WeightSpace.mlp([2, 3, 2]).group("NP"))
    bad = replace(good, apply=lambda layer, u: BREAK[check](good.apply(layer, u)))
    assert CHECKS[check](good).status == "passed"
    assert CHECKS[check](bad).status == "failed"


def test_power_fails_a_layer_that_respects_too_much(linear_subject):
    good = linear_subject(WeightSpace.mlp([2, 3, 2]).group("NP"))
    bad = replace(good, apply=lambda layer, u: {k: 2 * x for k, x in u.items()})
    assert CHECKS["uncoupled"](good).status == "passed"
    assert CHECKS["uncoupled"](bad).status == "failed"


def test_invariance_fails_a_head_that_sees_places(linear_subject):
    good = replace(
        linear_subject(WeightSpace.mlp([2, 3, 2]).group("NP")),
        invariant=True,
        apply=lambda layer, u: np.stack([x.sum(axis=tuple(range(1, x.ndim))) for x in u.values()], axis=1),
    )
    bad = replace(good, apply=lambda layer, u: u["W1"][:, 0, :, 0])
    assert CHECKS["invariance"](good).status == "passed"
    assert CHECKS["invariance"](bad).status == "failed"


def test_gradient_compile_and_round_trip_fail_what_is_wrong(linear_subject):
    good = linear_subject(WeightSpace.mlp([2, 3, 2]).group("NP"))
    bad = replace(
        good,
        vjp=lambda layer, u, v: {k: 2 * x for k, x in v.items()},
        compiled=lambda layer, u: {k: 1.001 * x for k, x in good.apply(layer, u).items()},
        round_trip=lambda layer, folder: good.make(12345),
    )
    for check in ("gradient", "compile", "round trip"):
        assert CHECKS[check](bad).status == "failed"


def test_layers_without_constants_or_with_zero_output_have_rank_0(linear_subject):
    good = linear_subject(WeightSpace.mlp([2, 3, 2]).group("NP"))
    zero = replace(good, apply=lambda layer, u: {k: 0 * x for k, x in u.items()})
    for check, orbits in (("constants", 4), ("maximality", 32)):
        found = CHECKS[check](zero)
        assert (found.status, found.value, found.limit) == ("failed", 0, orbits)
        assert f"rank 0, orbits {orbits}" in found.note
    unbiased = replace(good, apply=lambda layer, u: {k: 2 * x for k, x in u.items()})
    assert CHECKS["constants"](unbiased).value == 0


def test_nan_has_no_rank(linear_subject):
    good = linear_subject(WeightSpace.mlp([2, 3, 2]).group("NP"))
    bad = replace(good, apply=lambda layer, u: {k: x * np.nan for k, x in u.items()})
    for check in ("equivariance", "linearity", "maximality", "constants", "batch"):
        assert CHECKS[check](bad).status == "failed"


def narrow(value):
    return {k: x.astype("float32") for k, x in value.items()}


@pytest.mark.parametrize("check", CHECKS)
def test_limits_follow_the_dtype_of_a_layer_that_knows_float32_only(check, linear_subject):
    """All pass but the check of dtypes, which says what the layer does."""
    good = linear_subject(WeightSpace.mlp([2, 3, 2]).group("NP"))
    larger = good.on_group
    subject = replace(
        good,
        apply=lambda layer, u: good.apply(layer, narrow(u)),
        vjp=good.vjp and (lambda layer, u, v: good.vjp(layer, narrow(u), narrow(v))),
        compiled=good.compiled and (lambda layer, u: good.compiled(layer, narrow(u))),
        on_group=lambda group: replace(larger(group), apply=lambda p, u: narrow(larger(group).apply(p, narrow(u)))),
    )
    found = CHECKS[check](subject)
    assert found.status in (("failed",) if check == "dtype" else ("passed", "not provided")), found
