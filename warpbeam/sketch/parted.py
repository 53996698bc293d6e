"""Sketch for one long reduction to few results, which leave most cores without work: it is cut into parts.

    for parts (parallel), rows:
        part[p] = sum of x[p * size + k]                    as rows: lanes gather partial results
    out = sum of part, and of what parts leave over         small, on one core

Where results lie along what is read (sums of columns), a part is read from end to end as `streamed` does. How many
parts there are is a matter of the sizes alone: terms are added in the same order for any number of cores.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import substitute
from warpbeam.sketch import pieces, streamed
from warpbeam.sketch.base import Group, Plan, extent, product
from warpbeam.sketch.structure import Stage
from warpbeam.te.tensor import ComputeOp, ProducerLoad, Reduce, Tensor
from warpbeam.tir.expr import IntImm, PrimExpr, Var, as_expr, if_then_else
from warpbeam.tir.stmt import IterVar

_ELEMENTS = 1 << 15  # of a part: a microsecond of one core, or some
_LEAST_PARTS = 8  # so many elements there must be
_FEWEST = 4  # parts, as long as each must be, that are worth it
_MOST_PARTS = 256
_FEW = 16  # rows, or panels of columns, that leave cores without work
_PANEL = 16 << 10  # bytes of a row
_NARROW = 256  # bytes of several rows' columns: tiles take those of some rows side by side
_PLANE = 1 << 20  # bytes that one of several rows sums up: less is near, and cores have rows of their own
_LONG = 128  # rows of a part, about, next to which what is written for it counts for little


@dataclass(frozen=True, slots=True)
class Cut:
    """A reduction's first axis as `count` parts of `size`, and `rest` elements."""

    heavy: Stage
    count: int
    size: int
    rest: int


def fits(group: Group) -> bool:
    """One reduction of known size, its result as it is or after elementwise work, with more to read than is worth
    the cores' while, and few rows.
    """
    return group.target.threads and find(group) is not None


