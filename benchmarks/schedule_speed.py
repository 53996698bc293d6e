"""How fast schedules are: steps per second on 60 blocks, and lowering plus LLVM of a tiled product, six loops deep.

    python benchmarks/schedule_speed.py [--profile]

Bars: 1,000 steps per second; 30 ms for the product. In brackets: of processor time, which other programs disturb less.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable
from typing import Any

from warpbeam import target, te
from warpbeam.codegen import llvm
from warpbeam.te.create import create_prim_func
from warpbeam.tir.expr import maximum
from warpbeam.tir.schedule import Schedule
from warpbeam.tir.stmt import PrimFunc
from warpbeam.tir.transform import lower


def chain(count: int) -> PrimFunc:
    """`count` blocks: products, sums of rows and maps in turn."""
    x = te.placeholder((64, 64), name="x")
    t: Any = x
    for n in range(count):
        k = te.reduce_axis(64, "k")
        if n % 6 == 0:
            t = te.compute((64, 64), lambda i, j, t=t, k=k: te.sum(t[i, k] * x[k, j], axis=k), name=f"p{n}")
        else:
            t = te.compute((64, 64), lambda i, j, t=t: maximum(t[i, j] + 1.0, 0.0), name=f"m{n}")
    return create_prim_func([x], [t], "chain")


def steps(func: PrimFunc) -> int:
    """A usual schedule of every block; gives the number of steps."""
    s = Schedule(func)
    for block in s.blocks():
        i, j, *rest = s.loops(block)
        io, jo, ii, ji = s.tile(i, j, 8, 16)
        if rest:
            ko, ki = s.split(rest[0], [None, 4])
            s.reorder(io, jo, ko, ki, ii, ji)
            s.unroll(ki)
        else:
            s.unroll(ii)
        s.vectorize(ji)
        s.parallel(s.fuse(io, jo))
    return len(s.trace)


def product() -> PrimFunc:
    """A 512 x 512 x 512 product in tiles, six loops deep."""
    a, b = te.placeholder((512, 512), name="A"), te.placeholder((512, 512), name="B")
    k = te.reduce_axis(512, "k")
    c = te.compute((512, 512), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")
    s = Schedule(create_prim_func([a, b], [c], "product"))
    i, j, r = s.loops("C")
    io, jo, ii, ji = s.tile(i, j, 8, 32)
    ko, ki = s.split(r, [None, 4])
    s.reorder(io, jo, ko, ki, ii, ji)
    s.vectorize(ji)
    s.unroll(ii)
    s.parallel(io)
    return s.func


def best(run: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Least seconds of some runs: by the clock, and of processor time."""
    times = []
    for _ in range(repeats):
        start, used = time.perf_counter(), time.process_time()
        run()
        times.append((time.perf_counter() - start, time.process_time() - used))
    return min(t for t, _ in times), min(t for _, t in times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    func, tiled, native = chain(60), product(), target.get("native")
    count = steps(func)
    clock, cpu = best(lambda: steps(func), 3)
    print(f"{count} steps on 60 blocks: {count / clock:,.0f} per second ({count / cpu:,.0f})")
    lowering = best(lambda: lower(tiled, native), 5)
    lowered = lower(tiled, native)
    size = len(llvm.print_kernel(lowered, native))
    whole = best(lambda: llvm.compile_text(llvm.print_kernel(lowered, native), native), 5)
    times = ", ".join(
        f"{n} {t * 1e3:.1f} ms ({c * 1e3:.1f})" for n, (t, c) in (("lowering", lowering), ("LLVM", whole))
    )
    print(f"tiled product: {times}, {size} characters of LLVM")
    if args.profile:
        profile = cProfile.Profile()
        profile.runcall(steps, func)
        pstats.Stats(profile).sort_stats("cumulative").print_stats(35)


if __name__ == "__main__":
    main()
