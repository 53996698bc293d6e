"""Every primitive keeps the program's meaning, or refuses and leaves it alone."""

from __future__ import annotations

import numpy as np
import pytest
import tir_programs as programs
from tir_programs import check

from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.te import tensor as te
from warpbeam.te.create import create_prim_func
from warpbeam.te.scan import scan
from warpbeam.tir.schedule import Schedule, apply_layout
from warpbeam.tir.text import parse


def test_split_divides_or_stops_early():
    f = programs.pointwise(100)
    s = Schedule(f)
    i, j = s.split(s.loops("C")[0], [None, 16])
    assert (s.extent(i), s.extent(j)) == (7, None)
    check(f, s.func)
    s.split(i, [2, None])
    s.split(s.loops("B")[0], [None, 5, 4])
    assert [s.extent(n) for n in s.loops("B")] == [5, 5, 4]
    check(f, s.func)


@pytest.mark.parametrize(
    "factors", [[3, None], [None, 3], [2, None, 4], [2, 3, None], [None, 2, 3], [4, 30], [5, 5, 5]]
)
@pytest.mark.parametrize("extent", [1, 7, 24, 100])
def test_split_covers_every_iteration_once(factors, extent):
    f = programs.pointwise(extent)
    s = Schedule(f)
    s.split(s.loops("C")[0], factors)
    check(f, s.func)


def test_split_of_a_symbolic_loop():
    n = te.size_var("n")
    f = programs.pointwise(n)
    s = Schedule(f)
    i, j = s.split(s.loops("C")[0], [None, 16])
    s.vectorize(j)
    s.parallel(i)
    for size in (1, 16, 37, 64):
        check(f, s.func, sizes={"n": size})


def test_fuse_and_reorder():
    f = programs.pointwise(6, 5, 4)
    s = Schedule(f)
    i, j, k = s.loops("C")
    s.reorder(k, i)
    assert s.loops("C") == [k, j, i]
    assert s.fuse(k, j, i, name="all") == "all"
    assert s.extent("all") == 120
    check(f, s.func)


def test_reduction_loops_reorder_but_do_not_run_in_parallel():
    f = programs.matmul(5, 6, 7)
    s = Schedule(f)
    i, j, k = s.loops("C")
    s.reorder(k, j, i)
    check(f, s.func)
    before = s.func
    for refused in (s.parallel, s.vectorize):
        with pytest.raises(ScheduleError, match="carries the reduction of C"):
            refused(k)
    assert s.func is before and len(s.trace) == 1


def test_partition_makes_extents_constant():
    f = programs.pointwise(49, 20)
    s = Schedule(f)
    i, _ = s.loops("C")
    mo, mi = s.split(i, [None, 14])
    first, second, names = s.partition(mo, 3)
    assert (first, second) == (mo, f"{mo}_p1")
    assert (s.extent(mi), s.extent(names[mi])) == (14, 7)
    assert names["C"] == "C_p1"
    check(f, s.func)


def sums_inside_rows():
    """A product whose sums are made inside the loop over rows: the function, its schedule, that loop."""
    f = programs.matmul(10, 6, 5)
    s = Schedule(f)
    s.compute_inline("D")
    i, _ = s.loops("E")
    s.compute_at("C", i)
    return f, s, i


def test_partition_gives_private_buffers_a_copy():
    f, s, i = sums_inside_rows()
    _, _, names = s.partition(i, 4)
    assert names["C"] in s.blocks() and names["E"] in s.blocks()
    lowered = check(f, s.func)
    assert lowered.attrs["workspace"] == 0


def test_partition_keeps_blocks_apart_that_have_the_names_of_buffers():
    """The copy of block C by the second partition is neither that by the first nor named as the copy of buffer C."""
    f, s, i = sums_inside_rows()
    k = s.loops("C")[-1]
    s.decompose_reduction("C", k)
    s.partition(k, 2)
    _, _, names = s.partition(i, 4)
    assert names["C"] != "C_p1" and len(s.blocks()) == len(set(s.blocks())) == 8
    check(f, s.func)


