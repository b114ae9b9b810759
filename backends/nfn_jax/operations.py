"""JAX primitives in terms of the rules of `nfn_core.models.rules`: how each passes its arguments on. No rule lives here."""

from dataclasses import replace

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
        "eq",
        "eq_to",
        "erf",
        "erf_inv",
        "erfc",
        "exp",
        "exp2",
    ),
    *("expm1", "floor", "ge", "gt", "imag", "integer_pow", "is_finite", "le", "le_to", "lgamma", "log", "log1p"),
    *("logistic", "lt", "lt_to", "min", "ne", "nextafter", "not", "or", "pow", "real"),
    *("reduce_precision", "rem", "round", "rsqrt", "sign", "sinh", "sqrt", "square", "stop_gradient", "sub"),
    *("tan", "xor"),
)
"""Primitives that map entries."""


def looks_up(name: str, call: Call) -> bool:
    """Whether a primitive uses integers only to look entries up; comparing them with 0 is a part of that."""
    return name == "gather" or (name == "lt" and call.literals[1] == 0)


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
def _convolution(r: Rules, call: Call, x: Value, kernel: Value) -> Value:
    p = call.params
    numbers = p["dimension_numbers"]
    x, kernel = r.transpose(x, numbers.lhs_spec), r.transpose(kernel, numbers.rhs_spec)
    if p["batch_group_count"] != 1:  # gradients only
        r.fix_axes(x, range(len(x.axes)))
        r.fix_axes(kernel, range(len(kernel.axes)))
        return r.opaque(call.shapes[0])
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
    return r.reduce(r.fix_axes(x, call.params["axes"]), call.params["axes"])


@operation("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp")
def _cumulative(r: Rules, call: Call, x: Value) -> Value:
    return r.fix_axes(x, [call.params["axis"]])


@operation("rev")
def _reverse(r: Rules, call: Call, x: Value) -> Value:
    return r.fix_axes(x, call.params["dimensions"])


@operation("sort")
def _sort(r: Rules, call: Call, *values: Value) -> list[Value]:
    joined = r.elementwise(*values)
    return [r.fix_axes(joined, [call.params["dimension"]])] * len(values)


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
        if whole.size == piece.size:
            r.unify(whole, piece)
        else:
            r.fix(whole)
            r.fix(piece)
    return r.same_shape(x)


@operation("iota")
def _iota(r: Rules, call: Call) -> Value:
    return r.constant(call.shapes[0], [a == call.params["dimension"] for a in range(len(call.shapes[0]))])


@operation("gather")
def _gather(r: Rules, call: Call, x: Value, numbers: Value) -> Value:
    g, sizes = call.params["dimension_numbers"], call.params["slice_sizes"]
    looked = list(g.start_index_map)
    simple = len(looked) == 1 and tuple(g.collapsed_slice_dims) == tuple(looked) and not g.operand_batching_dims
    whole = all(n == size for a, (n, size) in enumerate(zip(sizes, x.shape, strict=True)) if a not in looked)
    if not (simple and whole):
        return _gather_each(r, call, x, numbers)
    rows = r.reshape(numbers, numbers.shape[:-1])  # numbers of one axis: their own last axis has size 1
    found = r.take(x, rows, looked[0])
    first, count = looked[0], len(rows.axes)
    own = [*range(first), *range(first + count, len(found.axes))]  # of x; the others are of the numbers
    places = list(g.offset_dims)
    order = [0] * len(found.axes)
    for place, source in zip(places, own, strict=True):
        order[place] = source
    rest = [place for place in range(len(order)) if place not in places]
    for place, source in zip(rest, range(first, first + count), strict=True):
        order[place] = source
    return r.transpose(found, order)


def _gather_each(r: Rules, call: Call, x: Value, numbers: Value) -> Value:
    """Slices at places given by several numbers: only axes that are cut or numbered are fixed."""
    g, sizes = call.params["dimension_numbers"], call.params["slice_sizes"]
    if numbers.index is not None:
        r.invalidate(numbers.index)
    r.fix_axes(numbers, [len(numbers.axes) - 1])  # the numbers of one place
    for mine, other in zip(g.operand_batching_dims, g.start_indices_batching_dims, strict=True):
        r.unify(x.axes[mine], numbers.axes[other])
    gone = {*g.collapsed_slice_dims, *g.operand_batching_dims}
    cut = [a for a, n in enumerate(x.shape) if a in g.start_index_map or (sizes[a] != n and a not in gone)]
    r.fix_axes(x, cut)
    own = iter(r.fixed(sizes[a]) if a in cut else node for a, node in enumerate(x.axes) if a not in gone)
    places = iter(numbers.axes[:-1])
    return Value(tuple(next(own if a in g.offset_dims else places) for a in range(len(call.shape))))
