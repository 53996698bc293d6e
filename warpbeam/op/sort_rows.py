"""Rows that are put in order inside a kernel: what stands before what, and a short ordered list for the k best.

Order: ascending values, NaN after every number; descending is the reverse order of values (NaN first). Equal values
keep their places in order of index.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.op.index_loops import Loops
from warpbeam.tir import expr as E
from warpbeam.tir.stmt import Stmt

BLOCK = 32  # elements of a row that are looked at together
_MANY = 4  # blocks from which on a row is taken in blocks


def precedes(a: Any, b: Any, ascending: bool) -> Any:
    """Whether value a stands strictly before value b."""
    if not ascending:
        a, b = b, a
    less = a < b
    if dt.is_float(a.dtype):
        less = E.lor(less, E.land(E.binary(E.NE, b, b), E.binary(E.EQ, a, a)))
    return less


def ordered_type(dtype: str) -> str:
    """The dtype of `ordered` values."""
    return "int64" if dt.bits(dtype) > 32 or dtype == "uint32" else "int32"


def ordered(value: Any) -> Any:
    """An integer for each value in ascending order: zeros are equal, and all NaNs, which are above all numbers."""
    kind = ordered_type(value.dtype)
    top, least = E.const((1 << dt.bits(kind) - 1) - 1, kind), E.const(-(1 << dt.bits(kind) - 1), kind)
    if not dt.is_float(value.dtype):
        return E.cast(kind, value) if value.dtype != "uint64" else E.call("bitwise_xor", E.cast(kind, value), least)
    value = E.cast("float64" if kind == "int64" else "float32", value)
    bits = E.call("reinterpret", value, dtype=kind)
    bits = E.select(bits < E.const(0, kind), E.call("bitwise_xor", bits, top), bits)
    bits = E.select(E.binary(E.EQ, value, E.const(0.0, value.dtype)), E.const(0, kind), bits)
    return E.select(E.binary(E.EQ, value, value), bits, top)


class Row:
    """One row of a tensor along `axis`: value(i) reads the data, index buffers are addressed the same way."""

    def __init__(self, data: E.Buffer, outer: Sequence[Any], axis: int) -> None:
        self.data, self.outer, self.axis = data, list(outer), axis

    def at(self, i: Any) -> list[Any]:
        return [*self.outer[: self.axis], i, *self.outer[self.axis :]]

    def value(self, i: Any) -> Any:
        return self.data[tuple(self.at(i))]


def best_list(
    loops: Loops, row: Row, size: Any, count: int, ascending: bool, give: Callable[[Any, Any], list[Stmt]]
) -> Stmt:
    """The `count` first places of the row's order, by insertion into a short list; `give(n, place)` stores each.

    Once the list is full, few elements of a long row enter it: they are looked at in blocks, all at once, and one by
    one only where a block has some that may stand before the list's last.
    """

    def run(best: E.Buffer, cell: E.Buffer, edge: E.Buffer) -> list[Stmt]:
        room = cell[0] < count

        def visit(i: Any) -> Stmt:
            return loops.when(E.lor(room, precedes(row.value(i), edge[0], ascending)), insert(i))

        def insert(i: Any) -> list[Stmt]:
            before = best[E.maximum(cell[1] - 1, 0)]
            go = E.land(cell[1] > 0, precedes(row.value(i), row.value(before), ascending))
            return [
                loops.store(cell, 0, E.minimum(cell[0] + 1, count)),
                loops.store(cell, 1, cell[0] - 1),
                loops.loop_while(go, [loops.store(best, cell[1], before), loops.store(cell, 1, cell[1] - 1)]),
                loops.store(best, cell[1], i),
                loops.store(edge, 0, row.value(best[cell[0] - 1])),
            ]

        def block(b: Any) -> Stmt:
            """Visits a block of the row, unless it has nothing for the list."""
            first = E.minimum(b * BLOCK, size - BLOCK)  # the last block looks at some elements again
            full = cell[0] >= count if isinstance(size, int) else E.land(cell[0] >= count, size >= BLOCK)

            def look(found: E.Buffer) -> list[Stmt]:
                test = some_precede(loops, row, first, edge[0], ascending, found)
                each = loops.loop(E.minimum(size - b * BLOCK, BLOCK), lambda i: visit(b * BLOCK + i), "i")
                visits = loops.when(E.binary(E.NE, found[0], 0), each)
                return [loops.store(found, 0, E.const(1)), loops.when(full, test), visits]

            return loops.cells("int64", 1, look)

        start = [*(loops.store(cell, n, E.const(0)) for n in (0, 1)), loops.store(edge, 0, E.const(0, edge.dtype))]
        many = in_blocks(row, size)
        walk = loops.loop(E.ceildiv(E.as_expr(size), BLOCK), block, "b") if many else loops.loop(size, visit, "i")
        return [*start, walk, loops.loop(count, lambda n: give(n, best[n]), "n")]

    def held(best: E.Buffer) -> list[Stmt]:
        clear = loops.loop(count, lambda n: loops.store(best, n, E.const(0)), "z")
        inner = loops.cells("int64", 2, lambda cell: loops.cells(row.data.dtype, 1, lambda edge: run(best, cell, edge)))
        return [clear, inner]

    return loops.cells("int64", max(count, 1), held)


def in_blocks(row: Row, size: Any) -> bool:
    """Whether a row's elements are looked at in blocks: there are many, or nobody knows, and they lie side by side."""
    return row.axis == len(row.data.shape) - 1 and not (isinstance(size, int) and size < _MANY * BLOCK)


def some_precede(loops: Loops, row: Row, first: Any, last: Any, ascending: bool, found: E.Buffer) -> Stmt:
    """Sets found[0] to whether some of the block of values that begins at `first` stands before `last`."""

    def before(n: Any) -> Any:
        value = row.value(first + n)
        if ascending:
            return value < last
        return E.lnot(value <= last) if dt.is_float(last.dtype) else value > last

    look = some_lane(loops, BLOCK, before, row.data.dtype, found)
    if not dt.is_float(last.dtype):
        return look
    number = E.binary(E.EQ, last, last)  # nothing stands before a NaN, in ascending order all numbers do
    return loops.when(number, look, loops.store(found, 0, E.const(1 if ascending else 0)))


def some_lane(loops: Loops, count: int, test: Callable[[Any], Any], like: str, found: E.Buffer) -> Stmt:
    """Sets found[0] to whether test(n) holds for some n < count, all at once; `like`: a dtype as wide as it reads."""
    dtype = f"int{8 * dt.nbytes(like)}"

    def look(lanes: E.Buffer, total: E.Buffer) -> list[Stmt]:
        def mark(n: Any) -> Stmt:
            return loops.store(lanes, n, E.select(test(n), E.const(-1, dtype), E.const(0, dtype)))

        return [
            loops.loop(count, mark, "l", "vectorized"),
            loops.store(total, 0, E.const(0, dtype)),
            loops.loop(count, lambda n: loops.store(total, 0, total[0] + lanes[n]), "l"),
            loops.store(found, 0, E.select(E.binary(E.NE, total[0], E.const(0, dtype)), E.const(1), E.const(0))),
        ]

    return loops.cells(dtype, count, lambda lanes: loops.cells(dtype, 1, lambda total: look(lanes, total)))
