"""Runs kernels for GPUs on the CPU, with the rules of a GPU: grids of blocks, barriers, shared memory, warps.

    host, devices = lower_gpu(func, target)
    run(host, devices, a, b, out)         arrays in parameter order, changed in place

All threads of many blocks run at once as one axis of NumPy arrays; divergence is a mask. Threads run in lock step here,
which hides what a GPU does not promise, so every access is checked: a race (two threads of a block meet in an element
without a barrier between, or two blocks of a launch meet at all, and one writes something else than the other), reading
what nobody wrote, leaving a buffer, and a barrier that only some threads of a block reach are errors that name the
statement, the element and the threads. Two threads that write the same value to an element are no race.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.tir import expr as e
from warpbeam.tir import stmt as s
from warpbeam.tir.interp_gpu_machine import Threads
from warpbeam.tir.interp_gpu_memory import GpuError, Memory, RaceError, UninitializedError
from warpbeam.tir.interp_memory import InterpError

__all__ = ["GpuError", "RaceError", "UninitializedError", "run", "run_kernel"]

Env = dict[Any, Any]
_LANES = 1 << 15  # threads that run at once


def run(host: s.PrimFunc, devices: Sequence[s.PrimFunc], *args: Any) -> None:
    """Executes a host function in place, its launches on this machine.

    args: one NumPy array per buffer parameter (workspace at the end may be left out) and integers for sizes that no
    shape states. Raises GpuError, RaceError, UninitializedError, OutOfBoundsError.
    """
    arrays = [a for a in args if isinstance(a, np.ndarray)]
    numbers = [a for a in args if not isinstance(a, np.ndarray)]
    env: Env = {}
    for var, value in zip((p for p in host.params if isinstance(p, e.Var)), numbers, strict=False):
        env[var] = int(value)
    spare = int(host.attrs.get("workspace", 0))
    if not len(host.buffers) - spare <= len(arrays) <= len(host.buffers):
        raise InterpError(f"{host.name} takes {len(host.buffers) - spare} arrays, got {len(arrays)}")
    for buffer, array in zip(host.buffers, arrays, strict=False):
        if array.dtype != dt.to_numpy(buffer.dtype) or array.ndim != len(buffer.shape):
            raise InterpError(f"{buffer.name} of {host.name} is {buffer.dtype}{list(buffer.shape)}, got {array.dtype}")
        for dim, size in zip(buffer.shape, array.shape, strict=True):
            if isinstance(dim, e.Var):
                env.setdefault(dim, int(size))
        if [integer(d, env) for d in buffer.shape] != list(array.shape):
            raise InterpError(f"{buffer.name} of {host.name} has shape {list(buffer.shape)}, got {list(array.shape)}")
        env[buffer] = Memory.of_array(array, buffer)
    for buffer in host.buffers[len(arrays) :]:
        env[buffer] = Memory.fresh(buffer, [integer(d, env) for d in buffer.shape])
    with np.errstate(all="ignore"):
        _host(host.body, env, {d.name: d for d in devices})
    for buffer, array in zip(host.buffers, arrays, strict=False):
        array[...] = env[buffer].flat.reshape(array.shape)


def integer(value: Any, env: Env) -> int:
    """A size on the host."""
    if isinstance(value, int):
        return value
    machine = Threads.outside(env)
    return int(np.asarray(machine.value(value)).reshape(-1)[0])


def _host(stmt: Any, env: Env, devices: dict[str, s.PrimFunc]) -> None:
    if isinstance(stmt, s.SeqStmt):
        for c in stmt.stmts:
            _host(c, env, devices)
    elif isinstance(stmt, s.For):
        low = integer(stmt.min, env)
        for i in range(low, low + integer(stmt.extent, env)):
            _host(stmt.body, {**env, stmt.var: i}, devices)
    elif isinstance(stmt, s.LetStmt):
        _host(stmt.body, {**env, stmt.var: integer(stmt.value, env)}, devices)
    elif isinstance(stmt, s.IfThenElse):
        side = stmt.then if integer(stmt.cond, env) else stmt.orelse
        if side is not None:
            _host(side, env, devices)
    elif isinstance(stmt, s.Allocate):
        memory = Memory.fresh(stmt.buffer, [integer(d, env) for d in stmt.buffer.shape])
        _host(stmt.body, {**env, stmt.buffer: memory}, devices)
    elif isinstance(stmt, s.AssertStmt):
        if not integer(stmt.cond, env):
            raise GpuError(stmt.message, why="the assertion does not hold")
    elif isinstance(stmt, s.Evaluate) and isinstance(stmt.value, e.Call) and stmt.value.op == "launch_kernel":
        _launch(stmt.value, env, devices)
    else:
        raise InterpError(f"a host function cannot run a {type(stmt).__name__}", hint="bind its loops to threads")


def _launch(call: e.Call, env: Env, devices: dict[str, s.PrimFunc]) -> None:
    name = call.args[0]
    assert isinstance(name, e.StringImm)
    device = devices[name.value]
    dims = [integer(x, env) for x in call.args[1:7]]
    args: list[Any] = [env[a.buffer] if isinstance(a, e.BufferRef) else integer(a, env) for a in call.args[8:]]
    run_kernel(device, dims[:3], dims[3:], args)


def run_kernel(device: s.PrimFunc, grid: Sequence[int], block: Sequence[int], args: Sequence[Any]) -> None:
    """One launch. args: `Memory` for buffers, ints for sizes, in parameter order."""
    env: Env = dict(zip(device.params, args, strict=True))
    for p in device.params:
        if isinstance(p, e.Buffer):
            for dim, size in zip(p.shape, env[p].shape, strict=True):
                if isinstance(dim, e.Var):
                    env.setdefault(dim, size)
    for p in device.params:
        if isinstance(p, e.Buffer):
            env[p].begin_launch()
    threads = int(np.prod(block))
    blocks = int(np.prod(grid))
    at_once = max(1, _LANES // max(threads, 1))
    for first in range(0, blocks, at_once):
        Threads(env, device, list(grid), list(block), first, min(at_once, blocks - first)).run(device.body)
