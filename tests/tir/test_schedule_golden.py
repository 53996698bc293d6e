"""What the primitives and lowering make of small programs, as text."""

from __future__ import annotations

import textwrap

import tir_programs as programs

from warpbeam.ir.structural import structural_equal
from warpbeam.tir.schedule import Schedule
from warpbeam.tir.text import parse, to_text
from warpbeam.tir.transform import lower


def same(func, text: str) -> None:
    """The program is the one in the text, up to the names of axes."""
    wanted = parse(textwrap.dedent(text).strip() + "\n")
    assert structural_equal(func, wanted), to_text(func)


def test_split_that_does_not_divide():
    s = Schedule(programs.pointwise(100))
    _, lanes = s.split(s.loops("C")[0], [None, 16], names=["o", "v"])
    s.vectorize(lanes)
    s.compute_inline("B")
    same(
        s.func,
        """
        def pointwise(A: float32[100], C: float32[100]) {"global_symbol": "pointwise"}:
            for o in range(7):
                for v in vectorized(min(16, 100 - o * 16)):
                    block "C" (i0: spatial[100] = o * 16 + v):
                        C[i0] = A[i0] * 2.0 + A[i0]
        """,
    )
    same(
        lower(s.func),
        """
        def pointwise(A: float32[100], C: float32[100]) {"global_symbol": "pointwise", "workspace": 0}:
            for o in range(6):
                C[ramp(o * 16, 1, 16)] = A[ramp(o * 16, 1, 16)] * broadcast(2.0, 16) + A[ramp(o * 16, 1, 16)]
            C[ramp(96, 1, 4)] = A[ramp(96, 1, 4)] * broadcast(2.0, 4) + A[ramp(96, 1, 4)]
        """,
    )


def test_tile_with_a_remainder():
    s = Schedule(programs.matmul(49, 20, 8))
    s.compute_inline("D")
    i, _ = s.loops("E")
    o, _ = s.split(i, [None, 14], names=["mo", "mi"])
    s.compute_at("C", o)
    s.partition(o, 3)
    same(
        s.func,
        """
        def matmul(
            A: float32[49, 8],
            B: float32[8, 20],
            bias: float32[20],
            E: float32[49, 20],
        ) {"global_symbol": "matmul"}:
            alloc C: float32[49, 20]
            alloc C_p1: float32[49, 20]
            for mo in range(3):
                for i in range(14):
                    for j in range(20):
                        for k in range(8):
                            block "C" (vi: spatial[49] = mo * 14 + i, vj: spatial[20] = j, vk: reduce[8] = k):
                                init:
                                    C[vi, vj] = 0.0
                                C[vi, vj] = C[vi, vj] + A[vi, vk] * B[vk, vj]
                for mi in range(14):
                    for j_2 in range(20):
                        block "E" (vi_1: spatial[49] = mo * 14 + mi, vj_1: spatial[20] = j_2):
                            E[vi_1, vj_1] = max(C[vi_1, vj_1] + bias[vj_1], 0.0)
            for mo_p1 in range(1):
                for i_p1 in range(7):
                    for j_p1 in range(20):
                        for k_p1 in range(8):
                            block "C_p1" (vi: spatial[49] = (3 + mo_p1) * 14 + i_p1, vj: spatial[20] = j_p1, vk: reduce[8] = k_p1):
                                init:
                                    C_p1[vi, vj] = 0.0
                                C_p1[vi, vj] = C_p1[vi, vj] + A[vi, vk] * B[vk, vj]
                for mi_p1 in range(7):
                    for j_2_p1 in range(20):
                        block "E_p1" (vi_1: spatial[49] = (3 + mo_p1) * 14 + mi_p1, vj_1: spatial[20] = j_2_p1):
                            E[vi_1, vj_1] = max(C_p1[vi_1, vj_1] + bias[vj_1], 0.0)
        """,  # noqa: E501
    )
    same(
        lower(s.func),
        """
        def matmul(
            A: float32[49, 8],
            B: float32[8, 20],
            bias: float32[20],
            E: float32[49, 20],
        ) {"global_symbol": "matmul", "workspace": 0}:
            for mo in range(3):
                alloc C: float32[14, 20] @local
                for i in range(14):
                    for j in range(20):
                        alloc C_r: float32[1, 1] @register
                        C_r[0, 0] = 0.0
                        for k in range(8):
                            C_r[0, 0] = fma(A[mo * 14 + i, k], B[k, j], C_r[0, 0])
                        C[i, j] = C_r[0, 0]
                for mi in range(14):
                    for j_2 in range(20):
                        E[mo * 14 + mi, j_2] = max(C[mi, j_2] + bias[j_2], 0.0)
            alloc C_p1: float32[7, 20] @local
            for i_p1 in range(7):
                for j_p1 in range(20):
                    alloc C_p1_r: float32[1, 1] @register
                    C_p1_r[0, 0] = 0.0
                    for k_p1 in range(8):
                        C_p1_r[0, 0] = fma(A[i_p1 + 42, k_p1], B[k_p1, j_p1], C_p1_r[0, 0])
                    C_p1[i_p1, j_p1] = C_p1_r[0, 0]
            for mi_p1 in range(7):
                for j_2_p1 in range(20):
                    E[mi_p1 + 42, j_2_p1] = max(C_p1[mi_p1, j_2_p1] + bias[j_2_p1], 0.0)
        """,
    )


def test_partial_sums_in_lanes():
    s = Schedule(programs.softmax(2, 40))
    _, lanes = s.split(s.loops("sm")[-1], [None, 16], names=["qo", "qv"])
    partial = s.rfactor(lanes)
    s.vectorize(s.loops(partial)[-1])
    text = to_text(lower(s.func))
    assert "sm_rf[ramp(0, 1, 16)] = sm_rf[ramp(0, 1, 16)] + ex[i_2, ramp(qo * 16, 1, 16)]" in text
    assert "sm_rf[ramp(0, 1, 8)] = sm_rf[ramp(0, 1, 8)] + ex[i_2, ramp(32, 1, 8)]" in text
    assert "vector_reduce_add[float32](sm_rf[ramp(0, 1, 16)])" in text


def test_parts_of_a_parallel_loop_are_joined():
    f = programs.pointwise(49, 8)
    s = Schedule(f)
    s.compute_inline("B")
    o, _ = s.split(s.loops("C")[0], [None, 14])
    s.annotate(o, "joined", "tiles")
    s.parallel(o)
    s.partition(o, 3)
    lowered = programs.check(f, s.func)
    assert to_text(lowered).count("parallel") == 1
