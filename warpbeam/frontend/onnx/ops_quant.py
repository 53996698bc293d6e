"""Converters of ai.onnx's quantised operators."""

from __future__ import annotations

from typing import Any

from warpbeam.frontend.onnx.build import Result, cast_to, dtype_of, like, rank_of, reshape, shape_of
from warpbeam.frontend.onnx.node import NodeView
from warpbeam.frontend.onnx.ops_nn_window import kernel_sizes, per_axis, spatial_rank, window_padding
from warpbeam.frontend.onnx.quantised import dequantised, quantised, rounded, spread
from warpbeam.frontend.onnx.tensors import elem_dtype
from warpbeam.op import get
from warpbeam.op.integer_products import integer_conv, integer_matmul, one_element
from warpbeam.relay.expr import Expr


def quantize(node: NodeView, x: Expr, scale: Expr, zero: Expr | None = None) -> Result:
    """QuantizeLinear: one scale, one per index of an axis, or one per block along it."""
    code = node.attr("output_dtype", 0)
    dtype = elem_dtype(code, node.name) if code else "uint8" if zero is None else dtype_of(zero)
    if zero is not None and dtype_of(zero) != dtype:
        raise node.error(f"output_dtype is {dtype}, the zero point {dtype_of(zero)}")
    axis, block = node.attr("axis", 1), node.attr("block_size", 0)
    precision = node.attr("precision", 0)
    wide = elem_dtype(precision, node.name) if precision else ""
    s = spread(node, scale, x, axis, block)
    z = None if zero is None else spread(node, zero, x, axis, block)
    return quantised(x, s, z, dtype, bool(node.attr("saturate", 1)), wide)


def dequantize(node: NodeView, x: Expr, scale: Expr, zero: Expr | None = None) -> Result:
    """DequantizeLinear."""
    code = node.attr("output_dtype", 0)
    axis, block = node.attr("axis", 1), node.attr("block_size", 0)
    s = spread(node, scale, x, axis, block)
    z = None if zero is None else spread(node, zero, x, axis, block)
    return dequantised(x, s, z, elem_dtype(code, node.name) if code else "")


def dynamic_quantize(node: NodeView, x: Expr) -> Result:
    """DynamicQuantizeLinear: uint8, its scale and zero point from the range of the data, 0 included."""
    zero = like(0, x)
    high = get("maximum")(get("max")(x, axis=None), zero)
    low = get("minimum")(get("min")(x, axis=None), zero)
    span = get("subtract")(high, low)
    scale = get("divide")(get("where")(get("equal")(span, zero), like(1, x), span), like(255, x))
    point = get("round")(get("clip")(get("divide")(get("negative")(low), scale), a_min=0, a_max=255))
    whole = get("add")(get("round")(get("divide")(x, scale)), point)
    return [cast_to(whole, "uint8"), scale, cast_to(point, "uint8")]  # which clamps


def matmul_integer(node: NodeView, a: Expr, b: Expr, az: Expr | None = None, bz: Expr | None = None) -> Result:
    """MatMulInteger."""
    return integer_matmul(a, b, az, bz)


def conv_attrs(node: NodeView, x: Expr, w: Expr) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """(padding, the other attributes) of a convolution."""
    rank = spatial_rank(node, x)
    strides, dilation = per_axis(node, "strides", rank), per_axis(node, "dilations", rank)
    padding = window_padding(node, shape_of(x)[2:], kernel_sizes(node, w), strides, dilation)
    return padding, {"strides": strides, "dilation": dilation, "groups": int(node.attr("group", 1))}


def conv_integer(node: NodeView, x: Expr, w: Expr, xz: Expr | None = None, wz: Expr | None = None) -> Result:
    """ConvInteger."""
    return integer_conv(x, w, xz, wz, *conv_attrs(node, x, w))


def ratio(x_scale: Expr, w_scale: Expr, y_scale: Expr) -> Expr:
    """The factor from an int32 product to the result's steps."""
    factor = get("multiply")(cast_to(x_scale, "float32"), cast_to(w_scale, "float32"))
    return get("divide")(factor, cast_to(y_scale, "float32"))  # type: ignore[no-any-return]


def requantised(total: Expr, factor: Expr, zero: Expr | None, dtype: str) -> Expr:
    """int32 sums times a factor, rounded to the result's steps."""
    return rounded(get("multiply")(cast_to(total, "float32"), factor), zero, dtype)


def _along(p: Expr, side: int) -> Expr:
    """A parameter of a matrix operand, one per row of the left or column of the right."""
    if one_element(p):
        return reshape(p, ())
    return reshape(p, (shape_of(p)[0], 1)) if side == 0 and rank_of(p) == 1 else p


def qlinear_matmul(
    node: NodeView, a: Expr, a_scale: Expr, a_zero: Expr, b: Expr, b_scale: Expr, b_zero: Expr,
    y_scale: Expr, y_zero: Expr,
) -> Result:  # fmt: skip
    """QLinearMatMul."""
    total = integer_matmul(a, b, a_zero, b_zero)
    factor = ratio(_along(a_scale, 0), _along(b_scale, 1), _along(y_scale, 0))
    return requantised(total, factor, _along(y_zero, 0), dtype_of(y_zero))


def qlinear_conv(
    node: NodeView, x: Expr, x_scale: Expr, x_zero: Expr, w: Expr, w_scale: Expr, w_zero: Expr, y_scale: Expr,
    y_zero: Expr, bias: Expr | None = None,
) -> Result:  # fmt: skip
    """QLinearConv; the bias is int32 in steps of x_scale * w_scale."""
    total = integer_conv(x, w, x_zero, w_zero, *conv_attrs(node, x, w), bias)
    rank = rank_of(x) - 2
    weight = reshape(w_scale, () if one_element(w_scale) else (shape_of(w_scale)[0], *[1] * rank))
    return requantised(
        total, ratio(reshape(x_scale, ()), weight, reshape(y_scale, ())), reshape(y_zero, ()), dtype_of(y_zero)
    )


TABLE: dict[str, dict[int, Any]] = {
    "QuantizeLinear": {10: quantize},
    "DequantizeLinear": {10: dequantize},
    "DynamicQuantizeLinear": {11: dynamic_quantize},
    "MatMulInteger": {10: matmul_integer},
    "ConvInteger": {10: conv_integer},
    "QLinearMatMul": {10: qlinear_matmul},
    "QLinearConv": {10: qlinear_conv},
}
