"""Encodings: IO-encoding (paper, section 2.2), layer-index encoding and Gaussian Fourier features (the paper's code).

IO-encoding marks input and output neurons so that NP layers can distinguish them: columns of W(1), rows of W(L) and
v(L), and in any other weight space every axis labeled by one of its `inputs` or `outputs`.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from math import pi, prod, sqrt
from typing import Any

from nfn_core.arrays import Array, Features, Namespace, device_of, is_array, namespace_of, widened
from nfn_core.checks import (
    check_counts,
    check_flags,
    check_kind,
    check_numbers,
    plain_tuple,
    positive_int,
    real_number,
    shown,
)
from nfn_core.errors import FeatureError, ResolutionWarning, SpecError
from nfn_core.features import check_features, check_real
from nfn_core.layers.base import Execution, Layer, check_input_channels
from nfn_core.layers.parameters import ParameterSpec
from nfn_core.spaces import TensorSpec, WeightSpace

__all__ = ["GaussianFourierFeatures", "LearnedEncoding", "SinusoidalEncoding"]

COARSE, FINE = 0.02, 2
"""Turns that the entries of a tensor spread over where Fourier features tell them apart."""


@dataclass(frozen=True)
class SinusoidalEncoding(Layer):
    """Sinusoidal IO-encoding, appended to every tensor as channels.

    Position p in [-1, 1] becomes sin(π f p), cos(π f p) for frequencies f evenly spaced from 1 to max_frequency / 2,
    and p itself: 2 * bands + 1 channels (dimension 13 in section D.3). A tensor with several marked axes gets the sum,
    one with none gets zeros.

    Parameters
    ----------
    space : WeightSpace
        The space of the features.
    max_frequency : float
        Maximum frequency (10 in the paper).
    bands : int
        Number of frequency bands (6 in the paper).
    layers : bool
        Whether to add the encoding of each tensor's layer index, as the paper's code does.

    Raises
    ------
    SpecError
        If there is no band, or the frequency is not positive and finite.
    """

    space: WeightSpace
    max_frequency: float = 10.0
    bands: int = 6
    layers: bool = False

    def __post_init__(self) -> None:
        check_kind("space", self.space, WeightSpace)
        check_numbers(self, "positive", "max_frequency")
        check_counts(self, "bands")
        check_flags(self, "layers")

    def channels_after(self, channels: int) -> int:
        """Return `channels` + 2 * bands + 1."""
        return positive_int("channels", channels) + 2 * self.bands + 1

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Features:
        """Append the encoding to every tensor's channels."""
        xp = check_features(self.space, x)
        depth = 1 + max(t.layer for t in self.space.tensors)
        out: Features = {}
        for t in self.space.tensors:
            y = x[t.name]
            wide = widened(y)
            code = xp.zeros((*y.shape[:-1], 2 * self.bands + 1), dtype=wide.dtype, device=device_of(y))
            for axis in _marked(self.space, t):
                code = code + _along(self._encode(t.shape[axis], wide, xp), axis, t, xp)
            if self.layers:
                code = code + self._encode(depth, wide, xp)[t.layer, :]
            out[t.name] = xp.concat([y, xp.astype(code, y.dtype, copy=False)], axis=-1)
        return out

    def _encode(self, n: int, like: Array, xp: Namespace) -> Array:
        """Code of n positions, shape (n, 2 * bands + 1)."""
        options = {"dtype": like.dtype, "device": device_of(like)}
        place = xp.expand_dims(xp.linspace(-1.0, 1.0, n, **options), axis=1)
        frequencies = xp.linspace(1.0, self.max_frequency / 2, self.bands, **options)
        angle = pi * place * frequencies
        return xp.concat([xp.sin(angle), xp.cos(angle), place], axis=-1)


