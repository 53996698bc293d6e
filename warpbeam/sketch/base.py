"""What every sketch works on and gives back.

A sketch is a schedule with free decisions: it looks at a group's stages, decides (by the analytic prior) and
schedules through
the one schedule language. It returns the scheduled PrimFunc, the layout it wants for constant operands, and why it
decided so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.ir.rewrite import post_order, substitute
from warpbeam.sketch.structure import Stage, stages
from warpbeam.target import Target
from warpbeam.te.create import convert
from warpbeam.te.tensor import ComputeOp, Operation, Tensor
from warpbeam.tir.arith import simplify
from warpbeam.tir.expr import Call, IntImm, Var, as_expr, const_int
from warpbeam.tir.schedule import Schedule
from warpbeam.tir.stmt import PrimFunc

LIKELY = 128  # what a size is taken to be that only the run tells
_FEW = 4  # fewer are hardly what is meant
_LONG = (1024, 8192, 65536)  # sizes of signals
_SOME = 32
_CHEAP_CALLS = frozenset(
    {"if_then_else", "abs", "sqrt", "floor", "ceil", "round", "fma", "likely", "reinterpret", "isnan", "to_bfloat16"}
)


@dataclass(frozen=True, slots=True)
class Plan:
    """A scheduled kernel: `func`, the sketch's name, its decisions, notes for `explain`, and the program lowered.

    cycles: what the prior expects on all cores with constant operands in memory; None where it has no opinion.
    others: gives the next best decisions, up to a number of them, each with what the prior expects; None where there
    is no such list. gaps: inputs whose rows of so many elements should not follow each other without a gap.
    """

    func: PrimFunc
    sketch: str
    decisions: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    lowered: PrimFunc | None = None
    cycles: float | None = None
    others: Callable[[int], list[tuple[dict[str, Any], float]]] | None = None
    gaps: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Group:
    """The tensors of one kernel with their stages and the schedule under construction.

    constants: names of the inputs whose contents are known at compile time, so that their layout may be chosen.
    """

    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    target: Target
    constants: frozenset[str] = frozenset()
    name: str = "kernel"
    stages: list[Stage] = field(init=False)
    readers: dict[Operation, list[ComputeOp]] = field(init=False)
    _begun: tuple[Schedule, dict[Operation, str]] | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.stages = stages(self.outputs)
        self.readers = {}
        for stage in self.stages:
            for t in stage.op.input_tensors:
                self.readers.setdefault(t.op, []).append(stage.op)

    def restart(self) -> None:
        """Forgets all scheduling done so far."""
        self._begun = None

    def _begin(self) -> tuple[Schedule, dict[Operation, str]]:
        if self._begun is None:  # a group that is only judged is not turned into a program
            made = convert(list(self.inputs), list(self.outputs), self.name)
            self._begun = Schedule(made.func), made.blocks
        return self._begun

    @property
    def sch(self) -> Schedule:
        """The schedule under construction."""
        return self._begin()[0]

    @property
    def blocks(self) -> dict[Operation, str]:
        """The names of the stages' blocks in the schedule."""
        return self._begin()[1]

    @blocks.setter
    def blocks(self, names: dict[Operation, str]) -> None:
        self._begun = self.sch, names

    def is_output(self, op: Operation) -> bool:
        return any(t.op is op for t in self.outputs)


def extent(value: Any) -> int | None:
    """The int of an extent or dimension, None where symbolic."""
    if isinstance(value, int):
        return value
    return value.value if isinstance(value, IntImm) else None


def supposed(value: Any) -> int:
    """An extent, or what it may be where only the run tells: it is at least 1.

    Sizes are taken to be LIKELY, and 32 each where several are multiplied: some of them are batches. Where that leaves
    next to nothing (frames of a signal), they are taken to be as many as give some tens.
    """
    sizes = {n for n in post_order(as_expr(value)) if isinstance(n, Var)}
    for likely in (LIKELY if len(sizes) == 1 else 32, *_LONG):
        given = dict.fromkeys(sizes, as_expr(likely))
        found = max(1, const_int(simplify(substitute(as_expr(value), given))) or 1)
        if not sizes or found >= (_SOME if likely in _LONG else _FEW):
            break
    return found


def product(values: Sequence[Any], unknown: int = 64) -> int:
    """Product of dimensions, symbolic ones taken as `unknown`."""
    out = 1
    for v in values:
        e = extent(v)
        out *= unknown if e is None else e
    return out


def expensive(op: ComputeOp) -> bool:
    """Whether one element costs more than a few instructions (exp, erf, …), so that recomputing it does not pay."""
    return any(isinstance(n, Call) and n.op not in _CHEAP_CALLS for n in post_order(*op.body))


def nth(ranked: Sequence[Any], rank: int) -> Any:
    """The decisions of a rank.

    Raises:
        ScheduleError: if there are fewer.
    """
    if rank >= len(ranked):
        raise ScheduleError(f"there are {len(ranked)} different decisions, not {rank + 1}")
    return ranked[rank]


def inline_pointwise(group: Group, keep: frozenset[Operation] = frozenset()) -> None:
    """Inlines every stage without a reduction that is neither an output nor in `keep`."""
    for stage in group.stages:
        if stage.kind in ("elementwise", "injective") and not group.is_output(stage.op) and stage.op not in keep:
            group.sch.compute_inline(group.blocks[stage.op])
