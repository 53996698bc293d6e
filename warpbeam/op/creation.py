"""Operators that make tensors from attributes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.op.base import REQUIRED, Injective, tensor_type
from warpbeam.relay.types import TensorType, Type
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.topi import dims
from warpbeam.topi.indexing import arange_count, arange_stage, shape_values


class Full(Injective, name="full"):
    """A tensor of `shape` filled with the scalar operand; dtype None keeps the operand's."""

    defaults = {"shape": REQUIRED, "dtype": None}

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        x = tensor_type(self, types[0], "the value")
        if x.ndim:
            raise self.error(f"the value must be a scalar, it has {x.ndim} dimensions")
        return TensorType(dims.dims(attrs["shape"]), attrs["dtype"] or x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, value: np.ndarray) -> np.ndarray:
        return np.full(attrs["shape"], value, dt.to_numpy(attrs["dtype"] or dt.from_numpy(value.dtype)))

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        return te.compute(out_type.shape, lambda *i: E.cast(out_type.dtype, inputs[0][()]), name="full")


class _Filled(Injective):
    defaults = {"shape": REQUIRED, "dtype": "float32"}
    value = 0

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        return TensorType(dims.dims(attrs["shape"]), attrs["dtype"])  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, *args: np.ndarray) -> np.ndarray:
        return np.full(attrs["shape"], self.value, dt.to_numpy(attrs["dtype"]))

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        return te.compute(out_type.shape, lambda *i: E.const(self.value, out_type.dtype), name=self.name)


class Zeros(_Filled, name="zeros", arity=0):
    """Zeros of `shape` and `dtype`."""


class Ones(_Filled, name="ones", arity=0):
    """Ones of `shape` and `dtype`."""

    value = 1


class Arange(Injective, name="arange", arity=0):
    """start, start + step, … before stop. Bounds are numbers or, for integers, symbolic expressions."""

    defaults = {"start": 0, "stop": REQUIRED, "step": 1, "dtype": "int64"}

    def count(self, attrs: Attrs) -> Any:
        return arange_count(self, attrs["start"], attrs["stop"], attrs["step"])

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        return TensorType((self.count(attrs),), attrs["dtype"])  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, *args: np.ndarray) -> np.ndarray:
        kind = dt.to_numpy(attrs["dtype"])
        inner = np.dtype(np.float64) if kind.kind not in "iu" else kind
        place = np.arange(self.count(attrs)).astype(inner)
        return (np.asarray(attrs["start"], inner) + place * np.asarray(attrs["step"], inner)).astype(kind)

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        return arange_stage(attrs["start"], attrs["step"], out_type.shape[0], out_type.dtype)


class ShapeTensor(Injective, name="shape_tensor", arity=0):
    """A tensor of known content: `values` (ints or expressions of symbolic sizes, row-major) of `shape`; None: 1-d."""

    defaults = {"values": REQUIRED, "shape": None, "dtype": "int64"}

    def own_shape(self, attrs: Attrs) -> tuple[int, ...]:
        return (len(attrs["values"]),) if attrs["shape"] is None else attrs["shape"]

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        shape = self.own_shape(attrs)
        if math.prod(shape) != len(attrs["values"]):
            raise self.error(f"{len(attrs['values'])} values for shape {shape}")
        return TensorType(shape, attrs["dtype"])  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, *args: np.ndarray) -> np.ndarray:
        values = np.array([int(v) for v in attrs["values"]], np.int64)
        return values.astype(dt.to_numpy(attrs["dtype"])).reshape(self.own_shape(attrs))

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        return shape_values(attrs["values"], out_type.shape, out_type.dtype, "shape_tensor")
