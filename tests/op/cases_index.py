"""Cases of gather, scatter, sort, scan, resize, sampling and matrix operators: (operator, attributes, operands)."""

from __future__ import annotations

import numpy as np
from cases_nn import Case, positive, real, whole

X = real(3, 4, 5)


def _gather() -> list[Case]:
    i = np.array([[0, 2], [-1, 1]], np.int64)
    far = np.array([0, 9, -9], np.int32)
    on, off = np.array(3.0, np.float32), np.array(-1.0, np.float32)
    return [
        ("take", {"axis": 1}, (X, i)),
        ("take", {"axis": 0}, (X, np.array(1))),
        ("take", {"axis": -1, "mode": "wrap"}, (X, far)),
        ("take", {"axis": 2}, (X, far)),
        ("take", {}, (X, np.array([0, 59, -1, 200]))),
        ("take", {"axis": 1, "batch_dims": 1}, (X, whole(0, 4, 3, 2))),
        ("take", {"axis": 2, "batch_dims": 2}, (X, whole(0, 5, 3, 4, 2))),
        ("gather", {"axis": 1}, (X, whole(-4, 4, 3, 6, 5))),
        ("gather", {"axis": 0}, (X, whole(0, 3, 2, 2, 3, dtype=np.int32))),
        ("gather_nd", {}, (X, whole(0, 3, 2, 6))),
        ("gather_nd", {"index_last": True}, (X, whole(-3, 3, 6, 3))),
        ("gather_nd", {"index_last": True, "batch_dims": 1}, (X, whole(0, 4, 3, 1))),
        ("gather_nd", {"index_last": True, "batch_dims": 2}, (X, whole(0, 5, 3, 4, 2, 1))),
        ("one_hot", {"depth": 4}, (whole(-5, 5, 2, 3), on, off)),
        ("one_hot", {"depth": 3, "axis": 1}, (whole(0, 3, 2, 3, dtype=np.int32), on, off)),
        ("one_hot", {"depth": 3, "axis": 0, "dtype": "int8"}, (np.array([0, 1, 5]), on, off)),
        ("reverse_sequence", {}, (X, np.array([4, 1, 2]))),
        ("reverse_sequence", {"seq_axis": 0, "batch_axis": 1}, (X, np.array([3, 0, 1, 2]))),
    ]


def _scatter() -> list[Case]:
    out: list[Case] = []
    for kind in ("update", "add", "mul", "min", "max"):
        out += [
            ("scatter_elements", {"axis": 1, "reduction": kind}, (X, whole(-4, 4, 3, 2, 5), real(3, 2, 5))),
            ("scatter_nd", {"mode": kind, "index_last": True}, (X, whole(0, 3, 5, 2), real(5, 5))),
        ]
    return [
        *out,
        ("scatter_elements", {}, (X, whole(-3, 3, 2, 3, 4, dtype=np.int32), real(2, 3, 4))),
        ("scatter_elements", {"reduction": "add"}, (np.zeros(3, np.float16), whole(0, 3, 9), np.ones(9, np.float16))),
        ("scatter_nd", {}, (X, whole(-3, 3, 1, 4), real(4, 4, 5))),
        ("tensor_scatter", {"axis": 1}, (X, real(3, 2, 5), np.array([0, 2, 1]))),
        ("tensor_scatter", {"circular": True}, (X, real(3, 2, 5), np.array([3, 7, 0]))),
    ]


def _order() -> list[Case]:
    nan = np.array([3, np.nan, -1, np.inf, 3, -np.inf, np.nan, 0], np.float32)
    many = whole(0, 9, 4, 37, dtype=np.int32)
    out: list[Case] = []
    for ascending in (True, False):
        out += [
            ("argsort", {"is_ascend": ascending}, (nan,)),
            ("argsort", {"is_ascend": ascending, "dtype": "int64"}, (many,)),
            ("argsort", {"is_ascend": ascending, "axis": 1}, (X,)),
            ("sort", {"is_ascend": ascending, "axis": 0}, (X,)),
            ("topk", {"k": 3, "is_ascend": ascending}, (nan,)),
            ("topk", {"k": 5, "is_ascend": ascending, "ret_type": "indices"}, (many,)),
            ("topk", {"k": 70, "is_ascend": ascending, "dtype": "int64"}, (whole(0, 50, 2, 90),)),
        ]
    out += [
        ("topk", {"k": 2, "axis": 1, "ret_type": "values"}, (X,)),
        ("topk", {"k": 0}, (X,)),
        ("topk", {"k": 5}, (X,)),
    ]
    for name in ("cumsum", "cumprod"):
        out += [
            (name, {"axis": 1}, (X,)),
            (name, {"axis": -1, "exclusive": True}, (X,)),
            (name, {"axis": 0, "reverse": True, "exclusive": True}, (X,)),
            (name, {}, (X,)),
            (name, {"axis": 0, "dtype": "int64"}, (whole(-3, 4, 6, 2, dtype=np.int32),)),
        ]
    return out


