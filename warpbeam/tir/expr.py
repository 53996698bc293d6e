"""Scalar and vector expressions of loop programs.

Every expression carries its dtype. Python operators build expressions and fold constants; `a == b` builds an EQ node
whose
`bool()` is identity, so expressions serve as dict keys.
"""

from __future__ import annotations

import struct
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.node import Attrs, Binder, Derived, Node


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
        raise IRError(
            f"a {type(self).__name__} expression has no truth value at compile time",
            hint="use tir.Select / te.if_then_else, tir.all / tir.any, or `is` for identity",
        )

    def astype(self, dtype: str) -> PrimExpr:
        return cast(dtype, self)


class Var(Binder, PrimExpr):
    """A scalar variable; loop variables and symbolic dimensions are such. `nonneg` states that it is >= 0 (a size)."""

    name: str
    type: str = "int64"
    nonneg: bool = False

    def _derive(self) -> None:
        Binder._derive(self)
        self._set("dtype", self.type)


def SizeVar(name: str, dtype: str = "int64") -> Var:
    """A variable that stands for a size (>= 0)."""
    return Var(name, dtype, True)  # type: ignore[no-any-return]


class IntImm(PrimExpr):
    """Integer or bool literal."""

    value: int
    type: str = "int64"

    @classmethod
    def _normalize(cls, value: int, type: str = "int64") -> tuple[Any, ...]:
        value = int(value)
        low, high = dt.int_range(type)
        if not low <= value <= high:
            span = high - low + 1
            value = (value - low) % span + low
        return value, type

    def _derive(self) -> None:
        self._set("dtype", self.type)

    def __bool__(self) -> bool:
        """A bool literal has a truth value: `literal == literal` folds to one, also where Python compares tuples."""
        return bool(self.value) if self.type == "bool" else super().__bool__()


class FloatImm(PrimExpr):
    """Floating literal, keyed by its bits (so -0.0, 0.0 and NaNs are told apart)."""

    value: float
    type: str = "float32"

    @classmethod
    def _normalize(cls, value: float, type: str = "float32") -> tuple[Any, ...]:
        value = float(value)
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
        _same_dtype(self)
        self._set("dtype", self.a.dtype)


def _same_dtype(node: Any) -> None:
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
        _same_dtype(self)
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


class And(BinaryExpr):
    """Logical and of bools; both sides are evaluated and free of effects."""


class Or(BinaryExpr):
    """Logical or of bools; both sides are evaluated and free of effects."""


class Not(PrimExpr):
    a: PrimExpr

    def _derive(self) -> None:
        self._set("dtype", self.a.dtype)


class Select(PrimExpr):
    """`a` where `cond`, else `b`. Both sides are evaluated: loads in them must be in bounds (else use if_then_else)."""

    cond: PrimExpr
    a: PrimExpr
    b: PrimExpr

    def _derive(self) -> None:
        _same_dtype(self)
        self._set("dtype", self.a.dtype)


class Cast(PrimExpr):
    """Value conversion. Float to int saturates and maps NaN to 0; int to narrower int wraps; to bool is `!= 0`."""

    type: str
    value: PrimExpr

    def _derive(self) -> None:
        self._set("dtype", self.type)


class Call(PrimExpr):
    """Call of a named intrinsic (see tir/intrin.py): exp, sqrt, fma, if_then_else, shift_left, likely,
    call_extern, …
    """

    type: str
    op: str
    args: tuple[PrimExpr, ...]
    attrs: Attrs = Attrs()

    @classmethod
    def _normalize(cls, type: str, op: str, args: Any, attrs: Any = None) -> tuple[Any, ...]:
        return type, op, tuple(as_expr(a) for a in args), attrs if isinstance(attrs, Attrs) else Attrs(attrs or {})

    def _derive(self) -> None:
        self._set("dtype", self.type)


class Buffer(Binder):
    """A typed memory region: compact row-major over `shape` (ints or expressions).

    scope: "global" (arguments and arena), "local" (small stack array), "register" (SSA values after unrolling),
    "shared".
    """

    name: str
    shape: tuple[Any, ...]
    dtype: str = "float32"
    scope: str = "global"

    @classmethod
    def _normalize(cls, name: str, shape: Any, dtype: str = "float32", scope: str = "global") -> tuple[Any, ...]:
        return name, tuple(simplify_dim(s) for s in shape), dtype, scope

    def __getitem__(self, indices: Any) -> BufferLoad:
        return BufferLoad(self, indices if isinstance(indices, tuple) else (indices,))  # type: ignore[no-any-return]


