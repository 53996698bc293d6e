"""Sketch for chains of row reductions (softmax, normalisations): one pass over memory, a row's intermediates stay in
cache.

Every stage is computed at the row loop of the output; reductions run in vectors of partial results joined at the
row's end.
"""

from __future__ import annotations

from warpbeam.sketch.base import Group, Plan, expensive, extent, product
from warpbeam.sketch.structure import Stage, row_key
from warpbeam.te.tensor import ComputeOp, Operation

_PARALLEL_ELEMENTS = 8192
_MAX_ROW_BYTES = 64 * 1024


def fits(group: Group) -> bool:
    """One output, reductions all over the same rows, constant columns."""
    rows = [s for s in group.stages if s.kind == "row"]
    if not rows or any(s.kind not in ("row", "elementwise") for s in group.stages) or len(group.outputs) != 1:
        return False
    keys = {row_key(s.op) for s in rows}
    if len(keys) != 1:
        return False
    lead, cols = next(iter(keys))
    out = group.outputs[0].op
    assert isinstance(out, ComputeOp)
    sizes = [extent(c) for c in cols]
    known = all(c is not None for c in sizes) and product(cols) * 4 <= _MAX_ROW_BYTES
    return known and len(out.axis) >= len(lead) and bool(lead or len(out.axis))


def build(group: Group) -> Plan:
    out = group.outputs[0].op
    assert isinstance(out, ComputeOp)
    lead, cols = row_key(next(s.op for s in group.stages if s.kind == "row"))
    kept = _kept(group, out)
    sch = group.sch
    names = list(sch.loops(group.blocks[out]))
    row_loops = names[: len(lead)]
    if not row_loops:
        return Plan(sch.func, "rows", {}, ("a single row",))
    row = sch.fuse(*row_loops) if len(row_loops) > 1 else row_loops[0]
    if product(lead) * product(cols) >= _PARALLEL_ELEMENTS and product(lead) > 1:
        sch.parallel(row)
    for stage in reversed(group.stages):
        if stage.op in kept:
            sch.compute_at(group.blocks[stage.op], row)
            sch.set_scope(group.blocks[stage.op], "local")
    for stage in group.stages:
        if stage.op in kept or stage.op is out:
            _vectorise(group, stage, row)
    return Plan(sch.func, "rows", {"rows": product(lead), "columns": product(cols)}, ("one pass over memory per row",))


def _kept(group: Group, out: ComputeOp) -> set[Operation]:
    """Inlines cheap pointwise stages; what stays gets a buffer of one row."""
    kept: set[Operation] = set()
    for stage in group.stages:
        op = stage.op
        if op is out:
            continue
        users = len(set(group.readers.get(op, [])))
        if stage.kind == "row" or (users > 1 and expensive(op)):
            kept.add(op)
        else:
            group.sch.compute_inline(group.blocks[op])
    return kept


def _vectorise(group: Group, stage: Stage, row: str) -> None:
    """Vectors along the row: elementwise stages directly, reductions through partial results per lane."""
    sch, block = group.sch, group.blocks[stage.op]
    lanes = max(1, group.target.vector_bits // 32)
    names = list(sch.loops(block))
    inner = names[names.index(row) + 1 :]
    if not inner:
        return
    if stage.kind != "row":
        if (sch.extent(inner[-1]) or 0) >= 2:
            sch.vectorize(sch.split(inner[-1], [None, lanes])[-1])
        return
    if (sch.extent(inner[-1]) or 0) >= 2 * lanes:
        parts = sch.split(inner[-1], [None, lanes])
        partial = sch.rfactor(parts[-1], 0)
        sch.set_scope(partial, "local")
        loops = list(sch.loops(partial))
        lane = next(n for n in loops if n.startswith(parts[-1]))
        sch.vectorize(lane)
