"""Analytic prior for products whose right operand is no constant, in blocks: some rows of the result, a panel of its
columns, and so much of the sum that the part of the operand it takes stays in the nearer caches.

A block's part of the operand may be copied side by side before its tiles use it: it then begins with a cache line, and
its lines do not share few places of a cache. That pays if enough rows use it. What is turned or computed is copied in
any case; to turn it costs no more than to copy it. Sums of several parts stay in a buffer between these, for a block of
rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import gcd, prod

from warpbeam.cost.tile_prior import (
    EXPOSED,
    FETCHED,
    MOVED_RATE,
    STACK,
    WAY_BYTES,
    Shape,
    alike_rows,
    apart,
    cache_rate,
    exchanged,
    held,
    in_place,
    legal,
    quantise,
    work,
)
from warpbeam.target import Target

_DEPTH = (96, 256)  # steps of a part of a sum
_REUSED = 48  # rows that use a panel, at least
_ROWS = 512  # of a block, at most about
_WHOLE = 1024  # steps that a panel may have which is not cut
_PAGES = 0.08  # how much longer tiles take that read an operand where it lies, if its rows are whole pages apart
_COPY = (4.0, 6.0)  # cycles to copy one row of a panel, and for each vector of it
_SUMS = 3.0  # cycles to begin and to finish a vector of sums that are put aside


@dataclass(frozen=True, slots=True)
class Blocking:
    """Rows of a tile by axis, its vectors; steps of a part of the sum, rows of the first row axis in a block, whether
    the right operand's part is copied, and how many of the loops over free axes, blocks of rows and panels are parallel
    ("free", "rows", "panels" or "none"). cycles: predicted on all cores. Blocks of some rows whose
    sums have one part hold whole tiles.
    """

    rows: tuple[int, ...]
    vectors: int
    lanes: int
    depth: int
    height: int
    near: bool
    parallel: str
    cycles: float


@lru_cache(maxsize=512)
def choose(shape: Shape, last: int, made: bool, target: Target) -> Blocking | None:
    """The best blocks; None where the buffers of none fit a thread's stack."""
    found = ranked(shape, last, made, target, 1)
    return found[0] if found else None


def apart_cycles(shape: Shape, target: Target) -> float:
    """Cycles of a kernel of its own that computes the right operand, on all cores."""
    size = shape.outer * shape.reduce * (shape.columns or 1) * shape.bytes
    return 2.0 * size / MOVED_RATE / target.cores + target.fork_cycles


def ranked(shape: Shape, last: int, made: bool, target: Target, count: int) -> list[Blocking]:
    """Up to `count` decisions that differ in their tiles' vectors or much in their rows, the best first.

    last: extent of the innermost axis that is summed over. made: whether the right operand is computed in the kernel.
    """
    if not target.threads or not target.l2 or shape.columns is None or None in shape.rows:
        return []
    if prod(shape.counts) < _REUSED:
        return []
    found = [
        _scored(shape, rows, vectors, depth, height, near, target)
        for rows, vectors in legal(shape, shape.lanes, target)
        for depth in _depths(last)
        if depth == shape.reduce
        or prod(rows) * vectors <= target.vector_registers * 3 // 4  # `tir.AccumulateRegisters`
        for height in _heights(shape, rows[0], depth < shape.reduce)
        for near in ((True,) if made or depth == shape.reduce else (True, False))  # tiles alone are another sketch
        if _bytes(shape, rows, vectors, depth, height, near) <= STACK
    ]
    best = sorted(found, key=lambda b: (quantise(b.cycles), -b.vectors, -prod(b.rows), -b.depth, -b.height, b.near))
    return apart(best, _alike, count)


def _alike(a: Blocking, b: Blocking) -> bool:
    return (a.vectors, a.near) == (b.vectors, b.near) and alike_rows(a.rows, b.rows)


