"""Turns the last step of a lane-wise reduction into one intrinsic, because lanes are combined faster inside a vector.

for v in 16: C[0] = C[0] + part[v]     ->     C[0] = C[0] + vector_reduce_add(part[ramp(0, 1, 16)])
"""

from __future__ import annotations

from typing import Any

from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import free_vars
from warpbeam.tir.expr import BufferLoad, Call, Ramp
from warpbeam.tir.stmt import BufferStore, For, PrimFunc, Stmt
from warpbeam.tir.transform.mutate import map_up

NAMES: dict[type, str] = {
    e.Add: "vector_reduce_add",
    e.Mul: "vector_reduce_mul",
    e.Min: "vector_reduce_min",
    e.Max: "vector_reduce_max",
    e.And: "vector_reduce_and",
    e.Or: "vector_reduce_or",
}
SCOPES = ("local", "register")


def reduce_lanes(func: PrimFunc) -> PrimFunc:
    """Loops that only combine the lanes of a small buffer are gone."""
    return PrimFunc(func.name, func.params, map_up(func.body, _reduced), func.attrs)


def _reduced(s: Any) -> Stmt:
    if not isinstance(s, For) or s.kind not in ("serial", "unrolled") or not isinstance(s.body, BufferStore):
        return s  # type: ignore[no-any-return]
    store, count = s.body, e.const_int(s.extent)
    name = NAMES.get(type(store.value))
    if name is None or e.const_int(s.min) != 0 or count is None or not 2 <= count <= 64:
        return s
    own = BufferLoad(store.buffer, store.indices)
    value: Any = store.value
    for acc, part in ((value.a, value.b), (value.b, value.a)):
        if acc is own and isinstance(part, BufferLoad) and part.buffer.scope in SCOPES and part.indices:
            *outer, last = part.indices
            if last is not s.var or any(s.var in free_vars(i) for i in (*outer, *store.indices)):
                continue
            lanes = BufferLoad(part.buffer, (*outer, Ramp(e.const(0, s.var.dtype), e.const(1, s.var.dtype), count)))
            return BufferStore(store.buffer, type(value)(own, Call(own.dtype, name, (lanes,))), store.indices)
    return s
