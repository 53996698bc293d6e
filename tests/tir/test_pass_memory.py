"""Passes on memory: pipelines, double and rolling buffers, prefetch, shared storage - loops before and after."""

from __future__ import annotations

import numpy as np
import pass_check as check
import pytest
from pass_check import becomes

from warpbeam.ir.diagnostics import LowerError
from warpbeam.te import tensor as te
from warpbeam.te.create import create_prim_func
from warpbeam.tir.interp import run
from warpbeam.tir.schedule import Schedule
from warpbeam.tir.text import to_text
from warpbeam.tir.transform.compact_buffers import compact_buffers
from warpbeam.tir.transform.inject_double_buffer import inject_double_buffer
from warpbeam.tir.transform.inject_rolling_buffer import inject_rolling_buffer
from warpbeam.tir.transform.pipeline import lower
from warpbeam.tir.transform.setting import Setting
from warpbeam.tir.transform.storage_rewrite import storage_rewrite

LOAD_USE = """
    def f(A: float32[4, 8], B: float32[4, 8]):
        for k in range(4):
            alloc T: float32[8] @local {"double_buffer": True}
            for i in range(8):
                T[i] = A[k, i]
            for i_1 in range(8):
                B[k, i_1] = T[i_1] * 2.0
    """


def test_double_buffer():
    becomes(
        inject_double_buffer,
        LOAD_USE,
        """
        def f(A: float32[4, 8], B: float32[4, 8]):
            alloc T: float32[2, 8] @local {"double_buffer": True}
            for i in range(8):
                T[0, i] = A[0, i]
            for k in range(3):
                for i in range(8):
                    T[(k + 1) % 2, i] = A[k + 1, i]
                for i_1 in range(8):
                    B[k, i_1] = T[k % 2, i_1] * 2.0
            for i_1 in range(8):
                B[3, i_1] = T[1, i_1] * 2.0
        """,
    )


@pytest.mark.parametrize("split", [2, 3])
def test_double_buffer_with_constant_halves(split):
    at = Setting(config={"tir.InjectDoubleBuffer": {"split_loop": split}})
    func = check.program(LOAD_USE.replace("range(4)", "range(8)").replace("[4, 8]", "[8, 8]"))
    got = inject_double_buffer(func, at)
    assert ("% 2" in to_text(got)) == (split == 3)
    check.agree(func, got)


def test_double_buffer_without_effect_where_the_filling_needs_the_loop():
    text = LOAD_USE.replace("T[i] = A[k, i]", "T[i] = B[0, i]")
    becomes(inject_double_buffer, text, text, 2)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_double_buffer_of_symbolic_loops(size):
    func = check.program(
        """
        def f(A: float32[n, 8], B: float32[n, 8], n: size):
            for k in range(n):
                alloc T: float32[8] @local {"double_buffer": True}
                for i in range(8):
                    T[i] = A[k, i]
                for i_1 in range(8):
                    B[k, i_1] = T[i_1] * 2.0
        """
    )
    check.agree(func, inject_double_buffer(func), n=size)


def test_rolling_buffer():
    becomes(
        inject_rolling_buffer,
        """
        def f(A: float32[10], B: float32[8]):
            for y in range(8):
                alloc T: float32[10] {"rolling_buffer": True}
                for r in range(3):
                    T[y + r] = A[y + r] * 2.0
                B[y] = T[y] + T[y + 1] + T[y + 2]
        """,
        """
        def f(A: float32[10], B: float32[8]):
            alloc T: float32[3]
            for y in range(8):
                for r in range(3):
                    if y <= 0 or y + r >= y + 2:
                        T[(y + r) % 3] = A[y + r] * 2.0
                B[y] = T[y % 3] + T[(y + 1) % 3] + T[(y + 2) % 3]
        """,
    )


def blur(rows: int, columns: int) -> tuple[object, Schedule]:
    a = te.placeholder((rows + 2, columns), name="A")
    t = te.compute((rows + 2, columns), lambda i, j: a[i, j] * a[i, j], name="T")
    b = te.compute((rows, columns), lambda i, j: t[i, j] + t[i + 1, j] + t[i + 2, j], name="B")
    f = create_prim_func([a], [b])
    return f, Schedule(f)


