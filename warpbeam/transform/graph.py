"""What graph passes share: names of calls by name, constants, use counts, rewriting around finished functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from warpbeam import op
from warpbeam.ir.node import Node, children
from warpbeam.ir.rewrite import post_order, rewrite
from warpbeam.relay.expr import Call, Clause, Constant, Expr, Function, Let, Var
from warpbeam.relay.op import Op

FINISHED = ("Primitive", "Compiler", "Composite", "SkipOptimization")


def op_name(node: Any) -> str:
    """The operator's name of a call, "" for anything else."""
    return node.op.name if isinstance(node, Call) and isinstance(node.op, Op) else ""


def call(name: str, *args: Expr, **attrs: Any) -> Call:
    """A call of an operator by name."""
    return op.get(name)(*args, **attrs)  # type: ignore[no-any-return]


def cast(x: Expr, dtype: str) -> Expr:
    """A tensor as another dtype, itself where it has it."""
    return x if x.ty.dtype == dtype else call("cast", x, dtype=dtype)  # type: ignore[attr-defined]


def same_call(node: Call, *args: Expr, **changes: Any) -> Call:
    """The operator of `node` on other operands, some attributes changed."""
    return Call(node.op, args, node.attrs.updated(**changes) if changes else node.attrs, node.type_args)


def constant(array: np.ndarray) -> Constant:
    return Constant(np.ascontiguousarray(array) if array.ndim else array)


def is_finished(fn: Function) -> bool:
    """Whether passes must leave a function's body alone."""
    return any(fn.attrs.get(k) for k in FINISHED)


def rewrite_function(fn: Function, visit: Callable[[Node], Node | None]) -> Function:
    """Rewrites the body bottom up, finished functions inside excepted."""
    memo: dict[Node, Node] = {}
    skip = [n for n in post_order(fn.body, enter=_open) if isinstance(n, Function) and is_finished(n)]
    memo.update((f, f) for f in skip)
    body = rewrite(fn.body, visit, memo)
    return fn if body is fn.body else fn.replace(body=body)


def inline_lets(fn: Function, values: Mapping[Var, Expr]) -> Function:
    """Takes the lets of the given variables away and puts the values where the variables stood."""

    def unbind(node: Node) -> Node | None:
        return node.body if isinstance(node, Let) and node.var in values else None

    fn = rewrite_function(fn, unbind)
    return rewrite_function(fn, lambda n: values.get(n) if isinstance(n, Var) else None)


def _open(node: Node) -> bool:
    return not (isinstance(node, Function) and is_finished(node))


def use_counts(root: Node) -> dict[Node, int]:
    """How often each node is an operand; the root counts once."""
    counts: dict[Node, int] = {root: 1}
    for node in post_order(root):
        if isinstance(node, Expr | Clause):
            for c in children(node):
                counts[c] = counts.get(c, 0) + 1
    return counts


def splat(node: Any) -> float | int | bool | None:
    """The number that every element of a constant is, or None."""
    if not isinstance(node, Constant):
        return None
    array = node.numpy()
    if array.size == 0 or array.dtype == object:
        return None
    first = array.flat[0]
    if array.size > 1 and not (array == first).all():
        return None
    return first.item() if hasattr(first, "item") else float(first)
