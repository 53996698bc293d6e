"""Tensor expressions: what each element of a tensor is, and nothing about order.

For instance:
    A = te.placeholder((n, 32), "float32", "A")
    B = te.compute((n, 32), lambda i, j: A[i, j] * 2.0, "B")
"""

from warpbeam.te.create import create_prim_func
from warpbeam.te.tensor import (
    ComputeOp,
    Operation,
    PlaceholderOp,
    Tensor,
    all_of,
    any_of,
    comm_reducer,
    compute,
    max,
    max_value,
    min,
    min_value,
    placeholder,
    prod,
    reduce_axis,
    size_var,
    sum,
    var,
)

__all__ = [
    "ComputeOp", "Operation", "PlaceholderOp", "Tensor", "all_of", "any_of", "comm_reducer", "compute",
    "create_prim_func", "max", "max_value", "min", "min_value", "placeholder", "prod", "reduce_axis", "size_var", "sum",
    "var",
]  # fmt: skip
