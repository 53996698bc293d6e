"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.ir.node import Attrs
from warpbeam.op.assumed import some_elements
from warpbeam.op.base import Reduce
from warpbeam.relay.types import Type
from warpbeam.te import tensor as te
from warpbeam.topi import dims
from warpbeam.topi.reduction import arg_extreme, arg_extreme_by_value, logsumexp_over, mean_of, variance_over


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
class Mean(Reduce, name="mean", reducer=te.sum, ref=_mean_ref, finish=mean_of): ...
# fmt: on


class _ArgReduce(Reduce):
    """Index (int64) of the extreme element over `axis`, counted over the reduced axes together; NaN is extreme.

    Of equal elements the first counts, the last with `select_last_index`.
    """

    defaults = {**Reduce.defaults, "select_last_index": False}

    def result_dtype(self, dtype: str) -> str:
        return "int64"

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        out = super().infer_type(types, attrs)
        for a in self.axes(attrs, types[0].ndim):
            some_elements(self, types[0].shape[a], f"axis {a} has no element to point at", dims.prod(out.shape))
        return out

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
        axes, largest = self.axes(attrs, inputs[0].ndim), self.name == "argmax"
        given = (inputs[0], axes, attrs["keepdims"], largest, attrs["select_last_index"])
        return arg_extreme_by_value(*given, "int64") if axes else arg_extreme(*given)


class ArgMax(_ArgReduce, name="argmax"):
    __doc__ = _ArgReduce.__doc__


class ArgMin(_ArgReduce, name="argmin"):
    __doc__ = _ArgReduce.__doc__


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
        return logsumexp_over(inputs[0], self.axes(attrs, inputs[0].ndim), attrs["keepdims"])


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
        return variance_over(inputs[0], self.axes(attrs, inputs[0].ndim), attrs["keepdims"], attrs["unbiased"])
