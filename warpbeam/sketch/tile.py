"""Sketch for one heavy reduction with pointwise work before and after it: contractions, convolutions, windows,
reductions.

The innermost output axis runs in vectors; a tile of rows and vectors is accumulated in registers over the whole
reduction and
finished (bias, activation, residual) before it is stored. Work before the reduction (padding) is a loop nest of its
own.

    for outer tiles (parallel):
        acc[rows][vectors] = 0                     registers
        for k...: acc += lhs[rows, k] * rhs[k, vectors]
        out = epilogue(acc)

Free decisions: rows per tile along up to two axes, vectors per tile, order of the outer loops, which of them is
parallel, along which axes taps outside of a map are left out (`border`).
`cost.tile_prior` chooses; see there for the model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from warpbeam.cost.skipping import BY_TILE
from warpbeam.cost.tile_prior import EXPOSED, FETCHED, Shape, Tile, choose, elapsed, ranked
from warpbeam.ir import dtype as dt
from warpbeam.sketch import border, columns, dot, packing, pointwise, ragged
from warpbeam.sketch.base import Group, Plan, expensive, extent, nth, product, supposed
from warpbeam.sketch.dot import DotChoice
from warpbeam.sketch.ragged import copies as _copies
from warpbeam.sketch.structure import Contraction, Stage, contraction, load_vars, variables
from warpbeam.sketch.tile_shape import describe
from warpbeam.target import Target
from warpbeam.te.tensor import ComputeOp, PlaceholderOp
from warpbeam.tir.analysis.access import as_block, written
from warpbeam.tir.analysis.tree import tree_of
from warpbeam.tir.expr import Var, const_int

_HEAVY = ("contraction", "window", "reduce", "row")


@dataclass(slots=True)
class Anatomy:
    """The parts of a group around its one reduction."""

    anchor: Stage
    before: list[Stage]
    after: list[Stage]
    out: ComputeOp


def anatomy(group: Group, anchor: Stage | None = None) -> Anatomy | None:
    """A group's parts; None if it is not one single-valued reduction (or the anchor) with pointwise work around it."""
    heavy = [s for s in group.stages if s.kind in _HEAVY] if anchor is None else [anchor]
    if len(heavy) != 1 or len(group.outputs) != 1 or len(heavy[0].op.body) != 1:
        return None
    anchor = heavy[0]
    out = group.outputs[0].op
    assert isinstance(out, ComputeOp)
    upstream = {anchor.op}
    before: list[Stage] = []
    for s in reversed(group.stages):
        if any(u in upstream for u in group.readers.get(s.op, [])) and s.op is not anchor.op:
            upstream.add(s.op)
            before.insert(0, s)
    after = [s for s in group.stages if s.op not in upstream]
    shape = [a.extent for a in anchor.op.axis]
    if any(s.kind != "elementwise" or [a.extent for a in s.op.axis] != shape for s in after):
        return None
    both = [s for s in before if any(u not in upstream for u in group.readers.get(s.op, []))]
    return None if both or not anchor.op.axis else Anatomy(anchor, before, after, out)


def fits(group: Group) -> bool:
    parts = anatomy(group)
    if parts is None:
        return False
    last, reads = parts.anchor.op.axis[-1].var, _reads(parts.anchor.op)
    if len(reads) == 1 and columns.fits(group) and columns.wide(group):  # nothing is used twice
        return False
    return any(_contiguous(x, last) for x in reads)


def _reads(op: ComputeOp) -> list[Any]:
    from warpbeam.te.tensor import loads

    return list(loads(op))


def _contiguous(load: Any, var: Var) -> bool:
    """Whether a read moves through memory element by element as `var` grows, or holds a dimension indexed by it."""
    return var in load_vars(load)


