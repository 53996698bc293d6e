"""Writes index arithmetic in normal form and decides what ranges of loops decide, so that programs read short.

for i in 4: for j in 1: B[(i * 8 + j) // 8]     ->     for i in 4: B[i]
"""

from __future__ import annotations

from warpbeam.tir.stmt import PrimFunc, SeqStmt
from warpbeam.tir.transform.lower_blocks import Lowering
from warpbeam.tir.transform.mutate import peel, wrap
from warpbeam.tir.transform.setting import Setting


def simplify_program(func: PrimFunc, at: Setting | None = None) -> PrimFunc:
    """The program simplified; loops of one iteration go (unless "tir.debug_keep_trivial_loop"), blocks are lowered."""
    keep = at is not None and at.flag("tir.debug_keep_trivial_loop")
    allocs, body = peel(func.body)
    new = Lowering(keep_single=keep).stmt(body) or SeqStmt(())
    return func if new is body else func.replace(body=wrap(allocs, new))
