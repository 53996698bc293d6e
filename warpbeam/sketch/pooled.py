"""Sketch for windows over what a convolution makes: the maps between stay in registers, or in a block's buffer.

    made[y, x, c] = a convolution with what finishes it (bias, activation)
    result[p, q, c] = the largest of made[p * stride + i - border, q * stride + j - border, c], over i and j

Found by structure: the group without its window is one for the `winograd` or the `tile` sketch, and each element is
computed once. Along an axis the windows lie side by side, or a block has all of the axis.

    winograd: as there; a chunk of the channels of a block of tiles is finished in a buffer, from which windows are read
    tile: a register tile has whole windows, and is never stored

What is joined saves the way of `made` through memory; what it costs is the choice of blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from warpbeam.cost.tile_prior import EXPOSED, Shape, Tile, cache_rate, choose
from warpbeam.cost.winograd_prior import Blocks, Layer, plan
from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import substitute
from warpbeam.sketch import dot, tile, winograd
from warpbeam.sketch.base import Group, Plan, expensive, extent, product
from warpbeam.sketch.structure import classify, contraction
from warpbeam.sketch.tile_shape import describe
from warpbeam.te.tensor import ComputeOp, Operation, loads
from warpbeam.tir.arith import linear
from warpbeam.tir.expr import PrimExpr, const_int

_MOST_TAPS = 9


@dataclass(frozen=True, slots=True)
class Walk:
    """How windows lie along one axis: count of them, step, elements covered, border before, elements there are."""

    count: int
    step: int
    cover: int
    begin: int
    size: int

    @property
    def apart(self) -> bool:
        """Whether windows lie side by side and need no border."""
        return self.begin == 0 and self.step == self.cover

    @property
    def inner(self) -> tuple[int, int]:
        """The first window that reads no border, and the first after those."""
        first = -(-self.begin // self.step)
        return first, max(first, min(self.count, (self.size + self.begin - self.cover) // self.step + 1))


@dataclass(slots=True)
class Windows:
    """The windows of a group. made: what they are over, finished; inlined: what borders it; walks: for each axis."""

    op: ComputeOp
    made: ComputeOp
    inlined: list[Operation]
    walks: tuple[Walk, ...]
    inner: Group


@dataclass(slots=True)
class Choice:
    """How the group without its windows is computed, with the cycles predicted for all of it but the windows' own."""

    parts: winograd.Parts | tile.Anatomy
    layer: Layer | Shape
    decided: Blocks | Tile
    cycles: float


def fits(group: Group) -> bool:
    found = find(group)
    return found is not None and choose_for(found, group) is not None


def find(group: Group) -> Windows | None:
    """The windows that end a group, or None if it is something else."""
    out = group.outputs[0].op
    if len(group.outputs) != 1 or not isinstance(out, ComputeOp) or len(group.stages) < 3 or len(out.body) != 1:
        return None
    taps = [extent(a.extent) for a in out.reduce_axis]
    if not taps or None in taps or product(taps) > _MOST_TAPS or classify(out) != "window":
        return None
    reads = list(loads(out))
    index = list(reads[0].indices)
    inlined: list[Operation] = []
    at = reads[0].tensor.op
    while isinstance(at, ComputeOp) and classify(at) == "injective" and len(list(loads(at))) == 1 == len(reads):
        inlined.append(at)
        (read,) = loads(at)
        index = _through(read.indices, at, index)
        at = read.tensor.op
    if len(reads) != 1 or not isinstance(at, ComputeOp) or any(len(group.readers[o]) != 1 for o in (at, *inlined)):
        return None
    walks = _walks(out, at, index)
    if walks is None:
        return None
    inner = Group(group.inputs, [at.output(0)], group.target, group.constants)
    return Windows(out, at, inlined, walks, inner)


def _through(indices: Sequence[PrimExpr], op: ComputeOp, at: Sequence[PrimExpr]) -> list[PrimExpr]:
    """Where a stage reads when it is itself read at `at`."""
    new = {a.var: i for a, i in zip(op.axis, at, strict=True)}
    return [substitute(i, new) for i in indices]


