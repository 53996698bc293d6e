"""Transposed convolution by phases: kernel positions that meet output positions of one remainder are a convolution.

With p + begin = q·s + r (0 <= r < s), only kernel positions k = r + s·j contribute, at input q - j. The kernel is
extended by zeros to a multiple of s (and spread by its dilation first), the input bordered so that q - j is inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warpbeam.ir.node import Attrs
from warpbeam.op.nn_common import dim_max, pad_stage, reduce_vars, spatial_letters, sum_stage
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.topi import dims


def phases(op: Any, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
    """The te computation of a ConvTransposeNd operator."""
    x, w = inputs
    data, kernel, out = op.maps(attrs)
    strides, dilation, begins, _ = op.windows(attrs)
    letters, groups = spatial_letters(op.nd), attrs["groups"]
    spread = _spread_kernel(w, [kernel[c] for c in letters], strides, dilation)
    taps = [spread.shape[kernel[c]] // s for c, s in zip(letters, strides, strict=True)]
    count = [
        dims.dim((out_type.shape[out[c]] + b - 1) // s + 1) for c, b, s in zip(letters, begins, strides, strict=True)
    ]
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
        return convert(padded[op.arrange(data, source)]) * convert(spread[op.arrange(kernel, weight)])

    if plain:

        def direct(convert: Any, *idx: Any) -> Any:
            at = {c: idx[a] for c, a in out.items()}
            return product(convert, at, [at[c] + b for c, b in zip(letters, begins, strict=True)], [0] * op.nd)

        return sum_stage(out_type.shape, axes, direct, out_type.dtype, "conv_transpose")
    return _interleaved(op, out, out_type, (letters, count, strides, begins), axes, product)


def _interleaved(
    op: Any, out: dict[str, int], out_type: Any, geometry: tuple[Any, ...], axes: Sequence[Any], product: Any
) -> Any:
    """The phases as a tensor with (q, r) in place of each spatial axis, then the result read from it."""
    letters, count, strides, begins = geometry
    order = sorted(out, key=out.__getitem__)
    shape: list[Any] = []
    place: dict[str, int] = {}
    for c in order:
        place[c] = len(shape)
        if c in letters:
            shape += [count[letters.index(c)], strides[letters.index(c)]]
        else:
            shape.append(out_type.shape[out[c]])

    def phase(convert: Any, *idx: Any) -> Any:
        at = {c: idx[place[c]] for c in order}
        return product(convert, at, [idx[place[c]] for c in letters], [idx[place[c] + 1] for c in letters])

    whole = sum_stage(shape, axes, phase, out_type.dtype, "conv_transpose")

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

    return te.compute(out_type.shape, read, name="interleaved")


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

    return te.compute(shape, element, name="spread_kernel")