def simplify_dim(value: Any) -> Any:
    """A dimension: a Python int where it is constant, else an int64 expression."""
    if isinstance(value, IntImm):
        return value.value
    if isinstance(value, PrimExpr):
        return value
    return int(value)


class BufferLoad(PrimExpr):
    """Element(s) of a buffer; the last index may be a Ramp (vector load of its lanes, gather if its stride is not
    1).
    """

    buffer: Buffer
    indices: tuple[PrimExpr, ...]

    @classmethod
    def _normalize(cls, buffer: Buffer, indices: Any) -> tuple[Any, ...]:
        idx = tuple(as_expr(i) for i in indices)
        if len(idx) != len(buffer.shape):
            raise IRError(f"buffer {buffer.name} has {len(buffer.shape)} dimensions, indexed with {len(idx)}")
        return buffer, idx

    def _derive(self) -> None:
        count = 1
        for i in self.indices:
            count = max(count, dt.lanes(i.dtype))
        self._set("dtype", dt.with_lanes(self.buffer.dtype, count * dt.lanes(self.buffer.dtype)))


class Ramp(PrimExpr):
    """Vector base, base+stride, …, of `count` lanes."""

    base: PrimExpr
    stride: PrimExpr
    count: int

    def _derive(self) -> None:
        self._set("dtype", dt.with_lanes(self.base.dtype, self.count))


class Broadcast(PrimExpr):
    """Scalar repeated `count` times."""

    value: PrimExpr
    count: int

    def _derive(self) -> None:
        self._set("dtype", dt.with_lanes(self.value.dtype, self.count))


class Shuffle(PrimExpr):
    """Lanes `indices` of the concatenation of `vectors`."""

    vectors: tuple[PrimExpr, ...]
    indices: tuple[int, ...]

    def _derive(self) -> None:
        self._set("dtype", dt.with_lanes(self.vectors[0].dtype, len(self.indices)))


class Let(PrimExpr):
    """`body` with `var` bound to `value`."""

    var: Var
    value: PrimExpr
    body: PrimExpr

    def _derive(self) -> None:
        self._set("dtype", self.body.dtype)


# --------------------------------------------------------------------------------------------------------- construction

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
    if dtype is None:
        dtype = "bool" if isinstance(value, bool) else "int64" if isinstance(value, int) else "float32"
    base = dt.scalar(dtype)
    lit: PrimExpr = FloatImm(value, base) if dt.is_float(base) else IntImm(int(value), base)
    return lit if base == dtype else Broadcast(lit, dt.lanes(dtype))


def as_expr(value: Any, dtype: str | None = None) -> PrimExpr:
    """A PrimExpr from a PrimExpr or a Python number."""
    if isinstance(value, PrimExpr):
        return value
    if hasattr(value, "__prim_expr__"):
        return value.__prim_expr__()  # type: ignore[no-any-return]
    if isinstance(value, str):
        return StringImm(value)  # type: ignore[no-any-return]
    if hasattr(value, "item"):
        value = value.item()
    return const(value, dtype)


def _pair(a: Any, b: Any) -> tuple[PrimExpr, PrimExpr]:
    """Both operands as expressions of one dtype: literals and lanes adapt, int32 index meets int64 index by
    widening.
    """
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
        sa, sb = dt.scalar(a.dtype), dt.scalar(b.dtype)
        if {sa, sb} == {"int32", "int64"}:
            a, b = (
                cast(dt.with_lanes("int64", dt.lanes(a.dtype)), a),
                cast(dt.with_lanes("int64", dt.lanes(b.dtype)), b),
            )
    return a, b


def binary(cls: type, a: Any, b: Any) -> PrimExpr:
    """A binary node with integer literals folded."""
    a, b = _pair(a, b)
    if type(a) is IntImm and type(b) is IntImm and cls in _FOLD:
        value = _FOLD[cls](a.value, b.value)
        return IntImm(value, "bool" if cls in _COMPARES else a.type)  # type: ignore[no-any-return]
    return cls(a, b)  # type: ignore[no-any-return]


def _is(value: PrimExpr, number: int) -> bool:
    return type(value) is IntImm and value.value == number


def add(a: Any, b: Any) -> PrimExpr:
    a, b = _pair(a, b)
    if _is(b, 0):
        return a
    if _is(a, 0):
        return b
    return binary(Add, a, b)


def sub(a: Any, b: Any) -> PrimExpr:
    a, b = _pair(a, b)
    if _is(b, 0):
        return a
    if a is b and dt.is_int(a.dtype):
        return const(0, a.dtype)
    return binary(Sub, a, b)


