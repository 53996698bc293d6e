"""What the schedule needs to know of an operation: its axes, whether it is a scan, which tensors it gives."""

from __future__ import annotations

from typing import Any

from warpbeam.te.tensor import ComputeOp, Operation, PlaceholderOp, Tensor


def is_scan(op: Any) -> bool:
    """Whether the operation is a scan: it has a state that its update gives on from step to step."""
    return hasattr(op, "scan_axis")


def root_axes(op: Operation) -> list[Any]:
    """The axes of an operation: of a compute data-parallel ones, then reductions; of a scan time, then space."""
    if isinstance(op, ComputeOp):
        return [*op.axis, *op.reduce_axis]
    if is_scan(op):
        return [op.scan_axis, *getattr(op, "spatial_axis_", ())]  # type: ignore[attr-defined]
    return []


def count_outputs(op: Operation) -> int:
    """How many tensors an operation gives."""
    return op.num_outputs


def outputs_of(op: Operation) -> list[Tensor]:
    """All tensors that an operation gives."""
    return [op.output(k) for k in range(count_outputs(op))]


def is_placeholder(op: Any) -> bool:
    return isinstance(op, PlaceholderOp)
