"""Pipelined loops keep their statements: later steps may not change them, and lowering counts what they become."""

from __future__ import annotations

import pytest
from tir_programs import check

from warpbeam import target
from warpbeam.codegen import llvm
from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.te import tensor as te
from warpbeam.te.create import create_prim_func
from warpbeam.tir.schedule import Schedule
from warpbeam.tir.text import to_text
from warpbeam.tir.transform import lower


def _rows(count: int = 6):
    """Sums of rows, each row copied before it is summed."""
    x = te.placeholder((count, 8), name="x")
    k = te.reduce_axis(8, "k")
    y = te.compute((count,), lambda i: te.sum(x[i, k], axis=k), name="y")
    f = create_prim_func([x], [y], "sums")
    s = Schedule(f)
    copy = s.cache_read("y", "x", "global")
    loop = s.loops("y")[0]
    s.compute_at(copy, loop)
    return f, s, copy, loop


def test_a_reduction_inside_becomes_two_statements_of_one_stage():
    f, s, _, loop = _rows()
    s.pipeline(loop, (0, 1))
    text = to_text(check(f, s.func))
    assert "x_global[(i + 1) % 2" in text


def test_a_prefetch_is_of_the_first_stage():
    f, s, _, loop = _rows()
    s.pipeline(loop, (0, 1))
    s.prefetch(loop, "x", 2)
    assert "prefetch" in to_text(check(f, s.func))


def test_a_copy_that_becomes_nothing_leaves_the_other_stages():
    f, s, copy, loop = _rows(1)
    s.pipeline(loop, (0, 1))
    s.double_buffer(copy)
    check(f, s.func)


def test_later_steps_may_not_add_statements():
    _, s, _, loop = _rows()
    s.pipeline(loop, (0, 1))
    before = s.func
    with pytest.raises(ScheduleError, match="pipeline of 2 statements"):
        s.decompose_reduction("y", s.loops("y")[-1])
    assert s.func is before


@pytest.mark.parametrize("how", ["parallel", "vectorize"])
def test_a_pipeline_stays_serial(how):
    _, s, _, loop = _rows()
    s.pipeline(loop, (0, 1))
    with pytest.raises(ScheduleError, match="is a pipeline; it cannot be"):
        getattr(s, how)(loop)


def test_what_lives_longer_than_an_iteration_cannot_pass_between_stages():
    x = te.placeholder((8, 8), name="x")
    y = te.compute((8, 8), lambda i, j: x[i, j] + 1.0, name="y")
    z = te.compute((8, 8), lambda i, j: y[i, j] * 2.0, name="z")
    w = te.compute((8, 8), lambda i, j: y[j, i] + z[i, j], name="w")
    s = Schedule(create_prim_func([x], [w], "maps"))
    i = s.merge(s.loops("y")[0], s.loops("z")[0])
    with pytest.raises(ScheduleError, match="beyond one iteration"):
        s.pipeline(i, (0, 1))
    s.pipeline(i, (0, 0))


def test_a_buffer_computed_inside_the_loop_is_not_fetched_ahead():
    x = te.placeholder((8, 8), name="x")
    y = te.compute((8, 8), lambda i, j: x[i, j] + 1.0, name="y")
    z = te.compute((8, 8), lambda i, j: y[i, j] * 2.0, name="z")
    f = create_prim_func([x], [z], "maps")
    s = Schedule(f)
    i = s.loops("z")[0]
    s.prefetch(i, "y")
    s.compute_at("y", i)
    assert "prefetch" not in to_text(lower(s.func))
    check(f, s.func)


def test_layouts_of_what_instructions_reach_are_refused():
    x = te.placeholder((8, 16), name="x")
    y = te.placeholder((4, 16), name="w")
    k = te.reduce_axis(4, "k")
    c = te.compute((8, 16), lambda i, j: te.sum(x[i, k] * y[k, j], axis=k), name="c")
    s = Schedule(create_prim_func([x, y], [c], "sum"))
    i, j, r = s.loops("c")
    s.reorder(r, i, j)
    s.tensorize(j, "fma.f32.1x16")
    with pytest.raises(ScheduleError, match="in vectors"):
        s.transform_layout("c", lambda i, j: (j, i))


def test_a_buffer_of_unknown_size_keeps_the_loop_as_it_was():
    n = te.size_var("n")
    x = te.placeholder((n, 8), name="x")
    y = te.compute((n, 8), lambda i, j: x[i, j] + 1.0, name="y")
    z = te.compute((n, 8), lambda i, j: y[i, j] * 2.0, name="z")
    f = create_prim_func([x], [z], "maps")
    s = Schedule(f)
    i, j = s.loops("z")
    io, ii = s.split(i, [None, 2])
    s.compute_at("y", io)
    s.pipeline(io, (0, 1))
    s.reorder(j, ii)
    s.fuse(j, ii)
    check(f, s.func, sizes={"n": 7})


def test_what_has_become_a_register_is_not_fetched():
    x = te.placeholder((4, 8), name="x")
    k = te.reduce_axis(8, "k")
    y = te.compute((4,), lambda i: te.sum(x[i, k], axis=k), name="y")
    z = te.compute((4, 8), lambda i, j: x[i, j] + y[i], name="z")
    s = Schedule(create_prim_func([x], [z], "f"))
    i, j = s.loops("z")
    s.prefetch(j, "y")
    s.compute_at("y", i)
    lowered = lower(s.func)
    assert "@register" in to_text(lowered)
    llvm.print_kernel(lowered, target.get("native"))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5])
def test_three_stages_over_few_iterations_run_each_statement_once(n):
    rows = te.size_var("n")
    x = te.placeholder((rows, 8), name="x")
    k = te.reduce_axis(8, "k")
    y = te.compute((rows,), lambda i: te.sum(x[i, k], axis=k), name="y")
    f = create_prim_func([x], [y], "sums")
    s = Schedule(f)
    loop = s.loops("y")[0]
    s.compute_at(s.cache_read("y", "x", "local"), loop)
    s.rfactor(s.loops("y")[-1])
    s.pipeline(loop, (0, 1, 2, 2))
    check(f, s.func, sizes={"n": n})


def test_a_double_buffer_used_within_one_stage_of_a_pipeline():
    x = te.placeholder((4, 8), name="x")
    a = te.compute((4, 8), lambda i, j: x[i, j] + 1.0, name="a")
    b = te.compute((4, 8), lambda i, j: a[i, j] * 2.0, name="b")
    c = te.compute((4, 8), lambda i, j: b[i, j] + x[i, j], name="c")
    f = create_prim_func([x], [c], "maps")
    s = Schedule(f)
    _, inner = s.split(s.loops("c")[0], [None, 2])
    s.compute_at("b", inner)
    s.compute_at("a", inner)
    s.double_buffer("b")
    s.pipeline(inner, (0, 1, 1))
    check(f, s.func)
