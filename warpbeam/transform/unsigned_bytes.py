"""Signed bytes that products multiply by constant ones become unsigned where the instruction takes those only.

conv(x, w)     ->     conv(x + 128, w) + (-128 * sum(w))          exact modulo 2^32, as the sums themselves

The instruction for signed bytes offsets each element as it is used, and multiplies the offset by the weights again in
each tile. Here the sums of the weights are constants, and elements are offset once: where they are rounded to bytes,
if whatever else reads them (a residual, say) can take the offset off on the way, or where a border is put around them.
Bytes that go on as such (into a concatenation, maxima, a result) keep their sign: taking it off would be a kernel.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from warpbeam.ir.node import Node, children, map_children
from warpbeam.ir.rewrite import add_origins, origins, post_order
from warpbeam.ir.transform import function_pass
from warpbeam.op.nn_common import spatial_letters
from warpbeam.op.nn_conv import ConvNd
from warpbeam.relay.expr import Call, Constant, Expr, Function, const
from warpbeam.tir.tensor_intrin.dots import signed_by_offset
from warpbeam.transform.graph import call, constant, is_finished, op_name, same_call
from warpbeam.transform.integer_products import BYTES, byte_dots

_TOP = -128  # as a byte, the bit that 128 more flips


def offsets_bytes(target: Any) -> bool:
    """Whether a target multiplies signed bytes only by way of unsigned ones."""
    steps = {d.step for d in byte_dots(target) if d.a == "int8"}
    return steps == {signed_by_offset}


@function_pass(opt_level=2, name="UnsignedBytes", required=["InferType"])
class UnsignedBytes:
    """Offsets the left operands of products of signed bytes by 128, where that takes no kernel of its own."""

    def transform_function(self, fn: Function, mod: Any, ctx: Any) -> Function:
        nodes = list(post_order(fn.body, enter=lambda n: not (isinstance(n, Function) and is_finished(n))))
        found = _Found(fn, nodes)
        if not found.products:
            return fn
        known: dict[Node, Expr] = {}  # what stands for elements less 128 -> the elements
        done: dict[Node, Any] = {}
        for n in nodes:
            new = map_children(n, lambda c: done.get(c, c))
            if new is not n:
                add_origins(new, origins(n))
            if n in found.products:
                new = _offset(new, known)
            if n in found.made:
                small = _unsigned(new, known)
                new = call("bitwise_xor", call("cast", small, dtype="int8"), const(_TOP, "int8"))
                for each in (small, new):
                    add_origins(each, origins(n))
                known[new] = small
            done[n] = new
        return fn.replace(body=done[fn.body])


class _Found:
    """products: whose left operands are offset; made: those of them that are offset where they are made."""

    def __init__(self, fn: Function, nodes: list[Any]) -> None:
        self.readers: dict[Any, list[Any]] = {fn.body: [fn]}
        for n in nodes:
            for c in children(n):
                self.readers.setdefault(c, []).append(n)
        able = {n for n in nodes if _is_product(n)}
        left = {_inner(n.args[0]) for n in able}
        self.made = {x for x in left if _is_rounded(x) and all(self._fits(r, x, able) for r in self.readers[x])}
        self.products = {n for n in able if n.args[0] in self.made or self._is_border(n.args[0], able)}

    def _fits(self, reader: Any, x: Expr, able: set[Any]) -> bool:
        """Whether what reads a value can take elements with the offset, or take it off on the way."""
        return op_name(reader) == "cast" or (reader in able and reader.args[0] is x) or self._is_border(reader, able)

    def _is_border(self, x: Any, able: set[Any]) -> bool:
        """Whether a value is padded for products only: it is a kernel's in any case."""
        return _inner(x) is not x and all(r in able for r in self.readers[x])


def _is_rounded(x: Any) -> bool:
    """Whether a kernel makes bytes of something else."""
    return op_name(x) == "cast" and x.args[0].ty.dtype not in BYTES


def _is_product(n: Any) -> bool:
    """Whether a call is a product of signed bytes by constant ones, with a sum for each of its last axes' columns."""
    conv = isinstance(n, Call) and isinstance(n.op, ConvNd)
    if not conv and op_name(n) not in ("nn.dense", "nn.matmul"):
        return False
    x, w = n.args
    if (x.ty.dtype, w.ty.dtype, n.ty.dtype) != ("int8", "int8", "int32") or not isinstance(w, Constant):
        return False
    attrs = n.attrs
    if conv:
        letters = spatial_letters(n.op.nd)
        plain = attrs["data_layout"] == "NC" + letters and attrs["kernel_layout"] == "OI" + letters
        moves = n.op.windows(attrs)
        bare = all(isinstance(p, int) and p == 0 for p in (*moves.begins, *moves.ends))
        return plain and bare and not attrs["out_layout"] and attrs["groups"] == 1
    turned = op_name(n) == "nn.matmul" and (attrs["transpose_a"] or attrs["transpose_b"])
    return x.ty.ndim > 1 and w.ty.ndim == 2 and not turned


def _inner(x: Any) -> Any:
    """What is padded by one number, if the operand is."""
    return x.args[0] if op_name(x) == "nn.pad" and isinstance(x.args[1], Constant) else x


def _offset(n: Call, known: dict[Node, Expr]) -> Expr:
    """A product with its left operand offset, less what that adds."""
    x, w = n.args
    assert isinstance(w, Constant)
    weights = w.numpy().astype(np.int64)
    if isinstance(n.op, ConvNd):
        sums = weights.reshape(len(weights), -1).sum(1).reshape(-1, *[1] * n.op.nd)
    else:
        sums = weights.sum(-1 if op_name(n) == "nn.dense" else 0)
    new = same_call(n, _unsigned(x, known), w)
    out = call("add", new, constant((_TOP * sums).astype(np.int32)))
    for each in (new, out):
        add_origins(each, origins(n))
    return out


def _unsigned(x: Any, known: dict[Node, Expr]) -> Expr:
    """x + 128, of bytes."""
    if x in known:
        return known[x]
    if _inner(x) is x:
        return call("cast", call("bitwise_xor", x, const(_TOP, "int8")), dtype="uint8")
    border = np.asarray(x.args[1].numpy() ^ np.int8(_TOP)).view(np.uint8)
    new = same_call(x, _unsigned(x.args[0], known), constant(border))
    add_origins(new, origins(x))
    return new
