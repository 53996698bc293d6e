"""Convolution by 3x3 taps, or by Kx3x3, with transformed weights, and that transform (topi/nn/winograd.py).

    conv2d(x, w)  =  winograd_without_weight_transform(x, winograd_weight_transform(w))

The pass ChooseConvolution makes this of convolutions where it is predicted to be faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.op.base import REQUIRED, accumulation, tensors
from warpbeam.op.nn_common import Ranked, require_rank, spatial_letters, unify
from warpbeam.relay.types import TensorType, Type
from warpbeam.topi import dims
from warpbeam.topi.nn.common import Geometry, Layout, arrange, geometry, layout_map, tuple_of
from warpbeam.topi.nn.convolution import conv_shape
from warpbeam.topi.nn.winograd import TAPS, Matrix, matrices, winograd, winograd_weight

_COLUMNS = 1 << 13


class _WeightTransform(Ranked):
    """weight (O, I, 3, 3), or (O, I, K, 3, 3), in `kernel_layout` -> [size, size, [K,] I, O], or of several groups
    [size, size, groups, [K,] I, O / groups].

    size: rows of G, which is tile_size + 2 with stride 1, and 5 with stride 2.
    """

    arity = 1
    defaults = {"tile_size": REQUIRED, "stride": 1, "groups": 1, "kernel_layout": REQUIRED}

    def attrs(self, given: dict[str, Any] | Attrs) -> Attrs:
        return super().attrs({"kernel_layout": "OI" + spatial_letters(self.nd), **given})

    def layout(self, attrs: Attrs) -> Layout:
        return layout_map(self, attrs["kernel_layout"], "OI" + spatial_letters(self.nd))

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        (w,) = tensors(self, types)
        require_rank(self, w, self.nd + 2, "weight")
        at = self.layout(attrs)
        if w.shape[at["H"]] != TAPS or w.shape[at["W"]] != TAPS or not dt.is_float(w.dtype):
            raise self.error(f"takes floating weights of 3x3 taps, got {w.dtype}{w.shape} as {attrs['kernel_layout']}")
        size, groups, rest = _size(attrs), attrs["groups"], [w.shape[at[c]] for c in _rest(self.nd)]
        if groups > 1:
            if not isinstance(rest[-1], int) or rest[-1] % groups:
                raise self.error(f"{rest[-1]} output channels do not divide into {groups} groups")
            rest = [groups, *rest[:-1], rest[-1] // groups]
        return TensorType((size, size, *rest), w.dtype)

    def numpy(self, attrs: Attrs, w: np.ndarray) -> np.ndarray:
        at = self.layout(attrs)
        taps = w.transpose([at[c] for c in "HW" + _rest(self.nd)])
        flat = taps.reshape(TAPS * TAPS, -1)
        g = np.asarray(_matrices(attrs)[1])
        size, both = _size(attrs), np.kron(g, g)
        out = np.empty((size * size, flat.shape[1]), w.dtype)
        for start in range(0, flat.shape[1], _COLUMNS):  # float64 only for what fits a cache
            part = slice(start, start + _COLUMNS)
            out[:, part] = both @ flat[:, part].astype(np.float64)
        found = out.reshape(size, size, *taps.shape[2:])
        if attrs["groups"] == 1:
            return found
        apart = found.reshape(*found.shape[:-1], attrs["groups"], -1)
        return np.ascontiguousarray(np.moveaxis(apart, -2, 2))

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        return winograd_weight(inputs[0], attrs["tile_size"], self.layout(attrs), attrs["stride"], attrs["groups"])


class WinogradNd(Ranked):
    """The convolution of data by transformed weights [size, size, I, O], or [size, size, K, I, O] over three
    dimensions, of which size tells the transform.

    stride: of rows and columns, 1 or 2. dilation: of rows and columns of known extent, with stride 1. groups: more than
    one over two dimensions of known extent; weights are then [size, size, groups, I, O / groups]. padding: one number,
    one per dimension, or begins then ends. Any layout of data and result. plane_dtype: what the transformed data is
    rounded to, "" for nothing. out_dtype: the result's, "" for that of the data, which is then that of the weights too.
    """

    arity = 2
    defaults = {
        "tile_size": REQUIRED,
        "stride": 1,
        "dilation": (1, 1),
        "groups": 1,
        "padding": 0,
        "data_layout": REQUIRED,
        "out_layout": "",
        "plane_dtype": "",
        "out_dtype": "",
    }

    def attrs(self, given: dict[str, Any] | Attrs) -> Attrs:
        return super().attrs({"data_layout": "NC" + spatial_letters(self.nd), **given})

    def maps(self, attrs: Attrs) -> tuple[Layout, Layout]:
        """Letter -> axis of data and result."""
        data, letters = attrs["data_layout"], "NC" + spatial_letters(self.nd)
        return layout_map(self, data, letters), layout_map(self, attrs["out_layout"] or data, letters)

    def windows(self, attrs: Attrs) -> Geometry:
        """Strides, dilation, begins and ends, one value per spatial dimension each."""
        outer = (1,) * (self.nd - 2)
        steps, spread = (attrs["stride"],) * 2, tuple_of(attrs["dilation"], 2)
        return geometry(self, self.nd, outer + steps, attrs["padding"], outer + spread)

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x, u = tensors(self, types)
        require_rank(self, x, self.nd + 2)
        groups = attrs["groups"]
        require_rank(self, u, self.nd + 2 + (groups > 1), "weight")
        data, out = self.maps(attrs)
        size = _size(attrs)
        agree = u.dtype == x.dtype or (attrs["out_dtype"] and accumulation(u.dtype) == accumulation(x.dtype))
        own = (size, size) if groups == 1 else (size, size, groups)
        if u.shape[: len(own)] != own or not agree or not dt.is_float(x.dtype) or not dt.is_float(u.dtype):
            rest = ", ".join(_rest(self.nd).replace("D", "K"))
            raise self.error(
                f"data is {x.dtype}, weight is {u.dtype}{u.shape}",
                f"both are floats, the weight [{', '.join(map(str, own))}, {rest}]",
            )
        moves = self.windows(attrs)
        if any(isinstance(p, int) and p < 0 for p in (*moves.begins, *moves.ends)):
            raise self.error(f"padding {attrs['padding']} is negative")
        known = all(isinstance(x.shape[data[c]], int) for c in "HW")
        if moves.dilation[-2:] != (1, 1) and (attrs["stride"] != 1 or not known):
            raise self.error(
                f"dilation {moves.dilation[-2:]} with stride {attrs['stride']} over {x.shape}",
                "maps have known rows and columns and a stride of 1 where taps are dilated",
            )
        if groups > 1 and (self.nd > 2 or not known):
            raise self.error(
                f"{groups} groups over {x.shape}", "maps have known rows and columns where groups are many"
            )
        unify(self, x.shape[data["C"]], u.shape[-2] * groups, "input channels and weight channels")
        taps = (TAPS, TAPS, *u.shape[len(own) : -1], u.shape[-1] * groups)
        kernel = {c: i for i, c in enumerate("HW" + _rest(self.nd))}
        return TensorType(
            conv_shape(self, x.shape, taps, (data, kernel, out), moves, groups), attrs["out_dtype"] or x.dtype
        )

    def numpy(self, attrs: Attrs, x: np.ndarray, u: np.ndarray) -> np.ndarray:
        data, out = self.maps(attrs)
        moves = self.windows(attrs)
        wide = dt.to_numpy(accumulation(dt.from_numpy(x.dtype)))
        letters = "N" + spatial_letters(self.nd) + "C"
        plain = x.transpose([data[c] for c in letters]).astype(wide, copy=False)
        plain = np.pad(plain, [(0, 0), *zip(moves.begins, moves.ends, strict=True), (0, 0)])
        u = u.astype(wide)
        spread = moves.dilation[-2:]
        if attrs["groups"] > 1:
            parts = np.split(plain, attrs["groups"], axis=-1)
            y = np.concatenate([_by_phases(p, u[:, :, g], attrs, spread) for g, p in enumerate(parts)], axis=-1)
        elif self.nd == 2:
            y = _by_phases(plain, u, attrs, spread)
        else:
            n, deep, *rest = plain.shape
            count = deep - u.shape[2] + 1
            parts = [plain[:, k : k + count].reshape(-1, *rest) for k in range(u.shape[2])]
            y = np.sum([_by_phases(part, u[:, :, k], attrs, spread) for k, part in enumerate(parts)], axis=0)
            y = y.reshape(n, count, *y.shape[1:])
        back = {c: i for i, c in enumerate(letters)}
        result = dt.to_numpy(attrs["out_dtype"]) if attrs["out_dtype"] else x.dtype
        return np.ascontiguousarray(y.transpose(arrange(out, back)).astype(result))

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        begins, maps = self.windows(attrs).begins, self.maps(attrs)
        how = (
            attrs["stride"],
            attrs["plane_dtype"],
            out_type.dtype,
            self.windows(attrs).dilation[-2:],
            attrs["groups"],
        )
        return winograd(*inputs, attrs["tile_size"], maps, begins, out_type.shape, *how)

    def flops(self, attrs: Attrs, types: Sequence[Any], out_type: Any) -> Any:
        """Those of the plain sum, so that rates of both ways compare."""
        return dims.prod([2, TAPS * TAPS, *types[1].shape[2 + (attrs["groups"] > 1) : -1], *out_type.shape])


# fmt: off
class WinogradWeightTransform(_WeightTransform, name="nn.contrib_conv2d_winograd_weight_transform", nd=2): ...
class WinogradWeightTransform3d(_WeightTransform, name="nn.contrib_conv3d_winograd_weight_transform", nd=3): ...
class WinogradConv2d(WinogradNd, name="nn.contrib_conv2d_winograd_without_weight_transform", nd=2): ...
class WinogradConv3d(WinogradNd, name="nn.contrib_conv3d_winograd_without_weight_transform", nd=3): ...
# fmt: on


def _by_phases(plain: np.ndarray, u: np.ndarray, attrs: Attrs, dilation: Sequence[int]) -> np.ndarray:
    """The convolution of plain [N, H, W, C], borders included, by taps that lie apart: one of each part of the map."""
    high, across = dilation
    if high == across == 1:
        return _by_tiles(plain, u, attrs)
    n, h, w, _ = plain.shape
    y = np.empty((n, h - (TAPS - 1) * high, w - (TAPS - 1) * across, u.shape[-1]), u.dtype)
    for a in range(min(high, y.shape[1])):
        for b in range(min(across, y.shape[2])):
            y[:, a::high, b::across] = _by_tiles(plain[:, a::high, b::across], u, attrs)
    return y


def _by_tiles(plain: np.ndarray, u: np.ndarray, attrs: Attrs) -> np.ndarray:
    """The convolution of plain [N, H, W, C], borders included, by u [size, size, C, O]."""
    size, tile, stride = len(u), attrs["tile_size"], attrs["stride"]
    n, h, w, c = plain.shape
    high, across = ((d - TAPS) // stride + 1 for d in (h, w))
    rows, columns, step = -(-high // tile), -(-across // tile), tile * stride
    more = [max(0, (count - 1) * step + size - d) for count, d in ((rows, h), (columns, w))]
    plain = np.pad(plain, [(0, 0), (0, more[0]), (0, more[1]), (0, 0)])
    bt, _, at = (np.asarray(m, u.dtype) for m in _matrices(attrs))
    part = np.empty((size, size, n, rows, columns, c), u.dtype)
    for i in range(size):
        for j in range(size):
            part[i, j] = plain[:, i : i + (rows - 1) * step + 1 : step, j : j + (columns - 1) * step + 1 : step]
    planes = (np.kron(bt, bt) @ part.reshape(size * size, -1)).reshape(size * size, -1, c)
    if attrs["plane_dtype"]:
        planes = planes.astype(dt.to_numpy(attrs["plane_dtype"])).astype(u.dtype)
    sums = planes @ u.reshape(size * size, c, -1)
    y = (np.kron(at, at) @ sums.reshape(size * size, -1)).reshape(tile, tile, n, rows, columns, -1)
    return y.transpose(2, 3, 0, 4, 1, 5).reshape(n, rows * tile, columns * tile, -1)[:, :high, :across]


def _rest(nd: int) -> str:
    """The letters of transformed weights behind a tile's rows and columns."""
    return "DIO"[3 - nd :]


def _matrices(attrs: Attrs) -> tuple[Matrix, Matrix, Matrix]:
    return matrices(attrs["tile_size"], attrs["stride"])


def _size(attrs: Attrs) -> int:
    """Rows of a tile of data."""
    return len(_matrices(attrs)[0])


__all__ = [
    "WinogradConv2d",
    "WinogradConv3d",
    "WinogradNd",
    "WinogradWeightTransform",
    "WinogradWeightTransform3d",
]
