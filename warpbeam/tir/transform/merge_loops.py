"""Makes one loop of several that stand in a sequence, so that their loads, stores and arithmetic overlap.

m[0] = 0.0                                        m[0] = 0.0
for i in 16: B[i] = A[i] * s[0]  # together=1     for i in 16:
s[0] = 0.0                               ->           B[i] = A[i] * s[0]
for j in 16: m[0] = m[0] + C[j]  # together=1         m[0] = m[0] + C[j]
s[0] = m[0]                                       s[0] = 0.0
                                                  s[0] = m[0]

Loops with the same note "together" and the same extent are merged where no iteration of one needs what another
iteration of the other does. What stands between them moves before or behind; where it would have to do both, they stay
apart. Elements of the parts are told apart by their indices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from warpbeam.ir.rewrite import post_order, substitute
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import accesses
from warpbeam.tir.analysis.regions import Range, touched
from warpbeam.tir.analysis.tree import allocated, rebuilt
from warpbeam.tir.arith import Facts, prove
from warpbeam.tir.expr import Buffer, BufferRef, Var
from warpbeam.tir.intrin import is_pure
from warpbeam.tir.stmt import Allocate, AssertStmt, For, PrimFunc, SeqStmt, Stmt, While, seq
from warpbeam.tir.transform.inject_prefetch import unasked
from warpbeam.tir.transform.mutate import map_up, peel, wrap

NOTE = "together"


def merge_loops(func: PrimFunc) -> PrimFunc:
    """The program with loops of one note in one."""
    body = map_up(func.body, lambda s: _sequence(s) if isinstance(s, SeqStmt) and _noted(s) else s)
    body = map_up(body, _bare)
    return func if body is func.body else func.replace(body=body)


def _bare(s: Any) -> Stmt:
    """Loops without the note, which has done its work."""
    if not isinstance(s, For) or NOTE not in s.annotations:
        return s  # type: ignore[no-any-return]
    return s.replace(annotations={k: v for k, v in s.annotations.items() if k != NOTE})  # type: ignore[no-any-return]


def _noted(s: SeqStmt) -> bool:
    return sum(_mark(x) is not None for c in s.stmts for x in _flat(c)[1]) > 1


def _mark(s: Stmt) -> Any:
    """What loops that may be one have in common."""
    if not isinstance(s, For) or NOTE not in s.annotations or s.kind != "serial" or e.const_int(s.min) != 0:
        return None
    return s.annotations[NOTE], s.extent


def _flat(s: Stmt) -> tuple[list[Allocate], list[Stmt]]:
    """The buffers around a statement and the statements in them."""
    allocs, inner = peel(s)
    return allocs, list(inner.stmts) if isinstance(inner, SeqStmt) else [inner]


def _flat_all(stmts: Sequence[Stmt]) -> tuple[list[Allocate], list[Stmt]]:
    """The buffers around any of some statements, each once, and the statements in them in their order."""
    allocs: dict[Buffer, Allocate] = {}
    parts: list[Stmt] = []
    for s in stmts:
        around, inner = _flat(s)
        allocs.update((a.buffer, a) for a in around)
        parts += inner
    return list(allocs.values()), parts


def _sequence(s: SeqStmt) -> Stmt:
    """Statements that have buffers of their own and none of the loops stay where they are, between the others."""
    out: list[Stmt] = []
    run: list[Stmt] = []
    for c in s.stmts:
        if allocated(c) and not any(_mark(x) is not None for x in _flat(c)[1]):
            out += [*_run(run), c]
            run = []
        else:
            run.append(c)
    out += _run(run)
    return s if len(out) == len(s.stmts) and all(x is y for x, y in zip(out, s.stmts, strict=True)) else seq(*out)


def _run(stmts: list[Stmt]) -> list[Stmt]:
    """Statements one after the other, with the loops among them merged."""
    allocs, parts = _flat_all(stmts)
    found = _Sequence(parts).merged()
    return stmts if len(found) == len(parts) else [wrap(allocs, seq(*found))]


def _one(group: list[Any]) -> For:
    first = group[0]
    bodies = [first.body, *(substitute(f.body, {f.var: first.var}) for f in group[1:])]
    allocs, parts = _flat_all(bodies)
    return rebuilt(first, wrap(allocs, seq(*parts)))  # type: ignore[return-value]


# ---------------------------------------------------------------------------------------------------------- dependences


@dataclass(slots=True)
class _Sequence:
    """Statements in their order, and what is known of pairs of them."""

    parts: list[Stmt]
    known: dict[tuple[Stmt, Stmt], bool] = field(default_factory=dict)
    used: dict[Stmt, _Seen] = field(default_factory=dict)

    def merged(self) -> list[Stmt]:
        """With as many loops as possible in the first one of their kind."""
        done = 0
        while done < len(self.parts):
            head = self.parts[done]
            mark = _mark(head)
            group = [done]
            for k in range(done + 1, len(self.parts) if mark is not None else 0):
                p = self.parts[k]
                alike = _mark(p) == mark and self.around([*group, k]) is not None
                if alike and all(self.side_by_side(self.parts[g], p) for g in group):
                    group.append(k)
            order = self.around(group) if len(group) > 1 else None
            if order is not None:
                before, behind = order
                self.parts = [*before, _one([self.parts[g] for g in group]), *behind]
                done = len(before)
            done += 1
        return self.parts

    def around(self, group: list[int]) -> tuple[list[Stmt], list[Stmt]] | None:
        """The statements before and behind the loops of a group in one place; None where one had to be between."""
        before: list[Stmt] = []
        behind: list[Stmt] = []
        passed: list[Stmt] = []  # loops of the group so far
        for k, p in enumerate(self.parts):
            late = any(self.conflict(q, p) for q in behind)
            if k in group:
                if late:
                    return None
                passed.append(p)
            elif late or any(self.conflict(q, p) for q in passed):
                behind.append(p)
            else:
                before.append(p)
        return before, behind

    def conflict(self, a: Stmt, b: Stmt) -> bool:
        """Whether the order of two statements may matter."""
        found = self.known.get((a, b))
        if found is None:
            first, second = self.seen(a), self.seen(b)
            facts = Facts()
            found = self.known[a, b] = (
                first.opaque
                or second.opaque
                or any(not _apart(first.region(x), second.region(x), facts) for x in first.shared(second))
            )
        return found

    def seen(self, s: Stmt) -> _Seen:
        """What is known of a statement."""
        found = self.used.get(s)
        if found is None:
            found = self.used[s] = _Seen.of(s)
        return found

    def side_by_side(self, a: Any, b: Any) -> bool:
        """Whether different iterations of two loops share no element that one of them writes."""
        first, second, facts = self.seen(a), self.seen(b), Facts()
        here, step = Var("here", a.var.dtype), Var("step", a.var.dtype)
        facts.bind(here, 0, a.extent)
        facts.bind(step, 1, a.extent)
        there = here + step
        for x in first.shared(second):
            one, two = (touched(x, p.stmt.body, facts) for p in (first, second))
            for at, other in ((here, there), (there, here)):
                if not _apart(_moved(one, {a.var: at}), _moved(two, {b.var: other}), facts):
                    return False
        return True


@dataclass(slots=True)
class _Seen:
    """What a statement uses. opaque: it does what its loads and stores do not tell."""

    stmt: Any
    loads: dict[Buffer, None]
    stores: dict[Buffer, None]
    opaque: bool
    regions: dict[Buffer, list[Range] | None] = field(default_factory=dict)

    @staticmethod
    def of(s: Stmt) -> _Seen:
        s = unasked(s)
        loads, stores = ({x.buffer: None for x in part} for part in accesses(s))
        opaque = any(
            isinstance(n, BufferRef | While | AssertStmt) or (type(n) is e.Call and not is_pure(n.op))
            for n in post_order(s)
        )
        return _Seen(s, loads, stores, opaque)

    def shared(self, other: _Seen) -> list[Buffer]:
        """Buffers that both use and one of them writes."""
        both = {**self.loads, **self.stores}
        return [x for x in both if x in other.stores or (x in self.stores and x in other.loads)]

    def region(self, x: Buffer) -> list[Range] | None:
        """What is used of a buffer, by dimension; None where that is not known."""
        if x not in self.regions:
            self.regions[x] = touched(x, self.stmt, Facts())
        return self.regions[x]


def _moved(region: list[Range] | None, at: dict[Var, Any]) -> list[Range] | None:
    if region is None:
        return None

    def moved(limits: tuple[e.PrimExpr, ...]) -> tuple[e.PrimExpr, ...]:
        return tuple(substitute(x, at) for x in limits)

    return [Range(moved(r.lows), moved(r.highs)) for r in region]


def _apart(a: list[Range] | None, b: list[Range] | None, facts: Facts) -> bool:
    """Whether two regions of a buffer share no element."""
    if a is None or b is None:
        return False
    return any(
        prove(x.high < y.low, facts) is True or prove(y.high < x.low, facts) is True for x, y in zip(a, b, strict=True)
    )
