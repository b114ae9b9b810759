"""Base of all layers: frozen descriptions that list their parameters and apply themselves to arrays."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import Field, dataclass, field, fields, is_dataclass, replace
from math import prod
from typing import Any, Literal

from nfn_core.arrays import Array
from nfn_core.checks import check_counts, check_kind, positive_int, shown
from nfn_core.errors import FeatureError, SpecError
from nfn_core.groups import Group
from nfn_core.layers.hub_map import hub_map
from nfn_core.layers.parameters import ParameterSpec, check_parameters
from nfn_core.registry import describable
from nfn_core.spaces import WeightSpace

__all__ = ["ChannelMap", "Execution", "Init", "Layer", "Noise", "Recompute", "Statistics", "check_input_channels"]

Noise = Callable[[tuple[int, ...], Any], Array]
"""Uniform numbers in [0, 1): given a shape and an array, an array of that shape with its dtype and device."""

Recompute = Callable[[Callable[[Any, Any], Any], Any, Any], Any]
"""Given a function of parameters and a value, and these two, its result, of which nothing inside is kept: the backward
pass computes it again (activation checkpointing)."""

BatchNormalize = Callable[[Any, Any, Any, float], tuple[Array, Array, Array]]
"""See `Execution.batch_norm`."""

Statistics = Callable[[str, Any], None]
"""Takes the new value of a constant of a layer, by its name in that layer."""


def _nothing_to_turn_off(x: Array) -> AbstractContextManager[Any]:
    """A context manager that does nothing."""
    return nullcontext()


@dataclass(frozen=True)
class Execution:
    """How a backend executes layers.

    Parameters
    ----------
    noise : callable, optional
        Source of uniform numbers for dropout; without it (evaluation) nothing is dropped.
    hub_map : callable
        The linear part of NF-layers: `nfn_core.layers.hub_map.hub_map`, or the same with a derivative of its own.
    activations : mapping of str to callable
        The backend's own functions in place of `ACTIVATIONS` of that name, with the same values and derivatives.
    recompute : callable, optional
        How to run a segment of a network so that the backward pass computes its activations again.
    checkpoint : int, optional
        Number of NF-layers in such a segment; by default all activations are kept.
    statistics : callable, optional
        Collects the new constants of layers that normalize by the statistics of the batch (training); without it
        (evaluation) they normalize by their constants.
    total : callable, optional
        Sums an array over all devices that share a batch; by default there is one.
    batch_norm : callable, optional
        Normalizes an array (..., channels) by its own statistics: from array, scale, shift and the number added to the
        variance to the array, its mean and its variance, each (channels,). By default layers do it themselves.
    full_precision : callable
        Given an array of a product that goes into a sine or cosine, a context manager in which no backend takes products in
        half precision (autocast).

    Raises
    ------
    SpecError
        If `checkpoint` is not a positive integer, `activations` are no mapping, or another argument is no function.
    """

    noise: Noise | None = None
    hub_map: Callable[..., list[Array]] = hub_map
    activations: Mapping[str, Callable[[Array], Array]] = field(default_factory=dict)
    recompute: Recompute | None = None
    checkpoint: int | None = None
    statistics: Statistics | None = None
    total: Callable[[Array], Array] | None = None
    batch_norm: BatchNormalize | None = None
    full_precision: Callable[[Array], AbstractContextManager[Any]] = _nothing_to_turn_off

    def __post_init__(self) -> None:
        if self.checkpoint is not None:
            check_counts(self, "checkpoint")
        check_kind("activations", self.activations, Mapping)
        for name in ("noise", "recompute", "statistics", "total", "batch_norm"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise SpecError(f"{name} must be a function or None, not {shown(value)}.")
        for name in ("hub_map", "full_precision"):
            if not callable(getattr(self, name)):
                raise SpecError(f"{name} must be a function, not {shown(getattr(self, name))}.")

    def within(self, child: str) -> "Execution":
        """Return the same for a child, whose constants carry its name in front."""
        collect = self.statistics
        if collect is None:
            return self
        return replace(self, statistics=lambda name, value: collect(f"{child}.{name}", value))


Init = Literal["uniform", "kaiming"]


class Layer:
    """Base of all layers. A subclass is a frozen dataclass with `parameter_specs` and `forward`."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        describable(cls)
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = cls.__repr__  # type: ignore[method-assign]  # keeps dataclass from writing its own

    def __repr__(self) -> str:
        """Class, arguments that are not the default, and number of parameters."""
        count = [self.shown_count()] if self.parameter_count else []
        return f"{type(self).__name__}({', '.join([*self.shown_arguments(), *count])})"

    def tree(self) -> str:
        """Return `repr` with a line for each parameter and constant below it: name and shape."""
        return "\n  ".join([repr(self), *(f"{name} {spec.shape}" for name, spec in self.cached_specs.items())])

    def shown_arguments(self) -> list[str]:
        """Return the arguments that `repr` shows; weight spaces and long tuples are left out."""
        shown = []
        described: tuple[Field[Any], ...] = fields(self) if is_dataclass(self) else ()
        for f in described:
            value = getattr(self, f.name)
            long = isinstance(value, tuple) and len(repr(value)) > 40
            if isinstance(value, Group):
                shown.append(value.name)
            elif f.init and value != f.default and not long and not isinstance(value, WeightSpace):
                shown.append(f"{f.name}={value!r}")
        return shown

    def shown_count(self) -> str:
        """Return the number of parameters in words."""
        return f"{self.parameter_count:,} parameter{'' if self.parameter_count == 1 else 's'}"

    @property
    def parameter_count(self) -> int:
        """Number of trained parameters."""
        return sum(prod(spec.shape) for spec in self.cached_specs.values() if spec.trainable)

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return the parameters the layer needs, by dotted name; by default none."""
        return {}

    @property
    def cached_specs(self) -> Mapping[str, ParameterSpec]:
        """The parameters the layer needs: `parameter_specs`, called once for each layer. Not to be changed."""
        known: dict[str, ParameterSpec] | None = self.__dict__.get("_specs")
        if known is None:  # not functools.cached_property, whose lock torch.compile cannot trace
            known = self.parameter_specs()
            check_kind("parameter_specs()", known, Mapping)
            for name, spec in known.items():
                check_kind(f"parameter_specs()[{name!r}]", spec, ParameterSpec)
            object.__setattr__(self, "_specs", known)
        return known

    def keeps_signs(self) -> bool:
        """Return whether entries whose sign changes in the input change it in the output, and no others.

        Layers between those of a group with signs must: an odd activation does, and a norm that does not shift. By default
        a layer does not.
        """
        return False

    def channels_after(self, channels: int) -> int:
        """Return the number of output channels for a number of input channels.

        Parameters
        ----------
        channels : int
            Channels of the input.

        Returns
        -------
        int
            Channels of the output.

        Raises
        ------
        SpecError
            If it is no positive integer, or the layer takes another number of channels.
        """
        return positive_int("channels", channels)

    def forward(self, params: Mapping[str, Array], x: Any, execution: Execution) -> Any:
        """Apply the layer to a value, with parameters already checked; see `apply`."""
        raise NotImplementedError(f"{type(self).__name__} has no forward: define how the layer is applied.")

    def apply(self, params: Mapping[str, Array], features: Any, execution: Execution = Execution()) -> Any:
        """Apply the layer: a pure function of arrays.

        Parameters
        ----------
        params : mapping of str to array
            Parameters by dotted name, as `parameter_specs` lists them, of the features' library, dtype and device.
        features : mapping of str to array, or array
            The layer's input: features, each tensor of shape (batch, *axes, channels), or the output of the previous layer.
        execution : Execution
            What the backend provides: noise for dropout, derivatives of its own.

        Returns
        -------
        dict of str to array, or array
            The layer's output, of the features' library, dtype and device.

        Raises
        ------
        ParameterError
            If the parameters are not this layer's.
        FeatureError
            If the features do not fit.
        SpecError
            If `execution` is no Execution.
        """
        check_kind("execution", execution, Execution)
        if features is None:
            raise FeatureError("features must be arrays by name, or an array, not None.")
        check_parameters(self.cached_specs, params, features)
        return self.forward(params, features, execution)


class ChannelMap(Layer):
    """Base of layers whose arguments say how many channels they take, and how many they give."""

    in_channels: int
    out_channels: int

    def channels_after(self, channels: int) -> int:
        """Return `out_channels`."""
        check_input_channels(self, self.in_channels, channels)
        return self.out_channels


def check_input_channels(layer: Layer, expected: int, channels: int) -> None:
    """Check that a layer takes the channels of the previous layer's output.

    Parameters
    ----------
    layer : Layer
        The layer.
    expected : int
        Channels that it takes.
    channels : int
        Channels of the previous layer's output.

    Raises
    ------
    SpecError
        If the two differ, or `channels` is not a positive integer.
    """
    if positive_int("channels", channels) != expected:
        raise SpecError(f"{type(layer).__name__} takes {expected} channels, but the layer before it gives {channels}.")
