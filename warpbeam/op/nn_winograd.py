"""Convolution by 3x3 taps, by Kx3x3, or by 3 along one dimension, with transformed weights, and that transform
(topi/nn/winograd.py).

    conv2d(x, w)  =  winograd_without_weight_transform(x, winograd_weight_transform(w))

tile_size is the results of a tile along rows and along columns: one number for both, or two, of which one may be 1:
there is one tap along that dimension then. What has one dimension is a map of one row.

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
from warpbeam.topi.nn.winograd import Matrix, matrices, taps_of, winograd, winograd_weight

_COLUMNS = 1 << 13


class _WeightTransform(Ranked):
    """weight (O, I, 3, 3), or (O, I, K, 3, 3), or (O, I, 3), in `kernel_layout` -> [size, size, [K,] I, O], or of
    several groups [size, size, groups, [K,] I, O / groups].

    size: rows of G, which is tile_size + 2 with stride 1, and 5 with stride 2; 1 for a tile of 1.
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
        taps = taps_of(tiles_of(self.nd, attrs))
        if any(w.shape[at[c]] != n for c, n in zip("HW", taps, strict=True) if c in at) or not dt.is_float(w.dtype):
            count = "x".join(map(str, taps[-self.nd :]))
            raise self.error(
                f"takes floating weights of {count} taps, got {w.dtype}{w.shape} as {attrs['kernel_layout']}"
            )
        size, groups, rest = _size(self.nd, attrs), attrs["groups"], [w.shape[at[c]] for c in _rest(self.nd)]
        if groups > 1:
            if not isinstance(rest[-1], int) or rest[-1] % groups:
                raise self.error(f"{rest[-1]} output channels do not divide into {groups} groups")
            rest = [groups, *rest[:-1], rest[-1] // groups]
        return TensorType((*size, *rest), w.dtype)

    def numpy(self, attrs: Attrs, w: np.ndarray) -> np.ndarray:
        at = self.layout(attrs)
        letters = "".join(c for c in "HW" if c in at)
        taps = w.transpose([at[c] for c in letters + _rest(self.nd)])
        both = np.kron(*(np.asarray(m[1]) for m in _matrices(self.nd, attrs)))
        flat = taps.reshape(both.shape[1], -1)
        out = np.empty((len(both), flat.shape[1]), w.dtype)
        for start in range(0, flat.shape[1], _COLUMNS):  # float64 only for what fits a cache
            part = slice(start, start + _COLUMNS)
            out[:, part] = both @ flat[:, part].astype(np.float64)
        found = out.reshape(*_size(self.nd, attrs), *taps.shape[len(letters) :])
        if attrs["groups"] == 1:
            return found
        apart = found.reshape(*found.shape[:-1], attrs["groups"], -1)
        return np.ascontiguousarray(np.moveaxis(apart, -2, 2))

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        tiles = tiles_of(self.nd, attrs)
        return winograd_weight(inputs[0], tiles, self.layout(attrs), attrs["stride"], attrs["groups"])


class WinogradNd(Ranked):
    """The convolution of data by transformed weights [size, size, I, O], or [size, size, K, I, O] over three
    dimensions, of which size tells the transform.

    stride: of dimensions with three taps, 1 or 2. dilation: of rows and columns of known extent, with stride 1. groups:
    more than one over maps of known extent; weights are then [size, size, groups, I, O / groups]. padding: one number,
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
        outer, inner = (1,) * (self.nd - 2), min(2, self.nd)
        steps = tuple(1 if t == 1 else attrs["stride"] for t in tiles_of(self.nd, attrs)[-inner:])
        return geometry(self, self.nd, outer + steps, attrs["padding"], outer + self.spread(attrs)[-inner:])

    def spread(self, attrs: Attrs) -> tuple[int, int]:
        """The dilation of rows and of columns."""
        high, across = tuple_of(attrs["dilation"], 2)
        return (1 if self.nd == 1 else high), across

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x, u = tensors(self, types)
        require_rank(self, x, self.nd + 2)
        groups = attrs["groups"]
        require_rank(self, u, max(self.nd, 2) + 2 + (groups > 1), "weight")
        data, out = self.maps(attrs)
        size = _size(self.nd, attrs)
        agree = u.dtype == x.dtype or (attrs["out_dtype"] and accumulation(u.dtype) == accumulation(x.dtype))
        own = size if groups == 1 else (*size, groups)
        if u.shape[: len(own)] != own or not agree or not dt.is_float(x.dtype) or not dt.is_float(u.dtype):
            rest = ", ".join(_rest(self.nd).replace("D", "K"))
            raise self.error(
                f"data is {x.dtype}, weight is {u.dtype}{u.shape}",
                f"both are floats, the weight [{', '.join(map(str, own))}, {rest}]",
            )
        moves = self.windows(attrs)
        if any(isinstance(p, int) and p < 0 for p in (*moves.begins, *moves.ends)):
            raise self.error(f"padding {attrs['padding']} is negative")
        known = all(isinstance(x.shape[data[c]], int) for c in "HW" if c in data)
        if self.spread(attrs) != (1, 1) and (attrs["stride"] != 1 or not known):
            raise self.error(
                f"dilation {moves.dilation[-2:]} with stride {attrs['stride']} over {x.shape}",
                "maps have known rows and columns and a stride of 1 where taps are dilated",
            )
        if groups > 1 and (self.nd > 2 or not known):
            raise self.error(
                f"{groups} groups over {x.shape}", "maps have known rows and columns where groups are many"
            )
        unify(self, x.shape[data["C"]], u.shape[-2] * groups, "input channels and weight channels")
        taps = (*taps_of(tiles_of(self.nd, attrs))[-self.nd :], *u.shape[len(own) : -1], u.shape[-1] * groups)
        kernel = {c: i for i, c in enumerate("HW"[-self.nd :] + _rest(self.nd))}
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
        spread, walk = self.spread(attrs), (attrs, tiles_of(self.nd, attrs))
        plain = plain[:, None] if self.nd == 1 else plain
        if attrs["groups"] > 1:
            parts = np.split(plain, attrs["groups"], axis=-1)
            y = np.concatenate([_by_phases(p, u[:, :, g], *walk, spread) for g, p in enumerate(parts)], axis=-1)
        elif self.nd < 3:
            y = _by_phases(plain, u, *walk, spread)
        else:
            n, deep, *rest = plain.shape
            count = deep - u.shape[2] + 1
            parts = [plain[:, k : k + count].reshape(-1, *rest) for k in range(u.shape[2])]
            y = np.sum([_by_phases(part, u[:, :, k], *walk, spread) for k, part in enumerate(parts)], axis=0)
            y = y.reshape(n, count, *y.shape[1:])
        y = y[:, 0] if self.nd == 1 else y
        back = {c: i for i, c in enumerate(letters)}
        result = dt.to_numpy(attrs["out_dtype"]) if attrs["out_dtype"] else x.dtype
        return np.ascontiguousarray(y.transpose(arrange(out, back)).astype(result))

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        begins, maps = self.windows(attrs).begins, self.maps(attrs)
        how = (
            attrs["stride"],
            attrs["plane_dtype"],
            out_type.dtype,
            self.spread(attrs),
            attrs["groups"],
        )
        return winograd(*inputs, tiles_of(self.nd, attrs), maps, begins, out_type.shape, *how)

    def flops(self, attrs: Attrs, types: Sequence[Any], out_type: Any) -> Any:
        """Those of the plain sum, so that rates of both ways compare."""
        taps = taps_of(tiles_of(self.nd, attrs))
        return dims.prod([2, *taps, *types[1].shape[2 + (attrs["groups"] > 1) : -1], *out_type.shape])


# fmt: off
class WinogradWeightTransform1d(_WeightTransform, name="nn.contrib_conv1d_winograd_weight_transform", nd=1): ...
class WinogradWeightTransform(_WeightTransform, name="nn.contrib_conv2d_winograd_weight_transform", nd=2): ...
class WinogradWeightTransform3d(_WeightTransform, name="nn.contrib_conv3d_winograd_weight_transform", nd=3): ...
class WinogradConv1d(WinogradNd, name="nn.contrib_conv1d_winograd_without_weight_transform", nd=1): ...
class WinogradConv2d(WinogradNd, name="nn.contrib_conv2d_winograd_without_weight_transform", nd=2): ...
class WinogradConv3d(WinogradNd, name="nn.contrib_conv3d_winograd_without_weight_transform", nd=3): ...
# fmt: on


def _by_phases(
    plain: np.ndarray, u: np.ndarray, attrs: Attrs, tiles: Sequence[int], dilation: Sequence[int]
) -> np.ndarray:
    """The convolution of plain [N, H, W, C], borders included, by taps that lie apart: one of each part of the map."""
    high, across = dilation
    if high == across == 1:
        return _by_tiles(plain, u, attrs, tiles)
    n, h, w, _ = plain.shape
    rows, columns = taps_of(tiles)
    y = np.empty((n, h - (rows - 1) * high, w - (columns - 1) * across, u.shape[-1]), u.dtype)
    for a in range(min(high, y.shape[1])):
        for b in range(min(across, y.shape[2])):
            y[:, a::high, b::across] = _by_tiles(plain[:, a::high, b::across], u, attrs, tiles)
    return y


def _by_tiles(plain: np.ndarray, u: np.ndarray, attrs: Attrs, tiles: Sequence[int]) -> np.ndarray:
    """The convolution of plain [N, H, W, C], borders included, by u [size, size, C, O]."""
    n, h, w, c = plain.shape
    (bt, _, at), (bt2, _, at2) = (matrices(t, attrs["stride"]) for t in tiles)
    walks = [(t, len(m), 1 if t == 1 else attrs["stride"]) for t, m in zip(tiles, (bt, bt2), strict=True)]
    made = [(d - taps) // s + 1 for d, taps, (_, _, s) in zip((h, w), taps_of(tiles), walks, strict=True)]
    counts = [-(-results // t) for results, t in zip(made, tiles, strict=True)]
    ends = [(count - 1) * t * s + size for count, (t, size, s) in zip(counts, walks, strict=True)]
    plain = np.pad(plain, [(0, 0), *((0, max(0, end - d)) for end, d in zip(ends, (h, w), strict=True)), (0, 0)])
    taken = [
        [slice(i, i + (count - 1) * t * s + 1, t * s) for i in range(size)]
        for count, (t, size, s) in zip(counts, walks, strict=True)
    ]
    part = np.stack([plain[:, rows, columns] for rows in taken[0] for columns in taken[1]])
    forth, back = (np.kron(*pair).astype(u.dtype) for pair in ((bt, bt2), (at, at2)))
    planes = (forth @ part.astype(u.dtype, copy=False).reshape(len(part), -1)).reshape(len(part), -1, c)
    if attrs["plane_dtype"]:
        planes = planes.astype(dt.to_numpy(attrs["plane_dtype"])).astype(u.dtype)
    sums = planes @ u.reshape(len(part), c, -1)
    y = (back @ sums.reshape(len(part), -1)).reshape(*tiles, n, *counts, -1).transpose(2, 3, 0, 4, 1, 5)
    return y.reshape(n, counts[0] * tiles[0], counts[1] * tiles[1], -1)[:, : made[0], : made[1]]


def _rest(nd: int) -> str:
    """The letters of transformed weights behind a tile's rows and columns."""
    return "DIO" if nd == 3 else "IO"


def tiles_of(nd: int, attrs: Attrs) -> tuple[int, int]:
    """Results of a tile along rows and along columns, 1 where there is one tap."""
    high, across = tuple_of(attrs["tile_size"], 2)
    return (1 if nd == 1 else high), across


def _matrices(nd: int, attrs: Attrs) -> list[tuple[Matrix, Matrix, Matrix]]:
    return [matrices(t, attrs["stride"]) for t in tiles_of(nd, attrs)]


def _size(nd: int, attrs: Attrs) -> tuple[int, int]:
    """Rows and columns of a tile of data."""
    high, across = (len(m[0]) for m in _matrices(nd, attrs))
    return high, across


__all__ = [
    "WinogradConv1d",
    "WinogradConv2d",
    "WinogradConv3d",
    "WinogradNd",
    "WinogradWeightTransform",
    "WinogradWeightTransform1d",
    "WinogradWeightTransform3d",
    "tiles_of",
]
