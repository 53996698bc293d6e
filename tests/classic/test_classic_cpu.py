"""Schedules for processors: every primitive, the steps of a fast product, caches, packing, reductions, scans."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from classic_run import check, naive, numbers

import warpbeam as tvm
from warpbeam import te, topi

N = 48


def matmul(n: int = N, m: int = N, depth: int = N) -> tuple[Any, Any, Any]:
    k = te.reduce_axis((0, depth), name="k")
    a, b = te.placeholder((n, depth), name="A"), te.placeholder((depth, m), name="B")
    return a, b, te.compute((n, m), lambda x, y: te.sum(a[x, k] * b[k, y], axis=k), name="C")


X, Y = numbers(N, N), numbers(N, N, seed=1)
WANT = X @ Y


def double(n: Any) -> tuple[Any, Any]:
    a = te.placeholder((n,), name="A")
    return a, te.compute((n,), lambda i: a[i] * 2, name="B")


@pytest.mark.parametrize("word", ["factor", "nparts"])
@pytest.mark.parametrize("n", [64, 50, None])
def test_split(word: str, n: int | None) -> None:
    size = te.var("n") if n is None else n
    a, b = double(size)
    s = te.create_schedule(b.op)
    outer, inner = s[b].split(b.op.axis[0], **{word: 8})
    assert (outer.var.name, inner.var.name) == ("i.outer", "i.inner") and s[b].leaf_iter_vars == [outer, inner]
    x = numbers(n or 37)
    check(s, [a, b], [x], [x * 2])


def test_split_fuse_reorder_tile() -> None:
    a = te.placeholder((te.var("m"), te.var("n")), name="A")
    b = te.compute(a.shape, lambda i, j: a[i, j] + 1, name="B")
    x = numbers(23, 17)
    s = te.create_schedule(b.op)
    xo, yo, xi, yi = s[b].tile(b.op.axis[0], b.op.axis[1], x_factor=10, y_factor=5)
    fused = s[b].fuse(xi, yi)
    assert fused.var.name == "i.inner.j.inner.fused" and s[b].leaf_iter_vars == [xo, yo, fused]
    check(s, [a, b], [x], [x + 1])
    s = te.create_schedule(b.op)
    xo, yo, xi, yi = s[b].tile(*b.op.axis, 10, 5)
    s[b].reorder(xi, yo, xo, yi)
    assert s[b].leaf_iter_vars == [xi, yo, xo, yi]
    check(s, [a, b], [x], [x + 1])


def test_where_a_stage_is_computed() -> None:
    m = te.var("m")
    a = te.placeholder((m,), name="A")
    b = te.compute((m,), lambda i: a[i] + 1, name="B")
    c = te.compute((m,), lambda i: b[i] * 2, name="C")
    x = numbers(19)
    wants = [x + 1, (x + 1) * 2]
    s = te.create_schedule(c.op)
    check(s, [a, b, c], [x], wants)
    s[b].compute_at(s[c], c.op.axis[0])
    assert str(tvm.lower(s, [a, b, c], simple_mode=True)).count("for ") == 1
    check(s, [a, b, c], [x], wants)
    s[b].compute_root()
    check(s, [a, b, c], [x], wants)
    s[b].compute_inline()
    assert "B" not in str(tvm.lower(s, [a, c], simple_mode=True))
    check(s, [a, c], [x], wants[1:])


def test_vector_add_in_parallel() -> None:
    a, b = double(1000)
    s = te.create_schedule(b.op)
    outer, inner = s[b].split(b.op.axis[0], nparts=4)
    _, lanes = s[b].split(inner, 8)
    s[b].parallel(outer)
    s[b].vectorize(lanes)
    x = numbers(1000)
    mod = check(s, [a, b], [x], [x * 2])
    assert "x float>" in mod.get_source("ll")


def orders() -> list[Any]:
    def plain(s: Any, c: Any) -> None:
        """As it is."""

    def reordered(s: Any, c: Any) -> None:
        x, y = c.op.axis
        (k,) = c.op.reduce_axis
        s[c].reorder(x, k, y)
        s[c].parallel(x)
        s[c].vectorize(y)

    def blocked(s: Any, c: Any) -> None:
        xo, yo, xi, yi = s[c].tile(*c.op.axis, 16, 16)
        ko, ki = s[c].split(s[c].op.reduce_axis[0], factor=4)
        s[c].reorder(xo, yo, ko, xi, ki, yi)
        s[c].vectorize(yi)
        s[c].unroll(ki)
        s[c].parallel(s[c].fuse(xo, yo))

    def cached(s: Any, c: Any) -> None:
        cache = s.cache_write(c, "local")
        xo, yo, _, _ = s[c].tile(*c.op.axis, 20, 16)  # 20 does not divide
        s[cache].compute_at(s[c], yo)
        xc, yc = s[cache].op.axis
        (k,) = s[cache].op.reduce_axis
        ko, ki = s[cache].split(k, factor=4)
        s[cache].reorder(ko, xc, ki, yc)
        s[cache].unroll(ki)
        s[cache].vectorize(yc)
        s[c].parallel(xo)

    return [plain, reordered, blocked, cached]


@pytest.mark.parametrize("order", orders(), ids=lambda f: f.__name__)
def test_product(order: Any) -> None:
    a, b, c = matmul()
    s = te.create_schedule(c.op)
    order(s, c)
    check(s, [a, b, c], [X, Y], [WANT], target="llvm")


@pytest.mark.parametrize("target", ["llvm", "c"])
def test_product_of_packed_operands(target: str) -> None:
    a, b, _ = matmul()
    block = 16
    packed = te.compute((N / block, N, block), lambda o, k, i: b[k, o * block + i], name="packed")
    k = te.reduce_axis((0, N), "k")
    c = te.compute(
        (N, N),
        lambda x, y: te.sum(a[x, k] * packed[y // block, k, tvm.tir.indexmod(y, block)], axis=k), name="C",
    )  # fmt: skip
    s = te.create_schedule(c.op)
    cache = s.cache_write(c, "global")
    xo, yo, _, _ = s[c].tile(c.op.axis[0], c.op.axis[1], block, block)
    s[cache].compute_at(s[c], yo)
    xc, yc = s[cache].op.axis
    ko, ki = s[cache].split(s[cache].op.reduce_axis[0], factor=4)
    s[cache].reorder(ko, xc, ki, yc)
    s[cache].unroll(ki)
    s[cache].vectorize(yc)
    s[c].parallel(xo)
    big, _, little = s[packed].op.axis
    s[packed].vectorize(little)
    s[packed].parallel(big)
    check(s, [a, b, c], [X, Y], [WANT], target=target)


def test_caches() -> None:
    a, b, c = matmul()
    s = te.create_schedule(c.op)
    near_a, near_b = s.cache_read(a, "global", [c]), s.cache_read(b, "local", c)
    out = s.cache_write(c, "local")
    assert [t.op.name for t in (near_a, near_b, out)] == ["A.global", "B.local", "C.local"]
    xo, _ = s[c].split(c.op.axis[0], 8)
    s[out].compute_at(s[c], xo)
    ko, _ = s[out].split(s[out].op.reduce_axis[0], 8)
    s[near_a].compute_at(s[out], ko)
    s[near_b].compute_at(s[out], ko)
    check(s, [a, b, c], [X, Y], [WANT])
    with pytest.raises(tvm.TVMError, match="Cannot find A in the inputs of C"):
        s.cache_read(a, "local", [c])


def test_scopes_and_storage() -> None:
    a, b, c = matmul()
    d = te.compute(c.shape, lambda *i: c(*i) + 1, name="D")

    def use(change: Any) -> None:
        s = te.create_schedule(d.op)
        s[c].compute_at(s[d], d.op.axis[0])
        change(s)
        check(s, [a, b, d], [X, Y], [WANT + 1])

    use(lambda s: s[c].set_scope("local"))
    use(lambda s: s[c].double_buffer())
    use(lambda s: s[c].storage_align(c.op.axis[0], 32, 8))
    use(lambda s: s[d].prefetch(b, d.op.axis[0], 1))
    use(lambda s: s[c].pragma(c.op.axis[1], "auto_unroll_max_step", 16))
    use(lambda s: s[c].pragma(c.op.axis[1], "unroll_explicit", True))
    use(lambda s: s[c].transform_layout(lambda i, j: [j, i]))
    use(lambda s: s.normalize())

    s = te.create_schedule(d.op)
    group = s.create_group(outputs=c, inputs=[a, b], include_inputs=True)
    group.compute_at(s[d], d.op.axis[0])
    check(s, [a, b, d], [X, Y], [WANT + 1])


def test_rolling_buffer() -> None:
    a = te.placeholder((20, 8), name="A")
    b = te.compute((20, 8), lambda i, j: a[i, j] + 1, name="B")
    k = te.reduce_axis((0, 3), "k")
    c = te.compute((18, 8), lambda i, j: te.sum(b[i + k, j], axis=k), name="C")
    s = te.create_schedule(c.op)
    s[b].compute_at(s[c], s[c].split(c.op.axis[0], 2)[0])
    s[b].rolling_buffer()
    x = numbers(20, 8)
    check(s, [a, c], [x], [sum(x[k : 18 + k] + 1 for k in range(3))])


def test_local_memory_of_any_size() -> None:
    for n in (te.var("n"), 1 << 18):
        a, b = double(n)
        s = te.create_schedule(b.op)
        s.cache_write(b, "local")
        x = numbers(1 << 18 if isinstance(n, int) else 9)
        check(s, [a, b], [x], [x * 2])


def test_reduction_axes() -> None:
    n, m = te.var("n"), te.var("m")
    a, k = te.placeholder((n, m), name="A"), te.reduce_axis((0, m), "k")
    b = te.compute((n,), lambda i: te.sum(a[i, k], axis=k), name="B")
    x = numbers(37, 29)
    s = te.create_schedule(b.op)
    s[b].split(b.op.reduce_axis[0], factor=16)
    s[b].split(b.op.axis[0], factor=32)
    check(s, [a, b], [x], [x.sum(1)])
    s = te.create_schedule(b.op)
    _, ki = s[b].split(b.op.reduce_axis[0], factor=16)
    part = s.rfactor(b, ki)
    assert part.shape[0] == 16 and len(s[b].op.reduce_axis) == 1 and s[b].op.body
    check(s, [a, b], [x], [x.sum(1)])
    s = te.create_schedule(b.op)
    _, ki = s[b].split(b.op.reduce_axis[0], factor=16)
    assert s.rfactor(b, ki, factor_axis=1).shape[1] == 16
    check(s, [a, b], [x], [x.sum(1)])


def test_outputs_of_one_operation() -> None:
    m, n = te.var("m"), te.var("n")
    a0, a1 = te.placeholder((m, n), name="A0"), te.placeholder((m, n), name="A1")
    b0, b1 = te.compute((m, n), lambda i, j: (a0[i, j] + 2, a1[i, j] * 3), name="B")
    x, y = numbers(4, 5), numbers(4, 5, seed=1)
    s = te.create_schedule(b0.op)
    s[b0].split(b0.op.axis[0], 2)
    check(s, [a0, a1, b0, b1], [x, y], [x + 2, y * 3])
    c = te.compute((m, n), lambda i, j: a0[i, j] + b0[i, j], name="C")
    s = te.create_schedule(c.op)
    s[b0].compute_at(s[c], c.op.axis[0])
    check(s, [a0, a1, c], [x, y], [2 * x + 2])
    s = te.create_schedule([b0.op])
    cached = s.cache_write([b0, b1], "local")
    assert len(cached) == 2
    check(s, [a0, a1, b0, b1], [x, y], [x + 2, y * 3])


def test_scan() -> None:
    m, n = te.var("m"), te.var("n")
    x = te.placeholder((m, n), name="X")
    state = te.placeholder((m, n), name="state")
    init = te.compute((1, n), lambda _, i: x[0, i], name="init")
    twice = te.compute((m, n), lambda t, i: state[t - 1, i] * 2, name="twice")
    update = te.compute((m, n), lambda t, i: twice[t, i] + x[t, i], name="update")
    scan = te.scan(init=init, update=update, state_placeholder=state, inputs=[x], name="scan")
    given = numbers(6, 9)
    want = given.copy()
    for t in range(1, 6):
        want[t] += want[t - 1] * 2
    s = te.create_schedule(scan.op)
    check(s, [x, scan], [given], [want])
    outer, _ = s[update].split(update.op.axis[1], factor=4)
    s[twice].compute_at(s[update], outer)
    check(s, [x, scan], [given], [want])
    assert scan.op.scan_axis.var.name and len(scan.op.spatial_axis_) == 1


def test_scan_of_two_states() -> None:
    m, n, length = te.var("m"), te.var("n"), te.var("l")
    x = te.placeholder((m, n), name="X")
    one, two = te.placeholder((m, n), name="one"), te.placeholder((m, length), name="two")
    starts = te.compute((1, n), lambda _, i: x[0, i]), te.compute((1, length), lambda _, i: 0.0)
    next1 = te.compute((m, n), lambda t, i: one[t - 1, i] + x[t, i])
    next2 = te.compute((m, length), lambda t, i: two[t - 1, i] + one[t - 1, 0])
    sums, tails = te.scan(list(starts), [next1, next2], [one, two], inputs=[x])
    given = numbers(5, 4)
    total = np.cumsum(given, 0)
    tail = np.concatenate([np.zeros((1, 3)), np.cumsum(total[:-1, :1], 0).repeat(3, 1)]).astype(np.float32)
    naive([sums], [x, sums, tails], [given], [total, tail])


def test_inlining() -> None:
    a = te.placeholder((6, 6), name="A")
    b = te.compute((6, 6), lambda i, j: a[i, j] + 1, name="B")
    c = te.compute((6, 6), lambda i, j: b[i, j] * 2, name="C")
    x = numbers(6, 6)
    for inline in (te.schedule.AutoInlineInjective, te.schedule.AutoInlineElemWise, te.schedule.AutoInlineBroadcast):
        s = te.create_schedule([c.op])
        inline(s)
        check(s, [a, c], [x], [(x + 1) * 2])
    s = s.normalize()
    bounds = te.schedule.InferBound(s)
    assert bounds[c.op.axis[0]].extent == 6 and "for i" in str(te.schedule.ScheduleOps(s, bounds))


def test_refused_primitives() -> None:
    a, b, c = matmul()
    s = te.create_schedule(c.op)
    x, y = c.op.axis
    (k,) = c.op.reduce_axis
    for call, words in (
        (lambda: s[c].split(x), "Either nparts or factor"),
        (lambda: s[c].split(x, factor=2, nparts=2), "both"),
        (lambda: s[c].split(x, factor=0), "Cannot split by 0"),
        (lambda: s[c].fuse(x, k), "consecutive"),
        (lambda: s[c].reorder(x, x), "Same axis"),
        (lambda: s[c].vectorize(k), "CommReduce"),
        (lambda: s[c].compute_at(s[c], x), "inside itself"),
        (lambda: s[a].compute_at(s[c], a), "Cannot find the axis"),
        (lambda: s[c].bind(x, y), "thread"),
        (lambda: s.rfactor(c, x), "reduc"),
    ):
        with pytest.raises(tvm.TVMError, match=words):
            call()
    check(s, [a, b, c], [X, Y], [WANT])
    s[c].split(x, 8)
    with pytest.raises(tvm.TVMError, match="already been split"):
        s[c].split(x, 4)


def test_specialised_condition() -> None:
    n = te.var("n")
    a, b = double(n)
    s = te.create_schedule(b.op)
    with te.SpecializedCondition([n == 8]):
        s[b].split(b.op.axis[0], 4)
    check(s, [a, b], [numbers(11)], [numbers(11) * 2])


def test_topi_schedule_for_llvm() -> None:
    data, kernel = te.placeholder((8, 8, 4, 2), name="data"), te.placeholder((3, 3, 4, 8), name="kernel")
    with tvm.target.Target("llvm"):
        out = topi.nn.relu(topi.nn.conv2d_hwcn(data, kernel, 1, 1, 1))
        s = topi.generic.schedule_conv2d_hwcn([out])
    x, w = numbers(8, 8, 4, 2), numbers(3, 3, 4, 8, seed=1)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((1, 1), (1, 1), (0, 0), (0, 0))), (3, 3), (0, 1))
    check(s, [data, kernel, out], [x, w], [np.maximum(np.einsum("yxcnij,ijco->yxon", windows, w), 0)])
