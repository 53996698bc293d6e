"""The constants section of an artefact under construction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from warpbeam.relay.expr import Constant
from warpbeam.runtime.memory import aligned_bytes
from warpbeam.tir.schedule.layout import apply_layout

_CONST_ALIGN = 64


@dataclass(slots=True)
class Constants:
    """The constants section under construction: arrays at aligned offsets, equal contents stored once."""

    chunks: list[tuple[int, np.ndarray]] = field(default_factory=list)
    size: int = 0
    _known: dict[tuple[Any, ...], tuple[int, np.ndarray]] = field(default_factory=dict)

    def add(self, const: Constant, layout: Any) -> tuple[int, np.ndarray]:
        """(byte offset, array as stored) of a constant in a layout."""
        array = const.data.array
        key = (str(array.dtype), array.shape, const.data.digest, repr(layout))
        found = self._known.get(key)
        if found is None:
            stored = array if layout is None else apply_layout(array.reshape(layout["shape"]), layout)
            packed = np.ascontiguousarray(stored)
            offset = self.size
            self.chunks.append((offset, packed))
            self.size = -(-(offset + packed.nbytes) // _CONST_ALIGN) * _CONST_ALIGN
            found = self._known[key] = (offset, packed)
        return found

    def blob(self) -> np.ndarray:
        """All constants as one array of bytes, aligned so that a module can use it as it is."""
        out = aligned_bytes(self.size, _CONST_ALIGN)
        for offset, array in self.chunks:
            end = offset + array.nbytes
            out[offset:end] = array.reshape(-1).view(np.uint8)
            out[end : -(-end // _CONST_ALIGN) * _CONST_ALIGN] = 0
        return out
