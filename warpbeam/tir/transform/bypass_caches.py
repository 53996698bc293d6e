"""Marks results that no cache will hold when they are read, so that whole lines of them are stored past the caches.

def relu(A: float32[64, 1048576], B: float32[64, 1048576]) {"bypass": (1,)}

An ordinary store first reads the line that it changes, and then drives out of the caches what is still of use. Neither
serves a result that is gone from them before anybody reads it: one of half the third-level cache's size or more, in a
kernel that passes one and a half times that cache's by it (from there on a kernel and its reader together take less).
What a kernel reads again itself stays as it is, and so does what it asks for ahead: where results come in bursts, at
the end of each row, stores into lines that are there wait less.
"""

from __future__ import annotations

from math import prod
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import post_order
from warpbeam.tir.expr import Buffer, BufferLoad, BufferRef, const_int
from warpbeam.tir.stmt import BufferStore, PrimFunc
from warpbeam.tir.transform.setting import Setting

KEY = "bypass"


def possible(target: Any) -> bool:
    """Whether a machine has such stores, of whole lines, and a cache that is too small for something."""
    lines = getattr(target, "kind", "") == "llvm" and target.vector_bits == 8 * target.line
    return lines and target.l3 > 0 and target.triple.startswith("x86_64")


def past_caches(target: Any, result: int, total: int) -> bool:
    """Whether a result of so many bytes goes past the caches, in a kernel that reads and writes `total`."""
    return _large(target, result) and 2 * total >= 3 * target.l3


def _large(target: Any, result: int) -> bool:
    return possible(target) and 2 * result >= target.l3


def bypass_caches(func: PrimFunc, at: Setting) -> PrimFunc:
    """The function with the numbers of such parameters as its attribute "bypass"."""
    if not any(_large(at.target, _bytes(p) or 0) for p in func.params if isinstance(p, Buffer)):
        return func
    nodes = list(post_order(func.body))
    stored = {n.buffer for n in nodes if isinstance(n, BufferStore)}
    read = {n.buffer for n in nodes if isinstance(n, BufferLoad | BufferRef)}
    sizes = {b: size for b in func.buffers if (size := _bytes(b)) is not None and (b in stored or b in read)}
    total = sum(sizes.values())
    lines = {n.buffer for n in nodes if isinstance(n, BufferStore) and _whole_line(n, at.target.line)} - read
    far = [k for k, p in enumerate(func.params) if p in lines and past_caches(at.target, sizes.get(p, 0), total)]
    return func.with_attr(KEY, tuple(far)) if far else func


def _whole_line(store: BufferStore, line: int) -> bool:
    """Whether as much as a line is stored at once, in a buffer all of whose rows begin with a line."""
    lanes, size = max((dt.lanes(i.dtype) for i in store.indices), default=1), dt.nbytes(store.buffer.dtype)
    sizes = [const_int(n) for n in store.buffer.shape]
    return lanes * size == line and (len(sizes) <= 1 or (sizes[-1] or 0) * size % line == 0)


def _bytes(buffer: Buffer) -> int | None:
    sizes = [const_int(n) for n in buffer.shape]
    return prod(n or 0 for n in sizes) * dt.nbytes(buffer.dtype) if None not in sizes else None
