"""Operators of several operands that broadcast against each other."""

from __future__ import annotations

from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.op import reference
from warpbeam.op.base import Binary, Compare, Injective, Logical, at_broadcast, broadcast_shapes, intrinsic, tensors
from warpbeam.relay.types import TensorType, Type
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E

NUMBERS = ("float", "int")


def _floor_divide(a: E.PrimExpr, b: E.PrimExpr) -> E.PrimExpr:
    return E.call("floor", E.div(a, b)) if dt.is_float(a.dtype) else E.floordiv(a, b)


def _floor_mod(a: E.PrimExpr, b: E.PrimExpr) -> E.PrimExpr:
    if not dt.is_float(a.dtype):
        return E.floormod(a, b)
    r: E.PrimExpr = E.Mod(a, b)
    off = E.land(E.binary(E.NE, r, 0.0), E.binary(E.NE, r < 0.0, b < 0.0))
    return E.select(off, r + b, r)


def _power(a: E.PrimExpr, b: E.PrimExpr) -> E.PrimExpr:
    """Integers by squaring (exponents up to 255 in full), floats by the intrinsic."""
    if dt.is_float(a.dtype):
        if dt.bits(a.dtype) < 32:
            return E.cast(a.dtype, E.call("pow", E.cast("float32", a), E.cast("float32", b)))
        return E.call("pow", a, b)
    one = E.const(1, a.dtype)
    out, square, rest = one, a, b
    for _ in range(min(8, dt.bits(b.dtype) - 1)):
        out = E.select(E.binary(E.EQ, E.floormod(rest, 2), 1), out * square, out)
        square, rest = square * square, E.floordiv(rest, 2)
    if dt.is_unsigned(a.dtype):
        return out
    even = E.binary(E.EQ, E.floormod(b, 2), 0)
    below = E.select(
        E.binary(E.EQ, a, 1), one, E.select(E.binary(E.EQ, a, -1), E.select(even, 1, E.const(-1, a.dtype)), 0)
    )
    return E.select(b < 0, below, out)


def _equal(a: E.PrimExpr, b: E.PrimExpr) -> E.PrimExpr:
    return E.binary(E.EQ, a, b)


def _not_equal(a: E.PrimExpr, b: E.PrimExpr) -> E.PrimExpr:
    return E.binary(E.NE, a, b)


# fmt: off
class Add(Binary, name="add", fn=E.add, ref=np.add, kinds=NUMBERS): ...
class Subtract(Binary, name="subtract", fn=E.sub, ref=np.subtract, kinds=NUMBERS): ...
class Multiply(Binary, name="multiply", fn=E.mul, ref=np.multiply, kinds=NUMBERS): ...
class Divide(Binary, name="divide", fn=E.div, ref=reference.trunc_divide, kinds=NUMBERS): ...
class TruncDivide(Binary, name="trunc_divide", fn=E.div, ref=reference.trunc_divide, kinds=("int",)): ...
class FloorDivide(Binary, name="floor_divide", fn=_floor_divide, kinds=NUMBERS,
                  ref=lambda a, b: np.floor_divide(a, b) if a.dtype.kind in "iu" else np.floor(a / b)): ...
class Mod(Binary, name="mod", fn=lambda a, b: E.Mod(a, b), ref=reference.trunc_mod, kinds=NUMBERS): ...
class TruncMod(Binary, name="trunc_mod", fn=lambda a, b: E.Mod(a, b), ref=reference.trunc_mod, kinds=NUMBERS): ...
class FloorMod(Binary, name="floor_mod", fn=_floor_mod, ref=np.mod, kinds=NUMBERS): ...
class Power(Binary, name="power", fn=_power, ref=reference.power, kinds=NUMBERS): ...
class Maximum(Binary, name="maximum", fn=E.maximum, ref=np.maximum, kinds=NUMBERS): ...
class Minimum(Binary, name="minimum", fn=E.minimum, ref=np.minimum, kinds=NUMBERS): ...
class LeftShift(Binary, name="left_shift", fn=intrinsic("shift_left"), kinds=("int",),
                ref=lambda a, b: reference.shift(a, b, True)): ...
class RightShift(Binary, name="right_shift", fn=intrinsic("shift_right"), kinds=("int",),
                 ref=lambda a, b: reference.shift(a, b, False)): ...
class BitwiseAnd(Binary, name="bitwise_and", fn=intrinsic("bitwise_and"), ref=np.bitwise_and, kinds=("int",)): ...
class BitwiseOr(Binary, name="bitwise_or", fn=intrinsic("bitwise_or"), ref=np.bitwise_or, kinds=("int",)): ...
class BitwiseXor(Binary, name="bitwise_xor", fn=intrinsic("bitwise_xor"), ref=np.bitwise_xor, kinds=("int",)): ...
class Equal(Compare, name="equal", fn=_equal, ref=np.equal): ...
class NotEqual(Compare, name="not_equal", fn=_not_equal, ref=np.not_equal): ...
class Less(Compare, name="less", fn=lambda a, b: a < b, ref=np.less, kinds=NUMBERS): ...
class LessEqual(Compare, name="less_equal", fn=lambda a, b: a <= b, ref=np.less_equal, kinds=NUMBERS): ...
class Greater(Compare, name="greater", fn=lambda a, b: a > b, ref=np.greater, kinds=NUMBERS): ...
class GreaterEqual(Compare, name="greater_equal", fn=lambda a, b: a >= b, ref=np.greater_equal, kinds=NUMBERS): ...
class LogicalAnd(Logical, name="logical_and", fn=E.land, ref=np.logical_and): ...
class LogicalOr(Logical, name="logical_or", fn=E.lor, ref=np.logical_or): ...
class LogicalXor(Logical, name="logical_xor", fn=_not_equal, ref=np.logical_xor): ...
# fmt: on


class Where(Injective, name="where", arity=3):
    """Elements of the second operand where the first (bool) is true, else of the third; all three broadcast."""

    def infer_type(self, types: Any, attrs: Attrs) -> Type:
        cond, a, b = tensors(self, types)
        if cond.dtype != "bool":
            raise self.error(f"the condition must be bool, got {cond.dtype}", "cast it first")
        if a.dtype != b.dtype:
            raise self.error(f"the choices have dtypes {a.dtype} and {b.dtype}", "cast them to one dtype")
        return TensorType(broadcast_shapes(self, cond.shape, a.shape, b.shape), a.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, *args: np.ndarray) -> np.ndarray:
        return np.where(args[0], args[1], args[2]).astype(args[1].dtype)

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        shape = out_type.shape

        def element(*index: Any) -> Any:
            cond, a, b = (at_broadcast(x, index, shape) for x in inputs)
            return E.select(cond, a, b)

        return te.compute(shape, element, name="where")
