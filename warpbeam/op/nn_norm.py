"""Normalisations with learned scale and shift: layer, RMS, batch (inference), instance, group; local response.

Means and variances are two passes (mean first, then squared differences); half floats are computed in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.op import get
from warpbeam.op.base import REQUIRED, Op, accumulation, norm_axes, norm_axis, tensors
from warpbeam.op.nn_common import np_accum, require_float, unify
from warpbeam.relay.expr import Expr, const
from warpbeam.relay.types import Type
from warpbeam.topi import dims
from warpbeam.topi.nn.norm import batch_norm_given, group_norm_over, layer_norm_over, lrn_along, rms_norm_over


class ScaleShift(Op):
    """Base: operands data, then gamma where `scale`, then beta where `center`."""

    arity = None
    defaults = {"epsilon": 1e-5, "center": True, "scale": True}

    def operands(self, attrs: Attrs, values: Sequence[Any]) -> tuple[Any, Any, Any]:
        """(data, gamma or None, beta or None)."""
        want = 1 + bool(attrs["scale"]) + bool(attrs["center"])
        if len(values) != want:
            raise self.error(f"takes {want} operands with scale={attrs['scale']} and center={attrs['center']}")
        rest = list(values[1:])
        gamma = rest.pop(0) if attrs["scale"] else None
        return values[0], gamma, rest.pop(0) if attrs["center"] else None

    def parameter_axes(self, attrs: Attrs, ndim: int) -> tuple[int, ...]:
        """The data's axes that gamma and beta run along."""
        raise self._lacks("parameter_axes")

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x, gamma, beta = self.operands(attrs, tensors(self, types))
        require_float(self, x)
        axes = self.parameter_axes(attrs, x.ndim)
        for t, which in ((gamma, "gamma"), (beta, "beta")):
            if t is None:
                continue
            if t.ndim != len(axes) or t.dtype != x.dtype:
                raise self.error(f"{which} is {t.dtype} of {t.ndim} dimensions, expected {x.dtype} of {len(axes)}")
            for a, s in zip(axes, t.shape, strict=True):
                unify(self, x.shape[a], s, f"axis {a} of data and {which}")
        return x  # type: ignore[no-any-return]

    def np_affine(self, attrs: Attrs, y: np.ndarray, gamma: Any, beta: Any) -> np.ndarray:
        axes = self.parameter_axes(attrs, y.ndim)
        shape = [s if a in axes else 1 for a, s in enumerate(y.shape)]
        if gamma is not None:
            y = y * gamma.astype(y.dtype).reshape(shape)
        return y if beta is None else y + beta.astype(y.dtype).reshape(shape)

    def flops(self, attrs: Attrs, types: Sequence[Any], out_type: Any) -> Any:
        return dims.prod([7, *types[0].shape])


class LayerNorm(ScaleShift):
    """(x - mean) / sqrt(variance + epsilon) over `axis` (an int or several); gamma and beta run along those axes."""

    name = "nn.layer_norm"
    defaults = {"axis": -1, **ScaleShift.defaults}

    def parameter_axes(self, attrs: Attrs, ndim: int) -> tuple[int, ...]:
        return norm_axes(self, attrs["axis"], ndim)

    def reduced_axes(self, attrs: Attrs, ndim: int) -> tuple[int, ...]:
        """The axes mean and variance are taken over."""
        return self.parameter_axes(attrs, ndim)

    def numpy(self, attrs: Attrs, *args: np.ndarray) -> np.ndarray:
        x, gamma, beta = self.operands(attrs, args)
        wide, axes = np_accum(x), self.reduced_axes(attrs, x.ndim)
        centred = wide - wide.mean(axis=axes, keepdims=True)
        variance = (centred * centred).mean(axis=axes, keepdims=True)
        y = centred / np.sqrt(variance + wide.dtype.type(attrs["epsilon"]))
        return self.np_affine(attrs, y, gamma, beta).astype(x.dtype)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x, gamma, beta = self.operands(attrs, inputs)
        reduced, axes = self.reduced_axes(attrs, x.ndim), self.parameter_axes(attrs, x.ndim)
        return layer_norm_over(x, reduced, axes, gamma, beta, attrs["epsilon"])


