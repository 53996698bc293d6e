"""Reading at run-time indices, and tensors made from positions. No index reads outside: out of range is clamped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.topi import dims, tag
from warpbeam.topi.common import Caller, Who, norm_axis
from warpbeam.topi.index import linear_index
from warpbeam.topi.scalar import clamped, safe, wrapped


def _stage(shape: Sequence[Any], element: Any, name: str) -> Any:
    return te.compute(shape, element, name=name, tag=tag.INJECTIVE)


# ------------------------------------------------------------------------------------------------------------- reading


def take_stage(x: te.Tensor, indices: te.Tensor, axis: int | None, mode: str, batch: int) -> Any:
    """x at `indices` along a non-negative axis (None: of the flattened data), `batch` leading dimensions together."""
    if axis is None:
        total = dims.prod(x.shape)

        def flat(*idx: Any) -> Any:
            place, at = safe(indices[idx], total, mode), []
            for size in reversed(x.shape):
                at.append(place % size)
                place = place // size
            return x[tuple(reversed(at))]

        return _stage(indices.shape, flat, "take")
    own = indices.ndim - batch

    def element(*idx: Any) -> Any:
        place = indices[(*idx[:batch], *idx[axis : axis + own])]
        return x[(*idx[:axis], safe(place, x.shape[axis], mode), *idx[axis + own :])]

    return _stage((*x.shape[:axis], *indices.shape[batch:], *x.shape[axis + 1 :]), element, "take")


def _check_mode(who: Who, mode: str) -> None:
    if mode not in ("clip", "wrap", "fast"):
        raise who.error(f"unknown mode {mode!r}", "clip, wrap or fast")


def take(a: te.Tensor, indices: te.Tensor, axis: Any = None, batch_dims: int = 0, mode: str = "clip") -> Any:
    """a at run-time `indices` along `axis` (None: of the flattened data).

    mode "clip": a negative index counts from the end once, then out of range is clamped; "wrap": modulo the size;
    "fast": as clip.
    """
    who = Caller("take")
    _check_mode(who, mode)
    return take_stage(a, indices, None if axis is None else norm_axis(who, axis, a.ndim), mode, batch_dims)


def gather_stage(x: te.Tensor, indices: te.Tensor, axis: int, mode: str) -> Any:
    """out[…, i, …] = x[…, indices[…, i, …], …] along a non-negative axis."""
    places = _stage(indices.shape, lambda *idx: safe(indices[idx], x.shape[axis], mode), "place")

    def element(*idx: Any) -> Any:
        at = [
            i if (isinstance(a, int) and isinstance(b, int)) or dims.same(a, b) is True else clamped(i, b)
            for i, a, b in zip(idx, indices.shape, x.shape, strict=True)
        ]
        at[axis] = places[idx]
        return x[tuple(at)]

    return _stage(indices.shape, element, "gather")


def gather(data: te.Tensor, axis: int, indices: te.Tensor) -> Any:
    """out[…, i, …] = data[…, indices[…, i, …], …]: indices of the data's rank pick along `axis`."""
    who = Caller("gather")
    if data.ndim != indices.ndim:
        raise who.error(f"indices must have the data's {data.ndim} dimensions, got {indices.ndim}")
    return gather_stage(data, indices, norm_axis(who, axis, data.ndim), "clip")


def gather_nd_stage(x: te.Tensor, indices: te.Tensor, batch: int, last: bool, mode: str, shape: Sequence[Any]) -> Any:
    """Slices of x at index tuples, which stand in the first axis of indices, or in the last one."""
    count = indices.shape[-1] if last else indices.shape[0]
    outer = indices.ndim - 1

    def element(*idx: Any) -> Any:
        key = [
            safe(indices[(*idx[:outer], n) if last else (n, *idx[:outer])], x.shape[batch + n], mode)
            for n in range(count)
        ]
        return x[(*idx[:batch], *key, *idx[outer:])]

    return _stage(shape, element, "gather_nd")


