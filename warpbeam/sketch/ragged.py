"""Nests of the tile sketch over axes whose extents are known at run time only.

Such an axis is cut where it stands in the nest, into full tiles and a ladder of smaller ones:

    for panels of columns (parallel):
        for rows // 8: tile of 8 rows
        for rows % 8 // 4: tile of 4 rows
        for rows % 4 // 3: tile of 3 rows
        for rows % 4 % 3 // 2: tile of 2 rows
        for rows % 4 % 3 % 2: tile of 1 row

so what a loop outside fetches (a panel of weights) serves all of them, and a rest takes few tiles. Columns
go from panels to single vectors to shorter ones. Every nest has constant tiles, hence registers, as with known sizes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from warpbeam.cost.tile_prior import shorter
from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.tir.arith import prove
from warpbeam.tir.expr import PrimExpr, Var, as_expr, const_int

if TYPE_CHECKING:
    from warpbeam.cost.tile_prior import Tile
    from warpbeam.sketch.base import Group
    from warpbeam.tir.schedule import Schedule


@dataclass(slots=True)
class Piece:
    """One nest under construction: its block, the loops that are not tiled yet, those over tiles and within tiles.

    outer: (axis, loop) outermost first; tile: vectors and lanes are those of its columns.
    """

    out: str
    loops: dict[Var, str]
    tile: Tile
    outer: list[tuple[Var, str]] = field(default_factory=list)
    inner: dict[Var, list[str]] = field(default_factory=dict)

    def copied(self, new: dict[str, str]) -> Piece:
        """The same in a copy with new names."""
        return Piece(
            new.get(self.out, self.out),
            {v: new.get(n, n) for v, n in self.loops.items()},
            self.tile,
            [(v, new.get(n, n)) for v, n in self.outer],
            {v: [new.get(n, n) for n in names] for v, names in self.inner.items()},
        )


def cut(
    group: Group, out: str, loops: dict[Var, str], sizes: dict[Var, Any], rows: list[Var], column: Var, tile: Tile
) -> tuple[list[str], list[Piece]]:
    """Cuts the output's loops into pieces of constant tiles; gives the loops that are not tiled, and the pieces."""
    free = [n for v, n in loops.items() if v is not column and v not in rows]
    order = [column, *rows] if tile.columns_outer else [*rows, column]
    if len(loops) > 1:
        group.sch.reorder(*free, *[loops[v] for v in order])
    if any(prove(as_expr(sizes[v]) >= 0) is not True for v in order):  # nothing must run then
        group.sch.enter((*free, loops[order[0]])[0])
    pieces = [Piece(out, dict(loops), tile)]
    fused = any(group.sch.extent(name) is None for name in free) and not tile.columns_outer  # see `_share`
    for v in order:
        height, known = None if v is column else tile.rows[rows.index(v)], const_int(sizes[v])
        if known is not None and height is not None and known % height and fused and v is order[0]:
            pieces = _apart(group, pieces[0], v, known, height)
            continue
        pieces = [part for p in pieces for part in _divide(group, p, v, sizes[v] if known is None else None, height)]
    for p in pieces:
        inner = [n for v in (*rows, column) for n in p.inner[v]]
        if len(inner) > 1:
            group.sch.reorder(p.outer[-1][1], *inner)
        group.sch.vectorize(inner[-1])
        for name in inner[:-1]:
            group.sch.unroll(name)
    return free, pieces


def _divide(group: Group, p: Piece, axis: Var, size: Any, height: int | None) -> list[Piece]:
    """The parts of a piece along an axis. size: None where it is known; height: rows of a tile, None for columns."""
    steps = [(p.tile.vectors, p.tile.lanes)] if height is None else [(height, 1)]
    if size is not None:
        steps = _ladder(p.tile) if height is None else [(h, 1) for h in shorter(height)]
    parts: list[Piece] = []
    rest: PrimExpr = as_expr(0 if size is None else size)
    for k, (count, lanes) in enumerate(steps):
        part = p
        if k < len(steps) - 1:
            whole = rest // (count * lanes) * (count * lanes)
            try:
                _, _, new = group.sch.partition(p.loops[axis], whole)
            except ScheduleError:  # not proven to be a part of the rest: all of that goes in the shortest tiles
                _tile(group, part, axis, steps[-1], height is None)
                return [*parts, part]
            p, rest = p.copied(new), rest - whole
        _tile(group, part, axis, (count, lanes), height is None)
        parts.append(part)
    return parts


