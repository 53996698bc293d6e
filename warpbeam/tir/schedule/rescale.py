"""Rescaling: sums weighted by the exponential of a distance from a maximum, in one loop with that maximum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.ir.rewrite import substitute
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import accesses, as_block, plain_axes, read, readers, writers
from warpbeam.tir.analysis.predicate import unconditional
from warpbeam.tir.analysis.tree import Place, Tree, subst_structure, tree_of
from warpbeam.tir.expr import Buffer, BufferLoad, PrimExpr, Var, const_int
from warpbeam.tir.op import exp_below
from warpbeam.tir.schedule.reduction import decompose, spatial_copy
from warpbeam.tir.schedule.step import Namer, Step, nest
from warpbeam.tir.stmt import Block, BufferStore, For, IterVar, PrimFunc, Stmt, seq


@dataclass(frozen=True, slots=True)
class Rescale(Step):
    """Sums whose weights need a maximum first are made together with it: what is summed up so far is multiplied by what
    it weighs less whenever the maximum grows. Gives the name of the one loop.

    T[i] = -9                                       T[i] = -9; S[i] = 0
    for j: T[i] = max(T[i], M[i, j])                for j:
    for j: W[i, j] = exp(M[i, j] - T[i])      ->        T_before[j, i] = T[i]
    S[i] = 0                                            T[i] = max(T[i], M[i, j])
    for j: S[i] = S[i] + W[i, j] * V[i, j]              T_less[j, i] = exp(T_before[j, i] - T[i])
                                                        W[i, j] = exp(M[i, j] - T[i])
                                                        S[i] = S[i] * T_less[j, i] + W[i, j] * V[i, j]

    The maximum begins with a finite number (else its first distance would be none), and the weights serve these sums
    alone. Equal up to the rounding of the factors.
    """

    top: str
    weights: str
    sums: tuple[str, ...]

    def run(self, func: PrimFunc) -> tuple[PrimFunc, str]:
        names = (self.top, self.weights, *self.sums)
        tree = tree_of(func)
        _check_row(tree, names)
        _check_roles(tree, self)
        loops = {name: _along(tree, name) for name in names}
        for name, loop in loops.items():
            _check_alone(loop.extent is loops[self.top].extent, name)
        for name in (self.top, *self.sums):
            place = tree.block(name)
            tree = tree_of(tree.update(decompose(tree, place, _nest_of(place))[0]))
        return _Rebuilt(tree, self, loops).run()


def _nest_of(place: Place) -> Place:
    """The statement of a sequence that a block's loops are, which hold nothing else."""
    at = place
    while at.parent is not None and isinstance(at.parent.stmt, For):
        at = at.parent
    return at


def _around(place: Place) -> list[For]:
    """The loops of a block's own nest, outer first."""
    top = _nest_of(place)
    return [p.stmt for p in place.ancestors() if p.depth >= top.depth and isinstance(p.stmt, For)][::-1]


def _check_row(tree: Tree, names: tuple[str, ...]) -> None:
    """Refuses nests that do not follow each other, the maximum first and then the weights."""
    nests = [_nest_of(tree.block(n)) for n in names]
    first = nests[0].index
    one = all(p.parent is nests[0].parent and p.parent is not None for p in nests)
    if (
        not one
        or [p.index for p in nests[:2]] != [first, first + 1]
        or (sorted(p.index for p in nests) != list(range(first, first + len(names))))
    ):
        raise ScheduleError(
            f"rescale: the nests of {', '.join(names)} do not follow each other",
            hint="each has loops of its own in one sequence: the maximum, the weights, the sums",
        )


def _check_alone(holds: bool, name: str) -> None:
    if not holds:
        raise ScheduleError(
            f"rescale: {name} has not one loop over all that is reduced, among serial loops and without conditions",
            hint="before its loops are split or made parallel",
        )


def _along(tree: Tree, name: str) -> For:
    """The loop of a block over what is reduced: of the weights that which a reader's reduction walks."""
    place = tree.block(name)
    block = as_block(place)
    wanted = [k for k, a in enumerate(block.axes) if a.kind == "reduce"] or _walked(tree, place)
    loops = _around(place)
    found = [f for f in loops if f.var in [block.bindings[k] for k in wanted]]
    plain = unconditional(block) and all(f.kind == "serial" and const_int(f.min) == 0 for f in loops)
    _check_alone(len(wanted) == len(found) == 1 and plain, name)
    return found[0]


