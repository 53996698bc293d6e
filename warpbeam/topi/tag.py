"""Tags: what kind of computation a tensor is, as a hint for schedules. Written into `te.compute(..., tag=)`."""

from __future__ import annotations

from typing import Any

ELEMWISE = "elemwise"
BROADCAST = "broadcast"
INJECTIVE = "injective"
COMM_REDUCE = "comm_reduce"
COMM_REDUCE_IDX = "comm_reduce_idx"
MATMUL = "matmul"
SOFTMAX = "softmax_output"


def of(operation: Any) -> str:
    """The tag of an operation (or of a tensor's operation); "" where there is none."""
    operation = getattr(operation, "op", operation)
    attrs = getattr(operation, "attrs", None)
    return str(attrs.get("tag", "")) if attrs else ""


def is_elemwise(tag: str) -> bool:
    """Whether each element comes from the same element of each operand."""
    return tag == ELEMWISE


def is_broadcast(tag: str) -> bool:
    """Whether the tag says elementwise or broadcast."""
    return tag in (ELEMWISE, BROADCAST)


def is_injective(tag: str) -> bool:
    """Whether the tag says that elements are computed alone: elementwise, broadcast or moved."""
    return tag in (ELEMWISE, BROADCAST, INJECTIVE)
