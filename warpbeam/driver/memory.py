"""Plans where intermediates live: one arena, offsets chosen so that values alive at the same time do not overlap.

Sizes are ints or shape expressions over the model's symbolic dimensions (`runtime.shape_expr` form: nested tuples).
Static sizes
are placed by best fit, largest first, over the intervals they live in. Values with symbolic sizes share slots: a
slot's size
is that of values provably as large, and slots follow the static part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

ALIGN = 64


@dataclass(frozen=True, slots=True)
class Item:
    """A value to place: bytes (int or shape expression) and the steps between which it lives, both included."""

    size: Any
    first: int
    last: int


def round_up(size: Any) -> Any:
    """A size rounded up to the arena's alignment."""
    if isinstance(size, int):
        return (size + ALIGN - 1) // ALIGN * ALIGN
    return ("mul", ("ceildiv", size, ALIGN), ALIGN)


def plan(items: Sequence[Item]) -> tuple[list[Any], Any]:
    """(offset of each item, total bytes); offsets and total are ints where all sizes are static."""
    offsets: list[Any] = [0] * len(items)
    static = [i for i, item in enumerate(items) if isinstance(item.size, int)]
    total: Any = _place_static(items, static, offsets)
    slots: list[tuple[Any, int, list[int]]] = []
    for i in (k for k in range(len(items)) if not isinstance(items[k].size, int)):
        item = items[i]
        for n, (size, busy, members) in enumerate(slots):
            if size == item.size and busy < item.first:
                slots[n] = (size, item.last, [*members, i])
                break
        else:
            slots.append((item.size, item.last, [i]))
    for size, _, members in slots:
        for i in members:
            offsets[i] = total
        total = ("add", total, round_up(size))
    return offsets, total


def _place_static(items: Sequence[Item], order: list[int], offsets: list[Any]) -> int:
    """Largest first, each at the lowest offset where it meets no value alive at the same time."""
    placed: list[tuple[int, int, int, int]] = []
    total = 0
    for i in sorted(order, key=lambda k: (-items[k].size, items[k].first, k)):
        item = items[i]
        size = round_up(item.size)
        offset = 0
        for start, end, first, last in placed:
            if first <= item.last and item.first <= last and start < offset + size and offset < end:
                offset = max(offset, end)
        offsets[i] = offset
        placed.append((offset, offset + size, item.first, item.last))
        placed.sort()
        total = max(total, offset + size)
    return total
