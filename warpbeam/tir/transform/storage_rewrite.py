"""Lets buffers whose lives do not overlap share memory, so that less of it is touched and planned for.

alloc a: float32[4096]                       alloc a: float32[4096]
alloc b: float32[4096]                       for i in 4096: a[i] = x[i] + 1.0
for i in 4096: a[i] = x[i] + 1.0             for i in 4096: a[i] = a[i] * 2.0
for i in 4096: b[i] = a[i] * 2.0      ->     for i in 4096: y[i] = a[i]
for i in 4096: y[i] = b[i]

Lives are counted in statements of the sequence under a chain of allocations. A buffer may take the place of one that
dies in the same statement if that statement reads only the element it writes. Buffers of different shapes share a flat
one. Small buffers stay apart, because they may become registers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import post_order, rewrite
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import accesses
from warpbeam.tir.analysis.tree import kids
from warpbeam.tir.arith.iter_map import is_injective
from warpbeam.tir.expr import Buffer, BufferLoad, BufferRef, PrimExpr, Var
from warpbeam.tir.stmt import Allocate, BufferStore, For, PrimFunc, SeqStmt, Stmt
from warpbeam.tir.transform.mutate import map_up, peel, wrap
from warpbeam.tir.transform.setting import Setting

SCOPES = ("global", "local")


def storage_rewrite(func: PrimFunc, at: Setting | None = None) -> PrimFunc:
    """Buffers of one dtype and scope share memory where their lives allow it. Config "tir.disable_storage_rewrite"."""
    at = at or Setting()
    small = at.register_bytes
    allocs, inner = peel(func.body)
    body = map_up(inner, lambda s: _chain(s, small)) if _nested(inner) else inner
    body = _shared(allocs, body, small)
    return func if body is func.body else func.replace(body=body)


def _nested(body: Stmt) -> bool:
    """Whether allocations stand next to each other further in."""
    todo: list[Any] = [body]
    while todo:
        s = todo.pop()
        if isinstance(s, Allocate) and isinstance(s.body, Allocate):
            return True
        todo.extend(kids(s))
    return False


def _chain(s: Any, small: int) -> Stmt:
    """Called from the inside out: the outermost allocation of a chain is handled when its parent is met."""
    if isinstance(s, Allocate):
        return s
    below = kids(s)
    if not any(isinstance(c, Allocate) and isinstance(c.body, Allocate) for c in below):
        return s  # type: ignore[no-any-return]
    from warpbeam.tir.analysis.tree import with_kids

    return with_kids(s, [_shared(*peel(c), small) if isinstance(c, Allocate) else c for c in below]) or s


@dataclass(slots=True)
class _Slot:
    """Memory and the buffers that live in it one after the other."""

    first: Allocate
    buffers: list[Buffer]
    last: int


def _shared(allocs: list[Allocate], body: Stmt, small: int) -> Stmt:
    if len(allocs) < 2 or not isinstance(body, SeqStmt):
        return wrap(allocs, body)
    lives = _lives(allocs, body, small)
    slots: list[_Slot] = []
    fixed = [a for a in allocs if a.buffer not in lives]
    for a in sorted((a for a in allocs if a.buffer in lives), key=lambda a: lives[a.buffer]):
        first, last = lives[a.buffer]
        slot = next((s for s in slots if _takes(s, a.buffer, first, body, lives)), None)
        if slot is None:
            slots.append(_Slot(a, [a.buffer], last))
        else:
            slot.buffers.append(a.buffer)
            slot.last = last
    mapping: dict[Buffer, tuple[Buffer, bool]] = {}
    for slot in slots:
        new, flat = _memory(slot)
        if len(slot.buffers) > 1:
            mapping.update((b, (new, flat)) for b in slot.buffers)
    if not mapping:
        return wrap(allocs, body)
    kept: list[Allocate] = []
    heads = {s.first.buffer: s for s in slots}
    for a in allocs:
        if a in fixed:
            kept.append(a)
        elif a.buffer in heads:
            kept.append(a.replace(buffer=mapping.get(a.buffer, (a.buffer, False))[0]))
    return wrap(kept, rewrite(body, lambda n: _moved(n, mapping)))


def _lives(allocs: list[Allocate], body: SeqStmt, small: int) -> dict[Buffer, tuple[int, int]]:
    """First and last statement that uses each buffer; buffers that must stay as they are are left out."""
    wanted = {a.buffer for a in allocs if a.buffer.scope in SCOPES and a.buffer.plain and not a.annotations}
    wanted = {b for b in wanted if b.scope == "global" or (_count(b) or 0) * dt.nbytes(b.dtype) > small}
    lives: dict[Buffer, tuple[int, int]] = {}
    for k, part in enumerate(body.stmts):
        loads, stores = accesses(part)
        touched: list[Any] = [*loads, *stores]
        for b in {x.buffer for x in touched} & wanted:
            lives[b] = (lives.get(b, (k, k))[0], k)
    for n in post_order(body):
        if isinstance(n, BufferRef):
            lives.pop(n.buffer, None)
    return lives


def _count(b: Buffer) -> int | None:
    total = 1
    for d in b.shape:
        if not isinstance(d, int):
            return None
        total *= d
    return total


def _takes(slot: _Slot, b: Buffer, first: int, body: SeqStmt, lives: dict[Buffer, tuple[int, int]]) -> bool:
    """Whether a slot can hold another buffer from statement `first` on."""
    held = slot.buffers[-1]
    if held.dtype != b.dtype or held.scope != b.scope:
        return False
    same = held.shape == b.shape
    if not same and (_count(b) is None or any(_count(x) is None for x in slot.buffers)):
        return False
    if slot.last < first:
        return True
    return slot.last == first and same and lives[held][1] == first and _in_place(body.stmts[first], held, b)


def _in_place(s: Stmt, old: Buffer, new: Buffer) -> bool:
    """Whether one store, run once per element, writes `new` and reads of `old` the element it writes only."""
    loops: dict[Var, PrimExpr] = {}
    while isinstance(s, For):
        if e.const_int(s.min) != 0:
            return False
        loops[s.var] = s.extent
        s = s.body
    if not isinstance(s, BufferStore) or s.buffer is not new:
        return False
    loads = accesses(s.value)[0]
    if any(x.buffer is new or (x.buffer is old and x.indices != s.indices) for x in loads):
        return False
    return is_injective(s.indices, loops)


def _memory(slot: _Slot) -> tuple[Buffer, bool]:
    first = slot.buffers[0]
    if all(b.shape == first.shape for b in slot.buffers):
        return first, False
    size = max(_count(b) or 0 for b in slot.buffers)
    return first.replace(shape=(size,)), True


def _moved(n: Any, mapping: dict[Buffer, tuple[Buffer, bool]]) -> Any:
    if not isinstance(n, BufferLoad | BufferStore) or n.buffer not in mapping:
        return None
    new, flat = mapping[n.buffer]
    index: Any = n.indices
    if flat:
        at: PrimExpr = e.const(0)
        for i, d in zip(n.indices, n.buffer.shape, strict=True):
            at = e.add(e.mul(at, d), i)
        index = (at,)
    return BufferLoad(new, index) if isinstance(n, BufferLoad) else BufferStore(new, n.value, index)
