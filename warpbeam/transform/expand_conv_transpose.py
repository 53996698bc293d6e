"""Turns a transposed convolution into a plain one with a tile of outputs per input position, and the weaving of those.

With p + begin = q·s + r (0 <= r < s) only kernel positions s·j + r meet output p, at input q - j: for each remainder r
that is a convolution of stride 1. All of them are one convolution with s times the channels per dimension; its result,
[q][r] side by side and cropped, is the answer. No product with an inserted zero is made, and the convolution is as fast
as any other. Kernels are extended by zeros to a multiple of the stride.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from warpbeam.ir.node import Node
from warpbeam.ir.rewrite import add_origins, origins
from warpbeam.ir.transform import function_pass
from warpbeam.op.nn_common import dim_max, spatial_letters
from warpbeam.op.nn_conv import ConvTransposeNd
from warpbeam.relay.expr import Call, Expr, Function, const
from warpbeam.topi import dims
from warpbeam.transform.graph import call, rewrite_function


@dataclass(frozen=True, slots=True)
class _Axis:
    """One spatial dimension: its letter, stride, dilation, taps per phase, and the borders that the input gets."""

    letter: str
    stride: int
    dilation: int
    size: int  # of the kernel
    taps: int
    before: Any
    after: Any
    crop: Any  # where the result begins among the woven positions


@function_pass(opt_level=2, name="ExpandConvTranspose")
class ExpandConvTranspose:
    """Transposed convolutions with known kernel sizes become convolutions and an interleaving of their channels."""

    def transform_function(self, fn: Function, mod: Any, ctx: Any) -> Function:
        return rewrite_function(fn, expand_call)


def expand_call(node: Node) -> Expr | None:
    """The plain form of a transposed convolution, or None for any other node and for kernels of unknown size."""
    if not isinstance(node, Call) or not isinstance(node.op, ConvTransposeNd):
        return None
    op, attrs, (x, w) = node.op, node.attrs, node.args
    data, kernel, out = op.maps(attrs)
    if data != out or not all(isinstance(d, int) for d in w.ty.shape):
        return None
    axes = _axes(op, attrs, x, w, node.ty)
    weight = _weight(w, kernel, axes, attrs["groups"])
    letters = "".join(a.letter for a in axes)
    borders = [a.before for a in axes] + [a.after for a in axes]
    plain = call(
        f"nn.conv{op.nd}d",
        x,
        weight,
        padding=tuple(borders),
        groups=attrs["groups"],
        data_layout=attrs["data_layout"],
        kernel_layout="OI" + letters,
        out_dtype=attrs["out_dtype"],
    )
    add_origins(plain, origins(node))
    return _woven(plain, data, axes, attrs["groups"], node.ty)


def _axes(op: ConvTransposeNd, attrs: Any, x: Expr, w: Expr, result: Any) -> list[_Axis]:
    data, kernel, out = op.maps(attrs)
    strides, dilation, begins, _ = op.windows(attrs)
    found = []
    for c, s, d, b in zip(spatial_letters(op.nd), strides, dilation, begins, strict=True):
        size = w.ty.shape[kernel[c]]
        taps = -(-((size - 1) * d + 1) // s)
        first = min(b // s, taps - 1) if isinstance(b, int) else 0  # position q that the convolution starts at
        count = dims.dim((result.shape[out[c]] + b - 1) // s + 1 - first)
        before = taps - 1 - first
        after = dim_max(dims.dim(count - x.ty.shape[data[c]] + first), 0)
        found.append(_Axis(c, s, d, size, taps, before, after, dims.dim(b - s * first)))
    return found


def _weight(w: Expr, kernel: dict[str, int], axes: list[_Axis], groups: int) -> Expr:
    """(groups·strides…·out, in / groups, taps…): the kernel of every phase, taps in the order of a convolution."""
    w = call("transpose", w, axes=tuple(kernel[c] for c in "IO") + tuple(kernel[a.letter] for a in axes))
    inputs, outputs = w.ty.shape[:2]
    zero = const(0, w.ty.dtype)
    if any(a.dilation != 1 for a in axes):
        spread = [n for a in axes for n in (a.size, 1)]
        w = call("reshape", w, newshape=(inputs, outputs, *spread))
        w = call(
            "nn.pad", w, zero, pad_width=((0, 0),) * 2 + tuple(p for a in axes for p in ((0, 0), (0, a.dilation - 1)))
        )
        w = call("reshape", w, newshape=(inputs, outputs, *[a.size * a.dilation for a in axes]))
        spans = [(a.size - 1) * a.dilation + 1 for a in axes]
        w = call("strided_slice", w, begin=(0,) * len(spans), end=tuple(spans), strides=(1,) * len(spans),
                 axes=tuple(range(2, w.ty.ndim)))  # fmt: skip
    grow = tuple((0, a.taps * a.stride - n) for a, n in zip(axes, w.ty.shape[2:], strict=True))
    if any(g != (0, 0) for g in grow):
        w = call("nn.pad", w, zero, pad_width=((0, 0), (0, 0), *grow))
    w = call("reshape", w, newshape=(groups, inputs // groups, outputs, *[n for a in axes for n in (a.taps, a.stride)]))
    phase = [4 + 2 * i for i in range(len(axes))]
    tap = [3 + 2 * i for i in range(len(axes))]
    for axis in tap:
        w = call("reverse", w, axis=axis)
    w = call("transpose", w, axes=(0, *phase, 2, 1, *tap))
    total = groups * outputs
    for a in axes:
        total *= a.stride
    return call("reshape", w, newshape=(total, inputs // groups, *[a.taps for a in axes]))


def _woven(y: Expr, data: dict[str, int], axes: list[_Axis], groups: int, result: Any) -> Expr:
    """Channels (group, phases…, out) of `y` moved beside their positions, and the result cut out."""
    order = sorted(data, key=data.__getitem__)
    strides = {a.letter: a.stride for a in axes}
    parts: list[tuple[str, Any]] = []  # (what it is, its size) of y with its channels taken apart
    outputs = result.shape[data["C"]] // groups
    for c in order:
        if c == "C":
            parts += [("G", groups), *[("r" + a.letter, a.stride) for a in axes], ("C", outputs)]
        else:
            parts.append((c, y.ty.shape[data[c]]))
    y = call("reshape", y, newshape=tuple(size for _, size in parts))
    names = [name for name, _ in parts]
    wanted = [p for c in order for p in (("G", "C") if c == "C" else (c, "r" + c) if c in strides else (c,))]
    y = call("transpose", y, axes=tuple(names.index(p) for p in wanted))
    sizes = dict(parts)
    whole = [dims.dim(sizes[c] * strides[c]) if c in strides else result.shape[data[c]] for c in order]
    y = call("reshape", y, newshape=tuple(whole))
    begin = [a.crop for a in axes]
    end = [dims.dim(a.crop + result.shape[data[a.letter]]) for a in axes]
    ones = (1,) * len(axes)
    places = tuple(data[a.letter] for a in axes)
    return call("strided_slice", y, begin=tuple(begin), end=tuple(end), strides=ones, axes=places)
