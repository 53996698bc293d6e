"""Converters of ai.onnx.ml's ensembles of decision trees: nodes become arrays, see `op.trees`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from warpbeam.frontend.onnx.build import Result, cast_to, dtype_of, fields, like, reshape, shape_of
from warpbeam.frontend.onnx.ml_scores import (
    Labels,
    array,
    rows,
    second_class,
    top,
    transform_of,
    transformed,
)  # fmt: skip
from warpbeam.frontend.onnx.node import NodeView
from warpbeam.op import get
from warpbeam.op.trees import MISSING, MODES
from warpbeam.relay.expr import Expr
from warpbeam.tir import expr as E

_COMBINE = {"SUM": "sum", "AVERAGE": "sum", "MIN": "min", "MAX": "max"}
LIMIT = 1 << 26


@dataclass
class Forest:
    """Nodes of all trees as arrays; leaves are their own children. first: where a node's entries begin, and the end."""

    feature: np.ndarray
    threshold: np.ndarray
    mode: np.ndarray
    yes: np.ndarray
    no: np.ndarray
    root: np.ndarray
    first: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    depth: int = 0

    def settle(self, node: NodeView) -> Forest:
        """Checks the indices, finds the depth.

        Raises:
            ImportModelError: where a child is no node, or a tree has a circle.
        """
        count = self.mode.size
        for name, at in (("child", self.yes), ("child", self.no), ("root", self.root)):
            if at.size and not (int(at.min()) >= 0 and int(at.max()) < count):
                raise node.error(f"a {name} outside the {count} nodes")
        if self.feature.size and int(self.feature.min()) < 0:
            raise node.error("a negative feature")
        at, own = np.unique(self.root), np.arange(count)
        inner = (self.yes != own) | (self.no != own)
        if (inner & ((self.yes == own) | (self.no == own))).any():
            raise node.error("a node is its own child")
        seen = 0
        while (at := at[inner[at]]).size:
            self.depth += 1
            seen += at.size
            if seen > count + self.root.size:
                raise node.error("a node with two parents, or below itself")
            at = np.concatenate([self.yes[at], self.no[at]])
        return self


def scores(node: NodeView, x: Expr, forest: Forest, targets: int, combine: str) -> tuple[Expr, Expr]:
    """(scores, which any leaf gave) of each row."""
    have, need = shape_of(x)[1], int(forest.feature.max(initial=-1)) + 1
    if isinstance(have, int):
        if have < need:
            raise node.error(f"looks at feature {need - 1}, the data has {have}")
    else:
        node.assume(E.binary(E.LE, E.as_expr(need), E.as_expr(have)))
    if forest.target.size and not 0 <= int(forest.target.min()) <= int(forest.target.max()) < targets:
        raise node.error(f"a leaf gives a target outside {targets}")
    whole = (forest.feature, forest.mode, forest.yes, forest.no, forest.first)
    feature, mode, yes, no, first = (array(v, "int32") for v in whole)
    operands = (feature, array(forest.threshold, x), mode, yes, no, first)
    leaves = (array(forest.root, "int32"), array(forest.target, "int32"), array(forest.weight, x))
    inner = forest.yes != np.arange(forest.yes.size)
    used = tuple(int(m) for m in np.unique(forest.mode[inner])) or (0,)
    found = get("trees.scores")(
        x, *operands, *leaves, targets=targets, depth=forest.depth, modes=used, combine=_COMBINE[combine]
    )
    score, hit = fields(found, 2)
    return score, hit


# ------------------------------------------------------------------------------------------------- versions 1 and 3


def _values(node: NodeView, name: str, dtype: Any) -> np.ndarray:
    if node.has_attr(f"{name}_as_tensor"):
        found = np.asarray(node.attr(f"{name}_as_tensor")).reshape(-1)
        if found.size:
            return found
    return np.asarray(node.attr(name, ()) or (), dtype)


def _texts(node: NodeView, name: str) -> list[str]:
    return [v.decode() if isinstance(v, bytes) else str(v) for v in node.attr(name, ()) or ()]


