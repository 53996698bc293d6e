"""Joins the parallel loops that a partition cut apart, so that full tiles and the remainder are shared out in one fork.

parallel i in 3: A(i)                       parallel i in 4:
parallel j in 1: B(j)              ->           if i < 3: A(i)
                                                else: B(i - 3)

Only neighbours that carry the same annotation "joined" are merged: they are parts of one loop, hence independent. A
serial loop that carries it too, around nothing but them, is shared out with them:

for b in n: parallel i in m: A(b, i)   ->   parallel f in n * m: A(f // m, f % m)
"""

from __future__ import annotations

from warpbeam.ir.rewrite import substitute
from warpbeam.tir.arith import simplify
from warpbeam.tir.expr import IntImm, Var, const_int
from warpbeam.tir.stmt import For, IfThenElse, PrimFunc, SeqStmt, Stmt, seq
from warpbeam.tir.transform.mutate import map_up


def merge_parallel(func: PrimFunc) -> PrimFunc:
    """The function with neighbouring parts of one parallel loop merged."""
    body = map_up(func.body, _merge)
    return func if body is func.body else func.replace(body=body)


def _merge(node: Stmt) -> Stmt:
    if isinstance(node, For) and node.kind == "serial" and _alike(node, node.body):
        return _fused(node, node.body)  # type: ignore[arg-type]
    if not isinstance(node, SeqStmt):
        return node
    out: list[Stmt] = []
    for stmt in node.stmts:
        if out and _same(out[-1], stmt):
            out[-1] = _joined(out[-1], stmt)  # type: ignore[arg-type]
        else:
            out.append(stmt)
    return seq(*out) if len(out) < len(node.stmts) else node


def _same(a: Stmt, b: Stmt) -> bool:
    """Whether two parallel loops are parts of one."""
    return isinstance(a, For) and a.kind == "parallel" and _alike(a, b)


def _alike(a: For, b: Stmt) -> bool:
    """Whether a loop belongs to a parallel one by its note."""
    mark = a.annotations.get("joined")
    return (
        mark is not None and isinstance(b, For) and b.kind == "parallel" and mark == b.annotations.get("joined")
        and const_int(a.min) == const_int(b.min) == 0
    )  # fmt: skip


def _joined(a: For, b: For) -> For:
    rest = IntImm(0, b.var.dtype) if const_int(b.extent) == 1 else a.var - a.extent
    second = substitute(b.body, {b.var: rest})
    body = IfThenElse(a.var < a.extent, a.body, second)
    return For(a.var, 0, simplify(a.extent + b.extent), "parallel", body, a.annotations)


def _fused(a: For, b: For) -> For:
    """A loop and the only one in it as one."""
    both = Var(f"{a.var.name}_{b.var.name}", a.var.dtype)
    body = substitute(b.body, {a.var: both // b.extent, b.var: both % b.extent})
    return For(both, 0, a.extent * b.extent, "parallel", body, a.annotations)
