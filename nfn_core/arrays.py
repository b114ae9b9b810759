"""Arrays of any library, and their namespaces."""

from typing import Any, TypeAlias

import array_api_compat

from nfn_core.errors import FeatureError

__all__ = ["Array", "Features", "device_of", "is_array", "namespace_of", "same_device"]

Array: TypeAlias = Any
"""An array of any library that follows the Python array API standard."""

Features: TypeAlias = dict[str, Array]
"""Weight-space features: for each tensor an array of shape (batch, *axes, channels)."""

_NAMESPACES: dict[type, Any] = {}  # by array type; compilers trace this look-up, and not array-api-compat's own caches


def namespace_of(*arrays: Array) -> Any:
    """Array API namespace of some arrays of one library.

    Parameters
    ----------
    *arrays : array
        Arrays of one library.

    Returns
    -------
    module
        The namespace, through array-api-compat.

    Raises
    ------
    FeatureError
        If a value is no array, or the arrays belong to different libraries.
    """
    known = [_NAMESPACES.get(type(x)) for x in arrays]
    if known[0] is not None and all(xp is known[0] for xp in known):
        return known[0]
    for x in arrays:
        if not array_api_compat.is_array_api_obj(x):
            raise FeatureError(f"expected an array of an array API library, not {type(x).__name__}: convert it first.")
    try:
        found = array_api_compat.array_namespace(*arrays)
    except TypeError as error:
        kinds = sorted({f"{type(x).__module__}.{type(x).__name__}" for x in arrays})
        raise FeatureError(
            f"arrays of one library are needed, but {' and '.join(kinds)} came: convert them."
        ) from error
    _NAMESPACES.update(dict.fromkeys(map(type, arrays), found))
    return found


def is_array(x: Any) -> bool:
    """Whether a value is an array of an array API library."""
    return type(x) in _NAMESPACES or array_api_compat.is_array_api_obj(x)


def device_of(x: Array) -> Any:
    """Device of an array, None where it is not known (an array being traced by JAX)."""
    return getattr(x, "device", None)


def same_device(x: Array, y: Array) -> bool:
    """Whether two arrays may meet: one device, or one that is not known."""
    devices = (device_of(x), device_of(y))
    return None in devices or devices[0] == devices[1]
