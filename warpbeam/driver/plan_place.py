"""Storage of all values that need some: offsets in the arena, and how well it is packed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from warpbeam.driver import late, memory
from warpbeam.driver.plan_steps import Slot
from warpbeam.driver.shapes import bytes_of, fold
from warpbeam.runtime.program import Symbol
from warpbeam.tir.expr import Var


@dataclass(frozen=True, slots=True)
class Placed:
    """packing: of the values whose size has a bound. places: symbols of offsets. held: slots without a bound, which
    stand above the others.
    """

    packing: memory.Placement
    places: tuple[Symbol, ...]
    held: list[Slot]


def place(slots: Sequence[Slot], sizes: late.Sizes, symbols: Mapping[Var, str]) -> Placed:
    """Gives storage to every slot that has none and uses no other's; lives must be settled."""
    free, items, held = [], [], []
    for s in slots:
        if s.storage is not None or s.root() is not s:
            continue
        room = sizes.bounded(s.ty)
        if room is None:
            s.held = len(held)
            s.storage = ("arena", late.place_name(s.held))
            held.append(s)
            continue
        size, unit = bytes_of(room, symbols)
        free.append(s)
        items.append(memory.Item(size, s.first, s.last, unit))
    prefix = "arena"
    while any(name.startswith(prefix) for name in symbols.values()):
        prefix = f"_{prefix}"
    packing = memory.plan(items, prefix)
    for s, offset in zip(free, packing.offsets, strict=True):
        s.storage = ("arena", offset)
    places = tuple(Symbol(name, expr) for name, expr in packing.symbols)
    return Placed(packing, (*places, Symbol("_planned", packing.total)) if held else places, held)


def storage_of(slot: Slot) -> Any:
    """Where a slot's value lies: in a view of another value's contents, or in memory, which others may have too."""
    shown = slot.content()
    if shown is not slot:
        return "view", shown.number, slot.place()[1] - shown.place()[1]
    root, offset = slot.place()
    if not offset:
        return root.storage
    return "arena", fold("add", root.storage[1], offset)  # type: ignore[index]
