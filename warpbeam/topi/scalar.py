"""The formulas of operators on single elements, in the operands' dtype. Half floats come in widened to float32."""

from __future__ import annotations

from collections.abc import Callable

from warpbeam.ir import dtype as dt
from warpbeam.tir import expr as E


def intrinsic(name: str) -> Callable[..., E.PrimExpr]:
    """The scalar function `name` (see tir/intrin.py), of its first operand's dtype."""
    return lambda *args: E.call(name, *args)


# ---------------------------------------------------------------------------------------------------------- one operand


def magnitude(x: E.PrimExpr) -> E.PrimExpr:
    if dt.is_float(x.dtype):
        return E.call("abs", x)
    return x if dt.is_unsigned(x.dtype) else E.select(x < 0, -x, x)


def negative(x: E.PrimExpr) -> E.PrimExpr:
    return -x if not dt.is_float(x.dtype) else x * -1.0


def sign(x: E.PrimExpr) -> E.PrimExpr:
    return E.select(x > 0, E.const(1, x.dtype), x if dt.is_unsigned(x.dtype) else E.select(x < 0, -1, x))


def rsqrt(x: E.PrimExpr) -> E.PrimExpr:
    return 1.0 / E.call("sqrt", x)


def relu(x: E.PrimExpr) -> E.PrimExpr:
    return E.maximum(x, E.const(0, x.dtype))


def isnan(x: E.PrimExpr) -> E.PrimExpr:
    return E.call("isnan", x, dtype="bool")


def isinf(x: E.PrimExpr) -> E.PrimExpr:
    return E.binary(E.EQ, E.call("abs", x), float("inf"))


def isfinite(x: E.PrimExpr) -> E.PrimExpr:
    return E.call("abs", x) < float("inf")


# --------------------------------------------------------------------------------------------------------- two operands


def floor_divide(a: E.PrimExpr, b: E.PrimExpr) -> E.PrimExpr:
    return E.call("floor", E.div(a, b)) if dt.is_float(a.dtype) else E.floordiv(a, b)


def trunc_mod(a: E.PrimExpr, b: E.PrimExpr) -> E.PrimExpr:
    return E.Mod(a, b)


def floor_mod(a: E.PrimExpr, b: E.PrimExpr) -> E.PrimExpr:
    if not dt.is_float(a.dtype):
        return E.floormod(a, b)
    r: E.PrimExpr = E.Mod(a, b)
    off = E.land(E.binary(E.NE, r, 0.0), E.binary(E.NE, r < 0.0, b < 0.0))
    return E.select(off, r + b, r)


def power(a: E.PrimExpr, b: E.PrimExpr) -> E.PrimExpr:
    """Integers by squaring (exponents up to 255 in full), floats by the intrinsic."""
    if dt.is_float(a.dtype):
        if dt.bits(a.dtype) < 32:
            return E.cast(a.dtype, E.call("pow", E.cast("float32", a), E.cast("float32", b)))
        return E.call("pow", a, b)
    one = E.const(1, a.dtype)
    out, square, rest = one, a, b
    for _ in range(min(8, dt.bits(b.dtype) - 1)):
        out = E.select(E.binary(E.EQ, E.floormod(rest, 2), 1), out * square, out)
        square, rest = square * square, E.floordiv(rest, 2)
    if dt.is_unsigned(a.dtype):
        return out
    even = E.binary(E.EQ, E.floormod(b, 2), 0)
    below = E.select(
        E.binary(E.EQ, a, 1), one, E.select(E.binary(E.EQ, a, -1), E.select(even, 1, E.const(-1, a.dtype)), 0)
    )
    return E.select(b < 0, below, out)


def equal(a: E.PrimExpr, b: E.PrimExpr) -> E.PrimExpr:
    return E.binary(E.EQ, a, b)


def not_equal(a: E.PrimExpr, b: E.PrimExpr) -> E.PrimExpr:
    return E.binary(E.NE, a, b)


def less(a: E.PrimExpr, b: E.PrimExpr) -> E.PrimExpr:
    return a < b


def less_equal(a: E.PrimExpr, b: E.PrimExpr) -> E.PrimExpr:
    return a <= b


def greater(a: E.PrimExpr, b: E.PrimExpr) -> E.PrimExpr:
    return a > b


def greater_equal(a: E.PrimExpr, b: E.PrimExpr) -> E.PrimExpr:
    return a >= b


# ---------------------------------------------------------------------------------------------------- powers and norms


def norm_power(value: E.PrimExpr, p: int) -> E.PrimExpr:
    """|value|^p, by multiplication (error at most (p - 1)·u) for p up to 16."""
    if not 0 < p <= 16:
        return E.call("pow", E.call("abs", value), E.const(float(p), value.dtype))
    base: E.PrimExpr = value if p % 2 == 0 else E.call("abs", value)
    out: E.PrimExpr | None = None
    while p:
        if p % 2:
            out = base if out is None else out * base
        p //= 2
        base = base * base
    assert out is not None
    return out


def norm_root(value: E.PrimExpr, p: int) -> E.PrimExpr:
    """value^(1/p) of a non-negative value."""
    if p == 2:
        return E.call("sqrt", value)
    return value if p == 1 else E.call("pow", value, E.const(1.0 / p, value.dtype))


def inverse_sqrt(value: E.PrimExpr, epsilon: float) -> E.PrimExpr:
    """1 / sqrt(value + epsilon)."""
    root = E.call("sqrt", value + E.const(float(epsilon), value.dtype))
    return E.div(E.const(1.0, value.dtype), root)


# ------------------------------------------------------------------------------------------------------- run-time index


def wrapped(index: E.PrimExpr, size: E.PrimExpr | int) -> E.PrimExpr:
    """A run-time index as int64, negative ones counted from the end once."""
    index = E.cast("int64", index)
    return E.select(index < 0, index + E.as_expr(size), index)


def clamped(index: E.PrimExpr, size: E.PrimExpr | int) -> E.PrimExpr:
    """An int64 index forced into [0, size)."""
    return E.maximum(E.minimum(index, E.as_expr(size) - 1), 0)


def safe(index: E.PrimExpr, size: E.PrimExpr | int, mode: str = "clip") -> E.PrimExpr:
    """A run-time index made safe: wrapped once then clamped ("clip", "fast"), or modulo the size ("wrap")."""
    if mode == "wrap":
        return E.floormod(E.cast("int64", index), E.as_expr(size))
    return clamped(wrapped(index, size), size)


def inside(index: E.PrimExpr, size: E.PrimExpr | int) -> E.PrimExpr:
    """Whether an int64 index is within [0, size)."""
    return E.land(index >= 0, index < E.as_expr(size))
