"""How a step of a recurrence walks over its weights: by several threads, and to and fro where they outgrow a cache.

The weights are the same in all steps. What does not fit the second-level cache would be fetched anew in each step if
all walks began at the same end: each would find the cache full of the other end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from warpbeam.cost.tile_prior import cache_rate
from warpbeam.ir import dtype as dt
from warpbeam.sketch.base import Group, product
from warpbeam.sketch.pieces import lanes_of
from warpbeam.sketch.structure import contraction
from warpbeam.te.operation import ComputeOp
from warpbeam.te.recurrence import Scan

_FORKS = 4  # times the cost of starting threads that a step must take
_FAR = 16  # times the cache: of more weights too little stays there to be worth a turn


@dataclass(frozen=True, slots=True)
class Walk:
    """shared: whether threads share the panels of a step. time: the loop over steps by which the panels are walked to
    and fro, "" for one direction. parts: where it matters that a thread turns at the end of all that is its own, into
    how many parts the panels are cut; a thread may take single panels where it is 0, and would turn at each.
    """

    shared: bool = False
    time: str = ""
    parts: int = 0


def choose(group: Group, scan: Scan, nests: Sequence[Any], time: str, apart: bool, beside: bool) -> Walk:
    """The walk of a step that is the loop `time`.

    nests: `sketch.scan.Nest` of a step. apart: whether directions are taken out of the loop over time; beside: whether
    sequences run in parallel outside of it.
    """
    target = group.target
    products = [(op, n.dots.get(op)) for n in nests for op in n.products]
    size = sum(_bytes(op, apart) for op, _ in products)
    work = sum(_cycles(group, scan, op, 1 if dot is None else dot.group, apart) for op, dot in products)
    cycles = max(work, size * cache_rate(size, target))
    shared = target.cores > 1 and not beside and cycles >= _FORKS * target.fork_cycles
    held = target.l2 * 3 // 4
    turns = held < size <= _FAR * target.l2
    return Walk(shared, time if turns else "", target.cores if shared and turns and size > held * target.cores else 0)


def apply(group: Group, panels: str, walk: Walk) -> None:
    """Walks the loop over a step's panels so."""
    sch = group.sch
    count, names = sch.extent(panels), [panels]
    if count is not None and count > walk.parts > 1:
        names = sch.split(panels, [None, -(-count // walk.parts)])
    if walk.shared:
        sch.parallel(names[0])
    for name in names if walk.time else []:
        sch.alternate(name, walk.time)


def _bytes(op: ComputeOp, apart: bool) -> int:
    """Bytes of weights that a step reads for a product."""
    roles = contraction(op)
    if roles is None:
        return 0
    others = {*roles.m, *(roles.batch if apart else ())}
    own = [a.extent for a in (*op.axis, *op.reduce_axis) if a.var not in others]
    return product(own) * dt.nbytes(roles.rhs.dtype)


def _cycles(group: Group, scan: Scan, op: ComputeOp, near: int, apart: bool) -> float:
    """Cycles of a product's multiply-adds in a step; `near`: those of a lane that are one instruction."""
    roles = contraction(op)
    others = {scan.times[op].var, *(roles.batch if apart and roles is not None else ())}
    own = [a.extent for a in (*op.axis, *op.reduce_axis) if a.var not in others]
    return product(own) / (lanes_of(group, op) * near * group.target.fma_rate)
