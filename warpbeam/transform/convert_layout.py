"""Assigns channels-last layouts to convolutional networks, so that channels are contiguous for vector loads and stores.

One walk, operands first. Convolutions and pooling ask for channels last; everything else goes along with its operands
as far as layout_rules.py knows how; what remains gets plain operands through transposes, one per value. Transposes that
were in the program are views of permuted values and cancel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from warpbeam.ir.diagnostics import UnsupportedError
from warpbeam.ir.node import Node, map_children
from warpbeam.ir.rewrite import add_origins, origins, post_order
from warpbeam.ir.transform import function_pass
from warpbeam.relay.expr import Call, Constant, Expr, Function, Tuple, TupleGetItem
from warpbeam.relay.op import Op
from warpbeam.relay.types import TensorType, TupleType
from warpbeam.target import Target, get
from warpbeam.transform import choose_layout
from warpbeam.transform.graph import call, constant, op_name
from warpbeam.transform.layout_rules import Perm, Value, is_one, rule_for
from warpbeam.transform.simplify_rules import axes_of

_SYMBOLIC = 8  # what an unknown dimension counts for in costs


class Converter:
    """Values of one function in their new layouts."""

    def __init__(self, only: frozenset[str] | None, target: Target, pictures: bool, pairs: int) -> None:
        self.only = only
        self.target = target
        self.pictures = pictures
        self.pairs = pairs
        self.plain: dict[Any, bool] = {}
        self.done: dict[Node, Value] = {}
        self.made: dict[tuple[Expr, tuple[int, ...]], Expr] = {}

    def wanted(self, n: Call) -> bool:
        """Whether an operator may ask for a layout."""
        return self.only is None or op_name(n) in self.only

    def keeps_plain(self, n: Call, last: str) -> bool:
        """Whether a convolution does not ask for channels last; one answer for all that are alike."""
        key = n.op, n.attrs, n.args[0].ty, n.args[1].ty
        if key not in self.plain:
            self.plain[key] = choose_layout.plain(n, self.target, last, self.pairs)
        return self.plain[key]

    def reads_plain(self, n: Call) -> bool:
        """Whether a convolution takes plain data as it is and only makes a result with channels last."""
        given = self.done[n.args[0]]
        plain = given.perm is None and op_name(given.node) != "transpose"  # that and its reverse cancel
        return plain and self.pictures and self.only is None and choose_layout.reads_plain(n, self.target)

    def perm(self, old: Expr) -> Perm:
        """The order in which an old value is held."""
        return self.done[old].perm

    def turned(self, old: Expr, perm: tuple[int, ...]) -> bool:
        """Whether a plain value is the transpose of one that is in the order `perm`."""
        node = self.done[old].node
        return op_name(node) == "transpose" and [axes_of(node)[d] for d in perm] == list(range(len(perm)))

    def common_perm(self, n: Call, ndim: int) -> Perm:
        """The order of the largest permuted operand of `ndim` dimensions; constants do not count."""
        best: Perm = None
        size = 0.0
        for a in n.args:
            perm = self.done[a].perm if a.ty.ndim == ndim else None
            if perm is not None and _elements(a.ty) > size:
                best, size = perm, _elements(a.ty)
        return best

    def get(self, old: Expr, perm: Perm) -> Any:
        """The new node that holds an old value in the order `perm`."""
        value = self.done[old]
        if value.perm == perm:
            return value.node
        if isinstance(old.ty, TupleType):  # what several tensors are made of by one call: each of them in that order
            parts = (TupleGetItem(value.node, k) for k in range(len(old.ty.fields)))
            return Tuple(tuple(self._ordered(p, f.ndim, value.perm, perm) for p, f in zip(parts, old.ty.fields)))
        return self._ordered(value.node, old.ty.ndim, value.perm, perm)

    def _ordered(self, node: Any, ndim: int, have: Perm, want: Perm) -> Any:
        """A tensor in the order `want`, of one in the order `have`."""
        now, then = have or tuple(range(ndim)), want or tuple(range(ndim))
        return self.transposed(node, tuple(now.index(d) for d in then))

    def transposed(self, x: Expr, axes: tuple[int, ...]) -> Any:
        """transpose(x, axes): computed for constants, composed with a transpose below, a reshape where only 1s move."""
        if axes == tuple(range(len(axes))):
            return x
        key = (x, axes)
        if key not in self.made:
            self.made[key] = _transpose(x, axes)
            add_origins(self.made[key], origins(x))
        return self.made[key]

    def visit(self, node: Any) -> None:
        """Holds a node in its new layout."""
        new = self._convert(node)
        if new.node is not node:
            add_origins(new.node, origins(node))
        self.done[node] = new

    def _convert(self, node: Any) -> Value:
        if isinstance(node, Function):
            return Value(node, None)
        if isinstance(node, Call) and isinstance(node.op, Op) and all(isinstance(a.ty, TensorType) for a in node.args):
            rule = rule_for(node)
            found = rule(self, node) if rule is not None else None
            if found is not None:
                return found
        if isinstance(node, TupleGetItem) and self.done[node.tuple_value].perm is not None:
            whole = self.done[node.tuple_value]
            return Value(TupleGetItem(whole.node, node.index), whole.perm)
        return Value(map_children(node, self._plain), None)

    def _plain(self, child: Node) -> Node:
        value = self.done.get(child)
        if value is None:
            return child
        return value.node if value.perm is None else self.get(child, None)  # type: ignore[arg-type]


def _transpose(x: Any, axes: tuple[int, ...]) -> Expr:
    if isinstance(x, Constant):
        return constant(x.numpy().transpose(axes))
    if op_name(x) == "transpose":
        inner = axes_of(x)
        axes = tuple(inner[a] for a in axes)
        x = x.args[0]
        if axes == tuple(range(len(axes))):
            return x  # type: ignore[no-any-return]
    moved = [a for a in axes if not is_one(x.ty.shape[a])]
    if moved == sorted(moved):
        return call("reshape", x, newshape=tuple(x.ty.shape[a] for a in axes))
    return call("transpose", x, axes=axes)


def _elements(t: Any) -> float:
    if not isinstance(t, TensorType):
        return float(sum(map(_elements, getattr(t, "fields", ()))))
    return float(math.prod(d if isinstance(d, int) else _SYMBOLIC for d in t.shape))


def _named(fn: Function, start: str) -> list[Any]:
    return [n for n in post_order(fn.body) if op_name(n).startswith(start)]


def transpose_cost(fn: Function) -> tuple[int, float]:
    """(number of transposes of values, elements they move)."""
    found = [n for n in _named(fn, "transpose") if not isinstance(n.args[0], Constant)]
    return len(found), float(sum(_elements(n.ty) for n in found))


def _allowance(fn: Function) -> float:
    """Elements that may be moved for the sake of the operators that asked: their own, and the function's borders."""
    border = sum(_elements(p.ty) for p in fn.params) + _elements(fn.body.ty)
    return border + sum(_elements(n.ty) + _elements(n.args[0].ty) for n in _named(fn, "nn.conv"))