def test_rolling_buffer_is_read_by_what_names_a_value_or_tests_one():
    """Rows are found in the ring also where a let or a condition reads them."""
    becomes(
        inject_rolling_buffer,
        """
        def f(A: float32[10], B: float32[8]):
            for y in range(8):
                alloc T: float32[10] {"rolling_buffer": True}
                for r in range(3):
                    T[y + r] = A[y + r] * 2.0
                let last: float32 = T[y + 2]
                if T[y] > last:
                    B[y] = T[y + 1]
                else:
                    B[y] = last
        """,
        """
        def f(A: float32[10], B: float32[8]):
            alloc T: float32[3]
            for y in range(8):
                for r in range(3):
                    if y <= 0 or y + r >= y + 2:
                        T[(y + r) % 3] = A[y + r] * 2.0
                let last: float32 = T[(y + 2) % 3]
                if T[y % 3] > last:
                    B[y] = T[(y + 1) % 3]
                else:
                    B[y] = last
        """,
    )


def test_rolling_buffer_does_without_the_ring_where_a_value_is_read_from_beyond_it():
    """A row that only a let reads counts too: the iteration did not write it, so nothing is known of it."""
    text = """
        def f(A: float32[10], B: float32[8]):
            for y in range(8):
                alloc T: float32[11] {"rolling_buffer": True}
                for r in range(3):
                    T[y + r] = A[y + r] * 2.0
                let far: float32 = T[y + 3]
                B[y] = select(y >= 8, far, T[y] + T[y + 2])
        """
    func = check.program(text)
    assert inject_rolling_buffer(func) is func


def test_rolling_buffer_of_a_schedule_computes_each_row_once():
    f, s = blur(12, 7)
    s.compute_at("T", s.loops("B")[0])
    s.rolling_buffer("T")
    lowered = lower(s.func)
    assert "float32[3, 7]" in to_text(lowered)
    check.agree(f, s.func)


def test_double_buffer_of_a_schedule():
    f, s = blur(8, 16)
    s.compute_at("T", s.loops("B")[0])
    s.double_buffer("T")
    assert "float32[2, 3, 16]" in to_text(lower(s.func))
    check.agree(f, s.func)


def test_storage_is_shared_and_reused_in_place():
    becomes(
        storage_rewrite,
        """
        def f(x: float32[4096], y: float32[4096]):
            alloc a: float32[4096]
            alloc b: float32[4096]
            for i in range(4096):
                a[i] = x[i] + 1.0
            for i_1 in range(4096):
                b[i_1] = a[i_1] * 2.0
            for i_2 in range(4096):
                y[i_2] = b[4095 - i_2]
        """,
        """
        def f(x: float32[4096], y: float32[4096]):
            alloc a: float32[4096]
            for i in range(4096):
                a[i] = x[i] + 1.0
            for i_1 in range(4096):
                a[i_1] = a[i_1] * 2.0
            for i_2 in range(4096):
                y[i_2] = a[4095 - i_2]
        """,
    )


def test_storage_stays_apart_where_lives_overlap():
    text = """
        def f(x: float32[4096], y: float32[4096]):
            alloc a: float32[4096]
            alloc b: float32[4096]
            for i in range(4096):
                a[i] = x[i] + 1.0
            for i_1 in range(4096):
                b[i_1] = a[4095 - i_1] * 2.0
            for i_2 in range(4096):
                y[i_2] = b[i_2]
        """
    becomes(storage_rewrite, text, text)


