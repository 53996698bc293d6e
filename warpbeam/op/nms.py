"""Greedy suppression of overlapping boxes: the program of `vision.nms` and its reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from warpbeam.op.index_loops import Loops
from warpbeam.op.sort_pairs import Heap, Pairs
from warpbeam.op.sort_rows import BLOCK, Row, some_lane, some_precede
from warpbeam.tir import expr as E
from warpbeam.tir.stmt import PrimFunc, Stmt

INT = "int64"
LANES = 16  # boxes that are kept and that one is compared with at once


def _np_corners(box: np.ndarray, center: bool) -> tuple[Any, Any, Any, Any]:
    a, b, c, d = box
    if center:
        half_w, half_h = c / box.dtype.type(2), d / box.dtype.type(2)
        return b - half_h, a - half_w, b + half_h, a + half_w
    return min(a, c), min(b, d), max(a, c), max(b, d)


def _np_overlap(p: np.ndarray, q: np.ndarray, center: bool) -> float:
    """Intersection over union of two boxes; 0 where there is no area."""
    a, b = _np_corners(p, center), _np_corners(q, center)
    height, width = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    areas = [(v[2] - v[0]) * (v[3] - v[1]) for v in (a, b)]
    if height <= 0 or width <= 0 or min(areas) <= 0:
        return 0.0
    return float(height * width / (areas[0] + areas[1] - height * width))


def reference(
    boxes: np.ndarray, scores: np.ndarray, most: int, overlap: float, least: float, center: bool
) -> list[tuple[int, int, int]]:
    """Rows (batch, class, box)."""
    rows: list[tuple[int, int, int]] = []
    for b, c in np.ndindex(*scores.shape[:2]):
        kept: list[int] = []
        for i in np.argsort(-scores[b, c], kind="stable").tolist():
            if len(kept) >= most or not scores[b, c, i] > least:
                break
            if not any(_np_overlap(boxes[b, i], boxes[b, j], center) > overlap for j in kept):
                kept.append(i)
        rows += [(b, c, i) for i in kept]
    return rows


class _Boxes:
    """The corners of one image's boxes, and those of the boxes that are kept, in blocks of lanes side by side."""

    def __init__(self, loops: Loops, boxes: E.Buffer, center: bool) -> None:
        self.loops, self.boxes, self.center = loops, boxes, center
        self.kept = loops.temp((E.ceildiv(E.as_expr(boxes.shape[1]), LANES), 5, LANES), boxes.dtype)

    def measured(self, batch: Any, i: Any, body: Callable[[list[Any]], Any]) -> Stmt:
        """`body([top, left, bottom, right, area])` of a box."""
        a, b, c, d = (self.boxes[batch, i, k] for k in range(4))
        corners = [E.minimum(a, c), E.minimum(b, d), E.maximum(a, c), E.maximum(b, d)]
        if self.center:
            two = E.const(2.0, self.boxes.dtype)
            corners = [b - d / two, a - c / two, b + d / two, a + c / two]

        def whole(v: list[Any]) -> Stmt:
            return self.loops.let((v[2] - v[0]) * (v[3] - v[1]), lambda area: body([*v, area]))

        return self.loops.lets(corners, whole)

    def keep(self, n: Any, box: list[Any]) -> list[Stmt]:
        """Puts a box at place n of those that are kept; a new block begins as boxes that overlap nothing."""
        loops, block, lane, nil = self.loops, n // LANES, n % LANES, E.const(0.0, self.boxes.dtype)

        def clear(k: Any) -> Stmt:
            return loops.loop(LANES, lambda c: loops.store(self.kept, [block, k, c], nil), "z", "vectorized")

        begin = loops.when(E.binary(E.EQ, lane, E.const(0)), loops.loop(5, clear, "z"))
        return [begin, *(loops.store(self.kept, [block, k, lane], v) for k, v in enumerate(box))]

    def test(self, block: Any, box: list[Any], limit: Any, found: E.Buffer) -> Stmt:
        """Sets found[0] to whether a box overlaps one of a block of the kept ones by more than `limit`."""
        zero = E.const(0.0, self.boxes.dtype)

        def exceeds(c: Any) -> Any:
            other = [self.kept[block, k, c] for k in range(5)]
            height = E.minimum(box[2], other[2]) - E.maximum(box[0], other[0])
            width = E.minimum(box[3], other[3]) - E.maximum(box[1], other[1])
            some = E.land(height > zero, width > zero, box[4] > zero, other[4] > zero)
            common = height * width
            return E.select(some, common / (box[4] + other[4] - common), zero) > limit

        return some_lane(self.loops, LANES, exceeds, self.boxes.dtype, found)


