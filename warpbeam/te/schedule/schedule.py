"""The te schedule: a stage for every operation below the outputs, and edits of the dataflow between them.

s = te.create_schedule(C.op)
xo, xi = s[C].split(C.op.axis[0], factor=32)
CC = s.cache_write(C, "local")
s[CC].compute_at(s[C], xo)
func = te.schedule.lower(s, [A, B, C])
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from warpbeam.te.operation import operations_below
from warpbeam.te.schedule import cache, groups, rfactor
from warpbeam.te.schedule.errors import ScheduleValueError, require
from warpbeam.te.schedule.roots import is_placeholder, is_scan, outputs_of
from warpbeam.te.schedule.stage import SCAN_UPDATE, Stage
from warpbeam.te.tensor import Operation, Tensor
from warpbeam.tir.expr import as_expr

if TYPE_CHECKING:
    from warpbeam.target import Target
    from warpbeam.tir.schedule.explain import Cost


class Schedule:
    """How the operations below some outputs are computed. `s[T]` is the stage of a tensor or operation.

    outputs: operations. stages: producers before consumers. groups: what create_group made. stage_map: the stage of
    every operation, those from before an edit of the dataflow included.
    """

    def __init__(self, outputs: Sequence[Operation]) -> None:
        self.outputs: list[Operation] = list(outputs)
        self.stages: list[Stage] = []
        self.groups: list[Stage] = []
        self.stage_map: dict[Operation, Stage] = {}
        wanted = set(self.outputs)
        for op in operations_below(self.outputs):
            stage = self.stage_map[op] = Stage(op)
            stage.is_output = op in wanted
            self.stages.append(stage)
            if is_scan(op):
                self._scan_group(op, stage)

    def _scan_group(self, op: Any, stage: Stage) -> None:
        """What lies between the state and its update runs at the scan's axis."""
        inside = groups.create_group(self, list(op.update), [*op.state_placeholder, *op.inputs], False)
        inside.attach_type, inside.attach_stage, inside.attach_ivar = SCAN_UPDATE, stage, op.scan_axis

    # ---------------------------------------------------------------------------------------------------------- looking

    def __getitem__(self, key: Any) -> Stage:
        if isinstance(key, Tensor):
            key = key.op
        if not isinstance(key, Operation):
            raise ScheduleValueError(
                "Expect schedule key to be Tensor or Operation",
                hint=f"index it with a tensor, not {type(key).__name__}",
            )
        found = self.stage_map.get(key)
        if found is None:
            raise ScheduleValueError(
                f"Cannot find the operation {key.name} in schedule",
                hint=f"it has {[s.op.name for s in self.stages]}; create_schedule takes the operation of every output",
            )
        return found

    def __contains__(self, key: Any) -> bool:
        return (key.op if isinstance(key, Tensor) else key) in self.stage_map

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages)

    def __repr__(self) -> str:
        return f"schedule({', '.join(s.op.name for s in self.stages)})"

    def tensor(self, t: Tensor) -> Tensor:
        """The tensor that has taken a tensor's place after edits of the dataflow."""
        found: Tensor = self[t].op.output(t.index)
        return found

    def explain(self, args: Sequence[Any] | None = None, target: Target | None = None, cost: Cost | None = None) -> str:
        """The loops that the schedule lowers to, their working sets, the caches that hold these, and the steps.

        args: the function's parameters; by default the placeholders, then the outputs. cost: predicts the cycles of a
        loop, which become a column; `warpbeam.explain` gives one. Raises ScheduleError where it cannot be lowered.
        """
        from warpbeam.te.schedule.lower import walk

        return walk(self, self.default_args() if args is None else args).sch.explain(target, cost)

    def default_args(self) -> list[Tensor]:
        """The placeholders in the order of their first use, then the outputs."""
        given = [t for s in self.stages for t in outputs_of(s.op) if is_placeholder(s.op)]
        states = {t for s in self.stages if is_scan(s.op) for t in s.op.state_placeholder}
        return [t for t in given if t not in states] + [t for op in self.outputs for t in outputs_of(self[op].op)]

    # ------------------------------------------------------------------------------------------------------------ edits

    def cache_read(self, tensor: Tensor, scope: str, readers: Any) -> Tensor:
        """A copy of a tensor in a memory scope, read by `readers` (tensors or operations) in its place."""
        return cache.cache_read(self, tensor, scope, readers)

    def cache_write(self, tensor: Any, scope: str) -> Any:
        """The tensor is computed in a memory scope and then copied; gives the cache, which does the computing.

        A list of all the outputs of one operation gives a list. Where data-parallel loops were split or reordered
        before, they become the dimensions of the cache.
        """
        return cache.cache_write(self, tensor, scope)

    def rfactor(self, tensor: Tensor, axis: Any, factor_axis: int = 0) -> Any:
        """Partial results over one loop of a reduction, which becomes dimension `factor_axis` of a new tensor.

        Gives that tensor; of a tuple reduction the list of all.
        """
        return rfactor.rfactor(self, tensor, axis, factor_axis)

    def create_group(self, outputs: Any, inputs: Any, include_inputs: bool = False) -> Stage:
        """A group of the stages between inputs and outputs, which can be attached as one."""
        return groups.create_group(self, outputs, inputs, include_inputs)

    def normalize(self) -> Schedule:
        """A copy in which an attachment to an axis that was split or fused later is one to what came of it."""
        new = self.copy()
        for stage in [*new.stages, *new.groups]:
            if stage.attach_stage is not None and stage.attach_ivar is not None:
                stage.attach_ivar = groups.current_axis(stage.attach_stage, stage.attach_ivar)
        return new

    def copy(self) -> Schedule:
        """An independent schedule of the same operations; axes and tensors are shared."""
        return groups.copied(self)


class SpecializedCondition:
    """Conditions under which what is chosen within holds, for those who choose between implementations:

        with te.SpecializedCondition([n == 1024]):
            choose()                # asks te.SpecializedCondition.current().clauses

    Schedules do not read them: what is scheduled within is right for all sizes.
    """

    def __init__(self, conditions: Any) -> None:
        listed = list(conditions) if isinstance(conditions, list | tuple) else [conditions]
        require(bool(listed), "SpecializedCondition needs a condition")
        self.clauses = [as_expr(c, "bool") for c in listed]

    @staticmethod
    def current() -> SpecializedCondition | None:
        """The innermost condition that is in force, or None."""
        return _STACK[-1] if _STACK else None

    def __enter__(self) -> SpecializedCondition:
        _STACK.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _STACK.remove(self)


_STACK: list[SpecializedCondition] = []


def create_schedule(ops: Any) -> Schedule:
    """A schedule of everything below the operations (one or a list; tensors stand for their operations)."""
    listed = list(ops) if isinstance(ops, list | tuple) else [ops]
    require(bool(listed), "create_schedule needs an operation")
    found = []
    for op in listed:
        op = op.op if isinstance(op, Tensor) else op
        require(
            isinstance(op, Operation), f"Expect operation, but got {type(op).__name__}", hint="pass the .op of tensors"
        )
        found.append(op)
    return Schedule(list(dict.fromkeys(found)))
