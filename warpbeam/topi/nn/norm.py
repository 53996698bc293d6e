"""Normalisations with learned scale and shift: layer, RMS, batch (inference), instance, group; local response.

Means and variances are two passes (mean first, then squared differences); half floats are computed in float32.
gamma or beta of None leaves scale or shift out. The functions ending in `_over` take non-negative axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.topi import dims, tag
from warpbeam.topi.common import Caller, accumulation, norm_axes, norm_axis
from warpbeam.topi.nn.common import pad_stage
from warpbeam.topi.nn.rowwise import Rows
from warpbeam.topi.scalar import inverse_sqrt

Affine = Any
"""A tensor that runs along some of the data's axes, or None."""


def affine(value: Any, idx: Sequence[Any], axes: Sequence[int], gamma: Affine, beta: Affine) -> Any:
    """value * gamma + beta at a full index, gamma and beta running along `axes`."""
    at = tuple(idx[a] for a in axes)
    if gamma is not None:
        value = value * E.cast(value.dtype, gamma[at])
    return value if beta is None else value + E.cast(value.dtype, beta[at])


def layer_norm_over(
    x: te.Tensor, reduced: Sequence[int], axes: Sequence[int], gamma: Affine, beta: Affine, epsilon: float
) -> Any:
    """(x - mean) / sqrt(variance + epsilon) over the `reduced` axes; gamma and beta run along `axes`."""
    wide, rows = accumulation(x.dtype), Rows(x.shape, reduced)
    count = E.cast(wide, E.as_expr(rows.count()))
    total = rows.stat(lambda *i: E.cast(wide, x[i]), te.sum, "row_sum")
    mean = te.compute(total.shape, lambda *i: E.div(total[i], count), name="row_mean")

    def centred(*i: Any) -> Any:
        return E.cast(wide, x[i]) - mean[rows.of(i)]

    squares = rows.stat(lambda *i: centred(*i) * centred(*i), te.sum, "row_squares")
    inverse = te.compute(squares.shape, lambda *i: inverse_sqrt(E.div(squares[i], count), epsilon), name="row_scale")

    def element(*i: Any) -> Any:
        return E.cast(x.dtype, affine(centred(*i) * inverse[rows.of(i)], i, axes, gamma, beta))

    return rows.spread(element, "normalised")


def rms_norm_over(x: te.Tensor, axes: Sequence[int], gamma: Affine, beta: Affine, epsilon: float) -> Any:
    """x / sqrt(mean x² + epsilon) over `axes`, which gamma and beta run along."""
    wide, rows = accumulation(x.dtype), Rows(x.shape, axes)
    count = E.cast(wide, E.as_expr(rows.count()))
    squares = rows.stat(lambda *i: E.cast(wide, x[i]) * E.cast(wide, x[i]), te.sum, "row_squares")
    inverse = te.compute(squares.shape, lambda *i: inverse_sqrt(E.div(squares[i], count), epsilon), name="row_scale")

    def element(*i: Any) -> Any:
        value = E.cast(wide, x[i]) * inverse[rows.of(i)]
        return E.cast(x.dtype, affine(value, i, axes, gamma, beta))

    return rows.spread(element, "normalised")


def group_norm_over(x: te.Tensor, axis: int, groups: int, gamma: Affine, beta: Affine, epsilon: float) -> Any:
    """Layer norm over each of `groups` runs of channels (`axis`) with all positions but the batch."""
    wide = accumulation(x.dtype)
    size = dims.exact_div(x.shape[axis], groups)
    count = E.cast(wide, E.as_expr(dims.prod([size, *[s for a, s in enumerate(x.shape) if a not in (0, axis)]])))

    def stat(source: Any, name: str) -> Any:
        ks = [te.reduce_axis(size if a == axis else x.shape[a], f"k{a}") for a in range(1, x.ndim)]

        def body(n: Any, g: Any) -> Any:
            at = [n, *[k.var for k in ks]]
            at[axis] = g * size + at[axis]
            return te.sum(source(n, g, at), axis=ks)

        return te.compute((x.shape[0], groups), body, name=name, tag=tag.COMM_REDUCE)

    total = stat(lambda n, g, at: E.cast(wide, x[tuple(at)]), "group_sum")
    mean = te.compute(total.shape, lambda n, g: E.div(total[n, g], count), name="group_mean")

    def square(n: Any, g: Any, at: Any) -> Any:
        value = E.cast(wide, x[tuple(at)]) - mean[n, g]
        return value * value

    squares = stat(square, "group_squares")
    inverse = te.compute(
        squares.shape, lambda n, g: inverse_sqrt(E.div(squares[n, g], count), epsilon), name="group_scale"
    )

    def element(*i: Any) -> Any:
        g = i[axis] // size
        value = (E.cast(wide, x[i]) - mean[i[0], g]) * inverse[i[0], g]
        return E.cast(x.dtype, affine(value, i, [axis], gamma, beta))

    return te.compute(x.shape, element, name="normalised", tag=tag.BROADCAST)


def batch_norm_given(
    x: te.Tensor, gamma: Affine, beta: Affine, mean: te.Tensor, var: te.Tensor, axis: int, epsilon: float
) -> Any:
    """(x - mean) / sqrt(var + epsilon) * gamma + beta with given statistics along a non-negative axis."""
    wide = accumulation(x.dtype)

    def element(*i: Any) -> Any:
        c = i[axis]
        root = E.call("sqrt", E.cast(wide, var[c]) + E.const(float(epsilon), wide))
        value = E.div(E.cast(wide, x[i]) - E.cast(wide, mean[c]), root)
        return E.cast(x.dtype, affine(value, i, [axis], gamma, beta))

    return te.compute(x.shape, element, name="batch_norm", tag=tag.BROADCAST)


