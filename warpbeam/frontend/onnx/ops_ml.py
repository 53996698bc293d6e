"""Converters of ai.onnx.ml's operators on features: scaling, filling in, tables of labels, vectors of categories.

Strings are numbers (`runtime.objects`), so that tables with string keys or values are compiled like any other.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from warpbeam.frontend.onnx.build import Result, cast_to, dtype_of, like, reshape, shape_of
from warpbeam.frontend.onnx.ml_scores import array
from warpbeam.frontend.onnx.node import NodeView
from warpbeam.ir import dtype as dt
from warpbeam.op import get
from warpbeam.relay.expr import Constant, Expr, const
from warpbeam.runtime.objects import current
from warpbeam.tir import expr as E
from warpbeam.topi import dims

STRING = 8


def feature_extractor(node: NodeView, x: Expr, places: Expr) -> Result:
    """ArrayFeatureExtractor: columns of the last axis."""
    shape = shape_of(x)
    flat = reshape(places, (dims.prod(shape_of(places)),))
    y = get("take")(x, flat, axis=-1)
    return reshape(y, (1, *shape_of(y))) if len(shape) == 1 else y


def binarizer(node: NodeView, x: Expr) -> Result:
    """Binarizer: 1 where x is above the threshold."""
    limit = float(node.attr("threshold", 0.0))
    if dt.is_int(dtype_of(x)):
        limit = math.floor(limit)
    return cast_to(get("greater")(x, like(limit, x)), dtype_of(x))


def scaler(node: NodeView, x: Expr) -> Result:
    """Scaler: (x - offset) * scale, one of each or one per feature, in float32."""
    y = cast_to(x, "float32")
    for name, op in (("offset", "subtract"), ("scale", "multiply")):
        values = np.asarray(node.attr(name, ()) or (), np.float32)
        width = shape_of(x)[-1] if shape_of(x) else 1
        if values.size > 1 and dims.same(values.size, width) is False:
            raise node.error(f"{values.size} values of {name!r} for {width} features")
        if values.size:
            y = get(op)(y, array(values if values.size > 1 else values[0], y))
    return y


def normalizer(node: NodeView, x: Expr) -> Result:
    """Normalizer: each row by its largest value, its sum of sizes, or its length; rows of zeros stay."""
    kind, y = str(node.attr("norm", "MAX")), cast_to(x, "float32")
    axis = (0 if len(shape_of(x)) == 1 else 1,)
    if kind == "MAX":
        size = get("max")(y, axis=axis, keepdims=True)
    elif kind == "L1":
        size = get("sum")(get("abs")(y), axis=axis, keepdims=True)
    elif kind == "L2":
        size = get("sqrt")(get("sum")(get("multiply")(y, y), axis=axis, keepdims=True))
    else:
        raise node.error(f"unknown norm {kind[:20]!r}")
    return get("divide")(y, get("where")(get("equal")(size, like(0, y)), like(1, y), size))


def imputer(node: NodeView, x: Expr) -> Result:
    """Imputer: a value that stands for "unknown" is replaced, by one value or by one per feature."""
    kind = "int64s" if dt.is_int(dtype_of(x)) else "floats"
    new = np.asarray(node.attr(f"imputed_value_{kind}", ()) or ())
    old = node.attr(f"replaced_value_{kind[:-1]}", 0)
    width = shape_of(x)[-1] if shape_of(x) else 1
    if not new.size or (new.size > 1 and dims.same(new.size, width) is False):
        raise node.error(f"{new.size} imputed values for {width} features")
    lost = get("isnan")(x) if kind == "floats" and math.isnan(old) else get("equal")(x, like(old, x))
    return get("where")(lost, array(new if new.size > 1 else new[0], x), x)


# --------------------------------------------------------------------------------------------------------- tables


def _constants(values: Any) -> np.ndarray:
    """Values of an attribute as an array; strings as their numbers."""
    found = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in np.asarray(values).reshape(-1)]
    if found and isinstance(found[0], str):
        return current().encode(np.array(found, object))
    return np.asarray(found)


def _table(node: NodeView, x: Expr, keys: np.ndarray, values: np.ndarray, other: Any) -> Expr:
    """`x` looked up; of equal keys the first holds."""
    if keys.size != values.size or not keys.size:
        raise node.error(f"{keys.size} keys and {values.size} values")
    keys = keys.astype(dt.to_numpy(dtype_of(x)))
    _, first = np.unique(keys, return_index=True)
    order = first[np.argsort(keys[first], kind="stable")]
    wanted = np.asarray(other, values.dtype).reshape(())
    return get("lookup")(x, Constant(keys[order]), Constant(values[order]), Constant(wanted))  # type: ignore[no-any-return]


_DEFAULTS = {
    "strings": ("default_string", "_Unused"),
    "int64s": ("default_int64", -1),
    "floats": ("default_float", -0.0),
}


def label_encoder(node: NodeView, x: Expr) -> Result:
    """LabelEncoder 2 and 4: keys and values of strings, integers or floats, or tensors."""
    keys, _ = _column(node, "keys")
    values, kind = _column(node, "values")
    if node.has_attr("default_tensor"):
        other = _constants(node.attr("default_tensor")).reshape(-1)[:1]
    elif kind == "tensor":
        text = _is_text(node.attr("values_tensor"))
        other = _constants(["_Unused"] if text else [-1 if values.dtype.kind == "i" else -0.0])
    else:
        name, usual = _DEFAULTS[kind]
        other = _constants([node.attr(name, usual)])
    return _table(node, x, keys, values, other[0])


def _is_text(values: Any) -> bool:
    return np.asarray(values).dtype.kind in "OUS"


def _column(node: NodeView, side: str) -> tuple[np.ndarray, str]:
    for kind, dtype in (("tensor", None), ("strings", None), ("int64s", np.int64), ("floats", np.float32)):
        if node.has_attr(f"{side}_{kind}"):
            found = _constants(node.attr(f"{side}_{kind}"))
            return found if dtype is None else found.astype(dtype), kind
    raise node.error(f"has no {side}")


def label_encoder_1(node: NodeView, x: Expr) -> Result:
    """LabelEncoder 1: between strings and their places in classes_strings."""
    return _categories(node, x, list(node.attr("classes_strings", ()) or ()), None)


def category_mapper(node: NodeView, x: Expr) -> Result:
    """CategoryMapper: between strings and integers."""
    return _categories(node, x, list(node.attr("cats_strings", ())), list(node.attr("cats_int64s", ())))


def _categories(node: NodeView, x: Expr, texts: list[Any], numbers: list[int] | None) -> Expr:
    strings = _constants(texts)
    whole = np.arange(len(texts)) if numbers is None else np.asarray(numbers, np.int64)
    entry = node.entry(0)
    if entry is not None and entry.string:
        return _table(node, x, strings, whole, int(node.attr("default_int64", -1)))
    return _table(node, x, whole, strings, _constants([node.attr("default_string", "_Unused")])[0])


def one_hot_encoder(node: NodeView, x: Expr) -> Result:
    """OneHotEncoder: a row of the categories per element; what is none of them is refused where `zeros` is 0."""
    entry = node.entry(0)
    text = entry is not None and entry.string
    known = _constants(node.attr("cats_strings" if text else "cats_int64s", ()) or ())
    if not known.size:
        raise node.error(f"no categories for data of {'strings' if text else dtype_of(x)}")
    data = x if text else cast_to(x, "int64")
    same = get("equal")(get("expand_dims")(data, axis=len(shape_of(data))), array(known, "int64"))
    y = cast_to(same, "float32")
    if node.attr("zeros", 1):
        return y
    every = get("all")(get("any")(same, axis=(len(shape_of(x)),)), axis=None)
    whole = get("cast")(every, dtype="int64")
    size = node.found.size(node.name, whole)
    node.assume(E.binary(E.EQ, size, E.as_expr(1)))
    return get("counted.given")(y, whole, extents=((size, 1, 0),), bounds=(1,))


def feature_vectorizer(node: NodeView, *parts: Expr) -> Result:
    """FeatureVectorizer: operands side by side, each cut or filled with zeros to its number of features."""
    widths = [int(v) for v in node.attr("inputdimensions", ()) or ()]
    if len(widths) != len(parts) or not parts:
        raise node.error(f"{len(widths)} input dimensions for {len(parts)} inputs")
    out = []
    for x, width in zip(parts, widths, strict=True):
        shape = shape_of(x)
        data = cast_to(x if len(shape) == 2 else reshape(x, (*shape, 1) if len(shape) == 1 else (-1, 1)), "float32")
        have = shape_of(data)[1]
        if not isinstance(have, int):
            raise node.unsupported("a symbolic number of features")
        if have > width:
            data = get("strided_slice")(data, begin=(0,), end=(width,), strides=(1,), axes=(1,))
        elif have < width:
            data = get("nn.pad")(data, const(0, "float32"), pad_width=((0, 0), (0, width - have)))
        out.append(data)
    return out[0] if len(out) == 1 else get("concatenate")(*out, axis=1)


def text_results(node: NodeView, strings: bool) -> list[bool] | None:
    """Which results of an operator hold strings, where its attributes or operands decide; None: by its types."""
    if node.op_type in ("LabelEncoder", "CategoryMapper"):
        if node.op_type == "CategoryMapper" or node.opset < 2:
            return [not strings]
        tensor = node.has_attr("values_tensor") and _is_text(node.attr("values_tensor"))
        return [node.has_attr("values_strings") or tensor]
    if node.op_type.endswith("Classifier"):
        return [bool(node.attr("classlabels_strings", ())), False]
    return [False] if node.op_type == "OneHotEncoder" else None


ML = "ai.onnx.ml::"
TABLE: dict[str, dict[int, Any]] = {
    f"{ML}ArrayFeatureExtractor": {1: feature_extractor},
    f"{ML}Binarizer": {1: binarizer},
    f"{ML}Scaler": {1: scaler},
    f"{ML}Normalizer": {1: normalizer},
    f"{ML}Imputer": {1: imputer},
    f"{ML}LabelEncoder": {1: label_encoder_1, 2: label_encoder, 4: label_encoder},
    f"{ML}CategoryMapper": {1: category_mapper},
    f"{ML}OneHotEncoder": {1: one_hot_encoder},
    f"{ML}FeatureVectorizer": {1: feature_vectorizer},
}
