"""Arithmetic, comparisons and choices of expressions, each with a meaning for every value."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from warpbeam.codegen import analysis
from warpbeam.codegen.llvm import memory, runs
from warpbeam.codegen.llvm.convert import convert, fn_true, from_compute, to_compute, zero
from warpbeam.codegen.llvm.emitter import Value
from warpbeam.codegen.llvm.types import value_type, vector
from warpbeam.ir import dtype as dt
from warpbeam.tir import expr as E

if TYPE_CHECKING:
    from warpbeam.codegen.llvm.function import FunctionPrinter

_FLOAT = {E.Add: "fadd", E.Sub: "fsub", E.Mul: "fmul", E.Div: "fdiv"}
_INT = {E.Add: "add", E.Sub: "sub", E.Mul: "mul", E.And: "and", E.Or: "or"}
_COMPARE = {
    E.EQ: ("oeq", "eq", "eq"), E.NE: ("une", "ne", "ne"), E.LT: ("olt", "slt", "ult"), E.LE: ("ole", "sle", "ule"),
    E.GT: ("ogt", "sgt", "ugt"), E.GE: ("oge", "sge", "uge"),
}  # fmt: skip


def binary(fn: FunctionPrinter, node: Any, a: Value, b: Value) -> Value:
    """Add, Sub, Mul, Div, Mod, FloorDiv, FloorMod, Min, Max, And, Or."""
    kind = type(node)
    if dt.is_float(node.dtype):
        a, b = to_compute(fn, a, node.dtype), to_compute(fn, b, node.dtype)
        return from_compute(fn, _float_binary(fn, kind, node, a, b), node.dtype)
    if kind in _INT:
        if dt.is_bool(dt.scalar(node.dtype)) and kind not in (E.And, E.Or):
            return fn.op(f"{'and' if kind is E.Mul else 'or' if kind is E.Add else 'xor'} {a}, {b.name}", a.type, a, b)
        return fn.op(f"{_INT[kind]} {a}, {b.name}", a.type, a, b)
    unsigned = dt.is_unsigned(dt.scalar(node.dtype)) or dt.is_bool(dt.scalar(node.dtype))
    if kind in (E.Min, E.Max):
        word = ("umin" if unsigned else "smin") if kind is E.Min else ("umax" if unsigned else "smax")
        return fn.call(f"llvm.{word}.{int_suffix(a.type)}", a.type, a, b)
    return _divide(fn, kind, node, a, b, unsigned)


def _float_binary(fn: FunctionPrinter, kind: Any, node: Any, a: Value, b: Value) -> Value:
    if kind in _FLOAT:
        return fn.op(f"{_FLOAT[kind]} {a}, {b.name}", a.type, a, b)
    if kind in (E.Min, E.Max):
        return _min_max(fn, kind is E.Max, a, b, (never_nan(node.a), never_nan(node.b)))
    remainder = fn.remainder(a, b)
    if kind is E.Mod:
        return remainder
    if kind is E.FloorMod:
        flags = _flags(a)
        wrong = fn.op(f"fcmp olt {_signs(fn, remainder, b)}", flags, remainder, b)
        off = fn.op(f"fcmp one {remainder}, {zero(fn, a.type)}", flags, remainder)
        both = fn.op(f"and {wrong}, {off.name}", flags, wrong, off)
        moved = fn.op(f"fadd {remainder}, {b.name}", a.type, remainder, b)
        return fn.op(f"select {both}, {moved}, {remainder}", a.type, both, moved, remainder)
    quotient = fn.op(f"fdiv {a}, {b.name}", a.type, a, b)
    return fn.rounding("floor", quotient)


def _signs(fn: FunctionPrinter, a: Value, b: Value) -> str:
    """Operands of a comparison with 0 that is true where a and b have different signs."""
    one = fn.literal(fn.real(1.0, a.type), a.type)
    name = f"llvm.copysign.{float_suffix(a.type)}"
    left = fn.call(name, a.type, one, a)
    right = fn.call(name, a.type, one, b)
    product = fn.op(f"fmul {left}, {right.name}", a.type, left, right)
    return f"{product}, {zero(fn, a.type)}"


def never_nan(expr: E.PrimExpr) -> bool:
    """Whether a float expression is certainly no NaN (cheap check)."""
    if isinstance(expr, E.Broadcast):
        expr = expr.value
    if isinstance(expr, E.FloatImm):
        return not math.isnan(expr.value)
    return isinstance(expr, E.Cast) and not dt.is_float(expr.value.dtype)


def _min_max(fn: FunctionPrinter, maximum: bool, a: Value, b: Value, safe: tuple[bool, bool]) -> Value:
    """A NaN operand wins. `x > y ? x : y` is one instruction on x86 and gives y for NaNs: a safe operand goes first."""
    if fn.target.native_minmax:
        return fn.call(f"llvm.{'maximum' if maximum else 'minimum'}.{float_suffix(a.type)}", a.type, a, b)
    if safe[1] and not safe[0]:
        a, b, safe = b, a, (True, False)
    out = larger(fn, maximum, a, b)
    if safe[0]:
        return out
    number = fn.op(f"fcmp ord {a}, {a.name}", _flags(a), a)  # a masked instruction keeps its first operand otherwise
    return fn.op(f"select {number}, {out}, {a}", a.type, number, out, a)


def larger(fn: FunctionPrinter, maximum: bool, a: Value, b: Value) -> Value:
    """a where it is larger (or smaller) than b, else b: one instruction on x86."""
    cond = fn.op(f"fcmp {'ogt' if maximum else 'olt'} {a}, {b.name}", _flags(a), a, b)
    return fn.op(f"select {cond}, {a}, {b}", a.type, cond, a, b)


def _flags(value: Value) -> str:
    return value.type[: value.type.index(" x ") + 3] + "i1>" if value.type.startswith("<") else "i1"


def suffix(dtype: str) -> str:
    """LLVM's mangling of an integer type."""
    lanes = dt.lanes(dtype)
    bits = 1 if dt.is_bool(dt.scalar(dtype)) else dt.bits(dtype)
    return f"v{lanes}i{bits}" if lanes > 1 else f"i{bits}"


