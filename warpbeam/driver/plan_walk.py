"""How the planner reads expressions: their order, calls of functions by name, loops, views."""

from __future__ import annotations

from typing import Any

from warpbeam.ir.rewrite import post_order
from warpbeam.relay.expr import Call, Expr, Function, GlobalVar, If, Tuple, TupleGetItem
from warpbeam.relay.op import Op


def line(body: Expr) -> list[Any]:
    """The expressions below one, operands first; what stands inside the branches of an If is not among them."""
    found = []
    for n in post_order(body, enter=lambda n: not isinstance(n, Function)):
        if isinstance(n, Expr):
            found.append(n)
    return found


def is_call(node: Expr) -> bool:
    return isinstance(node, Call) and isinstance(node.op, GlobalVar)


def is_view(fn: Function) -> bool:
    """Whether a primitive function only renames the shape of its operand."""
    call = fn.body
    return isinstance(call, Call) and isinstance(call.op, Op) and bool(getattr(call.op, "view", False))


def is_host_call(fn: Function) -> bool:
    """Whether a primitive function is a call of a host function."""
    call = fn.body
    return isinstance(call, Call) and isinstance(call.op, Op) and call.op.host


def origin(node: Expr) -> Expr:
    """The expression whose value another one is, or looks at."""
    while True:
        if isinstance(node, Call) and isinstance(node.op, Function) and is_view(node.op):
            node = node.args[0]
        elif isinstance(node, TupleGetItem) and isinstance(node.tuple_value, Tuple):
            node = node.tuple_value.fields[node.index]
        else:
            return node


def last_readers(nodes: list[Any], result: Expr, given: Any) -> dict[Expr, Any]:
    """For each value computed among `nodes`, in order: the last call or If that reads it; None for the result."""
    found: dict[Expr, Any] = {}
    for n in nodes:
        parts = n.args if isinstance(n, Call) else (n.cond,) if isinstance(n, If) else ()
        if isinstance(n, Call) and origin(n) is not n:
            continue
        found.update({origin(a): n for a in parts if a not in given})
    ends = [result]
    while ends:
        r = ends.pop()
        if isinstance(r, Tuple):
            ends += r.fields
        else:
            found[origin(r)] = None
    return found


def flat(value: Any) -> list[Any]:
    """The slots of a value, of which tuples are lists, in order."""
    return [s for part in value for s in flat(part)] if isinstance(value, list) else [value]
