"""Taps outside of the map are left out of the sums of register tiles: same bits, fewer products, few tests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from on_threads import same_bits

from warpbeam import te
from warpbeam.cost import skipping
from warpbeam.cost.tile_prior import Shape, Tile, choose
from warpbeam.ir.rewrite import post_order
from warpbeam.relay.expr import Function, IRModule, const, var
from warpbeam.sketch import border, pooled, tile
from warpbeam.sketch.base import Group
from warpbeam.sketch.structure import contraction
from warpbeam.sketch.tile_shape import describe
from warpbeam.target import get
from warpbeam.tir.stmt import For, IfThenElse
from warpbeam.topi import nn
from warpbeam.transform.graph import call

TARGET = replace(get("generic-x86-64-v4"), cores=2, fork_cycles=1)


def network(data, w, strides, padding, dilation, groups):
    """A convolution, channels last, with a bias and a residual."""
    x, nd = var("x", shape=data), w.ndim - 2
    letters = "DHW"[3 - nd :]
    layouts = {"data_layout": f"N{letters}C", "kernel_layout": f"{letters}IO"}
    attrs = {"strides": strides, "padding": padding, "dilation": dilation, "groups": groups}
    y = call(f"nn.conv{nd}d", x, const(w), **layouts, **attrs)
    return IRModule.from_expr(Function([x], call("add", y, const(np.linspace(-1, 1, w.shape[-1], dtype=np.float32)))))


def results(monkeypatch, mod, x, skips):
    """What a network gives on one to three threads, all the same, and its kernels' decisions."""
    from warpbeam.driver.api import compile_with_report

    chosen = tile.choose

    def decide(shape: Shape, target: object) -> Tile:
        return chosen(shape if skips else replace(shape, inside=(), share=1.0), target)

    with monkeypatch.context() as m:
        m.setattr(tile, "choose", decide)
        if not skips:
            m.setattr(border, "borders", lambda *_: {})
        module, report = compile_with_report(mod, cache=False, target=TARGET, accuracy="exact")
    (row,) = [r for r in report.rows if r["sketch"] != "pointwise"]
    return same_bits(module, {"x": x}, (1, 2, 3)), row


