"""The machine's two ceilings, measured: fp32 multiply-adds per second, and bytes per second by working set.

The first is a tiny loop of independent fused multiply-adds built with llvmlite. Vector width and number of accumulators
follow the host: 16 lanes and 24 accumulators with AVX-512, 8 and 12 with AVX, 4 and 24 elsewhere - enough independent
chains to cover a latency of 4-6 cycles on two pipes, few enough to stay in registers. The second is a copy of arrays
that fit half a core's L2 cache, half of the L3, and neither. The model: S. Williams, A. Waterman, D. Patterson,
"Roofline", CACM 52 (2009).
"""

from __future__ import annotations

import ctypes
import functools
import threading
import time
from collections.abc import Callable

import numpy as np

from warpbeam.runtime.profiler import Roof

_STEPS = 1 << 16  # loop iterations a call and thread: some 200 us, so that the call itself does not count


def _shape() -> tuple[int, int]:
    import llvmlite.binding as llvm  # type: ignore[import-untyped]

    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 16, 24
    return (8, 12) if features.get("fma") else (4, 24)


def _source(lanes: int, chains: int) -> str:
    vec = f"<{lanes} x float>"
    lines = [
        f"declare {vec} @llvm.fma.v{lanes}f32({vec}, {vec}, {vec})",
        "define void @peak(ptr %data, i64 %steps) {",
        "entry:",
        f"  %a = load {vec}, ptr %data, align 64",
        f"  %pb = getelementptr float, ptr %data, i64 {lanes}",
        f"  %b = load {vec}, ptr %pb, align 64",
        "  br label %loop",
        "loop:",
        "  %i = phi i64 [0, %entry], [%next, %loop]",
    ]
    lines += [f"  %c{j} = phi {vec} [%b, %entry], [%d{j}, %loop]" for j in range(chains)]
    lines += [f"  %d{j} = call {vec} @llvm.fma.v{lanes}f32({vec} %a, {vec} %c{j}, {vec} %b)" for j in range(chains)]
    lines += [
        "  %next = add i64 %i, 1",
        "  %more = icmp ult i64 %next, %steps",
        "  br i1 %more, label %loop, label %done",
        "done:",
    ]
    last = "%d0"
    for j in range(1, chains):
        lines.append(f"  %s{j} = fadd {vec} {last}, %d{j}")
        last = f"%s{j}"
    lines += [
        f"  %po = getelementptr float, ptr %data, i64 {2 * lanes}",
        f"  store {vec} {last}, ptr %po, align 64",
        "  ret void",
        "}",
    ]
    return "\n".join(lines)


def together(calls: list[Callable[[], None]]) -> None:
    """Runs every call on a thread of its own, the first on this one."""
    others = [threading.Thread(target=c) for c in calls[1:]]
    for t in others:
        t.start()
    calls[0]()
    for t in others:
        t.join()


class FmaPeak:
    """`run()` keeps `threads` cores busy with FMAs for some microseconds; `flops` is what one run computes."""

    def __init__(self, threads: int = 1) -> None:
        import llvmlite.binding as llvm

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        lanes, chains = _shape()
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=1
        )
        module = llvm.parse_assembly(_source(lanes, chains))
        module.triple = llvm.get_default_triple()
        self._engine = llvm.create_mcjit_compiler(module, machine)
        self._engine.finalize_object()
        address = self._engine.get_function_address("peak")
        self._fn = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(address)
        self._threads = threads
        raw = np.zeros(threads * 64 + 16, np.float32)
        skip = (-raw.ctypes.data // 4) % 16
        self._data = raw[skip : skip + threads * 64].reshape(threads, 64)
        self._data[:, : 2 * lanes] = 0.5
        self._steps = _STEPS if threads == 1 else 32 * _STEPS  # long enough to hide the start of Python threads
        self.flops = 2.0 * lanes * chains * self._steps * threads

    def run(self) -> None:
        """One burst on every thread; returns when all are done."""
        together([self._call(i) for i in range(self._threads)])

    def _call(self, index: int) -> Callable[[], None]:
        pointer = self._data[index].ctypes.data
        return lambda: self._fn(pointer, self._steps)

    def measure(self, seconds: float = 0.1) -> float:
        """Median GFLOP/s over `seconds`."""
        samples: list[int] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or not samples:
            start = time.perf_counter_ns()
            self.run()
            samples.append(time.perf_counter_ns() - start)
        return self.flops / float(np.median(samples))


def copy_rate(size: int, threads: int) -> float:
    """Bytes per second, read and written, of copying `size` bytes in all between arrays that stay where they are."""
    half = max(size // (2 * threads), 4096)
    pairs = [(np.ones(half, np.uint8), np.zeros(half, np.uint8)) for _ in range(threads)]
    times = max(1, (64 << 20) // half)

    def work(pair: tuple[np.ndarray, np.ndarray]) -> None:
        source, target = pair
        for _ in range(times):
            np.copyto(target, source)

    best = 0.0
    for _ in range(3):
        start = time.perf_counter()
        together([functools.partial(work, p) for p in pairs])
        best = max(best, 2.0 * half * threads * times / (time.perf_counter() - start))
    return best


@functools.lru_cache(maxsize=8)
def measured(threads: int) -> Roof:
    """The ceilings with so many threads; takes about a second, once per process."""
    from warpbeam.target import get

    host = get("native")
    sizes = [host.l2 * threads // 2, max(host.l3, 1 << 22) // 2, 4 * max(host.l3, 1 << 24)]
    levels = tuple((float(size), copy_rate(size, threads)) for size in sizes)
    return Roof(FmaPeak(threads).measure() * 1e9, levels)
