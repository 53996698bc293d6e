"""One script, three ends: this process, Python's server, the server in C."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warpbeam as tvm
from warpbeam import rpc, te
from warpbeam.runtime.abi import numpy_dtype

SIZE = 1 << 19  # bytes of one frame's data


@pytest.fixture
def local() -> Iterator[rpc.RPCSession]:
    """A session with this process."""
    with rpc.LocalSession() as made:
        yield made


def built(name: str = "scaled", factor: float = 3.0) -> Any:
    """B[i] = exp(A[i]) * factor, for any length."""
    a = te.placeholder((te.var("n"),), name="A")
    b = te.compute(a.shape, lambda i: te.exp(a[i]) * factor, name="B")
    return tvm.build(te.create_schedule(b.op), [a, b], name=name)


def outside(name: str) -> Any:
    """A function that calls a C function of the machine for its first element."""
    a = te.placeholder((1,), name="A", dtype="int32")
    b = te.compute((1,), lambda i: tvm.tir.call_extern("int32", name, a[i]), name="B")
    return tvm.build(te.create_schedule(b.op), [a, b], name="outside")


def check_files(session: rpc.RPCSession, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"abc" * 5)
    session.upload(str(tmp_path / "a.bin"))
    session.upload(b"", target="empty")
    session.upload(bytearray(b"first"), target="sub/b")
    session.upload(b"then", target="sub/b")
    assert session.download("a.bin") == b"abc" * 5 and session.download("empty") == b""
    assert session.download("sub/b") == b"then"
    assert session.listdir() == "a.bin,empty,sub/b" and session.listdir("sub") == "b"
    session.remove("a.bin")
    assert session.listdir() == "empty,sub/b"


def test_files(remote: rpc.RPCSession, tmp_path: Path) -> None:
    check_files(remote, tmp_path)


def test_files_here(local: rpc.RPCSession, tmp_path: Path) -> None:
    check_files(local, tmp_path)


@pytest.mark.parametrize("size", [1, SIZE - 1, SIZE, SIZE + 1, 3 * SIZE + 7])
def test_files_of_many_frames(remote: rpc.RPCSession, size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    remote.upload(data, target="x")
    assert remote.download("x") == data


def test_frames_of_each_length(remote: rpc.RPCSession) -> None:
    """SHA-256 pads by the length: every remainder of its blocks comes up."""
    for size in range(200):
        data = bytes(range(size))
        remote.upload(data, target="x")
        assert remote.download("x") == data


def check_functions(session: rpc.RPCSession, tmp_path: Path, ext: str) -> None:
    f = built()
    f.save(str(tmp_path / f"lib.{ext}"))
    session.upload(str(tmp_path / f"lib.{ext}"))
    g = session.load_module(f"lib.{ext}")
    data = np.linspace(-2, 2, 200_001, dtype="float32")
    x, y = tvm.nd.array(data, session.cpu()), tvm.nd.empty(data.shape, "float32", session.cpu())
    g(x, y)
    want = tvm.nd.empty(data.shape)
    f(tvm.nd.array(data), want)
    assert np.array_equal(y.numpy(), want.numpy())
    g["scaled"](y, y)  # read and written: read from a copy
    twice = tvm.nd.empty(data.shape)
    f(want, twice)
    assert np.array_equal(y.numpy(), twice.numpy())
    times = g.time_evaluator("scaled", session.cpu(), number=2, repeat=5)(x, y)
    assert len(times.results) == 5 and min(times.results) > 0 and times.number == 2
    assert session.listdir() == f"lib.{ext}"


@pytest.mark.parametrize("ext", ["so", "tar", "o"])
def test_functions(remote: rpc.RPCSession, tmp_path: Path, ext: str) -> None:
    check_functions(remote, tmp_path, ext)


def test_functions_here(local: rpc.RPCSession, tmp_path: Path) -> None:
    check_functions(local, tmp_path, "so")


def test_a_file_loaded_again_is_the_new_one(remote: rpc.RPCSession, tmp_path: Path) -> None:
    modules = []
    for factor in (2.0, 5.0):
        built(factor=factor).export_library(str(tmp_path / "lib.so"))
        remote.upload(str(tmp_path / "lib.so"))
        modules.append(remote.load_module("lib.so"))
    x, y = tvm.nd.array(np.zeros(4, "float32"), remote.cpu()), tvm.nd.empty((4,), "float32", remote.cpu())
    for module, factor in zip(modules, (2.0, 5.0), strict=True):
        module(x, y)
        assert y.numpy().tolist() == [factor] * 4


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int8", "uint64", "bool", "complex64"])
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (200, 700)], ids=str)
def test_arrays(remote: rpc.RPCSession, dtype: str, shape: tuple[int, ...]) -> None:
    data = np.random.default_rng(0).integers(0, 100, shape).astype(numpy_dtype(dtype))
    x = tvm.nd.array(data, remote.cpu())
    assert (x.shape, x.dtype, x.ndim, x.size) == (shape, dtype, len(shape), data.size)
    assert np.array_equal(x.numpy(), data) and np.array_equal(np.asarray(x), data)
    y = tvm.nd.empty(shape, dtype, remote.cpu())
    x.copyto(y)
    assert np.array_equal(y.numpy(), data)
    here = x.copyto(tvm.cpu())
    assert here.device == tvm.cpu() and np.array_equal(here.numpy(), data)
    assert np.array_equal(here.copyto(remote.cpu()).numpy(), data)


def test_parts_of_an_array(remote: rpc.RPCSession) -> None:
    x = tvm.nd.array(np.arange(12, dtype="float32").reshape(3, 4), remote.cpu())
    x[1] = np.ones(4)
    x[0, 0] = 7
    assert x[0, 0] == 7 and x[1].numpy().tolist() == [1] * 4 and len(x) == 3
    assert "of 127.0.0.1" in repr(x) and x.device != tvm.cpu() and x.device == remote.cpu()
    with pytest.raises(tvm.TVMError, match="cannot copy"):
        x.copyfrom(np.zeros(3))
    with pytest.raises(tvm.TVMError, match="is on cpu"):
        built()(x, x)


def test_arrays_give_their_memory_back(program: list[str]) -> None:
    options = ["--max-bytes", "1000000"]
    with (
        rpc.Server(program=program, options=options) as small,
        rpc.connect(small.host, small.port, secret=small.secret) as remote,
    ):
        for _ in range(20):
            x = tvm.nd.empty((600_000,), "uint8", remote.cpu())
            del x
        kept = tvm.nd.empty((600_000,), "uint8", remote.cpu())
        with pytest.raises(tvm.TVMError, match="no memory for 600000 bytes"):
            tvm.nd.empty((600_000,), "uint8", remote.cpu())
        with pytest.raises(tvm.TVMError, match="no memory"):
            tvm.nd.empty((1 << 60,), "uint8", remote.cpu())
        with pytest.raises(tvm.TVMError, match="the server takes 1000000"):
            remote.upload(bytes(1_000_001), target="large")
        remote.upload(bytes(600_000), target="a")
        with pytest.raises(tvm.TVMError, match="limited to 1000000 bytes"):
            remote.upload(bytes(600_000), target="b")
        remote.remove("a")
        remote.upload(bytes(600_000), target="c")
        assert kept.numpy().size == 600_000


def test_measuring(remote: rpc.RPCSession) -> None:
    f = built()
    remote.upload(f.code, target="lib.so")
    g = remote.load_module("lib.so")
    x, y = tvm.nd.array(np.zeros(64, "float32"), remote.cpu()), tvm.nd.empty((64,), "float32", remote.cpu())
    long = g.time_evaluator(g.entry_name, number=1, repeat=2, min_repeat_ms=20)(x, y)
    assert long.number > 1 and len(long.results) == 2
    start = time.perf_counter()
    g.time_evaluator(g.entry_name, number=1, repeat=4, cooldown_interval_ms=50, repeats_to_cooldown=2)(x, y)
    assert time.perf_counter() - start >= 0.1
    flushed = g.time_evaluator(g.entry_name, number=1, repeat=3, cache_flush_bytes=1 << 20)(x, y)
    assert len(flushed.results) == 3
    with pytest.raises(tvm.TVMError, match="f_preproc"):
        g.time_evaluator(g.entry_name, f_preproc="name")
    with pytest.raises(tvm.TVMError, match="no memory for"):
        g.time_evaluator(g.entry_name, cache_flush_bytes=1 << 40)(x, y)


def test_mistakes(remote: rpc.RPCSession, tmp_path: Path) -> None:
    """The same errors as in this process."""
    remote.upload(built().code, target="lib.so")
    remote.upload(b"\x7fELFish", target="no.so")
    g = remote.load_module("lib.so")
    x, longer = tvm.nd.array(np.zeros(4, "float32"), remote.cpu()), tvm.nd.empty((5,), "float32", remote.cpu())
    cases: list[tuple[type[Exception], str, Any]] = [
        (tvm.error.ArgumentError, "num_args should be 2", lambda: g(x)),
        (tvm.error.ArgumentError, r"Argument scaled\.B\.shape\[0\]", lambda: g(x, longer)),
        (tvm.error.ArgumentError, r"Argument scaled\.B: ndarray cannot", lambda: g(x, np.zeros(4, "float32"))),
        (tvm.error.ArgumentError, "cannot be passed", lambda: g(x, tvm.nd.empty((4,)))),
        (tvm.error.FunctionError, "no function", lambda: g["none"]),
        (tvm.error.FunctionError, "Cannot find global function no.such", lambda: remote.get_function("no.such")),
        (tvm.error.FunctionError, "no file 'q'", lambda: remote.load_module("q")),
        (tvm.error.FunctionError, "no file 'q'", lambda: remote.download("q")),
        (tvm.error.FunctionError, "no file 'q'", lambda: remote.remove("q")),
        (tvm.error.FunctionError, "without a name", lambda: remote.upload(b"x")),
        (tvm.error.LoadError, "cannot be loaded|not a module|damaged", lambda: remote.load_module("no.so")),
    ]  # fmt: skip
    cases += [(ValueError, "outside of", lambda n=n: remote.upload(b"1", n)) for n in ("../x", "a/../../x", "/etc/x")]
    for kind, words, program in cases:
        with pytest.raises(kind, match=words):
            program()
    assert isinstance(remote.info["cores"], int)  # and the session goes on


def test_the_thread_pool_is_set(remote: rpc.RPCSession) -> None:
    remote.get_function("runtime.config_threadpool")(1, 2)
    with pytest.raises(tvm.TVMError):
        remote.get_function("runtime.config_threadpool")("x")


def test_functions_of_the_server() -> None:
    with rpc.Server() as server, rpc.connect(server.host, server.port, secret=server.secret) as remote:
        a, b = np.random.default_rng(0).random((2, 5, 5), "float32")
        out = tvm.nd.empty((5, 5), "float32", remote.cpu())
        remote.get_function("tvm.contrib.cblas.matmul")(
            tvm.nd.array(a, remote.cpu()), tvm.nd.array(b, remote.cpu()), out, 0, 1
        )
        tvm.testing.assert_allclose(out.numpy(), a @ b.T, rtol=1e-5)


def test_functions_of_c_are_found(remote: rpc.RPCSession) -> None:
    remote.upload(outside("abs").code, target="lib.so")
    g = remote.load_module("lib.so")
    x, y = tvm.nd.array(np.array([-5], "int32"), remote.cpu()), tvm.nd.empty((1,), "int32", remote.cpu())
    g(x, y)
    assert y.numpy().tolist() == [5]


def test_code_that_crashes_ends_its_session_only(server: rpc.Server, tmp_path: Path) -> None:
    with rpc.connect(server.host, server.port, secret=server.secret) as other:
        with rpc.connect(server.host, server.port, secret=server.secret) as remote:
            remote.upload(outside("exit").code, target="lib.so")
            g = remote.load_module("lib.so")
            x = tvm.nd.array(np.array([3], "int32"), remote.cpu())
            with pytest.raises(rpc.RPCError, match="the session has ended"):
                g(x, tvm.nd.empty((1,), "int32", remote.cpu()))
            with pytest.raises(rpc.RPCError, match="the session has ended"):
                remote.listdir()
        assert other.listdir() == ""
    rpc.connect(server.host, server.port, secret=server.secret).close()
    until = time.monotonic() + 10
    while os.listdir(tmp_path / "files") and time.monotonic() < until:
        time.sleep(0.05)
    assert not os.listdir(tmp_path / "files")


def test_a_session_that_lasts_too_long(server: rpc.Server) -> None:
    with rpc.connect(server.host, server.port, secret=server.secret, session_timeout=1) as remote:
        remote.upload(outside("sleep").code, target="lib.so")
        g = remote.load_module("lib.so")
        x = tvm.nd.array(np.array([30], "int32"), remote.cpu())
        start = time.monotonic()
        with pytest.raises(rpc.RPCError, match="the session has ended"):
            g(x, tvm.nd.empty((1,), "int32", remote.cpu()))
        assert time.monotonic() - start < 10


def test_an_answer_that_does_not_come(server: rpc.Server) -> None:
    with rpc.connect(server.host, server.port, secret=server.secret, timeout=0.5) as remote:
        remote.upload(outside("sleep").code, target="lib.so")
        g = remote.load_module("lib.so")
        x, y = tvm.nd.array(np.array([5], "int32"), remote.cpu()), tvm.nd.empty((1,), "int32", remote.cpu())
        with pytest.raises(rpc.RPCError, match=r"no answer in time|timed out"):
            g(x, y)


def test_a_server_that_dies(server: rpc.Server) -> None:
    with rpc.connect(server.host, server.port, secret=server.secret) as remote:
        server.terminate()
        with pytest.raises(rpc.RPCError, match="the session has ended"):
            remote.listdir()
    with pytest.raises(rpc.RPCError, match="no server answers"):
        rpc.connect(server.host, server.port, secret=server.secret)


def test_who_may_come_in(server: rpc.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    host, port, secret = server.host, server.port, server.secret
    rpc.connect(host, port, "box", secret=secret).close()
    with pytest.raises(rpc.RPCError, match="denies access"):
        rpc.connect(host, port, secret=secret + "x")
    with pytest.raises(rpc.RPCError, match="key is not 'other'"):
        rpc.connect(host, port, "other", secret=secret)
    with pytest.raises(rpc.RPCError, match="secret has 3 bytes"):
        rpc.connect(host, port, secret="abc")
    monkeypatch.delenv("WARPBEAM_RPC_SECRET", raising=False)
    with pytest.raises(rpc.RPCError, match="there is no secret"):
        rpc.connect(host, port)
    monkeypatch.setenv("WARPBEAM_RPC_SECRET", secret + "\n")
    rpc.connect(host, port).close()
    with pytest.raises(rpc.RPCError, match="the key has 65 bytes"):
        rpc.connect(host, port, "k" * 65, secret=secret)


def test_a_server_without_a_dynamic_loader(build_server: Any) -> None:
    with rpc.Server(program=[build_server("gcc", "-DWB_NO_DLOPEN", "-DWB_NO_FORK")]) as server:
        for _ in range(2):
            with rpc.connect(server.host, server.port, secret=server.secret) as remote:
                remote.upload(built().code, target="lib.so")
                with pytest.raises(tvm.error.LoadError, match="this device cannot load libraries"):
                    remote.load_module("lib.so")
                x = tvm.nd.array(np.arange(5), remote.cpu())
                assert x.numpy().tolist() == [0, 1, 2, 3, 4]
        with rpc.connect(server.host, server.port, secret=server.secret, session_timeout=1) as remote:
            time.sleep(1.2)
            with pytest.raises(rpc.RPCError, match="the session has ended"):
                remote.listdir()
        rpc.connect(server.host, server.port, secret=server.secret).close()


def test_one_session_at_a_time(build_server: Any) -> None:
    """Without processes: the next session starts afresh, and has the thread pool of the first."""
    with rpc.Server(program=[build_server("gcc", "-DWB_NO_FORK")]) as server:
        for _ in range(3):
            with rpc.connect(server.host, server.port, secret=server.secret) as remote:
                assert remote.listdir() == ""
                remote.upload(built().code, target="lib.so")
                g = remote.load_module("lib.so")
                x = tvm.nd.array(np.zeros(300_000, "float32"), remote.cpu())
                y = tvm.nd.empty((300_000,), "float32", remote.cpu())
                g(x, y)
                assert np.array_equal(y.numpy(), np.full(300_000, 3, "float32"))


def test_a_server_that_does_not_start(tmp_path: Path, program: list[str]) -> None:
    with pytest.raises(rpc.RPCError, match="does not start"):
        rpc.Server(host="256.0.0.1", program=program)
    with pytest.raises(rpc.RPCError, match="secret"):
        rpc.Server(secret="short", program=program)
    with pytest.raises(rpc.RPCError, match="cannot be started"):
        rpc.Server(program=[str(tmp_path / "nothing")])


def test_a_server_that_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from warpbeam.runtime.rpc import server

    monkeypatch.setattr(server, "START_SECONDS", 0.3)
    with pytest.raises(rpc.RPCError, match="does not start"):
        rpc.Server(program=[sys.executable, "-c", "import time; time.sleep(30)"])


def test_the_command_makes_a_secret(tmp_path: Path) -> None:
    """A file of it for its owner, which the server in C reads too."""
    place = tmp_path / "secret"
    words = ["--port", "0", "--secret-file", str(place)]
    with subprocess.Popen(
        [sys.executable, "-m", "warpbeam", "rpc-server", *words], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().rpartition(":")[2])
        assert place.stat().st_mode & 0o777 == 0o600 and len(place.read_text().strip()) == 32
        rpc.connect("127.0.0.1", port, secret=place.read_bytes()).close()
        process.terminate()
    assert process.returncode == 143


def test_a_secret_from_a_file(build_server: Any, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("0123456789abcdef long enough\n")
    options = ["--secret-file", str(tmp_path / "secret")]
    with rpc.Server(program=[build_server()], options=options, secret="another of sixteen bytes") as server:
        rpc.connect(server.host, server.port, secret="0123456789abcdef long enough").close()
        with pytest.raises(rpc.RPCError, match="denies access"):
            rpc.connect(server.host, server.port, secret=server.secret)


def test_a_session_that_nobody_closes(lasting_server: rpc.Server) -> None:
    """It ends with its last array."""
    remote = rpc.connect(lasting_server.host, lasting_server.port, secret=lasting_server.secret)
    x = tvm.nd.array(np.arange(3), remote.cpu())
    end = weakref.ref(remote._end)
    del remote
    gc.collect()
    assert x.numpy().tolist() == [0, 1, 2]
    del x
    gc.collect()
    assert end() is None
