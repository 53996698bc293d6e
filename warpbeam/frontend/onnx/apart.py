"""A model file taken apart: what describes the model, and the contents of its large tensors.

Parsed as a whole, a file of 400 MB is in memory three times: as it was read, in the parsed message, and in the arrays.
So the contents of large tensors are cut out of the serialized message before it is parsed, and read from the file
straight into arrays. A file in which anything is unusual is left whole, for the parser to judge.

The wire format: https://protobuf.dev/programming-guides/encoding/. The fields: `onnx.proto`.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np

LARGE = 1 << 16  # bytes of contents that are worth it
_MOST_FIELDS = 1 << 20  # that are looked at; a file with more is left whole
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9  # of ModelProto, GraphProto, TensorProto
_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5


@dataclass(frozen=True, slots=True)
class Apart:
    """message: the serialized ModelProto without the `raw_data` of large initializers of its graph; contents: that, by
    the initializers' numbers.
    """

    message: bytes
    contents: dict[int, np.ndarray]


class _Unusual(Exception):
    """Not what a writer of models writes."""


def taken_apart(file: IO[bytes]) -> Apart | None:
    """A model file in two parts; None if it has no large initializers or is unusual.

    Raises OSError if it cannot be read, or is cut short meanwhile.
    """
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        cutter = _Cutter(data)
        try:
            message = cutter.model()
        except _Unusual:
            return None
    if not cutter.found:
        return None
    contents = {}
    for number, (start, stop) in cutter.found.items():
        array = np.empty(stop - start, np.uint8)
        file.seek(start)
        if file.readinto(memoryview(array)) != array.size:  # type: ignore[attr-defined]
            raise OSError(None, "it became shorter while it was read")
        contents[number] = array
    return Apart(message, contents)


class _Cutter:
    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.found: dict[int, tuple[int, int]] = {}  # number of an initializer -> where its contents lie
        self.count = 0
        self.looked = 0

    def model(self) -> bytes:
        pieces = []
        for number, kind, start, value, stop in self._fields(0, len(self.data)):
            if (number, kind) == (_GRAPH, _LEN):
                graph = self._graph(value, stop)
                pieces += [_head(_GRAPH, len(graph)), graph]
            else:
                pieces.append(self.data[start:stop])
        return b"".join(pieces)

    def _graph(self, start: int, end: int) -> bytes:
        pieces, done = [], start
        for number, kind, at, value, stop in self._fields(start, end):
            if (number, kind) != (_INITIALIZER, _LEN):
                continue
            raw = self._raw(value, stop) if stop - value >= LARGE else None
            if raw is not None:
                field, contents, after = raw
                self.found[self.count] = (contents, after)
                head = _head(_INITIALIZER, field - value + stop - after)
                pieces += [self.data[done:at], head, self.data[value:field], self.data[after:stop]]
                done = stop
            self.count += 1
        return b"".join([*pieces, self.data[done:end]])

    def _raw(self, start: int, end: int) -> tuple[int, int, int] | None:
        """Where a tensor's only field of raw contents begins, its contents begin, and they end; None if it is small."""
        found = [(at, value, stop) for number, kind, at, value, stop in self._fields(start, end)
                 if (number, kind) == (_RAW_DATA, _LEN)]  # fmt: skip
        if len(found) > 1:
            raise _Unusual
        return found[0] if found and found[0][2] - found[0][1] >= LARGE else None

    def _fields(self, at: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
        """(number, wire type, begin of the field, of its value, end) of each field of a message."""
        while at < end:
            self.looked += 1
            start = at
            tag, at = self._varint(at, end)
            kind, stop = tag & 7, at
            if kind == _LEN:
                size, at = self._varint(at, end)
                stop = at + size
            elif kind == _VARINT:
                stop = self._varint(at, end)[1]
            elif kind in (_I32, _I64):
                stop = at + (4 if kind == _I32 else 8)
            if stop > end or (stop == at and kind != _LEN) or self.looked > _MOST_FIELDS:
                raise _Unusual
            yield tag >> 3, kind, start, at, stop
            at = stop

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """A number of up to ten bytes, and where it ends."""
        value = 0
        for shift in range(0, 70, 7):
            if at + shift // 7 >= end:
                raise _Unusual
            byte = self.data[at + shift // 7]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at + shift // 7 + 1
        raise _Unusual


def _head(number: int, size: int) -> bytes:
    """Tag and length of a field."""
    out = bytearray([number << 3 | _LEN])
    while size >= 0x80:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*out, size])
