"""Loops that walk to and fro, because the end of one walk is what the next finds in the caches.

for t in 8:                                          for t in 8:
    for p in 24:  # alternate="t"             ->         for p_turn in 24:
        B[p] = A[p]                                          let p = p_turn if t % 2 == 0 else 23 - p_turn
                                                             B[p] = A[p]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

from warpbeam.tir import expr as e
from warpbeam.tir.arith import simplify
from warpbeam.tir.expr import Var
from warpbeam.tir.stmt import For, LetStmt, PrimFunc, Stmt
from warpbeam.tir.transform.mutate import map_up

NOTE = "alternate"


def alternate_loops(func: PrimFunc) -> PrimFunc:
    """Serial loops noted "alternate": name of a loop around run backwards in odd iterations of that. Parallel ones keep
    the note: what a thread does in which order, code generators decide (`turning`).
    """
    body = map_up(func.body, _around)
    body = map_up(body, lambda s: s.replace(annotations=in_order(s.annotations)) if _noted(s) else s)
    return func if body is func.body else func.replace(body=body)


def in_order(notes: Mapping[str, Any]) -> dict[str, Any]:
    """The notes of a loop whose iterations have come to depend on each other."""
    return {k: v for k, v in notes.items() if k != NOTE}


def turning(f: For, variables: Iterable[Var]) -> For:
    """A part of a noted loop, walked to and fro by the variable that its note names, if that is among `variables`."""
    name = f.annotations.get(NOTE)
    time = next((v for v in variables if v.name == name), None)
    return f if time is None else _turning(f, time)


def _noted(s: Stmt) -> TypeGuard[For]:
    return isinstance(s, For) and NOTE in s.annotations and s.kind == "serial"


def _around(s: Any) -> Stmt:
    """A loop with those inside of it that follow its iterations."""
    if not isinstance(s, For) or s.kind not in ("serial", "parallel"):
        return s  # type: ignore[no-any-return]
    var = s.var
    body = map_up(s.body, lambda f: _turning(f, var) if _noted(f) and f.annotations[NOTE] == var.name else f)
    return s if body is s.body else For(s.var, s.min, s.extent, s.kind, body, s.annotations, s.thread)


def _turning(f: For, time: Var) -> For:
    turn = Var(f"{f.var.name}_turn", f.var.dtype)
    even = e.binary(e.EQ, e.floormod(time, e.const(2, time.dtype)), e.const(0, time.dtype))
    last = e.add(f.min, e.sub(f.extent, 1))
    place = simplify(e.select(even, turn, e.sub(e.add(f.min, last), turn)))
    return For(turn, f.min, f.extent, f.kind, LetStmt(f.var, place, f.body), in_order(f.annotations), f.thread)
