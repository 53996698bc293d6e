"""Passes on loops: partition, unrolling, hoisting, virtual threads, vectors - loops before and after, same results."""

from __future__ import annotations

import random

import pass_check as check
import pytest
import tir_programs as programs
from pass_check import becomes

from warpbeam import target
from warpbeam.ir.diagnostics import LowerError
from warpbeam.ir.rewrite import post_order
from warpbeam.te import tensor as te
from warpbeam.tir.expr import Call, Ramp
from warpbeam.tir.schedule import Schedule
from warpbeam.tir.stmt import For, IfThenElse
from warpbeam.tir.text import to_text
from warpbeam.tir.transform.expand_loops import expand_loops
from warpbeam.tir.transform.hoist_if_then_else import hoist_if_then_else
from warpbeam.tir.transform.inject_virtual_thread import inject_virtual_thread
from warpbeam.tir.transform.loop_partition import loop_partition
from warpbeam.tir.transform.pipeline import lower, lower_simple
from warpbeam.tir.transform.setting import Setting
from warpbeam.tir.transform.unroll_pragmas import unroll_pragmas


@pytest.mark.parametrize(
    ("shape", "says"), [((1, 5000), "of 5000 iterations is too long to unroll"), ((300, 300), "more than 65536 copies")]
)
def test_what_is_too_long_to_unroll(shape, says):
    func = check.program(
        f"""
        def f(A: float32[{shape[0]}, {shape[1]}]):
            for i in unrolled({shape[0]}):
                for j in unrolled({shape[1]}):
                    A[i, j] = 1.0
        """
    )
    with pytest.raises(LowerError, match=says):
        expand_loops(func)


def test_partition_of_a_split_that_does_not_divide():
    becomes(
        loop_partition,
        """
        def f(A: float32[100], B: float32[100]):
            for o in range(7):
                for i in vectorized(16):
                    if likely(o * 16 + i < 100):
                        B[o * 16 + i] = A[o * 16 + i] + 1.0
        """,
        """
        def f(A: float32[100], B: float32[100]):
            for o in range(6):
                for i in vectorized(16):
                    B[o * 16 + i] = A[o * 16 + i] + 1.0
            for i in vectorized(4):
                B[i + 96] = A[i + 96] + 1.0
        """,
    )


def test_partition_at_a_symbolic_size():
    becomes(
        loop_partition,
        """
        def f(A: float32[n], B: float32[n], n: size):
            for o in range((n + 15) // 16):
                for i in vectorized(16):
                    if likely(o * 16 + i < n):
                        B[o * 16 + i] = A[o * 16 + i] + 1.0
        """,
        """
        def f(A: float32[n], B: float32[n], n: size):
            for o in range(n // 16):
                for i in vectorized(16):
                    B[o * 16 + i] = A[o * 16 + i] + 1.0
            for o in range((n + 15) // 16 - n // 16):
                for i in range(n % 16 - o * 16):
                    B[o * 16 + n // 16 * 16 + i] = A[o * 16 + n // 16 * 16 + i] + 1.0
        """,
        n=37,
    )


def test_partition_at_both_ends_of_a_window():
    becomes(
        loop_partition,
        """
        def f(A: float32[10], B: float32[10]):
            for i in range(10):
                B[i] = 0.0
                for r in range(3):
                    if likely(i + r >= 1) and likely(i + r < 11):
                        B[i] = B[i] + A[i + r - 1]
        """,
        """
        def f(A: float32[10], B: float32[10]):
            B[0] = 0.0
            for r in range(2):
                B[0] = B[0] + A[r]
            for i in range(8):
                B[i + 1] = 0.0
                for r in range(3):
                    B[i + 1] = B[i + 1] + A[i + r]
            B[9] = 0.0
            for r in range(2):
                B[9] = B[9] + A[r + 8]
        """,
    )


