"""Replaces calls of mathematical functions by explicit arithmetic, so that no object needs a mathematics library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Node
from warpbeam.ir.rewrite import rewrite
from warpbeam.tir import expr as E
from warpbeam.tir import mathlib
from warpbeam.tir.mathscale import LOOKUP, PARTS, SCALE
from warpbeam.tir.mathscale import expanded as scaled
from warpbeam.tir.stmt import PrimFunc
from warpbeam.tir.transform.setting import Setting

SHORTEN = "to_bfloat16"
_LEAST = 2.0**-126  # of float32's normal numbers


def expand_math(func: PrimFunc, at: Setting | None = None) -> PrimFunc:
    """`func` with every call of a function in `mathlib.FUNCTIONS` expanded, and conversions to bfloat16 and products
    with powers of two for targets without an instruction.

    before: C[i] = exp(A[i])
    after:  C[i] = (explicit polynomial and bit operations of A[i])
    """
    left: set[str] = set()  # what the target may have an instruction for
    lookup = at is not None and at.target is not None and can_look_up(at.target)

    def expand(node: Node) -> Node | None:
        if not isinstance(node, E.Call):
            return None
        if node.op in mathlib.FUNCTIONS:
            left.add(SCALE)
            return mathlib.expand(node.op, node.args, node.attrs, lookup)
        left.update({node.op} & IN_STEPS.keys())
        return None

    def without(node: Node) -> Node | None:
        return in_steps(node) if isinstance(node, E.Call) and not _has(at, node) else None

    func = rewrite(func, expand)
    return rewrite(func, without) if left else func


def can_look_up(target: Any) -> bool:
    """Whether the target has an instruction for `lookup`."""
    return target.intrinsic(f"{LOOKUP}.float32.x{PARTS}") is not None


def in_steps(node: E.Call) -> E.PrimExpr | None:
    """A call that some machines have an instruction for in words that all have; None for others."""
    rule = IN_STEPS.get(node.op)
    return None if rule is None else rule(node)


def _has(at: Setting | None, node: E.Call) -> bool:
    """Whether the target does a call by an instruction."""
    target = None if at is None else at.target
    if target is None or target.kind != "llvm":
        return False
    return target.at_least(instruction(node), dt.lanes(node.dtype)) is not None


def instruction(node: E.Call) -> str:
    """The name of a call's instruction among those of a target, but for the lanes."""
    return node.op if node.op == SHORTEN else f"{node.op}.{dt.scalar(node.dtype)}"


def shortened(node: E.Call) -> E.PrimExpr:
    """What a conversion to bfloat16 by an instruction gives, in arithmetic."""
    (x,) = node.args
    return E.cast(node.dtype, E.select(E.call("abs", x) < E.const(_LEAST, x.dtype), x * E.const(0, x.dtype), x))


#: what has an instruction on some machines -> the same in other words
IN_STEPS: dict[str, Callable[[E.Call], E.PrimExpr]] = {SHORTEN: shortened, SCALE: scaled}
