"""Base of all layers: frozen descriptions that say which parameters they need and apply themselves to arrays."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nfn_core.arrays import Array
from nfn_core.errors import SpecError
from nfn_core.layers.hub_map import hub_map
from nfn_core.layers.parameters import ParameterSpec, check_parameters

__all__ = ["Execution", "Init", "Layer", "Noise", "Recompute", "check_choice", "check_positive"]

Noise = Callable[[tuple[int, ...], Array], Array]
"""Uniform numbers in [0, 1): given a shape and an array, an array of that shape with its dtype and device."""

Recompute = Callable[[Callable[[Any, Any], Any], Any, Any], Any]
"""Given a function of parameters and a value, and these two, its result, of which nothing inside is kept: the backward
pass computes it again (activation checkpointing)."""


@dataclass(frozen=True)
class Execution:
    """How a backend carries layers out.

    Parameters
    ----------
    noise : callable, optional
        Source of uniform numbers for dropout; without it (evaluation) nothing is dropped.
    hub_map : callable
        The linear part of NF-layers: `nfn_core.layers.hub_map.hub_map`, or the same with a derivative of its own.
    activations : mapping of str to callable
        The backend's own functions in place of `ACTIVATIONS` of that name, with the same values and derivatives.
    recompute : callable, optional
        How a segment of a network is carried out whose activations are computed again in the backward pass.
    checkpoint : int, optional
        Number of NF-layers in such a segment; without it all activations are kept.

    Raises
    ------
    SpecError
        If `checkpoint` is not a positive integer.
    """

    noise: Noise | None = None
    hub_map: Callable[..., list[Array]] = hub_map
    activations: Mapping[str, Callable[[Array], Array]] = field(default_factory=dict)
    recompute: Recompute | None = None
    checkpoint: int | None = None

    def __post_init__(self) -> None:
        if self.checkpoint is not None:
            check_positive(checkpoint=self.checkpoint)


Init = Literal["uniform", "kaiming"]


class Layer:
    """Base of all layers. A subclass is a frozen dataclass with `parameter_specs` and `forward`."""

    def parameter_specs(self) -> dict[str, ParameterSpec]:
        """Return the parameters the layer needs, by dotted name; none unless a layer says so."""
        return {}

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
            If the layer takes another number of channels.
        """
        return channels

    def forward(self, params: Mapping[str, Array], x: Any, execution: Execution) -> Any:
        """Apply the layer to a value, with parameters already checked; see `apply`."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it is applied: define forward.")

    def apply(self, params: Mapping[str, Array], features: Any, execution: Execution = Execution()) -> Any:
        """Apply the layer: a pure function of arrays.

        Parameters
        ----------
        params : mapping of str to array
            Parameters by dotted name, as `parameter_specs` lists them, of the features' library, dtype and device.
        features : mapping of str to array, or array
            The layer's input: features, each tensor of shape (batch, *axes, channels), or what the layer before returns.
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
        """
        check_parameters(self.parameter_specs(), params, features)
        return self.forward(params, features, execution)


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise a SpecError unless `value` is one of `choices`."""
    if value not in choices:
        raise SpecError(f"{name} must be one of {', '.join(map(repr, choices))}, not {value!r}.")


def check_positive(**counts: Any) -> None:
    """Raise a SpecError unless every count is a positive integer."""
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise SpecError(f"{name} must be a positive integer, not {count!r}.")
