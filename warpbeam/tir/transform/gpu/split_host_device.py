"""Cuts a function into a host part, which launches, and device functions, because two compilers take them.

    for bx in 4 (blockIdx.x):                host f(A, B):   launch_kernel("f_kernel", 4, 1, 1, 64, 1, 1, 0, A, B)
        for tx in 64 (threadIdx.x):   ->     device f_kernel(A, B):
            B[64*bx + tx] = A[64*bx + tx]        for bx in 4 (blockIdx.x): for tx in 64 (threadIdx.x): B[…] = A[…]

The operands of `launch_kernel` are the name, the grid, the block, bytes of dynamic shared memory, and the arguments.
Several kernels are called f_kernel, f_kernel_1, ….
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import LowerError
from warpbeam.ir.node import Node
from warpbeam.ir.rewrite import post_order
from warpbeam.tir import expr as e
from warpbeam.tir.expr import Buffer, Call, PrimExpr, StringImm, Var
from warpbeam.tir.stmt import Allocate, Evaluate, For, LetStmt, PrimFunc, Stmt
from warpbeam.tir.transform.gpu.common import TAGS, map_kernels, nest_of
from warpbeam.tir.transform.mutate import peel, wrap


def split_host_device(func: PrimFunc) -> tuple[PrimFunc, list[PrimFunc]]:
    """The host function and its device functions, in launch order."""
    made: list[PrimFunc] = []

    def change(kernel: For) -> Stmt:
        name = f"{func.name}_kernel" + (f"_{len(made)}" if made else "")
        device, launch = _kernel(func, kernel, name)
        made.append(device)
        return launch

    allocs, body = peel(func.body)
    body = map_kernels(body, change)
    return func.replace(body=wrap(allocs, body)), made


def _kernel(func: PrimFunc, kernel: For, name: str) -> tuple[PrimFunc, Stmt]:
    loops, allocs, _ = nest_of(kernel)
    extents: dict[str, PrimExpr] = {f.thread: f.extent for f in loops}
    for tag, extent in extents.items():
        if any(isinstance(n, e.BufferLoad) for n in post_order(extent)):
            raise LowerError(f"the extent of {tag} in {name} is read from memory", why="a launch needs host values")
    variables, buffers = captures(kernel)
    order: list[Any] = [p for p in func.params if p in buffers or p in variables]
    params = [*order, *(b for b in buffers if b not in order), *(v for v in variables if v not in order)]
    params = [p for p in params if isinstance(p, Buffer)] + [p for p in params if isinstance(p, Var)]
    dynamic = sum(_bytes(a.buffer) for a in allocs if a.buffer.scope == "shared.dyn")
    dims = [e.cast("int64", extents.get(t, e.const(1))) for t in TAGS]
    call = Call("int32", "launch_kernel", (StringImm(name), *dims, e.const(dynamic), *params))
    attrs = {"device": True, "noalias": func.attrs.get("noalias", True)}
    return PrimFunc(name, params, kernel, attrs), Evaluate(call)


def _bytes(buffer: Buffer) -> int:
    total = dt.nbytes(buffer.dtype)
    for d in buffer.shape:
        total *= int(d)
    return total


def captures(root: Node) -> tuple[list[Var], list[Buffer]]:
    """Variables and buffers used at or below a statement and not bound there, in order of first use."""
    variables: dict[Var, None] = {}
    buffers: dict[Buffer, None] = {}
    bound: set[Any] = set()
    for n in post_order(root):
        if isinstance(n, Buffer):
            buffers[n] = None
        elif isinstance(n, Var):
            variables[n] = None
        elif isinstance(n, For | LetStmt | e.Let):
            bound.add(n.var)
        elif isinstance(n, Allocate):
            bound.add(n.buffer)
    for b in buffers:  # the variables of a shape are no children of its buffer
        for d in (*b.shape, *b.strides, b.elem_offset):
            if isinstance(d, Node):
                variables.update((v, None) for v in post_order(d) if isinstance(v, Var))
    return [v for v in variables if v not in bound], [b for b in buffers if b not in bound]
