"""Tensor intrinsics as classic scripts declare and use them."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import pytest

import warpbeam as tvm
from warpbeam import te
from warpbeam.te.tensor_compute import TensorComputeOp
from warpbeam.tir import interp

C_CODE = """
#include <stdint.h>
int32_t gemv_update(float* c, float* a, float* b, int32_t m, int32_t l, int32_t stride) {
  for (int i = 0; i < m; ++i) for (int j = 0; j < l; ++j) c[i] += a[j] * b[i * stride + j];
  return 0;
}
int32_t gemv_reset(float* c, int32_t m) { for (int i = 0; i < m; ++i) c[i] = 0.0f; return 0; }
"""


def gemv(m: int, l: int, whole: bool = False, strides: bool = True) -> Any:
    """c[m] = b[m, l] @ a[l] by C functions."""
    a, b = te.placeholder((l,), name="a"), te.placeholder((m, l), name="b")
    k = te.reduce_axis((0, l), name="k")
    c = te.compute((m,), lambda i: te.sum(a[k] * b[i, k], axis=k), name="c")
    steps = [te.var("s1"), 1] if strides else None
    binds = {
        a: tvm.tir.decl_buffer(a.shape, a.dtype, name="A", offset_factor=1, strides=[1]),
        b: tvm.tir.decl_buffer(b.shape, b.dtype, name="B", offset_factor=1, strides=steps),
        c: tvm.tir.decl_buffer(c.shape, c.dtype, name="C", offset_factor=1, strides=[1]),
    }

    def statements(ins: Any, outs: Any) -> Any:
        def update() -> Any:
            ib = tvm.tir.ir_builder.create()
            pointers = outs[0].access_ptr("w"), ins[0].access_ptr("r"), ins[1].access_ptr("r")
            step = ins[1].strides[0] if strides else l
            ib.emit(tvm.tir.call_extern("int32", "gemv_update", *pointers, m, l, step))
            return ib.get()

        def reset() -> Any:
            ib = tvm.tir.ir_builder.create()
            ib.emit(tvm.tir.call_extern("int32", "gemv_reset", outs[0].access_ptr("w"), m))
            return ib.get()

        return update() if whole else (update(), reset(), update())

    return te.decl_tensor_intrin(c.op, statements, name="gemv", binds=binds)


@pytest.fixture
def functions() -> None:
    """The C functions as Python ones, for the interpreter."""

    def update(c: Any, a: Any, b: Any, m: int, l: int, stride: int) -> None:
        out, x, y = c.numpy(), a.numpy(), b.numpy()
        for i in range(m):
            out[i] += y[i * stride : i * stride + l] @ x[:l]
        c.copyfrom(out)

    tvm.register_func("gemv_update", update, override=True)
    tvm.register_func("gemv_reset", lambda c, m: c.copyfrom(np.zeros_like(c.numpy())), override=True)


def arrays(n: int, m: int, l: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(-4, 5, s).astype(np.float32) for s in ((n, l), (m, l))] + [np.zeros((n, m), np.float32)]


def scheduled(n: int, m: int, l: int, whole: bool = False, **kw: Any) -> tuple[Any, list[Any]]:
    a, b = te.placeholder((n, l), name="A"), te.placeholder((m, l), name="B")
    k = te.reduce_axis((0, l), name="k")
    c = te.compute((n, m), lambda i, j: te.sum(a[i, k] * b[j, k], axis=k), name="C")
    s = te.create_schedule(c.op)
    x, y = c.op.axis
    yo, yi = s[c].split(y, factor=8)
    if whole:
        s[c].reorder(x, yo, yi, k)
    else:
        ko, ki = s[c].split(k, factor=8)
        s[c].reorder(x, yo, ko, yi, ki)
    s[c].tensorize(yi, gemv(8, l if whole else 8, whole, **kw))
    return s, [a, b, c]


@pytest.mark.parametrize("whole", [False, True])
def test_matrix_times_vector_by_c_functions(whole: bool, functions: None) -> None:
    s, args = scheduled(4, 16, 32, whole)
    func = tvm.lower(s, args, simple_mode=True)["main"]
    x, y, out = arrays(4, 16, 32)
    interp.run(func, x, y, out)
    np.testing.assert_array_equal(out, x @ y.T)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc for import_c")
def test_imported_c_code_is_linked() -> None:
    s, args = scheduled(4, 16, 32)
    s[args[2]].pragma(args[2].op.axis[0], "import_c", C_CODE)
    built = tvm.build(s, args, target="llvm", name="gemv")
    x, y, out = arrays(4, 16, 32)
    c = tvm.nd.array(out)
    built(tvm.nd.array(x), tvm.nd.array(y), c)
    np.testing.assert_array_equal(c.numpy(), x @ y.T)


def test_compact_buffers_do_not_take_strided_operands() -> None:
    s, args = scheduled(4, 16, 32, strides=False)
    with pytest.raises(tvm.TVMError, match="strides: dimension 0 of B steps by 32"):
        tvm.lower(s, args)


def test_a_whole_reduction_cannot_be_continued() -> None:
    s, args = scheduled(4, 16, 32)
    stage = s[args[2]]
    for attr in stage.iter_var_attrs.values():
        if attr.tensor_intrin is not None:
            attr.tensor_intrin = gemv(8, 8, whole=True)
    with pytest.raises(tvm.TVMError, match="adds to what its result holds; the intrinsic gemv starts anew"):
        tvm.lower(s, args)


def test_the_body_may_be_a_computation_by_an_intrinsic(functions: None) -> None:
    n, m, l, f = 4, 8, 32, 16
    a, b, g = te.placeholder((n, l), name="A"), te.placeholder((m, l), name="B"), gemv(m, f)
    ro = te.reduce_axis((0, l // f), name="ro")
    c = te.compute(
        (n, m), lambda i: g(a[i, ro * f : (ro + 1) * f], b[0:m, ro * f : (ro + 1) * f], reduce_axis=ro), name="C"
    )
    assert isinstance(c.op, TensorComputeOp)
    s = te.create_schedule(c.op)
    s[c].split(c.op.axis[0], factor=2)
    func = tvm.lower(s, [a, b, c], simple_mode=True)["main"]
    x, y, out = arrays(n, m, l)
    interp.run(func, x, y, out)
    np.testing.assert_array_equal(out, x @ y.T)


def vnni() -> Any:
    """16 sums of 4 products by LLVM's function for vpdpbusd."""
    data, kernel = te.placeholder((4,), "uint8", "data"), te.placeholder((16, 4), "int8", "kernel")
    k = te.reduce_axis((0, 4), name="k")
    c = te.compute((16,), lambda i: te.sum(data[k].astype("int32") * kernel[i, k].astype("int32"), axis=k), name="c")
    a_buffer = tvm.tir.decl_buffer(data.shape, "uint8", "a", offset_factor=1, strides=[1])
    b_buffer = tvm.tir.decl_buffer(kernel.shape, "int8", "b", offset_factor=1, strides=[te.var("ldw"), 1])

    def statements(ins: Any, outs: Any) -> Any:
        zero = tvm.tir.const(0, "int32x16")
        words = tvm.tir.call_intrin("int32", "tir.reinterpret", ins[0].vload([0], "uint8x4")).astype("int32x16")
        weights = tvm.tir.call_intrin("int32x16", "tir.reinterpret", ins[1].vload([0, 0], "int8x64"))
        count, name = tvm.tir.const(3, "uint32"), "llvm.x86.avx512.vpdpbusd.512"
        quad = tvm.tir.call_llvm_pure_intrin("int32x16", name, count, zero, words, weights)
        old = outs[0].vload([0], "int32x16")
        return outs[0].vstore(0, quad), outs[0].vstore(0, zero), outs[0].vstore(0, quad + old)

    return te.decl_tensor_intrin(
        c.op, statements, binds={data: a_buffer, kernel: b_buffer}, default_buffer_params={"offset_factor": 1}
    )


