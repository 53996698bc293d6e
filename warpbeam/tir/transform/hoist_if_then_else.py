"""Takes conditions that a loop does not change out of it, because a test per iteration costs more than one test.

for i in n:                      if c < 4:
    if c < 4: A[i] = 1.0   ->        for i in n: A[i] = 1.0
"""

from __future__ import annotations

from itertools import takewhile
from typing import Any

from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import accesses, free_vars
from warpbeam.tir.expr import PrimExpr
from warpbeam.tir.stmt import Evaluate, For, IfThenElse, PrimFunc, SeqStmt, Stmt, seq
from warpbeam.tir.transform.mutate import map_up
from warpbeam.tir.transform.setting import Setting

KINDS = ("serial", "unrolled", "vectorized")


def hoist_if_then_else(func: PrimFunc, at: Setting | None = None) -> PrimFunc:
    """Loop-invariant conditions stand outside their loops.

    Config "tir.HoistIfThenElse": support_block_scope_hoisting lets them leave loops over threads, too. Conditions that
    read memory stay, and so do those under parallel loops.
    """
    at = at or Setting()
    threads = at.option("tir.HoistIfThenElse", "support_block_scope_hoisting", False)
    kinds = (*KINDS, "thread_binding") if threads else KINDS
    body = map_up(func.body, lambda s: _hoisted(s, kinds))
    return func if body is func.body else func.replace(body=body)


def _hoisted(s: Any, kinds: tuple[str, ...]) -> Stmt:
    if not isinstance(s, For) or s.kind not in kinds:
        return s  # type: ignore[no-any-return]
    asks, branch = _asked(s.body)
    if not isinstance(branch, IfThenElse):
        return s
    fixed, moving = _split(branch.cond, s)
    if not fixed or (moving and branch.orelse is not None):
        return s
    inner = IfThenElse(e.land(*moving), branch.then) if moving else branch.then
    orelse = None if branch.orelse is None else _over(s, seq(*asks, branch.orelse))
    return IfThenElse(e.land(*fixed), _over(s, seq(*asks, inner)), orelse)


def _asked(body: Stmt) -> tuple[list[Stmt], Stmt]:
    """What a body asks memory for ahead, which changes nothing, and what it does."""
    parts = list(body.stmts) if isinstance(body, SeqStmt) else [body]
    asks = list(takewhile(_asks, parts))
    return asks, seq(*parts[len(asks) :])


def _asks(s: Stmt) -> bool:
    return isinstance(s, Evaluate) and isinstance(s.value, e.Call) and s.value.op == "prefetch"


def _over(s: For, body: Stmt) -> Stmt:
    return For(s.var, s.min, s.extent, s.kind, body, s.annotations, s.thread)


def _split(cond: PrimExpr, s: For) -> tuple[list[PrimExpr], list[PrimExpr]]:
    """Conjuncts that the loop leaves alone, and the others."""
    fixed: list[PrimExpr] = []
    moving: list[PrimExpr] = []
    for c in e.flattened(cond, e.And):
        (moving if s.var in free_vars(c) or accesses(c)[0] else fixed).append(c)
    return fixed, moving
