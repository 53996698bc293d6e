"""Converters of elementwise arithmetic, comparison, logic and conversion."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

from warpbeam.frontend.onnx import ops_random
from warpbeam.frontend.onnx.build import Converter, Result, cast_to, dtype_of, like, rank_of, reshape, shape_of, simple
from warpbeam.frontend.onnx.node import NodeView
from warpbeam.ir import dtype as dt
from warpbeam.op import get
from warpbeam.relay.expr import Expr


def _legacy(name: str) -> Converter:
    """Before operator set 7 the second operand was aligned at `axis`, and only with `broadcast`."""

    def convert(node: NodeView, a: Expr, b: Expr) -> Expr:
        axis = node.attr("axis", None)
        if node.attr("broadcast", 0) and axis is not None:
            behind = rank_of(a) - axis % rank_of(a) - rank_of(b)
            b = reshape(b, shape_of(b) + (1,) * behind)
        return get(name)(a, b)  # type: ignore[no-any-return]

    return convert


def _binary(name: str, since: int = 7) -> dict[int, Converter]:
    return {1: _legacy(name), since: simple(name)}


def _variadic(name: str) -> Converter:
    def convert(node: NodeView, *inputs: Expr) -> Expr:
        return reduce(lambda a, b: get(name)(a, b), inputs)

    return convert


def _mean(node: NodeView, *inputs: Expr) -> Result:
    total = reduce(lambda a, b: get("add")(a, b), inputs)
    return get("divide")(total, like(len(inputs), total))


def _reciprocal(node: NodeView, x: Expr) -> Result:
    return get("divide")(like(1, x), x)


def _mod(node: NodeView, a: Expr, b: Expr) -> Result:
    return get("mod" if node.attr("fmod", 0) else "floor_mod")(a, b)


def _pow(node: NodeView, a: Expr, b: Expr) -> Result:
    """The base's dtype is the result's; an integer base with a float exponent goes through float64."""
    base, exponent = dtype_of(a), dtype_of(b)
    if base == exponent:
        return get("power")(a, b)
    if not dt.is_float(base) and dt.is_float(exponent):
        return cast_to(get("power")(cast_to(a, "float64"), cast_to(b, "float64")), base)
    if dt.is_float(base) and not dt.is_float(exponent) and dt.bits(base) < 32:
        wide = get("power")(cast_to(a, "float32"), cast_to(b, "float32"))
        return cast_to(wide, base)
    return get("power")(a, cast_to(b, base))


def _bit_shift(node: NodeView, a: Expr, b: Expr) -> Result:
    direction = node.attr("direction")
    if direction not in ("LEFT", "RIGHT"):
        raise node.error(f"direction {direction[:20]!r}")
    return get("left_shift" if direction == "LEFT" else "right_shift")(a, b)


def _is_inf(node: NodeView, x: Expr) -> Result:
    negative, positive = node.attr("detect_negative", 1), node.attr("detect_positive", 1)
    if negative and positive:
        return get("isinf")(x)
    if not negative and not positive:
        return get("zeros")(shape=shape_of(x), dtype="bool")
    return get("equal")(x, like(math.inf if positive else -math.inf, x))


def _clip_1(node: NodeView, x: Expr) -> Result:
    return _clipped(x, node.attr("min", None), node.attr("max", None))


def _clipped(x: Expr, low: Any, high: Any) -> Expr:
    dtype = dtype_of(x)
    first, last = (-math.inf, math.inf) if dt.is_float(dtype) else dt.int_range(dtype)
    if low is None and high is None:
        return x
    return get("clip")(x, a_min=first if low is None else low, a_max=last if high is None else high)  # type: ignore[no-any-return]


def _clip_11(node: NodeView, x: Expr, low: Expr | None = None, high: Expr | None = None) -> Result:
    bounds = [None if e is None else node.const(i) for i, e in ((1, low), (2, high))]
    if all((e is None) == (b is None) for e, b in zip((low, high), bounds, strict=True)):
        numbers = [None if b is None else b.reshape(-1)[0].item() for b in bounds]
        if not any(isinstance(v, float) and math.isnan(v) for v in numbers):
            return _clipped(x, *numbers)
    if low is not None:
        x = get("maximum")(x, reshape(low, ()))
    return x if high is None else get("minimum")(x, reshape(high, ()))


def _where(node: NodeView, cond: Expr, a: Expr, b: Expr) -> Result:
    return get("where")(cond, a, b)


def _identity(node: NodeView, x: Expr) -> Result:
    return x


def _dropout(node: NodeView, x: Expr, ratio: Expr | None = None, training: Expr | None = None) -> Result:
    """Dropout does nothing at inference; its mask is all true then."""
    if training is not None:
        flag = node.const(2)
        if flag is None or bool(flag.reshape(-1)[0]):
            none = ratio is not None and node.const(1) is not None and node.scalar(1, "the ratio") == 0
            if not none:
                return ops_random.dropout(node, x, ratio, training)
    mask = get("ones")(shape=shape_of(x), dtype="bool" if node.opset >= 10 else dtype_of(x))
    return [x, mask]


_UNARY = {
    "Abs": "abs", "Neg": "negative", "Sign": "sign", "Ceil": "ceil", "Floor": "floor", "Round": "round",
    "Sqrt": "sqrt", "Exp": "exp", "Log": "log", "Sin": "sin", "Cos": "cos", "Tan": "tan", "Asin": "asin",
    "Acos": "acos", "Atan": "atan", "Sinh": "sinh", "Cosh": "cosh", "Asinh": "asinh", "Acosh": "acosh",
    "Atanh": "atanh", "IsNaN": "isnan", "Not": "logical_not", "BitwiseNot": "bitwise_not",
}  # fmt: skip

_BINARY = {
    "Add": "add", "Sub": "subtract", "Mul": "multiply", "Div": "divide", "And": "logical_and", "Or": "logical_or",
    "Xor": "logical_xor", "Equal": "equal", "Less": "less", "Greater": "greater",
}  # fmt: skip

_PLAIN = {
    "LessOrEqual": "less_equal", "GreaterOrEqual": "greater_equal", "BitwiseAnd": "bitwise_and",
    "BitwiseOr": "bitwise_or", "BitwiseXor": "bitwise_xor",
}  # fmt: skip


def _erf(node: NodeView, x: Expr) -> Result:
    """Integers, which version 9 takes, are computed in float64."""
    kind = dtype_of(x)
    return get("erf")(x) if dt.is_float(kind) else cast_to(get("erf")(cast_to(x, "float64")), kind)


TABLE: dict[str, dict[int, Any]] = {
    **{name: {1: simple(op)} for name, op in (_UNARY | _PLAIN).items()},
    **{name: _binary(op) for name, op in _BINARY.items()},
    "Sum": {1: _variadic("add")},
    "Max": {1: _variadic("maximum")},
    "Min": {1: _variadic("minimum")},
    "Mean": {1: _mean},
    "Reciprocal": {1: _reciprocal},
    "Mod": {10: _mod},
    "Pow": {1: _legacy("power"), 7: _pow},
    "BitShift": {11: _bit_shift},
    "IsInf": {10: _is_inf},
    "Clip": {1: _clip_1, 11: _clip_11},
    "Where": {9: _where},
    "Identity": {1: _identity},
    "Dropout": {1: _dropout},
    "Erf": {9: _erf},
}
