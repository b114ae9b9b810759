"""NaN in, NaN out: in every layer, alike in NumPy, PyTorch and JAX, and nowhere but where the entry is heard."""

from functools import partial

import jax
import jax.numpy as jnp
import nfn_jax
import nfn_torch
import numpy as np
import pytest
import torch

import nfn_core
from nfn_core import MessageState, WeightSpace, initialize, invariant_network, message_network
from nfn_core.layers import Layer

SPACE = WeightSpace.mlp([2, 4, 4, 1])
RNN = WeightSpace.from_axes({"R": [("h", 4), ("h", 4)], "b": [("h", 4), (None, 3)]})
HNP, NP = SPACE.group("HNP"), SPACE.group("NP")
STATISTICS = ("mean", "max", "std")
TENSORS: list[Layer] = [
    *(nfn_core.Activation(name) for name in nfn_core.ACTIVATIONS),
    *(nfn_core.Gate(name) for name in ("relu", "leaky_relu", "silu")),
    *(nfn_core.NFLayer(HNP, 2, 2, pooling) for pooling in ("mean", "scaled_sum")),
    nfn_core.LowRankNFLayer(HNP, 2, 2, rank=1),
    *(nfn_core.PointwiseLayer(NP, 2, 2), nfn_core.NeuronPool(HNP, 2, 2), nfn_core.NeuronPhases(HNP, 2, points=2)),
    *(nfn_core.InvariantPool(HNP, statistics=(name,)) for name in ("mean", "sum", "scaled_sum", "max", "std")),
    *(nfn_core.BatchNorm(SPACE, 2, center=center) for center in (True, False)),
    *(nfn_core.SetNorm(SPACE, 2), nfn_core.InstanceNorm(SPACE, 2), nfn_core.LayerNorm(SPACE, 2)),
    *(nfn_core.SinusoidalEncoding(SPACE, layers=True), nfn_core.LearnedEncoding(SPACE, 2)),
    *(nfn_core.GaussianFourierFeatures(2, 3), nfn_core.Scale(SPACE), nfn_core.Dropout(0.5)),
    nfn_core.Normalize(SPACE, ((0.5, 0.5),) * 6, ((2.0, 2.0),) * 6),
    nfn_core.Residual(nfn_core.NFLayer(HNP, 2, 2)),
]
NETWORKS = {
    "pools": invariant_network(HNP, [1, 4], [3], statistics=STATISTICS, pool_norm=True),
    "std": invariant_network(NP, [1, 4], [3], statistics=("std",), norm="instance", gate=True),
    "encodings": invariant_network(
        HNP,
        [1, 4],
        [3],
        before=[nfn_core.GaussianFourierFeatures(1, 2), nfn_core.SinusoidalEncoding(SPACE)],
        norm="set",
    ),
    "pointwise": invariant_network(NP, [1, 4], [3], pointwise=True, activation="leaky_relu", norm="batch"),
    "messages": message_network(HNP, 1, 4, 1, head=[3], omega=30.0, points=2, activation="relu"),
    "signed": nfn_core.SignedMessages(SPACE, (1.0,) * 6, 3, channels=4, points=4, head=()),
}


def draw(space, channels, seed=0):
    rng = np.random.default_rng(seed)
    return {t.name: rng.normal(size=(3, *t.shape, channels)).astype("float32") for t in space.tensors}


def applied(layer, x):
    """Outputs in NumPy, PyTorch (both ways) and JAX, each as a list of arrays."""
    params = {name: p.astype("float32") for name, p in initialize(layer, 0).items()}
    tensors = mapped(torch.tensor, x)
    module = nfn_torch.NFModule(layer).eval()
    in_torch = {name: torch.tensor(p) for name, p in params.items()}
    outputs = {
        "numpy": layer.apply(params, x),
        "torch": layer.apply(in_torch, tensors),
        "module": module(tensors),
        "jax": jax.jit(partial(nfn_jax.apply, layer))(mapped(jnp.asarray, params), mapped(jnp.asarray, x)),
    }
    return {library: [np.asarray(to_numpy(y)) for y in leaves(out)] for library, out in outputs.items()}


def mapped(function, x):
    """Arrays of features or of a state, each through a function."""
    if isinstance(x, MessageState):
        return MessageState(mapped(function, x.tensors), mapped(function, x.neurons))
    return {name: function(y) for name, y in x.items()} if isinstance(x, dict) else function(x)


def leaves(x):
    if isinstance(x, MessageState):
        return [*leaves(x.tensors), *leaves(x.neurons)]
    return [x[name] for name in sorted(x)] if isinstance(x, dict) else [x]


