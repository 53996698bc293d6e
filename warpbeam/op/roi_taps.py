"""The program of `vision.roi_align`: what a region's cells read along each axis is found once, for all channels.

    for regions (parallel):
        for each axis: taps (place, weight) of the samples of each cell, those outside of the data left out
        for channels, for rows of cells:
            line[column] = sum over the row's taps of weight * x[place, column]        in vectors
            for cells of the row: out = sum over its taps of weight * line[place]

A bilinear sample is a product of an axis' weights by the other's, and so is the sum over a grid of them. Weights are
not negative, so the same goes for maxima.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.op.base import accumulation
from warpbeam.op.index_loops import Loops
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.tir.stmt import PrimFunc, Stmt
from warpbeam.topi.scalar import clamped, inside

INT = "int64"
MOST_SAMPLES = 65536  # of a cell in one direction
_LINE = 64  # bytes


class _Taps:
    """What the cells of a region read along one axis, cell by cell: places and weights, in the order of the samples."""

    def __init__(self, loops: Loops, regions: Any, size: Any, cells: int, samples: int, wide: str, best: bool) -> None:
        self.loops, self.size, self.cells, self.best = loops, E.as_expr(size), cells, best
        # if a cell has as many samples as elements, they are at least half an element apart, but for rounding
        blur = cells * MOST_SAMPLES >> 19
        most = 2 * samples * cells if samples else 4 * (self.size + cells + blur + 4)
        self.most = E.as_expr(most)
        self.places, self.weights = loops.temp((regions, most), INT), loops.temp((regions, most), wide)
        self.starts, self.counts = loops.temp((regions, cells + 1), INT), loops.temp((regions, cells), INT)

    def fill(self, r: Any, low: Any, step: Any, count: Any, span: E.Buffer) -> Stmt:
        """Finds the taps; span: the first and the last place, of none a last one below the first."""
        loops, wide = self.loops, self.weights.dtype

        def run(cell: E.Buffer) -> list[Stmt]:  # taps so far, the place before the last one
            def one(j: Any) -> list[Stmt]:
                def sample(s: Any) -> Stmt:
                    at = low + step * (E.cast(wide, j) + E.div(E.cast(wide, s) + 0.5, E.cast(wide, count)))
                    return loops.let(at, lambda v: self._visit(r, j, v, cell, span))

                return [
                    loops.store(self.starts, [r, j], cell[0]),
                    loops.store(self.counts, [r, j], E.const(0)),
                    loops.store(cell, 1, E.const(-2)),
                    loops.loop(count, sample, "s"),
                ]

            return [
                loops.store(cell, 0, E.const(0)),
                loops.store(span, 0, self.size),
                loops.store(span, 1, E.const(-1)),
                loops.loop(self.cells, one, "j"),
                loops.store(self.starts, [r, self.cells], cell[0]),
            ]

        return loops.cells(INT, 2, run)

    def _visit(self, r: Any, j: Any, v: Any, cell: E.Buffer, span: E.Buffer) -> Stmt:
        """Adds the two neighbours of the sample at v, unless it is outside."""
        loops, wide = self.loops, v.dtype
        length = E.cast(wide, self.size)
        near = E.maximum(E.minimum(v, length - 1.0), E.const(0.0, wide))

        def put(n: Any, place: Any, weight: Any) -> list[Stmt]:
            at = [r, E.minimum(n, self.most - 1)]
            return [loops.store(self.places, at, place), loops.store(self.weights, at, weight)]

        def more(n: Any, weight: Any) -> Stmt:
            return loops.store(self.weights, [r, n], self.weights[r, n] + weight)

        def found(p: list[Any]) -> list[Stmt]:
            first, second, part = p
            other, n = E.const(1.0, wide) - part, cell[0]
            both = [*put(n, first, other), *put(n + 1, second, part), loops.store(cell, 0, n + 2)]
            if self.best:
                return [*both, *seen(first, second)]
            last = [more(n - 1, other), *put(n, second, part), loops.store(cell, 0, n + 1)]
            same = loops.when(
                E.binary(E.EQ, cell[1], first),
                [more(n - 2, other), more(n - 1, part)],
                loops.when(E.binary(E.EQ, cell[1] + 1, first), last, both),
            )
            return [same, *seen(first, second)]

        def seen(first: Any, second: Any) -> list[Stmt]:
            return [
                loops.store(cell, 1, first),
                loops.store(self.counts, [r, j], self.counts[r, j] + 1),
                loops.store(span, 0, E.minimum(span[0], first)),
                loops.store(span, 1, E.maximum(span[1], second)),
            ]

        def inner(i: Any) -> Stmt:
            return loops.lets([i, clamped(i + 1, self.size), near - E.cast(wide, i)], found)

        outside = E.lor(v < E.const(-1.0, wide), v > length)
        return loops.when(E.lnot(outside), loops.let(clamped(E.cast(INT, near), self.size), inner))


class _Align:
    def __init__(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> None:
        self.loops = loops = Loops("roi_align", inputs, [out_type])
        self.attrs, (self.x, self.rois, self.batch) = attrs, loops.ins
        self.wide, self.best = accumulation(self.x.dtype), attrs["mode"] == "max"
        self.half = bool(attrs["half_pixel"])
        self.regions, self.samples = self.rois.shape[0], int(attrs["sample_ratio"])
        self.taps = [
            _Taps(loops, self.regions, s, p, self.samples, self.wide, self.best)
            for s, p in zip(self.x.shape[2:], attrs["pooled_size"], strict=True)
        ]
        self.line = loops.temp((self.regions, self.x.shape[3]), self.wide)

    def program(self) -> PrimFunc:
        return self.loops.func(self.loops.nest([self.regions], self._region, "r", parallel=True))

    def _edge(self, r: Any, k: int) -> Any:
        scale = E.const(float(self.attrs["spatial_scale"]), self.wide)
        return E.cast(self.wide, self.rois[r, k]) * scale - E.const(0.5 if self.half else 0.0, self.wide)

    def _region(self, at: list[Any]) -> list[Stmt]:
        loops, r, wide = self.loops, at[0], self.wide
        n = E.cast(INT, self.batch[r])
        check = loops.check(inside(n, self.x.shape[0]), "a batch index of roi_align is outside the data")
        extent = [self._edge(r, k + 2) - self._edge(r, k) for k in (1, 0)]
        if not self.half:
            extent = [E.maximum(e, E.const(1.0, wide)) for e in extent]
        steps = [E.div(e, E.const(float(p), wide)) for e, p in zip(extent, self.attrs["pooled_size"], strict=True)]

        def counted(v: list[Any]) -> Stmt:
            counts = [E.maximum(E.cast(INT, E.call("ceil", s)), 0) for s in v[3:]]
            if self.samples:
                counts = [E.const(self.samples)] * 2
            return loops.lets(counts, lambda c: loops.cells(INT, 2, lambda span: sampled(v, c, span)))

        def sampled(v: list[Any], c: list[Any], span: E.Buffer) -> list[Stmt]:
            small = E.land(c[0] <= MOST_SAMPLES, c[1] <= MOST_SAMPLES)
            rows = self.taps[0].fill(r, v[1], v[3], c[0], span)
            columns = self.taps[1].fill(r, v[2], v[4], c[1], span)
            shape = (self.x.shape[1], self.taps[0].cells)
            nest = loops.nest(shape, lambda at: self._row(r, v[0], at, c, span), "c")
            return [loops.check(small, "a region of roi_align is too large"), rows, columns, nest]

        return [check, loops.lets([n, self._edge(r, 1), self._edge(r, 0), *steps], counted)]

    def _row(self, r: Any, n: Any, at: list[Any], c: list[Any], span: E.Buffer) -> list[Stmt]:
        """The cells of one row and channel; `span` has the columns that they read."""
        loops, (rows, columns), (channel, j) = self.loops, self.taps, at
        size = self.x.shape[3]
        most = _LINE // dt.nbytes(self.wide)
        if isinstance(size, int):
            lanes = min(most, 1 << size.bit_length() - 1)
            lines = self._lines(r, (n, channel), j, lanes, span)
        else:
            several, single = (self._lines(r, (n, channel), j, lanes, span) for lanes in (most, 1))
            lines = loops.when(size >= most, several, single)

        def one(i: Any) -> Stmt:
            def run(cell: E.Buffer) -> list[Stmt]:
                first, last = columns.starts[r, i], columns.starts[r, i + 1]
                number = E.select(rows.counts[r, j] > 0, last - first, E.const(0))
                counts = (rows.counts[r, j], c[0]), (columns.counts[r, i], c[1])
                full = E.land(*(t for a, b in counts for t in (E.binary(E.EQ, a, b), a > 0)))

                def tap(t: Any) -> Stmt:
                    value = columns.weights[r, t] * self.line[r, columns.places[r, t]]
                    return loops.store(cell, 0, self._with(cell[0], value))

                walk = loops.loop(number, lambda t: tap(first + t), "t")
                total = cell[0] if self.best else E.div(cell[0], E.cast(self.wide, E.maximum(c[0] * c[1], 1)))
                put = loops.store(loops.outs[0], [r, channel, j, i], E.cast(self.x.dtype, total))
                zero = E.const(0.0, self.wide)
                start = E.select(full, self._least(), zero) if self.best else zero
                return [loops.store(cell, 0, start), walk, put]

            return loops.cells(self.wide, 1, run)

        return [lines, loops.loop(columns.cells, one, "i")]

    def _least(self) -> Any:
        return te.min_value(self.wide) if self.best else E.const(0.0, self.wide)

    def _with(self, total: Any, value: Any) -> Any:
        return E.maximum(total, value) if self.best else total + value

    def _lines(self, r: Any, plane: tuple[Any, Any], j: Any, lanes: int, span: E.Buffer) -> Stmt:
        """What the samples of row j read in each column, `lanes` at once; the last vector may do some again."""
        loops, rows = self.loops, self.taps[0]

        def each(step: Any) -> Stmt:
            return loops.loop(lanes, step, "l", "vectorized")

        def part(k: Any) -> Stmt:
            first = E.minimum(span[0] + k * lanes, E.as_expr(self.x.shape[3]) - lanes)
            return loops.let(first, lambda f: loops.cells(self.wide, lanes, lambda total: run(f, total)))

        def run(f: Any, total: E.Buffer) -> list[Stmt]:
            def tap(p: list[Any]) -> Stmt:
                def lane(c: Any) -> Stmt:
                    value = p[1] * E.cast(self.wide, self.x[(*plane, p[0], f + c)])
                    return loops.store(total, c, self._with(total[c], value))

                return each(lane)

            first = rows.starts[r, j]
            number = rows.starts[r, j + 1] - first
            walk = loops.loop(
                number, lambda t: loops.lets([rows.places[r, first + t], rows.weights[r, first + t]], tap), "t"
            )
            clear = each(lambda c: loops.store(total, c, self._least()))
            return [clear, walk, each(lambda c: loops.store(self.line, [r, f + c], total[c]))]

        return loops.loop(E.ceildiv(span[1] + 1 - span[0], lanes), part, "k")


def align_program(attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> PrimFunc:
    """The result as `vision.roi_align` says."""
    return _Align(attrs, inputs, out_type).program()
