"""Borders of zeros around the operand of a convolution: taps that lie outside of the map are left out of a tile's sums.

For each tap along an axis it is known which rows meet the map with it. A tile of one row tests that once for each tap,
and so may a taller tile: a tap is left out where none of its rows meets the map with it. Of few taps more are left out
where tiles at the border stand apart, with their taps written out, so that each tap has the rows that meet the map:

    for first tile:                               for inner tiles:
        tap 0: acc[1] += …                            for taps: acc[0] += …; acc[1] += …
        tap 1: acc[0] += …; acc[1] += …

What is left out are products with zeros: the sums stay the same, bit by bit, for finite weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from warpbeam.cost.skipping import MARGIN, Inside, share, static_tiles
from warpbeam.ir.rewrite import substitute
from warpbeam.sketch.base import LIKELY, Group
from warpbeam.sketch.ragged import copies
from warpbeam.sketch.structure import Contraction, Stage, variables
from warpbeam.te.tensor import ComputeOp
from warpbeam.tir.analysis.access import as_block, free_vars
from warpbeam.tir.analysis.predicate import conjuncts
from warpbeam.tir.analysis.tree import facts_at, tree_of
from warpbeam.tir.arith import linear, prove, simplify
from warpbeam.tir.expr import GE, GT, LE, LT, Call, FloatImm, PrimExpr, Var, as_expr, const, const_int


@dataclass(frozen=True, slots=True)
class Border:
    """A border along one dimension of the operand, and for each tap the rows of an axis whose read is inside. by_tile:
    whether a tap is left out for all rows of a tile or none.
    """

    dim: int
    inside: Inside
    by_tile: bool = False


def borders(
    op: ComputeOp, roles: Contraction | None, before: Sequence[Stage], tiled: Sequence[Var]
) -> dict[Var, Border]:
    """The borders of zeros that a contraction's broadcast operand has, by the axis of the result that walks there.
    Those of axes that are tiled, and each other one, are told where enough taps lie outside to leave them out. Sizes
    that only the run tells are taken to be LIKELY; tiles along them are left out as a whole.
    """
    stage = next((s.op for s in before if roles is not None and s.op is roles.lhs.tensor.op), None)
    body = stage.body[0] if stage is not None and len(stage.body) == 1 else None
    if roles is None or stage is None or not isinstance(body, Call) or body.op != "if_then_else":
        return {}
    if not isinstance(body.args[2], FloatImm) or body.args[2].value != 0:
        return {}
    axes = (*op.axis, *op.reduce_axis)
    likely = {v: const(LIKELY, v.dtype) for a in (*axes, *stage.axis) for v in variables(as_expr(a.extent))}

    def guess(value: Any) -> Any:
        return simplify(substitute(as_expr(value), likely)) if likely else as_expr(value)

    sizes = {a.var: const_int(guess(a.extent)) for a in axes}
    tests = [guess(c) for c in conjuncts(body.args[0])]
    found: dict[Var, Border] = {}
    for k, (index, axis) in enumerate(zip(roles.lhs.indices, stage.axis, strict=True)):
        span = _span(tests, axis.var, const_int(guess(axis.extent)))
        rows = variables(index) & set(roles.m)
        taps = variables(index) & set(roles.k)
        if span is not None and len(rows) == len(taps) == 1:
            (row,), (tap,) = rows, taps
            inside = _inside(index, row, tap, span, sizes[row], sizes[tap])
            if inside is not None:
                found[row] = Border(k, inside, bool(likely))
    met = {v: share(b.inside, sizes[v] or 1) for v, b in found.items()}
    pays = prod(met[v] for v in met if v in tiled) <= MARGIN
    return {v: b for v, b in found.items() if (pays if v in tiled else met[v] <= MARGIN)}


def _span(tests: list[PrimExpr], axis: Var, size: int | None) -> tuple[int, int] | None:
    """The positions [low, high) along an axis for which all tests of it hold; None where there is no border."""
    mine = [c for c in tests if axis in variables(c)]
    if size is None or not mine:
        return None
    low, high = 0, size
    for c in mine:
        if not isinstance(c, LT | LE | GT | GE):
            return None
        big, small = (c.b, c.a) if isinstance(c, LT | LE) else (c.a, c.b)
        form = linear(big - small, [axis])
        slope, rest = (None, None) if form is None else (const_int(form[0].get(axis, 0)), const_int(form[1]))
        if slope not in (1, -1) or rest is None:
            return None
        room = rest - isinstance(c, LT | GT)  # slope * axis + room >= 0
        low, high = (max(low, -room), high) if slope == 1 else (low, min(high, room + 1))
    return low, high


def _inside(
    index: PrimExpr, row: Var, tap: Var, span: tuple[int, int], rows: int | None, taps: int | None
) -> Inside | None:
    """For each tap the rows whose read at `index` lies in a span."""
    form = linear(index, [row, tap])
    if form is None or rows is None or taps is None:
        return None
    step, by, first = const_int(form[0].get(row, 0)), const_int(form[0].get(tap, 0)), const_int(form[1])
    if not step or step < 0 or by is None or first is None:
        return None
    found = []
    for k in range(taps):
        at = by * k + first
        low, high = (min(max(0, -(-(edge - at) // step)), rows) for edge in span)
        found.append((low, max(low, high)))
    return tuple(found) if any(x != (0, rows) for x in found) else None


def skip(group: Group, block: str, operand: str, found: Sequence[Border]) -> None:
    """The updates of a block, below a tile, without those that read the operand's border along some dimensions."""
    rows = [b.dim for b in found if not b.by_tile]
    tiles = [b.dim for b in found if b.by_tile]
    if rows:
        group.sch.skip_zeros(block, operand, rows)
    if tiles:
        place = tree_of(group.sch.func).block(block)
        own = as_block(place)
        taps = {v for a, at in zip(own.axes, own.bindings, strict=True) if a.kind == "reduce" for v in free_vars(at)}
        loops = [f.var.name for f in place.loops() if f.kind == "unrolled" and f.var not in taps]
        group.sch.skip_zeros(block, operand, tiles, loops)


def cuts(inside: Inside, size: int, tile: int) -> list[int]:
    """Where a loop over tiles is cut so that each tile at the border stands apart."""
    apart = static_tiles(inside, size, tile)
    return sorted({p for t in apart for p in (t, t + 1) if 0 < p < -(-size // tile)})


def write_out(group: Group, block: str) -> None:
    """Taps whose rows are written out become numbers, in a block and its copies, where the range of the loops does not
    decide what is inside.
    """
    for name in [b for b in group.sch.blocks() if b == block or b.startswith(f"{block}_p1")]:
        place = tree_of(group.sch.func).block(name)
        loops, facts = place.loops(), facts_at(place)
        rows = {f.var for f in loops if f.kind == "unrolled" and const_int(f.extent) != 1}
        open_ = [c for c in conjuncts(as_block(place).predicate) if free_vars(c) & rows and prove(c, facts) is not True]
        used = {v for c in open_ for v in free_vars(c)}
        for f in loops:
            if f.kind == "serial" and f.var in used and const_int(f.extent) != 1:
                group.sch.unroll(f.var.name)


def parts(group: Group, loop: str, inner: str) -> tuple[str, ...]:
    """The loops below a loop that are an inner one or copies of it in other parts of a partition."""
    tree = tree_of(group.sch.func)
    return tuple(n for n in copies(group, inner) if tree.loops[n].within(tree.loop(loop)))