def find(group: Group) -> Cut | None:
    """How the reduction is cut; None where it is not."""
    heavy = [s for s in group.stages if s.op.reduce_axis]
    if len(heavy) != 1 or len(group.outputs) != 1 or any(len(s.op.body) != 1 for s in group.stages):
        return None
    stage, out = heavy[0], group.outputs[0].op
    op, body = stage.op, stage.op.body[0]
    assert isinstance(out, ComputeOp) and isinstance(body, Reduce)
    plain = not body.init and isinstance(body.condition, IntImm)
    if not plain or any(s.kind != "elementwise" for s in group.stages if s is not stage):
        return None
    sizes = [extent(a.extent) for a in (*op.axis, *op.reduce_axis)]
    if None in sizes or [extent(a.extent) for a in op.axis] != [extent(a.extent) for a in out.axis]:
        return None
    rows = _rows(stage)
    total, length = product([a.extent for a in (*op.axis, *op.reduce_axis)]), extent(op.reduce_axis[0].extent) or 1
    if rows is None or rows >= _FEW or total < _LEAST_PARTS * _ELEMENTS:
        return None
    longest = length if stage.kind == "row" else product([a.extent for a in op.reduce_axis]) // _LONG
    return _cut(stage, length, min(total // _ELEMENTS, _MOST_PARTS // rows, longest), longest)


def _rows(stage: Stage) -> int | None:
    """Pieces that cores could share as it is; None where the reduction reads in another way than by rows."""
    op = stage.op
    if stage.kind == "row":
        return product([a.extent for a in op.axis])
    if stage.kind != "reduce" or not op.axis or not streamed.read_once(stage):
        return None
    size, rows = product([op.axis[-1].extent]) * dt.nbytes(op.body[0].dtype), product([a.extent for a in op.axis[:-1]])
    if rows > 1 and (size < _NARROW or product([a.extent for a in op.reduce_axis]) * size < _PLANE):
        return None
    return rows * -(-size // _PANEL)


def _cut(stage: Stage, length: int, wanted: int, longest: int) -> Cut | None:
    """About so many parts of an axis, and not more than `longest`: without a rest if half to twice as many allow it,
    and with as many powers of two in their number as possible, up to eight: most numbers of cores have equal shares.
    """
    if wanted < _FEWEST:
        return None
    most = min(2 * wanted, longest, length // 2)
    near = sorted(range(wanted // 2, most + 1), key=lambda n: (-gcd(n, 8), abs(n - wanted), n))
    even = next((n for n in near if length % n == 0), 0)
    if even:
        return Cut(stage, even, length // even, 0)
    if len(stage.op.reduce_axis) > 1:
        return None
    wanted -= wanted % 8 if wanted > 8 else 0
    return Cut(stage, wanted, length // wanted, length % wanted)


def build(group: Group) -> Plan:
    cut = find(group)
    assert cut is not None
    part, total, out = _in_parts(group, cut)
    new = Group(group.inputs, [out], group.target, group.constants, group.name)
    for stage in new.stages:
        if not stage.op.reduce_axis and stage.op is not out.op:
            new.sch.compute_inline(new.blocks[stage.op])
    if cut.heavy.kind != "row":
        streamed.panels(new, part, new.sch.cache_write(new.blocks[part], "local"))
        alone = total is out.op
        last = new.sch.cache_write(new.blocks[total], "local") if alone else new.blocks[out.op]
        streamed.panels(new, total, last, shared=False)
    else:
        _rows_of_parts(new, part, pieces.lanes_of(new, part))
        if not cut.rest:
            pieces.reduction(new, new.blocks[total], total)
    return Plan(new.sch.func, "parted", {"parts": cut.count}, ("parts of a long reduction on all cores",))


def _in_parts(group: Group, cut: Cut) -> tuple[ComputeOp, ComputeOp, Tensor]:
    """(The reduction of each part, that of the parts, the group's output made of it)."""
    op = cut.heavy.op
    body = op.body[0]
    assert isinstance(body, Reduce)
    first, *others = op.reduce_axis
    p, k, q = (Var(f"{first.var.name}_{end}", first.var.dtype) for end in ("part", "in", "of"))
    source = body.source[0]
    own = [IterVar(Var(a.var.name, a.var.dtype), a.extent) for a in op.axis]
    moved = {**{a.var: b.var for a, b in zip(op.axis, own, strict=True)}, first.var: p * cut.size + k}
    axes = (IterVar(k, as_expr(cut.size), "reduce"), *others)
    inside = _reduce(body, substitute(source, moved), axes)
    part = ComputeOp(f"{op.name}_part", (IterVar(p, as_expr(cut.count)), *own), (inside,), op.attrs)
    value: PrimExpr = ProducerLoad(part.output(0), (q, *(a.var for a in op.axis)))
    if cut.rest:
        behind = substitute(source, {first.var: q + (cut.count * cut.size - cut.count)})
        value = if_then_else(q < cut.count, value, behind)
    of = (IterVar(q, as_expr(cut.count + cut.rest), "reduce"),)
    total = ComputeOp(op.name, op.axis, (_reduce(body, value, of),), op.attrs)
    changed = {op.output(0): total.output(0)}
    for stage in group.stages:
        if stage.op is not op:
            new = stage.op.replace_inputs(changed)
            changed[stage.op.output(0)] = new.output(0)
    out = group.outputs[0]
    return part, total, changed.get(out, out)


def _reduce(body: Reduce, source: PrimExpr, axes: tuple[IterVar, ...]) -> Reduce:
    return Reduce(body.combiner, (source,), axes, body.condition, body.value_index, body.init)


def _rows_of_parts(group: Group, part: ComputeOp, lanes: int) -> None:
    """Each row of each part by itself."""
    sch, block = group.sch, group.blocks[part]
    names = list(sch.loops(block))
    outer, inner = names[: len(part.axis)], names[len(part.axis) :]
    row = sch.fuse(*outer) if len(outer) > 1 else outer[0]
    sch.parallel(row)
    sch.annotate(row, "joined", row)
    sch.decompose_reduction(block, inner[0])
    for piece in pieces.cut(group, block, inner[-1], lanes, pieces.MOST):
        pieces.partial(group, piece)