def _walked(tree: Tree, place: Place) -> list[int]:
    """The axes of a block along which each reduction that reads its result walks, one element after the other."""
    block = as_block(place)
    (store,) = accesses(block.body)[1]
    own, axes = [a.var for a in block.axes], plain_axes(block, store) or []
    found: list[set[int]] = []
    for reader in map(as_block, readers(tree, store.buffer)):
        summed = {a.var for a in reader.axes if a.kind == "reduce"}
        loads = [n for n in accesses(reader.body)[0] if n.buffer is store.buffer]
        found += [{own.index(v) for v, i in zip(axes, n.indices, strict=False) if i in summed} for n in loads]
    return sorted(set[int].intersection(*found)) if found else []


def _check_roles(tree: Tree, step: Rescale) -> None:
    """Refuses blocks that compute something else."""
    top, weigh = as_block(tree.block(step.top)), as_block(tree.block(step.weights)).body
    start = top.init.value if isinstance(top.init, BufferStore) else None
    finite = isinstance(start, e.FloatImm) and math.isfinite(start.value)
    if not isinstance(top.body, BufferStore) or not isinstance(top.body.value, e.Max) or not finite:
        raise ScheduleError(
            f"rescale: {step.top} is no maximum that begins with a finite number",
            why="what is below it weighs nothing, but how far -inf is below itself is no number",
            hint="give te.max an init",
        )
    power = weigh.value if isinstance(weigh, BufferStore) else None
    less = power.args[0] if isinstance(power, e.Call) and power.op == "exp" else None
    below = less.b if isinstance(less, e.Sub) and not _reads(less.a, top.body.buffer) else None
    if not isinstance(below, BufferLoad) or below.buffer is not top.body.buffer:
        raise ScheduleError(
            f"rescale: {step.weights} is not the exponential of how far something is below the maximum of {step.top}"
        )
    assert isinstance(weigh, BufferStore)
    blocks = {n: as_block(tree.block(n)) for n in step.sums}
    given_back = weigh.buffer in tree.func.buffers
    if given_back or {as_block(p).name for p in readers(tree, weigh.buffer)} != set(blocks):
        raise ScheduleError(
            f"rescale: {weigh.buffer.name} is not read by {', '.join(blocks) or 'the sums (none are named)'} alone",
            hint="name all sums with these weights; other readers, and the caller, need weights of their own",
        )
    made = {top.body.buffer, *(_weighted(b, weigh.buffer)[0].buffer for b in blocks.values())}
    for block in blocks.values():
        _check_sum(made.isdisjoint(read(block)), block, weigh.buffer)
    for buffer in (*made, weigh.buffer):
        if len(writers(tree, buffer)) != 1:
            raise ScheduleError(f"rescale: several blocks write {buffer.name}", hint="before partition")


def _check_sum(holds: bool, block: Block, weights: Buffer) -> None:
    if not holds:
        raise ScheduleError(f"rescale: {block.name} is no sum, from zero, of values times {weights.name}")


def _weighted(block: Block, weights: Buffer) -> tuple[BufferStore, PrimExpr, BufferLoad]:
    """(store, what is added, the weight in it) of a sum of weighted values from zero."""
    store, start = block.body, block.init
    zero = start is None or (isinstance(start, BufferStore) and _number(start.value) == 0)
    added = store.value if isinstance(store, BufferStore) else None
    _check_sum(zero and isinstance(added, e.Add), block, weights)
    assert isinstance(store, BufferStore) and isinstance(added, e.Add)
    own = BufferLoad(store.buffer, store.indices)
    term = added.b if added.a is own else added.a
    factors = (term.a, term.b) if isinstance(term, e.Mul) else ()
    found = [f for f in factors if isinstance(f, BufferLoad) and f.buffer is weights]
    once = sum(_reads(f, weights) for f in factors) == 1
    _check_sum(own in (added.a, added.b) and len(found) == 1 and once, block, weights)
    return store, term, found[0]


def _reads(x: PrimExpr, buffer: Buffer) -> bool:
    """Whether an expression has an element of a buffer in it."""
    return any(n.buffer is buffer for n in accesses(x)[0])


