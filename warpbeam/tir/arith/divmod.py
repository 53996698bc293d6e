"""floordiv and floormod of polynomials, and the recombination of their quotients and remainders in sums.

Identities (c > 0): (q*c + r)//c = q + r//c;  (g*a + b)//(g*c) = a//c and (g*a + b)%(g*c) = g*(a%c) + b for 0 <= b < g;
(x//a)//c = x//(a*c);  (x%(c*m))//c = (x//c)%m;  k*(x%m) = k*x (mod c) where c divides k*m;
s*(x%c) + s*c*(x//c) = s*x, both ways;  s*(x%a) + s*a*((x//a)%b) = s*(x%(a*b)).
"""

from __future__ import annotations

from math import gcd
from typing import Any

from warpbeam.tir import expr as e
from warpbeam.tir.arith import poly as P
from warpbeam.tir.arith.bounds import atom_bounds, exact, poly_bounds, poly_residue
from warpbeam.tir.arith.facts import Facts
from warpbeam.tir.arith.poly import Poly
from warpbeam.tir.arith.prove import nonneg


class DivMod:
    """Division of polynomials of one dtype under facts."""

    def __init__(self, dtype: str, facts: Facts) -> None:
        self.dtype = dtype
        self.facts = facts

    # ------------------------------------------------------------------------------------------------------- entrances

    def floordiv(self, p: Poly, d: Poly) -> Poly:
        return self._once("div", self._floordiv, p, d)

    def floormod(self, p: Poly, d: Poly) -> Poly:
        return self._once("mod", self._floormod, p, d)

    def _once(self, kind: str, fn: Any, p: Poly, d: Poly) -> Poly:
        key = (kind, self.dtype, frozenset(p.items()), frozenset(d.items()))
        found = self.facts.memo.get(key)
        if found is None:
            found = self.facts.memo[key] = fn(p, d)
        return found  # type: ignore[no-any-return]

    def _floordiv(self, p: Poly, d: Poly) -> Poly:
        c = P.const_of(d)
        if c == 0:
            return {}
        if c in (1, -1):
            return P.scaled(p, c)
        if not exact(p, self.dtype, self.facts):
            return P.of_atom(e.FloorDiv(self.finish(p), self.finish(d)))
        if c is None:
            return self._by_symbol(p, d)[0]
        return self._div(P.scaled(p, -1), -c) if c < 0 else self._div(p, c)

    def _floormod(self, p: Poly, d: Poly) -> Poly:
        c = P.const_of(d)
        if c in (0, 1, -1):
            return {}
        if not exact(p, self.dtype, self.facts):
            return P.of_atom(e.FloorMod(self.finish(p), self.finish(d)))
        if c is None:
            return self._by_symbol(p, d)[1]
        return P.scaled(self._mod(P.scaled(p, -1), -c), -1) if c < 0 else self._mod(p, c)

    def finish(self, p: Poly) -> e.PrimExpr:
        """The canonical expression of p, quotients and remainders recombined."""
        return P.to_expr(self.recombine(p), self.dtype)

    # ------------------------------------------------------------------------------------------------- constant divisor

    def _bounds(self, p: Poly) -> tuple[int | None, int | None]:
        return poly_bounds(p, self.facts)

    def _same_quotient(self, p: Poly, c: int) -> int | None:
        """p // c where the bounds of p decide it."""
        lo, hi = self._bounds(p)
        return lo // c if lo is not None and hi is not None and lo // c == hi // c else None

    def _as_remainder(self, p: Poly, c: int) -> Poly:
        """x - m*(x//m) as x%m, whose bounds are plain to see, where c does not divide m; other sums as they are."""
        for mono, k in p.items():
            if k % c and len(mono) == 1 and type(mono[0]) is e.FloorDiv and e.const_int(mono[0].b) == -k:
                joined = self.recombine(p)
                one = P.single_atom(joined)
                if one is not None and one[1] == 1 and type(one[0]) is e.FloorMod:
                    return joined
        return p

    def _div(self, p: Poly, c: int) -> Poly:
        p = self._as_remainder(p, c)
        whole: Poly = {}
        while True:
            part, r = _split(p, c)
            whole = P.plus(whole, part)
            known = self._same_quotient(r, c)
            if known is not None:
                return P.plus(whole, P.constant(known))
            grouped = self._group(r, c)
            if grouped is not None:
                high, low, g = grouped
                p, c = P.plus(high, P.constant(low[1])), c // g
                if c == 1:
                    return P.plus(whole, p)
                continue
            terms, offset = P.split_const(r)
            one = P.single_atom(terms)
            if one is not None and one[1] == 1 and type(one[0]) is e.FloorDiv:
                a = e.const_int(one[0].b)
                if a is not None and a > 0:
                    p, c = P.plus(P.of_expr(one[0].a), P.constant(offset * a)), a * c
                    continue
            if one is not None and one[1] == 1 and not offset and type(one[0]) is e.FloorMod:
                m = e.const_int(one[0].b)
                if m is not None and m > c and m % c == 0:
                    return P.plus(whole, self._mod(self._div(P.of_expr(one[0].a), c), m // c))
            apart = self._unjoined(r, c)
            if apart is not None:
                p = apart
                continue
            return P.plus(whole, self._leftover_div(r, c))

    def _leftover_div(self, r: Poly, c: int) -> Poly:
        """r // c as atoms; terms known to be divisible by c stand apart."""
        out: Poly = {}
        if len(r) > 1:
            for mono, coef in list(r.items()):
                k, base = poly_residue({mono: coef}, self.facts) if mono else (0, 1)
                if k and k % c == 0 and base == 0:
                    r = P.plus(r, {mono: coef}, -1)
                    out = P.plus(out, P.of_atom(e.FloorDiv(P.to_expr({mono: coef}, self.dtype), _lit(c, self))))
            if out:
                return P.plus(out, self._div(r, c))
        return P.of_atom(e.FloorDiv(self.finish(r), _lit(c, self)))

    def _group(self, r: Poly, c: int) -> tuple[Poly, tuple[Poly, int], int] | None:
        """(high/g, (low, low//g), g) for r = high + low where g divides c and high, and bounds decide low // g."""
        sizes = sorted({gcd(k, c) for m, k in r.items() if m} - {1}, reverse=True)
        for g in sizes:
            high = {m: k // g for m, k in r.items() if m and k % g == 0}
            low = {m: k for m, k in r.items() if not m or k % g}
            shift = self._same_quotient(low, g)
            if shift is not None:
                return high, (low, shift), g
        return None

    def _unjoined(self, r: Poly, c: int) -> Poly | None:
        """r = m*(x//a) + k*x + others as (m + k*a)*(x//a) + k*(x%a) + others, where that says what r // c is."""
        atoms: list[Any] = [m[0] for m in r if len(m) == 1 and type(m[0]) is e.FloorDiv]
        for atom in atoms:
            a, x = e.const_int(atom.b), P.of_expr(atom.a)
            lead = next((m for m in x if m), None)
            k, left = divmod(r.get(lead, 0), x[lead]) if lead and a else (0, 0)
            if not k or left or not a or a < 0 or not exact(x, self.dtype, self.facts):
                continue
            new = P.plus(P.plus(r, x, -k), P.of_atom(atom), k * a)
            new = P.plus(new, self._mod(x, a), k)
            rest = _split(new, c)[1]
            if self._same_quotient(rest, c) is not None:
                return new
        return None

    def _mod(self, p: Poly, c: int) -> Poly:
        r = self._as_remainder(p, c)
        for _ in range(P.MAX_TERMS):
            r = _split(r, c)[1]
            known = self._same_quotient(r, c)
            if known is not None:
                return P.plus(r, P.constant(-known * c))
            inner = self._unnest(r, c)
            if inner is None:
                break
            r = inner
        grouped = self._group(r, c)
        if grouped is not None:
            high, (low, shift), g = grouped
            upper = self._mod(P.plus(high, P.constant(shift)), c // g) if c > g else {}
            return P.plus(P.plus(P.scaled(upper, g), low), P.constant(-shift * g))
        return P.of_atom(e.FloorMod(self.finish(r), _lit(c, self)))

    def _unnest(self, r: Poly, c: int) -> Poly | None:
        """r with one inner remainder or one term of known residue replaced by something equal modulo c."""
        for mono, k in r.items():
            if not mono:
                continue
            if len(mono) == 1 and type(mono[0]) is e.FloorMod:
                m = e.const_int(mono[0].b)
                x = P.of_expr(mono[0].a)
                if m is not None and m > 0 and (k * m) % c == 0 and exact(x, self.dtype, self.facts):
                    return P.plus(P.plus(r, {mono: k}, -1), x, k)
            coef, base = poly_residue({mono: k}, self.facts)
            if coef % c == 0:
                return P.plus(P.plus(r, {mono: k}, -1), P.constant(base))
        coef, base = poly_residue(r, self.facts)
        return P.constant(base) if coef % c == 0 else None

    # ------------------------------------------------------------------------------------------------- symbolic divisor

    def _positive(self, d: Poly) -> bool:
        return nonneg(P.plus(d, P.constant(-1)), self.facts)

    def _by_symbol(self, p: Poly, d: Poly) -> tuple[Poly, Poly]:
        """(p // d, p % d) for a divisor that is no constant."""
        if not self._positive(d) or not exact(d, self.dtype, self.facts):
            a, b = self.finish(p), self.finish(d)
            if not p:
                return {}, {}
            return P.of_atom(e.FloorDiv(a, b)), P.of_atom(e.FloorMod(a, b))
        q, r = P.divide(p, d)
        for shift in (0, -1, 1):
            part = P.plus(r, d, -shift)
            if self._within(part, d):
                return P.plus(q, P.constant(shift)), part
        grouped = self._symbol_group(r, d)
        if grouped is not None:
            return P.plus(q, grouped[0]), grouped[1]
        one = P.single_atom(r)
        if one is not None and one[1] == 1 and type(one[0]) is e.FloorDiv and self._positive(P.of_expr(one[0].b)):
            deeper = self.floordiv(P.of_expr(one[0].a), P.times(P.of_expr(one[0].b), d))
        else:
            deeper = P.of_atom(e.FloorDiv(self.finish(r), self.finish(d)))
        return P.plus(q, deeper), P.of_atom(e.FloorMod(self.finish(r), self.finish(d)))

    def _within(self, r: Poly, d: Poly) -> bool:
        return nonneg(r, self.facts) and nonneg(P.plus(P.plus(d, r, -1), P.constant(-1)), self.facts)

    def _symbol_group(self, r: Poly, d: Poly) -> tuple[Poly, Poly] | None:
        """r = m*a + b with d = m*k, 0 <= b < m: (a // k, m*(a % k) + b), for a factor m of a one-term divisor."""
        if len(d) != 1:
            return None
        ((mono, coef),) = d.items()
        factors: list[Poly] = [{mono: 1}] if abs(coef) > 1 else []
        if len(mono) > 1:
            factors += [{tuple(x for j, x in enumerate(mono) if j != i): 1} for i in range(len(mono))]
            factors += [{(x,): 1} for x in mono]
        for m in factors:
            a, b = P.divide(r, m)
            k, left = P.divide(d, m)
            if a and not left and self._positive(m) and self._within(b, m):
                return self.floordiv(a, k), P.plus(P.times(m, self.floormod(a, k)), b)
        return None

    # ---------------------------------------------------------------------------------------------------- recombination

    def recombine(self, p: Poly) -> Poly:
        """Joins remainders with their quotients; fixes variables of one value; applies equalities."""
        if not p or (len(p) == 1 and () in p):
            return p
        key = ("sum", self.dtype, frozenset(p.items()))
        found = self.facts.memo.get(key)
        if found is None:
            found = p
            for _ in range(P.MAX_TERMS):
                new = self._step(found)
                if new is None:
                    break
                found = new
            self.facts.memo[key] = found
        return found

    def _step(self, p: Poly) -> Poly | None:
        facts = self.facts
        for mono, coef in p.items():
            for lead, rest in facts.rewrites:
                left = P.remove_factor(mono, lead)
                if left is not None:
                    return P.plus(P.plus(p, {mono: coef}, -1), P.times({left: coef}, rest))
            for atom in mono:
                lo, hi = atom_bounds(atom, facts)
                if lo is not None and lo == hi:
                    left = P.remove_factor(mono, (atom,))
                    assert left is not None
                    return P.plus(P.plus(p, {mono: coef}, -1), {left: coef * lo} if lo else {})
        if not any(type(a) in (e.FloorDiv, e.FloorMod) for m in p for a in m):
            return None
        for mono, coef in p.items():
            for atom in mono:
                new = self._join_mod(p, mono, coef, atom) if type(atom) is e.FloorMod else None
                new = self._join_div(p, mono, coef, atom) if type(atom) is e.FloorDiv else new
                if new is not None:
                    return new
        return None

    def _join_mod(self, p: Poly, mono: Any, coef: int, atom: Any) -> Poly | None:
        if len(p) == 1:
            return None
        x, d = P.of_expr(atom.a), P.of_expr(atom.b)
        c = P.const_of(d)
        if not exact(x, self.dtype, self.facts) or not (self._positive(d) if c is None else c > 0):
            return None
        left = P.remove_factor(mono, (atom,))
        assert left is not None
        s = {left: coef}
        without = P.plus(p, {mono: coef}, -1)
        whole = P.plus(P.plus(without, P.times(s, x)), P.times(P.times(s, d), self.floordiv(x, d)), -1)
        if len(whole) < len(p) or _weight(whole) < _weight(p):
            return whole
        inner = P.single_atom(x)
        if c is None or inner is None or inner[1] != 1 or type(inner[0]) is not e.FloorDiv:
            return None
        a, y = e.const_int(inner[0].b), P.of_expr(inner[0].a)
        if a is None or a <= 0 or coef % a or not exact(y, self.dtype, self.facts):
            return None
        s = {left: coef // a}
        low, both = self._mod(y, a), self._mod(y, a * c)
        joined = P.plus(P.plus(without, P.times(s, low), -1), P.times(s, both))
        return joined if len(joined) < len(p) else None

    def _join_div(self, p: Poly, mono: Any, coef: int, atom: Any) -> Poly | None:
        c = e.const_int(atom.b)
        if c is None or c <= 1 or coef % c:
            return None
        x = P.of_expr(atom.a)
        left = P.remove_factor(mono, (atom,))
        if left is None or not exact(x, self.dtype, self.facts):
            return None
        without, s = P.plus(p, {mono: coef}, -1), {left: coef // c}
        k, base = poly_residue(x, self.facts)
        if k % c == 0:  # c*(x//c) = x - base
            return P.plus(without, P.times(s, P.plus(x, P.constant(-(base % c)))))
        new = P.plus(P.plus(without, P.times(s, x)), P.times(s, self._mod(x, c)), -1)  # c*(x//c) = x - x%c
        return new if len(new) < len(p) else None


def _weight(p: Poly) -> int:
    """How involved a sum is: its terms, divisions counted as three."""
    return sum(3 if any(type(a) in (e.FloorDiv, e.FloorMod) for a in m) else 1 for m in p)


def _split(p: Poly, c: int) -> tuple[Poly, Poly]:
    """(q, r) with p = q*c + r; coefficients of r keep their sign and are smaller than c, its constant is in [0, c)."""
    q: Poly = {}
    r: Poly = {}
    for mono, coef in p.items():
        part = coef // c if not mono or coef >= 0 else -(-coef // c)
        if part:
            q[mono] = part
        if coef - part * c:
            r[mono] = coef - part * c
    return q, r


def _lit(value: int, owner: DivMod) -> e.PrimExpr:
    return e.const(value, owner.dtype)
