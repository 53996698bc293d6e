"""Operands of products that are no constants and lie the wrong way are turned first.

    y = dense(x, w)                          ->     y = matmul(x, transpose(w))
    y = conv2d(x, w) of channels last        ->     y = conv2d(x, transpose(w)), kernel_layout HWIO

A product takes vectors of columns, and a vector of such an operand would be gathered element by element. Constants are
put in order while compiling; anything else is turned once, which reads and writes it, where enough rows use it
(`sketch.dots` takes fewer of them along both operands' rows). Fusion may still turn it panel by panel in the product.

    y = matmul(x, w, transpose_a=True)     ->     y = matmul(transpose(x), w)

A left operand that lies so is read where it is: a few neighbours of each of its rows, one row after the other; so is
what the model turns itself, as gradients of weights do. Only where it is beyond the caches and its rows are a power of
two apart is it turned, too: nothing fetches them ahead then, and few of them stay (8192 rows of 1024: 0.5 of the speed
of a turned one; of 1536 or of 1000: 1.0 and more).
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Node
from warpbeam.ir.rewrite import add_origins, origins
from warpbeam.ir.transform import function_pass
from warpbeam.relay.expr import Call, Constant, Expr, Function
from warpbeam.sketch.base import extent, supposed
from warpbeam.sketch.dots import MOST_ROWS
from warpbeam.topi import dims
from warpbeam.transform.graph import call, op_name, rewrite_function, same_call

_FAR_BYTES = 12 << 20  # of a left operand that no cache keeps for long
_PITCH = (1024, 4096)  # bytes from one of its rows to the next, a power of two: its lines share few places
_ACROSS = ("float32", "float64")  # whose products take steps one by one, wherever they lie
_COLUMNS = 128  # of the result: with 64 to turn it takes longer than it saves (measured on Zen 4)


@function_pass(opt_level=2, name="TurnProducts", required=["InferType"])
class TurnProducts:
    """Turns operands of floating-point products that are no constants."""

    def transform_function(self, fn: Function, mod: Any, ctx: Any) -> Function:
        return rewrite_function(fn, _turned)


def _turned(n: Node) -> Expr | None:
    name = op_name(n)
    if name in ("nn.conv1d", "nn.conv2d", "nn.conv3d") and isinstance(n, Call):
        return _weights_turned(n)
    if name not in ("nn.dense", "nn.matmul", "nn.batch_matmul") or not isinstance(n, Call):
        return None
    x, w = n.args
    if not dt.is_float(x.ty.dtype) or x.ty.ndim < 2 or w.ty.ndim < 2:
        return None
    left, right = bool(n.attrs.get("transpose_a")), name == "nn.dense" or bool(n.attrs["transpose_b"])
    turned = not (left or right or isinstance(w, Constant)) and x.ty.dtype in _ACROSS and x.ty.ndim == 2 and _is_swap(x)
    if turned:  # where the right operand lies as it should: few rows take one that does not along both operands' rows
        x, left = _swapped(x), True
    turn_left, turn_right = left and _crowded(x, n.ty.shape[-1]), right and _gathered(x, w, left)
    if turned == turn_left and not turn_right:
        return None
    operands = _swapped(x) if turn_left else x, _swapped(w) if turn_right else w
    kinds = {"transpose_a": left and not turn_left, "transpose_b": right and not turn_right}
    made = call("nn.matmul" if name == "nn.dense" else name, *operands, out_dtype=n.attrs["out_dtype"], **kinds)
    add_origins(made, origins(n))
    return made


def _gathered(x: Expr, w: Expr, left: bool) -> bool:
    """Whether a right operand that lies along what is summed is no constant, and enough rows use it."""
    if isinstance(w, Constant):
        return False
    summed = x.ty.ndim - 1
    rows = [d for k, d in enumerate(x.ty.shape) if k != summed - left]
    # those that share one right operand: with a batch on its side, those of each
    return left or supposed(dims.prod(rows if w.ty.ndim == 2 else rows[-1:])) > MOST_ROWS


def _crowded(x: Expr, columns: Any) -> bool:
    """Whether a left operand that lies across what is summed is beyond all caches, its rows begin at few places of
    them, and enough columns use it.
    """
    steps, rows = (extent(d) for d in x.ty.shape[-2:])
    pitch = (rows or 0) * dt.nbytes(x.ty.dtype)
    far = (steps or 0) * pitch >= _FAR_BYTES and supposed(columns) >= _COLUMNS
    return far and _PITCH[0] <= pitch <= _PITCH[1] and pitch & (pitch - 1) == 0


def _swapped(x: Expr) -> Expr:
    """`x` with its last two axes swapped; where it is such a thing, what it was made of."""
    return x.args[0] if _is_swap(x) else call("transpose", x, axes=_swap(x))  # type: ignore[attr-defined,no-any-return]


def _is_swap(x: Expr) -> bool:
    """Whether `x` is something with its last two axes swapped."""
    return op_name(x) == "transpose" and tuple(x.attrs["axes"] or reversed(range(x.ty.ndim))) == _swap(x)  # type: ignore[attr-defined]


def _swap(x: Expr) -> tuple[int, ...]:
    """All axes, the last two swapped."""
    return (*range(x.ty.ndim - 2), x.ty.ndim - 1, x.ty.ndim - 2)


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
