"""Converters of operators whose results are as large as the contents of their operands say."""

from __future__ import annotations

from typing import Any

import numpy as np

from warpbeam.frontend.onnx.build import Result, cast_to, dtype_of, fields, rank_of, reshape, shape_of, transpose
from warpbeam.frontend.onnx.found import elements, vector
from warpbeam.frontend.onnx.node import NodeView
from warpbeam.op import get
from warpbeam.relay.expr import Call, Constant, Expr, const
from warpbeam.relay.op import Op
from warpbeam.tir import expr as E
from warpbeam.topi import dims


def length(node: NodeView, x: Expr, what: str) -> int:
    """The number of elements of a small integer operand, which must be known."""
    count = dims.prod(shape_of(x))
    if not isinstance(count, int) or rank_of(x) > 1:
        raise node.unsupported(f"{what} whose number of elements is not known")
    return count


def found_sizes(node: NodeView, source: Expr, known: list[Any], bounds: list[Any] | None = None) -> Any:
    """(sizes, extents, bounds): `known` with a new size, held by `source` at the same place, for each None."""
    sizes, extents, most = list(known), [], []
    for k, v in enumerate(known):
        if v is None:
            sizes[k] = node.found.size(node.name, source, k)
            extents.append((sizes[k], 1, k))
            most.append(None if bounds is None else bounds[k])
    return sizes, tuple(extents), tuple(most)


def cut(node: NodeView, x: Expr, count: Expr, size: Any = None) -> tuple[Expr, Any]:
    """(the first entries of x, how many as a size): as many as the scalar `count` says."""
    size = node.found.size(node.name, count) if size is None else size
    return get("counted.cut")(x, count, extents=((size, 1, 0),), bounds=(shape_of(x)[0],)), size


# ------------------------------------------------------------------------------------------------------ what is there


def nonzero_rows(node: NodeView, x: Expr) -> tuple[Expr, Any]:
    """Flat places of the elements that are not zero, and how many."""
    both = fields(get("nonzero_places")(x), 2)
    return cut(node, both[0], both[1])


def nonzero(node: NodeView, x: Expr) -> Result:
    array = node.const(0)
    if array is not None:
        return Constant(np.array(np.nonzero(np.atleast_1d(array)), np.int64))
    x = reshape(x, (1,)) if rank_of(x) == 0 else x
    places, _ = nonzero_rows(node, x)
    return get("unravel_rows")(places, shape=tuple(shape_of(x)))


def compress(node: NodeView, x: Expr, condition: Expr) -> Result:
    axis = node.attr("axis", None)
    if axis is None:
        x, axis = reshape(x, (dims.prod(shape_of(x)),)), 0
    array = node.const(1)
    if array is not None:
        places: Expr = Constant(np.flatnonzero(array).astype(np.int64))
    else:
        places, _ = nonzero_rows(node, condition)
    return get("take")(x, places, axis=axis)


def unique(node: NodeView, x: Expr, ordered: bool = True) -> Result:
    axis = node.attr("axis", None)
    rows, order = reshape(x, (dims.prod(shape_of(x)),)), None
    if axis is not None:
        axis %= rank_of(x)
        order = [axis, *(a for a in range(rank_of(x)) if a != axis)]
        rows = transpose(x, order)
    ordered = ordered and bool(node.attr("sorted", 1))
    first, inverse, counts, count = fields(get("unique_places")(rows, sorted=ordered), 4)
    first, size = cut(node, first, count)
    counts, _ = cut(node, counts, count, size)
    values = get("take")(rows, first, axis=0)
    if order is not None:
        values = transpose(values, [order.index(a) for a in range(len(order))])
    return [values, first, inverse, counts]


