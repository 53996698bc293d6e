"""Matrix products: dense layers, NumPy-style matmul, batched matmul, and adding a bias."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.op.base import Op, accumulation, norm_axis, tensors
from warpbeam.op.nn_common import unify
from warpbeam.relay.types import TensorType, Type
from warpbeam.topi import dims
from warpbeam.topi.nn.products import bias_along, dense_stage, product, product_depth, product_shape


def _wide_product(attrs: Attrs, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.dtype]:
    """Both operands in the type the reference multiplies in, and the result's type."""
    out = dt.to_numpy(attrs["out_dtype"]) if attrs["out_dtype"] else a.dtype
    wide = dt.to_numpy(accumulation(dt.from_numpy(out)))
    return a.astype(wide, copy=False), b.astype(wide, copy=False), out


class Contraction(Op):
    """Base of products of two tensors over one axis each."""

    arity = 2
    defaults = {"out_dtype": ""}

    def result_dtype(self, attrs: Attrs, a: TensorType, b: TensorType) -> str:
        if not attrs["out_dtype"] and a.dtype != b.dtype:
            raise self.error(f"operands are {a.dtype} and {b.dtype}", hint="cast one, or set out_dtype")
        return attrs["out_dtype"] or a.dtype  # type: ignore[no-any-return]

    def depth(self, attrs: Attrs, types: Sequence[Any]) -> Any:
        """Length of the summed axis."""
        return types[0].shape[-1]

    def flops(self, attrs: Attrs, types: Sequence[Any], out_type: Any) -> Any:
        return dims.prod([2, self.depth(attrs, types), *out_type.shape])


class Dense(Contraction):
    """data (…, K) by weight (N, K): out (…, N)."""

    name = "nn.dense"
    defaults = {"units": None, "out_dtype": ""}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x, w = tensors(self, types)
        if x.ndim < 1 or w.ndim != 2:
            raise self.error(f"takes data (…, K) and weight (N, K), got {x.ndim} and {w.ndim} dimensions")
        unify(self, x.shape[-1], w.shape[1], "summed dimensions")
        if attrs["units"] is not None:
            unify(self, attrs["units"], w.shape[0], "units and weight rows")
        return TensorType((*x.shape[:-1], w.shape[0]), self.result_dtype(attrs, x, w))  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        x, w, out = _wide_product(attrs, x, w)
        return np.matmul(x, w.T).astype(out)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        return dense_stage(*inputs, out_type.dtype)


class Matmul(Contraction):
    """NumPy's matmul: (…, M, K) by (…, K, N) with broadcast batches; a 1-D operand is a row or column that vanishes.

    transpose_a, transpose_b: the last two axes of that operand are swapped (operands of two or more dimensions only).
    """

    name = "nn.matmul"
    defaults = {"transpose_a": False, "transpose_b": False, "out_dtype": ""}

    def depth(self, attrs: Attrs, types: Sequence[Any]) -> Any:
        return product_depth(types[0].shape, attrs["transpose_a"])

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        a, b = tensors(self, types)
        if a.ndim < 1 or b.ndim < 1:
            raise self.error("operands must have at least one dimension", hint="use multiply for scalars")
        k, shape = product_shape(self, a.shape, b.shape, attrs["transpose_a"], attrs["transpose_b"])
        unify(self, self.depth(attrs, types), k, "summed dimensions")
        return TensorType(shape, self.result_dtype(attrs, a, b))  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b, out = _wide_product(attrs, a, b)
        if attrs["transpose_a"] and a.ndim > 1:
            a = np.swapaxes(a, -1, -2)
        if attrs["transpose_b"] and b.ndim > 1:
            b = np.swapaxes(b, -1, -2)
        return np.asarray(np.matmul(a, b)).astype(out)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        flip_a, flip_b = bool(attrs["transpose_a"]), bool(attrs["transpose_b"])
        return product(*inputs, flip_a, flip_b, out_type.shape, out_type.dtype)


class BatchMatmul(Matmul):
    """x (B, M, K) by y (B, N, K) (transpose_b) to (B, M, N); a batch of 1 is broadcast."""

    name = "nn.batch_matmul"
    defaults = {"transpose_a": False, "transpose_b": True, "out_dtype": ""}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        a, b = tensors(self, types)
        if a.ndim != 3 or b.ndim != 3:
            raise self.error(f"takes two tensors of 3 dimensions, got {a.ndim} and {b.ndim}", hint="see nn.matmul")
        return super().infer_type(types, attrs)


class BiasAdd(Op):
    """data + bias, the 1-D bias running along `axis`."""

    name = "nn.bias_add"
    arity = 2
    defaults = {"axis": 1}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x, b = tensors(self, types)
        axis = norm_axis(self, attrs["axis"], x.ndim)
        if b.ndim != 1:
            raise self.error(f"bias must have one dimension, got {b.ndim}")
        if x.dtype != b.dtype:
            raise self.error(f"data is {x.dtype} and bias is {b.dtype}", hint="cast one operand")
        unify(self, x.shape[axis], b.shape[0], f"axis {axis} of data and the bias")
        return x

    def numpy(self, attrs: Attrs, x: np.ndarray, b: np.ndarray) -> np.ndarray:
        axis = norm_axis(self, attrs["axis"], x.ndim)
        return x + b.reshape(-1, *[1] * (x.ndim - 1 - axis))

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        return bias_along(*inputs, norm_axis(self, attrs["axis"], inputs[0].ndim))


__all__ = ["BatchMatmul", "BiasAdd", "Contraction", "Dense", "Matmul"]
