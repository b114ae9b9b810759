"""Canonical forms: unit rows of ReLU networks through residual and convolutional nets and batch norms, and factors of LoRA."""

import jax.numpy as jnp
import nfn_jax
import nfn_torch
import numpy as np
import pytest
import torch

from nfn_core import (
    CanonicalFactors,
    CanonicalScales,
    InCanonicalScales,
    NFLayer,
    SpecError,
    WeightSpace,
    initialize,
    invariant_network,
)
from nfn_core.augmentations import scale_neurons

RESIDUAL = WeightSpace.from_axes(
    {
        "I": [("s", 4), ("in", 2)],
        "A": [("h", 3), ("s", 4)],
        "b": [("h", 3)],
        "B": [("s", 4), ("h", 3)],
        "O": [("out", 2), ("s", 4)],
    },
    ["in"],
    ["out"],
)
SPACES = {
    "mlp": WeightSpace.mlp([2, 4, 3, 2]),
    "cnn": WeightSpace.cnn([1, 3, 4, 2], [(2, 2), (2, 2), ()], bias=[True, False, True]),
    "residual": RESIDUAL,
    "recurrent": WeightSpace.from_axes(
        {"W": [("h", 4), ("in", 2)], "R": [("h", 4), ("h", 4)], "V": [("out", 2), ("h", 4)]}, ["in"], ["out"]
    ),
}


def draw(space, seed=0, batch=5):
    rng = np.random.default_rng(seed)
    return {t.name: rng.normal(size=(batch, *t.shape, 1)) for t in space.tensors}


def factors(form, seed=1, batch=5):
    rng = np.random.default_rng(seed)
    return {s: np.exp(rng.normal(size=(batch, form.space.sizes[s]))) for s in form.sets}


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_scaled_networks_have_one_form(space):
    form, u = CanonicalScales(space), draw(space)
    scaled = scale_neurons(space, u, factors(form))
    out = form.apply({}, u)
    for name, x in form.apply({}, scaled).items():
        np.testing.assert_allclose(x, out[name], rtol=1e-9)
    assert max(np.abs(scaled[name] - x).max() for name, x in u.items()) > 1
    for name, x in form.apply({}, out).items():  # canonical is canonical
        np.testing.assert_allclose(x, out[name], rtol=1e-9)


def relu_mlp(u, activation=lambda x: np.maximum(x, 0)):
    y = np.linspace(-1, 1, 10).reshape(2, 5)
    for i in (1, 2, 3):
        y = u[f"W{i}"][..., 0] @ y + u[f"v{i}"]
        y = y if i == 3 else activation(y)
    return y


def test_rows_are_unit_and_the_function_stays():
    space = SPACES["mlp"]
    u = draw(space)
    out = CanonicalScales(space).apply({}, u)
    for i in (1, 2):
        rows = np.concatenate([out[f"W{i}"][..., 0], out[f"v{i}"]], axis=2)
        np.testing.assert_allclose(np.sum(rows**2, axis=2), 1)
    np.testing.assert_allclose(relu_mlp(out), relu_mlp(u), rtol=1e-9)
    assert np.abs(relu_mlp(out, np.tanh) - relu_mlp(u, np.tanh)).max() > 0.1  # not homogeneous: another function
    first = CanonicalScales(space, ["h1"]).apply({}, u)
    np.testing.assert_array_equal(first["v2"], u["v2"])


def test_the_residual_stream_has_the_scale_of_what_writes_first():
    u = draw(RESIDUAL)
    out = CanonicalScales(RESIDUAL).apply({}, u)
    np.testing.assert_allclose(np.sum(out["I"] ** 2, axis=(2, 3)), 1)
    np.testing.assert_allclose(np.sum(out["A"] ** 2, axis=(2, 3)) + out["b"][..., 0] ** 2, 1)

    def run(w):
        w = {k: x[..., 0] for k, x in w.items()}
        s = w["I"] @ np.ones((2, 3)) * [1, -1, 2]
        s = np.maximum(s + w["B"] @ np.maximum(w["A"] @ s + w["b"][..., None], 0), 0)
        return w["O"] @ s

    np.testing.assert_allclose(run(out), run(u), rtol=1e-9)


