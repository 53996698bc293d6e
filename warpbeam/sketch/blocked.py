"""Sketch for one product of matrices whose right operand is no constant, in blocks of rows, columns and steps.

    for blocks of rows, panels of columns (parallel):
        sums = 0                                                stack; registers, if there is but one part
        for parts of the sum:
            that part of the right operand's panel              stack, or where it lies
            for tiles of rows:
                acc = sums; for k...: acc += lhs[rows, k] * rhs[k, vectors]; sums = acc      registers
        out = epilogue(sums)

A panel of a constant is packed ahead of time and read from end to end. One of any other operand has its rows far apart:
lines that share few places of a cache, a page for each of them, none that begins where a vector does. Therefore little
of it is used at a time and stays near. What turns or computes the operand happens in that copy, panel by panel. Terms
are added in the same order as by the tile sketch, so results are the same bit by bit. `cost.block_prior` decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from warpbeam.cost import block_prior, tile_prior
from warpbeam.cost.block_prior import Blocking
from warpbeam.cost.tile_prior import Shape, Tile
from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.sketch import dot, pointwise, tile
from warpbeam.sketch.base import Group, Plan, expensive, extent, nth
from warpbeam.sketch.ragged import copies
from warpbeam.sketch.structure import Contraction, Stage, contraction, variables
from warpbeam.sketch.tile import Anatomy, Variant
from warpbeam.sketch.tile_shape import describe
from warpbeam.te.tensor import ComputeOp, loads
from warpbeam.tir.expr import Var

_SURE = (0.97, 1.1)  # of the predicted time without blocks, at most; where steps of the left operand lie a row apart,
# a tile meets a line of it for each step, which the tiles of a block share while it is near (1.0 to 1.5 of the speed)


@dataclass(slots=True)
class Parts:
    """The group's parts. maker: the stage that computes the right operand, if one does; feeding: what it reads."""

    anatomy: Anatomy
    roles: Contraction
    shape: Shape
    maker: Stage | None
    feeding: list[Stage]

    @property
    def op(self) -> ComputeOp:
        """The product."""
        return self.anatomy.anchor.op

    @property
    def source(self) -> str:
        """The input that the right operand, or what computes it, reads; "" where that are several, or none."""
        if self.maker is None:
            return self.roles.rhs.tensor.op.name
        names = {x.tensor.op.name for x in loads(self.maker.op) if len(variables(*x.indices)) > 1}
        return names.pop() if len(names) == 1 and not self.feeding else ""


def find(group: Group) -> Parts | None:
    """The parts of a product of known sizes with its right operand read, or computed, row by row; None otherwise."""
    anatomy = tile.anatomy(group)
    roles = None if anatomy is None else contraction(anatomy.anchor.op)
    if anatomy is None or roles is None or not roles.m or len(roles.n) != 1:
        return None
    op, rhs = anatomy.anchor.op, roles.rhs
    if not all(extent(a.extent) for a in (*op.axis, *op.reduce_axis)) or rhs.tensor.op.name in group.constants:
        return None
    plain = {*roles.batch, *roles.n, *roles.k}
    if rhs.indices[-1] is not roles.n[0] or not all(i in plain or not variables(i) for i in rhs.indices):
        return None
    if dot.find(group, op, roles) is not None:
        return None
    maker = next((s for s in anatomy.before if s.op is rhs.tensor.op), None)
    feeding = [] if maker is None else _feeding(group, maker, anatomy.before)
    if maker is not None and not _computable(group, op, maker, feeding):
        return None
    return Parts(anatomy, roles, describe(group, anatomy, roles), maker, feeding)


def _feeding(group: Group, maker: Stage, before: list[Stage]) -> list[Stage]:
    """The stages that a stage reads, directly or not."""
    found = {maker.op}
    for s in reversed(before):
        if any(r in found for r in group.readers.get(s.op, [])):
            found.add(s.op)
    return [s for s in before if s.op in found and s is not maker]


