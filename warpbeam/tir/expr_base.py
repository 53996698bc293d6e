"""The base of expressions: literals, arithmetic, comparisons, conversion; what Python's operators build.

Everything here is part of `warpbeam.tir.expr`, which adds variables, memory, choice and vectors; import it from there.
"""

from __future__ import annotations

import struct
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.node import Derived, Node, alive
from warpbeam.tir.literal import integer, real, trunc_div


class TruthError(IRError, ValueError):
    """Python asked an expression for its truth, with `if`, `and`, `or` or `not`; only the compiled program knows it.

    te.compute((4, 4), lambda i, j: A[i, j] if i > j else 0)              # this error
    te.compute((4, 4), lambda i, j: te.if_then_else(i > j, A[i, j], 0))   # its fix

    Wrong:
        if A[0, 0] < 1:
            print("small")
    Right:
        te.compute((4,), lambda i: te.if_then_else(A[i, 0] < 1, 1.0, 0.0))
    """


class PrimExpr(Node):
    """Base of expressions; `dtype` is computed when the node is built."""

    dtype: Derived[str]

    def __add__(self, other: Any) -> PrimExpr:
        return add(self, other)

    def __radd__(self, other: Any) -> PrimExpr:
        return add(other, self)

    def __sub__(self, other: Any) -> PrimExpr:
        return sub(self, other)

    def __rsub__(self, other: Any) -> PrimExpr:
        return sub(other, self)

    def __mul__(self, other: Any) -> PrimExpr:
        return mul(self, other)

    def __rmul__(self, other: Any) -> PrimExpr:
        return mul(other, self)

    def __truediv__(self, other: Any) -> PrimExpr:
        return div(self, other)

    def __rtruediv__(self, other: Any) -> PrimExpr:
        return div(other, self)

    def __floordiv__(self, other: Any) -> PrimExpr:
        return floordiv(self, other)

    def __rfloordiv__(self, other: Any) -> PrimExpr:
        return floordiv(other, self)

    def __mod__(self, other: Any) -> PrimExpr:
        return floormod(self, other)

    def __rmod__(self, other: Any) -> PrimExpr:
        return floormod(other, self)

    def __neg__(self) -> PrimExpr:
        return sub(const(0, self.dtype), self)

    def __lt__(self, other: Any) -> PrimExpr:
        return binary(LT, self, other)

    def __le__(self, other: Any) -> PrimExpr:
        return binary(LE, self, other)

    def __gt__(self, other: Any) -> PrimExpr:
        return binary(GT, self, other)

    def __ge__(self, other: Any) -> PrimExpr:
        return binary(GE, self, other)

    def __eq__(self, other: object) -> Any:
        if not isinstance(other, PrimExpr | int | float):
            return NotImplemented
        return binary(EQ, self, other)

    def __ne__(self, other: object) -> Any:
        if not isinstance(other, PrimExpr | int | float):
            return NotImplemented
        return binary(NE, self, other)

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise TruthError(
            f"a {type(self).__name__} expression has no truth value at compile time",
            why=f"cannot use and / or / not / if on {self!r}",
            hint="use tir.Select / te.if_then_else, tir.all / tir.any, or `is` for identity",
        )

    def __and__(self, other: Any) -> PrimExpr:
        return bits_of("bitwise_and", self, other)

    def __rand__(self, other: Any) -> PrimExpr:
        return bits_of("bitwise_and", other, self)

    def __or__(self, other: Any) -> PrimExpr:
        return bits_of("bitwise_or", self, other)

    def __ror__(self, other: Any) -> PrimExpr:
        return bits_of("bitwise_or", other, self)

    def __xor__(self, other: Any) -> PrimExpr:
        return bits_of("bitwise_xor", self, other)

    def __rxor__(self, other: Any) -> PrimExpr:
        return bits_of("bitwise_xor", other, self)

    def __lshift__(self, other: Any) -> PrimExpr:
        return bits_of("shift_left", self, other)

    def __rshift__(self, other: Any) -> PrimExpr:
        return bits_of("shift_right", self, other)

    def __invert__(self) -> PrimExpr:
        return bits_of("bitwise_not", self)

    def equal(self, other: Any) -> PrimExpr:
        """The comparison `self == other` as an expression."""
        return binary(EQ, self, other)

    def __repr__(self) -> str:
        from warpbeam.tir.text.printer import shown

        return shown(self)

    def astype(self, dtype: str) -> PrimExpr:
        return cast(dtype, self)


