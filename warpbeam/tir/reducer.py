"""Reductions as expressions: an associative, commutative combination of a value over axes.

sum(A[i, k], axis=k)        max(a, b)        argmax = comm_reducer(combine, identity)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.node import Node
from warpbeam.tir.expr import IntImm, PrimExpr, Var, as_expr, cast, land, lor, maximum, minimum
from warpbeam.tir.stmt import IterVar


class CommReducer(Node):
    """An associative, commutative combination of tuples: result[i](lhs, rhs) with identity[i]."""

    lhs: tuple[Var, ...]
    rhs: tuple[Var, ...]
    result: tuple[PrimExpr, ...]
    identity: tuple[PrimExpr, ...]

    @property
    def identity_element(self) -> tuple[PrimExpr, ...]:
        return self.identity


class Reduce(PrimExpr):
    """Value `value_index` of combining `source` over `axis` where `condition` holds, starting from `init` or the
    identity.
    """

    combiner: CommReducer
    source: tuple[PrimExpr, ...]
    axis: tuple[IterVar, ...]
    condition: PrimExpr
    value_index: int
    init: tuple[PrimExpr, ...]

    def _derive(self) -> None:
        self._set("dtype", self.source[self.value_index].dtype)

    def text_form(self, printer: Any) -> str:
        """The reduction as text, for people."""
        names = ", ".join(printer.expr(v) for v in (*self.combiner.lhs, *self.combiner.rhs))
        axes = ", ".join(printer.expr(a.var) for a in self.axis)
        where = "" if isinstance(self.condition, IntImm) else f", where={printer.expr(self.condition)}"
        value = "" if len(self.source) == 1 else f", value_index={self.value_index}"
        combine = printer.listed(self.combiner.result)
        return f"reduce(({names}) -> {combine}, source=[{printer.listed(self.source)}], axis=[{axes}]{where}{value})"


def comm_reducer(
    fcombine: Callable[..., Any], fidentity: Callable[..., Any], name: str = "reduce"
) -> Callable[..., Any]:
    """A reducer: fcombine(lhs, rhs) -> value (tuples for several), fidentity(dtype, ...) -> value(s).

    The result is called as reducer(expr(s), axis=, where=None, init=None); several values give a tuple. Called with
    values instead of axes it combines them at once: reducer(a, b, c).
    """

    def reducer(expr: Any, axis: Any = None, where: Any = None, init: Any = None, *args: Any) -> Any:
        if axis is None:
            raise IRError(f"{name} is given neither axes nor a second value", hint=f"{name}(x, axis=k) or {name}(a, b)")
        if _are_axes(axis):
            return _reduce(fcombine, fidentity, name, expr, axis, where, init)
        found = expr if isinstance(expr, list | tuple) else as_expr(expr)
        for value in (axis, *(v for v in (where, init) if v is not None), *args):
            found = fcombine(found, value if isinstance(value, list | tuple) else as_expr(value))
        return found

    reducer.__name__ = name
    return reducer


def _are_axes(value: Any) -> bool:
    return isinstance(value, IterVar) or (
        isinstance(value, list | tuple) and all(isinstance(v, IterVar) for v in value)
    )


def _reduce(fcombine: Any, fidentity: Any, name: str, expr: Any, axis: Any, where: Any, init: Any) -> Any:
    many = isinstance(expr, list | tuple)
    source = tuple(as_expr(e) for e in (expr if many else (expr,)))
    axes = tuple(axis) if isinstance(axis, list | tuple) else (axis,)
    for a in axes:
        if a.kind != "reduce":
            raise IRError(f"{name} runs over {a.name}, which is no reduction axis", hint="make it with te.reduce_axis")
    lhs = tuple(Var(f"lhs{i}", e.dtype) for i, e in enumerate(source))
    rhs = tuple(Var(f"rhs{i}", e.dtype) for i, e in enumerate(source))
    result = fcombine(lhs, rhs) if many else (fcombine(lhs[0], rhs[0]),)
    identity = fidentity(*[e.dtype for e in source])
    identity = tuple(identity) if many else (identity,)
    if len(result) != len(source) or len(identity) != len(source):
        raise IRError(
            f"{name} of {len(source)} values combines to {len(result)} and has {len(identity)} identities",
            hint="fcombine and fidentity return as many values as are reduced",
        )
    combined = tuple(cast(e.dtype, as_expr(v, e.dtype)) for v, e in zip(result, source, strict=True))
    zero = tuple(cast(e.dtype, as_expr(v, e.dtype)) for v, e in zip(identity, source, strict=True))
    combiner = CommReducer(lhs, rhs, combined, zero)
    start = _start(init, source)
    cond = as_expr(True if where is None else where, "bool")
    outs = tuple(Reduce(combiner, source, axes, cond, i, start) for i in range(len(source)))
    return outs if many else outs[0]


def _start(init: Any, source: tuple[PrimExpr, ...]) -> tuple[PrimExpr, ...]:
    if init is None:
        return ()
    values = init if isinstance(init, list | tuple) else (init,)
    if len(values) != len(source):
        raise IRError(f"{len(values)} start values for a reduction of {len(source)}")
    return tuple(cast(e.dtype, as_expr(v, e.dtype)) for v, e in zip(values, source, strict=True))


def lowest(dtype: str) -> PrimExpr:
    """The value below all others: -inf for floats."""
    return as_expr(float("-inf") if dt.is_float(dtype) else dt.int_range(dtype)[0], dtype)


def highest(dtype: str) -> PrimExpr:
    """The value above all others: inf for floats."""
    return as_expr(float("inf") if dt.is_float(dtype) else dt.int_range(dtype)[1], dtype)


sum = comm_reducer(lambda a, b: a + b, lambda t: as_expr(0, t), name="sum")
prod = comm_reducer(lambda a, b: a * b, lambda t: as_expr(1, t), name="prod")
max = comm_reducer(lambda a, b: maximum(a, b), lowest, name="max")
min = comm_reducer(lambda a, b: minimum(a, b), highest, name="min")
all_of = comm_reducer(lambda a, b: land(a, b), lambda t: as_expr(True, t), name="all")
any_of = comm_reducer(lambda a, b: lor(a, b), lambda t: as_expr(False, t), name="any")
