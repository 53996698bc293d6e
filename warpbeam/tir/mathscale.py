"""Multiplication by 2^n for a whole float n: an intrinsic, `scale2`, and what it is on machines without an instruction.

    n = nearest(x, 1 / log 2, (-150, 0))        # x / log 2 rounded
    e = scale2(p, n, (-150, 0))               # p * 2^n, rounded once

Where the machine looks up elements of a vector by an instruction, n may be rounded to sixteenths: `part_power` gives
the power of two of what is more than a whole number, which leaves a polynomial less to do.

Where there is no instruction, factors of 2 are made from the bits of n. How many it takes, and which number is best
added to round n, depends on the range that n is known to lie in, so it is told twice.
"""

from __future__ import annotations

import math
import struct

from warpbeam.tir import expr as E
from warpbeam.tir.mathbase import X, bits_of, fma, from_bits, int_lit, layout, lit, shl, shr

SCALE, LOOKUP = "scale2", "lookup"
PARTS = 16  # of a power of two, that are looked up; floats of a vector
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


def nearest(x: X, factor: float, within: Range, parts: int = 1) -> X:
    """x * factor, which lies `within` a range, rounded to a multiple of 1/parts (1 or PARTS), as a float; NaN stays
    NaN."""
    magic = lit(_middle(x, parts) + _offset(x, within), x)
    return fma(x, lit(factor, x), magic) - magic


def _middle(x: X, parts: int) -> float:
    """What a small number is added to so that the low bits of the sum are the number, in so many parts of one."""
    return 1.5 * 2.0 ** layout(x)[0] / parts


def part_power(n: X) -> X:
    """2^(n - floor(n)), where n is what `nearest` gives with PARTS: looked up by the low bits of what it was rounded
    by."""
    assert isinstance(n, E.Sub)
    return E.call(LOOKUP, bits_of(n.a), *(E.const(2.0 ** (k / PARTS)) for k in range(PARTS)), dtype=n.dtype)


def power_of_parts(n: X) -> X:
    """2^n where n is what `nearest` gives with PARTS and 2^floor(n) is a normal number: what is looked up lacks the
    bits of n and of what n was rounded by; n's are added as they are in the rounded sum. `nearest` must have been told
    a range that reaches down to -126: what is looked up is a number then.
    """
    assert isinstance(n, E.Sub)
    magic = _number(n.b)
    assert magic is not None
    bits, _, _ = layout(n)
    places = bits - (PARTS.bit_length() - 1)
    added = int((magic - _middle(n, PARTS)) * PARTS)
    lacking = [_as_bits(2.0 ** (k / PARTS)) - ((added + k) << places) for k in range(PARTS)]
    raw = bits_of(n.a)
    found = E.call(LOOKUP, raw, *(E.const(_of_bits(b)) for b in lacking), dtype=n.dtype)
    return from_bits(bits_of(found) + shl(raw, places), n)


def _as_bits(x: float) -> int:
    return int.from_bytes(struct.pack("<f", x), "little")


def _of_bits(bits: int) -> float:
    """The float32 with these bits, modulo 2^32."""
    value = float(struct.unpack("<f", struct.pack("<I", bits % 2**32))[0])
    assert math.isfinite(value)
    return value


def scale2(value: X, n: X, within: Range, parts: int = 1) -> X:
    """value * 2^floor(n) rounded once, for 1/2 <= |value| < 2 and n, a multiple of 1/parts, `within` a range."""
    attrs = {"low": within[0], "high": within[1], **({} if parts == 1 else {"parts": parts})}
    return E.Call(value.dtype, SCALE, (value, n), attrs)


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
    raw = _raw(n, offset, int(node.attrs.get("parts", 1)))
    if offset < 2 * bias:
        scaled = value * from_bits(shl(raw, bits), value)
        return scaled if offset == bias else scaled * lit(2.0**-_LIFT, value)
    half = shr(raw, 1)
    return value * from_bits(shl(half, bits), value) * from_bits(shl(raw - half, bits), value)


def _raw(n: X, offset: int, parts: int) -> X:
    """An integer whose low bits are floor(n) + offset: those of a number that n was rounded by, if it shows."""
    middle = _middle(n, parts)
    raw, rest = None, 0
    if isinstance(n, E.Sub) and (magic := _number(n.b)) is not None and abs(magic - middle) < middle / 6:
        raw, rest = bits_of(n.a), offset - int(magic - middle)
    if raw is None:
        raw = bits_of(n + lit(middle + offset, n))
    if parts > 1:
        raw = shr(raw, parts.bit_length() - 1)
    return raw + int_lit(rest, raw) if rest else raw


def _number(x: X) -> float | None:
    x = x.value if isinstance(x, E.Broadcast) else x
    return float(x.value) if isinstance(x, E.FloatImm) else None
