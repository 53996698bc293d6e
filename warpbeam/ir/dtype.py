"""Data types as interned strings: "float32", "int8", "bool", "bfloat16", "float32x16" (lanes), "handle".

Strings keep node keys cheap and texts readable; everything else about a type is looked up here.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from warpbeam.ir.diagnostics import IRError

_KINDS = {"int": "int", "uint": "uint", "float": "float", "bfloat": "bfloat"}
#: names without a width, as the classic API has them
_SHORT = {"float": "float32", "int": "int32", "uint": "uint32"}
_NAMED = {"bool": ("bool", 8, 1), "handle": ("handle", 64, 1), "string": ("string", 0, 1)}


@cache
def canonical(dtype: str) -> str:
    """The name with its width: "float" is float32, "int" int32, "uint" uint32."""
    base, x, lanes = dtype.partition("x")
    return f"{_SHORT.get(base, base)}{x}{lanes}"


@cache
def parse(dtype: str) -> tuple[str, int, int]:
    """(kind, bits, lanes) of a dtype string; kind is int, uint, float, bfloat, float8_*, bool, handle or string."""
    base, _, lanes = dtype.partition("x")
    count = int(lanes) if lanes else 1
    if base in _NAMED:
        kind, bits, _ = _NAMED[base]
        return kind, bits, count
    if base.startswith("float8"):
        return base, 8, count
    for name in ("uint", "int", "bfloat", "float"):
        if base.startswith(name) and base[len(name) :].isdigit():
            return _KINDS[name], int(base[len(name) :]), count
    raise IRError(f"unknown dtype {dtype!r}", hint="use names such as float32, int64, bool, bfloat16, float32x16")


def bits(dtype: str) -> int:
    """Bits of one lane."""
    return parse(dtype)[1]


def nbytes(dtype: str) -> int:
    """Bytes of one whole value, all lanes."""
    _, width, count = parse(dtype)
    return (width * count + 7) // 8


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


def is_float(dtype: str) -> bool:
    kind = parse(dtype)[0]
    return kind in ("float", "bfloat") or kind.startswith("float8")


def is_int(dtype: str) -> bool:
    """Signed or unsigned integer (bool is not one)."""
    return parse(dtype)[0] in ("int", "uint")


def is_unsigned(dtype: str) -> bool:
    return parse(dtype)[0] == "uint"


def is_bool(dtype: str) -> bool:
    return parse(dtype)[0] == "bool"


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
    """The NumPy dtype of one lane (ml_dtypes for bfloat16 and float8)."""
    base = scalar(dtype)
    if base == "bfloat16" or base.startswith("float8"):
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
