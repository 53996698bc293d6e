"""Checks a kernel against the limits of a device, so that it fails here and not when it is launched."""

from __future__ import annotations

from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import LowerError
from warpbeam.ir.rewrite import post_order
from warpbeam.target import Target
from warpbeam.tir import expr as e
from warpbeam.tir.expr import Buffer
from warpbeam.tir.stmt import Allocate, PrimFunc
from warpbeam.tir.transform.gpu.common import is_block_axis, is_private, is_shared, nest_of

_MAX_Z = 64
_VECTOR_BYTES = 16


class DeviceLimitError(LowerError):
    """A kernel asks for more than a device has: threads per block, shared or local memory, width of vectors.

    Wrong:
        X = te.placeholder((4096,), name="X")
        Y = te.compute((4096,), lambda i: X[i] + 1.0, name="Y")
        t = te.create_schedule(Y.op)
        t[Y].bind(Y.op.axis[0], te.thread_axis("threadIdx.x"))
        tvm.build(t, [X, Y], target="cuda")
    Right:
        t = te.create_schedule(Y.op)
        outer, inner = t[Y].split(Y.op.axis[0], factor=256)
        t[Y].bind(outer, te.thread_axis("blockIdx.x"))
        t[Y].bind(inner, te.thread_axis("threadIdx.x"))
        tvm.build(t, [X, Y], target="cuda")
    """


def verify_gpu_code(device: PrimFunc, target: Target) -> PrimFunc:
    """The same device function, or DeviceLimitError."""
    found = [*_threads(device, target), *_memory(device, target), *_vectors(device)]
    if found:
        raise DeviceLimitError(
            f"kernel {device.name} does not fit {target.name}: {found[0][0]}",
            where=device.name,
            why="; ".join(text for text, _ in found),
            hint=found[0][1],
        )
    return device


def _threads(device: PrimFunc, target: Target) -> list[tuple[str, str]]:
    loops, _, _ = nest_of(device.body)
    total, found = 1, []
    for f in loops:
        count = e.const_int(f.extent)
        if is_block_axis(f.thread) or count is None:
            continue
        total *= count
        if f.thread.endswith(".z") and count > _MAX_Z:
            found.append((f"threadIdx.z has {count} threads of at most {_MAX_Z}", "bind it to threadIdx.y"))
    if target.max_threads_per_block and total > target.max_threads_per_block:
        text = f"a block has {total} threads of at most {target.max_threads_per_block}"
        found.append((text, "split the loops that are bound to threadIdx by smaller factors"))
    return found


def _memory(device: PrimFunc, target: Target) -> list[tuple[str, str]]:
    shared = local = 0
    for n in post_order(device.body):
        if isinstance(n, Allocate):
            size = _bytes(n.buffer)
            shared += size if is_shared(n.buffer.scope) else 0
            of_warp = n.buffer.scope.startswith("wmma.")  # shared out among the threads of a warp
            local += 0 if not is_private(n.buffer.scope) else size // 32 if of_warp else size
    found = []
    if target.shared_bytes and shared > target.shared_bytes:
        hint = "use smaller tiles, or compute the cached stages at an inner loop"
        found.append((f"it uses {shared} bytes of shared memory of at most {target.shared_bytes}", hint))
    if target.local_bytes and local > target.local_bytes:
        hint = "use smaller tiles per thread"
        found.append((f"a thread uses {local} bytes of local memory of at most {target.local_bytes}", hint))
    return found


def _bytes(buffer: Buffer) -> int:
    total = dt.nbytes(buffer.dtype)
    for d in buffer.shape:
        total *= e.const_int(d) or 1
    return total


def _vectors(device: PrimFunc) -> list[tuple[str, str]]:
    wide: dict[Any, None] = {}
    for n in post_order(device.body):
        if isinstance(n, e.BufferLoad) and dt.lanes(n.dtype) > 1 and dt.nbytes(n.dtype) > _VECTOR_BYTES:
            wide[n.dtype] = None
    hint = "vectorize loops of at most 16 bytes, that is 4 floats"
    return [(f"it moves vectors of {t}, wider than {_VECTOR_BYTES} bytes", hint) for t in wide]
