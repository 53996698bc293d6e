"""Sketch for two products with row reductions between them (attention): the values between stay in a buffer.

    scores[row, j] = sum over d of left[row, d] * right[d, j]
    weights = elementwise work and reductions over j of scores
    result[row, c] = sum over j of weights[row, j] * values[j, c]

Found by structure: two contractions, of which the second reads as lhs what rows make of the first, axis by axis; what
feeds them is pointwise, and the result may be stored with its axes in another order. All of a row's scores are there
before the reductions begin, so these are exact.

    for batch (parallel):
        copies of right and values, turned or scaled, if they are computed
        for blocks of rows:
            scores by register tiles
            for rows: reductions, weights
            result by register tiles

`cost.chain_prior` decides how many rows a block has, and the tiles.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

from warpbeam.cost.chain_prior import Block, Blocks, Chain, plan, ranked, separate
from warpbeam.cost.tile_prior import Tile
from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.sketch import pointwise, rows, tile
from warpbeam.sketch.base import Group, Plan, expensive, extent, nth, product
from warpbeam.sketch.structure import Contraction, Stage, contraction, row_key, variables
from warpbeam.te.tensor import ComputeOp, Operation, ProducerLoad, loads
from warpbeam.tir.expr import as_expr


@dataclass(slots=True)
class Parts:
    """The stages by what they do.

    entry: what the reductions read, finished scores. weights: what the second product reads. between: the stages
    between `entry` and `weights`, both excluded, producers first. operands: those of the products that are computed
    into buffers. inlined: pointwise work that feeds any of these, or follows. order: for each axis of the second
    product, that of the result.
    """

    first: ComputeOp
    second: ComputeOp
    left: ProducerLoad
    right: ProducerLoad
    values: ProducerLoad
    entry: ComputeOp
    weights: Stage
    between: list[Stage]
    out: ComputeOp
    operands: list[Stage]
    inlined: list[Operation]
    order: list[int]


def fits(group: Group) -> bool:
    return find(group) is not None


def find(group: Group) -> Parts | None:
    """The group's parts, or None if it is something else."""
    heavy = [s for s in group.stages if s.kind not in ("elementwise", "injective")]
    ends = [s.op for s in heavy if s.kind == "contraction"]
    if len(ends) != 2 or len(group.outputs) != 1 or any(len(s.op.body) != 1 for s in group.stages):
        return None
    if len(heavy) < 3 or any(s.kind not in ("contraction", "row") for s in heavy):
        return None
    first, second = ends
    one, two = contraction(first), contraction(second)
    if one is None or two is None or not _matrices(first, one) or not _matrices(second, two):
        return None
    behind, last = _downstream(group, first), _downstream(group, second)
    out = group.outputs[0].op
    middle = [s for s in group.stages if s.op in behind and s.op not in last and s.op is not second]
    entry = _entry(group, first, middle)
    weights = next((s for s in middle if s.op is two.lhs.tensor.op and s.op is not entry), None)
    if weights is None or entry is None or two.rhs.tensor.op in behind:
        return None
    between = [s for s in middle if s is not weights and s.op in _downstream(group, entry)]
    if not _in_rows(group, first, [*between, weights]):
        return None
    order = _order(group, second, last)
    feeding = [s for s in group.stages if s.op not in behind and s.op is not first]
    read = [x.tensor.op for x in (one.lhs, one.rhs, two.rhs)]
    operands = [s for s in feeding if s.op in read and not (s.op is read[2] and _in_place(s.op))]
    if order is None or any(len(group.readers[s.op]) != 1 or read.count(s.op) != 1 for s in operands):
        return None
    kept = {first, second, entry, weights.op, out, *(s.op for s in (*between, *operands))}
    inlined = [s.op for s in group.stages if s.op not in kept]
    if any(expensive(op) for op in inlined):
        return None
    assert isinstance(out, ComputeOp)
    return Parts(first, second, one.lhs, one.rhs, two.rhs, entry, weights, between, out, operands, inlined, order)


def _matrices(op: ComputeOp, roles: Contraction) -> bool:
    """Whether a contraction is a batch of products of matrices: sizes known and not 0, operands read at plain axes, the
    lhs with rows before the sum, the rhs with columns last.
    """
    axes = [a.var for a in op.axis]
    if (len(roles.m), len(roles.n), len(roles.k)) != (1, 1, 1) or axes != [*roles.batch, *roles.m, *roles.n]:
        return False
    if not all(extent(a.extent) for a in (*op.axis, *op.reduce_axis)):
        return False
    left, right = list(roles.lhs.indices), list(roles.rhs.indices)
    plain = left[-2:] == [*roles.m, *roles.k] and right[-2:] == [*roles.k, *roles.n]
    return plain and left[:-2] == right[:-2] == list(roles.batch)