def test_inline_both_ways():
    f = programs.matmul(5, 6, 7)
    s = Schedule(f)
    s.compute_inline("D")
    check(f, s.func)
    s = Schedule(f)
    s.reverse_compute_inline("E")
    assert s.blocks() == ["C", "D"]
    check(f, s.func)
    with pytest.raises(ScheduleError, match="reduction"):
        s.compute_inline("C")
    with pytest.raises(ScheduleError, match="output"):
        s.compute_inline("D")


def test_compute_at_finds_the_halo():
    x = te.placeholder((66,), name="x")
    a = te.compute((66,), lambda i: x[i] * 2.0, name="a")
    b = te.compute((64,), lambda i: a[i] + a[i + 1] + a[i + 2], name="b")
    f = create_prim_func([x], [b])
    s = Schedule(f)
    o, _ = s.split(s.loops("b")[0], [None, 16])
    s.compute_at("a", o)
    assert s.extent(s.loops("a")[-1]) == 18
    s.parallel(o)
    lowered = check(f, s.func)
    assert lowered.attrs["workspace"] == 0


def test_compute_at_refuses_a_block_that_nobody_reads():
    f = parse(
        """def main(A: float32[8], B: float32[8]):
    alloc T: float32[8]
    for i in range(8):
        block "t" (v: spatial[8] = i):
            T[v] = A[v]
    for j in range(8):
        block "b" (w: spatial[8] = j):
            B[w] = A[w]
"""
    )
    with pytest.raises(ScheduleError, match="block t cannot be computed inside loop j: nothing reads it there"):
        Schedule(f).compute_at("t", "j")


def test_compute_at_refuses_outside_consumers_and_clone_helps():
    x = te.placeholder((8,), name="x")
    a = te.compute((8,), lambda i: x[i] * 2.0, name="a")
    b = te.compute((8,), lambda i: a[i] + 1.0, name="b")
    c = te.compute((8,), lambda i: a[i] - b[i], name="c")
    f = create_prim_func([x], [c])
    s = Schedule(f)
    before = s.func
    with pytest.raises(ScheduleError, match="clone"):
        s.compute_at("a", s.loops("c")[0])
    assert s.func is before
    twin = s.clone("a", "c")
    s.compute_at(twin, s.loops("c")[0])
    check(f, s.func)


def test_clone_beside_its_consumer_in_a_loop_over_time():
    x, state = te.placeholder((6, 8), name="x"), te.placeholder((6, 8), name="state")
    start = te.compute((1, 8), lambda t, i: x[t, i], name="start")
    k = te.reduce_axis(8, "k")
    total = te.compute((6, 8), lambda t, i: te.sum(state[t - 1, k] * x[i % 6, k], axis=[k]), name="total")
    step = te.compute((6, 8), lambda t, i: total[t, i] * 0.1 + x[t, i], name="step")
    f = create_prim_func([x], [scan(start, step, state)])
    s = Schedule(f)
    _, second, new = s.partition(s.loops("step")[1], 5)
    twin = s.clone("total", new["step"])
    assert s.loops(twin)[0] == s.loops("step")[0]
    s.compute_at(twin, second)
    check(f, s.func)


def test_reverse_compute_at():
    f = programs.matmul(12, 8, 5)
    s = Schedule(f)
    s.compute_inline("D")
    i, _, _ = s.loops("C")
    o, _ = s.split(i, [None, 4])
    s.reverse_compute_at("E", o)
    assert s.loops("E")[0] == o
    check(f, s.func)
    s = Schedule(f)
    s.compute_inline("D")
    with pytest.raises(ScheduleError, match="not complete"):
        s.reverse_compute_at("E", s.loops("C")[-1])


