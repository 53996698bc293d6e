"""Replaces calls of mathematical functions by explicit arithmetic, so that no object needs a mathematics library."""

from __future__ import annotations

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Node
from warpbeam.ir.rewrite import rewrite
from warpbeam.tir import expr as E
from warpbeam.tir import mathlib
from warpbeam.tir.stmt import PrimFunc
from warpbeam.tir.transform.setting import Setting

SHORTEN = "to_bfloat16"
_LEAST = 2.0**-126  # of float32's normal numbers


def expand_math(func: PrimFunc, at: Setting | None = None) -> PrimFunc:
    """`func` with every call of a function in `mathlib.FUNCTIONS` expanded, and conversions to bfloat16 for targets
    without an instruction.

    before: C[i] = exp(A[i])
    after:  C[i] = (explicit polynomial and bit operations of A[i])
    """

    def expand(node: Node) -> Node | None:
        if isinstance(node, E.Call) and node.op in mathlib.FUNCTIONS:
            return mathlib.expand(node.op, node.args)
        if isinstance(node, E.Call) and node.op == SHORTEN and not _has(at, dt.lanes(node.dtype)):
            return shortened(node)
        return None

    return rewrite(func, expand)  # type: ignore[no-any-return]


def _has(at: Setting | None, lanes: int) -> bool:
    """Whether the target converts so many lanes to bfloat16 by an instruction."""
    target = None if at is None else at.target
    found = target is not None and target.kind == "llvm" and target.intrinsic(f"{SHORTEN}.x16") is not None
    return found and lanes <= 16


def shortened(node: E.Call) -> E.PrimExpr:
    """What a conversion to bfloat16 by an instruction gives, in arithmetic."""
    (x,) = node.args
    return E.cast(node.dtype, E.select(E.call("abs", x) < E.const(_LEAST, x.dtype), x * E.const(0, x.dtype), x))
