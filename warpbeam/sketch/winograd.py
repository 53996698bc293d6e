"""Sketch for matrix products between linear transforms of small tiles, one product per plane: Winograd convolution.

    planes[i, j, tile, c] = a sum of a few elements of the data, by (i, j)
    products[i, j, tile, o] = sum over c of planes[i, j, tile, c] * weights[i, j, c, o]
    result[position in tile, tile, o] = a sum of a few products, by position

A further axis in front of the tiles is one over groups of channels, each with planes and weights of its own.

Tiles may lie along one axis only: there are planes[j, …] then, and perhaps no other axis of places.

There may be another axis of places, of which each product sums over neighbours too (three dimensions: the tiles lie in
the inner two, `planes[i, j, place + tap, tile, c] * weights[i, j, tap, c, o]`).

Found by structure: one contraction with constant batch axes whose lhs is computed, and whose result is read by further
sums that no longer have those axes, the last one by (index // size, index % size). A block of tiles at a time:

    for blocks of tiles (parallel):
        transform the data: one tile and one vector of channels at a time, intermediates in registers
        for chunks of result channels:
            for planes: products by register tiles, as in the tile sketch
            transform back and finish (bias, activation, residual), one tile and vector at a time

or with chunks outside (parallel), the data transformed by a nest of its own. `cost.winograd_prior` decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import gcd
from typing import Any

from warpbeam.cost.winograd_prior import Blocks, Layer, plan, ranked
from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.ir.rewrite import post_order
from warpbeam.sketch import dot, packing, tile
from warpbeam.sketch.base import Group, Plan, expensive, extent, nth, product, supposed
from warpbeam.sketch.ragged import copies
from warpbeam.sketch.structure import Contraction, contraction, variables
from warpbeam.target import Target
from warpbeam.te.tensor import ComputeOp, Operation, loads
from warpbeam.tir.arith import poly, simplify
from warpbeam.tir.expr import FloorDiv, FloorMod, PrimExpr, Var, as_expr, const_int

_MOST_PLANES = 64
_PLANE_AXES = (1, 2)
Cutter = Callable[..., tuple[list[str], str, str, str]]  # of (group, parts, blocks, layer); see `_result`


@dataclass(slots=True)
class Parts:
    """The stages by what they do. inlined: those that become part of others. first: the stage that `planes` mixes, or
    None. sizes: results of a tile along rows and columns; apart: how far apart these lie. flat: where one axis has all
    tiles of all images, what its extent is a multiple of; else 0. groups: of channels, each with products of its own.
    """

    first: ComputeOp | None
    planes: ComputeOp
    products: ComputeOp
    roles: Contraction
    back: ComputeOp
    out: ComputeOp
    inlined: list[Operation]
    sizes: tuple[int, int]
    apart: tuple[int, int]
    flat: int = 0
    groups: int = 1

    @property
    def plane_axes(self) -> int:
        return len(self.roles.batch) - (self.groups > 1)


def fits(group: Group) -> bool:
    return find(group) is not None


def find(group: Group) -> Parts | None:
    """The group's parts, or None if it is something else."""
    heavy = [s for s in group.stages if s.kind not in ("elementwise", "injective")]
    if len(heavy) != 1 or heavy[0].kind != "contraction" or len(group.outputs) != 1 or len(heavy[0].op.body) != 1:
        return None
    op = heavy[0].op
    roles = contraction(op)
    if roles is None or not _planes_of_rows(group, op, roles):
        return None
    planes, out = roles.lhs.tensor.op, group.outputs[0].op
    assert isinstance(planes, ComputeOp) and isinstance(out, ComputeOp)
    before = _upstream(planes)
    users = group.readers[op]
    back = users[0]
    results = group.readers.get(back, [])
    if len(users) != 1 or len(results) != 1 or any(expensive(o) for o in (*before, planes)):
        return None
    flat = _whole(op.axis[-2].extent) if len(roles.m) == 1 else 0
    grouped = _grouped(results[0], back, roles)
    if len(roles.batch) - grouped not in _PLANE_AXES or (grouped and (flat or len(roles.k) > 1)):
        return None
    if product([a.extent for a in op.axis[: len(roles.batch) - grouped]]) > _MOST_PLANES:
        return None
    found = _flat_sizes(results[0], back, op, flat) if flat else _tile_sizes(results[0], back, op, roles, grouped)
    after = [s for s in group.stages if s.op not in (*before, planes, op, back)]
    if found is None or not _finishing(after, results[0], out):
        return None
    makers = [t.op for t in planes.input_tensors]
    first = makers[0] if len(makers) == 1 and isinstance(makers[0], ComputeOp) else None
    inlined: list[Operation] = [o for o in before if o is not first]
    inlined += [s.op for s in after if s.op is not out]
    groups = extent(op.axis[len(roles.batch) - 1].extent) or 1 if grouped else 1
    return Parts(first, planes, op, roles, back, out, inlined, *found, flat, groups)


