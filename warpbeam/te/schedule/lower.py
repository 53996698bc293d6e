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
from warpbeam.te.schedule.loops import Loops, thread_vars
from warpbeam.te.schedule.program import expected_params, legal, naive_program
from warpbeam.te.schedule.roots import is_placeholder, is_scan, outputs_of, root_axes
from warpbeam.te.schedule.stage import GROUP_ROOT, INLINE, SCAN_UPDATE, SCOPE, Stage
from warpbeam.te.schedule.steps import AroundLoop, Expose
from warpbeam.te.tensor import ComputeOp, ExternOp, Tensor
from warpbeam.tir.analysis.access import as_block, is_param, written
from warpbeam.tir.analysis.tree import tree_of
from warpbeam.tir.expr import Buffer
from warpbeam.tir.schedule.schedule import Schedule as LoopSchedule
from warpbeam.tir.stmt import PrimFunc

if TYPE_CHECKING:
    from warpbeam.te.schedule.schedule import Schedule

_CACHE = "use cache_write and place the cache"
_THREADS = 'give it one: te.thread_axis((0, n), "threadIdx.x")'


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
        self.naive = naive_program(te_schedule, args, name, binds)
        self.sch = LoopSchedule(self.naive.func)
        self.buffers: dict[Tensor, Buffer] = dict(self.naive.buffers)
        self.params, self.exposed = expected_params(te_schedule, args, self.buffers, binds)
        made = self.naive.blocks
        self.blocks: dict[Stage, str] = {s: made[s.op] for s in te_schedule.stages if s.op in made}
        self.loops: dict[Stage, Loops] = {}
        made_loops = self.naive.loops
        self.time_loops = {n for s in te_schedule.stages if is_scan(s.op) for n in made_loops[s.op].values()}
        self.threads = thread_vars(te_schedule.stages)
        self.moved: set[Stage] = set()  # stages whose loops placement has made anew

    def run(self) -> None:
        """All steps in order."""
        for stage in self.te.stages:
            if stage.attach_type == INLINE:
                self._inline(stage)
        for stage in reversed(self.te.stages):
            if stage.attach_type == INLINE:
                continue
            if stage in self.blocks:
                self._stage(stage)
            elif is_scan(stage.op):
                self._scan(stage)
        finish(self)
        if self.exposed:
            self.sch.step(Expose(tuple(self.params)))

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
            for user in self._opaque_users(stage):
                raise ScheduleValueError(
                    f"Cannot inline {op.name}, whose whole result {user.op.name} reads", hint="leave it where it is"
                )
            self.sch.compute_inline(self.blocks[stage])

    def _opaque_users(self, stage: Stage) -> list[Stage]:
        """Stages that read the result by a statement of their own (te.extern)."""
        results = set(outputs_of(stage.op))
        return [s for s in self.te.stages if isinstance(s.op, ExternOp) and results & set(s.op.input_tensors)]

    def _stage(self, stage: Stage) -> None:
        spec = stage.attach_spec()
        if spec.attach_type == SCOPE:
            assert spec.attach_stage is not None
            require(not stage.is_output, f"Output must be attached at root, not {stage!r}", hint=_CACHE)
            self._place(stage, self.loop(spec.attach_stage, spec.attach_ivar))
        elif spec.attach_type == SCAN_UPDATE:
            assert spec.attach_stage is not None
            self._inside_scan(stage, self.loop(spec.attach_stage, spec.attach_ivar))
        else:
            require(spec.attach_type == GROUP_ROOT, f"{stage!r} is attached to nothing that is computed")
            self._set_scope(stage, stage.scope)
        block = self.blocks[stage]
        if stage in self.moved:
            roots = root_axes(stage.op)
            names = dict(zip(roots, self.sch.loops(block)[-len(roots) :] if roots else [], strict=True))
        else:
            names = dict(self.naive.loops[stage.op])
        self._loops(stage, names, block)

    def _loops(self, stage: Stage, names: dict[Any, str], block: str) -> None:
        loops = self.loops[stage] = Loops(self, stage, names, block)
        loops.replay()
        loops.annotate()

    def _scan(self, stage: Stage) -> None:
        """The loop over time, and the threads around it."""
        names = dict(self.naive.loops[stage.op])
        around = names[stage.op.scan_axis]
        for t in reversed(stage.env_thread_axes):
            require(t.extent is not None, f"thread axis {name_of(t)} around {stage!r} has no extent", hint=_THREADS)
            around = self.sch.step(AroundLoop(around, legal(t.thread_tag), t.extent, t.thread_tag))
            names[t] = around
        self._loops(stage, names, around)

    def _inside_scan(self, stage: Stage, loop: str) -> None:
        """What lies between a state and its update is in the loop over time already; the rest joins it."""
        if loop in self.sch.loops(self.blocks[stage]):
            self._set_scope(stage, stage.scope)
        else:
            self._place(stage, loop)

    def loop(self, stage: Stage, axis: Any) -> str:
        """The loop of an axis of a stage that is already placed; of one split or fused later, what came of it."""
        found: Loops | None = self.loops.get(stage)
        axis = current_axis(stage, axis)
        if found is None or axis not in found.names:
            raise ScheduleValueError(
                f"there is no loop {name_of(axis)} of {stage!r} to compute at",
                why="the stage is inlined, or does not need what is computed there",
                hint="attach to a stage that is computed and consumes the result",
            )
        return str(found.names[axis])

    def _place(self, stage: Stage, loop: str) -> None:
        for user in self._opaque_users(stage):
            raise ScheduleValueError(
                f"{stage!r} cannot be computed inside {loop}", why=f"{user.op.name} reads its whole result",
                hint="leave it at the root",
            )  # fmt: skip
        self._set_scope(stage, stage.scope or self._default_scope(loop))
        self.sch.compute_at(self.blocks[stage], loop, relax=True, guard=True)
        self.moved.add(stage)

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
        results = [stage.op.output(k) for k in range(stage.op.num_outputs)]
        if not any(is_param(tree, b) for b in written(block)) and not any(t in self.exposed for t in results):
            self.sch.set_scope(self.blocks[stage], scope)