def _walks(out: ComputeOp, made: ComputeOp, index: list[PrimExpr]) -> tuple[Walk, ...] | None:
    """How windows lie along each axis; None where an axis walks along another one, or extents are open."""
    taps = {a.var: extent(a.extent) or 1 for a in out.reduce_axis}
    sizes = [extent(a.extent) for a in made.axis]
    counts = [extent(a.extent) for a in out.axis]
    if len(sizes) != len(counts) or len(counts) < 3 or index[-1] is not out.axis[-1].var:
        return None
    walks = []
    for axis, i, size, count in zip(out.axis, index, sizes, counts, strict=True):
        form = linear(i, [a.var for a in out.axis] + list(taps))
        steps = {} if form is None else {v: const_int(c) for v, c in form[0].items()}
        begin = None if form is None else const_int(form[1])
        step = steps.pop(axis.var, None)
        if None in (size, count, begin, step, *steps.values()) or any(v not in taps for v in steps):
            return None
        cover = 1 + sum((c or 0) * (taps[v] - 1) for v, c in steps.items())
        if (begin or 0) > 0 or min(step or 0, *(c or 0 for c in steps.values()), 1) < 1:
            return None
        walks.append(Walk(count or 0, step or 0, cover, -(begin or 0), size or 0))
    return tuple(walks)


# ------------------------------------------------------------------------------------------------------------ decisions


def choose_for(found: Windows, group: Group) -> Choice | None:
    """The decisions for a group with windows; None where no sketch can end in them."""
    made = product([w.size for w in found.walks]) * dt.nbytes(found.made.body[0].dtype)
    return _in_blocks(found, group, made) or _in_tiles(found, group)


def _in_blocks(found: Windows, group: Group, made: int) -> Choice | None:
    parts = winograd.find(found.inner)
    if (
        parts is None
        or parts.flat
        or parts.apart != (1, 1)
        or parts.groups > 1
        or len(parts.roles.m) < 2
        or len(parts.roles.m) + 1 != len(found.walks)
    ):
        return None
    layer = winograd.describe(found.inner, parts)
    if layer.outputs % layer.lanes or any(w.step * w.cover > 1 or w.begin for w in found.walks[:-3]):
        return None
    for w, count, size in zip(found.walks[-3:-1], (layer.rows, layer.columns), parts.sizes, strict=True):
        if w.apart and (size % w.step or w.count * w.step != count * size):
            return None
    whole = tuple(not w.apart for w in found.walks[-3:-1])
    layer = replace(layer, whole=whole, kept=product(parts.sizes))
    decided = plan(layer, group.target)
    if decided is None:
        return None
    buffer = layer.kept * decided.rows * decided.columns * decided.chunk * layer.bytes
    cores = group.target.cores if decided.parallel else 1
    return Choice(parts, layer, decided, decided.cycles + EXPOSED * 2 * made * cache_rate(buffer, group.target) / cores)


def _in_tiles(found: Windows, group: Group) -> Choice | None:
    parts = tile.anatomy(found.inner)
    roles = None if parts is None else contraction(parts.anchor.op)
    if parts is None or roles is None or not tile.fits(found.inner) or not all(w.apart for w in found.walks):
        return None
    if any(expensive(s.op) for s in parts.after) or dot.find(group, parts.anchor.op, roles) is not None:
        return None
    axes = [a.var for a in parts.anchor.op.axis]
    walks = dict(zip(axes, found.walks, strict=True))
    rows = tile.rows_of(parts, roles)
    if any(walks[v].step > 1 for v in axes if v not in rows):
        return None
    steps = tuple(walks[v].step for v in rows)
    sizes = tuple(walks[v].count * walks[v].step for v in rows)
    even = tuple(walks[v].size != n for v, n in zip(rows, sizes, strict=True))  # what no window reads ends no tile
    shape = describe(found.inner, parts, roles)
    shape = replace(shape, rows=sizes, multiples=steps, whole=(*even, False), inside=(), share=1.0)
    decided = choose(shape, group.target)
    return Choice(parts, shape, decided, decided.cycles)


def pays(group: Group) -> bool | None:
    """Whether the prior expects one kernel to be no slower than the convolution and the windows apart; None where one
    kernel cannot do both.
    """
    found = find(group)
    choice = None if found is None else choose_for(found, group)
    if found is None or choice is None:
        return None
    target = group.target
    apart = (winograd if isinstance(choice.layer, Layer) else tile).predict(found.inner)
    assert apart is not None
    cores = target.cores if target.threads else 1
    made = product([w.size for w in found.walks]) * dt.nbytes(found.made.body[0].dtype)
    moved = EXPOSED * 2 * made * cache_rate(2 * made, target) / cores + target.fork_cycles * (cores > 1)
    return bool(choice.cycles <= apart + moved)


