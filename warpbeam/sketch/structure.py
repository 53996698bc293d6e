"""What shape a computation has, found from its index maps alone: no operator name is read here or in any sketch.

A te DAG is a list of stages. Each stage is one of
- "elementwise": every read is at the stage's own axes in their order (some may be missing or read at 0: broadcast);
- "injective": no reduction, arbitrary reads;
- "contraction": a sum whose source is a product of two reads, one of which carries spatial axes the other lacks;
- "window": a reduction whose source reads one tensor at (spatial + reduce) affine indices, e.g. pooling or depthwise;
- "row": a reduction over the trailing axes of what it reads.
- "reduce": any other reduction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from warpbeam.ir.rewrite import post_order
from warpbeam.te.tensor import ComputeOp, ProducerLoad, Reduce, Tensor, loads, operations
from warpbeam.tir.expr import Add, Cast, IntImm, Mul, PrimExpr, Var


@dataclass(frozen=True, slots=True)
class Stage:
    """One ComputeOp with its kind."""

    op: ComputeOp
    kind: str


@dataclass(frozen=True, slots=True)
class Contraction:
    """Axes of a sum of products by role; `lhs` is the operand without the innermost output axis where there is one.

    batch: spatial axes both operands read; m: only lhs; n: only rhs; k: reduce axes.
    """

    lhs: ProducerLoad
    rhs: ProducerLoad
    batch: tuple[Var, ...]
    m: tuple[Var, ...]
    n: tuple[Var, ...]
    k: tuple[Var, ...]


def strip_casts(expr: PrimExpr) -> PrimExpr:
    """The expression below value conversions."""
    while isinstance(expr, Cast):
        expr = expr.value
    return expr


def variables(*exprs: PrimExpr) -> set[Var]:
    """Index variables below the expressions, those of nested loads included."""
    return {n for n in post_order(*exprs) if isinstance(n, Var)}


def load_vars(load: ProducerLoad) -> set[Var]:
    return variables(*load.indices)


def is_sum(reduce: Reduce) -> bool:
    """Whether the reduction is a plain sum of one value from zero."""
    comb = reduce.combiner
    if len(reduce.source) != 1 or reduce.init or not isinstance(reduce.condition, IntImm):
        return False
    out = comb.result[0]
    return isinstance(out, Add) and {out.a, out.b} == {comb.lhs[0], comb.rhs[0]}


def contraction(op: ComputeOp) -> Contraction | None:
    """The roles of a sum of products' axes, or None if `op` is not a contraction."""
    body = op.body[0]
    if len(op.body) != 1 or not isinstance(body, Reduce) or not is_sum(body):
        return None
    source = strip_casts(body.source[0])
    if not isinstance(source, Mul):
        return None
    a, b = strip_casts(source.a), strip_casts(source.b)
    if not isinstance(a, ProducerLoad) or not isinstance(b, ProducerLoad):
        return None
    spatial = [x.var for x in op.axis]
    reduced = {x.var for x in body.axis}
    va, vb = load_vars(a), load_vars(b)
    if not (va & vb & reduced):
        return None
    only_a = [v for v in spatial if v in va and v not in vb]
    only_b = [v for v in spatial if v in vb and v not in va]
    if not only_b or (spatial and spatial[-1] in only_a):
        a, b, only_a, only_b, va, vb = b, a, only_b, only_a, vb, va
    if not only_b or spatial[-1] not in only_b:
        return None
    both = tuple(v for v in spatial if v in va and v in vb)
    return Contraction(a, b, both, tuple(only_a), tuple(only_b), tuple(x.var for x in body.axis))


def _own_index(load: ProducerLoad, axes: Sequence[Var]) -> bool:
    """Whether a read is at some of the stage's axes in their order, 0 where broadcast."""
    at = 0
    for index in load.indices:
        if isinstance(index, IntImm) and index.value == 0:
            continue
        while at < len(axes) and axes[at] is not index:
            at += 1
        if at == len(axes):
            return False
        at += 1
    return True


def classify(op: ComputeOp) -> str:
    """The kind of one stage (see the module's text)."""
    axes = [a.var for a in op.axis]
    found = [n for n in post_order(*op.body) if isinstance(n, ProducerLoad)]
    if not op.reduce_axis:
        return "elementwise" if all(_own_index(x, axes) for x in found) else "injective"
    if contraction(op) is not None:
        return "contraction"
    reduced = [a.var for a in op.reduce_axis]
    if _is_row(found, axes, reduced):
        return "row"
    return "window" if _is_window(found, set(axes), set(reduced)) else "reduce"


def _is_row(found: list[ProducerLoad], axes: list[Var], reduced: list[Var]) -> bool:
    """Whether every read that carries reduce axes is at (own leading axes, reduce axes in order)."""
    for load in found:
        if not load_vars(load) & set(reduced):
            continue
        lead, tail = load.indices[: -len(reduced)], load.indices[-len(reduced) :]
        if len(tail) != len(reduced) or not all(t is r for t, r in zip(tail, reduced, strict=True)):
            return False
        if not all(i is a or (isinstance(i, IntImm) and i.value == 0) for i, a in zip(lead, axes, strict=False)):
            return False
    return True


def is_strided_row(op: ComputeOp) -> bool:
    """Whether a reduction goes over the last axis of what it reads, and over others that stand between its own: a row
    is several pieces of memory, each read from end to end.
    """
    axes, reduced = [a.var for a in op.axis], [a.var for a in op.reduce_axis]
    for load in loads(op):
        own = [i for i in load.indices if not (isinstance(i, IntImm) and i.value == 0)]
        if not load_vars(load) & set(reduced):
            continue
        if own[-1] is not reduced[-1] or not all(_in_order(own, some) for some in (axes, reduced)):
            return False
        if not all(i in axes or i in reduced for i in own):
            return False
    return True


def _in_order(indices: Sequence[PrimExpr], axes: Sequence[Var]) -> bool:
    """Whether those indices that are axes follow each other as the axes do."""
    at = [axes.index(i) for i in indices if i in axes]
    return at == sorted(set(at))


def kept_places(op: ComputeOp, found: Sequence[Stage], rank: int) -> list[int]:
    """Which axes of stages with `rank` axes are those of a reduction: the axes at which they read what is made of it;
    the first ones where none does.
    """
    for stage in found:
        axes = [a.var for a in stage.op.axis]
        for load in loads(stage.op) if len(axes) == rank > len(op.axis) else ():
            at = [axes.index(i) for i in load.indices if i in axes]
            if len(at) == len(op.axis) == len(load.indices) and op in operations([load.tensor]):
                return at
    return list(range(len(op.axis)))


def _is_window(found: list[ProducerLoad], axes: set[Var], reduced: set[Var]) -> bool:
    for load in found:
        for index in load.indices:
            used = variables(index)
            if used & axes and used & reduced:
                return True
    return False


def stages(outputs: Sequence[Tensor]) -> list[Stage]:
    """The compute stages below the outputs, producers first."""
    return [Stage(op, classify(op)) for op in operations(list(outputs)) if isinstance(op, ComputeOp)]


def row_key(op: ComputeOp) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """(leading extents, reduced extents) of a row reduction."""
    reduced = tuple(_dim(a.extent) for a in op.reduce_axis)
    lead = tuple(_dim(a.extent) for a in op.axis)
    while lead and len(lead) and lead[-1] == 1 and isinstance(lead[-1], int):
        lead = lead[:-1]
    return lead, reduced


def _dim(extent: PrimExpr) -> Any:
    return extent.value if isinstance(extent, IntImm) else extent
