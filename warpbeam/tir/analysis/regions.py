"""Which part of a buffer some loops touch: symbolic intervals of index expressions.

A `Range` holds inclusive limits; several upper (lower) limits mean that the smallest (largest) counts. Keeping them
apart lets extents come out as `min(64, n - 64*i)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import map_children
from warpbeam.ir.rewrite import post_order, substitute
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import accesses, free_vars
from warpbeam.tir.analysis.tree import kids, own_parts
from warpbeam.tir.arith import Facts, bounds, prove, simplify
from warpbeam.tir.expr import Buffer, IntImm, PrimExpr, Var
from warpbeam.tir.stmt import For, LetStmt, Stmt

_LIMIT = 4


@dataclass(frozen=True, slots=True)
class Range:
    """max(lows) .. min(highs), both inclusive."""

    lows: tuple[PrimExpr, ...]
    highs: tuple[PrimExpr, ...]

    @property
    def low(self) -> PrimExpr:
        low = self.lows[0]
        for v in self.lows[1:]:
            low = e.maximum(low, v)
        return low

    @property
    def high(self) -> PrimExpr:
        high = self.highs[0]
        for v in self.highs[1:]:
            high = e.minimum(high, v)
        return high

    def extent(self, facts: Facts) -> PrimExpr:
        """Number of elements, simplified; `min` of several where several upper limits remain."""
        sizes = {simplify(h - self.low + 1, facts): None for h in self.highs}
        parts = sorted(sizes, key=lambda s: not isinstance(s, IntImm))
        out = parts[0]
        for s in parts[1:]:
            if prove(out <= s, facts) is not True:
                out = s if prove(s <= out, facts) is True else e.minimum(out, s)
        return out  # type: ignore[no-any-return]


def point(value: PrimExpr) -> Range:
    return Range((value,), (value,))


Env = Mapping[Var, "Range | None"]  # None: the variable moves in a way that is not known


def loop_range(loop: For, env: Env) -> Range | None:
    """The values of a loop variable; `min(c, x)` counts as c, since domains clip the rest."""
    sizes, extent = [loop.extent], loop.extent
    while type(extent) is e.Min:
        if isinstance(extent.a, IntImm) or isinstance(extent.b, IntImm):
            sizes = [extent.a if isinstance(extent.a, IntImm) else extent.b]
            break
        sizes[-1:] = [extent.b, extent.a]
        extent = extent.a
    low, ends = interval(loop.min, env), [interval(e.add(loop.min, x - 1), env) for x in sizes]
    highs = [v for r in reversed(ends) if r is not None for v in r.highs]
    return None if low is None or not highs else Range(low.lows, tuple(dict.fromkeys(highs))[:_LIMIT])


def interval(expr: PrimExpr, env: Env) -> Range | None:
    """The range of an expression over the variables in `env`, the others fixed; None where it is not known."""
    if isinstance(expr, Var):
        return env[expr] if expr in env else point(expr)
    if dt.lanes(expr.dtype) > 1:
        return _all_lanes(expr, env)
    names = free_vars(expr)
    if names.isdisjoint(env):
        return point(expr) if not _has_load(expr) else None
    done: dict[PrimExpr, Range | None] = {}
    for n in post_order(expr, enter=lambda n: type(n) is not e.BufferLoad):
        if not isinstance(n, PrimExpr):
            continue
        if isinstance(n, Var):
            done[n] = env[n] if n in env else point(n)
        elif isinstance(n, IntImm) or (type(n) is not e.BufferLoad and free_vars(n).isdisjoint(env)):
            done[n] = None if _has_load(n) else point(n)
        else:
            rule = _RULES.get(type(n))
            done[n] = None if rule is None else rule(n, done)
    return done[expr]


def _all_lanes(expr: PrimExpr, env: Env) -> Range | None:
    """The range of all lanes of a vector: a ramp is its base plus a multiple of a lane's number."""
    moving = dict(env)
    done: dict[Any, Any] = {}
    for n in post_order(expr):
        if isinstance(n, e.Ramp):
            lane = Var("lane", dt.scalar(n.dtype))
            moving[lane] = Range((e.const(0, lane.dtype),), (e.const(n.count - 1, lane.dtype),))
            done[n] = done[n.base] + done[n.stride] * lane
        else:
            done[n] = done[n.value] if isinstance(n, e.Broadcast) else map_children(n, lambda c: done[c])
    scalar = done[expr]
    return interval(scalar, moving) if dt.lanes(scalar.dtype) == 1 else None


