"""Arithmetic of dimensions: ints and symbolic expressions, compared without assuming values.

A dimension is brought to a polynomial over atoms (variables, quotients, remainders, minima, …), in which equality is
identity. Symbolic sizes are taken to lie between 0 and LARGEST; those that somebody checks (`take_positive`) between 1
and LARGEST. Those that the contents of a tensor give at run time are `counted`.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from warpbeam.ir.diagnostics import TypeCheckError
from warpbeam.ir.rewrite import post_order
from warpbeam.tir import expr as E

Poly = dict[tuple[E.PrimExpr, ...], int]


class _Seen:
    """Polynomials and bounds of nodes. Whoever fills one goes on with it when another thread begins new ones."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.polys: weakref.WeakKeyDictionary[E.PrimExpr, Poly] = weakref.WeakKeyDictionary()
        self.intervals: weakref.WeakKeyDictionary[E.PrimExpr, tuple[float, float]] = weakref.WeakKeyDictionary()


_SEEN = _Seen()
_MAX_TERMS = 64
LARGEST = 1_000_000_000


#: equalities taken for granted while a list stands here: (dimension, dimension, what they are)
ASSUMED: ContextVar[list[tuple[Any, Any, str]] | None] = ContextVar("assumed_equalities", default=None)
_COUNTED: weakref.WeakSet[E.Var] = weakref.WeakSet()
_POSITIVE: weakref.WeakSet[E.Var] = weakref.WeakSet()
_TRIED: weakref.WeakSet[E.PrimExpr] = weakref.WeakSet()  # dimensions that `firm` has seen


def counted(size: str | E.Var) -> E.Var:
    """A size that is known only at run time, from the contents of a tensor; it may be 0."""
    var = E.SizeVar(size) if isinstance(size, str) else size
    _COUNTED.add(var)
    return var


def take_positive(sizes: Iterable[E.Var]) -> None:
    """From here on sizes are taken to be at least 1; a program in which they occur checks it before it runs."""
    new = [v for v in sizes if v not in _POSITIVE]
    if new:
        _POSITIVE.update(new)
        _SEEN.forget()  # extremes may be decided now


def firm(*values: Any) -> bool:
    """Sizes are taken to be at least 1 where dimensions have fewer extremes then: one element out of several, all but
    one. They are as few as it takes, and rather those made first; whether there are any new ones.
    """
    found = []
    for v in values:
        if isinstance(v, E.PrimExpr) and v not in _TRIED and _extremes(v):
            _TRIED.add(v)
            found += _needed(v)
    take_positive(found)
    return bool(found)


def _needed(value: E.PrimExpr) -> list[E.Var]:
    """The sizes that have to be at least 1 for a dimension to have as few extremes as it may."""
    from warpbeam.tir.arith import Facts, simplify

    sizes = [n for n in post_order(value) if isinstance(n, E.Var) and n.nonneg]
    needed = sorted((n for n in sizes if n not in _POSITIVE and n not in _COUNTED), key=lambda n: n.uid)

    def left(positive: Sequence[E.Var]) -> int:
        facts = Facts()
        for n in sizes:
            low = int(n in _POSITIVE or n in positive)
            facts.bind(n, low, LARGEST - low)
        return _extremes(simplify(value, facts))

    least = left(needed)
    if least == left(()):
        return []
    for n in needed[::-1]:
        fewer = [v for v in needed if v is not n]
        needed = fewer if left(fewer) == least else needed
    return needed


def _extremes(value: E.PrimExpr) -> int:
    return sum(isinstance(n, E.Min | E.Max) for n in post_order(value))


def is_positive(size: E.Var) -> bool:
    """Whether a size is taken to be at least 1."""
    return size in _POSITIVE


def told_of(sizes: Iterable[E.Var]) -> tuple[tuple[E.Var, ...], tuple[E.Var, ...]]:
    """What is known of sizes besides their type, for `tell` in another process."""
    sizes = list(sizes)
    return tuple(v for v in sizes if v in _COUNTED), tuple(v for v in sizes if v in _POSITIVE)


def tell(told: tuple[tuple[E.Var, ...], tuple[E.Var, ...]]) -> None:
    """Makes known what `told_of` gave."""
    for size in told[0]:
        counted(size)
    take_positive(told[1])


def is_counted(value: Any) -> bool:
    """Whether a dimension depends on sizes known only at run time."""
    return bool(counted_in(value))


def counted_in(*values: Any) -> list[E.Var]:
    """The sizes in dimensions that are known only at run time, in order of first appearance."""
    nodes = [v for v in values if isinstance(v, E.PrimExpr)]
    if not _COUNTED or not nodes:
        return []
    return [n for n in post_order(*nodes) if isinstance(n, E.Var) and n in _COUNTED]


