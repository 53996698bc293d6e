"""Programs scheduled for a GPU, as experts write them."""

from __future__ import annotations

from typing import Any

from warpbeam.te import tensor as te
from warpbeam.te.create import create_prim_func
from warpbeam.tir.expr import call, cast, const, if_then_else, land, lor, maximum, select
from warpbeam.tir.schedule import Schedule
from warpbeam.tir.stmt import PrimFunc

Pair = tuple[PrimFunc, PrimFunc]  # scheduled, and as it was


def vector_add(n: Any, threads: int = 64, vector: int = 1, dtype: str = "float32") -> Pair:
    """C = A + B, one element (or `vector`) per thread."""
    a, b = te.placeholder((n,), dtype, "A"), te.placeholder((n,), dtype, "B")
    c = te.compute((n,), lambda i: a[i] + b[i], name="C")
    plain = create_prim_func([a, b], [c], "main")
    s = Schedule(plain)
    parts = s.split("i", [None, threads, vector] if vector > 1 else [None, threads], guard=True)
    s.bind(parts[0], "blockIdx.x")
    s.bind(parts[1], "threadIdx.x")
    if vector > 1:
        s.vectorize(parts[2])
    return s.func, plain


def row_sum(n: Any, m: Any, threads: int = 32, rows: int = 1) -> Pair:
    """B = the sums of A's rows: a row per group of threads."""
    a, k = te.placeholder((n, m), name="A"), te.reduce_axis(m, "k")
    b = te.compute((n,), lambda i: te.sum(a[i, k], axis=k), name="B")
    plain = create_prim_func([a], [b], "main")
    s = Schedule(plain)
    i, k_ = s.loops("B")
    ko, ki = s.split(k_, [None, threads], guard=True)
    s.reorder(ki, ko)
    if rows > 1:
        i, ty = s.split(i, [None, rows], guard=True)
        s.bind(ty, "threadIdx.y")
    s.bind(i, "blockIdx.x")
    s.bind(ki, "threadIdx.x")
    return s.func, plain


def row_argmax(n: int, m: int, threads: int = 32) -> Pair:
    """(index, value) of the largest element of each row; the first of equals."""

    def combine(x: Any, y: Any) -> Any:
        left = lor(x[1] > y[1], land(x[1] == y[1], x[0] < y[0]))
        return select(left, x[0], y[0]), select(left, x[1], y[1])

    largest = te.comm_reducer(combine, lambda t0, t1: (const(-1, t0), const(-1e30, t1)), name="largest")
    a, k = te.placeholder((n, m), name="A"), te.reduce_axis(m, "k")
    index, value = te.compute((n,), lambda i: largest((cast("int32", k.var), a[i, k]), axis=k), name="M")
    plain = create_prim_func([a], [index, value], "main")
    s = Schedule(plain)
    block = s.blocks()[0]
    i, k_ = s.loops(block)
    ki, _ = s.split(k_, [threads, None], guard=True)
    s.bind(i, "blockIdx.x")
    s.bind(ki, "threadIdx.x")
    return s.func, plain


