"""Max pooling that also says where each maximum stood, and its inverse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.op.assumed import unify_shapes
from warpbeam.op.base import REQUIRED, Op, tensors
from warpbeam.op.index_loops import Loops
from warpbeam.op.nn_common import pad_stage
from warpbeam.op.nn_pool import Pool, reference_windows, window
from warpbeam.relay.types import TensorType, TupleType, Type
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.tir.stmt import PrimFunc
from warpbeam.topi import dims

_NOWHERE = np.iinfo(np.int64).max


def _wins(left: Sequence[Any], right: Sequence[Any]) -> Any:
    """Whether (value, place) `left` precedes `right`: larger value, at equal values the smaller place, NaN first."""
    tie = E.land(E.binary(E.EQ, left[0], right[0]), left[1] < right[1])
    nan = E.binary(E.NE, left[0], left[0]) if dt.is_float(left[0].dtype) else E.const(False)
    return E.lor(left[0] > right[0], tie, nan)


def _combine(left: Sequence[Any], right: Sequence[Any]) -> Any:
    first = _wins(left, right)
    return E.select(first, left[0], right[0]), E.select(first, left[1], right[1])


_argmax = te.comm_reducer(_combine, lambda v, i: (te.min_value(v), te.as_expr(_NOWHERE, i)), name="argmax")


class MaxPoolWithIndices(Pool):
    """(largest element of each window, its place in the flattened data).

    Places count over all of the data, N and C included; column_major counts the spatial dimensions in reverse order.
    """

    defaults = {**Pool.defaults, "column_major": False}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        values = super().infer_type(types, attrs)
        return TupleType((values, TensorType(values.shape, "int64")))  # type: ignore[attr-defined, no-any-return]

    def place(self, attrs: Attrs, at: Sequence[Any], shape: Sequence[Any]) -> Any:
        """Flat place of an element."""
        spatial = window(self, attrs).axes
        order = list(range(len(shape)))
        if attrs["column_major"]:
            for a, b in zip(spatial, reversed(spatial), strict=True):
                order[a] = b
        flat: Any = 0
        for a in order:
            flat = flat * shape[a] + at[a]
        return flat

    def numpy(self, attrs: Attrs, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        win = window(self, attrs)
        out = win.out_shape(self, x.shape)
        grid = np.indices(x.shape)
        places = np.asarray(self.place(attrs, grid, x.shape), np.int64)
        fill = te.min_value(dt.from_numpy(x.dtype)).value  # type: ignore[attr-defined]
        values = np.stack(reference_windows(x, win, out, fill))
        where = np.stack(reference_windows(places, win, out, _NOWHERE))
        best = values.max(axis=0)
        index = np.where((values == best) | np.isnan(values.astype(np.float64)), where, _NOWHERE).min(axis=0)
        return best, index

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x, win = inputs[0], window(self, attrs)
        shape = out_type.fields[0].shape
        before, after = win.border(x.shape, shape)
        padded = pad_stage(x, before, after, te.min_value(x.dtype))
        axes = win.reduce_axes()

        def body(*idx: Any) -> Any:
            at = win.source(idx, [k.var for k in axes])
            own = [v - b for v, b in zip(at, before, strict=True)]
            inside = [E.land(own[a] >= 0, own[a] < x.shape[a]) for a in win.axes]
            place = E.select(E.land(*inside), E.cast("int64", self.place(attrs, own, x.shape)), _NOWHERE)
            return _argmax((padded[at], place), axis=axes)

        return te.compute(shape, body, name="max_pool")


# fmt: off
class MaxPoolWithIndices1d(MaxPoolWithIndices, name="nn.max_pool_with_indices1d", nd=1): ...
class MaxPoolWithIndices2d(MaxPoolWithIndices, name="nn.max_pool_with_indices2d", nd=2): ...
class MaxPoolWithIndices3d(MaxPoolWithIndices, name="nn.max_pool_with_indices3d", nd=3): ...
# fmt: on


class MaxUnpool(Op):
    """Zeros of `shape` with data written at the flat places `indices`; a place outside is an error."""

    name = "nn.max_unpool"
    arity = 2
    defaults = {"shape": REQUIRED}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x, i = tensors(self, types)
        if x.ndim != i.ndim or not dt.is_int(i.dtype):
            raise self.error("indices must be integers of the data's shape")
        unify_shapes(self, x.shape, i.shape, "the shapes of data and indices")
        return TensorType(attrs["shape"], x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
        out = np.zeros([int(s) for s in attrs["shape"]], x.dtype)
        out.reshape(-1)[indices.reshape(-1)] = x.reshape(-1)
        return out

    def compute_prim(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> PrimFunc:
        loops = Loops("max_unpool", inputs, [out_type])
        x, indices = loops.ins
        (out,) = loops.outs
        total = dims.prod(out_type.shape)

        def put(at: Sequence[Any]) -> Any:
            place = E.cast("int64", indices[tuple(at)])
            check = loops.check(E.land(place >= 0, place < total), "an index of max_unpool is outside the result")
            return [check, loops.store(out, loops.unflatten(place, out_type.shape), x[tuple(at)])]

        clear = loops.moved(out_type.shape, lambda at: loops.store(out, at, E.const(0, out.dtype)), "c", parallel=True)
        return loops.func(clear, loops.nest(x.shape, put, "i"))
