"""Replaces calls of mathematical functions by explicit arithmetic, so that no object needs a mathematics library."""

from __future__ import annotations

from warpbeam.ir.node import Node
from warpbeam.ir.rewrite import rewrite
from warpbeam.target import Target
from warpbeam.tir import expr as E
from warpbeam.tir import mathlib
from warpbeam.tir.stmt import PrimFunc


def expand_math(func: PrimFunc, target: Target | None = None) -> PrimFunc:
    """`func` with every call of a function in `mathlib.FUNCTIONS` expanded.

    before: C[i] = exp(A[i])
    after:  C[i] = (explicit polynomial and bit operations of A[i])
    """

    def expand(node: Node) -> Node | None:
        if isinstance(node, E.Call) and node.op in mathlib.FUNCTIONS:
            return mathlib.expand(node.op, node.args)
        return None

    return rewrite(func, expand)  # type: ignore[no-any-return]
