"""Sine, cosine, tangent and their inverses as explicit expressions; see `mathlib`."""

from __future__ import annotations

import math

from warpbeam.ir import dtype as dt
from warpbeam.tir import expr as E
from warpbeam.tir.mathbase import X, bits_of, fma, from_bits, int_lit, lit, mag, nan, odd, poly, sign_of, single, table
from warpbeam.tir.mathcoef import TWO_OVER_PI


def _quadrant_single(x: X) -> tuple[X, X]:
    """float32: (quadrant, angle within it as float32), in float64. Products of x with 28-bit pieces of 2/pi are exact,
    and so are their remainders modulo 4: the sum is right for every x."""
    wide = E.cast(dt.with_lanes("float64", dt.lanes(x.dtype)), x)
    total = lit(0, wide)
    for piece in _pieces(28, 7):
        product = wide * lit(piece, wide)
        turns = E.call("round", product * lit(0.25, wide))
        total = total + fma(turns, lit(-4, wide), product)
    quadrant = E.call("round", total)
    angle = (total - quadrant) * lit(math.pi / 2, wide)
    return E.cast(dt.with_lanes("int32", dt.lanes(x.dtype)), quadrant), E.cast(x.dtype, angle)


def _pieces(width: int, count: int) -> list[float]:
    """2/pi as a sum of floats of `width` bits each."""
    number, bits = int(TWO_OVER_PI, 16), len(TWO_OVER_PI) * 4
    mask = (1 << width) - 1
    return [math.ldexp((number >> (bits - width * (k + 1))) & mask, -width * (k + 1)) for k in range(count)]


def _quadrant_double(x: X) -> tuple[X, X]:
    """float64: three-part reduction up to 2^27, beyond it the exact products of `_quadrant_single` in more pieces."""
    n = E.call("round", x * lit(2 / math.pi, x))
    r = fma(n, lit(-1.5707963267948966, x), x)
    w = n * lit(6.123233995736766e-17, x)
    angle = r - w
    angle = angle + (fma(n, lit(-6.123233995736766e-17, x), w) + ((r - angle) - w))
    angle = fma(n, lit(1.4973849048591833e-33, x), angle)
    raw = bits_of(x)
    high = from_bits(E.call("bitwise_and", raw, int_lit(~((1 << 27) - 1), raw)), x)
    total = lit(0, x)
    for part in (high, x - high):
        for piece in _pieces(26, 44):
            product = part * lit(piece, x)
            turns = E.call("round", product * lit(0.25, x))
            total = total + fma(turns, lit(-4, x), product)
    total = total - lit(4, x) * E.call("round", total * lit(0.25, x))
    quadrant = E.call("round", total)
    far = mag(x) > lit(2.0**27, x)
    angle = E.select(far, (total - quadrant) * lit(math.pi / 2, x), angle)
    return E.cast(dt.with_lanes("int64", dt.lanes(x.dtype)), E.select(far, quadrant, n)), angle


def _sin_cos(x: X) -> tuple[X, X, X]:
    """(quadrant, sine and cosine of the angle within it)."""
    quadrant, r = _quadrant_single(x) if single(x) else _quadrant_double(x)
    z = r * r
    sine = fma(poly(z, table("sin", x)) * z, r, r)
    cosine = fma(poly(z, table("cos", x)), z * z, fma(z, lit(-0.5, x), lit(1, x)))
    return quadrant, sine, cosine


def _wave(x: X, quadrant: X, even: X, odd: X) -> X:
    """`even` in even quadrants, `odd` in odd ones; negative in quadrants 2 and 3; NaN for infinities."""
    one = int_lit(1, quadrant)
    swap = E.binary(E.NE, E.call("bitwise_and", quadrant, one), int_lit(0, quadrant))
    flip = E.binary(E.NE, E.call("bitwise_and", quadrant, int_lit(2, quadrant)), int_lit(0, quadrant))
    value = E.select(swap, odd, even)
    value = E.select(flip, value * lit(-1, x), value)
    return E.select(mag(x) < lit(float("inf"), x), value, nan(x))


def sin(x: X) -> X:
    quadrant, sine, cosine = _sin_cos(x)
    tiny = mag(x) < lit(2.0**-13 if single(x) else 2.0**-27, x)
    return E.select(tiny, x, _wave(x, quadrant, sine, cosine))


def cos(x: X) -> X:
    quadrant, sine, cosine = _sin_cos(x)
    return _wave(x, quadrant + int_lit(1, quadrant), sine, cosine)


def tan(x: X) -> X:
    quadrant, sine, cosine = _sin_cos(x)
    swap = E.binary(E.NE, E.call("bitwise_and", quadrant, int_lit(1, quadrant)), int_lit(0, quadrant))
    value = E.select(swap, cosine * lit(-1, x), sine) / E.select(swap, sine, cosine)
    value = E.select(mag(x) < lit(float("inf"), x), value, nan(x))
    return E.select(mag(x) < lit(2.0**-13 if single(x) else 2.0**-27, x), x, value)


def _half_pi_rest(x: X) -> float:
    """pi/2 less what the literal for it is in the type of `x`."""
    return -4.371139000186241e-08 if single(x) else 6.123233995736766e-17


def _arc(x: X, small: X) -> tuple[X, X, float]:
    """(whether |x| > 1/2, the arcsine of sqrt((1 - |x|) / 2) there and of `small` elsewhere, the rest of pi/2)."""
    size = mag(x)
    big = size > lit(0.5, x)
    z = (lit(1, x) - size) * lit(0.5, x)
    return big, odd(E.select(big, E.call("sqrt", z), small), "asin"), _half_pi_rest(x)


def asin(x: X) -> X:
    big, core, low = _arc(x, mag(x))
    value = E.select(big, lit(math.pi / 2, x) - (core + core - lit(low, x)), core)
    return sign_of(value, x)


def acos(x: X) -> X:
    big, core, low = _arc(x, x)
    twice = core + core
    far = E.select(x < lit(0, x), lit(math.pi, x) - (twice - lit(2 * low, x)), twice)
    return E.select(big, far, lit(math.pi / 2, x) - (core - lit(low, x)))


def atan(x: X) -> X:
    """Reduced to [0, tan(pi/8)] by one division (Cephes)."""
    size = mag(x)
    one = lit(1, x)
    steep, middle = size > lit(2.414213562373095, x), size > lit(0.41421356237309503, x)
    num = E.select(steep, lit(-1, x), E.select(middle, size - one, size))
    den = E.select(steep, size, E.select(middle, size + one, one))
    core = odd(num / den, "atan")
    low = _half_pi_rest(x)
    base = E.select(steep, lit(math.pi / 2, x), E.select(middle, lit(math.pi / 4, x), lit(0, x)))
    rest = E.select(steep, lit(low, x), E.select(middle, lit(low / 2, x), lit(0, x)))
    return sign_of(base + (core + rest), x)
