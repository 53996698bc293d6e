"""Kernels through LLVM: what they compute, the machine code of a tile, and objects without undefined symbols."""

from __future__ import annotations

import ctypes
import re

import cg_native as native
import numpy as np
import programs
import pytest
from tolerance import close

from warpbeam import target
from warpbeam.codegen import llvm
from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import CompileError, LowerError
from warpbeam.runtime.abi import EITHER_WAY, LOOP_FN, PARALLEL_FOR_FN, Context
from warpbeam.tir import expr as E
from warpbeam.tir.stmt import (
    Allocate,
    AssertStmt,
    BufferStore,
    Evaluate,
    For,
    IfThenElse,
    LetStmt,
    PrimFunc,
    While,
    seq,
)

ZNVER = target.get("znver5")
INTS = ["int8", "int32", "int64", "uint8", "uint32"]


def run_elementwise(fn, arrays, result, lanes=1, tgt=None):
    func = programs.elementwise(fn, [str(a.dtype) for a in arrays], result, len(arrays[0]), lanes)
    out = np.zeros(len(arrays[0]), result)
    native.build(func, tgt)(*arrays, out)
    return out


@pytest.mark.parametrize(("rows", "cols"), [(8, 48), (14, 32), (6, 64), (12, 32)])
def test_register_tile_has_no_spill(rows: int, cols: int) -> None:
    text = llvm.print_kernel(programs.gemm(rows * 4, cols * 4, 256, rows, cols, 16), ZNVER)
    code = llvm.assembly_text(text, ZNVER)
    blocks = re.split(r"^\.LBB\w+:", code, flags=re.M)
    inner = max(blocks, key=lambda b: b.count("vfmadd"))
    inner = inner[: inner.index("\n\tj")]
    assert inner.count("vfmadd231ps") == rows * cols // 16
    assert "rsp" not in code.replace("%rsp, %rbp", "")
    loads = re.findall(r"vmovups\s+\S*\(", inner)
    assert len(loads) <= cols // 16
    others = [
        line.split()[0] for line in inner.splitlines() if line.strip() and not line.strip().startswith((".", "#"))
    ]
    scalar = [w for w in others if not w.startswith("v")]
    assert len(scalar) <= 5, scalar


@pytest.mark.parametrize("kind", ["serial", "parallel"])
def test_gemm(kind: str) -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((24, 40)).astype(np.float32)
    b = rng.standard_normal((3, 40, 32)).astype(np.float32)
    c = np.zeros((24, 96), np.float32)
    native.build(programs.gemm(24, 96, 40, 6, 32, 16, kind))(a, b, c)
    close(c, a @ b.transpose(1, 0, 2).reshape(40, 96), terms=40)