def assume_equal(a: Any, b: Any, what: str) -> bool:
    """Takes dimensions for equal, to be checked at run time, where a tensor's contents decide; False otherwise."""
    if not counted_in(a, b):
        return False
    record = ASSUMED.get()
    if record is not None:
        record.append((a, b, what))
    return True


class Undecided(TypeCheckError):
    """Whether two symbolic dimensions are equal is not known; `pair` holds them.

    axis: counted from the end, where operands broadcast there: one of the two may also be 1. None: they must be equal.
    """

    pair: tuple[Any, Any] = (0, 0)
    axis: int | None = None


def undecided(what: str, a: Any, b: Any, need: str = "") -> Undecided:
    """The error for dimensions that would have to be equal, or for what they need else."""
    error = Undecided(
        f"{what}: cannot tell whether dimensions {text(a)} and {text(b)} are equal"
        if not need
        else f"{what}: dimensions {text(a)} and {text(b)} need {need}, and it cannot be told",
        hint="give the inputs' shapes so that they become known, or the same name to both dimensions",
    )
    error.pair = (a, b)
    return error


def dim(value: Any) -> Any:
    """A dimension in its simplest form: an int where constant, else a canonical int64 expression."""
    if isinstance(value, int):
        return value
    if isinstance(value, E.PrimExpr):
        return _to_expr(_poly(value))
    return int(value)