def matmul(m: int, n: int, k: int, tile: int = 16, per: int = 2, kt: int = 8, virtual: bool = False,
           vector: int = 1, double: bool = False) -> Pair:  # fmt: skip
    """C = A @ B: tiles of A and B in shared memory, loaded by all threads; a small tile of C in each thread."""
    a, b, r = te.placeholder((m, k), name="A"), te.placeholder((k, n), name="B"), te.reduce_axis(k, "k")
    c = te.compute((m, n), lambda i, j: te.sum(a[i, r] * b[r, j], axis=r), name="C")
    plain = create_prim_func([a, b], [c], "main")
    s = Schedule(plain)
    out = s.cache_write("C", "local")
    copies = s.cache_read("C", "A", "shared"), s.cache_read("C", "B", "shared")
    i, j = s.loops(out)
    t = tile // per
    if virtual:
        bi, vi, ti, ii = s.split(i, [None, 2, t, per // 2], guard=True)
        bj, vj, tj, jj = s.split(j, [None, 2, t, per // 2], guard=True)
        s.reorder(bi, bj, vi, vj, ti, tj, ii, jj)
        s.bind(vi, "vthread")
        s.bind(vj, "vthread")
    else:
        bi, ti, ii = s.split(i, [None, t, per], guard=True)
        bj, tj, jj = s.split(j, [None, t, per], guard=True)
        s.reorder(bi, bj, ti, tj, ii, jj)
    for loop, axis in ((bi, "blockIdx.y"), (bj, "blockIdx.x"), (ti, "threadIdx.y"), (tj, "threadIdx.x")):
        s.bind(loop, axis)
    s.compute_at("C", tj, guard=True)
    ci, cj, ck = s.loops("C")[-3:]
    ko, ki = s.split(ck, [None, kt], guard=True)
    s.reorder(ko, ki, ci, cj)
    s.unroll(ci)
    s.unroll(cj)
    for copy in copies:
        s.compute_at(copy, ko, relax=True, guard=True)
        flat = s.fuse(*s.loops(copy)[-2:])
        parts = s.split(flat, [None, t, t, vector] if vector > 1 else [None, t, t], guard=True)
        s.bind(parts[1], "threadIdx.y")
        s.bind(parts[2], "threadIdx.x")
        if vector > 1:
            s.vectorize(parts[3])
    return s.func, plain


def softmax(m: int, n: int, threads: int = 32) -> Pair:
    """Rows' softmax in one kernel: a row per block, maximum and sum across threads."""
    x, r, q = te.placeholder((m, n), name="X"), te.reduce_axis(n, "r"), te.reduce_axis(n, "q")
    mx = te.compute((m,), lambda i: te.max(x[i, r], axis=r), name="mx")
    ex = te.compute((m, n), lambda i, j: call("exp", x[i, j] - mx[i]), name="ex")
    sm = te.compute((m,), lambda i: te.sum(ex[i, q], axis=q), name="sm")
    dv = te.compute((m, n), lambda i, j: ex[i, j] / sm[i], name="dv")
    plain = create_prim_func([x], [dv], "main")
    s = Schedule(plain)
    i, j = s.loops("dv")
    s.bind(i, "blockIdx.x")
    _, tx = s.split(j, [None, threads], guard=True)
    s.bind(tx, "threadIdx.x")
    for stage in ("sm", "ex", "mx"):
        s.compute_at(stage, i, relax=True, guard=True)
        parts = s.split(s.loops(stage)[-1], [None, threads], guard=True)
        s.bind(parts[-1], "threadIdx.x")
    return s.func, plain


def convolution(h: int, ic: int, oc: int, tile: int = 4) -> Pair:
    """3x3 convolution with padding and relu; the window of a tile of outputs is cached in shared memory."""
    x, w = te.placeholder((ic, h, h), name="X"), te.placeholder((oc, ic, 3, 3), name="W")
    p = te.compute(
        (ic, h + 2, h + 2),
        lambda c, i, j: if_then_else(land(i >= 1, i <= h, j >= 1, j <= h), x[c, i - 1, j - 1], 0.0), name="P",
    )  # fmt: skip
    kc, kh, kw = te.reduce_axis(ic, "kc"), te.reduce_axis(3, "kh"), te.reduce_axis(3, "kw")
    c = te.compute(
        (oc, h, h), lambda o, i, j: te.sum(p[kc, i + kh, j + kw] * w[o, kc, kh, kw], axis=[kc, kh, kw]), name="C"
    )
    e = te.compute((oc, h, h), lambda o, i, j: maximum(c[o, i, j], 0.0), name="E")
    plain = create_prim_func([x, w], [e], "main")
    s = Schedule(plain)
    o, i, j = s.loops("E")
    io, ii = s.split(i, [None, tile], guard=True)
    jo, ji = s.split(j, [None, tile], guard=True)
    s.reorder(o, io, jo, ii, ji)
    for loop, axis in (
        (o, "blockIdx.z"),
        (io, "blockIdx.y"),
        (jo, "blockIdx.x"),
        (ii, "threadIdx.y"),
        (ji, "threadIdx.x"),
    ):
        s.bind(loop, axis)
    s.compute_at("C", ji, guard=True)
    s.set_scope("C", "local")
    ck = s.loops("C")[-3]
    s.set_scope("P", "shared")
    s.compute_at("P", ck, relax=True, guard=True)
    pi, pj = s.loops("P")[-2:]
    for loop, axis in ((pi, "threadIdx.y"), (pj, "threadIdx.x")):
        _, inner = s.split(loop, [None, tile], guard=True)
        s.bind(inner, axis)
    return s.func, plain


def transpose(m: int, n: int, tile: int = 8) -> Pair:
    """B = A.T through a padded tile of shared memory: both sides touch memory in order."""
    a = te.placeholder((m, n), name="A")
    b = te.compute((n, m), lambda i, j: a[j, i], name="B")
    plain = create_prim_func([a], [b], "main")
    s = Schedule(plain)
    copy = s.cache_read("B", "A", "shared")
    i, j = s.loops("B")
    io, ii = s.split(i, [None, tile], guard=True)
    jo, ji = s.split(j, [None, tile], guard=True)
    s.reorder(io, jo, ii, ji)
    for loop, axis in ((io, "blockIdx.y"), (jo, "blockIdx.x"), (ii, "threadIdx.y"), (ji, "threadIdx.x")):
        s.bind(loop, axis)
    s.compute_at(copy, jo, relax=True, guard=True)
    s.storage_align(copy, 0, tile, 1)
    y, x = s.loops(copy)[-2:]
    s.bind(y, "threadIdx.y")
    s.bind(x, "threadIdx.x")
    return s.func, plain
