"""Max pooling that also says where each maximum stood, and its inverse."""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.op import get
from warpbeam.op.assumed import unify_shapes
from warpbeam.op.base import REQUIRED, Op, tensors
from warpbeam.op.index_loops import Loops
from warpbeam.op.nn_common import pad_stage, require_rank
from warpbeam.op.nn_pool import Pool, reference_windows, window
from warpbeam.relay.expr import Expr, Tuple
from warpbeam.relay.types import TensorType, TupleType, Type
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.tir.stmt import PrimFunc
from warpbeam.topi import dims
from warpbeam.topi.nn.pooling import Window, max_windows
from warpbeam.topi.reduction import compared, is_extreme

_NOWHERE = np.iinfo(np.int64).max


def _pitches(win: Window, shape: Sequence[Any], column_major: bool) -> list[Any]:
    """How many places a step along each axis goes."""
    order = list(range(len(shape)))
    if column_major:
        for a, b in zip(win.axes, reversed(win.axes), strict=True):
            order[a] = b
    found: list[Any] = [1] * len(shape)
    for k in range(len(order) - 2, -1, -1):
        found[order[k]] = found[order[k + 1]] * shape[order[k + 1]]
    return found


def _reference_places(op: Pool, attrs: Attrs, x: np.ndarray, best: np.ndarray) -> np.ndarray:
    win = window(op, attrs)
    pitches = _pitches(win, x.shape, attrs["column_major"])
    places = np.asarray(sum(i * p for i, p in zip(np.indices(x.shape), pitches, strict=True)), np.int64)
    values = np.stack(reference_windows(x, win, best.shape, 0))
    where = np.stack(reference_windows(places, win, best.shape, _NOWHERE))
    found = (values == best) | np.isnan(values.astype(np.float64))
    return np.asarray(np.where(found, where, _NOWHERE).min(axis=0))


def _places(x: te.Tensor, best: te.Tensor, win: Window, column_major: bool) -> Any:
    """Two stages: how far behind a window's first place its largest element stands, counted in int32 where that fits,
    and its place in the data.
    """
    before, after = win.border(x.shape, best.shape)
    padded = pad_stage(x, before, after, te.min_value(x.dtype))
    pitches, axes = _pitches(win, x.shape, column_major), win.reduce_axes()
    most = [sum((win.span(i) - 1) * pitches[a] for i, a in enumerate(win.axes))]
    most += [before[a] + x.shape[a] + win.span(i) for i, a in enumerate(win.axes)]
    inner = "int32" if all(isinstance(n, int) and n < dt.int_range("int32")[1] for n in most) else "int64"
    wide = compared(x.dtype)
    first, last = [a for a in win.axes if before[a] != 0], []
    for i, a in enumerate(win.axes):
        past = dims.dim((best.shape[a] - 1) * win.strides[i] + win.span(i) - x.shape[a] - before[a])
        last += [a] if not isinstance(past, int) or past > 0 else []
    none = E.const(dt.int_range(inner)[1], inner)

    def step(*idx: Any) -> Any:
        at = win.source(idx, [k.var for k in axes])
        here = is_extreme(E.cast(wide, padded[at]), E.cast(wide, best[idx]))
        inside = [E.cast(inner, at[a]) >= before[a] for a in first]
        inside += [E.cast(inner, at[a]) < E.cast(inner, before[a] + E.as_expr(x.shape[a])) for a in last]
        moved = [k.var * d * pitches[a] for k, d, a in zip(axes, win.dilation, win.axes, strict=True)]
        behind = E.cast(inner, functools.reduce(operator.add, moved))
        return te.min(E.select(E.land(here, *inside), behind, none), axis=axes)

    steps = te.compute(best.shape, step, name="steps")

    def place(*idx: Any) -> Any:
        start = win.source(idx, [0] * len(axes))
        flat: Any = sum((i - b) * p for i, b, p in zip(start, before, pitches, strict=True))
        found = E.cast("int64", flat) + E.cast("int64", steps[idx])
        return E.select(E.binary(E.EQ, steps[idx], none), E.const(_NOWHERE, "int64"), found) if first or last else found

    return te.compute(best.shape, place, name="places")


class MaxPoolWithIndices(Pool):
    """(largest element of each window, its place in the flattened data).

    Places count over all of the data, N and C included; column_major counts the spatial dimensions in reverse order.
    """

    defaults = {**Pool.defaults, "column_major": False}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        values = super().infer_type(types, attrs)
        return TupleType((values, TensorType(values.shape, "int64")))  # type: ignore[attr-defined, no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        win = window(self, attrs)
        fill = te.min_value(dt.from_numpy(x.dtype)).value  # type: ignore[attr-defined]
        with np.errstate(invalid="ignore"):
            best = np.stack(reference_windows(x, win, win.out_shape(self, x.shape), fill)).max(axis=0)
        return best, _reference_places(self, attrs, x, best)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        win, shape = window(self, attrs), out_type.fields[0].shape
        best = max_windows(inputs[0], win, shape)
        return best, _places(inputs[0], best, win, attrs["column_major"])

    def expand(self, attrs: Attrs, args: Sequence[Expr]) -> Expr | None:
        """The largest elements, as they are found without places, and then where the first of each window stands."""
        plain = {k: v for k, v in attrs.items() if k != "column_major"}
        best = get(f"nn.max_pool{self.nd}d")(args[0], **plain)
        return Tuple((best, get(f"nn.max_pool_places{self.nd}d")(args[0], best, **attrs)))


class MaxPoolPlaces(Pool):
    """Where in the flattened data each window has its largest element, which is the second operand: the least place at
    which it, or a NaN, stands. Attributes are those of `nn.max_pool_with_indices`.
    """

    arity = 2
    defaults = {**Pool.defaults, "column_major": False}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x, best = tensors(self, types)
        require_rank(self, x, self.nd + 2)
        shape = window(self, attrs).out_shape(self, x.shape)
        if best.ndim != x.ndim or best.dtype != x.dtype:
            raise self.error(
                f"the largest elements are {best.dtype} of {best.ndim} dimensions, the data {x.dtype} of {x.ndim}"
            )
        unify_shapes(self, shape, best.shape, "the shapes of windows and of largest elements")
        return TensorType(shape, "int64")  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray, best: np.ndarray) -> np.ndarray:
        return _reference_places(self, attrs, x, best)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        return _places(inputs[0], inputs[1], window(self, attrs), attrs["column_major"])


# fmt: off
class MaxPoolWithIndices1d(MaxPoolWithIndices, name="nn.max_pool_with_indices1d", nd=1): ...
class MaxPoolWithIndices2d(MaxPoolWithIndices, name="nn.max_pool_with_indices2d", nd=2): ...
class MaxPoolWithIndices3d(MaxPoolWithIndices, name="nn.max_pool_with_indices3d", nd=3): ...
class MaxPoolPlaces1d(MaxPoolPlaces, name="nn.max_pool_places1d", nd=1): ...
class MaxPoolPlaces2d(MaxPoolPlaces, name="nn.max_pool_places2d", nd=2): ...
class MaxPoolPlaces3d(MaxPoolPlaces, name="nn.max_pool_places3d", nd=3): ...
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
