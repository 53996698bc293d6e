"""Padding, and activations with a slope."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.ir.node import Attrs
from warpbeam.op.assumed import some_elements
from warpbeam.op.base import REQUIRED, Op, norm_axis, tensors
from warpbeam.op.nn_common import unify
from warpbeam.relay.types import TensorType, Type
from warpbeam.topi import dims
from warpbeam.topi.nn.activation import leaky_relu, prelu_along
from warpbeam.topi.nn.padding import pad_constant, pad_mirrored

MODES = ("constant", "reflect", "edge", "wrap")


class Pad(Op):
    """Borders of `pad_width` ((before, after) per axis) around data; negative widths cut.

    pad_mode: "constant" (the operand `value`, one element), "reflect" (without repeating the edge), "edge", "wrap".
    """

    name = "nn.pad"
    alike = slice(None)
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
            if mode != "constant" and all(isinstance(w, int) for w in widths[n]) and max(widths[n]) > 0:
                self._elements_left(mode, n, x.shape[n], widths[n])
        return TensorType(shape, x.dtype)  # type: ignore[no-any-return]

    def _elements_left(self, mode: str, axis: int, size: Any, widths: tuple[int, int]) -> None:
        """Refuses a border of own elements where none are left; of an open dimension it is noted that some are."""
        left = dims.dim(size + min(widths[0], 0) + min(widths[1], 0))
        text = f"mode {mode!r} needs an element along axis {axis}"
        text += f": pad_width {widths} cuts all" if min(widths) < 0 else ""
        some_elements(self, left, text)

    def numpy(self, attrs: Attrs, x: np.ndarray, value: np.ndarray) -> np.ndarray:
        widths = attrs["pad_width"]
        cut = tuple(slice(max(-b, 0), s - max(-a, 0)) for s, (b, a) in zip(x.shape, widths, strict=True))
        grow = [(max(b, 0), max(a, 0)) for b, a in widths]
        if attrs["pad_mode"] == "constant":
            return np.pad(x[cut], grow, constant_values=value.reshape(()))
        return np.pad(x[cut], grow, mode=attrs["pad_mode"])

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x, value = inputs
        if attrs["pad_mode"] == "constant":
            return pad_constant(x, attrs["pad_width"], value[(0,) * value.ndim])
        return pad_mirrored(x, attrs["pad_width"], attrs["pad_mode"])

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
        return leaky_relu(inputs[0], attrs["alpha"])


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
        return prelu_along(*inputs, attrs["axis"] % inputs[0].ndim)
