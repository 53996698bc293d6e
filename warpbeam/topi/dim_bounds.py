"""What dimensions are at most where sizes found at run time have bounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from warpbeam.ir.node import children
from warpbeam.ir.rewrite import post_order
from warpbeam.tir import expr as E
from warpbeam.topi import dims

_BUILD: dict[type, Callable[[Any, Any], Any]] = {E.Add: E.add, E.Mul: E.mul, E.Max: E.maximum, E.Min: E.minimum}


def upper(value: Any, bound: Callable[[E.Var], Any]) -> Any:
    """A dimension that `value` does not exceed, None where none is known.

    bound: what a size found at run time is at most (itself, where it may stay), or None; other sizes stay.
    """
    found = set(dims.counted_in(value))
    if not found:
        return value
    seen: dict[Any, Any] = {}
    for n in post_order(value):
        if n in found or any(c in found for c in children(n)):
            found.add(n)  # type: ignore[arg-type]
            seen[n] = _upper(n, bound, seen)
        else:
            seen[n] = n
    return seen[value]


def _upper(n: Any, bound: Callable[[E.Var], Any], seen: dict[Any, Any]) -> Any:
    if isinstance(n, E.Var):
        return bound(n)
    if isinstance(n, E.Cast):
        return seen[n.value]
    parts = [getattr(n, f) for f in ("a", "b") if hasattr(n, f)]
    if len(parts) != 2 or any(dims.sign(p) != 1 for p in parts):
        return None
    a, b = (seen[p] for p in parts)
    if isinstance(n, E.Min) and (a is None or b is None):
        return b if a is None else a
    if isinstance(n, E.Sub):
        return a
    if isinstance(n, E.FloorDiv):
        by = E.const_int(n.b)
        return a if a is None or by is None else dims.dim(E.floordiv(E.as_expr(a), n.b))
    build = _BUILD.get(type(n))
    if a is None or b is None or build is None:
        return None
    return dims.dim(build(E.as_expr(a), E.as_expr(b)))
