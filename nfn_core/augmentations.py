"""Exact augmentations of implicit neural representations: other weights of a known, or of the same, function.

A network that sees its inputs as W x + v, applied to A x + t, has W A and v + W t: rotations, scalings and shifts of an
image are linear in the first layer. A neuron with an odd activation (sine, tanh) may change its sign with all its weights.
A ReLU neuron may be scaled by a positive factor, and its outgoing weights by the inverse.
All functions are pure, take the random numbers from outside, and leave their arguments as they are.
"""

from collections.abc import Mapping
from typing import Any

from nfn_core.arrays import AnyArray, Array, is_array, namespace_of
from nfn_core.errors import FeatureError, SpecError
from nfn_core.features import check_features
from nfn_core.spaces import WeightSpace

__all__ = ["flip_signs", "scale_neurons", "transform_inputs"]


def transform_inputs(
    features: Mapping[str, AnyArray], matrix: AnyArray, shift: AnyArray, weight: str = "W1", bias: str = "v1"
) -> dict[str, AnyArray]:
    """Weights of the function x → f(A x + t), where f is the network that came.

    Parameters
    ----------
    features : mapping of str to array
        Weights of dense networks; the first weight has shape (batch, n, d, channels) with the inputs second, the first
        bias (batch, n, channels).
    matrix : array
        A for each network, shape (batch, d, d): a rotation, a scaling, or any other.
    shift : array
        t for each network, shape (batch, d).
    weight, bias : str
        Names of the first weight and bias.

    Returns
    -------
    dict of str to array
        The new weights; tensors after the first layer are the same arrays.

    Raises
    ------
    FeatureError
        If a tensor is missing or the shapes do not fit.
    """
    if not isinstance(features, Mapping):
        raise FeatureError(f"features must be a mapping from tensor names to arrays, not {type(features).__name__}.")
    for name, axes in ((weight, 4), (bias, 3)):
        if (
            not isinstance(name, str)
            or name not in features
            or not is_array(features[name])
            or features[name].ndim != axes
        ):
            raise FeatureError(
                f"transform_inputs needs features with a tensor {name!r} of {axes} axes: name the first weight and bias."
            )
    w, v = features[weight], features[bias]
    batch, _, d, _ = w.shape
    for name, x in (("matrix", matrix), ("shift", shift)):
        if not is_array(x):
            raise FeatureError(f"{name} must be an array, not {type(x).__name__}.")
    xp = namespace_of(w, v, matrix, shift)
    if tuple(matrix.shape) != (batch, d, d) or tuple(shift.shape) != (batch, d):
        raise FeatureError(
            f"matrix and shift must have shapes {(batch, d, d)} and {(batch, d)}, not {tuple(matrix.shape)} and "
            f"{tuple(shift.shape)}."
        )
    rows = xp.permute_dims(w, (0, 1, 3, 2))
    turned = xp.permute_dims(xp.matmul(rows, matrix[:, None, :, :]), (0, 1, 3, 2))
    moved = xp.sum(w * shift[:, None, :, None], axis=2)
    new: dict[str, Any] = {weight: turned, bias: v + moved}
    return {**features, **new}


def flip_signs(
    space: WeightSpace, features: Mapping[str, AnyArray], signs: Mapping[str, AnyArray]
) -> dict[str, AnyArray]:
    """Weights of the same function after neurons with odd activations changed their sign.

    Parameters
    ----------
    space : WeightSpace
        The space of the features.
    features : mapping of str to array
        Weights, each tensor of shape (batch, *axes, channels).
    signs : mapping of str to array
        For some neuron sets 1 or -1 for each network and neuron, shape (batch, n). Every axis that a set labels is
        multiplied by its signs.

    Returns
    -------
    dict of str to array
        The new weights.

    Raises
    ------
    FeatureError
        If the features do not fit the space, or signs do not fit the batch.
    SpecError
        If a neuron set is unknown, or is an input or output of the network.
    """
    return _multiplied(space, features, "signs", signs, inverse=False)


def scale_neurons(
    space: WeightSpace, features: Mapping[str, AnyArray], factors: Mapping[str, AnyArray]
) -> dict[str, AnyArray]:
    """Weights of the same function after neurons with positively homogeneous activations (ReLU) were scaled.

    Parameters
    ----------
    space : WeightSpace
        The space of the features.
    features : mapping of str to array
        Weights, each tensor of shape (batch, *axes, channels), whose first axis is that of the neurons it goes to.
    factors : mapping of str to array
        For some neuron sets a positive factor for each network and neuron, shape (batch, n). Where the set labels the first
        axis entries are multiplied by it, elsewhere divided.

    Returns
    -------
    dict of str to array
        The new weights.

    Raises
    ------
    FeatureError
        If the features do not fit the space, or factors do not fit the batch.
    SpecError
        If a neuron set is unknown, or is an input or output of the network.
    """
    return _multiplied(space, features, "factors", factors, inverse=True)


def _multiplied(
    space: WeightSpace, features: Mapping[str, AnyArray], name: str, given: Mapping[str, AnyArray], inverse: bool
) -> dict[str, AnyArray]:
    """Weights with every axis of some sets multiplied, or with all axes but the first divided."""
    xp = check_features(space, features)
    if not isinstance(given, Mapping):
        raise SpecError(f"{name} must be a mapping from neuron sets to arrays, not {type(given).__name__}.")
    for label, values in given.items():
        if label not in space.sizes or label in (*space.inputs, *space.outputs):
            raise SpecError(
                f"{name} name {label!r}, which is no hidden neuron set of this space: {tuple(space.sizes)}."
            )
        first = features[space.tensors[0].name]
        namespace_of(first, values)
        expected = (first.shape[0], space.sizes[label])
        if tuple(values.shape) != expected:
            raise FeatureError(f"{name} of {label!r} must have shape {expected}, not {tuple(values.shape)}.")
    out: dict[str, Any] = {}
    for t in space.tensors:
        x: Array = features[t.name]
        for axis, neurons in enumerate(t.labels):
            if neurons is not None and neurons in given:
                shape = [x.shape[0], *(1,) * (len(t.shape) + 1)]
                shape[axis + 1] = t.shape[axis]
                by = xp.reshape(xp.astype(given[neurons], x.dtype, copy=False), tuple(shape))
                x = x / by if inverse and axis else x * by
        out[t.name] = x
    return out
