"""Edits of the dataflow below a schedule: operations are immutable, so those downstream of a change are made anew.

An operation made anew keeps its axes, so that handles to them stay valid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from warpbeam.te.schedule.roots import is_placeholder, outputs_of
from warpbeam.te.tensor import Operation, Tensor

if TYPE_CHECKING:
    from warpbeam.te.schedule.schedule import Schedule


def with_inputs(op: Operation, mapping: dict[Tensor, Tensor]) -> Operation:
    """The operation reading other tensors in place of some; the same one where it reads none of them."""
    return op.replace_inputs(mapping)


def replace_dataflow(sch: Schedule, mapping: dict[Tensor, Tensor], keep: Sequence[Operation] = ()) -> None:
    """Turns every stage downstream of the exchanged tensors to the new ones.

    Stages stand in dataflow order, so one walk suffices: what is made anew joins the mapping.
    """
    mapping = dict(mapping)
    for stage in sch.stages:
        old = stage.op
        if is_placeholder(old) or old in keep:
            continue
        new = with_inputs(old, mapping)
        if new is not old:
            exchange(sch, stage, new)
            mapping.update(zip(outputs_of(old), outputs_of(new), strict=True))


def exchange(sch: Schedule, stage: Any, new: Operation) -> None:
    """Gives a stage another operation of the same axes."""
    sch.stage_map[new] = stage
    stage.op = new
