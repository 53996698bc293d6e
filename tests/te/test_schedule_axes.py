"""Axes of a stage: split, fuse, reorder, tile; what they are called, what is refused, what the loops become."""

from __future__ import annotations

from typing import Any

import pytest
from te_check import check, loops, matmul, product

from warpbeam import te
from warpbeam.ir.diagnostics import ScheduleError


def doubled(*shape: Any) -> tuple[Any, Any]:
    a = te.placeholder(shape, name="A")
    return a, te.compute(shape, lambda *i: a(*i) * 2.0, name="B")


def names(stage: Any) -> list[str]:
    return [a.var.name for a in stage.leaf_iter_vars]


def test_split_by_factor_guards_what_lies_beyond():
    a, b = doubled(50)
    s = te.create_schedule(b.op)
    outer, inner = s[b].split(b.op.axis[0], factor=16)
    assert names(s[b]) == ["i0.outer", "i0.inner"]
    assert (outer.iter_type, inner.iter_type, outer.dom, outer.thread_tag) == (0, 0, None, "")
    func = check(s, [a, b], lambda x, _: x * 2)
    assert loops(func) == ["for i0_outer in range(4)", "    for i0_inner in range(16)", '        block "B"']


def test_split_by_nparts():
    a, b = doubled(50)
    s = te.create_schedule(b.op)
    s[b].split(b.op.axis[0], nparts=4)
    func = check(s, [a, b], lambda x, _: x * 2)
    assert loops(func)[:2] == ["for i0_outer in range(4)", "    for i0_inner in range(13)"]


def test_a_factor_larger_than_the_extent_shrinks_unless_a_thread_has_it():
    a, b = doubled(10)
    s = te.create_schedule(b.op)
    s[b].split(b.op.axis[0], factor=32)
    assert loops(check(s, [a, b], lambda x, _: x * 2))[1] == "    for i0_inner in range(10)"
    s = te.create_schedule(b.op)
    _, inner = s[b].split(b.op.axis[0], factor=32)
    s[b].bind(inner, te.thread_axis("threadIdx.x"))
    func = check(s, [a, b], lambda x, _: x * 2)
    assert loops(func)[1] == '    for i0_inner in thread_binding("threadIdx.x", 32)'


def test_splits_of_splits_and_of_reductions():
    a, b, c, k = matmul(20, 18, 50)
    s = te.create_schedule(c.op)
    xo, xi = s[c].split(c.op.axis[0], 7)
    _, _ = s[c].split(xi, nparts=2)
    ko, ki = s[c].split(k, 8)
    assert ko.iter_type == ki.iter_type == 2
    s[c].reorder(xo, ko, c.op.axis[1], ki)
    func = check(s, [a, b, c], product)
    assert [line.split()[1] for line in loops(func)[:-1]] == [
        "x_outer", "x_inner_outer", "x_inner_inner", "k_outer", "y", "k_inner",
    ]  # fmt: skip


def test_fuse_names_nest_and_may_be_given_in_reverse():
    a, b = doubled(3, 4, 5)
    s = te.create_schedule(b.op)
    i, j, k = b.op.axis
    fused = s[b].fuse(j, i)
    assert fused.var.name == "i0.i1.fused"
    assert s[b].fuse(fused, k).var.name == "i0.i1.fused.i2.fused"
    assert loops(check(s, [a, b], lambda x, _: x * 2))[0] == "for i0_i1_fused_i2_fused in range(60)"
    s = te.create_schedule(b.op)
    s[b].fuse(*b.op.axis)
    assert names(s[b]) == ["i0.i1.fused.i2.fused"]


def test_fuse_of_nothing_is_an_axis_of_one_iteration():
    a, b = doubled(4)
    s = te.create_schedule(b.op)
    one = s[b].fuse()
    assert names(s[b]) == ["singleton", "i0"]
    s[b].parallel(one)
    assert loops(check(s, [a, b], lambda x, _: x * 2))[0] == "for singleton in parallel(1)"


def test_a_number_without_axes_can_have_a_loop():
    a = te.placeholder((6,), name="A")
    k = te.reduce_axis((0, 6), "k")
    b = te.compute((), lambda: te.sum(a[k], axis=k), name="B")
    s = te.create_schedule(b.op)
    s[b].fuse()
    check(s, [a, b], lambda x, _: x.sum())