class IntImm(PrimExpr):
    """Integer or bool literal."""

    value: int
    type: str = "int64"

    @classmethod
    def _normalize(cls, value: Any, type: Any = "int64") -> tuple[Any, ...]:
        if isinstance(value, str):  # the classic order: dtype first
            value, type = type, value
        value = integer(value)
        if type == "int64" and -(1 << 31) <= value < 1 << 31:  # nearly all
            return value, type
        low, high = dt.int_range(type)
        if not low <= value <= high:
            span = high - low + 1
            value = (value - low) % span + low
        return value, type

    def _derive(self) -> None:
        object.__setattr__(self, "dtype", self.type)

    def __bool__(self) -> bool:
        """A bool literal has a truth value: `literal == literal` folds to one, also where Python compares tuples."""
        return bool(self.value) if self.type == "bool" else super().__bool__()


class FloatImm(PrimExpr):
    """Floating literal, keyed by its bits (so -0.0, 0.0 and NaNs are told apart)."""

    value: float
    type: str = "float32"

    @classmethod
    def _normalize(cls, value: Any, type: Any = "float32") -> tuple[Any, ...]:
        if isinstance(value, str):  # the classic order: dtype first
            value, type = type, value
        value = real(value)
        if type != "float64":
            import numpy as np

            with np.errstate(over="ignore"):
                value = float(dt.to_numpy(type).type(value))
        return value, type

    @classmethod
    def _key(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        return struct.pack("<d", values[0]), values[1]

    def _derive(self) -> None:
        self._set("dtype", self.type)


class StringImm(PrimExpr):
    value: str

    def _derive(self) -> None:
        self._set("dtype", "string")


class BinaryExpr(PrimExpr):
    """Two operands of one dtype, result of that dtype."""

    a: PrimExpr
    b: PrimExpr

    def _derive(self) -> None:
        dtype = self.a.dtype
        if dtype != self.b.dtype:
            same_dtype(self)
        object.__setattr__(self, "dtype", dtype)


def same_dtype(node: Any) -> None:
    if node.a.dtype != node.b.dtype:
        raise IRError(f"{type(node).__name__} of {node.a.dtype} and {node.b.dtype}", hint="cast one operand explicitly")


class Add(BinaryExpr): ...


class Sub(BinaryExpr): ...


class Mul(BinaryExpr): ...


class Div(BinaryExpr):
    """Quotient: exact for floats; for integers it truncates toward zero. Integer x/0 is 0 and INT_MIN/-1 wraps."""


class Mod(BinaryExpr):
    """Remainder that goes with `Div` (sign of the dividend; C fmod for floats). Integer x%0 is 0."""


class FloorDiv(BinaryExpr):
    """Integer quotient rounded down. x//0 is 0."""


class FloorMod(BinaryExpr):
    """Remainder that goes with `FloorDiv` (sign of the divisor). x%0 is 0."""


class Min(BinaryExpr):
    """Smaller operand; a NaN operand wins (as numpy.minimum)."""


class Max(BinaryExpr):
    """Larger operand; a NaN operand wins (as numpy.maximum)."""


class CmpExpr(PrimExpr):
    """Comparison of two operands of one dtype; result bool with the same lanes."""

    a: PrimExpr
    b: PrimExpr

    def _derive(self) -> None:
        same_dtype(self)
        self._set("dtype", dt.with_lanes("bool", dt.lanes(self.a.dtype)))


class EQ(CmpExpr):
    def __bool__(self) -> bool:
        return self.a is self.b


class NE(CmpExpr):
    def __bool__(self) -> bool:
        return self.a is not self.b


class LT(CmpExpr): ...


class LE(CmpExpr): ...


class GT(CmpExpr): ...


class GE(CmpExpr): ...


class Cast(PrimExpr):
    """Value conversion. Float to int saturates and maps NaN to 0; int to narrower int wraps; to bool is `!= 0`."""

    type: str
    value: PrimExpr

    def _derive(self) -> None:
        self._set("dtype", self.type)


class Broadcast(PrimExpr):
    """Scalar repeated `count` times."""

    value: PrimExpr
    count: int

    def _derive(self) -> None:
        self._set("dtype", dt.with_lanes(self.value.dtype, self.count))


_FOLD: dict[type, Any] = {
    Add: lambda a, b: a + b,
    Sub: lambda a, b: a - b,
    Mul: lambda a, b: a * b,
    FloorDiv: lambda a, b: a // b if b else 0,
    FloorMod: lambda a, b: a % b if b else 0,
    Min: min,
    Max: max,
    EQ: lambda a, b: a == b,
    NE: lambda a, b: a != b,
    LT: lambda a, b: a < b,
    LE: lambda a, b: a <= b,
    GT: lambda a, b: a > b,
    GE: lambda a, b: a >= b,
}
_COMPARES = (EQ, NE, LT, LE, GT, GE)


def const(value: Any, dtype: str | None = None) -> PrimExpr:
    """A literal; with lanes in the dtype, a broadcast literal. Python ints default to int64, floats to float32."""
    if type(value) is int and (dtype is None or dtype == "int64"):
        found = alive(IntImm, value, "int64")
        return IntImm(value) if found is None else found
    if dtype is None:
        kind = "bool" if isinstance(value, bool) else "int64" if isinstance(value, int) else "float32"
        dtype = str(getattr(value, "dtype", kind))
    dtype = dt.canonical(dtype)
    base = dt.scalar(dtype)
    lit: PrimExpr = FloatImm(value, base) if dt.is_float(base) else IntImm(integer(value), base)
    return lit if base == dtype else Broadcast(lit, dt.lanes(dtype))


def as_expr(value: Any, dtype: str | None = None) -> PrimExpr:
    """A PrimExpr from a PrimExpr or a Python number."""
    if isinstance(value, PrimExpr):
        return value
    if type(value) is int:
        return const(value, dtype)
    if hasattr(value, "__prim_expr__"):
        found: PrimExpr = value.__prim_expr__()
        return found
    if isinstance(value, str):
        return StringImm(value)
    if hasattr(value, "item"):
        value = value.item()
    return const(value, dtype)


def pair(a: Any, b: Any) -> tuple[PrimExpr, PrimExpr]:
    """Both operands as expressions of one dtype: literals and lanes adapt, other dtypes meet in `common_dtype`."""
    if isinstance(a, PrimExpr):
        if type(b) is int and a.dtype == "int64":
            return a, const(b)
        if isinstance(b, PrimExpr) and a.dtype == b.dtype:
            return a, b
    if not isinstance(a, PrimExpr) and hasattr(a, "__prim_expr__"):
        a = a.__prim_expr__()
    if not isinstance(b, PrimExpr) and hasattr(b, "__prim_expr__"):
        b = b.__prim_expr__()
    if isinstance(a, PrimExpr) and not isinstance(b, PrimExpr):
        b = as_expr(b, a.dtype if not (isinstance(b, float) and not dt.is_float(a.dtype)) else None)
    elif isinstance(b, PrimExpr) and not isinstance(a, PrimExpr):
        a = as_expr(a, b.dtype if not (isinstance(a, float) and not dt.is_float(b.dtype)) else None)
    elif not isinstance(a, PrimExpr):
        a, b = as_expr(a), as_expr(b)
    la, lb = dt.lanes(a.dtype), dt.lanes(b.dtype)
    if la != lb:
        if la == 1:
            a = Broadcast(a, lb)
        elif lb == 1:
            b = Broadcast(b, la)
    if a.dtype != b.dtype:
        common = dt.with_lanes(common_dtype(dt.scalar(a.dtype), dt.scalar(b.dtype)), dt.lanes(a.dtype))
        a, b = cast(common, a), cast(common, b)
    return a, b


def common_dtype(a: str, b: str) -> str:
    """Where two scalar dtypes meet: a float wins over integers, the wider of two alike, signed at equal width."""
    if a == b or "handle" in (a, b) or "string" in (a, b):
        return a
    if dt.is_float(a) != dt.is_float(b):
        return a if dt.is_float(a) else b
    if dt.is_bool(a) or dt.is_bool(b):
        return b if dt.is_bool(a) else a
    if dt.bits(a) != dt.bits(b):
        return a if dt.bits(a) > dt.bits(b) else b
    if dt.is_float(a):
        return "float32"  # bfloat16 and float16, or two kinds of float8
    return a if dt.is_unsigned(b) else b


def bits_of(op: str, a: Any, *others: Any) -> PrimExpr:
    """A bitwise operation on integers or bools."""
    from warpbeam.tir.expr import Call, land, lnot, lor

    x, y = pair(a, others[0]) if others else (as_expr(a), None)
    if dt.is_bool(x.dtype) and op in ("bitwise_and", "bitwise_or", "bitwise_not"):
        return lnot(x) if y is None else land(x, y) if op == "bitwise_and" else lor(x, y)
    if dt.is_float(x.dtype):
        raise IRError(f"{op} of {x.dtype}", hint="bits of a float: tir.reinterpret to an integer dtype first")
    return Call(x.dtype, op, (x,) if y is None else (x, y))


def binary(cls: type[PrimExpr], a: Any, b: Any) -> PrimExpr:
    """A binary node with integer literals folded."""
    return _folded(cls, *pair(a, b))


def _folded(cls: type[PrimExpr], x: PrimExpr, y: PrimExpr) -> PrimExpr:
    if type(x) is IntImm and type(y) is IntImm and cls in _FOLD:
        value = _FOLD[cls](x.value, y.value)
        return IntImm(value, "bool" if cls in _COMPARES else x.type)
    return cls(x, y)


def _is(value: PrimExpr, number: int) -> bool:
    return type(value) is IntImm and value.value == number


def add(a: Any, b: Any) -> PrimExpr:
    x, y = pair(a, b)
    if _is(y, 0):
        return x
    if _is(x, 0):
        return y
    return _folded(Add, x, y)


def sub(a: Any, b: Any) -> PrimExpr:
    x, y = pair(a, b)
    if _is(y, 0):
        return x
    if x is y and dt.is_int(x.dtype):
        return const(0, x.dtype)
    return _folded(Sub, x, y)


def mul(a: Any, b: Any) -> PrimExpr:
    x, y = pair(a, b)
    if _is(y, 1) or _is(x, 0):
        return x
    if _is(x, 1) or _is(y, 0):
        return y
    return _folded(Mul, x, y)


def div(a: Any, b: Any) -> PrimExpr:
    """`a / b`: exact for floats, truncating for integers."""
    x, y = pair(a, b)
    if type(x) is IntImm and type(y) is IntImm:
        return const(trunc_div(x.value, y.value), x.dtype)
    return x if _is(y, 1) else Div(x, y)


def floordiv(a: Any, b: Any) -> PrimExpr:
    x, y = pair(a, b)
    return x if _is(y, 1) else binary(FloorDiv, x, y)


def floormod(a: Any, b: Any) -> PrimExpr:
    x, y = pair(a, b)
    if _is(y, 1):
        return const(0, x.dtype)
    return binary(FloorMod, x, y)


def cast(dtype: str, value: Any) -> PrimExpr:
    """Converts to `dtype`; no node when it already has it; lanes of the operand are kept for a scalar dtype, and a
    scalar goes to every lane of a vector's.
    """
    x, dtype = as_expr(value), dt.canonical(dtype)
    if dt.lanes(dtype) > 1 and dt.lanes(x.dtype) == 1:
        return Broadcast(cast(dt.scalar(dtype), x), dt.lanes(dtype))
    if dt.lanes(dtype) == 1 and dt.lanes(x.dtype) > 1:
        dtype = dt.with_lanes(dtype, dt.lanes(x.dtype))
    if x.dtype == dtype:
        return x
    if type(x) is IntImm and not dt.is_float(dtype) and dt.lanes(dtype) == 1:
        return const(x.value != 0 if dtype == "bool" else x.value, dtype)
    if type(x) is IntImm and dt.is_float(dtype) and dt.lanes(dtype) == 1:
        return const(float(x.value), dtype)
    return Cast(dtype, x)
