"""Converters of reductions."""

from __future__ import annotations

from typing import Any

from warpbeam.frontend.onnx.build import Converter, Result, cast_to, dtype_of
from warpbeam.frontend.onnx.node import NodeView
from warpbeam.ir import dtype as dt
from warpbeam.op import get
from warpbeam.relay.expr import Expr


def _axes(node: NodeView) -> tuple[int, ...] | None:
    """Reduced axes from the second input or the attribute; None is all, () none."""
    if len(node.inputs) > 1 and node.given(1):
        axes: list[int] | None = node.int_list(1, "axes")
    else:
        axes = node.attr("axes", None)
    if not axes:
        return () if node.attr("noop_with_empty_axes", 0) else None
    return tuple(dict.fromkeys(axes))


def _floating(x: Expr) -> Expr:
    """Integers as float64, for reductions that leave the integers on the way."""
    return x if dt.is_float(dtype_of(x)) else cast_to(x, "float64")


def _reduction(name: str, before: str = "", after: str = "") -> Converter:
    """after(reduce(before(x))); integers take the way through float64 where `after` needs floats."""

    def convert(node: NodeView, x: Expr, axes: Expr | None = None) -> Result:
        dtype = dtype_of(x)
        kind, value = name, x
        if dt.is_bool(dtype):
            kind = {"max": "any", "min": "all"}.get(name, name)
        if after or name == "logsumexp":
            value = _floating(value)
        if before == "square":
            value = get("multiply")(value, value)
        elif before:
            value = get(before)(value)
        value = get(kind)(value, axis=_axes(node), keepdims=bool(node.attr("keepdims", 1)))
        if after:
            value = get(after)(value)
        return cast_to(value, dtype)

    return convert


def _arg(name: str) -> Converter:
    def convert(node: NodeView, x: Expr) -> Result:
        return get(name)(
            x,
            axis=(node.attr("axis", 0),),
            keepdims=bool(node.attr("keepdims", 1)),
            select_last_index=bool(node.attr("select_last_index", 0)),
        )

    return convert


TABLE: dict[str, dict[int, Any]] = {
    "ReduceSum": {1: _reduction("sum")},
    "ReduceMean": {1: _reduction("mean")},
    "ReduceProd": {1: _reduction("prod")},
    "ReduceMax": {1: _reduction("max")},
    "ReduceMin": {1: _reduction("min")},
    "ReduceL1": {1: _reduction("sum", before="abs")},
    "ReduceL2": {1: _reduction("sum", before="square", after="sqrt")},
    "ReduceSumSquare": {1: _reduction("sum", before="square")},
    "ReduceLogSum": {1: _reduction("sum", after="log")},
    "ReduceLogSumExp": {1: _reduction("logsumexp")},
    "ArgMax": {1: _arg("argmax")},
    "ArgMin": {1: _arg("argmin")},
}
