"""Chains of reductions that keep the innermost axis are tiled by columns and give the same values."""

from __future__ import annotations

import numpy as np
import pytest

from warpbeam import op
from warpbeam.relay.types import TensorType
from warpbeam.sketch.select import schedule
from warpbeam.target import get
from warpbeam.te import tensor as te
from warpbeam.tir.interp import run
from warpbeam.tir.transform import lower

CASES = [
    ("nn.instance_norm", (1, 40, 64), {"axis": 2}, 2),
    ("nn.instance_norm", (2, 5, 7, 48), {"axis": 3}, 2),
    ("nn.instance_norm", (2, 9, 12), {"axis": 2}, 2),
    ("nn.softmax", (3, 20, 32), {"axis": 1}, 0),
    ("nn.softmax", (3, 20, 61), {"axis": 1}, 0),
    ("nn.softmax", (9, 20, 17), {"axis": 1}, 0),
    ("nn.softmax", (20, 1009), {"axis": 0}, 0),
    ("nn.instance_norm", (2, 5, 7, 301), {"axis": 3}, 2),
    ("nn.log_softmax", (20, 96), {"axis": 0}, 0),
    ("nn.log_softmax", (20, 5), {"axis": 0}, 0),
    ("variance", (2, 30, 80), {"axis": (1,)}, 0),
]


@pytest.mark.parametrize("name,shape,attrs,vectors", CASES)
def test_equals_the_operator(name, shape, attrs, vectors):
    target, which = get("native"), op.get(name)
    shapes = [shape] + [(shape[-1],)] * vectors
    ins = [te.placeholder(s, name=f"p{i}") for i, s in enumerate(shapes)]
    full = which.attrs(attrs)
    out_type = which.infer_type([TensorType(s, "float32") for s in shapes], full)
    plan = schedule(ins, [which.compute(full, ins, out_type)], target)
    assert plan.sketch == "columns", plan.notes
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    want = which.numpy(full, *arrays)
    for func in (plan.func, lower(plan.func, target)):
        got = np.zeros([int(d) for d in out_type.shape], np.float32)
        flat = [a.reshape([int(d) for d in p.shape]) for a, p in zip([*arrays, got], func.params, strict=False)]
        run(func, *flat)
        bound = 2.0**-24 * (np.prod(shape) / shape[-1] + 8)
        np.testing.assert_allclose(got, want, rtol=bound, atol=bound * np.abs(want).max())
