"""Buffers of loop programs: typed memory regions, their elements, and pointers to them.

Everything here is part of `warpbeam.tir.expr`; import it from there.
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.node import Binder
from warpbeam.tir.expr_base import IntImm, PrimExpr, add, as_expr, cast, const, mul
from warpbeam.tir.literal import integer

_MASKS = {"r": 1, "w": 2, "rw": 3, "wr": 3}


class Buffer(Binder):
    """A typed memory region over `shape` (ints or expressions), compact row-major unless `strides` say otherwise.

    scope: "global" (arguments and arena), "local" (small stack array), "register" (SSA values after unrolling),
    "shared".
    strides: elements from one index to the next, per dimension; () is compact. elem_offset: element of the memory
    where the buffer begins. data_alignment: bytes the data is aligned to (0: an element's). offset_factor: elem_offset
    is a multiple of it (0: nothing is known). Index with `A[i, j]`; sizes of parameters may be variables.
    """

    name: str
    shape: tuple[Any, ...]
    dtype: str = "float32"
    scope: str = "global"
    strides: tuple[Any, ...] = ()
    elem_offset: Any = 0
    data_alignment: int = 0
    offset_factor: int = 0

    @classmethod
    def _normalize(cls, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        name, shape, dtype, scope, strides, offset, align, factor = super()._normalize(*args, **kwargs)
        dims, steps = tuple(simplify_dim(s) for s in shape), tuple(simplify_dim(s) for s in strides or ())
        if steps and len(steps) != len(dims):
            raise IRError(f"buffer {name} has {len(dims)} dimensions and {len(steps)} strides")
        return name, dims, dtype, scope, steps, simplify_dim(offset), int(align), int(factor)

    def __getitem__(self, indices: Any) -> BufferLoad:
        return BufferLoad(self, indices if isinstance(indices, tuple) else (indices,))

    @property
    def plain(self) -> bool:
        """Whether the buffer is compact and begins at its memory's first element."""
        return not self.strides and isinstance(self.elem_offset, int) and self.elem_offset == 0

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def data(self) -> BufferRef:
        """The pointer to the data, for `call_extern`."""
        return BufferRef(self)

    def scope_name(self) -> str:
        """The memory scope."""
        return self.scope

    def vload(self, begin: Any, dtype: str | None = None) -> PrimExpr:
        """The element at `begin`, or with lanes in `dtype` the vector that begins there."""
        return BufferLoad(self, self._lanes(begin, dtype or self.dtype))

    def vstore(self, begin: Any, value: Any) -> Any:
        """A statement that stores an element, or a vector's lanes, from `begin` on."""
        from warpbeam.tir.stmt import BufferStore

        value = as_expr(value, self.dtype)
        return BufferStore(self, value, self._lanes(begin, value.dtype))

    def _lanes(self, begin: Any, dtype: str) -> tuple[PrimExpr, ...]:
        from warpbeam.tir.expr import Ramp

        found = begin if isinstance(begin, list | tuple) else (begin,)
        index = tuple(as_expr(i) for i in found)
        count = dt.lanes(dtype) // dt.lanes(self.dtype)
        if count <= 1:
            return index
        return (*index[:-1], Ramp(index[-1], const(1, index[-1].dtype), count))

    def offset_of(self, indices: Any) -> PrimExpr:
        """The number of an element within the memory: elem_offset and the strides taken into account."""
        at, step = as_expr(self.elem_offset, "int64"), as_expr(1, "int64")
        for k in reversed(range(len(self.shape))):
            by = as_expr(self.strides[k], "int64") if self.strides else step
            at = add(at, mul(cast("int64", indices[k]), by))
            step = mul(step, self.shape[k])
        return at

    def access_ptr(
        self, access_mask: Any, ptr_type: str = "handle", content_lanes: int = 1, offset: Any = 0, extent: Any = None
    ) -> PrimExpr:
        """A pointer handed to a foreign function, with what is done through it: "r", "w" or "rw" (or 1, 2, 3).

        offset: elements from the buffer's first; extent: elements that are accessed (default: all that follow).
        """
        from warpbeam.tir.expr import Call

        mask = _MASKS.get(access_mask, 0) if isinstance(access_mask, str) else int(access_mask)
        if mask not in (1, 2, 3):
            raise IRError(f"unknown access {access_mask!r} to buffer {self.name}", hint='use "r", "w" or "rw"')
        if extent is None:
            total = as_expr(1, "int64")
            for d in self.shape:
                total = mul(total, d)
            extent = total - offset
        notes = {"lanes": content_lanes} if content_lanes != 1 else {}
        args = (BufferRef(self), as_expr(offset, "int64"), as_expr(extent, "int64"), const(mask, "int64"))
        return Call(ptr_type, "access_ptr", args, notes)


def simplify_dim(value: Any) -> Any:
    """A dimension: a Python int where it is constant, else an int64 expression."""
    if isinstance(value, int):
        return int(value)
    if isinstance(value, IntImm):
        return value.value
    if not isinstance(value, PrimExpr) and hasattr(value, "__prim_expr__"):
        value = value.__prim_expr__()
    if isinstance(value, PrimExpr):
        return value if value.dtype == "int64" else cast("int64", value)
    return integer(value, "a size or an expression", exact=True)


class BufferLoad(PrimExpr):
    """Element(s) of a buffer; the last index may be a Ramp (vector load of its lanes, gather if its stride is not
    1).
    """

    buffer: Buffer
    indices: tuple[PrimExpr, ...]

    @classmethod
    def _normalize(cls, buffer: Buffer, indices: Any) -> tuple[Any, ...]:
        idx = tuple(as_expr(i) for i in indices)
        if len(idx) != len(buffer.shape):
            raise IRError(f"buffer {buffer.name} has {len(buffer.shape)} dimensions, indexed with {len(idx)}")
        return buffer, idx

    def _derive(self) -> None:
        count = 1
        for i in self.indices:
            count = max(count, dt.lanes(i.dtype))
        self._set("dtype", dt.with_lanes(self.buffer.dtype, count * dt.lanes(self.buffer.dtype)))


class BufferRef(PrimExpr):
    """A buffer as a value: the pointer to its data in `call_extern`, the tensor in `call_packed`."""

    buffer: Buffer

    def _derive(self) -> None:
        self._set("dtype", "handle")
