"""Sketch for products that follow each other, a block of rows at a time: what lies between stays in a buffer.

    scores[row, j] = sum over d of left[row, d] * right[d, j]
    weights = elementwise work and reductions over j of scores
    result[row, c] = sum over j of weights[row, j] * values[j, c]

Found by structure: contractions of which each reads as lhs, row by row, what is made of the one before: elementwise
work, or reductions of rows. What feeds them is pointwise (rows of the first product may be computed on the way in), and
the result may be stored with its axes in another order. All of a row is there before its reductions begin, so these are
exact. Attention is such a chain, and so is a perceptron with small layers; one product alone is, if its rows are made.

    for batch (parallel):
        copies of right operands that are computed (turned, scaled)
        for blocks of rows (parallel, if there is no batch):
            rows of the first product, if they are computed
            first product by register tiles
            for rows: reductions
            next product by register tiles

`cost.chain_prior` decides how many rows a block has, and the tiles.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from warpbeam.cost import chain_prior
from warpbeam.cost.chain_prior import Block, Blocks, Chain, Product, plan, ranked
from warpbeam.cost.tile_prior import Tile
from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import post_order
from warpbeam.sketch import dot, pointwise, rows, tile
from warpbeam.sketch.base import Group, Plan, expensive, extent, nth, product
from warpbeam.sketch.structure import Stage, contraction, row_key, variables
from warpbeam.sketch.tile_shape import flat_strides
from warpbeam.target import Target
from warpbeam.te.tensor import ComputeOp, Operation, PlaceholderOp, ProducerLoad, loads
from warpbeam.tir.expr import Add, FloorDiv, FloorMod, Sub, as_expr, const_int


@dataclass(slots=True)
class Link:
    """One product of the chain, and what is done to its result before the next one reads it.

    done: the stage that finishes the product, by elementwise work. reduced: the reductions of rows that follow and the
    values they need, producers first; ready: the stage that is then read. batched: whether the right operand differs
    within the batch; turned: whether its columns are its rows in memory.
    """

    op: ComputeOp
    left: ProducerLoad
    right: ProducerLoad
    batched: bool
    turned: bool
    done: ComputeOp
    reduced: list[Stage]
    ready: Stage | None = None


@dataclass(slots=True)
class Parts:
    """The stages by what they do.

    operands: those of the products that are computed into buffers. inlined: pointwise work that feeds any of these, or
    follows. order: for each axis of the last product, that of the result.
    """

    links: list[Link]
    out: ComputeOp
    operands: list[Stage]
    inlined: list[Operation]
    order: list[int]

    def is_left(self, stage: Stage) -> bool:
        """Whether a stage makes the rows of the first product."""
        return stage.op is self.links[0].left.tensor.op


def fits(group: Group) -> bool:
    """Whether the group is such a chain, and a block's buffers fit the stack."""
    parts = find(group)
    return parts is not None and plan(describe(group, parts), group.target) is not None


def slides(op: Operation) -> bool:
    """Whether a sum reads somewhere at a place where an axis of its result and one that it sums over are added up, as a
    window does: it is no product of matrices, nor becomes one when axes are joined or taken apart.
    """
    if not isinstance(op, ComputeOp) or not op.reduce_axis:
        return False
    own = {a.var for a in op.axis if extent(a.extent) != 1}
    summed = {a.var for a in op.reduce_axis if extent(a.extent) != 1}
    for index in (i for load in loads(op) for i in load.indices if type(i) in (Add, Sub)):
        below = list(post_order(index))
        both = not own.isdisjoint(below) and not summed.isdisjoint(below)
        if both and not any(isinstance(n, FloorDiv | FloorMod) for n in below):
            return True
    return False


