"""Computes equal things once. Equal nodes are one node already; this merges constants of equal content, and with them
all that was built on the copies."""

from __future__ import annotations

from typing import Any

from warpbeam.ir.node import Node
from warpbeam.ir.rewrite import post_order
from warpbeam.ir.transform import function_pass
from warpbeam.relay.expr import Constant, Function, IRModule
from warpbeam.transform.graph import rewrite_function


def merged_constants(root: Node) -> dict[Node, Node]:
    """Constant -> the first one of equal type and content, where that is another."""
    groups: dict[tuple[Any, ...], list[Constant]] = {}
    for n in post_order(root):
        if isinstance(n, Constant) and n.numpy().dtype != object:
            groups.setdefault((n.ty,), []).append(n)
    found: dict[Node, Node] = {}
    for group in groups.values():
        if len(group) < 2:
            continue
        first: dict[str, Constant] = {}
        for c in group:
            kept = first.setdefault(c.data.digest, c)
            if kept is not c:
                found[c] = kept
    return found


@function_pass(opt_level=3, name="EliminateCommonSubexpr", required=["InferType"])
class EliminateCommonSubexpr:
    """Merges constants of equal content.

    fskip: accepted for calls that must not be merged; equal calls are one node, so it may only name impure operators.
    """

    def __init__(self, fskip: Any = None) -> None:
        self.fskip = fskip

    def transform_function(self, fn: Function, mod: IRModule, ctx: Any) -> Function:
        same = merged_constants(fn.body)
        return rewrite_function(fn, same.get) if same else fn
