"""ATen operations that look entries up, put them in place, draw, or transform along axes; see `nfn_torch.operations`."""

from collections.abc import Sequence
from typing import Any

from nfn_core.models.operations import Call
from nfn_core.models.rules import Rules, Value, indexed
from nfn_torch.operations import OPERATIONS

__all__ = ["LOOK_UPS"]

operation = OPERATIONS.register

LOOK_UPS = (
    *("embedding", "index", "index_select", "gather", "scatter", "scatter_add", "scatter_reduce", "index_put"),
    *("_embedding_bag", "_embedding_bag_forward_only", "eq", "ne", "ge", "lt", "remainder"),
)
"""Operations that use integers only to look entries up; their rules see to it."""


@operation("ge", "lt", "remainder")
def _range(r: Rules, call: Call, x: Value | float, y: Value | float) -> Value:
    values = [v for v in (x, y) if isinstance(v, Value)]
    found = [v.index for v in values if v.index is not None]
    size = found[0].axis.size if found and found[0].axis is not None else None
    if size is not None and (call.params["name"], y) in {("ge", 0), ("lt", 0), ("lt", size), ("remainder", size)}:
        return values[0] if call.params["name"] == "remainder" else r.elementwise(values[0])  # as all numbers are
    r.invalidate(*values)
    return r.elementwise(*values)


@operation("gather")
def _gather(r: Rules, call: Call, x: Value, dim: int, numbers: Value, **_: Any) -> Value:
    return r.gather(x, numbers, dim) if x.axes else x


@operation("scatter", "scatter_add", "scatter_reduce")
def _scatter(
    r: Rules, call: Call, x: Value, dim: int, numbers: Value, part: Value | float, *how: Any, **options: Any
) -> Value:
    in_order = not (how or options) and isinstance(part, Value) and call.params["name"] == "scatter"
    return r.scatter(x, numbers, part if isinstance(part, Value) else None, dim, in_order)


@operation("index_put", "_unsafe_index_put")
def _index_put(
    r: Rules, call: Call, x: Value, numbers: Sequence[Value | None], part: Value, accumulate: bool = False
) -> Value:
    nodes = call.params["args"][1]
    if len(numbers) == 1 and numbers[0] is not None and str(nodes[0].meta["val"].dtype) == "torch.bool":
        mask = numbers[0]
        if len(part.axes) and part.shape != (1,):
            r.fix_axes(mask, range(len(mask.axes)))  # entries are put in the order of their places
            r.fix_axes(part, [0])
        for node, other in zip(x.axes, mask.axes, strict=False):
            r.unify(node, other)
        for node, other in zip(x.axes[::-1], part.axes[:0:-1], strict=False):
            r.unify(node, other)
        return r.same_shape(x)
    for node, n in zip(x.axes, numbers, strict=False):
        if n is not None:
            r.number(node, n)
    r.invalidate(x, part)
    found = r.elementwise(*[n for n in numbers if n is not None])
    if not accumulate:
        r.fix_axes(found, range(len(found.axes)))
    r.elementwise(indexed(x, numbers, found), part)
    return r.same_shape(x)