def _planes_of_rows(group: Group, op: ComputeOp, roles: Contraction) -> bool:
    """Whether `op` has axes (planes…, [batch,] rows, columns, channels) or (planes…, tiles, channels), a computed lhs,
    and constant weights.
    """
    axes = [a.var for a in op.axis]
    sizes = {a.var: extent(a.extent) for a in (*op.axis, *op.reduce_axis)}
    if len(roles.m) not in (1, 2, 3, 4) or len(roles.n) != 1 or not roles.batch:
        return False
    if axes != [*roles.batch, *roles.m, *roles.n] or not _at_places(roles):
        return False
    known = [sizes[v] for v in (*roles.batch, *roles.m[1:], *roles.n, *roles.k)]
    if None in known or not isinstance(roles.lhs.tensor.op, ComputeOp) or len(group.readers.get(op, [])) != 1:
        return False
    return packing.packable(group, roles, axes[-1])


def _at_places(roles: Contraction) -> bool:
    """Whether the lhs is read at the axes' own places, of one axis in front of the tiles also at those that follow."""
    *lead, channel = roles.lhs.indices
    *taps, inner = roles.k
    if channel is not inner or len(taps) > 1 or len(lead) != len(roles.batch) + len(roles.m):
        return False
    moved = [(i, v) for i, v in zip(lead, [*roles.batch, *roles.m], strict=True) if i is not v]
    if not taps:
        return not moved
    deep = roles.m[-3] if len(roles.m) > 2 else None
    return deep is not None and [v for _, v in moved] == [deep] and moved[0][0] is simplify(deep + taps[0])


def _upstream(op: ComputeOp) -> list[ComputeOp]:
    """The stages that feed one, nearest first."""
    found: list[ComputeOp] = []
    todo: list[Operation] = [t.op for t in op.input_tensors]
    while todo:
        o = todo.pop()
        if isinstance(o, ComputeOp) and o not in found:
            found.append(o)
            todo.extend(t.op for t in o.input_tensors)
    return found


def _finishing(after: list[Any], result: ComputeOp, out: ComputeOp) -> bool:
    """Whether everything after the contraction is elementwise work on the result."""
    shape = [a.extent for a in result.axis]
    for s in after:
        if [a.extent for a in s.op.axis] != shape or (s.op is not result and s.kind != "elementwise"):
            return False
    return any(s.op is out for s in after)


def _grouped(result: ComputeOp, back: ComputeOp, roles: Contraction) -> bool:
    """Whether the last of the batch axes is one over groups: where a result reads it, its channel tells."""
    channel, last = result.axis[-1].var, len(roles.batch) - 1
    return any(r.tensor.op is back and channel in variables(r.indices[last]) for r in loads(result))


