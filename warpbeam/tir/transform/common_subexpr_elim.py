"""Names index arithmetic that a loop's body repeats, so that printed programs say it once.

for i in 4:                                    for i in 4:
    for j in 8:                                    let t = i * 24 + 3
        B[i * 24 + 3 + j] = A[i * 24 + 3]   ->     for j in 8: B[t + j] = A[t]

Only integer arithmetic without reads of memory is named; code generators share equal values by themselves.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import children
from warpbeam.ir.rewrite import post_order, substitute
from warpbeam.tir import expr as e
from warpbeam.tir.analysis.access import free_vars
from warpbeam.tir.analysis.tree import kids
from warpbeam.tir.expr import BufferLoad, Call, PrimExpr, Var
from warpbeam.tir.stmt import For, LetStmt, PrimFunc, Stmt
from warpbeam.tir.transform.mutate import map_up
from warpbeam.tir.transform.setting import Setting

KEY = "tir.disable_cse_tir"
LEAST = 3  # nodes of an expression that is worth a name


def common_subexpr_elim(func: PrimFunc, at: Setting | None = None) -> PrimFunc:
    """Repeated index arithmetic is bound by `let` in the loop whose variable it needs last."""
    number = iter(range(1 << 30))
    body = map_up(func.body, lambda s: _loop(s, number))
    return func if body is func.body else func.replace(body=body)


def _loop(s: Any, number: Any) -> Stmt:
    if not isinstance(s, For):
        return s  # type: ignore[no-any-return]
    lets: list[tuple[Var, PrimExpr]] = []
    body = s.body
    while (found := _best(body, s.var)) is not None:
        var = Var(f"cse_{next(number)}", found.dtype)
        body = substitute(body, {found: var})
        lets.append((var, found))
    if not lets:
        return s
    for var, value in reversed(lets):
        body = LetStmt(var, value, body)
    return For(s.var, s.min, s.extent, s.kind, body, s.annotations, s.thread)


def _best(body: Stmt, var: Var) -> PrimExpr | None:
    """The largest repeated expression that uses the loop's variable and none bound further in."""
    inner = {n.var for n in post_order(body) if isinstance(n, For | LetStmt)}
    uses: Counter[Any] = Counter()
    todo: list[Any] = [body]
    while todo:
        s = todo.pop()
        below = kids(s)
        todo.extend(below)
        for part in children(s):
            if isinstance(part, PrimExpr):
                for n in post_order(part):
                    uses.update(c for c in children(n) if isinstance(c, PrimExpr))
                uses[part] += 1
    good = [x for x, n in uses.items() if n > 1 and _named(x) and var in free_vars(x) and not free_vars(x) & inner]
    return max(good, key=_size, default=None)


def _named(x: Any) -> bool:
    if not dt.is_int(x.dtype) or dt.lanes(x.dtype) > 1 or not isinstance(x, e.BinaryExpr):
        return False
    return _size(x) >= LEAST and not any(isinstance(n, BufferLoad | Call) for n in post_order(x))


def _size(x: Any) -> int:
    return sum(1 for _ in post_order(x))
