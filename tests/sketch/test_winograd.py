"""Products between transforms of tiles: right at every border and remainder, within the stated error bound."""

import re
from dataclasses import replace

import numpy as np
import pytest
from ml_dtypes import bfloat16
from winograd_bound import direct, direct_3d, error_bound, error_bound_3d

from warpbeam.cost import winograd_prior
from warpbeam.cost.winograd_prior import Layer
from warpbeam.cost.winograd_prior import plan as plan_blocks
from warpbeam.ir.rewrite import substitute
from warpbeam.op.table import get
from warpbeam.sketch.base import Group
from warpbeam.sketch.select import schedule
from warpbeam.sketch.winograd import fits
from warpbeam.target import get as target
from warpbeam.te import tensor as te
from warpbeam.tir.arith import simplify
from warpbeam.tir.expr import SizeVar, as_expr, const_int
from warpbeam.tir.interp import run
from warpbeam.tir.schedule.layout import apply_layout
from warpbeam.tir.text import to_text
from warpbeam.topi.nn.winograd import matrices, winograd

NHWC = {c: i for i, c in enumerate("NHWC")}
NDHWC = {c: i for i, c in enumerate("NDHWC")}


def stages(n, h, w, c, o, borders, stride=1, epilogue=True, short=False):
    top, left, bottom, right = borders
    shape = (n, (h + top + bottom - 3) // stride + 1, (w + left + right - 3) // stride + 1, o)
    size = len(matrices(2, stride)[0])
    dtype, types = ("bfloat16", ("bfloat16", "float32")) if short else ("float32", ())
    x, u = te.placeholder((n, h, w, c), dtype, "x"), te.placeholder((size, size, c, o), dtype, "u")
    y = winograd(x, u, 2, (NHWC, NHWC), (top, left), shape, stride, *types)
    if not epilogue:
        return [x, u], [y]
    b, r = te.placeholder((o,), name="b"), te.placeholder(shape, name="r")
    y = te.compute(shape, lambda i, j, k, f: y[i, j, k, f] + b[f], name="biased")
    return [x, u, b, r], [te.compute(shape, lambda i, j, k, f: y[i, j, k, f] + r[i, j, k, f], name="sum")]


def arrays(n, h, w, c, o, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, h, w, c)).astype(np.float32)
    return x, (rng.standard_normal((3, 3, c, o)) / np.sqrt(9 * c)).astype(np.float32)


def transformed(w, stride=1):
    transform = get("nn.contrib_conv2d_winograd_weight_transform")
    return transform.numpy(transform.attrs({"tile_size": 2, "stride": stride, "kernel_layout": "HWIO"}), w)


SHAPES = [
    (1, 8, 8, 16, 32, (1, 1, 1, 1)),  # whole tiles and vectors
    (1, 7, 9, 16, 16, (1, 1, 1, 1)),  # odd sizes
    (2, 9, 6, 12, 20, (0, 0, 0, 0)),  # channels that are no multiple of the vector; two images
    (3, 6, 7, 3, 40, (1, 0, 2, 1)),  # uneven borders
    (1, 5, 11, 17, 33, (2, 2, 2, 2)),
    (1, 14, 14, 32, 96, (1, 1, 1, 1)),
    (1, 8, 8, 16, 32, (1, 1, 1, 1), 2),  # stride 2: the border behind is not read
    (2, 9, 7, 12, 20, (0, 0, 0, 0), 2),  # nor the last rows and columns of the data
    (3, 11, 6, 3, 40, (1, 0, 2, 1), 2),
    (1, 15, 13, 17, 33, (1, 1, 1, 1), 2),
    (1, 14, 14, 64, 56, (1, 1, 1, 1)),  # a chunk, and less than a vector
    (1, 8, 8, 64, 80, (1, 1, 1, 1)),
]


