"""Inlining of whole classes of stages, as default schedules begin with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from warpbeam.ir.rewrite import post_order
from warpbeam.te.tensor import ComputeOp, ProducerLoad
from warpbeam.tir.expr import Var

if TYPE_CHECKING:
    from warpbeam.te.schedule.schedule import Schedule


def is_injective(op: Any) -> bool:
    """Whether each element depends on elements of other tensors without a reduction."""
    return isinstance(op, ComputeOp) and not op.reduce_axis and len(op.body) == 1


def _reads(op: ComputeOp) -> list[ProducerLoad]:
    return [n for n in post_order(*op.body) if isinstance(n, ProducerLoad)]


def is_elemwise(op: Any) -> bool:
    """Whether each element depends on the elements at the very same place."""
    if not is_injective(op):
        return False
    own = tuple(a.var for a in op.axis)
    return all(len(r.indices) == len(own) and all(i is v for i, v in zip(r.indices, own)) for r in _reads(op))


def is_broadcast(op: Any) -> bool:
    """Whether operands are read along some of the axes, in order."""
    if not is_injective(op):
        return False
    place = {a.var: k for k, a in enumerate(op.axis)}
    for r in _reads(op):
        found = [place.get(i, -1) if isinstance(i, Var) else -1 for i in r.indices]
        if -1 in found or found != sorted(set(found)):
            return False
    return True


def _inline(sch: Schedule, fits: Callable[[Any], bool]) -> None:
    for stage in sch.stages:
        if not stage.is_scheduled and not stage.is_output and fits(stage.op):
            stage.compute_inline()


def AutoInlineInjective(sch: Schedule) -> None:
    """Inlines every stage without a reduction that is no output and not scheduled yet."""
    _inline(sch, is_injective)


def AutoInlineElemWise(sch: Schedule) -> None:
    """Inlines every elementwise stage that is no output and not scheduled yet."""
    _inline(sch, is_elemwise)


def AutoInlineBroadcast(sch: Schedule) -> None:
    """Inlines every stage that only broadcasts its operands, is no output and not scheduled yet."""
    _inline(sch, is_broadcast)
