"""Converters of windowed operators: convolutions and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warpbeam.frontend.onnx.node import NodeView
from warpbeam.op import get
from warpbeam.relay.expr import Expr, TupleGetItem
from warpbeam.tir.expr import maximum
from warpbeam.topi import dims

Result = Expr | list[Expr]


def spatial_rank(node: NodeView, x: Expr) -> int:
    """Number of spatial dimensions, 1 to 3."""
    rank = x.checked_type.ndim - 2  # type: ignore[attr-defined]
    if not 1 <= rank <= 3:
        raise node.unsupported(f"{rank} spatial dimensions (1 to 3 are supported)")
    return int(rank)


def per_axis(node: NodeView, name: str, count: int, default: int = 1) -> tuple[int, ...]:
    """An attribute of one int per spatial dimension."""
    given = node.attr(name, None)
    if given is None or len(given) == 0:
        return (default,) * count
    if len(given) != count:
        raise node.error(f"{name} has {len(given)} values for {count} spatial dimensions")
    return tuple(int(v) for v in given)


def kernel_sizes(node: NodeView, w: Expr) -> tuple[Any, ...]:
    """The window of a convolution: what its weights (outputs, inputs, spatial…) are, and kernel_shape must say."""
    found = tuple(w.checked_type.shape[2:])  # type: ignore[attr-defined]
    given = node.attr("kernel_shape", None)
    if given and (len(given) != len(found) or any(dims.same(a, b) is False for a, b in zip(given, found, strict=True))):
        raise node.error(f"kernel_shape is {list(given)[:8]}, the weights' is {dims.shape_text(found)}")
    return found


def clamp0(value: Any) -> Any:
    """max(value, 0) of a dimension."""
    return max(value, 0) if isinstance(value, int) else dims.dim(maximum(value, 0))


def window_padding(
    node: NodeView, sizes: Sequence[Any], kernel: Sequence[Any], strides: Sequence[int], dilation: Sequence[int]
) -> tuple[Any, ...]:
    """begins then ends, from `pads` or `auto_pad` (SAME: as many outputs as ceil(input / stride))."""
    count, mode = len(sizes), node.attr("auto_pad", "NOTSET") or "NOTSET"
    if mode == "NOTSET":
        return per_axis(node, "pads", 2 * count, 0)
    if mode == "VALID":
        return (0,) * (2 * count)
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise node.error(f"unknown auto_pad {mode!r}")
    begins, ends = [], []
    for size, k, s, d in zip(sizes, kernel, strides, dilation, strict=True):
        out = (size + s - 1) // s
        total = clamp0(dims.dim((out - 1) * s + (k - 1) * d + 1 - size))
        small = dims.dim(total // 2)
        begins.append(small if mode == "SAME_UPPER" else dims.dim(total - small))
        ends.append(dims.dim(total - begins[-1]))
    return (*begins, *ends)


def conv(node: NodeView, x: Expr, w: Expr, b: Expr | None = None) -> Result:
    """Conv, all versions."""
    rank = spatial_rank(node, x)
    kernel = kernel_sizes(node, w)
    strides, dilation = per_axis(node, "strides", rank), per_axis(node, "dilations", rank)
    padding = window_padding(node, x.checked_type.shape[2:], kernel, strides, dilation)  # type: ignore[attr-defined]
    groups = int(node.attr("group", 1))
    y: Expr = get(f"nn.conv{rank}d")(x, w, strides=strides, padding=padding, dilation=dilation, groups=groups)
    return y if b is None else get("nn.bias_add")(y, b, axis=1)


def deform_conv(
    node: NodeView, x: Expr, w: Expr, offset: Expr, b: Expr | None = None, mask: Expr | None = None
) -> Result:
    """DeformConv in two dimensions."""
    if spatial_rank(node, x) != 2:
        raise node.unsupported("other than 2 spatial dimensions")
    y: Expr = get("nn.deformable_conv2d")(
        x,
        offset,
        w,
        *([] if mask is None else [mask]),
        strides=per_axis(node, "strides", 2),
        padding=per_axis(node, "pads", 4, 0),
        dilation=per_axis(node, "dilations", 2),
        groups=int(node.attr("group", 1)),
        deformable_groups=int(node.attr("offset_group", 1)),
    )
    return y if b is None else get("nn.bias_add")(y, b, axis=1)


def conv_transpose(node: NodeView, x: Expr, w: Expr, b: Expr | None = None) -> Result:
    """ConvTranspose, all versions."""
    rank = spatial_rank(node, x)
    sizes, kernel = x.checked_type.shape[2:], kernel_sizes(node, w)  # type: ignore[attr-defined]
    strides, dilation = per_axis(node, "strides", rank), per_axis(node, "dilations", rank)
    extra = list(per_axis(node, "output_padding", rank, 0))
    mode, wanted = node.attr("auto_pad", "NOTSET") or "NOTSET", node.attr("output_shape", None)
    if mode == "VALID":
        padding: Any = (0,) * (2 * rank)
    elif mode == "NOTSET" and not wanted:
        padding = per_axis(node, "pads", 2 * rank, 0)
    else:
        wanted = list(wanted)[-rank:] if wanted else [dims.dim(i * s) for i, s in zip(sizes, strides, strict=True)]
        begins, ends = [], []
        for n in range(rank):
            span = (kernel[n] - 1) * dilation[n] + 1
            total = dims.dim((sizes[n] - 1) * strides[n] + extra[n] + span - wanted[n])
            if isinstance(total, int) and total < 0:
                extra[n], total = extra[n] - total, 0
            half = dims.dim(total // 2)
            begins.append(half if mode == "SAME_UPPER" else dims.dim(total - half))
            ends.append(dims.dim(total - begins[-1]))
        padding = (*begins, *ends)
    y: Expr = get(f"nn.conv{rank}d_transpose")(
        x,
        w,
        strides=strides,
        padding=padding,
        dilation=dilation,
        groups=int(node.attr("group", 1)),
        output_padding=tuple(extra),
    )
    return y if b is None else get("nn.bias_add")(y, b, axis=1)


def _pool_attrs(node: NodeView, x: Expr) -> tuple[int, dict[str, Any]]:
    """(spatial rank, attributes) common to all pooling operators."""
    rank = spatial_rank(node, x)
    kernel = list(per_axis(node, "kernel_shape", rank))
    strides, dilation = list(per_axis(node, "strides", rank)), per_axis(node, "dilations", rank)
    sizes = x.checked_type.shape[2:]  # type: ignore[attr-defined]
    padding = window_padding(node, sizes, kernel, strides, dilation)
    for k, size in enumerate(sizes):
        padded = size + padding[k] + padding[rank + k]
        room = padded - (kernel[k] - 1) * dilation[k] - 1
        if isinstance(room, int) and -strides[k] < room < 0 < padded:
            # ONNX's own quotient, rounded towards 0, says one window: what there is
            kernel[k], strides[k] = (padded - 1) // dilation[k] + 1, max(strides[k], padded)
    return rank, {
        "pool_size": tuple(kernel),
        "strides": tuple(strides),
        "dilation": dilation,
        "padding": padding,
        "ceil_mode": bool(node.attr("ceil_mode", 0)),
    }


def max_pool(node: NodeView, x: Expr) -> Result:
    """MaxPool, with or without its Indices output."""
    rank, attrs = _pool_attrs(node, x)
    if len(node.outputs) < 2 or not node.outputs[1]:
        return get(f"nn.max_pool{rank}d")(x, **attrs)
    both = get(f"nn.max_pool_with_indices{rank}d")(x, column_major=bool(node.attr("storage_order", 0)), **attrs)
    return [TupleGetItem(both, 0), TupleGetItem(both, 1)]


def average_pool(node: NodeView, x: Expr) -> Result:
    rank, attrs = _pool_attrs(node, x)
    include = bool(node.attr("count_include_pad", 0))
    return get(f"nn.avg_pool{rank}d")(x, count_include_pad=include, **attrs)


def lp_pool(node: NodeView, x: Expr) -> Result:
    rank, attrs = _pool_attrs(node, x)
    return get(f"nn.lp_pool{rank}d")(x, p=int(node.attr("p", 2)), **attrs)


def _global(kind: str) -> Any:
    def convert(node: NodeView, x: Expr) -> Result:
        attrs = {"p": int(node.attr("p", 2))} if kind == "lp" else {}
        return get(f"nn.global_{kind}_pool{spatial_rank(node, x)}d")(x, **attrs)

    return convert


def max_unpool(node: NodeView, x: Expr, indices: Expr, output_shape: Expr | None = None) -> Result:
    """MaxUnpool: places count in the shape that the pooling had; a larger output_shape is zeros around it."""
    rank = spatial_rank(node, x)
    kernel, strides = per_axis(node, "kernel_shape", rank), per_axis(node, "strides", rank)
    pads = per_axis(node, "pads", 2 * rank, 0)
    shape = x.checked_type.shape  # type: ignore[attr-defined]
    whole = [dims.dim((shape[n + 2] - 1) * strides[n] - pads[n] - pads[n + rank] + kernel[n]) for n in range(rank)]
    full = (*shape[:2], *whole)
    y: Expr = get("nn.max_unpool")(x, indices, shape=full)
    if output_shape is None:
        return y
    wanted = node.ints(2, "output_shape")
    if all(dims.same(a, b) is True for a, b in zip(wanted, full, strict=True)):
        return y
    from warpbeam.relay.expr import const

    widths = tuple((0, dims.dim(a - b)) for a, b in zip(wanted, full, strict=True))
    return get("nn.pad")(y, const(0, x.checked_type.dtype), pad_width=widths)  # type: ignore[attr-defined]


TABLE: dict[str, dict[int, Any]] = {
    "Conv": {1: conv},
    "DeformConv": {19: deform_conv},
    "ConvTranspose": {1: conv_transpose},
    "MaxPool": {1: max_pool},
    "AveragePool": {1: average_pool},
    "LpPool": {2: lp_pool},
    "GlobalAveragePool": {1: _global("avg")},
    "GlobalMaxPool": {1: _global("max")},
    "GlobalLpPool": {2: _global("lp")},
    "MaxUnpool": {9: max_unpool},
}
