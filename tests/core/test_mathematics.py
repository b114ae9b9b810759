"""The mathematics in NumPy: counts, the action, Eq. 3 written out, pooling, encodings, elementwise maps, initial values."""

import numpy as np
import pytest

from nfn_core import (
    ACTIVATIONS,
    Activation,
    Dropout,
    Execution,
    FeatureError,
    GaussianFourierFeatures,
    InvariantPool,
    LayerNorm,
    MLPHead,
    NFLayer,
    Normalize,
    ResolutionWarning,
    Scale,
    SinusoidalEncoding,
    SpecError,
    WeightSpace,
    initialize,
)
from nfn_core.layers import elementwise


def draw(space, batch=3, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    return {t.name: rng.normal(size=(batch, *t.shape, channels)) for t in space.tensors}


@pytest.mark.parametrize(
    ("space", "np_count", "hnp_count"),
    [
        (WeightSpace.mlp([2, 3, 3, 2]), 62, 114),
        (WeightSpace.mlp([3, 3, 2, 2]), 62, 142),
        (WeightSpace.mlp([2, 2, 3, 2, 2]), 100, 164),
        (WeightSpace.cnn([2, 3, 3, 2], [(2,), (2,), ()]), 122, 222),
        (WeightSpace.mlp([2, 3]), 10, 81),
        (WeightSpace.mlp([2, 4, 1]), 27, 41),
        (WeightSpace.from_axes({"R": [("h", 4), ("h", 4)]}), 15, 15),
    ],
)
def test_parameter_counts_are_orbit_counts(space, np_count, hnp_count):
    assert NFLayer(space.group("NP"), 1, 1).linear_parameter_count == np_count
    assert NFLayer(space.group("HNP"), 2, 3).linear_parameter_count == 6 * hnp_count


def test_invariants():
    space = WeightSpace.mlp([5, 4, 3, 2])
    assert InvariantPool(space.group("NP")).num_outputs == 6
    assert InvariantPool(space.group("HNP")).num_outputs == 2 * 3 - 3 + 5 + 2 * 2
    u = draw(space)
    pooled = InvariantPool(space.group("NP"), "sum").apply({}, u)
    np.testing.assert_allclose(pooled[:, 0], u["W1"].sum(axis=(1, 2)))


def test_action_is_eq_1_and_a_group_action():
    space = WeightSpace.mlp([3, 4, 2])
    group = space.group("NP")
    u, sigma, tau = draw(space), group.sample(1), group.sample(2)
    moved = group.act(sigma, u)
    for j in range(4):
        for k in range(3):
            assert np.array_equal(moved["W1"][:, sigma["h1"][j], sigma["in"][k]], u["W1"][:, j, k])
    for name in u:
        assert np.array_equal(group.act(sigma.compose(tau), u)[name], group.act(sigma, group.act(tau, u))[name])
        assert np.array_equal(group.act(sigma.inverse(), moved)[name], u[name])
        assert np.array_equal(group.act(group.identity(), u)[name], u[name])


def test_np_layer_is_eq_3_written_out():
    """Every term of Eq. 3 for 2 layers, from the blocks of the hub matrices, entry by entry."""
    space = WeightSpace.mlp([2, 3, 4])
    layer = NFLayer(space.group("NP"), 1, 1)
    p, u = initialize(layer, 0), draw(space)
    out = layer.apply(p, u)
    W1, v1, W2, v2 = (u[k][..., 0] for k in ("W1", "v1", "W2", "v2"))
    b = p["bias"]

    def hub(name, inputs, column):
        return sum(x * p[name][row, column] for row, x in enumerate(inputs))

    everywhere = [W1.mean((1, 2)), v1.mean(1), W2.mean((1, 2)), v2.mean(1)]
    for j in range(3):
        at_j = [W1[:, j].mean(1), v1[:, j], W2[:, :, j].mean(1)]
        z1 = hub("hub", everywhere, 1) + b[1] + hub("hub+h1", at_j, 1)
        np.testing.assert_allclose(out["v1"][:, j, 0], z1, rtol=1e-12)
        for k in range(2):
            y1 = hub("hub", everywhere, 0) + b[0] + hub("hub+h1", at_j, 0) + hub("hub+in", [W1[:, :, k].mean(1)], 0)
            np.testing.assert_allclose(out["W1"][:, j, k, 0], y1 + hub("hub+h1+in", [W1[:, j, k]], 0), rtol=1e-12)
        for i in range(4):
            at_i = [W2[:, i].mean(1), v2[:, i]]
            y2 = hub("hub", everywhere, 2) + b[2] + hub("hub+h1", at_j, 2) + hub("hub+out", at_i, 0)
            np.testing.assert_allclose(out["W2"][:, i, j, 0], y2 + hub("hub+out+h1", [W2[:, i, j]], 0), rtol=1e-12)


def test_initial_values():
    space = WeightSpace.mlp([2, 30, 30, 2])
    layer = NFLayer(space.group("NP"), 8, 8)
    p = initialize(layer, 0)
    for name, spec in layer.parameter_specs().items():
        bounds = np.concatenate([np.full(columns, n**-0.5) for columns, n in spec.fan_in])
        assert np.all(np.abs(p[name]) <= bounds)
        assert np.abs(p[name] / bounds).max() > 0.9
    w1 = layer.parameter_specs()["hub"].fan_in[0][1]
    assert w1 == 8 * (6 + 3 + 1 + 1)  # hubs: all, h1, in, and the entry itself
    assert all(np.array_equal(p[k], x) for k, x in initialize(layer, 0).items())
    assert not np.array_equal(p["hub"], initialize(layer, 1)["hub"])
    kaiming = NFLayer(space.group("NP"), 8, 8, init="kaiming")
    scaled = initialize(kaiming, 0)["hub"] * np.sqrt(
        [n / 2 for c, n in kaiming.parameter_specs()["hub"].fan_in for _ in range(c)]
    )
    assert abs(scaled.std() - 1) < 0.05
    assert not initialize(kaiming, 0)["bias"].any()


@pytest.mark.parametrize(
    "space", [WeightSpace.mlp([3, 4, 2]), WeightSpace.cnn([3, 4, 2], [(3, 3), (2,)]), WeightSpace.mlp([3, 2])]
)
def test_sinusoidal_encoding(space):
    out = SinusoidalEncoding(space).apply({}, draw(space))
    place = np.array([-1.0, 0.0, 1.0])
    first = out["W1"][0].reshape(out["W1"].shape[1], 3, -1, 14)
    if len(space.tensors) > 2:
        assert not out["v1"][..., 1:].any()
        np.testing.assert_allclose(first[0, :, 0, 13], place)
        np.testing.assert_allclose(first[0, :, 0, 6], np.sin(np.pi * 5 * place), atol=1e-12)
    last = out[space.tensors[-1].name]
    np.testing.assert_allclose(last[0, :, 13], [-1.0, 1.0])
    layered = SinusoidalEncoding(space, layers=True).apply({}, draw(space))
    assert not np.array_equal(layered["W1"], out["W1"])


def test_gaussian_fourier_features():
    space = WeightSpace.mlp([2, 3])
    layer = GaussianFourierFeatures(1, 5, 2.0)
    p, u = initialize(layer, 0), draw(space)
    out = layer.apply(p, u)["v1"]
    angle = 2 * np.pi * u["v1"] * p["frequencies"][0]
    np.testing.assert_allclose(out, np.concatenate([np.sin(angle), np.cos(angle)], -1), rtol=1e-12)


def test_fourier_features_with_a_scale_for_each_tensor():
    space = WeightSpace.mlp([2, 3])
    u = {name: deviation * x for (name, x), deviation in zip(draw(space, batch=50).items(), (0.01, 30.0), strict=True)}
    layer = GaussianFourierFeatures.from_features(u, 5, 0.5)
    p = initialize(layer, 0)
    same = {name: x / x.std() for name, x in u.items()}
    plain = GaussianFourierFeatures(1, 5, 0.5)
    expected, out = plain.apply(p, same), layer.apply(p, u)
    for name, x in expected.items():
        np.testing.assert_allclose(out[name], x, rtol=1e-9, atol=1e-9)
    assert layer.turns(u) == pytest.approx({"W1": 0.5, "v1": 0.5})
    with pytest.warns(ResolutionWarning, match="'W1': .* over 0.005.* turns.*larger"):
        assert plain.turns({"W1": u["W1"]})["W1"] == pytest.approx(0.5 * u["W1"].std())
    with pytest.warns(ResolutionWarning, match="'v1': .*smaller: close entries"):
        plain.turns({"v1": u["v1"]})
    with pytest.raises(FeatureError, match=r"expected tensors \['W1', 'v1'\], not \['W1'\]"):
        layer.apply(p, {"W1": u["W1"]})
    with pytest.raises(SpecError, match="at least one network"):
        GaussianFourierFeatures.from_features({"W1": u["W1"][:0]})
    with pytest.raises(SpecError, match="scale of tensor 'W1' must be a positive finite number"):
        GaussianFourierFeatures(1, 5, 0.5, (("W1", 0.0),))
    constant = {"W1": np.ones((3, 2, 1))}
    assert GaussianFourierFeatures.from_features(constant).tensor_scales == (("W1", 1.0),)


def test_normalization_and_scale():
    space = WeightSpace.mlp([2, 3])
    u = draw(space, batch=50, channels=4)
    layer = Normalize.from_features(space, u)
    out = layer.apply(initialize(layer, 0), u)["W1"].reshape(-1, 4)
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(out.std(0), 1)
    norm = LayerNorm(space, 4)
    out = norm.apply(initialize(norm, 0), u)["v1"]
    np.testing.assert_allclose(out.std(-1), 1, rtol=1e-3)
    scale = Scale(space, 0.01)
    np.testing.assert_allclose(scale.apply(initialize(scale, 0), u)["v1"], 0.01 * u["v1"])


@pytest.mark.parametrize("drop", ["entries", "channels"])
def test_dropout(drop):
    rng = np.random.default_rng(0)
    u = {"W1": np.ones((40, 5, 4, 50))}
    layer = Dropout(0.25, drop)
    assert layer.apply({}, u)["W1"] is u["W1"]
    out = layer.apply({}, u, Execution(lambda shape, like: rng.random(shape)))["W1"]
    assert set(np.unique(out)) == {0.0, 1 / 0.75}
    assert abs((out == 0).mean() - 0.25) < 0.03
    whole = np.all((out == 0).all((1, 2)) == (out == 0).any((1, 2)))
    assert whole == (drop == "channels")


def test_a_head_checks_its_numbers_once(monkeypatch):
    """torch.compile of PyTorch 2.11 cannot trace the checks of a description that is built in a forward pass."""
    head = MLPHead((3, 4, 2), dropout=0.5)
    monkeypatch.setattr(elementwise, "check_numbers", None)
    noise = Execution(lambda shape, like: np.zeros(shape))
    assert np.all(head.apply(initialize(head, 0), np.ones((5, 3)), noise) == initialize(head, 0)["1.bias"])


TORCH = {"gelu": {"approximate": "tanh"}, "leaky_relu": {}, "relu": {}, "silu": {}, "softplus": {}}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_and_their_derivatives(name):
    """Against PyTorch's own, at 0 and where exp would overflow; JAX's derivative equals PyTorch's."""
    import jax
    import torch

    x = np.array([-800.0, -40.0, -1.5, 0.0, 0.3, 40.0, 800.0])
    mine, theirs = (torch.tensor(x, requires_grad=True) for _ in range(2))
    out = Activation(name).apply({}, mine)
    reference = (
        getattr(torch.nn.functional, name)(theirs, **TORCH[name]) if name in TORCH else getattr(torch, name)(theirs)
    )
    (out.sum() + reference.sum()).backward()
    np.testing.assert_allclose(out.detach(), reference.detach(), atol=1e-12)
    np.testing.assert_allclose(mine.grad, theirs.grad, atol=1e-12)
    with jax.enable_x64(True):
        grad = jax.grad(lambda v: Activation(name).apply({}, v).sum())(jax.numpy.asarray(x))
    np.testing.assert_allclose(grad, mine.grad, atol=1e-12)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_keep_nan_in_every_backend(name):
    """NaN in, NaN out; other entries are not touched by it; the derivative at NaN is alike, too."""
    import array_api_strict
    import jax
    import nfn_jax
    import nfn_torch
    import torch

    layer, x = Activation(name), np.array([[np.nan, -1.5, 0.0, 0.7, np.nan]])
    mine, theirs = (torch.tensor(x, requires_grad=True) for _ in range(2))
    plain, module = layer.apply({}, mine), nfn_torch.NFModule(layer)(theirs)
    (plain.sum() + module.sum()).backward()
    with jax.enable_x64(True):
        in_jax = nfn_jax.apply(layer, {}, jax.numpy.asarray(x))
        grad = jax.grad(lambda v: nfn_jax.apply(layer, {}, v).sum())(jax.numpy.asarray(x))
    with np.errstate(invalid="ignore"):  # NumPy's logaddexp warns of NaN
        numpy, strict = layer.apply({}, x), layer.apply({}, array_api_strict.asarray(x))
    outputs = {
        "numpy": numpy,
        "strict": np.asarray(strict),
        "torch": plain.detach().numpy(),
        "module": module.detach().numpy(),
        "jax": np.asarray(in_jax),
    }
    finite = layer.apply({}, x[:, 1:4])
    for library, y in outputs.items():
        assert np.array_equal(np.isnan(y), np.isnan(x)), library
        np.testing.assert_allclose(y[:, 1:4], finite, atol=1e-12, err_msg=library)
    for other in (theirs.grad, grad):
        np.testing.assert_allclose(mine.grad, other, atol=1e-12)
