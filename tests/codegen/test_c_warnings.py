"""C text of all sorts of programs compiles without warnings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cg_gcc
import programs
import pytest

from warpbeam import target
from warpbeam.codegen import c
from warpbeam.runtime.abi import HEADER_PATH
from warpbeam.te import tensor as te
from warpbeam.tir import expr as E
from warpbeam.tir.schedule import Schedule
from warpbeam.tir.stmt import PrimFunc
from warpbeam.tir.transform import lower
from warpbeam.tir.transform.expand_math import expand_math

sys.path.insert(0, str(Path(__file__).parent.parent / "tir"))
import tir_programs

FLAGS = ["-O2", "-std=c11", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]


def compiles(funcs: list[PrimFunc], tmp_path: Path, tgt: target.Target) -> None:
    text = c.print_kernels([f.replace(name=f"k{i}") for i, f in enumerate(funcs)], tgt)
    source = tmp_path / "k.c"
    source.write_text(text)
    flags = [
        *FLAGS,
        *(["-mfma"] if tgt.fma else []),
        f"-I{HEADER_PATH.parent}",
        "-c",
        str(source),
        "-o",
        str(tmp_path / "k.o"),
    ]
    made = subprocess.run([cg_gcc.gcc(), *flags], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr[:4000]


def scheduled() -> list[PrimFunc]:
    """Tiled, vectorized, unrolled, parallel and symbolic programs."""
    found = [
        tir_programs.matmul(18, 20, 12),
        tir_programs.convolution(9, 9, 3, 5, 3, 1, 1),
        tir_programs.softmax(5, 7),
        tir_programs.pointwise(te.size_var("n"), 8),
        tir_programs.softmax(te.size_var("m"), te.size_var("n")),
    ]
    s = Schedule(tir_programs.matmul(30, 70, 20))
    i, j = s.loops("E")
    io, ii = s.split(i, [None, 7])
    jo, ji = s.split(j, [None, 16])
    s.reorder(io, jo, ii, ji)
    s.parallel(io)
    s.vectorize(ji)
    s.unroll(ii)
    return [*(lower(f) for f in found), lower(s.func)]


def elementwise() -> list[PrimFunc]:
    found = []
    for dtype in ("int8", "int32", "int64", "uint8", "uint32", "float32", "float64", "float16", "bfloat16"):
        for kind in (E.Add, E.Mul, E.Div, E.FloorDiv, E.FloorMod, E.Min, E.Max):
            if not (dtype == "bfloat16" and kind is E.FloorMod):
                found.append(programs.elementwise(kind, [dtype] * 2, dtype, 19, 4))
        for to in ("int8", "int64", "uint8", "float32", "float16", "bool"):
            found.append(programs.elementwise(lambda x, t=to: E.cast(t, x), [dtype], to, 19))
    for op in ("exp", "log", "sin", "tanh", "erf", "sigmoid"):
        found.append(expand_math(programs.elementwise(lambda x, o=op: E.call(o, x), ["float32"], "float32", 16, 8)))
    return found


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("fma", [False, True])
def test_no_warnings(tmp_path: Path, bits: int, fma: bool) -> None:
    tgt = target.get("c").replace(pointer_bits=bits, fma=fma)
    gemms = [programs.gemm(12, 32, 40, 6, 16, 8, kind) for kind in ("serial", "parallel")]
    funcs = [*gemms, *scheduled()] + (elementwise() if fma == (bits == 64) else [])
    compiles(funcs, tmp_path, tgt)
