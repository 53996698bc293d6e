"""Sampling at run-time coordinates: grid_sample in two and three dimensions, and the affine grids that feed it."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.op.assumed import some_elements
from warpbeam.op.base import REQUIRED, Op, accumulation, tensors
from warpbeam.op.nn_common import np_accum, require_float, unify
from warpbeam.relay.types import TensorType, Type
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.topi import dims

TAPS = {"nearest": 1, "linear": 2, "cubic": 4}
PADDING = ("zeros", "border", "reflection")
_KEYS = -0.75


class GridSample(Op):
    """data (N, C, spatial…) at the points of grid (N, out…, D), whose last axis names x, y(, z) in [-1, 1].

    method: nearest, linear or cubic. padding_mode: what is outside (zeros, border, reflection). align_corners: -1 and 1
    are the centres of the corner elements instead of their outer edges.
    """

    name = "image.grid_sample"
    arity = 2
    defaults = {"method": "linear", "padding_mode": "zeros", "align_corners": False}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x, grid = tensors(self, types)
        require_float(self, grid, "grid")
        nd = x.ndim - 2
        if nd not in (1, 2, 3) or grid.ndim != x.ndim:
            raise self.error(f"grid of shape {dims.shape_text(grid.shape)} for data of {x.ndim} dimensions")
        if attrs["method"] not in TAPS or attrs["padding_mode"] not in PADDING:
            raise self.error(f"method {attrs['method']!r} with padding_mode {attrs['padding_mode']!r}")
        for s in x.shape[2:]:
            some_elements(self, s, "data has a spatial dimension without elements", dims.prod(grid.shape))
        unify(self, grid.shape[-1], nd, "coordinates per point and spatial dimensions")
        batch = unify(self, x.shape[0], grid.shape[0], "batch of data and grid")
        return TensorType((batch, x.shape[1], *grid.shape[1:-1]), x.dtype)  # type: ignore[no-any-return]

    # ------------------------------------------------------------------------------------------------- reference

    def numpy(self, attrs: Attrs, x: np.ndarray, grid: np.ndarray) -> np.ndarray:
        nd = x.ndim - 2
        points = np_accum(grid)
        count = TAPS[attrs["method"]]
        places, weights, inside = [], [], []
        for d in range(nd):
            p, w, ok = _np_axis(points[..., nd - 1 - d], x.shape[2 + d], attrs)
            places.append(p)
            weights.append(w)
            inside.append(ok)
        batch = np.arange(x.shape[0]).reshape(-1, *[1] * nd)
        wide = np_accum(x)
        total: Any = 0
        for taps in itertools.product(range(count), repeat=nd):
            at = tuple(places[d][t] for d, t in enumerate(taps))
            values = wide[(batch, slice(None), *at)]
            weight = np.prod([weights[d][t] for d, t in enumerate(taps)], axis=0)
            ok = np.logical_and.reduce([inside[d][t] for d, t in enumerate(taps)])
            total = total + np.where(ok, weight, 0)[..., None] * np.where(ok[..., None], values, 0)
        return np.ascontiguousarray(np.moveaxis(total, -1, 1)).astype(x.dtype)

    # --------------------------------------------------------------------------------------------------- compute

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x, grid = inputs
        nd, count = x.ndim - 2, TAPS[attrs["method"]]
        wide, real = accumulation(x.dtype), accumulation(grid.dtype)
        outer = out_type.shape[2:]
        points = [self._points(attrs, grid, d, nd, x.shape[2 + d], real) for d in range(nd)]
        shape = (out_type.shape[0], count, *outer)
        masked = attrs["padding_mode"] == "zeros"
        places = [
            te.compute(
                shape, lambda n, t, *i, d=d: self._place(attrs, points[d][n, *i], t, x.shape[2 + d]), name=f"p{d}"
            )
            for d in range(nd)
        ]
        weights = [
            te.compute(shape, lambda n, t, *i, d=d: E.cast(wide, _weight(attrs, points[d][n, *i], t)), name=f"w{d}")
            for d in range(nd)
        ]
        axes = [te.reduce_axis(count, f"t{d}") for d in range(nd)]

        def body(*idx: Any) -> Any:
            keys = [(idx[0], axes[d].var, *idx[2:]) for d in range(nd)]
            at = [places[d][keys[d]] for d in range(nd)]
            share = functools.reduce(operator.mul, [weights[d][keys[d]] for d in range(nd)])
            if not masked:
                return te.sum(E.cast(wide, x[(*idx[:2], *at)]) * share, axis=axes)
            value = E.cast(wide, x[(*idx[:2], *(E.maximum(p, 0) for p in at))])
            ok, zero = E.land(*(p >= 0 for p in at)), E.const(0, wide)
            return te.sum(E.select(ok, value, zero) * E.select(ok, share, zero), axis=axes)

        total = te.compute(out_type.shape, body, name="sample")
        if wide == x.dtype:
            return total
        return te.compute(out_type.shape, lambda *i: _from_wide(total[i], x.dtype), name="grid_sample")

    def _points(self, attrs: Attrs, grid: Any, d: int, nd: int, size: Any, real: str) -> Any:
        """Coordinates along spatial dimension d, brought inside where the padding mode says so."""

        def point(*idx: Any) -> Any:
            v = E.cast(real, grid[(*idx, nd - 1 - d)])
            length = E.cast(real, E.as_expr(size))
            if attrs["align_corners"]:
                v = (v + 1.0) / 2.0 * (length - 1.0)
            else:
                v = ((v + 1.0) * length - 1.0) / 2.0
            if attrs["method"] == "nearest":
                v = E.call("round", v)
            low, high = _limits(attrs, length)
            if attrs["padding_mode"] == "border" and attrs["method"] != "cubic":
                out = E.lor(v < low, v > high)
                v = E.select(out, E.maximum(E.minimum(v, length - 1.0), E.const(0.0, real)), v)
            elif attrs["padding_mode"] == "reflection":
                v = E.select(E.lor(v < low, v > high), _reflect(v, low, high), v)
            return v

        return te.compute(grid.shape[:-1], point, name=f"at{d}")

    def _place(self, attrs: Attrs, v: Any, t: Any, size: Any) -> Any:
        """Input position of tap t, -1 where it counts as zero."""
        i = E.cast("int64", E.call("floor", v))
        if attrs["method"] == "linear":
            i = i + t
        elif attrs["method"] == "cubic":
            i = i + t - 1
        n = E.as_expr(size)
        if attrs["padding_mode"] == "zeros":
            return E.select(E.land(i >= 0, i < n), i, E.const(-1))
        if attrs["padding_mode"] == "reflection":
            period = 2 * n - 2 if attrs["align_corners"] else 2 * n
            m = E.floormod(i, period)
            i = E.minimum(m, period - m) if attrs["align_corners"] else E.minimum(m, period - 1 - m)
        return E.maximum(E.minimum(i, n - 1), 0)


def _limits(attrs: Attrs, length: Any) -> tuple[Any, Any]:
    """Coordinates between which a point is inside."""
    if attrs["align_corners"]:
        return E.const(0.0, length.dtype), length - 1.0
    return E.const(-0.5, length.dtype), length - 0.5


def _reflect(v: Any, low: Any, high: Any) -> Any:
    """v mirrored at low and high until it lies between them."""
    span = high - low
    distance = E.select(v < low, low - v, v - high)
    turns = E.call("floor", E.div(distance, E.maximum(span, E.const(1e-30, v.dtype))))
    rest = distance - turns * span
    even = E.binary(E.EQ, turns - E.call("floor", turns / 2.0) * 2.0, E.const(0.0, v.dtype))
    from_low = E.binary(E.EQ, even, v < low)
    return E.select(from_low, low + rest, high - rest)


def _weight(attrs: Attrs, v: Any, t: Any) -> Any:
    """Weight of tap t at coordinate v."""
    one = E.const(1.0, v.dtype)
    if attrs["method"] == "nearest":
        return one
    part = v - E.call("floor", v)
    if attrs["method"] == "linear":
        return E.select(E.binary(E.EQ, t, 0), one - part, part)
    a = _KEYS
    d = E.call("abs", E.cast(v.dtype, t - 1) - part)
    near = ((a + 2.0) * d - (a + 3.0)) * d * d + 1.0
    far = ((a * d - 5.0 * a) * d + 8.0 * a) * d - 4.0 * a
    return E.select(d <= one, near, far)


def _from_wide(value: Any, dtype: str) -> Any:
    return E.cast(dtype, E.call("round", value) if dt.is_int(dtype) else value)


def _np_axis(v: np.ndarray, size: int, attrs: Attrs) -> tuple[list[Any], list[Any], list[Any]]:
    """Positions, weights and validity of every tap along one axis (NumPy side)."""
    method, mode, corners = attrs["method"], attrs["padding_mode"], attrs["align_corners"]
    v = (v + 1) / 2 * (size - 1) if corners else ((v + 1) * size - 1) / 2
    if method == "nearest":
        v = np.rint(v)
    low, high = (0.0, size - 1.0) if corners else (-0.5, size - 0.5)
    if mode == "border" and method != "cubic":  # each cubic tap is clamped by itself
        v = np.where((v < low) | (v > high), np.clip(v, 0, size - 1), v)
    elif mode == "reflection":
        period = max(2 * (high - low), 1e-30)
        m = np.mod(v - low, period)
        v = np.where((v < low) | (v > high), low + np.minimum(m, period - m), v)
    base = np.floor(v)
    part = v - base
    first = {"nearest": 0, "linear": 0, "cubic": -1}[method]
    places, weights, inside = [], [], []
    for t in range(TAPS[method]):
        i = np.nan_to_num(base).astype(np.int64) + first + t
        d = np.abs(first + t - part)
        near, far = (_KEYS + 2) * d**3 - (_KEYS + 3) * d**2 + 1, _KEYS * (d**3 - 5 * d**2 + 8 * d - 4)
        w = {"nearest": np.ones_like(v), "linear": 1 - d, "cubic": np.where(d <= 1, near, far)}[method]
        ok = (i >= 0) & (i < size) if mode == "zeros" else np.ones(i.shape, bool)
        if mode == "reflection":
            period = max(2 * size - 2, 1) if corners else 2 * size
            m = i % period
            i = np.minimum(m, period - m) if corners else np.minimum(m, period - 1 - m)
        places.append(np.clip(i, 0, size - 1))
        weights.append(w)
        inside.append(ok)
    return places, weights, inside


class AffineGrid(Op):
    """Grid (N, spatial…, D) of theta (N, D, D+1) applied to the regular grid over `target_shape` in [-1, 1]."""

    name = "image.affine_grid"
    defaults = {"target_shape": REQUIRED, "align_corners": True}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        (theta,) = tensors(self, types)
        nd = len(attrs["target_shape"])
        require_float(self, theta, "theta")
        if nd not in (2, 3) or theta.ndim != 3 or tuple(theta.shape[1:]) != (nd, nd + 1):
            raise self.error(f"theta of shape {dims.shape_text(theta.shape)} for {nd} spatial dimensions")
        return TensorType((theta.shape[0], *attrs["target_shape"], nd), theta.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, theta: np.ndarray) -> np.ndarray:
        sizes = attrs["target_shape"]
        lines = []
        for s in sizes:
            steps = np.arange(s, dtype=np.float64)
            lines.append(-1 + 2 * steps / max(s - 1, 1) if attrs["align_corners"] else (2 * steps + 1) / s - 1)
        mesh = np.meshgrid(*lines, indexing="ij")
        points = np.stack([*reversed(mesh), np.ones(sizes)], axis=-1)
        return np.einsum("nij,...j->n...i", theta.astype(np.float64), points).astype(theta.dtype)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        theta, sizes = inputs[0], attrs["target_shape"]
        nd, wide = len(sizes), accumulation(inputs[0].dtype)

        def coordinate(i: Any, size: Any) -> Any:
            n = E.cast(wide, E.as_expr(size))
            if attrs["align_corners"]:
                last = E.maximum(n - 1.0, E.const(1.0, wide))
                return E.div(E.cast(wide, i) * 2.0, last) - 1.0
            return E.div(E.cast(wide, i) * 2.0 + 1.0, n) - 1.0

        def element(*idx: Any) -> Any:
            n, row = idx[0], idx[-1]
            total = E.cast(wide, theta[n, row, nd])
            for d in range(nd):
                total = total + E.cast(wide, theta[n, row, nd - 1 - d]) * coordinate(idx[1 + d], sizes[d])
            return E.cast(theta.dtype, total)

        return te.compute(out_type.shape, element, name="affine_grid")
