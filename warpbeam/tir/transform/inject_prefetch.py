"""Asks for data some iterations before it is used, because memory answers late.

for i in 64:  # prefetch=(("A", 2),)          for i in 64:
    B[i] = A[i * 16]                    ->        prefetch(A[min((i + 2) * 16, 1023)])
                                                  B[i] = A[i * 16]

for p in 24:    # prefetch=(("W", 1, "k"),)   for p in 24:
    for t in 10:                                  for t in 10:
        for k in 768:                   ->            for k in 768:
            … W[p, k, 0:32]                               prefetch(W[min(p + 1, 23), line min(t * 768 + k, 1535)]) …

With ("W", 1, "k", "c") and W[c, p, …], what follows p = 23 is p = 0 of the next c.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import substitute
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import accesses, free_vars
from warpbeam.tir.analysis.regions import Range, touched, upper_bound
from warpbeam.tir.analysis.tree import allocated, kids, rebuilt
from warpbeam.tir.arith import Facts, simplify
from warpbeam.tir.expr import Buffer, BufferLoad, PrimExpr, Var
from warpbeam.tir.stmt import Evaluate, For, PrimFunc, Stmt, seq
from warpbeam.tir.transform.mutate import map_up, wrap
from warpbeam.tir.transform.setting import Setting
from warpbeam.tir.transform.stage_notes import parts_of, regrown

NOTE = "prefetch"
_LIKELY = 4  # iterations of a loop whose extent is not known


def inject_prefetch(func: PrimFunc, at: Setting | None = None) -> PrimFunc:
    """Loops noted "prefetch": ((buffer name, iterations ahead), …) begin by asking for what a later iteration reads,
    or writes where none of them reads the buffer; with a third entry, an inner loop's name, the iterations of that loop
    ask for a share each. With a fourth, an outer loop's name, the first iterations of the next one of that loop follow
    the last of this one. With a fifth, 0 to 3, the lines come to another cache than the nearest.
    """
    line = int(getattr((at or Setting()).target, "line", 64))
    body = map_up(func.body, lambda s: _loop(s, line))
    return func if body is func.body else func.replace(body=body)


def unasked(s: Stmt) -> Stmt:
    """A statement without the asking in it, which neither reads nor writes."""
    return map_up(s, lambda x: None if _asks(x) else x)


def _asks(s: Stmt) -> bool:
    return isinstance(s, Evaluate) and isinstance(s.value, e.Call) and s.value.op == "prefetch"


def _loop(s: Any, line: int) -> Stmt:
    if not isinstance(s, For) or NOTE not in s.annotations:
        return s  # type: ignore[no-any-return]
    asks: list[Stmt] = []
    for name, ahead, *loops in s.annotations[NOTE]:
        ask = _ahead(s, name, ahead, loops[1] if len(loops) > 1 else "", line)
        if ask is not None and len(loops) > 2:
            ask = replace(ask, locality=loops[2])
        if ask is not None and loops and loops[0]:
            s = _spread(s, ask, loops[0])
        elif ask is not None:
            asks.append(_at_once(ask))
    return _before(s, asks, {k: v for k, v in s.annotations.items() if k != NOTE})


def _before(s: For, asks: list[Stmt], notes: Any) -> Stmt:
    """A loop whose iterations begin with these statements."""
    allocs, parts = parts_of(s)
    s = s.replace(annotations=notes)
    return rebuilt(
        s.replace(annotations=regrown(s, [len(asks) + 1, *[1] * (len(parts) - 1)])), wrap(allocs, seq(*asks, *parts))
    )


_FEW = 16  # lines that are asked for one after the other without a loop


@dataclass(frozen=True, slots=True)
class Ask:
    """Lines of a buffer that a later iteration of a loop reads: first element by dimension, and how many are read."""

    buffer: Buffer
    low: tuple[PrimExpr, ...]
    counts: tuple[int, ...]
    step: int  # elements in a line
    facts: Facts
    writes: bool = False
    locality: int = 3

    def load(self, offsets: list[PrimExpr]) -> Stmt:
        """Asks for the element at a distance from the first one; what is read is moved until it lies in the buffer: one
        comparison for all of its lines. Where it is not known to fit, each line is kept inside.
        """
        index = []
        for low, by, size, count in zip(self.low, offsets, self.buffer.shape, self.counts, strict=True):
            fits = count <= (e.const_int(size) or 0)
            begin, length, rest = (low, count, by) if fits else (e.add(low, by), 1, e.as_expr(0))
            inside = e.maximum(e.minimum(begin, e.sub(e.as_expr(size), length)), 0)
            index.append(e.add(simplify(inside, self.facts), simplify(rest, self.facts)))
        attrs = {"rw": 1} if self.writes else {}
        if self.locality != 3:
            attrs["locality"] = self.locality
        return Evaluate(e.call("prefetch", BufferLoad(self.buffer, index), dtype="int64", **attrs))


def _ahead(s: For, name: str, ahead: Any, onto: str, line: int) -> Ask | None:
    """What the iteration that comes `ahead` later reads of a buffer, or only writes; None where that is not known."""
    facts = Facts()
    facts.bind(s.var, s.min, s.extent)
    read, written = ([x.buffer for x in found if x.buffer.name == name] for found in accesses(s.body))
    buffer, writes = next(iter(read or written), None), not read
    region: list[Range] | None = None if buffer is None else touched(buffer, s.body, facts, not writes, writes)
    if buffer is None or region is None or buffer in allocated(s):
        return None
    counts = [upper_bound(r.extent(facts), facts) for r in region]
    later = _later(s, ahead, onto, [r.low for r in region])
    low = [substitute(r.low, later) for r in region]
    known = tuple(c for c in counts if c is not None)
    step = max(1, line // dt.nbytes(buffer.dtype))
    return Ask(buffer, tuple(low), known, step, facts, writes) if len(known) == len(counts) else None


def _later(s: For, ahead: Any, onto: str, low: list[PrimExpr]) -> dict[Var, PrimExpr]:
    """The loop's variable so many iterations later; with that of the loop around it, where these depend on it."""
    around = next((v for index in low for v in free_vars(index) if v.name == onto), None)
    there = e.add(e.sub(s.var, s.min), ahead)
    if around is None:
        return {s.var: e.add(s.var, ahead)}
    return {
        s.var: e.add(e.floormod(there, s.extent), s.min),
        around: e.add(around, e.floordiv(there, s.extent)),
    }


