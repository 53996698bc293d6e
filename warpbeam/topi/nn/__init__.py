"""Computations of neural networks. Names are loaded on first use."""

from __future__ import annotations

import importlib
from typing import Any

MODULES = ("utils",)

_TABLE = {
    "activation": "relu leaky_relu prelu flatten",
    "convolution": """conv conv1d conv1d_ncw conv1d_nwc conv2d conv2d_hwcn conv2d_nchw conv2d_nhwc conv3d_ncdhw
        conv3d_ndhwc group_conv2d_nchw group_conv2d_nhwc""",
    "conv_blocked": "conv2d_NCHWc conv2d_NCHWc_int8 depthwise_conv2d_NCHWc",
    "depthwise": "depthwise_conv2d_nchw depthwise_conv2d_nhwc",
    "conv_transpose": """conv1d_transpose_ncw conv2d_transpose_nchw conv3d_transpose_ncdhw
        group_conv2d_transpose_nchw""",
    "products": "batch_matmul bias_add dense matmul",
    "norm": """batch_norm group_norm instance_norm layer_norm local_response_norm lrn rms_norm scale_shift_nchw
        scale_shift_nhwc""",
    "padding": "dilate mirror_pad pad",
    "pooling": "adaptive_pool adaptive_pool1d adaptive_pool3d global_pool pool pool1d pool2d pool3d",
    "rowwise": "fast_softmax l2_normalize log_softmax softmax",
    "space": "depth_to_space space_to_depth upsampling",
    "sparse": "sparse_dense",
    "utils": "get_pad_tuple get_pad_tuple1d get_pad_tuple3d",
}

_NAMES = {name: module for module, names in _TABLE.items() for name in names.split()}
__all__ = [*sorted(_NAMES), *MODULES]


def __getattr__(name: str) -> Any:
    value: Any
    if name in MODULES:
        value = importlib.import_module(f"warpbeam.topi.nn.{name}")
    elif name in _NAMES:
        value = getattr(importlib.import_module(f"warpbeam.topi.nn.{_NAMES[name]}"), name)
    else:
        raise AttributeError(f"module 'warpbeam.topi.nn' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
