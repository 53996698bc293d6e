"""Operators of one operand that act on each element alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.op import reference
from warpbeam.op.base import REQUIRED, Unary, intrinsic
from warpbeam.relay.types import TensorType, Type
from warpbeam.tir import expr as E
from warpbeam.topi import elementwise as topi
from warpbeam.topi import scalar

NUMBERS = ("float", "int")


# fmt: off
class Abs(Unary, name="abs", fn=scalar.magnitude, ref=np.abs, kinds=NUMBERS): ...
class Negative(Unary, name="negative", fn=scalar.negative, ref=np.negative,
               kinds=NUMBERS): ...
class Sign(Unary, name="sign", fn=scalar.sign, ref=np.sign, kinds=NUMBERS): ...
class Ceil(Unary, name="ceil", fn=intrinsic("ceil"), ref=np.ceil, floats=True): ...
class Floor(Unary, name="floor", fn=intrinsic("floor"), ref=np.floor, floats=True): ...
class Trunc(Unary, name="trunc", fn=intrinsic("trunc"), ref=np.trunc, floats=True): ...
class Sqrt(Unary, name="sqrt", fn=intrinsic("sqrt"), ref=np.sqrt, floats=True): ...
class Rsqrt(Unary, name="rsqrt", fn=scalar.rsqrt, ref=lambda x: 1 / np.sqrt(x), floats=True): ...
class Exp(Unary, name="exp", fn=intrinsic("exp"), ref=np.exp, floats=True): ...
class Log(Unary, name="log", fn=intrinsic("log"), ref=np.log, floats=True): ...
class Log2(Unary, name="log2", fn=intrinsic("log2"), ref=np.log2, floats=True): ...
class Log10(Unary, name="log10", fn=intrinsic("log10"), ref=np.log10, floats=True): ...
class Sin(Unary, name="sin", fn=intrinsic("sin"), ref=np.sin, floats=True): ...
class Cos(Unary, name="cos", fn=intrinsic("cos"), ref=np.cos, floats=True): ...
class Tan(Unary, name="tan", fn=intrinsic("tan"), ref=np.tan, floats=True): ...
class Asin(Unary, name="asin", fn=intrinsic("asin"), ref=np.arcsin, floats=True): ...
class Acos(Unary, name="acos", fn=intrinsic("acos"), ref=np.arccos, floats=True): ...
class Atan(Unary, name="atan", fn=intrinsic("atan"), ref=np.arctan, floats=True): ...
class Sinh(Unary, name="sinh", fn=intrinsic("sinh"), ref=np.sinh, floats=True): ...
class Cosh(Unary, name="cosh", fn=intrinsic("cosh"), ref=np.cosh, floats=True): ...
class Tanh(Unary, name="tanh", fn=intrinsic("tanh"), ref=np.tanh, floats=True): ...
class Asinh(Unary, name="asinh", fn=intrinsic("asinh"), ref=np.arcsinh, floats=True): ...
class Acosh(Unary, name="acosh", fn=intrinsic("acosh"), ref=np.arccosh, floats=True): ...
class Atanh(Unary, name="atanh", fn=intrinsic("atanh"), ref=np.arctanh, floats=True): ...
class Erf(Unary, name="erf", fn=intrinsic("erf"), ref=reference.erf, floats=True): ...
class Sigmoid(Unary, name="sigmoid", fn=intrinsic("sigmoid"), ref=reference.sigmoid, floats=True): ...
class Relu(Unary, name="nn.relu", fn=scalar.relu, kinds=NUMBERS,
           ref=lambda x: np.maximum(x, x.dtype.type(0))): ...
class IsNan(Unary, name="isnan", fn=scalar.isnan, ref=np.isnan, floats=True,
            result="bool"): ...
class IsInf(Unary, name="isinf", fn=scalar.isinf, ref=np.isinf, floats=True, result="bool"): ...
class IsFinite(Unary, name="isfinite", fn=scalar.isfinite, ref=np.isfinite, floats=True,
               result="bool"): ...
class LogicalNot(Unary, name="logical_not", fn=E.lnot, ref=np.logical_not, kinds=("bool",)): ...
class BitwiseNot(Unary, name="bitwise_not", fn=intrinsic("bitwise_not"), ref=np.invert, kinds=("int",)): ...
class Copy(Unary, name="copy", fn=lambda x: x, ref=np.copy): ...
class ZerosLike(Unary, name="zeros_like", fn=lambda x: E.const(0, x.dtype), ref=np.zeros_like): ...
class OnesLike(Unary, name="ones_like", fn=lambda x: E.const(1, x.dtype), ref=np.ones_like): ...
# fmt: on


class Round(Unary, name="round", fn=intrinsic("round"), ref=np.rint, floats=True):
    """To the nearest integer, halves to the even one."""


class Cast(Unary, name="cast"):
    """Value conversion to `dtype`: float to int saturates (NaN: 0), int to narrower int wraps, to bool is `!= 0`.

    flush: of float32 to bfloat16, subnormal numbers become zero.
    """

    defaults = {"dtype": REQUIRED, "flush": False}

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        return TensorType(types[0].shape, attrs["dtype"])  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, *args: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            x = args[0]
            if attrs["flush"] and (x.dtype, attrs["dtype"]) == (np.float32, "bfloat16"):
                x = np.where(np.abs(x) < np.float32(2.0**-126), x * 0, x)
            return reference.convert(x, dt.to_numpy(attrs["dtype"]))

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        return topi.cast(inputs[0], attrs["dtype"], attrs["flush"])


class Reinterpret(Unary, name="reinterpret", kinds=NUMBERS):
    """The same bits as another number type of equal size."""

    defaults = {"dtype": REQUIRED}

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        x = types[0]
        self.check_kind(x.dtype)
        self.check_kind(attrs["dtype"])
        if dt.bits(x.dtype) != dt.bits(attrs["dtype"]):
            raise self.error(f"{x.dtype} and {attrs['dtype']} have different sizes")
        return TensorType(x.shape, attrs["dtype"])  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, *args: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(args[0]).reshape(-1).view(dt.to_numpy(attrs["dtype"])).reshape(args[0].shape)

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        return topi.reinterpret(inputs[0], attrs["dtype"])


class Clip(Unary, name="clip", kinds=NUMBERS):
    """min(max(x, a_min), a_max); NaN stays."""

    defaults = {"a_min": REQUIRED, "a_max": REQUIRED}

    def numpy(self, attrs: Attrs, *args: np.ndarray) -> np.ndarray:
        x = args[0]
        low, high = topi.clip_limits(dt.from_numpy(x.dtype), attrs["a_min"], attrs["a_max"])
        return np.minimum(np.maximum(x, x.dtype.type(low)), x.dtype.type(high)).astype(x.dtype)

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        return topi.clip(inputs[0], attrs["a_min"], attrs["a_max"])
