"""Computations that move elements without changing them: new shapes, orders, repetitions, pieces and joins."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.topi import dims, tag
from warpbeam.topi.common import Caller, Who, broadcast_shapes, map_stage, norm_axes, norm_axis
from warpbeam.topi.index import linear_index, regroup, static_slice, symbolic_slice, unravel


def _stage(shape: Sequence[Any], element: Any, name: str) -> Any:
    return te.compute(shape, element, name=name, tag=tag.INJECTIVE)


# -------------------------------------------------------------------------------------------------- shapes and orders


def reshape_target(who: Who, shape: Sequence[Any], newshape: Sequence[Any]) -> tuple[Any, ...]:
    """`newshape` with its one -1 (if any) made what is left."""
    given = list(dims.dims(newshape))
    free = [i for i, d in enumerate(given) if isinstance(d, int) and d == -1]
    if len(free) > 1:
        raise who.error(f"newshape {dims.shape_text(given)} has more than one -1")
    if free:
        given[free[0]] = dims.left_over(shape, [d for i, d in enumerate(given) if i != free[0]])
    return tuple(given)


def check_reshape(who: Who, shape: Sequence[Any], new: Sequence[Any]) -> None:
    """Refuses a new shape that does not (certainly) have as many elements."""
    if any(isinstance(d, int) and d < 0 for d in new):
        raise who.error(f"newshape {dims.shape_text(new)} has a negative dimension")
    have, want = dims.prod(shape), dims.prod(new)
    equal = dims.same(have, want)
    if not equal and not (equal is None and dims.assume_equal(have, want, "reshape: the number of elements")):
        verb = "cannot be shown to have" if equal is None else "does not have"
        raise who.error(
            f"shape {dims.shape_text(shape)} {verb} as many elements as {dims.shape_text(new)}",
            "give the inputs' shapes so that the dimensions become known" if equal is None else "",
        )


def reshape(a: te.Tensor, newshape: Sequence[Any]) -> Any:
    """The same elements in row-major order with shape `newshape`; one entry may be -1 (what is left)."""
    who = Caller("reshape")
    new = reshape_target(who, a.shape, newshape)
    check_reshape(who, a.shape, new)
    return reshape_stage(a, new)


def reshape_stage(x: te.Tensor, new: Sequence[Any]) -> Any:
    """`x` with a shape known to have as many elements."""
    groups = regroup(x.shape, new)

    def element(*index: Any) -> Any:
        own: list[Any] = []
        for source, target in groups:
            at = linear_index([new[k] for k in target], [index[k] for k in target])
            own += unravel(at, [x.shape[k] for k in source])
        return x[tuple(own)]

    return _stage(new, element, "reshape")


def transpose_order(who: Who, axes: Any, ndim: int) -> tuple[int, ...]:
    """A permutation of `ndim` axes; None reverses them."""
    if axes is None:
        return tuple(reversed(range(ndim)))
    order = tuple(norm_axis(who, a, ndim) for a in axes)
    if sorted(order) != list(range(ndim)):
        raise who.error(f"axes {tuple(axes)} are no permutation of {ndim} dimensions")
    return order


def transpose(a: te.Tensor, axes: Any = None) -> Any:
    """Dimensions in the order `axes`; None reverses them."""
    order = transpose_order(Caller("transpose"), axes, a.ndim)
    shape = [a.shape[d] for d in order]
    return _stage(shape, lambda *i: a[tuple(i[order.index(d)] for d in range(a.ndim))], "transpose")


def expand_dims(a: te.Tensor, axis: int, num_newaxis: int = 1) -> Any:
    """`num_newaxis` dimensions of size 1 put in at `axis`."""
    at = norm_axis(Caller("expand_dims"), axis, a.ndim + 1)
    shape = (*a.shape[:at], *([1] * num_newaxis), *a.shape[at:])
    return _stage(shape, lambda *i: a[i[:at] + i[at + num_newaxis :]], "expand_dims")


def expand_like(a: te.Tensor, shape_like: te.Tensor, axis: Any) -> Any:
    """`a` with new dimensions `axis`, repeated to the shape of `shape_like`."""
    axes = norm_axes(Caller("expand_like"), axis, shape_like.ndim)
    return _stage(shape_like.shape, lambda *i: a[tuple(v for d, v in enumerate(i) if d not in axes)], "expand_like")


def squeezed_axes(who: Who, axis: Any, shape: Sequence[Any]) -> tuple[int, ...]:
    """The axes of size 1 that go; None takes all that are 1."""
    if axis is None:
        return tuple(i for i, d in enumerate(shape) if isinstance(d, int) and d == 1)
    axes = norm_axes(who, axis, len(shape))
    for a in axes:
        one = dims.same(shape[a], 1)
        if not one and not (one is None and dims.assume_equal(shape[a], 1, f"squeeze: dimension {a} must be 1")):
            raise who.error(f"dimension {a} is {dims.text(shape[a])}, not 1", "only dimensions of size 1 can go")
    return axes


def squeeze(a: te.Tensor, axis: Any = None) -> Any:
    """Dimensions `axis` of size 1 taken away; None takes all that are 1."""
    gone = squeezed_axes(Caller("squeeze"), axis, a.shape)

    def element(*index: Any) -> Any:
        own = iter(index)
        return a[tuple(E.const(0) if d in gone else next(own) for d in range(a.ndim))]

    return _stage([d for i, d in enumerate(a.shape) if i not in gone], element, "squeeze")


def flip(a: te.Tensor, axis: Any = 0) -> Any:
    """The order of elements turned round along `axis` (an int or several)."""
    axes = norm_axes(Caller("flip"), axis, a.ndim)

    def element(*i: Any) -> Any:
        return a[tuple(E.as_expr(a.shape[d]) - 1 - v if d in axes else v for d, v in enumerate(i))]

    return _stage(a.shape, element, "reverse")


# --------------------------------------------------------------------------------------------------------- repetitions


def tile_shapes(shape: Sequence[Any], reps: Sequence[Any]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Shape and repetitions brought to one length by leading ones."""
    count = dims.dims(reps)
    ndim = max(len(count), len(shape))
    return (1,) * (ndim - len(shape)) + tuple(shape), (1,) * (ndim - len(count)) + count


