"""Convolution over one to three spatial dimensions, any permutation of the layout letters.

One Reduce over (kernel positions, input channels) with affine indices; a border of zeros is a stage of its own and only
there where padding is asked for. Half floats accumulate in float32.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.op.base import REQUIRED, Op, accumulation, tensors
from warpbeam.op.nn_common import (
    layout_map,
    pad_stage,
    reduce_vars,
    require_rank,
    spatial_letters,
    split_padding,
    sum_stage,
    tuple_of,
    unify,
    window_out,
)
from warpbeam.relay.types import TensorType, Type
from warpbeam.topi import dims


class ConvBase(Op):
    """What convolution and its transpose share: operands (data, weight), layouts, geometry."""

    arity = 2
    nd: ClassVar[int] = 2
    defaults = {
        "strides": 1,
        "padding": 0,
        "dilation": 1,
        "groups": 1,
        "data_layout": REQUIRED,
        "kernel_layout": REQUIRED,
        "out_layout": "",
        "out_dtype": "",
    }

    def attrs(self, given: dict[str, Any] | Attrs) -> Attrs:
        s = spatial_letters(self.nd)
        return super().attrs({"data_layout": "NC" + s, "kernel_layout": self.kernel_default + s, **given})

    kernel_default: ClassVar[str] = "OI"

    def maps(self, attrs: Attrs) -> tuple[dict[str, int], dict[str, int], dict[str, int]]:
        """Letter -> axis of data, kernel and result."""
        s = spatial_letters(self.nd)
        data = layout_map(self, attrs["data_layout"], "NC" + s)
        kernel = layout_map(self, attrs["kernel_layout"], "OI" + s)
        return data, kernel, layout_map(self, attrs["out_layout"] or attrs["data_layout"], "NC" + s)

    def windows(self, attrs: Attrs) -> tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]:
        """(strides, dilation, begins, ends), one value per spatial dimension each."""
        strides, dilation = tuple_of(attrs["strides"], self.nd), tuple_of(attrs["dilation"], self.nd)
        if len(strides) != self.nd or len(dilation) != self.nd or min(*strides, *dilation, 1) < 1:
            raise self.error(f"strides {strides} and dilation {dilation} must be {self.nd} positive numbers each")
        return strides, dilation, *split_padding(self, attrs["padding"], self.nd)

    def check(self, types: Sequence[Type]) -> tuple[TensorType, TensorType]:
        x, w = tensors(self, types)
        require_rank(self, x, self.nd + 2)
        require_rank(self, w, self.nd + 2, "weight")
        return x, w

    def result_dtype(self, attrs: Attrs, x: TensorType, w: TensorType) -> str:
        if not attrs["out_dtype"] and x.dtype != w.dtype:
            raise self.error(f"data is {x.dtype} and weight is {w.dtype}", hint="cast one, or set out_dtype")
        return attrs["out_dtype"] or x.dtype  # type: ignore[no-any-return]

    def arrange(self, layout: dict[str, int], values: dict[str, Any]) -> tuple[Any, ...]:
        """Values by letter in the order of a layout."""
        return tuple(values[c] for c in sorted(layout, key=layout.__getitem__))

    def canonical(self, array: np.ndarray, layout: dict[str, int], letters: str) -> np.ndarray:
        """`array` transposed from `layout` to `letters` (NumPy side), in its accumulation type."""
        wide = array.astype(dt.to_numpy(accumulation(dt.from_numpy(array.dtype))), copy=False)
        return wide.transpose([layout[c] for c in letters])


def reference_conv(x: np.ndarray, w: np.ndarray, geometry: tuple[Any, ...], groups: int) -> np.ndarray:
    """NC… by OI… convolution: one small matrix product per kernel position."""
    strides, dilation, begins, ends = geometry
    x = np.pad(x, [(0, 0), (0, 0), *zip(begins, ends, strict=True)])
    n, c, *sizes = x.shape
    o, _, *kernel = w.shape
    out_sizes = [(i - (k - 1) * d - 1) // s + 1 for i, k, s, d in zip(sizes, kernel, strides, dilation, strict=True)]
    total = np.zeros((n, groups, o // groups, int(np.prod(out_sizes))), x.dtype)
    for pos in itertools.product(*map(range, kernel)):
        cut = [
            slice(p * d, p * d + (m - 1) * s + 1, s)
            for p, d, m, s in zip(pos, dilation, out_sizes, strides, strict=True)
        ]
        part = x[(slice(None), slice(None), *cut)].reshape(n, groups, c // groups, -1)
        total += w[(slice(None), slice(None), *pos)].reshape(groups, o // groups, c // groups) @ part
    return total.reshape(n, o, *out_sizes)


class ConvNd(ConvBase):
    """out[n, o, p…] = sum over k…, i of data[n, i, p·stride + k·dilation - begin…] * weight[o, i, k…].

    data (N, C, spatial…) and weight (O, C/groups, spatial…) in the given layouts; output channel o reads group
    o // (O/groups). padding: one number, one per dimension, or begins then ends. out_dtype: "" for the data's.
    """

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x, w = self.check(types)
        data, kernel, out = self.maps(attrs)
        strides, dilation, begins, ends = self.windows(attrs)
        groups, channels, outs = attrs["groups"], x.shape[data["C"]], w.shape[kernel["O"]]
        unify(self, channels, w.shape[kernel["I"]] * groups, "input channels and weight channels times groups")
        if isinstance(outs, int) and outs % groups:
            raise self.error(f"{outs} output channels do not divide into {groups} groups")
        sizes = {"N": x.shape[data["N"]], "C": outs}
        for i, c in enumerate(spatial_letters(self.nd)):
            args = x.shape[data[c]], w.shape[kernel[c]], strides[i], dilation[i], begins[i], ends[i]
            sizes[c] = window_out(self, *args, ceil=False)
        return TensorType(self.arrange(out, sizes), self.result_dtype(attrs, x, w))  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        data, kernel, out = self.maps(attrs)
        s = spatial_letters(self.nd)
        dtype = dt.to_numpy(attrs["out_dtype"]) if attrs["out_dtype"] else x.dtype
        if attrs["out_dtype"]:
            x, w = x.astype(dtype), w.astype(dtype)
        xc, wc = self.canonical(x, data, "NC" + s), self.canonical(w, kernel, "OI" + s)
        y = reference_conv(xc, wc, self.windows(attrs), attrs["groups"])
        back = {c: i for i, c in enumerate("NC" + s)}
        return y.transpose(self.arrange(out, back)).astype(dtype)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x, w = inputs
        data, kernel, out = self.maps(attrs)
        strides, dilation, begins, ends = self.windows(attrs)
        letters = spatial_letters(self.nd)
        before, after = [0] * x.ndim, [0] * x.ndim
        for c, b, a in zip(letters, begins, ends, strict=True):
            before[data[c]], after[data[c]] = b, a
        padded = pad_stage(x, before, after, 0)
        per_group = dims.exact_div(w.shape[kernel["O"]], attrs["groups"])
        in_group = w.shape[kernel["I"]]
        names = ["k" + c.lower() for c in letters] + ["ic"]
        axes, where = reduce_vars([w.shape[kernel[c]] for c in letters] + [in_group], names)

        def body(convert: Any, *idx: Any) -> Any:
            at = {c: idx[a] for c, a in out.items()}
            channel = where[-1]
            if attrs["groups"] != 1:
                channel = (at["C"] // per_group) * in_group + channel
            source = {"N": at["N"], "C": channel}
            weight = {"O": at["C"], "I": where[-1]}
            for i, c in enumerate(letters):
                source[c] = at[c] * strides[i] + where[i] * dilation[i]
                weight[c] = where[i]
            return convert(padded[self.arrange(data, source)]) * convert(w[self.arrange(kernel, weight)])

        return sum_stage(out_type.shape, axes, body, out_type.dtype, "conv")

    def flops(self, attrs: Attrs, types: Sequence[Any], out_type: Any) -> Any:
        taps = dims.prod(s for c, s in zip(attrs["kernel_layout"], types[1].shape, strict=True) if c != "O")
        return dims.prod([2, taps, *out_type.shape])


class Conv1d(ConvNd):
    name = "nn.conv1d"
    nd = 1


class Conv2d(ConvNd):
    name = "nn.conv2d"
    nd = 2


class Conv3d(ConvNd):
    name = "nn.conv3d"
    nd = 3


class ConvTransposeNd(ConvBase):
    """The gradient of a convolution by its data, as a layer of its own ("deconvolution").

    weight is (I = input channels, O = output channels / groups, spatial…). Size: (in-1)·stride + (k-1)·dilation + 1
    - begin - end + output_padding. Computed by phases (nn_conv_phases.py), so that every index is affine and no product
    with an inserted zero is made.
    """

    defaults = {**ConvBase.defaults, "output_padding": 0}
    kernel_default = "IO"

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x, w = self.check(types)
        data, kernel, out = self.maps(attrs)
        strides, dilation, begins, ends = self.windows(attrs)
        extra = tuple_of(attrs["output_padding"], self.nd)
        unify(self, x.shape[data["C"]], w.shape[kernel["I"]], "input channels and weight channels")
        sizes = {"N": x.shape[data["N"]], "C": dims.dim(w.shape[kernel["O"]] * attrs["groups"])}
        for i, c in enumerate(spatial_letters(self.nd)):
            span = (w.shape[kernel[c]] - 1) * dilation[i] + 1
            sizes[c] = dims.dim((x.shape[data[c]] - 1) * strides[i] + span - begins[i] - ends[i] + extra[i])
            if isinstance(sizes[c], int) and sizes[c] < 1:
                raise self.error(f"padding {attrs['padding']} leaves no output along {c}")
        return TensorType(self.arrange(out, sizes), self.result_dtype(attrs, x, w))  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        data, kernel, out = self.maps(attrs)
        letters, groups = spatial_letters(self.nd), attrs["groups"]
        strides, dilation, begins, ends = self.windows(attrs)
        extra = tuple_of(attrs["output_padding"], self.nd)
        dtype = dt.to_numpy(attrs["out_dtype"]) if attrs["out_dtype"] else x.dtype
        xc, wc = self.canonical(x, data, "NC" + letters), self.canonical(w, kernel, "IO" + letters)
        n, c, *sizes = xc.shape
        _, og, *ks = wc.shape
        span = [(i - 1) * s + (k - 1) * d + 1 for i, s, k, d in zip(sizes, strides, ks, dilation, strict=True)]
        full = np.zeros((n, groups, og, *[v + max(e, 0) for v, e in zip(span, extra, strict=True)]), xc.dtype)
        flat = xc.reshape(n, groups, c // groups, -1)
        for pos in itertools.product(*map(range, ks)):
            tap = wc[(slice(None), slice(None), *pos)].reshape(groups, c // groups, og)
            part = (tap.transpose(0, 2, 1) @ flat).reshape(n, groups, og, *sizes)
            put = [
                slice(p * d, p * d + (i - 1) * s + 1, s)
                for p, d, i, s in zip(pos, dilation, sizes, strides, strict=True)
            ]
            full[(slice(None),) * 3 + tuple(put)] += part
        full = full.reshape(n, groups * og, *full.shape[3:])
        crop = [slice(b, v - e + x) for b, v, e, x in zip(begins, span, ends, extra, strict=True)]
        y = full[(slice(None), slice(None), *crop)]
        back = {c: i for i, c in enumerate("NC" + letters)}
        return np.ascontiguousarray(y.transpose(self.arrange(out, back)).astype(dtype))

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        from warpbeam.op.nn_conv_phases import phases

        return phases(self, attrs, inputs, out_type)

    def flops(self, attrs: Attrs, types: Sequence[Any], out_type: Any) -> Any:
        taps = dims.prod(s for c, s in zip(attrs["kernel_layout"], types[1].shape, strict=True) if c != "I")
        return dims.prod([2, taps, *types[0].shape])


class Conv1dTranspose(ConvTransposeNd):
    name = "nn.conv1d_transpose"
    nd = 1


class Conv2dTranspose(ConvTransposeNd):
    name = "nn.conv2d_transpose"
    nd = 2


class Conv3dTranspose(ConvTransposeNd):
    name = "nn.conv3d_transpose"
    nd = 3


__all__ = [
    "Conv1d",
    "Conv1dTranspose",
    "Conv2d",
    "Conv2dTranspose",
    "Conv3d",
    "Conv3dTranspose",
    "ConvBase",
    "ConvNd",
    "ConvTransposeNd",
    "reference_conv",
]
