"""Sketch for windows along the innermost axis, with channels outside (depthwise convolutions, pooling of plain maps).

A tile is one vector of several lines, in registers; a line that was read serves all rows of the tile.

    for channels (parallel):
        near = map with its border                     local
        for row tiles, vectors of a line:
            acc[rows] = 0                              registers
            unrolled window: acc += near[.., shifted] * weight[channel, ..]
            out = epilogue(acc)

Large maps are copied tile by tile. Where a line is one vector, nothing is copied: loads are masked at the border.
"""

from __future__ import annotations

from warpbeam.cost.tile_prior import STACK
from warpbeam.ir import dtype as dt
from warpbeam.sketch import pointwise
from warpbeam.sketch.base import Group, Plan, expensive, extent, product
from warpbeam.sketch.structure import contraction, variables
from warpbeam.sketch.tile import Anatomy, anatomy, epilogue
from warpbeam.sketch.window import MAX_TAPS, MAX_UNROLLED, PARALLEL_WORK, tile_window
from warpbeam.te.tensor import ComputeOp, loads


def fits(group: Group) -> bool:
    """A window of known size that moves along the innermost axis, of lines that are not too long."""
    parts = anatomy(group)
    if parts is None or parts.anchor.kind not in ("window", "contraction"):
        return False
    op = parts.anchor.op
    roles = contraction(op)
    if roles is not None and roles.m:  # a tile would use what it reads for several channels
        return False
    sizes = [extent(a.extent) for a in (*op.axis[-2:], *op.reduce_axis)]
    if len(op.axis) < 3 or None in sizes or product([a.extent for a in op.reduce_axis]) > MAX_TAPS:
        return False
    if any(expensive(s.op) or s.op.reduce_axis for s in parts.before):
        return False
    return _along(op) and _near_bytes(group, parts) <= STACK


def _along(op: ComputeOp) -> bool:
    """Whether the innermost axis and a reduced one index the last dimension of what is read, and the free axes are
    indices of their own.
    """
    last, reduced = op.axis[-1].var, {a.var for a in op.reduce_axis}
    free = {a.var for a in op.axis[:-2]}
    moved = False
    for load in loads(op):
        if any(last in variables(i) for i in load.indices[:-1]) or any(
            variables(i) & free and i not in free for i in load.indices
        ):
            return False
        moved = moved or (last in variables(load.indices[-1]) and bool(variables(load.indices[-1]) & reduced))
    return moved


def _map_bytes(parts: Anatomy) -> int:
    """Bytes of one map of what is computed before the window."""
    before = parts.before[-1].op if parts.before else None
    return 0 if before is None else product(before.output(0).shape[-2:]) * dt.nbytes(before.body[0].dtype)


def _by_tiles(group: Group, parts: Anatomy) -> bool:
    """Whether maps are so large that only the lines of a tile are copied."""
    return _map_bytes(parts) > group.target.l1 // 2


def _near_bytes(group: Group, parts: Anatomy) -> int:
    """Bytes of what is copied at a time."""
    size = _map_bytes(parts)
    if not _by_tiles(group, parts):
        return size
    op, lines = parts.anchor.op, extent(parts.before[-1].op.axis[-2].extent) or 1
    height = extent(op.axis[-2].extent) or 1
    window = max(extent(a.extent) or 1 for a in op.reduce_axis)
    part = -(-lines * _rows(height, group.target.vector_registers) // height) + window
    return size // lines * min(part, lines)


def build(group: Group) -> Plan:
    parts = anatomy(group)
    assert parts is not None
    op, sch = parts.anchor.op, group.sch
    block, out = epilogue(group, parts, "register")
    height, width = (extent(a.extent) or 1 for a in op.axis[-2:])
    most = max(1, group.target.vector_bits // dt.bits(op.body[0].dtype))
    rows, lanes = _rows(height, group.target.vector_registers), min(width, most)
    direct = width == lanes and height * product([a.extent for a in op.reduce_axis]) <= MAX_UNROLLED
    *free, line, column = sch.loops(out)
    tiles, row = sch.split(line, [None, rows])
    vectors, lane = sch.split(column, [None, lanes])
    sch.reorder(*free, tiles, vectors, row, lane)
    sch.vectorize(lane)
    sch.unroll(row)
    tile_window(group, op, block, vectors, lanes)
    for stage in parts.before if direct else parts.before[:-1]:
        sch.compute_inline(group.blocks[stage.op])
    if parts.before and not direct:
        at = tiles if _by_tiles(group, parts) else free[-1]
        _near(group, group.blocks[parts.before[-1].op], at, lanes)
    if product([a.extent for a in (*op.axis, *op.reduce_axis)]) >= PARALLEL_WORK:
        sch.parallel(sch.fuse(*free) if len(free) > 1 else free[0])
    for name, size, part in ((vectors, width, lanes), (tiles, height, rows)):
        if size % part and size > part:
            sch.partition(name, size // part)
    if direct:
        sch.unroll(tiles)
    note = (
        "borders are masked, nothing is copied" if direct else "maps are copied with their borders where they are used"
    )
    return Plan(sch.func, "lines", {"rows": str(rows), "vectors": f"1x{lanes}"}, (note,))


def _near(group: Group, block: str, at: str, lanes: int) -> None:
    """A map with its border, copied where it is used, in vectors: their lanes in the border are masked."""
    sch = group.sch
    sch.compute_at(block, at)
    sch.set_scope(block, "local")
    sch.storage_align(block, len(sch.block(block).axes) - 2, lanes)
    line, last = sch.loops(block)[-2:]
    size = sch.extent(last) or 1
    vectors, lane = sch.split(last, [None, min(lanes, size)])
    sch.vectorize(lane)
    sch.unroll(vectors)
    if size > lanes and size % lanes:
        sch.partition(vectors, size // lanes)
    pointwise.pieces(group, block, line, sch.extent(line) or 1)


def _rows(height: int, registers: int) -> int:
    """Rows of a tile: as many as leave registers for weights and lines, with few of the last tile's left over."""
    sizes = range(1, min(height, max(1, registers // 4)) + 1)
    return max(sizes, key=lambda r: (-(-(-height // r) * (r + 2)), r))
