"""Sketch for products of few rows with a right operand, no constant, that has its sums along its rows: y = W x.

    for columns n (parallel):
        for rows m:
            acc[vectors] = 0                                        registers
            for k in vectors: acc += lhs[m, k] * rhs[n, k]
            out[m, n] = epilogue(sum of acc)

Both operands are read from end to end, in the order in which they lie; with so few rows memory sets the pace. To turn
the right operand first, as is done for more rows, would read and write it once more.
"""

from __future__ import annotations

from warpbeam.sketch import dot, pieces
from warpbeam.sketch.base import Group, Plan, extent, product
from warpbeam.sketch.structure import Contraction, contraction
from warpbeam.sketch.tile import Anatomy, anatomy, epilogue

MOST_ROWS = 6
_PARALLEL_PRODUCTS = 65536


def find(group: Group) -> tuple[Anatomy, Contraction] | None:
    """The parts of such a product; None where the group is none."""
    parts = anatomy(group)
    roles = None if parts is None else contraction(parts.anchor.op)
    if parts is None or roles is None or parts.before or len(roles.n) != 1 or len(roles.k) != 1:
        return None
    op, k = parts.anchor.op, roles.k[0]
    rows = product([a.extent for a in op.axis if a.var in roles.m], unknown=MOST_ROWS + 1)
    along = all(x.indices[-1] is k and x.tensor.op.name not in group.constants for x in (roles.lhs, roles.rhs))
    least = 2 * pieces.lanes_of(group, op)
    size = extent(op.reduce_axis[-1].extent)
    long = size is None or size >= least
    if not along or not long or rows > MOST_ROWS or least < 4 or dot.find(group, op, roles) is not None:
        return None
    return parts, roles


def fits(group: Group) -> bool:
    return find(group) is not None


def build(group: Group) -> Plan:
    found = find(group)
    assert found is not None  # it fits
    parts, roles = found
    sch, op = group.sch, parts.anchor.op
    block, out = epilogue(group, parts, "local")
    names = dict(zip([a.var for a in op.axis], sch.loops(out), strict=True))
    order = [names[v] for v in (*roles.batch, *roles.n, *roles.m) if v in names]
    if len(order) > 1:
        sch.reorder(*order)
    sch.compute_at(block, order[-1])
    sch.set_scope(block, "register")
    pieces.reduction(group, block, op)
    shared = order[: len(roles.batch) + 1]
    if product([a.extent for a in (*op.axis, *op.reduce_axis)]) >= _PARALLEL_PRODUCTS:
        sch.parallel(sch.fuse(*shared) if len(shared) > 1 else shared[0])
    return Plan(sch.func, "dots", {}, ("sums along the rows of both operands",))