def to_numpy(y):
    return y.detach().numpy() if isinstance(y, torch.Tensor) else y


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("layer", TENSORS, ids=repr)
def test_nan_reaches_what_hears_the_entry(layer):
    """One batch: a network, and for each tensor four with another first entry. What changes with it is NaN where it is."""
    names, values = ("W1", "v2", "v3"), (np.nan, -2.0, 0.7, 3.0)
    x = {name: np.repeat(y[:1], 1 + 4 * len(names), axis=0) for name, y in draw(SPACE, 2).items()}
    for k, name in enumerate(names):
        for i, value in enumerate(values, start=1 + 4 * k):
            x[name][(i, *(0,) * (x[name].ndim - 2), 0)] = value
    outputs = applied(layer, x)
    for k in range(len(names)):
        poisoned, finite = 1 + 4 * k, slice(2 + 4 * k, 5 + 4 * k)
        if not isinstance(layer, nfn_core.NeuronPhases):  # which reads no tensor after the first hidden neurons' own
            assert any(np.isnan(y[poisoned]).any() for y in outputs["numpy"]), names[k]
        for library, arrays in outputs.items():
            for y, expected in zip(arrays, outputs["numpy"], strict=True):
                assert np.isfinite(y[[0, *range(finite.start, finite.stop)]]).all(), library
                heard = np.ptp(expected[finite], axis=0) > 1e-5
                assert np.isnan(y[poisoned][heard]).all(), (names[k], library)
                assert np.array_equal(np.isnan(y), np.isnan(expected)), library


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize("case", NETWORKS)
def test_nan_reaches_the_output_of_an_invariant_network(case):
    """From the first entry of each tensor, and from where a permutation takes it: to all outputs of that network alone."""
    unread = {"v3"} if case == "signed" else set()  # as its description says
    layer, read = NETWORKS[case], [name for name in SPACE.by_name if name not in unread]
    x = {name: np.repeat(y[:1], 1 + len(read), axis=0) for name, y in draw(SPACE, 1).items()}
    for i, name in enumerate(read, start=1):
        x[name][(i, *(0,) * (x[name].ndim - 1))] = np.nan
    moved = HNP.act(HNP.sample(1), x)
    batch = {name: np.concatenate([y, moved[name]]) for name, y in x.items()}
    for library, (out,) in applied(layer, batch).items():
        clean = np.isin(np.arange(len(out)), (0, len(out) // 2))
        assert np.isnan(out[~clean]).all(), library
        assert np.isfinite(out[clean]).all(), library


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_nan_on_and_off_the_diagonal_of_a_recurrent_matrix():
    group = RNN.group({"h"})
    for layer in (nfn_core.InvariantPool(group, statistics=(name,)) for name in (*STATISTICS, "sum")):
        for place in ((1, 2, 2, 0), (1, 0, 3, 0)):
            u = draw(RNN, 1)
            u["R"][place] = np.nan
            outputs = applied(layer, u)
            assert np.isnan(outputs["numpy"][0][1, :2]).any()
            diagonal = np.isnan(outputs["numpy"][0][1]).sum()
            assert diagonal == (2 if place[1] == place[2] else 1)
            for library, (out,) in outputs.items():
                assert np.array_equal(np.isnan(out), np.isnan(outputs["numpy"][0])), library


@pytest.mark.filterwarnings("ignore:invalid value encountered")
@pytest.mark.parametrize(
    "layer", [nfn_core.Messages(HNP, 1, 2, 2), nfn_core.MessageReadout(HNP, 1, 2), nfn_core.TensorUpdate(HNP, 1, 2, 2)]
)
def test_nan_in_a_neuron_or_in_a_weight_beside_neurons(layer):
    rng = np.random.default_rng(1)
    neurons = {s: rng.normal(size=(3, 4, 2)).astype("float32") for s in ("h1", "h2")}
    for place in ("neuron", "weight"):
        state = MessageState(draw(SPACE, 1), {s: h.copy() for s, h in neurons.items()})
        if place == "neuron":
            state.neurons["h1"][1, 0, 0] = np.nan
        else:
            state.tensors["W2"][1, 0, 0, 0] = np.nan
        outputs = applied(layer, state)
        assert sum(np.isnan(y[1]).sum() for y in outputs["numpy"]) > 0
        for library, arrays in outputs.items():
            for y, expected in zip(arrays, outputs["numpy"], strict=True):
                assert np.array_equal(np.isnan(y), np.isnan(expected)), library
                assert np.isfinite(y[[0, 2]]).all(), library


@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_nan_reaches_running_statistics_in_training():
    layer, x = nfn_core.BatchNorm(SPACE, 2), draw(SPACE, 2)
    x["W1"][1, 0, 0, 0] = np.nan
    module = nfn_torch.NFModule(layer)
    module(mapped(torch.tensor, x))
    _, constants = nfn_jax.apply_in_training(layer, nfn_jax.init(layer, 0), mapped(jnp.asarray, x))
    for found in (module.state_dict(), constants):
        assert np.isnan(np.asarray(found["W1.variance"])).tolist() == [True, False]
        assert np.isfinite(np.asarray(found["v1.variance"])).all()
