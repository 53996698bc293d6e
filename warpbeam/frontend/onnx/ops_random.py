"""Converters of random operators, over Philox numbers (`op.random_ops`); Dropout with a seed, over the Mersenne Twister
(`op.random_twister`), from which the standard's reference draws it.

The numbers are a function of the node's seed; a node without one takes it from its name. So every run gives the same
numbers, and two nodes with one seed give the same.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any

from warpbeam.frontend.onnx.build import Result, cast_to, dtype_of, like, rank_of, shape_of
from warpbeam.frontend.onnx.node import NodeView
from warpbeam.frontend.onnx.tensors import elem_dtype
from warpbeam.op import get
from warpbeam.relay.expr import Expr, const


def key(node: NodeView) -> int:
    """The seed as a signed 64-bit integer."""
    if node.has_attr("seed"):
        value = node.attr("seed")
        data = value.to_bytes(8, "little", signed=True) if isinstance(value, int) else struct.pack("<d", value)
    else:
        data = hashlib.sha256(node.name.encode("utf-8", "replace")).digest()[:8]
    return int.from_bytes(data, "little", signed=True)


def numbers(node: NodeView, kind: str, shape: Any, dtype: str) -> Expr:
    """Numbers of a distribution in float32, or in float64 for that type."""
    inner = "float64" if dtype == "float64" else "float32"
    return get(f"random.{kind}")(const(key(node), "int64"), shape=tuple(shape), dtype=inner)  # type: ignore[no-any-return]


def _drawn(node: NodeView, kind: str, shape: Any, dtype: str) -> Expr:
    x = numbers(node, kind, shape, dtype)
    if kind == "normal":
        scale, shift = node.attr("scale", 1.0), node.attr("mean", 0.0)
    else:
        low = node.attr("low", 0.0)
        scale, shift = node.attr("high", 1.0) - low, low
    return cast_to(get("add")(get("multiply")(x, like(scale, x)), like(shift, x)), dtype)


def _plain(kind: str) -> Any:
    def convert(node: NodeView) -> Result:
        shape = node.attr("shape")
        if any(d < 0 for d in shape):
            raise node.error(f"shape {shape[:8]} has a negative dimension")
        return _drawn(node, kind, shape, elem_dtype(node.attr("dtype", 1), node.name))

    return convert


def _like(kind: str) -> Any:
    def convert(node: NodeView, x: Expr) -> Result:
        dtype = elem_dtype(node.attr("dtype"), node.name) if node.has_attr("dtype") else dtype_of(x)
        if not dtype.startswith(("float", "bfloat")):
            raise node.error(f"numbers of type {dtype}: it takes floating point; give dtype")
        return _drawn(node, kind, shape_of(x), dtype)

    return convert


def _bernoulli(node: NodeView, x: Expr) -> Result:
    """1 with the probability that x says, else 0."""
    dtype = elem_dtype(node.attr("dtype"), node.name) if node.has_attr("dtype") else dtype_of(x)
    units = numbers(node, "uniform", shape_of(x), dtype_of(x))
    return cast_to(get("less")(units, cast_to(x, dtype_of(units))), dtype)


def _multinomial(node: NodeView, x: Expr) -> Result:
    """Classes drawn with unnormalised log-probabilities x of shape (batch, classes): shape (batch, sample_size)."""
    if rank_of(x) != 2:
        raise node.error(f"takes (batch, classes), not {rank_of(x)} dimensions")
    count, (batch, classes) = node.attr("sample_size", 1), shape_of(x)
    wide = cast_to(x, "float64" if dtype_of(x) == "float64" else "float32")
    below = get("cumsum")(get("nn.softmax")(wide, axis=-1), axis=1)
    units = numbers(node, "uniform", (batch, count), dtype_of(wide))
    past = get("less_equal")(get("expand_dims")(below, axis=1), get("expand_dims")(units, axis=2))
    found = get("sum")(cast_to(past, "int64"), axis=(2,))
    last = const(classes - 1, "int64") if isinstance(classes, int) else node.found.content([classes - 1], ())
    return cast_to(get("minimum")(found, last), elem_dtype(node.attr("dtype", 6), node.name))


def dropout(node: NodeView, x: Expr, ratio: Expr | None, training: Expr | None) -> Result:
    """Dropout where `training` says so: (x / (1 - ratio) where kept, else 0; the mask of what is kept)."""
    wide = cast_to(x, "float64" if dtype_of(x) == "float64" else "float32")
    share = like(0.5, wide) if ratio is None else get("reshape")(cast_to(ratio, dtype_of(wide)), newshape=())
    units = numbers(node, "uniform", shape_of(x), dtype_of(x))
    if node.has_attr("seed"):
        units = get("random.twister")(const(key(node), "int64"), shape=tuple(shape_of(x)))
    kept = get("greater_equal")(units, cast_to(share, dtype_of(units)))
    scale = get("divide")(like(1.0, wide), get("subtract")(like(1.0, wide), share))
    flag = None if node.const(2) is not None else training
    if flag is not None:
        flag = cast_to(get("reshape")(flag, newshape=()), "bool")
        kept = get("logical_or")(kept, get("logical_not")(flag))
        scale = get("where")(flag, scale, like(1.0, wide))
    y = get("where")(kept, get("multiply")(wide, scale), like(0.0, wide))
    return [cast_to(y, dtype_of(x)), kept]


TABLE: dict[str, dict[int, Any]] = {
    "Bernoulli": {15: _bernoulli},
    "Multinomial": {7: _multinomial},
    "RandomNormal": {1: _plain("normal")},
    "RandomNormalLike": {1: _like("normal")},
    "RandomUniform": {1: _plain("uniform")},
    "RandomUniformLike": {1: _like("uniform")},
}
