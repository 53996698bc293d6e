"""softmax and its relatives over one axis or several: maximum, exponential, sum and quotient as stages of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.ir.node import Attrs
from warpbeam.op.base import Op, norm_axes, tensors
from warpbeam.op.nn_common import np_accum, require_float
from warpbeam.relay.types import Type
from warpbeam.topi import dims
from warpbeam.topi.nn.rowwise import (
    hardmax_over,
    l2_normalize_over,
    log_softmax_over,
    lp_normalize_over,
    mean_variance_over,
    softmax_over,
)


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


class Softmax(RowOp):
    """exp(x - max) / sum exp(x - max) over each row."""

    name = "nn.softmax"

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        axes, wide = self.axes(attrs, x.ndim), np_accum(x)
        with np.errstate(invalid="ignore"):
            e = np.exp(wide - wide.max(axis=axes, keepdims=True, initial=-np.inf))
            return (e / e.sum(axis=axes, keepdims=True)).astype(x.dtype)  # type: ignore[no-any-return]

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        return softmax_over(inputs[0], self.axes(attrs, inputs[0].ndim))


class LogSoftmax(RowOp):
    """x - max - log(sum exp(x - max)) over each row."""

    name = "nn.log_softmax"

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        axes, wide = self.axes(attrs, x.ndim), np_accum(x)
        with np.errstate(invalid="ignore", divide="ignore"):
            shifted = wide - wide.max(axis=axes, keepdims=True, initial=-np.inf)
            return (shifted - np.log(np.exp(shifted).sum(axis=axes, keepdims=True))).astype(x.dtype)  # type: ignore[no-any-return]

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        return log_softmax_over(inputs[0], self.axes(attrs, inputs[0].ndim))


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
        return hardmax_over(inputs[0], self.axes(attrs, inputs[0].ndim))


class L2Normalize(RowOp):
    """x / sqrt(max(sum x², eps)) over each row."""

    name = "nn.l2_normalize"
    defaults = {"eps": 1e-12, "axis": None}

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        wide = np_accum(x)
        total = (wide * wide).sum(axis=self.axes(attrs, x.ndim), keepdims=True)
        return (wide / np.sqrt(np.maximum(total, wide.dtype.type(attrs["eps"])))).astype(x.dtype)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        return l2_normalize_over(inputs[0], self.axes(attrs, inputs[0].ndim), attrs["eps"])


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
        return lp_normalize_over(inputs[0], self.axes(attrs, inputs[0].ndim), attrs["p"])


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
        return mean_variance_over(inputs[0], self.axes(attrs, inputs[0].ndim), attrs["eps"])