def _number(x: PrimExpr) -> float | None:
    """The value of a literal."""
    return x.value if isinstance(x, e.FloatImm | e.IntImm) else None


class _Rebuilt:
    """The one loop, from nests whose starts stand apart."""

    def __init__(self, tree: Tree, step: Rescale, loops: dict[str, For]) -> None:
        self.tree, self.step, self.loops = tree, step, loops
        self.namer = Namer(tree)
        self.loop = loops[step.top]
        top = as_block(tree.block(step.top)).body
        assert isinstance(top, BufferStore)
        self.store = top
        shape = (self.loop.extent, *top.buffer.shape)
        name = top.buffer.name
        self.before = Buffer(self.namer.buffer(f"{name}_before"), shape, top.buffer.dtype, "local")
        self.less = Buffer(self.namer.buffer(f"{name}_less"), shape, top.buffer.dtype, "local")

    def run(self) -> tuple[PrimFunc, str]:
        names = (self.step.top, self.step.weights, *self.step.sums)
        places = {n: _nest_of(self.tree.block(n)) for n in names}
        own = BufferLoad(self.store.buffer, self.store.indices)
        body: list[Stmt] = [
            self._of_rows("before", self.before, lambda at: own),
            self._inside(self.step.top, None),
            self._of_rows("less", self.less, lambda at: exp_below(BufferLoad(self.before, at), own)),
            self._inside(self.step.weights, None),
            *[self._inside(n, self._update(n)) for n in self.step.sums],
        ]
        whole = For(self.loop.var, self.loop.min, self.loop.extent, "serial", seq(*body), self.loop.annotations)
        changes: dict[Place, Stmt | None] = dict.fromkeys(places.values())
        last = max(places.values(), key=lambda p: p.index)  # after all starts
        changes[last] = whole
        func = self.tree.rebuild(self.tree.replace(changes), add=(self.before, self.less))
        return func, self.loop.var.name

    def _inside(self, name: str, body: Stmt | None) -> Stmt:
        """A nest without its loop over what is reduced, which is the one loop."""
        place = self.tree.block(name)
        block = as_block(place)
        new = block if body is None else Block(
            block.name, block.axes, block.bindings, block.predicate, None, body, block.annotations
        )  # fmt: skip
        mine = self.loops[name].var
        stmt = nest([f for f in _around(place) if f.var is not mine], new)
        return subst_structure(stmt, {mine: self.loop.var})

    def _of_rows(self, suffix: str, target: Buffer, value: Any) -> Stmt:
        """A block of all that the maximum is of, in one iteration of the loop: target[loop, row] = value(index)."""
        place = self.tree.block(self.step.top)
        block = as_block(place)
        loops, fresh = spatial_copy(place, _nest_of(place), self.namer, f"_{suffix}")
        axes = [a for a in block.axes if a.kind != "reduce"]
        bound = [substitute(b, fresh) for a, b in zip(block.axes, block.bindings, strict=True) if a.kind != "reduce"]
        along = IterVar(Var(self.loop.var.name, self.loop.var.dtype), self.loop.extent)
        at = (along.var, *self.store.indices)
        body = BufferStore(target, value(at), at)
        name = self.namer.block(f"{self.step.top}_{suffix}")
        return nest(loops, Block(name, (along, *axes), (self.loop.var, *bound), True, None, body))

    def _update(self, name: str) -> Stmt:
        """The update of a sum, which takes what was there before by as much less as the maximum has grown."""
        weigh = as_block(self.tree.block(self.step.weights))
        stored = weigh.body
        assert isinstance(stored, BufferStore)
        store, term, load = _weighted(as_block(self.tree.block(name)), stored.buffer)
        of_axis = dict(zip(plain_axes(weigh, stored) or (), load.indices, strict=True))
        (top,) = [n for n in accesses(stored.value)[0] if n.buffer is self.store.buffer]
        along = next(v for v, b in zip((a.var for a in weigh.axes), weigh.bindings, strict=True)
                     if b is self.loops[self.step.weights].var)  # fmt: skip
        at = (of_axis[along], *[substitute(i, dict(of_axis)) for i in top.indices])
        value = BufferLoad(store.buffer, store.indices) * BufferLoad(self.less, at) + term
        return BufferStore(store.buffer, value, store.indices)
