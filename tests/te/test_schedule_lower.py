"""What lowering a te schedule gives: parameters, scopes, buffers, intrinsics, and what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from te_check import arrays, check, loops, matmul

from warpbeam import te, tir
from warpbeam.ir.diagnostics import ScheduleError
from warpbeam.tir.interp import run
from warpbeam.tir.text import parse, to_text


def pair(n: int = 20) -> tuple[Any, Any, Any]:
    a = te.placeholder((n,), name="A")
    b = te.compute((n,), lambda i: a[i] + 1.0, name="B")
    return a, b, te.compute((n,), lambda i: b[i] * 2.0, name="C")


def both(x: Any, *_: Any) -> Any:
    return x + 1, (x + 1) * 2


def test_intermediates_may_be_parameters_wherever_they_are_computed():
    a, b, c = pair()
    s = te.create_schedule(c.op)
    check(s, [a, b, c], both)
    s[b].compute_at(s[c], c.op.axis[0])
    check(s, [a, b, c], both)
    outer, _ = s[c].split(c.op.axis[0], 8)
    s[b].compute_at(s[c], outer)
    cached = s.cache_write(b, "local")
    s[cached].compute_at(s[b], b.op.axis[0])
    check(s, [a, b, c], both)
    s = te.create_schedule(c.op)
    s[b].compute_inline()
    func = check(s, [a, b, c], lambda x, *_: (x + 1) * 2)
    assert [p.name for p in func.params] == ["A", "B", "C"]


def test_parameters_stand_in_the_order_of_the_arguments():
    n = te.var("n")
    a = te.placeholder((n,), name="A")
    b = te.compute((n,), lambda i: a[i] + 1.0, name="B")
    c = te.compute((n,), lambda i: a[i] * 2.0, name="C")
    s = te.create_schedule([b.op, c.op])
    func = te.schedule.lower(s, [n, c, a, b], name="two")
    assert func.name == "two" and [p.name for p in func.params] == ["n", "C", "A", "B"]
    assert [p.name for p in te.schedule.lower(s, [c, a]).params] == ["C", "A", "n"], "B stays inside"


def test_buffers_of_ones_own():
    a, _, c = pair(6)
    mine = tir.decl_buffer((6,), "float32", name="mine")
    s = te.create_schedule(c.op)
    func = te.schedule.lower(s, [mine, c], binds={a: mine})
    assert func.params[0] is mine
    x, y = np.arange(6, dtype="float32"), np.zeros(6, "float32")
    run(func, x, y)
    np.testing.assert_array_equal(y, (x + 1) * 2)


def test_programs_are_texts():
    a, b, c, _ = matmul(20, 18, 12)
    s = te.create_schedule(c.op)
    cc = s.cache_write(c, "local")
    xo, _, _, yi = s[c].tile(*c.op.axis, 8, 8)
    s[cc].compute_at(s[c], xo)
    s[c].vectorize(yi)
    text = to_text(te.schedule.lower(s, [a, b, c]))
    assert to_text(parse(text)) == text
    assert all("." not in line.split("(")[0] for line in text.splitlines() if line.strip().startswith("for "))


@pytest.mark.parametrize("scope", ["warp", "wmma.matrix_a", "global.vtcm", "local.L0A", "shared.dyn", "texture"])
def test_scopes_of_targets(scope):
    a, b, c = pair()
    s = te.create_schedule(c.op)
    cached = s.cache_read(a, scope, [b])
    s[cached].compute_at(s[b], b.op.axis[0])
    assert te.schedule.lower(s, [a, c]).body.buffer.scope == scope


@pytest.mark.parametrize(
    ("tags", "scope"),
    [((), "global"), (("blockIdx.x",), "shared"), (("blockIdx.x", "vthread"), "local")],
)
def test_the_default_scope_is_what_the_threads_around_share(tags, scope):
    a, b, c = pair(32)
    s = te.create_schedule(c.op)
    axes = list(s[c].split(c.op.axis[0], 8))
    s[b].compute_at(s[c], axes[max(len(tags) - 1, 0)])
    for tag, axis in zip(tags, axes, strict=False):
        s[c].bind(axis, te.thread_axis(tag))
    assert te.schedule.lower(s, [a, c]).body.buffer.scope == scope
    check(s, [a, c], lambda x, _: (x + 1) * 2)


def test_shared_memory_is_filled_for_all_threads_of_the_block():
    a, b, c = pair(32)
    s = te.create_schedule(c.op)
    bx, rest = s[c].split(c.op.axis[0], 16)
    tx, inner = s[c].split(rest, 4)
    s[c].bind(bx, te.thread_axis("blockIdx.x"))
    s[c].bind(tx, te.thread_axis("threadIdx.x"))
    s[b].set_scope("shared")
    s[b].compute_at(s[c], inner)
    own, _ = s[b].split(s[b].op.axis[0], nparts=4)
    s[b].bind(own, te.thread_axis("threadIdx.x"))
    func = check(s, [a, c], lambda x, _: (x + 1) * 2)
    text = "\n".join(loops(func))
    assert text.count('thread_binding("threadIdx.x", 4)') == 2 and "i_inner in range(4)" in text


def test_double_and_rolling_buffers_and_prefetch():
    a = te.placeholder((20, 12), name="A")
    b = te.compute((20, 12), lambda i, j: a[i, j] + 1.0, name="B")
    d = te.compute((18, 12), lambda i, j: b[i, j] + b[i + 1, j] + b[i + 2, j], name="D")

    def summed(x: Any, _: Any) -> Any:
        y = x + 1
        return y[:-2] + y[1:-1] + y[2:]

    s = te.create_schedule(d.op)
    s[b].compute_at(s[d], d.op.axis[0])
    s[b].rolling_buffer()
    check(s, [a, d], summed)
    s = te.create_schedule(d.op)
    outer, _ = s[d].split(d.op.axis[0], 6)
    s[b].compute_at(s[d], outer)
    s[b].double_buffer()
    s[b].storage_align(b.op.axis[0], 16, 4)
    s[b].prefetch(a, s[b].op.axis[0], 1)
    check(s, [a, d], summed)


def test_tensorize_a_row_product():
    def product(m: int, l: int) -> Any:
        x, y = te.placeholder((l,), name="x"), te.placeholder((m, l), name="y")
        k = te.reduce_axis((0, l), name="k")
        z = te.compute((m,), lambda i: te.sum(x[k] * y[i, k], axis=k), name="z")
        strides = {y: [te.var("s"), 1], x: [1], z: [1]}
        binds = {
            t: tir.decl_buffer(t.shape, t.dtype, name=t.op.name, offset_factor=1, strides=strides[t]) for t in (x, y, z)
        }

        def body(ins: Any, outs: Any) -> Any:
            ib = tir.ir_builder.create()
            places = [b.access_ptr(m) for b, m in ((outs[0], "w"), (ins[0], "r"), (ins[1], "r"))]
            ib.emit(tir.call_extern("int32", "row_product", *places, m, l, ins[1].strides[0]))
            return ib.get()

        return te.decl_tensor_intrin(z.op, body, binds=binds)

    a, b = te.placeholder((8, 12), name="A"), te.placeholder((16, 12), name="B")
    k = te.reduce_axis((0, 12), name="k")
    c = te.compute((8, 16), lambda i, j: te.sum(a[i, k] * b[j, k], axis=k), name="C")
    s = te.create_schedule(c.op)
    yo, yi = s[c].split(c.op.axis[1], factor=4)
    s[c].reorder(c.op.axis[0], yo, yi, k)
    s[c].tensorize(yi, product(4, 12))
    func = te.schedule.lower(s, [a, b, c])
    assert loops(func)[:2] == ["for i in range(8)", "    for j_outer in range(4)"]
    assert "row_product" in to_text(func)
    s[c].tensorize(yi, product(8, 12))
    with pytest.raises(ScheduleError):
        te.schedule.lower(s, [a, b, c])


def test_what_is_attached_to_a_vector_runs_in_its_lanes():
    a, b, c = pair()
    s = te.create_schedule(c.op)
    s[b].compute_at(s[c], c.op.axis[0])
    s[c].vectorize(c.op.axis[0])
    check(s, [a, c], lambda x, _: (x + 1) * 2)


def test_reads_at_run_time_indices_need_everything():
    a, b, _ = pair()
    where = te.placeholder((5,), "int32", name="where")
    g = te.compute((5,), lambda i: b[where[i]], name="G")
    s = te.create_schedule(g.op)
    s[b].compute_at(s[g], g.op.axis[0])
    func = te.schedule.lower(s, [a, where, g])
    assert loops(func)[1].strip().endswith("range(20)")
    x, y, out = arrays([a])[0], np.array([3, 0, 19, 7, 3], "int32"), np.zeros(5, "float32")
    run(func, x, y, out)
    np.testing.assert_array_equal(out, (x + 1)[y])


def test_outputs_stay_at_the_root():
    a, b, c = pair()
    s = te.create_schedule([b.op, c.op])
    check(s, [a, b, c], both)
    s[b].compute_at(s[c], c.op.axis[0])
    with pytest.raises(ScheduleError, match="Output must be attached at root"):
        te.schedule.lower(s, [a, b, c])


def test_dependent_iterations_do_not_run_at_once():
    a, b, c, k = matmul(4, 4, 8)
    s = te.create_schedule(c.op)
    s[c].parallel(k)
    with pytest.raises(ScheduleError, match="carries the reduction of C"):
        te.schedule.lower(s, [a, b, c])
    with pytest.raises(ScheduleError, match="an argument of main is a str"):
        te.schedule.lower(s, [a, b, "C"])


def test_a_symbolic_split_is_refused_when_lowered():
    n = te.var("n")
    a, _, c = pair()
    s = te.create_schedule(c.op)
    s[c].split(c.op.axis[0], n)
    with pytest.raises(ScheduleError, match="split of i by n"):
        te.schedule.lower(s, [a, c, n])
