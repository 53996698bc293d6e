"""Kernels through C and gcc: same results as LLVM and the interpreter, no undefined behaviour, 32-bit machines."""

from __future__ import annotations

import subprocess
from pathlib import Path

import cg_gcc
import cg_native
import numpy as np
import programs
import pytest

from warpbeam import target
from warpbeam.codegen import c
from warpbeam.ir.diagnostics import LowerError
from warpbeam.runtime.abi import HEADER_PATH
from warpbeam.tir import expr as E
from warpbeam.tir.interp import run as interpret
from warpbeam.tir.stmt import AssertStmt, BufferStore, For, IfThenElse, LetStmt, PrimFunc, While, seq
from warpbeam.tir.transform.expand_math import expand_math

FUSED = target.get("c").replace(fma=True)


def agree(cases: list[tuple[PrimFunc, tuple[np.ndarray, ...]]], signs: bool = False) -> None:
    """C and LLVM leave the same bits (NaNs aside) in the last array of each case."""
    funcs = [f.replace(name=f"{f.name}_{i}") for i, (f, _) in enumerate(cases)]
    for func, run, (_, arrays) in zip(funcs, cg_gcc.build_all(funcs, FUSED), cases):
        results = []
        for code in (run, cg_native.build(func)):
            copies = [a.copy() for a in arrays]
            code(*copies)
            results.append(copies[-1])
        got, want = results
        np.testing.assert_array_equal(got, want, err_msg=str(func.body))
        if signs:
            real = got == got
            np.testing.assert_array_equal(np.signbit(got[real]), np.signbit(want[real]), err_msg=str(func.body))


@pytest.mark.parametrize("kind", ["serial", "parallel"])
@pytest.mark.parametrize("bits", [32, 64])
def test_gemm_has_the_interpreters_bits(kind: str, bits: int) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((12, 40)).astype(np.float32), rng.standard_normal((2, 40, 16)).astype(np.float32)
    got, want = np.zeros((12, 32), np.float32), np.zeros((12, 32), np.float32)
    func = programs.gemm(12, 32, 40, 6, 16, 8, kind)
    cg_gcc.build(func, FUSED.replace(pointer_bits=bits))(a, b, got)
    interpret(func, a, b, want)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint8", "uint32"])
def test_integers_without_undefined_behaviour(dtype: str) -> None:
    info = np.iinfo(dtype)
    edges = [v for v in (info.min, info.min + 1, -7, -1, 0, 1, 2, 3, 8, 100, info.max - 1, info.max) if v >= info.min]
    a, b = (x.ravel().astype(dtype) for x in np.meshgrid(edges, edges))
    out = np.zeros(len(a), dtype)
    kinds = [E.Add, E.Sub, E.Mul, E.Div, E.Mod, E.FloorDiv, E.FloorMod, E.Min, E.Max]
    kinds += [lambda x, y, o=op: E.call(o, x, y) for op in ("shift_left", "shift_right", "bitwise_xor")]
    cases = [(programs.elementwise(k, [dtype] * 2, dtype, len(a)), (a, b, out)) for k in kinds]
    for op in ("abs", "popcount", "clz", "bitwise_not"):
        cases.append((programs.elementwise(lambda x, o=op: E.call(o, x), [dtype], dtype, len(a)), (a, out)))
    agree(cases)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_floats_agree_with_llvm(dtype: str) -> None:
    rng = np.random.default_rng(0)
    edge = [0.0, -0.0, 0.5, -0.5, 1.5, 2.5, -2.5, 7.99, 1e-40, np.inf, -np.inf, np.nan, 3e4, -3e4, 255.5, 0.3]
    a = np.concatenate([np.repeat(edge, 16), rng.standard_normal(256)]).astype(dtype)
    b = np.concatenate([np.tile(edge, 16), rng.standard_normal(256)]).astype(dtype)
    out = np.zeros_like(a)
    kinds = (E.Add, E.Mul, E.Div, E.Min, E.Max, E.Mod, E.FloorMod, lambda x, y: E.call("copysign", x, y))
    cases = [(programs.elementwise(k, [dtype] * 2, dtype, len(a)), (a, b, out)) for k in kinds]
    for to in ("int8", "int32", "int64", "uint8", "float32", "float64", "float16", "bfloat16", "bool"):
        raw = np.zeros(len(a), {"bfloat16": "uint16"}.get(to, to))
        cases.append((programs.elementwise(lambda x, t=to: E.cast(t, x), [dtype], to, len(a)), (a, raw)))
    agree(cases)
    unary = ("floor", "ceil", "trunc", "round", "sqrt", "abs")
    kernels = [programs.elementwise(lambda x, o=op: E.call(o, x), [dtype], dtype, len(a)) for op in unary]
    agree([(k, (a, out)) for k in kernels], signs=True)


