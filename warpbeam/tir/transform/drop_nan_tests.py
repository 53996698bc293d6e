"""Maxima and minima in which one operand is certainly no NaN become one comparison.

A maximum is NaN if one of its operands is, which takes two instructions more than a comparison on most machines. Where
a program replaces NaNs before (softmax does: its other steps bring them back), this says so in the form that is one
instruction:

    r[0] = max(r[0], select(isnan(x), -inf, x))     ->     r[0] = select(x > r[0], x, r[0])
    m[0] = max(m[0], r[0])                          ->     m[0] = select(r[0] > m[0], r[0], m[0])
"""

from __future__ import annotations

import math
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Node
from warpbeam.ir.rewrite import post_order, rewrite
from warpbeam.tir import expr as e
from warpbeam.tir.expr import Buffer, BufferLoad, Call, PrimExpr
from warpbeam.tir.stmt import Allocate, BufferStore, PrimFunc

TEST = "isnan"
_KEPT = ("register", "local")
_ACROSS = ("vector_reduce_max", "vector_reduce_min")


def drop_nan_tests(func: PrimFunc) -> PrimFunc:
    """The function with maxima and minima of numbers as comparisons; the same values, but for the sign of zeros."""
    clean = _clean_buffers(func)

    def change(n: Node) -> Node | None:
        if isinstance(n, e.Max | e.Min) and dt.is_float(n.dtype):
            return _one_test(n, clean)
        if isinstance(n, Call) and n.op in _ACROSS and dt.is_float(n.dtype) and _is_number(n.args[0], clean):
            return Call(n.type, n.op, n.args, n.attrs.updated(numbers=True))
        return None

    return rewrite(func, change)  # type: ignore[no-any-return]


def _clean_buffers(func: PrimFunc) -> set[Buffer]:
    """Small buffers that never hold a NaN: what remains when those are taken out that are given a value that may be."""
    stored: dict[Buffer, list[PrimExpr]] = {}
    handed: set[Buffer] = set()
    for n in post_order(func.body):
        if isinstance(n, Allocate) and n.buffer.scope in _KEPT and dt.is_float(n.buffer.dtype):
            stored.setdefault(n.buffer, [])
        elif isinstance(n, BufferStore):
            stored.setdefault(n.buffer, []).append(n.value)
        elif isinstance(n, e.BufferRef):
            handed.add(n.buffer)
    good = {b for b in stored if b.scope in _KEPT} - handed
    while True:
        bad = {b for b in good if not all(_is_number(v, good) for v in stored[b])}
        if not bad:
            return good
        good -= bad


def _is_number(value: PrimExpr, clean: set[Buffer]) -> bool:
    """Whether a float value is certainly no NaN, if the buffers in `clean` hold none."""
    known: dict[Any, bool] = {}
    for n in post_order(value, enter=lambda n: not isinstance(n, BufferLoad)):
        rule = _RULES.get(type(n))
        known[n] = rule is not None and rule(n, known, clean)
    return known[value]


def _choice(n: Any, known: dict[Any, bool], clean: set[Buffer]) -> bool:
    return known[n.a] and (known[n.b] or _tests(n.cond, n.b))


def _tests(cond: PrimExpr, value: PrimExpr) -> bool:
    return isinstance(cond, Call) and cond.op == TEST and cond.args[0] is value


def _call(n: Any, known: dict[Any, bool], clean: set[Buffer]) -> bool:
    return n.op in (*_ACROSS, "abs") and known[n.args[0]]


_RULES: dict[type, Any] = {
    e.FloatImm: lambda n, known, clean: not math.isnan(n.value),
    e.Broadcast: lambda n, known, clean: known[n.value],
    e.Cast: lambda n, known, clean: not dt.is_float(n.value.dtype) or known[n.value],
    e.Max: lambda n, known, clean: known[n.a] and known[n.b],
    e.Min: lambda n, known, clean: known[n.a] and known[n.b],
    e.Select: _choice,
    e.Shuffle: lambda n, known, clean: all(known[v] for v in n.vectors),
    BufferLoad: lambda n, known, clean: n.buffer in clean,
    Call: _call,
}


def _one_test(n: Any, clean: set[Buffer]) -> PrimExpr | None:
    """max(a, b) as a comparison that gives the operand that may be a NaN where they do not compare."""
    test = e.GT if isinstance(n, e.Max) else e.LT
    worst = -math.inf if isinstance(n, e.Max) else math.inf
    for keep, x in ((n.a, n.b), (n.b, n.a)):
        if isinstance(x, e.Select) and _tests(x.cond, x.b) and _imm(x.a) == worst:
            x = x.b  # a NaN does not compare, and the worst value would have lost
        elif not _is_number(x, clean):
            continue
        return e.Select(e.binary(test, x, keep), x, keep)
    return None


def _imm(x: PrimExpr) -> float | None:
    x = x.value if isinstance(x, e.Broadcast) else x
    return x.value if isinstance(x, e.FloatImm) else None
