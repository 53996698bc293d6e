"""Maxima and minima of numbers as comparisons: the same values, NaNs included, and one instruction."""

from __future__ import annotations

import numpy as np
import pytest
from schedule_native import by_llvm

from warpbeam import target, te
from warpbeam.codegen import llvm
from warpbeam.sketch.select import schedule
from warpbeam.tir import expr as e
from warpbeam.tir.interp import run
from warpbeam.tir.stmt import PrimFunc
from warpbeam.tir.transform import lower
from warpbeam.tir.transform.drop_nan_tests import drop_nan_tests
from warpbeam.topi.nn import softmax

V4 = target.get("generic-x86-64-v4")


def extreme(rows: int, cols: int, reducer: object, replaced: float | None) -> PrimFunc:
    """The largest or smallest of each row, with NaNs replaced first."""
    x, k = te.placeholder((rows, cols), "float32", "x"), te.reduce_axis(cols, "k")

    def source(i: e.PrimExpr) -> e.PrimExpr:
        v = x[i, k.var]
        if replaced is None:
            return v
        return e.select(e.call("isnan", v, dtype="bool"), e.const(replaced, "float32"), v)

    out = te.compute((rows,), lambda i: reducer(source(i), axis=k), name="out")  # type: ignore[operator]
    return schedule([x], [out], V4).func


def data(rows: int, cols: int) -> np.ndarray:
    x = np.random.default_rng(0).standard_normal((rows, cols)).astype(np.float32)
    x[0, ::3] = np.nan
    x[1, :] = np.nan
    x[2, 5] = np.inf
    x[3, :] = -np.inf
    x[4, -1] = np.nan
    return x


@pytest.mark.parametrize("replaced", [-np.inf, np.inf, 0.0, None])
@pytest.mark.parametrize("reducer", [te.max, te.min])
@pytest.mark.parametrize("cols", [64, 300, 515])
def test_values_are_those_of_the_program(cols: int, reducer: object, replaced: float | None) -> None:
    func = extreme(8, cols, reducer, replaced)
    x, want, got, native = data(8, cols), *(np.zeros(8, np.float32) for _ in range(3))
    seen = x if replaced is None else np.where(np.isnan(x), np.float32(replaced), x)
    want = (np.max if reducer is te.max else np.min)(seen, axis=1)
    run(lower(func, V4), x, got)
    np.testing.assert_array_equal(got, want)
    here = target.get("native")
    by_llvm(lower(func, here), here)(x, native)
    np.testing.assert_array_equal(native, want)


def assembly(func: PrimFunc) -> str:
    return llvm.assembly_text(llvm.print_kernel(lower(func, V4), V4), V4)


def test_only_certain_numbers_are_compared_once() -> None:
    assert "vcmp" not in assembly(extreme(8, 512, te.max, -np.inf))
    assert "vcmp" in assembly(extreme(8, 512, te.max, None))
    assert "vcmp" in assembly(extreme(8, 512, te.max, np.nan))


def test_a_buffer_that_is_given_anything_else_is_not_clean() -> None:
    func = lower(extreme(8, 512, te.max, None), V4)
    assert drop_nan_tests(func) is func


def test_softmax_of_rows_with_nans_and_infinities() -> None:
    x = te.placeholder((8, 512), "float32", "x")
    func = schedule([x], [softmax(x)], V4).func
    values = data(8, 512)
    got = np.zeros_like(values)
    run(lower(func, V4), values, got)
    with np.errstate(invalid="ignore"):
        wide = np.exp(values.astype(np.float64) - values.max(axis=1, keepdims=True))
        want = wide / wide.sum(axis=1, keepdims=True)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_allclose(got, want, rtol=2e-6)  # 4 ulp of the exponential, and sums of 512 in 128 lanes
    assert not np.isnan(got[5:]).any()