def _computable(group: Group, op: ComputeOp, maker: Stage, feeding: list[Stage]) -> bool:
    """Whether the right operand may be computed in the kernel, by cheap pointwise work for the product alone."""
    stages = [maker, *feeding]
    inside = {op, *(s.op for s in stages)}
    alone = all(r in inside for s in stages for r in group.readers[s.op]) and group.readers[maker.op] == [op]
    return alone and all(s.kind in ("elementwise", "injective") and not expensive(s.op) for s in stages)


def ranked(group: Group, parts: Parts, count: int) -> list[Blocking]:
    """The best decisions of the prior."""
    last = extent(parts.op.reduce_axis[-1].extent) or 1
    made = parts.maker is not None
    if count == 1:
        best = block_prior.choose(parts.shape, last, made, group.target)
        return [] if best is None else [best]
    return block_prior.ranked(parts.shape, last, made, group.target, count)


def fits(group: Group) -> bool:
    """Whether the group is such a product, and blocks are expected to be faster than tiles alone."""
    parts = find(group)
    found = [] if parts is None else ranked(group, parts, 1)
    if parts is None or not found:
        return False
    sure = _SURE[parts.shape.row_bytes == parts.shape.bytes]
    return parts.maker is not None or found[0].cycles < sure * tile_prior.choose(parts.shape, group.target).cycles


def pays(group: Group) -> bool | None:
    """Whether a product that computes its right operand is expected to be faster than both apart; None where the group
    is no such product.
    """
    parts = find(group)
    found = [] if parts is None else ranked(group, parts, 1)
    if parts is None or parts.maker is None or not found:
        return None
    last = extent(parts.op.reduce_axis[-1].extent) or 1
    shape, target = parts.shape, group.target
    apart = [tile_prior.choose(shape, target).cycles]
    plain = block_prior.choose(shape, last, False, target)
    apart += [] if plain is None else [plain.cycles]
    return found[0].cycles < min(apart) + block_prior.apart_cycles(shape, target)


def predict(group: Group) -> float | None:
    """Cycles that the prior expects on all cores; None where blocks would not be taken."""
    parts = find(group) if fits(group) else None
    return None if parts is None else ranked(group, parts, 1)[0].cycles


def build(group: Group, rank: int = 0) -> Plan:
    """Schedules the group with the blocks that the prior finds best; with `rank`, the next best that differ."""
    parts = find(group)
    assert parts is not None
    found = ranked(group, parts, rank + 1)
    if not found:
        raise ScheduleError("no block's buffers fit the stack", hint="the tile sketch has none")
    decided = nth(found, rank)
    apply(group, parts, decided)
    others = partial(_next_best, group, parts)
    return Plan(group.sch.func, "blocked", _decisions(decided), cycles=decided.cycles, others=others)


def _decisions(d: Blocking) -> dict[str, Any]:
    """What was decided, for reports."""
    return {
        "rows": "x".join(map(str, d.rows)),
        "vectors": f"{d.vectors}x{d.lanes}",
        "block": f"{d.height} rows, {d.depth} steps{', copied' if d.near else ''}",
        "parallel": d.parallel,
    }


def _next_best(group: Group, parts: Parts, count: int) -> list[tuple[dict[str, Any], float]]:
    """The decisions after the best ones, each with its cycles."""
    return [(_decisions(d), d.cycles) for d in ranked(group, parts, count + 1)[1:]]


# ----------------------------------------------------------------------------------------------------------- scheduling


