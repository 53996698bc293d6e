"""Convolution with channels in blocks: data (N, C/c, H, W, c), kernel (O/o, C/c, H, W, c, o), result (N, O/o, …, o)."""

from __future__ import annotations

from typing import Any

from warpbeam.te import tensor as te
from warpbeam.topi.common import Caller, agree
from warpbeam.topi.nn.common import geometry, pad_stage, reduce_vars, sum_stage, window_out
from warpbeam.topi.nn.utils import pad_pair


def _windows(
    name: str, data: te.Tensor, sizes: Any, stride: Any, padding: Any, dilation: Any
) -> tuple[Any, Any, list[Any]]:
    """(geometry, padded data, positions of the window) of a blocked image."""
    who = Caller(f"nn.{name}")
    moves = geometry(who, 2, stride, pad_pair(who, padding, sizes, dilation), dilation)
    out = []
    for i, size in enumerate(sizes):
        steps = moves.strides[i], moves.dilation[i], moves.begins[i], moves.ends[i]
        out.append(window_out(who, data.shape[2 + i], size, *steps, ceil=False))
    padded = pad_stage(data, [0, 0, *moves.begins, 0], [0, 0, *moves.ends, 0], 0)
    return moves, padded, out


def conv2d_NCHWc(
    data: te.Tensor, kernel: te.Tensor, stride: Any, padding: Any, dilation: Any = 1, layout: str = "NCHWc",
    out_layout: str = "NCHWc", out_dtype: str | None = None,
) -> Any:  # fmt: skip
    """Convolution with channels in blocks; block sizes are those of the operands (layouts only name them)."""
    who, name = Caller("nn.conv2d_NCHWc"), "conv2d_NCHWc"
    agree(who, data.shape[1], kernel.shape[1], "blocks of input channels")
    agree(who, data.shape[4], kernel.shape[4], "input channels of a block")
    moves, padded, out = _windows(name, data, kernel.shape[2:4], stride, padding, dilation)
    extents = [kernel.shape[1], *kernel.shape[2:5]]
    axes, (outer, kh, kw, inner) = reduce_vars(extents, ["ic_outer", "kh", "kw", "ic_inner"])

    def body(convert: Any, n: Any, o: Any, y: Any, x: Any, block: Any) -> Any:
        row = y * moves.strides[0] + kh * moves.dilation[0]
        column = x * moves.strides[1] + kw * moves.dilation[1]
        return convert(padded[n, outer, row, column, inner]) * convert(kernel[o, outer, kh, kw, inner, block])

    shape = (data.shape[0], kernel.shape[0], *out, kernel.shape[5])
    return sum_stage(shape, axes, body, out_dtype or data.dtype, name, name)


def conv2d_NCHWc_int8(
    data: te.Tensor, kernel: te.Tensor, stride: Any, padding: Any, dilation: Any = 1, layout: str = "NCHWc",
    out_layout: str = "NCHWc", out_dtype: str = "int32", n_elems: int = 4,
) -> Any:  # fmt: skip
    """As conv2d_NCHWc, with kernel (O/o, C/c, H, W, c/n_elems, o, n_elems) for instructions of n_elems products."""
    who, name = Caller("nn.conv2d_NCHWc_int8"), "conv2d_NCHWc_int8"
    agree(who, kernel.shape[6], n_elems, "the kernel's last axis and n_elems")
    agree(who, data.shape[4], kernel.shape[4] * n_elems, "input channels of a block")
    moves, padded, out = _windows(name, data, kernel.shape[2:4], stride, padding, dilation)
    extents = [kernel.shape[1], *kernel.shape[2:5], n_elems]
    axes, (outer, kh, kw, group, lane) = reduce_vars(extents, ["ic_outer", "kh", "kw", "ic_group", "ic_lane"])

    def body(convert: Any, n: Any, o: Any, y: Any, x: Any, block: Any) -> Any:
        row = y * moves.strides[0] + kh * moves.dilation[0]
        column = x * moves.strides[1] + kw * moves.dilation[1]
        left = padded[n, outer, row, column, group * n_elems + lane]
        return left.astype(out_dtype) * kernel[o, outer, kh, kw, group, block, lane].astype(out_dtype)

    shape = (data.shape[0], kernel.shape[0], *out, kernel.shape[5])
    return sum_stage(shape, axes, body, out_dtype, name, name)


def depthwise_conv2d_NCHWc(
    Input: te.Tensor, Filter: te.Tensor, stride: Any, padding: Any, dilation: Any = 1, layout: str = "NCHWc",
    out_layout: str = "NCHWc", out_dtype: str | None = None,
) -> Any:  # fmt: skip
    """Each channel by its own kernel (multiplier 1): Filter (C/c, 1, H, W, 1, c)."""
    name = "depthwise_conv2d_NCHWc"
    who = Caller(f"nn.{name}")
    agree(who, Input.shape[1], Filter.shape[0], "blocks of channels")
    agree(who, Input.shape[4], Filter.shape[5], "channels of a block")
    moves, padded, out = _windows(name, Input, Filter.shape[2:4], stride, padding, dilation)
    axes, (kh, kw) = reduce_vars(Filter.shape[2:4], ["kh", "kw"])

    def body(convert: Any, n: Any, c: Any, y: Any, x: Any, block: Any) -> Any:
        row = y * moves.strides[0] + kh * moves.dilation[0]
        column = x * moves.strides[1] + kw * moves.dilation[1]
        return convert(padded[n, c, row, column, block]) * convert(Filter[c, 0, kh, kw, 0, block])

    shape = (Input.shape[0], Filter.shape[0], *out, Input.shape[4])
    return sum_stage(shape, axes, body, out_dtype or Input.dtype, name, name)
