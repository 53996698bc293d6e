"""a*b + c with one rounding, on NumPy arrays: what `fma` means in the interpreter, bit for bit.

float32 in float64: the product is exact, the sum is rounded to odd, so that the second rounding is as good as one
(Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008); float64 by their algorithm; where exponents
are too near the ends of the range for it, by fractions. 16-bit floats are computed in float32 and rounded once more,
as all their arithmetic is.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt

HUGE, TINY = 2.0**990, 2.0**-900  # between these the steps in float64 are exact


def fma(values: Sequence[Any], dtype: str) -> Any:
    """a*b + c. Integers wrap.

    Args:
        values: a, b and c, of one dtype, broadcast. dtype: of the result.
    """
    kind = dt.to_numpy(dtype)
    if not dt.is_float(dtype):
        a, b, c = values
        return np.asarray(a * b + c)
    with np.errstate(all="ignore"):
        if kind == np.float64:
            return _double(*(np.asarray(v, np.float64) for v in values))
        a, b, c = (np.asarray(v, np.float64) for v in values)
        p = a * b
        return np.asarray(_odd(p, c)).astype(np.float32).astype(kind, copy=False)


def _two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _two_product(a: Any, b: Any) -> tuple[Any, Any]:
    def halves(x: Any) -> tuple[Any, Any]:
        c = x * 134217729.0  # 2**27 + 1: Dekker's split
        hi = c - (c - x)
        return hi, x - hi

    p = a * b
    (ah, al), (bh, bl) = halves(a), halves(b)
    return p, ((ah * bh - p) + ah * bl + al * bh) + al * bl


def _odd(a: Any, b: Any) -> Any:
    """a + b; where it is not exact, that one of the two neighbours whose last bit is set."""
    s, rest = _two_sum(a, b)
    s = np.asarray(s)
    inexact = (rest != 0) & (s.view(np.int64) & 1 == 0) & np.isfinite(s)
    if not np.any(inexact):
        return s
    return np.where(inexact, np.nextafter(s, np.where(rest > 0, np.inf, -np.inf)), s)


def _double(a: Any, b: Any, c: Any) -> Any:
    a, b, c = np.broadcast_arrays(a, b, c)
    uh, ul = _two_product(a, b)
    th, tl = _two_sum(c, ul)
    vh, vl = _two_sum(uh, th)
    plain = (a == 0) | (b == 0) | ~(np.isfinite(a) & np.isfinite(b) & np.isfinite(c))
    out = np.asarray(np.where(plain, a * b + c, vh + _odd(tl, vl)))
    size = np.abs(uh)
    inside = (size > TINY) & (size < HUGE) & (np.abs(a) < HUGE) & (np.abs(b) < HUGE) & (np.abs(c) < HUGE)
    for at in np.argwhere(~(plain | inside)):
        i = tuple(at)
        out[i] = _exact(float(a[i]), float(b[i]), float(c[i]))
    return out


def _exact(a: float, b: float, c: float) -> float:
    """By fractions; all are finite, and a and b are not 0."""
    total = Fraction(a) * Fraction(b) + Fraction(c)
    if total == 0:
        return a * b + c  # opposite values: +0; or a product too small for its sign to matter
    try:
        return float(total) or float(np.copysign(0.0, 1 if total > 0 else -1))
    except OverflowError:
        return float(np.copysign(np.inf, 1 if total > 0 else -1))
