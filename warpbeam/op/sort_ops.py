"""sort, argsort, topk: stable, along any axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.op.base import REQUIRED, Op, norm_axis, tensors
from warpbeam.op.index_loops import Loops
from warpbeam.op.sort_rows import Row, best_list, merge_sort
from warpbeam.relay.types import TensorType, TupleType, Type
from warpbeam.tir import expr as E
from warpbeam.tir.stmt import PrimFunc

_SHORT = 64


def reference_order(x: np.ndarray, axis: int, ascending: bool) -> np.ndarray:
    """Places of the values along axis in sorted order, equal ones by index (NumPy side)."""
    if ascending:
        return np.argsort(x, axis=axis, kind="stable")
    flipped = np.argsort(np.flip(x, axis), axis=axis, kind="stable")  # last of the reverse = first of equals
    return np.flip(x.shape[axis] - 1 - flipped, axis)


class Sorting(Op):
    """Base of operators on sorted rows."""

    def rows(self, loops: Loops, axis: int, body: Any) -> Any:
        (x,) = loops.ins
        outer = [s for a, s in enumerate(x.shape) if a != axis]
        return loops.nest(outer, lambda at: body(Row(x, at, axis)), "r", parallel=True)

    def sorted_rows(
        self, attrs: Attrs, inputs: Sequence[Any], out_type: Any, give: Callable[[Row, Any], Any]
    ) -> PrimFunc:
        """Each row sorted; an element of the result is what `give` makes of the row and the place it came from."""
        loops = Loops(self.name, inputs, [out_type])
        (x,), (out,), axis = loops.ins, loops.outs, attrs["axis"] % out_type.ndim
        order, other = loops.temp(x.shape, "int64"), loops.temp(x.shape, "int64")
        size = x.shape[axis]

        def body(row: Row) -> Any:
            def put(i: Any) -> Any:
                return loops.store(out, row.at(i), give(row, order[tuple(row.at(i))]))

            return [merge_sort(loops, row, order, other, size, attrs["is_ascend"]), loops.loop(size, put, "o")]

        return loops.func(self.rows(loops, axis, body))


class Argsort(Sorting):
    """Places of the elements in sorted order along `axis`."""

    name = "argsort"
    defaults = {"axis": -1, "is_ascend": True, "dtype": "int32"}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        (x,) = tensors(self, types)
        norm_axis(self, attrs["axis"], x.ndim)
        return TensorType(x.shape, attrs["dtype"])  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        return reference_order(x, attrs["axis"] % x.ndim, attrs["is_ascend"]).astype(dt.to_numpy(attrs["dtype"]))

    def compute_prim(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> PrimFunc:
        dtype = out_type.dtype
        return self.sorted_rows(attrs, inputs, out_type, lambda row, place: E.cast(dtype, place))


class Sort(Sorting):
    """The elements in sorted order along `axis`."""

    name = "sort"
    defaults = {"axis": -1, "is_ascend": True}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        (x,) = tensors(self, types)
        norm_axis(self, attrs["axis"], x.ndim)
        return x

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        axis = attrs["axis"] % x.ndim
        return np.take_along_axis(x, reference_order(x, axis, attrs["is_ascend"]), axis)  # type: ignore[no-any-return]

    def compute_prim(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> PrimFunc:
        return self.sorted_rows(attrs, inputs, out_type, lambda row, place: row.value(place))


class TopK(Sorting):
    """The first k elements of the sorted order along `axis`: values, indices, or both (ret_type)."""

    name = "topk"
    defaults = {"k": REQUIRED, "axis": -1, "ret_type": "both", "is_ascend": False, "dtype": "int32"}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        (x,) = tensors(self, types)
        axis, k = norm_axis(self, attrs["axis"], x.ndim), attrs["k"]
        if not isinstance(k, int) or k < 0 or (isinstance(x.shape[axis], int) and k > x.shape[axis]):
            raise self.error(f"k = {k} of an axis of {x.shape[axis]} elements")
        shape = (*x.shape[:axis], k, *x.shape[axis + 1 :])
        both = TensorType(shape, x.dtype), TensorType(shape, attrs["dtype"])
        if attrs["ret_type"] not in ("both", "values", "indices"):
            raise self.error(f"unknown ret_type {attrs['ret_type']!r}", hint="both, values or indices")
        return {"both": TupleType(both), "values": both[0], "indices": both[1]}[attrs["ret_type"]]  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> Any:
        axis = attrs["axis"] % x.ndim
        order = np.take(reference_order(x, axis, attrs["is_ascend"]), range(attrs["k"]), axis=axis)
        values = np.take_along_axis(x, order, axis)
        both = values, order.astype(dt.to_numpy(attrs["dtype"]))
        return {"both": both, "values": values, "indices": both[1]}[attrs["ret_type"]]

    def compute_prim(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> PrimFunc:
        results = list(out_type.fields) if isinstance(out_type, TupleType) else [out_type]
        loops = Loops(self.name, inputs, results)
        (x,) = loops.ins
        axis, k, ascending = attrs["axis"] % inputs[0].ndim, attrs["k"], attrs["is_ascend"]
        size = x.shape[axis]
        values = loops.outs[0] if attrs["ret_type"] != "indices" else None
        places = loops.outs[-1] if attrs["ret_type"] != "values" else None

        def give(row: Row, n: Any, place: Any) -> list[Any]:
            parts = []
            if values is not None:
                parts.append(loops.store(values, row.at(n), row.value(place)))
            if places is not None:
                parts.append(loops.store(places, row.at(n), E.cast(places.dtype, place)))
            return parts

        if k == 0:
            return loops.func(loops.nest(results[0].shape, lambda at: loops.store(loops.outs[0], at, 0)))
        enough = None if isinstance(size, int) else loops.check(size >= k, "topk: the axis has fewer than k elements")
        if k <= _SHORT:
            return loops.func(
                enough,
                self.rows(
                    loops, axis, lambda row: best_list(loops, row, size, k, ascending, lambda n, p: give(row, n, p))
                ),
            )
        order, other = loops.temp(x.shape, "int64"), loops.temp(x.shape, "int64")

        def body(row: Row) -> Any:
            sort = merge_sort(loops, row, order, other, size, ascending)
            return [sort, loops.loop(k, lambda n: give(row, n, order[tuple(row.at(n))]), "o")]

        return loops.func(enough, self.rows(loops, axis, body))
