"""Groups of channels, each with products of its own between the transforms of tiles."""

from dataclasses import replace

import numpy as np
import pytest
from winograd_bound import dilated, direct, error_bound

from warpbeam.cost.winograd_prior import Layer, plan
from warpbeam.ir.diagnostics import TypeCheckError
from warpbeam.op.table import get
from warpbeam.relay.types import TensorType
from warpbeam.sketch.base import Group
from warpbeam.sketch.select import schedule
from warpbeam.sketch.winograd import find
from warpbeam.target import get as target
from warpbeam.te import tensor as te
from warpbeam.tir.expr import SizeVar, const_int
from warpbeam.tir.interp import run
from warpbeam.tir.schedule.layout import apply_layout
from warpbeam.topi.nn.winograd import matrices, winograd

NHWC = {c: i for i, c in enumerate("NHWC")}
TRANSFORM, CONV = (get(f"nn.contrib_conv2d_winograd_{w}") for w in ("weight_transform", "without_weight_transform"))


def stages(x, o, groups, borders, stride=1, apart=(1, 1)):
    n, h, w, c = x
    top, left, bottom, right = borders
    high, across = ((s - 2 * d - 1) // stride + 1 for s, d in zip((h + top + bottom, w + left + right), apart))
    size = len(matrices(2, stride)[0])
    data, u = te.placeholder(x, name="x"), te.placeholder((size, size, groups, c // groups, o // groups), name="u")
    y = winograd(data, u, 2, (NHWC, NHWC), (top, left), (n, high, across, o), stride, dilation=apart, groups=groups)
    b = te.placeholder((o,), name="b")
    return [data, u, b], [te.compute((n, high, across, o), lambda *i: y[i] + b[i[-1]], name="biased")]


def expected(x, k, borders, stride, apart):
    """The convolution in float64, and the bound on the error of each result."""
    if stride == 1:
        return dilated(direct, x, k, borders, apart), dilated(error_bound, x, k, borders, apart)
    return direct(x, k, borders, stride), error_bound(x, k, borders, 2, stride)


@pytest.mark.parametrize(
    ("shape", "o", "groups", "borders", "stride", "apart"),
    [
        ((1, 8, 8, 64), 64, 2, (1, 1, 1, 1), 1, (1, 1)),
        ((2, 7, 9, 60), 96, 3, (1, 0, 2, 1), 1, (1, 1)),  # channels of a group that are no whole vectors
        ((1, 9, 11, 8), 64, 4, (0, 0, 0, 0), 2, (1, 1)),  # less than a vector
        ((1, 10, 9, 64), 128, 2, (2, 2, 2, 2), 1, (2, 3)),
        ((2, 4, 33, 32), 32, 2, (1, 1, 1, 1), 1, (1, 1)),  # a rest of a row of tiles
    ],
)
@pytest.mark.parametrize("cores", [1, 2])
def test_values(shape, o, groups, borders, stride, apart, cores):
    rng = np.random.default_rng(0)
    inputs, outputs = shape[3] // groups, o // groups
    x = rng.standard_normal(shape).astype(np.float32)
    k = (rng.standard_normal((3, 3, inputs, o)) / np.sqrt(9 * inputs)).astype(np.float32)
    b = rng.standard_normal(o).astype(np.float32)
    machine = replace(target("generic-x86-64-v4"), cores=cores, fork_cycles=1)
    plan = schedule(*stages(shape, o, groups, borders, stride, apart), machine, frozenset({"u"}), "k")
    assert plan.sketch == "winograd", plan.notes
    attrs = {"tile_size": 2, "stride": stride, "groups": groups, "kernel_layout": "HWIO"}
    layout = plan.func.attrs["layouts"]["u"]
    weights = TRANSFORM.numpy(TRANSFORM.attrs(attrs), k)
    packed = np.ascontiguousarray(apply_layout(weights.reshape(layout["shape"]), layout))
    for func in (plan.func, plan.lowered):
        given = [
            a.reshape([const_int(d) for d in f.shape]) for a, f in zip((x, packed, b), func.buffers[:3], strict=True)
        ]
        results = [np.full([const_int(d) for d in f.shape], np.nan, np.float32) for f in func.buffers[3:]]
        run(func, *given, *results)
        got = results[0].reshape(len(x), -1, results[0].shape[-2], o)
        for g in range(groups):
            ins, outs = slice(inputs * g, inputs * (g + 1)), slice(outputs * g, outputs * (g + 1))
            want, bound = expected(x[..., ins], k[..., outs], borders, stride, apart)
            want = want + b[outs]
            assert (np.abs(got[..., outs].reshape(want.shape) - want) <= bound + 2.0**-23 * np.abs(want)).all()


def test_groups_are_found_by_structure():
    """A result whose group is found in another way is something else."""
    ins, outs = stages((1, 8, 8, 64), 64, 2, (1, 1, 1, 1))
    group = Group(ins, outs, target("native"), frozenset({"u"}))
    assert find(group).groups == 2
    back = next(s.op for s in group.stages if s.op.name == "result_rows")

    def result(b, i, j, o):
        return back.output(0)[i % 2, j % 2, o % 2, b, i // 2, j // 2, o // 2]

    turned = te.compute((1, 8, 8, 64), result, name="turned")
    assert find(Group(ins, [turned], target("native"), frozenset({"u"}))) is None


def test_a_group_is_a_block_of_its_own():
    """Each core has its own groups' weights and data: no groups share a block, and channels are never outside."""
    layer = Layer(1, 7, 7, 64, 64, 16, 16, parts=4)
    machine = target("generic-x86-64-v4").replace(cores=2)
    blocks = plan(layer, machine)
    assert not blocks.columns_outer and blocks.parallel and 64 % blocks.chunk == 0
    whole = plan(replace(layer, parts=1, batch=4), machine)
    assert layer.weights == 4 * replace(layer, parts=1, batch=4).weights and blocks.cycles >= whole.cycles


@pytest.mark.parametrize("shape", [(1, SizeVar("h"), 9, 16)])
def test_what_groups_need_is_said(shape):
    attrs = CONV.attrs({"tile_size": 2, "groups": 2, "data_layout": "NHWC"})
    types = [TensorType(shape, "float32"), TensorType((4, 4, 2, 8, 8), "float32")]
    with pytest.raises(TypeCheckError, match=r"2 groups over[^#]*known rows and columns"):
        CONV.infer_type(types, attrs)
    attrs = TRANSFORM.attrs({"tile_size": 2, "groups": 3, "kernel_layout": "HWIO"})
    with pytest.raises(TypeCheckError, match="8 output channels do not divide into 3 groups"):
        TRANSFORM.infer_type([TensorType((3, 3, 4, 8), "float32")], attrs)
