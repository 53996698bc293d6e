"""Pooling over windows of one to three spatial dimensions: maximum, mean, p-norm; and over whole planes.

layout: any permutation of N, C and the spatial letters. padding: one number, one per dimension, or begins then ends.
ceil_mode: a last window that starts inside the data (or the leading padding) but ends outside counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, ClassVar

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.op import get
from warpbeam.op.base import REQUIRED, tensors
from warpbeam.op.nn_common import Ranked, np_accum, require_float, require_rank
from warpbeam.relay.expr import Expr
from warpbeam.relay.types import TensorType, Type
from warpbeam.te import tensor as te
from warpbeam.topi import dims
from warpbeam.topi.nn.pooling import (
    Window,
    max_plane,
    max_windows,
    mean_plane,
    mean_windows,
    norm_plane,
    norm_windows,
    spatial_axes,
)


def window(op: Pool, attrs: Attrs) -> Window:
    """The geometry of one call."""
    moves = attrs["pool_size"], attrs["strides"], attrs["dilation"], attrs["padding"]
    return Window(op, op.nd, attrs["layout"], *moves, bool(attrs["ceil_mode"]))


def reference_windows(x: np.ndarray, win: Window, out: Sequence[int], fill: Any) -> list[np.ndarray]:
    """One array of the result's shape per kernel position: the elements each window sees there."""
    pads, found = [(0, 0)] * x.ndim, []
    for i, a in enumerate(win.axes):
        need = (out[a] - 1) * win.strides[i] + win.span(i) - x.shape[a] - win.begins[i]
        pads[a] = (win.begins[i], max(need, 0))
    x = np.pad(x, pads, constant_values=fill)
    for pos in itertools.product(*map(range, win.kernel)):
        cut = [slice(None)] * x.ndim
        for i, a in enumerate(win.axes):
            at = pos[i] * win.dilation[i]
            cut[a] = slice(at, at + (out[a] - 1) * win.strides[i] + 1, win.strides[i])
        found.append(x[tuple(cut)])
    return found


class Pool(Ranked):
    """Base of window pooling; a subclass gives the reference and the te stages."""

    placed = True
    defaults = {
        "pool_size": REQUIRED,
        "strides": 1,
        "padding": 0,
        "dilation": 1,
        "ceil_mode": False,
        "layout": "",
    }

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        (x,) = tensors(self, types)
        require_rank(self, x, self.nd + 2)
        return TensorType(window(self, attrs).out_shape(self, x.shape), x.dtype)  # type: ignore[no-any-return]

    def flops(self, attrs: Attrs, types: Sequence[Any], out_type: Any) -> Any:
        first = out_type.fields[0] if hasattr(out_type, "fields") else out_type
        return dims.prod([*window(self, attrs).kernel, *first.shape])


class MaxPool(Pool):
    """Largest element of each window; padding never wins."""

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        win = window(self, attrs)
        fill = te.min_value(dt.from_numpy(x.dtype)).value  # type: ignore[attr-defined]
        parts = reference_windows(x, win, win.out_shape(self, x.shape), fill)
        return np.maximum.reduce(parts).astype(x.dtype)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        return max_windows(inputs[0], window(self, attrs), out_type.shape)

    def expand(self, attrs: Attrs, args: Sequence[Expr]) -> Expr | None:
        """One dimension after the other, where that takes at most half of the comparisons: 5 + 5 in place of 25.
        Dimensions whose windows are one element are strided and bordered along with the first.
        """
        win, shape = window(self, attrs), args[0].ty.shape  # type: ignore[attr-defined]
        out = win.out_shape(self, shape)
        order = sorted((i for i, k in enumerate(win.kernel) if k > 1), key=lambda i: -_shrinks(win, i, shape, out))
        apart, left = 0.0, prod(_shrinks(win, i, shape, out) for i in order)
        for i in order:
            left /= _shrinks(win, i, shape, out)
            apart += win.kernel[i] * left
        if len(order) < 2 or 2 * apart > prod(win.kernel):
            return None
        value = args[0]
        for i in order:
            now = {i} if i != order[0] else set(range(self.nd)) - set(order[1:])
            one = [g if j in now else (1, 1, 1, 0, 0) for j, g in enumerate(_geometry(win))]
            size, strides, dilation, begins, ends = zip(*one, strict=True)
            changed = {"pool_size": size, "strides": strides, "dilation": dilation, "padding": (*begins, *ends)}
            value = get(self.name)(value, **{**attrs, **changed})
        return value


def _geometry(win: Window) -> Iterator[tuple[int, ...]]:
    """(kernel, stride, dilation, begin, end) by spatial dimension."""
    return zip(win.kernel, win.strides, win.dilation, win.begins, win.ends, strict=True)


def _shrinks(win: Window, i: int, shape: Sequence[Any], out: Sequence[Any]) -> float:
    """How many times as large a spatial dimension is before; its stride where sizes are open."""
    before, after = shape[win.axes[i]], out[win.axes[i]]
    known = isinstance(before, int) and isinstance(after, int) and before * after > 0
    return before / after if known else win.strides[i]


