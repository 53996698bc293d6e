"""Runs statements over many iterations at once: independent loops become axes of values, the others take turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import IRError
from warpbeam.tir import expr as e
from warpbeam.tir import stmt as s
from warpbeam.tir.interp_memory import Access, InterpError, Storage, load_step, undefined
from warpbeam.tir.interp_parallel import Independence
from warpbeam.tir.interp_reduce import Fold, fold_of
from warpbeam.tir.interp_values import Code, Compiler, scalar_int, uniform

LANE_LIMIT = 1 << 18  # values of a batch; about what a second-level cache holds


class KernelAssertError(InterpError):
    """An assertion of the program does not hold.

    Wrong:
        check = text.parse('def check(A: float32[4]):\\n    assert A[0] > 0.0, "A must be positive"')
        interp.run(check, np.zeros(4, "float32"))
    Right:
        interp.run(check, np.ones(4, "float32"))
    """


@dataclass(slots=True)
class Axis:
    """A loop that runs in a batch: iterations start, start+1, …, start+extent-1."""

    var: e.Var
    start: int
    extent: int


class Machine:
    """State of one run: variables, memory, batched loops and the mask of active iterations."""

    def __init__(self, batch: bool = True) -> None:
        self.env: dict[e.Var, Any] = {}
        self.memory: dict[e.Buffer, Storage] = {}
        self.axes: list[Axis] = []
        self.axis_of: dict[e.Var, int] = {}
        self.mask: Any = None
        self.lanes = 1
        self.batch = batch
        self.compiler = Compiler(load_step)
        self.independence = Independence()
        self.stores: dict[s.BufferStore, tuple[Access, Code]] = {}
        self.folds: dict[s.For, Fold | None] = {}
        self.weights: dict[s.For, int] = {}
        self.current: Any = None

    # -------------------------------------------------------------------------------------------------------- variables

    def lookup(self, var: e.Var) -> Any:
        found = self.env.get(var)
        if found is None:
            raise InterpError(f"variable {var.name} has no value here", where=self.describe(), why="nothing binds it")
        return found

    def bind(self, var: e.Var, value: Any) -> None:
        """Binds a copy: a loaded value may be a view of memory that is overwritten later."""
        self.env[var] = np.array(value)

    def storage(self, buffer: e.Buffer) -> Storage:
        found = self.memory.get(buffer)
        if found is None:
            raise InterpError(
                f"buffer {buffer.name} has no memory here",
                where=self.describe(),
                why="it is neither a parameter nor allocated by an enclosing statement",
            )
        return found

    def value(self, expr: e.PrimExpr) -> Any:
        return self.compiler.compile(expr).run(self)

    def integer(self, expr: Any) -> int:
        """A size: the same for all iterations, or the largest of them."""
        if isinstance(expr, int):
            return expr
        value = self.value(expr)
        return scalar_int(value) if uniform(value) else int(value.max())

    def describe(self) -> str:
        """The statement that runs, as text."""
        if self.current is None:
            return ""
        from warpbeam.tir.text.printer import brief

        return brief(self.current)

    # ------------------------------------------------------------------------------------------------------------- axes

    def positions(self, axis: int) -> Any:
        """0, 1, … along one axis."""
        return np.arange(self.axes[axis].extent).reshape((-1,) + (1,) * (axis + 1))

    @contextmanager
    def axis(self, var: e.Var, start: int, extent: int) -> Iterator[None]:
        """Runs iterations start … start+extent-1 of a loop at once."""
        number = len(self.axes)
        kind = dt.to_numpy(var.dtype)
        self.axes.append(Axis(var, start, extent))
        self.axis_of[var] = number
        self.env[var] = (self.positions(number) + start).astype(kind)
        lanes, self.lanes = self.lanes, self.lanes * extent
        try:
            yield
        finally:
            self.axes.pop()
            del self.axis_of[var], self.env[var]
            self.lanes = lanes

    @contextmanager
    def masked(self, cond: Any) -> Iterator[None]:
        """Only iterations where `cond` holds are active."""
        old = self.mask
        self.mask = cond if old is None else old & cond
        try:
            yield
        finally:
            self.mask = old

    def active(self) -> bool:
        return self.mask is None or bool(np.any(self.mask))

    # ------------------------------------------------------------------------------------------------------- statements

    def run(self, stmt: s.Stmt) -> None:
        """Executes a statement; chains of lets, allocations and single-iteration loops take no stack."""
        while True:
            handler = _STEPS.get(type(stmt))
            if handler is None:
                raise IRError(f"the interpreter has no meaning for statement {type(stmt).__name__}")
            rest = handler(self, stmt)
            if rest is None:
                return
            stmt = rest

    def seq(self, n: Any) -> None:
        for x in n.stmts:
            self.run(x)

    def store(self, n: Any) -> None:
        self.current = n
        found = self.stores.get(n)
        if found is None:
            if dt.scalar(n.value.dtype) != dt.scalar(n.buffer.dtype):
                raise InterpError(
                    f"a {n.value.dtype} value is stored into buffer {n.buffer.name} of {n.buffer.dtype}",
                    where=self.describe(),
                    hint="cast the value explicitly",
                )
            found = Access(n.buffer, n.indices, self.compiler), self.compiler.compile(n.value)
            self.stores[n] = found
        value = found[1].run(self)
        found[0].store(self, value)

    def let(self, n: Any) -> s.Stmt:
        self.current = n
        self.bind(n.var, self.value(n.value))
        return n.body  # type: ignore[no-any-return]

    def allocate(self, n: Any) -> s.Stmt:
        self.current = n
        shape = [self.integer(d) for d in n.buffer.shape]
        axes: dict[int, int] = {}
        inner = 1
        for k in range(len(self.axes)):
            axes[k] = inner
            inner *= self.axes[k].extent
        count = inner
        for d in shape:
            count *= d
        self.memory[n.buffer] = Storage(undefined(count, n.buffer.dtype), shape, inner, axes)
        return n.body  # type: ignore[no-any-return]

    def branch(self, n: Any) -> s.Stmt | None:
        self.current = n
        cond = self.value(n.cond)
        if uniform(cond):
            return n.then if cond.item() else n.orelse  # type: ignore[no-any-return]
        for side, where in ((n.then, cond), (n.orelse, np.logical_not(cond))):
            if side is not None:
                with self.masked(where):
                    if self.active():
                        self.run(side)
        return None

    def loop_while(self, n: Any) -> None:
        old = self.mask
        try:
            while True:
                self.current = n
                cond = self.value(n.cond)
                self.mask = cond if self.mask is None else self.mask & cond
                if not np.any(self.mask):
                    return
                if old is None and uniform(self.mask):
                    self.mask = None
                self.run(n.body)
        finally:
            self.mask = old

    def check(self, n: Any) -> None:
        self.current = n
        wrong = np.logical_not(self.value(n.cond))
        if self.mask is not None:
            wrong = wrong & self.mask
        if np.any(wrong):
            raise KernelAssertError(n.message, where=self.describe(), why="the assertion does not hold")

    def evaluate(self, n: Any) -> None:
        self.current = n
        if type(n.value) is e.Call and n.value.op == "prefetch":
            return
        self.value(n.value)

    # ------------------------------------------------------------------------------------------------------------ loops

    def loop(self, n: Any) -> s.Stmt | None:
        self.current = n
        start, extent = self.value(n.min), self.value(n.extent)
        if not (uniform(start) and uniform(extent)):
            self._ragged(n, start, extent)
            return None
        low, count = scalar_int(start), scalar_int(extent)
        if count == 1:
            self.env[n.var] = np.array(low, dt.to_numpy(n.var.dtype))
            return n.body  # type: ignore[no-any-return]
        if count < 1:
            return None
        room = LANE_LIMIT // (self.lanes * self.weight(n))
        if self.batch and room >= 2 and self.independence.of(n):
            for first in range(low, low + count, room):
                self._batch(n, first, min(room, low + count - first))
            return None
        if self.batch and count >= 16 and self.lanes * 64 <= LANE_LIMIT:
            fold = self.fold(n)
            if fold is not None and fold.run(self, low, count):
                return None
        self._serial(n, low, count)
        return None

    def _batch(self, n: Any, first: int, count: int) -> None:
        if count == 1:
            self._serial(n, first, 1)
            return
        with self.axis(n.var, first, count):
            self.run(n.body)

    def _serial(self, n: Any, low: int, count: int) -> None:
        kind = dt.to_numpy(n.var.dtype).type
        for i in range(low, low + count):
            self.env[n.var] = kind(i)
            self.run(n.body)

    def _ragged(self, n: Any, start: Any, extent: Any) -> None:
        """A loop whose bounds differ between batched iterations: the longest, with those that are done masked out."""
        longest = int(np.max(extent))
        if longest < 1:
            return
        room = LANE_LIMIT // (self.lanes * self.weight(n))
        if self.batch and uniform(start) and 2 <= longest <= room and self.independence.of(n):
            low = scalar_int(start)
            with self.axis(n.var, low, longest), self.masked(self.env[n.var] < start + extent):
                if self.active():
                    self.run(n.body)
            return
        for t in range(longest):
            with self.masked(np.asarray(t < extent)):
                if self.active():
                    self.env[n.var] = start + np.asarray(t, dt.to_numpy(n.var.dtype))
                    self.run(n.body)

    def fold(self, n: s.For) -> Fold | None:
        if n not in self.folds:
            self.folds[n] = fold_of(n)
        return self.folds[n]

    def weight(self, n: s.For) -> int:
        """Elements of memory that each iteration has for itself (1 if none)."""
        found = self.weights.get(n)
        if found is None:
            total, todo = 1, [n.body]
            while todo:
                x = todo.pop()
                if type(x) is s.Allocate:
                    size = 1
                    for d in x.buffer.shape:
                        size *= d if isinstance(d, int) else 64
                    total = max(total, size)
                todo += [c for c in _below(x) if isinstance(c, s.Stmt)]
            found = self.weights[n] = total
        return found


def _below(x: Any) -> list[Any]:
    from warpbeam.ir.node import children

    return children(x)


_STEPS: dict[type, Callable[[Machine, Any], s.Stmt | None]] = {
    s.SeqStmt: Machine.seq,
    s.BufferStore: Machine.store,
    s.For: Machine.loop,
    s.LetStmt: Machine.let,
    s.Allocate: Machine.allocate,
    s.IfThenElse: Machine.branch,
    s.While: Machine.loop_while,
    s.AssertStmt: Machine.check,
    s.Evaluate: Machine.evaluate,
}
