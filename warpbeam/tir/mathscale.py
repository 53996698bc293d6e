"""Multiplication by 2^n for a whole float n: an intrinsic, `scale2`, and what it is on machines without an instruction.

    n = nearest(x, 1 / log 2, (-150, 0))        # x / log 2 rounded
    e = scale2(p, n, (-150, 0))               # p * 2^n, rounded once

Where there is no instruction, factors of 2 are made from the bits of n. How many it takes, and which number is best
added to round n, depends on the range that n is known to lie in, so it is told twice.
"""

from __future__ import annotations

from warpbeam.tir import expr as E
from warpbeam.tir.mathbase import X, bits_of, fma, from_bits, int_lit, layout, lit, shl, shr

SCALE = "scale2"
Range = tuple[int, int]
_LIFT = 64  # what a number is larger by while its exponent is put together, where the result may be subnormal


def _offset(x: X, within: Range) -> int:
    """What is added to n so that it can be an exponent's bits: of a normal result, of one 2^64 as large, of two
    factors."""
    _, bias, _ = layout(x)
    low, high = within
    if low >= 2 - bias and high < bias:
        return bias
    return bias + _LIFT if low >= 2 - bias - _LIFT and high < bias - _LIFT else 2 * bias


def nearest(x: X, factor: float, within: Range) -> X:
    """round(x * factor), which lies `within` a range, as a float; NaN stays NaN."""
    magic = lit(1.5 * 2.0 ** layout(x)[0] + _offset(x, within), x)
    return fma(x, lit(factor, x), magic) - magic


def scale2(value: X, n: X, within: Range) -> X:
    """value * 2^n rounded once, for 1/2 <= |value| < 2 and a whole n `within` a range."""
    return E.call(SCALE, value, n, low=within[0], high=within[1])


def less(n: X, by: int) -> X:
    """n - by, where n is what `nearest` gives: one subtraction in the place of two."""
    if isinstance(n, E.Sub) and (magic := _number(n.b)) is not None:
        return E.Sub(n.a, lit(magic + by, n))
    return n - lit(by, n)


def expanded(node: E.Call) -> X:
    """A call of `scale2` by products with powers of two made from bits: the same result."""
    value, n = node.args
    within = int(node.attrs["low"]), int(node.attrs["high"])
    bits, bias, _ = layout(value)
    offset = _offset(value, within)
    raw = _raw(n, offset)
    if offset < 2 * bias:
        scaled = value * from_bits(shl(raw, bits), value)
        return scaled if offset == bias else scaled * lit(2.0**-_LIFT, value)
    half = shr(raw, 1)
    return value * from_bits(shl(half, bits), value) * from_bits(shl(raw - half, bits), value)


def _raw(n: X, offset: int) -> X:
    """An integer whose low bits are n + offset: those of a number that n was rounded by, if it shows."""
    bits = layout(n)[0]
    middle = 1.5 * 2.0**bits
    if isinstance(n, E.Sub) and (magic := _number(n.b)) is not None and abs(magic - middle) < 2.0 ** (bits - 2):
        raw, rest = bits_of(n.a), offset - int(magic - middle)
        return raw + int_lit(rest, raw) if rest else raw
    return bits_of(n + lit(middle + offset, n))


def _number(x: X) -> float | None:
    x = x.value if isinstance(x, E.Broadcast) else x
    return float(x.value) if isinstance(x, E.FloatImm) else None
