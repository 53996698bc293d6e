"""Programs for GPUs: text of kernels, a host part, errors, and the executor that stands in for a device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import warpbeam as tvm
from warpbeam import te
from warpbeam.driver.te_device import EXECUTOR
from warpbeam.runtime import ArgumentError, FunctionError, RunError


def schedule(bind: bool = True) -> tuple[Any, list[Any]]:
    n = te.var("n")
    a, b = te.placeholder((n,), name="A"), te.placeholder((n,), name="B")
    c = te.compute((n,), lambda i: a[i] + b[i], name="C")
    s = te.create_schedule(c.op)
    bx, tx = s[c].split(c.op.axis[0], factor=64)
    if bind:
        s[c].bind(bx, te.thread_axis("blockIdx.x"))
        s[c].bind(tx, te.thread_axis("threadIdx.x"))
    return s, [a, b, c]


@pytest.mark.parametrize(("target", "word", "ext"), [("cuda", "__global__", "cu"), ("opencl", "__kernel", "cl")])
def test_text_of_kernels(target: str, word: str, ext: str, tmp_path: Any) -> None:
    mod = tvm.build(*schedule(), tvm.target.Target(target, host="llvm"), name="myadd")
    assert mod.type_key == "host" and "launch_kernel" in mod.get_source() and mod.entry_name == "myadd"
    (device,) = mod.imported_modules
    assert device.type_key == target and word in device.get_source() and "myadd_kernel" in device.get_source(ext)
    device.save(tmp_path / f"k.{ext}")
    assert (tmp_path / f"k.{ext}").read_text() == device.get_source()
    for module in (mod, device):
        with pytest.raises(FunctionError, match="sources only"):
            module.export_library(tmp_path / "k.so")
    a = np.arange(100, dtype=np.float32)
    c = np.zeros(100, np.float32)
    mod(a, a, c)
    assert np.array_equal(c, 2 * a)
    with pytest.raises(ArgumentError, match="num_args should be 3"):
        mod(a, a)


def test_unbound_loops() -> None:
    with pytest.raises(tvm.TVMError, match="Did you forget to bind"):
        tvm.build(*schedule(bind=False), "cuda")


@pytest.mark.parametrize("lowered", [False, True])
def test_executor(lowered: bool) -> None:
    given = (tvm.lower(*schedule()),) if lowered else schedule()
    with tvm.transform.PassContext(config={EXECUTOR: True}):
        mod = tvm.build(*given, target="cuda")
    a, b = np.random.default_rng(0).random((2, 100), np.float32)
    c = tvm.nd.empty((100,))
    mod(a, tvm.nd.array(b), c)
    assert np.array_equal(c.numpy(), a + b)
    with pytest.raises(ArgumentError, match="num_args should be 3"):
        mod(a, b)


def test_a_device_without_driver() -> None:
    assert not tvm.cuda(0).exist and not tvm.runtime.enabled("cuda") and tvm.cuda().max_threads_per_block is None
    with pytest.warns(RuntimeWarning, match=r"there is no driver for cuda\(7\)"):
        x = tvm.nd.array(np.arange(100, dtype=np.float32), tvm.cuda(7))
    y, z = tvm.nd.array(x, tvm.cuda(7)), tvm.nd.empty((100,), device=tvm.cuda(7))  # said once
    assert x.device == tvm.cuda(7) and np.from_dlpack(x)[3] == 3
    mod = tvm.build(*schedule(), "cuda", name="add")
    assert mod.time_evaluator("add", tvm.cuda(7), number=2)(x, y, z).mean > 0
    assert np.array_equal(z.numpy(), 2 * x.numpy())
    with pytest.raises(RunError, match="no memory manager for device 99"):
        tvm.nd.array(x, tvm.device(99))


def test_threads_that_share_run_on_the_processor() -> None:
    """Cooperative copies, partial sums over threads, virtual threads, memory of blocks; two kernels in one function."""
    a, b = te.placeholder((70, 50), name="A"), te.placeholder((50, 90), name="B")
    k, r = te.reduce_axis((0, 50), "k"), te.reduce_axis((0, 90), "r")
    c = te.compute((70, 90), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")
    d = te.compute((70,), lambda i: te.sum(c[i, r], axis=r), name="D")
    s = te.create_schedule(d.op)
    tx, ty = te.thread_axis("threadIdx.x"), te.thread_axis((0, 8), "threadIdx.y")
    i, j = c.op.axis
    by, i = s[c].split(i, 16)
    bx, j = s[c].split(j, 32)
    v, i = s[c].split(i, nparts=2)
    t, j = s[c].split(j, 4)
    s[c].reorder(by, bx, v, i, t, j)
    for axis, thread in ((by, te.thread_axis("blockIdx.y")), (bx, te.thread_axis("blockIdx.x")),
                         (v, te.thread_axis("vthread")), (i, ty), (t, tx)):  # fmt: skip
        s[c].bind(axis, thread)
    shared = s.cache_read(a, "shared", [c])
    s[shared].compute_at(s[c], bx)
    copy, _ = s[shared].split(shared.op.axis[0], nparts=8)
    s[shared].bind(copy, ty)
    _, inner = s[d].split(d.op.reduce_axis[0], 16)
    part = s.rfactor(d, inner)
    s[d].bind(d.op.axis[0], te.thread_axis("blockIdx.x"))
    s[d].bind(s[d].op.reduce_axis[0], tx)
    s[part].compute_at(s[d], s[d].op.reduce_axis[0])
    s[d].set_store_predicate(tx.var.equal(0))
    x, y = (np.random.default_rng(0).integers(-4, 5, shape).astype(np.float32) for shape in ((70, 50), (50, 90)))
    out, whole = np.zeros(70, np.float32), np.zeros((70, 90), np.float32)
    tvm.build(s, [a, b, c, d], "cuda")(x, y, whole, out)
    assert np.array_equal(whole, x @ y) and np.array_equal(out, (x @ y).sum(1))


def test_functions_of_the_device_only() -> None:
    """What the processor has no function for goes to the executor, which says so."""
    a = te.placeholder((64,), name="A")
    b = te.compute((64,), lambda i: tvm.tir.call_pure_extern("float32", "__no_such_function", a[i]), name="B")
    s = te.create_schedule(b.op)
    s[b].bind(b.op.axis[0], te.thread_axis("threadIdx.x"))
    mod = tvm.build(s, [a, b], "cuda")
    assert "__no_such_function" in mod.imported_modules[0].get_source()
    with (
        pytest.warns(RuntimeWarning, match="runs by the executor of GPU rules, which is slow: the C function"),
        pytest.raises(tvm.TVMError, match="__no_such_function"),
    ):
        mod(np.zeros(64, np.float32), np.zeros(64, np.float32))
