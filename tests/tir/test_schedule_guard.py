"""Splits and placements with constant extents and conditions; placement for all threads that share a memory."""

from __future__ import annotations

import pytest
import tir_programs as programs
from test_schedule_golden import same
from tir_programs import check

from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.te import tensor as te
from warpbeam.te.create import create_prim_func
from warpbeam.tir.schedule import Schedule
from warpbeam.tir.text import parse


def test_guarded_split():
    f = programs.pointwise(100)
    s = Schedule(f)
    s.compute_inline("B")
    s.split(s.loops("C")[0], [None, 16], names=["o", "v"], guard=True)
    same(
        s.func,
        """
        def pointwise(A: float32[100], C: float32[100]) {"global_symbol": "pointwise"}:
            for o in range(7):
                for v in range(16):
                    block "C" (i0: spatial[100] = o * 16 + v) where likely(o * 16 + v < 100):
                        C[i0] = A[i0] * 2.0 + A[i0]
        """,
    )
    check(f, s.func)


@pytest.mark.parametrize("factors", [[3, None], [None, 3], [2, None, 4], [4, 30], [5, 5, 5]])
@pytest.mark.parametrize("extent", [1, 7, 24, 100])
def test_guarded_split_covers_every_iteration_once(factors, extent):
    f = programs.pointwise(extent)
    s = Schedule(f)
    parts = s.split(s.loops("C")[0], factors, guard=True)
    assert all(s.extent(p) is not None for p in parts)
    check(f, s.func)
    s.fuse(*parts)
    check(f, s.func)


def test_guarded_split_of_a_symbolic_loop():
    f = programs.pointwise(te.size_var("n"))
    s = Schedule(f)
    o, v = s.split(s.loops("C")[0], [None, 16], guard=True)
    assert s.extent(v) == 16
    s.vectorize(v)
    s.parallel(o)
    for size in (1, 16, 37, 64):
        check(f, s.func, sizes={"n": size})


def test_what_is_in_a_part_that_stops_early_gets_constant_extents():
    f = programs.pointwise(100)
    s = Schedule(f)
    _, i = s.split(s.loops("C")[0], [None, 14])
    parts = s.split(i, [None, 4], guard=True)
    assert [s.extent(p) for p in parts] == [4, 4]
    check(f, s.func)


def test_reductions_under_conditions():
    f = programs.matmul(9, 10, 11)
    s = Schedule(f)
    s.compute_inline("D")
    i, j, k = s.loops("C")
    io, ii = s.split(i, [None, 4], guard=True)
    ko, ki = s.split(k, [None, 3], guard=True)
    s.reorder(io, ko, ki, ii, j)
    check(f, s.func)
    first = s.decompose_reduction("C", ko)
    assert str(s.block(first).predicate) != "1" and len(s.loops(first)) == 3
    check(f, s.func)


def test_partial_results_under_conditions():
    f = programs.softmax(5, 19)
    s = Schedule(f)
    row, q = s.loops("sm")
    s.split(row, [None, 2], guard=True)
    _, lane = s.split(q, [None, 4], guard=True)
    partial = s.rfactor(lane)
    check(f, s.func)
    s.fuse(*s.loops(partial)[:2])
    check(f, s.func)


def test_guarded_consumers_and_producers():
    x = te.placeholder((66,), name="x")
    a = te.compute((66,), lambda i: x[i] * 2.0, name="a")
    b = te.compute((64,), lambda i: a[i] + a[i + 1] + a[i + 2], name="b")
    f = create_prim_func([x], [b])
    s = Schedule(f)
    o, _ = s.split(s.loops("b")[0], [None, 24], guard=True)
    s.compute_at("a", o, guard=True)
    assert s.extent(s.loops("a")[-1]) == 26
    check(f, s.func)
    s.split(s.loops("a")[-1], [None, 4], guard=True)
    lowered = check(f, s.func)
    assert lowered.attrs["workspace"] == 0
    s.compute_inline("a")
    check(f, s.func)


def _bound_matmul(scope: str) -> tuple[Schedule, object]:
    f = programs.matmul(16, 16, 8)
    s = Schedule(f)
    s.compute_inline("D")
    i, j = s.loops("E")
    by, ty = s.split(i, [None, 4], guard=True)
    bx, tx = s.split(j, [None, 8], guard=True)
    s.reorder(by, bx, ty, tx)
    for loop, tag in ((by, "blockIdx.y"), (bx, "blockIdx.x"), (ty, "threadIdx.y"), (tx, "threadIdx.x")):
        s.bind(loop, tag)
    s.set_scope("C", scope)
    return s, f