def build(group: Group, rank: int = 0) -> Plan:
    """Schedules the group with the tile that the prior finds best; with `rank`, the next best that differ from it."""
    parts = anatomy(group)
    assert parts is not None
    roles = contraction(parts.anchor.op)
    choice = dot.find(group, parts.anchor.op, roles)
    shape = _stepped(describe(group, parts, roles), choice)
    tile = nth(ranked(shape, group.target, rank + 1), rank) if rank else choose(shape, group.target)
    skipped = apply(group, parts, roles, tile, choice)
    weights = _weights(group, roles)
    others = partial(_next_best, shape, weights, group.target, choice)
    cycles = _elapsed(shape, weights, group.target, tile)
    gaps, notes = packing.gaps(group, roles, shape, tile), (tile.reason, *skipped)
    return Plan(group.sch.func, "tile", _decisions(tile, choice), notes, cycles=cycles, others=others, gaps=gaps)


def _decisions(tile: Tile, choice: DotChoice | None) -> dict[str, Any]:
    """What was decided, for reports."""
    return tile.as_dict() if choice is None else {**tile.as_dict(), "dot": choice.intrin}


def _next_best(
    shape: Shape, weights: int, target: Target, choice: DotChoice | None, count: int
) -> list[tuple[dict[str, Any], float]]:
    """The decisions after the best ones, each with its cycles in proportion to those of the best: what is ranked is the
    work in the caches, as weights from memory take the same way in all of them.
    """
    best, *others = ranked(shape, target, count + 1)
    unit = _elapsed(shape, weights, target, best) / max(best.cycles, 1.0)
    return [(_decisions(t, choice), unit * t.cycles) for t in others]


def predict(group: Group) -> float | None:
    """Cycles that the prior expects on all cores with a constant operand in memory; None where the sketch does not
    fit.
    """
    parts = anatomy(group)
    if parts is None:
        return None
    roles = contraction(parts.anchor.op)
    shape = _stepped(describe(group, parts, roles), dot.find(group, parts.anchor.op, roles))
    return _elapsed(shape, _weights(group, roles), group.target, choose(shape, group.target))


def _stepped(shape: Shape, choice: DotChoice | None) -> Shape:
    """The extents for an instruction of which a step takes as many bytes as one of float32."""
    if choice is None:
        return shape
    steps = shape.reduce // choice.group
    return replace(shape, reduce=steps, lanes=choice.lanes, stride=0, latency=choice.latency, inside=(), share=1.0)


def _weights(group: Group, roles: Contraction | None) -> int:
    """Bytes of a constant operand."""
    if roles is None or roles.rhs.tensor.op.name not in group.constants:
        return 0
    return product(roles.rhs.tensor.shape) * dt.nbytes(roles.rhs.dtype)


