"""Pairs (key, place) side by side in memory: put in order digit by digit, or kept as a heap. See `sort_rows.ordered`.

Order: ascending keys, of equal ones ascending places, which is how they stand at first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.op.index_loops import Loops
from warpbeam.op.sort_rows import ordered, ordered_type
from warpbeam.tir import expr as E
from warpbeam.tir.stmt import Stmt

INT = "int64"
_DIGIT = 8  # bits
_SHORT = 24  # pairs that are inserted one by one
_LANES = 16


class Pairs:
    """Room for pairs of values of `dtype`, `count` for each of `outer`; `at` says for which of these."""

    def __init__(self, loops: Loops, outer: Sequence[Any], count: Any, dtype: str) -> None:
        self.loops, self.at = loops, list[Any]()
        self.keys = loops.temp((*outer, count), ordered_type(dtype))
        self.places = loops.temp((*outer, count), INT)

    def of(self, at: Sequence[Any]) -> Pairs:
        """The same pairs, of one place of `outer`."""
        out = copy(self)
        out.at = list(at)
        return out

    def key(self, value: Any, ascending: bool) -> Any:
        """The key of a value, which stands in descending order by its bits turned round."""
        return ordered(value) if ascending else E.call("bitwise_not", ordered(value))

    def get(self, n: Any) -> list[Any]:
        """(key, place) of pair n."""
        return [self.keys[(*self.at, n)], self.places[(*self.at, n)]]

    def put(self, n: Any, pair: Sequence[Any]) -> list[Stmt]:
        """Stores pair n."""
        return [self.loops.store(b, [*self.at, n], v) for b, v in zip((self.keys, self.places), pair, strict=True)]


# ------------------------------------------------------------------------------------------------------------- in order


def fill(pairs: Pairs, size: Any, pair: Callable[[Any], Sequence[Any]], span: E.Buffer) -> list[Stmt]:
    """Stores pair(i) for i < size; span: the least and the largest key."""
    loops, kind = pairs.loops, pairs.keys.dtype
    top = (1 << dt.bits(kind) - 1) - 1

    def one(i: Any) -> Stmt:
        def store(v: list[Any]) -> list[Stmt]:
            low, high = E.minimum(span[0], v[0]), E.maximum(span[1], v[0])
            return [*pairs.put(i, v), loops.store(span, 0, low), loops.store(span, 1, high)]

        return loops.lets(pair(i), store)

    start = [loops.store(span, n, E.const(v, kind)) for n, v in enumerate((top, -top - 1))]
    return [*start, loops.loop(size, one, "f")]


def sort(pairs: Pairs, other: Pairs, size: Any, pair: Callable[[Any], Sequence[Any]]) -> Stmt:
    """Puts pair(i), i < size, in order; pairs of equal keys stay as they come. `other`: scratch of the same size.

    By digits of what keys are above the least one, the last digit first: as many passes as the largest has.
    """
    loops, kind = pairs.loops, pairs.keys.dtype

    def run(span: E.Buffer) -> list[Stmt]:
        digits = loops.cells(kind, 2, lambda cell: _digits(pairs, other, size, span[0], span[1], cell))
        short = E.as_expr(size) <= _SHORT
        return [*fill(pairs, size, pair, span), loops.when(short, _insert(pairs, size), digits)]

    return loops.cells(kind, 2, run)


def _insert(pairs: Pairs, size: Any) -> Stmt:
    """Few pairs: each moves up to its place."""
    loops = pairs.loops

    def one(i: Any) -> Stmt:
        def move(pair: list[Any]) -> Stmt:
            def run(cell: E.Buffer) -> list[Stmt]:
                above = E.maximum(cell[0] - 1, E.const(0))
                go = E.land(cell[0] > 0, pairs.get(above)[0] > pair[0])
                down = [*pairs.put(cell[0], pairs.get(above)), loops.store(cell, 0, above)]
                return [loops.store(cell, 0, i), loops.loop_while(go, down), *pairs.put(cell[0], pair)]

            return loops.cells(INT, 1, run)

        return loops.lets(pairs.get(i), move)

    return loops.loop(size, one, "i")


def _digits(pairs: Pairs, other: Pairs, size: Any, low: Any, high: Any, cell: E.Buffer) -> list[Stmt]:
    """A pass for each digit; cell: the digits that are left, and where the next one begins."""
    loops, kind = pairs.loops, pairs.keys.dtype
    many, by = 1 << _DIGIT, E.const(_DIGIT, kind)

    def digit(key: Any) -> Any:
        return E.cast(INT, E.call("bitwise_and", E.call("shift_right", key - low, cell[1]), E.const(many - 1, kind)))

    def each(step: Callable[[Any], Any]) -> Stmt:
        return loops.loop(size, step, "d")

    def sweep(count: E.Buffer, total: E.Buffer) -> list[Stmt]:
        def tally(i: Any) -> Stmt:
            return loops.let(digit(pairs.get(i)[0]), lambda d: loops.store(count, d, count[d] + 1))

        def begin(d: Any) -> Stmt:
            def put(n: Any) -> list[Stmt]:
                return [loops.store(count, d, total[0]), loops.store(total, 0, total[0] + n)]

            return loops.let(count[d], put)

        def place(pair: list[Any]) -> Stmt:
            def put(v: list[Any]) -> list[Stmt]:
                return [*other.put(v[1], pair), loops.store(count, v[0], v[1] + 1)]

            return loops.let(digit(pair[0]), lambda d: loops.let(count[d], lambda n: put([d, n])))

        return [
            loops.loop(many, lambda d: loops.store(count, d, E.const(0)), "z"),
            each(tally),
            loops.store(total, 0, E.const(0)),
            loops.loop(many, begin, "z"),
            each(lambda i: loops.lets(pairs.get(i), place)),
            loops.nest([size], lambda at: pairs.put(at[0], other.get(at[0])), "o", lanes=_LANES),
        ]

    rest = E.call("bitwise_and", E.call("shift_right", cell[0], by), E.const((1 << dt.bits(kind) - _DIGIT) - 1, kind))
    passes = [
        loops.cells(INT, many, lambda count: loops.cells(INT, 1, lambda total: sweep(count, total))),
        loops.store(cell, 0, rest),
        loops.store(cell, 1, cell[1] + by),
    ]
    start = [loops.store(cell, 0, high - low), loops.store(cell, 1, E.const(0, kind))]
    return [*start, loops.loop_while(E.binary(E.NE, cell[0], E.const(0, kind)), passes)]


# --------------------------------------------------------------------------------------------------------------- a heap


class Heap:
    """Pairs of which the first in order (or the last) is on top."""

    def __init__(self, pairs: Pairs, last: bool) -> None:
        self.pairs, self.last, self.loops = pairs, last, pairs.loops

    def before(self, a: Sequence[Any], b: Sequence[Any]) -> Any:
        """Whether pair a belongs above b."""
        if self.last:
            a, b = b, a
        return E.lor(a[0] < b[0], E.land(E.binary(E.EQ, a[0], b[0]), a[1] < b[1]))

    def make(self, count: Any) -> Stmt:
        """Makes a heap of the first `count` pairs."""

        def one(k: Any) -> Stmt:
            place = count // 2 - 1 - k
            return self.loops.lets(self.pairs.get(place), lambda pair: self.sift(place, pair, count))

        return self.loops.loop(count // 2, one, "h")

    def pop(self, count: Any) -> Stmt:
        """Removes the top, after which `count` pairs are left."""
        return self.loops.lets(self.pairs.get(count), lambda pair: self.sift(E.const(0), pair, count))

    def sift(self, start: Any, pair: Sequence[Any], count: Any) -> Stmt:
        """Puts a pair at or below place `start`, whose own goes: the better children move up to a leaf, which asks
        for no comparison with the pair, and those that belong below it down again, which are few.
        """
        loops, pairs = self.loops, self.pairs

        def run(cell: E.Buffer) -> list[Stmt]:
            hole, child, above = cell[0], 2 * cell[0] + 1, (cell[0] - 1) // 2

            def down(left: Any) -> Stmt:
                right = E.minimum(left + 1, count - 1)
                better = E.select(self.before(pairs.get(right), pairs.get(left)), right, left)
                return loops.let(better, lambda c: [*pairs.put(hole, pairs.get(c)), loops.store(cell, 0, c)])

            def up(parent: Any) -> list[Stmt]:
                return [*pairs.put(hole, pairs.get(parent)), loops.store(cell, 0, parent)]

            worse = E.land(hole > start, self.before(pair, pairs.get(E.maximum(above, E.const(0)))))
            return [
                loops.store(cell, 0, start),
                loops.loop_while(child < count, loops.let(child, down)),
                loops.loop_while(worse, loops.let(above, up)),
                *pairs.put(hole, pair),
            ]

        return loops.cells(INT, 1, run)
