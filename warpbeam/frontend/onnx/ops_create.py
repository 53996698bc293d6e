"""Converters of constants and ranges."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from warpbeam.frontend.onnx import ops_content
from warpbeam.frontend.onnx.build import Result
from warpbeam.frontend.onnx.node import NodeView
from warpbeam.ir import dtype as dt
from warpbeam.op import get
from warpbeam.relay.expr import Constant, Expr
from warpbeam.tir.expr import PrimExpr
from warpbeam.topi import dims

_KINDS = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}


def _constant(node: NodeView) -> Result:
    names = node.attributes
    if len(names) != 1:
        raise node.error(f"has attributes {names}, it takes exactly one")
    if names[0] == "value":
        return Constant(node.attr("value"))  # type: ignore[no-any-return]
    if names[0] in _KINDS:
        return Constant(np.array(node.attr(names[0]), _KINDS[names[0]]))  # type: ignore[no-any-return]
    raise node.unsupported(names[0].replace("_", " "))


def _constant_of_shape(node: NodeView, shape: Expr) -> Result:
    value = node.attr("value", None)
    if value is None:
        value = np.zeros(1, np.float32)
    if value.size != 1:
        raise node.error(f"value has {value.size} elements, it must have one")
    if node.value(0) is None:
        return ops_content.filled(node, Constant(value.reshape(())), shape)
    sizes = node.ints(0, "the shape")
    if any(isinstance(d, int) and d < 0 for d in sizes):
        raise node.error(f"shape {dims.shape_text(sizes)} has a negative dimension")
    return get("full")(Constant(value.reshape(())), shape=tuple(sizes))


def range_11(node: NodeView, start: Expr, limit: Expr, delta: Expr) -> Result:
    dtype = start.checked_type.dtype  # type: ignore[attr-defined]
    if any(node.const(i) is None and node.value(i) is None for i in range(3)):
        return ops_content.range_of(node, start, limit, delta)
    numbers: list[Any] = []
    for i, what in enumerate(("start", "limit", "delta")):
        found = node.const(i)
        numbers.append(node.ints(i, what)[0] if found is None else found.reshape(-1)[0].item())
    if any(isinstance(v, float) and not math.isfinite(v) for v in numbers):
        raise node.error(f"the range {numbers} is not finite")
    if not isinstance(numbers[2], PrimExpr) and numbers[2] == 0:
        raise node.error("a delta of 0")
    if isinstance(numbers[2], PrimExpr) or (dt.is_float(dtype) and any(isinstance(v, PrimExpr) for v in numbers)):
        raise node.unsupported("a symbolic delta or a float range of symbolic length")
    return get("arange")(start=numbers[0], stop=numbers[1], step=numbers[2], dtype=dtype)


TABLE: dict[str, dict[int, Any]] = {
    "Constant": {1: _constant},
    "ConstantOfShape": {9: _constant_of_shape},
    "Range": {11: range_11},
}
