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


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint64"])
def test_whole_numbers_of_other_types(dtype: str) -> None:
    """What is above all numbers of int64 becomes the largest one, or wraps."""
    given = [2**63, 2**63 - 1, 2**63 + 1, 0, 1] if dtype == "uint64" else [np.inf, -np.inf, 1e19, -1e19, 0.0, 2.5]
    x, y = (v.ravel() for v in np.meshgrid(np.array(given, dtype), np.array(given, dtype)))
    a, b = (r.cast(r.var(name, r.TensorType(x.shape, dtype)), "int64") for name in "xy")
    calls = [getattr(r, name)(a, b) for name in NAMES]
    module = warpbeam.compile(r.IRModule.from_expr(r.Function([a.args[0], b.args[0]], r.Tuple(calls))), cache=False)
    low, high = np.iinfo("int64").min, np.iinfo("int64").max
    small = [np.where(np.abs(v.astype(np.float64)) < 1e6, v, 0).astype("int64") for v in (x, y)]
    ends = [np.where(v > 1e18, high, np.where(v < -1e18, low, n)) for v, n in zip((x, y), small, strict=True)]
    left, right = (v.view("int64") for v in (x, y)) if dtype == "uint64" else ends
    for got, f in zip(module(x, y), NAMES.values(), strict=True):
        np.testing.assert_array_equal(np.asarray(got), f(left, right))
