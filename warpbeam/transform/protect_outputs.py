"""Gives every result of a function a kernel of its own to write it: the caller's output tensors never alias anything.

An output that is an input, a constant, a view of one, or the same value as another output is copied.
"""

from __future__ import annotations

from warpbeam.ir.node import Attrs
from warpbeam.relay.expr import Call, Constant, Expr, Function, Tuple, Var
from warpbeam.relay.op import Op


def _base(expr: Expr) -> Expr:
    """What a chain of views looks at."""
    while isinstance(expr, Call) and isinstance(expr.op, Op) and getattr(expr.op, "view", False):
        expr = expr.args[0]
    return expr


def protect_outputs(func: Function, copy: Op) -> Function:
    """`func` with `copy` (the identity operator) around outputs that no kernel computes for them alone."""
    outs = func.body.fields if isinstance(func.body, Tuple) else (func.body,)
    taken: set[Expr] = set()
    new: list[Expr] = []
    for out in outs:
        while isinstance(_base(out), Var | Constant) or _base(out) in taken:
            out = Call(copy, (out,), copy.attrs(Attrs()))
        taken.add(_base(out))
        new.append(out)
    if all(a is b for a, b in zip(new, outs, strict=True)):
        return func
    body = Tuple(tuple(new)) if isinstance(func.body, Tuple) else new[0]
    return Function(func.params, body, None, func.type_params, func.attrs)
