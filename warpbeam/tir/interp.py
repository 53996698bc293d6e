"""Runs loop programs with NumPy: what a PrimFunc means, at any stage of scheduling and lowering, at real sizes.

    run(func, a, b, out)      arrays in parameter order, changed in place; sizes are read off the shapes

Loops whose iterations are independent run all at once (`interp_parallel`), so a convolution of a real network takes
seconds, and yet every element is computed by the very operations of the program, in their order, rounded as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import substitute
from warpbeam.tir import expr as e
from warpbeam.tir import stmt as s
from warpbeam.tir.interp_machine import KernelAssertError, Machine
from warpbeam.tir.interp_memory import InterpError, OutOfBoundsError, Storage, undefined
from warpbeam.tir.transform.lower_init import lower_init

__all__ = ["InterpError", "KernelAssertError", "OutOfBoundsError", "run", "without_blocks"]


def run(func: s.PrimFunc, *args: Any, batch: bool = True) -> None:
    """Executes `func` in place.

    args: one NumPy array per buffer parameter (workspace buffers at the end may be left out) and one integer per size
    parameter, each kind in parameter order; sizes that shapes of arrays state may be left out.
    batch: False runs every loop one iteration at a time.
    Raises OutOfBoundsError, KernelAssertError, or InterpError for arguments that do not fit.
    """
    arrays = [a for a in args if isinstance(a, np.ndarray)]
    numbers = [a for a in args if not isinstance(a, np.ndarray)]
    m = Machine(batch)
    _bind_sizes(func, arrays, numbers, m)
    back = _bind_buffers(func, arrays, m)
    if any(0 in storage.shape for storage in m.memory.values()):
        func = lower_init(func)  # where a reduction runs over nothing its result is the start
    body = without_blocks(func.body)
    with np.errstate(all="ignore"):
        m.run(body)
    for array, flat in back:
        array[...] = flat.reshape(array.shape)


def _bind_sizes(func: s.PrimFunc, arrays: list[Any], numbers: list[Any], m: Machine) -> None:
    sizes = [p for p in func.params if isinstance(p, e.Var)]
    if len(numbers) > len(sizes):
        raise InterpError(f"{func.name} takes {len(sizes)} sizes, got {len(numbers)}")
    for var, value in zip(sizes, numbers, strict=False):
        m.env[var] = dt.to_numpy(var.dtype).type(value)
    for buffer, array in zip(func.buffers, arrays, strict=False):
        steps = [s // max(array.itemsize, 1) for s in array.strides]
        stated = [*zip(buffer.shape, array.shape, strict=False), *zip(buffer.strides, steps, strict=False)]
        for dim, size in [*stated, (buffer.elem_offset, 0)]:
            found: Any = dim.value if isinstance(dim, e.Cast) else dim
            if isinstance(found, e.Var) and found not in m.env:
                m.env[found] = dt.to_numpy(found.dtype).type(size)
    missing = [v.name for v in sizes if v not in m.env]
    if missing:
        raise InterpError(
            f"{func.name} needs values for the sizes {missing}",
            why="no array has one of them as a dimension of its own",
            hint="pass them as integers after the arrays, in parameter order",
        )


def _bind_buffers(func: s.PrimFunc, arrays: list[Any], m: Machine) -> list[tuple[Any, Any]]:
    """Memory of the parameters; returns the arrays that must be copied back (those that are not contiguous)."""
    buffers = func.buffers
    spare = int(func.attrs.get("workspace", 0))
    if not len(buffers) - spare <= len(arrays) <= len(buffers):
        raise InterpError(f"{func.name} takes {len(buffers) - spare} arrays, got {len(arrays)}")
    back = []
    for k, buffer in enumerate(buffers):
        shape = [m.integer(d) for d in buffer.shape]
        if k >= len(arrays):
            m.memory[buffer] = Storage(undefined(int(np.prod(shape, dtype=np.int64)), buffer.dtype), shape)
            continue
        array = arrays[k]
        if _carries(buffer.dtype, dt.from_numpy(array.dtype)):  # lowered: small types and bools as their bytes
            array = array.view(dt.to_numpy(buffer.dtype))
        if array.dtype != dt.to_numpy(buffer.dtype) or list(array.shape) != shape:
            raise InterpError(
                f"argument {k} is {array.dtype}{list(array.shape)}",
                where=f"{func.name}, buffer {buffer.name}",
                why=f"the program declares {buffer.dtype}{shape}",
            )
        if array.flags.c_contiguous:
            flat = array.reshape(-1)
        else:
            flat = np.array(array).reshape(-1)
            back.append((array, flat))
        m.memory[buffer] = Storage(flat, shape)
    return back


def _carries(byte: str, dtype: str) -> bool:
    return dt.carrier(dtype) == byte or (dt.is_bool(dtype) and byte == "uint8")


# -------------------------------------------------------------------------------------------------------------- blocks


def without_blocks(stmt: s.Stmt) -> s.Stmt:
    """Each block as what it means: axes replaced by their bindings, predicate and first-instance test as branches."""
    from warpbeam.ir.rewrite import rewrite

    return rewrite(stmt, lambda n: _plain(n) if type(n) is s.Block else None)  # type: ignore[no-any-return]


def _plain(block: s.Block) -> s.Stmt:
    values = {a.var: b for a, b in zip(block.axes, block.bindings, strict=True)}
    body = substitute(block.body, values)
    if block.init is not None:
        at_start = [b == e.const(0, b.dtype) for a, b in zip(block.axes, block.bindings) if a.kind == "reduce"]
        first = e.land(*at_start)
        init = substitute(block.init, values)
        body = s.seq(init if type(first) is e.IntImm else s.IfThenElse(first, init), body)
    if type(block.predicate) is e.IntImm and block.predicate.value:
        return body  # type: ignore[no-any-return]
    return s.IfThenElse(substitute(block.predicate, values), body)
