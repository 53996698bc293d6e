"""Makes a choice lazy where the side not chosen would read outside of a buffer, because Select evaluates both.

B[i] = select(i > 0, A[i - 1], 0.0)     ->     B[i] = if_then_else(i > 0, A[i - 1], 0.0)
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir.rewrite import post_order, rewrite
from warpbeam.tir import expr as e
from warpbeam.tir.arith import Facts, bounds, prove
from warpbeam.tir.expr import BufferLoad, Select
from warpbeam.tir.stmt import For, PrimFunc
from warpbeam.tir.transform.setting import Setting


def rewrite_unsafe_select(func: PrimFunc, at: Setting | None = None) -> PrimFunc:
    """Selects with a read whose index has constant bounds beyond the buffer's become lazy choices.

    Indices that themselves are read from memory are the program's own affair and stay.
    """
    facts = Facts()
    for n in post_order(func.body):
        if isinstance(n, For):
            facts.bind(n.var, n.min, n.extent)

    def change(n: Any) -> Any:
        if type(n) is Select and "x" not in n.dtype and "x" not in n.cond.dtype and _unsafe((n.a, n.b), facts):
            return e.if_then_else(n.cond, n.a, n.b)
        return None

    body = rewrite(func.body, change)
    return func if body is func.body else func.replace(body=body)


def _unsafe(sides: tuple[Any, ...], facts: Facts) -> bool:
    for n in post_order(*sides, enter=lambda n: not (type(n) is e.Call and n.op == "if_then_else")):
        if isinstance(n, BufferLoad):
            for i, size in zip(n.indices, n.buffer.shape, strict=True):
                if any(isinstance(x, BufferLoad) for x in post_order(i)):
                    continue
                low, high = bounds(i, facts)
                whole = e.const_int(size)
                below = low is not None and low < 0 and prove(i >= 0, facts) is not True
                above = high is not None and whole is not None and high >= whole and prove(i < whole, facts) is not True
                if below or above:
                    return True
    return False
