"""Makes parameters with strides or an offset plain memory, since code generators index compact buffers only."""

from __future__ import annotations

from typing import Any

from warpbeam.ir.diagnostics import LowerError
from warpbeam.ir.rewrite import rewrite
from warpbeam.tir import expr as e
from warpbeam.tir.arith import simplify
from warpbeam.tir.expr import Buffer, BufferLoad, BufferRef, Call, Ramp
from warpbeam.tir.stmt import BufferStore, PrimFunc


def flatten_strides(func: PrimFunc) -> PrimFunc:
    """Each parameter that is not compact from its first element on becomes one dimension of all it spans.

    def f(A: float32[4, 8] strides[s, 1], s: int64):  … A[i, j] …
    def f(A: float32[3*s + 8], s: int64):             … A[i*s + j] …
    """
    flat = {b: _span(b) for b in func.buffers if not b.plain}
    if not flat:
        return func

    def change(n: Any) -> Any:
        if isinstance(n, BufferLoad) and n.buffer in flat:
            return BufferLoad(flat[n.buffer], (_offset(n.buffer, n.indices),))
        if isinstance(n, BufferStore) and n.buffer in flat:
            return BufferStore(flat[n.buffer], n.value, (_offset(n.buffer, n.indices),))
        if isinstance(n, Call) and any(isinstance(a, BufferRef) and a.buffer in flat for a in n.args):
            return _call(n, flat)
        return None

    params = [flat.get(p, p) if isinstance(p, Buffer) else p for p in func.params]
    return PrimFunc(func.name, params, rewrite(func.body, change), func.attrs)


def _span(b: Buffer) -> Buffer:
    last = b.offset_of([e.as_expr(d) - 1 for d in b.shape])
    return Buffer(b.name, (simplify(last + 1),), b.dtype, b.scope, (), 0, b.data_alignment)


def _offset(b: Buffer, indices: tuple[Any, ...]) -> Any:
    last = indices[-1] if indices else None
    if not isinstance(last, Ramp):
        return simplify(b.offset_of(indices))
    step = e.as_expr(b.strides[-1] if b.strides else 1)
    first = simplify(b.offset_of((*indices[:-1], last.base)))
    return Ramp(first, simplify(e.cast("int64", last.stride) * step), last.count)


def _call(n: Call, flat: dict[Buffer, Buffer]) -> Call:
    """Pointers move on to the buffer's first element; tensors of foreign functions must be compact."""
    args = list(n.args)
    for k, a in enumerate(args):
        if not isinstance(a, BufferRef) or a.buffer not in flat:
            continue
        b = a.buffer
        if n.op == "access_ptr":
            args[1] = simplify(args[1] + b.elem_offset)
        elif n.op == "call_packed" or b.elem_offset != 0:
            raise LowerError(
                f"buffer {b.name} is handed to {n.attrs.get('name', n.op)}, but does not lie compactly in its memory",
                hint="pass access_ptr and the strides, or declare the buffer without strides and offset",
            )
        args[k] = BufferRef(flat[b])
    return Call(n.dtype, n.op, args, n.attrs)
