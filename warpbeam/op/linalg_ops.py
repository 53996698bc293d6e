"""Matrices: triangles, identity, determinant; and the inverse of taking windows apart."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.op.base import REQUIRED, Op, accumulation, tensors
from warpbeam.op.index_gather import check_indices
from warpbeam.op.index_loops import Loops
from warpbeam.op.nn_common import np_accum, require_float, unify
from warpbeam.relay.types import TensorType, Type
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.tir.stmt import PrimFunc
from warpbeam.topi import dims
from warpbeam.topi.common import convert_stage

_WRITTEN_OUT = 49  # windows over a pixel

_LANES = 16  # of rows of matrices that are eliminated


class Trilu(Op):
    """data with zeros below (upper) or above (lower) the k-th diagonal of its last two axes; k is a scalar operand."""

    name = "trilu"
    arity = 2
    defaults = {"upper": True}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x, k = tensors(self, types)
        check_indices(self, k)
        if x.ndim < 2 or k.ndim != 0:
            raise self.error(f"takes a tensor of at least 2 dimensions and a scalar, got {x.ndim} and {k.ndim}")
        return x

    def numpy(self, attrs: Attrs, x: np.ndarray, k: np.ndarray) -> np.ndarray:
        rows, columns = np.indices(x.shape[-2:])
        keep = columns - rows >= int(k) if attrs["upper"] else columns - rows <= int(k)
        return np.where(keep, x, np.zeros((), x.dtype))

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x, k = inputs
        zero = E.const(0, x.dtype)

        def element(*i: Any) -> Any:
            gap, shift = i[-1] - i[-2], E.cast("int64", k[()])
            return E.select(gap >= shift if attrs["upper"] else gap <= shift, x[i], zero)

        return te.compute(x.shape, element, name="trilu")


class Eye(Op):
    """Ones on the k-th diagonal of a matrix of `shape`."""

    name = "eye"
    arity = 0
    defaults = {"shape": REQUIRED, "k": 0, "dtype": "float32"}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        if len(attrs["shape"]) != 2:
            raise self.error(f"shape must have 2 dimensions, got {len(attrs['shape'])}")
        return TensorType(attrs["shape"], attrs["dtype"])  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs) -> np.ndarray:
        return np.eye(*attrs["shape"], k=attrs["k"]).astype(dt.to_numpy(attrs["dtype"]))

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        def element(i: Any, j: Any) -> Any:
            return E.cast(out_type.dtype, E.binary(E.EQ, j - i, attrs["k"]))

        return te.compute(out_type.shape, element, name="eye")


class Det(Op):
    """Determinant of the last two axes, by elimination with row exchanges."""

    name = "linalg.det"

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        (x,) = tensors(self, types)
        require_float(self, x)
        if x.ndim < 2:
            raise self.error(f"takes matrices, got shape {dims.shape_text(x.shape)}")
        unify(self, x.shape[-1], x.shape[-2], "rows and columns")
        return TensorType(x.shape[:-2], x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        return np.asarray(np.linalg.det(np_accum(x))).astype(x.dtype)

    def flops(self, attrs: Attrs, types: Sequence[Any], out_type: Any) -> Any:
        return dims.prod([*types[0].shape, types[0].shape[-1]])

    def compute_prim(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> PrimFunc:
        loops = Loops("det", inputs, [out_type])
        (x,), (out,) = loops.ins, loops.outs
        wide, n = accumulation(x.dtype), x.shape[-1]
        work = loops.temp(x.shape, wide)

        def matrix(b: list[Any]) -> Any:
            def run(det: E.Buffer) -> Any:
                def column(k: Any) -> Any:
                    return loops.cells("int64", 1, lambda pivot: _eliminate(loops, work, b, k, pivot, det))

                def copy(at: list[Any]) -> Any:
                    return loops.store(work, [*b, *at], E.cast(wide, x[(*b, *at)]))

                return [
                    loops.store(det, 0, E.const(1.0, wide)),
                    loops.nest([n, n], copy, "c", lanes=_LANES),
                    loops.loop(n, column, "k"),
                    loops.store(out, b, E.cast(out.dtype, det[0])),
                ]

            return loops.cells(wide, 1, run)

        return loops.func(loops.nest(x.shape[:-2], matrix, "b", parallel=True))


def _eliminate(loops: Loops, work: E.Buffer, b: list[Any], k: Any, pivot: E.Buffer, det: E.Buffer) -> list[Any]:
    """Column k of matrix b: its largest element becomes the pivot and a factor of `det`, rows below lose the column."""
    n, zero = work.shape[-1], E.const(0.0, work.dtype)

    def at(i: Any, j: Any) -> Any:
        return work[(*b, i, j)]

    def look(i: Any) -> Any:
        row = k + i
        larger = E.call("abs", at(row, k)) > E.call("abs", at(pivot[0], k))
        return loops.when(larger, loops.store(pivot, 0, row))

    def right(step: Any) -> Any:
        """What is done to a row, from the vector on that has the column: what is left of it is used no more."""
        first = k // _LANES * _LANES
        return loops.let(first, lambda f: loops.nest([n - f], lambda j: step(f + j[0]), "j", lanes=_LANES))

    def swap(j: Any) -> Any:
        def exchange(held: Any) -> Any:
            return [loops.store(work, [*b, pivot[0], j], at(k, j)), loops.store(work, [*b, k, j], held)]

        return loops.let(at(pivot[0], j), exchange)

    def reduce(i: Any) -> Any:
        row = k + 1 + i
        factor = E.select(E.binary(E.EQ, at(k, k), zero), zero, E.div(at(row, k), at(k, k)))

        def subtract(f: Any) -> Any:
            return right(lambda j: loops.store(work, [*b, row, j], at(row, j) - f * at(k, j)))

        return loops.let(factor, subtract)

    return [
        loops.store(pivot, 0, k),
        loops.loop(n - k, look, "i"),
        loops.when(E.binary(E.NE, pivot[0], k), [right(swap), loops.store(det, 0, zero - det[0])]),
        loops.store(det, 0, det[0] * at(k, k)),
        loops.loop(n - k - 1, reduce, "i"),
    ]


class Col2Im(Op):
    """Windows (N, C * prod(block), L) added back into images (N, C, image…): the adjoint of cutting windows out."""

    name = "col2im"
    defaults = {"image_shape": REQUIRED, "block_shape": REQUIRED, "strides": REQUIRED, "padding": 0, "dilation": 1}

    def geometry(self, attrs: Attrs) -> tuple[list[int], Any, Any, Any, Any, Any]:
        """(windows per dimension, block, strides, dilation, begins, ends)."""
        from warpbeam.op.nn_common import split_padding, tuple_of, window_out

        block = tuple(attrs["block_shape"])
        nd = len(block)
        strides, dilation = tuple_of(attrs["strides"], nd), tuple_of(attrs["dilation"], nd)
        begins, ends = split_padding(self, attrs["padding"], nd)
        counts = [
            window_out(self, s, k, st, d, b, e, ceil=False)
            for s, k, st, d, b, e in zip(attrs["image_shape"], block, strides, dilation, begins, ends, strict=True)
        ]
        return counts, block, strides, dilation, begins, ends

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        (x,) = tensors(self, types)
        if x.ndim != 3 or len(attrs["image_shape"]) != len(attrs["block_shape"]):
            raise self.error("takes (N, C * prod(block), L) and image and block shapes of one length")
        counts, block, *_ = self.geometry(attrs)
        unify(self, dims.prod(counts), x.shape[2], "the windows of the image and those given")
        if isinstance(x.shape[1], int) and x.shape[1] % dims.prod(block):
            raise self.error(f"{x.shape[1]} rows do not divide into blocks of {dims.prod(block)}")
        channels = dims.exact_div(x.shape[1], dims.prod(block))
        return TensorType((x.shape[0], channels, *attrs["image_shape"]), x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray) -> np.ndarray:
        counts, block, strides, dilation, begins, ends = self.geometry(attrs)
        image = attrs["image_shape"]
        padded = [s + b + e for s, b, e in zip(image, begins, ends, strict=True)]
        parts = np_accum(x).reshape(x.shape[0], -1, *block, *counts)
        total = np.zeros((*parts.shape[:2], *padded), parts.dtype)
        for pos in itertools.product(*map(range, block)):
            cut = tuple(
                slice(p * d, p * d + (c - 1) * s + 1, s)
                for p, d, c, s in zip(pos, dilation, counts, strides, strict=True)
            )
            total[(slice(None), slice(None), *cut)] += parts[(slice(None), slice(None), *pos)]
        inner = tuple(slice(b, b + s) for b, s in zip(begins, image, strict=True))
        return np.ascontiguousarray(total[(slice(None), slice(None), *inner)]).astype(x.dtype)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        """Each pixel adds what the windows over it hold, one after the other; where these are many, or not at even
        distances, as a reduction.
        """
        x = inputs[0]
        counts, block, strides, dilation, begins, _ = self.geometry(attrs)
        wide = accumulation(x.dtype)
        taps = [-(-k // s) for k, s in zip(block, strides, strict=True)]
        few = prod(taps) <= _WRITTEN_OUT and all(s == 1 or d == 1 for s, d in zip(strides, dilation, strict=True))

        def value(idx: Sequence[Any], steps: Sequence[Any]) -> Any:
            """What the pixel `idx` takes from the windows `steps` before the last one over it, or at taps `steps`."""
            row, window, ok = idx[1], E.const(0), []
            for n, step in enumerate(steps):
                at, stride = idx[2 + n] + begins[n], strides[n]
                tap = at % stride + stride * step if few else step
                place = at // stride - step * dilation[n] if few else (at - step * dilation[n]) // stride
                ok += [place >= 0, place < counts[n]]
                if few and block[n] % stride:
                    ok.append(tap < block[n])
                elif not few:
                    ok.append(E.binary(E.EQ, (at - step * dilation[n]) % stride, 0))
                row, window = row * block[n] + tap, window * counts[n] + place
            return E.cast(wide, E.if_then_else(E.land(*ok), x[idx[0], row, window], E.const(0, x.dtype)))

        if few:
            steps = list(itertools.product(*map(range, taps)))
            return te.compute(
                out_type.shape,
                lambda *i: E.cast(x.dtype, functools.reduce(operator.add, [value(i, s) for s in steps])),
                name="col2im",
            )
        axes = [te.reduce_axis(k, f"k{n}") for n, k in enumerate(block)]
        total = te.compute(out_type.shape, lambda *i: te.sum(value(i, [k.var for k in axes]), axis=axes), name="col2im")
        return convert_stage(total, x.dtype, "col2im_cast")
