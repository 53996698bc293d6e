"""Activations, and the flattening in front of a dense layer."""

from __future__ import annotations

from typing import Any

from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.topi import dims, scalar, tag
from warpbeam.topi.common import Caller, TopiError, agree, norm_axis, wide
from warpbeam.topi.elementwise import unary
from warpbeam.topi.index import unravel

relu = unary("relu", scalar.relu, "max(x, 0).", floats=False)


def leaky_relu(x: te.Tensor, alpha: float) -> Any:
    """x where x >= 0, else alpha * x."""
    inner = wide(x.dtype)

    def element(*i: Any) -> Any:
        value = E.cast(inner, x[i])
        scaled = value * E.const(float(alpha), inner)
        return E.cast(x.dtype, E.select(value >= E.const(0, inner), value, scaled))

    return te.compute(x.shape, element, name="leaky_relu", tag=tag.ELEMWISE)


def prelu_along(x: te.Tensor, slope: te.Tensor, axis: int) -> Any:
    """x where x >= 0, else slope * x, the 1-D slope running along a non-negative axis."""
    inner = wide(x.dtype)

    def element(*i: Any) -> Any:
        value = E.cast(inner, x[i])
        scaled = value * E.cast(inner, slope[i[axis]])
        return E.cast(x.dtype, E.select(value >= E.const(0, inner), value, scaled))

    return te.compute(x.shape, element, name="prelu", tag=tag.BROADCAST)


def prelu(x: te.Tensor, slope: te.Tensor, axis: int = 1) -> Any:
    """x where x >= 0, else slope * x, the 1-D slope running along `axis`."""
    who = Caller("nn.prelu")
    axis = norm_axis(who, axis, x.ndim)
    if slope.ndim != 1:
        raise who.error(f"slope must have one dimension, got {slope.ndim}")
    agree(who, x.shape[axis], slope.shape[0], f"axis {axis} of data and the slope")
    return prelu_along(x, slope, axis)


def flatten(data: te.Tensor) -> Any:
    """(N, …) as (N, product of the others)."""
    if data.ndim < 1:
        raise TopiError("topi.nn.flatten: takes a tensor of at least one dimension")
    rest = data.shape[1:]
    shape = (data.shape[0], dims.prod(rest))
    return te.compute(shape, lambda i, j: data[(i, *unravel(j, rest))], name="flatten", tag=tag.INJECTIVE)
