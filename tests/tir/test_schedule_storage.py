"""Double and rolling buffers, prefetching, pipelines: what the steps record, refuse and keep."""

from __future__ import annotations

import pytest
import tir_programs as programs
from test_schedule_golden import same
from tir_programs import check

from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.te import tensor as te
from warpbeam.te.create import create_prim_func
from warpbeam.tir.schedule import Schedule
from warpbeam.tir.text import to_text


def _fetching() -> tuple[Schedule, object, str, str]:
    f = programs.matmul(8, 8, 8)
    s = Schedule(f)
    i, j, k = s.loops("C")
    s.reorder(k, i, j)
    fetch = s.cache_read("C", "A", "global")
    s.compute_at(fetch, k)
    return s, f, k, fetch


def test_prefetch_asks_for_the_next_iteration():
    x = te.placeholder((64, 32), name="x")
    y = te.compute((64, 32), lambda i, j: x[i, j] + 1.0, name="y")
    f = create_prim_func([x], [y], "rows")
    s = Schedule(f)
    i, _ = s.loops("y")
    s.prefetch(i, "x", 2)
    same(
        s.func,
        """
        def rows(x: float32[64, 32], y: float32[64, 32]) {"global_symbol": "rows"}:
            for i in range(64) {"prefetch": (("x", 2),)}:
                for j in range(32):
                    block "y" (i_1: spatial[64] = i, j_1: spatial[32] = j):
                        y[i_1, j_1] = x[i_1, j_1] + 1.0
        """,
    )
    check(f, s.func)
    s.prefetch(i, "y", 0)  # only written there: asks for the lines that stores will go to
    check(f, s.func)
    with pytest.raises(ScheduleError, match="no buffer"):
        s.prefetch(i, "z")
    with pytest.raises(ScheduleError, match="prefetch: locality 4"):
        s.prefetch(i, "x", locality=4)
    s.prefetch(i, "x", 1, locality=2)
    assert '("x", 1, "", "", 2)' in to_text(s.func)
    check(f, s.func)


def test_what_is_computed_and_read_in_a_loop_is_not_asked_for():
    s, _, k, _ = _fetching()
    with pytest.raises(ScheduleError, match="computed and read inside"):
        s.prefetch(k, "A_global")


def test_prefetch_is_spread_over_an_inner_serial_loop():
    x = te.placeholder((64, 32), name="x")
    y = te.compute((64, 32), lambda i, j: x[i, j] + 1.0, name="y")
    f = create_prim_func([x], [y], "rows")
    s = Schedule(f)
    i, j = s.loops("y")
    outer, inner = s.split(j, [None, 4])
    s.prefetch(i, "x", 1, through=outer)
    assert f'{{"prefetch": (("x", 1, "{outer}"),)}}' in to_text(s.func)
    check(f, s.func)
    s.vectorize(inner)
    for wrong in (i, inner):
        with pytest.raises(ScheduleError, match="must be a serial loop inside"):
            s.prefetch(i, "x", 1, through=wrong)
    with pytest.raises(ScheduleError, match="must be a serial loop inside"):
        s.prefetch(outer, "x", 1, through=i)


def test_double_buffer_is_a_note_on_the_allocation():
    s, f, _, fetch = _fetching()
    s.double_buffer(fetch)
    check(f, s.func)
    with pytest.raises(ScheduleError, match="parameter"):
        s.double_buffer("E")
    with pytest.raises(ScheduleError, match="not computed inside a loop"):
        s.double_buffer("C")


def test_rolling_buffer_needs_a_loop_in_order():
    x = te.placeholder((66, 8), name="x")
    a = te.compute((66, 8), lambda i, j: x[i, j] * 2.0, name="a")
    b = te.compute((64, 8), lambda i, j: a[i, j] + a[i + 1, j] + a[i + 2, j], name="b")
    f = create_prim_func([x], [b])
    s = Schedule(f)
    i, _ = s.loops("b")
    s.compute_at("a", i)
    s.rolling_buffer("a")
    check(f, s.func)
    t = Schedule(f)
    t.compute_at("a", i)
    t.parallel(i)
    with pytest.raises(ScheduleError, match="parallel"):
        t.rolling_buffer("a")


def test_pipelines_keep_makers_before_users():
    s, f, k, _ = _fetching()
    before = s.func
    for stages, order in (((0,), None), ((1, 0), None), ((0, 0), (1, 0)), ((0, 1), (0, 0))):
        with pytest.raises(ScheduleError):
            s.pipeline(k, stages, order)
    assert s.func is before
    s.pipeline(k, (0, 1))
    assert s.loop(k).annotations["software_pipeline_stage"] == (0, 1)
    check(f, s.func)
