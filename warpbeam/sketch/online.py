"""Sketch for two products with a softmax between them whose rows do not fit a buffer: each row is taken in parts.

    for batch, blocks of rows (parallel):
        top = lowest; total = 0; result = 0                                  stack
        for parts of the columns:
            that part of right operands that are computed (turned, scaled)   stack
            scores of the part by register tiles                             stack
            for rows: the part's maximum, exponentials, sum
            top grows to it: total and result are multiplied by what they weigh less now
            result += what the part weighs * exponentials * values, by register tiles
        result / total, stored where its layout has it

Memory is that of operands and results, whatever the number of columns. The stages are those of `sketch.online_stages`,
`sch.rescale` makes one loop of them; a part is scheduled as in `sketch.chain`. `cost.online_prior` decides how many
columns a part and how many rows a block has; terms are added in the same order on any number of threads.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

from warpbeam.cost import online_prior
from warpbeam.cost.chain_prior import Block, Chain
from warpbeam.cost.online_prior import Online, plan, ranked
from warpbeam.sketch import chain, online_stages, pointwise, rows, tile
from warpbeam.sketch.base import Group, Plan, expensive, extent, nth
from warpbeam.sketch.chain import Parts
from warpbeam.sketch.online_stages import Softmax, Split
from warpbeam.sketch.structure import Stage, variables
from warpbeam.target import Target
from warpbeam.te.tensor import ComputeOp, Operation, PlaceholderOp, loads
from warpbeam.tir.expr import as_expr


@dataclass(frozen=True, slots=True)
class Found:
    """The group's parts, the softmax between its products, and the extents that the prior needs."""

    parts: Parts
    softmax: Softmax
    chain: Chain


def find(group: Group) -> Found | None:
    """The group's parts, or None if it is something else."""
    parts = chain.find(group)
    softmax = None if parts is None else online_stages.find(group, parts)
    if parts is None or softmax is None or any(x.turned for x in parts.links):  # of weights their layout is asked for
        return None
    return Found(parts, softmax, chain.describe(group, parts))


def fits(group: Group) -> bool:
    found = find(group)
    return found is not None and plan(found.chain, group.target) is not None


def pays(group: Group) -> bool | None:
    """Whether the prior expects one kernel to be no slower than one for each product and the softmax; None where the
    sketch does not fit.
    """
    found = find(group)
    return None if found is None else online_prior.pays(found.chain, group.target)


def predict(group: Group) -> float | None:
    """Cycles that the prior expects on all cores; None where the sketch does not fit."""
    found = find(group)
    decided = None if found is None else plan(found.chain, group.target)
    return None if decided is None else decided.cycles


def build(group: Group, rank: int = 0) -> Plan:
    """Schedules the group in the parts and blocks that the prior finds best; with `rank`, the next best."""
    found = find(group)
    assert found is not None
    decided = nth(ranked(found.chain, group.target, rank + 1), rank) if rank else plan(found.chain, group.target)
    assert decided is not None  # it fits
    split = online_stages.split(group, found.parts, found.softmax, decided.size)
    new = Group(group.inputs, [split.out], group.target, group.constants, group.name)
    apply(new, found.parts, split, decided)
    others = partial(_next_best, found.chain, group.target)
    notes = (f"rows of {found.chain.products[0].columns} in {split.count} parts",)
    return Plan(new.sch.func, "online", _decisions(decided), notes, cycles=decided.cycles, others=others)


def _decisions(d: Online) -> dict[str, Any]:
    """What was decided, for reports."""
    tiles = [f"{t.rows[0]}x{t.vectors}x{t.lanes}" for t in d.whole.tiles]
    return {"rows": d.whole.rows, "part": f"{d.size} columns", "tiles": ", ".join(tiles), "parallel": d.parallel}


def _next_best(found: Chain, target: Target, count: int) -> list[tuple[dict[str, Any], float]]:
    """The decisions after the best ones, each with its cycles."""
    return [(_decisions(d), d.cycles) for d in ranked(found, target, count + 1)[1:]]


# ----------------------------------------------------------------------------------------------------------- scheduling


@dataclass(frozen=True, slots=True)
class Piece:
    """A loop over blocks of rows. parts: the loop over parts; row: that over rows of a part's maxima; done: the block
    that finishes scores, sums: that which copies their sums before, or ""; plain: blocks of rows alone, or of results.
    """

    at: str
    parts: str
    row: str
    done: str
    sums: str
    plain: list[str]
    blocks: dict[Operation, str]
    decided: Block

    def copied(self, new: dict[str, str], at: str, decided: Block) -> Piece:
        """The same in a copy with new names."""
        parts, row, done, sums = (new.get(n, n) for n in (self.parts, self.row, self.done, self.sums))
        blocks = {op: new.get(name, name) for op, name in self.blocks.items()}
        return Piece(at, parts, row, done, sums, [new.get(n, n) for n in self.plain], blocks, decided)


def apply(group: Group, parts: Parts, split: Split, d: Online) -> None:
    """Schedules with the decisions of the prior."""
    sch = group.sch
    made = [s for s in group.stages if s.op in [o.op for o in parts.operands]]
    kept = _kept(group, split) | {s.op for s in made}
    for stage in group.stages:
        if stage.op not in kept:
            sch.compute_inline(group.blocks[stage.op])
    free, pieces = _blocks(group, parts, split, d, made)
    for p in pieces:
        _piece(group, parts, split, p, made)
    if d.parallel == "rows":
        for p in pieces:
            sch.parallel(p.at)
            sch.annotate(p.at, "joined", pieces[0].at)
    elif d.parallel != "none":
        loops = [*free, *([pieces[0].at] if d.parallel == "both" else [])]
        sch.parallel(sch.fuse(*loops) if len(loops) > 1 else loops[0])


