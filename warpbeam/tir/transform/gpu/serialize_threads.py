"""Kernels as loops of a processor: the threads of a block run one after the other from each barrier to the next.

    for bx in blockIdx.x:                           for bx in parallel:
        alloc S @shared                                 alloc S
        for tx in threadIdx.x:                          alloc r[64]
            alloc r @local                              for tx in range(64): r[tx] = A[...]; S[tx] = r[tx]
            r = A[...]; S[tx] = r            ->         for tx in range(64): B[...] = S[63 - tx] + r[tx]
            storage_sync("shared")
            B[...] = S[63 - tx] + r

Private memory that lives across a barrier gets a dimension per thread axis. What contains a barrier must be the same
for all threads, as on a device.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from warpbeam.ir.diagnostics import LowerError
from warpbeam.ir.rewrite import post_order, rewrite
from warpbeam.tir.analysis.tree import kids
from warpbeam.tir.expr import Buffer, BufferLoad, BufferRef, Var
from warpbeam.tir.stmt import Allocate, BufferStore, Evaluate, For, IfThenElse, LetStmt, PrimFunc, SeqStmt, Stmt, seq
from warpbeam.tir.transform.gpu.common import has_thread, is_block_axis, is_sync, is_thread

_HOST_SCOPES = ("global", "register")


def serialize_threads(func: PrimFunc) -> PrimFunc:
    """The program without hardware axes; loops over the outermost axis of blocks run in parallel.

    Raises:
        LowerError: if only some threads may reach a barrier, or memory that must be private is passed as a pointer.
    """
    return PrimFunc(func.name, func.params, _on_host(_outside(func.body, True)), func.attrs)


def _outside(s: Any, first: bool) -> Stmt:
    """A statement around the threads; `first`: no axis of blocks is open yet."""
    if is_thread(s) and is_block_axis(s.thread):
        return For(s.var, s.min, s.extent, "parallel" if first else "serial", _outside(s.body, False))
    if is_thread(s):
        return _Threads().enter(s)
    if not has_thread(s):
        return s  # type: ignore[no-any-return]
    if isinstance(s, SeqStmt):
        return seq(*(_outside(c, first) for c in s.stmts))
    if isinstance(s, IfThenElse):
        return IfThenElse(s.cond, _outside(s.then, first), None if s.orelse is None else _outside(s.orelse, first))
    return s.replace(body=_outside(s.body, first))  # type: ignore[no-any-return]


@dataclass(slots=True)
class _Threads:
    """The threads of a block: their loops, and private memory that outlives a barrier."""

    loops: list[For] = field(default_factory=list)
    wide: dict[Buffer, Buffer] = field(default_factory=dict)
    barriers: dict[Stmt, bool] = field(default_factory=dict)
    count: int = 0

    def enter(self, s: Any) -> Stmt:
        """The whole of a nest that begins with a thread axis."""
        while is_thread(s):
            self.loops.append(s)
            s = s.body
        return self.split(s)

    def split(self, s: Any) -> Stmt:
        """A statement of all threads, cut at its barriers."""
        if is_sync(s):
            return SeqStmt(())
        if not self.has_barrier(s):
            return self.each_thread(s)
        if isinstance(s, SeqStmt):
            return self._parts(s)
        if isinstance(s, Allocate):
            buffer = s.buffer
            if buffer.scope not in ("shared", "shared.dyn"):
                lead = tuple(loop.extent for loop in self.loops)
                self.wide[s.buffer] = buffer = Buffer(buffer.name, (*lead, *buffer.shape), buffer.dtype)
            return Allocate(buffer, self.split(s.body), s.annotations)
        self._same_for_all(s)
        if isinstance(s, For):
            return For(s.var, s.min, s.extent, "serial", self.split(s.body))
        if isinstance(s, IfThenElse):
            return IfThenElse(s.cond, self.split(s.then), None if s.orelse is None else self.split(s.orelse))
        return s.replace(body=self.split(s.body))  # type: ignore[no-any-return]

    def _parts(self, s: SeqStmt) -> Stmt:
        """Each run of statements without a barrier is one loop over the threads."""
        done: list[Stmt] = []
        run: list[Stmt] = []
        for c in s.stmts:
            if not self.has_barrier(c):
                run.append(c)
                continue
            if run:
                done.append(self.each_thread(seq(*run)))
                run = []
            done.append(self.split(c))
        return seq(*done, *([self.each_thread(seq(*run))] if run else []))

    def has_barrier(self, s: Stmt) -> bool:
        """Whether a barrier is at or below a statement."""
        found = self.barriers.get(s)
        if found is None:
            found = self.barriers[s] = is_sync(s) or any(self.has_barrier(c) for c in kids(s))
        return found

    def each_thread(self, s: Stmt) -> Stmt:
        """Loops over the threads around a statement without barriers."""
        self.count += 1
        fresh: dict[Any, Any] = {loop.var: Var(f"{loop.var.name}_{self.count}", loop.var.dtype) for loop in self.loops}
        lead = tuple(fresh[loop.var] for loop in self.loops)

        def change(n: Any) -> Any:
            if isinstance(n, BufferLoad) and n.buffer in self.wide:
                return BufferLoad(self.wide[n.buffer], (*lead, *n.indices))
            if isinstance(n, BufferStore) and n.buffer in self.wide:
                return BufferStore(self.wide[n.buffer], n.value, (*lead, *n.indices))
            if isinstance(n, BufferRef) and n.buffer in self.wide:
                raise LowerError(f"{n.buffer.name} is private to a thread and passed as a pointer",
                                 why="each thread's part would need a pointer of its own")  # fmt: skip
            return None

        body = rewrite(s, change, fresh.copy())
        for loop in reversed(self.loops):
            body = For(fresh[loop.var], loop.min, loop.extent, "serial", body)
        return body  # type: ignore[no-any-return]

    def _same_for_all(self, s: Any) -> None:
        """Refuses control flow around a barrier that differs between threads."""
        parts = [s.min, s.extent] if isinstance(s, For) else [s.value if isinstance(s, LetStmt) else s.cond]
        own = {loop.var for loop in self.loops}
        if any(n in own or (isinstance(n, BufferLoad) and n.buffer in self.wide) for n in post_order(*parts)):
            raise LowerError("a barrier that only some threads of a block may reach", where=repr(parts[-1]),
                             why="what is around it depends on the thread")  # fmt: skip


def _on_host(s: Stmt) -> Stmt:
    """Memory of devices as memory of the processor."""
    found = {n.buffer for n in post_order(s) if isinstance(n, Allocate) and n.buffer.scope not in _HOST_SCOPES}
    new: dict[Any, Any] = {b: Buffer(b.name, b.shape, b.dtype, "global", b.strides, b.elem_offset) for b in found}

    def change(n: Any) -> Any:
        if isinstance(n, Evaluate) and is_sync(n):
            return SeqStmt(())
        return None

    return rewrite(s, change, new)  # type: ignore[no-any-return]
