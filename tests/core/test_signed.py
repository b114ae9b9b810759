"""Signed messages: invariant to permutations, sign flips and whole turns, and alike in every backend."""

import jax.numpy as jnp
import nfn_jax
import nfn_torch
import numpy as np
import pytest
import torch

from nfn_core import SignedMessages, SpecError, WeightSpace, initialize
from nfn_core.augmentations import flip_signs

OMEGA = 30.0


def sirens(sizes, batch=6, seed=0):
    space, rng = WeightSpace.mlp(sizes), np.random.default_rng(seed)
    bound = {t.name: 0.5 if t.name == "W1" else 0.1 if t.name[0] == "W" else 0.5 for t in space.tensors}
    return space, {t.name: rng.uniform(-bound[t.name], bound[t.name], (batch, *t.shape, 1)) for t in space.tensors}


@pytest.mark.parametrize("activations", [True, False])
@pytest.mark.parametrize("sizes", [[2, 8, 6, 1], [3, 8, 2], [2, 6, 5, 4, 3]], ids=str)
def test_symmetries(sizes, activations):
    space, u = sirens(sizes)
    network = SignedMessages.from_features(space, u, 3, points=5, channels=4, head=(8,), activations=activations)
    params = initialize(network, 0)
    assert (network.parameter_count, "points" in params) == (
        sum(s.size for n, s in params.items() if network.parameter_specs()[n].trainable),
        True,
    )
    out = network.apply(params, u)
    assert out.shape == (6, 3)
    assert out.std(axis=0).min() > 1e-4  # it does see the weights
    group = space.group("HNP")
    rng = np.random.default_rng(1)
    signs = {s: np.sign(rng.normal(size=(6, space.sizes[s]))) for s in group.permuted}
    flipped = flip_signs(space, u, signs)
    turned = {**u, "v1": u["v1"] + 2 * np.pi / OMEGA}
    for same in (group.act(group.sample(2), u), flipped, turned):
        np.testing.assert_allclose(network.apply(params, same), out, atol=1e-12)
    for other in ({**flipped, "W1": u["W1"]}, {**u, "v1": u["v1"] + np.pi / OMEGA}, {**u, "W2": -u["W2"]}):
        assert np.abs(network.apply(params, other) - out).max() > 1e-4


def test_activations_are_those_of_the_sine_network():
    """With no messages and no constants, layer 2 sees sin(ω (W2 sin(ω (W1 ξ + v1)) + v2)) alone."""
    space, u = sirens([2, 8, 6, 1])
    network = SignedMessages.from_features(space, u, 3, points=4, channels=4, head=())
    params = initialize(network, 0)
    odd = np.concatenate([np.zeros((10, 4)), np.eye(4)])
    params |= {"odd.2": odd, "even.2": 0 * params["even.2"], "bias.2": np.ones(4)}
    y = params["points"]
    for i in (1, 2):
        y = np.sin(OMEGA * (u[f"W{i}"][..., 0] @ y + u[f"v{i}"]))
    norms = 1 / (1 + 1e-5)  # two of them, with statistics of one
    gate = 1 / (1 + np.exp(-1.0))  # SiLU of one
    sums = (u["W3"][..., 0] @ y)[:, 0] / network.scales[4] / np.sqrt(6) * gate * norms
    expected = sums @ params["head.0.weight"] + params["head.0.bias"]
    np.testing.assert_allclose(network.apply(params, u), expected, atol=1e-10)


def test_backends_agree_and_keep_statistics():
    space, u = sirens([2, 8, 6, 1])
    u = {name: x.astype(np.float32) for name, x in u.items()}
    network = SignedMessages.from_features(space, u, 3, points=5, channels=4, head=(8,), dropout=0.0)
    module, params = nfn_torch.NFModule(network, 1), nfn_jax.init(network, 1)
    features = nfn_torch.WeightSpaceFeatures({name: torch.tensor(x) for name, x in u.items()})
    arrays = {name: jnp.asarray(x) for name, x in u.items()}
    before = module.state_dict()["norm.mean"].clone()
    out, constants = nfn_jax.apply_in_training(network, params, arrays)
    np.testing.assert_allclose(module(features).detach(), out, atol=2e-4)
    assert not torch.equal(before, module.state_dict()["norm.mean"])
    for name, x in constants.items():
        np.testing.assert_allclose(module.state_dict()[name], x, rtol=1e-3, atol=1e-5)
    module.eval()
    np.testing.assert_allclose(module(features).detach(), nfn_jax.apply(network, params | constants, arrays), atol=2e-4)


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        (WeightSpace.mlp([2, 1]), {}, "an MLP with hidden layers"),
        (WeightSpace.mlp([2, 4, 1], bias=False), {}, "an MLP with hidden layers"),
        (WeightSpace.cnn([1, 4, 2], [(3, 3), ()]), {}, "an MLP with hidden layers"),
        (WeightSpace.mlp([2, 4, 1]), {"scales": (1.0,)}, "scales must be 4 numbers"),
        (WeightSpace.mlp([2, 4, 1]), {"scales": (1.0, 1.0, 0.0, 1.0)}, r"scales\[2\] must be a positive finite number"),
        (WeightSpace.mlp([2, 4, 1]), {"omega": float("nan")}, "omega must be a positive finite number"),
        (WeightSpace.mlp([2, 4, 1]), {"channels": 0}, "channels must be a positive integer"),
    ],
)
def test_what_it_does_not_take(space, options, message):
    with pytest.raises(SpecError, match=message):
        SignedMessages(**{"space": space, "scales": (1.0,) * len(space.tensors), "outputs": 2} | options)
