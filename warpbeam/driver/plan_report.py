"""What is said about a plan of memory: how large the arena is and could be at best, and what shares memory."""

from __future__ import annotations

from typing import Any

from warpbeam.driver.memory import Placement
from warpbeam.runtime.program import CallKernel, Move, Program, walk
from warpbeam.runtime.shape_expr import show


def facts(program: Program, packing: Placement) -> dict[str, Any]:
    """Bytes are numbers, or expressions of the sizes as text. bound: the bytes alive at the busiest step, below which
    no packing can go; apart: the bytes if nothing shared memory.
    """
    steps = list(walk(program.body))
    calls = [i for i in steps if isinstance(i, CallKernel)]
    return {
        "arena": _number(packing.total),
        "bound": _number(packing.bound),
        "apart": _number(packing.apart),
        "packed": list(packing.orders),
        "kernel_calls": len(calls),
        "copies": sum(isinstance(i, Move) for i in steps),
        "written_over": sum(len(c.donates) for c in calls),
        "views": sum(v.storage[0] == "view" for v in program.values),
        "strided": sum(bool(v.strides) for v in program.values),
    }


def _number(value: Any) -> Any:
    return value if isinstance(value, int) else show(value)


def text(found: dict[str, Any]) -> list[str]:
    """Two lines."""
    if not found:
        return []
    order = ", then ".join(dict.fromkeys(found["packed"])) or "nothing"
    arena, bound, apart = (_size(found[k]) for k in ("arena", "bound", "apart"))
    return [
        f"arena {arena}, lower bound {bound}, {apart} if nothing shared memory (packed by {order})",
        f"{found['written_over']} results written over operands, {found['views']} views, {found['strided']} of them"
        f" with gaps; {found['kernel_calls']} kernel calls, {found['copies']} copies",
    ]


def _size(value: Any) -> str:
    return f"{value / 1e6:.3f} MB" if isinstance(value, int) else f"{value} bytes"
