"""Operators that put tensors together, take them apart, and move blocks between channels and space."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from warpbeam.ir.node import Attrs
from warpbeam.op.base import REQUIRED, Injective, Op, norm_axis, tensor_type, tensors
from warpbeam.relay.types import TensorType, TupleType, Type
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.topi import dims

FAR = (1 << 31) - 1
"""A slice bound from here on means "to the end"."""


def _common(op: Op, types: Sequence[TensorType], skip: int | None) -> None:
    """All tensors have one dtype and, but for dimension `skip`, one shape."""
    first = types[0]
    for i, t in enumerate(types):
        if t.dtype != first.dtype or t.ndim != first.ndim:
            raise op.error(
                f"operand {i} is {t.dtype} with {t.ndim} dimensions, operand 0 is {first.dtype} with {first.ndim}"
            )
        for d, (a, b) in enumerate(zip(first.shape, t.shape, strict=True)):
            equal = d == skip or dims.same(a, b)
            if equal is None:
                raise dims.undecided(f"operator {op.name}, dimension {d}", a, b)
            if not equal:
                raise op.error(f"dimension {d} of operand {i} is {dims.text(b)}, of operand 0 {dims.text(a)}")


class Concatenate(Injective, name="concatenate", arity=None):
    """Operands one after the other along `axis`."""

    defaults = {"axis": 0}

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        found = tensors(self, types)
        if not found:
            raise self.error("takes at least one operand")
        axis = norm_axis(self, attrs["axis"], found[0].ndim)
        _common(self, found, axis)
        shape = list(found[0].shape)
        shape[axis] = dims.dim(_total(t.shape[axis] for t in found))
        return TensorType(shape, found[0].dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, *args: np.ndarray) -> np.ndarray:
        return np.concatenate(args, attrs["axis"])

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        axis = norm_axis(self, attrs["axis"], inputs[0].ndim)
        starts: list[Any] = [0]
        for x in inputs[:-1]:
            starts.append(dims.dim(starts[-1] + x.shape[axis]))

        def element(*index: Any) -> Any:
            at = index[axis]
            out = None
            for x, start in reversed(list(zip(inputs, starts, strict=True))):
                one = x[(*index[:axis], at - start, *index[axis + 1 :])]
                out = one if out is None else E.if_then_else(at < dims.dim(start + x.shape[axis]), one, out)
            return out

        return te.compute(out_type.shape, element, name="concatenate")


def _total(values: Any) -> Any:
    out: Any = 0
    for v in values:
        out = out + v
    return out


class Stack(Injective, name="stack", arity=None):
    """Operands of one shape along a new dimension `axis`."""

    defaults = {"axis": 0}

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        found = tensors(self, types)
        if not found:
            raise self.error("takes at least one operand")
        _common(self, found, None)
        shape = list(found[0].shape)
        shape.insert(norm_axis(self, attrs["axis"], len(shape) + 1), len(found))
        return TensorType(shape, found[0].dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, *args: np.ndarray) -> np.ndarray:
        return np.stack(args, attrs["axis"])

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        axis = norm_axis(self, attrs["axis"], len(out_type.shape))

        def element(*index: Any) -> Any:
            own = index[:axis] + index[axis + 1 :]
            out = inputs[-1][own]
            for k in reversed(range(len(inputs) - 1)):
                out = E.select(E.binary(E.EQ, index[axis], k), inputs[k][own], out)
            return out

        return te.compute(out_type.shape, element, name="stack")


class Split(Injective, name="split"):
    """A tuple of pieces along `axis`: a number of equal ones, or cut at the given places."""

    defaults = {"indices_or_sections": REQUIRED, "axis": 0}

    def cuts(self, attrs: Attrs, size: Any) -> list[Any]:
        """Places where pieces begin and, at last, the size."""
        given = attrs["indices_or_sections"]
        if isinstance(given, tuple):
            return [0, *dims.dims(given), size]
        if given < 1:
            raise self.error(f"{given} sections")
        each = dims.exact_div(size, given)
        if not dims.same(dims.prod((each, given)), size):
            raise self.error(f"{dims.text(size)} does not divide into {given} equal sections")
        return [dims.prod((each, k)) for k in range(given)] + [size]

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the operand")
        axis = norm_axis(self, attrs["axis"], x.ndim)
        cuts = self.cuts(attrs, x.shape[axis])
        fields = []
        for low, high in pairwise(cuts):
            piece = dims.dim(E.sub(high, low)) if not isinstance(high, int) or not isinstance(low, int) else high - low
            if isinstance(piece, int) and piece < 0:
                raise self.error(f"cuts {dims.shape_text(cuts[1:-1])} of a dimension of {dims.text(x.shape[axis])}")
            fields.append(TensorType((*x.shape[:axis], piece, *x.shape[axis + 1 :]), x.dtype))
        return TupleType(tuple(fields))  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> tuple[np.ndarray, ...]:
        given = attrs["indices_or_sections"]
        return tuple(np.split(x, list(given) if isinstance(given, tuple) else given, attrs["axis"]))

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        x = inputs[0]
        axis = norm_axis(self, attrs["axis"], x.ndim)
        cuts = self.cuts(attrs, x.shape[axis])

        def piece(start: Any, shape: Any, k: int) -> Any:
            return te.compute(shape, lambda *i: x[(*i[:axis], i[axis] + start, *i[axis + 1 :])], name=f"split{k}")

        return tuple(piece(s, t.shape, k) for k, (s, t) in enumerate(zip(cuts, out_type.fields, strict=False)))


class StridedSlice(Injective, name="strided_slice"):
    """Elements begin, begin+stride, … before end along `axes`, as Python slices with integer bounds.

    Integer bounds may be negative (counted from the end) and are clamped; an end below -size with a negative stride
    means "through the first element". Symbolic bounds must lie within the dimension. axes None: the leading ones.
    """

    defaults = {"begin": REQUIRED, "end": REQUIRED, "strides": None, "axes": None}

    def plan(self, attrs: Attrs, shape: Sequence[Any]) -> dict[int, tuple[Any, Any, int]]:
        """axis -> (first element, number of elements, stride)."""
        begin, end = attrs["begin"], attrs["end"]
        axes = attrs["axes"] if attrs["axes"] is not None else tuple(range(len(begin)))
        strides = attrs["strides"] if attrs["strides"] is not None else (1,) * len(begin)
        strides = tuple(strides) * len(begin) if len(strides) == 1 else tuple(strides)
        if not len(begin) == len(end) == len(axes) == len(strides):
            raise self.error(f"{len(begin)} begins, {len(end)} ends, {len(axes)} axes, {len(strides)} strides")
        out: dict[int, tuple[Any, Any, int]] = {}
        for b, e, a, s in zip(begin, end, axes, strides, strict=True):
            axis = norm_axis(self, a, len(shape))
            if axis in out:
                raise self.error(f"axis {axis} is named twice")
            if s == 0:
                raise self.error("a stride of 0")
            size = shape[axis]
            out[axis] = static_slice(b, e, s, size) if isinstance(size, int) else symbolic_slice(b, e, s, size)
        return out

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the operand")
        plan = self.plan(attrs, x.shape)
        return TensorType([plan[d][1] if d in plan else s for d, s in enumerate(x.shape)], x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        index: list[Any] = [slice(None)] * x.ndim
        for axis, (first, count, stride) in self.plan(attrs, x.shape).items():
            index[axis] = first + stride * np.arange(count)
        out = x
        for axis, places in enumerate(index):
            if not isinstance(places, slice):
                out = np.take(out, places, axis)
        return out

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        x = inputs[0]
        plan = self.plan(attrs, x.shape)

        def element(*index: Any) -> Any:
            return x[tuple(i * plan[d][2] + plan[d][0] if d in plan else i for d, i in enumerate(index))]

        return te.compute(out_type.shape, element, name="strided_slice")


def static_slice(begin: Any, end: Any, stride: int, size: int) -> tuple[Any, Any, int]:
    """First element, count and stride of a slice of a known size."""
    begin, end = E.simplify_dim(begin), E.simplify_dim(end)
    if isinstance(begin, int) and isinstance(end, int):
        low, high = (0, size) if stride > 0 else (-1, size - 1)
        first = min(max(begin + size if begin < 0 else begin, low), high)
        last = min(max(end + size if end < 0 else end, low), high)
        return first, max(0, -((first - last) // stride) if stride > 0 else -((last - first) // -stride)), stride
    return symbolic_slice(begin, end, stride, size)


def symbolic_slice(begin: Any, end: Any, stride: int, size: Any) -> tuple[Any, Any, int]:
    """First element, count and stride of a slice where the size or a bound is symbolic."""
    low, high = (0, size) if stride > 0 else (-1, dims.dim(E.as_expr(size) - 1))

    def bound(value: Any) -> Any:
        value = E.simplify_dim(value)
        if not isinstance(value, int):
            return value
        if value >= FAR:
            return high
        if value <= -FAR:
            return low
        place = dims.dim(E.as_expr(size) + value) if value < 0 else value
        return dims.dim(E.maximum(E.minimum(E.as_expr(place), E.as_expr(high)), E.as_expr(low)))

    first, last = bound(begin), bound(end)
    gap = E.as_expr(last) - first if stride > 0 else E.as_expr(first) - last
    count = dims.dim(E.maximum(E.ceildiv(gap, abs(stride)), 0))
    return first, count, stride


class DepthToSpace(Injective, name="nn.depth_to_space"):
    """Channels moved into blocks of space. mode "DCR": the block is the outer part of the channel, "CRD": the inner."""

    defaults = {"block_size": REQUIRED, "layout": "NCHW", "mode": "DCR"}

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the operand")
        b = attrs["block_size"]
        n, c, h, w = _nchw(self, x.shape, attrs["layout"])
        left = dims.exact_div(c, b * b)
        if not dims.same(dims.prod((left, b * b)), c):
            raise self.error(f"{dims.text(c)} channels do not divide by {b} squared")
        return TensorType(_layout((n, left, dims.prod((h, b)), dims.prod((w, b))), attrs["layout"]), x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        b, last = attrs["block_size"], attrs["layout"] == "NHWC"
        v = x.transpose(0, 3, 1, 2) if last else x
        n, c, h, w = v.shape
        if attrs["mode"] == "DCR":
            v = v.reshape(n, b, b, c // (b * b), h, w).transpose(0, 3, 4, 1, 5, 2)
        else:
            v = v.reshape(n, c // (b * b), b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
        v = v.reshape(n, c // (b * b), h * b, w * b)
        return v.transpose(0, 2, 3, 1) if last else v

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        x, b, layout = inputs[0], attrs["block_size"], attrs["layout"]
        channels = _nchw(self, out_type.shape, layout)[1]

        def element(*index: Any) -> Any:
            n, c, h, w = _nchw(self, index, layout)
            block = E.floormod(h, b) * b + E.floormod(w, b)
            from_c = block * channels + c if attrs["mode"] == "DCR" else c * (b * b) + block
            return x[_layout((n, from_c, E.floordiv(h, b), E.floordiv(w, b)), layout)]

        return te.compute(out_type.shape, element, name="depth_to_space")


class SpaceToDepth(Injective, name="nn.space_to_depth"):
    """Blocks of space moved into channels. mode "DCR": the block is the outer part of the channel, "CRD": the inner."""

    defaults = {"block_size": REQUIRED, "layout": "NCHW", "mode": "DCR"}

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the operand")
        b = attrs["block_size"]
        n, c, h, w = _nchw(self, x.shape, attrs["layout"])
        small = [dims.exact_div(v, b) for v in (h, w)]
        if not all(dims.same(dims.prod((s, b)), v) for s, v in zip(small, (h, w), strict=True)):
            raise self.error(f"{dims.text(h)} x {dims.text(w)} does not divide into blocks of {b}")
        return TensorType(_layout((n, dims.prod((c, b * b)), *small), attrs["layout"]), x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        b, last = attrs["block_size"], attrs["layout"] == "NHWC"
        v = x.transpose(0, 3, 1, 2) if last else x
        n, c, h, w = v.shape
        v = v.reshape(n, c, h // b, b, w // b, b)
        v = v.transpose((0, 3, 5, 1, 2, 4) if attrs["mode"] == "DCR" else (0, 1, 3, 5, 2, 4))
        v = v.reshape(n, c * b * b, h // b, w // b)
        return v.transpose(0, 2, 3, 1) if last else v

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        x, b, layout = inputs[0], attrs["block_size"], attrs["layout"]
        channels = _nchw(self, x.shape, layout)[1]

        def element(*index: Any) -> Any:
            n, c, h, w = _nchw(self, index, layout)
            outer = attrs["mode"] == "DCR"
            block = E.floordiv(c, channels) if outer else E.floormod(c, b * b)
            from_c = E.floormod(c, channels) if outer else E.floordiv(c, b * b)
            at = (n, from_c, h * b + E.floordiv(block, b), w * b + E.floormod(block, b))
            return x[_layout(at, layout)]

        return te.compute(out_type.shape, element, name="space_to_depth")


def _nchw(op: Op, values: Sequence[Any], layout: str) -> tuple[Any, ...]:
    """Values given in `layout`, in the order N, C, H, W."""
    if len(values) != 4:
        raise op.error(f"takes a tensor with 4 dimensions, got {len(values)}")
    if layout not in ("NCHW", "NHWC"):
        raise op.error(f"layout {layout!r}", "NCHW or NHWC")
    return tuple(values[layout.index(k)] for k in "NCHW")


def _layout(values: Sequence[Any], layout: str) -> tuple[Any, ...]:
    """Values given as N, C, H, W in the order of `layout`."""
    return tuple(values["NCHW".index(k)] for k in layout)
