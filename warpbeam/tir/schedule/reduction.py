"""Primitives on reductions: the start apart from the updates, and partial results over one loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.ir.node import Attrs
from warpbeam.ir.rewrite import substitute
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import (
    accesses,
    as_block,
    as_loop,
    binding_vars,
    carries,
    free_vars,
    mentions,
    reduce_top,
    writers,
)
from warpbeam.tir.analysis.dependence import injective, once_each
from warpbeam.tir.analysis.regions import upper_bound
from warpbeam.tir.analysis.tree import Place, Tree, facts_at, tree_of
from warpbeam.tir.expr import Buffer, BufferLoad, PrimExpr, Var
from warpbeam.tir.schedule.guard import at_start
from warpbeam.tir.schedule.step import Namer, Step, nest
from warpbeam.tir.stmt import Block, BufferStore, For, IterVar, PrimFunc, Stmt, seq

_IDENTITY: dict[type, Callable[[str], Any]] = {
    e.Add: lambda t: e.const(0, t),
    e.Mul: lambda t: e.const(1, t),
    e.Min: lambda t: e.const(float("inf") if dt.is_float(t) else dt.int_range(t)[1], t),
    e.Max: lambda t: e.const(float("-inf") if dt.is_float(t) else dt.int_range(t)[0], t),
    e.And: lambda t: e.const(True, t),
    e.Or: lambda t: e.const(False, t),
}


def spatial_copy(place: Place, outer: Place, namer: Namer | None, suffix: str) -> tuple[list[For], dict[Var, PrimExpr]]:
    """Copies of the loops from `outer` to the block that its spatial axes use, and the renaming of their variables."""
    block = as_block(place)
    wanted = binding_vars(block, "spatial") | binding_vars(block, "ordered")
    chain = [f for f in place.loops() if f in _below(place, outer)]
    fresh: dict[Var, PrimExpr] = {}
    loops: list[For] = []
    carried = {f.var for f in chain if f.var not in wanted}
    for f in chain:
        if f.var not in wanted:
            continue
        if mentions(f.extent, carried) or mentions(f.min, carried):
            raise ScheduleError(f"the extent of loop {f.var.name} depends on the reduction of {block.name}")
        name = f"{f.var.name}{suffix}"
        var = Var(namer.loop(name) if namer else name, f.var.dtype)
        kind = "serial" if f.kind == "parallel" else f.kind
        loops.append(For(var, substitute(f.min, fresh), substitute(f.extent, fresh), kind, f.body, _notes(f), f.thread))
        fresh[f.var] = var
    return loops, fresh


def _notes(f: For) -> Attrs:
    """A loop's notes for a copy with another body, of which those on its statements and reads say nothing."""
    return Attrs({k: v for k, v in f.annotations.items() if not k.startswith(("software_pipeline_", "prefetch"))})


def _below(place: Place, outer: Place) -> list[For]:
    """The loops from `outer` inwards to the place, inner to outer."""
    return [p.stmt for p in place.ancestors() if p.depth >= outer.depth and isinstance(p.stmt, For)]


def decompose(tree: Tree, place: Place, outer: Place) -> tuple[dict[Place, Stmt | None], str]:
    """The changes that put the block's init before the loop at `outer`, and the init block's name."""
    block = as_block(place)
    if block.init is None:
        raise ScheduleError(f"block {block.name} has no init", hint="it is no reduction, or is already decomposed")
    if not place.within(outer):
        raise ScheduleError(f"loop {as_loop(outer).var.name} is not around block {block.name}")
    for p in outer.ancestors():
        if isinstance(p.stmt, For) and carries(block, p.stmt.var):
            raise ScheduleError(
                f"loop {p.stmt.var.name}, outside {as_loop(outer).var.name}, also carries the reduction of "
                f"{block.name}: it would start anew each time",
                hint=f"decompose at {p.stmt.var.name}",
            )
    check_once(place, outer, "decompose_reduction")
    namer = Namer(tree)
    loops, fresh = spatial_copy(place, outer, namer, "_init")
    axes, bindings = [], []
    for a, b in zip(block.axes, block.bindings, strict=True):
        if a.kind != "reduce":
            axes.append(a)
            bindings.append(substitute(b, fresh))
    name = namer.block(f"{block.name}_init")
    first = at_start(block.predicate, [f for f in _below(place, outer) if f.var not in fresh], fresh)
    start = Block(name, axes, bindings, first, None, block.init, block.annotations)
    update = Block(block.name, block.axes, block.bindings, block.predicate, None, block.body, block.annotations)
    changed = tree_of(tree.update({place: update}))
    inner = changed.loop(as_loop(outer).var.name).stmt
    return {outer: seq(nest(loops, start), inner)}, name


