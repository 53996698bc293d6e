"""Determinants by elimination, in vectors from the column on that is eliminated."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import warpbeam
from warpbeam import op, relay
from warpbeam.tir.expr import SizeVar


def compiled(shape: Any, dtype: str) -> Any:
    var = relay.var("x", shape=shape, dtype=dtype)
    return warpbeam.compile(relay.IRModule.from_expr(relay.Function([var], op.get("linalg.det")(var))), cache=False)


def matrices(n: int, dtype: str) -> np.ndarray:
    """Full rank, singular, a permutation, zeros on the diagonal."""
    rng = np.random.default_rng(n)
    x = rng.standard_normal((4, n, n))
    x[1, -1] = x[1, 0] * (2 if n > 1 else 0)
    x[2] = np.eye(n)[rng.permutation(n)]
    x[3] -= np.diag(np.diag(x[3]))
    return x.astype(dtype)


def check(module: Any, x: np.ndarray) -> None:
    (got,) = module.run({"x": x}).values()
    want = np.linalg.det(x.astype(np.float64))
    room = np.prod(np.linalg.norm(x.astype(np.float64), axis=2), axis=1)  # what a determinant is at most
    assert np.all(np.abs(np.asarray(got) - want) <= 4 * x.shape[1] * np.finfo(x.dtype).eps * room)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 40])
def test_sizes(n: int, dtype: str) -> None:
    x = matrices(n, dtype)
    check(compiled(x.shape, dtype), x)


def test_open_sizes() -> None:
    n = SizeVar("n")
    module = compiled((SizeVar("b"), n, n), "float32")
    for size in (1, 3, 16, 33):
        check(module, matrices(size, "float32"))


def test_not_finite() -> None:
    x = matrices(20, "float32")
    x[0, 3, 4] = np.nan
    (got,) = compiled(x.shape, "float32").run({"x": x}).values()
    assert np.isnan(np.asarray(got)[0]) and np.isfinite(np.asarray(got)[1:]).all()
