"""Puts barriers where threads of a block meet in memory, because nothing else orders what two threads do.

    for k in 8:                               for k in 8:
        S[tx] = A[k, tx]               ->         S[tx] = A[k, tx]
        C[tx] = C[tx] + S[63 - tx]                storage_sync("shared")
                                                  C[tx] = C[tx] + S[63 - tx]
                                                  (and one before the store, for the next iteration)

A barrier stands before the first statement that touches what another thread has touched since the last one: it reads
what was written, or writes what was read or written. Accesses in which each thread meets only itself (the same
element, told apart by the threads) need none. All threads of a block must reach a barrier: a branch that only some take
is cut in two around it, and a barrier in a loop that threads leave at different times is an error.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from warpbeam.ir.diagnostics import LowerError
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import accesses, free_vars
from warpbeam.tir.analysis.regions import Range, interval, loop_range
from warpbeam.tir.analysis.tree import kids, own_parts, rebuilt
from warpbeam.tir.arith import Facts, linear, prove, simplify
from warpbeam.tir.expr import Buffer, PrimExpr, Var
from warpbeam.tir.schedule.guard import conjuncts
from warpbeam.tir.stmt import Allocate, BufferStore, For, IfThenElse, LetStmt, PrimFunc, SeqStmt, Stmt, While, seq
from warpbeam.tir.transform.gpu.common import (
    is_block_axis,
    is_private,
    is_shared,
    is_sync,
    is_thread,
    map_kernels,
    nest_of,
    sync,
)


def thread_sync(func: PrimFunc) -> PrimFunc:
    """The function with barriers in its kernels.

    Raises:
        LowerError: if a barrier is needed where only some threads of a block come by.
    """
    from warpbeam.tir.transform.mutate import peel, wrap

    allocs, body = peel(func.body)
    return PrimFunc(
        func.name, func.params, wrap(allocs, map_kernels(body, lambda k: _Kernel(k, func.name).made())), func.attrs
    )


@dataclass(frozen=True, slots=True)
class Touch:
    """One access of memory that several threads see. `pinned`: axes of which only one thread comes here."""

    buffer: Buffer
    write: bool
    indices: tuple[PrimExpr, ...]
    pinned: frozenset[Var]
    ranges: tuple[Range | None, ...]
    stale: bool = False  # from an earlier iteration: loop variables have moved on


Pending = tuple[Touch, ...]


class _Kernel:
    """`threads`: thread variables and extents. `varying`: variables that differ between threads of a block."""

    def __init__(self, kernel: For, name: str) -> None:
        loops, _, _ = nest_of(kernel)
        self.kernel, self.name = kernel, name
        self.threads = {f.var: f.extent for f in loops if not is_block_axis(f.thread)}
        self.several = [v for v, n in self.threads.items() if e.const_int(n) != 1]
        self.varying: set[Var] = set(self.threads)
        self.env: dict[Var, Range | None] = {}
        self.sizes: dict[Var, int | None] = {}  # extents of the loops inside
        self.lets: set[Var] = set()
        self.pinned: frozenset[Var] = frozenset()
        self.facts = Facts()
        for f in loops:
            self.facts.bind(f.var, f.min, f.extent)
            if not is_block_axis(f.thread):
                self.env[f.var] = loop_range(f, {})
        loads, stores = accesses(kernel)
        written = {s.buffer for s in stores}
        read = {n.buffer for n in loads}
        self.tracked = {b for b in written | read if is_shared(b.scope)}
        self.tracked |= {b for b in written if not is_private(b.scope) and b.scope != "warp"}

    def made(self) -> Stmt:
        if not self.several or not self.tracked:
            return self.kernel
        return self._inside(self.kernel)

    def _inside(self, s: Any) -> Stmt:
        if is_thread(s) or isinstance(s, Allocate):
            return rebuilt(s, self._inside(s.body))
        return self.stmt(s, ())[0]

    # --------------------------------------------------------------------------------------------------------- accesses

    def touches(self, s: Any) -> list[Touch]:
        """All tracked accesses at and below a statement, in order: reads of a statement before its writes."""
        found: list[Touch] = []
        for part in own_parts(s):
            found += [self._touch(n, False) for n in accesses(part)[0] if n.buffer in self.tracked]
        if isinstance(s, BufferStore) and s.buffer in self.tracked:
            found.append(self._touch(s, True))
        with _Inside(self, s):
            below = [t for c in kids(s) for t in self.touches(c)]
        return found + (_stale(below) if isinstance(s, For | While) else below)

    def _touch(self, n: Any, write: bool) -> Touch:
        ranges = tuple(interval(i, self.env) for i in n.indices)
        return Touch(n.buffer, write, n.indices, self.pinned, ranges)

    def conflict(self, a: Touch, b: Touch) -> bool:
        """Whether two threads may meet: `a` was before `b`, without a barrier between."""
        if a.buffer is not b.buffer or not (a.write or b.write):
            return False
        if a.write and b.write and a.indices == b.indices:
            return False  # one store in two iterations: instances of a block do not write an element differently
        if set(self.several) <= a.pinned & b.pinned:
            return False
        same = [i for i, j in zip(a.indices, b.indices, strict=True) if i is j]
        if self._own(same, a.pinned & b.pinned, a.stale):
            return False
        return a.stale or not self._apart(a, b)

    def _own(self, same: list[PrimExpr], pinned: frozenset[Var], stale: bool) -> bool:
        """Whether threads differ in these indices of both accesses (also in different iterations, if `stale`)."""
        sizes = {v: e.const_int(self.threads[v]) for v in self.several if v not in pinned}
        left = set(sizes)
        if not left:
            return True
        if stale:
            names = {v for i in same for v in free_vars(i)}
            sizes |= {v: n for v, n in self.sizes.items() if v in names}
        for index in same:
            form = linear(e.cast("int64", index), list(sizes))
            if form is None or accesses(index)[0] or (stale and free_vars(index) & self.lets):
                continue
            steps = {v: e.const_int(c) for v, c in form[0].items() if e.const_int(c) != 0}
            reach = 1
            for v, c in sorted(steps.items(), key=lambda item: abs(item[1] or 0)):
                size = sizes[v]
                if c is None or abs(c) < reach or size is None:
                    break
                reach = abs(c) * size
            else:  # the index tells all of its variables apart, as the digits of a number do
                left -= set(steps)
        return not left

    def _apart(self, a: Touch, b: Touch) -> bool:
        """Whether the elements that all threads touch are proven disjoint in some dimension."""
        for x, y in zip(a.ranges, b.ranges, strict=True):
            if x is None or y is None:
                continue
            if prove(x.high < y.low, self.facts) is True or prove(y.high < x.low, self.facts) is True:
                return True
        return any(
            free_vars(i).isdisjoint(self.varying)
            and free_vars(j).isdisjoint(self.varying)
            and (_turns(i, j) or prove(simplify(e.NE(i, j)), self.facts) is True)
            for i, j in zip(a.indices, b.indices, strict=True)
            if i.dtype == j.dtype
        )

    def clash(self, pending: Pending, new: list[Touch]) -> bool:
        return any(self.conflict(a, b) for b in new for a in pending)

    # ------------------------------------------------------------------------------------------------------- statements

    def stmt(self, s: Any, pending: Pending) -> tuple[Stmt, Pending]:
        """The statement with barriers, and the accesses since the last one at its end."""
        if is_sync(s):
            return s, ()
        if isinstance(s, SeqStmt):
            made: list[Stmt] = []
            for c in s.stmts:
                new, pending = self.stmt(c, pending)
                made.append(new)
            return seq(*made), pending
        found = self.touches(s)
        if not found and not _has_sync(s):
            return s, pending
        inside = self._inner(s)
        if inside is None:
            if not self.clash(pending, found):
                return s, _joined(pending, found)
            return seq(sync(), s), _joined((), found)
        return self._compound(s, pending, found)

    def _inner(self, s: Any) -> bool | None:
        """None: the statement is one step, that is, nothing inside needs a barrier."""
        if not kids(s):
            return None
        state = (self.pinned, dict(self.env), set(self.varying))
        try:
            with _Inside(self, s):
                quiet = self._quiet(s)
        finally:
            self.pinned, self.env, self.varying = state
        return None if quiet else True

    def _quiet(self, s: Any) -> bool:
        """Whether the body runs (twice, if it is a loop) without two threads meeting, and holds no barrier."""
        seen: Pending = ()
        leaves = self._leaves(s)
        for turn in range(2 if isinstance(s, For | While) else 1):
            if turn:
                seen = tuple(_stale(seen))
            for leaf, touched in leaves:
                if leaf is None or self.clash(seen, touched):
                    return False
                seen = _joined(seen, touched)
        return True

    def _leaves(self, s: Any) -> list[tuple[Any, list[Touch]]]:
        """Steps below a statement with their accesses; None stands for a barrier."""
        found: list[tuple[Any, list[Touch]]] = []
        for c in kids(s):
            if is_sync(c):
                found.append((None, []))
                continue
            if not kids(c):
                found.append((c, self.touches(c)))
                continue
            loads = [n for p in own_parts(c) for n in accesses(p)[0] if n.buffer in self.tracked]
            found.append((c, [self._touch(n, False) for n in loads]))
            with _Inside(self, c):
                if isinstance(c, For | While) and not self._quiet(c):
                    found.append((None, []))
                below = self._leaves(c)
            found += [(x, _stale(t)) for x, t in below] if isinstance(c, For | While) else below
        return found

    def _compound(self, s: Any, pending: Pending, new: list[Touch]) -> tuple[Stmt, Pending]:
        if isinstance(s, LetStmt | Allocate):
            with _Inside(self, s):
                body, after = self.stmt(s.body, pending)
            return rebuilt(s, body), after
        if isinstance(s, IfThenElse):
            return self._branch(s, pending)
        if isinstance(s, For) and not self._varies(s.min, s.extent):
            return self._loop(s, pending)
        raise LowerError(
            "a barrier is needed under divergent control flow",
            where=self.name,
            why=f"threads of a block run {self._name(s)} a different number of times, and meet in "
            f"{', '.join(dict.fromkeys(t.buffer.name for t in new))} inside",
            hint="give the loop an extent that does not depend on threadIdx, and guard its body instead",
        )

    def _name(self, s: Any) -> str:
        return f"loop {s.var.name}" if isinstance(s, For) else f"a {type(s).__name__}"

    def _varies(self, *exprs: Any) -> bool:
        """Whether expressions differ between threads of a block."""
        for x in exprs:
            if free_vars(x) & self.varying or any(is_private(n.buffer.scope) for n in accesses(x)[0]):
                return True
        return False

    def _loop(self, s: For, pending: Pending) -> tuple[Stmt, Pending]:
        with _Inside(self, s):
            body, after = self.stmt(s.body, ())
            body, after = self.stmt(body, _joined(pending, _stale(after)))
        stale = _stale(after)
        runs = prove(s.extent >= 1, self.facts) is True
        return rebuilt(s, body), tuple(stale) if runs else _joined(pending, stale)

    def _branch(self, s: IfThenElse, pending: Pending) -> tuple[Stmt, Pending]:
        if self._varies(s.cond):
            return self.stmt(self._cut(s), pending)
        with _Inside(self, s):
            then, after = self.stmt(s.then, pending)
        orelse, other = (None, pending) if s.orelse is None else self.stmt(s.orelse, pending)
        return IfThenElse(s.cond, then, orelse), _joined(after, list(other))

    def _cut(self, s: IfThenElse) -> Stmt:
        """A branch around several steps as several branches, so that barriers can stand between them."""
        if s.orelse is not None:
            stored = {n.buffer for n in accesses(s.then)[1]}
            if not any(n.buffer in stored for n in accesses(s.cond)[0]):
                return seq(IfThenElse(s.cond, s.then), IfThenElse(e.lnot(s.cond), s.orelse))
        then: Any = s.then
        stored = {n.buffer for n in accesses(then)[1]}
        if s.orelse is None and not any(n.buffer in stored for n in accesses(s.cond)[0]):
            if isinstance(then, SeqStmt):
                return seq(*[c if is_sync(c) else IfThenElse(s.cond, c) for c in then.stmts])
            if isinstance(then, For) and not self._varies(then.min, then.extent):
                return rebuilt(then, IfThenElse(s.cond, then.body))
            if isinstance(then, Allocate):
                return rebuilt(then, IfThenElse(s.cond, then.body))
            if isinstance(then, IfThenElse) and then.orelse is None:
                return self._cut(IfThenElse(e.land(s.cond, then.cond), then.then))
        raise LowerError(
            "a barrier is needed under divergent control flow",
            where=self.name,
            why=f"only threads with {s.cond} come by, but all of a block must",
            hint="move the condition to the statements that need it",
        )


class _Inside:
    """What holds below a statement: loop ranges, facts, and axes of which one thread is left."""

    def __init__(self, kernel: _Kernel, s: Any) -> None:
        self.kernel, self.stmt = kernel, s
        self.env: dict[Var, Range | None] | None = None

    def __enter__(self) -> None:
        k, s = self.kernel, self.stmt
        self.pinned = k.pinned
        if isinstance(s, For):
            k.env[s.var], k.sizes[s.var] = loop_range(s, k.env), e.const_int(s.extent)
            if k._varies(s.min, s.extent):
                k.varying.add(s.var)
        elif isinstance(s, LetStmt):
            k.lets.add(s.var)
            if k._varies(s.value):
                k.varying.add(s.var)
        elif isinstance(s, IfThenElse) and s.orelse is None:
            k.pinned = k.pinned | _pins(s.cond, k.several)
            self.env = dict(k.env)
            k.env.update(_limits(s.cond, k.threads))

    def __exit__(self, *args: object) -> None:
        k, s = self.kernel, self.stmt
        k.pinned = self.pinned
        if isinstance(s, For):
            k.env.pop(s.var, None)
        elif self.env is not None:
            k.env = self.env


def _pins(cond: PrimExpr, threads: list[Var]) -> frozenset[Var]:
    """Axes of which a condition leaves one thread: `tx < 1`, `tx == 3`."""
    found: set[Var] = set()
    stack: list[Any] = [cond]
    while stack:
        c: Any = stack.pop()
        if isinstance(c, e.And):
            stack += [c.a, c.b]
        elif isinstance(c, e.Call) and c.op == "likely":
            stack.append(c.args[0])
        elif isinstance(c, e.EQ | e.LT | e.LE) and isinstance(c.a, Var) and c.a in threads:
            limit = e.const_int(c.b)
            if limit is not None and (isinstance(c, e.EQ) or limit == (1 if isinstance(c, e.LT) else 0)):
                found.add(c.a)
    return frozenset(found)


def _turns(a: PrimExpr, b: PrimExpr) -> bool:
    """Whether two indices are different turns of one counter, as (k + 1) % 2 and k % 2 of a double buffer."""
    if not (isinstance(a, e.FloorMod) and isinstance(b, e.FloorMod)):
        return False
    step, size = e.const_int(simplify(a.a - b.a)), e.const_int(a.b)
    return step is not None and size is not None and size == e.const_int(b.b) and step % size != 0


def _limits(cond: PrimExpr, threads: Any) -> dict[Var, Range | None]:
    """The threads that a condition `tx < 8` leaves."""
    found: dict[Var, Range | None] = {}
    for c in conjuncts(cond):
        if isinstance(c, e.LT) and isinstance(c.a, Var) and c.a in threads and e.const_int(c.b) is not None:
            found[c.a] = Range((e.const(0),), (c.b - 1,))
    return found


def _joined(pending: Pending, new: list[Touch]) -> Pending:
    return tuple(dict.fromkeys((*pending, *new)))


def _stale(touches: Any) -> list[Touch]:
    """Accesses of other iterations: variables of loops have moved on."""
    return [replace(t, stale=True) for t in touches]


def _has_sync(s: Any) -> bool:
    return is_sync(s) or any(_has_sync(c) for c in kids(s))
