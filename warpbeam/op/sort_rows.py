"""Sorting rows inside a kernel: stable bottom-up merge sort, and a short ordered list for the k best.

Order: ascending values, NaN after every number; descending is the reverse order of values (NaN first). Equal values
keep their places in order of index.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.op.index_loops import Loops
from warpbeam.tir import expr as E
from warpbeam.tir.stmt import Stmt, seq


def precedes(a: Any, b: Any, ascending: bool) -> Any:
    """Whether value a stands strictly before value b."""
    if not ascending:
        a, b = b, a
    less = a < b
    if dt.is_float(a.dtype):
        less = E.lor(less, E.land(E.binary(E.NE, b, b), E.binary(E.EQ, a, a)))
    return less


class Row:
    """One row of a tensor along `axis`: value(i) reads the data, index buffers are addressed the same way."""

    def __init__(self, data: E.Buffer, outer: Sequence[Any], axis: int) -> None:
        self.data, self.outer, self.axis = data, list(outer), axis

    def at(self, i: Any) -> list[Any]:
        return [*self.outer[: self.axis], i, *self.outer[self.axis :]]

    def value(self, i: Any) -> Any:
        return self.data[tuple(self.at(i))]


def merge_sort(loops: Loops, row: Row, order: E.Buffer, other: E.Buffer, size: Any, ascending: bool) -> Stmt:
    """Fills order[row] with the places of the row's values in sorted order; `other` is scratch of the same shape."""

    def get(buffer: E.Buffer, i: Any) -> Any:
        return buffer[tuple(row.at(i))]

    def merge(low: Any, mid: Any, high: Any) -> Stmt:
        def steps(cell: E.Buffer) -> Any:
            def step(k: Any) -> Any:
                left, right = cell[0], cell[1]
                # a side that is used up is never read: its index is clamped into the row first
                i, j = get(order, E.minimum(left, mid - 1)), get(order, E.minimum(right, size - 1))
                later = precedes(row.value(j), row.value(i), ascending)
                use_right = E.lor(left >= mid, E.land(right < high, later))
                return loops.let(
                    use_right,
                    lambda use: [
                        loops.store(other, row.at(low + k), E.select(use, j, i)),
                        loops.store(cell, 0, left + E.select(use, E.const(0), E.const(1))),
                        loops.store(cell, 1, right + E.select(use, E.const(1), E.const(0))),
                    ],
                )

            return [loops.store(cell, 0, low), loops.store(cell, 1, mid), loops.loop(high - low, step, "k")]

        return loops.cells("int64", 2, steps)

    def sweep(width: Any) -> list[Stmt]:
        def pair(p: Any) -> Stmt:
            low = p * 2 * width
            mid, high = E.minimum(low + width, size), E.minimum(low + 2 * width, size)
            return loops.lets([low, mid, high], lambda v: merge(*v))

        copy = loops.loop(size, lambda i: loops.store(order, row.at(i), get(other, i)), "c")
        return [loops.loop(E.ceildiv(E.as_expr(size), 2 * width), pair, "p"), copy]

    def passes(cell: E.Buffer) -> Any:
        body = [*sweep(cell[0]), loops.store(cell, 0, cell[0] * 2)]
        return [loops.store(cell, 0, E.const(1)), loops.loop_while(cell[0] < E.as_expr(size), body)]

    first = loops.loop(size, lambda i: loops.store(order, row.at(i), i), "i")
    return seq(first, loops.cells("int64", 1, passes))


def best_list(
    loops: Loops, row: Row, size: Any, count: int, ascending: bool, give: Callable[[Any, Any], list[Stmt]]
) -> Stmt:
    """The `count` first places of the row's order, by insertion into a short list; `give(n, place)` stores each."""

    def run(best: E.Buffer) -> Any:
        def held(cell: E.Buffer) -> Any:
            def visit(i: Any) -> Any:
                last = row.value(best[E.maximum(E.minimum(cell[0], count) - 1, 0)])
                room = cell[0] < count
                better = E.lor(room, precedes(row.value(i), last, ascending))
                return loops.when(better, insert(cell, i))

            def insert(cell: E.Buffer, i: Any) -> list[Stmt]:
                grow = loops.store(cell, 0, E.minimum(cell[0] + 1, count))
                before = best[E.maximum(cell[1] - 1, 0)]
                go = E.land(cell[1] > 0, precedes(row.value(i), row.value(before), ascending))
                shift = [loops.store(best, cell[1], before), loops.store(cell, 1, cell[1] - 1)]
                return [
                    grow,
                    loops.store(cell, 1, cell[0] - 1),
                    loops.loop_while(go, shift),
                    loops.store(best, cell[1], i),
                ]

            start = [loops.store(cell, 0, E.const(0)), loops.store(cell, 1, E.const(0))]
            return [*start, loops.loop(size, visit, "i"), loops.loop(count, lambda n: give(n, best[n]), "n")]

        clear = loops.loop(count, lambda n: loops.store(best, n, E.const(0)), "z")
        return [clear, loops.cells("int64", 2, held)]

    return loops.cells("int64", max(count, 1), run)
