"""Transposed convolutions as plain ones: over strides, dilations, borders, groups and layouts, against the operator."""

from __future__ import annotations

import numpy as np
import pytest

from warpbeam import op
from warpbeam.ir.rewrite import post_order
from warpbeam.relay.expr import Constant, Function, IRModule, Var
from warpbeam.relay.interp import evaluate
from warpbeam.relay.types import TensorType
from warpbeam.target import get
from warpbeam.transform import passes
from warpbeam.transform.graph import op_name

CASES = [
    # nd, size, kernel, stride, dilation, padding, output padding, groups, layout
    (2, 4, 4, 2, 1, (1, 1, 1, 1), 0, 1, "NCHW"),
    (2, 5, 3, 2, 1, (1, 1, 1, 1), 1, 1, "NHWC"),
    (2, 1, 4, 1, 1, (0, 0, 0, 0), 0, 1, "NHWC"),
    (2, 4, 2, 3, 1, (0, 0, 0, 0), 0, 2, "NCHW"),
    (2, 4, 3, 2, 2, (0, 1, 2, 1), 0, 1, "NHWC"),
    (2, 3, 5, 2, 1, (4, 3, 4, 3), 0, 1, "NHWC"),
    (1, 6, 3, 2, 3, (1, 2), 1, 2, "NWC"),
    (1, 7, 2, 4, 1, (0, 0), 3, 1, "NCW"),
    (3, 3, 3, 2, 1, (1, 1, 1, 1, 1, 1), 1, 1, "NDHWC"),
]


@pytest.mark.parametrize("outputs", [3, 48])  # in few channels all remainders are one convolution
@pytest.mark.parametrize("nd,size,kernel,stride,dilation,padding,extra,groups,layout", CASES)
def test_equals_the_operator(nd, size, kernel, stride, dilation, padding, extra, groups, layout, outputs):
    rng = np.random.default_rng(0)
    letters = {1: "W", 2: "HW", 3: "DHW"}[nd]
    sizes = {"N": 2, "C": 4, **{c: size + i for i, c in enumerate(letters)}}
    x = Var("x", TensorType([sizes[c] for c in layout], "float32"))
    w = rng.integers(-4, 5, (4, outputs, *[kernel] * nd)).astype(np.float32)
    y = op.get(f"nn.conv{nd}d_transpose")(
        x,
        Constant(w),
        strides=(stride,) * nd,
        dilation=(dilation,) * nd,
        padding=padding,
        output_padding=(extra,) * nd,
        groups=groups,
        data_layout=layout,
        kernel_layout="IO" + letters,
    )
    before = IRModule({"main": Function((x,), y)})
    after = passes.ExpandConvTranspose()(before)
    assert not any("conv" in op_name(n) and "transpose" in op_name(n) for n in post_order(after["main"].body))
    data = rng.integers(-4, 5, [sizes[c] for c in layout]).astype(np.float32)
    want, got = evaluate(before, [data]), evaluate(after, [data])
    np.testing.assert_array_equal(np.asarray(got), np.asarray(want))


@pytest.mark.parametrize(
    "size,kernel,begin,outputs,convolutions,positions",
    [
        (4, 4, 1, 64, 4, 4 * 4 * 4),  # the remainders begin at different inputs: each on its own, 64 positions for 100
        (4, 4, 1, 3, 1, 5 * 5),  # 12 channels fill a vector better than 3
        (4, 2, 0, 64, 1, 4 * 4),  # the remainders begin at the same input
        (64, 4, 1, 4, 1, 65 * 65),
        (64, 4, 1, 64, 4, 4 * 64 * 64),
    ],
)
def test_remainders_apart_make_fewer_products(size, kernel, begin, outputs, convolutions, positions):
    x = Var("x", TensorType([1, 256, size, size], "float32"))
    w = Constant(np.zeros((256, outputs, kernel, kernel), np.float32))
    y = op.get("nn.conv2d_transpose")(x, w, strides=(2, 2), padding=(begin,) * 4, kernel_layout="IOHW")
    target = get("generic-x86-64-v4")
    after = passes.ExpandConvTranspose(target)(IRModule({"main": Function((x,), y)}))
    found = [n for n in post_order(after["main"].body) if op_name(n) == "nn.conv2d"]
    assert len(found) == convolutions
    assert sum(n.ty.shape[2] * n.ty.shape[3] for n in found) == positions