def test_what_stands_under_all_limits_is_gone_behind_the_last_of_them():
    """Behind the smallest of two limits one of the conditions fails, so nothing under both of them is left there."""
    becomes(
        loop_partition,
        """
        def f(A: float32[9], B: float32[9]):
            for o in range(2):
                for i in range(4):
                    A[o] = 1.0
                    if likely(o * 2 + i < 3) and likely(i < 2):
                        B[o * 6 + i * 3] = A[o * 6 + i * 3] + 1.0
                    if likely(i < 2):
                        if likely(o * 2 + i < 3):
                            B[o * 6 + i * 3 + 1] = A[o * 6 + i * 3 + 1] + 1.0
        """,
        """
        def f(A: float32[9], B: float32[9]):
            for o in range(2):
                for i in range(min(3 - o * 2, 2)):
                    A[o] = 1.0
                    B[o * 6 + i * 3] = A[o * 6 + i * 3] + 1.0
                    B[o * 6 + i * 3 + 1] = A[o * 6 + i * 3 + 1] + 1.0
                for i in range(4 - min(3 - o * 2, 2)):
                    A[o] = 1.0
        """,
    )


def test_fused_loops_choose_between_two_versions():
    becomes(
        loop_partition,
        """
        def f(A: float32[10, 12], B: float32[10, 12]):
            for x in parallel(9):
                for i in range(4):
                    for j in vectorized(4):
                        if likely(x // 3 * 4 + i < 10):
                            B[x // 3 * 4 + i, x % 3 * 4 + j] = A[x // 3 * 4 + i, x % 3 * 4 + j] * 2.0
        """,
        """
        def f(A: float32[10, 12], B: float32[10, 12]):
            for x in parallel(9):
                if likely(x // 3 < 2):
                    for i in range(4):
                        for j in vectorized(4):
                            B[x // 3 * 4 + i, x % 3 * 4 + j] = A[x // 3 * 4 + i, x % 3 * 4 + j] * 2.0
                else:
                    for i in range(min(10 - x // 3 * 4, 4)):
                        for j in vectorized(4):
                            B[x // 3 * 4 + i, x % 3 * 4 + j] = A[x // 3 * 4 + i, x % 3 * 4 + j] * 2.0
        """,
    )


def test_constant_loops_can_be_left_alone():
    text = """
        def f(B: float32[10]):
            for o in range(3):
                for i in range(4):
                    if likely(o * 4 + i < 10):
                        B[o * 4 + i] = 1.0
        """
    at = Setting(config={"tir.LoopPartition": {"partition_const_loop": False}})
    becomes(lambda f: loop_partition(f, at), text, text, 0)
    at = Setting(config={"tir.LoopPartition": {"no_unroll_loop_with_extent_one": True}})
    got = loop_partition(check.program(text), at)
    assert [f.extent.value for f in post_order(got.body) if isinstance(f, For) and f.var.name == "o"] == [2, 1]


def test_growth_of_partitioned_programs_is_bounded():
    depth = 12
    lines = ["def f(B: float32[" + ", ".join(["3"] * depth) + "]):"]
    for k in range(depth):
        lines.append("    " * (2 * k + 1) + f"for o{k} in range(2):")
        lines.append("    " * (2 * k + 2) + f"for i{k} in range(2):")
    index = ", ".join(f"o{k} * 2 + i{k}" for k in range(depth))
    cond = " and ".join(f"likely(o{k} * 2 + i{k} < 3)" for k in range(depth))
    lines.append("    " * (2 * depth + 1) + f"if {cond}:")
    lines.append("    " * (2 * depth + 2) + f"B[{index}] = 1.0")
    func = check.parse("\n".join(lines) + "\n")
    got = loop_partition(func)
    assert len(to_text(got).splitlines()) < 2500


