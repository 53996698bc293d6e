"""softmax and its relatives over one axis or several: maximum, exponential, sum and quotient as stages of their own.

The functions ending in `_over` take sorted non-negative axes. Half floats are computed in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.tir.op import exp_below
from warpbeam.topi import dims, tag
from warpbeam.topi.common import Caller, accumulation, norm_axes
from warpbeam.topi.scalar import norm_power, norm_root


class Rows:
    """te stages over the rows of a shape: `stat` reduces each row, `spread` computes element by element."""

    def __init__(self, shape: Sequence[Any], axes: Sequence[int]) -> None:
        self.shape, self.axes = tuple(shape), tuple(axes)
        self.kept = [a for a in range(len(self.shape)) if a not in self.axes]

    def stat(self, source: Any, reducer: Any, name: str) -> Any:
        """reducer over each row of source(full index)."""
        ks = {a: te.reduce_axis(self.shape[a], f"k{a}") for a in self.axes}

        def body(*idx: Any) -> Any:
            outer = dict(zip(self.kept, idx, strict=True))
            full = tuple(ks[a].var if a in ks else outer[a] for a in range(len(self.shape)))
            return reducer(source(*full), axis=list(ks.values())) if ks else source(*full)

        return te.compute([self.shape[a] for a in self.kept], body, name=name, tag=tag.COMM_REDUCE)

    def of(self, idx: Sequence[Any]) -> tuple[Any, ...]:
        """Index of a row's statistic for a full index."""
        return tuple(idx[a] for a in self.kept)

    def count(self) -> Any:
        """Elements of a row."""
        return dims.prod(self.shape[a] for a in self.axes)

    def spread(self, fn: Any, name: str, label: str = tag.BROADCAST) -> Any:
        return te.compute(self.shape, fn, name=name, tag=label)


def row_tops(rows: Rows, x: te.Tensor, wide: str) -> Any:
    """The largest number of each row, -inf if there is none. NaNs are left out: whatever subtracts it from the row's
    elements and sums up meets them again.
    """

    def number(*i: Any) -> Any:
        v = E.cast(wide, x[i])
        return E.select(E.call("isnan", v, dtype="bool"), te.min_value(wide), v)

    return rows.stat(number, te.max, "row_max")


def softmax_over(x: te.Tensor, axes: Sequence[int]) -> Any:
    """exp(x - max) / sum exp(x - max) over each row."""
    wide, rows = accumulation(x.dtype), Rows(x.shape, axes)
    top = row_tops(rows, x, wide)
    e = rows.spread(lambda *i: exp_below(E.cast(wide, x[i]), top[rows.of(i)]), "row_exp")
    total = rows.stat(lambda *i: e[i], te.sum, "row_sum")
    one = E.const(1.0, wide)
    scale = te.compute(total.shape, lambda *i: E.div(one, total[i]), name="row_scale")  # one division per row
    return rows.spread(lambda *i: E.cast(x.dtype, e[i] * scale[rows.of(i)]), "softmax", tag.SOFTMAX)


def log_softmax_over(x: te.Tensor, axes: Sequence[int]) -> Any:
    """x - max - log(sum exp(x - max)) over each row."""
    wide, rows = accumulation(x.dtype), Rows(x.shape, axes)
    top = row_tops(rows, x, wide)
    total = rows.stat(lambda *i: exp_below(E.cast(wide, x[i]), top[rows.of(i)]), te.sum, "row_sum")

    def element(*i: Any) -> Any:
        return E.cast(x.dtype, E.cast(wide, x[i]) - top[rows.of(i)] - E.call("log", total[rows.of(i)]))

    return rows.spread(element, "log_softmax", "log_softmax_output")


