"""Sketch for windows (depthwise convolutions, pooling) whose innermost axis is not part of the window.

The border is not copied: padding is read through a condition, and the output is cut into border tiles, where the
condition is a number for each position, and inner tiles, where it always holds.

    for row tiles (first | inner | last, parallel):
        for column tiles (first | inner | last):
            for vectors of channels:
                acc[rows][columns] = 0                         registers
                unrolled window: acc += data[..] * weight[..]
                out = epilogue(acc)

Free decisions: rows and columns per tile.

Where rows or columns are open (known at run time only), both are cut into tiles and shorter ones (`ragged`). A tile has
two versions, chosen by one test: for where all that it reads lies inside the data, and with conditions on what may not.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product as cartesian
from math import prod
from typing import Any

from warpbeam.cost.tile_prior import Tile, apart, ladder
from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.ir.rewrite import post_order
from warpbeam.sketch import ragged
from warpbeam.sketch.base import Group, Plan, expensive, extent, nth, product, supposed
from warpbeam.sketch.structure import variables
from warpbeam.sketch.tile import anatomy, epilogue
from warpbeam.te.tensor import ComputeOp, loads
from warpbeam.tir import expr as e
from warpbeam.tir.arith import Facts, linear, prove
from warpbeam.tir.expr import Var

MAX_TAPS = 49  # 7x7: a tile of eight results is 400 products in a row
MAX_UNROLLED = 400
PARALLEL_WORK = 65536
_AHEAD_BYTES = 4096  # before it is read, data is asked for: a page, where the processor stops fetching by itself
_FEW_TAPS = 16  # steps one after the other, of which results in turn hide the latency
_WORTH_TWO = 4  # results of a tile that has a version without conditions


@dataclass(frozen=True, slots=True)
class Cut:
    """Tiles of `size` along one axis: `first` border tiles, inner ones up to `inner`, full ones up to `full`."""

    size: int
    first: int
    inner: int
    full: int
    count: int

    def points(self) -> list[int]:
        """Where the loop over tiles is partitioned, ascending."""
        return sorted({p for p in (self.first, self.inner, self.full) if 0 < p < self.count})


def fits(group: Group) -> bool:
    parts = anatomy(group)
    if parts is None or parts.anchor.kind != "window":
        return False
    op = parts.anchor.op
    sizes = [extent(a.extent) for a in (op.axis[-1], *op.reduce_axis)]
    if None in sizes or len(op.axis) < 2 or product([a.extent for a in op.reduce_axis]) > MAX_TAPS:
        return False
    if any(expensive(s.op) or s.op.reduce_axis for s in parts.before):
        return False
    last, reduced = op.axis[-1].var, {a.var for a in op.reduce_axis}
    seen = False
    for load in loads(op):
        if any(last in variables(i) for i in load.indices[:-1]) or variables(load.indices[-1]) & reduced:
            return False
        seen = seen or load.indices[-1] is last
    return seen


def build(group: Group, rank: int = 0) -> Plan:
    parts = anatomy(group)
    assert parts is not None
    sch = group.sch
    for stage in parts.before:
        sch.compute_inline(group.blocks[stage.op])
    block, out = epilogue(group, parts, "register")
    op = parts.anchor.op
    rows = [a.var for a in op.axis[:-1]][-2:]
    if any(extent(a.extent) is None for a in op.axis[-3:]):
        return _open(group, op, block, out)
    cuts = nth(choose(group, op, block, rows, rank + 1), rank)
    lanes = min(max(1, group.target.vector_bits // dt.bits(op.body[0].dtype)), extent(op.axis[-1].extent) or 1)
    outer = _tile_output(group, op, out, cuts, lanes)
    tile_window(group, op, block, outer[-1], lanes)
    _fetch_ahead(group, op, outer)
    _finish(group, op, outer, cuts, lanes)
    shape = "x".join(str(c.size) for c in cuts)
    return Plan(sch.func, "window", {"rows": shape, "vectors": f"1x{lanes}"}, ("borders apart, nothing is copied",))


def _open(group: Group, op: ComputeOp, block: str, out: str) -> Plan:
    """Over rows or columns that only the run tells."""
    sch = group.sch
    lanes = min(max(1, group.target.vector_bits // dt.bits(op.body[0].dtype)), extent(op.axis[-1].extent) or 1)
    axes = [a.var for a in op.axis]
    rows, sizes = axes[:-1][-2:], {a.var: a.extent for a in op.axis}
    pays = product([a.extent for a in (*op.axis, *op.reduce_axis)]) >= PARALLEL_WORK
    tile = Tile(_open_tile(group, op, rows), 1, lanes, False, "first" if pays else "none", 1, True, False)
    loops = dict(zip(axes, sch.loops(out), strict=True))
    free, pieces = ragged.cut(group, out, loops, sizes, rows, axes[-1], tile)
    blocks = [block, *(sch.clone(block, p.out) for p in pieces[1:])]
    for name, p in zip(blocks, pieces, strict=True):
        tile_window(group, op, name, p.outer[-1][1], lanes)
        if product([sch.extent(n) for v in rows for n in p.inner[v]]) >= _WORTH_TWO:
            sch.annotate(p.outer[-2][1], "inside", True)
    ragged.finish(group, free, pieces, sizes, dict(zip([axes[-1], *rows], [lanes, *tile.rows], strict=True)))
    decisions = {"rows": "x".join(map(str, tile.rows)), "vectors": f"1x{lanes}"}
    return Plan(sch.func, "window", decisions, ("borders under their conditions, nothing is copied",))


def _open_tile(group: Group, op: ComputeOp, rows: list[Var]) -> tuple[int, ...]:
    """The tile that reads each element seldom, with those that it leaves over, for sizes as they may be."""
    sizes = [supposed(a.extent) for a in op.axis if a.var in rows]
    spans = [span(op, v) for v in rows]
    taps, registers = product([a.extent for a in op.reduce_axis]), max(8, group.target.vector_registers)
    found: list[tuple[float, tuple[int, ...]]] = []
    for tile in cartesian(*(range(1, most + 1) for most in (4, 8)[-len(rows) :])):
        line = (tile[-1] - 1) * spans[-1][0] + spans[-1][1]
        if prod(tile[:-1]) * line + prod(tile) + 2 <= registers and prod(tile) * taps <= MAX_UNROLLED:
            parts = cartesian(*(ladder(size, t) for size, t in zip(sizes, tile, strict=True)))
            cost = sum(prod(n for n, _ in p) * (_reads(tuple(h for _, h in p), spans, taps) + 8.0) for p in parts)
            found.append((round(cost / product(sizes), 2), tile))
    return min(found, default=(0.0, (1,) * len(rows)))[1]


def _reads(tile: tuple[int, ...], spans: list[tuple[int, int]], taps: int) -> int:
    """Vectors that a tile reads: what its windows cover, and the weights."""
    return prod((n - 1) * stride + cover for n, (stride, cover) in zip(tile, spans, strict=True)) + taps


# ------------------------------------------------------------------------------------------------------------ decisions


def choose(group: Group, op: ComputeOp, block: str, rows: list[Var], count: int = 1) -> list[list[Cut]]:
    """Tiles that fit the registers, make few different nests, and read each element seldom: the best first, and up to
    `count` that have another height, or a width that is half as much again. Where each element is read once whatever
    the tile, small ones are best: memory is read in few and long runs.
    """
    names = {a.var.name: a.var for a in group.sch.block(block).axes}
    own = [names.get(v.name, v) for v in rows]
    sizes = [extent(a.extent) or 1 for a in op.axis if a.var in rows]
    spans = [span(op, v) for v in rows]
    registers = max(8, group.target.vector_registers)
    taps = product([a.extent for a in op.reduce_axis])
    once = taps <= _FEW_TAPS and _read_once(op, spans)
    entries: list[tuple[Any, list[Cut]]] = []
    tests: dict[tuple[int, int], Cut | None] = {}
    inner = [w for w in range(1, min(sizes[-1], 16) + 1) if w <= 8 or w == sizes[-1]]  # wide tiles crowd few cache sets
    for height in range(1, min(sizes[0], 4) + 1) if len(rows) == 2 else (1,):
        for width in inner:
            tile = (height, width) if len(rows) == 2 else (width,)
            stride, cover = spans[-1]
            line = (width - 1) * stride + cover
            count = height * width
            if height * line + count + 2 > registers or (count * taps > MAX_UNROLLED and count > 1):
                continue
            tall = (height - 1) * spans[0][0] + spans[0][1] if len(rows) == 2 else 1
            for k, size in enumerate(tile):
                if (k, size) not in tests:
                    tests[k, size] = _cut(group, block, own[k], sizes[k], size)
            cuts = [c for k, size in enumerate(tile) if (c := tests[k, size]) is not None]
            if len(cuts) < len(tile):
                continue
            nests = product([len(c.points()) + 1 for c in cuts])
            read = tall * line / count + (count if once else (taps + 8.0) / count)
            key = (round(read + 0.15 * nests, 2), tile)
            entries.append((key, cuts))
    if not entries:
        raise ScheduleError("no tile has an inner part where the whole window lies inside the data")
    return apart((cuts for _, cuts in sorted(entries, key=lambda entry: entry[0])), _alike, count)


def _alike(a: list[Cut], b: list[Cut]) -> bool:
    """Whether tiles have the same height and nearly the same width."""
    widths = sorted(cuts[-1].size for cuts in (a, b))
    return [c.size for c in a[:-1]] == [c.size for c in b[:-1]] and 2 * widths[1] < 3 * widths[0]


def span(op: ComputeOp, axis: Var) -> tuple[int, int]:
    """(stride, extent) of the window along an axis: what one step moves and what one position covers."""
    reduced = {a.var: extent(a.extent) or 1 for a in op.reduce_axis}
    for load in loads(op):
        for index in load.indices:
            if axis in variables(index) and variables(index) & reduced.keys():
                form = linear(index, [axis, *reduced])
                if form is not None:
                    steps = {v: abs(e.const_int(c) or 0) for v, c in form[0].items()}
                    return steps.get(axis, 1), 1 + sum(steps.get(v, 0) * (n - 1) for v, n in reduced.items())
    return 1, 1


def _cut(group: Group, block: str, axis: Var, size: int, tile: int) -> Cut | None:
    """Tiles along an axis, with as few border tiles as possible; None if no tile is certainly inside."""
    full, count = size // tile, -(-size // tile)
    for border in range(4):
        for first in range(min(border, 2) + 1):
            last = border - first
            if last > 2 or first + last > full:
                continue
            if first + last == full or _inside(group, block, axis, first * tile, (full - last) * tile):
                return Cut(tile, first, full - last, full, count)
    return None


def _inside(group: Group, block: str, axis: Var, low: int, high: int) -> bool:
    """Whether every comparison that depends on the axis holds for [low, high) of it."""
    place = group.sch.block(block)
    facts = Facts()
    for a in place.axes:
        if a.var is axis:
            facts.bind(axis, e.const(low), e.const(high - low))
        else:
            facts.bind(a.var, e.const(0), a.extent)
    tests = [n for n in post_order(place.body) if isinstance(n, e.CmpExpr) and axis in variables(n)]
    return all(prove(t, facts) is True for t in tests)


# ----------------------------------------------------------------------------------------------------------- scheduling


def _tile_output(group: Group, op: ComputeOp, out: str, cuts: list[Cut], lanes: int) -> list[str]:
    """Splits the output's loops into tiles; the outer loops, outermost first (free axes, rows, vectors)."""
    sch = group.sch
    names = list(sch.loops(out))
    outer, inner = names[: len(op.axis) - 1 - len(cuts)], []
    for name, cut in zip(names[len(outer) : -1], cuts, strict=True):
        tiles, part = sch.split(name, [None, cut.size])
        outer.append(tiles)
        inner.append(part)
    vectors, lane = sch.split(names[-1], [None, lanes])
    outer.append(vectors)
    sch.reorder(*outer, *inner, lane)
    sch.vectorize(lane)
    for name in inner:
        sch.unroll(name)
    return outer


