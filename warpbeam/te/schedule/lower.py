"""From a te schedule to a scheduled loop program: a walk over the stages, consumers first, that applies steps.

Each stage is first placed (at the root, or inside a loop of a consumer, over the region that this loop needs), then
gets its splits, fusions and reorderings in the order of their calls, then its threads, vectors and pragmas. So a
producer's split acts on the extents that its consumers left it, in whatever order the calls were written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from warpbeam.te.schedule.axis import name_of
from warpbeam.te.schedule.errors import ScheduleValueError, require
from warpbeam.te.schedule.finish import finish
from warpbeam.te.schedule.groups import current_axis
from warpbeam.te.schedule.loops import Loops
from warpbeam.te.schedule.program import Program
from warpbeam.te.schedule.roots import is_placeholder, outputs_of
from warpbeam.te.schedule.stage import GROUP_ROOT, INLINE, SCAN_UPDATE, SCOPE, Stage
from warpbeam.te.tensor import ComputeOp, Tensor
from warpbeam.tir.analysis.access import as_block, is_param, writers, written
from warpbeam.tir.analysis.tree import tree_of
from warpbeam.tir.expr import Buffer
from warpbeam.tir.schedule.schedule import Schedule as LoopSchedule
from warpbeam.tir.stmt import PrimFunc

if TYPE_CHECKING:
    from warpbeam.te.schedule.schedule import Schedule


def lower(
    s: Schedule, args: Sequence[Any], name: str = "main", binds: Mapping[Tensor, Buffer] | None = None
) -> PrimFunc:
    """The scheduled program: blocks under the loops that the schedule asks for.

    args: its parameters in order: tensors, buffers (of `binds`) and size variables. Outputs that are not among them are
    kept inside. binds: buffers with layouts of their own for some tensors. Raises ScheduleError.
    """
    return walk(s, args, name, binds).sch.func


def walk(s: Schedule, args: Sequence[Any], name: str = "main", binds: Mapping[Tensor, Buffer] | None = None) -> Walk:
    """The finished walk of `lower`: the loop schedule with its steps, and the loops of each stage."""
    done = Walk(s, args, name, binds)
    done.run()
    return done


class Walk:
    """The state of one lowering: the program so far, and which loops belong to which axis."""

    def __init__(
        self, te_schedule: Schedule, args: Sequence[Any], name: str, binds: Mapping[Tensor, Buffer] | None
    ) -> None:
        self.te = te_schedule
        program = Program(te_schedule, args, name, binds)
        self.sch = LoopSchedule(program.function())
        self.buffers: dict[Tensor, Buffer] = dict(program.buffers)
        self.blocks: dict[Stage, str] = {}
        self.loops: dict[Stage, Loops] = {}
        self._find_blocks()

    def _find_blocks(self) -> None:
        """The block of every stage that has one: the writer of its first output."""
        tree = tree_of(self.sch.func)
        for stage in self.te.stages:
            op = stage.op
            if is_placeholder(op):
                continue
            buffer = self.buffers.get(outputs_of(op)[0])
            found = [] if buffer is None else writers(tree, buffer)
            if found:
                self.blocks[stage] = as_block(found[0]).name

    def run(self) -> None:
        """All steps in order."""
        for stage in self.te.stages:
            if stage.attach_type == INLINE:
                self._inline(stage)
        for stage in reversed(self.te.stages):
            if stage in self.blocks and stage.attach_type != INLINE:
                self._stage(stage)
        finish(self)

    def block(self, stage: Stage) -> str:
        return self.blocks[stage]

    # ----------------------------------------------------------------------------------------------------------- stages

    def _inline(self, stage: Stage) -> None:
        op = stage.op
        if is_placeholder(op):
            return
        require(isinstance(op, ComputeOp), f"Cannot inline {op.name}, which is no compute operation")
        require(len(op.body) == 1, f"Cannot inline {op.name}, which has several outputs")
        require(not op.reduce_axis, f"Cannot inline {op.name}, which is a reduction", hint="use compute_at")
        require(
            not stage.is_output, f"Cannot inline {op.name}, which is an output", hint="inline what it is computed from"
        )
        if stage in self.blocks:
            self.sch.compute_inline(self.blocks[stage])

    def _stage(self, stage: Stage) -> None:
        spec = stage.attach_spec()
        if spec.attach_type == SCOPE:
            assert spec.attach_stage is not None
            self._place(stage, self.loop(spec.attach_stage, spec.attach_ivar))
        elif spec.attach_type == GROUP_ROOT:
            self._set_scope(stage, stage.scope)
        else:
            require(spec.attach_type == SCAN_UPDATE, f"{stage!r} is attached to nothing that is computed")
        loops = self.loops[stage] = Loops(self.sch, stage, self.blocks[stage])
        loops.replay()
        loops.annotate()

    def loop(self, stage: Stage, axis: Any) -> str:
        """The loop of an axis of a stage that is already placed; of one split or fused later, what came of it."""
        found = self.loops.get(stage)
        axis = current_axis(stage, axis)
        if found is None or axis not in found.names:
            raise ScheduleValueError(
                f"there is no loop {name_of(axis)} of {stage!r} to compute at",
                why="the stage is inlined, or does not need what is computed there",
                hint="attach to a stage that is computed and consumes the result",
            )
        return found.names[axis]

    def _place(self, stage: Stage, loop: str) -> None:
        self._set_scope(stage, stage.scope or self._default_scope(loop))
        self.sch.compute_at(self.blocks[stage], loop, relax=True, guard=True)

    def _default_scope(self, loop: str) -> str:
        """The memory that the threads around a loop share: below threadIdx each its own, below blockIdx the block's."""
        place = tree_of(self.sch.func).loop(loop)
        around = [place.stmt, *(p.stmt for p in place.ancestors())]
        tags = [getattr(s, "thread", "") for s in around]
        if any(t and not t.startswith("blockIdx") and t != "pipeline" for t in tags):
            return "local"
        return "shared" if any(tags) else ""

    def _set_scope(self, stage: Stage, scope: str) -> None:
        if not scope or scope == "global":
            return
        tree = tree_of(self.sch.func)
        block = as_block(tree.block(self.blocks[stage]))
        if not any(is_param(tree, b) for b in written(block)):
            self.sch.set_scope(self.blocks[stage], scope)
