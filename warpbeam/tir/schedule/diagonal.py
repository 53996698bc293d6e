"""Iterations of two loops along diagonals: neither variable stays while the other walks."""

from __future__ import annotations

from dataclasses import dataclass

from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import as_loop, mentions
from warpbeam.tir.analysis.tree import subst_structure, tree_of
from warpbeam.tir.schedule.loops import check_independent
from warpbeam.tir.schedule.step import Step
from warpbeam.tir.stmt import PrimFunc


@dataclass(frozen=True, slots=True)
class Diagonal(Step):
    """Adds the variable of an inner loop to that of the loop directly around it, and begins again at that one's end.

    for i in 4: for j in 6: B(i, j)     ->     for i in 4: for j in 6: B((i + j) % 4, j)

    Every pair comes exactly once. Elements of successive iterations are in other rows and in other columns.
    """

    outer: str
    inner: str

    def run(self, func: PrimFunc) -> tuple[PrimFunc, None]:
        tree = tree_of(func)
        around, place = tree.loop(self.outer), tree.loop(self.inner)
        outer, inner = as_loop(around), as_loop(place)
        what = f"diagonal of loops {self.outer} and {self.inner}"
        if place.parent is not around:
            raise ScheduleError(f"{what}: the second is not directly inside the first", hint="reorder them first")
        if any(e.const_int(f.min) != 0 or f.kind != "serial" for f in (outer, inner)):
            raise ScheduleError(f"{what}: one is not serial from 0", hint="make loops parallel after this")
        if mentions(inner.extent, {outer.var}):
            hint = "split both evenly, or partition the first loop"
            raise ScheduleError(f"{what}: the second's extent depends on the first", hint=hint)
        check_independent(tree, around, "walked along diagonals")
        check_independent(tree, place, "walked along diagonals")
        turned = e.floormod(outer.var + inner.var, outer.extent)
        body = inner.replace(body=subst_structure(inner.body, {outer.var: turned}))
        return tree.update({around: outer.replace(body=body)}), None
