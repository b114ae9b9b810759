"""Arrays and namespaces of every library have what the protocols list."""

import array_api_strict
import jax
import numpy as np
import pytest
import torch

from nfn_core.arrays import Array, Namespace, is_dense, namespace_of

MEMBERS = [name for name in vars(Array) if name in ("shape", "ndim", "dtype", "T") or name in dir(np.ndarray)]
OPERATORS = {"__add__", "__radd__", "__matmul__", "__getitem__", "__neg__", "__float__", "__ge__"}


def lacks(value, names):
    return [name for name in names if not hasattr(value, name)]


@pytest.mark.parametrize(
    "x",
    [np.ones((2, 3)), array_api_strict.ones((2, 3)), torch.ones(2, 3), jax.numpy.ones((2, 3))],
    ids=["numpy", "strict", "torch", "jax"],
)
def test_protocols_hold_in_every_library(x):
    assert set(MEMBERS) > OPERATORS
    assert lacks(x, MEMBERS) == []
    assert lacks(namespace_of(x), Namespace.__annotations__) == []


class WithLayout(np.ndarray):
    """Has an attribute of the name that PyTorch's layouts have, as arrays of JAX 0.11 do."""

    layout = "row-major"


def test_only_layouts_of_pytorch_say_whether_an_array_is_dense():
    assert is_dense(np.zeros(2).view(WithLayout))
    assert is_dense(torch.zeros(2))
    assert not is_dense(torch.zeros(2, 2).to_sparse())


def test_other_values_lack_something():
    assert "shape" in lacks([1.0], MEMBERS)
    assert "concat" in lacks(object(), Namespace.__annotations__)
