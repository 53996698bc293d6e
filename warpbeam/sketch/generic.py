"""The sketch that always fits: every reduction at the root, pointwise stages inlined, the outermost output axis
in parallel.
"""

from __future__ import annotations

from warpbeam.sketch.base import Group, Plan, product
from warpbeam.sketch.structure import Stage

_PARALLEL_WORK = 65536


def build(group: Group) -> Plan:
    for stage in group.stages:
        if stage.op.reduce_axis or group.is_output(stage.op):
            continue
        if stage.kind in ("elementwise", "injective"):
            group.sch.compute_inline(group.blocks[stage.op])
    for stage in group.stages:
        if stage.op.reduce_axis or group.is_output(stage.op):
            _outer_parallel(group, stage)
    return Plan(group.sch.func, "generic", {}, ("no sketch fits; plain loops",))


def _outer_parallel(group: Group, stage: Stage) -> None:
    work = product([a.extent for a in stage.op.axis]) * product([a.extent for a in stage.op.reduce_axis])
    loops = list(group.sch.loops(group.blocks[stage.op]))[: len(stage.op.axis)]
    if loops and work >= _PARALLEL_WORK:
        group.sch.parallel(loops[0])
