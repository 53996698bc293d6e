"""Converters of com.microsoft's quantised operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from warpbeam.frontend.onnx.build import Result, cast_to, dtype_of, like, rank_of, reshape
from warpbeam.frontend.onnx.node import NodeView
from warpbeam.frontend.onnx.ops_contrib_attention import project
from warpbeam.frontend.onnx.ops_nn_window import average_pool
from warpbeam.frontend.onnx.ops_quant import dequantize, dynamic_quantize, quantize, ratio, requantised
from warpbeam.frontend.onnx.quantised import dequantised, quantised
from warpbeam.frontend.onnx.tensors import unpacked
from warpbeam.op import get
from warpbeam.op.integer_products import integer_matmul, one_element
from warpbeam.relay.expr import Constant, Expr, const

Float = Callable[[NodeView, Expr], Expr]


# ---------------------------------------------------------------------- elementwise work between steps of quantisation


def _one(p: Expr | None) -> Expr | None:
    return None if p is None else reshape(p, ())


def _result(node: NodeView, y: Expr, scale: Expr, zero: Expr | None, dtype: str) -> Expr:
    return quantised(y, reshape(scale, ()), _one(zero), dtype if zero is None else dtype_of(zero), precision="float32")


def _float(x: Expr, scale: Expr, zero: Expr | None) -> Expr:
    return dequantised(x, reshape(scale, ()), _one(zero), "float32")


def _binary(name: str) -> Any:
    def convert(
        node: NodeView, a: Expr, a_scale: Expr, a_zero: Expr | None, b: Expr, b_scale: Expr, b_zero: Expr | None,
        scale: Expr, zero: Expr | None = None,
    ) -> Result:  # fmt: skip
        y = get(name)(_float(a, a_scale, a_zero), _float(b, b_scale, b_zero))
        return _result(node, y, scale, zero, dtype_of(a))

    return convert


def _unary(fn: Float) -> Any:
    def convert(
        node: NodeView, x: Expr, x_scale: Expr, x_zero: Expr | None, scale: Expr, zero: Expr | None = None
    ) -> Result:
        return _result(node, fn(node, _float(x, x_scale, x_zero)), scale, zero, dtype_of(x))

    return convert


def _sigmoid(node: NodeView, x: Expr) -> Expr:
    return get("sigmoid")(x)  # type: ignore[no-any-return]


def _leaky_relu(node: NodeView, x: Expr) -> Expr:
    return get("nn.leaky_relu")(x, alpha=float(node.attr("alpha", 0.01)))  # type: ignore[no-any-return]


def _channels_first(node: NodeView, x: Expr, fn: Float) -> Expr:
    """A pooling of data that may have its channels last."""
    if not node.attr("channels_last", 0):
        return fn(node, x)
    rank = rank_of(x)
    y = fn(node, get("transpose")(x, axes=(0, rank - 1, *range(1, rank - 1))))
    return get("transpose")(y, axes=(0, *range(2, rank), 1))  # type: ignore[no-any-return]


def _global_average(node: NodeView, x: Expr) -> Expr:
    return _channels_first(node, x, lambda n, v: get("mean")(v, axis=tuple(range(2, rank_of(v))), keepdims=True))


def _average(node: NodeView, x: Expr) -> Expr:
    return _channels_first(node, x, lambda n, v: average_pool(n, v))  # type: ignore[arg-type, return-value]


def _softmax(node: NodeView, x: Expr) -> Expr:
    rank, axis = rank_of(x), int(node.attr("axis", -1))
    axes = tuple(range(axis % rank, rank)) if int(node.attr("opset", 13)) < 13 else axis
    return get("nn.softmax")(x, axis=axes)  # type: ignore[no-any-return]


def qlinear_concat(node: NodeView, scale: Expr, zero: Expr, *parts: Expr) -> Result:
    """QLinearConcat: operands in threes, each brought to the result's steps."""
    moved = []
    for k in range(0, len(parts), 3):
        x, s, z = parts[k : k + 3]
        moved.append(_result(node, _float(x, s, z), scale, zero, dtype_of(x)))
    return get("concatenate")(*moved, axis=int(node.attr("axis")))


# ----------------------------------------------------------------------------------------------------------- products


def _columns(p: Expr) -> Expr:
    return reshape(p, ()) if one_element(p) else p


def matmul_integer_to_float(
    node: NodeView, a: Expr, b: Expr, a_scale: Expr, b_scale: Expr, a_zero: Expr | None = None,
    b_zero: Expr | None = None, bias: Expr | None = None,
) -> Result:  # fmt: skip
    """MatMulIntegerToFloat: the int32 product by both scales, plus bias."""
    total = cast_to(integer_matmul(a, b, a_zero, b_zero), dtype_of(a_scale))
    y = get("multiply")(total, get("multiply")(_columns(a_scale), _columns(b_scale)))
    return y if bias is None else get("add")(y, bias)


def dynamic_quantize_matmul(
    node: NodeView, a: Expr, b: Expr, b_scale: Expr, b_zero: Expr | None = None, bias: Expr | None = None
) -> Result:
    """DynamicQuantizeMatMul: quantises a by its own range first."""
    small, scale, zero = dynamic_quantize(node, a)  # type: ignore[misc]
    return matmul_integer_to_float(node, small, b, scale, b_scale, zero, b_zero, bias)


