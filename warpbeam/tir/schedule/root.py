"""Back to the root: a block gets loops of its own again."""

from __future__ import annotations

from dataclasses import dataclass

from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.tir.analysis.access import as_block, read, writers
from warpbeam.tir.analysis.tree import facts_at, tree_of
from warpbeam.tir.schedule.legal import check_computed, check_not_read_before
from warpbeam.tir.schedule.place import only_writer, own_loops, region_nest
from warpbeam.tir.schedule.step import Namer, Step, top_nest
from warpbeam.tir.stmt import PrimFunc, seq


@dataclass(frozen=True, slots=True)
class ComputeRoot(Step):
    """Takes a block out of the loops of others: it is computed as a whole, before the nest in which it stood.

    for i_0 in 4:                               for i in 66: A(i)
        for i in 18: A(16*i_0 + i)     ->       for i_0 in 4:
        for i_1 in 16: B                            for i_1 in 16: B
    """

    block: str

    def run(self, func: PrimFunc) -> tuple[PrimFunc, None]:
        tree = tree_of(func)
        place = tree.block(self.block)
        block = as_block(place)
        top = top_nest(place)
        if len(tree.blocks_below(top)) == 1:
            return func, None
        what = f"compute_root of {self.block}"
        only_writer(tree, block)
        check_computed(block, what)
        check_not_read_before(tree, place, what)
        for buffer in read(block):
            for p in writers(tree, buffer):
                if p.within(top):
                    raise ScheduleError(
                        f"{what}: {buffer.name}, which it reads, is computed in the same loops",
                        hint=f"compute_root {as_block(p).name} first",
                    )
        names = own_loops(tree, place)
        first = as_block(tree.blocks_below(top)[0]).name
        if first == self.block:
            first = as_block(tree.blocks_below(top)[1]).name
        tree = tree_of(tree.update({place: None}))
        top = top_nest(tree.block(first))
        made = region_nest(block, {}, Namer(tree), names, facts_at(top))
        return tree.update({top: seq(made, top.stmt)}), None
