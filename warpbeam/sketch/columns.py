"""Sketch for chains of reductions that keep the innermost axis (instance norm with channels last, softmax over rows).

A tile of some vectors of columns is taken through the whole chain: every reduction runs down the rows with its partial
results in registers, one lane a column, and the output is written for the same columns while they are still in cache.

    for tiles of columns (parallel):
        sum[vectors] = 0                       registers
        for row...: sum += x[row, vectors]
        for row...: out[row, vectors] = f(x[row, vectors], sum)

What whole tiles leave over is a tile of its own, of one shorter vector where it can be.
"""

from __future__ import annotations

from dataclasses import dataclass

from warpbeam.sketch.base import Group, Plan, expensive, extent, product
from warpbeam.sketch.pieces import lanes_of
from warpbeam.sketch.structure import Stage, kept_places, load_vars
from warpbeam.te.tensor import ComputeOp, Operation, loads

_PARALLEL_ELEMENTS = 8192
_MAX_VECTORS = 8  # partial results: enough to cover the latency of an addition
_MANY = 4  # vectors of a row, and of a tile, from where on its number need not divide theirs
_TASKS = 4  # tiles for each core, so that their ends differ little


@dataclass(frozen=True, slots=True)
class Tile:
    """Columns taken together: `vectors` vectors of `lanes`. whole: full tiles. rest: whether columns remain."""

    vectors: int
    lanes: int
    whole: int
    rest: bool


def fits(group: Group) -> bool:
    """One output; reductions that read along their own last axis, which is also the output's."""
    heavy = [s.op for s in group.stages if s.op.reduce_axis]
    if not heavy or len(group.outputs) != 1 or any(len(s.op.body) != 1 for s in group.stages):
        return False
    if any(s.kind not in ("row", "reduce", "elementwise") for s in group.stages):
        return False
    out = group.outputs[0].op
    assert isinstance(out, ComputeOp)
    if not out.axis or extent(out.axis[-1].extent) is None:
        return False
    ranks = {len(op.axis) for op in heavy}
    return len(ranks) == 1 and 1 <= ranks.pop() <= len(out.axis) and all(_down_rows(op, out) for op in heavy)


def wide(group: Group) -> bool:
    """Whether planes of rows leave work for all cores, and vectors little of a row, which is then read in longer pieces
    than by `tile`, which takes some planes together.
    """
    out = group.outputs[0].op
    assert isinstance(out, ComputeOp)
    columns, lanes = extent(out.axis[-1].extent) or 0, lanes_of(group, out)
    planes = product([a.extent for a in out.axis[:-1]], unknown=1)
    return planes >= _TASKS * group.target.cores and (columns % lanes == 0 or columns >= _MANY * lanes)


def _down_rows(op: ComputeOp, out: ComputeOp) -> bool:
    """Whether a reduction walks rows: what it reads has its last axis last."""
    if not op.axis or op.axis[-1].extent is not out.axis[-1].extent:
        return False
    reduced, last = {a.var for a in op.reduce_axis}, op.axis[-1].var
    return all(x.indices[-1] is last for x in loads(op) if load_vars(x) & reduced)


def build(group: Group) -> Plan:
    out = group.outputs[0].op
    assert isinstance(out, ComputeOp)
    sch = group.sch
    anchor = next(s.op for s in group.stages if s.op.reduce_axis)
    tile = _tile(group, out, product([a.extent for a in anchor.axis[:-1]]))
    ahead = None if tile.rest else _ahead(group, out)
    kept = _kept(group, out, ahead)
    last = sch.cache_write(group.blocks[out], "register") if out.reduce_axis else group.blocks[out]
    free, at = _tile_loops(group, last, kept_places(anchor, group.stages, len(out.axis))[:-1], tile)
    if ahead is not None:
        _by_rows(group, group.blocks[ahead], sch.loops(last)[-3], tile)
    for stage in reversed(kept):
        block = group.blocks[stage.op]
        sch.compute_at(block, at)
        sch.set_scope(block, "register")
    for stage in kept:
        _vectorise(group, stage, at, tile)
    _finish(group, free, at, tile, product([a.extent for a in (*anchor.axis, *anchor.reduce_axis)]))
    return Plan(sch.func, "columns", {"columns": tile.vectors * tile.lanes}, ("columns of a tile stay in registers",))


