"""lower and build: what comes out runs, can be read, timed, saved and loaded; arguments are checked one by one."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
import sys
import tarfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tolerance import close

import warpbeam as tvm
from warpbeam import te, tir
from warpbeam.contrib import cc, utils
from warpbeam.driver.te_build import BuildError
from warpbeam.relay.module_text import parse_loops
from warpbeam.runtime import HEADER_PATH, ArgumentError, FunctionError, LoadError, RunError
from warpbeam.tir.text import parse, to_text

N = 96
gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")


def add_schedule() -> tuple[Any, list[Any]]:
    n = te.var("n")
    a, b = te.placeholder((n,), name="A"), te.placeholder((n,), name="B")
    c = te.compute((n,), lambda i: a[i] + b[i], name="C")
    s = te.create_schedule(c.op)
    outer, _ = s[c].split(c.op.axis[0], factor=32)
    s[c].parallel(outer)
    return s, [a, b, c]


def matmul_schedule() -> tuple[Any, list[Any]]:
    a, b = te.placeholder((N, N), name="A"), te.placeholder((N, N), name="B")
    k = te.reduce_axis((0, N), name="k")
    c = te.compute((N, N), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")
    s = te.create_schedule(c.op)
    xo, yo, xi, yi = s[c].tile(*c.op.axis, 8, 32)
    s[c].reorder(xo, yo, k, xi, yi)
    s[c].vectorize(yi)
    return s, [a, b, c]


@pytest.fixture(scope="module")
def add() -> Any:
    return tvm.build(*add_schedule(), "llvm", name="myadd")


def arrays(n: int = 100) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(0)
    return tuple(tvm.nd.array(rng.random(n, np.float32)) for _ in range(3))  # type: ignore[return-value]


# ------------------------------------------------------------------------------------------------------------- lower


@pytest.mark.parametrize("simple", [True, False])
def test_lowered_text_parses_back(simple: bool) -> None:
    mod = tvm.lower(*matmul_schedule(), simple_mode=simple)
    assert isinstance(mod, tvm.IRModule) and "main" in mod
    text = str(mod)
    assert to_text(parse(text)) == text == mod.script() == mod.astext()
    assert ("vectorized(32)" in text) is simple and ("ramp(" in text) is not simple
    again = tvm.build(mod)
    a, b = np.random.default_rng(1).random((2, N, N), np.float32)
    c = np.zeros((N, N), np.float32)
    again["main"](a, b, c)
    close(c, a @ b, terms=N)


def test_module_of_several_functions(capsys: Any) -> None:
    one = tvm.lower(*matmul_schedule(), name="mm")["mm"]
    two = tvm.lower(*add_schedule(), name="plus")["plus"]
    mod = tvm.IRModule({"mm": one, "plus": two})
    assert tvm.ir.structural_equal(parse_loops(mod.script()), mod)
    mod.show()
    assert "def plus" in capsys.readouterr().out
    built = tvm.build(mod)
    a, b, c = arrays(40)
    built["plus"](a, b, c)
    assert np.array_equal(c.numpy(), a.numpy() + b.numpy())
    assert built.entry_name == "mm" and built.implements_function("plus") and "plus" in built
    assert tvm.IRModule.from_expr(one)["mm"] is one and len(mod.get_global_vars()) == 2


def test_json_is_text() -> None:
    mod = tvm.lower(*matmul_schedule())
    again = tvm.ir.load_json(tvm.ir.save_json(mod))
    tvm.ir.assert_structural_equal(again, mod)
    func = tvm.ir.load_json(tvm.ir.save_json(mod["main"]))
    assert tvm.ir.structural_equal(func, mod["main"]) and tvm.ir.structural_hash(func)
    assert tvm.ir.load_json(tvm.ir.save_json({"a": [1, 2.5]})) == {"a": [1, 2.5]}
    x = tvm.relay.var("x", shape=(2,))
    fn = tvm.relay.Function([x], tvm.relay.nn.relu(x))
    tvm.ir.assert_structural_equal(
        tvm.ir.load_json(tvm.ir.save_json(tvm.IRModule.from_expr(fn))), tvm.IRModule.from_expr(fn)
    )
    with pytest.raises(ValueError, match="differ"):
        tvm.ir.assert_structural_equal(mod, tvm.lower(*add_schedule()))
    with pytest.raises(tvm.TVMError, match="no JSON"):
        tvm.ir.load_json("[]")


def test_what_can_be_built() -> None:
    s, args = add_schedule()
    with pytest.raises(ValueError, match="args must be given for build from schedule"):
        tvm.build(s)
    with pytest.raises(BuildError, match="cannot be lowered"):
        tvm.lower(3)
    a, b, c = arrays(7)
    tvm.build(args)(a, b, c)  # tensors: a default schedule
    assert np.array_equal(c.numpy(), a.numpy() + b.numpy())
    func = parse("def f(A: float32[n], B: float32[n], n: size):\n    for i in range(n):\n        B[i] = A[i] * 2.0")
    tvm.build(func, name="twice")["twice"](a, b)
    assert np.array_equal(b.numpy(), a.numpy() * 2)
    two = tvm.build({"llvm": tvm.lower(s, args), tvm.target.Target("llvm"): tvm.lower(s, args, name="other")})
    assert two.get_function("other", query_imports=True).name == "other"
    with pytest.warns(UserWarning, match="runtime"):
        tvm.build(func, runtime="crt")
    with pytest.raises(tvm.TVMError, match="is no name for a function"):
        tvm.build(func, name="a b")


def test_target_of_the_context() -> None:
    with tvm.target.Target("llvm -mcpu=nehalem"):
        mod = tvm.build(*add_schedule())
    assert "sse4.1" in mod.about["features"] and "avx2" not in mod.about["features"]


# --------------------------------------------------------------------------------------------------------- arguments


def test_symbolic_sizes_and_kinds_of_arrays(add: Any) -> None:
    for n in (1, 31, 32, 33, 1000):
        a, b, c = arrays(n)
        add(a, b, c)
        assert np.array_equal(c.numpy(), a.numpy() + b.numpy())
    x, y, z = (np.arange(5, dtype=np.float32) for _ in range(3))
    add(x, y, z)
    assert z.tolist() == [0, 2, 4, 6, 8]
    add["myadd"](x, tvm.nd.array(y), z)
    add.entry_func(x, x, z)
    assert z.tolist() == [0, 2, 4, 6, 8]


def test_one_array_read_and_written(add: Any) -> None:
    a, b, _ = arrays(1000)
    want = a.numpy() + b.numpy()
    add(a, b, a)
    assert np.array_equal(a.numpy(), want)
    buffer = np.arange(1001, dtype=np.float32)
    want = buffer[:-1] + buffer[:-1]
    add(buffer[:-1], buffer[:-1], buffer[1:])
    assert np.array_equal(buffer[1:], want)


def bad_calls() -> list[tuple[str, Any]]:
    def f32(*shape: int) -> Any:
        return np.zeros(shape, np.float32)

    frozen = f32(4)
    frozen.flags.writeable = False
    return [
        ("myadd: num_args should be 3", [f32(4), f32(4)]),
        (r"Argument myadd.B.dtype is expected to be float32", [f32(4), np.zeros(4), f32(4)]),
        (r"Argument myadd.C.ndim is expected to equal 1", [f32(4), f32(4), f32(2, 2)]),
        (r"myadd.B.shape\[0\] has an unsatisfied constraint: myadd.B.shape\[0\] == n \(n is myadd.A.shape\[0\]\)",
         [f32(4), f32(5), f32(4)]),
        (r"Argument myadd.A.strides: expected to be compact array", [f32(8)[::2], f32(4), f32(4)]),
        (r"given A: float32\[4\], B: float32\[4\], C: float32\[3\]", [f32(4), f32(4), f32(3)]),
        (r"Argument myadd.B: str is not an array", [f32(4), "four", f32(4)]),
        (r"Argument myadd.C: the array is read-only", [f32(4), f32(4), frozen]),
        (r"Argument myadd.A: element type .* cannot be passed", [np.zeros(4, "datetime64[s]"), f32(4), f32(4)]),
    ]  # fmt: skip


@pytest.mark.parametrize(("words", "args"), bad_calls(), ids=[w[:40] for w, _ in bad_calls()])
def test_wrong_arguments(add: Any, words: str, args: list[Any]) -> None:
    with pytest.raises(ArgumentError, match=words) as caught:
        add(*args)
    assert isinstance(caught.value, ValueError | tvm.TVMError)
    with pytest.raises(ValueError, match=words):
        add(*(tvm.nd.array(a) if isinstance(a, np.ndarray) and "strides" not in words and "read" not in words
              and a.dtype.kind == "f" else a for a in args))  # fmt: skip


def test_constant_shapes() -> None:
    mod = tvm.build(*matmul_schedule(), name="mm")
    x, y = np.zeros((N, N), np.float32), np.zeros((N, N + 1), np.float32)
    with pytest.raises(ValueError, match=r"Argument mm.B.shape\[1\] has an unsatisfied constraint: .* == 96"):
        mod(x, y, x)


def test_shapes_that_are_expressions() -> None:
    n = te.var("n")
    a = te.placeholder((n,), name="A")
    b = te.compute((n * 2 + 1,), lambda i: a[tir.min(i // 2, n - 1)], name="B")
    mod = tvm.build(te.create_schedule(b.op), [b, a], name="f")
    x, y = np.arange(3, dtype=np.float32), np.zeros(7, np.float32)
    mod(y, x)
    assert y.tolist() == [0, 0, 1, 1, 2, 2, 2]
    with pytest.raises(ValueError, match=r"f.B.shape\[0\] == n \* 2 \+ 1"):
        mod(np.zeros(8, np.float32), x)
    with pytest.raises(tvm.TVMError, match="is not known when g is called"):
        tvm.build(_unbound(), name="g")


def _unbound() -> Any:
    return parse('def g(A: float32[n * 2], n: size) {"num_args": 1}:\n    for i in range(n):\n        A[i] = 1.0')


def test_scalar_arguments() -> None:
    n = te.var("n")
    k, x = te.var("k", "int32"), te.var("x", "float32")
    a = te.placeholder((n,), name="A", dtype="int32")
    b = te.compute((n,), lambda i: (a[i] * k).astype("float32") * x, name="B")
    mod = tvm.build(te.create_schedule(b.op), [k, a, n, b, x], name="scale")
    src, out = np.arange(4, dtype=np.int32), np.zeros(4, np.float32)
    mod(-3, src, 4, out, 0.5)
    assert out.tolist() == [0, -1.5, -3, -4.5]
    mod(np.int64(2), src, np.array(4), out, 1)
    assert out.tolist() == [0, 2, 4, 6]
    with pytest.raises(ValueError, match=r"scale.A.shape\[0\] == n \(n is scale.n\)"):
        mod(1, src, 5, out, 1.0)
    with pytest.raises(ValueError, match=r"Argument scale\.k is expected to be an integer"):
        mod(1.5, src, 4, out, 1.0)
    with pytest.raises(ValueError, match=r"Argument scale\.x is expected to be a float"):
        mod(1, src, 4, out, out)


def test_strides_of_a_buffer() -> None:
    step = tir.Var("step")
    a = tir.Buffer("A", (4, 3), "float32", "global", (step, 1))
    b = tir.Buffer("B", (4, 3), "float32")
    i, j = tir.Var("i"), tir.Var("j")
    body = tir.For(i, 0, 4, "serial", tir.For(j, 0, 3, "serial", tir.BufferStore(b, a[i, j], (i, j))))
    mod = tvm.build(tir.PrimFunc("f", (a, b, step), body), name="f")
    x, out = np.arange(20, dtype=np.float32).reshape(4, 5), np.zeros((4, 3), np.float32)
    mod(x[:, :3], out)
    assert np.array_equal(out, x[:, :3])
    with pytest.raises(ValueError, match=r"f.A.strides\[1\] == 1"):
        mod(np.asfortranarray(x)[:, :3], out)


def test_workspaces_and_threads() -> None:
    n = te.var("n")
    a = te.placeholder((n,), name="A")
    b = te.compute((n,), lambda i: a[i] * 2.0, name="B")
    c = te.compute((n,), lambda i: b[n - 1 - i] + 1.0, name="C")
    mod = tvm.build(te.create_schedule(c.op), [a, c])
    results: dict[int, bool] = {}

    def work(size: int) -> None:
        x, y = np.random.default_rng(size).random(size, np.float32), np.zeros(size, np.float32)
        for _ in range(20):
            mod(x, y)
        results[size] = bool(np.array_equal(y, x[::-1] * 2 + 1))

    threads = [threading.Thread(target=work, args=(size,)) for size in (10, 1000, 100_000, 5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == dict.fromkeys((10, 1000, 100_000, 5), True)


# ------------------------------------------------------------------------------------------------ the face of modules


def test_functions_of_a_module(add: Any) -> None:
    assert (add.type_key, add.entry_name, add["myadd"].name) == ("llvm", "myadd", "myadd")
    assert "myadd" in repr(add) and add.imported_modules == [] and add.is_dso_exportable
    with pytest.raises(FunctionError, match="Module has no function 'sub'"):
        add["sub"]
    with pytest.raises(ValueError, match="its functions: myadd"):
        add.get_function("sub", query_imports=True)
    other = tvm.build(*matmul_schedule(), name="mm")
    host = tvm.build(*add_schedule(), name="host")
    host.import_module(other)
    assert host.get_function("mm", query_imports=True).name == "mm"


def test_sources(add: Any) -> None:
    assert add.get_source() == add.get_source("ll") and "define i32 @myadd(" in add.get_source()
    assert "myadd_compute_" in add.get_source("asm") and add.get_source("s") == add.get_source("asm")
    with pytest.raises(FunctionError, match="no source 'ptx'"):
        add.get_source("ptx")


@pytest.mark.parametrize("name", ["f.o", "f.so", "f.tar"])
def test_save_and_load(add: Any, name: str) -> None:
    temp = utils.tempdir()
    path = temp.relpath(name)
    add.save(path) if name.endswith(".o") else add.export_library(path)
    assert temp.listdir() == [name]
    again = tvm.runtime.load_module(path)
    a, b, c = arrays(70)
    again(a, b, c)
    assert np.array_equal(c.numpy(), a.numpy() + b.numpy())
    assert again.type_key == "library" and again.get_source() == "" and again.entry_name == "myadd"
    with pytest.raises(ValueError, match="num_args"):
        again(a)
    again.export_library(temp.relpath("again.so"))
    tvm.runtime.load_module(temp.relpath("again.so"))["myadd"](a, b, c)
    with pytest.raises(FunctionError, match=r"cannot be saved as \.ll"):
        again.save(temp.relpath("x.ll"))


def test_texts_are_saved(add: Any, tmp_path: Path) -> None:
    add.save(tmp_path / "f.ll")
    add.save(tmp_path / "f.s")
    add.save(tmp_path / "f.asm")
    assert (tmp_path / "f.ll").read_text() == add.get_source("ll")
    assert (tmp_path / "f.s").read_text() == (tmp_path / "f.asm").read_text()
    for call in (lambda: add.save(tmp_path / "f.xyz"), lambda: add.export_library(tmp_path / "f.xyz"),
                 lambda: add.export_library(tmp_path / "f.so", options=["-O3"])):  # fmt: skip
        with pytest.raises(FunctionError):
            call()


def test_bad_files(tmp_path: Path) -> None:
    (tmp_path / "x.so").write_bytes(b"nonsense")
    with pytest.raises(LoadError, match="not a module"):
        tvm.runtime.load_module(tmp_path / "x.so")
    with pytest.raises(LoadError, match="cannot be read"):
        tvm.runtime.load_module(tmp_path / "none.so")
    with pytest.raises(tvm.TVMError):
        tvm.runtime.load_module("/lib/x86_64-linux-gnu/libm.so.6" if Path("/lib/x86_64-linux-gnu/libm.so.6").exists()
                                else tmp_path / "x.so")  # fmt: skip


def test_load_module_takes_models(tmp_path: Path) -> None:
    x = tvm.relay.var("x", shape=(2,))
    lib = tvm.relay.build(tvm.IRModule.from_expr(tvm.relay.Function([x], tvm.relay.nn.relu(x))))
    lib.export_library(tmp_path / "m.tar")
    loaded = tvm.runtime.load_module(tmp_path / "m.tar")
    assert isinstance(loaded, tvm.Module)


def test_a_loaded_module_needs_no_compiler(add: Any, tmp_path: Path) -> None:
    add.export_library(tmp_path / "f.so")
    code = f"""