@pytest.mark.parametrize("lanes", [1, 7, 8])
@pytest.mark.parametrize("dtype", INTS)
def test_integer_division_is_defined_for_every_value(dtype: str, lanes: int) -> None:
    info = np.iinfo(dtype)
    edges = [v for v in (info.min, info.min + 1, -7, -3, -1, 0, 1, 2, 3, 7, 8, info.max - 1, info.max) if v >= info.min]
    a, b = (x.ravel().astype(dtype) for x in np.meshgrid(edges, edges))
    pad = -len(a) % (7 * 8)
    a, b = (np.concatenate([x, np.ones(pad, dtype)]) for x in (a, b))
    zero = b == 0
    safe = np.where(zero, 1, b).astype(object)
    wide = a.astype(object)
    floor_q, floor_r = wide // safe, wide % safe
    trunc_q = np.array([abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1) for x, y in zip(wide, safe)], object)
    wanted = {E.FloorDiv: floor_q, E.FloorMod: floor_r, E.Div: trunc_q, E.Mod: wide - trunc_q * safe}
    for kind, want in wanted.items():
        got = run_elementwise(kind, [a, b], dtype, lanes)
        want = np.array(
            [0 if z else (int(w) - info.min) % (info.max - info.min + 1) + info.min for w, z in zip(want, zero)]
        )
        np.testing.assert_array_equal(got, want.astype(dtype), err_msg=str(kind))
    for divisor in (2, 3, 8, -3, -1):
        if divisor < info.min:
            continue
        toward_zero = np.array([abs(x) // abs(divisor) * (1 if (x < 0) == (divisor < 0) else -1) for x in wide], object)
        by_constant = {
            E.FloorDiv: wide // divisor, E.FloorMod: wide % divisor, E.Div: toward_zero,
            E.Mod: wide - toward_zero * divisor,
        }  # fmt: skip
        for kind, values in by_constant.items():
            got = run_elementwise(lambda x, y, d=divisor, k=kind: k(x, E.const(d, x.dtype)), [a, b], dtype, lanes)
            want = (values - info.min) % (info.max - info.min + 1) + info.min
            np.testing.assert_array_equal(got, want.astype(dtype), err_msg=f"{kind} {divisor}")


@pytest.mark.parametrize("lanes", [1, 8])
def test_casts_saturate_and_wrap(lanes: int) -> None:
    x = np.array(
        [0.0, -0.5, 1.9, -1.9, 300, -300, 3e9, -3e9, 1e20, -1e20, np.inf, -np.inf, np.nan, 127.5, 255, 256], np.float32
    )
    for dtype in ("int8", "uint8", "int32", "int64", "uint32"):
        info = np.iinfo(dtype)
        want = [0 if np.isnan(v) else int(min(max(np.trunc(float(v)), info.min), info.max)) for v in x]
        got = run_elementwise(lambda v, d=dtype: E.cast(d, v), [x], dtype, lanes)
        np.testing.assert_array_equal(got, np.array(want, dtype))
    np.testing.assert_array_equal(run_elementwise(lambda v: E.cast("bool", v), [x], "bool", lanes), x != 0)
    i = np.array([0, 1, -1, 127, 128, -129, 1 << 30, -(1 << 31)] * 2, np.int32)
    for dtype in ("int8", "uint8", "int64", "float32", "float64", "bool"):
        got = run_elementwise(lambda v, d=dtype: E.cast(d, v), [i], dtype, lanes)
        np.testing.assert_array_equal(got, i.astype(dtype))


@pytest.mark.parametrize("native_convert", [True, False])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_conversions_round_to_nearest_even(dtype: str, native_convert: bool) -> None:
    import ml_dtypes

    kind = np.dtype(np.float16 if dtype == "float16" else ml_dtypes.bfloat16)
    tgt = target.get("native").replace(fp16_convert=native_convert)
    rng = np.random.default_rng(1)
    x = rng.integers(0, 1 << 32, 1 << 16, dtype=np.uint64).astype(np.uint32).view(np.float32)
    halves = np.arange(1 << 16, dtype=np.uint16).view(kind)
    with np.errstate(all="ignore"):
        middle = np.nextafter(halves.astype(np.float32), np.float32(np.inf))
        x = np.concatenate([x, halves.astype(np.float32), middle])
        want = x.astype(kind)
        got = run_elementwise(lambda v: E.cast(dtype, v), [x], dtype, 16, tgt).view(kind)
        np.testing.assert_array_equal(got.astype(np.float32), want.astype(np.float32))
        back = np.zeros(len(halves), np.float32)
        native.build(programs.elementwise(lambda v: E.cast("float32", v), [dtype], "float32", len(back), 16), tgt)(
            halves, back
        )
        np.testing.assert_array_equal(back, halves.astype(np.float32))
        d = rng.standard_normal(1 << 12) * 10.0 ** rng.integers(-9, 5, 1 << 12)
        d[::2] = halves[: len(d[::2])].astype(np.float64) * (1 + 2.0**-40)
        got = run_elementwise(lambda v: E.cast(dtype, v), [d], dtype, 8, tgt).view(kind)
        odd = d.astype(np.float16) if dtype == "float16" else None
        if odd is not None:
            np.testing.assert_array_equal(got, odd)


@pytest.mark.parametrize("lanes", [1, 8])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_min_and_max_let_nan_win(dtype: str, lanes: int) -> None:
    edge = np.array([0, 1, -1, np.inf, -np.inf, np.nan, 2.5, -2.5], dtype)
    a, b = (x.ravel() for x in np.meshgrid(edge, edge))
    for fn, want in ((E.minimum, np.minimum), (E.maximum, np.maximum)):
        np.testing.assert_array_equal(run_elementwise(fn, [a, b], dtype, lanes), want(a, b))
        six = run_elementwise(lambda x, y, f=fn: f(x, E.const(6.0, x.dtype)), [a, b], dtype, lanes)
        np.testing.assert_array_equal(six, want(a, np.dtype(dtype).type(6)))


def test_relu_is_one_instruction() -> None:
    func = programs.elementwise(lambda x: E.maximum(x, E.const(0.0, x.dtype)), ["float32"], "float32", 64, 16)
    code = llvm.assembly_text(llvm.print_kernel(func, ZNVER), ZNVER)
    assert "vmaxps" in code and "vcmp" not in code


@pytest.mark.parametrize("op", ["floor", "ceil", "trunc", "round"])
@pytest.mark.parametrize("native_round", [True, False])
def test_rounding(op: str, native_round: bool) -> None:
    x = np.array(
        [0.0, -0.0, 0.5, -0.5, 1.5, 2.5, -2.5, 0.3, -0.3, 8388607.5, 8388609, -3e9, np.inf, -np.inf, 1e-40, 7.99],
        np.float32,
    )
    got = run_elementwise(
        lambda v: E.call(op, v), [x], "float32", 16, target.get("native").replace(native_round=native_round)
    )
    want = getattr(np, {"round": "rint"}.get(op, op))(x)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.signbit(got), np.signbit(want))


def test_float_remainder_is_exact() -> None:
    rng = np.random.default_rng(0)
    a = (rng.standard_normal(64) * 10.0 ** rng.integers(-30, 30, 64)).astype(np.float32)
    b = (rng.standard_normal(64) * 10.0 ** rng.integers(-5, 5, 64)).astype(np.float32)
    np.testing.assert_array_equal(run_elementwise(E.Mod, [a, b], "float32", 4), np.fmod(a, b))
    np.testing.assert_array_equal(run_elementwise(E.Mod, [a, b], "float32"), np.fmod(a, b))


def test_shifts_by_any_amount() -> None:
    a = np.array([1, -1, -8, 5], np.int32).repeat(4)
    b = np.array([0, 3, 31, 40] * 4, np.int32)
    left = run_elementwise(lambda x, y: E.call("shift_left", x, y), [a, b], "int32", 4)
    right = run_elementwise(lambda x, y: E.call("shift_right", x, y), [a, b], "int32", 4)
    np.testing.assert_array_equal(left, np.where(b < 32, (a.astype(np.int64) << np.minimum(b, 31)).astype(np.int32), 0))
    np.testing.assert_array_equal(right, a >> np.minimum(b, 31))


@pytest.mark.parametrize("stride", [-2, -1, 0, 2, 3, 4, 7])
def test_strided_loads_and_stores(stride: int) -> None:
    lanes, count = 8, 64
    a, c = E.Buffer("a", (count,)), E.Buffer("c", (count,))
    base = (lanes - 1) * -stride if stride < 0 else 0
    source = E.BufferLoad(a, (programs.ramp(base, lanes, stride),))
    func = PrimFunc("k", (a, c), BufferStore(c, source, (programs.ramp(0, lanes),)))
    x, out = np.arange(count, dtype=np.float32), np.zeros(count, np.float32)
    native.build(func)(x, out)
    np.testing.assert_array_equal(out[:lanes], base + stride * np.arange(lanes))
    if stride:
        turned = PrimFunc(
            "k", (a, c), BufferStore(c, a[(programs.ramp(0, lanes),)], (programs.ramp(base, lanes, stride),))
        )
        out[:] = 0
        native.build(turned)(x, out)
        np.testing.assert_array_equal(out[base + stride * np.arange(lanes)], np.arange(lanes))


def test_gather_and_masked_choice() -> None:
    a, i, c = E.Buffer("a", (10,)), E.Buffer("i", (8,), "int64"), E.Buffer("c", (8,))
    at = programs.ramp(0, 8)
    index = E.BufferLoad(i, (at,))
    inside = E.land(index >= E.const(0, index.dtype), index < E.const(10, index.dtype))
    value = E.Call("float32x8", "if_then_else", (inside, E.BufferLoad(a, (index,)), E.const(-1.0, "float32x8")))
    x, out = np.arange(10, dtype=np.float32), np.zeros(8, np.float32)
    where = np.array([0, 9, 10, -1, 5, 1 << 40, 3, -(1 << 40)])
    native.build(PrimFunc("k", (a, i, c), BufferStore(c, value, (at,))))(x, where, out)
    np.testing.assert_array_equal(out, [0, 9, -1, -1, 5, -1, 3, -1])
    # contiguous loads under a mask touch nothing outside
    j = E.Ramp(E.as_expr(4), E.as_expr(1), 8)
    near = E.Call(
        "float32x8", "if_then_else", (j < E.const(10, j.dtype), E.BufferLoad(a, (j,)), E.const(0.5, "float32x8"))
    )
    native.build(PrimFunc("k", (a, c), BufferStore(c, near, (at,))))(x, out)
    np.testing.assert_array_equal(out, [4, 5, 6, 7, 8, 9, 0.5, 0.5])


def test_lazy_choice_branches_and_is_shared() -> None:
    a, c, n = E.Buffer("a", (E.SizeVar("n"),)), E.Buffer("c", (E.as_expr(4), E.as_expr(8))), E.SizeVar("n")
    a = E.Buffer("a", (n,))
    k = E.Var("k")
    value = E.if_then_else(k < n, a[k], 7.0)
    stores = [BufferStore(c, E.mul(value, float(r + 1)), (r, k)) for r in range(4)]
    func = PrimFunc("k", (a, c, n), For(k, 0, 8, "serial", seq(*stores)))
    assert llvm.print_kernel(func, ZNVER).count("phi float") == 1
    out = np.zeros((4, 8), np.float32)
    native.build(func)(np.arange(5, dtype=np.float32), out, 5)
    np.testing.assert_array_equal(out, np.outer([1, 2, 3, 4], [0, 1, 2, 3, 4, 7, 7, 7]))


def test_registers_through_branches_and_loops() -> None:
    a, c, n = E.Buffer("a", (16,), "int32"), E.Buffer("c", (2,), "int32"), E.SizeVar("n")
    r = E.Buffer("r", (2,), "int32", "register")
    i = E.Var("i")
    pick = IfThenElse(a[i] > 3, BufferStore(r, r[0] + a[i], (0,)), BufferStore(r, r[1] + 1, (1,)))
    loop = For(i, 0, n, "serial", pick)
    count = While(r[1] < 10, BufferStore(r, r[1] + 4, (1,)))
    zero = seq(BufferStore(r, 0, (0,)), BufferStore(r, 0, (1,)))
    end = seq(BufferStore(c, r[0], (0,)), BufferStore(c, r[1], (1,)))
    run = native.build(PrimFunc("k", (a, c, n), Allocate(r, seq(zero, loop, count, end))))
    x = np.arange(16, dtype=np.int32)
    for size in (0, 3, 9):
        out = np.zeros(2, np.int32)
        run(x, out, size)
        low = min(size, 4)
        while low < 10:
            low += 4
        assert out.tolist() == [sum(range(4, size)), low]


def test_loads_see_stores() -> None:
    a, c = E.Buffer("a", (4,)), E.Buffer("c", (4,))
    i, v = E.Var("i"), E.Var("v", "float32")
    body = seq(
        BufferStore(c, a[0], (0,)),
        For(i, 0, 3, "serial", BufferStore(c, c[0] + a[i], (0,))),
        LetStmt(v, c[0], seq(BufferStore(c, v * 2.0, (1,)), BufferStore(c, 5.0, (0,)), BufferStore(c, v + c[0], (2,)))),
    )
    out = np.zeros(4, np.float32)
    native.build(PrimFunc("k", (a, c), body))(np.array([1, 2, 3, 4], np.float32), out)
    assert out.tolist() == [5, 14, 12, 0]


def test_failed_assertion_reports_its_message() -> None:
    c, n = E.Buffer("c", (4,)), E.SizeVar("n")
    i = E.Var("i")
    body = For(i, 0, n, "parallel", seq(AssertStmt(i < 3, 'row "3" is too many'), BufferStore(c, 1.0, (i,))))
    run = native.build(PrimFunc("k", (c, n), body))
    out = np.zeros(4, np.float32)
    run(out, 3)
    with pytest.raises(AssertionError, match='row "3" is too many'):
        run(out, 4)
    assert out.tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize("status", [0, 3])
@pytest.mark.parametrize("asks", [False, True])
def test_a_loop_that_asks_for_nothing_ahead_may_go_either_way(asks: bool, status: int) -> None:
    a, c, i = E.Buffer("a", (64,)), E.Buffer("c", (64,)), E.Var("i")
    ask = [Evaluate(E.call("prefetch", a[E.binary(E.Min, i + 8, E.const(63))], dtype="int64"))] if asks else []
    run = native.build(PrimFunc("k", (a, c), For(i, 0, 64, "parallel", seq(*ask, BufferStore(c, a[i], (i,))))))
    seen = []

    def loop(ctx: int, function: int, closure: int, n: int) -> int:
        seen.append((Context.from_address(ctx).flags, n))
        return status or int(LOOP_FN(function)(ctx, closure, 0, n))

    callback = PARALLEL_FOR_FN(loop)
    context = Context(abi_version=1, num_threads=1, parallel_for=ctypes.cast(callback, ctypes.c_void_p).value)
    x, out = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    if status:
        with pytest.raises(AssertionError):
            run(x, out, ctx=context)
    else:
        run(x, out, ctx=context)
        np.testing.assert_array_equal(out, x)
    assert seen == [(0 if asks else EITHER_WAY, 64)]
    assert context.flags == 0, "the hint is for that call"


@pytest.mark.parametrize("lanes", [2, 3, 8, 13])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_vector_reduction_of_short_floats(dtype: str, lanes: int) -> None:
    a, c = E.Buffer("a", (lanes,), dtype), E.Buffer("c", (1,), dtype)
    value = E.call("vector_reduce_max", E.BufferLoad(a, (programs.ramp(0, lanes),)), dtype=dtype)
    kind = dt.to_numpy(dtype)
    x, out = np.random.default_rng(lanes).standard_normal(lanes).astype(kind), np.zeros(1, kind)
    native.build(PrimFunc("k", (a, c), BufferStore(c, value, (0,))))(x.view(np.uint16), out.view(np.uint16))
    assert out[0] == x.max()


@pytest.mark.parametrize("lanes", [2, 3, 8, 13, 16])
@pytest.mark.parametrize("op", ["add", "max", "min"])
def test_vector_reduction(op: str, lanes: int) -> None:
    a, c = E.Buffer("a", (lanes,), "int32"), E.Buffer("c", (1,), "int32")
    value = E.call(f"vector_reduce_{op}", E.BufferLoad(a, (programs.ramp(0, lanes),)), dtype="int32")
    x, out = np.random.default_rng(0).integers(-99, 99, lanes).astype(np.int32), np.zeros(1, np.int32)
    native.build(PrimFunc("k", (a, c), BufferStore(c, value, (0,))))(x, out)
    assert out[0] == {"add": np.sum, "max": np.max, "min": np.min}[op](x)


@pytest.mark.parametrize("lanes", [4, 16])
def test_dot_products_of_neighbours(lanes: int) -> None:
    s, a, b = (
        E.Buffer(n, (k,), d) for n, k, d in (("s", lanes, "int32"), ("a", lanes * 4, "uint8"), ("b", lanes * 4, "int8"))
    )
    at, wide = programs.ramp(0, lanes), programs.ramp(0, lanes * 4)
    value = E.call("dot4", E.BufferLoad(s, (at,)), E.BufferLoad(a, (wide,)), E.BufferLoad(b, (wide,)))
    func = PrimFunc("k", (s, a, b), BufferStore(s, value, (at,)))
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, lanes * 4).astype(np.uint8), rng.integers(-128, 128, lanes * 4).astype(np.int8)
    out = np.full(lanes, 5, np.int32)
    native.build(func)(out, x, y)
    np.testing.assert_array_equal(out, 5 + (x.astype(int) * y).reshape(lanes, 4).sum(1))
    if lanes == 16:
        assert "vpdpbusd" in llvm.assembly_text(llvm.print_kernel(func, ZNVER), ZNVER)


