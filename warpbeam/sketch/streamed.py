"""Sketch for one reduction over outer axes of operands that the second-level cache does not hold.

The other sketches keep some columns in registers and take them through all rows: what is read next then lies a row
further on, on another page, and the processor does not see it coming. Here a few rows at a time are read from end to
end, and the partial results of a panel of columns lie in the nearest cache, which are loaded and stored once for all
of these rows.

    for panels of columns (parallel):
        sum[columns] = 0                                    nearest cache
        for blocks of rows:
            for vectors of columns:
                for row...: sum[vector] += x[row, vector]   register
        out[columns] = f(sum[columns])

A column's terms are added in the order of the rows, whatever the panels.
"""

from __future__ import annotations

from warpbeam.ir import dtype as dt
from warpbeam.sketch.base import Group, Plan, extent, product
from warpbeam.sketch.pieces import lanes_of
from warpbeam.sketch.structure import Stage, load_vars
from warpbeam.target import Target
from warpbeam.te.tensor import ComputeOp, loads

# Rows read side by side, of short ones and of long ones. In four's time, long ones take on Zen 5: one 1.2 to 1.3, two
# and eight 0.95 to 1.05; on Zen 4: six 0.9 to 1, eight 0.85 to 1.1, short ones 1.2 with eight.
_ROWS = (4, 6)
_LEAST_BYTES = 2048  # of a row: shorter ones are over before what follows is on its way
_LEAST_PART = 1024  # of what is cut for the sake of more cores


def fits(group: Group) -> bool:
    """One reduction down the rows of operands that are read once, its result as it is or after elementwise work, more
    bytes than the second-level cache has, and rows long enough.
    """
    heavy = [s for s in group.stages if s.op.reduce_axis]
    if len(heavy) != 1 or len(group.outputs) != 1 or any(len(s.op.body) != 1 for s in group.stages):
        return False
    op, out = heavy[0].op, group.outputs[0].op
    assert isinstance(out, ComputeOp)
    if not op.axis or [extent(a.extent) for a in op.axis] != [extent(a.extent) for a in out.axis]:
        return False
    if any(s.kind != "elementwise" for s in group.stages if s is not heavy[0]) or not read_once(heavy[0]):
        return False
    columns, size = extent(op.axis[-1].extent), dt.nbytes(op.body[0].dtype)
    read = product([a.extent for a in (*op.axis, *op.reduce_axis)]) * size
    return columns is not None and columns * size >= _LEAST_BYTES and read > group.target.l2


def read_once(stage: Stage) -> bool:
    """Whether all that a reduction reads row by row is a tensor with its axes and no others, the columns last."""
    own = {a.var for a in (*stage.op.axis, *stage.op.reduce_axis)}
    reduced = {a.var for a in stage.op.reduce_axis}
    down = [x for x in loads(stage.op) if load_vars(x) & reduced]
    last = stage.op.axis[-1].var
    return bool(down) and all(len(x.indices) == len(own) == len(own.intersection(x.indices)) and x.indices[-1] is last
                              for x in down)  # fmt: skip


def panel(target: Target, lead: int, columns: int, size: int) -> int:
    """Columns of a panel: as many as half of the nearest cache has room for, or fewer so that every core has some,
    where their rows stay long enough.
    """
    cores = -(-target.cores // max(1, lead))
    count = max(-(-columns * size // (target.l1 // 2)), min(cores, columns * size // _LEAST_PART), 1)
    vector = max(1, target.vector_bits // (8 * size))
    return min(columns, -(-columns // (count * vector)) * vector)


def build(group: Group) -> Plan:
    out = group.outputs[0].op
    assert isinstance(out, ComputeOp)
    heavy = next(s.op for s in group.stages if s.op.reduce_axis)
    for stage in group.stages:
        if stage.op is not out and stage.op is not heavy:
            group.sch.compute_inline(group.blocks[stage.op])
    last = group.sch.cache_write(group.blocks[out], "local") if heavy is out else group.blocks[out]
    width, rows = panels(group, heavy, last)
    return Plan(group.sch.func, "streamed", {"columns": width, "rows": rows}, ("rows are read from end to end",))


def panels(group: Group, heavy: ComputeOp, last: str, shared: bool = True) -> tuple[int, int]:
    """Schedules a reduction below the block `last`, which has its axes and takes its sums from a buffer. Gives columns
    of a panel, and rows of a block. shared: whether by all cores.
    """
    sch, lanes = group.sch, lanes_of(group, heavy)
    lead, columns = product([a.extent for a in heavy.axis[:-1]]), extent(heavy.axis[-1].extent)
    assert columns is not None
    width = panel(group.target, lead, columns, dt.nbytes(heavy.body[0].dtype))
    names = list(sch.loops(last))
    at, column = sch.split(names[-1], [None, width])
    free = None
    if len(names) > 1:
        free = sch.fuse(*names[:-1]) if len(names) > 2 else names[0]
    _vector(group, column, lanes)
    block = group.blocks[heavy]
    sch.compute_at(block, at)
    sch.set_scope(block, "local")
    rows = _walk(group, heavy, at, lanes)
    loop = at
    if free is not None and columns % width:
        loop = free
    elif free is not None:
        loop = sch.fuse(free, at)
    if shared and sch.extent(loop) != 1:
        sch.parallel(loop)
        sch.annotate(loop, "joined", loop)
    if columns % width:
        sch.partition(at, columns // width)
    return width, rows


def _walk(group: Group, heavy: ComputeOp, at: str, lanes: int) -> int:
    """The reduction inside the loop over panels; gives the rows of a block."""
    sch, block = group.sch, group.blocks[heavy]
    names = list(sch.loops(block))
    inner = names[names.index(at) + 1 :]
    spatial, reduced = inner[: len(heavy.axis)], inner[len(heavy.axis) :]
    size = product([heavy.axis[-1].extent]) * dt.nbytes(heavy.body[0].dtype)
    rows = _ROWS[size >= _LEAST_BYTES]
    rows = min(rows, extent(heavy.reduce_axis[-1].extent) or rows)
    several, one = sch.split(reduced[-1], [None, rows])
    sch.reorder(*spatial[:-1], *reduced[:-1], several, spatial[-1], one)
    start = sch.decompose_reduction(block, (*reduced[:-1], several)[0])
    _vector(group, sch.loops(start)[-1], lanes)
    column, lane = sch.split(spatial[-1], [None, lanes])
    sch.reorder(column, one, lane)
    if lanes > 1:
        sch.vectorize(lane)
    sch.unroll(one)
    return rows


def _vector(group: Group, loop: str, lanes: int) -> None:
    if lanes > 1:
        _, lane = group.sch.split(loop, [None, lanes])
        group.sch.vectorize(lane)
