"""sort, argsort, topk: stable, along any axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.op.base import REQUIRED, Op, norm_axis, tensors
from warpbeam.op.index_loops import Loops
from warpbeam.op.sort_pairs import Heap, Pairs, sort
from warpbeam.op.sort_rows import BLOCK, Row, best_list, in_blocks, some_precede
from warpbeam.relay.types import TensorType, TupleType, Type
from warpbeam.tir import expr as E
from warpbeam.tir.stmt import PrimFunc

_SHORT = 64  # of a list that is kept in order
_SMALL = 8  # from which part of a row on all of it is put in order


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
        self,
        attrs: Attrs,
        loops: Loops,
        axis: int,
        count: Any,
        give: Callable[[Row, Any, Any], Any],
    ) -> Any:
        """Each row sorted; `give(row, n, place)` stores the first `count` elements."""
        (x,) = loops.ins
        outer, size = [s for a, s in enumerate(x.shape) if a != axis], x.shape[axis]
        pairs, other = (Pairs(loops, outer, size, x.dtype) for _ in range(2))

        def body(row: Row) -> Any:
            own = pairs.of(row.outer)

            def pair(i: Any) -> list[Any]:
                return [own.key(row.value(i), attrs["is_ascend"]), i]

            put = loops.loop(count, lambda n: give(row, n, own.get(n)[1]), "o")
            return [sort(own, other.of(row.outer), size, pair), put]

        return self.rows(loops, axis, body)

    def all_sorted(
        self, attrs: Attrs, inputs: Sequence[Any], out_type: Any, value: Callable[[Row, Any], Any]
    ) -> PrimFunc:
        """Each row sorted; an element of the result is what `value` makes of the row and the place it came from."""
        loops = Loops(self.name, inputs, [out_type])
        (out,), axis = loops.outs, attrs["axis"] % out_type.ndim

        def give(row: Row, n: Any, place: Any) -> Any:
            return loops.store(out, row.at(n), value(row, place))

        return loops.func(self.sorted_rows(attrs, loops, axis, out.shape[axis], give))


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
        return self.all_sorted(attrs, inputs, out_type, lambda row, place: E.cast(dtype, place))


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
        return self.all_sorted(attrs, inputs, out_type, lambda row, place: row.value(place))


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
            best = partial(best_list, loops, size=size, count=k, ascending=ascending)
            return loops.func(enough, self.rows(loops, axis, lambda row: best(row, give=partial(give, row))))
        if not isinstance(size, int) or k * _SMALL <= size:
            return loops.func(enough, self._kept(loops, axis, k, ascending, give))
        return loops.func(enough, self.sorted_rows(attrs, loops, axis, k, give))

    def _kept(self, loops: Loops, axis: int, k: int, ascending: bool, give: Callable[..., Any]) -> Any:
        """The k best so far as a heap whose last one is on top: blocks that have nothing better are left out."""
        (x,) = loops.ins
        outer, size = [s for a, s in enumerate(x.shape) if a != axis], x.shape[axis]
        room = Pairs(loops, outer, k, x.dtype)

        def body(row: Row) -> Any:
            pairs = room.of(row.outer)
            heap = Heap(pairs, last=True)

            def pair(i: Any) -> list[Any]:
                return [pairs.key(row.value(i), ascending), i]

            def visit(i: Any) -> Any:
                def better(v: list[Any]) -> Any:
                    return loops.when(v[0] < pairs.get(0)[0], heap.sift(E.const(0), v, k))

                return loops.lets(pair(i), better)

            def look(b: Any) -> Any:
                start = k + b * BLOCK

                def run(found: E.Buffer) -> list[Any]:
                    last = row.value(pairs.get(0)[1])
                    test = some_precede(loops, row, start, last, ascending, found)
                    each = loops.loop(E.minimum(size - start, BLOCK), lambda i: visit(start + i), "i")
                    whole = loops.when(E.as_expr(size) - start >= BLOCK, test)
                    return [loops.store(found, 0, E.const(1)), whole, loops.when(found[0] > 0, each)]

                return loops.cells("int64", 1, run)

            def take(n: Any) -> list[Any]:
                left = k - 1 - n
                return [*give(row, left, pairs.get(0)[1]), heap.pop(left)]

            first = loops.loop(k, lambda i: pairs.put(i, pair(i)), "f")
            blocks = loops.loop(E.ceildiv(E.as_expr(size) - k, BLOCK), look, "b")
            rest = blocks if in_blocks(row, size) else loops.loop(E.as_expr(size) - k, lambda i: visit(k + i), "i")
            return [first, heap.make(E.const(k)), rest, loops.loop(k, take, "o")]

        return self.rows(loops, axis, body)