def tile(a: te.Tensor, reps: Sequence[Any]) -> Any:
    """The whole tensor repeated `reps[d]` times along each dimension."""
    shape, count = tile_shapes(a.shape, reps)

    def element(*index: Any) -> Any:
        own = [
            i if isinstance(r, int) and r == 1 else E.floormod(i, d)
            for i, d, r in zip(index, shape, count, strict=True)
        ]
        return a[tuple(own[len(shape) - a.ndim :])]

    return _stage([dims.prod(p) for p in zip(shape, count, strict=True)], element, "tile")


def repeat(a: te.Tensor, repeats: Any, axis: Any = None) -> Any:
    """Each element repeated `repeats` times along `axis`; axis None repeats the flattened tensor's elements."""
    if axis is None:
        total = [dims.prod((*a.shape, repeats))]
        return _stage(total, lambda i: a[tuple(unravel(E.floordiv(i, repeats), a.shape))], "repeat")
    at = norm_axis(Caller("repeat"), axis, a.ndim)
    shape = [dims.prod((s, repeats)) if d == at else s for d, s in enumerate(a.shape)]
    return _stage(
        shape, lambda *i: a[tuple(E.floordiv(v, repeats) if d == at else v for d, v in enumerate(i))], "repeat"
    )


# ---------------------------------------------------------------------------------------------------- joins and pieces


def check_joined(who: Who, tensors: Sequence[Any], skip: int | None) -> None:
    """All tensors (or types) have one dtype and, but for dimension `skip`, one shape."""
    if not tensors:
        raise who.error("takes at least one operand")
    first = tensors[0]
    for i, t in enumerate(tensors):
        if t.dtype != first.dtype or t.ndim != first.ndim:
            raise who.error(
                f"operand {i} is {t.dtype} with {t.ndim} dimensions, operand 0 is {first.dtype} with {first.ndim}"
            )
        for d, (a, b) in enumerate(zip(first.shape, t.shape, strict=True)):
            equal = d == skip or dims.same(a, b)
            what = f"operator {who.name}, dimension {d}"
            if equal is None:
                if not dims.assume_equal(a, b, f"{what}: sizes must be equal"):
                    raise dims.undecided(what, a, b)
            elif not equal:
                raise who.error(f"dimension {d} of operand {i} is {dims.text(b)}, of operand 0 {dims.text(a)}")


