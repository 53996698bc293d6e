"""Helpers of neural-network computations: layouts, window arithmetic, padding stages, sums in a wide type."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from warpbeam.te import tensor as te
from warpbeam.tir.expr import PrimExpr, as_expr, cast, const, const_int, if_then_else, land, maximum, minimum
from warpbeam.topi import dims, tag
from warpbeam.topi.common import Who, accumulation, convert_stage

SPATIAL = "DHW"
Layout = dict[str, int]


def dim_max(a: Any, b: Any) -> Any:
    """Larger of two dimensions, an int where both are."""
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else dims.dim(maximum(a, b))


def dim_min(a: Any, b: Any) -> Any:
    """Smaller of two dimensions, an int where both are."""
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else dims.dim(minimum(a, b))


def layout_map(who: Who, layout: str, letters: str) -> Layout:
    """Letter -> axis of a layout that must be a permutation of `letters`."""
    if sorted(layout) != sorted(letters):
        raise who.error(f"layout {layout!r} is not a permutation of {letters!r}", hint="such as NCHW, NHWC, OIHW, HWIO")
    return {c: i for i, c in enumerate(layout)}


def arrange(layout: Layout, values: dict[str, Any]) -> tuple[Any, ...]:
    """Values by letter in the order of a layout."""
    return tuple(values[c] for c in sorted(layout, key=layout.__getitem__))


def spatial_letters(ndim: int) -> str:
    """ "W", "HW" or "DHW"."""
    return SPATIAL[3 - ndim :]


def tuple_of(value: Any, count: int) -> tuple[Any, ...]:
    """An int repeated, or a sequence of `count` values as a tuple."""
    return tuple(value) if isinstance(value, list | tuple) else (value,) * count


def split_padding(who: Who, padding: Any, ndim: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """(begins, ends) of a padding given as one number, `ndim` symmetric values, or begins followed by ends."""
    given = tuple_of(padding, ndim)
    if len(given) == ndim:
        return given, given
    if len(given) != 2 * ndim:
        raise who.error(f"padding {given} does not fit {ndim} spatial dimensions")
    return given[:ndim], given[ndim:]


class Geometry(NamedTuple):
    """How a window moves: one value per spatial dimension each."""

    strides: tuple[Any, ...]
    dilation: tuple[Any, ...]
    begins: tuple[Any, ...]
    ends: tuple[Any, ...]


def geometry(who: Who, ndim: int, strides: Any, padding: Any, dilation: Any) -> Geometry:
    """Strides, dilation and padding as given (numbers or tuples), for `ndim` spatial dimensions."""
    steps, spread = tuple_of(strides, ndim), tuple_of(dilation, ndim)
    if len(steps) != ndim or len(spread) != ndim or min(*steps, *spread, 1) < 1:
        raise who.error(f"strides {steps} and dilation {spread} must be {ndim} positive numbers each")
    return Geometry(steps, spread, *split_padding(who, padding, ndim))


def window_out(
    who: Who, size: Any, kernel: Any, stride: int, dilation: int, before: Any, after: Any, ceil: bool
) -> Any:
    """Positions of a window that slides over a padded dimension.

    Where it is not known whether it fits, that it does is noted in `dims.ASSUMED`.
    """
    room = size + before + after - ((kernel - 1) * dilation + 1)
    if isinstance(room, int) and room < 0:
        if ceil and -room < stride:
            return 1
        raise who.error(
            f"window of {kernel} (dilation {dilation}) does not fit a dimension of {size} + {before} + {after}"
        )
    _note_that_it_fits(who, room + (stride - 1 if ceil else 0), kernel, size)
    out = (room + (stride - 1 if ceil else 0)) // stride + 1
    if ceil:  # the last window must start inside the data or the leading padding
        out = dim_min(out, (size + before - 1) // stride + 1)
    return dims.dim(out)


def _note_that_it_fits(who: Who, room: Any, kernel: Any, size: Any) -> None:
    """That there is room for a window, as an equality."""
    record = dims.ASSUMED.get()
    if record is not None and dims.sign(room) != 1:
        text = f"a window of {dims.text(kernel)} does not fit a dimension of {dims.text(size)} and its padding"
        record.append((dim_min(dims.dim(room), 0), 0, f"operator {who.name}: {text}"))


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

    return te.compute(shape, element, name=name, tag=tag.INJECTIVE)


def sum_stage(
    shape: Sequence[Any], axes: Sequence[Any], body: Callable[..., Any], dtype: str, name: str, label: str = ""
) -> Any:
    """A sum over `axes` accumulated in the wide type of `dtype` and delivered in `dtype`.

    `body(convert, *idx)` gives the summand; `convert` raises an operand to the accumulation type.
    """
    inner = accumulation(dtype)

    def convert(value: Any) -> PrimExpr:
        return cast(inner, value)

    total = te.compute(shape, lambda *i: te.sum(body(convert, *i), axis=list(axes)), name=name, tag=label)
    return convert_stage(total, dtype, f"{name}_cast")


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
