"""Row reductions run in vectors whatever the number of columns, known or not, and give the same values."""

import numpy as np
import pytest
from tolerance import close

from warpbeam import topi
from warpbeam.ir.rewrite import post_order
from warpbeam.sketch.select import schedule
from warpbeam.target import get
from warpbeam.te import tensor as te
from warpbeam.tir.expr import Call, SizeVar, call
from warpbeam.tir.interp import run
from warpbeam.tir.stmt import For
from warpbeam.tir.text import to_text
from warpbeam.tir.transform import lower


def softmax(shape):
    x = te.placeholder(shape, name="x")
    k, k2 = te.reduce_axis(shape[1], "k"), te.reduce_axis(shape[1], "k2")
    top = te.compute(shape[:1], lambda i: te.max(x[i, k], axis=[k]), name="top")
    e = te.compute(shape, lambda i, j: call("exp", x[i, j] - top[i]), name="e")
    total = te.compute(shape[:1], lambda i: te.sum(e[i, k2], axis=[k2]), name="total")
    return [x], [te.compute(shape, lambda i, j: e[i, j] / total[i], name="y")]


def expected(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("shape", [(6, 128), (4, 768), (5, 100), (2, 7)])
def test_softmax_of_known_size(shape):
    ins, outs = softmax(shape)
    plan = schedule(ins, outs, get("native"))
    assert plan.sketch == "rows"
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    y = np.zeros(shape, np.float32)
    flat = [v.reshape(p.shape) for v, p in zip((x, y), plan.func.params)]  # a single column is no dimension
    run(plan.func, *flat)
    close(y, expected(x), terms=x.shape[1] + 3)
    y[...] = 0
    run(lower(plan.func, get("native")), *flat)
    close(y, expected(x), terms=x.shape[1] + 3)


@pytest.mark.parametrize("columns", [3, 16, 77, 130])
def test_softmax_of_symbolic_columns(columns):
    n = SizeVar("n")
    ins, outs = softmax((5, n))
    plan = schedule(ins, outs, get("native"))
    assert plan.sketch == "rows"
    x = np.random.default_rng(0).standard_normal((5, columns)).astype(np.float32)
    y = np.zeros_like(x)
    run(plan.func, x, y, columns)
    close(y, expected(x), terms=x.shape[1] + 3)


def test_rows_of_different_lengths_are_no_rows():
    x, z = te.placeholder((6, 8), name="x"), te.placeholder((6, 5), name="z")
    k, r = te.reduce_axis(8, "k"), te.reduce_axis(5, "r")
    long = te.compute((6,), lambda i: te.sum(x[i, k], axis=[k]), name="long")
    short = te.compute((6,), lambda i: te.sum(z[i, r], axis=[r]), name="short")
    both = te.compute((6,), lambda i: long[i] - short[i], name="both")
    plan = schedule([x, z], [both], get("native"))
    assert plan.sketch != "rows"
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((6, 8), (6, 5)))
    out = np.zeros(6, np.float32)
    run(plan.func, a, b, out)
    close(out, a.sum(1) - b.sum(1), terms=8 + 1, scale=float(np.abs(a).sum(1).max()))


def test_sum_of_rows_of_symbolic_number():
    m = SizeVar("m")
    x = te.placeholder((m, 100), name="x")
    k = te.reduce_axis(100, "k")
    y = te.compute((m,), lambda i: te.sum(x[i, k], axis=[k]), name="y")
    plan = schedule([x], [y], get("native"))
    assert plan.sketch == "rows"
    assert any(isinstance(f, For) and f.kind == "parallel" for f in post_order(plan.func.body))
    a = np.random.default_rng(0).standard_normal((9, 100)).astype(np.float32)
    out = np.zeros(9, np.float32)
    run(plan.func, a, out, 9)
    close(out, a.sum(axis=1), terms=100)


def test_what_costs_much_is_done_once_for_all_readers():
    """Also where what costs much is inlined into a cheap stage that several read."""
    shape = (4, 768)
    x = te.placeholder(shape, name="x")
    e = te.compute(shape, lambda i, j: call("exp", x[i, j]), name="e")
    z = te.compute(shape, lambda i, j: e[i, j] + x[i, j], name="z")
    k, k2 = te.reduce_axis(768, "k"), te.reduce_axis(768, "k2")
    mean = te.compute(shape[:1], lambda i: te.sum(z[i, k], axis=[k]), name="mean")
    wide = te.compute(shape[:1], lambda i: te.sum(z[i, k2] * mean[i], axis=[k2]), name="wide")
    y = te.compute(shape, lambda i, j: z[i, j] - wide[i], name="y")
    plan = schedule([x], [y], get("native"))
    assert plan.sketch == "rows"
    assert sum(isinstance(n, Call) and n.op == "exp" for n in post_order(plan.func.body)) == 1
    a = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    got = np.zeros_like(a)
    run(lower(plan.func, get("native")), a, got)
    v = np.exp(a.astype(np.float64)) + a
    bound = (np.abs(v) * np.abs(v.sum(1, keepdims=True))).sum(1, keepdims=True) * 768 * 2.0**-24
    assert (np.abs(got - (v - (v * v.sum(1, keepdims=True)).sum(1, keepdims=True))) <= bound).all()