def random_schedule(rng: random.Random) -> tuple[object, object]:
    m, n, k = (rng.randint(1, 40) for _ in range(3))
    f = programs.matmul(m, n, k)
    s = Schedule(f)
    s.compute_inline("D")
    i, j = s.loops("E")
    mo, mi = s.split(i, [None, rng.randint(1, 9)], guard=True)
    no, ni = s.split(j, [None, rng.choice([4, 8, 16])], guard=True)
    s.reorder(mo, no, mi, ni)
    at = s.fuse(mo, no) if rng.random() < 0.4 else rng.choice([mo, no])
    s.compute_at("C", at)
    ci, cj, ck = s.loops("C")[-3:]
    ko, ki = s.split(ck, [None, rng.randint(1, 5)], guard=True)
    order = [ko, ki, ci, cj]
    if rng.random() < 0.5:
        order = [ko, ci, ki, cj]
    s.reorder(*order)
    if rng.random() < 0.7:
        s.vectorize(cj)
        s.vectorize(ni)
    if rng.random() < 0.7:
        s.unroll(ci)
    if rng.random() < 0.5:
        s.unroll(ki)
    if rng.random() < 0.5:
        s.parallel(s.loops("E")[0])
    return f, s.func


@pytest.mark.parametrize("seed", range(12))
def test_random_guarded_schedules(seed):
    check.agree(*random_schedule(random.Random(seed)), inputs=3)  # type: ignore[arg-type]


def test_full_tiles_have_no_conditions_and_keep_sums_in_registers():
    f = programs.matmul(30, 64, 11)
    s = Schedule(f)
    s.compute_inline("D")
    i, j = s.loops("E")
    mo, mi = s.split(i, [None, 8], guard=True)
    no, ni = s.split(j, [None, 16], guard=True)
    s.reorder(mo, no, mi, ni)
    s.compute_at("C", no)
    ci, cj, ck = s.loops("C")[-3:]
    s.reorder(ck, ci, cj)
    s.vectorize(cj)
    s.unroll(ci)
    s.vectorize(ni)
    lowered = lower(s.func, target.get("native"))
    assert not any(isinstance(n, IfThenElse) for n in post_order(lowered.body))
    fmas = [n for n in post_order(lowered.body) if isinstance(n, Call) and n.op == "fma"]
    assert fmas and all(c.args[2].buffer.scope == "register" for c in fmas)
    check.agree(f, s.func, 3)


def test_simple_lowering_is_readable_and_survives_text():
    s = Schedule(programs.matmul(30, 50, 11))
    i, j = s.loops("E")
    s.split(i, [None, 8], guard=True)
    s.vectorize(s.split(j, [None, 16], guard=True)[1])
    simple = lower_simple(s.func)
    text = to_text(simple)
    assert to_text(check.parse(text)) == text and "likely" in text and "block" not in text
    check.agree(s.func, simple, 3)


def test_hoist_conditions():
    becomes(
        hoist_if_then_else,
        """
        def f(A: float32[4, 8], B: float32[4, 8]):
            for i in range(4):
                for j in range(8):
                    if i < 3 and j < 5:
                        B[i, j] = A[i, j]
        """,
        """
        def f(A: float32[4, 8], B: float32[4, 8]):
            for i in range(4):
                if i < 3:
                    for j in range(8):
                        if j < 5:
                            B[i, j] = A[i, j]
        """,
    )
    text = """
        def f(A: float32[8], B: float32[8]):
            for j in range(8):
                if A[0] > 0.0:
                    B[j] = A[j]
        """
    becomes(hoist_if_then_else, text, text)


def test_what_asks_ahead_is_hoisted_with_the_condition():
    becomes(
        hoist_if_then_else,
        """
        def f(A: float32[4, 8], B: float32[4, 8]):
            for i in range(4):
                for j in range(8):
                    eval prefetch[int64](A[min(i + 1, 3), j])
                    if i < 3:
                        B[i, j] = A[i, j]
        """,
        """
        def f(A: float32[4, 8], B: float32[4, 8]):
            for i in range(4):
                if i < 3:
                    for j in range(8):
                        eval prefetch[int64](A[min(i + 1, 3), j])
                        B[i, j] = A[i, j]
        """,
    )


