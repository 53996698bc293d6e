"""Rewrite rules as data: logic, choices, extrema, casts, exact float identities; a test checks each numerically.

Pattern variables: a, b, c of the group's dtype; p, q bool. Sums, quotients and remainders are not here: they have a
normal form of their own (`poly`, `divmod`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import Pat, PVar, Rule, RuleSet, rule
from warpbeam.tir import expr as e

a, b, c = PVar("a"), PVar("b"), PVar("c")
p, q = PVar("p"), PVar("q")


def _bool_literal(value: int) -> PVar:
    return PVar(f"lit{value}", lambda x: type(x) is e.IntImm and x.dtype == "bool" and x.value == value)


def _float_literal(name: str, accept: Any) -> PVar:
    return PVar(name, lambda x: type(x) is e.FloatImm and accept(x.value))


TRUE, FALSE = _bool_literal(1), _bool_literal(0)
ONE = _float_literal("one", lambda v: v == 1.0)
MINUS_ZERO = _float_literal("minus_zero", lambda v: v == 0.0 and math.copysign(1.0, v) < 0)
PLUS_ZERO = _float_literal("plus_zero", lambda v: v == 0.0 and math.copysign(1.0, v) > 0)
X = PVar("x", lambda v: type(v) is e.FloatImm)
Y = PVar("y", lambda v: type(v) is e.FloatImm)


def _true(value: bool) -> e.PrimExpr:
    return e.const(value, "bool")


def _complement(x: Any, y: Any) -> bool:
    return (type(x) is e.Not and x.a is y) or (type(y) is e.Not and y.a is x)


LOGIC: list[Rule] = [
    rule(Pat(e.And, (TRUE, p)), lambda p, lit1: p, comment="true and p = p"),
    rule(Pat(e.And, (p, TRUE)), lambda p, lit1: p, comment="p and true = p"),
    rule(Pat(e.And, (FALSE, p)), lambda p, lit0: lit0, comment="false and p = false"),
    rule(Pat(e.And, (p, FALSE)), lambda p, lit0: lit0, comment="p and false = false"),
    rule(Pat(e.And, (p, p)), lambda p: p, comment="p and p = p"),
    rule(Pat(e.And, (p, q)), lambda p, q: _true(False), lambda p, q: _complement(p, q), "p and not p = false"),
    rule(Pat(e.And, (p, Pat(e.And, (p, q)))), lambda p, q: e.And(p, q), comment="p and (p and q) = p and q"),
    rule(Pat(e.And, (Pat(e.And, (p, q)), q)), lambda p, q: e.And(p, q), comment="(p and q) and q = p and q"),
    rule(Pat(e.And, (Pat(e.And, (p, q)), p)), lambda p, q: e.And(p, q), comment="(p and q) and p = p and q"),
    rule(Pat(e.Or, (TRUE, p)), lambda p, lit1: lit1, comment="true or p = true"),
    rule(Pat(e.Or, (p, TRUE)), lambda p, lit1: lit1, comment="p or true = true"),
    rule(Pat(e.Or, (FALSE, p)), lambda p, lit0: p, comment="false or p = p"),
    rule(Pat(e.Or, (p, FALSE)), lambda p, lit0: p, comment="p or false = p"),
    rule(Pat(e.Or, (p, p)), lambda p: p, comment="p or p = p"),
    rule(Pat(e.Or, (p, q)), lambda p, q: _true(True), lambda p, q: _complement(p, q), "p or not p = true"),
    rule(Pat(e.Or, (Pat(e.Or, (p, q)), q)), lambda p, q: e.Or(p, q), comment="(p or q) or q = p or q"),
    rule(Pat(e.Or, (Pat(e.Or, (p, q)), p)), lambda p, q: e.Or(p, q), comment="(p or q) or p = p or q"),
    rule(Pat(e.Not, (Pat(e.Not, (p,)),)), lambda p: p, comment="not not p = p"),
    rule(Pat(e.Not, (TRUE,)), lambda lit1: _true(False), comment="not true = false"),
    rule(Pat(e.Not, (FALSE,)), lambda lit0: _true(True), comment="not false = true"),
    rule(Pat(e.Not, (Pat(e.EQ, (a, b)),)), lambda a, b: e.NE(a, b), comment="not a == b = a != b"),
    rule(Pat(e.Not, (Pat(e.NE, (a, b)),)), lambda a, b: e.EQ(a, b), comment="not a != b = a == b"),
]

_INT = lambda a, b: not dt.is_float(a.dtype)  # noqa: E731
ORDER: list[Rule] = [
    rule(Pat(e.Not, (Pat(e.LT, (a, b)),)), lambda a, b: e.GE(a, b), _INT, "not a < b = a >= b (no NaN)"),
    rule(Pat(e.Not, (Pat(e.LE, (a, b)),)), lambda a, b: e.GT(a, b), _INT, "not a <= b = a > b (no NaN)"),
    rule(Pat(e.Not, (Pat(e.GT, (a, b)),)), lambda a, b: e.LE(a, b), _INT, "not a > b = a <= b (no NaN)"),
    rule(Pat(e.Not, (Pat(e.GE, (a, b)),)), lambda a, b: e.LT(a, b), _INT, "not a >= b = a < b (no NaN)"),
]

CHOICE: list[Rule] = [
    rule(Pat(e.Select, (TRUE, a, b)), lambda a, b, lit1: a, comment="select(true, a, b) = a"),
    rule(Pat(e.Select, (FALSE, a, b)), lambda a, b, lit0: b, comment="select(false, a, b) = b"),
    rule(Pat(e.Select, (p, a, a)), lambda p, a: a, comment="select(p, a, a) = a"),
    rule(
        Pat(e.Select, (Pat(e.Not, (p,)), a, b)),
        lambda p, a, b: e.Select(p, b, a),
        comment="select(not p, a, b) = select(p, b, a)",
    ),
    rule(
        Pat(e.Select, (p, Pat(e.Select, (p, a, b)), c)),
        lambda p, a, b, c: e.Select(p, a, c),
        comment="select(p, select(p, a, b), c) = select(p, a, c)",
    ),
    rule(
        Pat(e.Select, (p, a, Pat(e.Select, (p, b, c)))),
        lambda p, a, b, c: e.Select(p, a, c),
        comment="select(p, a, select(p, b, c)) = select(p, a, c)",
    ),
]


def _extremum(node: type, word: str) -> list[Rule]:
    """The identities of min or max alone."""

    def once(a: e.PrimExpr, b: e.PrimExpr) -> e.PrimExpr:
        return node(a, b)  # type: ignore[no-any-return]

    inner = Pat(node, (a, b))
    return [
        rule(Pat(node, (a, a)), lambda a: a, comment=f"{word}(a, a) = a"),
        *[
            rule(Pat(node, (inner, x)), once, _INT, f"{word}({word}(a, b), {x.name}) = {word}(a, b) (no signed zeros)")
            for x in (b, a)
        ],
    ]


EXTREMA: list[Rule] = [*_extremum(e.Min, "min"), *_extremum(e.Max, "max")]


_ARITH: dict[type, Callable[[Any, Any], Any]] = {
    e.Add: np.add,
    e.Sub: np.subtract,
    e.Mul: np.multiply,
    e.Div: np.divide,
    e.Min: np.minimum,
    e.Max: np.maximum,
}


def _fold(cls: type) -> Any:
    def build(x: e.FloatImm, y: e.FloatImm) -> e.PrimExpr | None:
        kind = dt.to_numpy(x.dtype).type
        with np.errstate(all="ignore"):
            value = _ARITH[cls](kind(x.value), kind(y.value))
        return None if value != value else e.FloatImm(float(value), x.dtype)  # a NaN's sign and payload stay unknown

    return build


FLOAT: list[Rule] = [
    rule(Pat(e.Mul, (a, ONE)), lambda a, one: a, comment="a * 1 = a"),
    rule(Pat(e.Mul, (ONE, a)), lambda a, one: a, comment="1 * a = a"),
    rule(Pat(e.Div, (a, ONE)), lambda a, one: a, comment="a / 1 = a"),
    rule(Pat(e.Add, (a, MINUS_ZERO)), lambda a, minus_zero: a, comment="a + -0 = a (a + 0 is not: -0 + 0 = 0)"),
    rule(Pat(e.Add, (MINUS_ZERO, a)), lambda a, minus_zero: a, comment="-0 + a = a"),
    rule(Pat(e.Sub, (a, PLUS_ZERO)), lambda a, plus_zero: a, comment="a - 0 = a"),
    *[
        rule(Pat(cls, (X, Y)), _fold(cls), comment=f"{cls.__name__} of literals, in their own precision")
        for cls in (e.Add, e.Sub, e.Mul, e.Div, e.Min, e.Max)
    ],
]


def _widened(type: str, a: e.PrimExpr) -> bool:
    """Whether every value of a's dtype survives a conversion to `type`."""
    kind, bits, _ = dt.parse(a.dtype)
    new, width, _ = dt.parse(type)
    if kind == new:
        return width >= bits
    return (kind == "uint" and new == "int" and width > bits) or (kind == "bool" and new in ("int", "uint", "float"))


