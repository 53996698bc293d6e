"""Results written over operands: a value that nobody reads again gives its memory to what is made from it.

Lives are known when this runs; whether a kernel may do it, its loop program says (`tir.analysis.overwrite`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from warpbeam.driver.kernels import Kernel, KernelSet
from warpbeam.driver.plan_steps import KernelStep, Slot, same_size, walk
from warpbeam.ir.transform import PassContext

#: key of PassContext: False keeps every value in memory of its own while it lives
KEY = "driver.share_memory"
Pairs = tuple[tuple[int, int], ...]


def enabled() -> bool:
    """Whether the current PassContext lets values share memory."""
    return PassContext.current().config.get(KEY) is not False


def chosen(kernels: KernelSet, kernel: Kernel, allowed: Iterable[tuple[int, int]]) -> Pairs:
    """Those (operand, result) pairs that the kernel may make one buffer each, no operand or result twice.

    Pairs are independent of each other: what is read of an operand only meets stores to its own result.
    """
    made: list[tuple[int, int]] = []
    for i, j in sorted(allowed, key=lambda pair: (pair[1], pair[0])):
        if all(i != a and j != b for a, b in made) and kernels.may_overwrite(kernel, i, j):
            made.append((i, j))
    return tuple(made)


def overwrite(steps: list[Any], slots: Sequence[Slot], kernels: KernelSet, is_late: Callable[..., bool]) -> None:
    """Lets results take the memory of operands that end with them, and their steps the kernels that do so."""
    settle(slots)
    for step in walk(steps):
        if not isinstance(step, KernelStep):
            continue
        results = step.results[: step.kernel.outputs]
        allowed = [
            (i, j)
            for j, result in enumerate(results)
            for i, operand in enumerate(step.operands)
            if _may_end(step, operand, result, is_late)
        ]
        pairs = chosen(kernels, step.kernel, allowed)
        for i, j in pairs:
            root, goal = step.operands[i].root(), results[j].root()
            root.over = results[j]
            goal.first, goal.last = min(goal.first, root.first), max(goal.last, root.last)
            step.donates.append(step.operands[i])
        step.kernel = kernels.over(step.kernel, pairs)


def settle(slots: Sequence[Slot]) -> None:
    """Lives of memory: from the first to the last step of all that uses it."""
    for slot in slots:
        root = slot.root()
        if root is not slot:
            root.first, root.last = min(root.first, slot.first), max(root.last, slot.last)


def _may_end(step: KernelStep, operand: Slot, result: Slot, is_late: Callable[..., bool]) -> bool:
    """Whether an operand's memory is free once the call has read it, and the result can have it."""
    root, goal = operand.root(), result.root()
    if root.storage is not None or not operand.whole() or root.last != step.at or root.body != step.body:
        return False
    if root is goal or goal.loops != root.loops or result.place()[1] or result.strides is not None:
        return False
    if sum(o.root() is root for o in step.operands) > 1:
        return False
    return not is_late(*root.ty.shape, *result.ty.shape) and same_size(root.ty, result.ty)
