"""Building blocks of quantised operators: (x - zero_point) * scale, its inverse, and products of small integers.

Products of bytes are summed in int32 as they are; what zero points add to them is taken off afterwards, from sums along
the reduced axis, which are constants where the operand is. All of it is exact modulo 2^32, as the sums themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from warpbeam.frontend.onnx.build import cast_to, dtype_of, rank_of, reshape, shape_of
from warpbeam.frontend.onnx.node import NodeView
from warpbeam.frontend.onnx.ops_cast import saturating
from warpbeam.ir import dtype as dt
from warpbeam.op import get
from warpbeam.relay.expr import Constant, Expr, const
from warpbeam.topi import dims

BYTES = ("int8", "uint8")


def one_element(x: Expr) -> bool:
    """Whether a tensor is known to have one element."""
    return all(isinstance(d, int) and d == 1 for d in shape_of(x))


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
    if zero is not None and not _is_zero(zero):
        whole = get("add")(whole, cast_to(zero, "float32"))
    return cast_to(whole, dtype)  # which clamps


def dequantised(x: Expr, scale: Expr, zero: Expr | None, dtype: str = "") -> Expr:
    """(x - zero) * scale in `dtype`, the scale's where not given; operands broadcast."""
    if dt.is_float(dtype_of(x)):
        wide = cast_to(x, "float32")
    else:
        whole = cast_to(x, "int32")
        if zero is not None and not _is_zero(zero):
            whole = get("subtract")(whole, cast_to(zero, "int32"))
        wide = cast_to(whole, "float32")
    return cast_to(get("multiply")(wide, cast_to(scale, "float32")), dtype or dtype_of(scale))


def _is_zero(x: Expr) -> bool:
    return isinstance(x, Constant) and not np.any(x.numpy().astype(np.float32))


# ------------------------------------------------------------------------------------------- products of small integers


def _int(value: int) -> Expr:
    return const(value, "int32")  # type: ignore[no-any-return]


def signed_weights(w: Expr, zero: Expr | None) -> tuple[Expr, Expr | None]:
    """A constant uint8 operand and its zero point less 128, as int8 and int32: what instructions multiply by uint8."""
    if not isinstance(w, Constant) or dtype_of(w) != "uint8":
        return w, zero
    moved = Constant((w.numpy() ^ np.uint8(128)).view(np.int8))
    if isinstance(zero, Constant):
        return moved, Constant(np.asarray(zero.numpy().astype(np.int32) - 128))
    if zero is None:
        return moved, _int(-128)
    return moved, get("subtract")(cast_to(zero, "int32"), _int(128))


def _short_of(size: Any) -> int:
    """How many a size lacks to a multiple of four, the neighbours that dot-product instructions take; 0: symbolic."""
    return -size % 4 if isinstance(size, int) else 0


def _with_zeros(w: Expr, axis: int, count: int) -> Constant:
    """Constant weights with zeros after them along an axis."""
    assert isinstance(w, Constant)
    widths = [(0, 0)] * rank_of(w)
    widths[axis] = (0, count)
    return Constant(np.pad(w.numpy(), widths))


def _total(x: Expr, axes: tuple[int, ...]) -> Expr:
    return get("sum")(cast_to(x, "int32"), axis=axes, keepdims=True)  # type: ignore[no-any-return]


def integer_matmul(node: NodeView, a: Expr, b: Expr, a_zero: Expr | None, b_zero: Expr | None) -> Expr:
    """(a - a_zero) @ (b - b_zero) in int32. Zero points: one, or one per row of a and column of b."""
    weights = isinstance(b, Constant)
    b, b_zero = signed_weights(b, b_zero)
    left = _matrix_zero(a_zero, a, 0)
    right = _matrix_zero(b_zero, b, 1)
    more = _short_of(shape_of(b)[0]) if rank_of(b) == 2 and weights and right is None else 0
    if more and rank_of(a) > 1:  # more products by 0
        a = get("nn.pad")(a, const(0, dtype_of(a)), pad_width=(*[(0, 0)] * (rank_of(a) - 1), (0, more)))
        b = _with_zeros(b, 0, more)
    out: Expr = get("nn.matmul")(a, b, out_dtype="int32")
    if rank_of(a) < 2 or rank_of(b) < 2:
        if left is None and right is None:
            return out
        wide_a, wide_b = (_shifted(x, z) for x, z in ((a, a_zero), (b, b_zero)))
        return get("nn.matmul")(wide_a, wide_b)  # type: ignore[no-any-return]
    if left is not None:
        columns = _total(b, (-2,))
        if right is not None:
            depth = shape_of(b)[-2]
            if not isinstance(depth, int):
                return get("nn.matmul")(_shifted(a, left), _shifted(b, right))  # type: ignore[no-any-return]
            columns = get("subtract")(columns, get("multiply")(right, _int(depth)))
        out = get("subtract")(out, get("multiply")(left, columns))
    if right is not None:
        out = get("subtract")(out, get("multiply")(_total(a, (-1,)), right))
    return out


