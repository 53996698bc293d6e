"""References in NumPy for computations of the library, by their definitions, and the schedules of a target by name."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from warpbeam.topi.common import Caller
from warpbeam.topi.nn.common import split_padding, tuple_of
from warpbeam.topi.nn.utils import pad_pair


def conv_python(data: Any, kernel: Any, stride: Any, padding: Any, dilation: Any = 1, groups: int = 1) -> Any:
    """Convolution of data (N, C, spatial) by kernel (O, C / groups, spatial): one product per kernel position."""
    nd, who = data.ndim - 2, Caller("testing.conv_python")
    steps, spread = tuple_of(stride, nd), tuple_of(dilation, nd)
    begins, ends = split_padding(who, pad_pair(who, padding, kernel.shape[2:], spread), nd)
    data = np.pad(data, [(0, 0), (0, 0), *zip(begins, ends, strict=True)])
    n, c, *sizes = data.shape
    o, i, *taps = kernel.shape
    out_sizes = [(s - (k - 1) * d - 1) // st + 1 for s, k, d, st in zip(sizes, taps, spread, steps, strict=True)]
    out = np.zeros((n, groups, o // groups, int(np.prod(out_sizes))), np.result_type(data, kernel))
    for place in itertools.product(*map(range, taps)):
        cut = tuple(
            slice(p * d, p * d + (m - 1) * s + 1, s) for p, d, m, s in zip(place, spread, out_sizes, steps, strict=True)
        )
        part = data[(slice(None), slice(None), *cut)].reshape(n, groups, c // groups, -1)
        out += kernel[(slice(None), slice(None), *place)].reshape(groups, o // groups, i) @ part
    return out.reshape(n, o, *out_sizes)


def conv2d_nchw_python(a_np: Any, w_np: Any, stride: Any, padding: Any, groups: int = 1) -> Any:
    """a_np (N, C, H, W) by w_np (O, C / groups, H, W)."""
    return conv_python(a_np, w_np, stride, padding, 1, groups)


def conv2d_nhwc_python(a_np: Any, w_np: Any, stride: Any, padding: Any, groups: int = 1) -> Any:
    """a_np (N, H, W, C) by w_np (H, W, C / groups, O)."""
    out = conv_python(a_np.transpose(0, 3, 1, 2), w_np.transpose(3, 2, 0, 1), stride, padding, 1, groups)
    return out.transpose(0, 2, 3, 1)


def conv2d_hwcn_python(a_np: Any, w_np: Any, stride: Any, padding: Any) -> Any:
    """a_np (H, W, C, N) by w_np (H, W, C, O)."""
    out = conv_python(a_np.transpose(3, 2, 0, 1), w_np.transpose(3, 2, 0, 1), stride, padding)
    return out.transpose(2, 3, 1, 0)


def conv1d_ncw_python(a_np: Any, w_np: Any, stride: Any, padding: Any, dilation: Any = 1) -> Any:
    """a_np (N, C, W) by w_np (O, C, W)."""
    return conv_python(a_np, w_np, stride, padding, dilation)


def conv3d_ncdhw_python(a_np: Any, w_np: Any, stride: Any, padding: Any, groups: int = 1) -> Any:
    """a_np (N, C, D, H, W) by w_np (O, C / groups, D, H, W)."""
    return conv_python(a_np, w_np, stride, padding, 1, groups)


def depthwise_conv2d_python_nchw(input_np: Any, filter_np: Any, stride: Any, padding: Any) -> Any:
    """input_np (N, C, H, W) by filter_np (C, multiplier, H, W)."""
    channels, multiplier, *taps = filter_np.shape
    kernel = filter_np.reshape(channels * multiplier, 1, *taps)
    return conv_python(input_np, kernel, stride, padding, 1, channels)


def depthwise_conv2d_python_nhwc(input_np: Any, filter_np: Any, stride: Any, padding: Any) -> Any:
    """input_np (N, H, W, C) by filter_np (H, W, C, multiplier)."""
    kernel = filter_np.transpose(2, 3, 0, 1)
    return depthwise_conv2d_python_nchw(input_np.transpose(0, 3, 1, 2), kernel, stride, padding).transpose(0, 2, 3, 1)


def conv2d_transpose_nchw_python(a_np: Any, w_np: Any, stride: Any, padding: Any, output_padding: Any = 0) -> Any:
    """a_np (N, C, H, W) by w_np (C, O, H, W): the gradient of a convolution by its data."""
    steps, extra, who = tuple_of(stride, 2), tuple_of(output_padding, 2), Caller("testing.conv2d_transpose")
    begins, ends = split_padding(who, pad_pair(who, padding, w_np.shape[2:]), 2)
    spread = dilate_python(a_np, (1, 1, *steps))
    room = [k - 1 for k in w_np.shape[2:]]
    around = [r - b for r, b in zip(room, begins)] + [r - e + x for r, e, x in zip(room, ends, extra)]
    return conv_python(spread, w_np.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1], 1, around)


def dilate_python(input_np: Any, strides: Any, dilation_value: Any = 0) -> Any:
    """strides[d] - 1 elements of `dilation_value` between neighbours along each axis."""
    shape = [(n - 1) * s + 1 for n, s in zip(input_np.shape, strides, strict=True)]
    out = np.full(shape, dilation_value, input_np.dtype)
    out[tuple(slice(None, None, s) for s in strides)] = input_np
    return out


def softmax_python(a_np: Any, axis: int = -1) -> Any:
    """exp(a - max) / sum exp(a - max) along `axis`."""
    e = np.exp(a_np - a_np.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def log_softmax_python(a_np: Any, axis: int = -1) -> Any:
    """log of softmax_python."""
    shifted = a_np - a_np.max(axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def dense(x: Any, y: Any, bias: Any = None, use_bias: bool = False, use_relu: bool = False) -> Any:
    """x (…, K) by y (N, K), with bias and ReLU if asked for."""
    out = x @ y.T
    out = out + bias if use_bias else out
    return np.maximum(out, 0) if use_relu else out


def batch_matmul(x: Any, y: Any, out_dtype: Any = None) -> Any:
    """x (B, M, K) by y (B, N, K)."""
    out = x @ y.transpose(0, 2, 1)
    return out if out_dtype is None else out.astype(out_dtype)


def lrn_python(a_np: Any, size: int, axis: int, bias: float, alpha: float, beta: float) -> Any:
    """a / (bias + alpha/size * sum of squares over `size` neighbours along `axis`)^beta."""
    pads = [(0, 0)] * a_np.ndim
    pads[axis] = ((size - 1) // 2, size // 2)
    padded = np.pad(a_np * a_np, pads)
    total = sum(np.take(padded, range(k, k + a_np.shape[axis]), axis=axis) for k in range(size))
    return a_np / (bias + alpha / size * total) ** beta


def _schedules(target: Any) -> Any:
    import importlib

    from warpbeam.target import Target

    kind = str((Target(target) if isinstance(target, str) else target).kind)
    place = {"cuda": "cuda", "opencl": "cuda", "llvm": "x86"}.get(kind, "generic")
    return importlib.import_module(f"warpbeam.topi.{place}")


def get_injective_schedule(target: Any) -> Callable[[Any], Any]:
    """The schedule of injective computations for a target."""
    return _schedules(target).schedule_injective  # type: ignore[no-any-return]


get_broadcast_schedule = get_elemwise_schedule = get_injective_schedule


def get_reduce_schedule(target: Any) -> Callable[[Any], Any]:
    """The schedule of reductions for a target."""
    return _schedules(target).schedule_reduce  # type: ignore[no-any-return]