def non_max_suppression(
    node: NodeView,
    boxes: Expr,
    scores: Expr,
    most: Expr | None = None,
    overlap: Expr | None = None,
    least: Expr | None = None,
) -> Result:
    kind, (many, counted) = dtype_of(boxes), (shape_of(boxes)[1], shape_of(scores)[2])
    if dims.same(many, counted) is False:
        raise node.error(f"{dims.text(many)} boxes, and scores of {dims.text(counted)}")
    most = const(0, "int64") if most is None else most
    known = node.const(2)
    bound = int(known.reshape(-1)[0]) if known is not None and known.size == 1 else None
    overlap = const(0.0, kind) if overlap is None else cast_to(overlap, kind)
    least = const(-np.inf, kind) if least is None else cast_to(least, kind)
    center = bool(node.attr("center_point_box", 0))
    found = get("vision.nms")(boxes, scores, most, overlap, least, center=center, at_most=bound)
    selected, count = fields(found, 2)
    return cut(node, selected, count)[0]


def top_k(node: NodeView, x: Expr, k: Expr, ascending: bool) -> Result:
    """The first k of each sorted row, k being known at run time only."""
    axis = node.attr("axis", -1) % rank_of(x)
    size = node.found.size(node.name, vector(k))
    node.assume(E.as_expr(size) <= E.as_expr(shape_of(x)[axis]))
    order = get("argsort")(x, axis=axis, is_ascend=ascending, dtype="int64")
    source = node.found.sources[size][0]
    bounded = get("counted.given")(order, source, extents=((size, 1, 0),), bounds=(shape_of(x)[axis],))
    places = get("strided_slice")(bounded, begin=(0,), end=(size,), strides=(1,), axes=(axis,))
    return [get("gather")(x, places, axis=axis), places]


# ------------------------------------------------------------------------------------------------------ shapes as data


def reshape_to(node: NodeView, x: Expr, shape: Expr) -> Result:
    """Reshape whose target is computed from data."""
    length(node, shape, "a shape")
    target = vector(shape)
    keep_zero = bool(node.attr("allowzero", 0))
    known: list[Any] = []
    for k, v in enumerate(elements(target)):
        if v == 0 and isinstance(v, int) and not keep_zero:
            v = shape_of(x)[k]
        known.append(None if isinstance(v, int) and v < 0 else v)
    sizes = get("resolve_shape")(target, node.found.shape(x), allow_zero=keep_zero)
    bounds: list[Any] | None = None
    if known.count(None) == 1:  # as large as what the others leave
        rest = dims.prod(v for v in known if v is not None)
        room = dims.exact_div(dims.prod(shape_of(x)), rest) if rest != 0 else 0
        bounds = [room] * len(known)
    new, extents, most = found_sizes(node, sizes, known, bounds)
    return get("counted.reshape")(x, sizes, newshape=tuple(new), extents=extents, bounds=most)


def expand_to(node: NodeView, x: Expr, shape: Expr) -> Result:
    """Expand whose shape is computed from data."""
    rank = max(length(node, shape, "a shape"), rank_of(x))
    have = [1] * (rank - rank_of(x)) + list(shape_of(x))
    given = elements(vector(shape))
    want = [1] * (rank - len(given)) + given
    parts = [const(np.ones(rank - len(given), np.int64), "int64")] if rank > len(given) else []
    target = get("concatenate")(*parts, vector(shape), axis=0) if parts else vector(shape)
    known: list[Any] = []
    for h, w in zip(have, want, strict=True):
        if isinstance(h, int) and h != 1:
            known.append(h)
        else:
            known.append(
                h if isinstance(w, int) and w == 1 else w if w is not None and not dims.is_counted(h) else None
            )
    sizes = get("broadcast_sizes")(node.found.content(have), target)
    new, extents, most = found_sizes(node, sizes, known)
    return get("counted.broadcast_to")(x, sizes, shape=tuple(new), extents=extents, bounds=most)


def tile_by(node: NodeView, x: Expr, repeats: Expr) -> Result:
    """Tile whose repeats are computed from data."""
    source = vector(repeats)
    if length(node, repeats, "repeats") != rank_of(x):
        raise node.error(f"repeats for another number of dimensions than {rank_of(x)}")
    reps, _, _ = found_sizes(node, source, elements(source))
    return get("tile")(x, reps=tuple(reps))


