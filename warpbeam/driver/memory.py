"""Plans where intermediates live: one arena, offsets chosen so that values alive at the same time do not overlap.

A value takes `size * unit` bytes: `unit` is 1, or a shape expression over the model's symbolic dimensions
(`runtime.shape_expr` form: nested tuples). Values of one unit share a region of the arena, in which they are placed
largest first over the intervals they live in, as if the unit were 1. Regions follow each other, the static one first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np

ALIGN = 64
_LARGE = ALIGN * ALIGN  # above it, rounding a size up to ALIGN units costs little


@dataclass(frozen=True, slots=True)
class Item:
    """A value to place: size * unit bytes, and the steps between which it lives, both included."""

    size: int
    first: int
    last: int
    unit: Any = 1


@dataclass(frozen=True, slots=True)
class Placement:
    """Offsets of the items and bytes in total: ints where all units are 1, else expressions.

    symbols: (name, expression) of what offsets refer to, in the order in which they are to be computed.
    """

    offsets: list[Any]
    total: Any
    symbols: list[tuple[str, Any]]


def round_up(size: int) -> int:
    """A size rounded up to the arena's alignment."""
    return (size + ALIGN - 1) // ALIGN * ALIGN


def plan(items: Sequence[Item], prefix: str = "arena") -> Placement:
    """Places all items; names of symbols start with `prefix`."""
    offsets: list[Any] = [0] * len(items)
    regions: dict[Any, list[int]] = {1: []}
    for i, item in enumerate(items):
        regions.setdefault(item.unit, []).append(i)
    static = regions.pop(1)
    places, used = _place([items[i] for i in static], [round_up(items[i].size) for i in static])
    for i, place in zip(static, places, strict=True):
        offsets[i] = place
    total: Any = used
    base: Any = used
    symbols: list[tuple[str, Any]] = []
    for number, (unit, members) in enumerate(regions.items()):
        sizes, step = _steps([items[i].size for i in members], unit)
        places, used = _place([items[i] for i in members], sizes)
        name = f"{prefix}_step{number}"
        symbols.append((name, step))
        for i, place in zip(members, places, strict=True):
            offsets[i] = _add(base, ("mul", name, place) if place else 0)
        total = _add(total, ("mul", step, used))
        if number + 1 < len(regions):
            symbols.append((f"{prefix}_base{number + 1}", _add(base, ("mul", name, used))))
            base = symbols[-1][0]
    return Placement(offsets, total, symbols)


def _add(a: Any, b: Any) -> Any:
    return b if a == 0 else a if b == 0 else ("add", a, b)


def _steps(sizes: list[int], unit: Any) -> tuple[list[int], Any]:
    """Sizes counted in steps, and the bytes of a step: a multiple of ALIGN for every value of the unit."""
    grain = ALIGN if max(sizes) >= _LARGE else gcd(*sizes)
    step = ("mul", unit, ALIGN) if grain == ALIGN else ("mul", ("ceildiv", ("mul", unit, grain), ALIGN), ALIGN)
    return [-(-size // grain) for size in sizes], step


def _place(items: Sequence[Item], sizes: Sequence[int]) -> tuple[list[int], int]:
    """Offsets and their end: largest first, each at the lowest offset where it meets no value alive with it."""
    count = len(items)
    offsets, total = [0] * count, 0
    start, end, first, last = (np.empty(count, np.int64) for _ in range(4))
    order = sorted(range(count), key=lambda k: (-sizes[k], items[k].first, k))
    for n, i in enumerate(order):
        item, size, offset = items[i], sizes[i], 0
        meets = np.flatnonzero((first[:n] <= item.last) & (last[:n] >= item.first))
        for k in meets[np.argsort(start[meets], kind="stable")].tolist():
            if start[k] >= offset + size:
                break
            offset = max(offset, int(end[k]))
        offsets[i] = offset
        start[n], end[n], first[n], last[n] = offset, offset + size, item.first, item.last
        total = max(total, offset + size)
    return offsets, total
