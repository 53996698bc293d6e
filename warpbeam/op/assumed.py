"""Equalities of dimensions that a type rule needs but cannot decide: they hold or the call must be refused at run time.

A type rule states them through `unify`, and through `some_elements` that there is something to read; `equalities`
collects those of one call, for the host program to check.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from warpbeam.ir.node import Attrs
from warpbeam.relay.op import Op
from warpbeam.relay.types import Type
from warpbeam.tir import expr as E
from warpbeam.topi import dims

Equality = tuple[Any, Any, str]


def unify(op: Op, a: Any, b: Any, what: str) -> Any:
    """The common dimension of two that must agree; a constant wins; certain inequality is an error."""
    same = dims.same(a, b)
    if same is False:
        raise op.error(f"{what} do not agree: {dims.text(a)} and {dims.text(b)}")
    record = dims.ASSUMED.get()
    if same is None and record is not None:
        record.append((a, b, f"operator {op.name}: {what} must agree"))
    return b if isinstance(b, int) else a


def unify_shapes(op: Op, a: Sequence[Any], b: Sequence[Any], what: str) -> tuple[Any, ...]:
    """`unify` dimension by dimension; different ranks are an error."""
    if len(a) != len(b):
        raise op.error(f"{what} do not agree: {dims.shape_text(a)} and {dims.shape_text(b)}")
    return tuple(unify(op, x, y, what) for x, y in zip(a, b, strict=True))


def some_elements(op: Op, size: Any, text: str, read: Any = 1) -> None:
    """That a dimension has an element where as many as `read` are read at places that are moved into it.

    Raises:
        TypeCheckError: if it certainly has none.
    """
    _nothing(op, E.maximum(1 - E.as_expr(size), 0) * E.minimum(E.as_expr(read), 1), text)


def at_most(op: Op, size: Any, room: Any, text: str) -> None:
    """That a dimension is no larger than another one.

    Raises:
        TypeCheckError: if it certainly is.
    """
    _nothing(op, E.maximum(E.as_expr(size) - E.as_expr(room), 0), text)


def _nothing(op: Op, size: Any, text: str) -> None:
    size = dims.dim(size)
    if isinstance(size, int) and size:
        raise op.error(text)
    record = dims.ASSUMED.get()
    if record is not None and not isinstance(size, int):
        record.append((size, 0, f"operator {op.name}: {text}"))


def equalities(op: Op, types: Sequence[Type], attrs: Attrs) -> list[Equality]:
    """(dimension, dimension, message) of each equality that this call's type takes for granted."""
    found: list[Equality] = []
    token = dims.ASSUMED.set(found)
    try:
        op.infer(types, attrs)
    finally:
        dims.ASSUMED.reset(token)
    return found
