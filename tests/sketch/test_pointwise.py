"""Transposes run in square blocks and copy every element."""

import numpy as np
import pytest

from warpbeam.sketch.select import schedule
from warpbeam.target import get
from warpbeam.te import tensor as te
from warpbeam.tir.interp import run
from warpbeam.tir.transform import lower


@pytest.mark.parametrize("shape", [(3, 32, 48), (2, 17, 33), (1, 9, 8)])
def test_transpose(shape):
    b, m, n = shape
    x = te.placeholder(shape, name="x")
    y = te.compute((b, n, m), lambda i, j, k: x[i, k, j], name="y")
    plan = schedule([x], [y], get("native"))
    assert "blocks of" in plan.notes[0]
    a = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for func in (plan.func, lower(plan.func, get("native"))):
        out = np.zeros((b, n, m), np.float32)
        run(func, *[v.reshape([int(d) for d in p.shape]) for v, p in zip((a, out), func.params, strict=False)])
        np.testing.assert_array_equal(out, a.transpose(0, 2, 1))
