"""Users' rules for intrinsics: `register_intrin_lowering("tir.exp", target="cuda", f=rule)`.

A rule takes a call and gives an expression, or None to leave the call alone. Rules run before lowering, the highest
level first, for one kind of target or for all ("default").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from warpbeam.ir.rewrite import rewrite
from warpbeam.target import Target
from warpbeam.tir import intrin
from warpbeam.tir.expr import Call, PrimExpr
from warpbeam.tir.stmt import PrimFunc

Rule = Callable[[Any], PrimExpr | None]
_RULES: dict[tuple[str, str], list[tuple[int, Rule]]] = {}
#: what an unknown result means: a rule may decline
_ROUNDS = 4


def register_intrin_lowering(op_name: str, target: str, *, f: Rule | None = None, level: int = 10) -> Any:
    """Registers a rule for calls of an intrinsic; as a call or a decorator.

    Args:
        op_name: the intrinsic, "tir.exp" or "exp".
        target: a target's kind, or "default" for all.
        level: rules of a higher level are asked first.
    """

    def register(rule: Rule) -> Rule:
        rows = _RULES.setdefault((op_name.removeprefix("tir."), target), [])
        rows[:] = sorted([r for r in rows if r[0] != level] + [(level, rule)], key=lambda r: -r[0])
        return rule

    return register if f is None else register(f)


def register_op_attr(op_name: str, attr_key: str, value: Any = None, level: int = 10) -> Any:
    """Declares an intrinsic of the user's own; `TCallEffectKind` says whether its calls have an effect.

    Other attributes have nothing to steer here.
    """

    def register(found: Any) -> Any:
        name = op_name.removeprefix("tir.")
        if attr_key == "TCallEffectKind" and name not in intrin.INTRINSICS:
            effect = "pure" if str(found) in ("0", "1", "pure") or found in (0, 1) else "effect"
            intrin.INTRINSICS[name] = intrin.Intrin(name, -1, "declared by the user", None, effect, result="any")
        return found

    return register if value is None else register(value)


def apply(func: PrimFunc, target: Target) -> PrimFunc:
    """The function with users' rules for the target applied, until none changes anything (at most a few times)."""
    if not _RULES:
        return func
    for _ in range(_ROUNDS):
        new = rewrite(func.body, lambda node: _apply(node, target))
        if new is func.body:
            break
        func = func.replace(body=new)
    return func


def _apply(node: Any, target: Target) -> Any:
    if not isinstance(node, Call):
        return None
    rows = _RULES.get((node.op, str(target.kind)), []) + _RULES.get((node.op, "default"), [])
    for _, rule in rows:
        found = rule(node)
        if found is not None and found is not node:
            return found
    return None
