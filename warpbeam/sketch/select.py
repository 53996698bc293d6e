"""Chooses the sketch of a group by its structure, most specific first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from warpbeam.ir.diagnostics import LowerError, ScheduleError
from warpbeam.sketch import (
    blocked,
    chain,
    columns,
    dots,
    generic,
    lines,
    online,
    parted,
    pointwise,
    pooled,
    rows,
    sampled,
    scan,
    streamed,
    tabled,
    tile,
    window,
    winograd,
)
from warpbeam.sketch.base import Group, Plan
from warpbeam.sketch.collapse import collapse
from warpbeam.sketch.divide import divide
from warpbeam.target import Target
from warpbeam.te.tensor import Tensor, operations
from warpbeam.tir.transform import lower

_SKETCHES = (
    ("scan", scan),
    ("sampled", sampled),
    ("pointwise", pointwise),
    ("tabled", tabled),
    ("parted", parted),
    ("rows", rows),
    ("streamed", streamed),
    ("window", window),
    ("pooled", pooled),
    ("lines", lines),
    ("chain", chain),
    ("online", online),
    ("blocked", blocked),
    ("dots", dots),
    ("tile", tile),
    ("winograd", winograd),
    ("columns", columns),
)
_RANKED = (tile, blocked, winograd, window, chain, online)


def schedule(
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    target: Target,
    constants: frozenset[str] = frozenset(),
    name: str = "kernel",
) -> Plan:
    """The scheduled kernel of a group.

    constants: names of inputs whose contents are known, so that the sketch may ask for another layout of them.
    """
    ins, outs = divide(*collapse(inputs, outputs))
    group = Group(ins, outs, target, constants, name)
    refused: list[str] = []
    for label, sketch in () if _empty(outs) else _SKETCHES:
        if not sketch.fits(group):
            continue
        try:
            plan = sketch.build(group)
            return replace(plan, lowered=lower(plan.func, target), notes=(*plan.notes, *refused))
        except (ScheduleError, LowerError) as error:
            refused.append(f"{label}: {error.what}")
            group.restart()
    plan = scan.plain(group) if scan.fits(group) else generic.build(group)
    return replace(plan, lowered=lower(plan.func, target), notes=(*plan.notes, *refused))


def variant(
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    target: Target,
    constants: frozenset[str],
    name: str,
    rank: int,
) -> Plan | None:
    """The kernel that `schedule` makes, with the prior's next best decisions (rank 1, 2, …) that differ materially from
    those before; None where the sketch decides nothing by ranks, has no more, or cannot apply them.
    """
    ins, outs = divide(*collapse(inputs, outputs))
    if _empty(outs):
        return None
    group = Group(ins, outs, target, constants, name)
    sketch = next((s for _, s in _SKETCHES if s.fits(group)), None)
    if sketch not in _RANKED:
        return None
    try:
        plan = sketch.build(group, rank)
        return replace(plan, lowered=lower(plan.func, target))
    except (ScheduleError, LowerError):
        return None


def predict(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor], target: Target, constants: frozenset[str] = frozenset()
) -> float | None:
    """Cycles that the prior expects of a group of contractions, on all cores; None for anything else."""
    ins, outs = divide(*collapse(inputs, outputs))
    if _empty(outs):
        return None
    group = Group(ins, outs, target, constants)
    found = (sketch.predict(group) for sketch in (blocked, tile, winograd, chain, online))
    return next((cycles for cycles in found if cycles is not None), None)


def _empty(outputs: Sequence[Tensor]) -> bool:
    """Whether there is nothing to compute, and so nothing to decide."""
    return all(0 in t.shape for t in outputs)


def chained(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor], target: Target, constants: frozenset[str] = frozenset()
) -> bool | None:
    """Whether contractions that follow each other, or one whose operand is computed, would be faster as one kernel than
    apart; None where the group is no such chain, or one kernel cannot hold what lies between.
    """
    if any(chain.slides(op) for op in operations(list(outputs))):
        return None
    ins, outs = divide(*collapse(inputs, outputs))
    if _empty(outs):
        return None
    group = Group(ins, outs, target, constants)
    found = (sketch.pays(group) for sketch in (chain, online, blocked))
    return next((better for better in found if better is not None), None)


def with_windows(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor], target: Target, constants: frozenset[str] = frozenset()
) -> bool | None:
    """Whether a convolution and the windows over what it makes would be faster as one kernel than apart; None where
    one kernel cannot do both.
    """
    ins, outs = divide(*collapse(inputs, outputs))
    if _empty(outs):
        return None
    group = Group(ins, outs, target, constants)
    better = pooled.pays(group)
    if better:
        try:  # what no longer fits registers in some remainder shows only here
            lower(pooled.build(group).func, target)
        except (ScheduleError, LowerError):
            return None
    return better


def schedulable(
    inputs: Sequence[Tensor], outputs: Sequence[Tensor], target: Target, constants: frozenset[str] = frozenset()
) -> str:
    """The name of the sketch, of those for chains and blocks, that really schedules a group; "" if none does."""
    group = Group(*divide(*collapse(inputs, outputs)), target, constants)
    for label, sketch in (("chain", chain), ("online", online), ("blocked", blocked)):
        if not sketch.fits(group):
            continue
        try:
            lower(sketch.build(group).func, target)
        except (ScheduleError, LowerError):
            group.restart()
            continue
        return label
    return ""
