"""Dimensions of the compiler (int64 expressions) as shape expressions of the runtime (plain nested tuples)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import CompileError
from warpbeam.ir.rewrite import post_order
from warpbeam.relay.types import TensorType
from warpbeam.tir import expr as tir
from warpbeam.topi.dims import content, prod

_BINARY = {
    tir.Add: "add",
    tir.Sub: "sub",
    tir.Mul: "mul",
    tir.FloorDiv: "floordiv",
    tir.FloorMod: "mod",
    tir.Min: "min",
    tir.Max: "max",
    tir.EQ: "eq",
    tir.NE: "ne",
    tir.LT: "lt",
    tir.LE: "le",
    tir.GT: "gt",
    tir.GE: "ge",
    tir.And: "and",
    tir.Or: "or",
}


def to_shape_expr(value: Any, symbols: Mapping[tir.Var, Any]) -> Any:
    """An int, or the shape expression of a dimension whose variables are all in `symbols`."""
    if isinstance(value, int):
        return value
    done: dict[Any, Any] = {}
    for node in post_order(value):
        done[node] = _convert(node, done, symbols)
    return done[value]


def _convert(node: Any, done: dict[Any, Any], symbols: Mapping[tir.Var, Any]) -> Any:
    if isinstance(node, tir.IntImm):
        return node.value
    if isinstance(node, tir.Var):
        if node not in symbols:
            raise CompileError(
                f"dimension {node.name!r} cannot be computed from the inputs' shapes",
                why="no input has an axis of exactly this size",
                hint=f"give it a value: shapes={{...}}; known here: {sorted(v.name for v in symbols)}",
            )
        return symbols[node]
    if type(node) in _BINARY:
        return fold(_BINARY[type(node)], done[node.a], done[node.b])
    if isinstance(node, tir.Cast):
        return done[node.value]
    if isinstance(node, tir.Not):
        return ("not", done[node.a])
    if isinstance(node, tir.Select):
        return ("select", done[node.cond], done[node.a], done[node.b])
    raise CompileError(f"a dimension contains {type(node).__name__}, which the runtime cannot evaluate")


def fold(name: str, a: Any, b: Any) -> Any:
    """`(name, a, b)`, or its value where both are numbers."""
    if isinstance(a, int) and isinstance(b, int):
        from warpbeam.runtime.shape_expr import evaluate

        return evaluate((name, a, b), {})
    return (name, a, b)


def bytes_of(ty: TensorType, symbols: Mapping[tir.Var, Any]) -> tuple[int, Any]:
    """(number, unit) whose product is the bytes of a compact tensor; unit is 1 or a shape expression.

    A tensor of constant size has at least one byte, so that every value has an address.
    """
    count, unit = content(prod(ty.shape))
    size = dt.nbytes(ty.dtype) * count
    return (size, to_shape_expr(unit, symbols)) if not isinstance(unit, int) else (max(size, 1), 1)
