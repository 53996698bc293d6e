"""Transposed convolution by phases: kernel positions that meet output positions of one remainder are a convolution.

With p + begin = q·s + r (0 <= r < s), only kernel positions k = r + s·j contribute, at input q - j. The kernel is
extended by zeros to a multiple of s (and spread by its dilation first), the input bordered so that q - j is inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.topi import dims, tag
from warpbeam.topi.common import Caller, Who, agree
from warpbeam.topi.nn.common import (
    Geometry,
    Layout,
    arrange,
    dim_max,
    geometry,
    layout_map,
    pad_stage,
    reduce_vars,
    spatial_letters,
    sum_stage,
    tuple_of,
)
from warpbeam.topi.nn.convolution import Maps
from warpbeam.topi.nn.utils import pad_pair


def transposed_shape(
    who: Who, x: Sequence[Any], w: Sequence[Any], maps: Maps, moves: Geometry, groups: int, extra: Sequence[Any]
) -> tuple[Any, ...]:
    """The result's shape; `extra` (output padding) is added at the end of each spatial dimension."""
    data, kernel, out = maps
    sizes = {"N": x[data["N"]], "C": dims.dim(w[kernel["O"]] * groups)}
    for i, c in enumerate(spatial_letters(len(moves.strides))):
        span = (w[kernel[c]] - 1) * moves.dilation[i] + 1
        cut = moves.begins[i] + moves.ends[i]
        sizes[c] = dims.dim((x[data[c]] - 1) * moves.strides[i] + span - moves.begins[i] - moves.ends[i] + extra[i])
        if isinstance(sizes[c], int) and sizes[c] < 1:
            raise who.error(f"padding of {cut} leaves no output along {c}")
    return arrange(out, sizes)


