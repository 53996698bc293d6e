"""NumPy references of functions that NumPy lacks or leaves undefined for some values."""

from __future__ import annotations

import numpy as np

# Coefficients of fdlibm's s_erf.c (Sun Microsystems, 1993), errors below one unit in the last place of float64.
_PP = (1.28379167095512558561e-01, -3.25042107247001499370e-01, -2.84817495755985104766e-02,
       -5.77027029648944159157e-03, -2.37630166566501626084e-05)  # fmt: skip
_QQ = (1.0, 3.97917223959155352819e-01, 6.50222499887672944485e-02, 5.08130628187576562776e-03,
       1.32494738004321644526e-04, -3.96022827877536812320e-06)  # fmt: skip
_ERX = 8.45062911510467529297e-01
_PA = (-2.36211856075265944077e-03, 4.14856118683748331666e-01, -3.72207876035701323847e-01, 3.18346619901161753674e-01,
       -1.10894694282396677476e-01, 3.54783043256182359371e-02, -2.16637559486879084300e-03)  # fmt: skip
_QA = (1.0, 1.06420880400844228286e-01, 5.40397917702171048937e-01, 7.18286544141962662868e-02,
       1.26171219808761642112e-01, 1.36370839120290507362e-02, 1.19844998467991074170e-02)  # fmt: skip
_RA = (-9.86494403484714822705e-03, -6.93858572707181764372e-01, -1.05586262253232909814e01, -6.23753324503260060396e01,
       -1.62396669462573470355e02, -1.84605092906711035994e02, -8.12874355063065934246e01,
       -9.81432934416914548592e00)  # fmt: skip
_SA = (1.0, 1.96512716674392571292e01, 1.37657754143519042600e02, 4.34565877475229228821e02, 6.45387271733267880336e02,
       4.29008140027567833386e02, 1.08635005541779435134e02, 6.57024977031928170135e00,
       -6.04244152148580987438e-02)  # fmt: skip
_RB = (-9.86494292470009928597e-03, -7.99283237680523006574e-01, -1.77579549177547519889e01, -1.60636384855821916062e02,
       -6.37566443368389627722e02, -1.02509513161107724954e03, -4.83519191608651397019e02)  # fmt: skip
_SB = (1.0, 3.03380607434824582924e01, 3.25792512996573918826e02, 1.53672958608443695994e03, 3.19985821950859553908e03,
       2.55305040643316442583e03, 4.74528541206955367215e02, -2.24409524465858183362e01)  # fmt: skip


def _horner(coefs: tuple[float, ...], x: np.ndarray) -> np.ndarray:
    out = np.full_like(x, coefs[-1])
    for c in coefs[-2::-1]:
        out = out * x + c
    return out


def erf(x: np.ndarray) -> np.ndarray:
    """Error function, computed in float64, in the operand's dtype."""
    given = np.asarray(x)
    v = given.astype(np.float64)
    a = np.abs(v)
    out = np.where(np.isnan(v), np.nan, np.sign(v))
    low = a < 0.84375
    s = v[low] * v[low]
    out[low] = v[low] + v[low] * (_horner(_PP, s) / _horner(_QQ, s))
    mid = (a >= 0.84375) & (a < 1.25)
    s = a[mid] - 1
    out[mid] = np.sign(v[mid]) * (_ERX + _horner(_PA, s) / _horner(_QA, s))
    for where, top, bottom in (
        ((a >= 1.25) & (a < 1 / 0.35), _RA, _SA),
        ((a >= 1 / 0.35) & (a < 6), _RB, _SB),
    ):
        b = a[where]
        s = 1 / (b * b)
        tail = np.exp(-b * b - 0.5625 + _horner(top, s) / _horner(bottom, s)) / b
        out[where] = np.sign(v[where]) * (1 - tail)
    return out.astype(given.dtype)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)) without overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(x.dtype)


def convert(x: np.ndarray, to: np.dtype) -> np.ndarray:
    """Value conversion: float to int saturates and maps NaN to 0, int to narrower int wraps, to bool is `!= 0`."""
    if to.kind == "b":
        return np.asarray(x != 0)
    if to.kind not in "iu" or x.dtype.kind in "iub":
        return x.astype(to)
    info = np.iinfo(to)
    v = np.trunc(x.astype(np.float64))
    inside = (v >= float(info.min)) & (v < float(info.max) + (1 if to.itemsize < 8 else 0))
    out = np.where(inside, v, 0).astype(to)
    out = np.where(v >= float(info.max), info.max, out)
    return np.where(v <= float(info.min), info.min, out).astype(to)


def trunc_divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Quotient: exact for floats; toward zero for integers, x/0 = 0."""
    if a.dtype.kind not in "iu":
        return a / b
    q, r = np.floor_divide(a, b), np.remainder(a, b)
    return np.where((r != 0) & ((a < 0) != (b < 0)), q + q.dtype.type(1), q).astype(a.dtype)


def trunc_mod(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Remainder with the sign of the dividend; x % 0 = 0 for integers."""
    return np.fmod(a, b)


def power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a ** b; integers wrap around, negative integer exponents give the truncated quotient."""
    if a.dtype.kind not in "iu":
        return np.power(a, b)
    a, b = np.broadcast_arrays(a, b)
    big = np.power(a, np.maximum(b, 0))
    below = np.where(a == 1, 1, 0)
    if a.dtype.kind == "i":
        below = np.where(a == -1, np.where(b % 2 == 0, 1, -1), below)
    return np.where(b < 0, below, big).astype(a.dtype)


def shift(a: np.ndarray, b: np.ndarray, left: bool) -> np.ndarray:
    """Bit shift; an amount outside [0, bits) shifts everything out."""
    bits = a.dtype.itemsize * 8
    a, b = np.broadcast_arrays(a, b)
    inside = (b >= 0) & (b < bits)
    amount = np.where(inside, b, 0).astype(a.dtype)
    if left:
        return np.where(inside, np.left_shift(a, amount), 0).astype(a.dtype)
    return np.where(inside, np.right_shift(a, amount), np.where(a < 0, -1, 0)).astype(a.dtype)
