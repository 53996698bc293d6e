"""Padding, and activations with a slope."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.ir.node import Attrs
from warpbeam.op.base import REQUIRED, Op, norm_axis, tensors, wide
from warpbeam.op.nn_common import pad_stage, unify
from warpbeam.relay.types import TensorType, Type
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.topi import dims

MODES = ("constant", "reflect", "edge", "wrap")


class Pad(Op):
    """Borders of `pad_width` ((before, after) per axis) around data; negative widths cut.

    pad_mode: "constant" (the operand `value`, one element), "reflect" (without repeating the edge), "edge", "wrap".
    """

    name = "nn.pad"
    arity = 2
    defaults = {"pad_width": REQUIRED, "pad_mode": "constant"}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x, value = tensors(self, types)
        widths, mode = attrs["pad_width"], attrs["pad_mode"]
        if mode not in MODES:
            raise self.error(f"unknown pad_mode {mode!r}", hint=f"one of {MODES}")
        if len(widths) != x.ndim:
            raise self.error(f"pad_width has {len(widths)} pairs, data has {x.ndim} dimensions")
        if value.dtype != x.dtype:
            raise self.error(f"data is {x.dtype} and value is {value.dtype}", hint="cast the value")
        shape = [dims.dim(s + b + a) for s, (b, a) in zip(x.shape, widths, strict=True)]
        for n, s in enumerate(shape):
            if isinstance(s, int) and s < 0:
                raise self.error(f"pad_width {widths[n]} leaves {s} elements along axis {n}")
            if mode != "constant" and s != 0 and isinstance(x.shape[n], int) and x.shape[n] == 0:
                raise self.error(f"mode {mode!r} needs an element along axis {n}")
        return TensorType(shape, x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray, value: np.ndarray) -> np.ndarray:
        widths = attrs["pad_width"]
        cut = tuple(slice(max(-b, 0), s - max(-a, 0)) for s, (b, a) in zip(x.shape, widths, strict=True))
        grow = [(max(b, 0), max(a, 0)) for b, a in widths]
        if attrs["pad_mode"] == "constant":
            return np.pad(x[cut], grow, constant_values=value.reshape(()))
        return np.pad(x[cut], grow, mode=attrs["pad_mode"])

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x, value = inputs
        widths, mode = attrs["pad_width"], attrs["pad_mode"]
        if mode == "constant":
            fill = value[(0,) * value.ndim]
            padded = pad_stage(x, [b for b, _ in widths], [a for _, a in widths], fill, "pad")
            return padded if padded is not x else te.compute(x.shape, lambda *i: x[i], name="pad")

        def element(*idx: Any) -> Any:
            return x[tuple(self._source(i, s, *w, mode) for i, s, w in zip(idx, x.shape, widths, strict=True))]

        return te.compute(out_type.shape, element, name="pad")

    def _source(self, i: Any, size: Any, before: Any, after: Any, mode: str) -> Any:
        """Where element i of the padded axis comes from; negative widths cut before the border is made."""
        cut_b = min(before, 0) if isinstance(before, int) else 0
        cut_a = min(after, 0) if isinstance(after, int) else 0
        if before == cut_b and after == cut_a and isinstance(before, int) and isinstance(after, int):
            return i - before
        inner = E.as_expr(dims.dim(size + cut_b + cut_a))
        j = i - (before - cut_b)
        if mode == "edge":
            j = E.maximum(E.minimum(j, inner - 1), 0)
        elif mode == "wrap":
            j = E.floormod(j, inner)
        else:
            m = E.floormod(j, 2 * inner - 2)
            j = E.minimum(m, 2 * inner - 2 - m)
        return j - cut_b

    def flops(self, attrs: Attrs, types: Sequence[Any], out_type: Any) -> Any:
        return 0


class LeakyRelu(Op):
    """x where x >= 0, else alpha * x."""

    name = "nn.leaky_relu"
    defaults = {"alpha": 0.01}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        return tensors(self, types)[0]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        return np.where(x >= 0, x, x * x.dtype.type(attrs["alpha"])).astype(x.dtype)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x = inputs[0]
        inner = wide(x.dtype)

        def element(*i: Any) -> Any:
            value = E.cast(inner, x[i])
            scaled = value * E.const(float(attrs["alpha"]), inner)
            return E.cast(x.dtype, E.select(value >= E.const(0, inner), value, scaled))

        return te.compute(x.shape, element, name="leaky_relu")


class Prelu(Op):
    """x where x >= 0, else alpha * x, the 1-D alpha running along `axis`."""

    name = "nn.prelu"
    arity = 2
    defaults = {"axis": 1}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x, alpha = tensors(self, types)
        axis = norm_axis(self, attrs["axis"], x.ndim)
        if alpha.ndim != 1 or alpha.dtype != x.dtype:
            raise self.error(f"alpha must be {x.dtype} of one dimension")
        unify(self, x.shape[axis], alpha.shape[0], f"axis {axis} of data and alpha")
        return x

    def numpy(self, attrs: Attrs, x: np.ndarray, alpha: np.ndarray) -> np.ndarray:
        axis = attrs["axis"] % x.ndim
        return np.where(x >= 0, x, x * alpha.reshape(-1, *[1] * (x.ndim - 1 - axis)))

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x, alpha = inputs
        axis, inner = attrs["axis"] % x.ndim, wide(x.dtype)

        def element(*i: Any) -> Any:
            value = E.cast(inner, x[i])
            scaled = value * E.cast(inner, alpha[i[axis]])
            return E.cast(x.dtype, E.select(value >= E.const(0, inner), value, scaled))

        return te.compute(x.shape, element, name="prelu")
