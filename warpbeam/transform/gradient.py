"""Derivatives of tensor expressions by reverse accumulation: each operator's rule sends what arrives at its result on
to its operands.

Source of the method: A. Griewank, A. Walther, Evaluating Derivatives (2nd ed., 2008), chapter 3. Rules are for what
losses and layers are written with; others are refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import UnsupportedError
from warpbeam.ir.rewrite import post_order
from warpbeam.op import get
from warpbeam.relay.expr import Call, Constant, Expr, Function, Tuple, TupleGetItem, Var, const
from warpbeam.relay.op import Op

#: (call, what arrives at its result) -> what goes to each operand, None where nothing does
Rule = Callable[[Call, Expr], Sequence[Expr | None]]


def gradients(y: Expr, xs: Sequence[Expr]) -> list[Expr]:
    """d(sum of y) / dx for each x: expressions of the shapes of the xs.

    xs: nodes of the expression y, taken as independent of each other; zeros for those that y does not depend on.

    Raises:
        UnsupportedError: where an operator between has no rule.
    """
    stop = set(xs)
    order = [
        n for n in post_order(y, enter=lambda n: n not in stop and not isinstance(n, Function)) if isinstance(n, Expr)
    ]
    moving: set[Expr] = set(stop)
    for n in order:
        if n not in stop and any(p in moving for p in _parts(n)):
            moving.add(n)
    arrived: dict[Expr, Expr] = {y: get("ones_like")(y)}
    for n in reversed(order):
        g = arrived.get(n)
        if g is None or n in stop or n not in moving:
            continue
        for operand, part in zip(_parts(n), _sent(n, g), strict=True):
            if part is not None and operand in moving:
                arrived[operand] = part if operand not in arrived else get("add")(arrived[operand], part)
    return [arrived[x] if x in arrived else get("zeros_like")(x) for x in xs]


def _parts(node: Expr) -> Sequence[Expr]:
    if isinstance(node, Call) and isinstance(node.op, Op):
        return node.args
    if isinstance(node, Var | Constant):
        return ()
    if isinstance(node, Tuple | TupleGetItem):
        raise UnsupportedError("the derivative of an operator with several results")
    raise UnsupportedError(f"the derivative of a {type(node).__name__}")


def _sent(node: Any, g: Expr) -> Sequence[Expr | None]:
    rule = RULES.get(node.op.name)
    if rule is None:
        raise UnsupportedError(
            f"the derivative of operator {node.op.name}", hint=f"there are rules for {sorted(RULES)}"
        )
    return rule(node, g)


# ------------------------------------------------------------------------------------------------------------- pieces


def _op(name: str, *args: Expr, **attrs: Any) -> Expr:
    return get(name)(*args, **attrs)  # type: ignore[no-any-return]


def _like(value: float, x: Expr) -> Expr:
    return const(value, x.ty.dtype)


def _mul(a: Expr, b: Expr) -> Expr:
    return _op("multiply", a, b)


def collapsed(g: Expr, x: Expr) -> Expr:
    """What arrives at a broadcast operand: summed over the axes along which it was repeated."""
    have, want = g.ty.shape, x.ty.shape
    skip = len(have) - len(want)
    axes = [*range(skip), *(a + skip for a, d in enumerate(want) if d == 1 and have[a + skip] != 1)]
    out = _op("sum", g, axis=tuple(axes), keepdims=False) if axes else g
    return out if tuple(out.ty.shape) == tuple(want) else _op("reshape", out, newshape=tuple(want))


def _binary(rule: Callable[[Expr, Expr, Expr, Call], tuple[Expr, Expr]]) -> Rule:
    def send(call: Call, g: Expr) -> Sequence[Expr | None]:
        a, b = call.args
        left, right = rule(g, a, b, call)
        return collapsed(left, a), collapsed(right, b)

    return send


def _unary(rule: Callable[[Expr, Call], Expr]) -> Rule:
    """The factor by which what arrives is multiplied, from (operand, call)."""
    return lambda call, g: [_mul(g, rule(call.args[0], call))]


def _extreme(test: str) -> Rule:
    def rule(g: Expr, a: Expr, b: Expr, call: Call) -> tuple[Expr, Expr]:
        mine = _op("cast", _op(test, a, b), dtype=g.ty.dtype)
        return _mul(g, mine), _mul(g, _op("subtract", _like(1, g), mine))

    return _binary(rule)


def _power(g: Expr, a: Expr, b: Expr, call: Call) -> tuple[Expr, Expr]:
    one = _op("subtract", b, _like(1, b))
    return _mul(g, _mul(b, _op("power", a, one))), _mul(g, _mul(call, _op("log", a)))


def _reshaped(call: Call, g: Expr) -> Sequence[Expr | None]:
    return [_op("reshape", g, newshape=tuple(call.args[0].ty.shape))]


def _transposed(call: Call, g: Expr) -> Sequence[Expr | None]:
    ndim = len(g.ty.shape)
    axes = [a % ndim for a in call.attrs["axes"] or range(ndim - 1, -1, -1)]
    return [_op("transpose", g, axes=tuple(axes.index(a) for a in range(ndim)))]


def _reduced(mean: bool) -> Rule:
    def send(call: Call, g: Expr) -> Sequence[Expr | None]:
        x = call.args[0]
        axes = call.op.axes(call.attrs, len(x.ty.shape))  # type: ignore[attr-defined]
        kept = tuple(1 if a in axes else d for a, d in enumerate(x.ty.shape))
        out = _op("broadcast_to", _op("reshape", g, newshape=kept), shape=tuple(x.ty.shape))
        if not mean:
            return [out]
        sizes = [x.ty.shape[a] for a in axes]
        if not all(isinstance(s, int) for s in sizes):
            raise UnsupportedError("the derivative of a mean over symbolic sizes")
        return [_mul(out, _like(1 / max(math.prod(sizes), 1), out))]

    return send


def _cast(call: Call, g: Expr) -> Sequence[Expr | None]:
    kind = call.args[0].ty.dtype
    return [_op("cast", g, dtype=kind) if dt.is_float(kind) else None]


def _where(call: Call, g: Expr) -> Sequence[Expr | None]:
    cond, a, b = call.args
    zero = _like(0, g)
    return [None, collapsed(_op("where", cond, g, zero), a), collapsed(_op("where", cond, zero, g), b)]


def _concatenated(call: Call, g: Expr) -> Sequence[Expr | None]:
    axis, at, out = call.attrs["axis"], 0, []
    for x in call.args:
        end = at + x.ty.shape[axis]
        out.append(_op("strided_slice", g, begin=(at,), end=(end,), strides=(1,), axes=(axis,)))
        at = end
    return out


def _swapped(x: Expr) -> Expr:
    ndim = len(x.ty.shape)
    return _op("transpose", x, axes=(*range(ndim - 2), ndim - 1, ndim - 2))


def _product(call: Call, g: Expr) -> Sequence[Expr | None]:
    """a @ b with either transposed, batch axes broadcast."""
    a, b = call.args
    if min(len(a.ty.shape), len(b.ty.shape)) < 2:
        raise UnsupportedError("the derivative of a product with a vector")
    left = _swapped(a) if call.attrs["transpose_a"] else a
    right = _swapped(b) if call.attrs["transpose_b"] else b
    to_a, to_b = _matmul(g, _swapped(right)), _matmul(_swapped(left), g)
    to_a = _swapped(to_a) if call.attrs["transpose_a"] else to_a
    to_b = _swapped(to_b) if call.attrs["transpose_b"] else to_b
    return [collapsed(to_a, a), collapsed(to_b, b)]


def _matmul(a: Expr, b: Expr) -> Expr:
    return _op("nn.matmul", a, b)


def _dense(call: Call, g: Expr) -> Sequence[Expr | None]:
    x, w = call.args
    rows = math.prod(x.ty.shape[:-1]) if all(isinstance(d, int) for d in x.ty.shape[:-1]) else None
    if rows is None and len(x.ty.shape) != 2:
        raise UnsupportedError("the derivative of a dense layer over symbolic sizes")
    flat = [v if len(v.ty.shape) == 2 else _op("reshape", v, newshape=(rows, v.ty.shape[-1])) for v in (g, x)]
    return [_matmul(g, w), _matmul(_swapped(flat[0]), flat[1])]


def _softmax(call: Call, g: Expr) -> Sequence[Expr | None]:
    inner = _op("sum", _mul(g, call), axis=(call.attrs["axis"],), keepdims=True)
    return [_mul(call, _op("subtract", g, inner))]


def _log_softmax(call: Call, g: Expr) -> Sequence[Expr | None]:
    total = _op("sum", g, axis=(call.attrs["axis"],), keepdims=True)
    return [_op("subtract", g, _mul(_op("exp", call), total))]


def _positive(x: Expr, call: Call) -> Expr:
    return _op("cast", _op("greater", x, _like(0, x)), dtype=x.ty.dtype)


def _one_minus(x: Expr) -> Expr:
    return _op("subtract", _like(1, x), x)


def _over(a: Expr, b: Expr) -> Expr:
    return _op("divide", a, b)


def _bell(x: Expr, call: Call) -> Expr:
    return _mul(_like(2 / math.sqrt(math.pi), x), _op("exp", _op("negative", _mul(x, x))))


RULES: dict[str, Rule] = {
    "abs": _unary(lambda x, y: _op("sign", x)),
    "add": _binary(lambda g, a, b, y: (g, g)),
    "broadcast_to": lambda call, g: [collapsed(g, call.args[0])],
    "cast": _cast,
    "concatenate": _concatenated,
    "copy": lambda call, g: [g],
    "cos": _unary(lambda x, y: _op("negative", _op("sin", x))),
    "divide": _binary(lambda g, a, b, y: (_over(g, b), _op("negative", _over(_mul(g, y), b)))),
    "erf": _unary(_bell),
    "exp": _unary(lambda x, y: y),
    "expand_dims": _reshaped,
    "log": _unary(lambda x, y: _over(_like(1, x), x)),
    "maximum": _extreme("greater_equal"),
    "mean": _reduced(True),
    "minimum": _extreme("less_equal"),
    "multiply": _binary(lambda g, a, b, y: (_mul(g, b), _mul(g, a))),
    "negative": lambda call, g: [_op("negative", g)],
    "nn.dense": _dense,
    "nn.log_softmax": _log_softmax,
    "nn.matmul": _product,
    "nn.relu": _unary(_positive),
    "nn.softmax": _softmax,
    "power": _binary(_power),
    "reshape": _reshaped,
    "sigmoid": _unary(lambda x, y: _mul(y, _one_minus(y))),
    "sin": _unary(lambda x, y: _op("cos", x)),
    "sqrt": _unary(lambda x, y: _over(_like(0.5, x), y)),
    "squeeze": _reshaped,
    "subtract": _binary(lambda g, a, b, y: (g, _op("negative", g))),
    "sum": _reduced(False),
    "tanh": _unary(lambda x, y: _one_minus(_mul(y, y))),
    "transpose": _transposed,
    "where": _where,
}
