"""softmax and its relatives over one axis or several: maximum, exponential, sum and quotient as stages of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.ir.node import Attrs
from warpbeam.op.base import Op, accumulation, norm_axes, tensors
from warpbeam.op.nn_common import np_accum, require_float
from warpbeam.relay.types import Type
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.topi import dims


class RowOp(Op):
    """Base: an operator of floats whose rows along `axis` (an int or a tuple) are independent; shape and dtype stay."""

    defaults = {"axis": -1}

    def axes(self, attrs: Attrs, ndim: int) -> tuple[int, ...]:
        return norm_axes(self, attrs["axis"], ndim)

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x = tensors(self, types)[0]
        require_float(self, x)
        self.axes(attrs, x.ndim)
        return x

    def flops(self, attrs: Attrs, types: Sequence[Any], out_type: Any) -> Any:
        return dims.prod([4, *types[0].shape])


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

        return te.compute([self.shape[a] for a in self.kept], body, name=name)

    def of(self, idx: Sequence[Any]) -> tuple[Any, ...]:
        """Index of a row's statistic for a full index."""
        return tuple(idx[a] for a in self.kept)

    def count(self) -> Any:
        """Elements of a row."""
        return dims.prod(self.shape[a] for a in self.axes)

    def spread(self, fn: Any, name: str) -> Any:
        return te.compute(self.shape, fn, name=name)


class Softmax(RowOp):
    """exp(x - max) / sum exp(x - max) over each row."""

    name = "nn.softmax"

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        axes, wide = self.axes(attrs, x.ndim), np_accum(x)
        with np.errstate(invalid="ignore"):
            e = np.exp(wide - wide.max(axis=axes, keepdims=True, initial=-np.inf))
            return (e / e.sum(axis=axes, keepdims=True)).astype(x.dtype)  # type: ignore[no-any-return]

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x = inputs[0]
        wide, rows = accumulation(x.dtype), Rows(x.shape, self.axes(attrs, x.ndim))
        top = rows.stat(lambda *i: E.cast(wide, x[i]), te.max, "row_max")
        e = rows.spread(lambda *i: E.call("exp", E.cast(wide, x[i]) - top[rows.of(i)]), "row_exp")
        total = rows.stat(lambda *i: e[i], te.sum, "row_sum")
        one = E.const(1.0, wide)
        scale = te.compute(total.shape, lambda *i: E.div(one, total[i]), name="row_scale")  # one division per row
        return rows.spread(lambda *i: E.cast(x.dtype, e[i] * scale[rows.of(i)]), "softmax")


class LogSoftmax(RowOp):
    """x - max - log(sum exp(x - max)) over each row."""

    name = "nn.log_softmax"

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        axes, wide = self.axes(attrs, x.ndim), np_accum(x)
        with np.errstate(invalid="ignore", divide="ignore"):
            shifted = wide - wide.max(axis=axes, keepdims=True, initial=-np.inf)
            return (shifted - np.log(np.exp(shifted).sum(axis=axes, keepdims=True))).astype(x.dtype)  # type: ignore[no-any-return]

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x = inputs[0]
        wide, rows = accumulation(x.dtype), Rows(x.shape, self.axes(attrs, x.ndim))
        top = rows.stat(lambda *i: E.cast(wide, x[i]), te.max, "row_max")
        total = rows.stat(lambda *i: E.call("exp", E.cast(wide, x[i]) - top[rows.of(i)]), te.sum, "row_sum")

        def element(*i: Any) -> Any:
            return E.cast(x.dtype, E.cast(wide, x[i]) - top[rows.of(i)] - E.call("log", total[rows.of(i)]))

        return rows.spread(element, "log_softmax")


class Hardmax(RowOp):
    """1 at the first maximum of each row (row-major over the axes), else 0."""

    name = "nn.hardmax"

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        axes = self.axes(attrs, x.ndim)
        kept = [a for a in range(x.ndim) if a not in axes]
        order = [*kept, *axes]
        rows = x.transpose(order).reshape(*[x.shape[a] for a in kept], -1)
        hot = np.arange(rows.shape[-1]) == rows.argmax(axis=-1)[..., None]
        back = hot.reshape([x.shape[a] for a in order]).transpose(np.argsort(order))
        return np.ascontiguousarray(back).astype(x.dtype)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x = inputs[0]
        rows = Rows(x.shape, self.axes(attrs, x.ndim))
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
            return E.cast(out_type.dtype, E.binary(E.EQ, place(i), first[rows.of(i)]))

        return rows.spread(element, "hardmax")


