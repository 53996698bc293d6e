"""Calls out of compiled code: registered functions, C functions, imported sources; and the errors of each."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warpbeam as tvm
from warpbeam import te, tir
from warpbeam.contrib import cblas, clang
from warpbeam.runtime import FunctionError, LoadError, NDArray, RunError
from warpbeam.tir import ir_builder

TARGETS = ["llvm", pytest.param("c", marks=pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc"))]


def data(*shape: int) -> Any:
    return np.random.default_rng(3).random(shape, np.float32)


@pytest.fixture(autouse=True)
def _forget() -> Any:
    before = set(tvm.runtime.list_global_func_names())
    yield
    for name in set(tvm.runtime.list_global_func_names()) - before:
        tvm.runtime.remove_global_func(name)


# ------------------------------------------------------------------------------------------------ functions by name


def test_registering() -> None:
    @tvm.register_func("test.add")
    def add(a: int, b: int) -> int:
        return a + b

    assert tvm.get_global_func("test.add")(2, 3) == 5 and add(1, 1) == 2
    found = tvm.get_global_func("test.add")
    assert found.name == "test.add" and found.is_global and "test.add" in tvm.runtime.list_global_func_names()
    with pytest.raises(ValueError, match="already registered"):
        tvm.register_func("test.add", add)
    tvm.register_func("test.add", lambda a, b: a * b, override=True)
    assert tvm.get_global_func("test.add")(2, 3) == 6

    @tvm.register_func
    def test_plain() -> int:
        return 7

    assert tvm.get_global_func("test_plain")() == 7
    assert tvm.get_global_func("test.none", allow_missing=True) is None
    with pytest.raises(FunctionError, match=r"Cannot find global function test\.none"):
        tvm.get_global_func("test.none")
    tvm.runtime.remove_global_func("test.add")
    assert tvm.get_global_func("test.add", True) is None


def test_convert() -> None:
    f = tvm.runtime.convert(lambda x: x + 1)
    assert isinstance(f, tvm.runtime.PackedFunc) and f(1) == 2 and tvm.runtime.convert(f) is f
    assert tvm.runtime.convert((1, "a", [2.5])) == [1, "a", [2.5]]


# --------------------------------------------------------------------------------------------- call_packed


def extern_module(name: str, target: str, *more: Any, dtype: str = "float32") -> Any:
    a = te.placeholder((2, 3), name="A", dtype=dtype)
    b = te.extern((2, 3), [a], lambda ins, outs: tir.call_packed(name, ins[0], outs[0], *more), name="B", dtype=dtype)
    return tvm.build(te.create_schedule(b.op), [a, b], target)


@pytest.mark.parametrize("target", TARGETS)
def test_tensors_and_numbers_arrive(target: str) -> None:
    seen: list[Any] = []

    @tvm.register_func("test.double")
    def double(x: NDArray, y: NDArray, *rest: Any) -> None:
        seen.append((x.shape, x.dtype, str(x.device), rest))
        y.copyfrom(x.numpy() * 2)

    mod = extern_module("test.double", target, 3, tir.const(2.5, "float32"), "text", tir.const(True, "bool"))
    x, y = data(2, 3), np.zeros((2, 3), np.float32)
    mod(x, y)
    assert np.array_equal(y, x * 2)
    assert seen == [((2, 3), "float32", "cpu(0)", (3, 2.5, "text", 1))]


@pytest.mark.parametrize("target", TARGETS)
def test_values_come_back(target: str) -> None:
    tvm.register_func("test.value", lambda i: [3, 2.75, None][i])
    ib = ir_builder.create()
    out = tir.decl_buffer((3,), "int32", name="out")
    store = ib.buffer_ptr(out)
    with ib.for_range(0, 3, name="i") as i:
        store[i] = tir.call_packed("test.value", i)
    mod = tvm.build(tir.PrimFunc("f", (out,), ib.get()), target=target)
    got = np.zeros(3, np.int32)
    mod(got)
    assert got.tolist() == [3, 2, 0]


@pytest.mark.parametrize("target", TARGETS)
def test_what_a_function_raises_is_raised(target: str) -> None:
    def fail(*args: Any) -> None:
        raise KeyError("deep inside")

    tvm.register_func("test.fail", fail)
    mod = extern_module("test.fail", target)
    x = data(2, 3)
    with pytest.raises(KeyError, match="deep inside"):
        mod(x, np.zeros_like(x))
    tvm.runtime.remove_global_func("test.fail")
    with pytest.raises(ValueError, match=r"Cannot find global function test\.fail"):
        mod(x, np.zeros_like(x))
    tvm.register_func("test.fail", lambda a, b: b.copyfrom(a))
    y = np.zeros_like(x)
    mod(x, y)  # found when called, not when built
    assert np.array_equal(x, y)


def test_callbacks_from_parallel_loops() -> None:
    rows: list[int] = []
    tvm.register_func("test.row", lambda i: rows.append(i))
    ib = ir_builder.create()
    with ib.for_range(0, 8, name="i", kind="parallel") as i:
        ib.emit(tir.call_packed("test.row", i))
    out = tir.decl_buffer((1,), "int32", name="out")
    ib.buffer_ptr(out)[0] = 1
    mod = tvm.build(tir.PrimFunc("f", (out,), ib.get()))
    mod(np.zeros(1, np.int32))
    assert sorted(rows) == list(range(8))


def test_matrix_product_of_a_library() -> None:
    n = te.var("n")
    a, b, bias = te.placeholder((n, 5), name="A"), te.placeholder((6, 5), name="B"), te.var("bias", "float32")
    c = cblas.matmul(a, b, transb=True)
    d = te.compute(c.shape, lambda i, j: c[i, j] + bias, name="D")
    mod = tvm.build(te.create_schedule(d.op), [a, b, d, bias])
    x, y, z = data(4, 5), data(6, 5), np.zeros((4, 6), np.float32)
    mod(x, y, z, 10.0)
    tvm.testing.assert_allclose(z, x @ y.T + 10, rtol=1e-6)
    assert tvm.get_global_func("tvm.contrib.cblas.matmul", True) is not None


def test_saved_modules_call_back(tmp_path: Path) -> None:
    tvm.register_func("test.copy", lambda a, b: a.copyto(b))
    extern_module("test.copy", "llvm").export_library(tmp_path / "f.so")
    x, y = data(2, 3), np.zeros((2, 3), np.float32)
    tvm.runtime.load_module(tmp_path / "f.so")(x, y)
    assert np.array_equal(x, y)


# ------------------------------------------------------------------------------------------------------- C functions


@pytest.mark.parametrize("target", TARGETS)
def test_c_functions_of_the_process(target: str) -> None:
    a = te.placeholder((4, 5), name="A")
    b = te.compute(
        (4, 5), lambda i, j: tir.call_pure_extern("float32", "powf", a[i, j], tir.const(3.0, "float32")), "B"
    )
    mod = tvm.build(te.create_schedule(b.op), [a, b], target)
    x, y = data(4, 5), np.zeros((4, 5), np.float32)
    mod(x, y)
    np.testing.assert_allclose(y, x**3, rtol=1e-5)


@pytest.mark.parametrize("target", TARGETS)
def test_functions_with_variable_arguments(target: str) -> None:
    text, n = tir.decl_buffer((32,), "uint8", name="text"), tir.decl_buffer((1,), "int32", name="n")
    x = tir.Var("x", "float32")
    ib = ir_builder.create()
    call = tir.call_extern(
        "int32", "snprintf", text, tir.const(32, "uint64"), "%d %.2f %s", tir.const(7, "int32"), x, "ok"
    )
    ib.buffer_ptr(n)[0] = call
    mod = tvm.build(tir.PrimFunc("f", (text, n, x), ib.get()), target=target)
    got, count = np.zeros(32, np.uint8), np.zeros(1, np.int32)
    mod(got, count, 2.5)
    assert got.tobytes().rstrip(b"\0") == b"7 2.50 ok" and count[0] == 9


def test_missing_c_function() -> None:
    a = te.placeholder((4,), name="A")
    b = te.compute((4,), lambda i: tir.call_pure_extern("float32", "no_such_function_here", a[i]), name="B")
    with pytest.raises(LoadError, match="no_such_function_here"):
        tvm.build(te.create_schedule(b.op), [a, b])


IR = """
define i32 @fill(ptr %p, i64 %n, float %v) {
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %j, %loop ]
  %q = getelementptr float, ptr %p, i64 %i
  store float %v, ptr %q
  %j = add i64 %i, 1
  %more = icmp slt i64 %j, %n
  br i1 %more, label %loop, label %done
