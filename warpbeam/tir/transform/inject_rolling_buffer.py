"""Keeps the rows of an intermediate that the next iteration needs again, because computing them anew costs more.

for y in 8:                                       alloc T: float32[3]
    alloc T: float32[10]  # rolling_buffer        for y in 8:
    for r in 3: T[y + r] = f(y + r)         ->        for r in 3:
    B[y] = T[y] + T[y + 1] + T[y + 2]                     if y == 0 or r >= 2: T[(y + r) % 3] = f(y + r)
                                                      B[y] = T[y % 3] + T[(y + 1) % 3] + T[(y + 2) % 3]

The buffer becomes a ring in the one dimension that moves with the innermost loop around it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from warpbeam.ir.node import Attrs
from warpbeam.ir.rewrite import rewrite
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import accesses, free_vars
from warpbeam.tir.analysis.regions import Range, touched, upper_bound
from warpbeam.tir.analysis.tree import kids, rebuilt, with_kids
from warpbeam.tir.arith import Facts, linear, simplify
from warpbeam.tir.expr import Buffer, BufferLoad, PrimExpr
from warpbeam.tir.stmt import Allocate, BufferStore, For, IfThenElse, PrimFunc, Stmt
from warpbeam.tir.transform.alternate_loops import in_order
from warpbeam.tir.transform.mutate import map_up, peel, wrap
from warpbeam.tir.transform.setting import Setting

NOTE = "rolling_buffer"


def inject_rolling_buffer(func: PrimFunc, at: Setting | None = None) -> PrimFunc:
    """Buffers noted "rolling_buffer" become rings; where the rows do not move evenly the note is without effect."""
    body = map_up(func.body, _loop)
    return func if body is func.body else func.replace(body=body)


@dataclass(frozen=True, slots=True)
class _Ring:
    buffer: Buffer
    new: Buffer
    dim: int
    size: int
    first: PrimExpr  # the first row that iterations before this one have not filled


def _loop(s: Any) -> Stmt:
    if not isinstance(s, For) or s.kind != "serial":
        return s  # type: ignore[no-any-return]
    allocs, body = peel(s.body)
    outside: list[Allocate] = []
    inside: list[Allocate] = []
    for a in allocs:
        ring = _ring(a.buffer, body, s) if NOTE in a.annotations else None
        if ring is None:
            inside.append(a)
            continue
        body = _rolled(body, ring, s)
        notes = Attrs({k: v for k, v in a.annotations.items() if k != NOTE})
        outside.append(Allocate(ring.new, body, notes))
    if not outside:
        return s
    return wrap(outside, rebuilt(s.replace(annotations=in_order(s.annotations)), wrap(inside, body)))


def _ring(buffer: Buffer, body: Stmt, loop: For) -> _Ring | None:
    facts = Facts()
    facts.bind(loop.var, loop.min, loop.extent)
    region = touched(buffer, body, facts)
    moving = [] if region is None else [k for k, r in enumerate(region) if loop.var in free_vars(r.low)]
    if region is None or len(moving) != 1:
        return None
    r = region[moving[0]]
    made = touched(buffer, body, facts, loads=False)
    if made is None or not _same(made[moving[0]], r, facts) or not _all_written(buffer, body):
        return None  # more may be read than this iteration writes, so the rows that are there are not known
    size = upper_bound(r.extent(facts), facts)
    form = linear(r.low, [loop.var])
    step = None if form is None else e.const_int(form[0].get(loop.var))
    if size is None or step is None or not 0 < step < size:
        return None
    shape = tuple(size if k == moving[0] else d for k, d in enumerate(buffer.shape))
    return _Ring(buffer, buffer.replace(shape=shape), moving[0], size, simplify(r.low + (size - step)))


def _all_written(buffer: Buffer, body: Stmt) -> bool:
    """Whether all of the region that the loops span is written: nothing is left out by conditions or uneven loops."""
    stack: list[tuple[Any, bool]] = [(body, True)]
    while stack:
        s, whole = stack.pop()
        below = kids(s)
        whole = whole and not isinstance(s, IfThenElse) and not (isinstance(s, For) and e.const_int(s.extent) is None)
        stack.extend((c, whole) for c in below)
        if not whole and not below and any(x.buffer is buffer for x in accesses(s)[1]):
            return False
    return True


def _same(a: Range, b: Range, facts: Facts) -> bool:
    return all(simplify(x - y, facts) is e.const(0, x.dtype) for x, y in ((a.low, b.low), (a.high, b.high)))


def _rolled(body: Stmt, ring: _Ring, loop: For) -> Any:
    """Rows in the ring, wherever they are named; those that are there already are not computed again."""

    def change(n: Any) -> Any:
        if not isinstance(n, BufferLoad | BufferStore) or n.buffer is not ring.buffer:
            return None
        index = list(n.indices)
        index[ring.dim] = e.floormod(index[ring.dim], ring.size)
        return BufferLoad(ring.new, index) if isinstance(n, BufferLoad) else BufferStore(ring.new, n.value, index)

    return rewrite(_once(body, ring, loop), change)


def _once(s: Any, ring: _Ring, loop: For) -> Any:
    """The statements with every store to the ring under the test that its row is new."""
    if isinstance(s, BufferStore) and s.buffer is ring.buffer:
        return IfThenElse(e.lor(loop.var <= loop.min, s.indices[ring.dim] >= ring.first), s)
    below = kids(s)
    new = [_once(c, ring, loop) for c in below]
    return s if all(a is b for a, b in zip(new, below, strict=True)) else with_kids(s, new)
