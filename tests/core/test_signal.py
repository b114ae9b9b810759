"""The signal report against numbers that are known."""

import nfn_jax
import numpy as np

from nfn_core import Activation, Sequential, WeightSpace, initialize, message_network
from nfn_core.signal import signal_report

SPACE = WeightSpace.mlp([2, 4, 1])


def test_shares_of_what_is_known():
    def report(value):
        u = {t.name: value + np.zeros((2, *t.shape, 1)) for t in SPACE.tensors}
        return signal_report(Sequential((Activation("abs"),)), {}, u)[0]

    assert (report(2.0).scale, report(2.0).constant, report(2.0).networks) == (2.0, 1.0, 0.0)
    by_network = {
        t.name: np.reshape([0.0, 2.0], (2, *[1] * (len(t.shape) + 1))) + np.zeros((2, *t.shape, 1))
        for t in SPACE.tensors
    }
    found = signal_report(Sequential((Activation("abs"),)), {}, by_network)[0]
    assert (found.networks, found.entries, found.constant) == (0.5, 0.0, 0.5)


def test_message_network_with_gradients():
    import jax

    layer = message_network(SPACE.group("HNP"), 1, 4, head=[3])
    u = {t.name: np.random.default_rng(0).normal(size=(5, *t.shape, 1)) for t in SPACE.tensors}
    plain = signal_report(layer, initialize(layer, 0), u)
    assert all(abs(s.networks + s.entries + s.constant - 1) < 1e-9 and s.gradient is None for s in plain)
    arrays = {k: jax.numpy.asarray(x, dtype="float32") for k, x in u.items()}
    with_gradient = signal_report(layer, nfn_jax.init(layer, 0), arrays, lambda f, x: jax.jit(jax.grad(f))(x))
    assert all(s.gradient is not None for s in with_gradient)
    assert with_gradient[0].gradient > 0
