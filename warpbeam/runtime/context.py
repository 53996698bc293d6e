"""Call contexts: the `wb_ctx` and the tensor descriptors of one call at a time, made once and used again."""

from __future__ import annotations

import ctypes
import weakref
from typing import Any

import numpy as np

from .abi import ABI_VERSION, DLPACK_TYPES, RESERVE_FN, Context, Tensor, numpy_dtype
from .manifest import TensorSpec
from .memory import LARGE_PAGE, Bytes, aligned_bytes, empty
from .shape_expr import ShapeExpr

_contexts: weakref.WeakValueDictionary[int, HostContext] = weakref.WeakValueDictionary()


def _reserve(address: int, size: int) -> int:
    """`ctx->reserve`: replaces the arena by a larger one with the same contents."""
    owner = _contexts.get(address)
    if owner is None or size < 0:
        return 1
    try:
        owner.reserve(size)
    except (MemoryError, ValueError, OverflowError, OSError):
        owner.struct.message = f"out of memory: {size} bytes of scratch memory".encode()
        return 1
    return 0


_reserve_callback = RESERVE_FN(_reserve)
_RESERVE_ADDRESS = ctypes.cast(_reserve_callback, ctypes.c_void_p).value


class HostContext:
    """A `wb_ctx` and the memory it points at."""

    def __init__(self, constants: int, params: int, parallel_for: int, pool: int, num_threads: int) -> None:
        self.struct = Context(
            abi_version=ABI_VERSION, constants=constants, params=params, parallel_for=parallel_for, pool=pool,
            reserve=_RESERVE_ADDRESS, num_threads=num_threads,
        )  # fmt: skip
        self.address = ctypes.addressof(self.struct)
        self.pointer = ctypes.c_void_p(self.address)
        self.arena: Bytes = np.empty(0, np.uint8)
        _contexts[self.address] = self

    def reserve(self, size: int) -> None:
        """Makes the arena at least `size` bytes; its content stays, though it may move.

        One that has contents grows by half at least, so that a call with many tensors of sizes found on the way moves
        each byte a few times and not once per tensor.
        """
        old = self.arena
        if size > self.struct.arena_bytes:
            size = max(size, old.size + old.size // 2)
            self.arena = aligned_bytes(size, LARGE_PAGE if size >= LARGE_PAGE else 64)
            self.arena[: old.size] = old
            self.struct.arena = self.arena.ctypes.data
            self.struct.arena_bytes = size

    def message(self) -> str:
        """Text of the last failure, cleared."""
        text = bytes(self.struct.message).decode("utf-8", "replace")
        self.struct.message = b""
        return text


class Slot:
    """One argument of the entry: its specification and its tensor descriptor."""

    __slots__ = ("dtype", "extents", "late", "name", "nbytes", "shape", "spec", "static", "tensor")

    def __init__(self, spec: TensorSpec) -> None:
        code, bits = DLPACK_TYPES[spec.dtype]
        self.spec = spec
        self.name = spec.name
        self.dtype: np.dtype[Any] = numpy_dtype(spec.dtype)
        self.late = spec.late
        self.static = all(isinstance(extent, int) for extent in spec.shape)
        self.shape: tuple[ShapeExpr, ...] = spec.shape
        self.extents = (ctypes.c_int64 * max(len(spec.shape), 1))()
        if self.static:
            self.extents[: len(spec.shape)] = [int(e) for e in spec.shape if isinstance(e, int)]
        self.nbytes = self.bytes_of(spec.shape) if self.static else 0
        self.tensor = Tensor(
            device_type=1, ndim=len(spec.shape), code=code, bits=bits, lanes=1, shape=ctypes.addressof(self.extents)
        )

    def bytes_of(self, shape: tuple[Any, ...]) -> int:
        """Bytes of a tensor of this type."""
        size: int = self.dtype.itemsize
        for extent in shape:
            size *= extent
        return size

    def set_shape(self, shape: tuple[int, ...]) -> None:
        """Writes the extents of a tensor whose shape is symbolic."""
        self.extents[: len(shape)] = list(shape)
        self.nbytes = self.bytes_of(shape)

    def read_shape(self) -> tuple[int, ...]:
        """The extents as the code left them."""
        return tuple(self.extents[: len(self.shape)])

    def allocate(self, shape: tuple[int, ...]) -> Any:
        """Fresh memory for an output."""
        return empty(shape, self.dtype)


class CallContext(HostContext):
    """A context together with the descriptors of a model's inputs and outputs."""

    def __init__(self, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...], *host: int) -> None:
        super().__init__(*host)
        self.inputs = [Slot(spec) for spec in inputs]
        self.outputs = [Slot(spec) for spec in outputs]
        slots = [*self.inputs, *self.outputs]
        self.table = (ctypes.c_void_p * max(len(slots), 1))(*(ctypes.addressof(slot.tensor) for slot in slots))
        self.arguments = ctypes.c_void_p(ctypes.addressof(self.table))
        self.count = ctypes.c_int32(len(slots))
        self.static = all(slot.static for slot in slots)
        #: the input shapes that the symbolic extents of the outputs were last computed for, and these
        self.shapes_key: tuple[tuple[int, ...], ...] | None = None
        self.output_shapes: tuple[tuple[int, ...], ...] = ()
        rows: list[tuple[Any, ...]] = [(s.name, s.tensor, s.dtype, s.shape, s.nbytes, s) for s in slots]
        self.input_rows, self.output_rows = rows[: len(self.inputs)], rows[len(self.inputs) :]
