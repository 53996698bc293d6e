"""Questions about programs: variables, operators, equality, whether a program is well formed."""

from __future__ import annotations

from typing import Any

from warpbeam.ir.diagnostics import Diagnostics, IRError
from warpbeam.ir.node import Node
from warpbeam.ir.rewrite import post_order
from warpbeam.relay.expr import (
    Call,
    Clause,
    Expr,
    Function,
    IRModule,
    Let,
    PatternVar,
    Var,
    bound_vars,
    free_vars,
)
from warpbeam.relay.op import Op
from warpbeam.relay.structural import structural_equal, structural_hash
from warpbeam.relay.types import TypeVar

__all__ = [
    "all_type_vars",
    "all_vars",
    "bound_vars",
    "count_layers",
    "free_type_vars",
    "free_vars",
    "list_op_freqs",
    "post_order_visit",
    "structural_equal",
    "structural_hash",
    "well_formed",
]


def post_order_visit(expr: Expr, fn: Any) -> None:
    """Calls `fn` on every expression below, operands first."""
    for n in post_order(expr):
        if isinstance(n, Expr):
            fn(n)


def all_vars(expr: Expr) -> list[Var]:
    """Every variable, free or bound, in order of first use."""
    return [n for n in post_order(expr) if isinstance(n, Var)]


def all_type_vars(expr: Expr) -> list[TypeVar]:
    """Every type variable, in order of first use."""
    found = dict.fromkeys(n for n in post_order(expr) if isinstance(n, TypeVar))
    return list(found)


def free_type_vars(expr: Expr) -> list[TypeVar]:
    """Type variables that no function within binds."""
    bound = {v for n in post_order(expr) if isinstance(n, Function) for v in n.type_params}
    return [v for v in all_type_vars(expr) if v not in bound]


def list_op_freqs(program: IRModule | Expr) -> dict[str, int]:
    """Number of calls of each operator."""
    roots = list(program.functions.values()) if isinstance(program, IRModule) else [program]
    out: dict[str, int] = {}
    for n in post_order(*roots):
        if isinstance(n, Call) and isinstance(n.op, Op):
            out[n.op.name] = out.get(n.op.name, 0) + 1
    return dict(sorted(out.items()))


def count_layers(program: IRModule | Expr, valid_ops: list[str]) -> int:
    """Largest number of calls of the given operators along any path of data."""
    root = program["main"] if isinstance(program, IRModule) else program
    depth: dict[int, int] = {}
    best = 0
    for n in post_order(root):
        below = max((depth.get(id(c), 0) for c in _children(n)), default=0)
        depth[id(n)] = below + (isinstance(n, Call) and isinstance(n.op, Op) and n.op.name in valid_ops)
        best = max(best, depth[id(n)])
    return best


def _children(n: Node) -> tuple[Node, ...]:
    from warpbeam.ir.node import children

    return children(n)


def well_formed(program: IRModule | Expr, strict: bool = True) -> bool:
    """Whether every variable is bound once and used in its scope; with `strict`, an error that lists what is wrong."""
    problems = Diagnostics()
    roots = list(program.functions.values()) if isinstance(program, IRModule) else [program]
    for root in roots:
        bound: dict[Var, Node] = {}
        for n in post_order(root):
            for v in _binds(n):
                if v in bound and bound[v] is not n:
                    problems.add(f"variable {v.name} is bound twice")
                bound[v] = n
        if isinstance(root, Function):
            for v in free_vars(root):
                problems.add(f"variable {v.name} is used but bound nowhere")
    if problems and strict:
        raise IRError("the program is not well formed\n" + problems.render())
    return not problems


def _binds(n: Node) -> list[Var]:
    if isinstance(n, Function):
        return list(n.params)
    if isinstance(n, Let):
        return [n.var]
    if isinstance(n, Clause):
        return [p.var for p in post_order(n.lhs) if isinstance(p, PatternVar)]
    return []
