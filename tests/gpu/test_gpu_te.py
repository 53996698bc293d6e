"""Schedules in the words of `te.create_schedule`, for GPUs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gpu_run import check

from warpbeam import te
from warpbeam.te.create import create_prim_func
from warpbeam.te.schedule import lower


def axis(name: str, extent: int | None = None) -> Any:
    return te.thread_axis(name) if extent is None else te.thread_axis((0, extent), name)


def verify(s: Any, inputs: list[Any], outputs: list[Any], **options: Any) -> Any:
    """The schedule's program, run in all ways, against the computation without a schedule."""
    func = lower(s, [*inputs, *outputs], "main")
    return check((func, create_prim_func(inputs, outputs, "plain")), outputs=len(outputs), **options)


@pytest.mark.parametrize("n", [128, 100])
def test_vector_add(n: int) -> None:
    a, b = te.placeholder((n,), name="A"), te.placeholder((n,), name="B")
    c = te.compute(a.shape, lambda i: a[i] + b[i], name="C")
    s = te.create_schedule(c.op)
    bx, tx = s[c].split(c.op.axis[0], factor=64)
    s[c].bind(bx, axis("blockIdx.x"))
    s[c].bind(tx, axis("threadIdx.x"))
    verify(s, [a, b], [c])


def test_vector_add_of_a_symbolic_size() -> None:
    n = te.var("n")
    a = te.placeholder((n,), name="A")
    c = te.compute(a.shape, lambda i: a[i] + 1.0, name="C")
    s = te.create_schedule(c.op)
    bx, tx = s[c].split(c.op.axis[0], factor=32)
    s[c].bind(bx, axis("blockIdx.x"))
    s[c].bind(tx, axis("threadIdx.x"))
    verify(s, [a], [c], sizes={"n": 77})


def test_matmul_with_caches_and_virtual_threads() -> None:
    n, tile, per, kt = 64, 16, 2, 8
    a, b = te.placeholder((n, n), name="A"), te.placeholder((n, n), name="B")
    k = te.reduce_axis((0, n), "k")
    c = te.compute((n, n), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")
    s = te.create_schedule(c.op)
    aa, bb = s.cache_read(a, "shared", [c]), s.cache_read(b, "shared", [c])
    al, bl = s.cache_read(aa, "local", [c]), s.cache_read(bb, "local", [c])
    cl = s.cache_write(c, "local")
    threads = tile // per
    tx, ty = axis("threadIdx.x", threads), axis("threadIdx.y", threads)
    i, j = s[c].op.axis
    by, yi = s[c].split(i, factor=tile)
    bx, xi = s[c].split(j, factor=tile)
    vy, yi = s[c].split(yi, nparts=2)
    vx, xi = s[c].split(xi, nparts=2)
    tyi, yi = s[c].split(yi, nparts=threads)
    txi, xi = s[c].split(xi, nparts=threads)
    s[c].reorder(by, bx, vy, vx, tyi, txi, yi, xi)
    blocks = ((by, axis("blockIdx.y")), (bx, axis("blockIdx.x")))
    for loop, to in (*blocks, (vy, axis("vthread", 2)), (vx, axis("vthread", 2)), (tyi, ty), (txi, tx)):
        s[c].bind(loop, to)
    s[cl].compute_at(s[c], txi)
    ci, cj = s[cl].op.axis
    ko, ki = s[cl].split(s[cl].op.reduce_axis[0], factor=kt)
    s[cl].reorder(ko, ki, ci, cj)
    for load in (aa, bb):
        s[load].compute_at(s[cl], ko)
        y, x = s[load].op.axis
        t, y = s[load].split(y, nparts=threads)
        u, x = s[load].split(x, nparts=threads)
        s[load].reorder(t, u, y, x)
        s[load].bind(t, ty)
        s[load].bind(u, tx)
    s[al].compute_at(s[cl], ki)
    s[bl].compute_at(s[cl], ki)
    verify(s, [a, b], [c])


@pytest.mark.parametrize("n", [128, 100])
def test_reduction_by_rfactor(n: int) -> None:
    m = 6
    a, k = te.placeholder((m, n), name="A"), te.reduce_axis((0, n), "k")
    b = te.compute((m,), lambda i: te.sum(a[i, k], axis=k), name="B")
    s = te.create_schedule(b.op)
    _, ki = s[b].split(b.op.reduce_axis[0], factor=16)
    bf = s.rfactor(b, ki)
    xo, xi = s[b].split(s[b].op.axis[0], factor=4)
    tx = axis("threadIdx.x")
    s[b].bind(xo, axis("blockIdx.x"))
    s[b].bind(xi, axis("threadIdx.y"))
    s[b].bind(s[b].op.reduce_axis[0], tx)
    s[bf].compute_at(s[b], s[b].op.reduce_axis[0])
    s[b].set_store_predicate(tx.var.equal(0))
    verify(s, [a], [b])


def test_softmax() -> None:
    m, n = 5, 64
    x = te.placeholder((m, n), name="X")
    r, q = te.reduce_axis((0, n), "r"), te.reduce_axis((0, n), "q")
    mx = te.compute((m,), lambda i: te.max(x[i, r], axis=r), name="mx")
    ex = te.compute((m, n), lambda i, j: te.exp(x[i, j] - mx[i]), name="ex")
    sm = te.compute((m,), lambda i: te.sum(ex[i, q], axis=q), name="sm")
    out = te.compute((m, n), lambda i, j: ex[i, j] / sm[i], name="out")
    s = te.create_schedule(out.op)
    tx, bx = axis("threadIdx.x"), axis("blockIdx.x")
    for stage in (mx, sm):
        _, ki = s[stage].split(s[stage].op.reduce_axis[0], factor=32)
        s[stage].bind(ki, tx)
        s[stage].bind(s[stage].op.axis[0], bx)
    for stage in (ex, out):
        _, xi = s[stage].split(s[stage].op.axis[1], factor=32)
        s[stage].bind(s[stage].op.axis[0], bx)
        s[stage].bind(xi, tx)
    devices = verify(s, [x], [out], rtol=1e-5)
    assert len(devices) == 4


def test_scan_with_threads() -> None:
    m, n = 8, 20
    x = te.placeholder((m, n), name="X")
    state = te.placeholder((m, n), name="state")
    init = te.compute((1, n), lambda _, i: x[0, i], name="init")
    update = te.compute((m, n), lambda t, i: state[t - 1, i] + x[t, i], name="update")
    scan = te.scan(init, update, state, inputs=[x])
    s = te.create_schedule(scan.op)
    for stage in (init, update):
        xo, xi = s[stage].split(s[stage].op.axis[1], factor=8)
        s[stage].bind(xo, axis("blockIdx.x"))
        s[stage].bind(xi, axis("threadIdx.x"))
    func = lower(s, [x, scan], "main")
    rows = np.random.default_rng(0).integers(-4, 5, (m, n)).astype(np.float32)
    from gpu_run import CUDA

    from warpbeam.tir import interp_gpu
    from warpbeam.tir.transform.gpu import lower_gpu

    got = np.zeros((m, n), np.float32)
    host, devices = lower_gpu(func, CUDA)
    interp_gpu.run(host, devices, rows, got)
    np.testing.assert_array_equal(got, np.cumsum(rows, 0))
