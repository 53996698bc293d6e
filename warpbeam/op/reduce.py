"""Reductions over axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.op import dims
from warpbeam.op.base import Reduce, accumulation, at_broadcast, merge_index, reduce_stage
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E


def _exact(fn: Any) -> Any:
    """A NumPy reduction that keeps the operand's dtype (NumPy widens small integers)."""
    return lambda x, axis, keepdims: fn(x, axis=axis, keepdims=keepdims, dtype=x.dtype)


def _mean_ref(x: np.ndarray, axis: Any, keepdims: bool) -> np.ndarray:
    if x.dtype.kind in "iu":
        total = np.sum(x, axis=axis, keepdims=keepdims, dtype=x.dtype)
        count = int(np.prod([x.shape[a] for a in axis], dtype=np.int64))
        sign = np.sign(total.astype(np.int64)) if x.dtype.kind == "i" else 1
        return np.asarray(sign * (np.abs(total) // max(count, 1)))
    return np.mean(x, axis=axis, keepdims=keepdims)


def _min_ref(x: np.ndarray, axis: Any, keepdims: bool) -> np.ndarray:
    return np.min(x, axis=axis, keepdims=keepdims, initial=_limit(x.dtype, 1))


def _max_ref(x: np.ndarray, axis: Any, keepdims: bool) -> np.ndarray:
    return np.max(x, axis=axis, keepdims=keepdims, initial=_limit(x.dtype, 0))


def _limit(dtype: np.dtype, which: int) -> Any:
    """The dtype's smallest (0) or largest (1) value: the reduction of nothing."""
    if dtype.kind == "b":
        return bool(which)
    if dtype.kind in "iu":
        return np.iinfo(dtype).max if which else np.iinfo(dtype).min
    return np.inf if which else -np.inf


# fmt: off
class Sum(Reduce, name="sum", reducer=te.sum, ref=_exact(np.sum)): ...
class Prod(Reduce, name="prod", reducer=te.prod, ref=_exact(np.prod)): ...
class Max(Reduce, name="max", reducer=te.max, ref=_max_ref): ...
class Min(Reduce, name="min", reducer=te.min, ref=_min_ref): ...
class All(Reduce, name="all", reducer=te.all_of, ref=np.all, kinds=("bool",)): ...
class Any_(Reduce, name="any", reducer=te.any_of, ref=np.any, kinds=("bool",)): ...
class Mean(Reduce, name="mean", reducer=te.sum, ref=_mean_ref, finish=lambda total, n: E.div(total, n)): ...
# fmt: on


class _ArgReduce(Reduce):
    """Index (int64) of the extreme element over `axis`, counted over the reduced axes together; NaN is extreme.

    Of equal elements the first counts, the last with `select_last_index`.
    """

    defaults = {**Reduce.defaults, "select_last_index": False}

    def result_dtype(self, dtype: str) -> str:
        return "int64"

    def beats(self, a: E.PrimExpr, b: E.PrimExpr) -> E.PrimExpr:
        raise NotImplementedError

    def start(self, dtype: str) -> E.PrimExpr:
        raise NotImplementedError

    def better(self, last: bool, a: Any, b: Any) -> E.PrimExpr:
        """Whether the (index, value) pair b replaces a."""
        wins = self.beats(b[1], a[1])
        equal = E.binary(E.EQ, a[1], b[1])
        if dt.is_float(a[1].dtype):
            nan_a, nan_b = E.call("isnan", a[1], dtype="bool"), E.call("isnan", b[1], dtype="bool")
            wins = E.lor(wins, E.land(nan_b, E.lnot(nan_a)))
            equal = E.lor(equal, E.land(nan_a, nan_b))
        order = b[0] > a[0] if last else b[0] < a[0]
        return E.lor(wins, E.land(equal, order))

    def numpy(self, attrs: Attrs, x: np.ndarray) -> Any:
        axes = self.axes(attrs, x.ndim)
        kept = [d for d in range(x.ndim) if d not in axes]
        rows = x.transpose(kept + list(axes)).reshape([x.shape[d] for d in kept] + [-1])
        find = np.argmax if self.name == "argmax" else np.argmin
        if attrs["select_last_index"]:
            found = rows.shape[-1] - 1 - find(rows[..., ::-1], axis=-1)
        else:
            found = find(rows, axis=-1)
        return np.asarray(found, np.int64).reshape(self.reduced(attrs, x.shape))

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        x, last = inputs[0], attrs["select_last_index"]
        axes = self.axes(attrs, x.ndim)
        ks = [te.reduce_axis(x.shape[a], f"k{a}") for a in axes]
        if not ks:
            return te.compute(out_type.shape, lambda *i: E.const(0), name=self.name)
        start = -1 if last else dt.int_range("int64")[1]

        def combine(a: Any, b: Any) -> Any:
            take = self.better(last, a, b)
            return E.select(take, b[0], a[0]), E.select(take, b[1], a[1])

        pick = te.comm_reducer(combine, lambda t, u: (E.const(start), self.start(u)), name=self.name)

        def element(*index: Any) -> Any:
            full = merge_index(index, axes, [k.var for k in ks], x.ndim, attrs["keepdims"])
            place: Any = E.const(0)
            for k, a in zip(ks, axes, strict=True):
                place = place * x.shape[a] + k.var
            return pick((place, x[full]), axis=ks)

        return te.compute(out_type.shape, element, name=self.name)[0]


class ArgMax(_ArgReduce, name="argmax"):
    __doc__ = _ArgReduce.__doc__

    def beats(self, a: E.PrimExpr, b: E.PrimExpr) -> E.PrimExpr:
        return a > b

    def start(self, dtype: str) -> E.PrimExpr:
        return te.min_value(dtype)


class ArgMin(_ArgReduce, name="argmin"):
    __doc__ = _ArgReduce.__doc__

    def beats(self, a: E.PrimExpr, b: E.PrimExpr) -> E.PrimExpr:
        return a < b

    def start(self, dtype: str) -> E.PrimExpr:
        return te.max_value(dtype)


class LogSumExp(Reduce, name="logsumexp", kinds=("float",)):
    """log(sum(exp(x))) over `axis`, shifted by the maximum so that it does not overflow."""

    def numpy(self, attrs: Attrs, x: np.ndarray) -> Any:
        axes = self.axes(attrs, x.ndim)
        v = x.astype(np.float32) if x.dtype.itemsize < 4 else x
        with np.errstate(all="ignore"):
            top = np.max(v, axis=axes, keepdims=True, initial=-np.inf)
            top = np.where(np.isfinite(top), top, 0).astype(v.dtype)
            out = np.log(np.sum(np.exp(v - top), axis=axes, keepdims=True)) + top
            return np.asarray(out.reshape(self.reduced(attrs, x.shape))).astype(x.dtype)

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        x = inputs[0]
        axes, keep = self.axes(attrs, x.ndim), attrs["keepdims"]
        inner = accumulation(x.dtype)
        if not axes:
            return te.compute(out_type.shape, lambda *i: x[i], name="logsumexp")
        raw = reduce_stage(x, axes, keep, out_type.shape, te.max, lambda e: E.cast(inner, e), "row_max")
        infinity = E.const(float("inf"), inner)
        top = te.compute(
            out_type.shape,
            lambda *i: E.select(E.call("abs", raw[i]) < infinity, raw[i], E.const(0.0, inner)),
            name="row_shift",
        )
        ks = [te.reduce_axis(x.shape[a], f"k{a}") for a in axes]

        def element(*index: Any) -> Any:
            full = merge_index(index, axes, [k.var for k in ks], x.ndim, keep)
            return te.sum(E.call("exp", E.cast(inner, x[full]) - top[index]), axis=ks)

        total = te.compute(out_type.shape, element, name="row_sum")
        return te.compute(
            out_type.shape,
            lambda *i: E.cast(out_type.dtype, E.call("log", total[i]) + top[i]),
            name="logsumexp",
        )


class Variance(Reduce, name="variance", kinds=("float",)):
    """Mean of squared distances to the mean over `axis`; divided by n - 1 with `unbiased`. Two passes, as NumPy's."""

    defaults = {**Reduce.defaults, "unbiased": False}

    def numpy(self, attrs: Attrs, x: np.ndarray) -> Any:
        v = x.astype(np.float32) if x.dtype.itemsize < 4 else x
        axes = self.axes(attrs, x.ndim)
        with np.errstate(all="ignore"):
            out = np.var(v, axis=axes, keepdims=attrs["keepdims"], ddof=int(attrs["unbiased"]))
        return np.asarray(out).astype(x.dtype)

    def compute(self, attrs: Attrs, inputs: Any, out_type: Any) -> Any:
        x = inputs[0]
        axes, keep = self.axes(attrs, x.ndim), attrs["keepdims"]
        inner = accumulation(x.dtype)
        count = dims.prod(x.shape[a] for a in axes)
        full_shape = tuple(1 if d in axes else s for d, s in enumerate(x.shape))
        total = reduce_stage(x, axes, True, full_shape, te.sum, lambda e: E.cast(inner, e), "total")
        mean = te.compute(full_shape, lambda *i: E.div(total[i], E.cast(inner, E.as_expr(count))), name="mean")
        ks = [te.reduce_axis(x.shape[a], f"k{a}") for a in axes]

        def element(*index: Any) -> Any:
            full = merge_index(index, axes, [k.var for k in ks], x.ndim, keep)
            gap = E.cast(inner, x[full]) - at_broadcast(mean, full, x.shape)
            return te.sum(gap * gap, axis=ks) if ks else gap * gap

        squares = te.compute(out_type.shape, element, name="squares")
        divisor = E.cast(inner, E.as_expr(count - 1 if attrs["unbiased"] else count))
        return te.compute(
            out_type.shape, lambda *i: E.cast(out_type.dtype, E.div(squares[i], divisor)), name="variance"
        )
