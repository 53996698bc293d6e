"""What is said about a plan of memory: how large the arena is and could be at best, and what shares memory."""

from __future__ import annotations

from typing import Any

from warpbeam.driver.memory import Placement
from warpbeam.driver.shapes import fold
from warpbeam.ir import dtype as dt
from warpbeam.runtime.program import CallKernel, Instruction, Move, Program, Value, in_place, walk
from warpbeam.runtime.shape_expr import show


def facts(program: Program, packing: Placement) -> dict[str, Any]:
    """Bytes are numbers, or expressions of the sizes as text. bound: the bytes alive at the busiest step, below which
    no packing can go; apart: the bytes if nothing shared memory.
    """
    steps = list(walk(program.body))
    calls = [i for i in steps if isinstance(i, CallKernel)]
    by_id = {v.id: v for v in program.values}
    return {
        "arena": _number(packing.total),
        "bound": _number(packing.bound),
        "apart": _number(packing.apart),
        "packed": list(packing.orders),
        "kernel_calls": len(calls),
        "moved": _number(_moved(program)),
        "moved_constants": _number(_moved(program, only="const")),
        "copies": sum(_copies(i, by_id) for i in steps),
        "written_over": sum(len(c.donates) for c in calls),
        "views": sum(v.storage[0] == "view" for v in program.values),
        "strided": sum(bool(v.strides) for v in program.values),
    }


def traffic(values: list[Value]) -> Any:
    """Bytes that a kernel reads and writes at least; its workspaces stay in cache."""
    total: Any = 0
    for v in values:
        if v.name == "workspace":
            continue
        size: Any = dt.nbytes(v.dtype)
        for extent in v.shape:
            size = fold("mul", size, extent)
        total = fold("add", total, size)
    return total


def _moved(program: Program, only: str = "") -> Any:
    """Bytes that all kernel calls and copies of one run move, each operand and result of a call once and whole.

    only: the operands of calls whose storage is of this kind.
    """
    by_id = {v.id: v for v in program.values}
    total: Any = 0
    for i in walk(program.body):
        if isinstance(i, CallKernel):
            values = (by_id[a] for a in dict.fromkeys(i.args))
            total = fold("add", total, traffic([v for v in values if only in ("", v.storage[0])]))
        elif _copies(i, by_id) and not only:
            total = fold("add", total, fold("mul", 2, traffic([by_id[i.result]])))
    return total


def _copies(instruction: Instruction, by_id: dict[int, Value]) -> bool:
    return isinstance(instruction, Move) and not in_place(instruction, by_id)


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
        f" with gaps; {found['kernel_calls']} kernel calls, {found['copies']} copies, {_size(found['moved'])} moved",
    ]


def _size(value: Any) -> str:
    return f"{value / 1e6:.3f} MB" if isinstance(value, int) else f"{value} bytes"