_CACHES = {"cores": 2, "l1": 3 << 14, "l2": 1 << 18, "l3": 1 << 23, "line": 64, "vector_bits": 512}


@pytest.mark.parametrize(("rows", "asked"), [(8, False), (512, True)])
def test_the_pass_with_exponentials_asks_for_the_next_row_and_for_the_lines_of_the_result(rows, asked):
    """Four of each in each of sixteen steps of the pass that computes most; what is near is there. While a row is in
    that pass, the second after it is in the pass before, and the result of the one before it is stored.
    """
    plan = schedule(*softmax((rows, 1024)), get("native").replace(**_CACHES))
    text = to_text(plan.lowered)
    steady = text[text.index("for i_3_1 in range(61)") :].split("for ")[2] if asked else text
    assert plan.sketch == "rows" and steady.count("prefetch[int64](x[") == 4 * asked
    assert steady.count('{"rw": 1}') == 4 * asked
    x, y = (
        f"x[min(i_3_0 * 64 + i_3_1 + 4, {rows - 1}), j_1_0 * 64 + 48]",
        "y[i_3_0 * 64 + i_3_1 + 1, j_1_0 * 64 + 48]) {",
    )
    both = [steady.find(s) for s in (x, y)]
    assert all((0 < at < steady.index("scale2(")) == asked for at in both)


@pytest.mark.parametrize(("rows", "asked"), [(16, False), (512, True), (4096, False)])
def test_cheap_rows_are_asked_for_where_the_third_level_cache_holds_them(rows, asked):
    """The last of two passes asks for the next row, the first for the lines of the result."""
    x = te.placeholder((rows, 1024), name="x")
    k = te.reduce_axis(1024, "k")
    mean = te.compute((rows,), lambda i: te.sum(x[i, k] * (1 / 1024), axis=[k]), name="mean")
    y = te.compute((rows, 1024), lambda i, j: x[i, j] - mean[i], name="y")
    plan = schedule([x], [y], get("native").replace(**_CACHES))
    text = to_text(plan.lowered)
    assert plan.sketch == "rows" and ("prefetch[int64](x[" in text) == asked and ('{"rw": 1}' in text) == asked
    assert not asked or text.index("prefetch[int64](y[") < text.index("prefetch[int64](x[")


@pytest.mark.parametrize(("rows", "columns", "nearest"), [(4096, 1024, False), (16384, 256, True)])
def test_exponentials_ask_memory_for_operands_only(rows, columns, nearest):
    """Long rows come to the second cache; no line of results is asked for, whether these pass by the caches or not."""
    target = get("native").replace(**_CACHES)
    plan = schedule(*softmax((rows, columns)), target)
    text = to_text(plan.lowered)
    assert "prefetch[int64](x[" in text and '"rw": 1' not in text and "bypass" in plan.lowered.attrs
    assert ('"locality": 2' in text) != nearest
    text = to_text(schedule(*softmax((rows, columns)), target.replace(vector_bits=256)).lowered)
    assert "prefetch[int64](x[" in text and '"rw": 1' not in text  # half a line at a time: no such stores


@pytest.mark.parametrize("rows", [500, 1000])
def test_a_result_of_one_value_per_row_takes_no_room(rows):
    """Two rows of 20 KiB of a cache of 48, however many results there are."""
    x = te.placeholder((rows, 5120), name="x")
    plan = schedule([x], [topi.variance(x, -1)], get("native").replace(**{**_CACHES, "l3": 1 << 25}))
    assert plan.sketch == "rows" and "prefetch[int64](x[" in to_text(plan.lowered)


@pytest.mark.parametrize(("rows", "columns", "asked"), [(4096, 1024, False), (1024, 4096, True), (100, 6000, False)])
def test_cheap_passes_ask_memory_for_long_rows(rows, columns, asked):
    """Of what the third-level cache holds, long rows are left to the machine."""
    x = te.placeholder((rows, columns), name="x")
    k = te.reduce_axis(columns, "k")
    mean = te.compute((rows,), lambda i: te.sum(x[i, k] * (1 / columns), axis=[k]), name="mean")
    y = te.compute((rows, columns), lambda i, j: x[i, j] - mean[i], name="y")
    plan = schedule([x], [y], get("native").replace(**_CACHES))
    text = to_text(plan.lowered)
    assert ('{"locality": 2}' in text) == asked and ("prefetch" in text) == asked
    a = np.random.default_rng(0).standard_normal((rows, columns)).astype(np.float32)
    got = np.zeros_like(a)
    run(plan.lowered, a, got)
    bound = np.abs(a).mean(1, keepdims=True) * (columns + 2) * 2.0**-24 + np.abs(a) * 2.0**-23
    assert (np.abs(got - (a - a.astype(np.float64).mean(1, keepdims=True))) <= bound).all()
