"""Right operands of products that are no constants and lie with what is summed along their rows are turned first.

    y = dense(x, w)                          ->     y = matmul(x, transpose(w))
    y = conv2d(x, w) of channels last        ->     y = conv2d(x, transpose(w)), kernel_layout HWIO

A product takes vectors of columns, and a vector of such an operand would be gathered element by element. Constants are
put in order while compiling; anything else is turned once, which reads and writes it, where enough rows use it
(`sketch.dots` takes fewer of them along both operands' rows). Fusion may still turn it panel by panel in the product.
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Node
from warpbeam.ir.rewrite import add_origins, origins
from warpbeam.ir.transform import function_pass
from warpbeam.relay.expr import Call, Constant, Expr, Function
from warpbeam.sketch.base import supposed
from warpbeam.sketch.dots import MOST_ROWS
from warpbeam.topi import dims
from warpbeam.transform.graph import call, op_name, rewrite_function, same_call


@function_pass(opt_level=2, name="TurnProducts", required=["InferType"])
class TurnProducts:
    """Turns right operands of floating-point products that are no constants."""

    def transform_function(self, fn: Function, mod: Any, ctx: Any) -> Function:
        return rewrite_function(fn, _turned)


def _turned(n: Node) -> Expr | None:
    name = op_name(n)
    if name in ("nn.conv1d", "nn.conv2d", "nn.conv3d") and isinstance(n, Call):
        return _weights_turned(n)
    if name not in ("nn.dense", "nn.matmul", "nn.batch_matmul") or not isinstance(n, Call):
        return None
    x, w = n.args
    plain = dt.is_float(x.ty.dtype) and x.ty.ndim > 1 and w.ty.ndim > 1
    if isinstance(w, Constant) or not plain or not (name == "nn.dense" or n.attrs["transpose_b"]):
        return None
    left, summed = bool(n.attrs.get("transpose_a")), x.ty.ndim - 1
    rows = [d for k, d in enumerate(x.ty.shape) if k != summed - left]
    # those that share one right operand: with a batch on its side, those of each
    if not left and supposed(dims.prod(rows if w.ty.ndim == 2 else rows[-1:])) <= MOST_ROWS:
        return None
    last = w.ty.ndim - 1
    axes = (*range(last - 1), last, last - 1)
    right = w.args[0] if op_name(w) == "transpose" and tuple(w.attrs["axes"] or ()) == axes else None
    right = call("transpose", w, axes=axes) if right is None else right
    kind = {"transpose_a": left, "transpose_b": False} if name != "nn.dense" else {}
    made = call("nn.matmul" if name == "nn.dense" else name, x, right, out_dtype=n.attrs["out_dtype"], **kind)
    add_origins(made, origins(n))
    return made


def _weights_turned(n: Call) -> Expr | None:
    """A convolution over maps with their channels last, with those of the result last in its weights, too."""
    x, w = n.args
    kernel, data = n.attrs["kernel_layout"], n.attrs["data_layout"]
    if isinstance(w, Constant) or not dt.is_float(x.ty.dtype) or n.attrs["groups"] != 1:
        return None
    if not data.endswith("C") or kernel[-1] == "O":
        return None
    taps = [d for c, d in zip(kernel, w.ty.shape, strict=True) if c not in "IO"]
    if all(d == 1 for d in taps) and supposed(dims.prod(n.ty.shape[:-1])) <= MOST_ROWS:  # a product of few rows
        return None
    order = [*(k for k, c in enumerate(kernel) if c not in "IO"), kernel.index("I"), kernel.index("O")]
    made = same_call(n, x, call("transpose", w, axes=tuple(order)), kernel_layout="".join(kernel[k] for k in order))
    add_origins(made, origins(n))
    return made