def dims(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(dim(v) for v in values)


def prod(values: Iterable[Any]) -> Any:
    """Product of dimensions; 1 for none."""
    number, rest = 1, None
    for v in values:
        v = E.simplify_dim(v)
        if isinstance(v, int):
            number *= v
        else:
            rest = v if rest is None else rest * v
    if rest is None or number == 0:
        return number
    return dim(rest * number)


def same(a: Any, b: Any) -> bool | None:
    """Whether two dimensions are equal: True, False, or None where it depends on values not known here."""
    a, b = E.simplify_dim(a), E.simplify_dim(b)
    if a is b:
        return True
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    gap = dim(E.sub(a, b))
    if isinstance(gap, int):
        return gap == 0
    poly = _poly(gap)
    if any(_sign(_sum(poly, {(): shift})) == way for shift, way in ((-1, 1), (1, -1))):
        return False
    return _prove_equal(gap)


def equal(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Whether two shapes certainly are equal."""
    return len(a) == len(b) and all(same(x, y) is True for x, y in zip(a, b, strict=True))


def _prove_equal(gap: Any) -> bool | None:
    try:
        from warpbeam.tir.arith import prove
    except ImportError:
        return None
    zero = E.const(0, gap.dtype)
    return prove(E.EQ(gap, zero), None)


def can_be_one(value: Any) -> bool:
    """Whether nothing rules out that a dimension is 1."""
    value = dim(value)
    if isinstance(value, int):
        return value == 1
    low, high = _range(_poly(value))
    return low <= 1 <= high


def sign(value: Any) -> int | None:
    """1 where a dimension is certainly >= 0, -1 where certainly <= 0, else None."""
    value = dim(value)
    if isinstance(value, int):
        return 1 if value >= 0 else -1
    return _sign(_poly(value))


def content(value: Any) -> tuple[int, Any]:
    """(number, rest) whose product is the dimension: the greatest constant factor, and 1 or what it multiplies."""
    value = dim(value)
    if isinstance(value, int):
        return value, 1
    poly = _poly(value)
    factor = math.gcd(*poly.values())
    return factor, _to_expr({m: c // factor for m, c in poly.items()})


def exact_div(total: Any, part: Any) -> Any:
    """total // part, cancelled where it divides."""
    total, part = E.simplify_dim(total), E.simplify_dim(part)
    if isinstance(total, int) and isinstance(part, int):
        return total // part if part else 0
    return dim(E.floordiv(total, part))


def left_over(have: Sequence[Any], given: Sequence[Any]) -> Any:
    """The dimension that, with the given ones, makes as many elements as `have`: what a -1 in a new shape stands for.

    A symbolic dimension that stays has no part in it, so that nothing depends on its being 0.
    """
    have, rest = list(have), []
    for d in given:
        kept = None if isinstance(d, int) else next((k for k, h in enumerate(have) if h is d), None)
        if kept is None:
            rest.append(d)
        else:
            del have[kept]
    return exact_div(prod(have), prod(rest))


def text(value: Any, depth: int = 6) -> str:
    """A short reading of a dimension for messages."""
    if isinstance(value, E.IntImm | E.FloatImm):
        return str(value.value)
    if isinstance(value, E.Var):
        return value.name
    if not isinstance(value, E.PrimExpr):
        return str(value)
    if depth == 0:
        return "…"
    signs: dict[type, str] = {E.Add: "+", E.Sub: "-", E.Mul: "*", E.FloorDiv: "//", E.FloorMod: "%"}
    if type(value) in signs:
        return f"({text(value.a, depth - 1)} {signs[type(value)]} {text(value.b, depth - 1)})"  # type: ignore[attr-defined]
    if isinstance(value, E.BinaryExpr):
        return f"{type(value).__name__.lower()}({text(value.a, depth - 1)}, {text(value.b, depth - 1)})"
    return f"<{type(value).__name__}>"


def shape_text(shape: Sequence[Any]) -> str:
    return "(" + ", ".join(text(s) for s in shape) + ("," if len(shape) == 1 else "") + ")"


# ---------------------------------------------------------------------------------------------------------- polynomials


def _poly(root: E.PrimExpr) -> Poly:
    seen = _SEEN.polys
    found = seen.get(root)
    if found is not None:
        return found
    for node in post_order(root, enter=lambda n: n not in seen):
        if isinstance(node, E.PrimExpr) and node not in seen:
            seen[node] = _node_poly(node, seen)
    return seen[root]


def _node_poly(node: E.PrimExpr, seen: Mapping[E.PrimExpr, Poly]) -> Poly:
    kind = type(node)
    if kind is E.IntImm:
        return {(): node.value} if node.value else {}  # type: ignore[attr-defined]
    if kind is E.Cast and node.dtype == "int64" and node.value.dtype in ("int32", "int64"):  # type: ignore[attr-defined]
        return seen[node.value]  # type: ignore[attr-defined]
    if not isinstance(node, E.BinaryExpr) or kind not in _RULES:
        return {(node,): 1}
    a, b = seen[node.a], seen[node.b]
    out = _RULES[kind](node, a, b)
    return {(node,): 1} if len(out) > _MAX_TERMS else out


def _sum(a: Poly, b: Poly, sign: int = 1) -> Poly:
    out = dict(a)
    for m, c in b.items():
        out[m] = out.get(m, 0) + sign * c
        if not out[m]:
            del out[m]
    return out


def _order(atom: E.PrimExpr) -> tuple[str, int]:
    return (atom.name, atom.uid) if isinstance(atom, E.Var) else (text(atom, 4), 0)  # type: ignore[attr-defined]


def _monomial(atoms: Iterable[E.PrimExpr]) -> tuple[E.PrimExpr, ...]:
    return tuple(sorted(atoms, key=_order))


def _times(a: Poly, b: Poly) -> Poly:
    if len(a) * len(b) > _MAX_TERMS:
        return {(_to_node(a) * _to_node(b),): 1}
    out: Poly = {}
    for ma, ca in a.items():
        for mb, cb in b.items():
            m = _monomial(ma + mb)
            out[m] = out.get(m, 0) + ca * cb
    return {m: c for m, c in out.items() if c}


def _quotient(node: Any, a: Poly, b: Poly) -> Poly:
    """(c*p + r) // c = p + r // c, for a constant or one-term divisor c."""
    if len(b) != 1:
        if a and a == b:
            return {(): 1}
        return {(E.floordiv(_to_node(a), _to_node(b)),): 1} if b else {}
    ((atoms, coef),) = b.items()
    if coef < 0:
        return {(node,): 1}
    whole: Poly = {}
    rest: Poly = {}
    for m, c in a.items():
        left = _without(m, atoms)
        if left is not None and c % coef == 0:
            whole[left] = c // coef
        else:
            rest[m] = c
    if not rest:
        return whole
    if not atoms and set(rest) == {()}:
        return _sum(whole, {(): rest[()] // coef} if rest[()] // coef else {})
    if not atoms and () in rest and not 0 <= rest[()] < coef:
        shift = rest[()] // coef
        whole = _sum(whole, {(): shift})
        rest = _sum(rest, {(): -shift * coef})
    return _sum(whole, {(E.floordiv(_to_node(rest), _to_node(b)),): 1})


def _without(monomial: tuple[E.PrimExpr, ...], atoms: tuple[E.PrimExpr, ...]) -> tuple[E.PrimExpr, ...] | None:
    left = list(monomial)
    for atom in atoms:
        for i, have in enumerate(left):
            if have is atom:
                del left[i]
                break
        else:
            return None
    return tuple(left)


def _remainder(node: Any, a: Poly, b: Poly) -> Poly:
    """x % c = x - (x // c) * c."""
    if len(b) != 1:
        return {(E.floormod(_to_node(a), _to_node(b)),): 1} if b else {}
    quotient = _quotient(node, a, b)
    if any(isinstance(x, E.FloorDiv | E.FloorMod) for m in quotient for x in m):
        return {(E.floormod(_to_node(a), _to_node(b)),): 1}
    return _sum(a, _times(quotient, b), -1)


def _extreme(node: Any, a: Poly, b: Poly) -> Poly:
    gap = _sum(a, b, -1)
    if not gap:
        return a
    sign = _sign(gap)
    if sign is None:
        return {(type(node)(_to_node(a), _to_node(b)),): 1}
    return a if (sign < 0) == (type(node) is E.Min) else b


def _sign(gap: Poly) -> int | None:
    """-1, 1 where the polynomial is certainly <= 0 or >= 0, else None."""
    low, high = _range(gap)
    return 1 if low >= 0 else -1 if high <= 0 else None


def _range(poly: Poly) -> tuple[float, float]:
    """Bounds of a polynomial, infinite where there are none."""
    low = high = 0.0
    for atoms, coef in poly.items():
        a, b = 1.0, 1.0
        for atom in atoms:
            x, y = _interval(atom)
            if x < 0:
                return -math.inf, math.inf
            a, b = a * x, b * y if b * y == b * y else math.inf
        low += coef * (a if coef > 0 else b)
        high += coef * (b if coef > 0 else a)
    return low, high


def _interval(root: E.PrimExpr) -> tuple[float, float]:
    """Bounds of an atom."""
    seen = _SEEN.intervals
    found = seen.get(root)
    if found is not None:
        return found
    for node in post_order(root, enter=lambda n: n not in seen):
        if isinstance(node, E.PrimExpr) and node not in seen:
            seen[node] = _node_interval(node, seen)
    return seen[root]


def _node_interval(node: Any, seen: Mapping[E.PrimExpr, tuple[float, float]]) -> tuple[float, float]:
    if isinstance(node, E.IntImm):
        return node.value, node.value
    if isinstance(node, E.Var):
        return (int(node in _POSITIVE), LARGEST) if node.nonneg else (-math.inf, math.inf)
    if not isinstance(node, E.BinaryExpr):
        return -math.inf, math.inf
    (al, ah), (bl, bh) = seen[node.a], seen[node.b]
    if isinstance(node, E.Add | E.Sub | E.Mul) and _poly(node) != {(node,): 1}:
        return _range(_poly(node))
    if isinstance(node, E.Add | E.Sub):  # of very many terms
        return (al + bl, ah + bh) if isinstance(node, E.Add) else (al - bh, ah - bl)
    if isinstance(node, E.Mul):
        return (al * bl, ah * bh if min(ah, bh) else 0) if min(al, bl) >= 0 else (-math.inf, math.inf)
    if isinstance(node, E.Min):
        return min(al, bl), min(ah, bh)
    if isinstance(node, E.Max):
        return max(al, bl), max(ah, bh)
    if isinstance(node, E.FloorDiv) and bl > 0 and al >= 0:
        return (0 if bh == math.inf else al // bh), (ah if ah == math.inf else ah // bl)
    if isinstance(node, E.FloorMod) and bl > 0:
        return 0, bh - 1
    return -math.inf, math.inf


_RULES: dict[type, Any] = {
    E.Add: lambda n, a, b: _sum(a, b),
    E.Sub: lambda n, a, b: _sum(a, b, -1),
    E.Mul: lambda n, a, b: _times(a, b),
    E.FloorDiv: _quotient,
    E.FloorMod: _remainder,
    E.Min: _extreme,
    E.Max: _extreme,
}


def _to_expr(poly: Poly) -> Any:
    if not poly:
        return 0
    if set(poly) == {()}:
        return poly[()]
    return _to_node(poly)


def _to_node(poly: Poly) -> E.PrimExpr:
    """The canonical expression of a polynomial: positive terms first, each in a fixed order."""
    terms = sorted(poly.items(), key=lambda item: (item[1] < 0, -len(item[0]), [_order(a) for a in item[0]]))
    out: E.PrimExpr = E.const(0)
    for atoms, coef in terms:
        positive = coef > 0 or out is E.const(0)
        term: E.PrimExpr = E.const(1)
        for atom in atoms:
            term = E.mul(term, atom)
        term = E.mul(term, coef if positive else -coef)
        out = E.add(out, term) if positive else E.sub(out, term)
    return out