import sys
import numpy as np
from warpbeam import runtime
f = runtime.load_module({str(tmp_path / "f.so")!r})
x, y, z = (np.arange(4, dtype="float32") for _ in range(3))
f(x, y, z)
assert z.tolist() == [0, 2, 4, 6]
assert not [m for m in sys.modules if m == "llvmlite" or m.startswith(("warpbeam.tir", "warpbeam.ir"))]
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize(
    ("target", "members"),
    [
        ("llvm -mtriple=aarch64-linux-gnu", ["lib0.o", "lib0.so"]),
        ("llvm -mtriple=armv7l-linux-gnueabihf", ["lib0.o", "lib0.so"]),
        ("wasm32", ["lib0.o"]),
        ("llvm -mtriple=aarch64-apple-darwin", ["lib0.o"]),
        ("llvm -mtriple=x86_64-pc-windows-msvc", ["lib0.o"]),
        ("llvm -mtriple=riscv64-linux-gnu", ["lib0.o", "lib0.so"]),
    ],
)
def test_another_machine(target: str, members: list[str], tmp_path: Path) -> None:
    mod = tvm.build(*add_schedule(), target, name="f")
    mod.export_library(tmp_path / "f.tar")
    with tarfile.open(tmp_path / "f.tar") as archive:
        assert archive.getnames() == members
    mod.save(tmp_path / "f.o")
    mod.export_library(tmp_path / "again.o")
    assert (tmp_path / "again.o").read_bytes() == (tmp_path / "f.o").read_bytes()
    assert mod.get_source("asm") and mod.entry_name == "f" and (tmp_path / "f.o").stat().st_size > 0
    if len(members) == 1:
        with pytest.raises(FunctionError, match=r"export a \.tar"):
            mod.export_library(tmp_path / "f.so")
    with pytest.raises(LoadError, match=f"it is for {(target.partition('=')[2] or target)[:5]}"):
        mod(*arrays(3))
    with pytest.raises(tvm.TVMError):
        tvm.runtime.load_module(tmp_path / "f.tar")