def fitted(array, buffer):
    """An array in a parameter's shape."""
    return array.reshape([const_int(d) for d in buffer.shape])


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s[:5])))
def test_values(shape):
    x, k = arrays(*shape[:5])
    ins, outs = stages(*shape)
    plan = schedule(ins, outs, target("native"), frozenset({"u"}), "k")
    assert plan.sketch == "winograd", plan.notes
    rng = np.random.default_rng(1)
    plain = direct(x, k, *shape[5:])
    b, r = (rng.standard_normal(s).astype(np.float32) for s in (shape[4], plain.shape))
    want = plain + b + r
    bound = error_bound(x, k, shape[5], 2, *shape[6:]) + 2.0**-23 * (np.abs(plain) + np.abs(b) + np.abs(r))
    layout = plan.func.attrs["layouts"]["u"]
    packed = np.ascontiguousarray(apply_layout(transformed(k, *shape[6:]).reshape(layout["shape"]), layout))
    for func in (plan.func, plan.lowered):
        given = [fitted(a, f) for a, f in zip((x, packed, b, r), func.buffers[:4], strict=True)]
        results = [np.full([const_int(d) for d in f.shape], np.nan, np.float32) for f in func.buffers[4:]]
        run(func, *given, *results)
        error = np.abs(results[0].reshape(want.shape) - want)
        assert (error <= bound).all(), (error / bound).max()


PAIRED = [s for s in SHAPES if s[3] % 2 == 0]


@pytest.mark.parametrize("shape", PAIRED, ids=lambda s: "x".join(map(str, s[:5])))
@pytest.mark.parametrize("most", [4, 200])
def test_pairs_of_short_numbers(shape, most):
    """Of whole numbers all sums are exact: planes of small ones are, too, and those of large ones are rounded."""
    rng = np.random.default_rng(most)
    x = rng.integers(-most, most + 1, shape[:4]).astype(np.float32)
    k = 4 * rng.integers(-2, 3, (3, 3, shape[3], shape[4])).astype(np.float32)
    weight = transformed(k, *shape[6:])
    assert (weight == weight.astype(bfloat16)).all() and (x == x.astype(bfloat16)).all()
    op = get("nn.contrib_conv2d_winograd_without_weight_transform")
    attrs = {"tile_size": 2, "padding": shape[5], "data_layout": "NHWC", "out_dtype": "float32"}
    attrs["stride"] = shape[6] if len(shape) > 6 else 1
    given = x.astype(bfloat16), weight.astype(bfloat16)
    want = op.numpy(op.attrs({**attrs, "plane_dtype": "bfloat16"}), *given)
    plain = direct(x, k, *shape[5:])
    np.testing.assert_array_equal(op.numpy(op.attrs(attrs), *given), plain)
    assert (want == plain).all() == (most == 4)
    ins, outs = stages(*shape, epilogue=False, short=True)
    in_pairs(ins, outs, given, want)


def in_pairs(ins, outs, given, want):
    """Schedules the stages for a machine with the instruction, and compares exactly."""
    plan = schedule(ins, outs, target("sapphirerapids"), frozenset({"u"}), "k")
    assert plan.sketch == "winograd" and "dot2" in to_text(plan.lowered), plan.notes
    layout = plan.func.attrs["layouts"]["u"]
    packed = np.ascontiguousarray(apply_layout(given[1].reshape(layout["shape"]), layout))
    for func in (plan.func, plan.lowered):
        ready = [fitted(a, f) for a, f in zip((given[0], packed), func.buffers[:2], strict=True)]
        sizes = [[const_int(d) for d in f.shape] for f in func.buffers[2:]]
        results = [np.full(s, np.nan, str(f.dtype)) for s, f in zip(sizes, func.buffers[2:], strict=True)]
        run(func, *ready, *results)
        np.testing.assert_array_equal(results[0].reshape(want.shape), want)


def test_pairs_in_three_dimensions():
    rng = np.random.default_rng(0)
    x = rng.integers(-200, 201, (1, 3, 6, 6, 32)).astype(bfloat16).astype(np.float32)
    k = 4 * rng.integers(-2, 3, (3, 3, 3, 32, 48)).astype(np.float32)
    t, op = (get(f"nn.contrib_conv3d_winograd_{n}") for n in ("weight_transform", "without_weight_transform"))
    weight = t.numpy(t.attrs({"tile_size": 2, "kernel_layout": "DHWIO"}), k)
    types = {"stride": 1, "plane_dtype": "bfloat16", "out_dtype": "float32"}
    given = x.astype(bfloat16), weight.astype(bfloat16)
    attrs = {"tile_size": 2, "padding": 1, "data_layout": "NDHWC", **types}
    want = op.numpy(op.attrs(attrs), *given)
    assert (want != direct_3d(x, k, (1,) * 6)).any()
    data, u = te.placeholder(x.shape, "bfloat16", "x"), te.placeholder(weight.shape, "bfloat16", "u")
    y = winograd(data, u, 2, (NDHWC, NDHWC), (1, 1, 1), want.shape, *types.values())
    in_pairs([data, u], [y], given, want)


