"""Matrix products: dense layers, NumPy-style matmul, batched matmul, and adding a bias.

out_dtype: the result's and accumulator's dtype, None for the first operand's. Half floats accumulate in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warpbeam.te import tensor as te
from warpbeam.topi import dims
from warpbeam.topi import tag as tags
from warpbeam.topi.common import Caller, Who, agree, broadcast_shapes, norm_axis
from warpbeam.topi.nn.common import sum_stage


def product_depth(a: Sequence[Any], transpose_a: bool) -> Any:
    """Length of the summed axis of a product whose left operand has shape `a`."""
    return a[-2 if transpose_a and len(a) > 1 else -1]


def product_shape(
    who: Who, a: Sequence[Any], b: Sequence[Any], transpose_a: bool, transpose_b: bool
) -> tuple[Any, tuple[Any, ...]]:
    """(the summed dimension as the right operand has it, the result's shape) of NumPy's matmul."""
    k = b[0] if len(b) == 1 else b[-1 if transpose_b else -2]
    shape = broadcast_shapes(who, a[:-2], b[:-2], below=2)
    if len(a) > 1:
        shape = (*shape, a[-1 if transpose_a else -2])
    if len(b) > 1:
        shape = (*shape, b[-2 if transpose_b else -1])
    return k, shape


def product(
    a: te.Tensor,
    b: te.Tensor,
    transpose_a: bool,
    transpose_b: bool,
    shape: Sequence[Any],
    dtype: str,
    name: str = "matmul",
    label: str = tags.MATMUL,
) -> Any:
    """(…, M, K) by (…, K, N) with broadcast batches; a 1-D operand is a row or column that vanishes."""
    k = te.reduce_axis(b.shape[0] if b.ndim == 1 else b.shape[-1 if transpose_b else -2], "k")
    rows, columns = int(a.ndim > 1), int(b.ndim > 1)
    batch = len(shape) - rows - columns

    def operand(x: Any, idx: Sequence[Any], own: Any, swapped: bool) -> Any:
        if x.ndim == 1:
            return x[k.var]
        lead = idx[:batch][batch - (x.ndim - 2) :] if x.ndim > 2 else ()
        sizes = shape[:batch][batch - (x.ndim - 2) :] if x.ndim > 2 else ()
        at = [
            0 if dims.same(d, 1) is True and dims.same(o, 1) is not True else i
            for d, i, o in zip(x.shape[:-2], lead, sizes, strict=True)
        ]
        return x[(*at, own, k.var) if swapped else (*at, k.var, own)]

    def body(convert: Any, *idx: Any) -> Any:
        left = operand(a, idx, idx[batch] if rows else 0, not transpose_a)
        right = operand(b, idx, idx[-1] if columns else 0, transpose_b)
        return convert(left) * convert(right)

    return sum_stage(shape, [k], body, dtype, name, label)


def dense_stage(x: te.Tensor, w: te.Tensor, dtype: str) -> Any:
    """x (…, K) by w (N, K)."""
    k = te.reduce_axis(w.shape[1], "k")
    shape = (*x.shape[:-1], w.shape[0])

    def body(convert: Any, *i: Any) -> Any:
        return convert(x[(*i[:-1], k.var)]) * convert(w[i[-1], k.var])

    return sum_stage(shape, [k], body, dtype, "dense", "dense")


def bias_along(x: te.Tensor, bias: te.Tensor, axis: int) -> Any:
    """x + bias, the 1-D bias running along a non-negative axis."""
    return te.compute(x.shape, lambda *i: x[i] + bias[i[axis]], name="bias_add", tag=tags.BROADCAST)


def bias_add(data: te.Tensor, bias: te.Tensor, axis: int = 1) -> Any:
    """data + bias, the 1-D bias running along `axis`."""
    who = Caller("nn.bias_add")
    axis = norm_axis(who, axis, data.ndim)
    if bias.ndim != 1:
        raise who.error(f"bias must have one dimension, got {bias.ndim}")
    agree(who, data.shape[axis], bias.shape[0], f"axis {axis} of data and the bias")
    return bias_along(data, bias, axis)


def _with_bias(out: te.Tensor, bias: te.Tensor | None) -> Any:
    return out if bias is None else bias_add(out, bias, -1)


def dense(data: te.Tensor, weight: te.Tensor, bias: te.Tensor | None = None, out_dtype: str | None = None) -> Any:
    """data (…, K) by weight (N, K): (…, N), plus bias (N,)."""
    who = Caller("nn.dense")
    if data.ndim < 1 or weight.ndim != 2:
        raise who.error(f"takes data (…, K) and weight (N, K), got {data.ndim} and {weight.ndim} dimensions")
    agree(who, data.shape[-1], weight.shape[1], "summed dimensions")
    return _with_bias(dense_stage(data, weight, out_dtype or data.dtype), bias)


def matmul(
    tensor_a: te.Tensor,
    tensor_b: te.Tensor,
    bias: te.Tensor | None = None,
    out_dtype: str | None = None,
    transpose_a: bool = False,
    transpose_b: bool = False,
    name: str = "matmul",
) -> Any:
    """NumPy's matmul of (…, M, K) and (…, K, N); transpose_a and transpose_b swap an operand's last two axes."""
    who = Caller(f"nn.{name}")
    if tensor_a.ndim < 1 or tensor_b.ndim < 1:
        raise who.error("operands must have at least one dimension", "use multiply for scalars")
    k, shape = product_shape(who, tensor_a.shape, tensor_b.shape, transpose_a, transpose_b)
    agree(who, product_depth(tensor_a.shape, transpose_a), k, "summed dimensions")
    label = tags.MATMUL if name == "matmul" else name
    out = product(
        tensor_a, tensor_b, transpose_a, transpose_b, shape, out_dtype or tensor_a.dtype, name=name, label=label
    )
    return _with_bias(out, bias)


def batch_matmul(
    tensor_a: te.Tensor,
    tensor_b: te.Tensor,
    oshape: Sequence[Any] | None = None,
    out_dtype: str | None = None,
    transpose_a: bool = False,
    transpose_b: bool = True,
) -> Any:
    """(B, M, K) by (B, N, K) to (B, M, N); a batch of 1 is broadcast. oshape, where given, must be the result's."""
    who = Caller("nn.batch_matmul")
    if tensor_a.ndim != 3 or tensor_b.ndim != 3:
        raise who.error(f"takes two tensors of 3 dimensions, got {tensor_a.ndim} and {tensor_b.ndim}", "see nn.matmul")
    out = matmul(tensor_a, tensor_b, None, out_dtype, transpose_a, transpose_b, "batch_matmul")
    if oshape is not None:
        for got, want in zip(out.shape, oshape, strict=True):
            agree(who, got, want, "the result's shape and oshape")
    return out
