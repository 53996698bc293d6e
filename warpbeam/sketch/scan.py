"""Sketch for recurrences: one loop over time, everything of a step inside it.

    for the independent part of the batch (parallel):
        for time:
            state before = …                       a row on the stack
            for tiles of rows x vectors of units:
                acc[products][rows][vectors] = 0   registers
                for k: acc += state[rows, k] * weights[k, vectors]
                new state = arithmetic of acc      gates, straight from registers

A step is small, so threads are not started in it: whole sequences run beside each other where batch or directions let
them. Constant weights are laid out as [panel][k][product][unit in panel], so that a step reads them once, in order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import product as cartesian
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import LowerError, ScheduleError
from warpbeam.sketch import dot, pieces, pointwise, ragged, scan_walk
from warpbeam.sketch.base import Group, Plan, expensive, extent, product
from warpbeam.sketch.dot import DotChoice
from warpbeam.sketch.scan_walk import Walk
from warpbeam.sketch.structure import Contraction, Stage, contraction
from warpbeam.te.operation import ComputeOp, Operation, PlaceholderOp, ScanOp, Tensor, loads, operations
from warpbeam.te.recurrence import Scan, find_scans
from warpbeam.tir.expr import IntImm, Var, as_expr, const_int

_FORK_WORK = 1 << 19  # multiply-adds of a whole scan from which threads pay
_ACCUMULATORS = 26
_UNKNOWN_ROWS = 8


@dataclass(slots=True)
class Nest:
    """One nest of loops of a step: `op` computes what is stored, `products` are accumulated in its tiles.

    axes: the axes besides time; the last one runs in vectors, the one before it gives the tile's rows. dots: of
    products that the target has an instruction for, products of bytes.
    """

    op: ComputeOp
    products: list[ComputeOp]
    axes: list[Any]
    dots: dict[ComputeOp, DotChoice] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tile:
    """rows x vectors of `lanes` that are accumulated at once."""

    rows: int
    vectors: int
    lanes: int

    @property
    def panel(self) -> int:
        return self.vectors * self.lanes


def fits(group: Group) -> bool:
    return any(isinstance(op, ScanOp) for op in operations(list(group.outputs)))


def build(group: Group) -> Plan:
    try:
        return _build(group, True)
    except (ScheduleError, LowerError) as error:
        group.restart()
        plan = _build(group, False)
        return replace(plan, notes=(*plan.notes, f"sequences stay together: {error.what}"))


def _build(group: Group, apart: bool) -> Plan:
    """apart: whether independent sequences may be taken out of the loop over time."""
    scans = find_scans(operations(list(group.outputs)), list(group.inputs), list(group.outputs))
    inside = {op for s in scans for op in s.inner} | {t.op for s in scans for t in s.op.init}
    decisions: dict[str, Any] = {}
    notes: list[str] = []
    for scan in scans:
        _schedule_scan(group, scan, apart, decisions, notes)
    for stage in group.stages:
        if stage.op not in inside:
            _outside(group, stage)
    return Plan(group.sch.func, "scan", decisions, tuple(notes))


def plain(group: Group) -> Plan:
    """The loops as they are, for what this sketch cannot schedule."""
    return Plan(group.sch.func, "generic", {}, ("plain loops over time",))


def _outside(group: Group, stage: Stage) -> None:
    """Work before and after the loop over time: a nest of its own."""
    if stage.kind not in ("elementwise", "injective") or not stage.op.axis:
        return
    if None in [extent(a.extent) for a in stage.op.axis]:
        block = group.blocks[stage.op]
        _vectors(group, block, group.sch.loops(block)[-1], pieces.lanes_of(group, stage.op))
    else:
        pointwise.nest(group, stage)


def _schedule_scan(group: Group, scan: Scan, apart: bool, decisions: dict[str, Any], notes: list[str]) -> None:
    nests = _nests(group, scan)
    for op in scan.inner:
        if op not in {n.op for n in nests} and not op.reduce_axis:
            group.sch.compute_inline(group.blocks[op])
    time = group.sch.loops(group.blocks[nests[-1].op])[0]
    outer = _take_out(group, scan, nests) if apart else None
    beside = outer is not None and group.target.cores > 1 and _pays(_work(scan, nests))
    walk = scan_walk.choose(group, scan, nests, time, outer is not None, beside)
    tiles = _tiles(group, nests, group.target.cores if walk.shared else 1)
    near = [found for n in nests for found in _nest(group, n, tiles[n.op], walk)]
    _pack(group, nests, tiles)
    for loop, choice in near:
        dot.tensorize(group, ragged.copies(group, loop), choice)
    for n in nests:
        _kept_on_stack(group, scan, n)
    if outer is not None and beside:
        group.sch.parallel(outer)
        notes.append("independent sequences in parallel")
    if walk.shared:
        notes.append("the panels of a step in parallel")
    if walk.time:
        notes.append("panels to and fro")
    for n in nests:
        if n.products:
            t = tiles[n.op]
            decisions[group.blocks[n.op]] = f"{t.rows} rows x {t.vectors} vectors of {t.lanes}, {len(n.products)} sums"


# ------------------------------------------------------------------------------------------------------------ structure


def _nests(group: Group, scan: Scan) -> list[Nest]:
    """The nests of a step: what is read by sums, what is stored, what is read twice and dear; sums go to their reader.

    A sum with several readers is a nest by itself.
    """
    inner = set(scan.inner)
    found: list[Nest] = []
    for op in scan.inner:
        readers = [u for u in dict.fromkeys(group.readers.get(op, [])) if u in inner]
        if op.reduce_axis and len(readers) == 1 and not readers[0].reduce_axis and _same_tile(op, readers[0], scan):
            continue
        kept = (
            op.reduce_axis
            or any(t.op is op for t in scan.op.update)
            or any(u.reduce_axis for u in readers)
            or len(op.body) > 1
            or (len(readers) > 1 and expensive(op))
        )
        if kept:
            found.append(Nest(op, [], [a for a in op.axis if a is not scan.times[op]]))
    owner = {n.op: n for n in found}
    for op in scan.inner:
        if op not in owner and op.reduce_axis:
            owner[_reader(group, op, inner)].products.append(op)
    for nest in found:
        chosen = {p: dot.find(group, p, contraction(p)) for p in nest.products}
        nest.dots = {p: c for p, c in chosen.items() if c is not None}
    return found


def _reader(group: Group, op: ComputeOp, inner: set[Any]) -> ComputeOp:
    return next(u for u in group.readers[op] if u in inner)


def _same_tile(op: ComputeOp, reader: ComputeOp, scan: Scan) -> bool:
    """Whether the reader needs of a sum what lies at its own place: the sum can then be made in the reader's tiles."""
    stored = any(t.op is reader for t in scan.op.update)
    own = [a.var for a in reader.axis]
    for load in loads(reader):
        if load.tensor.op is op and not all(i in own or isinstance(i, IntImm) for i in load.indices):
            return False
        if load.tensor.op is op and load.indices[-1] is not own[-1]:
            return False
    return stored or len(reader.body) == 1