def _resize() -> list[Case]:
    x, out = real(1, 2, 6, 5), []
    modes = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric")
    for method in ("nearest_neighbor", "linear", "cubic"):
        for mode in modes:
            for size in ((9, 3), (3, 10)):
                attrs = {"axes": (2, 3), "size": size, "method": method, "coordinate_transformation_mode": mode}
                out.append(("image.resize", attrs, (x,)))
        crop = {"coordinate_transformation_mode": "tf_crop_and_resize", "roi": (0.2, 0.1, 0.7, 1.3)}
        base = {"axes": (2, 3), "size": (4, 6), "method": method}
        out.append(("image.resize", {**base, **crop, "extrapolation_value": 7.0}, (x,)))
    for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil", "simple"):
        attrs = {"axes": (2, 3), "size": (4, 10), "method": "nearest_neighbor", "rounding_method": rounding}
        out.append(("image.resize", {**attrs, "coordinate_transformation_mode": "asymmetric"}, (x,)))
    down = {"axes": (2, 3), "size": (2, 3), "antialias": True}
    return [
        *out,
        ("image.resize", {**down, "method": "linear"}, (x,)),
        ("image.resize", {**down, "method": "cubic", "cubic_exclude": True}, (x,)),
        ("image.resize", {"axes": (3,), "size": (7,), "scales": (1.5,), "method": "linear"}, (x,)),
        ("image.resize", {"axes": (0, 1, 2), "size": (4, 7, 3), "method": "linear"}, (real(3, 4, 5),)),
        ("image.resize", {"axes": (1,), "size": (7,)}, (whole(0, 255, 2, 5, dtype=np.uint8),)),
        ("image.resize", {"axes": (1,), "size": (7,), "method": "cubic"}, (real(2, 5, dtype=np.float16),)),
    ]


def _sample() -> list[Case]:
    out: list[Case] = []
    grid = real(2, 3, 4, 2)
    for method in ("nearest", "linear", "cubic"):
        for padding in ("zeros", "border", "reflection"):
            for corners in (False, True):
                attrs = {"method": method, "padding_mode": padding, "align_corners": corners}
                out.append(("image.grid_sample", attrs, (real(2, 3, 5, 6), grid)))
    boxes = np.array([[0, 0, 4, 4], [1, 1, 7.5, 3], [-3, 2, 20, 9]], np.float32)
    batch = np.array([0, 1, 1])
    rois = np.array([[0, 0, 0, 4, 4], [1, 1, 2, 6, 3], [1, -3, 2, 20, 9]], np.float32)
    for mode in ("avg", "max"):
        for ratio in (0, 2):
            attrs = {"pooled_size": (2, 3), "sample_ratio": ratio, "mode": mode, "half_pixel": ratio == 0}
            out.append(("vision.roi_align", attrs, (real(2, 3, 6, 8), boxes, batch)))
    theta = np.array([[[1, 0.2, 0.1], [0.3, 0.9, -0.2]]], np.float32)
    return [
        *out,
        ("image.grid_sample", {}, (real(1, 2, 3, 4, 5), real(1, 2, 2, 3, 3))),
        ("image.grid_sample", {"method": "cubic"}, (real(1, 2, 3, 4, 5), real(1, 2, 2, 3, 3))),
        ("vision.roi_pool", {"pooled_size": (2, 2), "spatial_scale": 0.7}, (real(2, 3, 6, 8), rois)),
        ("image.affine_grid", {"target_shape": (3, 4)}, (theta,)),
        ("image.affine_grid", {"target_shape": (3, 1), "align_corners": False}, (theta,)),
        ("image.affine_grid", {"target_shape": (2, 3, 2)}, (real(2, 3, 4),)),
    ]


def _linalg() -> list[Case]:
    return [
        ("trilu", {}, (X, np.array(1))),
        ("trilu", {"upper": False}, (X, np.array(-1))),
        ("eye", {"shape": (3, 5), "k": 1}, ()),
        ("eye", {"shape": (4, 2), "k": -2, "dtype": "int32"}, ()),
        ("linalg.det", {}, (real(2, 4, 4),)),
        ("linalg.det", {}, (np.array([[0, 2], [3, 0]], np.float64),)),
        ("linalg.det", {}, (np.zeros((3, 3), np.float32),)),
        ("col2im", {"image_shape": (5, 5), "block_shape": (1, 5), "strides": 1}, (positive(1, 5, 5),)),
        (
            "col2im",
            {"image_shape": (6, 5), "block_shape": (2, 3), "strides": (2, 1), "padding": 1, "dilation": (2, 1)},
            (real(2, 12, 15),),
        ),
    ]


CASES: list[Case] = [*_gather(), *_scatter(), *_order(), *_resize(), *_sample(), *_linalg()]