def _tile_sizes(
    result: ComputeOp, back: ComputeOp, op: ComputeOp, roles: Contraction, grouped: bool
) -> tuple[Any, Any] | None:
    """(Results of a tile along rows and columns, how far apart they lie): what the last two row axes are divided by to
    find a tile, and their rest; None where tiles are found in another way.
    """
    axes, reads = [a.var for a in result.axis], list(loads(result))
    if len(axes) != len(roles.m) + 1 or any(r.tensor.op is not op for r in loads(back)):
        return None
    for load in reads:
        if load.tensor.op is not back or not _own_channels(load.indices, axes[-1], op, len(roles.batch), grouped):
            return None
    lines = min(2, len(roles.m))  # axes with tiles
    spots = {r.indices[-1 - lines : -1] for r in reads}
    found = [_tile_of(v, index) for v, index in zip(axes[-1 - lines : -1], spots.pop(), strict=True)]
    if spots or None in found or all(f == (1, 1) for f in found):
        return None
    for f, tiles, made in zip(found, op.axis[-1 - lines : -1], result.axis[-1 - lines : -1], strict=True):
        count, results = extent(tiles.extent), extent(made.extent)
        if f == (1, 1):
            if simplify(tiles.extent) is not simplify(made.extent):
                return None
        elif f is None or count is None or results is None or count != -(-results // (f[0] * f[1])) * f[1]:
            return None
    (high, apart_high), (across, apart_across) = [(1, 1), *found][-2:]  # type: ignore[misc]
    return (high, across), (apart_high, apart_across)


def _own_channels(indices: Sequence[PrimExpr], axis: Var, op: ComputeOp, batch: int, grouped: bool) -> bool:
    """Whether the last index is a channel `axis`; where there are groups, its place in the group that is read."""
    if not grouped:
        return indices[-1] is axis and not any(axis in variables(i) for i in indices[:-1])
    group, *places, channel = indices[batch - 1 :]
    size = op.axis[-1].extent
    same = simplify(group) is simplify(axis // size) and simplify(channel) is simplify(axis % size)
    return same and not any(axis in variables(i) for i in places)


def _tile_of(axis: Var, index: PrimExpr) -> tuple[int, int] | None:
    """(size, apart) of axis // (size * apart) * apart + axis % apart, where `apart` may be 1."""
    if index is axis:
        return 1, 1
    by = {const_int(n.b) for n in post_order(index) if isinstance(n, FloorDiv) and n.a is axis}
    rests = {const_int(n.b) for n in post_order(index) if isinstance(n, FloorMod) and n.a is axis}
    whole, apart = (by or {None}).pop(), (rests or {1}).pop()
    if whole is None or apart is None or whole % apart or by or rests:
        return None
    rest = axis % apart if apart > 1 else 0
    return (whole // apart, apart) if simplify(index - axis // whole * apart - rest) is as_expr(0) else None


def _whole(size: Any) -> int:
    """The number that an open extent is rounded up to a multiple of: 8 for (n + 7) // 8 * 8; 0 for none."""
    if extent(size) is not None:
        return 0
    whole = gcd(*poly.of_expr(size).values())
    return whole if whole > 1 else 0


def _flat_sizes(result: ComputeOp, back: ComputeOp, op: ComputeOp, whole: int) -> tuple[Any, Any] | None:
    """As `_tile_sizes`, where one axis has the tiles of all images, row by row, rounded up to a multiple of `whole`."""
    axes, reads = [a.var for a in result.axis], list(loads(result))
    if any(r.tensor.op is not op for r in loads(back)) or any(r.tensor.op is not back for r in reads):
        return None
    spots = {r.indices[-2:] for r in reads}
    at, last = spots.pop()
    divided = {n.a: const_int(n.b) for n in post_order(at) if isinstance(n, FloorDiv) and n.a in axes[:-1]}
    sizes = [1, *(divided.get(v) or 1 for v in axes[:-1])]
    if spots or last is not axes[-1] or len(axes) > 4 or sizes[-2:] == [1, 1] or set(sizes[:-2]) > {1}:
        return None
    spot, count = as_expr(0), as_expr(1)
    for a, size in zip(result.axis[:-1], sizes[1:], strict=True):
        tiles = (a.extent + (size - 1)) // size
        spot, count = spot * tiles + a.var // size, count * tiles
    same = [(at, spot), (op.axis[-2].extent, (count + (whole - 1)) // whole * whole)]
    return (tuple(sizes[-2:]), (1, 1)) if all(simplify(a) is simplify(b) for a, b in same) else None


# ------------------------------------------------------------------------------------------------------------ decisions


def describe(group: Group, parts: Parts) -> Layer:
    """The extents that the prior needs."""
    op, roles = parts.products, parts.roles
    sizes = {a.var: extent(a.extent) for a in (*op.axis, *op.reduce_axis)}
    bits, choice = dt.bits(op.body[0].dtype), dot.find(group, op, roles)
    batch, deep, high, wide = [1, 1, 1, *(sizes[v] for v in roles.m)][-4:]
    if high is None:  # as many images of one row
        batch, high = None, 1
    if len(roles.m) == 3 and len(roles.k) == 1:
        batch, deep = deep, 1
    if parts.flat:  # as many images, each of as many tiles as a block may have
        batch, high, wide = supposed(op.axis[-2].extent) // parts.flat, 1, parts.flat
    return Layer(
        batch=batch,
        rows=high or 1,
        columns=wide or 1,
        inputs=sizes[roles.k[-1]] or 1,
        outputs=sizes[roles.n[0]] or 1,
        planes=product([a.extent for a in op.axis[: parts.plane_axes]]),
        lanes=max(1, group.target.vector_bits // bits) if choice is None else choice.lanes,
        bytes=bits // 8,
        group=1 if choice is None else choice.group,
        latency=4 if choice is None else choice.latency,
        places=deep or 1,
        taps=product([a.extent for a in op.reduce_axis[:-1]]),
        parts=parts.groups,
    )


def predict(group: Group) -> float | None:
    """Cycles that the prior expects on all cores with weights in memory; None where the sketch does not fit."""
    parts = find(group)
    blocks = None if parts is None else plan(describe(group, parts), group.target)
    return None if blocks is None else blocks.cycles


def build(group: Group, rank: int = 0) -> Plan:
    """Schedules the group in the blocks that the prior finds best; with `rank`, the next best that differ."""
    parts = find(group)
    assert parts is not None
    layer = describe(group, parts)
    blocks = nth(ranked(layer, group.target, rank + 1), rank) if rank else plan(layer, group.target)
    if blocks is None:
        raise ScheduleError("no block of tiles is small enough", hint="compute the plain sum")
    apply(group, parts, blocks, layer)
    others = partial(_next_best, layer, group.target)
    return Plan(group.sch.func, "winograd", decisions(blocks), cycles=blocks.cycles, others=others)


def _next_best(layer: Layer, target: Target, count: int) -> list[tuple[dict[str, Any], float]]:
    """The decisions after the best ones, each with its cycles."""
    return [(decisions(b), b.cycles) for b in ranked(layer, target, count + 1)[1:]]


def decisions(blocks: Blocks) -> dict[str, Any]:
    """What was decided, for reports."""
    order = "columns" if blocks.columns_outer else "tiles"
    return {
        "block": f"{blocks.rows}x{blocks.columns}",
        "chunk": blocks.chunk,
        "order": f"{order} outer",
        "rows": "x".join(map(str, blocks.tile.rows)),
        "vectors": f"{blocks.tile.vectors}x{blocks.tile.lanes}",
        "parallel": order if blocks.parallel else "none",
    }


# ----------------------------------------------------------------------------------------------------------- scheduling


def apply(group: Group, parts: Parts, blocks: Blocks, layer: Layer, result: Cutter | None = None) -> None:
    """Schedules with the decisions of `blocks`. result: what cuts the loops of the result, if not as here."""
    sch, lanes = group.sch, layer.lanes
    for op in parts.inlined:
        sch.compute_inline(group.blocks[op])
    cut = result or (_flat_result if parts.flat else _result)
    outer, at, chunk, vector = cut(group, parts, blocks, layer)
    _in_registers(group, parts.back, vector)
    _products(group, parts, blocks, layer, at, chunk)
    if not blocks.columns_outer:
        sch.compute_at(group.blocks[parts.planes], outer[-1])
    *ahead, piece = _transform(group, parts, None if blocks.columns_outer else outer[-1], lanes)
    if blocks.parallel and blocks.columns_outer:
        sch.parallel(sch.fuse(*ahead) if len(ahead) > 1 else ahead[0])
    if blocks.parallel and not parts.flat:
        shared = outer[:-1] if layer.columns % blocks.columns else outer
        sch.parallel(chunk if blocks.columns_outer else sch.fuse(*shared) if len(shared) > 1 else shared[0])
    for name, op in ((vector, parts.out), (piece, parts.planes)):  # the rest of the vectors apart
        channels = extent(op.axis[-1].extent) or 1
        if channels % lanes and channels > lanes and (name != vector or blocks.chunk == channels):
            sch.partition(name, channels // lanes)
    if layer.outputs % blocks.chunk:  # the rest of the chunks apart
        if blocks.parallel and blocks.columns_outer:
            sch.annotate(chunk, "joined", chunk)
        sch.partition(chunk, layer.outputs // blocks.chunk)
    if layer.columns % blocks.columns:  # the rest of a row of tiles
        for name in copies(group, outer[-1]):
            sch.partition(name, layer.columns // blocks.columns)


def _result(group: Group, parts: Parts, blocks: Blocks, layer: Layer) -> tuple[list[str], str, str, str]:
    """Cuts the result into blocks, tiles and vectors; gives the loops over blocks, the innermost loop around a block's
    products, the loops over chunks and over a chunk's vectors.
    """
    sch, block, lanes = group.sch, group.blocks[parts.out], layer.lanes
    *batch, across, channel = sch.loops(block)
    cut = [_cut(group, batch.pop(), blocks.rows, parts.sizes[0], parts.apart[0])] if batch else []
    cut.append(_cut(group, across, blocks.columns, parts.sizes[1], parts.apart[1]))
    ranges, tiles, places = (list(names) for names in zip(*cut, strict=True))
    if layer.parts > 1:
        part, chunk, vector, lane = sch.split(channel, [layer.parts, None, blocks.chunk // lanes, lanes])
        batch.append(part)
    else:
        chunk, vector, lane = sch.split(channel, [None, -(-blocks.chunk // lanes), lanes])
    outer = [*batch, *ranges]
    around = [chunk, *outer] if blocks.columns_outer else [*outer, chunk]
    sch.reorder(*around, *tiles, vector, *places, lane)
    sch.vectorize(lane)
    for name in places:
        sch.unroll(name)
    if parts.apart != (1, 1):
        sch.loop_axes(block)
    return outer, around[-1], chunk, vector


def _cut(group: Group, name: str, tiles: int, size: int, apart: int) -> tuple[str, ...]:
    """Cuts a loop over results into loops over blocks, a block's `tiles`, and the results of a tile."""
    sch = group.sch
    if apart == 1:
        tile, within = sch.split(name, [None, size], guard="kept")
    else:
        tile, within, begin = sch.split(name, [None, size, apart], guard="kept")
        sch.reorder(tile, begin, within)
        tile = sch.fuse(tile, begin)
    return (*sch.split(tile, [None, tiles]), within)


def tiled(group: Group, names: list[str], parts: Parts, lanes: int) -> str:
    """Cuts the loops over what a block has for a chunk into tiles and vectors; gives the loop over vectors."""
    sch = group.sch
    *batch, high, across, channel = names
    row, y = sch.split(high, [None, parts.sizes[0]], guard="kept")
    column, x = sch.split(across, [None, parts.sizes[1]], guard="kept")
    vector, lane = sch.split(channel, [None, lanes])
    sch.reorder(*batch, row, column, vector, y, x, lane)
    sch.vectorize(lane)
    sch.unroll(y)
    sch.unroll(x)
    return vector


def _flat_result(group: Group, parts: Parts, blocks: Blocks, layer: Layer) -> tuple[list[str], str, str, str]:
    """As `_result`, in blocks of tiles that follow each other in a map, and from one to the next."""
    sch, block, lanes = group.sch, group.blocks[parts.out], layer.lanes
    *images, channel = sch.loops(block)
    lines = [images.pop() for _ in images[-2:]][::-1]
    sizes = parts.sizes[-len(lines) :]
    cut = [sch.split(name, [None, size], guard="kept") for name, size in zip(lines, sizes, strict=True)]
    tiles, places = (list(names) for names in zip(*cut, strict=True))
    chunk, vector, lane = sch.split(channel, [None, -(-blocks.chunk // lanes), lanes])
    sch.reorder(*images, *tiles, chunk, vector, *places, lane)
    spots = [*images, *tiles]
    outer, tile = sch.split(sch.fuse(*spots) if len(spots) > 1 else spots[0], [None, blocks.columns], guard="kept")
    around = [chunk, outer] if blocks.columns_outer else [outer, chunk]
    sch.reorder(*around, tile, vector, *places, lane)
    sch.vectorize(lane)
    for name in places:
        sch.unroll(name)
    if blocks.parallel:
        sch.parallel(around[0])
    sch.loop_axes(block)
    return [outer], around[-1], chunk, vector


def _in_registers(group: Group, op: ComputeOp, at: str) -> None:
    """A stage's part for one iteration of a loop, straight through in registers."""
    sch, block = group.sch, group.blocks[op]
    sch.compute_at(block, at)
    _straight(group, block, at)
    sch.set_scope(block, "register")


def _straight(group: Group, block: str, at: str) -> None:
    """Vectors along the innermost loop, those outside of it written out."""
    names = below(group, block, at)
    for name in names[:-1]:
        group.sch.unroll(name)
    group.sch.vectorize(names[-1])


def below(group: Group, block: str, at: str) -> list[str]:
    """The loops of a block inside another loop."""
    names = list(group.sch.loops(block))
    return names[names.index(at) + 1 :]


def _products(group: Group, parts: Parts, blocks: Blocks, layer: Layer, at: str, chunk: str) -> None:
    """The products of a block with a chunk, register tiles below `at`, while the weights that come next are fetched."""
    sch, op, roles = group.sch, parts.products, parts.roles
    block = group.blocks[op]
    copy = sch.cache_write(block, "register")
    sch.compute_at(copy, at)
    axes = [a.var for a in op.axis]
    rows = list(roles.m[-2:])
    sizes: dict[Var, Any] = {a.var: a.extent for a in op.axis}
    sizes[axes[-1]] = as_expr(blocks.chunk)
    choice = dot.find(group, op, roles)
    packing.pack(group, roles, axes[-1], blocks.tile, choice)
    loops = dict(zip(axes, below(group, copy, at), strict=True))
    sizes.update(zip(rows, map(as_expr, (blocks.rows, blocks.columns)[-len(rows) :]), strict=True))
    small = replace(blocks.tile, rows=blocks.tile.rows[-len(rows) :])
    steps = tile.nest(group, tile.Variant(copy, block, loops, sizes, small), axes, rows, choice)[1]
    if blocks.columns_outer and blocks.rows * blocks.columns < layer.rows * layer.columns:
        sch.prefetch(chunk, roles.rhs.tensor.name, 1, steps)  # all blocks use these weights: the time to fetch the next
        return
    planes = [loops[v] for v in roles.batch]
    plane = sch.fuse(*planes) if len(planes) > 1 else planes[0]
    sch.prefetch(plane, roles.rhs.tensor.name, 1, steps, chunk)


def _transform(group: Group, parts: Parts, at: str | None, lanes: int) -> list[str]:
    """The transform of the data below a loop (None: on its own); gives its loops over tiles and vectors."""
    sch, block = group.sch, group.blocks[parts.planes]
    names = list(sch.loops(block)) if at is None else below(group, block, at)
    planes, tiles, channel = names[: parts.plane_axes], names[parts.plane_axes : -1], names[-1]
    vector, lane = sch.split(channel, [None, lanes])
    sch.reorder(*tiles, vector, *planes, lane)
    for name in planes:
        sch.unroll(name)
    sch.vectorize(lane)
    if parts.first is not None:
        _in_registers(group, parts.first, vector)
    sch.annotate(tiles[-1], "inside", True)
    return [*tiles, vector]