def convert_function(
    fn: Function, only: frozenset[str] | None, target: Target, pictures: bool, pairs: int = 0
) -> Function:
    """`fn` in channels-last layout; unchanged where it has no convolution or would move more than it gains."""
    names = {op_name(n) for n in post_order(fn.body)}
    asking = [n for n in names if n.startswith("nn.conv") and (only is None or n in only)]
    if not asking and not (only and only & names):
        return fn
    cv = Converter(only, target, pictures, pairs)
    for node in post_order(fn.body, enter=lambda n: not isinstance(n, Function)):
        cv.visit(node)
    new: Function = fn.replace(body=cv._plain(fn.body))
    if transpose_cost(new)[1] > transpose_cost(fn)[1] + _allowance(fn):
        return fn
    return new


def _wishes(desired: Any) -> tuple[bool, frozenset[str] | None]:
    """(channels last?, operators) of "NHWC", "NCHW", None or {"nn.conv2d": ["NHWC", "default"]}."""
    if desired is None or isinstance(desired, str):
        if desired not in (None, "NHWC", "NCHW"):
            raise UnsupportedError(f"layout {desired!r}", hint="NHWC (channels last) or NCHW (as the program says)")
        return desired == "NHWC", None
    names = set()
    for name, layouts in desired.items():
        first = layouts[0] if isinstance(layouts, list | tuple) else layouts
        if first in ("NHWC", "NWC", "NDHWC"):
            names.add(name)
        elif first not in ("NCHW", "NCW", "NCDHW", "default"):
            raise UnsupportedError(f"layout {first!r} of {name}", hint="NHWC, NWC or NDHWC; or NCHW for no change")
    return bool(names), frozenset(names)


@function_pass(opt_level=3, name="ConvertLayout", required=["InferType"])
class ConvertLayout:
    """Channels last where it was asked for.

    desired: "NHWC" for all convolutions and pooling, "NCHW" or None for no change, or the classic mapping from operator
    names to [data layout, kernel layout]; kernels always get the layout that goes with the data. target: whose cost
    model decides which convolutions do without (by default this machine's). pictures: whether a convolution may read a
    few plain maps, such as a picture's colours, and make a result with channels last. pairs: of how many channels, if
    they are last, one instruction takes the short numbers together, where such are asked for; else 0.
    """

    def __init__(
        self,
        desired: str | Mapping[str, Any] | None = "NHWC",
        target: Target | None = None,
        pictures: bool = True,
        pairs: int = 0,
    ) -> None:
        self.active, self.only = _wishes(desired)
        self.pictures, self.pairs = pictures, pairs
        self.target = get("native") if target is None else target

    def transform_function(self, fn: Function, mod: Any, ctx: Any) -> Function:
        return convert_function(fn, self.only, self.target, self.pictures, self.pairs) if self.active else fn