class L2Normalize(RowOp):
    """x / sqrt(max(sum x², eps)) over each row."""

    name = "nn.l2_normalize"
    defaults = {"eps": 1e-12, "axis": None}

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        wide = np_accum(x)
        total = (wide * wide).sum(axis=self.axes(attrs, x.ndim), keepdims=True)
        return (wide / np.sqrt(np.maximum(total, wide.dtype.type(attrs["eps"])))).astype(x.dtype)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x = inputs[0]
        wide, rows = accumulation(x.dtype), Rows(x.shape, self.axes(attrs, x.ndim))
        total = rows.stat(lambda *i: E.cast(wide, x[i]) * E.cast(wide, x[i]), te.sum, "row_sum")

        def element(*i: Any) -> Any:
            norm = E.call("sqrt", E.maximum(total[rows.of(i)], E.const(float(attrs["eps"]), wide)))
            return E.cast(x.dtype, E.div(E.cast(wide, x[i]), norm))

        return rows.spread(element, "l2_normalize")


class LpNormalize(RowOp):
    """x / (sum |x|^p)^(1/p) over each row, p 1 or 2; a row of norm 0 gives 0."""

    name = "nn.lp_normalize"
    defaults = {"axis": -1, "p": 2}

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        wide, p = np_accum(x), attrs["p"]
        norm = np.linalg.norm(wide, ord=p, axis=self.axes(attrs, x.ndim)[0], keepdims=True)
        return np.where(norm == 0, 0, wide / np.where(norm == 0, 1, norm)).astype(x.dtype)

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        if attrs["p"] not in (1, 2) or not isinstance(attrs["axis"], int):
            raise self.error(f"p = {attrs['p']} over axis {attrs['axis']}", hint="p is 1 or 2, axis one axis")
        return super().infer_type(types, attrs)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        from warpbeam.op.nn_pool import power, root

        x, p = inputs[0], attrs["p"]
        wide, rows = accumulation(x.dtype), Rows(x.shape, self.axes(attrs, x.ndim))
        total = rows.stat(lambda *i: power(E.cast(wide, x[i]), p), te.sum, "row_sum")

        def element(*i: Any) -> Any:
            norm = root(total[rows.of(i)], p)
            zero = E.const(0.0, wide)
            empty = E.binary(E.EQ, norm, zero)
            return E.cast(
                x.dtype, E.select(empty, zero, E.div(E.cast(wide, x[i]), E.select(empty, E.const(1.0, wide), norm)))
            )

        return rows.spread(element, "lp_normalize")


class MeanVarianceNorm(RowOp):
    """(x - mean) / (standard deviation + eps) over each row."""

    name = "nn.mean_variance_norm"
    defaults = {"axis": (0, 2, 3), "eps": 1e-9}

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        axes, wide = self.axes(attrs, x.ndim), np_accum(x)
        centred = wide - wide.mean(axis=axes, keepdims=True)
        deviation = np.sqrt((centred * centred).mean(axis=axes, keepdims=True))
        return (centred / (deviation + wide.dtype.type(attrs["eps"]))).astype(x.dtype)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x = inputs[0]
        wide, rows = accumulation(x.dtype), Rows(x.shape, self.axes(attrs, x.ndim))
        count = E.cast(wide, E.as_expr(rows.count()))
        total = rows.stat(lambda *i: E.cast(wide, x[i]), te.sum, "row_sum")

        def centred(*i: Any) -> Any:
            return E.cast(wide, x[i]) - E.div(total[rows.of(i)], count)

        spread = rows.stat(lambda *i: centred(*i) * centred(*i), te.sum, "row_squares")

        def element(*i: Any) -> Any:
            deviation = E.call("sqrt", E.div(spread[rows.of(i)], count))
            return E.cast(x.dtype, E.div(centred(*i), deviation + E.const(float(attrs["eps"]), wide)))

        return rows.spread(element, "mean_variance_norm")
