"""Placement: a block is computed below a loop of the blocks that use it, or of the block that feeds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import (
    accesses,
    as_block,
    as_loop,
    carries,
    is_param,
    plain_axes,
    read,
    readers,
    shifted_axes,
    writers,
    written,
)
from warpbeam.tir.analysis.coverage import block_env, holds, makes_box, touched, whole_store
from warpbeam.tir.analysis.predicate import likely, own_condition
from warpbeam.tir.analysis.regions import Range, clip, interval, union, upper_bound
from warpbeam.tir.analysis.tree import Place, Tree, facts_at, tree_of
from warpbeam.tir.arith import Facts, prove, simplify
from warpbeam.tir.expr import Buffer, PrimExpr, Var
from warpbeam.tir.schedule.legal import (
    check_computed,
    check_filled,
    check_inputs_made,
    check_inputs_stay,
    check_loops,
    check_not_read_before,
    loops_at_once,
    same_iteration,
)
from warpbeam.tir.schedule.step import Namer, Step, serial
from warpbeam.tir.stmt import Block, For, PrimFunc, SeqStmt, Stmt, seq


@dataclass(frozen=True, slots=True)
class ComputeAt(Step):
    """Computes a block inside a loop of its consumers: in each iteration the part that this iteration reads.

    for i in 64: A(i)                for i_0 in 4:
    for i_0 in 4:             ->         for i in 18: A(16*i_0 + i)
        for i_1 in 16: B             for i_1 in 16: B

    The block's loops are made anew from its axes: spatial ones over the region, reduce ones in full.

    `relax`: the part that all threads around the loop read together, where they share the memory of the block's result
    ("shared": loops on threadIdx and virtual threads; "global": also on blockIdx; others: none), so that each thread's
    instance of the new loops covers it whole.
    `guard`: loops of constant extent where the region has a constant bound; what is not in the buffer is skipped:

        for i in 18: A(16*i_0 + i) if likely(16*i_0 + i < 66)
    """

    block: str
    loop: str
    relax: bool = False
    guard: bool = False

    def run(self, func: PrimFunc) -> tuple[PrimFunc, None]:
        tree = tree_of(func)
        place, target = tree.block(self.block), tree.loop(self.loop)
        if place.within(target) and _child_of(target, place) is place:
            return func, None
        block = as_block(place)
        what = f"compute_at of {self.block}"
        for buffer in written(block):
            if is_param(tree, buffer):
                raise ScheduleError(
                    f"block {self.block} computes the output {buffer.name}; it has no consumer to go to",
                    hint="use cache_write and place the block that fills the cache",
                )
        only_writer(tree, block)
        check_computed(block, what, same_iteration(place, target))
        check_inputs_stay(tree, place, what)
        users = _users(tree, block)
        outside = [as_block(p).name for p in users if not p.within(target)]
        if outside or not users:
            who = f"{', '.join(outside)} reads it outside of that loop" if outside else "nothing reads it there"
            raise ScheduleError(
                f"block {self.block} cannot be computed inside loop {self.loop}: {who}",
                hint="every consumer must be inside the loop: place consumers first, or clone the block for the others",
            )
        names = own_loops(tree, place)
        left = loops_at_once(place)
        before = tree
        tree = tree_of(tree.update({place: None}))
        target = tree.loop(self.loop)
        users = _users(tree, block)
        first = min(users, key=list(tree.blocks.values()).index)
        spot = _child_of(target, first)
        shared = _shared_loops(target, block) if self.relax else []
        ranges = _needed(tree, target, block, users, shared)
        made = region_nest(block, ranges, Namer(tree), names, facts_at(target, True), self.guard)
        func = tree.update({spot: seq(made, spot.stmt)})
        check_inputs_made(before, tree_of(func), self.block, what)
        if left:
            check_loops(tree_of(func), left, what)
        return func, None


def only_writer(tree: Tree, block: Block) -> None:
    """Refuses a block that shares a result with another one."""
    for buffer in written(block):
        if len(writers(tree, buffer)) > 1:
            raise ScheduleError(
                f"several blocks write {buffer.name}",
                hint="do this before decompose_reduction, rfactor or partition",
            )


def _users(tree: Tree, block: Block) -> list[Place]:
    return list(dict.fromkeys(p for b in written(block) for p in readers(tree, b)))


def _child_of(target: Place, below: Place) -> Place:
    """The statement of the loop's body (one of its sequence) that `below` stands in."""
    chain = [below]
    while chain[-1].parent is not target:
        assert chain[-1].parent is not None
        chain.append(chain[-1].parent)
    return chain[-2] if isinstance(chain[-1].stmt, SeqStmt) and len(chain) > 1 else chain[-1]


