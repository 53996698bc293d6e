"""Vector indices whose lanes are constant distances apart, as lists of distances and back.

Ramp(i, 1, 4)              <->  i, [0, 1, 2, 3]
Ramp(0, 1, 8) // 4 + i     <->  i, [0, 0, 0, 0, 1, 1, 1, 1]
"""

from __future__ import annotations

from itertools import pairwise

from warpbeam.ir import dtype as dt
from warpbeam.tir import expr as e
from warpbeam.tir.expr import PrimExpr


def lane_offsets(index: PrimExpr, count: int) -> tuple[PrimExpr, list[int]] | None:
    """An index as (value of lane 0, differences of the lanes from it); None where they are not constant."""
    if dt.lanes(index.dtype) == 1:
        return index, [0] * count
    if isinstance(index, e.Broadcast):
        return index.value, [0] * count
    if isinstance(index, e.Ramp):
        step = e.const_int(index.stride)
        return None if step is None else (index.base, [step * k for k in range(count)])
    if not isinstance(index, e.Add | e.Sub | e.Mul | e.FloorDiv | e.FloorMod):
        return None
    a, b = lane_offsets(index.a, count), lane_offsets(index.b, count)
    if a is None or b is None:
        return None
    kind = type(index)
    base = e.binary(kind, a[0], b[0])
    if kind in (e.Add, e.Sub):
        return base, [x + y if kind is e.Add else x - y for x, y in zip(a[1], b[1], strict=True)]
    if kind is e.Mul and any(b[1]):
        a, b = b, a
    factor, start = e.const_int(b[0]), e.const_int(a[0])
    if factor is None or any(b[1]):
        return None
    if kind is e.Mul:
        return base, [x * factor for x in a[1]]
    if start is None or factor <= 0:
        return None
    values = [(start + x) // factor if kind is e.FloorDiv else (start + x) % factor for x in a[1]]
    return base, [v - values[0] for v in values]


def lane_index(base: PrimExpr, offsets: list[int]) -> PrimExpr | None:
    """The index with the given distances of lanes: a scalar, a ramp, or ((lane // c) % d) * m; None for others."""
    count = len(offsets)
    if not any(offsets):
        return base
    steps = {b - a for a, b in pairwise(offsets)}
    if len(steps) == 1:
        return e.Ramp(base, e.const(steps.pop(), base.dtype), count)
    first = next(k for k, x in enumerate(offsets) if x)
    scale = offsets[first]
    turns = next((k for k in range(first, count) if not offsets[k]), None)
    period = count if turns is None else turns // first
    if [((k // first) % period) * scale for k in range(count)] != offsets:
        return None
    ramp: PrimExpr = e.Ramp(e.const(0, base.dtype), e.const(1, base.dtype), count)
    ramp = ramp if first == 1 else e.FloorDiv(ramp, e.const(first, ramp.dtype))
    ramp = ramp if turns is None else e.FloorMod(ramp, e.const(period, ramp.dtype))
    ramp = ramp if scale == 1 else e.mul(ramp, scale)
    return ramp if e.const_int(base) == 0 else e.add(ramp, base)
