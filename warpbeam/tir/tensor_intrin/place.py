"""Puts a template where an operand really lies: its buffers become regions of the program's.

declared B[16, 4]: B[0, ramp(0, 1, 64)]    ->    W[io, ko, ramp(0, 1, 64) // 4, ramp(0, 1, 64) % 4]
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.ir.rewrite import rewrite, substitute
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.lane_offsets import lane_index, lane_offsets
from warpbeam.tir.arith import Facts, linear, simplify
from warpbeam.tir.expr import Buffer, BufferLoad, BufferRef, Call, PrimExpr, Var
from warpbeam.tir.stmt import BufferStore, Stmt


@dataclass(frozen=True)
class Region:
    """Element `dims` of an operand of shape `shape` is element `indices` (expressions over `dims`) of `buffer`."""

    buffer: Buffer
    dims: tuple[Var, ...]
    shape: tuple[int, ...]
    indices: tuple[PrimExpr, ...]
    facts: Facts

    @staticmethod
    def whole(buffer: Buffer) -> Region:
        """All of a buffer of constant shape."""
        dims = tuple(Var(f"d{k}") for k in range(len(buffer.shape)))
        return Region(buffer, dims, tuple(int(s) for s in buffer.shape), dims, Facts())

    def start(self) -> PrimExpr:
        """The region's first element, counted from the buffer's first."""
        zero: dict[Any, Any] = {d: e.const(0) for d in self.dims}
        return simplify(substitute(self._flat(), zero), self.facts)  # type: ignore[no-any-return]

    def strides(self) -> list[PrimExpr] | None:
        """Elements from one index to the next, per dimension of the operand; None where that varies."""
        found = linear(self._flat(), self.dims, self.facts)
        return None if found is None else [found[0].get(d, e.const(0)) for d in self.dims]

    def _flat(self) -> PrimExpr:
        at, step = e.const(0), e.const(1)
        for k in reversed(range(len(self.indices))):
            at = at + self.indices[k] * (e.as_expr(self.buffer.strides[k]) if self.buffer.strides else step)
            step = e.mul(step, self.buffer.shape[k])
        return simplify(at, self.facts)  # type: ignore[no-any-return]

    def at(self, index: tuple[PrimExpr, ...]) -> tuple[PrimExpr, ...]:
        """The buffer's indices of an operand's element, or of lanes that may run on into its next rows."""
        count = max([dt.lanes(i.dtype) for i in index], default=1)
        if count == 1:
            return tuple(self._value(i, index) for i in self.indices)
        starts, offsets = self._lanes(index, count)
        moved = []
        for i in self.indices:
            value = self._value(i, starts)
            steps = self._steps(i, value, starts, offsets, count)
            vector = None if steps is None else lane_index(value, steps)
            if vector is None:
                raise ScheduleError(
                    f"a vector of {count} lanes of the intrinsic cannot be read from {self.buffer.name}",
                    why=f"its lanes lie scattered in the region {self.describe()}",
                    hint="lay the operand out so that the region is contiguous (transform_layout)",
                )
            moved.append(vector)
        return tuple(moved)

    def _value(self, i: PrimExpr, index: tuple[PrimExpr, ...]) -> PrimExpr:
        values: dict[Any, Any] = dict(zip(self.dims, index, strict=True))
        return simplify(substitute(i, values), self.facts)  # type: ignore[no-any-return]

    def _lanes(self, index: tuple[PrimExpr, ...], count: int) -> tuple[tuple[PrimExpr, ...], list[list[int]]]:
        """First lane and distances per dimension of the operand; what runs over a row goes on in the next."""
        starts, offsets = [], []
        for i in index:
            found = lane_offsets(i, count)
            if found is None:
                raise ScheduleError("the lanes of an access in the intrinsic are no constant distances apart")
            starts.append(found[0])
            offsets.append(list(found[1]))
        for k in range(len(index) - 1, 0, -1):
            first, size = e.const_int(starts[k]), self.shape[k]
            if first is None or first + max(offsets[k]) < size:
                continue
            for n, x in enumerate(offsets[k]):
                offsets[k - 1][n] += (first + x) // size
                offsets[k][n] = (first + x) % size - first % size
            starts[k] = e.const(first % size)
        return tuple(starts), offsets

    def _steps(
        self, i: PrimExpr, value: PrimExpr, starts: tuple[PrimExpr, ...], offsets: list[list[int]], count: int
    ) -> list[int] | None:
        """Distances of the lanes in one index of the buffer."""
        found = linear(i, self.dims, self.facts)
        if found is not None:
            slopes = [e.const_int(found[0].get(d, 0)) for d in self.dims]
            if all(s is not None or not any(o) for s, o in zip(slopes, offsets, strict=True)):
                return [sum((s or 0) * o[n] for s, o in zip(slopes, offsets, strict=True)) for n in range(count)]
            return None
        steps = []
        for n in range(count):
            lane = self._value(i, tuple(s + o[n] for s, o in zip(starts, offsets, strict=True)))
            step = e.const_int(simplify(lane - value, self.facts))
            if step is None:
                return None
            steps.append(step)
        return steps

    def span(self) -> PrimExpr:
        """Elements from the region's first to its last, both included."""
        last: dict[Any, Any] = {d: e.const(s - 1) for d, s in zip(self.dims, self.shape, strict=True)}
        return simplify(substitute(self._flat(), last) - self.start() + 1, self.facts)  # type: ignore[no-any-return]

    def describe(self) -> str:
        """The region as text, `A[4*i + d0, k]`."""
        from warpbeam.tir.text.printer import brief

        return brief(BufferLoad(self.buffer, self.indices))


def placed(stmt: Stmt, regions: Mapping[Buffer, Region], values: Mapping[Var, PrimExpr]) -> Stmt:
    """A template over real memory: accesses, pointers and variables (strides, offsets, parameters) replaced."""

    def change(n: Any) -> Any:
        if isinstance(n, BufferLoad) and n.buffer in regions:
            return BufferLoad(regions[n.buffer].buffer, regions[n.buffer].at(n.indices))
        if isinstance(n, BufferStore) and n.buffer in regions:
            return BufferStore(regions[n.buffer].buffer, n.value, regions[n.buffer].at(n.indices))
        if isinstance(n, BufferRef) and n.buffer in regions:
            r = regions[n.buffer]
            return Call("handle", "access_ptr", (BufferRef(r.buffer), r.start(), r.span(), e.const(3)))
        if isinstance(n, Call) and n.op == "access_ptr" and n.args:
            return _pointer(n)
        return None

    def _pointer(n: Call) -> Any:
        inner = n.args[0]
        if not (isinstance(inner, Call) and inner.op == "access_ptr"):
            return None
        buffer, first, size, _ = inner.args  # what a BufferRef of the template became
        offset = simplify(first + n.args[1])
        return Call(n.type, "access_ptr", (buffer, offset, simplify(size - n.args[1]), n.args[3]), n.attrs)

    mapping: dict[Any, Any] = dict(values)
    return rewrite(substitute(stmt, mapping) if mapping else stmt, change)  # type: ignore[no-any-return]
