"""Convolution over one to three spatial dimensions, any permutation of the layout letters.

One reduction over (kernel positions, input channels) with affine indices; a border of zeros is a stage of its own and
only there where padding is asked for. Half floats accumulate in float32.

Common parameters: strides and dilation are numbers or one per spatial dimension; padding is a number, one per
dimension, begins followed by ends, "VALID" (none) or "SAME" (as many positions as elements at stride 1).
out_dtype: the result's and accumulator's dtype, None for the data's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warpbeam.te import tensor as te
from warpbeam.topi import dims
from warpbeam.topi.common import Caller, Who, agree
from warpbeam.topi.nn.common import (
    Geometry,
    Layout,
    arrange,
    geometry,
    layout_map,
    pad_stage,
    reduce_vars,
    spatial_letters,
    sum_stage,
    window_out,
)
from warpbeam.topi.nn.utils import pad_pair

Maps = tuple[Layout, Layout, Layout]


def conv_maps(who: Who, nd: int, data: str, kernel: str, out: str) -> Maps:
    """Letter -> axis of data (N, C, spatial), kernel (O, I, spatial) and result."""
    s = spatial_letters(nd)
    return layout_map(who, data, "NC" + s), layout_map(who, kernel, "OI" + s), layout_map(who, out or data, "NC" + s)


def conv_shape(
    who: Who, x: Sequence[Any], w: Sequence[Any], maps: Maps, moves: Geometry, groups: int
) -> tuple[Any, ...]:
    """The result's shape."""
    data, kernel, out = maps
    outs = w[kernel["O"]]
    if isinstance(outs, int) and outs % groups:
        raise who.error(f"{outs} output channels do not divide into {groups} groups")
    sizes = {"N": x[data["N"]], "C": outs}
    for i, c in enumerate(spatial_letters(len(moves.strides))):
        args = moves.strides[i], moves.dilation[i], moves.begins[i], moves.ends[i]
        sizes[c] = window_out(who, x[data[c]], w[kernel[c]], *args, ceil=False)
    return arrange(out, sizes)