def _sums(op: ComputeOp) -> int:
    """How many sums of one product stand beside each other at one place of the reader (the gates)."""
    roles = contraction(op)
    if roles is None:
        return 1
    return product([a.extent for a in op.axis[:-1] if a.var in roles.n])


def _work(scan: Scan, nests: list[Nest]) -> int | None:
    """Multiply-adds of the whole scan; None where sizes are symbolic."""
    total = 0
    for op in (p for n in nests for p in n.products):
        sizes = [extent(a.extent) for a in (*op.axis, *op.reduce_axis)]
        if None in sizes:
            return None
        total += product(sizes)
    return total


def _pays(work: int | None) -> bool:
    """Whether threads are worth starting; many steps are expected where their number is open."""
    return work is None or work >= _FORK_WORK


# ----------------------------------------------------------------------------------------------------------------- tile


def _tiles(group: Group, nests: list[Nest], cores: int) -> dict[Operation, Tile]:
    """The tile of each nest. Nests with sums have panels of one width, since they may share weights."""
    tiles: dict[Operation, Tile] = {n.op: _choose(group, n, cores) for n in nests}
    summing = [n for n in nests if n.products]
    if len({tiles[n.op].panel for n in summing}) > 1:
        vectors = min(tiles[n.op].vectors for n in summing)
        tiles.update({n.op: _choose(group, n, cores, vectors) for n in summing})
    return tiles