def test_caches():
    f = programs.matmul(12, 32, 5)
    s = Schedule(f)
    s.compute_inline("D")
    copy = s.cache_write("E", "local")
    pack = s.cache_read("C", "B", "global")
    assert copy in s.blocks() and pack in s.blocks()
    check(f, s.func)
    o, _ = s.split(s.loops(copy)[0], [None, 4])
    s.compute_at("E", o)
    s.compute_at("C", o)
    s.compute_at(pack, s.loops("C")[-2])
    check(f, s.func)


def test_decompose_reduction():
    f = programs.matmul(5, 6, 7)
    s = Schedule(f)
    i, j, k = s.loops("C")
    s.reorder(i, k, j)
    with pytest.raises(ScheduleError, match="start anew"):
        s.decompose_reduction("C", j)
    assert s.decompose_reduction("C", k) == "C_init"
    assert s.loops("C_init")[0] == i
    check(f, s.func)


def test_blocking_of_the_reduction():
    f = programs.matmul(24, 32, 40)
    s = Schedule(f)
    s.compute_inline("D")
    i, j, k = s.loops("C")
    ko, ki = s.split(k, [None, 16])
    io, ii = s.split(i, [None, 8])
    s.reorder(io, ko, ii, ki, j)
    s.decompose_reduction("C", ko)
    s.vectorize(s.split(j, [None, 16])[-1])
    check(f, s.func)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("columns", [64, 70, 5])
def test_rfactor(axis, columns):
    x = te.placeholder((4, columns), name="x")
    r = te.reduce_axis(columns, "r")
    y = te.compute((4,), lambda i: te.sum(x[i, r], axis=r), name="y")
    f = create_prim_func([x], [y])
    s = Schedule(f)
    _, rv = s.split(s.loops("y")[-1], [None, 16])
    partial = s.rfactor(rv, axis)
    assert s.blocks() == [f"{partial}_init", partial, "y"]
    s.vectorize(s.loops(partial)[-1])
    s.parallel(s.loops(partial)[0])
    check(f, s.func)


def test_scope_and_alignment():
    f = programs.matmul(12, 8, 5)
    s = Schedule(f)
    with pytest.raises(ScheduleError, match="parameter"):
        s.set_scope("E", "local")
    with pytest.raises(ScheduleError, match="unknown memory scope"):
        s.set_scope("C", "cache")
    s.storage_align("C", 0, 16, 1)
    s.annotate("C", "note", [1, 2])
    assert s.block("C").annotations["note"] == (1, 2)
    check(f, s.func)


def test_layout_of_a_parameter_and_of_an_intermediate():
    f = programs.matmul(6, 100, 9)
    s = Schedule(f)
    layout = s.transform_layout("B", lambda k, n: (n // 64, k, n % 64))
    assert layout["packed"] == (2, 9, 64)
    s.transform_layout("C", lambda i, j: (j // 8, i, j % 8))
    check(f, s.func)
    w = np.arange(900, dtype=np.float32).reshape(9, 100)
    packed = apply_layout(w, layout)
    assert packed[1, 3, 35] == w[3, 99] and packed[1, 3, 36] == 0
    with pytest.raises(ScheduleError, match="a place of its own"):
        s.transform_layout("bias", lambda n: (n // 2,))


def test_unknown_names_are_refused():
    s = Schedule(programs.pointwise(4))
    with pytest.raises(ScheduleError, match="no loop 'x'"):
        s.split("x", [None, 2])
    with pytest.raises(ScheduleError, match="no block 'x'"):
        s.compute_inline("x")


def test_expanded_loops_need_constant_extents():
    n = te.size_var("n")
    s = Schedule(programs.pointwise(n))
    for expand in (s.vectorize, s.unroll):
        with pytest.raises(ScheduleError, match="no constant bound"):
            expand(s.loops("C")[0])


def test_steps_replay():
    f = programs.pointwise(100)
    s = Schedule(f)
    s.compute_inline("B")
    o, _ = s.split(s.loops("C")[0], [None, 16])
    s.partition(o, 6)
    func = f
    for step in s.trace:
        func = step.apply(func)
    check(f, func)
    assert Schedule(func).blocks() == s.blocks()