@dataclass(frozen=True)
class LearnedEncoding(Layer):
    """Learned IO-encoding: one embedding for each input and output neuron, added to the channels.

    Parameters
    ----------
    space : WeightSpace
        The space of the features.
    channels : int
        Number of channels.
    layers : bool
        Whether every tensor also gets an embedding of its own, as the paper's code does for layer indices.

    Raises
    ------
    SpecError
        If the number of channels is not positive.
    """

    space: WeightSpace
    channels: int
    layers: bool = False

    def __post_init__(self) -> None:
        check_kind("space", self.space, WeightSpace)
        check_counts(self, "channels")
        check_flags(self, "layers")

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return for each marked neuron set an embedding (n, channels), and optionally for each tensor (channels,)."""
        marked = dict.fromkeys((*self.space.inputs, *self.space.outputs))
        specs = {
            f"neurons+{label}": ParameterSpec((self.space.sizes[label], self.channels), "normal", value=1.0)
            for label in marked
        }
        if self.layers:
            for t in self.space.tensors:
                specs[f"{t.name}.embedding"] = ParameterSpec((self.channels,), "normal", value=1.0)
        return specs

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Features:
        """Add the embeddings."""
        xp = check_features(self.space, x, self.channels)
        out: Features = {}
        for t in self.space.tensors:
            y = x[t.name]
            for axis in _marked(self.space, t):
                y = y + _along(params[f"neurons+{t.labels[axis]}"], axis, t, xp)
            out[t.name] = y + params[f"{t.name}.embedding"] if self.layers else y
        return out


@dataclass(frozen=True)
class GaussianFourierFeatures(Layer):
    """Gaussian Fourier features of every entry: sin(2π xB), cos(2π xB) with B drawn once (the paper's code, for INRs).

    The paper's code has one scale for all tensors, and weights as they are. Tensors of different deviations need a scale
    of their own each: see `from_features`. `turns` measures whether the scales suit the entries.

    Parameters
    ----------
    in_channels : int
        Channels of the input.
    frequencies : int
        Number of columns of B; there are twice as many output channels.
    scale : float
        Standard deviation of B's entries.
    tensor_scales : tuple of (str, float)
        Factors of `scale`, by tensor; without them it is one for all.

    Raises
    ------
    SpecError
        If a number is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> features = {"W1": 0.01 * np.random.default_rng(0).normal(size=(50, 3, 2, 1))}
    >>> layer = GaussianFourierFeatures.from_features(features, frequencies=4, scale=0.5)
    >>> {name: round(turns, 2) for name, turns in layer.turns(features).items()}
    {'W1': 0.5}
    """

    in_channels: int
    frequencies: int = 128
    scale: float = 3.0
    tensor_scales: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "frequencies")
        check_numbers(self, "positive", "scale")
        pairs = [plain_tuple("tensor_scales", pair) for pair in plain_tuple("tensor_scales", self.tensor_scales)]
        for pair in pairs:
            if len(pair) != 2 or not isinstance(pair[0], str):
                raise SpecError(f"tensor_scales must hold pairs (tensor, scale), not {shown(pair)}.")
        scales = tuple((n, real_number(f"scale of tensor {n!r}", x, "positive")) for n, x in pairs)
        if len(dict(scales)) < len(scales):
            raise SpecError(f"tensor_scales must name each tensor once, not {[name for name, _ in scales]}.")
        object.__setattr__(self, "tensor_scales", scales)

    @classmethod
    def from_features(
        cls, features: Mapping[str, Array], frequencies: int = 128, scale: float = 0.5
    ) -> "GaussianFourierFeatures":
        """Give each tensor a scale of its own, relative to the deviation of its entries.

        Parameters
        ----------
        features : mapping of str to array
            Training networks, each tensor of shape (batch, *axes, channels).
        frequencies : int
            As in the constructor.
        scale : float
            Standard deviation of B's entries, for entries of unit deviation.

        Returns
        -------
        GaussianFourierFeatures
            The layer; tensors that never vary keep the scale as it is.

        Raises
        ------
        FeatureError
            If the features are no mapping from names to arrays, or there are none.
        SpecError
            If a number is not positive, or the batch is empty.
        """
        _check_arrays(features)
        _check_filled(features)
        factors = tuple((name, 1.0 / (_deviation(x) or 1.0)) for name, x in features.items())
        return cls(next(iter(features.values())).shape[-1], frequencies, scale, factors)

    def turns(self, features: Mapping[str, Array]) -> dict[str, float]:
        """Measure how far entries spread along the waves, and warn of scales that do not suit them.

        Parameters
        ----------
        features : mapping of str to array
            What the layer is applied to, each tensor of shape (batch, *axes, channels).

        Returns
        -------
        dict of str to float
            For each tensor the standard deviation of its entries in periods of a wave of the scale's frequency. Below
            0.02 the features of all entries are alike (`ResolutionWarning`); above 2 those of close entries are as
            different as those of distant ones (`ResolutionWarning`).

        Raises
        ------
        FeatureError
            If the features are no mapping from names to arrays of `in_channels` channels.
        SpecError
            If there are no entries to measure.
        """
        factors = self._factors(features)
        _check_filled(features)
        found = {name: self.scale * factors.get(name, 1.0) * _deviation(x) for name, x in features.items()}
        for name, turns in found.items():
            if turns < COARSE or turns > FINE:
                change = "larger: all entries look alike" if turns < COARSE else "smaller: close entries look unrelated"
                warnings.warn(
                    f"Fourier features of tensor {name!r}: its entries spread over {turns:.3g} turns, not over {COARSE} to "
                    f"{FINE}; its scale should be {change}. Use GaussianFourierFeatures.from_features.",
                    ResolutionWarning,
                    stacklevel=2,
                )
        return found

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return the constant B, shape (in_channels, frequencies)."""
        shape = (self.in_channels, self.frequencies)
        return {"frequencies": ParameterSpec(shape, "normal", value=self.scale, trainable=False)}

    def channels_after(self, channels: int) -> int:
        """Return 2 * `frequencies`."""
        check_input_channels(self, self.in_channels, channels)
        return 2 * self.frequencies

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Features:
        """Encode the channels of every entry."""
        factors = self._factors(x)
        out: Features = {}
        for name, y in x.items():
            xp = namespace_of(y)
            with execution.full_precision(y):
                turns = xp.matmul(widened(y), widened(params["frequencies"]))
            angle = 2 * pi * factors.get(name, 1.0) * turns
            out[name] = xp.astype(xp.concat([xp.sin(angle), xp.cos(angle)], axis=-1), y.dtype, copy=False)
        return out

    def _factors(self, features: Mapping[str, Array]) -> dict[str, float]:
        """Scales of tensors by name, after a check that the features are of these tensors."""
        _check_arrays(features, self.in_channels)
        factors = dict(self.tensor_scales)
        if factors and set(factors) != set(features):
            raise FeatureError(
                f"Fourier features: expected tensors {sorted(factors)}, not {sorted(features, key=str)}."
            )
        return factors


def _check_arrays(features: Any, channels: int | None = None) -> None:
    """Check that features are arrays by name, of a number of channels if one is given."""
    if not isinstance(features, Mapping) or not features:
        came = "an empty one" if isinstance(features, Mapping) else type(features).__name__
        raise FeatureError(f"features must be a mapping from tensor names to arrays, not {came}.")
    for name, x in features.items():
        if not is_array(x) or x.ndim < 2 or x.shape[-1] != (channels or x.shape[-1]):
            raise FeatureError(
                f"tensor {name!r}: expected an array of shape (batch, ..., {channels or 'channels'}), not "
                f"{tuple(x.shape) if is_array(x) else type(x).__name__}."
            )
        check_real(f"tensor {name!r}", x)


def _check_filled(features: Mapping[str, Array]) -> None:
    """Check that there is something to measure."""
    for name, x in features.items():
        if not prod(x.shape):
            raise SpecError(f"tensor {name!r} of the features is empty: measure scales on at least one network.")


def _deviation(x: Array) -> float:
    """Root of the mean over the channels of the variance of each over batch and entries."""
    xp = namespace_of(x)
    x = widened(x)
    return sqrt(float(xp.mean(xp.var(xp.reshape(x, (-1, x.shape[-1])), axis=0))))


def _marked(space: WeightSpace, tensor: TensorSpec) -> list[int]:
    """Axes of a tensor that carry an input or output set."""
    return [axis for axis, label in enumerate(tensor.labels) if label in (*space.inputs, *space.outputs)]


def _along(code: Array, axis: int, tensor: TensorSpec, xp: Namespace) -> Array:
    """Code of shape (n, channels) placed along one axis of a tensor's features."""
    shape = [1] * (len(tensor.shape) + 2)
    shape[axis + 1], shape[-1] = code.shape
    return xp.reshape(code, tuple(shape))
