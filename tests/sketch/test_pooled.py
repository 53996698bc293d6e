"""Windows over a convolution in one kernel: the values of both apart, bit for bit, at every border; or not joined."""

import numpy as np
import pytest
from test_winograd import NHWC, arrays, fitted

from warpbeam.cost.winograd_prior import Layer, plan
from warpbeam.op.table import get
from warpbeam.sketch import pooled
from warpbeam.sketch.base import Group
from warpbeam.sketch.collapse import collapse
from warpbeam.sketch.select import schedule
from warpbeam.target import get as target
from warpbeam.te import tensor as te
from warpbeam.tir.expr import as_expr, const_int, maximum
from warpbeam.tir.interp import run
from warpbeam.tir.schedule.layout import apply_layout
from warpbeam.topi.nn.pooling import pool2d
from warpbeam.topi.nn.winograd import winograd

ONE = (1, 1, 1, 1)
NONE = (0, 0, 0, 0)


def stages(n, h, w, c, o, borders, tile=2):
    """A convolution by tiles of so many results, with bias and residual."""
    top, left, bottom, right = borders
    shape = (n, h + top + bottom - 2, w + left + right - 2, o)
    x, u = te.placeholder((n, h, w, c), name="x"), te.placeholder((tile + 2, tile + 2, c, o), name="u")
    b, r = te.placeholder((o,), name="b"), te.placeholder(shape, name="r")
    y = winograd(x, u, tile, (NHWC, NHWC), (top, left), shape)
    y = te.compute(shape, lambda i, j, k, f: y[i, j, k, f] + b[f], name="biased")
    return [x, u, b, r], [te.compute(shape, lambda i, j, k, f: y[i, j, k, f] + r[i, j, k, f], name="sum")]


def transformed(w, tile):
    transform = get("nn.contrib_conv2d_winograd_weight_transform")
    return transform.numpy(transform.attrs({"tile_size": tile, "kernel_layout": "HWIO"}), w)


def computed(func, plan, given, weights):
    """The result of a kernel; `weights`: the input that may be asked for in another order."""
    layout = plan.func.attrs.get("layouts", {}).get(weights)
    args = []
    for b, a in zip(func.buffers, given, strict=False):
        if layout is not None and b.name == weights:
            a = np.ascontiguousarray(apply_layout(a.reshape(layout["shape"]), layout))
        args.append(fitted(a, b))
    out = np.full([const_int(d) for d in func.buffers[len(given)].shape], np.nan, np.float32)
    run(func, *args, out)
    return out


def windows(made, kernel, stride, border):
    """The largest element of each window, by NumPy."""
    top, left, bottom, right = border
    x = np.pad(made, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=-np.inf)
    taps = np.lib.stride_tricks.sliding_window_view(x, kernel, (1, 2))
    return taps[:, :: stride[0], :: stride[1]].max(axis=(-1, -2))


def check(ins, made, given, kernel, stride, border, weights, constants):
    pool = pool2d(made, kernel, stride, (1, 1), border, "max", layout="NHWC")
    apart = schedule(ins, [made], target("native"), constants, "k")
    joined = schedule(ins, [pool], target("native"), constants, "k")
    assert joined.sketch == "pooled", joined.notes
    for one, both in ((apart.func, joined.func), (apart.lowered, joined.lowered)):  # lowering rounds products once
        want = windows(computed(one, apart, given, weights).reshape(made.shape), kernel, stride, border)
        np.testing.assert_array_equal(computed(both, joined, given, weights).reshape(want.shape), want)


