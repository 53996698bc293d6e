"""Edits of the dataflow: caches, rfactor, inlining, groups, copies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from te_check import check, loops, matmul, product

from warpbeam import te
from warpbeam.ir.diagnostics import ScheduleError


def chain(n: int = 10, m: int = 12) -> tuple[Any, ...]:
    """D = (A + 1) * 2 + (A + 1)."""
    a = te.placeholder((n, m), name="A")
    b = te.compute((n, m), lambda i, j: a[i, j] + 1.0, name="B")
    c = te.compute((n, m), lambda i, j: b[i, j] * 2.0, name="C")
    d = te.compute((n, m), lambda i, j: c[i, j] + b[i, j], name="D")
    return a, b, c, d


def tripled(a: Any, _: Any) -> Any:
    return (a + 1) * 3


def test_cache_read_serves_the_readers_it_is_given():
    a, b, c, d = chain()
    s = te.create_schedule(d.op)
    bb = s.cache_read(b, "local", [c])
    assert bb.op.name == "B.local" and s[bb].scope == "local"
    assert s[c].op.input_tensors == [bb] and s[c].origin_op is c.op
    assert s[d].op.input_tensors == [s.tensor(c), b]
    assert s[c] is s[s[c].op], "old and new operation are one stage"
    assert s[d].op.axis == d.op.axis, "handles stay valid"
    s[bb].compute_at(s[c], c.op.axis[0])
    func = check(s, [a, d], tripled)
    assert "B_local" in str(loops(func))
    with pytest.raises(ScheduleError, match="Cannot find A in the inputs of D"):
        s.cache_read(a, "local", [d])


def test_cache_read_of_a_result_by_all():
    a, b, c, d = chain()
    s = te.create_schedule(d.op)
    bb = s.cache_read(b, "global", [c, d.op])
    s[bb].vectorize(bb.op.axis[1])
    s[b].compute_inline()
    check(s, [a, d], tripled)


def test_cache_write_moves_the_computation():
    a, b, c, k = matmul(20, 18, 10)
    s = te.create_schedule(c.op)
    cc = s.cache_write(c, "local")
    assert cc.op.name == "C.local" and s[cc].op.reduce_axis == (k,)
    assert s[c].op.input_tensors == [cc] and [v.name for v in s[cc].op.axis] == ["x.c", "y.c"]
    xo, _ = s[c].split(c.op.axis[0], 8)
    s[cc].compute_at(s[c], xo)
    s[cc].reorder(k, *s[cc].op.axis)
    check(s, [a, b, c], product)
    with pytest.raises(ScheduleError, match="only take ComputeOp"):
        s.cache_write(a, "local")


def test_cache_write_takes_the_layout_of_the_leaves():
    a, b, c, _ = matmul(10, 12, 6)
    s = te.create_schedule(c.op)
    xo, yo, xi, yi = s[c].tile(*c.op.axis, 4, 4)
    s[c].reorder(xo, yo, yi, xi)
    cc = s.cache_write(c, "global")
    assert [int(d) for d in cc.shape] == [3, 3, 4, 4]
    assert [v.name for v in cc.op.axis] == ["x.outer.c", "y.outer.c", "y.inner.c", "x.inner.c"]
    assert s[c].leaf_iter_vars == list(c.op.axis) and not s[c].relations
    s[c].fuse(*c.op.axis)
    check(s, [a, b, c], product)


def test_cache_write_of_several_outputs():
    a = te.placeholder((10,), name="A")
    x, y = te.compute((10,), lambda i: (a[i] + 1.0, a[i] * 2.0), name="B")
    s = te.create_schedule(x.op)
    xx, yy = s.cache_write([x, y], "local")
    outer, _ = s[x].split(x.op.axis[0], 4)
    s[xx].compute_at(s[x], outer)
    assert s[xx] is s[yy]
    check(s, [a, x, y], lambda v, *_: (v + 1, v * 2))
    with pytest.raises(ScheduleError, match="same as number of stage outputs"):
        te.create_schedule(x.op).cache_write(x, "local")


@pytest.mark.parametrize("place", [0, 1, -1])
@pytest.mark.parametrize("inner", [True, False])
def test_rfactor(place, inner):
    a = te.placeholder((6, 50), name="A")
    k = te.reduce_axis((0, 50), name="k")
    b = te.compute((6,), lambda i: te.sum(a[i, k], axis=k), name="B")
    s = te.create_schedule(b.op)
    ko, ki = s[b].split(k, factor=8)
    bf = s.rfactor(b, ki if inner else ko, place)
    lanes = 8 if inner else 7
    assert [int(d) for d in bf.shape] == ([lanes, 6] if place == 0 else [6, lanes])
    assert bf.op.name == "B.rf" and s[b].op.reduce_axis[0].var.name == f"{'k.inner' if inner else 'k.outer'}.v"
    s[bf].compute_at(s[b], s[b].op.axis[0])
    check(s, [a, b], lambda x, _: x.sum(1))


def test_rfactor_preconditions():
    a, _, c, k = matmul(4, 4, 8)
    s = te.create_schedule(c.op)
    x, y = c.op.axis
    for message, call in (
        ("Can only factor reduction axis", lambda: s.rfactor(c, x)),
        ("Can only factor ComputeOp", lambda: s.rfactor(a, k)),
        ("Cannot find IterVar other", lambda: s.rfactor(c, te.reduce_axis((0, 8), "other"))),
        ("factor_axis 4", lambda: s.rfactor(c, k, 4)),
    ):
        with pytest.raises(ScheduleError, match=message):
            call()
    fused = s[c].fuse(y, k)
    with pytest.raises(ScheduleError, match="Factor axis touches normal axis"):
        s.rfactor(c, fused)
    assert len(s.stages) == 3


def argmax(n: int, m: int) -> tuple[Any, ...]:
    """The place and value of the largest element of each row; of equal ones the first."""
    place = te.placeholder((n, m), "int32", name="place")
    value = te.placeholder((n, m), "int32", name="value")

    def combine(x: Any, y: Any) -> Any:
        mine = te.any(x[1] > y[1], te.all(x[1].equal(y[1]), x[0] < y[0]))
        from warpbeam.tir import Select

        return Select(mine, x[0], y[0]), te_max(x[1], y[1])

    from warpbeam.tir.expr import maximum as te_max

    reducer = te.comm_reducer(combine, lambda t0, t1: (te.max_value(t0), te.min_value(t1)), name="argmax")
    k = te.reduce_axis((0, m), "k")
    first, most = te.compute((n,), lambda i: reducer((place[i, k], value[i, k]), axis=k), name="T")
    return place, value, first, most, k


def largest(place: Any, value: Any, *_: Any) -> Any:
    most = value.max(1)
    first = [min(p[v == w]) for p, v, w in zip(place, value, most, strict=True)]
    return np.array(first, "int32"), most


def test_tuple_reduction_whole_cached_and_factored():
    place, value, first, most, k = argmax(5, 37)
    s = te.create_schedule(first.op)
    check(s, [place, value, first, most], largest)
    s = te.create_schedule(first.op)
    c0, _ = s.cache_write([first, most], "local")
    outer, _ = s[first].split(first.op.axis[0], 2)
    s[c0].compute_at(s[first], outer)
    check(s, [place, value, first, most], largest)
    s = te.create_schedule(first.op)
    ko, _ = s[first].split(k, 8)
    made = s.rfactor(first, ko, factor_axis=1)
    assert len(made) == 2
    s[made[0]].compute_at(s[first], s[first].op.axis[0])
    s[first].parallel(s[first].op.axis[0])
    check(s, [place, value, first, most], largest)


def test_inlining():
    a, b, c, d = chain()
    s = te.create_schedule(d.op)
    s[b].compute_inline()
    s[c].compute_inline()
    assert [line.strip() for line in loops(check(s, [a, d], tripled)) if "block" in line] == ['block "D"']
    s[b].compute_root()
    assert len([line for line in loops(check(s, [a, d], tripled)) if "block" in line]) == 2
    s[d].compute_inline()
    with pytest.raises(ScheduleError, match="which is an output"):
        te.schedule.lower(s, [a, d])
    x, y, z, _ = matmul(4, 4, 4)
    out = te.compute((4, 4), lambda i, j: z[i, j] + 1.0, name="out")
    s = te.create_schedule(out.op)
    s[z].compute_inline()
    with pytest.raises(ScheduleError, match="which is a reduction"):
        te.schedule.lower(s, [x, y, out])


def test_automatic_inlining():
    a, b, c, d = chain()
    t = te.compute((12, 10), lambda i, j: c[j, i], name="T")
    row = te.compute((10, 12), lambda i, j: t[j, i] + b[i, 0], name="row")
    k = te.reduce_axis((0, 12), "k")
    total = te.compute((10,), lambda i: te.sum(row[i, k], axis=k), name="total")
    inlined = {
        te.schedule.AutoInlineElemWise: {"B", "C"},
        te.schedule.AutoInlineBroadcast: {"B", "C"},
        te.schedule.AutoInlineInjective: {"B", "C", "T", "row"},
    }
    for rule, wanted in inlined.items():
        s = te.create_schedule(total.op)
        rule(s)
        assert {st.op.name for st in s.stages if st.attach_type == 2} == wanted
        check(s, [a, total], lambda x, _: ((x + 1) * 2 + (x[:, :1] + 1)).sum(1))
    s = te.create_schedule(d.op)
    s[b].split(b.op.axis[0], 4)
    te.schedule.AutoInlineInjective(s)
    assert s[b].attach_type == 1, "what is scheduled already is left alone"


def test_compute_at_order_of_calls_does_not_matter():
    a, b, c, d = chain()
    s = te.create_schedule(d.op)
    s[b].split(b.op.axis[1], 5)  # acts on the extents that consumers leave
    s[c].compute_at(s[d], d.op.axis[0])
    s[b].compute_at(s[d], d.op.axis[0])
    func = check(s, [a, d], tripled)
    assert loops(func)[1:4] == [
        "    for i in range(1)", "        for j_outer in range(3)", "            for j_inner in range(5)",
    ]  # fmt: skip


def test_an_axis_split_after_something_was_attached_to_it():
    a, b, c, d = chain()
    s = te.create_schedule(d.op)
    s[c].compute_at(s[d], d.op.axis[0])
    s[b].compute_inline()
    _, inner = s[d].split(d.op.axis[0], 4)
    assert s.normalize()[c].attach_ivar is inner and s[c].attach_ivar is d.op.axis[0]
    func = check(s, [a, d], tripled)
    assert loops(func)[1] == "    for i_inner in range(4)"


def test_attachments_that_cannot_be():
    a, b, c, d = chain()
    s = te.create_schedule(d.op)
    s[b].compute_at(s[c], c.op.axis[0])
    with pytest.raises(ScheduleError, match="D reads it outside"):
        te.schedule.lower(s, [a, d])
    s = te.create_schedule(d.op)
    s[b].compute_at(s[c], c.op.axis[0])
    s[c].compute_inline()
    with pytest.raises(ScheduleError, match="there is no loop i of stage"):
        te.schedule.lower(s, [a, d])
    with pytest.raises(ScheduleError, match="among its arguments"):
        te.schedule.lower(te.create_schedule(d.op), [d])


def test_groups_are_placed_as_one(golden):
    a, _, c, d = chain()
    s = te.create_schedule(d.op)
    group = s.create_group(outputs=c, inputs=a)
    assert [st.group is group for st in s.stages] == [False, True, True, False] and group.num_child_stages == 2
    outer, _ = s[d].split(d.op.axis[0], 4)
    group.compute_at(s[d], outer)
    func = check(s, [a, d], tripled)
    golden("group.txt", "\n".join(loops(func)))


def test_groups_nest_and_do_not_cross():
    a, b, c, d = chain()
    s = te.create_schedule(d.op)
    inner = s.create_group(outputs=b, inputs=b, include_inputs=True)
    outer = s.create_group(outputs=c, inputs=a)
    assert inner.group is outer and s[b].group is inner and s[c].group is outer
    with pytest.raises(ScheduleError, match="intersect with an already existed group"):
        s.create_group(outputs=d, inputs=b)
    with pytest.raises(ScheduleError, match="within the same group"):
        s[b].compute_at(s[c], c.op.axis[0])
    with pytest.raises(ScheduleError, match="no operation between"):
        s.create_group(outputs=b, inputs=b)
    check(s, [a, d], tripled)


def test_copies_are_independent():
    a, _, c, d = chain()
    s = te.create_schedule(d.op)
    group = s.create_group(outputs=c, inputs=a)
    group.compute_at(s[d], d.op.axis[0])
    t = s.copy()
    t[d].split(d.op.axis[1], 4)
    t.cache_read(a, "local", [t[d.op].op.input_tensors[1]])
    assert len(s.stages) == 4 and len(t.stages) == 5 and len(s[d].leaf_iter_vars) == 2
    assert t[c].group is not group and t[c].group.attach_stage is t[d]
    check(s, [a, d], tripled)
    check(t, [a, d], tripled)


def test_scopes_alignment_and_buffers():
    a, b, c, d = chain()
    s = te.create_schedule(d.op)
    s[b].set_scope("local")
    s[c].storage_align(c.op.axis[0], 16, 1)
    outer, _ = s[d].split(d.op.axis[0], 4)
    s[c].compute_at(s[d], outer)
    s[c].double_buffer()
    func = check(s, [a, d], tripled)
    found = {st.op.name: st for st in s.stages}
    assert found["B"].scope == "local" and found["C"].double_buffer_on
    assert "storage_align" in str(func.body.annotations) + str(func.body.body.annotations)


def test_prefetch():
    a, _, _, d = chain()
    s = te.create_schedule(d.op)
    te.schedule.AutoInlineInjective(s)
    s[d].prefetch(a, d.op.axis[0], 2)
    check(s, [a, d], tripled)


def test_extern_stages_are_opaque():
    from warpbeam import tir

    a = te.placeholder((8,), name="A")
    b = te.compute((8,), lambda i: a[i] + 1.0, name="B")

    def body(ins: Any, outs: Any) -> Any:
        ib = tir.ir_builder.create()
        src, dst = ib.buffer_ptr(ins[0]), ib.buffer_ptr(outs[0])
        with ib.for_range(0, 8, name="i") as i:
            dst[i] = src[7 - i] * 2.0
        return ib.get()

    c = te.extern((8,), [b], body, name="C")
    d = te.compute((8,), lambda i: c[i] - 1.0, name="D")
    s = te.create_schedule(d.op)
    s[d].vectorize(d.op.axis[0])
    s[b].parallel(b.op.axis[0])
    check(s, [a, d], lambda x, _: (x[::-1] + 1) * 2 - 1)
    s[b].compute_inline()
    with pytest.raises(ScheduleError, match="whose whole result C reads"):
        te.schedule.lower(s, [a, d])