def find(group: Group) -> Parts | None:
    """The group's parts, or None if it is something else."""
    heavy = [s for s in group.stages if s.kind not in ("elementwise", "injective")]
    ends = [s.op for s in heavy if s.kind == "contraction"]
    if not ends or len(group.outputs) != 1 or any(len(s.op.body) != 1 for s in group.stages):
        return None
    if any(s.kind not in ("contraction", "row") for s in heavy):
        return None
    found = [_link(group, op) for op in ends]
    links = [x for x in found if x is not None]
    if len(links) < len(ends) or not all(_joined(group, a, b) for a, b in pairwise(links)):
        return None
    behind, last = _downstream(group, ends[0]), _downstream(group, ends[-1])
    order, out = _order(group, ends[-1], last), group.outputs[0].op
    if order is None or order[-1] != len(order) - 1:  # tiles are written as vectors of columns
        return None
    read = [links[0].left.tensor.op, *(x.right.tensor.op for x in links)]
    feeding = [s for s in group.stages if s.op not in behind and s.op is not ends[0]]
    lone = read[0] if len(links) == 1 else None  # it is a chain for what makes its rows
    operands = [s for s in feeding if s.op in read and (s.op is lone or not _in_place(s.op))]
    if any(len(group.readers[s.op]) != 1 or read.count(s.op) != 1 for s in operands):
        return None
    if any(op in behind for op in read) or (len(links) == 1 and read[0] not in [s.op for s in operands]):
        return None
    kept = {out, *(s.op for s in operands)}
    for x in links:
        kept |= {x.op, x.done, *(s.op for s in x.reduced), *([x.ready.op] if x.ready else [])}
    inlined: list[Operation] = [s.op for s in group.stages if s.op not in kept]
    if any(expensive(s.op) for s in (*feeding, *(t for t in group.stages if t.op in inlined and t.op not in last))):
        return None
    assert isinstance(out, ComputeOp)
    return Parts(links, out, operands, inlined, order)


def _link(group: Group, op: ComputeOp) -> Link | None:
    """A product of matrices, of each of a batch: sizes known and not 0, operands read at plain axes, the lhs with rows
    before the sum, the rhs with columns last, or a constant with columns first. None if it is something else, or by
    itself would be computed by dot products.
    """
    roles, axes = contraction(op), [a.var for a in op.axis]
    if roles is None or not roles.m or (len(roles.n), len(roles.k)) != (1, 1) or axes[-2:] != [roles.m[-1], *roles.n]:
        return None
    if not all(extent(a.extent) for a in (*op.axis, *op.reduce_axis)) or dot.find(group, op, roles) is not None:
        return None
    left, right = list(roles.lhs.indices), list(roles.rhs.indices)
    free, maker = right[:-2], roles.rhs.tensor.op
    constant = isinstance(maker, PlaceholderOp) and maker.name in group.constants
    turned = constant and right == [*roles.n, *roles.k]
    if left != [*axes[:-1], *roles.k] or (right[-2:] != [*roles.k, *roles.n] and not turned):
        return None
    if free != [v for v in axes[:-2] if v in free]:
        return None
    return Link(op, roles.lhs, roles.rhs, bool(free), turned, op, [])


def _joined(group: Group, a: Link, b: Link) -> bool:
    """Whether product `b` reads as lhs what becomes of product `a` row by row; notes in `a` by what stages."""
    behind = _downstream(group, a.op)
    middle = [s for s in group.stages if s.op in behind and s.op not in _downstream(group, b.op) and s.op is not b.op]
    maker = b.left.tensor.op
    if [extent(x.extent) for x in a.op.axis[:-1]] != [extent(x.extent) for x in b.op.axis[:-1]]:
        return False
    if maker is a.op and not middle:
        return True
    ready = next((s for s in middle if s.op is maker), None)
    if ready is None:
        return False
    if all(s.kind == "elementwise" and len(s.op.axis) == len(a.op.axis) for s in middle):
        a.done = ready.op
        return True
    entry = _entry(group, a.op, middle)
    if entry is None or entry is ready.op:
        return False
    a.done, a.ready = entry, ready
    a.reduced = [s for s in middle if s is not ready and s.op in _downstream(group, entry)]
    return _in_rows(a.op, [*a.reduced, ready])


