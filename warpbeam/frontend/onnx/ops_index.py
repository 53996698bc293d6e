"""Converters of gather, scatter, sort, scan, padding and positional operators."""

from __future__ import annotations

from typing import Any

from warpbeam.frontend.onnx import ops_content
from warpbeam.frontend.onnx.found import vector
from warpbeam.frontend.onnx.node import NodeView
from warpbeam.frontend.onnx.ops_nn_norm import cast_to, dtype_of, scalar, shape_of
from warpbeam.ir import dtype as dt
from warpbeam.op import get
from warpbeam.relay.expr import Expr, TupleGetItem, const
from warpbeam.topi import dims

Result = Expr | list[Expr]


def onnx_dtype(node: NodeView, value: Any) -> str:
    """Our dtype name of an ONNX element type number."""
    from onnx import helper

    try:
        return dt.from_numpy(helper.tensor_dtype_to_np_dtype(int(value)))
    except KeyError:
        raise node.error(f"unknown element type {value}") from None


def _within(node: NodeView, x: Expr, axis: int) -> int:
    """`axis`, after constant indices along it were compared with its size; others are brought within it at run time."""
    size = shape_of(x)[axis] if -len(shape_of(x)) <= axis < len(shape_of(x)) else None
    known = node.const(1) if isinstance(size, int) else None
    if known is not None and known.size and not -size <= known.min() <= known.max() < size:  # type: ignore[operator]
        wrong = next(int(v) for v in known.flat if not -size <= v < size)  # type: ignore[operator]
        raise node.error(f"index {wrong} in dimension {axis}, which has {size} entries")
    return axis


def gather(node: NodeView, x: Expr, indices: Expr) -> Result:
    return get("take")(x, indices, axis=_within(node, x, int(node.attr("axis", 0))))


def gather_elements(node: NodeView, x: Expr, indices: Expr) -> Result:
    return get("gather")(x, indices, axis=_within(node, x, int(node.attr("axis", 0))))


def gather_nd(node: NodeView, x: Expr, indices: Expr) -> Result:
    return get("gather_nd")(x, indices, batch_dims=int(node.attr("batch_dims", 0)), index_last=True)


def _reduction(node: NodeView) -> str:
    kind = node.attr("reduction", "none")
    return "update" if kind == "none" else str(kind)


def scatter_elements(node: NodeView, x: Expr, indices: Expr, updates: Expr) -> Result:
    return get("scatter_elements")(x, indices, updates, axis=int(node.attr("axis", 0)), reduction=_reduction(node))


def scatter_nd(node: NodeView, x: Expr, indices: Expr, updates: Expr) -> Result:
    return get("scatter_nd")(x, indices, updates, mode=_reduction(node), index_last=True)


def tensor_scatter(node: NodeView, past: Expr, update: Expr, index: Expr | None = None) -> Result:
    if index is None:
        index = get("full")(const(0, "int64"), shape=(shape_of(past)[0],), dtype="int64")
    circular = node.attr("mode", "linear") == "circular"
    return get("tensor_scatter")(past, update, index, axis=int(node.attr("axis", -2)), circular=circular)


def one_hot(node: NodeView, indices: Expr, depth: Expr, values: Expr) -> Result:
    found = node.value(1)
    if found is None:
        array = node.const(1)
        size: Any = node.found.size(node.name, vector(depth)) if array is None else int(array.reshape(-1)[0])
    else:
        size = dims.dim(found.reshape(-1)[0])
    on, off = (get("take")(values, const(n, "int64"), axis=0) for n in (1, 0))
    return get("one_hot")(indices, on, off, depth=size, axis=int(node.attr("axis", -1)))


def _scan(name: str) -> Any:
    def convert(node: NodeView, x: Expr, axis: Expr) -> Result:
        return get(name)(
            x,
            axis=int(node.scalar(1, "axis")),
            exclusive=bool(node.attr("exclusive", 0)),
            reverse=bool(node.attr("reverse", 0)),
        )

    return convert


def _top_k(node: NodeView, x: Expr, k: int, ascending: bool = False) -> Result:
    both = get("topk")(x, k=k, axis=int(node.attr("axis", -1)), is_ascend=ascending, dtype="int64")
    return [TupleGetItem(both, 0), TupleGetItem(both, 1)]


def top_k_1(node: NodeView, x: Expr) -> Result:
    return _top_k(node, x, int(node.attr("k")))


def top_k_10(node: NodeView, x: Expr, k: Expr) -> Result:
    if node.const(1) is None:
        return ops_content.top_k(node, x, k, False)
    return _top_k(node, x, node.int_list(1, "k")[0])


