"""erf of float32: its error over a dense walk of all numbers that matter, and what it gives beyond them."""

from __future__ import annotations

import math

import cg_native as native
import numpy as np
import pytest
from test_mathlib import kernel

_erf = np.vectorize(math.erf, otypes=[float])


def _native(x: np.ndarray) -> np.ndarray:
    out = np.empty_like(x)
    native.build(kernel("erf", "float32", len(x), 16))(x, out)
    return out


@pytest.mark.parametrize(
    "low, high, step", [(2.0**-126, 0.5, 4001), (0.5, 0.95, 23), (0.95, 1.75, 29), (1.75, 4.25, 53)]
)
def test_error_stays_below_a_unit(low: float, high: float, step: int) -> None:
    first, last = np.array([low, high], np.float32).view(np.int32)
    x = np.arange(first, last, step, dtype=np.int32)
    x = np.concatenate([x, np.full(-len(x) % 16, last)]).view(np.float32)
    got, want = _native(x), _erf(x.astype(float))
    error = np.abs(got - want) / np.spacing(want.astype(np.float32)).astype(float)
    assert error.max() < 0.95, (x[error.argmax()], error.max())
    assert np.array_equal(_native(-x), -got)


def test_large_values_are_one_and_special_values_are_kept() -> None:
    tiny = np.float32(1e-40)
    usual = [3.95, 1, 0.88, -0.88]
    x = np.array([4, 5, 88, 3e38, np.inf, -4, -np.inf, np.nan, 0.0, -0.0, tiny, -tiny, *usual], np.float32)
    got = _native(x)
    assert np.array_equal(got[:7], [1, 1, 1, 1, 1, -1, -1]) and np.isnan(got[7])
    assert np.array_equal(np.signbit(got[8:10]), [False, True]) and not got[8:10].any()
    assert np.abs(got[10:12] - _erf(x[10:12].astype(float))).max() <= np.finfo(np.float32).smallest_subnormal
    assert got[12] == 1 and got[14] == -got[15]
