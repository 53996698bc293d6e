"""Products of few results over very long sums, such as the gradients of small weights, in parts of the sum.

    y = matmul(a, b, transpose_a=True)     ->     y = sum(batch_matmul(a', b', transpose_a=True), axis=0)
    a (K, M), b (K, N)                            a' (P, K/P, M), b' (P, K/P, N), which lie as before

A product leaves its cores blocks of the result, of which there are few here; parts of the sum are as many more, each
with operands of its own, read from end to end. Their number depends on the sizes alone, so that the result is the same
for any number of cores; errors are those of shorter sums.
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Node
from warpbeam.ir.rewrite import add_origins, origins
from warpbeam.ir.transform import function_pass
from warpbeam.relay.expr import Call, Expr, Function
from warpbeam.sketch.base import extent
from warpbeam.transform.graph import call, op_name, rewrite_function

_RESULTS = 128 * 128  # at most: more of them are enough for the cores, and parts of them much to write
_STEPS = 4096  # of a sum, at least
_BYTES = 2 << 20  # of both operands, at least
_PARTS = (8, 16, 12, 10, 6, 4)  # the first that divides


@function_pass(opt_level=2, name="SplitProducts", required=["InferType"])
class SplitProducts:
    """Cuts long sums of products with few results into parts."""

    def transform_function(self, fn: Function, mod: Any, ctx: Any) -> Function:
        return rewrite_function(fn, _split)


def _split(n: Node) -> Expr | None:
    if not isinstance(n, Call) or op_name(n) != "nn.matmul" or not n.attrs["transpose_a"] or n.attrs["transpose_b"]:
        return None
    a, b = n.args
    if a.ty.ndim != 2 or b.ty.ndim != 2 or n.ty.dtype not in ("float32", "float64"):
        return None
    if not a.ty.dtype == b.ty.dtype == n.ty.dtype:
        return None
    steps, rows, columns = (extent(d) for d in (*a.ty.shape, b.ty.shape[1]))
    if steps is None or rows is None or columns is None or not 0 < rows * columns <= _RESULTS or steps < _STEPS:
        return None
    parts = next((p for p in _PARTS if steps % p == 0), 0)
    if not parts or steps * (rows + columns) * dt.nbytes(n.ty.dtype) < _BYTES:
        return None
    left = call("reshape", a, newshape=(parts, steps // parts, rows))
    right = call("reshape", b, newshape=(parts, steps // parts, columns))
    product = call("nn.batch_matmul", left, right, transpose_a=True, transpose_b=False, out_dtype=n.attrs["out_dtype"])
    made = call("sum", product, axis=(0,), keepdims=False)
    for new in (product, made):
        add_origins(new, origins(n))
    return made
