"""Steps that only the te schedule needs: a loop of one iteration, loops around a scan, a condition on stores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from warpbeam.tir.analysis.access import as_block
from warpbeam.tir.analysis.tree import annotated, tree_of
from warpbeam.tir.expr import Buffer, PrimExpr, Var, land
from warpbeam.tir.schedule.step import Namer, Step
from warpbeam.tir.stmt import Allocate, For, PrimFunc


@dataclass(frozen=True, slots=True)
class AroundLoop(Step):
    """A loop around a loop or block. Gives its name.

    for i: B     ->     for x in extent: for i: B

    With more than one iteration the body runs again and again: right where each run gives the same result.
    """

    target: str
    name: str
    extent: Any = 1
    thread: str = ""

    def run(self, func: PrimFunc) -> tuple[PrimFunc, str]:
        tree = tree_of(func)
        place = tree.loops[self.target] if self.target in tree.loops else tree.block(self.target)
        var = Var(Namer(tree).loop(self.name))
        kind = "thread_binding" if self.thread else "serial"
        notes = {"each_thread_all": True} if self.thread else {}
        return tree.update({place: For(var, 0, self.extent, kind, place.stmt, notes, self.thread)}), var.name


@dataclass(frozen=True, slots=True)
class StoreWhere(Step):
    """The block runs only where a condition on loops around it holds."""

    block: str
    cond: PrimExpr

    def run(self, func: PrimFunc) -> tuple[PrimFunc, None]:
        tree = tree_of(func)
        place = tree.block(self.block)
        b = as_block(place)
        return tree.update({place: b.replace(predicate=land(b.predicate, self.cond))}), None


@dataclass(frozen=True, slots=True)
class Expose(Step):
    """Intermediate buffers become parameters: in the program's parameters stand `params`, in this order, first."""

    params: tuple[Any, ...]

    def run(self, func: PrimFunc) -> tuple[PrimFunc, None]:
        tree = tree_of(func)
        now = tree.buffers
        wanted = [now.get(p.name, p) if isinstance(p, Buffer) else p for p in self.params]
        body = tree.root.stmt
        for a in reversed(tree.allocs):
            if a.buffer not in wanted:
                body = Allocate(a.buffer, body, a.annotations)
        rest = [p for p in func.params if p not in wanted]
        return PrimFunc(func.name, (*wanted, *rest), body, func.attrs), None


@dataclass(frozen=True, slots=True)
class Note(Step):
    """A note on a block; unlike Annotate it takes expressions."""

    block: str
    key: str
    value: Any

    def run(self, func: PrimFunc) -> tuple[PrimFunc, None]:
        tree = tree_of(func)
        place = tree.block(self.block)
        b = as_block(place)
        return tree.update({place: b.replace(annotations=annotated(b.annotations, self.key, self.value))}), None
