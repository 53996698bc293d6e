"""Measures what the cost model assumes of the machine: the target's rates per cycle and the cost of a parallel loop.

Cycles are those of a chain of dependent additions, each of which takes one on every processor with pipelines worth the
name, so no clock frequency needs to be known. Each constant is the best of many short measurements: what disturbs the
machine only makes them worse. All loops are LLVM IR of our own and go the way of every kernel.
"""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable
from typing import Any

from warpbeam.codegen.llvm import compile_text
from warpbeam.driver.roof import FmaPeak, together
from warpbeam.runtime import pool
from warpbeam.runtime.context import HostContext
from warpbeam.runtime.linker import link_shared
from warpbeam.runtime.loader import Library
from warpbeam.runtime.memory import aligned_bytes
from warpbeam.runtime.pool_ll import EXPORTS, pool_ir
from warpbeam.target import Target

_REPEAT = 25
_CHAIN = 32  # dependent additions per iteration
_LOADS = 16
_STEPS = 1 << 13
_FORKS = 4
_WORK = 2048  # iterations of the chain that each part of a parallel loop has to do

Clock = Callable[[], float]


def _text(lanes: int, cores: int) -> str:
    """Loops: `chain` of dependent additions, `reads` of vectors, `forks` of parallel loops whose parts are chains."""
    chain, last = [], "%a"
    for k in range(_CHAIN):
        chain.append(f"  %c{k} = {'xor' if k % 2 else 'add'} i64 {last}, %i")
        last = f"%c{k}"
    vec = f"<{lanes} x float>"
    loads = []
    for k in range(_LOADS):
        loads += [f"  %p{k} = getelementptr {vec}, ptr %b, i64 {k}", f"  %v{k} = load {vec}, ptr %p{k}, align 64"]
    sums = [f"  %n{k} = fadd {vec} {f'%s{k}' if k < 4 else f'%n{k - 4}'}, %v{k}" for k in range(_LOADS)]
    first, final = range(4), range(_LOADS - 4, _LOADS)
    phis = [f"  %s{k} = phi {vec} [zeroinitializer, %entry], [%n{n}, %loop]" for k, n in zip(first, final, strict=True)]
    ends = [f"  %e{k} = getelementptr {vec}, ptr %out, i64 {k}\n  store {vec} %n{n}, ptr %e{k}, align 64"
            for k, n in zip(first, final, strict=True)]  # fmt: skip
    head = "entry:\n  br label %loop\nloop:\n  %i = phi i64 [0, %entry], [%next, %loop]"
    tail = (
        "  %next = add i64 %i, 1\n  %more = icmp slt i64 %next, %steps\n  br i1 %more, label %loop, label %done\ndone:"
    )
    args = "(ptr %ctx, ptr %data, ptr %out, i64 %steps)"
    return "\n".join([
        "declare i32 @wb_pool_parallel_for(ptr, ptr, ptr, i64)",
        f"define i32 @chain{args} {{", head, f"  %a = phi i64 [%steps, %entry], [{last}, %loop]", *chain, tail,
        f"  store i64 {last}, ptr %out", "  ret i32 0", "}",
        f"define i32 @reads{args} {{", head, *phis,
        f"  %at = mul i64 %i, {_LOADS}", f"  %b = getelementptr {vec}, ptr %data, i64 %at", *loads, *sums, tail, *ends,
        "  ret i32 0", "}",
        "define internal i32 @part(ptr %ctx, ptr %closure, i64 %begin, i64 %end) {",
        "  %place = getelementptr [8 x i64], ptr %closure, i64 %begin", "  %n = sub i64 %end, %begin",
        f"  %work = mul i64 %n, {_WORK}", "  %r = call i32 @chain(ptr %ctx, ptr null, ptr %place, i64 %work)",
        "  ret i32 %r", "}",
        f"define i32 @forks{args} {{", head,
        f"  %r = call i32 @wb_pool_parallel_for(ptr %ctx, ptr @part, ptr %out, i64 {cores})", tail, "  ret i32 0", "}",
    ])  # fmt: skip


