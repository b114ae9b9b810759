"""Layers that treat every entry of a weight space alike: activations, dropout, normalization, scales."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import pi, sqrt
from typing import Any, Literal

import numpy as np

from nfn_core.arrays import Array, Features, is_array, namespace_of, widened
from nfn_core.checks import (
    boolean,
    check_choice,
    check_counts,
    check_kind,
    check_numbers,
    plain_tuple,
    positive_int,
    real_number,
)
from nfn_core.errors import FeatureError, SpecError
from nfn_core.features import check_features, check_real
from nfn_core.layers.base import Execution, Layer
from nfn_core.layers.parameters import ParameterSpec, on_host
from nfn_core.spaces import WeightSpace

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Dropout",
    "Gate",
    "LayerNorm",
    "Normalize",
    "ODD_ACTIVATIONS",
    "Scale",
    "dropped",
]

ACTIVATIONS: Mapping[str, Callable[[Any, Array], Array]] = {
    "relu": lambda xp, x: xp.where(x <= 0, xp.zeros_like(x), x),  # NaN stays NaN
    "leaky_relu": lambda xp, x: xp.where(x > 0, x, 0.01 * x),
    "gelu": lambda xp, x: 0.5 * x * (1.0 + xp.tanh(sqrt(2.0 / pi) * (x + 0.044715 * x * x * x))),
    "silu": lambda xp, x: 0.5 * x * (1.0 + xp.tanh(0.5 * x)),
    "sigmoid": lambda xp, x: 0.5 * (1.0 + xp.tanh(0.5 * x)),
    "softplus": lambda xp, x: xp.logaddexp(x, xp.zeros_like(x)),
    "tanh": lambda xp, x: xp.tanh(x),
    "sin": lambda xp, x: xp.sin(x),
    "abs": lambda xp, x: x * xp.sign(x),
}
"""Elementwise maps by name. At 0, relu and abs have derivative 0 and leaky_relu 0.01, in every backend. All give NaN for
NaN. gelu is the tanh approximation, since the array API has no error function."""
ODD_ACTIVATIONS = ("tanh", "sin")
"""Those that change their sign with their argument."""


@dataclass(frozen=True)
class Activation(Layer):
    """An elementwise map; it commutes with every permutation.

    Parameters
    ----------
    name : str
        One of `ACTIVATIONS`.

    Raises
    ------
    SpecError
        If the name is unknown.
    """

    name: str = "relu"

    def __post_init__(self) -> None:
        check_choice("activation", self.name, tuple(ACTIVATIONS))

    def shown_arguments(self) -> list[str]:
        """Return the name."""
        return [self.name]

    def keeps_signs(self) -> bool:
        """Return whether the map is odd."""
        return self.name in ODD_ACTIVATIONS

    def forward(self, params: Mapping[str, Array], x: Any, execution: Execution) -> Any:
        """Map features of any space, or a plain array."""
        own = execution.activations.get(self.name)
        return _each(x, own or (lambda y: ACTIVATIONS[self.name](namespace_of(y), y)))


@dataclass(frozen=True)
class Gate(Layer):
    """Gated activation: the first half of the channels, activated, times the second half (Dauphin et al., ICML 2017).

    Parameters
    ----------
    activation : str
        One of `ACTIVATIONS`.

    Raises
    ------
    SpecError
        If the name is unknown.

    Examples
    --------
    >>> Gate().channels_after(64)
    32
    """

    activation: str = "silu"

    def __post_init__(self) -> None:
        check_choice("activation", self.activation, tuple(ACTIVATIONS))

    def channels_after(self, channels: int) -> int:
        """Return half of `channels`, which must be even."""
        if positive_int("channels", channels) % 2:
            raise SpecError(f"Gate halves the channels, but {channels} is odd: give the layer before it twice as many.")
        return channels // 2

    def forward(self, params: Mapping[str, Array], x: Any, execution: Execution) -> Any:
        """Gate features of any space, or a plain array of shape (batch, ..., channels)."""
        inner = Activation(self.activation)

        def gate(y: Array) -> Array:
            half = self.channels_after(y.shape[-1])
            gated: Array = inner.forward({}, y[..., :half], execution) * y[..., half:]
            return gated

        return _each(x, gate, axes=2)


@dataclass(frozen=True)
class Dropout(Layer):
    """Dropout of entries, or of whole channels of each tensor; active only where noise is given (training).

    Parameters
    ----------
    rate : float
        Probability of dropping, in [0, 1). What stays is divided by 1 - rate.
    drop : {"entries", "channels"}
        Entries independently, or all of a network's entries of one channel of one tensor together.

    Raises
    ------
    SpecError
        If the rate is outside [0, 1) or the choice is unknown.
    """

    rate: float
    drop: Literal["entries", "channels"] = "entries"

    def __post_init__(self) -> None:
        check_numbers(self, "[0, 1)", "rate")
        check_choice("drop", self.drop, ("entries", "channels"))

    def keeps_signs(self) -> bool:
        """Return True."""
        return True

    def forward(self, params: Mapping[str, Array], x: Any, execution: Execution) -> Any:
        """Drop from features of any space, or from a plain array."""
        return _each(x, lambda y: dropped(y, self.rate, execution, whole=self.drop == "channels"), axes=2)


def dropped(x: Array, rate: float, execution: Execution, whole: bool = False) -> Array:
    """Drop entries of an array (batch, ..., channels), or whole channels of a network, where the execution has noise."""
    noise = execution.noise
    if noise is None or rate == 0.0:
        return x
    xp = namespace_of(x)
    shape = (x.shape[0], *(1,) * (x.ndim - 2), x.shape[-1]) if whole else tuple(x.shape)
    return x * (xp.astype(noise(shape, x) >= rate, x.dtype) / (1.0 - rate))


@dataclass(frozen=True)
class LayerNorm(Layer):
    """Layer normalization over the channels of each entry, with a learned scale and shift for each tensor.

    Parameters
    ----------
    space : WeightSpace
        The space of the features.
    channels : int
        Number of channels.
    epsilon : float
        Added to the variance.

    Raises
    ------
    SpecError
        If the number of channels, or `epsilon`, is not positive.
    """

    space: WeightSpace
    channels: int
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        check_kind("space", self.space, WeightSpace)
        check_counts(self, "channels")
        check_numbers(self, "positive", "epsilon")

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return for each tensor a scale and a shift of shape (channels,)."""
        specs: dict[str, ParameterSpec] = {}
        for t in self.space.tensors:
            specs[f"{t.name}.scale"] = ParameterSpec((self.channels,), "constant", value=1.0)
            specs[f"{t.name}.shift"] = ParameterSpec((self.channels,), "constant", value=0.0)
        return specs

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Features:
        """Normalize every entry's channels."""
        xp = check_features(self.space, x, self.channels)
        out: Features = {}
        for name, y in x.items():
            wide = widened(y)
            wide = wide - xp.mean(wide, axis=-1, keepdims=True)
            wide = wide / xp.sqrt(xp.mean(wide * wide, axis=-1, keepdims=True) + self.epsilon)
            wide = wide * params[f"{name}.scale"] + params[f"{name}.shift"]
            out[name] = xp.astype(wide, y.dtype, copy=False)
        return out


