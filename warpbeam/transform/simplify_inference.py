"""Replaces operators that exist for training by what they are at inference: batch norm becomes scale and shift."""

from __future__ import annotations

from typing import Any

import numpy as np

from warpbeam.ir.node import Node
from warpbeam.ir.transform import function_pass
from warpbeam.relay.expr import Call, Constant, Expr, Function, Tuple
from warpbeam.relay.types import TensorType
from warpbeam.topi import dims
from warpbeam.transform.graph import call, constant, op_name, rewrite_function


def scale_and_shift(node: Call) -> tuple[Expr, Expr]:
    """Per-channel (gamma / sqrt(var + eps), beta - mean * scale) of a batch norm; computed now where constant."""
    _, gamma, beta, mean, var = node.args
    eps, center, scale = node.attrs["epsilon"], node.attrs["center"], node.attrs["scale"]
    known: list[Any] = [p.numpy() for p in node.args[1:] if isinstance(p, Constant)]
    if len(known) == 4:
        g, b, m, v = (p.astype(np.float64) for p in known)
        factor = (g if scale else 1.0) / np.sqrt(v + eps)
        shift = (b if center else 0.0) - m * factor
        dtype = known[0].dtype
        return constant(factor.astype(dtype)), constant(shift.astype(dtype))
    size = node.args[0].ty.shape[node.attrs["axis"]]
    gamma, beta, mean, var = (_sized(p, size) for p in (gamma, beta, mean, var))
    root = call("sqrt", call("add", var, _scalar(eps, var)))
    ones = gamma if scale else call("ones_like", gamma)
    found = call("divide", ones, root)
    moved = call("multiply", mean, found)
    return found, call("subtract", beta, moved) if center else call("negative", moved)


def _scalar(value: float, like: Expr) -> Constant:
    from warpbeam.relay.expr import const

    return const(value, like.ty.dtype)


def _sized(vector: Expr, size: Any) -> Expr:
    """A vector taken to have `size` elements, which is checked at run time where it is open."""
    open_ = dims.same(vector.ty.shape[0], size) is None
    return call("assume_shape", vector, shape=(size,)) if open_ else vector


def along(vector: Expr, axis: int, like: Expr) -> Expr:
    """A vector of channels shaped to broadcast along an axis of `like`; that they agree is checked where it is open."""
    size, after = like.ty.shape[axis], like.ty.ndim - 1 - axis
    vector = _sized(vector, size)
    if after == 0:
        return vector
    shape = (*vector.ty.shape, *[1] * after)
    if isinstance(vector, Constant):
        return constant(vector.numpy().reshape(shape))
    return call("reshape", vector, newshape=shape)


def simplify_node(node: Node) -> Expr | None:
    """The inference form of a training operator, or None."""
    name = op_name(node)
    if name == "nn.batch_norm" and isinstance(node.ty, TensorType):  # type: ignore[attr-defined]
        x = node.args[0]  # type: ignore[attr-defined]
        axis = node.attrs["axis"] % x.ty.ndim  # type: ignore[attr-defined]
        scale, shift = scale_and_shift(node)  # type: ignore[arg-type]
        scaled = call("multiply", x, along(scale, axis, x))
        return call("add", scaled, along(shift, axis, x))
    if name == "nn.dropout":
        x = node.args[0]  # type: ignore[attr-defined]
        return x if isinstance(node.ty, TensorType) else Tuple((x, call("ones_like", x)))  # type: ignore[attr-defined]
    return None


@function_pass(opt_level=0, name="SimplifyInference")
class SimplifyInference:
    """Batch norm to scale and shift, dropout to its input."""

    def transform_function(self, fn: Function, mod: Any, ctx: Any) -> Function:
        return rewrite_function(fn, simplify_node)
