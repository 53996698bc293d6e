"""Converters of com.microsoft's operators that are close to those of ai.onnx, and of more quantised ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from warpbeam.frontend.onnx.build import Result, cast_to, dtype_of, like, rank_of, reshape, shape_of
from warpbeam.frontend.onnx.node import Entry, NodeView
from warpbeam.frontend.onnx.ops_content import unique
from warpbeam.frontend.onnx.ops_contrib import embed_layer_norm
from warpbeam.frontend.onnx.ops_create import range_11
from warpbeam.frontend.onnx.ops_index import gather_nd, pad_11, trilu
from warpbeam.frontend.onnx.ops_nn_image import grid_sample
from warpbeam.frontend.onnx.ops_nn_norm import rms_norm
from warpbeam.frontend.onnx.ops_nn_window import max_pool
from warpbeam.frontend.onnx.ops_quant import qlinear_conv
from warpbeam.frontend.onnx.quantised import dequantised, quantised
from warpbeam.op import get
from warpbeam.relay.expr import Constant, Expr
from warpbeam.topi import dims

# bitsandbytes' values of four bits, in their order there
_FP4 = np.float32([0, 1 / 192, 2 / 3, 1, 1 / 3, 1 / 2, 1 / 6, 1 / 4])
_NF4 = np.float32(
    [-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
     -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
     0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1]
)  # fmt: skip


def _last(x: Expr) -> Expr:
    """Channels from the second place to the last."""
    return get("transpose")(x, axes=(0, *range(2, rank_of(x)), 1))  # type: ignore[no-any-return]


def _second(x: Expr) -> Expr:
    """Channels from the last place to the second."""
    return get("transpose")(x, axes=(0, rank_of(x) - 1, *range(1, rank_of(x) - 1)))  # type: ignore[no-any-return]


def expand_dims(node: NodeView, x: Expr, axis: Expr) -> Result:
    at = int(node.scalar(1, "axis"))
    return get("expand_dims")(x, axis=at if at >= 0 else at + rank_of(x) + 1)


def range_1(node: NodeView, start: Expr, limit: Expr, delta: Expr | None = None) -> Result:
    if delta is None:
        delta = like(1, start)
        node.entries = [*node.entries[:2], Entry(delta, fixed=True)]
    return range_11(node, start, limit, delta)


def unique_1(node: NodeView, x: Expr) -> Result:
    """Values in order of first appearance, which of them each element is, how many there are of each."""
    values, _, inverse, counts = unique(node, x, ordered=False)  # type: ignore[misc]
    return [values, inverse, counts]


def cdist(node: NodeView, a: Expr, b: Expr) -> Result:
    """Distances of all rows of a (m, k) to all rows of b (n, k)."""
    metric = node.attr("metric", "sqeuclidean")
    gap = get("subtract")(get("expand_dims")(a, axis=1), get("expand_dims")(b, axis=0))
    total = get("sum")(get("multiply")(gap, gap), axis=(2,))
    if metric not in ("euclidean", "sqeuclidean"):
        raise node.unsupported(f"metric {metric[:20]!r}")
    return get("sqrt")(total) if metric == "euclidean" else total


def nhwc_max_pool(node: NodeView, x: Expr) -> Result:
    return _last(max_pool(node, _second(x)))  # type: ignore[arg-type]


def matmul_integer16(node: NodeView, a: Expr, b: Expr) -> Result:
    """Products of 16-bit numbers, summed in 32 bits."""
    total = "uint32" if dtype_of(a) == dtype_of(b) == "uint16" else "int32"
    return get("nn.matmul")(cast_to(a, total), cast_to(b, total))


def ms_qlinear_conv(node: NodeView, x: Expr, *rest: Expr | None) -> Result:
    """QLinearConv of data that may have its channels last."""
    if not node.attr("channels_last", 0):
        return qlinear_conv(node, x, *rest)  # type: ignore[arg-type]
    return _last(qlinear_conv(node, _second(x), *rest))  # type: ignore[arg-type]


def _float(x: Expr, scale: Expr, zero: Expr | None) -> Expr:
    return dequantised(x, reshape(scale, ()), None if zero is None else reshape(zero, ()), "float32")


def _steps(y: Expr, scale: Expr, zero: Expr | None, dtype: str) -> Expr:
    point = None if zero is None else reshape(zero, ())
    return quantised(y, reshape(scale, ()), point, dtype, precision="float32")


def qlinear_where(
    node: NodeView, cond: Expr, x: Expr, x_scale: Expr, x_zero: Expr, y: Expr, y_scale: Expr, y_zero: Expr,
    scale: Expr, zero: Expr,
) -> Result:  # fmt: skip
    chosen = get("where")(cond, _float(x, x_scale, x_zero), _float(y, y_scale, y_zero))
    return _steps(chosen, scale, zero, dtype_of(x))


def qlinear_reduce_mean(
    node: NodeView, x: Expr, x_scale: Expr, x_zero: Expr | None, scale: Expr, zero: Expr | None = None
) -> Result:
    axes = tuple(int(a) for a in node.attr("axes", range(rank_of(x))))
    mean = get("mean")(_float(x, x_scale, x_zero), axis=axes, keepdims=bool(node.attr("keepdims", 1)))
    return _steps(mean, scale, zero, dtype_of(x))


def qembed_layer_norm(node: NodeView, ids: Expr, segments: Expr | None, *rest: Expr | None) -> Result:
    """EmbedLayerNormalization of five quantised tables: values, then the mask, then their scales, then zero points."""
    tables, mask, scales, zeros = rest[:5], rest[5], rest[6:11], [*rest[11:16], *[None] * 5]
    real = [
        None if t is None or s is None else _float(t, s, z) for t, s, z in zip(tables, scales, zeros[:5], strict=True)
    ]
    words, places, kinds, gamma, beta = real
    y, index, _ = embed_layer_norm(node, ids, segments, words, places, kinds, gamma, beta, mask)  # type: ignore[misc, arg-type]
    return [y, index]


def gather_block_quantized(
    node: NodeView, data: Expr, indices: Expr, scales: Expr, zeros: Expr | None = None
) -> Result:
    """Rows of a table quantised in blocks along one dimension, as floats; bytes may hold several numbers each."""
    width, block = int(node.attr("bits", 4)), int(node.attr("block_size", 128))
    rank = rank_of(data)
    axis, along = (int(node.attr(n, d)) % rank for n, d in (("gather_axis", 0), ("quantize_axis", 1)))
    packed = dtype_of(data) == "uint8" and width < 8
    if axis == along or (packed and (width not in (2, 4) or along != rank - 1)):
        raise node.unsupported(f"numbers of {width} bits with blocks along dimension {along} of {rank}")
    at = along + rank_of(indices) - 1 if along > axis else along

    def rows(x: Expr) -> Expr:
        return _unpacked(get("take")(x, indices, axis=axis), width) if packed else get("take")(x, indices, axis=axis)

    values = cast_to(rows(data), dtype_of(scales))
    sizes = shape_of(values)

    def spread(x: Expr) -> Expr:
        full = get("repeat")(x, repeats=block, axis=at)
        return get("strided_slice")(full, begin=(0,), end=(sizes[at],), strides=(1,), axes=(at,))  # type: ignore[no-any-return]

    step = get("take")(scales, indices, axis=axis)
    if zeros is not None:
        found = rows(zeros)
        blocks = shape_of(step)[at]
        found = get("strided_slice")(found, begin=(0,), end=(blocks,), strides=(1,), axes=(at,))
        values = get("subtract")(values, spread(cast_to(found, dtype_of(scales))))
    elif dtype_of(data) == "uint8":
        values = get("subtract")(values, like(float(1 << (width - 1)), values))
    return get("multiply")(values, spread(step))


def _unpacked(x: Expr, width: int) -> Expr:
    """Bytes as the numbers of `width` bits in them, the lowest bits first, along the last dimension."""
    mask = like((1 << width) - 1, x)
    parts = [get("bitwise_and")(get("right_shift")(x, like(k, x)), mask) for k in range(0, 8, width)]
    wide = get("concatenate")(*[get("expand_dims")(p, axis=rank_of(x)) for p in parts], axis=rank_of(x))
    return reshape(wide, (*shape_of(x)[:-1], dims.dim(shape_of(x)[-1] * len(parts))))


def matmul_bnb4(node: NodeView, a: Expr, packed: Expr, largest: Expr) -> Result:
    """MatMulBnb4: weights (N, K) of four bits in blocks over all of them, each with its largest magnitude.

    The weights are expanded while importing.
    """
    k, n, block = (int(node.attr(name)) for name in ("K", "N", "block_size"))
    codes, most = node.const(1), node.const(2)
    if codes is None or most is None or not node.attr("transB", 1):
        raise node.unsupported("weights that are not constant, or not (N, K)")
    flat = np.ascontiguousarray(codes).reshape(-1).view(np.uint8)
    four = np.stack([flat >> 4, flat & 15], axis=1).reshape(-1)[: n * k]
    values = _NF4 if int(node.attr("quant_type")) else np.concatenate([_FP4, -_FP4])
    scale = np.repeat(most.reshape(-1).astype(np.float32), block)[: n * k]
    weights = np.ascontiguousarray((values[four] * scale).reshape(n, k))
    return cast_to(get("nn.dense")(cast_to(a, "float32"), Constant(weights)), dtype_of(a))


def simplified_layer_norm(node: NodeView, x: Expr, scale: Expr) -> Result:
    """SimplifiedLayerNormalization, which onnxruntime has in ai.onnx's own domain: results Y and 1/rms."""
    rank = rank_of(x)
    axes = tuple(range(int(node.attr("axis", -1)) % rank, rank))
    y = rms_norm(node, x, scale)
    wide = cast_to(x, "float32")
    power = get("mean")(get("multiply")(wide, wide), axis=axes, keepdims=True)
    return [y, get("rsqrt")(get("add")(power, like(float(node.attr("epsilon", 1e-5)), power)))]  # type: ignore[list-item]


MS = "com.microsoft::"
TABLE: dict[str, dict[int, Any]] = {
    "SimplifiedLayerNormalization": {1: simplified_layer_norm},
    f"{MS}CDist": {1: cdist},
    f"{MS}ExpandDims": {1: expand_dims},
    f"{MS}GatherBlockQuantized": {1: gather_block_quantized},
    f"{MS}GatherND": {1: gather_nd},
    f"{MS}GridSample": {1: grid_sample},
    f"{MS}MatMulBnb4": {1: matmul_bnb4},
    f"{MS}MatMulInteger16": {1: matmul_integer16},
    f"{MS}NhwcMaxPool": {1: nhwc_max_pool},
    f"{MS}Pad": {1: pad_11},
    f"{MS}QEmbedLayerNormalization": {1: qembed_layer_norm},
    f"{MS}QLinearConv": {1: ms_qlinear_conv},
    f"{MS}QLinearReduceMean": {1: qlinear_reduce_mean},
    f"{MS}QLinearWhere": {1: qlinear_where},
    f"{MS}Range": {1: range_1},
    f"{MS}Trilu": {1: trilu},
    f"{MS}Unique": {1: unique_1},
}
