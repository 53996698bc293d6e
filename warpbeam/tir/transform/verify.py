"""Checks what code generators rely on, so that a mistake is reported here and not as a wrong result."""

from __future__ import annotations

from typing import Any

from warpbeam.ir.diagnostics import LowerError
from warpbeam.ir.node import children
from warpbeam.tir.analysis.tree import kids
from warpbeam.tir.expr import Broadcast, Buffer, BufferLoad, BufferRef, IntImm, Ramp, Var
from warpbeam.tir.stmt import Allocate, Block, BufferStore, For, PrimFunc

_LEAVES = (IntImm, Var, Buffer)


def verify(func: PrimFunc) -> PrimFunc:
    """The same function, or LowerError.

    No blocks; no vectorized or unrolled loops; no parallel loop in another; every buffer a parameter or allocated;
    buffers of scope "register" indexed by constants, with at most one trailing ramp.
    """
    known: set[Any] = set(func.buffers)
    nodes: list[Any] = []
    stack: list[tuple[Any, bool]] = [(func.body, False)]
    while stack:
        s, parallel = stack.pop()
        if isinstance(s, Block):
            raise LowerError(f"block {s.name} is left in {func.name}")
        if isinstance(s, For):
            if s.kind in ("vectorized", "unrolled"):
                raise LowerError(f"loop {s.var.name} is still {s.kind} in {func.name}")
            if s.kind == "parallel" and parallel:
                raise LowerError(f"parallel loop {s.var.name} is inside another", hint="fuse them")
            parallel = parallel or s.kind == "parallel"
        elif isinstance(s, Allocate):
            known.add(s.buffer)
        below = kids(s)
        if below:
            inside = {id(c) for c in below}
            nodes.extend(c for c in children(s) if id(c) not in inside)
            stack.extend((c, parallel) for c in below)
        else:
            nodes.append(s)
    _check_accesses(func, nodes, known)
    return func


def _check_accesses(func: PrimFunc, nodes: list[Any], known: set[Any]) -> None:
    seen: set[Any] = set()
    while nodes:
        n = nodes.pop()
        cls = type(n)
        if cls in _LEAVES or n in seen:
            continue
        seen.add(n)
        if cls is BufferLoad or cls is BufferStore:
            if n.buffer not in known:
                raise LowerError(f"buffer {n.buffer.name} in {func.name} is neither a parameter nor allocated")
            if n.buffer.scope == "register":
                _check_register(n)
            else:
                nodes.extend(n.indices)
            if cls is BufferStore:
                nodes.append(n.value)
        elif cls is BufferRef:
            if n.buffer not in known:
                raise LowerError(f"buffer {n.buffer.name} in {func.name} is neither a parameter nor allocated")
        elif cls is Broadcast:
            nodes.append(n.value)
        elif cls is not Ramp:
            nodes.extend(children(n))
        else:
            nodes.append(n.base)


def _check_register(n: Any) -> None:
    for k, i in enumerate(n.indices):
        if isinstance(i, Ramp) and k == len(n.indices) - 1:
            i = i.base
        if not isinstance(i, IntImm):
            raise LowerError(
                f"register buffer {n.buffer.name} is indexed by a variable",
                hint="unroll or vectorize all loops that index it, or give it scope local",
            )
