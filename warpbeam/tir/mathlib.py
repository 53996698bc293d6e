"""Mathematical functions as explicit loop-program expressions: polynomials, fma, selections and bit tricks.

All are free of branches and calls, work on vectors, and give the same bits in interpreter, C and LLVM (where fma is
fused). NaN, infinities, signed zeros and subnormal numbers are treated as IEEE 754 asks. Largest errors found by
sweeps over all exponents, in ulp: float32 exp exp2 log sqrt erf pow sin cos 1-2, others up to 4; float64 alike,
but sin, cos and tan beyond 2^27 have an absolute error of 2^-48. float16 and bfloat16 are computed in float32. Targets
that look up elements of a vector by an instruction have exp and sigmoid with other last bits than targets without, and
for differences said to be rounded an exp that is 0 below e^-87.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import LowerError
from warpbeam.tir import expr as E
from warpbeam.tir.mathbase import (
    FORMAT,
    LN2,
    X,
    bits_of,
    flags,
    fma,
    from_bits,
    int_lit,
    layout,
    lit,
    mag,
    nan,
    odd,
    poly,
    poly_split,
    shl,
    shr,
    sign_of,
    single,
    table,
)
from warpbeam.tir.mathpair import atan2, fmod, hypot, ldexp, nextafter
from warpbeam.tir.mathscale import PARTS, less, nearest, part_power, power_of_parts, scale2
from warpbeam.tir.mathtrig import acos, asin, atan, cos, sin, tan


def expand(op: str, args: Sequence[X], attrs: Mapping[str, Any] | None = None, lookup: bool = False) -> X:
    """The value of function `op` of `args` (one dtype) without a call of it; `scale2` may be called.

    `attrs`: what is known of the arguments, see `intrin`. lookup: whether the machine looks up elements of a vector by
    an instruction: exponentials of float32 are then made with `lookup`.

    Raises:
        LowerError: if there is no such function.
    """
    if op not in FUNCTIONS:
        raise LowerError(f"no expansion of {op!r}", hint=f"there are: {', '.join(sorted(FUNCTIONS))}")
    dtype = dt.scalar(args[0].dtype)
    known = {**(attrs or {}), **({"lookup": True} if lookup and op in _WITH_LOOKUP else {})}
    if dtype in ("float16", "bfloat16") and op != "nextafter":
        wide = [E.cast("float32", a) if dt.is_float(a.dtype) else a for a in args]
        return E.cast(dtype, FUNCTIONS[op](*wide, **known))
    if dtype not in FORMAT and not (op == "nextafter" and dt.is_float(dtype)):
        raise LowerError(f"{op} of {dtype}", why="it is defined for floats only", hint="cast the operand")
    return FUNCTIONS[op](*args, **known)


# -------------------------------------------------------------------------------------------------------- exponentials


def exp(x: X, most: float = math.inf, rounded: bool = False, lookup: bool = False) -> X:
    """e^x; `most`: what x is known not to exceed; rounded: whether x is a difference that was rounded, by up to
    |x| / 2^24: with an error of |x| / 2^28 more, and 0 for what is below e^-87, it may take fewer operations.
    """
    if rounded and lookup and single(x) and most <= 0:
        return _weight(x)
    return _exp_scaled(x, 0, most, lookup)


def _weight(x: X) -> X:
    """e^x for rounded differences x <= 0, by fused products. log 2 as a float32 is right to 2^-28.4 of itself."""
    n = nearest(x, 1 / math.log(2), (-126, 0), PARTS)
    r = fma(n, lit(-math.log(2), x), x)
    power = power_of_parts(n)
    value = fma(power, fma(poly(r, table("exp_part", x)), r * r, r), power)
    return E.select(x < lit(-87, x), lit(0, x), value)


def _exp_scaled(x: X, shift: int, most: float = math.inf, lookup: bool = False) -> X:
    """e^x * 2^shift."""
    low, high = (-104.0, 89.0) if single(x) else (-746.0, 710.0)
    high += 0.7 * max(-shift, 0)
    x = E.maximum(lit(low, x), x)
    if most > high:
        x = E.minimum(lit(high, x), x)
    within = math.floor(low / math.log(2)) + shift, math.ceil(min(most, high) / math.log(2)) + shift
    parts = PARTS if lookup and single(x) else 1
    n = nearest(x, 1 / math.log(2), within, parts)
    return scale2(_exp_rest(x, n, parts), less(n, -shift) if shift else n, within, parts)


def _exp_rest(x: X, n: X, parts: int = 1) -> X:
    """e^x / 2^floor(n), where n is x / log 2 rounded to so many parts of one."""
    hi, lo = LN2[dt.scalar(x.dtype)]
    r = fma(n, lit(-lo, x), fma(n, lit(-hi, x), x))
    if parts == 1:
        return poly(r, (1.0, 1.0, *table("exp", x)))
    power = part_power(n)
    return fma(power, fma(poly(r, table("exp_part", x)), r * r, r), power)


def exp2(x: X) -> X:
    low, high = (-151, 129) if single(x) else (-1076, 1025)
    x = E.minimum(lit(high, x), E.maximum(lit(low, x), x))
    n = nearest(x, 1.0, (low, high))
    r = x - n
    return scale2(fma(poly(r, table("exp2", x)), r, lit(1, x)), n, (low, high))


def expm1(x: X) -> X:
    """2^n * (p + 1) - 1 as fma(2^n, p, 2^n - 1), halved so that 2^n is finite."""
    low, high = (-18.0, 89.0) if single(x) else (-40.0, 710.0)
    bits, bias, _ = layout(x)
    y = E.minimum(lit(high, x), E.maximum(lit(low, x), x))
    magic = 1.5 * 2.0**bits + bias - 1
    shifted = fma(y, lit(1 / math.log(2), x), lit(magic, x))
    n = shifted - lit(magic, x)
    half = from_bits(shl(bits_of(shifted), bits), x)
    hi, lo = LN2[dt.scalar(x.dtype)]
    r = fma(n, lit(-hi, x), y)
    tail = n * lit(lo, x)
    s = r - tail
    error = (r - s) - tail
    p = fma(poly(s, table("exp", x)), s * s, error) + s
    value = fma(half, p, half - lit(0.5, x))
    tiny = 2.0**-25 if single(x) else 2.0**-54
    return E.select(mag(x) < lit(tiny, x), x, value + value)


# ---------------------------------------------------------------------------------------------------------- logarithms


def _split(x: X) -> tuple[X, X]:
    """(e, m) with x = 2^e * m and sqrt(1/2) <= m < sqrt(2); e as a float. x must be positive."""
    bits, _, _ = layout(x)
    smallest = 2.0**-126 if single(x) else 2.0**-1022
    subnormal = x < lit(smallest, x)
    x = E.select(subnormal, x * lit(2.0**bits, x), x)
    root = 0x3F3504F3 if single(x) else 0x3FE6A09E667F3BCD
    raw = bits_of(x)
    exponent = shr(raw - int_lit(root, raw), bits)
    m = from_bits(raw - shl(exponent, bits), x)
    shift = E.select(subnormal, lit(-bits, x), lit(0, x))
    return E.cast(x.dtype, exponent) + shift, m


def _log_kernel(f: X) -> tuple[X, X]:
    """log(1+f) as a leading part f and the rest."""
    if single(f):
        square = f * f
        return f, fma(poly(f, table("log1p", f)) * f, square, square * lit(-0.5, f))
    s = f / (lit(2, f) + f)
    z = s * s
    half = f * f * lit(0.5, f)
    return f, fma(s, half + poly(z, table("log", f)) * z, -half)


def _log_special(x: X, value: X) -> X:
    value = E.select(x < lit(float("inf"), x), value, x)  # also NaN
    value = E.select(x < lit(0, x), nan(x), value)
    return E.select(E.binary(E.EQ, x, lit(0, x)), lit(-float("inf"), x), value)


def _log_base(x: X, scale: float, e_scale: float | None) -> X:
    """scale * log(m) + e * e_scale; e_scale None: natural, with log(2) in two parts."""
    e, m = _split(x)
    f, rest = _log_kernel(m - lit(1, x))
    if e_scale is None:
        hi, lo = LN2[dt.scalar(x.dtype)]
        return _log_special(x, fma(e, lit(hi, x), fma(e, lit(lo, x), rest) + f))
    total = f + rest
    lost = (f - total) + rest
    high, low = _two_parts(scale, x)
    part = fma(total, lit(low, x), lost * lit(high, x))
    ehigh, elow = _two_parts(e_scale, x, short=True)
    part = fma(e, lit(elow, x), part)
    lead = total * lit(high, x)
    part = part + fma(total, lit(high, x), -lead)
    base = e * lit(ehigh, x)
    total2 = base + lead
    error = E.select(mag(base) > mag(lead), (base - total2) + lead, (lead - total2) + base)
    return _log_special(x, total2 + (part + error))


def _two_parts(value: float, like: X, short: bool = False) -> tuple[float, float]:
    """A number as a leading part (with room for a product with an exponent, if `short`) and the rest."""
    bits = (12 if short else 24) if single(like) else (40 if short else 53)
    mantissa, exponent = math.frexp(value)
    high = math.ldexp(float(int(mantissa * 2**bits)), exponent - bits)
    return high, value - high


def log(x: X) -> X:
    return _log_base(x, 1.0, None)


def log2(x: X) -> X:
    return _log_base(x, 1 / math.log(2), 1.0)


def log10(x: X) -> X:
    return _log_base(x, 1 / math.log(10), math.log10(2))


def log1p(x: X) -> X:
    """log(u) + c/u, where u = 1+x is rounded and c what was lost; with exponent 0, f is x itself."""
    one = lit(1, x)
    u = one + x
    lost = E.select(x > one, one - (u - x), x - (u - one))
    e, m = _split(u)
    near = E.binary(E.EQ, e, lit(0, x))
    f, rest = _log_kernel(E.select(near, x, m - one))
    hi, lo = LN2[dt.scalar(x.dtype)]
    fix = E.select(near, lit(0, x), lost / u)
    value = fma(e, lit(hi, x), (fma(e, lit(lo, x), rest) + fix) + f)
    value = E.select(u < lit(float("inf"), x), value, u)
    value = E.select(u < lit(0, x), nan(x), value)
    value = E.select(E.binary(E.EQ, u, lit(0, x)), lit(-float("inf"), x), value)
    return E.select(mag(x) < lit(2.0**-25 if single(x) else 2.0**-54, x), x, value)


# --------------------------------------------------------------------------------------------------------------- power


def power(x: X, y: X) -> X:
    """x^y with C's special cases. float32 goes through float64; float64 carries log2(x) in two parts."""
    size = mag(x)
    if single(x):
        wide = dt.with_lanes("float64", dt.lanes(x.dtype))
        value = E.cast(x.dtype, _pow_positive(E.cast(wide, size), E.cast(wide, y)))
    else:
        value = _pow_positive(size, y)
    one, nil, inf = lit(1, x), lit(0, x), lit(float("inf"), x)
    whole = E.binary(E.EQ, E.call("trunc", y), y)
    half = y * lit(0.5, x)
    odd = E.land(whole, E.binary(E.NE, E.call("trunc", half), half), mag(y) < inf)
    negative = E.binary(E.LT, sign_of(one, x), nil)
    value = E.select(E.land(negative, odd), value * lit(-1, x), value)
    strange = E.land(x < nil, E.lnot(whole), size < inf)
    value = E.select(strange, nan(x), value)
    value = E.select(E.lor(E.call("isnan", x, dtype=flags(x)), E.call("isnan", y, dtype=flags(x))), x + y, value)
    plain = E.lor(E.binary(E.EQ, x, one), E.binary(E.EQ, y, nil))
    both = E.land(E.binary(E.EQ, x, lit(-1, x)), E.binary(E.EQ, mag(y), inf))
    return E.select(E.lor(plain, both), one, value)


