"""ATen operations in terms of the rules of `nfn_core.models.rules`: how each passes its arguments on. No rule lives here."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from nfn_core.models.operations import COMMON, Call, Registry, Rule
from nfn_core.models.rules import Rules, Value

__all__ = ["OPERATIONS", "name_of", "rule_of"]

OPERATIONS = Registry(COMMON)
"""Rules by ATen name. Operations that torch itself tags as pointwise need no entry."""
operation = OPERATIONS.register

POINTWISE = "every operation that torch tags as pointwise"


def name_of(target: Any) -> str:
    """ATen name of an operation of an exported graph, empty if it has none."""
    return target._schema.name.removeprefix("aten::") if isinstance(target, torch._ops.OpOverload) else ""


def rule_of(target: Any) -> Rule | None:
    """Rule of an operation of an exported graph, None if there is none."""
    name = name_of(target)
    is_pointwise = bool(name) and torch.Tag.pointwise in target.tags
    is_random = is_pointwise and torch.Tag.nondeterministic_seeded in target.tags
    return OPERATIONS.get(name, OPERATIONS["pointwise"] if is_pointwise and not is_random else None)


@operation("pointwise")
def pointwise(r: Rules, call: Call, *args: Any, **kwargs: Any) -> Value:
    """Tensors of any arguments are broadcast."""
    return r.elementwise(*[x for x in (*args, *kwargs.values()) if isinstance(x, Value)])


@operation("div")
def _div(r: Rules, call: Call, x: Value, y: Value | float, rounding_mode: str | None = None) -> Value:
    return r.multiply(x, y, inverse=True) if rounding_mode is None else pointwise(r, call, x, y)


@operation("relu")
def _relu(r: Rules, call: Call, x: Value) -> Value:
    return r.activate("relu", x)


@operation("_local_scalar_dense")
def _number(r: Rules, call: Call, x: Value) -> Value:
    return r.reshape(x, ())


@operation("clone", "alias", "detach", "lift_fresh_copy", "_to_copy", "contiguous")
def _copy(r: Rules, call: Call, x: Value, **_: Any) -> Value:
    return x


@operation("mm")
def _mm(r: Rules, call: Call, x: Value, y: Value) -> Value:
    return r.contract(x, y, [(1, 0)], [])


@operation("bmm")
def _bmm(r: Rules, call: Call, x: Value, y: Value) -> Value:
    return r.contract(x, y, [(2, 1)], [(0, 0)])


@operation("mv", "dot")
def _mv(r: Rules, call: Call, x: Value, y: Value) -> Value:
    return r.contract(x, y, [(len(x.axes) - 1, 0)], [])


@operation("addmm")
def _addmm(r: Rules, call: Call, bias: Value, x: Value, y: Value, **_: Any) -> Value:
    return r.elementwise(bias, _mm(r, call.shape, x, y))


@operation("baddbmm")
def _baddbmm(r: Rules, call: Call, bias: Value, x: Value, y: Value, **_: Any) -> Value:
    return r.elementwise(bias, _bmm(r, call.shape, x, y))


@operation("_trilinear")
def _trilinear(r: Rules, call: Call, *args: Any) -> Value:
    values, spread, summed = args[:3], args[3:6], args[6]
    rank = len(values[0].axes) + len(spread[0])
    shaped = []
    for x, axes in zip(values, spread, strict=True):
        sizes = iter(x.shape)
        shaped.append(r.reshape(x, [1 if a in axes else next(sizes) for a in range(rank)]))
    return r.reduce(r.elementwise(*shaped), summed)


@operation("convolution")
def _convolution(
    r: Rules,
    call: Call,
    x: Value,
    kernel: Value,
    bias: Value | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Value:
    steps = zip(kernel.shape[2:], _each(stride, x), _each(padding, x), _each(output_padding, x), strict=True)
    mixing = [taps > 1 or step > 1 or pad > 0 or extra > 0 for taps, step, pad, extra in steps]
    out = r.convolve(x, kernel, call.shape[2:], groups, mixing, transposed)
    return out if bias is None else r.scale_along(out, 1, bias)


def _each(numbers: Sequence[int], x: Value) -> list[int]:
    """One number for each spatial axis."""
    space = len(x.axes) - 2
    return list(numbers) * space if len(numbers) == 1 else list(numbers)


@operation("_native_batch_norm_legit_no_training", "_native_batch_norm_legit")
def _batch_norm(r: Rules, call: Call, x: Value, *vectors: Any) -> list[Value]:
    out = r.scale_along(x, 1, *[v for v in vectors if isinstance(v, Value)])
    channels = Value((out.axes[1],))
    return [out, channels, channels]


@operation("native_layer_norm")
def _layer_norm(r: Rules, call: Call, x: Value, size: Any, *vectors: Any) -> list[Value]:
    last = Value(x.axes[-len(size) :])
    for v in vectors:
        if isinstance(v, Value):
            r.equal(last, v)
    rest = Value(tuple(r.reduce(x, range(-len(size), 0), keep=True).axes))
    return [r.normalize(x, range(-len(size), 0)), rest, rest]


@operation("native_group_norm")
def _group_norm(
    r: Rules, call: Call, x: Value, weight: Any, bias: Any, n: int, c: int, hw: int, groups: int, eps: float
) -> list[Value]:
    out = r.scale_along(r.in_groups(x, 1, groups), 1, *[v for v in (weight, bias) if v is not None])
    return [out, *map(r.opaque, call.shapes[1:])]


@operation("_softmax", "_log_softmax", "_safe_softmax")
def _softmax(r: Rules, call: Call, x: Value, dim: int, *_: Any) -> Value:
    return r.normalize(x, [dim])


@operation("sum", "mean", "amax", "amin", "any", "all", "prod", "logsumexp", "var")
def _reduce(r: Rules, call: Call, x: Value, *args: Any, **kwargs: Any) -> Value:
    dims = kwargs.get("dim", next((a for a in args if isinstance(a, list)), args[0] if args else None))
    dims = range(len(x.axes)) if dims is None or dims == [] else [dims] if isinstance(dims, int) else dims
    return r.reduce(x, dims, keep=len(call.shape) == len(x.axes))


@operation("linalg_vector_norm")
def _norm(r: Rules, call: Call, x: Value, order: float = 2, dims: Any = None, *_: Any, **__: Any) -> Value:
    return r.reduce(x, range(len(x.axes)) if dims is None else dims, keep=len(call.shape) == len(x.axes))


@operation("var_mean")
def _var_mean(r: Rules, call: Call, x: Value, dims: Any, *_: Any, **__: Any) -> list[Value]:
    return [_reduce(r, Call([shape]), x, dims) for shape in call.shapes]


@operation("max", "min", "median", "nanmedian")
def _max(r: Rules, call: Call, x: Value, dim: int | None = None, keep: bool = False) -> Any:
    if dim is None:
        return r.reduce(x, range(len(x.axes)))
    return r.largest(x, dim, 1 if keep else None)


@operation("mode")
def _mode(r: Rules, call: Call, x: Value, dim: int = -1, keep: bool = False) -> list[Value]:
    return r.largest(x, dim, 1 if keep else None)


@operation("kthvalue")
def _kth(r: Rules, call: Call, x: Value, number: int, dim: int = -1, keep: bool = False) -> list[Value]:
    return r.largest(x, dim, 1 if keep else None)


@operation("argmax", "argmin")
def _argmax(r: Rules, call: Call, x: Value, dim: int | None = None, keep: bool = False) -> Value:
    if dim is None:
        return r.reduce(r.fix_axes(x, range(len(x.axes))), range(len(x.axes)), keep)
    return r.largest(x, dim, 1 if keep else None)[1]


@operation("topk")
def _topk(r: Rules, call: Call, x: Value, count: int, dim: int = -1, *_: Any) -> list[Value]:
    return r.largest(x, dim, count)


@operation("sort")
def _sort(r: Rules, call: Call, x: Value, *args: Any, dim: int = -1, **__: Any) -> list[Value]:
    dim = next((a for a in args if isinstance(a, int) and not isinstance(a, bool)), dim)
    return r.largest(x, dim, x.shape[dim] if x.axes else None)


@operation("cumsum", "cumprod", "logcumsumexp", "flip")
def _ordered(r: Rules, call: Call, x: Value, dims: Any, **_: Any) -> Value:
    return r.fix_axes(x, [dims] if isinstance(dims, int) else dims)


@operation("roll")
def _roll(r: Rules, call: Call, x: Value, shifts: Any, dims: Sequence[int] = ()) -> Value:
    return r.fix_axes(x, dims or range(len(x.axes)))


@operation("tril", "triu")
def _triangle(r: Rules, call: Call, x: Value, *_: Any) -> Value:
    return r.fix_axes(x, [-2, -1])


@operation("view", "_unsafe_view", "reshape")
def _view(r: Rules, call: Call, x: Value, *_: Any) -> Value:
    return r.reshape(x, call.shape)


@operation("unsqueeze", "squeeze")
def _squeeze(r: Rules, call: Call, x: Value, *_: Any) -> Value:
    return r.reshape(x, call.shape)


@operation("as_strided")
def _as_strided(
    r: Rules, call: Call, x: Value, size: Sequence[int], stride: Sequence[int], offset: int | None = None
) -> Any:
    steps, start = call.params["memory"]
    same = tuple(size) == x.shape and offset in (None, start)
    if same and all(n == 1 or new == old for n, new, old in zip(size, stride, steps, strict=True)):
        return x  # the same entries, whatever the strides of axes of size 1 are
    return r.in_order(call.shapes, x)


@operation("permute")
def _permute(r: Rules, call: Call, x: Value, order: Sequence[int]) -> Value:
    return r.transpose(x, order)


@operation("expand")
def _expand(r: Rules, call: Call, x: Value, *_: Any) -> Value:
    return r.broadcast(x, call.shape, range(len(call.shape) - len(x.axes), len(call.shape)))


@operation("repeat")
def _repeat(r: Rules, call: Call, x: Value, times: Sequence[int]) -> Value:
    own = [1] * (len(times) - len(x.axes)) + list(x.shape)
    pairs = [n for pair in zip(times, own, strict=True) for n in pair]
    x = r.broadcast(r.reshape(x, own), pairs, range(1, 2 * len(times), 2))
    return r.reshape(x, call.shape)


@operation("cat")
def _cat(r: Rules, call: Call, xs: Sequence[Value], dim: int = 0) -> Value:
    return r.concatenate(xs, dim)


@operation("slice")
def _slice(
    r: Rules,
    call: Call,
    x: Value,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value:
    start, stop, step = slice(start, end, step).indices(x.shape[dim])
    return r.slice(x, dim, start, stop, step)


@operation("select")
def _select(r: Rules, call: Call, x: Value, dim: int, index: int) -> Value:
    index %= x.shape[dim]
    return r.reshape(r.slice(x, dim, index, index + 1), call.shape)


@operation("split_with_sizes")
def _split(r: Rules, call: Call, x: Value, sizes: Sequence[int], dim: int = 0) -> list[Value]:
    return r.split(x, dim, sizes)


@operation("constant_pad_nd")
def _pad(r: Rules, call: Call, x: Value, pad: Sequence[int], *_: Any) -> Value:
    widths = list(zip(pad[::2], pad[1::2], strict=True))[::-1]
    return r.pad(x, [(0, 0)] * (len(x.axes) - len(widths)) + widths)


@operation("embedding")
def _embedding(r: Rules, call: Call, table: Value, numbers: Value, *_: Any) -> Value:
    return r.take(table, numbers, 0)


@operation("index_select")
def _index_select(r: Rules, call: Call, x: Value, dim: int, numbers: Value) -> Value:
    return r.take(x, numbers, dim)


@operation("index")
def _index(r: Rules, call: Call, x: Value, numbers: Sequence[Value | None]) -> Value:
    places = [a for a, n in enumerate(numbers) if n is not None]
    if len(places) == 1:
        return r.take(x, numbers[places[0]], places[0])  # type: ignore[arg-type]
    return r.take_each(x, numbers)


POOLED = {
    1: ("avg_pool1d", "upsample_nearest1d", "upsample_linear1d", "reflection_pad1d", "replication_pad1d"),
    2: (
        *("avg_pool2d", "max_pool2d_with_indices", "_adaptive_avg_pool2d", "adaptive_max_pool2d", "upsample_nearest2d"),
        *(
            "upsample_bilinear2d",
            "upsample_bicubic2d",
            "_upsample_bilinear2d_aa",
            "reflection_pad2d",
            "replication_pad2d",
        ),
    ),
    3: (
        *("avg_pool3d", "max_pool3d_with_indices", "_adaptive_avg_pool3d", "adaptive_max_pool3d", "upsample_nearest3d"),
        *("upsample_trilinear3d", "reflection_pad3d", "replication_pad3d"),
    ),
}
"""Operations that mix neighbors, by the number of their spatial axes, which are the last ones: a batch need not be there."""


def _pooling(space: int) -> Callable[..., Any]:
    """Rule of an operation with a number of spatial axes."""

    def pool(r: Rules, call: Call, x: Value, *_: Any) -> list[Value]:
        axes = range(len(call.shape) - space, len(call.shape))
        out = r.resize(x, call.shape, [a for a in axes if (call.shape[a], x.shape[a]) != (1, 1)])
        return [out, *map(r.opaque, call.shapes[1:])]

    return pool


for dimensions, names in POOLED.items():
    operation(*names)(_pooling(dimensions))


@operation("ones", "empty", "scalar_tensor", "ones_like", "empty_like", "empty_permuted", "empty_strided")
def _ones(r: Rules, call: Call, *_: Any, **__: Any) -> Value:
    return r.constant(call.shape, [False] * len(call.shape))


@operation("zeros", "zeros_like")
def _zeros(r: Rules, call: Call, *_: Any, **__: Any) -> Value:
    return r.constant(call.shape, [False] * len(call.shape), zero=True)


@operation("full", "full_like")
def _full(r: Rules, call: Call, _: Any, entry: Any, **__: Any) -> Value:
    return r.constant(call.shape, [False] * len(call.shape), zero=entry == 0)


@operation("eye")
def _eye(r: Rules, call: Call, rows: int, columns: int | None = None, **_: Any) -> Value:
    return r.identity(rows) if columns in (None, rows) else _ramp(r, call)


@operation("arange")
def _arange(r: Rules, call: Call, *numbers: Any, **_: Any) -> Value:
    start, step = (numbers[0] if len(numbers) > 1 else 0), (numbers[2] if len(numbers) > 2 else 1)
    return r.numbering(call.shape, 0) if (start, step) == (0, 1) else _ramp(r, call)


@operation("linspace", "logspace")
def _ramp(r: Rules, call: Call, *_: Any, **__: Any) -> Value:
    return r.constant(call.shape, [True] * len(call.shape))
