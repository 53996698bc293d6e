"""Extents that only the run tells: tiles of constant size for every length, and panels walked once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from warpbeam.ir.rewrite import post_order, substitute
from warpbeam.sketch.select import schedule
from warpbeam.target import get
from warpbeam.te import tensor as te
from warpbeam.tir.arith import simplify
from warpbeam.tir.expr import IntImm, SizeVar, as_expr, call, const_int, minimum
from warpbeam.tir.interp import run
from warpbeam.tir.schedule import apply_layout
from warpbeam.tir.stmt import For

TARGET = replace(get("generic-x86-64-v4"), cores=2)


def product(m: Any, n: Any, k: int, batch: tuple[Any, ...] = ()) -> tuple[list[Any], list[Any]]:
    """out = tanh(a @ b) + r, over leading axes."""
    a, b = te.placeholder((*batch, m, k), name="a"), te.placeholder((*batch, k, n), name="b")
    r = te.placeholder((*batch, m, n), name="r")
    j = te.reduce_axis((0, k), "j")
    acc = te.compute((*batch, m, n), lambda *i: te.sum(a[(*i[:-1], j)] * b[(*i[:-2], j, i[-1])], axis=[j]), "acc")
    out = te.compute((*batch, m, n), lambda *i: call("tanh", acc[i]) + r[i], "out")
    return [a, b, r], [out]


def check(plan: Any, sizes: tuple[int, ...], symbolic: tuple[int, ...]) -> None:
    *batch, m, n, k = sizes
    rng = np.random.default_rng(list(sizes))
    a, b, r = (rng.standard_normal((*batch, *s)).astype(np.float32) for s in ((m, k), (k, n), (m, n)))
    layout = plan.func.attrs.get("layouts", {}).get("b")
    out = np.full((*batch, m, n), 7, np.float32)
    run(plan.lowered, a, b if layout is None else apply_layout(b, layout), r, out, *symbolic)
    np.testing.assert_allclose(out, np.tanh(a @ b) + r, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("columns", [40, 64, 100])
def test_rows_of_any_number(columns: int) -> None:
    m = SizeVar("m")
    plan = schedule(*product(m, columns, 6), TARGET, frozenset({"b"}))
    assert plan.sketch == "tile"
    for rows in (0, 1, 2, 7, 8, 9, 15, 21):
        check(plan, (rows, columns, 6), (rows,))


def test_rows_of_the_smaller_of_two_numbers() -> None:
    """As many rows as there are, and at most so many: what a selection of the best leaves."""
    n = SizeVar("n")
    plan = schedule(*product(minimum(n, 20), 40, 6), TARGET, frozenset({"b"}))
    assert plan.sketch == "tile"
    for rows in (0, 1, 7, 19, 20, 21, 50):
        check(plan, (min(rows, 20), 40, 6), (rows,))


@pytest.mark.parametrize("columns", [0, 1, 5, 16, 23, 63, 100])
def test_columns_of_any_number(columns: int) -> None:
    n = SizeVar("n")
    plan = schedule(*product(11, n, 4), TARGET)
    assert plan.sketch == "tile"
    check(plan, (11, columns, 4), (columns,))


@pytest.mark.parametrize("sizes", [(2, 13, 13), (2, 3, 37), (3, 17, 1)])
def test_all_open(sizes: tuple[int, ...]) -> None:
    """As attention has them: batch, rows and columns."""
    b, m, n = SizeVar("b"), SizeVar("m"), SizeVar("n")
    plan = schedule(*product(m, n, 4, (b,)), TARGET)
    assert plan.sketch == "tile"
    check(plan, (*sizes, 4), sizes)


@pytest.mark.parametrize("coarse", [1, 32])
@pytest.mark.parametrize("sizes", [(1, 4, 7, 24), (2, 9, 14, 8), (1, 1, 1, 40), (1, 3, 3, 64)])
def test_convolution_over_open_maps(sizes: tuple[int, ...], coarse: int) -> None:
    """Maps of a coarse resolution are taken to be narrow: their tiles are several rows high."""
    count, high, wide, channels = sizes
    n, h, w = SizeVar("n"), SizeVar("h") // coarse, SizeVar("w") // coarse
    x, f = te.placeholder((n, h + 2, w + 2, 3), name="x"), te.placeholder((3, 3, 3, channels), name="f")
    i, j, c = (te.reduce_axis((0, 3), name) for name in "ijc")

    def taps(b: Any, y: Any, z: Any, o: Any) -> Any:
        return te.sum(x[b, y + i, z + j, c] * f[i, j, c, o], axis=[i, j, c])

    plan = schedule([x, f], [te.compute((n, h, w, channels), taps, "out")], TARGET, frozenset({"f"}))
    assert plan.sketch == "tile"
    assert (plan.decisions["rows"].split("x")[0] == "1") == (coarse == 1)
    rng = np.random.default_rng(sizes)
    data = rng.standard_normal((count, high + 2, wide + 2, 3)).astype(np.float32)
    kernel = rng.standard_normal((3, 3, 3, channels)).astype(np.float32)
    want = sum(
        np.einsum("bhwc,co->bhwo", data[:, a : a + high, b : b + wide], kernel[a, b])
        for a in range(3)
        for b in range(3)
    )
    layout = plan.func.attrs.get("layouts", {}).get("f")
    out = np.zeros(want.shape, np.float32)
    given = {"n": count, "h": high * coarse, "w": wide * coarse + coarse - 1}
    symbols = [given[p.name] for p in plan.lowered.params if getattr(p, "name", "") in given]
    run(plan.lowered, data, kernel if layout is None else apply_layout(kernel, layout), out, *symbols)
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-5)


def test_a_panel_serves_full_tiles_and_the_rest() -> None:
    """Weights are walked once whatever the number of rows: every nest lies inside the one parallel loop over panels."""
    m = SizeVar("m")
    plan = schedule(*product(m, 768, 768), TARGET, frozenset({"b"}))
    assert plan.decisions["order"] == "columns outer"
    parallel = [n for n in post_order(plan.lowered.body) if isinstance(n, For) and n.kind == "parallel"]
    assert len(parallel) == 1
    long = [n for n in post_order(plan.lowered.body) if isinstance(n, For) and (const_int(n.extent) or 0) >= 384]
    inside = [n for n in post_order(parallel[0].body) if isinstance(n, For) and (const_int(n.extent) or 0) >= 384]
    assert len(inside) == len(long) >= 4


@pytest.mark.parametrize("extra", [-3, 0, 1, 13])
def test_sizes_that_may_come_out_negative(extra: int) -> None:
    """Nothing runs where there is less than nothing to do, as after a window that is longer than its data."""
    n = SizeVar("n")
    a, b = te.placeholder((n, 4), name="a"), te.placeholder((4, 40), name="b")
    j = te.reduce_axis((0, 4), "j")
    out = te.compute((n // 2 - 3, 40), lambda i, c: te.sum(a[i, j] * b[j, c], axis=[j]), "out")
    plan = schedule([a, b], [out], TARGET, frozenset())
    assert plan.sketch == "tile"
    rows = 2 * (extra + 3)
    rng = np.random.default_rng(rows)
    left, right = rng.standard_normal((rows, 4)).astype(np.float32), rng.standard_normal((4, 40)).astype(np.float32)
    got = np.full((max(extra, 0), 40), 7, np.float32)
    if extra >= 0:
        run(plan.lowered, left, right, got, rows)
        np.testing.assert_allclose(got, left[:extra] @ right, rtol=1e-5, atol=1e-5)
    loops = [f for f in post_order(plan.lowered.body) if isinstance(f, For) and not isinstance(f.extent, IntImm)]
    given = {plan.lowered.params[-1]: as_expr(rows)}
    trips = [const_int(simplify(substitute(f.extent, given))) for f in loops]
    entered = const_int(simplify(substitute(plan.lowered.body.cond, given)))
    assert (extra > 0) == bool(entered and any(t > 0 for t in trips))
    assert len(loops) > 1, "rows go in tiles of several heights"
