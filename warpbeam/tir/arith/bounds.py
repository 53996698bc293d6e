"""Constant bounds and residues of integer expressions.

int64 arithmetic is taken not to overflow (indices and sizes); narrower arithmetic that might wrap has the range of its
dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from math import gcd
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.tir import expr as e
from warpbeam.tir.arith import poly as P
from warpbeam.tir.arith.facts import Bounds, Facts
from warpbeam.tir.arith.poly import Mono, Poly

UNKNOWN: Bounds = (None, None)
LANES: dict[tuple[int, str], e.Var] = {}
_LANE_BOUNDS: dict[e.Var, Bounds] = {}


def lane_var(count: int, dtype: str) -> e.Var:
    """The variable that stands for the lane number of a vector while it is simplified; ranges over [0, count)."""
    found = LANES.get((count, dtype))
    if found is None:
        found = LANES[count, dtype] = e.Var("lane", dtype)
        _LANE_BOUNDS[found] = (0, count - 1)
    return found


def dtype_bounds(dtype: str) -> Bounds:
    """Range of a dtype; int64 counts as unbounded."""
    base = dt.scalar(dtype)
    if base == "int64" or not (dt.is_int(base) or dt.is_bool(base)):
        return UNKNOWN
    return dt.int_range(base)


def meet(a: Bounds, b: Bounds) -> Bounds:
    """Intersection of two ranges."""
    lo = a[0] if b[0] is None else b[0] if a[0] is None else max(a[0], b[0])
    hi = a[1] if b[1] is None else b[1] if a[1] is None else min(a[1], b[1])
    return lo, hi


def join(a: Bounds, b: Bounds) -> Bounds:
    """Smallest range that holds both."""
    lo = None if a[0] is None or b[0] is None else min(a[0], b[0])
    hi = None if a[1] is None or b[1] is None else max(a[1], b[1])
    return lo, hi


def _add(a: Bounds, b: Bounds) -> Bounds:
    return (None if a[0] is None or b[0] is None else a[0] + b[0]), (
        None if a[1] is None or b[1] is None else a[1] + b[1]
    )


def _scale(a: Bounds, k: int) -> Bounds:
    lo, hi = (None if a[0] is None else a[0] * k), (None if a[1] is None else a[1] * k)
    return (lo, hi) if k >= 0 else (hi, lo)


def _mul(a: Bounds, b: Bounds) -> Bounds:
    if a[0] is None or a[1] is None or b[0] is None or b[1] is None:
        if a[0] is not None and a[0] >= 0 and b[0] is not None and b[0] >= 0:
            return a[0] * b[0], None if a[1] is None or b[1] is None else a[1] * b[1]
        return UNKNOWN
    ends = [x * y for x in a for y in b]  # type: ignore[operator]
    return min(ends), max(ends)


# ----------------------------------------------------------------------------------------------------------- bounds


def poly_bounds(p: Poly, facts: Facts) -> Bounds:
    """Constant bounds of a polynomial."""
    low: int | None = 0
    high: int | None = 0
    memo = facts.bounds_memo
    for mono, coef in p.items():
        if not mono:
            low, high = None if low is None else low + coef, None if high is None else high + coef
            continue
        one = memo.get(mono[0]) or atom_bounds(mono[0], facts)
        if len(mono) > 1:
            for factor in mono[1:]:
                one = _mul(one, atom_bounds(factor, facts))
            if facts.limits:
                one = meet(one, facts.limits.get(frozenset({(mono, 1)}), UNKNOWN))
        least, most = one if coef >= 0 else (one[1], one[0])
        low = None if low is None or least is None else low + least * coef
        high = None if high is None or most is None else high + most * coef
    if facts.limits and len(p) > 1 and (facts.of_sums or len(p) - (() in p) == 1):
        return meet((low, high), _limit_of_sum(p, facts))
    return low, high


def _limit_of_sum(p: Poly, facts: Facts) -> Bounds:
    terms, offset = P.split_const(p)
    g = P.content(terms)
    if g == 0:
        return UNKNOWN
    form = frozenset((m, c // g) for m, c in terms.items())
    found = facts.limits.get(form, UNKNOWN)
    negative = facts.limits.get(frozenset((m, -c) for m, c in form))
    if negative is not None:
        found = meet(found, _scale(negative, -1))
    return _add(_scale(found, g), (offset, offset))


def exact(p: Poly, dtype: str, facts: Facts) -> bool:
    """Whether the value of an expression of `dtype` equals its polynomial over the integers (nothing wraps)."""
    base = dt.scalar(dtype)
    if base == "int64":
        return True
    if not dt.is_int(base):
        return False
    lo, hi = poly_bounds(p, facts)
    low, high = dt.int_range(base)
    return lo is not None and hi is not None and low <= lo and hi <= high


def _operands(n: Any) -> list[Any]:
    cls = type(n)
    if cls in (e.Add, e.Sub, e.Mul):
        found = P.atoms(P.of_expr(n))
        return [n.a, n.b] if found == [n] else found  # a product of sums that is not expanded
    if cls is e.Call:
        return [a for a in n.args if isinstance(a, e.PrimExpr)]
    if cls is e.Let:
        return [n.body]
    if cls is e.Ramp:
        return [n.base, n.stride]
    if cls in (e.Cast, e.Broadcast):
        return [n.value]
    if cls is e.Select:
        return [n.a, n.b]
    return [n.a, n.b] if cls in _TABLE and isinstance(n, e.BinaryExpr) else []


def atom_bounds(atom: Any, facts: Facts) -> Bounds:
    """Constant bounds of any integer or bool expression that is already simplified."""
    memo = facts.bounds_memo
    found = memo.get(atom)
    if found is not None:
        return found
    stack: list[tuple[Any, bool]] = [(atom, False)]
    while stack:
        n, ready = stack.pop()
        if n in memo:
            continue
        if not ready:
            stack.append((n, True))
            stack.extend((o, False) for o in _operands(n) if o not in memo)
            continue
        fn = _TABLE.get(type(n))
        b = UNKNOWN if fn is None else fn(n, memo, facts)
        if facts.limits and type(n) not in (e.Add, e.Sub, e.Mul):
            b = meet(b, facts.limits.get(frozenset({((n,), 1)}), UNKNOWN))
        memo[n] = _in_dtype(b, n.dtype)
    return memo[atom]


def _in_dtype(b: Bounds, dtype: str) -> Bounds:
    low, high = dtype_bounds(dtype)
    if low is None or high is None:
        return b
    if b[0] is None or b[1] is None or b[0] < low or b[1] > high:
        return low, high
    return b


Memo = dict[Any, Bounds]


def _var(n: Any, memo: Memo, facts: Facts) -> Bounds:
    found = _LANE_BOUNDS.get(n)
    if found is not None:
        return found
    stated = facts.limits.get(frozenset({((n,), 1)}), UNKNOWN)
    return meet(meet(dtype_bounds(n.dtype), (0, None) if n.nonneg else UNKNOWN), stated)


def _floordiv(n: Any, memo: Memo, facts: Facts) -> Bounds:
    (alo, ahi), (blo, bhi) = memo[n.a], memo[n.b]
    if blo is None or blo < 0:
        if blo is None or bhi is None or alo is None or ahi is None:
            return UNKNOWN
        size = max(abs(alo), abs(ahi))
        return -size, size
    if blo == 0:  # x // 0 is 0
        blo = 1
        extra = (0, 0)
    else:
        extra = None
    los = [] if alo is None else [alo // blo] + ([0 if alo >= 0 else -1] if bhi is None else [alo // max(bhi, 1)])
    his = [] if ahi is None else [ahi // blo] + ([0 if ahi >= 0 else -1] if bhi is None else [ahi // max(bhi, 1)])
    b: Bounds = (min(los) if los else None), (max(his) if his else None)
    return b if extra is None else join(b, extra)


def _floormod(n: Any, memo: Memo, facts: Facts) -> Bounds:
    (alo, ahi), (blo, bhi) = memo[n.a], memo[n.b]
    if blo is None or blo < 0:
        if blo is None or bhi is None:
            return UNKNOWN
        size = max(abs(blo), abs(bhi))
        return -size, size
    top = None if bhi is None else max(bhi - 1, 0)
    if alo is not None and alo >= 0 and ahi is not None:
        top = ahi if top is None else min(top, ahi)
    return 0, top


def _truncdiv(n: Any, memo: Memo, facts: Facts) -> Bounds:
    alo, ahi = memo[n.a]
    if alo is None or ahi is None:
        return (0, ahi) if alo is not None and alo >= 0 and (memo[n.b][0] or -1) >= 0 else UNKNOWN
    size = max(abs(alo), abs(ahi))
    return (0 if alo >= 0 and (memo[n.b][0] or -1) >= 0 else -size), size


def _truncmod(n: Any, memo: Memo, facts: Facts) -> Bounds:
    (alo, ahi), (blo, bhi) = memo[n.a], memo[n.b]
    size = None if blo is None or bhi is None else max(abs(blo), abs(bhi), 1) - 1
    low = 0 if alo is not None and alo >= 0 else None if size is None else -size
    high = 0 if ahi is not None and ahi <= 0 else size
    return low, high


def _min(n: Any, memo: Memo, facts: Facts) -> Bounds:
    (alo, ahi), (blo, bhi) = memo[n.a], memo[n.b]
    return (None if alo is None or blo is None else min(alo, blo)), (
        ahi if bhi is None else bhi if ahi is None else min(ahi, bhi)
    )


def _max(n: Any, memo: Memo, facts: Facts) -> Bounds:
    (alo, ahi), (blo, bhi) = memo[n.a], memo[n.b]
    return (alo if blo is None else blo if alo is None else max(alo, blo)), (
        None if ahi is None or bhi is None else max(ahi, bhi)
    )


def _cast(n: Any, memo: Memo, facts: Facts) -> Bounds:
    if n.dtype.startswith("bool"):
        return 0, 1
    if not (dt.is_int(n.value.dtype) or dt.is_bool(n.value.dtype)):
        return dtype_bounds(n.dtype)
    b, (low, high) = memo[n.value], dt.int_range(dt.scalar(n.dtype)) if dt.is_int(n.dtype) else UNKNOWN
    if n.value.dtype.startswith("int64") and n.dtype.startswith("int64"):
        return b
    if low is None or high is None or b[0] is None or b[1] is None or b[0] < low or b[1] > high:
        return dtype_bounds(n.dtype)
    return b


def _call(n: Any, memo: Memo, facts: Facts) -> Bounds:
    if not dt.is_int(n.dtype) and not dt.is_bool(n.dtype):
        return UNKNOWN
    args = n.args
    if n.op == "if_then_else":
        return join(memo[args[1]], memo[args[2]])
    if n.op == "likely":
        return memo[args[0]]
    if n.op == "bitwise_and":
        for side in args:
            lo, hi = memo[side]
            if lo is not None and lo >= 0:
                return 0, hi
    if n.op == "shift_right":
        lo, hi = memo[args[0]]
        by = e.const_int(args[1])
        if by is not None and 0 <= by < dt.bits(n.dtype):
            return (None if lo is None else lo >> by), (None if hi is None else hi >> by)
    if n.op == "popcount":
        return 0, dt.bits(n.dtype)
    return dtype_bounds(n.dtype)


def _ring(n: Any, memo: Memo, facts: Facts) -> Bounds:
    p = P.of_expr(n)
    return _mul(memo[n.a], memo[n.b]) if P.atoms(p) == [n] else poly_bounds(p, facts)


_TABLE: dict[type, Callable[[Any, Memo, Facts], Bounds]] = {
    e.IntImm: lambda n, memo, facts: (n.value, n.value),
    e.Var: _var,
    e.Add: _ring,
    e.Sub: _ring,
    e.Mul: _ring,
    e.FloorDiv: _floordiv,
    e.FloorMod: _floormod,
    e.Div: _truncdiv,
    e.Mod: _truncmod,
    e.Min: _min,
    e.Max: _max,
    e.Select: lambda n, memo, facts: join(memo[n.a], memo[n.b]),
    e.Cast: _cast,
    e.Call: _call,
    e.Let: lambda n, memo, facts: memo[n.body],
    e.Broadcast: lambda n, memo, facts: memo[n.value],
    e.Ramp: lambda n, memo, facts: join(memo[n.base], _add(memo[n.base], _scale(memo[n.stride], n.count - 1))),
}


# -------------------------------------------------------------------------------------------------------- residues

Residue = tuple[int, int]  # (coef, base): value = base (mod coef); coef 0: value == base


def _norm(coef: int, base: int) -> Residue:
    coef = abs(coef)
    return (coef, base % coef) if coef else (0, base)


def residue_times(a: Residue, b: Residue) -> Residue:
    return _norm(gcd(a[0] * b[0], a[0] * b[1], b[0] * a[1]), a[1] * b[1])


def poly_residue(p: Poly, facts: Facts) -> Residue:
    """(coef, base) with p == base (mod coef)."""
    coef, base = 0, 0
    if facts.congruences:
        terms, offset = P.split_const(p)
        known = facts.congruences.get(frozenset(terms.items()))
        if known is not None:
            return _norm(known[0], known[1] + offset)
    for mono, k in p.items():
        one = mono_residue(mono, facts)
        coef, base = gcd(coef, one[0] * k), base + one[1] * k
    return _norm(coef, base)


def mono_residue(mono: Mono, facts: Facts) -> Residue:
    out: Residue = (0, 1)
    for atom in mono:
        out = residue_times(out, atom_residue(atom, facts))
    return out


def atom_residue(atom: Any, facts: Facts, depth: int = 4) -> Residue:
    """Residue of one atom; looks a few divisions and choices deep."""
    known = facts.congruences.get(frozenset({((atom,), 1)})) if facts.congruences else None
    if known is not None:
        return known
    lo, hi = atom_bounds(atom, facts)
    if lo is not None and lo == hi:
        return 0, lo
    cls = type(atom)
    if depth == 0 or dt.scalar(atom.dtype) != "int64":
        return 1, 0

    def below(x: Any) -> Residue:
        coef, base = 0, 0
        for mono, k in P.of_expr(x).items():
            one: Residue = (0, 1)
            for a in mono:
                one = residue_times(one, atom_residue(a, facts, depth - 1))
            coef, base = gcd(coef, one[0] * k), base + one[1] * k
        return _norm(coef, base)

    if cls in (e.FloorDiv, e.FloorMod):
        c = e.const_int(atom.b)
        if c is None or c <= 0:
            return 1, 0
        coef, base = below(atom.a)
        if cls is e.FloorMod:
            return _norm(gcd(coef, c), base)
        return _norm(coef // c, base // c) if coef % c == 0 else (1, 0)
    if cls in (e.Min, e.Max, e.Select):
        a, b = below(atom.a), below(atom.b)
        return _norm(gcd(a[0], b[0], a[1] - b[1]), a[1])
    return 1, 0
