"""Converters of resizing and sampling operators."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

from warpbeam.frontend.onnx.found import elements, vector
from warpbeam.frontend.onnx.node import NodeView
from warpbeam.frontend.onnx.ops_nn_norm import shape_of
from warpbeam.op import get
from warpbeam.relay.expr import Expr
from warpbeam.topi import dims

Result = Expr | list[Expr]

_METHODS = {"nearest": "nearest_neighbor", "linear": "linear", "cubic": "cubic", "bilinear": "linear"}


def _resized(
    node: NodeView, x: Expr, axes: list[int], sizes: list[Any], scales: list[float] | None, **attrs: Any
) -> Result:
    """One image.resize over the axes whose size or coordinates change."""
    have = shape_of(x)
    crop = attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize"
    roi = attrs.pop("roi", None)
    keep = [
        n
        for n, a in enumerate(axes)
        if crop or not (dims.same(sizes[n], have[a]) is True and (scales is None or scales[n] == 1.0))
    ]
    for n, a in enumerate(axes):
        if isinstance(sizes[n], int) and sizes[n] == 0 and have[a] != 0:
            raise node.unsupported("a result without elements")
    if not keep:
        return x
    picked = None if scales is None else tuple(scales[n] for n in keep)
    window = None if roi is None else tuple([roi[n] for n in keep] + [roi[n + len(axes)] for n in keep])
    return get("image.resize")(
        x,
        size=tuple(sizes[n] for n in keep),
        axes=tuple(axes[n] for n in keep),
        scales=picked,
        roi=window,
        method=_METHODS[node.attr("mode", "nearest")],
        **attrs,
    )


def _scaled_sizes(x: Expr, axes: list[int], scales: list[float]) -> list[Any]:
    """floor(size * scale), the same for sizes that are known and for symbols."""
    out: list[Any] = []
    for a, s in zip(axes, scales, strict=True):
        factor = _meant(s)
        out.append(dims.dim(shape_of(x)[a] * factor.numerator // factor.denominator))
    return out


def _meant(scale: float) -> Fraction:
    """A simple fraction that rounds to this float32 number: 7/10 of 0.69999999, which scales 10 to 7 and not to 6."""
    exact, rounded = Fraction(scale), np.float32(scale)
    simpler = (exact.limit_denominator(1 << k) for k in range(150))  # 2^149 is that of the smallest number
    return next(f for f in simpler if np.float32(float(f)) == rounded)


def _const_floats(node: NodeView, index: int, what: str) -> list[float]:
    found = node.const(index)
    if found is None:
        raise node.unsupported(f"{what} is computed from data at run time")
    return [float(v) for v in found.reshape(-1)]


def upsample_7(node: NodeView, x: Expr) -> Result:
    return _upsample(node, x, [float(s) for s in node.attr("scales")])


def upsample_9(node: NodeView, x: Expr, scales: Expr) -> Result:
    return _upsample(node, x, _const_floats(node, 1, "scales"))


def _upsample(node: NodeView, x: Expr, scales: list[float]) -> Result:
    axes = list(range(len(scales)))
    sizes = _scaled_sizes(x, axes, scales)
    return _resized(node, x, axes, sizes, scales, coordinate_transformation_mode="asymmetric", rounding_method="floor")


def resize_10(node: NodeView, x: Expr, scales: Expr) -> Result:
    """Resize 10: asymmetric coordinates; nearest rounds down when growing and up when shrinking."""
    factors = _const_floats(node, 1, "scales")
    axes = list(range(len(factors)))
    sizes = _scaled_sizes(x, axes, factors)
    return _resized(
        node, x, axes, sizes, factors, coordinate_transformation_mode="asymmetric", rounding_method="simple"
    )


def resize_11(
    node: NodeView, x: Expr, roi: Expr | None = None, scales: Expr | None = None, sizes: Expr | None = None
) -> Result:
    """Resize 11 and later: scales or sizes, axes, aspect ratio policies, regions of interest."""
    rank = len(shape_of(x))
    axes = [int(a) % rank for a in node.attr("axes", range(rank))]
    found = node.const(2)
    factors = [float(v) for v in found.reshape(-1)] if found is not None and found.size else None
    policy = node.attr("keep_aspect_ratio_policy", "stretch")
    if factors is not None:
        wanted = _scaled_sizes(x, axes, factors)
    elif sizes is not None:
        if node.value(3) is None and policy == "stretch" and not node.attr("antialias", 0):
            source = vector(sizes)
            wanted = [node.found.size(node.name, source, k) if v is None else v for k, v in enumerate(elements(source))]
        else:
            wanted = node.ints(3, "sizes")
        if policy != "stretch":
            factors, wanted = _keep_ratio(node, x, axes, wanted, policy)
    else:
        raise node.unsupported("scales computed from data at run time")
    mode = node.attr("coordinate_transformation_mode", "half_pixel")
    attrs: dict[str, Any] = {
        "coordinate_transformation_mode": mode,
        "rounding_method": node.attr("nearest_mode", "round_prefer_floor"),
        "cubic_alpha": float(node.attr("cubic_coeff_a", -0.75)),
        "cubic_exclude": bool(node.attr("exclude_outside", 0)),
        "antialias": bool(node.attr("antialias", 0)),
        "extrapolation_value": float(node.attr("extrapolation_value", 0.0)),
    }
    if mode == "tf_crop_and_resize":
        attrs["roi"] = _const_floats(node, 1, "roi")
    return _resized(node, x, axes, wanted, factors, **attrs)


def _keep_ratio(
    node: NodeView, x: Expr, axes: list[int], wanted: list[Any], policy: str
) -> tuple[list[float], list[Any]]:
    """(one scale for all axes, the sizes it gives, halves rounded up)."""
    have = [shape_of(x)[a] for a in axes]
    if not all(isinstance(v, int) for v in (*have, *wanted)):
        raise node.unsupported("keep_aspect_ratio_policy with a symbolic size")
    ratios = [w / h for w, h in zip(wanted, have, strict=True)]
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    return [scale] * len(axes), [math.floor(scale * h + 0.5) for h in have]


def grid_sample(node: NodeView, x: Expr, grid: Expr) -> Result:
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(node.attr("mode", "linear"), node.attr("mode", "linear"))
    return get("image.grid_sample")(
        x,
        grid,
        method=mode,
        padding_mode=node.attr("padding_mode", "zeros"),
        align_corners=bool(node.attr("align_corners", 0)),
    )


def affine_grid(node: NodeView, theta: Expr, size: Expr) -> Result:
    wanted = node.ints(1, "size")
    return get("image.affine_grid")(
        theta, target_shape=tuple(wanted[2:]), align_corners=bool(node.attr("align_corners", 0))
    )


def _roi_align(default: str) -> Any:
    def convert(node: NodeView, x: Expr, rois: Expr, batch: Expr) -> Result:
        return get("vision.roi_align")(
            x,
            rois,
            batch,
            pooled_size=(int(node.attr("output_height", 1)), int(node.attr("output_width", 1))),
            spatial_scale=float(node.attr("spatial_scale", 1.0)),
            sample_ratio=int(node.attr("sampling_ratio", 0)),
            mode=node.attr("mode", "avg"),
            half_pixel=node.attr("coordinate_transformation_mode", default) == "half_pixel",
        )

    return convert


def max_roi_pool(node: NodeView, x: Expr, rois: Expr) -> Result:
    size = tuple(int(v) for v in node.attr("pooled_shape"))
    return get("vision.roi_pool")(x, rois, pooled_size=size, spatial_scale=float(node.attr("spatial_scale", 1.0)))


TABLE: dict[str, dict[int, Any]] = {
    "Upsample": {7: upsample_7, 9: upsample_9},
    "Resize": {10: resize_10, 11: resize_11},
    "GridSample": {16: grid_sample},
    "AffineGrid": {20: affine_grid},
    "RoiAlign": {10: _roi_align("output_half_pixel"), 16: _roi_align("half_pixel")},
    "MaxRoiPool": {1: max_roi_pool},
}

__all__ = ["TABLE"]
