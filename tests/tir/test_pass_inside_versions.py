"""A loop marked "inside" has its body twice: under one test without the conditions of its choices, and as it was."""

from __future__ import annotations

from typing import Any

import pytest
from pass_check import becomes, program

from warpbeam.ir.rewrite import post_order
from warpbeam.tir.analysis.access import free_vars
from warpbeam.tir.analysis.predicate import conjuncts
from warpbeam.tir.expr import Call
from warpbeam.tir.stmt import For, IfThenElse
from warpbeam.tir.transform.inside_versions import inside_versions
from warpbeam.tir.transform.merge_parallel import merge_parallel

WINDOW = """
def f(A: float32[n], B: float32[n], n: size):
    for i in range(n // 2){note}:
        for c in range(1):
            B[i * 2] = if_then_else(i * 2 >= 1, A[i * 2 - 1], 0.0) + if_then_else(i * 2 < n - 1, A[i * 2 + 1], 0.0)
            B[i * 2 + 1] = if_then_else(i * 2 + 1 >= 1, A[i * 2], 0.0) + if_then_else(i * 2 + 2 < n, A[i * 2 + 2], 0.0)
"""


def choices(part: Any) -> list[Call]:
    """The conditional values in a statement."""
    return [n for n in post_order(part) if isinstance(n, Call) and n.op == "if_then_else"]


@pytest.mark.parametrize("n", [0, 2, 4, 9])
def test_one_test_for_all_conditions(n: int) -> None:
    """Of two conditions on the same side only the stricter is tested."""
    after = """
    def f(A: float32[n], B: float32[n], n: size):
        for i in range(n // 2) {"inside": True}:
            if i >= 1 and i * 2 < n - 2:
                for c in range(1):
                    B[i * 2] = A[i * 2 - 1] + A[i * 2 + 1]
                    B[i * 2 + 1] = A[i * 2] + A[i * 2 + 2]
            else:
                for c in range(1):
                    B[i * 2] = if_then_else(i * 2 >= 1, A[i * 2 - 1], 0.0) + if_then_else(i * 2 < n - 1, A[i * 2 + 1], 0.0)
                    B[i * 2 + 1] = if_then_else(i * 2 + 1 >= 1, A[i * 2], 0.0) + if_then_else(i * 2 + 2 < n, A[i * 2 + 2], 0.0)
    """  # noqa: E501
    got = becomes(inside_versions, WINDOW.replace("{note}", ' {"inside": True}'), after, n=n)
    (test,) = [s for s in post_order(got.body) if isinstance(s, IfThenElse)]
    assert len(conjuncts(test.cond)) == 2 and not choices(test.then) and len(choices(test.orelse)) == 4


def test_only_marked_loops_and_conditions_from_outside() -> None:
    func = program(WINDOW.replace("{note}", ""))
    assert inside_versions(func) is func
    moving = program(
        """
        def f(A: float32[n], B: float32[n], n: size):
            for i in range(1) {"inside": True}:
                for c in range(n):
                    B[c] = if_then_else(c >= 1, A[c - 1], 0.0)
        """
    )
    assert inside_versions(moving) is moving
    named = program(
        """
        def f(A: float32[n], B: float32[n], n: size):
            for i in range(n) {"inside": True}:
                let c: int64 = n - i
                B[i] = if_then_else(c >= 2, A[c - 2], 0.0)
        """
    )
    assert inside_versions(named) is named


def test_conditions_that_change_inside_stay() -> None:
    got = becomes(
        inside_versions,
        """
        def f(A: float32[8, 8], B: float32[8, 8]):
            for i in range(8) {"inside": True}:
                for c in range(8):
                    B[i, c] = if_then_else(i >= 1 and c >= 2, A[i - 1, c - 2], 0.0)
        """,
        """
        def f(A: float32[8, 8], B: float32[8, 8]):
            for i in range(8) {"inside": True}:
                if i >= 1:
                    for c in range(8):
                        B[i, c] = if_then_else(c >= 2, A[i - 1, c - 2], 0.0)
                else:
                    for c in range(8):
                        B[i, c] = if_then_else(i >= 1 and c >= 2, A[i - 1, c - 2], 0.0)
        """,
    )
    (test,) = [s for s in post_order(got.body) if isinstance(s, IfThenElse)]
    (left,) = choices(test.then)
    assert [v.name for v in free_vars(left.args[0])] == ["c"] and [v.name for v in free_vars(test.cond)] == ["i"]


@pytest.mark.parametrize(("n", "m"), [(0, 5), (2, 0), (3, 7)])
def test_parts_of_a_parallel_loop_are_joined_with_the_loop_around(n: int, m: int) -> None:
    got = becomes(
        merge_parallel,
        """
        def f(A: float32[n, m], B: float32[n, m], n: size, m: size):
            for b in range(n) {"joined": "k"}:
                for i in parallel(m // 2) {"joined": "k"}:
                    for c in range(2):
                        B[b, i * 2 + c] = A[b, i * 2 + c]
                for j in parallel(m % 2) {"joined": "k"}:
                    B[b, m - 1] = A[b, m - 1]
        """,
        """
        def f(A: float32[n, m], B: float32[n, m], n: size, m: size):
            for b_i in parallel(n * (m - m // 2)) {"joined": "k"}:
                if b_i % (m - m // 2) < m // 2:
                    for c in range(2):
                        B[b_i // (m - m // 2), b_i % (m - m // 2) * 2 + c] = A[b_i // (m - m // 2), b_i % (m - m // 2) * 2 + c]
                else:
                    B[b_i // (m - m // 2), m - 1] = A[b_i // (m - m // 2), m - 1]
        """,  # noqa: E501
        n=n,
        m=m,
    )
    assert [s.kind for s in post_order(got.body) if isinstance(s, For)].count("parallel") == 1
    assert merge_parallel(got) is got
