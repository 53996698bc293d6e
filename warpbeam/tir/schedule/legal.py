"""Preconditions that several primitives share: what may move, what must not change meanwhile, what holds afterwards."""

from __future__ import annotations

from collections.abc import Iterable

from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.ir.rewrite import substitute
from warpbeam.tir.analysis.access import (
    accesses,
    as_block,
    as_loop,
    free_vars,
    opaque_buffers,
    read,
    readers,
    writers,
    written,
)
from warpbeam.tir.analysis.coverage import filled
from warpbeam.tir.analysis.predicate import unconditional
from warpbeam.tir.analysis.tree import Place, Tree
from warpbeam.tir.arith import simplify
from warpbeam.tir.expr import Buffer, PrimExpr, Var, const_int
from warpbeam.tir.schedule.loops import check_independent
from warpbeam.tir.schedule.step import top_nest
from warpbeam.tir.stmt import Block, For

AT_ONCE = ("parallel", "vectorized", "thread_binding")


def check_computed(block: Block, what: str, around: frozenset[Var] = frozenset()) -> None:
    """Refuses blocks that are no function of what they read: their instances cannot be left out, repeated or moved.

    Ordered axes may be led by the loops `around`, inside of which the block stays.
    """
    parts = [s for s in (block.init, block.body) if s is not None]
    if any(opaque_buffers(p) for p in parts):
        raise ScheduleError(f"{what}: block {block.name} calls a foreign function, whose accesses are not known")
    if not unconditional(block):
        raise ScheduleError(f"{what}: block {block.name} runs under a condition", hint="set the condition last")
    if any(
        a.kind == "opaque" or (a.kind == "ordered" and not free_vars(b) <= around)
        for a, b in zip(block.axes, block.bindings, strict=True)
    ):
        raise ScheduleError(f"{what}: the instances of block {block.name} run in an order of their own")
    own = {s.buffer: s.indices for p in parts for s in accesses(p)[1]}
    for load in (n for p in parts for n in accesses(p)[0]):
        if load.buffer in own and (own[load.buffer] != load.indices or block.init is None):
            raise ScheduleError(
                f"{what}: block {block.name} changes {load.buffer.name} in place",
                why="what it computes depends on what ran before it",
                hint="do this before decompose_reduction and rfactor; use cache_write for a buffer of its own",
            )


def same_iteration(place: Place, target: Place) -> frozenset[Var]:
    """The loops around both places."""
    around = [target, *target.ancestors()]
    return frozenset(as_loop(p).var for p in place.ancestors() if isinstance(p.stmt, For) and p in around)


def _other_row(reader: Block, writer: Block, buffer: Buffer) -> bool:
    """Whether in one iteration of the time that leads both, what is written is proven not to be what is read."""

    def at_time(block: Block, index: PrimExpr) -> PrimExpr:
        time = {a.var: b for a, b in zip(block.axes, block.bindings, strict=True) if a.kind == "ordered"}
        return substitute(index, dict(time))  # type: ignore[no-any-return]

    loads = [n for n in accesses(reader.body)[0] if n.buffer is buffer]
    stores = [n for n in accesses(writer.body)[1] if n.buffer is buffer]
    return all(
        any(
            const_int(simplify(at_time(reader, i) - at_time(writer, j))) not in (None, 0)
            for i, j in zip(load.indices, store.indices, strict=True)
        )
        for load in loads
        for store in stores
    )


def check_inputs_stay(tree: Tree, place: Place, what: str) -> None:
    """Refuses to compute a block later than it stands if something it reads is written after it."""
    order = list(tree.blocks.values())
    at = order.index(place)
    for buffer in read(as_block(place)):
        for p in writers(tree, buffer):
            if order.index(p) > at and not _other_row(as_block(place), as_block(p), buffer):
                raise ScheduleError(
                    f"{what}: {buffer.name}, which block {as_block(place).name} reads, is written again by "
                    f"{as_block(p).name} after it"
                )


def check_inputs_made(before: Tree, tree: Tree, name: str, what: str) -> None:
    """Refuses a block that now stands before one that stood before it and computes what it reads."""
    was, order = list(before.blocks), list(tree.blocks)
    for buffer in read(as_block(tree.block(name))):
        for p in writers(tree, buffer):
            maker = as_block(p).name
            if order.index(maker) > order.index(name) and was.index(maker) < was.index(name):
                raise ScheduleError(
                    f"{what}: {maker}, which computes {buffer.name}, would come after it",
                    hint="compute that block there first, or choose a loop further in",
                )


def check_not_read_before(tree: Tree, place: Place, what: str) -> None:
    """Refuses to compute a block earlier if something before it reads what it overwrites."""
    order = list(tree.blocks.values())
    at = order.index(place)
    for buffer in written(as_block(place)):
        for p in readers(tree, buffer):
            if order.index(p) < at:
                raise ScheduleError(
                    f"{what}: block {as_block(p).name} reads what {buffer.name} holds before "
                    f"{as_block(place).name} writes it"
                )


def check_filled(tree: Tree, place: Place, what: str) -> None:
    """Refuses a block that reads what its own nest of loops computes, unless that is there in the same iteration."""
    top = top_nest(place)
    below = tree.blocks_below(top)
    for buffer in read(as_block(place)):
        makers = [p for p in below if p is not place and buffer in written(as_block(p))]
        if makers and not filled(place, buffer, makers, below):
            raise ScheduleError(
                f"{what}: {as_block(place).name} reads elements of {buffer.name} that are not proven to be computed "
                f"by then",
                hint="compute the producer outside of the loop, or in a loop further out",
            )


def loops_at_once(place: Place) -> list[str]:
    """Loops around a place whose iterations run at once, or in no order of their own."""
    return [f.var.name for f in place.loops() if f.kind in AT_ONCE or "alternate" in f.annotations]


def check_loops(tree: Tree, names: Iterable[str], what: str) -> None:
    """Refuses a change after which iterations of loops that run at once depend on each other."""
    for name in dict.fromkeys(names):
        place = tree.loops.get(name)
        if place is None:
            continue
        loop = as_loop(place)
        if "each_thread_all" in loop.annotations:  # every thread runs the whole body by intent, with the same results
            continue
        kind = "walked to and fro" if loop.kind not in AT_ONCE else loop.kind
        try:
            check_independent(tree, place, loop.thread or kind)
        except ScheduleError as found:
            raise ScheduleError(
                f"{what}: loop {name} is {kind}, and then its iterations would depend on each other",
                why=str(found).splitlines()[0],
                hint=f"place blocks first, then make {name} {kind}",
            ) from None
