"""Greedy suppression of overlapping boxes: the program of `vision.nms` and its reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.op.index_loops import Loops
from warpbeam.op.sort_rows import Row, merge_sort
from warpbeam.tir import expr as E
from warpbeam.tir.stmt import PrimFunc, Stmt

INT = "int64"


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
    def __init__(self, boxes: E.Buffer, batch: Any, center: bool) -> None:
        self.boxes, self.batch, self.center = boxes, batch, center

    def corners(self, i: Any) -> list[Any]:
        a, b, c, d = (self.boxes[self.batch, i, k] for k in range(4))
        if self.center:
            two = E.const(2.0, self.boxes.dtype)
            return [b - d / two, a - c / two, b + d / two, a + c / two]
        return [E.minimum(a, c), E.minimum(b, d), E.maximum(a, c), E.maximum(b, d)]

    def exceeds(self, loops: Loops, i: Any, j: Any, limit: Any, then: Stmt) -> Stmt:
        """`then` where two boxes overlap by more than `limit`."""

        def sides(v: list[Any]) -> Stmt:
            zero = E.const(0.0, self.boxes.dtype)
            height = E.minimum(v[2], v[6]) - E.maximum(v[0], v[4])
            width = E.minimum(v[3], v[7]) - E.maximum(v[1], v[5])
            areas = [(v[k + 2] - v[k]) * (v[k + 3] - v[k + 1]) for k in (0, 4)]
            return loops.lets([height, width, *areas], lambda w: judge(w, zero))

        def judge(w: list[Any], zero: Any) -> Stmt:
            some = E.land(E.land(w[0] > zero, w[1] > zero), E.land(w[2] > zero, w[3] > zero))
            common = w[0] * w[1]
            over = E.select(some, common / (w[2] + w[3] - common), zero) > limit
            return loops.when(over, then)

        return loops.lets([*self.corners(i), *self.corners(j)], sides)


def program(name: str, inputs: Sequence[Any], out_type: Any, center: bool) -> PrimFunc:
    """(selected, count) as `vision.nms` says."""
    loops = Loops(name, inputs, list(out_type.fields))
    boxes, scores, most, overlap, least = loops.ins
    selected, count = loops.outs
    size = scores.shape[2]
    order, other = loops.temp(scores.shape, INT), loops.temp(scores.shape, INT)
    limit, lowest = (v[(0,) * v.ndim] for v in (overlap, least))
    at_most = E.cast(INT, most[(0,) * most.ndim])

    def kind(at: list[Any]) -> list[Stmt]:
        found = _Boxes(boxes, at[0], center)
        row = Row(scores, at, 2)

        def run(cell: E.Buffer) -> list[Stmt]:  # next in order, kept so far, whether it is suppressed
            def next_box(i: Any) -> list[Stmt]:
                def kept(t: Any) -> Stmt:
                    other_box = selected[count[()] - cell[1] + t, 2]
                    return found.exceeds(loops, i, other_box, limit, loops.store(cell, 2, E.const(1)))

                keep = [loops.store(selected, [count[()], k], v) for k, v in enumerate((*at, i))]
                keep += [loops.store(count, [], count[()] + 1), loops.store(cell, 1, cell[1] + 1)]
                return [
                    loops.store(cell, 2, E.const(0)),
                    loops.loop(cell[1], kept, "t"),
                    loops.when(E.binary(E.EQ, cell[2], E.const(0)), keep),
                    loops.store(cell, 0, cell[0] + 1),
                ]

            place = order[tuple(row.at(E.minimum(cell[0], E.as_expr(size) - 1)))]
            go = E.land(E.land(cell[0] < E.as_expr(size), cell[1] < at_most), row.value(place) > lowest)
            body = loops.let(order[tuple(row.at(cell[0]))], next_box)
            return [
                loops.store(cell, 0, E.const(0)),
                loops.store(cell, 1, E.const(0)),
                loops.loop_while(go, [body]),
            ]

        return [merge_sort(loops, row, order, other, size, False), loops.cells(INT, 3, run)]

    clear = loops.nest(selected.shape, lambda at: loops.store(selected, at, E.const(0)), "z")
    return loops.func(clear, loops.store(count, [], E.const(0)), loops.nest(scores.shape[:2], kind, "r"))
