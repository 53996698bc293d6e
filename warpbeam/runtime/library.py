"""Functions that are registered from the start: matrix products by NumPy's BLAS, under their classic names."""

from __future__ import annotations

from typing import Any

import numpy as np


def matmul(lhs: Any, rhs: Any, out: Any, transa: int = 0, transb: int = 0) -> None:
    """out = lhs @ rhs over the last two axes, either transposed first."""
    a, b = np.asarray(lhs), np.asarray(rhs)
    a = np.swapaxes(a, -1, -2) if transa else a
    b = np.swapaxes(b, -1, -2) if transb else b
    np.matmul(a, b, out=np.asarray(out))


FUNCTIONS = {
    "tvm.contrib.cblas.matmul": matmul,
    "tvm.contrib.cblas.batch_matmul": matmul,
}
