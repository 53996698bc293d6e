"""Names that classic scripts use, with `import warpbeam as tvm`: they are there and do what they say."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warpbeam as tvm
from warpbeam import rpc, te
from warpbeam.contrib import cc, clang, download, ndk, nvcc, tar, util, utils

NAMES = """
lower build driver.build driver.lower IRModule ir.IRModule ir.save_json ir.load_json ir.structural_equal
ir.assert_structural_equal ir.register_op_attr ir.register_intrin_lowering ir.Range ir.transform instrument
transform.PassContext te.placeholder te.create_schedule topi tir.const tir.ir_builder tir.transform
target.Target target.create target.cuda target.llvm target.arm_cpu target.opencl target.Target.current
nd.array nd.empty nd.NDArray nd.cpu nd.gpu cpu gpu cuda cl opencl device context register_func get_global_func
runtime.load_module runtime.enabled runtime.convert runtime.NDArray runtime.PackedFunc runtime.Device
contrib.utils.tempdir contrib.util.tempdir contrib.cc.create_shared contrib.cc.cross_compiler contrib.tar.tar
contrib.cblas.matmul contrib.graph_executor.GraphModule contrib.graph_runtime.create contrib.clang.create_llvm
contrib.download.download_testdata testing.assert_allclose testing.enabled_targets testing.device_enabled
error.TVMError TVMError __version__ relay.build
"""


@pytest.mark.parametrize("path", NAMES.split())
def test_name(path: str) -> None:
    found: Any = tvm
    for part in path.split("."):
        found = getattr(found, part)
    assert found is not None


PATHS = """
import warpbeam.nd as nd; nd.array
import warpbeam.error; warpbeam.error.TVMError
import warpbeam.rpc as rpc; rpc.LocalSession
import warpbeam.instrument as i; i.PassInstrument
import warpbeam.target; warpbeam.target.Target("llvm")
import warpbeam.relay as relay; relay.var; relay.nn.conv2d; relay.build
import warpbeam.relay.transform as t; t.FoldConstant
import warpbeam.topi as topi; topi.nn.relu
import warpbeam.testing.utils as u; u.assert_allclose
import warpbeam.contrib.graph_executor as g; g.GraphModule
import warpbeam.contrib.graph_runtime as g; g.create
from warpbeam import te, tir, topi, relay, rpc, nd, error, runtime, target, testing, hybrid
from warpbeam.contrib import cblas, cc, clang, graph_executor, graph_runtime, ndk, nvcc, rpc, tar, tedd, util, utils
from warpbeam.topi.util import get_const_tuple
from warpbeam.topi.nn.util import get_pad_tuple
from warpbeam.driver.build_module import build, lower
from warpbeam.ir.module import IRModule
from warpbeam._ffi import get_global_func, register_func
from warpbeam.runtime.ndarray import array, cpu
from warpbeam.te.hybrid import script
"""


@pytest.mark.parametrize("line", PATHS.strip().splitlines())
def test_import_path(line: str) -> None:
    """Each in a process of its own, where nothing was imported before."""
    done = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_one_module_under_two_paths() -> None:
    for alias, path in (("nd", "runtime.ndarray"), ("error", "runtime.errors"), ("topi.util", "topi.utils")):
        found, real = (importlib.import_module(f"warpbeam.{p}") for p in (alias, path))
        assert found is real and real.__spec__ is not None and real.__spec__.name == real.__name__
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("warpbeam.no_such_path")


def test_session_on_this_machine(tmp_path: Path) -> None:
    n = tvm.runtime.convert(16)
    a = te.placeholder((n,), name="A")
    b = te.compute((n,), lambda i: a[i] - 2.0, name="B")
    mod = tvm.build(te.create_schedule(b.op), [a, b], target="llvm", name="less_two")
    mod.export_library(str(tmp_path / "lib.tar"))
    with rpc.LocalSession() as remote:
        remote.upload(str(tmp_path / "lib.tar"))
        dev = remote.cpu()
        x = tvm.nd.array(np.arange(16, dtype="float32"), dev)
        y = tvm.nd.array(np.zeros(16, dtype="float32"), dev)
        f = remote.load_module("lib.tar")
        f(x, y)
        assert np.array_equal(y.numpy(), x.numpy() - 2)
        assert f.time_evaluator(f.entry_name, dev, number=2)(x, y).mean > 0
        remote.upload(b"12", target="sub/b.bin")
        assert remote.download("sub/b.bin") == b"12"
        remote.remove("sub/b.bin")
        for call in (
            lambda: remote.download("sub/b.bin"), lambda: remote.upload(b"1"), lambda: remote.load_module("none.so"),
            lambda: remote.upload(b"1", "../outside"), lambda: remote.get_function("no.such"),
        ):  # fmt: skip
            with pytest.raises(ValueError):
                call()
        assert (remote.cl(1), remote.gpu(0), remote.device("cuda", 2)) == (tvm.cl(1), tvm.cuda(0), tvm.cuda(2))


def test_what_a_gpu_can_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert nvcc.get_target_compute_version(tvm.target.Target("cuda -arch=sm_75")) == "7.5"
    assert nvcc.get_target_compute_version(tvm.target.Target("cuda -arch=sm_100")) == "10.0"
    with pytest.raises(ValueError, match="No CUDA architecture"):
        nvcc.get_target_compute_version(tvm.target.Target("cuda"))
    assert not nvcc.have_tensorcore(tvm.cuda(0).compute_version) and nvcc.have_tensorcore("7.0")
    assert nvcc.have_tensorcore(target=tvm.target.Target("cuda -arch=sm_80")) and not nvcc.have_fp16("5.2")
    assert nvcc.have_int8("6.1") and nvcc.have_bf16("8.0") and not nvcc.have_bf16("7.5")
    with pytest.raises(ValueError, match="target_format"):
        nvcc.compile_cuda("", "exe")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_PATH", raising=False)
    for call in (lambda: nvcc.compile_cuda("__global__ void f() {}"), nvcc.find_cuda_path):
        with pytest.raises(tvm.TVMError, match="nvcc"):
            call()
    monkeypatch.delenv("TVM_NDK_CC", raising=False)
    with pytest.raises(RuntimeError, match="TVM_NDK_CC"):
        ndk.create_shared("a.so", [])


def test_devices() -> None:
    assert tvm.device("llvm", 0) == tvm.context("llvm -mcpu=core-avx2", 0) == tvm.cpu() and tvm.cpu(0).exist
    assert (tvm.cl(1).device_type, tvm.cl(1).device_id, str(tvm.gpu(1))) == (4, 1, "cuda(1)")
    assert tvm.cpu().max_threads_per_block == tvm.cpu().warp_size == 1 and tvm.cpu().compute_version is None
    assert tvm.cpu().device_name and tvm.cpu().multi_processor_count == os.cpu_count()
    tvm.cpu().sync()
    assert repr(tvm.cpu()) == "cpu(0)"


def test_arrays() -> None:
    a = tvm.nd.array(np.arange(3, dtype="float32"), ctx=tvm.cpu(0))
    assert a.ctx == a.device == tvm.cpu() and a.same_as(a) and not a.same_as(tvm.nd.array([1.0]))
    b = tvm.nd.empty((3,), dtype="float32", device=tvm.cpu(), mem_scope="global")
    assert a.copyto(b) is b and b.asnumpy().tolist() == b.numpy().tolist() == [0, 1, 2]
    assert b.copyfrom(np.ones(3)).numpy().tolist() == [1, 1, 1]  # cast from float64
    assert b.copyfrom([4, 5, 6]).dtype == "float32"
    with pytest.raises(tvm.TVMError, match="cannot copy"):
        b.copyfrom(tvm.nd.array(np.ones(3)))
    with pytest.raises(tvm.TVMError, match="no memory of scope"):
        tvm.nd.empty((2,), mem_scope="texture")


def test_assert_allclose() -> None:
    tvm.testing.assert_allclose(tvm.nd.array([1.0, 2.0]), [1.0, 2.0])
    with pytest.raises(AssertionError):
        tvm.testing.assert_allclose([1.0], [1.001])
    tvm.testing.assert_allclose([1.0], [1.001], rtol=1e-2, atol=0)
    with pytest.raises(AssertionError, match="shape"):
        tvm.testing.assert_allclose([1.0], [[1.0]])
    assert tvm.testing.enabled_targets() == [("llvm", tvm.cpu(0))]
    assert tvm.testing.device_enabled("llvm") and not tvm.testing.device_enabled("cuda -arch=sm_70")


def test_temporary_folders(tmp_path: Path) -> None:
    temp = utils.tempdir()
    Path(temp.relpath("a.txt")).write_text("x")
    assert temp.listdir() == ["a.txt"] and (temp / "a.txt").is_file() and temp.path.is_dir()
    folder = temp.temp_dir
    temp.remove()
    assert not os.path.exists(folder)
    with util.tempdir() as other:
        folder = other.temp_dir
    assert not os.path.exists(folder)
    own = utils.tempdir(str(tmp_path / "own"))
    own.remove()
    assert (tmp_path / "own").is_dir()


def test_archives(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"123")
    tar.tar(str(tmp_path / "x.tar"), [str(tmp_path / "a.bin")])
    tar.untar(str(tmp_path / "x.tar"), str(tmp_path / "out"))
    assert (tmp_path / "out" / "a.bin").read_bytes() == b"123"


def test_download_keeps_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").write_text("data")
    monkeypatch.setenv("WARPBEAM_TEST_DATA", str(tmp_path / "cache"))
    url = (tmp_path / "source").as_uri()
    path = download.download_testdata(url, "file.txt", module=["a", "b"])
    assert Path(path).read_text() == "data" and path.endswith("/a/b/file.txt")
    (tmp_path / "source").write_text("new")
    assert Path(download.download_testdata(url, "file.txt", module=["a", "b"])).read_text() == "data"
    download.download(url, path, overwrite=True)
    assert Path(path).read_text() == "new"
    with pytest.raises(OSError):
        download.download((tmp_path / "missing").as_uri(), tmp_path / "none", retries=1)
    assert not (tmp_path / "none").exists()


def test_compilers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(tvm.TVMError, match="there is no C compiler"):
        cc.create_shared(str(tmp_path / "x.so"), [], cc="no-such-compiler")
    assert cc.get_target_by_dump_machine("no-such-compiler")() is None
    link = cc.cross_compiler(lambda out, files, options: Path(out).write_text(" ".join([*files, *options])), ["-a"],
                             add_files=["extra.o"])  # fmt: skip
    link(str(tmp_path / "y"), ["z.o"], options=["-b"])
    assert (tmp_path / "y").read_text() == "z.o extra.o -a -b" and link.output_format == "so"  # type: ignore[attr-defined]
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(tvm.TVMError, match="clang was not found"):
        clang.find_clang()
    assert clang.create_llvm("int f(void);", output=str(tmp_path / "f.ll")) == (tmp_path / "f.ll").read_text()


def test_errors_are_value_errors_where_they_were() -> None:
    assert issubclass(tvm.TVMError, Exception) and tvm.error.TVMError is tvm.TVMError is tvm.WarpbeamError
    for call in (lambda: tvm.target.Target.current(allow_none=False), lambda: tvm.get_global_func("nothing.here")):
        with pytest.raises(ValueError):
            call()
