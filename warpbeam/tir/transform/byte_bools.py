"""Bools that are only moved or combined with each other as bytes: no comparison at each load, no lanes of one bit.

C[i] = A[i] || B[i]   (bools)     ->     C[i] = min(A[i], 1) | min(B[i], 1)   (uint8)

A bool in memory is a byte of 0 or 1. Callers may pass other bytes, which mean true as well. So what comes from a
parameter is made 1 at most, where it is combined or at last where it is stored: results are those of bools, and bytes
of 0 or 1, whatever is given.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import post_order, rewrite
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import opaque_buffers
from warpbeam.tir.expr import Buffer, BufferLoad, Call, Cast, IntImm, PrimExpr, Select
from warpbeam.tir.stmt import BufferStore, PrimFunc

_LOGIC: dict[type, str] = {e.And: "and", e.Or: "or", e.NE: "xor", e.EQ: "xor"}


class Byte(NamedTuple):
    """A bool as uint8. exact: it is certainly 0 or 1, not any other byte for true."""

    value: PrimExpr
    exact: bool

    def made_exact(self) -> PrimExpr:
        return self.value if self.exact else e.minimum(self.value, e.const(1, self.value.dtype))


def byte_bools(func: PrimFunc) -> PrimFunc:
    """Buffers of bools hold uint8, in a program of which some statement only moves or combines them.

    The parameters' own types stay in the attribute "dtypes". Left alone: results that are combined with what they
    were (reductions), registers, and what foreign functions are given.
    """
    swap: dict[Any, Any] = {b: b.replace(dtype="uint8") for b in _buffers(func)}
    own = frozenset(new for old, new in swap.items() if old not in func.params)
    new, moved = frozenset(swap.values()), False

    def visit(n: Any) -> Any:
        nonlocal moved
        if isinstance(n, BufferLoad) and n.buffer in new:
            return e.cast("bool", n)
        if not isinstance(n, BufferStore) or n.buffer not in new:
            return None
        byte = _byte(n.value, own)
        if byte is None:
            return BufferStore(n.buffer, e.cast("uint8", n.value), n.indices)
        moved = moved or not isinstance(n.value, IntImm)
        return BufferStore(n.buffer, byte.made_exact(), n.indices)

    body = rewrite(func.body, visit, dict(swap)) if swap else func.body
    if not moved:
        return func
    dtypes = func.attrs.get("dtypes") or tuple(p.dtype for p in func.params)
    params = [swap.get(p, p) for p in func.params]
    return PrimFunc(func.name, params, body, func.attrs.updated(dtypes=dtypes))


def _buffers(func: PrimFunc) -> list[Buffer]:
    """The buffers of bools in memory that may hold bytes, if anything is stored in one of them."""
    nodes = [*post_order(func.body)]
    stores = [n for n in nodes if isinstance(n, BufferStore) and dt.is_bool(n.buffer.dtype)]
    kept = {b for b, _ in opaque_buffers(func.body)}
    kept.update(s.buffer for s in stores for n in post_order(s.value) if getattr(n, "buffer", None) is s.buffer)
    found = dict.fromkeys(n.buffer for n in nodes if isinstance(n, BufferLoad | BufferStore)) if stores else {}
    return [b for b in found if dt.is_bool(b.dtype) and b.scope != "register" and b not in kept]


def _byte(value: PrimExpr, own: frozenset[Buffer]) -> Byte | None:
    """A bool made of bytes alone as a byte. own: buffers that hold 0 and 1 only."""
    known: dict[Any, Byte | None] = {}
    for n in post_order(value, enter=_inside):
        known[n] = _leaf(n, own) if not _inside(n) else _combined(n, known)
    return known[value]


def _inside(n: Any) -> bool:
    """Whether a bool is made of other bools."""
    if isinstance(n, Call):
        return n.op == "if_then_else" and dt.is_bool(n.dtype)
    return (isinstance(n, e.Not | Select) and dt.is_bool(n.dtype)) or (type(n) in _LOGIC and dt.is_bool(n.a.dtype))


def _leaf(n: Any, own: frozenset[Buffer]) -> Byte | None:
    if isinstance(n, IntImm):
        return Byte(e.const(n.value, "uint8"), True)
    if not isinstance(n, Cast) or not dt.is_int(n.value.dtype) or dt.bits(n.value.dtype) != 8:
        return None
    return Byte(e.cast("uint8", n.value), isinstance(n.value, BufferLoad) and n.value.buffer in own)


def _combined(n: Any, known: dict[Any, Byte | None]) -> Byte | None:
    if isinstance(n, Select | Call):
        cond, *arms = (n.cond, n.a, n.b) if isinstance(n, Select) else n.args
        a, b = (known[x] for x in arms)
        if a is None or b is None:
            return None
        both = (a.value, b.value)
        value = e.select(cond, *both) if isinstance(n, Select) else Call(a.value.dtype, n.op, (cond, *both), n.attrs)
        return Byte(value, a.exact and b.exact)
    parts = [known[x] for x in ((n.a,) if isinstance(n, e.Not) else (n.a, n.b))]
    bits = [p.made_exact() for p in parts if p is not None]
    if len(bits) < len(parts):
        return None
    word = _LOGIC.get(type(n), "xor")
    value = bits[0] if isinstance(n, e.Not) else e.call(f"bitwise_{word}", *bits)
    return Byte(e.call("bitwise_xor", value, e.const(1, value.dtype)) if isinstance(n, e.Not | e.EQ) else value, True)
