"""Layers, and what the author of a new layer needs.

A layer is a frozen dataclass that lists its parameters and applies itself to arrays of any library:

>>> from dataclasses import dataclass
>>> from nfn_core import WeightSpace, initialize
>>> from nfn_core.layers import Layer, ParameterSpec, check_counts, check_features
>>> import numpy as np
>>> @dataclass(frozen=True)
... class TensorShift(Layer):
...     space: WeightSpace
...     channels: int
...
...     def __post_init__(self):
...         check_counts(self, "channels")
...
...     def parameter_specs(self):
...         return {f"{t.name}.shift": ParameterSpec((self.channels,), "normal", value=1.0) for t in self.space.tensors}
...
...     def forward(self, params, x, execution):
...         check_features(self.space, x, self.channels)
...         return {name: y + params[f"{name}.shift"] for name, y in x.items()}
>>> layer = TensorShift(WeightSpace.mlp([2, 3, 1]), channels=4)
>>> layer.parameter_count
16
>>> zeros = {t.name: np.zeros((5, *t.shape, 4)) for t in layer.space.tensors}
>>> layer.apply(initialize(layer, seed=0), zeros)["W1"].shape
(5, 3, 2, 4)

`nfn_torch.NFModule` and `nfn_jax.apply` take it as they take any other layer, `Composite` makes layers of layers, `product`
multiplies the last axis by a matrix in any array library, and `namespace_of` gives an array's own functions.
"""

from nfn_core.arrays import Array, Features, namespace_of
from nfn_core.checks import (
    check_choice,
    check_counts,
    check_flags,
    check_kind,
    check_numbers,
    check_sizes,
    positive_int,
)
from nfn_core.features import check_features
from nfn_core.layers.base import Execution, Layer, check_input_channels
from nfn_core.layers.composite import Composite
from nfn_core.layers.hub_map import product
from nfn_core.layers.parameters import ParameterSpec

__all__ = [
    "Array",
    "Composite",
    "Execution",
    "Features",
    "Layer",
    "ParameterSpec",
    "check_choice",
    "check_counts",
    "check_features",
    "check_flags",
    "check_input_channels",
    "check_kind",
    "check_numbers",
    "check_sizes",
    "namespace_of",
    "positive_int",
    "product",
]
