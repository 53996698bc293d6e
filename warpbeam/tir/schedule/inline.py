"""Inlining: a pointwise block becomes part of the blocks that read it, or of the block that feeds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.ir.rewrite import rewrite, substitute
from warpbeam.tir.analysis.access import (
    accesses,
    as_block,
    is_param,
    opaque_buffers,
    plain_axes,
    read,
    readers,
    shifted_axes,
    writers,
)
from warpbeam.tir.analysis.predicate import unconditional
from warpbeam.tir.analysis.tree import Place, Tree, tree_of
from warpbeam.tir.arith import simplify
from warpbeam.tir.expr import Buffer, BufferLoad, Var, sub
from warpbeam.tir.schedule.legal import (
    check_computed,
    check_filled,
    check_inputs_stay,
    check_loops,
    check_not_read_before,
    loops_at_once,
    same_iteration,
)
from warpbeam.tir.schedule.step import Step
from warpbeam.tir.stmt import Block, BufferStore, PrimFunc, Stmt


def plain_pointwise(tree: Tree, block: Block) -> tuple[BufferStore, list[Var]]:
    """The only store of a block without reduction whose indices are its plain axes; ScheduleError otherwise."""
    store, axes = pointwise(tree, block)
    if plain_axes(block, store) is None:
        raise ScheduleError(f"the store of block {block.name} is not indexed by its plain axes", hint="inline it first")
    return store, [axis for axis, _ in axes]


def pointwise(tree: Tree, block: Block) -> tuple[BufferStore, list[tuple[Var, int]]]:
    """The only store of a block without reduction, whose indices are its axes, each plus a constant."""
    if block.init is not None or any(a.kind == "reduce" for a in block.axes):
        raise ScheduleError(f"block {block.name} is a reduction and cannot be inlined")
    store = block.body
    if not isinstance(store, BufferStore):
        raise ScheduleError(f"block {block.name} stores more than one value and cannot be inlined")
    axes = shifted_axes(block, store)
    if axes is None or len(axes) != len(block.axes):
        raise ScheduleError(f"the store of block {block.name} is not indexed by its plain axes", hint="inline it first")
    if store.buffer in {n.buffer for n in accesses(store)[0]}:
        raise ScheduleError(f"block {block.name} reads what it writes and cannot be inlined")
    if not unconditional(block):
        raise ScheduleError(f"block {block.name} runs under a condition and cannot be inlined")
    if len(writers(tree, store.buffer)) > 1:
        raise ScheduleError(f"several blocks write {store.buffer.name}", hint="inline before partitioning")
    return store, axes


@dataclass(frozen=True, slots=True)
class ComputeInline(Step):
    """Removes a pointwise block; its expression takes the place of every read of its result.

    B[i] = A[i] + 1
    C[i] = B[i] * 2      ->      C[i] = (A[i] + 1) * 2
    """

    block: str

    def run(self, func: PrimFunc) -> tuple[PrimFunc, None]:
        tree = tree_of(func)
        place = tree.block(self.block)
        block = as_block(place)
        store, axes = pointwise(tree, block)
        buffer = store.buffer
        if is_param(tree, buffer):
            raise ScheduleError(
                f"block {self.block} computes an output and cannot be inlined",
                hint="use reverse_compute_inline on it to move its producer into it",
            )
        what = f"compute_inline of {self.block}"
        users = readers(tree, buffer)
        check_computed(block, what, frozenset.intersection(*(same_iteration(place, p) for p in (place, *users))))
        check_inputs_stay(tree, place, what)
        self._check_users(tree, place, users, buffer)

        def change(n: Any) -> Any:
            if isinstance(n, BufferLoad) and n.buffer is buffer:
                at = {axis: simplify(sub(i, shift)) for (axis, shift), i in zip(axes, n.indices, strict=True)}
                return substitute(store.value, dict(at))
            return None

        changes: dict[Place, Stmt | None] = {place: None}
        for p in users:
            b = as_block(p)
            init = None if b.init is None else rewrite(b.init, change)
            body, predicate = rewrite(b.body, change), rewrite(b.predicate, change)
            changes[p] = Block(b.name, b.axes, b.bindings, predicate, init, body, b.annotations)
        func = tree.rebuild(tree.replace(changes), drop=(buffer,))
        left = loops_at_once(place)
        if left:
            check_loops(tree_of(func), left, what)
        return func, None

    def _check_users(self, tree: Tree, place: Place, users: list[Place], buffer: Buffer) -> None:
        order = list(tree.blocks.values())
        for p in users:
            b = as_block(p)
            parts = [s for s in (b.init, b.body, b.predicate) if s is not None]
            if order.index(p) < order.index(place):
                raise ScheduleError(f"block {b.name} reads {buffer.name} before {self.block} writes it")
            if any(given is buffer for part in parts for given, _ in opaque_buffers(part)):
                raise ScheduleError(f"block {b.name} hands {buffer.name} to a foreign function; it cannot be inlined")
            if any("x" in i.dtype for n in accesses(b.body)[0] if n.buffer is buffer for i in n.indices):
                raise ScheduleError(f"block {b.name} reads vectors of {buffer.name}", hint="inline before vectorizing")


@dataclass(frozen=True, slots=True)
class ReverseComputeInline(Step):
    """Moves a pointwise consumer into the pointwise block that feeds it.

    B[i] = A[i] + 1
    C[i] = B[i] * 2      ->      C[i] = (A[i] + 1) * 2     in the loops of B
    """

    block: str

    def run(self, func: PrimFunc) -> tuple[PrimFunc, None]:
        tree = tree_of(func)
        place = tree.block(self.block)
        block = as_block(place)
        store, axes = plain_pointwise(tree, block)
        what = f"reverse_compute_inline of {self.block}"
        producer, reads = self._producer(tree, block, axes)
        pblock = as_block(producer)
        pstore, paxes = plain_pointwise(tree, pblock)
        check_computed(block, what)
        check_computed(pblock, what)
        check_not_read_before(tree, place, what)
        check_inputs_stay(tree, producer, what)
        order = list(tree.blocks.values())
        for buffer in read(block):
            for p in writers(tree, buffer):
                if order.index(p) > order.index(producer):
                    raise ScheduleError(f"{self.block} also needs {as_block(p).name}, which comes after {pblock.name}")
        extents = {a.var: a.extent for a in pblock.axes}
        mine = {a.var: a.extent for a in block.axes}
        mapping: dict[Any, Any] = {}
        for index, paxis in zip(reads.indices, paxes, strict=True):
            if mine[index] is not extents[paxis]:  # type: ignore[index]
                raise ScheduleError(f"{self.block} reads only a part of {pstore.buffer.name}")
            mapping[index] = paxis
        moved = BufferLoad(reads.buffer, tuple(mapping[i] for i in reads.indices))
        value = substitute(substitute(store.value, mapping), {moved: pstore.value})
        new = BufferStore(store.buffer, value, tuple(mapping[i] for i in store.indices))
        fused = Block(pblock.name, pblock.axes, pblock.bindings, pblock.predicate, None, new, pblock.annotations)
        func = tree.rebuild(tree.replace({place: None, producer: fused}), drop=(pstore.buffer,))
        after = tree_of(func)
        made = after.block(pblock.name)
        check_filled(after, made, what)
        check_loops(after, [*loops_at_once(place), *loops_at_once(made)], what)
        return func, None

    def _producer(self, tree: Tree, block: Block, axes: list[Var]) -> tuple[Place, BufferLoad]:
        """The block whose result this one reads at its plain axes, and that read."""
        candidates = []
        for load in accesses(block.body)[0]:
            index: list[Any] = list(load.indices)
            if is_param(tree, load.buffer) or set(index) != set(axes) or len(index) != len(axes):
                continue
            made, used = writers(tree, load.buffer), readers(tree, load.buffer)
            same = [n for n in accesses(block.body)[0] if n.buffer is load.buffer]
            if len(made) == 1 and len(used) == 1 and len(same) == 1 and as_block(made[0]).init is None:
                candidates.append((made[0], load))
        if not candidates:
            raise ScheduleError(
                f"block {self.block} has no pointwise producer that it alone reads at its plain axes",
                hint="a reduction takes its consumer by reverse_compute_at",
            )
        order = list(tree.blocks.values())
        return max(candidates, key=lambda c: order.index(c[0]))
