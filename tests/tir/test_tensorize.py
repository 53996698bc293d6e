"""Tensor intrinsics: template equals semantics, instructions are chosen, loops are matched by what they mean."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from warpbeam import target, te
from warpbeam.codegen import llvm
from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import LowerError, ScheduleError
from warpbeam.tir import expr as e
from warpbeam.tir import interp, tensor_intrin
from warpbeam.tir.expr import Buffer, BufferLoad, Ramp
from warpbeam.tir.schedule import Schedule
from warpbeam.tir.stmt import BufferStore, PrimFunc
from warpbeam.tir.text.printer import to_text
from warpbeam.tir.transform import lower

sys.path.insert(0, str(Path(__file__).parents[1] / "codegen"))

import cg_gcc
import cg_native as native

NATIVE = target.get("native")
VNNI = "avx512vnni.u8s8s32"


def data(buffers: Any, seed: int = 0) -> list[Any]:
    """Random arrays: integers over their whole range, floats small whole numbers (so that sums are exact)."""
    rng = np.random.default_rng(seed)
    found = []
    for b in buffers:
        low, high = (-8, 8) if dt.is_float(b.dtype) else dt.int_range(b.dtype)
        found.append(rng.integers(low, high + 1, [int(s) for s in b.shape]).astype(dt.to_numpy(b.dtype)))
    return found


def result(func: PrimFunc, arrays: list[Any], run: Any = interp.run) -> Any:
    own = [a.copy() for a in arrays]
    run(func, *own) if run is interp.run else run(*own)
    return own[-1]


def same(before: PrimFunc, after: PrimFunc, compiled: bool = True) -> None:
    """Scheduled, lowered and compiled programs give what the unscheduled one gives."""
    arrays = data(before.buffers)
    want = result(before, arrays)
    lowered = lower(after)
    np.testing.assert_array_equal(result(after, arrays), want)
    np.testing.assert_array_equal(result(lowered, arrays), want)
    if compiled:
        np.testing.assert_array_equal(result(lowered, arrays, native.build(lowered)), want)


# ------------------------------------------------------------------------------------------------------------- records


@pytest.mark.parametrize("name", tensor_intrin.names())
def test_templates_do_what_the_semantics_say(name: str) -> None:
    record = tensor_intrin.get(name)
    for seed in range(3):
        arrays = data(record.semantics.buffers, seed)
        want = result(record.semantics, arrays)
        whole = record.program("body")
        np.testing.assert_array_equal(result(whole, arrays), want)
        started = result(record.program("reset"), arrays)
        np.testing.assert_array_equal(result(record.program("update"), [*arrays[:-1], started]), want)
    lowered = lower(whole)
    np.testing.assert_array_equal(result(lowered, arrays, native.build(lowered)), want)
    np.testing.assert_array_equal(result(lowered, arrays, cg_gcc.build(lowered)), want)


@pytest.mark.parametrize("name", tensor_intrin.names())
def test_the_instruction_is_in_the_assembly(name: str) -> None:
    record = tensor_intrin.get(name)
    tgt, update = target.get(record.target), lower(record.program("update"))
    assert record.instruction in llvm.assembly_text(llvm.print_kernel(update, tgt), tgt)


@pytest.mark.parametrize("tgt", ["generic-x86-64-v3", "generic-aarch64", "wasm32", "generic-riscv64"])
def test_other_machines_get_plain_arithmetic(tgt: str) -> None:
    for name in ("avx512vnni.s8s8s32", "avx512bf16.bf16bf16f32", "arm32.s8s8s32", "aarch64.u8u8u32"):
        text = llvm.print_kernel(lower(tensor_intrin.get(name).program()), target.get(tgt))
        assert "@llvm.x86" not in text and "@llvm.a" not in text.replace("@llvm.abs", "")
        assert llvm.compile_text(text, target.get(tgt))


def test_bfloat16_dot_products_stay_within_the_bound_of_float32() -> None:
    record = tensor_intrin.get("avx512bf16.bf16bf16f32")
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal(s).astype(dt.to_numpy("bfloat16")) for s in ((2,), (16, 2)))
    c = np.zeros(16, np.float32)
    native.build(lower(record.program()))(a, b, c)
    x, y = a.astype(np.float64), b.astype(np.float64)
    assert (np.abs(c - y @ x) <= 2 * 2.0**-23 * (np.abs(y) @ np.abs(x))).all()


def test_unknown_names_are_answered_with_similar_ones() -> None:
    with pytest.raises(ScheduleError, match=r"no tensor intrinsic 'avx512vnni.u8s8'[\s\S]*avx512vnni.u8s8s32"):
        tensor_intrin.get("avx512vnni.u8s8")


# ------------------------------------------------------------------------------------------------------------ matching


def product(m: int, n: int, k: int, value: Any = None, a_dtype: str = "uint8") -> PrimFunc:
    """C[m, n] int32 = A[m, k] times W[n/16, k/4, 16, 4]."""
    a, w = te.placeholder((m, k), a_dtype, "A"), te.placeholder((n // 16, k // 4, 16, 4), "int8", "W")
    r = te.reduce_axis((0, k), "k")
    value = value or (lambda x, y: x.astype("int32") * y.astype("int32"))
    c = te.compute(
        (m, n), lambda i, j: te.sum(value(a[i, r], w[j // 16, r // 4, j % 16, r % 4]), axis=r), name="C"
    )  # fmt: skip
    return te.create_prim_func([a, w], [c], "product")


def split(func: PrimFunc, order: str = "jk") -> tuple[Schedule, str]:
    """The product with its innermost 16 x 4 in a given order, and the loop around them."""
    s = Schedule(func)
    i, j, k = s.loops("C")
    jo, ji = s.split(j, [None, 16])
    ko, ki = s.split(k, [None, 4])
    inner = [ji, ki] if order == "jk" else [ki, ji]
    s.reorder(i, jo, ko, *inner)
    return s, inner[0]


@pytest.mark.parametrize("order", ["jk", "kj"])
@pytest.mark.parametrize(
    "value",
    [
        lambda x, y: x.astype("int32") * y.astype("int32"),
        lambda x, y: y.astype("int32") * x.astype("int32"),
        lambda x, y: (x.astype("int16") * y.astype("int16")).astype("int32"),
        lambda x, y: y.astype("int16").astype("int32") * x.astype("int64").astype("int32"),
    ],
)
def test_order_of_loops_and_operands_and_place_of_casts_do_not_matter(order: str, value: Any) -> None:
    func = product(3, 32, 8, value)
    s, loop = split(func, order)
    assert s.tensorize(loop, VNNI) == "C"
    assert "dot4" in to_text(s.func) and s.block("C").annotations["tensorized"] == VNNI
    same(func, s.func, compiled=order == "jk")


def test_loops_may_be_split_and_fused_and_of_one_iteration() -> None:
    func = product(2, 32, 8)
    s, _ = split(func)
    j, k = s.loops("C")[-2:]
    one, j = s.split(j, [1, 16])
    j0, j1 = s.split(j, [4, 4])
    k0, k1 = s.split(k, [2, 2])
    s.reorder(one, j0, k0, j1, k1)
    s.fuse(k0, j1)
    s.tensorize(one, VNNI)
    same(func, s.func, compiled=False)


def test_a_start_inside_the_tile_belongs_to_it() -> None:
    func = product(1, 16, 4)
    s = Schedule(func)
    i, j, _ = s.loops("C")
    s.decompose_reduction("C", j)
    s.tensorize(i, VNNI)
    assert s.blocks() == ["C"]
    same(func, s.func)


def test_a_start_outside_the_tile_stays() -> None:
    func = product(2, 16, 8)
    s = Schedule(func)
    _, j, k = s.loops("C")
    ko, ki = s.split(k, [None, 4])
    s.reorder(ko, j, ki)
    s.decompose_reduction("C", ko)
    s.tensorize(j, VNNI)
    assert s.blocks() == ["C_init", "C"]
    same(func, s.func)


def test_two_computations_are_no_tile() -> None:
    a = te.placeholder((16,), name="A")
    b = te.compute((16,), lambda i: a[i] * 2.0, "B")
    s = Schedule(te.create_prim_func([a], [te.compute((16,), lambda i: b[i] + 1.0, "C")], "f"))
    s.compute_at("B", s.loops("C")[0])
    refused(s, s.loops("C")[0], VNNI, "is not the start of the second")


def test_a_whole_reduction_needs_no_start() -> None:
    func = product(2, 32, 4)
    s, loop = split(func)
    s.tensorize(loop, VNNI, preserve_unit_iters=False)
    block = s.block("C")
    assert block.init is None and [a.var.name for a in block.axes] == ["i", "j_o"]
    same(func, s.func)


def test_a_decomposed_reduction_takes_the_update() -> None:
    func = product(2, 32, 8)
    s, loop = split(func)
    s.decompose_reduction("C", s.loops("C")[2])
    s.tensorize(loop, VNNI)
    same(func, s.func)


def test_tiles_of_fused_multiply_adds_take_any_row_stride() -> None:
    a, b = te.placeholder((12, 8), name="A"), te.placeholder((8, 32), name="B")
    r = te.reduce_axis((0, 8), "k")
    c = te.compute((12, 32), lambda i, j: te.sum(b[r, j] * a[i, r], axis=r), name="C")
    func = te.create_prim_func([a, b], [c], "f")
    s = Schedule(func)
    i, j, k = s.loops("C")
    io, ii = s.split(i, [None, 6])
    jo, ji = s.split(j, [None, 16])
    s.reorder(io, jo, k, ii, ji)
    s.tensorize(ii, "fma.f32.6x16")
    same(func, s.func)


def test_products_of_quantised_and_of_bfloat16_matrices_in_registers() -> None:
    for name, a_dtype, b_dtype, out, group in (
        (VNNI, "uint8", "int8", "int32", 4),
        ("avx512vnni.s8s8s32", "int8", "int8", "int32", 4),
        ("avx512bf16.bf16bf16f32", "bfloat16", "bfloat16", "float32", 2),
    ):
        m, n, k = 12, 64, 32
        a = te.placeholder((m, k), a_dtype, "A")
        w = te.placeholder((n // 16, k // group, 16, group), b_dtype, "W")
        r = te.reduce_axis((0, k), "k")

        def element(i: Any, j: Any, a: Any = a, w: Any = w, r: Any = r, g: int = group, out: str = out) -> Any:
            return te.sum(a[i, r].astype(out) * w[j // 16, r // g, j % 16, r % g].astype(out), axis=r)

        func = te.create_prim_func([a, w], [te.compute((m, n), element, "C")], "product")
        s = Schedule(func)
        copy = s.cache_write("C", "register")
        i, j, kk = s.loops("C")
        io, ii = s.split(i, [None, 6])
        jo, jv, ji = s.split(j, [None, 2, 16])
        ko, ki = s.split(kk, [None, group])
        s.reorder(jo, io, ko, ii, jv, ki, ji)
        s.reverse_compute_at(copy, io)
        s.tensorize(ki, name)
        row, column = s.loops(copy)[-2:]
        vector, lane = s.split(column, [None, 16])
        s.vectorize(lane)
        for loop in (row, vector, ii, jv):
            s.unroll(loop)
        same(func, s.func)
        tgt = target.get(tensor_intrin.get(name).target)
        text = llvm.assembly_text(llvm.print_kernel(lower(s.func), tgt), tgt)
        assert text.count(tensor_intrin.get(name).instruction) >= 12 and "(%rsp)" not in text


# ------------------------------------------------------------------------------------------------------------ refusals


def refused(s: Schedule, loop: str, intrin: Any, words: str) -> None:
    before = s.func
    with pytest.raises(ScheduleError, match=words):
        s.tensorize(loop, intrin)
    assert s.func is before


def test_a_different_domain_is_refused() -> None:
    s = Schedule(product(2, 32, 8))
    _, j, k = s.loops("C")
    _, ji = s.split(j, [None, 8])
    ko, ki = s.split(k, [None, 4])
    s.reorder(ko, ji, ki)
    refused(s, ji, VNNI, r"domain: the intrinsic runs over i: 16 \(spatial\), k: 4 \(reduce\), the loops j: 8")


def test_a_loop_that_stops_early_is_refused() -> None:
    func = product(2, 32, 8)
    s = Schedule(func)
    _, j, _ = s.loops("C")
    s.split(j, [None, 12])
    refused(s, s.loops("C")[2], VNNI, "needs constant extents|do not run over a box|divides")


def test_a_different_dtype_is_refused() -> None:
    s, loop = split(product(2, 32, 8, a_dtype="int8"))
    refused(s, loop, VNNI, "dtype: .*int8.*uint8")


def test_a_different_body_is_refused() -> None:
    s, loop = split(product(2, 32, 8, lambda x, y: x.astype("int32") + y.astype("int32")))
    refused(s, loop, VNNI, "body: .* stands where the intrinsic has")


def test_an_overflowing_product_is_not_a_wide_one() -> None:
    s, loop = split(product(2, 32, 8, lambda x, y: (x.astype("int8") * y).astype("int32")))
    refused(s, loop, VNNI, "dtype|body")


def test_a_scattered_operand_is_refused() -> None:
    a, w = te.placeholder((2, 8), "uint8", "A"), te.placeholder((32, 8), "int8", "W")
    r = te.reduce_axis((0, 8), "k")
    c = te.compute((2, 32), lambda i, j: te.sum(a[i, r].astype("int32") * w[j, r].astype("int32"), axis=r), name="C")
    s, loop = split(te.create_prim_func([a, w], [c], "f"))
    refused(s, loop, VNNI, r"strides: dimension 0 of B steps by 8 in W\[.*the intrinsic wants 4")


def test_a_different_access_is_refused() -> None:
    a, w = te.placeholder((32, 8), "uint8", "A"), te.placeholder((2, 2, 16, 4), "int8", "W")
    r = te.reduce_axis((0, 8), "k")

    def element(i: Any, j: Any) -> Any:
        return te.sum(a[j, r].astype("int32") * w[j // 16, r // 4, j % 16, r % 4].astype("int32"), axis=r)

    s, loop = split(te.create_prim_func([a, w], [te.compute((2, 32), element, "C")], "f"))
    refused(s, loop, VNNI, "access: A.* cannot be operand A.*: it also moves with i")


# -------------------------------------------------------------------------------------------------------- LLVM by name


def by_name(name: str, dtype: str = "int32x16", pure: bool = True) -> PrimFunc:
    c, a, b = Buffer("C", (16,), "int32"), Buffer("A", (64,), "uint8"), Buffer("B", (64,), "int8")

    def whole(x: Buffer, lanes: int) -> BufferLoad:
        return BufferLoad(x, (Ramp(e.const(0), e.const(1), lanes),))

    op = "call_llvm_pure_intrin" if pure else "call_llvm_intrin"
    value = e.call(op, whole(c, 16), whole(a, 64), whole(b, 64), dtype=dtype, name=name)
    return PrimFunc("f", (a, b, c), BufferStore(c, value, (Ramp(e.const(0), e.const(1), 16),)))


@pytest.mark.parametrize("pure", [True, False])
def test_llvm_functions_are_called_by_name(pure: bool) -> None:
    func = by_name("llvm.x86.avx512.vpdpbusd.512", pure=pure)
    a, b, c = data(func.buffers)
    want = c + (a.astype(np.int32) * b).reshape(16, 4).sum(1, dtype=np.int32)
    np.testing.assert_array_equal(result(func, [a, b, c]), want)
    if "avx512vnni" in NATIVE.required_features:
        np.testing.assert_array_equal(result(func, [a, b, c], native.build(func)), want)


def test_signatures_of_llvm_functions_are_checked() -> None:
    tgt = target.get("cascadelake")
    with pytest.raises(LowerError, match=r"cannot be printed[\s\S]*LLVM knows no function"):
        llvm.print_kernel(by_name("llvm.x86.avx512.vpdpbusx.512"), tgt)
    with pytest.raises(LowerError, match=r"vpdpbusd.256 as <16 x i32> .* cannot be printed"):
        llvm.print_kernel(by_name("llvm.x86.avx512.vpdpbusd.256"), tgt)
