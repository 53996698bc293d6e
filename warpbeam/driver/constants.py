"""The constants section of an artefact under construction."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from warpbeam.relay.expr import Constant
from warpbeam.runtime.memory import aligned_bytes
from warpbeam.target.host import usable_cores
from warpbeam.tir.schedule.layout import apply_layout

_CONST_ALIGN = 64


_LARGE = 8 << 20  # bytes that are worth a second thread


@dataclass(slots=True)
class Constants:
    """The constants section under construction: arrays at aligned offsets, equal contents stored once.

    chunks: (offset, array, the layout it is stored in or None).
    """

    chunks: list[tuple[int, np.ndarray, Any]] = field(default_factory=list)
    size: int = 0
    _known: dict[tuple[Any, ...], tuple[int, tuple[int, ...]]] = field(default_factory=dict)

    def add(self, const: Constant, layout: Any) -> tuple[int, tuple[int, ...]]:
        """(byte offset, shape as stored) of a constant in a layout."""
        array = const.data.array
        key = (str(array.dtype), array.shape, const.data.digest, repr(layout))
        found = self._known.get(key)
        if found is None:
            shape = array.shape if layout is None else tuple(layout["packed"])
            offset = self.size
            self.chunks.append((offset, array, layout))
            self.size = _up(offset + math.prod(shape) * array.itemsize)
            found = self._known[key] = (offset, shape)
        return found

    def blob(self) -> np.ndarray:
        """All constants as one array of bytes, aligned so that a module can use it as it is."""
        out = aligned_bytes(self.size, _CONST_ALIGN)

        def store(chunk: tuple[int, np.ndarray, Any]) -> None:
            offset, array, layout = chunk
            shape = array.shape if layout is None else tuple(layout["packed"])
            end = offset + math.prod(shape) * array.itemsize
            place = out[offset:end].view(array.dtype).reshape(shape)
            if layout is None:
                place[...] = array
            else:
                apply_layout(array.reshape(layout["shape"]), layout, place)
            out[end : _up(end)] = 0

        if self.size < _LARGE:
            for chunk in self.chunks:
                store(chunk)
        else:
            with ThreadPoolExecutor(min(4, usable_cores())) as pool:  # NumPy copies without Python's lock
                list(pool.map(store, self.chunks))
        return out


def _up(size: int) -> int:
    return -(-size // _CONST_ALIGN) * _CONST_ALIGN
