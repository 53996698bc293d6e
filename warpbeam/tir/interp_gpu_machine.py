"""Threads of some blocks of a launch, run in lock step: variables are arrays over threads, branches are masks."""

from __future__ import annotations

from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.rewrite import post_order
from warpbeam.tir import expr as e
from warpbeam.tir import stmt as s
from warpbeam.tir.interp_control import Control
from warpbeam.tir.interp_gpu_memory import GpuError, Memory
from warpbeam.tir.interp_memory import InterpError
from warpbeam.tir.interp_values import Compiler, Step, uniform

_AXES = {f"{name}.{d}": (name, k) for name in ("blockIdx", "threadIdx") for k, d in enumerate("xyz")}
_WARP = 32


class Threads(Control):
    """State of the threads. `number`: a thread's number in the launch, `block`: its block's, `epoch`: barriers passed.

    Values have the shape (threads, lanes of a vector), 1 where they do not vary.
    """

    hint = "run tir.transform.gpu first"

    def __init__(
        self, env: dict[Any, Any], device: s.PrimFunc | None, grid: list[int], block: list[int], first: int, count: int
    ) -> None:
        super().__init__(_Compiler(_load_step))
        self.grid, self.dims, self.device = grid, block, device
        self.threads = int(np.prod(block))
        self.count = count * self.threads
        self.block_slot = np.repeat(np.arange(count), self.threads)
        self.block = self.block_slot + first
        self.tid = np.tile(np.arange(self.threads), count)
        self.number = self.block * self.threads + self.tid
        self.epoch = np.zeros(self.count, np.int64)
        for key, value in env.items():
            if isinstance(key, e.Buffer):
                self.memory[key] = value
            else:
                self.env[key] = dt.to_numpy(key.dtype).type(value)
        nodes = [] if device is None else post_order(device.body)
        self.written = {n.buffer for n in nodes if isinstance(n, s.BufferStore)}

    @staticmethod
    def outside(env: dict[Any, Any]) -> Threads:
        """One thread without a kernel, to evaluate expressions of the host."""
        return Threads(env, None, [1, 1, 1], [1, 1, 1], 0, 1)

    def active_lanes(self, lanes: int) -> Any:
        """Which (thread, lane) take part."""
        if self.mask is None:
            return np.ones((self.count, lanes), bool)
        mask = np.asarray(self.mask)
        return np.broadcast_to(mask if mask.ndim == 2 else mask.reshape(1, -1), (self.count, lanes))

    def active_threads(self) -> Any:
        return self.active_lanes(1)[:, 0]

    # ------------------------------------------------------------------------------------------------------- words

    def describe(self) -> str:
        """The statement that runs, as text."""
        inside = super().describe()
        name = self.device.name if self.device else ""
        return f"{name}: {inside}" if name and inside else name or inside

    def who(self, thread: int) -> str:
        return self.who_number(int(self.number[thread]))

    def who_number(self, number: int) -> str:
        """A thread in the words of its kernel."""
        block, tid = divmod(number, self.threads)
        return f"thread {_tuple(tid, self.dims)} of block {_tuple(block, self.grid)}"

    # ---------------------------------------------------------------------------------------------------- statements

    def store(self, n: Any) -> None:
        self.current = n
        if dt.scalar(n.value.dtype) != dt.scalar(n.buffer.dtype):
            raise InterpError(f"a {n.value.dtype} value is stored into {n.buffer.dtype} {n.buffer.name}")
        value = self.value(n.value)
        self.storage(n.buffer).store(self, [self.value(i) for i in n.indices], value)

    def allocate(self, n: Any) -> Any:
        shape = [int(self.value(e.as_expr(d)).reshape(-1)[0]) for d in n.buffer.shape]
        shared = n.buffer.scope.startswith("shared")
        copies = self.count // self.threads if shared else self.count
        self.memory[n.buffer] = Memory.fresh(n.buffer, shape, copies, "block" if shared else "private")
        return n.body

    def loop(self, n: Any) -> Any:
        self.current = n
        low, extent = np.asarray(self.value(n.min)), np.asarray(self.value(n.extent))
        if n.kind == "thread_binding":
            self._hardware(n, extent)
            return n.body
        kind = dt.to_numpy(n.var.dtype)
        if uniform(low) and uniform(extent):
            first = int(low.item())
            for i in range(first, first + int(extent.item())):
                self.env[n.var] = kind.type(i)
                self.run(n.body)
            return None
        for t in range(int(extent.max())):
            with self.masked(np.asarray(t < extent)):
                if self.active():
                    self.env[n.var] = low + np.asarray(t, kind)
                    self.run(n.body)
        return None

    def _hardware(self, n: s.For, extent: Any) -> None:
        if n.thread not in _AXES:
            raise InterpError(f"loop {n.var.name} runs on {n.thread}", hint="virtual threads must be lowered first")
        name, k = _AXES[n.thread]
        dims, source = (self.grid, self.block) if name == "blockIdx" else (self.dims, self.tid)
        if int(extent.item()) != dims[k]:
            raise GpuError(f"{n.thread} has {int(extent.item())} in the kernel, and {dims[k]} in the launch")
        before = int(np.prod(dims[:k]))
        self.env[n.var] = ((source // before) % dims[k]).astype(dt.to_numpy(n.var.dtype)).reshape(-1, 1)

    def check(self, n: Any) -> None:
        self.current = n
        wrong = np.broadcast_to(np.logical_not(self.value(n.cond)), (self.count, 1))[:, 0] & self.active_threads()
        if wrong.any():
            thread = int(np.argmax(wrong))
            raise GpuError(n.message, where=self.describe(), why=f"the assertion does not hold in {self.who(thread)}")

    def evaluate(self, n: Any) -> None:
        self.current = n
        if isinstance(n.value, e.Call) and n.value.op == "storage_sync":
            self._barrier()
        elif not (isinstance(n.value, e.Call) and n.value.op == "prefetch"):
            self.value(n.value)

    def _barrier(self) -> None:
        here = self.active_threads().reshape(-1, self.threads)
        some = here.any(1) & ~here.all(1)
        if some.any():
            block = int(np.argmax(some))
            base = block * self.threads
            inside, outside = base + int(np.argmax(here[block])), base + int(np.argmin(here[block]))
            raise GpuError(
                f"{self.who(inside)} waits at a barrier that {self.who(outside)} does not reach",
                where=self.describe(),
                why="the barrier stands under a condition or in a loop that differs between threads of a block",
                hint="all threads of a block must reach a barrier: move it out of the branch",
            )
        self.epoch = self.epoch + self.active_threads()


def _tuple(number: int, dims: list[int]) -> str:
    found = []
    for d in dims:
        number, digit = divmod(number, d)
        found.append(digit)
    return f"({', '.join(map(str, found))})"


# --------------------------------------------------------------------------------------------------------- expressions


def _load_step(n: e.BufferLoad, compiler: Compiler) -> Step:
    codes = [compiler.compile(i) for i in n.indices]

    def run(m: Any, _: list[Any]) -> Any:
        return m.storage(n.buffer).load(m, [c.run(m) for c in codes])

    return run


class _Compiler(Compiler):
    """Expressions, with values that go from thread to thread."""

    def step(self, n: Any, at: list[int]) -> Step:
        if type(n) is e.Call and n.op.startswith("warp_shuffle"):
            return lambda m, slots: _shuffle(m, n, [slots[k] for k in at])
        return super().step(n, at)


def _shuffle(m: Threads, n: e.Call, operands: list[Any]) -> Any:
    value = np.asarray(operands[0])
    value = np.broadcast_to(value.reshape((1, 1) if value.ndim == 0 else value.shape[-2:]), (m.count, 1))
    by, width = (np.broadcast_to(np.asarray(v).reshape(-1), (m.count,)).astype(np.int64) for v in operands[1:3])
    lane = m.tid % _WARP
    group = lane // width * width
    source = {
        "warp_shuffle": group + by % width,
        "warp_shuffle_down": np.where(lane % width + by < width, lane + by, lane),
        "warp_shuffle_up": np.where(lane % width - by >= 0, lane - by, lane),
        "warp_shuffle_xor": np.where((lane ^ by) < group + width, lane ^ by, lane),
    }[n.op]
    tid = m.tid // _WARP * _WARP + source
    here = m.active_threads()
    far = here & (tid >= m.threads)
    place = np.where(far, 0, m.block_slot * m.threads + np.minimum(tid, m.threads - 1))
    far |= here & ~here[place]
    if far.any():
        thread = int(np.argmax(far))
        raise GpuError(
            f"{m.who(thread)} takes a value from lane {int(source[thread])} of its warp, which does not take part",
            where=m.describe(),
            why="a shuffle reads registers of threads that run the same statement",
            hint="move the shuffle out of the branch, or use a block of whole warps",
        )
    return value[place]