@pytest.mark.parametrize(
    ("shape", "tile", "kernel", "stride", "border"),
    [
        ((1, 8, 12, 16, 32, ONE), 2, (2, 2), (2, 2), NONE),
        ((2, 8, 12, 16, 48, ONE), 2, (2, 2), (2, 2), NONE),
        ((1, 8, 12, 16, 32, ONE), 4, (2, 2), (2, 2), NONE),
        ((1, 8, 8, 32, 208, ONE), 2, (2, 2), (2, 2), NONE),  # chunks of channels leave some over
        ((1, 8, 10, 32, 64, ONE), 2, (2, 2), (2, 1), (0, 1, 0, 1)),  # a row of tiles is a block
        ((1, 8, 9, 32, 64, ONE), 2, (2, 3), (2, 2), (0, 1, 0, 1)),
        ((1, 7, 9, 16, 32, ONE), 2, (3, 3), (2, 2), ONE),  # all of a map is a block
        ((1, 7, 7, 16, 32, ONE), 4, (3, 3), (1, 1), ONE),
    ],
    ids=str,
)
def test_after_products_of_transforms(shape, tile, kernel, stride, border):
    x, k = arrays(*shape[:5])
    ins, (made,) = stages(*shape, tile)
    rng = np.random.default_rng(1)
    given = [x, transformed(k, tile), *(rng.standard_normal(t.shape).astype(np.float32) for t in ins[2:])]
    check(ins, made, given, kernel, stride, border, "u", frozenset({"u"}))


def direct(n, h, w, c, o):
    """A plain convolution with 3x3 taps, bias and activation."""
    x, k, b = (
        te.placeholder((n, h, w, c), name="x"),
        te.placeholder((3, 3, c, o), name="u"),
        te.placeholder((o,), name="b"),
    )
    i, j, f = te.reduce_axis(3, "i"), te.reduce_axis(3, "j"), te.reduce_axis(c, "f")
    shape = (n, h - 2, w - 2, o)
    y = te.compute(
        shape, lambda m, p, q, d: te.sum(x[m, p + i, q + j, f] * k[i, j, f, d], axis=[i, j, f]), name="products"
    )
    return [x, k, b], te.compute(
        shape, lambda m, p, q, d: maximum(y[m, p, q, d] + b[d], as_expr(0.0, "float32")), name="biased"
    )


@pytest.mark.parametrize(
    ("shape", "kernel"),
    [
        ((1, 10, 18, 3, 32), (2, 2)),
        ((2, 10, 18, 3, 32), (2, 2)),
        ((1, 11, 19, 4, 48), (2, 2)),  # a row and a column that no window reads
        ((1, 11, 20, 4, 24), (3, 3)),
        ((1, 28, 19, 8, 96), (1, 3)),
        ((1, 41, 33, 8, 24), (2, 2)),
        ((1, 12, 15, 5, 40), (1, 2)),
    ],
    ids=str,
)
def test_after_a_plain_sum(shape, kernel):
    ins, made = direct(*shape)
    rng = np.random.default_rng(2)
    given = [rng.standard_normal(t.shape).astype(np.float32) for t in ins]
    check(ins, made, given, kernel, kernel, NONE, "u", frozenset({"u"}))


def group(shape, kernel, stride, border):
    ins, (made,) = stages(*shape)
    pool = pool2d(made, kernel, stride, (1, 1), border, "max", layout="NHWC")
    return Group(*collapse(ins, [pool]), target("native"), frozenset({"u"}))


def test_what_is_not_computed_once_is_not_joined():
    """Windows that read a tile's results in part, or maps too large for a block where windows overlap."""
    assert pooled.fits(group((1, 8, 12, 16, 32, ONE), (2, 2), (2, 2), NONE))
    assert not pooled.fits(group((1, 9, 12, 16, 32, ONE), (2, 2), (2, 2), NONE))
    assert not pooled.fits(group((1, 64, 64, 64, 64, ONE), (3, 3), (2, 2), ONE))
    assert not pooled.fits(group((1, 8, 12, 16, 33, ONE), (2, 2), (2, 2), NONE))


def test_the_prior_counts_the_buffer():
    """What stays in a buffer has to fit a thread's stack beside the products."""
    layer = Layer(1, 8, 8, 64, 96, 36, 16, whole=(True, True))
    assert plan(layer, target("native")) is not None
    assert plan(Layer(1, 8, 8, 64, 96, 36, 16, whole=(True, True), kept=200), target("native")) is None


def test_the_prior_joins_where_a_map_is_large():
    assert pooled.pays(group((1, 32, 160, 64, 128, ONE), (2, 2), (2, 2), NONE))
