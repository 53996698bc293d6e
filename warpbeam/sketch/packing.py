"""Constant operands of contractions in panels: which can be, and the order of memory that a tile's products read."""

from __future__ import annotations

from warpbeam.cost.tile_prior import Shape, Tile, crowded
from warpbeam.ir import dtype as dt
from warpbeam.sketch import dot
from warpbeam.sketch.base import Group, extent
from warpbeam.sketch.dot import DotChoice
from warpbeam.sketch.structure import Contraction, variables
from warpbeam.te.tensor import PlaceholderOp
from warpbeam.tir.expr import Var


def packable(group: Group, roles: Contraction, last: Var) -> bool:
    """Whether the rhs is a constant whose dimension along the vector axis is exactly that axis."""
    op = roles.rhs.tensor.op
    plain = sum(i is last for i in roles.rhs.indices) == 1
    return isinstance(op, PlaceholderOp) and op.name in group.constants and plain


def pack(group: Group, roles: Contraction, last: Var, tile: Tile, choice: DotChoice | None) -> None:
    """Asks for the constant rhs as [column panel][..k..][column in panel]."""
    position = next(k for k, i in enumerate(roles.rhs.indices) if i is last)
    rest = [k for k in range(len(roles.rhs.indices)) if k != position]
    order = sorted(rest, key=lambda k: _reduce_position(roles, k))
    column, panel = f"i{position}", tile.vectors * tile.lanes
    if choice is not None:
        group.sch.transform_layout(roles.rhs.tensor.name, dot.layout(roles, choice, panel, order))
        return
    group.sch.transform_layout(
        roles.rhs.tensor.name, [("//", column, panel), *[f"i{k}" for k in order], ("%", column, panel)]
    )


def gaps(group: Group, roles: Contraction | None, shape: Shape, tile: Tile) -> dict[str, int]:
    """The lhs with its row's elements, where a tile's rows of it share few places of the nearest cache."""
    if roles is None or not crowded(shape, tile, group.target):
        return {}
    source, index = roles.lhs.tensor, roles.lhs.indices
    row = extent(source.shape[-1])
    own = isinstance(source.op, PlaceholderOp) and source.op.name not in group.constants and index[-1] in roles.k
    if not own or row is None or row * dt.nbytes(roles.lhs.dtype) != shape.row_bytes:
        return {}
    return {source.op.name: row}


def _reduce_position(roles: Contraction, k: int) -> tuple[int, int]:
    """Dimensions indexed by batch axes first, then in the order of the reduction loops."""
    used = [roles.k.index(v) for v in roles.k if v in variables(roles.rhs.indices[k])]
    return (1, used[0]) if used else (0, k)
