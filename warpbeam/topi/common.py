"""What computations share: errors, axes, broadcasting, the widths values are computed in, and the plain stages.

Operators of a graph (`warpbeam/op/`) use the same helpers; whoever asks hands in itself (`who`), so that an error names
the operator, or the function of this library, that was called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import IRError
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.topi import dims, tag

HALF = ("float16", "bfloat16")


class TopiError(IRError, ValueError):
    """A computation of the library was asked for with operands or parameters that do not fit.

    For instance `topi.nn.dense(x, w)` where the summed dimensions differ: change the operand's shape.

    Wrong:
        topi.nn.dense(A, te.placeholder((3, 5), name="W"))
    Right:
        topi.nn.dense(A, te.placeholder((3, 4), name="W"))
    """


class Who(Protocol):
    """Whoever a computation is made for: gives errors their name."""

    name: Any

    def error(self, message: str, hint: str = "") -> Exception: ...


class Caller:
    """A function of this library as the one that errors name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def error(self, message: str, hint: str = "") -> TopiError:
        return TopiError(f"topi.{self.name}: {message}", hint=hint)


# -------------------------------------------------------------------------------------------------------------- widths


def wide(dtype: str) -> str:
    """The dtype in which values of `dtype` are computed: shorter floats in float32, others in their own."""
    return "float32" if dt.is_float(dtype) and dt.bits(dtype) < 32 else dtype


def accumulation(dtype: str) -> str:
    """The dtype in which a reduction of `dtype` accumulates: half floats in float32, others in their own."""
    return wide(dtype)


# ------------------------------------------------------------------------------------------------------ axes and shapes


def norm_axis(who: Who, axis: Any, ndim: int) -> int:
    """A non-negative axis; an axis outside [-ndim, ndim) is an error."""
    axis = int(axis)
    if not -ndim <= axis < ndim:
        raise who.error(f"axis {axis} of a tensor with {ndim} dimensions", f"axes go from {-ndim} to {ndim - 1}")
    return int(axis % ndim)


def norm_axes(who: Who, axes: Any, ndim: int, exclude: bool = False) -> tuple[int, ...]:
    """Sorted non-negative axes; None is all axes; `exclude` gives the others instead; repeats are an error."""
    if axes is None:
        found = set(range(ndim))
    else:
        given = [axes] if isinstance(axes, int) else list(axes)
        found = {norm_axis(who, a, ndim) for a in given}
        if len(found) != len(given):
            raise who.error(f"axes {tuple(given)} name an axis twice")
    if exclude:
        found = set(range(ndim)) - found
    return tuple(sorted(found))


def broadcast_dim(who: Who, a: Any, b: Any) -> Any:
    """The dimension of two broadcast dimensions; an undecidable pair of symbolic ones is an error.

    Raises:
        Undecided: where they may be equal, or one of them 1.
    """
    if isinstance(a, int) and a == 1:
        return b
    if isinstance(b, int) and b == 1:
        return a
    equal = dims.same(a, b)
    if equal:
        return a if isinstance(a, int) or not isinstance(b, int) else b
    if equal is None:
        if dims.assume_equal(a, b, f"operator {who.name}: dimensions must be equal"):
            return b if isinstance(b, int) or dims.is_counted(a) else a
        raise dims.undecided(f"operator {who.name}", a, b)
    if dims.can_be_one(a) or dims.can_be_one(b):
        raise dims.undecided(f"operator {who.name}", a, b, "that one of them is 1")
    raise who.error(f"dimensions {dims.text(a)} and {dims.text(b)} do not broadcast")


def broadcast_shapes(who: Who, *shapes: Sequence[Any], below: int = 0) -> tuple[Any, ...]:
    """NumPy's broadcast of several shapes, symbolic dimensions included. below: dimensions that follow them.

    Raises:
        Undecided: as `broadcast_dim`.
    """
    ndim = max((len(s) for s in shapes), default=0)
    out: list[Any] = [1] * ndim
    for shape in shapes:
        for i, d in enumerate(shape, ndim - len(shape)):
            try:
                out[i] = broadcast_dim(who, out[i], d)
            except dims.Undecided as e:
                e.axis = i - ndim - below
                raise
    return tuple(out)


