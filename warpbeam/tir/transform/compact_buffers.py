"""Shrinks each intermediate buffer to what one iteration around it touches, so that it stays in cache or registers.

The small buffer of a parallel loop lives on the stack of the iteration. Where it would not fit, the buffer keeps its
full shape in the workspace if iterations touch disjoint parts; otherwise each iteration gets a part of the workspace
for itself. Where that would be too much memory, or the threads are a device's, lowering fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import LowerError
from warpbeam.ir.node import Attrs
from warpbeam.ir.rewrite import rewrite, substitute
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import accesses, free_vars, opaque_buffers
from warpbeam.tir.analysis.regions import Range, clip, interval, loop_range, union, upper_bound
from warpbeam.tir.analysis.tree import kids
from warpbeam.tir.arith import Facts, prove, simplify
from warpbeam.tir.expr import Buffer, BufferLoad, BufferRef, PrimExpr, Var
from warpbeam.tir.schedule.guard import conjuncts, is_likely
from warpbeam.tir.stmt import (
    Allocate,
    AssertStmt,
    BufferStore,
    Evaluate,
    For,
    IfThenElse,
    LetStmt,
    PrimFunc,
    Stmt,
    While,
    seq,
)
from warpbeam.tir.transform.mutate import peel

STACK_BYTES = 256 * 1024
SMALL_BYTES = 16 * 1024
PARTS_BYTES = 64 * 1024 * 1024  # of all iterations together, where each has a part of its own


@dataclass(slots=True)
class _Plan:
    """What becomes of one buffer: its replacement, the low end of its region, and whether it moves to the root."""

    new: Buffer
    lows: tuple[PrimExpr | None, ...]  # None: the dimension is dropped or kept whole from 0
    dropped: tuple[bool, ...]
    to_root: bool
    part: tuple[PrimExpr, ...] = ()  # indices in front of the others: which iteration's part it is


@dataclass(slots=True)
class _Open:
    """An allocation that is being walked: loops outside it, and the accesses found so far.

    whole: a foreign function is handed the buffer, so that its shape is kept.
    """

    alloc: Allocate
    depth: int
    root: bool
    found: dict[tuple[tuple[PrimExpr, ...], tuple[For, ...], tuple[PrimExpr, ...]], None]
    whole: bool = False


def compact_buffers(func: PrimFunc) -> PrimFunc:
    """Intermediates have the size of what they hold at a time."""
    allocs, body = peel(func.body)
    planner = _Planner()
    for a in allocs:
        planner.open[a.buffer] = _Open(a, 0, True, {})
    planner.walk(body)
    for a in allocs:
        planner.close(a.buffer)
    body = _Rewriter(planner.plans).stmt(body)
    inner = [p.new for b, p in planner.plans.items() if p.to_root and b not in {a.buffer for a in allocs}]
    for b in reversed([*(planner.plans[a.buffer].new for a in allocs), *inner]):
        body = Allocate(b, body)
    return PrimFunc(func.name, func.params, body, func.attrs)


def _bytes(shape: tuple[Any, ...], dtype: str) -> int | None:
    total = dt.nbytes(dtype)
    for s in shape:
        n = e.const_int(s)
        if n is None:
            return None
        total *= n
    return total


class _Planner:
    def __init__(self) -> None:
        self.facts = Facts()
        self.loops: list[For] = []
        self.conds: list[PrimExpr] = []  # what holds here
        self.open: dict[Buffer, _Open] = {}
        self.plans: dict[Buffer, _Plan] = {}
        self.room = STACK_BYTES  # what earlier buffers have left of the stack

    def walk(self, s: Any) -> None:
        if isinstance(s, For):
            with self.facts.scope():
                self.facts.bind(s.var, s.min, s.extent)
                self.loops.append(s)
                self.walk(s.body)
                self.loops.pop()
        elif isinstance(s, Allocate):
            self.open[s.buffer] = _Open(s, len(self.loops), False, {})
            self.walk(s.body)
            self.close(s.buffer)
        else:
            if isinstance(s, BufferStore | Evaluate | AssertStmt):
                self._note(s)
            elif isinstance(s, IfThenElse | While):
                self._note(s.cond)
            elif isinstance(s, LetStmt):
                self._note(s.value)
            for k, c in enumerate(kids(s)):
                inside = conjuncts(s.cond) if isinstance(s, IfThenElse) and k == 0 else []
                self.conds += inside
                with self.facts.scope():
                    self.facts.assume(e.land(*inside))
                    self.walk(c)
                del self.conds[len(self.conds) - len(inside) :]

    def _note(self, node: Any) -> None:
        loads, stores = accesses(node)
        touched: list[Any] = [*loads, *stores]
        for n in touched:
            o = self.open.get(n.buffer)
            if o is not None:
                around = _threads(self.loops[: o.depth]) if o.alloc.buffer.scope.startswith("shared") else []
                o.found[n.indices, (*around, *self.loops[o.depth :]), tuple(self.conds)] = None
        for b, _ in opaque_buffers(node):
            if b in self.open:
                self.open[b].whole = True

    def close(self, buffer: Buffer) -> None:
        o = self.open.pop(buffer)
        region: list[Range | None] = [None] * len(buffer.shape) if o.whole else self._region(o)
        sizes: list[Any] = []
        for r, full in zip(region, buffer.shape, strict=True):
            size = None if r is None else upper_bound(r.extent(self.facts), self.facts)
            whole = e.const_int(full)
            sizes.append(full if size is None or (whole is not None and size >= whole) else max(size, 0))
        parallel = [f for f in self.loops if f.kind in ("parallel", "thread_binding")]
        plan = _kept(buffer) if o.whole else _compacted(o.alloc, region, sizes, self.facts)
        count = _bytes(plan.new.shape, buffer.dtype)
        near = buffer.scope == "local"
        if buffer.scope not in ("global", "local"):
            if count is None:
                raise LowerError(
                    f"buffer {buffer.name} of scope {buffer.scope} has no constant size",
                    hint="split or partition the loops around it so that extents are constant",
                )
        elif o.root:
            if near and (count is None or count > self.room):
                plan.new = _scoped(plan.new, plan.new.shape, "global")
        elif count is not None and count <= min(self.room, STACK_BYTES if parallel or near else SMALL_BYTES):
            plan.new = Buffer(plan.new.name, plan.new.shape, plan.new.dtype, "local")
        elif parallel:
            plan = self._shared(buffer, region, parallel) or self._parts(plan, o, parallel)
        elif any(not isinstance(s, int) and free_vars(s) & {f.var for f in self.loops} for s in plan.new.shape):
            plan = _kept(buffer, "global", True)
        else:
            plan.to_root, plan.new = True, _scoped(plan.new, plan.new.shape, "global")
        self.plans[buffer] = plan
        if plan.new.scope == "local":
            self.room -= count or 0

    def _region(self, o: _Open) -> list[Range | None]:
        shape = o.alloc.buffer.shape
        found: list[Range | None] = []
        for k, (indices, loops, conds) in enumerate(o.found):
            env: dict[Var, Range | None] = {}
            for f in loops:
                env[f.var] = loop_range(f, env)
            ranges = [self._narrowed(interval(i, env), i, conds, env) for i in indices]
            here = [clip(r, s, self.facts) for r, s in zip(ranges, shape, strict=True)]
            if k == 0:
                found = list(here)
            else:
                found = [None if a is None else union(a, b, self.facts) for a, b in zip(found, here, strict=True)]
        return found or [None] * len(shape)

    def _narrowed(
        self, r: Range | None, index: PrimExpr, conds: tuple[PrimExpr, ...], env: dict[Var, Range | None]
    ) -> Range | None:
        """The range with its end where a condition on the index puts it: `low + i` under `i < 6` ends at low + 5."""
        for c in conds if r is not None else ():
            inner: Any = c.args[0] if is_likely(c) else c  # type: ignore[attr-defined]
            if type(inner) is not e.LT or inner.a.dtype != index.dtype or free_vars(inner.a).isdisjoint(env):
                continue
            apart = simplify(index - inner.a, self.facts)
            if free_vars(apart).isdisjoint(env) and free_vars(inner.b).isdisjoint(env):
                high = simplify(apart + inner.b - 1, self.facts)
                if r is not None and prove(high <= r.high, self.facts) is True:
                    r = Range(r.lows, (high,))
        return r

    def _shared(self, buffer: Buffer, region: list[Range | None], parallel: list[For]) -> _Plan | None:
        """One full buffer for all, if each parallel loop moves the region by at least its size in some dimension."""
        for f in parallel:
            step = {f.var: f.var + 1}
            if not any(r is not None and prove(substitute(r.low, step) > r.high, self.facts) is True for r in region):
                return None
        return _kept(buffer, "global", True)

    def _parts(self, plan: _Plan, o: _Open, parallel: list[For]) -> _Plan:
        """A small buffer per iteration of the parallel loops, side by side in the workspace."""
        counts = [upper_bound(f.extent, self.facts) for f in parallel]
        shape = tuple([f.extent if c is None else max(c, 0) for f, c in zip(parallel, counts, strict=True)])
        new = _scoped(plan.new, (*shape, *plan.new.shape), "global")
        loops = {f.var for f in self.loops}
        count = _bytes(new.shape, new.dtype)
        if (
            o.whole
            or any(f.kind != "parallel" for f in parallel)
            or any(not isinstance(s, int) and free_vars(s) & loops for s in new.shape)
            or (count is not None and count > PARTS_BYTES)
        ):
            names = ", ".join(f.var.name for f in parallel)
            raise LowerError(
                f"buffer {new.name} is too large for the stack of one iteration of {names}, and iterations overlap",
                hint="use smaller tiles, or compute the block outside the parallel loop",
            )
        part = tuple(simplify(f.var - f.min, self.facts) for f in parallel)
        return _Plan(new, plan.lows, plan.dropped, True, part)


def _threads(loops: list[For]) -> list[For]:
    """Loops over the threads that share memory: an iteration of those outside of them touches what all threads do."""
    return [f for f in loops if f.kind == "thread_binding" and not f.thread.startswith("blockIdx")]


def _scoped(buffer: Buffer, shape: tuple[Any, ...], scope: str) -> Buffer:
    return Buffer(buffer.name, shape, buffer.dtype, scope)


def _kept(buffer: Buffer, scope: str = "", to_root: bool = False) -> _Plan:
    """The plan that leaves the shape as it is."""
    count = len(buffer.shape)
    return _Plan(_scoped(buffer, buffer.shape, scope or buffer.scope), (None,) * count, (False,) * count, to_root)


def _compacted(alloc: Allocate, region: list[Range | None], sizes: list[Any], facts: Facts) -> _Plan:
    buffer = alloc.buffer
    lows: list[PrimExpr | None] = []
    dropped: list[bool] = []
    shape: list[Any] = []
    align = alloc.annotations.get("storage_align")
    for k, (r, size, full) in enumerate(zip(region, sizes, buffer.shape, strict=True)):
        shrunk = size is not full and r is not None
        gone = size == 1 and isinstance(size, int)
        lows.append(simplify(r.low, facts) if shrunk and r is not None else None)
        dropped.append(gone and align is None)
        if not dropped[-1]:
            shape.append(size)
        if align is not None and k == align[0] + 1 and isinstance(size, int):
            shape[-1] = size + (align[2] - size) % align[1]
    return _Plan(_scoped(buffer, tuple(shape), buffer.scope), tuple(lows), tuple(dropped), False)


class _Rewriter:
    """Replaces planned buffers and shifts their indices."""

    def __init__(self, plans: dict[Buffer, _Plan]) -> None:
        self.plans = plans
        self.facts = Facts()

    def stmt(self, s: Any) -> Stmt:
        if isinstance(s, For):
            with self.facts.scope():
                self.facts.bind(s.var, s.min, s.extent)
                body = self.stmt(s.body)
            return For(s.var, s.min, s.extent, s.kind, body, s.annotations, s.thread)
        if isinstance(s, Allocate):
            body = self.stmt(s.body)
            plan = self.plans[s.buffer]
            notes = Attrs({k: v for k, v in s.annotations.items() if k != "storage_align"})
            return body if plan.to_root else Allocate(plan.new, body, notes)
        below = getattr(s, "stmts", None)
        if below is not None:
            return seq(*[self.stmt(c) for c in below])
        if isinstance(s, IfThenElse):
            with self.facts.scope():
                self.facts.assume(s.cond)
                then = self.stmt(s.then)
            return IfThenElse(self.expr(s.cond), then, None if s.orelse is None else self.stmt(s.orelse))
        if isinstance(s, LetStmt):
            return LetStmt(s.var, self.expr(s.value), self.stmt(s.body))
        if isinstance(s, While):
            return While(self.expr(s.cond), self.stmt(s.body))
        if isinstance(s, BufferStore | Evaluate | AssertStmt):
            return self.expr(s)  # type: ignore[no-any-return]
        if below is None and kids(s):
            return s.replace(body=self.stmt(s.body))  # type: ignore[no-any-return]
        return s  # type: ignore[no-any-return]

    def expr(self, node: Any) -> Any:
        loads, stores = accesses(node)
        touched: list[Any] = [*loads, *stores]
        if not any(b in self.plans for b in (*(n.buffer for n in touched), *(b for b, _ in opaque_buffers(node)))):
            return node
        return rewrite(node, self.change)

    def change(self, n: Any) -> Any:
        if isinstance(n, BufferRef) and n.buffer in self.plans:
            return BufferRef(self.plans[n.buffer].new)
        if not isinstance(n, BufferLoad | BufferStore) or n.buffer not in self.plans:
            return None
        plan = self.plans[n.buffer]
        index = [*plan.part]
        for i, low, gone in zip(n.indices, plan.lows, plan.dropped, strict=True):
            if not gone:
                index.append(i if low is None else simplify(i - low, self.facts))
        if isinstance(n, BufferLoad):
            return BufferLoad(plan.new, index)
        return BufferStore(plan.new, n.value, index)