DEEP = [  # x, taps, results, borders, order
    ((1, 3, 6, 6, 16), 3, 32, (1, 1, 1, 1, 1, 1), None),
    ((2, 4, 5, 7, 12), 2, 20, (1, 0, 1, 0, 2, 0), None),  # two images, uneven borders, odd channels
    ((1, 2, 9, 6, 16), 1, 16, (0, 1, 1, 0, 1, 1), None),  # no neighbours: as many maps as there are
    ((2, 4, 7, 5, 17), 3, 33, (0, 0, 0, 0, 0, 0), None),
    ((1, 5, 8, 8, 32), 5, 16, (2, 1, 1, 2, 1, 1), "tiles outer"),
    ((1, 2, 6, 6, 64), 3, 64, (1, 1, 1, 1, 1, 1), "columns outer"),
]


@pytest.mark.parametrize("shape, taps, o, borders, order", DEEP, ids=lambda s: "x".join(map(str, np.ravel(s))))
def test_three_dimensions(shape, taps, o, borders, order, monkeypatch):
    """A transformed map serves all its neighbours, with tiles outside and with columns outside."""
    if order is not None:
        ours = winograd_prior._score
        wanted = order == "columns outer"
        monkeypatch.setattr(winograd_prior, "_score", lambda *a: ours(*a) if a[4] == wanted else None)
        plan_blocks.cache_clear()
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(np.float32)
    k = (rng.standard_normal((taps, 3, 3, shape[-1], o)) / np.sqrt(9 * taps * shape[-1])).astype(np.float32)
    want = direct_3d(x, k, borders)
    data, u = te.placeholder(shape, name="x"), te.placeholder((4, 4, *k.shape[0:1], shape[-1], o), name="u")
    y = winograd(data, u, 2, (NDHWC, NDHWC), borders[:3], want.shape)
    plan = schedule([data, u], [y], target("native"), frozenset({"u"}), "k")
    plan_blocks.cache_clear()
    assert plan.sketch == "winograd" and plan.decisions["order"] == (order or plan.decisions["order"]), plan.notes
    transform = get("nn.contrib_conv3d_winograd_weight_transform")
    weights = transform.numpy(transform.attrs({"tile_size": 2, "kernel_layout": "DHWIO"}), k)
    layout = plan.func.attrs["layouts"]["u"]
    packed = np.ascontiguousarray(apply_layout(weights.reshape(layout["shape"]), layout))
    for func in (plan.func, plan.lowered):
        given = [fitted(a, f) for a, f in zip((x, packed), func.buffers[:2], strict=True)]
        results = [np.full([const_int(d) for d in f.shape], np.nan, np.float32) for f in func.buffers[2:]]
        run(func, *given, *results)
        error = np.abs(results[0].reshape(want.shape) - want)
        assert (error <= error_bound_3d(x, k, borders)).all()


@pytest.mark.parametrize("order", ["tiles outer", "columns outer"])
@pytest.mark.parametrize(("outputs", "chunk"), [(56, 48), (80, 32), (80, 48)])
def test_chunks_that_leave_something_over(outputs, chunk, order, monkeypatch):
    """A shorter vector, whole vectors: in both orders, and with whatever chunk."""
    asked = chunk, order == "columns outer"
    decisions = right((1, 7, 8, 32, outputs, (1, 1, 1, 1)), monkeypatch, lambda layer, rows, columns, *at: at == asked)
    assert (decisions["chunk"], decisions["order"]) == (chunk, order)


@pytest.mark.parametrize("order", ["tiles outer", "columns outer"])
@pytest.mark.parametrize(("outputs", "tiles"), [(64, 17), (80, 19)], ids=["whole chunks", "and a rest of chunks"])
def test_blocks_that_leave_something_over(outputs, tiles, order, monkeypatch):
    """A row of 17 or 19 tiles has no parts of 7 to 16 that are equal."""
    wanted = order == "columns outer"

    def asked(layer, rows, columns, chunk, outer):
        return outer == wanted and layer.columns % columns != 0 and chunk == 32

    decisions = right((1, 4, 2 * tiles - 1, 16, outputs, (1, 1, 1, 1)), monkeypatch, asked)
    assert decisions["order"] == order and tiles % int(decisions["block"].split("x")[1])


