"""rfactor: a reduction as partial results over one of its loops, and the reduction of those."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from warpbeam.ir.node import Attrs
from warpbeam.ir.rewrite import substitute
from warpbeam.te.schedule import axis as ax
from warpbeam.te.schedule.axis import iter_type, name_of
from warpbeam.te.schedule.bounds import StageBounds
from warpbeam.te.schedule.cache import insert_stage, place_of
from warpbeam.te.schedule.errors import require
from warpbeam.te.schedule.graph import replace_dataflow
from warpbeam.te.schedule.roots import count_outputs
from warpbeam.te.tensor import ComputeOp, ProducerLoad, Reduce, Tensor
from warpbeam.tir.expr import IntImm, Var, call, land
from warpbeam.tir.stmt import IterVar

if TYPE_CHECKING:
    from warpbeam.te.schedule.schedule import Schedule


def rfactor(sch: Schedule, tensor: Tensor, axis: Any, factor_axis: int = 0) -> Any:
    """See Schedule.rfactor."""
    require(isinstance(tensor, Tensor), "rfactor takes a tensor")
    require(iter_type(axis) == ax.COMM_REDUCE, "Can only factor reduction axis", hint=f"{name_of(axis)} is none")
    stage = sch[tensor]
    op = stage.op
    require(isinstance(op, ComputeOp), "Can only factor ComputeOp")
    require(
        any(a is axis for a in stage.leaf_iter_vars),
        f"Cannot find IterVar {name_of(axis)} in leaf iter vars",
        hint=f"the loops of {stage!r} are {[name_of(a) for a in stage.leaf_iter_vars]}",
    )
    assert isinstance(op.body[tensor.index], Reduce)  # or there would be no reduction axis
    count = len(op.axis)
    require(isinstance(factor_axis, int), f"factor_axis is a position, not a {type(factor_axis).__name__}")
    place = factor_axis if factor_axis >= 0 else count + 1 + factor_axis
    require(0 <= place <= count, f"factor_axis {factor_axis} is outside the {count + 1} dimensions of the result")
    factored = _Factor(StageBounds(stage), axis, place).operation()
    final = _final(op, factored, axis, place)
    insert_stage(sch, factored, place_of(sch, stage), stage.group)
    stage.reset(final)
    sch.stage_map[final] = stage
    replace_dataflow(sch, {op.output(k): final.output(k) for k in range(count_outputs(op))}, keep=(factored, final))
    made = [factored.output(k) for k in range(count_outputs(op))]
    return made[0] if len(made) == 1 else made


class _Factor:
    """The operation of the partial results."""

    def __init__(self, bounds: StageBounds, axis: Any, place: int) -> None:
        self.bounds, self.axis, self.place = bounds, axis, place
        self.op: ComputeOp = bounds.stage.op
        self.touched = bounds.roots(axis)
        require(
            all(iter_type(a) == ax.COMM_REDUCE for a in self.touched), "Factor axis touches normal axis.",
            hint="do not fuse the reduction axis with a data-parallel one",
        )  # fmt: skip
        self.leaves = [a for a in bounds.stage.leaf_iter_vars if bounds.roots(a) & self.touched]
        more: set[Any] = set().union(*(bounds.roots(a) for a in self.leaves))
        require(all(iter_type(a) == ax.COMM_REDUCE for a in more), "Factor axis touches normal axis.")
        self.touched = self.touched | frozenset(more)

    def operation(self) -> ComputeOp:
        """Data-parallel over the factored axis too; the other touched leaves are reduction axes now."""
        lane = Var(self.axis.var.name)
        new: dict[Any, Var] = {a: lane if a is self.axis else Var(a.var.name) for a in self.leaves}
        values = dict(new)
        at = {a.var: self.bounds.value(a, values) for a in self.op.reduce_axis if a in self.touched}
        inside = self.bounds.conditions(values, self.touched)
        rest = [a for a in self.op.reduce_axis if a not in self.touched]
        rest += [IterVar(v, self.bounds.extent(a), "reduce") for a, v in new.items() if a is not self.axis]
        if not rest:
            rest = [IterVar(Var(f"{self.axis.var.name}.unit"), 1, "reduce")]
        first = self.op.body[0]
        assert isinstance(first, Reduce)
        source = tuple(substitute(e, at) for e in first.source)
        cond = substitute(land(first.condition, *inside), at)
        if not isinstance(cond, IntImm):
            cond = call("likely", cond)
        reductions = tuple(
            Reduce(first.combiner, source, tuple(rest), cond, _place_in_tuple(body), ()) for body in self.op.body
        )
        axes = list(self.op.axis)
        axes.insert(self.place, IterVar(lane, self.bounds.extent(self.axis), "spatial"))
        return ComputeOp(f"{self.op.name}.rf", tuple(axes), reductions, Attrs())


def _final(op: ComputeOp, factored: ComputeOp, axis: Any, place: int) -> ComputeOp:
    """The reduction over the partial results."""
    first = op.body[0]
    assert isinstance(first, Reduce)
    lane = IterVar(Var(f"{axis.var.name}.v"), factored.axis[place].extent, "reduce")
    index = [a.var for a in op.axis]
    index.insert(place, lane.var)
    parts = {_place_in_tuple(b): ProducerLoad(factored.output(k), tuple(index)) for k, b in enumerate(factored.body)}
    source = tuple(parts[k] for k in range(len(first.source)))
    true = IntImm(1, "bool")
    bodies = tuple(Reduce(first.combiner, source, (lane,), true, _place_in_tuple(b), first.init) for b in op.body)
    return ComputeOp(op.name, op.axis, bodies, op.attrs)


def _place_in_tuple(body: Any) -> int:
    """Which value of a tuple reduction an output is."""
    assert isinstance(body, Reduce)
    return body.value_index