def test_reorder_permutes_only_what_is_named():
    a, b = doubled(2, 3, 4, 5)
    s = te.create_schedule(b.op)
    i, _, k, l = b.op.axis
    s[b].reorder(l, i, k)
    assert names(s[b]) == ["i3", "i1", "i0", "i2"]
    func = check(s, [a, b], lambda x, _: x * 2)
    assert [line.split()[1] for line in loops(func)[:-1]] == ["i3", "i1", "i0", "i2"]


def test_tile_gives_outer_axes_first():
    a, b, c, _ = matmul(10, 12, 4)
    s = te.create_schedule(c.op)
    x, y = c.op.axis
    assert [v.var.name for v in s[c].tile(x, y, x_factor=4, y_factor=4)] == [
        "x.outer", "y.outer", "x.inner", "y.inner",
    ]  # fmt: skip
    check(s, [a, b, c], product)


def test_symbolic_extents():
    n = te.var("n")
    a, b = doubled(n)
    s = te.create_schedule(b.op)
    outer, inner = s[b].split(b.op.axis[0], factor=8)
    s[b].parallel(outer)
    s[b].vectorize(inner)
    check(s, [a, b, n], lambda x, _: x * 2, {"n": 21})
    check(s, [a, b], lambda x, _: x * 2, {"n": 16})


def test_infer_bound_tells_every_range():
    _, b = doubled(50)
    s = te.create_schedule(b.op)
    outer, inner = s[b].split(b.op.axis[0], factor=16)
    bounds = te.schedule.InferBound(s)
    assert [int(bounds[v].extent.value) for v in (b.op.axis[0], outer, inner)] == [50, 4, 16]
    assert te.schedule.ScheduleOps(s, bounds).var.name == "i0_outer"


def refused(message: str, call: Any, stage: Any) -> None:
    """The call raises an error that is a ScheduleError and a ValueError, and leaves the stage as it was."""
    before = (names(stage), list(stage.relations), list(stage.history), dict(stage.iter_var_attrs), stage.attach_type)
    with pytest.raises(ScheduleError, match=message) as found:
        call()
    assert isinstance(found.value, ValueError)
    after = (names(stage), list(stage.relations), list(stage.history), dict(stage.iter_var_attrs), stage.attach_type)
    assert before == after


def test_what_is_refused_leaves_the_stage_unchanged():
    _, _, c, k = matmul(8, 8, 8)
    s = te.create_schedule(c.op)
    x, y = c.op.axis
    tx = te.thread_axis("threadIdx.x")
    stage = s[c]
    refused("Do not need to provide both outer and nparts", lambda: stage.split(x, factor=2, nparts=2), stage)
    refused("Either nparts or factor need to be provided", lambda: stage.split(x), stage)
    refused("Cannot split by 0", lambda: stage.split(x, 0), stage)
    refused("Cannot split on ThreadIndex", lambda: stage.split(tx, 2), stage)
    refused("consecutive between each other", lambda: stage.fuse(x, k), stage)
    refused("Cannot fuse ThreadIndex", lambda: stage.fuse(x, tx), stage)
    refused("Same axis can not appear more than once", lambda: stage.reorder(x, y, x), stage)
    refused("Same axis can not appear more than once", lambda: stage.tile(x, x, 2, 2), stage)
    refused("Cannot vectorize on CommReduce", lambda: stage.vectorize(k), stage)
    refused("Cannot rebase by DataPar", lambda: stage.bind(x, y), stage)
    refused("Cannot bind ThreadIndex to thread", lambda: stage.bind(tx, tx), stage)
    refused("is not part of the schedule", lambda: stage.unroll(te.reduce_axis((0, 8), "other")), stage)
    refused("is not an axis", lambda: stage.split("x", 2), stage)
    stage.split(x, 2)
    refused("has already been split", lambda: stage.parallel(x), stage)
    refused("Cannot find the axis x in parent's leaf_iter_vars", lambda: stage.compute_at(stage, x), stage)
    refused("env_threads is only valid for composite ops", lambda: stage.env_threads([tx]), stage)
    refused("Cannot apply double buffer on output", stage.double_buffer, stage)
    refused("Cannot apply rolling buffer on output", stage.rolling_buffer, stage)
    refused("storage_align by 0", lambda: stage.storage_align(y, 0, 0), stage)


def test_binding_again_warns():
    _, b = doubled(8)
    s = te.create_schedule(b.op)
    s[b].bind(b.op.axis[0], te.thread_axis("threadIdx.x"))
    with pytest.warns(UserWarning, match="was bound to threadIdx.x"):
        s[b].bind(b.op.axis[0], te.thread_axis("threadIdx.y"))


