"""Schedules written by hand: the ladder of a matrix product, from plain loops to a tile in registers.

    python -m benchmarks.hand_schedule [--size 1024] [--only packed,tiled]

Every rung uses public primitives only (split, reorder, vectorize, unroll, parallel, cache_write, compute_at) and goes
through the one lowering that all kernels go through. Prints GFLOP/s and the share of the FMA peak, which is measured
between the runs. Results are checked against float64. B is packed inside the kernel, except on the last rung, where it
comes packed as a constant weight does.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .peak import FmaPeak

PANEL = 64  # columns of B that are packed together
ROWS = 6  # rows of the tile in registers


def product(n: int, packed: str = "") -> Any:
    """C = A @ B as a loop program; B is read through panels where `packed` is "inside" or "ahead"."""
    from warpbeam import te
    from warpbeam.te.create import create_prim_func

    a = te.placeholder((n, n), name="A")
    shape = (n // PANEL, n, PANEL) if packed == "ahead" else (n, n)
    b = te.placeholder(shape, name="B")
    k = te.reduce_axis((0, n), "k")
    if not packed:
        c = te.compute((n, n), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")
        return create_prim_func([a, b], [c], "product")
    panels: Any = b
    if packed == "inside":
        panels = te.compute((n // PANEL, n, PANEL), lambda p, q, r: b[q, p * PANEL + r], name="panels")
    c = te.compute((n, n), lambda i, j: te.sum(a[i, k] * panels[j // PANEL, k, j % PANEL], axis=k), name="C")
    return create_prim_func([a, b], [c], "product")


# ------------------------------------------------------------------------------------------------------------ schedules


def default(n: int) -> Any:
    """Three plain loops."""
    return product(n)


def reordered(n: int) -> Any:
    """The reduction outside the columns: B is read along its rows."""
    s = schedule(product(n))
    i, j, k = s.loops("C")
    s.reorder(i, k, j)
    return s.func


def vectorized(n: int) -> Any:
    """… 16 columns at a time, rows in parallel."""
    s = schedule(product(n))
    i, j, k = s.loops("C")
    jo, ji = s.split(j, [None, 16])
    s.reorder(i, k, jo, ji)
    s.vectorize(ji)
    s.parallel(i)
    return s.func


def blocked(n: int) -> Any:
    """Blocks of 4 x 64 sums that stay where they are while the reduction runs past them."""
    s = schedule(product(n))
    i, j, k = s.loops("C")
    io, ii = s.split(i, [None, 4])
    jo, jm, ji = s.split(j, [None, PANEL // 16, 16])
    s.reorder(io, jo, k, ii, jm, ji)
    s.vectorize(ji)
    s.unroll(jm)
    s.unroll(ii)
    s.parallel(io)
    return s.func


def packed(n: int) -> Any:
    """B in panels that are read from end to end, sums of a block in a small buffer."""
    s = schedule(product(n, "inside"))
    pack(s)
    i, j, k = s.loops("C")
    io, ii = s.split(i, [None, 32])
    jo, jm, ji = s.split(j, [None, PANEL // 16, 16])
    ko, ki = s.split(k, [None, 4])
    s.reorder(io, jo, ko, ii, ki, jm, ji)
    copy = s.cache_write("C", "local")
    s.reverse_compute_at(copy, jo)
    s.vectorize(ji)
    s.unroll(jm)
    s.unroll(ki)
    s.vectorize(s.split(s.loops(copy)[-1], [None, 16])[1])
    s.parallel(io)
    return s.func


def tiled(n: int, where: str = "inside") -> Any:
    """6 x 64 sums in registers over the whole reduction; what is left over at the end of the rows is cut off."""
    s = schedule(product(n, where))
    if where == "inside":
        pack(s)
    copy = s.cache_write("C", "local")
    i, j = s.loops(copy)
    io, ii = s.split(i, [None, ROWS], guard=True)
    jo, jm, ji = s.split(j, [None, PANEL // 16, 16])
    s.reorder(jo, io, ii, jm, ji)
    s.parallel(jo)
    s.compute_at("C", io)
    ci, cj, k = s.loops("C")[-3:]
    cm, cv = s.split(cj, [None, 16])
    ko, ki = s.split(k, [None, 4])
    s.reorder(ko, ki, ci, cm, cv)
    for loop in (ki, ci, cm, ii, jm):
        s.unroll(loop)
    s.vectorize(cv)
    s.vectorize(ji)
    return s.func


def ahead(n: int) -> Any:
    """The same with B packed before."""
    return tiled(n, "ahead")


def by_te(n: int) -> Any:
    """The tile once more, in te: create_schedule, cache_write, compute_at."""
    from warpbeam import te
    from warpbeam.te.schedule.lower import lower as scheduled

    a, b = te.placeholder((n, n), name="A"), te.placeholder((n, n), name="B")
    panels = te.compute((n // PANEL, n, PANEL), lambda p, q, r: b[q, p * PANEL + r], name="panels")
    k = te.reduce_axis((0, n), "k")
    c = te.compute((n, n), lambda i, j: te.sum(a[i, k] * panels[j // PANEL, k, j % PANEL], axis=k), name="C")
    s = te.create_schedule(c.op)
    tile = s.cache_write(c, "global")
    io, jo, ii, ji = s[c].tile(c.op.axis[0], c.op.axis[1], ROWS, PANEL)
    s[c].reorder(jo, io, ii, ji)
    s[c].vectorize(ji)
    s[c].parallel(jo)
    s[tile].compute_at(s[c], io)
    i, j = s[tile].op.axis
    ko, ki = s[tile].split(s[tile].op.reduce_axis[0], factor=4)
    jm, jv = s[tile].split(j, factor=16)
    s[tile].reorder(ko, ki, i, jm, jv)
    for axis in (ki, i, jm):
        s[tile].unroll(axis)
    s[tile].vectorize(jv)
    p, _, r = s[panels].op.axis
    s[panels].vectorize(r)
    s[panels].parallel(p)
    return scheduled(s, [a, b, c], "product", None)


LADDER: tuple[Callable[[int], Any], ...] = (default, reordered, vectorized, blocked, packed, tiled, by_te, ahead)


def schedule(func: Any) -> Any:
    """A schedule of a loop program."""
    from warpbeam.tir.schedule import Schedule

    return Schedule(func)


def pack(s: Any) -> None:
    """The copy into panels: 16 columns at a time, panels in parallel."""
    p, _, r = s.loops("panels")
    s.vectorize(s.split(r, [None, 16])[1])
    s.parallel(p)


# ------------------------------------------------------------------------------------------------------------- running


class Kernel:
    """A lowered, compiled and loaded program."""

    def __init__(self, func: Any, target: Any, threads: int) -> None:
        from warpbeam.codegen import llvm
        from warpbeam.runtime.abi import Context
        from warpbeam.runtime.linker import link_shared
        from warpbeam.runtime.loader import Library
        from warpbeam.runtime.pool_ll import pool_ir
        from warpbeam.tir.transform import lower

        self.lowered = lower(func, target)
        self.extra = [
            np.zeros([int(d) for d in b.shape], b.dtype)
            for b in self.lowered.buffers[len(self.lowered.buffers) - int(self.lowered.attrs["workspace"]) :]
        ]
        code = llvm.compile_text(llvm.print_kernel(self.lowered, target), target)
        pool = llvm.compile_text(pool_ir(target.triple), target)
        self._pool = Library(link_shared([pool], ["wb_serial_parallel_for", "wb_pool_parallel_for"]), "pool")
        self._code = Library(link_shared([code], [self.lowered.name]), self.lowered.name)
        self._fn = self._code.function(self.lowered.name)
        self._ctx = Context(
            abi_version=1, num_threads=threads, parallel_for=self._pool.address("wb_serial_parallel_for")
        )

    def __call__(self, *arrays: np.ndarray) -> None:
        passed = [ctypes.c_void_p(a.ctypes.data) for a in (*arrays, *self.extra)]
        if self._fn(ctypes.byref(self._ctx), *passed) != 0:
            raise RuntimeError(self._ctx.message.decode())


def measure(make: Callable[[int], Any], n: int, target: Any, seconds: float) -> tuple[float, float]:
    """(GFLOP/s, share of the peak), medians over rounds in which kernel and peak take turns."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((n, n)).astype(np.float32) for _ in range(2))
    c = np.zeros((n, n), np.float32)
    given = b
    if make is ahead:
        given = np.ascontiguousarray(b.reshape(n, n // PANEL, PANEL).transpose(1, 0, 2))
    kernel, peak = Kernel(make(n), target, 1), FmaPeak(1)
    kernel(a, given, c)
    want = a.astype(np.float64) @ b.astype(np.float64)
    if not np.allclose(c, want, rtol=1e-3, atol=1e-2):
        raise SystemExit(f"{make.__name__}: wrong result")
    rates, shares = [], []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(rates) < 3:
        start = time.perf_counter_ns()
        kernel(a, given, c)
        rate = 2.0 * n**3 / (time.perf_counter_ns() - start)
        rates.append(rate)
        shares.append(rate / peak.measure(0.01))
    return float(np.median(rates)), float(np.median(shares))


def main() -> None:
    """Print the ladder."""
    from warpbeam import target

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--only", default="", help="names of rungs, comma separated")
    parser.add_argument("--seconds", type=float, default=0.5, help="time for each rung")
    args = parser.parse_args()
    wanted = [f for f in LADDER if not args.only or f.__name__ in args.only.split(",")]
    for make in wanted:
        rate, share = measure(make, args.size, target.get("native"), args.seconds)
        print(f"{make.__name__:12s} {rate:8.1f} GFLOP/s {100 * share:6.1f} % of peak   {(make.__doc__ or '').strip()}")


if __name__ == "__main__":
    main()
