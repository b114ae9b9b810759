"""Every check of every layer, over drawn weight spaces and groups, on one backend."""

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from nfn_conformance import CHECKS, assert_conforms, subject_of
from nfn_conformance.strategies import groups

from nfn_core import (
    Activation,
    InvariantPool,
    LearnedEncoding,
    LowRankNFLayer,
    NFLayer,
    PointwiseLayer,
    Residual,
    Sequential,
    SinusoidalEncoding,
    WeightSpace,
    equivariant_network,
    invariant_network,
)

LINEAR = [
    "equivariance",
    "linearity",
    "maximality",
    "constants",
    "uncoupled",
    "gradient",
    "duplication",
    "batch",
    "dtype",
    "round trip",
]
CHANNELS = st.tuples(st.integers(1, 3), st.integers(1, 3))
RNN = {"W": [("h", 4), ("in", 2)], "R": [("h", 4), ("h", 4)], "b": [("h", 4)], "V": [("out", 2), ("h", 4)]}
SPACES = {
    "mlp": WeightSpace.mlp([2, 3, 3, 2]),
    "one layer": WeightSpace.mlp([2, 3]),
    "one output": WeightSpace.mlp([2, 4, 1]),
    "no bias": WeightSpace.mlp([2, 3, 2], bias=False),
    "cnn": WeightSpace.cnn([1, 3, 3, 2], [(2, 2), (2,), ()]),
    "flattened": WeightSpace.cnn([1, 2, 3], [(2,), (3,)]),
    "recurrent": WeightSpace.from_axes(RNN, ["in"], ["out"]),
    "residual": WeightSpace.from_axes(
        {"A": [("s", 3), ("in", 2)], "B": [("h", 2), ("s", 3)], "C": [("s", 3), ("h", 2)]}
    ),
}


def provided(subject, check):
    """A drawn example counts only where the check measured something."""
    assume(assert_conforms(subject, check).status == "passed")


@pytest.mark.parametrize("check", LINEAR)
def test_nf_layer_on_drawn_spaces(check, linear_subject, backend):
    if backend in ("numpy", "strict") and check in ("gradient", "round trip"):
        pytest.skip(f"not provided: {check} on {backend}")
    channels = st.just((1, 1)) if check in ("maximality", "constants") else CHANNELS

    @given(groups(), channels, st.sampled_from(["mean", "sum"]))
    def run(group, channels, pooling):
        provided(linear_subject(group, channels, pooling), check)

    run()


@pytest.mark.parametrize("kind", ["NP", "HNP"])
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("check", CHECKS)
def test_nf_layer_on_named_spaces(check, space, kind, conformance, linear_subject):
    conformance(linear_subject(SPACES[space].group(kind)), check)


def test_maximality_with_channels(linear_subject):
    for group in (SPACES["mlp"].group("NP"), SPACES["recurrent"].group("HNP")):
        assert_conforms(linear_subject(group, (2, 1)), "maximality")


@pytest.mark.parametrize("check", ["invariance", "linearity", "maximality", "gradient", "batch", "dtype"])
def test_pool_and_linear_map_are_every_invariant_map(check, backend, device):
    """Proposition 2: pooling followed by a linear map, as many parameters as orbits of indices."""
    if backend in ("numpy", "strict") and check == "gradient":
        pytest.skip(f"not provided: gradient on {backend}")

    @given(groups())
    @settings(max_examples=10 if check == "maximality" else settings.default.max_examples)
    def run(group):
        network = pooled_linear(group)
        provided(subject_of(network, group, backend, device, invariant=True, linear=True, maximal=True), check)

    run()


def pooled_linear(group):
    from nfn_core import MLPHead

    pool = InvariantPool(group)
    return Sequential((pool, MLPHead((pool.num_outputs, 1))))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    "name",
    [
        "low rank",
        "pointwise",
        "instance norm",
        "stack",
        "residual",
        "learned",
        "encoded",
        "classifier",
        "pointwise classifier",
    ],
)
def test_networks(name, check, conformance, backend, device):
    """Pointwise layers, stacks, residual blocks and encodings; HNP is what NP layers keep under IO-encoding."""
    space = SPACES["cnn"]
    np_, hnp = space.group("NP"), space.group("HNP")
    sinusoidal = SinusoidalEncoding(space, layers=True)
    layer, group, claims = {
        "low rank": (LowRankNFLayer(hnp, 1, 2, rank=2), hnp, {"out_channels": 2, "linear": True}),
        "pointwise": (PointwiseLayer(np_, 1, 2), np_, {"out_channels": 2, "linear": True}),
        "instance norm": (equivariant_network(hnp, [1, 4, 2], norm="instance"), hnp, {"out_channels": 2}),
        "stack": (equivariant_network(hnp, [1, 4, 2], norm="layer"), hnp, {"out_channels": 2, "maximal": True}),
        "residual": (Residual(Sequential((NFLayer(np_, 1, 1), Activation("tanh")))), np_, {}),
        "learned": (
            Sequential((LearnedEncoding(space, 1, layers=True), NFLayer(np_, 1, 2), Activation("silu"))),
            hnp,
            {"out_channels": 2, "maximal": True},
        ),
        "encoded": (
            equivariant_network(np_, [1, 4, 2], before=[sinusoidal], activation="gelu"),
            hnp,
            {"out_channels": 2, "maximal": True},
        ),
        "classifier": (
            invariant_network(np_, [1, 4, 4], [8, 3], pool=hnp, before=[sinusoidal], activation="tanh"),
            hnp,
            {"invariant": True, "maximal": True},
        ),
        "pointwise classifier": (
            invariant_network(np_, [1, 4, 4], [8, 3], pointwise=True, activation="tanh"),
            np_,
            {"invariant": True},
        ),
    }[name]
    conformance(subject_of(layer, group, backend, device, **claims), check)