def qgemm(
    node: NodeView, a: Expr, a_scale: Expr, a_zero: Expr, b: Expr, b_scale: Expr, b_zero: Expr, c: Expr | None = None,
    y_scale: Expr | None = None, y_zero: Expr | None = None,
) -> Result:  # fmt: skip
    """QGemm: quantised where y_scale is given, else float."""
    flip = [bool(node.attr(n, 0)) for n in ("transA", "transB")]
    a, b = (get("transpose")(x, axes=(1, 0)) if t else x for x, t in zip((a, b), flip, strict=True))
    total = integer_matmul(a, b, _one(a_zero), b_zero)
    total = total if c is None else get("add")(total, c)
    alpha = const(float(node.attr("alpha", 1.0)), "float32")
    scale = get("multiply")(get("multiply")(reshape(a_scale, ()), alpha), _columns(b_scale))
    if y_scale is None:
        return get("multiply")(cast_to(total, "float32"), scale)
    dtype = dtype_of(a) if y_zero is None else dtype_of(y_zero)
    factor = ratio(scale, like(1, scale), reshape(y_scale, ()))
    return requantised(total, factor, _one(y_zero), dtype)


def matmul_nbits(
    node: NodeView, a: Expr, packed: Expr, scales: Expr, zeros: Expr | None = None, groups: Expr | None = None,
    bias: Expr | None = None,
) -> Result:  # fmt: skip
    """MatMulNBits: weights (N, K) of 2, 4 or 8 bits in blocks along K, each with a scale and a zero point.

    The weights are expanded while importing.
    """
    k, n, width = (int(node.attr(name)) for name in ("K", "N", "bits"))
    block = int(node.attr("block_size"))
    codes, steps = node.const(1), node.const(2)
    points = None if zeros is None else node.const(3)
    if codes is None or steps is None or (zeros is not None and points is None) or width not in (2, 4, 8):
        raise node.unsupported("weights that are not constant" if width in (2, 4, 8) else f"{width} bits")
    order = None if groups is None else node.const(4)
    blocks = -(-k // block)
    values = _codes(codes, n * blocks * block, width).reshape(n, blocks, block).astype(np.float32)
    if points is None:
        middle: Any = np.float32(1 << (width - 1))
    elif points.dtype == np.uint8:
        per_row = -(-blocks * width // 8)
        rows = points.reshape(n, per_row)
        count = per_row * 8 // width
        middle = _codes(rows, n * count, width).reshape(n, count)[:, :blocks, None].astype(np.float32)
    else:
        middle = points.reshape(n, blocks, 1).astype(np.float32)
    factor = steps.reshape(n, blocks, 1).astype(np.float32)
    if order is not None and not np.array_equal(order, np.arange(order.size) // block):
        flat = values.reshape(n, -1)[:, :k]
        at = np.asarray(order[:k], np.int64)
        middle = np.broadcast_to(middle, (n, blocks, 1))[:, at, 0]
        weights = (flat - middle) * factor[:, at, 0]
    else:
        weights = ((values - middle) * factor).reshape(n, -1)[:, :k]
    y = get("nn.dense")(cast_to(a, "float32"), Constant(np.ascontiguousarray(weights)))
    y = cast_to(y, dtype_of(a))
    return y if bias is None else get("add")(y, bias)


def _codes(data: np.ndarray, count: int, width: int) -> np.ndarray:
    flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    return flat[:count] if width == 8 else unpacked(flat, f"uint{width}", count).view(np.uint8)


def qattention(
    node: NodeView, x: Expr, w: Expr, bias: Expr, x_scale: Expr, w_scale: Expr, mask: Expr | None = None,
    x_zero: Expr | None = None, w_zero: Expr | None = None, past: Expr | None = None,
) -> Result:  # fmt: skip
    """QAttention: quantised projections of one tensor to queries, keys and values; the rest in floats."""
    both: Any = matmul_integer_to_float(node, x, w, x_scale, w_scale, x_zero, w_zero, bias)
    return project(node, both, mask, past)


MS = "com.microsoft::"
TABLE: dict[str, dict[int, Any]] = {
    f"{MS}QuantizeLinear": {1: quantize},
    f"{MS}DequantizeLinear": {1: dequantize},
    f"{MS}QLinearAdd": {1: _binary("add")},
    f"{MS}QLinearMul": {1: _binary("multiply")},
    f"{MS}QLinearSigmoid": {1: _unary(_sigmoid)},
    f"{MS}QLinearLeakyRelu": {1: _unary(_leaky_relu)},
    f"{MS}QLinearGlobalAveragePool": {1: _unary(_global_average)},
    f"{MS}QLinearAveragePool": {1: _unary(_average)},
    f"{MS}QLinearSoftmax": {1: _unary(_softmax)},
    f"{MS}QLinearConcat": {1: qlinear_concat},
    f"{MS}MatMulIntegerToFloat": {1: matmul_integer_to_float},
    f"{MS}DynamicQuantizeMatMul": {1: dynamic_quantize_matmul},
    f"{MS}QGemm": {1: qgemm},
    f"{MS}MatMulNBits": {1: matmul_nbits},
    f"{MS}QAttention": {1: qattention},
}
