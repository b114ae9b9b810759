"""Arrays of any library, and their namespaces."""

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, TypeVar

import array_api_compat

from nfn_core.errors import FeatureError

__all__ = [
    "AnyArray",
    "Array",
    "Features",
    "Namespace",
    "device_of",
    "is_array",
    "is_dense",
    "is_jax",
    "is_real",
    "namespace_of",
    "same_device",
    "widened",
]


class Array(Protocol):
    """An array of any library that follows the Python array API standard: of NumPy, PyTorch, JAX, ...

    It has what the standard and these libraries have in common; a type checker accepts their arrays where one is wanted.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of its axes."""
        ...

    @property
    def ndim(self) -> int:
        """Number of its axes."""
        ...

    @property
    def dtype(self) -> Any:
        """Type of its entries, of its own library."""
        ...

    @property
    def device(self) -> Any:
        """Where its entries are, of its own library."""
        ...

    @property
    def T(self) -> "Array":  # noqa: N802
        """Transpose of a matrix."""
        ...

    def __getitem__(self, key: Any, /) -> "Array": ...
    def __float__(self) -> float: ...
    def __neg__(self) -> "Array": ...
    def __add__(self, other: Any, /) -> "Array": ...
    def __radd__(self, other: Any, /) -> "Array": ...
    def __sub__(self, other: Any, /) -> "Array": ...
    def __rsub__(self, other: Any, /) -> "Array": ...
    def __mul__(self, other: Any, /) -> "Array": ...
    def __rmul__(self, other: Any, /) -> "Array": ...
    def __truediv__(self, other: Any, /) -> "Array": ...
    def __rtruediv__(self, other: Any, /) -> "Array": ...
    def __pow__(self, other: Any, /) -> "Array": ...
    def __matmul__(self, other: Any, /) -> "Array": ...
    def __lt__(self, other: Any, /) -> "Array": ...
    def __le__(self, other: Any, /) -> "Array": ...
    def __gt__(self, other: Any, /) -> "Array": ...
    def __ge__(self, other: Any, /) -> "Array": ...


AnyArray = TypeVar("AnyArray", bound=Array)
"""Arrays of one library: a function of it returns what it takes."""

Operation: TypeAlias = Callable[..., Array]
"""A function of an array library that returns an array."""


class Namespace(Protocol):
    """Functions of an array library by the names of the Python array API standard. Those the core calls are listed."""

    abs: Operation
    all: Operation
    asarray: Operation
    astype: Operation
    broadcast_to: Operation
    concat: Operation
    cos: Operation
    exp: Operation
    expand_dims: Operation
    eye: Operation
    full_like: Operation
    isfinite: Operation
    linspace: Operation
    log: Operation
    log1p: Operation
    logaddexp: Operation
    matmul: Operation
    max: Operation
    mean: Operation
    ones_like: Operation
    permute_dims: Operation
    reshape: Operation
    sign: Operation
    sin: Operation
    sqrt: Operation
    stack: Operation
    sum: Operation
    take: Operation
    take_along_axis: Operation
    tanh: Operation
    where: Operation
    zeros: Operation
    zeros_like: Operation
    isdtype: Callable[..., bool]

    def __getattr__(self, name: str, /) -> Any: ...


Features: TypeAlias = dict[str, Array]
"""Weight-space features: for each tensor an array of shape (batch, *axes, channels)."""

UNSUITED = frozenset({"MaskedArray", "matrix"})
"""Classes of NumPy whose operations are not those of the array API: a mask would be lost, products are other products."""

# By array type: compilers trace this look-up, and not array-api-compat's own caches.
_NAMESPACES: dict[type, Namespace] = {}


def namespace_of(*arrays: Array) -> Namespace:
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
        If a value is no array, or one with a mask, or the arrays belong to different libraries.
    """
    known = _NAMESPACES.get(type(arrays[0]))
    for x in arrays:  # a plain loop: compilers follow it quickly
        if _NAMESPACES.get(type(x)) is not known:
            known = None
    if known is not None:
        return known
    for x in arrays:
        if not is_array(x):
            raise FeatureError(f"expected an array of an array API library, not {type(x).__name__}: convert it first.")
    try:
        found: Namespace = array_api_compat.array_namespace(*arrays)
    except TypeError as error:
        kinds = sorted({f"{type(x).__module__}.{type(x).__name__}" for x in arrays})
        raise FeatureError(
            f"arrays of one library are needed, but {' and '.join(kinds)} came: convert them."
        ) from error
    _NAMESPACES.update(dict.fromkeys(map(type, arrays), found))
    return found


def is_array(x: Any) -> bool:
    """Whether a value is an array of an array API library; an array of NumPy with a mask is none."""
    if type(x) in _NAMESPACES:
        return True
    return array_api_compat.is_array_api_obj(x) and UNSUITED.isdisjoint(kind.__name__ for kind in type(x).__mro__)


def is_jax(x: Array) -> bool:
    """Whether an array is of JAX, as compilers can ask."""
    return type(x).__module__.startswith("jax")


def is_dense(x: Array) -> bool:
    """Whether an array has all its entries in place: it is not sparse, nested or packed."""
    strided = getattr(namespace_of(x), "strided", None)  # only PyTorch has layouts that are not
    return strided is None or (getattr(x, "layout", None) is strided and not getattr(x, "is_nested", False))


def is_real(x: Array, xp: Namespace) -> bool:
    """Whether the entries of an array are real floating numbers of its own library."""
    try:
        return xp.isdtype(x.dtype, "real floating")
    except TypeError:  # NumPy does not know ml_dtypes, which are dtypes of JAX
        return False


def widened(x: Array) -> Array:
    """The array in float32 if its entries are narrower: for sines and squares, which half precision rounds too much."""
    if getattr(x.dtype, "itemsize", 4) > 3:
        return x
    xp = namespace_of(x)
    return xp.astype(x, xp.float32)


def device_of(x: Array) -> Any:
    """Device for new arrays that are to meet an array; None where the library finds it by itself.

    JAX does for arrays that it traces, that it has bound to no device, and that lie on several.
    """
    device = getattr(x, "device", None)
    if device is None or not is_jax(x):
        return device
    return device if x.committed and not hasattr(device, "device_set") else None  # type: ignore[attr-defined]


def same_device(x: Array, y: Array) -> bool:
    """Whether two arrays may meet: on the same devices, or one of them is on none that is known or that binds it."""
    devices = (getattr(x, "device", None), getattr(y, "device", None))
    if None in devices or devices[0] == devices[1]:
        return True
    if not all(getattr(z, "committed", True) for z in (x, y)):  # JAX moves what is bound to no device
        return True
    one, other = ({*getattr(device, "device_set", (device,))} for device in devices)
    return one == other
