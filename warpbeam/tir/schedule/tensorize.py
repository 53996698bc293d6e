"""The primitive that replaces loops by an instruction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.tir.analysis.access import carries
from warpbeam.tir.analysis.tree import annotated, tree_of
from warpbeam.tir.schedule.step import Step
from warpbeam.tir.schedule.tensorize_match import Matcher
from warpbeam.tir.schedule.tensorize_tile import Tile, tile_at
from warpbeam.tir.stmt import Block, For, PrimFunc, Stmt, seq
from warpbeam.tir.tensor_intrin import TensorIntrin, resolve
from warpbeam.tir.tensor_intrin.place import placed


@dataclass(frozen=True, slots=True)
class Tensorize(Step):
    """Replaces a loop and all inside (or a block) by an intrinsic that does the same. Gives the block's name.

    for j in 16: for k in 4:                              C: C[0:16] = dot4(C[0:16], A[…], W[j_o, 0:64])
        C[16*jo + j] += A[k] * W[16*jo + j, k]     ->

    What it does is compared by meaning: loops in any order, split or fused, unit loops, operands either way round,
    casts inside or outside. A reduction may start in the tile (the intrinsic's body), go on from outside (its reset
    and update) or be decomposed (its update).

    Raises:
        ScheduleError: that says what differs: domain, dtype, scope, access, strides, offset or body.
    """

    target: str
    intrin: Any
    preserve_unit_iters: bool = True

    def run(self, func: PrimFunc) -> tuple[PrimFunc, str]:
        record = resolve(self.intrin)
        tree = tree_of(func)
        place = tree.loops.get(self.target) or tree.block(self.target)
        tile = tile_at(tree, place, self.preserve_unit_iters)
        meaning = meaning_of(record)
        found = Matcher(record, meaning, tile).run()
        block = tile.block
        around = any(isinstance(p.stmt, For) and carries(block, p.stmt.var) for p in place.ancestors())
        init, body = _choose(record, meaning, tile, around)

        def put(stmt: Any) -> Any:
            return placed(stmt, found.regions, found.values) if isinstance(stmt, Stmt) else stmt

        first = _plain_start(tile) if init == "plain" else put(init)
        now = seq(first, put(body)) if tile.inner or tile.whole else put(body)
        later = None if tile.inner or tile.whole else first
        notes = annotated(block.annotations, "tensorized", record.name)
        new = Block(block.name, tile.axes, tile.bindings, tile.predicate, later, now, notes)
        return tree.update({place: new}), block.name


def meaning_of(record: TensorIntrin) -> Tile:
    """The tile of an intrinsic's semantics."""
    tree = tree_of(record.semantics)
    return tile_at(tree, tree.root, False)


def _choose(record: TensorIntrin, meaning: Tile, tile: Tile, around: bool) -> tuple[Any, Stmt]:
    """(start, rest) of the template: start is a statement, "plain" for stores of the block's own, or None.

    around: a loop outside carries the reduction, be it of one iteration: who put it there wants start and update.
    """
    starts = meaning.init is not None
    update = record.update or (None if starts else record.body)
    parted = around and record.reset is not None and record.update is not None
    if tile.init is not None and starts and tile.whole and record.body is not None and not parted:
        return None, record.body
    if update is None:
        raise ScheduleError(
            f"block {tile.block.name} adds to what its result holds; the intrinsic {record.name} starts anew",
            why="body: it has no update, only the whole reduction",
            hint="give the intrinsic (body, reset, update), or bring the whole reduction inside",
        )
    if tile.init is None:
        return None, update
    return (record.reset if starts and record.reset is not None else "plain"), update


def _plain_start(tile: Tile) -> Stmt:
    """The block's own start, element by element."""
    assert tile.init is not None
    stmt: Stmt = tile.init
    for d in reversed(tile.dims):
        if d.kind == "spatial":
            stmt = For(d.var, 0, d.extent, "serial", stmt)
    return stmt