@gcc
def test_fcompile_links_instead(add: Any, tmp_path: Path) -> None:
    add.export_library(tmp_path / "f.so", fcompile=cc.cross_compiler("gcc", options=["-s"]))
    a, b, c = arrays(9)
    tvm.runtime.load_module(tmp_path / "f.so")(a, b, c)
    assert np.array_equal(c.numpy(), a.numpy() + b.numpy())
    add.save(tmp_path / "f.o")
    cc.create_shared(str(tmp_path / "g.so"), [str(tmp_path / "f.o")])
    tvm.runtime.load_module(tmp_path / "g.so")["myadd"](a, b, c)


PROGRAM = r"""
#include <stdio.h>
#include "warpbeam.h"
extern const char wb_module[];
int32_t myadd(wb_ctx* ctx, wb_tensor** args, int32_t n);
int main(void) {
  float a[5] = {1, 2, 3, 4, 5}, b[5] = {10, 20, 30, 40, 50}, c[5];
  int64_t shape[1] = {5}, wrong[1] = {4};
  wb_tensor t[3] = {{a, 1, 0, 1, 2, 32, 1, shape, NULL, 0}, {b, 1, 0, 1, 2, 32, 1, shape, NULL, 0},
                    {c, 1, 0, 1, 2, 32, 1, shape, NULL, 0}};
  wb_tensor* args[3] = {&t[0], &t[1], &t[2]};
  wb_ctx ctx = {0};
  ctx.abi_version = WB_ABI_VERSION;
  ctx.parallel_for = wb_serial_parallel_for;
  if (myadd(&ctx, args, 3)) return 1;
  for (int i = 0; i < 5; ++i) printf("%g ", c[i]);
  t[2].shape = wrong;
  if (!myadd(&ctx, args, 3)) return 2;
  printf("| %s | %c\n", ctx.message, wb_module[0]);
  return 0;
}
"""


