"""NumPy reference of resizing along one axis, written as a dense matrix of weights."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from warpbeam.ir.node import Attrs


def coordinate(o: int, axis: Any, mode: str) -> float:
    """Input coordinate of output position o."""
    scale = axis.scale if axis.scale is not None else axis.out / axis.size
    if mode == "half_pixel":
        return (o + 0.5) / scale - 0.5
    if mode == "half_pixel_symmetric":
        adjustment = axis.out / (axis.size * scale)
        return axis.size / 2 * (1 - adjustment) + (o + 0.5) / scale - 0.5
    if mode == "pytorch_half_pixel":
        return (o + 0.5) / scale - 0.5 if axis.out > 1 else 0.0
    if mode == "align_corners":
        width = axis.out if axis.scale is None else axis.scale * axis.size
        return o * (axis.size - 1) / (width - 1) if width != 1 else 0.0
    if mode == "asymmetric":
        return o / scale
    if mode == "tf_half_pixel_for_nn":
        return (o + 0.5) / scale
    last = axis.size - 1
    if axis.out == 1:
        return 0.5 * (axis.start + axis.end) * last
    return axis.start * last + o * (axis.end - axis.start) * last / (axis.out - 1)


def nearest_place(x: float, rounding: str, scale: float) -> int:
    """Input position of a coordinate."""
    if rounding == "round_prefer_floor":
        return math.ceil(x - 0.5)
    if rounding == "round_prefer_ceil":
        return math.floor(x + 0.5)
    if rounding == "ceil" or (rounding == "simple" and scale < 1):
        return math.ceil(x)
    return math.floor(x)


def kernel(d: float, method: str, a: float) -> float:
    """Interpolation kernel at a distance."""
    d = abs(d)
    if method == "linear":
        return max(0.0, 1.0 - d)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def weights(axis: Any, attrs: Attrs) -> tuple[np.ndarray, np.ndarray]:
    """(matrix out x in, whether a position's coordinate is outside the data)."""
    matrix, outside = np.zeros((axis.out, axis.size)), np.zeros(axis.out, bool)
    method, mode = attrs["method"], attrs["coordinate_transformation_mode"]
    scale = axis.scale if axis.scale is not None else axis.out / axis.size
    stretch = 1 / scale if attrs["antialias"] and scale < 1 else 1.0
    reach = math.ceil((2 if method == "cubic" else 1) * stretch)
    for o in range(axis.out):
        x = coordinate(o, axis, mode)
        outside[o] = x < 0 or x > axis.size - 1
        if method == "nearest_neighbor":
            matrix[o, min(max(nearest_place(x, attrs["rounding_method"], scale), 0), axis.size - 1)] = 1
            continue
        for place in range(math.floor(x) - reach + 1, math.floor(x) + reach + 1):
            w = kernel((place - x) / stretch, method, attrs["cubic_alpha"])
            if 0 <= place < axis.size or not attrs["cubic_exclude"]:
                matrix[o, min(max(place, 0), axis.size - 1)] += w
        matrix[o] /= matrix[o].sum()
    return matrix, outside


def resize_axis(x: np.ndarray, a: int, axis: Any, attrs: Attrs) -> tuple[np.ndarray, np.ndarray]:
    """(data resized along axis a, which output positions lie outside)."""
    matrix, outside = weights(axis, attrs)
    if attrs["method"] == "nearest_neighbor":
        return np.take(x, matrix.argmax(axis=1), axis=a), outside
    return np.moveaxis(np.tensordot(matrix, np.moveaxis(x, a, 0), 1), 0, a), outside