def _shifted(x: Expr, zero: Expr | None) -> Expr:
    wide = cast_to(x, "int32")
    return wide if zero is None else get("subtract")(wide, cast_to(zero, "int32"))  # type: ignore[no-any-return]


def _matrix_zero(zero: Expr | None, x: Expr, side: int) -> Expr | None:
    """A zero point as int32 that broadcasts with matrices; None for 0."""
    if zero is None or _is_zero(zero):
        return None
    wide = cast_to(zero, "int32")
    if one_element(zero):
        return reshape(wide, ())
    if rank_of(zero) == 1 and side == 0:
        return reshape(wide, (shape_of(zero)[0], 1))
    return wide


def integer_conv(
    x: Expr, w: Expr, x_zero: Expr | None, w_zero: Expr | None, padding: tuple[Any, ...], attrs: dict[str, Any],
    bias: Expr | None = None,
) -> Expr:  # fmt: skip
    """The convolution of (x - x_zero) and (w - w_zero) in int32, plus bias; borders are x_zero. w_zero: one or per
    output.
    """
    rank = rank_of(x) - 2
    w, w_zero = signed_weights(w, w_zero)
    if x_zero is not None and _is_zero(x_zero):
        x_zero = None
    plain = w_zero is None or _is_zero(w_zero)
    more = _short_of(shape_of(w)[1]) if plain and attrs["groups"] == 1 and isinstance(w, Constant) else 0
    if more:  # more products by 0
        w = _with_zeros(w, 1, more)
    if more or any(not (isinstance(p, int) and p == 0) for p in padding):
        widths = ((0, 0), (0, more), *zip(padding[:rank], padding[rank:], strict=True))
        border = const(0, dtype_of(x)) if x_zero is None else reshape(x_zero, ())
        x = get("nn.pad")(x, border, pad_width=widths)
    conv: Callable[..., Expr] = get(f"nn.conv{rank}d")
    out = conv(x, w, out_dtype="int32", padding=0, **attrs)
    offset = None if bias is None else reshape(bias, (shape_of(w)[0], *[1] * rank))
    taps = tuple(range(1, rank + 2))
    zero = None if w_zero is None or _is_zero(w_zero) else cast_to(w_zero, "int32")
    if zero is not None and not one_element(zero):
        zero = reshape(zero, (shape_of(zero)[0], *[1] * rank))
    elif zero is not None:
        zero = reshape(zero, ())
    if x_zero is not None:
        sums = reshape(_total(w, taps), (shape_of(w)[0], *[1] * rank))
        if zero is not None:
            count = dims.prod(shape_of(w)[1:])
            sums = get("subtract")(sums, get("multiply")(zero, _int(count)))
        extra = get("multiply")(reshape(cast_to(x_zero, "int32"), ()), sums)
        offset = get("negative")(extra) if offset is None else get("subtract")(offset, extra)
    if offset is not None:
        out = get("add")(out, offset)
    if zero is not None:
        out = get("subtract")(out, get("multiply")(_window_sums(x, w, attrs), zero))
    return out


def _window_sums(x: Expr, w: Expr, attrs: dict[str, Any]) -> Expr:
    """The sums of x below each position of a kernel, per group repeated for each of its outputs."""
    rank, groups = rank_of(x) - 2, int(attrs["groups"])
    ones = Constant(np.ones((groups, *shape_of(w)[1:]), np.int8))
    sums: Expr = get(f"nn.conv{rank}d")(x, ones, out_dtype="int32", padding=0, **attrs)
    return sums if groups == 1 else get("repeat")(sums, repeats=shape_of(w)[0] // groups, axis=1)  # type: ignore[no-any-return]
