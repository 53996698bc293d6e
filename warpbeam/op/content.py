"""Operators that find out how much there is: non-zero places, distinct values, boxes that remain; and shape arithmetic.

What they find stands at the front of results as large as it can get, next to the count: `counted.cut` cuts it off.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.op.base import REQUIRED, Op, tensor_type, tensors
from warpbeam.op.index_loops import Loops
from warpbeam.relay.types import TensorType, TupleType, Type
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.tir.stmt import PrimFunc
from warpbeam.topi import dims

INT = "int64"


class NonzeroPlaces(Op):
    """(places, count): flat row-major places of the elements that are not zero, in order, then zeros."""

    name = "nonzero_places"

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        (x,) = tensors(self, types)
        return TupleType((TensorType((dims.prod(x.shape),), INT), TensorType((), INT)))  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> Any:
        places, found = np.zeros(x.size, np.int64), np.flatnonzero(x)
        places[: found.size] = found
        return places, np.asarray(found.size, np.int64)

    def compute_prim(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> PrimFunc:
        loops = Loops(self.name, inputs, list(out_type.fields))
        (x,), (places, count) = loops.ins, loops.outs

        def visit(at: list[Any]) -> Any:
            flat: Any = E.const(0)
            for d, i in zip(x.shape, at, strict=True):
                flat = flat * d + i
            value = x[tuple(at)]
            there = value if dt.is_bool(x.dtype) else E.binary(E.NE, value, E.const(0, x.dtype))
            return loops.when(there, [loops.store(places, count[()], flat), loops.store(count, [], count[()] + 1)])

        clear = loops.moved(places.shape, lambda at: loops.store(places, at, E.const(0)), "z")
        return loops.func(clear, loops.store(count, [], E.const(0)), loops.nest(x.shape, visit))


class UniquePlaces(Op):
    """(first, inverse, counts, count) of the distinct entries along axis 0: place of the first of each, number of the
    distinct one for each entry, how often each occurs. sorted: in ascending order, else in order of appearance.
    """

    name = "unique_places"
    defaults = {"sorted": True}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        (x,) = tensors(self, types)
        row = TensorType((x.shape[0],), INT)
        return TupleType((row, row, row, TensorType((), INT)))  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> Any:
        found = np.unique(x, return_index=True, return_inverse=True, return_counts=True, axis=0 if x.ndim > 1 else None)
        first, inverse, counts = found[1], found[2].reshape(-1), found[3]
        if not attrs["sorted"]:
            order = np.argsort(first)
            rank = np.argsort(order)
            first, counts, inverse = first[order], counts[order], rank[inverse]
        n = first.size
        out = [np.zeros(x.shape[0], np.int64) for _ in range(2)]
        out[0][:n], out[1][:n] = first, counts
        return out[0], inverse.astype(np.int64), out[1], np.asarray(n, np.int64)

    def compute_prim(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> PrimFunc:
        from warpbeam.op.unique_rows import unique_program

        return unique_program(self.name, inputs, out_type, attrs["sorted"])


class ResolveShape(Op):
    """A target for reshape with 0 (as the shape that is there, unless allow_zero) and -1 (what is left) resolved."""

    name = "resolve_shape"
    arity = 2
    defaults = {"allow_zero": False}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        target, have = tensors(self, types)
        if target.dtype != INT or have.dtype != INT or target.ndim != 1 or have.ndim != 1:
            raise self.error("takes two vectors of int64")
        return target

    def numpy(self, attrs: Attrs, target: np.ndarray, have: np.ndarray) -> np.ndarray:
        out = np.array(target)
        if not attrs["allow_zero"]:
            zero = np.flatnonzero(target == 0)
            out[zero] = have[zero]
        rest = int(np.prod(out[out != -1]))
        out[out == -1] = int(np.prod(have)) // rest if rest else 0
        return out

    def compute_prim(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> PrimFunc:
        loops = Loops(self.name, inputs, [out_type])
        (target, have), (out,) = loops.ins, loops.outs
        last = E.as_expr(have.shape[0]) - 1

        def run(cell: E.Buffer) -> Any:
            def copy(k: Any) -> Any:
                value: Any = target[k]
                if not attrs["allow_zero"] and have.shape[0] != 0:
                    there = have[E.maximum(E.minimum(k, last), E.const(0))]
                    value = E.select(E.binary(E.EQ, target[k], E.const(0)), there, target[k])
                given = E.select(E.binary(E.EQ, out[k], E.const(-1)), E.const(1), out[k])
                return [loops.store(out, k, value), loops.store(cell, 1, cell[1] * given)]

            def fill(k: Any) -> Any:
                rest = E.select(E.binary(E.EQ, cell[1], E.const(0)), E.const(0), E.floordiv(cell[0], cell[1]))
                return loops.store(out, k, E.select(E.binary(E.EQ, out[k], E.const(-1)), rest, out[k]))

            return [
                loops.store(cell, 0, E.const(1)),
                loops.store(cell, 1, E.const(1)),
                loops.loop(have.shape[0], lambda k: loops.store(cell, 0, cell[0] * have[k]), "h"),
                loops.loop(target.shape[0], copy, "k"),
                loops.loop(target.shape[0], fill, "f"),
            ]

        return loops.func(loops.cells(INT, 2, run))


class BroadcastSizes(Op):
    """The shape of two shapes (int64 vectors of one length) broadcast against each other."""

    name = "broadcast_sizes"
    arity = 2

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        a, b = tensors(self, types)
        if a.dtype != INT or b.dtype != INT or a.ndim != 1 or a.shape != b.shape:
            raise self.error("takes two int64 vectors of one length")
        return a

    def numpy(self, attrs: Attrs, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if np.any((a != b) & (a != 1) & (b != 1)):
            raise ValueError(f"shapes {a} and {b} do not broadcast")
        return np.where(a == 1, b, a)

    def compute_prim(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> PrimFunc:
        loops = Loops(self.name, inputs, [out_type])
        (a, b), (out,) = loops.ins, loops.outs

        def one(k: Any) -> Any:
            single = [E.binary(E.EQ, v[k], E.const(1)) for v in (a, b)]
            fits = E.lor(E.lor(*single), E.binary(E.EQ, a[k], b[k]))
            check = loops.check(fits, "shapes do not broadcast against each other")
            return [check, loops.store(out, k, E.select(single[0], b[k], a[k]))]

        return loops.func(loops.loop(out.shape[0], one, "k"))


class RangeCount(Op):
    """How many numbers start, start + step, … stand before stop; a step of 0 is an error."""

    name = "range_count"
    arity = 3

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        found = tensors(self, types)
        if any(t.ndim or t.dtype != found[0].dtype for t in found):
            raise self.error("start, stop and step must be scalars of one dtype")
        return TensorType((), INT)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, start: np.ndarray, stop: np.ndarray, step: np.ndarray) -> np.ndarray:
        if start.dtype.kind in "iu":
            return np.asarray(max(0, -((int(start) - int(stop)) // int(step))), np.int64)
        gap = (np.float64(stop) - np.float64(start)) / np.float64(step)
        return np.asarray(max(0, np.ceil(gap)), np.int64)

    def compute_prim(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> PrimFunc:
        loops = Loops(self.name, inputs, [out_type])
        (start, stop, step), (out,) = loops.ins, loops.outs
        kind = "float64" if dt.is_float(start.dtype) else INT
        a, b, c = (E.cast(kind, v[()]) for v in (start, stop, step))
        check = loops.check(E.binary(E.NE, c, E.const(0, kind)), "range: a step of 0")
        if kind == INT:
            down = E.const(0) - E.floordiv(a - b, c)
            return loops.func(check, loops.store(out, [], E.maximum(down, E.const(0))))
        gap = E.Call("float64", "ceil", ((b - a) / c,))
        return loops.func(check, loops.store(out, [], E.cast(INT, E.maximum(gap, E.const(0.0, "float64")))))


class SlicePlan(Op):
    """Rows (begin, count, step) of Python slices: operands (starts, ends, steps, sizes), int64 vectors of one size."""

    name = "slice_plan"
    arity = 4

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        found = tensors(self, types)
        if any(t.dtype != INT or t.ndim != 1 or t.shape != found[0].shape for t in found):
            raise self.error("takes four int64 vectors of one length")
        return TensorType((3, *found[0].shape), INT)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, *rows: np.ndarray) -> np.ndarray:
        out = []
        for start, end, step, size in zip(*(r.tolist() for r in rows), strict=True):
            far = 1 << 62
            begin, stop, by = slice(max(start, -far), min(end, far), min(max(step, -far), far)).indices(size)
            out.append((begin, len(range(begin, stop, by)), by))
        return np.array(out, np.int64).T.reshape(3, -1)

    def compute_prim(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> PrimFunc:
        loops = Loops(self.name, inputs, [out_type])
        (starts, ends, steps, sizes), (out,) = loops.ins, loops.outs
        zero, one = E.const(0), E.const(1)

        def bound(value: Any, size: Any, down: Any) -> Any:
            low, high = E.select(down, E.const(-1), zero), E.select(down, size - one, size)
            far = E.const(1 << 62)
            near = E.maximum(E.minimum(value, far), zero - far)
            return E.maximum(E.minimum(E.select(near < zero, near + size, near), high), low)

        def visit(k: Any) -> Any:
            def rest(v: list[Any]) -> Any:
                begin, end, step = v
                up = E.floordiv(end - begin + step - one, step)
                down = E.floordiv(begin - end - step - one, zero - step)
                count = E.maximum(E.select(step < zero, down, up), zero)
                return [loops.store(out, [r, k], x) for r, x in enumerate((begin, count, step))]

            down, size = steps[k] < zero, sizes[k]
            some = loops.check(E.binary(E.NE, steps[k], zero), "slice: a step of 0")
            far = E.const(1 << 62)
            step = E.maximum(E.minimum(steps[k], far), zero - far)
            return [some, loops.lets([bound(starts[k], size, down), bound(ends[k], size, down), step], rest)]

        return loops.func(loops.loop(starts.shape[0], visit, "k"))


class NonMaxSuppression(Op):
    """(selected, count): rows (batch, class, box) of boxes that overlap no better one of their class by more than a
    threshold, best first. Operands: boxes [b, n, 4], scores [b, c, n], most per class, overlap and score thresholds.
    at_most: what bounds the most per class besides, for smaller results, or None. A score that is NaN is below all.
    """

    name = "vision.nms"
    arity = 5
    defaults = {"center": False, "at_most": None}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        boxes, scores = (tensor_type(self, t, "boxes and scores") for t in types[:2])
        if boxes.ndim != 3 or scores.ndim != 3 or boxes.shape[2] != 4:
            raise self.error("takes boxes [batch, boxes, 4] and scores [batch, classes, boxes]")
        size, most = scores.shape[2], attrs["at_most"]
        if most is not None:
            size = min(size, max(most, 0)) if isinstance(size, int) else E.minimum(size, max(most, 0))
        rows = dims.prod((*scores.shape[:2], size))
        return TupleType((TensorType((rows, 3), INT), TensorType((), INT)))  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, boxes: np.ndarray, scores: np.ndarray, most: Any, overlap: Any, least: Any) -> Any:
        from warpbeam.op.nms import reference

        per_class, bound = int(most.reshape(-1)[0]), attrs["at_most"]
        per_class = per_class if bound is None else min(per_class, bound)
        thresholds = float(overlap.reshape(-1)[0]), float(least.reshape(-1)[0])
        rows = reference(boxes, scores, per_class, *thresholds, attrs["center"])
        size = scores.shape[2] if bound is None else min(scores.shape[2], max(bound, 0))
        out = np.zeros((scores.shape[0] * scores.shape[1] * size, 3), np.int64)
        out[: len(rows)] = np.array(rows, np.int64).reshape(-1, 3)
        return out, np.asarray(len(rows), np.int64)

    def compute_prim(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> PrimFunc:
        from warpbeam.op.nms import program

        return program(self.name, inputs, out_type, attrs["center"], attrs["at_most"])


class UnravelRows(Op):
    """Row-major coordinates of flat places in a tensor of `shape`: one row for each dimension."""

    name = "unravel_rows"
    defaults = {"shape": REQUIRED}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        (x,) = tensors(self, types)
        if x.ndim != 1:
            raise self.error("takes a vector of places")
        return TensorType((len(attrs["shape"]), *x.shape), x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        rows, rest = [], x
        for size in reversed(attrs["shape"]):
            rows.append(rest % max(size, 1))
            rest = rest // max(size, 1)
        return np.array(rows[::-1], x.dtype).reshape(len(rows), x.size)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        (x,), shape = inputs, attrs["shape"]

        def element(axis: Any, i: Any) -> Any:
            value: Any = E.const(0)
            for k in range(len(shape)):
                inner = dims.prod(shape[k + 1 :])
                place = E.floordiv(x[i], inner) if not (isinstance(inner, int) and inner == 1) else x[i]
                place = place if k == 0 else E.floormod(place, E.as_expr(shape[k]))
                value = E.select(E.binary(E.EQ, axis, E.const(k)), place, value)
            return value

        return te.compute(out_type.shape, element, name="unravel")
