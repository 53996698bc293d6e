"""Schedules of the library compute what the unscheduled computation does: interpreted, natively, and with GPU rules."""

from __future__ import annotations

import numpy as np
import pytest
from tolerance import close, terms_of

import warpbeam
from warpbeam import te, topi
from warpbeam.ir import dtype as dt
from warpbeam.target import Target
from warpbeam.tir import interp, interp_gpu
from warpbeam.tir.transform.gpu.pipeline import lower_gpu

nn, relu = topi.nn, topi.nn.relu


def mixed(a, b):
    return topi.sum(topi.elemwise_sum([a + b, a * b]) / 2.0)


CASES = {
    "injective": (lambda x: topi.exp(x) + 1.0, "injective", [(3, 5, 37)]),
    "one axis": (lambda x: topi.transpose(topi.reshape(x, (5, 10))), "injective", [(50,)]),
    "sum": (mixed, "reduce", [(6, 4, 4), (4, 4)]),
    "sum of rows": (lambda x: topi.sum(topi.exp(x) + 1.0, axis=1) * 2.0, "reduce", [(4, 70)]),
    "sum in vectors": (lambda x: topi.sum(x, axis=(0, 2)), "reduce", [(3, 4, 64)]),
    "softmax in vectors": (nn.softmax, "softmax", [(5, 48)]),
    "sum of columns": (lambda x: topi.sum(x, axis=0), "reduce", [(14, 39)]),
    "largest": (lambda x: topi.max(x, axis=(1, 2)), "reduce", [(11, 5, 19)]),
    "argmax": (lambda x: topi.argmax(x, axis=1), "reduce", [(14, 39)]),
    "softmax": (lambda x: nn.softmax(x * 2.0), "softmax", [(2, 3, 51)]),
    "softmax, middle": (lambda x: nn.softmax(x, 1), "softmax", [(2, 4, 3)]),
    "log_softmax": (nn.log_softmax, "softmax", [(4, 33)]),
    "mean of windows": (
        lambda x: nn.pool2d(x, (3, 3), (2, 2), (1, 1), (1, 1, 1, 1), "avg"), "pool", [(1, 3, 8, 9)]),
    "largest of windows": (
        lambda x: nn.pool2d(x, (3, 3), (1, 1), (1, 1), (1, 1, 1, 1), "max"), "pool", [(1, 2, 10, 20)]),
    "planes": (lambda x: nn.global_pool(x, "avg"), "adaptive_pool", [(1, 3, 8, 8)]),
    "dense": (lambda x, w, b: relu(nn.dense(x, w, b)), "dense", [(7, 12), (33, 12), (33,)]),
    "matmul": (nn.matmul, "matmul", [(16, 12), (12, 48)]),
    "batch_matmul": (nn.batch_matmul, "batch_matmul", [(2, 9, 6), (2, 18, 6)]),
    "conv": (lambda x, w: nn.conv2d_nchw(x, w, 2, 1), "conv2d_nchw", [(2, 4, 11, 9), (7, 4, 3, 3)]),
    "conv, relu": (lambda x, w, b: relu(nn.conv2d_nchw(x, w, 1, 1) + b), "conv2d_nchw",
                   [(1, 3, 6, 18), (5, 3, 3, 3), (5, 1, 1)]),
    "channels last": (lambda x, w: relu(nn.conv2d_nhwc(x, w, 1, 1)), "conv2d_nhwc", [(1, 5, 8, 3), (3, 3, 3, 18)]),
    "batch last": (lambda x, w: nn.conv2d_hwcn(x, w, 1, "SAME"), "conv2d_hwcn", [(5, 5, 3, 2), (3, 3, 3, 8)]),
    "depthwise": (lambda x, w: relu(nn.depthwise_conv2d_nchw(x, w, 1, 1)), "depthwise_conv2d_nchw",
                  [(1, 3, 8, 8), (3, 2, 3, 3)]),
}  # fmt: skip


def prepared(name, library):
    """(inputs, output, arrays, the right result, the schedule) of a case."""
    build, which, shapes = CASES[name]
    rng = np.random.default_rng(len(name))
    ins = [te.placeholder(s, "float32", f"x{i}") for i, s in enumerate(shapes)]
    out = build(*ins)
    arrays = [rng.integers(-3, 4, s).astype(np.float32) for s in shapes]
    want = np.zeros([int(d) for d in out.shape], dt.to_numpy(out.dtype))
    interp.run(te.create_prim_func(ins, [out], "f"), *arrays, want)
    return ins, out, arrays, want, getattr(library, f"schedule_{which}")([out])


@pytest.mark.parametrize("name", CASES)
def test_generic(name):
    ins, out, arrays, want, s = prepared(name, topi.generic)
    got = np.zeros_like(want)
    interp.run(te.schedule.lower(s, [*ins, out]), *arrays, got)
    close(got, want, terms_of([out]))


@pytest.mark.parametrize("name", CASES)
def test_x86(name):
    ins, out, arrays, want, s = prepared(name, topi.x86)
    func = te.schedule.lower(s, [*ins, out])
    assert "parallel" in str(func) or want.ndim == 0
    got = np.zeros_like(want)
    interp.run(func, *arrays, got)
    close(got, want, terms_of([out]))


@pytest.mark.parametrize("name", ["injective", "argmax", "softmax", "mean of windows", "dense", "conv, relu"])
def test_x86_natively(name):
    ins, out, arrays, want, s = prepared(name, topi.x86)
    given = [warpbeam.nd.array(a) for a in [*arrays, np.zeros_like(want)]]
    warpbeam.build(s, [*ins, out], "llvm")(*given)
    close(given[-1].numpy(), want)


@pytest.mark.parametrize("name", CASES)
def test_cuda(name):
    """Under the rules of a GPU: no races, no lone barriers, nothing read before it is written."""
    ins, out, arrays, want, s = prepared(name, topi.cuda)
    host, kernels = lower_gpu(te.schedule.lower(s, [*ins, out]), Target("cuda"))
    got = np.zeros_like(want)
    interp_gpu.run(host, kernels, *arrays, got)
    close(got, want, terms_of([out]))


def test_registers_and_shared_memory_are_used():
    ins, out, *_, s = prepared("conv, relu", topi.x86)
    text = str(te.schedule.lower(s, [*ins, out]))
    assert "@local" in text and "vectorized" in text
    ins, out, *_, s = prepared("conv, relu", topi.cuda)
    text = str(te.schedule.lower(s, [*ins, out]))
    assert "@shared" in text and 'thread_binding("threadIdx.y"' in text


def test_symbolic_rows():
    n = te.size_var("n")
    a = te.placeholder((n, 20), "float32", "a")
    out = topi.exp(a) + 1.0
    x = np.random.default_rng(0).uniform(-1, 1, (7, 20)).astype(np.float32)
    for library in (topi.generic, topi.x86):
        got = np.zeros_like(x)
        interp.run(te.schedule.lower(library.schedule_injective([out]), [a, out]), x, got)
        close(got, np.exp(x) + 1)


def test_existing_schedules_and_names_by_target():
    a = te.placeholder((8, 40), "float32", "a")
    out = a * 2.0
    for library in (topi.generic, topi.x86, topi.cuda):
        s = te.create_schedule(out.op)
        assert library.schedule_injective_from_existing(s, out) is s
        assert s[out].relations
    assert topi.testing.get_injective_schedule("cuda") is topi.cuda.schedule_injective
    assert topi.testing.get_reduce_schedule("llvm") is topi.x86.schedule_reduce
