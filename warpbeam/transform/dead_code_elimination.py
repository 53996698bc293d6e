"""Drops let values that nobody uses and functions that nobody calls."""

from __future__ import annotations

from typing import Any

from warpbeam.ir.rewrite import post_order
from warpbeam.ir.transform import PassContext, module_pass
from warpbeam.relay.expr import (
    Call,
    Constructor,
    Expr,
    Function,
    GlobalVar,
    IRModule,
    Let,
    RefCreate,
    RefRead,
    RefWrite,
    Var,
)
from warpbeam.relay.op import Op
from warpbeam.transform.graph import inline_lets, use_counts


def is_pure(expr: Expr) -> bool:
    """Whether evaluating an expression certainly has no effect (function bodies are not evaluated)."""
    for n in post_order(expr, enter=lambda n: not isinstance(n, Function)):
        if isinstance(n, RefCreate | RefRead | RefWrite):
            return False
        if isinstance(n, Call) and not (n.op.pure if isinstance(n.op, Op) else isinstance(n.op, Constructor)):
            return False
    return True


def drop_dead_lets(fn: Function, ignore_impurity: bool = False, inline_once: bool = False) -> Function:
    """Removes unused lets until none is left; with `inline_once`, also lets used once (pure ones)."""
    while True:
        counts = use_counts(fn.body)  # the binding itself is one use
        lets = [n for n in post_order(fn.body) if isinstance(n, Let) and (ignore_impurity or is_pure(n.value))]
        gone: dict[Var, Expr] = {n.var: n.body for n in lets if counts[n.var] == 1}
        if inline_once:
            once = {n.var: n.value for n in lets if counts[n.var] == 2 and not isinstance(n.value, Function)}
            gone.update({v: e for v, e in once.items() if not any(n in once for n in post_order(e))})
        if not gone:
            return fn
        fn = inline_lets(fn, gone)


def remove_unused(mod: IRModule, entry: tuple[str, ...] = ("main",)) -> IRModule:
    """Only the functions that are reached from the entry functions."""
    if not any(name in mod for name in entry):
        return mod
    todo = [g for g in mod.functions if g.name in entry]
    keep = set(todo)
    while todo:
        for n in post_order(mod.functions[todo.pop()]):
            if isinstance(n, GlobalVar) and n in mod.functions and n not in keep:
                keep.add(n)
                todo.append(n)
    return IRModule({g: f for g, f in mod.functions.items() if g in keep}, mod.types)


@module_pass(opt_level=1, name="DeadCodeElimination", required=["InferType"])
class DeadCodeElimination:
    """Drops unused lets. inline_once: puts values used once in place. ignore_impurity: drops effects, too."""

    def __init__(self, inline_once: bool = False, ignore_impurity: bool = False) -> None:
        self.inline_once = inline_once
        self.ignore_impurity = ignore_impurity

    def transform_module(self, mod: IRModule, ctx: PassContext) -> IRModule:
        return mod.map(lambda f: drop_dead_lets(f, self.ignore_impurity, self.inline_once))


@module_pass(opt_level=1, name="RemoveUnusedFunctions")
class RemoveUnusedFunctions:
    """Drops functions that the entry functions do not reach."""

    def __init__(self, entry_functions: Any = ("main",)) -> None:
        self.entry = tuple(entry_functions)

    def transform_module(self, mod: IRModule, ctx: PassContext) -> IRModule:
        return remove_unused(mod, self.entry)
