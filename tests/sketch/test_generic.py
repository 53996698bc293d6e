"""What no sketch takes is right, and in vectors where its reads allow it."""

from __future__ import annotations

import numpy as np
import pytest
from tolerance import close

from warpbeam import relay
from warpbeam.driver.api import compile_with_report
from warpbeam.ir.dtype import to_numpy
from warpbeam.ir.rewrite import post_order
from warpbeam.sketch.base import Group, Plan
from warpbeam.sketch.generic import build
from warpbeam.target import get
from warpbeam.te import tensor as te
from warpbeam.tir.expr import const, if_then_else
from warpbeam.tir.interp import run
from warpbeam.tir.stmt import For
from warpbeam.tir.transform import lower
from warpbeam.topi.reduction import argmax, logsumexp, variance

RNG = np.random.default_rng(0)


def planned(ins: list, outs: list) -> Plan:
    return build(Group(ins, outs, get("native").replace(cores=2)))


def vectorised(plan: Plan) -> int:
    return sum(isinstance(n, For) and n.kind == "vectorized" for n in post_order(plan.func.body))


def values(plan: Plan, outs: list, *arrays: np.ndarray) -> list[np.ndarray]:
    """What the scheduled program gives, and that lowered gives the same."""
    found = [np.zeros([int(d) for d in t.shape], to_numpy(t.dtype)) for t in outs]
    run(plan.func, *arrays, *found)
    again = [np.zeros_like(v) for v in found]
    run(lower(plan.func, get("native")), *arrays, *again)
    for a, b in zip(found, again, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    return again


@pytest.mark.parametrize("shape", [(7, 70), (40, 33), (5, 3), (1, 40), (40, 1)])
@pytest.mark.parametrize("axis", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_chains(shape: tuple[int, ...], axis: tuple[int, ...], dtype: str) -> None:
    x = RNG.standard_normal(shape).astype(dtype)
    wide = x.astype(np.float64)
    given = te.placeholder(shape, dtype, "x")
    for fn, want in ((logsumexp, np.log(np.exp(wide).sum(axis))), (variance, wide.var(axis))):
        out = fn(given, axis)
        plan = planned([given], [out])
        if x.size > 40:
            assert vectorised(plan)
        (got,) = values(plan, [out], x)
        close(got, want, terms=x.size)


def test_two_values() -> None:
    """Columns side by side; along a row, one after the other."""
    x = RNG.integers(-3, 4, (9, 50)).astype(np.float32)
    x[3, 7] = np.nan
    given = te.placeholder(x.shape, "float32", "x")
    for axis in (0, 1):
        out = argmax(given, axis)
        plan = planned([given], [out])
        (got,) = values(plan, [out], x)
        np.testing.assert_array_equal(got, x.argmax(axis))


def test_reads_here_and_there_stay_plain() -> None:
    """Every other element, at places of another tensor, and under conditions that change along the axis."""
    x, at = RNG.standard_normal((20, 90)).astype(np.float32), RNG.integers(0, 20, (40,))
    given, places = te.placeholder(x.shape, "float32", "x"), te.placeholder(at.shape, "int64", "at")
    k = te.reduce_axis(20, "k")
    half = te.compute((40,), lambda j: te.sum(given[k, 2 * j], axis=k), name="half")
    taken = te.compute((40,), lambda j: te.max(given[places[j], k], axis=k), name="taken")
    cut = te.compute(
        (90,), lambda j: te.sum(if_then_else(j + k.var < 60, given[k, j], const(0.0, "float32")), axis=k), name="cut"
    )
    wants = [x[:, :80:2].sum(0), x[at, :20].max(1)]
    wants.append(np.where(np.add.outer(np.arange(20), np.arange(90)) < 60, x, 0).sum(0))
    for out, want in zip((half, taken, cut), wants, strict=True):
        used = [given, places] if out is taken else [given]
        plan = planned(used, [out])
        if out is not taken:
            assert not vectorised(plan)
        (got,) = values(plan, [out], *([x, at] if out is taken else [x]))
        close(got, want, terms=20)


def test_short_outer_loops_are_shared_together() -> None:
    x = te.placeholder((2, 300, 40, 8), "float32", "x")
    k = te.reduce_axis(40, "k")
    out = te.compute((2, 300, 8), lambda a, b, c: te.sum(x[a, b, k, c] * x[a, b, k, c], axis=k), name="out")
    plan = planned([x], [out])
    shared = [n for n in post_order(plan.func.body) if isinstance(n, For) and n.kind == "parallel"]
    assert [int(n.extent.value) for n in shared] == [600]
    v = RNG.standard_normal((2, 300, 40, 8)).astype(np.float32)
    (got,) = values(plan, [out], v)
    close(got, (v.astype(np.float64) ** 2).sum(2), terms=40)


OPEN = {
    "logsumexp": lambda x: relay.logsumexp(x, axis=(1,)),
    "softmax": lambda x: relay.nn.softmax(x, axis=1),
    "argmax": lambda x: relay.argmax(x, axis=(1,)),
    "group_norm": lambda x: relay.nn.group_norm(x, *(relay.const(np.ones(12, np.float32)),) * 2, num_groups=3),
}


@pytest.mark.parametrize("name", OPEN)
@pytest.mark.parametrize("size", [1, 5, 16, 50])
def test_open_sizes(name: str, size: int) -> None:
    given = relay.var("x", shape=(3, 12, relay.Any()), dtype="float32")
    mod = relay.IRModule.from_expr(relay.Function([given], OPEN[name](given)))
    module, report = compile_with_report(mod, cache=False)
    assert "generic" in {row["sketch"] for row in report.rows}
    x = RNG.standard_normal((3, 12, size)).astype(np.float32)
    wide = x.astype(np.float64)
    e = np.exp(wide)
    groups = wide.reshape(3, 3, -1)
    normal = (groups - groups.mean(-1, keepdims=True)) / np.sqrt(groups.var(-1, keepdims=True) + 1e-5)
    want = {
        "logsumexp": np.log(e.sum(1)),
        "softmax": e / e.sum(1, keepdims=True),
        "argmax": x.argmax(1),
        "group_norm": normal.reshape(x.shape) + 1,
    }[name]
    results = []
    for threads in (1, 2):
        module.num_threads = threads
        (got,) = module.run({"x": x}).values()
        results.append(np.asarray(got))
        close(results[-1], want, terms=12 * size)
    np.testing.assert_array_equal(*results)
