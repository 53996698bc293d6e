"""Operators that move elements without computing: new shapes, orders and repetitions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.ir.node import Attrs
from warpbeam.op.base import REQUIRED, Injective, at_broadcast, norm_axes, norm_axis, tensor_type
from warpbeam.relay.types import TensorType, Type
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.topi import dims


def regroup(source: Sequence[Any], target: Sequence[Any]) -> list[tuple[range, range]]:
    """Cuts two shapes of one element count into consecutive groups of equal products, as many as possible.

    Within a group the row-major order maps one onto the other, so that index arithmetic stays inside groups.
    """
    groups: list[tuple[range, range]] = []
    i = j = 0
    while i < len(source) and j < len(target):
        cut = _next_cut(source, target, i, j)
        if cut is None:
            break
        groups.append((range(i, cut[0]), range(j, cut[1])))
        i, j = cut
    if i < len(source) or j < len(target):
        groups.append((range(i, len(source)), range(j, len(target))))
    return groups


def _next_cut(source: Sequence[Any], target: Sequence[Any], i: int, j: int) -> tuple[int, int] | None:
    left: Any = 1
    for a in range(i, len(source)):
        left = dims.prod((left, source[a]))
        if isinstance(left, int) and left == 0:
            return None
        right: Any = 1
        for b in range(j, len(target)):
            right = dims.prod((right, target[b]))
            if left is right or (isinstance(left, int) and left == right):
                rest = (dims.prod(source[a + 1 :]), dims.prod(target[b + 1 :]))
                if dims.same(*rest):
                    return a + 1, b + 1
    return None


def linear_index(shape: Sequence[Any], index: Sequence[Any]) -> Any:
    """Row-major position of an index."""
    out: Any = E.const(0)
    for d, i in zip(shape, index, strict=True):
        out = out * d + i
    return out


def unravel(position: Any, shape: Sequence[Any]) -> list[Any]:
    """Index of a row-major position, which is known to lie within the shape."""
    out: list[Any] = []
    stride: Any = 1
    for k in reversed(range(len(shape))):
        d = shape[k]
        if isinstance(d, int) and d == 1:
            out.append(E.const(0))
            continue
        first = all(isinstance(s, int) and s == 1 for s in shape[:k])
        value = E.floordiv(position, stride)
        out.append(value if first else E.floormod(value, d))
        stride = dims.prod((stride, d))
    return out[::-1]


class Reshape(Injective, name="reshape"):
    """The same elements in row-major order with shape `newshape`; one entry may be -1 (what is left)."""

    view = True
    defaults = {"newshape": REQUIRED}

    def target(self, attrs: Attrs, shape: Sequence[Any]) -> tuple[Any, ...]:
        given = list(dims.dims(attrs["newshape"]))
        free = [i for i, d in enumerate(given) if isinstance(d, int) and d == -1]
        if len(free) > 1:
            raise self.error(f"newshape {dims.shape_text(given)} has more than one -1")
        if free:
            rest = dims.prod(d for i, d in enumerate(given) if i != free[0])
            given[free[0]] = dims.exact_div(dims.prod(shape), rest)
        return tuple(given)

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the operand")
        new = self.target(attrs, x.shape)
        if any(isinstance(d, int) and d < 0 for d in new):
            raise self.error(f"newshape {dims.shape_text(new)} has a negative dimension")
        equal = dims.same(dims.prod(x.shape), dims.prod(new))
        if not equal:
            verb = "cannot be shown to have" if equal is None else "does not have"
            raise self.error(
                f"shape {dims.shape_text(x.shape)} {verb} as many elements as {dims.shape_text(new)}",
                "give the inputs' shapes so that the dimensions become known" if equal is None else "",
            )
        return TensorType(new, x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        return x.reshape(self.target(attrs, x.shape))

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        x, new = inputs[0], out_type.shape
        groups = regroup(x.shape, new)

        def element(*index: Any) -> Any:
            own: list[Any] = []
            for source, target in groups:
                at = linear_index([new[k] for k in target], [index[k] for k in target])
                own += unravel(at, [x.shape[k] for k in source])
            return x[tuple(own)]

        return te.compute(new, element, name="reshape")


class Transpose(Injective, name="transpose"):
    """Dimensions in the order `axes`; None reverses them."""

    defaults = {"axes": None}

    def order(self, attrs: Attrs, ndim: int) -> tuple[int, ...]:
        if attrs["axes"] is None:
            return tuple(reversed(range(ndim)))
        axes = tuple(norm_axis(self, a, ndim) for a in attrs["axes"])
        if sorted(axes) != list(range(ndim)):
            raise self.error(f"axes {tuple(attrs['axes'])} are no permutation of {ndim} dimensions")
        return axes

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the operand")
        return TensorType([x.shape[a] for a in self.order(attrs, x.ndim)], x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        return np.transpose(x, self.order(attrs, x.ndim))

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        x = inputs[0]
        order = self.order(attrs, x.ndim)
        return te.compute(out_type.shape, lambda *i: x[tuple(i[order.index(d)] for d in range(x.ndim))], "transpose")


class ExpandDims(Injective, name="expand_dims"):
    """`num_newaxis` dimensions of size 1 put in at `axis`."""

    view = True
    defaults = {"axis": REQUIRED, "num_newaxis": 1}

    def place(self, attrs: Attrs, ndim: int) -> int:
        return norm_axis(self, attrs["axis"], ndim + 1)

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the operand")
        at = self.place(attrs, x.ndim)
        return TensorType((*x.shape[:at], *([1] * attrs["num_newaxis"]), *x.shape[at:]), x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        at = self.place(attrs, x.ndim)
        return x.reshape((*x.shape[:at], *([1] * attrs["num_newaxis"]), *x.shape[at:]))

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        x, count = inputs[0], attrs["num_newaxis"]
        at = self.place(attrs, x.ndim)
        return te.compute(out_type.shape, lambda *i: x[i[:at] + i[at + count :]], "expand_dims")


class Squeeze(Injective, name="squeeze"):
    """Dimensions `axis` of size 1 taken away; None takes all that are 1."""

    view = True
    defaults = {"axis": None}

    def gone(self, attrs: Attrs, shape: Sequence[Any]) -> tuple[int, ...]:
        if attrs["axis"] is None:
            return tuple(i for i, d in enumerate(shape) if isinstance(d, int) and d == 1)
        axes = norm_axes(self, attrs["axis"], len(shape))
        for a in axes:
            if not dims.same(shape[a], 1):
                raise self.error(f"dimension {a} is {dims.text(shape[a])}, not 1", "only dimensions of size 1 can go")
        return axes

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the operand")
        gone = self.gone(attrs, x.shape)
        return TensorType([d for i, d in enumerate(x.shape) if i not in gone], x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        return np.squeeze(x, self.gone(attrs, x.shape))

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        x = inputs[0]
        gone = self.gone(attrs, x.shape)

        def element(*index: Any) -> Any:
            own = iter(index)
            return x[tuple(E.const(0) if d in gone else next(own) for d in range(x.ndim))]

        return te.compute(out_type.shape, element, "squeeze")


class BroadcastTo(Injective, name="broadcast_to"):
    """Dimensions of size 1 repeated, and new leading ones added, to give `shape`."""

    defaults = {"shape": REQUIRED}

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the operand")
        shape = dims.dims(attrs["shape"])
        if len(shape) < x.ndim:
            raise self.error(f"{dims.shape_text(x.shape)} has more dimensions than {dims.shape_text(shape)}")
        for d, o in zip(x.shape, shape[len(shape) - x.ndim :], strict=True):
            if not (isinstance(d, int) and d == 1) and not dims.same(d, o):
                raise self.error(f"{dims.shape_text(x.shape)} does not broadcast to {dims.shape_text(shape)}")
        return TensorType(shape, x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        return np.broadcast_to(x, attrs["shape"])

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        return te.compute(out_type.shape, lambda *i: at_broadcast(inputs[0], i, out_type.shape), name="broadcast_to")


class Tile(Injective, name="tile"):
    """The whole tensor repeated `reps[d]` times along each dimension."""

    defaults = {"reps": REQUIRED}

    def padded(self, attrs: Attrs, shape: Sequence[Any]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        reps = dims.dims(attrs["reps"])
        ndim = max(len(reps), len(shape))
        return (1,) * (ndim - len(shape)) + tuple(shape), (1,) * (ndim - len(reps)) + reps

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the operand")
        shape, reps = self.padded(attrs, x.shape)
        if any(isinstance(r, int) and r < 0 for r in reps):
            raise self.error(f"repetitions {dims.shape_text(reps)} must not be negative")
        return TensorType([dims.prod(p) for p in zip(shape, reps, strict=True)], x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        return np.tile(x, attrs["reps"])

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        x = inputs[0]
        shape, reps = self.padded(attrs, x.shape)

        def element(*index: Any) -> Any:
            own = [
                i if isinstance(r, int) and r == 1 else E.floormod(i, d)
                for i, d, r in zip(index, shape, reps, strict=True)
            ]
            return x[tuple(own[len(shape) - x.ndim :])]

        return te.compute(out_type.shape, element, name="tile")


class Repeat(Injective, name="repeat"):
    """Each element repeated `repeats` times along `axis`; axis None repeats the flattened tensor's elements."""

    defaults = {"repeats": REQUIRED, "axis": None}

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the operand")
        if attrs["axis"] is None:
            return TensorType([dims.prod((*x.shape, attrs["repeats"]))], x.dtype)  # type: ignore[no-any-return]
        shape, axis = list(x.shape), norm_axis(self, attrs["axis"], x.ndim)
        shape[axis] = dims.prod((shape[axis], attrs["repeats"]))
        return TensorType(shape, x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        return np.repeat(x, attrs["repeats"], attrs["axis"])

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        x, count = inputs[0], attrs["repeats"]
        if attrs["axis"] is None:
            return te.compute(out_type.shape, lambda i: x[tuple(unravel(E.floordiv(i, count), x.shape))], name="repeat")
        axis = norm_axis(self, attrs["axis"], x.ndim)
        return te.compute(
            out_type.shape,
            lambda *i: x[tuple(E.floordiv(v, count) if d == axis else v for d, v in enumerate(i))],
            name="repeat",
        )


class Reverse(Injective, name="reverse"):
    """The order of elements turned round along `axis` (an int or several)."""

    defaults = {"axis": REQUIRED}

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the operand")
        norm_axes(self, attrs["axis"], x.ndim)
        return x

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        return np.flip(x, norm_axes(self, attrs["axis"], x.ndim))

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        x = inputs[0]
        axes = norm_axes(self, attrs["axis"], x.ndim)
        return te.compute(
            x.shape,
            lambda *i: x[tuple(E.as_expr(x.shape[d]) - 1 - v if d in axes else v for d, v in enumerate(i))],
            name="reverse",
        )
