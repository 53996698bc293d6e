"""Transposed convolutions as plain ones: over strides, dilations, borders, groups and layouts, against the operator."""

from __future__ import annotations

import numpy as np
import pytest

from warpbeam import op
from warpbeam.ir.rewrite import post_order
from warpbeam.relay.expr import Constant, Function, IRModule, Var
from warpbeam.relay.interp import evaluate
from warpbeam.relay.types import TensorType
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


@pytest.mark.parametrize("nd,size,kernel,stride,dilation,padding,extra,groups,layout", CASES)
def test_equals_the_operator(nd, size, kernel, stride, dilation, padding, extra, groups, layout):
    rng = np.random.default_rng(0)
    letters = {1: "W", 2: "HW", 3: "DHW"}[nd]
    sizes = {"N": 2, "C": 4, **{c: size + i for i, c in enumerate(letters)}}
    x = Var("x", TensorType([sizes[c] for c in layout], "float32"))
    w = rng.integers(-4, 5, (4, 3, *[kernel] * nd)).astype(np.float32)
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
