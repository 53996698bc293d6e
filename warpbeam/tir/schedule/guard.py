"""How schedule steps put conditions on what stands below a loop; see `analysis/predicate`."""

from __future__ import annotations

from typing import Any

from warpbeam.ir.rewrite import substitute
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import mentions
from warpbeam.tir.analysis.predicate import conjuncts as conjuncts
from warpbeam.tir.analysis.predicate import is_likely as is_likely
from warpbeam.tir.arith import prove
from warpbeam.tir.expr import IntImm, PrimExpr, Var
from warpbeam.tir.stmt import Block, For, IfThenElse, SeqStmt, Stmt, seq


def guarded(stmt: Stmt, cond: PrimExpr) -> Stmt:
    """The statement where `cond` holds: blocks get it as part of their predicate, anything else stands in a branch."""
    if isinstance(stmt, Block):
        predicate = e.land(stmt.predicate, cond)
        return Block(stmt.name, stmt.axes, stmt.bindings, predicate, stmt.init, stmt.body, stmt.annotations)
    if isinstance(stmt, For):
        body = guarded(stmt.body, cond)
        return For(stmt.var, stmt.min, stmt.extent, stmt.kind, body, stmt.annotations, stmt.thread)
    if isinstance(stmt, SeqStmt):
        return seq(*[guarded(s, cond) for s in stmt.stmts])
    return IfThenElse(cond, stmt)


def at_start(predicate: PrimExpr, carried: list[For], fresh: dict[Var, PrimExpr]) -> PrimExpr:
    """The predicate of a reduction's first instance: loops that carry it at their start, the others renamed.

    i*16 + j < 100 and likely(k*4 + r < m)     ->     i_init*16 + j_init < 100

    Limits of the reduction's own loops fall away whatever the sizes: a reduction over nothing starts too.
    """
    if isinstance(predicate, IntImm):
        return predicate
    start: dict[Any, Any] = {f.var: f.min for f in carried}
    carriers = set(start)
    start.update(fresh)
    kept = []
    for c in conjuncts(predicate):
        if is_likely(c) and mentions(c, carriers) and not mentions(c, set(fresh)):
            continue
        if mentions(c, set(start)):
            c = substitute(c, start)
            inner = c.args[0] if isinstance(c, e.Call) and is_likely(c) else c
            if prove(inner) is True:
                continue
        kept.append(c)
    return e.land(*kept)
