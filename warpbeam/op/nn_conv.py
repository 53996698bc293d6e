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
from warpbeam.op.base import REQUIRED, accumulation, tensors
from warpbeam.op.nn_common import Ranked, require_rank, spatial_letters, tuple_of, unify
from warpbeam.relay.types import TensorType, Type
from warpbeam.topi import dims
from warpbeam.topi.nn.common import Geometry, arrange, geometry
from warpbeam.topi.nn.conv_transpose import transposed, transposed_shape
from warpbeam.topi.nn.convolution import conv_maps, conv_shape, convolve


class ConvBase(Ranked):
    """What convolution and its transpose share: operands (data, weight), layouts, geometry."""

    arity = 2
    placed = True
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
        return conv_maps(self, self.nd, attrs["data_layout"], attrs["kernel_layout"], attrs["out_layout"])

    def windows(self, attrs: Attrs) -> Geometry:
        """Strides, dilation, begins and ends, one value per spatial dimension each."""
        return geometry(self, self.nd, attrs["strides"], attrs["padding"], attrs["dilation"])

    def check(self, types: Sequence[Type]) -> tuple[TensorType, TensorType]:
        x, w = tensors(self, types)
        require_rank(self, x, self.nd + 2)
        require_rank(self, w, self.nd + 2, "weight")
        return x, w

    def result_dtype(self, attrs: Attrs, x: TensorType, w: TensorType) -> str:
        if not attrs["out_dtype"] and x.dtype != w.dtype:
            raise self.error(f"data is {x.dtype} and weight is {w.dtype}", hint="cast one, or set out_dtype")
        return attrs["out_dtype"] or x.dtype  # type: ignore[no-any-return]

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
        channels, groups = x.shape[data["C"]], attrs["groups"]
        unify(self, channels, w.shape[kernel["I"]] * groups, "input channels and weight channels times groups")
        shape = conv_shape(self, x.shape, w.shape, (data, kernel, out), self.windows(attrs), groups)
        return TensorType(shape, self.result_dtype(attrs, x, w))  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray, w: np.ndarray) -> np.ndarray:
        data, kernel, out = self.maps(attrs)
        s = spatial_letters(self.nd)
        dtype = dt.to_numpy(attrs["out_dtype"]) if attrs["out_dtype"] else x.dtype
        if attrs["out_dtype"]:
            x, w = x.astype(dtype), w.astype(dtype)
        xc, wc = self.canonical(x, data, "NC" + s), self.canonical(w, kernel, "OI" + s)
        y = reference_conv(xc, wc, self.windows(attrs), attrs["groups"])
        back = {c: i for i, c in enumerate("NC" + s)}
        return y.transpose(arrange(out, back)).astype(dtype)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        maps, moves = self.maps(attrs), self.windows(attrs)
        return convolve(*inputs, maps, moves, attrs["groups"], out_type.shape, out_type.dtype)

    def flops(self, attrs: Attrs, types: Sequence[Any], out_type: Any) -> Any:
        taps = dims.prod(s for c, s in zip(attrs["kernel_layout"], types[1].shape, strict=True) if c != "O")
        return dims.prod([2, taps, *out_type.shape])


# fmt: off
class Conv1d(ConvNd, name="nn.conv1d", nd=1): ...
class Conv2d(ConvNd, name="nn.conv2d", nd=2): ...
class Conv3d(ConvNd, name="nn.conv3d", nd=3): ...
# fmt: on


class ConvTransposeNd(ConvBase):
    """The gradient of a convolution by its data, as a layer of its own ("deconvolution").

    weight is (I = input channels, O = output channels / groups, spatial…). Size: (in-1)·stride + (k-1)·dilation + 1
    - begin - end + output_padding. Computed by phases (topi/nn/conv_transpose.py), so that every index is affine and
    no product with an inserted zero is made.
    """

    defaults = {**ConvBase.defaults, "output_padding": 0}
    kernel_default = "IO"

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x, w = self.check(types)
        data, kernel, out = self.maps(attrs)
        extra = tuple_of(attrs["output_padding"], self.nd)
        unify(self, x.shape[data["C"]], w.shape[kernel["I"]], "input channels and weight channels")
        moves = self.windows(attrs)
        shape = transposed_shape(self, x.shape, w.shape, (data, kernel, out), moves, attrs["groups"], extra)
        return TensorType(shape, self.result_dtype(attrs, x, w))  # type: ignore[no-any-return]

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
        return np.ascontiguousarray(y.transpose(arrange(out, back)).astype(dtype))

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        maps, moves = self.maps(attrs), self.windows(attrs)
        return transposed(*inputs, maps, moves, attrs["groups"], out_type.shape, out_type.dtype)

    def flops(self, attrs: Attrs, types: Sequence[Any], out_type: Any) -> Any:
        taps = dims.prod(s for c, s in zip(attrs["kernel_layout"], types[1].shape, strict=True) if c != "I")
        return dims.prod([2, taps, *types[0].shape])


# fmt: off
class Conv1dTranspose(ConvTransposeNd, name="nn.conv1d_transpose", nd=1): ...
class Conv2dTranspose(ConvTransposeNd, name="nn.conv2d_transpose", nd=2): ...
class Conv3dTranspose(ConvTransposeNd, name="nn.conv3d_transpose", nd=3): ...
# fmt: on


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
