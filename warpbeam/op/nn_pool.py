"""Pooling over windows of one to three spatial dimensions: maximum, mean, p-norm; and over whole planes.

layout: any permutation of N, C and the spatial letters. padding: one number, one per dimension, or begins then ends.
ceil_mode: a last window that starts inside the data (or the leading padding) but ends outside counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.op.base import REQUIRED, Op, accumulation, tensors
from warpbeam.op.nn_common import (
    dim_max,
    layout_map,
    np_accum,
    pad_stage,
    require_float,
    require_rank,
    spatial_letters,
    split_padding,
    tuple_of,
    window_out,
)
from warpbeam.relay.types import TensorType, Type
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.topi import dims


class Window:
    """Geometry of one pooling call: per spatial dimension its axis, kernel, stride, dilation, begin and end."""

    def __init__(self, op: Pool, attrs: Attrs) -> None:
        letters = spatial_letters(op.nd)
        layout = layout_map(op, attrs["layout"] or "NC" + letters, "NC" + letters)
        self.axes = [layout[c] for c in letters]
        self.kernel = tuple_of(attrs["pool_size"], op.nd)
        self.strides = tuple_of(attrs["strides"], op.nd)
        self.dilation = tuple_of(attrs["dilation"], op.nd)
        self.begins, self.ends = split_padding(op, attrs["padding"], op.nd)
        self.ceil = bool(attrs["ceil_mode"])
        if min(*self.kernel, *self.strides, *self.dilation, 1) < 1:
            raise op.error("pool_size, strides and dilation must be positive")

    def span(self, i: int) -> int:
        """Extent that one window covers along spatial dimension i."""
        return int((self.kernel[i] - 1) * self.dilation[i] + 1)

    def out_shape(self, op: Op, shape: Sequence[Any]) -> tuple[Any, ...]:
        out = list(shape)
        for i, a in enumerate(self.axes):
            args = self.kernel[i], self.strides[i], self.dilation[i], self.begins[i], self.ends[i]
            out[a] = window_out(op, shape[a], *args, ceil=self.ceil)
        return tuple(out)

    def border(self, shape: Sequence[Any], out: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """(before, after) per axis so that every window is inside."""
        before, after = [0] * len(shape), [0] * len(shape)
        for i, a in enumerate(self.axes):
            before[a] = self.begins[i]
            need = dims.dim((out[a] - 1) * self.strides[i] + self.span(i) - shape[a] - self.begins[i])
            after[a] = dim_max(need, 0) if self.ceil else self.ends[i]
        return before, after

    def reduce_axes(self) -> list[Any]:
        return [te.reduce_axis(k, f"k{c.lower()}") for k, c in zip(self.kernel, "dhw"[-len(self.axes) :], strict=True)]

    def source(self, idx: Sequence[Any], taps: Sequence[Any]) -> tuple[Any, ...]:
        """Index into the bordered data of window position `idx` at kernel position `taps`."""
        at = list(idx)
        for i, a in enumerate(self.axes):
            at[a] = idx[a] * self.strides[i] + taps[i] * self.dilation[i]
        return tuple(at)

    def counts(self, position: Any, i: int, size: Any, include_pad: bool) -> Any:
        """Kernel positions along dimension i that lie in the data (or, with include_pad, in the padding asked for)."""
        low = -self.begins[i] if include_pad else 0
        high = size + self.ends[i] if include_pad else size
        start = position * self.strides[i] - self.begins[i]
        d = self.dilation[i]
        first = E.maximum(E.ceildiv(low - start, d), 0)
        last = E.minimum(E.ceildiv(high - start, d), self.kernel[i])
        return E.maximum(last - first, 0)

    def always_full(self, i: int, size: Any, out: Any, include_pad: bool) -> bool:
        """Whether every window along dimension i has all its kernel positions counted."""
        if not include_pad and (self.begins[i] != 0 or self.ends[i] != 0):
            return False
        if not self.ceil:
            return True
        end = dims.dim((out - 1) * self.strides[i] + self.span(i) - size - self.begins[i] - self.ends[i])
        return isinstance(end, int) and end <= 0


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


class Pool(Op):
    """Base of window pooling; a subclass gives the reference and the te stages."""

    nd: ClassVar[int] = 2
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
        return TensorType(Window(self, attrs).out_shape(self, x.shape), x.dtype)  # type: ignore[no-any-return]

    def reduced(self, attrs: Attrs, x: Any, out_type: Any, fill: Any, source: Any, reducer: Any, name: str) -> Any:
        """The stage that combines source(element) over each window of bordered data."""
        win = Window(self, attrs)
        padded = pad_stage(x, *win.border(x.shape, out_type.shape), fill)
        axes = win.reduce_axes()
        taps = [k.var for k in axes]
        return te.compute(out_type.shape, lambda *i: reducer(source(padded[win.source(i, taps)]), axis=axes), name=name)

    def flops(self, attrs: Attrs, types: Sequence[Any], out_type: Any) -> Any:
        first = out_type.fields[0] if hasattr(out_type, "fields") else out_type
        return dims.prod([*Window(self, attrs).kernel, *first.shape])


class MaxPool(Pool):
    """Largest element of each window; padding never wins."""

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        win = Window(self, attrs)
        fill = te.min_value(dt.from_numpy(x.dtype)).value  # type: ignore[attr-defined]
        parts = reference_windows(x, win, win.out_shape(self, x.shape), fill)
        return np.maximum.reduce(parts).astype(x.dtype)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x = inputs[0]
        return self.reduced(attrs, x, out_type, te.min_value(x.dtype), lambda e: e, te.max, "max_pool")


class AvgPool(Pool):
    """Mean of each window; padding asked for counts as zeros with count_include_pad, and not at all without."""

    defaults = {**Pool.defaults, "count_include_pad": False}

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        win = Window(self, attrs)
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
        x, win, include = inputs[0], Window(self, attrs), bool(attrs["count_include_pad"])
        wide = accumulation(x.dtype)
        total = self.reduced(attrs, x, out_type, 0, lambda e: E.cast(wide, e), te.sum, "pool_sum")

        def mean(*idx: Any) -> Any:
            count: Any = 1
            for i, a in enumerate(win.axes):
                size = x.shape[a]
                full = win.always_full(i, size, out_type.shape[a], include)
                count = count * (win.kernel[i] if full else win.counts(idx[a], i, size, include))
            count = count if isinstance(count, int) else E.maximum(count, 1)
            return E.cast(x.dtype, E.div(total[idx], E.cast(wide, count)))

        return te.compute(out_type.shape, mean, name="avg_pool")


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
        win, p = Window(self, attrs), attrs["p"]
        parts = reference_windows(np.abs(np_accum(x)), win, win.out_shape(self, x.shape), 0)
        return (sum(part**p for part in parts) ** (1.0 / p)).astype(x.dtype)  # type: ignore[attr-defined]

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x = inputs[0]
        wide = accumulation(x.dtype)
        total = self.reduced(attrs, x, out_type, 0, lambda e: power(E.cast(wide, e), attrs["p"]), te.sum, "norm_sum")
        return te.compute(out_type.shape, lambda *i: E.cast(x.dtype, root(total[i], attrs["p"])), name="lp_pool")


def power(value: Any, p: int) -> Any:
    """|value|^p, by multiplication for the usual p."""
    if p == 2:
        return value * value
    size = E.call("abs", value)
    return size if p == 1 else E.call("pow", size, E.const(float(p), value.dtype))


def root(value: Any, p: int) -> Any:
    """value^(1/p) of a non-negative value."""
    if p == 2:
        return E.call("sqrt", value)
    return value if p == 1 else E.call("pow", value, E.const(1.0 / p, value.dtype))


class GlobalPool(Op):
    """Base of pooling over all spatial positions, kept as dimensions of 1."""

    nd: ClassVar[int] = 2
    defaults = {"layout": ""}

    def axes(self, attrs: Attrs) -> tuple[int, ...]:
        letters = spatial_letters(self.nd)
        layout = layout_map(self, attrs["layout"] or "NC" + letters, "NC" + letters)
        return tuple(sorted(layout[c] for c in letters))

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        (x,) = tensors(self, types)
        require_rank(self, x, self.nd + 2)
        if self.mean_like:
            require_float(self, x)
        axes = self.axes(attrs)
        return TensorType([1 if i in axes else s for i, s in enumerate(x.shape)], x.dtype)  # type: ignore[no-any-return]

    mean_like: ClassVar[bool] = True

    def reduced(self, attrs: Attrs, x: Any, out_type: Any, source: Callable[..., Any], reducer: Any, name: str) -> Any:
        ks = {a: te.reduce_axis(x.shape[a], f"k{a}") for a in self.axes(attrs)}

        def body(*idx: Any) -> Any:
            at = tuple(ks[i].var if i in ks else v for i, v in enumerate(idx))
            return reducer(source(x[at]), axis=list(ks.values()))

        return te.compute(out_type.shape, body, name=name)

    def flops(self, attrs: Attrs, types: Sequence[Any], out_type: Any) -> Any:
        return dims.prod(types[0].shape)


class GlobalMaxPool(GlobalPool):
    mean_like = False

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        return x.max(axis=self.axes(attrs), keepdims=True)  # type: ignore[no-any-return]

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        return self.reduced(attrs, inputs[0], out_type, lambda e: e, te.max, "global_max_pool")


class GlobalAvgPool(GlobalPool):
    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        return np_accum(x).mean(axis=self.axes(attrs), keepdims=True).astype(x.dtype)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x = inputs[0]
        wide = accumulation(x.dtype)
        total = self.reduced(attrs, x, out_type, lambda e: E.cast(wide, e), te.sum, "plane_sum")
        count = E.cast(wide, E.as_expr(dims.prod(x.shape[a] for a in self.axes(attrs))))
        return te.compute(out_type.shape, lambda *i: E.cast(x.dtype, E.div(total[i], count)), name="global_avg_pool")


class GlobalLpPool(GlobalPool):
    defaults = {**GlobalPool.defaults, "p": 2}

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        p = attrs["p"]
        total = (np.abs(np_accum(x)) ** p).sum(axis=self.axes(attrs), keepdims=True)
        return (total ** (1.0 / p)).astype(x.dtype)  # type: ignore[no-any-return]

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x, p = inputs[0], attrs["p"]
        wide = accumulation(x.dtype)
        total = self.reduced(attrs, x, out_type, lambda e: power(E.cast(wide, e), p), te.sum, "plane_sum")
        return te.compute(out_type.shape, lambda *i: E.cast(x.dtype, root(total[i], p)), name="global_lp_pool")


class MaxPool1d(MaxPool):
    name = "nn.max_pool1d"
    nd = 1


class MaxPool2d(MaxPool):
    name = "nn.max_pool2d"


class MaxPool3d(MaxPool):
    name = "nn.max_pool3d"
    nd = 3


class AvgPool1d(AvgPool):
    name = "nn.avg_pool1d"
    nd = 1


class AvgPool2d(AvgPool):
    name = "nn.avg_pool2d"


class AvgPool3d(AvgPool):
    name = "nn.avg_pool3d"
    nd = 3


class LpPool1d(LpPool):
    name = "nn.lp_pool1d"
    nd = 1


class LpPool2d(LpPool):
    name = "nn.lp_pool2d"


class LpPool3d(LpPool):
    name = "nn.lp_pool3d"
    nd = 3


class GlobalMaxPool1d(GlobalMaxPool):
    name = "nn.global_max_pool1d"
    nd = 1


class GlobalMaxPool2d(GlobalMaxPool):
    name = "nn.global_max_pool2d"


class GlobalMaxPool3d(GlobalMaxPool):
    name = "nn.global_max_pool3d"
    nd = 3


class GlobalAvgPool1d(GlobalAvgPool):
    name = "nn.global_avg_pool1d"
    nd = 1


class GlobalAvgPool2d(GlobalAvgPool):
    name = "nn.global_avg_pool2d"


class GlobalAvgPool3d(GlobalAvgPool):
    name = "nn.global_avg_pool3d"
    nd = 3


class GlobalLpPool1d(GlobalLpPool):
    name = "nn.global_lp_pool1d"
    nd = 1


class GlobalLpPool2d(GlobalLpPool):
    name = "nn.global_lp_pool2d"


class GlobalLpPool3d(GlobalLpPool):
    name = "nn.global_lp_pool3d"
    nd = 3