def _whole(node: NodeView, name: str, size: int | None = None, default: int = 0) -> np.ndarray:
    found = np.asarray(node.attr(name, ()) or (), np.int64)
    if size is not None and not found.size:
        return np.full(size, default, np.int64)
    if size is not None and found.size != size:
        raise node.error(f"{found.size} values of {name!r} for {size}")
    return found


def named_forest(node: NodeView, kind: str) -> Forest:
    """The trees of version 1 and 3, whose nodes have a tree and a number; `kind`: "target" or "class"."""
    modes = _texts(node, "nodes_modes")
    size = len(modes)
    trees, numbers = _whole(node, "nodes_treeids", size), _whole(node, "nodes_nodeids", size)
    place = {key: k for k, key in enumerate(zip(trees.tolist(), numbers.tolist(), strict=True))}
    if len(place) < size or not size:
        raise node.error("two nodes of one number" if size else "has no nodes")
    leaf = np.array([m == "LEAF" for m in modes])
    own = np.arange(size)
    children = []
    for name in ("nodes_truenodeids", "nodes_falsenodeids"):
        ids = _whole(node, name, size)
        at = [place.get(key, -1) for key in zip(trees.tolist(), ids.tolist(), strict=True)]
        children.append(np.where(leaf, own, at))
    missing = _whole(node, "nodes_missing_value_tracks_true", size)
    code = np.array([_mode(node, m) for m in modes]) + MISSING * (missing != 0)
    values = _values(node, "nodes_values", np.float32)
    features = np.where(leaf, 0, _whole(node, "nodes_featureids", size))
    first = dict.fromkeys(trees.tolist(), None)
    roots = np.array([_root(node, trees, children, leaf, t) for t in first])
    entries = [
        place.get(k, -1)
        for k in zip(*(_whole(node, f"{kind}_{n}").tolist() for n in ("treeids", "nodeids")), strict=True)
    ]
    starts, order = _grouped(node, np.array(entries, np.int64), size)
    targets, weights = _whole(node, f"{kind}_ids"), _values(node, f"{kind}_weights", np.float32)
    if values.size != size or not targets.size == weights.size == len(entries):
        raise node.error("its lists differ in length")
    return Forest(
        features, values, code, children[0], children[1], roots, starts, targets[order], weights[order]
    ).settle(node)


def _root(node: NodeView, trees: np.ndarray, children: list[np.ndarray], leaf: np.ndarray, tree: int) -> int:
    """The node of a tree that is nobody's child."""
    own = np.flatnonzero(trees == tree)
    inner = own[~leaf[own]]
    below = np.concatenate([children[0][inner], children[1][inner]])
    free = own[~np.isin(own, below)]
    if free.size != 1:
        raise node.error(f"tree {tree} has {free.size} nodes that are nobody's child")
    return int(free[0])


def _mode(node: NodeView, text: str) -> int:
    if text == "LEAF":
        return 0
    name = text.removeprefix("BRANCH_")
    if name not in MODES:
        raise node.error(f"unknown mode {text[:20]!r}")
    return MODES.index(name)


