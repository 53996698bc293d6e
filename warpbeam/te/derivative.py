"""Derivatives of scalar expressions: what one step of reverse mode needs of the body of a computation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Node, children
from warpbeam.ir.rewrite import post_order
from warpbeam.te.errors import TEError
from warpbeam.tir import expr as e
from warpbeam.tir.expr import PrimExpr, call, const

#: (operand, what flows to it, condition under which that is evaluated or None)
Flow = tuple[PrimExpr, PrimExpr, PrimExpr | None]


def pulled_back(value: PrimExpr, seed: PrimExpr, wanted: Callable[[Any], bool]) -> dict[Any, PrimExpr]:
    """seed * d value / d leaf for each wanted leaf, in order of first use.

    Raises:
        TEError: if a wanted leaf is behind a function that has no derivative here.
    """
    order = list(post_order(value, enter=lambda n: not wanted(n)))
    reach: set[Node] = set()
    for n in order:
        if wanted(n) or any(c in reach for c in children(n)):
            reach.add(n)
    flowing: dict[Any, PrimExpr] = {value: seed}
    guards: dict[Any, list[PrimExpr | None]] = {value: [None]}
    for n in reversed(order):
        if n not in flowing or wanted(n) or n not in reach:
            continue
        own = _guard(guards[n])
        for operand, flow, when in _flows(n, flowing[n]):
            if operand not in reach or not dt.is_float(operand.dtype):
                continue
            conditions = [c for c in (own, when) if c is not None]
            test = e.land(*conditions) if conditions else None
            flow = flow if test is None else e.if_then_else(test, flow, const(0, flow.dtype))
            flowing[operand] = flowing[operand] + flow if operand in flowing else flow
            guards.setdefault(operand, []).append(test)
    return {n: flowing[n] for n in order if wanted(n) and n in flowing}


def _guard(paths: list[PrimExpr | None]) -> PrimExpr | None:
    """When a node is evaluated: on any of the ways to it; None is always."""
    known = [p for p in paths if p is not None]
    return e.lor(*known) if len(known) == len(paths) else None


def _flows(n: Any, g: PrimExpr) -> list[Flow]:
    if isinstance(n, e.Call):
        return _call_flows(n, g)
    rule = _RULES.get(type(n))
    if rule is None:
        raise _without(type(n).__name__)
    return [(operand, flow, None) for operand, flow in rule(n, g)]


def _without(what: str) -> TEError:
    return TEError(f"{what} has no derivative here", hint="write the gradient as a te.compute of its own")


def _where(test: PrimExpr, g: PrimExpr) -> PrimExpr:
    return e.select(test, g, const(0, g.dtype))


_RULES: dict[type, Callable[[Any, PrimExpr], list[tuple[PrimExpr, PrimExpr]]]] = {
    e.Add: lambda n, g: [(n.a, g), (n.b, g)],
    e.Sub: lambda n, g: [(n.a, g), (n.b, -g)],
    e.Mul: lambda n, g: [(n.a, g * n.b), (n.b, g * n.a)],
    e.Div: lambda n, g: [(n.a, g / n.b), (n.b, -(g * n.a / (n.b * n.b)))],
    e.Min: lambda n, g: [(n.a, _where(n.a <= n.b, g)), (n.b, _where(n.b < n.a, g))],
    e.Max: lambda n, g: [(n.a, _where(n.a >= n.b, g)), (n.b, _where(n.b > n.a, g))],
    e.Select: lambda n, g: [(n.a, _where(n.cond, g)), (n.b, _where(e.lnot(n.cond), g))],
    e.Cast: lambda n, g: [(n.value, e.cast(n.value.dtype, g))],
}


def _call_flows(n: e.Call, g: PrimExpr) -> list[Flow]:
    name = str(n.op)
    if name == "if_then_else":
        test, a, b = n.args
        return [(a, g, test), (b, g, e.lnot(test))]
    slope = _SLOPES.get(name)
    if slope is not None:
        return [(n.args[0], g * slope(n.args[0], n), None)]
    if name == "pow":
        x, y = n.args
        return [(x, g * y * call("pow", x, y - const(1, y.dtype)), None), (y, g * n * call("log", x), None)]
    if name == "fma":
        a, b, c = n.args
        return [(a, g * b, None), (b, g * a, None), (c, g, None)]
    if name in ("floor", "ceil", "round", "trunc", "sign"):
        return []  # flat wherever there is a derivative
    raise _without(name)


def _num(value: float, like: PrimExpr) -> PrimExpr:
    return const(value, like.dtype)


#: d f(x) / d x of functions of one operand, from x and y = f(x)
_SLOPES: dict[str, Callable[[PrimExpr, PrimExpr], PrimExpr]] = {
    "exp": lambda x, y: y,
    "exp2": lambda x, y: y * _num(math.log(2), x),
    "exp10": lambda x, y: y * _num(math.log(10), x),
    "expm1": lambda x, y: y + _num(1, x),
    "log": lambda x, y: _num(1, x) / x,
    "log2": lambda x, y: _num(1 / math.log(2), x) / x,
    "log10": lambda x, y: _num(1 / math.log(10), x) / x,
    "log1p": lambda x, y: _num(1, x) / (x + _num(1, x)),
    "sqrt": lambda x, y: _num(0.5, x) / y,
    "rsqrt": lambda x, y: _num(-0.5, x) * y / x,
    "sin": lambda x, y: call("cos", x),
    "cos": lambda x, y: -call("sin", x),
    "tan": lambda x, y: _num(1, x) + y * y,
    "sinh": lambda x, y: call("cosh", x),
    "cosh": lambda x, y: call("sinh", x),
    "tanh": lambda x, y: _num(1, x) - y * y,
    "asin": lambda x, y: call("rsqrt", _num(1, x) - x * x),
    "acos": lambda x, y: -call("rsqrt", _num(1, x) - x * x),
    "atan": lambda x, y: _num(1, x) / (_num(1, x) + x * x),
    "asinh": lambda x, y: call("rsqrt", x * x + _num(1, x)),
    "acosh": lambda x, y: call("rsqrt", x * x - _num(1, x)),
    "atanh": lambda x, y: _num(1, x) / (_num(1, x) - x * x),
    "sigmoid": lambda x, y: y * (_num(1, x) - y),
    "erf": lambda x, y: _num(2 / math.sqrt(math.pi), x) * call("exp", -(x * x)),
    "abs": lambda x, y: e.select(x > 0, _num(1, x), e.select(x < 0, _num(-1, x), _num(0, x))),
    "likely": lambda x, y: _num(1, x),
}
