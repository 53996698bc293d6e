"""Rebuilding statements: the chain of root allocations is walked in a loop, nests (as deep as loops) by recursion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from warpbeam.tir.analysis.tree import kids, with_kids
from warpbeam.tir.stmt import Allocate, SeqStmt, Stmt


def peel(body: Stmt) -> tuple[list[Allocate], Stmt]:
    """The allocations around a function's body, outer first, and what is inside."""
    allocs = []
    while isinstance(body, Allocate):
        allocs.append(body)
        body = body.body
    return allocs, body


def wrap(allocs: list[Allocate], body: Stmt) -> Stmt:
    """`body` inside the given allocations again."""
    for a in reversed(allocs):
        body = Allocate(a.buffer, body, a.annotations)
    return body


def map_leaves(body: Stmt, change: Callable[[Stmt], Stmt | None]) -> Stmt:
    """Every statement without statements below it goes through `change`; None removes it."""
    return map_up(body, lambda s: s if kids(s) else change(s))


def map_up(body: Stmt, change: Callable[[Stmt], Stmt | None]) -> Stmt:
    """Every statement below the root allocations goes through `change`, innermost first; None removes it."""
    allocs, inner = peel(body)
    return wrap(allocs, _map(inner, change) or SeqStmt(()))


def _map(s: Stmt, change: Callable[[Stmt], Stmt | None]) -> Stmt | None:
    below = kids(s)
    if below:
        new: list[Any] = [_map(c, change) for c in below]
        if not all(a is b for a, b in zip(new, below, strict=True)):
            rebuilt = with_kids(s, new)
            if rebuilt is None:
                return None
            s = rebuilt
    return change(s)
