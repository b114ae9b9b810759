"""The check that every layer makes of the features it is given."""

from collections.abc import Mapping
from typing import Any

from nfn_core.arrays import Array, Namespace, is_array, is_dense, is_real, namespace_of, same_device
from nfn_core.checks import boolean, check_kind, positive_int
from nfn_core.errors import FeatureError
from nfn_core.spaces import WeightSpace

__all__ = ["check_features", "check_real"]


def check_features(
    space: WeightSpace, features: Mapping[str, Array], channels: int | None = None, *, finite: bool = False
) -> Namespace:
    """Check that features fit a weight space, and return their array namespace.

    Parameters
    ----------
    space : WeightSpace
        The space whose features are expected.
    features : mapping of str to array
        For each tensor an array of shape (batch, *axes, channels), all of one real floating dtype and one device.
    channels : int, optional
        Number of channels expected; by default whatever the first tensor has.
    finite : bool
        Also check for NaN and infinity, which reads every entry (and cannot be done inside a traced function).

    Returns
    -------
    module
        The array API namespace of the features.

    Raises
    ------
    FeatureError
        If names, ranks, sizes, channels, dtypes, libraries or devices are wrong, an array is sparse, nested or masked, or
        a value is not finite.
    SpecError
        If `space` is no weight space.
    """
    check_kind("space", space, WeightSpace)
    finite = boolean("finite", finite)
    if channels is not None and type(channels) is not int:
        channels = positive_int("channels", channels)
    if not isinstance(features, Mapping):
        raise FeatureError(
            f"features must be a mapping from tensor names to arrays, not {type(features).__name__}: "
            f"give {{name: array}} for {_names(space.by_name)}."
        )
    if features.keys() != space.by_name.keys():
        missing = [name for name in space.by_name if name not in features]
        extra = [name for name in features if name not in space.by_name]
        raise FeatureError(
            f"features must hold the {len(space.tensors)} tensors {_names(space.by_name)}, but {len(features)} came"
            + (f"; missing: {_names(missing)}" if missing else "")
            + (f"; not in the space: {_names(extra)}" if extra else "")
            + ". Rename, add or drop them."
        )
    first_name = space.tensors[0].name
    first = features[first_name]
    for name in space.by_name:
        if not is_array(features[name]):
            raise FeatureError(
                f"tensor {name!r}: expected an array of an array API library, not {type(features[name]).__name__}: "
                "convert it first."
            )
    xp = namespace_of(*(features[name] for name in space.by_name))
    for t in space.tensors:
        x = features[t.name]
        if not is_dense(x):
            raise FeatureError(f"tensor {t.name!r} is sparse or nested: make it a dense array.")
        if x.ndim != len(t.shape) + 2:
            raise FeatureError(
                f"tensor {t.name!r}: expected {len(t.shape) + 2} axes {_expected(t.shape)}, but its shape is "
                f"{tuple(x.shape)}: features carry a batch axis in front and a channel axis at the end."
            )
        for axis, (size, label) in enumerate(zip(t.shape, t.labels, strict=True), start=1):
            if x.shape[axis] != size:
                meaning = "a fixed axis" if label is None else f"neuron set {label!r}"
                raise FeatureError(
                    f"tensor {t.name!r}, axis {axis} ({meaning}): expected size {size}, but the shape is "
                    f"{tuple(x.shape)}, expected {_expected(t.shape)}."
                )
        wanted = first.shape[-1] if channels is None else channels
        if x.shape[-1] != wanted:
            raise FeatureError(
                f"tensor {t.name!r}: expected {wanted} channels on the last axis, but its shape is {tuple(x.shape)}: "
                "add the channel axis or mix the channels first."
            )
        if x.shape[0] != first.shape[0]:
            raise FeatureError(
                f"tensor {t.name!r}: batch size {x.shape[0]} differs from {first.shape[0]} of tensor {first_name!r}."
            )
        if not is_real(x, xp):
            raise FeatureError(
                f"tensor {t.name!r}: expected a real floating dtype, not {x.dtype}: cast it, nothing is cast silently."
            )
        if x.dtype != first.dtype:
            raise FeatureError(
                f"tensor {t.name!r} has dtype {x.dtype}, but tensor {first_name!r} has {first.dtype}: "
                "cast all tensors to one dtype."
            )
        if not same_device(x, first):
            raise FeatureError(
                f"tensor {t.name!r} is on device {x.device}, but tensor {first_name!r} on {first.device}: "
                "move all tensors to one device."
            )
        if finite and not _all_finite(t.name, x, xp):
            raise FeatureError(f"tensor {t.name!r} holds NaN or infinity: remove such networks from the batch.")
    return xp


def _all_finite(name: str, x: Array, xp: Namespace) -> bool:
    """Whether no entry is NaN or infinite."""
    try:
        return bool(xp.all(xp.isfinite(x)))
    except Exception as error:  # each library has an error of its own for an array without values
        raise FeatureError(
            f"tensor {name!r} has no values to look at ({type(error).__name__}): it is on device meta, or being traced."
        ) from error


def _names(names: Any) -> str:
    """Names for a message, shortened."""
    names = [repr(n) for n in names]
    return ", ".join(names[:8]) + (f", ... ({len(names)} in all)" if len(names) > 8 else "")


def _expected(shape: tuple[int, ...]) -> str:
    """Feature shape of a tensor, for messages."""
    return "(" + ", ".join(["batch", *map(str, shape), "channels"]) + ")"


def check_real(where: str, x: Array) -> None:
    """Check that the entries of an array are real floating numbers.

    Parameters
    ----------
    where : str
        What it is, for the message.
    x : array
        The array.

    Raises
    ------
    FeatureError
        If they are not.
    """
    if not is_real(x, namespace_of(x)):
        raise FeatureError(f"{where} must be of a real floating dtype, not {x.dtype}: cast it first.")