@operation("slice_scatter")
def _slice_scatter(
    r: Rules,
    call: Call,
    x: Value,
    part: Value,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value:
    first, last, step = slice(start, end, step).indices(x.shape[dim])
    return r.place(x, part, dim, first, max(first, last), step)


@operation("select_scatter")
def _select_scatter(r: Rules, call: Call, x: Value, part: Value, dim: int, index: int) -> Value:
    dim, index = dim % len(x.axes), index % x.shape[dim]
    row = r.reshape(part, (*x.shape[:dim], 1, *x.shape[dim + 1 :]))
    return r.place(x, row, dim, index, index + 1)


@operation("copy")
def _put(r: Rules, call: Call, x: Value, part: Value, *_: Any) -> Value:
    return r.broadcast(part, call.shape, range(len(call.shape) - len(part.axes), len(call.shape)))


@operation(
    *("rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like", "normal", "uniform"),
    *("bernoulli", "multinomial", "native_dropout", "poisson", "exponential"),
)
def _random(r: Rules, call: Call, *xs: Any, **_: Any) -> list[Value]:
    like = call.params["name"].endswith("_like")  # of which only the shape counts
    return r.in_order(call.shapes, *(() if like else xs))


@operation("grid_sampler_2d", "grid_sampler_3d")
def _grid(r: Rules, call: Call, x: Value, grid: Value, *_: Any) -> Value:
    r.fix_axes(x, range(2, len(x.axes)))
    r.fix_axes(grid, [-1])
    return Value((r.unify(x.axes[0], grid.axes[0]), x.axes[1], *grid.axes[1:-1]))


@operation("_cdist_forward", "_euclidean_dist")
def _distances(r: Rules, call: Call, x: Value, y: Value, *_: Any) -> Value:
    r.read(r.unify(x.axes[-1], y.axes[-1]))
    batch = r.elementwise(Value(x.axes[:-2]), Value(y.axes[:-2])) if len(call.shape) > 2 else Value(())
    return Value((*batch.axes, x.axes[-2], y.axes[-2]))


@operation("_grouped_mm", "transformers::grouped_mm_fallback")
def _grouped(r: Rules, call: Call, x: Value, matrices: Value, *others: Any, **_: Any) -> Any:
    if len(x.axes) != 2 or len(matrices.axes) != 3:
        return r.in_order(call.shapes, x, matrices)
    r.fix_axes(x, [0])  # rows are cut into groups in order
    r.fix_axes(matrices, [0])
    r.read(r.unify(x.axes[1], matrices.axes[1]))
    return Value((x.axes[0], matrices.axes[2]))


@operation("_fft_r2c", "_fft_c2c", "_fft_c2r")
def _fourier(r: Rules, call: Call, x: Value, dims: Sequence[int], *_: Any) -> Value:
    return r.resize(x, call.shape, dims)


@operation("view_as_complex")
def _as_complex(r: Rules, call: Call, x: Value) -> Value:
    r.fix_axes(x, [-1])
    return Value(x.axes[:-1])


@operation("view_as_real")
def _as_real(r: Rules, call: Call, x: Value) -> Value:
    return Value((*x.axes, r.fixed(2)))


@operation("_embedding_bag_forward_only", "_embedding_bag")
def _bag(r: Rules, call: Call, table: Value, numbers: Value, *others: Any, **_: Any) -> list[Value]:
    found = r.take(table, numbers, 0)
    rest = r.in_order(call.shapes[1:], numbers, *others)  # bags are cut from them in order
    return [Value((r.fixed(call.shapes[0][0]), found.axes[-1])), *rest]


@operation("diagonal", "diagonal_copy")
def _diagonal(r: Rules, call: Call, x: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Value:
    return r.diagonal(x, dim1, dim2, call.shape[-1], offset)


@operation("unfold", "unfold_copy")
def _windows(r: Rules, call: Call, x: Value, dim: int, size: int, step: int) -> Value:
    moved = r.resize(x, call.shape[:-1], [dim]) if x.axes else x
    return Value((*moved.axes, r.fixed(size)))


@operation("cummax", "cummin")
def _cumulative(r: Rules, call: Call, x: Value, dim: int) -> list[Value]:
    return [r.fix_axes(x, [dim]), r.fix_axes(x, [dim])]


@operation("bucketize")
def _bucketize(r: Rules, call: Call, x: Value | float, edges: Value, **_: Any) -> Value:
    r.fix_axes(edges, [0])
    return r.same_shape(x) if isinstance(x, Value) else r.opaque(call.shape)


@operation("searchsorted")
def _search(r: Rules, call: Call, edges: Value, x: Value | float, **_: Any) -> Value:
    r.fix_axes(edges, [-1])
    if not isinstance(x, Value):
        return r.opaque(call.shape)
    if len(edges.axes) > 1:
        for a, b in zip(edges.axes[:-1], x.axes[:-1], strict=True):
            r.unify(a, b)
    return r.same_shape(x)


@operation("linalg_inv_ex")
def _inverse(r: Rules, call: Call, x: Value, *_: Any, **__: Any) -> list[Value]:
    *batch, rows, columns = r.normalize(x, [-2, -1]).axes
    return [Value((*batch, columns, rows)), Value(tuple(batch))]


@operation("_linalg_solve_ex")
def _solve(r: Rules, call: Call, matrix: Value, right: Value, left: bool = True, *_: Any, **__: Any) -> Any:
    rank = len(matrix.axes) - 2
    is_vector = len(right.axes) == rank + 1
    if not left or right.shape[:rank] != matrix.shape[:rank]:
        return r.in_order(call.shapes, matrix, right)
    for a in range(rank):
        r.unify(matrix.axes[a], right.axes[a])
    r.unify(matrix.axes[rank], right.axes[rank])
    r.normalize(matrix, [-2, -1])
    own = () if is_vector else (right.axes[-1],)
    return [Value((*matrix.axes[:rank], matrix.axes[-1], *own)), *map(r.opaque, call.shapes[1:])]


@operation("_linalg_det", "_linalg_slogdet")
def _determinant(r: Rules, call: Call, x: Value, *_: Any) -> list[Value]:
    r.unify(x.axes[-2], x.axes[-1])  # one order of rows and columns leaves the sign
    return [r.reduce(x, [-2, -1]) if len(shape) == len(x.axes) - 2 else r.opaque(shape) for shape in call.shapes]


@operation(
    *("linalg_cholesky_ex", "cholesky", "linalg_qr", "_linalg_eigh", "_linalg_svd", "linalg_eig", "_linalg_eigvals"),
    *("linalg_lu", "linalg_lu_factor_ex", "linalg_solve_triangular", "triangular_solve", "cholesky_solve"),
    *("_pdist_forward", "histc", "bincount"),
)
def _in_order(r: Rules, call: Call, *xs: Any, **_: Any) -> list[Value]:
    return r.in_order(call.shapes, *xs)
