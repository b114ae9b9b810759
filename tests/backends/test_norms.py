"""Batch statistics in PyTorch and JAX: where they are kept, and that nothing counts them twice."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import nfn_jax
import nfn_torch
import numpy as np
import pytest
import torch
from jax.sharding import PartitionSpec

from nfn_core import BatchNorm, Gate, InstanceNorm, SetNorm, WeightSpace, initialize, message_network

SPACE = WeightSpace.mlp([2, 4, 3])


def draw(batch=6, channels=1, kind="float32"):
    rng = np.random.default_rng(0)
    return {t.name: rng.normal(1, 2, size=(batch, *t.shape, channels)).astype(kind) for t in SPACE.tensors}


def tensors(u):
    return {k: torch.tensor(x) for k, x in u.items()}


def network():
    return message_network(SPACE.group("HNP"), 1, 4, head=[4, 2], omega=2.0, points=3)


def constants(module):
    return {name: x.clone() for name, x in module.named_buffers()}


def test_batch_norm_is_torchs_own():
    u = draw(channels=5)
    module, own = nfn_torch.NFModule(BatchNorm(SPACE, 5)), torch.nn.BatchNorm1d(5)
    for training in (True, True, False):
        module.train(training), own.train(training)
        flat = torch.tensor(u["W1"]).reshape(-1, 5)
        torch.testing.assert_close(module(tensors(u))["W1"].reshape(-1, 5), own(flat))
    torch.testing.assert_close(module.state_dict()["W1.mean"], own.running_mean)
    torch.testing.assert_close(module.state_dict()["W1.variance"], own.running_var)


@pytest.mark.parametrize("checkpoint", [1, 2])
def test_recomputing_does_not_count_twice(checkpoint):
    results = []
    for option in (None, checkpoint):
        module = nfn_torch.NFModule(network(), checkpoint=option)
        module(tensors(draw())).square().sum().backward()
        results.append((constants(module), [p.grad for p in module.parameters()]))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
    start = constants(nfn_torch.NFModule(network()))
    assert any(not torch.equal(results[0][0][name], start[name]) for name in start)


def test_jax_returns_what_torch_keeps():
    layer = network()
    module, params = nfn_torch.NFModule(layer), nfn_jax.init(layer, 0)
    u = {k: jnp.asarray(x) for k, x in draw().items()}
    expected = module(tensors(draw()))

    def loss(p, checkpoint=None):
        out, new = nfn_jax.apply_in_training(layer, p, u, checkpoint=checkpoint)
        return out.sum(), (out, new)

    for checkpoint in (None, 1):
        _, (out, new) = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)(params, checkpoint)
        np.testing.assert_allclose(out, expected.detach(), rtol=1e-3, atol=1e-4)
        assert new
        for name, x in new.items():
            np.testing.assert_allclose(x, module.state_dict()[name], rtol=1e-4, atol=1e-5)


def test_jax_statistics_over_a_mapped_axis():
    layer = BatchNorm(SPACE, 1)
    params, u = nfn_jax.init(layer, 0), {k: jnp.asarray(x) for k, x in draw().items()}
    whole, new = jax.jit(lambda x: nfn_jax.apply_in_training(layer, params, x))(u)
    parts = {k: x.reshape(3, 2, *x.shape[1:]) for k, x in u.items()}

    def step(x, axis_name=None):
        return nfn_jax.apply_in_training(layer, params, x, axis_name=axis_name)

    out, mapped = jax.jit(jax.vmap(lambda x: step(x, "parts"), axis_name="parts"))(parts)
    np.testing.assert_allclose(out["W1"].reshape(whole["W1"].shape), whole["W1"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mapped["W1.variance"][0], new["W1.variance"], rtol=1e-5)
    _, alone = jax.jit(jax.vmap(step))(parts)
    assert abs(alone["W1.mean"][0] - new["W1.mean"]).max() > 1e-3


def sharded(axis_name):
    """Output and new variance of a batch over two devices by `shard_map`, and the same of the whole batch."""
    layer = BatchNorm(SPACE, 1)
    params, u = nfn_jax.init(layer, 0), {k: jnp.asarray(x) for k, x in draw().items()}
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    batch, every = PartitionSpec("batch"), PartitionSpec()

    def step(x):
        out, new = nfn_jax.apply_in_training(layer, params, x, axis_name=axis_name)
        return out["W1"], jax.lax.pmean(new["W1.variance"], "batch")

    over_devices = jax.shard_map(step, mesh=mesh, in_specs=(batch,), out_specs=(batch, every))
    whole, new = nfn_jax.apply_in_training(layer, params, u)
    out, variance = jax.jit(over_devices)(u)
    return [x.tolist() for x in (out, whole["W1"], variance, new["W1.variance"])]


@pytest.mark.slow(seconds=10)
def test_jax_statistics_over_the_devices_of_a_shard_map():
    """In a process of its own: the number of devices is fixed once JAX has started."""
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    found = json.loads(subprocess.run([sys.executable, __file__], env=env, check=True, capture_output=True).stdout)
    out, whole, variance, expected = found["together"]
    np.testing.assert_allclose(out, whole, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(variance, expected, rtol=1e-5)
    assert np.abs(np.subtract(found["apart"][0], whole)).max() > 1e-3


def test_compile_autocast_and_torch_func():
    u = tensors(draw())
    plain, compiled = nfn_torch.NFModule(network()), nfn_torch.NFModule(network())
    plain(u), torch.compile(compiled, fullgraph=True, backend="aot_eager")(u)
    torch.testing.assert_close(constants(compiled), constants(plain))
    module = nfn_torch.NFModule(network())
    before = constants(module)
    torch.func.vmap(lambda x: module({k: y[None] for k, y in x.items()}))(u)
    torch.testing.assert_close(constants(module), before, rtol=0, atol=0)
    with torch.autocast("cpu", torch.bfloat16):
        out = module(u)
    assert out.dtype == torch.bfloat16
    assert all(x.dtype == torch.float32 for x in constants(module).values())


@pytest.mark.parametrize("batch", [0, 1])
def test_single_values_use_running_statistics(batch):
    module = nfn_torch.NFModule(BatchNorm(None, 3))
    x = torch.full((batch, 3), 2.0)
    torch.testing.assert_close(module(x), module.eval()(x))
    assert torch.equal(module.state_dict()["mean"], torch.zeros(3))


def test_set_norm_instance_norm_and_gate():
    u = draw(channels=4, kind="float64")
    layer = SetNorm(SPACE, 4)
    out = layer.apply(initialize(layer, 0), u)
    np.testing.assert_allclose(out["W1"].mean(axis=(1, 2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(out["W1"].std(axis=(1, 2, 3)), 1, rtol=1e-4)
    each = InstanceNorm(SPACE, 4).apply(initialize(layer, 0), u)
    np.testing.assert_allclose(each["W1"].mean(axis=(1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(each["W1"].std(axis=(1, 2)), 1, rtol=1e-4)
    assert np.abs(out["W1"].mean(axis=(1, 2))).max() > 0.01
    x = u["W1"]
    gated = Gate("tanh").apply({}, u)["W1"]
    np.testing.assert_allclose(gated, np.tanh(x[..., :2]) * x[..., 2:])


if __name__ == "__main__":
    print(json.dumps({"together": sharded("batch"), "apart": sharded(None)}))