def gather_nd(a: te.Tensor, indices: te.Tensor, batch_dims: int = 0) -> Any:
    """Slices of `a` at index tuples, which stand in the FIRST axis of indices."""
    who = Caller("gather_nd")
    count = indices.shape[0]
    if not isinstance(count, int) or batch_dims + count > a.ndim:
        raise who.error(f"tuples of {dims.text(count)} after {batch_dims} batch dimensions do not fit {a.ndim}")
    shape = (*indices.shape[1:], *a.shape[batch_dims + count :])
    return gather_nd_stage(a, indices, batch_dims, False, "clip", shape)


def one_hot_stage(indices: te.Tensor, on: Any, off: Any, depth: Any, axis: int, dtype: str) -> Any:
    """`on` where the position along the new non-negative `axis` equals the index (negative ones wrap), else `off`."""
    shape = list(indices.shape)
    shape.insert(axis, depth)

    def element(*idx: Any) -> Any:
        value = indices[(*idx[:axis], *idx[axis + 1 :])]
        if dt.is_float(value.dtype):
            value = E.select(value < 0, value + E.cast(value.dtype, E.as_expr(depth)), value)
            hit = E.binary(E.EQ, value, E.cast(value.dtype, idx[axis]))
        else:
            hit = E.binary(E.EQ, wrapped(value, depth), idx[axis])
        return E.cast(dtype, E.select(hit, on, off))

    return _stage(shape, element, "one_hot")


def one_hot(indices: te.Tensor, on_value: Any, off_value: Any, depth: Any, axis: int, dtype: str) -> Any:
    """on_value where the position along the new `axis` equals the index, else off_value (numbers or expressions)."""
    at = norm_axis(Caller("one_hot"), axis, indices.ndim + 1)
    on, off = (v if isinstance(v, E.PrimExpr) else E.const(v, dtype) for v in (on_value, off_value))
    return one_hot_stage(indices, on, off, depth, at, dtype)


def reverse_sequence(a: te.Tensor, seq_lengths: te.Tensor, seq_axis: int = 1, batch_axis: int = 0) -> Any:
    """`a` with, per batch entry b, the first seq_lengths[b] positions along seq_axis in reverse order."""
    who = Caller("reverse_sequence")
    seq, batch = norm_axis(who, seq_axis, a.ndim), norm_axis(who, batch_axis, a.ndim)

    def element(*idx: Any) -> Any:
        n = E.minimum(E.cast("int64", seq_lengths[idx[batch]]), a.shape[seq])
        at = list(idx)
        at[seq] = E.select(idx[seq] < n, n - 1 - idx[seq], idx[seq])
        return a[tuple(at)]

    return _stage(a.shape, element, "reverse_sequence")


def sequence_mask(data: te.Tensor, valid_length: te.Tensor, mask_value: Any = 0, axis: int = 0) -> Any:
    """`mask_value` where the position along `axis` (0 or 1, the other being the batch) is not below valid_length."""
    who = Caller("sequence_mask")
    if axis not in (0, 1) or data.ndim < 2:
        raise who.error(f"axis {axis} of {data.ndim} dimensions", "axis is 0 or 1, of at least 2 dimensions")

    def element(*idx: Any) -> Any:
        valid = idx[axis] < E.cast("int64", valid_length[idx[1 - axis]])
        return E.select(valid, data[idx], E.const(mask_value, data.dtype))

    return _stage(data.shape, element, "sequence_mask")


# --------------------------------------------------------------------------------------------------------- positions


def arange_count(who: Who, start: Any, stop: Any, step: Any) -> Any:
    """Number of elements from start before stop."""
    if not isinstance(step, E.PrimExpr) and step == 0:
        raise who.error("a step of 0")
    if not any(isinstance(v, E.PrimExpr) for v in (start, stop, step)):
        return max(0, math.ceil((stop - start) / step))
    if isinstance(step, E.PrimExpr) or step > 0:
        return dims.dim(E.maximum(E.ceildiv(E.as_expr(stop) - start, step), 0))
    return dims.dim(E.maximum(E.ceildiv(E.as_expr(start) - stop, -step), 0))


