"""Steps beyond the basic ones: each as text before and after, each equal to the unscheduled program, each refusing."""

from __future__ import annotations

import numpy as np
import pytest
import schedule_primitives
import schedule_programs
import tir_programs as programs
from test_schedule_golden import same
from tir_programs import check

from warpbeam import te
from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.te.create import create_prim_func
from warpbeam.tir.expr import Buffer, SizeVar, Var, const, minimum
from warpbeam.tir.expr import call as intrinsic
from warpbeam.tir.interp import run
from warpbeam.tir.schedule import Schedule
from warpbeam.tir.stmt import Block, BufferStore, For, IterVar, PrimFunc


def two_rows() -> PrimFunc:
    x = te.placeholder((8,), name="x")
    a = te.compute((8,), lambda i: x[i] * 2.0, name="a")
    b = te.compute((8,), lambda i: a[i] + 1.0, name="b")
    return create_prim_func([x], [b], "two")


def test_tile():
    f = programs.pointwise(16, 32)
    s = Schedule(f)
    assert list(s.tile(*s.loops("C"), 4, 8)) == s.loops("C")
    assert [s.extent(n) for n in s.loops("C")] == [4, 4, 4, 8]
    check(f, s.func)
    before, steps = s.func, len(s.trace)
    with pytest.raises(ScheduleError):
        s.tile(s.loops("B")[0], "nowhere", 2, 2)
    assert s.func is before and len(s.trace) == steps


def test_merge_makes_one_loop_of_neighbours():
    f = two_rows()
    s = Schedule(f)
    assert s.merge("i", "i_1") == "i"
    same(
        s.func,
        """
        def two(x: float32[8], b: float32[8]) {"global_symbol": "two"}:
            alloc a: float32[8]
            for i in range(8):
                block "a" (vi: spatial[8] = i):
                    a[vi] = x[vi] * 2.0
                block "b" (vj: spatial[8] = i):
                    b[vj] = a[vj] + 1.0
        """,
    )
    check(f, s.func)


def test_merge_refuses_what_other_iterations_need():
    x = te.placeholder((8,), name="x")
    a = te.compute((8,), lambda i: x[i] * 2.0, name="a")
    b = te.compute((8,), lambda i: a[7 - i] + 1.0, name="b")
    s = Schedule(create_prim_func([x], [b], "back"))
    with pytest.raises(ScheduleError, match="same elements of a"):
        s.merge("i", "i_1")


def test_compute_root_undoes_compute_at():
    f = two_rows()
    s = Schedule(f)
    o, _ = s.split("i_1", [None, 4])
    s.compute_at("a", o)
    s.compute_root("a")
    same(
        s.func,
        """
        def two(x: float32[8], b: float32[8]) {"global_symbol": "two"}:
            alloc a: float32[8]
            for i in range(8):
                block "a" (vi: spatial[8] = i):
                    a[vi] = x[vi] * 2.0
            for i_1_0 in range(2):
                for i_1_1 in range(4):
                    block "b" (vj: spatial[8] = i_1_0 * 4 + i_1_1):
                        b[vj] = a[vj] + 1.0
        """,
    )
    check(f, s.func)
    before = s.func
    s.compute_root("a")
    assert s.func is before


def test_blockize_makes_tiles_instances():
    f = programs.matmul(8, 16, 4)
    s = Schedule(f)
    i, j, k = s.loops("C")
    io, jo, ii, ji = s.tile(i, j, 4, 8)
    s.reorder(io, jo, k, ii, ji)
    assert s.blockize(ii) == "C"
    assert s.loops("C") == [io, jo, k] and [a.kind for a in s.block("C").axes] == ["spatial", "spatial", "reduce"]
    check(f, s.func)
    s.decompose_reduction("C", k)
    check(f, s.func)
    t = Schedule(programs.matmul(9, 16, 4))
    io, _ = t.split(t.loops("C")[0], [None, 4])
    with pytest.raises(ScheduleError, match="blockize"):
        t.blockize(t.loops("C")[1])


