"""Sketch for elements at places that are computed from data, and sums of them, the same places for all channels.

    for positions in blocks (parallel):
        place[t, p], weight[t, p] = …                   tables of the block's positions, local, in vectors
        for channels in groups:
            for p:
                acc[group] = 0                          registers
                unrolled taps: acc += x[channel, place[t, p]] * weight[t, p]
                out = epilogue(acc)

A position's places and weights are used by all channels of a group while they are in registers. Elements are read one
by one: lanes of a vector would be gathered one by one too, and then put together.
"""

from __future__ import annotations

from collections.abc import Sequence

from warpbeam.ir.rewrite import post_order
from warpbeam.sketch import pointwise
from warpbeam.sketch.base import Group, Plan, expensive, extent, product, supposed
from warpbeam.sketch.structure import Stage, load_vars, variables
from warpbeam.sketch.tile import Anatomy, anatomy, epilogue
from warpbeam.sketch.window import MAX_UNROLLED, PARALLEL_WORK
from warpbeam.te.tensor import ComputeOp, IterVar, Operation, PlaceholderOp, ProducerLoad, loads
from warpbeam.tir.expr import Var

_GROUP = 8  # channels whose sums are made together: as many lines of one cache set as the nearest caches have
_POSITIONS = 512  # of a block
_PIECES = 4  # blocks for each core


def fits(group: Group) -> bool:
    """Sums of few elements at places that computed stages hold, for channels that the places do not depend on."""
    parts = _anatomy(group)
    if parts is None or not _by_data(parts):
        return False
    op = parts.anchor.op
    tables, free = _tables(group, parts), _channels(parts)
    taps = [extent(a.extent) for a in op.reduce_axis]
    if not tables or None in (*taps, extent(op.axis[-1].extent)) or op.axis[-1].var in free:
        return False
    if product(taps) > MAX_UNROLLED or (not taps and any(expensive(s.op) for s in parts.after)):
        return False  # what comes after is computed one by one
    return not any(s.op.reduce_axis or (s not in tables and expensive(s.op)) for s in parts.before)


def _anatomy(group: Group) -> Anatomy | None:
    """The group's parts; a sum of one element is no reduction, but what reads at computed places."""
    placed = [s for s in group.stages if _placing(s.op)]
    if len(placed) == 1 and not any(s.op.reduce_axis for s in group.stages):
        return anatomy(group, placed[0])
    return anatomy(group)


def _by_data(parts: Anatomy) -> bool:
    """Whether places depend on more than positions."""
    below: set[Operation] = {load.tensor.op for load in _placing(parts.anchor.op)}
    for s in reversed(parts.before):
        if s.op in below:
            below |= {t.op for t in s.op.input_tensors}
    return any(isinstance(op, PlaceholderOp) for op in below)


def _placing(op: ComputeOp) -> list[ProducerLoad]:
    """Reads of computed values in the indices of others."""
    inner = [n for load in loads(op) for n in post_order(*load.indices) if isinstance(n, ProducerLoad)]
    return [n for n in inner if not isinstance(n.tensor.op, PlaceholderOp)]


def _channels(parts: Anatomy) -> set[Var]:
    """Axes of the sums that no place depends on."""
    used = {v for load in _placing(parts.anchor.op) for v in load_vars(load)}
    return {a.var for a in parts.anchor.op.axis} - used


def _tables(group: Group, parts: Anatomy) -> list[Stage]:
    """Stages that the sums read at no channel, and those that several of these read."""
    free = _channels(parts)
    direct: set[Operation] = set()
    for load in loads(parts.anchor.op):
        if isinstance(load.tensor.op, ComputeOp) and not variables(*load.indices) & free:
            direct.add(load.tensor.op)
    below = set(direct)
    for s in reversed(parts.before):
        if s.op in below:
            below |= {t.op for t in s.op.input_tensors}
    return [s for s in parts.before if s.op in direct or (s.op in below and len(set(group.readers.get(s.op, []))) > 1)]


def build(group: Group) -> Plan:
    parts = _anatomy(group)
    assert parts is not None
    op, sch, free, tables = parts.anchor.op, group.sch, _channels(parts), _tables(group, parts)
    if op.reduce_axis:
        block, out = epilogue(group, parts, "register")
    else:
        block = out = group.blocks[parts.out]
        for stage in (parts.anchor, *parts.after):
            if stage.op is not parts.out:
                sch.compute_inline(group.blocks[stage.op])
    names = dict(zip([a.var for a in op.axis], sch.loops(out), strict=True))
    channels = [names[a.var] for a in op.axis if a.var in free]
    around, within = _blocks(group, [a for a in op.axis if a.var not in free], names)
    together = list(sch.split(channels.pop(), [None, _GROUP])) if channels else []
    sch.reorder(*around, *channels, *together[:1], *within, *together[1:])
    for name in together[1:]:
        sch.unroll(name)
    if op.reduce_axis:
        _sums(group, block, within[-1], len(op.axis))
    for stage in reversed(parts.before):
        if stage in tables:
            name = group.blocks[stage.op]
            sch.compute_at(name, around[-1])
            sch.set_scope(name, "local")
            pointwise.copy(group, stage, around[-1])
        else:
            sch.compute_inline(group.blocks[stage.op])
    if product([a.extent for a in (*op.axis, *op.reduce_axis)]) >= PARALLEL_WORK:
        sch.parallel(sch.fuse(*around) if len(around) > 1 else around[0])
    note = f"places and weights of up to {_POSITIONS} positions first, then {_GROUP} channels at a time"
    return Plan(sch.func, "sampled", {"channels": str(_GROUP)}, (note,))


def _blocks(group: Group, axes: Sequence[IterVar], names: dict[Var, str]) -> tuple[list[str], list[str]]:
    """Loops over blocks of positions, and those inside a block: a piece of a line, or several whole ones."""
    sch, loops = group.sch, [names[a.var] for a in axes]
    size = extent(axes[-1].extent) or 1
    blocks, position = sch.split(loops[-1], [None, min(size, _POSITIONS)])
    if size > _POSITIONS or len(axes) < 2:
        return [*loops[:-1], blocks], [position]
    lines = supposed(axes[-2].extent)
    most = max(1, lines * product([a.extent for a in axes[:-2]], 1) // (_PIECES * group.target.cores))
    rows, line = sch.split(loops[-2], [None, min(most, lines, _POSITIONS // size)])
    return [*loops[:-2], blocks, rows], [line, position]


def _sums(group: Group, block: str, at: str, axes: int) -> None:
    """The taps of one position unrolled, the sums of a group of channels in registers."""
    sch = group.sch
    sch.compute_at(block, at)
    below = list(sch.loops(block))
    below = below[below.index(at) + 1 :]
    spatial, reduce = below[:axes], below[axes:]
    sch.reorder(*reduce, *spatial)
    init = sch.decompose_reduction(block, reduce[0])
    start = list(sch.loops(init))
    for name in (*reduce, *spatial, *start[start.index(at) + 1 :]):
        sch.unroll(name)
    sch.set_scope(block, "register")
