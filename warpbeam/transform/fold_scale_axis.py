"""Moves per-channel scales into constant weights, so that they cost nothing at inference.

Backward: conv(x, w) * s = conv(x, w * s), through additions of constants, ReLU and pooling where s > 0.
Forward: conv(x * s, w) = conv(x, w * s') where s' runs along the input channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Node, map_children
from warpbeam.ir.rewrite import add_origins, origins, post_order
from warpbeam.ir.transform import Sequential, function_pass
from warpbeam.relay.expr import Call, Constant, Expr, Function
from warpbeam.relay.types import TensorType
from warpbeam.transform.canonicalize_ops import CanonicalizeOps
from warpbeam.transform.graph import constant, is_finished, op_name, same_call, use_counts
from warpbeam.transform.simplify_rules import axes_of

_CONV = tuple(f"nn.conv{n}d{t}" for n in (1, 2, 3) for t in ("", "_transpose"))
_POSITIVE = ("nn.relu", "nn.leaky_relu", *(f"nn.max_pool{n}d" for n in (1, 2, 3)), "nn.global_max_pool2d")
_LINEAR = tuple(f"nn.{g}avg_pool{n}d" for g in ("", "global_") for n in (1, 2, 3))


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """Factors along `axis` of a tensor; one factor for all where axis is None."""

    values: np.ndarray
    axis: int | None

    @property
    def positive(self) -> bool:
        return bool((self.values > 0).all())

    def along(self, ndim: int) -> np.ndarray:
        """The factors shaped to multiply a tensor of `ndim` dimensions."""
        if self.axis is None:
            return self.values.reshape(())
        shape = [1] * ndim
        shape[self.axis] = -1
        return self.values.reshape(shape)


def scale_of(node: Any, i: int) -> tuple[Expr, Scale] | None:
    """(x, scale) of a multiplication (or division) of x = operand 1-i by a constant per channel, operand i."""
    x, c = node.args[1 - i], node.args[i]
    if not isinstance(c, Constant) or isinstance(x, Constant) or x.ty is not node.ty or not dt.is_float(c.ty.dtype):
        return None
    array = c.numpy().astype(np.float64)
    if op_name(node) == "divide":
        if i == 0 or (array == 0).any():
            return None
        array = 1.0 / array
    array = array.reshape((1,) * (node.ty.ndim - array.ndim) + array.shape)
    wide = [a for a, d in enumerate(array.shape) if d != 1]
    if len(wide) > 1 or not np.isfinite(array).all():
        return None
    return x, Scale(array.reshape(-1), wide[0] if wide else None)


def _times(c: Constant, factor: np.ndarray) -> Constant:
    """The product, rounded once; NumPy widens block by block."""
    array = c.numpy()
    shape = np.broadcast_shapes(array.shape, factor.shape)
    wide = np.multiply(array, factor, out=np.empty(shape, array.dtype), dtype=np.float64, casting="same_kind")
    return constant(wide)


# ------------------------------------------------------------------------------------------------- weights of operators


def _scaled_output(node: Any, s: Scale) -> Call | None:
    """A contraction whose result is scaled along its output channels, by scaled weights."""
    name = op_name(node)
    if name not in (*_CONV, "nn.dense", "nn.matmul") or not isinstance(node.args[1], Constant):
        return None
    x, w = node.args
    ndim = w.ty.ndim
    if not dt.is_float(w.ty.dtype):
        return None
    if s.axis is None:
        return same_call(node, x, _times(w, s.along(ndim)))
    if name in _CONV:
        layout = node.attrs.get("out_layout") or node.attrs["data_layout"]
        grouped = name.endswith("_transpose") and node.attrs["groups"] != 1
        if s.axis != layout.index("C") or grouped:
            return None
        axis = node.attrs["kernel_layout"].index("O")
    elif s.axis != node.ty.ndim - 1 or ndim < 2:
        return None
    else:
        axis = ndim - 2 if name == "nn.dense" or node.attrs["transpose_b"] else ndim - 1
    return same_call(node, x, _times(w, Scale(s.values, axis).along(ndim)))


def _scaled_input(node: Any, x: Expr, s: Scale) -> Call | None:
    """A contraction on the unscaled `x`, its weights scaled along their input channels instead."""
    name, w = op_name(node), node.args[1]
    if not isinstance(w, Constant) or not dt.is_float(w.ty.dtype):
        return None
    ndim = w.ty.ndim
    if s.axis is None:
        return same_call(node, x, _times(w, s.along(ndim)))
    if name in _CONV:
        layout, groups = node.attrs["kernel_layout"], node.attrs["groups"]
        if s.axis != node.attrs["data_layout"].index("C"):
            return None
        if groups == 1 or name.endswith("_transpose"):
            return same_call(node, x, _times(w, Scale(s.values, layout.index("I")).along(ndim)))
        return same_call(node, x, _times(w, _grouped(s.values, w.ty.shape, layout, groups)))
    if s.axis != node.args[0].ty.ndim - 1 or ndim < 2 or (name == "nn.matmul" and node.attrs["transpose_a"]):
        return None
    axis = ndim - 1 if name == "nn.dense" or node.attrs["transpose_b"] else ndim - 2
    return same_call(node, x, _times(w, Scale(s.values, axis).along(ndim)))


def _grouped(values: np.ndarray, shape: tuple[int, ...], layout: str, groups: int) -> np.ndarray:
    """Factors of a grouped kernel: output channel o of group g reads input channels g * I … of the group."""
    o, i = shape[layout.index("O")], shape[layout.index("I")]
    table = np.repeat(values.reshape(groups, 1, i), o // groups, axis=1).reshape(o, i)
    if layout.index("O") > layout.index("I"):
        table = table.T
    return table.reshape([d if c in "OI" else 1 for c, d in zip(layout, shape, strict=True)])


# ----------------------------------------------------------------------------------------------------------- directions


def _step(node: Any, s: Scale) -> tuple[int, Scale, Callable[[Expr], Expr]] | None:
    """How a scale of a node's result passes to operand i: (i, the scale there, the node rebuilt on the new operand)."""
    name = op_name(node)
    if name in _LINEAR or (name in _POSITIVE and s.positive):
        return 0, s, lambda x: same_call(node, x)
    if name == "transpose":
        axis = None if s.axis is None else axes_of(node)[s.axis]
        return 0, Scale(s.values, axis), lambda x: same_call(node, x)
    if name in ("add", "subtract"):
        for i in (0, 1):
            x, c = node.args[i], node.args[1 - i]
            if isinstance(c, Constant) and x.ty is node.ty:
                new = _scaled_constant(c, s, node.ty.ndim)
                if new is not None:
                    return i, s, lambda y, i=i, c=new: same_call(node, *((y, c) if i == 0 else (c, y)))
    return None


