"""What the classifiers and regressors of ai.onnx.ml do with raw scores: transforms, a second class, labels.

The specification leaves classifiers of two classes with one score open; what is done here is what onnxruntime does.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from warpbeam.frontend.onnx.build import cast_to, dtype_of, like, reshape, shape_of
from warpbeam.frontend.onnx.node import NodeView
from warpbeam.op import get
from warpbeam.relay.expr import Constant, Expr
from warpbeam.runtime.objects import current

TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")


def transform_of(node: NodeView) -> str:
    """The node's post_transform."""
    name = str(node.attr("post_transform", "NONE"))
    if name not in TRANSFORMS:
        raise node.error(f"unknown post_transform {name[:20]!r}")
    return name


def rows(node: NodeView, x: Expr, dtype: str = "float32") -> Expr:
    """The data as a matrix, one row per sample; a vector is one sample."""
    shape = shape_of(x)
    if len(shape) not in (1, 2):
        raise node.error(f"data of {len(shape)} dimensions")
    return cast_to(x if len(shape) == 2 else reshape(x, (1, *shape)), dtype)


def features(node: NodeView, x: Expr, count: int) -> None:
    """Refuses data with another number of features."""
    have = shape_of(x)[1]
    if isinstance(have, int) and have != count:
        raise node.error(f"takes {count} features, the data has {have}")


def array(values: Any, like_to: Expr | str) -> Expr:
    """A constant of another tensor's dtype."""
    dtype = like_to if isinstance(like_to, str) else dtype_of(like_to)
    return Constant(np.asarray(values, dtype))  # type: ignore[no-any-return]


def transformed(x: Expr, name: str) -> Expr:
    """post_transform of rows of scores, (rows, scores)."""
    if name == "LOGISTIC":
        return get("sigmoid")(x)  # type: ignore[no-any-return]
    if name == "SOFTMAX":
        return get("nn.softmax")(x, axis=-1)  # type: ignore[no-any-return]
    if name == "SOFTMAX_ZERO":
        return _softmax_zero(x)
    return _probit(x) if name == "PROBIT" else x


def _softmax_zero(x: Expr) -> Expr:
    """Softmax in which scores of zero stay zero; `small` is where it draws the line."""
    small = like(1e-7, x)
    top = get("max")(x, axis=(1,), keepdims=True)
    used = get("greater")(get("abs")(x), small)
    power = get("exp")(get("subtract")(x, top))
    total = get("sum")(get("where")(used, power, like(0, x)), axis=(1,), keepdims=True)
    rest = get("multiply")(x, get("exp")(get("negative")(top)))
    return get("divide")(get("where")(used, power, rest), total)  # type: ignore[no-any-return]


def _probit(x: Expr) -> Expr:
    """The inverse of the normal distribution, by Winitzki's approximation of the inverse error function."""
    a = 0.147
    t = get("subtract")(get("multiply")(x, like(2, x)), like(1, x))
    log = get("log")(get("multiply")(get("subtract")(like(1, x), t), get("add")(like(1, x), t)))
    v = get("add")(get("multiply")(log, like(0.5, x)), like(2 / (math.pi * a), x))
    inside = get("subtract")(get("multiply")(v, v), get("multiply")(log, like(1 / a, x)))
    size = get("sqrt")(get("subtract")(get("sqrt")(inside), v))
    signed = get("where")(get("less")(t, like(0, x)), get("negative")(size), size)
    return get("multiply")(signed, like(math.sqrt(2), x))  # type: ignore[no-any-return]


def second_class(x: Expr, name: str, mixed: bool) -> Expr:
    """Both classes' scores from one, (rows, 1) -> (rows, 2); mixed: weights of both signs were added up."""
    if name == "PROBIT":
        x = _probit(x)
    if name == "LOGISTIC":
        return get("sigmoid")(get("concatenate")(get("negative")(x), x, axis=1))  # type: ignore[no-any-return]
    other = get("negative")(x) if mixed else get("subtract")(like(1, x), x)
    return get("concatenate")(other, x, axis=1)  # type: ignore[no-any-return]


class Labels:
    """The classes of a classifier, integers or strings."""

    def __init__(self, node: NodeView, ints: str) -> None:
        strings = [_text(s) for s in node.attr("classlabels_strings", ()) or ()]
        whole = [int(v) for v in node.attr(ints, ()) or ()]
        if bool(strings) == bool(whole):
            raise node.error("needs labels that are either strings or integers")
        self.values: list[Any] = strings or whole
        self.strings = bool(strings)

    def __len__(self) -> int:
        return len(self.values)

    def constant(self, values: list[Any]) -> Expr:
        """Labels as a vector of int64; strings by their numbers."""
        numbers = current().encode(np.array(values, object)) if self.strings else np.array(values, np.int64)
        return Constant(numbers)  # type: ignore[no-any-return]

    def of(self, place: Expr) -> Expr:
        """The label at each place."""
        return get("take")(self.constant(self.values), place, axis=0)  # type: ignore[no-any-return]

    def either(self, positive: Expr) -> Expr:
        """One of two labels; "1" and "0" where there are not two."""
        two = self.values if len(self) == 2 else ["0", "1"] if self.strings else [0, 1]
        return get("take")(self.constant(two), cast_to(positive, "int64"), axis=0)  # type: ignore[no-any-return]


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def top(x: Expr) -> Expr:
    """The place of the largest score of each row, the first of equals."""
    return get("argmax")(x, axis=(1,), keepdims=False)  # type: ignore[no-any-return]
