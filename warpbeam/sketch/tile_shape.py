"""What the prior must know about a group of the tile sketch: extents by role, strides, borders."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from warpbeam.cost.skipping import share
from warpbeam.cost.tile_prior import Shape
from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import substitute
from warpbeam.sketch import border, packing
from warpbeam.sketch.base import Group, extent, product, supposed
from warpbeam.sketch.structure import Contraction, variables
from warpbeam.te.tensor import ComputeOp, loads
from warpbeam.tir.arith import linear, simplify
from warpbeam.tir.expr import PrimExpr, Var, as_expr, const_int

if TYPE_CHECKING:
    from warpbeam.sketch.tile import Anatomy

_ENOUGH = 8  # rows further in: about what a tile takes


def describe(group: Group, parts: Anatomy, roles: Contraction | None) -> Shape:
    """The extents the prior needs, by role."""
    op = parts.anchor.op
    axes = [a.var for a in op.axis]
    sizes = {a.var: extent(a.extent) for a in op.axis}
    rows = [v for v in axes[:-1] if roles is None or v in roles.m]
    tiled = rows[-2:]
    reduce = product([a.extent for a in op.reduce_axis])
    lanes = max(1, group.target.vector_bits // dt.bits(op.body[0].dtype))
    outer = product([_least(a.extent) for a in op.axis[:-1] if a.var not in tiled])
    known = None not in [sizes[v] for v in (axes[-1], *tiled)]
    inside = {v: b.inside for v, b in border.borders(op, roles, parts.before, tiled).items()} if known else {}
    packed = roles is not None and packing.packable(group, roles, axes[-1])
    return Shape(
        rows=tuple(sizes[v] for v in tiled),
        columns=sizes[axes[-1]],
        reduce=reduce,
        outer=outer,
        lanes=lanes,
        broadcast=roles is not None and axes[-1] in roles.n,
        packed=packed,
        bytes=dt.nbytes(op.body[0].dtype),
        reads=len(list(loads(op))),
        row_bytes=_row_bytes(roles, tiled[-1:]),
        outer_bytes=_row_bytes(roles, tiled[-2:-1]),
        stride=0 if roles is None or packed else _stride(roles, axes[-1], sizes[axes[-1]]),
        own=packed and roles is not None and len(roles.batch) + len(roles.n) > 1,
        supposed=_supposed(op, tiled),
        inside=tuple(inside.get(v) for v in tiled) if any(v in inside for v in tiled) else (),
        share=prod(share(x, sizes[v] or 1) for v, x in inside.items() if v not in tiled),
    )


def _stride(roles: Contraction, last: Var, columns: int | None) -> int:
    """Bytes from one row of the rhs to the next, where rows lie along the vector axis and its sizes are known."""
    sizes = [extent(s) for s, i in zip(roles.rhs.tensor.shape, roles.rhs.indices, strict=True) if variables(i)]
    own = roles.rhs.indices[-1] is last and None not in sizes
    return (columns or 0) * dt.nbytes(roles.rhs.dtype) * own


def _supposed(op: ComputeOp, tiled: list[Var]) -> tuple[int, ...]:
    """What the extents of rows may be. An open one in front is a batch, perhaps of one: where rows further in are
    enough for a tile, they make it.
    """
    found = [supposed(a.extent) for a in op.axis if a.var in tiled]
    if len(found) > 1 and tiled[0] is op.axis[0].var and extent(op.axis[0].extent) is None and found[1] >= _ENOUGH:
        found[0] = 1
    return tuple(found)


def _least(size: PrimExpr) -> int:
    """A number of iterations that may be relied on: an open batch may be of one."""
    known = extent(size)
    if known is None:
        known = const_int(simplify(substitute(size, {v: as_expr(1) for v in variables(size)})))
    return max(1, known or 1)


def _row_bytes(roles: Contraction | None, rows: list[Var]) -> int:
    """Bytes between the lhs elements of neighbouring rows along the one axis given; 0 where that is not constant."""
    if roles is None or not rows:
        return 0
    strides = flat_strides(roles.lhs, rows)
    step = None if strides is None else const_int(strides[rows[0]])
    return 0 if step is None else step * dt.nbytes(roles.lhs.dtype)


def flat_strides(load: Any, variables: list[Var]) -> dict[Var, Any] | None:
    """Elements by which a read moves per step of each variable, or None where its address is not linear."""
    address: PrimExpr = as_expr(0)
    for index, size in zip(load.indices, load.tensor.shape, strict=True):
        address = address * size + index
    found = linear(address, variables)
    if found is None:
        return None
    coefs, _ = found
    return {v: coefs.get(v, 0) for v in variables}
