"""Primitives on where and when results live: alignment, double and rolling buffers, prefetching, pipelines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.tir.analysis.access import as_block, as_loop, carries, is_param, read, readers, writers, written
from warpbeam.tir.analysis.coverage import common_loop
from warpbeam.tir.analysis.tree import Place, Tree, annotated, tree_of
from warpbeam.tir.expr import Buffer, PrimExpr
from warpbeam.tir.schedule.step import Step
from warpbeam.tir.stmt import Allocate, For, PrimFunc, SeqStmt

STAGE, ORDER = "software_pipeline_stage", "software_pipeline_order"


def note_allocation(tree: Tree, buffer: Buffer, key: str, value: Any) -> PrimFunc:
    """The program with a note on the allocation of a buffer."""
    body = tree.root.stmt
    for a in reversed(tree.allocs):
        notes = annotated(a.annotations, key, value) if a.buffer is buffer else a.annotations
        body = Allocate(a.buffer, body, notes)
    return PrimFunc(tree.func.name, tree.func.params, body, tree.func.attrs)


def _own_result(tree: Tree, name: str, what: str) -> Buffer:
    """The only result of a block, which must be an intermediate buffer allocated at the root."""
    found = written(as_block(tree.block(name)))
    if len(found) != 1:
        raise ScheduleError(f"{what}: block {name} writes {len(found)} buffers", hint="this primitive needs one")
    if is_param(tree, found[0]) or found[0] in tree.inner_allocs:
        raise ScheduleError(
            f"{what}: {found[0].name} is a parameter; its memory is the caller's",
            hint="use cache_write to compute into a buffer of your own",
        )
    return found[0]


@dataclass(frozen=True, slots=True)
class StorageAlign(Step):
    """Makes the distance between rows of a block's result `factor * k + offset` elements, against bank conflicts.

    alloc T: float32[8, 32]      storage_align(T, 0, 32, 1)    ->     alloc T: float32[8, 32] with rows of 33

    Recorded on the allocation as ("storage_align": (axis, factor, offset)); lowering pads the next dimension.
    """

    block: str
    axis: int
    factor: int
    offset: int = 0

    def run(self, func: PrimFunc) -> tuple[PrimFunc, None]:
        tree = tree_of(func)
        buffer = _own_result(tree, self.block, "storage_align")
        if not 0 <= self.axis < len(buffer.shape) - 1 or self.factor < 1:
            raise ScheduleError(
                f"storage_align of {buffer.name} on axis {self.axis} by {self.factor}",
                hint="the axis must not be the last one, and the factor at least 1",
            )
        return note_allocation(tree, buffer, "storage_align", (self.axis, self.factor, self.offset)), None


@dataclass(frozen=True, slots=True)
class DoubleBuffer(Step):
    """One half of a block's result is filled for the next iteration while the other is used.

    for k in 4:                            load(0, T[0])
        T = load(k)       lowering         for k in 3:
        use(k, T)            ->                load(k + 1, T[(k + 1) % 2]);  use(k, T[k % 2])
                                           use(3, T[1])
    """

    block: str

    def run(self, func: PrimFunc) -> tuple[PrimFunc, None]:
        tree = tree_of(func)
        buffer = _own_result(tree, self.block, "double_buffer")
        _loop_around(tree, self.block, buffer, "double_buffer")
        return note_allocation(tree, buffer, "double_buffer", True), None


@dataclass(frozen=True, slots=True)
class RollingBuffer(Step):
    """Rows that the last iteration has computed already are kept, and only new ones computed.

    for i in 8:                                for i in 8:
        for r in 3: T[i + r] = …   lowering        for r in 3: T[(i + r) % 3] = … if i == 0 or r == 2
        use(T[i], …, T[i + 2])        ->           use(T[i % 3], …, T[(i + 2) % 3])
    """

    block: str

    def run(self, func: PrimFunc) -> tuple[PrimFunc, None]:
        tree = tree_of(func)
        buffer = _own_result(tree, self.block, "rolling_buffer")
        place = tree.block(self.block)
        if as_block(place).init is not None and len(writers(tree, buffer)) > 1:
            raise ScheduleError(
                f"rolling_buffer: several blocks write {buffer.name}", hint="before decompose_reduction"
            )
        target = _loop_around(tree, self.block, buffer, "rolling_buffer")
        if target.kind not in ("serial", "unrolled"):
            raise ScheduleError(
                f"rolling_buffer: loop {target.var.name}, in which {self.block} is computed, is {target.kind}",
                hint="rows are kept from one iteration to the next, so it must run in order",
            )
        return note_allocation(tree, buffer, "rolling_buffer", True), None


def _loop_around(tree: Tree, name: str, buffer: Buffer, what: str) -> For:
    """The innermost loop around a block and all that reads its result."""
    place = tree.block(name)
    users = [
        p for p in tree.blocks.values() if p is not place and buffer in (*read(as_block(p)), *written(as_block(p)))
    ]
    loops = [common_loop(place, p) for p in users]
    if not users or any(p is None for p in loops):
        raise ScheduleError(
            f"{what}: {name} is not computed inside a loop of its consumers", hint="use compute_at first"
        )
    target = min((p for p in loops if p is not None), key=lambda p: p.depth)
    return as_loop(target)


def _buffers(place: Place) -> tuple[Buffer, ...]:
    block = as_block(place)
    return (*read(block, own=True), *written(block))


@dataclass(frozen=True, slots=True)
class Prefetch(Step):
    """Asks, at the start of each iteration, for what the iteration `offset` later reads of a buffer, or writes of one
    that is only written there: the lines that stores will go to.

    for i in 64:                  lowering       for i in 64:
        B[i] = A[i * 16]             ->              prefetch(A[min((i + 2) * 16, 1023)]);  B[i] = A[i * 16]

    With `through`, a serial loop inside of it, the asking is spread evenly over the iterations of that loop and of
    those between: all of what comes next is asked for while this iteration computes, not before it does.

    for p in 24:                  lowering       for p in 24:
        for t in 10:                 ->              for t in 10:
            for k in 768:                                for k in 768:
                … W[p, k, 0:32]                              prefetch(next panel's line min(768*t + k, 1535)); …

    `through` may be several loops, parts of one that was partitioned: each has its share.

    With `onto`, a loop around it, what comes after the last iteration is the first of the next iteration of that loop.

    `locality`: 3 brings lines to the nearest cache, 2 and 1 to the second and third level, 0 as if for one use.

    Recorded on the loop as ("prefetch": ((buffer name, offset), (buffer name, offset, inner loop), (buffer name,
    offset, inner loop or "", outer loop), (…, outer loop or "", locality), …)); lowering asks for nothing where no loop
    has the inner one's name any more.
    """

    loop: str
    buffer: str
    offset: int | PrimExpr = 1
    through: str | tuple[str, ...] = ""
    onto: str = ""
    locality: int = 3

    def run(self, func: PrimFunc) -> tuple[PrimFunc, None]:
        tree = tree_of(func)
        target = tree.loop(self.loop)
        loop = as_loop(target)
        if self.locality not in range(4):
            raise ScheduleError(f"prefetch: locality {self.locality}", hint="3 (the nearest cache), 2, 1 or 0")
        if loop.kind == "vectorized":
            raise ScheduleError(f"prefetch: loop {self.loop} is vectorized", hint="choose a loop outside of it")
        buffer = tree.buffers.get(self.buffer)
        if buffer is None:
            raise ScheduleError(f"there is no buffer {self.buffer!r}", hint=f"buffers: {', '.join(tree.buffers)}")
        reading = any(buffer in read(as_block(p)) for p in tree.blocks_below(target))
        writing = any(p.within(target) for p in writers(tree, buffer))
        if reading and writing:
            raise ScheduleError(f"prefetch: {self.buffer} is computed and read inside loop {self.loop}")
        if not reading and not writing:
            raise ScheduleError(f"prefetch: nothing under {self.loop} reads or writes {self.buffer}")
        for name in (self.through,) if isinstance(self.through, str) else self.through:
            inner = tree.loop(name) if name else None
            if inner is not None and (inner is target or not inner.within(target) or as_loop(inner).kind != "serial"):
                raise ScheduleError(
                    f"prefetch: spread from loop {self.loop} over loop {name}",
                    hint="this must be a serial loop inside of that",
                )
        if self.onto and (tree.loop(self.onto) is target or not target.within(tree.loop(self.onto))):
            raise ScheduleError(
                f"prefetch: from the end of loop {self.loop} on to the next iteration of {self.onto}",
                hint="this must be a loop around that",
            )
        loops = (self.through, self.onto) if self.onto else (self.through,) if self.through else ()
        level = (self.through, self.onto, self.locality)
        what = (self.buffer, self.offset, *(loops if self.locality == 3 else level))
        asked = (*loop.annotations.get("prefetch", ()), what)
        return tree.update({target: loop.replace(annotations=annotated(loop.annotations, "prefetch", asked))}), None


@dataclass(frozen=True, slots=True)
class SoftwarePipeline(Step):
    """Runs the statements of a loop's body some iterations ahead of each other: `stages[i]` iterations late.

    for k in 4:                                   load(0)
        load(k)     stages (0, 1)  lowering       for k in 3: load(k + 1); use(k)
        use(k)                        ->          use(3)

    `order` gives the sequence of the statements within one step. Recorded on the loop as "software_pipeline_stage" and
    "software_pipeline_order".
    """

    loop: str
    stages: tuple[int, ...]
    order: tuple[int, ...] | None = None

    def run(self, func: PrimFunc) -> tuple[PrimFunc, None]:
        tree = tree_of(func)
        place = tree.loop(self.loop)
        f = as_loop(place)
        count = len(f.body.stmts) if isinstance(f.body, SeqStmt) else 1
        order = tuple(range(count)) if self.order is None else self.order
        if len(self.stages) != count or sorted(order) != list(range(count)) or min(self.stages, default=0) != 0:
            raise ScheduleError(
                f"pipeline of loop {self.loop} with stages {self.stages} and order {self.order}",
                why=f"its body is {count} statements: there must be one stage, from 0, and one place for each",
            )
        if f.kind not in ("serial", "unrolled"):
            raise ScheduleError(f"pipeline: loop {self.loop} is {f.kind}", hint="pipeline a serial loop")
        check_stages(tree, place, self.stages, order)
        notes = annotated(f.annotations, STAGE, self.stages)
        notes = annotated(notes, ORDER, order)
        return tree.update({place: f.replace(annotations=notes)}), None


def check_pipelines(func: PrimFunc) -> None:
    """Refuses a program whose pipelined loops no longer hold the statements that they were pipelined with."""
    tree = tree_of(func)
    for place in tree.loops.values():
        notes = as_loop(place).annotations
        if STAGE in notes and as_loop(place).kind not in ("serial", "unrolled"):
            raise ScheduleError(
                f"loop {as_loop(place).var.name} is a pipeline; it cannot be {as_loop(place).kind}",
                hint="its statements run some iterations ahead of each other: choose another loop",
            )
        if STAGE in notes:
            check_stages(tree, place, notes[STAGE], notes[ORDER])


def check_stages(tree: Tree, place: Place, stages: tuple[int, ...], order: tuple[int, ...]) -> None:
    """What a statement needs must be made by one that runs at least as early, and private to the iteration."""
    loop = as_loop(place)
    stmts = loop.body.stmts if isinstance(loop.body, SeqStmt) else (loop.body,)
    if len(stmts) != len(stages):
        raise ScheduleError(
            f"loop {loop.var.name} is a pipeline of {len(stages)} statements, its body would become {len(stmts)}",
            hint="place what it computes first, and pipeline the loop last",
        )
    if len(stmts) == 1:
        return
    below = [[p for p in tree.blocks_below(place) if child_index(place, p) == k] for k in range(len(stmts))]
    made = [{b for p in mine for b in written(as_block(p))} for mine in below]
    used = [made[k] | {b for p in mine for b in read(as_block(p))} for k, mine in enumerate(below)]
    for k in range(len(stmts)):
        for j in range(k + 1, len(stmts)):
            shared = (made[k] & used[j]) | (used[k] & made[j])
            if shared and (stages[k], order[k]) > (stages[j], order[j]):
                raise ScheduleError(
                    f"pipeline of loop {loop.var.name}: statement {j} uses {next(iter(shared)).name} before "
                    f"statement {k} has made it",
                    hint="give the consumer a later stage or a later place",
                )
            if stages[k] != stages[j]:
                for buffer in shared:
                    _check_private(tree, place, buffer)


def _check_private(tree: Tree, place: Place, buffer: Buffer) -> None:
    """Refuses a buffer whose values outlive an iteration of a loop, since only others can have a copy per stage."""
    name = as_loop(place).var.name
    if is_param(tree, buffer):
        raise ScheduleError(f"pipeline of loop {name}: statements share a parameter across stages")
    around = [as_loop(p).var for p in (place, *place.ancestors()) if isinstance(p.stmt, For)]
    for p in {*writers(tree, buffer), *readers(tree, buffer)}:
        if not p.within(place) or any(carries(as_block(p), v) for v in around if buffer in written(as_block(p))):
            raise ScheduleError(
                f"pipeline of loop {name}: {buffer.name}, which stages share, is needed beyond one iteration",
                hint="give the statements that use it the same stage, or compute it inside the loop",
            )


def child_index(place: Place, below: Place) -> int:
    """The number of the statement of a loop's body, one of several, that holds a place below."""
    chain = [below, *below.ancestors()]
    at = chain.index(place)
    return chain[at - 2].index
