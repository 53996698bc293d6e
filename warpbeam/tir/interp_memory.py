"""Buffers of the interpreter, and element accesses over many iterations at once.

An access whose indices are affine in the batched loops is a strided view of the memory, any other a gather or scatter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import WarpbeamError
from warpbeam.tir import expr as e
from warpbeam.tir.arith import poly as P
from warpbeam.tir.interp_values import Code, Compiler, Step, scalar_int, uniform

if TYPE_CHECKING:
    from warpbeam.tir.interp_machine import Machine


class InterpError(WarpbeamError):
    """A program did something at run time that has no meaning.

    Wrong:
        interp.run(func, x)
    Right:
        interp.run(func, x, np.zeros((4, 4), "float32"))
    """


class OutOfBoundsError(InterpError):
    """An element outside a buffer was read or written.

    Wrong:
        fill = text.parse("def fill(A: float32[4]):\\n    for i in range(5):\\n        A[i] = 0.0")
        interp.run(fill, np.ones(4, "float32"))
    Right:
        fill = text.parse("def fill(A: float32[4]):\\n    for i in range(4):\\n        A[i] = 0.0")
        interp.run(fill, np.ones(4, "float32"))
    """


class Storage:
    """Memory of one buffer: flat elements; `axes` maps batched loops to strides, where it is private."""

    __slots__ = ("axes", "flat", "raw", "shape", "strides")

    def __init__(self, flat: Any, shape: list[int], inner: int = 1, axes: dict[int, int] | None = None) -> None:
        self.flat = flat
        self.raw = flat.view(np.uint8)
        self.shape = shape
        self.strides = [0] * len(shape)
        step = inner
        for k in reversed(range(len(shape))):
            self.strides[k] = step
            step *= shape[k]
        self.axes = axes or {}


def undefined(count: int, dtype: str) -> Any:
    """Memory whose content is undefined: NaN, or the least integer, so that reading it shows."""
    kind = dt.to_numpy(dtype)
    if dt.is_float(dtype):
        return np.full(count, np.nan, kind)
    if dt.is_bool(dtype):
        return np.ones(count, kind)
    low, high = dt.int_range(dtype)
    return np.full(count, low or high, kind)


Term = tuple[int, tuple[Any, ...]]  # coefficient, factors: Vars or Codes


class Access:
    """Compiled element access: where `buffer[indices]` lies for all batched iterations and lanes."""

    def __init__(self, buffer: e.Buffer, indices: tuple[e.PrimExpr, ...], compiler: Compiler) -> None:
        self.buffer = buffer
        self.codes: list[Code] = [compiler.compile(i) for i in indices]
        self.lane_step: list[list[Term]] = []
        self.dims: list[list[Term]] | None = []
        self.lanes = 1
        for index in indices:
            step: list[Term] = []
            if type(index) is e.Ramp:
                self.lanes = index.count
                step = self._terms(index.stride, compiler)
                index = index.base
            elif dt.lanes(index.dtype) > 1:
                self.dims = None  # a vector of indices: always a gather
                return
            assert self.dims is not None
            self.dims.append(self._terms(index, compiler))
            self.lane_step.append(step)

    def _terms(self, index: e.PrimExpr, compiler: Compiler) -> list[Term]:
        found: list[Term] = []
        for mono, coef in P.of_expr(index).items():
            found.append((coef, tuple(a if type(a) is e.Var else compiler.compile(a) for a in mono)))
        return found

    # ----------------------------------------------------------------------------------------------------------- places

    def view(self, m: Machine) -> Any:
        """A strided view of the elements, (…axes, lanes); None if the access is not affine or leaves the buffer."""
        store = m.storage(self.buffer)
        if self.dims is None:
            return None
        offset, steps, lane = 0, dict(store.axes), 0
        for terms, step, size, stride in zip(self.dims, self.lane_step, store.shape, store.strides, strict=True):
            place = self._affine(terms, m)
            lane_place = self._affine(step, m) if step else (0, {})
            if place is None or lane_place is None or lane_place[1]:
                return None
            low = high = place[0]
            for axis, by in place[1].items():
                reach = by * (m.axes[axis].extent - 1)
                low, high = low + min(0, reach), high + max(0, reach)
                steps[axis] = steps.get(axis, 0) + by * stride
            reach = lane_place[0] * (self.lanes - 1)
            if low + min(0, reach) < 0 or high + max(0, reach) >= size:
                return None
            offset += place[0] * stride
            lane += lane_place[0] * stride
        return self._strided(store, offset, steps, lane, m)

    def _strided(self, store: Storage, offset: int, steps: dict[int, int], lane: int, m: Machine) -> Any:
        flat, item = store.flat, store.flat.itemsize
        if not steps and self.lanes == 1:
            return flat[offset : offset + 1]
        shape, strides = [self.lanes], [lane * item]
        for axis in range(max(steps, default=-1) + 1):
            shape.insert(0, m.axes[axis].extent if axis in steps else 1)
            strides.insert(0, steps.get(axis, 0) * item)
        return np.ndarray(tuple(shape), flat.dtype, store.raw, offset * item, tuple(strides))

    def _affine(self, terms: list[Term], m: Machine) -> tuple[int, dict[int, int]] | None:
        base = 0
        steps: dict[int, int] = {}
        for coef, factors in terms:
            axis = None
            for f in factors:
                if type(f) is e.Var:
                    at = m.axis_of.get(f)
                    if at is not None:
                        if axis is not None:
                            return None
                        axis = at
                        continue
                    value = m.env[f] if f in m.env else m.lookup(f)
                else:
                    value = f.run(m)
                if not uniform(value):
                    return None
                coef *= scalar_int(value)
            if axis is None:
                base += coef
            else:
                base += coef * m.axes[axis].start
                steps[axis] = steps.get(axis, 0) + coef
        return base, steps

    def places(self, m: Machine) -> tuple[Any, Any]:
        """(flat element numbers, validity or None); raises where an active iteration leaves the buffer."""
        store = m.storage(self.buffer)
        total: Any = np.int64(0)
        bad: Any = None
        values = [c.run(m) for c in self.codes]
        for value, size, stride in zip(values, store.shape, store.strides, strict=True):
            value = np.asarray(value).astype(np.int64, copy=False)
            outside = (value < 0) | (value >= size)
            if outside.any():
                bad = outside if bad is None else bad | outside
                value = np.clip(value, 0, max(size - 1, 0))
            total = total + value * stride
        if bad is not None:
            wrong = bad if m.mask is None else bad & m.mask
            if wrong.any():
                self._complain(values, wrong, store, m)
        for axis, stride in store.axes.items():
            total = total + m.positions(axis) * stride
        return total, bad

    def _complain(self, values: list[Any], wrong: Any, store: Storage, m: Machine) -> None:
        shape = np.broadcast_shapes(wrong.shape, *[np.shape(v) for v in values])
        first = np.unravel_index(int(np.argmax(np.broadcast_to(wrong, shape))), shape)
        index = [int(np.broadcast_to(v, shape)[first]) for v in values]
        raise OutOfBoundsError(
            f"buffer {self.buffer.name} of shape {tuple(store.shape)} was accessed at {tuple(index)}",
            where=m.describe(),
            why="the index lies outside the buffer",
            hint="guard the access with if_then_else or a loop bound, or check the transformation that made it",
        )

    # ---------------------------------------------------------------------------------------------------------- access

    def load(self, m: Machine) -> Any:
        """The elements; may be a view of the memory, to be used before the next store."""
        view = self.view(m)
        if view is not None:
            return view
        store = m.storage(self.buffer)
        if not store.flat.size:
            self.places(m)
            return store.flat.dtype.type(0)
        return store.flat[self.places(m)[0]]

    def store(self, m: Machine, value: Any) -> None:
        view = self.view(m)
        if view is not None:
            if m.mask is None:
                np.copyto(view, value, casting="no")
            else:
                np.copyto(view, value, casting="no", where=m.mask)
            return
        index, bad = self.places(m)
        flat = m.storage(self.buffer).flat
        shape = np.broadcast_shapes(np.shape(index), np.shape(value), () if m.mask is None else m.mask.shape)
        index, value = np.broadcast_to(index, shape), np.broadcast_to(value, shape)
        keep = None if bad is None else np.broadcast_to(~bad, shape)
        if m.mask is not None:
            keep = np.broadcast_to(m.mask, shape) if keep is None else keep & m.mask
        if keep is None:
            flat[index] = value
        else:
            flat[index[keep]] = value[keep]


def load_step(n: e.BufferLoad, compiler: Compiler) -> Step:
    """The step that reads a buffer."""
    access = Access(n.buffer, n.indices, compiler)
    return lambda m, s: access.load(m)
