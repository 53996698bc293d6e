"""Half floats that a product would widen at each use are widened once, on the way to it.

    before: nn.conv2d(x, w)                                                                     all float16
    after:  cast(nn.conv2d(cast(x, "float32"), w'), "float16")                                  w': w as float32

A product of half floats sums in float32 and rounds at its end, here as there. Without an instruction that multiplies
them, each number is converted whenever it is used: for one row of data once, for more of them as often as there are
tiles. Weights of a convolution are few, and become float32 while compiling; it may be one of fewer products then. Those
of a matrix product stay as they are, half as many bytes to read: a vector of them is converted for all rows of a tile.
"""

from __future__ import annotations

from typing import Any

from warpbeam.ir.node import Node
from warpbeam.ir.rewrite import add_origins, origins
from warpbeam.ir.transform import function_pass
from warpbeam.op.nn_conv import ConvNd
from warpbeam.op.nn_matmul import Contraction
from warpbeam.relay.expr import Call, Constant, Expr, Function
from warpbeam.sketch.base import supposed
from warpbeam.target import Target, get
from warpbeam.topi import dims
from warpbeam.topi.common import HALF, accumulation
from warpbeam.transform.graph import cast, rewrite_function, same_call
from warpbeam.transform.to_mixed_precision import pairs_of

_ROWS = 2  # from which on numbers are used again: one row takes 0.85 of the time as it is
_TURNED = 8  # the same, where the right operand is no constant and is written in full, too


@function_pass(opt_level=2, name="WidenProducts", required=["InferType"])
class WidenProducts:
    """Products of half floats read float32; target: the machine whose instructions count; by default this one."""

    def __init__(self, target: Target | None = None) -> None:
        self.target = target

    def transform_function(self, fn: Function, mod: Any, ctx: Any) -> Function:
        target = get("native") if self.target is None else self.target
        pairs = {k: pairs_of(k, target) > 0 for k in HALF}
        return rewrite_function(fn, lambda n: _widened(n, pairs))


def _widened(n: Node, pairs: dict[str, bool]) -> Expr | None:
    """pairs: by type, whether an instruction multiplies such numbers by constants that lie in pairs."""
    if not isinstance(n, Call) or not isinstance(n.op, ConvNd | Contraction) or n.ty.dtype not in pairs:
        return None
    if pairs[n.ty.dtype] and isinstance(n.args[1], Constant):
        return None
    wide = accumulation(n.ty.dtype)
    if any(a.ty.dtype not in (n.ty.dtype, wide) for a in n.args):
        return None
    x, w = n.args
    if isinstance(n.op, ConvNd):
        if _depthwise(n):
            return None
        w = cast(w, wide)
    else:
        rows = supposed(dims.prod(n.ty.shape[:-1] if w.ty.ndim == 2 else n.ty.shape[-2:-1]))
        if rows < (_ROWS if isinstance(w, Constant) else _TURNED):
            return None
        w = w if isinstance(w, Constant) else cast(w, wide)
    product = same_call(n, cast(x, wide), w, out_dtype=wide)
    made = cast(product, n.ty.dtype)
    for new in (product, made):
        add_origins(new, origins(n))
    return made


def _depthwise(n: Call) -> bool:
    """Whether each channel is on its own: hardly anything is used again."""
    data, _, _ = n.op.maps(n.attrs)  # type: ignore[attr-defined]
    return bool(n.attrs["groups"] > 1 and n.args[0].ty.shape[data["C"]] == n.attrs["groups"])
