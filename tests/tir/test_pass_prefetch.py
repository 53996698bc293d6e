"""Prefetching: loops before and after, at once and spread over an inner loop."""

from __future__ import annotations

import pass_check as check
from pass_check import becomes, program
from test_pass_memory import blur

from warpbeam.tir.text import to_text
from warpbeam.tir.transform.inject_prefetch import inject_prefetch
from warpbeam.tir.transform.pipeline import lower


def test_prefetch():
    got = becomes(
        inject_prefetch,
        """
        def f(A: float32[64, 32], B: float32[64, 32]):
            for i in range(64) {"prefetch": (("A", 2),)}:
                for j in range(32):
                    B[i, j] = A[i, j]
        """,
        """
        def f(A: float32[64, 32], B: float32[64, 32]):
            for i in range(64):
                for A_1 in unrolled(2):
                    eval prefetch[int64](A[min(i + 2, 63), A_1 * 16])
                for j in range(32):
                    B[i, j] = A[i, j]
        """,
    )
    assert "prefetch" in to_text(lower(got))


def test_what_would_begin_too_late_is_moved_as_a_whole():
    """One comparison for all lines; more than a few are asked for by a loop."""
    for rows, kind in ((2, "unrolled"), (17, "range")):
        got = becomes(
            inject_prefetch,
            f"""
        def f(A: float32[{rows * 8}, 16], B: float32[{rows * 8}, 16]):
            for i in range(8) {{"prefetch": (("A", 2),)}}:
                for k in range({rows}):
                    for j in range(16):
                        B[i * {rows} + k, j] = A[i * {rows} + k, j]
        """,
            f"""
        def f(A: float32[{rows * 8}, 16], B: float32[{rows * 8}, 16]):
            for i in range(8):
                for A_0 in {kind}({rows}):
                    eval prefetch[int64](A[min(i * {rows} + {2 * rows}, {rows * 7}) + A_0, 0])
                for k in range({rows}):
                    for j in range(16):
                        B[i * {rows} + k, j] = A[i * {rows} + k, j]
        """,
        )
        assert to_text(lower(got)).count("prefetch[int64]") == (2 if kind == "unrolled" else 1)


def test_lines_come_to_the_cache_that_is_named():
    got = becomes(
        inject_prefetch,
        """
        def f(A: float32[64, 16], B: float32[64, 16]):
            for i in range(64) {"prefetch": (("A", 2, "", "", 2), ("B", 0, "", "", 1))}:
                for j in range(16):
                    B[i, j] = A[i, j]
        """,
        """
        def f(A: float32[64, 16], B: float32[64, 16]):
            for i in range(64):
                eval prefetch[int64](A[min(i + 2, 63), 0]) {"locality": 2}
                eval prefetch[int64](B[i, 0]) {"locality": 1, "rw": 1}
                for j in range(16):
                    B[i, j] = A[i, j]
        """,
    )
    assert '"locality": 2' in to_text(lower(got))


def test_what_is_only_written_is_asked_for_as_such():
    got = becomes(
        inject_prefetch,
        """
        def f(A: float32[64, 32], B: float32[64, 32]):
            for i in range(64) {"prefetch": (("B", 0),)}:
                for j in range(32):
                    B[i, j] = A[i, j]
        """,
        """
        def f(A: float32[64, 32], B: float32[64, 32]):
            for i in range(64):
                for B_1 in unrolled(2):
                    eval prefetch[int64](B[i, B_1 * 16]) {"rw": 1}
                for j in range(32):
                    B[i, j] = A[i, j]
        """,
    )
    assert '{"rw": 1}' in to_text(lower(got))


def test_prefetch_spread_over_an_inner_loop():
    """Panels of 3 x 20 elements are 4 lines; 2 * 3 iterations ask for one each, and the last two for the last again."""
    got = becomes(
        inject_prefetch,
        """
    def f(A: float32[5, 3, 20], B: float32[5, 3, 20]):
        for i in range(5) {"prefetch": (("A", 1, "k"),)}:
            for t in range(2):
                for k in range(3):
                    for j in range(20):
                        B[i, k, j] = A[i, k, j]
    """,
        """
    def f(A: float32[5, 3, 20], B: float32[5, 3, 20]):
        for i in range(5):
            for t in range(2):
                for k in range(3):
                    eval prefetch[int64](A[min(i + 1, 4), min(t * 3 + k, 3) * 4 // 5, min(t * 3 + k, 3) * 4 % 5 * 4])
                    for j in range(20):
                        B[i, k, j] = A[i, k, j]
    """,
    )
    assert to_text(got).count("prefetch[int64]") == 1


