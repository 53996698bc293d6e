"""Fourier transforms of constant length, as graphs of additions and products.

By what the data is: complex data of a length with small factors takes the fast transform, whose rounding error grows
with log2(n) and not with n as that of direct sums does. Real data keeps real arithmetic, so that what is zero or
conjugate by symmetry is exactly so: direct sums while they are short, then the fast transform of half the length.

Stockham's form (no bit reversal): with n = l·p·m (l: product of the factors done, p: the factor at hand),
    y[k + l·u][i] = w^(u·i·l) · sum over b of x[k][b][i] · exp(sign·2πi·u·b/p),   w = exp(sign·2πi/n)
turns x viewed as [l][p][m] into y viewed as [p·l][m]. Source: W. T. Cochran et al., "What is the fast Fourier
transform?", Proc. IEEE 55 (1967); odd factors pair b with p - b as R. C. Singleton's algorithm does (1969).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.op import get
from warpbeam.relay.expr import Constant, Expr

LARGEST_FACTOR = 13
LARGEST_MATRIX = 128  # real data: up to here a matrix product runs near the machine's peak


def circle(numerator: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of 2π·numerator/n, exact at quarter turns and with all mirror symmetries of the circle."""
    j = np.asarray(numerator) % n
    quarter = (8 * j + n) // (2 * n)
    rest = 4 * j - quarter * n
    angle = rest * (np.pi / 2 / n)
    c = np.cos(angle)
    s = np.where(2 * abs(rest) == n, np.sign(rest) * c, np.sin(angle))
    turn = quarter % 4
    return np.choose(turn, (c, -s, -c, s)), np.choose(turn, (s, c, -s, -c))


@dataclass(frozen=True, slots=True)
class Complex:
    """A complex tensor; an imaginary part of None is zero."""

    re: Expr
    im: Expr | None

    def plus(self, other: Complex) -> Complex:
        return Complex(get("add")(self.re, other.re), _either("add", self.im, other.im))

    def minus(self, other: Complex) -> Complex:
        return Complex(get("subtract")(self.re, other.re), _either("subtract", self.im, other.im))

    def scaled(self, factor: np.ndarray) -> Complex:
        """Times a real constant."""
        return Complex(_times(self.re, factor), None if self.im is None else _times(self.im, factor))

    def pair(self) -> tuple[Expr, Expr]:
        """Both parts, zeros written out."""
        return self.re, get("zeros_like")(self.re) if self.im is None else self.im

    def turned(self, sign: int) -> Complex:
        """Times sign·i."""
        re = self.pair()[1]
        if sign > 0:
            return Complex(re if self.im is None else get("negative")(re), self.re)
        return Complex(re, get("negative")(self.re))

    def rotated(self, numerator: np.ndarray, n: int) -> Complex:
        """Times exp(2πi·numerator/n)."""
        cos, sin = circle(numerator, n)
        if self.im is None:
            return Complex(_times(self.re, cos), _times(self.re, sin))
        re = get("subtract")(_times(self.re, cos), _times(self.im, sin))
        return Complex(re, get("add")(_times(self.im, cos), _times(self.re, sin)))


def _either(name: str, a: Expr | None, b: Expr | None) -> Expr | None:
    if a is None or b is None:
        if name == "subtract" and b is not None:
            return get("negative")(b)  # type: ignore[no-any-return]
        return a if b is None else b
    return get(name)(a, b)  # type: ignore[no-any-return]


def _constant(value: np.ndarray, like: Expr) -> Expr:
    return Constant(np.asarray(value).astype(dt.to_numpy(like.ty.dtype)))  # type: ignore[no-any-return]


def _index(places: np.ndarray) -> Expr:
    return Constant(places.astype(np.int64))  # type: ignore[no-any-return]


def _times(x: Expr, factor: np.ndarray) -> Expr:
    return get("multiply")(x, _constant(factor, x))  # type: ignore[no-any-return]


def factors(length: int) -> list[int] | None:
    """The radices of a length, fours first behind a single two, or None where a prime is too large."""
    found, rest = [], length
    while rest % 4 == 0:
        found.append(4)
        rest //= 4
    if rest % 2 == 0:
        found.insert(0, 2)
        rest //= 2
    for p in range(3, LARGEST_FACTOR + 1, 2):
        while rest % p == 0:
            found.append(p)
            rest //= p
    return found if rest == 1 else None


def fast_transform(x: Complex, radices: list[int], sign: int) -> Complex:
    """sum over l of x[l]·exp(sign·2πi·k·l/n) along the last axis, whose length is the product of the radices."""
    *lead, length = x.re.ty.shape
    done = 1
    for p in radices:
        inner = length // (done * p)
        parts = [_cut(x, (*lead, done, p, inner), b) for b in range(p)]
        sums = _butterfly(parts, p, sign)
        turn = sign * done * np.arange(inner)
        out = [s if u == 0 or inner == 1 else s.rotated(u * turn, length) for u, s in enumerate(sums)]
        x = Complex(_joined([s.re for s in out], lead, length), _joined([s.pair()[1] for s in out], lead, length))
        done *= p
    return x


def _cut(x: Complex, shape: tuple[Any, ...], b: int) -> Complex:
    """Part `b` of the last axis viewed as [done][radix][inner]."""

    def part(t: Expr) -> Expr:
        at = len(shape) - 2
        t = get("reshape")(t, newshape=shape)
        t = get("strided_slice")(t, begin=(b,), end=(b + 1,), axes=(at,))
        return get("squeeze")(t, axis=(at,))  # type: ignore[no-any-return]

    return Complex(part(x.re), None if x.im is None else part(x.im))


