"""Runs the last, shorter iteration of a serial loop apart, because full vectors need extents that are constant.

for i in 5:                                   for i in 4:
    vectorized j in min(16, 70 - 16*i): B         vectorized j in 16: B
                                        ->    vectorized j in 6: B
"""

from __future__ import annotations

from typing import Any

from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import free_vars
from warpbeam.tir.analysis.regions import Range, interval, loop_range
from warpbeam.tir.analysis.tree import kids, with_kids
from warpbeam.tir.arith import Facts, linear, prove, simplify
from warpbeam.tir.expr import IntImm, PrimExpr, Var
from warpbeam.tir.stmt import For, PrimFunc, SeqStmt, Stmt, seq
from warpbeam.tir.transform.lower_blocks import Lowering
from warpbeam.tir.transform.mutate import peel, wrap


def peel_tails(func: PrimFunc) -> PrimFunc:
    """Serial loops are cut where the extents of expanded loops in them stop being constant."""
    allocs, body = peel(func.body)
    new = _Peeler().stmt(body)
    return func if new is body else PrimFunc(func.name, func.params, wrap(allocs, new or SeqStmt(())), func.attrs)


class _Peeler:
    def __init__(self) -> None:
        self.facts = Facts()

    def stmt(self, s: Any) -> Stmt | None:
        below = kids(s)
        if not isinstance(s, For):
            new = [self.stmt(c) for c in below]
            return s if all(a is b for a, b in zip(new, below, strict=True)) else with_kids(s, new)
        with self.facts.scope():
            self.facts.bind(s.var, s.min, s.extent)
            body = self.stmt(s.body)
        if body is None:
            return None
        if body is not s.body:
            s = For(s.var, s.min, s.extent, s.kind, body, s.annotations, s.thread)
        at = self._cut(s) if s.kind == "serial" and e.const_int(s.min) == 0 else None
        return s if at is None else self._parts(s, at)

    def _parts(self, s: For, at: PrimExpr) -> Stmt | None:
        first = Lowering(self.facts).stmt(For(s.var, 0, at, s.kind, s.body, s.annotations))
        left = simplify(s.extent - at, self.facts)
        second = Lowering(self.facts).stmt(For(s.var, at, left, s.kind, s.body, s.annotations))
        parts = [p for p in (first, None if second is None else _serial(second)) if p is not None]
        return seq(*parts) if parts else None

    def _cut(self, s: For) -> PrimExpr | None:
        """The first iteration in which some expanded loop is not full, if there is a proven one inside the loop."""
        stack: list[tuple[Any, dict[Var, Range | None]]] = [(s.body, {})]
        while stack:
            inner, env = stack.pop()
            if isinstance(inner, For):
                if inner.kind in ("vectorized", "unrolled"):
                    at = self._limit(s, inner.extent, env)
                    if at is not None:
                        return at
                env = {**env, inner.var: loop_range(inner, env)}
            stack.extend((c, env) for c in kids(inner))
        return None

    def _limit(self, s: For, extent: PrimExpr, env: dict[Var, Range | None]) -> PrimExpr | None:
        if type(extent) is not e.Min or s.var not in free_vars(extent):
            return None
        full, rest = (extent.a, extent.b) if isinstance(extent.a, IntImm) else (extent.b, extent.a)
        form = linear(rest, [s.var]) if isinstance(full, IntImm) else None
        slope = None if form is None else e.const_int(form[0].get(s.var))
        if form is None or slope is None or slope >= 0:
            return None
        least = interval(form[1], env)
        if least is None:
            return None
        at: PrimExpr = simplify(e.floordiv(least.low - full, -slope) + 1, self.facts)
        if e.const_int(at) == 0 or prove(e.land(at >= 0, at <= s.extent), self.facts) is not True:
            return None
        return at


def _serial(s: Any) -> Stmt:
    """Expanded loops whose extents are still not constant become serial."""
    if isinstance(s, For):
        kind = "serial" if s.kind in ("vectorized", "unrolled") and _open(s.extent) else s.kind
        return For(s.var, s.min, s.extent, kind, _serial(s.body), s.annotations, s.thread)
    below = kids(s)
    new: list[Any] = [_serial(c) for c in below]
    return s if not below else with_kids(s, new) or s


def _open(extent: PrimExpr) -> bool:
    limits = [getattr(extent, "a", None), getattr(extent, "b", None)] if type(extent) is e.Min else [extent]
    return not any(isinstance(x, IntImm) for x in limits)