@gcc
def test_a_c_program_uses_the_library(add: Any, tmp_path: Path) -> None:
    add.export_library(tmp_path / "libadd.so")
    (tmp_path / "main.c").write_text(PROGRAM)
    flags = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-I", str(HEADER_PATH.parent)]
    subprocess.run(["gcc", *flags, "main.c", "./libadd.so", "-o", "main"], check=True, cwd=tmp_path)
    done = subprocess.run(["./main"], check=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.startswith("11 22 33 44 55 | Argument myadd.C.shape[0] has an unsatisfied constraint")
    assert done.stdout.endswith("| {\n")


def test_ctypes_reads_the_description(add: Any, tmp_path: Path) -> None:
    add.export_library(tmp_path / "f.so")
    library = ctypes.CDLL(str(tmp_path / "f.so"))
    about = json.loads(ctypes.string_at(ctypes.addressof(ctypes.c_char.in_dll(library, "wb_module"))))
    assert [f["name"] for f in about["functions"]] == ["myadd"] and about["imports"] == []
    assert library.myadd and library.wb_pool_create


# -------------------------------------------------------------------------------------------------------------- times


def test_time_evaluator(add: Any) -> None:
    a, b, c = arrays(1000)
    timer = add.time_evaluator(add.entry_name, tvm.cpu(0), number=3, repeat=4)
    result = timer(a, b, c)
    assert len(result.results) == 4 and result.min <= result.median <= result.max and result.std >= 0
    assert 0 < result.mean < 0.1 and np.array_equal(c.numpy(), a.numpy() + b.numpy())
    calls = []
    tvm.register_func("test.before", lambda *args: calls.append(len(args)), override=True)
    timer = add.time_evaluator("myadd", ctx=tvm.cpu(), number=1, repeat=2, min_repeat_ms=2, cooldown_interval_ms=1,
                               repeats_to_cooldown=1, cache_flush_bytes=1 << 12, f_preproc="test.before",
                               limit_zero_time_iterations=3)  # fmt: skip
    result = timer(a, b, c)
    assert calls == [3, 3] and result.number > 10
    with pytest.raises(RunError, match="no code runs on cuda"):
        add.time_evaluator("myadd", tvm.cuda(0))(a, b, c)
    with pytest.raises(ValueError, match="num_args"):
        timer(a, b)


def test_calls_cost_little(add: Any) -> None:
    import timeit

    a, b, c = arrays(1)
    add(a, b, c)
    assert min(timeit.repeat(lambda: add(a, b, c), number=1000, repeat=5)) / 1000 < 50e-6
