"""Converters of number types: Cast, CastLike, BitCast. The short floats' rules are those of the format.

To floats of 8 bits, what is too large becomes the largest number with `saturate` (the default), else infinity or NaN.
To float8e8m0, powers of two, `round_mode` says where halfway and the rest goes.
"""

from __future__ import annotations

from typing import Any

from warpbeam.frontend.onnx.build import Result, cast_to, dtype_of
from warpbeam.frontend.onnx.node import NodeView
from warpbeam.frontend.onnx.tensors import elem_dtype
from warpbeam.ir import dtype as dt
from warpbeam.op import get
from warpbeam.relay.expr import Expr, const

_INTS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")


def saturating(x: Expr, dtype: str) -> Expr:
    """`x` in a short float type; infinities and what is too large become the largest number of their sign."""
    kind = dt.SMALL_FLOATS.get(dtype)
    if kind is None or kind.largest == kind.overflow:
        return cast_to(x, dtype)
    if not dt.is_float(dtype_of(x)) or dt.is_small(dtype_of(x)):
        x = cast_to(x, "float32")
    return cast_to(get("clip")(x, a_min=-kind.maximum, a_max=kind.maximum), dtype)


def to_power_of_two(x: Expr, saturate: bool, mode: str) -> Expr:
    """`x` as float8_e8m0fnu: the exponent of the float32, moved up as `mode` says.

    saturate: what is too large is the largest, zero the smallest power; else both are NaN.
    """
    bits = get("reinterpret")(cast_to(x, "float32"), dtype="int32")
    exponent = get("bitwise_and")(get("right_shift")(bits, _i(23)), _i(0xFF))
    rest = get("bitwise_and")(bits, _i(0x7FFFFF))
    if mode == "nearest":  # of two as near, the one above
        more = get("greater_equal")(rest, _i(0x400000))
        below = get("where")(get("equal")(exponent, _i(0)), get("greater")(rest, _i(0x400000)), more)
    elif mode == "up":  # the smallest power, 2^-127, has a float32 below the normal ones
        small = get("greater")(rest, _i(0x400000))
        below = get("where")(get("equal")(exponent, _i(0)), small, get("greater")(rest, _i(0)))
    else:
        below = get("zeros")(shape=(), dtype="bool")
    code = get("add")(exponent, cast_to(below, "int32"))
    is_nan = get("isnan")(cast_to(x, "float32"))
    if saturate:
        code = get("clip")(code, a_min=0, a_max=0xFE)
        lost = is_nan
    else:
        zero = get("equal")(get("bitwise_and")(bits, _i(0x7FFFFFFF)), _i(0))
        lost = get("logical_or")(is_nan, get("logical_or")(zero, get("greater")(code, _i(0xFE))))
    code = get("where")(lost, _i(0xFF), code)
    return get("reinterpret")(cast_to(code, "uint8"), dtype="float8_e8m0fnu")  # type: ignore[no-any-return]


def _i(value: int) -> Any:
    return const(value, "int32")


def _convert(node: NodeView, x: Expr, dtype: str) -> Expr:
    if dtype_of(x) == dtype:
        return x
    saturate = bool(node.attr("saturate", 1))
    if dtype == "float8_e8m0fnu":
        mode = node.attr("round_mode", "up")
        if mode not in ("up", "down", "nearest"):
            raise node.error(f"round_mode {mode[:20]!r}")
        return to_power_of_two(x, saturate, mode)
    if dtype in dt.SMALL_INTS and dt.is_float(dtype_of(x)):  # beyond the range the format leaves it open: low bits
        return cast_to(cast_to(x, "int32"), dtype)
    return saturating(x, dtype) if saturate else cast_to(x, dtype)


def _cast(node: NodeView, x: Expr) -> Result:
    return _convert(node, x, elem_dtype(node.attr("to"), node.name))


def _cast_1(node: NodeView, x: Expr) -> Result:
    """Before operator set 6 the type was named."""
    names = {"FLOAT": "float32", "DOUBLE": "float64", "BOOL": "bool", "FLOAT16": "float16"}
    to = node.attr("to")
    dtype = names.get(to, to.lower())
    if dtype not in ("float32", "float64", "bool", "float16") and dtype not in _INTS:
        raise node.unsupported(f"type {to[:20]!r}")
    return cast_to(x, dtype)


def _cast_like(node: NodeView, x: Expr, target: Expr) -> Result:
    return _convert(node, x, dtype_of(target))


def _bit_cast(node: NodeView, x: Expr) -> Result:
    to = elem_dtype(node.attr("to"), node.name)
    if "bool" in (to, dtype_of(x)):  # a byte, 0 or 1
        if dt.bits(to) != dt.bits(dtype_of(x)):
            raise node.error(f"{dtype_of(x)} and {to} have different sizes")
        byte = cast_to(x, "uint8") if dtype_of(x) == "bool" else get("reinterpret")(x, dtype="uint8")
        return cast_to(byte, "bool") if to == "bool" else get("reinterpret")(byte, dtype=to)
    return x if to == dtype_of(x) else get("reinterpret")(x, dtype=to)


TABLE: dict[str, dict[int, Any]] = {
    "Cast": {1: _cast_1, 6: _cast},
    "BitCast": {26: _bit_cast},
    "CastLike": {15: _cast_like},
}
