"""The fast Fourier transform of constant length, as a graph of additions and products.

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

    def turned(self, sign: int) -> Complex:
        """Times sign·i."""
        re = get("zeros_like")(self.re) if self.im is None else self.im
        if sign > 0:
            return Complex(re if self.im is None else get("negative")(re), self.re)
        return Complex(re, get("negative")(self.re))

    def rotated(self, angle: np.ndarray) -> Complex:
        """Times exp(i·angle)."""
        cos, sin = np.cos(angle), np.sin(angle)
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


def _times(x: Expr, factor: np.ndarray) -> Expr:
    return get("multiply")(x, Constant(np.asarray(factor).astype(dt.to_numpy(x.ty.dtype))))  # type: ignore[no-any-return]


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
        angle = (sign * 2 * np.pi / length * done) * np.arange(inner)
        out = [s if u == 0 or inner == 1 else s.rotated(u * angle) for u, s in enumerate(sums)]
        x = Complex(_joined([s.re for s in out], lead, length), _joined(_imaginary(out), lead, length))
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


def _imaginary(parts: list[Complex]) -> list[Expr]:
    return [get("zeros_like")(s.re) if s.im is None else s.im for s in parts]


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
        angle = [2 * np.pi * (u * j % p) / p for j in half]
        even, odd = x[0], None
        for j, a in zip(half, angle, strict=True):
            even = even.plus(both[j].scaled(np.asarray(np.cos(a))))
            term = apart[j].scaled(np.asarray(np.sin(a)))
            odd = term if odd is None else odd.plus(term)
        assert odd is not None
        turned = odd.turned(sign)
        out[u], out[p - u] = even.plus(turned), even.minus(turned)
    return out
