"""Loops walked to and fro: what the step records and refuses, what lowering makes of it."""

from __future__ import annotations

import numpy as np
import pytest
import tir_programs as programs
from pass_check import agree, becomes, native, program
from tir_programs import check

from warpbeam import target
from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.tir.schedule import Schedule
from warpbeam.tir.text import to_text
from warpbeam.tir.transform import lower
from warpbeam.tir.transform.alternate_loops import alternate_loops


def test_a_loop_runs_backwards_in_odd_iterations():
    becomes(
        alternate_loops,
        """
        def f(A: float32[4, 9], B: float32[4, 9]):
            for t in range(4):
                for p in range(2, extent=7) {"alternate": "t", "other": 1}:
                    B[t, p] = A[t, p]
        """,
        """
        def f(A: float32[4, 9], B: float32[4, 9]):
            for t in range(4):
                for p_turn in range(2, extent=7) {"other": 1}:
                    let p: int64 = select(t % 2 == 0, p_turn, 10 - p_turn)
                    B[t, p] = A[t, p]
        """,
    )


def test_extents_that_only_the_run_tells():
    f = program(
        """
        def f(A: float32[3, n], B: float32[3, n], n: int64):
            for t in range(3):
                for p in range(n) {"alternate": "t"}:
                    B[t, p] = A[t, p] * 2.0
        """
    )
    agree(f, alternate_loops(f), n=5)


def test_the_order_stays_where_no_serial_loop_around_has_the_name():
    text = """
        def f(A: float32[4, 8], B: float32[4, 8]):
            for t in {kind}(4):
                for p in range(8){note}:
                    B[t, p] = A[t, p]
    """
    for kind, name in (("range", "s"), ("vectorized", "t")):
        before, after = (text.replace("{kind}", kind).replace("{note}", n) for n in (f' {{"alternate": "{name}"}}', ""))
        becomes(alternate_loops, before, after)


def test_the_order_stays_where_iterations_have_come_to_depend_on_each_other():
    """A loop in stages: the next row is loaded while this one is used."""
    func = programs.matmul(8, 8, 8)
    s = Schedule(func)
    i, j, k = s.loops("C")
    s.reorder(k, i, j)
    outer, inner = s.split(k, [2, 4])
    fetch = s.cache_read("C", "A", "local")
    s.compute_at(fetch, inner)
    s.double_buffer(fetch)
    s.annotate(inner, "alternate", outer)
    low = check(func, s.func)
    assert "alternate" not in to_text(low) and "_turn" not in to_text(low)


def order_of(func, steps: int, panels: int) -> np.ndarray:
    """In which order a program visits its panels, by what each finds counted so far."""
    seen = np.zeros((1,), np.float32)
    out = np.zeros((steps, panels), np.float32)
    native(func)(seen, out)
    return out


@pytest.mark.parametrize("kind", ["range", "parallel"])
def test_machine_code_walks_to_and_fro(kind: str):
    func = program(
        f"""
        def f(N: float32[1], B: float32[3, 6]):
            for t in range(3):
                for p in {kind}(6) {{"alternate": "t"}}:
                    B[t, p] = N[0]
                    N[0] = N[0] + 1.0
        """
    )
    low = lower(func, target.get("native"))
    want = [[0, 1, 2, 3, 4, 5], [11, 10, 9, 8, 7, 6], [12, 13, 14, 15, 16, 17]]
    np.testing.assert_array_equal(order_of(low, 3, 6), want)


def test_the_step_records_a_note():
    func = programs.matmul(8, 8, 8)
    s = Schedule(func)
    i, j, _ = s.loops("C")
    outer, _ = s.split(j, [4, 2])
    s.alternate(outer, i)
    assert f'for {outer} in range(4) {{"alternate": "{i}"}}' in to_text(s.func)
    assert f"{outer}_turn" in to_text(check(func, s.func))


def test_what_cannot_be_walked_backwards():
    s = Schedule(programs.matmul(8, 8, 8))
    i, j, k = s.loops("C")
    for loop, around in ((i, j), (i, i)):
        with pytest.raises(ScheduleError, match="must be a serial or parallel loop inside of the second"):
            s.alternate(loop, around)
    with pytest.raises(ScheduleError, match="cannot be walked backwards"):
        s.alternate(k, i)
    s.vectorize(j)
    with pytest.raises(ScheduleError, match="must be a serial or parallel loop inside of the second"):
        s.alternate(j, i)
