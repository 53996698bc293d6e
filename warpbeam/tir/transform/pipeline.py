"""The way from a scheduled program to one that a code generator prints: a list to be read aloud."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from warpbeam.ir.rewrite import post_order
from warpbeam.tir.expr import Call
from warpbeam.tir.mathlib import FUNCTIONS
from warpbeam.tir.stmt import Block, PrimFunc
from warpbeam.tir.transform.compact_buffers import compact_buffers
from warpbeam.tir.transform.expand_loops import expand_loops
from warpbeam.tir.transform.expand_math import expand_math
from warpbeam.tir.transform.form_fma import form_fma
from warpbeam.tir.transform.lift_workspace import lift_workspace
from warpbeam.tir.transform.lower_blocks import lower_blocks
from warpbeam.tir.transform.lower_init import lower_init
from warpbeam.tir.transform.merge_parallel import merge_parallel
from warpbeam.tir.transform.peel_tails import peel_tails
from warpbeam.tir.transform.place_allocations import place_allocations
from warpbeam.tir.transform.reduce_lanes import reduce_lanes
from warpbeam.tir.transform.verify import verify

PASSES: tuple[Callable[[PrimFunc], PrimFunc], ...] = (
    lower_init,
    place_allocations,
    lower_blocks,
    compact_buffers,
    peel_tails,
    reduce_lanes,
    form_fma,
    merge_parallel,
    expand_loops,
    expand_math,
    lift_workspace,
    verify,
)


def lower(func: PrimFunc, target: Any = None) -> PrimFunc:
    """The program as plain loops over small buffers and vectors; see PASSES.

    `target` is a Target or None; one without fma (`target.fma` false) keeps products and sums apart. Raises LowerError.
    """
    skipped: set[Any] = set()
    if not getattr(target, "fma", True):
        skipped.add(form_fma)
    if not any(isinstance(n, Block) for n in post_order(func.body)):
        skipped |= {place_allocations, compact_buffers}  # a program written as loops says itself where memory lives
    if not any(isinstance(n, Call) and n.op in FUNCTIONS for n in post_order(func.body)):
        skipped.add(expand_math)  # a walk over the expanded program would find nothing
    for run in PASSES:
        if run not in skipped:
            func = run(func)
    return func
