"""Small helpers with which converters build expressions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from warpbeam.frontend.onnx.node import NodeView
from warpbeam.op import get
from warpbeam.relay.expr import Expr, TupleGetItem, const

Result = Expr | list[Expr]
Converter = Callable[..., Any]


def shape_of(x: Expr) -> tuple[Any, ...]:
    return x.checked_type.shape  # type: ignore[attr-defined, no-any-return]


def rank_of(x: Expr) -> int:
    return len(shape_of(x))


def dtype_of(x: Expr) -> str:
    return x.checked_type.dtype  # type: ignore[attr-defined, no-any-return]


def like(value: Any, x: Expr) -> Expr:
    """A scalar constant of the dtype of `x`."""
    return const(value, dtype_of(x))


def cast_to(x: Expr, dtype: str) -> Expr:
    return x if dtype_of(x) == dtype else get("cast")(x, dtype=dtype)  # type: ignore[no-any-return]


def reshape(x: Expr, shape: Sequence[Any]) -> Expr:
    """`x` with a new shape; the same expression where it has it already."""
    new = tuple(shape)
    have = shape_of(x)
    if len(new) == len(have) and all(a is b or a == b for a, b in zip(new, have, strict=True)):
        return x
    return get("reshape")(x, newshape=new)  # type: ignore[no-any-return]


def transpose(x: Expr, axes: Sequence[int]) -> Expr:
    return x if list(axes) == list(range(len(axes))) else get("transpose")(x, axes=tuple(axes))  # type: ignore[no-any-return]


def fields(call: Expr, count: int) -> list[Expr]:
    """The parts of a tuple-valued call."""
    return [TupleGetItem(call, k) for k in range(count)]


def simple(name: str, **attrs: Any) -> Converter:
    """A converter that is one operator applied to all inputs."""

    def convert(node: NodeView, *inputs: Expr) -> Expr:
        return get(name)(*inputs, **attrs)  # type: ignore[no-any-return]

    return convert