def hardmax_over(x: te.Tensor, axes: Sequence[int]) -> Any:
    """1 at the first maximum of each row (row-major over the axes), else 0."""
    rows = Rows(x.shape, axes)
    top = rows.stat(lambda *i: x[i], te.max, "row_max")

    def place(idx: Sequence[Any]) -> Any:
        flat: Any = E.const(0)
        for a in rows.axes:
            flat = flat * rows.shape[a] + idx[a]
        return flat

    def candidate(*i: Any) -> Any:
        return E.select(x[i] >= top[rows.of(i)], place(i), te.max_value("int64"))

    first = rows.stat(candidate, te.min, "first")

    def element(*i: Any) -> Any:
        return E.cast(x.dtype, E.binary(E.EQ, place(i), first[rows.of(i)]))

    return rows.spread(element, "hardmax")


def l2_normalize_over(x: te.Tensor, axes: Sequence[int], eps: float) -> Any:
    """x / sqrt(max(sum x², eps)) over each row."""
    wide, rows = accumulation(x.dtype), Rows(x.shape, axes)
    total = rows.stat(lambda *i: E.cast(wide, x[i]) * E.cast(wide, x[i]), te.sum, "row_sum")

    def element(*i: Any) -> Any:
        norm = E.call("sqrt", E.maximum(total[rows.of(i)], E.const(float(eps), wide)))
        return E.cast(x.dtype, E.div(E.cast(wide, x[i]), norm))

    return rows.spread(element, "l2_normalize")


def lp_normalize_over(x: te.Tensor, axes: Sequence[int], p: int) -> Any:
    """x / (sum |x|^p)^(1/p) over each row, p 1 or 2; a row of norm 0 gives 0."""
    wide, rows = accumulation(x.dtype), Rows(x.shape, axes)
    total = rows.stat(lambda *i: norm_power(E.cast(wide, x[i]), p), te.sum, "row_sum")

    def element(*i: Any) -> Any:
        norm = norm_root(total[rows.of(i)], p)
        zero = E.const(0.0, wide)
        empty = E.binary(E.EQ, norm, zero)
        quotient = E.div(E.cast(wide, x[i]), E.select(empty, E.const(1.0, wide), norm))
        return E.cast(x.dtype, E.select(empty, zero, quotient))

    return rows.spread(element, "lp_normalize")


def mean_variance_over(x: te.Tensor, axes: Sequence[int], eps: float) -> Any:
    """(x - mean) / (standard deviation + eps) over each row."""
    wide, rows = accumulation(x.dtype), Rows(x.shape, axes)
    count = E.cast(wide, E.as_expr(rows.count()))
    total = rows.stat(lambda *i: E.cast(wide, x[i]), te.sum, "row_sum")

    def centred(*i: Any) -> Any:
        return E.cast(wide, x[i]) - E.div(total[rows.of(i)], count)

    spread = rows.stat(lambda *i: centred(*i) * centred(*i), te.sum, "row_squares")

    def element(*i: Any) -> Any:
        deviation = E.call("sqrt", E.div(spread[rows.of(i)], count))
        return E.cast(x.dtype, E.div(centred(*i), deviation + E.const(float(eps), wide)))

    return rows.spread(element, "mean_variance_norm")


def softmax(x: te.Tensor, axis: Any = -1) -> Any:
    """exp(x - max) / sum exp(x - max) along `axis` (an int or several)."""
    return softmax_over(x, norm_axes(Caller("nn.softmax"), axis, x.ndim))


def fast_softmax(x: te.Tensor, axis: Any = -1) -> Any:
    """softmax: the exponential's expansion is fast already."""
    return softmax(x, axis)


def log_softmax(x: te.Tensor, axis: Any = -1) -> Any:
    """x - max - log(sum exp(x - max)) along `axis` (an int or several)."""
    return log_softmax_over(x, norm_axes(Caller("nn.log_softmax"), axis, x.ndim))


def l2_normalize(data: te.Tensor, eps: float, axis: Any = None) -> Any:
    """data / sqrt(max(sum data², eps)) along `axis` (None: all)."""
    return l2_normalize_over(data, norm_axes(Caller("nn.l2_normalize"), axis, data.ndim), eps)
