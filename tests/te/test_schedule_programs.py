"""Whole schedules as tutorials write them, small: each runs on the interpreter, lowered, and as machine code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from te_check import check, loops, matmul, product

from warpbeam import te

BLOCK = 8


def blocked(s: Any, c: Any) -> tuple[Any, ...]:
    return s[c].tile(*c.op.axis, BLOCK, BLOCK)  # type: ignore[no-any-return]


@pytest.mark.parametrize("n", [16, 21])
def test_matmul_default_blocked_vectorised_permuted(n):
    a, b, c, k = matmul(n, n, n)
    check(te.create_schedule(c.op), [a, b, c], product)
    for order in ("blocked", "vectorised", "permuted", "parallel"):
        s = te.create_schedule(c.op)
        xo, yo, xi, yi = blocked(s, c)
        ko, ki = s[c].split(k, factor=4)
        if order in ("permuted", "parallel"):
            s[c].reorder(xo, yo, ko, xi, ki, yi)
        else:
            s[c].reorder(xo, yo, ko, ki, xi, yi)
        if order != "blocked":
            s[c].vectorize(yi)
        if order == "parallel":
            s[c].parallel(xo)
        check(s, [a, b, c], product)


@pytest.mark.parametrize("n", [16, 21])
def test_matmul_with_a_packed_operand_and_a_cache_for_the_block(n):
    a, b = te.placeholder((n, n), name="A"), te.placeholder((n, n), name="B")
    k = te.reduce_axis((0, n), "k")
    rows = -(-n // BLOCK)
    packed = te.compute(
        (rows, n, BLOCK),
        lambda bigN, k, littleN: te.if_then_else(bigN * BLOCK + littleN < n, b[k, bigN * BLOCK + littleN], 0.0),
        name="packedB",
    )
    c = te.compute(
        (n, n),
        lambda m, n: te.sum(a[m, k] * packed[te.indexdiv(n, BLOCK), k, te.indexmod(n, BLOCK)], axis=k),
        name="C",
    )
    s = te.create_schedule(c.op)
    cc = s.cache_write(c, "global")
    mo, no, _, _ = blocked(s, c)
    s[cc].compute_at(s[c], no)
    mc, nc = s[cc].op.axis
    (kk,) = s[cc].op.reduce_axis
    ko, ki = s[cc].split(kk, factor=4)
    s[cc].reorder(ko, mc, ki, nc)
    s[cc].vectorize(nc)
    s[cc].unroll(ki)
    s[c].parallel(mo)
    _, _, little = s[packed].op.axis
    s[packed].vectorize(little)
    s[packed].parallel(s[packed].op.axis[0])
    check(s, [a, b, c], product)


def test_store_predicate_of_a_plain_stage():
    a = te.placeholder((8,), name="A")
    b = te.compute((8,), lambda i: a[i] + 1.0, name="B")
    s = te.create_schedule(b.op)
    tx = te.thread_axis("threadIdx.x")
    s[b].bind(b.op.axis[0], tx)
    s[b].set_store_predicate(tx.var < 5)

    def first(x: Any, _: Any) -> Any:
        return np.where(np.arange(8) < 5, x + 1, -77).astype("float32")

    check(s, [a, b], first)


def convolution(size: int = 2, channels: int = 4, filters: int = 8, batch: int = 4) -> tuple[Any, ...]:
    """3x3 with padding 1, layout HWCN; the padding is a stage of its own."""
    a = te.placeholder((size, size, channels, batch), name="A")
    w = te.placeholder((3, 3, channels, filters), name="W")
    pad = te.compute(
        (size + 2, size + 2, channels, batch),
        lambda y, x, c, n: te.if_then_else(
            te.all(y >= 1, y - 1 < size, x >= 1, x - 1 < size), a[y - 1, x - 1, c, n], 0.0
        ),
        name="Apad",
    )
    rc, ry, rx = te.reduce_axis((0, channels), "rc"), te.reduce_axis((0, 3), "ry"), te.reduce_axis((0, 3), "rx")
    b = te.compute(
        (size, size, filters, batch),
        lambda y, x, f, n: te.sum(pad[y + ry, x + rx, rc, n] * w[ry, rx, rc, f], axis=[ry, rx, rc]),
        name="B",
    )
    return a, w, pad, b


def convolved(a: Any, w: Any, out: Any) -> Any:
    p = np.pad(a, ((1, 1), (1, 1), (0, 0), (0, 0)))
    size = a.shape[0]
    for y in range(size):
        for x in range(size):
            out[y, x] = np.einsum("abcn,abcf->fn", p[y : y + 3, x : x + 3], w)
    return out


def bound(s: Any, stage: Any, axes: dict[str, Any]) -> None:
    for tag, axis in axes.items():
        s[stage].bind(axis, te.thread_axis(tag.split("@")[0]))


def test_convolution_with_shared_tiles_cooperative_threads_and_virtual_threads(golden):
    a, w, pad, b = convolution()
    s = te.create_schedule(b.op)
    s[pad].compute_inline()
    aa, ww = s.cache_read(pad, "shared", [b]), s.cache_read(w, "shared", [b])
    al, wl = s.cache_read(aa, "local", [b]), s.cache_read(ww, "local", [b])
    bl = s.cache_write(b, "local")
    y, x, f, n = s[b].op.axis
    z = s[b].fuse(y, x)
    by, f = s[b].split(f, factor=4)
    bx, n = s[b].split(n, factor=4)
    vy, f = s[b].split(f, nparts=2)
    vx, n = s[b].split(n, nparts=2)
    ty, f = s[b].split(f, nparts=2)
    tx, n = s[b].split(n, nparts=2)
    s[b].reorder(z, by, bx, vy, vx, ty, tx, f, n)
    bound(s, b, {
        "blockIdx.z": z, "blockIdx.y": by, "blockIdx.x": bx, "vthread@y": vy, "vthread@x": vx,
        "threadIdx.y": ty, "threadIdx.x": tx,
    })  # fmt: skip
    s[bl].compute_at(s[b], tx)
    y, x, f, n = s[bl].op.axis
    ry, rx, rc = s[bl].op.reduce_axis
    rco, rci = s[bl].split(rc, factor=2)
    s[bl].reorder(rco, ry, rx, rci, f, n)
    for shared in (aa, ww):
        s[shared].compute_at(s[bl], rx)
        y, x, c, n = s[shared].op.axis
        ty, c = s[shared].split(c, nparts=2)
        tx, n = s[shared].split(n, nparts=2)
        _, n = s[shared].split(n, factor=4)
        s[shared].reorder(ty, tx, y, x, c, n)
        bound(s, shared, {"threadIdx.y": ty, "threadIdx.x": tx})
        s[shared].vectorize(n)
    s[al].compute_at(s[bl], rci)
    s[wl].compute_at(s[bl], rci)
    func = check(s, [a, w, b], convolved)
    golden("convolution_threads.txt", "\n".join(loops(func)))


def test_depthwise_with_inlined_padding_and_fused_outer_loops():
    c, size = 5, 7
    x, w = te.placeholder((c, size, size), name="X"), te.placeholder((c, 1, 3, 3), name="W")
    pad = te.compute(
        (c, size + 2, size + 2),
        lambda *i: te.if_then_else(
            te.any(i[-2] < 1, i[-2] >= size + 1, i[-1] < 1, i[-1] >= size + 1), 0.0, x[i[0], i[1] - 1, i[2] - 1]
        ),
        name="PaddedX",
    )
    r, q = te.reduce_axis((0, 3), "r"), te.reduce_axis((0, 3), "q")
    y = te.compute(
        (c, size, size), lambda ch, i, j: te.sum(pad[ch, i + r, j + q] * w[ch, 0, r, q], axis=[r, q]), name="Y"
    )
    s = te.create_schedule(y.op)
    s[pad].compute_inline()
    ch, i, j = s[y].op.axis
    fused = s[y].fuse(ch, i)
    s[y].parallel(fused)
    s[y].reorder(fused, r, q, j)
    s[y].vectorize(j)

    def reference(v: Any, k: Any, out: Any) -> Any:
        p = np.pad(v, ((0, 0), (1, 1), (1, 1)))
        for a in range(size):
            for b in range(size):
                out[:, a, b] = (p[:, a : a + 3, b : b + 3] * k[:, 0]).sum((1, 2))
        return out

    check(s, [x, w, y], reference)


def recurrence(steps: int = 6, width: int = 8) -> tuple[Any, ...]:
    """state[t] = 2 * state[t-1] + X[t], with a stage between."""
    x = te.placeholder((steps, width), name="X")
    state = te.placeholder((steps, width), name="state")
    start = te.compute((1, width), lambda _, i: x[0, i], name="start")
    twice = te.compute((steps, width), lambda t, i: state[t - 1, i] * 2.0, name="twice")
    step = te.compute((steps, width), lambda t, i: twice[t, i] + x[t, i], name="step")
    return x, state, start, twice, step, te.scan(start, step, state, inputs=[x])


def recurred(x: Any, _: Any) -> Any:
    out = x.copy()
    for t in range(1, len(x)):
        out[t] = out[t - 1] * 2 + x[t]
    return out


def test_scan_stages_run_inside_the_loop_over_time(golden):
    x, _, start, twice, step, out = recurrence()
    s = te.create_schedule(out.op)
    assert s[step].group is s[twice].group is s.groups[0] and s.groups[0].attach_stage is s[out]
    text = ["# unscheduled", *loops(check(s, [x, out], recurred))]
    assert int(te.schedule.InferBound(s)[out.op.scan_axis].extent.value) == 5
    s = te.create_schedule(out.op)
    outer, inner = s[step].split(step.op.axis[1], factor=3)
    s[twice].compute_at(s[step], outer)
    xs = s.cache_read(x, "local", [step])
    s[xs].compute_at(s[step], inner)
    s[start].vectorize(start.op.axis[1])
    text += ["# placed inside the update", *loops(check(s, [x, out], recurred))]
    s = te.create_schedule(out.op)
    s[step].reorder(step.op.axis[1], step.op.axis[0])
    s[twice].compute_inline()
    s[step].vectorize(step.op.axis[1])
    text += ["# inlined", *loops(check(s, [x, out], recurred))]
    golden("scan.txt", "\n".join(text))


def test_scan_with_threads_around_it(golden):
    x, state, start, twice, step, out = recurrence()
    s = te.create_schedule(out.op)
    tx = te.thread_axis((0, 4), "threadIdx.x")
    s[out].env_threads([tx])
    shared = s.cache_read(state, "shared", [twice])
    s[shared].compute_at(s[out], out.op.scan_axis)
    for stage in (start, step):
        outer, _ = s[stage].split(stage.op.axis[1], nparts=4)
        s[stage].bind(outer, tx)
    s[twice].compute_inline()
    golden("scan_threads.txt", "\n".join(loops(check(s, [x, out], recurred))))
    with pytest.raises(ValueError, match="Already set env_threads"):
        s[out].env_threads([tx])
    with pytest.raises(ValueError, match="Cannot specify compute_at for scan updates"):
        s[step].attach_type = 5
        s[step].compute_at(s[out], out.op.scan_axis)


def test_recurrent_layer():
    steps, batch, width = 4, 3, 6
    x = te.placeholder((steps, batch, width), name="X")
    w = te.placeholder((width, width), name="Whh")
    state = te.placeholder((steps, batch, width), name="state")
    start = te.compute((1, batch, width), lambda _, i, j: x[0, i, j], name="start")
    k = te.reduce_axis((0, width), name="k")
    mixed = te.compute(
        (steps, batch, width), lambda t, i, j: te.sum(state[t - 1, i, k] * w[j, k], axis=k), name="mixed"
    )
    step = te.compute((steps, batch, width), lambda t, i, j: mixed[t, i, j] + x[t, i, j], name="step")
    out = te.scan(start, step, state, inputs=[x, w])
    s = te.create_schedule(out.op)
    wl = s.cache_read(w, "local", [mixed])
    jo, _ = s[step].split(step.op.axis[2], factor=4)
    s[step].reorder(step.op.axis[0], jo, step.op.axis[1])
    s[mixed].compute_at(s[step], jo)
    s[wl].compute_at(s[mixed], mixed.op.axis[0])
    factored, _ = s[mixed].split(s[mixed].op.reduce_axis[0], nparts=2)
    part = s.rfactor(mixed, factored)
    s[part].compute_at(s[mixed], s[mixed].op.axis[2])

    def reference(v: Any, m: Any, _: Any) -> Any:
        r = v.copy()
        for t in range(1, steps):
            r[t] = r[t - 1] @ m.T + v[t]
        return r

    check(s, [x, w, out], reference)


def test_nested_attachments(golden):
    a, b, c, k = matmul(20, 18, 50)
    d = te.compute((20, 18), lambda x, y: c[x, y] + 1.0, name="D")
    s = te.create_schedule(d.op)
    aa, bb = s.cache_read(a, "global", [c]), s.cache_read(b, "global", [c])
    cc = s.cache_write(c, "local")
    xo, yo, _, yi = s[d].tile(*d.op.axis, 8, 8)
    s[d].vectorize(yi)
    s[c].compute_at(s[d], yo)
    s[cc].compute_at(s[c], c.op.axis[0])
    ko, _ = s[cc].split(k, 16)
    s[cc].reorder(ko, *s[cc].op.axis)
    s[aa].compute_at(s[cc], ko)
    s[bb].compute_at(s[cc], ko)
    s[d].parallel(xo)
    golden("nested.txt", "\n".join(loops(check(s, [a, b, d], lambda x, y, _: x @ y + 1))))


def test_fused_attach_point_and_symbolic_rows():
    n = te.var("n")
    a = te.placeholder((n, 12), name="A")
    b = te.compute((n, 12), lambda i, j: a[i, j] + 1.0, name="B")
    c = te.compute((n, 10), lambda i, j: b[i, j] + b[i, j + 1] + b[i, j + 2], name="C")
    s = te.create_schedule(c.op)
    fused = s[c].fuse(*c.op.axis)
    outer, inner = s[c].split(fused, 5)
    s[b].compute_at(s[c], outer)
    s[c].unroll(inner)

    def reference(x: Any, _: Any) -> Any:
        y = x + 1
        return y[:, :-2] + y[:, 1:-1] + y[:, 2:]

    check(s, [a, c], reference, {"n": 7})


def test_scans_of_symbolic_length_on_a_device_and_of_several_states():
    m, n, l = te.var("m"), te.var("n"), te.var("l")
    x = te.placeholder((m, n), name="X")
    state = te.placeholder((m, n))
    start = te.compute((1, n), lambda _, i: x[0, i])
    step = te.compute((m, n), lambda t, i: state[t - 1, i] + x[t, i])
    out = te.scan(start, step, state, inputs=[x])
    s = te.create_schedule(out.op)
    for stage in (start, step):
        outer, inner = s[stage].split(stage.op.axis[1], factor=16)
        s[stage].bind(outer, te.thread_axis("blockIdx.x"))
        s[stage].bind(inner, te.thread_axis("threadIdx.x"))
    check(s, [x, out], lambda v, _: np.cumsum(v, 0), {"m": 5, "n": 37})
    other = te.placeholder((m, l))
    zero = te.compute((1, l), lambda _, i: 0.0)
    more = te.compute((m, l), lambda t, i: other[t - 1, i] + state[t - 1, 0])
    sums, firsts = te.scan([start, zero], [step, more], [state, other], inputs=[x])
    s = te.create_schedule(sums.op)
    s[step].parallel(step.op.axis[1])

    def reference(v: Any, _: Any, b: Any) -> Any:
        a, b = np.cumsum(v, 0), np.zeros_like(b)
        for t in range(1, len(v)):
            b[t] = b[t - 1] + a[t - 1, 0]
        return a, b

    check(s, [x, sums, firsts], reference, {"m": 4, "n": 5, "l": 3})
