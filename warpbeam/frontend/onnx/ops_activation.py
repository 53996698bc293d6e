"""Converters of activation functions."""

from __future__ import annotations

import math
from typing import Any

from warpbeam.frontend.onnx.build import Result, like, simple
from warpbeam.frontend.onnx.node import NodeView
from warpbeam.op import get
from warpbeam.relay.expr import Expr


def _add(a: Expr, b: Any) -> Expr:
    return get("add")(a, b if isinstance(b, Expr) else like(b, a))  # type: ignore[no-any-return]


def _sub(a: Expr, b: Any) -> Expr:
    return get("subtract")(a, b if isinstance(b, Expr) else like(b, a))  # type: ignore[no-any-return]


def _mul(a: Expr, b: Any) -> Expr:
    return get("multiply")(a, b if isinstance(b, Expr) else like(b, a))  # type: ignore[no-any-return]


def _negative(x: Expr, below: Expr) -> Expr:
    """`below` where x < 0, else x."""
    return get("where")(get("less")(x, like(0, x)), below, x)  # type: ignore[no-any-return]


def _hard_sigmoid(node: NodeView, x: Expr) -> Result:
    line = _add(_mul(x, node.attr("alpha", 0.2)), node.attr("beta", 0.5))
    return get("clip")(line, a_min=0.0, a_max=1.0)


def _hard_swish(node: NodeView, x: Expr) -> Result:
    return _mul(x, get("clip")(_add(_mul(x, 1 / 6), 0.5), a_min=0.0, a_max=1.0))


def _elu(node: NodeView, x: Expr) -> Result:
    return _negative(x, _mul(_sub(get("exp")(x), 1), node.attr("alpha", 1.0)))


def _selu(node: NodeView, x: Expr) -> Result:
    alpha, gamma = node.attr("alpha", 1.67326319217681884765625), node.attr("gamma", 1.05070102214813232421875)
    return _mul(_negative(x, _mul(_sub(get("exp")(x), 1), alpha)), gamma)


def _celu(node: NodeView, x: Expr) -> Result:
    alpha = node.attr("alpha", 1.0)
    return _negative(x, _mul(_sub(get("exp")(get("divide")(x, like(alpha, x))), 1), alpha))


def softplus(x: Expr) -> Expr:
    """log(1 + exp(x)) without overflow."""
    tail = get("log")(_add(get("exp")(get("negative")(get("abs")(x))), 1))
    return _add(get("maximum")(x, like(0, x)), tail)


def _softsign(node: NodeView, x: Expr) -> Result:
    return get("divide")(x, _add(get("abs")(x), 1))


def _thresholded_relu(node: NodeView, x: Expr) -> Result:
    return get("where")(get("greater")(x, like(node.attr("alpha", 1.0), x)), x, like(0, x))


def _mish(node: NodeView, x: Expr) -> Result:
    return _mul(x, get("tanh")(softplus(x)))


def _gelu(node: NodeView, x: Expr) -> Result:
    kind = node.attr("approximate", "none")
    if kind == "none":
        return _mul(_mul(x, 0.5), _add(get("erf")(_mul(x, 1 / math.sqrt(2))), 1))
    if kind != "tanh":
        raise node.error(f"approximate {kind[:20]!r}")
    inner = _mul(_add(x, _mul(_mul(_mul(x, x), x), 0.044715)), math.sqrt(2 / math.pi))
    return _mul(_mul(x, 0.5), _add(get("tanh")(inner), 1))


def _swish(node: NodeView, x: Expr) -> Result:
    alpha = node.attr("alpha", 1.0)
    return _mul(x, get("sigmoid")(x if alpha == 1.0 else _mul(x, alpha)))


def _shrink(node: NodeView, x: Expr) -> Result:
    """x + bias below -lambd, x - bias above lambd, else 0."""
    bias, lambd = node.attr("bias", 0.0), node.attr("lambd", 0.5)
    zero, edge, shift = like(0, x), like(lambd, x), like(bias, x)
    high = get("where")(get("greater")(x, edge), get("subtract")(x, shift), zero)
    return get("where")(get("less")(x, like(-lambd, x)), get("add")(x, shift), high)


TABLE: dict[str, dict[int, Any]] = {
    "Relu": {1: simple("nn.relu")},
    "Sigmoid": {1: simple("sigmoid")},
    "Tanh": {1: simple("tanh")},
    "HardSigmoid": {1: _hard_sigmoid},
    "HardSwish": {14: _hard_swish},
    "Elu": {1: _elu},
    "Selu": {1: _selu},
    "Celu": {12: _celu},
    "Softplus": {1: lambda node, x: softplus(x)},
    "Softsign": {1: _softsign},
    "ThresholdedRelu": {1: _thresholded_relu},
    "Mish": {18: _mish},
    "Gelu": {20: _gelu},
    "Swish": {24: _swish},
    "Shrink": {9: _shrink},
}
