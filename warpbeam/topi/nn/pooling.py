"""Pooling over windows of one to three spatial dimensions: maximum, mean, p-norm; over whole planes; adaptive.

layout: any permutation of N, C and the spatial letters. padding: one number, one per dimension, or begins then ends.
ceil_mode: a last window that starts inside the data (or the leading padding) but ends outside counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.topi import dims, tag
from warpbeam.topi.common import Caller, Who, accumulation, convert_stage
from warpbeam.topi.nn.common import (
    dim_max,
    layout_map,
    pad_stage,
    spatial_letters,
    split_padding,
    tuple_of,
    window_out,
)
from warpbeam.topi.scalar import norm_power, norm_root


class Window:
    """Geometry of one pooling call: per spatial dimension its axis, kernel, stride, dilation, begin and end."""

    def __init__(
        self, who: Who, nd: int, layout: str, kernel: Any, strides: Any, dilation: Any, padding: Any, ceil: bool
    ) -> None:
        self.axes = spatial_axes(who, nd, layout)
        self.kernel = tuple_of(kernel, nd)
        self.strides = tuple_of(strides, nd)
        self.dilation = tuple_of(dilation, nd)
        self.begins, self.ends = split_padding(who, padding, nd)
        self.ceil = ceil
        if min(*self.kernel, *self.strides, *self.dilation, 1) < 1:
            raise who.error("pool_size, strides and dilation must be positive")

    def span(self, i: int) -> int:
        """Extent that one window covers along spatial dimension i."""
        return int((self.kernel[i] - 1) * self.dilation[i] + 1)

    def out_shape(self, who: Who, shape: Sequence[Any]) -> tuple[Any, ...]:
        out = list(shape)
        for i, a in enumerate(self.axes):
            args = self.kernel[i], self.strides[i], self.dilation[i], self.begins[i], self.ends[i]
            out[a] = window_out(who, shape[a], *args, ceil=self.ceil)
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


def spatial_axes(who: Who, nd: int, layout: str) -> list[int]:
    """The axes of D, H, W (those there are) in a layout; "" is channels first."""
    letters = spatial_letters(nd)
    places = layout_map(who, layout or "NC" + letters, "NC" + letters)
    return [places[c] for c in letters]


# ------------------------------------------------------------------------------------------------- windows and planes


def window_stage(
    x: te.Tensor, win: Window, shape: Sequence[Any], fill: Any, source: Any, reducer: Any, name: str, label: str
) -> Any:
    """The stage that combines source(element) over each window of data bordered by `fill`."""
    padded = pad_stage(x, *win.border(x.shape, shape), fill)
    axes = win.reduce_axes()
    taps = [k.var for k in axes]

    def element(*idx: Any) -> Any:
        return reducer(source(padded[win.source(idx, taps)]), axis=axes)

    return te.compute(shape, element, name=name, tag=label)


def max_windows(x: te.Tensor, win: Window, shape: Sequence[Any]) -> Any:
    """Largest element of each window; padding never wins."""
    wide = accumulation(x.dtype)  # half floats are compared in the type that the target computes in
    best = window_stage(x, win, shape, te.min_value(x.dtype), lambda e: E.cast(wide, e), te.max, "max_pool", "pool_max")
    return convert_stage(best, x.dtype, "max_pool_cast")


def mean_windows(x: te.Tensor, win: Window, shape: Sequence[Any], include_pad: bool) -> Any:
    """Mean of each window; padding asked for counts as zeros with include_pad, and not at all without."""
    wide = accumulation(x.dtype)
    total = window_stage(x, win, shape, 0, lambda e: E.cast(wide, e), te.sum, "pool_sum", "pool_sum")

    def mean(*idx: Any) -> Any:
        count: Any = 1
        for i, a in enumerate(win.axes):
            size = x.shape[a]
            full = win.always_full(i, size, shape[a], include_pad)
            count = count * (win.kernel[i] if full else win.counts(idx[a], i, size, include_pad))
        count = count if isinstance(count, int) else E.maximum(count, 1)
        return E.cast(x.dtype, E.div(total[idx], E.cast(wide, count)))

    return te.compute(shape, mean, name="avg_pool", tag=tag.ELEMWISE)


def norm_windows(x: te.Tensor, win: Window, shape: Sequence[Any], p: int) -> Any:
    """p-norm of each window: (sum |x|^p)^(1/p); padding counts as zeros."""
    wide = accumulation(x.dtype)

    def term(e: E.PrimExpr) -> E.PrimExpr:
        return norm_power(E.cast(wide, e), p)

    total = window_stage(x, win, shape, 0, term, te.sum, "norm_sum", "pool_sum")
    return te.compute(shape, lambda *i: E.cast(x.dtype, norm_root(total[i], p)), name="lp_pool", tag=tag.ELEMWISE)


def plane_stage(x: te.Tensor, axes: Sequence[int], source: Any, reducer: Any, name: str, label: str) -> Any:
    """reducer over all of `axes`, kept as dimensions of 1."""
    ks = {a: te.reduce_axis(x.shape[a], f"k{a}") for a in axes}

    def body(*idx: Any) -> Any:
        at = tuple(ks[i].var if i in ks else v for i, v in enumerate(idx))
        return reducer(source(x[at]), axis=list(ks.values()))

    return te.compute([1 if i in ks else s for i, s in enumerate(x.shape)], body, name=name, tag=label)


def max_plane(x: te.Tensor, axes: Sequence[int]) -> Any:
    """Largest element over `axes`, kept as dimensions of 1."""
    wide = accumulation(x.dtype)
    best = plane_stage(x, axes, lambda e: E.cast(wide, e), te.max, "global_max_pool", "global_pool_max")
    return convert_stage(best, x.dtype, "global_max_pool_cast")


def mean_plane(x: te.Tensor, axes: Sequence[int]) -> Any:
    """Mean over `axes`, kept as dimensions of 1."""
    wide = accumulation(x.dtype)
    total = plane_stage(x, axes, lambda e: E.cast(wide, e), te.sum, "plane_sum", "global_pool_sum")
    count = E.cast(wide, E.as_expr(dims.prod(x.shape[a] for a in axes)))

    def mean(*i: Any) -> Any:
        return E.cast(x.dtype, E.div(total[i], count))

    return te.compute(total.shape, mean, name="global_avg_pool", tag=tag.ELEMWISE)


def norm_plane(x: te.Tensor, axes: Sequence[int], p: int) -> Any:
    """p-norm over `axes`, kept as dimensions of 1."""
    wide = accumulation(x.dtype)

    def term(e: E.PrimExpr) -> E.PrimExpr:
        return norm_power(E.cast(wide, e), p)

    total = plane_stage(x, axes, term, te.sum, "plane_sum", "global_pool_sum")

    def root(*i: Any) -> Any:
        return E.cast(x.dtype, norm_root(total[i], p))

    return te.compute(total.shape, root, name="global_lp_pool", tag=tag.ELEMWISE)


# ---------------------------------------------------------------------------------------------------- the public names


def _pool(
    name: str, nd: int, data: te.Tensor, kernel: Any, stride: Any, dilation: Any, padding: Any, pool_type: str,
    ceil_mode: bool, layout: str, count_include_pad: bool,
) -> Any:  # fmt: skip
    who = Caller(f"nn.{name}")
    if data.ndim != nd + 2:
        raise who.error(f"data must have {nd + 2} dimensions, got {data.ndim}")
    win = Window(who, nd, layout, kernel, stride, dilation, padding, ceil_mode)
    shape = win.out_shape(who, data.shape)
    if pool_type == "max":
        return max_windows(data, win, shape)
    if pool_type == "avg":
        return mean_windows(data, win, shape, count_include_pad)
    raise who.error(f"pool_type {pool_type!r}", "max or avg")


def pool1d(
    data: te.Tensor, kernel: Any, stride: Any, dilation: Any, padding: Any, pool_type: str, ceil_mode: bool = False,
    layout: str = "NCW", count_include_pad: bool = True,
) -> Any:  # fmt: skip
    """Pooling over W; pool_type "max" or "avg"."""
    return _pool("pool1d", 1, data, kernel, stride, dilation, padding, pool_type, ceil_mode, layout, count_include_pad)


def pool2d(
    data: te.Tensor, kernel: Any, stride: Any, dilation: Any, padding: Any, pool_type: str, ceil_mode: bool = False,
    layout: str = "NCHW", count_include_pad: bool = True,
) -> Any:  # fmt: skip
    """Pooling over H and W; pool_type "max" or "avg"; padding (top, left, bottom, right)."""
    return _pool("pool2d", 2, data, kernel, stride, dilation, padding, pool_type, ceil_mode, layout, count_include_pad)


def pool3d(
    data: te.Tensor, kernel: Any, stride: Any, dilation: Any, padding: Any, pool_type: str, ceil_mode: bool = False,
    layout: str = "NCDHW", count_include_pad: bool = True,
) -> Any:  # fmt: skip
    """Pooling over D, H and W; pool_type "max" or "avg"."""
    return _pool("pool3d", 3, data, kernel, stride, dilation, padding, pool_type, ceil_mode, layout, count_include_pad)


def pool(
    data: te.Tensor, kernel: Any, stride: Any, padding: Any, pool_type: str, ceil_mode: bool = False,
    layout: str = "NCHW", count_include_pad: bool = True,
) -> Any:  # fmt: skip
    """pool2d without dilation, as older scripts call it."""
    return _pool("pool", 2, data, kernel, stride, 1, padding, pool_type, ceil_mode, layout, count_include_pad)


def global_pool(data: te.Tensor, pool_type: str, layout: str = "NCHW") -> Any:
    """Maximum or mean over all spatial positions, kept as dimensions of 1."""
    who = Caller("nn.global_pool")
    axes = sorted(spatial_axes(who, data.ndim - 2, layout))
    if pool_type not in ("max", "avg"):
        raise who.error(f"pool_type {pool_type!r}", "max or avg")
    return max_plane(data, axes) if pool_type == "max" else mean_plane(data, axes)


def _adaptive(name: str, data: te.Tensor, output_size: Any, pool_type: str, layout: str) -> Any:
    """Window p covers [floor(p·in/out), ceil((p+1)·in/out)): its length varies by one where out does not divide in."""
    who, nd = Caller(f"nn.{name}"), data.ndim - 2
    axes, sizes = spatial_axes(who, nd, layout), tuple_of(output_size, nd)
    if pool_type not in ("max", "avg"):
        raise who.error(f"pool_type {pool_type!r}", "max or avg")
    shape = list(data.shape)
    for a, size in zip(axes, sizes, strict=True):
        shape[a] = size
    wide = data.dtype if pool_type == "max" else accumulation(data.dtype)
    ks = [te.reduce_axis(_longest(data.shape[a], shape[a]), f"k{a}") for a in axes]

    def limits(p: Any, a: int) -> tuple[Any, Any]:
        return p * data.shape[a] // shape[a], E.ceildiv((p + 1) * data.shape[a], shape[a])

    def body(*idx: Any) -> Any:
        at, inside = list(idx), []
        for a, k in zip(axes, ks, strict=True):
            low, high = limits(idx[a], a)
            at[a] = low + k.var
            inside.append(at[a] < high)
        nothing = te.min_value(wide) if pool_type == "max" else E.const(0, wide)
        value = E.if_then_else(E.land(*inside), E.cast(wide, data[tuple(at)]), nothing)
        return (te.max if pool_type == "max" else te.sum)(value, axis=ks)

    total = te.compute(shape, body, name=f"adaptive_pool_{pool_type}", tag=f"adaptive_pool_{pool_type}")
    if pool_type == "max":
        return total

    def mean(*idx: Any) -> Any:
        count: Any = 1
        for a in axes:
            low, high = limits(idx[a], a)
            count = count * (high - low)
        return E.cast(data.dtype, E.div(total[idx], E.cast(wide, E.as_expr(count))))

    return te.compute(shape, mean, name="adaptive_pool", tag=tag.ELEMWISE)


def _longest(size: Any, out: Any) -> Any:
    """The longest window of adaptive pooling."""
    if isinstance(size, int) and isinstance(out, int):
        return max(-(-(p + 1) * size // out) - p * size // out for p in range(out))
    return dims.dim(E.ceildiv(E.as_expr(size), out) + 1)


def adaptive_pool1d(data: te.Tensor, output_size: Any, pool_type: str, layout: str = "NCW") -> Any:
    """Pooling whose windows divide W into `output_size` parts."""
    return _adaptive("adaptive_pool1d", data, output_size, pool_type, layout)


def adaptive_pool(data: te.Tensor, output_size: Any, pool_type: str, layout: str = "NCHW") -> Any:
    """Pooling whose windows divide H and W into `output_size` parts."""
    return _adaptive("adaptive_pool", data, output_size, pool_type, layout)


def adaptive_pool3d(data: te.Tensor, output_size: Any, pool_type: str, layout: str = "NCDHW") -> Any:
    """Pooling whose windows divide D, H and W into `output_size` parts."""
    return _adaptive("adaptive_pool3d", data, output_size, pool_type, layout)
