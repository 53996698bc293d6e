"""Computes a float32 model in a shorter type where an operator's entry in the table and the target allow it.

bf16: products of matrices and convolutions take bfloat16 operands and sum in float32, where the target has an
instruction for pairs (`tir.tensor_intrin`). fp16: numbers are kept in float16 and all is computed in float32.

    before: nn.dense(nn.relu(add(nn.dense(x, w0), b)), w1)                                     all float32
    after:  r = cast(nn.relu(add(nn.dense(cast(x, bf16), w0', out_dtype=float32), b)), bf16)   w0', w1': bfloat16
            nn.dense(r, w1', out_dtype=float32)

Where values are rounded: only what one kernel hands to another, once, where it is stored; arithmetic within a kernel
stays in float32. `fuse_ops.fused` says what will be a kernel, so each cast becomes part of the one before or after it.

The table (`CATEGORIES`) has three categories:
- "always": operands are wanted in the short type;
- "follow": operands are taken in whichever type they come; if nobody objects, they come short, as fewer bytes;
- "never": operands are not rounded for this operator's sake (they may be for another's that reads them too).
Operators that are not there are "never". `Request.overrides` changes entries for one compilation.

The model's inputs and outputs keep their types. Divisions by constants become products with their reciprocals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from warpbeam.ir import dtype as dt
from warpbeam.ir.diagnostics import IRError
from warpbeam.ir.node import map_children
from warpbeam.ir.rewrite import add_origins, origins
from warpbeam.ir.transform import Event, PassContext, function_pass
from warpbeam.op.nn_common import spatial_letters
from warpbeam.op.nn_conv import ConvNd
from warpbeam.op.nn_matmul import Contraction, Dense
from warpbeam.op.nn_winograd import WinogradNd
from warpbeam.relay.expr import Call, Constant, Expr, Function, Tuple, TupleGetItem
from warpbeam.relay.op import Op
from warpbeam.relay.types import TensorType, TupleType
from warpbeam.sketch.divide import LEAST
from warpbeam.target import Target, get
from warpbeam.tir.tensor_intrin.dots import DOTS
from warpbeam.topi.nn.common import arrange
from warpbeam.transform.fuse_ops import fused
from warpbeam.transform.graph import call, constant, op_name, same_call

PRECISION = "warpbeam.precision"
ATTRIBUTE = "precision"  # of a function: the request that it was changed by, as text
TYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
ALWAYS, FOLLOW, NEVER = "always", "follow", "never"

#: operators that move numbers and compute none: they work in the type that they are given
MOVES = frozenset({
    "broadcast_to", "concatenate", "copy", "expand_dims", "gather", "gather_nd", "nn.depth_to_space", "nn.pad",
    "nn.space_to_depth", "repeat", "reshape", "reverse", "split", "squeeze", "stack", "strided_slice", "take", "tile",
    "transpose",
})  # fmt: skip
#: operators that read short numbers, compute in float32 by themselves, and round their results to the type they read
WIDENS = frozenset(
    f"nn.{scope}{kind}_pool{n}d" for n in (1, 2, 3) for scope in ("", "global_") for kind in ("max", "avg")
)

CATEGORIES: dict[str, str] = {
    **{f"nn.conv{n}d": ALWAYS for n in (1, 2, 3)},
    **{f"nn.contrib_conv{n}d_winograd_without_weight_transform": ALWAYS for n in (1, 2, 3)},
    **dict.fromkeys(("nn.dense", "nn.matmul", "nn.batch_matmul"), ALWAYS),
    **dict.fromkeys(sorted(MOVES | WIDENS), FOLLOW),
    **dict.fromkeys((
        "abs", "add", "clip", "maximum", "minimum", "multiply", "negative", "nn.bias_add", "nn.leaky_relu", "nn.prelu",
        "nn.relu", "sigmoid", "subtract", "tanh", "where",
    ), FOLLOW),
    **dict.fromkeys((
        "exp", "log", "power", "sqrt", "rsqrt", "divide", "erf", "sum", "mean", "variance", "prod", "max", "min",
        "cumsum", "logsumexp", "nn.softmax", "nn.log_softmax", "nn.layer_norm", "nn.rms_norm", "nn.group_norm",
        "nn.instance_norm", "nn.lrn", "nn.l2_normalize", "nn.mean_variance_norm",
    ), NEVER),
}  # fmt: skip

_SMALL = 4096  # numbers that stay in the first-level cache are not rounded without need


@dataclass(frozen=True)
class Request:
    """A precision by its short name, and entries of the table that are to be others.

    As text: "bf16", or "bf16,nn.dense=never,nn.softmax=follow".
    """

    name: str = "fp32"
    overrides: Mapping[str, str] = field(default_factory=dict)

    @property
    def dtype(self) -> str:
        return TYPES[self.name]

    def __str__(self) -> str:
        return ",".join([self.name, *(f"{k}={v}" for k, v in sorted(self.overrides.items()))])


def parse(text: Any) -> Request:
    """A request from its text.

    Raises:
        IRError: if there is no such precision, operator or category.
    """
    if isinstance(text, Request):
        return text
    name, *rest = str(text).replace(" ", "").split(",")
    if name not in TYPES:
        raise IRError(f"precision {text!r}", hint=f'it is one of {", ".join(TYPES)}, such as precision="bf16"')
    from warpbeam.op.table import OPS

    overrides: dict[str, str] = {}
    for entry in rest:
        which, _, category = entry.partition("=")
        if category not in (ALWAYS, FOLLOW, NEVER) or which not in OPS:
            hint = f"write OPERATOR={ALWAYS}, ={FOLLOW} or ={NEVER}, such as bf16,nn.softmax={FOLLOW}"
            raise IRError(f"precision {text!r}: {entry!r} is no operator with a category", hint=hint)
        overrides[which] = category
    return Request(name, overrides)


def requested(ctx: PassContext | None = None) -> Request:
    """What the context (by default the current one) asks for."""
    return parse((ctx or PassContext.current()).config.get(PRECISION, "fp32"))


@function_pass(opt_level=0, name="ToMixedPrecision", required=["InferType"])
class ToMixedPrecision:
    """A float32 function in a shorter type, by the table above.

    precision: "bf16", "fp16", with overrides where wanted, or "fp32" (nothing changes); None: as the PassContext says.
    target: the machine whose instructions count; by default this one.
    """

    def __init__(self, precision: Any = None, target: Target | None = None) -> None:
        self.request = None if precision is None else parse(precision)
        self.target = target

    def transform_function(self, fn: Function, mod: Any, ctx: PassContext) -> Function:
        request = requested(ctx) if self.request is None else self.request
        if request.name == "fp32":
            return fn
        return _Rounding(fn, request, get("native") if self.target is None else self.target, ctx).function()


class _Rounding:
    """One function's values: which are stored short, and the function with the casts."""

    def __init__(self, fn: Function, request: Request, target: Target, ctx: PassContext) -> None:
        self.fn, self.request, self.ctx = fn, request, ctx
        self.short = request.dtype
        self.fuser = fused(fn)
        self.order = self.fuser.graph.order
        self.users = self.fuser.graph.users
        self.pairs = pairs_of(self.short, target)
        self.wishes: dict[Expr, str] = {}
        self.new: dict[Expr, Expr] = {}
        self.counts = {"products": 0, "weights": 0, "rounded": 0}

    # ------------------------------------------------------------------------------------------------------- decisions

    def category(self, node: Any) -> str:
        name = op_name(node)
        return self.request.overrides.get(name) or CATEGORIES.get(name, NEVER)

    def in_pairs(self, node: Any) -> bool:
        """Whether a product multiplies pairs of short numbers by the target's instruction."""
        return _in_pairs(node, self.pairs)

    def odd(self, node: Call) -> bool:
        """Whether pairs are made of taps and channels together."""
        return bool(_depth(node) % self.pairs)

    def wish(self, user: Any, value: Expr) -> str:
        """In which type an operand is wanted: "always" short, "never", or "follow" for no matter."""
        if isinstance(user, TupleGetItem):
            return self.wishes[user]
        if not isinstance(user, Call) or not isinstance(user.op, Op):
            return NEVER
        category = self.category(user)
        if _product(user) or _grouped(user):
            if category == NEVER:
                return NEVER
            if not self.in_pairs(user) or self.odd(user):
                return NEVER  # each number would be converted once per use, or is rounded where zeros are put in
            return category
        if category == FOLLOW and user.op.name in MOVES:
            return self.wishes[user]
        if category == FOLLOW and _is_broadcast(user, value):
            return NEVER  # a cast of another shape than the kernel's would be a kernel of its own
        return category

    def decide(self) -> None:
        """What is wanted of each value: short if one user wants it so, else long if one user does."""
        for node in reversed(self.order):
            found = [self.wish(u, node) for u in self.users.get(node, [])]
            if node is self.fn.body:
                found.append(NEVER)
            self.wishes[node] = ALWAYS if ALWAYS in found else NEVER if NEVER in found else FOLLOW

    def rounds(self, node: Any) -> bool:
        """Whether a result is stored in the short type."""
        if not isinstance(node, Call) or node not in self.fuser.groups or not isinstance(node.ty, TensorType):
            return False
        group = self.fuser.groups[node].root()
        inside = all(u in self.fuser.groups and self.fuser.groups[u].root() is group for u in self.users.get(node, []))
        if inside and node in self.users:
            return False
        wish = self.wishes[node]
        return wish == ALWAYS or (wish == FOLLOW and _count(node) >= _SMALL and bool(self.users.get(node)))

    # -------------------------------------------------------------------------------------------------------- rewriting

    def function(self) -> Function:
        self.decide()
        for node in self.order:
            new = self.rewritten(node)
            if _float32(new) and self.rounds(node):
                new = self.cast(new, self.short)
                self.counts["rounded"] += 1
            if new is not node:
                add_origins(new, origins(node))
            self.new[node] = new
        body = self.fn.body
        new = self.new[body]
        if not isinstance(new, Tuple):
            new = self.wide(body)
        self.ctx.emit(Event("precision", "", data={"precision": str(self.request), "dtype": self.short, **self.counts}))
        attrs = self.fn.attrs.updated(**{ATTRIBUTE: str(self.request)})
        return self.fn if new is body and attrs == self.fn.attrs else self.fn.replace(body=new, attrs=attrs)

    def rewritten(self, node: Any) -> Any:
        """A node on its new operands; its result is short only where its operands are and it moves or widens them."""
        if isinstance(node, Function):
            return node
        if isinstance(node, TupleGetItem):
            return map_children(node, lambda a: self.new.get(a, a))  # type: ignore[call-overload]
        if not isinstance(node, Call) or not isinstance(node.op, Op):
            return map_children(node, self.wide)
        name = node.op.name
        if name == "cast":
            return same_call(node, *[self.new[a] for a in node.args])
        if isinstance(node.op, Contraction | ConvNd | WinogradNd) and self.category(node) != NEVER:
            return self.product(node)
        if name in WIDENS and self.category(node) == FOLLOW:
            return same_call(node, *[self.new[a] for a in node.args])
        if name in MOVES and self.category(node) == FOLLOW:
            return self.moved(node)
        factor = _reciprocal(node) if name == "divide" else None
        return self.same(node) if factor is None else call("multiply", self.wide(node.args[0]), factor)

    def same(self, node: Call) -> Call:
        """The operator in float32."""
        args = [self.wide(a) for a in node.args]
        return node if all(a is b for a, b in zip(args, node.args, strict=True)) else same_call(node, *args)

    def moved(self, node: Call) -> Call:
        """An operator that moves numbers, in the short type if an operand is short."""
        floats = [a for a in node.args if _float32(a) or self.is_short(self.new[a])]
        constants = [isinstance(a, Constant) for a in floats]
        ready = any(self.is_short(self.new[a]) for a in floats)
        table = all(constants) and bool(floats) and self.wishes[node] != NEVER and _count(node.args[0]) >= _SMALL
        if not ready and not table:
            return self.same(node)
        return same_call(node, *[self.narrow(a) if any(a is f for f in floats) else self.new[a] for a in node.args])

    def product(self, node: Call) -> Any:
        """A product of short operands, or of short weights with operands in float32, summed in float32."""
        pairs = self.in_pairs(node)
        if not (_weighted(node) and _float32(node) and _float32(node.args[1])) or not (pairs or _product(node)):
            return self.windows(node)
        data, weight = node.args
        assert isinstance(weight, Constant)
        if pairs and self.category(node) == FOLLOW:
            pairs = self.is_short(self.new[data])
        self.counts["products" if pairs else "weights"] += 1
        short = weight.numpy().astype(dt.to_numpy(self.short))
        if pairs and self.odd(node):
            return self.runs(node, self.new[data], short)
        x = self.narrow(data) if pairs else self.wide(data)
        planes = {"plane_dtype": self.short} if pairs and isinstance(node.op, WinogradNd) else {}
        return same_call(node, x, constant(short), out_dtype="float32", **planes)

    def runs(self, node: Call, x: Any, w: Any) -> Any:
        """A convolution of few channels: the taps of a row and their channels are one run of numbers, which pairs
        divide; a run of odd length gets a weight of zero, and rows a number for it to read.

        (n, h, w, c) by (kh, kw, c, o)   ->   (n, h, w * c, 1) by (kh, kw * c, 1, o), strides (sh, sw * c)
        """
        assert isinstance(node.op, ConvNd)
        letters, moves = spatial_letters(node.op.nd), node.op.windows(node.attrs)
        data, kernel, _ = node.op.maps(node.attrs)
        around = dict(zip(letters, zip(moves.begins, moves.ends, strict=True), strict=True))
        before, after = around["W"]
        channels = x.ty.shape[-1]
        extra = -(w.shape[kernel["W"]] * channels) % self.pairs  # numbers that a run reads beyond its own
        borders = {**around, "W": (before, after - (-extra // channels)), "N": (0, 0), "C": (0, 0)}
        zero = constant(np.zeros((), dt.to_numpy(x.ty.dtype)))
        x = self.cast(call("nn.pad", x, zero, pad_width=arrange(data, borders)), self.short)
        *lead, wide, _ = x.ty.shape
        x = call("reshape", x, newshape=(*lead, wide * channels, 1))
        w = w.transpose([kernel[c] for c in letters + "IO"])
        w = w.reshape(*w.shape[: len(letters) - 1], -1, 1, w.shape[-1])
        w = np.pad(w, [(0, extra if k == len(letters) - 1 else 0) for k in range(w.ndim)])
        strides = (*moves.strides[:-1], moves.strides[-1] * channels)
        out = call(
            node.op.name, x, constant(w), strides=strides, dilation=moves.dilation, padding=0,
            data_layout=node.attrs["data_layout"], kernel_layout=letters + "IO", out_dtype="float32",
        )  # fmt: skip
        assert out.ty.shape[:-1] == node.ty.shape[:-1]
        return out

    def windows(self, node: Call) -> Call:
        """A product without constant weights, or depthwise: the data in the type it comes in, if it can convert it."""
        depthwise = isinstance(node.op, ConvNd) and not _grouped(node)
        if depthwise and _float32(node) and self.is_short(self.new[node.args[0]]):
            return same_call(node, self.new[node.args[0]], self.wide(node.args[1]), out_dtype="float32")
        return self.same(node)

    # ------------------------------------------------------------------------------------------------------------ types

    def is_short(self, x: Expr) -> bool:
        return isinstance(x.ty, TensorType) and x.ty.dtype == self.short

    def wide(self, node: Any) -> Any:
        """The new form of a value in the type it had."""
        new = self.new.get(node, node)
        if new is node or new.ty == node.ty:
            return new
        if isinstance(new.ty, TupleType):
            return Tuple(tuple(self.cast(TupleGetItem(new, i), t.dtype) for i, t in enumerate(node.ty.fields)))
        return self.cast(new, node.ty.dtype)

    def narrow(self, node: Any) -> Any:
        """The new form of a float32 value in the short type."""
        new = self.new[node]
        return self.cast(new, self.short) if _float32(new) else new

    def cast(self, x: Any, dtype: str) -> Any:
        if x.ty.dtype == dtype:
            return x
        if isinstance(x, Constant):
            return constant(x.numpy().astype(dt.to_numpy(dtype)))
        return call("cast", x, dtype=dtype, flush=True) if dtype == "bfloat16" else call("cast", x, dtype=dtype)


# -------------------------------------------------------------------------------------------------------------- helpers


def pairs_of(short: str, target: Target) -> int:
    """How many neighbours of a type an instruction of the target multiplies and sums in float32; 0 without one."""
    have = set(target.required_features)
    kind = (short, short, "float32")
    found = [d.group for d in DOTS.values() if (d.a, d.b, d.result) == kind and set(d.requires) <= have]
    return max(found, default=0)


def _float32(x: Any) -> bool:
    return isinstance(x.ty, TensorType) and x.ty.dtype == "float32"


def _count(x: Expr) -> float:
    """Elements; infinite where a size is not known."""
    assert isinstance(x.ty, TensorType)
    return math.prod(d if isinstance(d, int) else math.inf for d in x.ty.shape) if 0 not in x.ty.shape else 0


def _reciprocal(node: Call) -> Constant | None:
    """1 / c for a division by a float32 constant: off by half a unit of float32, which no short number shows."""
    c = node.args[1]
    if not isinstance(c, Constant) or not _float32(c):
        return None
    with np.errstate(all="ignore"):
        found = np.asarray(np.float32(1) / c.numpy())
    normal = np.isfinite(found) & (np.abs(found) >= np.finfo(np.float32).tiny)
    return constant(found) if bool(normal.all()) else None


def _is_broadcast(user: Call, value: Expr) -> bool:
    return isinstance(user.ty, TensorType) and isinstance(value.ty, TensorType) and _count(value) < _count(user)


def _plain_conv(node: Any) -> bool:
    """Whether a call is a convolution in one group."""
    return isinstance(node, Call) and isinstance(node.op, ConvNd) and node.attrs["groups"] == 1


def _grouped(node: Any) -> bool:
    """Whether a call is a convolution by groups that sums over channels (a depthwise one does not)."""
    several = isinstance(node, Call) and isinstance(node.op, ConvNd) and node.attrs["groups"] > 1
    return several and node.args[0].ty.shape[node.op.maps(node.attrs)[0]["C"]] != node.attrs["groups"]


def _product(node: Any) -> bool:
    """Whether a call is a product of matrices, or a convolution in one group."""
    return _plain_conv(node) or (isinstance(node, Call) and isinstance(node.op, Contraction | WinogradNd))


def _weighted(node: Call) -> bool:
    """Whether a call is a product, or a convolution by groups, with constant weights of two dimensions or more."""
    known = isinstance(node.op, ConvNd) or _product(node)
    return known and isinstance(node.args[1], Constant) and node.args[1].ty.ndim > 1


def _in_pairs(node: Any, pairs: int) -> bool:
    """Whether a product can multiply groups of so many short numbers by one instruction (0: there is none)."""
    if not pairs or not _weighted(node) or not _float32(node.args[0]):
        return False
    depth = _depth(node)
    if _grouped(node) and node.args[1].ty.shape[node.op.maps(node.attrs)[1]["O"]] // node.attrs["groups"] < LEAST:
        return False  # vectors go over several groups then, and no instruction does
    return isinstance(depth, int) and (depth % pairs == 0 or (depth > pairs and _in_runs(node)))


def takes_pairs(node: Call, request: Request, target: Target) -> bool:
    """Whether `ToMixedPrecision` will make pairs of short numbers of the channels of a float32 convolution."""
    pairs = pairs_of(request.dtype, target)
    wanted = request.overrides.get(node.op.name, CATEGORIES.get(node.op.name)) == ALWAYS
    return wanted and _in_pairs(node, pairs) and _depth(node) % pairs == 0


def _depth(node: Call) -> Any:
    """Neighbours in memory that a product sums over: channels, or the summed axis of matrices; None if apart."""
    data = node.args[0].ty
    assert isinstance(data, TensorType)
    if isinstance(node.op, ConvNd):
        channels = data.shape[-1] if node.attrs["data_layout"].endswith("C") else None
        return channels // node.attrs["groups"] if isinstance(channels, int) else channels
    if isinstance(node.op, WinogradNd):
        return data.shape[-1] if node.attrs["data_layout"].endswith("C") else None
    if isinstance(node.op, Dense):
        return data.shape[-1]
    return data.shape[-1] if data.ndim > 1 and not node.attrs["transpose_a"] else None


def _in_runs(node: Call) -> bool:
    """Whether taps along a row and their channels are one run in memory: dense windows over channels-last data."""
    if not _plain_conv(node):
        return False
    layout = "N" + spatial_letters(node.op.nd) + "C"
    moves = node.op.windows(node.attrs)
    plain = node.attrs["data_layout"] == layout and node.attrs["out_layout"] in ("", layout)
    constant_sizes = all(isinstance(d, int) for d in node.args[0].ty.shape[1:])
    return plain and constant_sizes and moves.dilation[-1] == 1 and min(*moves.begins, *moves.ends) >= 0
