"""Comparisons of integers at the ends of their types: nothing may be added to a number that is read from memory."""

from __future__ import annotations

import operator

import numpy as np
import pytest

import warpbeam
from warpbeam import relay as r

NAMES = {"less": operator.lt, "less_equal": operator.le, "greater": operator.gt, "greater_equal": operator.ge,
         "equal": operator.eq, "not_equal": operator.ne}  # fmt: skip


@pytest.mark.parametrize("dtype", ["int64", "int32", "int8", "uint8"])
@pytest.mark.parametrize("length", [9, 64])
def test_ends_of_a_type_by_constants_and_by_each_other(dtype: str, length: int) -> None:
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    values = np.resize(np.array([low, low + 1, 0, 1, 100, high - 1, high], dtype), length)
    x, y = (r.var(name, r.TensorType(values.shape, dtype)) for name in "xy")
    limits = [low, 1, 100, high]
    calls = [getattr(r, name)(x, r.const(np.array(c, dtype))) for name in NAMES for c in limits]
    calls += [getattr(r, name)(x, y) for name in NAMES]
    module = warpbeam.compile(r.IRModule.from_expr(r.Function([x, y], r.Tuple(calls))), cache=False)
    other = np.roll(values, 3)
    want = [f(values, np.array(c, dtype)) for f in NAMES.values() for c in limits]
    want += [f(values, other) for f in NAMES.values()]
    for got, expected in zip(module(values, other), want, strict=True):
        np.testing.assert_array_equal(np.asarray(got), expected)
