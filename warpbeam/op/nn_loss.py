"""Negative log likelihood of class indices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.ir.node import Attrs
from warpbeam.op.base import Op, accumulation, tensors
from warpbeam.op.index_gather import check_indices
from warpbeam.op.nn_common import np_accum, require_float, unify
from warpbeam.relay.types import TensorType, Type
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.topi import dims
from warpbeam.topi.scalar import clamped


class NllLoss(Op):
    """-weights[t] * predictions[n, t, …] for targets t, reduced as "mean" (by the sum of weights), "sum" or "none".

    Operands: predictions (N, C, …) of log probabilities, targets (N, …), and optionally weights (C,). A target equal to
    ignore_index has weight 0.
    """

    name = "nn.nll_loss"
    arity = None
    defaults = {"reduction": "mean", "ignore_index": -100}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        if len(types) not in (2, 3):
            raise self.error(f"takes 2 or 3 operands, got {len(types)}")
        x, target, *weights = tensors(self, types)
        require_float(self, x)
        check_indices(self, target)
        if x.ndim < 2 or target.ndim != x.ndim - 1:
            raise self.error(f"targets must have {x.ndim - 1} dimensions, got {target.ndim}")
        for a, b in zip((x.shape[0], *x.shape[2:]), target.shape, strict=True):
            unify(self, a, b, "dimensions of predictions and targets")
        if weights and (weights[0].ndim != 1 or weights[0].dtype != x.dtype):
            raise self.error(f"weights must be {x.dtype} of one dimension")
        if attrs["reduction"] not in ("mean", "sum", "none"):
            raise self.error(f"unknown reduction {attrs['reduction']!r}", hint="mean, sum or none")
        return TensorType(target.shape if attrs["reduction"] == "none" else (), x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray, target: np.ndarray, *weights: np.ndarray) -> np.ndarray:
        wide = np_accum(x)
        at = np.clip(np.where(target < 0, target + x.shape[1], target), 0, x.shape[1] - 1).astype(np.int64)
        w = weights[0].astype(wide.dtype)[at] if weights else np.ones(target.shape, wide.dtype)
        w = np.where(target == attrs["ignore_index"], 0, w).astype(wide.dtype)
        loss = -np.take_along_axis(wide, at[:, None], axis=1)[:, 0] * w
        if attrs["reduction"] == "none":
            return loss.astype(x.dtype)
        with np.errstate(all="ignore"):
            return np.asarray(loss.sum() / w.sum() if attrs["reduction"] == "mean" else loss.sum()).astype(x.dtype)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x, target, *weights = inputs
        wide = accumulation(x.dtype)

        def place(i: Any) -> Any:
            t = E.cast("int64", target[i])
            size = E.as_expr(x.shape[1])
            return clamped(E.select(t < 0, t + size, t), size)

        def weight(*i: Any) -> Any:
            own = E.cast(wide, weights[0][place(i)]) if weights else E.const(1.0, wide)
            ignored = E.binary(E.EQ, E.cast("int64", target[i]), int(attrs["ignore_index"]))
            return E.select(ignored, E.const(0.0, wide), own)

        w = te.compute(target.shape, weight, name="weight")

        def element(*i: Any) -> Any:
            return E.const(0.0, wide) - E.cast(wide, x[(i[0], place(i), *i[1:])]) * w[i]

        if attrs["reduction"] == "none":
            return te.compute(target.shape, lambda *i: E.cast(x.dtype, element(*i)), name="loss")
        losses = te.compute(target.shape, element, name="losses")

        def total(source: Any, name: str) -> Any:
            axes = [te.reduce_axis(s, f"k{n}") for n, s in enumerate(target.shape)]
            return te.compute((), lambda: te.sum(source[tuple(a.var for a in axes)], axis=axes), name=name)

        whole = total(losses, "loss_sum")
        if attrs["reduction"] == "sum":
            return te.compute((), lambda: E.cast(x.dtype, whole[()]), name="loss")
        parts = total(w, "weight_sum")
        return te.compute((), lambda: E.cast(x.dtype, E.div(whole[()], parts[()])), name="loss")

    def flops(self, attrs: Attrs, types: Sequence[Any], out_type: Any) -> Any:
        return dims.prod([3, *types[1].shape])