def _has_load(expr: PrimExpr) -> bool:
    return not isinstance(expr, IntImm | Var) and any(type(n) is e.BufferLoad for n in post_order(expr))


Done = Mapping[PrimExpr, Range | None]


def _combine(op: Callable[[Any, Any], PrimExpr], xs: tuple[PrimExpr, ...], ys: tuple[PrimExpr, ...]) -> Any:
    found = dict.fromkeys(op(x, y) for x in xs for y in ys)
    return tuple(found)[:_LIMIT]


def _add(n: Any, done: Done) -> Range | None:
    a, b = done[n.a], done[n.b]
    if a is None or b is None:
        return None
    return Range(_combine(e.add, a.lows, b.lows), _combine(e.add, a.highs, b.highs))


def _sub(n: Any, done: Done) -> Range | None:
    a, b = done[n.a], done[n.b]
    if a is None or b is None:
        return None
    return Range(_combine(e.sub, a.lows, b.highs), _combine(e.sub, a.highs, b.lows))


def _mul(n: Any, done: Done) -> Range | None:
    for x, y in ((n.a, n.b), (n.b, n.a)):
        r, k = done[x], e.const_int(y)
        if r is not None and k is not None:
            lows, highs = tuple(e.mul(v, k) for v in r.lows), tuple(e.mul(v, k) for v in r.highs)
            return Range(lows, highs) if k >= 0 else Range(highs, lows)
        if r is not None and isinstance(y, Var) and y.nonneg:
            return Range(tuple(e.mul(v, y) for v in r.lows), tuple(e.mul(v, y) for v in r.highs))
    return None


def _floordiv(n: Any, done: Done) -> Range | None:
    r, k = done[n.a], e.const_int(n.b)
    if r is None or k is None or k <= 0:
        return None
    return Range(tuple(e.floordiv(v, k) for v in r.lows), tuple(e.floordiv(v, k) for v in r.highs))


def _floormod(n: Any, done: Done) -> Range | None:
    r, k = done[n.a], e.const_int(n.b)
    if k is None or k <= 0:
        return None
    if r is not None:
        low, high = simplify(e.floordiv(r.low, k)), simplify(e.floordiv(r.high, k))
        if low is high:
            return Range((e.floormod(r.low, k),), (e.floormod(r.high, k),))
    return Range((e.const(0, n.dtype),), (e.const(k - 1, n.dtype),))


def _min(n: Any, done: Done) -> Range | None:
    a, b = done[n.a], done[n.b]
    if a is None or b is None:
        return None
    if a.lows == a.highs and b.lows == b.highs:  # one value: its ends cancel out
        return point(e.minimum(a.low, b.low))
    return Range((e.minimum(a.low, b.low),), (*a.highs, *b.highs)[:_LIMIT])


def _max(n: Any, done: Done) -> Range | None:
    a, b = done[n.a], done[n.b]
    if a is None or b is None:
        return None
    return Range((*a.lows, *b.lows)[:_LIMIT], (e.maximum(a.high, b.high),))


def _select(n: Any, done: Done) -> Range | None:
    a, b = done[n.a], done[n.b]
    if a is None or b is None:
        return None
    return Range((e.minimum(a.low, b.low),), (e.maximum(a.high, b.high),))