def exp10(x: X) -> X:
    return power(lit(10, x), x)


def _pow_positive(x: X, y: X) -> X:
    """x^y for float64 x >= 0: 2^(y * log2(x)), the logarithm as a sum of two numbers."""
    e, m = _split(x)
    one = lit(1, x)
    # log(m) = 2 atanh(s); s as a sum of two numbers keeps 2^-60 and more of the logarithm
    num, den = m - one, m + one
    s = num / den
    s_low = fma(-s, den, num)
    s_low = (s_low - s * (m - (den - one))) / den
    z = s * s
    z_low = fma(s, s, -z) + (s + s) * s_low
    cube = z * s
    cube_low = fma(z, s, -cube) + fma(z, s_low, z_low * s)
    tail = poly(z, tuple(2 / (2 * k + 5) for k in range(11)))
    third, third_low = lit(2 / 3, x), lit(3.700743415417188e-17, x)
    lead3 = cube * third
    rest = fma(cube, third, -lead3) + fma(cube, third_low, cube_low * third) + (s_low + s_low)
    rest = fma(cube * z, tail, rest)
    two_s = s + s
    first = two_s + lead3
    rest = ((two_s - first) + lead3) + rest
    total = first + rest
    lost = (first - total) + rest
    high, low = 1 / math.log(2), 2.0355273740931033e-17
    lead = total * lit(high, x)
    minor = fma(total, lit(high, x), -lead) + fma(total, lit(low, x), lost * lit(high, x))
    whole = e + lead
    minor = minor + E.select(mag(e) > mag(lead), (e - whole) + lead, (lead - whole) + e)
    whole = _log_special(x, whole)
    minor = E.select(mag(whole) < lit(float("inf"), x), minor, lit(0, x))
    product = y * whole
    extra = fma(y, whole, -product) + y * minor
    bounded = E.minimum(lit(1100, x), E.maximum(lit(-1100, x), product))
    extra = E.select(mag(product) < lit(1100, x), extra, lit(0, x))
    n = nearest(bounded, 1.0, (-1100, 1100))
    r = (bounded - n) + extra
    return scale2(fma(poly(r, table("exp2", x)), r, one), n, (-1100, 1100))


