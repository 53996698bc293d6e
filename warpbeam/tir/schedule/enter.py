"""Enter: a nest whose extents only the run tells stands under the condition that it has iterations at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import as_loop, free_vars
from warpbeam.tir.analysis.tree import facts_at, tree_of
from warpbeam.tir.arith import prove
from warpbeam.tir.schedule.step import Step
from warpbeam.tir.stmt import For, IfThenElse, PrimFunc


@dataclass(frozen=True, slots=True)
class Enter(Step):
    """Enters a loop only where it, and those that stand alone in each other in it, have iterations. That changes
    nothing, but inside it is known: extents that may come out negative divide into whole tiles and a rest.

    for i in n - 2:                      if n - 2 >= 1 and m - 2 >= 1:
        for j in m - 2: B(i, j)   ->         for i in n - 2:
                                                 for j in m - 2: B(i, j)
    """

    loop: str

    def run(self, func: PrimFunc) -> tuple[PrimFunc, None]:
        tree = tree_of(func)
        place = tree.loop(self.loop)
        facts, own, asked = facts_at(place), set[Any](), list[Any]()
        stmt: Any = place.stmt
        while isinstance(stmt, For):
            runs = stmt.extent >= 1
            if not own & free_vars(stmt.extent) and prove(runs, facts) is not True:
                asked.append(runs)
            own.add(stmt.var)
            stmt = stmt.body
        if not asked:
            return func, None
        return tree.update({place: IfThenElse(e.land(*asked), as_loop(place))}), None
