"""The book's expressions: indices, reductions, conditions, mathematics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from classic_run import naive, numbers

import warpbeam as tvm
from warpbeam import te, topi


def test_indices() -> None:
    n, m = te.var("n"), te.var("m")
    a = te.placeholder((n, m), name="A")
    x = numbers(4, 6)
    swapped = te.compute((m, n), lambda i, j: a[j, i], name="swapped")
    naive([swapped], [a, swapped], [x], [x.T])
    last = te.compute((n, m), lambda *i: a[(*i[:-2], i[-2], m - 1 - i[-1])], name="last")
    naive([last], [a, last], [x], [x[:, ::-1]])
    p, q = te.var("p"), te.var("q")
    shaped = te.compute((p, q), lambda i, j: a[(i * q + j) // m, (i * q + j) % m], name="shaped")
    naive([shaped], [a, shaped], [x], [x.reshape(3, 8)])
    bi, bj, si, sj = (te.var(v) for v in ("bi", "bj", "si", "sj"))
    part = te.compute(((n - bi) // si, (m - bj) // sj), lambda i, j: a[i * si + bi, j * sj + bj], name="part")
    s = te.create_schedule(part.op)
    mod = tvm.build(s, [a, part, bi, si, bj, sj])
    out = tvm.nd.empty((1, 2))
    mod(tvm.nd.array(x), out, 2, 2, 1, 2)
    assert np.array_equal(out.numpy(), x[2::2, 1:5:2])


def test_slices_and_whole_tensors() -> None:
    a, b = te.placeholder((3, 4), name="A"), te.placeholder((4,), name="B")
    x, y = numbers(3, 4), numbers(4, seed=1)
    for made, want in ((a + b, x + y), (a * 2, x * 2), (2 - a, 2 - x), (-a, -x), (a - b, x - y)):
        naive([made], [a, b, made], [x, y], [want])
    row = te.compute((4,), lambda j: a[1][j], name="row")
    naive([row], [a, row], [x], [x[1]])


def test_reductions() -> None:
    n, m = te.var("n"), te.var("m")
    a = te.placeholder((n, m), name="A")
    i, j = te.reduce_axis((0, n), name="i"), te.reduce_axis((0, m), name="j")
    x = numbers(5, 7)
    for fn, want in ((te.sum, x.sum(1)), (te.max, x.max(1)), (te.min, x.min(1))):
        b = te.compute((n,), lambda r, fn=fn: fn(a[r, j], axis=j), name="b")
        naive([b], [a, b], [x], [want])
    total = te.compute((), lambda: te.sum(a[i, j], axis=(i, j)), name="total")
    naive([total], [a, total], [x], [np.asarray(x.sum())])
    some = te.compute((n,), lambda r: te.sum(a[r, j], axis=[j], where=j % 2 == 0), name="some")
    naive([some], [a, some], [x], [x[:, ::2].sum(1)])
    box = te.reduce_axis(tvm.ir.Range(1, 3), "box")
    part = te.compute((n,), lambda r: te.sum(a[r, box], axis=box), name="part")
    naive([part], [a, part], [x], [x[:, 1:3].sum(1)])


def test_own_reduction() -> None:
    n, m = te.var("n"), te.var("m")
    a, k = te.placeholder((n, m), name="A"), te.reduce_axis((0, m), "k")
    product = te.comm_reducer(lambda x, y: x * y, lambda t: tvm.tir.const(1, dtype=t), name="product")
    x = numbers(3, 4)
    b = te.compute((n,), lambda i: product(a[i, k], axis=k), name="b")
    naive([b], [a, b], [x], [x.prod(1)])


def test_reduction_of_pairs() -> None:
    m, n = te.var("m"), te.var("n")
    at, value = te.placeholder((m, n), "int32", name="at"), te.placeholder((m, n), name="value")

    def smaller(x: Any, y: Any) -> Any:
        return tuple(tvm.tir.Select(x[1] <= y[1], x[p], y[p]) for p in (0, 1))

    argmin = te.comm_reducer(smaller, lambda t0, t1: (tvm.tir.const(-1, t0), te.max_value(t1)), name="argmin")
    k = te.reduce_axis((0, n), "k")
    where, least = te.compute((m,), lambda i: argmin((at[i, k], value[i, k]), axis=k), name="least")
    x = np.random.default_rng(0).random((5, 8), np.float32)
    index = np.tile(np.arange(8, dtype=np.int32), (5, 1))
    naive([where], [at, value, where, least], [index, x], [x.argmin(1).astype(np.int32), x.min(1)])


def test_conditions() -> None:
    n, m = te.var("n"), te.var("m")
    a = te.placeholder((n, m), name="A")
    x = numbers(4, 5)
    upper, lower = np.triu(x), np.tril(x)
    tir = tvm.tir
    for cond, want in (
        (lambda i, j: te.if_then_else(i >= j, a[i, j], 0.0), lower),
        (lambda i, j: te.if_then_else(te.any(i < j, i.equal(j)), a[i, j], 0), upper),
        (lambda i, j: te.if_then_else(te.all(i >= j, True), a[i, j], np.float32(0)), lower),
        (lambda i, j: tir.Select(tir.Or(i < j, i == j), a[i, j], tir.const(0, "float32")), upper),
        (lambda i, j: tir.if_then_else(tir.And(i >= j, tir.Not(i < 0)), a[i, j], 0.0), lower),
        (lambda i, j: te.if_then_else(False, 0.0, a[i, j]), x),
        (lambda i, j: tir.max(tir.min(a[i, j], 2.0), -1.0), np.clip(x, -1, 2)),
    ):
        b = te.compute((n, m), cond, name="b")
        naive([b], [a, b], [x], [want])
    ones = te.compute((3, 3), lambda i, j: te.if_then_else(i == j, np.float64(1), np.int64(0)))
    naive([ones], [ones], [], [np.eye(3, dtype=np.float32)])


def test_padding_of_symbolic_sizes() -> None:
    n, m, p = te.var("n"), te.var("m"), 2
    a = te.placeholder((n, m), name="A")
    b = te.compute(
        (n + p * 2, m + p * 2),
        lambda i, j: te.if_then_else(te.any(i < p, i >= n + p, j < p, j >= m + p), 0, a[i - p, j - p]), name="b",
    )  # fmt: skip
    x = numbers(3, 4)
    naive([b], [a, b], [x], [np.pad(x, 2)])


UNARY = {
    "exp": np.exp, "log": np.log, "log2": np.log2, "log10": np.log10, "tanh": np.tanh, "sqrt": np.sqrt,
    "floor": np.floor, "ceil": np.ceil, "round": np.round, "nearbyint": np.round, "trunc": np.trunc, "abs": np.abs,
    "sin": np.sin, "cos": np.cos, "tan": np.tan, "atan": np.arctan, "rsqrt": lambda v: 1 / np.sqrt(v),
    "sigmoid": lambda v: 1 / (1 + np.exp(-v)), "exp10": lambda v: 10**v, "isnan": np.isnan, "isinf": np.isinf,
    "isfinite": np.isfinite,
}  # fmt: skip
BINARY = {
    "power": np.power, "fmod": np.fmod, "atan2": np.arctan2, "hypot": np.hypot, "nextafter": np.nextafter,
    "copysign": np.copysign,
}  # fmt: skip


def test_mathematics() -> None:
    x, y = (np.random.default_rng(k).uniform(0.1, 2, 24).astype(np.float32) for k in (0, 1))
    a, b = te.placeholder((24,), name="A"), te.placeholder((24,), name="B")
    rows = [(te.compute((24,), lambda i, f=f: getattr(te, f)(a[i]), name=f), fn(x)) for f, fn in UNARY.items()]
    rows += [
        (te.compute((24,), lambda i, f=f: getattr(te, f)(a[i], b[i]), name=f), fn(x, y)) for f, fn in BINARY.items()
    ]
    outs, wants = zip(*rows, strict=True)
    naive(outs, [a, b, *outs], [x, y], list(wants), rtol=1e-5)


def test_division() -> None:
    a, b = te.placeholder((7,), "int32", name="A"), te.placeholder((7,), "int32", name="B")
    x, y = np.array([7, -7, 7, -7, 0, 5, -6], np.int32), np.array([2, 2, -2, -2, 3, 5, 3], np.int32)
    rows = [
        (te.floordiv, x // y), (te.indexdiv, x // y), (te.floormod, x % y), (te.indexmod, x % y),
        (te.truncdiv, np.trunc(x / y)), (te.div, np.trunc(x / y)), (te.truncmod, np.fmod(x, y)),
    ]  # fmt: skip
    outs = [te.compute((7,), lambda i, f=f: f(a[i], b[i])) for f, _ in rows]
    naive(outs, [a, b, *outs], [x, y], [w.astype(np.int32) for _, w in rows])
    bits = te.compute((7,), lambda i: te.popcount(a[i]))
    naive([bits], [a, bits], [x], [np.array([bin(int(v) & 0xFFFFFFFF).count("1") for v in x], np.int32)])


def test_literals() -> None:
    const = tvm.tir.const
    assert const(3, "int32").value == 3 and const(3, "int32").astype("float32").dtype == "float32"
    assert (const(1.5).dtype, const(True).dtype, const(np.int8(3)).dtype) == ("float32", "bool", "int8")
    assert te.min_value("int8").value == -128 and te.max_value("uint16").value == 65535
    assert te.min_value("float32").value == np.finfo(np.float32).min and te.infinity("float32").value == np.inf
    x = te.var("x")
    assert x.same_as(x) and x.equal(3).dtype == "bool" and bool(x == x) and not bool(x != x)
    assert tvm.runtime.convert([1, 2]) is not None and tvm.tir.IntImm("int32", 3).value == 3
    vector = te.compute((4,), lambda i: const(1, "float32x4"))
    assert vector.dtype == "float32x4"


def test_attributes_of_a_compute() -> None:
    a = te.placeholder(shape=(4,), dtype="float32", name="A")
    b = te.compute(shape=(4,), fcompute=lambda i: a[i], name="B", tag="mine", attrs={"factor": 2})
    assert b.op.tag == "mine" and b.op.attrs["factor"] == 2 and b.op.name == "B"
    c = te.compute((4, 2), lambda *i: a[i[0]], varargs_names=["p", "q"])
    assert [v.var.name for v in c.op.axis] == ["p", "q"] and c.op.name == "compute"
    with te.tag_scope(tag="injective"):
        assert te.compute((4,), lambda i: a[i]).op.tag == "injective"
        with pytest.raises(ValueError, match="nested"):
            te.compute((4,), lambda i: a[i], tag="other")

    @te.tag_scope("decorated")
    def made() -> Any:
        return te.compute((4,), lambda i: a[i])

    assert made().op.tag == "decorated" and te.compute((4,), lambda i: a[i]).op.tag == ""


def test_common_operators() -> None:
    data, mean, var = (te.placeholder(s, name=n) for s, n in (((4, 6, 6), "x"), ((4, 1, 1), "m"), ((4, 1, 1), "v")))
    out = (data - mean) / topi.sqrt(var + 1e-5)
    s = te.create_schedule(out.op)
    before = str(tvm.lower(s, [data, mean, var, out], simple_mode=True)).count("for ")
    te.schedule.AutoInlineInjective(s)
    after = str(tvm.lower(s, [data, mean, var, out], simple_mode=True)).count("for ")
    assert after == 3 < before
    x, m, v = numbers(4, 6, 6), numbers(4, 1, 1), np.abs(numbers(4, 1, 1)) + 1
    mod, got = tvm.build(s, [data, mean, var, out]), tvm.nd.empty((4, 6, 6))
    mod(*map(tvm.nd.array, (x, m, v)), got)
    np.testing.assert_allclose(got.numpy(), (x - m) / np.sqrt(v + 1e-5), rtol=1e-5)


def padded(x: Any, p: int, fill: Any = 0) -> Any:
    *lead, h, w = x.shape
    return te.compute((*lead, h + 2 * p, w + 2 * p), lambda *i: te.if_then_else(
        te.any(i[-2] < p, i[-2] >= h + p, i[-1] < p, i[-1] >= w + p), fill, x[(*i[:-2], i[-2] - p, i[-1] - p)],
    ), name="padded")  # fmt: skip


@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_and_pooling(stride: int) -> None:
    c, o, n, k, p = 3, 4, 8, 3, 1
    size = (n - k + 2 * p) // stride + 1
    x, w = te.placeholder((c, n, n), name="X"), te.placeholder((o, c, k, k), name="W")
    rc, ry, rx = (te.reduce_axis((0, e), name=v) for e, v in ((c, "rc"), (k, "ry"), (k, "rx")))
    at = padded(x, p)
    conv = te.compute((o, size, size), lambda f, i, j: te.sum(
        at[rc, i * stride + ry, j * stride + rx] * w[f, rc, ry, rx], axis=[rc, ry, rx]), name="conv")  # fmt: skip
    a, b = numbers(c, n, n), numbers(o, c, k, k, seed=1)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(a, ((0, 0), (p, p), (p, p))), (k, k), (1, 2))
    windows = windows[:, ::stride, ::stride]
    naive([conv], [x, w, conv], [a, b], [np.einsum("cyxij,ocij->oyx", windows, b)])
    low = padded(x, p, te.min_value(x.dtype))
    most = te.compute((c, size, size), lambda f, i, j: te.max(
        low[f, i * stride + ry, j * stride + rx], axis=[ry, rx]), name="most", tag="pool_max")  # fmt: skip
    bottom = np.pad(a, ((0, 0), (p, p), (p, p)), constant_values=np.finfo(np.float32).min)
    want = np.lib.stride_tricks.sliding_window_view(bottom, (k, k), (1, 2))[:, ::stride, ::stride].max((3, 4))
    naive([most], [x, most], [a], [want])
