"""Matrix products by tensor instructions: hand schedules with `tensorize`, against the instruction's own peak.

    python -m benchmarks.tensorize [--size 1024] [--seconds 0.6] [--only u8s8,bf16]

Each product is one te.compute over a weight packed for the instruction, scheduled by public primitives: a tile of
results in registers, and the innermost loops replaced by the intrinsic. The peak is a loop of nothing but that
instruction on independent registers; kernel and peak take turns. Integers are checked exactly, bfloat16 with float64.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from .hand_schedule import Kernel


@dataclass(frozen=True)
class Product:
    """One product: its intrinsic, dtypes, neighbours per lane, and the tile of results in registers."""

    name: str
    intrin: str
    a: str
    b: str
    result: str
    group: int
    rows: int
    vectors: int
    lanes: int = 16


PRODUCTS = (
    Product("u8s8", "avx512vnni.u8s8s32", "uint8", "int8", "int32", 4, 12, 2),
    Product("s8s8", "avx512vnni.s8s8s32", "int8", "int8", "int32", 4, 12, 2),
    Product("bf16", "avx512bf16.bf16bf16f32", "bfloat16", "bfloat16", "float32", 2, 12, 2),
)


def matmul(p: Product, m: int, n: int, k: int) -> Any:
    """C[m, n] = A[m, k] @ B with B as [n/lanes, k/group, lanes, group], scheduled."""
    from warpbeam import te
    from warpbeam.te.create import create_prim_func
    from warpbeam.tir.schedule import Schedule

    a = te.placeholder((m, k), p.a, "A")
    b = te.placeholder((n // p.lanes, k // p.group, p.lanes, p.group), p.b, "B")
    r = te.reduce_axis((0, k), "k")

    def element(i: Any, j: Any) -> Any:
        weight = b[j // p.lanes, r // p.group, j % p.lanes, r % p.group]
        return te.sum(a[i, r].astype(p.result) * weight.astype(p.result), axis=r)

    s = Schedule(create_prim_func([a, b], [te.compute((m, n), element, "C")], "product"))
    copy = s.cache_write("C", "register")
    i, j, reduce = s.loops("C")
    io, ii = s.split(i, [None, p.rows])
    jo, jv, ji = s.split(j, [None, p.vectors, p.lanes])
    ko, ki = s.split(reduce, [None, p.group])
    s.reorder(jo, io, ko, ii, jv, ki, ji)
    s.reverse_compute_at(copy, io)
    s.tensorize(ki, p.intrin)
    row, column = s.loops(copy)[-2:]
    vector, lane = s.split(column, [None, p.lanes])
    s.vectorize(lane)
    for loop in (row, vector, ii, jv):
        s.unroll(loop)
    return s.func


def peak(p: Product, steps: int = 400_000, sums: int = 24) -> tuple[Any, float]:
    """(program of nothing but the instruction, its operations): A, B and C hold one vector (of sums) each."""
    from warpbeam.tir import expr as e
    from warpbeam.tir.expr import Buffer, BufferLoad, Ramp, Var
    from warpbeam.tir.stmt import Allocate, BufferStore, For, PrimFunc, seq

    def lanes(count: int) -> Any:
        return Ramp(e.const(0), e.const(1), count)

    wide = p.lanes * p.group
    a, b = Buffer("A", (wide,), p.a if p.name != "s8s8" else "uint8"), Buffer("B", (wide,), p.b)
    c = Buffer("C", (sums, p.lanes), p.result)
    acc = Buffer("acc", (sums, p.lanes), p.result, "register")
    left, right = BufferLoad(a, (lanes(wide),)), BufferLoad(b, (lanes(wide),))

    def every(store: Any) -> Any:
        return seq(*[store(k, (e.const(k), lanes(p.lanes))) for k in range(sums)])

    start = every(lambda k, at: BufferStore(acc, BufferLoad(c, at), at))
    step = every(lambda k, at: BufferStore(acc, e.call(f"dot{p.group}", BufferLoad(acc, at), left, right), at))
    end = every(lambda k, at: BufferStore(c, BufferLoad(acc, at), at))
    body = seq(start, For(Var("t"), 0, steps, "serial", step), end)
    return PrimFunc("peak", (a, b, c), Allocate(acc, body)), 2.0 * steps * sums * wide


def operands(p: Product, m: int, n: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(A, B as a plain [k, n] matrix, B packed)."""
    from warpbeam.ir import dtype as dt

    rng = np.random.default_rng(0)

    def some(shape: tuple[int, int], dtype: str) -> np.ndarray:
        kind = dt.to_numpy(dtype)
        if dt.is_float(dtype):
            return rng.standard_normal(shape).astype(kind)
        low, high = dt.int_range(dtype)
        return rng.integers(low, high + 1, shape).astype(kind)

    a, b = some((m, k), p.a), some((k, n), p.b)
    packed = b.T.reshape(n // p.lanes, p.lanes, k // p.group, p.group).transpose(0, 2, 1, 3)
    return a, b, np.ascontiguousarray(packed)


def check(p: Product, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    """Exact for integers; for bfloat16 within k roundings of float32 of the sum of magnitudes."""
    if p.result == "int32":
        ok = bool((c == a.astype(np.int64) @ b.astype(np.int64)).all())
    else:
        x, y = a.astype(np.float64), b.astype(np.float64)
        ok = bool((np.abs(c - x @ y) <= a.shape[1] * 2.0**-23 * (np.abs(x) @ np.abs(y))).all())
    if not ok:
        raise SystemExit(f"{p.name}: wrong result")


def measure(p: Product, size: int, target: Any, seconds: float) -> tuple[float, float]:
    """(GOP/s, share of the instruction's peak), medians over rounds in which kernel and peak take turns."""
    from warpbeam.ir import dtype as dt

    m = -(-size // p.rows) * p.rows
    a, b, packed = operands(p, m, size, size)
    c = np.zeros((m, size), p.result)
    kernel = Kernel(matmul(p, m, size, size), target, 1)
    kernel(a, packed, c)
    check(p, a, b, c)
    program, work = peak(p)
    limit = Kernel(program, target, 1)
    small = [np.zeros([int(d) for d in x.shape], dt.to_numpy(x.dtype)) for x in program.buffers]
    rates, shares, end = [], [], time.perf_counter() + seconds
    while time.perf_counter() < end or not rates:
        begin = time.perf_counter()
        kernel(a, packed, c)
        rates.append(2.0 * m * size * size / (time.perf_counter() - begin) / 1e9)
        begin = time.perf_counter()
        limit(*small)
        shares.append(rates[-1] / (work / (time.perf_counter() - begin) / 1e9))
    return float(np.median(rates)), float(np.median(shares))


def main() -> None:
    """Print one line per product."""
    from warpbeam import target
    from warpbeam.tir import tensor_intrin

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=768)
    parser.add_argument("--seconds", type=float, default=0.6)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    native = target.get("native")
    for p in PRODUCTS:
        if args.only and p.name not in args.only.split(","):
            continue
        needs = tensor_intrin.get(p.intrin).requires
        if not set(needs) <= set(native.required_features):
            print(f"{p.name:6} skipped: this machine has no {', '.join(needs)}")
            continue
        rate, share = measure(p, args.size, native, args.seconds)
        print(f"{p.name:6} {p.intrin:24} {rate:8.0f} GOP/s  {share:5.1%} of the instruction's peak")


if __name__ == "__main__":
    main()