def transposed(x: Any, w: Any, maps: Maps, moves: Geometry, groups: int, shape: Sequence[Any], dtype: str) -> Any:
    """The gradient of a convolution by its data, as te stages; w is (I, O / groups, spatial) in its layout."""
    data, kernel, out = maps
    strides, dilation, begins, _ = moves
    letters = spatial_letters(len(strides))
    spread = _spread_kernel(w, [kernel[c] for c in letters], strides, dilation)
    taps = [spread.shape[kernel[c]] // s for c, s in zip(letters, strides, strict=True)]
    count = [dims.dim((shape[out[c]] + b - 1) // s + 1) for c, b, s in zip(letters, begins, strides, strict=True)]
    before, after = [0] * x.ndim, [0] * x.ndim
    for c, j, q in zip(letters, taps, count, strict=True):
        before[data[c]] = dims.dim(j - 1)
        after[data[c]] = dim_max(dims.dim(q - x.shape[data[c]]), 0)
    padded = pad_stage(x, before, after, 0)
    out_group = w.shape[kernel["O"]]
    in_group = dims.exact_div(x.shape[data["C"]], groups)
    axes, where = reduce_vars([*taps, in_group], ["j" + c.lower() for c in letters] + ["ic"])
    plain = all(s == 1 for s in strides)

    def product(convert: Any, at: dict[str, Any], q: Sequence[Any], r: Sequence[Any]) -> Any:
        channel, o = where[-1], at["C"]
        if groups != 1:
            channel, o = (at["C"] // out_group) * in_group + channel, at["C"] % out_group
        source, weight = {"N": at["N"], "C": channel}, {"I": channel, "O": o}
        for i, c in enumerate(letters):
            source[c] = q[i] - where[i] + before[data[c]]
            weight[c] = where[i] * strides[i] + r[i]
        return convert(padded[arrange(data, source)]) * convert(spread[arrange(kernel, weight)])

    if plain:

        def direct(convert: Any, *idx: Any) -> Any:
            at = {c: idx[a] for c, a in out.items()}
            return product(convert, at, [at[c] + b for c, b in zip(letters, begins, strict=True)], [0] * len(strides))

        return sum_stage(shape, axes, direct, dtype, "conv_transpose", "conv_transpose")
    return _interleaved(out, shape, dtype, (letters, count, strides, begins), axes, product)


def _interleaved(
    out: Layout, out_shape: Sequence[Any], dtype: str, moves: tuple[Any, ...], axes: Sequence[Any], product: Any
) -> Any:
    """The phases as a tensor with (q, r) in place of each spatial axis, then the result read from it."""
    letters, count, strides, begins = moves
    order = sorted(out, key=out.__getitem__)
    shape: list[Any] = []
    place: dict[str, int] = {}
    for c in order:
        place[c] = len(shape)
        if c in letters:
            shape += [count[letters.index(c)], strides[letters.index(c)]]
        else:
            shape.append(out_shape[out[c]])

    def phase(convert: Any, *idx: Any) -> Any:
        at = {c: idx[place[c]] for c in order}
        return product(convert, at, [idx[place[c]] for c in letters], [idx[place[c] + 1] for c in letters])

    whole = sum_stage(shape, axes, phase, dtype, "conv_transpose", "conv_transpose")

    def read(*idx: Any) -> Any:
        source: list[Any] = []
        for c in order:
            p = idx[out[c]]
            if c in letters:
                i = letters.index(c)
                source += [(p + begins[i]) // strides[i], (p + begins[i]) % strides[i]]
            else:
                source.append(p)
        return whole[tuple(source)]

    return te.compute(out_shape, read, name="interleaved", tag=tag.INJECTIVE)


def _spread_kernel(w: Any, axes: Sequence[int], strides: Sequence[int], dilation: Sequence[int]) -> Any:
    """The kernel with zeros between its dilated taps where a stride asks for it, and up to a multiple of the stride."""
    shape = list(w.shape)
    steps: dict[int, int] = {}
    for a, s, d in zip(axes, strides, dilation, strict=True):
        span = (w.shape[a] - 1) * d + 1
        shape[a] = dims.dim((span + s - 1) // s * s)
        steps[a] = d
    if all(dims.same(n, o) is True for n, o in zip(shape, w.shape, strict=True)):
        return w

    def element(*idx: Any) -> Any:
        source, inside = list(idx), []
        for a, d in steps.items():
            source[a] = idx[a] // d
            if d != 1:
                inside.append(E.binary(E.EQ, idx[a] % d, 0))
            if dims.same(shape[a], w.shape[a]) is not True:
                inside.append(source[a] < w.shape[a])
        return E.if_then_else(E.land(*inside), w[tuple(source)], E.const(0, w.dtype))

    return te.compute(shape, element, name="spread_kernel", tag=tag.INJECTIVE)


def conv_transpose(
    data: te.Tensor, kernel: te.Tensor, strides: Any, padding: Any, out_dtype: str | None, output_padding: Any,
    groups: int, name: str,
) -> Any:  # fmt: skip
    """Transposed convolution, channels first; kernel (C, O / groups, spatial)."""
    nd, who = data.ndim - 2, Caller(f"nn.{name}")
    s = spatial_letters(nd)
    layout, weights = layout_map(who, "NC" + s, "NC" + s), layout_map(who, "IO" + s, "OI" + s)
    moves = geometry(who, nd, strides, pad_pair(who, padding, kernel.shape[2:]), 1)
    agree(who, data.shape[1], kernel.shape[0], "input channels and kernel channels")
    maps = layout, weights, layout
    extra = tuple_of(output_padding, nd)
    shape = transposed_shape(who, data.shape, kernel.shape, maps, moves, groups, extra)
    return transposed(data, kernel, maps, moves, groups, shape, out_dtype or data.dtype)


def conv1d_transpose_ncw(
    data: te.Tensor, kernel: te.Tensor, stride: Any, padding: Any, out_dtype: str | None = None,
    output_padding: Any = 0,
) -> Any:  # fmt: skip
    """data (N, C, W) by kernel (C, O, W)."""
    return conv_transpose(data, kernel, stride, padding, out_dtype, output_padding, 1, "conv1d_transpose_ncw")


def conv2d_transpose_nchw(
    Input: te.Tensor, Filter: te.Tensor, strides: Any, padding: Any, out_dtype: str | None = None,
    output_padding: Any = 0,
) -> Any:  # fmt: skip
    """Input (N, C, H, W) by Filter (C, O, H, W)."""
    return conv_transpose(Input, Filter, strides, padding, out_dtype, output_padding, 1, "conv2d_transpose_nchw")


def group_conv2d_transpose_nchw(
    data: te.Tensor, kernel: te.Tensor, stride: Any, padding: Any, out_dtype: str | None, output_padding: Any,
    groups: int,
) -> Any:  # fmt: skip
    """data (N, C, H, W) by kernel (C, O / groups, H, W)."""
    name = "group_conv2d_transpose_nchw"
    return conv_transpose(data, kernel, stride, padding, out_dtype, output_padding, groups, name)


def conv3d_transpose_ncdhw(
    Input: te.Tensor, Filter: te.Tensor, strides: Any, padding: Any, out_dtype: str | None = None,
    output_padding: Any = 0,
) -> Any:  # fmt: skip
    """Input (N, C, D, H, W) by Filter (C, O, D, H, W)."""
    return conv_transpose(Input, Filter, strides, padding, out_dtype, output_padding, 1, "conv3d_transpose_ncdhw")
