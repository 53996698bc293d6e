"""Checks that a device's program touches memory only inside threads, so that a forgotten `bind` is explained."""

from __future__ import annotations

from typing import Any

from warpbeam.ir.diagnostics import LowerError
from warpbeam.tir.analysis.access import accesses
from warpbeam.tir.analysis.tree import kids
from warpbeam.tir.stmt import For, PrimFunc
from warpbeam.tir.transform.setting import Setting


def verify_memory(func: PrimFunc, at: Setting | None = None) -> PrimFunc:
    """The same function, or LowerError that names the buffers which host code would read or write."""
    wrong: dict[str, None] = {}
    stack: list[Any] = [func.body]
    while stack:
        s = stack.pop()
        if isinstance(s, For) and s.kind == "thread_binding":
            continue
        below = kids(s)
        stack.extend(below)
        if not below:
            loads, stores = accesses(s)
            wrong.update((x.buffer.name, None) for x in loads)
            wrong.update((x.buffer.name, None) for x in stores)
    if wrong:
        raise LowerError(
            f"Memory verification failed: {', '.join(sorted(wrong))} in {func.name} "
            "would be accessed by the host, outside of all threads of the device",
            hint="Did you forget to bind? Give the outer loops to blockIdx.x and threadIdx.x",
        )
    return func
