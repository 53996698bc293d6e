"""Turns blocks into plain statements and simplifies all indices with the loops' ranges, since later passes read those.

Loops of one iteration disappear, loops of none too; conditions that the ranges decide are decided.
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir.rewrite import substitute
from warpbeam.tir import expr as e
from warpbeam.tir.arith import Facts, prove, simplify
from warpbeam.tir.expr import IntImm, PrimExpr
from warpbeam.tir.stmt import (
    Allocate,
    AssertStmt,
    Block,
    BufferStore,
    Evaluate,
    For,
    IfThenElse,
    LetStmt,
    PrimFunc,
    SeqStmt,
    Stmt,
    While,
    seq,
)
from warpbeam.tir.transform.mutate import peel, wrap
from warpbeam.tir.transform.stage_notes import STAGE, count_of, parts_of, regrown


def lower_blocks(func: PrimFunc) -> PrimFunc:
    """The program without blocks."""
    allocs, body = peel(func.body)
    body = Lowering().stmt(body) or SeqStmt(())
    return PrimFunc(func.name, func.params, wrap(allocs, body), func.attrs)


class Lowering:
    """Simplifies statements within `facts`; a block becomes its body."""

    def __init__(self, facts: Facts | None = None, keep_single: bool = False) -> None:
        self.facts = Facts() if facts is None else facts
        self.keep_single = keep_single
        self.single: dict[Any, Any] = {}  # variables of loops with one iteration

    def expr(self, x: PrimExpr) -> Any:
        if isinstance(x, IntImm):
            return x
        if self.single:
            x = substitute(x, self.single)
        return simplify(x, self.facts)

    def stmt(self, s: Any) -> Stmt | None:
        rule = _RULES.get(type(s))
        return s if rule is None else rule(self, s)  # type: ignore[no-any-return]

    def seq(self, s: SeqStmt) -> Stmt | None:
        new = [n for n in (self.stmt(c) for c in s.stmts) if n is not None]
        return seq(*new) if new else None

    def loop(self, s: For) -> Stmt | None:
        low, extent = self.expr(s.min), self.expr(s.extent)
        count = e.const_int(extent)
        if count <= 0 if count is not None else prove(extent <= 0, self.facts) is True:
            return None
        if count == 1 and not self.keep_single and "joined" not in s.annotations:
            self.single[s.var] = low
            body = self.stmt(s.body)
            del self.single[s.var]
            return body
        with self.facts.scope():
            self.facts.bind(s.var, low, extent)
            body, notes = self.staged(s) if STAGE in s.annotations else (self.stmt(s.body), s.annotations)
        return None if body is None else For(s.var, low, extent, s.kind, body, notes, s.thread)

    def staged(self, s: For) -> tuple[Stmt | None, Any]:
        """The body of a pipelined loop, and its notes for the statements that are then there."""
        allocs, parts = parts_of(s)
        new = [self.stmt(p) for p in parts]
        alone = len(new) - new.count(None) == 1  # then buffers that it is inside of are the loop's
        counts = [count_of(n if n is None or not alone else peel(n)[1]) for n in new]
        return None if new.count(None) == len(new) else wrap(allocs, seq(*new)), regrown(s, counts)

    def block(self, b: Block) -> Stmt | None:
        cond = self.expr(b.predicate)
        if isinstance(cond, IntImm):
            return self.instance(b) if cond.value else None
        with self.facts.scope():
            self.facts.assume(cond)
            body = self.instance(b)
        return None if body is None else IfThenElse(cond, body)

    def instance(self, b: Block) -> Stmt | None:
        """A block where its predicate holds."""
        at: dict[Any, Any] = {a.var: self.expr(x) for a, x in zip(b.axes, b.bindings, strict=True)}
        body = self.inlined(b.body, at)
        if b.init is not None:
            first = e.land(*[at[a.var] == 0 for a in b.axes if a.kind == "reduce"])
            body = seq(self.guarded(first, self.inlined(b.init, at)), body)
        return body

    def inlined(self, s: Stmt, at: dict[Any, Any]) -> Stmt | None:
        """A block's own statement with its axes replaced."""
        if self.single:
            at = {**self.single, **at}
        return self.stmt(substitute(s, at))

    def guarded(self, cond: PrimExpr, s: Stmt | None) -> Stmt | None:
        cond = self.expr(cond)
        if s is None or (isinstance(cond, IntImm) and not cond.value):
            return None
        return s if isinstance(cond, IntImm) else IfThenElse(cond, s)

    def store(self, s: BufferStore) -> Stmt:
        return BufferStore(s.buffer, self.expr(s.value), tuple(self.expr(i) for i in s.indices))

    def branch(self, s: IfThenElse) -> Stmt | None:
        cond = self.expr(s.cond)
        if isinstance(cond, IntImm):
            return self.stmt(s.then) if cond.value else None if s.orelse is None else self.stmt(s.orelse)
        with self.facts.scope():
            self.facts.assume(cond)
            then = self.stmt(s.then)
        with self.facts.scope():
            self.facts.assume(e.lnot(cond))
            orelse = None if s.orelse is None else self.stmt(s.orelse)
        if then is None:
            return None if orelse is None else IfThenElse(e.lnot(cond), orelse)
        return IfThenElse(cond, then, orelse)

    def let(self, s: LetStmt) -> Stmt | None:
        body = self.stmt(s.body)
        return None if body is None else LetStmt(s.var, self.expr(s.value), body)

    def allocate(self, s: Allocate) -> Stmt | None:
        body = self.stmt(s.body)
        return None if body is None else Allocate(s.buffer, body, s.annotations)

    def loop_while(self, s: While) -> Stmt | None:
        return While(self.expr(s.cond), self.stmt(s.body) or SeqStmt(()))

    def evaluate(self, s: Evaluate) -> Stmt:
        return Evaluate(self.expr(s.value))

    def check(self, s: AssertStmt) -> Stmt:
        return AssertStmt(self.expr(s.cond), s.message)


_RULES: dict[type, Any] = {
    SeqStmt: Lowering.seq,
    For: Lowering.loop,
    Block: Lowering.block,
    BufferStore: Lowering.store,
    IfThenElse: Lowering.branch,
    LetStmt: Lowering.let,
    Allocate: Lowering.allocate,
    While: Lowering.loop_while,
    Evaluate: Lowering.evaluate,
    AssertStmt: Lowering.check,
}