def _apart(group: Group, p: Piece, axis: Var, size: int, height: int) -> list[Piece]:
    """Whole tiles of a known size and what is left over, where the loop over tiles becomes one with open ones and could
    not be partitioned after that.
    """
    parts: list[Piece] = []
    for h in shorter(height):
        part, count = p, size // h * h
        if not count:
            continue
        size -= count
        if size:
            _, _, new = group.sch.partition(p.loops[axis], count)
            p = p.copied(new)
        _tile(group, part, axis, (h, 1), False)
        parts.append(part)
    return parts


def _ladder(tile: Tile) -> list[tuple[int, int]]:
    """(vectors, lanes) of panels, single vectors, and quarters of vectors down to elements."""
    out = [(tile.vectors, tile.lanes)]
    lanes = tile.lanes
    if tile.vectors > 1:
        out.append((1, lanes))
    while lanes > 1:
        lanes = max(1, lanes // 4)
        out.append((1, lanes))
    return out


def _tile(group: Group, p: Piece, axis: Var, step: tuple[int, int], columns: bool) -> None:
    """Splits the piece's loop over an axis; its inner loops go inside the loops that are still to be tiled."""
    name = p.loops.pop(axis)
    outer, *inner = group.sch.split(name, [None, *step] if columns else [None, step[0]])
    p.outer.append((axis, outer))
    p.inner[axis] = inner
    if columns:
        p.tile = replace(p.tile, vectors=step[0], lanes=step[1])
    left = [n for v, n in p.loops.items() if v in p.loops and n in group.sch.loops(p.out)]
    below = group.sch.loops(p.out)
    left = [n for n in left if below.index(n) > below.index(inner[-1])]
    if left:
        group.sch.reorder(outer, *left, *inner)


def finish(group: Group, free: list[str], pieces: list[Piece], sizes: dict[Var, Any], panels: dict[Var, int]) -> None:
    """Remainders of known sizes apart, as with known sizes; then the parallel loop, one fork for all pieces.

    panels: elements of a tile along each tiled axis.
    """
    _share(group, free, pieces, sizes)
    sch = group.sch
    known = {v: const_int(sizes[v]) for v in panels}
    for depth in reversed(range(len(pieces[0].outer))):
        cut = dict.fromkeys(p.outer[depth] for p in pieces)
        for v, name in cut:
            size = known[v]
            if size is not None and size % panels[v] and (depth or len(cut) == 1):  # else it is cut already
                for copy in copies(group, name):
                    sch.partition(copy, size // panels[v])


def _share(group: Group, free: list[str], pieces: list[Piece], sizes: dict[Var, Any]) -> None:
    """The parallel loop. Where the loops around the tiles may have few iterations, those over tiles are shared out: as
    one loop, or, where that would be divided by a size which may come out as nothing, after each other.
    """
    sch, tile = group.sch, pieces[0].tile
    divides = prove(as_expr(sizes[pieces[0].outer[0][0]]) >= 1) is True
    first = list(dict.fromkeys(p.outer[0][1] for p in pieces))
    few = any(sch.extent(name) is None for name in free)
    if tile.parallel == "none":
        return
    if few and len(first) == 1 and not tile.columns_outer and divides:
        sch.parallel(sch.fuse(*free, *first))
    elif few and not tile.columns_outer and tile.parallel == "first":
        sch.annotate(sch.fuse(*free) if len(free) > 1 else free[0], "joined", first[0])
        _joined(sch, first)
    elif tile.parallel == "free" and not (few and len(first) == 1 and divides):
        sch.parallel(sch.fuse(*free) if len(free) > 1 else free[0])
    else:
        _joined(sch, first)


def _joined(sch: Schedule, loops: list[str]) -> None:
    """Loops that follow each other as one parallel loop."""
    for name in loops:
        sch.parallel(name)
        sch.annotate(name, "joined", loops[0])


def copies(group: Group, name: str) -> list[str]:
    """A loop and its copies in other parts of a partition."""
    return [n for n in group.sch.loop_names() if n == name or n.startswith(f"{name}_p1")]