def right(shape, monkeypatch, asked):
    """The decisions of a layer, only those `asked` for are considered, whose results are right; one fork for a loop
    over what there is, that over transforms apart, also where it is in parts.
    """
    ours = winograd_prior._score
    monkeypatch.setattr(winograd_prior, "_score", lambda *a: ours(*a) if asked(*a[:5]) else None)
    plan_blocks.cache_clear()
    ins, outs = stages(*shape, epilogue=False)
    plan = schedule(ins, outs, replace(target("native"), cores=2, fork_cycles=1), frozenset({"u"}), "k")
    plan_blocks.cache_clear()
    assert plan.sketch == "winograd", plan.notes
    forks = sum(" in parallel" in line for line in to_text(plan.lowered).splitlines())
    assert forks == (2 if plan.decisions["order"] == "columns outer" else 1), "what is over is shared out with the rest"
    x, k = arrays(*shape[:5])
    layout = plan.func.attrs["layouts"]["u"]
    packed = np.ascontiguousarray(apply_layout(transformed(k).reshape(layout["shape"]), layout))
    got = np.full((*x.shape[:3], shape[4]), np.nan, np.float32)
    given = [fitted(a, f) for a, f in zip((x, packed, got), plan.lowered.buffers[:3], strict=True)]
    rest = [np.full([const_int(d) for d in f.shape], np.nan, np.float32) for f in plan.lowered.buffers[3:]]
    run(plan.lowered, *given, *rest)
    assert (np.abs(got - direct(x, k, shape[5])) <= error_bound(x, k, shape[5])).all()
    return plan.decisions


def test_the_bound_is_of_the_right_size():
    """What was computed with one wrong tap in a thousand would not pass."""
    x, k = arrays(1, 8, 8, 16, 32)
    bound = error_bound(x, k, (1, 1, 1, 1))
    wrong = k.copy()
    wrong[1, 1, 3] *= 1.001
    off = np.abs(direct(x, wrong, (1, 1, 1, 1)) - direct(x, k, (1, 1, 1, 1)))
    assert (off > bound).any() and bound.max() < 1e-4


def test_it_is_found_by_structure_only():
    """A product whose lhs is not computed, or whose weights are not constant, is something else."""
    ins, outs = stages(1, 8, 8, 16, 32, (1, 1, 1, 1))
    assert fits(Group(ins, outs, target("native"), frozenset({"u"})))
    assert not fits(Group(ins, outs, target("native"), frozenset()))
    a, b = te.placeholder((4, 4, 5, 6, 8), name="a"), te.placeholder((4, 4, 8, 16), name="u")
    k = te.reduce_axis(8, "k")
    y = te.compute((4, 4, 5, 6, 16), lambda i, j, p, q, o: te.sum(a[i, j, p, q, k] * b[i, j, k, o], axis=k))
    assert not fits(Group([a, b], [y], target("native"), frozenset({"u"})))


def test_symbolic_batch():
    n = SizeVar("n")
    ins, outs = stages(n, 7, 8, 16, 32, (1, 1, 1, 1), epilogue=False)
    plan = schedule(ins, outs, target("native"), frozenset({"u"}), "k")
    assert plan.sketch == "winograd" and plan.decisions["order"] == "tiles outer"
    x, k = arrays(3, 7, 8, 16, 32)
    layout = plan.func.attrs["layouts"]["u"]
    packed = np.ascontiguousarray(apply_layout(transformed(k).reshape(layout["shape"]), layout))
    got = np.zeros((3, 7, 8, 32), np.float32)
    assert plan.lowered.attrs["workspace"] == 0
    run(plan.lowered, x, packed, got, 3)
    assert (np.abs(got - direct(x, k, (1, 1, 1, 1))) <= error_bound(x, k, (1, 1, 1, 1))).all()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("channels", [(16, 32), (12, 20), (64, 128)])
def test_open_maps(channels, stride):
    """One kernel for all sizes: maps smaller than a tile, odd ones, more images than one, blocks that are not full."""
    n, h, w = SizeVar("n"), SizeVar("h"), SizeVar("w")
    plan = schedule(*stages(n, h, w, *channels, (1, 1, 1, 1), stride), target("native"), frozenset({"u"}), "k")
    assert plan.sketch == "winograd", plan.notes
    for size in ((1, 1, 1), (1, 2, 3), (2, 5, 4), (3, 7, 9)):
        x, k = arrays(*size, *channels)
        rng = np.random.default_rng(1)
        plain = direct(x, k, (1, 1, 1, 1), stride)
        b, r = (rng.standard_normal(s).astype(np.float32) for s in (channels[1], plain.shape))
        bound = error_bound(x, k, (1, 1, 1, 1), 2, stride) + 2.0**-23 * (np.abs(plain) + np.abs(b) + np.abs(r))
        layout = plan.func.attrs["layouts"]["u"]
        packed = np.ascontiguousarray(apply_layout(transformed(k, stride).reshape(layout["shape"]), layout))
        got = np.full(plain.shape, np.nan, np.float32)
        given = dict(zip("nhw", size, strict=True))
        rest = workspaces(plan.lowered, given)
        run(plan.lowered, x, packed, b, r, got, *rest, *given.values())
        assert (np.abs(got - (plain + b + r)) <= bound).all(), size


