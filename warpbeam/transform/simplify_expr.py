"""Algebra on the graph: identities, cancelling pairs, cheaper forms. The rules stand in simplify_rules.py."""

from __future__ import annotations

from typing import Any

from warpbeam.ir.node import Node
from warpbeam.ir.rewrite import add_origins, origins
from warpbeam.ir.transform import function_pass
from warpbeam.relay.expr import Expr, Function
from warpbeam.transform.fold_constant import fold_node
from warpbeam.transform.graph import op_name, rewrite_function
from warpbeam.transform.simplify_rules import RULES

_STEPS = 16
_ROUNDS = 6


def simplify_node(node: Node) -> Expr | None:
    """The node after rules until none fits; a rule's result must have the very type of what it replaces."""
    current: Any = node
    for _ in range(_STEPS):
        new = None
        for rule in RULES.get(op_name(current), ()):
            new = rule(current)
            if new is not None and new.ty is current.ty and new is not current:
                break
            new = None
        if new is None:
            break
        new = fold_node(new) or new
        add_origins(new, origins(node))
        current = new
    return None if current is node else current


def simplify_function(fn: Function) -> Function:
    """Sweeps until nothing changes."""
    for _ in range(_ROUNDS):
        new = rewrite_function(fn, simplify_node)
        if new is fn:
            break
        fn = new
    return fn


@function_pass(opt_level=0, name="SimplifyExpr", required=["InferType"])
class SimplifyExpr:
    """Applies the rules of simplify_rules.py to a fixed point."""

    def transform_function(self, fn: Function, mod: Any, ctx: Any) -> Function:
        return simplify_function(fn)
