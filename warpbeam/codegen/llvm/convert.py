"""Conversions between number formats, defined for every value, with no library call on any target."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warpbeam.codegen.llvm.emitter import Value
from warpbeam.codegen.llvm.types import is_half, value_type, vector
from warpbeam.ir import dtype as dt

if TYPE_CHECKING:
    from warpbeam.codegen.llvm.function import FunctionPrinter


def convert(fn: FunctionPrinter, value: Value, source: str, target: str) -> Value:
    """`value` of dtype `source` as dtype `target` (same lanes). Float to int saturates, NaN gives 0; see tir.Cast."""
    a, b = dt.scalar(source), dt.scalar(target)
    lanes = dt.lanes(source)
    if a == b:
        return value
    if is_half(a) and is_half(b):
        return _narrow(fn, _widen(fn, value, a, lanes), b, lanes)
    if is_half(a):
        return convert(fn, _widen(fn, value, a, lanes), dt.with_lanes("float32", lanes), target)
    if is_half(b):
        return _to_half(fn, value, a, b, lanes)
    if dt.is_float(a):
        return _from_float(fn, value, a, b, lanes)
    return _from_int(fn, value, a, b, lanes)


def to_compute(fn: FunctionPrinter, value: Value, dtype: str) -> Value:
    """A float16 or bfloat16 value as float32; others as they are."""
    return _widen(fn, value, dt.scalar(dtype), dt.lanes(dtype)) if is_half(dtype) else value


def from_compute(fn: FunctionPrinter, value: Value, dtype: str) -> Value:
    """The inverse of `to_compute`, rounded to nearest even."""
    return _narrow(fn, value, dt.scalar(dtype), dt.lanes(dtype)) if is_half(dtype) else value


def _from_float(fn: FunctionPrinter, value: Value, a: str, b: str, lanes: int) -> Value:
    type = value_type(dt.with_lanes(b, lanes))
    if dt.is_bool(b):
        return fn.op(f"fcmp une {value}, {zero(fn, value.type)}", type, value)
    if dt.is_float(b):
        word = "fpext" if dt.bits(b) > dt.bits(a) else "fptrunc"
        return fn.op(f"{word} {value} to {type}", type, value)
    if lanes > 1:
        return _clamped(fn, value, a, b, lanes)
    sign = "u" if dt.is_unsigned(b) else "s"
    suffix = f"{_v(lanes)}i{dt.bits(b)}.{_v(lanes)}f{dt.bits(a)}"
    return fn.call(f"llvm.fpto{sign}i.sat.{suffix}", type, value)


def _clamped(fn: FunctionPrinter, value: Value, a: str, b: str, lanes: int) -> Value:
    """A vector of floats as integers; written out, since LLVM takes its saturating conversions apart into scalars."""
    low, high = dt.int_range(b)
    type = value_type(dt.with_lanes(b, lanes))

    def real(number: float) -> Value:
        return fn.literal(fn.real(float(number), value.type), value.type)

    def test(word: str, number: float) -> Value:
        return fn.op(f"fcmp {word} {value}, {real(number).name}", vector("i1", lanes), value)

    def nan() -> Value:
        return fn.op(f"fcmp uno {value}, {value.name}", vector("i1", lanes), value)

    unsigned = dt.is_unsigned(b)
    if dt.bits(b) <= (24 if a == "float32" else 53):  # the bounds are floats
        value = value if unsigned else _pick(fn, nan(), real(0), value)
        value = _pick(fn, test("ogt", low), value, real(low))
        value = _pick(fn, test("olt", high), value, real(high))
        wide = vector(f"i{max(32, dt.bits(b))}", lanes)
        word = "fptoui" if dt.bits(b) >= 32 and unsigned else "fptosi"
        whole = fn.op(f"{word} {value} to {wide}", wide, value)
        return whole if wide == type else fn.op(f"trunc {whole} to {type}", type, whole)
    whole = fn.op(f"{'fptoui' if unsigned else 'fptosi'} {value} to {type}", type, value)
    whole = _pick(fn, test("oge", high + 1), fn.number(-1 if unsigned else high, type), whole)
    whole = _pick(fn, test("ult" if unsigned else "olt", low), fn.number(low, type), whole)
    return whole if unsigned else _pick(fn, nan(), fn.number(0, type), whole)


def _from_int(fn: FunctionPrinter, value: Value, a: str, b: str, lanes: int) -> Value:
    type = value_type(dt.with_lanes(b, lanes))
    unsigned = dt.is_unsigned(a) or dt.is_bool(a)
    if dt.is_bool(b):
        return fn.op(f"icmp ne {value}, {fn.number(0, value.type).name}", type, value)
    if dt.is_float(b):
        return fn.op(f"{'ui' if unsigned else 'si'}tofp {value} to {type}", type, value)
    have = 1 if dt.is_bool(a) else dt.bits(a)
    if have == dt.bits(b):
        return value
    word = "trunc" if have > dt.bits(b) else "zext" if unsigned else "sext"
    return fn.op(f"{word} {value} to {type}", type, value)


def _to_half(fn: FunctionPrinter, value: Value, a: str, b: str, lanes: int) -> Value:
    single = vector("float", lanes)
    if a == "float64":
        value = _round_to_odd(fn, value, lanes)
    elif a != "float32":  # an integer too large for a float32's 24 bits is beyond float16 or rounds as ml_dtypes does
        value = _from_int(fn, value, a, "float32", lanes)
    assert value.type == single
    return _narrow(fn, value, b, lanes)


def _round_to_odd(fn: FunctionPrinter, value: Value, lanes: int) -> Value:
    """float64 to float32 so that a second rounding to 16 bits is as good as one (Boldo and Melquiond, 2008)."""
    single, double, ints, flags = (vector(t, lanes) for t in ("float", "double", "i32", "i1"))
    near = fn.op(f"fptrunc {value} to {single}", single, value)
    back = fn.op(f"fpext {near} to {double}", double, near)
    bits = fn.op(f"bitcast {near} to {ints}", ints, near)
    big = fn.call(f"llvm.fabs.{_v(lanes)}f64", double, value)
    back_abs = fn.call(f"llvm.fabs.{_v(lanes)}f64", double, back)
    inexact = fn.op(f"fcmp one {value}, {back.name}", flags, value, back)
    odd_bit = fn.op(f"trunc {bits} to {flags}", flags, bits)
    even = fn.op(f"xor {odd_bit}, {fn_true(lanes)}", flags, odd_bit)
    fix = fn.op(f"and {inexact}, {even.name}", flags, inexact, even)
    more = fn.op(f"fcmp ogt {big}, {back_abs.name}", flags, big, back_abs)
    step = fn.op(f"select {more}, {fn.number(1, ints)}, {fn.number(-1, ints)}", ints, more)
    moved = fn.op(f"add {bits}, {step.name}", ints, bits, step)
    out = fn.op(f"select {fix}, {moved}, {bits}", ints, fix, moved, bits)
    return fn.op(f"bitcast {out} to {single}", single, out)


def _widen(fn: FunctionPrinter, value: Value, dtype: str, lanes: int) -> Value:
    """16 bits to float32, exact."""
    single, ints = vector("float", lanes), vector("i32", lanes)
    if dtype == "float16" and fn.target.fp16_convert:
        half = vector("half", lanes)
        cast = fn.op(f"bitcast {value} to {half}", half, value)
        return fn.op(f"fpext {cast} to {single}", single, cast)
    wide = fn.op(f"zext {value} to {ints}", ints, value)
    if dtype == "bfloat16":
        bits = _i(fn, "shl", wide, 16)
        return fn.op(f"bitcast {bits} to {single}", single, bits)
    sign = _i(fn, "shl", _i(fn, "and", wide, 0x8000), 16)
    rest = _i(fn, "and", wide, 0x7FFF)
    tiny = fn.op(f"uitofp {rest} to {single}", single, rest)
    scaled = fn.op(f"fmul {tiny}, {fn.real(2.0**-24, single)}", single, tiny)
    subnormal = fn.op(f"bitcast {scaled} to {ints}", ints, scaled)
    normal = _i(fn, "add", _i(fn, "shl", rest, 13), 112 << 23)
    special = _i(fn, "or", normal, 0xFF << 23)
    out = _pick(fn, _cmp(fn, "ult", rest, 0x400), subnormal, normal)
    out = _pick(fn, _cmp(fn, "uge", rest, 0x7C00), special, out)
    out = fn.op(f"or {out}, {sign.name}", ints, out, sign)
    return fn.op(f"bitcast {out} to {single}", single, out)


def _narrow(fn: FunctionPrinter, value: Value, dtype: str, lanes: int) -> Value:
    """float32 to 16 bits, to nearest even; NaN stays NaN."""
    short, ints = vector("i16", lanes), vector("i32", lanes)
    if dtype == "float16" and fn.target.fp16_convert:
        half = vector("half", lanes)
        cast = fn.op(f"fptrunc {value} to {half}", half, value)
        return fn.op(f"bitcast {cast} to {short}", short, cast)
    bits = fn.op(f"bitcast {value} to {ints}", ints, value)
    out = _narrow_bf16(fn, bits, value, lanes) if dtype == "bfloat16" else _narrow_fp16(fn, bits, lanes)
    return fn.op(f"trunc {out} to {short}", short, out)


def _narrow_bf16(fn: FunctionPrinter, bits: Value, value: Value, lanes: int) -> Value:
    upper = _i(fn, "lshr", bits, 16)
    round_bit = _i(fn, "and", upper, 1)
    bias = _i(fn, "add", round_bit, 0x7FFF)
    sum_ = fn.op(f"add {bits}, {bias.name}", bits.type, bits, bias)
    nan = fn.op(f"fcmp uno {value}, {value.name}", vector("i1", lanes), value)
    return _pick(fn, nan, _i(fn, "or", upper, 0x40), _i(fn, "lshr", sum_, 16))


def _narrow_fp16(fn: FunctionPrinter, bits: Value, lanes: int) -> Value:
    single, ints = vector("float", lanes), bits.type
    sign = _i(fn, "and", _i(fn, "lshr", bits, 16), 0x8000)
    rest = _i(fn, "and", bits, 0x7FFFFFFF)
    odd = _i(fn, "and", _i(fn, "lshr", rest, 13), 1)
    up = _i(fn, "add", rest, 0xFFF - (112 << 23))
    normal = _i(fn, "lshr", fn.op(f"add {up}, {odd.name}", ints, up, odd), 13)
    size = fn.op(f"bitcast {rest} to {single}", single, rest)
    # Adding 0.5 puts the last bit of a float32 where float16's subnormals end.
    aligned = fn.op(f"fadd {size}, {fn.real(0.5, single)}", single, size)
    subnormal = _i(fn, "sub", fn.op(f"bitcast {aligned} to {ints}", ints, aligned), 126 << 23)
    payload = _i(fn, "or", _i(fn, "and", _i(fn, "lshr", rest, 13), 0x3FF), 0x7E00)
    out = _pick(fn, _cmp(fn, "ult", rest, 113 << 23), subnormal, normal)
    out = _pick(fn, _cmp(fn, "uge", rest, 0x477FF000), fn.number(0x7C00, ints), out)
    out = _pick(fn, _cmp(fn, "ugt", rest, 0x7F800000), payload, out)
    return fn.op(f"or {out}, {sign.name}", ints, out, sign)


def _i(fn: FunctionPrinter, word: str, a: Value, number: int) -> Value:
    number = (number + (1 << 31)) % (1 << 32) - (1 << 31)
    return fn.op(f"{word} {a}, {fn.number(number, a.type).name}", a.type, a)


def _cmp(fn: FunctionPrinter, word: str, a: Value, number: int) -> Value:
    flags = "i1" if a.type == "i32" else a.type.replace("i32", "i1")
    return fn.op(f"icmp {word} {a}, {fn.number(number, a.type).name}", flags, a)


def _pick(fn: FunctionPrinter, cond: Value, a: Value, b: Value) -> Value:
    return fn.op(f"select {cond}, {a}, {b}", a.type, cond, a, b)


def _v(lanes: int) -> str:
    return f"v{lanes}" if lanes > 1 else ""


def fn_true(lanes: int) -> str:
    return "true" if lanes == 1 else "splat (i1 true)"


def zero(fn: FunctionPrinter, type: str) -> str:
    return fn.undefined(type).name
