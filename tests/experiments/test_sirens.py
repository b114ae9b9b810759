"""SIRENs: initial weights, fits, conventions, and the sine that JAX has."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from nfn_core import WeightSpace
from reference_experiments.datasets import image_inrs
from reference_experiments.engines.base import BACKENDS, engine
from reference_experiments.files import ExperimentError
from reference_experiments.networks import sirens

SPACE = WeightSpace.mlp([2, 3, 1])


def test_starts_of_sirens():
    drawn = {start: sirens.initial(SPACE, 0, np.arange(4), start) for start in sirens.STARTS}
    for name, x in drawn["sitzmann"].items():
        np.testing.assert_array_equal(drawn["shared"][name], np.broadcast_to(x[:1], x.shape))
        assert not np.array_equal(x[0], x[1])
    assert not any(drawn["dwsnets"][name].any() for name in ("v1", "v2"))
    assert 0.04 < abs(drawn["dwsnets"]["W1"]).max() <= 3**0.5 / 30  # the others' bound, with two inputs
    assert 0.3 < abs(drawn["sitzmann"]["W1"]).max() <= 0.5


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_fit_ends_at_its_quality(backend):
    usual = image_inrs.SirenMaker.at_scale("digits", "smoke", 0, backend)
    assert {"start", "until"}.isdisjoint({*usual.settings, *usual.settings["scale"]})
    until = replace(usual, scale=replace(usual.scale, until=30.0), shard=4)
    assert until.settings["scale"]["until"] == 30.0
    early, late = until.run(0), replace(usual, shard=4).run(0)
    assert (early.columns["psnr"] >= 30).all()
    assert (early.columns["psnr"] < late.columns["psnr"] - 5).all()


def test_dwsnets_datasets_have_a_fit_of_their_own():
    maker = image_inrs.SirenMaker.at_scale("mnist", "small", 0, "jax", "dwsnets", copies=3)
    scale = maker.settings["scale"]
    assert (maker.settings["start"], scale["learning_rate"], scale["steps"], scale["until"]) == (
        "dwsnets",
        5e-4,
        1000,
        40,
    )
    assert (scale["copies"], scale["cosine"]) == (3, False)


def test_a_dataset_can_have_the_fit_of_another_scale():
    maker = image_inrs.SirenMaker.at_scale("mnist", "paper", 0, "jax", copies=3, fit="small")
    small = image_inrs.PRESETS["small"]
    fit = {name: getattr(small, name) for name in image_inrs.FIT}
    assert maker.scale == replace(image_inrs.PRESETS["paper"], copies=3, **fit)


def test_more_images_than_there_are():
    def maker(training):
        return image_inrs.SirenMaker(
            "digits", image_inrs.SirenPreset(training, 0, 0, 1, 1e-2, 1, True), 0, "torch", shard=1
        )

    assert len(maker(1797).run(1796)) == 1
    with pytest.raises(ExperimentError, match="digits: 1798 different images are asked for, but there are 1797"):
        maker(1798).run(0)


def test_folded_omega_is_the_other_convention():
    weights = sirens.initial(SPACE, 0, np.arange(2))
    folded, points = sirens.fold_omega(weights), sirens.coordinates(3, 3)
    hidden = np.sin(folded["W1"] @ points + folded["v1"][..., None])
    np.testing.assert_allclose(
        folded["W2"] @ hidden + folded["v2"][..., None], sirens.render(weights, points, np.sin), atol=1e-5
    )
    for name, x in sirens.fold_omega(folded, undo=True).items():
        np.testing.assert_allclose(x, weights[name], rtol=1e-6)


def test_sine_of_jax_is_a_sine():
    x = np.linspace(-200, 200, 100001, dtype=np.float32)
    assert abs(np.asarray(engine("jax").sin(jax.numpy.asarray(x))) - np.sin(x.astype(np.float64))).max() < 1e-5
    slope = jax.vmap(jax.grad(engine("jax").sin))(jax.numpy.asarray(x))
    assert abs(np.asarray(slope) - np.cos(x.astype(np.float64))).max() < 1e-4
