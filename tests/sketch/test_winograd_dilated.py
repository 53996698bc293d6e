"""Tiles of taps that lie apart: each part of a map is right, whatever its size, within the bound of the plain form."""

from dataclasses import replace

import numpy as np
import pytest
from winograd_bound import dilated, direct, error_bound

from warpbeam.ir.diagnostics import TypeCheckError
from warpbeam.op.table import get
from warpbeam.relay.types import TensorType
from warpbeam.sketch.base import Group
from warpbeam.sketch.select import schedule
from warpbeam.sketch.winograd import find
from warpbeam.target import get as target
from warpbeam.te import tensor as te
from warpbeam.tir.expr import SizeVar, const_int, maximum
from warpbeam.tir.interp import run
from warpbeam.tir.schedule.layout import apply_layout
from warpbeam.topi.nn.winograd import winograd

NHWC = {c: i for i, c in enumerate("NHWC")}
TRANSFORM = get("nn.contrib_conv2d_winograd_weight_transform")


def stages(n, h, w, c, o, borders, apart):
    top, left, bottom, right = borders
    shape = (n, h + top + bottom - 2 * apart[0], w + left + right - 2 * apart[1], o)
    x, u = te.placeholder((n, h, w, c), name="x"), te.placeholder((4, 4, c, o), name="u")
    y = winograd(x, u, 2, (NHWC, NHWC), (top, left), shape, dilation=apart)
    return [x, u], [te.compute(shape, lambda *i: maximum(y[i], 0.0), name="relu")]


@pytest.mark.parametrize(
    "shape",
    [
        (1, 14, 14, 16, 32, (1, 1, 1, 1), (2, 2)),  # whole tiles in each part
        (1, 13, 15, 12, 20, (2, 2, 2, 2), (2, 2)),  # parts of 7 and 6 rows, 8 and 7 columns; channels
        (2, 9, 12, 16, 16, (1, 0, 2, 3), (2, 3)),  # rows and columns differ; uneven borders; two images
        (1, 11, 10, 17, 33, (0, 0, 0, 0), (2, 1)),  # only rows lie apart
        (1, 8, 9, 16, 48, (4, 4, 4, 4), (4, 4)),  # a tile in each part
        (1, 7, 7, 16, 16, (5, 5, 5, 5), (5, 5)),  # parts of two rows and of one
        (1, 20, 33, 16, 16, (6, 6, 6, 6), (6, 6)),  # blocks that begin within the parts
    ],
    ids=lambda s: "x".join(map(str, np.ravel([*s[:5], *s[6]]))),
)
@pytest.mark.parametrize("cores", [1, 2])
def test_values(shape, cores):
    n, h, w, c, o, borders, apart = shape
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, h, w, c)).astype(np.float32)
    k = (rng.standard_normal((3, 3, c, o)) / np.sqrt(9 * c)).astype(np.float32)
    machine = replace(target("generic-x86-64-v4"), cores=cores, fork_cycles=1)
    plan = schedule(*stages(*shape), machine, frozenset({"u"}), "k")
    assert plan.sketch == "winograd", plan.notes
    want, bound = (dilated(fn, x, k, borders, apart) for fn in (direct, error_bound))
    layout = plan.func.attrs["layouts"]["u"]
    weights = TRANSFORM.numpy(TRANSFORM.attrs({"tile_size": 2, "kernel_layout": "HWIO"}), k)
    packed = np.ascontiguousarray(apply_layout(weights.reshape(layout["shape"]), layout))
    for func in (plan.func, plan.lowered):
        given = [a.reshape([const_int(d) for d in b.shape]) for a, b in zip((x, packed), func.buffers[:2], strict=True)]
        results = [np.full([const_int(d) for d in b.shape], np.nan, np.float32) for b in func.buffers[2:]]
        run(func, *given, *results)
        assert (np.abs(results[0].reshape(want.shape) - np.maximum(want, 0)) <= bound).all()


def test_how_far_apart_is_found_by_structure():
    """A tile's number may be put together in another way; then it is something else."""
    ins, outs = stages(1, 14, 14, 16, 32, (1, 1, 1, 1), (2, 3))
    group = Group(ins, outs, target("native"), frozenset({"u"}))
    assert find(group).sizes == (2, 2) and find(group).apart == (2, 3)
    back = next(s.op for s in group.stages if s.op.name == "result_rows")

    def result(b, i, j, o):
        high, across = i // 4 * 2 + (i + 1) % 2, j // 6 * 3 + j % 3
        return back.output(0)[i // 2 % 2, j // 3 % 2, b, high, across, o]

    turned = te.compute(outs[0].shape, result, name="turned")
    assert find(Group(ins, [turned], target("native"), frozenset({"u"}))) is None


@pytest.mark.parametrize(("shape", "stride"), [((1, 9, 9, 16), 2), ((1, SizeVar("h"), 9, 16), 1)])
def test_what_dilated_taps_need_is_said(shape, stride):
    op, size = get("nn.contrib_conv2d_winograd_without_weight_transform"), 3 + stride
    attrs = op.attrs({"tile_size": 2, "stride": stride, "dilation": 2, "data_layout": "NHWC"})
    types = [TensorType(shape, "float32"), TensorType((size, size, 16, 8), "float32")]
    with pytest.raises(TypeCheckError, match=r"dilation \(2, 2\) with stride[^#]*known rows and columns"):
        op.infer_type(types, attrs)
