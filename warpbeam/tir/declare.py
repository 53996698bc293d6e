"""Declaring buffers by hand."""

from __future__ import annotations

from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.tir.expr import Buffer, Var


def decl_buffer(
    shape: Any,
    dtype: str | None = None,
    name: str = "buffer",
    data: Any = None,
    strides: Any = None,
    elem_offset: Any = None,
    scope: str = "",
    data_alignment: int = -1,
    offset_factor: int = 0,
    buffer_type: str = "",
    axis_separators: Any = None,
    span: Any = None,
) -> Buffer:
    """A buffer: `shape` of ints or expressions, `dtype` (float32), and how it lies in memory.

    strides: elements per step of each dimension (None: compact). elem_offset: where it begins; with an offset_factor
    and no elem_offset, a variable of its own. data_alignment: bytes, -1 for the least. scope: "global" when empty.
    data names the memory of a pointer made elsewhere and is not needed here; buffer_type "auto_broadcast" and
    axis_separators are accepted for compact buffers, where they say nothing new.
    """
    dims = tuple(shape) if isinstance(shape, list | tuple) else (shape,)
    if elem_offset is None:
        elem_offset = Var(f"{name}_elem_offset") if offset_factor else 0
    kind = dt.canonical(dtype or "float32")
    align = data_alignment if data_alignment > 0 else 0
    return Buffer(
        name,
        dims,
        kind,
        scope or "global",
        strides or (),
        elem_offset,
        align,
        offset_factor,
    )
