"""Helpers shared by neural-network operators: layouts, window arithmetic, padding stages, accumulation types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.op.assumed import unify, unify_shapes
from warpbeam.op.base import accumulation
from warpbeam.relay.op import Op
from warpbeam.relay.types import TensorType
from warpbeam.te import tensor as te
from warpbeam.tir.expr import PrimExpr, as_expr, cast, const, const_int, if_then_else, land, maximum, minimum
from warpbeam.topi import dims

__all__ = [
    "SPATIAL",
    "dim_max",
    "dim_min",
    "float_work",
    "layout_map",
    "np_accum",
    "pad_stage",
    "reduce_vars",
    "require_float",
    "require_rank",
    "spatial_letters",
    "split_padding",
    "static",
    "sum_stage",
    "tuple_of",
    "unify",
    "unify_shapes",
    "window_out",
]

SPATIAL = "DHW"


def dim_max(a: Any, b: Any) -> Any:
    """Larger of two dimensions, an int where both are."""
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else dims.dim(maximum(a, b))


def dim_min(a: Any, b: Any) -> Any:
    """Smaller of two dimensions, an int where both are."""
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else dims.dim(minimum(a, b))


def float_work(dtype: str) -> str:
    """The floating type a normalisation of `dtype` works in."""
    return accumulation(dtype) if dt.is_float(dtype) else "float32"


def np_accum(array: np.ndarray) -> np.ndarray:
    """`array` in its accumulation type (NumPy side)."""
    return array.astype(dt.to_numpy(accumulation(dt.from_numpy(array.dtype))), copy=False)


def layout_map(op: Op, layout: str, letters: str) -> dict[str, int]:
    """Letter -> axis of a layout that must be a permutation of `letters`."""
    if sorted(layout) != sorted(letters):
        raise op.error(f"layout {layout!r} is not a permutation of {letters!r}", hint="such as NCHW, NHWC, OIHW, HWIO")
    return {c: i for i, c in enumerate(layout)}


def spatial_letters(ndim: int) -> str:
    """ "W", "HW" or "DHW"."""
    return SPATIAL[3 - ndim :]


def tuple_of(value: Any, count: int) -> tuple[Any, ...]:
    """An int repeated, or a sequence of `count` values as a tuple."""
    return tuple(value) if isinstance(value, list | tuple) else (value,) * count


def split_padding(op: Op, padding: Any, ndim: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """(begins, ends) of a padding given as one number, `ndim` symmetric values, or begins followed by ends."""
    given = tuple_of(padding, ndim)
    if len(given) == ndim:
        return given, given
    if len(given) != 2 * ndim:
        raise op.error(f"padding {given} does not fit {ndim} spatial dimensions")
    return given[:ndim], given[ndim:]


def window_out(op: Op, size: Any, kernel: Any, stride: int, dilation: int, before: Any, after: Any, ceil: bool) -> Any:
    """Positions of a window that slides over a padded dimension."""
    room = size + before + after - ((kernel - 1) * dilation + 1)
    if isinstance(room, int) and room < 0:
        if ceil and -room < stride:
            return 1
        raise op.error(
            f"window of {kernel} (dilation {dilation}) does not fit a dimension of {size} + {before} + {after}"
        )
    out = (room + (stride - 1 if ceil else 0)) // stride + 1
    if ceil:  # the last window must start inside the data or the leading padding
        out = dim_min(out, (size + before - 1) // stride + 1)
    return dims.dim(out)


def pad_stage(
    x: Any, before: Sequence[Any], after: Sequence[Any], value: Any, name: str = "padded", fn: Any = None
) -> Any:
    """`x` with a border of `value`, as a te stage; `x` itself where all borders are 0. `fn` maps each element read."""
    bounds = [(const_int(b), const_int(a)) for b, a in zip(before, after, strict=True)]
    if all(b == 0 and a == 0 for b, a in bounds) and fn is None:
        return x
    shape = [dims.dim(s + b + a) for s, b, a in zip(x.shape, before, after, strict=True)]

    def element(*idx: Any) -> Any:
        source, inside = [], []
        for i, b, size, (cb, ca) in zip(idx, before, x.shape, bounds, strict=True):
            j = i - b
            source.append(j)
            if cb is None or cb > 0:
                inside.append(j >= 0)
            if ca is None or ca > 0:
                inside.append(j < size)
        got = x[tuple(source)]
        got = got if fn is None else fn(got)
        return if_then_else(land(*inside), got, as_expr(value, got.dtype))

    return te.compute(shape, element, name=name)


def sum_stage(shape: Sequence[Any], axes: Sequence[Any], body: Callable[..., Any], dtype: str, name: str) -> Any:
    """A sum over `axes` accumulated in the wide type of `dtype` and delivered in `dtype`.

    `body(convert, *idx)` gives the summand; `convert` raises an operand to the accumulation type.
    """
    wide = accumulation(dtype)

    def convert(value: Any) -> PrimExpr:
        return cast(wide, value)

    total = te.compute(shape, lambda *i: te.sum(body(convert, *i), axis=list(axes)), name=name)
    return total if wide == dtype else te.compute(shape, lambda *i: cast(dtype, total[i]), name=f"{name}_cast")


def reduce_vars(extents: Sequence[Any], names: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """(axes, index of each): axes of extent 1 are dropped (index 0), but one is kept if all would go."""
    axes, index = [], []
    drop = [const_int(e) == 1 for e in extents]
    if all(drop) and drop:
        drop[-1] = False
    for extent, name, gone in zip(extents, names, drop, strict=True):
        axis = None if gone else te.reduce_axis(extent, name)
        index.append(const(0) if axis is None else axis.var)
        if axis is not None:
            axes.append(axis)
    return axes, index


def require_float(op: Op, t: TensorType, which: str = "data") -> None:
    """Refuses a non-floating operand."""
    if not dt.is_float(t.dtype):
        raise op.error(f"{which} must be floating point, got {t.dtype}")


def require_rank(op: Op, t: TensorType, ndim: int, which: str = "data") -> None:
    """Refuses an operand of another rank."""
    if t.ndim != ndim:
        raise op.error(f"{which} must have {ndim} dimensions, got {t.ndim}")


def static(op: Op, value: Any, what: str) -> int:
    """A constant dimension, or an error that says which is not."""
    got = const_int(value)
    if got is None:
        raise op.error(f"{what} must be a constant, got {value}")
    return got