def test_storage_of_different_shapes_is_flat():
    got = becomes(
        storage_rewrite,
        """
        def f(x: float32[64, 64], y: float32[64, 64]):
            alloc a: float32[64, 64]
            alloc b: float32[4096]
            alloc c: float32[32, 32]
            for i, j in grid(64, 64):
                a[i, j] = x[i, j] + 1.0
            for i_1 in range(4096):
                b[i_1] = a[i_1 // 64, 63 - i_1 % 64]
            for i_2, j_2 in grid(32, 32):
                c[i_2, j_2] = b[i_2 * 128 + j_2]
            for i_3, j_3 in grid(64, 64):
                y[i_3, j_3] = c[i_3 // 2, j_3 // 2] + b[i_3]
        """.replace("for i, j in grid(64, 64):", "for i in range(64):\n              for j in range(64):")
        .replace("for i_2, j_2 in grid(32, 32):", "for i_2 in range(32):\n              for j_2 in range(32):")
        .replace("for i_3, j_3 in grid(64, 64):", "for i_3 in range(64):\n              for j_3 in range(64):"),
        """
        def f(x: float32[64, 64], y: float32[64, 64]):
            alloc a: float32[4096]
            alloc b: float32[4096]
            for i in range(64):
              for j in range(64):
                a[i * 64 + j] = x[i, j] + 1.0
            for i_1 in range(4096):
                b[i_1] = a[i_1 // 64 * 64 + (63 - i_1 % 64)]
            for i_2 in range(32):
              for j_2 in range(32):
                a[i_2 * 32 + j_2] = b[i_2 * 128 + j_2]
            for i_3 in range(64):
              for j_3 in range(64):
                y[i_3, j_3] = a[i_3 // 2 * 32 + j_3 // 2] + b[i_3]
        """,
    )
    assert lower(got).attrs["workspace"] == 2


def test_workspaces_of_a_chain_are_two_at_most():
    x = te.placeholder((3000,), name="x")
    t = x
    for _ in range(6):
        t = te.compute((3000,), lambda i, t=t: t[2999 - i] + 1.0, name="t")
    f = create_prim_func([x], [t])
    lowered = lower(f)
    assert lowered.attrs["workspace"] == 2
    assert lower(f, config={"tir.disable_storage_rewrite": True}).attrs["workspace"] == 5
    a, out = np.arange(3000, dtype=np.float32), np.zeros(3000, np.float32)
    run(lowered, a, out)
    np.testing.assert_array_equal(out, a + 6)


def test_rolling_buffer_of_a_window_that_is_a_reduction():
    x = te.placeholder((8, 6), name="x")
    p = te.compute((8, 6), lambda i, j: x[i, j] * 2.0, name="p")
    r = te.reduce_axis(3, "r")
    y = te.compute((6, 6), lambda i, j: te.max(p[i + r, j], axis=r), name="y")
    f = create_prim_func([x], [y])
    s = Schedule(f)
    s.compute_at("p", s.loops("y")[0])
    s.rolling_buffer("p")
    assert "% 3" in to_text(lower(s.func))
    check.agree(f, s.func)


def test_rows_that_conditions_leave_out_are_not_taken_from_the_iteration_before():
    x = te.placeholder((9, 6), name="x")
    y = te.compute((9, 6), lambda i, j: x[i, j] * 2.0, name="y")
    f = create_prim_func([x], [y])
    s = Schedule(f)
    copy = s.cache_read("y", "x", "local")
    s.compute_at(copy, s.loops("y")[1])
    s.split(s.loops(copy)[-1], [3, None], guard=True)
    s.rolling_buffer(copy)
    check.agree(f, s.func)


def test_a_pipeline_around_loops_that_become_several_statements():
    f, s = blur(8, 16)
    s.compute_at("T", s.loops("B")[0])
    i = s.loops("B")[0]
    copy = s.cache_read("T", "A", "local")
    s.compute_at(copy, s.loops("T")[-2])
    s.double_buffer(copy)
    s.pipeline(s.loops("T")[-2], (0, 1))
    s.pipeline(i, (0, 1))
    check.agree(f, s.func)


