"""Schedules written by hand: the ladder of a matrix product, from plain loops to a tile in registers.

    python -m benchmarks.hand_schedule [--size 1024] [--only packed,tiled]

Every rung is written with public primitives of `te` (create_schedule, split, tile, reorder, vectorize, unroll,
parallel, cache_write, compute_at) and built by `warpbeam.build`. Prints GFLOP/s and the share of the FMA peak, which is
measured between the runs. Results are checked against float64. B is packed inside the kernel, except on the last rung,
where it comes packed as a constant weight does.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import warpbeam
from warpbeam import te

from .peak import FmaPeak

PANEL = 64  # columns of B that are packed together
ROWS = 6  # rows of the tile in registers
LANES = 16

Rung = tuple[Any, list[Any]]


def product(n: int, packed: str = "") -> tuple[Any, Any, list[Any]]:
    """C = A @ B; B is read through panels where `packed` is "inside" or "ahead": (C, panels, arguments)."""
    a = te.placeholder((n, n), name="A")
    b = te.placeholder((n // PANEL, n, PANEL) if packed == "ahead" else (n, n), name="B")
    k = te.reduce_axis((0, n), "k")
    if not packed:
        c = te.compute((n, n), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")
        return c, None, [a, b, c]
    panels: Any = b
    if packed == "inside":
        panels = te.compute((n // PANEL, n, PANEL), lambda p, q, r: b[q, p * PANEL + r], name="panels")
    c = te.compute((n, n), lambda i, j: te.sum(a[i, k] * panels[j // PANEL, k, j % PANEL], axis=k), name="C")
    return c, panels, [a, b, c]


# ------------------------------------------------------------------------------------------------------------ schedules


def default(n: int) -> Rung:
    """Three plain loops."""
    c, _, args = product(n)
    return te.create_schedule(c.op), args


def reordered(n: int) -> Rung:
    """The reduction outside the columns: B is read along its rows."""
    c, _, args = product(n)
    s = te.create_schedule(c.op)
    s[c].reorder(c.op.axis[0], c.op.reduce_axis[0], c.op.axis[1])
    return s, args


def vectorized(n: int) -> Rung:
    """… 16 columns at a time, rows in parallel."""
    c, _, args = product(n)
    s = te.create_schedule(c.op)
    i, j = c.op.axis
    jo, ji = s[c].split(j, factor=LANES)
    s[c].reorder(i, c.op.reduce_axis[0], jo, ji)
    s[c].vectorize(ji)
    s[c].parallel(i)
    return s, args


def blocked(n: int) -> Rung:
    """Blocks of 4 x 64 sums that stay where they are while the reduction runs past them."""
    c, _, args = product(n)
    s = te.create_schedule(c.op)
    io, jo, ii, jj = s[c].tile(c.op.axis[0], c.op.axis[1], 4, PANEL)
    jm, ji = s[c].split(jj, factor=LANES)
    s[c].reorder(io, jo, c.op.reduce_axis[0], ii, jm, ji)
    s[c].vectorize(ji)
    s[c].unroll(jm)
    s[c].unroll(ii)
    s[c].parallel(io)
    return s, args


def packed(n: int) -> Rung:
    """B in panels that are read from end to end, sums of a block in a small buffer."""
    c, panels, args = product(n, "inside")
    s = te.create_schedule(c.op)
    pack(s, panels)
    sums = s.cache_write(c, "global")
    io, jo, _, ji = s[c].tile(c.op.axis[0], c.op.axis[1], 32, PANEL)
    s[c].vectorize(s[c].split(ji, factor=LANES)[1])
    s[c].parallel(io)
    s[sums].compute_at(s[c], jo)
    i, j = s[sums].op.axis
    ko, ki = s[sums].split(s[sums].op.reduce_axis[0], factor=4)
    jm, jv = s[sums].split(j, factor=LANES)
    s[sums].reorder(ko, i, ki, jm, jv)
    s[sums].vectorize(jv)
    s[sums].unroll(jm)
    s[sums].unroll(ki)
    return s, args


def tiled(n: int, where: str = "inside") -> Rung:
    """6 x 64 sums in registers over the whole reduction; what is left over at the end of the rows is cut off."""
    c, panels, args = product(n, where)
    s = te.create_schedule(c.op)
    if where == "inside":
        pack(s, panels)
    sums = s.cache_write(c, "global")
    io, jo, ii, ji = s[c].tile(c.op.axis[0], c.op.axis[1], ROWS, PANEL)
    s[c].reorder(jo, io, ii, ji)
    s[c].vectorize(ji)
    s[c].parallel(jo)
    s[sums].compute_at(s[c], io)
    i, j = s[sums].op.axis
    ko, ki = s[sums].split(s[sums].op.reduce_axis[0], factor=4)
    jm, jv = s[sums].split(j, factor=LANES)
    s[sums].reorder(ko, ki, i, jm, jv)
    for axis in (ki, i, jm):
        s[sums].unroll(axis)
    s[sums].vectorize(jv)
    return s, args


def ahead(n: int) -> Rung:
    """The same with B packed before."""
    return tiled(n, "ahead")


def pack(s: Any, panels: Any) -> None:
    """The copy into panels: a row of a panel at a time, panels in parallel."""
    p, _, r = s[panels].op.axis
    s[panels].vectorize(r)
    s[panels].parallel(p)


LADDER: tuple[Callable[[int], Rung], ...] = (default, reordered, vectorized, blocked, packed, tiled, ahead)


# ------------------------------------------------------------------------------------------------------------- running


def measure(make: Callable[[int], Rung], n: int, seconds: float) -> tuple[float, float]:
    """(GFLOP/s, share of the peak), medians over rounds in which kernel and peak take turns."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((n, n)).astype(np.float32) for _ in range(2))
    c = np.zeros((n, n), np.float32)
    given = b
    if make is ahead:
        given = np.ascontiguousarray(b.reshape(n, n // PANEL, PANEL).transpose(1, 0, 2))
    kernel, peak = warpbeam.build(*make(n), "native", name="product"), FmaPeak(1)
    arrays = [warpbeam.nd.array(x) for x in (a, given, c)]
    kernel(*arrays)
    c = arrays[2].numpy()
    want = a.astype(np.float64) @ b.astype(np.float64)
    if not np.allclose(c, want, rtol=1e-3, atol=1e-2):
        raise SystemExit(f"{make.__name__}: wrong result")
    rates, shares = [], []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(rates) < 3:
        start = time.perf_counter_ns()
        kernel(*arrays)
        rate = 2.0 * n**3 / (time.perf_counter_ns() - start)
        rates.append(rate)
        shares.append(rate / peak.measure(0.01))
    return float(np.median(rates)), float(np.median(shares))


def main() -> None:
    """Print the ladder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--only", default="", help="names of rungs, comma separated")
    parser.add_argument("--seconds", type=float, default=0.5, help="time for each rung")
    args = parser.parse_args()
    warpbeam.runtime.set_num_threads(1)
    wanted = [f for f in LADDER if not args.only or f.__name__ in args.only.split(",")]
    for make in wanted:
        rate, share = measure(make, args.size, args.seconds)
        print(f"{make.__name__:12s} {rate:8.1f} GFLOP/s {100 * share:6.1f} % of peak   {(make.__doc__ or '').strip()}")


if __name__ == "__main__":
    main()
