"""Depthwise convolution: each channel by its own kernels."""

from __future__ import annotations

from typing import Any

from warpbeam.te import tensor as te
from warpbeam.topi.common import Caller, agree
from warpbeam.topi.nn.common import arrange, geometry, layout_map, pad_stage, reduce_vars, sum_stage, window_out
from warpbeam.topi.nn.utils import pad_pair


def _depthwise(
    data: te.Tensor, kernel: te.Tensor, stride: Any, padding: Any, dilation: Any, out_dtype: str | None,
    layout: str, kernel_layout: str, name: str,
) -> Any:  # fmt: skip
    """Output channel o reads input channel o // M by kernel (o // M, o % M), M being the multiplier."""
    who = Caller(f"nn.{name}")
    at, where = layout_map(who, layout, "NCHW"), layout_map(who, kernel_layout, "CMHW")
    sizes = [kernel.shape[where[c]] for c in "HW"]
    moves = geometry(who, 2, stride, pad_pair(who, padding, sizes, dilation), dilation)
    channels = agree(who, data.shape[at["C"]], kernel.shape[where["C"]], "channels of data and kernel")
    multiplier = kernel.shape[where["M"]]
    shape = {"N": data.shape[at["N"]], "C": channels * multiplier}
    before, after = [0] * 4, [0] * 4
    for i, c in enumerate("HW"):
        steps = moves.strides[i], moves.dilation[i], moves.begins[i], moves.ends[i]
        shape[c] = window_out(who, data.shape[at[c]], sizes[i], *steps, ceil=False)
        before[at[c]], after[at[c]] = moves.begins[i], moves.ends[i]
    padded = pad_stage(data, before, after, 0)
    axes, taps = reduce_vars(sizes, ["kh", "kw"])

    def body(convert: Any, *idx: Any) -> Any:
        own = {c: idx[a] for c, a in at.items()}
        channel, copy = own["C"] // multiplier, own["C"] % multiplier
        source = {"N": own["N"], "C": channel}
        weight = {"C": channel, "M": copy}
        for i, c in enumerate("HW"):
            source[c] = own[c] * moves.strides[i] + taps[i] * moves.dilation[i]
            weight[c] = taps[i]
        return convert(padded[arrange(at, source)]) * convert(kernel[arrange(where, weight)])

    return sum_stage(arrange(at, shape), axes, body, out_dtype or data.dtype, "depthwise", name)


def depthwise_conv2d_nchw(
    Input: te.Tensor, Filter: te.Tensor, stride: Any, padding: Any, dilation: Any = 1, out_dtype: str | None = None
) -> Any:
    """Input (N, C, H, W) by Filter (C, multiplier, H, W): (N, C * multiplier, …)."""
    name = "depthwise_conv2d_nchw"
    return _depthwise(Input, Filter, stride, padding, dilation, out_dtype, "NCHW", "CMHW", name)


def depthwise_conv2d_nhwc(
    Input: te.Tensor, Filter: te.Tensor, stride: Any, padding: Any, dilation: Any = 1, out_dtype: str | None = None
) -> Any:
    """Input (N, H, W, C) by Filter (H, W, C, multiplier): (…, C * multiplier)."""
    name = "depthwise_conv2d_nhwc"
    return _depthwise(Input, Filter, stride, padding, dilation, out_dtype, "NHWC", "HWCM", name)
