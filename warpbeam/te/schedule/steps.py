"""Steps that only the te schedule needs: a loop of one iteration, loops around a scan, a condition on stores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from warpbeam.tir.analysis.access import as_block
from warpbeam.tir.analysis.tree import annotated, tree_of
from warpbeam.tir.expr import PrimExpr, Var, land
from warpbeam.tir.schedule.step import Namer, Step
from warpbeam.tir.stmt import For, PrimFunc


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
