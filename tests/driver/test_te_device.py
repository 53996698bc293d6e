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
    with pytest.raises(RunError, match="is not machine code"):
        mod.time_evaluator("myadd", tvm.cpu())
    x = np.zeros(3, np.float32)
    with pytest.raises(RunError, match=f"kernels for {target} are printed"):
        mod(x, x, x)


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


def test_no_memory_on_devices() -> None:
    assert not tvm.cuda(0).exist and not tvm.runtime.enabled("cuda") and tvm.cuda().max_threads_per_block is None
    with pytest.raises(tvm.TVMError, match="no memory manager for device cuda"):
        tvm.nd.array(np.zeros(2), tvm.cuda(0))
