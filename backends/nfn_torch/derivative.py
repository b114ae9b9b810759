"""The hub map with a derivative of its own, which keeps nothing but the layer's input and its pools."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.forward_ad import unpack_dual

from nfn_core.arrays import Array
from nfn_core.layers.hub_map import MultiplyAdd, gather, hub_map_vjp, product, spread_mixed
from nfn_core.layers.hub_map import hub_map as plain_hub_map
from nfn_core.layers.hubs import HubGraph, Pooling

__all__ = ["autocasts", "hub_map"]


def hub_map(
    graph: HubGraph,
    pooling: Pooling,
    tensors: Sequence[torch.Tensor],
    matrices: Sequence[torch.Tensor],
    bias: torch.Tensor | None,
) -> list[Array]:
    """As `nfn_core.layers.hub_map.hub_map`; differentiated plainly by compilers, under autocast and in `torch.func`."""
    arrays = [*tensors, *matrices, *(() if bias is None else (bias,))]
    if torch.compiler.is_compiling() or autocasts(arrays[0]) or _transformed(arrays):
        return plain_hub_map(graph, pooling, tensors, matrices, bias)
    out: tuple[torch.Tensor, ...] = _HubMap.apply(graph, pooling, *arrays)  # type: ignore[no-untyped-call]
    return list(out)


class _HubMap(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, graph: HubGraph, pooling: Pooling, *arrays: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.graph, ctx.pooling = graph, pooling
        tensors, matrices, bias = _split(graph, arrays)
        gathered = gather(graph, "inputs", tensors, pooling)
        ctx.save_for_backward(*gathered, *arrays)
        mixed: list[Any] = spread_mixed(graph, gathered, matrices, bias, _multiply_add)
        return tuple(mixed)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[Any, ...]:
        graph, pooling = ctx.graph, ctx.pooling
        saved = ctx.saved_tensors  # once only, for activation checkpointing
        gathered = saved[: len(graph.hubs)]
        tensors, matrices, bias = _split(graph, saved[len(graph.hubs) :])
        needed = ctx.needs_input_grad[2:]
        wanted = any(needed[: len(tensors)]), any(needed[len(tensors) :])
        multiply_add: MultiplyAdd = _multiply_add
        if torch.is_grad_enabled():  # to be differentiated again
            gathered, multiply_add = gather(graph, "inputs", tensors, pooling), product
        into, grads, constants = hub_map_vjp(
            graph, pooling, gathered, matrices, bias, cotangents, multiply_add, *wanted
        )
        if wanted[0]:
            into = [torch.zeros_like(x) if y is None else y for x, y in zip(tensors, into, strict=True)]
        return (None, None, *into, *grads, *(() if bias is None else (constants,)))


def _split(graph: HubGraph, arrays: Sequence[torch.Tensor]) -> tuple[Any, Any, Any]:
    """Tensors, matrices and bias."""
    first, last = len(graph.tensors), len(graph.tensors) + len(graph.hubs)
    return arrays[:first], arrays[first:last], arrays[last] if len(arrays) > last else None


def _multiply_add(x: torch.Tensor, matrix: torch.Tensor, y: torch.Tensor | None) -> torch.Tensor:
    """Product accumulated into `y`, once that has its shape."""
    if y is None:
        return x @ matrix
    if y.ndim == 1:  # constants, of the empty hub, stay as they are
        return torch.addmm(y, x, matrix)
    shape = (*x.shape[:-1], matrix.shape[-1])
    total = y.expand(shape).contiguous()
    total.view(-1, shape[-1]).addmm_(x.reshape(-1, x.shape[-1]), matrix)
    return total


def autocasts(x: torch.Tensor) -> bool:
    """Whether autocast is on for a tensor's device; devices that have none (meta) cannot even be asked."""
    kind = x.device.type
    available = torch.compiler.is_compiling() or torch.amp.is_autocast_available(
        kind
    )  # compilers before 2.13 cannot ask
    return available and torch.is_autocast_enabled(kind)


def _transformed(arrays: Sequence[torch.Tensor]) -> bool:
    """Whether `torch.func` or forward-mode differentiation is at work."""
    if torch._C._are_functorch_transforms_active():  # as torch.autograd.Function asks
        return True
    return any(unpack_dual(x).tangent is not None for x in arrays)  # type: ignore[no-untyped-call]
