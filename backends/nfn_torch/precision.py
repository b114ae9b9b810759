"""Running modules in double precision throughout, whatever they cast to, and noting what their runs reach."""

from collections import Counter
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from nfn_core.models.probes import Reached

__all__ = ["InDouble"]

WIDE = {
    torch.float16: torch.float64,
    torch.bfloat16: torch.float64,
    torch.float32: torch.float64,
    torch.complex32: torch.complex128,
    torch.complex64: torch.complex128,
}
"""What each floating dtype is run in."""

DEAD = {"relu", "relu_", "hardtanh", "hardtanh_", "threshold"}
"""Activation functions of which a unit can be 0 for every input."""


class InDouble(TorchDispatchMode):
    """Operations that would give floating numbers of less than 64 bits give them in 64.

    Parameters
    ----------
    module : torch.nn.Module
        The module that is run.
    reached : Reached, optional
        What takes note of the choices that the run makes, and of the units that are alive.
    """

    supports_higher_order_operators = True

    def __init__(self, module: torch.nn.Module, reached: Reached | None = None) -> None:
        super().__init__()
        self.module, self.reached = module, reached
        self.met: Counter[str] = Counter()
        self.inside: list[str] = [""]
        self.hooks = ExitStack()

    def __enter__(self) -> Any:
        """Follow which module is at work."""
        for name, child in self.module.named_modules() if self.reached is not None else ():
            for hook in (
                child.register_forward_pre_hook(lambda *_, name=name: self.inside.append(name)),
                child.register_forward_hook(lambda *_: self._leave()),
            ):
                self.hooks.callback(hook.remove)
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        """Stop."""
        self.hooks.close()
        super().__exit__(*error)

    def _leave(self) -> None:
        """Note that the inmost module is done."""
        self.inside.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation."""
        if isinstance(func, torch._ops.HigherOrderOperator):  # branches and loops run by themselves
            if self.reached is not None:
                self.reached.unseen[f"what is chosen inside {func.name()} was not watched"] = None
            return func(*args, **(kwargs or {}))
        wanted = pytree.tree_map(_dtype, (args, kwargs or {}))
        if func._schema.is_mutable:  # what it writes into must stay what it is
            out = func(*wanted[0], **wanted[1])
        else:
            args, kwargs = pytree.tree_map(_widened, wanted)
            out = pytree.tree_map(_widened, IN_PLACE_OF.get(func._schema.name, func)(*args, **kwargs))
        if self.reached is not None:
            self._note(self.reached, func, wanted[0], out)
        return out

    def _note(self, reached: Reached, func: Any, args: Any, out: Any) -> None:
        """Record what an operation chose."""
        name = func._schema.name.removeprefix("aten::")
        chooses = [x for x in args[:2] if isinstance(x, torch.Tensor) and x.dtype == torch.bool]
        zero = (
            name in {"clamp", "clamp_min"} and len(args) > 1 and not isinstance(args[1], torch.Tensor) and args[1] == 0
        )
        if not (zero or name in DEAD or (chooses and name in {"where", "masked_fill", "masked_fill_", "mul", "mul_"})):
            return
        key = f"{name} in module {self.inside[-1]!r}"
        self.met[key] += 1
        key += f" (call {self.met[key]})" if self.met[key] > 1 else ""
        if chooses:
            reached.choice(key, bool(chooses[0].any()), not bool(chooses[0].all()))
        elif name in DEAD or zero:
            rest = [[b for b in range(out.ndim) if b != a] for a in range(out.ndim)]
            alive = out != 0
            reached.alive(key, [(alive.any(dim=b) if b else alive).cpu().numpy() for b in rest])


def _dtype(x: Any) -> Any:
    """The wide dtype in place of a narrow one."""
    return WIDE.get(x, x) if isinstance(x, torch.dtype) else x


def _widened(x: Any) -> Any:
    """A tensor in its wide dtype; anything else as it is."""
    return x.to(WIDE[x.dtype]) if isinstance(x, torch.Tensor) and x.dtype in WIDE else x


def _grouped_products(x: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor | None = None, *_: Any) -> torch.Tensor:
    """Products of groups of rows with a matrix each: rows (n, in), matrices (groups, in, out), ends of the groups; (n, out)."""
    if ends is None:  # groups have an axis of their own
        return x @ weight
    found = x.new_zeros(len(x), weight.shape[2])  # rows after the last group belong to none
    for matrix, (start, end) in zip(weight, pairwise([0, *ends.tolist()]), strict=True):
        found[start:end] = x[start:end] @ matrix
    return found


IN_PLACE_OF = {"aten::_grouped_mm": _grouped_products}
"""What is run in place of operations that PyTorch has for narrow dtypes only."""