def apply(group: Group, parts: Parts, d: Blocking) -> None:
    """Schedules with the decisions of the prior."""
    sch = group.sch
    for stage in parts.feeding:
        sch.compute_inline(group.blocks[stage.op])
    for stage in parts.anatomy.before:
        if stage is not parts.maker and stage not in parts.feeding:
            tile.before(group, stage, parts.anatomy, parts.roles)
    x = _variant(group, parts, d)
    free, outer, cuts, steps = (_whole if d.depth == parts.shape.reduce else _in_parts)(group, parts, d, x)
    sizes = {a.var: extent(a.extent) or 1 for a in parts.op.axis}
    rows, last = tile.rows_of(parts.anatomy, parts.roles), parts.op.axis[-1].var
    cuts = [(outer[0], sizes[rows[0]], d.height), (outer[1], sizes[last], d.vectors * d.lanes), *cuts]
    _, panels = _parallel(group, d, free, outer)
    if parts.source:
        part = cuts[2][0] if d.depth != parts.shape.reduce else ""
        sch.prefetch(part or panels, parts.source, 1, steps, panels if part else "")
    _cut(group, cuts, len(rows))


Cut = tuple[str, int, int]  # a loop over pieces, the size that is cut, and the length of a piece


def _cut(group: Group, cuts: list[Cut], rows: int) -> None:
    """Copies for all remainders, so that every tile has constant extents. cuts: the loop over blocks of rows, that over
    panels, that over parts, if there is one, and those over tiles, one for each of so many row axes.
    """
    sch = group.sch
    (blocks, size, height), *between, (tiles, _, by) = cuts[: len(cuts) - rows + 1]
    found = [(tiles, height)]
    if size % height:
        _, _, new = sch.partition(blocks, size // height)
        found.append((new[tiles], size % height))
    for name, length in found:
        if length % by:
            sch.partition(name, length // by)
    for name, length, by in reversed([*between, *cuts[len(cuts) - rows + 1 :]]):
        for copy in copies(group, name) if length % by else ():
            sch.partition(copy, length // by)


def _variant(group: Group, parts: Parts, d: Blocking) -> Variant:
    """The nest over the output that is to be scheduled."""
    sizes = {a.var: a.extent for a in parts.op.axis}
    unroll = 2 if d.depth % 2 == 0 else 1
    decided = Tile(d.rows, d.vectors, d.lanes, True, d.parallel, unroll, False, False)
    block, out = tile.epilogue(group, parts.anatomy, "local")
    staged = any(expensive(s.op) for s in parts.anatomy.after)
    return Variant(out, block, dict(zip(sizes, group.sch.loops(out), strict=True)), sizes, decided, staged)


def _whole(group: Group, parts: Parts, d: Blocking, x: Variant) -> tuple[list[str], list[str], list[Cut], str]:
    """A tile's sums begin and end in registers. Gives the loops over free axes, those over blocks of rows and panels,
    what else may have a remainder, outermost first, and the loop over the steps of a tile.
    """
    sch, rows = group.sch, tile.rows_of(parts.anatomy, parts.roles)
    free, outer, inner, vec, lane = _blocks(group, parts, d, x, rows)
    tiles, within = _tiles(group, inner, d)
    sch.reorder(outer[1], *tiles, *within, vec, lane)
    sch.vectorize(lane)
    for name in [vec] if x.staged else [*within, vec]:
        sch.unroll(name)
    if x.staged:
        tile.stage_sums(group, x, tiles[-1])
    sch.compute_at(x.block, tiles[-1])
    if d.near:
        _copy(group, parts, d, x.block, outer[1])
    steps, _ = tile.tile_reduction(group, x.block, tiles[-1], [a.var for a in parts.op.axis], x.tile, None)
    sch.set_scope(x.block, "register")
    return free, outer, _cuts(parts, d, rows, tiles), steps


def _in_parts(group: Group, parts: Parts, d: Blocking, x: Variant) -> tuple[list[str], list[str], list[Cut], str]:
    """As `_whole`, for sums that are put aside after each part; the first loop that may have a remainder is that over
    parts.
    """
    sch, op, rows = group.sch, parts.op, tile.rows_of(parts.anatomy, parts.roles)
    free, outer, inner, vec, lane = _blocks(group, parts, d, x, rows)
    sch.reorder(outer[1], *inner, vec, lane)
    sch.vectorize(lane)
    if not x.staged:
        sch.unroll(vec)
    sch.compute_at(x.block, outer[1])
    below = list(sch.loops(x.block))
    below = below[below.index(outer[1]) + 1 :]
    axes = [a.var for a in op.axis]
    spatial, reduce = dict(zip(axes, below[: len(axes)], strict=True)), below[len(axes) :]
    part, step = sch.split(reduce[-1], [None, d.depth])
    steps, near = sch.split(step, [None, x.tile.unroll])
    tiles, within = _tiles(group, [spatial[v] for v in rows], d)
    vec, lane = sch.split(spatial[axes[-1]], [None, d.lanes])
    ones = [spatial[v] for v in axes[:-1] if v not in rows]
    sch.reorder(*ones, *reduce[:-1], part, *tiles, steps, near, *within, vec, lane)
    init = sch.decompose_reduction(x.block, reduce[0] if len(reduce) > 1 else part)
    sch.vectorize(lane)
    for name in (near, *within, vec):
        sch.unroll(name)
    sch.vectorize(sch.loops(init)[-1])
    if d.near:
        _copy(group, parts, d, x.block, part)
    last = extent(op.reduce_axis[-1].extent) or 1
    return free, outer, [(part, last, d.depth), *_cuts(parts, d, rows, tiles)], steps


def _blocks(
    group: Group, parts: Parts, d: Blocking, x: Variant, rows: list[Var]
) -> tuple[list[str], list[str], list[str], str, str]:
    """Cuts the results into blocks; gives the loops over free axes, those over blocks of rows and panels, those over
    rows of a block, over vectors and over lanes.
    """
    sch, last = group.sch, parts.op.axis[-1].var
    block, row = sch.split(x.loops[rows[0]], [None, d.height])
    panel, vec, lane = sch.split(x.loops[last], [None, d.vectors, d.lanes])
    free = [n for v, n in x.loops.items() if v is not last and v not in rows]
    inner = [row, *(x.loops[v] for v in rows[1:])]
    sch.reorder(*free, block, panel, *inner, vec, lane)
    return free, [block, panel], inner, vec, lane


def _tiles(group: Group, loops: list[str], d: Blocking) -> tuple[list[str], list[str]]:
    """Loops over rows cut into those over tiles and those within."""
    cut = [group.sch.split(name, [None, size]) for name, size in zip(loops, d.rows, strict=True)]
    return [over for over, _ in cut], [within for _, within in cut]


def _cuts(parts: Parts, d: Blocking, rows: list[Var], tiles: list[str]) -> list[Cut]:
    """Which loops over tiles may have a remainder."""
    heights = [d.height, *(extent(a.extent) or 1 for a in parts.op.axis if a.var in rows[1:])]
    return list(zip(tiles, heights, d.rows, strict=True))


def _copy(group: Group, parts: Parts, d: Blocking, block: str, at: str) -> None:
    """The right operand's part side by side, copied or computed."""
    sch = group.sch
    if parts.maker is not None:
        sch.compute_at(group.blocks[parts.maker.op], at)
        sch.set_scope(group.blocks[parts.maker.op], "local")
        pointwise.copy(group, parts.maker, at)
        return
    copy = sch.cache_read(block, parts.roles.rhs.tensor.name, "local")
    sch.compute_at(copy, at)
    vec, lane = sch.split(sch.loops(copy)[-1], [None, d.lanes])
    sch.vectorize(lane)
    sch.unroll(vec)


def _parallel(group: Group, d: Blocking, free: list[str], outer: list[str]) -> list[str]:
    """Makes the parallel loop; gives the loops over blocks of rows and panels, which may then be one with others."""
    sch = group.sch
    if d.parallel == "none":
        return outer
    loops = [*free, *outer[: ("free", "rows", "panels").index(d.parallel)]]
    many = [n for n in loops if sch.extent(n) != 1]
    if len(many) > 1:
        joined = sch.fuse(*loops)
        sch.parallel(joined)
        return [joined if n in loops else n for n in outer]
    sch.parallel(many[0])
    sch.annotate(many[0], "joined", many[0])
    return outer
