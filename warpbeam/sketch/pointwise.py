"""Sketch for groups without a reduction: one loop nest, the innermost axis in vectors, the outer axes in parallel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

from warpbeam.cost.tile_prior import WAY_BYTES
from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import post_order
from warpbeam.sketch.base import Group, Plan, extent, inline_pointwise, product
from warpbeam.sketch.structure import Stage
from warpbeam.te.tensor import ComputeOp, ProducerLoad, Tensor, loads
from warpbeam.tir.analysis.access import as_block, as_loop
from warpbeam.tir.analysis.tree import tree_of
from warpbeam.tir.arith import linear
from warpbeam.tir.expr import GE, GT, LE, LT, BufferLoad, Call, const_int
from warpbeam.tir.stmt import BufferStore
from warpbeam.tir.transform.bypass_caches import past_caches

_PARALLEL_ELEMENTS = 16384
_MANY = 64
_PIECES = 16  # of a parallel loop for each core
_MOST_CUTS = 8  # of an innermost loop
_TASKS = 4  # iterations of a parallel loop for each core that blocks taken together leave
_STRIPS = 4  # blocks along the source's rows
_TOGETHER = (8, 4)  # blocks along the source's rows, and along the result's, where that goes past the caches
_CROWDED = 2048  # rows that are a multiple of this apart have two places there at most


def fits(group: Group) -> bool:
    return all(s.kind in ("elementwise", "injective") for s in group.stages)


def flat(group: Group, out: ComputeOp) -> bool:
    """Whether every read in the group has the output's whole shape (or is a scalar) and nothing depends on a position,
    so that all axes may be fused.
    """
    shape = [extent(a.extent) for a in out.axis]
    if None in shape:
        return False
    for stage in group.stages:
        if stage.kind != "elementwise" or [extent(a.extent) for a in stage.op.axis] != shape:
            return False
        own = {a.var for a in stage.op.axis}
        if any(n in own for n in post_order(*stage.op.body, enter=lambda n: not isinstance(n, ProducerLoad))):
            return False
        for load in loads(stage.op):
            dims = [extent(s) for s in load.tensor.shape]
            if dims != shape and product(load.tensor.shape) != 1:
                return False
    return True


def build(group: Group) -> Plan:
    """Every output stage gets its own nest; intermediates are inlined."""
    inline_pointwise(group)
    notes = []
    for stage in group.stages:
        if group.is_output(stage.op):
            notes.append(nest(group, stage))
    return Plan(group.sch.func, "pointwise", {}, tuple(notes))


def nest(group: Group, stage: Stage, order: Sequence[int] = ()) -> str:
    """Schedules one pointwise output stage; returns what was done. order: of all axes but the innermost, if it is not
    that of memory.
    """
    sch, block = group.sch, group.blocks[stage.op]
    names = list(sch.loops(block))
    if list(order) != sorted(order):
        names = [*(names[k] for k in order), names[-1]]
        sch.reorder(*names)
    if not names:
        return f"{block}: one element"
    lanes = max(1, group.target.vector_bits // 32)
    elements = product([a.extent for a in stage.op.axis])
    if len(names) > 1 and flat(group, stage.op):
        names = [sch.fuse(*names)]
        last = product([a.extent for a in stage.op.axis])
    else:
        last = extent(stage.op.axis[-1].extent) or 64
    across = _across(group, stage) if len(names) == len(stage.op.axis) else None
    if across is not None:
        return _blocked(group, block, names, across, lanes, elements)
    vectors = _vectors(group, block, names[-1], last, lanes)
    if elements >= _PARALLEL_ELEMENTS:
        keep = _enough(group, names[:-1] or vectors)
        sch.parallel(sch.fuse(*keep) if len(keep) > 1 else keep[0])
    return f"{block}: {elements} elements, vectors of {lanes}"


def _vectors(group: Group, block: str, name: str, last: int, lanes: int) -> list[str]:
    """The innermost loop in vectors, piece by piece; gives what is left of it as a loop, if that is one."""
    outer = []
    cut = pieces(group, block, name, last)
    for piece, size in cut:
        if size >= 2:
            inner = list(group.sch.split(piece, [None, 4, lanes] if size >= 8 * lanes else [None, lanes]))
            group.sch.vectorize(inner[-1])
            piece = inner[0]
        outer.append(piece)
    return outer if len(cut) == 1 else []


def pieces(group: Group, block: str, name: str, last: int) -> list[tuple[str, int]]:
    """The innermost loop cut where a condition of its variable changes (the parts of a concatenation, borders), with
    the pieces' sizes: each piece is free of that condition, and goes in vectors.
    """
    cuts = _cuts(group, block, name) if len(group.sch.loops(block)) > 1 else []
    if not 0 < len(cuts) <= _MOST_CUTS:
        return [(name, last)]
    found, start = [], 0
    for at in cuts:
        _, rest, _ = group.sch.partition(name, at - start)
        found.append((name, at - start))
        name, start = rest, at
    return [*found, (name, last - start)]


def _cuts(group: Group, block: str, name: str) -> list[int]:
    """Constants that conditions compare a block's innermost variable to, inside the range of its loop."""
    tree = tree_of(group.sch.func)
    found, loop = as_block(tree.block(block)), as_loop(tree.loop(name))
    size = const_int(loop.extent)
    own = [a.var for a, v in zip(found.axes, found.bindings, strict=True) if v is loop.var]
    assert isinstance(found.body, BufferStore)
    cuts = set()
    for n in post_order(found.body.value):
        if isinstance(n, LT | LE | GT | GE) and own:
            form = linear(n.a - n.b, own)
            by, start = (None, None) if form is None else (const_int(form[0].get(own[0], 0)), const_int(form[1]))
            if by in (1, -1) and start is not None:  # by * v + start compared to 0
                at = -start * by
                cuts.add(at + 1 if isinstance(n, (LE, GT) if by == 1 else (LT, GE)) else at)
    return sorted(c for c in cuts if size is not None and 0 < c < size)


