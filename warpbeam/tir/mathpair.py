"""Mathematical functions of two operands, and 10^x, in terms of the others (see `mathlib`)."""

from __future__ import annotations

import math

from warpbeam.ir import dtype as dt
from warpbeam.tir import expr as E
from warpbeam.tir.mathbase import X, flags, from_bits, layout, lit, mag, shl, shr, sign_of, single
from warpbeam.tir.mathtrig import atan


def _wide(x: X) -> X:
    return E.cast(dt.with_lanes("float64", dt.lanes(x.dtype)), x)


def _isnan(x: X) -> X:
    return E.call("isnan", x, dtype=flags(x))


def fmod(x: X, y: X) -> X:
    """C's remainder, which has the sign of x and is exact."""
    return E.Mod(x, y)


def hypot(x: X, y: X) -> X:
    """float32 in float64; float64 scaled by 2^600 where squares would leave the range. An infinity wins over a NaN."""
    if single(x):
        a, b = _wide(x), _wide(y)
        value = E.cast(x.dtype, E.call("sqrt", E.call("fma", a, a, b * b)))
    else:
        a, b = mag(x), mag(y)
        size = E.maximum(a, b)
        one, large, small = lit(1, x), lit(2.0**600, x), lit(2.0**-600, x)
        down, up = size > lit(2.0**500, x), size < lit(2.0**-500, x)
        scale, back = E.select(down, small, E.select(up, large, one)), E.select(down, large, E.select(up, small, one))
        a, b = a * scale, b * scale
        value = E.call("sqrt", E.call("fma", a, a, b * b)) * back
    inf = lit(float("inf"), x)
    infinite = E.lor(E.binary(E.EQ, mag(x), inf), E.binary(E.EQ, mag(y), inf))
    return E.select(infinite, inf, value)


def atan2(y: X, x: X) -> X:
    """The angle of (x, y): atan of the smaller over the larger magnitude, put into its octant."""
    if single(x):
        return E.cast(x.dtype, atan2(_wide(y), _wide(x)))
    a, b = mag(y), mag(x)
    low, high = E.minimum(a, b), E.maximum(a, b)
    ratio = low / high
    ratio = E.select(E.binary(E.EQ, high, lit(0, x)), lit(0, x), ratio)
    ratio = E.select(E.binary(E.EQ, low, lit(float("inf"), x)), lit(1, x), ratio)
    rest = lit(6.123233995736766e-17, x)
    angle = atan(ratio)
    angle = E.select(a > b, lit(math.pi / 2, x) - (angle - rest), angle)
    left = E.binary(E.LT, sign_of(lit(1, x), x), lit(0, x))
    angle = E.select(left, lit(math.pi, x) - (angle - (rest + rest)), angle)
    return E.select(E.lor(_isnan(x), _isnan(y)), x + y, sign_of(angle, y))


def nextafter(x: X, y: X) -> X:
    """Numbers of one sign are ordered as their bits are: one more or one less."""
    integer = dt.with_lanes(f"int{dt.bits(x.dtype)}", dt.lanes(x.dtype))
    zero, one = lit(0, x), E.const(1, integer)
    bits = E.call("reinterpret", x, dtype=integer)
    grows = E.binary(E.EQ, E.cast(integer, x < y), E.cast(integer, zero < x))
    value = E.call("reinterpret", E.select(grows, bits + one, bits - one), dtype=x.dtype)
    least = E.call("reinterpret", one, dtype=x.dtype)
    value = E.select(E.binary(E.EQ, x, zero), sign_of(least, y), value)
    value = E.select(E.binary(E.EQ, x, y), y, value)
    return E.select(E.lor(_isnan(x), _isnan(y)), x + y, value)


def ldexp(x: X, k: X) -> X:
    """x * 2^k, by two exact factors; float32 in float64, where one is enough of them."""
    bits, bias, integer = layout(_wide(x) if single(x) else x)
    value = _wide(x) if single(x) else x
    most = E.const(2 * bias - 2, integer)
    n = E.maximum(E.const(2 - 2 * bias, integer), E.minimum(most, E.cast(integer, k)))
    biased = n + E.const(2 * bias, integer)
    half = shr(biased, 1)
    value = value * from_bits(shl(half, bits), value) * from_bits(shl(biased - half, bits), value)
    return E.cast(x.dtype, value)