def test_pad_einsum():
    f = schedule_programs.program("matmul")
    s = Schedule(f)
    made = s.pad_einsum("C", [4, 8, 4])
    assert made == ("A_pad", "B_pad", "C_unpad")
    assert [s.extent(n) for n in s.loops("C")] == [12, 24, 8]
    check(f, s.func)
    with pytest.raises(ScheduleError, match="no sum of products"):
        s.pad_einsum("D", [2, 2])
    with pytest.raises(ScheduleError, match="3 positive numbers"):
        s.pad_einsum("C", [2, 2])


def test_skip_zeros_refuses_what_adds_no_product_with_a_border():
    f = schedule_programs.program("conv2d")
    s = Schedule(f)
    with pytest.raises(ScheduleError, match="decompose_reduction first"):
        s.skip_zeros("Y", "P", [1])
    s.decompose_reduction("Y", s.loops("Y")[4])
    with pytest.raises(ScheduleError, match="Y does not add a product with X"):
        s.skip_zeros("Y", "X", [1])
    with pytest.raises(ScheduleError, match="W is no copy with a border of zeros"):
        s.skip_zeros("Y", "W", [0])
    with pytest.raises(ScheduleError, match=r"along dimensions \(4,\)"):
        s.skip_zeros("Y", "P", [4])
    before = s.func
    s.skip_zeros("Y", "P", [0])
    assert s.func is before, "there is no border along the batch"
    s.skip_zeros("Y", "P", [1, 2])
    assert s.func is not before
    check(f, s.func)


def distances(
    begin=-9000.0, fn="exp", more=False, swapped=False, count=10, squared=False, again=None, back=False, given=False
):
    """As `weighted`, with something else in one place."""
    x = te.placeholder((6, 10), name="X")
    k, r, q = te.reduce_axis(10, "k"), te.reduce_axis(count, "r"), te.reduce_axis(10, "q")
    t = te.compute((6,), lambda i: te.max(x[i, k], axis=k, init=const(begin, "float32")), name="T")
    w = te.compute((6, 10), lambda i, j: intrinsic(fn, (t[again(i)] + x[i, j] if again else x[i, j]) - t[i]), name="W")

    def term(i):
        value = w[i, r] + 1.0 if squared else x[i, r]
        return w[i, r] + value if swapped else w[i, r] * value

    s = te.compute((6,), lambda i: te.sum(term(i), axis=r), name="S")
    n = te.compute((6,), lambda i: te.sum(w[i, 9 - q] * x[i, q], axis=q), name="N") if back else s
    out = te.compute((6, 10), lambda i, j: s[i] + n[i] + (w[i, j] if more else x[i, j]), name="E")
    return create_prim_func([x], [out, w] if given else [out], "distances")


def test_rescale_refuses_what_are_no_weights_below_a_maximum():
    def refused(words, func, top="T", weights="W", sums=("S",), before=lambda s: None):
        s = Schedule(func)
        before(s)
        with pytest.raises(ScheduleError, match=words):
            s.rescale(top, weights, sums)

    refused("begins with a finite number", distances(float("-inf")))
    refused("is not the exponential of how far", distances(fn="sqrt"))
    refused("W is not read by S alone", distances(more=True))
    refused("S is no sum, from zero, of values times W", distances(swapped=True))
    refused("S is no sum, from zero, of values times W", distances(squared=True))
    refused("W is not read by S alone", distances(given=True))
    refused("W has not one loop over all that is reduced", distances(back=True), sums=("S", "N"))
    for again in (lambda i: i, lambda i: 5 - i):
        refused("is not the exponential of how far", distances(again=again))
    halves = schedule_programs.program("weighted")
    refused("write S", halves, sums=("N", "S", "S_p1"), before=lambda s: s.partition(s.loops("S")[0], 3))
    refused("S has not one loop over all that is reduced", distances(count=9))
    refused("do not follow each other", distances(), top="W", weights="T")
    refused("not one loop over all that is reduced", distances(), before=lambda s: s.split(s.loops("T")[1], [None, 5]))
    refused("not one loop over all that is reduced", distances(), before=lambda s: s.parallel(s.loops("W")[0]))
    refused("do not follow each other", distances(), before=lambda s: s.decompose_reduction("S", s.loops("S")[1]))