def _in_place(op: ComputeOp) -> bool:
    """Whether a stage only gives what it reads another order of rows: these are read where they lie."""
    load = op.body[0]
    return isinstance(load, ProducerLoad) and load.indices[-1] is op.axis[-1].var


def _downstream(group: Group, op: Operation) -> set[Operation]:
    """The stages that read an operation's result, directly or not."""
    found: set[Operation] = set()
    todo: list[Operation] = [op]
    while todo:
        new = [r for r in group.readers.get(todo.pop(), []) if r not in found]
        found.update(new)
        todo += new
    return found


def _entry(group: Group, first: ComputeOp, middle: list[Stage]) -> ComputeOp | None:
    """The last stage that everything behind the first product goes through, elementwise on the way."""
    kinds = {s.op: s.kind for s in middle}
    at = first
    while True:
        users = list(dict.fromkeys(group.readers.get(at, [])))
        if len(users) != 1:
            return at if users else None
        if kinds.get(users[0]) != "elementwise" or len(users[0].axis) != len(first.axis):
            return at
        at = users[0]


def _in_rows(group: Group, first: ComputeOp, stages: list[Stage]) -> bool:
    """Whether stages are reductions over the last axis of the scores, and elementwise work on these and on rows."""
    sizes = [extent(a.extent) for a in first.axis]
    rows_of, cols = tuple(sizes[:-1]), (sizes[-1],)
    for s in stages:
        own = [extent(a.extent) for a in s.op.axis]
        if s.kind == "row" and row_key(s.op) != (rows_of, cols):
            return False
        if s.kind not in ("row", "elementwise") or own not in (sizes, sizes[:-1]):
            return False
    return [extent(a.extent) for a in stages[-1].op.axis] == sizes and any(s.kind == "row" for s in stages)


def _order(group: Group, second: ComputeOp, last: set[Operation]) -> list[int] | None:
    """The axis of the result for each of the second product's; None if they are not the same in some order."""
    orders: dict[Operation, list[int]] = {second: list(range(len(second.axis)))}
    for s in group.stages:
        if s.op not in last:
            continue
        axes = [a.var for a in s.op.axis]
        if s.kind not in ("elementwise", "injective") or expensive(s.op):
            return None
        for load in loads(s.op):
            if load.tensor.op not in orders:
                if s.kind == "injective" and variables(*load.indices) - set(axes):
                    return None
                continue
            if len(set(load.indices)) != len(axes) or any(i not in axes for i in load.indices):
                return None
            below = orders[load.tensor.op]
            mine = [axes.index(load.indices[k]) for k in below]  # type: ignore[arg-type]
            if orders.setdefault(s.op, mine) != mine:
                return None
    out = group.outputs[0].op
    return orders.get(out)


# ------------------------------------------------------------------------------------------------------------ decisions