def _in_place(op: ComputeOp) -> bool:
    """Whether a stage only gives what it reads another order of rows: a product reads these where they lie."""
    load = op.body[0]
    if not isinstance(load, ProducerLoad) or not isinstance(load.tensor.op, PlaceholderOp):
        return False
    return load.indices[-1] is op.axis[-1].var


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
    """The last stage that everything behind a product goes through, elementwise on the way."""
    kinds = {s.op: s.kind for s in middle}
    at = first
    while True:
        users = list(dict.fromkeys(group.readers.get(at, [])))
        if len(users) != 1:
            return at if users else None
        if kinds.get(users[0]) != "elementwise" or len(users[0].axis) != len(first.axis):
            return at
        at = users[0]


def _in_rows(op: ComputeOp, stages: list[Stage]) -> bool:
    """Whether stages are reductions over the last axis of a product, and elementwise work on these and on rows."""
    sizes = [extent(a.extent) for a in op.axis]
    rows_of, cols = tuple(sizes[:-1]), (sizes[-1],)
    for s in stages:
        own = [extent(a.extent) for a in s.op.axis]
        if s.kind == "row" and row_key(s.op) != (rows_of, cols):
            return False
        if s.kind not in ("row", "elementwise") or own not in (sizes, sizes[:-1]):
            return False
    return [extent(a.extent) for a in stages[-1].op.axis] == sizes and any(s.kind == "row" for s in stages)


def _order(group: Group, op: ComputeOp, last: set[Operation]) -> list[int] | None:
    """The axis of the result for each of the last product's; None if they are not the same in some order."""
    orders: dict[Operation, list[int]] = {op: list(range(len(op.axis)))}
    for s in group.stages:
        if s.op not in last:
            continue
        axes = [a.var for a in s.op.axis]
        if s.kind not in ("elementwise", "injective"):
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
    return orders.get(group.outputs[0].op)


# ------------------------------------------------------------------------------------------------------------ decisions


