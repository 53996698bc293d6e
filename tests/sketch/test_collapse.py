"""Joining axes changes shapes and never values."""

import numpy as np
from tolerance import close

from warpbeam.sketch.collapse import collapse
from warpbeam.te import tensor as te
from warpbeam.te.create import create_prim_func
from warpbeam.tir import expr as E
from warpbeam.tir.interp import run


def shapes(tensors):
    return [t.shape for t in tensors]


def execute(inputs, outputs, arrays):
    func = create_prim_func(list(inputs), list(outputs), "f")
    given = [np.ascontiguousarray(a.reshape(t.shape)) for a, t in zip(arrays, inputs, strict=True)]
    result = [np.zeros(t.shape, t.dtype) for t in outputs]
    run(func, *given, *result)
    return result


def test_pointwise_becomes_one_axis():
    x = te.placeholder((3, 4, 5), name="x")
    y = te.compute((3, 4, 5), lambda i, j, k: x[i, j, k] * 2.0, name="y")
    ins, outs = collapse([x], [y])
    assert shapes(ins) == [(60,)] and shapes(outs) == [(60,)]


def test_unit_kernel_convolution_becomes_a_matrix_product():
    a = te.placeholder((1, 6, 5, 8), name="a")
    w = te.placeholder((1, 1, 8, 3), name="w")
    b = te.placeholder((3,), name="b")
    kh, kw, ic = te.reduce_axis(1, "kh"), te.reduce_axis(1, "kw"), te.reduce_axis(8, "ic")
    y = te.compute(
        (1, 6, 5, 3),
        lambda n, h, v, o: te.sum(a[n, h + kh, v + kw, ic] * w[kh, kw, ic, o], axis=[kh, kw, ic]),
        name="y",
    )
    z = te.compute(y.shape, lambda n, h, v, o: y[n, h, v, o] + b[o], name="z")
    ins, outs = collapse([a, w, b], [z])
    assert shapes(ins) == [(30, 8), (8, 3), (3,)] and shapes(outs) == [(30, 3)]
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(t.shape).astype(np.float32) for t in (a, w, b)]
    (got,) = execute(ins, outs, arrays)
    want = arrays[0].reshape(30, 8) @ arrays[1].reshape(8, 3) + arrays[2]
    close(got, want, terms=8 + 1)


def test_transposed_axes_stay_apart():
    x = te.placeholder((3, 4, 5), name="x")
    y = te.compute((4, 3, 5), lambda i, j, k: x[j, i, k], name="y")
    _, outs = collapse([x], [y])
    assert shapes(outs) == [(4, 3, 5)]


def test_axes_used_in_a_condition_stay_apart():
    from warpbeam.tir.expr import if_then_else

    x = te.placeholder((3, 4), name="x")
    y = te.compute((3, 4), lambda i, j: if_then_else(j < 2, x[i, j], 0.0), name="y")
    _, outs = collapse([x], [y])
    assert shapes(outs) == [(3, 4)]


def test_axes_of_a_reduction_become_one():
    x = te.placeholder((2, 3, 4, 5), name="x")
    a, b = te.reduce_axis(4, "a"), te.reduce_axis(5, "b")
    most = te.compute((2, 3), lambda i, j: te.max(x[i, j, a, b], axis=[a, b]), name="most")
    y = te.compute((2, 3, 4, 5), lambda i, j, k, v: x[i, j, k, v] - most[i, j], name="y")
    ins, outs = collapse([x], [y])
    assert shapes(ins) == [(6, 20)] and shapes(outs) == [(6, 20)]
    arrays = [np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)]
    (got,) = execute(ins, outs, arrays)
    np.testing.assert_array_equal(got.reshape(2, 3, 4, 5), arrays[0] - arrays[0].max((2, 3), keepdims=True))


def test_axes_of_a_reduction_that_are_read_apart_stay_so():
    x, w = te.placeholder((4, 5), name="x"), te.placeholder((5,), name="w")
    a, b = te.reduce_axis(4, "a"), te.reduce_axis(5, "b")
    y = te.compute((2,), lambda i: te.sum(x[a, b] * w[b] + i.astype("float32"), axis=[a, b]), name="y")
    assert shapes(collapse([x, w], [y])[0]) == [(4, 5), (5,)]
    turned = te.compute((2,), lambda i: te.sum(x[a, b] + i.astype("float32"), axis=[b, a]), name="turned")
    assert shapes(collapse([x], [turned])[0]) == [(4, 5)]
    ends = te.compute((4,), lambda i: te.sum(x[i, b] + x[a, 0], axis=[a, b]), name="ends")
    assert shapes(collapse([x], [ends])[0]) == [(4, 5)]


def test_a_reduction_over_one_element_is_none():
    """An outer product is no contraction, and a maximum begins where its start says."""
    x, w = te.placeholder((6, 1), name="x"), te.placeholder((1, 5), name="w")
    k, t = te.reduce_axis(1, "k"), te.reduce_axis(1, "t")
    y = te.compute((6, 5), lambda i, j: te.sum(x[i, k] * w[k, j], axis=[k]), name="y")
    z = te.compute((6, 5), lambda i, j: te.max(y[i, j + t], axis=[t], init=-0.25), name="z")
    ins, outs = collapse([x, w], [z])
    assert shapes(ins) == [(6,), (5,)]
    assert not any(op.reduce_axis for op in (outs[0].op, outs[0].op.input_tensors[0].op))
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in ((6, 1), (1, 5))]
    (got,) = execute(ins, outs, arrays)
    np.testing.assert_array_equal(got, np.maximum(arrays[0] * arrays[1], np.float32(-0.25)))


def test_a_reduction_over_one_element_by_a_condition_and_of_pairs():
    """What does not count leaves the identity; each result of a tuple has its own."""
    x = te.placeholder((7, 1), name="x")
    k = te.reduce_axis(1, "k")
    some = te.compute((7,), lambda i: te.sum(x[i, k], axis=[k], where=x[i, k] > 0.0), name="some")
    best = te.comm_reducer(
        lambda a, b: (E.select(a[1] < b[1], b[0], a[0]), E.select(a[1] < b[1], b[1], a[1])),
        lambda t0, t1: (E.const(-1, t0), E.const(0.5, t1)),
    )
    index, value = te.compute((7,), lambda i: best((k + 3, x[i, k]), axis=k), name="best")
    ins, outs = collapse([x], [some, index, value])
    assert shapes(ins) == [(7,)] and not any(t.op.reduce_axis for t in outs)
    a = np.linspace(-2, 2, 7, dtype=np.float32).reshape(7, 1)
    got = execute(ins, outs, [a])
    np.testing.assert_array_equal(got[0], np.maximum(a[:, 0], 0))
    np.testing.assert_array_equal(got[1], np.where(a[:, 0] > 0.5, 3, -1))
    np.testing.assert_array_equal(got[2], np.maximum(a[:, 0], np.float32(0.5)))