def _enough(group: Group, names: list[str]) -> list[str]:
    """The outermost loops that together have pieces enough for all cores: index arithmetic of more would be wasted.

    An open size is taken to be 1 in front (a batch) and many further in.
    """
    pieces = 1
    for k, name in enumerate(names):
        pieces *= group.sch.extent(name) or (_MANY if k else 1)
        if pieces >= _PIECES * group.target.cores:
            return names[: k + 1]
    return names


@dataclass(frozen=True, slots=True)
class Across:
    """A read along axis `at` of a stage, from the tensor `source`.

    along: whether blocks go along the source's rows: only those are so far apart that their lines share few places of
    the nearest cache. far: whether the result is one that goes past the caches.
    """

    at: int
    source: str
    along: bool
    far: bool


def _across(group: Group, stage: Stage) -> Across | None:
    """The axis of a stage along which a read is contiguous while the innermost one strides through it (a transpose):
    one of its own, or of what is inlined, if that is no matter of a condition.
    """
    found = as_block(tree_of(group.sch.func).block(group.blocks[stage.op]))
    always = post_order(found.body, enter=lambda n: not (isinstance(n, Call) and n.op == "if_then_else"))
    reads = [(a.var for a in stage.op.axis), (a.var for a in found.axes)]
    for axes, loaded in zip(reads, (loads(stage.op), always), strict=True):
        *outer, last = axes
        for load in loaded:
            if not isinstance(load, ProducerLoad | BufferLoad) or not any(i is last for i in load.indices[:-1]):
                continue
            at = next((k for k, v in enumerate(outer) if v is load.indices[-1]), None)
            if at is not None and all((extent(stage.op.axis[k].extent) or 8) >= 8 for k in (at, -1)):
                tensor = load.tensor if isinstance(load, ProducerLoad) else load.buffer
                behind = next(k for k, i in enumerate(load.indices) if i is last) + 1
                size = dt.nbytes(load.dtype)
                source = gcd(size * product(tensor.shape[behind:]), WAY_BYTES)
                own = gcd(size * product([a.extent for a in stage.op.axis[at + 1 :]]), WAY_BYTES)
                name = tensor.op.name if isinstance(tensor, Tensor) else tensor.name
                return Across(at, name, source >= _CROWDED > own, _far(group, stage))
    return None


def _far(group: Group, stage: Stage) -> bool:
    """Whether whole rows of a stage's result, in whole lines, go past the caches."""
    shapes = [t.shape for t in group.inputs] + [t.shape for t in group.outputs]
    if any(extent(n) is None for shape in shapes for n in shape) or not group.is_output(stage.op):
        return False
    size = dt.nbytes(stage.op.body[0].dtype)
    total = sum(product(t.shape) * dt.nbytes(t.dtype) for t in (*group.inputs, *group.outputs))
    own = [a.extent for a in stage.op.axis]
    return product(own[-1:]) * size % group.target.line == 0 and past_caches(group.target, product(own) * size, total)


def copy(group: Group, stage: Stage, at: str | None) -> None:
    """Schedules a stage whose loops stand inside loop `at` (None: on its own) on one core."""
    sch, block = group.sch, group.blocks[stage.op]
    names = list(sch.loops(block))
    names = names[names.index(at) + 1 :] if at is not None else names
    lanes = max(1, group.target.vector_bits // 32)
    across = _across(group, stage)
    if across is not None:
        _blocked(group, block, names, across, lanes, 0)
    else:
        _vectors(group, block, names[-1], extent(stage.op.axis[-1].extent) or 64, lanes)


def _blocked(group: Group, block: str, names: list[str], across: Across, lanes: int, elements: int) -> str:
    """Square blocks of a transpose, so that each line of the source is used up while it is near; one after the other
    along the result's rows, or first a few `along` those of the source.

    Where the result goes past the caches, some blocks each way are taken together: several lines of each row are
    stored at once, and several of each of the source's are asked for, row by row, while the blocks before are turned.
    """
    sch, cores = group.sch, group.target.cores
    strips, panels = _TOGETHER if across.far else (_STRIPS if across.along else 1, 1)
    pieces = product([sch.extent(n) for k, n in enumerate(names[:-1]) if k != across.at])
    while across.far and strips > 1 and pieces * (sch.extent(names[across.at]) or 0) < strips * lanes * _TASKS * cores:
        strips //= 2
    strip, near, row = sch.split(names[across.at], [None, strips, lanes])
    panel, beside, lane = sch.split(names[-1], [None, panels, lanes])
    outer = [*(n for k, n in enumerate(names[:-1]) if k != across.at), strip]
    sch.reorder(*outer, panel, near, beside, row, lane)
    sch.vectorize(lane)
    if across.far and any(t.op.name == across.source for t in group.inputs):
        sch.prefetch(panel, across.source, 1, beside)
    if elements >= _PARALLEL_ELEMENTS:
        sch.parallel(sch.fuse(*outer) if len(outer) > 1 else outer[0])
    order = " some each way" if across.far else " along the source" if across.along else ""
    return f"{block}: {elements} elements, blocks of {lanes} x {lanes}{order}"
