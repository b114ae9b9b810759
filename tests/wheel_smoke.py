"""Run by `nox -s wheel` with nothing but the wheel, NumPy and array-api-compat installed."""

import importlib.metadata
import sys

import numpy as np

import nfn_core

installed = {d.metadata["Name"].lower().replace("_", "-") for d in importlib.metadata.distributions()}
if not installed <= {"nfn-core", "numpy", "array-api-compat", "pip", "setuptools"}:
    sys.exit(f"more is installed than the wheel should need: {sorted(installed)}")

space = nfn_core.WeightSpace.mlp([2, 3, 4, 1])
group = space.group("HNP")
network = nfn_core.invariant_network(group, [1, 4, 4], [8, 3])
params = nfn_core.initialize(network, seed=0)
rng = np.random.default_rng(0)
features = {t.name: rng.normal(size=(5, *t.shape, 1)) for t in space.tensors}
before = network.apply(params, features)
after = network.apply(params, group.act(group.sample(1), features))
if before.shape != (5, 3) or not np.allclose(before, after, rtol=1e-12, atol=1e-12):
    sys.exit("the installed wheel is not invariant")
print("wheel: 1 passed, 0 failed")
