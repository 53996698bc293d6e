"""Floats of 8, 6 and 4 bits as integer arithmetic: what their conversions mean on every target.

decode: code -> float32, exact. encode: float32 -> code, to nearest even. What rounds beyond the largest number becomes
the type's infinity, or NaN where it has none, or the largest number where it has neither (4 and 6 bits). NaN stays
NaN, and is a zero where there is none. float8_e8m0fnu holds powers of two: halfway goes up, and zero, negative numbers
and NaN are NaN.
"""

from __future__ import annotations

from warpbeam.ir import dtype as dt
from warpbeam.tir.expr import Call, PrimExpr, Select, call, cast, const

_INF = 0x7F800000


def decode(code: PrimExpr, dtype: str) -> PrimExpr:
    """The float32 that a code (uint8) of a small float type stands for."""
    lanes = dt.lanes(code.dtype)
    kind = dt.SMALL_FLOATS[dt.scalar(dtype)]
    bits = cast(dt.with_lanes("uint32", lanes), code)
    if kind.mantissa == 0:
        usual = Select(bits.equal(0), _u(0x00400000, lanes), bits << 23)
        return _float(Select(bits.equal(0xFF), _u(0x7FC00000, lanes), usual))
    sign_bit = 1 << (kind.bits - 1)
    rest = bits & (sign_bit - 1)
    sign = (bits & sign_bit) << (32 - kind.bits)
    tiny = cast(dt.with_lanes("float32", lanes), rest) * const(2.0 ** (1 - kind.bias - kind.mantissa))
    normal = (rest << (23 - kind.mantissa)) + ((127 - kind.bias) << 23)
    out = Select(rest < (1 << kind.mantissa), _bits(tiny), normal)
    if kind.unsigned_zero:
        out = Select(bits.equal(kind.nan), _u(0x7FC00000, lanes), out | sign)
        return _float(out)
    if kind.overflow != kind.largest:  # the codes above are infinity, if it has a code of its own, and NaN
        if kind.nan != kind.overflow:
            out = Select(rest.equal(kind.overflow), _u(_INF, lanes), out)
        out = Select(rest > (kind.overflow if kind.nan != kind.overflow else kind.largest), _u(0x7FC00000, lanes), out)
    return _float(out | sign)


def encode(value: PrimExpr, dtype: str) -> PrimExpr:
    """The code (uint8) of a float32 in a small float type."""
    lanes = dt.lanes(value.dtype)
    kind = dt.SMALL_FLOATS[dt.scalar(dtype)]
    bits = _bits(value)
    out_type = dt.with_lanes("uint8", lanes)
    if kind.mantissa == 0:
        near = (bits + 0x400000) >> 23
        near = Select(bits <= 0x400000, _u(0, lanes), near)
        bad = bits.equal(0) | (bits >= _INF)  # from there on: infinity, NaN, and all with a sign
        return cast(out_type, Select(bad, _u(0xFF, lanes), near))
    size = bits & 0x7FFFFFFF
    shift = 23 - kind.mantissa
    odd = (size >> shift) & 1
    rebias = (127 - kind.bias) << 23
    normal = (size + ((1 << (shift - 1)) - 1) + odd - rebias) >> shift
    step = 2.0 ** (24 - kind.bias - kind.mantissa)  # a float32 of this size ends where the type's subnormals do
    aligned = _bits(_float(size) + const(step))
    subnormal = aligned - const(_pattern(step), "uint32")
    code = Select(size < ((128 - kind.bias) << 23), subnormal, normal)
    code = Select(code > kind.largest, _u(kind.overflow, lanes), code)
    if kind.unsigned_zero:
        signed: PrimExpr = Select(code.equal(0), _u(0, lanes), (bits >> 24) & 0x80)
        return cast(out_type, Select(size > _INF, _u(kind.nan, lanes), code | signed))
    sign = (bits >> (32 - kind.bits)) & (1 << (kind.bits - 1))
    if kind.nan < 0:
        return cast(out_type, Select(size > _INF, sign ^ (1 << (kind.bits - 1)), code | sign))
    return cast(out_type, Select(size > _INF, _u(kind.nan, lanes), code) | sign)


def _pattern(value: float) -> int:
    import struct

    found: int = struct.unpack("<I", struct.pack("<f", value))[0]
    return found


def _u(value: int, lanes: int) -> PrimExpr:
    return const(value, dt.with_lanes("uint32", lanes))


def _bits(x: PrimExpr) -> PrimExpr:
    return Call(dt.with_lanes("uint32", dt.lanes(x.dtype)), "reinterpret", (x,))


def _float(x: PrimExpr) -> PrimExpr:
    return call("reinterpret", x, dtype=dt.with_lanes("float32", dt.lanes(x.dtype)))