class InstanceNorm(LayerNorm):
    """Layer norm over all axes but the first and the channel `axis`; gamma and beta run along the channels."""

    name = "nn.instance_norm"
    defaults = {"axis": 1, **ScaleShift.defaults}

    def parameter_axes(self, attrs: Attrs, ndim: int) -> tuple[int, ...]:
        return (norm_axis(self, attrs["axis"], ndim),)

    def reduced_axes(self, attrs: Attrs, ndim: int) -> tuple[int, ...]:
        keep = {0, *self.parameter_axes(attrs, ndim)}
        return tuple(a for a in range(ndim) if a not in keep)


class RmsNorm(ScaleShift):
    """x / sqrt(mean x² + epsilon) over `axis` (an int or several), times gamma."""

    name = "nn.rms_norm"
    defaults = {"axis": -1, **ScaleShift.defaults, "center": False}

    def parameter_axes(self, attrs: Attrs, ndim: int) -> tuple[int, ...]:
        return norm_axes(self, attrs["axis"], ndim)

    def numpy(self, attrs: Attrs, *args: np.ndarray) -> np.ndarray:
        x, gamma, beta = self.operands(attrs, args)
        wide, axes = np_accum(x), self.parameter_axes(attrs, x.ndim)
        mean = (wide * wide).mean(axis=axes, keepdims=True)
        y = wide / np.sqrt(mean + wide.dtype.type(attrs["epsilon"]))
        return self.np_affine(attrs, y, gamma, beta).astype(x.dtype)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x, gamma, beta = self.operands(attrs, inputs)
        return rms_norm_over(x, self.parameter_axes(attrs, x.ndim), gamma, beta, attrs["epsilon"])