def test_rescale_takes_what_was_placed_in_a_loop():
    f = schedule_programs.program("weighted")
    s = Schedule(f)
    at, _ = s.split(s.loops("E")[0], [None, 2])
    for name in ("S", "N", "W", "T"):
        s.compute_at(name, at)
    loop = s.rescale("T", "W", ["N", "S"])
    s.compute_at("M", loop)
    assert s.loops("M")[:2] == [at, loop]
    check(f, s.func)


def test_skip_zeros_for_iterations_together():
    f = schedule_programs.program("conv2d")
    s = Schedule(f)
    loops = s.loops("Y")
    s.decompose_reduction("Y", loops[4])
    apart = Schedule(s.func)
    apart.skip_zeros("Y", "P", [1])
    s.skip_zeros("Y", "P", [1], [loops[1]])
    assert s.func is not apart.func
    check(f, s.func)
    s = Schedule(f)
    fused = s.fuse(*s.loops("Y")[1:3])
    s.decompose_reduction("Y", s.loops("Y")[3])
    with pytest.raises(ScheduleError, match=f"how the border depends on {fused} is not known"):
        s.skip_zeros("Y", "P", [1], [fused])


def test_pieces_of_which_the_last_begins_earlier_are_each_iterations_own():
    x = te.placeholder((20,), name="X")
    a = te.compute((20,), lambda i: x[i] * 2.0, name="A")
    b = te.compute((3, 8), lambda p, j: a[minimum(p * 8, 12) + j] + x[j], name="B")
    f = create_prim_func([x], [b], "pieces")
    s = Schedule(f)
    p, _ = s.loops("B")
    s.compute_at("A", p)
    assert s.extent(s.loops("A")[1]) == 8
    s.parallel(p)
    check(f, s.func)
    _, _, new = s.partition(p, 2)
    assert s.block(new["A"]).body.buffer is not s.block("A").body.buffer
    check(f, s.func)


def test_notes_and_pragmas():
    f = two_rows()
    s = Schedule(f)
    s.pragma("i", "auto_unroll_max_step", 16)
    s.annotate("b", "mark", (1, 2))
    assert s.loop("i").annotations["pragma_auto_unroll_max_step"] == 16 and s.block("b").annotations["mark"] == (1, 2)
    check(f, s.func)
    s.unannotate("b", "mark")
    assert not s.block("b").annotations
    with pytest.raises(ScheduleError, match="no note"):
        s.unannotate("b", "mark")
    with pytest.raises(ScheduleError, match="unknown pragma"):
        s.pragma("i", "magic")


def test_producers_and_consumers():
    s = Schedule(schedule_programs.program("chain"))
    assert s.get_consumers("A") == ["B", "C"] and s.get_producers("D") == ["B", "C"]
    assert s.get_consumers("E") == [] and s.get_producers("A") == []


def test_one_cache_for_several_readers():
    f = schedule_programs.program("chain")
    s = Schedule(f)
    name = s.cache_read("B", "A", "global", consumers=["C"])
    assert s.get_consumers(name) == ["B", "C"]
    check(f, s.func)


def test_a_partition_is_not_followed_by_a_consumer_of_the_whole():
    f = programs.pointwise(6, 8)
    s = Schedule(f)
    i, j = s.loops("B")
    s.partition(j, 2)
    with pytest.raises(ScheduleError, match="each write a part"):
        s.reverse_compute_at("C", i)


def test_fused_reductions_keep_their_order():
    s = Schedule(programs.softmax(5, 6))
    both = s.fuse(*s.loops("sm"))
    outer, inner = s.split(both, [None, 5])
    with pytest.raises(ScheduleError, match="must keep their order"):
        s.reorder(inner, outer)
    with pytest.raises(ScheduleError, match="both a spatial and a reduction"):
        s.rfactor(inner)


def test_overlapping_parts_of_a_reduction_are_not_decomposed_outside():
    x = te.placeholder((12, 4), name="x")
    k = te.reduce_axis(4, "k")
    a = te.compute((12,), lambda i: te.sum(x[i, k], axis=k), name="a")
    b = te.compute((10,), lambda i: a[i] + a[i + 2], name="b")
    f = create_prim_func([x], [b], "halo")
    s = Schedule(f)
    o, _ = s.split(s.loops("b")[0], [None, 5])
    s.compute_at("a", o)
    with pytest.raises(ScheduleError, match="more than once"):
        s.decompose_reduction("a", o)
    s.parallel(o)
    check(f, s.func)


