"""What the MLP baselines see of a network, and give back: all entries in one row; freshly permuted neurons (MLP_Aug)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nfn_core import FeatureError, Group, Layer, WeightSpace, check_features
from nfn_core.arrays import Array, Features, namespace_of
from nfn_core.layers.base import Execution

__all__ = ["Flatten", "Unflatten", "permuted"]


@dataclass(frozen=True)
class Flatten(Layer):
    """All entries of a network in one row: tensors in the space's order, entries in C order, channels last.

    Parameters
    ----------
    space : WeightSpace
        The space of the features.
    """

    space: WeightSpace

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Array:
        """Return an array of shape (batch, space.size * channels)."""
        xp = check_features(self.space, x)
        flat = ((x[t.name], t.size) for t in self.space.tensors)
        return xp.concat([xp.reshape(y, (y.shape[0], size * y.shape[-1])) for y, size in flat], axis=1)


@dataclass(frozen=True)
class Unflatten(Layer):
    """Features of one channel out of a row: `Flatten` undone.

    Parameters
    ----------
    space : WeightSpace
        The space of the features.
    """

    space: WeightSpace

    def forward(self, params: Mapping[str, Array], x: Array, execution: Execution) -> Features:
        """Cut an array of shape (batch, space.size) into tensors."""
        xp, out, start = namespace_of(x), {}, 0
        if x.shape[1:] != (self.space.size,):
            raise FeatureError(f"Unflatten: expected shape (batch, {self.space.size}), not {tuple(x.shape)}.")
        for t in self.space.tensors:
            out[t.name] = xp.reshape(x[:, start : start + t.size], (x.shape[0], *t.shape, 1))
            start += t.size
        return out


def permuted(group: Group, features: Mapping[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Permute the neurons of every network by a group element of its own (MLP_Aug, section 3).

    Parameters
    ----------
    group : Group
        The group, with its weight space.
    features : mapping of str to numpy.ndarray
        Features on the host, each (batch, *axes, channels).
    rng : numpy.random.Generator
        Draws an element for each network, uniformly and independently; it is advanced.

    Returns
    -------
    dict of str to numpy.ndarray
        Features of the same shapes and dtype.

    Raises
    ------
    FeatureError
        If the features do not fit the space.
    """
    check_features(group.space, features)
    batch = len(features[group.space.tensors[0].name])
    sources = {s: rng.permuted(np.tile(np.arange(group.space.sizes[s]), (batch, 1)), axis=1) for s in group.permuted}
    out = {}
    for t in group.space.tensors:
        x = features[t.name]
        for axis, label in enumerate(t.labels, start=1):
            if label in sources:
                shape = [batch, *(1,) * (x.ndim - 1)]
                shape[axis] = x.shape[axis]
                x = np.take_along_axis(x, sources[label].reshape(shape), axis)
        out[t.name] = x
    return out
