"""Replaces operators that exist for training by what they are at inference: batch norm becomes scale and shift."""

from __future__ import annotations

from typing import Any

import numpy as np

from warpbeam.ir.node import Node
from warpbeam.ir.transform import function_pass
from warpbeam.relay.expr import Call, Constant, Expr, Function, Tuple
from warpbeam.relay.types import TensorType
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
    root = call("sqrt", call("add", var, _scalar(eps, var)))
    ones = gamma if scale else call("ones_like", gamma)
    found = call("divide", ones, root)
    moved = call("multiply", mean, found)
    return found, call("subtract", beta, moved) if center else call("negative", moved)


def _scalar(value: float, like: Expr) -> Constant:
    from warpbeam.relay.expr import const

    return const(value, like.ty.dtype)


def along(vector: Expr, axis: int, ndim: int) -> Expr:
    """A vector of channels shaped to broadcast along `axis`."""
    after = ndim - 1 - axis
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
        scaled = call("multiply", x, along(scale, axis, x.ty.ndim))
        return call("add", scaled, along(shift, axis, x.ty.ndim))
    if name == "nn.dropout":
        x = node.args[0]  # type: ignore[attr-defined]
        return x if isinstance(node.ty, TensorType) else Tuple((x, call("ones_like", x)))  # type: ignore[attr-defined]
    return None


@function_pass(opt_level=0, name="SimplifyInference")
class SimplifyInference:
    """Batch norm to scale and shift, dropout to its input."""

    def transform_function(self, fn: Function, mod: Any, ctx: Any) -> Function:
        return rewrite_function(fn, simplify_node)
