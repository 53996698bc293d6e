"""Reading at run-time indices: take, gather, gather_nd, one_hot. No index reads outside: out of range is clamped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.op.assumed import at_most, some_elements
from warpbeam.op.base import REQUIRED, Op, norm_axis, tensors
from warpbeam.op.nn_common import unify
from warpbeam.relay.types import TensorType, Type
from warpbeam.topi import dims
from warpbeam.topi.indexing import gather_nd_stage, gather_stage, one_hot_stage, reverse_sequence, take_stage

MODES = ("clip", "wrap", "fast")


def check_indices(op: Op, t: TensorType, mode: str = "clip") -> None:
    """Refuses indices that are not integers and unknown modes."""
    if not dt.is_int(t.dtype):
        raise op.error(f"indices must be integers, got {t.dtype}")
    if mode not in MODES:
        raise op.error(f"unknown mode {mode!r}", hint=f"one of {MODES}")


def nonempty(op: Op, size: Any, indices: TensorType) -> None:
    """Refuses indices into a dimension without elements; of open ones it is noted that they have some."""
    some_elements(op, size, "the data has no element along the indexed axis", dims.prod(indices.shape))


def np_safe(index: np.ndarray, size: int, mode: str = "clip") -> np.ndarray:
    """NumPy side of `safe`."""
    index = index.astype(np.int64)
    if mode == "wrap":
        return index % max(size, 1)
    return np.clip(np.where(index < 0, index + size, index), 0, max(size - 1, 0))


class Take(Op):
    """data at run-time `indices` along `axis` (None: of the flattened data); the indices' shape takes the axis' place.

    mode "clip": a negative index counts from the end once, then out of range is clamped; "wrap": modulo the size.
    batch_dims: that many leading dimensions of data and indices go together.
    """

    name = "take"
    arity = 2
    defaults = {"axis": None, "mode": "clip", "batch_dims": 0}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x, i = tensors(self, types)
        check_indices(self, i, attrs["mode"])
        if attrs["axis"] is None:
            nonempty(self, dims.prod(x.shape), i)
            return TensorType(i.shape, x.dtype)  # type: ignore[no-any-return]
        nonempty(self, x.shape[norm_axis(self, attrs["axis"], x.ndim)], i)
        axis, batch = norm_axis(self, attrs["axis"], x.ndim), attrs["batch_dims"]
        if not 0 <= batch <= min(axis, i.ndim):
            raise self.error(f"batch_dims {batch} with axis {axis} and indices of {i.ndim} dimensions")
        for a, b in zip(x.shape[:batch], i.shape[:batch], strict=True):
            unify(self, a, b, "batch dimensions of data and indices")
        return TensorType((*x.shape[:axis], *i.shape[batch:], *x.shape[axis + 1 :]), x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
        if attrs["axis"] is None:
            return x.reshape(-1)[np_safe(indices, x.size, attrs["mode"])]
        axis, batch = attrs["axis"] % x.ndim, attrs["batch_dims"]
        at = np_safe(indices, x.shape[axis], attrs["mode"])
        if not batch:
            return np.take(x, at, axis=axis)
        lead = x.shape[:batch]
        rows = [np.take(x[b], at[b], axis=axis - batch) for b in np.ndindex(*lead)]
        return np.stack(rows).reshape(*lead, *rows[0].shape) if rows else np.take(x, at[:0], axis=axis)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        x, indices = inputs
        axis = None if attrs["axis"] is None else attrs["axis"] % x.ndim
        return take_stage(x, indices, axis, attrs["mode"], attrs["batch_dims"])


class Gather(Op):
    """out[…, i, …] = data[…, indices[…, i, …], …]: indices of the data's rank pick along `axis` (GatherElements)."""

    name = "gather"
    arity = 2
    defaults = {"axis": REQUIRED, "mode": "clip"}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x, i = tensors(self, types)
        check_indices(self, i, attrs["mode"])
        norm_axis(self, attrs["axis"], x.ndim)
        if x.ndim != i.ndim:
            raise self.error(f"indices must have the data's {x.ndim} dimensions, got {i.ndim}")
        nonempty(self, x.shape[attrs["axis"]], i)
        for n, (a, b) in enumerate(zip(i.shape, x.shape, strict=True)):
            if n != attrs["axis"] % x.ndim:
                at_most(self, a, b, f"indices have {dims.text(a)} along axis {n}, the data only {dims.text(b)}")
        return TensorType(i.shape, x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
        axis = attrs["axis"] % x.ndim
        cut = tuple(slice(None) if a == axis else slice(0, s) for a, s in enumerate(indices.shape))
        return np.take_along_axis(x[cut], np_safe(indices, x.shape[axis], attrs["mode"]), axis)  # type: ignore[no-any-return]

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        return gather_stage(*inputs, attrs["axis"] % inputs[0].ndim, attrs["mode"])


class GatherNd(Op):
    """Slices of data at index tuples, which stand in the FIRST axis of indices, or with index_last in the last one.

    batch_dims: that many leading dimensions of data and (after the tuple axis) of indices go together.
    """

    name = "gather_nd"
    arity = 2
    defaults = {"batch_dims": 0, "index_last": False, "mode": "clip"}

    def parts(self, attrs: Attrs, x: TensorType, i: TensorType) -> tuple[int, tuple[Any, ...]]:
        """(length of the tuples, shape of indices without the tuple axis)."""
        if i.ndim < 1:
            raise self.error("indices must have at least one dimension")
        count, rest = (i.shape[-1], i.shape[:-1]) if attrs["index_last"] else (i.shape[0], i.shape[1:])
        if not isinstance(count, int):
            raise self.error("the length of the index tuples must be a constant")
        return count, rest

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x, i = tensors(self, types)
        check_indices(self, i, attrs["mode"])
        count, rest = self.parts(attrs, x, i)
        for size in x.shape[attrs["batch_dims"] : attrs["batch_dims"] + count]:
            nonempty(self, size, i)
        batch = attrs["batch_dims"]
        if not 0 <= batch <= len(rest) or batch + count > x.ndim:
            raise self.error(f"tuples of {count} after {batch} batch dimensions do not fit {x.ndim} dimensions")
        lead = [unify(self, a, b, "batch dimensions") for a, b in zip(x.shape[:batch], rest[:batch], strict=True)]
        return TensorType((*lead, *rest[batch:], *x.shape[batch + count :]), x.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
        batch = attrs["batch_dims"]
        at = indices if attrs["index_last"] else np.moveaxis(indices, 0, -1)
        lead, count = at.shape[:batch], at.shape[-1]
        out = np.empty((*at.shape[:-1], *x.shape[batch + count :]), x.dtype)
        for place in np.ndindex(*at.shape[:-1]):
            key = [int(np_safe(v, x.shape[batch + n], attrs["mode"])) for n, v in enumerate(at[place])]
            out[place] = x[(*place[: len(lead)], *key)]
        return out

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        last = bool(attrs["index_last"])
        return gather_nd_stage(*inputs, attrs["batch_dims"], last, attrs["mode"], out_type.shape)


class OneHot(Op):
    """on_value where the position along the new `axis` equals the index (negative ones wrap once), else off_value.

    Operands: indices, on_value, off_value (scalars or one element). An index outside gives a row of off_value.
    """

    name = "one_hot"
    arity = 3
    defaults = {"depth": REQUIRED, "axis": -1, "dtype": ""}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        i, on, off = tensors(self, types)
        if on.dtype != off.dtype:
            raise self.error(f"on_value is {on.dtype} and off_value is {off.dtype}")
        axis = norm_axis(self, attrs["axis"], i.ndim + 1)
        shape = list(i.shape)
        shape.insert(axis, attrs["depth"])
        return TensorType(shape, attrs["dtype"] or on.dtype)  # type: ignore[no-any-return]

    def numpy(self, attrs: Attrs, indices: np.ndarray, on: np.ndarray, off: np.ndarray) -> np.ndarray:
        depth, axis = int(attrs["depth"]), attrs["axis"] % (indices.ndim + 1)
        dtype = dt.to_numpy(attrs["dtype"]) if attrs["dtype"] else on.dtype
        at = np.where(indices < 0, indices + indices.dtype.type(depth), indices)
        grid = np.arange(depth).reshape(-1, *[1] * (indices.ndim - axis))
        return np.where(np.expand_dims(at, axis) == grid, on.reshape(()), off.reshape(())).astype(dtype)

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        indices, on, off = inputs
        values = on[(0,) * on.ndim], off[(0,) * off.ndim]
        return one_hot_stage(indices, *values, attrs["depth"], attrs["axis"] % out_type.ndim, out_type.dtype)


class ReverseSequence(Op):
    """data with, per batch entry b, the first seq_lengths[b] positions along seq_axis in reverse order."""

    name = "reverse_sequence"
    arity = 2
    defaults = {"seq_axis": 1, "batch_axis": 0}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x, lengths = tensors(self, types)
        check_indices(self, lengths)
        seq, batch = norm_axis(self, attrs["seq_axis"], x.ndim), norm_axis(self, attrs["batch_axis"], x.ndim)
        if seq == batch or lengths.ndim != 1:
            raise self.error("seq_axis and batch_axis must differ and seq_lengths must have one dimension")
        unify(self, lengths.shape[0], x.shape[batch], "seq_lengths and the batch")
        return x

    def numpy(self, attrs: Attrs, x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        moved = np.moveaxis(x, (attrs["batch_axis"], attrs["seq_axis"]), (0, 1))
        out = moved.copy()
        for b, n in enumerate(lengths):
            out[b, :n] = moved[b, :n][::-1]
        return np.ascontiguousarray(np.moveaxis(out, (0, 1), (attrs["batch_axis"], attrs["seq_axis"])))

    def compute(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> Any:
        return reverse_sequence(*inputs, attrs["seq_axis"], attrs["batch_axis"])