@dataclass(frozen=True)
class Scale(Layer):
    """A learned factor for each tensor: the output scale γ of weight-space editing (paper, section D.4).

    Parameters
    ----------
    space : WeightSpace
        The space of the features.
    initial : float
        Initial value of every factor.

    Raises
    ------
    SpecError
        If `initial` is not a finite number.
    """

    space: WeightSpace
    initial: float = 0.01

    def __post_init__(self) -> None:
        check_kind("space", self.space, WeightSpace)
        check_numbers(self, "finite", "initial")

    def keeps_signs(self) -> bool:
        """Return True."""
        return True

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return for each tensor a factor of shape (1,)."""
        return {f"{t.name}.scale": ParameterSpec((1,), "constant", value=self.initial) for t in self.space.tensors}

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Features:
        """Multiply every tensor by its factor."""
        check_features(self.space, x)
        return {name: y * params[f"{name}.scale"] for name, y in x.items()}


@dataclass(frozen=True)
class Normalize(Layer):
    """Input normalization: each tensor's channels are centered and divided by their standard deviation in the data.

    The statistics are constants, stored beside the parameters; make the layer with `from_features`.

    Parameters
    ----------
    space : WeightSpace
        The space of the features.
    means, deviations : tuple of tuple of float
        For each tensor the mean and the standard deviation of each channel.

    Raises
    ------
    SpecError
        If there is not a mean and a positive deviation for each tensor and channel.
    """

    space: WeightSpace
    means: tuple[tuple[float, ...], ...]
    deviations: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        check_kind("space", self.space, WeightSpace)
        for field, within in (("means", "finite"), ("deviations", "positive")):
            rows = [plain_tuple(f"{field}[{i}]", row) for i, row in enumerate(plain_tuple(field, getattr(self, field)))]
            table = tuple(
                tuple(real_number(f"{field}[{i}][{k}]", x, within) for k, x in enumerate(row))
                for i, row in enumerate(rows)
            )
            object.__setattr__(self, field, table)
        counts = [len(row) for row in (*self.means, *self.deviations)]
        if len(self.means) != len(self.space.tensors) or len(self.deviations) != len(self.means) or 0 in counts:
            raise SpecError(
                f"means and deviations must have a row for each of the {len(self.space.tensors)} tensors, not "
                f"{len(self.means)} and {len(self.deviations)}, and no row may be empty."
            )
        if len(set(counts)) > 1:
            raise SpecError(f"means and deviations must have as many channels in each row, not {counts}.")

    @classmethod
    def from_features(cls, space: WeightSpace, features: Mapping[str, np.ndarray], center: bool = True) -> "Normalize":
        """Measure the statistics of training features.

        Parameters
        ----------
        space : WeightSpace
            The space of the features.
        features : mapping of str to numpy.ndarray
            All training networks, each tensor of shape (batch, *axes, channels), batch at least 1.
        center : bool
            Whether to subtract means. Without it channels are only divided by the root of their mean square, so that
            features that change their sign with a symmetry of the network still do.

        Returns
        -------
        Normalize
            The layer; channels that never vary (without centering: that are 0) are not scaled.

        Raises
        ------
        FeatureError
            If the features do not fit the space.
        SpecError
            If they are empty, or `space` is no weight space.
        """
        check_features(space, features, finite=True)
        center = boolean("center", center)
        means, deviations = [], []
        for t in space.tensors:
            x = on_host(t.name, features[t.name])
            if x.shape[0] == 0:
                raise SpecError("statistics need at least one network, but the batch is empty.")
            x = x.reshape(-1, x.shape[-1])
            mean = x.mean(axis=0) if center else np.zeros(x.shape[-1])
            deviation = x.std(axis=0) if center else np.sqrt(np.mean(x * x, axis=0))
            means.append(tuple(mean.tolist()))
            deviations.append(tuple(np.where(deviation > 0, deviation, 1.0).tolist()))
        return cls(space, tuple(means), tuple(deviations))

    def keeps_signs(self) -> bool:
        """Return whether nothing is subtracted."""
        return not any(map(any, self.means))

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return for each tensor the constants mean and deviation, of shape (channels,)."""
        specs: dict[str, ParameterSpec] = {}
        for t, mean, deviation in zip(self.space.tensors, self.means, self.deviations, strict=True):
            specs[f"{t.name}.mean"] = ParameterSpec((len(mean),), "constant", value=mean, trainable=False)
            specs[f"{t.name}.deviation"] = ParameterSpec((len(mean),), "constant", value=deviation, trainable=False)
        return specs

    def forward(self, params: Mapping[str, Array], x: Mapping[str, Array], execution: Execution) -> Features:
        """Center and scale every tensor."""
        check_features(self.space, x, len(self.means[0]))
        return {name: (y - params[f"{name}.mean"]) / params[f"{name}.deviation"] for name, y in x.items()}


def _each(value: Any, function: Callable[[Array], Array], axes: int = 0) -> Any:
    """Apply a function to every tensor of features, or to a plain array, of at least so many axes."""
    if not isinstance(value, Mapping):
        return function(_checked("", value, axes))
    if not value:
        raise FeatureError("the features hold no tensor: give a mapping from names to arrays.")
    return {name: function(_checked(name, x, axes)) for name, x in value.items()}


def _checked(name: str, x: Any, axes: int) -> Array:
    """An array of at least so many axes."""
    if not is_array(x) or x.ndim < axes:
        wanted = "an array of shape (batch, ..., channels)" if axes else "an array of an array API library"
        came = tuple(x.shape) if is_array(x) else f"{type(x).__name__}: convert it first"
        raise FeatureError(f"{f'tensor {name!r}' if name else 'features'}: expected {wanted}, not {came}.")
    check_real(f"tensor {name!r}" if name else "features", x)
    found: Array = x
    return found
