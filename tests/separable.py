"""Networks that are easy to classify, and experiments on them."""

import numpy as np

from nfn_core import WeightSpace
from reference_experiments import runner
from reference_experiments.datasets.format import Networks

__all__ = ["SPACE", "run", "separable_networks"]

SPACE = WeightSpace.mlp([2, 4, 4, 1])


def separable_networks(count=30, seed=0):
    """Networks whose class is how large their weights are."""
    rng = np.random.default_rng(seed)
    label = rng.integers(3, size=count).astype(np.int32)
    weights = {
        t.name: ((1 + label.reshape(-1, *(1,) * len(t.shape))) * rng.standard_normal((count, *t.shape))).astype(
            np.float32
        )
        for t in SPACE.tensors
    }
    accuracy = (rng.random(count) * 0.2 + label / 3).astype(np.float32)
    return Networks(
        SPACE, weights, {"split": (np.arange(count) % 3).astype(np.uint8), "label": label, "accuracy": accuracy}
    )


def run(dataset, output, **changed):
    options = {"methods": ("NFN_NP", "MLP"), "seeds": range(2), "scale": "smoke", "backend": "torch"} | changed
    runner.run("table3", output=output, data={"MNIST": dataset}, **options)
