"""Passes on expressions, and checks: narrow indices, short floats, names for repeats, unsafe choices, bounds."""

from __future__ import annotations

import numpy as np
import pass_check as check
import pytest
from pass_check import becomes

from warpbeam import target
from warpbeam.ir.diagnostics import LowerError
from warpbeam.ir.rewrite import post_order
from warpbeam.tir.interp import KernelAssertError, run
from warpbeam.tir.stmt import For
from warpbeam.tir.text import to_text
from warpbeam.tir.transform.common_subexpr_elim import common_subexpr_elim
from warpbeam.tir.transform.instrument_bound_checkers import instrument_bound_checkers
from warpbeam.tir.transform.legalize_floats import bf16_compute_legalize, fp8_compute_legalize
from warpbeam.tir.transform.narrow_data_type import narrow_data_type
from warpbeam.tir.transform.pipeline import lower
from warpbeam.tir.transform.remove_no_op import remove_no_op
from warpbeam.tir.transform.rewrite_unsafe_select import rewrite_unsafe_select
from warpbeam.tir.transform.simplify import simplify_program
from warpbeam.tir.transform.verify_memory import verify_memory


def test_narrow_indices():
    got = becomes(
        narrow_data_type,
        """
        def f(A: float32[64, 32], B: float32[2048]):
            for i in range(64):
                for j in range(32):
                    if i * 32 + j < 2000:
                        B[i * 32 + j] = A[i, j]
        """,
        """
        def f(A: float32[64, 32], B: float32[2048]):
            for i: int32 in range(int32(64)):
                for j: int32 in range(int32(32)):
                    if i * int32(32) + j < int32(2000):
                        B[i * int32(32) + j] = A[i, j]
        """,
    )
    assert {f.var.dtype for f in post_order(got.body) if isinstance(f, For)} == {"int32"}


def test_indices_that_may_be_large_stay_wide():
    func = check.program(
        """
        def f(A: float32[n, 8], B: float32[8], n: size):
            for j in range(8):
                B[j] = 0.0
                for i in range(n):
                    B[j] = B[j] + A[i, j]
        """
    )
    got = narrow_data_type(func)
    kinds = {f.var.name: f.var.dtype for f in post_order(got.body) if isinstance(f, For)}
    assert kinds == {"i": "int64", "j": "int32"}
    check.agree(func, got, n=5)


def test_bfloat16_is_computed_in_float32():
    got = becomes(
        bf16_compute_legalize,
        """
        def f(A: bfloat16[40], B: bfloat16[40], C: bfloat16[40]):
            for i in range(40):
                C[i] = max(A[i] * B[i] + A[i], B[i])
        """,
        """
        def f(A: bfloat16[40], B: bfloat16[40], C: bfloat16[40]):
            for i in range(40):
                C[i] = cast(bfloat16, max(cast(float32, cast(bfloat16, cast(float32, cast(bfloat16, cast(float32, A[i]) * cast(float32, B[i]))) + cast(float32, A[i]))), cast(float32, B[i])))
        """,  # noqa: E501
    )
    args = check.arrays(got, {})
    for bits in (got, lower(got)):
        mine, want = [a.copy() for a in args], [a.copy() for a in args]
        run(bits, *mine)
        a, b = want[0].astype(np.float32), want[1].astype(np.float32)
        kind = want[0].dtype
        product = (a * b).astype(kind).astype(np.float32)
        np.testing.assert_array_equal(
            mine[2], np.maximum((product + a).astype(kind).astype(np.float32), b).astype(kind)
        )


def test_float8_arithmetic_is_legalised():
    func = check.program(
        """
        def f(A: float8_e4m3fn[16], B: float8_e4m3fn[16]):
            for i in range(16):
                B[i] = A[i] + A[i]
        """
    )
    got = fp8_compute_legalize(func)
    assert "cast(float8_e4m3fn, cast(float32, A[i]) + cast(float32, A[i]))" in to_text(got)
    args = check.arrays(func, {})
    want = [a.copy() for a in args]
    run(func, *want)
    run(lower(func), *args)
    np.testing.assert_array_equal(args[1].astype(np.float32), want[1].astype(np.float32))


