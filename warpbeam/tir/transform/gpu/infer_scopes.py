"""Gives intermediates the memory that the loops around them imply, because on a GPU "global" is not free.

    for bx (blockIdx.x):                    for bx (blockIdx.x):
        allocate S                              allocate S (shared)
        for tx (threadIdx.x):        ->         for tx (threadIdx.x):
            allocate L                              allocate L (local)

The rule is classic TE's: inside a thread's loop a buffer is the thread's own, inside a block's the block's threads
share it, outside it is global. Scopes that were chosen stay.
"""

from __future__ import annotations

from typing import Any

from warpbeam.tir.analysis.tree import kids, with_kids
from warpbeam.tir.expr import Buffer
from warpbeam.tir.schedule.partition import replace_buffers
from warpbeam.tir.stmt import Allocate, PrimFunc, SeqStmt, Stmt
from warpbeam.tir.transform.gpu.common import is_block_axis, is_thread, is_virtual


def infer_scopes(func: PrimFunc) -> PrimFunc:
    """The function with scopes of the buffers that are allocated inside of kernels."""
    chosen: dict[Buffer, str] = {}
    _walk(func.body, "global", chosen)
    if not chosen:
        return func
    table = {b: Buffer(b.name, b.shape, b.dtype, scope) for b, scope in chosen.items()}
    body = _exchanged(replace_buffers(func.body, table), table)
    return PrimFunc(func.name, func.params, body, func.attrs)


def _walk(s: Any, scope: str, chosen: dict[Buffer, str]) -> None:
    if is_thread(s) or is_virtual(s):
        if not is_block_axis(s.thread):
            scope = "local"
        elif scope == "global":
            scope = "shared"
    elif isinstance(s, Allocate) and s.buffer.scope == "global" and scope != "global":
        chosen[s.buffer] = scope
    for c in kids(s):
        _walk(c, scope, chosen)


def _exchanged(s: Any, table: dict[Buffer, Buffer]) -> Stmt:
    """Allocations of the new buffers in place of the old."""
    if isinstance(s, Allocate):
        return Allocate(table.get(s.buffer, s.buffer), _exchanged(s.body, table), s.annotations)
    below = kids(s)
    if not below:
        return s  # type: ignore[no-any-return]
    return with_kids(s, [_exchanged(c, table) for c in below]) or SeqStmt(())
