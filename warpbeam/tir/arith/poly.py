"""Integer polynomials over atoms: the normal form behind `simplify`, `prove` and iterator maps.

A polynomial maps monomials to integer coefficients; a monomial is a tuple of atoms (expressions that are no sum or
product) and `()` is the constant. It is a ring value: exact for every integer dtype, wrapping ones included, because
+, - and * commute with wrapping. Polynomials are treated as immutable.
"""

from __future__ import annotations

import hashlib
from math import gcd
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Binder, Node
from warpbeam.ir.rewrite import post_order
from warpbeam.tir.expr import Add, IntImm, Mul, PrimExpr, Sub, add, const, mul, sub

Mono = tuple[PrimExpr, ...]
Poly = dict[Mono, int]

MAX_TERMS = 64
_CACHE_LIMIT = 200_000
_KEYS: dict[Node, str] = {}
_POLYS: dict[PrimExpr, Poly] = {}
_EXPRS: dict[tuple[Any, ...], PrimExpr] = {}


def constant(value: int) -> Poly:
    return {(): value} if value else {}


def of_atom(atom: PrimExpr) -> Poly:
    return {(atom,): 1}


def const_of(p: Poly) -> int | None:
    """The value of a constant polynomial, else None."""
    if not p:
        return 0
    return p[()] if len(p) == 1 and () in p else None


def plus(p: Poly, q: Poly, scale: int = 1) -> Poly:
    """p + scale*q."""
    out = dict(p)
    for mono, coef in q.items():
        total = out.get(mono, 0) + coef * scale
        if total:
            out[mono] = total
        else:
            out.pop(mono, None)
    return out


def scaled(p: Poly, factor: int) -> Poly:
    return {m: c * factor for m, c in p.items()} if factor else {}


def times(p: Poly, q: Poly) -> Poly:
    """p * q, expanded."""
    out: Poly = {}
    for m1, c1 in p.items():
        for m2, c2 in q.items():
            mono = m1 + m2
            if len(mono) > 1:
                mono = tuple(sorted(mono, key=id))  # any fixed order inside one process; output is sorted by `key`
            total = out.get(mono, 0) + c1 * c2
            if total:
                out[mono] = total
            else:
                out.pop(mono, None)
    return out


def split_const(p: Poly) -> tuple[Poly, int]:
    """(p without its constant, the constant)."""
    if () not in p:
        return p, 0
    rest = dict(p)
    return rest, rest.pop(())


def content(p: Poly) -> int:
    """gcd of all coefficients but the constant's (0 for a constant)."""
    g = 0
    for mono, coef in p.items():
        if mono:
            g = gcd(g, coef)
    return g


def single_atom(p: Poly) -> tuple[PrimExpr, int] | None:
    """(atom, coefficient) if p is one term of degree 1, else None."""
    if len(p) == 1:
        ((mono, coef),) = p.items()
        if len(mono) == 1:
            return mono[0], coef
    return None


def atoms(p: Poly) -> list[PrimExpr]:
    """Every atom once, in order of appearance."""
    return list(dict.fromkeys(a for mono in p for a in mono))


# ---------------------------------------------------------------------------------------------------------------- order


def _field_text(value: Any) -> str:
    if isinstance(value, Node):
        return _KEYS[value]
    if type(value) is tuple:
        return "(" + ",".join(map(_field_text, value)) + ")"
    return repr(value)


def key(node: Node) -> str:
    """Text that orders expressions by structure and names (never by identity); long ones end in a digest."""
    found = _KEYS.get(node)
    if found is not None:
        return found
    if len(_KEYS) > _CACHE_LIMIT:
        _KEYS.clear()
    for n in post_order(node, enter=lambda n: n not in _KEYS):
        if n in _KEYS:
            continue
        if isinstance(n, Binder):
            text = str(getattr(n, "name", type(n).__name__))
        elif type(n) is IntImm:
            text = str(n.value)
        else:
            parts = []
            for f in type(n)._fields:
                parts.append(_field_text(getattr(n, f)))
            text = f"~{type(n).__name__}(" + ",".join(parts) + ")"
        if len(text) > 96:
            text = text[:64] + hashlib.blake2b(text.encode(), digest_size=12).hexdigest()
        _KEYS[n] = text
    return _KEYS[node]


