"""Reductions over axes. axis: an int, several, or None for all; keepdims keeps reduced axes as dimensions of 1.

Half floats accumulate in float32 and are rounded once, in a stage of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.topi import dims, tag
from warpbeam.topi.common import (
    Caller,
    TopiError,
    accumulation,
    at_broadcast,
    merge_index,
    norm_axes,
    reduce_stage,
    reduced_shape,
)

Axes = Sequence[int]


def reduction(
    x: te.Tensor,
    axes: Axes,
    keepdims: bool,
    reducer: Callable[..., Any],
    name: str,
    prepare: Callable[..., Any] | None = None,
    finish: Callable[..., Any] | None = None,
) -> Any:
    """reducer of prepare(element) over sorted `axes`, then finish(total, number of elements reduced)."""
    inner, shape = accumulation(x.dtype), reduced_shape(x.shape, axes, keepdims)

    def value(e: E.PrimExpr) -> E.PrimExpr:
        e = E.cast(inner, e)
        return e if prepare is None else prepare(e)

    total = reduce_stage(x, axes, keepdims, shape, reducer, value, name)
    if finish is None and inner == x.dtype:
        return total
    count = dims.prod(x.shape[a] for a in axes)

    def last(*index: Any) -> E.PrimExpr:
        e = total[index]
        return E.cast(x.dtype, e if finish is None else finish(e, E.cast(inner, E.as_expr(count))))

    return te.compute(shape, last, name=name + "_out", tag=tag.ELEMWISE)


def mean_of(total: E.PrimExpr, count: E.PrimExpr) -> E.PrimExpr:
    """A sum divided by its number of elements."""
    return E.div(total, count)


def _reduce(name: str, reducer: Callable[..., Any], doc: str, bools: bool = False, finish: Any = None) -> Any:
    def operation(data: te.Tensor, axis: Any = None, keepdims: bool = False) -> Any:
        if dt.is_bool(data.dtype) != bools:
            raise TopiError(
                f"topi.{name}: takes {'bool' if bools else 'number'} tensors, got {data.dtype}", hint="cast it first"
            )
        return reduction(data, norm_axes(Caller(name), axis, data.ndim), keepdims, reducer, name, finish=finish)

    operation.__name__ = operation.__qualname__ = name
    operation.__doc__ = doc
    return operation


sum = _reduce("sum", te.sum, "Sum over axes.")
prod = _reduce("prod", te.prod, "Product over axes.")
max = _reduce("max", te.max, "Largest element over axes.")
min = _reduce("min", te.min, "Smallest element over axes.")
all = _reduce("all", te.all_of, "Whether all elements over axes are true.", bools=True)
any = _reduce("any", te.any_of, "Whether any element over axes is true.", bools=True)
mean = _reduce("mean", te.sum, "Mean over axes.", finish=mean_of)


# ---------------------------------------------------------------------------------------------------- place of extremes


def _better(largest: bool, last: bool, a: Sequence[Any], b: Sequence[Any]) -> E.PrimExpr:
    """Whether the (index, value) pair b replaces a: NaN is extreme, of equal values the first or the last counts."""
    wins = b[1] > a[1] if largest else b[1] < a[1]
    equal = E.binary(E.EQ, a[1], b[1])
    if dt.is_float(a[1].dtype):
        nan_a, nan_b = E.call("isnan", a[1], dtype="bool"), E.call("isnan", b[1], dtype="bool")
        wins = E.lor(wins, E.land(nan_b, E.lnot(nan_a)))
        equal = E.lor(equal, E.land(nan_a, nan_b))
    order = b[0] > a[0] if last else b[0] < a[0]
    return E.lor(wins, E.land(equal, order))


def arg_extreme(
    x: te.Tensor, axes: Axes, keepdims: bool, largest: bool, last: bool = False, dtype: str = "int64"
) -> Any:
    """Index of the extreme element over sorted `axes`, counted over the reduced axes together."""
    name = "argmax" if largest else "argmin"
    shape = reduced_shape(x.shape, axes, keepdims)
    ks = [te.reduce_axis(x.shape[a], f"k{a}") for a in axes]
    if not ks:
        return te.compute(shape, lambda *i: E.const(0, dtype), name=name, tag=tag.INJECTIVE)
    start = -1 if last else dt.int_range(dtype)[1]

    def combine(a: Any, b: Any) -> Any:
        take = _better(largest, last, a, b)
        return E.select(take, b[0], a[0]), E.select(take, b[1], a[1])

    limit = te.min_value if largest else te.max_value
    pick = te.comm_reducer(combine, lambda t, u: (E.const(start, dtype), limit(u)), name=name)

    def element(*index: Any) -> Any:
        full = merge_index(index, axes, [k.var for k in ks], x.ndim, keepdims)
        place: Any = E.const(0)
        for k, a in zip(ks, axes, strict=True):
            place = place * x.shape[a] + k.var
        return pick((E.cast(dtype, place), x[full]), axis=ks)

    return te.compute(shape, element, name=name, tag=tag.COMM_REDUCE_IDX)[0]


def compared(dtype: str) -> str:
    """The dtype in which extremes are looked for where places are counted too: at least 32 bits."""
    return accumulation(dtype) if dt.is_float(dtype) or dt.bits(dtype) >= 32 else "int32"


def is_extreme(value: Any, top: Any) -> E.PrimExpr:
    """Whether a value is the extreme `top` of some: it equals that, or is NaN, which is beyond all numbers."""
    here = E.binary(E.EQ, value, top)
    return E.lor(here, E.call("isnan", value, dtype="bool")) if dt.is_float(value.dtype) else here


def arg_extreme_by_value(x: te.Tensor, axes: Axes, keepdims: bool, largest: bool, last: bool, dtype: str) -> Any:
    """As `arg_extreme`, in two reductions that go in vectors: the extreme, and the first (last) index at which it, or
    NaN, stands. Indices are counted in int32 where they fit; short numbers are compared in 32 bits.
    """
    count = dims.prod(x.shape[a] for a in axes)
    short = isinstance(count, int) and count <= dt.int_range("int32")[1]
    inner = "int32" if short else "int64"
    shape = reduced_shape(x.shape, axes, keepdims)
    wide = compared(x.dtype)
    top = reduce_stage(x, axes, keepdims, shape, te.max if largest else te.min, lambda v: E.cast(wide, v), "extreme")
    ks = [te.reduce_axis(x.shape[a], f"k{a}") for a in axes]
    none = E.const(-1 if last else dt.int_range(inner)[1], inner)

    def element(*index: Any) -> Any:
        full = merge_index(index, axes, [k.var for k in ks], x.ndim, keepdims)
        place: Any = E.const(0, "int64")
        for k, a in zip(ks, axes, strict=True):
            place = place * x.shape[a] + k.var
        here = is_extreme(E.cast(wide, x[full]), top[index])
        return (te.max if last else te.min)(E.select(here, E.cast(inner, place), none), axis=ks)

    found = te.compute(shape, element, name="place")
    return te.compute(shape, lambda *i: E.cast(dtype, found[i]), name="argmax" if largest else "argmin")


def argmax(data: te.Tensor, axis: Any = None, keepdims: bool = False, select_last_index: bool = False) -> Any:
    """Index (int32) of the largest element over axes; NaN is largest; of equal elements the first."""
    axes = norm_axes(Caller("argmax"), axis, data.ndim)
    return arg_extreme(data, axes, keepdims, True, select_last_index, "int32")


def argmin(data: te.Tensor, axis: Any = None, keepdims: bool = False, select_last_index: bool = False) -> Any:
    """Index (int32) of the smallest element over axes; NaN is smallest; of equal elements the first."""
    axes = norm_axes(Caller("argmin"), axis, data.ndim)
    return arg_extreme(data, axes, keepdims, False, select_last_index, "int32")


# ------------------------------------------------------------------------------------------------ several stages each


def logsumexp_over(x: te.Tensor, axes: Axes, keepdims: bool) -> Any:
    """log(sum(exp(x))) over sorted `axes`, shifted by the maximum so that it does not overflow."""
    shape, inner = reduced_shape(x.shape, axes, keepdims), accumulation(x.dtype)
    if not axes:
        return te.compute(shape, lambda *i: x[i], name="logsumexp")
    raw = reduce_stage(x, axes, keepdims, shape, te.max, lambda e: E.cast(inner, e), "row_max")
    infinity = E.const(float("inf"), inner)
    top = te.compute(
        shape,
        lambda *i: E.select(E.call("abs", raw[i]) < infinity, raw[i], E.const(0.0, inner)),
        name="row_shift",
    )
    ks = [te.reduce_axis(x.shape[a], f"k{a}") for a in axes]

    def element(*index: Any) -> Any:
        full = merge_index(index, axes, [k.var for k in ks], x.ndim, keepdims)
        return te.sum(E.call("exp", E.cast(inner, x[full]) - top[index]), axis=ks)

    total = te.compute(shape, element, name="row_sum")
    return te.compute(shape, lambda *i: E.cast(x.dtype, E.call("log", total[i]) + top[i]), name="logsumexp")


def variance_over(x: te.Tensor, axes: Axes, keepdims: bool, unbiased: bool = False) -> Any:
    """Mean of squared distances to the mean over sorted `axes`, in two passes; unbiased divides by n - 1."""
    shape, inner = reduced_shape(x.shape, axes, keepdims), accumulation(x.dtype)
    count = dims.prod(x.shape[a] for a in axes)
    full_shape = reduced_shape(x.shape, axes, True)
    total = reduce_stage(x, axes, True, full_shape, te.sum, lambda e: E.cast(inner, e), "total")
    mean = te.compute(full_shape, lambda *i: E.div(total[i], E.cast(inner, E.as_expr(count))), name="mean")
    ks = [te.reduce_axis(x.shape[a], f"k{a}") for a in axes]

    def element(*index: Any) -> Any:
        full = merge_index(index, axes, [k.var for k in ks], x.ndim, keepdims)
        gap = E.cast(inner, x[full]) - at_broadcast(mean, full, x.shape)
        return te.sum(gap * gap, axis=ks) if ks else gap * gap

    squares = te.compute(shape, element, name="squares")
    divisor = E.cast(inner, E.as_expr(count - 1 if unbiased else count))
    return te.compute(shape, lambda *i: E.cast(x.dtype, E.div(squares[i], divisor)), name="variance")


def logsumexp(data: te.Tensor, axis: Any = None, keepdims: bool = False) -> Any:
    """log(sum(exp(x))) over axes, without overflow."""
    return logsumexp_over(data, norm_axes(Caller("logsumexp"), axis, data.ndim), keepdims)


def variance(data: te.Tensor, axis: Any = None, keepdims: bool = False, unbiased: bool = False) -> Any:
    """Variance over axes."""
    return variance_over(data, norm_axes(Caller("variance"), axis, data.ndim), keepdims, unbiased)