def _cast(n: Any, done: Done) -> Range | None:
    r = done[n.value]
    if r is None or not (dt.is_int(n.value.dtype) and dt.bits(n.dtype) >= dt.bits(n.value.dtype)):
        return None
    return Range(tuple(e.cast(n.dtype, v) for v in r.lows), tuple(e.cast(n.dtype, v) for v in r.highs))


_RULES: dict[type, Callable[[Any, Done], Range | None]] = {
    e.Add: _add,
    e.Sub: _sub,
    e.Mul: _mul,
    e.FloorDiv: _floordiv,
    e.FloorMod: _floormod,
    e.Min: _min,
    e.Max: _max,
    e.Select: _select,
    e.Cast: _cast,
}


def clip(r: Range | None, size: Any, facts: Facts) -> Range:
    """The range inside [0, size); a limit is left out where it is proven not to matter."""
    size = e.as_expr(size)
    top = simplify(size - 1, facts)
    zero = e.const(0, top.dtype)
    if r is None:
        return Range((zero,), (top,))
    lows = _tidy(r.lows, facts)
    highs = _tidy(r.highs, facts)
    if not any(prove(v >= zero, facts) is True for v in lows):
        lows = (*lows, zero)
    if not any(prove(v <= top, facts) is True for v in highs):
        highs = (*highs, top)
    return Range(lows, highs)


def _tidy(values: Iterable[PrimExpr], facts: Facts) -> tuple[PrimExpr, ...]:
    return tuple(dict.fromkeys(simplify(v, facts) for v in values))


def union(a: Range, b: Range, facts: Facts) -> Range | None:
    """The smallest range that holds both, if the order of their limits can be decided."""
    if a == b:
        return a
    low = _first_smaller(a.low, b.low, facts)
    high = _first_smaller(a.high, b.high, facts)
    if low is None or high is None:
        return None
    return Range(a.lows if low else b.lows, b.highs if high else a.highs)


def touched(buffer: Buffer, body: Stmt, facts: Facts, loads: bool = True, stores: bool = True) -> list[Range] | None:
    """What statements load or store of a buffer, per dimension; None where that is nothing, or cannot be told."""
    found: list[Range] | None = None
    stack: list[tuple[Any, dict[Var, Range | None]]] = [(body, {})]
    while stack:
        s, env = stack.pop()
        below = kids(s)
        inside = env
        if isinstance(s, For):
            inside = {**env, s.var: loop_range(s, env)}
        elif isinstance(s, LetStmt):
            inside = {**env, s.var: interval(s.value, env)}
        stack.extend((c, inside) for c in below)
        seen = [accesses(x) for x in (own_parts(s) if below else [s])]
        used: list[Any] = [
            x for read, written in seen for x in (*(read if loads else ()), *(written if stores else ()))
        ]
        for x in used:
            if x.buffer is not buffer:
                continue
            here = [interval(i, env) for i in x.indices]
            both = here if found is None else [a and union(a, b, facts) for a, b in zip(here, found, strict=True)]
            if any(r is None for r in both):
                return None
            found = [r for r in both if r is not None]
    return found


def _first_smaller(a: PrimExpr, b: PrimExpr, facts: Facts) -> bool | None:
    """Whether a <= b (True) or b <= a (False) is proven."""
    if a is b or prove(a <= b, facts) is True:
        return True
    return False if prove(b <= a, facts) is True else None


def upper_bound(expr: PrimExpr, facts: Facts) -> int | None:
    """A constant that the expression never exceeds, for a reason better than that its parts have few bits."""
    value = e.const_int(expr)
    if value is not None:
        return value
    casts = [n for n in post_order(expr) if isinstance(n, e.Cast) and type(n.value) is Var]
    narrow: dict[Any, Any] = {
        n: Var("wide", n.dtype) for n in casts if dt.is_int(n.value.dtype) and n.value not in facts.order
    }
    return bounds(substitute(expr, narrow), facts)[1]
