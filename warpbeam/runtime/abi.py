"""The binary interface of `include/warpbeam.h` as ctypes structures, and the table of element types."""

from __future__ import annotations

import ctypes
import functools
import struct
from pathlib import Path

import numpy as np

from .errors import RunError

ABI_VERSION = 1
QUERY_SHAPES, EITHER_WAY = 1, 2
MESSAGE_BYTES = 176
HEADER_PATH = Path(__file__).parent / "include" / "warpbeam.h"

#: dtype name -> (DLPack type code, bits). An element of fewer than 8 bits takes a byte all the same.
DLPACK_TYPES: dict[str, tuple[int, int]] = {
    "bool": (6, 8),
    **{f"int{n}": (0, n) for n in (8, 16, 32, 64)},
    **{f"uint{n}": (1, n) for n in (8, 16, 32, 64)},
    **{f"float{n}": (2, n) for n in (16, 32, 64)},
    "bfloat16": (4, 16),
    "complex64": (5, 64),
    "complex128": (5, 128),
    "float8_e4m3fn": (10, 8),
    "float8_e4m3fnuz": (11, 8),
    "float8_e5m2": (12, 8),
    "float8_e5m2fnuz": (13, 8),
    "float8_e8m0fnu": (14, 8),
    "float6_e2m3fn": (15, 6),
    "float6_e3m2fn": (16, 6),
    "float4_e2m1fn": (17, 4),
    **{f"int{n}": (0, n) for n in (4, 2)},
    **{f"uint{n}": (1, n) for n in (4, 2)},
}
_NAMES = {code: name for name, code in DLPACK_TYPES.items()}


class Tensor(ctypes.Structure):
    """`wb_tensor`, the layout of DLPack's DLTensor."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
    ]


class Context(ctypes.Structure):
    """`wb_ctx`."""

    _fields_ = [
        ("abi_version", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("arena", ctypes.c_void_p),
        ("arena_bytes", ctypes.c_int64),
        ("constants", ctypes.c_void_p),
        ("params", ctypes.c_void_p),
        ("parallel_for", ctypes.c_void_p),
        ("pool", ctypes.c_void_p),
        ("reserve", ctypes.c_void_p),
        ("user", ctypes.c_void_p),
        ("status", ctypes.c_int32),
        ("num_threads", ctypes.c_int32),
        ("message", ctypes.c_char * MESSAGE_BYTES),
    ]


class ValueCode:
    """What a `wb_value` holds."""

    INT, FLOAT, HANDLE, NULL, TENSOR, STR = 0, 2, 3, 4, 7, 11


#: bytes of a `wb_value`: 8 of value, a code, padding
VALUE_BYTES = 16
#: `wb_tensor` without padding: data, device type and number, rank, code, bits, lanes, shape, strides, byte offset
TENSOR = struct.Struct("<QiiiBBHQQQ")

CALL_PACKED_FN = ctypes.CFUNCTYPE(
    ctypes.c_int32, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p
)
LOOP_FN = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
PARALLEL_FOR_FN = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
RESERVE_FN = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64)


@functools.cache
def numpy_dtype(name: str) -> np.dtype[np.generic]:
    """NumPy's dtype of an element type's name; bfloat16 and the types below 16 bits come from `ml_dtypes`.

    Raises:
        RunError: if the name is unknown, or `ml_dtypes` is needed and missing.
    """
    name = {"float": "float32", "int": "int32", "uint": "uint32"}.get(name, name)
    if name not in DLPACK_TYPES:
        raise RunError(f"unknown element type {name!r}", hint=f"known types: {', '.join(DLPACK_TYPES)}")
    if not name.startswith(("bfloat", "float8")) and DLPACK_TYPES[name][1] >= 8:
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError as error:
        raise RunError(f"element type {name} needs the package ml_dtypes", hint="pip install ml_dtypes") from error
    dtype: np.dtype[np.generic] = np.dtype(getattr(ml_dtypes, name))
    return dtype


def dtype_name(dlpack_code: int, bits: int) -> str:
    """The name of a DLPack element type.

    Raises:
        RunError: if there is no such type here.
    """
    name = _NAMES.get((dlpack_code, bits))
    if name is None:
        raise RunError(
            f"DLPack element type code {dlpack_code} with {bits} bits is not supported",
            hint=f"known types: {', '.join(DLPACK_TYPES)}",
        )
    return name