def test_batch_norms_have_a_scale_of_their_own():
    axes = {"W": [("h", 4), ("in", 3)], "mean": [("h", 4)], "var": [("h", 4)], "g": [("h", 4)], "b": [("h", 4)]}
    space = WeightSpace.from_axes(axes | {"V": [("out", 2), ("h", 4)]}, ["in"], ["out"])
    form = CanonicalScales(space, normalized=["W", "mean"], variances=["var"])
    u = draw(space)
    u["var"] = np.abs(u["var"]) + 0.1

    def run(w):
        w = {k: x[..., 0] for k, x in w.items()}
        y = (w["W"] @ np.eye(3) - w["mean"][..., None]) / np.sqrt(w["var"])[..., None]
        return w["V"] @ np.maximum(w["g"][..., None] * y + w["b"][..., None], 0)

    out = form.apply({}, u)
    np.testing.assert_allclose(run(out), run(u), rtol=1e-9)
    np.testing.assert_allclose(np.sum(out["W"] ** 2, axis=(2, 3)) + out["mean"][..., 0] ** 2, 1)
    np.testing.assert_allclose(out["g"] ** 2 + out["b"] ** 2, 1)
    c, d = (x[..., None] for x in np.exp(np.random.default_rng(3).normal(size=(2, 5, 4))))
    same = u | {"W": u["W"] * c[..., None], "mean": u["mean"] * c, "var": u["var"] * c * c}
    same |= {"g": u["g"] * d, "b": u["b"] * d, "V": u["V"] / d[:, None]}
    for name, x in form.apply({}, same).items():
        np.testing.assert_allclose(x, out[name], rtol=1e-9)


def test_neurons_of_zeros_stay_as_they_are():
    space = SPACES["mlp"]
    u = draw(space)
    for name in ("W1", "v1"):
        u[name][:, 2] = 0
    out = CanonicalScales(space, ["h1"]).apply({}, u)
    np.testing.assert_array_equal(out["W1"][:, 2], 0)
    np.testing.assert_array_equal(out["W2"][:, :, 2], u["W2"][:, :, 2])
    x = {k: torch.tensor(v, requires_grad=True) for k, v in u.items()}
    sum(y.sum() for y in nfn_torch.NFModule(CanonicalScales(space), dtype=torch.float64)(x).values()).backward()
    assert all(bool(torch.isfinite(v.grad).all()) for v in x.values())


def test_networks_after_the_form_are_invariant_and_edits_equivariant():
    space = SPACES["mlp"]
    form, group, u = CanonicalScales(space), space.group("HNP"), draw(space)
    by = factors(form)
    scaled = scale_neurons(space, u, by)
    network = invariant_network(group, [1, 4], [3], before=[form])
    p = initialize(network, 0)
    np.testing.assert_allclose(network.apply(p, scaled), network.apply(p, u), rtol=1e-9)
    editor = InCanonicalScales(form, NFLayer(group, 1, 2))
    p = initialize(editor, 0)
    expected = scale_neurons(space, editor.apply(p, u), by)
    for name, x in editor.apply(p, scaled).items():
        np.testing.assert_allclose(x, expected[name], rtol=1e-8)
    sigma = group.sample(0)
    moved = group.act(sigma, editor.apply(p, u))
    for name, x in editor.apply(p, group.act(sigma, u)).items():
        np.testing.assert_allclose(x, moved[name], rtol=1e-8)


LOW = WeightSpace.from_axes({"B": [("out", 6), ("r", 3)], "A": [("r", 3), ("in", 5)], "W": [("out", 6), ("in", 5)]})


