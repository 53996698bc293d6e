"""Plans where intermediates live: one arena, offsets chosen so that values alive at the same time do not overlap.

A value takes `size * unit` bytes: `unit` is 1, or a shape expression over the model's symbolic dimensions
(`runtime.shape_expr` form: nested tuples). Values of one unit share a region of the arena, in which they are placed
over the intervals they live in, as if the unit were 1. Regions follow each other, the static one first.

Where there are several units, all values together are packed as well (`memory_open`), and the smaller arena is taken,
for sizes as they may be.

A region is packed greedily in several orders (ORDERS); where none reaches the lower bound, the bytes alive at the
busiest step, what stood highest is placed first in a few more rounds. The best packing is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import gcd
from typing import Any

import numpy as np

from warpbeam.driver import memory_open
from warpbeam.runtime.shape_expr import evaluate, symbols_of

ALIGN = 64
_LIKELY = 32  # what a size that only the run tells may be
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

    symbols: (name, expression) of what offsets refer to, in the order in which they are to be computed. bound: what
    no packing of the regions can go below; apart: bytes if nothing shared memory. orders: how each region was packed.
    """

    offsets: list[Any]
    total: Any
    symbols: list[tuple[str, Any]]
    bound: Any = 0
    apart: Any = 0
    orders: list[str] = field(default_factory=list)


def round_up(size: int) -> int:
    """A size rounded up to the arena's alignment."""
    return (size + ALIGN - 1) // ALIGN * ALIGN


def plan(items: Sequence[Item], prefix: str = "arena") -> Placement:
    """Places all items; names of symbols start with `prefix`."""
    regions = _regions(items)
    apart = _in_regions(items, regions, prefix)
    if sum(bool(r.members) for r in regions) < 2 or len(items) > _MANY:
        return apart
    together = _together(items, regions, prefix)
    return together if _likely(together) < _likely(apart) else apart


@dataclass(frozen=True, slots=True)
class _Region:
    """The values of one unit, their sizes in steps, and the bytes of a step."""

    members: list[int]
    sizes: list[int]
    step: Any


def _regions(items: Sequence[Item]) -> list[_Region]:
    """Values by unit, those of known sizes first."""
    members: dict[Any, list[int]] = {1: []}
    for i, item in enumerate(items):
        members.setdefault(item.unit, []).append(i)
    static = members.pop(1)
    found = [_Region(static, [round_up(items[i].size) for i in static], 1)]
    return found + [_Region(m, *_steps([items[i].size for i in m], unit)) for unit, m in members.items()]


def _in_regions(items: Sequence[Item], regions: Sequence[_Region], prefix: str) -> Placement:
    """Each unit's values in a region of their own."""
    offsets: list[Any] = [0] * len(items)
    static = regions[0]
    packed = _pack([items[i] for i in static.members], static.sizes)
    for i, place in zip(static.members, packed.places, strict=True):
        offsets[i] = place
    out = Placement(offsets, packed.end, [], packed.bound, packed.apart, [packed.order] if static.members else [])
    base: Any = packed.end
    for number, r in enumerate(regions[1:]):
        packed = _pack([items[i] for i in r.members], r.sizes)
        name = f"{prefix}_step{number}"
        out.symbols.append((name, r.step))
        for i, place in zip(r.members, packed.places, strict=True):
            offsets[i] = _add(base, ("mul", name, place) if place else 0)
        if number + 2 < len(regions):
            out.symbols.append((f"{prefix}_base{number + 1}", _add(base, ("mul", name, packed.end))))
            base = out.symbols[-1][0]
        total = _add(out.total, ("mul", r.step, packed.end))
        bound = _add(out.bound, ("mul", r.step, packed.bound))
        apart = _add(out.apart, ("mul", r.step, packed.apart))
        out = Placement(offsets, total, out.symbols, bound, apart, [*out.orders, packed.order])
    return out


def _together(items: Sequence[Item], regions: Sequence[_Region], prefix: str) -> Placement:
    """All values in one place: offsets are maxima of sums over the units."""
    sizes: list[memory_open.Counts] = [()] * len(items)
    for at, r in enumerate(regions):
        for i, size in zip(r.members, r.sizes, strict=True):
            sizes[i] = tuple(size if k == at else 0 for k in range(len(regions)))
    weights = [_supposed(r.step) for r in regions]
    likely = [memory_open.worth((s,), weights) for s in sizes]
    lives = [(item.first, item.last) for item in items]
    numbers, best = range(len(items)), None
    orders = {name: sorted(numbers, key=lambda k: (*key(items[k], likely[k]), k)) for name, key in ORDERS.items()}
    for name, order in {**orders, "tracks": memory_open.in_tracks(lives)}.items():
        starts, total = memory_open.place(sizes, lives, order, weights)
        if best is None or memory_open.worth(total, weights) < memory_open.worth(best[1], weights):
            best = starts, total, name
    assert best is not None
    names = [f"{prefix}_step{k}" for k in range(len(regions) - 1)]
    symbols = [(name, r.step) for name, r in zip(names, regions[1:], strict=True)]
    known: dict[memory_open.Front, Any] = {}
    for front in best[0]:
        if front not in known:
            expr = known[front] = _largest(front, names)
            if not isinstance(expr, int):
                known[front] = f"{prefix}_at{len(symbols)}"
                symbols.append((known[front], expr))
    steps = [r.step for r in regions[1:]]
    bound = _largest(memory_open.busiest(sizes, lives, len(regions)), steps)
    apart = _largest((tuple(map(sum, zip(*sizes, strict=True))),), steps)
    return Placement([known[f] for f in best[0]], _largest(best[1], steps), symbols, bound, apart, [best[2]])


