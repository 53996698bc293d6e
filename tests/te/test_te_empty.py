"""Sizes of which nothing is left: reductions over nothing are their start, whatever the schedule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import warpbeam as tvm
from warpbeam import te
from warpbeam.tir.interp import run


def rows(scheduled: bool) -> tuple[Any, list[Any]]:
    n, m = te.var("n"), te.var("m")
    a, k = te.placeholder((n, m), name="A"), te.reduce_axis((0, m), "k")
    b = te.compute((n, m), lambda i, j: a[i, j] + 1.0, name="B")
    c = te.compute((n,), lambda i: te.sum(b[i, k], axis=k), name="C")
    s = te.create_schedule(c.op)
    if scheduled:
        outer, inner = s[c].split(c.op.axis[0], 4)
        s[c].parallel(outer)
        ko, ki = s[c].split(k, 8)
        s[c].reorder(outer, ko, inner, ki)
        s[b].compute_at(s[c], ko)
        s[b].vectorize(s[b].split(b.op.axis[1], 4)[1])
        s[c].unroll(ki)
    return s, [a, c]


@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (1, 1), (6, 9)])
def test_sums_of_symbolic_size(scheduled: bool, shape: tuple[int, int]) -> None:
    s, args = rows(scheduled)
    x = np.arange(shape[0] * shape[1], dtype="float32").reshape(shape)
    want = (x + 1).sum(1)
    got = np.full(shape[0], 7, "float32")
    run(te.schedule.lower(s, args), x, got, *shape)
    np.testing.assert_array_equal(got, want)
    y = tvm.nd.array(np.full(shape[0], 7, "float32"))
    tvm.build(s, args)(tvm.nd.array(x), y)
    np.testing.assert_array_equal(y.numpy(), want)


def test_sizes_are_not_below_zero() -> None:
    assert "min((n + 3) // 4, 0)" not in str(tvm.lower(*rows(True)))
