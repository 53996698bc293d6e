"""Functions on scalar expressions: mathematics, division, conditions, calls; public as `tir.exp`, `te.exp` and so on.

    tir.exp(x)      tir.floordiv(i, 4)      tir.all(i < n, j < m)      tir.call_extern("int32", "fill", A.data, n)

Operands are expressions, axes or Python numbers. Floating functions of integers give float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import IRError
from warpbeam.tir import expr as e
from warpbeam.tir.buffer import Buffer
from warpbeam.tir.expr import BufferLoad, Call, IntImm, PrimExpr, StringImm, as_expr
from warpbeam.tir.expr import ceildiv as ceildiv
from warpbeam.tir.expr import const as const
from warpbeam.tir.intrin import INTRINSICS

Unary = Callable[[Any], PrimExpr]
Binary = Callable[[Any, Any], PrimExpr]


def _operand(x: Any) -> PrimExpr:
    found = as_expr(x)
    return found if dt.is_float(found.dtype) else e.cast("float32", found)


def _doc(name: str) -> str:
    return f"{INTRINSICS[name].doc}."


def _floating(name: str) -> Unary:
    def fn(x: Any) -> PrimExpr:
        value = _operand(x)
        return Call(value.dtype, name, (value,))

    fn.__name__, fn.__doc__ = name, _doc(name)
    return fn


def _rounding(name: str) -> Unary:
    """A function that leaves integers as they are."""

    def fn(x: Any) -> PrimExpr:
        value = as_expr(x)
        return Call(value.dtype, name, (value,)) if dt.is_float(value.dtype) else value

    fn.__name__, fn.__doc__ = name, _doc(name)
    return fn


def _test(name: str) -> Unary:
    def fn(x: Any) -> PrimExpr:
        value = as_expr(x)
        kind = dt.with_lanes("bool", dt.lanes(value.dtype))
        return Call(kind, name, (value,)) if dt.is_float(value.dtype) else const(name == "isfinite", kind)

    fn.__name__, fn.__doc__ = name, _doc(name)
    return fn


def _binary(name: str, floating: bool) -> Binary:
    def fn(a: Any, b: Any) -> PrimExpr:
        x, y = e.pair(a, b)
        if floating and not dt.is_float(x.dtype):
            x, y = _operand(x), _operand(y)
        return Call(x.dtype, name, (x, y))

    fn.__name__, fn.__doc__ = name, _doc(name)
    return fn


exp, exp2, exp10, expm1 = _floating("exp"), _floating("exp2"), _floating("exp10"), _floating("expm1")
log, log2, log10, log1p = _floating("log"), _floating("log2"), _floating("log10"), _floating("log1p")
sqrt, rsqrt, erf, sigmoid = _floating("sqrt"), _floating("rsqrt"), _floating("erf"), _floating("sigmoid")
sin, cos, tan = _floating("sin"), _floating("cos"), _floating("tan")
sinh, cosh, tanh = _floating("sinh"), _floating("cosh"), _floating("tanh")
asin, acos, atan = _floating("asin"), _floating("acos"), _floating("atan")
asinh, acosh, atanh = _floating("asinh"), _floating("acosh"), _floating("atanh")
floor, ceil, trunc, round = _rounding("floor"), _rounding("ceil"), _rounding("trunc"), _rounding("round")
nearbyint = round
isnan, isinf, isfinite = _test("isnan"), _test("isinf"), _test("isfinite")
atan2, copysign, nextafter = _binary("atan2", True), _binary("copysign", True), _binary("nextafter", True)
hypot, fmod, power = _binary("hypot", True), _binary("fmod", True), _binary("pow", False)
pow = power
bitwise_and: Binary = lambda a, b: e.pair(a, b)[0] & e.pair(a, b)[1]  # noqa: E731
bitwise_or: Binary = lambda a, b: e.pair(a, b)[0] | e.pair(a, b)[1]  # noqa: E731
bitwise_xor: Binary = lambda a, b: e.pair(a, b)[0] ^ e.pair(a, b)[1]  # noqa: E731
bitwise_not: Unary = lambda x: ~as_expr(x)  # noqa: E731
shift_left: Binary = lambda a, b: e.pair(a, b)[0] << e.pair(a, b)[1]  # noqa: E731
shift_right: Binary = lambda a, b: e.pair(a, b)[0] >> e.pair(a, b)[1]  # noqa: E731


def abs(x: Any) -> PrimExpr:
    """Magnitude; the least integer is its own."""
    value = as_expr(x)
    return value if dt.is_unsigned(value.dtype) else Call(value.dtype, "abs", (value,))


def ldexp(x: Any, k: Any) -> PrimExpr:
    """x * 2**k for an integer k."""
    value = _operand(x)
    return Call(value.dtype, "ldexp", (value, as_expr(k)))


def popcount(x: Any) -> PrimExpr:
    """Number of bits set."""
    value = as_expr(x)
    return Call(value.dtype, "popcount", (value,))


def clz(x: Any) -> PrimExpr:
    """Number of leading zero bits; the width for 0."""
    value = as_expr(x)
    return Call(value.dtype, "clz", (value,))


def reinterpret(dtype: str, value: Any) -> PrimExpr:
    """The same bits as another dtype of equal size."""
    return Call(dtype, "reinterpret", (as_expr(value),))


# ------------------------------------------------------------------------------------------------------------- division


def div(a: Any, b: Any) -> PrimExpr:
    """`a / b`: exact for floats, rounded toward zero for integers."""
    return e.div(a, b)


truncdiv = div


def truncmod(a: Any, b: Any) -> PrimExpr:
    """The remainder that goes with `truncdiv`: it has the sign of `a`."""
    x, y = e.pair(a, b)
    if type(x) is IntImm and type(y) is IntImm:
        return const(x.value - e.trunc_div(x.value, y.value) * y.value if y.value else 0, x.dtype)
    return e.Mod(x, y)


def floordiv(a: Any, b: Any) -> PrimExpr:
    """The quotient rounded down."""
    x, y = e.pair(a, b)
    return floor(e.div(x, y)) if dt.is_float(x.dtype) else e.floordiv(x, y)


def floormod(a: Any, b: Any) -> PrimExpr:
    """The remainder that goes with `floordiv`: it has the sign of `b`."""
    x, y = e.pair(a, b)
    return x - floor(e.div(x, y)) * y if dt.is_float(x.dtype) else e.floormod(x, y)


indexdiv, indexmod = floordiv, floormod

# --------------------------------------------------------------------------------------------------- conditions, limits


def all(*conds: Any) -> PrimExpr:
    """Logical and of conditions."""
    return e.land(*_conditions("all", conds))


def any(*conds: Any) -> PrimExpr:
    """Logical or of conditions."""
    return e.lor(*_conditions("any", conds))


def _conditions(name: str, conds: tuple[Any, ...]) -> list[PrimExpr]:
    if not conds:
        raise IRError(f"{name}() needs at least one condition")
    found = [as_expr(c, "bool") for c in conds]
    for c in found:
        if not dt.is_bool(c.dtype):
            raise IRError(f"{name}() of a {c.dtype}", hint="its operands are conditions such as i < n")
    return found


def if_then_else(cond: Any, t: Any, f: Any) -> PrimExpr:
    """`t` where `cond` holds, else `f`; only the chosen side is evaluated, so the other may load out of bounds."""
    return e.if_then_else(cond, t, f)


def likely(cond: Any) -> PrimExpr:
    """The condition, said to be mostly true: loops are cut so that the test is needed at the border only."""
    test = as_expr(cond, "bool")
    return test if type(test) is IntImm else Call(test.dtype, "likely", (test,))


def _limit(dtype: str, low: bool) -> PrimExpr:
    dtype = dt.canonical(dtype)
    if not dt.is_float(dtype):
        return const(dt.int_range(dt.scalar(dtype))[0 if low else 1], dtype)
    import ml_dtypes

    info: Any = ml_dtypes.finfo(dt.to_numpy(dtype))  # type: ignore[no-untyped-call]
    return const(float(info.min if low else info.max), dtype)


def exp_below(x: Any, top: Any) -> PrimExpr:
    """e^(x - top), where `top` is the greatest of some numbers and x one of them: see `exp` in `tir/mathlib.py`."""
    return e.call("exp", x - top, most=0.0, rounded=True)


def min_value(dtype: str, span: Any = None) -> PrimExpr:
    """The least finite value of a dtype."""
    return _limit(dtype, True)


def max_value(dtype: str, span: Any = None) -> PrimExpr:
    """The largest finite value of a dtype."""
    return _limit(dtype, False)


def infinity(dtype: str, span: Any = None) -> PrimExpr:
    """Positive infinity of a floating dtype."""
    return const(float("inf"), dtype)


# ---------------------------------------------------------------------------------------------------------------- calls


def call_intrin(dtype: str, func_name: str, *args: Any) -> PrimExpr:
    """A call of an intrinsic by name, "exp" or "tir.exp"; the table is tir/intrin.py."""
    name = str(func_name).removeprefix("tir.")
    if name.startswith("llvm."):
        return call_llvm_pure_intrin(dtype, name, *args)
    return Call(dtype, _ALIASES.get(name, name), args)


_ALIASES = {
    "power": "pow", "nearbyint": "round", "fabs": "abs", "tvm_access_ptr": "access_ptr",
    "tvm_storage_sync": "storage_sync",
}  # fmt: skip
call_pure_intrin = call_intrin


def call_extern(dtype: str, func_name: str, *args: Any) -> PrimExpr:
    """A call of a C function; buffers are passed as pointers to their data."""
    return Call(dtype, "call_extern", args, {"name": str(func_name)})


def call_pure_extern(dtype: str, func_name: str, *args: Any) -> PrimExpr:
    """A call of a C function that has no effect, so that it may be moved, merged and dropped."""
    return Call(dtype, "call_pure_extern", args, {"name": str(func_name)})


def call_packed(name: Any, *args: Any) -> PrimExpr:
    """A call of a registered Python function; buffers are passed as tensors."""
    name = name.value if isinstance(name, StringImm) else str(name)
    return Call("int32", "call_packed", args, {"name": name})


call_cpacked = call_packed


def call_llvm_intrin(dtype: str, name: str, *args: Any) -> PrimExpr:
    """A call of one of LLVM's intrinsics that stays in place; a leading uint32 count of arguments is dropped."""
    return Call(dtype, "call_llvm_intrin", _signature(args), {"name": name})


def call_llvm_pure_intrin(dtype: str, name: str, *args: Any) -> PrimExpr:
    """A call of one of LLVM's intrinsics without effect; a leading uint32 count of arguments is dropped."""
    return Call(dtype, "call_llvm_pure_intrin", _signature(args), {"name": name})


def _signature(args: tuple[Any, ...]) -> tuple[Any, ...]:
    first = args[0] if args else None
    counted = isinstance(first, IntImm) and first.dtype == "uint32" and first.value <= len(args) - 1
    return args[1:] if counted else args


def address_of(place: Any) -> PrimExpr:
    """The pointer to a buffer's element (`address_of(A[i, j])`) or to its first (`address_of(A)`)."""
    if isinstance(place, Buffer):
        return place.data
    if not isinstance(place, BufferLoad):
        raise IRError("address_of takes a buffer or one of its elements", hint="address_of(A[i, j])")
    return Call("handle", "address_of", (place,))