def top_k_11(node: NodeView, x: Expr, k: Expr) -> Result:
    if node.const(1) is None:
        return ops_content.top_k(node, x, k, not node.attr("largest", 1))
    return _top_k(node, x, node.int_list(1, "k")[0], ascending=not node.attr("largest", 1))


def trilu(node: NodeView, x: Expr, k: Expr | None = None) -> Result:
    shift = const(0, "int64") if k is None else get("reshape")(k, newshape=())
    return get("trilu")(x, shift, upper=bool(node.attr("upper", 1)))


def eye_like(node: NodeView, x: Expr) -> Result:
    dtype = onnx_dtype(node, node.attr("dtype")) if node.has_attr("dtype") else dtype_of(x)
    return get("eye")(shape=shape_of(x), k=int(node.attr("k", 0)), dtype=dtype)


def reverse_sequence(node: NodeView, x: Expr, lengths: Expr) -> Result:
    batch, time = int(node.attr("batch_axis", 1)), int(node.attr("time_axis", 0))
    known, steps = node.const(1), shape_of(x)[time]
    if known is not None and known.size and (known.min() < 0 or (isinstance(steps, int) and known.max() > steps)):
        raise node.error(f"lengths from {known.min()} to {known.max()} of sequences of {dims.text(steps)} steps")
    return get("reverse_sequence")(x, lengths, seq_axis=time, batch_axis=batch)


def _padded(node: NodeView, x: Expr, pads: list[Any], value: Expr, axes: list[int] | None = None) -> Result:
    rank = len(shape_of(x))
    axes = list(range(rank)) if axes is None else [a % rank for a in axes]
    if len(pads) != 2 * len(axes):
        raise node.error(f"pads has {len(pads)} values for {len(axes)} axes")
    widths: list[tuple[Any, Any]] = [(0, 0)] * rank
    for n, a in enumerate(axes):
        widths[a] = (pads[n], pads[n + len(axes)])
    mode = str(node.attr("mode", "constant"))
    return get("nn.pad")(x, value, pad_width=tuple(widths), pad_mode=mode)


def pad_2(node: NodeView, x: Expr) -> Result:
    return _padded(node, x, [int(p) for p in node.attr("pads")], scalar(node.attr("value", 0.0), x))


def pad_11(node: NodeView, x: Expr, pads: Expr, value: Expr | None = None, axes: Expr | None = None) -> Result:
    fill = scalar(0, x) if value is None else cast_to(value, dtype_of(x))
    own = None if axes is None else node.int_list(3, "axes")
    if node.value(1) is None:
        return ops_content.pad_by(node, x, pads, fill, own, str(node.attr("mode", "constant")))
    return _padded(node, x, node.ints(1, "pads"), fill, own)


def center_crop_pad(node: NodeView, x: Expr, shape: Expr) -> Result:
    """Each axis cut or padded evenly; an odd rest goes to the end."""
    have, rank = shape_of(x), len(shape_of(x))
    axes = [int(a) % rank for a in node.attr("axes", range(rank))]
    widths: list[tuple[Any, Any]] = [(0, 0)] * rank
    for a, want in zip(axes, node.ints(1, "shape"), strict=True):
        if not isinstance(want, int) or not isinstance(have[a], int):
            if dims.same(want, have[a]) is True:
                continue
            raise node.unsupported("a symbolic size")
        gap = want - have[a]
        before = gap // 2 if gap >= 0 else -(-gap // 2)
        widths[a] = (before, gap - before)
    return get("nn.pad")(x, scalar(0, x), pad_width=tuple(widths))


TABLE: dict[str, dict[int, Any]] = {
    "Gather": {1: gather},
    "GatherElements": {11: gather_elements},
    "GatherND": {11: gather_nd},
    "Scatter": {9: scatter_elements},
    "ScatterElements": {11: scatter_elements},
    "ScatterND": {11: scatter_nd},
    "TensorScatter": {24: tensor_scatter},
    "OneHot": {9: one_hot},
    "CumSum": {11: _scan("cumsum")},
    "CumProd": {26: _scan("cumprod")},
    "TopK": {1: top_k_1, 10: top_k_10, 11: top_k_11},
    "Trilu": {14: trilu},
    "EyeLike": {9: eye_like},
    "ReverseSequence": {10: reverse_sequence},
    "Pad": {2: pad_2, 11: pad_11},
    "CenterCropPad": {18: center_crop_pad},
}
