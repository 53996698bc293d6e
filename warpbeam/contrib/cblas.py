"""`contrib.cblas`: matrix products by a library, as operations of te. The library is NumPy's BLAS.

The programs call registered functions ("tvm.contrib.cblas.matmul"), so they run where Python runs.
"""

from __future__ import annotations

from typing import Any

from warpbeam import te
from warpbeam.te.tensor import Tensor
from warpbeam.tir.op import call_packed

__all__ = ["batch_matmul", "matmul"]


def matmul(lhs: Tensor, rhs: Tensor, transa: bool = False, transb: bool = False, **kwargs: Any) -> Tensor:
    """lhs @ rhs of two matrices, either transposed first; `kwargs` go to `te.extern`."""
    n = lhs.shape[1] if transa else lhs.shape[0]
    m = rhs.shape[0] if transb else rhs.shape[1]
    return _extern("tvm.contrib.cblas.matmul", (n, m), lhs, rhs, transa, transb, kwargs)


def batch_matmul(lhs: Tensor, rhs: Tensor, transa: bool = False, transb: bool = False, **kwargs: Any) -> Tensor:
    """lhs[b] @ rhs[b] for every b, either transposed first; `kwargs` go to `te.extern`."""
    n = lhs.shape[2] if transa else lhs.shape[1]
    m = rhs.shape[1] if transb else rhs.shape[2]
    return _extern("tvm.contrib.cblas.batch_matmul", (lhs.shape[0], n, m), lhs, rhs, transa, transb, kwargs)


def _extern(
    name: str, shape: tuple[Any, ...], lhs: Tensor, rhs: Tensor, transa: bool, transb: bool, kwargs: dict[str, Any]
) -> Tensor:
    out: Tensor = te.extern(
        shape, [lhs, rhs], lambda ins, outs: call_packed(name, ins[0], ins[1], outs[0], transa, transb),
        **{"name": "C", **kwargs},
    )  # fmt: skip
    return out
