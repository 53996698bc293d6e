"""Converters of ai.onnx.ml's linear models and support vector machines."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from warpbeam.frontend.onnx.build import Result, cast_to, like, reshape
from warpbeam.frontend.onnx.ml_scores import (
    Labels,
    array,
    features,
    rows,
    second_class,
    top,
    transform_of,
    transformed,
)  # fmt: skip
from warpbeam.frontend.onnx.node import NodeView
from warpbeam.op import get
from warpbeam.relay.expr import Expr


def _floats(node: NodeView, name: str) -> np.ndarray:
    return np.asarray(node.attr(name, ()) or (), np.float32)


def _matrix(node: NodeView, values: np.ndarray, count: int) -> np.ndarray:
    if count < 1 or values.size % count or not values.size:
        raise node.error(f"{values.size} coefficients for {count} rows")
    return values.reshape(count, -1)


def _linear(node: NodeView, x: Expr, weights: np.ndarray, offset: np.ndarray) -> Expr:
    features(node, x, weights.shape[1])
    y = get("nn.dense")(x, array(weights, x))
    return get("add")(y, array(offset, y)) if offset.size else y  # type: ignore[no-any-return]


def linear_regressor(node: NodeView, x: Expr) -> Result:
    """LinearRegressor."""
    weights = _matrix(node, _floats(node, "coefficients"), int(node.attr("targets", 1)))
    offset = _floats(node, "intercepts")
    if offset.size not in (0, weights.shape[0]):
        raise node.error(f"{offset.size} intercepts for {weights.shape[0]} targets")
    return transformed(_linear(node, rows(node, x), weights, offset), transform_of(node))


def linear_classifier(node: NodeView, x: Expr) -> Result:
    """LinearClassifier: label and scores. One row of coefficients with two labels decides by its sign."""
    labels, offset = Labels(node, "classlabels_ints"), _floats(node, "intercepts")
    count = offset.size or len(labels)
    scores = _linear(node, rows(node, x), _matrix(node, _floats(node, "coefficients"), count), offset)
    name = transform_of(node)
    if count > 1:
        if len(labels) < count:
            raise node.error(f"{len(labels)} labels for {count} classes")
        return [labels.of(top(scores)), transformed(scores, name)]
    positive = reshape(get("greater")(scores, like(0, scores)), _rows(scores))
    if len(labels) != 2:
        return [labels.either(positive), transformed(scores, name) if name == "PROBIT" else scores]
    return [labels.either(positive), second_class(scores, name, mixed=False)]


def _rows(x: Expr) -> tuple[Any, ...]:
    return (x.checked_type.shape[0],)  # type: ignore[attr-defined]


# ---------------------------------------------------------------------------------------------- support vector machines


def _kernel(node: NodeView, x: Expr, vectors: np.ndarray, linear: bool = False) -> Expr:
    """The kernel of every row with every vector, (rows, vectors)."""
    features(node, x, vectors.shape[1])
    kind = "LINEAR" if linear else str(node.attr("kernel_type", "LINEAR"))
    given = [float(v) for v in node.attr("kernel_params", ()) or ()]
    gamma, coefficient, degree = given if len(given) == 3 else (0.0, 0.0, 0.0)
    if kind == "RBF":
        gap = get("subtract")(get("expand_dims")(x, axis=1), array(vectors[None], x))
        far = get("sum")(get("multiply")(gap, gap), axis=(2,))
        return get("exp")(get("multiply")(far, like(-gamma, x)))  # type: ignore[no-any-return]
    dot = get("nn.dense")(x, array(vectors, x))
    if kind == "LINEAR":
        return dot  # type: ignore[no-any-return]
    scaled = get("add")(get("multiply")(dot, like(gamma, x)), like(coefficient, x))
    if kind == "POLY":
        return get("power")(scaled, like(degree, x))  # type: ignore[no-any-return]
    if kind == "SIGMOID":
        return get("tanh")(scaled)  # type: ignore[no-any-return]
    raise node.error(f"unknown kernel_type {kind[:20]!r}")


def svm_regressor(node: NodeView, x: Expr) -> Result:
    """SVMRegressor; one_class: the sign of the result."""
    weights, rho, count = _floats(node, "coefficients"), _floats(node, "rho"), int(node.attr("n_supports", 0))
    if not rho.size or not weights.size:
        raise node.error("needs coefficients and rho")
    data = rows(node, x)
    if count:
        kernel = _kernel(node, data, _matrix(node, _floats(node, "support_vectors"), count))
        y = get("nn.dense")(kernel, array(_matrix(node, weights, 1), data))
    else:
        y = _kernel(node, data, _matrix(node, weights, 1), linear=True)
    y = get("add")(y, like(float(rho[0]), y))
    if node.attr("one_class", 0):
        return get("where")(get("greater")(y, like(0, y)), like(1, y), like(-1, y))
    return transformed(y, transform_of(node))


def svm_classifier(node: NodeView, x: Expr) -> Result:
    """SVMClassifier: every pair of classes votes; probabilities by coupling the pairs where prob_a is given."""
    labels, name = Labels(node, "classlabels_ints"), transform_of(node)
    weights, rho = _floats(node, "coefficients"), _floats(node, "rho")
    sizes = [int(v) for v in node.attr("vectors_per_class", ()) or ()]
    data, classes = rows(node, x), len(labels)
    if not sum(sizes):
        return _linear_machine(node, data, labels, weights, rho, name)
    if len(sizes) != classes or rho.size < classes * (classes - 1) // 2 or min(sizes) < 0:
        raise node.error(f"{len(sizes)} sizes and {rho.size} offsets for {classes} classes")
    kernel = _kernel(node, data, _matrix(node, _floats(node, "support_vectors"), sum(sizes)))
    scores = _pairs(node, kernel, weights, rho, sizes)
    votes = _votes(scores, classes)
    a, b = _floats(node, "prob_a"), _floats(node, "prob_b")
    if a.size:
        if a.size != b.size or a.size < classes * (classes - 1) // 2:
            raise node.error("prob_a and prob_b do not have a value for every pair of classes")
        return [labels.of(top(votes)), transformed(_coupled(scores, a, b, classes), name)]
    if classes == 2:
        return [labels.of(top(votes)), second_class(scores, name, mixed=name == "NONE")]
    return [labels.of(top(votes)), transformed(scores, name) if classes > 2 else scores]


def _linear_machine(
    node: NodeView, x: Expr, labels: Labels, weights: np.ndarray, rho: np.ndarray, name: str
) -> list[Expr]:
    """A classifier without support vectors: one row of coefficients per class."""
    if not rho.size:
        raise node.error("needs rho")
    scores = _kernel(node, x, _matrix(node, weights, len(labels)), linear=True)
    scores = get("add")(scores, like(float(rho[0]), scores))
    if len(labels) != 2:
        return [labels.of(top(scores)), transformed(scores, name)]
    best = get("max")(scores, axis=(1,))
    sure = get("greater_equal")(best, like(0.5, best)) if weights.min() >= 0 else get("greater")(best, like(0, best))
    place = get("where")(sure, array(1, "int64"), cast_to(top(scores), "int64"))
    return [labels.of(place), transformed(scores, name)]


def _pairs(node: NodeView, kernel: Expr, weights: np.ndarray, rho: np.ndarray, sizes: list[int]) -> Expr:
    """The score of each pair of classes, (rows, pairs): one product with a matrix of both classes' coefficients."""
    total, classes = sum(sizes), len(sizes)
    if weights.size < (classes - 1) * total:
        raise node.error(f"{weights.size} coefficients for {classes} classes and {total} vectors")
    table = weights[: (classes - 1) * total].reshape(classes - 1, total)
    ends = np.cumsum([0, *sizes])
    pairs = list(itertools.combinations(range(classes), 2))
    matrix = np.zeros((len(pairs), total), np.float32)
    for k, (i, j) in enumerate(pairs):
        matrix[k, ends[i] : ends[i + 1]] = table[j - 1, ends[i] : ends[i + 1]]
        matrix[k, ends[j] : ends[j + 1]] = table[i, ends[j] : ends[j + 1]]
    y = get("nn.dense")(kernel, array(matrix, kernel))
    return get("add")(y, array(rho[: len(pairs)], y))  # type: ignore[no-any-return]