def _fetch_ahead(group: Group, op: ComputeOp, outer: list[str]) -> None:
    """Windows that come from memory, each element once, ask for what lies a page further on along their rows and then
    in the next one: choices between elements, which wait for each other, leave little room to look ahead. Positions of
    one vector have too little else to do: with 16 channels it takes 0.82 of the time on one core and 1.15 on two.
    """
    spans = [span(op, a.var) for a in op.axis[:-1][-2:]]
    if not _read_once(op, spans) or group.sch.extent(outer[-1]) == 1:
        return
    around = outer[-3] if len(outer) > 2 else ""
    for t in group.inputs:
        size = dt.nbytes(t.dtype)
        ahead = _AHEAD_BYTES // max(1, spans[-1][0] * product([op.axis[-1].extent]) * size)
        ahead = max(1, min(ahead, (group.sch.extent(outer[-2]) or 1) // 4))
        if product(t.shape) * size > group.target.l3 > 0 and len(t.shape) >= len(op.axis):
            group.sch.prefetch(outer[-2], t.op.name, ahead, outer[-1], around)


def _read_once(op: ComputeOp, spans: list[tuple[int, int]]) -> bool:
    """Whether windows over one operand lie side by side."""
    return len(list(loads(op))) == 1 and all(stride >= cover for stride, cover in spans)


def tile_window(group: Group, op: ComputeOp, block: str, at: str, lanes: int) -> None:
    """The window unrolled over the tile, its results in registers."""
    sch = group.sch
    sch.compute_at(block, at)
    below = list(sch.loops(block))
    below = below[below.index(at) + 1 :]
    spatial, reduce = below[: len(op.axis)], below[len(op.axis) :]
    sch.reorder(*reduce, *spatial)
    init = sch.decompose_reduction(block, reduce[0])
    for name in (*reduce, *spatial[:-1]):
        sch.unroll(name)
    sch.vectorize(spatial[-1])
    start = list(sch.loops(init))
    start = start[start.index(at) + 1 :]
    for name in start[:-1]:
        sch.unroll(name)
    sch.vectorize(start[-1])
    sch.set_scope(block, "register")


def _finish(group: Group, op: ComputeOp, outer: list[str], cuts: list[Cut], lanes: int) -> None:
    """Border tiles apart from inner ones, the rest of the vectors apart; then the parallel loop."""
    sch = group.sch
    free = len(outer) - 1 - len(cuts)
    work = product([a.extent for a in (*op.axis, *op.reduce_axis)])
    if work >= PARALLEL_WORK:
        sch.parallel(outer[0])
        if free == 0:
            sch.annotate(outer[0], "joined", outer[0])
    columns = extent(op.axis[-1].extent) or 1
    if columns % lanes and columns > lanes:
        sch.partition(outer[-1], columns // lanes)
    for name, cut in reversed(list(zip(outer[free:-1], cuts, strict=True))):
        for at in reversed(cut.points()):
            _, second, _ = sch.partition(name, at)
            if at >= cut.inner and 1 < (sch.extent(second) or 1) <= 2:
                sch.unroll(second)
        if cut.first == 2:
            sch.unroll(name)
