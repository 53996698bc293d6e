"""Merging: neighbouring loops of one extent become one loop."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import as_block, as_loop, read, written
from warpbeam.tir.analysis.dependence import block_accesses, by_buffer, keeps_apart
from warpbeam.tir.analysis.tree import Place, facts_at, subst_structure, tree_of
from warpbeam.tir.arith import prove
from warpbeam.tir.schedule.step import Step
from warpbeam.tir.stmt import For, PrimFunc, SeqStmt, Stmt, seq


@dataclass(frozen=True, slots=True)
class Merge(Step):
    """Makes one loop of neighbouring ones, where each iteration only needs what the same one before it has made.

    for i in 8: A(i)
    for j in 8: B(j)      ->      for i in 8: A(i); B(i)

    Gives the name of the loop, that of the first.
    """

    loops: tuple[str, ...]

    def run(self, func: PrimFunc) -> tuple[PrimFunc, str]:
        tree = tree_of(func)
        places = sorted((tree.loop(n) for n in self.loops), key=lambda p: p.index)
        self._check_shape(places)
        first = as_loop(places[0])
        parts = [[as_block(b).name for b in tree.blocks_below(p)] for p in places]
        bodies = [first.body]
        for p in places[1:]:
            f = as_loop(p)
            bodies.append(subst_structure(f.body, {f.var: first.var}))
        whole = For(first.var, first.min, first.extent, first.kind, seq(*bodies), first.annotations, first.thread)
        changes: dict[Place, Stmt | None] = {places[0]: whole}
        changes.update(dict.fromkeys(places[1:]))
        new = tree.update(changes)
        self._check_order(new, first.var.name, parts)
        return new, first.var.name

    def _check_shape(self, places: list[Place]) -> None:
        if len(set(self.loops)) != len(self.loops) or len(self.loops) < 2:
            raise ScheduleError(f"merge needs different loops, got {self.loops}")
        first = as_loop(places[0])
        for a, b in pairwise(places):
            if a.parent is None or a.parent is not b.parent or not isinstance(a.parent.stmt, SeqStmt):
                raise ScheduleError(f"loops {self.loops} are not in one sequence")
            if b.index != a.index + 1:
                raise ScheduleError(f"there are statements between loops {self.loops}", hint="merge neighbours")
        for p in places:
            f = as_loop(p)
            same = f.extent is first.extent or prove(f.extent == first.extent, facts_at(p)) is True
            if f.kind != "serial" or e.const_int(f.min) != 0 or not same:
                raise ScheduleError(
                    f"loops {self.loops} are not serial loops from 0 with the same extent",
                    hint="split both by the same number first",
                )

    def _check_order(self, func: PrimFunc, name: str, parts: list[list[str]]) -> None:
        tree = tree_of(func)
        place = tree.loop(name)
        loop = as_loop(place)
        part_of = {b: k for k, names in enumerate(parts) for b in names}
        below = tree.blocks_below(place)
        users: dict[object, set[int]] = {}
        for p in below:
            for buffer in (*read(as_block(p), own=True), *written(as_block(p))):
                users.setdefault(buffer, set()).add(part_of[as_block(p).name])
        moving = frozenset((loop.var,))
        groups = by_buffer(a for p in below for a in block_accesses(tree, p, moving, place.depth))
        for buffer, found in groups.items():
            if len(users[buffer]) > 1 and not keeps_apart(found, {loop.var: loop.extent}):
                raise ScheduleError(
                    f"loops {self.loops} use the same elements of {buffer.name} in different iterations",
                    why="or it is not proven that they do not",
                    hint="compute_at places a producer where its consumer needs it",
                )