CPUS = ["generic-x86-64-v2", "generic-x86-64-v3", "znver5", "generic-aarch64", "generic-riscv64", "generic-riscv64v"]


@pytest.mark.parametrize("name", CPUS)
def test_objects_have_no_undefined_symbols(name: str) -> None:
    tgt = target.get(name)
    a, c = E.Buffer("a", (64,)), E.Buffer("c", (64,), "float16")
    big = E.Buffer("big", (4096,), "float32", "local")
    i, j = E.Var("i"), E.Var("j")
    clear = For(j, 0, 4096, "serial", BufferStore(big, 0.0, (j,)))
    value = E.cast("float16", E.call("floor", a[i]) + E.Mod(a[i], big[i]) + E.cast("float32", E.cast("uint8", a[i])))
    body = Allocate(
        big, seq(clear, For(i, 0, 64, "parallel", seq(AssertStmt(a[i] < 9.0, "m"), BufferStore(c, value, (i,)))))
    )
    code = llvm.compile_text(llvm.print_kernel(PrimFunc("k", (a, c), body), tgt), tgt)
    assert native.undefined_symbols(code) == []
    tile = programs.gemm(24, 96, 40, 6, 32, max(1, tgt.vector_bits // 32))
    assert native.undefined_symbols(llvm.compile_text(llvm.print_kernel(tile, tgt), tgt)) == []


@pytest.mark.parametrize("name", ["generic-armv7", "wasm32", "hexagon"])
def test_other_machines_compile(name: str) -> None:
    tgt = target.get(name)
    tile = programs.gemm(24, 96, 40, 6, 32, 4)
    assert len(llvm.compile_text(llvm.print_kernel(tile, tgt), tgt)) > 100


def test_errors_say_what_to_do() -> None:
    c = E.Buffer("c", (4,))
    i = E.Var("i")
    with pytest.raises(LowerError, match="lower first"):
        llvm.print_kernel(PrimFunc("k", (c,), For(i, 0, 4, "vectorized", BufferStore(c, 0.0, (i,)))), ZNVER)
    with pytest.raises(LowerError, match="expand_math"):
        llvm.print_kernel(PrimFunc("k", (c,), BufferStore(c, E.call("exp", c[0]), (0,))), ZNVER)
    with pytest.raises(LowerError, match="neither a parameter"):
        llvm.print_kernel(PrimFunc("k", (), BufferStore(c, 0.0, (0,))), ZNVER)
    with pytest.raises(CompileError, match="kernel 'k'"):
        llvm.compile_text("define i32 @k() { ret i64 0 }", ZNVER, name="k")


def test_text_does_not_depend_on_earlier_kernels() -> None:
    def build() -> str:
        return llvm.print_kernel(programs.gemm(24, 96, 40, 6, 32, 16), ZNVER)

    first = build()
    [E.Var("noise") for _ in range(1000)]
    assert build() == first


def test_same_bits_as_the_interpreter() -> None:
    from warpbeam.tir.interp import run
    from warpbeam.tir.transform.expand_math import expand_math

    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((24, 40)).astype(np.float32), rng.standard_normal((3, 40, 32)).astype(np.float32)
    got, want = np.zeros((24, 96), np.float32), np.zeros((24, 96), np.float32)
    func = programs.gemm(24, 96, 40, 6, 32, 16)
    native.build(func)(a, b, got)
    run(func, a, b, want)
    np.testing.assert_array_equal(got, want)
    x = (rng.standard_normal(256) * 9).astype(np.float32)
    for op in ("exp", "tanh", "sin", "log", "erf", "pow"):
        count = 2 if op == "pow" else 1
        func = expand_math(
            programs.elementwise(lambda *v, o=op: E.call(o, *v), ["float32"] * count, "float32", 256, 16)
        )
        got, want = np.zeros_like(x), np.zeros_like(x)
        native.build(func)(*[x] * count, got)
        run(func, *[x] * count, want)
        np.testing.assert_array_equal(got, want, err_msg=op)


def test_float_floor_division_and_remainder() -> None:
    a = np.array([5.5, -5.5, 5.5, -5.5, 0.0, 6.0, -6.0, 1e9], np.float32)
    b = np.array([2.0, 2.0, -2.0, -2.0, 3.0, 3.0, 3.0, 7.0], np.float32)
    np.testing.assert_array_equal(run_elementwise(E.FloorMod, [a, b], "float32", 8), np.mod(a, b))
    np.testing.assert_array_equal(run_elementwise(E.FloorDiv, [a, b], "float32", 8), np.floor_divide(a, b))