def low_rank(space=LOW, seed=0):
    u = draw(space, seed)
    m = np.random.default_rng(9).normal(size=(5, space.sizes["r"], space.sizes["r"]))
    other = u | {"B": (u["B"][..., 0] @ m)[..., None], "A": np.linalg.solve(m, u["A"][..., 0])[..., None]}
    return u, other


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_factors_have_one_form_up_to_signs(rank):
    space = WeightSpace.from_axes({"B": [("out", 6), ("r", rank)], "A": [("r", rank), ("in", 5)]})
    form = CanonicalFactors(space, [("B", "A")])
    u, other = low_rank(space)
    one, two = form.apply({}, u), form.apply({}, other)
    product = u["B"][..., 0] @ u["A"][..., 0]
    np.testing.assert_allclose(one["B"][..., 0] @ one["A"][..., 0], product, atol=1e-10)
    values = form.singular_values(u)["B"]
    np.testing.assert_allclose(values[:, :5], np.linalg.svd(product)[1][:, :rank], atol=1e-10)
    np.testing.assert_allclose(form.singular_values(other)["B"], values, atol=1e-8)
    for name in "BA":
        np.testing.assert_allclose(np.abs(one[name]), np.abs(two[name]), atol=1e-6)


def test_networks_with_signs_after_the_form_are_invariant():
    u, other = low_rank()
    group = LOW.group(["r"], signed=["r"])
    network = invariant_network(group, [1, 3], [2], before=[CanonicalFactors(LOW, [("B", "A")])], activation="silu")
    p = initialize(network, 0)
    np.testing.assert_allclose(network.apply(p, u), network.apply(p, other), atol=1e-8)
    assert np.ptp(network.apply(p, u), axis=0).min() > 0


def test_the_product_is_never_formed():
    """It would have 10 billion entries."""
    space = WeightSpace.from_axes({"B": [("out", 100_000), ("r", 2)], "A": [("r", 2), ("in", 100_000)]})
    rng = np.random.default_rng(0)
    u = {t.name: rng.normal(size=(1, *t.shape, 1)) for t in space.tensors}
    assert CanonicalFactors(space, [("B", "A")]).apply({}, u)["B"].shape == (1, 100_000, 2, 1)


def test_backends_agree():
    u, _ = low_rank()
    mlp = draw(SPACES["mlp"])
    for layer, x in ((CanonicalScales(SPACES["mlp"]), mlp), (CanonicalFactors(LOW, [("B", "A")]), u)):
        x = {k: v.astype("float32") for k, v in x.items()}
        expected = layer.apply({}, x)
        in_torch = nfn_torch.NFModule(layer)({k: torch.tensor(v) for k, v in x.items()})
        in_jax = nfn_jax.apply(layer, {}, {k: jnp.asarray(v) for k, v in x.items()})
        for name, y in expected.items():
            assert y.dtype == "float32"
            for found in (in_torch[name], in_jax[name]):
                np.testing.assert_allclose(np.abs(np.asarray(found)), np.abs(y), atol=2e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: CanonicalScales(SPACES["mlp"], ["in"]), "sets name 'in', which is no hidden neuron set"),
        (lambda: CanonicalScales(SPACES["mlp"], ["h9"]), "sets name 'h9', which is no hidden neuron set"),
        (lambda: CanonicalScales(SPACES["mlp"], normalized=["W9"]), "normalized must name tensors of .*, not 'W9'"),
        (
            lambda: CanonicalScales(WeightSpace.from_axes({"R": [("h", 3), ("h", 3)]})),
            r"sets \['h'\] have no weight that comes from other sets: leave them out",
        ),
        (lambda: CanonicalFactors(LOW, [("A", "B")]), "pairs must hold names of B, with axes .outputs, rank."),
        (lambda: CanonicalFactors(LOW, [("B", "A"), ("B", "A")]), "pairs must name each tensor once"),
        (lambda: CanonicalFactors(LOW, [("B", "X")]), r"pairs must hold names of B.*not \('B', 'X'\)"),
    ],
)
def test_what_does_not_fit(call, message):
    with pytest.raises(SpecError, match=message):
        call()
