"""Primitives on loops: split, fuse, reorder, and what kind of loop one is."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any, Literal

from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import (
    as_block,
    as_loop,
    binding_vars,
    carries,
    free_vars,
    mentions,
)
from warpbeam.tir.analysis.dependence import carried, fixed_order
from warpbeam.tir.analysis.predicate import likely
from warpbeam.tir.analysis.regions import upper_bound
from warpbeam.tir.analysis.tree import Place, Tree, facts_at, subst_structure, tree_of
from warpbeam.tir.arith import prove, simplify
from warpbeam.tir.expr import PrimExpr, Var
from warpbeam.tir.schedule.guard import guarded
from warpbeam.tir.schedule.step import Namer, Step
from warpbeam.tir.stmt import For, PrimFunc, Stmt


@dataclass(frozen=True, slots=True)
class Split(Step):
    """Replaces a loop by nested ones; one factor may be None. Where it does not divide, the inner loop stops early.

    for i in 100:            for i_0 in 7:
        B(i)          ->         for i_1 in min(16, 100 - 16*i_0):
                                     B(16*i_0 + i_1)

    With `guard` all extents are constant instead, and blocks skip what lies beyond the old loop:

        for i_0 in 7:
            for i_1 in 16:
                B(16*i_0 + i_1) if likely(16*i_0 + i_1 < 100)

    With guard="kept" the condition is not marked likely, so that lowering tests it where it stands and makes no copies
    of the loops around it.
    """

    loop: str
    factors: tuple[int | None, ...]
    names: tuple[str, ...] | None = None
    guard: bool | Literal["kept"] = False

    def run(self, func: PrimFunc) -> tuple[PrimFunc, tuple[str, ...]]:
        tree = tree_of(func)
        place = tree.loop(self.loop)
        loop = as_loop(place)
        self._check(loop)
        namer = Namer(tree)
        namer.loops.discard(self.loop)
        wanted = self.names or tuple(f"{self.loop}_{k}" for k in range(len(self.factors)))
        if len(wanted) != len(self.factors):
            raise ScheduleError(f"split of {self.loop}: {len(self.factors)} factors, {len(wanted)} names")
        names = tuple(namer.loop(n) for n in wanted)
        parts = [Var(n, loop.var.dtype) for n in names]
        value, extents, inside = (self._whole if self.guard else self._parts)(place, loop, parts)
        body = subst_structure(loop.body, {loop.var: value})
        if inside is not None:
            body = guarded(body, inside if self.guard == "kept" else likely(inside))
        for v, extent in zip(reversed(parts), reversed(extents), strict=True):
            body = For(v, 0, extent, "serial", body)
        return tree.update({place: body}), names

    def _check(self, loop: For) -> None:
        if e.const_int(loop.min) != 0:
            raise ScheduleError(f"loop {self.loop} does not start at 0", hint="split it before it is shifted")
        if not self.factors or sum(f is None for f in self.factors) > 1:
            raise ScheduleError(f"split of {self.loop} needs factors, at most one of them None, got {self.factors}")
        if any(f is not None and f < 1 for f in self.factors):
            raise ScheduleError(f"split of {self.loop} by {self.factors}: factors must be positive")
        if loop.kind != "serial":
            raise ScheduleError(f"loop {self.loop} is {loop.kind}", hint="split first, then set the kind of the parts")

    def _whole(self, place: Place, loop: For, parts: list[Var]) -> tuple[PrimExpr, list[PrimExpr], PrimExpr | None]:
        """The old variable over parts of constant extents, and the condition that it is inside the old loop."""
        facts = facts_at(place)
        limit = upper_bound(loop.extent, facts)
        size: PrimExpr = loop.extent if limit is None else e.const(limit, loop.var.dtype)
        if None not in self.factors:
            _covers(place, size, self.factors, self.loop)
        known = prod(f for f in self.factors if f is not None)
        free = simplify(e.ceildiv(size, known), facts)
        extents = [free if f is None else e.const(f, loop.var.dtype) for f in self.factors]
        value: PrimExpr = parts[0]
        for var, extent in zip(parts[1:], extents[1:], strict=True):
            value = value * extent + var
        whole = simplify(free * known if None in self.factors else e.const(known, loop.var.dtype), facts)
        fits = prove(whole <= loop.extent, facts) is True
        return value, extents, None if fits else value < loop.extent

    def _parts(self, place: Place, loop: For, parts: list[Var]) -> tuple[PrimExpr, list[PrimExpr], None]:
        """The old loop variable in terms of the new ones, and the extents of those.

        Factors inside the free one count from the inside; those outside it share what is left evenly.
        """
        free = self.factors.index(None) if None in self.factors else 0
        if None not in self.factors:
            _covers(place, loop.extent, self.factors, self.loop)
        facts = None if isinstance(loop.extent, e.IntImm) else facts_at(place)
        left: list[PrimExpr] = [loop.extent] * len(parts)
        for k in range(len(parts) - 1, free, -1):
            left[k - 1] = _ceildiv(left[k], self.factors[k])
        extents: list[PrimExpr] = []
        done: PrimExpr = e.const(0, loop.var.dtype)
        covered: PrimExpr = done  # `done` stays below it
        outer = 1
        for k, var in enumerate(parts):
            factor: Any = self.factors[k]
            if k < free:
                extents.append(e.const(factor, loop.var.dtype))
                outer *= factor
                covered = e.const(outer, loop.var.dtype)
            elif k == 0:
                factor = left[0] if factor is None else factor
                extents.append(e.as_expr(factor))
                covered = extents[0]
            else:
                count = left[free] if k == free else left[k]
                factor = _ceildiv(count, outer) if factor is None else factor
                extents.append(_inner(factor, count, done, facts, covered))
                covered = left[k]
            done = var if k == 0 else done * factor + var
        return done, extents, None


def _ceildiv(value: Any, factor: Any) -> PrimExpr:
    if type(value) is e.Min:  # keeps extents of the form min(c, x), whose bound can be seen
        return e.minimum(_ceildiv(value.a, factor), _ceildiv(value.b, factor))
    return simplify(e.ceildiv(e.as_expr(value), factor))  # type: ignore[no-any-return]


def _inner(size: Any, left: PrimExpr, done: PrimExpr, facts: Any, covered: PrimExpr) -> PrimExpr:
    """min(size, left - done*size), or `size` where `covered` iterations of that size are exactly what is left."""
    whole = e.as_expr(size) * covered
    if simplify(whole - left) is e.const(0, left.dtype):
        return e.as_expr(size)
    if facts is not None and prove(whole <= left, facts) is True:
        return e.as_expr(size)
    return e.minimum(e.as_expr(size), left - done * size)


def _covers(place: Place, total: PrimExpr, given: tuple[int | None, ...], name: str) -> None:
    product = 1
    for f in given:
        product *= f or 1
    if prove(total <= product, facts_at(place)) is not True:
        raise ScheduleError(
            f"split of {name} by {given} covers {product} iterations, which may be too few",
            hint="leave one factor None",
        )


@dataclass(frozen=True, slots=True)
class Fuse(Step):
    """Makes one loop of directly nested ones.

    for i in 4:              for i_j in 12:
        for j in 3:   ->         B(i_j // 3, i_j % 3)
            B(i, j)
    """

    loops: tuple[str, ...]
    name: str | None = None

    def run(self, func: PrimFunc) -> tuple[PrimFunc, str]:
        tree = tree_of(func)
        if not self.loops:
            raise ScheduleError("fuse needs at least one loop")
        places = [tree.loop(n) for n in self.loops]
        loops = [as_loop(p) for p in places]
        for outer, inner in pairwise(places):
            if inner.parent is not outer:
                raise ScheduleError(
                    f"loop {as_loop(inner).var.name} is not directly inside {as_loop(outer).var.name}",
                    hint="reorder them first, or give them outer to inner",
                )
        names = {f.var for f in loops}
        for f in loops:
            if e.const_int(f.min) != 0 or f.kind != "serial":
                raise ScheduleError(f"loop {f.var.name} is {f.kind} from {f.min}", hint="fuse plain serial loops")
            if mentions(f.extent, names):
                raise ScheduleError(
                    f"the extent of loop {f.var.name} depends on a loop fused with it",
                    hint="partition the outer loop so that extents are constant",
                )
        namer = Namer(tree)
        namer.loops -= set(self.loops)
        var = Var(namer.loop(self.name or "_".join(self.loops)), loops[0].var.dtype)
        mapping: dict[Var, PrimExpr] = {}
        rest: PrimExpr = var
        total: PrimExpr = e.const(1)
        for k in range(len(loops) - 1, -1, -1):
            total = total * loops[k].extent
            mapping[loops[k].var] = rest if k == 0 else e.floormod(rest, loops[k].extent)
            rest = e.floordiv(rest, loops[k].extent)
        body = subst_structure(loops[-1].body, mapping)
        return tree.update({places[0]: For(var, 0, simplify(total), "serial", body)}), var.name


@dataclass(frozen=True, slots=True)
class Reorder(Step):
    """Puts the named loops, all on one chain, in the given order; other loops of the chain keep their places.

    for i: for j: for k: B   ->  reorder(k, i)  ->   for k: for j: for i: B
    """

    loops: tuple[str, ...]

    def run(self, func: PrimFunc) -> tuple[PrimFunc, None]:
        tree = tree_of(func)
        places = sorted((tree.loop(n) for n in self.loops), key=lambda p: p.depth)
        if len(set(self.loops)) != len(self.loops):
            raise ScheduleError(f"reorder names a loop twice: {self.loops}")
        if len(places) < 2:
            return func, None
        chain = [places[-1]]
        while chain[-1] is not places[0]:
            parent = chain[-1].parent
            if parent is None or not isinstance(parent.stmt, For):
                raise ScheduleError(
                    f"loops {self.loops} are not one chain of directly nested loops",
                    hint="reorder before other statements are computed at the loops between them",
                )
            chain.append(parent)
        chain.reverse()
        assert all(p in chain for p in places)  # a loop beside the chain stands in a sequence, which is none
        wanted = iter(self.loops)
        order = [as_loop(tree.loop(next(wanted))) if p in places else as_loop(p) for p in chain]
        _check_order(tree, chain, order)
        body: Stmt = as_loop(chain[-1]).body
        for f in reversed(order):
            body = For(f.var, f.min, f.extent, f.kind, body, f.annotations, f.thread)
        return tree.update({chain[0]: body}), None


def _check_order(tree: Tree, chain: list[Place], order: list[For]) -> None:
    seen: set[Var] = set()
    own = {f.var for f in order}
    for f in order:
        late = [v.name for v in (free_vars(f.extent) | free_vars(f.min)) & own if v not in seen]
        if late:
            raise ScheduleError(
                f"the extent of loop {f.var.name} depends on {late}, which would come to stand inside it",
                hint="partition the outer loop first so that extents are constant",
            )
        seen.add(f.var)
    moved = [k for k, (p, f) in enumerate(zip(chain, order, strict=True)) if p.stmt is not f]
    conflict = fixed_order(tree, chain[moved[0] : moved[-1] + 1]) if moved else None
    if conflict is not None:
        raise ScheduleError(
            f"loops {', '.join(as_loop(p).var.name for p in chain)} must keep their order: {conflict}",
            hint="decompose a reduction first, or reorder before computing other blocks there",
        )


@dataclass(frozen=True, slots=True)
class SetKind(Step):
    """Declares how a loop runs: parallel, vectorized or unrolled. Its iterations must not depend on each other."""

    loop: str
    kind: str

    def run(self, func: PrimFunc) -> tuple[PrimFunc, None]:
        tree = tree_of(func)
        place = tree.loop(self.loop)
        loop = as_loop(place)
        if self.kind in ("parallel", "vectorized"):
            check_independent(tree, place, self.kind)
        if loop.kind == "thread_binding":
            raise ScheduleError(f"loop {self.loop} is bound to {loop.thread}; it cannot be {self.kind}")
        if self.kind == "vectorized" and _around(tree, place, "vectorized"):
            raise ScheduleError(
                f"loop {self.loop} is nested with a vectorized loop", hint="vectorize one loop of a nest"
            )
        if self.kind == "parallel" and _around(tree, place, "parallel"):
            raise ScheduleError(
                f"loop {self.loop} is nested with another parallel loop",
                hint="fuse the two loops and make the result parallel",
            )
        if self.kind in ("vectorized", "unrolled") and upper_bound(loop.extent, facts_at(place)) is None:
            raise ScheduleError(
                f"loop {self.loop} cannot be {self.kind}: its extent has no constant bound",
                hint="split it by a number and expand the inner loop",
            )
        new = For(loop.var, loop.min, loop.extent, self.kind, loop.body, loop.annotations)
        return tree.update({place: new}), None


def _around(tree: Tree, place: Place, kind: str) -> bool:
    """Whether another loop of a kind is around the place or inside."""
    if any(isinstance(p.stmt, For) and p.stmt.kind == kind for p in place.ancestors()):
        return True
    return any(p is not place and as_loop(p).kind == kind and p.within(place) for p in tree.loops.values())


THREADS = ("blockIdx.", "threadIdx.", "vthread", "cthread", "pipeline")


def check_independent(tree: Tree, place: Place, how: str) -> None:
    """Refuses a loop whose iterations depend on each other: reductions, ordered axes, elements that several use."""
    loop = as_loop(place)
    if e.const_int(loop.extent) is None and prove(loop.extent <= 1, facts_at(place)) is True:
        return  # a remainder of one at most
    for p in tree.blocks_below(place):
        block = as_block(p)
        if carries(block, loop.var):
            raise ScheduleError(
                f"loop {loop.var.name} carries the reduction of {block.name}: it cannot be {how}",
                hint="rfactor the reduction first",
            )
        if loop.var in binding_vars(block, "ordered"):
            raise ScheduleError(
                f"loop {loop.var.name} is the order in which {block.name} runs: it cannot be {how}",
                hint="only loops over the scan's other axes are free",
            )
    conflict = carried(tree, place)
    if conflict is not None:
        raise ScheduleError(
            f"loop {loop.var.name} cannot be {how}: {conflict}",
            why="iterations must not depend on each other, and it is not proven that they do not",
            hint="split the axis evenly, or compute what is shared outside of the loop",
        )


@dataclass(frozen=True, slots=True)
class Bind(Step):
    """Runs a loop on a hardware axis such as "blockIdx.x" or "threadIdx.x".

    A loop that only carries reductions may go to threadIdx: the threads of a block then reduce together.
    """

    loop: str
    thread: str

    def run(self, func: PrimFunc) -> tuple[PrimFunc, None]:
        tree = tree_of(func)
        place = tree.loop(self.loop)
        loop = as_loop(place)
        if not self.thread.startswith(THREADS):
            raise ScheduleError(f"unknown hardware axis {self.thread!r}", hint=f"one that begins with {THREADS}")
        if loop.kind not in ("serial", "thread_binding"):
            raise ScheduleError(f"loop {self.loop} is {loop.kind}; it cannot be bound to {self.thread}")
        together = self.thread.startswith("threadIdx") and all(
            carries(as_block(p), loop.var) for p in tree.blocks_below(place)
        )
        if not together:
            check_independent(tree, place, f"bound to {self.thread}")
        new = For(loop.var, loop.min, loop.extent, "thread_binding", loop.body, loop.annotations, self.thread)
        return tree.update({place: new}), None