def workspaces(func, sizes):
    """Memory for the buffers after the five operands, full of what must not be read."""
    values = {p: sizes[p.name] for p in func.params if getattr(p, "name", "") in sizes}
    shapes = [[const_int(simplify(substitute(as_expr(d), values))) for d in f.shape] for f in func.buffers[5:]]
    return [np.full(s, np.nan, np.float32) for s in shapes]


def test_open_maps_in_both_orders():
    """Few channels and many tiles go by tiles, many channels and few tiles by channels."""
    n, h, w = SizeVar("n"), SizeVar("h"), SizeVar("w")
    machine = replace(target("generic-x86-64-v4"), cores=2)
    orders = {}
    for high, wide, c in ((h, w, 64), ((h + 31) // 32, (w + 31) // 32, 512)):
        ins, outs = stages(n, high, wide, c, c, (1, 1, 1, 1), epilogue=False)
        plan = schedule(ins, outs, machine, frozenset({"u"}), "k")
        assert plan.sketch == "winograd", plan.notes
        orders[c] = plan.decisions["order"]
    assert orders == {64: "tiles outer", 512: "columns outer"}


def test_open_maps_are_found_by_structure_only():
    """Tiles that are counted in another way than row by row of one image after the other are something else."""
    n, h, w = SizeVar("n"), SizeVar("h"), SizeVar("w")
    ins, outs = stages(n, h, w, 16, 32, (1, 1, 1, 1), epilogue=False)
    assert fits(Group(ins, outs, target("native"), frozenset({"u"})))
    group = Group(ins, outs, target("native"), frozenset({"u"}))
    back = next(s.op for s in group.stages if s.op.name == "result_rows")
    high, wide = (h + 1) // 2, (w + 1) // 2

    def result(b, i, j, o):
        at = (b * wide + j // 2) * high + i // 2
        return back.output(0)[i % 2, j % 2, at, o]

    turned = te.compute((n, h, w, 32), result, name="turned")
    assert not fits(Group(ins, [turned], target("native"), frozenset({"u"})))


@pytest.mark.parametrize(
    ("shape", "ahead"),
    [((1, 14, 14, 256, 256), r"\(i0_i1 \+ 1\) % 4"), ((1, 18, 18, 512, 512), r"u\[(min\()?i3_5_0 \+ 1[],]")],
    ids=["one", "several"],
)
def test_the_weights_that_come_next_are_asked_for(shape, ahead):
    """Those of the next plane, and after the last one of the next chunk; where several blocks use a chunk's, those of
    the next chunk, so that there is as much time for them.
    """
    plan = schedule(*stages(*shape, (1, 1, 1, 1), epilogue=False), target("generic-x86-64-v4"), frozenset({"u"}), "k")
    assert plan.decisions["order"] == "columns outer", plan.decisions
    asks = [line for line in to_text(plan.lowered).splitlines() if "prefetch" in line]
    assert asks and all(re.search(ahead, line) for line in asks), asks


def test_blocks_are_as_large_as_weights_from_far_away_ask_for():
    """A chunk's weights, a megabyte, leave the second-level cache before another block reads them again."""
    layer = Layer(1, 4, 4, 512, 512, 16, 16)
    blocks = plan_blocks(layer, target("generic-x86-64-v4").replace(l2=1 << 20, cores=2))
    assert blocks.columns_outer and (blocks.rows, blocks.columns) == (4, 4), blocks


def test_chunks_are_equal_where_that_costs_little():
    """Five and three vectors of eight take longer than four times two, though there are as many products."""
    for group in (1, 2):
        layer = Layer(1, 14, 14, 128, 128, 16, 16, group=group, latency=2 * group + 2)
        blocks = plan_blocks(layer, target("generic-x86-64-v4").replace(cores=2))
        assert 128 % blocks.chunk == 0, blocks
