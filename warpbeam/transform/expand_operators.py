"""Operators that say how they are made of others become these: `expand(attrs, args)` of the operator's class."""

from __future__ import annotations

from typing import Any

from warpbeam.ir.node import Node
from warpbeam.ir.rewrite import add_origins, origins
from warpbeam.ir.transform import function_pass
from warpbeam.relay.expr import Call, Expr, Function, Tuple, TupleGetItem
from warpbeam.transform.graph import rewrite_function


@function_pass(opt_level=1, name="ExpandOperators")
class ExpandOperators:
    """Large operators become smaller ones where that lets other passes see their parts."""

    def transform_function(self, fn: Function, mod: Any, ctx: Any) -> Function:
        return rewrite_function(fn, expand_node)


def expand_node(node: Node) -> Expr | None:
    """What a call is made of, or None; the fields of a tuple that is now known are taken directly."""
    if isinstance(node, TupleGetItem) and isinstance(node.tuple_value, Tuple):
        return node.tuple_value.fields[node.index]  # type: ignore[no-any-return]
    expand = getattr(node.op, "expand", None) if isinstance(node, Call) else None
    if expand is None:
        return None
    found = expand(node.attrs, node.args)  # type: ignore[attr-defined]
    if found is not None:
        add_origins(found, origins(node))
    return found  # type: ignore[no-any-return]