def _grouped(node: NodeView, at: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(where each node's entries begin, with the end; the order that puts entries of one node together)."""
    if at.size and (at.min() < 0 or at.max() >= size):
        raise node.error("a weight belongs to no node")
    order = np.argsort(at, kind="stable")
    return np.concatenate([[0], np.cumsum(np.bincount(at, minlength=size))]), order


def _data(node: NodeView, x: Expr) -> Expr:
    """Rows in the dtype that thresholds are compared in."""
    return rows(node, x, "float64" if dtype_of(x) == "float64" else "float32")


def regressor(node: NodeView, x: Expr) -> Result:
    """TreeEnsembleRegressor."""
    forest, targets = named_forest(node, "target"), int(node.attr("n_targets", 1))
    y = _aggregated(node, _data(node, x), forest, targets, _values(node, "base_values", np.float32))
    return cast_to(transformed(y, transform_of(node)), "float32")


def _aggregated(node: NodeView, x: Expr, forest: Forest, targets: int, base: np.ndarray) -> Expr:
    combine = str(node.attr("aggregate_function", "SUM"))
    if combine not in _COMBINE or not 0 < targets <= LIMIT:
        raise node.error(f"aggregate_function {combine[:20]!r} of {targets} targets")
    y, _ = scores(node, x, forest, targets, combine)
    if combine == "AVERAGE":
        y = get("divide")(y, like(forest.root.size, y))
    if base.size == targets:
        y = get("add")(y, array(base, y))
    return y


def classifier(node: NodeView, x: Expr) -> Result:
    """TreeEnsembleClassifier: label and scores of each class."""
    labels, name = Labels(node, "classlabels_int64s"), transform_of(node)
    forest, base = named_forest(node, "class"), _values(node, "base_values", np.float32)
    count = len(labels)
    y, hit = scores(node, _data(node, x), forest, count, "SUM")
    if count > 2:
        if base.size == count:
            y = get("add")(y, array(base, y))
        elif not base.size:  # classes that no leaf mentions cannot win
            low = get("where")(get("equal")(hit, like(0, hit)), like(-np.inf, y), y)
            return [labels.of(top(low)), cast_to(transformed(y, name), "float32")]
        return [labels.of(top(y)), cast_to(transformed(y, name), "float32")]
    if count == 2 and len(np.unique(forest.target)) == 2:
        return _two_scores(node, y, base, labels, name)
    return _one_score(node, y, forest, base, labels, name)


def _column(x: Expr, k: int) -> Expr:
    return get("strided_slice")(x, begin=(k,), end=(k + 1,), strides=(1,), axes=(1,))  # type: ignore[no-any-return]


def _two_scores(node: NodeView, y: Expr, base: np.ndarray, labels: Labels, name: str) -> Result:
    """Two classes whose leaves give scores of both."""
    if base.size == 2:
        y = get("add")(y, array(base, y))
    return [labels.of(top(y)), cast_to(transformed(y, name), "float32")]


def _one_score(node: NodeView, y: Expr, forest: Forest, base: np.ndarray, labels: Labels, name: str) -> Result:
    """One class's scores decide: above 0.5 where all weights are positive, else above 0."""
    own = int(forest.target[0]) if forest.target.size else 0
    score = _column(y, own)
    if base.size:
        score = get("add")(score, like(float(base[-1] if base.size == 2 else base[0]), score))
    positive = bool(forest.weight.size) and bool((forest.weight >= 0).all())
    above = get("greater")(score, like(0.5 if positive and len(labels) == 2 else 0.0, score))
    chosen = labels.either(reshape(above, (shape_of(y)[0],)))
    if len(labels) == 1:
        return [chosen, cast_to(score, "float32")]
    return [chosen, cast_to(second_class(score, name, mixed=not positive), "float32")]


# ------------------------------------------------------------------------------------------------------- version 5

_POST = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")
_KINDS = ("AVERAGE", "SUM", "MIN", "MAX")
_MEMBER = 6


def numbered_forest(node: NodeView) -> Forest:
    """The trees of version 5: inner nodes and leaves in two lists. Membership of a set becomes several equalities."""
    tensor = {n: np.asarray(node.attr(n)).reshape(-1) for n in ("nodes_splits", "nodes_modes", "leaf_weights")}
    inner = tensor["nodes_modes"].size
    feature = _whole(node, "nodes_featureids", inner)
    missing = _whole(node, "nodes_missing_value_tracks_true", inner)
    targets = _whole(node, "leaf_targetids")
    leaves = targets.size
    children = []
    for side in ("true", "false"):
        at, is_leaf = _whole(node, f"nodes_{side}nodeids", inner), _whole(node, f"nodes_{side}leafs", inner)
        limit = np.where(is_leaf != 0, leaves, inner)
        if (
            tensor["nodes_splits"].size != inner
            or tensor["leaf_weights"].size != leaves
            or (at < 0).any()
            or (at >= limit).any()
        ):
            raise node.error("its lists differ in length, or a child is no node")
        children.append(np.where(is_leaf != 0, at + inner, at))
    code, split = tensor["nodes_modes"].astype(np.int64), tensor["nodes_splits"]
    if code.size and (code.min() < 0 or code.max() > _MEMBER):
        raise node.error("unknown mode of a node")
    more = _members(node, code, children, inner + leaves)
    sets = np.array([m[0] for m in more], split.dtype)
    source = np.array([m[1] for m in more], np.int64)
    count = inner + leaves + len(more)
    none, own = np.zeros(leaves), np.arange(inner, inner + leaves)
    split = split.copy()
    for k, v in zip(*_first_members(code, node), strict=True):
        split[k] = v
    code = np.where(code == _MEMBER, MODES.index("EQ"), code) + MISSING * (missing != 0)
    equal = np.full(len(more), MODES.index("EQ"))
    yes = np.concatenate([children[0], own, children[0][source]])
    no = np.concatenate([children[1], own, np.array([m[2] for m in more], np.int64)])
    starts = np.concatenate([np.zeros(inner, np.int64), np.arange(leaves + 1), np.full(len(more), leaves)])[: count + 1]
    features = np.concatenate([feature, none, feature[source]])
    splits = np.concatenate([split, none.astype(split.dtype), sets])
    modes, roots, weights = np.concatenate([code, none, equal]), _whole(node, "tree_roots"), tensor["leaf_weights"]
    return Forest(features, splits, modes, yes, no, roots, starts, targets, weights).settle(node)


def _member_sets(code: np.ndarray, node: NodeView) -> list[np.ndarray]:
    """The set of each node that tests membership, in order."""
    places = np.flatnonzero(code == _MEMBER)
    if not places.size:
        return []
    values = np.asarray(node.attr("membership_values")).reshape(-1)
    ends = np.flatnonzero(np.isnan(values))
    if ends.size < places.size:
        raise node.error(f"{ends.size} sets for {places.size} tests of membership")
    begins = np.concatenate([[0], ends + 1])
    return [values[b:e] for b, e in zip(begins, ends[: places.size], strict=False)]


def _first_members(code: np.ndarray, node: NodeView) -> tuple[np.ndarray, list[float]]:
    """Each node that tests membership, and what it compares with itself; an empty set equals nothing."""
    return np.flatnonzero(code == _MEMBER), [s[0] if s.size else np.nan for s in _member_sets(code, node)]


def _members(node: NodeView, code: np.ndarray, children: list[np.ndarray], count: int) -> list[tuple[float, int, int]]:
    """Further nodes (value, the node whose true child is meant, false child) for sets of several values."""
    more: list[tuple[float, int, int]] = []
    for at, values in zip(np.flatnonzero(code == _MEMBER), _member_sets(code, node), strict=True):
        last = int(children[1][at])
        for value in values[:0:-1]:
            more.append((float(value), int(at), last))
            last = count + len(more) - 1
        children[1][at] = last
    return more


def tree_ensemble(node: NodeView, x: Expr) -> Result:
    """TreeEnsemble 5."""
    kind, post, targets = (
        int(node.attr(n, d)) for n, d in (("aggregate_function", 1), ("post_transform", 0), ("n_targets", 1))
    )
    if not (0 <= kind < len(_KINDS) and 0 <= post < len(_POST) and 0 < targets <= LIMIT):
        raise node.error("unknown aggregate_function or post_transform")
    data = rows(node, x, "float64" if dtype_of(x) == "float64" else "float32")
    forest = numbered_forest(node)
    y, _ = scores(node, data, forest, targets, _KINDS[kind])
    if _KINDS[kind] == "AVERAGE":
        y = get("divide")(y, like(forest.root.size, y))
    return cast_to(transformed(y, _POST[post]), dtype_of(x))


ML = "ai.onnx.ml::"
TABLE: dict[str, dict[int, Any]] = {
    f"{ML}TreeEnsembleRegressor": {1: regressor, 3: regressor},
    f"{ML}TreeEnsembleClassifier": {1: classifier, 3: classifier},
    f"{ML}TreeEnsemble": {5: tree_ensemble},
}
