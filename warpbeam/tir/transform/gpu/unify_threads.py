"""Makes the hardware axes variables of a whole kernel, so that stages bound to one axis share its threads.

    for bx in 4 (blockIdx.x):                     for bx in 4 (blockIdx.x):
        for tx in 8 (threadIdx.x):                    for tx in 8 (threadIdx.x):
            for k in 2:                    ->             for k in 2:
                for t in 4 (threadIdx.x):                     if tx < 4: S[tx] = A[k, tx]
                    S[t] = A[k, t]                            C[bx, tx] = C[bx, tx] + S[tx % 4]
                C[bx, tx] += S[tx % 4]

In the program before, an inner loop over an axis is one that every thread repeats in full: the copy is redundant.
After it the threads share the copy out. That is only meant where the inner loop does not depend on the outer thread;
where it does (its index, or private memory that differs or is filled), the inner loop stays a serial loop of each. What
stands outside of all loops over an axis is done by each thread for its private memory, and by the first thread for
memory that others see.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from warpbeam.ir.diagnostics import LowerError
from warpbeam.ir.node import Attrs
from warpbeam.ir.rewrite import post_order, substitute
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import accesses, free_vars
from warpbeam.tir.analysis.regions import upper_bound
from warpbeam.tir.analysis.tree import kids, own_parts, with_kids
from warpbeam.tir.arith import Facts, prove, simplify
from warpbeam.tir.expr import Buffer, PrimExpr, Var
from warpbeam.tir.stmt import Allocate, BufferStore, For, IfThenElse, LetStmt, PrimFunc, SeqStmt, Stmt, While
from warpbeam.tir.transform.gpu.common import (
    TAGS,
    has_thread,
    is_block_axis,
    is_private,
    is_shared,
    is_thread,
    map_kernels,
)
from warpbeam.tir.transform.gpu.thread_taint import Taint
from warpbeam.tir.transform.mutate import peel, wrap


def unify_threads(func: PrimFunc) -> PrimFunc:
    """The function with each kernel's hardware loops outermost, one per axis.

    Raises:
        LowerError: if the extent of an axis depends on what only the device knows.
    """
    allocs, body = peel(func.body)
    return PrimFunc(
        func.name, func.params, wrap(allocs, map_kernels(body, lambda k: _Kernel(k, func.name).made())), func.attrs
    )


class _Kernel:
    """`axes`: tag -> (variable, extent) of the launch. `outer`: loop variables replaced, by tag."""

    def __init__(self, kernel: For, name: str) -> None:
        self.kernel = kernel
        self.name = name
        self.facts = Facts()
        self.extents: dict[str, PrimExpr] = {}
        self._collect(kernel, {})
        order = [t for t in TAGS if t in self.extents]
        self.vars = {t: Var(t.replace(".", "_"), "int64") for t in order}
        self.stores = Counter(n.buffer for n in accesses(kernel)[1])
        self.taint = Taint(kernel)
        self.taint.vars.update({v: frozenset((t,)) for t, v in self.vars.items()})

    def _collect(self, s: Any, seen: dict[Var, str]) -> None:
        if is_thread(s):
            extent = self._launch(s, seen)
            old = self.extents.get(s.thread)
            self.extents[s.thread] = extent if old is None else simplify(e.maximum(old, extent))
        if isinstance(s, For):
            with self.facts.scope():
                self.facts.bind(s.var, s.min, s.extent)
                self._collect(s.body, {**seen, s.var: s.thread})
            return
        for c in kids(s):
            self._collect(c, seen)

    def _launch(self, loop: For, seen: dict[Var, str]) -> PrimExpr:
        """The extent as the host can compute it: without variables of the device."""
        if free_vars(loop.extent).isdisjoint(seen):
            return loop.extent
        most = upper_bound(loop.extent, self.facts)
        if most is None:
            raise LowerError(
                f"the extent of loop {loop.var.name}, bound to {loop.thread}, is {loop.extent}",
                where=self.name,
                why="a launch needs extents that the host knows, and this one varies inside of the kernel",
                hint="split by a constant and bind the inner loop",
            )
        return e.const(most, loop.var.dtype)

    def made(self) -> Stmt:
        body: Stmt = self.stmt(self.kernel, {}, {}) or SeqStmt(())
        tags = [t for t in TAGS if t in self.extents]
        wide = [t for t in tags if e.const_int(self.extents[t]) != 1] or tags[:1]
        body = substitute(body, {self.vars[t]: e.const(0) for t in tags if t not in wide})
        for t in reversed(wide):
            note = Attrs({"joined": t})  # keeps a loop of one iteration: without any there would be no kernel
            body = For(self.vars[t], 0, self.extents[t], "thread_binding", body, note, t)
        return body

    # `guards`: tag -> condition under which a thread takes part (None: always); tags without an entry are not bound
    # here. `outer`: tag -> variable of the enclosing loop of that axis (replaced already).

    def stmt(self, s: Any, guards: dict[str, PrimExpr | None], outer: dict[str, Var]) -> Stmt | None:
        if is_thread(s):
            return self._axis(s, guards, outer)
        if not has_thread(s):
            return self._guarded(s, guards)
        new = [self.stmt(c, guards, outer) for c in kids(s)]
        return with_kids(s, new)

    def _axis(self, s: For, guards: dict[str, PrimExpr | None], outer: dict[str, Var]) -> Stmt | None:
        tag, var = s.thread, self.vars[s.thread]
        if tag in outer and not s.annotations.get("cooperative") and _is_own(s, tag, self.taint):
            plain = For(s.var, s.min, s.extent, "serial", s.body)
            if has_thread(s.body):
                raise LowerError(
                    f"loop {s.var.name} over {tag} is inside another loop over {tag} and depends on it",
                    where=self.name,
                    hint="bind one of the two to another axis",
                )
            return self._guarded(plain, guards)
        guard: PrimExpr | None = None
        if prove(self.extents[tag] <= s.extent, self.facts) is not True:
            guard = var < e.cast("int64", s.extent)
        at = simplify(e.cast(s.var.dtype, var) + s.min)
        body = substitute(s.body, {s.var: at})
        return self.stmt(body, {**guards, tag: guard}, {**outer, tag: s.var})

    def _guarded(self, s: Stmt, guards: dict[str, PrimExpr | None]) -> Stmt:
        """A statement of each thread, run by those that take part."""
        wide = {t: v for t, v in self.vars.items() if e.const_int(self.extents[t]) != 1}
        idle = [v for t, v in wide.items() if t not in guards]
        blocks = [v for t, v in wide.items() if is_block_axis(t)]
        s = _ByFirst(idle, [v for t, v in wide.items() if t in guards], blocks, self.stores).stmt(s, set())
        conds = [g for g in guards.values() if g is not None]
        return IfThenElse(e.land(*conds), s) if conds else s


class _ByFirst:
    """Lets the first thread alone store what others see: over axes that are not bound here (`idle`), and over those on
    which neither place nor value depends (`bound`), where all would do the same."""

    def __init__(self, idle: list[Var], bound: list[Var], blocks: list[Var], stores: Mapping[Buffer, int]) -> None:
        self.idle = idle
        self.bound = bound
        self.blocks = blocks
        self.stores = stores  # of the whole kernel
        self.taint: dict[Var, set[Var]] = {v: {v} for v in bound}

    def uses(self, *exprs: Any, private: bool = True) -> set[Var]:
        """The axes that expressions depend on; what is private may depend on all, where that counts."""
        found: set[Var] = set()
        for x in exprs:
            if private and any(is_private(n.buffer.scope) for n in accesses(x)[0]):
                return set(self.bound)
            for v in free_vars(x):
                found |= self.taint.get(v, set())
        return found

    def stmt(self, s: Any, context: set[Var]) -> Stmt:
        if isinstance(s, BufferStore):
            return s if is_private(s.buffer.scope) else self._store(s, context)
        if isinstance(s, LetStmt | For):
            self.taint[s.var] = self.uses(*own_parts(s))
        if isinstance(s, For | IfThenElse | While):
            context = context | self.uses(*own_parts(s))
        below = kids(s)
        if not below:
            return s  # type: ignore[no-any-return]
        return with_kids(s, [self.stmt(c, context) for c in below]) or SeqStmt(())

    def _store(self, s: BufferStore, context: set[Var]) -> Stmt:
        # One element holds one value: what threads keep of their own gives the same to each that stores it.
        needed = context | self.uses(*s.indices) | self.uses(s.value, private=False)
        if self.stores[s.buffer] == 1 and any(
            n.buffer is s.buffer and n.indices == s.indices for n in accesses(s.value)[0]
        ):
            needed |= set(self.bound)  # done once and done by all are not the same: it counts
        axes = [*self.idle, *(v for v in self.bound if v not in needed)]
        if is_shared(s.buffer.scope):  # each block has its own
            axes = [v for v in axes if v not in self.blocks]
        return IfThenElse(e.land(*[v < 1 for v in axes]), s) if axes else s


def _is_own(s: For, tag: str, taint: Taint) -> bool:
    """Whether iterations belong to each thread of an enclosing loop over the same axis: they depend on the thread, or
    fill memory that each thread has for itself."""
    bound = {n.var for n in post_order(s) if isinstance(n, For | LetStmt | e.Let)}
    if any(tag in taint.vars.get(v, ()) for v in _thread_use(s.body) - bound):
        return True
    loads, stores = accesses(s.body)
    inside = {n.buffer for n in post_order(s.body) if isinstance(n, Allocate)}
    if any(is_private(n.buffer.scope) and n.buffer not in inside for n in stores):
        return True
    return any(tag in taint.memory.get(n.buffer, ()) and n.buffer not in inside for n in loads)


def _thread_use(s: Any) -> set[Var]:
    """Variables that a statement's expressions mention."""
    found: set[Var] = set()
    stack: list[Any] = [s]
    while stack:
        n = stack.pop()
        for x in own_parts(n):
            found |= free_vars(x)
        stack.extend(kids(n))
    return found
