"""Drops statements without effect, so that what later passes read and printers print is what happens.

alloc T: float32[8]
for i in 8:
    T[i] = A[i]         ->     for i in 8:
    B[i] = B[i]                    C[i] = A[i]
    C[i] = A[i]
"""

from __future__ import annotations

from functools import partial
from typing import Any

from warpbeam.ir.rewrite import post_order
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import free_vars
from warpbeam.tir.expr import Buffer, BufferLoad, BufferRef, Call, IntImm, Var
from warpbeam.tir.intrin import is_pure
from warpbeam.tir.stmt import (
    Allocate,
    AssertStmt,
    BufferStore,
    Evaluate,
    For,
    IfThenElse,
    LetStmt,
    PrimFunc,
    SeqStmt,
    Stmt,
)
from warpbeam.tir.transform.mutate import map_up, peel, wrap
from warpbeam.tir.transform.setting import Setting


def remove_no_op(func: PrimFunc, at: Setting | None = None) -> PrimFunc:
    """Stores of an element to itself, stores into memory nobody reads, empty loops and branches are gone."""
    while True:
        dead = _unread(func)
        body = map_up(func.body, partial(_kept, dead=dead))
        if dead:
            allocs, inner = peel(body)
            body = wrap([a for a in allocs if a.buffer not in dead], inner)
        if body is func.body:
            return func
        func = func.replace(body=body)
        if not dead:
            return func


def drop_asserts(func: PrimFunc) -> PrimFunc:
    """The program without run-time checks, for config "tir.disable_assert"."""
    return func.replace(body=map_up(func.body, lambda s: None if isinstance(s, AssertStmt) else s))  # type: ignore[no-any-return]


def effect_free(x: Any) -> bool:
    """Whether evaluating an expression changes nothing."""
    return not any(isinstance(n, Call) and not is_pure(n.op) for n in post_order(x))


def _unread(func: PrimFunc) -> set[Buffer]:
    """Allocated buffers that nothing loads from and whose stores can go."""
    allocated: set[Buffer] = set()
    used: set[Buffer] = set()
    for n in post_order(func.body):
        if isinstance(n, Allocate):
            allocated.add(n.buffer)
        elif isinstance(n, BufferLoad | BufferRef) or (isinstance(n, BufferStore) and not effect_free(n.value)):
            used.add(n.buffer)
    return allocated - used


def _kept(s: Any, dead: set[Buffer]) -> Stmt | None:
    if isinstance(s, BufferStore):
        same = isinstance(s.value, BufferLoad) and s.value.buffer is s.buffer and s.value.indices == s.indices
        return None if s.buffer in dead or same else s
    if isinstance(s, Evaluate):
        return None if effect_free(s.value) else s
    if isinstance(s, AssertStmt):
        return None if isinstance(s.cond, IntImm) and s.cond.value else s
    if isinstance(s, Allocate):
        return s.body if s.buffer in dead else s
    if isinstance(s, For):
        count = e.const_int(s.extent)
        return None if (count is not None and count <= 0) or _empty(s.body) else s
    if isinstance(s, IfThenElse):
        return _branch(s)
    if isinstance(s, LetStmt):
        return s.body if effect_free(s.value) and s.var not in _variables(s.body) else s
    return None if _empty(s) else s


def _branch(s: IfThenElse) -> Stmt | None:
    if isinstance(s.cond, IntImm):
        return s.then if s.cond.value else s.orelse
    orelse = None if s.orelse is None or _empty(s.orelse) else s.orelse
    if _empty(s.then):
        return None if orelse is None else IfThenElse(e.lnot(s.cond), orelse)
    return s if orelse is s.orelse else IfThenElse(s.cond, s.then, orelse)


def _variables(s: Stmt) -> frozenset[Var]:
    return free_vars(s)


def _empty(s: Any) -> bool:
    return isinstance(s, SeqStmt) and not s.stmts
