"""Sketch for pointwise work that reads tables which depend on positions only, as interpolation does.

    index[o, t], weight[o, t] = …                  tables, each entry once
    rows[c, o, w] = sum of x[c, index[o, t], w] * weight[o, t] over taps t        one nest for each axis, in vectors
    out[c, o, p] = sum of rows[c, o, index'[p, t]] * weight'[p, t] over taps t

Inlined, a table's arithmetic would be done again for every element of the result, and what is blended along one axis
for every tap of the next.
"""

from __future__ import annotations

from warpbeam.sketch import pointwise
from warpbeam.sketch.base import Group, Plan, extent, product
from warpbeam.sketch.structure import Stage
from warpbeam.te.tensor import ComputeOp, Operation, PlaceholderOp, loads

_SUMS = ("reduce", "row")
_SMALL = 16  # times as many elements has a result than a table that is worth its memory


def fits(group: Group) -> bool:
    """Whether all but tables is pointwise, and some table is a sum: anything else is left to be inlined."""
    tables = _tables(group)
    if not any(s.kind in _SUMS for s in tables) or len(group.outputs) != 1:
        return False
    known = all(extent(a.extent) is not None for s in group.stages for a in s.op.axis)
    rest = [s for s in group.stages if s not in tables]
    return known and bool(rest) and all(s.kind in ("elementwise", "injective") for s in rest)


def build(group: Group) -> Plan:
    tables = _tables(group)
    own = {s.op for s in tables}
    notes = []
    for stage in group.stages:
        read = any(r not in own for r in group.readers.get(stage.op, []))
        if group.is_output(stage.op) or (stage.op not in own and _reused(group, stage)):
            notes.append(pointwise.nest(group, stage))
        elif stage.op not in own or not (read or stage.kind in _SUMS):
            group.sch.compute_inline(group.blocks[stage.op])
    return Plan(group.sch.func, "tabled", {}, tuple(notes))


def _tables(group: Group) -> list[Stage]:
    """The stages that depend on positions only and are small beside the result."""
    result = product([a.extent for a in group.outputs[0].op.axis])  # type: ignore[attr-defined]
    found: list[Stage] = []
    alone: set[Operation] = set()
    for s in group.stages:
        if all(t.op in alone and not isinstance(t.op, PlaceholderOp) for t in s.op.input_tensors):
            alone.add(s.op)
            if product([a.extent for a in s.op.axis]) * _SMALL <= result and not group.is_output(s.op):
                found.append(s)
    return found


def _reused(group: Group, stage: Stage) -> bool:
    """Whether what reads a stage takes each of its elements at least twice."""
    reads = 0
    for reader in group.readers.get(stage.op, []):
        if isinstance(reader, ComputeOp):
            times = sum(load.tensor.op is stage.op for load in loads(reader))
            reads += times * product([a.extent for a in (*reader.axis, *reader.reduce_axis)])
    return reads >= 2 * product([a.extent for a in stage.op.axis])
