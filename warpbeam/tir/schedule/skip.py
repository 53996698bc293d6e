"""Skipping: updates of a sum that would add a product with a border's zero are left out."""

from __future__ import annotations

from dataclasses import dataclass

from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.ir.rewrite import substitute
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import accesses, as_block, free_vars, plain_axes, writers
from warpbeam.tir.analysis.predicate import conjuncts, unconditional
from warpbeam.tir.analysis.regions import upper_bound
from warpbeam.tir.analysis.tree import Place, Tree, facts_at, tree_of
from warpbeam.tir.arith import linear
from warpbeam.tir.expr import BufferLoad, PrimExpr, Var
from warpbeam.tir.schedule.step import Step
from warpbeam.tir.stmt import Block, BufferStore, PrimFunc


@dataclass(frozen=True, slots=True)
class SkipZeros(Step):
    """Leaves out the products with a border of zeros along some dimensions of an operand.

    P[i] = if_then_else(i >= 1 and i < 8, X[i - 1], 0.0)           P[i] = …
    for h in 7:                                                    for h in 7:
        for k in 3:                                       ->           for k in 3:
            C[h] = C[h] + P[h + k] * W[k]                                  if h + k >= 1 and h + k < 8:
                                                                               C[h] = C[h] + P[h + k] * W[k]

    Sums stay what they are for finite operands. The start of the sum must stand apart (decompose_reduction).

    together: loops of which all iterations are left out or none: where one of them may read no border, all add.
    """

    block: str
    buffer: str
    dims: tuple[int, ...]
    together: tuple[str, ...] = ()

    def run(self, func: PrimFunc) -> tuple[PrimFunc, None]:
        tree = tree_of(func)
        place = tree.block(self.block)
        block = as_block(place)
        load = self._factor(block)
        axes, inside = self._border(tree, load)
        at = dict(zip(axes, load.indices, strict=True))
        own = {a.var: b for a, b in zip(block.axes, block.bindings, strict=True)}
        tests = [self._weakest(substitute(substitute(c, at), own), place) for c in inside]
        predicate = e.land(block.predicate, *tests)
        return tree.update({place: _with_predicate(place, predicate)}), None

    def _weakest(self, test: PrimExpr, place: Place) -> PrimExpr:
        """A condition that holds where the given one does for some iteration of the loops taken together."""
        for f in place.loops():
            if f.var.name not in self.together or f.var not in free_vars(test):
                continue
            first, count, slope = e.const_int(f.min), upper_bound(f.extent, facts_at(place)), None
            if isinstance(test, e.LT | e.LE | e.GT | e.GE):
                form = linear(test.b - test.a if isinstance(test, e.LT | e.LE) else test.a - test.b, [f.var])
                slope = None if form is None else e.const_int(form[0].get(f.var, 0))
            if first is None or count is None or slope is None:
                raise ScheduleError(
                    f"skip_zeros: how the border depends on {f.var.name} is not known",
                    hint="loops taken together are of bounded extents, and the border begins and ends along them once",
                )
            test = substitute(test, {f.var: e.const(first + (count - 1) * (slope > 0), f.var.dtype)})
        return test

    def _factor(self, block: Block) -> BufferLoad:
        """The read of the operand, a factor of what a block adds to its result."""
        store = block.body
        added = None
        if isinstance(store, BufferStore) and isinstance(store.value, e.Add) and block.init is None:
            sum_, added = store.value.a, store.value.b
            if sum_ is not BufferLoad(store.buffer, store.indices):
                added = None
        for side in (added.a, added.b) if isinstance(added, e.Mul) else ():
            while isinstance(side, e.Cast):
                side = side.value
            if isinstance(side, BufferLoad) and side.buffer.name == self.buffer:
                return side
        raise ScheduleError(
            f"skip_zeros: {self.block} does not add a product with {self.buffer}",
            hint="it takes the updates of a sum of products; decompose_reduction first",
        )

    def _border(self, tree: Tree, load: BufferLoad) -> tuple[list[Var], list[PrimExpr]]:
        """The axes of the block that makes the operand, and its conditions on those dimensions."""
        made = writers(tree, load.buffer)
        store = as_block(made[0]).body if len(made) == 1 and unconditional(as_block(made[0])) else None
        axes = plain_axes(as_block(made[0]), store) if isinstance(store, BufferStore) else None
        value = store.value if isinstance(store, BufferStore) else None
        zero = isinstance(value, e.Call) and value.op == "if_then_else" and _is_zero(value.args[2])
        if axes is None or not zero or not all(0 <= k < len(axes) for k in self.dims):
            raise ScheduleError(
                f"skip_zeros: {self.buffer} is no copy with a border of zeros along dimensions {self.dims}",
                hint="one block makes it, as if_then_else(inside, value, 0)",
            )
        assert isinstance(value, e.Call)
        wanted, sizes = {axes[k] for k in self.dims}, {p for p in tree.func.params if isinstance(p, Var)}
        tests = [c for c in conjuncts(value.args[0]) if not accesses(c)[0]]
        tests = [c for c in tests if free_vars(c) & wanted and free_vars(c) - wanted <= sizes]
        return axes, tests


def _is_zero(x: PrimExpr) -> bool:
    return isinstance(x, e.IntImm | e.FloatImm) and x.value == 0


def _with_predicate(place: Place, predicate: PrimExpr) -> Block:
    b = as_block(place)
    return Block(b.name, b.axes, b.bindings, predicate, b.init, b.body, b.annotations)
