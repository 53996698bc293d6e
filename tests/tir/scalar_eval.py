"""An evaluator of integer expressions in plain Python: the oracle of the arith tests, apart from the package."""

from __future__ import annotations

from typing import Any

from warpbeam.tir import expr as e


def _trunc(a: int, b: int) -> int:
    if b == 0:
        return 0
    q = abs(a) // abs(b)
    return q if (a < 0) == (b < 0) else -q


_OPS: dict[type, Any] = {
    e.Add: lambda a, b: a + b,
    e.Sub: lambda a, b: a - b,
    e.Mul: lambda a, b: a * b,
    e.FloorDiv: lambda a, b: a // b if b else 0,
    e.FloorMod: lambda a, b: a % b if b else 0,
    e.Div: _trunc,
    e.Mod: lambda a, b: a - _trunc(a, b) * b if b else 0,
    e.Min: min,
    e.Max: max,
    e.LT: lambda a, b: a < b,
    e.LE: lambda a, b: a <= b,
    e.GT: lambda a, b: a > b,
    e.GE: lambda a, b: a >= b,
    e.EQ: lambda a, b: a == b,
    e.NE: lambda a, b: a != b,
    e.And: lambda a, b: bool(a) and bool(b),
    e.Or: lambda a, b: bool(a) or bool(b),
}


def evaluate(x: Any, env: dict[e.Var, Any]) -> Any:
    """Value of a scalar expression (a tuple of lanes for a vector)."""
    cls = type(x)
    if cls is e.IntImm or cls is e.FloatImm:
        return x.value
    if cls is e.Var:
        return env[x]
    if cls is e.Broadcast:
        return (evaluate(x.value, env),) * x.count
    if cls is e.Ramp:
        base, stride = evaluate(x.base, env), evaluate(x.stride, env)
        return tuple(base + stride * k for k in range(x.count))
    if cls is e.Select:
        return evaluate(x.a, env) if evaluate(x.cond, env) else evaluate(x.b, env)
    if cls is e.Not:
        return not evaluate(x.a, env)
    if cls is e.Cast:
        return int(evaluate(x.value, env))
    a, b = evaluate(x.a, env), evaluate(x.b, env)
    if isinstance(a, tuple):
        return tuple(map(_OPS[cls], a, b))
    return _OPS[cls](a, b)
