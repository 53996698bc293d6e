"""Resizing of any axes: nearest, linear, cubic, with and without antialiasing.

Axes are resized one after another; each has small tables of positions and weights from the output index (or plain
index arithmetic where nearest upsampling by a whole factor is a division).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.op import image_tables
from warpbeam.op.assumed import some_elements
from warpbeam.op.base import REQUIRED, Op, accumulation, norm_axis, tensors
from warpbeam.op.image_tables import COORDINATES, METHODS, NEAREST, Axis, Taps
from warpbeam.op.nn_common import np_accum
from warpbeam.relay.types import TensorType, Type
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.topi import dims


class Resize(Op):
    """data with `axes` resized to `size` (one entry per axis).

    scales: the factor that coordinates use, per axis (None: size / old size). roi: (starts…, ends…) in fractions for
    tf_crop_and_resize, where positions outside give extrapolation_value. cubic_exclude drops taps outside the data and
    renormalises; antialias widens the kernel when shrinking.
    """

    name = "image.resize"
    defaults = {
        "size": REQUIRED,
        "axes": REQUIRED,
        "scales": None,
        "roi": None,
        "method": "linear",
        "coordinate_transformation_mode": "half_pixel",
        "rounding_method": "round_prefer_floor",
        "cubic_alpha": -0.75,
        "cubic_exclude": False,
        "antialias": False,
        "extrapolation_value": 0.0,
    }

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        (x,) = tensors(self, types)
        for key, allowed in (
            ("method", METHODS),
            ("coordinate_transformation_mode", COORDINATES),
            ("rounding_method", NEAREST),
        ):
            if attrs[key] not in allowed:
                raise self.error(f"unknown {key} {attrs[key]!r}", hint=f"one of {allowed}")
        if len(attrs["size"]) != len(attrs["axes"]):
            raise self.error("size and axes must have one entry per resized axis")
        shape = list(x.shape)
        for a, s in zip(attrs["axes"], attrs["size"], strict=True):
            a = norm_axis(self, a, x.ndim)
            if isinstance(s, int) and s < 1:
                raise self.error(f"axis {a} cannot go from {dims.text(shape[a])} to {s} elements")
            some_elements(self, shape[a], f"axis {a} cannot go from 0 to {dims.text(s)} elements", s)
            if attrs["antialias"] and not (isinstance(shape[a], int) and isinstance(s, int)):
                raise self.error("antialias needs constant sizes")
            shape[a] = s
        return TensorType(shape, x.dtype)  # type: ignore[no-any-return]

    def plan(self, attrs: Attrs, shape: Sequence[Any]) -> list[tuple[int, Axis]]:
        """(axis, geometry) of each resized axis."""
        count, roi = len(attrs["axes"]), attrs["roi"]
        out = []
        for n, (a, s) in enumerate(zip(attrs["axes"], attrs["size"], strict=True)):
            a = a % len(shape)
            scale = None if attrs["scales"] is None else attrs["scales"][n]
            start, end = (float(roi[n]), float(roi[n + count])) if roi else (0.0, 1.0)
            out.append((a, Axis(shape[a], s, scale, start, end)))
        return out

    # ------------------------------------------------------------------------------------------------- reference

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        from warpbeam.op.image_reference import resize_axis

        y = x if attrs["method"] == "nearest_neighbor" else np_accum(x).astype(np.float64)
        outside = np.zeros([1] * x.ndim, bool)
        for a, axis in self.plan(attrs, x.shape):
            y, missed = resize_axis(y, a, axis, attrs)
            outside = outside | missed.reshape([-1 if n == a else 1 for n in range(x.ndim)])
        if attrs["coordinate_transformation_mode"] == "tf_crop_and_resize":
            y = np.where(outside, attrs["extrapolation_value"], y)
        return from_real(y, x.dtype)

    # --------------------------------------------------------------------------------------------------- compute

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x = inputs[0]
        plan = [(a, axis) for a, axis in self.plan(attrs, x.shape) if not self._same(attrs, axis)]
        if attrs["method"] == "nearest_neighbor":
            y = self._nearest(attrs, x, plan, out_type.shape)
        else:
            wide = accumulation(x.dtype) if dt.is_float(x.dtype) else "float32"
            y = x
            for n, (a, axis) in enumerate(plan):
                y = self._blend(attrs, y, a, axis, wide, f"resize{n}")
        crop = attrs["coordinate_transformation_mode"] == "tf_crop_and_resize"
        if y.dtype == x.dtype and y is not x and not crop:
            return y
        return te.compute(out_type.shape, lambda *i: self._finish(attrs, y, i, plan, x.dtype, crop), name="resize")

    def _same(self, attrs: Attrs, axis: Axis) -> bool:
        """Whether the axis keeps its size and every coordinate."""
        same = isinstance(axis.size, int) and axis.size == axis.out and axis.scale in (None, 1.0)
        mode = attrs["coordinate_transformation_mode"]
        return same and mode not in ("tf_crop_and_resize", "tf_half_pixel_for_nn")

    def _finish(self, attrs: Attrs, y: Any, idx: Any, plan: Any, dtype: str, crop: bool) -> Any:
        value = y[idx]
        value = E.cast(dtype, E.call("round", value) if dt.is_int(dtype) and dt.is_float(y.dtype) else value)
        if not crop:
            return value
        missed = []
        for a, axis in plan:
            at = image_tables.source_coordinate(idx[a], axis, "tf_crop_and_resize")
            missed += [at < 0.0, at > image_tables.real(E.as_expr(axis.size) - 1)]
        return E.select(E.lor(*missed), E.as_expr(attrs["extrapolation_value"], dtype), value)

    def _nearest(self, attrs: Attrs, x: Any, plan: Any, shape: Sequence[Any]) -> Any:
        mode, rounding = attrs["coordinate_transformation_mode"], attrs["rounding_method"]
        places: dict[int, Any] = {}
        for a, axis in plan:
            factor = image_tables.integer_upscale(axis, mode, rounding)
            if factor is None:
                places[a] = self._table(axis, mode, rounding, f"place{a}")
            else:
                places[a] = factor

        def element(*idx: Any) -> Any:
            at = list(idx)
            for a, place in places.items():
                at[a] = idx[a] // place if isinstance(place, int) else place[idx[a]]
            return x[tuple(at)]

        return te.compute(shape, element, name="resize")

    def _table(self, axis: Axis, mode: str, rounding: str, name: str) -> Any:
        def place(o: Any) -> Any:
            at = image_tables.source_coordinate(o, axis, mode)
            found = image_tables.nearest(at, rounding, image_tables.scale_of(axis))
            return E.maximum(E.minimum(found, E.as_expr(axis.size) - 1), 0)

        return te.compute((axis.out,), place, name=name)

    def _blend(self, attrs: Attrs, x: Any, a: int, axis: Axis, wide: str, name: str) -> Any:
        taps = Taps(axis, attrs, name)
        shape = (*x.shape[:a], axis.out, *x.shape[a + 1 :])

        def term(idx: Any, t: Any) -> Any:
            value = x[image_tables.read_at(idx, a, taps.index[idx[a], t])]
            return E.cast(wide, value) * E.cast(wide, taps.weight[idx[a], t])

        if taps.count <= 4:

            def short(*idx: Any) -> Any:
                total = term(idx, 0)
                for t in range(1, taps.count):
                    total = total + term(idx, t)
                return total

            return te.compute(shape, short, name=name)
        k = te.reduce_axis(taps.count, "t")
        return te.compute(shape, lambda *idx: te.sum(term(idx, k.var), axis=k), name=name)

    def flops(self, attrs: Attrs, types: Sequence[Any], out_type: Any) -> Any:
        taps = {"nearest_neighbor": 1, "linear": 4, "cubic": 8}[attrs["method"]]
        return dims.prod([taps, *out_type.shape])


def from_real(y: np.ndarray, dtype: Any) -> np.ndarray:
    """Float results in `dtype`: integers are rounded and saturated."""
    if np.dtype(dtype).kind in "iu" and y.dtype.kind == "f":
        info = np.iinfo(dtype)
        return np.clip(np.rint(y), info.min, info.max).astype(dtype)
    return y.astype(dtype)
