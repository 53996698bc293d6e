"""Starts each reduction before its outermost reduction loop, because a test in every iteration would cost more.

Where the loops do not allow it the block keeps its init, and `lower_blocks` writes the test.
"""

from __future__ import annotations

from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.tir.analysis.access import as_block, as_loop, reduce_top
from warpbeam.tir.analysis.tree import Place, Tree, tree_of
from warpbeam.tir.schedule.reduction import decompose
from warpbeam.tir.stmt import For, PrimFunc, SeqStmt
from warpbeam.tir.transform.stage_notes import STAGE, parts_of, regrown


def lower_init(func: PrimFunc) -> PrimFunc:
    """Every init that can stand before the reduction loops does."""
    for name in [n for n, p in tree_of(func).blocks.items() if as_block(p).init is not None]:
        tree = tree_of(func)
        place = tree.block(name)
        top = reduce_top(place)
        if top is None:
            continue
        try:
            changes, _ = decompose(tree, place, top)
        except ScheduleError:
            continue
        func = _staged(tree, top, tree.update(changes))
    return func


def _staged(tree: Tree, top: Place, func: PrimFunc) -> PrimFunc:
    """`func` with the notes of a pipelined loop, of whose body `top` was a statement, for one statement more."""
    above = top.parent
    if above is not None and isinstance(above.stmt, SeqStmt):
        above = above.parent
    if above is None or not isinstance(above.stmt, For) or STAGE not in above.stmt.annotations:
        return func
    counts = [1 + (s is top.stmt) for s in parts_of(above.stmt)[1]]
    now = tree_of(func)
    place = now.loop(above.stmt.var.name)
    return now.update({place: as_loop(place).replace(annotations=regrown(above.stmt, counts))})
