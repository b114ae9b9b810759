"""The hub map with a derivative of its own, which keeps nothing but the layer's input and its pools."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.forward_ad import unpack_dual

from nfn_core.layers.hub_map import gather, hub_map_vjp, spread_mixed
from nfn_core.layers.hub_map import hub_map as plain_hub_map
from nfn_core.layers.hubs import Pooling, Structure

__all__ = ["hub_map"]


def hub_map(
    s: Structure,
    pooling: Pooling,
    tensors: Sequence[torch.Tensor],
    matrices: Sequence[torch.Tensor],
    bias: torch.Tensor | None,
) -> list[torch.Tensor]:
    """As `nfn_core.layers.hub_map.hub_map`; differentiated plainly by compilers, under autocast and in `torch.func`."""
    arrays = [*tensors, *matrices, *(() if bias is None else (bias,))]
    if torch.compiler.is_compiling() or torch.is_autocast_enabled(arrays[0].device.type) or _transformed(arrays):
        return plain_hub_map(s, pooling, tensors, matrices, bias)
    out: tuple[torch.Tensor, ...] = _HubMap.apply(s, pooling, *arrays)  # type: ignore[no-untyped-call]
    return list(out)


class _HubMap(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, s: Structure, pooling: Pooling, *arrays: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.structure, ctx.pooling = s, pooling
        tensors, matrices, bias = _split(s, arrays)
        gathered = gather(s, "inputs", tensors, pooling)
        ctx.save_for_backward(*gathered, *arrays)
        return tuple(spread_mixed(s, gathered, matrices, bias, _multiply_add))

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        s, pooling = ctx.structure, ctx.pooling
        saved = ctx.saved_tensors  # once only, for activation checkpointing
        gathered = saved[: len(s.hubs)]
        tensors, matrices, bias = _split(s, saved[len(s.hubs) :])
        if torch.is_grad_enabled():  # to be differentiated again
            gathered = gather(s, "inputs", tensors, pooling)
            into, slopes, bias = hub_map_vjp(s, pooling, gathered, matrices, bias, cotangents)
        else:
            into, slopes, bias = hub_map_vjp(s, pooling, gathered, matrices, bias, cotangents, _multiply_add)
        return (None, None, *into, *slopes, *(() if bias is None else (bias,)))


def _split(s: Structure, arrays: Sequence[torch.Tensor]) -> tuple[Any, Any, torch.Tensor | None]:
    """Tensors, matrices and bias."""
    first, last = len(s.tensors), len(s.tensors) + len(s.hubs)
    return arrays[:first], arrays[first:last], arrays[last] if len(arrays) > last else None


def _multiply_add(x: torch.Tensor, matrix: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
    """Product accumulated into `y`, once that has its shape."""
    if y is None:
        return x @ matrix
    shape = (*x.shape[:-1], matrix.shape[-1])
    if y.ndim == 1:  # constants stay as they are
        return torch.addmm(y, x.reshape(-1, x.shape[-1]), matrix).view(shape)
    total = y.expand(shape).contiguous()
    total.view(-1, shape[-1]).addmm_(x.reshape(-1, x.shape[-1]), matrix)
    return total


def _transformed(arrays: Sequence[torch.Tensor]) -> bool:
    """Whether `torch.func` or forward-mode differentiation is at work."""
    if torch._C._are_functorch_transforms_active():  # as torch.autograd.Function asks
        return True
    return any(unpack_dual(x).tangent is not None for x in arrays)  # type: ignore[no-untyped-call]