def test_iterations_at_once_that_need_the_same_rows_have_parts_of_their_own():
    """How many rows there are is not known, so they cannot be on the stack, and two iterations make each column."""
    becomes(
        compact_buffers,
        """
        def f(A: float32[n, 9], B: float32[n, 8], n: size):
            for j in parallel(8):
                alloc T: float32[n, 9]
                for i in range(n):
                    for c in range(2):
                        T[i, j + c] = A[i, j + c] * 2.0
                for i_1 in range(n):
                    B[i_1, j] = T[i_1, j] + T[i_1, j + 1]
        """,
        """
        def f(A: float32[n, 9], B: float32[n, 8], n: size):
            alloc T: float32[8, n, 2]
            for j in parallel(8):
                for i in range(n):
                    for c in range(2):
                        T[j, i, c] = A[i, j + c] * 2.0
                for i_1 in range(n):
                    B[i_1, j] = T[j, i_1, 0] + T[j, i_1, 1]
        """,
        n=5,
    )


def test_iterations_at_once_whose_rows_end_with_the_smaller_of_two_sizes_share_a_buffer():
    """Neither limit of the inner loop is a constant; by the second alone iterations touch rows of their own."""
    becomes(
        compact_buffers,
        """
        def f(A: float32[n], B: float32[n], n: size):
            for o in parallel(2):
                alloc T: float32[n]
                for i in range(min(n - o * ((n + 1) // 2), (n + 1) // 2)):
                    T[o * ((n + 1) // 2) + i] = A[o * ((n + 1) // 2) + i] * 2.0
                for i_1 in range(min(n - o * ((n + 1) // 2), (n + 1) // 2)):
                    B[o * ((n + 1) // 2) + i_1] = T[o * ((n + 1) // 2) + i_1]
        """,
        """
        def f(A: float32[n], B: float32[n], n: size):
            alloc T: float32[n]
            for o in parallel(2):
                for i in range(min(n - o * ((n + 1) // 2), (n + 1) // 2)):
                    T[o * ((n + 1) // 2) + i] = A[o * ((n + 1) // 2) + i] * 2.0
                for i_1 in range(min(n - o * ((n + 1) // 2), (n + 1) // 2)):
                    B[o * ((n + 1) // 2) + i_1] = T[o * ((n + 1) // 2) + i_1]
        """,
        n=7,
    )


@pytest.mark.parametrize(("loop", "rows"), [("parallel(8)", 1 << 21), ('thread_binding("blockIdx.x", 8)', 1 << 17)])
def test_parts_of_the_workspace_that_would_be_too_much(loop, rows):
    func = check.program(
        f"""
        def f(A: float32[{rows}, 9], B: float32[{rows}, 8]):
            for j in {loop}:
                alloc T: float32[{rows}, 9]
                for i in range({rows}):
                    for c in range(2):
                        T[i, j + c] = A[i, j + c] * 2.0
                for i_1 in range({rows}):
                    B[i_1, j] = T[i_1, j] + T[i_1, j + 1]
        """
    )
    with pytest.raises(LowerError, match="too large for the stack of one iteration of j, and iterations overlap"):
        compact_buffers(func)


def test_buffers_that_do_not_fit_a_stack_together():
    """Each of two is less than the limit of 256 KiB: one stays, the other gets a part of the workspace."""
    func = check.program(
        """
        def f(A: float32[2, 40000], B: float32[2, 40000]):
            for o in parallel(2):
                alloc T: float32[40000]
                alloc U: float32[40000]
                for i in range(40000):
                    T[i] = A[o, i] * 2.0
                for j in range(40000):
                    U[j] = T[39999 - j] + 1.0
                for k in range(40000):
                    B[o, k] = U[39999 - k] + T[k]
        """
    )
    made = compact_buffers(func)
    found = sorted(line.split("alloc ")[1] for line in to_text(made).splitlines() if "alloc" in line)
    assert found == ["T: float32[2, 40000]", "U: float32[40000] @local"]
    a = np.random.default_rng(0).standard_normal((2, 40000)).astype(np.float32)
    got = np.zeros_like(a)
    run(made, a, got)
    np.testing.assert_array_equal(got, (a * 2 + 1) + a * 2)
