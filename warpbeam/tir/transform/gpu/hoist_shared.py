"""Puts each buffer of a kernel where hardware keeps it: shared memory once per block, private memory in the thread.

    for tx (threadIdx.x):                         allocate S (shared)
        for k in 8:                       ->      for tx (threadIdx.x):
            allocate S (shared)                       for k in 8: …
            …

Shared memory is one array per block however often the statement that allocates it runs; barriers keep its uses apart.
Memory of scope "global" inside a kernel is workspace of the host, one for all blocks.
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir.diagnostics import LowerError
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.tree import kids, with_kids
from warpbeam.tir.expr import Var
from warpbeam.tir.stmt import Allocate, For, PrimFunc, SeqStmt, Stmt
from warpbeam.tir.transform.gpu.common import buffers_in, is_block_axis, is_shared, is_thread, kernels, map_kernels
from warpbeam.tir.transform.mutate import peel, wrap


def hoist_shared(func: PrimFunc) -> PrimFunc:
    """The function with shared buffers at the blocks, private ones in the threads, global ones at the root.

    Raises:
        LowerError: if kernels would hand each other memory that does not outlive a kernel.
    """
    allocs, body = peel(func.body)
    used = [buffers_in(k) for k in kernels(body)]
    inside: list[Allocate] = []
    for a in allocs:
        count = sum(a.buffer in b for b in used)
        if a.buffer.scope != "global" and count > 1:
            raise LowerError(
                f"buffer {a.buffer.name} of scope {a.buffer.scope} is used by {count} kernels",
                where=func.name,
                why="it does not outlive one of them",
                hint="compute it at a loop inside the kernel that uses it, or give it scope global",
            )
        if a.buffer.scope != "global" and count:
            inside.append(a)
    roots: list[Allocate] = []

    def change(kernel: For) -> Stmt:
        own = [a for a in inside if a.buffer in buffers_in(kernel)]
        return _placed(kernel, own, roots)

    body = map_kernels(body, change)
    kept = [a for a in allocs if a not in inside]
    return PrimFunc(func.name, func.params, wrap([*kept, *roots], body), func.attrs)


def _placed(kernel: For, own: list[Allocate], roots: list[Allocate]) -> Stmt:
    shared = [a for a in own if is_shared(a.buffer.scope)]
    private = [a for a in own if not is_shared(a.buffer.scope)]
    loops: list[For] = []
    body: Any = kernel
    while is_thread(body):
        loops.append(body)
        body = body.body
    body = wrap(private, _lifted(body, shared, roots) or SeqStmt(()))
    blocks = [f for f in loops if is_block_axis(f.thread)]
    if shared and not blocks:  # a block of its own, or the memory would stand outside of the kernel
        blocks = [For(Var("blockIdx_x", "int64"), 0, 1, "thread_binding", body, {"joined": "blockIdx.x"}, "blockIdx.x")]
    for f in reversed([f for f in loops if f not in blocks]):
        body = For(f.var, f.min, f.extent, f.kind, body, f.annotations, f.thread)
    body = wrap(shared, body)
    for f in reversed(blocks):
        body = For(f.var, f.min, f.extent, f.kind, body, f.annotations, f.thread)
    return body  # type: ignore[no-any-return]


def _lifted(s: Any, shared: list[Allocate], roots: list[Allocate]) -> Stmt | None:
    if isinstance(s, Allocate) and (is_shared(s.buffer.scope) or s.buffer.scope == "global"):
        if is_shared(s.buffer.scope) and any(e.const_int(d) is None for d in s.buffer.shape):
            raise LowerError(
                f"shared buffer {s.buffer.name} has shape {s.buffer.shape}",
                why="its size must be a number",
                hint="split the loops around it by constants",
            )
        (shared if is_shared(s.buffer.scope) else roots).append(Allocate(s.buffer, SeqStmt(()), s.annotations))
        return _lifted(s.body, shared, roots)
    below = kids(s)
    return with_kids(s, [_lifted(c, shared, roots) for c in below]) if below else s
