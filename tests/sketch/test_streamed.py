"""One reduction over outer axes of what no near cache holds reads rows from end to end, and gives the same values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tolerance import close

from warpbeam import topi
from warpbeam.sketch.select import schedule
from warpbeam.sketch.streamed import panel
from warpbeam.target import get
from warpbeam.te import tensor as te
from warpbeam.tir.interp import run
from warpbeam.tir.transform import lower

# a machine whose caches make small operands large, so that the interpreter is done soon
SMALL = get("native").replace(l1=8192, l2=16384, l3=65536, cores=2)


def _sum_of_squares(x: te.Tensor) -> te.Tensor:
    return topi.sum(topi.multiply(x, x), axis=(0,))


CASES: list[tuple[tuple[int, ...], Callable[[te.Tensor], te.Tensor], Callable[[np.ndarray], Any]]] = [
    ((24, 1024), lambda x: topi.sum(x, axis=(0,)), lambda x: x.sum(0)),
    ((23, 1009), lambda x: topi.sum(x, axis=(0,)), lambda x: x.sum(0)),
    ((3, 2100), lambda x: topi.max(x, axis=(0,)), lambda x: x.max(0)),
    ((2, 6, 5, 520), lambda x: topi.sum(x, axis=(1, 2)), lambda x: x.sum((1, 2))),
    ((5, 2, 6, 520), lambda x: topi.sum(x, axis=(0, 2)), lambda x: x.sum((0, 2))),
    ((3, 9, 516), lambda x: topi.min(x, axis=(1,), keepdims=True), lambda x: x.min(1, keepdims=True)),
    ((30, 600), _sum_of_squares, lambda x: (x * x).sum(0)),
    ((30, 600), lambda x: topi.exp(topi.sum(x, axis=(0,))), lambda x: np.exp(x.sum(0))),
]


@pytest.mark.parametrize("shape,body,value", CASES)
def test_equals_numpy(shape, body, value):
    x = te.placeholder(shape, name="x")
    out = body(x)
    plan = schedule([x], [out], SMALL)
    assert plan.sketch == "streamed", plan.notes
    data = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    want = np.asarray(value(data.astype(np.float64)))
    for func in (plan.func, lower(plan.func, SMALL)):
        got = np.zeros(want.shape, np.float32)
        run(func, *(a.reshape([int(d) for d in p.shape]) for a, p in zip((data, got), func.params, strict=False)))
        close(got, want, terms=data.size // want.size)


def test_what_a_near_cache_holds_stays_in_registers() -> None:
    """Short reductions and short rows are no matter of streams."""
    for shape in [(7, 520), (200, 64)]:
        x = te.placeholder(shape, name="x")
        assert schedule([x], [topi.sum(x, axis=(0,))], SMALL).sketch != "streamed"


def test_a_product_reads_again() -> None:
    a, b = te.placeholder((64, 600), name="a"), te.placeholder((64, 600), name="b")
    k = te.reduce_axis((0, 64), name="k")
    out = te.compute((600, 600), lambda i, j: te.sum(a[k, i] * b[k, j], axis=k))
    assert schedule([a, b], [out], SMALL).sketch != "streamed"


def test_panels() -> None:
    """Every core has one, the nearest cache has room for it, and its rows are no shorter than they must be."""
    assert panel(SMALL, 1, 1024, 4) == 512
    assert panel(SMALL, 2, 1024, 4) == 1024
    assert panel(SMALL, 1, 300, 4) == 300
    assert panel(SMALL, 2, 8192, 4) == 1024
