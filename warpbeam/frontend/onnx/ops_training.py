"""Converters of ai.onnx.preview.training: one step of an optimiser on any number of tensors at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from warpbeam.frontend.onnx.build import Result, cast_to, dtype_of, like
from warpbeam.frontend.onnx.node import Entry, NodeView
from warpbeam.frontend.onnx.objects import is_object
from warpbeam.ir.rewrite import substitute
from warpbeam.op import get
from warpbeam.relay.expr import Expr, const
from warpbeam.transform.gradient import gradients

#: new values of (tensor, its states…) from (rate, step, tensor, gradient, states…)
Step = Callable[..., list[Expr]]


def _add(a: Expr, b: Expr) -> Expr:
    return get("add")(a, b)  # type: ignore[no-any-return]


def _mul(a: Expr | float, b: Expr) -> Expr:
    return get("multiply")(a if isinstance(a, Expr) else like(a, b), b)  # type: ignore[no-any-return]


def _sub(a: Expr, b: Expr) -> Expr:
    return get("subtract")(a, b)  # type: ignore[no-any-return]


def _div(a: Expr, b: Expr) -> Expr:
    return get("divide")(a, b)  # type: ignore[no-any-return]


def _regularised(node: NodeView, x: Expr, gradient: Expr) -> Expr:
    return _add(_mul(node.attr("norm_coefficient", 0.0), x), gradient)


def _adagrad(node: NodeView, rate: Expr, step: Expr, x: Expr, gradient: Expr, squares: Expr) -> list[Expr]:
    wide = cast_to(step, dtype_of(rate))
    slower = _div(rate, _add(like(1.0, rate), _mul(node.attr("decay_factor", 0.0), wide)))
    g = _regularised(node, x, gradient)
    total = _add(squares, _mul(g, g))
    root = _add(get("sqrt")(total), like(node.attr("epsilon", 1e-6), x))
    return [_sub(x, _div(_mul(cast_to(slower, dtype_of(x)), g), root)), total]


def _adam(
    node: NodeView, rate: Expr, step: Expr, x: Expr, gradient: Expr, mean: Expr, squares: Expr
) -> list[Expr]:  # fmt: skip
    alpha, beta = node.attr("alpha", 0.9), node.attr("beta", 0.999)
    g = _regularised(node, x, gradient)
    mean = _add(_mul(alpha, mean), _mul(1 - alpha, g))
    squares = _add(_mul(beta, squares), _mul(1 - beta, _mul(g, g)))
    root = _add(get("sqrt")(squares), like(node.attr("epsilon", 1e-6), x))
    exponent = cast_to(step, dtype_of(rate))
    one = like(1.0, rate)
    powers = [_sub(one, get("power")(like(v, rate), exponent)) for v in (alpha, beta)]
    adjusted = _div(_mul(rate, get("sqrt")(powers[1])), powers[0])
    adjusted = get("where")(get("greater")(step, const(0, "int64")), adjusted, rate)
    new = _sub(x, _div(_mul(cast_to(adjusted, dtype_of(x)), mean), root))
    return [_mul(1 - node.attr("norm_coefficient_post", 0.0), new), mean, squares]


def _momentum(node: NodeView, rate: Expr, step: Expr, x: Expr, gradient: Expr, speed: Expr) -> list[Expr]:
    mode, alpha = node.attr("mode"), node.attr("alpha")
    if mode not in ("standard", "nesterov"):
        raise node.error(f"mode {mode[:20]!r}")
    g = _regularised(node, x, gradient)
    later = get("greater")(step, const(0, "int64"))
    beta = get("where")(later, like(node.attr("beta"), x), like(1.0, x))
    speed = _add(_mul(alpha, speed), _mul(beta, g))
    way = speed if mode == "standard" else _add(g, _mul(alpha, speed))
    return [_sub(x, _mul(cast_to(rate, dtype_of(x)), way)), speed]


def _each(one: Step, parts: int) -> Any:
    """The converter of an optimiser whose operands are (rate, step, tensors…, gradients…, states…)."""

    def convert(node: NodeView, rate: Expr, step: Expr, *rest: Expr) -> Result:
        count, odd = divmod(len(rest), parts)
        if odd or not count:
            raise node.error(f"has {len(rest)} tensors, it takes a multiple of {parts}")
        rate, step = (get("reshape")(v, newshape=()) for v in (rate, step))
        groups = [one(node, rate, step, *rest[k::count]) for k in range(count)]
        return [g[part] for part in range(len(groups[0])) for g in groups]

    return convert


def gradient(importer: Any, frame: Any, view: NodeView) -> list[Entry]:
    """Gradient: the derivative of the tensor called `y` by those called `xs`, at the values that the node is given."""
    names = [*view.attr("xs"), *view.attr("zs", [])]
    given = [e for e in view.entries if e is not None]
    if len(given) != len(names) or len(view.outputs) > len(view.attr("xs")):
        raise view.error(f"names {len(names)} tensors, it has {len(given)} inputs and {len(view.outputs)} outputs")
    nodes = []
    for name in (*names, view.attr("y")):
        entry = frame.env.get(name)
        if entry is None or entry.missing or is_object(entry):
            raise view.error(f"tensor {name[:80]!r} is not known before it")
        nodes.append(entry.expr)
    found = gradients(nodes[-1], nodes[: len(view.attr("xs"))])
    at = {n: e.expr for n, e in zip(nodes, given, strict=False) if n is not e.expr}
    return [Entry(substitute(g, at) if at else g) for g in found]


TABLE: dict[str, dict[int, Any]] = {
    "ai.onnx.preview.training::Adagrad": {1: _each(_adagrad, 3)},
    "ai.onnx.preview.training::Adam": {1: _each(_adam, 4)},
    "ai.onnx.preview.training::Momentum": {1: _each(_momentum, 3)},
}