def int_suffix(type: str) -> str:
    """The part of an intrinsic's name that tells an integer LLVM type; a vector of one lane is a vector."""
    return "v" + type[1:-1].replace(" x ", "") if type.startswith("<") else type


def float_suffix(type: str) -> str:
    """LLVM's mangling of a float type."""
    if type.startswith("<"):
        lanes, scalar = type[1:-1].split(" x ")
        return f"v{lanes}{'f32' if scalar == 'float' else 'f64'}"
    return "f32" if type == "float" else "f64"


# ------------------------------------------------------------------------------------------------------------- division


def _divide(fn: FunctionPrinter, kind: Any, node: Any, a: Value, b: Value, unsigned: bool) -> Value:
    """Integer Div, Mod, FloorDiv, FloorMod. x/0 and x%0 are 0."""
    divisor = _constant(node.b)
    if divisor == 0:
        return fn.number(0, a.type)
    positive = unsigned or (fn.nonneg(node.a) and (divisor is not None or fn.nonneg(node.b)))
    quotient = kind in (E.Div, E.FloorDiv)
    if positive and (divisor is None or divisor > 0):
        return _divide_unsigned(fn, quotient, a, b, divisor, unsigned)
    if divisor is not None and divisor > 0 and divisor & (divisor - 1) == 0 and kind in (E.FloorDiv, E.FloorMod):
        word, number = ("ashr", divisor.bit_length() - 1) if quotient else ("and", divisor - 1)
        return fn.op(f"{word} {a}, {fn.number(number, a.type).name}", a.type, a)
    q, r = _divide_signed(fn, a, b, divisor)
    if kind is E.Div or kind is E.Mod:
        return q if quotient else r
    return _floor_fix(fn, quotient, a, b, q, r)


def _constant(expr: E.PrimExpr) -> int | None:
    if isinstance(expr, E.Broadcast):
        expr = expr.value
    return analysis.const_int(expr)


def _divide_unsigned(
    fn: FunctionPrinter, quotient: bool, a: Value, b: Value, divisor: int | None, unsigned: bool
) -> Value:
    if divisor is not None and divisor & (divisor - 1) == 0:
        word, number = ("lshr", divisor.bit_length() - 1) if quotient else ("and", divisor - 1)
        return fn.op(f"{word} {a}, {fn.number(number, a.type).name}", a.type, a)
    narrow = fn.target.pointer_bits == 32 and a.type == "i64" and not unsigned
    if narrow:  # index values fit an address; 64-bit division would be a library call
        a, b = (fn.op(f"trunc {v} to i32", "i32", v) for v in (a, b))
    word = "udiv" if quotient else "urem"
    if divisor is not None:
        out = fn.op(f"{word} {a}, {b.name}", a.type, a, b)
    else:
        nil = fn.op(f"icmp eq {b}, {fn.number(0, b.type).name}", _flags(b), b)
        safe = fn.op(f"select {nil}, {fn.number(1, b.type)}, {b}", b.type, nil, b)
        ratio = _ratio(fn, a, safe, True)
        if ratio is None:
            out = fn.op(f"{word} {a}, {safe.name}", a.type, a, safe)
        else:
            out = ratio if quotient else _rest(fn, a, safe, ratio)
        out = fn.op(f"select {nil}, {fn.number(0, b.type)}, {out}", a.type, nil, out)
    return fn.op(f"zext {out} to i64", "i64", out) if narrow else out


