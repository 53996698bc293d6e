"""What is known about variables: ranges, inequalities, equalities, divisibility. Scoped; read by all of `arith`."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.tir import expr as e
from warpbeam.tir.arith import poly as P
from warpbeam.tir.arith.poly import Poly

Bounds = tuple[int | None, int | None]
Form = frozenset[tuple[Any, int]]

_PLAIN = 1 << 31  # literals below this are the same in every type of index
_STATE = ("ranges", "limits", "constraints", "rewrites", "congruences", "known", "order")


class _Scope:
    """What `Facts.scope` gives: entering it copies what is known, leaving it puts back what was."""

    __slots__ = ("facts", "saved")

    def __init__(self, facts: Facts) -> None:
        self.facts = facts

    def __enter__(self) -> Facts:
        state = vars(self.facts)
        self.saved = state.copy()
        for name in _STATE:
            state[name] = state[name].copy()
        return self.facts

    def __exit__(self, *error: object) -> None:
        vars(self.facts).update(self.saved)


class Facts:
    """A store of facts that hold for every value the variables take.

    bind(i, 0, n)          i in [0, n); a body under a loop may also rely on n >= 1
    assume(n % 8 == 0)     any condition: comparisons, divisibility, equalities, conjunctions
    assume(n * c == m * k) equalities of products, as a reshape states
    hint(n, (1, 8))        likely values; never used for proofs

    `with facts.scope():` forgets what was added inside.
    """

    def __init__(self) -> None:
        self.ranges: dict[e.Var, tuple[list[Poly], list[Poly]]] = {}  # symbolic inclusive bounds: lows, highs
        self.limits: dict[Form, Bounds] = {}  # constant bounds of const-free sums
        self.constraints: list[Poly] = []  # each >= 0
        self.rewrites: list[tuple[P.Mono, Poly]] = []  # monomial == polynomial
        self.congruences: dict[Form, tuple[int, int]] = {}  # const-free sum == base (mod coef)
        self.known: dict[e.PrimExpr, bool] = {}  # conditions of any kind
        self.order: dict[e.Var, int] = {}  # binding order, outer first
        self.of_sums = False  # whether some limit is of more than one term
        self._forget()

    def _forget(self) -> None:
        self.memo: dict[Any, Any] = {}
        self.polys: dict[Any, Poly] = {}
        self.bounds_memo: dict[Any, Bounds] = {}
        self.proofs: dict[Any, bool] = {}

    def __bool__(self) -> bool:
        return True

    @property
    def symbolic(self) -> bool:
        """Whether a proof can use more than constant bounds."""
        return bool(self.ranges or self.constraints)

    def scope(self) -> _Scope:
        """Facts added inside the `with` are forgotten at its end."""
        return _Scope(self)

    # ------------------------------------------------------------------------------------------------------- additions

    def bind(self, var: e.Var, lo: Any, extent: Any) -> None:
        """var in [lo, lo + extent); numbers or expressions. The extent is taken to be at least 1 (the body runs)."""
        first, count = e.const_int(lo), e.const_int(extent)
        if first is not None and count is not None and 1 <= count < _PLAIN and abs(first) < _PLAIN:
            self._bind_range(var, first, first + count - 1)
            return
        low = self._poly(lo, var.dtype)
        size = self._poly(extent, var.dtype)
        if not self._single_run(size):
            self._assume_nonneg(P.plus(size, P.constant(-1)))
            self._assume_factors(size)
        lows = self._alternatives(low, e.Max)
        highs = [P.plus(P.plus(low, s), P.constant(-1)) for s in self._alternatives(size, e.Min)]
        self.bind_limits(var, lows, highs)

    def _bind_range(self, var: e.Var, low: int, high: int) -> None:
        """low <= var <= high."""
        if var in self.order:
            self._drop(var)
        self._forget()
        self.limits[frozenset({((var,), 1)})] = (low, high)
        self.order[var] = len(self.order)
        self.ranges.pop(var, None)

    def bind_limits(self, var: e.Var, lows: Sequence[Poly], highs: Sequence[Poly]) -> None:
        """lows <= var <= highs (inclusive polynomials, all of them hold)."""
        from warpbeam.tir.arith.bounds import poly_bounds

        form = frozenset({((var,), 1)})
        if var in self.order:
            self._drop(var)
        self._forget()
        los = [b for p in lows if (b := poly_bounds(p, self)[0]) is not None]
        his = [b for p in highs if (b := poly_bounds(p, self)[1]) is not None]
        self.limits[form] = (max(los, default=None), min(his, default=None))
        self.order[var] = len(self.order)
        symbolic = [p for p in lows if P.const_of(p) is None], [p for p in highs if P.const_of(p) is None]
        if symbolic[0] or symbolic[1]:
            self.ranges[var] = (list(lows), list(highs))
        else:
            self.ranges.pop(var, None)

    def assume(self, cond: Any) -> None:
        """From now on `cond` is true. Conjunctions are taken apart; what is not understood is kept verbatim."""
        from warpbeam.tir.arith.simplify import simplify

        todo = [e.as_expr(cond, "bool")]
        while todo:
            c = _strip(simplify(_strip(todo.pop()), self))
            if type(c) is e.And:
                todo += [c.b, c.a]
                continue
            self.known[c] = True
            self._forget()
            if isinstance(c, e.CmpExpr) and dt.is_int(c.a.dtype) and dt.lanes(c.dtype) == 1:
                self._compare(c)
            elif type(c) is e.Not:
                self.known[c.a] = False

    def _compare(self, c: Any) -> None:
        from warpbeam.tir.arith.bounds import exact

        a, b = P.of_expr(c.a), P.of_expr(c.b)
        if not (exact(a, c.a.dtype, self) and exact(b, c.b.dtype, self)):
            return
        diff = P.plus(b, a, -1)
        if type(c) is e.EQ:
            self._equal(c, diff)
        elif type(c) in (e.LT, e.LE):
            self._assume_nonneg(P.plus(diff, P.constant(-1)) if type(c) is e.LT else diff)
        elif type(c) in (e.GT, e.GE):
            diff = P.scaled(diff, -1)
            self._assume_nonneg(P.plus(diff, P.constant(-1)) if type(c) is e.GT else diff)
        elif type(c) is e.NE:
            self.known[e.EQ(c.a, c.b)] = False

    def _equal(self, c: Any, diff: Poly) -> None:
        self._assume_nonneg(diff)
        self._assume_nonneg(P.scaled(diff, -1))
        terms, base = P.split_const(diff)
        one = P.single_atom(terms)
        if one is not None and type(one[0]) is e.FloorMod and abs(one[1]) == 1:
            modulus = e.const_int(one[0].b)
            if modulus:
                self._congruent(P.of_expr(one[0].a), abs(modulus), (-base * one[1]) % abs(modulus))
        for mono, coef in P.sorted_terms(diff):
            lead = next((m for m in diff if len(m) == len(mono) and P.remove_factor(m, mono) is not None), mono)
            rest = {m: k for m, k in diff.items() if m != lead}
            if abs(coef) == 1 and not any(P.remove_factor(m, lead) is not None for m in rest):
                if not any(a in _inside(rest) for a in lead):
                    self.rewrites.append((lead, P.scaled(rest, -coef)))
                    self._forget()
                return

    def _congruent(self, p: Poly, coef: int, base: int) -> None:
        terms, offset = P.split_const(p)
        form = frozenset(terms.items())
        old = self.congruences.get(form, (1, 0))
        base = (base - offset) % coef
        if coef % old[0] and old[0] % coef == 0:
            coef, base = old
        elif coef % old[0]:
            g = gcd(coef, old[0])
            step, value = coef * old[0] // g, base
            while value % old[0] != old[1] % old[0] and value < step:
                value += coef
            coef, base = step, value
        self.congruences[form] = (coef, base % coef)
        self._forget()

    # -------------------------------------------------------------------------------------------------------- internals

    def _drop(self, var: e.Var) -> None:
        """Forgets everything about a variable that is bound again."""
        self.limits = {f: b for f, b in self.limits.items() if not any(var in _inside({m: 1}) for m, _ in f)}
        self.congruences = {f: b for f, b in self.congruences.items() if not any(var in _inside({m: 1}) for m, _ in f)}
        self.constraints = [p for p in self.constraints if var not in _inside(p)]
        self.rewrites = [(m, p) for m, p in self.rewrites if var not in _inside({m: 1, **p})]
        self.known = {c: v for c, v in self.known.items() if var not in _inside({(c,): 1})}
        self.ranges = {
            v: (lo, hi) for v, (lo, hi) in self.ranges.items() if not any(var in _inside(p) for p in lo + hi)
        }

    def _poly(self, value: Any, dtype: str) -> Poly:
        from warpbeam.tir.arith.simplify import simplify

        return P.of_expr(simplify(e.as_expr(value, dtype), self))

    def _single_run(self, size: Poly) -> bool:
        from warpbeam.tir.arith.bounds import poly_bounds

        low = poly_bounds(size, self)[0]
        return low is not None and low >= 1

    def _assume_factors(self, size: Poly) -> None:
        """A product that is at least 1, of factors that are not negative, has no factor 0; nor has one of which there
        is at least one part, rounded up.
        """
        from warpbeam.tir.arith.bounds import poly_bounds

        parts = P.single_atom(size)
        if parts is not None and type(parts[0]) is e.FloorDiv:
            whole, added = P.split_const(P.of_expr(parts[0].a))
            size = whole if 0 <= added < (e.const_int(parts[0].b) or 0) else size
        mono = next(iter(size)) if len(size) == 1 else ()
        factors = [P.of_atom(a) for a in mono]
        if len(factors) > 1 and size[mono] > 0 and all(_at_least_zero(poly_bounds(f, self)) for f in factors):
            for f in factors:
                self._assume_nonneg(P.plus(f, P.constant(-1)))

    def _alternatives(self, p: Poly, cls: type) -> list[Poly]:
        """p where p is no Min (Max); else p with the operands in its place (each of them is a bound)."""
        found, todo = [], [p]
        while todo:
            q = todo.pop()
            for mono, coef in q.items():
                if len(mono) == 1 and coef == 1 and type(mono[0]) is cls:
                    rest = P.plus(q, {mono: 1}, -1)
                    todo += [P.plus(rest, P.of_expr(side)) for side in (mono[0].b, mono[0].a)]  # type: ignore[attr-defined]
                    break
            else:
                found.append(q)
        return found

    def _assume_nonneg(self, p: Poly) -> None:
        """p >= 0, and what follows from it for what is divided in p."""
        found: Poly | None = p
        while found is not None:
            self._bound(found)
            found = self._divided(found)

    def _divided(self, p: Poly) -> Poly | None:
        """What p >= 0 says of a where p is a // c or -(a // c), plus a number: a form that is >= 0, too."""
        from warpbeam.tir.arith.bounds import exact

        terms, offset = P.split_const(p)
        one = P.single_atom(terms)
        if one is None or abs(one[1]) != 1 or type(one[0]) is not e.FloorDiv:
            return None
        by, inner = e.const_int(one[0].b), P.of_expr(one[0].a)
        if by is None or by < 1 or not exact(inner, one[0].a.dtype, self):
            return None
        if one[1] == 1:  # a // c >= -offset
            return P.plus(inner, P.constant(offset * by))
        return P.plus(P.constant(offset * by + by - 1), inner, -1)  # a // c <= offset

    def _bound(self, p: Poly) -> None:
        """p >= 0: a constant bound of its const-free part, and a constraint where it relates several atoms."""
        terms, offset = P.split_const(p)
        g = P.content(terms)
        if not terms:
            return
        form = {m: c // g for m, c in terms.items()}
        low = -(offset // g)  # form >= ceil(-offset / g)
        if len(form) == 1 and next(iter(form.values())) < 0:
            self._tighten(P.scaled(form, -1), (None, -low))
        else:
            self._tighten(form, (low, None))
            self._tighten(P.scaled(form, -1), (None, -low))
        if len(terms) > 1 or len(next(iter(terms))) > 1 or type(next(iter(terms))[0]) is not e.Var:
            self.constraints.append(P.plus(form, P.constant(-low)))
        self._forget()

    def _tighten(self, form: Poly, new: Bounds) -> None:
        key = frozenset(form.items())
        self.of_sums = self.of_sums or len(key) > 1
        lo, hi = self.limits.get(key, (None, None))
        lo = new[0] if lo is None or (new[0] is not None and new[0] > lo) else lo
        hi = new[1] if hi is None or (new[1] is not None and new[1] < hi) else hi
        self.limits[key] = (lo, hi)


def _at_least_zero(found: Bounds) -> bool:
    return found[0] is not None and found[0] >= 0


def _strip(c: Any) -> Any:
    while type(c) is e.Call and c.op == "likely":
        c = c.args[0]
    return c


def _inside(p: Poly) -> set[Any]:
    """Every node below the atoms of p."""
    from warpbeam.ir.rewrite import post_order

    return set(post_order(*P.atoms(p)))
