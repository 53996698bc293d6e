"""The language of tensors: WHAT is computed, index by index, with no order.

A = te.placeholder((n, k), name="A")
r = te.reduce_axis((0, k))
C = te.compute((n, m), lambda i, j: te.sum(A[i, r] * B[r, j], axis=r), name="C")
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import EMPTY, Attrs
from warpbeam.ir.rewrite import post_order
from warpbeam.te.errors import TEError
from warpbeam.te.operation import ComputeOp as ComputeOp
from warpbeam.te.operation import ExternOp as ExternOp
from warpbeam.te.operation import Operation as Operation
from warpbeam.te.operation import PlaceholderOp as PlaceholderOp
from warpbeam.te.operation import ProducerLoad as ProducerLoad
from warpbeam.te.operation import ScanOp as ScanOp
from warpbeam.te.operation import Tensor as Tensor
from warpbeam.te.operation import TensorSlice as TensorSlice
from warpbeam.te.operation import loads as loads
from warpbeam.te.operation import operations as operations
from warpbeam.te.tag import tag_of
from warpbeam.te.tensor_compute import tensor_compute
from warpbeam.tir.expr import Var, as_expr, simplify_dim, sub
from warpbeam.tir.reducer import CommReducer as CommReducer
from warpbeam.tir.reducer import Reduce as Reduce
from warpbeam.tir.reducer import all_of as all_of
from warpbeam.tir.reducer import any_of as any_of
from warpbeam.tir.reducer import comm_reducer as comm_reducer
from warpbeam.tir.reducer import highest as max_value
from warpbeam.tir.reducer import lowest as min_value
from warpbeam.tir.reducer import max as max
from warpbeam.tir.reducer import min as min
from warpbeam.tir.reducer import prod as prod
from warpbeam.tir.reducer import sum as sum
from warpbeam.tir.stmt import IterVar, Range

__all__ = [
    "CommReducer", "ComputeOp", "ExternOp", "Operation", "PlaceholderOp", "ProducerLoad", "Reduce", "ScanOp", "Tensor",
    "TensorSlice", "all_of", "any_of", "as_expr", "comm_reducer", "compute", "loads", "max", "max_value", "min",
    "min_value", "operations", "placeholder", "prod", "reduce_axis", "size_var", "sum", "thread_axis", "var",
]  # fmt: skip


def as_shape(shape: Any) -> tuple[Any, ...]:
    """Dimensions as ints and int64 expressions; a single number is a shape of one dimension."""
    many = isinstance(shape, Sequence) and not isinstance(shape, str)
    return tuple(simplify_dim(s) for s in (shape if many else (shape,)))


def placeholder(shape: Any, dtype: str | None = None, name: str = "placeholder") -> Tensor:
    """An input tensor of `shape` (ints or expressions); float32 unless `dtype` says otherwise."""
    return PlaceholderOp(name, as_shape(shape), dt.canonical(dtype or "float32")).output(0)


def var(name: str = "tindex", dtype: str = "int64", span: Any = None) -> Var:
    """A scalar that is given at run time: a size, an index or a number. Integers may be sizes of shapes."""
    return Var(name, dt.canonical(dtype))


def size_var(name: str = "size", dtype: str = "int64", span: Any = None) -> Var:
    """A symbolic size (>= 0)."""
    return Var(name, dt.canonical(dtype), True)


def _domain(dom: Any, what: str) -> tuple[Any, Any]:
    """(first, count) of a Range, a (first, end) pair or a count."""
    if isinstance(dom, Range):
        return dom.min, dom.extent
    if isinstance(dom, list | tuple):
        if len(dom) != 2:
            raise TEError(f"{what} needs a pair (first, end), got {len(dom)} values")
        low, high = simplify_dim(dom[0]), simplify_dim(dom[1])
        return low, simplify_dim(sub(high, low))
    return 0, dom


def reduce_axis(dom: Any, name: str = "rv", thread_tag: str = "", span: Any = None) -> IterVar:
    """A reduction axis; `dom` is a (first, end) pair, a Range, or the number of values from 0."""
    low, extent = _domain(dom, f"reduce axis {name}")
    return IterVar(Var(name), simplify_dim(extent), "reduce", simplify_dim(low))


def thread_axis(dom: Any = None, tag: str = "", name: str = "", span: Any = None) -> IterVar:
    """An axis of the device: thread_axis("threadIdx.x"), thread_axis((0, 16), "threadIdx.x", name="tx").

    tag: "blockIdx.x".., "threadIdx.x".., "vthread", "cthread". Without a domain, what is bound to it gives its size.
    """
    if isinstance(dom, str):
        dom, tag = None, dom
    if not tag:
        raise TEError("a thread axis needs a tag", hint='te.thread_axis("threadIdx.x")')
    low, extent = (0, None) if dom is None else _domain(dom, f"thread axis {tag}")
    size = None if extent is None else simplify_dim(extent)
    return IterVar(Var(name or tag), size, "thread", simplify_dim(low), tag)


def compute(
    shape: Any,
    fcompute: Callable[..., Any],
    name: str = "compute",
    tag: str = "",
    attrs: dict[str, Any] | None = None,
    varargs_names: Sequence[str] | None = None,
) -> Any:
    """A tensor (or list of tensors of one shape) given element by element.

    shape: ints or expressions. fcompute: takes one index per dimension (or *indices) and returns an expression, or a
    tuple of expressions / the tuple of a multi-value reduction; or only the leading indices and returns a call of a
    tensor intrinsic, which does the other dimensions. varargs_names: axis names for *indices.
    """
    dims = as_shape(shape)
    leading = _leading_names(fcompute, len(dims))
    if leading:
        made = tensor_compute(dims, fcompute, leading, name, _notes(tag, attrs))
        if made is not None:
            return made
    names = _axis_names(fcompute, len(dims), name, varargs_names)
    axes = tuple(IterVar(Var(n), d, "spatial") for n, d in zip(names, dims, strict=True))
    result = fcompute(*[a.var for a in axes])
    many = isinstance(result, list | tuple)
    values = tuple(result) if many else (result,)
    if not values or any(v is None for v in values):
        raise TEError(f"fcompute of {name} returns no value", hint="return an expression of the indices")
    bodies = tuple(as_expr(b) for b in values)
    for b in bodies:
        if type(b) is not Reduce and any(type(n) is Reduce for n in post_order(b)):
            raise TEError(f"Reductions are only allowed at the top level of compute, not inside of {b!r}",
                          hint="make the reduction a te.compute of its own and use its tensor")  # fmt: skip
    op = ComputeOp(name, axes, bodies, _notes(tag, attrs))
    outs = tuple(op.output(i) for i in range(len(bodies)))
    return outs if many else outs[0]


def _notes(tag: str, attrs: dict[str, Any] | None) -> Attrs:
    tag = tag_of(tag)
    return Attrs({**(attrs or {}), **({"tag": tag} if tag else {})}) if (attrs or tag) else EMPTY


def _parameters(fcompute: Any) -> list[inspect.Parameter]:
    if not callable(fcompute):
        raise TEError(f"fcompute is a {type(fcompute).__name__}", hint="give a function of the indices: lambda i, j: …")
    try:
        return list(inspect.signature(fcompute).parameters.values())
    except ValueError as error:  # functions of Python itself may have none
        raise TEError(f"the parameters of {fcompute!r} are unknown", hint="wrap it in a lambda") from error


def _leading_names(fcompute: Any, ndim: int) -> list[str]:
    """Names of the indices of an fcompute that takes fewer than there are dimensions; empty if it takes all."""
    places = _parameters(fcompute)
    if any(p.kind is p.VAR_POSITIONAL for p in places) or not 0 < len(places) < ndim:
        return []
    return [p.name for p in places]


def _axis_names(fcompute: Any, ndim: int, name: str, varargs_names: Sequence[str] | None) -> list[str]:
    parameters = _parameters(fcompute)
    variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    places = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    names = [p.name for p in places]
    while len(names) > ndim and places[len(names) - 1].default is not inspect.Parameter.empty:
        names.pop()
    if len(names) > ndim or (not variadic and len(names) < ndim):
        raise TEError(
            f"fcompute of {name} takes {len(names)} indices, the shape has {ndim} dimensions",
            hint="one parameter per dimension, or *indices",
        )
    rest = ndim - len(names)
    if varargs_names is None:
        return names + [f"i{k}" for k in range(len(names), ndim)]
    if len(varargs_names) != rest:
        raise TEError(f"{len(varargs_names)} varargs_names for {rest} dimensions of {name}")
    return names + list(varargs_names)
