"""Primitives on buffers: caches before and after a block, a clone of a producer, memory scope and alignment."""

from __future__ import annotations

from dataclasses import dataclass

from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.ir.rewrite import substitute
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import accesses, as_block, is_param, read, readers, writers, written
from warpbeam.tir.analysis.tree import Place, Tree, map_structure, tree_of
from warpbeam.tir.expr import Buffer, Var
from warpbeam.tir.schedule.legal import check_computed, check_inputs_stay, same_iteration
from warpbeam.tir.schedule.partition import replace_buffers
from warpbeam.tir.schedule.place import only_writer
from warpbeam.tir.schedule.step import Namer, Step, copy_block, full_nest, top_nest
from warpbeam.tir.stmt import Allocate, Block, For, PrimFunc, Stmt, seq

SCOPES = ("global", "local", "register", "shared", "warp", "wmma", "vtcm", "texture")


def _with_buffers(block: Block, mapping: dict[Buffer, Buffer]) -> Block:
    init = None if block.init is None else replace_buffers(block.init, mapping)
    body, predicate = replace_buffers(block.body, mapping), replace_buffers(block.predicate, mapping)
    return Block(block.name, block.axes, block.bindings, predicate, init, body, block.annotations)


def _only_result(block: Block) -> Buffer:
    found = written(block)
    if len(found) != 1:
        raise ScheduleError(f"block {block.name} writes {len(found)} buffers; this primitive needs one")
    return found[0]


@dataclass(frozen=True, slots=True)
class CacheWrite(Step):
    """The block computes into a new buffer; a new block copies it to the old place. Gives the copying block's name.

    C[i] += …     ->     C_local[i] += …;  C[i] = C_local[i]
    """

    block: str
    scope: str

    def run(self, func: PrimFunc) -> tuple[PrimFunc, str]:
        tree = tree_of(func)
        place = tree.block(self.block)
        block = as_block(place)
        buffer = _only_result(block)
        _check_scope(self.scope)
        namer = Namer(tree)
        cache = Buffer(namer.buffer(f"{buffer.name}_{self.scope}"), buffer.shape, buffer.dtype, self.scope)
        check_computed(block, f"cache_write of {self.block}")
        _check_whole(block, buffer)
        top = top_nest(place)
        if len(writers(tree, buffer)) > 1 or any(p.within(top) for p in readers(tree, buffer)):
            raise ScheduleError(
                f"{buffer.name} is also used inside the loops of {self.block}",
                hint="cache_write before compute_at, decompose_reduction and partition",
            )
        name = namer.block(f"{self.block}_write")
        copy = full_nest(copy_block(name, cache, buffer), namer)
        changed = tree_of(tree.update({place: _with_buffers(block, {buffer: cache})}))
        top = top_nest(changed.block(self.block))
        return changed.rebuild(changed.replace({top: seq(top.stmt, copy)}), add=(cache,)), name


def _check_whole(block: Block, buffer: Buffer) -> None:
    """Refuses a block that leaves some of its result as it was: a copy of the whole would overwrite that."""
    extents = {a.var: e.simplify_dim(a.extent) for a in block.axes if a.kind == "spatial"}
    stores = [s for part in (block.init, block.body) if part is not None for s in accesses(part)[1]]
    for store in stores:
        sizes = [extents.get(i) if isinstance(i, Var) else None for i in store.indices]
        if len(set(store.indices)) != len(sizes) or sizes != list(buffer.shape):
            raise ScheduleError(
                f"block {block.name} is not proven to write the whole of {buffer.name}",
                why="its indices are not just its axes over the buffer's shape",
                hint="cache_write before transform_layout and partition",
            )


@dataclass(frozen=True, slots=True)
class CacheRead(Step):
    """A new block copies a buffer before the block runs; the block reads the copy. Gives the copying block's name.

    C[i] = A[i] * 2     ->     A_local[i] = A[i];  C[i] = A_local[i] * 2

    `consumers`: further blocks that read the same copy.
    """

    block: str
    buffer: str
    scope: str
    consumers: tuple[str, ...] = ()

    def run(self, func: PrimFunc) -> tuple[PrimFunc, str]:
        tree = tree_of(func)
        _check_scope(self.scope)
        places = [tree.block(n) for n in dict.fromkeys((self.block, *self.consumers))]
        buffer = self._read_by_all(places)
        order = list(tree.blocks.values())
        places.sort(key=order.index)
        top, last = top_nest(places[0]), order.index(places[-1])
        for p in writers(tree, buffer):
            if p.within(top):
                raise ScheduleError(
                    f"{self.buffer} is computed in the same loops as {self.block}",
                    hint="only a part of it is there by then; cache_read before compute_at",
                )
            if order.index(tree.blocks_below(top)[0]) < order.index(p) < last:
                raise ScheduleError(f"{self.buffer} is written by {as_block(p).name} between its readers")
        namer = Namer(tree)
        cache = Buffer(namer.buffer(f"{buffer.name}_{self.scope}"), buffer.shape, buffer.dtype, self.scope)
        name = namer.block(f"{self.buffer}_read")
        copy = full_nest(copy_block(name, buffer, cache), namer)
        changed = tree_of(tree.update({p: _with_buffers(as_block(p), {buffer: cache}) for p in places}))
        top = top_nest(changed.block(as_block(places[0]).name))
        return changed.rebuild(changed.replace({top: seq(copy, top.stmt)}), add=(cache,)), name

    def _read_by_all(self, places: list[Place]) -> Buffer:
        found: Buffer | None = None
        for p in places:
            block = as_block(p)
            found = {b.name: b for b in read(block)}.get(self.buffer)
            if found is None:
                raise ScheduleError(
                    f"block {block.name} does not read {self.buffer}", hint=f"it reads {[b.name for b in read(block)]}"
                )
        assert found is not None
        return found


