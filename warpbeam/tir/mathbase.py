"""Building blocks of the mathematical functions: literals, bits of floats, Horner's scheme."""

from __future__ import annotations

from collections.abc import Sequence

from warpbeam.ir import dtype as dt
from warpbeam.tir import expr as E
from warpbeam.tir.mathcoef import COEFFICIENTS

X = E.PrimExpr
LN2 = {
    "float32": (0.693145751953125, 1.42860677e-06),
    "float64": (6.93147180369123816490e-01, 1.90821492927058770002e-10),
}
#: bits of the fraction, exponent bias, integer type of the same width
FORMAT = {"float32": (23, 127, "int32"), "float64": (52, 1023, "int64")}


def lit(value: float, like: X) -> X:
    return E.const(float(value), like.dtype)


def int_lit(value: int, like: X) -> X:
    return E.const(value, like.dtype)


def fma(a: X, b: X, c: X) -> X:
    return E.call("fma", a, b, c)


def mag(x: X) -> X:
    return E.call("abs", x)


def sign_of(size: X, x: X) -> X:
    return E.call("copysign", size, x)


def layout(x: X) -> tuple[int, int, str]:
    bits, bias, integer = FORMAT[dt.scalar(x.dtype)]
    return bits, bias, dt.with_lanes(integer, dt.lanes(x.dtype))


def bits_of(x: X) -> X:
    return E.call("reinterpret", x, dtype=layout(x)[2])


def from_bits(bits: X, like: X) -> X:
    return E.call("reinterpret", bits, dtype=like.dtype)


def shl(x: X, count: int) -> X:
    return E.call("shift_left", x, int_lit(count, x))


def shr(x: X, count: int) -> X:
    return E.call("shift_right", x, int_lit(count, x))


def poly(x: X, coefficients: Sequence[float]) -> X:
    """Horner's scheme, lowest power first."""
    out = lit(coefficients[-1], x)
    for c in reversed(coefficients[:-1]):
        out = fma(out, x, lit(c, x))
    return out


def poly_split(x: X, coefficients: Sequence[float], last: int) -> X:
    """Horner's scheme for the `last` lowest powers, and for even and odd powers of the rest apart: one product more,
    but operations wait for each other about half as long.
    """
    rest, square = coefficients[last:], x * x
    out = fma(poly(square, rest[1::2]), x, poly(square, rest[::2]))
    for c in reversed(coefficients[:last]):
        out = fma(out, x, lit(c, x))
    return out


def table(name: str, x: X) -> tuple[float, ...]:
    return COEFFICIENTS[name, dt.scalar(x.dtype)]


def nan(x: X) -> X:
    return lit(float("nan"), x)


def single(x: X) -> bool:
    return dt.scalar(x.dtype) == "float32"


def flags(x: X) -> str:
    return dt.with_lanes("bool", dt.lanes(x.dtype))


def odd(t: X, name: str) -> X:
    """t + t^3 P(t^2)."""
    z = t * t
    return fma(poly(z, table(name, t)) * z, t, t)
