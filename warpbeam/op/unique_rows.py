"""The program of `unique_places`: entries sorted column by column, the last one first, then grouped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warpbeam.op.index_loops import Loops
from warpbeam.op.sort_pairs import Pairs, sort
from warpbeam.op.sort_rows import precedes
from warpbeam.tir import expr as E
from warpbeam.tir.stmt import PrimFunc, Stmt
from warpbeam.topi import dims

INT = "int64"


class _Entries:
    """The entries of data along axis 0, compared column by column."""

    def __init__(self, loops: Loops) -> None:
        self.loops, self.x = loops, loops.ins[0]
        self.size, self.rest = self.x.shape[0], self.x.shape[1:]
        self.columns = dims.prod(self.rest)

    def value(self, entry: Any, column: Any) -> Any:
        return self.x[(entry, *self.loops.unflatten(column, self.rest))]

    def each_column(self, body: Any) -> Stmt | list[Any]:
        """`body(column)` for the last column first."""
        if not self.rest:
            return body(E.const(0))  # type: ignore[no-any-return]
        last = E.as_expr(self.columns) - 1
        return self.loops.loop(self.columns, lambda c: body(last - c), "c")

    def sort_by(self, column: Any, order: Pairs, other: Pairs) -> Stmt:
        """One stable sort by a column, of entries in the order so far."""

        def pair(i: Any) -> list[Any]:
            entry = order.get(i)[1]
            return [order.key(self.value(entry, column), True), entry]

        return sort(order, other, self.size, pair)

    def differ(self, a: Any, b: Any, flag: E.Buffer) -> Any:
        """Sets the flag where two entries differ."""

        def column(c: Any) -> Stmt:
            x, y = self.value(a, c), self.value(b, c)
            unequal = E.lor(precedes(x, y, True), precedes(y, x, True))
            return self.loops.when(unequal, self.loops.store(flag, 0, E.const(1)))

        return self.each_column(column)


def unique_program(name: str, inputs: Sequence[Any], out_type: Any, ordered: bool) -> PrimFunc:
    """(first, inverse, counts, count) as `unique_places` says."""
    loops = Loops(name, inputs, list(out_type.fields))
    first, inverse, counts, count = loops.outs
    entries = _Entries(loops)
    n = entries.size
    pairs, other = (Pairs(loops, (), n, entries.x.dtype) for _ in range(2))
    order = pairs.places
    places, sizes = (first, counts) if ordered else (loops.temp((n,), INT), loops.temp((n,), INT))

    def clear(i: Any) -> Any:
        zeros = [loops.store(b, i, E.const(0)) for b in dict.fromkeys((first, counts, places, sizes))]
        return [loops.store(order, i, i), *zeros]  # entries without columns stay as they are

    def visit(k: Any) -> Any:
        def run(flag: E.Buffer) -> Any:
            here, before = order[k], order[E.maximum(k - 1, E.const(0))]
            group = count[()] - 1
            return [
                loops.store(flag, 0, E.select(E.binary(E.EQ, k, E.const(0)), E.const(1), E.const(0))),
                entries.differ(here, before, flag),
                loops.when(
                    flag[0] > 0,
                    [loops.store(places, count[()], here), loops.store(count, [], count[()] + 1)],
                ),
                loops.store(inverse, here, group),
                loops.store(sizes, group, sizes[group] + 1),
            ]

        return loops.cells(INT, 1, run)

    parts = [
        loops.loop(n, clear, "z"),
        entries.each_column(lambda c: entries.sort_by(c, pairs, other)),
        loops.store(count, [], E.const(0)),
        loops.loop(n, visit, "k"),
    ]
    if not ordered:
        parts += _by_appearance(loops, n, places, sizes, other.places)
    return loops.func(*parts)


def _by_appearance(loops: Loops, n: Any, places: E.Buffer, sizes: E.Buffer, rank: E.Buffer) -> list[Any]:
    """Numbers the groups in the order in which their first entries stand."""
    first, inverse, counts, _ = loops.outs

    def run(cell: E.Buffer) -> Any:
        def visit(i: Any) -> Any:
            def found(group: Any) -> Any:
                store = [
                    loops.store(rank, group, cell[0]),
                    loops.store(first, cell[0], i),
                    loops.store(counts, cell[0], sizes[group]),
                    loops.store(cell, 0, cell[0] + 1),
                ]
                return loops.when(E.binary(E.EQ, places[group], i), store)

            return loops.let(inverse[i], found)

        return [loops.store(cell, 0, E.const(0)), loops.loop(n, visit, "a")]

    renumber = loops.loop(n, lambda i: loops.store(inverse, i, rank[inverse[i]]), "r")
    return [loops.cells(INT, 1, run), renumber]
