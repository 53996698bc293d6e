"""What the interpreter, LLVM and C agree on to the last bit: fused sums, functions of LLVM by name, small types."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tir"))

import c_sweep
import cg_gcc
import numpy as np
import pytest
import schedule_native as native

from warpbeam import target
from warpbeam.codegen import c, llvm
from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import LowerError
from warpbeam.tir import expr as E
from warpbeam.tir.fused import fma
from warpbeam.tir.interp import run
from warpbeam.tir.stmt import BufferStore, For, PrimFunc

FLOATS = ("float16", "bfloat16", "float32", "float64")
N = 6000


def kernel(op: str, dtypes: list[str], lanes: int = 1, **attrs: Any) -> PrimFunc:
    """out[i] = op(operands[i]) for vectors of lanes; the last dtype is the result's. dtypes are of whole vectors."""
    buffers = [E.Buffer(f"b{k}", (4 * dt.lanes(t),), dt.scalar(t)) for k, t in enumerate(dtypes)]
    i = E.Var("i", "int64")

    def at(t: str) -> E.PrimExpr:
        n = dt.lanes(t)
        return E.Ramp(i * n, E.as_expr(1), n) if n > 1 else i

    loads = [E.BufferLoad(b, (at(t),)) for b, t in zip(buffers[:-1], dtypes, strict=False)]
    store = BufferStore(buffers[-1], E.call(op, *loads, dtype=dtypes[-1], **attrs), (at(dtypes[-1]),))
    return PrimFunc("k", buffers, For(i, E.as_expr(0), E.as_expr(4), "serial", store))


def outcomes(func: PrimFunc, by_c: native.Call, *roads: native.Call) -> list[bytes]:
    """The bits that the interpreter, C and other roads leave on the same random operands."""
    rng = np.random.default_rng(3)
    left = []
    *ins, out = func.buffers
    args = []
    for b in ins:
        kind, n = dt.to_numpy(b.dtype), int(b.shape[0])
        whole = rng.integers(0, 256, n * dt.nbytes(b.dtype)).astype(np.uint8).view(kind)
        args.append(rng.standard_normal(n).astype(kind) if dt.is_float(b.dtype) else whole)
    for road in (lambda *a: run(func, *a), by_c, *roads):
        y = np.zeros(int(out.shape[0]), dt.to_numpy(out.dtype))
        road(*args, y)
        left.append(c_sweep.bits(y, out.dtype).tobytes())
    return left


# ----------------------------------------------------------------------------------------------------------- fused sums


