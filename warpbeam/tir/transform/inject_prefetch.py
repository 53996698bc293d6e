"""Asks for data some iterations before it is used, because memory answers late.

for i in 64:  # prefetch=(("A", 2),)          for i in 64:
    B[i] = A[i * 16]                    ->        prefetch(A[min((i + 2) * 16, 1023)])
                                                  B[i] = A[i * 16]
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import substitute
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import accesses
from warpbeam.tir.analysis.regions import touched, upper_bound
from warpbeam.tir.analysis.tree import kids, rebuilt
from warpbeam.tir.arith import Facts, simplify
from warpbeam.tir.expr import Buffer, BufferLoad, PrimExpr, Var
from warpbeam.tir.stmt import Allocate, Evaluate, For, PrimFunc, Stmt, seq
from warpbeam.tir.transform.mutate import map_up, wrap
from warpbeam.tir.transform.setting import Setting
from warpbeam.tir.transform.stage_notes import parts_of, regrown

NOTE = "prefetch"


def inject_prefetch(func: PrimFunc, at: Setting | None = None) -> PrimFunc:
    """Loops noted "prefetch": ((buffer name, iterations ahead), …) begin by asking for what a later iteration reads."""
    line = int(getattr((at or Setting()).target, "line", 64))
    body = map_up(func.body, lambda s: _loop(s, line))
    return func if body is func.body else func.replace(body=body)


def _loop(s: Any, line: int) -> Stmt:
    if not isinstance(s, For) or NOTE not in s.annotations:
        return s  # type: ignore[no-any-return]
    asks: list[Stmt] = []
    for name, ahead in s.annotations[NOTE]:
        asks.extend(_asks(s, name, ahead, line))
    allocs, parts = parts_of(s)
    notes = {k: v for k, v in regrown(s, [len(asks) + 1, *[1] * (len(parts) - 1)]).items() if k != NOTE}
    return rebuilt(s.replace(annotations=notes), wrap(allocs, seq(*asks, *parts)))


def _asks(s: For, name: str, ahead: Any, line: int) -> list[Stmt]:
    facts = Facts()
    facts.bind(s.var, s.min, s.extent)
    buffer = next((x.buffer for x in accesses(s.body)[0] if x.buffer.name == name), None)
    region = None if buffer is None else touched(buffer, s.body, facts, stores=False)
    if buffer is None or region is None or buffer in _made_inside(s):
        return []
    step = max(1, line // dt.nbytes(buffer.dtype))
    index: list[PrimExpr] = []
    loops: list[tuple[Var, int]] = []
    for k, (r, size) in enumerate(zip(region, buffer.shape, strict=True)):
        last = k == len(region) - 1
        count = upper_bound(r.extent(facts), facts)
        if count is None:
            return []
        count = -(-count // step) if last else count
        at = substitute(r.low, {s.var: e.add(s.var, ahead)})
        if count > 1:
            var = Var(f"{name}_{k}", s.var.dtype)
            loops.append((var, count))
            facts.bind(var, 0, count)
            at = e.add(at, e.mul(var, step if last else 1))
        index.append(simplify(e.maximum(e.minimum(at, e.sub(e.as_expr(size), 1)), 0), facts))
    out: Stmt = Evaluate(e.call("prefetch", BufferLoad(buffer, index), dtype="int64"))
    for var, count in reversed(loops):
        out = For(var, 0, count, "serial", out)
    return [out]


def _made_inside(s: For) -> set[Buffer]:
    """Buffers that each iteration has for itself: nothing of a later one is there to be asked for."""
    found, stack = set(), [s.body]
    while stack:
        inner = stack.pop()
        if isinstance(inner, Allocate):
            found.add(inner.buffer)
        stack.extend(kids(inner))
    return found
