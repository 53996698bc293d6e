"""Gaps between the rows of a value that a kernel asked for: rows a power of two apart share few places of a cache.

A product of matrices walks several rows of its left operand side by side. Where these begin a multiple of a cache way
apart, their lines push each other out, and come from the next level again and again. A line left free after each row
sets that right and costs nothing, if the kernel that makes the value and all that read it are known: each gets a
variant for the wider rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from math import prod
from typing import Any

from warpbeam.driver.kernels import Kernel, KernelSet
from warpbeam.driver.plan_pieces import Piece
from warpbeam.driver.plan_steps import KernelStep, Slot, walk
from warpbeam.ir import dtype as dt
from warpbeam.relay.types import TensorType


def spread(steps: list[Any], slots: list[Slot], kernels: KernelSet) -> None:
    """Leaves the gaps that kernels ask for, where all kernels that touch a value can; lives must be settled."""
    found = walk(steps)
    calls = [s for s in found if isinstance(s, KernelStep)]
    fixed = {s for slot in slots for s in (slot.base, slot.over) if s is not None}
    fixed.update(s for step in found if not isinstance(step, KernelStep) for s in _touched(step))
    asked: dict[Slot, int] = {}
    for step in calls:
        for slot, buffer in zip(step.operands, step.kernel.func.buffers, strict=False):
            run = step.kernel.plan.gaps.get(buffer.name, 0)
            if run and slot not in fixed:
                asked.setdefault(slot, run)
    for slot, run in asked.items():
        if slot.storage is None and slot.base is None and slot.over is None:
            _leave(slot, run, calls, slots, kernels)


def _touched(step: Any) -> Iterable[Slot]:
    """The slots that a step which calls no kernel names."""
    for f in fields(step):
        value = getattr(step, f.name)
        yield from (s for s in (value if isinstance(value, list) else [value]) if isinstance(s, Slot))


def _leave(slot: Slot, run: int, calls: list[KernelStep], slots: list[Slot], kernels: KernelSet) -> None:
    """Gives a value rows with gaps between, if its maker and its readers have variants for that."""
    pitch = run + kernels.target.line // dt.nbytes(slot.ty.dtype)
    new: list[tuple[KernelStep, Kernel]] = []
    for step in calls:
        kernel: Kernel | None = step.kernel
        for k, s in enumerate((*step.operands, *step.results)):
            if s is slot and kernel is not None:
                kernel = kernels.widened(kernel, k, run, pitch)
        if kernel is None:
            return
        if kernel is not step.kernel:
            new.append((step, kernel))
    for step, kernel in new:
        step.kernel = kernel
    outer = prod(slot.ty.shape) // run
    whole = Slot(
        TensorType((outer, pitch), slot.ty.dtype), first=slot.first, last=slot.last, origins=slot.origins,
        loops=slot.loops, body=slot.body,
    )  # fmt: skip
    slots.append(whole)
    slot.base, slot.strides = whole, Piece(outer, run, pitch, 0, outer * pitch).strides(slot.ty.shape)
