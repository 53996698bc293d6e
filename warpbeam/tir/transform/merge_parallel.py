"""Joins the parallel loops that a partition cut apart, so that full tiles and the remainder are shared out in one fork.

parallel i in 3: A(i)                       parallel i in 4:
parallel j in 1: B(j)              ->           if i < 3: A(i)
                                                else: B(i - 3)

Only neighbours that carry the same annotation "joined" are merged: they are parts of one loop, hence independent.
"""

from __future__ import annotations

from warpbeam.ir.node import Node
from warpbeam.ir.rewrite import rewrite, substitute
from warpbeam.tir.arith import simplify
from warpbeam.tir.expr import IntImm, const_int
from warpbeam.tir.stmt import For, IfThenElse, PrimFunc, SeqStmt, Stmt, seq


def merge_parallel(func: PrimFunc) -> PrimFunc:
    """The function with neighbouring parts of one parallel loop merged."""
    body = rewrite(func.body, _merge)
    return func if body is func.body else func.replace(body=body)


def _merge(node: Node) -> Node | None:
    if not isinstance(node, SeqStmt):
        return None
    out: list[Stmt] = []
    for stmt in node.stmts:
        if out and _parts(out[-1], stmt):
            out[-1] = _joined(out[-1], stmt)  # type: ignore[arg-type]
        else:
            out.append(stmt)
    return seq(*out) if len(out) < len(node.stmts) else None


def _parts(a: Stmt, b: Stmt) -> bool:
    if not isinstance(a, For) or not isinstance(b, For) or not a.kind == b.kind == "parallel":
        return False
    mark = a.annotations.get("joined")
    return mark is not None and mark == b.annotations.get("joined") and const_int(a.min) == const_int(b.min) == 0


def _joined(a: For, b: For) -> For:
    rest = IntImm(0, b.var.dtype) if const_int(b.extent) == 1 else a.var - a.extent
    second = substitute(b.body, {b.var: rest})
    body = IfThenElse(a.var < a.extent, a.body, second)
    return For(a.var, 0, simplify(a.extent + b.extent), "parallel", body, a.annotations)