def _scaled_constant(c: Constant, s: Scale, ndim: int) -> Constant | None:
    array = c.numpy().reshape((1,) * (ndim - c.numpy().ndim) + c.numpy().shape)
    factor = s.along(ndim)
    if array.size * factor.size > 1 << 20 and array.size < factor.size:
        return None
    return constant((array.astype(np.float64) * factor).astype(array.dtype))


def fold_backward(node: Any, counts: dict[Node, int]) -> Expr | None:
    """A multiplication by a constant, moved into the weights that produced its operand."""
    if op_name(node) not in ("multiply", "divide") or not isinstance(node.ty, TensorType):
        return None
    for i in (1, 0):
        found = scale_of(node, i)
        if found is None:
            continue
        x, s = found
        chain: list[Callable[[Expr], Expr]] = []
        while counts.get(x, 1) == 1:
            new: Any = _scaled_output(x, s)
            if new is not None:
                for rebuild in reversed(chain):
                    new = rebuild(new)
                return new  # type: ignore[no-any-return]
            step = _step(x, s)
            if step is None:
                break
            at, s, rebuild = step
            chain.append(rebuild)
            x = x.args[at]  # type: ignore[attr-defined]
    return None


def fold_forward(node: Any, counts: dict[Node, int]) -> Expr | None:
    """A contraction on a scaled operand, with the scale moved into its weights."""
    if op_name(node) not in (*_CONV, "nn.dense", "nn.matmul"):
        return None
    x, w = node.args
    chain: list[Call] = []
    while op_name(x) in ("nn.relu", "nn.leaky_relu") and counts.get(x, 1) == 1:
        chain.append(x)
        x = x.args[0]
    if op_name(x) not in ("multiply", "divide") or counts.get(x, 1) != 1 or not isinstance(w, Constant):
        return None
    for i in (1, 0):
        found = scale_of(x, i)
        if found is None or (chain and not found[1].positive):
            continue
        inner = found[0]
        for act in reversed(chain):
            inner = same_call(act, inner)
        return _scaled_input(node, inner, found[1])
    return None


def _sweep(fn: Function, fold: Callable[[Any, dict[Node, int]], Expr | None]) -> Function:
    """Rebuilds the body bottom up; `fold` sees each new call with use counts of the new graph so far."""
    old_counts = use_counts(fn.body)
    counts: dict[Node, int] = {}
    done: dict[Node, Node] = {}
    for node in post_order(fn.body, enter=lambda n: not (isinstance(n, Function) and is_finished(n))):
        closed = isinstance(node, Function) and is_finished(node)
        new: Any = node if closed else map_children(node, lambda c: done.get(c, c))
        folded = fold(new, counts) if isinstance(new, Call) else None
        if folded is not None and folded.ty is new.ty:
            for gone in new.args:
                if isinstance(gone, Call) and counts.get(gone, 0) <= 1:
                    add_origins(folded, origins(gone))
            new = folded
        if new is not node:
            add_origins(new, origins(node))
        done[node] = new
        counts[new] = counts.get(new, 0) + old_counts.get(node, 1)
    body = done[fn.body]
    return fn if body is fn.body else fn.replace(body=body)


@function_pass(opt_level=3, name="BackwardFoldScaleAxis", required=["InferType"])
def backward_fold_scale_axis(fn: Function, mod: Any, ctx: Any) -> Function:
    return _sweep(fn, fold_backward)


@function_pass(opt_level=3, name="ForwardFoldScaleAxis", required=["InferType"])
def forward_fold_scale_axis(fn: Function, mod: Any, ctx: Any) -> Function:
    return _sweep(fn, fold_forward)


def FoldScaleAxis() -> Sequential:
    """Both directions, after bias additions are plain additions."""
    from warpbeam.transform.table import find

    return Sequential(
        [CanonicalizeOps(), backward_fold_scale_axis, forward_fold_scale_axis],
        opt_level=3,
        name="FoldScaleAxis",
        lookup=find,
    )