def test_repeated_arithmetic_gets_a_name():
    becomes(
        common_subexpr_elim,
        """
        def f(A: float32[99], B: float32[99]):
            for i in range(4):
                for j in range(8):
                    B[i * 24 + 3 + j] = A[i * 24 + 3]
        """,
        """
        def f(A: float32[99], B: float32[99]):
            for i in range(4):
                let cse_0: int64 = i * 24 + 3
                for j in range(8):
                    B[cse_0 + j] = A[cse_0]
        """,
    )


def test_no_ops_go():
    becomes(
        remove_no_op,
        """
        def f(A: float32[8], B: float32[8]):
            alloc T: float32[8]
            for i in range(8):
                T[i] = A[i]
                B[i] = B[i]
                B[i] = A[i] * 2.0
            for j in range(0):
                B[j] = 1.0
            for k in range(8):
                if k > 3:
                    B[k] = B[k]
        """,
        """
        def f(A: float32[8], B: float32[8]):
            for i in range(8):
                B[i] = A[i] * 2.0
        """,
    )


def test_loops_that_never_run_go():
    becomes(
        simplify_program,
        """
        def f(A: float32[8, 16]):
            for i in range(2):
                for j in range(2 - max(1 - i * 2, 0)):
                    A[i, j] = 1.0
                    for k in range(6 - i * 16 - j * 8 - max(1 - i * 2, 0) * 8):
                        A[i, k] = 2.0
                for j in range((1 - i) % 3 - 2):
                    A[i, j] = 3.0
        """,
        """
        def f(A: float32[8, 16]):
            for i in range(2):
                for j in range(2 - max(1 - i * 2, 0)):
                    A[i, j] = 1.0
        """,
    )


def test_unsafe_choices_become_lazy():
    becomes(
        rewrite_unsafe_select,
        """
        def f(A: float32[8], B: float32[8]):
            for i in range(8):
                B[i] = select(i > 0, A[max(i - 1, 0)], 0.0)
        """,
        """
        def f(A: float32[8], B: float32[8]):
            for i in range(8):
                B[i] = select(i > 0, A[max(i - 1, 0)], 0.0)
        """,
    )
    unsafe = check.program(
        """
        def f(A: float32[8], B: float32[8]):
            for i in range(8):
                B[i] = select(i > 0, A[i - 1], 0.0)
        """
    )
    got = rewrite_unsafe_select(unsafe)
    assert "if_then_else(i > 0, A[i - 1], 0.0)" in to_text(got)
    check.agree(got, lower(unsafe))  # lowering does the same


def test_bounds_are_checked_while_running():
    text = """
        def f(A: float32[8], I: int64[4], B: float32[4]):
            for i in range(4):
                B[i] = if_then_else(I[i] > 0, A[I[i]], 0.0)
        """
    func = check.program(text)
    got = instrument_bound_checkers(func)
    check.agree(func, got)
    checked = lower(func, target.get("native"), {"tir.instrument_bound_checkers": True})
    a, b = np.zeros(8, np.float32), np.zeros(4, np.float32)
    bad = np.array([0, 3, 11, 2], np.int64)
    with pytest.raises(KernelAssertError, match=r"A\[I\[i\]\]: index 0 is outside of \[0, 8\)"):
        run(checked, a, bad, b)
    with pytest.raises(AssertionError, match=r"A\[I\[i\]\]: index 0 is outside of \[0, 8\)"):
        check.native(checked)(a, bad, b)
    check.native(checked)(a, np.array([-5, 3, 7, 2], np.int64), b)


def test_memory_of_a_device_is_touched_by_threads_only():
    bound = """
        def f(A: float32[8], B: float32[8]):
            for i in thread_binding("threadIdx.x", 8):
                B[i] = A[i]
        """
    verify_memory(check.program(bound))
    with pytest.raises(LowerError, match="Memory verification failed: A, B in f") as err:
        verify_memory(check.program(bound.replace('thread_binding("threadIdx.x", 8)', "range(8)")))
    assert "Did you forget to bind" in str(err.value)