def filled(node: NodeView, value: Expr, shape: Expr) -> Result:
    """ConstantOfShape whose shape is computed from data."""
    source = vector(shape)
    length(node, shape, "a shape")
    sizes, _, _ = found_sizes(node, source, elements(source))
    return get("full")(value, shape=tuple(sizes))


def range_of(node: NodeView, start: Expr, limit: Expr, delta: Expr) -> Result:
    """Range whose bounds are computed from data."""
    start, limit, delta = (reshape(v, ()) for v in (start, limit, delta))
    count = get("range_count")(start, limit, delta)
    size = node.found.size(node.name, count)
    return get("counted.range")(start, delta, count, extents=((size, 2, 0),))


def slice_at(node: NodeView, x: Expr, starts: Expr, ends: Expr, axes: list[int] | None, steps: Expr | None) -> Result:
    """Slice whose bounds are computed from data."""
    count = length(node, starts, "starts")
    axes = list(range(count)) if axes is None else [a % rank_of(x) for a in axes]
    have = [shape_of(x)[a] for a in axes]
    first, last = vector(starts), vector(ends)
    by = const(np.ones(count, np.int64), "int64") if steps is None else vector(steps)
    plan = get("slice_plan")(first, last, by, node.found.content(have))
    single = count == 1 and elements(by) == [1] and _next(first, last)
    names = [node.found.size(node.name, plan, count + k) for k in range(count)]
    if single:  # one entry: x[i : i + 1]
        node.assume(E.binary(E.EQ, names[0], E.const(1)))
    extents = tuple((v, 1, count + k) for k, v in enumerate(names))
    counts = (1,) if single else tuple(names)
    return get("counted.slice")(x, plan, axes=tuple(axes), counts=counts, extents=extents, bounds=tuple(have))


def _next(first: Expr, last: Expr) -> bool:
    """Whether one integer is another plus 1."""
    first, last = _inner(first), _inner(last)
    if not isinstance(last, Call) or not isinstance(last.op, Op) or last.op.name != "add":
        return False
    a, b = (_inner(v) for v in last.args)
    return (a is first and _is_one(b)) or (b is first and _is_one(a))


def _inner(x: Expr) -> Expr:
    while isinstance(x, Call) and isinstance(x.op, Op) and x.op.name in ("reshape", "squeeze", "expand_dims", "cast"):
        x = x.args[0]
    return x


def _is_one(x: Expr) -> bool:
    return isinstance(x, Constant) and x.numpy().size == 1 and int(x.numpy().reshape(-1)[0]) == 1


def pad_by(node: NodeView, x: Expr, pads: Expr, value: Expr, axes: list[int] | None, mode: str) -> Result:
    """Pad whose widths are computed from data."""
    rank = rank_of(x)
    axes = list(range(rank)) if axes is None else [a % rank for a in axes]
    if length(node, pads, "pads") != 2 * len(axes):
        raise node.error(f"pads for another number of axes than {len(axes)}")
    rows = reshape(vector(pads), (2, len(axes)))
    columns: list[Expr] = []
    for a in range(rank):
        if a in axes:
            k = axes.index(a)
            columns.append(get("strided_slice")(rows, begin=(k,), end=(k + 1,), strides=(1,), axes=(1,)))
        else:
            columns.append(const(np.zeros((2, 1), np.int64), "int64"))
    widths = columns[0] if rank == 1 else get("concatenate")(*columns, axis=1)
    sizes = get("add")(node.found.shape(x), get("sum")(widths, axis=(0,)))
    known: list[Any] = [None if a in axes else shape_of(x)[a] for a in range(rank)]
    new, extents, most = found_sizes(node, sizes, known)
    extents = tuple((v, 3, k) for v, _, k in extents)
    attrs = {"shape": tuple(new), "pad_mode": mode, "extents": extents, "bounds": most}
    return get("counted.pad")(x, reshape(value, ()), widths, sizes, **attrs)


TABLE: dict[str, dict[int, Any]] = {
    "NonZero": {9: nonzero},
    "Compress": {9: compress},
    "Unique": {11: unique},
    "NonMaxSuppression": {10: non_max_suppression},
}