def describe(group: Group, parts: Parts) -> Chain:
    """The extents that the prior needs."""
    first = parts.links[0].op
    *batch, height, _ = [extent(a.extent) or 1 for a in first.axis]
    made = [s.op for s in parts.operands]
    dtype = first.body[0].dtype
    products = [
        Product(
            inner=extent(x.op.reduce_axis[0].extent) or 1,
            columns=extent(x.op.axis[-1].extent) or 1,
            made=x.right.tensor.op in made,
            shared=not x.batched,
            reduced=bool(x.reduced),
            moved=_moved(group, x.right.tensor.op),
        )
        for x in parts.links
    ]
    return Chain(
        batch=product(batch),
        rows=height,
        made=any(parts.is_left(s) for s in parts.operands),
        products=tuple(products),
        lanes=max(1, group.target.vector_bits // dt.bits(dtype)),
        bytes=dt.nbytes(dtype),
        moved=_moved(group, parts.links[0].left.tensor.op),
        row_bytes=0 if any(parts.is_left(s) for s in parts.operands) else _row_bytes(group, parts.links[0]),
    )


def _row_bytes(group: Group, first: Link) -> int:
    """Bytes between rows of the first product that are read where they lie; 0 where that is not constant."""
    load, row = first.left, first.op.axis[-2].var
    maker = load.tensor.op
    if isinstance(maker, ComputeOp):  # a permutation of them
        (read,) = maker.body
        assert isinstance(read, ProducerLoad)
        load, row = read, maker.axis[-2].var
    strides = flat_strides(load, [row])
    return (0 if strides is None else const_int(strides[row]) or 0) * dt.nbytes(load.dtype)


def _moved(group: Group, op: Operation) -> bool:
    """Whether an operand is computed from elements that lie in another order."""
    moves = [s.op for s in group.stages if s.kind == "injective"]
    todo = [op]
    while todo:
        at = todo.pop()
        if at in moves:
            return True
        todo += [t.op for t in at.input_tensors] if isinstance(at, ComputeOp) else []
    return False


def pays(group: Group) -> bool | None:
    """Whether the prior expects one kernel to be faster than one for each product, operand and the reductions; None
    where the sketch does not fit, or its buffers the stack.
    """
    parts = find(group)
    return None if parts is None else chain_prior.pays(describe(group, parts), group.target)


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
    assert decided is not None  # it fits
    apply(group, parts, decided)
    others = partial(_next_best, chain, group.target)
    return Plan(group.sch.func, "chain", _decisions(decided), cycles=decided.cycles, others=others)


def _decisions(decided: Blocks) -> dict[str, Any]:
    """What was decided, for reports."""
    tiles = [f"{t.rows[0]}x{t.vectors}x{t.lanes}" for t in decided.whole.tiles]
    return {"rows": decided.whole.rows, "tiles": ", ".join(tiles), "parallel": decided.parallel}


def _next_best(chain: Chain, target: Target, count: int) -> list[tuple[dict[str, Any], float]]:
    """The decisions after the best ones, each with its cycles."""
    return [(_decisions(b), b.cycles) for b in ranked(chain, target, count + 1)[1:]]


# ----------------------------------------------------------------------------------------------------------- scheduling


@dataclass(frozen=True, slots=True)
class Piece:
    """A loop over blocks of rows. done: the block that finishes each product; sums: that which copies its sums before,
    or ""; blocks: those of all stages.
    """

    at: str
    done: list[str]
    sums: list[str]
    blocks: dict[Operation, str]
    decided: Block

    def copied(self, new: dict[str, str], at: str, decided: Block) -> Piece:
        """The same in a copy with new names."""
        blocks = {op: new.get(name, name) for op, name in self.blocks.items()}
        done, sums = ([new.get(name, name) for name in names] for names in (self.done, self.sums))
        return Piece(at, done, sums, blocks, decided)


def apply(group: Group, parts: Parts, decided: Blocks) -> None:
    """Schedules with the decisions of the prior."""
    sch = group.sch
    for op in parts.inlined:
        sch.compute_inline(group.blocks[op])
    for x in parts.links:
        if x.turned:
            sch.transform_layout(x.right.tensor.name, ["i1", "i0"])
        if x.ready is not None:
            kept = rows.kept(group, x.reduced, x.ready.op)
            x.reduced = [s for s in x.reduced if s.op in kept]
    free, pieces = _blocks(group, parts, decided)
    for stage in parts.operands:
        if not parts.is_left(stage):
            _operand(group, stage, free[-1] if free else None)
    steps = [_piece(group, parts, p) for p in pieces]
    if decided.parallel == "rows":
        for p in pieces:
            sch.parallel(p.at)
            sch.annotate(p.at, "joined", pieces[0].at)
    elif free:
        batch = sch.fuse(*free) if len(free) > 1 else free[0]
        if decided.parallel == "batch":
            sch.parallel(batch)
        for name in _own(group, parts):  # each of the batch would begin with a wait
            sch.prefetch(batch, name, 1, steps[0])


def _own(group: Group, parts: Parts) -> list[str]:
    """The inputs of which each of the batch reads a part of its own as operands."""
    found: list[str] = []
    for load in (parts.links[0].left, *(x.right for x in parts.links if x.batched)):
        size, todo = product(load.tensor.shape), [load.tensor]
        for t in todo:
            todo += t.op.input_tensors if isinstance(t.op, ComputeOp) else []
        whole = (t.op.name for t in todo if isinstance(t.op, PlaceholderOp) and product(t.shape) >= size)
        found += [name for name in whole if name not in group.constants and name not in found]
    return found


def _blocks(group: Group, parts: Parts, decided: Blocks) -> tuple[list[str], list[Piece]]:
    """Cuts the rows into blocks with everything that one needs inside, a shorter last block apart; gives the loops over
    the batch and those over blocks.
    """
    sch, blocks = group.sch, group.blocks
    *before, last = parts.links
    done = [sch.cache_write(blocks[x.op], "register") if x.done is x.op else blocks[x.done] for x in before]
    done.append(sch.cache_write(blocks[last.op], "local") if parts.out is last.op else blocks[parts.out])
    sums = [
        tile.copy_sums(group, blocks[x.op], name) if _staged(group, parts, x) else ""
        for x, name in zip(parts.links, done, strict=True)
    ]
    names = sch.loops(done[-1])
    *free, height, columns = [names[k] for k in parts.order]
    at, row = sch.split(height, [None, decided.whole.rows])
    sch.reorder(*free, at, row, columns)
    inside = [sums[-1], blocks[last.op]]
    for x, name, copied in reversed(list(zip(before, done, sums, strict=False))):
        reduced = [blocks[s.op] for s in reversed(x.reduced)]
        inside += [blocks[x.ready.op] if x.ready else "", *reduced, name, copied, blocks[x.op]]
    inside += [blocks[s.op] for s in parts.operands if parts.is_left(s)]
    for name in filter(None, inside):
        sch.compute_at(name, at)
    first = Piece(at, done, sums, dict(blocks), decided.whole)
    if decided.last is None:
        return free, [first]
    _, rest, new = sch.partition(at, (extent(last.op.axis[-2].extent) or 1) // decided.whole.rows)
    return free, [first, first.copied(new, rest, decided.last)]


def _piece(group: Group, parts: Parts, p: Piece) -> str:
    """One loop over blocks: products by register tiles, reductions row by row. Gives the loop over the steps of the
    first product's tiles.
    """
    group = copy(group)
    group.blocks = p.blocks
    for stage in parts.operands:
        if parts.is_left(stage):
            _operand(group, stage, p.at)
    steps: list[str] = []
    for x, done, sums, shape in zip(parts.links, p.done, p.sums, p.decided.tiles, strict=True):
        if x is not parts.links[-1]:
            group.sch.set_scope(done, "local")
        steps.append(_tiled(group, x, done, sums, p, shape))
        if x.ready is not None:
            block = p.blocks[x.ready.op]
            group.sch.set_scope(block, "local")
            _, cols = row_key(next(s.op for s in x.reduced if s.kind == "row"))
            rows.below(group, x.ready, x.reduced, group.sch.loops(block)[-2], cols)
    return steps[0]


def _staged(group: Group, parts: Parts, x: Link) -> bool:
    """Whether what finishes a product is so much work that it is a loop over a copy of a tile's sums."""
    end, behind = parts.out if x is parts.links[-1] else x.done, _downstream(group, x.op)
    ways = (s.op for s in group.stages if s.op in behind and end in (s.op, *_downstream(group, s.op)))
    return any(expensive(op) for op in ways)


def _tiled(group: Group, x: Link, done: str, sums: str, p: Piece, shape: Tile) -> str:
    """A product of a block's rows in register tiles, finished by the block `done`; gives the loop over their steps."""
    names = group.sch.loops(done)
    axes = [a.var for a in x.op.axis]
    loops = dict(zip(axes[-2:], names[-2:], strict=True))
    sizes = {axes[-2]: as_expr(p.decided.rows), axes[-1]: x.op.axis[-1].extent}
    v = tile.Variant(done, p.blocks[x.op], loops, sizes, shape, bool(sums), sums=sums)
    return tile.nest(group, v, axes, [axes[-2]], None)[1]


def _operand(group: Group, stage: Stage, at: str | None) -> None:
    """A computed operand in a buffer of its own, for a block of rows or for one of the batch."""
    sch, block = group.sch, group.blocks[stage.op]
    if at is not None:
        sch.compute_at(block, at)
    sch.set_scope(block, "local")
    pointwise.copy(group, stage, at)
