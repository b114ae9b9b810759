"""Sines, variances and mean squares of half-precision features are computed in float32, and only their results are rounded.

Each is compared with float64 for the same rounded entries and parameters. A result of scale 1 is off by its own rounding:
2⁻⁹ in bfloat16, 2⁻¹² in float16. `ROUNDINGS` of them are allowed.
"""

from functools import partial

import jax
import jax.numpy as jnp
import ml_dtypes
import nfn_jax
import nfn_torch
import numpy as np
import pytest
import torch

import nfn_core
from nfn_core import Execution, Layer, WeightSpace, initialize
from nfn_core.layers import elementwise, encodings, phases
from nfn_core.signal import signal_report

SPACE = WeightSpace.mlp([2, 16, 16, 1])
HNP = SPACE.group("HNP")
ROUNDING = {"bfloat16": 2.0**-9, "float16": 2.0**-12}
ROUNDINGS = 4
LAYERS: dict[str, Layer] = {
    "positions": nfn_core.SinusoidalEncoding(WeightSpace.mlp([40, 4, 1]), max_frequency=64.0, layers=True),
    "fourier": nfn_core.GaussianFourierFeatures(2, 16, scale=3.0),
    "phases": nfn_core.NeuronPhases(HNP, 4, points=8),
    "layer norm": nfn_core.LayerNorm(SPACE, 2),
    "set norm": nfn_core.SetNorm(SPACE, 2),
    "instance norm": nfn_core.InstanceNorm(SPACE, 2),
    "batch norm": nfn_core.BatchNorm(SPACE, 2),
    "deviation": nfn_core.InvariantPool(SPACE.group("NP"), statistics=("std",)),
    "signed": nfn_core.SignedMessages(SPACE, (1.0,) * 6, 3, channels=8, points=8, head=()),
}


def draw(layer, channels=2):
    space = getattr(layer, "space", SPACE)
    rng = np.random.default_rng(0)
    shift = 0.0 if channels == 1 else 3.0  # where the variance is small beside the mean
    return {t.name: shift + rng.normal(size=(6, *t.shape, channels)) for t in space.tensors}


def mapped(function, x):
    return {name: function(y) for name, y in x.items()}


def outputs(x):
    return {name: np.asarray(y, dtype=np.float64) for name, y in (x.items() if isinstance(x, dict) else [("", x)])}


def case(name, dtype):
    """A layer with parameters and features that the dtype can hold, as arrays of float64."""
    layer = LAYERS[name]
    kind = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}[dtype]
    rounded = partial(mapped, lambda y: y.astype(kind).astype(np.float64))
    return layer, rounded(initialize(layer, 0)), rounded(draw(layer, 1 if name == "signed" else 2))


def in_library(library, layer, params, x, dtype):
    """Output of a layer in half precision."""
    if library == "numpy":
        return layer.apply(mapped(np.float16, params), mapped(np.float16, x))
    if library == "jax":
        convert = partial(mapped, partial(jnp.asarray, dtype=dtype))
        return jax.jit(partial(nfn_jax.apply, layer))(convert(params), convert(x))
    convert = partial(mapped, lambda y: torch.tensor(y).to(getattr(torch, dtype)))
    out = layer.apply(convert(params), convert(x))
    return mapped(torch.Tensor.float, out) if isinstance(out, dict) else out.float()


@pytest.mark.parametrize(
    ("library", "dtype"), [("numpy", "float16"), ("torch", "bfloat16"), ("jax", "bfloat16"), ("jax", "float16")]
)
@pytest.mark.parametrize("name", LAYERS)
def test_against_float64(name, library, dtype):
    layer, params, x = case(name, dtype)
    expected = outputs(layer.apply(params, x))
    found = outputs(in_library(library, layer, params, x, dtype))
    products = {"phases": 4, "signed": 16}.get(name, 1)  # layers that also multiply in half precision afterwards
    for tensor, y in expected.items():
        scale = max(1.0, np.abs(y).max())
        assert np.abs(found[tensor] - y).max() < products * ROUNDINGS * ROUNDING[dtype] * scale, tensor


@pytest.mark.parametrize("name", ["positions", "fourier", "phases", "layer norm"])
def test_without_float32_they_would_be_off(name, monkeypatch):
    for module in (elementwise, encodings, phases):
        monkeypatch.setattr(module, "widened", lambda x: x)
    with pytest.raises(AssertionError, match="assert"):
        test_against_float64(name, "torch", "bfloat16")


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_batch_norm_in_training(library):
    """Variances are those of float64, and new constants have the dtype of the old ones."""
    layer, params, x = case("batch norm", "bfloat16")
    collected: dict[str, dict[str, object]] = {"exact": {}, "half": {}}
    expected = outputs(layer.apply(params, x, Execution(statistics=collected["exact"].__setitem__)))
    kind = {"torch": lambda y: torch.tensor(y).bfloat16(), "jax": partial(jnp.asarray, dtype=jnp.bfloat16)}[library]
    execution = Execution(statistics=collected["half"].__setitem__)
    found = layer.apply(mapped(kind, params), mapped(kind, x), execution)
    for tensor, y in expected.items():
        out = found[tensor].float() if library == "torch" else found[tensor]
        assert np.abs(np.asarray(out, dtype=np.float64) - y).max() < ROUNDINGS * ROUNDING["bfloat16"] * np.abs(y).max()
    assert collected["half"].keys() == collected["exact"].keys()
    assert all("bfloat16" in str(value.dtype) for value in collected["half"].values())


@pytest.mark.parametrize("name", ["fourier", "phases", "signed"])
def test_arguments_of_sines_under_autocast(name):
    """Features of float32 go into sines as they are: autocast takes no product before them in bfloat16."""
    layer, _, x = case(name, "bfloat16")
    module, tensors = nfn_torch.NFModule(layer).eval(), mapped(lambda y: torch.tensor(y).float(), x)
    expected = outputs(mapped(torch.Tensor.detach, e) if isinstance(e := module(tensors), dict) else e.detach())
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        found = module(tensors)
    for tensor, y in expected.items():
        out = (found[tensor] if isinstance(found, dict) else found).float().numpy()
        products = {"phases": 4, "signed": 16}.get(name, 1)
        assert np.abs(out - y).max() < products * ROUNDINGS * ROUNDING["bfloat16"] * max(1.0, np.abs(y).max()), tensor


def test_scales_and_reports_of_half_precision_features():
    x = mapped(lambda y: y.astype(np.float16), {"W1": 200 + np.random.default_rng(0).normal(size=(50, 8, 2, 1))})
    exact = mapped(lambda y: y.astype(np.float64), x)
    layers = [nfn_core.GaussianFourierFeatures.from_features(u) for u in (x, exact)]
    assert layers[0].tensor_scales[0][1] == pytest.approx(layers[1].tensor_scales[0][1], rel=1e-3)
    network = nfn_core.Sequential((nfn_core.Activation("abs"),))
    half, full = (
        signal_report(network, {}, u)[0] for u in (mapped(lambda y: 2 * y, x), mapped(lambda y: 2 * y, exact))
    )
    assert half.scale == pytest.approx(full.scale, rel=1e-5)  # 400² is more than float16 can hold
    assert half.entries == pytest.approx(full.entries, rel=0.02)