def test_vectors_of_bytes_by_llvm_functions() -> None:
    m, n, k = 4, 32, 16
    a, w = te.placeholder((m, k), "uint8", "A"), te.placeholder((n // 16, k // 4, 16, 4), "int8", "W")
    r = te.reduce_axis((0, k), name="k")

    def element(i: Any, j: Any) -> Any:
        return te.sum(a[i, r].astype("int32") * w[j // 16, r // 4, j % 16, r % 4].astype("int32"), axis=r)

    c = te.compute((m, n), element, name="C")
    s = te.create_schedule(c.op)
    i, j = c.op.axis
    jo, ji = s[c].split(j, 16)
    ro, ri = s[c].split(r, 4)
    s[c].reorder(i, jo, ro, ji, ri)
    s[c].tensorize(ji, vnni())
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (m, k)).astype(np.uint8), rng.integers(-128, 128, w.shape).astype(np.int8)
    want = x.astype(np.int32) @ y.transpose(0, 2, 1, 3).reshape(n, k).T.astype(np.int32)
    out = np.zeros((m, n), np.int32)
    interp.run(tvm.lower(s, [a, w, c], simple_mode=True)["main"], x, y, out)
    np.testing.assert_array_equal(out, want)
    built = tvm.build(s, [a, w, c], "llvm -mcpu=cascadelake")
    assert "vpdpbusd" in built.get_source("asm")


def test_declarations_are_checked() -> None:
    a = te.placeholder((4,), name="a")
    b = te.compute((4,), lambda i: a[i] + 1.0, name="b")
    c = te.compute((4,), lambda i: b[i] * 2.0, name="c")
    with pytest.raises(TypeError, match="expects an operation"):
        te.decl_tensor_intrin(c, lambda ins, outs: None)
    with pytest.raises(ValueError, match="Do not yet support composition op"):
        te.decl_tensor_intrin(c.op, lambda ins, outs: None)
    with pytest.raises(tvm.TVMError, match="return a statement, or the triple"):
        te.decl_tensor_intrin(b.op, lambda ins, outs: "x")
    with pytest.raises(tvm.TVMError, match="has 2 operands, got 1"):
        gemv(8, 8)(a)
