"""Writes the body of a marked loop twice: as it is, and without the conditions of its choices, for where they all hold.

for i in m:  # inside                                  for i in m:
    for c in 2:                                            if i >= 1 and i < n - 2:
        A[c, 0] = if_then_else(i >= 1, X[i - 1], 0)            for c in 2: A[c, 0] = X[i - 1]; A[c, 1] = X[i + 2]
        A[c, 1] = if_then_else(i + 2 < n, X[i + 2], 0)  ->     else:
                                                               for c in 2: …  as it was

One test per tile of a window then stands for one mask or branch per tap. Only the strictest of several like conditions
is tested. Conditions that change inside of the body stay.
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir.rewrite import post_order, substitute
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import accesses, free_vars
from warpbeam.tir.analysis.predicate import conjuncts
from warpbeam.tir.arith import poly, simplify
from warpbeam.tir.stmt import For, IfThenElse, LetStmt, PrimFunc, Stmt
from warpbeam.tir.transform.mutate import map_up

MARK = "inside"


def inside_versions(func: PrimFunc) -> PrimFunc:
    """Loops with the note "inside" get a version without conditions."""
    body = map_up(func.body, _versions)
    return func if body is func.body else func.replace(body=body)


def _versions(s: Any) -> Stmt:
    if not isinstance(s, For) or MARK not in s.annotations:
        return s  # type: ignore[no-any-return]
    own = {n.var for n in post_order(s.body) if isinstance(n, For | LetStmt | e.Let)}
    choices = [n for n in post_order(s.body) if type(n) is e.Call and n.op == "if_then_else"]
    tests = {c: None for n in choices for c in conjuncts(_scalar(n.args[0])) if _outside(c, own)}
    if not tests:
        return s
    plain = substitute(s.body, {n: _passed(n, tests) for n in choices})
    body = IfThenElse(e.land(*_strictest(tests)), plain, s.body)
    return For(s.var, s.min, s.extent, s.kind, body, s.annotations, s.thread)


def _passed(n: e.Call, tests: dict[e.PrimExpr, None]) -> e.PrimExpr:
    """A choice where these conditions hold."""
    left = e.land(*(c for c in conjuncts(_scalar(n.args[0])) if c not in tests))
    if isinstance(left, e.IntImm):
        return n.args[1]
    cond = e.Broadcast(left, n.args[0].count) if isinstance(n.args[0], e.Broadcast) else left
    return e.Call(n.type, n.op, (cond, *n.args[1:]), n.attrs)


def _scalar(cond: e.PrimExpr) -> e.PrimExpr:
    return cond.value if isinstance(cond, e.Broadcast) else cond


def _outside(c: e.PrimExpr, own: set[e.Var]) -> bool:
    """Whether a condition is the same in the whole loop, and needs no memory."""
    return not own & set(free_vars(c)) and not any(accesses(c))


def _strictest(tests: dict[e.PrimExpr, None]) -> list[e.PrimExpr]:
    """Conditions of which one implies another, without that other."""
    kept: list[e.PrimExpr] = []
    least: dict[Any, tuple[int, poly.Poly]] = {}
    for c in tests:
        over = _excess(c)
        if over is None:
            kept.append(c)
            continue
        rest, number = poly.split_const(over)
        key = frozenset(rest.items())
        if key not in least or number < least[key][0]:
            least[key] = number, over
    return kept + [simplify(poly.to_expr(p, "int64") >= 0) for _, p in least.values()]


def _excess(c: e.PrimExpr) -> poly.Poly | None:
    """What must not be negative for a comparison of integers to hold; None for another condition."""
    if not isinstance(c, e.LT | e.LE | e.GT | e.GE) or "int" not in c.a.dtype:
        return None
    low, high = (c.a, c.b) if isinstance(c, e.LT | e.LE) else (c.b, c.a)
    return poly.plus(poly.of_expr(high - low), poly.constant(1 if isinstance(c, e.LT | e.GT) else 0), -1)


__all__ = ["inside_versions"]
