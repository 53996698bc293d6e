"""Blockize: the loops inside a loop become part of a block, so that the tile they compute is one instance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.ir.rewrite import substitute
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import as_block, as_loop, binding_vars, free_vars
from warpbeam.tir.analysis.tree import Place, facts_at, tree_of
from warpbeam.tir.arith import simplify
from warpbeam.tir.arith.iter_map import IterSum, detect_iter_map, is_bijective
from warpbeam.tir.expr import PrimExpr, Var
from warpbeam.tir.schedule.step import Step, nest
from warpbeam.tir.stmt import Block, For, IterVar, PrimFunc, Stmt


@dataclass(frozen=True, slots=True)
class Blockize(Step):
    """Makes a loop, the loops inside and their block one block over tiles. Gives its name, the old one's.

    for i_0 in 4:                                      for i_0 in 4:
        for i_1 in 16:                        ->           block B(i_o = i_0):
            block B(i = i_0*16 + i_1): …                       for i_1 in 16: … with i = i_o*16 + i_1
    """

    loop: str

    def run(self, func: PrimFunc) -> tuple[PrimFunc, str]:
        tree = tree_of(func)
        target = tree.loop(self.loop)
        below = tree.blocks_below(target)
        if len(below) != 1:
            raise ScheduleError(f"blockize: loop {self.loop} holds {len(below)} blocks", hint="it needs one")
        place = below[0]
        block = as_block(place)
        inner = self._inner(place, target)
        sizes = {f.var: f.extent for f in inner}
        tiles = self._tiles(place, block, sizes)
        axes, bindings, at = [], [], {}
        for axis, (count, low, inside) in zip(block.axes, tiles, strict=True):
            size = simplify(e.floordiv(axis.extent, count))
            outer = IterVar(Var(f"{axis.var.name}_o", axis.var.dtype), size, axis.kind)
            axes.append(outer)
            bindings.append(low)
            at[axis.var] = outer.var * count + inside
        body = nest(inner, substitute(block.body, at))
        init = None if block.init is None else self._start(block, inner, at)
        made = Block(block.name, axes, bindings, block.predicate, init, body, block.annotations)
        return tree.update({target: made}), block.name

    def _inner(self, place: Place, target: Place) -> list[For]:
        chain = [p for p in [*place.ancestors()] if p.depth >= target.depth]
        loops = [as_loop(p) for p in reversed(chain) if isinstance(p.stmt, For)]
        if len(loops) != len(chain):
            raise ScheduleError(f"blockize: loop {self.loop} and those inside are not directly nested")
        for f in loops:
            if e.const_int(f.min) != 0 or e.const_int(f.extent) is None or f.kind in ("parallel", "thread_binding"):
                raise ScheduleError(
                    f"blockize: loop {f.var.name} is {f.kind} or its extent is not constant", hint="split evenly"
                )
        if not free_vars(as_block(place).predicate).isdisjoint(f.var for f in loops):
            raise ScheduleError(f"blockize: some iterations inside {self.loop} are left out", hint="split evenly")
        return loops

    def _tiles(self, place: Place, block: Block, sizes: dict[Var, Any]) -> list[tuple[int, PrimExpr, PrimExpr]]:
        """Per axis: its extent inside a tile, the tile's number, and the position in it."""
        forms = detect_iter_map(list(block.bindings), sizes)
        inside = None if forms is None else [IterSum(f.splits, 0).expr() for f in forms]
        if forms is None or inside is None or not is_bijective(inside, sizes):
            raise ScheduleError(
                f"blockize: what {block.name} computes inside {self.loop} is no box",
                hint="split the block's axes evenly, and blockize outside of all inner parts",
            )
        facts = facts_at(place)
        found = []
        for axis, form, part in zip(block.axes, forms, inside, strict=True):
            count = 1
            for s in form.splits:
                count *= e.const_int(e.as_expr(s.extent)) or 1
            base = e.as_expr(form.base)
            whole = e.const_int(simplify(axis.extent % count, facts)) == 0
            if not whole or e.const_int(simplify(base % count, facts)) != 0:
                raise ScheduleError(
                    f"blockize: tiles of {count} do not divide axis {axis.var.name} of {block.name}",
                    hint="pad_einsum or partition first",
                )
            found.append((count, simplify(base // count, facts), part))
        return found

    def _start(self, block: Block, inner: list[For], at: dict[Var, PrimExpr]) -> Stmt:
        wanted = binding_vars(block, "spatial")
        fresh: dict[Any, Any] = {}
        loops = []
        for f in inner:
            if f.var in wanted:
                var = Var(f"{f.var.name}_init", f.var.dtype)
                fresh[f.var] = var
                loops.append(For(var, f.min, f.extent, f.kind, f.body, f.annotations))
        assert block.init is not None
        start: Stmt = substitute(substitute(block.init, at), fresh)
        return nest(loops, start)