def test_mathematics_has_the_interpreters_bits() -> None:
    x = (np.random.default_rng(0).standard_normal(64) * 9).astype(np.float32)
    cases = []
    for op in ("exp", "log", "sin", "tanh", "erf", "pow"):
        count = 2 if op == "pow" else 1
        func = expand_math(programs.elementwise(lambda *v, o=op: E.call(o, *v), ["float32"] * count, "float32", 64, 8))
        cases.append((func, (*[x] * count, np.zeros_like(x))))
    agree(cases)


def test_statements_and_vectors() -> None:
    a, o, n = E.Buffer("a", (16,), "int32"), E.Buffer("o", (16,), "int32"), E.SizeVar("n")
    i = E.Var("i")
    at = programs.ramp(0, 13)
    low, high = (E.BufferLoad(a, (programs.ramp(k, 4),)) for k in (0, 8))
    total = E.call("vector_reduce_add", E.BufferLoad(a, (at,)), dtype="int32")
    body = seq(
        For(i, 0, n, "parallel", IfThenElse(a[i] > 3, BufferStore(o, a[i] * 2, (i,)), BufferStore(o, 1, (i,)))),
        BufferStore(o, E.if_then_else(n > 99, a[n], total), (15,)),
        BufferStore(o, E.Shuffle((low, high), (7, 0, 5, 2)),
                    (programs.ramp(8, 4),)),
        While(o[0] < 50, BufferStore(o, o[0] + 7, (0,))),
        AssertStmt(n < 9, 'n is "large"?\\'),
    )  # fmt: skip
    func = PrimFunc("k", (a, o, n), body)
    x, got, want = np.arange(16, dtype=np.int32), np.zeros(16, np.int32), np.zeros(16, np.int32)
    cg_gcc.build(func)(x, got, 8)
    cg_native.build(func)(x, want, 8)
    np.testing.assert_array_equal(got, want)
    assert got[15] == sum(range(13)) and got[8:12].tolist() == [11, 0, 9, 2]
    with pytest.raises(AssertionError, match='n is "large"'):
        cg_gcc.build(func)(x, got, 9)


def test_runs_on_a_32_bit_machine_without_a_c_library(tmp_path: Path) -> None:
    """A freestanding 32-bit program: the kernel, and a start that compares its result and exits."""
    func = expand_math(programs.elementwise(lambda x: E.call("exp", E.call("sqrt", x)), ["float32"], "float32", 8, 4))
    want = np.zeros(8, np.float32)
    interpret(func, np.arange(8, dtype=np.float32), want)
    words = ", ".join(hex(w) for w in want.view(np.uint32))
    start = f"""
static wb_ctx ctx; static float in[8] = {{0, 1, 2, 3, 4, 5, 6, 7}}; static union {{ float f[8]; uint32_t u[8]; }} out;
void _start(void) {{
  static const uint32_t want[8] = {{ {words} }};
  int bad = k(&ctx, in, out.f);
  for (int i = 0; i < 8; ++i) if (out.u[i] - want[i] + 1u > 2u) bad = i + 1;
  __asm__ volatile("int $0x80" : : "a"(1), "b"(bad));
  for (;;) {{ }}
}}
"""
    source, program = tmp_path / "k.c", tmp_path / "k"
    source.write_text(c.print_kernel(func, target.get("c32")) + start)
    flags = [
        "-std=c11",
        "-m32",
        "-msse2",
        "-mfpmath=sse",
        "-O2",
        "-ffreestanding",
        "-nostdlib",
        "-static",
        "-fno-pic",
        "-no-pie",
    ]
    made = subprocess.run(
        [cg_gcc.gcc(), *flags, "-mstackrealign", f"-I{HEADER_PATH.parent}", source, "-o", program], capture_output=True
    )
    if made.returncode:
        pytest.skip(f"gcc -m32 does not link here: {made.stderr.decode()[-200:]}")
    try:
        assert subprocess.run([program], timeout=20).returncode == 0
    except OSError as error:
        pytest.skip(f"this machine does not run 32-bit programs: {error}")


def test_errors_say_what_to_do() -> None:
    o = E.Buffer("o", (4,))
    with pytest.raises(LowerError, match="expand_math"):
        c.print_kernel(PrimFunc("k", (o,), BufferStore(o, E.call("exp", o[0]), (0,))), FUSED)
    with pytest.raises(LowerError, match="neither a parameter"):
        c.print_kernel(PrimFunc("k", (), BufferStore(o, 0.0, (0,))), FUSED)


def test_variables_of_vectors() -> None:
    a, b, o = (E.Buffer(n, (12,), "float32") for n in "abo")
    v, at = E.Var("v", "float32x4"), programs.ramp(8, 4)
    store = BufferStore(o, v * E.BufferLoad(b, (at,)) + v, (at,))
    func = PrimFunc("k", (a, b, o), LetStmt(v, E.BufferLoad(a, (at,)) + E.BufferLoad(b, (at,)), store))
    x = np.arange(12, dtype=np.float32)
    agree([(func, (x, x + 1, np.zeros_like(x)))])
