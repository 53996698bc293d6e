"""Keeps small tile buffers in registers, because an accumulator in memory costs a load and a store per multiply-add.

alloc acc: float32[4] @local                     alloc acc: float32[4] @register
for i in 4: acc[i] = 0.0                         acc[0] = 0.0; acc[1] = 0.0; …
for k in n:                                ->    for k in n:
    for i in unrolled(4): acc[i] += A[k, i]          acc[0] += A[k, 0]; …

Before loops are expanded, serial loops that alone keep a tile's indices from becoming constants are unrolled;
afterwards every small buffer with constant indices moves.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import children
from warpbeam.ir.rewrite import substitute
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import accesses, free_vars
from warpbeam.tir.analysis.tree import kids, with_kids
from warpbeam.tir.expr import Buffer, BufferLoad, IntImm, Ramp, Var
from warpbeam.tir.stmt import Allocate, BufferStore, For, PrimFunc, Stmt
from warpbeam.tir.transform.mutate import peel, wrap
from warpbeam.tir.transform.setting import Setting

SCOPES = ("local", "global", "")
MAX_COPIES = 512  # statements that unrolling for one tile may make
MAX_LANES = 64


def tile_bytes(b: Buffer) -> int | None:
    """Bytes of a buffer of constant shape."""
    total = dt.nbytes(b.dtype)
    for s in b.shape:
        if not isinstance(s, int):
            return None
        total *= s
    return total


# ---------------------------------------------------------------------------------------------------- before expansion


def unroll_tiles(func: PrimFunc, at: Setting | None = None) -> PrimFunc:
    """Serial loops over a tile whose updates are unrolled already become unrolled."""
    at = at or Setting()
    allocs, body = peel(func.body)
    tiles = _Tiles(at.register_bytes)
    for a in allocs:
        tiles.open(a, inner=False)
    tiles.walk(body, (), 1)
    marked = tiles.marked()
    return func if not marked else func.replace(body=wrap(allocs, _mark(body, marked)))


@dataclass(slots=True)
class _Tile:
    depth: int
    fits: bool = True
    updated: bool = False
    serial: dict[For, None] = field(default_factory=dict)
    copies: int = 0


class _Tiles:
    """Which loops index which small buffer."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.tiles: dict[Buffer, _Tile] = {}

    def open(self, a: Allocate, inner: bool, depth: int = 0) -> None:
        size = tile_bytes(a.buffer)
        scopes = SCOPES if inner else ("local",)
        if a.buffer.scope in scopes and size is not None and size <= self.room:
            self.tiles[a.buffer] = _Tile(depth)

    def walk(self, s: Any, loops: tuple[For, ...], copies: int) -> None:
        if isinstance(s, For):
            self.note((s.min, s.extent), None, loops, copies)
            count = e.const_int(s.extent) if s.kind == "unrolled" else 1
            self.walk(s.body, (*loops, s), copies * (count or 1))
            return
        if isinstance(s, Allocate):
            self.open(s, True, len(loops))
            self.walk(s.body, loops, copies)
            return
        below = kids(s)
        parts = [c for c in children(s) if c not in below]
        self.note((s,) if not below else tuple(parts), s, loops, copies)
        for c in below:
            self.walk(c, loops, copies)

    def note(self, nodes: tuple[Any, ...], stmt: Any, loops: tuple[For, ...], copies: int) -> None:
        for node in nodes:
            if not isinstance(node, IntImm | Var | Buffer):
                loads, stores = accesses(node)
                touched: list[Any] = [*loads, *stores]
                for x in touched:
                    if x.buffer in self.tiles:
                        self.access(self.tiles[x.buffer], x, stmt, loops, copies)

    def access(self, tile: _Tile, x: Any, stmt: Any, loops: tuple[For, ...], copies: int) -> None:
        inside = loops[tile.depth :]
        used = set().union(*(free_vars(i) for i in x.indices)) if x.indices else set()
        mine = [f for f in inside if f.var in used]
        constant = all(e.const_int(f.extent) is not None and e.const_int(f.min) is not None for f in mine)
        if used - {f.var for f in mine} or not constant or any(f.kind == "parallel" for f in inside):
            tile.fits = False
            return
        serial = [f for f in mine if f.kind not in ("unrolled", "vectorized")]
        if any(f.kind != "serial" for f in serial):
            tile.fits = False
        for f in serial:
            tile.serial[f] = None
            copies *= e.const_int(f.extent) or 1
        tile.copies += copies
        if isinstance(x, BufferStore) and not serial and mine:
            own = BufferLoad(x.buffer, x.indices)
            tile.updated = tile.updated or own in accesses(x.value)[0]

    def marked(self) -> set[For]:
        good = [t for t in self.tiles.values() if t.fits and t.updated and t.copies <= MAX_COPIES]
        return {f for t in good for f in t.serial}


