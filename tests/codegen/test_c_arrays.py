"""Arrays in printed functions: aligned where gcc needs to be told, with a value before the first look at them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import cg_gcc
import pytest

from warpbeam import target
from warpbeam.codegen import c
from warpbeam.codegen.analysis import first_access
from warpbeam.codegen.c.prelude import prelude
from warpbeam.runtime.abi import HEADER_PATH
from warpbeam.tir.stmt import Allocate, PrimFunc
from warpbeam.tir.text import parse

FLAGS = ["-O2", "-std=c11", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror", f"-I{HEADER_PATH.parent}"]
SPREAD = f"""def k(X: float32[3, 6], W: float32[3, 4, 3], E: float32[4, 13], D: float32[3, 15], Y: float32[4, 16]):
    for c in range(3):
        alloc P: float32[15] @local
        for i in range(8):
            for j in range(min(15 - i * 2, 2)):
                P[i * 2 + j] = if_then_else(j == 0 and (i >= 1 and i * 2 + j < 13), X[c, i - 1], 0.0)
        for i in range(15):
            D[c, i] = P[i]
    for o in range(4):
{"".join(f"        Y[o, {k}] = 0.0{chr(10)}" for k in range(13))}    for o in range(4):
        for i in range(13):
            alloc R: float32[1] @register
            R[0] = Y[o, i]
            for r in range(9):
                R[0] = fma(D[r // 3, i + r % 3], W[r // 3, o, 2 - r % 3], R[0])
            Y[o, i] = R[0]
    for o in range(4):
        for i in range(13):
            E[o, i] = Y[o, i] + 1.0
"""
MAIN = """
#include <stdio.h>
int main(void) {
  static wb_ctx ctx;
  static float x[18], w[36], e[52], d[45], y[64];
  for (int i = 0; i < 18; ++i) x[i] = 1;
  for (int i = 0; i < 36; ++i) w[i] = 1;
  const int status = k(&ctx, x, w, e, d, y);
  printf("%d %g", status, (double)e[5]);
  return status;
}
"""


def compiled(func: PrimFunc, folder: Path, *more: str, end: str = "") -> subprocess.CompletedProcess[str]:
    source = folder / "k.c"
    source.write_text(c.print_kernel(func, target.get("c").replace(fma=True)) + end)
    return subprocess.run([cg_gcc.gcc(), *FLAGS, *more, str(source)], capture_output=True, text=True)


def test_copies_of_arrays_by_vectors_are_aligned(tmp_path: Path) -> None:
    """gcc 12.2 puts P at a multiple of 8 and copies it by instructions that need 16, unless it is asked for more."""
    made = compiled(parse(SPREAD), tmp_path, "-mfma", "-o", str(tmp_path / "k"), end=MAIN)
    assert made.returncode == 0, made.stderr
    ran = subprocess.run([tmp_path / "k"], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "0 4")


PARTLY = """def k(A: float32[64], n: int64):
    for i in range(8):
        alloc T: float32[] @register
        for j in range(min(n - i, 1)):
            T[] = A[i]
        if i + 1 <= n:
            A[i + 8] = T[]
"""
UNSET = """def k(A: float32[64], n: int64):
    alloc T: float32[9] @local
    for i in range(n):
        for j in range(9):
            A[j] = T[j] + 1.0
"""


@pytest.mark.parametrize("text", [PARTLY, UNSET], ids=["partly", "unset"])
def test_compilers_do_not_ask_whether_an_array_has_a_value(tmp_path: Path, text: str) -> None:
    made = compiled(parse(text), tmp_path, "-c", "-o", str(tmp_path / "k.o"))
    assert made.returncode == 0, made.stderr
    assert "= {0};" in (tmp_path / "k.c").read_text()


FIRST = {
    "T[] = 0.0": "store",
    "A[0] = T[]": "other",
    "T[] = T[] + 1.0": "other",
    "A[0] = 1.0": None,
    "for i in range(4):\n            T[] = A[i]": "store",
    "for i in range(n):\n            T[] = A[i]": "other",
    "if n > 3:\n            T[] = 0.0": "other",
    "A[0] = 1.0\n        T[] = 0.0\n        A[1] = T[]": "store",
    "let v: float32 = T[]\n        T[] = v": "other",
}


@pytest.mark.parametrize("text", list(FIRST))
def test_what_a_statement_does_first_with_memory(text: str) -> None:
    head = "def k(A: float32[8], n: int64):\n    for x in range(2):\n        alloc T: float32[] @register\n        "
    allocation = parse(f"{head}{text}\n").body.body
    assert isinstance(allocation, Allocate)
    assert first_access(allocation.body, allocation.buffer) == FIRST[text]


def test_no_warning_is_switched_off() -> None:
    assert "diagnostic" not in prelude(target.get("c"))