def own_loops(tree: Tree, place: Place) -> dict[Var, str]:
    """Loops that hold nothing but this block."""
    found = {}
    for p in place.ancestors():
        if len(tree.blocks_below(p)) > 1:
            break
        if isinstance(p.stmt, For):
            found[p.stmt.var] = p.stmt.var.name
    return found


def _shared_loops(target: Place, block: Block) -> list[For]:
    """The thread loops at and around `target` whose threads see one memory of the block's result, outer first."""
    scopes = {b.scope.split(".")[0] for b in written(block)}
    rank = max(_MEMORY.get(s, 2) for s in scopes)
    around = [p.stmt for p in [target, *target.ancestors()] if isinstance(p.stmt, For) and p.stmt.thread]
    lanes = "threadIdx.x" if "warp" in scopes else ""  # a warp's threads read each other's registers
    return [f for f in reversed(around) if _rank(f.thread) >= rank or f.thread == lanes]


_MEMORY = {"global": 0, "vtcm": 0, "texture": 0, "shared": 1}  # others belong to one thread


def _rank(thread: str) -> int:
    return 0 if thread.startswith("blockIdx") else 1


def _needed(tree: Tree, target: Place, block: Block, users: list[Place], running: list[For]) -> dict[Var, Range]:
    """What the users read in one iteration of `target`, per spatial axis of the block."""
    facts = facts_at(target, True)
    stores = accesses(block.body)[1]
    found: dict[Var, Range | None] = {}
    for p in users:
        env = block_env(target, p, facts, running, inside=True)
        user = as_block(p)
        parts: list[Any] = [s for s in (user.body, user.init, user.predicate) if s is not None]
        loads = dict.fromkeys(n for part in parts for n in accesses(part)[0])
        for store in stores:
            axes = shifted_axes(block, store)
            if axes is None:
                raise ScheduleError(
                    f"the store of {block.name} is not indexed by its plain axes",
                    hint="compute_at before transform_layout",
                )
            for load in loads:
                if load.buffer is store.buffer:
                    _join(found, axes, load.indices, store.buffer, env, facts)
    return {v: r for v, r in found.items() if r is not None}


def _join(
    found: dict[Var, Range | None],
    axes: list[tuple[Var, int]],
    indices: tuple[PrimExpr, ...],
    buffer: Buffer,
    env: dict[Var, Range | None],
    facts: Facts,
) -> None:
    for (axis, shift), index, size in zip(axes, indices, buffer.shape, strict=True):
        new = clip(interval(index - shift, env), size if shift == 0 else size - shift, facts)
        if axis not in found:
            found[axis] = new
        else:
            old = found[axis]
            found[axis] = None if old is None else union(old, new, facts)


def region_nest(
    block: Block, ranges: dict[Var, Range], namer: Namer, names: dict[Var, str], facts: Facts, guard: bool = False
) -> Stmt:
    """The block under fresh loops over the given ranges of its axes (in full where there is none)."""
    loops: list[tuple[Var, PrimExpr]] = []
    bindings: list[PrimExpr] = []
    conds: list[PrimExpr] = []
    for axis, old in zip(block.axes, block.bindings, strict=True):
        name = names.get(old, axis.var.name) if isinstance(old, Var) else axis.var.name
        var = Var(namer.loop(name), axis.var.dtype)
        r = ranges.get(axis.var)
        if axis.kind == "reduce" or r is None:
            r = Range((e.const(0, axis.var.dtype),), (axis.extent - 1,))
        low, extent = simplify(r.low, facts), r.extent(facts)
        limit = upper_bound(extent, facts) if guard else None
        if limit is not None and e.const_int(extent) is None:
            extent = e.const(max(limit, 0), axis.var.dtype)
            conds += _inside(low + var, r, var, extent, facts)
        loops.append((var, extent))
        bindings.append(low + var)
    predicate = e.land(own_condition(block), *conds)
    stmt: Stmt = Block(block.name, block.axes, tuple(bindings), predicate, block.init, block.body, block.annotations)
    for var, extent in reversed(loops):
        stmt = serial(var, extent, stmt)
    return stmt


def _inside(value: PrimExpr, r: Range, var: Var, extent: PrimExpr, facts: Facts) -> list[PrimExpr]:
    """That a value does not pass the upper limits of a range, without what the loop over `var` grants."""
    with facts.scope():
        facts.bind(var, e.const(0, var.dtype), extent)
        tests = [value < simplify(high + 1, facts) for high in r.highs]
        return [likely(t) for t in tests if prove(t, facts) is not True]


