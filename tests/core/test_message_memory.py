"""Messages are matrix products: no array of a tensor's size times the neurons' channels is made."""

import tracemalloc

import numpy as np

from nfn_core import Messages, MessageState, WeightSpace, initialize

CHANNELS = 32
SPACE = WeightSpace.mlp([2, 128, 128, 1])
RNG = np.random.default_rng(0)
WEIGHTS = {t.name: RNG.normal(size=(4, *t.shape, 1)) for t in SPACE.tensors}
NEURONS = {"h1": RNG.normal(size=(4, 128, CHANNELS)), "h2": RNG.normal(size=(4, 128, CHANNELS))}


def peak_bytes(function):
    """Largest number of bytes that a function of NumPy arrays holds at a time."""
    function()  # what is cached once is not counted
    tracemalloc.start()
    function()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_peak_memory():
    layer = Messages(SPACE.group("HNP"), 1, CHANNELS, CHANNELS)
    params = initialize(layer, 0)
    tensor, neurons = WEIGHTS["W2"].nbytes, NEURONS["h1"].nbytes
    limit = 2 * tensor + 4 * neurons
    product = peak_bytes(lambda: WEIGHTS["W2"] * NEURONS["h1"][:, None])
    assert product > CHANNELS * tensor  # what a naive layer would hold
    assert peak_bytes(lambda: layer.apply(params, MessageState(WEIGHTS, NEURONS))) < limit
    assert limit < product / 8