def test_prefetch_spread_over_the_parts_of_a_loop():
    """8 lines of a panel in 3 + 5 iterations of loops that follow each other: one in each."""
    got = becomes(
        inject_prefetch,
        """
    def f(A: float32[5, 8, 16], B: float32[5, 8]):
        for i in range(5) {"prefetch": (("A", 1, ("k", "k_p1")),)}:
            for k in range(3):
                B[i, k] = A[i, k, 0]
            for k_p1 in range(5):
                B[i, k_p1 + 3] = A[i, k_p1 + 3, 15]
    """,
        """
    def f(A: float32[5, 8, 16], B: float32[5, 8]):
        for i in range(5):
            for k in range(3):
                eval prefetch[int64](A[min(i + 1, 4), k, 0])
                B[i, k] = A[i, k, 0]
            for k_p1 in range(5):
                eval prefetch[int64](A[min(i + 1, 4), k_p1 + 3, 0])
                B[i, k_p1 + 3] = A[i, k_p1 + 3, 15]
    """,
    )
    assert to_text(got).count("prefetch[int64]") == 2


def test_prefetch_spread_where_one_iteration_asks_for_several_lines_of_several_rows():
    """64 x 16 elements of rows of 32: 64 lines, in 16 iterations; the loop of an unknown extent counts as some."""
    got = inject_prefetch(
        program(
            """
            def f(A: float32[2, 64, 32], B: float32[2, 64, 16], n: int64):
                for p in range(2) {"prefetch": (("A", 1, "k"),)}:
                    for t in range(n):
                        for k in range(4):
                            for j in range(16):
                                for i in range(16):
                                    B[p, k * 16 + j, i] = A[p, k * 16 + j, i]
            """
        )
    )
    text = to_text(got)
    assert text.count("prefetch[int64]") == 4
    assert "A[1, min(t * 16 + k * 4 + 3, 63), 0]" in text


def test_prefetch_goes_on_to_the_next_iteration_of_the_loop_around():
    """After the last of three panels comes the first of the next four."""
    got = becomes(
        inject_prefetch,
        """
    def f(A: float32[4, 3, 2, 16], B: float32[4, 3, 2, 16]):
        for c in range(4):
            for p in range(3) {"prefetch": (("A", 1, "k", "c"),)}:
                for k in range(2):
                    for j in range(16):
                        B[c, p, k, j] = A[c, p, k, j]
    """,
        """
    def f(A: float32[4, 3, 2, 16], B: float32[4, 3, 2, 16]):
        for c in range(4):
            for p in range(3):
                for k in range(2):
                    eval prefetch[int64](A[max(min(c + (p + 1) // 3, 3), 0), (p + 1) % 3, k, 0])
                    for j in range(16):
                        B[c, p, k, j] = A[c, p, k, j]
    """,
    )
    assert to_text(got).count("prefetch[int64]") == 1


def test_prefetch_through_a_loop_that_is_gone_is_none():
    f = """
        def f(A: float32[64, 32], B: float32[64, 32]):
            for i in range(64){note}:
                for j in range(32):
                    B[i, j] = A[i, j]
        """
    got = becomes(inject_prefetch, f.replace("{note}", ' {"prefetch": (("A", 2, "k"),)}'), f.replace("{note}", ""))
    assert "prefetch" not in to_text(got)


def test_prefetch_of_a_schedule_reaches_the_processor():
    from warpbeam import target
    from warpbeam.codegen import c, llvm

    f, s = blur(16, 32)
    s.prefetch(s.loops("T")[0], "A", 4)
    lowered = lower(s.func, target.get("native"))
    assert "@llvm.prefetch" in llvm.print_kernel(lowered, target.get("native"))
    assert "WB_PREFETCH" in c.print_kernel(lowered, target.get("native"))
    check.agree(f, s.func)