CASES = {  # data, taps and channels in a group and results, strides, padding, dilation, groups
    "dilated": ((1, 7, 7, 32), (3, 3, 32, 64), (1, 1), (1, 1, 1, 1), (2, 2), 1),
    "stride": ((1, 14, 14, 32), (3, 3, 32, 48), (2, 2), (1, 1, 1, 1), (1, 1), 1),
    "before only": ((1, 4, 4, 32), (2, 2, 32, 64), (1, 1), (1, 1, 0, 0), (1, 1), 1),
    "after only": ((2, 5, 3, 17), (2, 2, 17, 33), (1, 1), (0, 0, 1, 1), (1, 1), 1),
    "all outside but one": ((1, 1, 1, 30), (4, 4, 30, 96), (1, 1), (3, 3, 3, 3), (1, 1), 1),
    "no tap inside": ((1, 2, 2, 16), (3, 3, 16, 32), (3, 3), (4, 4, 4, 4), (1, 1), 1),
    "column": ((1, 17, 17, 64), (7, 1, 64, 64), (1, 1), (3, 0, 3, 0), (1, 1), 1),
    "row": ((3, 6, 11, 24), (1, 7, 24, 32), (1, 1), (0, 3, 0, 3), (1, 1), 1),
    "five": ((1, 9, 8, 20), (5, 5, 20, 40), (1, 1), (2, 1, 3, 2), (1, 1), 1),
    "mixed": ((2, 11, 6, 12), (3, 4, 12, 24), (2, 1), (0, 4, 3, 1), (1, 2), 1),
    "groups": ((1, 7, 7, 64), (3, 3, 16, 128), (1, 1), (1, 1, 1, 1), (1, 1), 4),
    "line": ((2, 12, 40), (5, 40, 32), (1,), (2, 2), (1,), 1),
    "line, dilated": ((1, 10, 24), (5, 24, 32), (1,), (6, 3), (3,), 1),
    "line, long": ((1, 20, 48), (33, 24, 64), (1,), (17, 15), (1,), 2),
    "line, long, two": ((2, 30, 16), (24, 16, 32), (2,), (12, 12), (1,), 1),
    "long and wide": ((1, 13, 12, 16), (7, 7, 16, 32), (1, 1), (3, 3, 3, 3), (1, 1), 1),
    "volume": ((1, 4, 6, 5, 12), (3, 3, 3, 12, 32), (1, 1, 1), (1, 1, 1, 1, 1, 1), (1, 1, 1), 1),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_left_out_changes_no_bit(monkeypatch, name):
    data, w, *how = CASES[name]
    rng = np.random.default_rng(len(name))
    x = rng.standard_normal(data).astype(np.float32)
    mod = network(data, rng.standard_normal(w).astype(np.float32), *how)
    got, row = results(monkeypatch, mod, x, True)
    want, plain = results(monkeypatch, mod, x, False)
    assert got.tobytes() == want.tobytes()
    assert row["sketch"] == plain["sketch"] == "tile" and "taps" not in plain["decisions"]
    assert row["decisions"]["taps"] == "inside only", row


@pytest.mark.parametrize("skips", [(2, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("name", ["stride", "after only", "five", "mixed", "volume"])
def test_taps_left_out_by_tiles_change_no_bit(monkeypatch, name, skips):
    """Whatever the prior finds best: tiles of two rows by three, taps tested for all rows of an axis or for each."""
    data, w, *how = CASES[name]
    rng = np.random.default_rng(len(name))
    x = rng.standard_normal(data).astype(np.float32)
    mod = network(data, rng.standard_normal(w).astype(np.float32), *how)
    want, _ = results(monkeypatch, mod, x, False)
    chosen = tile.choose

    def decide(shape: Shape, target: object) -> Tile:
        found = tuple(k if inside else 0 for k, inside in zip(skips, shape.inside, strict=True))
        return replace(chosen(shape, target), rows=(2, 3), skips=found)

    monkeypatch.setattr(tile, "choose", decide)
    got, row = results(monkeypatch, mod, x, True)
    assert row["sketch"] == "tile" and row["decisions"]["rows"] == "2x3"
    assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize("seed", range(12))
def test_random_convolutions_keep_their_bits(monkeypatch, seed):
    rng = np.random.default_rng(seed)
    nd, groups = int(rng.integers(1, 4)), int(rng.choice([1, 1, 3]))
    taps = [int(rng.integers(1, 5)) for _ in range(nd)]
    dilation = tuple(int(rng.integers(1, 3)) for _ in range(nd))
    strides = tuple(int(rng.integers(1, 3)) for _ in range(nd))
    padding = tuple(int(rng.integers(0, 4)) for _ in range(2 * nd))
    sizes = [int(rng.integers(d * (k - 1) + 1, d * (k - 1) + 9)) for k, d in zip(taps, dilation, strict=True)]
    c, o = int(rng.integers(4, 20)), groups * int(rng.choice([16, 17, 24]))
    x = rng.standard_normal((int(rng.integers(1, 3)), *sizes, c * groups)).astype(np.float32)
    w = rng.standard_normal((*taps, c, o)).astype(np.float32)
    mod = network(x.shape, w, strides, padding, dilation, groups)
    got, _ = results(monkeypatch, mod, x, True)
    want, _ = results(monkeypatch, mod, x, False)
    assert got.tobytes() == want.tobytes()


# ----------------------------------------------------------------------------------------------------------- structure


def stages(data, w, strides, padding, dilation=1):
    """(data, weights, result) of a convolution as te stages, channels last."""
    x, k = te.placeholder(data, "float32", "x"), te.placeholder(w, "float32", "w")
    return x, k, nn.conv2d(x, k, strides, padding, dilation, "NHWC", "HWIO")


def group_of(data, w, strides, padding, dilation=1):
    x, k, y = stages(data, w, strides, padding, dilation)
    return Group([x, k], [y], TARGET, frozenset({"w"}))


@pytest.mark.parametrize(
    ("size", "taps", "stride", "padding", "dilation"),
    [(7, 3, 1, (1, 1), 2), (14, 3, 2, (1, 1), 1), (5, 4, 3, (0, 5), 1), (2, 3, 3, (4, 4), 1), (9, 5, 2, (3, 0), 3)],
)
def test_borders_say_which_rows_meet_the_map(size, taps, stride, padding, dilation):
    before, after = padding
    if size + before + after < (taps - 1) * dilation + 1:
        after = (taps - 1) * dilation + 1 - size - before
    group = group_of((1, size, 6, 8), (taps, 1, 8, 16), (stride, 1), (before, 0, after, 0), (dilation, 1))
    parts = tile.anatomy(group)
    op = parts.anchor.op
    axes = [a.var for a in op.axis]
    found = border.borders(op, contraction(op), parts.before, axes)
    (row,) = found
    rows = next(a.extent.value for a in op.axis if a.var is row)
    for k, (low, high) in enumerate(found[row].inside):
        want = [0 <= h * stride + k * dilation - before < size for h in range(rows)]
        assert [low <= h < high for h in range(rows)] == want


def test_a_large_map_has_no_border_that_is_worth_it():
    group = group_of((1, 56, 56, 64), (3, 3, 64, 64), 1, 1)
    parts = tile.anatomy(group)
    op = parts.anchor.op
    assert border.borders(op, contraction(op), parts.before, tile.rows_of(parts, contraction(op))) == {}
    assert not any(choose(describe(group, parts, contraction(op)), TARGET).skips)


def test_values_other_than_zero_are_no_border():
    x, w = te.placeholder((8, 16), "float32", "x"), te.placeholder((3, 16, 32), "float32", "w")
    padded = nn.pad(x, (1, 0), (1, 0), 1.0)
    t, c = te.reduce_axis(3, "t"), te.reduce_axis(16, "c")
    y = te.compute((8, 32), lambda i, o: te.sum(padded[i + t.var, c.var] * w[t.var, c.var, o], axis=[t, c]), name="y")
    group = Group([x, w], [y], TARGET, frozenset({"w"}))
    parts = tile.anatomy(group)
    op = parts.anchor.op
    assert contraction(op) is not None and len(parts.before) == 1
    assert border.borders(op, contraction(op), parts.before, [a.var for a in op.axis]) == {}


@pytest.mark.parametrize("name", ["dilated", "stride", "before only", "column", "row", "five", "volume"])
def test_no_test_stands_in_the_innermost_loop(name):
    """Conditions are decided by the copies of the tiles at the border, or once for each tap."""
    from warpbeam.sketch.select import schedule

    data, w, strides, padding, dilation, _ = CASES[name]
    if len(w) == 5:
        x, k = te.placeholder(data, "float32", "x"), te.placeholder(w, "float32", "w")
        y = nn.conv3d_ndhwc(x, k, strides, padding, dilation)
    else:
        x, k, y = stages(data, w, strides, padding, dilation)
    plan = schedule([x, k], [y], TARGET, frozenset({"w"}))
    assert plan.sketch == "tile" and plan.decisions["taps"] == "inside only"
    loops = [n for n in post_order(plan.lowered.body) if isinstance(n, For) and n.kind == "serial"]
    innermost = [f for f in loops if not any(isinstance(n, For) for n in post_order(f.body))]
    assert innermost and not any(isinstance(n, IfThenElse) for f in innermost for n in post_order(f.body))


@pytest.mark.parametrize("height", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("size", [7, 10])
def test_rows_that_meet_the_map_are_counted(height, size):
    inside = ((2, size), (1, size), (0, size), (0, size - 3))
    found = skipping.active(inside, size, height)
    tiles = [range(a, min(size, a + height)) for a in range(0, size, height)]
    want = [sum(low <= h < high for h in t) for t in tiles for low, high in inside]
    assert sorted(found.elements()) == sorted(n for n in want if n)
    assert sum(n * h for h, n in found.items()) == round(skipping.share(inside, size) * size * len(inside))
    some = skipping.met(inside, size, height)
    assert sum(some.values()) == sum(n > 0 for n in want)
    assert sum(n * h for h, n in some.items()) == sum(
        len(t) for t in tiles for low, high in inside if any(low <= h < high for h in t)
    )
    apart = skipping.static_tiles(inside, size, height)
    assert apart == ([] if height == 1 else [k for k, t in enumerate(tiles) if t[0] < 2 or t[-1] >= size - 3])


def test_of_many_taps_tall_tiles_leave_out_those_that_meet_the_map_with_no_row():
    """With all taps written out such tiles would be too long; one test for a tap stands outside of its loops."""
    from warpbeam.sketch.select import schedule

    x, w = te.placeholder((1, 99, 48), "float32", "x"), te.placeholder((128, 48, 48), "float32", "w")
    y = nn.conv1d(x, w, 1, (64, 64), 1, data_layout="NWC", kernel_layout="WIO")
    group = Group([x, w], [y], TARGET, frozenset({"w"}))
    parts = tile.anatomy(group)
    decided = choose(describe(group, parts, contraction(parts.anchor.op)), TARGET)
    assert decided.rows[-1] > 4 and decided.skips[-1] == skipping.BY_TILE
    plan = schedule([x, w], [y], TARGET, frozenset({"w"}))
    assert plan.decisions["taps"] == "inside only"
    tests = [n for n in post_order(plan.lowered.body) if isinstance(n, IfThenElse)]
    assert tests and all(any(isinstance(n, For) for n in post_order(t.then)) for t in tests)


def test_cores_wait_for_tiles_that_leave_out_nothing():
    """Of four tiles the first has half its taps inside: two cores take 1/2 + 1 and 1 + 1; of five, 2 and 2 1/2."""
    inside = ((0, 8), (2, 8))
    assert skipping.balance(inside, 8, 2, 2) == pytest.approx(3.5 / 4)
    assert skipping.balance(None, 8, 2, 2) == 1.0
    assert skipping.balance(((0, 10), (2, 10)), 10, 2, 2) == pytest.approx(4.5 / 5)
    assert skipping.balance(((0, 0),), 4, 2, 2) == 1.0, "nothing to do"


def test_tiles_leave_out_what_pays_only():
    shape = Shape(rows=(7, 7), columns=512, reduce=9 * 512, outer=1, lanes=16, broadcast=True, packed=True)
    thin = ((1, 7), (0, 7), (0, 6))
    found = choose(replace(shape, inside=(thin, thin)), TARGET)
    assert any(found.skips) and found.cycles < choose(shape, TARGET).cycles
    short = replace(shape, reduce=9, inside=(thin, thin))  # the taps' own steps are as nothing
    assert not any(choose(short, TARGET).skips) and choose(short, TARGET) == choose(replace(short, inside=()), TARGET)


def test_windows_over_a_convolution_read_its_border():
    """Tiles that windows read have all products: their rows are those of the windows."""
    x, k, y = stages((1, 8, 8, 16), (3, 3, 16, 32), 1, 1)
    group = Group([x, k], [nn.pool2d(y, (2, 2), (2, 2), (1, 1), (0, 0, 0, 0), "max", layout="NHWC")], TARGET,
                  frozenset({"w"}))  # fmt: skip
    assert pooled.fits(group) and "taps" not in pooled.build(group).decisions