def _divide_signed(fn: FunctionPrinter, a: Value, b: Value, divisor: int | None) -> tuple[Value, Value]:
    """Truncating quotient and remainder; by 0 both are 0, by -1 the quotient wraps."""
    flags, nought = _flags(b), fn.number(0, b.type)
    if divisor is not None and divisor != -1:
        return fn.op(f"sdiv {a}, {b.name}", a.type, a, b), fn.op(f"srem {a}, {b.name}", a.type, a, b)
    nil = fn.op(f"icmp eq {b}, {nought.name}", flags, b)
    minus = fn.op(f"icmp eq {b}, {fn.number(-1, b.type).name}", flags, b)
    special = fn.op(f"or {nil}, {minus.name}", flags, nil, minus)
    safe = fn.op(f"select {special}, {fn.number(1, b.type)}, {b}", b.type, special, b)
    ratio = _ratio(fn, a, safe, False)
    q = fn.op(f"sdiv {a}, {safe.name}", a.type, a, safe) if ratio is None else ratio
    r = fn.op(f"srem {a}, {safe.name}", a.type, a, safe) if ratio is None else _rest(fn, a, safe, q)
    negated = fn.op(f"sub {nought}, {a.name}", a.type, a)
    odd = fn.op(f"select {nil}, {nought}, {negated}", a.type, nil, negated)
    return (
        fn.op(f"select {special}, {odd}, {q}", a.type, special, odd, q),
        fn.op(f"select {special}, {nought}, {r}", a.type, special, r),
    )


def _ratio(fn: FunctionPrinter, a: Value, b: Value, unsigned: bool) -> Value | None:
    """The truncating quotient of vectors through floats with more than twice the digits, where it cannot be rounded up
    to a whole number; None for others.
    """
    lanes = memory.lanes_of(a)
    bits = int(a.type[1:-1].split(" x i")[1]) if lanes > 1 else 64
    if bits > 32 or (bits == 32 and fn.target.pointer_bits < 64):
        return None
    real, kind = vector("float" if bits < 32 else "double", lanes), "ui" if unsigned else "si"
    x, y = (fn.op(f"{kind}tofp {v} to {real}", real, v) for v in (a, b))
    quotient = fn.op(f"fdiv {x}, {y.name}", real, x, y)
    return fn.op(f"fpto{kind} {quotient} to {a.type}", a.type, quotient)


def _rest(fn: FunctionPrinter, a: Value, b: Value, quotient: Value) -> Value:
    product = fn.op(f"mul {quotient}, {b.name}", a.type, quotient, b)
    return fn.op(f"sub {a}, {product.name}", a.type, a, product)


def _floor_fix(fn: FunctionPrinter, quotient: bool, a: Value, b: Value, q: Value, r: Value) -> Value:
    """Rounds a truncating division down where the signs differ and it was inexact."""
    flags, nought = _flags(b), fn.number(0, b.type)
    inexact = fn.op(f"icmp ne {r}, {nought.name}", flags, r)
    signs = fn.op(f"xor {r}, {b.name}", a.type, r, b)
    differ = fn.op(f"icmp slt {signs}, {nought.name}", flags, signs)
    fix = fn.op(f"and {inexact}, {differ.name}", flags, inexact, differ)
    if quotient:
        lower = fn.op(f"sub {q}, {fn.number(1, a.type).name}", a.type, q)
        return fn.op(f"select {fix}, {lower}, {q}", a.type, fix, lower, q)
    higher = fn.op(f"add {r}, {b.name}", a.type, r, b)
    return fn.op(f"select {fix}, {higher}, {r}", a.type, fix, higher, r)


# ---------------------------------------------------------------------------------------------------- other expressions


