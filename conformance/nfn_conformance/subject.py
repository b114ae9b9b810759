"""What a user brings to be tested: any layer, ours or not, as a `Subject`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nfn_core import Group, SpecError
from nfn_core.checks import check_counts, check_flags, check_kind, shown

__all__ = ["NumpyFeatures", "Output", "Subject", "check_callable"]

NumpyFeatures = dict[str, np.ndarray]
Output = Mapping[str, np.ndarray] | np.ndarray


@dataclass(frozen=True)
class Subject:
    """A layer under test. NumPy arrays go in and out; the functions convert as they like.

    Parameters
    ----------
    name : str
        Name in reports.
    group : Group
        The group it claims to respect, with the weight space of its input (and of its output, if equivariant).
    make : callable
        From an integer seed to a freshly drawn layer, any object.
    apply : callable
        From layer and features (tensors of shape (batch, *axes, in_channels)) to features with `out_channels`, or to
        an array of shape (batch, ...) if `invariant`. Should keep the dtype, float32 and float64.
    in_channels, out_channels : int
        Numbers of channels.
    invariant : bool
        Claims f(σU) = f(U) and returns an array, not features.
    linear : bool
        Claims to be affine; maximality, constants and linearity are checked of these only.
    maximal : bool
        Claims to be every affine map that respects the group.
    redundant : bool
        Admits that parameters exceed the rank (repeated labels on very small sets).
    parameters : callable, optional
        From layer to its number of linear parameters, constants not counted.
    vjp : callable, optional
        From layer, features and cotangent features to the gradient features.
    compiled : callable, optional
        As `apply`, through the framework's compiler; without it, if `apply` is compiled.
    round_trip : callable, optional
        From layer and an empty folder to the layer saved there and loaded again.
    target : Group, optional
        The same group on the weight space of the output, if that is another.
    on_group : callable, optional
        From a group on the same tensors with larger neuron sets to the subject there, whose `make` gives the same
        parameters; for layers that pool by means.

    Raises
    ------
    SpecError
        If a field is of another kind.
    """

    name: str
    group: Group
    make: Callable[[int], Any]
    apply: Callable[[Any, NumpyFeatures], Output]
    in_channels: int = 1
    out_channels: int = 1
    invariant: bool = False
    linear: bool = False
    maximal: bool = False
    redundant: bool = False
    parameters: Callable[[Any], int] | None = None
    vjp: Callable[[Any, NumpyFeatures, Output], NumpyFeatures] | None = None
    compiled: Callable[[Any, NumpyFeatures], Output] | None = None
    round_trip: Callable[[Any, Path], Any] | None = None
    target: Group | None = None
    on_group: "Callable[[Group], Subject] | None" = None

    def __post_init__(self) -> None:
        check_kind("name", self.name, str)
        check_kind("group", self.group, Group)
        check_kind("target", self.target, Group | None)
        check_counts(self, "in_channels", "out_channels")
        check_flags(self, "invariant", "linear", "maximal", "redundant")
        for name in ("make", "apply"):
            check_callable(name, getattr(self, name))
        for name in ("parameters", "vjp", "compiled", "round_trip", "on_group"):
            if getattr(self, name) is not None:
                check_callable(name, getattr(self, name))


def check_callable(name: str, value: Any) -> None:
    """Raise a SpecError that names an argument unless it can be called."""
    if not callable(value):
        raise SpecError(f"{name} must be a function or module, not {shown(value)}.")
