"""Sketch for groups without a reduction: one loop nest, the innermost axis in vectors, the outer axes in parallel."""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Node, children
from warpbeam.ir.rewrite import post_order
from warpbeam.sketch import across
from warpbeam.sketch.base import Group, Plan, extent, inline_pointwise, product
from warpbeam.sketch.structure import Stage
from warpbeam.te.tensor import ComputeOp, ProducerLoad, loads
from warpbeam.tir.analysis.access import as_block, as_loop, free_vars
from warpbeam.tir.analysis.tree import tree_of
from warpbeam.tir.arith import linear, prove, simplify
from warpbeam.tir.expr import (
    GE,
    GT,
    LE,
    LT,
    BufferLoad,
    Call,
    Div,
    FloorDiv,
    FloorMod,
    Mod,
    PrimExpr,
    Select,
    as_expr,
    const_int,
    land,
)
from warpbeam.tir.stmt import BufferStore

_MANY = 64
_PIECES = 16  # of a parallel loop for each core
_MOST_CUTS = 8  # of an innermost loop
_SEVERAL = 4  # vectors in an iteration, where there are twice as many
_NARROW = 8  # elements of an innermost axis; of more, each row has vectors of its own
_APART = 4  # operands that do not lie as the result; of more, too


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
    elements = product([a.extent for a in stage.op.axis])
    if len(names) > 1 and flat(group, stage.op):
        names = [sch.fuse(*names)]
        last = product([a.extent for a in stage.op.axis])
    else:
        last = extent(stage.op.axis[-1].extent) or 64
    found = across.find(group, stage) if len(names) == len(stage.op.axis) else None
    if found is not None:
        return across.schedule(group, block, names, found, elements)
    narrow = list(order) == sorted(order) and len(names) == len(stage.op.axis) and _narrow(group, block, names)
    lanes, period = _lanes(group, block, 2 if narrow else 1), 1
    if narrow:
        period, rows = last // gcd(last, lanes), sch.extent(names[-2])
        over = (rows or 0) % (period * lanes // last)  # rows
        narrow = rows is None or over < rows
    if narrow:
        if over:
            _, _, rest = sch.partition(names[-2], rows - over)
            _vectors(group, rest[block], rest[names[-1]], last, lanes)
        last *= rows - over if rows else 64
        names = [*names[:-2], sch.fuse(*names[-2:])]
    else:
        lanes, period = _lanes(group, block), 1
    near = _channels(group, block, names)
    parts = _vectors(group, block, names[-1], last, lanes, period)
    outer = [*names[:-1], *([parts[0][0]] if narrow and len(parts) == 1 else [])]
    if near is not None and len(parts) == 1:
        outer = [*(n for n in names[:-1] if n != near), parts[0][0]]
        sch.reorder(*outer, near)
    if elements >= across.PARALLEL_ELEMENTS and outer:
        keep = enough(group, outer)
        sch.parallel(sch.fuse(*keep) if len(keep) > 1 else keep[0])
    elif elements >= across.PARALLEL_ELEMENTS:
        for part, size in parts:
            if len(parts) == 1 or size >= across.PARALLEL_ELEMENTS:
                sch.parallel(part)
    return f"{block}: {elements} elements, vectors of {lanes}"


def _narrow(group: Group, block: str, names: Sequence[str]) -> bool:
    """Whether the innermost loop has so few elements (channels of pixels) that vectors go over several of its rows: of
    work that reads its operands at places known beforehand, whatever the row.
    """
    if len(names) < 2 or group.target.kind != "llvm":
        return False
    (rows, few), lanes = (group.sch.extent(n) for n in names[-2:]), group.target.lanes("float32")
    found = as_block(tree_of(group.sch.func).block(block))
    if few is None or not 1 < few < min(lanes, _NARROW) or (rows or lanes) * few < 2 * lanes:
        return False
    nodes, own = list(post_order(found.body)), tuple(a.var for a in found.axes[-2:])
    loads = [n for n in nodes if isinstance(n, BufferLoad)]
    fixed = not any(isinstance(n, BufferLoad | Call) for n in post_order(*(i for n in loads for i in n.indices)))
    apart = sum(n.indices[-2:] != own for n in loads)  # whose vectors are put together
    return fixed and apart <= _APART and not any(isinstance(n, Call) and n.op == "if_then_else" for n in nodes)


def _channels(group: Group, block: str, names: Sequence[str]) -> str | None:
    """The loop over a few neighbours in memory (channels of pixels) at which a read is that steps over them in the
    innermost loop: some vectors of each in turn use what was loaded for all.
    """
    tree = tree_of(group.sch.func)
    found = as_block(tree.block(block))
    axes: dict[Any, Any] = {v: a.var for a, v in zip(found.axes, found.bindings, strict=True)}
    own = {axes.get(as_loop(tree.loop(n)).var): n for n in names}
    for n in post_order(found.body):
        if isinstance(n, BufferLoad) and len(n.indices) > 1:
            few, along = own.get(n.indices[-1], names[-1]), names[-1] in {own.get(v) for v in free_vars(n.indices[-2])}
            if along and few != names[-1] and 1 < (group.sch.extent(few) or 0) < _NARROW:
                return few
    return None


def _lanes(group: Group, block: str, axes: int = 1) -> int:
    """Elements of a block's vectors, which go over its last axes: as many as fill a register in the widest type that
    each of them goes through, but no fewer than of float32.
    """
    least = group.target.lanes("float32")
    if group.target.kind != "llvm":
        return least  # other compilers take vectors apart
    found = as_block(tree_of(group.sch.func).block(block))
    own = {a.var for a in found.axes[-axes:]}
    below: dict[Node, bool] = {}
    widest = 1
    for n in post_order(found.body, enter=lambda n: not isinstance(n, BufferLoad)):
        if isinstance(n, BufferLoad):
            below[n] = any(not own.isdisjoint(free_vars(i)) for i in n.indices)
        else:
            below[n] = any(below.get(c, False) for c in children(n))
        if below[n]:
            widest = max(widest, _bytes(n))
    return max(least, group.target.vector_bits // (8 * widest))


def _bytes(n: Node) -> int:
    """What an element takes in registers while an expression is computed; divisions go one by one."""
    if isinstance(n, BufferStore | Div | Mod | FloorDiv | FloorMod):
        return dt.nbytes(n.buffer.dtype) if isinstance(n, BufferStore) else 4
    if not isinstance(n, PrimExpr):
        return 1
    moves = isinstance(n, BufferLoad | Select) or (isinstance(n, Call) and n.op == "if_then_else")
    return dt.nbytes(n.dtype) if moves or not dt.is_float(n.dtype) else max(4, dt.nbytes(n.dtype))


def _vectors(group: Group, block: str, name: str, last: int, lanes: int, period: int = 1) -> list[tuple[str, int]]:
    """The innermost loop in vectors, piece by piece; gives the loops over vectors, with the elements of each.

    period: of so many vectors each may read another pattern; they are written out. What several vectors at once leave
    over is a piece of its own, which ends with a shorter vector. Of an open size the rest goes one by one.
    """
    outer, sch = [], group.sch
    for piece, size in pieces(group, block, name, last):
        known = sch.extent(piece)
        size = size if known is None else known
        wide = lanes if known is not None else min(lanes, group.target.lanes("float32"))
        several = period if period > 1 else _SEVERAL if size >= 2 * _SEVERAL * wide else 1
        whole = size - size % (several * wide)
        parts = [(piece, size)]
        if several > 1 and 0 < whole < size and known is not None:
            first, rest, _ = sch.partition(piece, whole)
            parts = [(first, whole), (rest, size - whole)]
        for part, count in parts:
            if count >= 2:
                least = several if period > 1 or count == whole or len(parts) == 1 else 1
                inner = list(sch.split(part, [None, least, wide] if least > 1 else [None, wide]))
                sch.vectorize(inner[-1])
                if period > 1:
                    sch.unroll(inner[1])
                part = inner[0]
            outer.append((part, count))
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


def enough(group: Group, names: list[str]) -> list[str]:
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
    found = across.find(group, stage)
    if found is not None:
        across.schedule(group, block, names, found, 0)
    else:
        _vectors(group, block, names[-1], extent(stage.op.axis[-1].extent) or 64, _lanes(group, block))
