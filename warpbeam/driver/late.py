"""Sizes that only the contents of tensors tell, for the planner: where they are defined, what they are at most, and
where tensors go whose size has no bound.

A tensor with a bounded size takes the arena's space for its bound. The others stand above the planned arena, each above
those that live with it: their offsets are symbols that are set, and the arena is enlarged, right before they are made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from warpbeam.driver.memory import ALIGN
from warpbeam.driver.shapes import fold, to_shape_expr
from warpbeam.ir import dtype as dt
from warpbeam.relay.expr import Call, Function
from warpbeam.relay.types import TensorType
from warpbeam.runtime.program import Check, Instruction, Reserve, SetSymbol
from warpbeam.tir import expr as E
from warpbeam.topi import dims
from warpbeam.topi.dim_bounds import upper

#: elements that a tensor of unbounded size may have, and what any size found at run time may be
LARGEST = dims.LARGEST
MOST_BYTES = 1 << 42


@dataclass(slots=True)
class Define:
    """A step: `symbol` is an element of a slot's content."""

    symbol: str
    slot: Any
    element: int
    most: Any


@dataclass(slots=True)
class Hold:
    """A step: from here on there is room for a slot whose size has no bound."""

    slot: Any


@dataclass(slots=True)
class Verify:
    """A step: a condition that the compiled code takes for granted."""

    condition: Any
    message: str


def extents(fn: Function) -> list[tuple[E.Var, int, int, Any]]:
    """(size, number of the parameter, element, bound) of what a primitive function defines."""
    call = fn.body
    if not isinstance(call, Call):
        return []
    given, bounds = call.attrs.get("extents", ()), call.attrs.get("bounds", ())
    place = {p: i for i, p in enumerate(fn.params)}
    return [
        (size, place[call.args[k]], element, bounds[n] if n < len(bounds) else None)  # type: ignore[index]
        for n, (size, k, element) in enumerate(given)
    ]


@dataclass(slots=True)
class Sizes:
    """What is known of the sizes found at run time. `bounds`: their largest values in sizes known at entry, or None."""

    symbols: dict[E.Var, str]
    bounds: dict[E.Var, Any] = field(default_factory=dict)

    def define(self, fn: Function, slot_of: Callable[[int], Any]) -> list[Define]:
        """The steps that define what a call of `fn` defines; `slot_of` gives the slot of an operand."""
        out = []
        for size, operand, element, bound in extents(fn):
            if size not in self.symbols:
                taken = set(self.symbols.values())
                name = size.name if size.name not in taken else f"{size.name}_{len(taken)}"
                self.symbols[size] = name
                self.bounds[size] = None if bound is None else self.upper(bound)
            most = LARGEST if bound is None else bound
            out.append(Define(self.symbols[size], slot_of(operand), element, most))
        return out

    def is_late(self, *values: Any) -> bool:
        """Whether dimensions depend on sizes found at run time."""
        return bool(self.bounds) and bool(dims.counted_in(*values))

    def upper(self, value: Any) -> Any:
        """A bound of a dimension in sizes known at entry; None where there is none."""
        return upper(value, self.bounds.get)

    def bounded(self, ty: TensorType) -> TensorType | None:
        """The type with sizes known at entry that has room for a tensor of type `ty`; None where there is none."""
        if not self.is_late(*ty.shape):
            return ty
        shape = [self.upper(d) for d in ty.shape]
        if any(d is None for d in shape):
            return None
        return TensorType(shape, ty.dtype)  # type: ignore[no-any-return]


def define_instructions(step: Define, symbols: Mapping[E.Var, str]) -> list[Instruction]:
    """Sets a symbol and checks it."""
    most = to_shape_expr(step.most, symbols) if not isinstance(step.most, int) else step.most
    inside = ("and", ("ge", step.symbol, 0), ("le", step.symbol, most))
    message = f"size {step.symbol} found at run time is negative or too large"
    return [SetSymbol(step.symbol, ("load", step.slot.number, step.element)), Check(inside, message)]


def hold_instructions(number: int, slot: Any, below: Sequence[str], symbols: Mapping[E.Var, str]) -> list[Instruction]:
    """Makes room for a slot above those that live with it; `below` are the symbols of their ends."""
    shape = [to_shape_expr(d, symbols) for d in slot.ty.shape]
    out: list[Instruction] = []
    size: Any = dt.nbytes(slot.ty.dtype)
    for extent in shape:
        if not isinstance(extent, int):
            fits = ("and", ("ge", extent, 0), ("le", extent, ("floordiv", MOST_BYTES, size)))
            out.append(Check(fits, f"a tensor of {slot.ty.dtype} whose size is found at run time would be too large"))
        size = fold("mul", size, fold("max", extent, 1))
    offset: Any = below[0]
    for end in below[1:]:
        offset = ("max", offset, end)
    out.append(SetSymbol(place_name(number), offset))
    rounded = ("mul", ("ceildiv", size, ALIGN), ALIGN)
    out.append(SetSymbol(end_name(number), ("add", place_name(number), rounded)))
    out.append(Reserve(end_name(number)))
    return out


def place_name(number: int) -> str:
    """The symbol of the offset of held slot `number`."""
    return f"_held{number}"


def end_name(number: int) -> str:
    """The symbol of where held slot `number` ends."""
    return f"_held{number}_end"