def _mark(s: Any, marked: set[For]) -> Stmt:
    below = kids(s)
    new: list[Any] = [_mark(c, marked) for c in below]
    if isinstance(s, For) and s in marked:
        return For(s.var, s.min, s.extent, "unrolled", new[0], s.annotations, s.thread)
    return s if all(a is b for a, b in zip(new, below, strict=True)) else with_kids(s, new) or s


# ----------------------------------------------------------------------------------------------------- after expansion


def promote_registers(func: PrimFunc, at: Setting | None = None) -> PrimFunc:
    """Small buffers that only constants index get the scope "register"."""
    at = at or Setting()
    found: dict[Buffer, set[tuple[int, int]] | None] = {}
    allocs, body = peel(func.body)
    for a in allocs:
        if a.buffer.scope == "local":
            _consider(found, a.buffer, at.register_bytes)
    outside: set[Buffer] = {a.buffer for a in allocs}
    todo: list[tuple[Any, bool]] = [(body, False)]
    leaves: list[tuple[Any, bool]] = []
    while todo:
        s, parallel = todo.pop()
        if isinstance(s, Allocate):
            if s.buffer.scope in SCOPES:
                _consider(found, s.buffer, at.register_bytes)
            if not parallel:
                outside.add(s.buffer)
        parallel = parallel or (isinstance(s, For) and s.kind in ("parallel", "thread_binding"))
        todo.extend((c, parallel) for c in kids(s))
        leaves.append((s, parallel))
    if not found:
        return func
    bodies: list[tuple[Any, bool]] = []
    for s, parallel in leaves:
        below = kids(s)
        bodies.extend((c, parallel) for c in ([s] if not below else [c for c in children(s) if c not in below]))
    _visit(bodies, found, outside)
    good = [b for b, places in found.items() if places is not None and places and _apart(places)]
    if not good:
        return func
    return substitute(func, {b: b.replace(scope="register") for b in good})  # type: ignore[no-any-return]


def _consider(found: dict[Buffer, Any], b: Buffer, room: int) -> None:
    size = tile_bytes(b)
    if size is not None and 0 < size <= room and b.plain:
        found[b] = set()


def _visit(bodies: list[tuple[Any, bool]], found: dict[Buffer, Any], outside: set[Buffer]) -> None:
    seen: set[Any] = set()
    while bodies:
        n, parallel = bodies.pop()
        if (n, parallel) in seen:
            continue
        seen.add((n, parallel))
        if isinstance(n, BufferLoad | BufferStore):
            if n.buffer in found and found[n.buffer] is not None:
                place = _place(n)
                if place is None or (parallel and n.buffer in outside):
                    found[n.buffer] = None
                else:
                    found[n.buffer].add(place)
        elif type(n) is e.BufferRef:
            found[n.buffer] = None
            continue
        if not isinstance(n, IntImm | Var | Buffer):
            bodies.extend((c, parallel) for c in children(n))


def _place(n: Any) -> tuple[int, int] | None:
    """(offset, lanes) of an access by constants."""
    offset, lanes = 0, 1
    for k, (i, size) in enumerate(zip(n.indices, n.buffer.shape, strict=True)):
        if isinstance(i, Ramp):
            if k != len(n.indices) - 1 or e.const_int(i.stride) != 1 or i.count > MAX_LANES:
                return None
            lanes = i.count
        at = e.const_int(i.base if isinstance(i, Ramp) else i)
        if at is None:
            return None
        offset = offset * size + at
    return offset, lanes


def _apart(places: set[tuple[int, int]]) -> bool:
    """Whether accesses are equal, disjoint, or one inside the other."""
    end = -1
    for start, negative in sorted((s, -n) for s, n in places):
        stop = start - negative
        if start < end and stop > end:
            return False
        end = max(end, stop)
    return True
