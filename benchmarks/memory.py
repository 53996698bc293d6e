"""Memory-bound kernels whose operands exceed the second-level cache, against a plain copy of as many bytes.

    python -m benchmarks.memory [--cases relu,softmax] [--threads 1,2] [--json OUT]

Each case is a float32 Relay function compiled with defaults. Its native entry is called with preallocated outputs; in
the same process (one for each count of threads), between the slices, libc's memmove copies half as many bytes as the
case reads and writes together, which moves as many, on as many threads. What is shown is the median over rounds of
(copy's time / kernel's time).
"near" operands fit the third-level cache, "far" ones do not. Results are checked against float64.
Calls follow each other on the same arrays, of which a core's second-level cache may still hold a part: with two
threads it does, and what is found there is then a matter of its replacement, not of the kernel. `--places 3` takes so
many copies of all arrays in turn (those of the copy, too), as a model does, whose next kernel works elsewhere.
The column "without memory" tells what the share would be if memory took no time: what a kernel takes for a byte where
its operands fit the second-level cache, beside what the copy takes for one. Where that is little more than the share
itself, the kernel is bound by its arithmetic. The exit code is 1 when a case misses the bar, whatever bounds it.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice
from multiprocessing import get_context
from typing import Any

import numpy as np

from .kernels import bind_entry
from .models.net import draw
from .table import finish
from .worker import timed_slice

BAR = 0.8
_SETS = {"near": 1.0, "far": 16.0}  # times the rows below
_CORE = 0.125  # the same, of what fits the second-level cache


@dataclass(frozen=True)
class Case:
    """`body`: (relay, operands) -> result; `value`: the same in NumPy. shapes: of operands, those with as many axes as
    the first grow along axis `grows`.

    sums: whether elements are sums over an axis, for the check.
    """

    name: str
    shapes: tuple[tuple[int, ...], ...]
    body: Callable[..., Any]
    value: Callable[..., Any]
    sums: bool = False
    grows: int = 0


def _softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _layer_norm(x: np.ndarray, g: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5) * g + b


def _pooled(x: np.ndarray) -> np.ndarray:
    n, h, w, c = x.shape
    return x.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))


CASES = [
    Case("relu", ((512, 1024),), lambda r, x: r.nn.relu(x), lambda x: np.maximum(x, 0)),
    Case("add", ((512, 1024), (512, 1024)), lambda r, x, y: r.add(x, y), np.add),
    Case(
        "scale_shift_add_relu",
        ((512, 1024), (1024,), (1024,), (512, 1024)),
        lambda r, x, s, b, y: r.nn.relu(r.add(r.add(r.multiply(x, s), b), y)),
        lambda x, s, b, y: np.maximum(x * s + b + y, 0),
    ),
    Case("softmax", ((512, 1024),), lambda r, x: r.nn.softmax(x, axis=-1), _softmax, True),
    Case("layer_norm", ((512, 1024), (1024,), (1024,)), lambda r, *a: r.nn.layer_norm(*a), _layer_norm, True),
    Case("sum_rows", ((1024, 1024),), lambda r, x: r.sum(x, axis=-1), lambda x: x.sum(-1), True),
    Case("sum_columns", ((1024, 1024),), lambda r, x: r.sum(x, axis=0), lambda x: x.sum(0), True),
    Case("transpose", ((512, 1024),), lambda r, x: r.transpose(x, axes=(1, 0)), lambda x: x.T),
    Case("transpose_odd", ((520, 1000),), lambda r, x: r.transpose(x, axes=(1, 0)), lambda x: x.T),
    Case(
        "channels_last",
        ((1, 512, 32, 32),),
        lambda r, x: r.transpose(x, axes=(0, 2, 3, 1)),
        lambda x: x.transpose(0, 2, 3, 1),
        grows=1,
    ),
    Case(
        "max_pool",
        ((8, 32, 16, 256),),
        lambda r, x: r.nn.max_pool2d(x, pool_size=(2, 2), strides=(2, 2), layout="NHWC"),
        _pooled,
    ),
    Case(
        "concatenate",
        ((512, 512), (512, 512)),
        lambda r, x, y: r.concatenate((x, y), axis=1),
        lambda x, y: np.concatenate([x, y], 1),
    ),
]


def operands(case: Case, times: float) -> list[np.ndarray]:
    """Values of a case: what has as many axes as the first operand grows with it."""
    shapes = [
        tuple(int(d * times) if k == case.grows and len(s) == len(case.shapes[0]) else d for k, d in enumerate(s))
        for s in case.shapes
    ]
    return [_aligned(draw(0, f"{case.name}.{k}", s)) for k, s in enumerate(shapes)]


def _aligned(values: np.ndarray) -> np.ndarray:
    """The same at a multiple of 64 bytes, where modules keep what lies between kernels."""
    room = np.empty(values.nbytes + 64, np.uint8)
    begin = -room.ctypes.data % 64
    out = room[begin : begin + values.nbytes].view(values.dtype).reshape(values.shape)
    out[...] = values
    return out


class PlainCopy:
    """Copies a number of bytes with memmove, an equal part on each thread; in `places` pairs of arrays in turn."""

    def __init__(self, size: int, threads: int, places: int = 1) -> None:
        self.size = size // threads
        self.parts = [
            [(np.ones(self.size, np.uint8), np.ones(self.size, np.uint8)) for _ in range(places)]
            for _ in range(threads)
        ]
        self.pool = ThreadPoolExecutor(threads)

    def seconds(self, times: int) -> float:
        """Of one copy; each thread makes `times` of its part without waiting for the others."""
        start = time.perf_counter()
        list(self.pool.map(self._part, range(len(self.parts)), [times] * len(self.parts)))
        return (time.perf_counter() - start) / times

    def _part(self, k: int, times: int) -> None:
        where = [(target.ctypes.data, source.ctypes.data, self.size) for source, target in self.parts[k]]
        for at in islice(cycle(where), times):
            ctypes.memmove(*at)


@dataclass
class Outcome:
    """What one case reached: times in microseconds, shares of the copy's speed (median, quartiles; without memory)."""

    name: str
    threads: int
    megabytes: float
    kernel: float
    copy: float
    share: float
    low: float
    high: float
    alone: float
    ok: bool


