"""Axes of a stage and how they come from one another.

A stage starts with the axes of its operation. `split` and `fuse` replace them by new ones and leave a relation that
says how; the axes that nothing replaced are the leaves, outer to inner: the loops that the stage will have.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from warpbeam.te.schedule.errors import ScheduleValueError
from warpbeam.tir.expr import Var, const
from warpbeam.tir.stmt import IterVar

DATA_PAR, THREAD_INDEX, COMM_REDUCE, ORDERED, OPAQUE, UNROLLED, VECTORIZED, PARALLELIZED, TENSORIZED = range(9)
KIND_NAMES = (
    "DataPar", "ThreadIndex", "CommReduce", "Ordered", "Opaque", "Unrolled", "Vectorized", "Parallelized", "Tensorized",
)  # fmt: skip
_NODE_KINDS = {DATA_PAR: "spatial", COMM_REDUCE: "reduce", ORDERED: "ordered"}


class Axis(IterVar):
    """An axis that a relation made: `x.outer`, `x.inner`, `a.b.fused`. Its range is known when the schedule is lowered.

    Like every axis it stands for its variable where an expression is wanted.
    """

    @classmethod
    def _normalize(  # type: ignore[override]
        cls, name: str, kind: str = "spatial", extent: int | None = None
    ) -> tuple[Any, ...]:
        return Var(name), None if extent is None else const(extent), kind, const(0), ""

    def __repr__(self) -> str:
        return f"iter_var({self.var.name}, {kind_name(self)})"


def iter_type(axis: Any) -> int:
    """The kind number of an axis, be it an operation's, a thread's or a stage's."""
    if not isinstance(axis, IterVar):
        raise ScheduleValueError(f"{axis!r} is not an axis", hint="pass an axis of the stage, such as s[C].op.axis[0]")
    return axis.iter_type


def new_axis(name: str, like: int) -> Axis:
    """An axis of the kind number `like`."""
    return Axis(name, _NODE_KINDS[like])


def kind_name(axis: Any) -> str:
    return KIND_NAMES[iter_type(axis)]


def name_of(axis: Any) -> str:
    """The axis's name for messages."""
    var = getattr(axis, "var", None)
    return var.name if isinstance(var, Var) else repr(axis)


def thread_tag(axis: Any) -> str:
    """The hardware axis it is, or an empty string."""
    return str(axis.thread_tag)


@dataclass(eq=False)
class Split:
    """parent -> outer, inner; one of factor and nparts is given."""

    parent: Any
    outer: Axis
    inner: Axis
    factor: Any
    nparts: Any
    guard: bool = True


@dataclass(eq=False)
class Fuse:
    """outer, inner -> fused."""

    outer: Any
    inner: Any
    fused: Axis


@dataclass(eq=False)
class Singleton:
    """An axis of one iteration, in front of all others."""

    iter: Axis


@dataclass(eq=False)
class Transform:
    """The data-parallel leaves, replaced by the values of an index map over them."""

    original: list[Any]
    new: list[Axis]
    index_map: Any


@dataclass(eq=False)
class Order:
    """The leaves were put in this order."""

    leaves: list[Any]


Relation = Split | Fuse | Singleton | Transform


@dataclass(eq=False)
class IterVarAttr:
    """What is to be done with one axis."""

    iter_type: int
    bind_thread: Any = None
    tensor_intrin: Any = None
    prefetch_data: list[Any] = field(default_factory=list)
    prefetch_offset: list[Any] = field(default_factory=list)
    dim_align_factor: int = 0
    dim_align_offset: int = 0
    pragma_keys: list[str] = field(default_factory=list)
    pragma_values: list[Any] = field(default_factory=list)

    def copied(self) -> IterVarAttr:
        return IterVarAttr(
            self.iter_type, self.bind_thread, self.tensor_intrin, list(self.prefetch_data), list(self.prefetch_offset),
            self.dim_align_factor, self.dim_align_offset, list(self.pragma_keys), list(self.pragma_values),
        )  # fmt: skip
