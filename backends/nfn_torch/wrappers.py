"""Modules around modules (data parallelism, compilation, averages): looked through on the way in and on the way back."""

import copy
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel
from torch.utils import _pytree as pytree

from nfn_core.errors import LabelError
from nfn_core.models.stacking import kind_of

__all__ = ["copied", "inner_names", "named_tensors", "plain_inputs", "unwrapped"]


@cache
def _wrappers() -> dict[type, str]:
    """Modules that compute what the module inside them computes, and the attribute that holds it."""
    from torch._dynamo.eval_frame import OptimizedModule  # takes as long to load as torch itself

    return {
        torch.nn.DataParallel: "module",
        torch.nn.parallel.DistributedDataParallel: "module",
        AveragedModel: "module",
        OptimizedModule: "_orig_mod",
    }


def unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    """The module inside all wrappers around it."""
    while (attribute := _attribute(module)) is not None:
        module = getattr(module, attribute)
    return module


def inner_names(module: torch.nn.Module, names: Iterable[str]) -> dict[str, str]:
    """Names of a module's tensors as they would be without wrappers, in the module and around it.

    Parameters
    ----------
    module : torch.nn.Module
        The module.
    names : iterable of str
        Names of its state dict.

    Returns
    -------
    dict of str to str
        For each name the other one.
    """
    prefixes = []
    for path, child in module.named_modules():
        if (attribute := _attribute(child)) is not None:
            start = f"{path}." if path else ""
            prefixes.append((f"{start}{attribute}.", start))
    found = {}
    for name in names:
        short = name
        for long, start in reversed(prefixes):  # from the inside out
            short = start + short.removeprefix(long) if short.startswith(long) else short
        found[name] = short
    return found


def named_tensors(module: torch.nn.Module) -> dict[str, Any]:
    """State dict of a module, with its history, by the names without wrappers."""
    state = module.state_dict(keep_vars=True)
    names = inner_names(module, state)
    return {names[name]: x for name, x in state.items()}


def copied(module: torch.nn.Module, shared: Iterable[torch.Tensor] = ()) -> torch.nn.Module:
    """Copy a module, also one that keeps results of its last run: old weight norms, pruning, hooks that cache an output.

    Parameters
    ----------
    module : torch.nn.Module
        The module.
    shared : iterable of torch.Tensor
        Tensors that the copy shares.

    Returns
    -------
    torch.nn.Module
        The copy.

    Raises
    ------
    LabelError
        If it holds what cannot be copied.
    """
    memo: dict[int, Any] = {id(x): x for x in shared}
    for child in module.modules():
        kept = {name: x for name, x in vars(child).items() if name not in ("_parameters", "_modules")}
        for x in pytree.tree_leaves(kept):
            if isinstance(x, torch.Tensor) and not x.is_leaf:
                memo.setdefault(id(x), x.detach().clone())
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise LabelError(
            f"the module ({kind_of(module)}) cannot be copied: {type(error).__name__}: {reason} Take out of it what "
            "copy.deepcopy does not copy: results of earlier runs, open files, locks."
        ) from error


def plain_inputs(inputs: Any) -> Any:
    """Inputs with plain dictionaries in place of mappings that torch does not know."""
    return pytree.tree_map(
        lambda x: {name: plain_inputs(y) for name, y in x.items()} if isinstance(x, Mapping) else x, inputs
    )


def _attribute(module: torch.nn.Module) -> str | None:
    return next((attribute for kind, attribute in _wrappers().items() if isinstance(module, kind)), None)
