"""Freshly permuted neurons of every network of a batch: the augmentation of MLP_Aug."""

from collections.abc import Mapping

import numpy as np

from nfn_core import Group, check_features

__all__ = ["permuted"]


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