@dataclass(frozen=True, slots=True)
class Clone(Step):
    """Computes a producer a second time, into a buffer of its own, for one consumer. Gives the clone's name.

    B(A); C(B); D(B)     ->     B(A); B_1(A); C(B); D(B_1)
    """

    block: str
    consumer: str

    def run(self, func: PrimFunc) -> tuple[PrimFunc, str]:
        tree = tree_of(func)
        place, user = tree.block(self.block), tree.block(self.consumer)
        block = as_block(place)
        results = written(block)
        if not set(results) & set(read(as_block(user))):
            raise ScheduleError(f"{self.consumer} does not read {self.block}")
        if list(tree.blocks).index(self.consumer) < list(tree.blocks).index(self.block):
            raise ScheduleError(f"{self.consumer} runs before {self.block}")
        only_writer(tree, block)
        shared = same_iteration(place, user)
        check_computed(block, f"clone of {self.block}", shared)
        check_inputs_stay(tree, place, f"clone of {self.block}")
        top = top_nest(place)
        if len(tree.blocks_below(top)) > 1:  # beside its consumer, in loops of both
            own = [p for p in place.ancestors() if isinstance(p.stmt, For) and p.stmt.var not in shared]
            top = own[-1] if own else place
        if len(tree.blocks_below(top)) > 1:
            raise ScheduleError(f"{self.block} shares its loops with other blocks", hint="clone before compute_at")
        namer = Namer(tree)
        mapping = {b: Buffer(namer.buffer(b.name), b.shape, b.dtype, "global") for b in results}
        name = namer.block(self.block)
        around = [f for f in place.loops() if f.var not in shared or top is top_nest(place)]
        fresh = {f.var: Var(namer.loop(f.var.name), f.var.dtype) for f in around}

        def renamed(b: Block) -> Block:
            new = _with_buffers(b, mapping)
            bindings = [substitute(x, fresh) for x in b.bindings]
            return Block(name, b.axes, bindings, substitute(b.predicate, fresh), new.init, new.body, b.annotations)

        copy = _rename_loops(map_structure(top.stmt, lambda x: substitute(x, fresh), renamed), fresh)
        changes: dict[Place, Stmt | None] = {top: seq(top.stmt, copy), user: _with_buffers(as_block(user), mapping)}
        return tree.rebuild(tree.replace(changes), add=tuple(mapping.values())), name


def _rename_loops(stmt: Stmt, fresh: dict[Var, Var]) -> Stmt:
    if isinstance(stmt, For):
        body = _rename_loops(stmt.body, fresh)
        return For(fresh[stmt.var], stmt.min, stmt.extent, stmt.kind, body, stmt.annotations, stmt.thread)
    return stmt


@dataclass(frozen=True, slots=True)
class SetScope(Step):
    """Puts the buffers that a block writes into another memory scope: "global", "local", "register" or "shared"."""

    block: str
    scope: str

    def run(self, func: PrimFunc) -> tuple[PrimFunc, None]:
        tree = tree_of(func)
        _check_scope(self.scope)
        mapping = {}
        for b in written(as_block(tree.block(self.block))):
            if is_param(tree, b):
                raise ScheduleError(
                    f"{b.name} is a parameter; its memory is the caller's",
                    hint="use cache_write to compute into a buffer of your own",
                )
            mapping[b] = Buffer(b.name, b.shape, b.dtype, self.scope)
        return exchange(tree, mapping), None


def exchange(tree: Tree, mapping: dict[Buffer, Buffer]) -> PrimFunc:
    """The program with root-allocated buffers replaced by others of the same shape."""
    changes: dict[Place, Stmt | None] = {}
    for p in tree.blocks.values():
        b = as_block(p)
        if any(x in mapping for x in (*read(b, own=True), *written(b))):
            changes[p] = _with_buffers(b, mapping)
    body = tree.replace(changes)
    for a in reversed(tree.allocs):
        body = Allocate(mapping.get(a.buffer, a.buffer), body, a.annotations)
    return PrimFunc(tree.func.name, tree.func.params, body, tree.func.attrs)


def _check_scope(scope: str) -> None:
    """Scopes of our own, and those of targets, which may have a part after a dot: "wmma.matrix_a", "global.vtcm"."""
    first, dot, rest = scope.partition(".")
    if first not in SCOPES or (dot and not rest):
        raise ScheduleError(f"unknown memory scope {scope!r}", hint=f"one of {SCOPES}, or of them with .tag")