def _kept(group: Group, split: Split) -> set[Operation]:
    """The stages that have blocks of their own."""
    first, last = split.scores[0], split.scores[-1]
    of_parts = {first, last, split.top, split.powers, split.total, split.product}
    over = {split.whole_top, split.weights, split.whole_total, split.whole, *split.rows}
    return {*of_parts, *over, group.outputs[0].op}


def _blocks(group: Group, parts: Parts, split: Split, d: Online, made: list[Stage]) -> tuple[list[str], list[Piece]]:
    """Cuts the rows into blocks, with a loop over parts and all that a part needs inside, a shorter last block apart;
    gives the loops over the batch and those over blocks.
    """
    sch, blocks = group.sch, group.blocks
    first, last = split.scores[0], split.scores[-1]
    done = sch.cache_write(blocks[first], "register") if last is first else blocks[last]
    sums = tile.copy_sums(group, blocks[first], done) if any(expensive(op) for op in split.scores) else ""
    names = sch.loops(blocks[group.outputs[0].op])
    *free, height, columns = [names[k] for k in parts.order]
    at, row = sch.split(height, [None, d.whole.rows])
    sch.reorder(*free, at, row, columns)
    for op in (split.whole, *reversed(split.rows), split.whole_total, split.weights, split.whole_top):
        sch.compute_at(blocks[op], at)
    loop = sch.rescale(blocks[split.whole_top], blocks[split.weights], [blocks[split.whole_total], blocks[split.whole]])
    plain = [name for name in sch.blocks() if at in sch.loops(name) and name != blocks[split.whole]]
    for op in (split.product, split.total, split.powers, split.top):
        sch.compute_at(blocks[op], loop)
    for name in (done, sums, blocks[first]):
        if name:
            sch.compute_at(name, loop)
    for stage in made:
        sch.compute_at(blocks[stage.op], at if parts.is_left(stage) else loop)
    of_rows = sch.loops(blocks[split.top])[-2]
    for op in (split.powers, split.total):  # while the row is near
        sch.reverse_compute_at(blocks[op], of_rows)
    one = Piece(at, loop, of_rows, done, sums, plain, dict(blocks), d.whole)
    if d.last is None:
        return free, [one]
    _, rest, new = sch.partition(at, (extent(first.axis[-2].extent) or 1) // d.whole.rows)
    return free, [one, one.copied(new, rest, d.last)]


def _piece(group: Group, parts: Parts, split: Split, p: Piece, made: list[Stage]) -> None:
    """One loop over blocks: products by register tiles, exponentials row by row."""
    group = copy(group)
    group.blocks = p.blocks
    sch = group.sch
    for name in p.plain:
        _vectors(group, name)
    for op in (split.whole, split.whole_top, split.whole_total, split.weights, *split.rows):
        sch.set_scope(p.blocks[op], "local")
    for op in (split.top, split.powers, split.total):
        sch.set_scope(p.blocks[op], "local")
        rows.vectorise(group, Stage(op, "row" if op.reduce_axis else "elementwise"), p.row, False)
    for stage in made:
        sch.set_scope(p.blocks[stage.op], "local")
        pointwise.copy(group, stage, p.at if parts.is_left(stage) else p.parts)
    sch.set_scope(p.done, "local")
    tiles, steps = _tiled(group, split.scores[0], p.done, p.sums, p, 0)
    if sch.extent(tiles) != 1:  # a tile's end would wait for all of it
        for name in _finishing(split):
            sch.prefetch(tiles, name, 0, steps)
    _tiled(group, split.product, p.blocks[split.whole], "", p, 1)


def _finishing(split: Split) -> list[str]:
    """The inputs of which what finishes the scores reads an element for each row and column (masks)."""
    found: list[str] = []
    for op in split.scores[1:]:
        axes = {a.var for a in op.axis[-3:] if extent(a.extent) != 1}
        reads = [x for x in loads(op) if isinstance(x.tensor.op, PlaceholderOp) and axes <= variables(*x.indices)]
        found += [x.tensor.op.name for x in reads if x.tensor.op.name not in found]
    return found


def _tiled(group: Group, op: ComputeOp, done: str, sums: str, p: Piece, number: int) -> tuple[str, str]:
    """A product of a block's rows in register tiles, finished by the block `done`; gives the innermost loop over these
    and that over their steps.
    """
    names = group.sch.loops(done)
    axes = [a.var for a in op.axis]
    loops = dict(zip(axes[-2:], names[-2:], strict=True))
    sizes = {axes[-2]: as_expr(p.decided.rows), axes[-1]: op.axis[-1].extent}
    v = tile.Variant(done, p.blocks[op], loops, sizes, p.decided.tiles[number], bool(sums), sums=sums)
    outer, steps = tile.nest(group, v, axes, [axes[-2]], None)
    return outer[-1], steps


def _vectors(group: Group, block: str) -> None:
    """The innermost loop around a block in vectors, and what is left of it in a shorter one."""
    sch, lanes = group.sch, max(1, group.target.vector_bits // 32)
    loop = sch.loops(block)[-1]
    count = sch.extent(loop) or 1
    whole, rest = divmod(count, lanes)
    found = [(loop, lanes)] if whole else [(loop, rest)]
    if whole and rest:
        found.append((sch.partition(loop, whole * lanes)[1], rest))
    for name, size in found:
        if size > 1:
            sch.vectorize(sch.split(name, [None, size])[1])
