"""Partition: one loop becomes two, so that what is irregular at the end stands apart from the regular part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.ir.rewrite import rewrite, substitute
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import as_block, as_loop, carries, is_param, read, written
from warpbeam.tir.analysis.coverage import filled_before_read
from warpbeam.tir.analysis.tree import Place, Tree, facts_at, kids, map_structure, rebind, tree_of
from warpbeam.tir.arith import Facts, prove, simplify
from warpbeam.tir.expr import Buffer, BufferLoad, BufferRef, IntImm, PrimExpr, Var
from warpbeam.tir.schedule.step import Namer, Step
from warpbeam.tir.stmt import Block, BufferStore, For, PrimFunc, Stmt, seq

Names = dict[str, str]


@dataclass(frozen=True, slots=True)
class Partition(Step):
    """Runs [0, at) and [at, extent) as two loops; the second copy's names get the suffix "_p1".

    for i in 4:                           for i in 3:
        for j in min(14, 49 - 14*i):          for j in 14: B(14*i + j)
            B(14*i + j)            ->     for i_p1 in 1:
                                              for j_p1 in 7: B_p1(14*i_p1 + 42 + j_p1)

    Buffers used only inside the loop get a copy for the second part. Gives (first, second, {old name: new name}).
    """

    loop: str
    at: int | PrimExpr

    def run(self, func: PrimFunc) -> tuple[PrimFunc, tuple[str, str, Names]]:
        tree = tree_of(func)
        place = tree.loop(self.loop)
        loop = as_loop(place)
        at = e.as_expr(self.at, loop.var.dtype)
        facts = facts_at(place)
        inside = e.land(e.const(0) <= at, at <= loop.extent)
        if e.const_int(loop.min) != 0 or prove(inside, facts) is not True:
            raise ScheduleError(
                f"partition of {self.loop} at {_text(self.at)}: not proven to lie in [0, extent]",
                hint="give a point between 0 and the extent of a loop that starts at 0",
            )
        for p in tree.blocks_below(place):
            if as_block(p).init is not None and carries(as_block(p), loop.var):
                raise ScheduleError(
                    f"loop {self.loop} carries the reduction of {as_block(p).name}, which starts in it",
                    hint="decompose_reduction first",
                )
        first_extent = simplify(at, facts)
        second_extent = simplify(loop.extent - at, facts)
        first = For(loop.var, 0, first_extent, loop.kind, loop.body, loop.annotations, loop.thread)
        copier = _Copier(tree, place)
        second = copier.copy(loop, at, second_extent)
        both = seq(resimplify(first, facts), resimplify(second, facts))
        new = tree.rebuild(tree.replace({place: both}), add=tuple(copier.buffers.values()))
        return new, (self.loop, copier.names[self.loop], copier.names)


def _text(value: Any) -> str:
    return str(value) if isinstance(value, int) else str(e.const_int(value) or "the given expression")


def resimplify(stmt: Stmt, facts: Facts) -> Stmt:
    """Extents that are no literals, simplified with what holds around them."""
    return _resimplify(stmt, facts) if _open_extents(stmt) else stmt


def _open_extents(stmt: Any) -> bool:
    """Whether the extent of some loop at or below a statement is not a literal."""
    stack = [stmt]
    while stack:
        s = stack.pop()
        if isinstance(s, For) and not isinstance(s.extent, IntImm):
            return True
        stack.extend(kids(s))
    return False


def _resimplify(stmt: Any, facts: Facts) -> Stmt:
    if type(stmt) is For:
        extent = stmt.extent if isinstance(stmt.extent, IntImm) else simplify(stmt.extent, facts)
        with facts.scope():  # that a loop runs at all is known inside it only
            if e.const_int(extent) != 0:
                facts.bind(stmt.var, stmt.min, extent)
            body = _resimplify(stmt.body, facts)
        return For(stmt.var, stmt.min, extent, stmt.kind, body, stmt.annotations, stmt.thread)
    below = getattr(stmt, "stmts", None)
    if below is not None:
        return seq(*[_resimplify(s, facts) for s in below])
    return stmt  # type: ignore[no-any-return]


class _Copier:
    """A second copy of everything below a loop, with names, loop variables and private buffers of its own."""

    def __init__(self, tree: Tree, place: Place) -> None:
        self.names: Names = {}
        self.vars: dict[Any, Any] = {}
        self.buffers: dict[Buffer, Buffer] = {}
        self.memo: dict[Any, Any] = {}
        namer = Namer(tree)
        inside = tree.blocks_below(place)
        for p in tree.loops.values():
            if p.within(place):
                old = as_loop(p).var
                self.names[old.name] = namer.loop(f"{old.name}_p1")
                self.vars[old] = Var(self.names[old.name], old.dtype)
        for p in inside:
            self.names[as_block(p).name] = namer.block(f"{as_block(p).name}_p1")
        for buffer in _private(tree, place, inside):
            new = Buffer(namer.buffer(f"{buffer.name}_p1"), buffer.shape, buffer.dtype, buffer.scope)
            self.buffers[buffer] = new
            self.names.setdefault(buffer.name, new.name)  # a block of the same name comes first

    def copy(self, loop: For, at: PrimExpr, extent: PrimExpr) -> Stmt:
        new = self.vars[loop.var]
        mapping = {**self.vars, loop.var: at + new}
        body = map_structure(loop.body, lambda x: self._expr(x, mapping), lambda b: self._block(b, mapping))
        return self._rename(For(new, 0, extent, loop.kind, body, loop.annotations, loop.thread), True)

    def _expr(self, x: PrimExpr, mapping: dict[Any, Any]) -> PrimExpr:
        return x if isinstance(x, IntImm) else substitute(x, mapping)

    def _block(self, block: Block, mapping: dict[Any, Any]) -> Block:
        b = rebind(block, lambda x: self._expr(x, mapping))
        body, init = self._buffers(b.body), None if b.init is None else self._buffers(b.init)
        name = self.names[block.name]
        return Block(name, b.axes, b.bindings, b.predicate, init, body, b.annotations)

    def _buffers(self, stmt: Stmt) -> Stmt:
        return replace_buffers(stmt, self.buffers, self.memo)  # type: ignore[no-any-return]

    def _rename(self, stmt: Any, top: bool = False) -> Stmt:
        """Loop variables below the copied loop, replaced by the copy's."""
        if type(stmt) is For:
            var = stmt.var if top else self.vars[stmt.var]
            return For(var, stmt.min, stmt.extent, stmt.kind, self._rename(stmt.body), stmt.annotations, stmt.thread)
        below = getattr(stmt, "stmts", None)
        return stmt if below is None else seq(*[self._rename(s) for s in below])


def _private(tree: Tree, place: Place, inside: list[Place]) -> list[Buffer]:
    """Buffers that only blocks below the place use."""
    found = dict.fromkeys(b for p in inside for b in written(as_block(p)) if not is_param(tree, b))
    below = set(inside)
    for p in tree.blocks.values():
        if found and p not in below:
            for b in (*read(as_block(p), own=True), *written(as_block(p))):
                found.pop(b, None)
    return [b for b in found if filled_before_read(tree, place, b, inside)]


def replace_buffers(stmt: Any, mapping: dict[Buffer, Buffer], memo: dict[Any, Any] | None = None) -> Any:
    """Every load, store and pointer of a mapped buffer goes to its replacement instead, at the same indices."""
    if not mapping:
        return stmt

    def change(n: Any) -> Any:
        if isinstance(n, BufferLoad) and n.buffer in mapping:
            return BufferLoad(mapping[n.buffer], n.indices)
        if isinstance(n, BufferStore) and n.buffer in mapping:
            return BufferStore(mapping[n.buffer], n.value, n.indices)
        if isinstance(n, BufferRef) and n.buffer in mapping:
            return BufferRef(mapping[n.buffer])
        return None

    return rewrite(stmt, change, memo)
