"""Cycles of a loop, predicted from its working sets: arithmetic at the vector rate, or the traffic between caches.

A loop whose working set fits a cache fetches it once into that cache; one whose does not fetches anew in each iteration
what the iteration needs. So the bytes that cross into a cache are a sum over the outermost loops that fit it. The model
knows no latencies and no register tiles: it is for comparing schedules of one program, and optimistic.
"""

from __future__ import annotations

from warpbeam.ir import dtype as dt
from warpbeam.target import Target
from warpbeam.tir.analysis.footprint import Level
from warpbeam.tir.stmt import For

_L1_BYTES_PER_CYCLE = 128.0


def loop_cycles(level: Level, target: Target) -> float | None:
    """Cycles of one run of a level on the machine; None where an extent is not constant."""
    work = _arithmetic(level, target, False)
    caches = (target.vector_bits // 8 * target.vector_registers, target.l1, target.l2, target.l3)
    rates = (_L1_BYTES_PER_CYCLE, target.l2_rate, target.l3_rate, target.memory_rate)
    moved = [
        _crossing(level, size, target.line if k else 1) / rate
        for k, (size, rate) in enumerate(zip(caches, rates, strict=True))
        if size
    ]
    if work is None or level.bytes is None:
        return None
    share, forks = _parallel(level, target)
    return max(work, *moved) * share + forks


def _arithmetic(level: Level, target: Target, vector: bool) -> float | None:
    """Cycles of the operations alone; two of them are one multiply-add."""
    s = level.stmt
    if not isinstance(s, For):
        sizes = [dt.bits(t.buffer.dtype) for t in level.touched]
        lanes = max(1, target.vector_bits // max(sizes, default=32)) if vector else 1
        return level.flops / ((2 if target.fma else 1) * target.fma_rate * lanes)
    if level.trips is None:
        return None
    inside = [_arithmetic(kid, target, vector or s.kind == "vectorized") for kid in level.inside]
    return None if None in inside else level.trips * sum(c or 0.0 for c in inside)


def _crossing(level: Level, size: int, line: int) -> float:
    """Bytes that one run brings into a memory of `size` bytes, by lines."""
    whole = level.lines(line)
    if not level.inside or (whole is not None and whole <= size):
        return float(whole or 0)
    if getattr(level.stmt, "kind", "") == "vectorized":  # its lanes move together
        return float(whole or 0)
    return (level.trips or 1) * sum(_crossing(kid, size, line) for kid in level.inside)


def _parallel(level: Level, target: Target) -> tuple[float, float]:
    """(share of the time that is left when the level's outermost parallel loop runs on all cores, cycles to start)."""
    at: Level | None = level
    forks = 1
    while at is not None:
        if getattr(at.stmt, "kind", "") == "parallel" and at.trips and target.cores > 1:
            rounds = -(-at.trips // target.cores)
            return rounds / at.trips, forks * target.fork_cycles
        forks *= at.trips or 1
        at = at.inside[0] if len(at.inside) == 1 else None
    return 1.0, 0.0
