"""Leaves gaps between the rows of a parameter, so that a kernel can work on a part of something larger."""

from __future__ import annotations

from typing import Any

from warpbeam.ir.node import Node
from warpbeam.ir.rewrite import rewrite
from warpbeam.tir.analysis.access import opaque_buffers
from warpbeam.tir.expr import Buffer, BufferLoad, const_int
from warpbeam.tir.stmt import BufferStore, PrimFunc


def widen_buffer(func: PrimFunc, buffer: Buffer, run: int, pitch: int) -> PrimFunc | None:
    """The lowered `func` with runs of `run` elements of a compact parameter beginning `pitch` elements apart.

    def f(A: float32[8, 4]):  … A[i, j] …
    def f(A: float32[8, 6]):  … A[i, j] …    run 4, pitch 6

    None where no dimension of the parameter begins with a run, or a foreign function gets the buffer.
    """
    wide = _wide(buffer, run, pitch)
    if wide is None or any(b is buffer for b, _ in opaque_buffers(func.body)):
        return None

    def step(node: Node) -> Node | None:
        if isinstance(node, BufferLoad) and node.buffer is buffer:
            return BufferLoad(wide, node.indices)
        if isinstance(node, BufferStore) and node.buffer is buffer:
            return BufferStore(wide, node.value, node.indices)
        return None

    params = [wide if p is buffer else p for p in func.params]
    return PrimFunc(func.name, params, rewrite(func.body, step), func.attrs)


def _wide(buffer: Buffer, run: int, pitch: int) -> Buffer | None:
    """The buffer with a larger dimension where a run begins."""
    if not buffer.plain:
        return None
    inner = 1
    for axis in range(len(buffer.shape) - 1, -1, -1):
        extent = const_int(buffer.shape[axis])
        if extent is None:
            return None
        if inner * extent == run and pitch % inner == 0:
            shape: list[Any] = list(buffer.shape)
            shape[axis] = pitch // inner
            return Buffer(buffer.name, tuple(shape), buffer.dtype, buffer.scope)
        inner *= extent
    return None