done:
  ret i32 0
}
"""
C_CODE = """
#include <stdint.h>
int32_t fill(float* p, int64_t n, float v) {
  for (int64_t i = 0; i < n; ++i) p[i] = v;
  return 0;
}
"""


CPP_CODE = """
extern "C" int fill(float* p, long n, float v) {
  for (long i = 0; i < n; ++i) p[i] = v;
  return 0;
}
"""


def fill_function(source: str, pragma: str) -> Any:
    b = tir.decl_buffer((4, 8), "float32", name="B")
    i = tir.Var("i")
    row = b.access_ptr("w", offset=i * 8, extent=8)
    value = tir.call_intrin("float32", "sqrt", i.astype("float32"))
    body = tir.Evaluate(tir.call_extern("int32", "fill", row, tir.const(8, "int64"), value))
    loop = tir.For(i, 0, 4, "serial", body, {f"pragma_{pragma}": source})
    return tir.PrimFunc("f", (b,), loop)


@pytest.mark.parametrize("pragma", ["import_llvm", "import_c"])
@pytest.mark.parametrize("source", [IR, C_CODE, CPP_CODE], ids=["ir", "c", "cpp"])
@pytest.mark.parametrize("as_file", [False, True])
def test_imported_sources(pragma: str, source: str, as_file: bool, tmp_path: Path) -> None:
    if source is not IR and shutil.which("g++") is None:
        pytest.skip("needs gcc")
    given = source
    if as_file:
        given = str(tmp_path / "fill.txt")
        clang.create_llvm(source, output=given) if source is not IR else Path(given).write_text(source)
    mod = tvm.build(fill_function(given, pragma))
    out = np.zeros((4, 8), np.float32)
    mod(out)
    assert np.array_equal(out, np.sqrt(np.arange(4, dtype=np.float32))[:, None] * np.ones(8, np.float32))
    assert mod.about["imports"] == []
    mod.export_library(tmp_path / "f.so")
    tvm.runtime.load_module(tmp_path / "f.so")(out)
    if source is IR or "define" in clang.create_llvm(source):
        mod.save(tmp_path / "f.o")
        tvm.runtime.load_module(tmp_path / "f.o")(out)
    else:
        with pytest.raises(tvm.TVMError, match="C code imported by a pragma"):
            mod.save(tmp_path / "f.o")


def test_bad_imported_sources() -> None:
    with pytest.raises(tvm.TVMError, match="LLVM refuses"):
        tvm.build(fill_function("define i32 @fill( nonsense", "import_llvm"))
    if shutil.which("gcc"):
        with pytest.raises(tvm.TVMError, match="C compiler refuses"):
            tvm.build(fill_function("int fill( nonsense", "import_c"))


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_c_target_links_imported_c() -> None:
    out = np.zeros((4, 8), np.float32)
    mod = tvm.build(fill_function(C_CODE, "import_c"), target="c")
    mod(out)
    assert out[3, 7] == np.sqrt(np.float32(3)) and "fill" in mod.get_source("c")


# ------------------------------------------------------------------------------------------------------ intrinsics


def test_users_rules_for_intrinsics() -> None:
    def rule(op: Any) -> Any:
        return tir.call_pure_extern("float32", "expf", op.args[0]) if op.dtype == "float32" else None

    tvm.ir.register_op_attr("tir.test_mylog", "TCallEffectKind", 1)
    tvm.ir.register_intrin_lowering(
        "tir.test_mylog", target="llvm", f=lambda op: tir.call_pure_extern("float32", "logf", op.args[0]), level=11
    )
    a = te.placeholder((4,), name="A")
    b = te.compute((4,), lambda i: tir.call_intrin("float32", "tir.test_mylog", a[i]), name="B")
    mod = tvm.build(te.create_schedule(b.op), [a, b])
    x, y = data(4), np.zeros(4, np.float32)
    mod(x, y)
    np.testing.assert_allclose(y, np.log(x), rtol=1e-5)
    assert mod.about["imports"] == [{"c": "logf"}]
    tvm.ir.register_intrin_lowering("test_mylog", target="llvm", f=rule, level=99)
    tvm.build(te.create_schedule(b.op), [a, b])(x, y)
    np.testing.assert_allclose(y, np.exp(x), rtol=1e-5)


def test_failed_assertions_are_no_argument_errors() -> None:
    a = tir.decl_buffer((1,), "int32", name="A")
    body = tir.AssertStmt(a[0] > 0, "A[0] must be positive")
    mod = tvm.build(tir.PrimFunc("f", (a,), body))
    mod(np.ones(1, np.int32))
    with pytest.raises(RunError, match="A\\[0\\] must be positive") as caught:
        mod(np.zeros(1, np.int32))
    assert not isinstance(caught.value, ValueError)
