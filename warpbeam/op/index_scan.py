"""Running sums and products along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.op.base import Op, accumulation, norm_axis, tensors
from warpbeam.op.index_loops import Loops
from warpbeam.op.nn_common import np_accum
from warpbeam.relay.types import TensorType, Type
from warpbeam.tir import expr as E
from warpbeam.tir.stmt import PrimFunc

_LANES = 64
_PIECE = 8192  # bytes of a row whose totals are kept at once


class Scan(Op):
    """Base: out[i] combines data[0..i] along `axis` (exclusive: 0..i-1; reverse: from the end); None: flattened."""

    defaults = {"axis": None, "dtype": "", "exclusive": False, "reverse": False}
    start: ClassVar[int] = 0
    fold: ClassVar[Any] = None
    ref: ClassVar[Any] = None

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        (x,) = tensors(self, types)
        if attrs["axis"] is None:
            from warpbeam.topi import dims

            return TensorType((dims.prod(x.shape),), attrs["dtype"] or x.dtype)  # type: ignore[no-any-return]
        norm_axis(self, attrs["axis"], x.ndim)
        return TensorType(x.shape, attrs["dtype"] or x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        dtype = dt.to_numpy(attrs["dtype"]) if attrs["dtype"] else x.dtype
        x = np_accum(x.astype(dtype))
        axis = attrs["axis"]
        if axis is None:
            x, axis = x.reshape(-1), 0
        x = np.flip(x, axis) if attrs["reverse"] else x
        y = np.full_like(x, self.start)
        if x.shape[axis]:
            lead = (slice(None),) * (axis % x.ndim)
            total = type(self).ref(x, axis=axis)
            if attrs["exclusive"]:
                y[(*lead, slice(1, None))] = total[(*lead, slice(0, -1))]
            else:
                y = total
        return np.ascontiguousarray(np.flip(y, axis) if attrs["reverse"] else y).astype(dtype)

    def compute_prim(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> PrimFunc:
        loops = Loops(self.name, inputs, [out_type])
        (x,), (out,) = loops.ins, loops.outs
        wide = accumulation(out.dtype)
        flat = attrs["axis"] is None
        axis = 0 if flat else attrs["axis"] % out_type.ndim
        size = out.shape[axis]

        width = 1 if flat or axis == out_type.ndim - 1 else _width(out.shape[-1], dt.nbytes(wide))

        def row(outer: list[Any]) -> Any:
            """One row along the axis; `width` neighbouring ones at once, where the axis is not the innermost."""

            def lanes(step: Any) -> Any:
                if width <= _LANES:
                    return step(0) if width == 1 else loops.loop(width, step, "c", "vectorized")

                def several(v: Any) -> Any:
                    return loops.loop(_LANES, lambda c: step(v * _LANES + c), "c", "vectorized")

                return loops.loop(width // _LANES, several, "v")

            def run(cell: E.Buffer) -> Any:
                def step(k: Any, c: Any) -> Any:
                    at = size - 1 - k if attrs["reverse"] else k
                    own = outer if width == 1 else [*outer[:-1], outer[-1] * width + c]
                    place = [*own[:axis], at, *own[axis:]]
                    source = loops.unflatten(at, x.shape) if flat else place
                    value = E.cast(wide, E.cast(out.dtype, x[tuple(source)]))
                    total = loops.store(cell, c, type(self).fold(cell[c], value))
                    put = loops.store(out, place, E.cast(out.dtype, cell[c]))
                    return [put, total] if attrs["exclusive"] else [total, put]

                start = lanes(lambda c: loops.store(cell, c, E.const(self.start, wide)))
                return [start, loops.loop(size, lambda k: lanes(lambda c: step(k, c)), "k")]

            return loops.cells(wide, width, run)

        rows = [s for a, s in enumerate(out.shape) if a != axis]
        rows = rows if width == 1 else [*rows[:-1], rows[-1] // width]
        return loops.func(loops.nest(rows, row, "r", parallel=True))


def _width(size: Any, itemsize: int) -> int:
    """Neighbours that are scanned at once: long pieces of rows, which are fetched ahead, as lines that lie a row apart
    are not; some vectors that divide their number; 1 where nothing does.
    """
    if not isinstance(size, int):
        return 1
    if size > _LANES:
        most = min(size, _PIECE // itemsize)
        found = next((w for w in range(most - most % _LANES, 0, -_LANES) if size % w == 0), 1)
        if found > 1:
            return found
    return next((w for w in (64, 32, 16, 8, 4) if size % w == 0 < size), 1)


class CumSum(Scan):
    name = "cumsum"
    start = 0
    fold = staticmethod(E.add)
    ref = staticmethod(np.cumsum)


class CumProd(Scan):
    name = "cumprod"
    start = 1
    fold = staticmethod(E.mul)
    ref = staticmethod(np.cumprod)
