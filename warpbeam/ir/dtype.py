"""Data types as interned strings: "float32", "int8", "bool", "bfloat16", "float32x16" (lanes), "handle".

Strings keep node keys cheap and texts readable; everything else about a type is looked up here.

Small types: "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float6_e2m3fn",
"float6_e3m2fn", "float4_e2m1fn", "int4", "uint4", "int2", "uint2". In memory each element of one takes a byte, as in
NumPy's types of `ml_dtypes`: floats their code, integers their two's complement in the low bits. Only files pack
several into a byte.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from warpbeam.ir.diagnostics import IRError


class SmallFloat(NamedTuple):
    """A float of 8, 6 or 4 bits. largest: the code of the largest finite number; nan: of NaN, -1 where there is none;
    overflow: what rounds beyond the largest becomes; unsigned_zero: there is no -0 (whose code is NaN's).
    """

    bits: int
    mantissa: int
    bias: int
    largest: int
    nan: int
    overflow: int
    unsigned_zero: bool = False

    @property
    def maximum(self) -> float:
        """The largest finite number."""
        exponent, fraction = divmod(self.largest, 1 << self.mantissa)
        return (1 + fraction / (1 << self.mantissa)) * 2.0 ** (exponent - self.bias)


SMALL_FLOATS = {
    "float8_e4m3fn": SmallFloat(8, 3, 7, 0x7E, 0x7F, 0x7F),
    "float8_e4m3fnuz": SmallFloat(8, 3, 8, 0x7F, 0x80, 0x80, True),
    "float8_e5m2": SmallFloat(8, 2, 15, 0x7B, 0x7E, 0x7C),
    "float8_e5m2fnuz": SmallFloat(8, 2, 16, 0x7F, 0x80, 0x80, True),
    "float8_e8m0fnu": SmallFloat(8, 0, 127, 0xFE, 0xFF, 0xFF),  # no sign and no zero
    "float6_e2m3fn": SmallFloat(6, 3, 1, 0x1F, -1, 0x1F),
    "float6_e3m2fn": SmallFloat(6, 2, 3, 0x1F, -1, 0x1F),
    "float4_e2m1fn": SmallFloat(4, 1, 1, 0x7, -1, 0x7),
}
SMALL_INTS = ("int4", "uint4", "int2", "uint2")

_KINDS = {"int": "int", "uint": "uint", "float": "float", "bfloat": "bfloat"}
#: names without a width, as the classic API has them
_SHORT = {"float": "float32", "int": "int32", "uint": "uint32"}
_NAMED = {"bool": ("bool", 8, 1), "handle": ("handle", 64, 1), "string": ("string", 0, 1)}


def canonical(dtype: object) -> str:
    """The name with its width: "float" is float32, "int" int32, "uint" uint32; also of a NumPy type."""
    if isinstance(dtype, str):
        return _canonical(dtype)
    if isinstance(dtype, np.dtype | type) and dtype is not object:
        return from_numpy(dtype)
    raise IRError(f"a {type(dtype).__name__} is no dtype", hint="use names such as float32, int64, bool, float32x16")


@cache
def _canonical(dtype: str) -> str:
    base, x, lanes = dtype.partition("x")
    name = f"{_SHORT.get(base, base)}{x}{lanes}"
    parse(name)
    return name


@cache
def parse(dtype: str) -> tuple[str, int, int]:
    """(kind, bits, lanes) of a dtype string; kind is int, uint, float, bfloat, float8_* and shorter, bool, handle or
    string.
    """
    base, _, lanes = dtype.partition("x")
    count = int(lanes) if lanes else 1
    if base in _NAMED:
        kind, bits, _ = _NAMED[base]
        return kind, bits, count
    if base in SMALL_FLOATS:
        return base, SMALL_FLOATS[base].bits, count
    for name in ("uint", "int", "bfloat", "float"):
        if base.startswith(name) and base[len(name) :].isdigit():
            return _KINDS[name], int(base[len(name) :]), count
    raise IRError(f"unknown dtype {dtype!r}", hint="use names such as float32, int64, bool, bfloat16, float32x16")


@cache
def bits(dtype: str) -> int:
    """Bits of one lane."""
    return parse(dtype)[1]


def nbytes(dtype: str) -> int:
    """Bytes of one whole value, all lanes; each lane has bytes of its own."""
    _, width, count = parse(dtype)
    return (width + 7) // 8 * count


@cache
def lanes(dtype: str) -> int:
    return parse(dtype)[2]


@cache
def scalar(dtype: str) -> str:
    """The dtype of one lane."""
    return dtype.partition("x")[0]


@cache
def with_lanes(dtype: str, count: int) -> str:
    base = scalar(dtype)
    return base if count == 1 else f"{base}x{count}"


@cache
def is_float(dtype: str) -> bool:
    return parse(dtype)[0].startswith(("float", "bfloat"))


def is_small(dtype: str) -> bool:
    """Whether it is a float of 8, 6 or 4 bits or an integer of 4 or 2: kept in bytes, computed with as a wider type."""
    base = scalar(dtype)
    return base in SMALL_FLOATS or base in SMALL_INTS


def carrier(dtype: str) -> str:
    """The byte type in which a small type lies in memory and registers; other types are their own."""
    if not is_small(dtype):
        return dtype
    return with_lanes("int8" if scalar(dtype) in ("int4", "int2") else "uint8", lanes(dtype))


@cache
def is_int(dtype: str) -> bool:
    """Signed or unsigned integer (bool is not one)."""
    return parse(dtype)[0] in ("int", "uint")


@cache
def is_unsigned(dtype: str) -> bool:
    return parse(dtype)[0] == "uint"


@cache
def is_bool(dtype: str) -> bool:
    return parse(dtype)[0] == "bool"


@cache
def int_range(dtype: str) -> tuple[int, int]:
    """Smallest and largest value of an integer or bool dtype."""
    kind, width, _ = parse(dtype)
    if kind == "bool":
        return 0, 1
    if kind == "uint":
        return 0, (1 << width) - 1
    if kind == "int":
        return -(1 << (width - 1)), (1 << (width - 1)) - 1
    raise IRError(f"{dtype} is not an integer dtype")


@cache
def to_numpy(dtype: str) -> np.dtype:
    """The NumPy dtype of one lane (ml_dtypes for bfloat16 and the small types)."""
    base = scalar(dtype)
    if base == "bfloat16" or is_small(base):
        import ml_dtypes

        narrow: np.dtype = np.dtype(getattr(ml_dtypes, base))
        return narrow
    if base == "string":
        return np.dtype(object)
    return np.dtype(base)


def from_numpy(dtype: object) -> str:
    """Our name of a NumPy dtype."""
    name: str = np.dtype(dtype).name  # type: ignore[call-overload]
    return {"str": "string", "object": "string"}.get(name, name)