def check_once(place: Place, outer: Place, what: str) -> None:
    """Refuses a reduction that loops from `outer` inwards compute more than once, each time from the start."""
    if not once_each(place, outer.depth) and not _all_different(place, outer):
        raise ScheduleError(
            f"{what}: inside loop {as_loop(outer).var.name} some elements of block {as_block(place).name} are "
            f"computed more than once, or it is not proven that they are not",
            hint="choose a loop further in, or split evenly",
        )


def _all_different(place: Place, outer: Place) -> bool:
    """Whether the loops from `outer` inwards run different instances of a block each time."""
    loops = {f.var: f.extent for f in _below(place, outer)}
    if any(e.const_int(f.min) != 0 for f in _below(place, outer)):
        return False
    return injective(list(as_block(place).bindings), loops, place)


@dataclass(frozen=True, slots=True)
class DecomposeReduction(Step):
    """Writes the reduction's start as a block of its own before a loop. Gives that block's name.

    for i: for k:                            for i:
        C(init C[i] = 0; C[i] += A[i, k])  ->    C_init: C[i] = 0
                                                 for k: C[i] += A[i, k]
    """

    block: str
    loop: str

    def run(self, func: PrimFunc) -> tuple[PrimFunc, str]:
        tree = tree_of(func)
        changes, name = decompose(tree, tree.block(self.block), tree.loop(self.loop))
        return tree.update(changes), name


@dataclass(frozen=True, slots=True)
class RFactor(Step):
    """Partial results over one reduction loop in a buffer with one more dimension, then their sum.

    for i: for k_0: for k_1:             for i:
        C[i] += A[i, 16*k_0 + k_1]   ->      for k_1_init in 16: C_rf[k_1, i] = 0
                                             for k_0: for k_1: C_rf[k_1, i] += A[i, 16*k_0 + k_1]
                                             for k_1_rf in 16: C[i] += C_rf[k_1_rf, i]

    Gives the name of the partial block. The final block keeps the name of the old one. After decompose_reduction (and
    partition) the partial results start from the operation's identity and join what the result holds already.
    """

    loop: str
    axis: int = 0

    def run(self, func: PrimFunc) -> tuple[PrimFunc, str]:
        tree = tree_of(func)
        target = tree.loop(self.loop)
        below = tree.blocks_below(target)
        if len(below) != 1:
            raise ScheduleError(f"loop {self.loop} holds {len(below)} blocks; rfactor needs one")
        place = below[0]
        top = reduce_top(place)
        block = as_block(place)
        if top is None or not carries(block, as_loop(target).var):
            raise ScheduleError(f"loop {self.loop} does not carry the reduction of block {block.name}")
        both = binding_vars(block, "spatial") & binding_vars(block, "reduce")
        if both:
            raise ScheduleError(
                f"loop {next(iter(both)).name} is part of both a spatial and a reduction axis of {block.name}",
                hint="rfactor before fusing them",
            )
        check_once(place, top, "rfactor")
        return _Factor(tree, place, target, top, self.axis).run()


