"""Blocks of space moved into channels and back, and enlarging images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.topi import dims, tag
from warpbeam.topi.common import Caller, Who, wide


def from_layout(who: Who, values: Sequence[Any], layout: str) -> tuple[Any, ...]:
    """Values given in `layout`, in the order N, C, H, W."""
    if len(values) != 4:
        raise who.error(f"takes a tensor with 4 dimensions, got {len(values)}")
    if layout not in ("NCHW", "NHWC"):
        raise who.error(f"layout {layout!r}", "NCHW or NHWC")
    return tuple(values[layout.index(k)] for k in "NCHW")


def to_layout(values: Sequence[Any], layout: str) -> tuple[Any, ...]:
    """Values given as N, C, H, W in the order of `layout`."""
    return tuple(values["NCHW".index(k)] for k in layout)


def depth_shape(who: Who, shape: Sequence[Any], b: int, layout: str) -> tuple[Any, ...]:
    """The shape after blocks of b x b channels moved into space."""
    n, c, h, w = from_layout(who, shape, layout)
    left = dims.exact_div(c, b * b)
    if not dims.same(dims.prod((left, b * b)), c):
        raise who.error(f"{dims.text(c)} channels do not divide by {b} squared")
    return to_layout((n, left, dims.prod((h, b)), dims.prod((w, b))), layout)


def depth_to_space(data: te.Tensor, block_size: int, layout: str = "NCHW", mode: str = "DCR") -> Any:
    """Channels moved into blocks of space. mode "DCR": the block is the outer part of the channel, "CRD": the inner."""
    who, b = Caller("nn.depth_to_space"), block_size
    shape = depth_shape(who, data.shape, b, layout)
    channels = from_layout(who, shape, layout)[1]

    def element(*index: Any) -> Any:
        n, c, h, w = from_layout(who, index, layout)
        block = E.floormod(h, b) * b + E.floormod(w, b)
        from_c = block * channels + c if mode == "DCR" else c * (b * b) + block
        return data[to_layout((n, from_c, E.floordiv(h, b), E.floordiv(w, b)), layout)]

    return te.compute(shape, element, name="depth_to_space", tag=tag.INJECTIVE)


def space_shape(who: Who, shape: Sequence[Any], b: int, layout: str) -> tuple[Any, ...]:
    """The shape after blocks of b x b positions moved into channels."""
    n, c, h, w = from_layout(who, shape, layout)
    small = [dims.exact_div(v, b) for v in (h, w)]
    if not all(dims.same(dims.prod((s, b)), v) for s, v in zip(small, (h, w), strict=True)):
        raise who.error(f"{dims.text(h)} x {dims.text(w)} does not divide into blocks of {b}")
    return to_layout((n, dims.prod((c, b * b)), *small), layout)


def space_to_depth(data: te.Tensor, block_size: int, layout: str = "NCHW", mode: str = "DCR") -> Any:
    """Blocks of space moved into channels. mode "DCR": the block is the outer part of the channel, "CRD": the inner."""
    who, b = Caller("nn.space_to_depth"), block_size
    shape = space_shape(who, data.shape, b, layout)
    channels = from_layout(who, data.shape, layout)[1]

    def element(*index: Any) -> Any:
        n, c, h, w = from_layout(who, index, layout)
        outer = mode == "DCR"
        block = E.floordiv(c, channels) if outer else E.floormod(c, b * b)
        from_c = E.floormod(c, channels) if outer else E.floordiv(c, b * b)
        at = (n, from_c, h * b + E.floordiv(block, b), w * b + E.floormod(block, b))
        return data[to_layout(at, layout)]

    return te.compute(shape, element, name="space_to_depth", tag=tag.INJECTIVE)


def upsampling(
    data: te.Tensor,
    scale_h: float,
    scale_w: float,
    layout: str = "NCHW",
    method: str = "nearest_neighbor",
    align_corners: bool = False,
    output_shape: Sequence[Any] | None = None,
) -> Any:
    """Images enlarged by `scale_h` and `scale_w` (rounded), or to output_shape (H, W).

    method: "nearest_neighbor" (position floor(p·in/out)) or "bilinear" (p·in/out, clamped at the border; with
    align_corners p·(in-1)/(out-1)).
    """
    who = Caller("nn.upsampling")
    n, c, h, w = from_layout(who, data.shape, layout)
    if output_shape is not None:
        big = tuple(output_shape)
    elif isinstance(h, int) and isinstance(w, int):
        big = round(h * scale_h), round(w * scale_w)
    elif float(scale_h).is_integer() and float(scale_w).is_integer():
        big = dims.dim(h * int(scale_h)), dims.dim(w * int(scale_w))
    else:
        raise who.error("a fractional scale of a symbolic size", "give output_shape")
    shape = to_layout((n, c, *big), layout)
    if method == "nearest_neighbor":

        def nearest(*index: Any) -> Any:
            b, k, y, x = from_layout(who, index, layout)
            return data[to_layout((b, k, y * h // big[0], x * w // big[1]), layout)]

        return te.compute(shape, nearest, name="upsampling", tag=tag.INJECTIVE)
    if method != "bilinear":
        raise who.error(f"method {method!r}", "nearest_neighbor or bilinear")
    inner = wide(data.dtype)

    def linear(*index: Any) -> Any:
        b, k, y, x = from_layout(who, index, layout)
        rows, columns = (
            _between(p, size, out, align_corners, inner) for p, size, out in zip((y, x), (h, w), big, strict=True)
        )

        def row(at: Any) -> Any:
            low, high, part = columns
            left, right = (E.cast(inner, data[to_layout((b, k, at, p), layout)]) for p in (low, high))
            return left + (right - left) * part

        top, bottom, part = rows
        first = row(top)
        return E.cast(data.dtype, first + (row(bottom) - first) * part)

    return te.compute(shape, linear, name="upsampling", tag=tag.INJECTIVE)


def _between(p: Any, size: Any, out: Any, align: bool, dtype: str) -> tuple[Any, Any, Any]:
    """(lower neighbour, upper neighbour, how far from the lower) of position p of an enlarged axis."""
    top, bottom = (
        (E.as_expr(size) - 1, E.maximum(E.as_expr(out) - 1, 1)) if align else (E.as_expr(size), E.as_expr(out))
    )
    low = p * top // bottom
    part = E.div(E.cast(dtype, p * top % bottom), E.cast(dtype, bottom))
    return low, E.minimum(low + 1, E.as_expr(size) - 1), part
