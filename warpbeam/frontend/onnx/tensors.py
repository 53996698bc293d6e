"""TensorProto and AttributeProto as NumPy arrays and Python values, checked before anything is allocated."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from warpbeam.frontend.onnx.external import ExternalData
from warpbeam.frontend.onnx.limits import DEFAULT, Limits
from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import ImportModelError, UnsupportedError

# TensorProto.DataType -> our dtype; what is not here is refused as unsupported.
DTYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool", 10: "float16",
    11: "float64", 12: "uint32", 13: "uint64", 16: "bfloat16", 17: "float8_e4m3fn", 18: "float8_e4m3fnuz",
    19: "float8_e5m2", 20: "float8_e5m2fnuz", 21: "uint4", 22: "int4", 23: "float4_e2m1fn", 24: "float8_e8m0fnu",
    25: "uint2", 26: "int2", 27: "float6_e2m3fn", 28: "float6_e3m2fn",
}  # fmt: skip

# Valid in the format, without an implementation here.
STRING = 8
OTHER = {8: "string", 14: "complex64", 15: "complex128"}

# Our dtypes by the names that the format's own definitions of operators use, where they differ.
SCHEMA_NAMES = {
    "float32": "float", "float64": "double", "float8_e4m3fn": "float8e4m3fn", "float8_e4m3fnuz": "float8e4m3fnuz",
    "float8_e5m2": "float8e5m2", "float8_e5m2fnuz": "float8e5m2fnuz", "float4_e2m1fn": "float4e2m1",
    "float8_e8m0fnu": "float8e8m0", "float6_e2m3fn": "float6e2m3", "float6_e3m2fn": "float6e3m2",
}  # fmt: skip

_FIELDS = {"float32": "float_data", "float64": "double_data", "int64": "int64_data", "uint32": "uint64_data",
           "uint64": "uint64_data"}  # fmt: skip


def elem_dtype(code: int, what: str) -> str:
    """Our dtype of a TensorProto.DataType."""
    if code in DTYPES:
        return DTYPES[code]
    if code in OTHER:
        raise UnsupportedError(f"tensors of {OTHER[code]}", where=what)
    raise ImportModelError(f"element type {code} is not one of the format", where=what)


def tensor_array(
    proto: Any, external: ExternalData | None = None, limits: Limits = DEFAULT, contents: np.ndarray | None = None
) -> np.ndarray:
    """A tensor of the file as a read-only array; raw data is not copied again. contents: raw data that was cut out."""
    name = proto.name or "a tensor"
    if proto.data_type == STRING:
        return _strings(proto, name, limits)
    dtype = elem_dtype(proto.data_type, f"tensor {name[:80]!r}")
    shape = tuple(proto.dims)
    if any(d < 0 for d in shape) or len(shape) > limits.rank:
        raise ImportModelError(f"tensor {name[:80]!r} has shape {shape[:8]}", why="dimensions must not be negative")
    count = math.prod(shape)
    need = (count * dt.bits(dtype) + 7) // 8
    if count * dt.nbytes(dtype) > limits.tensor_bytes:
        raise ImportModelError(f"tensor {name[:80]!r} of shape {shape[:8]} needs {need} bytes")
    if not count and math.prod(d for d in shape if d) * dt.nbytes(dtype) > limits.tensor_bytes:
        raise ImportModelError(f"tensor {name[:80]!r} of shape {shape[:8]} is too large")
    kind = dt.to_numpy(dtype)
    if proto.data_location == 1:
        entries = {e.key: e.value for e in proto.external_data}
        data = (external or ExternalData(None)).read(entries, need, name)
        if need < count:
            array = unpacked(data.view(np.uint8), dtype, count)
        else:
            array = data.view(kind) if data.ctypes.data % kind.itemsize == 0 else np.frombuffer(data.tobytes(), kind)
    elif contents is not None or proto.HasField("raw_data"):
        raw = proto.raw_data if contents is None else memoryview(contents)
        if len(raw) != need:
            raise ImportModelError(
                f"tensor {name[:80]!r} of shape {shape[:8]} and type {dtype} has {len(raw)} bytes of data, needs {need}"
            )
        array = unpacked(np.frombuffer(raw, np.uint8), dtype, count) if need < count else np.frombuffer(raw, kind)
    else:
        array = _typed(proto, dtype, count, name)
    out = array.reshape(shape)
    out.flags.writeable = False
    return out


def _strings(proto: Any, name: str, limits: Limits) -> np.ndarray:
    """A tensor of strings as an array of str."""
    shape = tuple(proto.dims)
    if any(d < 0 for d in shape) or len(shape) > limits.rank or math.prod(shape) != len(proto.string_data):
        raise ImportModelError(
            f"tensor {name[:80]!r} of shape {shape[:8]} has {len(proto.string_data)} strings of data"
        )
    out = np.empty(len(proto.string_data), object)
    for i, data in enumerate(proto.string_data):
        out[i] = data.decode("utf-8", "replace")
    return out.reshape(shape)


def unpacked(data: np.ndarray, dtype: str, count: int) -> np.ndarray:
    """Elements of fewer than 8 bits, which files pack without gaps from the lowest bit on, as one byte each."""
    width = dt.bits(dtype)
    bits = np.unpackbits(data, bitorder="little")[: count * width].reshape(count, width)
    return np.packbits(bits, axis=1, bitorder="little").reshape(count).view(dt.to_numpy(dtype))


def _typed(proto: Any, dtype: str, count: int, name: str) -> np.ndarray:
    """Data in one of the typed fields; short floats are stored as codes in int32_data, the shortest types packed."""
    field = getattr(proto, _FIELDS.get(dtype, "int32_data"))
    packed = dt.bits(dtype) < 8
    need = (count * dt.bits(dtype) + 7) // 8 if packed else count
    if len(field) != need:
        raise ImportModelError(f"tensor {name[:80]!r} has {len(field)} elements of data, its shape needs {need}")
    kind = dt.to_numpy(dtype)
    if dtype in _FIELDS:
        return np.array(field, kind)
    numbers = np.array(field, np.int32)
    if packed:
        return unpacked(numbers.astype(np.uint8), dtype, count)
    if dt.is_float(dtype):
        return numbers.astype(np.uint8 if dt.bits(dtype) == 8 else np.uint16).view(kind)
    return numbers.astype(kind)


def attribute_value(proto: Any, external: ExternalData | None = None, limits: Limits = DEFAULT) -> Any:
    """An attribute as int, float, str, array, graph proto, type proto, or a list of such."""
    kind = proto.type
    if kind == 1:
        return float(proto.f)
    if kind == 2:
        return int(proto.i)
    if kind == 3:
        return proto.s.decode("utf-8", "replace")
    if kind == 4:
        return tensor_array(proto.t, external, limits)
    if kind == 5:
        return proto.g
    if kind == 6:
        return [float(v) for v in proto.floats]
    if kind == 7:
        return [int(v) for v in proto.ints]
    if kind == 8:
        return [v.decode("utf-8", "replace") for v in proto.strings]
    if kind == 9:
        return [tensor_array(t, external, limits) for t in proto.tensors]
    if kind == 10:
        return list(proto.graphs)
    if kind == 13:
        return proto.tp
    if kind in (11, 12, 14):
        raise UnsupportedError(f"attribute {proto.name!r} holds sparse tensors or several types")
    raise ImportModelError(f"attribute {proto.name[:80]!r} has type {kind}, which the format does not have")