def _at_once(ask: Ask) -> Stmt:
    """Loops over the lines."""
    offsets: list[PrimExpr] = []
    loops: list[tuple[Var, int]] = []
    for k, count in enumerate(ask.counts):
        last = k == len(ask.counts) - 1
        count = -(-count // ask.step) if last else count
        if count == 1:
            offsets.append(e.as_expr(0))
            continue
        var = Var(f"{ask.buffer.name}_{k}", "int64")
        loops.append((var, count))
        ask.facts.bind(var, 0, count)
        offsets.append(e.mul(var, ask.step if last else 1))
    out = ask.load(offsets)
    kind = "unrolled" if prod(count for _, count in loops) <= _FEW else "serial"
    for var, count in reversed(loops):
        out = For(var, 0, count, kind, out)
    return out


def _spread(s: For, ask: Ask, through: str | tuple[str, ...]) -> For:
    """The loop with an even share of the asking in each iteration of inner ones; as it is where these are gone."""
    names = (through,) if isinstance(through, str) else through
    paths = [path for path in (_path(s, name) for name in names) if path]
    runs = [prod(e.const_int(f.extent) or _LIKELY for f in path) for path in paths]
    if not paths:
        return s
    head = len(ask.counts) - 1  # dimensions from here on lie next to each other in memory
    while head > 0 and e.const_int(ask.buffer.shape[head]) == ask.counts[head]:
        head -= 1
    lines = -(-prod(ask.counts[head:]) // ask.step)
    total = lines * prod(ask.counts[:head])
    share = -(-total // sum(runs))
    changes: dict[Any, Stmt] = {}
    for j, path in enumerate(paths):
        position: PrimExpr = e.as_expr(0)
        for f in path:
            ask.facts.bind(f.var, f.min, f.extent)
            position = e.add(e.mul(position, f.extent), e.sub(f.var, f.min))
        position = e.add(position, sum(runs[:j]))
        asks = []
        for k in range(share):
            at = simplify(e.minimum(e.add(e.mul(position, share), k), total - 1), ask.facts)
            inner = e.mul(at if lines == total else e.floormod(at, lines), ask.step)
            outer = e.floordiv(at, lines)
            sizes = [ask.counts[:head], ask.counts[head:]]
            asks.append(ask.load([*_unravel(outer, sizes[0]), *_unravel(inner, sizes[1])]))
        changes[path[-1]] = _before(path[-1], asks, path[-1].annotations)
    body = map_up(s.body, lambda x: changes.get(x, x))
    return rebuilt(s, body)  # type: ignore[return-value]


def _unravel(at: PrimExpr, counts: tuple[int, ...]) -> list[PrimExpr]:
    """Index by dimension of an element of a row-major box."""
    out: list[PrimExpr] = []
    for k, count in reversed(list(enumerate(counts))):
        out.insert(0, e.floormod(at, count) if k else at)
        at = e.floordiv(at, count)
    return out


def _path(s: For, name: str) -> list[For]:
    """The loops inside of one down to that with a name, outermost first; none where there is no such loop."""
    stack: list[tuple[Any, tuple[For, ...]]] = [(s.body, ())]
    while stack:
        inner, above = stack.pop()
        if isinstance(inner, For):
            above = (*above, inner)
            if inner.var.name == name:
                return list(above)
        stack.extend((c, above) for c in kids(inner))
    return []
