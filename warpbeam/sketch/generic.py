"""The sketch that always fits: each reduction and each result is a loop nest of its own, pointwise stages are inlined.

A nest goes in vectors where primitives and lowering allow it: a reduction along the innermost dimension of what it
reads gathers partial results in lanes, any other one takes the lanes of its last axis side by side. What reads here and
there, or under conditions that change along the axis, stays a plain loop. The outer loops are parallel. In which order
terms are added depends on the sizes alone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from warpbeam.ir.diagnostics import LowerError, ScheduleError
from warpbeam.ir.rewrite import post_order
from warpbeam.sketch import pieces, pointwise
from warpbeam.sketch.base import Group, Plan, extent, inline_pointwise, product
from warpbeam.sketch.structure import Stage, variables
from warpbeam.te.tensor import ComputeOp, Operation
from warpbeam.tir.arith import linear
from warpbeam.tir.expr import BufferLoad, Call, Var, as_expr, const_int
from warpbeam.tir.stmt import Block, BufferStore
from warpbeam.tir.transform import lower

_PARALLEL_WORK = 65536


def build(group: Group) -> Plan:
    nests = [s.op for s in group.stages if s.op.reduce_axis or group.is_output(s.op)]
    vectors, outer = set(nests), max(len(op.axis) for op in nests)
    if not _works(group, vectors, outer):
        vectors.clear()
        outer = next(n for n in (outer, 1, 0) if not n or _works(group, (), n))
        for op in nests:
            vectors |= {op} if _works(group, {*vectors, op}, outer) else set()
    _schedule(group, vectors, outer)
    plain = "" if len(vectors) == len(nests) else f", {len(nests) - len(vectors)} of {len(nests)} not in vectors"
    return Plan(group.sch.func, "generic", {}, (f"no sketch fits; loops by themselves{plain}",))


def _works(group: Group, vectors: Collection[Operation], outer: int) -> bool:
    """Whether the group can be lowered with so many of its nests in vectors, whose outer loops threads share."""
    try:
        _schedule(group, vectors, outer)
        lower(group.sch.func, group.target)
    except (ScheduleError, LowerError):
        return False
    return True


def _schedule(group: Group, vectors: Collection[Operation], outer: int) -> None:
    """The program anew, with the nests of `vectors` in vectors; threads share up to `outer` loops of each that is
    not pointwise.
    """
    group.restart()
    inline_pointwise(group)
    for stage in group.stages:
        if not stage.op.reduce_axis and not group.is_output(stage.op):
            continue
        if stage.op not in vectors:
            _shared(group, stage, list(group.sch.loops(group.blocks[stage.op]))[: len(stage.op.axis)], outer)
        elif stage.op.reduce_axis:
            _shared(group, stage, _reduction(group, stage.op), outer)
        else:
            pointwise.nest(group, stage)


def _reduction(group: Group, op: ComputeOp) -> list[str]:
    """A reduction in vectors, where its reads are; gives the loops outside of them."""
    sch, block = group.sch, group.blocks[op]
    names, lanes, axes = list(sch.loops(block)), pieces.lanes_of(group, op), sch.block(block).axes
    own, reduced = names[: len(op.axis)], names[len(op.axis) :]
    row, columns = (extent(some[-1].extent) if some else 1 for some in (op.reduce_axis, op.axis))
    if len(op.body) == 1 and (row is None or row >= 2 * lanes) and _side_by_side(group, block, axes[-1].var, True):
        pieces.reduction(group, block, op)
        return own
    lanes = min(lanes, columns or lanes)
    if lanes < 2 or not _side_by_side(group, block, axes[len(own) - 1].var, False):
        return own
    outer, lane = sch.split(own[-1], [None, lanes])
    sch.reorder(*own[:-1], outer, *reduced, lane)
    start = sch.decompose_reduction(block, reduced[0])
    sch.vectorize(sch.loops(start)[-1])
    sch.vectorize(lane)
    return [*own[:-1], outer]


def _side_by_side(group: Group, block: str, axis: Var, all_move: bool) -> bool:
    """Whether a block reads elements that lie side by side as an axis goes on, or the same ones (all_move: all those
    that depend on reduced axes move), under conditions that do not change along it.
    """
    found = group.sch.block(block)
    reduced = {a.var for a in found.axes if a.kind == "reduce"}
    for n in post_order(found.body):
        if isinstance(n, Call) and n.op == "if_then_else" and axis in variables(n.args[0]):
            return False
        if not isinstance(n, BufferLoad) or n.buffer is _result(found):
            continue
        if axis in variables(*n.indices[:-1]):
            return False
        form = linear(n.indices[-1], [axis]) if n.indices else ({}, 0)
        step = None if form is None else const_int(as_expr(form[0].get(axis, 0)))
        if step not in (0, 1) or (all_move and step == 0 and variables(*n.indices) & reduced):
            return False
    return True


def _result(found: Block) -> Any:
    """The buffer that a block of one value adds to."""
    return found.body.buffer if isinstance(found.body, BufferStore) else None


def _shared(group: Group, stage: Stage, loops: Sequence[str], outer: int) -> None:
    """Threads share a nest by so many of its loops, `outer` at most, that all have some."""
    work = product([a.extent for a in stage.op.axis]) * product([a.extent for a in stage.op.reduce_axis])
    if loops and outer and work >= _PARALLEL_WORK:
        keep = pointwise.enough(group, list(loops))[:outer]
        group.sch.parallel(group.sch.fuse(*keep) if len(keep) > 1 else keep[0])
