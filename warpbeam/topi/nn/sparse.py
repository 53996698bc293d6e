"""Products with a sparse matrix: rows of stored elements (CSR) or of stored blocks (BSR)."""

from __future__ import annotations

from typing import Any

from warpbeam.te import tensor as te
from warpbeam.te.extern import extern
from warpbeam.tir import expr as E
from warpbeam.tir.stmt import BufferStore, For, Stmt, seq
from warpbeam.topi import dims
from warpbeam.topi.common import Caller


def sparse_dense(
    dense_data: te.Tensor,
    sparse_data: te.Tensor,
    sparse_indices: te.Tensor,
    sparse_indptr: te.Tensor,
    sparse_lhs: bool = False,
) -> Any:
    """dense (M, K) by a sparse (N, K) matrix, transposed: (M, N); with sparse_lhs sparse by dense: (N, M).

    sparse_data (count,), sparse_indices (count,) the columns, sparse_indptr (N + 1,) where each row begins; blocks:
    sparse_data (count, rows, columns), indices and indptr counting blocks.
    """
    who = Caller("nn.sparse_dense")
    if dense_data.ndim != 2 or sparse_data.ndim not in (1, 3):
        raise who.error(f"dense of {dense_data.ndim} and sparse of {sparse_data.ndim} dimensions", "2, and 1 or 3")
    if sparse_data.dtype != dense_data.dtype:
        raise who.error(f"dense is {dense_data.dtype}, sparse is {sparse_data.dtype}")
    rows, columns = sparse_data.shape[1:] if sparse_data.ndim == 3 else (1, 1)
    count = dims.dim((sparse_indptr.shape[0] - 1) * rows)
    shape = (count, dense_data.shape[0]) if sparse_lhs else (dense_data.shape[0], count)

    def program(ins: Any, outs: Any) -> Stmt:
        dense, data, indices, indptr = ins
        blocks = (rows, columns) if sparse_data.ndim == 3 else None
        return _rows(dense, (data, indices, indptr), outs[0], blocks, sparse_lhs)

    inputs = [dense_data, sparse_data, sparse_indices, sparse_indptr]
    return extern(shape, inputs, program, name="sparse_dense", dtype=dense_data.dtype, tag="sparse_dense")


def _rows(dense: E.Buffer, stored: Any, out: E.Buffer, shape: Any, sparse_lhs: bool) -> Stmt:
    """for m, n: out = 0, then add the products of row n's stored elements."""
    (data, indices, indptr), block = stored, shape or (1, 1)
    m, n, e, c = (E.Var(v) for v in "mnec")
    row = n // block[0]
    start = E.cast("int64", indptr[row])
    place = start + e
    value = data[place, n % block[0], c] if shape else data[place]
    column = E.cast("int64", indices[place]) * block[1] + c if shape else E.cast("int64", indices[place])
    at = (n, m) if sparse_lhs else (m, n)
    add: Stmt = BufferStore(out, out[at] + dense[m, column] * value, at)
    if shape:
        add = For(c, 0, block[1], "serial", add)
    extent = E.cast("int64", indptr[row + 1]) - start
    body = seq(BufferStore(out, E.const(0, out.dtype), at), For(e, 0, extent, "serial", add))
    count = out.shape[0 if sparse_lhs else 1]
    return For(m, 0, dense.shape[0], "serial", For(n, 0, count, "serial", body))
