"""Names that a module can hold: a weight space's names are any strings, and some of them mean something else to torch."""

from collections.abc import Iterable

from torch import nn

__all__ = ["places"]

_TAKEN = nn.Module()


def places(names: Iterable[str], root: nn.Module) -> dict[str, str]:
    """Where parameters live in a module, so that `torch.nn.Module` can hold them all.

    Parameters
    ----------
    names : iterable of str
        Dotted names.
    root : torch.nn.Module
        The module, without parameters yet.

    Returns
    -------
    dict of str to str
        For each name the dotted path of its parameter: the name itself where each of its parts can be an attribute
        and no other name continues it. Otherwise one part: the name with underscores for dots, and more of them at its
        end until nothing else is called so.
    """
    names = list(names)
    modules = {name[:k] for name in names for k, letter in enumerate(name) if letter == "."}
    free = {name for name in names if name not in modules and _fits(name, root)}
    used = {*free, *(name.partition(".")[0] for name in free)}
    found = {}
    for name in names:
        place = name
        if name not in free:
            place = name.replace(".", "_")
            while place in used or not _fits(place, root):
                place += "_"
            used.add(place)
        found[name] = place
    return found


def _fits(name: str, root: nn.Module) -> bool:
    """Whether every part of a name can be an attribute."""
    first, *others = name.split(".")
    return "" not in (first, *others) and not hasattr(root, first) and not any(hasattr(_TAKEN, p) for p in others)