def agree(who: Who, a: Any, b: Any, what: str) -> Any:
    """The common dimension of two that must agree; a constant wins; certain inequality is an error."""
    if dims.same(a, b) is False:
        raise who.error(f"{what} do not agree: {dims.text(a)} and {dims.text(b)}")
    return b if isinstance(b, int) else a


def at_broadcast(x: te.Tensor, index: Sequence[Any], out_shape: Sequence[Any]) -> E.PrimExpr:
    """The element of `x` that index `index` of the broadcast result sees."""
    skip = len(index) - len(x.shape)
    own: list[Any] = []
    for d, i, o in zip(x.shape, list(index)[skip:], list(out_shape)[skip:], strict=True):
        own.append(0 if isinstance(d, int) and d == 1 and not (isinstance(o, int) and o == 1) else i)
    out: E.PrimExpr = x[tuple(own)]
    return out


def merge_index(
    index: Sequence[Any], axes: Sequence[int], inner: Sequence[Any], ndim: int, keepdims: bool
) -> tuple[Any, ...]:
    """The operand's index from the result's index and one index per reduced axis."""
    outer = [i for d, i in enumerate(index) if d not in axes] if keepdims else list(index)
    own, red = iter(outer), iter(inner)
    return tuple(next(red) if d in axes else next(own) for d in range(ndim))


def reduced_shape(shape: Sequence[Any], axes: Sequence[int], keepdims: bool) -> tuple[Any, ...]:
    """What is left of a shape when `axes` are reduced: dimensions of 1 with keepdims, else nothing."""
    if keepdims:
        return tuple(1 if i in axes else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in axes)


# -------------------------------------------------------------------------------------------------------------- stages


def map_stage(
    fn: Callable[..., Any],
    inputs: Sequence[te.Tensor],
    shape: Sequence[Any],
    dtype: str,
    name: str,
    inner: str | None = None,
    label: str = "",
) -> Any:
    """fn of the operands' elements, which broadcast to `shape`: each converted to `inner`, the result to `dtype`."""

    def element(*index: Any) -> Any:
        values = [at_broadcast(x, index, shape) for x in inputs]
        return E.cast(dtype, fn(*[v if inner is None else E.cast(inner, v) for v in values]))

    if not label:
        alone = all(len(x.shape) == len(shape) and dims.equal(x.shape, shape) for x in inputs)
        label = tag.ELEMWISE if alone else tag.BROADCAST
    return te.compute(shape, element, name=name, tag=label)


def reduce_stage(
    x: te.Tensor,
    axes: Sequence[int],
    keepdims: bool,
    out_shape: Sequence[Any],
    reducer: Callable[..., Any],
    value: Callable[[E.PrimExpr], E.PrimExpr],
    name: str,
) -> Any:
    """reducer over `axes` of value(x[…]); with no axes, the value itself."""
    ks = [te.reduce_axis(x.shape[a], f"k{a}") for a in axes]

    def element(*index: Any) -> Any:
        full = merge_index(index, axes, [k.var for k in ks], x.ndim, keepdims)
        return reducer(value(x[full]), axis=ks) if ks else value(x[full])

    if any(isinstance(x.shape[a], int) and x.shape[a] == 0 for a in axes):
        return te.compute(out_shape, lambda *i: nothing(reducer, value(x[(0,) * x.ndim]).dtype), name=name)
    return te.compute(out_shape, element, name=name, tag=tag.COMM_REDUCE if ks else tag.INJECTIVE)


def nothing(reducer: Callable[..., Any], dtype: str) -> E.PrimExpr:
    """What a reducer gives for no elements."""
    return reducer(E.const(0, dtype), axis=te.reduce_axis(1)).combiner.identity[0]  # type: ignore[no-any-return]


def rounded(x: E.PrimExpr, dtype: str) -> E.PrimExpr:
    """`x` as `dtype`; of float32 as bfloat16, subnormal numbers may become zero, as by the machine's instruction."""
    short = (x.dtype, dtype) == ("float32", "bfloat16")
    return E.call("to_bfloat16", x, dtype=dtype) if short else E.cast(dtype, x)


def convert_stage(x: te.Tensor, dtype: str, name: str) -> Any:
    """`x` as `dtype`; `x` itself where it has it."""
    if x.dtype == dtype:
        return x
    return te.compute(x.shape, lambda *i: E.cast(dtype, x[i]), name=name, tag=tag.ELEMWISE)
