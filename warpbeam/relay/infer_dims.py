"""Symbolic dimensions at work: evaluated, substituted in types and attributes, bound from actual shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.node import Attrs, Node
from warpbeam.ir.rewrite import post_order, rewrite
from warpbeam.tir import expr as E

Dims = dict[E.Var, Any]

_EVAL: dict[type, Callable[..., Any]] = {
    E.Add: lambda a, b: a + b,
    E.Sub: lambda a, b: a - b,
    E.Mul: lambda a, b: a * b,
    E.FloorDiv: lambda a, b: a // b if b else 0,
    E.FloorMod: lambda a, b: a % b if b else 0,
    E.Div: lambda a, b: (a / b) if isinstance(a, float) else (abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)),
    E.Min: min,
    E.Max: max,
    E.EQ: lambda a, b: a == b,
    E.NE: lambda a, b: a != b,
    E.LT: lambda a, b: a < b,
    E.LE: lambda a, b: a <= b,
    E.GT: lambda a, b: a > b,
    E.GE: lambda a, b: a >= b,
    E.And: lambda a, b: a and b,
    E.Or: lambda a, b: a or b,
    E.Not: lambda a: not a,
    E.Select: lambda c, a, b: a if c else b,
}

_BUILD: dict[type, Callable[..., Any]] = {
    E.Add: E.add,
    E.Sub: E.sub,
    E.Mul: E.mul,
    E.FloorDiv: E.floordiv,
    E.FloorMod: E.floormod,
}


def evaluate_dim(value: Any, known: Mapping[E.Var, Any]) -> Any:
    """The number a dimension expression stands for, or None where a variable is unknown."""
    if not isinstance(value, E.PrimExpr):
        return value
    got: dict[int, Any] = {}
    for node in post_order(value):
        if isinstance(node, E.IntImm | E.FloatImm):
            got[id(node)] = node.value
        elif isinstance(node, E.Var):
            got[id(node)] = known.get(node)
        elif isinstance(node, E.Cast):
            inner = got[id(node.value)]
            cast = float if node.dtype.startswith("float") else int
            got[id(node)] = None if inner is None else cast(inner)
        else:
            fn = _EVAL.get(type(node))
            if fn is None:
                raise IRError(f"cannot evaluate {type(node).__name__} in a dimension")
            parts = [got[id(getattr(node, f))] for f in type(node)._fields]
            got[id(node)] = None if any(p is None for p in parts) else fn(*parts)
    return got[id(value)]


def _fold(node: Node) -> Node | None:
    if isinstance(node, E.BinaryExpr | E.CmpExpr) and isinstance(node.a, E.IntImm) and isinstance(node.b, E.IntImm):
        fn = _EVAL.get(type(node))
        if fn is not None and not (type(node) is E.Div and not node.b.value):
            return E.IntImm(int(fn(node.a.value, node.b.value)), node.dtype)
    plain = _BUILD.get(type(node))
    return plain(node.a, node.b) if plain and isinstance(node, E.BinaryExpr) else None


def substitute_dims(root: Any, mapping: Mapping[E.Var, Any]) -> Any:
    """A type, dimension, attribute value or Attrs with size variables replaced by ints or expressions."""
    if not mapping:
        return root
    nodes: dict[Node, Node] = {k: E.as_expr(v, k.dtype) for k, v in mapping.items()}
    return _substitute(root, nodes)


def _substitute(root: Any, nodes: dict[Node, Node]) -> Any:
    if isinstance(root, E.PrimExpr):
        return E.simplify_dim(rewrite(root, _fold, dict(nodes)))
    if isinstance(root, Node):
        return rewrite(root, _fold, dict(nodes))
    if isinstance(root, Attrs):
        return Attrs({k: _substitute(v, nodes) for k, v in root.items()})
    if type(root) is tuple:
        return tuple(_substitute(v, nodes) for v in root)
    return root


def evaluate_attrs(attrs: Attrs, known: Mapping[E.Var, Any]) -> Attrs:
    """Attributes with every expression replaced by its number; an unknown variable is an error."""
    changed = {k: _number(k, v, known) for k, v in attrs.items() if has_expr(v)}
    return attrs.updated(**changed) if changed else attrs


def _number(key: str, value: Any, known: Mapping[E.Var, Any]) -> Any:
    if type(value) is tuple:
        return tuple(_number(key, v, known) for v in value)
    if isinstance(value, Attrs):
        return evaluate_attrs(value, known)
    number = evaluate_dim(value, known)
    if number is None:
        names = sorted({v.name for v in dim_vars(value) if known.get(v) is None})
        raise IRError(f"attribute {key} needs the size {', '.join(names)}, which no input's shape gives")
    return number


def has_expr(value: Any) -> bool:
    """Whether a (nested) attribute value holds an expression."""
    if type(value) is tuple:
        return any(map(has_expr, value))
    return isinstance(value, E.PrimExpr) or (isinstance(value, Attrs) and any(map(has_expr, value.values())))


def dim_vars(*values: Any) -> list[E.Var]:
    """Size variables of types, dimensions and attribute values, in order of first appearance."""
    found: dict[E.Var, None] = {}
    todo = list(reversed(values))
    while todo:
        value = todo.pop()
        if type(value) is tuple:
            todo.extend(reversed(value))
        elif isinstance(value, Attrs):
            todo.extend(reversed(list(value.values())))
        elif isinstance(value, Node):
            found.update((n, None) for n in post_order(value) if isinstance(n, E.Var))
    return list(found)


def bind_shape(dims: Sequence[Any], shape: Sequence[Any], known: Dims) -> int | None:
    """Binds size variables so that `dims` reads `shape`; the first axis that cannot fit, or None if all may."""
    if len(dims) != len(shape):
        return -1
    for axis, (want, have) in enumerate(zip(dims, shape, strict=True)):
        if isinstance(want, E.Var) and known.get(want) is None:
            known[want] = have
            continue
        number = evaluate_dim(want, known) if not any(isinstance(v, E.PrimExpr) for v in known.values()) else want
        if isinstance(number, int) and isinstance(have, int) and number != have:
            return axis
    return None