class Loops:
    """The loops, compiled and loaded."""

    def __init__(self, target: Target) -> None:
        self.lanes = target.lanes("float32")
        texts = {"calibrate": _text(self.lanes, max(target.cores, 2)), "wb_pool": pool_ir(target.triple)}
        objects = [compile_text(text, target, name=name) for name, text in texts.items()]
        self.library = Library(link_shared(objects, [*EXPORTS, "chain", "reads", "forks"]), "calibrate")
        self.context = HostContext(0, 0, *pool.attach(self.library), 0)

    def best(self, name: str, steps: int, clock: Clock, data: Any = None, repeat: int = _REPEAT) -> float:
        """Seconds of the fastest run of a loop."""
        call = self._call(name, steps, data)
        found = math.inf
        for _ in range(repeat):
            start = clock()
            call()
            found = min(found, clock() - start)
        return found

    def _call(self, name: str, steps: int, data: Any = None) -> Callable[[], None]:
        function, out = self.library.function(name), aligned_bytes(1 << 12)
        places = [ctypes.c_void_p(a.ctypes.data) for a in (out if data is None else data, out)]
        count = ctypes.c_int64(steps)

        def call(keep: Any = (out, data)) -> None:
            function(self.context.pointer, *places, count)

        return call

    def _data(self, size: int) -> tuple[int, Any]:
        """(steps of `reads`, bytes for them)."""
        step = 4 * self.lanes * _LOADS
        steps = max(1, size // step)
        data = aligned_bytes(steps * step)
        data[:] = 0
        return steps, data

    def read_rate(self, size: int, clock: Clock) -> float:
        """Bytes per second that one core reads, over and over, of so many bytes."""
        steps, data = self._data(size)
        return data.size / self.best("reads", steps, clock, data)

    def memory_rate(self, size: int, cores: int, clock: Clock) -> float:
        """Bytes per second that each of `cores` reads when all do, each its own bytes."""
        made = [self._data(size) for _ in range(cores)]
        calls = [self._call("reads", steps, data) for steps, data in made]
        found = math.inf
        for _ in range(_REPEAT // 3):
            start = clock()
            together(calls)
            found = min(found, clock() - start)
        return float(made[0][1].size) / found


def measure(target: Target, clock: Clock = time.perf_counter) -> dict[str, Any]:
    """The fields of a target that can be measured, for this machine: see `target.host.MEASURED`. Takes some seconds."""
    loops = Loops(target)
    hertz = _STEPS * _CHAIN / loops.best("chain", _STEPS, clock)
    l2 = target.l2 or target.l1
    rates = {
        "l2_rate": loops.read_rate(l2 // 2, clock),
        "l3_rate": loops.read_rate(max(target.l3 // 4, 2 * l2), clock),
        "memory_rate": loops.memory_rate(4 * max(target.l3, 1 << 23), target.cores, clock),
    }
    peak = max(FmaPeak(1).measure(0.02) for _ in range(5)) * 1e9
    return {
        "fma_rate": round(peak / (2 * loops.lanes * hertz), 2),
        **{name: round(rate / hertz, 2) for name, rate in rates.items()},
        "fork_cycles": _fork_cycles(loops, target, hertz, clock),
    }


def _fork_cycles(loops: Loops, target: Target, hertz: float, clock: Clock) -> int:
    """What a parallel loop costs besides one part of its work; what is assumed, if no other core ever took a part."""
    work = _WORK * _CHAIN
    if target.cores < 2:
        return target.fork_cycles
    call = loops.best("chain", 1, clock)
    seconds = loops.best("forks", _FORKS, clock, repeat=8 * _REPEAT) - call
    cost = round(seconds / _FORKS * hertz) - work
    return target.fork_cycles if cost > work * (target.cores - 1) // 2 else max(100, cost)