def convolve(
    x: Any, w: Any, maps: Maps, moves: Geometry, groups: int, shape: Sequence[Any], dtype: str, label: str = ""
) -> Any:
    """out[n, o, p…] = sum over k…, i of x[n, i, p·stride + k·dilation - begin…] * w[o, i, k…], as te stages."""
    data, kernel, out = maps
    strides, dilation, begins, ends = moves
    letters = spatial_letters(len(strides))
    before, after = [0] * x.ndim, [0] * x.ndim
    for c, b, a in zip(letters, begins, ends, strict=True):
        before[data[c]], after[data[c]] = b, a
    padded = pad_stage(x, before, after, 0)
    per_group = dims.exact_div(w.shape[kernel["O"]], groups)
    in_group = w.shape[kernel["I"]]
    names = ["k" + c.lower() for c in letters] + ["ic"]
    axes, where = reduce_vars([w.shape[kernel[c]] for c in letters] + [in_group], names)

    def body(convert: Any, *idx: Any) -> Any:
        at = {c: idx[a] for c, a in out.items()}
        channel = where[-1]
        if groups != 1:
            channel = (at["C"] // per_group) * in_group + channel
        source = {"N": at["N"], "C": channel}
        weight = {"O": at["C"], "I": where[-1]}
        for i, c in enumerate(letters):
            source[c] = at[c] * strides[i] + where[i] * dilation[i]
            weight[c] = where[i]
        return convert(padded[arrange(data, source)]) * convert(w[arrange(kernel, weight)])

    return sum_stage(shape, axes, body, dtype, "conv", label)


def conv(
    data: te.Tensor,
    kernel: te.Tensor,
    strides: Any,
    padding: Any,
    dilation: Any = 1,
    groups: int = 1,
    data_layout: str = "",
    kernel_layout: str = "",
    out_dtype: str | None = None,
    name: str = "conv",
    tag: str = "",
) -> Any:
    """Convolution of data (N, C, spatial) by kernel (O, C / groups, spatial) in any layouts.

    data_layout: "" for channels first. kernel_layout: "" for what goes with the data's (OIHW or HWIO).
    """
    nd, who = data.ndim - 2, Caller(f"nn.{name}")
    if not 1 <= nd <= 3 or kernel.ndim != data.ndim:
        raise who.error(f"takes data and kernel of 3 to 5 dimensions, got {data.ndim} and {kernel.ndim}")
    s = spatial_letters(nd)
    data_layout = data_layout or "NC" + s
    if not kernel_layout:
        kernel_layout = "OI" + s if data_layout.index("C") == 1 else s + "IO"
    maps = conv_maps(who, nd, data_layout, kernel_layout, "")
    sizes = [kernel.shape[maps[1][c]] for c in s]
    moves = geometry(who, nd, strides, pad_pair(who, padding, sizes, dilation), dilation)
    channels = kernel.shape[maps[1]["I"]] * groups
    agree(who, data.shape[maps[0]["C"]], channels, "input channels and kernel channels times groups")
    shape = conv_shape(who, data.shape, kernel.shape, maps, moves, groups)
    return convolve(data, kernel, maps, moves, groups, shape, out_dtype or data.dtype, tag)


def conv1d(
    data: te.Tensor,
    kernel: te.Tensor,
    strides: Any = 1,
    padding: Any = "VALID",
    dilation: Any = 1,
    groups: int = 1,
    data_layout: str = "NCW",
    kernel_layout: str = "",
    out_dtype: str | None = None,
) -> Any:
    """1-D convolution in a layout of N, C, W."""
    return conv(data, kernel, strides, padding, dilation, groups, data_layout, kernel_layout, out_dtype, "conv1d")


def conv1d_ncw(
    data: te.Tensor, kernel: te.Tensor, strides: Any = 1, padding: Any = "VALID", dilation: Any = 1,
    groups: int = 1, out_dtype: str | None = None,
) -> Any:  # fmt: skip
    """data (N, C, W) by kernel (O, C, W)."""
    return conv(data, kernel, strides, padding, dilation, groups, "NCW", "OIW", out_dtype, "conv1d_ncw", "conv1d_ncw")


def conv1d_nwc(
    data: te.Tensor, kernel: te.Tensor, strides: Any = 1, padding: Any = "VALID", dilation: Any = 1,
    groups: int = 1, out_dtype: str | None = None,
) -> Any:  # fmt: skip
    """data (N, W, C) by kernel (W, C, O)."""
    return conv(data, kernel, strides, padding, dilation, groups, "NWC", "WIO", out_dtype, "conv1d_nwc", "conv1d_nwc")


def conv2d(
    data: te.Tensor,
    kernel: te.Tensor,
    strides: Any,
    padding: Any,
    dilation: Any,
    data_layout: str = "NCHW",
    kernel_layout: str = "",
    out_dtype: str | None = None,
) -> Any:
    """2-D convolution in a layout of N, C, H, W."""
    label = f"conv2d_{data_layout.lower()}"
    return conv(data, kernel, strides, padding, dilation, 1, data_layout, kernel_layout, out_dtype, "conv2d", label)


def conv2d_nchw(
    Input: te.Tensor, Filter: te.Tensor, stride: Any, padding: Any, dilation: Any = 1, out_dtype: str | None = None
) -> Any:
    """Input (N, C, H, W) by Filter (O, C, H, W)."""
    return conv(Input, Filter, stride, padding, dilation, 1, "NCHW", "OIHW", out_dtype, "conv2d_nchw", "conv2d_nchw")


def conv2d_nhwc(
    Input: te.Tensor, Filter: te.Tensor, stride: Any, padding: Any, dilation: Any = 1, out_dtype: str | None = None
) -> Any:
    """Input (N, H, W, C) by Filter (H, W, C, O)."""
    return conv(Input, Filter, stride, padding, dilation, 1, "NHWC", "HWIO", out_dtype, "conv2d_nhwc", "conv2d_nhwc")


def conv2d_hwcn(
    Input: te.Tensor, Filter: te.Tensor, stride: Any, padding: Any, dilation: Any = 1, out_dtype: str | None = None
) -> Any:
    """Input (H, W, C, N) by Filter (H, W, C, O)."""
    return conv(Input, Filter, stride, padding, dilation, 1, "HWCN", "HWIO", out_dtype, "conv2d_hwcn", "conv2d_hwcn")


def group_conv2d_nchw(
    Input: te.Tensor, Filter: te.Tensor, stride: Any, padding: Any, dilation: Any, groups: int,
    out_dtype: str | None = None,
) -> Any:  # fmt: skip
    """Input (N, C, H, W) by Filter (O, C / groups, H, W): output channels read their own group of input channels."""
    name = "group_conv2d_nchw"
    return conv(Input, Filter, stride, padding, dilation, groups, "NCHW", "OIHW", out_dtype, name, name)


def group_conv2d_nhwc(
    Input: te.Tensor, Filter: te.Tensor, stride: Any, padding: Any, dilation: Any, groups: int,
    out_dtype: str | None = None,
) -> Any:  # fmt: skip
    """Input (N, H, W, C) by Filter (H, W, C / groups, O)."""
    name = "group_conv2d_nhwc"
    return conv(Input, Filter, stride, padding, dilation, groups, "NHWC", "HWIO", out_dtype, name, name)


def conv3d_ncdhw(
    Input: te.Tensor, Filter: te.Tensor, stride: Any, padding: Any, dilation: Any = 1, groups: int = 1,
    out_dtype: str | None = None,
) -> Any:  # fmt: skip
    """Input (N, C, D, H, W) by Filter (O, C, D, H, W)."""
    name = "conv3d_ncdhw"
    return conv(Input, Filter, stride, padding, dilation, groups, "NCDHW", "OIDHW", out_dtype, name, name)


def conv3d_ndhwc(
    Input: te.Tensor, Filter: te.Tensor, stride: Any, padding: Any, dilation: Any = 1, groups: int = 1,
    out_dtype: str | None = None,
) -> Any:  # fmt: skip
    """Input (N, D, H, W, C) by Filter (D, H, W, C, O)."""
    name = "conv3d_ndhwc"
    return conv(Input, Filter, stride, padding, dilation, groups, "NDHWC", "DHWIO", out_dtype, name, name)