def _candidates(loops: Loops, row: Row, lowest: Any, pairs: Pairs, count: E.Buffer) -> list[Stmt]:
    """Pairs of the boxes that score more than `lowest`, best scores first in order; blocks are looked at at once."""
    size = E.as_expr(row.data.shape[row.axis])

    def visit(i: Any) -> list[Stmt]:
        more = E.select(row.value(i) > lowest, E.const(1), E.const(0))
        return [*pairs.put(count[0], (pairs.key(row.value(i), False), i)), loops.store(count, 0, count[0] + more)]

    def block(b: Any) -> Stmt:
        def look(found: E.Buffer) -> list[Stmt]:
            whole = size - b * BLOCK >= BLOCK
            test = loops.when(whole, some_precede(loops, row, b * BLOCK, lowest, False, found))
            each = loops.loop(E.minimum(size - b * BLOCK, BLOCK), lambda i: visit(b * BLOCK + i), "i")
            return [loops.store(found, 0, E.const(1)), test, loops.when(found[0] > 0, each)]

        return loops.cells(INT, 1, look)

    return [loops.store(count, 0, E.const(0)), loops.loop(E.ceildiv(size, BLOCK), block, "b")]


def program(name: str, inputs: Sequence[Any], out_type: Any, center: bool, bound: int | None) -> PrimFunc:
    """(selected, count) as `vision.nms` says."""
    loops = Loops(name, inputs, list(out_type.fields))
    boxes, scores, most, overlap, least = loops.ins
    selected, count = loops.outs
    limit, lowest = (v[(0,) * v.ndim] for v in (overlap, least))
    at_most = E.cast(INT, most[(0,) * most.ndim])
    at_most = at_most if bound is None else E.minimum(at_most, bound)
    found, pairs = _Boxes(loops, boxes, center), Pairs(loops, (), scores.shape[2], scores.dtype)
    queue = Heap(pairs, last=False)

    def kind(at: list[Any]) -> Stmt:
        def run(cell: E.Buffer, over: E.Buffer) -> list[Stmt]:  # in the queue, kept so far, next block to compare with
            def judge(i: Any, box: list[Any]) -> list[Stmt]:
                keep = [loops.store(selected, [count[()], k], v) for k, v in enumerate((*at, i))]
                keep += [*found.keep(cell[1], box), loops.store(count, [], count[()] + 1)]
                more = E.land(cell[2] * LANES < cell[1], E.binary(E.EQ, over[0], E.const(0)))
                test = [found.test(cell[2], box, limit, over), loops.store(cell, 2, cell[2] + 1)]
                return [
                    loops.store(over, 0, E.const(0)),
                    loops.store(cell, 2, E.const(0)),
                    loops.loop_while(more, test),
                    loops.when(E.binary(E.EQ, over[0], E.const(0)), [*keep, loops.store(cell, 1, cell[1] + 1)]),
                ]

            def next_box(i: Any) -> list[Stmt]:
                pop = [loops.store(cell, 0, cell[0] - 1), queue.pop(cell[0])]
                return [*pop, found.measured(at[0], i, lambda box: judge(i, box))]

            go = E.land(cell[0] > 0, cell[1] < at_most)
            return [
                loops.store(cell, 1, E.const(0)),
                *_candidates(loops, Row(scores, at, 2), lowest, pairs, cell),
                queue.make(cell[0]),
                loops.loop_while(go, loops.let(pairs.get(0)[1], next_box)),
            ]

        return loops.cells(INT, 3, lambda cell: loops.cells(INT, 1, lambda over: run(cell, over)))

    def clear(k: Any) -> list[Stmt]:
        return [loops.store(selected, [count[()] + k, n], E.const(0)) for n in range(3)]

    rest = loops.loop(E.as_expr(selected.shape[0]) - count[()], clear, "z")
    return loops.func(loops.store(count, [], E.const(0)), loops.nest(scores.shape[:2], kind, "r"), rest)
