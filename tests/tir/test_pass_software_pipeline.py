"""Pipelines of a loop's statements: what runs ahead, how many copies there are, what is refused."""

from __future__ import annotations

import pass_check as check
import pytest
from pass_check import becomes

from warpbeam.ir.diagnostics import LowerError
from warpbeam.tir.text import to_text
from warpbeam.tir.transform.inject_software_pipeline import inject_software_pipeline
from warpbeam.tir.transform.setting import Setting, survey
from warpbeam.tir.transform.simplify import simplify_program

STAGES = """
    def f(A: float32[16], B: float32[16]):
        for i in range(16) {"software_pipeline_order": ORDER, "software_pipeline_stage": (0, 1, 2)}:
            alloc S: float32[1] @local
            alloc T: float32[1] @local
            S[0] = A[i]
            T[0] = S[0] * 2.0
            B[i] = T[0] + 1.0
    """


def test_pipeline_of_three_stages():
    becomes(
        inject_software_pipeline,
        STAGES.replace("ORDER", "(0, 1, 2)"),
        """
        def f(A: float32[16], B: float32[16]):
            alloc S: float32[2, 1] @local
            alloc T: float32[2, 1] @local
            S[0, 0] = A[0]
            S[1, 0] = A[1]
            T[0, 0] = S[0, 0] * 2.0
            for i in range(14):
                S[i % 2, 0] = A[i + 2]
                T[(i + 1) % 2, 0] = S[(i + 1) % 2, 0] * 2.0
                B[i] = T[i % 2, 0] + 1.0
            T[1, 0] = S[1, 0] * 2.0
            B[14] = T[0, 0] + 1.0
            B[15] = T[1, 0] + 1.0
        """,
    )


def test_one_copy_is_enough_where_a_step_reads_values_before_it_replaces_them():
    becomes(
        inject_software_pipeline,
        STAGES.replace("ORDER", "(2, 1, 0)"),
        """
        def f(A: float32[16], B: float32[16]):
            alloc S: float32[1] @local
            alloc T: float32[1] @local
            S[0] = A[0]
            T[0] = S[0] * 2.0
            S[0] = A[1]
            for i in range(14):
                B[i] = T[0] + 1.0
                T[0] = S[0] * 2.0
                S[0] = A[i + 2]
            B[14] = T[0] + 1.0
            T[0] = S[0] * 2.0
            B[15] = T[0] + 1.0
        """,
    )


def test_registers_with_copies_are_memory():
    """A value that lives for two stages is in one of two places, which only the run can tell."""
    func = check.program(
        """
        def f(A: float32[16], B: float32[16]):
            for i in range(16) {"software_pipeline_order": (2, 1, 0), "software_pipeline_stage": (0, 1, 2)}:
                alloc S: float32[] @register
                alloc T: float32[] @register
                S[] = A[i]
                T[] = S[] * 2.0
                B[i] = T[] + S[]
        """
    )
    got = inject_software_pipeline(func)
    assert "alloc S: float32[2] @local" in to_text(got) and "alloc T: float32[] @register" in to_text(got)
    check.agree(func, got)


@pytest.mark.parametrize("rows", [9, 10])
def test_pipelines_of_what_is_left_ask_only_where_a_chunk_may_be_short(rows):
    """The last chunk of 10 rows has two, one less than there are stages; that of 9 has one."""
    func = check.program(
        """
        def f(A: float32[ROWS], B: float32[ROWS]):
            for c in parallel(3):
                for i in range(min(4, ROWS - c * 4)) {"software_pipeline_stage": (0, 1, 2)}:
                    alloc S: float32[1] @local
                    alloc T: float32[1] @local
                    S[0] = A[c * 4 + i]
                    T[0] = S[0] * 2.0
                    B[c * 4 + i] = T[0] + 1.0
        """.replace("ROWS", str(rows))
    )
    got = inject_software_pipeline(func)
    assert ("if " in to_text(got)) == (rows == 9)
    check.agree(func, got)


def test_stages_follow_statements_out_of_a_loop_of_one_iteration():
    text = """
        def f(A: float32[16], B: float32[16]):
            for i in range(16) {"software_pipeline_stage": (0,)}:
                for j in range(1) {"software_pipeline_stage": (0, 1)}:
                    alloc S: float32[1] @local
                    S[0] = A[i + j]
                    B[i + j] = S[0] * 2.0
        """
    func = check.program(text)
    bare = simplify_program(func, Setting(None, {}, survey(func)))
    assert bare.body.annotations["software_pipeline_stage"] == (0, 0)
    check.agree(func, inject_software_pipeline(bare))


def test_pipelines_that_cannot_be_are_refused():
    text = """
        def f(A: float32[16], B: float32[16]):
            for i in range(16) {"software_pipeline_stage": (1, 0)}:
                alloc S: float32[1] @local
                S[0] = A[i]
                B[i] = S[0]
        """
    with pytest.raises(LowerError, match="written in stage 1 and read in stage 0"):
        inject_software_pipeline(check.program(text))
    with pytest.raises(LowerError, match="2 statements"):
        inject_software_pipeline(check.program(text.replace("(1, 0)", "(0,)")))
