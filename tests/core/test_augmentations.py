"""Augmentations keep the function, or change it as they say."""

import numpy as np
import pytest

from nfn_core import FeatureError, SpecError, WeightSpace
from nfn_core.augmentations import flip_signs, transform_inputs

SPACE = WeightSpace.mlp([2, 5, 4, 1])


def draw():
    rng = np.random.default_rng(0)
    return {t.name: rng.normal(size=(3, *t.shape, 1)) for t in SPACE.tensors}, rng


def siren(u, x):
    for i in (1, 2, 3):
        x = x @ u[f"W{i}"][..., 0].transpose(0, 2, 1) + u[f"v{i}"][:, None, :, 0]
        x = np.sin(3 * x) if i < 3 else x
    return x


def test_transform_of_inputs_is_exact():
    u, rng = draw()
    matrix, shift, x = rng.normal(size=(3, 2, 2)), rng.normal(size=(3, 2)), rng.normal(size=(3, 7, 2))
    expected = siren(u, x @ matrix.transpose(0, 2, 1) + shift[:, None])
    np.testing.assert_allclose(siren(transform_inputs(u, matrix, shift), x), expected, rtol=1e-9, atol=1e-9)
    assert abs(siren(u, x) - expected).max() > 1e-2
    with pytest.raises(FeatureError, match="must have shapes"):
        transform_inputs(u, matrix[:, :1], shift)


def test_sign_flips_keep_the_function():
    u, rng = draw()
    signs = {"h1": rng.choice([-1.0, 1.0], size=(3, 5)), "h2": rng.choice([-1.0, 1.0], size=(3, 4))}
    x = rng.normal(size=(3, 7, 2))
    flipped = flip_signs(SPACE, u, signs)
    np.testing.assert_allclose(siren(flipped, x), siren(u, x), rtol=1e-9, atol=1e-9)
    assert abs(siren({**flipped, "W2": u["W2"]}, x) - siren(u, x)).max() > 1e-2
    with pytest.raises(SpecError, match="no hidden neuron set"):
        flip_signs(SPACE, u, {"in": np.ones((3, 2))})
