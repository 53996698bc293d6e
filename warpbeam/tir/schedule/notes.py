"""Notes on loops and blocks: plain ones, which change nothing by themselves, and what lowering obeys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.ir.node import Attrs
from warpbeam.tir.analysis.access import as_loop
from warpbeam.tir.analysis.tree import Place, Tree, annotated, tree_of
from warpbeam.tir.schedule.loops import check_independent
from warpbeam.tir.schedule.step import Step
from warpbeam.tir.stmt import PrimFunc

PRAGMAS = {
    "auto_unroll_max_step": "unrolls inner loops while the unrolled body has at most so many steps",
    "auto_unroll_max_depth": "at most so many nested loops",
    "auto_unroll_max_extent": "loops of at most so many iterations, however long their bodies",
    "unroll_explicit": "whether unrolled loops are written out, or left to a device's compiler",
    "unroll": "leaves unrolling to a device's compiler",
    "import_c": "C source that is compiled with the kernel",
    "import_llvm": "LLVM text that is linked with the kernel",
    "loop_partition_hint": "cuts the loop where a condition inside becomes constant",
    "parallel_launch_point": "where threads are started",
    "parallel_stride_pattern": "iterations are dealt out in turn, not in runs",
    "parallel_barrier_when_finish": "threads wait for each other at the end",
    "debug_skip_region": "leaves the body out, to see what it costs",
}


def _noted(tree: Tree, target: str) -> Place:
    return tree.loops[target] if target in tree.loops else tree.block(target)


@dataclass(frozen=True, slots=True)
class Annotate(Step):
    """Attaches a note to a loop or block; it changes nothing by itself.

    for i in 4: B     ->     for i in 4 {"key": value}: B
    """

    target: str
    key: str
    value: Any

    def run(self, func: PrimFunc) -> tuple[PrimFunc, None]:
        tree = tree_of(func)
        place = _noted(tree, self.target)
        stmt: Any = place.stmt
        return tree.update({place: stmt.replace(annotations=annotated(stmt.annotations, self.key, self.value))}), None


@dataclass(frozen=True, slots=True)
class Unannotate(Step):
    """Takes a note off a loop or block.

    for i in 4 {"key": value}: B     ->     for i in 4: B
    """

    target: str
    key: str

    def run(self, func: PrimFunc) -> tuple[PrimFunc, None]:
        tree = tree_of(func)
        place = _noted(tree, self.target)
        stmt: Any = place.stmt
        if self.key not in stmt.annotations:
            raise ScheduleError(
                f"{self.target} has no note {self.key!r}", hint=f"its notes: {', '.join(stmt.annotations) or 'none'}"
            )
        notes = Attrs({k: v for k, v in stmt.annotations.items() if k != self.key})
        return tree.update({place: stmt.replace(annotations=notes)}), None


@dataclass(frozen=True, slots=True)
class Alternate(Step):
    """Walks a loop backwards in every other iteration of a loop `around` it, so that a walk begins with what the one
    before it left in the caches. Of a parallel loop, each thread walks its own part so.

    for t in 8:                lowering     for t in 8:
        for p in 24: B(p)         ->            for p in 24: B(p if t % 2 == 0 else 23 - p)

    Recorded on the loop as ("alternate": name of the loop around); lowering leaves the order where that is gone.
    """

    loop: str
    around: str

    def run(self, func: PrimFunc) -> tuple[PrimFunc, None]:
        tree = tree_of(func)
        place, outside = tree.loop(self.loop), tree.loop(self.around)
        if place is outside or not place.within(outside) or as_loop(place).kind not in ("serial", "parallel"):
            raise ScheduleError(
                f"alternate: loop {self.loop} by loop {self.around}",
                hint="the first must be a serial or parallel loop inside of the second",
            )
        check_independent(tree, place, "walked backwards")
        loop = as_loop(place)
        notes = annotated(loop.annotations, "alternate", self.around)
        return tree.update({place: loop.replace(annotations=notes)}), None


@dataclass(frozen=True, slots=True)
class Pragma(Step):
    """A request to lowering or code generation, kept on a loop as the note "pragma_<kind>"; see PRAGMAS.

    for i in 4: for j in 4: B     auto_unroll_max_step=16, lowering     ->     B; B; … 16 times
    """

    loop: str
    kind: str
    value: Any = True

    def run(self, func: PrimFunc) -> tuple[PrimFunc, None]:
        tree = tree_of(func)
        place = tree.loop(self.loop)
        if self.kind not in PRAGMAS:
            raise ScheduleError(f"unknown pragma {self.kind!r}", hint=f"one of {', '.join(PRAGMAS)}")
        f = as_loop(place)
        notes = annotated(f.annotations, f"pragma_{self.kind}", self.value)
        return tree.update({place: f.replace(annotations=notes)}), None