def hard_operands(dtype: str) -> list[np.ndarray]:
    """Any bits, numbers with few digits of many sizes (halfway cases), and sums of numbers of very different sizes."""
    rng, kind, bits = np.random.default_rng(5), dt.to_numpy(dtype), dt.bits(dtype)
    raw = [rng.integers(0, 1 << bits, N, dtype=np.uint64).astype(f"u{bits // 8}").view(kind) for _ in range(3)]
    few = [np.ldexp(rng.integers(-64, 64, N).astype(float), rng.integers(-15, 9, N)) for _ in range(3)]
    digits = {"float16": 10, "bfloat16": 7, "float32": 23, "float64": 52}[dtype]
    near = [1 + np.ldexp(rng.integers(0, 4, N).astype(float), -rng.integers(digits // 2, digits + 1, N)) for _ in "ab"]
    near.append(np.ldexp(rng.standard_normal(N), -rng.integers(0, 4 * digits, N)))
    pick = np.arange(N) % 3
    with np.errstate(all="ignore"):
        return [
            np.where(pick == 0, r, np.where(pick == 1, f.astype(kind), n.astype(kind))).astype(kind)
            for r, f, n in zip(raw, few, near, strict=True)
        ]


def test_a_fused_sum_has_the_same_bits_everywhere() -> None:
    cg_gcc.gcc()
    i = E.Var("i", "int64")
    funcs = []
    for dtype in FLOATS:
        *ins, out = (E.Buffer(name, (N,), dtype) for name in "abco")
        value = E.call("fma", *(E.BufferLoad(b, (i,)) for b in ins), dtype=dtype)
        body = For(i, E.as_expr(0), E.as_expr(N), "serial", BufferStore(out, value, (i,)))
        funcs.append(PrimFunc("k", (*ins, out), body))
    for dtype, func, by_c in zip(FLOATS, funcs, native.by_c(funcs), strict=True):
        args, left = hard_operands(dtype), []
        for road in (lambda *a, f=func: run(f, *a), native.by_llvm(func), by_c):
            y = np.zeros(N, dt.to_numpy(dtype))
            road(*args, y)
            left.append(c_sweep.bits(y, dtype))
        np.testing.assert_array_equal(left[0], left[2], dtype)
        np.testing.assert_array_equal(left[1], left[2], dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_fused_sum_is_the_nearest_number(dtype: str) -> None:
    a, b, c = hard_operands(dtype)
    finite = np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
    a, b, c = (x[finite] for x in (a, b, c))
    got = fma([a, b, c], dtype)
    twice = 0
    for x, y, z, out in zip(a, b, c, got, strict=True):
        total = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        if not np.isfinite(out):
            assert abs(total) >= np.finfo(dtype).max
            continue
        kind = dt.to_numpy(dtype).type
        others = [np.nextafter(out, kind(w)) for w in (-np.inf, np.inf)]
        error = abs(Fraction(float(out)) - total)
        assert all(error <= abs(Fraction(float(o)) - total) for o in others if np.isfinite(o))
        twice += float(kind(float(x) * float(y) + float(z))) != float(out)
    assert twice > 0  # rounding twice would be seen


# -------------------------------------------------------------------------------------------- functions of LLVM by name

NAMED = [
    ("llvm.x86.avx512.vpdpbusd.512", ["int32x16", "uint8x64", "int8x64", "int32x16"]),
    ("llvm.x86.avx512.vpdpbusd.128", ["int32x4", "int32x4", "int32x4", "int32x4"]),
    ("llvm.aarch64.neon.sdot.v4i32.v16i8", ["int32x4", "int8x16", "int8x16", "int32x4"]),
    ("llvm.aarch64.neon.udot.v2i32.v8i8", ["int32x2", "uint8x8", "uint8x8", "int32x2"]),
    ("llvm.hexagon.V6.vrmpybusv.acc.128B", ["int32x32", "int32x32", "int32x32", "int32x32"]),
    ("llvm.arm.neon.vpadals.v4i32.v8i16", ["int32x4", "int16x8", "int32x4"]),
    ("llvm.x86.avx512bf16.dpbf16ps.128", ["float32x4", "bfloat16x8", "bfloat16x8", "float32x4"]),
    ("llvm.fma.v8f32", ["float32x8"] * 4),
    ("llvm.sqrt.f64", ["float64"] * 2),
    ("llvm.fabs.f32", ["float32"] * 2),
    ("llvm.copysign.v4f64", ["float64x4"] * 3),
    ("llvm.floor.v4f32", ["float32x4"] * 2),
    ("llvm.ceil.f64", ["float64"] * 2),
    ("llvm.trunc.f32", ["float32"] * 2),
    ("llvm.rint.v2f64", ["float64x2"] * 2),
    ("llvm.roundeven.f32", ["float32"] * 2),
    ("llvm.ctpop.v4i32", ["int32x4"] * 2),
]
PORTABLE = ("llvm.fma", "llvm.sqrt", "llvm.fabs", "llvm.copysign", "llvm.floor", "llvm.ceil", "llvm.trunc", "llvm.r",
            "llvm.ctpop")  # fmt: skip


def test_functions_of_llvm_are_the_same_in_c() -> None:
    cg_gcc.gcc()
    funcs = [
        kernel(op, dtypes, name=name)
        for op in ("call_llvm_pure_intrin", "call_llvm_intrin") for name, dtypes in NAMED
    ]  # fmt: skip
    for func, (name, _), by_c in zip(funcs, NAMED * 2, native.by_c(funcs), strict=True):
        others = [native.by_llvm(func)] if name.startswith(PORTABLE) else []
        left = outcomes(func, by_c, *others)
        assert len(set(left)) == 1, name
        assert any(left[0]), name


@pytest.mark.parametrize(
    ("name", "dtypes"),
    [
        ("llvm.x86.avx512.conflict.d.512", ["int32x16", "int32x16"]),
        ("llvm.round.f32", ["float32"] * 2),  # halves away from zero: TIR has no such function
        ("llvm.x86.avx512.vpdpbusd.256", ["int32x16", "uint8x64", "int8x64", "int32x16"]),
        ("llvm.fma.v4f32", ["float32x8"] * 4),
        ("llvm.fma.f64", ["float32"] * 4),
        ("llvm.fma.f32", ["float32"] * 3),
    ],
)
def test_others_are_refused_by_name(name: str, dtypes: list[str]) -> None:
    with pytest.raises(LowerError, match=f"LLVM's function {name} on {dtypes[-1]} cannot be printed in C") as refused:
        c.print_kernel(kernel("call_llvm_pure_intrin", dtypes, name=name), target.get("c"))
    assert "what to do: build it for a target of LLVM" in str(refused.value)
    assert c_sweep.refusal(kernel("call_llvm_intrin", dtypes, name=name), refused.value) is not None
    assert c_sweep.refusal(kernel("call_llvm_intrin", dtypes, name=name), LowerError("something else")) is None


# ---------------------------------------------------------------------------------------------------------- small types


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "float4_e2m1fn", "int4"])
def test_small_types_are_bytes_before_they_are_printed(dtype: str) -> None:
    a, b = E.Buffer("a", (256,), dtype), E.Buffer("b", (256,), dtype)
    i = E.Var("i", "int64")
    value = E.BufferLoad(a, (i,)) + E.BufferLoad(a, (E.as_expr(255) - i,))
    func = PrimFunc("k", (a, b), For(i, E.as_expr(0), E.as_expr(256), "serial", BufferStore(b, value, (i,))))
    for printer, name in ((c, "c"), (llvm, "native")):
        with pytest.raises(LowerError, match=rf"dtype {dtype} is left .*\n.*\n.*\n.*ByteSmallTypes"):
            printer.print_kernel(func, target.get(name))
    cg_gcc.gcc()
    x = (np.arange(256) % (1 << dt.bits(dtype))).astype(np.uint8).view(dt.to_numpy(dtype))
    failures: list[str] = []
    tried = c_sweep.case(func, [x, np.zeros_like(x)])
    (by_c,) = native.by_c([tried.printed])
    assert (c_sweep.one(tried, by_c, failures), failures) == ("same bits", [])
