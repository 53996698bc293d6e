"""Axes of a block by its loops: what a block reads is then said in terms of loops that were fused and split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.ir.rewrite import post_order, rewrite, substitute
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import as_block, free_vars
from warpbeam.tir.analysis.tree import tree_of
from warpbeam.tir.arith import Facts, simplify
from warpbeam.tir.expr import PrimExpr, Var
from warpbeam.tir.schedule.step import Step
from warpbeam.tir.stmt import Block, BufferStore, For, IterVar, PrimFunc


@dataclass(frozen=True, slots=True)
class LoopAxes(Step):
    """Gives a block one axis for each loop that feeds several of its own, or one by its quotient and rest, in their
    place.

    for f in 12:                                        for f in 12:
        i = f // 4, j = f % 4: B[i, j] = A[4*i + j]  ->     k = f: B[k // 4, k % 4] = A[k]
    """

    block: str

    def run(self, func: PrimFunc) -> tuple[PrimFunc, None]:
        tree = tree_of(func)
        place = tree.block(self.block)
        block = as_block(place)
        loops = [p.stmt for p in reversed(list(place.ancestors())) if isinstance(p.stmt, For)]
        mixed = _mixed(block, {f.var for f in loops})
        loops = [f for f in loops if any(f.var in free_vars(b) for a, b in mixed)]
        self._check(block, loops)
        if not mixed:
            return func, None
        own = {f.var: Var(f.var.name, f.var.dtype) for f in loops}
        facts = Facts()
        for f in loops:
            facts.bind(own[f.var], 0, f.extent)
        whole: dict[Any, Any] = {a.var: substitute(b, own) for a, b in mixed}
        facts.assume(substitute(block.predicate, own))

        def index(n: Any) -> Any:
            return simplify(n, facts) if isinstance(n, PrimExpr) and dt.is_int(n.dtype) else None

        kept = [(a, b) for a, b in zip(block.axes, block.bindings, strict=True) if a.var not in whole]
        axes = (*(IterVar(own[f.var], f.extent) for f in loops), *(a for a, _ in kept))
        bindings = (*(f.var for f in loops), *(b for _, b in kept))

        def store(n: Any) -> Any:  # where it is stays as loops were made, which shows that iterations keep apart
            return BufferStore(n.buffer, rewrite(n.value, index), n.indices) if isinstance(n, BufferStore) else None

        body = rewrite(substitute(block.body, whole), store)
        made = Block(block.name, axes, bindings, block.predicate, None, body, block.annotations)
        return tree.update({place: made}), None

    def _check(self, block: Block, loops: list[For]) -> None:
        if block.init is not None or any(a.kind != "spatial" for a in block.axes):
            raise ScheduleError(
                f"block {self.block} has axes that are no loops over its result",
                hint="decompose its reduction first",
            )
        running = {f.var for f in loops}
        for f in loops:
            if e.const_int(f.min) != 0 or running & free_vars(f.extent):
                raise ScheduleError(
                    f"loop {f.var.name} around block {self.block} is no axis: it does not begin at 0, or its extent"
                    " depends on another loop",
                    hint='split with guard="kept"',
                )


def _mixed(block: Block, loops: set[Var]) -> list[tuple[IterVar, PrimExpr]]:
    """The axes with their bindings that share a loop with another one, directly or by way of others, or have the rest
    of one.
    """
    feeds = [(a, b, loops & free_vars(b)) for a, b in zip(block.axes, block.bindings, strict=True)]
    rests = [n for _, b, _ in feeds for n in post_order(b) if isinstance(n, e.FloorMod)]
    shared = {v for v in loops if sum(v in f for _, _, f in feeds) > 1 or any(v in free_vars(n) for n in rests)}
    while True:
        more = set().union(shared, *(f for _, _, f in feeds if f & shared))
        if more == shared:
            return [(a, b) for a, b, f in feeds if f & shared]
        shared = more
