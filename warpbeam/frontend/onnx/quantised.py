"""Building blocks of quantised operators: (x - zero_point) * scale, and its inverse.

Products of quantised tensors are in `op.integer_products`.
"""

from __future__ import annotations

from warpbeam.frontend.onnx.build import cast_to, dtype_of, rank_of, reshape, shape_of
from warpbeam.frontend.onnx.node import NodeView
from warpbeam.frontend.onnx.ops_cast import saturating
from warpbeam.ir import dtype as dt
from warpbeam.op import get
from warpbeam.op.integer_products import is_zero, one_element
from warpbeam.relay.expr import Expr
from warpbeam.topi import dims

BYTES = ("int8", "uint8")


def spread(node: NodeView, p: Expr, x: Expr, axis: int, block: int = 0) -> Expr:
    """A parameter (scale, zero point) so that it broadcasts with `x`: one, one per index of `axis`, or per block."""
    rank = rank_of(x)
    if rank_of(p) == 0 or (one_element(p) and rank_of(p) <= 1):
        return reshape(p, ())
    if not -rank <= axis < rank:
        raise node.error(f"axis {axis} of {rank} dimensions")
    axis %= rank
    if rank_of(p) == 1 and not block:
        return reshape(p, (*[1] * axis, shape_of(p)[0], *[1] * (rank - axis - 1)))
    if rank_of(p) != rank or block <= 0:
        raise node.error(f"a parameter of {rank_of(p)} dimensions for {rank} with block_size {block}")
    every = get("repeat")(p, repeats=block, axis=axis)
    size = shape_of(x)[axis]
    if dims.same(shape_of(every)[axis], size) is not True:
        every = get("strided_slice")(every, begin=(0,), end=(size,), strides=(1,), axes=(axis,))
    return every  # type: ignore[no-any-return]


def quantised(x: Expr, scale: Expr, zero: Expr | None, dtype: str, saturate: bool = True, precision: str = "") -> Expr:
    """round(x / scale) + zero as `dtype`, clamped to it; operands broadcast. x / scale is in `precision`."""
    precision = precision or dtype_of(scale)
    ratio = get("divide")(cast_to(x, precision), cast_to(scale, precision))
    return rounded(ratio, zero, dtype, saturate)


def rounded(value: Expr, zero: Expr | None, dtype: str, saturate: bool = True) -> Expr:
    """A float tensor rounded half to even, shifted by `zero` and clamped to `dtype`."""
    if dt.is_float(dtype):
        wide = cast_to(value, "float32")
        if zero is not None and dt.SMALL_FLOATS[dtype].nan < 0:
            wide = get("add")(wide, cast_to(zero, "float32"))
        return saturating(wide, dtype) if saturate else cast_to(wide, dtype)
    whole = get("round")(cast_to(value, "float32"))
    if zero is not None and not is_zero(zero):
        whole = get("add")(whole, cast_to(zero, "float32"))
    return cast_to(whole, dtype)  # which clamps


def dequantised(x: Expr, scale: Expr, zero: Expr | None, dtype: str = "") -> Expr:
    """(x - zero) * scale in `dtype`, the scale's where not given; operands broadcast."""
    if dt.is_float(dtype_of(x)):
        wide = cast_to(x, "float32")
    else:
        whole = cast_to(x, "int32")
        if zero is not None and not is_zero(zero):
            whole = get("subtract")(whole, cast_to(zero, "int32"))
        wide = cast_to(whole, "float32")
    return cast_to(get("multiply")(wide, cast_to(scale, "float32")), dtype or dtype_of(scale))
