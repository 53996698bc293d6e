"""LLVM's names of our element types, and literals.

float16, bfloat16 and bool: a value of the first two is kept as its 16 bits (arithmetic is in float32), a bool is an
i1 in registers and a byte in memory.
"""

from __future__ import annotations

import functools
import struct

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import LowerError


@functools.cache
def scalar_type(dtype: str) -> str:
    """The LLVM type of one lane in a register."""
    kind, bits, _ = dt.parse(dtype)
    if kind == "bool":
        return "i1"
    if kind == "handle":
        return "ptr"
    if kind in ("int", "uint") or bits in (8, 16):
        return f"i{bits}"
    if kind == "float" and bits in (32, 64):
        return "float" if bits == 32 else "double"
    raise LowerError(f"dtype {dtype} cannot be computed with", hint="cast it to a supported type first")


@functools.cache
def vector(scalar: str, lanes: int) -> str:
    return scalar if lanes == 1 else f"<{lanes} x {scalar}>"


@functools.cache
def value_type(dtype: str) -> str:
    """The LLVM type of a value in a register."""
    return vector(scalar_type(dtype), dt.lanes(dtype))


@functools.cache
def memory_type(dtype: str) -> str:
    """The LLVM type of a value in memory."""
    return vector("i8" if dt.is_bool(dt.scalar(dtype)) else scalar_type(dtype), dt.lanes(dtype))


@functools.cache
def element_bytes(dtype: str) -> int:
    return max(1, dt.bits(dtype) // 8)


def is_half(dtype: str) -> bool:
    """Whether arithmetic on this type is done in float32."""
    return dt.scalar(dtype) in ("float16", "bfloat16")


def float_literal(value: float, dtype: str) -> str:
    """The literal of one lane."""
    if is_half(dtype):
        raw = dt.to_numpy(dtype).type(value).tobytes()
        return str(int.from_bytes(raw, "little"))
    if dt.scalar(dtype) == "float32" and value == value and abs(value) != float("inf"):
        value = struct.unpack("<f", struct.pack("<f", value))[0]
    bits = struct.unpack("<Q", struct.pack("<d", value))[0]
    return f"0x{bits:016X}"


def int_literal(value: int, dtype: str) -> str:
    """The literal of one lane; LLVM integers have no sign."""
    if dt.is_bool(dt.scalar(dtype)):
        return "true" if value else "false"
    return str(value)


def splat(literal: str, scalar: str, lanes: int) -> str:
    """A literal repeated over lanes."""
    return literal if lanes == 1 else f"splat ({scalar} {literal})"