def test_pragmas_unroll():
    becomes(
        unroll_pragmas,
        """
        def f(A: float32[4, 4], B: float32[4, 4]):
            for i in range(4) {"pragma_auto_unroll_max_step": 16}:
                for j in range(4):
                    B[i, j] = A[i, j]
        """,
        """
        def f(A: float32[4, 4], B: float32[4, 4]):
            for i in unrolled(4) {"pragma_auto_unroll_max_step": 16}:
                for j in unrolled(4):
                    B[i, j] = A[i, j]
        """,
    )
    text = """
        def f(A: float32[4, 4], B: float32[4, 4]):
            for i in range(4):
                for j in range(4):
                    B[i, j] = A[i, j]
        """
    inner = text.replace("for j in range(4)", "for j in unrolled(4)")
    some = Setting(config={"tir.UnrollLoop": {"auto_max_step": 5}})
    becomes(lambda f: unroll_pragmas(f, some), text, inner)
    off = Setting(target.get("cuda"), {"tir.UnrollLoop": {"auto_max_step": 5, "explicit_unroll": False}})
    got = unroll_pragmas(check.program(text), off)
    assert '{"pragma_unroll": True}' in to_text(got)


def test_virtual_threads_interleave():
    becomes(
        inject_virtual_thread,
        """
        def f(A: float32[2, 8], B: float32[2, 8]):
            for v in thread_binding("vthread", 2):
                alloc T: float32[1] @local
                for i in range(8):
                    T[0] = A[v, i]
                    B[v, i] = T[0] * 2.0
        """,
        """
        def f(A: float32[2, 8], B: float32[2, 8]):
            alloc T: float32[2, 1] @local
            for i in range(8):
                T[0, 0] = A[0, i]
                T[1, 0] = A[1, i]
                B[0, i] = T[0, 0] * 2.0
                B[1, i] = T[1, 0] * 2.0
        """,
    )


def test_virtual_threads_share_what_does_not_depend_on_them():
    becomes(
        inject_virtual_thread,
        """
        def f(A: float32[8], B: float32[2, 3, 8]):
            for v in thread_binding("vthread.x", 2):
                for w in thread_binding("vthread.y", 3):
                    alloc T: float32[8] @local
                    for i in range(8):
                        T[i] = A[i]
                    for j in range(v + 2):
                        B[v, w, j] = T[j]
        """,
        """
        def f(A: float32[8], B: float32[2, 3, 8]):
            alloc T: float32[8] @local
            for i in range(8):
                T[i] = A[i]
            for j_v0 in range(2):
                B[0, 0, j_v0] = T[j_v0]
                B[0, 1, j_v0] = T[j_v0]
                B[0, 2, j_v0] = T[j_v0]
            for j_v1 in range(3):
                B[1, 0, j_v1] = T[j_v1]
                B[1, 1, j_v1] = T[j_v1]
                B[1, 2, j_v1] = T[j_v1]
        """,
    )


def test_vectors_of_guarded_blocks():
    n = te.size_var("n")
    s = Schedule(programs.pointwise(n))
    s.compute_inline("B")
    s.vectorize(s.split(s.loops("C")[0], [None, 8], guard=True)[1])
    lowered = lower(s.func)
    assert any(isinstance(x, Ramp) for x in post_order(lowered.body))
    for size in (1, 8, 13, 40):
        check.agree(s.func, s.func, n=size)


def test_expansion_of_one_kind():
    text = """
        def f(A: float32[2, 4], B: float32[2, 4]):
            for i in unrolled(2):
                for j in vectorized(4):
                    B[i, j] = A[i, j]
        """
    becomes(
        lambda f: expand_loops(f, kinds=("vectorized",)),
        text,
        """
        def f(A: float32[2, 4], B: float32[2, 4]):
            for i in unrolled(2):
                B[i, ramp(0, 1, 4)] = A[i, ramp(0, 1, 4)]
        """,
    )
    off = Setting(config={"tir.disable_vectorize": True})
    kinds = [f.kind for f in post_order(expand_loops(check.program(text), off).body) if isinstance(f, For)]
    assert set(kinds) == {"serial"}


@pytest.mark.parametrize(("shape", "tile"), [((17,), 4), ((17,), 16), ((5, 33), 4), ((5, 33), 16)])
def test_partition_keeps_every_element(shape, tile):
    s = Schedule(programs.pointwise(*shape))
    for loop in s.loops("C"):
        o, i = s.split(loop, [None, tile], guard=True)
        s.split(o, [2, None], guard=True)
        s.split(i, [None, 3], guard=True)
    check.agree(s.func, s.func)
