"""Models side by side: their tensors found by name, and checked before they become features."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from os import PathLike
from typing import TYPE_CHECKING, Any

from nfn_core.arrays import Array, is_array, is_dense, is_jax, is_real, namespace_of, same_device
from nfn_core.errors import FeatureError, StackWarning
from nfn_core.features import check_features
from nfn_core.models.constants import changed, moved
from nfn_core.models.views import View, split_axes

if TYPE_CHECKING:
    from nfn_core.models.model_space import ModelSpace

__all__ = ["copy_of", "kind_of", "no_array", "stack_models"]


def no_array(x: Any) -> str | None:
    """What is wrong with a value that should be an array; None if it is one."""
    if not is_array(x):
        return f"is a {kind_of(x)}: convert it to an array"
    return None if is_dense(x) else f"has layout {x.layout}: make it dense"


def kind_of(x: Any) -> str:
    """Type of a value, with the library it comes from."""
    return f"{type(x).__module__}.{type(x).__name__}".removeprefix("builtins.")


def stack_models(
    space: "ModelSpace",
    channels: Sequence[Iterable[Any]],
    fill: float | None = None,
    named: Callable[[Any], Any] = lambda model: model,
    problem: Callable[[Any], str | None] = no_array,
    host: Callable[[Any], Any] = lambda x: x,
    places: Sequence[str] = (),
) -> dict[str, Any]:
    """Stack models into features; see `ModelSpace.stack`.

    Parameters
    ----------
    space : ModelSpace
        The models' space.
    channels : sequence of iterable
        For each channel its models.
    fill : float, optional
        Entries of tensors that are missing.
    named : callable
        From a model to the mapping of its values by name; from anything else to itself.
    problem : callable
        From a tensor's value to what is wrong with it, None if it can be stacked.
    host : callable
        From an array of a model to the same array of NumPy.
    places : sequence of str
        What messages call the models; by default their numbers.

    Returns
    -------
    dict of str to array
        Features.

    Raises
    ------
    FeatureError
        As `ModelSpace.stack`.
    """
    if fill is not None and (isinstance(fill, bool) or not isinstance(fill, Real)):
        raise FeatureError(f"fill must be a number, not {fill!r}.")
    for number, models in enumerate(channels):
        if isinstance(models, Mapping | str | PathLike) or not isinstance(models, Iterable):
            raise FeatureError(
                f"channel {number} is a {kind_of(models)}: give a list of models for each channel, also of a single model."
            )
    rows = [list(models) for models in channels]
    counts = [len(models) for models in rows]
    if not counts or not counts[0] or len(set(counts)) > 1:
        raise FeatureError(f"stack takes the same positive number of models for every channel, not {counts}.")
    of = [f" of channel {number}" if len(rows) > 1 else "" for number in range(len(rows))]
    places = places or [f"model {k}" for k in range(counts[0])]
    states = [
        [_State(place + text, named(m)) for place, m in zip(places, row, strict=True)]
        for row, text in zip(rows, of, strict=True)
    ]
    prefixes = [[state.find(space) for state in row] for row in states]

    # Tensor by tensor: of every model, with what stands for missing ones.
    features: dict[str, Any] = {}
    filled: list[dict[str, int]] = [{} for _ in rows]
    sample: tuple[str, Array] | None = None
    for view in space.views:
        found = [[state.tensor(view, fill, problem) for state in row] for row in states]
        for row, arrays, missing in zip(states, found, filled, strict=True):
            for state, x in zip(row, arrays, strict=True):
                if x is None:
                    missing[view.name] = missing.get(view.name, 0) + 1
                    continue
                sample = sample or (f"tensor {view.name!r} of {state.place}", x)
                _check_alike(f"tensor {view.name!r} of {state.place}", x, *sample)
        given = [x for arrays in found for x in arrays if x is not None]
        if not given:
            raise FeatureError(
                f"tensor {view.name!r} is missing from every model and channel: `fill` needs one that has it."
            )
        xp = namespace_of(*given)
        blank = None if fill is None else xp.full_like(given[0], fill)
        columns = [xp.stack([blank if x is None else x for x in arrays]) for arrays in found]
        pieces = list(split_axes(xp.stack(columns, axis=-1), view.axes))
        features.update(zip(view.pieces, map(copy_of, pieces) if len(pieces) > 1 else pieces, strict=True))
    check_features(space.space, features)

    others = [dict.fromkeys(name for state in row for name in state.others(space, host)) for row in states]
    for text, left_out, missing, differ in zip(of, prefixes, filled, others, strict=True):
        _say(space, text, left_out, missing, fill, list(differ))
    return features


def _say(
    space: "ModelSpace",
    channel: str,
    prefixes: list[str],
    filled: Mapping[str, int],
    fill: float | None,
    changed: list[str],
) -> None:
    """Warn of what the features of a channel do not show."""
    for prefix in sorted({*prefixes} - {""}):
        warnings.warn(
            f"the names of {prefixes.count(prefix)} of {len(prefixes)} models{channel} all begin with {prefix!r}, which those "
            "of the space do not: it was left out.",
            StackWarning,
            stacklevel=4,
        )
    if filled:
        warnings.warn(
            f"fill={fill} stands for {len(filled)} of {len(space.views)} tensors{channel}, in up to {max(filled.values())} of "
            f"{len(prefixes)} models: {_some(filled)}.",
            StackWarning,
            stacklevel=4,
        )
    if changed:
        warnings.warn(
            f"the features do not show constants of models{channel} that differ from those of the network that the space was "
            f"made from: {_some(changed)}. Make them persistent floating-point buffers, if a network is to see them.",
            StackWarning,
            stacklevel=4,
        )


def copy_of(x: Array) -> Array:
    """Return an array with memory of its own, which its library may write into, with its history of gradients."""
    return x if is_jax(x) else namespace_of(x).stack([x])[0, ...]


class _State:
    """Values of one model by name, and what messages call it."""

    def __init__(self, place: str, values: Any) -> None:
        if not isinstance(values, Mapping):
            reads = ": a file is read by `stream`" if isinstance(values, str | PathLike) else ""
            raise FeatureError(
                f"{place} is a {kind_of(values)}{reads}: give a model, or a mapping from the names of its tensors to arrays."
            )
        self.place, self.values, self.prefix = place, values, ""

    def find(self, space: "ModelSpace") -> str:
        """Prefix of the names of a space's tensors: of all arrays one, or none."""
        wanted = space.names
        prefix = _prefix(wanted, self.values)
        if prefix is None:
            inside = [k for k, v in self.values.items() if isinstance(v, Mapping) and _prefix(wanted, v) is not None]
            has = _some(name for name, x in self.values.items() if x is not None)
            raise FeatureError(
                f"{self.place} has none of the tensors of the space: expected {_some(view.name for view in space.views)}, but "
                + (f"its entries are {has}: " if has else "it has no values at all: ")
                + (
                    f"its tensors are in entry {inside[0]!r}, give that."
                    if inside
                    else "give them by the space's names."
                )
            )
        self.prefix = prefix
        return prefix

    def others(self, space: "ModelSpace", host: Callable[[Any], Any]) -> list[str]:
        """Names of constants that are not as they were in the network that the space was made from, but may be so."""
        found = []
        for known in space.constants:
            x = self.values.get(self.prefix + known[0])
            x = None if x is None else host(x)
            axes = [] if x is None else moved(known, x)
            if axes:
                raise FeatureError(
                    f"constant {known[0]!r} of {self.place} differs along axes {axes}, along which it was alike in the network "
                    "that the space was made from: neuron sets of the space may permute it. Make the space from this model."
                )
            found += [known[0]] if x is not None and changed(known, x) else []
        return found

    def tensor(self, view: View, fill: float | None, problem: Callable[[Any], str | None]) -> Any:
        """A tensor, None where it is missing and may be."""
        values = [self.values.get(self.prefix + name) for name in (view.name, *view.also)]
        found = [x for x in values if x is not None]
        if not found and fill is None:
            raise FeatureError(
                f"{self.place} lacks tensor {view.name!r}, its entries are {_some(self.values)}: give it, or `fill` for what "
                "is missing."
            )
        for x in found:
            wrong = problem(x)
            if wrong:
                raise FeatureError(f"tensor {view.name!r} of {self.place} {wrong}.")
            if tuple(x.shape) != view.shape:
                raise FeatureError(
                    f"tensor {view.name!r} of {self.place}: expected shape {view.shape}, not {tuple(x.shape)}: "
                    "all models of a batch must have the architecture the space was made for."
                )
            if not is_real(x, namespace_of(x)):
                raise FeatureError(
                    f"tensor {view.name!r} of {self.place}: expected a real floating dtype, not {x.dtype}: cast it, nothing "
                    "is cast silently."
                )
            if x is not found[0] and not _equal(x, found[0]):
                raise FeatureError(
                    f"{self.place}: {', '.join((view.name, *view.also))} are one tied tensor, but hold different values: "
                    "make the space from a model in which they are not tied."
                )
        return found[0] if found else None


