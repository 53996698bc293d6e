"""Leaves out a rounding between two kernels: what only matrix products read stays in the type it was computed in.

Row operators (softmax and its kin) compute half floats in float32 and round the result; a matrix product widens it
again. Where nothing else reads the rounded rows the pair is left out, as compilers with excess precision do: the result
is at least as near to the exact one, and the product reads what it multiplies without converting.

    before: nn.matmul(nn.softmax(x), v)                                              all float16
    after:  nn.matmul(nn.softmax(cast(x, "float32")), v, out_dtype="float16")
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir.node import Node, map_children
from warpbeam.ir.rewrite import add_origins, origins, post_order
from warpbeam.ir.transform import function_pass
from warpbeam.op.nn_matmul import Contraction
from warpbeam.op.nn_softmax import RowOp
from warpbeam.relay.expr import Call, Function, IRModule
from warpbeam.topi.common import accumulation
from warpbeam.transform.graph import call, is_finished, op_name, same_call, use_counts

MOVERS = ("reshape", "transpose", "expand_dims", "squeeze")


def rows_behind(node: Node, uses: dict[Node, int]) -> list[Call]:
    """The row operators whose results a half-float product reads, perhaps moved, and nothing else does."""
    if not (isinstance(node, Call) and isinstance(node.op, Contraction)):
        return []
    dtype, found = node.ty.dtype, []
    if accumulation(dtype) == dtype or any(a.ty.dtype != dtype for a in node.args):
        return []
    for operand in node.args:
        at: Any = operand
        while op_name(at) in MOVERS and uses[at] == 1:
            at = at.args[0]
        if isinstance(at, Call) and isinstance(at.op, RowOp) and uses[at] == 1:
            found.append(at)
    return found


def keep_precision(fn: Function) -> Function:
    """`fn` with those row operators in the type they compute in, and products that say what they give."""
    uses = use_counts(fn.body)
    order = list(post_order(fn.body, enter=lambda n: not (isinstance(n, Function) and is_finished(n))))
    products: set[Node] = set()
    wide: set[Node] = set()
    for node in order:
        rows = rows_behind(node, uses)
        if rows:
            products.add(node)
            wide.update(rows)
    if not products:
        return fn
    done: dict[Node, Any] = {}
    for node in order:
        if isinstance(node, Function) and is_finished(node):
            done[node] = node
            continue
        if node in products:
            new: Any = same_call(node, *[done[a] for a in node.args], out_dtype=node.ty.dtype)  # type: ignore[attr-defined,arg-type]
        else:
            new = map_children(node, done.__getitem__)
        if node in wide:
            new = same_call(new, call("cast", new.args[0], dtype=accumulation(new.ty.dtype)), *new.args[1:])
        if new is not node:
            add_origins(new, origins(node))
        done[node] = new
    return fn.replace(body=done[fn.body])


@function_pass(opt_level=1, name="KeepPrecision", required=["InferType"])
class KeepPrecision:
    """Half-float rows that only a matrix product reads are not rounded on the way to it."""

    def transform_function(self, fn: Function, mod: IRModule, ctx: Any) -> Function:
        return keep_precision(fn)