class _Factor:
    def __init__(self, tree: Tree, place: Place, target: Place, top: Place, axis: int) -> None:
        self.tree, self.place, self.target, self.top = tree, place, target, top
        self.block = as_block(place)
        self.namer = Namer(tree)
        self.loop = as_loop(target)
        self.store, self.op, self.value = _update(self.block)
        self.old = self.store.buffer
        alone = self.block.init is None or len(writers(tree, self.old)) == 1
        if not 0 <= axis <= len(self.old.shape) or not alone:
            raise ScheduleError(f"rfactor of {self.block.name} at dimension {axis} of {self.old.name}")
        lanes = upper_bound(self.loop.extent, facts_at(target))
        if lanes is None:
            raise ScheduleError(
                f"the extent of loop {self.loop.var.name} has no constant bound",
                hint="split it by a number and rfactor the inner part",
            )
        self.lanes, self.axis = lanes, axis
        shape = (*self.old.shape[:axis], lanes, *self.old.shape[axis:])
        scope = self.old.scope if self.old.scope != "register" else "local"
        self.buffer = Buffer(self.namer.buffer(f"{self.old.name}_rf"), shape, self.old.dtype, scope)

    def _index(self, lane: PrimExpr, index: tuple[PrimExpr, ...]) -> tuple[PrimExpr, ...]:
        return (*index[: self.axis], lane, *index[self.axis :])

    def run(self) -> tuple[PrimFunc, str]:
        name = self.namer.block(f"{self.block.name}_rf")
        start = self._start(f"{name}_init")
        partial = self._partial(name)
        final = self._final()
        changed = tree_of(self.tree.update({self.place: partial}))
        top = changed.loop(as_loop(self.top).var.name)
        body = changed.replace({top: seq(start, top.stmt, final)})
        return changed.rebuild(body, add=(self.buffer,)), name

    def _spatial(self, suffix: str) -> tuple[list[For], list[IterVar], list[PrimExpr], IterVar, Var, PrimExpr]:
        """Copied spatial loops, the block's spatial axes with bindings, an axis and a loop over the lanes, and the
        predicate of the first instance."""
        loops, fresh = spatial_copy(self.place, self.top, self.namer, suffix)
        axes = [a for a in self.block.axes if a.kind != "reduce"]
        bound = [substitute(b, fresh) for a, b in zip(self.block.axes, self.block.bindings) if a.kind != "reduce"]
        lane = Var(self.namer.loop(f"{self.loop.var.name}{suffix}"))
        axis = IterVar(Var(self.loop.var.name), self.lanes, "spatial")
        carried = [f for f in _below(self.place, self.top) if f.var not in fresh]
        return loops, axes, bound, axis, lane, at_start(self.block.predicate, carried, fresh)

    def _start(self, name: str) -> Stmt:
        loops, axes, bound, axis, lane, first = self._spatial("_init")
        init = self.block.init
        value = init.value if isinstance(init, BufferStore) else _IDENTITY[self.op](self.old.dtype)
        body = BufferStore(self.buffer, value, self._index(axis.var, self.store.indices))
        block = Block(self.namer.block(name), (axis, *axes), (lane, *bound), first, None, body)
        return nest(loops, For(lane, 0, self.lanes, "serial", block))

    def _partial(self, name: str) -> Block:
        """The update block: reduce axes that the loop feeds are replaced by the loops that feed them."""
        axes: list[IterVar] = []
        bindings: list[PrimExpr] = []
        mapping: dict[Any, Any] = {}
        lane: Var | None = None
        for a, b in zip(self.block.axes, self.block.bindings, strict=True):
            if self.loop.var not in free_vars(b):
                axes.append(a)
                bindings.append(b)
                continue
            inside: dict[Any, Any] = {}
            for f in self.place.loops():
                if f.var not in free_vars(b):
                    continue
                kind = "spatial" if f.var is self.loop.var else "reduce"
                bound = self.lanes if kind == "spatial" else upper_bound(f.extent, facts_at(self.place))
                axis = IterVar(Var(f.var.name), f.extent if bound is None else bound, kind)
                inside[f.var] = axis.var
                axes.append(axis)
                bindings.append(f.var)
            lane = inside[self.loop.var]
            mapping[a.var] = substitute(b, inside)
        assert lane is not None
        index = self._index(lane, self.store.indices)
        acc = BufferLoad(self.buffer, index)
        value = self.op(acc, substitute(self.value, mapping))
        body = BufferStore(self.buffer, value, index)
        return Block(name, axes, bindings, self.block.predicate, None, body, self.block.annotations)

    def _final(self) -> Stmt:
        loops, axes, bound, axis, lane, first = self._spatial("_rf")
        reduce = IterVar(axis.var, self.lanes, "reduce")
        load = BufferLoad(self.buffer, self._index(axis.var, self.store.indices))
        value = self.op(BufferLoad(self.old, self.store.indices), load)
        body = BufferStore(self.old, value, self.store.indices)
        block = Block(self.block.name, (*axes, reduce), (*bound, lane), first, self.block.init, body)
        return nest(loops, For(lane, 0, self.lanes, "serial", block))


def _update(block: Block) -> tuple[BufferStore, Any, PrimExpr]:
    """(store, operation, value) of an update `C[…] = op(C[…], value)` with a commutative operation."""
    store = block.body
    init = block.init is None or isinstance(block.init, BufferStore)
    if isinstance(store, BufferStore) and init and type(store.value) in _IDENTITY:
        own = BufferLoad(store.buffer, store.indices)
        for mine, value in ((store.value.a, store.value.b), (store.value.b, store.value.a)):  # type: ignore[attr-defined]
            if mine is own and all(n.buffer is not store.buffer for n in accesses(value)[0]):
                return store, type(store.value), value
    raise ScheduleError(
        f"the update of block {block.name} is not of the form C = op(C, x)",
        hint="rfactor needs one result and one of + * min max and or",
    )
