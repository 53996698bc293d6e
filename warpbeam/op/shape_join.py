"""Operators that put tensors together, take them apart, and move blocks between channels and space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.ir.node import Attrs
from warpbeam.op.base import REQUIRED, Injective, norm_axis, tensor_type, tensors
from warpbeam.relay.types import TensorType, TupleType, Type
from warpbeam.topi import transform
from warpbeam.topi.nn import space


class Concatenate(Injective, name="concatenate", arity=None):
    """Operands one after the other along `axis`."""

    defaults = {"axis": 0}

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        found = tensors(self, types)
        axis = norm_axis(self, attrs["axis"], found[0].ndim) if found else 0
        transform.check_joined(self, found, axis)
        return TensorType(transform.joined_shape(found, axis), found[0].dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, *args: np.ndarray) -> np.ndarray:
        return np.concatenate(args, attrs["axis"])

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        return transform.concatenate(inputs, attrs["axis"])

    def joins(self, attrs: Attrs, types: Any) -> int:
        """The axis along which the operands stand one after the other in the result."""
        return norm_axis(self, attrs["axis"], types[0].ndim)


class Stack(Injective, name="stack", arity=None):
    """Operands of one shape along a new dimension `axis`."""

    defaults = {"axis": 0}

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        found = tensors(self, types)
        transform.check_joined(self, found, None)
        shape = list(found[0].shape)
        shape.insert(norm_axis(self, attrs["axis"], len(shape) + 1), len(found))
        return TensorType(shape, found[0].dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, *args: np.ndarray) -> np.ndarray:
        return np.stack(args, attrs["axis"])

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        return transform.stack(inputs, attrs["axis"])


class Split(Injective, name="split"):
    """A tuple of pieces along `axis`: a number of equal ones, or cut at the given places."""

    defaults = {"indices_or_sections": REQUIRED, "axis": 0}

    def cuts(self, attrs: Attrs, size: Any) -> list[Any]:
        """Places where pieces begin and, at last, the size."""
        return transform.split_cuts(self, attrs["indices_or_sections"], size)

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the operand")
        axis = norm_axis(self, attrs["axis"], x.ndim)
        sizes = transform.split_sizes(self, self.cuts(attrs, x.shape[axis]), x.shape[axis])
        pieces = [(*x.shape[:axis], size, *x.shape[axis + 1 :]) for size in sizes]
        return TupleType(tuple(TensorType(shape, x.dtype) for shape in pieces))  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> tuple[np.ndarray, ...]:
        given = attrs["indices_or_sections"]
        return tuple(np.split(x, list(given) if isinstance(given, tuple) else given, attrs["axis"]))

    def boxes(self, attrs: Attrs, types: Any) -> list[dict[int, Any]] | None:
        """Of each result, where it begins in the operand: {axis: first element}; 0 along the other axes."""
        axis = norm_axis(self, attrs["axis"], types[0].ndim)
        begins = self.cuts(attrs, types[0].shape[axis])[:-1]
        return [{axis: b} for b in begins] if all(isinstance(b, int) for b in begins) else None

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        return tuple(transform.split(inputs[0], attrs["indices_or_sections"], attrs["axis"]))


class StridedSlice(Injective, name="strided_slice"):
    """Elements begin, begin+stride, … before end along `axes`, as Python slices with integer bounds.

    Integer bounds may be negative (counted from the end) and are clamped; an end below -size with a negative stride
    means "through the first element". Symbolic bounds must lie within the dimension. axes None: the leading ones.
    """

    defaults = {"begin": REQUIRED, "end": REQUIRED, "strides": None, "axes": None}

    def plan(self, attrs: Attrs, shape: Sequence[Any]) -> dict[int, tuple[Any, Any, int]]:
        """axis -> (first element, number of elements, stride)."""
        return transform.slice_plan(self, shape, attrs["begin"], attrs["end"], attrs["strides"], attrs["axes"])

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

    def boxes(self, attrs: Attrs, types: Any) -> list[dict[int, Any]] | None:
        """Where the result begins in the operand, as `Split.boxes` says it; None if it leaves elements out between."""
        plan = self.plan(attrs, types[0].shape)
        if any(not isinstance(first, int) or stride != 1 for first, _, stride in plan.values()):
            return None
        return [{axis: first for axis, (first, _, _) in plan.items()}]

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        return transform.slice_stage(inputs[0], self.plan(attrs, inputs[0].shape))


class DepthToSpace(Injective, name="nn.depth_to_space"):
    """Channels moved into blocks of space. mode "DCR": the block is the outer part of the channel, "CRD": the inner."""

    defaults = {"block_size": REQUIRED, "layout": "NCHW", "mode": "DCR"}

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the operand")
        shape = space.depth_shape(self, x.shape, attrs["block_size"], attrs["layout"])
        return TensorType(shape, x.dtype)  # type: ignore[no-any-return]

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
        return space.depth_to_space(inputs[0], attrs["block_size"], attrs["layout"], attrs["mode"])


class SpaceToDepth(Injective, name="nn.space_to_depth"):
    """Blocks of space moved into channels. mode "DCR": the block is the outer part of the channel, "CRD": the inner."""

    defaults = {"block_size": REQUIRED, "layout": "NCHW", "mode": "DCR"}

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the operand")
        shape = space.space_shape(self, x.shape, attrs["block_size"], attrs["layout"])
        return TensorType(shape, x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        b, last = attrs["block_size"], attrs["layout"] == "NHWC"
        v = x.transpose(0, 3, 1, 2) if last else x
        n, c, h, w = v.shape
        v = v.reshape(n, c, h // b, b, w // b, b)
        v = v.transpose((0, 3, 5, 1, 2, 4) if attrs["mode"] == "DCR" else (0, 1, 3, 5, 2, 4))
        v = v.reshape(n, c * b * b, h // b, w // b)
        return v.transpose(0, 2, 3, 1) if last else v

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        return space.space_to_depth(inputs[0], attrs["block_size"], attrs["layout"], attrs["mode"])
