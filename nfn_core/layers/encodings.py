"""Encodings: IO-encoding (paper, section 2.2), layer-index encoding and Gaussian Fourier features (the paper's code).

IO-encoding marks input and output neurons so that NP layers can distinguish them: columns of W(1), rows of W(L) and
v(L), and in any other weight space every axis labeled by one of its `inputs` or `outputs`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import pi

from nfn_core.arrays import Array, Features, Namespace, device_of, namespace_of
from nfn_core.checks import check_counts
from nfn_core.errors import SpecError
from nfn_core.features import check_features
from nfn_core.layers.base import Execution, Layer, check_input_channels
from nfn_core.layers.parameters import ParameterSpec
from nfn_core.spaces import TensorSpec, WeightSpace

__all__ = ["GaussianFourierFeatures", "LearnedEncoding", "SinusoidalEncoding"]


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
        If there is no band.
    """

    space: WeightSpace
    max_frequency: float = 10.0
    bands: int = 6
    layers: bool = False

    def __post_init__(self) -> None:
        check_counts(self, "bands")

    def channels_after(self, channels: int) -> int:
        """Return `channels` + 2 * bands + 1."""
        return channels + 2 * self.bands + 1

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Features:
        """Append the encoding to every tensor's channels."""
        xp = check_features(self.space, x)
        depth = 1 + max(t.layer for t in self.space.tensors)
        out: Features = {}
        for t in self.space.tensors:
            y = x[t.name]
            code = xp.zeros((*y.shape[:-1], 2 * self.bands + 1), dtype=y.dtype, device=device_of(y))
            for axis in _marked(self.space, t):
                code = code + _along(self._encode(t.shape[axis], y, xp), axis, t, xp)
            if self.layers:
                code = code + self._encode(depth, y, xp)[t.layer, :]
            out[t.name] = xp.concat([y, code], axis=-1)
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
        check_counts(self, "channels")

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

    Parameters
    ----------
    in_channels : int
        Channels of the input.
    frequencies : int
        Number of columns of B; there are twice as many output channels.
    scale : float
        Standard deviation of B's entries.

    Raises
    ------
    SpecError
        If a number is not positive.
    """

    in_channels: int
    frequencies: int = 128
    scale: float = 3.0

    def __post_init__(self) -> None:
        check_counts(self, "in_channels", "frequencies")
        if not 0 < self.scale < float("inf"):
            raise SpecError(f"scale must be positive and finite, not {self.scale!r}.")

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
        out: Features = {}
        for name, y in x.items():
            xp = namespace_of(y)
            angle = 2 * pi * xp.matmul(y, params["frequencies"])
            out[name] = xp.concat([xp.sin(angle), xp.cos(angle)], axis=-1)
        return out


def _marked(space: WeightSpace, tensor: TensorSpec) -> list[int]:
    """Axes of a tensor that carry an input or output set."""
    return [axis for axis, label in enumerate(tensor.labels) if label in (*space.inputs, *space.outputs)]


def _along(code: Array, axis: int, tensor: TensorSpec, xp: Namespace) -> Array:
    """Code of shape (n, channels) placed along one axis of a tensor's features."""
    shape = [1] * (len(tensor.shape) + 2)
    shape[axis + 1], shape[-1] = code.shape
    return xp.reshape(code, tuple(shape))
