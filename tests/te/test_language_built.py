"""What the language can say, built for the processor and run: scans, externs, scalars, strides, hybrid scripts."""

from __future__ import annotations

import numpy as np
import pytest

import warpbeam as wb
from warpbeam import te, tir

# ruff: noqa: F821  (words of hybrid scripts)


def ints(*shape, seed=0):
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(np.float32)


def built(schedule, args, *values, target="llvm", **kw):
    """Builds and runs; the last array is the result."""
    arrays = [wb.nd.array(v) if isinstance(v, np.ndarray) else v for v in values]
    wb.build(schedule, args, target, **kw)(*arrays)
    return arrays[-1].numpy()


@pytest.mark.parametrize("target", ["llvm", "c"])
def test_scan_with_a_stage_inside(target):
    m, n = te.var("m"), te.var("n")
    x, state = te.placeholder((m, n), name="X"), te.placeholder((m, n), name="S")
    first = te.compute((1, n), lambda _, i: x[0, i], name="first")
    double = te.compute((m, n), lambda t, i: state[t - 1, i] * 2, name="double")
    step = te.compute((m, n), lambda t, i: double[t, i] + x[t, i], name="step")
    out = te.scan(first, step, state, inputs=[x])
    s = te.create_schedule(out.op)
    outer, _ = s[step].split(step.op.axis[1], factor=3)
    s[double].compute_at(s[step], outer)
    a = ints(5, 7)
    expected = a.copy()
    for t in range(1, 5):
        expected[t] += expected[t - 1] * 2
    np.testing.assert_array_equal(built(s, [x, out], a, a * 0, target=target), expected)


def test_recurrent_cell_of_two_states():
    steps, size = 4, 3
    x, w = te.placeholder((steps, 2, size), name="X"), te.placeholder((2, size, size), name="W")
    h, c = te.placeholder((steps, size), name="h"), te.placeholder((steps, size), name="c")
    zero = [te.compute((1, size), lambda *i: 0.0, name=f"zero{k}") for k in range(2)]
    k = te.reduce_axis((0, size), "k")
    product = te.compute((steps, 2, size), lambda t, g, i: te.sum(h[t - 1, k] * w[g, i, k], axis=k), name="product")
    gates = te.compute((steps, 2, size), lambda *i: product(*i) + x(*i), name="gates")
    next_c = te.compute((steps, size), lambda t, i: c[t - 1, i] + gates[t, 0, i], name="next_c")
    next_h = te.compute((steps, size), lambda t, i: next_c[t, i] * gates[t, 1, i], name="next_h")
    out_h, out_c = te.scan(zero, [next_h, next_c], [h, c], inputs=[x, w])
    s = te.create_schedule(out_h.op)
    s[gates].compute_inline()
    a, b = ints(steps, 2, size), ints(2, size, size, seed=1)
    hs, cs = np.zeros((steps, size), np.float32), np.zeros((steps, size), np.float32)
    for t in range(1, steps):
        g = np.einsum("k,gik->gi", hs[t - 1], b) + a[t]
        cs[t] = cs[t - 1] + g[0]
        hs[t] = cs[t] * g[1]
    np.testing.assert_array_equal(built(s, [x, w, out_h, out_c], a, b, hs * 0, cs * 0), cs)
    np.testing.assert_array_equal(built(s, [x, w, out_c, out_h], a, b, cs * 0, hs * 0), hs)


def test_externs_between_computes():
    wb.register_func("tests.built.add_one", lambda x, y: y.copyfrom(x.numpy() + 1) and None, override=True)
    a = te.placeholder((6, 5), name="A")
    t = a
    for k in range(3):
        t = te.extern((6, 5), [t], lambda i, o: tir.call_packed("tests.built.add_one", i[0], o[0]), name=f"E{k}")
        t = te.compute((6, 5), lambda i, j, t=t: t[i, j] * 2, name=f"C{k}")
    x = ints(6, 5)
    np.testing.assert_array_equal(built(te.create_schedule(t.op), [a, t], x, x * 0), x * 8 + 14)


def test_scalars_are_arguments():
    n, scale = te.var("n", "int32"), te.var("scale", "float32")
    a = te.placeholder((n,), name="A")
    b = te.compute((n,), lambda i: a[i] * scale + n, name="B")
    s = te.create_schedule(b.op)
    x = ints(5)
    np.testing.assert_array_equal(built(s, [n, scale, a, b], 5, 2.5, x, x * 0), x * 2.5 + 5)


def test_reduction_from_the_middle_in_pieces():
    a = te.placeholder((10, 4), name="A")
    k = te.reduce_axis((2, 9), "k")
    b = te.compute((4,), lambda i: te.sum(a[k, i], axis=k, where=k != 4), name="B")
    s = te.create_schedule(b.op)
    _, inner = s[b].split(k, factor=4)
    s.rfactor(b, inner)
    x = ints(10, 4)
    np.testing.assert_array_equal(built(s, [a, b], x, x[0] * 0), x[2:9].sum(0) - x[4])


def test_parameters_with_strides():
    m = te.var("m")
    a = te.placeholder((4, m), name="A")
    b = te.compute((4, m), lambda i, j: a[i, j] + 1, name="B")
    buffer = tir.decl_buffer((4, m), name="Ab", strides=[te.var("s0"), te.var("s1")], offset_factor=1)
    x = ints(4, 6)
    s = te.create_schedule(b.op)
    np.testing.assert_array_equal(built(s, [buffer, b], x, x * 0, binds={a: buffer}), x + 1)


@te.hybrid.script
def running(a, n):
    b = output_tensor(a.shape, "float32")
    for i in parallel(a.shape[0]):
        total = 0.0
        for j in range(a.shape[1]):
            total += a[i, j]
            b[i, j] = total if total > 0.0 else float32(n)
    return b


def test_hybrid_script_in_a_schedule():
    a, n = te.placeholder((8, 4), name="A"), te.var("n", "int32")
    b = running(a, n)
    c = te.compute((8, 4), lambda i, j: b[i, j] + 1, name="C")
    x = ints(8, 4)
    sums = np.cumsum(x, 1)
    got = built(te.create_schedule(c.op), [a, n, c], x, 7, x * 0)
    np.testing.assert_array_equal(got, np.where(sums > 0, sums, 7) + 1)
