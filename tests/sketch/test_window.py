"""Windows read their data without a padded copy and agree with NumPy at every border."""

import numpy as np
import pytest
from tolerance import close

from warpbeam.ir.rewrite import post_order
from warpbeam.sketch import window
from warpbeam.sketch.select import schedule
from warpbeam.target import get
from warpbeam.te import tensor as te
from warpbeam.te.create import create_prim_func
from warpbeam.tir.analysis.predicate import conjuncts
from warpbeam.tir.expr import Call, SizeVar, if_then_else, land
from warpbeam.tir.interp import run
from warpbeam.tir.stmt import For, IfThenElse
from warpbeam.tir.text import to_text
from warpbeam.tir.transform import lower


def depthwise(h, w, c, stride):
    x, k = te.placeholder((h, w, c), name="x"), te.placeholder((3, 3, c), name="k")
    padded = te.compute(
        (h + 2, w + 2, c),
        lambda i, j, f: if_then_else(land(i >= 1, i < h + 1, j >= 1, j < w + 1), x[i - 1, j - 1, f], 0.0),
        name="padded",
    )
    a, b = te.reduce_axis(3, "a"), te.reduce_axis(3, "b")
    shape = ((h - 1) // stride + 1, (w - 1) // stride + 1, c)
    y = te.compute(
        shape, lambda i, j, f: te.sum(padded[i * stride + a, j * stride + b, f] * k[a, b, f], axis=[a, b]), name="y"
    )
    return [x, k], [te.compute(shape, lambda i, j, f: y[i, j, f] + 1.0, name="z")]


def expected(x, k, stride):
    h, w, c = x.shape
    p = np.zeros((h + 2, w + 2, c), x.dtype)
    p[1:-1, 1:-1] = x
    out = np.ones(((h - 1) // stride + 1, (w - 1) // stride + 1, c), x.dtype)
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] += (p[i * stride : i * stride + 3, j * stride : j * stride + 3] * k).sum(axis=(0, 1))
    return out


@pytest.mark.parametrize("shape", [(7, 7, 16, 1), (9, 13, 20, 1), (12, 11, 16, 2), (4, 5, 3, 1)])
def test_depthwise(shape):
    h, w, c, stride = shape
    ins, outs = depthwise(*shape)
    plan = schedule(ins, outs, get("native"))
    assert plan.sketch == "window"
    rng = np.random.default_rng(0)
    x = rng.standard_normal((h, w, c)).astype(np.float32)
    k = rng.standard_normal((3, 3, c)).astype(np.float32)
    want = expected(x, k, stride)
    lowered = lower(plan.func, get("native"))
    assert lowered.attrs["workspace"] == 0
    for func in (plan.func, lowered):
        got = np.zeros(want.shape, np.float32)
        run(func, x, k, got)
        close(got, want, terms=9)


@pytest.mark.parametrize("taps,stride,alone", [(2, 2, True), (3, 3, True), (3, 2, False), (2, 3, True), (5, 5, False)])
def test_windows_side_by_side_take_one_result_at_a_time(taps, stride, alone):
    """Where nothing is read twice, a tile would only read at more places at once; unless one step waits for another."""
    n, c = 5, 20
    x, y = pooled(n, c, taps, stride)
    plan = schedule([x], [y], get("native"))
    assert plan.sketch == "window"
    assert (plan.decisions["rows"] == "1x1") is alone
    data = np.random.default_rng(0).standard_normal([int(d) for d in x.shape]).astype(np.float32)
    got, at = np.zeros((n, n, c), np.float32), np.arange(n) * stride
    want = np.max([data[at + i][:, at + j] for i in range(taps) for j in range(taps)], axis=0)
    run(lower(plan.func, get("native")), data, got)
    np.testing.assert_array_equal(got, want)


def pooled(n, c, taps, stride):
    x = te.placeholder(((n - 1) * stride + taps, (n - 1) * stride + taps, c), name="x")
    a, b = te.reduce_axis(taps, "a"), te.reduce_axis(taps, "b")
    return x, te.compute((n, n, c), lambda i, j, f: te.max(x[i * stride + a, j * stride + b, f], axis=[a, b]), name="y")


@pytest.mark.parametrize("c,ahead", [(16, None), (128, 4), (256, 2), (2048, 1)])
def test_windows_from_memory_ask_for_what_comes_a_page_later(c, ahead):
    """As far ahead as a page of a row, but no further than a fourth of the windows; not what caches hold, nor twice."""
    target = get("native").replace(l3=1 << 16)
    for taps, stride, found in [(2, 2, ahead), (3, 2, None)]:
        x, y = pooled(20, c, taps, stride)
        plan = schedule([x], [y], target)
        assert plan.sketch == "window"
        notes = {
            k[1] for n in post_order(plan.func.body) if isinstance(n, For) for k in n.annotations.get("prefetch", ())
        }
        assert notes == ({found} if found else set())
        if found:  # past a row's last windows come the first ones of the next row
            assert f"(i1_0 + {found}) // 20 * 2" in to_text(lower(plan.func, target))
    x, y = pooled(20, c, 2, 2)
    held = schedule([x], [y], target.replace(l3=1 << 26))
    assert not any("prefetch" in n.annotations for n in post_order(held.func.body) if isinstance(n, For))


@pytest.mark.parametrize("stride", [1, 2])
def test_open_maps(stride):
    """One kernel for all sizes, also those smaller than a tile."""
    ins, outs = depthwise(SizeVar("h"), SizeVar("w"), 20, stride)
    plan = schedule(ins, outs, get("native"))
    assert plan.sketch == "window"
    assert plan.lowered.attrs["workspace"] == 0
    k = np.random.default_rng(0).standard_normal((3, 3, 20)).astype(np.float32)
    for h, w in ((1, 1), (2, 9), (7, 7), (3, 23)):
        x = np.random.default_rng([h, w]).standard_normal((h, w, 20)).astype(np.float32)
        want = expected(x, k, stride)
        got = np.zeros(want.shape, np.float32)
        run(plan.lowered, x, k, got, h, w)
        close(got, want, terms=9)


@pytest.mark.parametrize("tile", [(1, 8), (2, 2), (3, 4), (4, 3)])
def test_open_maps_give_the_bits_of_known_ones(tile, monkeypatch):
    """Tiles of any shape, with a batch, over maps smaller than a tile, of whole tiles, and with remainders."""
    monkeypatch.setattr(window, "_open_tile", lambda group, op, rows: tile)
    n, h, w = SizeVar("n"), SizeVar("h"), SizeVar("w")
    plan = schedule(*with_batch(n, h, w), get("native"))
    assert plan.sketch == "window"
    assert plan.decisions["rows"] == "x".join(map(str, tile))
    loops = [f for f in post_order(plan.lowered.body) if isinstance(f, For) and f.kind == "parallel"]
    assert len(loops) == 1  # over batch and rows, tiles of all heights
    k = np.random.default_rng(0).standard_normal((3, 3, 20)).astype(np.float32)
    for size in ((1, 1, 1), (2, 2, 3), (1, 4, 8), (3, 5, 7), (2, 9, 13)):
        x = np.random.default_rng(size).standard_normal((*size, 20)).astype(np.float32)
        known, got = (np.zeros(x.shape, np.float32) for _ in range(2))
        run(lower(create_prim_func(*with_batch(*size)), get("native")), x, k, known)
        given = dict(zip("nhw", size, strict=True))
        run(plan.lowered, x, k, got, *(given[p.name] for p in plan.lowered.params if p.name in given))
        assert np.array_equal(got, known), size


def with_batch(n, h, w):
    x, k = te.placeholder((n, h, w, 20), name="x"), te.placeholder((3, 3, 20), name="k")
    padded = te.compute(
        (n, h + 2, w + 2, 20),
        lambda b, i, j, f: if_then_else(land(i >= 1, i < h + 1, j >= 1, j < w + 1), x[b, i - 1, j - 1, f], 0.0),
    )
    u, v = te.reduce_axis(3, "u"), te.reduce_axis(3, "v")
    body = lambda b, i, j, f: te.sum(padded[b, i + u, j + v, f] * k[u, v, f], axis=[u, v])  # noqa: E731
    return [x, k], [te.compute((n, h, w, 20), body, name="y")]


def test_open_maps_have_a_version_for_tiles_inside():
    ins, outs = depthwise(SizeVar("h"), SizeVar("w"), 32, 1)
    plan = schedule(ins, outs, get("native"))
    versions = [n for n in post_order(plan.lowered.body) if isinstance(n, IfThenElse) and n.orelse is not None]
    plain = [n for n in versions if not any(isinstance(c, Call) and c.op == "if_then_else" for c in post_order(n.then))]
    assert plain
    assert all(any(isinstance(c, Call) and c.op == "if_then_else" for c in post_order(n.orelse)) for n in plain)


def test_open_maps_test_only_what_sizes_leave_open():
    """Inside a tile only its first and last column, and the first and last row of taps, may lie outside the data."""
    ins, outs = depthwise(SizeVar("h"), SizeVar("w"), 32, 1)
    plan = schedule(ins, outs, get("generic-x86-64-v4"))
    choices = [n for n in post_order(plan.lowered.body) if isinstance(n, Call) and n.op == "if_then_else"]
    assert all(n.args[0].dtype == "boolx16" for n in choices)  # masks, not branches
    widest = next(n for n in post_order(plan.lowered.body) if isinstance(n, For) and n.var.name.startswith("j"))
    parts = {c for n in post_order(widest.body) if isinstance(n, Call) and n.op == "if_then_else" for c in
             conjuncts(n.args[0].value)}  # fmt: skip
    assert len(parts) == 4  # first row, last row, first column, last column
