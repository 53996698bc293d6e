"""Products of dequantised tensors become products of the bytes themselves, for targets that have an instruction.

conv((xq - zx) * sx, (wq - zw) * sw)     ->     float(conv(xq - zx, wq - zw)) * (sx * sw)

with sums in int32, exact where the float32 sums round. Scale and zero point of the data are single numbers; the
weights are constant, with one scale or one per output.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from warpbeam.ir.node import Node
from warpbeam.ir.rewrite import add_origins, origins
from warpbeam.ir.transform import function_pass
from warpbeam.op.integer_products import integer_conv, integer_matmul
from warpbeam.op.nn_common import spatial_letters
from warpbeam.op.nn_conv import ConvNd
from warpbeam.relay.expr import Call, Constant, Expr, Function
from warpbeam.tir.tensor_intrin.dots import DOTS, Dot
from warpbeam.transform.graph import call, op_name, rewrite_function

BYTES = ("int8", "uint8")


class Steps(NamedTuple):
    """A tensor (values - zero) * scale."""

    values: Expr
    scale: Expr
    zero: Expr | None


def byte_dots(target: Any) -> list[Dot]:
    """The instructions by which a target multiplies bytes into int32 sums."""
    have = set(target.required_features)
    found = [d for d in DOTS.values() if d.requires and set(d.requires) <= have]
    return [d for d in found if d.group == 4 and d.result == "int32"]


def has_dots(target: Any) -> bool:
    """Whether a target multiplies bytes into int32 sums by one instruction."""
    return bool(byte_dots(target))


@function_pass(opt_level=2, name="IntegerProducts")
class IntegerProducts:
    """Convolutions, dense layers and matrix products of dequantised bytes in integers."""

    def transform_function(self, fn: Function, mod: Any, ctx: Any) -> Function:
        return rewrite_function(fn, expand_call)


def steps(x: Any) -> Steps | None:
    """The parts of a dequantised tensor of bytes."""
    if op_name(x) != "multiply":
        return None
    wide, scale = x.args
    if op_name(wide) != "cast" or wide.ty.dtype != "float32":
        return None
    whole, zero = wide.args[0], None
    if op_name(whole) == "subtract":
        whole, zero = whole.args
    if op_name(whole) != "cast" or whole.ty.dtype != "int32" or whole.args[0].ty.dtype not in BYTES:
        return None
    if zero is not None:
        if op_name(zero) != "cast" or zero.args[0].ty.dtype != whole.args[0].ty.dtype:
            return None
        zero = zero.args[0]
    return Steps(whole.args[0], scale, zero)


def expand_call(node: Node) -> Expr | None:
    """The integer form of a product of two dequantised tensors, or None."""
    if not isinstance(node, Call) or len(node.args) != 2 or getattr(node.ty, "dtype", "") != "float32":
        return None
    name = op_name(node)
    if not isinstance(node.op, ConvNd) and name not in ("nn.dense", "nn.matmul"):
        return None
    x, w = (steps(a) for a in node.args)
    if x is None or w is None or not isinstance(w.values, Constant):
        return None
    if x.scale.ty.ndim or (x.zero is not None and x.zero.ty.ndim):
        return None
    new = _conv(node, x, w) if isinstance(node.op, ConvNd) else _matmul(node, x, w)
    if new is not None:
        add_origins(new, origins(node))
    return new


def _conv(node: Call, x: Steps, w: Steps) -> Expr | None:
    op, attrs = node.op, node.attrs
    letters = spatial_letters(op.nd)
    plain = attrs["data_layout"] == "NC" + letters and attrs["kernel_layout"] == "OI" + letters
    if not plain or attrs["out_layout"] or attrs["groups"] != 1:
        return None
    outputs, rank = w.values.ty.shape[0], op.nd
    ok = [p is None or _along_first(p, outputs) for p in (w.scale, w.zero)]
    if not all(ok):
        return None
    moves = op.windows(attrs)
    rest = {"strides": tuple(moves.strides), "dilation": tuple(moves.dilation), "groups": 1}
    zero = None if w.zero is None or not w.zero.ty.ndim else call("reshape", w.zero, newshape=(outputs,))
    total = integer_conv(
        x.values, w.values, x.zero, w.zero if zero is None else zero, (*moves.begins, *moves.ends), rest
    )
    scale = w.scale if not w.scale.ty.ndim else call("reshape", w.scale, newshape=(outputs, *[1] * rank))
    return call("multiply", call("cast", total, dtype="float32"), call("multiply", x.scale, scale))


def _along_first(p: Expr, outputs: Any) -> bool:
    """Whether a parameter is one number, or one for each index of the first axis."""
    shape = p.ty.shape
    return not shape or (shape[0] == outputs and all(d == 1 for d in shape[1:]) and len(shape) > 1)


def _matmul(node: Call, x: Steps, w: Steps) -> Expr | None:
    """Weights (K, N) or, of a dense layer, (N, K)."""
    dense = op_name(node) == "nn.dense"
    if not dense and (node.attrs["transpose_a"] or node.attrs["transpose_b"]):
        return None
    if w.values.ty.ndim != 2 or x.values.ty.ndim < 2:
        return None
    values = w.values
    parameters: list[Expr | None] = []
    for p in (w.scale, w.zero):
        if p is None or not p.ty.ndim:
            parameters.append(p)
            continue
        shape = p.ty.shape
        if len(shape) != 2 or shape[1 if dense else 0] != 1:
            return None
        parameters.append(call("reshape", p, newshape=(shape[0 if dense else 1],)))
    if dense:
        assert isinstance(values, Constant)
        values = Constant(values.numpy().T.copy())
    scale, zero = parameters
    assert scale is not None
    total = integer_matmul(x.values, values, x.zero, zero)
    return call("multiply", call("cast", total, dtype="float32"), call("multiply", x.scale, scale))
