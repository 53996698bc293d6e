"""Computes at compile time what depends on constants only, so that inference does not.

Pure operators are run by their NumPy reference. A result is kept out of the program where it would be large and easily
made again (broadcast, full, …) or above the limit `relay.FoldConstant.max_bytes`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.node import Node
from warpbeam.ir.rewrite import add_origins, origins, post_order
from warpbeam.ir.transform import PassContext, function_pass
from warpbeam.relay.expr import Call, Constant, Expr, Function, If, Let, Tuple, TupleGetItem
from warpbeam.relay.infer_dims import has_expr
from warpbeam.relay.op import Op
from warpbeam.relay.types import TensorType, TupleType
from warpbeam.transform.graph import inline_lets, rewrite_function, splat

MAX_BYTES = 64 << 20
_FREE_BYTES = 64 << 10
_MAX_GROWTH = 8


def fold_node(node: Node, limit: int = MAX_BYTES) -> Expr | None:
    """The constant (or chosen part) that a node stands for, or None."""
    if isinstance(node, Call) and isinstance(node.op, Op):
        if not node.op.pure or not node.op.folds or not all(isinstance(a, Constant) for a in node.args):
            return None
        return _evaluate(node, limit) if _worth(node, limit) else None
    if isinstance(node, TupleGetItem) and isinstance(node.tuple_value, Tuple):
        return node.tuple_value.fields[node.index]
    if isinstance(node, If) and isinstance(node.cond, Constant):
        return node.then if splat(node.cond) else node.orelse
    return None


def _worth(node: Call, limit: int) -> bool:
    kinds = node.ty.fields if isinstance(node.ty, TupleType) else (node.ty,)
    if has_expr(tuple(node.attrs.values())):
        return False
    out = 0
    for t in kinds:
        if not isinstance(t, TensorType) or not t.is_static:
            return False
        out += int(np.prod(t.shape, dtype=np.int64)) * max(1, dt.nbytes(t.dtype))
    given = sum(a.numpy().nbytes for a in node.args if isinstance(a, Constant))
    return out <= limit and (out <= _FREE_BYTES or out <= _MAX_GROWTH * given)


def _evaluate(node: Call, limit: int) -> Expr:
    with np.errstate(all="ignore"):
        value = node.op.numpy(node.attrs, *(a.numpy() for a in node.args if isinstance(a, Constant)))
    if isinstance(value, tuple | list):
        out: Expr = Tuple(tuple(_constant(node, v, t) for v, t in zip(value, node.ty.fields, strict=True)))
    else:
        out = _constant(node, value, node.ty)
    add_origins(out, origins(node))
    return out


def _constant(node: Call, value: Any, want: TensorType) -> Constant:
    array = np.asarray(value)
    if array.shape != want.shape or dt.from_numpy(array.dtype) != want.dtype:
        raise IRError(
            f"operator {node.op.name} gave {array.dtype}{array.shape}, its type says {want.dtype}{want.shape}",
            hint="correct numpy() or infer_type() of the operator",
        )
    return Constant(np.ascontiguousarray(array).reshape(array.shape))


def fold_function(fn: Function, limit: int = MAX_BYTES) -> Function:
    """All constant parts folded; lets of constants are put in place until nothing changes."""
    while True:
        fn = rewrite_function(fn, lambda n: fold_node(n, limit))
        lets = {n.var: n.value for n in post_order(fn.body) if isinstance(n, Let) and isinstance(n.value, Constant)}
        if not lets:
            return fn
        fn = inline_lets(fn, lets)


@function_pass(opt_level=2, name="FoldConstant")
class FoldConstant:
    """Folds constant subgraphs.

    fold_qnn: accepted; quantised operators are folded like others.
    """

    def __init__(self, fold_qnn: bool = False) -> None:
        self.fold_qnn = fold_qnn

    def transform_function(self, fn: Function, mod: Any, ctx: PassContext) -> Function:
        return fold_function(fn, max_bytes(ctx))


def max_bytes(ctx: PassContext) -> int:
    """The largest result that is computed at compile time."""
    return int(ctx.config.get("relay.FoldConstant.max_bytes", MAX_BYTES))
