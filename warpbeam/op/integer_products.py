"""Products of bytes as the graph's operators: sums in int32, what zero points add taken off afterwards.

That comes from sums along the reduced axis, which are constants where the operand is. All of it is exact modulo 2^32,
as the sums themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.op.table import get
from warpbeam.relay.expr import Call, Constant, Expr, const
from warpbeam.relay.op import Op
from warpbeam.topi import dims


def _shape(x: Expr) -> tuple[Any, ...]:
    return x.checked_type.shape  # type: ignore[attr-defined, no-any-return]


def _dtype(x: Expr) -> str:
    return x.checked_type.dtype  # type: ignore[attr-defined, no-any-return]


def _cast(x: Expr, dtype: str) -> Expr:
    return x if _dtype(x) == dtype else get("cast")(x, dtype=dtype)


def _reshape(x: Expr, shape: tuple[Any, ...]) -> Expr:
    return x if _shape(x) == shape else get("reshape")(x, newshape=shape)


def one_element(x: Expr) -> bool:
    """Whether a tensor is known to have one element."""
    return all(isinstance(d, int) and d == 1 for d in _shape(x))


def is_zero(x: Expr) -> bool:
    """Whether a tensor is known to be all zeros, perhaps of another shape or type at first."""
    while isinstance(x, Call) and isinstance(x.op, Op) and x.op.name in ("cast", "reshape", "expand_dims", "squeeze"):
        x = x.args[0]
    return isinstance(x, Constant) and not np.any(x.numpy().astype(np.float32))


def _int(value: int) -> Expr:
    return const(value, "int32")


def signed_weights(w: Expr, zero: Expr | None) -> tuple[Expr, Expr | None]:
    """A constant uint8 operand and its zero point less 128, as int8 and int32: what instructions multiply by uint8."""
    if not isinstance(w, Constant) or _dtype(w) != "uint8":
        return w, zero
    moved = Constant((w.numpy() ^ np.uint8(128)).view(np.int8))
    if isinstance(zero, Constant):
        return moved, Constant(np.asarray(zero.numpy().astype(np.int32) - 128))
    if zero is None:
        return moved, _int(-128)
    return moved, get("subtract")(_cast(zero, "int32"), _int(128))


def _short_of(size: Any) -> int:
    """How many a size lacks to a multiple of four, the neighbours that dot-product instructions take; 0: symbolic."""
    return -size % 4 if isinstance(size, int) else 0


def _filling(w: Expr, w_zero: Expr | None, attrs: Mapping[str, Any]) -> tuple[int, int]:
    """(an axis of a convolution's weights, how many zeros are put behind it), so that instructions can take neighbours
    along it: input channels, or, of one channel, the taps of a row, where what lies behind the last one is multiplied
    by 0 (not by -w_zero).
    """
    if attrs["groups"] != 1 or not isinstance(w, Constant):
        return 1, 0
    dilation = attrs["dilation"]
    near = (dilation if isinstance(dilation, int) else dilation[-1]) == 1
    axis = len(_shape(w)) - 1 if _shape(w)[1] == 1 and near and (w_zero is None or is_zero(w_zero)) else 1
    return axis, _short_of(_shape(w)[axis])


def _with_zeros(w: Expr, axis: int, count: int) -> Constant:
    """Constant weights with zeros after them along an axis."""
    assert isinstance(w, Constant)
    widths = [(0, 0)] * len(_shape(w))
    widths[axis] = (0, count)
    return Constant(np.pad(w.numpy(), widths))


def _total(x: Expr, axes: tuple[int, ...]) -> Expr:
    return get("sum")(_cast(x, "int32"), axis=axes, keepdims=True)  # type: ignore[no-any-return]


def integer_matmul(a: Expr, b: Expr, a_zero: Expr | None, b_zero: Expr | None) -> Expr:
    """(a - a_zero) @ (b - b_zero) in int32. Zero points: one, or one per row of a and column of b."""
    weights = isinstance(b, Constant)
    b, b_zero = signed_weights(b, b_zero)
    left = _matrix_zero(a_zero, a, 0)
    right = _matrix_zero(b_zero, b, 1)
    depth = _shape(b)[0]
    more = _short_of(depth) if len(_shape(b)) == 2 and weights else 0
    if more and len(_shape(a)) > 1:  # more products by 0
        a = get("nn.pad")(a, const(0, _dtype(a)), pad_width=(*[(0, 0)] * (len(_shape(a)) - 1), (0, more)))
        b = _with_zeros(b, 0, more)
    out: Expr = get("nn.matmul")(a, b, out_dtype="int32")
    if len(_shape(a)) < 2 or len(_shape(b)) < 2:
        if left is None and right is None:
            return out
        wide_a, wide_b = (_shifted(x, z) for x, z in ((a, a_zero), (b, b_zero)))
        return get("nn.matmul")(wide_a, wide_b)  # type: ignore[no-any-return]
    if left is not None:
        columns = _total(b, (-2,))
        if right is not None:
            depth = depth if len(_shape(b)) == 2 else _shape(b)[-2]
            if not isinstance(depth, int):
                return get("nn.matmul")(_shifted(a, left), _shifted(b, right))  # type: ignore[no-any-return]
            columns = get("subtract")(columns, get("multiply")(right, _int(depth)))
        out = get("subtract")(out, get("multiply")(left, columns))
    if right is not None:
        out = get("subtract")(out, get("multiply")(_total(a, (-1,)), right))
    return out


def _shifted(x: Expr, zero: Expr | None) -> Expr:
    wide = _cast(x, "int32")
    return wide if zero is None else get("subtract")(wide, _cast(zero, "int32"))


def _matrix_zero(zero: Expr | None, x: Expr, side: int) -> Expr | None:
    """A zero point as int32 that broadcasts with matrices; None for 0."""
    if zero is None or is_zero(zero):
        return None
    wide = _cast(zero, "int32")
    if one_element(zero):
        return _reshape(wide, ())
    if len(_shape(zero)) == 1 and side == 0:
        return _reshape(wide, (_shape(zero)[0], 1))
    return wide


def integer_conv(
    x: Expr, w: Expr, x_zero: Expr | None, w_zero: Expr | None, padding: tuple[Any, ...], attrs: dict[str, Any],
    bias: Expr | None = None,
) -> Expr:  # fmt: skip
    """The convolution of (x - x_zero) and (w - w_zero) in int32, plus bias; borders are x_zero. w_zero: one or per
    output.
    """
    rank = len(_shape(x)) - 2
    w, w_zero = signed_weights(w, w_zero)
    if x_zero is not None and is_zero(x_zero):
        x_zero = None
    axis, more = _filling(w, w_zero, attrs)
    if more:  # more products by 0
        w = _with_zeros(w, axis, more)
    if more or any(not (isinstance(p, int) and p == 0) for p in padding):
        widths = [(0, 0), (0, 0), *zip(padding[:rank], padding[rank:], strict=True)]
        widths[axis] = (widths[axis][0], widths[axis][1] + more)
        border = const(0, _dtype(x)) if x_zero is None else _reshape(x_zero, ())
        x = get("nn.pad")(x, border, pad_width=tuple(widths))
    conv: Callable[..., Expr] = get(f"nn.conv{rank}d")
    out = conv(x, w, out_dtype="int32", padding=0, **attrs)
    offset = None if bias is None else _reshape(bias, (_shape(w)[0], *[1] * rank))
    taps = tuple(range(1, rank + 2))
    zero = None if w_zero is None or is_zero(w_zero) else _cast(w_zero, "int32")
    if zero is not None and not one_element(zero):
        zero = _reshape(zero, (_shape(zero)[0], *[1] * rank))
    elif zero is not None:
        zero = _reshape(zero, ())
    if x_zero is not None:
        sums = _reshape(_total(w, taps), (_shape(w)[0], *[1] * rank))
        if zero is not None:
            count = dims.prod(_shape(w)[1:])
            sums = get("subtract")(sums, get("multiply")(zero, _int(count)))
        extra = get("multiply")(_reshape(_cast(x_zero, "int32"), ()), sums)
        offset = get("negative")(extra) if offset is None else get("subtract")(offset, extra)
    if offset is not None:
        out = get("add")(out, offset)
    if zero is not None:
        out = get("subtract")(out, get("multiply")(_window_sums(x, w, attrs), zero))
    return out


def _window_sums(x: Expr, w: Expr, attrs: dict[str, Any]) -> Expr:
    """The sums of x below each position of a kernel, per group repeated for each of its outputs: channels first, where
    their number is known, then what is below the kernel.
    """
    (batch, channels, *sizes), groups = _shape(x), int(attrs["groups"])
    each = _shape(w)[1]
    if groups == 1:
        x, each = _total(x, (1,)), 1
    elif each != 1 and isinstance(channels, int):
        x = _reshape(_total(_reshape(x, (batch, groups, each, *sizes)), (2,)), (batch, groups, *sizes))
        each = 1
    ones = Constant(np.ones((groups, each, *_shape(w)[2:]), dt.to_numpy(_dtype(x))))
    sums: Expr = get(f"nn.conv{len(sizes)}d")(x, ones, out_dtype="int32", padding=0, **attrs)
    return sums if groups == 1 else get("repeat")(sums, repeats=_shape(w)[0] // groups, axis=1)
