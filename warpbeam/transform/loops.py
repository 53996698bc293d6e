"""Loops of a module before their branches are lifted: functions that end by calling themselves, and who calls them."""

from __future__ import annotations

from dataclasses import dataclass

from warpbeam.ir.node import children
from warpbeam.ir.rewrite import post_order
from warpbeam.relay.expr import Call, Expr, Function, GlobalVar, If, IRModule


def tail_call(gv: GlobalVar, fn: Function) -> If | None:
    """The If that a function ends with where one of its branches calls the function itself."""
    if not isinstance(fn.body, If):
        return None
    calls = [b for b in (fn.body.then, fn.body.orelse) if isinstance(b, Call) and b.op is gv]
    return fn.body if len(calls) == 1 else None


@dataclass(frozen=True, slots=True)
class Loop:
    """A function that ends by calling itself: `again` is that call, `tail` the If that it is a branch of."""

    gv: GlobalVar
    fn: Function
    tail: If
    again: Call

    @staticmethod
    def of(gv: GlobalVar, fn: Function) -> Loop | None:
        """The loop that a function of a module is, or None."""
        tail = tail_call(gv, fn)
        if tail is None or any(n is not tail.then and n is not tail.orelse for n in calls_of(fn, gv)):
            return None
        again = tail.then if isinstance(tail.then, Call) and tail.then.op is gv else tail.orelse
        assert isinstance(again, Call)
        return Loop(gv, fn, tail, again)

    def fixed(self, k: int) -> bool:
        """Whether a parameter is the same in all iterations."""
        return self.again.args[k] is self.fn.params[k]


def calls_of(fn: Function, gv: GlobalVar) -> list[Call]:
    """The calls of a function by name, in the body of one."""
    return [n for n in post_order(fn.body) if isinstance(n, Call) and n.op is gv]


def callers(mod: IRModule) -> tuple[dict[GlobalVar, list[tuple[GlobalVar, Call]]], set[GlobalVar]]:
    """(for each function by name: the functions that call it, with their calls; names that are used otherwise)."""
    found: dict[GlobalVar, list[tuple[GlobalVar, Call]]] = {}
    loose: set[GlobalVar] = set()
    for gv, fn in mod.functions.items():
        if not isinstance(fn, Function):
            continue
        for n in post_order(fn.body):
            called = n.op if isinstance(n, Call) and isinstance(n.op, GlobalVar) else None
            if called is not None:
                found.setdefault(called, []).append((gv, n))  # type: ignore[arg-type]
            if isinstance(n, Expr):
                parts = n.args if called is not None else children(n)  # type: ignore[attr-defined]
                loose |= {c for c in parts if isinstance(c, GlobalVar)}
    return found, loose