def predict(group: Group) -> float | None:
    """Cycles that the prior expects on all cores; None where the sketch does not fit."""
    found = find(group)
    choice = None if found is None else choose_for(found, group)
    return None if choice is None else choice.cycles


def build(group: Group, rank: int = 0) -> Plan:
    """Schedules the group in the blocks or tiles that the prior finds best."""
    found = find(group)
    choice = None if found is None else choose_for(found, group)
    assert found is not None and choice is not None
    for op in found.inlined:
        group.sch.compute_inline(group.blocks[op])
    decided, parts = choice.decided, choice.parts
    if isinstance(decided, Blocks):
        assert isinstance(parts, winograd.Parts) and isinstance(choice.layer, Layer)
        winograd.apply(group, parts, decided, choice.layer, partial(_result, found))
        decisions = winograd.decisions(decided)
    else:
        assert isinstance(parts, tile.Anatomy)
        _tiles(group, found, parts, decided)
        decisions = decided.as_dict()
    windows = "x".join(str(w.cover) for w in found.walks[-3:-1])
    notes = (f"{choice.cycles:.0f} cycles predicted",)
    return Plan(group.sch.func, "pooled", {**decisions, "windows": windows}, notes, cycles=choice.cycles)


# ----------------------------------------------------------------------------------------------------------- scheduling


def _result(
    found: Windows, group: Group, parts: winograd.Parts, blocks: Blocks, layer: Layer
) -> tuple[list[str], str, str, str]:
    """As in `winograd`, with windows read from a buffer of what a block has for a chunk."""
    sch, pool, lanes = group.sch, group.blocks[found.op], layer.lanes
    out = sch.cache_write(pool, "register")
    *batch, high, across, channel = sch.loops(out)
    sizes = [
        n * size // w.step if w.apart else w.count
        for w, n, size in zip(found.walks[-3:-1], (blocks.rows, blocks.columns), parts.sizes, strict=True)
    ]
    rows, row = sch.split(high, [None, sizes[0]])
    columns, column = sch.split(across, [None, sizes[1]])
    chunk, vector, lane = sch.split(channel, [None, -(-blocks.chunk // lanes), lanes])
    outer = [*batch, rows, columns]
    around = [chunk, *outer] if blocks.columns_outer else [*outer, chunk]
    sch.reorder(*around, row, column, vector, lane)
    sch.vectorize(lane)
    _windows(group, found, lanes, vector)
    made = group.blocks[found.made]
    sch.compute_at(made, around[-1])
    sch.set_scope(made, "local")
    tiles = winograd.tiled(group, winograd.below(group, made, around[-1]), parts, lanes)
    for at in sorted({p for p in found.walks[-2].inner if 0 < p < sizes[1]}, reverse=True):
        sch.partition(column, at)
    return outer, around[-1], chunk, tiles


def _tiles(group: Group, found: Windows, parts: tile.Anatomy, decided: Tile) -> None:
    """Register tiles of whole windows."""
    sch, op = group.sch, parts.anchor.op
    roles = contraction(op)
    assert roles is not None
    steps = {a.var: w.step for a, w in zip(op.axis, found.walks, strict=True)}
    rows = tile.rows_of(parts, roles)
    for stage in parts.after:  # computed where windows read it, once
        sch.compute_inline(group.blocks[stage.op])
    pool = group.blocks[found.op]
    out = sch.cache_write(pool, "register")
    sizes = {a.var: p.extent for a, p in zip(op.axis, found.op.axis, strict=True)}
    units = replace(decided, rows=tuple(r // steps[v] for v, r in zip(rows, decided.rows, strict=True)))
    loops = dict(zip(sizes, sch.loops(out), strict=True))
    x = tile.Variant(out, group.blocks[op], loops, sizes, units)
    x.windows = partial(_windows, group, found, decided.lanes)
    tile.place(group, x, parts, roles)


def _windows(group: Group, found: Windows, lanes: int, at: str) -> None:
    """Windows below a loop, written out, their results in registers."""
    sch, pool = group.sch, group.blocks[found.op]
    sch.compute_at(pool, at)
    below = winograd.below(group, pool, at)
    count = len(found.op.axis)
    *spatial, channel = below[:count]
    vec, lane = sch.split(channel, [None, lanes])
    taps = below[count:]
    sch.reorder(*spatial, vec, *taps, lane)
    init = sch.decompose_reduction(pool, taps[0])
    for name in (*spatial, vec, *taps):
        sch.unroll(name)
    sch.vectorize(lane)
    sch.vectorize(sch.loops(init)[-1])
    sch.set_scope(pool, "register")