# ---------------------------------------------------------------------------------------------------------- hyperbolic


def sinh(x: X) -> X:
    size = mag(x)
    half = _exp_scaled(size, -1)
    large = half - lit(0.25, x) / half
    return sign_of(E.select(size < lit(1, x), odd(size, "sinh"), large), x)


def cosh(x: X) -> X:
    half = _exp_scaled(mag(x), -1)
    return half + lit(0.25, x) / half


def tanh(x: X) -> X:
    """em / (em + 2), em = e^(2x) - 1; 1 from where that rounds to it."""
    limit = 9.5 if single(x) else 20.0
    size = E.minimum(lit(limit, x), mag(x))
    em = expm1(size + size)
    tiny = mag(x) < lit(2.0**-13 if single(x) else 2.0**-28, x)
    return E.select(tiny, x, sign_of(em / (em + lit(2, x)), x))


def asinh(x: X) -> X:
    size = mag(x)
    square = size * size
    near = log1p(size + square / (lit(1, x) + E.call("sqrt", square + lit(1, x))))
    far = log(size) + lit(math.log(2), x)
    return sign_of(E.select(size > lit(2.0**28 if not single(x) else 2.0**13, x), far, near), x)


def acosh(x: X) -> X:
    t = x - lit(1, x)
    near = log1p(t + E.call("sqrt", t * (t + lit(2, x))))
    far = log(x) + lit(math.log(2), x)
    value = E.select(x > lit(2.0**28 if not single(x) else 2.0**13, x), far, near)
    return E.select(t < lit(0, x), nan(x), value)


