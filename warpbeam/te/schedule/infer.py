"""Bounds of all axes, and the statement of a schedule, as the parts of lowering that can be looked at alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from warpbeam.te.schedule.lower import Walk, walk
from warpbeam.te.schedule.roots import is_placeholder, outputs_of
from warpbeam.tir.stmt import Allocate, Range, Stmt

if TYPE_CHECKING:
    from warpbeam.te.schedule.schedule import Schedule


def _walk(sch: Schedule) -> Walk:
    states = {t for s in sch.stages for t in getattr(s.op, "state_placeholder", ())}
    inputs = [t for s in sch.stages if is_placeholder(s.op) for t in outputs_of(s.op) if t not in states]
    outputs = [t for s in sch.stages if s.is_output and not is_placeholder(s.op) for t in outputs_of(s.op)]
    return walk(sch, [*inputs, *outputs])


def InferBound(sch: Schedule) -> dict[Any, Range]:
    """The range of every axis of every stage that is computed: how far its loop goes, from 0."""
    found: dict[Any, Range] = {}
    for loops in _walk(sch).loops.values():
        found.update((axis, Range(0, extent)) for axis, extent in loops.extents.items())
    return found


def ScheduleOps(sch: Schedule, bounds: Any = None, debug_keep_trivial_loop: bool = False) -> Stmt:
    """The statement of the scheduled program, with its blocks, without the allocation of intermediates.

    `bounds` (of InferBound) and `debug_keep_trivial_loop` are accepted for old code: bounds are always inferred, and
    loops of one iteration are always kept at this stage.
    """
    body: Stmt = _walk(sch).sch.func.body
    while isinstance(body, Allocate):
        body = body.body
    return body