def compiled(case: Case, values: list[np.ndarray]) -> Any:
    """The case as a module; its inputs are x0, x1, …"""
    import warpbeam
    from warpbeam import relay

    inputs = [relay.var(f"x{k}", shape=v.shape) for k, v in enumerate(values)]
    return warpbeam.compile(relay.IRModule.from_expr(relay.Function(inputs, case.body(relay, *inputs))), cache=False)


def close(case: Case, got: np.ndarray, values: list[np.ndarray]) -> bool:
    """Whether rounding explains the difference from float64: a few units for each of the terms of a sum."""
    terms = max(values[0].shape) if case.sums else 4
    want = case.value(*(v.astype(np.float64) for v in values))
    size = max(1.0, float(np.abs(want).max()))
    return bool(np.abs(got.reshape(want.shape) - want).max() <= 8 * (terms + 2) * 2.0**-24 * size)


@dataclass
class Bound:
    """A case compiled for some operands, with its threads and its results' arrays. moved: bytes read and written."""

    call: Callable[[], Any]
    out: dict[str, np.ndarray]
    values: list[np.ndarray]
    moved: int


def bound(case: Case, times: float, threads: int, places: int = 1) -> Bound:
    """The case for `times` its rows, run once in each of `places` copies of its operands, which calls take in turn."""
    values = operands(case, times)
    module = compiled(case, values)
    module.num_threads = threads
    pairs = [bind_entry(module, {f"x{k}": _aligned(v) for k, v in enumerate(values)}) for _ in range(places)]
    for call, _ in pairs:
        call()
    turn, out = cycle(call for call, _ in pairs), pairs[0][1]
    call = pairs[0][0] if places == 1 else lambda: next(turn)()
    return Bound(call, out, values, sum(a.nbytes for a in (*values, *out.values())))


def measure(case: Case, where: str, threads: int, rounds: int, seconds: float, places: int = 1) -> Outcome:
    """Compile, check and time one case in turn with the copy."""
    whole, core = bound(case, _SETS[where], threads, places), bound(case, _CORE, threads)
    right = close(case, next(iter(whole.out.values())), whole.values)
    copy = PlainCopy(whole.moved // 2, threads, places)
    times = max(1, round(seconds / copy.seconds(3)))
    kernels, copies, shares, alone = [], [], [], []
    for _ in range(rounds):
        before = copy.seconds(times)
        took = statistics.median(timed_slice(whole.call, seconds, 1))
        both = (before + copy.seconds(times)) / 2
        few = statistics.median(timed_slice(core.call, seconds / 4, 1))
        kernels.append(took)
        copies.append(both)
        shares.append(both / took)
        alone.append(both / few * core.moved / whole.moved)
    low, share, high = statistics.quantiles(shares, n=4)
    kernel, plain = (1e6 * statistics.median(v) for v in (kernels, copies))
    ok = right and share >= BAR
    limit = statistics.median(alone)
    return Outcome(f"{case.name}, {where}", threads, whole.moved / 1e6, kernel, plain, share, low, high, limit, ok)


def _pin(cores: list[int]) -> None:
    """Keeps this process on some cores, before it has threads."""
    if cores:
        os.sched_setaffinity(0, cores)


def _measure_named(name: str, *how: Any) -> Outcome:
    """`measure` of the case of that name (cases themselves do not pass from process to process)."""
    return measure(next(c for c in CASES if c.name == name), *how)


def main() -> None:
    """Measure, print the table, exit by the bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="", help="comma separated beginnings of case names; all by default")
    parser.add_argument("--sets", default="near,far", help="how large the operands are")
    parser.add_argument("--threads", default="1,2", help="comma separated thread counts")
    parser.add_argument("--repeat", type=int, default=9, help="rounds")
    parser.add_argument("--seconds", type=float, default=0.05, help="length of a slice")
    parser.add_argument("--places", type=int, default=1, help="copies of all arrays that calls take in turn")
    parser.add_argument("--json", default="")
    args = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    outcomes = []
    print("|case|threads|MB moved|us|copy us|of the copy's speed|without memory|ok|\n|-|-|-|-|-|-|-|-|")
    for threads in (int(t) for t in args.threads.split(",")):
        start: dict[str, Any] = {
            "mp_context": get_context("spawn"),
            "initializer": _pin,
            "initargs": (cores[:threads],),
        }
        with ProcessPoolExecutor(1, **start) as process:
            for case in [c for c in CASES if c.name.startswith(tuple(args.cases.split(",")))]:
                for where in args.sets.split(","):
                    how = (case.name, where, threads, args.repeat, args.seconds, args.places)
                    outcomes.append(o := process.submit(_measure_named, *how).result())
                    times = f"{o.megabytes:.1f}|{o.kernel:.0f}|{o.copy:.0f}"
                    share = f"{o.share:.2f} [{o.low:.2f}-{o.high:.2f}]"
                    print(f"|{o.name}|{threads}|{times}|{share}|{o.alone:.2f}|{'yes' if o.ok else 'NO'}|", flush=True)
    sys.exit(finish(outcomes, args.json))


if __name__ == "__main__":
    main()
