"""Assertions of one line, for the tests of any package: a layer, features, and the group that it is to respect.

A layer is any callable: a torch module, an `nfn_torch.NFModule`, a JAX or a NumPy function. It runs in its own array
library, on its own device, in float32 or float64; limits follow the dtype. Behind the assertions stand the
measurements of `nfn_conformance.CHECKS`. A failure carries the measurement in its message.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from nfn_conformance.checks import CHECKS, expected_rank, symmetry
from nfn_conformance.groups import find_group
from nfn_conformance.measurements import Measurement, flat, relative_error, require
from nfn_conformance.subject import NumpyFeatures, Output, Subject, check_callable
from nfn_core import FeatureError, Group, ModelSpace, SpecError, WeightSpace, check_features
from nfn_core.arrays import Array, device_of, is_array, namespace_of
from nfn_core.checks import natural_int, real_number

__all__ = ["assert_equivariant", "assert_invariant", "assert_maximal", "assert_normalized"]

Layer = Callable[[Any], Any]
"""A module or function of features."""

Sets = Group | str | Iterable[str]
"""A group, or the neuron sets that it permutes, as `WeightSpace.group` takes them."""

LARGEST = 2**21
"""Most entries of an operator that `assert_maximal` measures; of all operators together 64 times as many, 1 GiB."""


def assert_equivariant(
    layer: Layer,
    features: Mapping[str, Array],
    group: Sets | None = None,
    seed: int = 0,
    *,
    space: WeightSpace | ModelSpace | None = None,
    limit: float | None = None,
) -> Measurement:
    """Assert f(σU) = σf(U) for the generators and three drawn elements of a group.

    Parameters
    ----------
    layer : callable
        A module or function from features to features of the same weight space, in evaluation mode.
    features : mapping of str to array
        Each tensor of shape (batch, *axes, channels), of the library, dtype (float32 or float64) and device that the
        layer takes. They must change under every permutation: random numbers do, zeros do not.
    group : Group, {"NP", "HNP"} or iterable of str, optional
        The group. By name it needs a space. Without it: if a space is given, the space's HNP, the permutations of
        hidden neurons that every network has; otherwise the group of the description that the layer holds (an
        `nfn_torch.NFModule`, or a `functools.partial` of a description), which is what all its parts respect.
    seed : int
        Seed of the drawn elements.
    space : WeightSpace or ModelSpace, optional
        The space of the features; a `Group` brings its own.
    limit : float, optional
        Largest relative error that passes; by default 1e-9 for float64, 64 eps √inputs for float32. Products in reduced
        precision (TF32 on GPUs) need more, about 1e-2.

    Returns
    -------
    Measurement
        The largest error, relative to the largest output, and its limit.

    Raises
    ------
    AssertionError
        If the error is above the limit; the message has the figures.
    SpecError
        If there is no group to infer, or it permutes nothing, or the limit is not positive.
    FeatureError
        If the features do not fit the space, do not change under the group, or the layer returns no features.

    Examples
    --------
    >>> from nfn_core import NFLayer, WeightSpace, initialize
    >>> group = WeightSpace.mlp([2, 3, 1]).group("HNP")
    >>> nf = NFLayer(group, 1, 2)
    >>> rng = np.random.default_rng(0)
    >>> features = {t.name: rng.normal(size=(4, *t.shape, 1)) for t in group.space.tensors}
    >>> assert_equivariant(lambda u: nf.apply(initialize(nf, 0), u), features, group).status
    'passed'
    """
    return _assert_symmetry("equivariance", layer, features, find_group(layer, group, space), seed, limit)


def assert_invariant(
    layer: Layer,
    features: Mapping[str, Array],
    group: Sets | None = None,
    seed: int = 0,
    *,
    space: WeightSpace | ModelSpace | None = None,
    limit: float | None = None,
) -> Measurement:
    """Assert f(σU) = f(U) for the generators and three drawn elements of a group.

    Parameters
    ----------
    layer : callable
        A module or function from features to an array of shape (batch, ...), in evaluation mode.
    features : mapping of str to array
        As for `assert_equivariant`.
    group : Group, {"NP", "HNP"} or iterable of str, optional
        As for `assert_equivariant`.
    seed : int
        Seed of the drawn elements.
    space : WeightSpace or ModelSpace, optional
        As for `assert_equivariant`.
    limit : float, optional
        As for `assert_equivariant`.

    Returns
    -------
    Measurement
        As for `assert_equivariant`.

    Raises
    ------
    AssertionError
        If the error is above the limit; the message has the figures.
    SpecError
        As for `assert_equivariant`.
    FeatureError
        If the features do not fit the space, do not change under the group, or the layer returns no array.
    """
    return _assert_symmetry("invariance", layer, features, find_group(layer, group, space), seed, limit)


def assert_normalized(layer: Layer, features: Mapping[str, Array], factor: float = 2.0) -> Measurement:
    """Assert that outputs have unit scale, as they should at initialization.

    Parameters
    ----------
    layer : callable
        A module or function from features to features or to an array.
    features : mapping of str to array
        Typical input: each tensor of shape (batch, *axes, channels), itself of unit scale.
    factor : float
        Standard deviations from 1 / factor to factor pass, of each output tensor over batch, entries and channels.

    Returns
    -------
    Measurement
        The standard deviation farthest from 1; the note has all of them.

    Raises
    ------
    AssertionError
        If a standard deviation is outside, or not a number; the message names the tensor.
    SpecError
        If the factor is no number above 1, or the layer cannot be called.
    FeatureError
        If the features are no mapping of arrays, or an output has fewer than two numbers.
    """
    check_callable("layer", layer)
    if not real_number("factor", factor) > 1:
        raise SpecError(f"factor must be above 1, not {factor!r}: 2 lets standard deviations from 1/2 to 2 pass.")
    _check_dtypes(features)
    out = _to_numpy(layer(features))
    named = out if isinstance(out, dict) else {"output": out}
    for name, x in named.items():
        if x.size < 2:
            raise FeatureError(f"{name!r} has {x.size} numbers, which have no standard deviation: give a larger batch.")
    deviations = {name: float(np.std(x.astype("float64"))) for name, x in named.items()}
    distances = {name: abs(np.log(s)) if 0 < s < np.inf else np.inf for name, s in deviations.items()}
    ordered = sorted(deviations, key=distances.__getitem__, reverse=True)
    shown = ", ".join(f"of {name!r} {deviations[name]:.3g}" for name in ordered)
    status = "passed" if distances[ordered[0]] <= np.log(factor) else "failed"
    found = Measurement("normalization", status, deviations[ordered[0]], factor, f"standard deviation {shown}")
    return _passed(found, layer)


def assert_maximal(
    make: Callable[[int], Layer],
    features: Mapping[str, Array],
    group: Sets | None = None,
    seed: int = 0,
    *,
    space: WeightSpace | ModelSpace | None = None,
) -> Measurement:
    """Assert that a layer is affine and respects a group, and that its linear parts are all maps that do.

    Their number is that of the orbits of index pairs (of single indices, if the layer returns an array), for each
    input and output channel; the rank of the layer's operators over re-drawn parameters must be the same. Each
    operator is a dense matrix, so use a small space of the architecture: ``WeightSpace.mlp([2, 3, 3, 2])``.

    Parameters
    ----------
    make : callable
        From a seed to a freshly drawn layer, itself a module or function from features to features or to an array.
    features : mapping of str to array
        Any numbers in the library, dtype and device that the layer takes, each tensor of shape (batch, *axes, channels).
    group : Group, {"NP", "HNP"} or iterable of str, optional
        As for `assert_equivariant`, where the layer is ``make(seed)``.
    seed : int
        First of the seeds.
    space : WeightSpace or ModelSpace, optional
        As for `assert_equivariant`.

    Returns
    -------
    Measurement
        Rank and number of orbits.

    Raises
    ------
    AssertionError
        If the two differ, or the layer is not equivariant (invariant) or not affine; the message has the figures.
    SpecError
        If there is no group to infer, it permutes nothing, or the space is too large for dense operators.
    FeatureError
        If the features do not fit the space, or what the layer returns does not.
    """
    check_callable("make", make)
    seed = natural_int("seed", seed)
    layer = make(seed)
    check_callable("make(seed)", layer)
    group = find_group(layer, group, space)
    _check_features(group, features)
    out = _to_numpy(layer(features))
    invariant = not isinstance(out, dict)
    subject = replace(
        _subject(features, group, invariant),
        make=make,
        linear=True,
        maximal=True,
        out_channels=1 if invariant else next(iter(out.values())).shape[-1],
    )
    entries = group.space.size * subject.in_channels * (flat(out).size // next(iter(features.values())).shape[0])
    if entries > LARGEST or (orbits := expected_rank(subject, seed)) * entries > 64 * LARGEST:
        raise SpecError(
            f"operators of {entries:,} entries, one for each of {'' if entries > LARGEST else f'{orbits:,} '}orbits, are "
            "too large to measure: use a small space of the same architecture, such as WeightSpace.mlp([2, 3, 3, 2])."
        )
    symmetric = symmetry("invariance" if invariant else "equivariance", subject, seed)
    for found in (symmetric, CHECKS["linearity"](subject, seed)):
        _passed(_with_group(found, group), layer)
    return _passed(_with_group(CHECKS["maximality"](subject, seed), group), layer)


def _assert_symmetry(
    check: str, layer: Layer, features: Mapping[str, Array], group: Group, seed: int, limit: float | None
) -> Measurement:
    """Measure equivariance or invariance of one layer on given features."""
    check_callable("layer", layer)
    seed = natural_int("seed", seed)
    limit = None if limit is None else real_number("limit", limit, "positive")
    u = _check_input(group, features)
    subject = replace(_subject(features, group, check == "invariance"), make=lambda seed: layer)
    found = _with_group(symmetry(check, subject, seed, u), group)
    if limit is not None and found.value is not None:
        found = replace(found, limit=limit, status="passed" if found.value < limit else "failed")
    if found.status == "failed":
        again = relative_error(flat(subject.apply(layer, u)), flat(subject.apply(layer, u)))
        if 0 < again < np.inf:
            note = f"{found.note}; two calls with the same input differ by {again:.1e}: use evaluation mode"
            found = replace(found, note=note)
    return _passed(found, layer)


def _check_input(group: Group, features: Mapping[str, Array]) -> NumpyFeatures:
    """Features on the host, if a group can be tested on them."""
    _check_features(group, features)
    u = {name: _to_host(features[name]) for name in group.space.by_name}
    for sigma in group.generators():
        if all(np.array_equal(x, u[name]) for name, x in group.act(sigma, u).items()):
            how = "changes its signs" if any(-1 in x for _, x in sigma.signs) else "is permuted"
            raise FeatureError(
                f"features do not change when neuron set {sigma.changed[0]!r} {how}, so any layer would pass: "
                "give a batch of random numbers."
            )
    return u


def _check_features(group: Group, features: Mapping[str, Array]) -> None:
    """Check that features fit, that there are some, and that there is something to permute."""
    check_features(group.space, features, finite=True)
    _check_dtypes(features)
    if not group.permuted and not group.signed:
        raise SpecError("the group permutes nothing, so there is nothing to test: give one that does, such as 'NP'.")
    if not next(iter(features.values())).shape[0]:
        raise FeatureError("features hold an empty batch, so there is nothing to test: give one network or more.")


def _check_dtypes(features: Mapping[str, Array]) -> None:
    """Raise a FeatureError unless the features are arrays of float32 or float64."""
    if not isinstance(features, Mapping) or not features:
        raise FeatureError(f"features must be a mapping from tensor names to arrays, not {type(features).__name__}.")
    for name, x in features.items():
        if kind := _wrong_kind(x):
            raise FeatureError(f"tensor {name!r} must be an array of float32 or float64, not {kind}: cast it.")


def _subject(features: Mapping[str, Array], group: Group, invariant: bool) -> Subject:
    """Subject whose layers take arrays like the features; what they return must be what they claim."""

    def apply(layer: Layer, u: NumpyFeatures) -> Output:
        arrays_of_layer = {name: _like(x, features[name]) for name, x in u.items()}
        out: Output = _to_numpy(
            layer(type(features)(arrays_of_layer) if isinstance(features, dict) else arrays_of_layer)
        )
        if invariant == isinstance(out, dict):
            expected = "an array of shape (batch, ...)" if invariant else "features by tensor name"
            other = "assert_equivariant" if invariant else "assert_invariant"
            kind = "features" if invariant else "an array"
            raise FeatureError(f"the layer returned {kind}, expected {expected}: use {other} for this layer.")
        if isinstance(out, dict):
            if out.keys() != group.space.by_name.keys():
                raise FeatureError(f"the layer returned tensors {list(out)}, expected {list(group.space.by_name)}.")
            check_features(group.space, out)
        return out

    channels = next(iter(features.values())).shape[-1]
    return Subject("layer", group, make=lambda seed: None, apply=apply, in_channels=channels, invariant=invariant)


def _like(x: np.ndarray, like: Array) -> Array:
    """An array of the host as another one: library, dtype and device."""
    return namespace_of(like).asarray(np.array(x), dtype=like.dtype, device=device_of(like))


def _to_numpy(value: Any) -> Any:
    """What a layer returned, on the host."""
    named = value if isinstance(value, Mapping) else {"output": value}
    for name, x in named.items():
        if kind := _wrong_kind(x):
            raise FeatureError(
                f"the layer returned {kind} for {name!r}, expected an array of float32 or float64, or features of these."
            )
    out = {name: _to_host(x) for name, x in named.items()}
    return out if isinstance(value, Mapping) else out["output"]


def _to_host(x: Array) -> np.ndarray:
    """An array of any library as a NumPy array."""
    return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)


def _wrong_kind(x: Any) -> str:
    """Dtype, or type, of what is no array of float32 or float64; empty for such an array."""
    if not is_array(x):
        return type(x).__name__
    dtype = str(x.dtype).rpartition(".")[2]  # without the library's name
    return "" if dtype in ("float32", "float64") else dtype


def _with_group(found: Measurement, group: Group) -> Measurement:
    """The measurement, whose note also names the group."""
    return replace(found, note=f"{found.note}, group {group.name}")


def _passed(found: Measurement, layer: Any) -> Measurement:
    """The measurement, if it passed."""
    return require(found, getattr(getattr(layer, "func", layer), "__name__", type(layer).__name__))