def _depths(last: int) -> list[int]:
    """Steps of the innermost axis that a part of a sum may have: all, or what leaves equal parts, if that is possible
    with enough of them.
    """
    least, most = _DEPTH
    if last <= most:
        return [last]
    even = [n for n in range(least, most + 1, 2) if last % n == 0]
    return [*(even[-1:] + even[:1] if even else [most]), *([last] if last <= _WHOLE else [])]


def _heights(shape: Shape, rows: int, parts: bool) -> list[int]:
    """Rows of the first row axis in a block: all, or what leaves equal blocks if possible, in whole tiles if not; where
    sums are not put aside always in whole tiles.
    """
    size, inner = shape.counts[0], prod(shape.counts[1:])
    found = []
    for most in (_ROWS, _ROWS // 4):
        blocks = -(-size * inner // most)
        equal = (size // n for n in range(blocks, 2 * blocks) if size % n == 0)
        even = next((h for h in equal if parts or h == size or h % rows == 0), None)
        found.append(even or min(size, -(-size // blocks // rows) * rows))
    return sorted(set(found))


def _bytes(shape: Shape, rows: tuple[int, ...], vectors: int, depth: int, height: int, near: bool) -> int:
    """Of the buffers of a block."""
    sums = 0 if depth == shape.reduce else height * prod(shape.counts[1:])
    return (sums + depth * near) * vectors * shape.lanes * shape.bytes


def _scored(
    shape: Shape, rows: tuple[int, ...], vectors: int, depth: int, height: int, near: bool, target: Target
) -> Blocking:
    panel = vectors * shape.lanes
    columns, all_rows = shape.columns or 1, prod(shape.counts)
    panels, blocks = -(-columns // panel), -(-shape.counts[0] // height)
    parts = -(-shape.reduce // depth)
    lhs, rhs = all_rows * shape.reduce * shape.bytes, shape.reduce * columns * shape.bytes
    part = depth * panel * shape.bytes if near else held(shape, depth, panel, target)
    from_part = cache_rate(part, target)
    tiles, cycles = work(shape, rows, vectors, shape.lanes, target, parts)
    if near:
        begin, each = _COPY
        cycles += blocks * (panels * shape.reduce * (begin + each * vectors) + 2.0 * rhs * from_part)
    else:
        cycles *= in_place(vectors) + _PAGES * gcd(shape.stride, WAY_BYTES) / WAY_BYTES
    cycles += _SUMS * all_rows * panels * vectors * (parts > 1)
    cycles += EXPOSED * panels * lhs * cache_rate(lhs // blocks, target)
    cycles += FETCHED * (tiles * rhs * from_part + blocks * rhs / target.l3_rate)
    cycles *= shape.outer
    parallel, total = _shared(shape, cycles, blocks, height, panels, panel, target)
    return Blocking(rows, vectors, shape.lanes, depth, height, near, parallel, total)


def _shared(
    shape: Shape, cycles: float, blocks: int, height: int, panels: int, panel: int, target: Target
) -> tuple[str, float]:
    """(What the parallel loop goes over, cycles on all cores)."""
    cores = target.cores
    if cores < 2 or cycles < 4 * target.fork_cycles:
        return "none", cycles
    even = shape.counts[0] % height == 0  # loops that are joined have no remainders
    alone = shape.outer * blocks == 1
    options = [("free", shape.outer, 0.0)]
    if even or shape.outer == 1:
        options.append(("rows", shape.outer * blocks, exchanged(shape, False, target)))
    if alone or (even and (shape.columns or 0) % panel == 0):
        options.append(("panels", shape.outer * blocks * panels, exchanged(shape, True, target)))
    found = [
        (cycles * -(-pieces // cores) / pieces + target.fork_cycles + moved, k, name)
        for k, (name, pieces, moved) in enumerate(options)
        if pieces > 1
    ]
    total, _, name = min(found, default=(cycles, 0, "none"))
    return (name, total) if total < cycles else ("none", cycles)
