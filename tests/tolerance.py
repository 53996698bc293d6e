"""How far rounding alone may take a result from that of exact arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np

from warpbeam.te.operation import ComputeOp, Tensor, operations
from warpbeam.tir.expr import const_int


def unit(dtype: Any) -> float:
    """The unit roundoff of a dtype: half of the distance from 1 to the next float; 0 for integers."""
    try:
        return float(ml_dtypes.finfo(dtype).eps) / 2
    except ValueError:
        return 0.0


def close(got: Any, want: Any, terms: int = 1, scale: float = 0.0) -> None:
    """Every element within 8 (terms + 2) u of the largest magnitude (u: the unit roundoff of got's dtype).

    A sum of K terms in any order is off by at most about K u times the sum of magnitudes; 8 is room for that sum being
    larger than the result, for NumPy's own error, and for functions that are good to a few units.

    terms: roundings behind an element: K for a sum of K products, one more for each operation on it.
    scale: the largest magnitude on the way, where it is larger than the result's.
    """
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    size = max(1.0, scale, float(np.abs(want.astype(np.float64)).max(initial=0.0)))
    np.testing.assert_allclose(
        got.astype(np.float64), want.astype(np.float64), rtol=0, atol=8 * (terms + 2) * unit(got.dtype) * size
    )


def close_trees(got: Any, want: Any, terms: int) -> None:
    """Nested lists of the same form, whose arrays are of one dtype and `close`."""
    assert isinstance(got, list) == isinstance(want, list)
    if not isinstance(got, list):
        assert np.asarray(got).dtype == np.asarray(want).dtype
        close(got, want, terms)
        return
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        close_trees(a, b, terms)


def terms_of(outputs: Sequence[Tensor]) -> int:
    """Roundings behind an element of computed tensors: a stage adds one, a reduction the extent of its axes."""
    total = 0
    for op in operations(outputs):
        if isinstance(op, ComputeOp):
            total += 1 + math.prod(const_int(k.extent) or 1 for k in op.reduce_axis)
    return total