def _joined(parts: list[Expr], lead: list[Any], length: int) -> Expr:
    return get("reshape")(get("stack")(*parts, axis=len(lead)), newshape=(*lead, length))  # type: ignore[no-any-return]


def _butterfly(x: list[Complex], p: int, sign: int) -> list[Complex]:
    """The transform of length p of the parts."""
    if p == 2:
        return [x[0].plus(x[1]), x[0].minus(x[1])]
    if p == 4:
        even, odd = _butterfly([x[0], x[2]], 2, sign), _butterfly([x[1], x[3]], 2, sign)
        turned = odd[1].turned(sign)
        return [even[0].plus(odd[0]), even[1].plus(turned), even[0].minus(odd[0]), even[1].minus(turned)]
    half = range(1, (p + 1) // 2)
    both, apart = {j: x[j].plus(x[p - j]) for j in half}, {j: x[j].minus(x[p - j]) for j in half}
    out = [x[0]] * p
    for j in half:
        out[0] = out[0].plus(both[j])
    for u in half:
        even, odd = x[0], None
        for j in half:
            cos, sin = circle(np.asarray(u * j), p)
            even = even.plus(both[j].scaled(cos))
            term = apart[j].scaled(sin)
            odd = term if odd is None else odd.plus(term)
        assert odd is not None
        turned = odd.turned(sign)
        out[u], out[p - u] = even.plus(turned), even.minus(turned)
    return out


def spectrum(x: Complex, length: int, columns: int, sign: int, factor: float = 1.0) -> Complex:
    """factor · sum over l of x[l]·exp(sign·2πi·k·l/length) along the last axis, for k < columns.

    Data longer than `length` is cut, shorter data is filled with zeros.
    """
    radices = factors(length) if x.im is not None or length > LARGEST_MATRIX else None
    half = length // 2 + 1
    if not radices and x.im is None and columns > half:
        return _mirrored(_direct(x, length, half, sign, factor), length, columns)
    if not radices:
        return _direct(x, length, columns, sign, factor)
    x = Complex(_fitted(x.re, length), None if x.im is None else _fitted(x.im, length))
    if x.im is None:
        y = _mirrored(_real_transform(x, radices, sign), length, columns)
    else:
        y = fast_transform(x, radices, sign)
        y = Complex(*(_fitted(t, columns) for t in y.pair()))
    return y if factor == 1 else y.scaled(np.asarray(factor))


def _fitted(t: Expr, length: int) -> Expr:
    """The last axis cut, or filled with zeros, to a length."""
    size, last = t.ty.shape[-1], len(t.ty.shape) - 1
    if size > length:
        return get("strided_slice")(t, begin=(0,), end=(length,), axes=(last,))  # type: ignore[no-any-return]
    grow = ((0, 0),) * last + ((0, length - size),)
    return t if size == length else get("nn.pad")(t, _constant(np.zeros(()), t), pad_width=grow)  # type: ignore[no-any-return]


def _direct(x: Complex, length: int, columns: int, sign: int, factor: float) -> Complex:
    """`spectrum` as products with constant matrices."""
    rows = np.arange(x.re.ty.shape[-1])
    cos, sin = circle(np.outer(rows, np.arange(columns)), length)
    kept = (rows < length)[:, None] * factor
    c, s = _constant(cos * kept, x.re), _constant(sin * kept * sign, x.re)
    mul = get("nn.matmul")
    if x.im is None:
        return Complex(mul(x.re, c), mul(x.re, s))
    return Complex(get("subtract")(mul(x.re, c), mul(x.im, s)), get("add")(mul(x.im, c), mul(x.re, s)))


def _real_transform(x: Complex, radices: list[int], sign: int) -> Complex:
    """The first half (with both ends) of the transform of real data.

    Even lengths pack neighbours into one complex number, z[l] = x[2l] + i·x[2l+1]; with m = n/2 and Z its transform,
        X[k] = (Z[k] + conj Z[m-k])/2 - i/2·w^k·(Z[k] - conj Z[m-k]),   w = exp(sign·2πi/n)
    """
    *lead, n = x.re.ty.shape
    if n % 2:
        y = fast_transform(x, radices, sign)
        return Complex(*(_fitted(t, n // 2 + 1) for t in y.pair()))
    m = n // 2
    pairs = get("reshape")(x.re, newshape=(*lead, m, 2))
    even, odd = (get("take")(pairs, _index(np.asarray(b)), axis=-1) for b in range(2))
    half = fast_transform(Complex(even, odd), factors(m) or [], sign)
    assert half.im is not None
    ahead, back = _index(np.arange(m + 1) % m), _index(np.arange(m, -1, -1) % m)
    a = Complex(*(get("take")(t, ahead, axis=-1) for t in (half.re, half.im)))
    b = Complex(*(get("take")(t, back, axis=-1) for t in (half.re, half.im)))
    assert a.im is not None and b.im is not None
    plus = Complex(get("add")(a.re, b.re), get("subtract")(a.im, b.im)).scaled(np.asarray(0.5))
    minus = Complex(get("add")(a.im, b.im), get("subtract")(b.re, a.re)).scaled(np.asarray(0.5))
    return plus.plus(minus.rotated(sign * np.arange(m + 1), n))


def _mirrored(half: Complex, length: int, columns: int) -> Complex:
    """The first columns of a spectrum of which one half is known: y[n - k] is the conjugate of y[k]."""
    k = np.arange(columns)
    back = 2 * k > length
    place = _index(np.where(back, length - k, k))
    assert half.im is not None
    return Complex(
        get("take")(half.re, place, axis=-1), _times(get("take")(half.im, place, axis=-1), np.where(back, -1.0, 1.0))
    )
