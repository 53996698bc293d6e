"""Runs the iterations in which no `likely` condition can fail without testing it, because the test forbids vectors.

for o in 7:                               for o in 6:
    for i in 16:                              for i in 16: B(16*o + i)
        if likely(16*o + i < 100): B   ->     for i in 4: B(96 + i)

A loop is cut where all iterations inside are sure to pass. Where the condition is not linear in the loop's variable
(fused loops), the body is written twice, chosen by one test that holds for everything inside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from warpbeam.ir.rewrite import post_order, substitute
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import free_vars
from warpbeam.tir.analysis.predicate import conjuncts, is_likely
from warpbeam.tir.analysis.regions import Range, interval, loop_range
from warpbeam.tir.analysis.tree import kids, with_kids
from warpbeam.tir.arith import Facts, linear, prove, simplify
from warpbeam.tir.expr import Buffer, IntImm, PrimExpr, Var
from warpbeam.tir.stmt import Allocate, For, IfThenElse, PrimFunc, SeqStmt, Stmt, seq
from warpbeam.tir.transform.lower_blocks import Lowering
from warpbeam.tir.transform.mutate import peel, wrap
from warpbeam.tir.transform.setting import Setting

KEY = "tir.LoopPartition"
GROWTH = 24  # a program may grow to this many times its size …
ROOM = 256  # … plus this many statements

Env = dict[Var, Range | None]
Found = list[tuple[PrimExpr, Env]]


def loop_partition(func: PrimFunc, at: Setting | None = None) -> PrimFunc:
    """The program with `likely` conditions gone from all full iterations.

    Config "tir.LoopPartition": partition_const_loop (default true) cuts loops of constant extent too;
    no_unroll_loop_with_extent_one keeps loops of one iteration that the cuts make.
    """
    at = at or Setting()
    allocs, body = peel(func.body)
    walk = _Partition(
        _size(body) * GROWTH + ROOM,
        at.option(KEY, "partition_const_loop", True),
        at.option(KEY, "no_unroll_loop_with_extent_one", False),
    )
    for size in (d for b in func.buffers for d in b.shape if isinstance(d, Var)):
        walk.facts.assume(size >= 0)
    new = walk.stmt(body)
    return func if new is body else func.replace(body=wrap(allocs, new or SeqStmt(())))


def _size(s: Any) -> int:
    total, todo = 0, [s]
    while todo:
        below = kids(todo.pop())
        total += 1
        todo.extend(below)
    return total


@dataclass(frozen=True, slots=True)
class _Cut:
    """Where a loop is cut: conditions that hold in [low, high), and those of which one fails below, or above."""

    low: PrimExpr
    high: PrimExpr
    true: list[PrimExpr]
    below: list[PrimExpr]
    above: list[PrimExpr]


def _passed(body: Stmt, conds: list[PrimExpr]) -> Stmt:
    return substitute(body, {c: IntImm(True, "bool") for c in conds})  # type: ignore[no-any-return]


def _failed(s: Any, conds: frozenset[PrimExpr]) -> Stmt:
    """The statement where one of the conditions does not hold: what stands under all of them is not there."""
    if isinstance(s, IfThenElse):
        left = conds.difference(conjuncts(s.cond))
        then = _failed(s.then, left) if left else s.then
        orelse = None if s.orelse is None else _failed(s.orelse, conds)
        return IfThenElse(s.cond if left else IntImm(False, "bool"), then, orelse)
    below = kids(s)
    new: list[Any] = [_failed(c, conds) for c in below]
    return s if all(a is b for a, b in zip(new, below, strict=True)) else with_kids(s, new) or s


class _Partition:
    """The walk, outer loops first: what they cannot do is left to the loops inside."""

    def __init__(self, room: int, constant: bool, single: bool) -> None:
        self.facts = Facts()
        self.room, self.constant, self.single = room, constant, single

    def stmt(self, s: Any) -> Stmt | None:
        if isinstance(s, For):
            return self.loop(s)
        if isinstance(s, IfThenElse):
            with self.facts.scope():
                self.facts.assume(s.cond)
                then = self.stmt(s.then)
            orelse = None if s.orelse is None else self.stmt(s.orelse)
            below = kids(s)
            new = [then] if s.orelse is None else [then, orelse]
        else:
            below = kids(s)
            new = [self.stmt(c) for c in below]
        return s if all(a is b for a, b in zip(new, below, strict=True)) else with_kids(s, new)

    def loop(self, s: For) -> Stmt | None:
        found = [(c, env) for c, env in _conditions(s.body, {}) if s.var in free_vars(c)]
        if not found:
            return self.inside(s)
        if s.kind != "thread_binding" and (self.constant or e.const_int(s.extent) is None):
            cuts = self.cuts(s, found)
            if cuts is not None and self.room >= _size(s):
                self.room -= 2 * _size(s)
                return self.parts(s, cuts)
        curved = [(c, env) for c, env in found if _slope(c, s.var) is None]
        if curved and s.kind != "thread_binding" and self.room >= _size(s):
            return self.versions(s, curved)
        return self.inside(s)

    def inside(self, s: Any) -> Stmt | None:
        """The loop with its body walked."""
        if not isinstance(s, For):
            return None if s is None else self.stmt(s)
        with self.facts.scope():
            self.facts.bind(s.var, s.min, s.extent)
            body = self.stmt(s.body)
        if body is s.body:
            return s
        return None if body is None else For(s.var, s.min, s.extent, s.kind, body, s.annotations, s.thread)

    # ----------------------------------------------------------------------------------------------------------- cuts

    def cuts(self, s: For, found: Found) -> _Cut | None:
        """The iterations that pass the linear conditions; None: the loop is better left whole."""
        start, end = simplify(s.min, self.facts), simplify(e.add(s.min, s.extent), self.facts)
        low, high = start, end
        sides: tuple[dict[PrimExpr, bool], dict[PrimExpr, bool]] = ({}, {})  # condition -> whether its limit is exact
        unknown = set()
        for cond, env in found:
            form = self._limit(cond, s.var, env)
            if form is None:
                unknown.add(cond)
                continue
            slope, rest = form
            sides[slope < 0][cond] = free_vars(cond).isdisjoint(env)
            if slope < 0:
                high = self._least(high, simplify(e.floordiv(rest, -slope) + 1, self.facts))
            else:
                low = self._most(low, simplify(e.floordiv(slope - 1 - rest, slope), self.facts))
        low = self._least(low, end)
        if low is start and high is end:
            return None
        with self.facts.scope():
            self.facts.bind(s.var, s.min, s.extent)
            if prove(high <= low, self.facts) is True:
                return None
        false = [list(side) if all(side.values()) else [] for side in sides]
        true = [c for side in sides for c in side if c not in unknown]
        return _Cut(low, self._most(low, high), true, false[0], false[1])

    def _limit(self, cond: PrimExpr, var: Var, env: Env) -> tuple[int, PrimExpr] | None:
        """(c, r): the condition holds for all inner iterations where c*var + r >= 0."""
        slack = _slack(cond)
        r = None if slack is None else interval(simplify(slack, self.facts), env)
        form = None if r is None else linear(r.low, [var], self.facts)
        slope = None if form is None else e.const_int(form[0].get(var))
        return None if form is None or not slope else (slope, form[1])

    def _least(self, a: PrimExpr, b: PrimExpr) -> PrimExpr:
        if prove(a <= b, self.facts) is True:
            return a
        return b if prove(b <= a, self.facts) is True else simplify(e.minimum(a, b), self.facts)

    def _most(self, a: PrimExpr, b: PrimExpr) -> PrimExpr:
        if prove(a >= b, self.facts) is True:
            return a
        return b if prove(b >= a, self.facts) is True else simplify(e.maximum(a, b), self.facts)

    def parts(self, s: For, cut: _Cut) -> Stmt | None:
        """Up to three loops; in the middle one the conditions hold."""
        end = simplify(e.add(s.min, s.extent), self.facts)
        below, above = (_failed(s.body, frozenset(c)) if c else s.body for c in (cut.below, cut.above))
        made = [
            self.part(s, s.min, cut.low, _fresh(below)),
            self.part(s, cut.low, cut.high, _passed(s.body, cut.true)),
            self.part(s, cut.high, end, _fresh(above)),
        ]
        left = [m for m in made if m is not None]
        return seq(*left) if left else None

    def part(self, s: For, low: PrimExpr, high: PrimExpr, body: Stmt) -> Stmt | None:
        extent = simplify(e.sub(high, low), self.facts)
        if prove(extent <= 0, self.facts) is True:
            return None
        notes, kind = s.annotations, s.kind
        if kind == "parallel" and "joined" not in notes:
            notes = notes.updated(joined=s.var.name)  # merge_parallel makes them one loop again
        if kind in ("vectorized", "unrolled") and not _countable(extent):
            kind = "serial"
        piece: Any = For(s.var, 0, extent, kind, substitute(body, {s.var: e.add(s.var, low)}), notes)
        if e.const_int(low) == 0:
            piece = For(s.var, 0, extent, kind, body, notes)
        made = Lowering(self.facts, keep_single=self.single).stmt(piece)
        if isinstance(made, For) and made.var is s.var:
            return self.inside(made)
        return None if made is None else self.stmt(made)

    # ------------------------------------------------------------------------------------------------------- versions

    def versions(self, s: For, curved: Found) -> Stmt | None:
        """The body twice: where everything inside passes, and as it was."""
        tests = []
        with self.facts.scope():
            self.facts.bind(s.var, s.min, s.extent)
            for cond, env in curved:
                slack = _slack(cond)
                r = None if slack is None else interval(simplify(slack, self.facts), env)
                if r is None or set(env) & free_vars(r.low):
                    return self.inside(s)
                tests.append(simplify(r.low >= 0, self.facts))
            test = simplify(e.land(*dict.fromkeys(tests)), self.facts)
            if isinstance(test, IntImm):
                return self.inside(s)
            self.room -= _size(s)
            with self.facts.scope():
                self.facts.assume(test)
                full = Lowering(self.facts).stmt(_passed(s.body, [c for c, _ in curved]))
                full = None if full is None else self.stmt(full)
            rest = self.stmt(_rolled(_fresh(s.body)))
        if full is None:
            return For(s.var, s.min, s.extent, s.kind, rest, s.annotations, s.thread) if rest is not None else None
        body = IfThenElse(e.call("likely", test), full, rest)
        return For(s.var, s.min, s.extent, s.kind, body, s.annotations, s.thread)


def _conditions(s: Any, env: Env) -> Iterator[tuple[PrimExpr, Env]]:
    """Every `likely` condition of a branch below a statement, with the ranges of the loops in between."""
    stack: list[tuple[Any, Env]] = [(s, env)]
    while stack:
        node, around = stack.pop()
        if isinstance(node, IfThenElse):
            yield from ((c, around) for c in conjuncts(node.cond) if is_likely(c))
        elif isinstance(node, For):
            around = {**around, node.var: loop_range(node, around)}
        stack.extend((c, around) for c in kids(node))


def _countable(extent: Any) -> bool:
    """Whether an expanded loop can be written: c or min(c, x)."""
    ends = (extent.a, extent.b) if type(extent) is e.Min else (extent,)
    return any(isinstance(x, IntImm) for x in ends)


def _slack(cond: Any) -> PrimExpr | None:
    """x with: the condition holds iff x >= 0."""
    inner = cond.args[0]
    while type(inner) is e.Call and inner.op == "likely":
        inner = inner.args[0]
    if type(inner) is e.LT:
        return e.sub(e.sub(inner.b, inner.a), 1)
    if type(inner) is e.LE:
        return e.sub(inner.b, inner.a)
    if type(inner) is e.GT:
        return e.sub(e.sub(inner.a, inner.b), 1)
    return e.sub(inner.a, inner.b) if type(inner) is e.GE else None


def _slope(cond: PrimExpr, var: Var) -> int | None:
    """The coefficient of a variable in a condition that is linear in it."""
    slack = _slack(cond)
    form = None if slack is None else linear(slack, [var])
    return None if form is None else e.const_int(form[0].get(var))


def _rolled(s: Any) -> Stmt:
    """Unrolled loops of a number of iterations that is not constant, serial."""
    below = kids(s)
    new: list[Any] = [_rolled(c) for c in below]
    if isinstance(s, For) and s.kind == "unrolled" and e.const_int(s.extent) is None:
        return For(s.var, s.min, s.extent, "serial", new[0], s.annotations)
    return s if all(a is b for a, b in zip(new, below, strict=True)) else with_kids(s, new) or s


def _fresh(body: Stmt) -> Stmt:
    """A copy with buffers of its own, so that the copies' buffers may live in different memory."""
    own = {n.buffer: _twin(n.buffer) for n in post_order(body) if isinstance(n, Allocate)}
    return substitute(body, own) if own else body


def _twin(b: Buffer) -> Buffer:
    return b.replace(name=f"{b.name}_tail")  # type: ignore[no-any-return]