class AvgPool(Pool):
    """Mean of each window; padding asked for counts as zeros with count_include_pad, and not at all without."""

    defaults = {**Pool.defaults, "count_include_pad": False}

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        win = window(self, attrs)
        out = win.out_shape(self, x.shape)
        ones = np.ones(x.shape, np.float64)
        if attrs["count_include_pad"]:
            ones = np.pad(ones, _pads(win, x.ndim), constant_values=1)
            count = sum(reference_windows(ones, _without_begin(win), out, 0))
        else:
            count = sum(reference_windows(ones, win, out, 0))
        total: Any = sum(reference_windows(np_accum(x), win, out, 0))
        return np.asarray(total / np.maximum(count, 1)).astype(x.dtype)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        include = bool(attrs["count_include_pad"])
        return mean_windows(inputs[0], window(self, attrs), out_type.shape, include)


def _pads(win: Window, ndim: int) -> list[tuple[int, int]]:
    pads = [(0, 0)] * ndim
    for i, a in enumerate(win.axes):
        pads[a] = (win.begins[i], win.ends[i])
    return pads


def _without_begin(win: Window) -> Window:
    """The same window over data that is padded already."""
    other = object.__new__(Window)
    other.__dict__.update(win.__dict__, begins=(0,) * len(win.axes), ends=(0,) * len(win.axes))
    return other


class LpPool(Pool):
    """p-norm of each window: (sum |x|^p)^(1/p); padding counts as zeros."""

    defaults = {**Pool.defaults, "p": 2}

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        win, p = window(self, attrs), attrs["p"]
        parts = reference_windows(np.abs(np_accum(x)), win, win.out_shape(self, x.shape), 0)
        return (sum(part**p for part in parts) ** (1.0 / p)).astype(x.dtype)  # type: ignore[attr-defined]

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        return norm_windows(inputs[0], window(self, attrs), out_type.shape, attrs["p"])


class GlobalPool(Ranked):
    """Base of pooling over all spatial positions, kept as dimensions of 1."""

    defaults = {"layout": ""}

    def axes(self, attrs: Attrs) -> tuple[int, ...]:
        return tuple(sorted(spatial_axes(self, self.nd, attrs["layout"])))

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        (x,) = tensors(self, types)
        require_rank(self, x, self.nd + 2)
        if self.mean_like:
            require_float(self, x)
        axes = self.axes(attrs)
        return TensorType([1 if i in axes else s for i, s in enumerate(x.shape)], x.dtype)  # type: ignore[no-any-return]

    mean_like: ClassVar[bool] = True

    def flops(self, attrs: Attrs, types: Sequence[Any], out_type: Any) -> Any:
        return dims.prod(types[0].shape)


class GlobalMaxPool(GlobalPool):
    mean_like = False

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        return x.max(axis=self.axes(attrs), keepdims=True)  # type: ignore[no-any-return]

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        return max_plane(inputs[0], self.axes(attrs))


class GlobalAvgPool(GlobalPool):
    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        return np_accum(x).mean(axis=self.axes(attrs), keepdims=True).astype(x.dtype)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        return mean_plane(inputs[0], self.axes(attrs))


class GlobalLpPool(GlobalPool):
    defaults = {**GlobalPool.defaults, "p": 2}

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        p = attrs["p"]
        total = (np.abs(np_accum(x)) ** p).sum(axis=self.axes(attrs), keepdims=True)
        return (total ** (1.0 / p)).astype(x.dtype)  # type: ignore[no-any-return]

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        return norm_plane(inputs[0], self.axes(attrs), attrs["p"])


# fmt: off
class MaxPool1d(MaxPool, name="nn.max_pool1d", nd=1): ...
class MaxPool2d(MaxPool, name="nn.max_pool2d", nd=2): ...
class MaxPool3d(MaxPool, name="nn.max_pool3d", nd=3): ...
class AvgPool1d(AvgPool, name="nn.avg_pool1d", nd=1): ...
class AvgPool2d(AvgPool, name="nn.avg_pool2d", nd=2): ...
class AvgPool3d(AvgPool, name="nn.avg_pool3d", nd=3): ...
class LpPool1d(LpPool, name="nn.lp_pool1d", nd=1): ...
class LpPool2d(LpPool, name="nn.lp_pool2d", nd=2): ...
class LpPool3d(LpPool, name="nn.lp_pool3d", nd=3): ...
class GlobalMaxPool1d(GlobalMaxPool, name="nn.global_max_pool1d", nd=1): ...
class GlobalMaxPool2d(GlobalMaxPool, name="nn.global_max_pool2d", nd=2): ...
class GlobalMaxPool3d(GlobalMaxPool, name="nn.global_max_pool3d", nd=3): ...
class GlobalAvgPool1d(GlobalAvgPool, name="nn.global_avg_pool1d", nd=1): ...
class GlobalAvgPool2d(GlobalAvgPool, name="nn.global_avg_pool2d", nd=2): ...
class GlobalAvgPool3d(GlobalAvgPool, name="nn.global_avg_pool3d", nd=3): ...
class GlobalLpPool1d(GlobalLpPool, name="nn.global_lp_pool1d", nd=1): ...
class GlobalLpPool2d(GlobalLpPool, name="nn.global_lp_pool2d", nd=2): ...
class GlobalLpPool3d(GlobalLpPool, name="nn.global_lp_pool3d", nd=3): ...
# fmt: on
