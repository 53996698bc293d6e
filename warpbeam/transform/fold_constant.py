"""Computes at compile time what depends on constants only, so that inference does not.

Pure operators are run by their NumPy reference. A result is kept out of the program where it would be large and easily
made again (broadcast, full, …) or above the limit `relay.FoldConstant.max_bytes`. An operand of a contraction is made
all the same: its elements are read many times, in an order of the kernel's own.
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
_REUSE = 8  # operations for each result of what reads its operands again and again
_FILLS = 4  # times the limit: operands of contractions that are made although they are easily made again, together


def fold_node(node: Node, limit: int = MAX_BYTES) -> Expr | None:
    """The constant (or chosen part) that a node stands for, or None."""
    if isinstance(node, Call) and isinstance(node.op, Op):
        if not node.op.pure or not node.op.folds or not all(isinstance(a, Constant) for a in node.args):
            return None
        return _evaluate(node) if _worth(node, limit) else None
    if isinstance(node, TupleGetItem) and isinstance(node.tuple_value, Tuple):
        return node.tuple_value.fields[node.index]
    if isinstance(node, If) and isinstance(node.cond, Constant):
        return node.then if splat(node.cond) else node.orelse
    return None


class _Operands:
    """Makes operands of contractions that depend on constants only, each once. Sees calls after their operands."""

    def __init__(self, limit: int) -> None:
        self.left = _FILLS * limit
        self.fixed: set[Expr] = set()  # calls on constants that were left in the program, easily made each
        self.made: dict[Expr, Expr] = {}
        self.refused: set[Expr] = set()

    def visit(self, node: Node) -> Expr | None:
        """A contraction with such operands in place; None for anything else."""
        if not isinstance(node, Call) or not isinstance(node.op, Op):
            return None
        alone = all(isinstance(a, Constant) or a in self.fixed for a in node.args)
        plain = isinstance(node.ty, TensorType) and not has_expr(tuple(node.attrs.values()))
        if alone and plain and node.op.pure and node.op.folds and not _contracts(node):
            self.fixed.add(node)
        if alone or not plain or not any(a in self.fixed for a in node.args) or not _contracts(node):
            return None
        args = tuple(self._operand(a) if a in self.fixed else a for a in node.args)
        return None if all(a is b for a, b in zip(args, node.args, strict=True)) else node.replace(args=args)

    def _operand(self, node: Expr) -> Expr:
        """The constant, or the operand itself where all of them together are too large."""
        for n in post_order(node, enter=lambda n: n in self.fixed and n not in self.made and n not in self.refused):
            if n not in self.fixed or n in self.made:
                continue
            size = _bytes(n)
            if size is None or size > self.left or n in self.refused or any(a in self.refused for a in n.args):
                self.refused.add(n)
                continue
            self.left -= size
            self.made[n] = _evaluate(n.replace(args=tuple(self.made.get(a, a) for a in n.args)))
        return self.made.get(node, node)


def _contracts(node: Call) -> bool:
    """Whether a call does many operations for each element of its result."""
    size = _bytes(node)
    work = node.op.flops(node.attrs, [a.ty for a in node.args], node.ty) if size else 0
    return isinstance(work, int) and work >= _REUSE * (size or 0) // max(1, dt.nbytes(node.ty.dtype)) > 0


def _bytes(node: Call) -> int | None:
    """Of the result; None where its size is not known."""
    kinds = node.ty.fields if isinstance(node.ty, TupleType) else (node.ty,)
    out = 0
    for t in kinds:
        if not isinstance(t, TensorType) or not t.is_static:
            return None
        out += int(np.prod(t.shape, dtype=np.int64)) * max(1, dt.nbytes(t.dtype))
    return out


def _worth(node: Call, limit: int) -> bool:
    out = None if has_expr(tuple(node.attrs.values())) else _bytes(node)
    given = sum(a.numpy().nbytes for a in node.args if isinstance(a, Constant))
    return out is not None and out <= limit and (out <= _FREE_BYTES or out <= _MAX_GROWTH * given)


def _evaluate(node: Call) -> Expr:
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
    operands = _Operands(limit)
    while True:
        fn = rewrite_function(fn, lambda n: fold_node(n, limit) or operands.visit(n))
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