def _elapsed(shape: Shape, weights: int, target: Target, tile: Tile) -> float:
    """Cycles of a tile's decisions with so many bytes of weights in memory."""
    cores = 1 if tile.parallel == "none" else target.cores
    tiles = product([-(-size // r) for size, r in zip(shape.counts, tile.rows, strict=True)])
    if tile.columns_outer:
        exposed = FETCHED if tile.packed and tiles > 1 else EXPOSED
        return elapsed(tile.cycles, weights, target, cores, exposed=exposed)
    return elapsed(tile.cycles, weights, target, 1, tiles / cores)


@dataclass(slots=True)
class Variant:
    """One nest over the output: the blocks of output and reduction, loop and extent of each axis, and the tile.

    staged: whether what follows the reduction is so much work that it is a loop over a copy of the tile's sums. In
    registers, the sums would leave none for it. sums: the block that makes this copy, if there is one already. windows:
    places what reads the tile's results. borders: those of `operand` that the tile's sums do not read, by axis.
    """

    out: str
    block: str
    loops: dict[Var, str]
    sizes: dict[Var, Any]
    tile: Tile
    staged: bool = False
    sums: str = ""
    windows: Callable[[str], None] | None = None
    operand: str = ""
    borders: dict[Var, border.Border] = field(default_factory=dict)


def apply(
    group: Group, parts: Anatomy, roles: Contraction | None, tile: Tile, choice: DotChoice | None = None
) -> tuple[str, ...]:
    """Schedules with the decisions of `tile`; gives what was decided besides."""
    block, out = epilogue(group, parts, "local")
    sizes = {a.var: a.extent for a in parts.anchor.op.axis}
    staged = any(expensive(s.op) for s in parts.after)
    x = Variant(out, block, dict(zip(sizes, group.sch.loops(out), strict=True)), sizes, tile, staged)
    outer, steps, known = place(group, x, parts, roles, choice)
    if known and roles is not None and group.sch.extent(outer[-1]) != 1:  # a tile's end would wait for all of it
        for name in _finishing(group, parts):
            group.sch.prefetch(outer[-1], name, 0, steps)
    return ("tiles leave out taps that lie outside of the map",) if x.borders and not known else ()


def place(
    group: Group, x: Variant, parts: Anatomy, roles: Contraction | None, choice: DotChoice | None = None
) -> tuple[list[str], str, bool]:
    """Schedules the reduction and what is before it for the results of `x`; gives the loops over tiles, that over the
    steps of a tile, and whether all sizes are known.
    """
    sch, tile = group.sch, x.tile
    axes = [a.var for a in parts.anchor.op.axis]
    rows = rows_of(parts, roles)
    known = all(const_int(x.sizes[v]) is not None for v in (axes[-1], *rows))
    if roles is not None and choice is None and x.windows is None:
        x.borders = border.borders(parts.anchor.op, roles, parts.before, rows)
        if known:
            skips = dict(zip(rows, tile.skips, strict=False))
            chosen = {v: b for v, b in x.borders.items() if skips.get(v, v not in rows)}
            x.borders = {v: replace(b, by_tile=skips.get(v) == BY_TILE) for v, b in chosen.items()}
        if x.borders:
            x.operand = written(sch.block(group.blocks[roles.lhs.tensor.op]))[0].name
    first, last = ((), parts.before) if x.borders else (parts.before, ())  # a border is told by the copy as a whole
    for stage in first:
        before(group, stage, parts, roles)
    if roles is not None and tile.packed:
        packing.pack(group, roles, axes[-1], tile, choice)
    outer, steps = (nest if known else _open)(group, x, axes, rows, choice)
    for stage in last:
        before(group, stage, parts, roles)
    free = [v for v in axes[:-1] if v not in rows]
    if roles is not None and _ahead(x, rows):  # the next panel comes from memory while this one is used
        own = sch.extent(outer[0]) != 1
        if own or (len(free) == 1 and free[0] in roles.batch):  # of this product or of the next one
            at = outer[0] if own else x.loops[free[0]]
            sch.prefetch(at, roles.rhs.tensor.name, 1, border.parts(group, at, steps) if x.borders and known else steps)
    return outer, steps, known


def rows_of(parts: Anatomy, roles: Contraction | None) -> list[Var]:
    """The axes that a tile may have several rows along."""
    return [a.var for a in parts.anchor.op.axis[:-1] if roles is None or a.var in roles.m][-2:]


def _finishing(group: Group, parts: Anatomy) -> list[str]:
    """The inputs, no constants, of which what follows the reduction reads an element for each result."""
    found: list[str] = []
    for stage in parts.after:
        axes = {a.var for a in stage.op.axis if extent(a.extent) != 1}
        for load in _reads(stage.op):
            op = load.tensor.op
            own = isinstance(op, PlaceholderOp) and op.name not in group.constants
            if own and axes <= set().union(*map(variables, load.indices)) and op.name not in found:
                found.append(op.name)
    return found


def _tiles(x: Variant, rows: list[Var]) -> int:
    """Tiles that a panel is used for."""
    return product([-(-supposed(x.sizes[v]) // r) for v, r in zip(rows, x.tile.rows, strict=True)])


def _ahead(x: Variant, rows: list[Var]) -> bool:
    """Whether a panel of constants is used for several tiles: the time to fetch the next one in."""
    return x.tile.packed and x.tile.columns_outer and _tiles(x, rows) > 1


def _open(
    group: Group, x: Variant, axes: list[Var], rows: list[Var], choice: DotChoice | None
) -> tuple[list[str], str]:
    """As `nest`, for extents that only the run tells: pieces of constant tiles."""
    sch, columns = group.sch, const_int(x.sizes[axes[-1]])
    if columns is not None and columns <= x.tile.vectors * x.tile.lanes:  # one panel: rows are what there is to share
        x.tile = replace(x.tile, columns_outer=False)
    free, pieces = ragged.cut(group, x.out, x.loops, x.sizes, rows, axes[-1], x.tile)
    blocks = [x.block, *(sch.clone(x.block, p.out) for p in pieces[1:])]
    found = []
    for block, p in zip(blocks, pieces, strict=True):
        at = p.outer[-1][1]
        sch.compute_at(block, at)
        found.append(tile_reduction(group, block, at, axes, p.tile, choice))
        sch.set_scope(block, "register")
        border.skip(group, block, x.operand, list(x.borders.values()))
    tiles = [x.tile.vectors * x.tile.lanes, *x.tile.rows]
    ragged.finish(group, free, pieces, x.sizes, dict(zip([axes[-1], *rows], tiles, strict=True)))
    if choice is not None:
        for _, near in found:
            dot.tensorize(group, _copies(group, near), choice)
    return [name for _, name in pieces[0].outer], found[0][0]


def nest(group: Group, x: Variant, axes: list[Var], rows: list[Var], choice: DotChoice | None) -> tuple[list[str], str]:
    """One nest: tiles of the output outside, the reduction of a tile inside, remainders apart. Gives the loops over
    tiles, outermost first, and that over the steps of a tile's reduction.
    """
    tile = x.tile
    free, outer = _tile_output(group, x.loops, axes, rows, tile, x.staged)
    if x.staged:
        stage_sums(group, x, outer[-1])
    if x.windows is not None:
        x.windows(outer[-1])
    group.sch.compute_at(x.block, outer[-1])
    steps, neighbours = tile_reduction(group, x.block, outer[-1], axes, tile, choice)
    group.sch.set_scope(x.block, "register")
    border.skip(group, x.block, x.operand, list(x.borders.values()))
    points: list[list[int]] = []
    for v, f in zip([axes[-1], *rows], [tile.vectors * tile.lanes, *tile.rows], strict=True):
        size = const_int(x.sizes[v])
        assert size is not None
        apart = border.cuts(x.borders[v].inside, size, f) if v in x.borders and not x.borders[v].by_tile else []
        rest = [size // f] if size % f else []  # at 0 where no tile is whole
        points.append(sorted({*apart, *rest}))
    _finish(group, free, outer, points if tile.columns_outer else [*points[1:], points[0]], tile)
    if x.borders:
        border.write_out(group, x.block)
    if choice is not None:
        dot.tensorize(group, _copies(group, neighbours), choice)
    return outer, steps


def copy_sums(group: Group, block: str, out: str) -> str:
    """A block that copies the sums of a reduction for `out` to read; gives its name."""
    (sums,) = written(as_block(tree_of(group.sch.func).block(block)))
    return group.sch.cache_read(out, sums.name, "local")


def stage_sums(group: Group, x: Variant, at: str) -> None:
    """What follows the reduction reads a copy of the tile's sums in the nearest cache."""
    sch = group.sch
    copy = x.sums or copy_sums(group, x.block, x.out)
    sch.compute_at(copy, at)
    below = list(sch.loops(copy))
    *spatial, last = below[below.index(at) + 1 :]
    vec, lane = sch.split(last, [None, x.tile.lanes])
    sch.vectorize(lane)
    for name in (*spatial, vec):
        sch.unroll(name)


def before(group: Group, stage: Stage, parts: Anatomy, roles: Contraction | None) -> None:
    """Work that feeds the reduction: a nest of its own at the root; cores share it by rows, as they do the results."""
    if stage.kind == "elementwise" and not group.readers[stage.op][0].reduce_axis:
        group.sch.compute_inline(group.blocks[stage.op])
        return
    order: list[int] = []
    if roles is not None and roles.lhs.tensor.op is stage.op:
        inner = range(len(roles.lhs.indices) - 1)
        order = sorted(inner, key=lambda k: not variables(roles.lhs.indices[k]) & set(roles.m))
    pointwise.nest(group, stage, order)


def epilogue(group: Group, parts: Anatomy, scope: str) -> tuple[str, str]:
    """(block of the reduction, block of the output): pointwise work after the reduction becomes one block; where there
    is none, results are copied from a buffer of the scope.
    """
    sch, block = group.sch, group.blocks[parts.anchor.op]
    if not parts.after:
        return block, sch.cache_write(block, scope)
    for stage in parts.after:
        if stage.op is not parts.out:
            sch.compute_inline(group.blocks[stage.op])
    return block, group.blocks[parts.out]


def _tile_output(
    group: Group, names: dict[Var, str], axes: list[Var], rows: list[Var], tile: Tile, staged: bool
) -> tuple[list[str], list[str]]:
    """Splits and orders the output's loops (axes may have none); returns (loops of untiled axes, outer loops of tiled
    axes).
    """
    sch = group.sch
    outer_of: dict[Var, str] = {}
    inner: list[str] = []
    for v, size in zip(rows, tile.rows, strict=True):
        outer_of[v], part = sch.split(names[v], [None, size])
        inner.append(part)
    outer_of[axes[-1]], vec, lane = sch.split(names[axes[-1]], [None, tile.vectors, tile.lanes])
    inner.append(vec)
    free = [names[v] for v in axes[:-1] if v in names and v not in rows]
    row_outer = [outer_of[v] for v in rows]
    column = outer_of[axes[-1]]
    outer = [column, *row_outer] if tile.columns_outer else [*row_outer, column]
    sch.reorder(*free, *outer, *inner, lane)
    sch.vectorize(lane)
    for name in inner[-1:] if staged else inner:
        sch.unroll(name)
    return free, outer


def tile_reduction(
    group: Group, block: str, at: str, axes: list[Var], tile: Tile, choice: DotChoice | None
) -> tuple[str, str]:
    """Loops of the reduction below the tile: k outside, rows and vectors unrolled inside. Gives the innermost loop
    that is not unrolled, and the loop over the neighbours that one instruction takes, with that over lanes inside; ""
    without one.
    """
    sch = group.sch
    below = list(sch.loops(block))
    below = below[below.index(at) + 1 :]
    spatial, reduce = below[: len(axes)], below[len(axes) :]
    vec, lane = sch.split(spatial[-1], [None, tile.lanes])
    unrolled = [*spatial[:-1], vec]
    near = []
    if choice is not None:
        k_out, k_in = sch.split(reduce[-1], [None, choice.group])
        reduce, near = [*reduce[:-1], k_out], [k_in]
    if tile.unroll > 1:
        k_out, k_in = sch.split(reduce[-1], [None, tile.unroll])
        reduce = [*reduce[:-1], k_out, k_in]
        sch.unroll(k_in)
    for name in reduce[:-1]:
        if tile.unroll_window and (sch.extent(name) or 99) <= 7:
            sch.unroll(name)
    sch.reorder(*reduce, *unrolled, *near, lane)
    init = sch.decompose_reduction(block, reduce[0])
    sch.vectorize(lane)
    for name in (*unrolled, *near):
        sch.unroll(name)
    start = list(sch.loops(init))
    start = start[start.index(at) + 1 :]
    sch.vectorize(start[-1])
    for name in start[:-1]:
        sch.unroll(name)
    return reduce[-2 if tile.unroll > 1 else -1], near[0] if near else ""


def _finish(group: Group, free: list[str], outer: list[str], points: list[list[int]], tile: Tile) -> None:
    """Copies of the nest for the remainders, so that every tile has constant extents, and for tiles at a border; then
    the parallel loop.

    free: the loops of axes that are not tiled; outer: the outer loops of tiled axes, outermost first; points: where
    each of these is cut, ascending.
    """
    sch = group.sch
    if tile.parallel == "first":
        sch.parallel(outer[0])
        sch.annotate(outer[0], "joined", outer[0])
    elif tile.parallel == "free":
        sch.parallel(sch.fuse(*free) if len(free) > 1 else free[0])
    elif tile.parallel == "all":
        outer[0] = sch.fuse(*free, outer[0])
        sch.parallel(outer[0])
    for name, cuts in reversed(list(zip(outer, points, strict=True))):
        for at in reversed(cuts):
            sch.partition(name, at)