@dataclass(frozen=True, slots=True)
class ReverseComputeAt(Step):
    """Computes a block inside a loop of its producer: in each iteration the part that this iteration has made.

    for i_0 in 4:                    for i_0 in 4:
        for i_1 in 16: A      ->         for i_1 in 16: A
    for i in 64: B(i)                    for i in 16: B(16*i_0 + i)
    """

    block: str
    loop: str

    def run(self, func: PrimFunc) -> tuple[PrimFunc, None]:
        tree = tree_of(func)
        place, target = tree.block(self.block), tree.loop(self.loop)
        block = as_block(place)
        what = f"reverse_compute_at of {self.block}"
        if place.within(target):
            raise ScheduleError(f"block {self.block} is already inside {self.loop}")
        check_computed(block, what)
        check_not_read_before(tree, place, what)
        producer, load = self._producer(tree, target, block)
        self._check(tree, target, producer, block)
        stores = [s for s in accesses(as_block(producer).body)[1] if s.buffer is load.buffer]
        if not makes_box(target, producer) or not all(whole_store(as_block(producer), s) for s in stores):
            raise ScheduleError(
                f"{what}: what one iteration of {self.loop} makes of {load.buffer.name} is not known to be a box",
                why="uneven loops, conditions or fused loops leave out some elements",
                hint="split evenly, place before fusing, or choose a loop further out",
            )
        self._check_others(tree, target, producer, load.buffer)
        names = own_loops(tree, place)
        left = loops_at_once(place)
        tree = tree_of(tree.update({place: None}))
        target, producer = tree.loop(self.loop), tree.block(as_block(producer).name)
        facts = facts_at(target, True)
        env = block_env(target, producer, facts, inside=True)
        store = next(s for s in accesses(as_block(producer).body)[1] if s.buffer is load.buffer)
        ranges: dict[Var, Range] = {}
        for index, axis, size in zip(store.indices, load.indices, store.buffer.shape, strict=True):
            assert isinstance(axis, Var)
            ranges[axis] = clip(interval(index, env), size, facts)
        made = region_nest(block, ranges, Namer(tree), names, facts)
        spot = _child_of(target, producer)
        func = tree.update({spot: seq(spot.stmt, made)})
        tree = tree_of(func)
        place = tree.block(self.block)
        check_filled(tree, place, what)
        check_loops(tree, [*left, *loops_at_once(place)], what)
        return func, None

    def _check_others(self, tree: Tree, target: Place, producer: Place, buffer: Buffer) -> None:
        """What other blocks write of the buffer must be within what the producer writes."""
        facts = facts_at(target, True)

        def made(p: Place) -> list[Range]:
            store = next(s for s in accesses(as_block(p).body)[1] if s.buffer is buffer)
            return touched(store, block_env(target, p, facts, inside=True), facts)

        whole = made(producer)
        for p in writers(tree, buffer):
            if p is not producer and not holds(whole, made(p), facts):
                raise ScheduleError(
                    f"{as_block(p).name} and {as_block(producer).name} each write a part of {buffer.name}",
                    hint="reverse_compute_at before partition",
                )

    def _producer(self, tree: Tree, target: Place, block: Block) -> tuple[Place, Any]:
        """The last block under the loop whose result this one reads at plain axes, and that read."""
        axes = {a.var: a.extent for a in block.axes}
        found: tuple[Place, Any] | None = None
        for p in tree.blocks_below(target):
            for load in accesses(block.body)[0]:
                if (
                    load.buffer in written(as_block(p))
                    and len(set(load.indices)) == len(load.indices)
                    and all(
                        isinstance(i, Var) and i in axes and e.as_expr(size) is axes[i]
                        for i, size in zip(load.indices, load.buffer.shape, strict=True)
                    )
                ):
                    found = p, load
        if found is None:
            raise ScheduleError(
                f"no block under {self.loop} feeds {self.block} element by element",
                hint="the block must read its producer's whole result at its plain axes",
            )
        return found

    def _check(self, tree: Tree, target: Place, producer: Place, block: Block) -> None:
        only_writer(tree, block)
        for b in written(as_block(producer)):
            if not all(p.within(target) for p in writers(tree, b)):
                raise ScheduleError(f"{b.name} is not completed inside {self.loop}", hint="place before partition")
        around = [as_loop(p) for p in [target, *target.ancestors()] if isinstance(p.stmt, For)]
        for f in around:
            for p in writers(tree, written(as_block(producer))[0]):
                if carries(as_block(p), f.var):
                    raise ScheduleError(
                        f"loop {f.var.name} carries the reduction of {as_block(p).name}: "
                        f"its result is not complete inside",
                        hint="choose a loop outside the reduction",
                    )
        order = list(tree.blocks.values())
        inside = tree.blocks_below(target)
        for buffer in read(block):
            for p in writers(tree, buffer):
                if order.index(p) > order.index(inside[-1]):
                    raise ScheduleError(
                        f"{self.block} also needs {as_block(p).name}, which is not ready in {self.loop}"
                    )
        if any(plain_axes(block, s) is None for s in accesses(block.body)[1]):
            raise ScheduleError(f"the store of {block.name} is not indexed by its plain axes")
