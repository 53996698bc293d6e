"""Brings expressions into a normal form: one pass bottom up, memoised in the facts, without recursion.

Integer sums, products, quotients and remainders are kept as polynomials until a node needs them as an expression; all
else goes through the rules of `rules.py` or the deciders below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Node, children, map_children
from warpbeam.ir.rewrite import post_order
from warpbeam.tir import expr as e
from warpbeam.tir.arith import lanes
from warpbeam.tir.arith import poly as P
from warpbeam.tir.arith.bounds import atom_bounds, exact, poly_bounds
from warpbeam.tir.arith.divmod import DivMod
from warpbeam.tir.arith.facts import Facts
from warpbeam.tir.arith.poly import Poly
from warpbeam.tir.arith.prove import decide_eq, decide_ge, nonneg
from warpbeam.tir.arith.rules import RULES

_NO_FACTS = Facts()
_NO_FACTS_LIMIT = 200_000


def simplify(expr: Any, facts: Facts | None = None) -> Any:
    """The normal form of an expression (or of every expression in a statement) where `facts` hold.

    Two integer expressions that are equal as linear combinations give the same node. Numbers are taken as literals.
    """
    expr = expr if isinstance(expr, Node) else e.as_expr(expr)
    if facts is None:
        facts = _NO_FACTS
        if len(facts.memo) > _NO_FACTS_LIMIT:
            facts._forget()
    found = facts.memo.get(expr)
    if found is not None:
        return found
    lanes.trim()
    return _Simplifier(facts).run(expr)


def _is_int(n: Any) -> bool:
    return isinstance(n, e.PrimExpr) and dt.is_int(n.dtype)


def _any_number(p: Poly, facts: Facts) -> bool:
    """Whether a term is read from memory, or made of what is (a float as a whole number), and may be the least or the
    largest number: what else is added to it, to bring a comparison into a normal form, may wrap.
    """
    for atom in {a for mono in p for a in mono}:
        low, high = atom_bounds(atom, facts)
        least, largest = dt.int_range(atom.dtype)
        bounded = low is not None and high is not None and least < low and high < largest
        read = (type(n) is e.BufferLoad for n in post_order(lanes.original(atom)))
        if not bounded and any(read):
            return True
    return False


class _Simplifier:
    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.memo = facts.memo
        self.polys = facts.polys
        self.divmods: dict[str, DivMod] = {}

    def run(self, root: Node) -> Any:
        memo, polys = self.memo, self.polys
        stack: list[tuple[Node, bool]] = [(root, False)]
        while stack:
            n, ready = stack.pop()
            if n in memo or n in polys:
                continue
            if ready:
                self.visit(n)
            else:
                stack.append((n, True))
                stack.extend((c, False) for c in children(n) if c not in memo and c not in polys)
        return self.value(root)

    # ----------------------------------------------------------------------------------------------------- two readings

    def divmod(self, dtype: str) -> DivMod:
        base = dt.scalar(dtype)
        found = self.divmods.get(base)
        if found is None:
            found = self.divmods[base] = DivMod(base, self.facts)
        return found

    def value(self, n: Any) -> Any:
        """The simplified node."""
        found = self.memo.get(n)
        if found is None:
            found = self.divmod(n.dtype).finish(self.polys[n])
            count = dt.lanes(n.dtype)
            if count > 1:
                found = lanes.vectorize(found, count)
            self.memo[n] = found
            self.memo.setdefault(found, found)
        return found

    def poly(self, n: Any) -> Poly:
        """The polynomial of an integer operand; a vector's is over its lane variable."""
        found = self.polys.get(n)
        if found is None:
            new = self.memo[n]
            if dt.lanes(n.dtype) == 1:
                found = P.of_expr(new)
            else:
                found = self.polys.get(new) if new is not n else None
                if found is None:
                    found = P.of_atom(lanes.standin(new))
            self.polys[n] = found
        return found

    def put(self, n: Any, scalar: Any) -> None:
        """Records the result of `n` given as a scalar expression (over the lane variable if n is a vector)."""
        count = dt.lanes(n.dtype)
        if dt.is_int(n.dtype):
            self.polys[n] = P.of_expr(scalar)
            return
        if count == 1:
            known = self.facts.known.get(scalar)
            self.memo[n] = scalar if known is None else e.const(known, "bool")
            return
        if any(type(x) is e.Var and x.dtype.startswith("int") for x in post_order(scalar)):
            self.memo[n] = lanes.vectorize(scalar, count)
        else:
            self.memo[n] = e.Broadcast(scalar, count)

    # ----------------------------------------------------------------------------------------------------------- visits

    def visit(self, n: Node) -> None:
        handler = _INT_VISITS.get(type(n))
        if handler is not None and _is_int(getattr(n, "a", n)):
            handler(self, n)
            return
        new = map_children(n, self.value)
        if isinstance(new, e.PrimExpr):
            new = self.rewritten(new)
            if dt.is_bool(new.dtype):
                known = self.facts.known.get(new)
                new = new if known is None else e.const(known, new.dtype)
        self.memo[n] = new

    def rewritten(self, n: Any) -> Any:
        """Rules and folds at one node whose operands are simplified."""
        n = _fold(n)
        new = RULES.at(n)
        if new is not None:
            n = _fold(new)
            if isinstance(n, e.CmpExpr) and _is_int(n.a) and n not in self.memo:
                return self.run(n)
        if type(n) is e.And and dt.lanes(n.dtype) == 1:
            return self.pruned(n)
        if type(n) is e.Cast:
            return self.cast(n)
        return n

    def cast(self, n: Any) -> Any:
        """Widening distributes over an integer sum that cannot wrap; a cast there and back is dropped."""
        v = n.value
        if not (dt.is_int(n.type) and _is_int(v)) or dt.lanes(n.dtype) > 1:
            return n
        if type(v) is e.Cast and v.value.dtype == n.type and _is_int(v.value):
            lo, hi = atom_bounds(v.value, self.facts)
            low, high = dt.int_range(v.dtype)
            if lo is not None and hi is not None and low <= lo and hi <= high:
                return v.value
        if n.type == "int64" and type(v) in (e.Add, e.Sub, e.Mul):
            p = P.of_expr(v)
            if exact(p, v.dtype, self.facts) and dt.is_int(v.dtype):
                wide = {a: e.cast("int64", a) for a in P.atoms(p)}
                out: Poly = {}
                for mono, coef in p.items():
                    out = P.plus(out, {tuple(sorted((wide[a] for a in mono), key=id)): coef})
                return P.to_expr(out, "int64")
        return n

    def pruned(self, n: Any) -> Any:
        """A conjunction without the comparisons that others imply; false where two exclude each other."""
        terms = list(dict.fromkeys(e.flattened(n, e.And)))
        forms = [self.inequality(t) for t in terms]
        keep = []
        for i, p in enumerate(forms):
            implied = False
            for j, q in enumerate(forms):
                if i == j or p is None or q is None:
                    continue
                gap = P.const_of(P.plus(p, q, -1))
                implied |= gap is not None and (gap > 0 or (gap == 0 and j < i))
                total = P.const_of(P.plus(p, q))
                if total is not None and total < 0:
                    return e.const(False, "bool")
            if not implied:
                keep.append(terms[i])
        return e.land(*keep) if len(keep) < len(terms) else n

    def inequality(self, c: Any) -> Poly | None:
        """p with c equivalent to p >= 0."""
        if type(c) not in (e.LT, e.LE, e.GT, e.GE) or not _is_int(c.a):
            return None
        a, b = P.of_expr(c.a), P.of_expr(c.b)
        if not (exact(a, c.a.dtype, self.facts) and exact(b, c.b.dtype, self.facts)):
            return None
        diff = P.plus(b, a, -1) if type(c) in (e.LT, e.LE) else P.plus(a, b, -1)
        return P.plus(diff, P.constant(-1)) if type(c) in (e.LT, e.GT) else diff

    # --------------------------------------------------------------------------------------------------------- integers

    def leaf(self, n: Any) -> None:
        if dt.is_int(n.dtype):
            self.polys[n] = P.constant(n.value) if type(n) is e.IntImm else P.of_atom(n)
        else:
            self.put(n, n)

    def ring(self, n: Any) -> None:
        a, b = self.poly(n.a), self.poly(n.b)
        if type(n) is e.Mul:
            if P.explodes(a, b):
                dm = self.divmod(n.dtype)
                self.polys[n] = P.of_atom(e.Mul(dm.finish(a), dm.finish(b)))
            else:
                self.polys[n] = P.times(a, b)
        else:
            self.polys[n] = P.plus(a, b, 1 if type(n) is e.Add else -1)

    def division(self, n: Any) -> None:
        dm, a, b = self.divmod(n.dtype), self.poly(n.a), self.poly(n.b)
        cls = type(n)
        if cls in (e.Div, e.Mod):
            low_a, low_b = poly_bounds(a, self.facts)[0], poly_bounds(b, self.facts)[0]
            same = low_a is not None and low_a >= 0 and low_b is not None and low_b >= 0
            ok = exact(a, n.dtype, self.facts) and exact(b, n.dtype, self.facts)
            if not (same and ok):
                self.polys[n] = self.truncated(cls, a, b, dm)
                return
            cls = e.FloorDiv if cls is e.Div else e.FloorMod
        self.polys[n] = dm.floordiv(a, b) if cls is e.FloorDiv else dm.floormod(a, b)

    def truncated(self, cls: type, a: Poly, b: Poly, dm: DivMod) -> Poly:
        x, y = P.const_of(a), P.const_of(b)
        if x is not None and y is not None:
            q = e.trunc_div(x, y)
            return P.constant(q if cls is e.Div else (x - q * y if y else 0))
        if y == 1:
            return a if cls is e.Div else {}
        return P.of_atom(cls(dm.finish(a), dm.finish(b)))

    def extreme(self, n: Any) -> None:
        """min/max: operands that others dominate go, the rest stand in structural order."""
        cls, dm = type(n), self.divmod(n.dtype)
        sides = [P.of_expr(x) for side in (n.a, n.b) for x in e.flattened(dm.finish(self.poly(side)), cls)]
        keep: list[Poly] = []
        for p in sides:
            if any(self.dominates(q, p, n.dtype, cls) for q in keep):
                continue
            keep = [q for q in keep if not self.dominates(p, q, n.dtype, cls)] + [p]
        exprs = [dm.finish(p) for p in keep]
        exprs.sort(key=lambda x: (type(x) is e.IntImm, P.key(x)))
        out = exprs[0]
        for x in exprs[1:]:
            out = cls(out, x)
        self.polys[n] = P.of_expr(out)

    def dominates(self, p: Poly, q: Poly, dtype: str, cls: type) -> bool:
        """Whether min(p, q) = p (or max)."""
        if p == q:
            return True
        if not (exact(p, dtype, self.facts) and exact(q, dtype, self.facts)):
            return False
        return nonneg(P.plus(q, p, -1) if cls is e.Min else P.plus(p, q, -1), self.facts)

    def compare(self, n: Any) -> None:
        a, b = self.poly(n.a), self.poly(n.b)
        self.put(n, self.compared(type(n), a, b, dt.scalar(n.a.dtype)))

    def compared(self, cls: type, a: Poly, b: Poly, dtype: str) -> e.PrimExpr:
        dm, facts = self.divmod(dtype), self.facts
        plain = exact(a, dtype, facts) and exact(b, dtype, facts)
        diff = dm.recombine(P.plus(b, a, -1))
        if cls in (e.EQ, e.NE):
            same = decide_eq(b, a, facts) if plain else (True if not diff else None)
            if same is None and plain:
                same = decide_eq(diff, {}, facts)
            if same is not None:
                return e.const(same == (cls is e.EQ), "bool")
            return self.equation(cls, diff, dm) if dtype == "int64" else cls(dm.finish(a), dm.finish(b))
        if not plain:
            if not diff:
                return e.const(cls in (e.LE, e.GE), "bool")
            return cls(dm.finish(a), dm.finish(b))  # type: ignore[no-any-return]
        if cls in (e.GT, e.GE):
            diff = P.scaled(diff, -1)
        if cls in (e.LT, e.GT):
            diff = P.plus(diff, P.constant(-1))
        holds = decide_ge(diff, {}, facts)
        if holds is not None:
            return e.const(holds, "bool")
        if dtype == "int64" and not (_any_number(a, facts) or _any_number(b, facts)):
            return self.ordering(diff, dm)
        return cls(dm.finish(a), dm.finish(b))  # type: ignore[no-any-return]

    def equation(self, cls: type, diff: Poly, dm: DivMod) -> e.PrimExpr:
        """diff == 0 (or != 0) with positive terms on the left and the constant on the right."""
        terms, offset = P.split_const(diff)
        g = P.content(terms)
        sign = 1 if P.sorted_terms(terms)[0][1] > 0 else -1
        left = {m: c * sign // g for m, c in terms.items() if c * sign > 0}
        right = {m: -c * sign // g for m, c in terms.items() if c * sign < 0}
        right = P.plus(right, P.constant(-offset * sign // g))
        return cls(dm.finish(left), dm.finish(right))  # type: ignore[no-any-return]

    def ordering(self, diff: Poly, dm: DivMod) -> e.PrimExpr:
        """diff >= 0 as `small < large` or `large >= constant`, divided by the common factor."""
        for g in sorted({abs(c) for m, c in diff.items() if m} - {1}, reverse=True):
            low = {m: c for m, c in diff.items() if not m or c % g}
            lo, hi = poly_bounds(low, self.facts)
            if lo is not None and hi is not None and lo // g == hi // g and len(low) > 1:
                diff = P.plus({m: c // g for m, c in diff.items() if m and c % g == 0}, P.constant(lo // g))
                break
        terms, offset = P.split_const(diff)
        g = P.content(terms)
        more = {m: c // g for m, c in terms.items() if c > 0}
        less = {m: -(c // g) for m, c in terms.items() if c < 0}
        offset //= g
        if not less:
            return e.GE(dm.finish(more), e.const(-offset, dm.dtype))
        return e.LT(dm.finish(less), dm.finish(P.plus(more, P.constant(offset + 1))))

    def broadcast(self, n: Any) -> None:
        if _is_int(n.value):
            self.polys[n] = self.poly(n.value)
        else:
            value = self.value(n.value)
            self.memo[n] = value if n.count == 1 else e.Broadcast(value, n.count)

    def ramp(self, n: Any) -> None:
        if n.count == 1:
            self.polys[n] = self.poly(n.base)
        else:
            self.polys[n] = lanes.ramp(self.poly(n.base), self.poly(n.stride), n.count, dt.scalar(n.dtype))


_INT_VISITS: dict[type, Callable[[_Simplifier, Any], None]] = {
    e.IntImm: _Simplifier.leaf,
    e.Var: _Simplifier.leaf,
    e.Add: _Simplifier.ring,
    e.Sub: _Simplifier.ring,
    e.Mul: _Simplifier.ring,
    e.FloorDiv: _Simplifier.division,
    e.FloorMod: _Simplifier.division,
    e.Div: _Simplifier.division,
    e.Mod: _Simplifier.division,
    e.Min: _Simplifier.extreme,
    e.Max: _Simplifier.extreme,
    e.EQ: _Simplifier.compare,
    e.NE: _Simplifier.compare,
    e.LT: _Simplifier.compare,
    e.LE: _Simplifier.compare,
    e.GT: _Simplifier.compare,
    e.GE: _Simplifier.compare,
    e.Broadcast: _Simplifier.broadcast,
    e.Ramp: _Simplifier.ramp,
}


def _fold(n: Any) -> Any:
    """Literal conditions and broadcast operands."""
    cls = type(n)
    if cls is e.Call:
        if n.op == "if_then_else" and type(n.args[0]) is e.IntImm:
            return n.args[1] if n.args[0].value else n.args[2]
        if n.op == "likely" and type(n.args[0]) is e.IntImm:
            return n.args[0]
        return n
    if cls is e.Cast and type(n.value) is e.IntImm:
        return e.cast(n.type, n.value)
    if dt.lanes(n.dtype) == 1:
        return n
    below = [getattr(n, f) for f in cls._fields]
    if cls is e.Select and type(n.cond) is e.Broadcast and type(n.cond.value) is e.IntImm:
        return n.a if n.cond.value.value else n.b
    if cls in (e.And, e.Or):
        for side, other in ((n.a, n.b), (n.b, n.a)):
            if type(side) is e.Broadcast and type(side.value) is e.IntImm:
                return other if bool(side.value.value) == (cls is e.And) else side
    if cls not in (e.Broadcast, e.Ramp, e.Cast) and below and all(type(x) is e.Broadcast for x in below):
        return e.Broadcast(
            _fold(RULES.apply(cls(*[x.value for x in below]))), n.count if cls is e.Broadcast else dt.lanes(n.dtype)
        )
    return n
