"""JAX primitives in terms of the rules of `nfn_core.models.rules`: how each passes its arguments on. No rule lives here."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from nfn_core.models.axes import resolve
from nfn_core.models.operations import COMMON, Call, Registry
from nfn_core.models.rules import Rules, Value

__all__ = ["ELEMENTWISE", "OPERATIONS", "looks_up"]

OPERATIONS = Registry(COMMON)
"""Rules by primitive."""
operation = OPERATIONS.register

ELEMENTWISE = (
    *("abs", "acos", "acosh", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "clamp"),
    *(
        "conj",
        "copy",
        "copy_p",
        "cos",
        "cosh",
        "digamma",
        "eq_to",
        "erf",
        "erf_inv",
        "erfc",
        "exp",
        "exp2",
    ),
    *("expm1", "floor", "ge", "gt", "imag", "integer_pow", "is_finite", "le", "le_to", "lgamma", "log", "log1p"),
    *("logistic", "lt", "lt_to", "min", "nextafter", "not", "or", "pow", "real"),
    *("reduce_precision", "rem", "round", "rsqrt", "sign", "sinh", "sqrt", "square", "stop_gradient", "sub"),
    *("tan", "xor"),
)
"""Primitives that map entries."""


SCATTERS = (
    *(
        "scatter",
        "scatter-add",
        "scatter-sub",
        "scatter-mul",
        "scatter-min",
        "scatter-max",
        "scatter_sub",
        "scatter_mul",
    ),
    *("scatter_add", "scatter_min", "scatter_max"),
)
LOOK_UPS = ("gather", "eq", "ne", "sort", *SCATTERS)
"""Primitives that use integers only to look entries up; their rules see to it."""


def looks_up(name: str, call: Call) -> bool:
    """Whether a primitive uses integers only to look entries up; comparing them with 0 is a part of that."""
    return name in LOOK_UPS or (name == "lt" and call.literals[1] == 0)


@operation(*ELEMENTWISE)
def _elementwise(r: Rules, call: Call, *values: Value) -> Value:
    return r.elementwise(*values)


@operation("max")
def _max(r: Rules, call: Call, x: Value, y: Value) -> Value:
    if call.literals[0] == 0:
        return r.activate("relu", y)
    return r.activate("relu", x) if call.literals[1] == 0 else r.elementwise(x, y)


@operation("add")
def _add(r: Rules, call: Call, x: Value, y: Value) -> Value:
    by = call.literals[1]
    return r.elementwise(x, y) if x.index is None or by is None else r.offset(x, int(by))


@operation("convert_element_type")
def _convert(r: Rules, call: Call, x: Value) -> Value:
    return x if call.params["new_dtype"].kind in "iu" else replace(x, index=None)


@operation("select_n")
def _select(r: Rules, call: Call, predicate: Value, *cases: Value) -> Value:
    return r.select(predicate, *cases)


@operation("dot_general")
def _dot(r: Rules, call: Call, x: Value, y: Value) -> Value:
    summed, batch = (list(zip(*pairs, strict=True)) for pairs in call.params["dimension_numbers"])
    return r.contract(x, y, summed, batch)


@operation("conv_general_dilated")
def _convolution(r: Rules, call: Call, x: Value, kernel: Value) -> Any:
    p = call.params
    numbers = p["dimension_numbers"]
    x, kernel = r.transpose(x, numbers.lhs_spec), r.transpose(kernel, numbers.rhs_spec)
    if p["batch_group_count"] != 1:  # gradients only
        return r.in_order(call.shapes, x, kernel)
    steps = zip(kernel.shape[2:], p["window_strides"], p["padding"], p["lhs_dilation"], strict=True)
    mixing = [taps > 1 or step > 1 or any(pads) or spread > 1 for taps, step, pads, spread in steps]
    space = [call.shapes[0][a] for a in numbers.out_spec[2:]]
    out = r.convolve(x, kernel, space, p["feature_group_count"], mixing, transposed=False)
    return r.transpose(out, sorted(range(len(out.axes)), key=numbers.out_spec.__getitem__))


@operation("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or", "reduce_xor")
def _reduce(r: Rules, call: Call, x: Value) -> Value:
    return r.reduce(x, call.params["axes"])


@operation("argmax", "argmin")
def _argmax(r: Rules, call: Call, x: Value) -> Value:
    return r.largest(x, call.params["axes"][0])[1]


@operation("top_k", "approx_top_k")
def _top_k(r: Rules, call: Call, x: Value) -> list[Value]:
    axis = call.params.get("axis", call.params.get("reduction_dimension", -1))
    return r.largest(x, axis, call.shapes[0][axis])


@operation("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
def _cumulative(r: Rules, call: Call, x: Value) -> Value:
    return r.fix_axes(x, [call.params["axis"]])


@operation("rev")
def _reverse(r: Rules, call: Call, x: Value) -> Value:
    return r.fix_axes(x, call.params["dimensions"])


@operation("sort")
def _sort(r: Rules, call: Call, *values: Value) -> list[Value]:
    axis = call.params["dimension"]
    joined = r.elementwise(*values)
    entries, numbers = r.largest(joined, axis, joined.shape[axis])
    found = []
    for x in values:
        counts = x.index is not None and x.constant and x.index.axis is not None
        if counts and resolve(x.index.axis) is resolve(joined.axes[axis]):  # type: ignore[union-attr, arg-type]
            found.append(numbers)
            continue
        r.invalidate(x)
        found.append(entries)
    return found


@operation("reduce_window_sum", "reduce_window_max", "reduce_window_min")
def _window(r: Rules, call: Call, x: Value) -> Value:
    p = call.params
    steps = zip(p["window_dimensions"], p["window_strides"], p["padding"], strict=True)
    axes = [a for a, (taps, step, pads) in enumerate(steps) if taps > 1 or step > 1 or any(pads)]
    return r.resize(x, call.shapes[0], axes)


@operation("reshape", "squeeze", "expand_dims")
def _reshape(r: Rules, call: Call, x: Value) -> Value:
    return r.reshape(x, call.shapes[0])


@operation("transpose")
def _transpose(r: Rules, call: Call, x: Value) -> Value:
    return r.transpose(x, call.params["permutation"])


@operation("broadcast_in_dim")
def _broadcast(r: Rules, call: Call, x: Value) -> Value:
    return r.broadcast(x, call.shapes[0], call.params["broadcast_dimensions"])


@operation("concatenate")
def _concatenate(r: Rules, call: Call, *values: Value) -> Value:
    return r.concatenate(values, call.params["dimension"])


@operation("slice")
def _slice(r: Rules, call: Call, x: Value) -> Value:
    p = call.params
    for axis, (start, stop) in enumerate(zip(p["start_indices"], p["limit_indices"], strict=True)):
        x = r.slice(x, axis, start, stop, p["strides"][axis] if p["strides"] else 1)
    return x


@operation("split")
def _split(r: Rules, call: Call, x: Value) -> list[Value]:
    return r.split(x, call.params["axis"], [int(n) for n in call.params["sizes"]])


@operation("pad")
def _pad(r: Rules, call: Call, x: Value, _: Value) -> Value:
    config = call.params["padding_config"]
    spaced = [a for a, (_, _, inner) in enumerate(config) if inner]
    x = r.resize(x, [call.shapes[0][a] if a in spaced else n for a, n in enumerate(x.shape)], spaced)
    return r.pad(x, [(0, 0) if inner else (low, high) for low, high, inner in config])


@operation("dynamic_slice")
def _dynamic_slice(r: Rules, call: Call, x: Value, *_: Value) -> Value:
    return r.resize(x, call.shapes[0], [a for a, n in enumerate(call.shapes[0]) if n != x.shape[a]])


@operation("dynamic_update_slice")
def _dynamic_update(r: Rules, call: Call, x: Value, part: Value, *_: Value) -> Value:
    for whole, piece in zip(x.axes, part.axes, strict=True):
        r.match(whole, piece)
    return r.same_shape(x)


@operation("iota")
def _iota(r: Rules, call: Call) -> Value:
    return r.numbering(call.shapes[0], call.params["dimension"])


@operation("gather")
def _gather(r: Rules, call: Call, x: Value, numbers: Value) -> Value:
    g, sizes = call.params["dimension_numbers"], call.params["slice_sizes"]
    rows = _number(r, x, numbers, g.start_index_map, g.collapsed_slice_dims)
    for a, b in zip(g.operand_batching_dims, g.start_indices_batching_dims, strict=True):
        r.unify(x.axes[a], numbers.axes[b])
    own = [a for a in range(len(x.axes)) if a not in (*g.collapsed_slice_dims, *g.operand_batching_dims)]
    places = dict(zip(g.offset_dims, own, strict=True))
    batch = iter(rows.axes)
    axes = []
    for place, size in enumerate(call.shapes[0]):
        if place not in places:
            axes.append(next(batch))
        elif size == x.shape[places[place]]:
            axes.append(x.axes[places[place]])
        else:
            r.fix(x.axes[places[place]])
            axes.append(r.fixed(sizes[places[place]]))
    return r.looked_up(x, axes)


@operation(*SCATTERS)
def _scatter(r: Rules, call: Call, x: Value, numbers: Value, part: Value) -> Value:
    g = call.params["dimension_numbers"]
    rows = _number(r, x, numbers, g.scatter_dims_to_operand_dims, g.inserted_window_dims)
    r.invalidate(x, part)
    for a, b in zip(g.operand_batching_dims, g.scatter_indices_batching_dims, strict=True):
        r.unify(x.axes[a], numbers.axes[b])
    own = [a for a in range(len(x.axes)) if a not in (*g.inserted_window_dims, *g.operand_batching_dims)]
    for place, a in zip(g.update_window_dims, own, strict=True):
        r.match(x.axes[a], part.axes[place])
    batch = [node for a, node in enumerate(part.axes) if a not in g.update_window_dims]
    for node, other in zip(batch, rows.axes, strict=True):
        r.read(r.unify(node, other))  # entries for one place meet
        if call.params["name"] == "scatter":
            r.fix(node)  # of two entries for one place the last one stays
    return r.same_shape(x)


def _number(r: Rules, x: Value, numbers: Value, looked: Sequence[int], whole: Sequence[int]) -> Value:
    """Let the last axis of numbers hold places along axes, and return them without it."""
    if len(looked) == 1 and looked[0] in whole:
        rows = r.reshape(numbers, numbers.shape[:-1])
        r.number(x.axes[looked[0]], rows)
        return rows
    r.fix_axes(x, looked)
    r.fix(numbers.axes[-1])
    r.invalidate(numbers)
    return Value(numbers.axes[:-1])


@operation(
    *("random_seed", "random_bits", "random_wrap", "random_unwrap", "random_split", "random_fold_in", "threefry2x32"),
    *("rng_bit_generator", "random_gamma"),
    *("cholesky", "lu", "lu_pivots_to_permutation", "qr", "geqrf", "householder_product", "eigh", "eig", "svd"),
    *("triangular_solve", "schur", "tridiagonal"),
)
def _in_order(r: Rules, call: Call, *values: Value) -> list[Value]:
    return r.in_order(call.shapes, *values)


@operation("fft")
def _fourier(r: Rules, call: Call, x: Value) -> Value:
    return r.resize(x, call.shapes[0], range(-len(call.params["fft_lengths"]), 0))


@operation("optimization_barrier")
def _barrier(r: Rules, call: Call, *values: Value) -> list[Value]:
    return list(values)
