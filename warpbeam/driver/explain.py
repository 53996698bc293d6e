"""`warpbeam.explain`: a schedule's loops with working sets, caches and predicted cycles, as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warpbeam.cost.loop_cycles import loop_cycles
from warpbeam.target import parse
from warpbeam.te.schedule import Schedule
from warpbeam.tir.schedule import explain as table
from warpbeam.tir.schedule.schedule import Schedule as LoopSchedule
from warpbeam.tir.stmt import PrimFunc


def explain(sch: Schedule | LoopSchedule | PrimFunc, args: Sequence[Any] | None = None, target: Any = None) -> str:
    """What `sch.explain()` gives, with a column of predicted cycles (cost/loop_cycles.py).

    args: parameters of a te schedule's function; by default its placeholders, then its outputs. target: by default the
    current one, else this machine. Raises ScheduleError where a te schedule cannot be lowered.
    """
    machine = None if target is None else parse(target)
    if isinstance(sch, PrimFunc):
        return table.explain(sch, machine, cost=loop_cycles)
    if isinstance(sch, Schedule):
        return sch.explain(args, machine, loop_cycles)
    return sch.explain(machine, loop_cycles)
