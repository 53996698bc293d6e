"""Loops of a sequence that become one: what moves out of their way, and what keeps them apart."""

import pass_check as check
from pass_check import becomes

from warpbeam.tir.text import to_text
from warpbeam.tir.transform.merge_loops import merge_loops


def test_what_stands_between_moves_before_or_behind():
    becomes(
        merge_loops,
        """
        def f(A: float32[16], C: float32[16], B: float32[16]):
            alloc s: float32[1] @local
            alloc m: float32[1] @local
            s[0] = 2.0
            for i in range(16) {"together": 1}:
                B[i] = A[i] * s[0]
            s[0] = 0.0
            m[0] = 0.0
            for j in range(16) {"together": 1}:
                m[0] = m[0] + C[j]
            s[0] = s[0] + m[0]
            B[0] = s[0]
        """,
        """
        def f(A: float32[16], C: float32[16], B: float32[16]):
            alloc s: float32[1] @local
            alloc m: float32[1] @local
            s[0] = 2.0
            m[0] = 0.0
            for i in range(16):
                B[i] = A[i] * s[0]
                m[0] = m[0] + C[i]
            s[0] = 0.0
            s[0] = s[0] + m[0]
            B[0] = s[0]
        """,
    )


def test_buffers_of_parts_are_around_the_sequence_then():
    becomes(
        merge_loops,
        """
        def f(A: float32[8, 16], B: float32[8, 20]):
            for r in range(8):
                alloc e: float32[20] @local
                for i in range(4) {"together": "r"}:
                    for v in vectorized(4):
                        e[i * 4 + v] = A[r, i * 4 + v] * 2.0
                for t in vectorized(4):
                    e[16 + t] = A[r, t]
                scope:
                    alloc p: float32[4] @local
                    for a in vectorized(4):
                        p[a] = 0.0
                    for j in range(4) {"together": "r"}:
                        for w in vectorized(4):
                            p[w] = p[w] + e[j * 4 + w]
                    for b in vectorized(4):
                        B[r, b] = p[b] + e[16 + b]
        """,
        """
        def f(A: float32[8, 16], B: float32[8, 20]):
            for r in range(8):
                alloc e: float32[20] @local
                alloc p: float32[4] @local
                for t in vectorized(4):
                    e[16 + t] = A[r, t]
                for a in vectorized(4):
                    p[a] = 0.0
                for i in range(4):
                    for v in vectorized(4):
                        e[i * 4 + v] = A[r, i * 4 + v] * 2.0
                    for w in vectorized(4):
                        p[w] = p[w] + e[i * 4 + w]
                for b in vectorized(4):
                    B[r, b] = p[b] + e[16 + b]
        """,
    )


def _stays(text: str) -> None:
    func = check.program(text)
    got = merge_loops(func)
    assert to_text(got) == to_text(func).replace(' {"together": 1}', "")
    check.agree(func, got)


def test_a_sum_that_the_second_loop_needs_keeps_them_apart():
    _stays(
        """
        def f(A: float32[16], B: float32[16]):
            alloc m: float32[1] @local
            alloc s: float32[1] @local
            m[0] = 0.0
            for i in range(16) {"together": 1}:
                m[0] = m[0] + A[i]
            s[0] = m[0] * 2.0
            for j in range(16) {"together": 1}:
                B[j] = A[j] * s[0]
        """
    )


def test_elements_of_another_iteration_keep_them_apart():
    _stays(
        """
        def f(A: float32[16], B: float32[16]):
            alloc t: float32[16] @local
            for i in range(16) {"together": 1}:
                t[i] = A[i] * 2.0
            for j in range(16) {"together": 1}:
                B[j] = t[15 - j]
        """
    )


def test_loops_of_other_lengths_or_without_the_note_stay():
    _stays(
        """
        def f(A: float32[16], B: float32[40]):
            for i in range(16) {"together": 1}:
                B[i] = A[i]
            for j in range(8) {"together": 1}:
                B[16 + j] = A[j]
            for k in range(16):
                B[24 + k] = A[k]
        """
    )


def test_a_chain_of_loops_merges_as_far_as_it_can():
    """The third needs all of the second; the fourth stands for itself and moves up."""
    got = becomes(
        merge_loops,
        """
        def f(A: float32[16], C: float32[16], B: float32[16]):
            alloc t: float32[16] @local
            alloc u: float32[16] @local
            for i in range(16) {"together": 1}:
                t[i] = A[i] * 2.0
            for j in range(16) {"together": 1}:
                u[j] = t[j] + 1.0
            for k in range(16) {"together": 1}:
                B[k] = u[15 - k]
            for l in range(16) {"together": 1}:
                C[l] = A[l] + 3.0
        """,
        """
        def f(A: float32[16], C: float32[16], B: float32[16]):
            alloc t: float32[16] @local
            alloc u: float32[16] @local
            for i in range(16):
                t[i] = A[i] * 2.0
                u[i] = t[i] + 1.0
                C[i] = A[i] + 3.0
            for k in range(16):
                B[k] = u[15 - k]
        """,
        1,
    )
    assert merge_loops(got) is got
