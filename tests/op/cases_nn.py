"""Cases of windows, products, normalisations: (operator, attributes, operands), random data of fixed seeds."""

from __future__ import annotations

from typing import Any

import numpy as np

Case = tuple[str, dict[str, Any], tuple[np.ndarray, ...]]

RISING = np.arange(12, dtype=np.float32).reshape(1, 2, 6)


def real(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    """Random numbers that depend on the shape alone."""
    seed = np.random.default_rng([len(shape), *shape])
    return np.asarray(seed.standard_normal(shape)).astype(dtype)


def positive(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.asarray(np.abs(real(*shape)) + 0.5).astype(dtype)


def whole(low: int, high: int, *shape: int, dtype: Any = np.int64) -> np.ndarray:
    """Random integers in [low, high)."""
    return np.asarray(np.random.default_rng([7, *shape]).integers(low, high, shape)).astype(dtype)


def _winograd() -> list[Case]:
    transform, conv = (f"nn.contrib_conv2d_winograd_{w}" for w in ("weight_transform", "without_weight_transform"))
    deep_transform, deep = (name.replace("2d", "3d") for name in (transform, conv))
    line_transform, line = (name.replace("2d", "1d") for name in (transform, conv))

    def wide(*shape: int) -> np.ndarray:  # F(4x4) amplifies float32's rounding, which orders of summation change
        return real(*shape, dtype=np.float64)

    return [
        (transform, {"tile_size": 2}, (real(3, 4, 3, 3),)),
        (transform, {"tile_size": 4, "kernel_layout": "HWIO"}, (real(3, 3, 2, 5),)),
        (conv, {"tile_size": 2}, (real(1, 3, 6, 4), real(4, 4, 3, 2))),
        (conv, {"tile_size": 2, "padding": (1, 0, 2, 1)}, (real(2, 3, 6, 5), real(4, 4, 3, 2))),
        (conv, {"tile_size": 2, "padding": 1, "data_layout": "NHWC"}, (real(2, 7, 5, 3), real(4, 4, 3, 4))),
        (conv, {"tile_size": 2, "out_layout": "NHWC"}, (wide(1, 3, 5, 5), wide(4, 4, 3, 2))),
        (conv, {"tile_size": 4, "padding": 1, "data_layout": "NHWC"}, (wide(1, 7, 9, 3), wide(6, 6, 3, 2))),
        (conv, {"tile_size": 2}, (real(1, 3, 6, 4, dtype=np.float16), real(4, 4, 3, 2, dtype=np.float16))),
        (transform, {"tile_size": 2, "stride": 2}, (real(3, 4, 3, 3),)),
        (conv, {"tile_size": 2, "stride": 2}, (real(1, 3, 6, 4), real(5, 5, 3, 2))),
        (conv, {"tile_size": 2, "stride": 2, "padding": (1, 0, 2, 1)}, (real(2, 3, 6, 5), real(5, 5, 3, 2))),
        (conv, {"tile_size": 2, "stride": 2, "data_layout": "NHWC"}, (real(1, 12, 9, 3), real(5, 5, 3, 2))),
        (conv, {"tile_size": 2, "dilation": 2, "padding": (1, 0, 2, 1)}, (real(2, 3, 9, 8), real(4, 4, 3, 2))),
        (conv, {"tile_size": 2, "dilation": (1, 3), "data_layout": "NHWC"}, (real(1, 5, 12, 3), real(4, 4, 3, 2))),
        (conv, {"tile_size": 4, "dilation": (2, 1), "data_layout": "NHWC"}, (wide(1, 11, 7, 3), wide(6, 6, 3, 2))),
        (transform, {"tile_size": 2, "groups": 2}, (real(6, 4, 3, 3),)),
        (transform, {"tile_size": 2, "groups": 3, "kernel_layout": "HWIO"}, (real(3, 3, 4, 6),)),
        (conv, {"tile_size": 2, "groups": 2, "padding": (1, 0, 2, 1)}, (real(2, 6, 6, 5), real(4, 4, 2, 3, 4))),
        (
            conv,
            {"tile_size": 2, "groups": 3, "stride": 2, "data_layout": "NHWC"},
            (real(1, 7, 8, 6), real(5, 5, 3, 2, 1)),
        ),
        (conv, {"tile_size": 2, "groups": 2, "dilation": 2}, (real(1, 4, 9, 8), real(4, 4, 2, 2, 3))),
        (line_transform, {"tile_size": 2, "stride": 2}, (real(3, 4, 3),)),
        (line_transform, {"tile_size": 2, "groups": 2, "kernel_layout": "WIO"}, (real(3, 4, 6),)),
        (line, {"tile_size": 2, "padding": (1, 2)}, (real(2, 3, 7), real(1, 4, 3, 2))),
        (line, {"tile_size": 2, "stride": 2, "data_layout": "NWC"}, (real(1, 9, 3), real(1, 5, 3, 2))),
        (line, {"tile_size": 2, "dilation": 2, "groups": 2}, (real(1, 4, 9), real(1, 4, 2, 2, 3))),
        (transform, {"tile_size": (1, 2)}, (real(3, 4, 1, 3),)),
        (conv, {"tile_size": (1, 2), "padding": (1, 0, 0, 1)}, (real(2, 3, 5, 6), real(1, 4, 3, 2))),
        (conv, {"tile_size": (2, 1), "stride": 2, "data_layout": "NHWC"}, (real(1, 7, 4, 3), real(5, 1, 3, 2))),
        (conv, {"tile_size": (4, 1)}, (wide(1, 3, 9, 4), wide(6, 1, 3, 2))),
        (deep, {"tile_size": 2, "dilation": 2, "padding": 2}, (real(1, 3, 4, 6, 7), real(4, 4, 3, 3, 2))),
        (deep, {"tile_size": 2, "stride": 2, "padding": 1}, (real(1, 3, 4, 6, 7), real(5, 5, 3, 3, 2))),
        (deep_transform, {"tile_size": 2}, (real(3, 4, 2, 3, 3),)),
        (deep_transform, {"tile_size": 4, "kernel_layout": "DHWIO"}, (real(3, 3, 3, 2, 5),)),
        (deep, {"tile_size": 2}, (real(1, 3, 4, 6, 4), real(4, 4, 3, 3, 2))),
        (deep, {"tile_size": 2, "padding": (1, 1, 0, 0, 2, 1)}, (real(2, 3, 2, 6, 5), real(4, 4, 2, 3, 2))),
        (deep, {"tile_size": 2, "padding": 1, "data_layout": "NDHWC"}, (real(2, 3, 7, 5, 3), real(4, 4, 1, 3, 4))),
        (deep, {"tile_size": 4, "out_layout": "NDHWC"}, (wide(1, 3, 4, 7, 9), wide(6, 6, 3, 3, 2))),
    ]  # fmt: skip


def _conv() -> list[Case]:
    x, w = real(2, 4, 9, 7), real(6, 4, 3, 2)
    return [
        ("nn.conv2d", {}, (x, w)),
        ("nn.conv2d", {"padding": (1, 0, 2, 1), "strides": (2, 1), "dilation": (1, 2)}, (x, w)),
        ("nn.conv2d", {"padding": 1, "groups": 2}, (x, real(6, 2, 3, 3))),
        ("nn.conv2d", {"padding": 1, "groups": 4}, (x, real(4, 1, 3, 3))),
        ("nn.conv2d", {"groups": 4, "strides": 2}, (x, real(8, 1, 3, 3))),
        ("nn.conv2d", {}, (x, real(5, 4, 1, 1))),
        (
            "nn.conv2d",
            {"data_layout": "NHWC", "kernel_layout": "HWIO", "padding": (1, 1), "strides": (2, 2)},
            (real(2, 9, 7, 4), real(3, 3, 4, 6)),
        ),
        (
            "nn.conv2d",
            {"data_layout": "NHWC", "kernel_layout": "OHWI", "out_layout": "NCHW", "groups": 2},
            (real(1, 6, 5, 4), real(4, 3, 3, 2)),
        ),
        ("nn.conv2d", {"padding": 1}, (real(1, 3, 6, 5, dtype=np.float16), real(2, 3, 3, 3, dtype=np.float16))),
        ("nn.conv2d", {}, (real(1, 2, 4, 5, dtype=np.float64), real(3, 2, 2, 2, dtype=np.float64))),
        (
            "nn.conv2d",
            {"out_dtype": "int32"},
            (whole(-90, 90, 1, 3, 5, 6, dtype=np.int8), whole(-90, 90, 2, 3, 3, 3, dtype=np.int8)),
        ),
        *_winograd(),
        ("nn.conv1d", {"padding": (2, 1), "dilation": 2}, (real(2, 3, 11), real(5, 3, 3))),
        ("nn.conv1d", {"data_layout": "NWC", "kernel_layout": "WIO"}, (real(2, 11, 3), real(3, 3, 5))),
        ("nn.conv3d", {"padding": 1, "strides": (1, 2, 1)}, (real(1, 2, 4, 5, 6), real(3, 2, 3, 3, 2))),
        (
            "nn.conv3d",
            {"data_layout": "NDHWC", "kernel_layout": "DHWIO"},
            (real(1, 4, 5, 6, 2), real(2, 3, 3, 2, 3)),
        ),
    ]


def _conv_transpose() -> list[Case]:
    t, v = real(2, 4, 5, 6), real(4, 3, 3, 2)
    out: list[Case] = []
    for attrs in (
        {},
        {"strides": 2},
        {"strides": (2, 3), "padding": (1, 0, 0, 1), "output_padding": (1, 2)},
        {"dilation": 2, "padding": 1},
        {"strides": (3, 2), "dilation": (2, 3), "padding": (2, 1)},
    ):
        out.append(("nn.conv2d_transpose", attrs, (t, v)))
    out += [
        ("nn.conv2d_transpose", {"groups": 2, "strides": 2, "padding": 1}, (t, v)),
        (
            "nn.conv2d_transpose",
            {"data_layout": "NHWC", "kernel_layout": "HWIO", "strides": 2},
            (real(1, 5, 6, 4), real(3, 2, 4, 3)),
        ),
        ("nn.conv1d_transpose", {"strides": 3, "output_padding": 1}, (real(1, 3, 7), real(3, 2, 4))),
        ("nn.conv3d_transpose", {"strides": 2, "padding": 1}, (real(1, 2, 3, 4, 2), real(2, 3, 3, 3, 3))),
        (
            "nn.conv2d_transpose",
            {"strides": 2},
            (real(1, 2, 4, 5, dtype=np.float16), real(2, 3, 3, 3, dtype=np.float16)),
        ),
        ("nn.deformable_conv2d", {"padding": 1}, (real(1, 3, 5, 6), real(1, 18, 5, 6), real(2, 3, 3, 3))),
        (
            "nn.deformable_conv2d",
            {"strides": 2, "groups": 2, "deformable_groups": 2, "dilation": (1, 2)},
            (real(2, 4, 7, 9), real(2, 24, 3, 3), real(6, 2, 2, 3), real(2, 12, 3, 3)),
        ),
    ]
    return out


def _matmul() -> list[Case]:
    return [
        ("nn.dense", {}, (real(5, 7), real(3, 7))),
        ("nn.dense", {"units": 3}, (real(2, 4, 7), real(3, 7))),
        ("nn.dense", {"out_dtype": "int32"}, (whole(-9, 9, 4, 6, dtype=np.int8), whole(-9, 9, 3, 6, dtype=np.int8))),
        ("nn.matmul", {}, (real(5, 7), real(7, 3))),
        ("nn.matmul", {"transpose_a": True, "transpose_b": True}, (real(7, 5), real(3, 7))),
        ("nn.matmul", {}, (real(7), real(7, 3))),
        ("nn.matmul", {}, (real(2, 5, 7), real(7))),
        ("nn.matmul", {}, (real(7), real(7))),
        ("nn.matmul", {}, (real(2, 1, 5, 7), real(3, 7, 4))),
        ("nn.matmul", {}, (real(5, 7), real(2, 3, 7, 4))),
        ("nn.matmul", {"transpose_b": True}, (real(3, 5, 7, dtype=np.float16), real(3, 4, 7, dtype=np.float16))),
        ("nn.matmul", {}, (whole(-99, 99, 3, 4), whole(-99, 99, 4, 5))),
        ("nn.batch_matmul", {}, (real(3, 5, 7), real(3, 4, 7))),
        ("nn.batch_matmul", {"transpose_b": False}, (real(3, 5, 7), real(1, 7, 4))),
        ("nn.bias_add", {}, (real(2, 3, 4), real(3))),
        ("nn.bias_add", {"axis": -1}, (real(2, 3, 4), real(4))),
    ]


def _pool() -> list[Case]:
    x = real(2, 3, 9, 8)
    out: list[Case] = []
    for kind in ("max", "avg", "lp"):
        out += [
            (f"nn.{kind}_pool2d", {"pool_size": (3, 2)}, (x,)),
            (f"nn.{kind}_pool2d", {"pool_size": 3, "strides": 2, "padding": (1, 0, 1, 1)}, (x,)),
            (f"nn.{kind}_pool2d", {"pool_size": 3, "strides": 3, "ceil_mode": True, "padding": 1}, (x,)),
            (f"nn.{kind}_pool2d", {"pool_size": (2, 3), "dilation": (2, 1), "strides": 2}, (x,)),
            (f"nn.{kind}_pool2d", {"pool_size": 2, "layout": "NHWC", "strides": 2}, (real(1, 6, 7, 3),)),
            (f"nn.{kind}_pool1d", {"pool_size": 3, "padding": 1}, (real(2, 3, 10),)),
            (f"nn.{kind}_pool3d", {"pool_size": 2, "strides": (1, 2, 2)}, (real(1, 2, 4, 5, 6),)),
        ]
        for nd in (1, 2, 3):
            out.append((f"nn.global_{kind}_pool{nd}d", {}, (real(2, 3, *(5, 4, 3)[:nd]),)))
    include = {"count_include_pad": True, "pool_size": 3, "strides": 2}
    out += [
        ("nn.avg_pool2d", {**include, "padding": 1}, (x,)),
        ("nn.avg_pool2d", {**include, "padding": (1, 0, 0, 1), "ceil_mode": True}, (x,)),
        ("nn.avg_pool2d", {"pool_size": 3, "padding": 1, "dilation": 2, "strides": 2}, (x,)),
        ("nn.lp_pool2d", {"pool_size": 2, "p": 3}, (x,)),
        ("nn.lp_pool2d", {"pool_size": 2, "p": 1}, (x,)),
        ("nn.max_pool2d", {"pool_size": 2, "padding": 1}, (whole(-128, 127, 1, 2, 5, 5, dtype=np.int8),)),
        ("nn.avg_pool2d", {"pool_size": 2}, (real(1, 2, 5, 4, dtype=np.float16),)),
        ("nn.global_avg_pool2d", {"layout": "NHWC"}, (real(2, 5, 4, 3),)),
        ("nn.max_pool_with_indices1d", {"pool_size": 3, "strides": 2, "padding": 1}, (real(2, 3, 9),)),
        ("nn.max_pool_with_indices2d", {"pool_size": 3, "strides": 2, "padding": 1, "ceil_mode": True}, (x,)),
        ("nn.max_pool_with_indices2d", {"pool_size": 2, "column_major": True}, (whole(0, 4, 1, 2, 5, 5),)),
        ("nn.max_pool_with_indices3d", {"pool_size": 2, "dilation": 2}, (real(1, 2, 4, 5, 6),)),
        ("nn.max_pool_places1d", {"pool_size": 2}, (RISING, RISING[..., 1:])),
        ("nn.max_pool_places2d", {"pool_size": (1, 2)}, (RISING[None], RISING[None, ..., 1:])),
        ("nn.max_pool_places3d", {"pool_size": (1, 1, 2)}, (RISING[None, None], RISING[None, None, ..., 1:])),
        ("nn.max_unpool", {"shape": (1, 1, 4, 4)}, (real(1, 1, 2, 2), np.array([[[[0, 3], [9, 14]]]]))),
    ]
    return out


def _norm() -> list[Case]:
    x, c3, c5 = real(2, 3, 4, 5), (real(3), positive(3)), (real(5), positive(5))
    wide = (x * 60 - 200).astype(np.float32)
    out: list[Case] = []
    for name in ("nn.softmax", "nn.log_softmax", "nn.hardmax"):
        out += [(name, {"axis": axis}, (wide,)) for axis in (-1, 1, (1, 2, 3))]
        out += [(name, {}, (real(3, 6, dtype=np.float16),)), (name, {}, (real(3, 6, dtype=np.float64),))]
    out += [
        ("nn.l2_normalize", {"axis": 1}, (x,)),
        ("nn.l2_normalize", {"axis": (2, 3), "eps": 0.1}, (x,)),
        ("nn.lp_normalize", {"axis": 2}, (x,)),
        ("nn.lp_normalize", {"axis": 1, "p": 1}, (np.where(np.abs(x) > 1, x, 0).astype(np.float32),)),
        ("nn.mean_variance_norm", {}, (x,)),
        ("nn.layer_norm", {}, (x, *c5)),
        ("nn.layer_norm", {"axis": (2, 3)}, (x, real(4, 5), real(4, 5))),
        ("nn.layer_norm", {"axis": 1, "center": False}, (x, c3[0])),
        ("nn.layer_norm", {"center": False, "scale": False, "epsilon": 0.1}, (x,)),
        ("nn.layer_norm", {}, tuple(v.astype(np.float16) for v in (x, *c5))),
        ("nn.rms_norm", {}, (x, c5[0])),
        ("nn.rms_norm", {"axis": (1, 2, 3), "scale": False}, (x,)),
        ("nn.instance_norm", {}, (x, *c3)),
        ("nn.instance_norm", {"axis": -1}, (x, *c5)),
        ("nn.group_norm", {"num_groups": 2}, (real(2, 4, 3, 5), real(4), positive(4))),
        ("nn.group_norm", {"num_groups": 2, "axis": -1}, (real(2, 3, 4), real(4), positive(4))),
        ("nn.batch_norm", {}, (x, *c3, real(3), positive(3))),
        ("nn.batch_norm", {"axis": -1, "scale": False}, (x, *c5, real(5), positive(5))),
        ("nn.lrn", {"size": 3, "alpha": 0.1}, (real(2, 7, 3, 3),)),
        ("nn.lrn", {"size": 4, "alpha": 0.1, "axis": -1, "bias": 1.0}, (x,)),
    ]
    return out


def _pad() -> list[Case]:
    x, value = real(4, 5, 3), np.array(2.5, np.float32)
    out: list[Case] = []
    for mode in ("constant", "reflect", "edge", "wrap"):
        for width in (((1, 2), (0, 0), (2, 1)), ((-1, 2), (3, -2), (0, -1))):
            out.append(("nn.pad", {"pad_width": width, "pad_mode": mode}, (x, value)))
    out += [
        ("nn.pad", {"pad_width": ((9, 8),), "pad_mode": "reflect"}, (real(4), value)),
        ("nn.pad", {"pad_width": ((2, 2),), "pad_mode": "reflect"}, (real(1), value)),
        ("nn.pad", {"pad_width": ((9, 8),), "pad_mode": "wrap"}, (real(4), value)),
        ("nn.pad", {"pad_width": ((0, 0),)}, (real(4), value)),
        ("nn.leaky_relu", {"alpha": 0.2}, (x,)),
        ("nn.leaky_relu", {}, (real(4, 5, dtype=np.float16),)),
        ("nn.prelu", {}, (x, real(5))),
        ("nn.prelu", {"axis": -1}, (x, real(3))),
    ]
    return out


def _loss() -> list[Case]:
    x, target, weights = real(3, 5, 2), whole(0, 5, 3, 2), positive(5)
    out: list[Case] = [("nn.nll_loss", {"reduction": r}, (x, target)) for r in ("mean", "sum", "none")]
    out += [("nn.nll_loss", {"reduction": r, "ignore_index": 1}, (x, target, weights)) for r in ("mean", "none")]
    return [*out, ("nn.nll_loss", {}, (real(4, 6), whole(0, 6, 4, dtype=np.int32)))]


CASES: list[Case] = [*_conv(), *_conv_transpose(), *_matmul(), *_pool(), *_norm(), *_pad(), *_loss()]
