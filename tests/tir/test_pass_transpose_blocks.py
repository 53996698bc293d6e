"""Blocks read column by column become rows and shuffles - loops before and after, and what stays as it is."""

from __future__ import annotations

import numpy as np
import pytest
from pass_check import program

from warpbeam import target
from warpbeam.codegen import c, llvm
from warpbeam.te import tensor as te
from warpbeam.te.create import create_prim_func
from warpbeam.tir.interp import run
from warpbeam.tir.schedule import Schedule
from warpbeam.tir.text import to_text
from warpbeam.tir.transform.expand_loops import expand_loops
from warpbeam.tir.transform.pipeline import lower
from warpbeam.tir.transform.transpose_blocks import transpose_blocks

LOOP = """
def f(A: float32[4, 9], B: float32[9, 4], D: float32[9, 4]):
    for r in range({extent}):
        for i in vectorized(4):
            {body}
"""


def changed(body: str, extent: str = "4"):
    func = expand_loops(program(LOOP.format(body=body, extent=extent)))
    return func, transpose_blocks(func)


@pytest.mark.parametrize(
    "body",
    [
        "B[r, i] = A[i, r]",
        "B[r + 3, i] = A[i, r + 5] * 2.0 + D[r, i]",
        "B[r, i] = A[i, r] * A[i, r + 2]",
    ],
)
def test_columns_of_a_block_are_exchanged_in_registers(body):
    before, after = changed(body)
    text = to_text(after)
    assert "for r" not in text and text.count("ramp(") >= 8
    rng = np.random.default_rng(0)
    a, d = rng.standard_normal((4, 9)).astype(np.float32), rng.standard_normal((9, 4)).astype(np.float32)
    want, got = np.zeros((9, 4), np.float32), np.zeros((9, 4), np.float32)
    run(before, a, want, d)
    run(after, a, got, d)
    np.testing.assert_array_equal(got, want)
    assert want.any()


@pytest.mark.parametrize(
    ("body", "extent"),
    [
        ("B[r, i] = A[i, r]", "3"),  # not a square
        ("B[r, i] = A[i, r * 2]", "4"),  # every other column
        ("B[r, i] = D[r + i, r]", "4"),  # a diagonal
        ("B[r, i] = D[r, i]", "4"),  # no columns at all
        ("B[r, i] = B[i, r]", "4"),  # what is stored may be read again
        ("B[r, i] = if_then_else(r < 2, A[i, r + 7], D[r, i])", "4"),  # column 9 and on do not exist
        ("B[r, i] = " + " * ".join(f"A[i, r + {k % 6}] * A[i, {k % 6} + r]" for k in range(9)), "4"),  # too many
    ],
)
def test_other_loops_stay(body, extent):
    before, after = changed(body, extent)
    assert after is before


def test_a_block_at_the_end_is_exchanged_where_it_is_whole():
    x = te.placeholder((16, 40), name="x")
    y = te.compute((40, 16), lambda i, j: x[j, i], name="y")
    f = create_prim_func([x], [y], "turn")
    s = Schedule(f)
    i, j = s.loops("y")
    s.split(i, [None, 16])
    s.vectorize(j)
    native = target.get("generic-x86-64-v4")
    lowered = lower(s.func, native)
    text = to_text(lowered)
    assert text.count("shuffle(") == 64 + 1  # four rounds for whole blocks; columns one by one for the rest
    a, got = np.arange(640, dtype=np.float32).reshape(16, 40), np.zeros((40, 16), np.float32)
    run(lowered, a, got)
    np.testing.assert_array_equal(got, a.T)
    assert llvm.print_kernel(lowered, native).count("shufflevector") >= 64
    assert "turn" in c.print_kernel(lowered, native)
