"""Calls of functions by name, for the interpreter: pointers are flat NumPy views of a buffer's memory.

A call with effects keeps the loops around it in order, so that all its operands are single values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import WarpbeamError
from warpbeam.tir import expr as e
from warpbeam.tir import intrin_named

if TYPE_CHECKING:
    from warpbeam.tir.interp_machine import Machine

Step = Callable[["Machine", list[Any]], Any]


def pointer(n: Any, at: list[int]) -> Step:
    """access_ptr(buffer, first, count, mask): the elements."""
    buffer = n.args[0].buffer

    def run(m: Machine, s: list[Any]) -> Any:
        first, count = (int(np.asarray(s[k]).item()) for k in at[-3:-1])
        flat = m.storage(buffer).flat
        if first < 0 or first + count > flat.size:
            from warpbeam.tir.interp_memory import OutOfBoundsError

            raise OutOfBoundsError(
                f"a pointer to elements [{first}, {first + count}) of buffer {buffer.name}, which has {flat.size}",
                where=m.describe(),
                hint="check offset and extent of the access_ptr",
            )
        return flat[first : first + count]

    return run


def function(n: Any, at: list[int]) -> Step:
    """call_extern: the registered Python meaning on views and numbers, or a function of C's mathematics."""
    name, kind = str(n.attrs["name"]), np.dtype(np.int64) if n.dtype == "handle" else dt.to_numpy(n.dtype)
    args = [a for a in n.args if type(a) is not e.StringImm]
    slots = dict(zip([k for k, a in enumerate(args) if type(a) is not e.BufferRef], at, strict=False))
    try:
        fn = intrin_named.extern(name)
    except WarpbeamError:
        meaning = intrin_named.c_math(name)
        if meaning is None:
            raise
        return lambda m, s: meaning([s[k] for k in at], dt.scalar(n.dtype))

    def run(m: Machine, s: list[Any]) -> Any:
        values: list[Any] = []
        for k, a in enumerate(args):
            if type(a) is e.BufferRef:
                values.append(m.storage(a.buffer).flat)
            else:
                values.append(s[slots[k]] if a.dtype == "handle" else np.asarray(s[slots[k]]).item())
        result = fn(*values)
        return np.asarray([0 if result is None else result]).astype(kind)

    return run


def of_llvm(n: Any, at: list[int]) -> Step:
    """A function of LLVM whose meaning is known."""
    from warpbeam.tir.interp_values import expanded

    fn, dtype = intrin_named.of_llvm(str(n.attrs["name"])), dt.scalar(n.dtype)
    counts = [dt.lanes(a.dtype) for a in n.args]
    return lambda m, s: fn([expanded(s[i], c) for i, c in zip(at, counts, strict=True)], dtype)


STEPS: dict[str, Callable[[Any, list[int]], Step]] = {
    "access_ptr": pointer,
    "call_extern": function,
    "call_pure_extern": function,
    "call_llvm_intrin": of_llvm,
    "call_llvm_pure_intrin": of_llvm,
}
