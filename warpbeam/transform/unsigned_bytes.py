"""Signed bytes that products multiply by constant ones become unsigned where the instruction takes those only.

conv(x, w)     ->     conv(x + 128, w) + (-128 * sum(w))          exact modulo 2^32, as the sums themselves

The instruction for signed bytes offsets each element as it is used, and multiplies the offset by the weights again in
each tile. Here the sums of the weights are constants, and elements are offset once: where they are made, as others that
read them (a residual, say) take the offset off again on the way.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from warpbeam.ir.node import Node, map_children
from warpbeam.ir.rewrite import add_origins, origins, post_order
from warpbeam.ir.transform import function_pass
from warpbeam.op.nn_common import spatial_letters
from warpbeam.op.nn_conv import ConvNd
from warpbeam.relay.expr import Call, Constant, Expr, Function, Var, const
from warpbeam.tir.tensor_intrin.dots import DOTS, signed_by_offset
from warpbeam.transform.graph import call, constant, is_finished, op_name, same_call

_TOP = -128  # as a byte, the bit that 128 more flips


def offsets_bytes(target: Any) -> bool:
    """Whether a target multiplies signed bytes only by way of unsigned ones."""
    have = set(target.required_features)
    found = [d for d in DOTS.values() if d.requires and set(d.requires) <= have and d.result == "int32"]
    return any(d.a == "int8" for d in found) and all(d.step is signed_by_offset for d in found if d.a == "int8")


@function_pass(opt_level=2, name="UnsignedBytes", required=["InferType"])
class UnsignedBytes:
    """Offsets the left operands of products of signed bytes by 128."""

    def transform_function(self, fn: Function, mod: Any, ctx: Any) -> Function:
        nodes = list(post_order(fn.body, enter=lambda n: not (isinstance(n, Function) and is_finished(n))))
        products = {n for n in nodes if _is_product(n)}
        if not products:
            return fn
        made = {_inner(n.args[0]) for n in products}
        made = {x for x in made if not isinstance(x, Var | Constant)}  # others read those as they are
        done: dict[Node, Any] = {}
        for n in nodes:
            new = map_children(n, lambda c: done.get(c, c))
            if n in products:
                new = _offset(new)
                add_origins(new, origins(n))
            done[n] = _signed(_unsigned(new)) if n in made else new
        return fn.replace(body=done[fn.body])


def _is_product(n: Any) -> bool:
    """Whether a call is a product of signed bytes by constant ones, with a sum for each of its last axes' columns."""
    if not isinstance(n, Call) or len(n.args) != 2 or getattr(n.ty, "dtype", "") != "int32":
        return False
    x, w = n.args
    if x.ty.dtype != "int8" or not isinstance(w, Constant) or w.ty.dtype != "int8":
        return False
    attrs = n.attrs
    if isinstance(n.op, ConvNd):
        letters = spatial_letters(n.op.nd)
        plain = attrs["data_layout"] == "NC" + letters and attrs["kernel_layout"] == "OI" + letters
        moves = n.op.windows(attrs)
        bare = all(isinstance(p, int) and p == 0 for p in (*moves.begins, *moves.ends))
        return plain and bare and not attrs["out_layout"] and attrs["groups"] == 1
    if op_name(n) == "nn.dense":
        return x.ty.ndim > 1
    return (
        op_name(n) == "nn.matmul"
        and w.ty.ndim == 2 < 1 + x.ty.ndim
        and not (attrs["transpose_a"] or attrs["transpose_b"])
    )


def _inner(x: Expr) -> Expr:
    """What is padded, if the operand is."""
    return x.args[0] if op_name(x) == "nn.pad" and isinstance(x.args[1], Constant) else x  # type: ignore[attr-defined, no-any-return]


def _offset(n: Call) -> Expr:
    """A product with its left operand offset, less what that adds."""
    x, w = n.args
    assert isinstance(w, Constant)
    weights = w.numpy().astype(np.int64)
    if isinstance(n.op, ConvNd):
        sums = weights.reshape(len(weights), -1).sum(1).reshape(-1, *[1] * n.op.nd)
    else:
        sums = weights.sum(-1 if op_name(n) == "nn.dense" else 0)
    return call("add", same_call(n, _unsigned(x), w), constant((_TOP * sums).astype(np.int32)))


def _unsigned(x: Expr) -> Expr:
    """x + 128, of bytes."""
    if op_name(x) == "bitwise_xor" and op_name(x.args[0]) == "cast" and x.args[0].args[0].ty.dtype == "uint8":  # type: ignore[attr-defined]
        return x.args[0].args[0]  # type: ignore[attr-defined, no-any-return]
    if op_name(x) == "nn.pad" and isinstance(x.args[1], Constant):  # type: ignore[attr-defined]
        border = x.args[1].numpy() ^ np.int8(_TOP)  # type: ignore[attr-defined]
        return same_call(x, _unsigned(x.args[0]), constant(np.asarray(border).view(np.uint8)))  # type: ignore[attr-defined, arg-type]
    return call("cast", call("bitwise_xor", x, const(_TOP, "int8")), dtype="uint8")


def _signed(x: Expr) -> Expr:
    """x - 128, of bytes."""
    return call("bitwise_xor", call("cast", x, dtype="int8"), const(_TOP, "int8"))
