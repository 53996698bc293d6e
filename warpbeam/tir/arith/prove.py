"""A small sound prover of `p >= 0`: bounds first, then eliminating atoms by their symbolic limits, innermost first.

What it cannot decide it leaves open; it is never wrong. The search is bounded by `BUDGET` steps.
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir.rewrite import post_order
from warpbeam.tir import expr as e
from warpbeam.tir.arith import poly as P
from warpbeam.tir.arith.bounds import atom_bounds, exact, poly_bounds
from warpbeam.tir.arith.facts import Facts
from warpbeam.tir.arith.poly import Poly

BUDGET = 80
_DERIVED = (e.FloorDiv, e.FloorMod, e.Min, e.Max, e.Select)


def nonneg(p: Poly, facts: Facts) -> bool:
    """Whether p >= 0 is proven for all values that the facts allow."""
    quick = _quick(p, facts)
    if quick is not None:
        return quick
    if not facts.symbolic and not any(type(a) in _DERIVED for a in P.atoms(p)):
        return False
    form = frozenset(p.items())
    found = facts.proofs.get(form)
    if found is None:
        found = facts.proofs[form] = _Search(facts).run(p)
    return found


def _quick(p: Poly, facts: Facts) -> bool | None:
    lo, hi = poly_bounds(p, facts)
    if lo is not None and lo >= 0:
        return True
    return False if hi is not None and hi < 0 else None


class _Search:
    """Depth-first search over eliminations; alternatives are tried in order, all steps share one budget."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.left = BUDGET
        self.seen: dict[Any, tuple[bool, int]] = {}  # goals that were looked at to their end: found, steps it took
        self.ranks: dict[Any, tuple[float, int]] = {}

    def run(self, p: Poly, used: frozenset[int] = frozenset(), depth: int = 12) -> bool:
        quick = _quick(p, self.facts)
        if quick is not None:
            return quick
        if self.left <= 0 or depth == 0 or len(p) > 24:
            return False
        key = tuple(p.items()), used, depth
        known = self.seen.get(key)
        if known is not None and known[1] < self.left:  # what is decided does not depend on what is remembered
            self.left -= known[1]
            return known[0]
        before = self.left
        found = self._found(p, used, depth)
        if self.left > 0:
            self.seen[key] = found, before - self.left
        return found

    def _found(self, p: Poly, used: frozenset[int], depth: int) -> bool:
        self.left -= 1
        for atom in self._candidates(p):
            for goals in self._eliminations(p, atom):
                if all(self.run(g, used, depth - 1) for g in goals):
                    return True
                if self.left <= 0:
                    return False
        return self._with_constraints(p, used, depth)

    def _with_constraints(self, p: Poly, used: frozenset[int], depth: int) -> bool:
        for k, c in enumerate(self.facts.constraints):
            if k in used:
                continue
            for mono, coef in c.items():
                mine = p.get(mono, 0)
                if mono and mine * coef > 0:
                    scale = abs(coef)  # p is whole: scale * p >= 1 - scale says as much as p >= 0
                    goal = P.plus(P.plus(P.scaled(p, scale), P.constant(scale - 1)), c, -abs(mine))
                    if self.run(goal, used | {k}, depth - 1):
                        return True
                    break
        return False

    def _candidates(self, p: Poly) -> list[Any]:
        """Atoms worth eliminating, innermost first; of the same variables what may contain others first."""
        ranges, order = self.facts.ranges, self.facts.order
        mixed = {a for mono in p if len(mono) > 1 for a in mono}
        found = [a for a in P.atoms(p) if a in ranges or type(a) in _DERIVED or (a in mixed and a in order)]
        if len(found) > 1:
            found.sort(key=lambda a: self._rank(a, order), reverse=True)
        return found

    def _rank(self, atom: Any, order: dict[e.Var, int]) -> tuple[float, int]:
        """How far inside an atom's variables are, and how many nodes it has."""
        if type(atom) is e.Var:
            return order.get(atom, -1), 1
        found = self.ranks.get(atom)
        if found is None:
            nodes = list(post_order(atom))
            inside = (order.get(n, -1) for n in nodes if type(n) is e.Var)
            found = self.ranks[atom] = max(inside, default=-1) + 0.5, len(nodes)
        return found

    def _eliminations(self, p: Poly, atom: Any) -> list[list[Poly]]:
        """Ways to get rid of `atom`: each a list of goals that together imply p >= 0."""
        slope: Poly = {}
        rest: Poly = {}
        for mono, coef in p.items():
            left = P.remove_factor(mono, (atom,))
            if left is None:
                rest[mono] = coef
            elif any(a is atom for a in left):
                return []
            else:
                slope[left] = coef
        lo, hi = poly_bounds(slope, self.facts)
        if type(atom) is e.FloorDiv:
            special = self._floordiv(slope, rest, atom)
            if special is not None:
                return special
            nested = self._nested(slope, rest, atom)
            if nested is not None:
                return nested
        if lo is not None and lo >= 0:
            return self._bounded(slope, rest, atom, lower=True)
        if hi is not None and hi <= 0:
            return self._bounded(slope, rest, atom, lower=False)
        return []

    def _bounded(self, slope: Poly, rest: Poly, atom: Any, lower: bool) -> list[list[Poly]]:
        def goal(q: Poly, den: int = 1) -> Poly:
            return P.plus(P.scaled(rest, den), P.times(slope, q))

        cls = type(atom)
        if cls is e.Var:
            sides = self.facts.ranges.get(atom, ([], []))[0 if lower else 1]
            return [[goal(q)] for q in sides if all(a is not atom for a in P.atoms(q))] + self._constant(
                goal, atom, lower
            )
        a, b = (P.of_expr(atom.a), P.of_expr(atom.b))
        if cls is e.Select or (cls is e.Min and lower) or (cls is e.Max and not lower):
            return [[goal(a), goal(b)]]
        if cls in (e.Min, e.Max):
            return [[goal(a)], [goal(b)]]
        if cls is e.FloorDiv:
            c = P.const_of(b)
            if c is None or c <= 0 or not exact(a, atom.dtype, self.facts):
                return self._constant(goal, atom, lower)
            return [[goal(P.plus(a, P.constant(1 - c)) if lower else a, c)], *self._constant(goal, atom, lower)]
        options = self._constant(goal, atom, lower)
        if cls is e.FloorMod and not lower:
            low = poly_bounds(b, self.facts)[0]
            if low is not None and low >= 1:
                options.append([goal(P.plus(b, P.constant(-1)))])
                inner = poly_bounds(a, self.facts)[0]
                if inner is not None and inner >= 0 and exact(a, atom.dtype, self.facts):
                    options.append([goal(a)])
        return options + self._taken_apart(goal, atom, a, P.const_of(b))

    def _taken_apart(self, goal: Any, atom: Any, x: Poly, c: int | None) -> list[list[Poly]]:
        """x % c as x - c*(x//c), which other quotients of x relate to."""
        if type(atom) is not e.FloorMod or c is None or c <= 0 or not exact(x, atom.dtype, self.facts):
            return []
        quotient: Any = e.FloorDiv(atom.a, atom.b)
        return [[goal(P.plus(x, P.of_atom(quotient), -c))]]

    def _constant(self, goal: Any, atom: Any, lower: bool) -> list[list[Poly]]:
        value = atom_bounds(atom, self.facts)[0 if lower else 1]
        return [] if value is None else [[goal(P.constant(value))]]

    def _floordiv(self, slope: Poly, rest: Poly, atom: Any) -> list[list[Poly]] | None:
        """k*d*(x//d) with a symbolic d > 0: between k*(x-d+1) and k*x."""
        d, x = P.of_expr(atom.b), P.of_expr(atom.a)
        low = poly_bounds(d, self.facts)[0]
        if P.const_of(d) is not None or low is None or low < 1 or not exact(x, atom.dtype, self.facts):
            return None
        k, left = P.divide(slope, d)
        factor = P.const_of(k)
        if left or not factor:
            return None
        near = x if factor < 0 else P.plus(P.plus(x, d, -1), P.constant(1))
        return [[P.plus(rest, near, factor)]]

    def _nested(self, slope: Poly, rest: Poly, atom: Any) -> list[list[Poly]] | None:
        """k*(x//c) beside (x+s)//(c*m), s a multiple of c: x//c + s/c is m*((x+s)//(c*m)) and up to m-1 more."""
        k, c = P.const_of(slope), P.const_of(P.of_expr(atom.b))
        if k is None or c is None or c <= 0:
            return None
        x = P.of_expr(atom.a)
        if not exact(x, atom.dtype, self.facts):
            return None
        for other in P.atoms(rest):
            if not isinstance(other, e.FloorDiv):
                continue
            wide = P.const_of(P.of_expr(other.b))
            if wide is None or wide <= c or wide % c:
                continue
            shift = P.const_of(P.plus(P.of_expr(other.a), x, -1))
            if shift is None or shift % c or not exact(P.of_expr(other.a), other.dtype, self.facts):
                continue
            m = wide // c
            least = P.plus(P.scaled(P.of_atom(other), m), P.constant((0 if k > 0 else m - 1) - shift // c))
            return [[P.plus(rest, least, k)]]
        return None


def decide_ge(a: Poly, b: Poly, facts: Facts) -> bool | None:
    """Whether a >= b: True, False or None (open)."""
    diff = P.plus(a, b, -1)
    if nonneg(diff, facts):
        return True
    if nonneg(P.plus(P.scaled(diff, -1), P.constant(-1)), facts):
        return False
    return None


def decide_eq(a: Poly, b: Poly, facts: Facts) -> bool | None:
    """Whether a == b: True, False or None (open)."""
    diff = P.plus(a, b, -1)
    if not diff:
        return True
    lo, hi = poly_bounds(diff, facts)
    if (lo is not None and lo > 0) or (hi is not None and hi < 0):
        return False
    if lo == 0 and hi == 0:
        return True
    terms, offset = P.split_const(diff)
    if offset % (P.content(terms) or 1):
        return False
    from warpbeam.tir.arith.bounds import poly_residue

    if poly_residue(diff, facts)[1]:
        return False
    if facts.symbolic:
        down = P.plus(diff, P.constant(-1)), P.plus(P.scaled(diff, -1), P.constant(-1))
        if nonneg(down[0], facts) or nonneg(down[1], facts):
            return False
        if nonneg(diff, facts) and nonneg(P.scaled(diff, -1), facts):
            return True
    return None


def prove(cond: Any, facts: Facts | None = None) -> bool | None:
    """Whether `cond` holds for all values the facts allow: True, False, or None where it is not decided.

    cond: a bool expression, a Python bool, or the EQ/NE node that `a == b` builds.
    """
    from warpbeam.tir.arith.simplify import simplify

    if isinstance(cond, bool):
        return cond
    result = simplify(cond, facts)
    return bool(result.value) if type(result) is e.IntImm else None