def atanh(x: X) -> X:
    size = mag(x)
    twice = size + size
    value = log1p(twice / (lit(1, x) - size)) * lit(0.5, x)
    return E.select(size < lit(2.0**-13 if single(x) else 2.0**-28, x), x, sign_of(value, x))


# --------------------------------------------------------------------------------------------------------------- others


def sigmoid(x: X, lookup: bool = False) -> X:
    """1 / (1 + e^-x) as e^min(x,0) / (1 + e^-|x|), which keeps small results."""
    e = exp(mag(x) * lit(-1, x), 0.0, lookup=lookup)
    one = lit(1, x)
    return E.select(x < lit(0, x), e, one) / (one + e)


def rsqrt(x: X) -> X:
    return lit(1, x) / E.call("sqrt", x)


def erf(x: X) -> X:
    """By a polynomial near 0; else float32 is 1 - sqrt(erfc(x))^2, where the root is a polynomial too and small, so
    that its errors count half or less (< 0.95 ulp), and float64 is 1 - e^(-x^2) erfcx(x).
    """
    size = mag(x)
    if not single(x):
        u = E.minimum(lit(6, x), E.maximum(lit(1, x), size))
        square = u * u
        lost = fma(u, u, -square)
        scaled = poly((u - lit(2, x)) / (u + lit(2, x)), table("erfcx", x))
        e = exp(-square)
        far = sign_of(lit(1, x) - fma(e, -lost, e) * scaled, x)
        near = poly(x * x, table("erf", x)) * x
        value = E.select(size > lit(1, x), far, near)
        return E.select(E.call("isnan", x, dtype=flags(x)), x, value)
    root = poly_split(E.minimum(lit(4, x), size) - lit(1, x), table("erfc_root", x), 2)
    far = sign_of(fma(root * lit(-1, x), root, lit(1, x)), x)
    near = fma(poly(x * x, table("erf_rest", x)), x, x)
    return E.select(size > lit(0.88, x), far, near)


FUNCTIONS: dict[str, Callable[..., X]] = {
    "exp": exp, "exp2": exp2, "expm1": expm1, "log": log, "log2": log2, "log10": log10, "log1p": log1p, "pow": power,
    "power": power, "sin": sin, "cos": cos, "tan": tan, "asin": asin, "acos": acos, "atan": atan, "sinh": sinh,
    "cosh": cosh, "tanh": tanh, "asinh": asinh, "acosh": acosh, "atanh": atanh, "sigmoid": sigmoid, "rsqrt": rsqrt,
    "erf": erf, "exp10": exp10, "atan2": atan2, "fmod": fmod, "hypot": hypot, "ldexp": ldexp, "nextafter": nextafter,
}  # fmt: skip
_WITH_LOOKUP = ("exp", "sigmoid")  # what can be made with elements of a vector that are looked up
