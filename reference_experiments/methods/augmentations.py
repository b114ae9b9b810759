"""Augmentations of a batch of networks: permuted neurons (MLP_Aug), and moved images or shapes."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np

from nfn_core import Group, check_features
from nfn_core.augmentations import transform_inputs
from reference_experiments.methods.base import MethodConfig

__all__ = ["moved_images", "moving", "permuted"]


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


def moved_images(
    config: MethodConfig, features: dict[str, np.ndarray], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Rotate, scale, translate and mirror what SIRENs encode, images or shapes, each by its own random amounts.

    Shapes turn about their third axis, the vertical one.

    Parameters
    ----------
    config : MethodConfig
        Its `augmentation` has the largest amounts; with `mirror` the second coordinate changes its sign in half of them.
    features : dict of str to numpy.ndarray
        Weights, each of shape (batch, *axes, 1).
    rng : numpy.random.Generator
        Source of the amounts; it is advanced.

    Returns
    -------
    dict of str to numpy.ndarray
        Weights of networks of the moved images or shapes, exactly.
    """
    batch, inputs = len(features["W1"]), features["W1"].shape[2]
    rotation, scaling, translation = config.augmentation
    angle = rng.uniform(-rotation, rotation, batch)
    size = rng.uniform(1 - scaling, 1 + scaling, batch)
    turn = np.tile(np.eye(inputs), (batch, 1, 1))
    turn[:, 0, 0] = turn[:, 1, 1] = np.cos(angle)
    turn[:, 0, 1], turn[:, 1, 0] = -np.sin(angle), np.sin(angle)
    shift = rng.uniform(-translation, translation, (batch, inputs))
    if config.mirror:
        turn[:, :, 1] *= rng.choice((-1.0, 1.0), (batch, 1))
    matrix = (turn * size[:, None, None]).astype(np.float32)
    return dict(transform_inputs(features, matrix, shift.astype(np.float32)))


def moving(config: MethodConfig) -> Callable[..., dict[str, np.ndarray]] | None:
    """Return `moved_images` with the configuration's amounts, or None where they are all 0."""
    return partial(moved_images, config) if any(config.augmentation) else None