def mul(a: Any, b: Any) -> PrimExpr:
    a, b = _pair(a, b)
    if _is(b, 1) or _is(a, 0):
        return a
    if _is(a, 1) or _is(b, 0):
        return b
    return binary(Mul, a, b)


def div(a: Any, b: Any) -> PrimExpr:
    """`a / b`: exact for floats, truncating for integers."""
    a, b = _pair(a, b)
    if type(a) is IntImm and type(b) is IntImm:
        return const(_trunc_div(a.value, b.value), a.dtype)
    return a if _is(b, 1) else Div(a, b)  # type: ignore[no-any-return]


def _trunc_div(a: int, b: int) -> int:
    if b == 0:
        return 0
    q = abs(a) // abs(b)
    return q if (a < 0) == (b < 0) else -q


def floordiv(a: Any, b: Any) -> PrimExpr:
    a, b = _pair(a, b)
    return a if _is(b, 1) else binary(FloorDiv, a, b)


def floormod(a: Any, b: Any) -> PrimExpr:
    a, b = _pair(a, b)
    if _is(b, 1):
        return const(0, a.dtype)
    return binary(FloorMod, a, b)


def ceildiv(a: Any, b: Any) -> PrimExpr:
    """Integer quotient rounded up."""
    a, b = _pair(a, b)
    return floordiv(add(a, sub(b, 1)), b)


def minimum(a: Any, b: Any) -> PrimExpr:
    a, b = _pair(a, b)
    return a if a is b else binary(Min, a, b)


def maximum(a: Any, b: Any) -> PrimExpr:
    a, b = _pair(a, b)
    return a if a is b else binary(Max, a, b)


def cast(dtype: str, value: Any) -> PrimExpr:
    """Converts to `dtype`; no node when it already has it; lanes of the operand are kept for a scalar dtype."""
    value = as_expr(value)
    if dt.lanes(dtype) == 1 and dt.lanes(value.dtype) > 1:
        dtype = dt.with_lanes(dtype, dt.lanes(value.dtype))
    if value.dtype == dtype:
        return value
    if type(value) is IntImm and not dt.is_float(dtype) and dt.lanes(dtype) == 1:
        return const(value.value != 0 if dtype == "bool" else value.value, dtype)
    if type(value) is IntImm and dt.is_float(dtype) and dt.lanes(dtype) == 1:
        return const(float(value.value), dtype)
    return Cast(dtype, value)  # type: ignore[no-any-return]


def land(*conds: Any) -> PrimExpr:
    """Logical and of any number of bool expressions; true for none."""
    out: PrimExpr = IntImm(1, "bool")
    for c in (as_expr(v, "bool") for v in conds):
        if type(c) is IntImm:
            if not c.value:
                return c
            continue
        out = c if type(out) is IntImm else And(out, c)
    return out


def lor(*conds: Any) -> PrimExpr:
    """Logical or of any number of bool expressions; false for none."""
    out: PrimExpr = IntImm(0, "bool")
    for c in (as_expr(v, "bool") for v in conds):
        if type(c) is IntImm:
            if c.value:
                return c
            continue
        out = c if type(out) is IntImm else Or(out, c)
    return out


def lnot(cond: Any) -> PrimExpr:
    cond = as_expr(cond, "bool")
    return IntImm(not cond.value, "bool") if type(cond) is IntImm else Not(cond)  # type: ignore[no-any-return]


def select(cond: Any, a: Any, b: Any) -> PrimExpr:
    """Branch-free choice; folds a literal condition."""
    cond = as_expr(cond, "bool")
    a, b = _pair(a, b)
    if type(cond) is IntImm:
        return a if cond.value else b
    return a if a is b else Select(cond, a, b)  # type: ignore[no-any-return]


def call(op: str, *args: Any, dtype: str | None = None, **attrs: Any) -> PrimExpr:
    """Intrinsic call; the dtype defaults to the first argument's."""
    exprs = tuple(as_expr(a) for a in args)
    return Call(dtype or exprs[0].dtype, op, exprs, Attrs(attrs))  # type: ignore[no-any-return]


def if_then_else(cond: Any, a: Any, b: Any) -> PrimExpr:
    """Lazy choice: only the chosen side is evaluated, so loads in the other may be out of bounds."""
    cond = as_expr(cond, "bool")
    a, b = _pair(a, b)
    if type(cond) is IntImm:
        return a if cond.value else b
    return Call(a.dtype, "if_then_else", (cond, a, b))  # type: ignore[no-any-return]


def const_int(value: Any) -> int | None:
    """The Python int of a constant index expression or int, else None."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return value.value if type(value) is IntImm else None
