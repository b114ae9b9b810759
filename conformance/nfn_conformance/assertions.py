"""Assertions of one line, for the tests of any package: a layer, features, and the group that it is to respect.

They run the layer in the caller's own array library and dtype. Behind them stand the measurements of `CHECKS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from nfn_conformance.checks import CHECKS, Measurement, symmetry
from nfn_conformance.subject import NumpyFeatures, Output, Subject
from nfn_core import FeatureError, Group, SpecError, check_features
from nfn_core.arrays import Array, device_of, namespace_of

__all__ = ["assert_equivariant", "assert_invariant", "assert_maximal", "assert_normalized"]

Layer = Callable[[Any], Any]


def assert_equivariant(
    layer: Layer, features: Mapping[str, Array], group: Group | None = None, seed: int = 0
) -> Measurement:
    """Assert f(σU) = σf(U) for the generators and three drawn elements of a group.

    Parameters
    ----------
    layer : callable
        A module or function from features to features.
    features : mapping of str to array
        Each tensor of shape (batch, *axes, channels), of the library, dtype and device that the layer takes.
    group : Group, optional
        The group; by default that of the description which the layer holds, as `nfn_torch.NFModule` does.
    seed : int
        Seed of the drawn elements.

    Returns
    -------
    Measurement
        The largest error, relative to the largest output, and its limit, which follows the output's dtype.

    Raises
    ------
    AssertionError
        If the error is above the limit; the message has the figures.
    SpecError
        If there is no group to infer.
    FeatureError
        If the features do not fit the group's space, or the layer returns no features.

    Examples
    --------
    >>> from nfn_core import NFLayer, WeightSpace, initialize
    >>> group = WeightSpace.mlp([2, 3, 1]).group("HNP")
    >>> nf = NFLayer(group, 1, 2)
    >>> features = {t.name: np.ones((4, *t.shape, 1)) for t in group.space.tensors}
    >>> assert_equivariant(lambda u: nf.apply(initialize(nf, 0), u), features, group).status
    'passed'
    """
    group = _group(layer, group, features)
    return _held(symmetry("equivariance", _subject(layer, features, group, False), seed, _host(features)), layer)


def assert_invariant(
    layer: Layer, features: Mapping[str, Array], group: Group | None = None, seed: int = 0
) -> Measurement:
    """Assert f(σU) = f(U) for the generators and three drawn elements of a group.

    Parameters
    ----------
    layer : callable
        A module or function from features to an array of shape (batch, ...).
    features, group, seed : see `assert_equivariant`
        As there.

    Returns
    -------
    Measurement
        As `assert_equivariant`.

    Raises
    ------
    AssertionError, SpecError, FeatureError
        As `assert_equivariant`.
    """
    group = _group(layer, group, features)
    return _held(symmetry("invariance", _subject(layer, features, group, True), seed, _host(features)), layer)


def assert_normalized(layer: Layer, features: Mapping[str, Array], factor: float = 2.0) -> Measurement:
    """Assert that outputs have unit scale, as they should at initialization.

    Parameters
    ----------
    layer : callable
        A module or function from features to features or to an array.
    features : mapping of str to array
        Typical input: each tensor of shape (batch, *axes, channels).
    factor : float
        Standard deviations from 1 / factor to factor pass, of each output tensor over everything.

    Returns
    -------
    Measurement
        The standard deviation farthest from 1.

    Raises
    ------
    AssertionError
        If a standard deviation is outside; the message names the tensor.
    """
    out = _numpy(layer(features))
    deviations = {name: float(np.std(x)) for name, x in (out.items() if isinstance(out, dict) else [("output", out)])}
    with np.errstate(divide="ignore"):
        name = max(deviations, key=lambda n: np.nan_to_num(abs(np.log(deviations[n])), nan=np.inf))
    status = "passed" if 1 / factor <= deviations[name] <= factor else "failed"
    return _held(Measurement("normalized", status, deviations[name], factor, f"standard deviation of {name!r}"), layer)


def assert_maximal(
    make: Callable[[int], Layer], features: Mapping[str, Array], group: Group, out_channels: int = 1
) -> Measurement:
    """Assert that a linear layer is every equivariant linear map: its rank over re-drawn parameters is the orbit count.

    Parameters
    ----------
    make : callable
        From a seed to a freshly drawn layer, from features to features.
    features : mapping of str to array
        Features of any batch size, which say library, dtype and channels.
    group : Group
        The group.
    out_channels : int
        Channels of the output.

    Returns
    -------
    Measurement
        Rank and number of orbits of index pairs, times channels.

    Raises
    ------
    AssertionError
        If they differ.
    FeatureError
        If the features do not fit the group's space.
    """
    check_features(group.space, features)
    in_channels = next(iter(features.values())).shape[-1]
    subject = Subject(
        "layer",
        group,
        make=make,
        apply=lambda layer, u: _numpy(layer(_like(u, features))),
        in_channels=in_channels,
        out_channels=out_channels,
        linear=True,
        maximal=True,
    )
    return _held(CHECKS["maximality"](subject), make)


def _subject(layer: Layer, features: Mapping[str, Array], group: Group, invariant: bool) -> Subject:
    """Subject of one layer; what it returns must be what it claims to be."""

    def apply(function: Layer, u: NumpyFeatures) -> Output:
        out: Output = _numpy(function(_like(u, features)))
        if invariant == isinstance(out, dict):
            expected = "an array of shape (batch, ...)" if invariant else "features by tensor name"
            raise FeatureError(f"the layer returned {type(out).__name__}, expected {expected}.")
        if isinstance(out, dict) and out.keys() != group.space.by_name.keys():
            raise FeatureError(f"the layer returned tensors {list(out)}, expected {list(group.space.by_name)}.")
        return out

    return Subject("layer", group, make=lambda seed: layer, apply=apply, invariant=invariant)


def _group(layer: Layer, group: Group | None, features: Mapping[str, Array]) -> Group:
    """The group given, or the first one in the description that the layer holds."""
    if group is None:
        group = _first_group(getattr(layer, "layer", None))
    if not isinstance(group, Group):
        raise SpecError("there is no group to infer from the layer: give group=space.group('HNP'), for instance.")
    check_features(group.space, features)
    return group


def _first_group(value: Any) -> Group | None:
    """First group in a description, depth first."""
    if isinstance(value, Group):
        return value
    inner = value if isinstance(value, tuple) else ()
    if is_dataclass(value):
        inner = tuple(getattr(value, f.name) for f in fields(value) if f.init)
    return next((found for found in map(_first_group, inner) if found is not None), None)


def _like(u: NumpyFeatures, features: Mapping[str, Array]) -> dict[str, Array]:
    """Arrays of the host as those of some features: library, dtype and device."""
    found = {}
    for name, x in u.items():
        like = features[name]
        found[name] = namespace_of(like).asarray(np.array(x), dtype=like.dtype, device=device_of(like))
    return found


def _host(features: Mapping[str, Array]) -> NumpyFeatures:
    """Features on the host."""
    return {name: _array(x) for name, x in features.items()}


def _numpy(value: Any) -> Any:
    """What a layer returned, on the host."""
    return {name: _array(x) for name, x in value.items()} if isinstance(value, Mapping) else _array(value)


def _array(x: Any) -> np.ndarray:
    """An array of any library on the host."""
    return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)


def _held(found: Measurement, layer: Any) -> Measurement:
    """The measurement, if it passed."""
    if found.status == "failed":
        name = getattr(layer, "__name__", type(layer).__name__)
        raise AssertionError(f"{name} fails {found.check}: {found.value} (limit {found.limit}); {found.note}")
    return found
