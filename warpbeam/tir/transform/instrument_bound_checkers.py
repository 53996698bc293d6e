"""Tests every index while the program runs, because a wrong index otherwise shows far from where it was made.

B[i] = A[i + 1]     ->     assert 0 <= i + 1 and i + 1 < 16, "A[i + 1]: index 0 is outside of [0, 16)"
                           B[i] = A[i + 1]
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir.node import children
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.tree import kids
from warpbeam.tir.expr import BufferLoad, Call, PrimExpr
from warpbeam.tir.stmt import AssertStmt, BufferStore, PrimFunc, Stmt, seq
from warpbeam.tir.transform.mutate import map_up
from warpbeam.tir.transform.setting import Setting

KEY = "tir.instrument_bound_checkers"


def instrument_bound_checkers(func: PrimFunc, at: Setting | None = None) -> PrimFunc:
    """The program with an assertion before each statement that accesses memory; what loops prove is not left out."""
    body = map_up(func.body, _checked)
    return func if body is func.body else func.replace(body=body)


def _checked(s: Any) -> Stmt:
    if kids(s):
        return s  # type: ignore[no-any-return]
    checks: dict[AssertStmt, None] = {}
    if isinstance(s, BufferStore):
        checks.update(dict.fromkeys(_tests(s, ())))
    for c in children(s):
        _below(c, (), checks)
    return seq(*checks, s) if checks else s


def _below(x: Any, when: tuple[PrimExpr, ...], checks: dict[AssertStmt, None]) -> None:
    """Assertions for the loads of an expression; `when`: conditions of lazy choices around them."""
    if not isinstance(x, PrimExpr):
        return
    if isinstance(x, BufferLoad):
        for i in x.indices:
            _below(i, when, checks)
        checks.update(dict.fromkeys(_tests(x, when)))
    elif isinstance(x, Call) and x.op == "if_then_else":
        cond, a, b = x.args
        _below(cond, when, checks)
        _below(a, (*when, cond), checks)
        _below(b, (*when, e.lnot(cond)), checks)
    else:
        for c in children(x):
            _below(c, when, checks)


def _tests(x: Any, when: tuple[PrimExpr, ...]) -> list[AssertStmt]:
    from warpbeam.tir.text.printer import brief

    found = []
    for k, (i, size) in enumerate(zip(x.indices, x.buffer.shape, strict=True)):
        if "x" in i.dtype or (isinstance(i, e.IntImm) and isinstance(size, int) and 0 <= i.value < size):
            continue
        inside = e.land(i >= 0, i < e.as_expr(size))
        cond = inside
        for w in reversed(when):
            cond = e.if_then_else(w, cond, e.const(True, "bool"))
        shape = size if isinstance(size, int) else brief(size)
        what = f"{x.buffer.name}[{', '.join(brief(j) for j in x.indices)}]"
        found.append(AssertStmt(cond, f"{what}: index {k} is outside of [0, {shape})"))
    return found
