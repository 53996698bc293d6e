"""Conditions that a schedule puts on blocks: what a split that does not divide must not run.

Such a condition is marked `likely`: it only keeps the loops from running past the block's domain and says nothing
about the computation, so primitives that make a block's loops anew leave it out. Any other predicate is the program's.
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir.rewrite import substitute
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import mentions
from warpbeam.tir.expr import IntImm, PrimExpr, Var
from warpbeam.tir.stmt import Block, For, IfThenElse, SeqStmt, Stmt, seq


def likely(cond: PrimExpr) -> PrimExpr:
    """The condition with the mark, literals as they are."""
    return cond if isinstance(cond, IntImm) else e.call("likely", cond)


def conjuncts(cond: PrimExpr) -> list[PrimExpr]:
    """The parts of a conjunction in order; none for true."""
    out: list[PrimExpr] = []
    todo = [cond]
    while todo:
        c = todo.pop()
        if type(c) is e.And:
            todo += [c.b, c.a]
        elif not (isinstance(c, IntImm) and c.value):
            out.append(c)
    return out


def is_likely(cond: Any) -> bool:
    return type(cond) is e.Call and cond.op == "likely"


def own_condition(block: Block) -> PrimExpr:
    """The part of a block's predicate that is not due to the schedule's loops."""
    return e.land(*[c for c in conjuncts(block.predicate) if not is_likely(c)])


def unconditional(block: Block) -> bool:
    """Whether the program itself runs every instance of the block."""
    own = own_condition(block)
    return isinstance(own, IntImm) and bool(own.value)


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

    i*16 + j < 100 and k*4 + r < 10     ->     i_init*16 + j_init < 100
    """
    if isinstance(predicate, IntImm):
        return predicate
    start: dict[Any, Any] = {f.var: f.min for f in carried}
    start.update(fresh)
    kept = []
    for c in conjuncts(predicate):
        if mentions(c, set(start)):
            c = substitute(c, start)
            inner = c.args[0] if isinstance(c, e.Call) and is_likely(c) else c
            if _plainly_true(inner):
                continue
        kept.append(c)
    return e.land(*kept)


def _plainly_true(cond: PrimExpr) -> bool:
    from warpbeam.tir.arith import prove

    return prove(cond) is True