def _prefix(wanted: Iterable[str], values: Mapping[Any, Any]) -> str | None:
    """What all names of arrays begin with before a wanted name; empty if one is there as it is, None if nothing fits."""
    if any(values.get(name) is not None for name in wanted):
        return ""
    names = [name for name, x in values.items() if isinstance(name, str) and is_array(x)]
    if not names:
        return None
    fitting = {names[0].removesuffix(name) for name in wanted if names[0].endswith("." + name)}
    common = [prefix for prefix in fitting if all(name.startswith(prefix) for name in names)]
    return common[0] if len(common) == 1 else None


def _check_alike(place: str, x: Array, first: str, y: Array) -> None:
    """One dtype and device in all models."""
    if x.dtype != y.dtype:
        raise FeatureError(f"{place} has dtype {x.dtype}, but {first} has {y.dtype}: cast all models to one dtype.")
    if not same_device(x, y):
        raise FeatureError(
            f"{place} is on device {x.device}, but {first} on {y.device}: move all models to one device."
        )


def _equal(x: Array, y: Array) -> bool:
    """Whether all entries are equal or both no numbers."""
    xp = namespace_of(x, y)
    return bool(xp.all((x == y) | (xp.isnan(x) & xp.isnan(y))))


def _some(names: Iterable[Any]) -> str:
    """First names, for messages."""
    listed = list(names)
    return ", ".join(map(repr, listed[:5])) + (f", ... ({len(listed)} in all)" if len(listed) > 5 else "")
