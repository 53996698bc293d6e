"""Chains of reductions that keep the innermost axis are tiled by columns and give the same values."""

from __future__ import annotations

import numpy as np
import pytest
from tolerance import close

from warpbeam import op
from warpbeam.ir.rewrite import post_order
from warpbeam.relay.types import TensorType
from warpbeam.sketch.select import schedule
from warpbeam.target import get
from warpbeam.te import tensor as te
from warpbeam.tir.expr import const_int
from warpbeam.tir.interp import run
from warpbeam.tir.stmt import Allocate, For
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


def test_expensive_work_after_a_norm() -> None:
    """What several read before it is made in a buffer of one row of a tile, not once for each reader."""
    shape, target = (1, 23, 64), get("native")
    ins = [te.placeholder(s, name=f"p{i}") for i, s in enumerate([shape, (64,), (64,)])]
    norm = op.get("nn.instance_norm")
    full = norm.attrs({"axis": 2})
    ty = norm.infer_type([TensorType(t.shape, "float32") for t in ins], full)
    value = norm.compute(full, ins, ty)
    gate = op.get("sigmoid").compute(op.get("sigmoid").attrs({}), [value], ty)
    out = op.get("multiply").compute(op.get("multiply").attrs({}), [value, gate], ty)
    plan = schedule(ins, [out], target)
    assert plan.sketch == "columns", plan.notes
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal([int(d) for d in t.shape]).astype(np.float32) for t in ins]
    x = norm.numpy(full, *arrays).astype(np.float64)
    for func in (plan.func, lower(plan.func, target)):
        got = np.zeros(shape, np.float32)
        run(func, *(a.reshape([int(d) for d in p.shape]) for a, p in zip([*arrays, got], func.params, strict=False)))
        close(got, x / (1 + np.exp(-x)), terms=shape[-1])
    loops = [n for n in post_order(lower(plan.func, target).body) if isinstance(n, For) and const_int(n.extent) == 23]
    assert len(loops) == 3
    assert any(isinstance(n, Allocate) and n.buffer.scope == "local" for n in post_order(plan.func.body))
