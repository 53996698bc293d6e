"""Writing at run-time indices: one loop over the updates in order, so that duplicates have a defined result.

A negative index counts from the end once; an index outside is an error (the kernel fails with a message).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.op.assumed import unify, unify_shapes
from warpbeam.op.base import Op, norm_axis, tensors, wide
from warpbeam.op.index_gather import check_indices
from warpbeam.op.index_loops import Loops
from warpbeam.relay.types import TensorType, Type
from warpbeam.tir import expr as E
from warpbeam.tir.stmt import PrimFunc, Stmt
from warpbeam.topi import dims
from warpbeam.topi.scalar import inside, wrapped

REDUCTIONS = ("update", "add", "mul", "min", "max", "mean")
_COMBINE: dict[str, Any] = {"add": E.add, "mul": E.mul, "min": E.minimum, "max": E.maximum}
_NUMPY: dict[str, Any] = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}


def combined(kind: str, old: Any, new: Any) -> Any:
    """old ∘ new for a reduction, half floats in float32."""
    if kind == "update":
        return new
    inner = wide(old.dtype)
    if dt.is_bool(inner):
        return E.lor(old, new) if kind in ("add", "max") else E.land(old, new)
    return E.cast(old.dtype, _COMBINE[kind](E.cast(inner, old), E.cast(inner, new)))


def np_scatter(out: np.ndarray, key: tuple[Any, ...], value: Any, kind: str) -> None:
    """out[key] ∘= value in place (NumPy side)."""
    out[key] = value if kind == "update" else _NUMPY[kind](out[key], value)


def np_wrapped(op: Op, index: Any, size: int) -> int:
    """A checked index (NumPy side)."""
    at = int(index) + (size if index < 0 else 0)
    if not 0 <= at < size:
        raise op.error(f"index {int(index)} is outside a dimension of {size}")
    return at


class Scatter(Op):
    """Base: operands (data, indices, updates); the result is data with updates written, `reduction` combining."""

    arity = 3

    def check(self, types: Sequence[Any], kind: str) -> tuple[TensorType, TensorType, TensorType]:
        x, i, u = tensors(self, types)
        check_indices(self, i)
        if kind not in REDUCTIONS[:5]:
            raise self.error(f"unknown reduction {kind!r}", hint=f"one of {REDUCTIONS[:5]}")
        if x.dtype != u.dtype:
            raise self.error(f"data is {x.dtype} and updates are {u.dtype}")
        return x, i, u

    def copied(self, loops: Loops) -> Stmt:
        """The loop that copies data to the result."""
        x, out = loops.ins[0], loops.outs[0]
        return loops.moved(x.shape, lambda at: loops.store(out, at, x[tuple(at)]), "c", parallel=True)

    def located(self, loops: Loops, key: list[Any], axes: Sequence[int], body: Callable[[list[Any]], Stmt]) -> Stmt:
        """`body(place)` where `key` says, whose run-time coordinates `axes` are checked."""
        out = loops.outs[0]

        def put(named: list[Any]) -> Any:
            at = list(key)
            for a, v in zip(axes, named, strict=True):
                at[a] = v
            ok = E.land(*[inside(v, out.shape[a]) for a, v in zip(axes, named, strict=True)])
            return [loops.check(ok, f"an index of {self.name} is outside the data"), body(at)]

        return loops.lets([wrapped(key[a], out.shape[a]) for a in axes], put)

    def written(self, loops: Loops, at: list[Any], value: Any, kind: str) -> Stmt:
        """Writes one element of the result."""
        out = loops.outs[0]
        return loops.store(out, at, combined(kind, out[tuple(at)], value))


class ScatterElements(Scatter):
    """out[…, indices[p], …] ∘= updates[p] for every position p of the updates, the index standing at `axis`."""

    name = "scatter_elements"
    defaults = {"axis": 0, "reduction": "update"}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x, i, u = self.check(types, attrs["reduction"])
        norm_axis(self, attrs["axis"], x.ndim)
        if not x.ndim == i.ndim == u.ndim:
            raise self.error("data, indices and updates must have the same number of dimensions")
        unify_shapes(self, i.shape, u.shape, "the shapes of indices and updates")
        for n, (a, b) in enumerate(zip(i.shape, x.shape, strict=True)):
            if n != attrs["axis"] % x.ndim and isinstance(a, int) and isinstance(b, int) and a > b:
                raise self.error(f"indices have {a} along axis {n}, the data only {b}")
        return x

    def numpy(self, attrs: Attrs, x: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
        out, axis = x.copy(), attrs["axis"] % x.ndim
        for place in np.ndindex(*indices.shape):
            key = (*place[:axis], np_wrapped(self, indices[place], x.shape[axis]), *place[axis + 1 :])
            np_scatter(out, key, updates[place], attrs["reduction"])
        return out

    def compute_prim(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> PrimFunc:
        loops = Loops("scatter_elements", inputs, [out_type])
        _, indices, updates = loops.ins
        axis = attrs["axis"] % out_type.ndim
        sizes = zip(indices.shape, out_type.shape, strict=True)
        unknown = [n for n, (a, b) in enumerate(sizes) if not ((isinstance(a, int) and isinstance(b, int)) or a is b)]
        checked = sorted({axis, *unknown})

        def update(at: list[Any]) -> Any:
            key = [*at[:axis], indices[tuple(at)], *at[axis + 1 :]]
            value = updates[tuple(at)]
            return self.located(loops, key, checked, lambda to: self.written(loops, to, value, attrs["reduction"]))

        return loops.func(self.copied(loops), loops.nest(indices.shape, update, "u"))


class ScatterNd(Scatter):
    """out[tuple] ∘= updates[slice]: index tuples in the FIRST axis of indices, or with index_last in the last one."""

    name = "scatter_nd"
    defaults = {"mode": "update", "index_last": False}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        x, i, u = self.check(types, attrs["mode"])
        if i.ndim < 1:
            raise self.error("indices must have at least one dimension")
        count = i.shape[-1 if attrs["index_last"] else 0]
        rest = i.shape[:-1] if attrs["index_last"] else i.shape[1:]
        if not isinstance(count, int) or count > x.ndim:
            raise self.error(f"index tuples of {dims.text(count)} do not fit {x.ndim} dimensions")
        want = (*rest, *x.shape[count:])
        unify_shapes(self, u.shape, want, "the shape of updates and the expected one")
        return x

    def numpy(self, attrs: Attrs, x: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> np.ndarray:
        out = x.copy()
        at = indices if attrs["index_last"] else np.moveaxis(indices, 0, -1)
        for place in np.ndindex(*at.shape[:-1]):
            key = tuple(np_wrapped(self, v, x.shape[n]) for n, v in enumerate(at[place]))
            np_scatter(out, key, updates[place], attrs["mode"])
        return out

    def compute_prim(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> PrimFunc:
        loops = Loops("scatter_nd", inputs, [out_type])
        _, indices, updates = loops.ins
        last, outer = attrs["index_last"], inputs[1].ndim - 1
        count = indices.shape[-1 if last else 0]

        def update(at: list[Any]) -> Any:
            """One tuple: its slice of the updates, whose elements lie side by side in both."""

            def put(start: list[Any]) -> Stmt:
                def element(rest: list[Any]) -> Stmt:
                    return self.written(loops, [*start, *rest], updates[(*at, *rest)], attrs["mode"])

                return loops.moved(updates.shape[outer:], element, "s")

            key = [indices[(*at, n) if last else (n, *at)] for n in range(count)]
            return self.located(loops, key, range(count), put)

        return loops.func(self.copied(loops), loops.nest(updates.shape[:outer], update, "u"))


class TensorScatter(Op):
    """Key/value cache update: rows of `update` written into `past` at write_indices[b] along `axis`."""

    name = "tensor_scatter"
    arity = 3
    defaults = {"axis": -2, "circular": False}

    def infer_type(self, types: Sequence[Any], attrs: Attrs) -> Type:
        past, update, index = tensors(self, types)
        check_indices(self, index)
        axis = norm_axis(self, attrs["axis"], past.ndim)
        if axis == 0 or past.ndim != update.ndim or index.ndim != 1 or past.dtype != update.dtype:
            raise self.error("takes past and update of one rank and dtype, one write index per batch, and an axis > 0")
        unify(self, past.shape[0], index.shape[0], "the batch and the write indices")
        for n, (a, b) in enumerate(zip(past.shape, update.shape, strict=True)):
            if n != axis:
                unify(self, a, b, f"axis {n} of past and update")
        return past

    def numpy(self, attrs: Attrs, past: np.ndarray, update: np.ndarray, index: np.ndarray) -> np.ndarray:
        axis, out = attrs["axis"] % past.ndim, past.copy()
        size = past.shape[axis]
        for b, start in enumerate(index):
            for n in range(update.shape[axis]):
                at = int(start) + n
                at = at % size if attrs["circular"] else np_wrapped(self, at, size)
                cut = (slice(None),) * (axis - 1)
                out[(b, *cut, at)] = update[(b, *cut, n)]
        return out

    def compute_prim(self, attrs: Attrs, inputs: Sequence[Any], out_type: Any) -> PrimFunc:
        loops = Loops("tensor_scatter", inputs, [out_type])
        past, update, index = loops.ins
        (out,) = loops.outs
        axis = attrs["axis"] % inputs[0].ndim
        size = past.shape[axis]
        copy = loops.moved(past.shape, lambda at: loops.store(out, at, past[tuple(at)]), "c", parallel=True)

        def put(at: list[Any]) -> Any:
            place = E.cast("int64", index[at[0]]) + at[axis]
            if attrs["circular"]:
                place = E.floormod(place, E.as_expr(size))

            def store(row: Any) -> Any:
                check = loops.check(inside(row, size), "a write index of tensor_scatter is outside the cache")

                def element(rest: list[Any]) -> Stmt:
                    return loops.store(out, [*at[:axis], row, *rest], update[(*at, *rest)])

                return [check, loops.moved(update.shape[axis + 1 :], element, "s")]

            return loops.let(place, store)

        return loops.func(copy, loops.nest(update.shape[: axis + 1], put, "u"))


__all__ = ["REDUCTIONS", "ScatterElements", "ScatterNd", "TensorScatter", "combined"]
