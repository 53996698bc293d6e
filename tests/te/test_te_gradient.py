"""te.gradient against central differences in float64, and against what is known in closed form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import warpbeam as tvm
from warpbeam import te, topi
from warpbeam.te import TEError

Array = np.ndarray[Any, Any]


def compiled(outs: list[Any], args: list[Any]) -> Callable[[list[Array]], list[Array]]:
    """The tensors' values as a function of the arguments'."""
    mod = tvm.build(te.create_schedule([t.op for t in outs]), [*args, *outs])

    def call(values: list[Array]) -> list[Array]:
        sizes: dict[Any, int] = {}
        for t, v in zip(args, values, strict=True):
            sizes |= {d: n for d, n in zip(t.shape, v.shape, strict=True) if not isinstance(d, int)}
        empty = [np.full([d if isinstance(d, int) else sizes[d] for d in t.shape], 77, t.dtype) for t in outs]
        mod(*values, *empty)
        return empty

    return call


def run(outs: list[Any], args: list[Any], values: list[Array]) -> list[Array]:
    return compiled(outs, args)(values)


def differences(y: Any, args: list[Any], values: list[Array], which: int, head: Array) -> Array:
    """head times the derivative of y by one argument, by central differences."""
    h, base, f = 1e-5, values[which], compiled([y], args)
    out = np.zeros_like(base)
    for place in np.ndindex(base.shape):
        ends = []
        for sign in (1, -1):
            moved = [v.copy() for v in values]
            moved[which][place] += sign * h
            ends.append(f(moved)[0])
        out[place] = ((ends[0] - ends[1]) * head).sum() / (2 * h)
    return out


def holds(y: Any, args: list[Any], low: float = 0.2, high: float = 1.8) -> None:
    """The gradient by every argument agrees with differences; 1e-6 is what a step of 1e-5 leaves in float64."""
    rng = np.random.default_rng(0)
    values = [rng.uniform(low, high, [int(d) for d in t.shape]) for t in args]
    head = te.placeholder(y.shape, "float64", name="head")
    weight = rng.uniform(-1, 1, [int(d) for d in y.shape])
    got = run(te.gradient(y, args, head=head), [*args, head], [*values, weight])
    for k, found in enumerate(got):
        np.testing.assert_allclose(found, differences(y, args, values, k, weight), rtol=1e-6, atol=1e-6)


def given(*shape: int, name: str = "A") -> Any:
    return te.placeholder(shape, "float64", name=name)


FUNCTIONS: list[Callable[[Any], Any]] = [
    te.exp, te.log, te.sqrt, te.rsqrt, te.tanh, te.sigmoid, te.erf, te.sin, te.cos, te.tan, te.atan, te.sinh, te.cosh,
    te.asinh, te.log2, te.log10, te.log1p, te.exp10, te.abs, te.floor,
    lambda x: te.power(x, x), lambda x: te.power(x, 3.0), lambda x: x * x / (x + 1.0) - x, lambda x: -x * 2.0,
    lambda x: te.max(x, 1.0) + te.min(x * x, 1.5), lambda x: tvm.tir.Select(x > 1.0, x * x, x),
    lambda x: te.if_then_else(x > 1.0, te.exp(x), 3.0 * x), lambda x: x.astype("float32").astype("float64") * x,
    lambda x: te.asin(x / 2.0) + te.acos(x / 3.0) + te.atanh(x / 4.0) + te.acosh(x + 1.0),
]  # fmt: skip


def test_functions() -> None:
    a = given(5)
    ys = [te.compute((5,), lambda i, f=f: f(a[i]), name="Y") for f in FUNCTIONS]
    ones = te.compute((5,), lambda i: te.const(1, "float64"))
    slopes = run([te.gradient(y, [a], head=ones)[0] for y in ys], [a], [x := np.array([0.3, 0.7, 1.1, 1.4, 1.7])])
    values = compiled(ys, [a])
    for step, rtol, rounds in ((1e-6, 1e-6, False), (1e-3, 1e-3, True)):  # what rounds to float32 needs a wide step
        up, down = values([x + step]), values([x - step])
        for k in (k for k, y in enumerate(ys) if (y is ys[-2]) == rounds):
            want = (up[k] - down[k]) / (2 * step)
            np.testing.assert_allclose(slopes[k], want, rtol=rtol, atol=1e-8, err_msg=repr(ys[k].op.body))


def test_product_and_its_cost() -> None:
    a, b = given(4, 6), given(6, 5, name="B")
    k = te.reduce_axis((0, 6), "k")
    c = te.compute((4, 5), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")
    holds(c, [a, b])
    da, db = te.gradient(c, [a, b], head=given(4, 5, name="head"))
    assert [len(t.op.reduce_axis) for t in (da, db)] == [1, 1] and da.shape == (4, 6) and db.shape == (6, 5)


@pytest.mark.parametrize(("stride", "dilation", "pad"), [(1, 1, 0), (2, 1, 1), (1, 2, 2), (3, 2, 1)])
def test_convolution(stride: int, dilation: int, pad: int) -> None:
    x, w = given(2, 9, 8, name="X"), given(3, 2, 3, 2, name="W")
    padded = te.compute((2, 9 + 2 * pad, 8 + 2 * pad), lambda c, i, j: te.if_then_else(
        te.all(i >= pad, i < 9 + pad, j >= pad, j < 8 + pad), x[c, i - pad, j - pad], 0.0
    ))  # fmt: skip
    rc, rh, rw = te.reduce_axis((0, 2)), te.reduce_axis((0, 3)), te.reduce_axis((0, 2))
    oh, ow = ((n + 2 * pad - dilation * (k - 1) - 1) // stride + 1 for n, k in ((9, 3), (8, 2)))
    y = te.compute((3, oh, ow), lambda o, i, j: te.sum(
        padded[rc, i * stride + rh * dilation, j * stride + rw * dilation] * w[o, rc, rh, rw], axis=[rc, rh, rw]
    ))  # fmt: skip
    holds(y, [x, w])


def test_reductions() -> None:
    a = given(4, 5)
    axes = [te.reduce_axis((0, 5), "k"), te.reduce_axis((1, 4), "part")]
    product = te.comm_reducer(lambda x, y: x * y, lambda t: te.const(1, t), name="product")
    odd = te.comm_reducer(lambda x, y: x + y + x * y, lambda t: te.const(0, t), name="odd")
    for reducer in (te.sum, te.max, te.min, product, odd):
        for k in axes:
            holds(te.compute((4,), lambda i, k=k, r=reducer: r(te.exp(a[i, k]) * a[i, 0], axis=k)), [a])
    holds(te.compute((4,), lambda i: te.sum(a[i, axes[0]], axis=axes[0], where=axes[0] > i)), [a])
    holds(te.compute((4,), lambda i: product(a[i, axes[0]], axis=axes[0], where=axes[0] > i)), [a])


def test_ties_share() -> None:
    a = given(4)
    k = te.reduce_axis((0, 4), "k")
    y = te.compute((1,), lambda i: te.max(a[k], axis=k))
    assert run(te.gradient(y, [a]), [a], [np.array([2.0, 5, 5, 1])])[0].tolist() == [[0, 0.5, 0.5, 0]]


def test_index_patterns() -> None:
    a = given(6, 6)
    for shape, f in (
        ((6, 6), lambda i, j: a[j, i] * a[i, j]),
        ((6,), lambda i: a[i, i] + a[0, i] * a[i, 5 - i]),
        ((3, 2), lambda i, j: a[2 * i + 1, 3 * j]),
        ((12, 3), lambda i, j: a[i // 2, j]),
        ((36,), lambda i: te.exp(a[i // 6, i % 6])),
        ((4, 4), lambda i, j: a[i, j] + a[i + 1, j] + a[i + 2, j + 2] * a[i, j]),
    ):
        holds(te.compute(shape, f), [a])


def test_several_steps_and_uses() -> None:
    a, b = given(4, 3), given(3, name="B")
    k = te.reduce_axis((0, 3), "k")
    top = te.compute((4,), lambda i: te.max(a[i, k], axis=k), name="top")
    e = te.compute((4, 3), lambda i, j: te.exp(a[i, j] - top[i]), name="e")
    r = te.reduce_axis((0, 3), "r")
    total = te.compute((4,), lambda i: te.sum(e[i, r], axis=r), name="total")
    soft = te.compute((4, 3), lambda i, j: e[i, j] / total[i] * b[j], name="soft")
    holds(soft, [a, b])
    two = te.compute((4, 3), lambda i, j: (a[i, j] * b[j], a[i, j] + b[j]), name="two")
    holds(te.compute((4, 3), lambda i, j: two[0][i, j] * two[1][i, j]), [a, b])
    (inner,) = te.gradient(soft, [e], head=te.placeholder((4, 3), "float64"))
    assert inner.shape == (4, 3)


def test_operators() -> None:
    x, w, b = given(4, 6, name="X"), given(5, 6, name="W"), given(5, name="b")
    holds(topi.nn.softmax(topi.tanh(topi.nn.dense(x, w, b))), [x, w, b])
    image = given(1, 2, 6, 6, name="I")
    holds(topi.nn.pool2d(image, (2, 2), (2, 2), (1, 1), (0, 0, 0, 0), "avg"), [image])
    holds(topi.mean(topi.transpose(topi.reshape(image, (2, 36))), axis=0), [image])


def test_jacobian_second_derivative_and_strangers() -> None:
    a, other = given(3), given(2, name="other")
    y = te.compute((3,), lambda i: a[i] * a[i] * a[i], name="Y")
    x = np.array([1.0, 2, -1])
    (first,) = te.gradient(y, [a])
    (second,) = te.gradient(te.gradient(y, [a], head=te.compute((3,), lambda i: te.const(1.0, "float64")))[0], a)
    (nothing,) = te.gradient(y, [other])
    got = run([first, second, nothing], [a, other], [x, np.zeros(2)])
    assert np.array_equal(got[0], np.diag(3 * x * x)) and np.array_equal(got[1], np.diag(6 * x))
    assert got[2].shape == (3, 2) and not got[2].any()
    assert np.array_equal(run(te.gradient(y, [y]), [a], [x])[0], np.eye(3))


def test_sizes_at_run_time() -> None:
    n, m = te.var("n"), te.var("m")
    a, x, dy = (te.placeholder(s, "float64") for s in ((n, m), (m,), (n,)))
    k = te.reduce_axis((0, m), "k")
    y = te.compute((n,), lambda i: te.sum(a[i, k] * x[k], axis=k))
    da, dx = te.gradient(y, [a, x], head=dy)
    values = [np.random.default_rng(0).random(s) for s in ((3, 4), (4,), (3,))]
    got = run([da, dx], [a, x, dy], values)
    np.testing.assert_allclose(got[0], np.outer(values[2], values[1]), rtol=1e-12)
    np.testing.assert_allclose(got[1], values[0].T @ values[2], rtol=1e-12)


def test_errors() -> None:
    a = given(4)
    k = te.reduce_axis((0, 4), "k")
    y = te.compute((4,), lambda i: a[i] * 2.0)
    whole, v = te.compute((4,), lambda i: a[i].astype("int32")), te.var("v", "float64")
    out = te.extern((4,), [a], lambda ins, outs: tvm.tir.call_packed("f", ins[0], outs[0]), dtype="float64")
    pair = te.comm_reducer(lambda p, q: (p[0] + q[0], p[1] + q[1]), lambda t, u: (te.const(0, t), te.const(0, u)))
    both = te.compute((1,), lambda i: pair((a[k], a[k]), axis=k))[0]
    for call, words in (
        (lambda: te.gradient(y, ["a"]), "gradient of a str"),
        (lambda: te.gradient(whole, [a]), "of int32 has no derivative"),
        (lambda: te.gradient(y, [a], head=given(3)), "head of shape"),
        (lambda: te.gradient(out, [a]), "only te.compute has"),
        (lambda: te.gradient(both, [a]), "of several values"),
        (lambda: te.gradient(te.compute((4,), lambda i: te.fmod(a[i], 2.0)), [a]), "fmod has no derivative here"),
        (lambda: te.gradient(te.compute((4,), lambda i: tvm.tir.Let(v, a[i], v * 2.0)), [a]), "Let has no derivative"),
    ):
        with pytest.raises(TEError, match=words) as caught:
            call()
        assert isinstance(caught.value, ValueError)
