"""Named arrays as bytes, in the classic layout: `open("net.params", "wb").write(save_param_dict(params))`.

All numbers are little-endian. Head: magic, 0, number of names, each name as its length and bytes, number of arrays.
Array: magic, 0, device type and number, rank, type (code, bits, lanes), extents, size in bytes, elements.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from .abi import DLPACK_TYPES, numpy_dtype
from .errors import ArtifactError
from .ndarray import NDArray, as_numpy

_LIST, _ARRAY = 0xF7E58D4F05049CB7, 0xDD5E40F096B4A13F
_TYPES = {**{code: name for name, code in DLPACK_TYPES.items()}, (1, 1): "bool", (0, 1): "bool"}
_MOST = 1 << 20  # names, and bytes of one


def save_param_dict(params: Mapping[str, Any]) -> bytearray:
    """The arrays of a dict as bytes that `load_param_dict` reads."""
    out = bytearray(struct.pack("<3Q", _LIST, 0, len(params)))
    for name in params:
        word = name.encode()
        out += struct.pack("<Q", len(word)) + word
    out += struct.pack("<Q", len(params))
    for value in params.values():
        array = as_numpy(value)
        code, bits = DLPACK_TYPES[array.dtype.name]
        out += struct.pack("<2Q2iiBBH", _ARRAY, 0, 1, 0, array.ndim, code, bits, 1)
        out += struct.pack(f"<{array.ndim}qq", *array.shape, array.nbytes) + array.tobytes()
    return out


def load_param_dict(param_bytes: bytes | bytearray | str) -> dict[str, NDArray]:
    """The arrays that `save_param_dict` wrote, by name.

    Raises:
        ArtifactError: if the bytes are something else, or end early.
    """
    reader = _Reader(param_bytes.encode("latin1") if isinstance(param_bytes, str) else bytes(param_bytes))
    if reader.take("<2Q")[0] != _LIST:
        raise ArtifactError("these bytes are no list of parameters", why="the first eight are not its magic number",
                            hint="give what save_param_dict wrote")  # fmt: skip
    (count,) = reader.take("<Q")
    names = [reader.bytes(reader.take("<Q")[0]).decode() for _ in range(reader.sane(count))]
    if reader.take("<Q")[0] != len(names):
        raise ArtifactError("the list of parameters is damaged", why="it has not as many arrays as names")
    return {name: NDArray(reader.array()) for name in names}


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def bytes(self, count: int) -> bytes:
        if not 0 <= count <= len(self.data) - self.at:
            raise ArtifactError("the list of parameters is cut off", why=f"{count} bytes are missing at {self.at}")
        self.at += count
        return self.data[self.at - count : self.at]

    def take(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(form, self.bytes(struct.calcsize(form)))

    def sane(self, count: int) -> int:
        if count > _MOST:
            raise ArtifactError("the list of parameters is damaged", why=f"it says that it has {count} entries")
        return count

    def array(self) -> np.ndarray[Any, Any]:
        magic, _, _, _, rank, code, bits, lanes = self.take("<2Q2iiBBH")
        kind = _TYPES.get((code, bits))
        if magic != _ARRAY or not 0 <= rank <= 32 or kind is None:
            raise ArtifactError("an array of the list of parameters is damaged", why=f"no such type or rank: {rank}")
        *shape, size = self.take(f"<{rank + 1}q")
        shape += [lanes] if lanes > 1 else []
        dtype = numpy_dtype(kind)
        if min([0, *shape]) < 0 or size != int(np.prod(shape, dtype=object)) * dtype.itemsize:
            raise ArtifactError(
                "an array of the list of parameters is damaged", why=f"{shape} does not fit {size} bytes"
            )
        return np.frombuffer(self.bytes(size), dtype).reshape(shape).copy()