def describe(group: Group, parts: Parts) -> Chain:
    """The extents that the prior needs."""
    *batch, height, middle = [extent(a.extent) or 1 for a in parts.first.axis]
    columns = extent(parts.second.axis[-1].extent) or 1
    inner = extent(parts.first.reduce_axis[0].extent) or 1
    made = {s.op for s in parts.operands}
    dtype = parts.first.body[0].dtype
    return Chain(
        batch=product(batch),
        rows=height,
        inner=inner,
        middle=middle,
        columns=columns,
        made=(parts.left.tensor.op in made, parts.right.tensor.op in made, parts.values.tensor.op in made),
        lanes=max(1, group.target.vector_bits // dt.bits(dtype)),
        bytes=dt.nbytes(dtype),
    )


def pays(group: Group) -> bool | None:
    """Whether the prior expects one kernel to be faster than one for each product, operand and the reductions; None
    where the sketch does not fit, or its buffers the stack.
    """
    parts = find(group)
    chain = None if parts is None else describe(group, parts)
    decided = None if chain is None else plan(chain, group.target)
    return None if chain is None or decided is None else decided.cycles <= separate(chain, group.target)


def predict(group: Group) -> float | None:
    """Cycles that the prior expects on all cores; None where the sketch does not fit."""
    parts = find(group)
    decided = None if parts is None else plan(describe(group, parts), group.target)
    return None if decided is None else decided.cycles


def build(group: Group, rank: int = 0) -> Plan:
    """Schedules the group in the blocks that the prior finds best; with `rank`, the next best that differ."""
    parts = find(group)
    assert parts is not None
    chain = describe(group, parts)
    decided = nth(ranked(chain, group.target, rank + 1), rank) if rank else plan(chain, group.target)
    if decided is None:
        raise ScheduleError("no block of rows is small enough", hint="compute the products one after the other")
    apply(group, parts, decided)
    first, second = decided.whole.first, decided.whole.second
    decisions = {
        "rows": decided.whole.rows,
        "scores": f"{first.rows[0]}x{first.vectors}x{first.lanes}",
        "result": f"{second.rows[0]}x{second.vectors}x{second.lanes}",
        "parallel": "batch" if decided.parallel else "none",
    }
    notes = (f"{decided.cycles:.0f} cycles predicted",)
    return Plan(group.sch.func, "chain", decisions, notes, cycles=decided.cycles)


# ----------------------------------------------------------------------------------------------------------- scheduling


def apply(group: Group, parts: Parts, decided: Blocks) -> None:
    """Schedules with the decisions of the prior."""
    sch = group.sch
    for op in parts.inlined:
        sch.compute_inline(group.blocks[op])
    kept = rows.kept(group, parts.between, parts.weights.op)
    free, pieces = _blocks(group, parts, decided, kept)
    for stage in parts.operands:
        if stage.op is not parts.left.tensor.op:
            _operand(group, stage, free[-1] if free else None)
    for p in pieces:
        _piece(group, parts, p, kept)
    if decided.parallel:
        sch.parallel(sch.fuse(*free) if len(free) > 1 else free[0])


@dataclass(frozen=True, slots=True)
class Piece:
    """A loop over blocks of rows. scores, done: the blocks that finish the first product and the second."""

    at: str
    scores: str
    done: str
    blocks: dict[Operation, str]
    decided: Block

    def copied(self, new: dict[str, str], at: str, decided: Block) -> Piece:
        """The same in a copy with new names."""
        blocks = {op: new.get(name, name) for op, name in self.blocks.items()}
        return Piece(at, new[self.scores], new[self.done], blocks, decided)


def _blocks(group: Group, parts: Parts, decided: Blocks, kept: set[Operation]) -> tuple[list[str], list[Piece]]:
    """Cuts the rows into blocks with everything that one needs inside, a shorter last block apart; gives the loops over
    the batch and those over blocks.
    """
    sch, blocks = group.sch, group.blocks
    done, scores = blocks[parts.out], blocks[parts.entry]
    if parts.out is parts.second:
        done = sch.cache_write(blocks[parts.second], "local")
    if parts.entry is parts.first:
        scores = sch.cache_write(blocks[parts.first], "register")
    names = sch.loops(done)
    *free, height, columns = [names[k] for k in parts.order]
    at, row = sch.split(height, [None, decided.whole.rows])
    sch.reorder(*free, at, row, columns)
    between = [blocks[s.op] for s in reversed(parts.between) if s.op in kept]
    left = [blocks[s.op] for s in parts.operands if s.op is parts.left.tensor.op]
    inside = [blocks[parts.second], blocks[parts.weights.op], *between, scores, blocks[parts.first], *left]
    for name in dict.fromkeys(inside):
        sch.compute_at(name, at)
    first = Piece(at, scores, done, dict(blocks), decided.whole)
    if decided.last is None:
        return free, [first]
    _, rest, new = sch.partition(at, (extent(parts.second.axis[-2].extent) or 1) // decided.whole.rows)
    return free, [first, first.copied(new, rest, decided.last)]


def _piece(group: Group, parts: Parts, p: Piece, kept: set[Operation]) -> None:
    """One loop over blocks: scores by register tiles, reductions row by row, the result by register tiles."""
    group = copy(group)
    group.blocks = p.blocks
    for stage in parts.operands:
        if stage.op is parts.left.tensor.op:
            _operand(group, stage, p.at)
    group.sch.set_scope(p.scores, "local")
    _tiled(group, parts.first, p.scores, p, p.decided.first)
    weights = p.blocks[parts.weights.op]
    group.sch.set_scope(weights, "local")
    _, cols = row_key(next(s.op for s in parts.between if s.kind == "row"))
    between = [s for s in parts.between if s.op in kept]
    rows.below(group, parts.weights, between, group.sch.loops(weights)[-2], cols)
    _tiled(group, parts.second, p.done, p, p.decided.second)


def _tiled(group: Group, op: ComputeOp, out: str, p: Piece, shape: Tile) -> None:
    """A product of a block's rows in register tiles, finished by the block `out`."""
    names = group.sch.loops(out)
    axes = [a.var for a in op.axis]
    loops = dict(zip(axes[-2:], names[-2:], strict=True))
    sizes = {axes[-2]: as_expr(p.decided.rows), axes[-1]: op.axis[-1].extent}
    tile.nest(group, tile.Variant(out, p.blocks[op], loops, sizes, shape), axes, [axes[-2]], None)


def _operand(group: Group, stage: Stage, at: str | None) -> None:
    """A computed operand in a buffer of its own, for a block of rows or for one of the batch."""
    sch, block = group.sch, group.blocks[stage.op]
    if at is not None:
        sch.compute_at(block, at)
    sch.set_scope(block, "local")
    pointwise.copy(group, stage, at)
