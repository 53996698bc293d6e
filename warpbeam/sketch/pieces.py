"""Reductions along one axis in vectors: the axis is cut into groups of vectors, single vectors and a rest; each lane
gathers a partial result, and these are joined at the end.
"""

from __future__ import annotations

from dataclasses import dataclass

from warpbeam.ir import dtype as dt
from warpbeam.sketch.base import Group, extent
from warpbeam.te.tensor import ComputeOp
from warpbeam.tir.arith import prove
from warpbeam.tir.expr import Buffer, PrimExpr
from warpbeam.tir.stmt import BufferStore

MOST = 8  # vectors of partial results: enough to cover the latency of an addition


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a row: `loop` over its columns around `block`, in groups of `vectors` vectors of `lanes`."""

    loop: str
    block: str
    vectors: int
    lanes: int


def lanes_of(group: Group, op: ComputeOp) -> int:
    """Elements of an operation's result in a vector."""
    return max(1, group.target.vector_bits // max(8, dt.bits(op.body[0].dtype)))


def reduction(group: Group, block: str, op: ComputeOp) -> None:
    """A reduction by itself: lanes gather partial results along its innermost axis, where that is long enough or only
    the run tells.
    """
    size, lanes = extent(op.reduce_axis[-1].extent), lanes_of(group, op)
    if lanes < 2 or (size is not None and size < 2 * lanes):
        return
    loops = group.sch.loops(block)[-len(op.reduce_axis) :]
    group.sch.decompose_reduction(block, loops[0])
    for piece in cut(group, block, loops[-1], lanes, 4):
        partial(group, piece)


def cut(group: Group, block: str, loop: str, lanes: int, most: int) -> list[Piece]:
    """The pieces of a loop over columns, each with a loop of its own."""
    size = group.sch.loop(loop).extent
    n = extent(size)
    if n is None:
        if prove(size >= 0) is not True:  # nothing must run then
            group.sch.enter(loop)
        return _cut_at(group, block, loop, [(size // (4 * lanes) * (4 * lanes), 4, lanes), (None, 1, lanes)])
    whole, rest = divmod(n, lanes)
    count = max((d for d in range(1, most + 1) if whole and whole % d == 0), default=1)
    if count < 4 and whole > 4:
        count = 4
    groups, single = divmod(whole, count)
    parts: list[tuple[PrimExpr | int | None, int, int]] = []
    if groups:
        parts.append((groups * count * lanes, count, lanes))
    if single:
        parts.append((single * lanes, single, lanes))
    if rest:
        parts.append((rest, 1, rest))
    return _cut_at(group, block, loop, parts)


def _cut_at(group: Group, block: str, loop: str, parts: list[tuple[PrimExpr | int | None, int, int]]) -> list[Piece]:
    """Partitions a loop into parts of (size, vectors, lanes); a last part without a size is cut into vectors and
    single elements.
    """
    sch = group.sch
    pieces: list[Piece] = []
    for k, (size, vectors, lanes) in enumerate(parts):
        last = k == len(parts) - 1
        if size is None:
            rest = sch.loop(loop).extent
            _, second, names = sch.partition(loop, rest // lanes * lanes)
            pieces += [Piece(loop, block, vectors, lanes), Piece(second, names[block], 1, 1)]
        elif last:
            pieces.append(Piece(loop, block, vectors, lanes))
        else:
            _, second, names = sch.partition(loop, size)
            pieces.append(Piece(loop, block, vectors, lanes))
            loop, block = second, names[block]
    return pieces


def partial(group: Group, piece: Piece, short: bool = False) -> str:
    """Partial results in `vectors` vectors, summed to one vector and then across its lanes. Gives the loop over groups
    of so many vectors.
    """
    sch = group.sch
    if piece.lanes == 1:
        return piece.loop
    outer, part = sch.split(piece.loop, [None, piece.vectors * piece.lanes])
    _lanes_apart(group, piece.block, part, piece.vectors, piece.lanes)
    if short:
        sch.unroll(outer)
    if piece.vectors > 1:
        joined, lane = sch.split(sch.loops(piece.block)[-1], [piece.vectors, piece.lanes])
        sch.unroll(joined)
        _lanes_apart(group, piece.block, lane, 1, piece.lanes)
    return outer


def _lanes_apart(group: Group, block: str, loop: str, vectors: int, lanes: int) -> None:
    """Factors a loop of vectors * lanes out of a reduction: partial results in registers, in vectors."""
    sch = group.sch
    partial = sch.rfactor(loop)
    sch.set_scope(partial, "register")
    start = next(b for b in sch.blocks() if _stored(group, b) is _stored(group, partial))
    for name in (sch.loops(start)[-1], loop):
        groups, lane = sch.split(name, [vectors, lanes])
        sch.unroll(groups)
        sch.vectorize(lane)


def _stored(group: Group, block: str) -> Buffer | None:
    """The buffer that a block of one result stores to."""
    body = group.sch.block(block).body
    return body.buffer if isinstance(body, BufferStore) else None