class GroupNorm(ScaleShift):
    """Layer norm over each of `num_groups` runs of channels (`axis`) with all spatial positions."""

    name = "nn.group_norm"
    defaults = {"num_groups": REQUIRED, "axis": 1, **ScaleShift.defaults}

    def parameter_axes(self, attrs: Attrs, ndim: int) -> tuple[int, ...]:
        return (norm_axis(self, attrs["axis"], ndim),)

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x: Any = super().infer_type(types, attrs)
        channels = x.shape[norm_axis(self, attrs["axis"], x.ndim)]
        if norm_axis(self, attrs["axis"], x.ndim) == 0:
            raise self.error("the channel axis must not be the batch axis 0")
        if isinstance(channels, int) and channels % attrs["num_groups"]:
            raise self.error(f"{channels} channels do not divide into {attrs['num_groups']} groups")
        return x  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, *args: np.ndarray) -> np.ndarray:
        x, gamma, beta = self.operands(attrs, args)
        axis, groups = attrs["axis"] % x.ndim, attrs["num_groups"]
        parts = np.split(np_accum(x), groups, axis=axis)
        axes = tuple(range(1, x.ndim))
        done = []
        for part in parts:
            centred = part - part.mean(axis=axes, keepdims=True)
            variance = (centred * centred).mean(axis=axes, keepdims=True)
            done.append(centred / np.sqrt(variance + part.dtype.type(attrs["epsilon"])))
        return self.np_affine(attrs, np.concatenate(done, axis=axis), gamma, beta).astype(x.dtype)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x, gamma, beta = self.operands(attrs, inputs)
        axis = attrs["axis"] % x.ndim
        return group_norm_over(x, axis, attrs["num_groups"], gamma, beta, attrs["epsilon"])

    def expand(self, attrs: Attrs, args: Sequence[Expr]) -> Expr | None:
        """Sums of each channel, joined by groups, and what is done to each element: in vectors whatever the layout.
        Half floats are widened first and rounded at the end. None where the number of a group's elements is not known.
        """
        x, gamma, beta = self.operands(attrs, args)
        shape, axis, groups = x.ty.shape, attrs["axis"] % x.ty.ndim, attrs["num_groups"]  # type: ignore[attr-defined]
        spatial = tuple(a for a in range(1, len(shape)) if a != axis)
        sizes = [shape[a] for a in (axis, *spatial)]
        known = bool(spatial) and all(isinstance(n, int) for n in sizes)
        if not known:
            return None
        dtype, wide = x.ty.dtype, accumulation(x.ty.dtype)  # type: ignore[attr-defined]
        x, gamma, beta = (v if v is None or dtype == wide else get("cast")(v, dtype=wide) for v in (x, gamma, beta))
        along = [1 if a != axis else sizes[0] for a in range(1, len(shape))]
        count = const(np.asarray(sizes[0] // groups * prod(sizes[1:]), dt.to_numpy(wide)))
        apart = const(np.zeros((1, 1, sizes[0] // groups), count.ty.dtype))

        def mean(value: Expr) -> Expr:
            """Of each group, for each of its channels; one group is a row."""
            if groups == 1:
                return get("divide")(get("sum")(value, axis=tuple(range(1, len(shape))), keepdims=True), count)  # type: ignore[no-any-return]
            channels = get("sum")(value, axis=spatial, keepdims=False)
            joined = get("reshape")(channels, newshape=(-1, groups, sizes[0] // groups))
            total = get("divide")(get("sum")(joined, axis=(2,), keepdims=True), count)
            return get("reshape")(get("add")(total, apart), newshape=(-1, *along))  # type: ignore[no-any-return]

        centred = get("subtract")(x, mean(x))
        variance = mean(get("multiply")(centred, centred))
        epsilon = const(np.asarray(attrs["epsilon"], count.ty.dtype))
        scale = get("rsqrt")(get("add")(variance, epsilon))
        if gamma is not None:
            scale = get("multiply")(scale, get("reshape")(gamma, newshape=(1, *along)))
        out = get("multiply")(centred, scale)
        if beta is not None:
            out = get("add")(out, get("reshape")(beta, newshape=(1, *along)))
        return out if dtype == wide else get("cast")(out, dtype=dtype)  # type: ignore[no-any-return]


class BatchNorm(Op):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta with given statistics (inference), along `axis`.

    Operands: data, gamma, beta, moving_mean, moving_var; without `scale` or `center` gamma or beta is ignored.
    """

    name = "nn.batch_norm"
    arity = 5
    defaults = {"axis": 1, "epsilon": 1e-5, "center": True, "scale": True}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x, *parameters = tensors(self, types)
        require_float(self, x)
        axis = norm_axis(self, attrs["axis"], x.ndim)
        for t, which in zip(parameters, ("gamma", "beta", "moving_mean", "moving_var"), strict=True):
            if t.ndim != 1:
                raise self.error(f"{which} must have one dimension, got {t.ndim}")
            unify(self, x.shape[axis], t.shape[0], f"axis {axis} of data and {which}")
        return x

    def numpy(self, attrs: Attrs, x: np.ndarray, *parameters: np.ndarray) -> np.ndarray:
        axis, wide = attrs["axis"] % x.ndim, np_accum(x)
        shape = (-1, *[1] * (x.ndim - 1 - axis))
        gamma, beta, mean, var = (p.astype(wide.dtype).reshape(shape) for p in parameters)
        y = (wide - mean) / np.sqrt(var + wide.dtype.type(attrs["epsilon"]))
        y = y * gamma if attrs["scale"] else y
        return (y + beta if attrs["center"] else y).astype(x.dtype)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x, gamma, beta, mean, var = inputs
        used = gamma if attrs["scale"] else None, beta if attrs["center"] else None
        return batch_norm_given(x, *used, mean, var, attrs["axis"] % x.ndim, attrs["epsilon"])


class Lrn(Op):
    """x / (bias + alpha/size * sum of squares over `size` neighbours along `axis`)^beta."""

    name = "nn.lrn"
    defaults = {"size": 5, "axis": 1, "bias": 2.0, "alpha": 1e-5, "beta": 0.75}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        (x,) = tensors(self, types)
        require_float(self, x)
        norm_axis(self, attrs["axis"], x.ndim)
        if attrs["size"] < 1:
            raise self.error(f"size must be positive, got {attrs['size']}")
        return x

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        axis, size, wide = attrs["axis"] % x.ndim, attrs["size"], np_accum(x)
        pads = [(0, 0)] * x.ndim
        pads[axis] = ((size - 1) // 2, size // 2)
        padded = np.pad(wide * wide, pads)
        total = sum(np.take(padded, range(n, n + x.shape[axis]), axis=axis) for n in range(size))
        return (wide / (attrs["bias"] + attrs["alpha"] / size * total) ** attrs["beta"]).astype(x.dtype)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x = inputs[0]
        return lrn_along(x, attrs["size"], attrs["axis"] % x.ndim, attrs["bias"], attrs["alpha"], attrs["beta"])


__all__ = ["BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm", "Lrn", "RmsNorm"]
