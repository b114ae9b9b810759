"""Normalization by statistics of a batch or of a network: batch norm with running statistics, set and instance norm.

Batch norm is the one layer with state, and the state is not here: in training it normalizes by the batch and hands the
new running statistics to `Execution.statistics`; without that it normalizes by its constants. The adapters keep them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from nfn_core.arrays import Array, Features, is_array, namespace_of, widened
from nfn_core.checks import check_counts, check_flags, check_kind, check_numbers
from nfn_core.errors import FeatureError
from nfn_core.features import check_features
from nfn_core.layers.base import Execution, Layer, Statistics, check_input_channels
from nfn_core.layers.parameters import ParameterSpec
from nfn_core.spaces import WeightSpace

__all__ = ["BatchNorm", "InstanceNorm", "SetNorm"]


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Batch normalization with running statistics (Ioffe and Szegedy, ICML 2015).

    Each channel of each tensor is centered and scaled by its mean and variance over all networks and entries; features
    of a neuron space are normalized in the same way. Without a space, each entry of an array of shape
    (batch, ...) is a channel, as for pooled invariants.

    In training the statistics are those of the batch, in float32 or wider, over all devices where `Execution.total` is
    given. A channel with a single value (one network's invariants) has no variance: it is normalized by the running
    statistics, which then stay as they are. Under a vectorizing map each mapped call is a batch of its own, unless
    `Execution.total` sums over the map. In evaluation the layer is affine, and members of a batch do not meet.

    Parameters
    ----------
    space : WeightSpace or None
        The space of the features, or None for arrays.
    channels : int
        Channels of the features; for arrays the number of entries of a network.
    momentum : float
        Weight of the batch in the new running statistics, in (0, 1].
    epsilon : float
        Added to the variance.
    center : bool
        Whether to subtract the mean and to learn a shift. Without it channels are only divided by the root of their mean
        square, so that features that change their sign with a symmetry of the network still do.

    Raises
    ------
    SpecError
        If a number is out of range.

    Examples
    --------
    >>> from nfn_core import WeightSpace, initialize
    >>> layer = BatchNorm(WeightSpace.mlp([2, 3, 1]), channels=4)
    >>> sorted(initialize(layer, seed=0))[:4]
    ['W1.mean', 'W1.scale', 'W1.shift', 'W1.variance']
    """

    space: WeightSpace | None
    channels: int
    momentum: float = 0.1
    epsilon: float = 1e-5
    center: bool = True

    def __post_init__(self) -> None:
        check_kind("space", self.space, WeightSpace | None)
        check_counts(self, "channels")
        check_numbers(self, "(0, 1]", "momentum")
        check_numbers(self, "positive", "epsilon")
        check_flags(self, "center")

    def keeps_signs(self) -> bool:
        """Return whether it does not center."""
        return not self.center

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return scale, shift and the constants mean and variance, each of shape (channels,), for each tensor."""
        specs: dict[str, ParameterSpec] = {}
        for front in _fronts(self.space):
            specs[f"{front}scale"] = ParameterSpec((self.channels,), "constant", value=1.0)
            if self.center:
                specs[f"{front}shift"] = ParameterSpec((self.channels,), "constant", value=0.0)
                specs[f"{front}mean"] = ParameterSpec((self.channels,), "constant", value=0.0, trainable=False)
            specs[f"{front}variance"] = ParameterSpec((self.channels,), "constant", value=1.0, trainable=False)
        return specs

    def channels_after(self, channels: int) -> int:
        """Return `channels`, which must be the layer's where it has a space."""
        if self.space is not None:
            check_input_channels(self, self.channels, channels)
        return channels

    def forward(self, params: Mapping[str, Array], x: Any, execution: Execution) -> Any:
        """Normalize features, or an array."""
        if self.space is None:
            if not is_array(x) or x.ndim < 1 or prod(x.shape[1:]) != self.channels:
                raise FeatureError(
                    f"batch norm: expected an array of {self.channels} entries a network, not {_came(x)}."
                )
            flat = namespace_of(x).reshape(x, (x.shape[0], self.channels))
            return namespace_of(x).reshape(self._all({"": flat}, params, execution)[""], tuple(x.shape))
        check_features(self.space, x, self.channels)
        out = self._all({f"{name}.": y for name, y in x.items()}, params, execution)
        return {name: out[f"{name}."] for name in x}

    def _all(self, arrays: dict[str, Array], params: Mapping[str, Array], execution: Execution) -> dict[str, Array]:
        """Normalize arrays of shape (..., channels), by the names that their parameters have in front."""
        xp = namespace_of(*arrays.values())
        variances = {f: widened(params[f"{f}variance"]) for f in arrays}
        wide = {f: xp.astype(x, variances[f].dtype, copy=False) for f, x in arrays.items()}  # differs under autocast
        means = {f: widened(params[f"{f}mean"]) if self.center else xp.zeros_like(v) for f, v in variances.items()}
        statistics, native = execution.statistics, None
        if statistics is not None:

            def collect(name: str, value: Array) -> None:
                statistics(name, xp.astype(value, params[name].dtype, copy=False))

            native = execution.batch_norm if self.center and execution.total is None else None
            if native is None:
                means, variances = self._measured(wide, means, variances, collect, execution.total)
        out = {}
        for f, x in wide.items():
            count = prod(x.shape[:-1])
            if native is not None and count > 1:
                scale, shift = (widened(params[f"{f}{name}"]) for name in ("scale", "shift"))
                y, mean, variance = native(x, scale, shift, self.epsilon)
                self._collect(f, count, (mean, variance), (means[f], variances[f]), collect)
            else:
                gain = params[f"{f}scale"] / xp.sqrt(variances[f] + self.epsilon)
                y = (x - means[f]) * gain + params[f"{f}shift"] if self.center else x * gain
            out[f] = xp.astype(y, arrays[f].dtype, copy=False)
        return out

    def _measured(
        self,
        arrays: dict[str, Array],
        means: dict[str, Array],
        variances: dict[str, Array],
        collect: Statistics,
        over_devices: Callable[[Array], Array] | None,
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        """Means and variances of the batch, on all devices; new running statistics are handed over.

        With one device the number of values is a plain integer. With several it is summed as an array, since batches of
        different sizes may meet.
        """
        xp = namespace_of(*arrays.values())
        total = over_devices or (lambda x: x)
        fronts = list(arrays)
        counts: dict[str, Any] = {f: prod(arrays[f].shape[:-1]) for f in fronts}
        if over_devices is None and min(counts.values()) < 2:
            fronts = [f for f in fronts if counts[f] > 1]
            if not fronts:
                return means, variances
        axes = {f: tuple(range(arrays[f].ndim - 1)) for f in fronts}
        sums = total(xp.stack([xp.sum(arrays[f], axis=axes[f]) for f in fronts]))
        if over_devices is not None:
            ones = [xp.sum(xp.ones_like(arrays[f][..., :1])) for f in fronts]
            counted = total(xp.stack(ones))
            counts = {f: counted[k] for k, f in enumerate(fronts)}
        found = {f: sums[k, :] / _at_least_1(counts[f], xp) for k, f in enumerate(fronts)}
        if not self.center:
            found = {f: xp.zeros_like(x) for f, x in found.items()}
        deviations = {f: arrays[f] - found[f] for f in fronts}
        squares = total(xp.stack([xp.sum(deviations[f] * deviations[f], axis=axes[f]) for f in fronts]))
        spread = {f: squares[k, :] / _at_least_1(counts[f], xp) for k, f in enumerate(fronts)}
        new_means, new_variances = dict(means), dict(variances)
        for f in fronts:
            measured, running = (found[f], spread[f]), (means[f], variances[f])
            new_means[f], new_variances[f] = self._collect(f, counts[f], measured, running, collect)
        return new_means, new_variances

    def _collect(
        self, front: str, count: Any, measured: tuple[Array, Array], running: tuple[Array, Array], collect: Statistics
    ) -> tuple[Array, Array]:
        """Hand over new running statistics; mean and variance to normalize by, the running ones if there is one value."""
        xp, m = namespace_of(*measured), self.momentum
        unbiased = measured[1] * (count / _at_least_1(count - 1, xp)) if self.center else measured[1]
        updates = (1 - m) * running[0] + m * measured[0], (1 - m) * running[1] + m * unbiased
        if not isinstance(count, int):  # over several devices

            def if_enough(pair: tuple[Array, Array]) -> tuple[Array, Array]:
                return xp.where(count > 1, pair[0], running[0]), xp.where(count > 1, pair[1], running[1])

            measured, updates = if_enough(measured), if_enough(updates)
        if self.center:
            collect(f"{front}mean", updates[0])
        collect(f"{front}variance", updates[1])
        return measured


@dataclass(frozen=True)
class SetNorm(Layer):
    """Set normalization (Zhang et al., ICML 2022, section 4.1): of each network by itself, without state.

    Each tensor of each network is centered and scaled by its mean and variance over all entries and channels together,
    then each channel has a learned scale and shift. What is left of a network's own scale is its channels' relations.

    Parameters
    ----------
    space : WeightSpace or None
        The space of the features, or None for arrays of shape (batch, ..., channels).
    channels : int
        Channels.
    epsilon : float
        Added to the variance.

    Raises
    ------
    SpecError
        If `channels` is not a positive integer, or `epsilon` not a positive number.
    """

    space: WeightSpace | None
    channels: int
    epsilon: float = 1e-5
    over_channels: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_kind("space", self.space, WeightSpace | None)
        check_counts(self, "channels")
        check_numbers(self, "positive", "epsilon")

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return for each tensor a scale and a shift of shape (channels,)."""
        specs: dict[str, ParameterSpec] = {}
        for front in _fronts(self.space):
            specs[f"{front}scale"] = ParameterSpec((self.channels,), "constant", value=1.0)
            specs[f"{front}shift"] = ParameterSpec((self.channels,), "constant", value=0.0)
        return specs

    def channels_after(self, channels: int) -> int:
        """Return `channels`, which must be the layer's."""
        check_input_channels(self, self.channels, channels)
        return channels

    def forward(self, params: Mapping[str, Array], x: Any, execution: Execution) -> Any:
        """Normalize every network."""
        if self.space is None:
            if not is_array(x) or x.ndim < 2 or x.shape[-1] != self.channels:
                raise FeatureError(f"norm: expected an array of shape (batch, ..., {self.channels}), not {_came(x)}.")
            return self._one(x, params, "")
        check_features(self.space, x, self.channels)
        out: Features = {name: self._one(y, params, f"{name}.") for name, y in x.items()}
        return out

    def _one(self, x: Array, params: Mapping[str, Array], front: str) -> Array:
        """Normalize an array of shape (batch, ..., channels)."""
        xp = namespace_of(x)
        axes = tuple(range(1, x.ndim)) if self.over_channels else tuple(range(1, x.ndim - 1))
        y = widened(x)
        y = y - xp.mean(y, axis=axes, keepdims=True)
        y = y / xp.sqrt(xp.mean(y * y, axis=axes, keepdims=True) + self.epsilon)
        return xp.astype(y * params[f"{front}scale"] + params[f"{front}shift"], x.dtype, copy=False)


@dataclass(frozen=True)
class InstanceNorm(SetNorm):
    """Instance normalization (Ulyanov et al., 2016, arXiv:1607.08022): of each network and channel by itself.

    Each channel of each tensor of each network is centered and scaled by its mean and variance over all entries, then it
    has a learned scale and shift. What a hub sends to all entries alike is gone, so this suits outputs that differ from
    entry to entry (masks, edits), also in batches of one network. The output for a tensor of one entry is the shift.

    Parameters
    ----------
    space : WeightSpace or None
        The space of the features, or None for arrays of shape (batch, ..., channels).
    channels : int
        Channels.
    epsilon : float
        Added to the variance.

    Raises
    ------
    SpecError
        If `channels` is not a positive integer, or `epsilon` not a positive number.
    """

    over_channels: ClassVar[bool] = False


def _fronts(space: WeightSpace | None) -> list[str]:
    """What parameters' names carry in front: the tensor's name and a dot, nothing for arrays."""
    return [""] if space is None else [f"{t.name}." for t in space.tensors]


def _came(x: Any) -> str:
    """What came in place of an array, for messages."""
    return f"shape {tuple(x.shape)}" if is_array(x) else "features" if isinstance(x, Mapping) else type(x).__name__


def _at_least_1(count: Any, xp: Any) -> Any:
    """A number of values, at least 1."""
    return max(count, 1) if isinstance(count, int) else xp.where(count > 1, count, xp.ones_like(count))
