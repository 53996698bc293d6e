"""Sketch for groups without a reduction: one loop nest, the innermost axis in vectors, the outer axes in parallel."""

from __future__ import annotations

from collections.abc import Sequence

from warpbeam.ir.rewrite import post_order
from warpbeam.sketch import across
from warpbeam.sketch.base import Group, Plan, extent, inline_pointwise, product
from warpbeam.sketch.structure import Stage
from warpbeam.te.tensor import ComputeOp, ProducerLoad, loads
from warpbeam.tir.analysis.access import as_block, as_loop, free_vars
from warpbeam.tir.analysis.tree import tree_of
from warpbeam.tir.arith import linear, prove, simplify
from warpbeam.tir.expr import GE, GT, LE, LT, PrimExpr, as_expr, const_int, land
from warpbeam.tir.stmt import BufferStore

_MANY = 64
_PIECES = 16  # of a parallel loop for each core
_MOST_CUTS = 8  # of an innermost loop


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
    found = across.find(group, stage) if len(names) == len(stage.op.axis) else None
    if found is not None:
        return across.schedule(group, block, names, found, elements)
    parts = _vectors(group, block, names[-1], last, lanes)
    if elements >= across.PARALLEL_ELEMENTS and len(names) > 1:
        keep = _enough(group, names[:-1])
        sch.parallel(sch.fuse(*keep) if len(keep) > 1 else keep[0])
    elif elements >= across.PARALLEL_ELEMENTS:
        for part, size in parts:
            if len(parts) == 1 or size >= across.PARALLEL_ELEMENTS:
                sch.parallel(part)
    return f"{block}: {elements} elements, vectors of {lanes}"


def _vectors(group: Group, block: str, name: str, last: int, lanes: int) -> list[tuple[str, int]]:
    """The innermost loop in vectors, piece by piece; gives the loops over vectors, with the elements of each."""
    outer = []
    for piece, size in pieces(group, block, name, last):
        if size >= 2:
            inner = list(group.sch.split(piece, [None, 4, lanes] if size >= 8 * lanes else [None, lanes]))
            group.sch.vectorize(inner[-1])
            piece = inner[0]
        outer.append((piece, size))
    return outer


def pieces(group: Group, block: str, name: str, last: int) -> list[tuple[str, int]]:
    """The innermost loop cut where a condition of its variable changes (the parts of a concatenation, borders), with
    the pieces' sizes: each piece is free of that condition, and goes in vectors.
    """
    cuts = _cuts(group, block, name)
    if not 0 < len(cuts) <= _MOST_CUTS:
        return [(name, last)]
    found: list[tuple[str, int]] = []
    start: PrimExpr = as_expr(0)
    for at in cuts:
        length = simplify(at - start)
        _, rest, _ = group.sch.partition(name, length)
        found.append((name, _likely(length, last)))
        name, start = rest, at
    return [*found, (name, _likely(group.sch.loop(name).extent, last))]


def _likely(length: PrimExpr, last: int) -> int:
    """What a length is taken to be: an open one, as much as all of the axis."""
    size = const_int(length)
    return last if size is None else size


def _cuts(group: Group, block: str, name: str) -> list[PrimExpr]:
    """Places that conditions compare a block's innermost variable to, known to be inside the range of its loop:
    constants, and expressions of open sizes. In their order; none where that is not known.
    """
    tree = tree_of(group.sch.func)
    found, loop = as_block(tree.block(block)), as_loop(tree.loop(name))
    own = [a.var for a, v in zip(found.axes, found.bindings, strict=True) if v is loop.var]
    if not isinstance(found.body, BufferStore):  # several results at once
        return []
    cuts: dict[PrimExpr, None] = {}
    for n in post_order(found.body.value):
        if isinstance(n, LT | LE | GT | GE) and own:
            form = linear(n.a - n.b, own)
            by = None if form is None else const_int(form[0].get(own[0], 0))
            if form is not None and by in (1, -1):  # by * v + start compared to 0
                at = as_expr(form[1]) * -by
                cuts[simplify(at + 1 if isinstance(n, (LE, GT) if by == 1 else (LT, GE)) else at)] = None
    return _in_order([c for c in cuts if _inside(c, loop.extent)])


def _inside(place: PrimExpr, size: PrimExpr) -> bool:
    """Whether a place is the same in every iteration, and between the ends of a loop, of which it is neither."""
    if not all(v.nonneg for v in free_vars(place)) or 0 in (const_int(place), const_int(simplify(size - place))):
        return False
    return prove(land(place >= 0, place <= size)) is True


def _in_order(places: list[PrimExpr]) -> list[PrimExpr]:
    """Different places, ascending; none where the order of some is not known."""
    out: list[PrimExpr] = []
    for new in places:
        k = 0
        while k < len(out) and prove(out[k] <= new) is True:
            k += 1
        if k < len(out) and prove(new <= out[k]) is not True:
            return []
        out.insert(k, new)
    return out


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


def copy(group: Group, stage: Stage, at: str | None) -> None:
    """Schedules a stage whose loops stand inside loop `at` (None: on its own) on one core."""
    sch, block = group.sch, group.blocks[stage.op]
    names = list(sch.loops(block))
    names = names[names.index(at) + 1 :] if at is not None else names
    lanes = max(1, group.target.vector_bits // 32)
    found = across.find(group, stage)
    if found is not None:
        across.schedule(group, block, names, found, 0)
    else:
        _vectors(group, block, names[-1], extent(stage.op.axis[-1].extent) or 64, lanes)