def _choose(group: Group, nest: Nest, cores: int, vectors: int | None = None) -> Tile:
    """The tile with the fewest cycles of a step: multiply-adds, loads, latency, weights from the second-level cache,
    cores that have no panel.
    """
    bits = max(dt.bits(b.dtype) for p in (nest.op, *nest.products) for b in p.body)
    lanes = max(1, group.target.vector_bits // max(8, bits))
    columns = extent(nest.axes[-1].extent) or lanes
    while lanes > 1 and lanes // 2 >= columns:
        lanes //= 2
    if not nest.products:
        return Tile(1, 1, lanes)
    sums = max(_sums(p) for p in nest.products)
    held = sum(_sums(p) for p in nest.products)
    known = _rows(group, nest)
    rows = known or _UNKNOWN_ROWS
    depth = product([a.extent for a in nest.products[0].reduce_axis])
    stored = _weight_bytes(nest, bits // 8)
    weights = held * depth * columns * stored
    if len(nest.dots) == len(nest.products):  # one instruction for several steps
        group_of = nest.dots[nest.products[0]].group
        depth, stored = depth // group_of, stored * group_of
    resident = weights * product([a.extent for a in nest.axes[:-2]], 1) <= group.target.l1 // 2
    best: tuple[float, int, int] | None = None
    for r, v in cartesian(range(1, min(rows, 8) + 1), range(1, min(8, -(-columns // lanes)) + 1)):
        if vectors is not None and v != vectors:
            continue
        if r * v * held > _ACCUMULATORS and (r > 1 or v > 1):
            continue
        tiles = -(-columns // (v * lanes))
        last = -(-columns // lanes) - (tiles - 1) * v
        cost = 0.0
        heights = [(r, rows // r), (rows % r, 1 if rows % r else 0)]
        if known is None:  # what fills no tile goes row by row; a single row is the likeliest of all
            heights = [(r, rows // r), (1, rows % r + _UNKNOWN_ROWS // 2)]
        for height, count in heights:
            for width, many in ((v, tiles - 1), (last, 1)):
                fma, loaded = height * width * sums / 2, (width * sums + height) / 2
                memory = 0.0 if resident else width * sums * lanes * stored / group.target.l2_rate
                cost += count * many * (max(fma, loaded, memory, 4.0) * depth + 20)
        cost *= -(-tiles // cores) * cores / tiles
        key = (round(cost, 1), v, r)
        best = key if best is None or key < best else best
    assert best is not None
    return Tile(best[2], best[1], lanes)


def _weight_bytes(nest: Nest, usual: int) -> int:
    """Bytes of one weight as it lies in memory."""
    roles = [contraction(p) for p in nest.products]
    return max((dt.nbytes(r.rhs.dtype) for r in roles if r is not None), default=usual)


def _rows(group: Group, nest: Nest) -> int | None:
    """How many rows one pass over the columns has; None where that is open."""
    return group.sch.extent(group.sch.loops(group.blocks[nest.op])[-2]) if len(nest.axes) > 1 else 1


# ------------------------------------------------------------------------------------------------------ loops of a step


def _nest(group: Group, nest: Nest, tile: Tile, walk: Walk) -> list[tuple[str, DotChoice]]:
    """Tiles of one nest, its sums inside them, remainders apart. Gives the loops over what one instruction takes."""
    sch, block = group.sch, group.blocks[nest.op]
    if nest.op.reduce_axis:
        pieces.reduction(group, block, nest.op)
        return []
    if not nest.products:
        _vectors(group, block, sch.loops(block)[-1], tile.lanes)
        return []
    names = sch.loops(block)
    column = names[-1]
    row = names[-2] if len(nest.axes) > 1 else None
    variants = [(block, row, column, tile.rows, [group.blocks[p] for p in nest.products])]
    size = None if row is None else sch.extent(row)
    if row is not None and tile.rows > 1 and (size is None or size % tile.rows):
        rest = _cut(group, variants[0], tile.rows)
        variants += rest
    return [found for v in variants for found in _tile(group, nest, v, tile, walk)]


def _cut(group: Group, whole: Any, rows: int) -> list[Any]:
    """The rows that fill no tile, with sums of their own: one shorter tile where their number is known."""
    sch = group.sch
    block, row, column, _, sums = whole
    size = sch.loop(row).extent
    known = const_int(size)
    if known is not None and known < rows:
        return []
    _, second, new = sch.partition(row, as_expr(size) // rows * rows if known is None else known // rows * rows)
    copies = [sch.clone(s, new[block]) for s in sums]
    return [(new[block], second, new[column], 1 if known is None else known % rows, copies)]


def _tile(group: Group, nest: Nest, variant: Any, tile: Tile, walk: Walk) -> list[tuple[str, DotChoice]]:
    """The tiles of a variant; gives the loops over what one instruction takes."""
    sch = group.sch
    _, row, column, rows, sums = variant
    outer, vec, lane = sch.split(column, [None, tile.vectors, tile.lanes])
    inner = [vec]
    if row is not None:
        row_outer, row_inner = sch.split(row, [None, rows])
        sch.reorder(outer, row_outer, row_inner, vec, lane)
        inner = [row_inner, vec]
    at = row_outer if row is not None else outer
    for s in sums:
        sch.compute_at(s, at)
    near = []
    for s, op in zip(sums, nest.products, strict=True):
        loop = _accumulate(group, s, op, at, tile, nest.dots.get(op))
        near += [(loop, nest.dots[op])] if loop else []
        sch.set_scope(s, "register")
    sch.vectorize(lane)
    for name in inner:
        sch.unroll(name)
    size = extent(nest.axes[-1].extent)
    if size is None or (size % tile.panel and size > tile.panel):
        sch.partition(outer, as_expr(nest.axes[-1].extent) // tile.panel if size is None else size // tile.panel)
    if sch.extent(outer) != 1:
        scan_walk.apply(group, outer, walk)
    return near


def _accumulate(group: Group, block: str, op: ComputeOp, at: str, tile: Tile, choice: DotChoice | None) -> str:
    """The loops of a sum within a tile: depth outside, products, rows and vectors unrolled. Gives the loop over what
    one instruction takes, "" without one.
    """
    sch = group.sch
    names = sch.loops(block)
    below = names[names.index(at) + 1 :]
    count = len(op.reduce_axis)
    spatial, depth = below[:-count], below[-count:]
    vec, lane = sch.split(spatial[-1], [None, tile.lanes])
    unrolled, near = [*spatial[:-1], vec], []
    sch.reorder(*depth, *unrolled, lane)
    if choice is not None:
        outer, inner = sch.split(depth[-1], [None, choice.group])
        sch.reorder(*unrolled, inner)
        depth, near = [*depth[:-1], outer], [inner]
    init = sch.decompose_reduction(block, depth[0])
    sch.vectorize(lane)
    start = sch.loops(init)
    start = start[start.index(at) + 1 :]
    sch.vectorize(start[-1])
    for name in (*unrolled, *near, *start[:-1]):
        sch.unroll(name)
    return near[0] if near else ""


def _vectors(group: Group, block: str, loop: str, lanes: int) -> None:
    """A pointwise loop in vectors; a rest of known size is a shorter vector."""
    sch = group.sch
    size = sch.extent(loop)
    if lanes < 2 or (size is not None and size < 2):
        return
    outer, lane = sch.split(loop, [None, lanes])
    sch.vectorize(lane)
    if size is not None and size % lanes and size > lanes:
        sch.partition(outer, size // lanes)


def _kept_on_stack(group: Group, scan: Scan, nest: Nest) -> None:
    """What only one step needs lives on the stack where it is small."""
    if any(t.op is nest.op for t in scan.op.update) or len(nest.op.body) > 1:
        return
    sizes = [extent(a.extent) for a in nest.axes]
    if None not in sizes and product(sizes) * dt.nbytes(nest.op.body[0].dtype) <= 32 * 1024:
        group.sch.set_scope(group.blocks[nest.op], "local")


# ------------------------------------------------------------------------------------------------------ whole sequences


def _take_out(group: Group, scan: Scan, nests: list[Nest]) -> str | None:
    """Takes loops that a step's whole body shares out of the loop over time; gives the outermost, None without one.

    All leading axes but that of rows, and parts of the rows where cores would else be idle.
    """
    sch = group.sch
    blocks = [b for n in nests for b in [*(group.blocks[p] for p in n.products), group.blocks[n.op]]]
    sizes = [[extent(a.extent) for a in n.axes] for n in nests]
    depth = min(len(s) for s in sizes)
    if depth < 2 or any(n.op.reduce_axis for n in nests):
        return None
    time, lead = sch.loops(blocks[-1])[0], 0
    while lead < depth - 2 and all(s[lead] == sizes[0][lead] is not None for s in sizes):
        lead += 1
    parts, rows = 0, {s[lead] for s in sizes}
    have = product(sizes[0][:lead])
    if lead == depth - 2 and len(rows) == 1 and have < group.target.cores and _pays(_work(scan, nests)):
        parts = _parts(next(iter(rows)), -(-group.target.cores // have))
    wide = [k for k in range(lead) if sizes[0][k] != 1]
    names = {b: sch.loops(b)[1 : lead + 2] for b in blocks}
    out = [sch.merge(*(names[b][k] for b in blocks)) for k in wide if wide == list(range(lead))]
    if parts > 1 and len(out) == len(wide):
        count = next(iter(rows))
        assert count is not None
        first: list[str] = []
        for b in blocks:
            part, rest = sch.split(names[b][lead], [None, count // parts])
            if lead and not out:
                sch.reorder(part, *names[b][:lead], rest)
            first.append(part)
        out.append(sch.merge(*first))
    if not out:
        return None
    sch.reorder(*out, time)
    return sch.fuse(*out) if len(out) > 1 else out[0]


def _parts(rows: int | None, wanted: int) -> int:
    """Into how many equal parts rows are cut, at least `wanted`; 0 where they cannot."""
    if rows is None:
        return 0
    return next((p for p in range(wanted, 2 * wanted + 1) if rows % p == 0 and rows // p >= 2), 0)


# -------------------------------------------------------------------------------------------------------------- weights


def _pack(group: Group, nests: list[Nest], tiles: dict[Operation, Tile]) -> None:
    """Asks for constant weights as [..][panel][depth][products][column in panel]."""
    wanted: dict[Tensor, list[tuple[Contraction, Tile]]] = {}
    groups: dict[Tensor, set[int]] = {}
    for n in nests:
        for p in n.products:
            roles = contraction(p)
            if roles is not None and isinstance(roles.rhs.tensor.op, PlaceholderOp):
                wanted.setdefault(roles.rhs.tensor, []).append((roles, tiles[n.op]))
                choice = n.dots.get(p)
                groups.setdefault(roles.rhs.tensor, set()).add(1 if choice is None else choice.group)
    for tensor, uses in wanted.items():
        if tensor.op.name not in group.constants or len({t.panel for _, t in uses}) != 1:
            continue
        order = _order(uses)
        if order is not None and len(groups[tensor]) == 1:
            group.sch.transform_layout(tensor.op.name, _panels(*order, uses[0][1].panel, *groups[tensor]))


def _panels(
    lead: list[int], depth: list[int], beside: list[int], last: int, panel: int, near: int
) -> Callable[..., Any]:
    """near: steps of depth that one instruction takes, which lie side by side."""

    def layout(*i: Any) -> tuple[Any, ...]:
        steps = [i[k] for k in depth]
        within = [] if near == 1 else [steps[-1] % near]
        steps[-1] = steps[-1] if near == 1 else steps[-1] // near
        return (*[i[k] for k in lead], i[last] // panel, *steps, *[i[k] for k in beside], i[last] % panel, *within)

    return layout


def _order(uses: list[tuple[Contraction, Tile]]) -> tuple[list[int], list[int], list[int], int] | None:
    """Dimensions of the weights by role: in front, summed, beside each other in a tile, and the one in vectors."""
    found: set[tuple[Any, ...]] = set()
    for roles, _ in uses:
        indices = roles.rhs.indices
        last = [k for k, i in enumerate(indices) if i is roles.n[-1]]
        depth = [k for k, i in enumerate(indices) if i in roles.k]
        beside = [k for k, i in enumerate(indices) if isinstance(i, Var) and i in roles.n[:-1]]
        if len(last) != 1 or not depth or not all(isinstance(i, Var | IntImm) for i in indices):
            return None
        lead = [k for k in range(len(indices)) if k not in (*last, *depth, *beside)]
        found.add((tuple(lead), tuple(depth), tuple(beside), last[0]))
    if len(found) != 1:
        return None
    lead_, depth_, beside_, last_ = next(iter(found))
    return list(lead_), list(depth_), list(beside_), last_


__all__ = ["build", "fits"]
