"""Convolution with taps moved by run-time offsets (Dai et al., 2017, Deformable Convolutional Networks).

The taps are sampled bilinearly into a tensor (N, C, kh, kw, oh, ow), which is then contracted with the weight.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.ir.node import Attrs
from warpbeam.op.base import Op, accumulation, tensors
from warpbeam.op.nn_common import (
    np_accum,
    require_float,
    require_rank,
    split_padding,
    sum_stage,
    tuple_of,
    unify,
    unify_shapes,
    window_out,
)
from warpbeam.relay.types import TensorType, Type
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.topi import dims


class DeformableConv2d(Op):
    """Operands: data (N, C, H, W), offset (N, 2·G·kh·kw, oh, ow) as y, x per tap, weight (O, C/groups, kh, kw), mask?

    G = deformable_groups: runs of channels that share offsets. mask (N, G·kh·kw, oh, ow) scales each tap. What lies
    outside the data is zero.
    """

    name = "nn.deformable_conv2d"
    arity = None
    defaults = {"strides": 1, "padding": 0, "dilation": 1, "groups": 1, "deformable_groups": 1}

    def geometry(self, attrs: Attrs) -> tuple[Any, Any, Any, Any]:
        """(strides, dilation, begins, ends)."""
        return (
            tuple_of(attrs["strides"], 2),
            tuple_of(attrs["dilation"], 2),
            *split_padding(self, attrs["padding"], 2),
        )

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        if len(types) not in (3, 4):
            raise self.error(f"takes 3 or 4 operands, got {len(types)}")
        found = tensors(self, types)
        x, offset, w = found[:3]
        require_float(self, x)
        for t, which in zip(found, ("data", "offset", "weight", "mask"), strict=False):
            require_rank(self, t, 4, which)
            if t.dtype != x.dtype:
                raise self.error(f"{which} is {t.dtype}, data is {x.dtype}")
        strides, dilation, begins, ends = self.geometry(attrs)
        sizes = [
            window_out(self, x.shape[2 + n], w.shape[2 + n], strides[n], dilation[n], begins[n], ends[n], ceil=False)
            for n in range(2)
        ]
        taps = dims.prod((attrs["deformable_groups"], *w.shape[2:]))
        wanted = [(offset, (x.shape[0], dims.prod((2, taps)), *sizes), "offset")]
        wanted += [(t, (x.shape[0], taps, *sizes), "mask") for t in found[3:]]
        for t, shape, which in wanted:
            unify_shapes(self, t.shape, shape, f"the shape of {which} and the expected one")
        unify(self, x.shape[1], dims.prod((w.shape[1], attrs["groups"])), "input channels and weight channels")
        return TensorType((x.shape[0], w.shape[0], *sizes), x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray, offset: np.ndarray, w: np.ndarray, *mask: np.ndarray) -> np.ndarray:
        strides, dilation, begins, _ = self.geometry(attrs)
        wide, (n, c, _, _), (oh, ow) = np_accum(x), x.shape, offset.shape[2:]
        kh, kw, groups = w.shape[2], w.shape[3], attrs["deformable_groups"]
        moved = np_accum(offset).reshape(n, groups, kh, kw, 2, oh, ow)
        scale = np_accum(mask[0]).reshape(n, groups, kh, kw, oh, ow) if mask else None
        taps = np.zeros((n, c, kh, kw, oh, ow), wide.dtype)
        rows, columns = np.meshgrid(np.arange(oh), np.arange(ow), indexing="ij")
        for b, ch, i, j in itertools.product(range(n), range(c), range(kh), range(kw)):
            g = ch // (c // groups)
            y = rows * strides[0] - begins[0] + i * dilation[0] + moved[b, g, i, j, 0]
            v = columns * strides[1] - begins[1] + j * dilation[1] + moved[b, g, i, j, 1]
            taps[b, ch, i, j] = _bilinear(wide[b, ch], y, v)
            if scale is not None:
                taps[b, ch, i, j] *= scale[b, g, i, j]
        parts = np.split(taps, attrs["groups"], axis=1)
        kernels = np.split(np_accum(w), attrs["groups"], axis=0)
        out = [np.einsum("ncijhw,ocij->nohw", p, k) for p, k in zip(parts, kernels, strict=True)]
        return np.concatenate(out, axis=1).astype(x.dtype)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x, w = inputs[0], inputs[2]
        taps = self._taps(attrs, inputs, out_type)
        per_group = dims.exact_div(w.shape[0], attrs["groups"])
        ic, ki, kj = (te.reduce_axis(w.shape[1 + n], name) for n, name in enumerate(("ic", "ki", "kj")))

        def body(convert: Any, n: Any, o: Any, h: Any, v: Any) -> Any:
            channel = ic.var if attrs["groups"] == 1 else (o // per_group) * w.shape[1] + ic.var
            return convert(taps[n, channel, ki.var, kj.var, h, v]) * convert(w[o, ic.var, ki.var, kj.var])

        return sum_stage(out_type.shape, [ic, ki, kj], body, x.dtype, "deformable_conv")

    def _taps(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        """The sampled input of every tap, (N, C, kh, kw, oh, ow)."""
        x, offset, w, *mask = inputs
        strides, dilation, begins, _ = self.geometry(attrs)
        kh, kw = w.shape[2:]
        share = dims.exact_div(x.shape[1], attrs["deformable_groups"])
        wide = accumulation(x.dtype)

        def tap(n: Any, c: Any, i: Any, j: Any, h: Any, v: Any) -> Any:
            at = ((c // share) * kh + i) * kw + j
            position = []
            for d, (p, k) in enumerate(((h, i), (v, j))):
                base = E.cast(wide, p * strides[d] - begins[d] + k * dilation[d])
                position.append(base + E.cast(wide, offset[n, at * 2 + d, h, v]))
            value = self._sample(x, n, c, position, wide)
            return value * E.cast(wide, mask[0][n, at, h, v]) if mask else value

        return te.compute((x.shape[0], x.shape[1], kh, kw, *out_type.shape[2:]), tap, name="taps")

    def _sample(self, x: Any, n: Any, c: Any, position: Sequence[Any], wide: str) -> Any:
        """Bilinear value at a real position; neighbours outside the data are zero."""
        low = [E.cast("int64", E.call("floor", p)) for p in position]
        part = [p - E.call("floor", p) for p in position]
        total: Any = E.const(0.0, wide)
        for corner in itertools.product((0, 1), repeat=2):
            at, inside, weight = [], [], E.const(1.0, wide)
            for d, step in enumerate(corner):
                place, last = low[d] + step, E.as_expr(x.shape[2 + d]) - 1
                inside += [place >= 0, place <= last]
                at.append(E.maximum(E.minimum(place, last), 0))
                weight = weight * (part[d] if step else 1.0 - part[d])
            value = E.cast(wide, x[(n, c, *at)]) * weight
            total = total + E.select(E.land(*inside), value, E.const(0.0, wide))
        return total

    def flops(self, attrs: Attrs, types: Sequence[Any], out_type: Any) -> Any:
        return dims.prod([2, *types[2].shape[1:], *out_type.shape])


def _bilinear(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Bilinear samples of one plane, zero outside (NumPy side)."""
    y0, x0 = np.floor(y), np.floor(x)
    total = np.zeros(y.shape, image.dtype)
    for dy, dx in itertools.product((0, 1), repeat=2):
        r, c = (y0 + dy).astype(int), (x0 + dx).astype(int)
        ok = (r >= 0) & (r < image.shape[0]) & (c >= 0) & (c < image.shape[1])
        weight = (1 - np.abs(y - r)) * (1 - np.abs(x - c))
        value = image[np.clip(r, 0, image.shape[0] - 1), np.clip(c, 0, image.shape[1] - 1)]
        total += np.where(ok, weight * value, 0)
    return total
