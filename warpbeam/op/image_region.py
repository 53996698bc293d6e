"""Pooling over regions of interest given at run time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.ir.node import Attrs
from warpbeam.op.assumed import some_elements
from warpbeam.op.base import REQUIRED, Op, accumulation, tensors
from warpbeam.op.index_gather import check_indices
from warpbeam.op.index_loops import Loops
from warpbeam.op.nn_common import require_float, unify
from warpbeam.op.roi_taps import align_program
from warpbeam.relay.types import TensorType, Type
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.tir.stmt import PrimFunc
from warpbeam.topi.scalar import inside


class RoiAlign(Op):
    """data (N, C, H, W) averaged (or its maximum) over the cells of each region by bilinear samples.

    Operands: data, rois (R, 4) as x1, y1, x2, y2, batch index of each region. sample_ratio: samples per cell and
    direction, 0 for as many as elements. Regions of more than 65,536 samples per cell and direction are an error.
    """

    name = "vision.roi_align"
    arity = 3
    defaults = {
        "pooled_size": REQUIRED,
        "spatial_scale": 1.0,
        "sample_ratio": 0,
        "mode": "avg",
        "half_pixel": True,
    }

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x, rois, batch = tensors(self, types)
        require_float(self, x)
        check_indices(self, batch)
        if x.ndim != 4 or rois.ndim != 2 or batch.ndim != 1 or rois.dtype != x.dtype:
            raise self.error("takes data (N, C, H, W), rois (R, 4) of its dtype, and R batch indices")
        unify(self, rois.shape[1], 4, "the numbers of a region and 4")
        unify(self, rois.shape[0], batch.shape[0], "regions and batch indices")
        for s in (x.shape[0], *x.shape[2:]):
            some_elements(self, s, "data has no elements", rois.shape[0])
        if attrs["mode"] not in ("avg", "max"):
            raise self.error(f"unknown mode {attrs['mode']!r}", hint="avg or max")
        return TensorType((rois.shape[0], x.shape[1], *attrs["pooled_size"]), x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray, rois: np.ndarray, batch: np.ndarray) -> np.ndarray:
        ph, pw = attrs["pooled_size"]
        out = np.zeros((len(rois), x.shape[1], ph, pw), np.float64)
        shift = 0.5 if attrs["half_pixel"] else 0.0
        for r, box in enumerate(rois.astype(np.float64) * attrs["spatial_scale"] - shift):
            if not 0 <= batch[r] < x.shape[0]:
                raise self.error(f"batch index {batch[r]} of {x.shape[0]} images")
            size = box[2:] - box[:2]
            size = size if attrs["half_pixel"] else np.maximum(size, 1.0)
            cell = size / (pw, ph)
            counts = [attrs["sample_ratio"] or max(math.ceil(c), 0) for c in cell]
            for j in range(ph):
                for i in range(pw):
                    ys = box[1] + cell[1] * (j + (np.arange(counts[1]) + 0.5) / max(counts[1], 1))
                    xs = box[0] + cell[0] * (i + (np.arange(counts[0]) + 0.5) / max(counts[0], 1))
                    parts = [_corners(x[batch[r]], y, v) for y in ys for v in xs]
                    if attrs["mode"] == "avg":
                        out[r, :, j, i] = sum(p.sum(axis=0) for p in parts) / max(len(parts), 1)
                    elif parts:
                        out[r, :, j, i] = np.max([p.max(axis=0) for p in parts], axis=0)
        return out.astype(x.dtype)

    def compute_prim(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> PrimFunc:
        return align_program(attrs, inputs, out_type)


def _corners(image: np.ndarray, y: float, x: float) -> np.ndarray:
    """The four weighted neighbours of a point, (4, C) (NumPy side)."""
    height, width = image.shape[1:]
    if y < -1 or y > height or x < -1 or x > width:
        return np.zeros((4, image.shape[0]))
    y, x = min(max(y, 0.0), height - 1), min(max(x, 0.0), width - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    fy, fx = y - y0, x - x0
    return np.stack(
        [
            image[:, y0, x0] * ((1 - fy) * (1 - fx)),
            image[:, y0, x1] * ((1 - fy) * fx),
            image[:, y1, x0] * (fy * (1 - fx)),
            image[:, y1, x1] * (fy * fx),
        ]
    )


class RoiPool(Op):
    """data (N, C, H, W), largest element in each cell of regions (R, 5): batch index, x1, y1, x2, y2 inclusive."""

    name = "vision.roi_pool"
    arity = 2
    defaults = {"pooled_size": REQUIRED, "spatial_scale": 1.0}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x, rois = tensors(self, types)
        require_float(self, x)
        if x.ndim != 4 or rois.ndim != 2 or rois.dtype != x.dtype:
            raise self.error("takes data (N, C, H, W) and rois (R, 5) of its dtype")
        unify(self, rois.shape[1], 5, "the numbers of a region and 5")
        return TensorType((rois.shape[0], x.shape[1], *attrs["pooled_size"]), x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray, rois: np.ndarray) -> np.ndarray:
        ph, pw = attrs["pooled_size"]
        out = np.zeros((len(rois), x.shape[1], ph, pw), x.dtype)
        for r, roi in enumerate(rois):
            n = int(roi[0])
            if not 0 <= n < x.shape[0]:
                raise self.error(f"batch index {n} of {x.shape[0]} images")
            x1, y1, x2, y2 = (math.floor(float(v) * attrs["spatial_scale"] + 0.5) for v in roi[1:])
            height, width = max(y2 - y1 + 1, 1), max(x2 - x1 + 1, 1)
            for j in range(ph):
                rows = _cell(j, height, ph, y1, x.shape[2])
                for i in range(pw):
                    part = x[n, :, slice(*rows), slice(*_cell(i, width, pw, x1, x.shape[3]))]
                    if part.size:
                        out[r, :, j, i] = part.max(axis=(1, 2))
        return out

    def compute_prim(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> PrimFunc:
        loops = Loops("roi_pool", inputs, [out_type])
        x, rois = loops.ins
        (out,) = loops.outs
        wide = accumulation(x.dtype)
        limit = 1 << 40

        def corner(r: Any, k: int) -> Any:
            value = E.cast(wide, rois[r, k]) * E.const(float(attrs["spatial_scale"]), wide)
            rounded = E.cast("int64", E.call("floor", value + 0.5))
            return E.maximum(E.minimum(rounded, limit), -limit)

        def region(r: list[Any]) -> Any:
            n = E.cast("int64", rois[r[0], 0])
            values = [n, *[corner(r[0], k) for k in (1, 2, 3, 4)]]

            def within(v: list[Any]) -> Any:
                check = loops.check(inside(v[0], x.shape[0]), "a batch index of roi_pool is outside the data")
                return [check, loops.nest(out.shape[1:], lambda at: cell(r[0], at, v), "p")]

            return loops.lets(values, within)

        def cell(r: Any, at: list[Any], v: list[Any]) -> Any:
            bounds: list[Any] = []
            for d, first, last in ((0, v[2], v[4]), (1, v[1], v[3])):
                size, parts = E.maximum(last - first + 1, 1), attrs["pooled_size"][d]
                low = E.floordiv(at[1 + d] * size, parts) + first
                high = E.ceildiv((at[1 + d] + 1) * size, parts) + first
                total = E.as_expr(x.shape[2 + d])
                bounds += [E.maximum(E.minimum(b, total), 0) for b in (low, high)]
            return loops.lets(bounds, lambda b: largest(r, at, v[0], b))

        def largest(r: Any, at: list[Any], n: Any, b: list[Any]) -> Any:
            rows, columns = E.maximum(b[1] - b[0], 0), E.maximum(b[3] - b[2], 0)

            def run(best: E.Buffer) -> Any:
                def visit(s: list[Any]) -> Any:
                    value = x[n, at[0], b[0] + s[0], b[2] + s[1]]
                    return loops.store(best, 0, E.maximum(best[0], value))

                value = E.select(E.binary(E.EQ, rows * columns, 0), E.const(0.0, x.dtype), best[0])
                start = loops.store(best, 0, te.min_value(x.dtype))
                return [start, loops.nest([rows, columns], visit, "s"), loops.store(out, [r, *at], value)]

            return loops.cells(x.dtype, 1, run)

        return loops.func(loops.nest([rois.shape[0]], region, "r", parallel=True))


def _cell(i: int, size: int, parts: int, start: int, limit: int) -> tuple[int, int]:
    """Element range of pooling cell i, cut to the data (NumPy side)."""
    low, high = math.floor(i * size / parts) + start, math.ceil((i + 1) * size / parts) + start
    return min(max(low, 0), limit), min(max(high, 0), limit)
