"""Which group an assertion tests: the one given, the HNP of a space, or what a layer's description says."""

from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

from nfn_core import Group, Layer, LearnedEncoding, ModelSpace, SinusoidalEncoding, SpecError, WeightSpace

__all__ = ["described_group", "find_group"]


def find_group(
    layer: Any, group: Group | str | Iterable[str] | None, space: WeightSpace | ModelSpace | None = None
) -> Group:
    """Find the group to test.

    Parameters
    ----------
    layer : callable
        The layer, which may hold a description.
    group : Group, {"NP", "HNP"} or iterable of str, optional
        The group, or the neuron sets that it permutes.
    space : WeightSpace or ModelSpace, optional
        The space.

    Returns
    -------
    Group
        The group given; for names the space's, or the description's space's; without a group the space's HNP, or
        what the description says.

    Raises
    ------
    SpecError
        If there is neither a group, nor a space, nor a description that says one.
    """
    if isinstance(space, ModelSpace):
        space = space.space
    if space is not None and not isinstance(space, WeightSpace):
        raise SpecError(f"space must be a WeightSpace or ModelSpace, not {type(space).__name__}.")
    if isinstance(group, Group):
        if space is not None and space != group.space:
            raise SpecError("group and space differ: a Group brings its own space, so leave out space.")
        return group
    if space is None:
        found = described_group(layer)
        if found is None:
            raise SpecError(
                "there is no group to infer from the layer: give group=space.group('HNP'), for instance, "
                "or space=... to test the permutations of hidden neurons."
            )
        if group is None:
            return found
        space = found.space
    return space.group("HNP" if group is None else group)


def described_group(layer: Any) -> Group | None:
    """Group that every part of a layer's description respects.

    The intersection of all groups in the description; IO-encodings respect the HNP of their space.

    Parameters
    ----------
    layer : callable
        An `nfn_torch.NFModule` or anything else with a description as its attribute `layer`; or a `functools.partial`
        of a function that takes a description, or of a description's method.

    Returns
    -------
    Group or None
        None if there is no description, or no group in it.

    Raises
    ------
    SpecError
        If the groups in the description act on different spaces.
    """
    candidates = [getattr(layer, "layer", None)]
    if isinstance(layer, partial):
        candidates += [getattr(layer.func, "__self__", None), *layer.args, *layer.keywords.values()]
    description = next((x for x in candidates if isinstance(x, Layer)), None)
    groups = list(_groups(description))
    if not groups:
        return None
    space = groups[0].space
    if any(g.space != space for g in groups):
        raise SpecError("the layer's description has groups on different weight spaces: give the group.")
    return space.group([label for label in space.sizes if all(label in g.permuted for g in groups)])


def _groups(value: Any) -> Iterator[Group]:
    """All groups in a description."""
    if isinstance(value, Group):
        yield value
    elif isinstance(value, LearnedEncoding | SinusoidalEncoding):
        yield value.space.group("HNP")
    elif isinstance(value, tuple):
        for item in value:
            yield from _groups(item)
    elif is_dataclass(value) and not isinstance(value, WeightSpace | type):
        for f in fields(value):
            if f.init:
                yield from _groups(getattr(value, f.name))
