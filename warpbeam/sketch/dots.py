"""Sketch for what is summed along rows of all it reads: products of few rows with a right operand that is no constant,
y = W x, and reductions of one operand over its innermost axis and others (those over the innermost alone are `rows`).

    for columns n (parallel):
        for rows m:
            acc[vectors] = 0                                        registers
            for k in vectors: acc += lhs[m, k] * rhs[n, k]
            out[m, n] = epilogue(sum of acc)

Operands are read from end to end, in the order in which they lie; with so few rows memory sets the pace. To turn the
right operand first, as is done for more rows, would read and write it once more.
"""

from __future__ import annotations

from warpbeam.sketch import dot, pieces
from warpbeam.sketch.base import Group, Plan, extent, product
from warpbeam.sketch.structure import Contraction, contraction, load_vars
from warpbeam.sketch.tile import Anatomy, anatomy, epilogue
from warpbeam.te.tensor import ComputeOp, loads
from warpbeam.tir.expr import Var

MOST_ROWS = 6
_PARALLEL_PRODUCTS = 65536


def find(group: Group) -> tuple[Anatomy, list[Var], list[Var]] | None:
    """The parts of such a group, its axes as they are walked, and those of them that threads share; None where the
    group is no such one.
    """
    parts = anatomy(group)
    if parts is None or parts.before:
        return None
    op = parts.anchor.op
    least, size = 2 * pieces.lanes_of(group, op), extent(op.reduce_axis[-1].extent)
    reads, roles = list(loads(op)), contraction(op)
    along = all(x.indices and x.indices[-1] is op.reduce_axis[-1].var for x in reads)
    if not along or least < 4 or (size is not None and size < least):
        return None
    if roles is not None:
        return (parts, *walk) if (walk := _product(group, op, roles)) else None
    axes = [a.var for a in op.axis]
    return (parts, axes, axes) if len(reads) == 1 and load_vars(reads[0]) >= set(axes) else None


def _product(group: Group, op: ComputeOp, roles: Contraction) -> tuple[list[Var], list[Var]] | None:
    """The axes of a product as they are walked, and those that threads share; None where it has too many rows, or a
    constant operand, which can be laid out otherwise.
    """
    rows = product([a.extent for a in op.axis if a.var in roles.m], unknown=MOST_ROWS + 1)
    known = any(x.tensor.op.name in group.constants for x in (roles.lhs, roles.rhs))
    if len(roles.n) != 1 or len(roles.k) != 1 or known or rows > MOST_ROWS or dot.find(group, op, roles) is not None:
        return None
    return [*roles.batch, *roles.n, *roles.m], [*roles.batch, *roles.n]


def fits(group: Group) -> bool:
    return find(group) is not None


def build(group: Group) -> Plan:
    found = find(group)
    assert found is not None  # it fits
    parts, walk, shared = found
    sch, op = group.sch, parts.anchor.op
    block, out = epilogue(group, parts, "local")
    names = dict(zip([a.var for a in op.axis], sch.loops(out), strict=True))
    order = [names[v] for v in walk]
    if len(order) > 1:
        sch.reorder(*order)
    sch.compute_at(block, order[-1])
    sch.set_scope(block, "register")
    pieces.reduction(group, block, op)
    if product([a.extent for a in (*op.axis, *op.reduce_axis)]) >= _PARALLEL_PRODUCTS:
        across = order[: len(shared)]
        sch.parallel(sch.fuse(*across) if len(across) > 1 else across[0])
    return Plan(sch.func, "dots", {}, ("sums along the rows of what is read",))
