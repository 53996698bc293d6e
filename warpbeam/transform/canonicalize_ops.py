"""One form for what can be said in several ways, so that later passes need to know fewer operators.

nn.bias_add becomes add; expand_dims, squeeze and nn.batch_flatten become reshape.
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir.node import Node
from warpbeam.ir.transform import function_pass
from warpbeam.relay.expr import Expr, Function
from warpbeam.transform.graph import call, op_name, rewrite_function
from warpbeam.transform.simplify_inference import along


def canonical_node(node: Node) -> Expr | None:
    """The canonical form of a call, or None."""
    name = op_name(node)
    if name == "nn.bias_add":
        x, bias = node.args  # type: ignore[attr-defined]
        return call("add", x, along(bias, node.attrs["axis"] % x.ty.ndim, x))  # type: ignore[attr-defined]
    if name in ("expand_dims", "squeeze", "nn.batch_flatten"):
        return call("reshape", node.args[0], newshape=node.ty.shape)  # type: ignore[attr-defined]
    return None


@function_pass(opt_level=3, name="CanonicalizeOps", required=["InferType"])
class CanonicalizeOps:
    """bias_add to add, expand_dims and squeeze to reshape."""

    def transform_function(self, fn: Function, mod: Any, ctx: Any) -> Function:
        return rewrite_function(fn, canonical_node)
