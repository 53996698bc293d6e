"""Runs statements over many iterations at once: independent loops become axes of values, the others take turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.tir import expr as e
from warpbeam.tir import stmt as s
from warpbeam.tir.interp_control import Control
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


class Machine(Control):
    """State of one run: variables, memory, batched loops and the mask of active iterations."""

    def __init__(self, batch: bool = True) -> None:
        super().__init__(Compiler(load_step))
        self.axes: list[Axis] = []
        self.axis_of: dict[e.Var, int] = {}
        self.lanes = 1
        self.batch = batch
        self.independence = Independence()
        self.stores: dict[s.BufferStore, tuple[Access, Code]] = {}
        self.folds: dict[s.For, Fold | None] = {}
        self.weights: dict[s.For, int] = {}

    def integer(self, expr: Any) -> int:
        """A size: the same for all iterations, or the largest of them."""
        if isinstance(expr, int):
            return expr
        value = self.value(expr)
        return scalar_int(value) if uniform(value) else int(value.max())

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

    # ------------------------------------------------------------------------------------------------------- statements

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


def _below(x: Any) -> tuple[Any, ...]:
    from warpbeam.ir.node import children

    return children(x)
