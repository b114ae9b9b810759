"""JAX arrays that lie on several devices, without `jit`: in a process of its own, which has two devices."""

import json
import os
import subprocess
import sys

import jax
import nfn_jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from nfn_core import FeatureError, ModelSpace, NFLayer, ParameterError, WeightSpace

SPACE = WeightSpace.from_axes({"R": [("h", 4), ("h", 4)], "V": [("out", 3), ("h", 4)], "b": [("h", 4)]}, [], ["out"])


def message(error, function):
    """Text of the error that a function raises."""
    with pytest.raises(error) as caught:
        function()
    return str(caught.value)


def on_a_mesh():
    """What a network and a group's action give for features on one device and on two, and what is refused."""
    group = SPACE.group("NP")
    layer = NFLayer(group, 1, 1)
    rng = np.random.default_rng(0)
    u = {t.name: jax.numpy.asarray(rng.normal(size=(4, *t.shape, 1)), "float32") for t in SPACE.tensors}
    params, sigma = nfn_jax.init(layer, 0), group.sample(0)
    found = {"alone": [nfn_jax.apply(layer, params, u)["R"].tolist(), group.act(sigma, u)["R"].tolist()]}
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = jax.make_mesh((2,), ("batch",), axis_types=(kind,))
        split, whole = NamedSharding(mesh, PartitionSpec("batch")), NamedSharding(mesh, PartitionSpec())
        over = jax.device_put(u, split)
        if kind == AxisType.Auto:
            over["b"] = jax.device_put(u["b"], whole)  # on the same devices, in another way
        out, moved = nfn_jax.apply(layer, params, over)["R"], group.act(sigma, over)["R"]
        found[kind.name] = [out.tolist(), moved.tolist(), len(out.devices()), len(moved.devices())]
    one = jax.devices()[0]
    found["refused"] = [
        message(ParameterError, lambda: nfn_jax.apply(layer, jax.device_put(params, one), over)),
        message(FeatureError, lambda: group.act(sigma, over | {"b": jax.device_put(u["b"], one)})),
    ]
    space = ModelSpace.from_patterns({"b": (4,)}, {"b": "h"})
    models = [{"b": jax.device_put(u["b"][k, :, 0], whole)} for k in range(2)]
    found["stacked"] = nfn_jax.stack(space, models)["b"][..., 0].tolist() == u["b"][:2, :, 0].tolist()
    return found


@pytest.mark.slow(seconds=12)
def test_arrays_on_a_mesh_without_jit():
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    found = json.loads(subprocess.run([sys.executable, __file__], env=env, check=True, capture_output=True).stdout)
    out, moved = found["alone"]
    for kind in ("Auto", "Explicit"):
        again, moved_again, *devices = found[kind]
        np.testing.assert_allclose(again, out, rtol=1e-5, atol=1e-6)
        assert moved_again == moved
        assert devices == [2, 2]
    parameter, tensor = found["refused"]
    assert "move one to the other" in parameter
    assert "but the features on NamedSharding" in parameter
    assert "tensor 'b' is on device" in tensor
    assert "but tensor 'R' on NamedSharding" in tensor
    assert found["stacked"]


if __name__ == "__main__":
    print(json.dumps(on_a_mesh()))