def _ahead(group: Group, out: ComputeOp) -> Operation | None:
    """The last value of all rows that several read before the work becomes expensive. It is made a row ahead, in the
    nearest cache: long chains of operations leave little room to look ahead for what the next ones need.
    """
    found, costly = None, False
    if any(len(s.op.axis) == len(out.axis) for s in group.stages if s.op.reduce_axis):  # there is one row
        return None
    for stage in group.stages:
        costly |= expensive(stage.op) and len(stage.op.axis) == len(out.axis)
        shared = len(set(group.readers.get(stage.op, []))) > 1
        if not costly and shared and stage.kind == "elementwise" and len(stage.op.axis) == len(out.axis):
            found = stage.op
    return found if costly and not out.reduce_axis else None


def _kept(group: Group, out: ComputeOp, ahead: Operation | None) -> list[Stage]:
    """Inlines cheap pointwise stages; reductions and what several read at a price stay."""
    kept = []
    for stage in group.stages:
        if stage.op is ahead:
            continue
        shared = len(set(group.readers.get(stage.op, []))) > 1 and expensive(stage.op)
        small = len(stage.op.axis) < len(out.axis)
        if stage.op.reduce_axis or (stage.op is not out and small and (shared or expensive(stage.op))):
            kept.append(stage)
        elif stage.op is not out:
            group.sch.compute_inline(group.blocks[stage.op])
    return kept


def _tile(group: Group, out: ComputeOp, lead: int) -> Tile:
    """Whole vectors, of which the number in a tile divides those of a row, as many as still leave every core some
    tiles, or as many tiles as any other: rows are then read in longer pieces. Where that is hardly any of many, the
    last tile is a smaller one.
    """
    columns = extent(out.axis[-1].extent) or 1
    lanes = min(lanes_of(group, out), columns)
    count = columns // lanes
    fit = [v for v in range(1, _MAX_VECTORS + 1) if count % v == 0]
    if max(fit) < _MANY <= count:
        fit += range(_MANY, _MAX_VECTORS + 1)
    cores = group.target.cores
    wide = [v for v in fit if (tiles := lead * (count // v)) >= _TASKS * cores or tiles % cores == 0]
    vectors = max(wide or fit[:1])
    return Tile(vectors, lanes, count // vectors, columns % (vectors * lanes) != 0)


def _tile_loops(group: Group, block: str, lead: list[int], tile: Tile) -> tuple[str | None, str]:
    """(the loop outside of all columns, None where there is none or it is one with the other; the loop over tiles of
    columns). Axes that are neither `lead` nor columns are rows, and run inside.
    """
    sch = group.sch
    names = list(sch.loops(block))
    free = [names[k] for k in lead]
    outer, vector, lane = sch.split(names[-1], [None, tile.vectors, tile.lanes])
    sch.reorder(*free, outer, *(n for n in names[:-1] if n not in free), vector, lane)
    if tile.lanes > 1:
        sch.vectorize(lane)
    sch.unroll(vector)
    if not free:
        return None, outer
    if not tile.rest:
        return None, sch.fuse(*free, outer)
    return sch.fuse(*free) if len(free) > 1 else free[0], outer


def _finish(group: Group, free: str | None, at: str, tile: Tile, work: int) -> None:
    """The parallel loop, and the columns that tiles leave over apart."""
    sch = group.sch
    many = free is not None and (sch.extent(free) or _TASKS * group.target.cores) >= _TASKS * group.target.cores
    loop = free if many and free is not None else at
    if work >= _PARALLEL_ELEMENTS and (sch.extent(loop) or 2) > 1:
        sch.parallel(loop)
        sch.annotate(loop, "joined", loop)
    if tile.rest:
        sch.partition(at, tile.whole)


def _by_rows(group: Group, block: str, row: str, tile: Tile) -> None:
    """A row of a tile in a buffer."""
    sch = group.sch
    sch.compute_at(block, row)
    sch.set_scope(block, "local")
    vector, lane = sch.split(sch.loops(block)[-1], [None, tile.lanes])
    if tile.lanes > 1:
        sch.vectorize(lane)
    sch.unroll(vector)


def _vectorise(group: Group, stage: Stage, at: str, tile: Tile) -> None:
    """A stage's rows outside, its columns in vectors inside; a reduction's start before the rows."""
    sch, block = group.sch, group.blocks[stage.op]
    names = list(sch.loops(block))
    inner = names[names.index(at) + 1 :]
    spatial, reduced = inner[: len(stage.op.axis)], inner[len(stage.op.axis) :]
    vector, lane = sch.split(spatial[-1], [None, tile.lanes])
    sch.reorder(*spatial[:-1], *reduced, vector, lane)
    if reduced:
        start = sch.decompose_reduction(block, reduced[0])
        first = list(sch.loops(start))
        if tile.lanes > 1:
            sch.vectorize(first[-1])
        sch.unroll(first[-2])
    if tile.lanes > 1:
        sch.vectorize(lane)
    sch.unroll(vector)
