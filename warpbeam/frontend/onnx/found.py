"""Sizes that are found at run time: one variable for each element of an integer tensor that is not known before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from warpbeam.frontend.onnx.build import cast_to, reshape, shape_of
from warpbeam.ir import dtype as dt
from warpbeam.ir.node import Attrs
from warpbeam.ir.rewrite import rewrite
from warpbeam.op import get
from warpbeam.relay.expr import Call, Constant, Expr, const
from warpbeam.relay.infer_dims import dim_vars
from warpbeam.relay.op import Op
from warpbeam.tir.expr import PrimExpr
from warpbeam.topi import dims

_WITH_SIZES = {"shape_tensor": "counted.shape_tensor", "arange": "counted.arange"}
_SAME_ELEMENTS = ("reshape", "squeeze", "expand_dims", "cast", "counted.given", "copy")


class Found:
    """The sizes of one model: variable -> (integer tensor, element of it)."""

    def __init__(self) -> None:
        self.sources: dict[Any, tuple[Expr, int]] = {}

    def size(self, name: str, source: Expr, element: int = 0) -> Any:
        """A new size with the value of an element of an integer tensor."""
        plain = "".join(c if c.isalnum() else "_" for c in name.rpartition("/")[2])[-24:]
        var = dims.counted(f"{plain if plain[:1].isalpha() else f'n_{plain}'}_{len(self.sources)}")
        self.sources[var] = (source, element)
        return var

    def content(self, values: Sequence[Any], shape: Sequence[int] | None = None, dtype: str = "int64") -> Expr:
        """A tensor of known integers and sizes, a vector unless a shape is given."""
        own = (len(values),) if shape is None else tuple(shape)
        if all(not isinstance(v, PrimExpr) for v in values):
            array = np.array([int(v) for v in values], object).astype(dt.to_numpy(dtype))
            return const(array.reshape(own), dtype)
        made = get("shape_tensor")(values=tuple(values), shape=own, dtype=dtype)
        return self.guarded(made, [])

    def shape(self, x: Expr) -> Expr:
        """The shape of a tensor as a vector of int64."""
        return self.content(list(shape_of(x)))

    def guarded(self, root: Expr, known: Sequence[Expr]) -> Expr:
        """`root` with every call over found sizes given the tensors they come from; `known` stays as it is."""
        if not self.sources:
            return root
        return rewrite(root, self._guard, {k: k for k in known})  # type: ignore[no-any-return]

    def _guard(self, node: Any) -> Expr | None:
        if not isinstance(node, Call) or not isinstance(node.op, Op):
            return None
        ready = [
            a for a in node.args[:1] if isinstance(a, Call) and isinstance(a.op, Op) and a.op.name == "counted.given"
        ]
        own = {e[0] for n in (node, *ready) for e in n.attrs.get("extents", ())}
        plain = Attrs({k: v for k, v in node.attrs.items() if k not in ("extents", "bounds")})
        given = set(dim_vars(*[a.ty for a in node.args]))
        need = [v for v in dim_vars(plain) if v in self.sources and v not in own and v not in given]
        if not need:
            return None
        tensors = list(dict.fromkeys(self.sources[v][0] for v in need))
        if not node.args:
            extents = tuple((v, tensors.index(self.sources[v][0]), self.sources[v][1]) for v in need)
            return get(_WITH_SIZES[node.op.name])(*tensors, **node.attrs, extents=extents)  # type: ignore[no-any-return]
        extents = tuple((v, 1 + tensors.index(self.sources[v][0]), self.sources[v][1]) for v in need)
        first = get("counted.given")(node.args[0], *tensors, extents=extents)
        return Call(node.op, (first, *node.args[1:]), node.attrs)


def _brings(x: Expr) -> bool:
    """Whether a value is there for the sizes that it brings."""
    return isinstance(x, Call) and isinstance(x.op, Op) and x.op.name == "counted.given"


def vector(x: Expr) -> Expr:
    """An integer tensor as a vector of int64."""
    flat = cast_to(x, "int64")
    return flat if flat.ty.ndim == 1 else reshape(flat, (dims.prod(shape_of(flat)),))


def elements(x: Expr) -> list[Any]:
    """What is known of the elements of an integer tensor of known size: numbers, sizes, or None each."""
    count = dims.prod(shape_of(x))
    if not isinstance(count, int) or count > 1024:
        return []
    while (
        isinstance(x, Call) and isinstance(x.op, Op) and x.op.name in _SAME_ELEMENTS and dt.is_int(x.args[0].ty.dtype)
    ):
        x = x.args[0]
    if isinstance(x, Constant):
        return [int(v) for v in x.numpy().reshape(-1)]
    if isinstance(x, Call) and isinstance(x.op, Op):
        if x.op.name in ("shape_tensor", "counted.shape_tensor"):
            return [dims.dim(v) for v in x.attrs["values"]]
        if x.op.name == "concatenate" and x.ty.ndim == 1:
            return [v for a in x.args for v in elements(a)]
    return [None] * count