def lrn_along(x: te.Tensor, size: int, axis: int, bias: float, alpha: float, beta: float) -> Any:
    """x / (bias + alpha/size * sum of squares over `size` neighbours along a non-negative axis)^beta."""
    wide = accumulation(x.dtype)
    before, after = [0] * x.ndim, [0] * x.ndim
    before[axis], after[axis] = (size - 1) // 2, size // 2
    squares = pad_stage(x, before, after, 0, "squares", lambda e: E.cast(wide, e) * E.cast(wide, e))
    k = te.reduce_axis(size, "k")
    total = te.compute(
        x.shape,
        lambda *i: te.sum(squares[(*i[:axis], i[axis] + k.var, *i[axis + 1 :])], axis=k),
        name="neighbours",
    )
    start, scale = E.const(float(bias), wide), E.const(alpha / size, wide)

    def element(*i: Any) -> Any:
        base = E.call("pow", start + total[i] * scale, E.const(float(beta), wide))
        return E.cast(x.dtype, E.div(E.cast(wide, x[i]), base))

    return te.compute(x.shape, element, name="lrn", tag=tag.BROADCAST)


# ---------------------------------------------------------------------------------------------------- the public names


def layer_norm(data: te.Tensor, gamma: Affine, beta: Affine, axis: Any, epsilon: float = 1e-5) -> Any:
    """(data - mean) / sqrt(variance + epsilon) * gamma + beta over `axis` (an int or several)."""
    axes = norm_axes(Caller("nn.layer_norm"), axis, data.ndim)
    return layer_norm_over(data, axes, axes, gamma, beta, epsilon)


def rms_norm(data: te.Tensor, weight: Affine, axis: Any, epsilon: float = 1e-5) -> Any:
    """data / sqrt(mean data² + epsilon) * weight over `axis` (an int or several)."""
    return rms_norm_over(data, norm_axes(Caller("nn.rms_norm"), axis, data.ndim), weight, None, epsilon)


def instance_norm(
    data: te.Tensor, gamma: Affine, beta: Affine, channel_axis: int, axis: Any, epsilon: float = 1e-5
) -> Any:
    """Mean and variance over `axis`; gamma and beta run along `channel_axis`."""
    who = Caller("nn.instance_norm")
    channel = norm_axis(who, channel_axis, data.ndim)
    return layer_norm_over(data, norm_axes(who, axis, data.ndim), [channel], gamma, beta, epsilon)


def group_norm(
    data: te.Tensor, gamma: Affine, beta: Affine, num_groups: int, channel_axis: int, axes: Any, epsilon: float = 1e-5
) -> Any:
    """Layer norm over each of `num_groups` runs of channels with the positions of `axes` (all but batch, channel)."""
    who = Caller("nn.group_norm")
    channel = norm_axis(who, channel_axis, data.ndim)
    rest = tuple(a for a in range(1, data.ndim) if a != channel)
    if norm_axes(who, list(axes), data.ndim) != rest or channel == 0:
        raise who.error(f"axes {tuple(axes)} with channel axis {channel}", f"axes must be {rest}")
    size = data.shape[channel]
    if isinstance(size, int) and size % num_groups:
        raise who.error(f"{size} channels do not divide into {num_groups} groups")
    return group_norm_over(data, channel, num_groups, gamma, beta, epsilon)


def batch_norm(
    data: te.Tensor,
    gamma: te.Tensor,
    beta: te.Tensor,
    moving_mean: te.Tensor,
    moving_var: te.Tensor,
    axis: int = 1,
    epsilon: float = 1e-5,
    center: bool = True,
    scale: bool = True,
) -> list[Any]:
    """[(data - mean) / sqrt(var + epsilon) * gamma + beta, mean, var] for inference, with the given statistics."""
    axis = norm_axis(Caller("nn.batch_norm"), axis, data.ndim)
    used = gamma if scale else None, beta if center else None
    out = batch_norm_given(data, *used, moving_mean, moving_var, axis, epsilon)
    return [out, moving_mean, moving_var]


def lrn(data: te.Tensor, size: int, axis: int = 1, alpha: float = 0.0001, beta: float = 0.75, bias: float = 2.0) -> Any:
    """data / (bias + alpha/size * sum of squares over `size` neighbours along `axis`)^beta."""
    who = Caller("nn.lrn")
    if size < 1:
        raise who.error(f"size must be positive, got {size}")
    return lrn_along(data, size, norm_axis(who, axis, data.ndim), bias, alpha, beta)


local_response_norm = lrn


def _scale_shift(data: te.Tensor, scale: te.Tensor, shift: te.Tensor, axis: int) -> Any:
    def element(*i: Any) -> Any:
        return data[i] * scale[i[axis]] + shift[i[axis]]

    return te.compute(data.shape, element, name="scale_shift", tag=tag.BROADCAST)


def scale_shift_nchw(Input: te.Tensor, Scale: te.Tensor, Shift: te.Tensor) -> Any:
    """Input * Scale + Shift along the channels of (N, C, H, W)."""
    return _scale_shift(Input, Scale, Shift, 1)


def scale_shift_nhwc(Input: te.Tensor, Scale: te.Tensor, Shift: te.Tensor) -> Any:
    """Input * Scale + Shift along the channels of (N, H, W, C)."""
    return _scale_shift(Input, Scale, Shift, 3)
