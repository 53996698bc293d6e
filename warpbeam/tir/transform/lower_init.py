"""Starts each reduction before its outermost reduction loop, because a test in every iteration would cost more.

Where the loops do not allow it the block keeps its init, and `lower_blocks` writes the test.
"""

from __future__ import annotations

from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.tir.analysis.access import as_block, reduce_top
from warpbeam.tir.analysis.tree import tree_of
from warpbeam.tir.schedule.reduction import decompose
from warpbeam.tir.stmt import PrimFunc


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
        func = tree.update(changes)
    return func