def compare(fn: FunctionPrinter, node: Any, a: Value, b: Value) -> Value:
    """EQ, NE, LT, LE, GT, GE."""
    ordered, signed, unsigned = _COMPARE[type(node)]
    dtype = node.a.dtype
    if dt.is_float(dtype):
        a, b = to_compute(fn, a, dtype), to_compute(fn, b, dtype)
        return fn.op(f"fcmp {ordered} {a}, {b.name}", _flags(a), a, b)
    plain = dt.is_unsigned(dt.scalar(dtype)) or dt.is_bool(dt.scalar(dtype))
    if not plain and dt.bits(dtype) * dt.lanes(dtype) > fn.target.vector_bits:
        a, b = _lane_numbers(fn, node.a, node.b) or _lane_numbers(fn, node.b, node.a, True) or (a, b)
    return fn.op(f"icmp {unsigned if plain else signed} {a}, {b.name}", _flags(a), a, b)


def _lane_numbers(
    fn: FunctionPrinter, ramp: E.PrimExpr, bound: E.PrimExpr, turned: bool = False
) -> tuple[Value, Value] | None:
    """[i, i + 1, …] and a number for all lanes as bytes that compare alike: the lanes' own numbers, and where among
    them the number is (before all of them, or behind). None for others.
    """
    steps = isinstance(ramp, E.Ramp) and analysis.const_int(ramp.stride) == 1 and ramp.count < 128
    if not steps or not isinstance(ramp, E.Ramp) or not isinstance(bound, E.Broadcast):
        return None
    first, number = fn.value(ramp.base), fn.value(bound.value)
    at = fn.call(f"llvm.ssub.sat.{first.type}", first.type, number, first)
    at = fn.call(f"llvm.smax.{first.type}", first.type, at, fn.number(-1, first.type))
    at = fn.call(f"llvm.smin.{first.type}", first.type, at, fn.number(ramp.count, first.type))
    byte = fn.op(f"trunc {at} to i8", "i8", at)
    lanes = fn.literal(f"<{', '.join(f'i8 {k}' for k in range(ramp.count))}>", vector("i8", ramp.count))
    there = memory.splat(fn, byte, ramp.count)
    return (there, lanes) if turned else (lanes, there)


def negate(fn: FunctionPrinter, node: E.Not, a: Value) -> Value:
    return fn.op(f"xor {a}, {fn_true(dt.lanes(node.dtype))}", a.type, a)


def select(fn: FunctionPrinter, node: E.Select, cond: Value, a: Value, b: Value) -> Value:
    return fn.op(f"select {cond}, {a}, {b}", a.type, cond, a, b)


def cast(fn: FunctionPrinter, node: E.Cast, value: Value) -> Value:
    return convert(fn, value, node.value.dtype, node.dtype)


def ramp(fn: FunctionPrinter, node: E.Ramp, base: Value, stride: Value) -> Value:
    """base + lane * stride."""
    type = value_type(node.dtype)
    steps = ", ".join(f"{base.type} {i}" for i in range(node.count))
    factor = memory.splat(fn, stride, node.count)
    lanes = fn.op(f"mul {factor}, <{steps}>", type, factor)
    first = memory.splat(fn, base, node.count)
    return fn.op(f"add {first}, {lanes.name}", type, first, lanes)


def broadcast(fn: FunctionPrinter, node: E.Broadcast, value: Value) -> Value:
    return memory.splat(fn, value, node.count)


def shuffle(fn: FunctionPrinter, node: E.Shuffle, *vectors: Value) -> Value:
    """Lanes of the concatenation of any number of vectors."""
    scalar = value_type(dt.scalar(node.dtype))
    sizes = [memory.lanes_of(v) for v in vectors]
    if len(set(sizes)) == 1 and sizes[0] > 1:
        return runs.merge(fn, vectors, [divmod(i, sizes[0]) for i in node.indices])
    lanes = [(v, i) for v, n in zip(vectors, sizes, strict=True) for i in range(n)]
    type = vector(scalar, len(node.indices))
    out = fn.literal("poison", type)
    for at, index in enumerate(node.indices):
        source, lane = lanes[index]
        one = source if memory.lanes_of(source) == 1 else memory.extract(fn, source, lane)
        if len(node.indices) == 1:
            return one
        out = fn.op(f"insertelement {out}, {one}, i64 {at}", type, out, one)
    return out


Handler = Callable[..., Value]
HANDLERS: dict[type, Handler] = {
    **dict.fromkeys((*_INT, *_FLOAT, E.Mod, E.FloorDiv, E.FloorMod, E.Min, E.Max), binary),
    **dict.fromkeys(_COMPARE, compare),
    E.Not: negate,
    E.Select: select,
    E.Cast: cast,
    E.Ramp: ramp,
    E.Broadcast: broadcast,
    E.Shuffle: shuffle,
}