def _votes(scores: Expr, classes: int) -> Expr:
    """How many pairs each class wins, (rows, classes)."""
    pairs = list(itertools.combinations(range(classes), 2))
    first, second = (np.zeros((classes, len(pairs)), np.float32) for _ in range(2))
    for k, (i, j) in enumerate(pairs):
        first[i, k] = second[j, k] = 1
    won = cast_to(get("greater")(scores, like(0, scores)), "float32")
    lost = get("subtract")(like(1, won), won)
    return get("add")(get("nn.dense")(won, array(first, won)), get("nn.dense")(lost, array(second, won)))  # type: ignore[no-any-return]


def _coupled(scores: Expr, a: np.ndarray, b: np.ndarray, classes: int) -> Expr:
    """Probabilities of classes from those of pairs, which are a logistic function of the scores."""
    pairs = list(itertools.combinations(range(classes), 2))
    line = get("add")(get("multiply")(scores, array(a[: len(pairs)], scores)), array(b[: len(pairs)], scores))
    one, eps = like(1, scores), np.float32(1e-7)
    near = get("clip")(get("subtract")(one, get("sigmoid")(line)), a_min=float(eps), a_max=float(1 - eps))
    return get("pairwise_coupling")(near, classes=classes)  # type: ignore[no-any-return]


ML = "ai.onnx.ml::"
TABLE: dict[str, dict[int, Any]] = {
    f"{ML}LinearRegressor": {1: linear_regressor},
    f"{ML}LinearClassifier": {1: linear_classifier},
    f"{ML}SVMRegressor": {1: svm_regressor},
    f"{ML}SVMClassifier": {1: svm_classifier},
}
