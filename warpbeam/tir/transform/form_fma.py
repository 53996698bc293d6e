"""Writes accumulations `acc + a*b` as one fused multiply-add, because it is one instruction and rounds once.

Only sums into the element that is stored qualify, so that other expressions keep their NumPy meaning bit for bit.
"""

from __future__ import annotations

from typing import Any

from warpbeam.tir.expr import Add, BufferLoad, Call, Mul
from warpbeam.tir.stmt import BufferStore, PrimFunc
from warpbeam.tir.transform.mutate import map_leaves

DTYPES = ("float32", "float64")


def form_fma(func: PrimFunc) -> PrimFunc:
    """Accumulations of products become Call("fma", a, b, acc)."""
    return PrimFunc(func.name, func.params, map_leaves(func.body, _fused), func.attrs)


def _fused(s: Any) -> Any:
    if not isinstance(s, BufferStore) or type(s.value) is not Add or s.value.dtype not in DTYPES:
        return s
    own = BufferLoad(s.buffer, s.indices)
    for acc, product in ((s.value.a, s.value.b), (s.value.b, s.value.a)):
        if acc is own and type(product) is Mul:
            return BufferStore(s.buffer, Call(own.dtype, "fma", (product.a, product.b, own)), s.indices)
    return s