T, U = PVar("t"), PVar("u")
CASTS: list[Rule] = [
    rule(Pat(e.Cast, (T, a)), lambda t, a: a, lambda t, a: t == a.dtype, "cast to the own dtype"),
    rule(
        Pat(e.Cast, (T, Pat(e.Cast, (U, a)))),
        lambda t, u, a: e.cast(t, a),
        lambda t, u, a: _widened(u, a) and not dt.is_float(u) and not t.startswith("bool"),
        "narrow(widen(a)) in one step where the wide integer dtype keeps every value",
    ),
    rule(
        Pat(e.Cast, (T, Pat(e.Cast, (U, a)))),
        lambda t, u, a: a,
        lambda t, u, a: t == a.dtype and dt.is_float(u) and dt.is_float(a.dtype) and _widened(u, a),
        "float back to its own dtype through a wider one",
    ),
    rule(
        Pat(e.Cast, (T, X)),
        lambda t, x: e.FloatImm(x.value, t),
        lambda t, x: dt.is_float(t) and dt.lanes(t) == 1 and not math.isnan(x.value),
        "float literal in another float dtype",
    ),
]


GROUPS: dict[str, list[Rule]] = {
    "logic": LOGIC,
    "order": ORDER,
    "choice": CHOICE,
    "extrema": EXTREMA,
    "float": FLOAT,
    "casts": CASTS,
}
RULES = RuleSet([r for group in GROUPS.values() for r in group])