def arange_stage(start: Any, step: Any, count: Any, dtype: str) -> Any:
    """start, start + step, …: `count` elements."""
    inner = dtype if not dt.is_float(dtype) else "float64"
    low, by = (E.cast(inner, E.as_expr(v, inner)) for v in (start, step))
    return _stage([count], lambda i: E.cast(dtype, E.add(low, E.mul(E.cast(inner, i), by))), "arange")


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: str = "float32") -> Any:
    """start, start + step, … before stop; one number is the stop. Numbers or, for integers, expressions."""
    if stop is None:
        start, stop = 0, start
    return arange_stage(start, step, arange_count(Caller("arange"), start, stop, step), dtype)


def meshgrid(a_tuple: Sequence[te.Tensor], indexing: str = "ij") -> list[Any]:
    """Each 1-D tensor repeated over the grid of all of them; indexing "xy" swaps the first two dimensions."""
    who, given = Caller("meshgrid"), list(a_tuple)
    if indexing not in ("ij", "xy"):
        raise who.error(f"indexing {indexing!r}", "ij or xy")
    order = list(range(len(given)))
    if indexing == "xy" and len(given) > 1:
        order[:2] = 1, 0
    shape = [given[d].shape[0] if given[d].ndim else 1 for d in order]

    def grid(k: int) -> Any:
        t, at = given[k], order.index(k)
        return _stage(shape, lambda *i: t[i[at]] if t.ndim else t[()], f"meshgrid{k}")

    return [grid(k) for k in range(len(given))]


def unravel_index(indices: te.Tensor, shape: Sequence[Any] | te.Tensor) -> Any:
    """(dimensions, …): the index of each row-major position in `shape`, which is numbers or a 1-D tensor."""
    who = Caller("unravel_index")
    if isinstance(shape, te.Tensor):
        count = shape.shape[0]
        if not isinstance(count, int):
            raise who.error("the shape must have a known length")
        sizes: list[Any] = [E.cast(indices.dtype, shape[k]) for k in range(count)]
    else:
        sizes = [E.as_expr(s, indices.dtype) for s in shape]

    def element(*idx: Any) -> Any:
        left, parts = indices[idx[1:]], []
        for size in reversed(sizes):
            parts.append(E.floormod(left, size))
            left = E.floordiv(left, size)
        parts.reverse()
        out = parts[-1]
        for k in reversed(range(len(parts) - 1)):
            out = E.select(E.binary(E.EQ, idx[0], k), parts[k], out)
        return out

    return _stage([len(sizes), *indices.shape], element, "unravel_index")


def shape(array: te.Tensor, dtype: str = "int32") -> Any:
    """The tensor's shape as a 1-D tensor."""
    return shape_values([E.as_expr(d, "int64") for d in array.shape], [array.ndim], dtype, "shape")


def shape_values(values: Sequence[Any], form: Sequence[Any], dtype: str, name: str) -> Any:
    """A tensor of the shape `form` whose elements, in row-major order, are the scalar `values`."""
    known = [E.cast(dtype, E.as_expr(v, "int64")) for v in values]

    def element(*index: Any) -> Any:
        at = linear_index(form, index)
        out = known[-1]
        for k in reversed(range(len(known) - 1)):
            out = E.select(E.binary(E.EQ, at, k), known[k], out)
        return out

    return _stage(form, element, name)


def ndarray_size(array: te.Tensor, dtype: str = "int32") -> Any:
    """The number of elements as a scalar tensor."""
    total = E.cast(dtype, E.as_expr(dims.prod(array.shape), "int64"))
    return _stage((), lambda: total, "ndarray_size")
