"""Interleaves the iterations of a virtual thread's loop statement by statement, so that they hide each other's latency.

for v in vthread(2):                        alloc T: float32[2]
    alloc T: float32[]                      for i in n:
    for i in n:                      ->         T[0] = A[0, i]
        T[()] = A[v, i]                         T[1] = A[1, i]
        B[v, i] = T[()] * 2.0                   B[0, i] = T[0] * 2.0
                                                B[1, i] = T[1] * 2.0

Innermost virtual threads first. Buffers that the thread's iterations fill differently are replicated; a loop whose
bounds differ between iterations, and a branch whose condition does, is written once per iteration as a whole.
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir.diagnostics import LowerError
from warpbeam.ir.node import children
from warpbeam.ir.rewrite import post_order, rewrite, substitute
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import accesses, free_vars
from warpbeam.tir.analysis.tree import kids, with_kids
from warpbeam.tir.expr import Buffer, BufferLoad, BufferRef, Var
from warpbeam.tir.stmt import Allocate, BufferStore, For, IfThenElse, LetStmt, PrimFunc, SeqStmt, Stmt, seq
from warpbeam.tir.transform.lower_blocks import Lowering
from warpbeam.tir.transform.mutate import map_up
from warpbeam.tir.transform.setting import Setting

THREADS = ("vthread", "cthread")


def inject_virtual_thread(func: PrimFunc, at: Setting | None = None) -> PrimFunc:
    """The program without loops over virtual threads."""
    body = map_up(func.body, _thread)
    return func if body is func.body else func.replace(body=body)


def is_virtual(s: Any) -> bool:
    """Whether a statement is a loop over a virtual thread."""
    return isinstance(s, For) and s.kind == "thread_binding" and s.thread.split(".")[0] in THREADS


def _thread(s: Any) -> Stmt | None:
    if not is_virtual(s):
        return s  # type: ignore[no-any-return]
    count = e.const_int(s.extent)
    if count is None:
        raise LowerError(f"virtual thread {s.var.name} has no constant extent", hint="split by nparts")
    if count == 1:
        return substitute(s.body, {s.var: s.min})  # type: ignore[no-any-return]
    body = _Interleaver(s, count).stmt(s.body)
    return None if body is None else Lowering().stmt(body)


class _Interleaver:
    """Writes the body with its leaves `count` times; `own` are the buffers and variables that differ by iteration."""

    def __init__(self, loop: For, count: int) -> None:
        self.loop, self.count = loop, count
        self.allocated = {n.buffer for n in post_order(loop.body) if isinstance(n, Allocate)}
        self.touched = self._touched(loop.body)
        self.twins: dict[Buffer, Buffer] = {}

    def _touched(self, body: Stmt) -> set[Any]:
        """What depends on the thread: its variable, what is let to depend on it, and buffers written so."""
        touched: set[Any] = {self.loop.var}
        while True:
            before = len(touched)
            self._spread(body, touched, False)
            if len(touched) == before:
                return touched

    def _spread(self, s: Any, touched: set[Any], inside: bool) -> None:
        if isinstance(s, LetStmt) and self._depends(s.value, touched):
            touched.add(s.var)
        if isinstance(s, For) and (self._depends(s.min, touched) or self._depends(s.extent, touched)):
            touched.add(s.var)
            inside = True
        if isinstance(s, IfThenElse) and self._depends(s.cond, touched):
            inside = True
        if isinstance(s, BufferStore) and s.buffer in self.allocated and (inside or self._depends(s, touched)):
            touched.add(s.buffer)
        for c in kids(s):
            self._spread(c, touched, inside)

    def _depends(self, x: Any, touched: set[Any]) -> bool:
        if isinstance(x, BufferStore):
            return any(self._depends(i, touched) for i in (*x.indices, x.value))
        loads = accesses(x)[0]
        read = {n.buffer for n in loads} | {n.buffer for n in post_order(x) if isinstance(n, BufferRef)}
        return not free_vars(x).isdisjoint(touched) or not read.isdisjoint(touched)

    # ------------------------------------------------------------------------------------------------------- rewriting

    def stmt(self, s: Any) -> Stmt | None:
        if isinstance(s, Allocate) and s.buffer in self.touched:
            twin = s.buffer.replace(shape=(self.count, *s.buffer.shape))
            self.twins[s.buffer] = twin
            body = self.stmt(s.body)
            return None if body is None else Allocate(twin, body, s.annotations)
        whole = isinstance(s, LetStmt) and s.var in self.touched
        if isinstance(s, For):
            whole = self._depends(s.min, self.touched) or self._depends(s.extent, self.touched)
        elif isinstance(s, IfThenElse):
            whole = self._depends(s.cond, self.touched)
        if whole or not kids(s):
            return self.copies(s)
        return with_kids(s, [self.stmt(c) for c in kids(s)])

    def copies(self, s: Stmt) -> Stmt | None:
        """A statement once per iteration, or once if it does not depend on the thread."""
        if not self._any(s):
            return s
        made = []
        for k in range(self.count):
            value = e.add(self.loop.min, k)
            made.append(rewrite(substitute(s, self._names(s, k, value)), lambda n, k=k: self.placed(n, k)))  # type: ignore[misc]
        return seq(*made) if made else SeqStmt(())

    def _names(self, s: Stmt, k: int, value: Any) -> dict[Any, Any]:
        """The thread's variable as a number, and loops and lets of a whole copy under names of their own."""
        new: dict[Any, Any] = {self.loop.var: value}
        for n in post_order(s):
            if isinstance(n, For | LetStmt):
                new[n.var] = Var(f"{n.var.name}_v{k}", n.var.dtype)
        return new

    def placed(self, n: Any, k: int) -> Any:
        twin = self.twins.get(n.buffer) if isinstance(n, BufferLoad | BufferStore) else None
        if twin is None:
            return None
        index = (e.const(k), *n.indices)
        return BufferLoad(twin, index) if isinstance(n, BufferLoad) else BufferStore(twin, n.value, index)

    def _any(self, s: Any) -> bool:
        if isinstance(s, BufferStore) and s.buffer in self.touched:
            return True
        if isinstance(s, Allocate) and s.buffer in self.touched:
            return True
        if not kids(s):
            parts = [x for x in children(s) if isinstance(x, e.PrimExpr)]
            return any(self._depends(x, self.touched) for x in parts)
        return any(self._any(c) for c in kids(s)) or any(
            self._depends(x, self.touched) for x in children(s) if isinstance(x, e.PrimExpr)
        )
