"""Taking axes apart changes shapes and never values; convolutions in groups become contractions."""

import numpy as np
import pytest
from test_collapse import execute, shapes
from tolerance import close

from warpbeam.sketch.collapse import collapse
from warpbeam.sketch.divide import divide
from warpbeam.sketch.select import schedule
from warpbeam.sketch.structure import contraction
from warpbeam.target import get
from warpbeam.te import tensor as te
from warpbeam.tir.interp import run


def grouped(length, groups, inputs, outputs, taps, bias=True):
    """A convolution along one axis, channels last, and what follows it."""
    x = te.placeholder((1, length + taps - 1, groups * inputs), name="x")
    w = te.placeholder((taps, inputs, groups * outputs), name="w")
    b = te.placeholder((groups * outputs,), name="b")
    k, i = te.reduce_axis(taps, "k"), te.reduce_axis(inputs, "i")
    y = te.compute(
        (1, length, groups * outputs),
        lambda n, p, c: te.sum(x[n, p + k, c // outputs * inputs + i] * w[k, i, c], axis=[k, i]),
        name="y",
    )
    z = te.compute(y.shape, lambda n, p, c: y[n, p, c] + b[c], name="z")
    return [x, w, b] if bias else [x, w], [z if bias else y]


def reference(arrays, groups, inputs, outputs, taps):
    x, w = (a.astype(np.float64) for a in arrays[:2])
    length = x.shape[1] - taps + 1
    out = np.zeros((1, length, groups * outputs))
    for g in range(groups):
        for k in range(taps):
            part = x[0, k : k + length, g * inputs : (g + 1) * inputs] @ w[k, :, g * outputs : (g + 1) * outputs]
            out[0, :, g * outputs : (g + 1) * outputs] += part
    return out + (arrays[2] if len(arrays) > 2 else 0)


@pytest.mark.parametrize("bias", [False, True])
def test_groups_become_an_axis(bias):
    sizes = (4, 6, 8, 3)  # groups, inputs, outputs, taps
    ins, outs = divide(*collapse(*grouped(5, *sizes, bias)))
    assert shapes(ins) == [(7, 24), (3, 6, 4, 8), (4, 8)][: len(ins)]
    assert shapes(outs) == [(5, 4, 8)]
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(t.shape).astype(np.float32) for t in grouped(5, *sizes, bias)[0]]
    (got,) = execute(ins, outs, arrays)
    close(got.reshape(1, 5, 32), reference(arrays, *sizes), terms=6 * 3 + 1)


def test_a_group_s_products_are_a_contraction_with_packed_weights():
    target = get("generic-x86-64-v4")
    ins, outs = grouped(33, 4, 24, 48, 3)
    divided = divide(*collapse(ins, outs))
    sums = next(op for op in {t.op for t in divided[1][0].op.input_tensors} if getattr(op, "reduce_axis", ()))
    roles = contraction(sums)
    assert len(roles.batch) == 1 and len(roles.m) == 1 and len(roles.n) == 1
    plan = schedule(ins, outs, target, frozenset({"w"}))
    assert plan.sketch == "tile"
    assert len(plan.func.buffers[1].shape) == 5  # panels outside: packed


@pytest.mark.parametrize("sizes", [(8, 4, 1, 3), (4, 6, 2, 3), (8, 1, 4, 3)])  # few results: no vectors to win
def test_narrow_groups_stay(sizes):
    ins, outs = collapse(*grouped(5, *sizes))
    assert shapes(divide(ins, outs)[1]) == shapes(outs)


def test_an_axis_that_another_stage_walks_differently_stays():
    ins, (z,) = grouped(5, 4, 6, 8, 3)
    turned = te.compute((32, 5), lambda c, p: z[0, p, 31 - c], name="turned")
    ins, outs = collapse(ins, [turned])
    assert shapes(divide(ins, outs)[1]) == shapes(outs)


@pytest.mark.parametrize("length,groups,inputs,outputs,taps", [(17, 2, 5, 20, 3), (40, 3, 16, 16, 1), (9, 2, 3, 37, 2)])
def test_scheduled_groups_are_right(length, groups, inputs, outputs, taps):
    sizes = (groups, inputs, outputs, taps)
    ins, outs = grouped(length, *sizes)
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal(t.shape).astype(np.float32) for t in ins]
    plan = schedule(ins, outs, get("generic-x86-64-v3"))
    result = np.zeros(plan.func.buffers[-1].shape, np.float32)
    run(plan.func, *[a.reshape(b.shape) for a, b in zip(arrays, plan.func.buffers, strict=False)], result)
    close(result.reshape(1, length, -1), reference(arrays, *sizes), terms=inputs * taps + 1)