def _largest(front: memory_open.Front, steps: Sequence[Any]) -> Any:
    """The expression of a maximum of sums; steps: the bytes of a step of each open unit."""
    out: Any = None
    for fixed, *counts in sorted(front):
        total: Any = fixed
        for count, step in zip(counts, steps, strict=True):
            total = _add(total, ("mul", step, count) if count else 0)
        out = total if out is None else ("max", out, total)
    return out


def _likely(placed: Placement) -> int:
    """The bytes of an arena, for sizes as they may be."""
    return _supposed(placed.total)


def _supposed(expr: Any) -> int:
    """An expression's value where every symbol is `_LIKELY`."""
    names = dict.fromkeys(symbols_of(expr), _LIKELY)
    return evaluate(expr, names, lambda operator, operands: _LIKELY)


def _add(a: Any, b: Any) -> Any:
    return b if a == 0 else a if b == 0 else ("add", a, b)


def _steps(sizes: list[int], unit: Any) -> tuple[list[int], Any]:
    """Sizes counted in steps, and the bytes of a step: a multiple of ALIGN for every value of the unit."""
    grain = ALIGN if max(sizes) >= _LARGE else gcd(*sizes)
    step = ("mul", unit, ALIGN) if grain == ALIGN else ("mul", ("ceildiv", ("mul", unit, grain), ALIGN), ALIGN)
    return [-(-size // grain) for size in sizes], step


@dataclass(frozen=True, slots=True)
class _Packing:
    places: list[int]
    end: int
    bound: int
    apart: int
    order: str


def _by_size(item: Item, size: int) -> tuple[int, ...]:
    return -size, item.first


def _by_life(item: Item, size: int) -> tuple[int, ...]:
    return item.first - item.last, -size


def _by_area(item: Item, size: int) -> tuple[int, ...]:
    return -size * (item.last - item.first + 1), item.first


def _by_time(item: Item, size: int) -> tuple[int, ...]:
    return item.first, -size


#: how values are put in order before each takes the lowest place that is free: name -> sort key
ORDERS: dict[str, Callable[[Item, int], tuple[int, ...]]] = {
    "size": _by_size,
    "live range": _by_life,
    "size x live range": _by_area,
    "time": _by_time,
}
_ROUNDS = 12
_MANY = 2000  # values above which one order has to do: placing takes quadratic time


def _pack(items: Sequence[Item], sizes: Sequence[int]) -> _Packing:
    """The best packing found; of equal ones the first."""
    bound, apart = _busiest(items, sizes), sum(sizes)
    best: _Packing | None = None
    numbers = range(len(items))
    for name, key in ORDERS.items():
        order = sorted(numbers, key=lambda k: (*key(items[k], sizes[k]), k))
        places, end = _place(items, sizes, order)
        if best is None or end < best.end:
            best = _Packing(places, end, bound, apart, name)
        if best.end == bound or len(items) > _MANY:
            return best
    assert best is not None
    order = sorted(numbers, key=lambda k: (*_by_size(items[k], sizes[k]), k))
    for _ in range(_ROUNDS):
        places, end = _place(items, sizes, order)
        if end < best.end:
            best = _Packing(places, end, bound, apart, "size, highest first")
        high = [k for k in order if places[k] + sizes[k] == end]
        order = [*high, *(k for k in order if k not in high)]
        if best.end == bound:
            break
    return best


def _busiest(items: Sequence[Item], sizes: Sequence[int]) -> int:
    """The most bytes alive at one step."""
    changes: dict[int, int] = {}
    for item, size in zip(items, sizes, strict=True):
        changes[item.first] = changes.get(item.first, 0) + size
        changes[item.last + 1] = changes.get(item.last + 1, 0) - size
    alive = most = 0
    for step in sorted(changes):
        alive += changes[step]
        most = max(most, alive)
    return most


def _place(items: Sequence[Item], sizes: Sequence[int], order: Sequence[int]) -> tuple[list[int], int]:
    """Offsets and their end: in order, each at the lowest offset where it meets no value alive with it."""
    count = len(items)
    offsets, total = [0] * count, 0
    start, end, first, last = (np.empty(count, np.int64) for _ in range(4))
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
