"""The linear part of an NF-layer as one function of arrays, and its derivative: the same function, transposed.

Pooling's adjoint is broadcasting, so the gradient by the input is the layer with every hub matrix transposed, and the
gradient of a hub's matrix is the product of what the hub gathers from the inputs and from the output gradients. An
adapter can differentiate `hub_map` by `hub_map_vjp`, which needs nothing but the inputs.
"""

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any

from nfn_core.arrays import Array, device_of, namespace_of
from nfn_core.layers.hubs import HubGraph, Pooling, Side, pool, spread

__all__ = ["MultiplyAdd", "gather", "hub_map", "hub_map_vjp", "product", "spread_mixed"]

MultiplyAdd = Callable[[Any, Any, Any], Array]
"""x @ matrix + y, where y, if given, broadcasts to the product and may be overwritten."""


def product(x: Array, matrix: Array, y: Array | None) -> Array:
    """Multiply and add in any array library, by a product of two matrices: so is then the derivative by `matrix`.

    Parameters
    ----------
    x : array
        Shape (..., rows of the matrix).
    matrix : array
        Shape (rows, columns).
    y : array or None
        Added to the product, to which it must broadcast.

    Returns
    -------
    array
        Shape (..., columns).
    """
    xp = namespace_of(x)
    mixed = xp.reshape(xp.matmul(_rows(x), matrix), (*x.shape[:-1], matrix.shape[-1]))
    return mixed if y is None else mixed + xp.astype(y, mixed.dtype, copy=False)  # differs under autocast


def hub_map(
    graph: HubGraph,
    pooling: Pooling,
    tensors: Sequence[Array],
    matrices: Sequence[Array],
    bias: Array | None,
) -> list[Array]:
    """Pool every tensor, mix the channels in every hub, and broadcast back: Eq. 3.

    Parameters
    ----------
    graph : HubGraph
        Tensors and hubs.
    pooling : {"mean", "sum", "scaled_sum"}
        How axes are pooled.
    tensors : sequence of array
        Folded tensors, each (batch, *permuted axes, width * in_channels).
    matrices : sequence of array
        For each hub a matrix of shape (hub inputs, hub outputs).
    bias : array, optional
        Constants of the empty hub, shape (hub outputs,).

    Returns
    -------
    list of array
        Folded tensors, each (batch, *permuted axes, width * out_channels).
    """
    return spread_mixed(graph, gather(graph, "inputs", tensors, pooling), matrices, bias)


def spread_mixed(
    graph: HubGraph,
    gathered: Sequence[Array],
    matrices: Sequence[Array],
    bias: Array | None,
    multiply_add: MultiplyAdd = product,
) -> list[Array]:
    """Second half of `hub_map`: multiply by the hubs' matrices, and broadcast to the tensors.

    Parameters
    ----------
    graph, matrices, bias : see `hub_map`
        As there.
    gathered : sequence of array
        For each hub an array of shape (batch, *hub axes, hub inputs), from `gather`.
    multiply_add : callable
        How products are taken.

    Returns
    -------
    list of array
        As `hub_map`.
    """
    return _mix(graph, "outputs", gathered, matrices, bias, "sum", multiply_add)


def hub_map_vjp(
    graph: HubGraph,
    pooling: Pooling,
    gathered: Sequence[Array],
    matrices: Sequence[Array],
    bias: Array | None,
    cotangents: Sequence[Array],
    multiply_add: MultiplyAdd = product,
    by_tensors: bool = True,
    by_parameters: bool = True,
) -> tuple[list[Any], list[Any], Array | None]:
    """Gradients of `hub_map` by tensors, matrices and bias.

    Parameters
    ----------
    graph, pooling, gathered, matrices, bias, multiply_add : see `hub_map` and `spread_mixed`
        As there.
    cotangents : sequence of array
        Gradients by the output tensors.
    by_tensors, by_parameters : bool
        Which gradients are wanted: a first layer needs none by its inputs.

    Returns
    -------
    list of array or None, list of array or None, array or None
        The gradients, of the shapes of tensors, matrices and bias; None for those that are not wanted, and for tensors that no
        hub reads.
    """
    xp = namespace_of(*gathered)
    back = gather(graph, "outputs", cotangents, "sum")
    into: list[Any] = [None] * len(graph.tensors)
    grads: list[Any] = [None] * len(graph.hubs)
    if by_tensors:
        read = {v.tensor for hub in graph.hubs for v in hub.inputs}
        found = _mix(graph, "inputs", back, [m.T for m in matrices], None, pooling, multiply_add)
        into = [y if k in read else None for k, y in enumerate(found)]
    if by_parameters:
        grads = [xp.matmul(_rows(x).T, _rows(y)) for x, y in zip(gathered, back, strict=True)]
    return into, grads, xp.sum(back[0], axis=0) if by_parameters and bias is not None else None


