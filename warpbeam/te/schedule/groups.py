"""Groups of stages, copies of schedules, and attachments that outlived their axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from warpbeam.te.schedule import axis as ax
from warpbeam.te.schedule.errors import require
from warpbeam.te.schedule.stage import Stage
from warpbeam.te.tensor import Operation, Tensor

if TYPE_CHECKING:
    from warpbeam.te.schedule.schedule import Schedule


def _tensors(value: Any) -> list[Tensor]:
    listed = list(value) if isinstance(value, list | tuple) else [value]
    for t in listed:
        require(isinstance(t, Tensor), "create_group takes tensors", hint="pass C, not s[C] or C.op")
    return listed


def subgraph(outputs: list[Tensor], inputs: list[Tensor], include_inputs: bool) -> list[Operation]:
    """Operations between inputs and outputs, from consumers to producers."""
    boundary = set(inputs)
    found: dict[Operation, None] = {}
    todo = list(outputs)
    while todo:
        t = todo.pop()
        if t in boundary and not include_inputs:
            continue
        if t.op in found:
            continue
        found[t.op] = None
        if t not in boundary:
            todo.extend(t.op.input_tensors)
    return list(found)


def _common_group(stages: list[Stage]) -> Stage | None:
    """The innermost group that holds all the stages."""
    chains = []
    for s in stages:
        chain: list[Stage | None] = []
        g = s.group
        while g is not None:
            chain.append(g)
            g = g.group
        chains.append([*chain, None])
    return next(g for g in chains[0] if all(any(g is h for h in c) for c in chains[1:]))


def create_group(sch: Schedule, outputs: Any, inputs: Any, include_inputs: bool = False) -> Stage:
    """A new group around the operations between inputs and outputs. It may hold whole groups, but no part of one."""
    ends = [sch.tensor(t) for t in _tensors(outputs)]
    starts = [sch.tensor(t) if t in sch else t for t in _tensors(inputs)]
    ops = subgraph(ends, starts, include_inputs)
    require(bool(ops), "There is no operation between the inputs and outputs of the group")
    stages = [sch[op] for op in ops]
    parent = _common_group(stages)
    below: dict[int, list[Stage]] = {}
    members: list[Stage] = []
    counted: dict[int, int] = {}
    todo = list(stages)
    while todo:
        s = todo.pop()
        if s.group is parent:
            members.append(s)
            continue
        g = s.group
        assert g is not None
        below.setdefault(id(g), []).append(s)
        counted[id(g)] = counted.get(id(g), 0) + 1
        if counted[id(g)] == g.num_child_stages:
            todo.append(g)
    full = {id(g) for g in sch.groups if counted.get(id(g)) == g.num_child_stages}
    require(
        set(counted) <= full,
        "Trying to group region that intersect with an already existed group",
        hint="a group may hold another one whole, or not at all",
    )
    group = Stage(None)
    group.group, group.num_child_stages = parent, len(members)
    if parent is not None:
        parent.num_child_stages += 1 - len(members)
    for s in members:
        s.group = group
    sch.groups.append(group)
    return group


def join_group(stage: Stage, group: Stage | None) -> None:
    """Makes a new stage a member of a group."""
    stage.group = group
    if group is not None:
        group.num_child_stages += 1


def current_axis(stage: Stage, axis: Any) -> Any:
    """The leaf that an axis has become by later splits (the inner part) and fuses."""
    for r in stage.relations:
        if isinstance(r, ax.Split) and r.parent is axis:
            axis = r.inner
        elif isinstance(r, ax.Fuse) and (r.outer is axis or r.inner is axis):
            axis = r.fused
    return axis


def copied(sch: Schedule) -> Schedule:
    """A schedule whose stages are copies."""
    new = object.__new__(type(sch))
    twin: dict[int, Stage] = {}
    for s in [*sch.stages, *sch.groups]:
        t = object.__new__(Stage)
        t.__dict__.update(s.__dict__)
        t.all_iter_vars, t.leaf_iter_vars = list(s.all_iter_vars), list(s.leaf_iter_vars)
        t.relations, t.history = list(s.relations), list(s.history)
        t.iter_var_attrs = {a: attr.copied() for a, attr in s.iter_var_attrs.items()}
        t.env_thread_axes = list(s.env_thread_axes)
        twin[id(s)] = t
    for t in twin.values():
        t.group = None if t.group is None else twin[id(t.group)]
        t.attach_stage = None if t.attach_stage is None else twin[id(t.attach_stage)]
    new.outputs = list(sch.outputs)
    new.stages = [twin[id(s)] for s in sch.stages]
    new.groups = [twin[id(g)] for g in sch.groups]
    new.stage_map = {op: twin[id(s)] for op, s in sch.stage_map.items()}
    return new