def joined_shape(tensors: Sequence[Any], axis: int) -> tuple[Any, ...]:
    """The shape of tensors one after the other along a non-negative axis."""
    shape, total = list(tensors[0].shape), 0
    for t in tensors:
        total = total + t.shape[axis]
    shape[axis] = dims.dim(total)
    return tuple(shape)


_CHAIN = 8  # choices that are tried one after the other


def _chosen(place: Any, values: Sequence[Any], ends: Sequence[Any]) -> Any:
    """The value in whose part `place` lies, the parts ending at `ends`; many are halved until one is left."""
    if len(values) <= _CHAIN:
        out = values[-1]
        for one, end in reversed(list(zip(values[:-1], ends[:-1], strict=True))):
            out = E.if_then_else(place < end, one, out)
        return out
    left = list(zip(values, ends, strict=True))
    while len(left) > 1:
        pairs = zip(left[::2], left[1::2], strict=False)
        rest = left[len(left) // 2 * 2 :]
        left = [(E.if_then_else(place < end, a, b), last) for (a, end), (b, last) in pairs] + rest
    return left[0][0]


def concatenate(a_tuple: Sequence[te.Tensor], axis: int = 0) -> Any:
    """Tensors one after the other along `axis`."""
    who, inputs = Caller("concatenate"), tuple(a_tuple)
    at = norm_axis(who, axis, inputs[0].ndim) if inputs else 0
    check_joined(who, inputs, at)
    starts: list[Any] = [0]
    for x in inputs[:-1]:
        starts.append(dims.dim(starts[-1] + x.shape[at]))

    def element(*index: Any) -> Any:
        place = index[at]
        ones = [x[(*index[:at], place - start, *index[at + 1 :])] for x, start in zip(inputs, starts, strict=True)]
        return _chosen(place, ones, [dims.dim(start + x.shape[at]) for x, start in zip(inputs, starts, strict=True)])

    return _stage(joined_shape(inputs, at), element, "concatenate")


def stack(a: Sequence[te.Tensor], axis: int = 0) -> Any:
    """Tensors of one shape along a new dimension `axis`."""
    who, inputs = Caller("stack"), tuple(a)
    check_joined(who, inputs, None)
    shape = list(inputs[0].shape)
    at = norm_axis(who, axis, len(shape) + 1)
    shape.insert(at, len(inputs))

    def element(*index: Any) -> Any:
        own = index[:at] + index[at + 1 :]
        if len(inputs) > _CHAIN:
            return _chosen(index[at], [x[own] for x in inputs], range(1, len(inputs) + 1))
        out = inputs[-1][own]
        for k in reversed(range(len(inputs) - 1)):
            out = E.select(E.binary(E.EQ, index[at], k), inputs[k][own], out)
        return out

    return _stage(shape, element, "stack")


def split_cuts(who: Who, given: Any, size: Any) -> list[Any]:
    """Places where pieces begin and, at last, the size; `given` is a number of equal pieces or the places between."""
    if isinstance(given, tuple | list):
        return [0, *dims.dims(given), size]
    if given < 1:
        raise who.error(f"{given} sections")
    each = dims.exact_div(size, given)
    if not dims.same(dims.prod((each, given)), size):
        raise who.error(f"{dims.text(size)} does not divide into {given} equal sections")
    return [dims.prod((each, k)) for k in range(given)] + [size]


def split_sizes(who: Who, cuts: Sequence[Any], size: Any) -> list[Any]:
    """Lengths of the pieces between cuts."""
    out = []
    for low, high in pairwise(cuts):
        piece = dims.dim(E.sub(high, low)) if not isinstance(high, int) or not isinstance(low, int) else high - low
        if isinstance(piece, int) and piece < 0:
            raise who.error(f"cuts {dims.shape_text(cuts[1:-1])} of a dimension of {dims.text(size)}")
        out.append(piece)
    return out


def split(ary: te.Tensor, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    """The pieces along `axis`: a number of equal ones, or cut at the given places."""
    who = Caller("split")
    at = norm_axis(who, axis, ary.ndim)
    cuts = split_cuts(who, indices_or_sections, ary.shape[at])

    def piece(start: Any, size: Any, k: int) -> Any:
        shape = (*ary.shape[:at], size, *ary.shape[at + 1 :])
        return _stage(shape, lambda *i: ary[(*i[:at], i[at] + start, *i[at + 1 :])], f"split{k}")

    sizes = split_sizes(who, cuts, ary.shape[at])
    return [piece(s, n, k) for k, (s, n) in enumerate(zip(cuts, sizes, strict=False))]


def slice_plan(
    who: Who, shape: Sequence[Any], begin: Sequence[Any], end: Sequence[Any], strides: Any, axes: Any
) -> dict[int, tuple[Any, Any, int]]:
    """axis -> (first element, number of elements, stride)."""
    axes = axes if axes is not None else tuple(range(len(begin)))
    strides = strides if strides is not None else (1,) * len(begin)
    strides = tuple(strides) * len(begin) if len(strides) == 1 else tuple(strides)
    if not len(begin) == len(end) == len(axes) == len(strides):
        raise who.error(f"{len(begin)} begins, {len(end)} ends, {len(axes)} axes, {len(strides)} strides")
    out: dict[int, tuple[Any, Any, int]] = {}
    for b, e, a, s in zip(begin, end, axes, strides, strict=True):
        axis = norm_axis(who, a, len(shape))
        if axis in out:
            raise who.error(f"axis {axis} is named twice")
        if s == 0:
            raise who.error("a stride of 0")
        size = shape[axis]
        out[axis] = static_slice(b, e, s, size) if isinstance(size, int) else symbolic_slice(b, e, s, size)
    return out


def slice_stage(x: te.Tensor, plan: dict[int, tuple[Any, Any, int]]) -> Any:
    """The elements a plan names."""
    shape = [plan[d][1] if d in plan else s for d, s in enumerate(x.shape)]
    return _stage(
        shape,
        lambda *index: x[tuple(i * plan[d][2] + plan[d][0] if d in plan else i for d, i in enumerate(index))],
        "strided_slice",
    )


def strided_slice(
    a: te.Tensor,
    begin: Sequence[Any],
    end: Sequence[Any],
    strides: Any = None,
    axes: Any = None,
    slice_mode: str = "end",
) -> Any:
    """Elements begin, begin+stride, … before end along `axes` (None: the leading ones), as Python slices.

    slice_mode "size": `end` holds numbers of elements instead (-1: all that follow), and strides are 1.
    """
    who = Caller("strided_slice")
    if slice_mode not in ("end", "size"):
        raise who.error(f"slice_mode {slice_mode!r}", "end or size")
    if slice_mode == "size":
        which = axes if axes is not None else range(len(begin))
        sizes = [a.shape[d] for d in which]
        end = [
            s if n == -1 else b + n + (s if isinstance(b, int) and b < 0 else 0)
            for b, n, s in zip(begin, end, sizes, strict=True)
        ]
        strides = None
    return slice_stage(a, slice_plan(who, a.shape, begin, end, strides, axes))


def where(condition: te.Tensor, x: Any, y: Any) -> Any:
    """Elements of `x` where the condition is true (or not 0), else of `y`; tensors broadcast."""
    tensors = [v for v in (condition, x, y) if isinstance(v, te.Tensor)]
    shape = broadcast_shapes(Caller("where"), *[t.shape for t in tensors])

    def element(*values: E.PrimExpr) -> E.PrimExpr:
        own = iter(values)
        test, a, b = (next(own) if isinstance(v, te.Tensor) else v for v in (condition, x, y))
        return E.select(E.cast("bool", E.as_expr(test)), a, b)

    sample = element(*[t[(0,) * t.ndim] for t in tensors])
    return map_stage(element, tensors, shape, sample.dtype, "where")
