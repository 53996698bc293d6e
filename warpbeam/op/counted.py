"""Operators whose result has sizes that only the contents of an operand tell.

Each size is a variable (`topi.dims.counted`) that a call defines: attribute `extents` is a tuple of (variable, number
of the operand, element of it that holds the value), `bounds` what each is at most, or None. What else mentions the
variable, by its operands' types or its own `extents`, may be computed only after such a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.op.base import REQUIRED, Op, norm_axis, tensor_type, tensors
from warpbeam.op.creation import Arange, ShapeTensor
from warpbeam.relay.types import TensorType, Type
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.topi import dims, transform

SIZES: dict[str, Any] = {"extents": (), "bounds": ()}
ShapeT = tuple[Any, ...]


class Counted(Op):
    """Base: makes the variables of `extents` known as sizes found at run time."""

    def infer(self, types: Sequence[Type], attrs: Attrs) -> Type:
        for size, operand, _ in attrs["extents"]:
            if isinstance(size, E.Var):
                dims.counted(size)
            if not 0 <= operand < len(types) or not dt.is_int(tensor_type(self, types[operand], "a size").dtype):
                raise self.error(f"the size in operand {operand} must be an integer tensor")
        return super().infer(types, attrs)


class Given(Counted):
    """The first operand unchanged; the others hold sizes that are known from here on."""

    name = "counted.given"
    arity = None
    view = True
    defaults = SIZES

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        return tensor_type(self, types[0], "the operand")

    def numpy(self, attrs: Attrs, x: np.ndarray, *counts: np.ndarray) -> np.ndarray:
        return x

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        return te.compute(out_type.shape, lambda *i: inputs[0][i], name="given")


class Cut(Counted):
    """The first entries of data, as many as operand 1 says."""

    name = "counted.cut"
    arity = 2
    view = True
    defaults = SIZES

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the data")
        return TensorType((attrs["extents"][0][0], *x.shape[1:]), x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray, count: np.ndarray) -> np.ndarray:
        if not 0 <= attrs["extents"][0][0] <= x.shape[0]:
            raise ValueError(f"{attrs['extents'][0][0]} of {x.shape[0]} entries")
        return x[: attrs["extents"][0][0]]

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        return te.compute(out_type.shape, lambda *i: inputs[0][i], name="cut")


class ReshapeTo(Counted):
    """The same elements with shape `newshape`, of which operand 1 holds some sizes."""

    name = "counted.reshape"
    arity = 2
    view = True
    defaults = {"newshape": REQUIRED, **SIZES}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the operand")
        transform.check_reshape(self, x.shape, attrs["newshape"])
        return TensorType(attrs["newshape"], x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        return x.reshape(attrs["newshape"])

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        return transform.reshape_stage(inputs[0], out_type.shape)


class BroadcastTo(Counted):
    """Data repeated to `shape`, whose sizes operand 1 holds; a dimension that turns out to be 1 is repeated too."""

    name = "counted.broadcast_to"
    arity = 2
    defaults = {"shape": REQUIRED, **SIZES}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the operand")
        return TensorType(attrs["shape"], x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        return np.broadcast_to(x, attrs["shape"])

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x = inputs[0]
        skip = out_type.ndim - x.ndim

        def element(*index: Any) -> Any:
            return x[
                tuple(_seen(d, o, i) for d, o, i in zip(x.shape, out_type.shape[skip:], index[skip:], strict=True))
            ]

        return te.compute(out_type.shape, element, name="broadcast_to")


def _seen(have: Any, out: Any, i: Any) -> Any:
    if isinstance(have, int) and have == 1:
        return 0
    if isinstance(have, int) or dims.same(have, out):
        return i
    return E.select(E.binary(E.EQ, E.as_expr(have), E.const(1)), E.const(0), i)


class RangeOf(Counted):
    """start, start + step, …: operands (start, step, count)."""

    name = "counted.range"
    arity = 3
    defaults = SIZES

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        start, step, _ = tensors(self, types)
        if start.dtype != step.dtype or start.ndim or step.ndim:
            raise self.error("start and step must be scalars of one dtype")
        return TensorType((attrs["extents"][0][0],), start.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, start: np.ndarray, step: np.ndarray, count: np.ndarray) -> np.ndarray:
        inner = start.dtype if start.dtype.kind in "iu" else np.dtype(np.float64)
        place = np.arange(attrs["extents"][0][0]).astype(inner)
        return (start.astype(inner) + place * step.astype(inner)).astype(start.dtype)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        start, step = inputs[0], inputs[1]
        inner = "float64" if dt.is_float(start.dtype) else start.dtype

        def element(i: Any) -> Any:
            value = E.cast(inner, start[()]) + E.cast(inner, i) * E.cast(inner, step[()])
            return E.cast(out_type.dtype, value)

        return te.compute(out_type.shape, element, name="range")


class SliceAt(Counted):
    """data[begin + i * step] along `axes`; operand 1 holds begins, counts and steps, as `counted.slice_plan` gives."""

    name = "counted.slice"
    arity = 2
    defaults = {"axes": REQUIRED, "counts": REQUIRED, **SIZES}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the data")
        shape = list(x.shape)
        for a, size in zip(attrs["axes"], attrs["counts"], strict=True):
            shape[norm_axis(self, a, x.ndim)] = size
        return TensorType(shape, x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray, plan: np.ndarray) -> np.ndarray:
        for a, begin, count, step in zip(attrs["axes"], *plan, strict=True):
            x = np.take(x, begin + np.arange(count) * step, axis=a)
        return x

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x, plan = inputs
        own = {a % x.ndim: n for n, a in enumerate(attrs["axes"])}

        def element(*index: Any) -> Any:
            at = [plan[0, own[a]] + i * plan[2, own[a]] if a in own else i for a, i in enumerate(index)]
            return x[tuple(at)]

        return te.compute(out_type.shape, element, name="slice")


class PadBy(Counted):
    """Borders around data: operands (data, value, widths, sizes), widths and sizes being rows of int64 per axis."""

    name = "counted.pad"
    arity = 4
    defaults = {"shape": REQUIRED, "pad_mode": "constant", **SIZES}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x, value, _, _ = tensors(self, types)
        if value.dtype != x.dtype or attrs["pad_mode"] not in ("constant", "edge", "reflect", "wrap"):
            raise self.error(f"mode {attrs['pad_mode']!r} with a value of {value.dtype} for {x.dtype}")
        return TensorType(attrs["shape"], x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray, value: np.ndarray, widths: np.ndarray, sizes: Any) -> np.ndarray:
        pairs = [(int(b), int(a)) for b, a in widths.T]
        cut = tuple(slice(max(-b, 0), s - max(-a, 0)) for s, (b, a) in zip(x.shape, pairs, strict=True))
        grow = [(max(b, 0), max(a, 0)) for b, a in pairs]
        if attrs["pad_mode"] == "constant":
            return np.pad(x[cut], grow, constant_values=value.reshape(()))
        return np.pad(x[cut], grow, mode=attrs["pad_mode"])

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x, value, widths = inputs[:3]
        fill = value[(0,) * value.ndim]

        def element(*index: Any) -> Any:
            at = [i - widths[0, a] for a, i in enumerate(index)]
            if attrs["pad_mode"] != "constant":
                return x[tuple(_mirrored(attrs["pad_mode"], i, s) for i, s in zip(at, x.shape, strict=True))]
            inside: Any = E.const(True)
            for i, s in zip(at, x.shape, strict=True):
                inside = E.land(inside, E.land(i >= 0, i < E.as_expr(s)))
            near = [_mirrored("edge", i, s) for i, s in zip(at, x.shape, strict=True)]
            return E.select(inside, x[tuple(near)], fill)

        return te.compute(out_type.shape, element, name="pad")


def _mirrored(mode: str, i: Any, size: Any) -> Any:
    """The place that a place outside [0, size) repeats."""
    last = E.as_expr(size) - 1
    if mode == "wrap":
        return E.floormod(i, E.as_expr(size))
    if mode == "reflect":
        i = E.floormod(i, E.maximum(2 * last, E.const(1)))
        i = E.minimum(i, 2 * last - i)
    return E.maximum(E.minimum(i, last), E.const(0))


class CountedShape(Counted, ShapeTensor, name="counted.shape_tensor", arity=None):
    """A shape_tensor whose values use sizes that the operands hold."""

    defaults = {**ShapeTensor.defaults, **SIZES}


class CountedArange(Counted, Arange, name="counted.arange", arity=None):
    """An arange whose bounds use sizes that the operands hold."""

    defaults = {**Arange.defaults, **SIZES}