def test_schedule_keys():
    a, b = doubled(8)
    s = te.create_schedule([b.op])
    assert s[b] is s[b.op] and s[a].op is a.op
    assert b in s and doubled(8)[1] not in s
    with pytest.raises(ValueError, match="Expect schedule key to be Tensor or Operation"):
        s["B"]
    with pytest.raises(ValueError, match="Cannot find the operation B in schedule"):
        s[doubled(8)[1]]
    with pytest.raises(ScheduleError, match="Expect operation"):
        te.create_schedule(1)
    assert s[b].is_output and not s[a].is_output
    assert s.outputs == [b.op] and [st.op for st in s.stages] == [a.op, b.op]


def test_specialized_conditions_nest():
    n = te.var("n")
    assert te.SpecializedCondition.current() is None
    with te.SpecializedCondition([n > 4]) as outer, te.SpecializedCondition(n > 8) as inner:
        assert te.SpecializedCondition.current() is inner and len(outer.clauses) == 1
    assert te.SpecializedCondition.current() is None


@pytest.mark.parametrize("kind", ["parallel", "unroll", "vectorize"])
def test_kinds_of_loops(kind):
    a, b = doubled(6, 8)
    s = te.create_schedule(b.op)
    getattr(s[b], kind)(b.op.axis[1])
    func = check(s, [a, b], lambda x, _: x * 2)
    assert {"parallel": "parallel", "unroll": "unrolled", "vectorize": "vectorized"}[kind] in loops(func)[1]


def test_pragmas_are_notes_and_two_are_primitives():
    a, b = doubled(6, 8)
    s = te.create_schedule(b.op)
    i, j = b.op.axis
    s[b].pragma(i, "auto_unroll_max_step", 16)
    s[b].pragma(i, "unroll_explicit", True)
    s[b].pragma(j, "vectorize")
    func = check(s, [a, b], lambda x, _: x * 2)
    assert "vectorized" in loops(func)[1]
    assert '"pragma_auto_unroll_max_step": 16' in loops(func)[0]
    s = te.create_schedule(b.op)
    s[b].pragma(j, "unroll")
    s[b].pragma(i, "parallel_launch_point")
    func = check(s, [a, b], lambda x, _: x * 2)
    assert "unrolled" in loops(func)[1] and "parallel_launch_point" in loops(func)[0]


def test_transform_layout_of_a_result():
    a = te.placeholder((10, 8), name="A")
    b = te.compute((10, 8), lambda i, j: a[i, j] * 2.0, name="B")
    c = te.compute((10, 8), lambda i, j: b[i, j] + 1.0, name="C")
    s = te.create_schedule(c.op)
    outer, j, inner = s[b].transform_layout(lambda i, j: [i // 4, j, te.AXIS_SEPARATOR, i % 4])
    assert names(s[b]) == ["axis0", "axis1", "axis2"]
    s[b].vectorize(inner)
    s[b].reorder(j, outer)
    func = check(s, [a, c], lambda x, _: x * 2 + 1)
    assert loops(func)[:3] == [
        "for axis1 in range(8)", "    for axis0 in range(3)", "        for axis2 in vectorized(4)",
    ]  # fmt: skip
    with pytest.raises(ScheduleError, match="not proven to be invertible"):
        s[c].transform_layout(lambda i, j: [i + j, j // 2])
    with pytest.raises(ScheduleError, match="takes 1 indices"):
        s[c].transform_layout(lambda i: [i])


def test_transform_layout_of_an_output_changes_the_parameter():
    a, b = doubled(12)
    s = te.create_schedule(b.op)
    s[b].transform_layout(lambda i: [i // 4, i % 4])
    func = te.schedule.lower(s, [a, b])
    assert [int(d) for d in func.buffers[1].shape] == [3, 4]


@pytest.mark.parametrize("shape", [(4, 8, 6), (4, 5, 7), (3, 3, 3, 3)])
@pytest.mark.parametrize("lanes", [4, 8])
def test_a_fused_loop_taken_apart_again_may_run_at_once(shape, lanes):
    a, b = doubled(*shape)
    s = te.create_schedule(b.op)
    bx, rest = s[b].split(s[b].fuse(*b.op.axis), lanes)
    tx, inner = s[b].split(rest, nparts=2)
    s[b].bind(bx, te.thread_axis("blockIdx.x"))
    s[b].bind(tx, te.thread_axis("threadIdx.x"))
    s[b].vectorize(inner)
    check(s, [a, b], lambda x, _: x * 2)