@pytest.mark.parametrize("scope, extents", [("local", [1, 1]), ("shared", [4, 8]), ("global", [16, 16])])
def test_threads_that_share_memory_compute_the_whole_tile(scope, extents):
    s, f = _bound_matmul(scope)
    s.compute_at("C", s.loops("E")[-1], relax=True)
    assert [s.extent(n) for n in s.loops("C")[4:6]] == extents
    check(f, s.func)


def test_a_fetch_for_all_threads_is_bound_again():
    s, f = _bound_matmul("local")
    tx = s.loops("E")[-1]
    s.compute_at("C", tx, relax=True)
    k = s.loops("C")[-1]
    ko, _ = s.split(k, [None, 4], guard=True)
    s.reorder(ko, *[n for n in s.loops("C")[4:-1] if n != ko])
    fetch = s.cache_read("C", "A", "shared")
    s.compute_at(fetch, ko, relax=True)
    assert [s.extent(n) for n in s.loops(fetch)[-2:]] == [4, 4]
    joined = s.fuse(*s.loops(fetch)[-2:])
    _, inner = s.split(joined, [None, 8], guard=True)
    s.bind(inner, "threadIdx.x")
    check(f, s.func)


def test_what_a_guarded_producer_makes_must_be_known():
    f = programs.pointwise(100)
    s = Schedule(f)
    _, i = s.split(s.loops("B")[0], [None, 16], guard=True)
    o, _ = s.split(i, [None, 5], guard=True)
    with pytest.raises(ScheduleError, match="not known to be a box"):
        s.reverse_compute_at("C", o)


def test_partition_knows_of_a_loop_only_inside_it():
    """That one loop runs at all says nothing of the loop beside it."""
    f = parse(
        """
def f(A: float32[4], B: float32[4], C: float32[4]):
    for i in range(3):
        for j in range(2):
            for c in range(1):
                for k in range(min(1, 4 - i * 2 - j)):
                    block "B" (v: spatial[4] = i * 2 + j + k):
                        B[v] = A[v]
                for k_1 in range(min(1, 4 - i * 2 - j)):
                    block "C" (v: spatial[4] = i * 2 + j + k_1):
                        C[v] = A[v]
"""
    )
    s = Schedule(f)
    s.partition("c", 0)
    check(f, s.func, outputs=2)


def test_a_consumer_does_not_go_where_the_part_that_is_made_is_not_known():
    f = parse(
        """
def f(A: float32[4], C: float32[4]):
    alloc B: float32[4]
    for i in range(3):
        for j in range(1):
            for k in range(min(2, 4 - i * 2)):
                block "B" (v: spatial[4] = i * 2 + (j * min(2, 4 - i * 2) + k)):
                    B[v] = A[v]
    for i_1 in range(4):
        block "C" (v: spatial[4] = i_1):
            C[v] = B[v]
"""
    )
    s = Schedule(f)
    with pytest.raises(ScheduleError, match="not known to be a box"):
        s.reverse_compute_at("C", "i")


def test_a_consumer_does_not_go_where_nothing_may_be_made():
    f = parse(
        """
def f(A: float32[6], C: float32[6]):
    alloc B: float32[6]
    for i in range(6):
        for j in range(2):
            for k in range(min(1, 1 - j)):
                block "B" (v: spatial[6] = i):
                    B[v] = A[v]
    for i_1 in range(6):
        block "C" (v: spatial[6] = i_1):
            C[v] = B[v]
"""
    )
    s = Schedule(f)
    with pytest.raises(ScheduleError, match="not known to be a box"):
        s.reverse_compute_at("C", "j")


def test_a_producer_does_not_go_before_what_it_reads():
    f = programs.matmul(4, 4, 6)
    s = Schedule(f)
    partial = s.rfactor(s.split(s.loops("C")[2], [None, 2])[1])
    i = s.loops("C")[0]
    s.reverse_compute_at("D", s.loops("C")[1])
    s.reverse_compute_at("E", s.loops("D")[1])
    assert partial in s.blocks()
    before = s.func
    with pytest.raises(ScheduleError, match="would come after it"):
        s.compute_at("C", i)
    assert s.func is before


def test_a_consumer_gets_no_more_than_loops_that_stop_early_make():
    """The inner part of one iteration split by 4 never has four: other iterations make those elements, and later."""
    f = programs.pointwise(12)
    s = Schedule(f)
    o, p, q = s.split(s.loops("B")[0], [3, 4, 1])
    s.split(q, [None, 4])
    s.reorder(p, o)
    s.reverse_compute_at("C", o)
    check(f, s.func)
    assert s.extent(s.loops("C")[-1]) == 1
