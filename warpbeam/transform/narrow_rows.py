"""Rows of which only some are read are not computed.

    h = x + dense(gelu(dense(norm(x))))          ->     x' = x[:1]
    y = h[:1]                                           y = x' + dense(gelu(dense(norm(x'))))

A classifier reads one token of the last layer, a decoder's next step the last one. What is read is followed from slices
towards the inputs, through operators whose results along an axis are made of the same place of their operands: what
works element by element or along other axes, products along the axes of their rows, transposed and reshaped tensors.
A tensor of which different consumers read different parts is computed as a whole, and sliced for those that read less.

Slices move only where that makes a product shorter, and not between a product and what is written with its results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from warpbeam.ir.node import Node, children, map_children
from warpbeam.ir.rewrite import add_origins, origins, post_order
from warpbeam.ir.transform import function_pass
from warpbeam.op.base import Elementwise, Reduce
from warpbeam.relay.expr import Call, Expr, Function
from warpbeam.relay.types import TensorType
from warpbeam.sketch.base import supposed
from warpbeam.topi import dims
from warpbeam.topi.common import norm_axes
from warpbeam.transform.graph import call, constant, is_finished, op_name, same_call, splat, use_counts
from warpbeam.transform.simplify_rules import axes_of

_PRODUCTS = ("nn.matmul", "nn.batch_matmul", "nn.dense")
_BY_ROWS = ("nn.layer_norm", "nn.rms_norm", "nn.softmax", "nn.log_softmax")  # attribute axis: what is not by rows
_WITH_RESULTS = (*_PRODUCTS, "nn.conv1d", "nn.conv2d", "nn.conv3d")  # what follows is computed where they are written


@dataclass(frozen=True, slots=True)
class Cut:
    """`count` neighbours from `begin` on along an axis; index: that of the one element that is asked for by it."""

    axis: int
    begin: Any
    count: Any
    index: int | None = None

    def same(self, other: Cut | None) -> bool:
        return (
            other is not None
            and (self.axis, self.index) == (other.axis, other.index)
            and dims.same(self.begin, other.begin) is True
            and dims.same(self.count, other.count) is True
        )

    def along(self, axis: int) -> Cut:
        return Cut(axis, self.begin, self.count, self.index)

    def of(self, x: Expr) -> Call:
        """This part of a tensor. That there is an element to index is checked by the operator that does so."""
        if self.index is not None:
            return call("take", x, constant(np.asarray([self.index])), axis=self.axis)
        return call("strided_slice", x, begin=[self.begin], end=[dims.dim(self.begin + self.count)], axes=[self.axis])


@function_pass(opt_level=2, name="NarrowRows", required=["InferType"])
class NarrowRows:
    """Moves slices in front of the products whose results they take."""

    def transform_function(self, fn: Function, mod: Any, ctx: Any) -> Function:
        if is_finished(fn):
            return fn
        order = list(post_order(fn.body))
        if not any(_slice(n) for n in order):
            return fn
        read = _read(fn.body, order)
        _keep_with_results(order, read, use_counts(fn.body))
        _only_with_products(read)
        return fn.replace(body=_rebuilt(fn.body, order, read)) if read else fn


def _slice(n: Any) -> Cut | None:
    """What a slice along one axis takes, or a constant index of an open one, where that is at most half."""
    if op_name(n) == "take":
        return _indexed(n)
    if op_name(n) != "strided_slice":
        return None
    shape = n.args[0].ty.shape
    cuts = [(axis, p) for axis, p in n.op.plan(n.attrs, shape).items() if dims.same(p[1], shape[axis]) is not True]
    if len(cuts) != 1 or cuts[0][1][2] != 1:
        return None
    axis, (begin, count, _) = cuts[0]
    return Cut(axis, begin, count) if 2 * supposed(count) <= supposed(shape[axis]) else None


def _indexed(n: Any) -> Cut | None:
    """The one element along an open axis that a constant takes."""
    x, index = n.args
    axis, at = n.attrs["axis"], splat(index)
    if axis is None or at is None or index.ty.ndim or n.attrs["batch_dims"] or n.attrs["mode"] != "clip":
        return None
    axis, at = axis % x.ty.ndim, int(at)
    size = x.ty.shape[axis]
    if isinstance(size, int) or supposed(size) < 2:
        return None
    return Cut(axis, at if at >= 0 else dims.dim(size + at), 1, at)


def _read(body: Expr, order: Sequence[Any]) -> dict[Any, Cut]:
    """The calls of whose result all consumers read the same part, and that part."""
    read: dict[Any, Cut | None] = {body: None}

    def wanted(x: Any, cut: Cut | None) -> None:
        read[x] = cut if cut is not None and (x not in read or cut.same(read[x])) else None

    for n in reversed(order):
        cut = read.get(n)
        operands = None if cut is None else _operands(n, cut)
        if operands is not None:
            for x, part in zip(n.args, operands, strict=True):
                wanted(x, part)
            continue
        read[n], own = None, _slice(n)
        for x in children(n):
            wanted(x, own if own is not None and x is n.args[0] else None)
    return {n: cut for n, cut in read.items() if cut is not None}


def _operands(n: Any, cut: Cut) -> list[Cut | None] | None:
    """What a part of a result is made of: for each operand a part of it, or None for the whole. None where an operator
    does not go by places of the axis.
    """
    name = op_name(n)
    if not name or not all(isinstance(a.ty, TensorType) for a in n.args):
        return None
    axis, types, last = cut.axis, [a.ty for a in n.args], n.ty.ndim - 1
    rest: list[Cut | None] = [None] * (len(types) - 1)
    if isinstance(n.op, Elementwise):
        return _aligned(n, cut, types)
    if isinstance(n.op, Reduce):
        gone = n.op.axes(n.attrs, types[0].ndim)
        left = [d for d in range(types[0].ndim) if d not in gone or n.attrs["keepdims"]]
        return [cut.along(left[axis])] if left[axis] not in gone else None
    if name in _BY_ROWS:
        return [cut, *rest] if axis not in norm_axes(n.op, n.attrs["axis"], last + 1) else None
    if name == "nn.bias_add":
        return [cut, None] if axis != n.attrs["axis"] % (last + 1) else None
    if name in _PRODUCTS:
        return _of_product(n, cut, types)
    if name == "transpose":
        return [cut.along(axes_of(n)[axis])]
    if name == "reshape":
        return _of_reshape(n, cut)
    return None


def _aligned(n: Any, cut: Cut, types: Sequence[Any]) -> list[Cut | None] | None:
    """Operands that broadcast: those that have the axis are cut along it, those that are 1 there stay. None where it is
    not known which.
    """
    found: list[Cut | None] = []
    for t in types:
        k = cut.axis - n.ty.ndim + t.ndim
        if k < 0 or (isinstance(t.shape[k], int) and t.shape[k] == 1):
            found.append(None)
        elif dims.same(t.shape[k], n.ty.shape[cut.axis]) is True:
            found.append(cut.along(k))
        else:
            return None
    return found


def _of_product(n: Any, cut: Cut, types: Sequence[Any]) -> list[Cut | None] | None:
    """Rows of a product are made of rows of its left operand; what is along other axes, of both."""
    last = n.ty.ndim - 1
    if cut.axis == last:
        return None
    if n.op.name == "nn.dense":
        return [cut, None] if types[0].ndim == n.ty.ndim else None
    if min(t.ndim for t in types) < 2:
        return None
    if cut.axis < last - 1:
        return _aligned(n, cut, types)
    rows = types[0].ndim - (1 if n.attrs.get("transpose_a") else 2)
    return [cut.along(rows), None]


def _of_reshape(n: Any, cut: Cut) -> list[Cut | None] | None:
    """The axis of the operand that is the same one: as long, with as many elements before it and behind it."""
    old, new = n.args[0].ty.shape, n.ty.shape
    before = dims.prod(new[: cut.axis])
    for k, size in enumerate(old):
        if dims.same(size, new[cut.axis]) is True and dims.same(dims.prod(old[:k]), before) is True:
            return [cut.along(k)]
    return None


def _keep_with_results(order: Sequence[Any], read: dict[Any, Cut], uses: dict[Node, int]) -> None:
    """What is written with the results of a product that stays whole stays with it; so does what that reads."""
    again = True
    while again:
        stay = [
            n for n in order
            if n in read and op_name(n) not in _PRODUCTS
            and any(x not in read and uses[x] == 1 and op_name(x) in _WITH_RESULTS for x in n.args)
        ]  # fmt: skip
        again = bool(stay)
        while stay:
            n = stay.pop()
            cut = read.pop(n, None)
            if cut is not None:
                stay += [x for x, part in zip(n.args, _operands(n, cut) or (), strict=True) if part is not None]


def _only_with_products(read: dict[Any, Cut]) -> None:
    """Leaves out what no product is among: chains of calls each of which reads a part of the next."""
    near: dict[Any, list[Any]] = {n: [] for n in read}
    for n, cut in read.items():
        for x, part in zip(n.args, _operands(n, cut) or (), strict=True):
            if part is not None and x in near:
                near[n].append(x)
                near[x].append(n)
    found: set[Any] = set()
    todo = [n for n in read if op_name(n) in _PRODUCTS]
    while todo:
        n = todo.pop()
        if n not in found:
            found.add(n)
            todo += near[n]
    for n in [n for n in read if n not in found]:
        del read[n]


def _rebuilt(body: Expr, order: Sequence[Any], read: dict[Any, Cut]) -> Any:
    """The body with the calls of which a part is read as that part."""
    made: dict[Node, Any] = {}
    cuts: dict[Any, Call] = {}

    def part(x: Any, cut: Cut) -> Any:
        """A part of a value: what was made of it, where that is this part already."""
        if cut.same(read.get(x)):
            return made[x]
        key = x, cut.axis, cut.begin, cut.count
        if key not in cuts:
            cuts[key] = cut.of(made[x])
        return cuts[key]

    for n in order:
        cut, own = read.get(n), _slice(n)
        if cut is not None:
            made[n] = _narrow(n, cut, part, made)
        elif own is not None and own.same(read.get(n.args[0])):
            made[n] = made[n.args[0]] if own.index is None else call("reshape", made[n.args[0]], newshape=n.ty.shape)
        else:
            made[n] = map_children(n, lambda c: made.get(c, c))
        if made[n] is not n:
            add_origins(made[n], origins(n))
    return made[body]


def _narrow(n: Any, cut: Cut, part: Callable[[Any, Cut], Any], made: dict[Node, Any]) -> Call:
    """A part of a call's result, of parts of its operands."""
    operands = zip(n.args, _operands(n, cut) or (), strict=True)
    args = [made[x] if p is None else part(x, p) for x, p in operands]
    if op_name(n) != "reshape":
        return same_call(n, *args)
    shape = list(n.ty.shape)
    shape[cut.axis] = cut.count
    return same_call(n, *args, newshape=tuple(shape))
