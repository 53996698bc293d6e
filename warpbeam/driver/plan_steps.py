"""What the planner builds before storage is known: values (slots) and the steps that make them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from warpbeam.driver.kernels import Kernel
from warpbeam.relay.types import TensorType
from warpbeam.tir.expr import Var


@dataclass(slots=True, eq=False)
class Slot:
    """A tensor value before storage is known.

    base: the slot of whose contents this one is a part, from byte `offset` on; `strides` in elements, None where it is
    compact. over: the slot in whose memory it lies, with contents of its own that the other's maker destroys.
    first, last: steps between which it lives. body: the list of steps that makes it.
    """

    ty: TensorType
    storage: tuple[Any, ...] | None = None
    base: Slot | None = None
    over: Slot | None = None
    offset: int = 0
    strides: tuple[int, ...] | None = None
    first: int = 0
    last: int = 0
    name: str = ""
    origins: tuple[str, ...] = ()
    number: int = -1
    loops: int = 0
    body: int = 0
    held: int = -1

    def root(self) -> Slot:
        """The slot whose memory this one uses."""
        return self.place()[0]

    def place(self) -> tuple[Slot, int]:
        """(the slot whose memory this one uses, byte offset in it)."""
        slot, offset = self, 0
        while slot.base is not None or slot.over is not None:
            offset += slot.offset if slot.base is not None else 0
            slot = slot.base if slot.base is not None else slot.over  # type: ignore[assignment]
        return slot, offset

    def content(self) -> Slot:
        """The slot whose contents this one shows, as they are or in part."""
        slot = self
        while slot.base is not None:
            slot = slot.base
        return slot

    def whole(self) -> bool:
        """Whether it shows everything that its root holds."""
        slot = self
        while slot.base is not None:
            if slot.offset or slot.strides is not None or not same_size(slot.ty, slot.base.ty):
                return False
            slot = slot.base
        return True


def same_size(a: TensorType, b: TensorType) -> bool:
    """Whether tensors of two types take the same bytes, as far as their shapes tell."""
    from warpbeam.topi.dims import content, prod

    if a.dtype != b.dtype:
        return False
    (m, u), (n, v) = content(prod(a.shape)), content(prod(b.shape))
    return bool(m == n and (u is v or (isinstance(u, int) and u == v)))


@dataclass(slots=True, eq=False)
class KernelStep:
    """A call at step `at`: operands, then results and workspaces; `own`: the kernel's sizes as those of its caller."""

    kernel: Kernel
    operands: list[Slot]
    results: list[Slot]
    own: dict[Var, Var]
    at: int
    body: int
    donates: list[Slot] = field(default_factory=list)


@dataclass(slots=True)
class ExternalStep:
    """A call of a host function."""

    function: str
    options: str
    operands: list[Slot]
    results: list[Slot]


@dataclass(slots=True)
class MoveStep:
    """A copy."""

    target: Slot
    source: Slot


@dataclass(slots=True)
class BranchStep:
    cond: Slot
    then: list[Any]
    orelse: list[Any]


@dataclass(slots=True)
class LoopStep:
    cond: Slot
    body: list[Any]


def walk(steps: list[Any]) -> list[Any]:
    """All steps, those inside of branches and loops included, in order."""
    found: list[Any] = []
    stack = list(reversed(steps))
    while stack:
        step = stack.pop()
        found.append(step)
        if isinstance(step, BranchStep):
            stack += [*reversed(step.orelse), *reversed(step.then)]
        elif isinstance(step, LoopStep):
            stack += reversed(step.body)
    return found