def test_updates_in_place_carry_dependences():
    buffer, i, vi = Buffer("A", (8,)), Var("i"), Var("vi")
    body = BufferStore(buffer, buffer[vi] + buffer[vi + 1], (vi,))
    block = Block("step", (IterVar(vi, 7),), (i,), True, None, body)
    s = Schedule(PrimFunc("shift", (buffer,), For(i, 0, const(7), "serial", block)))
    for call in (s.parallel, s.vectorize, lambda n: s.bind(n, "blockIdx.x")):
        with pytest.raises(ScheduleError, match="share elements of A"):
            call("i")
    with pytest.raises(ScheduleError, match="in place"):
        s.cache_write("step", "local")
    s.split("i", [None, 2])


def test_scans_run_in_order():
    f = schedule_programs.program("scan")
    s = Schedule(f)
    t, i = s.loops("update")
    for call in (s.parallel, s.vectorize, lambda n: s.bind(n, "threadIdx.x")):
        with pytest.raises(ScheduleError, match="order in which update runs"):
            call(t)
    s.reorder(i, t)
    s.parallel(i)
    check(f, s.func)


def test_caches_copy_whole_results_only():
    x = te.placeholder((4,), name="x")
    a = te.compute((4,), lambda i: x[i] * 2.0, name="a")
    s = Schedule(create_prim_func([x], [a], "layout"))
    s.transform_layout("a", lambda i: (i // 2, i % 2))
    with pytest.raises(ScheduleError, match="whole of a"):
        s.cache_write("a", "local")


def test_loop_axes_say_what_is_read_in_terms_of_loops():
    """Parts of a fused loop read parts of what it walks through in order, also where only the run tells sizes."""
    n, m = SizeVar("n"), SizeVar("m")
    x = te.placeholder((n * m, 4), name="X")
    p = te.compute((n * m, 4), lambda i, c: x[i, c] * 2.0, name="P")
    y = te.compute((n, m, 4), lambda i, j, c: p[i * m + j, c] + 1.0, name="Y")
    s = Schedule(create_prim_func([x], [y], "f"))
    i, j, _ = s.loops("Y")
    outer, _ = s.split(s.fuse(i, j), [None, 8], guard="kept")
    s.loop_axes("Y")
    s.compute_at("P", outer)
    assert s.extent(s.loops("P")[1]) == 8 or "min(8" in str(s.loop(s.loops("P")[1]).extent)
    assert len(s.block("Y").axes) == 3
    for size in ((1, 1), (3, 5), (4, 8)):
        a = np.random.default_rng(size).standard_normal((size[0] * size[1], 4)).astype(np.float32)
        got = np.zeros((*size, 4), np.float32)
        run(s.func, a, got, *size)
        assert np.array_equal(got, a.reshape(got.shape) * 2 + 1)


def test_loop_axes_say_which_part_of_a_loop_is_read():
    """Every second element of a row together: that iterations keep apart is seen afterwards, too."""
    x = te.placeholder((20,), name="X")
    p = te.compute((12,), lambda i: x[i] * 2.0, name="P")
    y = te.compute((20,), lambda i: p[i // 4 * 2 + i % 2] + 1.0, name="Y")
    s = Schedule(create_prim_func([x], [y], "f"))
    outer, within, begin = s.split(s.loops("Y")[0], [None, 2, 2], guard="kept")
    s.reorder(outer, begin, within)
    blocks, _ = s.split(s.fuse(outer, begin), [None, 5])
    s.loop_axes("Y")
    s.parallel(blocks)
    s.compute_at("P", s.loops("Y")[1])
    assert s.extent(s.loops("P")[-1]) == 1
    a, got = np.random.default_rng(0).standard_normal(20).astype(np.float32), np.zeros(20, np.float32)
    run(s.func, a, got)
    assert np.array_equal(got, 2 * a[np.arange(20) // 4 * 2 + np.arange(20) % 2] + 1)


def test_loop_axes_leave_axes_that_share_no_loop():
    s = Schedule(schedule_primitives.maps())
    before = s.func
    s.loop_axes("C")
    assert s.func is before