def gather(graph: HubGraph, side: Side, tensors: Sequence[Array], pooling: Pooling) -> list[Array]:
    """First half of `hub_map`: concatenate the pooled forms of each hub's members.

    Parameters
    ----------
    graph, tensors, pooling : see `hub_map`
        As there.
    side : {"inputs", "outputs"}
        Members of which side of the hubs.

    Returns
    -------
    list of array
        For each hub an array of shape (batch, *hub axes, sum of widths); of a single whole tensor, the tensor itself.
    """
    xp = namespace_of(*tensors)
    forms = [pool(plan, x, pooling, xp) for plan, x in zip(graph.side(side), tensors, strict=True)]
    gathered: list[Array] = []
    for hub in graph.hubs:
        members = [_ordered(forms[v.tensor][v.form], v.order) for v in getattr(hub, side)]
        if not members:  # no input is even, but constants are
            first = tensors[0]
            gathered.append(xp.zeros((first.shape[0], 0), dtype=first.dtype, device=device_of(first)))
            continue
        gathered.append(members[0] if len(members) == 1 else xp.concat(members, axis=-1))
    return gathered


def _mix(
    graph: HubGraph,
    side: Side,
    gathered: Sequence[Array],
    matrices: Sequence[Array],
    bias: Array | None,
    pooling: Pooling,
    multiply_add: MultiplyAdd,
) -> list[Array]:
    """Multiply in every hub and spread to the tensors on one side, by the adjoint of `pooling`."""
    xp, plans = namespace_of(*gathered), graph.side(side)
    parts: list[list[Array | None]] = [[None] * len(plan.forms) for plan in plans]
    whole = {}
    channels = 0
    for hub, x, matrix in zip(graph.hubs, gathered, matrices, strict=True):
        views = getattr(hub, side)
        if not views:
            continue
        channels = matrix.shape[-1] // sum(graph.width(v, side) for v in views)
        if hub.labels and len(views) == 1 and views[0].form == 0 and views[0].order == tuple(range(len(hub.labels))):
            whole[views[0].tensor] = (x, matrix)  # multiplied last, onto what is spread
            continue
        mixed = multiply_add(x, matrix, None if hub.labels else bias)
        start = 0
        for v in views:
            stop = start + graph.width(v, side) * channels
            form = plans[v.tensor].forms[v.form]
            part = _ordered(mixed[..., start:stop], tuple(sorted(range(len(v.order)), key=v.order.__getitem__)))
            share = {"sum": 1, "mean": form.pooled, "scaled_sum": sqrt(form.pooled)}[pooling]
            part = part / share if share > 1 else part
            known = parts[v.tensor][v.form]
            parts[v.tensor][v.form] = part if known is None else known + part
            start = stop
    out = []
    for k, (plan, given) in enumerate(zip(plans, parts, strict=True)):
        total = spread(plan, given, xp)
        if k in whole:
            out.append(multiply_add(*whole[k], total))
        elif total is None:  # no hub reaches it
            x, shape = gathered[0], plan.forms[0].shape
            zeros = xp.zeros((x.shape[0], *shape, plan.width * channels), dtype=x.dtype, device=device_of(x))
            out.append(zeros)
        else:
            out.append(xp.broadcast_to(total, (total.shape[0], *plan.forms[0].shape, total.shape[-1])))
    return out


def _ordered(x: Array, order: tuple[int, ...]) -> Array:
    """Array of shape (batch, *axes, channels) with its axes in another order."""
    if order == tuple(range(len(order))):
        return x
    return namespace_of(x).permute_dims(x, (0, *(a + 1 for a in order), x.ndim - 1))


def _rows(x: Array) -> Array:
    """All but the last axis flattened."""
    return x if x.ndim == 2 else namespace_of(x).reshape(x, (-1, x.shape[-1]))
