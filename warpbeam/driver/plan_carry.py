"""States of loops that are renewed where they stand: what an iteration computes for the next one lies in the memory of
the old state, so that the copy at its end moves nothing.

It may where nobody reads the old state once the new one is begun; a kernel that reads the one and writes the other must
be able to write over its operand. The copy stays in the Program, from a place to itself: it says that what was the new
value is the state from there on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from warpbeam.driver.kernels import KernelSet
from warpbeam.driver.plan_share import chosen
from warpbeam.driver.plan_steps import BranchStep, ExternalStep, KernelStep, LoopStep, MoveStep, Slot, same_size, walk


def carry(steps: list[Any], kernels: KernelSet, is_late: Callable[..., bool]) -> None:
    """Gives new states the memory of the old ones in all loops, where that is allowed."""
    for loop in walk(steps):
        if not isinstance(loop, LoopStep):
            continue
        for k, move in enumerate(loop.body):
            fits = isinstance(move, MoveStep) and _may_lie(move, is_late)
            if fits and not _touches(_read(loop.body[k + 1 :]), move.source):
                _renew(loop.body[:k], move, kernels)


def _may_lie(move: MoveStep, is_late: Callable[..., bool]) -> bool:
    """Whether the move is of a whole value that an iteration makes into a whole state of the same size."""
    state, value = move.target, move.source.root()
    own = value.storage is None and value is not state.root() and value.loops > state.loops and value.strides is None
    whole = own and state.base is None and state.strides is None and move.source.whole()
    return whole and same_size(state.ty, value.ty) and not is_late(*state.ty.shape, *value.ty.shape)


def _renew(before: Sequence[Any], move: MoveStep, kernels: KernelSet) -> None:
    """Lays the new value over the state if the steps before the move let it."""
    state, value = move.target, move.source.root()
    first = next((k for k, s in enumerate(before) if _touches(_written([s]), value)), None)
    if first is None or _touches(_read(before[first + 1 :]), state) or _touches(_written(before), state):
        return
    maker = before[first]
    if _touches(_read([maker]), state):
        if isinstance(maker, MoveStep):
            if not maker.source.whole():
                return
        elif not isinstance(maker, KernelStep) or not _over(maker, state, value, kernels):
            return
    value.over = state


def _over(step: KernelStep, state: Slot, value: Slot, kernels: KernelSet) -> bool:
    """Makes a step write the value over the state, if its kernel can."""
    read = [i for i, o in enumerate(step.operands) if o.root() is state.root()]
    made = [j for j, r in enumerate(step.results) if r.root() is value]
    if len(read) != 1 or made != [0] or step.kernel.outputs != 1 or step.donates:
        return False
    if not step.operands[read[0]].whole() or not step.results[0].whole():
        return False
    pairs = chosen(kernels, step.kernel, [(read[0], 0)])
    if not pairs:
        return False
    step.kernel = kernels.over(step.kernel, pairs)
    step.donates.append(step.operands[read[0]])
    return True


def _touches(slots: Iterable[Slot], root: Slot) -> bool:
    return any(s.root() is root.root() for s in slots)


def _written(steps: Sequence[Any]) -> list[Slot]:
    """What steps write, in whatever they hold."""
    found: list[Slot] = []
    for s in walk(list(steps)):
        found += (
            s.results if isinstance(s, KernelStep | ExternalStep) else [s.target] if isinstance(s, MoveStep) else []
        )
    return found


def _read(steps: Sequence[Any]) -> list[Slot]:
    """What steps read, in whatever they hold."""
    found: list[Slot] = []
    for s in walk(list(steps)):
        if isinstance(s, KernelStep | ExternalStep):
            found += s.operands
        elif isinstance(s, MoveStep):
            found.append(s.source)
        elif isinstance(s, BranchStep | LoopStep):
            found.append(s.cond)
        elif hasattr(s, "slot"):
            found.append(s.slot)
    return found