def sorted_terms(p: Poly) -> list[tuple[Mono, int]]:
    """Non-constant terms: higher degree first, then larger coefficient, then by structure."""
    items = [(tuple(sorted(m, key=key)) if len(m) > 1 else m, c) for m, c in p.items() if m]
    if len(items) > 1:
        items.sort(key=lambda t: (-len(t[0]), -abs(t[1]), [key(a) for a in t[0]]))
    return items


# ----------------------------------------------------------------------------------------------------------- conversion


def _wrapped(coef: int, dtype: str) -> int:
    width = dt.bits(dtype)
    half = 1 << (width - 1)
    return (coef + half) % (2 * half) - half


def to_expr(p: Poly, dtype: str) -> PrimExpr:
    """The canonical expression of a polynomial: positive terms, then negative ones, then the constant."""
    if dt.bits(dtype) < 64:
        p = {m: w for m, c in p.items() if (w := _wrapped(c, dtype))}
    memo_key = (dtype, *p.items())
    found = _EXPRS.get(memo_key)
    if found is not None:
        return found
    terms = sorted_terms(p)
    offset = p.get((), 0)
    out: PrimExpr | None = None
    for mono, coef in [t for t in terms if t[1] > 0] + [t for t in terms if t[1] < 0]:
        term = mono[0]
        for factor in mono[1:]:
            term = Mul(term, factor)
        if abs(coef) != 1:
            term = mul(term, const(abs(coef), dtype))
        if out is None:
            out = term if coef > 0 else Sub(const(offset, dtype), term)
            offset = offset if coef > 0 else 0
        else:
            out = Add(out, term) if coef > 0 else Sub(out, term)
    if out is None:
        out = const(offset, dtype)
    elif offset > 0:
        out = add(out, const(offset, dtype))
    elif offset < 0:
        out = sub(out, const(-offset, dtype))
    if len(_EXPRS) > _CACHE_LIMIT:
        _EXPRS.clear()
        _POLYS.clear()
    _EXPRS[memo_key] = out
    _POLYS[out] = p
    return out


def of_expr(expr: PrimExpr) -> Poly:
    """The polynomial of an integer scalar expression; everything that is no +, -, * or literal is an atom."""
    found = _POLYS.get(expr)
    if found is not None:
        return found
    if len(_POLYS) > _CACHE_LIMIT:
        _POLYS.clear()
    for n in post_order(expr, enter=lambda n: type(n) in _RING and n not in _POLYS):
        if n not in _POLYS:
            _POLYS[n] = _of_node(n)  # type: ignore[index]
    return _POLYS[expr]


_RING = (Add, Sub, Mul)


def _of_node(n: Any) -> Poly:
    cls = type(n)
    if cls is IntImm:
        return constant(n.value)
    if cls is Add:
        return plus(_POLYS[n.a], _POLYS[n.b])
    if cls is Sub:
        return plus(_POLYS[n.a], _POLYS[n.b], -1)
    if cls is Mul:
        return product(_POLYS[n.a], _POLYS[n.b], n)
    return of_atom(n)


def explodes(p: Poly, q: Poly) -> bool:
    """Whether p * q stays a product, an atom whose operands are its factors: of two long sums. One term of either
    makes as many as the other has.
    """
    return min(len(p), len(q)) > 1 and len(p) * len(q) > MAX_TERMS


def product(p: Poly, q: Poly, node: PrimExpr) -> Poly:
    """p * q, or the product node as an atom where expanding would explode."""
    return of_atom(node) if explodes(p, q) else times(p, q)


def divide(p: Poly, d: Poly) -> tuple[Poly, Poly]:
    """(q, r) with p = q*d + r: polynomial division by the leading term of d (its coefficients need not be units)."""
    (lead, coef) = sorted_terms(d)[0] if any(d) else ((), const_of(d) or 1)
    quotient: Poly = {}
    rest: Poly = dict(p)
    for _ in range(MAX_TERMS):
        for mono, c in rest.items():
            left = remove_factor(mono, lead)
            if left is not None and abs(c) >= abs(coef) and c % coef == 0:
                step = {left: c // coef}
                quotient = plus(quotient, step)
                rest = plus(rest, times(step, d), -1)
                break
        else:
            break
    return quotient, rest


def remove_factor(mono: Mono, factor: Mono) -> Mono | None:
    """mono / factor, or None where it does not divide."""
    if len(factor) > len(mono):
        return None
    left = list(mono)
    for f in factor:
        for k, a in enumerate(left):
            if a is f:
                del left[k]
                break
        else:
            return None
    return tuple(left)
