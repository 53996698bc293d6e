"""What tests run through LLVM also runs through C, without warnings and with the same bits; see c_sweep.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tir"))

import cg_gcc
import numpy as np
import programs
import pytest
import schedule_native as native

from warpbeam.tir import expr as E
from warpbeam.tir.interp import run
from warpbeam.tir.stmt import BufferStore, PrimFunc

TESTS = Path(__file__).parents[1]


def swept(*paths: str) -> str:
    """The last line of a sweep over the tests in some files, which must not have failures."""
    cg_gcc.gcc()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS / "codegen"), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "c_sweep", "-p", "no:cacheprovider"]
    made = subprocess.run([*command, *(str(TESTS / p) for p in paths)], env=env, capture_output=True, text=True)
    last = next((line for line in reversed(made.stdout.splitlines()) if line.startswith("C sweep:")), "")
    failed = [line for line in made.stdout.splitlines() if line.startswith("C SWEEP FAILED")]
    assert last.endswith(" 0 failures"), "\n".join([*failed, made.stdout[-2000:], made.stderr[-2000:]])
    return last


def test_a_sample_of_the_tests_programs() -> None:
    files = ["test_schedule_golden.py", "test_tensorize.py", "test_small_types.py"]
    last = swept(*(f"tir/{f}" for f in files), "sketch/test_columns.py", "te/test_tensor_intrin.py")
    assert "'same bits':" in last and "'LLVM's own functions, refused by name'" in last.replace('"', "'")


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["tir", "te", "codegen", "sketch"])
def test_all_of_the_tests_programs(folder: str) -> None:
    files = [f"{folder}/{p.name}" for p in sorted((TESTS / folder).glob("test_*.py"))]
    assert "'same bits':" in swept(*[f for f in files if "c_sweep" not in f and "random" not in f])


@pytest.mark.parametrize("op", ["add", "mul"])
def test_lanes_are_summed_in_one_order_everywhere(op: str) -> None:
    funcs = []
    for n in (5, 7, 8, 13):
        a, o = E.Buffer("a", (n,)), E.Buffer("o", (1,))
        value = E.call(f"vector_reduce_{op}", E.BufferLoad(a, (programs.ramp(0, n),)), dtype="float32")
        funcs.append(PrimFunc("k", (a, o), BufferStore(o, value, (E.as_expr(0),))))
    for func, by_c in zip(funcs, native.by_c(funcs), strict=True):
        x = np.random.default_rng(1).standard_normal(func.buffers[0].shape[0]).astype(np.float32)
        left = []
        for call in (lambda *a, f=func: run(f, *a), native.by_llvm(func), by_c):
            y = np.zeros(1, np.float32)
            call(x, y)
            left.append(y.tobytes())
        assert left[0] == left[1] == left[2]
