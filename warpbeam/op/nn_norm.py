"""Normalisations with learned scale and shift: layer, RMS, batch (inference), instance, group; local response.

Means and variances are two passes (mean first, then squared differences); half floats are computed in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.ir.node import Attrs
from warpbeam.op.base import REQUIRED, Op, accumulation, norm_axes, norm_axis, tensors
from warpbeam.op.nn_common import np_accum, pad_stage, require_float, unify
from warpbeam.op.nn_softmax import Rows
from warpbeam.relay.types import Type
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.topi import dims


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
        raise NotImplementedError

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

    def affine(self, attrs: Attrs, value: Any, idx: Sequence[Any], gamma: Any, beta: Any) -> Any:
        """value * gamma + beta at a full index."""
        at = tuple(idx[a] for a in self.parameter_axes(attrs, len(idx)))
        if gamma is not None:
            value = value * E.cast(value.dtype, gamma[at])
        return value if beta is None else value + E.cast(value.dtype, beta[at])

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
        wide, rows = accumulation(x.dtype), Rows(x.shape, self.reduced_axes(attrs, x.ndim))
        count = E.cast(wide, E.as_expr(rows.count()))
        total = rows.stat(lambda *i: E.cast(wide, x[i]), te.sum, "row_sum")
        mean = te.compute(total.shape, lambda *i: E.div(total[i], count), name="row_mean")

        def centred(*i: Any) -> Any:
            return E.cast(wide, x[i]) - mean[rows.of(i)]

        squares = rows.stat(lambda *i: centred(*i) * centred(*i), te.sum, "row_squares")
        inverse = te.compute(
            squares.shape,
            lambda *i: inverse_sqrt(E.div(squares[i], count), attrs["epsilon"]),
            name="row_scale",
        )

        def element(*i: Any) -> Any:
            return E.cast(x.dtype, self.affine(attrs, centred(*i) * inverse[rows.of(i)], i, gamma, beta))

        return rows.spread(element, "normalised")


def inverse_sqrt(value: Any, epsilon: float) -> Any:
    """1 / sqrt(value + epsilon)."""
    root = E.call("sqrt", value + E.const(float(epsilon), value.dtype))
    return E.div(E.const(1.0, value.dtype), root)


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
        wide, rows = accumulation(x.dtype), Rows(x.shape, self.parameter_axes(attrs, x.ndim))
        count = E.cast(wide, E.as_expr(rows.count()))
        squares = rows.stat(lambda *i: E.cast(wide, x[i]) * E.cast(wide, x[i]), te.sum, "row_squares")
        inverse = te.compute(
            squares.shape,
            lambda *i: inverse_sqrt(E.div(squares[i], count), attrs["epsilon"]),
            name="row_scale",
        )

        def element(*i: Any) -> Any:
            value = E.cast(wide, x[i]) * inverse[rows.of(i)]
            return E.cast(x.dtype, self.affine(attrs, value, i, gamma, beta))

        return rows.spread(element, "normalised")


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
        axis, groups, wide = attrs["axis"] % x.ndim, attrs["num_groups"], accumulation(x.dtype)
        size = dims.exact_div(x.shape[axis], groups)
        count = E.cast(wide, E.as_expr(dims.prod([size, *[s for a, s in enumerate(x.shape) if a not in (0, axis)]])))

        def stat(source: Any, name: str) -> Any:
            ks = [te.reduce_axis(size if a == axis else x.shape[a], f"k{a}") for a in range(1, x.ndim)]

            def body(n: Any, g: Any) -> Any:
                at = [n, *[k.var for k in ks]]
                at[axis] = g * size + at[axis]
                return te.sum(source(n, g, at), axis=ks)

            return te.compute((x.shape[0], groups), body, name=name)

        total = stat(lambda n, g, at: E.cast(wide, x[tuple(at)]), "group_sum")
        mean = te.compute(total.shape, lambda n, g: E.div(total[n, g], count), name="group_mean")

        def square(n: Any, g: Any, at: Any) -> Any:
            value = E.cast(wide, x[tuple(at)]) - mean[n, g]
            return value * value

        squares = stat(square, "group_squares")
        inverse = te.compute(
            squares.shape,
            lambda n, g: inverse_sqrt(E.div(squares[n, g], count), attrs["epsilon"]),
            name="group_scale",
        )

        def element(*i: Any) -> Any:
            g = i[axis] // size
            value = (E.cast(wide, x[i]) - mean[i[0], g]) * inverse[i[0], g]
            return E.cast(x.dtype, self.affine(attrs, value, i, gamma, beta))

        return te.compute(x.shape, element, name="normalised")


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
        axis, wide = attrs["axis"] % x.ndim, accumulation(x.dtype)

        def element(*i: Any) -> Any:
            c = i[axis]
            root = E.call("sqrt", E.cast(wide, var[c]) + E.const(float(attrs["epsilon"]), wide))
            value = E.div(E.cast(wide, x[i]) - E.cast(wide, mean[c]), root)
            value = value * E.cast(wide, gamma[c]) if attrs["scale"] else value
            return E.cast(x.dtype, value + E.cast(wide, beta[c]) if attrs["center"] else value)

        return te.compute(x.shape, element, name="batch_norm")


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
        axis, size, wide = attrs["axis"] % x.ndim, attrs["size"], accumulation(x.dtype)
        before, after = [0] * x.ndim, [0] * x.ndim
        before[axis], after[axis] = (size - 1) // 2, size // 2
        squares = pad_stage(x, before, after, 0, "squares", lambda e: E.cast(wide, e) * E.cast(wide, e))
        k = te.reduce_axis(size, "k")
        total = te.compute(
            x.shape,
            lambda *i: te.sum(squares[(*i[:axis], i[axis] + k.var, *i[axis + 1 :])], axis=k),
            name="neighbours",
        )
        bias, scale = E.const(float(attrs["bias"]), wide), E.const(attrs["alpha"] / size, wide)

        def element(*i: Any) -> Any:
            base = E.call("pow", bias + total[i] * scale, E.const(float(attrs["beta"]), wide))
            return E.cast(x.dtype, E.div(E.cast(wide, x[i]), base))

        return te.compute(x.shape, element, name="lrn")


__all__ = ["BatchNorm", "GroupNorm", "InstanceNorm", "LayerNorm", "Lrn", "RmsNorm"]
