"""Turns a transposed convolution into a plain one with a tile of outputs per input position, and the weaving of those.

With p + begin = q·s + r (0 <= r < s) only kernel positions s·j + r meet output p, at input q - j: for each remainder r
that is a convolution of stride 1. Along a dimension, either

- all of them are one convolution with s times the channels; its result, [q][r] side by side and cropped, is the answer.
  It has a position more than each of them needs where the remainders begin at different inputs; or
- each is a convolution of its own at exactly its positions.

The first fills vectors where there are few channels, the second makes fewer products over small maps: the products of
both are counted. None with an inserted zero is made, and the convolutions are as fast as any others. Kernels are
extended by zeros to a multiple of the stride.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product as cartesian
from math import prod
from typing import Any

from warpbeam.ir.node import Node
from warpbeam.ir.rewrite import add_origins, origins
from warpbeam.ir.transform import function_pass
from warpbeam.op.nn_common import dim_max, spatial_letters
from warpbeam.op.nn_conv import ConvTransposeNd
from warpbeam.relay.expr import Call, Expr, Function, const
from warpbeam.target import Target, get
from warpbeam.topi import dims
from warpbeam.transform.graph import call, rewrite_function

_CALL = 1 << 17  # products in the time that one more kernel costs


@dataclass(frozen=True, slots=True)
class _Phases:
    """A convolution along one dimension: the remainders that it serves and the borders that the input gets."""

    first: int
    count: int
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class _Axis:
    """One spatial dimension: its letter, stride, dilation, taps per phase, and the convolutions that serve it."""

    letter: str
    stride: int
    dilation: int
    size: int  # of the kernel
    taps: int
    positions: Any  # of each convolution's result
    phases: tuple[_Phases, ...]  # all in one, or each on its own
    crop: Any  # where the result begins among the woven positions

    @property
    def apart(self) -> bool:
        return len(self.phases) > 1


@function_pass(opt_level=2, name="ExpandConvTranspose")
class ExpandConvTranspose:
    """Transposed convolutions with known kernel sizes become convolutions and an interleaving of their channels."""

    def __init__(self, target: Target | None = None) -> None:
        self.target = get("native") if target is None else target

    def transform_function(self, fn: Function, mod: Any, ctx: Any) -> Function:
        return rewrite_function(fn, lambda node: expand_call(node, self.target))


def expand_call(node: Node, target: Target) -> Expr | None:
    """The plain form of a transposed convolution, or None for any other node and for kernels of unknown size."""
    if not isinstance(node, Call) or not isinstance(node.op, ConvTransposeNd):
        return None
    op, attrs, (x, w) = node.op, node.attrs, node.args
    data, kernel, out = op.maps(attrs)
    if data != out or not all(isinstance(d, int) for d in w.ty.shape):
        return None
    axes = _axes(op, attrs, x, w, node.ty, max(1, target.vector_bits // 32))
    weight = _weight(w, kernel, axes, attrs["groups"])
    parts = []
    for phases in cartesian(*[a.phases for a in axes]):
        plain = call(
            f"nn.conv{op.nd}d",
            x,
            _weight_of(weight, axes, phases),
            padding=tuple([p.before for p in phases] + [p.after for p in phases]),
            groups=attrs["groups"],
            data_layout=attrs["data_layout"],
            kernel_layout="OI" + "".join(a.letter for a in axes),
            out_dtype=attrs["out_dtype"],
        )
        add_origins(plain, origins(node))
        parts.append(plain)
    together = parts[0] if len(parts) == 1 else call("concatenate", *parts, axis=data["N"])
    return _woven(together, data, axes, attrs["groups"], node.ty)


def _axes(op: ConvTransposeNd, attrs: Any, x: Expr, w: Expr, result: Any, lanes: int) -> list[_Axis]:
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
        crop = dims.dim(b - s * first)
        found.append(_Axis(c, s, d, size, taps, count, (_Phases(0, s, before, after),), crop))
    inputs = [x.ty.shape[data[a.letter]] for a in found]
    sizes = [result.shape[out[a.letter]] for a in found]
    choices = [[a, *_apart(a, b, n, p)] for a, b, n, p in zip(found, begins, inputs, sizes, strict=True)]
    channels = w.ty.shape[kernel["I"]] // attrs["groups"], result.shape[out["C"]]
    return list(min(cartesian(*choices), key=lambda axes: _products(axes, *channels, lanes)))


def _apart(axis: _Axis, begin: Any, inputs: Any, size: Any) -> list[_Axis]:
    """The dimension with a convolution per remainder, in the order of outputs; none where that is not possible."""
    if axis.stride == 1 or not all(isinstance(n, int) for n in (begin, inputs, size)):
        return []
    count = -(-size // axis.stride)
    phases = []
    for k in range(axis.stride):
        q, r = divmod(k + begin, axis.stride)  # output k is at input q, and so on in steps of one
        phases.append(_Phases(r, 1, axis.taps - 1 - q, count - inputs + q))
    if any(p.before < 0 or p.after < 0 for p in phases):
        return []
    return [replace(axis, positions=count, phases=tuple(phases), crop=0)]


def _products(axes: tuple[_Axis, ...], inputs: int, outputs: int, lanes: int) -> tuple[int, int]:
    """Products that the convolutions take, whole vectors counted, and their number."""
    if not all(isinstance(a.positions, int) for a in axes):
        return 0, prod(len(a.phases) for a in axes)  # all in one
    kernels = prod(len(a.phases) for a in axes)
    channels = -(-outputs * prod(a.phases[0].count for a in axes) // lanes) * lanes
    return kernels * (inputs * channels * prod(a.taps * a.positions for a in axes) + _CALL), kernels


def _weight(w: Expr, kernel: dict[str, int], axes: list[_Axis], groups: int) -> Expr:
    """(groups, strides…, out, in / groups, taps…): the kernel of every phase, taps in the order of a convolution."""
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
    return call("transpose", w, axes=(0, *phase, 2, 1, *tap))


def _weight_of(w: Expr, axes: list[_Axis], phases: tuple[_Phases, ...]) -> Expr:
    """(groups·phases…·out, in / groups, taps…): the kernel of some phases."""
    places = tuple(range(1, len(axes) + 1))
    if any(a.apart for a in axes):
        w = call(
            "strided_slice",
            w,
            begin=tuple(p.first for p in phases),
            end=tuple(p.first + p.count for p in phases),
            strides=(1,) * len(axes),
            axes=places,
        )
    total = prod(w.ty.shape[: len(axes) + 2])
    return call("reshape", w, newshape=(total, *w.ty.shape[len(axes) + 2 :]))


def _woven(y: Expr, data: dict[str, int], axes: list[_Axis], groups: int, result: Any) -> Expr:
    """Phases of `y`, in its channels (group, phases…, out) or apart in its batch, moved beside their positions, and the
    result cut out.
    """
    order = sorted(data, key=data.__getitem__)
    strides = {a.letter: a.stride for a in axes}
    apart = [("r" + a.letter, a.stride) for a in axes if a.apart]
    parts: list[tuple[str, Any]] = []  # (what it is, its size) of y with its channels taken apart
    outputs = result.shape[data["C"]] // groups
    for c in order:
        if c == "C":
            parts += [("G", groups), *[("r" + a.letter, a.stride) for a in axes if not a.apart], ("C", outputs)]
        elif c == "N":
            parts += [*apart, ("N", result.shape[data["N"]])]
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
    y = call("strided_slice", y, begin=tuple(begin), end=tuple(end), strides=ones, axes=places)
    if all(dims.same(a, b) for a, b in zip(y.ty.shape, result.shape, strict=True)):
        return y
    return call("assume_shape", y, shape=tuple(result.shape))  # written otherwise, such as max(n, 0)
