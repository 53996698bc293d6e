"""Vector integer expressions as scalar ones of a lane variable, and back.

Ramp(b, s, n) is b + s*lane with lane in [0, n), a Broadcast is its value: so all scalar rules serve vectors. Opaque
vectors (loads, casts, calls) are replaced by stand-in variables.
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import map_children
from warpbeam.ir.rewrite import post_order
from warpbeam.tir import expr as e
from warpbeam.tir.arith import poly as P
from warpbeam.tir.arith.bounds import LANES, lane_var

_STANDINS: dict[e.PrimExpr, e.Var] = {}
_ORIGINALS: dict[e.Var, e.PrimExpr] = {}
_LIMIT = 20_000


def standin(vector: e.PrimExpr) -> e.Var:
    """A scalar variable for an opaque vector; the same one for the same vector."""
    found = _STANDINS.get(vector)
    if found is None:
        found = _STANDINS[vector] = e.Var(P.key(vector), dt.scalar(vector.dtype))
        _ORIGINALS[found] = vector
    return found


def original(atom: e.PrimExpr) -> e.PrimExpr:
    """The vector that a stand-in is for, or the atom itself."""
    return _ORIGINALS.get(atom, atom) if type(atom) is e.Var else atom


def trim() -> None:
    """Drops the table of stand-ins when it has grown large; called between simplifications only."""
    if len(_STANDINS) > _LIMIT:
        _STANDINS.clear()
        _ORIGINALS.clear()


def ramp(base: P.Poly, stride: P.Poly, count: int, dtype: str) -> P.Poly:
    """base + stride*lane."""
    return P.plus(base, P.times(stride, P.of_atom(lane_var(count, dtype))))


def vectorize(expr: e.PrimExpr, count: int) -> e.PrimExpr:
    """The vector of `count` lanes that `expr` denotes with its lane variable running over them."""
    lane = LANES.get((count, expr.dtype))
    done: dict[e.PrimExpr, e.PrimExpr | None] = {}  # None: the same in all lanes
    for n in post_order(expr):
        if isinstance(n, e.PrimExpr):
            done[n] = _one(n, lane, count, done)
    return _wide(expr, count, done)


def _wide(n: Any, count: int, done: dict[Any, Any]) -> e.PrimExpr:
    found = done[n]
    return e.Broadcast(n, count) if found is None else found


def _one(n: Any, lane: e.Var | None, count: int, done: dict[Any, Any]) -> e.PrimExpr | None:
    cls = type(n)
    if cls is e.Var:
        if n in _ORIGINALS:
            return _ORIGINALS[n]
        if any(n is v for v in LANES.values()):
            return e.Ramp(e.const(0, n.dtype), e.const(1, n.dtype), count)
        return None
    below = [a for f in cls._fields for a in _exprs(getattr(n, f))]
    if all(done.get(a) is None for a in below):
        return None
    if cls in (e.Add, e.Sub, e.Mul):
        p = P.of_expr(n)
        own = LANES.get((count, n.dtype))
        slope = {left: c for m, c in p.items() if own is not None and (left := P.remove_factor(m, (own,))) is not None}
        rest = {m: c for m, c in p.items() if own is None or all(a is not own for a in m)}
        if slope and all(done.get(a) is None for m in [*slope, *rest] for a in m):
            return e.Ramp(P.to_expr(rest, n.dtype), P.to_expr(slope, n.dtype), count)
    return map_children(n, lambda a: _wide(a, count, done) if isinstance(a, e.PrimExpr) else a)  # type: ignore[no-any-return]


def _exprs(value: Any) -> list[Any]:
    if isinstance(value, e.PrimExpr):
        return [value]
    return [x for v in value for x in _exprs(v)] if type(value) is tuple else []
